package api

import (
	"context"
	"net/http"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/danielgtaylor/huma/v2"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/tenant"
)

func registerTenants(a *API, h huma.API) {
	register(a, h, route{method: http.MethodPost, path: "/v1/tenants", id: "createTenant", tag: tagTenants, status: http.StatusCreated, needs: adminOfTenants,
		summary:     "Onboard a tenant",
		description: "Makes the tenant and its policy store with schema and policies in one moment: either all of it exists, or nothing. With policyStoreId it binds a policy store of the operator's own instead, as it is; one that belongs to a tenant is a conflict. The body is at most 16 MiB.",
		limit:       copse.MaxContentsBytes,
		errors:      []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity}}, (*API).createTenant)
	register(a, h, route{method: http.MethodGet, path: "/v1/tenants", id: "listTenants", tag: tagTenants, status: http.StatusOK,
		summary: "List the tenants the key covers"}, (*API).listTenants)
	register(a, h, route{method: http.MethodGet, path: "/v1/tenants/{tenant}", id: "getTenant", tag: tagTenants, status: http.StatusOK,
		summary: "Get a tenant", errors: []int{http.StatusNotFound}}, (*API).getTenant)
	register(a, h, route{method: http.MethodPost, path: "/v1/tenants/{tenant}/suspend", id: "suspendTenant", tag: tagTenants, status: http.StatusOK, needs: adminOfTenants,
		summary:     "Suspend a tenant",
		description: "Every decision for its users that starts after the answer is refused. Suspending a suspended tenant changes nothing.",
		errors:      []int{http.StatusNotFound, http.StatusConflict}}, (*API).suspendTenant)
	register(a, h, route{method: http.MethodPost, path: "/v1/tenants/{tenant}/resume", id: "resumeTenant", tag: tagTenants, status: http.StatusOK, needs: adminOfTenants,
		summary: "Resume a suspended tenant", errors: []int{http.StatusNotFound, http.StatusConflict}}, (*API).resumeTenant)
	register(a, h, route{method: http.MethodDelete, path: "/v1/tenants/{tenant}", id: "deleteTenant", tag: tagTenants, status: http.StatusNoContent, needs: adminOfTenants,
		summary:     "Offboard a tenant",
		description: "Removes the tenant, its policy store and their history. It can't be undone.",
		errors:      []int{http.StatusNotFound, http.StatusConflict}}, (*API).deleteTenant)
}

// Paging are the parameters of every list. It is exported, like the other parts of inputs, because huma
// looks only into exported fields.
type Paging struct {
	MaxResults int    `query:"maxResults" minimum:"1" default:"50" doc:"The most a page may hold; more than 500 is taken as 500." example:"50"`
	NextToken  string `query:"nextToken" maxLength:"8000" doc:"Of the page before. Left out: the first page."`
}

// maxResults is the most of a page, and of a search's answer.
const maxResults = 500

// limit is a page's size. The schema has refused what is below 1. What is over the most
// is taken as the most.
func (p *Paging) limit() int { return min(max(p.MaxResults, 1), maxResults) }

// start is the position a page begins after. A token is bound to the list and to the caller's key. A
// token of another list, or of another key, is Invalid.
func (p *Paging) start(a *API, list string, c access.Caller) (string, error) {
	return a.access.OpenPage(list+" "+c.KeyID, p.NextToken)
}

// next is the token for the page after the one that ends at last. Position and list are sealed: a
// position may name what the caller was not shown.
func (a *API) next(list string, c access.Caller, more bool, last string) string {
	if !more || last == "" {
		return ""
	}
	return a.access.SealPage(list+" "+c.KeyID, last)
}

// tenantOutput is the answer to everything that is about one tenant.
type tenantOutput struct{ Body Tenant }

// TenantPath is exported for the same reason as [Paging].
type TenantPath struct {
	Tenant string `path:"tenant" maxLength:"128" doc:"The tenant's id." example:"acme"`
}

// id is Invalid for what can't be a tenant's name; whether it exists is for the service to find out.
func (p *TenantPath) id() (copse.TenantID, error) {
	id := copse.TenantID(p.Tenant)
	return id, id.Validate()
}

// tenantOf leaves out the incarnation, which is for PEPs, see [DirectoryEntry].
func tenantOf(t tenant.Tenant) Tenant {
	return Tenant{
		Tenant: string(t.ID), State: string(t.State), PolicyStoreID: string(t.PolicyStoreID),
		CreatedAt: t.CreatedAt, UpdatedAt: t.UpdatedAt,
	}
}

// createTenant makes all of it or nothing, and answers when it is in force. Conflict
// when the tenant exists.
func (a *API) createTenant(ctx context.Context, c access.Caller, in *struct{ Body CreateTenantRequest }) (*tenantOutput, error) {
	made := tenant.NewTenant{
		ID: copse.TenantID(in.Body.Tenant), Description: in.Body.Description,
		Schema: schemaText(in.Body.Schema), Policies: policyTexts(in.Body.Policies), Templates: templateTexts(in.Body.Templates),
		PolicyStoreID: copse.PolicyStoreID(in.Body.PolicyStoreID),
	}
	// Settings that are left out are not the zero ones: what is safe depends on whether
	// there is a schema.
	if s := in.Body.Settings; s != nil {
		made.Settings = &copse.Settings{
			Validation:    copse.ValidationMode(s.Validation),
			CheckRequests: s.CheckRequests, ForbidErrorsDeny: s.ForbidErrorsDeny,
		}
	}
	if err := checkSchemaText("schema", in.Body.Schema); err != nil {
		return nil, err
	}
	t, err := a.tenants.Create(ctx, c, made)
	if err != nil {
		return nil, err
	}
	return &tenantOutput{Body: tenantOf(t)}, nil
}

// listTenants shows a key of a tenant, or of a tenant's policy store, that tenant and no other.
func (a *API) listTenants(ctx context.Context, c access.Caller, in *struct{ Paging }) (*struct{ Body TenantList }, error) {
	const list = "tenants"
	after, err := in.start(a, list, c)
	if err != nil {
		return nil, err
	}
	page, more, err := a.tenants.List(ctx, c, copse.TenantID(after), in.limit())
	if err != nil {
		return nil, err
	}
	out := &struct{ Body TenantList }{Body: TenantList{Tenants: make([]Tenant, len(page))}}
	for i, t := range page {
		out.Body.Tenants[i] = tenantOf(t)
		after = string(t.ID)
	}
	out.Body.NextToken = a.next(list, c, more, after)
	return out, nil
}

// getTenant is NotFound for what the key does not cover.
func (a *API) getTenant(ctx context.Context, c access.Caller, in *TenantPath) (*tenantOutput, error) {
	id, err := in.id()
	if err != nil {
		return nil, err
	}
	t, err := a.tenants.Get(ctx, c, id)
	if err != nil {
		return nil, err
	}
	return &tenantOutput{Body: tenantOf(t)}, nil
}

// suspendTenant holds for every decision that starts after the answer; policies stay as they are.
func (a *API) suspendTenant(ctx context.Context, c access.Caller, in *TenantPath) (*tenantOutput, error) {
	return a.setState(ctx, c, in, copse.TenantSuspended)
}

// resumeTenant lets decisions for the tenant's users be made again, by the policies it has.
func (a *API) resumeTenant(ctx context.Context, c access.Caller, in *TenantPath) (*tenantOutput, error) {
	return a.setState(ctx, c, in, copse.TenantActive)
}

// setState may be repeated: the state that is there already is a success.
func (a *API) setState(ctx context.Context, c access.Caller, in *TenantPath, state copse.TenantState) (*tenantOutput, error) {
	id, err := in.id()
	if err != nil {
		return nil, err
	}
	t, err := a.tenants.SetState(ctx, c, id, state)
	if err != nil {
		return nil, err
	}
	return &tenantOutput{Body: tenantOf(t)}, nil
}

// deleteTenant is answered once the tenant is gone for everyone; rows may still be erased after it.
func (a *API) deleteTenant(ctx context.Context, c access.Caller, in *TenantPath) (*struct{}, error) {
	id, err := in.id()
	if err != nil {
		return nil, err
	}
	return nil, a.tenants.Delete(ctx, c, id)
}

// checkSchemaText wants exactly one of the two syntaxes. None at all is fine where a schema may be left
// out. Neither is preferred to the other: what the two say could differ.
func checkSchemaText(path string, text *SchemaText) error {
	if text == nil || (text.Cedar == "") != (text.JSON == "") {
		return nil
	}
	return &copse.Error{Kind: copse.Invalid, Detail: "a schema is given in exactly one of the two syntaxes",
		Fields: []copse.Field{{Path: path, Message: "give exactly one of cedar and json"}}}
}

// schemaText is nil for none.
func schemaText(text *SchemaText) *policystore.SchemaText {
	if text == nil {
		return nil
	}
	return &policystore.SchemaText{JSON: text.JSON, Cedar: text.Cedar}
}

// policyTexts checks nothing: which of statement and link is given is for the service to see.
func policyTexts(texts []PolicyText) []policystore.PolicyText {
	out := make([]policystore.PolicyText, len(texts))
	for i, t := range texts {
		out[i] = policystore.PolicyText{Name: t.Name, Statement: t.Statement, Description: t.Description, Link: t.Link.link()}
	}
	return out
}

// templateTexts is never nil, which for contents would mean something else than an empty list.
func templateTexts(texts []TemplateText) []policystore.PolicyText {
	out := make([]policystore.PolicyText, len(texts))
	for i, t := range texts {
		out[i] = policystore.PolicyText{Name: t.Name, Statement: t.Statement, Description: t.Description}
	}
	return out
}

// link takes the name where both are given: so an answer can be sent to another policy store, whose
// template of that name has an id of its own.
func (l *Link) link() *policystore.Link {
	if l == nil {
		return nil
	}
	out := &policystore.Link{Template: copse.PolicyTemplateID(l.TemplateID), Principal: l.Principal.uid(), Resource: l.Resource.uid()}
	if l.Template != "" {
		out.Template = copse.PolicyTemplateID("name/" + l.Template)
	}
	return out
}

// uid of nil is the zero UID: a slot that is not filled.
func (e *EntityUID) uid() types.EntityUID {
	if e == nil {
		return types.EntityUID{}
	}
	return types.NewEntityUID(types.EntityType(e.Type), types.String(e.ID))
}
