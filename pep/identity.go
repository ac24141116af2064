package pep

import (
	"context"
	"net/http"
	"time"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/bound"
	"github.com/copse-authz/copse/internal/token"
)

// Identity is who a request is for, proven by the user's token, and what was decided. It is shared
// between goroutines and must not be changed; no decision reads its exported fields.
type Identity struct {
	Tenant    copse.TenantID
	Principal types.EntityUID
	Issuer    string
	Expires   time.Time // of the token; nothing is decided for it afterwards
	// GatewayDecision is the id of the gateway's decision, from the signed context, for logs. Empty
	// without one.
	GatewayDecision string
	// Decision on what the route's Hook asked. Its zero value, DENY, where none was made.
	Decision copse.Response

	pep      *PEP
	entry    copse.DirectoryEntry
	verified *token.Verified
}

type identityKey struct{}

// From returns the identity that the middleware put into a request's context; nil without the
// middleware, which every method takes for nobody.
func From(ctx context.Context) *Identity {
	who, _ := ctx.Value(identityKey{}).(*Identity)
	return who
}

// Question is what a decision is asked on. Entities describe the resource and what it refers to;
// Context is what the service knows of the request. Both may be left out.
type Question struct {
	Action, Resource  types.EntityUID
	Context, Entities copse.Data
}

// Ask makes a question of an action and a resource: Ask("view", "Invoice", "17").
func Ask(action, resourceType, resourceID string) Question {
	return Question{
		Action:   types.NewEntityUID("Action", types.String(action)),
		Resource: types.NewEntityUID(types.EntityType(resourceType), types.String(resourceID)),
	}
}

// WithEntities describes the question's resource in Cedar's JSON: an array of entities.
func (q Question) WithEntities(cedarJSON []byte) Question {
	q.Entities = copse.Data{Format: copse.FormatCedarJSON, Bytes: cedarJSON}
	return q
}

// WithContext adds what the service knows of the request in Cedar's JSON: an object.
func (q Question) WithContext(cedarJSON []byte) Question {
	q.Context = copse.Data{Format: copse.FormatCedarJSON, Bytes: cedarJSON}
	return q
}

// ask has the service's question decided, and returns the identity with the answer.
func (i *Identity) ask(r *http.Request, hook Hook) (*Identity, error) {
	q, err := hook(r, i)
	if err != nil {
		return nil, &refusal{result: resultService, err: err}
	}
	decided := *i
	// The entry was looked up a moment ago, for this request.
	if decided.Decision, err = i.decideAt(r.Context(), &i.entry, &q); err != nil {
		return nil, err
	}
	if decided.Decision.Decision != copse.Allow {
		return nil, &refusal{result: resultDeny, err: copse.Errorf(copse.Denied, "denied")}
	}
	return &decided, nil
}

// Decide answers a further question for the same user. The tenant's state is read again, and the token
// must not have expired: Denied and Unauthenticated otherwise.
func (i *Identity) Decide(ctx context.Context, q Question) (copse.Response, error) {
	entry, err := i.stands(ctx)
	if err != nil {
		return copse.Response{}, err
	}
	return i.decideAt(ctx, &entry, &q)
}

// How often a list of questions is begun again because the policy store changed under it.
const maxRestarts = 3

// DecideAll answers questions in their order, all by one revision of the policy store. An error on one
// of them is an error on all.
func (i *Identity) DecideAll(ctx context.Context, questions []Question) ([]copse.Response, error) {
	entry, err := i.stands(ctx)
	if err != nil {
		return nil, err
	}
	answers := make([]copse.Response, len(questions))
	for range maxRestarts {
		one := true
		for n := range questions {
			if answers[n], err = i.decideAt(ctx, &entry, &questions[n]); err != nil {
				return nil, err
			}
			one = one && answers[n].Revision == answers[0].Revision
		}
		if one {
			return answers, nil
		}
	}
	return nil, copse.Errorf(copse.Unavailable, "the policy store changes too fast for %d questions at one revision; try again", len(questions))
}

// Filter returns the items whose question is answered ALLOW, in their order, for the user of the
// context. An error returns none.
func Filter[T any](ctx context.Context, items []T, ask func(T) Question) ([]T, error) {
	questions := make([]Question, len(items))
	for n := range items {
		questions[n] = ask(items[n])
	}
	answers, err := From(ctx).DecideAll(ctx, questions)
	if err != nil {
		return nil, err
	}
	var allowed []T
	for n := range items {
		if answers[n].Decision == copse.Allow {
			allowed = append(allowed, items[n])
		}
	}
	return allowed, nil
}

// stands finds the tenant again, which may have been suspended, deleted or made anew since the request
// came.
func (i *Identity) stands(ctx context.Context) (copse.DirectoryEntry, error) {
	if i == nil || i.verified == nil {
		return copse.DirectoryEntry{}, copse.Errorf(copse.Unauthenticated, "nobody's token was verified: the handler is not behind pep's middleware")
	}
	if !time.Now().Before(i.verified.Expires) {
		return copse.DirectoryEntry{}, copse.Errorf(copse.Unauthenticated, "the token has expired")
	}
	entry, err := i.pep.pdp.Lookup(ctx, i.entry.Tenant)
	gone := err != nil && copse.KindOf(err) == copse.NotFound
	if err == nil {
		gone = entry.State != copse.TenantActive || entry.Tenant != i.entry.Tenant || entry.Incarnation != i.entry.Incarnation
	}
	if gone {
		return copse.DirectoryEntry{}, &copse.Error{Kind: copse.Denied, Resource: copse.ResourceTenant, Detail: "the tenant is not active any more", Err: err}
	}
	return entry, err
}

func (i *Identity) decideAt(ctx context.Context, entry *copse.DirectoryEntry, q *Question) (copse.Response, error) {
	if bound.Disagrees(ctx, entry.Tenant) {
		return copse.Response{}, copse.Errorf(copse.Denied, "the context is bound to another tenant than the token's")
	}
	answer, err := i.pep.pdp.Decide(ctx, &copse.Request{
		PolicyStoreID: entry.PolicyStoreID, Incarnation: entry.Incarnation,
		Principal: i.verified.Principal, Action: q.Action, Resource: q.Resource,
		Context: q.Context, Entities: q.Entities,
		ServerContext: i.verified.Context, ServerEntities: i.verified.Entities,
		ReservedTypes: i.verified.ReservedTypes,
	})
	if err != nil {
		return copse.Response{}, err
	}
	return answer, nil
}
