package copse

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Kind says what went wrong, in terms a transport can turn into a status. Every transport has a
// table indexed by Kind, and a test that ranges over [Kinds].
type Kind uint8

// Internal is the zero value on purpose: an error nobody classified must not look like a client's
// mistake, and its detail must not leave the process.
const (
	Internal        Kind = iota // a defect or a failing part of copse; detail stays inside
	Invalid                     // the request can't be understood or breaks a rule
	Unauthenticated             // no credential, or one that does not verify
	Denied                      // a verified credential that may not do this
	NotFound                    // absent, or outside what the caller's credential covers
	Conflict                    // changed meanwhile, or the name is taken
	QuotaExceeded               // a size or count limit of the policy store
	TooManyTags                 // more tags than a resource may carry
	Throttled                   // a rate limit; try again later
	InvalidState                // the resource's state forbids it (deletion protection)
	Unavailable                 // copse can't know the answer now; try again later
)

var kindNames = [...]string{
	"Internal", "Invalid", "Unauthenticated", "Denied", "NotFound", "Conflict",
	"QuotaExceeded", "TooManyTags", "Throttled", "InvalidState", "Unavailable",
}

// Kinds lists every Kind, for tables and the tests that range over them.
func Kinds() []Kind {
	kinds := make([]Kind, len(kindNames))
	for i := range kinds {
		kinds[i] = Kind(i)
	}
	return kinds
}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// ResourceType names what an error is about, in AVP's words.
type ResourceType string

// The resources errors speak of. Tenant, issuer, access key, plan and member are copse's own.
const (
	ResourcePolicyStore    ResourceType = "POLICY_STORE"
	ResourceAlias          ResourceType = "POLICY_STORE_ALIAS"
	ResourcePolicy         ResourceType = "POLICY"
	ResourceTemplate       ResourceType = "POLICY_TEMPLATE"
	ResourceSchema         ResourceType = "SCHEMA"
	ResourceIdentitySource ResourceType = "IDENTITY_SOURCE"
	ResourceTenant         ResourceType = "TENANT"
	ResourceIssuer         ResourceType = "ISSUER"
	ResourceAccessKey      ResourceType = "ACCESS_KEY"
	ResourcePlan           ResourceType = "PLAN"
	ResourceMember         ResourceType = "MEMBER"
)

// Field is one finding about a request: where and what.
type Field struct {
	Path    string // member path in the request, or file name: "definition.static.statement"
	Message string
	Line    int // 1-based position inside the text at Path; 0 when there is none
	Column  int // 1-based, in bytes
}

// Error is the one error type that crosses package borders.
type Error struct {
	Kind     Kind
	Resource ResourceType // what it is about; may be empty
	ID       string       // which one; may be empty
	Detail   string       // for the caller, unless Kind is Internal: then for the log only
	Fields   []Field      // findings, when there are several or they have a place
	Err      error        // cause, for the log; never shown to a caller
}

// Errorf makes an Error of a kind whose Detail is the formatted text. A %w verb keeps the cause.
func Errorf(kind Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Detail: err.Error(), Err: errors.Unwrap(err)}
}

// NotFoundError is the answer for a resource that is absent or not the caller's to see. The two are
// one answer on purpose: another tenant's object does not exist.
func NotFoundError(resource ResourceType, id string) *Error {
	return &Error{Kind: NotFound, Resource: resource, ID: id,
		Detail: fmt.Sprintf("%s %q does not exist", strings.ReplaceAll(strings.ToLower(string(resource)), "_", " "), id)}
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Detail)
	if e.Detail == "" {
		b.WriteString(e.Kind.String())
	}
	for _, f := range e.Fields {
		b.WriteString("; ")
		b.WriteString(f.Path)
		if f.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", f.Line, f.Column)
		}
		b.WriteString(": ")
		b.WriteString(f.Message)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// KindOf classifies any error. Unknown errors are Internal; a context that ended is Unavailable.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return Unavailable
	}
	return Internal
}
