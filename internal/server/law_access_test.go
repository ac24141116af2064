package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/api"
)

// apiCall is a call about a policy store, on either API.
type apiCall struct {
	name string
	verb string // what a key needs for it
	do   func(s *site, credential, id string) reply
}

// policyStoreCalls are the calls of both APIs that name a policy store. In each of them %s stands for
// its id.
func policyStoreCalls() []apiCall {
	control := func(verb, method, path, body string, headers ...string) apiCall {
		return apiCall{method + " " + path, verb, func(s *site, credential, id string) reply {
			var content any
			if body != "" {
				content = body
			}
			return s.as(credential, method, "/v1/policy-stores/"+id+path, content, headers...)
		}}
	}
	amazon := func(verb, operation, members string) apiCall {
		return apiCall{operation, verb, func(s *site, credential, id string) reply {
			return s.amazon(credential, operation, fmt.Sprintf(`{"policyStoreId":%q%s}`, id, members))
		}}
	}
	const definition = `,"definition":{"static":{"statement":"permit(principal,action,resource);"}}`
	const template = `,"statement":"permit(principal == ?principal, action, resource is Doc);"`
	return []apiCall{
		control("read", "GET", "", ""),
		control("read", "GET", "/contents", ""),
		control("read", "GET", "/schema", ""),
		control("write", "PUT", "/contents", `{"policies":[]}`, "If-Match", "*"),
		control("write", "PUT", "/contents", `{"policies":[]}`, "If-Match", `"1"`),
		control("write", "PUT", "/contents", `{"policies":[{"name":"x","statement":"permit ("}]}`, "If-Match", "*"),
		control("write", "PUT", "/schema", `{"cedar":"entity User;"}`),
		control("read", "GET", "/schema:check", ""),
		control("read", "POST", "/schema:check", `{"cedar":"entity User;"}`),
		amazon("read", "GetPolicyStore", ``),
		amazon("read", "GetSchema", ``),
		amazon("read", "ListPolicies", ``),
		amazon("read", "GetPolicy", `,"policyId":"somebody"`),
		amazon("read", "ListPolicyTemplates", ``),
		amazon("read", "GetPolicyTemplate", `,"policyTemplateId":"somebody"`),
		amazon("read", "ListIdentitySources", ``),
		amazon("write", "CreatePolicyTemplate", template),
		amazon("write", "UpdatePolicyTemplate", `,"policyTemplateId":"somebody"`+template),
		amazon("write", "DeletePolicyTemplate", `,"policyTemplateId":"somebody"`),
		amazon("write", "PutSchema", `,"definition":{"cedarJson":"{\"\":{\"entityTypes\":{},\"actions\":{}}}"}`),
		amazon("write", "CreatePolicy", definition),
		amazon("write", "UpdatePolicy", `,"policyId":"somebody"`+definition),
		amazon("write", "DeletePolicy", `,"policyId":"somebody"`),
		amazon("decide", "IsAuthorized", `,"principal":{"entityType":"User","entityId":"alice"},"action":{"actionType":"Action","actionId":"view"},"resource":{"entityType":"Doc","entityId":"1"}`),
	}
}

// seen is an answer as a caller sees it, without what differs from call to call.
func seen(r reply, id string) string {
	h := r.header.Clone()
	request := h.Get("X-Request-Id")
	for _, name := range []string{"Date", "X-Request-Id", "X-Amzn-Requestid"} {
		h.Del(name)
	}
	body := strings.ReplaceAll(strings.ReplaceAll(r.body, id, "ID"), request, "REQUEST")
	return fmt.Sprintf("%d\n%v\n%s", r.status, h, body)
}

// Another tenant's policy store is answered like one that never was, to the last byte.
func TestLaw5ForeignPolicyStoreDoesNotExist(t *testing.T) {
	s := start(t)
	mine := s.onboard("mine", map[string]string{"view": aliceViews}, docSchema)
	other := s.onboard("other", map[string]string{"view": bobViews}, docSchema)
	all := []string{"read", "write", "decide"}
	for scope, credential := range map[string]string{
		"tenant":       s.key(api.KeyScope{Tenant: "mine"}, all...),
		"policy store": s.key(api.KeyScope{PolicyStoreID: mine.PolicyStoreID}, all...),
	} {
		before := s.contents(other.PolicyStoreID)
		for _, c := range policyStoreCalls() {
			t.Run(scope+"/"+c.name, func(t *testing.T) {
				never := copse.NewID()
				absent, foreign := c.do(s, credential, never), c.do(s, credential, other.PolicyStoreID)
				if absent.status != 404 && !strings.Contains(absent.body, "ResourceNotFoundException") {
					t.Errorf("a policy store that never was: %v", absent)
				}
				if a, b := seen(absent, never), seen(foreign, other.PolicyStoreID); a != b {
					t.Errorf("one that never was is answered\n%s\nanother tenant's is answered\n%s", a, b)
				}
				// The root key sees a difference, so there was one to hide.
				if a, b := seen(c.do(s, s.root, never), never), seen(c.do(s, credential, mine.PolicyStoreID), mine.PolicyStoreID); a == b {
					t.Errorf("the caller's own policy store is answered like one that never was:\n%s", a)
				}
			})
		}
		// What no such key may do is refused alike, whose policy store it is and whether there is one.
		never := copse.NewID()
		refused := s.as(credential, "PATCH", "/v1/policy-stores/"+never, `{"plan":"unmetered"}`)
		for _, id := range []string{other.PolicyStoreID, mine.PolicyStoreID} {
			r := s.as(credential, "PATCH", "/v1/policy-stores/"+id, `{"plan":"unmetered"}`)
			if a, b := seen(refused, never), seen(r, id); a != b || r.status != 403 {
				t.Errorf("an update of one that never was is answered\n%s\nof %s\n%s", a, id, b)
			}
		}
		for _, path := range []string{"/v1/plans/default", "/v1/plans/never"} { // no key of one tenant's sees a plan
			wantStatus(t, s.as(credential, "GET", path, nil), 404)
		}
		if plans := decode[api.PlanList](t, s.as(credential, "GET", "/v1/plans", nil)); len(plans.Plans) != 0 {
			t.Errorf("plans: %v", plans)
		}
		if after := s.contents(other.PolicyStoreID); after.Revision != before.Revision {
			t.Errorf("the other tenant moved from revision %d to %d", before.Revision, after.Revision)
		}
		for _, path := range []string{"/v1/tenants/other", "/v1/tenants/other/suspend", "/v1/tenants/other/resume"} {
			method := map[bool]string{true: "GET", false: "POST"}[path == "/v1/tenants/other"]
			absent := s.as(credential, method, strings.Replace(path, "other", "never", 1), nil)
			foreign := s.as(credential, method, path, nil)
			if a, b := seen(absent, "never"), seen(foreign, "other"); a != b || foreign.status < 400 {
				t.Errorf("%s: one that never was is answered\n%s\nanother tenant's is answered\n%s", path, a, b)
			}
		}
	}
}

const docSchema = `entity Role; entity User in [Role]; entity Doc; action view appliesTo { principal: User, resource: Doc };`

// Lists hold what the key covers, whatever page of whose list is asked for.
func TestLaw5ListsHoldWhatTheKeyCovers(t *testing.T) {
	s := start(t)
	var mine api.Tenant
	for i := range 5 {
		made := s.onboard(fmt.Sprintf("tenant-%d", i), nil)
		if i == 2 {
			mine = made
		}
	}
	key := s.key(api.KeyScope{Tenant: mine.Tenant}, "read")
	tenants := decode[api.TenantList](t, s.as(key, "GET", "/v1/tenants", nil))
	if len(tenants.Tenants) != 1 || tenants.Tenants[0].Tenant != mine.Tenant {
		t.Errorf("tenants: %v", tenants)
	}
	stores := decode[api.PolicyStoreList](t, s.as(key, "GET", "/v1/policy-stores", nil))
	if len(stores.PolicyStores) != 1 || stores.PolicyStores[0].PolicyStoreID != mine.PolicyStoreID {
		t.Errorf("policy stores: %v", stores)
	}
	listed := s.amazon(key, "ListPolicyStores", `{}`)
	if listed.status != 200 || strings.Count(listed.body, `"policyStoreId"`) != 1 || !strings.Contains(listed.body, mine.PolicyStoreID) {
		t.Errorf("ListPolicyStores: %v", listed)
	}
	everyone := decode[api.TenantList](t, s.must(200, "GET", "/v1/tenants?maxResults=2", nil))
	if len(everyone.Tenants) != 2 || everyone.NextToken == "" {
		t.Fatalf("tenants: %v", everyone)
	}
	wantStatus(t, s.as(key, "GET", "/v1/tenants?nextToken="+everyone.NextToken, nil), 400)
	wantStatus(t, s.as(s.root, "GET", "/v1/tenants?nextToken="+everyone.NextToken, nil), 200)
	wantStatus(t, s.as(s.root, "GET", "/v1/policy-stores?nextToken="+everyone.NextToken, nil), 400)
}

// A key does what its verbs say where its scope is, and administers nothing.
func TestLaw5KeysDoWhatTheyWereGivenFor(t *testing.T) {
	s := start(t)
	mine := s.onboard("mine", map[string]string{"view": aliceViews}, docSchema)
	// A policy store that the key covers with another verb only may as well not be there.
	refused := func(r reply) bool {
		return r.status == http.StatusForbidden || strings.Contains(r.body, "AccessDeniedException") ||
			strings.Contains(r.body, `policy store \"`+mine.PolicyStoreID+`\" does not exist`)
	}
	for _, verb := range []string{"read", "write", "decide"} {
		for _, scope := range []api.KeyScope{{Tenant: "mine"}, {PolicyStoreID: mine.PolicyStoreID}, {All: true}} {
			key := s.key(scope, verb)
			for _, c := range policyStoreCalls() {
				if r := c.do(s, key, mine.PolicyStoreID); refused(r) != (c.verb != verb) {
					t.Errorf("a key with %s on %+v: %s is answered %v", verb, scope, c.name, r)
				}
			}
			for _, path := range []string{"POST /v1/tenants", "DELETE /v1/tenants/mine", "POST /v1/tenants/mine/suspend",
				"PATCH /v1/policy-stores/" + mine.PolicyStoreID, "PUT /v1/plans/default", "DELETE /v1/plans/default",
				"POST /v1/issuers", "DELETE /v1/issuers/x", "POST /v1/keys", "GET /v1/keys", "DELETE /v1/keys/x", "PUT /v1/keys/x/expiry", "POST /v1/keys/x/rotate"} {
				method, path, _ := strings.Cut(path, " ")
				var body any
				switch path {
				case "/v1/policy-stores/" + mine.PolicyStoreID:
					body = map[string]any{"validation": "OFF"}
				case "/v1/plans/default":
					if method == "PUT" {
						body = map[string]any{"quotas": map[string]any{}}
					}
				case "/v1/tenants":
					body = api.CreateTenantRequest{Tenant: "mine"} // taken: not even that is told
				case "/v1/issuers":
					body = api.Issuer{URL: "https://idp.example.com", AllTenants: true, TokenType: "id", Audiences: []string{"x"},
						Algorithms: []string{"ES256"}, TenantClaim: "t", PrincipalType: "User"}
				case "/v1/keys":
					body = map[string]any{"scope": map[string]any{"all": true}, "verbs": []string{"admin"}}
				}
				if method == "GET" {
					body = nil
				}
				if r := s.as(key, method, path, body); r.status != http.StatusForbidden {
					t.Errorf("a key with %s on %+v: %s %s is answered %v", verb, scope, method, path, r)
				}
			}
		}
	}
	after := decode[api.PolicyStore](t, s.must(200, "GET", "/v1/policy-stores/"+mine.PolicyStoreID, nil))
	if plan := decode[api.Plan](t, s.must(200, "GET", "/v1/plans/default", nil)); after.Settings.Validation != "STRICT" || !plan.UpdatedAt.IsZero() {
		t.Errorf("afterwards: %+v, %+v", after, plan)
	}
	if r := s.must(200, "GET", "/v1/tenants/mine", nil); !strings.Contains(r.body, "ACTIVE") {
		t.Errorf("the tenant afterwards: %v", r)
	}
	// admin is for everything or not at all.
	for _, scope := range []api.KeyScope{{Tenant: "mine"}, {PolicyStoreID: mine.PolicyStoreID}} {
		wantStatus(t, s.as(s.root, "POST", "/v1/keys", api.CreateKeyRequest{Scope: scope, Verbs: []string{"admin"}}), 400)
	}
}

// A revoked key is refused from the answer on.
func TestLaw5RevokedKeyIsNobody(t *testing.T) {
	s := start(t)
	s.onboard("mine", nil)
	made := decode[api.CreatedKey](t, s.must(201, "POST", "/v1/keys", api.CreateKeyRequest{Scope: api.KeyScope{Tenant: "mine"}, Verbs: []string{"read"}}))
	wantStatus(t, s.as(made.Credential, "GET", "/v1/tenants/mine", nil), 200)
	s.must(204, "DELETE", "/v1/keys/"+made.ID, nil)
	wantStatus(t, s.as(made.Credential, "GET", "/v1/tenants/mine", nil), 401)
	for _, wrong := range []string{made.Credential + "x", made.Credential[:len(made.Credential)-1], "copse_" + made.ID + "_", "copse__", made.Secret} {
		wantStatus(t, s.as(wrong, "GET", "/v1/tenants/mine", nil), 401)
	}
}
