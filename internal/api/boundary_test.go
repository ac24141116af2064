package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
)

var accessAll = access.Scope{All: true}

const accessAdmin = access.Admin | access.Read

func accessSystem() access.Caller { return access.System() }

func policyText(statement string) policystore.NewPolicy {
	return policystore.NewPolicy{Statement: statement}
}

func marshal(t *testing.T, v any) string {
	t.Helper()
	out, err := json.Marshal(v, encodeOptions)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestEveryKindHasAStatus(t *testing.T) {
	if len(statuses) != len(copse.Kinds()) {
		t.Fatalf("%d statuses for %d kinds", len(statuses), len(copse.Kinds()))
	}
	a := undressed(t)
	for _, kind := range copse.Kinds() {
		status := statuses[kind]
		if status < 400 || (status >= 500) != (kind == copse.Internal || kind == copse.Unavailable) {
			t.Errorf("%s: %d", kind, status)
		}
		err := &copse.Error{Kind: kind, Detail: "the detail", Err: errors.New("the cause"), Fields: []copse.Field{{Path: "p", Message: "m"}}}
		text := marshal(t, describe(err, "id"))
		if err := a.Conforms("ErrorBody", []byte(text)); err != nil {
			t.Errorf("%s: %v: %s", kind, err, text)
		}
		if strings.Contains(text, "the cause") || strings.Contains(text, "the detail") == (kind == copse.Internal) {
			t.Errorf("%s: %s", kind, text)
		}
	}
}

// Every route but the listed ones refuses strangers, before it reads a byte of their body.
func TestNoRouteWithoutAuthentication(t *testing.T) {
	s := start(t)
	asked := 0
	routes := append(s.api.Routes(), Route{Method: "GET", Path: "/v1/nothing"}, Route{Method: "PATCH", Path: "/v1/tenants"}, Route{Method: "GET", Path: "/"})
	for _, route := range routes {
		for name, authorization := range map[string]string{
			"nothing": "", "a wrong bearer": "Bearer copse_CPKAAAAAAAAAAAAAAAAA_x", "a user's token": "Bearer ey.ey.ey", "another scheme": "Basic eDp5",
			"an unknown key's signature": "AWS4-HMAC-SHA256 Credential=CPKAAAAAAAAAAAAAAAAA/20260101/x/verifiedpermissions/aws4_request, SignedHeaders=host;x-amz-date, Signature=" + strings.Repeat("0", 64),
		} {
			path := strings.NewReplacer("{tenant}", "acme", "{id}", "some", "{name}", "gold").Replace(route.Path)
			body := &unread{Reader: bytes.NewReader([]byte(`{}`))}
			r, err := http.NewRequestWithContext(t.Context(), route.Method, path, body)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = "localhost"
			if authorization != "" {
				r.Header.Set("Authorization", authorization)
			}
			w := recorder{header: http.Header{}}
			s.api.ServeHTTP(&w, r)
			if route.Open {
				if w.status != 0 && w.status != 200 {
					t.Errorf("%s %s is open and answers %d", route.Method, route.Path, w.status)
				}
				continue
			}
			if w.status != http.StatusUnauthorized || body.reads != 0 || w.header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s %s with %s: %d after %d reads: %s", route.Method, route.Path, name, w.status, body.reads, w.body.String())
			}
			asked++
		}
	}
	if asked != (37+9+3)*5 {
		t.Errorf("%d requests, want %d", asked, (37+9+3)*5)
	}
}

type unread struct {
	*bytes.Reader
	reads int
}

func (u *unread) Read(p []byte) (int, error) { u.reads++; return u.Reader.Read(p) }

// Law 5, over HTTP: a key sees what it covers; the rest is answered as if it had never been.
func TestScopes(t *testing.T) {
	s := start(t)
	mine, theirs := newTenant(t, s, "acme"), newTenant(t, s, "globex")
	full := access.Read | access.Write | access.Decide
	contents := marshal(t, PutContentsRequest{Policies: []PolicyText{}})
	calls := func(credential, ps, tenant string) map[string]*answer {
		path := "/v1/policy-stores/" + ps
		return map[string]*answer{
			"GET policy store": s.call(t, credential, http.MethodGet, path, ""),
			"GET contents":     s.call(t, credential, http.MethodGet, path+"/contents", ""),
			"PUT contents":     s.call(t, credential, http.MethodPut, path+"/contents", contents, ifMatchHeader("*")),
			"PUT contents at":  s.call(t, credential, http.MethodPut, path+"/contents", contents, ifMatchHeader(`"1"`)),
			"GET schema":       s.call(t, credential, http.MethodGet, path+"/schema", ""),
			"PUT schema":       s.call(t, credential, http.MethodPut, path+"/schema", `{"cedar":"entity X;"}`),
			"PUT bad schema":   s.call(t, credential, http.MethodPut, path+"/schema", `{"cedar":"x"}`),
			"GET check":        s.call(t, credential, http.MethodGet, path+"/schema:check", ""),
			"POST check":       s.call(t, credential, http.MethodPost, path+"/schema:check", `{"cedar":"entity X;"}`),
			"DELETE template":  s.call(t, credential, http.MethodDelete, path+"/templates/never-was", ""),
			"GET tenant":       s.call(t, credential, http.MethodGet, "/v1/tenants/"+tenant, ""),
		}
	}
	for name, scope := range map[string]access.Scope{
		"of a tenant": {Tenant: "acme"}, "of a policy store": {PolicyStore: copse.PolicyStoreID(mine.PolicyStoreID)},
	} {
		credential := s.key(t, scope, full)
		absent := calls(credential, "never-was", "never-was")
		asked := 0
		for call, a := range calls(credential, theirs.PolicyStoreID, "globex") {
			same := strings.NewReplacer(theirs.PolicyStoreID, "never-was", "globex", "never-was", a.error(t).RequestID, "").Replace(a.body)
			never := strings.ReplaceAll(absent[call].body, absent[call].error(t).RequestID, "")
			if a.status != http.StatusNotFound || absent[call].status != a.status || same != never {
				t.Errorf("key %s, %s of another's: %d %s; of nobody's: %d %s", name, call, a.status, a.body, absent[call].status, absent[call].body)
			}
			asked++
		}
		if asked != 11 {
			t.Errorf("%d calls", asked)
		}
		for path, id := range map[string]string{"/v1/policy-stores": mine.PolicyStoreID, "/v1/tenants": `"acme"`} {
			a := s.call(t, credential, http.MethodGet, path, "")
			if a.status != 200 || !strings.Contains(a.body, id) || strings.Contains(a.body, "globex") || strings.Contains(a.body, theirs.PolicyStoreID) {
				t.Errorf("key %s, %s: %d %s", name, path, a.status, a.body)
			}
		}
		for call, want := range map[string]int{"GET /v1/policy-stores/" + mine.PolicyStoreID: 200, "GET /v1/tenants/acme": 200,
			"POST /v1/tenants/acme/suspend": 403, "DELETE /v1/tenants/acme": 403, "DELETE /v1/tenants/globex": 403, "DELETE /v1/tenants/never-was": 403,
			"PATCH /v1/policy-stores/" + mine.PolicyStoreID: 403, "PATCH /v1/policy-stores/" + theirs.PolicyStoreID: 403, "PATCH /v1/policy-stores/never-was": 403,
			"GET /v1/plans": 200, "GET /v1/plans/default": 404, "GET /v1/plans/never-was": 404, "PUT /v1/plans/default": 403, "DELETE /v1/plans/default": 403,
			"GET /v1/issuers": 403, "GET /v1/issuers/x": 403, "GET /v1/keys": 403, "DELETE /v1/keys/x": 403, "POST /v1/backup": 403} {
			method, path, _ := strings.Cut(call, " ")
			if a := s.call(t, credential, method, path, ""); a.status != want {
				t.Errorf("key %s, %s: %d %s", name, call, a.status, a.body)
			}
		}
	}
	// A key that lacks the verb for what it covers is told so; without read it is not there.
	reader := s.key(t, access.Scope{Tenant: "acme"}, access.Read)
	a := s.call(t, reader, http.MethodPut, "/v1/policy-stores/"+mine.PolicyStoreID+"/contents", contents, ifMatchHeader("*"))
	if a.status != http.StatusForbidden && a.status != http.StatusNotFound {
		t.Errorf("write with a reading key: %d %s", a.status, a.body)
	}
	if got := do[Contents](t, s, http.MethodGet, "/v1/policy-stores/"+theirs.PolicyStoreID+"/contents", nil, 200); len(got.Policies) != 1 || got.Schema == nil {
		t.Errorf("something of the other's changed: %+v", got)
	}
}

// Bad input: a clear 4xx that names the place, nothing stored, the server alive.
func TestBadInput(t *testing.T) {
	s := start(t)
	made := newTenant(t, s, "acme")
	ps := "/v1/policy-stores/" + made.PolicyStoreID
	brackets := strings.Repeat("[", 100_000)
	long := strings.Repeat("x", 10_000)
	statement := `permit (principal, action == Action::\"view\", resource);`
	contents := func(policies string) string { return `{"policies":[` + policies + `]}` }
	quotas := func(more string) string {
		return `{"quotas":{"templates":1,"aliases":1,"identitySources":1,"namespaces":1,"policyBytes":1,"schemaBytes":1,"scopeBytes":1` + more + `}}`
	}
	for _, test := range []struct {
		name, call, body string
		status           int
		path, message    string
	}{
		{"no body", "POST /v1/tenants", "", 400, "", "required"},
		{"not JSON", "POST /v1/tenants", "{", 400, "body", "not valid JSON"},
		{"an array", "POST /v1/tenants", "[]", 400, "body", "expected object"},
		{"two objects", "POST /v1/tenants", `{"tenant":"x"}{}`, 400, "body", "not valid JSON"},
		{"no id", "POST /v1/tenants", "{}", 400, "body", "tenant"},
		{"null", "POST /v1/tenants", `{"tenant":null}`, 400, "tenant", "expected string"},
		{"a number", "POST /v1/tenants", `{"tenant":7}`, 400, "tenant", "expected string"},
		{"given twice", "POST /v1/tenants", `{"tenant":"x","tenant":"y"}`, 400, "body", "/tenant is given twice (line 1, column 15)"},
		{"given twice, deeper", "PUT " + ps + "/contents", contents(`{"name":"a","statement":"x",` + "\n" + `"statement":"y"}`), 400, "body", "/policies/0/statement is given twice (line 2"},
		{"other capitals", "POST /v1/tenants", `{"Tenant":"x"}`, 400, "body", "/Tenant is not a member"},
		{"both capitals", "POST /v1/tenants", `{"tenant":"x","Tenant":"y"}`, 400, "body", "/Tenant is not a member"},
		{"unknown member", "POST /v1/tenants", `{"tenant":"x","plan":"gold"}`, 400, "plan", "unexpected"},
		{"unknown member, deeper", "POST /v1/tenants", `{"tenant":"x","policies":[{"name":"a","statement":"b","effect":"permit"}]}`, 400, "policies[0].effect", "unexpected"},
		{"half the settings", "POST /v1/tenants", `{"tenant":"x","settings":{"validation":"STRICT"}}`, 400, "settings", "checkRequests"},
		{"no such mode", "POST /v1/tenants", `{"tenant":"x","settings":{"validation":"strict","checkRequests":true,"forbidErrorsDeny":false}}`, 400, "settings.validation", "STRICT, OFF"},
		{"invalid UTF-8", "POST /v1/tenants", "{\"tenant\":\"\xff\"}", 400, "body", "UTF-8"},
		{"half a surrogate", "POST /v1/tenants", `{"tenant":"\ud800"}`, 400, "body", "not valid JSON"},
		{"nested brackets", "POST /v1/tenants", brackets, 400, "body", "depth"},
		{"nested in a member", "POST /v1/tenants", `{"tenant":` + brackets, 400, "body", "depth"},
		{"a slash in the id", "POST /v1/tenants", `{"tenant":"a/b"}`, 400, "tenant", "pattern"},
		{"a newline in the id", "POST /v1/tenants", `{"tenant":"a\n"}`, 400, "tenant", ""},
		{"NUL in the id", "POST /v1/tenants", `{"tenant":"a\u0000"}`, 400, "tenant", "pattern"},
		{"a long id", "POST /v1/tenants", `{"tenant":"` + long + `"}`, 400, "tenant", "length"},
		{"schema in no syntax", "POST /v1/tenants", `{"tenant":"x","schema":{}}`, 400, "schema", "exactly one"},
		{"schema that does not parse", "POST /v1/tenants", `{"tenant":"x","schema":{"cedar":"entity A;\nentity ?;"}}`, 400, "schema.cedar", ""},
		{"policy that does not parse", "POST /v1/tenants", `{"tenant":"x","policies":[{"name":"p","statement":"permit (principal"}]}`, 400, "policies[0].statement", ""},
		{"a name twice", "POST /v1/tenants", `{"tenant":"x","policies":[{"name":"p","statement":"` + statement + `"},{"name":"p","statement":"` + statement + `"}]}`, 400, "", ""},
		{"a bad name", "PUT " + ps + "/contents", contents(`{"name":"a b","statement":"` + statement + `"}`), 400, "policies[0].name", "pattern"},
		{"no policies member", "PUT " + ps + "/contents", `{}`, 400, "body", "policies"},
		{"null policies", "PUT " + ps + "/contents", `{"policies":null}`, 400, "policies", "array"},
		{"10,001 policies", "PUT " + ps + "/contents", contents(strings.Repeat(`{"name":"a","statement":"b"},`, 10_000) + `{"name":"a","statement":"b"}`), 400, "policies", "10000"},
		{"10,000 bad policies", "PUT " + ps + "/contents", contents(strings.Repeat(`{},`, 9_999) + `{}`), 400, "policies[0]", "required"},
		{"a statement of brackets", "PUT " + ps + "/contents", contents(`{"name":"a","statement":"` + strings.Repeat("(", 9_000) + `"}`), 400, "policies[0].statement", ""},
		{"2 MB", "POST /v1/keys", `{"description":"` + strings.Repeat("x", 2_000_000) + `"}`, 413, "", "larger than 1000000"},
		{"17 MiB of contents", "PUT " + ps + "/contents", `{"policies":[]` + strings.Repeat(" ", 17<<20) + "}", 413, "", "larger than 16777216"},
		{"a body where none is taken", "POST /v1/tenants/acme/suspend", `{"until":"tomorrow"}`, 400, "", "takes no body"},
		{"maxResults 0", "GET /v1/tenants?maxResults=0", "", 400, "query.maxResults", ""},
		{"maxResults is text", "GET /v1/tenants?maxResults=ten", "", 400, "query.maxResults", "integer"},
		{"a parameter twice", "GET /v1/tenants?maxResults=1&maxResults=2", "", 400, "query.maxResults", "more than once"},
		{"an unknown parameter", "GET /v1/tenants?limit=1", "", 400, "query.limit", "unknown"},
		{"a query that is none", "GET /v1/tenants?%zz", "", 400, "", "query"},
		{"a made-up token", "GET /v1/tenants?nextToken=QQ", "", 400, "nextToken", ""},
		{"a tenant of strange characters", "GET /v1/tenants/a%22%0A%00", "", 400, "", "not allowed"},
		{"a tenant with a slash", "GET /v1/tenants/a%2Fb", "", 400, "", "not allowed"},
		{"a long tenant", "GET /v1/tenants/" + long, "", 400, "path.tenant", ""},
		{"a strange policy store", "GET /v1/policy-stores/a%00", "", 400, "", "not allowed"},
		{"an update of nothing", "PATCH " + ps, "{}", 400, "body", "at least 1"},
		{"an update of what can't change", "PATCH " + ps, `{"tenant":"x"}`, 400, "tenant", "unexpected"},
		{"no such mode, later", "PATCH " + ps, `{"validation":"LAX"}`, 400, "validation", "STRICT, OFF"},
		{"no such plan", "PATCH " + ps, `{"plan":"gold"}`, 400, "plan", "there is no plan"},
		{"a long description", "PATCH " + ps, `{"description":"` + long + `"}`, 400, "description", "length"},
		{"a setting of the wrong type", "PATCH " + ps, `{"checkRequests":"yes"}`, 400, "checkRequests", "boolean"},
		{"no quotas", "PUT /v1/plans/gold", `{}`, 400, "body", "quotas"},
		{"half the quotas", "PUT /v1/plans/gold", `{"quotas":{"templates":1}}`, 400, "quotas", "aliases"},
		{"a plan's strange name", "PUT /v1/plans/go%20ld", quotas(""), 400, "name", "letters"},
		{"a negative rate", "PUT /v1/plans/gold", quotas(`,"decisionsPerSecond":-1`), 400, "quotas.decisionsPerSecond", ""},
		{"a rate beyond any", "PUT /v1/plans/gold", quotas(`,"writesPerSecond":5000000000`), 400, "quotas.writesPerSecond", "between"},
		{"a rate of nothing known", "PUT /v1/plans/gold", quotas(`,"operations":{"Fly":1}`), 400, "quotas.operations.Fly", "not an operation"},
		{"nowhere", "GET /v1/nothing", "", 404, "", "nothing at this path"},
		{"another method", "PUT /v1/tenants", "{}", 405, "", "does not take PUT"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := s.audit(t)
			method, path, _ := strings.Cut(test.call, " ")
			a := s.call(t, s.root, method, path, test.body, func(r *http.Request) {
				if strings.HasSuffix(path, "/contents") {
					r.Header.Set("If-Match", "*")
				}
			})
			e := a.error(t)
			if a.status != test.status {
				t.Fatalf("%d %s", a.status, a.body[:min(len(a.body), 600)])
			}
			if err := s.api.Conforms("ErrorBody", []byte(a.body)); err != nil {
				t.Error(err)
			}
			if len(a.body) > 20_000 {
				t.Errorf("the answer has %d bytes", len(a.body))
			}
			found := test.path == "" && strings.Contains(e.Message, test.message)
			for _, f := range e.Fields {
				found = found || (test.path == "" || f.Path == test.path) && strings.Contains(f.Message, test.message)
			}
			if !found {
				t.Errorf("no finding at %q with %q: %s", test.path, test.message, a.body[:min(len(a.body), 600)])
			}
			if after := s.audit(t); after != before {
				t.Errorf("something was stored: %d audit rows, then %d", before, after)
			}
		})
	}
	do[Tenant](t, s, http.MethodGet, "/v1/tenants/acme", nil, 200)
	if s.log.Len() != 0 {
		t.Errorf("bad input is not the operator's trouble, but the log has: %s", s.log)
	}
}

// audit counts commits: every one leaves a row.
func (s *server) audit(t *testing.T) int {
	t.Helper()
	rows, err := s.backend.Audit(t.Context(), 0, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	return len(rows)
}

func TestContentTypes(t *testing.T) {
	s := start(t)
	for given, want := range map[string]int{
		"application/json": 201, "application/json; charset=UTF-8": 201, "": 201,
		"application/json; charset=latin1": 415, "text/plain": 415, "application/x-www-form-urlencoded": 415,
		"application/merge+json": 415, "multipart/form-data; boundary=x": 415, "application/problem+json": 415, ";": 415,
	} {
		a := s.call(t, s.root, http.MethodPost, "/v1/tenants", fmt.Sprintf(`{"tenant":"t%x"}`, given), func(r *http.Request) {
			r.Header.Del("Content-Type")
			if given != "" {
				r.Header.Set("Content-Type", given)
			}
		})
		if a.status != want {
			t.Errorf("%q: %d %s", given, a.status, a.body)
		}
	}
	a := s.call(t, s.root, http.MethodPost, "/v1/tenants", `{"tenant":"z"}`, func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") })
	if a.status != 415 {
		t.Errorf("compressed: %d", a.status)
	}
	a = s.call(t, s.root, http.MethodGet, "/v1/tenants", "", func(r *http.Request) { r.Header.Set("Accept", "application/cbor") })
	if a.status != 200 || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("whatever is asked for, the answer is JSON: %d %v", a.status, a.header)
	}
	a = s.call(t, s.root, http.MethodGet, "/v1/tenants", "", func(r *http.Request) { r.Header.Add("Authorization", "Bearer "+s.root) })
	if a.status != 401 {
		t.Errorf("two credentials: %d", a.status)
	}
}

// The same keys sign requests, body included.
func TestSigV4(t *testing.T) {
	s := start(t)
	sign := func(body, secret string) func(*http.Request) {
		return func(r *http.Request) {
			sum := sha256.Sum256([]byte(body))
			hash := hex.EncodeToString(sum[:])
			r.Header.Set("X-Amz-Content-Sha256", hash)
			err := v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: s.rootID, SecretAccessKey: secret}, r, hash, "verifiedpermissions", "eu-west-1", time.Now())
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	const body = `{"tenant":"acme"}`
	if a := s.call(t, "", http.MethodPost, "/v1/tenants", body, sign(body, s.rootSecret)); a.status != 201 {
		t.Errorf("signed: %d %s", a.status, a.body)
	}
	if a := s.call(t, "", http.MethodGet, "/v1/tenants/acme", "", sign("", s.rootSecret)); a.status != 200 {
		t.Errorf("signed: %d %s", a.status, a.body)
	}
	for name, change := range map[string]func(*http.Request){
		"another secret": sign(`{"tenant":"evil"}`, "x"+s.rootSecret),
		"another body":   sign(`{"tenant":"good"}`, s.rootSecret),
	} {
		if a := s.call(t, "", http.MethodPost, "/v1/tenants", `{"tenant":"evil"}`, change); a.status != 401 || a.error(t).Kind != "Unauthenticated" {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if a := s.call(t, s.root, http.MethodGet, "/v1/tenants/evil", ""); a.status != 404 {
		t.Errorf("a refused request had an effect: %s", a.body)
	}
}

// huma's own routes are off.
func TestNothingElseIsServed(t *testing.T) {
	s := start(t)
	for _, path := range []string{"/docs", "/schemas/Tenant", "/schemas/Tenant.json", "/openapi.yaml", "/openapi-3.0.json", "/openapi-3.0.yaml", "/"} {
		if a := s.call(t, s.root, http.MethodGet, path, ""); a.status != 404 {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	a := s.call(t, "", http.MethodGet, "/openapi.json", "")
	if a.status != 200 || a.body != string(s.api.Document()) || !strings.Contains(a.header.Get("Content-Type"), "json") {
		t.Errorf("/openapi.json: %d %v", a.status, a.header)
	}
}

// What fails inside is in the log, with the request id, and not in the answer.
func TestInternalErrorsStayInside(t *testing.T) {
	s := start(t)
	newTenant(t, s, "acme")
	if err := s.backend.Close(); err != nil {
		t.Fatal(err)
	}
	a := s.call(t, s.root, http.MethodGet, "/v1/tenants/acme", "", func(r *http.Request) {})
	e := a.error(t)
	if a.status < 500 || strings.Contains(a.body, "storage:") || !strings.Contains(s.log.String(), e.RequestID) {
		t.Errorf("%d %s; the log: %s", a.status, a.body, s.log)
	}
	if a.status == 503 && a.header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
}
