package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/member"
)

// registerMembers also has the hooks, which answer identity providers and not tenants. Behind the hooks
// and setActiveTenant no service asks who calls: there their needs are the only check.
func registerMembers(a *API, h huma.API) {
	register(a, h, route{method: http.MethodPut, path: "/v1/tenants/{tenant}/members", id: "putMembers", tag: tagMembers, needs: need{members: access.Write}, status: http.StatusOK,
		summary:     "Make members of a tenant, or change them",
		description: "Up to 500 people, machines and invitations. Each is written or not by itself; the answer names those that are not. In force before the answer. A tenant's own key names members of issuers that speak for this tenant alone.",
		limit:       4 << 20,
		errors:      []int{http.StatusNotFound}}, (*API).putMembers)
	register(a, h, route{method: http.MethodGet, path: "/v1/tenants/{tenant}/members", id: "listMembers", tag: tagMembers, needs: need{members: access.Read}, status: http.StatusOK,
		summary: "List a tenant's members and invitations", errors: []int{http.StatusNotFound}}, (*API).listMembers)
	register(a, h, route{method: http.MethodGet, path: "/v1/tenants/{tenant}/member", id: "getMember", tag: tagMembers, needs: need{members: access.Read}, status: http.StatusOK,
		summary: "Get one member", errors: []int{http.StatusNotFound}}, (*API).getMember)
	register(a, h, route{method: http.MethodDelete, path: "/v1/tenants/{tenant}/member", id: "removeMember", tag: tagMembers, needs: need{members: access.Write}, status: http.StatusNoContent,
		summary:     "End a membership, or withdraw an invitation",
		description: "Tokens issued after the answer are for no longer this tenant; those issued before live until they expire.",
		errors:      []int{http.StatusNotFound, http.StatusConflict}}, (*API).removeMember)
	register(a, h, route{method: http.MethodPut, path: "/v1/members/active", id: "setActiveTenant", tag: tagMembers, status: http.StatusNoContent, needs: adminOfTenants,
		summary: "Change which tenant a member's tokens are for", errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity}}, (*API).setActiveTenant)
	register(a, h, route{method: http.MethodPost, path: "/v1/hooks/token", id: "tokenHook", tag: tagMembers, needs: need{hook: true}, status: http.StatusOK,
		summary:     "The claims of a token that is about to be issued",
		description: "For an identity provider. 403 and 503 mean that no token must be issued: there is no tenant for it, or it can't be known. Needs decide, everywhere."}, (*API).tokenHook)
	register(a, h, route{method: http.MethodPost, path: "/v1/hooks/cognito", id: "cognitoHook", tag: tagMembers, needs: need{hook: true}, status: http.StatusOK,
		summary:     "Answer a pre token generation event of Amazon Cognito",
		description: "Takes and returns the event, of version 1, 2 or 3, with its response filled in. 403 and 503 mean that the trigger must fail. Needs decide, everywhere."}, (*API).cognitoHook)
}

// who names one person, machine or invitation. Which members must be given together is
// the service's to check.
func (m *MemberRef) who() member.Who {
	return member.Who{Issuer: m.Issuer, Subject: m.Subject, ClientID: m.ClientID, Email: m.Email}
}

// memberOf has an empty list for no roles: they are always in the answer.
func memberOf(m *member.Membership) Member {
	return Member{
		MemberRef: MemberRef{Issuer: m.Issuer, Subject: m.Subject, ClientID: m.ClientID, Email: m.Email},
		Roles:     append([]string{}, m.Roles...), Attributes: m.Attributes, Since: m.Since,
	}
}

// putMembers writes each by itself. A batch that is half refused is no error: the answer says which.
func (a *API) putMembers(ctx context.Context, c access.Caller, in *struct {
	TenantPath
	Body PutMembersRequest
}) (*struct{ Body PutMembersAnswer }, error) {
	memberships := make([]member.Membership, len(in.Body.Members))
	for i := range in.Body.Members {
		m := &in.Body.Members[i]
		memberships[i] = member.Membership{Who: m.who(), Tenant: copse.TenantID(in.Tenant), Roles: m.Roles, Attributes: m.Attributes}
	}
	errs, err := a.members.Put(ctx, c, memberships)
	if err != nil {
		return nil, err
	}
	out := &struct{ Body PutMembersAnswer }{Body: PutMembersAnswer{Errors: []MemberError{}}}
	for i, err := range errs {
		if err == nil {
			out.Body.Written++
			continue
		}
		if copse.KindOf(err) == copse.NotFound { // the tenant is the same for all
			return nil, err
		}
		// There is no request id in each: it is that of the whole answer, in its header.
		out.Body.Errors = append(out.Body.Errors, MemberError{Index: i, Error: describe(err, "").Error})
	}
	return out, nil
}

func (a *API) listMembers(ctx context.Context, c access.Caller, in *struct {
	TenantPath
	Paging
}) (*struct{ Body MemberList }, error) {
	// The tenant is part of what a page's token is bound to.
	list := "members of " + in.Tenant
	after, err := in.start(a, list, c)
	if err != nil {
		return nil, err
	}
	page, next, err := a.members.List(ctx, c, copse.TenantID(in.Tenant), after, in.limit())
	if err != nil {
		return nil, err
	}
	out := &struct{ Body MemberList }{Body: MemberList{Members: make([]Member, len(page))}}
	for i := range page {
		out.Body.Members[i] = memberOf(&page[i])
	}
	out.Body.NextToken = a.next(list, c, next != "", next)
	return out, nil
}

// MemberQuery names one member of the tenant in the path.
type MemberQuery struct {
	TenantPath
	Issuer   string `query:"issuer" maxLength:"2048" doc:"Of the subject or client."`
	Subject  string `query:"subject" maxLength:"1024"`
	ClientID string `query:"clientId" maxLength:"1024" doc:"Of a machine, instead of a subject."`
	Email    string `query:"email" maxLength:"254" doc:"Of an invitation, instead of both."`
}

// who is [MemberRef.who] for a query.
func (q *MemberQuery) who() member.Who {
	return member.Who{Issuer: q.Issuer, Subject: q.Subject, ClientID: q.ClientID, Email: q.Email}
}

// getMember finds one that the caller names; there is no search.
func (a *API) getMember(ctx context.Context, c access.Caller, in *MemberQuery) (*struct{ Body Member }, error) {
	m, err := a.members.Get(ctx, c, copse.TenantID(in.Tenant), in.who())
	if err != nil {
		return nil, err
	}
	return &struct{ Body Member }{memberOf(&m)}, nil
}

// removeMember is in force before the answer, for tokens that are issued from then on.
func (a *API) removeMember(ctx context.Context, c access.Caller, in *MemberQuery) (*struct{}, error) {
	return nil, a.members.Remove(ctx, c, copse.TenantID(in.Tenant), in.who())
}

// setActiveTenant is for operators; a user chooses with a token of their own, elsewhere.
func (a *API) setActiveTenant(ctx context.Context, c access.Caller, in *struct{ Body SetActiveRequest }) (*struct{}, error) {
	return nil, a.members.SetActive(ctx, c.Actor(), in.Body.who(), in.Body.Client, copse.TenantID(in.Body.Tenant))
}

// tokenHook gives no answer that could be taken for one when there is none: any error means no token.
func (a *API) tokenHook(ctx context.Context, _ access.Caller, in *struct{ Body TokenHookRequest }) (*struct{ Body TokenHookAnswer }, error) {
	b := &in.Body
	found, err := a.members.Resolve(ctx, member.Presented{
		Issuer: b.Issuer, Subject: b.Subject, ClientID: b.ClientID, Email: b.Email, EmailVerified: b.EmailVerified,
	})
	if err != nil {
		return nil, err
	}
	return &struct{ Body TokenHookAnswer }{TokenHookAnswer{
		Tenant: string(found.Tenant), Claims: found.Claims(), Suppress: found.Suppress(b.Claims),
	}}, nil
}

// cognitoHook takes the issuer that the caller names, for emulators, and AWS's own for
// the pool otherwise.
func (a *API) cognitoHook(ctx context.Context, _ access.Caller, in *struct {
	Issuer string `query:"issuer" maxLength:"2048" doc:"The user pool's issuer URL, where it is not AWS's own: with an emulator."`
	Body   CognitoEvent
}) (*struct{ Body CognitoEvent }, error) {
	out, err := a.members.Cognito(ctx, in.Body, in.Issuer)
	if err != nil {
		return nil, err
	}
	return &struct{ Body CognitoEvent }{out}, nil
}

// CognitoEvent is an event as it came, unknown members included.
type CognitoEvent jsontext.Value

// Schema says no more than that it is an object: AWS describes it.
func (CognitoEvent) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true, Description: "A pre token generation event of Amazon Cognito."}
}

// MarshalJSON gives the event as it is.
func (e CognitoEvent) MarshalJSON() ([]byte, error) { return e, nil }

// UnmarshalJSON keeps the event as it is.
func (e *CognitoEvent) UnmarshalJSON(text []byte) error {
	*e = append((*e)[:0], text...)
	return nil
}
