package api

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/decisionlog"
)

func registerDecisions(a *API, h huma.API) {
	register(a, h, route{method: http.MethodGet, path: "/v1/decisions", id: "searchDecisions", tag: tagDecisionLog, status: http.StatusOK,
		summary:     "Search the decision log",
		description: "The last decisions that match, the oldest first; with after, the first ones after that line. One call reads about 64 MB of the log at most, and may find fewer than there are: before and next say where to go on. A key with the verb read sees those of the policy stores it covers, and no others."}, (*API).searchDecisions)
	register(a, h, route{method: http.MethodGet, path: "/v1/decisions/keys", id: "listDecisionKeys", tag: tagDecisionLog, status: http.StatusOK,
		summary: "The public keys that the decision log is signed with"}, (*API).decisionKeys)
}

// DecisionQuery is exported for the same reason as [Paging].
type DecisionQuery struct {
	Tenant        string    `query:"tenant" maxLength:"256" doc:"Of this tenant."`
	PolicyStoreID string    `query:"policyStoreId" maxLength:"200" doc:"Of this policy store."`
	Principal     string    `query:"principal" maxLength:"2000" doc:"Who asked." example:"User::\"alice\""`
	Action        string    `query:"action" maxLength:"2000" doc:"What for." example:"Action::\"view\""`
	Resource      string    `query:"resource" maxLength:"2000" doc:"Of what." example:"Invoice::\"17\""`
	Decision      string    `query:"decision" enum:"ALLOW,DENY" doc:"What was answered."`
	From          time.Time `query:"from" doc:"Not before."`
	To            time.Time `query:"to" doc:"Before."`
	After         string    `query:"after" maxLength:"200" doc:"Only later lines: next of an earlier answer."`
	Before        string    `query:"before" maxLength:"200" doc:"Only earlier lines: before of an earlier answer."`
	MaxResults    int       `query:"maxResults" minimum:"1" default:"50" doc:"The most an answer may hold; more than 500 is taken as 500."`
}

// searchDecisions shows what the key may Read when it is asked, whatever it could read
// when it was decided.
func (a *API) searchDecisions(ctx context.Context, c access.Caller, in *DecisionQuery) (*struct{ Body DecisionList }, error) {
	// May is asked for each line, so no filter of the caller's can lead beyond it.
	f := decisionlog.Filter{
		May:    func(id copse.PolicyStoreID, tenant copse.TenantID) bool { return c.May(access.Read, id, tenant) },
		Tenant: copse.TenantID(in.Tenant), PolicyStoreID: copse.PolicyStoreID(in.PolicyStoreID),
		Action: in.Action, Decision: in.Decision,
		From: in.From, To: in.To,
	}
	var err error
	// Positions of this list only: one of the audit log does not open here.
	if f.After, err = a.number(c, listDecisions, "after", in.After); err != nil {
		return nil, err
	}
	if f.Before, err = a.number(c, listDecisions, "before", in.Before); err != nil {
		return nil, err
	}
	// What was logged may be hashed by the rules of its policy store, so an identifier is looked for as
	// it is and as that hashes it.
	id, err := a.rulesOf(ctx, c, in)
	if err != nil {
		return nil, err
	}
	if f.Principal, err = a.loggedAs(ctx, c, id, in.Principal); err != nil {
		return nil, err
	}
	if f.Resource, err = a.loggedAs(ctx, c, id, in.Resource); err != nil {
		return nil, err
	}
	out := &struct{ Body DecisionList }{Body: DecisionList{Decisions: []LoggedDecision{}}}
	results, err := a.decisions.Search(ctx, &f, min(max(in.MaxResults, 1), maxResults))
	if err != nil {
		return nil, err
	}
	for _, line := range results.Found {
		d, err := line.Decision()
		if err != nil {
			return nil, err
		}
		out.Body.Decisions = append(out.Body.Decisions, LoggedDecision{
			Line: numberFor(c, line.N), Time: d.Time, RequestID: d.RequestID, Via: d.Via, Key: d.Key,
			Tenant: string(d.Tenant), PolicyStoreID: string(d.PolicyStoreID), Revision: d.Revision,
			Principal: d.Principal, Action: d.Action, Resource: d.Resource,
			Context: LoggedValues(d.Context), PrincipalAttributes: LoggedValues(d.PrincipalAttributes), ResourceAttributes: LoggedValues(d.ResourceAttributes),
			Decision: d.Decision, Layer: d.Layer,
			Determining: d.Determining, Errors: d.Errors, OverBudget: d.OverBudget, Micros: d.Micros,
		})
	}
	// A search that found nothing still moves on: the position is never before the one it began after.
	out.Body.Next, out.Body.Before = a.position(c, listDecisions, max(results.Next, f.After)), a.earlierPosition(c, listDecisions, results.Before)
	return out, nil
}

// rulesOf is the policy store whose rules hash the identifiers that the query looks for: the one it
// names, or its tenant's. Empty: there is none, or the caller's key does not cover it. A tenant that
// does not exist, or whose name can't be one, is none: the search then finds nothing either.
func (a *API) rulesOf(ctx context.Context, c access.Caller, in *DecisionQuery) (copse.PolicyStoreID, error) {
	if in.PolicyStoreID != "" || in.Tenant == "" || in.Principal == "" && in.Resource == "" {
		return copse.PolicyStoreID(in.PolicyStoreID), nil
	}
	t, err := a.tenants.Get(ctx, c, copse.TenantID(in.Tenant))
	if err != nil && copse.KindOf(err) != copse.NotFound && copse.KindOf(err) != copse.Invalid {
		return "", err
	}
	return t.PolicyStoreID, nil
}

// loggedAs is an identifier as it is, and as the rules of a policy store hash it, if there is one. What
// the caller's key does not cover adds nothing, as it finds nothing. The plain text is always among
// them, since rules change, and lines from before have it as it was.
func (a *API) loggedAs(ctx context.Context, c access.Caller, id copse.PolicyStoreID, text string) ([]string, error) {
	if text == "" {
		return nil, nil
	}
	if id == "" {
		return []string{text}, nil
	}
	hashed, err := a.policyStores.HashedUID(ctx, c, id, text)
	if err != nil {
		if copse.KindOf(err) == copse.NotFound || copse.KindOf(err) == copse.Invalid {
			return []string{text}, nil
		}
		return nil, err
	}
	return []string{text, hashed}, nil
}

// decisionKeys is for whoever verifies the log without the server. Public keys are no
// secret: any key may ask.
func (a *API) decisionKeys(_ context.Context, _ access.Caller, _ *struct{}) (*struct{ Body DecisionKeyList }, error) {
	out := &struct{ Body DecisionKeyList }{Body: DecisionKeyList{Keys: []DecisionKey{}}}
	for id, key := range a.decisions.Keys() {
		out.Body.Keys = append(out.Body.Keys, DecisionKey{ID: id, PublicKey: key})
	}
	// A map has no order, and answers should not differ for nothing.
	slices.SortFunc(out.Body.Keys, func(x, y DecisionKey) int { return strings.Compare(x.ID, y.ID) })
	return out, nil
}

// LoggedValues is an object as the log has it: its numbers are not to be read as floating point.
type LoggedValues jsontext.Value

// Schema says no more than that it is an object: what is in it is for the rules to say.
func (LoggedValues) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}
}

// MarshalJSON gives the object as it is.
func (v LoggedValues) MarshalJSON() ([]byte, error) { return v, nil }

// UnmarshalJSON keeps the object as it is.
func (v *LoggedValues) UnmarshalJSON(text []byte) error {
	*v = append((*v)[:0], text...)
	return nil
}
