package member

import (
	"errors"
	"fmt"

	"github.com/copse-authz/copse"
)

// Reason says why there is no tenant for a token; metrics count by it.
type Reason string

// All reasons.
// The issuer is not registered; nobody is a member of that name; the tenant is suspended; the issuer may not
// speak for the tenant.
const (
	ReasonIssuer    Reason = "issuer"
	ReasonUnknown   Reason = "unknown"
	ReasonSuspended Reason = "suspended"
	ReasonBinding   Reason = "binding"
)

// What copse_token_hook_total counts besides the reasons.
const (
	resultGiven       Reason = "given"
	resultUnavailable Reason = "unavailable"
)

// Reasons lists them.
func Reasons() []Reason {
	return []Reason{ReasonIssuer, ReasonUnknown, ReasonSuspended, ReasonBinding}
}

// refusal is the cause inside a Denied.
// Its text can name tenants, and so must not be shown to who asked.
type refusal struct {
	reason Reason
	text   string
}

func (r *refusal) Error() string { return r.text }

// refuse has one text for whoever asks; the cause is for the log.
func refuse(reason Reason, format string, args ...any) error {
	return &copse.Error{Kind: copse.Denied, Detail: "no tenant for this token", Err: &refusal{reason, fmt.Sprintf(format, args...)}}
}

// ReasonOf is the reason of a refusal; empty for other errors.
func ReasonOf(err error) Reason {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.reason
	}
	return ""
}
