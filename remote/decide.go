package remote

import (
	"context"
	"net/http"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
)

// question is the body of IsAuthorized. The member copse, which AVP does not have, carries what a
// verified token says apart from what the caller says, so that copse's engine refuses the same as in
// process. Members that say nothing are left out, as AVP's model has them optional. The member copse is
// always sent: its answer is how a copse server is told from any other.
type question struct {
	PolicyStoreID copse.PolicyStoreID `json:"policyStoreId"`
	Principal     entityID            `json:"principal"`
	Action        actionID            `json:"action"`
	Resource      entityID            `json:"resource"`
	Context       *variant            `json:"context,omitzero"`
	Entities      *variant            `json:"entities,omitzero"`
	Copse         verifiedPart        `json:"copse"`
}

// verifiedPart holds what only the server's own knowledge may be taken for; see
// internal/avp, which reads it.
type verifiedPart struct {
	Incarnation   *copse.Incarnation `json:"incarnation,omitzero"`
	Context       *variant           `json:"context,omitzero"`
	Entities      *variant           `json:"entities,omitzero"`
	ReservedTypes []types.EntityType `json:"reservedTypes,omitempty"`
}

// entityID is AVP's word for an entity's identifier.
type entityID struct {
	Type string `json:"entityType"`
	ID   string `json:"entityId"`
}

// actionID has other names for the same two texts.
type actionID struct {
	Type string `json:"actionType"`
	ID   string `json:"actionId"`
}

// variant has exactly one member. The bytes are put into the message as they are, and are looked at by
// the server's engine.
type variant struct {
	CedarJSON  string         `json:"cedarJson,omitzero"`
	EntityList jsontext.Value `json:"entityList,omitzero"`
	ContextMap jsontext.Value `json:"contextMap,omitzero"`
}

// variantOf is nil for no data, so that none and an empty record stay apart.
func variantOf(d copse.Data) *variant {
	switch d.Format {
	case copse.FormatNone:
		return nil
	case copse.FormatAVPList:
		return &variant{EntityList: d.Bytes}
	case copse.FormatAVPMap:
		return &variant{ContextMap: d.Bytes}
	case copse.FormatCedarJSON:
		return &variant{CedarJSON: string(d.Bytes)}
	default:
		return &variant{} // which is refused
	}
}

// decided is the answer. Without the member copse it is not a copse's, or one too old to have kept the
// token's word and the caller's apart. An answer must have it, or nothing is decided.
type decided struct {
	Decision string `json:"decision"`
	Copse    *struct {
		Revision     uint64      `json:"revision"`
		Considered   int         `json:"considered"`
		OverBudget   bool        `json:"overBudget"`
		ForbidFailed bool        `json:"forbidFailed"`
		Determining  []policyRef `json:"determining"`
		Errors       []struct {
			Policy  policyRef `json:"policy"`
			Message string    `json:"message"`
		} `json:"errors"`
	} `json:"copse"`
}

// policyRef has the members of [copse.PolicyRef], so that one converts to the other.
type policyRef struct {
	ID   copse.PolicyID `json:"id"`
	Name string         `json:"name"`
}

// Decide asks the server. What can't be known is Unavailable, and never an ALLOW. An error may also be
// any that the server refuses a request with, such as Invalid or NotFound; the response beside an error
// is the zero one, a DENY.
func (p *PDP) Decide(ctx context.Context, req *copse.Request) (copse.Response, error) {
	q := question{
		PolicyStoreID: req.PolicyStoreID,
		Principal:     entityID{string(req.Principal.Type), string(req.Principal.ID)},
		Action:        actionID{string(req.Action.Type), string(req.Action.ID)},
		Resource:      entityID{string(req.Resource.Type), string(req.Resource.ID)},
		Context:       variantOf(req.Context), Entities: variantOf(req.Entities),
		Copse: verifiedPart{Context: variantOf(req.ServerContext), Entities: variantOf(req.ServerEntities), ReservedTypes: req.ReservedTypes},
	}
	// With it the server decides only while the policy store is the one that was looked up.
	if !req.Incarnation.IsZero() {
		q.Copse.Incarnation = &req.Incarnation
	}
	for _, d := range []copse.Data{req.Context, req.Entities, req.ServerContext, req.ServerEntities} {
		if !utf8.Valid(d.Bytes) {
			return copse.Response{}, copse.Errorf(copse.Invalid, "entities and context must be UTF-8")
		}
	}
	body, err := json.Marshal(&q) // refuses what is not UTF-8: another byte in its place would be another entity
	if err != nil {
		return copse.Response{}, copse.Errorf(copse.Invalid, "the request can't be written as JSON: %w", err)
	}
	// The server would refuse it after reading as much.
	if len(body) > copse.MaxRequestBytes {
		return copse.Response{}, copse.Errorf(copse.Invalid, "the request has %d bytes, at most %d are allowed", len(body), copse.MaxRequestBytes)
	}
	a, err := p.call(ctx, &message{method: http.MethodPost, path: "/", target: "VerifiedPermissions.IsAuthorized", body: body})
	if err != nil {
		return copse.Response{}, err
	}
	// A refusal in AVP's words, or what a proxy says of itself: refusal tells the two apart.
	if a.status != http.StatusOK {
		return copse.Response{}, a.refusal()
	}
	return a.response()
}

func (a *answer) response() (copse.Response, error) {
	var d decided
	if err := json.Unmarshal(a.body, &d); err != nil || d.Copse == nil || d.Decision != "ALLOW" && d.Decision != "DENY" {
		return copse.Response{}, &copse.Error{Kind: copse.Unavailable, Err: err,
			Detail: "what answered is no copse server, or one older than this library"}
	}
	// From here on the answer is whole. A decision that is unknown was refused above: taken for a DENY it
	// would look like an answer.
	out := copse.Response{
		Revision: d.Copse.Revision, Considered: d.Copse.Considered, OverBudget: d.Copse.OverBudget, ForbidFailed: d.Copse.ForbidFailed,
	}
	for _, ref := range d.Copse.Determining {
		out.Determining = append(out.Determining, copse.PolicyRef(ref))
	}
	for _, e := range d.Copse.Errors {
		out.Errors = append(out.Errors, copse.EvaluationError{Policy: copse.PolicyRef(e.Policy), Message: e.Message})
	}
	// Only this makes an ALLOW: the zero Response is a DENY.
	if d.Decision == "ALLOW" {
		out.Decision = copse.Allow
	}
	return out, nil
}

// refusal is the error that an exception of the AVP API stands for. A body or an exception that is not
// known is Unavailable: it could be a proxy's.
func (a *answer) refusal() error {
	var body struct {
		Message string `json:"message"`
		Fields  []struct {
			Path    string `json:"path"`
			Message string `json:"message"`
		} `json:"fieldList"`
		ResourceType copse.ResourceType `json:"resourceType"`
		ResourceID   string             `json:"resourceId"`
	}
	kind, known := kinds[a.errorType]
	if err := json.Unmarshal(a.body, &body); err != nil || !known {
		return copse.Errorf(copse.Unavailable, "the copse server answered %d, which says nothing of the request", a.status)
	}
	out := &copse.Error{Kind: kind, Resource: body.ResourceType, ID: body.ResourceID, Detail: body.Message}
	for _, f := range body.Fields {
		out.Fields = append(out.Fields, copse.Field{Path: f.Path, Message: f.Message})
	}
	return out
}
