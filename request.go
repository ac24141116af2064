package copse

import (
	"context"

	"github.com/cedar-policy/cedar-go/types"
)

// Format says how the bytes of a [Data] are written.
type Format uint8

// The formats a decision's entities and context come in.
const (
	FormatNone      Format = iota // no data
	FormatAVPList                 // AVP entityList: a JSON array of EntityItem
	FormatAVPMap                  // AVP contextMap: a JSON object of AttributeValue
	FormatCedarJSON               // Cedar's own JSON: an array of entities, or a record
)

// Data is entities or context as they arrived. Transports cut it out of the message and never look
// inside; only the engine decodes it.
type Data struct {
	Format Format
	Bytes  []byte
}

// Request asks for one decision.
type Request struct {
	PolicyStoreID PolicyStoreID
	// Incarnation, when not zero, must be the policy store's: a directory entry read before a
	// policy store was deleted and made again then finds NotFound instead of a stranger.
	Incarnation Incarnation

	Principal, Action, Resource types.EntityUID

	// What the caller sent.
	Context, Entities Data
	// What copse itself found out from a verified token. Set by token mapping only. Caller data
	// that defines what these define is refused.
	ServerContext, ServerEntities Data
	// Reserved entity types: the principal and group types of the issuer whose token this is. Caller
	// entities of these types are refused, so that nothing a caller sends can define the principal.
	ReservedTypes []types.EntityType
}

// Decision is a verdict. Its zero value is Deny, so that an unset or failed one never allows.
type Decision uint8

// The two verdicts.
const (
	Deny Decision = iota
	Allow
)

// String is AVP's spelling.
func (d Decision) String() string {
	if d == Allow {
		return "ALLOW"
	}
	return "DENY"
}

// EvaluationError is a policy that could not be evaluated for this request. Cedar skips such a
// policy; the answer says so.
type EvaluationError struct {
	Policy  PolicyRef
	Message string
}

// Response is the answer to a [Request].
type Response struct {
	Decision Decision
	// Determining policies, sorted by id: the satisfied forbids on a denial by policy, the satisfied
	// permits on an allowance, none when no policy applied.
	Determining []PolicyRef
	// Errors, sorted by policy id.
	Errors []EvaluationError
	// Revision of the policy store that decided.
	Revision uint64
	// Considered counts the policies whose scope matched the request.
	Considered int
	// OverBudget: the decision was cut short; it is then Deny with one error and no policy.
	OverBudget bool
	// ForbidFailed: a forbid could not be evaluated, and the policy store is set to deny then
	// ([Settings.ForbidErrorsDeny]). No policy is determining; Errors say which failed.
	ForbidFailed bool
}

// Decider decides requests.
type Decider interface {
	// Decide answers from exactly one policy store at one revision. With an error the Response is
	// its zero value. Errors: Invalid for a request that can't be read or breaks a rule, NotFound
	// for an unknown policy store or another incarnation, Unavailable when the answer can't be known.
	Decide(ctx context.Context, req *Request) (Response, error)
}
