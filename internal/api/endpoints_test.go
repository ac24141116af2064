package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/copse-authz/copse"
)

func TestTenants(t *testing.T) {
	s := start(t)
	made := newTenant(t, s, "acme")
	if made.Tenant != "acme" || made.State != "ACTIVE" || len(made.PolicyStoreID) != 22 || time.Since(made.CreatedAt) > time.Minute {
		t.Errorf("created: %+v", made)
	}
	if got := do[Tenant](t, s, http.MethodGet, "/v1/tenants/acme", nil, 200); got != made {
		t.Errorf("-made +got:\n%s", cmp.Diff(made, got))
	}
	if e := s.call(t, s.root, http.MethodPost, "/v1/tenants", `{"tenant":"acme"}`).error(t); e.Kind != "Conflict" || e.Resource != "TENANT" || e.ID != "acme" {
		t.Errorf("created twice: %+v", e)
	}
	ps := do[PolicyStore](t, s, http.MethodGet, "/v1/policy-stores/"+made.PolicyStoreID, nil, 200)
	if ps.Tenant != "acme" || ps.Policies != 1 || ps.Settings != (Settings{Validation: "STRICT", CheckRequests: true}) {
		t.Errorf("its policy store: %+v", ps)
	}

	suspended := do[Tenant](t, s, http.MethodPost, "/v1/tenants/acme/suspend", nil, 200)
	if suspended.State != "SUSPENDED" || suspended.UpdatedAt.Before(made.UpdatedAt) {
		t.Errorf("suspended: %+v", suspended)
	}
	if again := do[Tenant](t, s, http.MethodPost, "/v1/tenants/acme/suspend", nil, 200); again != suspended {
		t.Errorf("suspending twice changed %s", cmp.Diff(suspended, again))
	}
	if resumed := do[Tenant](t, s, http.MethodPost, "/v1/tenants/acme/resume", nil, 200); resumed.State != "ACTIVE" {
		t.Errorf("resumed: %+v", resumed)
	}

	// Settings given are given whole, and win over the defaults.
	other := do[Tenant](t, s, http.MethodPost, "/v1/tenants", CreateTenantRequest{Tenant: "other.example:1@x", Description: "d",
		Settings: &Settings{Validation: "OFF", ForbidErrorsDeny: true}}, 201)
	ps = do[PolicyStore](t, s, http.MethodGet, "/v1/policy-stores/"+other.PolicyStoreID, nil, 200)
	if ps.Settings != (Settings{Validation: "OFF", ForbidErrorsDeny: true}) || ps.Description != "d" {
		t.Errorf("its policy store: %+v", ps)
	}

	do[nothing](t, s, http.MethodDelete, "/v1/tenants/acme", nil, http.StatusNoContent)
	for _, path := range []string{"/v1/tenants/acme", "/v1/policy-stores/" + made.PolicyStoreID} {
		if a := s.call(t, s.root, http.MethodGet, path, ""); a.status != http.StatusNotFound {
			t.Errorf("%s after its deletion: %d", path, a.status)
		}
	}
	if a := s.call(t, s.root, http.MethodDelete, "/v1/tenants/acme", ""); a.status != http.StatusNotFound {
		t.Errorf("deleted twice: %d", a.status)
	}
}

func TestTimesAreMicrosecondsInUTC(t *testing.T) {
	s := start(t)
	newTenant(t, s, "acme")
	body := s.call(t, s.root, http.MethodGet, "/v1/tenants/acme", "").body
	_, after, _ := strings.Cut(body, `"createdAt":"`)
	text, _, _ := strings.Cut(after, `"`)
	if _, err := time.Parse("2006-01-02T15:04:05.000000Z", text); err != nil {
		t.Errorf("%v in %s", err, body)
	}
}

func TestLists(t *testing.T) {
	s := start(t)
	const n = 7
	want := make([]string, n)
	for i := range n {
		want[i] = fmt.Sprintf("tenant-%d", i)
		newTenant(t, s, want[i])
		do[Issuer](t, s, http.MethodPost, "/v1/issuers", testIssuer(want[i]), 201)
		do[CreatedKey](t, s, http.MethodPost, "/v1/keys", CreateKeyRequest{Scope: KeyScope{Tenant: want[i]}, Verbs: []string{"read"}}, 201)
	}
	page := func(path, token string) (ids []string, next string) {
		switch path {
		case "/v1/tenants":
			out := do[TenantList](t, s, http.MethodGet, path+token, nil, 200)
			for _, e := range out.Tenants {
				ids = append(ids, e.Tenant)
			}
			return ids, out.NextToken
		case "/v1/issuers":
			out := do[IssuerList](t, s, http.MethodGet, path+token, nil, 200)
			for _, e := range out.Issuers {
				ids = append(ids, e.ID)
			}
			return ids, out.NextToken
		case "/v1/policy-stores":
			out := do[PolicyStoreList](t, s, http.MethodGet, path+token, nil, 200)
			for _, e := range out.PolicyStores {
				ids = append(ids, e.PolicyStoreID)
			}
			return ids, out.NextToken
		default:
			out := do[KeyList](t, s, http.MethodGet, path+token, nil, 200)
			for _, e := range out.Keys {
				ids = append(ids, e.ID)
			}
			return ids, out.NextToken
		}
	}
	tokens := map[string]string{}
	paths := []string{"/v1/tenants", "/v1/issuers", "/v1/policy-stores", "/v1/keys"}
	for _, path := range paths {
		all, next := page(path, "")
		if len(all) != n || next != "" || !slices.IsSorted(all) {
			t.Errorf("%s in one page: %v, token %q", path, all, next)
		}
		var paged []string
		token, pages := "?maxResults=3", 0
		for ; pages < 10; pages++ {
			ids, next := page(path, token)
			paged = append(paged, ids...)
			if next == "" {
				break
			}
			tokens[path] = next
			token = "?maxResults=3&nextToken=" + next
		}
		if !slices.Equal(paged, all) || pages != 2 {
			t.Errorf("%s in pages of 3: %v on %d pages, want %v", path, paged, pages+1, all)
		}
		if ids, next := page(path, "?maxResults=100000"); len(ids) != n || next != "" {
			t.Errorf("%s with a large maxResults: %d", path, len(ids))
		}
	}
	tenants, _ := page("/v1/tenants", "")
	if !slices.Equal(tenants, want) {
		t.Errorf("tenants: %s", cmp.Diff(want, tenants))
	}
	// A token is of one list and one caller.
	for i, path := range paths {
		token := tokens[paths[(i+1)%len(paths)]]
		if a := s.call(t, s.root, http.MethodGet, path+"?nextToken="+token, ""); a.status != 400 || a.error(t).Kind != "Invalid" {
			t.Errorf("%s with another list's token: %d", path, a.status)
		}
	}
	other := s.key(t, accessAll, accessAdmin)
	if a := s.call(t, other, http.MethodGet, "/v1/tenants?nextToken="+tokens["/v1/tenants"], ""); a.status != 400 {
		t.Errorf("another caller's token: %d", a.status)
	}
}

func testIssuer(tenant string) Issuer {
	return Issuer{
		URL: "https://idp.example.com/" + tenant, Tenants: []string{tenant}, TokenType: "access",
		Audiences: []string{"payments"}, Algorithms: []string{"ES256"}, TenantClaim: "tenant_id",
		PrincipalType: "User", PrincipalIDPrefix: "idp", GroupType: "Role", GroupClaim: "roles",
	}
}

func TestIssuers(t *testing.T) {
	s := start(t)
	newTenant(t, s, "acme")
	in := testIssuer("acme")
	made := do[Issuer](t, s, http.MethodPost, "/v1/issuers", in, 201)
	ours := cmpopts.IgnoreFields(Issuer{}, "ID", "Revision", "CreatedAt", "UpdatedAt", "PrincipalIDClaim")
	if diff := cmp.Diff(in, made, ours); diff != "" || made.ID == "" || made.Revision == 0 || made.PrincipalIDClaim != "sub" {
		t.Errorf("made %+v; -asked +made:\n%s", made, diff)
	}
	path := "/v1/issuers/" + made.ID
	if got := do[Issuer](t, s, http.MethodGet, path, nil, 200); !cmp.Equal(got, made) {
		t.Errorf("-made +got:\n%s", cmp.Diff(made, got))
	}
	if e := s.call(t, s.root, http.MethodPost, "/v1/issuers", marshal(t, in)).error(t); e.Kind != "Conflict" || e.Resource != "ISSUER" {
		t.Errorf("registered twice: %+v", e)
	}
	// What was read can be changed and sent back.
	changed := made
	changed.Audiences = []string{"payments", "reports"}
	updated := do[Issuer](t, s, http.MethodPut, path, changed, 200)
	if !slices.Equal(updated.Audiences, changed.Audiences) || updated.Revision <= made.Revision || !updated.CreatedAt.Equal(made.CreatedAt) {
		t.Errorf("updated: %+v", updated)
	}
	if a := s.call(t, s.root, http.MethodPut, path, marshal(t, changed)); a.status != http.StatusConflict {
		t.Errorf("an update of what was changed since: %d %s", a.status, a.body)
	}
	changed.Revision = 0
	do[Issuer](t, s, http.MethodPut, path, changed, 200)
	changed.ID = "another"
	if a := s.call(t, s.root, http.MethodPut, path, marshal(t, changed)); a.status != 400 {
		t.Errorf("a body of another issuer: %d", a.status)
	}
	for name, change := range map[string]func(*Issuer){
		"no tenant":            func(i *Issuer) { i.Tenants = []string{"nobody"} },
		"no audience":          func(i *Issuer) { i.Audiences = nil },
		"a symmetric key":      func(i *Issuer) { i.Algorithms = []string{"HS256"} },
		"no algorithm at all":  func(i *Issuer) { i.Algorithms = []string{"none"} },
		"plain http":           func(i *Issuer) { i.URL = "http://idp.example.com" },
		"an id of its own":     func(i *Issuer) { i.ID = "x" },
		"no such token type":   func(i *Issuer) { i.TokenType = "refresh" },
		"the same principals":  func(*Issuer) {},
		"two ways to a tenant": func(i *Issuer) { i.FixedTenant = "acme" },
	} {
		bad := testIssuer("acme")
		bad.URL = "https://second.example.com"
		change(&bad)
		if a := s.call(t, s.root, http.MethodPost, "/v1/issuers", marshal(t, bad)); a.status != 400 || a.error(t).Kind != "Invalid" {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	do[nothing](t, s, http.MethodDelete, path, nil, 204)
	if a := s.call(t, s.root, http.MethodDelete, path, ""); a.status != 404 || a.error(t).Resource != "ISSUER" {
		t.Errorf("removed twice: %d %s", a.status, a.body)
	}
}

func TestContents(t *testing.T) {
	s := start(t)
	made := newTenant(t, s, "acme")
	path := "/v1/policy-stores/" + made.PolicyStoreID + "/contents"
	a := s.call(t, s.root, http.MethodGet, path, "")
	before := do[Contents](t, s, http.MethodGet, path, nil, 200)
	etag := a.header.Get("ETag")
	if etag != fmt.Sprintf("%q", fmt.Sprint(before.Revision)) || len(before.Policies) != 1 || before.Schema == nil || before.Schema.Cedar != testSchema {
		t.Errorf("ETag %s of %+v", etag, before)
	}
	owners := before.Policies[0]
	if owners.Name != "owners" || owners.Effect != "permit" || owners.PolicyID == "" {
		t.Errorf("policy: %+v", owners)
	}
	next := PutContentsRequest{Policies: []PolicyText{
		{Name: "owners", Statement: owners.Statement, Description: "now with words"},
		{Name: "no-pay-without-mfa", Statement: `forbid (principal, action == Action::"pay", resource) unless { context.mfa };`},
	}}
	if a := s.call(t, s.root, http.MethodPut, path, marshal(t, next)); a.status != http.StatusPreconditionRequired || a.error(t).Kind != "Invalid" {
		t.Errorf("without If-Match: %d %s", a.status, a.body)
	}
	for _, bad := range []string{"3", "W/" + etag, etag + ", \"9\"", `""`, `"-1"`, `"x"`} {
		if a := s.call(t, s.root, http.MethodPut, path, marshal(t, next), ifMatchHeader(bad)); a.status != 400 {
			t.Errorf("If-Match %s: %d", bad, a.status)
		}
	}
	result := do[ContentsResult](t, s, http.MethodPut, path, next, 200, ifMatchHeader(etag))
	if result.Created != 1 || result.Updated != 1 || result.Deleted != 0 || len(result.Kept) != 0 || len(result.Policies) != 2 || result.Revision <= before.Revision {
		t.Errorf("result: %+v", result)
	}
	if i := slices.IndexFunc(result.Policies, func(p PolicyRef) bool { return p.Name == "owners" }); i < 0 || result.Policies[i].PolicyID != owners.PolicyID {
		t.Errorf("the same name keeps its policy id: %+v", result.Policies)
	}
	a = s.call(t, s.root, http.MethodPut, path, marshal(t, next), ifMatchHeader(etag))
	if e := a.error(t); a.status != http.StatusPreconditionFailed || e.Kind != "Conflict" {
		t.Errorf("what was read is not there any more: %d %s", a.status, a.body)
	}
	// A policy without a name is kept, and listed, until prune.
	unnamed, err := s.policyStores.CreatePolicy(t.Context(), accessSystem(), copse.PolicyStoreID(made.PolicyStoreID),
		policyText(`permit (principal, action == Action::"view", resource) when { principal.level > 5 };`))
	if err != nil {
		t.Fatal(err)
	}
	next.Policies = next.Policies[:1]
	result = do[ContentsResult](t, s, http.MethodPut, path, next, 200, ifMatchHeader("*"))
	if result.Deleted != 1 || len(result.Kept) != 1 || result.Kept[0].PolicyID != string(unnamed.ID) {
		t.Errorf("result: %+v", result)
	}
	next.Prune = true
	if result = do[ContentsResult](t, s, http.MethodPut, path, next, 200, ifMatchHeader("*")); result.Deleted != 1 || len(result.Kept) != 0 {
		t.Errorf("result: %+v", result)
	}
	// One bad policy, and nothing of the rest is there.
	revision := result.Revision
	a = s.call(t, s.root, http.MethodPut, path, marshal(t, PutContentsRequest{Policies: []PolicyText{
		{Name: "good", Statement: `permit (principal, action == Action::"view", resource);`},
		{Name: "bad", Statement: "permit (principal, action == Action::\"view\", resource)\nwhen { resource.onwer == principal };"},
	}}), ifMatchHeader("*"))
	e := a.error(t)
	if a.status != 400 || len(e.Fields) == 0 || e.Fields[0].Path != "policies[1].statement" {
		t.Errorf("a policy that breaks the schema: %d %s", a.status, a.body)
	}
	if got := do[Contents](t, s, http.MethodGet, path, nil, 200); got.Revision != revision || len(got.Policies) != 1 {
		t.Errorf("afterwards: %+v", got)
	}
}

func TestSchemas(t *testing.T) {
	s := start(t)
	made := newTenant(t, s, "acme")
	path := "/v1/policy-stores/" + made.PolicyStoreID + "/schema"
	got := do[Schema](t, s, http.MethodGet, path, nil, 200)
	if got.Cedar != testSchema || !strings.Contains(got.JSON, `"Invoice"`) {
		t.Errorf("schema: %+v", got)
	}
	put := do[Schema](t, s, http.MethodPut, path, SchemaText{JSON: `{"Shop":{"entityTypes":{"Item":{}},"actions":{}}}`}, 200)
	if put.Cedar != "" || !slices.Equal(put.Namespaces, []string{"Shop"}) {
		t.Errorf("schema: %+v", put)
	}
	for name, test := range map[string]struct {
		body   string
		path   string
		status int
	}{
		"neither":          {`{}`, "body", 400},
		"both":             {`{"cedar":"entity A;","json":"{}"}`, "body", 400},
		"does not parse":   {`{"cedar":"entity A;\nentity {"}`, "cedar", 400},
		"does not resolve": {`{"json":"{\"\":{\"entityTypes\":{\"A\":{\"memberOfTypes\":[\"B\"]}},\"actions\":{}}}"}`, "json", 400},
		"too large":        {marshal(t, SchemaText{Cedar: "// " + strings.Repeat("x", copse.MaxSchemaBytes)}), "cedar", 422},
		"a bomb":           {marshal(t, SchemaText{Cedar: schemaBomb()}), "cedar", 400},
	} {
		a := s.call(t, s.root, http.MethodPut, path, test.body)
		e := a.error(t)
		if a.status != test.status || len(e.Fields) == 0 || e.Fields[0].Path != test.path {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if again := do[Schema](t, s, http.MethodGet, path, nil, 200); !cmp.Equal(again, put) {
		t.Errorf("a refused schema was stored: %s", cmp.Diff(put, again))
	}
	bare := do[Tenant](t, s, http.MethodPost, "/v1/tenants", CreateTenantRequest{Tenant: "bare"}, 201)
	if a := s.call(t, s.root, http.MethodGet, "/v1/policy-stores/"+bare.PolicyStoreID+"/schema", ""); a.status != 404 || a.error(t).Resource != "SCHEMA" {
		t.Errorf("no schema: %d %s", a.status, a.body)
	}
}

// What a schema breaks is told before it is put, and after, and nothing is changed by asking.
func TestSchemaCheck(t *testing.T) {
	s := start(t)
	made := do[Tenant](t, s, http.MethodPost, "/v1/tenants", CreateTenantRequest{
		Tenant: "acme", Schema: &SchemaText{Cedar: testSchema},
		Templates: []TemplateText{{Name: "viewers", Statement: "\n" + `permit (principal == ?principal, action == Action::"view", resource == ?resource) when { resource.owner == principal };`}},
		Policies: []PolicyText{{Name: "any", Statement: `permit (principal, action == Action::"pay", resource);`},
			{Name: "alice-17", Link: &Link{Template: "viewers", Principal: &EntityUID{Type: "User", ID: "alice"}, Resource: &EntityUID{Type: "Invoice", ID: "17"}}}},
	}, http.StatusCreated)
	path := "/v1/policy-stores/" + made.PolicyStoreID + "/schema"
	if got := do[SchemaCheck](t, s, http.MethodGet, path+":check", nil, 200); got.Revision != 1 || got.Checked != 3 || len(got.Broken) != 0 {
		t.Errorf("the stored schema: %+v", got)
	}
	ownerless := SchemaText{Cedar: strings.Replace(testSchema, "owner: User", "payer: User", 1)}
	wantBroken := func(got SchemaCheck) {
		t.Helper()
		if len(got.Broken) != 1 || got.Broken[0].Kind != "template" || got.Broken[0].Name != "viewers" || len(got.Broken[0].Findings) == 0 {
			t.Fatalf("broken: %+v", got)
		}
		if f := got.Broken[0].Findings[0]; f.Path != "statement" || f.Line != 2 || f.Column != 1 || !strings.Contains(f.Message, "owner") {
			t.Errorf("finding: %+v", f)
		}
	}
	wantBroken(do[SchemaCheck](t, s, http.MethodPost, path+":check", ownerless, 200))
	if got := do[Schema](t, s, http.MethodGet, path, nil, 200); got.Cedar != testSchema {
		t.Errorf("asking has put the schema: %+v", got)
	}
	do[Schema](t, s, http.MethodPut, path, ownerless, 200)
	wantBroken(do[SchemaCheck](t, s, http.MethodGet, path+":check", nil, 200))

	a := s.call(t, s.root, http.MethodPost, path+":check", `{"cedar":"entity A;\nentity {"}`)
	if e := a.error(t); a.status != 400 || len(e.Fields) == 0 || e.Fields[0].Path != "cedar" || e.Fields[0].Line != 2 {
		t.Errorf("a schema that does not parse: %d %s", a.status, a.body)
	}
	bare := do[Tenant](t, s, http.MethodPost, "/v1/tenants", CreateTenantRequest{Tenant: "bare"}, 201)
	if a := s.call(t, s.root, http.MethodGet, "/v1/policy-stores/"+bare.PolicyStoreID+"/schema:check", ""); a.status != 404 || a.error(t).Resource != "SCHEMA" {
		t.Errorf("no schema: %d %s", a.status, a.body)
	}
}

// A template goes with its links, and another policy store's has no such id.
func TestDeleteTemplate(t *testing.T) {
	s := start(t)
	create := func(tenant string) (path, template string) {
		made := do[Tenant](t, s, http.MethodPost, "/v1/tenants", CreateTenantRequest{
			Tenant:    tenant,
			Templates: []TemplateText{{Name: "viewers", Statement: `permit (principal == ?principal, action, resource is Doc);`}},
			Policies: []PolicyText{{Name: "all", Statement: `permit (principal, action, resource);`},
				{Name: "alice", Link: &Link{Template: "viewers", Principal: &EntityUID{Type: "User", ID: "alice"}}}},
		}, http.StatusCreated)
		path = "/v1/policy-stores/" + made.PolicyStoreID
		return path, do[Contents](t, s, http.MethodGet, path+"/contents", nil, 200).Templates[0].TemplateID
	}
	mine, template := create("acme")
	_, others := create("globex")
	for id, want := range map[string]int{others: 404, "never-was": 404, "a%20b": 400} {
		if a := s.call(t, s.root, http.MethodDelete, mine+"/templates/"+id, ""); a.status != want {
			t.Errorf("%s: %d %s", id, a.status, a.body)
		}
	}
	do[nothing](t, s, http.MethodDelete, mine+"/templates/"+template, nil, http.StatusNoContent)
	got := do[Contents](t, s, http.MethodGet, mine+"/contents", nil, 200)
	if len(got.Templates) != 0 || len(got.Policies) != 1 || got.Policies[0].Name != "all" {
		t.Errorf("left: %+v", got)
	}
}

// schemaBomb doubles a type thirty times.
func schemaBomb() string {
	var b strings.Builder
	b.WriteString("type T0 = { a: Long };\n")
	for i := 1; i <= 30; i++ {
		fmt.Fprintf(&b, "type T%d = { a: T%d, b: T%d };\n", i, i-1, i-1)
	}
	b.WriteString("entity E { t: T30 };")
	return b.String()
}

func TestKeys(t *testing.T) {
	s := start(t)
	made := newTenant(t, s, "acme")
	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	key := do[CreatedKey](t, s, http.MethodPost, "/v1/keys", CreateKeyRequest{
		Description: "acme's CI", Scope: KeyScope{PolicyStoreID: made.PolicyStoreID}, Verbs: []string{"write", "read"}, ExpiresAt: expires}, 201)
	if key.Credential != "copse_"+key.ID+"_"+key.Secret || !slices.Equal(key.Verbs, []string{"read", "write"}) || !key.ExpiresAt.Equal(expires) {
		t.Errorf("made: %+v", key)
	}
	if a := s.call(t, key.Credential, http.MethodGet, "/v1/policy-stores/"+made.PolicyStoreID, ""); a.status != 200 {
		t.Errorf("with the new key: %d %s", a.status, a.body)
	}
	listed := s.call(t, s.root, http.MethodGet, "/v1/keys", "").body
	if !strings.Contains(listed, key.ID) || strings.Contains(listed, key.Secret) || strings.Contains(listed, `"admin"`) {
		t.Errorf("listed: %s", listed)
	}
	for name, body := range map[string]string{
		"no scope":            `{"scope":{},"verbs":["read"]}`,
		"two scopes":          `{"scope":{"all":true,"tenant":"acme"},"verbs":["read"]}`,
		"admin of one tenant": `{"scope":{"tenant":"acme"},"verbs":["admin"]}`,
		"no verb":             `{"scope":{"all":true},"verbs":[]}`,
		"no such verb":        `{"scope":{"all":true},"verbs":["Read"]}`,
		"a verb twice":        `{"scope":{"all":true},"verbs":["read","read"]}`,
		"lists as verbs":      `{"scope":{"all":true},"verbs":[[],[]]}`,
		"null verbs":          `{"scope":{"all":true},"verbs":null}`,
		"past":                `{"scope":{"all":true},"verbs":["read"],"expiresAt":"2001-01-01T00:00:00Z"}`,
		"no time":             `{"scope":{"all":true},"verbs":["read"],"expiresAt":"tomorrow"}`,
	} {
		if a := s.call(t, s.root, http.MethodPost, "/v1/keys", body); a.status != 400 || a.error(t).Kind != "Invalid" {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	do[nothing](t, s, http.MethodDelete, "/v1/keys/"+key.ID, nil, 204)
	if a := s.call(t, key.Credential, http.MethodGet, "/v1/policy-stores", ""); a.status != 401 {
		t.Errorf("with a revoked key: %d %s", a.status, a.body)
	}
	if a := s.call(t, s.root, http.MethodDelete, "/v1/keys/"+key.ID, ""); a.status != 404 {
		t.Errorf("revoked twice: %d", a.status)
	}
	if strings.Contains(s.log.String(), key.Secret) || strings.Contains(s.log.String(), s.rootSecret) {
		t.Error("a secret is in the log")
	}
}
