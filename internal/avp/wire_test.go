package avp

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
)

// seed makes a policy store through the wire and returns its id.
func seed(t *testing.T, s *server) string {
	t.Helper()
	a := s.call(t, "CreatePolicyStore", `{"validationSettings":{"mode":"OFF"}}`)
	var out policyStoreOut
	if err := json.Unmarshal([]byte(a.body), &out); err != nil || a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	return out.PolicyStoreID
}

type policyStoreOut struct {
	PolicyStoreID   string `json:"policyStoreId"`
	ARN             string `json:"arn"`
	CreatedDate     string `json:"createdDate"`
	LastUpdatedDate string `json:"lastUpdatedDate"`
}

func TestAnswersOnTheWire(t *testing.T) {
	s := start(t)
	ps := seed(t, s)
	a := s.call(t, "GetPolicyStore", `{"policyStoreId":"`+ps+`"}`)
	if a.header.Get("Content-Type") != "application/x-amz-json-1.0" || a.header.Get("X-Amzn-Requestid") == "" {
		t.Errorf("headers: %v", a.header)
	}
	var out policyStoreOut
	if err := json.Unmarshal([]byte(a.body), &out); err != nil {
		t.Fatal(err)
	}
	if _, err := time.Parse("2006-01-02T15:04:05.000000Z", out.CreatedDate); err != nil {
		t.Errorf("createdDate: %v", err)
	}
	for _, absent := range []string{`"tags"`, `"description"`, "null"} {
		if strings.Contains(a.body, absent) {
			t.Errorf("the answer holds %s: %s", absent, a.body)
		}
	}
	for operation, want := range map[string]string{
		"ListPolicies":      `{"policies":[]}`,
		"DeletePolicy":      `{}`,
		"IsAuthorized":      `{"decision":"DENY","determiningPolicies":[],"errors":[]}`,
		"DeletePolicyStore": `{}`,
	} {
		body := `{"policyStoreId":"` + ps + `"}`
		switch operation {
		case "DeletePolicy":
			body = `{"policyStoreId":"` + ps + `","policyId":"x"}`
		case "IsAuthorized":
			body = ask(ps, "")
		case "DeletePolicyStore":
			continue
		}
		if a := s.call(t, operation, body); a.status != http.StatusOK || a.body != want {
			t.Errorf("%s: %d %s, want %s", operation, a.status, a.body, want)
		}
	}
	if a := s.call(t, "DeletePolicyStore", `{"policyStoreId":"`+ps+`"}`); a.status != http.StatusOK || a.body != `{}` {
		t.Errorf("DeletePolicyStore: %d %s", a.status, a.body)
	}
	if got := s.counted(t, "copse_avp_requests_total"); got != 6 {
		t.Errorf("%v requests counted", got)
	}
	if got := s.counted(t, "copse_avp_decisions_total"); got != 1 {
		t.Errorf("%v decisions counted", got)
	}
	if len(s.recorded) != 1 || s.recorded[0].Response.Decision != copse.Deny || string(s.recorded[0].PolicyStoreID) != ps || s.recorded[0].Via != "IsAuthorized" {
		t.Errorf("recorded: %+v", s.recorded)
	}
}

// counted adds up a counter's series.
func (s *server) counted(t *testing.T, name string) (sum float64) {
	t.Helper()
	families, err := s.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			for _, m := range family.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// ask is an IsAuthorized body with more members.
func ask(policyStore, more string) string {
	return `{"policyStoreId":"` + policyStore + `","principal":{"entityType":"User","entityId":"u"},` +
		`"action":{"actionType":"Action","actionId":"view"},"resource":{"entityType":"Invoice","entityId":"i"}` + more + `}`
}

// An erroring policy is in errors, with its id, and an answer is the same for every way to write the
// question.
func TestIsAuthorizedFormats(t *testing.T) {
	s := start(t)
	ps := seed(t, s)
	made := s.call(t, "CreatePolicy", `{"policyStoreId":"`+ps+`","definition":{"static":{"statement":"permit (principal, action, resource) when { context.n == 9007199254740993 && resource.owner == principal };"}}}`)
	var policy struct {
		PolicyID string `json:"policyId"`
	}
	if err := json.Unmarshal([]byte(made.body), &policy); err != nil || policy.PolicyID == "" {
		t.Fatalf("%d %s", made.status, made.body)
	}
	const entities = `[{"uid":{"type":"Invoice","id":"i"},"attrs":{"owner":{"__entity":{"type":"User","id":"u"}}},"parents":[]}]`
	quoted, err := json.Marshal(entities)
	if err != nil {
		t.Fatal(err)
	}
	const list = `[{"identifier":{"entityType":"Invoice","entityId":"i"},"attributes":{"owner":{"entityIdentifier":{"entityType":"User","entityId":"u"}}}}]`
	const n = "9007199254740993" // not a float64
	allow := `{"decision":"ALLOW","determiningPolicies":[{"policyId":"` + policy.PolicyID + `"}],"errors":[]}`
	for name, more := range map[string]string{
		"AVP values":        `,"context":{"contextMap":{"n":{"long":` + n + `}}},"entities":{"entityList":` + list + `}`,
		"Cedar JSON":        `,"context":{"cedarJson":"{\"n\":` + n + `}"},"entities":{"cedarJson":` + string(quoted) + `}`,
		"mixed":             `,"context":{"cedarJson":"{\"\u006e\":` + n + `}"},"entities":{"entityList":` + list + `}`,
		"escaped names":     `,"\u0063ontext":{"contextMap":{"n":{"long":` + n + `}}},"entities":{"\u0065ntityList":` + list + `}`,
		"white space":       " ,\n\t\"context\" : { \"contextMap\" : {\"n\":{\"long\":" + n + "}}},\"entities\":{\"entityList\":" + list + "}\r\n",
		"escaped cedarJson": `,"context":{"cedarJson":"\u007b\u0022n\u0022:` + n + `}"},"entities":{"entityList":` + list + `}`,
	} {
		if a := s.call(t, "IsAuthorized", ask(ps, more)); a.body != allow {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	a := s.call(t, "IsAuthorized", ask(ps, ""))
	if a.status != http.StatusOK || !strings.HasPrefix(a.body, `{"decision":"DENY","determiningPolicies":[],"errors":[{"errorDescription":"policy `+policy.PolicyID) {
		t.Errorf("a policy that errors: %d %s", a.status, a.body)
	}
	// A question that names nobody in particular by strange characters is still a question.
	strange := `"q\"u\\o\nt\u0000e\u2028"`
	body := strings.Replace(ask(ps, ""), `"entityId":"u"`, `"entityId":`+strange, 1)
	if a := s.call(t, "IsAuthorized", body); a.status != http.StatusOK || !strings.Contains(a.body, "DENY") {
		t.Errorf("quotes, newline and NUL in an id: %d %s", a.status, a.body)
	}
}

// Bad input: a clear 4xx that names the place, nothing stored, the server alive.
func TestBadInputOnTheWire(t *testing.T) {
	s := start(t)
	ps := seed(t, s)
	long := strings.Repeat("x", 10_000)
	brackets := strings.Repeat("[", 100_000)
	const invalid = "ValidationException"
	policy := func(members string) string { return `{"policyStoreId":"` + ps + `",` + members + `}` }
	static := `"definition":{"static":{"statement":"permit (principal, action, resource);"}}`
	for _, test := range []struct {
		name, operation, body string
		status                int
		typ, path, message    string
	}{
		{"empty body", "CreatePolicyStore", "", 400, invalid, "", "not valid JSON"},
		{"not JSON", "CreatePolicyStore", "{", 400, invalid, "", "not valid JSON"},
		{"an array", "CreatePolicyStore", "[]", 400, invalid, "", "must not be of JSON type array"},
		{"two objects", "GetPolicyStore", `{"policyStoreId":"x"}{}`, 400, invalid, "", "not valid JSON"},
		{"no settings", "CreatePolicyStore", "{}", 400, invalid, "validationSettings", "must not be null"},
		{"null settings", "CreatePolicyStore", `{"validationSettings":null}`, 400, invalid, "validationSettings", "must not be null"},
		{"no such mode", "CreatePolicyStore", `{"validationSettings":{"mode":"strict"}}`, 400, invalid, "validationSettings.mode", "[OFF, STRICT]"},
		{"wrong type", "CreatePolicyStore", `{"validationSettings":{"mode":7}}`, 400, invalid, "validationSettings.mode", "JSON type number"},
		{"misspelt member", "CreatePolicyStore", `{"validationSettings":{"mode":"OFF"},"deletionprotection":"ENABLED"}`, 400, invalid, "deletionprotection", "not known"},
		{"duplicate member", "CreatePolicyStore", `{"validationSettings":{"mode":"OFF"},"validationSettings":{"mode":"STRICT"}}`, 400, invalid, "validationSettings", "twice"},
		{"long description", "CreatePolicyStore", `{"validationSettings":{"mode":"OFF"},"description":"` + long + `"}`, 400, invalid, "description", "between 0 and 150"},
		{"bad client token", "CreatePolicyStore", `{"validationSettings":{"mode":"OFF"},"clientToken":"a/b"}`, 400, invalid, "clientToken", "pattern"},
		{"both encryptions", "CreatePolicyStore", `{"validationSettings":{"mode":"OFF"},"encryptionSettings":{}}`, 400, invalid, "encryptionSettings", "exactly one"},
		{"no id", "GetPolicyStore", "{}", 400, invalid, "policyStoreId", "must not be null"},
		{"bad id", "GetPolicyStore", `{"policyStoreId":"a b"}`, 400, invalid, "policyStoreId", "pattern"},
		{"NUL in an id", "GetPolicyStore", `{"policyStoreId":"a\u0000"}`, 400, invalid, "policyStoreId", "pattern"},
		{"long id", "GetPolicyStore", `{"policyStoreId":"` + long + `"}`, 400, invalid, "policyStoreId", "between 1 and 200"},
		{"invalid UTF-8", "GetPolicyStore", "{\"policyStoreId\":\"\xff\"}", 400, invalid, "policyStoreId", "UTF-8"},
		{"half a surrogate", "GetPolicyStore", `{"policyStoreId":"\ud800"}`, 400, invalid, "policyStoreId", "not valid JSON"},
		{"nested brackets", "GetPolicyStore", brackets, 400, invalid, "", "must not be of JSON type array"},
		{"nested in a member", "PutSchema", policy(`"definition":` + brackets), 400, invalid, "definition", ""},
		{"nested objects", "PutSchema", strings.Repeat(`{"a":`, 100_000), 400, invalid, "a", "not known"},
		{"no definition", "PutSchema", policy(`"definition":{}`), 400, invalid, "definition.cedarJson", "must not be null"},
		{"a schema of brackets", "PutSchema", policy(`"definition":{"cedarJson":"` + brackets + `"}`), 400, invalid, "definition.cedarJson", ""},
		{"a schema that is text", "PutSchema", policy(`"definition":{"cedarJson":"entity User;"}`), 400, invalid, "definition.cedarJson", ""},
		{"no policy definition", "CreatePolicy", policy(`"name":"name/x"`), 400, invalid, "definition", "must not be null"},
		{"an empty statement", "CreatePolicy", policy(`"definition":{"static":{"statement":""}}`), 400, invalid, "definition.static.statement", "must not be null"},
		{"two policies", "CreatePolicy", policy(`"definition":{"static":{"statement":"permit(principal,action,resource); permit(principal,action,resource);"}}`), 400, invalid, "definition.static.statement", ""},
		{"a statement of brackets", "CreatePolicy", policy(`"definition":{"static":{"statement":"` + strings.Repeat("(", 9_000) + `"}}`), 400, invalid, "definition.static.statement", ""},
		{"a long statement", "CreatePolicy", policy(`"definition":{"static":{"statement":"permit (principal,action,resource); //` + long + `"}}`), 400, "", "", ""},
		{"a name without prefix", "CreatePolicy", policy(`"name":"x",` + static), 400, invalid, "name", "pattern"},
		{"a long name", "CreatePolicy", policy(`"name":"name/` + long + `",` + static), 400, invalid, "name", "between 0 and 150"},
		{"nothing to update", "UpdatePolicy", policy(`"policyId":"x"`), 400, invalid, "definition", "nothing to change"},
		{"maxResults 0", "ListPolicies", policy(`"maxResults":0`), 400, invalid, "maxResults", "greater than or equal to 1"},
		{"maxResults as text", "ListPolicies", policy(`"maxResults":"5"`), 400, invalid, "maxResults", "JSON type string"},
		{"maxResults 1.5", "ListPolicies", policy(`"maxResults":1.5`), 400, invalid, "maxResults", ""},
		{"an empty token", "ListPolicies", policy(`"nextToken":""`), 400, invalid, "nextToken", "between 1 and 8000"},
		{"no such type", "ListPolicies", policy(`"filter":{"policyType":"DYNAMIC"}`), 400, invalid, "filter.policyType", "enum"},
		{"an empty reference", "ListPolicies", policy(`"filter":{"principal":{}}`), 400, invalid, "filter.principal", "exactly one"},

		{"asked nothing", "IsAuthorized", "{}", 400, invalid, "policyStoreId", "must not be null"},
		{"asked by nobody", "IsAuthorized", policy(`"action":{"actionType":"Action","actionId":"a"},"resource":{"entityType":"T","entityId":"i"}`), 400, invalid, "principal", "must not be null"},
		{"asked nothing of it", "IsAuthorized", policy(`"principal":{"entityType":"T","entityId":"i"},"resource":{"entityType":"T","entityId":"i"}`), 400, invalid, "action", "must not be null"},
		{"asked about nothing", "IsAuthorized", policy(`"principal":{"entityType":"T","entityId":"i"},"action":{"actionType":"Action","actionId":"a"}`), 400, invalid, "resource", "must not be null"},
		{"an id left out", "IsAuthorized", strings.Replace(ask(ps, ""), `,"entityId":"i"`, "", 1), 400, invalid, "resource.entityId", "must not be null or empty"},
		{"an id of 10,000 characters", "IsAuthorized", strings.Replace(ask(ps, ""), `"entityId":"i"`, `"entityId":"`+long+`"`, 1), 400, invalid, "resource.entityId", "between 1 and 612"},
		{"an action of 10,000 characters", "IsAuthorized", strings.Replace(ask(ps, ""), `"actionId":"view"`, `"actionId":"`+long+`"`, 1), 400, invalid, "action.actionId", "between 1 and 512"},
		{"an action of another type", "IsAuthorized", strings.Replace(ask(ps, ""), `"actionType":"Action"`, `"actionType":"User"`, 1), 400, invalid, "action.actionType", "pattern"},
		{"a number as id", "IsAuthorized", strings.Replace(ask(ps, ""), `"entityId":"i"`, `"entityId":7`, 1), 400, invalid, "resource.entityId", "string, not number"},
		{"a principal as text", "IsAuthorized", policy(`"principal":"u"`), 400, invalid, "principal", "object, not string"},
		{"principal given twice", "IsAuthorized", ask(ps, `,"principal":{"entityType":"User","entityId":"root"}`), 400, invalid, "principal", "twice"},
		{"id given twice", "IsAuthorized", strings.Replace(ask(ps, ""), `"entityId":"i"`, `"entityId":"i","entityId":"j"`, 1), 400, invalid, "resource.entityId", "twice"},
		{"given twice, once escaped", "IsAuthorized", ask(ps, `,"princip\u0061l":{"entityType":"User","entityId":"root"}`), 400, invalid, "principal", "twice"},
		{"other capitals", "IsAuthorized", ask(ps, `,"Context":{}`), 400, invalid, "Context", "not known"},
		{"an unknown member inside", "IsAuthorized", ask(ps, `,"context":{"map":{}}`), 400, invalid, "context.map", "not known"},
		{"an empty context", "IsAuthorized", ask(ps, `,"context":{}`), 400, invalid, "context", "exactly one"},
		{"two contexts", "IsAuthorized", ask(ps, `,"context":{"contextMap":{},"cedarJson":"{}"}`), 400, invalid, "context", "exactly one"},
		{"a context as list", "IsAuthorized", ask(ps, `,"context":{"contextMap":[]}`), 400, invalid, "context.contextMap", "object, not array"},
		{"Cedar JSON not in a string", "IsAuthorized", ask(ps, `,"context":{"cedarJson":{}}`), 400, invalid, "context.cedarJson", "string, not object"},
		{"Cedar JSON that is none", "IsAuthorized", ask(ps, `,"context":{"cedarJson":"{"}`), 400, invalid, "", ""},
		{"a context value of no type", "IsAuthorized", ask(ps, `,"context":{"contextMap":{"a":{"lng":1}}}`), 400, invalid, "", ""},
		{"an attribute twice", "IsAuthorized", ask(ps, `,"context":{"contextMap":{"a":{"long":1},"a":{"long":2}}}`), 400, invalid, "context.contextMap.a", "twice"},
		{"entities as map", "IsAuthorized", ask(ps, `,"entities":{"entityList":{}}`), 400, invalid, "entities.entityList", "array, not object"},
		{"an entity cycle", "IsAuthorized", ask(ps, `,"entities":{"entityList":[{"identifier":{"entityType":"A","entityId":"1"},"parents":[{"entityType":"A","entityId":"2"}]},{"identifier":{"entityType":"A","entityId":"2"},"parents":[{"entityType":"A","entityId":"1"}]}]}`), 400, invalid, "", "cycle"},
		{"brackets in a context", "IsAuthorized", ask(ps, `,"context":{"contextMap":{"a":{"set":`+brackets), 400, invalid, "", ""},
		{"brackets in Cedar JSON", "IsAuthorized", ask(ps, `,"context":{"cedarJson":"{\"a\":`+brackets+strings.Repeat("]", 100_000)+`}"}`), 400, invalid, "", ""},
		{"invalid UTF-8 in a context", "IsAuthorized", ask(ps, ",\"context\":{\"contextMap\":{\"a\":{\"string\":\"\xc3\x28\"}}}"), 400, invalid, "", "UTF-8"},
		{"more after the end", "IsAuthorized", ask(ps, "") + `x`, 400, invalid, "", ""},
		{"another object after the end", "IsAuthorized", ask(ps, "") + `{}`, 400, invalid, "", "more text"},
		{"cut short", "IsAuthorized", ask(ps, "")[:100], 400, invalid, "", "not valid JSON"},
		{"2 MB", "IsAuthorized", strings.Repeat(" ", 2_000_000), 413, invalid, "", "larger than 1000000"},
		{"2 MB to another", "CreatePolicyStore", `{"description":"` + strings.Repeat("x", 2_000_000) + `"}`, 413, invalid, "", "larger than 1000000"},

		{"no such operation", "Nothing", "{}", 400, "UnknownOperationException", "", "names no operation"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := s.audit(t)
			a := s.call(t, test.operation, test.body)
			e := a.error(t)
			if a.status != test.status || test.typ != "" && (e.Type != test.typ || a.header.Get("X-Amzn-Errortype") != e.Type) {
				t.Fatalf("%d %s %s", a.status, a.header.Get("X-Amzn-Errortype"), clip(a.body))
			}
			if len(a.body) > 5_000 {
				t.Errorf("the answer has %d bytes", len(a.body))
			}
			found := strings.Contains(e.Message, test.message) && test.path == ""
			for _, f := range e.FieldList {
				if (test.path == "" || f.Path == test.path) && strings.Contains(f.Message, test.message) {
					found = true
				}
			}
			if !found {
				t.Errorf("no finding at %q with %q: %s", test.path, test.message, clip(a.body))
			}
			if after := s.audit(t); after != before {
				t.Errorf("something was stored: %d audit rows, then %d", before, after)
			}
		})
	}
	if a := s.call(t, "IsAuthorized", ask(ps, "")); a.status != http.StatusOK {
		t.Errorf("afterwards: %d %s", a.status, a.body)
	}
}

func clip(s string) string { return s[:min(len(s), 600)] }

// audit counts commits: every one leaves a row.
func (s *server) audit(t *testing.T) int {
	t.Helper()
	rows, err := s.backend.Audit(t.Context(), 0, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	return len(rows)
}

func TestProtocolOnTheWire(t *testing.T) {
	s := start(t)
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for _, test := range []struct {
		name   string
		change func(*http.Request)
		status int
		typ    string
	}{
		{"as it should be", func(*http.Request) {}, 200, ""},
		{"with a charset", set("Content-Type", "application/x-amz-json-1.0; charset=UTF-8"), 200, ""},
		{"no credential", func(r *http.Request) { r.Header.Del("Authorization") }, 403, "MissingAuthenticationTokenException"},
		{"a bearer that is none", set("Authorization", "Bearer x"), 403, "UnrecognizedClientException"},
		{"a signature that can't be read", set("Authorization", "AWS4-HMAC-SHA256 x"), 400, "IncompleteSignatureException"},
		{"another scheme", set("Authorization", "Basic eDp5"), 0, ""},
		{"two credentials", func(r *http.Request) { r.Header.Add("Authorization", "Bearer x") }, 400, "IncompleteSignatureException"},
		{"another content type", set("Content-Type", "application/json"), 415, "UnsupportedMediaTypeException"},
		{"another charset", set("Content-Type", "application/x-amz-json-1.0; charset=latin1"), 415, "UnsupportedMediaTypeException"},
		{"compressed", set("Content-Encoding", "gzip"), 415, "UnsupportedMediaTypeException"},
		{"no target", func(r *http.Request) { r.Header.Del("X-Amz-Target") }, 400, "UnknownOperationException"},
		{"another service's target", set("X-Amz-Target", "DynamoDB_20120810.ListTables"), 400, "UnknownOperationException"},
		{"another method", func(r *http.Request) { r.Method = http.MethodPut }, 400, "UnknownOperationException"},
		{"another path", func(r *http.Request) { r.URL.Path = "/x" }, 400, "UnknownOperationException"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := s.call(t, "ListPolicyStores", "{}", test.change)
			if test.status == 0 {
				if a.status < 400 || a.status >= 500 {
					t.Errorf("%d %s", a.status, a.body)
				}
				return
			}
			if a.status != test.status || a.header.Get("X-Amzn-Errortype") != test.typ {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
}

// Strangers are refused before a byte of their body is read.
func TestStrangersBodiesAreNotRead(t *testing.T) {
	s := start(t)
	for name, authorization := range map[string]string{
		"nothing": "", "bearer": "Bearer copse_CPKAAAAAAAAAAAAAAAAA_secret",
		"signature": fmt.Sprintf("AWS4-HMAC-SHA256 Credential=CPKAAAAAAAAAAAAAAAAA/%s/eu-west-1/verifiedpermissions/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature=%064d",
			time.Now().UTC().Format("20060102"), 0),
	} {
		body := &unread{Reader: bytes.NewReader([]byte(`{"secret":1}`))}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "localhost"
		r.Header.Set("Content-Type", contentType)
		r.Header.Set("X-Amz-Target", "VerifiedPermissions.ListPolicyStores")
		r.Header.Set("X-Amz-Date", time.Now().UTC().Format("20060102T150405Z"))
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		h, err := New(Config{PolicyStores: s.policyStores, Access: s.access, VerifyBy: s.verifier.VerifyBy})
		if err != nil {
			t.Fatal(err)
		}
		w := recorder{header: http.Header{}}
		h.ServeHTTP(&w, r)
		if w.status != http.StatusForbidden || body.reads != 0 {
			t.Errorf("%s: status %d after %d reads of the body: %s", name, w.status, body.reads, w.body.String())
		}
	}
}

type unread struct {
	*bytes.Reader
	reads int
}

func (u *unread) Read(p []byte) (int, error) { u.reads++; return u.Reader.Read(p) }

type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

func TestRequestIDOfTheServerIsKept(t *testing.T) {
	s := start(t)
	h, err := New(Config{PolicyStores: s.policyStores, Access: s.access, VerifyBy: s.verifier.VerifyBy})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	w := recorder{header: http.Header{"X-Request-Id": {"given-by-the-server"}}}
	h.ServeHTTP(&w, r)
	if got := w.header.Get("X-Amzn-Requestid"); got != "given-by-the-server" {
		t.Errorf("x-amzn-requestid: %q", got)
	}
}
