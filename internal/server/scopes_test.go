package server_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/avp"
)

// access to an operation: which verb, and where a key must have it.
type scopeRow struct {
	verb string
	on   string // see the constants
	// orAdmin: admin does as well as the verb.
	orAdmin bool
	body    string // STORE is the policy store's id
	// elsewhere names the test that has the operation instead, whose answer is not told from its status.
	elsewhere string
}

const (
	onPolicyStore = "the policy store"          // else: it does not exist
	onTenant      = "the tenant, or all admin"  // else: it does not exist
	onAll         = "everything"                // else: 403, whatever is named
	onListed      = "what is to be in the list" // else: it is not in the list
	byToken       = "a user's token"            // no key does
)

// controlScopes has a row for every operation of the OpenAPI document and every other route.
func controlScopes() map[string]scopeRow {
	admin := scopeRow{verb: "admin", on: onAll}
	rows := map[string]scopeRow{
		"GET /v1/tenants":                                    {verb: "read", on: onListed, orAdmin: true},
		"GET /v1/tenants/{tenant}":                           {verb: "read", on: onPolicyStore, elsewhere: "TestLaw5ForeignPolicyStoreDoesNotExist"},
		"GET /v1/directory/tenants/{tenant}":                 {elsewhere: "TestLaw5KeySeesItsTenants"},
		"GET /v1/directory/issuers":                          {elsewhere: "TestLaw5KeySeesItsTenants"},
		"GET /v1/plans":                                      {elsewhere: "TestLaw5ForeignPolicyStoreDoesNotExist"},
		"GET /v1/plans/{name}":                               {elsewhere: "TestLaw5ForeignPolicyStoreDoesNotExist"},
		"GET /v1/policy-stores":                              {verb: "read", on: onListed},
		"GET /v1/decisions":                                  {elsewhere: "TestLaw3DecisionsAreLoggedApart"},
		"GET /v1/decisions/keys":                             {elsewhere: "TestLaw3DecisionsAreLoggedApart"}, // public keys: whoever has a key
		"GET /v1/audit":                                      {elsewhere: "TestLaw5AuditRowsOfOthers"},
		"GET /v1/usage":                                      {elsewhere: "TestUsage"},
		"GET /v1/tenants/{tenant}/members":                   {verb: "read", on: onTenant},
		"PUT /v1/tenants/{tenant}/members":                   {verb: "write", on: onTenant},
		"GET /v1/tenants/{tenant}/member":                    {verb: "read", on: onTenant},
		"DELETE /v1/tenants/{tenant}/member":                 {verb: "write", on: onTenant},
		"POST /v1/hooks/token":                               {verb: "decide", on: onAll},
		"POST /v1/hooks/cognito":                             {verb: "decide", on: onAll},
		"DELETE /v1/policy-stores/{id}/templates/{template}": {verb: "write", on: onPolicyStore},
		"POST /v1/authorize":                                 {on: byToken},
		"POST /v1/authorize/request":                         {on: byToken},
		"GET /v1/me/tenant":                                  {on: byToken},
		"PUT /v1/me/tenant":                                  {on: byToken},
		"/v1/forward-auth/nginx":                             {on: byToken},
		"/v1/forward-auth/forwarded":                         {on: byToken},
	}
	for _, verb := range []string{"GET read", "PUT write"} {
		method, verb, _ := strings.Cut(verb, " ")
		body := map[string]string{"PUT": `{"cedar":"entity User;"}`}[method]
		rows[method+" /v1/policy-stores/{id}/schema"] = scopeRow{verb: verb, on: onPolicyStore, body: body}
		body = map[string]string{"PUT": `{"policies":[]}`}[method]
		rows[method+" /v1/policy-stores/{id}/contents"] = scopeRow{verb: verb, on: onPolicyStore, body: body}
	}
	for _, op := range []string{"GET /v1/policy-stores/{id}", "GET /v1/policy-stores/{id}/schema:check"} {
		rows[op] = scopeRow{verb: "read", on: onPolicyStore}
	}
	rows["POST /v1/policy-stores/{id}/schema:check"] = scopeRow{verb: "read", on: onPolicyStore, body: `{"cedar":"entity User;"}`}
	for _, op := range []string{"POST /v1/tenants", "DELETE /v1/tenants/{tenant}", "POST /v1/tenants/{tenant}/suspend", "POST /v1/tenants/{tenant}/resume",
		"POST /v1/issuers", "GET /v1/issuers", "GET /v1/issuers/{id}", "PUT /v1/issuers/{id}", "DELETE /v1/issuers/{id}",
		"POST /v1/keys", "GET /v1/keys", "PUT /v1/keys/{id}/expiry", "POST /v1/keys/{id}/rotate", "DELETE /v1/keys/{id}",
		"PUT /v1/plans/{name}", "DELETE /v1/plans/{name}", "PATCH /v1/policy-stores/{id}", "PUT /v1/members/active", "POST /v1/backup", "GET /v1/doctor", "GET /v1/debug/bundle"} {
		rows[op] = admin
	}
	return rows
}

// amazonScopes has a row for every operation of the AVP API.
func amazonScopes() map[string]scopeRow {
	const arn = `"resourceArn":"arn:aws:verifiedpermissions::000000000000:policy-store/STORE"`
	const question = `,"principal":{"entityType":"U","entityId":"a"},"action":{"actionType":"Action","actionId":"v"},"resource":{"entityType":"D","entityId":"1"}`
	const one = `{"principal":{"entityType":"U","entityId":"a"},"action":{"actionType":"Action","actionId":"v"},"resource":{"entityType":"D","entityId":"1"}}`
	const asked = `{"action":{"actionType":"Action","actionId":"v"},"resource":{"entityType":"D","entityId":"1"}}`
	const source = `,"configuration":{"openIdConnectConfiguration":{"issuer":"https://idp.example.com","tokenSelection":{"accessTokenOnly":{"audiences":["x"]}}}},"principalEntityType":"User"`
	const static = `,"definition":{"static":{"statement":"permit(principal,action,resource);"}}`
	const template = `,"statement":"permit(principal == ?principal, action, resource);"`
	store := func(verb, members string) scopeRow {
		return scopeRow{verb: verb, on: onPolicyStore, body: `{"policyStoreId":"STORE"` + members + `}`}
	}
	return map[string]scopeRow{
		"CreatePolicyStore":          {verb: "admin", on: onAll, body: `{"validationSettings":{"mode":"OFF"}}`},
		"UpdatePolicyStore":          {verb: "admin", on: onAll, body: `{"policyStoreId":"NOBODYSPOLICYSTORE0000","validationSettings":{"mode":"OFF"}}`},
		"DeletePolicyStore":          {verb: "admin", on: onAll, body: `{"policyStoreId":"NOBODYSPOLICYSTORE0000"}`},
		"CreatePolicyStoreAlias":     {verb: "admin", on: onAll, body: `{"aliasName":"policy-store-alias/new","policyStoreId":"NOBODYSPOLICYSTORE0000"}`},
		"DeletePolicyStoreAlias":     {elsewhere: "TestAliasesAreSeenByThoseTheyAreOf"},
		"GetPolicyStoreAlias":        {elsewhere: "TestAliasesAreSeenByThoseTheyAreOf"},
		"ListPolicyStoreAliases":     {elsewhere: "TestAliasesAreSeenByThoseTheyAreOf"},
		"ListPolicyStores":           {verb: "read", on: onListed, body: `{}`},
		"GetPolicyStore":             store("read", ""),
		"TagResource":                {verb: "write", on: onPolicyStore, body: `{` + arn + `,"tags":{"a":"b"}}`},
		"UntagResource":              {verb: "write", on: onPolicyStore, body: `{` + arn + `,"tagKeys":["a"]}`},
		"ListTagsForResource":        {verb: "read", on: onPolicyStore, body: `{` + arn + `}`},
		"PutSchema":                  store("write", `,"definition":{"cedarJson":"{\"\":{\"entityTypes\":{},\"actions\":{}}}"}`),
		"GetSchema":                  store("read", ""),
		"CreatePolicy":               store("write", static),
		"GetPolicy":                  store("read", `,"policyId":"somebody"`),
		"UpdatePolicy":               store("write", `,"policyId":"somebody"`+static),
		"DeletePolicy":               store("write", `,"policyId":"somebody"`),
		"ListPolicies":               store("read", ""),
		"BatchGetPolicy":             {verb: "read", on: onPolicyStore, body: `{"requests":[{"policyStoreId":"STORE","policyId":"somebody"}]}`},
		"CreateIdentitySource":       store("write", source),
		"GetIdentitySource":          store("read", `,"identitySourceId":"somebody"`),
		"UpdateIdentitySource":       store("write", `,"identitySourceId":"somebody","updateConfiguration":{"openIdConnectConfiguration":{"issuer":"https://idp.example.com","tokenSelection":{"accessTokenOnly":{"audiences":["x"]}}}}`),
		"DeleteIdentitySource":       store("write", `,"identitySourceId":"somebody"`),
		"ListIdentitySources":        store("read", ""),
		"CreatePolicyTemplate":       store("write", template),
		"GetPolicyTemplate":          store("read", `,"policyTemplateId":"somebody"`),
		"UpdatePolicyTemplate":       store("write", `,"policyTemplateId":"somebody"`+template),
		"DeletePolicyTemplate":       store("write", `,"policyTemplateId":"somebody"`),
		"ListPolicyTemplates":        store("read", ""),
		"IsAuthorized":               store("decide", question),
		"BatchIsAuthorized":          store("decide", `,"requests":[`+one+`]`),
		"IsAuthorizedWithToken":      store("decide", `,"accessToken":"a.b.c"`+strings.Replace(question, `"principal":{"entityType":"U","entityId":"a"},`, "", 1)),
		"BatchIsAuthorizedWithToken": store("decide", `,"accessToken":"a.b.c","requests":[`+asked+`]`),
	}
}

// scopedKey is a key of one scope with one verb.
type scopedKey struct {
	scope, verb, credential string
}

// may is the rule that the services are held against.
func (k scopedKey) may(row scopeRow) bool {
	if row.on == onTenant {
		return k.verb == "admin" || k.verb == row.verb && (k.scope == "all" || k.scope == "tenant")
	}
	if row.orAdmin && k.verb == "admin" {
		return true
	}
	return k.verb == row.verb && (k.scope == "all" || row.on != onAll && (k.scope == "tenant" || k.scope == "policy store"))
}

// Every operation of every API, asked with a key of every scope and every single verb: it is done, or what
// it names does not exist, or (what only the operator does) it is refused. An operation without a row in
// controlScopes or amazonScopes fails here: give it one, with the verb it needs and where.
func TestEveryOperationWithEveryScope(t *testing.T) {
	s := start(t)
	mine := s.onboard("mine", nil)
	other := s.onboard("other", nil)
	var keys []scopedKey
	for name, scope := range map[string]api.KeyScope{
		"all": {All: true}, "tenant": {Tenant: "mine"}, "policy store": {PolicyStoreID: mine.PolicyStoreID},
		"another tenant": {Tenant: "other"}, "another policy store": {PolicyStoreID: other.PolicyStoreID},
	} {
		for _, verb := range []string{"read", "write", "decide", "admin"} {
			if verb != "admin" || scope.All {
				keys = append(keys, scopedKey{name, verb, s.key(scope, verb)})
			}
		}
	}
	asked := 0
	check := func(operation string, row scopeRow, call func(credential string) reply) {
		for _, k := range keys {
			if row.elsewhere != "" {
				return
			}
			r := call(k.credential)
			if done := !refusedFor(row, r, mine.PolicyStoreID); done != (k.may(row) && row.on != byToken) {
				t.Errorf("%s needs %q on %s: with a key for %s, %s it is answered %v", operation, row.verb, row.on, k.scope, k.verb, r)
			}
			asked++
		}
	}
	rows := controlScopes()
	for _, operation := range controlOperations(t, s) {
		row, ok := rows[operation]
		if !ok {
			t.Errorf("%s has no row in controlScopes: which verb does it need, and where?", operation)
			continue
		}
		delete(rows, operation)
		method, path, found := strings.Cut(operation, " ")
		if !found {
			method, path = "GET", operation
		}
		tenant, id := "mine", mine.PolicyStoreID
		if row.on == onAll { // nobody's, so that nothing happens to it
			tenant, id = "nobody", copse.NewID()
		}
		path = strings.NewReplacer("{tenant}", tenant, "{id}", id, "{name}", "none", "{template}", "none").Replace(path)
		check(operation, row, func(credential string) reply {
			if row.body == "" {
				return s.as(credential, method, path, nil)
			}
			return s.as(credential, method, path, row.body, "If-Match", "*")
		})
	}
	amazon := amazonScopes()
	for _, operation := range avp.Operations() {
		row, ok := amazon[operation]
		if !ok {
			t.Errorf("%s has no row in amazonScopes: which verb does it need, and where?", operation)
			continue
		}
		delete(amazon, operation)
		body := strings.ReplaceAll(row.body, "STORE\"", mine.PolicyStoreID+"\"")
		check(operation, row, func(credential string) reply { return s.amazon(credential, operation, body) })
	}
	for operation := range rows {
		t.Errorf("%s has a row and is not there", operation)
	}
	for operation := range amazon {
		t.Errorf("%s has a row and is not there", operation)
	}
	if asked < 60*len(keys) {
		t.Errorf("only %d calls", asked)
	}
}

// controlOperations are those of the OpenAPI document and of the server's route table.
func controlOperations(t *testing.T, s *site) []string {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal([]byte(s.must(200, "GET", "/openapi.json", nil).body), &doc); err != nil {
		t.Fatal(err)
	}
	var out []string
	for path, methods := range doc.Paths {
		for method := range methods {
			out = append(out, strings.ToUpper(method)+" "+path)
		}
	}
	for _, r := range s.Routes() {
		// AVP's route has its own table, and what is under /v1/ and nothing else is nowhere.
		if !r.Open && r.Pattern != "POST /{$}" && r.Pattern != "/v1/" {
			out = append(out, r.Pattern)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// refusedFor tells a refusal from every other answer, also from that a member of the request is missing.
func refusedFor(row scopeRow, r reply, policyStore string) bool {
	switch row.on {
	case onAll:
		return r.status == 403 || strings.Contains(r.body, "AccessDeniedException")
	case onListed:
		return !strings.Contains(r.body, policyStore)
	case onTenant:
		return r.status == 404 && strings.Contains(r.body, `tenant \"mine\" does not exist`)
	case byToken:
		return r.status == 401 || r.status == 403
	}
	return strings.Contains(r.body, fmt.Sprintf(`policy store \"%s\" does not exist`, policyStore)) || strings.Contains(r.body, "POLICY_STORE_NOT_FOUND")
}
