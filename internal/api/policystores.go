package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/danielgtaylor/huma/v2"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
)

func registerPolicyStores(a *API, h huma.API) {
	register(a, h, route{method: http.MethodGet, path: "/v1/policy-stores", id: "listPolicyStores", tag: tagPolicyStores, status: http.StatusOK,
		summary: "List the policy stores the key covers"}, (*API).listPolicyStores)
	register(a, h, route{method: http.MethodGet, path: "/v1/policy-stores/{id}", id: "getPolicyStore", tag: tagPolicyStores, status: http.StatusOK, needs: need{policyStore: access.Read},
		summary: "Get a policy store", errors: []int{http.StatusNotFound}}, (*API).getPolicyStore)
	register(a, h, route{method: http.MethodPatch, path: "/v1/policy-stores/{id}", id: "updatePolicyStore", tag: tagPolicyStores, status: http.StatusOK, needs: adminOfPolicyStores,
		summary:     "Change a policy store's settings, deletion protection, plan, or how its decisions are logged",
		description: "What is left out stays as it is. In force before the answer. Stored policies are not checked again when validation is switched on.",
		errors:      []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity}}, (*API).updatePolicyStore)
	register(a, h, route{method: http.MethodGet, path: "/v1/policy-stores/{id}/contents", id: "getContents", tag: tagPolicyStores, status: http.StatusOK, needs: need{policyStore: access.Read},
		summary:     "Get schema and policies",
		description: "All of it at one revision, which is the ETag.",
		errors:      []int{http.StatusNotFound}}, (*API).getContents)
	register(a, h, route{method: http.MethodPut, path: "/v1/policy-stores/{id}/contents", id: "putContents", tag: tagPolicyStores, status: http.StatusOK, needs: need{policyStore: access.Write},
		summary: "Replace schema and named policies",
		description: "One validated commit, effective before the answer: there is no moment with only a part of it, nor one without a forbid. " +
			"The same name keeps its policy id. Policies without a name stay, and are deleted only with prune. The body is at most 16 MiB.",
		limit: copse.MaxContentsBytes,
		errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed, http.StatusPreconditionRequired,
			http.StatusUnprocessableEntity}}, (*API).putContents)
	register(a, h, route{method: http.MethodGet, path: "/v1/policy-stores/{id}/schema", id: "getSchema", tag: tagPolicyStores, status: http.StatusOK, needs: need{policyStore: access.Read},
		summary: "Get the schema", errors: []int{http.StatusNotFound}}, (*API).getSchema)
	register(a, h, route{method: http.MethodPut, path: "/v1/policy-stores/{id}/schema", id: "putSchema", tag: tagPolicyStores, status: http.StatusOK, needs: need{policyStore: access.Write},
		summary:     "Replace the schema",
		description: "Stored policies and templates are not checked against it again; each is when it is next written. schema:check tells which of them it breaks, before and after.",
		errors:      []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity}}, (*API).putSchema)
	register(a, h, route{method: http.MethodPost, path: "/v1/policy-stores/{id}/schema:check", id: "checkNewSchema", tag: tagPolicyStores, status: http.StatusOK, needs: need{policyStore: access.Read},
		summary:     "Tell what a new schema would break",
		description: "Nothing is changed. Everything stored is held against the schema as STRICT does, whatever the mode.",
		errors:      []int{http.StatusNotFound, http.StatusUnprocessableEntity, http.StatusTooManyRequests}}, (*API).checkNewSchema)
	register(a, h, route{method: http.MethodGet, path: "/v1/policy-stores/{id}/schema:check", id: "checkSchema", tag: tagPolicyStores, status: http.StatusOK, needs: need{policyStore: access.Read},
		summary: "Tell what the stored schema breaks", errors: []int{http.StatusNotFound, http.StatusTooManyRequests}}, (*API).checkSchema)
	register(a, h, route{method: http.MethodDelete, path: "/v1/policy-stores/{id}/templates/{template}", id: "deleteTemplate", tag: tagPolicyStores, status: http.StatusNoContent, needs: need{policyStore: access.Write},
		summary: "Delete a policy template and its links",
		description: "However many links there are, they are gone when this is answered. " +
			"What contents does in one commit is limited; this is not.",
		errors: []int{http.StatusNotFound}}, (*API).deleteTemplate)
}

// PolicyStorePath is exported for the same reason as [Paging].
type PolicyStorePath struct {
	ID string `path:"id" maxLength:"200" doc:"The policy store's id." example:"C7v5xMplfFH3i3e4Jrzb1a"`
}

// id is Invalid for what can't be one; whether it exists is for the service to find out. Aliases are
// the AVP API's.
func (p *PolicyStorePath) id() (copse.PolicyStoreID, error) {
	id := copse.PolicyStoreID(p.ID)
	return id, id.Validate()
}

// policyStoreOf is what a key with read may see; its lists are always there.
func policyStoreOf(ps *policystore.PolicyStore) PolicyStore {
	return PolicyStore{
		PolicyStoreID: string(ps.ID), Tenant: string(ps.Tenant),
		Settings: Settings{
			Validation:    string(ps.Settings.Validation),
			CheckRequests: ps.Settings.CheckRequests, ForbidErrorsDeny: ps.Settings.ForbidErrorsDeny,
		},
		Description: ps.Description, DeletionProtection: ps.Protected, Plan: ps.Plan,
		DecisionLog: DecisionLogSettings{
			Full: string(ps.Logging.Full), Keep: listOf(ps.Logging.Rules.Keep), Hash: listOf(ps.Logging.Rules.Hash),
			Drop: listOf(ps.Logging.Rules.Drop), HashIDs: listOf(ps.Logging.Rules.HashIDs),
		},
		Revision: ps.Revision, Policies: ps.Policies,
		CreatedAt: ps.CreatedAt, UpdatedAt: ps.UpdatedAt,
	}
}

// listOf is a list that is there, if empty. It is a copy, so nothing of the service's is handed on.
func listOf(list []string) []string { return append([]string{}, list...) }

// listPolicyStores never names what the key does not cover.
func (a *API) listPolicyStores(ctx context.Context, c access.Caller, in *struct{ Paging }) (*struct{ Body PolicyStoreList }, error) {
	const list = "policy-stores"
	after, err := in.start(a, list, c)
	if err != nil {
		return nil, err
	}
	page, more, err := a.policyStores.List(ctx, c, copse.PolicyStoreID(after), in.limit())
	if err != nil {
		return nil, err
	}
	out := &struct{ Body PolicyStoreList }{Body: PolicyStoreList{PolicyStores: make([]PolicyStore, len(page))}}
	for i := range page {
		out.Body.PolicyStores[i] = policyStoreOf(&page[i])
		after = string(page[i].ID)
	}
	out.Body.NextToken = a.next(list, c, more, after)
	return out, nil
}

// getPolicyStore is NotFound for what the key does not cover, as for what never was.
func (a *API) getPolicyStore(ctx context.Context, c access.Caller, in *PolicyStorePath) (*struct{ Body PolicyStore }, error) {
	id, err := in.id()
	if err != nil {
		return nil, err
	}
	ps, err := a.policyStores.Get(ctx, c, id)
	if err != nil {
		return nil, err
	}
	return &struct{ Body PolicyStore }{Body: policyStoreOf(&ps)}, nil
}

// updatePolicyStore changes what is given in the body, and nothing else: nil stays as it is.
func (a *API) updatePolicyStore(ctx context.Context, c access.Caller, in *struct {
	PolicyStorePath
	Body UpdatePolicyStoreRequest
}) (*struct{ Body PolicyStore }, error) {
	id, err := in.id()
	if err != nil {
		return nil, err
	}
	b := &in.Body
	update := policystore.Update{
		Validation: (*copse.ValidationMode)(b.Validation), CheckRequests: b.CheckRequests, ForbidErrorsDeny: b.ForbidErrorsDeny,
		Description: b.Description, DeletionProtection: b.DeletionProtection, Plan: b.Plan,
	}
	// Lists replace the former ones; nil keeps them, an empty one clears them.
	if l := b.DecisionLog; l != nil {
		update.Logging = &policystore.LoggingUpdate{Full: (*policystore.LogFull)(l.Full), Keep: l.Keep, Hash: l.Hash, Drop: l.Drop, HashIDs: l.HashIDs}
	}
	ps, err := a.policyStores.Update(ctx, c, id, update)
	if err != nil {
		return nil, err
	}
	return &struct{ Body PolicyStore }{Body: policyStoreOf(&ps)}, nil
}

// contentsOutput carries the revision in both places: who edits a file has the body,
// who uses HTTP the header.
type contentsOutput struct {
	ETag string `header:"ETag" doc:"The revision, quoted."`
	Body Contents
}

// getContents is of one revision, so that it can be put back, changed, on the condition
// that nothing else was.
func (a *API) getContents(ctx context.Context, c access.Caller, in *PolicyStorePath) (*contentsOutput, error) {
	id, err := in.id()
	if err != nil {
		return nil, err
	}
	got, err := a.policyStores.GetContents(ctx, c, id)
	if err != nil {
		return nil, err
	}
	out := &contentsOutput{ETag: etag(got.Revision), Body: Contents{Revision: got.Revision, Policies: make([]Policy, len(got.Policies))}}
	if got.Schema != nil {
		out.Body.Schema = new(schemaOf(got.Schema))
	}
	// A link shows its template's name too: ids differ from policy store to policy
	// store, and names need not.
	names := make(map[copse.PolicyTemplateID]string)
	for _, t := range got.Templates {
		names[t.ID] = t.Name
		out.Body.Templates = append(out.Body.Templates, Template{
			TemplateID: string(t.ID), Name: t.Name, Statement: t.Statement, Description: t.Description,
			Effect: effectOf(t.Forbids), CreatedAt: t.CreatedAt, UpdatedAt: t.UpdatedAt,
		})
	}
	for i, p := range got.Policies {
		out.Body.Policies[i] = Policy{
			PolicyID: string(p.ID), Name: p.Name, Statement: p.Statement, Description: p.Description,
			Effect: effectOf(p.Forbids), CreatedAt: p.CreatedAt, UpdatedAt: p.UpdatedAt,
		}
		if p.Link != nil {
			out.Body.Policies[i].Link = &Link{Template: names[p.Link.Template], TemplateID: string(p.Link.Template),
				Principal: entityOf(p.Link.Principal), Resource: entityOf(p.Link.Resource)}
		}
	}
	return out, nil
}

func effectOf(forbids bool) string {
	if forbids {
		return "forbid"
	}
	return "permit"
}

// entityOf is nil for a slot that is not there.
func entityOf(uid types.EntityUID) *EntityUID {
	if uid.IsZero() {
		return nil
	}
	return &EntityUID{Type: string(uid.Type), ID: string(uid.ID)}
}

// etag is a strong one, in quotes.
func etag(revision uint64) string { return strconv.Quote(strconv.FormatUint(revision, 10)) }

// putContentsInput has If-Match as text, because its absence is an answer of its own.
type putContentsInput struct {
	PolicyStorePath
	IfMatch string `header:"If-Match" doc:"The ETag that was read, or * to replace whatever is there. Required." example:"\"3\""`
	Body    PutContentsRequest
}

// contentsResultOutput has the revision with which the next change is made.
type contentsResultOutput struct {
	ETag string `header:"ETag" doc:"The new revision, quoted."`
	Body ContentsResult
}

// putContents does all of it or nothing. Conflict with a condition is 412: the caller's copy is old,
// and must be read again. Without one it is 409, and the same call may be made again.
func (a *API) putContents(ctx context.Context, c access.Caller, in *putContentsInput) (*contentsResultOutput, error) {
	id, err := in.id()
	if err != nil {
		return nil, err
	}
	revision, err := ifMatch(in.IfMatch)
	if err != nil {
		return nil, err
	}
	if err := checkSchemaText("schema", in.Body.Schema); err != nil {
		return nil, err
	}
	// An empty list deletes all named templates, and their links with them.
	var templates []policystore.PolicyText // nil keeps them
	if in.Body.Templates != nil {
		templates = templateTexts(*in.Body.Templates)
	}
	done, err := a.policyStores.PutContents(ctx, c, id, policystore.NewContents{
		Schema: schemaText(in.Body.Schema), Policies: policyTexts(in.Body.Policies), Templates: templates,
		Prune: in.Body.Prune, IfRevision: revision,
	})
	if err != nil {
		if revision != nil && copse.KindOf(err) == copse.Conflict {
			return nil, &refusal{err: err, status: http.StatusPreconditionFailed}
		}
		return nil, err
	}
	return &contentsResultOutput{ETag: etag(done.Revision), Body: ContentsResult{
		Revision: done.Revision, Policies: policyRefs(done.Policies),
		Created: done.Created, Updated: done.Updated, Deleted: done.Deleted, Kept: policyRefs(done.Kept),
	}}, nil
}

// ifMatch reads the header: nil takes any revision. It is required, so that nobody overwrites what they
// have not seen without saying so. Lists of ETags and weak ones are refused rather than guessed at:
// what copse gives out is one strong one.
func ifMatch(header string) (*uint64, error) {
	if header == "" {
		return nil, &refusal{status: http.StatusPreconditionRequired, err: copse.Errorf(copse.Invalid,
			`send If-Match with the ETag of the contents you changed, or "If-Match: *" to replace whatever is there`)}
	}
	if header == "*" {
		return nil, nil
	}
	if len(header) > 2 && header[0] == '"' && header[len(header)-1] == '"' {
		if revision, err := strconv.ParseUint(header[1:len(header)-1], 10, 64); err == nil {
			return &revision, nil
		}
	}
	return nil, &copse.Error{Kind: copse.Invalid, Detail: "If-Match is neither * nor an ETag of contents",
		Fields: []copse.Field{{Path: "header.If-Match", Message: `send one ETag as the server returned it, quotes included, such as "3", or *`}}}
}

// policyRefs is never nil: its lists are always in the answer.
func policyRefs(refs []copse.PolicyRef) []PolicyRef {
	out := make([]PolicyRef, len(refs))
	for i, r := range refs {
		out[i] = PolicyRef{PolicyID: string(r.ID), Name: r.Name}
	}
	return out
}

// schemaOf has the JSON form always, and the Cedar text where that is what was put.
func schemaOf(s *policystore.Schema) Schema {
	return Schema{JSON: string(s.JSON), Cedar: s.Cedar, Namespaces: s.Namespaces}
}

// schemaOutput is the answer of both directions.
type schemaOutput struct{ Body Schema }

func (a *API) getSchema(ctx context.Context, c access.Caller, in *PolicyStorePath) (*schemaOutput, error) {
	id, err := in.id()
	if err != nil {
		return nil, err
	}
	s, err := a.policyStores.GetSchema(ctx, c, id)
	if err != nil {
		return nil, err
	}
	return &schemaOutput{Body: schemaOf(&s)}, nil
}

// putSchema is in force before the answer. What is stored is not checked by it, as at
// AVP; checkSchema does that.
func (a *API) putSchema(ctx context.Context, c access.Caller, in *struct {
	PolicyStorePath
	Body SchemaText
}) (*schemaOutput, error) {
	id, err := in.id()
	if err != nil {
		return nil, err
	}
	if err := checkSchemaText("body", &in.Body); err != nil {
		return nil, err
	}
	s, err := a.policyStores.PutSchema(ctx, c, id, *schemaText(&in.Body))
	if err != nil {
		return nil, relocate(err)
	}
	return &schemaOutput{Body: schemaOf(&s)}, nil
}

// schemaCheckOutput is the answer of both checks.
type schemaCheckOutput struct{ Body SchemaCheck }

// checkNewSchema needs read only, as nothing is changed.
func (a *API) checkNewSchema(ctx context.Context, c access.Caller, in *struct {
	PolicyStorePath
	Body SchemaText
}) (*schemaCheckOutput, error) {
	if err := checkSchemaText("body", &in.Body); err != nil {
		return nil, err
	}
	return a.check(ctx, c, &in.PolicyStorePath, schemaText(&in.Body))
}

// checkSchema looks at the schema that is stored; NotFound when there is none.
func (a *API) checkSchema(ctx context.Context, c access.Caller, in *PolicyStorePath) (*schemaCheckOutput, error) {
	return a.check(ctx, c, in, nil)
}

// check is bounded in work and one at a time for each policy store: a second is Throttled.
func (a *API) check(ctx context.Context, c access.Caller, path *PolicyStorePath, text *policystore.SchemaText) (*schemaCheckOutput, error) {
	id, err := path.id()
	if err != nil {
		return nil, err
	}
	found, err := a.policyStores.CheckSchema(ctx, c, id, text)
	if err != nil {
		return nil, relocate(err)
	}
	out := &schemaCheckOutput{Body: SchemaCheck{Revision: found.Revision, Checked: found.Checked, More: found.More, Unchecked: found.Unchecked, Broken: []BrokenPolicy{}}}
	for _, b := range found.Broken {
		broken := BrokenPolicy{Kind: "policy", ID: b.ID, Name: b.Name, Findings: []ErrorField{}}
		if b.Template {
			broken.Kind = "template"
		}
		for _, f := range b.Fields {
			// Everything it finds is in a statement; the path says so, for clients that show findings
			// as they show errors.
			broken.Findings = append(broken.Findings, ErrorField{Path: "statement", Message: f.Message, Line: f.Line, Column: f.Column})
		}
		out.Body.Broken = append(out.Body.Broken, broken)
	}
	return out, nil
}

// deleteTemplate is done when it is answered, however many links there are; their rows may go later.
func (a *API) deleteTemplate(ctx context.Context, c access.Caller, in *struct {
	PolicyStorePath
	Template string `path:"template" maxLength:"200" doc:"The template's id." example:"9wYixMplbbZQb5fcZHyJhY"`
}) (*struct{}, error) {
	id, err := in.id()
	if err != nil {
		return nil, err
	}
	return nil, a.policyStores.DeleteTemplate(ctx, c, id, copse.PolicyTemplateID(in.Template))
}

// relocate names the members of this body, which is the schema itself and not an object that has one.
// The error given is not changed.
func relocate(err error) error {
	e, ok := errors.AsType[*copse.Error](err)
	if !ok {
		return err
	}
	moved := *e
	moved.Fields = slices.Clone(e.Fields)
	for i := range moved.Fields {
		moved.Fields[i].Path = strings.TrimPrefix(moved.Fields[i].Path, "schema.")
	}
	return &moved
}
