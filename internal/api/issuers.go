package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
)

func registerIssuers(a *API, h huma.API) {
	register(a, h, route{method: http.MethodPost, path: "/v1/issuers", id: "addIssuer", tag: tagIssuers, status: http.StatusCreated, needs: adminOfTenants,
		summary:     "Trust an issuer",
		description: "An issuer speaks only for the tenants bound to it. A second issuer for a tenant needs another prefix, or a principal type and a group type of its own, or an explicit sameSubjects.",
		errors:      []int{http.StatusConflict, http.StatusUnprocessableEntity}}, (*API).addIssuer)
	register(a, h, route{method: http.MethodGet, path: "/v1/issuers", id: "listIssuers", tag: tagIssuers, status: http.StatusOK, needs: adminOfTenants,
		summary: "List the issuers"}, (*API).listIssuers)
	register(a, h, route{method: http.MethodGet, path: "/v1/issuers/{id}", id: "getIssuer", tag: tagIssuers, status: http.StatusOK, needs: adminOfTenants,
		summary: "Get an issuer", errors: []int{http.StatusNotFound}}, (*API).getIssuer)
	register(a, h, route{method: http.MethodPut, path: "/v1/issuers/{id}", id: "updateIssuer", tag: tagIssuers, status: http.StatusOK, needs: adminOfTenants,
		summary:     "Replace an issuer's registration",
		description: "All of it but the URL. Effective for every token that is verified after the answer.",
		errors:      []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity}}, (*API).updateIssuer)
	register(a, h, route{method: http.MethodDelete, path: "/v1/issuers/{id}", id: "removeIssuer", tag: tagIssuers, status: http.StatusNoContent, needs: adminOfTenants,
		summary:     "Stop trusting an issuer",
		description: "Its tokens are refused from the answer on.",
		errors:      []int{http.StatusNotFound, http.StatusConflict}}, (*API).removeIssuer)
}

// issuerOutput is the answer to everything that is about one issuer.
type issuerOutput struct{ Body Issuer }

// IssuerPath is exported for the same reason as [Paging].
type IssuerPath struct {
	ID string `path:"id" maxLength:"200" doc:"The issuer's id, as addIssuer returned it."`
}

// issuerOf is the registration as it is shown. There is no secret in it.
func issuerOf(i *copse.Issuer) Issuer {
	return Issuer{
		ID: i.ID, URL: i.URL, Tenants: texts[string](i.Tenants), AllTenants: i.AllTenants,
		TokenType: string(i.TokenType), Audiences: i.Audiences, ClientIDs: i.ClientIDs, Algorithms: i.Algorithms,
		TenantClaim: i.TenantClaim, FixedTenant: string(i.FixedTenant),
		PrincipalType: i.PrincipalType, PrincipalIDClaim: i.PrincipalIDClaim, PrincipalIDPrefix: i.PrincipalIDPrefix,
		GroupType: i.GroupType, GroupClaim: i.GroupClaim,
		EmailDomains: i.EmailDomains, SameSubjects: i.SameSubjects,
		Revision: i.Revision, CreatedAt: i.CreatedAt, UpdatedAt: i.UpdatedAt,
	}
}

// registration is what the client asks for. Of what copse sets, only the revision is read: in an update
// it is the one that must still be there.
func (i *Issuer) registration() copse.Issuer {
	return copse.Issuer{
		ID: i.ID, URL: i.URL, Tenants: texts[copse.TenantID](i.Tenants), AllTenants: i.AllTenants,
		TokenType: copse.TokenType(i.TokenType), Audiences: i.Audiences, ClientIDs: i.ClientIDs, Algorithms: i.Algorithms,
		TenantClaim: i.TenantClaim, FixedTenant: copse.TenantID(i.FixedTenant),
		PrincipalType: i.PrincipalType, PrincipalIDClaim: i.PrincipalIDClaim, PrincipalIDPrefix: i.PrincipalIDPrefix,
		GroupType: i.GroupType, GroupClaim: i.GroupClaim,
		EmailDomains: i.EmailDomains, SameSubjects: i.SameSubjects,
		Revision: i.Revision,
	}
}

// texts converts between kinds of strings. nil stays nil, so that a list which was left out is not one
// that is empty.
func texts[To, From ~string](in []From) []To {
	if in == nil {
		return nil
	}
	out := make([]To, len(in))
	for i, s := range in {
		out[i] = To(s)
	}
	return out
}

// addIssuer refuses what copse sets, instead of dropping it: who sends an id expects it to be the one.
func (a *API) addIssuer(ctx context.Context, c access.Caller, in *struct{ Body Issuer }) (*issuerOutput, error) {
	if in.Body.ID != "" || in.Body.Revision != 0 {
		return nil, copse.Errorf(copse.Invalid, "id and revision are set by copse: leave them out of a new registration")
	}
	added, err := a.tenants.AddIssuer(ctx, c, in.Body.registration())
	if err != nil {
		return nil, err
	}
	return &issuerOutput{Body: issuerOf(&added)}, nil
}

func (a *API) listIssuers(ctx context.Context, c access.Caller, in *struct{ Paging }) (*struct{ Body IssuerList }, error) {
	const list = "issuers"
	after, err := in.start(a, list, c)
	if err != nil {
		return nil, err
	}
	page, more, err := a.tenants.ListIssuers(ctx, c, after, in.limit())
	if err != nil {
		return nil, err
	}
	out := &struct{ Body IssuerList }{Body: IssuerList{Issuers: make([]Issuer, len(page))}}
	for i := range page {
		out.Body.Issuers[i] = issuerOf(&page[i])
		after = page[i].ID
	}
	out.Body.NextToken = a.next(list, c, more, after)
	return out, nil
}

func (a *API) getIssuer(ctx context.Context, c access.Caller, in *IssuerPath) (*issuerOutput, error) {
	found, err := a.tenants.GetIssuer(ctx, c, in.ID)
	if err != nil {
		return nil, err
	}
	return &issuerOutput{Body: issuerOf(&found)}, nil
}

// updateIssuer replaces all of it: what is left out is then as in a new registration,
// and not as it was.
func (a *API) updateIssuer(ctx context.Context, c access.Caller, in *struct {
	IssuerPath
	Body Issuer
}) (*issuerOutput, error) {
	// Path and body must agree, or an edit of one issuer could overwrite another.
	if in.Body.ID != "" && in.Body.ID != in.ID {
		return nil, copse.Errorf(copse.Invalid, "the body is of issuer %q, the path names %q", in.Body.ID, in.ID)
	}
	registration := in.Body.registration()
	registration.ID = in.ID
	updated, err := a.tenants.UpdateIssuer(ctx, c, registration)
	if err != nil {
		return nil, err
	}
	return &issuerOutput{Body: issuerOf(&updated)}, nil
}

// removeIssuer is Conflict only when other changes kept coming in between; it may be tried again.
func (a *API) removeIssuer(ctx context.Context, c access.Caller, in *IssuerPath) (*struct{}, error) {
	return nil, a.tenants.RemoveIssuer(ctx, c, in.ID)
}
