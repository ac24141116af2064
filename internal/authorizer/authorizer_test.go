package authorizer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/decisionlog"
	"github.com/copse-authz/copse/internal/token"
)

// The handler between services that answer what a test says; internal/server has the tests of the
// whole, with real ones.

type fixture struct {
	verify error
	lookup error
	state  copse.TenantState
	made   time.Time
	issued time.Time
	key    access.Caller
	keyErr error
	decide error
	answer copse.Response

	source    *copse.IdentitySource
	sourceErr error
	verifyBy  error
	presented []token.Presented

	reasons   []copse.ExplainedPolicy
	explained int

	asked []copse.Request
	log   bytes.Buffer

	recorded  []decisionlog.Entry
	recordErr error

	reg *prometheus.Registry
	cfg Config
	http.Handler
}

func (f *fixture) Lookup(context.Context, copse.TenantID) (copse.DirectoryEntry, error) {
	if f.lookup != nil {
		return copse.DirectoryEntry{}, f.lookup
	}
	return copse.DirectoryEntry{Tenant: "acme", State: f.state, PolicyStoreID: "PS1", Incarnation: copse.Incarnation{7}, CreatedAt: f.made}, nil
}

func (f *fixture) Decide(_ context.Context, req *copse.Request) (copse.Response, error) {
	kept := *req
	// The handler's buffers are its own again after the answer.
	kept.Context.Bytes, kept.Entities.Bytes = bytes.Clone(req.Context.Bytes), bytes.Clone(req.Entities.Bytes)
	f.asked = append(f.asked, kept)
	if f.decide != nil {
		return copse.Response{}, f.decide
	}
	return f.answer, nil
}

func (f *fixture) explain(ctx context.Context, req *copse.Request) (copse.Explanation, error) {
	resp, err := f.Decide(ctx, req)
	f.explained++
	return copse.Explanation{Response: resp, Policies: f.reasons, LeftOut: 3}, err
}

var verified = token.Verified{
	Issuer: "https://idp.example", Tenant: "acme", Principal: types.NewEntityUID("User", "alice"),
	Entities:      copse.Data{Format: copse.FormatCedarJSON, Bytes: []byte(`[{"uid":{"type":"User","id":"alice"}}]`)},
	Context:       copse.Data{Format: copse.FormatCedarJSON, Bytes: []byte(`{"token":{}}`)},
	ReservedTypes: []types.EntityType{"User", "Role"},
}

func newFixture() *fixture {
	f := &fixture{state: copse.TenantActive, reg: prometheus.NewRegistry(),
		key:    access.Caller{KeyID: "KEY", Scope: access.Scope{Tenant: "acme"}, Verbs: access.Decide},
		answer: copse.Response{Decision: copse.Allow, Revision: 3, Determining: []copse.PolicyRef{{ID: "p1", Name: "all"}}, Considered: 4}}
	log := slog.New(slog.NewTextHandler(&f.log, nil))
	f.cfg = Config{
		Verify: func(context.Context, string) (*token.Verified, error) {
			if f.verify != nil {
				return nil, f.verify
			}
			v := verified
			v.IssuedAt = f.issued
			return &v, nil
		},
		VerifyBy: func(_ context.Context, p token.Presented) (*token.Verified, error) {
			f.presented = append(f.presented, p)
			v := verified
			v.Principal = types.NewEntityUID("Person", "pool|alice")
			return &v, f.verifyBy
		},
		IdentitySource: func(context.Context, copse.PolicyStoreID, copse.Incarnation) (*copse.IdentitySource, error) {
			return f.source, f.sourceErr
		},
		Directory: f, Decider: f, Explain: f.explain,
		Key: func(context.Context, string) (access.Caller, error) { return f.key, f.keyErr },
		Record: func(_ context.Context, decided []decisionlog.Entry) error {
			f.recorded = append(f.recorded, decided...)
			return f.recordErr
		},
		Log: log, Metrics: f.reg,
	}
	f.Handler = New(f.cfg)
	return f
}

// post sends a body; headers are pairs of name and value.
func (f *fixture) post(body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/v1/authorize", strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer a.b.c")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return f.serve(r)
}

func (f *fixture) serve(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	w.Header().Set("X-Request-Id", "request-0001")
	f.ServeHTTP(w, r)
	return w
}

func TestAnswerAndRequest(t *testing.T) {
	f := newFixture()
	w := f.post(`{"action":{"id":"view"},"resource":{"type":"Doc","id":"1"},"context":{"contextMap":{"a":{"long":1}}},"entities":{"cedarJson":"[]"}}`)
	const want = `{"decision":"ALLOW","tenant":"acme","policyStoreId":"PS1","revision":3,"reason":"permitted by policy"}` + "\n"
	if w.Code != 200 || w.Body.String() != want || w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Content-Length") != strconv.Itoa(len(want)) {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	asked := copse.Request{
		PolicyStoreID: "PS1", Incarnation: copse.Incarnation{7}, Principal: verified.Principal,
		Action: types.NewEntityUID("Action", "view"), Resource: types.NewEntityUID("Doc", "1"),
		Context:       copse.Data{Format: copse.FormatAVPMap, Bytes: []byte(`{"a":{"long":1}}`)},
		Entities:      copse.Data{Format: copse.FormatCedarJSON, Bytes: []byte(`[]`)},
		ServerContext: verified.Context, ServerEntities: verified.Entities, ReservedTypes: verified.ReservedTypes,
	}
	if diff := cmp.Diff([]copse.Request{asked}, f.asked); diff != "" {
		t.Error(diff)
	}
}

func TestDetailIsForKeysThatMayDecide(t *testing.T) {
	f := newFixture()
	f.answer = copse.Response{Decision: copse.Deny, Revision: 9, Considered: 12,
		Determining: []copse.PolicyRef{{ID: "p1"}, {ID: "p2", Name: "no-way"}},
		Errors:      []copse.EvaluationError{{Policy: copse.PolicyRef{ID: "p3", Name: "broken"}, Message: "`Doc::\"1\"`\nhas no x"}}}
	with := f.post(plainBody, HeaderKey, "copse_KEY_secret")
	want := `{"decision":"DENY","tenant":"acme","policyStoreId":"PS1","revision":9,"reason":"denied by policy",` +
		`"determiningPolicies":[{"policyId":"p1"},{"policyId":"p2","policyName":"no-way"}],` +
		`"errors":[{"policyId":"p3","policyName":"broken","errorDescription":"` + "`" + `Doc::\"1\"` + "`" + `\nhas no x"}],"considered":12}` + "\n"
	if with.Code != 200 || with.Body.String() != want {
		t.Errorf("with a key: %d %s\nwant %s", with.Code, with.Body, want)
	}
	without := f.post(plainBody)
	for _, secret := range []string{"p1", "p2", "no-way", "p3", "broken", "has no x", "12"} {
		if strings.Contains(without.Body.String(), secret) {
			t.Errorf("without a key the answer has %q: %s", secret, without.Body)
		}
	}
	f.answer = copse.Response{Decision: copse.Deny}
	if w := f.post(plainBody, HeaderKey, "copse_KEY_secret"); !strings.HasSuffix(w.Body.String(), `"reason":"no policy applied","determiningPolicies":[],"errors":[],"considered":0}`+"\n") {
		t.Errorf("default deny: %s", w.Body)
	}
	f.answer = copse.Response{Decision: copse.Deny, ForbidFailed: true}
	if w := f.post(plainBody); !strings.Contains(w.Body.String(), `"reason":"a forbid failed"`) {
		t.Errorf("a failed forbid: %s", w.Body)
	}
	f.answer = copse.Response{Decision: copse.Deny, OverBudget: true}
	if w := f.post(plainBody); !strings.Contains(w.Body.String(), `"reason":"budget exceeded"`) {
		t.Errorf("over budget: %s", w.Body)
	}
}

var explained = []copse.ExplainedPolicy{{
	Policy: copse.PolicyRef{ID: "p1", Name: "no-way"}, Forbids: true, Linked: true, Cut: true, Outcome: copse.Failed,
	Scope: []copse.ExplainedPart{{Text: "principal", Line: 1, Column: 8, Outcome: copse.True}},
	Conditions: []copse.ExplainedPart{{Text: "when { !context.\"x\" }", Line: 2, Column: 1, Operator: "when", Outcome: copse.Failed, Parts: []copse.ExplainedPart{
		{Text: "context.amount <= 5", Line: 2, Column: 8, Outcome: copse.Failed, Error: "it \"broke\"", Values: []copse.ExplainedValue{{Text: "context.amount", Value: `"hush\u{2028}"`}, {Text: "a", Value: "1"}}},
		{Text: "false", Line: 3, Column: 9}}}},
}, {Policy: copse.PolicyRef{ID: "p2"}, Outcome: copse.False}}

const askWhy = `{"action":{"id":"view"},"resource":{"type":"Doc","id":"1"},"explain":true}`

func TestExplanation(t *testing.T) {
	f := newFixture()
	f.reasons = explained
	w := f.post(askWhy, HeaderKey, "copse_KEY_secret")
	want := `,"considered":4,"explanation":{"policies":[` +
		`{"policyId":"p1","policyName":"no-way","effect":"forbid","outcome":"error",` +
		`"scope":[{"text":"principal","line":1,"column":8,"outcome":"true"}],` +
		`"conditions":[{"text":"when { !context.\"x\" }","line":2,"column":1,"outcome":"error","operator":"when","parts":[` +
		`{"text":"context.amount <= 5","line":2,"column":8,"outcome":"error","error":"it \"broke\"","values":[{"text":"context.amount","value":"\"hush\\u{2028}\""},{"text":"a","value":"1"}]},` +
		`{"text":"false","line":3,"column":9,"outcome":"not evaluated"}]}],"templateLinked":true,"cut":true},` +
		`{"policyId":"p2","effect":"permit","outcome":"false","scope":[],"conditions":[]}],"leftOut":3}}` + "\n"
	if w.Code != 200 || !strings.HasSuffix(w.Body.String(), want) || !strings.HasPrefix(w.Body.String(), `{"decision":"ALLOW"`) {
		t.Errorf("%d %s\nwant %s", w.Code, w.Body, want)
	}
	if log := f.log.String(); strings.Contains(log, "hush") || strings.Contains(log, "amount") || len(f.recorded) != 1 {
		t.Errorf("the log has what only the caller may see: %s", log)
	}
	// Who does not ask is not told, and the next one isn't told for the one before.
	if w := f.post(plainBody, HeaderKey, "copse_KEY_secret"); strings.Contains(w.Body.String(), "explanation") || f.explained != 1 {
		t.Errorf("unasked: %s", w.Body)
	}
}

// An explanation shows policies and values. Nobody gets a smaller one, and nothing is evaluated for those
// who may not have it.
func TestExplanationIsForKeysThatMayDecide(t *testing.T) {
	for _, c := range []struct {
		name   string
		set    func(*fixture)
		key    []string
		status int
	}{
		{"no key", func(*fixture) {}, nil, 400},
		{"a key that is unknown", func(f *fixture) { f.keyErr = copse.Errorf(copse.Unauthenticated, "no such key") }, []string{HeaderKey, "k"}, 401},
		{"a key of another tenant", func(f *fixture) { f.key.Scope.Tenant = "globex" }, []string{HeaderKey, "k"}, 403},
		{"a key of another policy store", func(f *fixture) { f.key.Scope = access.Scope{PolicyStore: "PS2"} }, []string{HeaderKey, "k"}, 403},
		{"a key that may read only", func(f *fixture) { f.key.Verbs = access.Read | access.Write }, []string{HeaderKey, "k"}, 403},
	} {
		f := newFixture()
		f.reasons = explained
		c.set(f)
		w := f.post(askWhy, c.key...)
		if w.Code != c.status || f.explained != 0 || len(f.asked) != 0 {
			t.Errorf("%s: %d %s, asked %d times", c.name, w.Code, w.Body, len(f.asked))
		}
		for _, secret := range []string{"p1", "no-way", "amount", "hush", "decision"} {
			if strings.Contains(w.Body.String(), secret) {
				t.Errorf("%s: the answer has %q: %s", c.name, secret, w.Body)
			}
		}
		if c.status == 403 && w.Body.String() != string(refused) {
			t.Errorf("%s: another answer than a wrong tenant's: %s", c.name, w.Body)
		}
	}
	f := newFixture()
	f.decide = copse.Errorf(copse.Unavailable, "later")
	if w := f.post(askWhy, HeaderKey, "k"); w.Code != 503 || strings.Contains(w.Body.String(), "explanation") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// A key that is presented has to be good, for this: being ignored would hide that it is not.
func TestKeyMustCover(t *testing.T) {
	for _, c := range []struct {
		name   string
		scope  access.Scope
		verbs  access.Verb
		err    error
		status int
	}{
		{"everything", access.Scope{All: true}, access.Decide, nil, 200},
		{"its tenant", access.Scope{Tenant: "acme"}, access.Decide, nil, 200},
		{"its policy store", access.Scope{PolicyStore: "PS1"}, access.Decide, nil, 200},
		{"another tenant", access.Scope{Tenant: "globex"}, access.Decide, nil, 403},
		{"another policy store", access.Scope{PolicyStore: "PS2"}, access.Decide, nil, 403},
		{"not decide", access.Scope{All: true}, access.Read | access.Write | access.Admin, nil, 403},
		{"does not verify", access.Scope{}, 0, copse.Errorf(copse.Unauthenticated, "no such key"), 401},
		{"can't be known", access.Scope{}, 0, copse.Errorf(copse.Unavailable, "no storage"), 503},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture()
			f.key, f.keyErr = access.Caller{KeyID: "KEY", Scope: c.scope, Verbs: c.verbs}, c.err
			w := f.post(plainBody, HeaderKey, "copse_KEY_secret")
			if w.Code != c.status || (len(f.asked) > 0) != (c.status == 200) {
				t.Errorf("got %d %s, %d decisions asked", w.Code, w.Body, len(f.asked))
			}
		})
	}
}

func TestTokenIsNotOlderThanItsTenant(t *testing.T) {
	made := time.Now()
	for name, c := range map[string]struct {
		issued time.Time
		status int
	}{
		"after":                      {made.Add(time.Second), 200},
		"a clock behind":             {made.Add(-30 * time.Second), 200},
		"before":                     {made.Add(-30*time.Second - time.Second), 403},
		"long before":                {time.Unix(0, 0), 403},
		"before the years of clocks": {time.Time{}.Add(1), 403},
		"not said":                   {time.Time{}, 200},
	} {
		f := newFixture()
		f.made, f.issued = made, c.issued
		if w := f.post(plainBody); w.Code != c.status || (len(f.asked) > 0) != (c.status == 200) {
			t.Errorf("%s: got %d %s, want %d", name, w.Code, w.Body, c.status)
		}
	}
}

// Law 4: whatever is wrong with the tenant has one answer, byte for byte.
func TestLaw4RefusalsAreOneAnswer(t *testing.T) {
	var first *httptest.ResponseRecorder
	cases := []struct {
		name    string
		change  func(*fixture)
		headers []string
	}{
		{"the token names no tenant", func(f *fixture) { f.verify = copse.Errorf(copse.Denied, "no claim tenant_id") }, nil},
		{"not the issuer's tenant", func(f *fixture) { f.verify = copse.Errorf(copse.Denied, "https://idp may not speak for acme") }, nil},
		{"unknown", func(f *fixture) { f.lookup = copse.NotFoundError(copse.ResourceTenant, "acme") }, nil},
		{"suspended", func(f *fixture) { f.state = copse.TenantSuspended }, nil},
		{"in a state from the future", func(f *fixture) { f.state = "OFFBOARDING" }, nil},
		{"issued to a former tenant", func(f *fixture) { f.made, f.issued = time.Unix(1000, 0), time.Unix(900, 0) }, nil},
		{"gone meanwhile", func(f *fixture) { f.decide = copse.NotFoundError(copse.ResourcePolicyStore, "PS1") }, nil},
		{"the header disagrees", func(*fixture) {}, []string{HeaderTenant, "globex"}},
		{"the key is another's", func(f *fixture) { f.key.Scope.Tenant = "globex" }, []string{HeaderKey, "copse_KEY_secret"}},
	}
	for _, c := range cases {
		f := newFixture()
		c.change(f)
		w := f.post(plainBody, c.headers...)
		if first == nil {
			first = w
		}
		if w.Code != 403 {
			t.Errorf("%s: %d %s", c.name, w.Code, w.Body)
		}
		if diff := cmp.Diff(first.Body.String(), w.Body.String()); diff != "" {
			t.Errorf("%s: the body differs:\n%s", c.name, diff)
		}
		if diff := cmp.Diff(first.Header(), w.Header()); diff != "" {
			t.Errorf("%s: the headers differ:\n%s", c.name, diff)
		}
		if got := f.counted(t); !cmp.Equal(got, map[string]float64{"refused": 1}) {
			t.Errorf("%s: counted %v", c.name, got)
		}
		if !strings.Contains(f.log.String(), "authorize refused") || !strings.Contains(f.log.String(), "request-0001") {
			t.Errorf("%s: the log does not tell: %s", c.name, f.log.String())
		}
	}
	if body := first.Body.String(); strings.Contains(body, "acme") || strings.Contains(body, "request-0001") {
		t.Errorf("the answer has something of the request: %s", body)
	}
	if w := newFixture().post(plainBody, HeaderTenant, "acme"); w.Code != 200 {
		t.Errorf("a header that agrees: %d", w.Code)
	}
}

// Every Kind has a row, wherever the error comes from; none of them answers with a decision, and
// nothing internal gets out.
func TestEveryKindHasAnAnswer(t *testing.T) {
	if len(outcomes) != len(copse.Kinds()) {
		t.Fatalf("%d rows for %d kinds", len(outcomes), len(copse.Kinds()))
	}
	want := map[copse.Kind]int{
		copse.Internal: 500, copse.Invalid: 400, copse.Unauthenticated: 401, copse.Denied: 403, copse.NotFound: 403, copse.Conflict: 409,
		copse.QuotaExceeded: 422, copse.TooManyTags: 422, copse.Throttled: 429, copse.InvalidState: 409, copse.Unavailable: 503,
	}
	for _, kind := range copse.Kinds() {
		for place, set := range map[string]func(*fixture, error){
			"token":     func(f *fixture, err error) { f.verify = err },
			"directory": func(f *fixture, err error) { f.lookup = err },
			"decider":   func(f *fixture, err error) { f.decide = err },
		} {
			f := newFixture()
			set(f, &copse.Error{Kind: kind, Detail: "the detail", Err: errors.New("the cause")})
			w := f.post(plainBody)
			body := w.Body.String()
			if w.Code != want[kind] {
				t.Errorf("%v from the %s: %d", kind, place, w.Code)
			}
			if strings.Contains(body, "decision") || strings.Contains(body, "the cause") {
				t.Errorf("%v from the %s: %s", kind, place, body)
			}
			if shown := strings.Contains(body, "the detail"); shown != (kind != copse.Internal && w.Code != 403) {
				t.Errorf("%v from the %s: detail shown: %v", kind, place, shown)
			}
			if retry := w.Header().Get("Retry-After") != ""; retry != (w.Code == 503 || w.Code == 429) {
				t.Errorf("%v: Retry-After: %v", kind, retry)
			}
			if ask := w.Header().Get("WWW-Authenticate") != ""; ask != (w.Code == 401) {
				t.Errorf("%v: WWW-Authenticate: %v", kind, ask)
			}
			if log := f.log.String(); !strings.Contains(log, "the detail") || !strings.Contains(log, "the cause") {
				t.Errorf("%v from the %s: the log does not tell: %s", kind, place, log)
			}
			var e struct {
				Error struct {
					Kind    string `json:"kind"`
					Message string `json:"message"`
				} `json:"error"`
			}
			if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Error.Kind == "" || e.Error.Message == "" {
				t.Errorf("%v: %s: %v", kind, body, err)
			}
		}
	}
	// A caller that gave up, and an error nobody classified.
	for err, status := range map[error]int{context.Canceled: 503, context.DeadlineExceeded: 503, io.ErrUnexpectedEOF: 500} {
		f := newFixture()
		f.decide = err
		if w := f.post(plainBody); w.Code != status || strings.Contains(w.Body.String(), "EOF") {
			t.Errorf("%v: %d %s", err, w.Code, w.Body)
		}
	}
}

func TestAuthorizationHeader(t *testing.T) {
	for _, c := range []struct {
		name   string
		values []string
		status int
	}{
		{"none", nil, 401}, {"empty", []string{""}, 401}, {"Basic", []string{"Basic YTpi"}, 401}, {"no token", []string{"Bearer "}, 401},
		{"one word", []string{"Bearer"}, 401}, {"three words", []string{"Bearer a b"}, 401}, {"a list", []string{"Bearer a,Bearer b"}, 401},
		{"two headers", []string{"Bearer a.b.c", "Bearer a.b.c"}, 400}, {"lower case", []string{"bearer a.b.c"}, 200}, {"good", []string{"Bearer a.b.c"}, 200},
	} {
		f := newFixture()
		r := httptest.NewRequest(http.MethodPost, "/v1/authorize", strings.NewReader(plainBody))
		r.Header["Authorization"] = c.values
		if w := f.serve(r); w.Code != c.status {
			t.Errorf("%s: %d %s", c.name, w.Code, w.Body)
		}
	}
}

// readCounter tells whether a body was looked at.
type readCounter struct {
	io.Reader
	n int
}

func (r *readCounter) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.n += n
	return n, err
}

func TestBodyLimits(t *testing.T) {
	big := plainBody + strings.Repeat(" ", copse.MaxRequestBytes)
	for _, c := range []struct {
		name   string
		body   string
		length int64
		status int
	}{
		{"the largest", big[:copse.MaxRequestBytes], copse.MaxRequestBytes, 200},
		{"the largest, of unknown length", big[:copse.MaxRequestBytes], -1, 200},
		{"a byte more", big[:copse.MaxRequestBytes+1], copse.MaxRequestBytes + 1, 413},
		{"a byte more, of unknown length", big[:copse.MaxRequestBytes+1], -1, 413},
		{"endless", strings.Repeat(big, 3), -1, 413},
		{"none", "", 0, 400},
	} {
		f := newFixture()
		body := &readCounter{Reader: strings.NewReader(c.body)}
		r := httptest.NewRequest(http.MethodPost, "/v1/authorize", body)
		r.ContentLength = c.length
		r.Header.Set("Authorization", "Bearer a.b.c")
		if w := f.serve(r); w.Code != c.status {
			t.Errorf("%s: %d", c.name, w.Code)
		}
		if body.n > 2*copse.MaxRequestBytes+1024 {
			t.Errorf("%s: %d bytes were read", c.name, body.n)
		}
	}
	// A stranger's body is not read at all.
	f := newFixture()
	f.verify = copse.Errorf(copse.Unauthenticated, "no")
	body := &readCounter{Reader: strings.NewReader(plainBody)}
	r := httptest.NewRequest(http.MethodPost, "/v1/authorize", body)
	r.Header.Set("Authorization", "Bearer a.b.c")
	if w := f.serve(r); w.Code != 401 || body.n != 0 {
		t.Errorf("%d, %d bytes of the body were read", w.Code, body.n)
	}
}

// Buffers that are used again must not carry one request into the next.
func TestNothingOfTheFormerRequestIsLeft(t *testing.T) {
	f := newFixture()
	for i := range 200 {
		f.asked = nil
		id := strconv.Itoa(i)
		body := `{"action":{"id":"view"},"resource":{"type":"Doc","id":"` + id + `"}}`
		if i%2 == 0 {
			body = `{"action":{"id":"view"},"resource":{"type":"Doc","id":"` + id + `"},"context":{"contextMap":{"n":{"long":` + id + `}}},"entities":{"entityList":[]}}`
		}
		key := []string{}
		if i%3 == 0 {
			key = []string{HeaderKey, "k"}
		}
		w := f.post(body, key...)
		if w.Code != 200 || len(f.asked) != 1 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		got := f.asked[0]
		if string(got.Resource.ID) != id || (got.Context.Format == copse.FormatNone) != (i%2 == 1) || (got.Entities.Format == copse.FormatNone) != (i%2 == 1) {
			t.Fatalf("request %d became %+v", i, got)
		}
		if strings.Contains(w.Body.String(), "determining") != (i%3 == 0) {
			t.Fatalf("request %d was answered %s", i, w.Body)
		}
		f.post(`{"broken`) // leaves half a question behind
	}
}

func TestLogAndMetrics(t *testing.T) {
	f := newFixture()
	f.post(plainBody)
	f.answer = copse.Response{Decision: copse.Deny, Determining: []copse.PolicyRef{{ID: "p1"}, {ID: "p2"}}}
	f.post(plainBody)
	if f.log.Len() > 0 {
		t.Errorf("decisions are in the server's log: %s", f.log.String())
	}
	if len(f.recorded) != 2 {
		t.Fatalf("recorded: %+v", f.recorded)
	}
	got := f.recorded[1]
	if got.Latency <= 0 || time.Since(got.Time) > time.Minute {
		t.Errorf("recorded: %+v", got)
	}
	got.Time, got.Latency = time.Time{}, 0
	want := decisionlog.Entry{RequestID: "request-0001", Via: "authorize", Tenant: "acme", PolicyStoreID: "PS1", Incarnation: got.Incarnation,
		Principal: f.asked[1].Principal, Action: f.asked[1].Action, Resource: f.asked[1].Resource, Response: f.answer, Request: got.Request}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +recorded:\n%s", diff)
	}
	if got, want := f.counted(t), map[string]float64{"allow": 1, "deny": 1}; !cmp.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}

// A decision that could not be recorded is not given.
func TestNoAnswerWithoutItsRecord(t *testing.T) {
	f := newFixture()
	f.recordErr = copse.Errorf(copse.Unavailable, "the log is full")
	w := f.post(plainBody)
	if w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "ALLOW") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if got, want := f.counted(t), map[string]float64{"unavailable": 1}; !cmp.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}

// counted are the results with a count.
func (f *fixture) counted(t *testing.T) map[string]float64 {
	t.Helper()
	families, err := f.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, family := range families {
		if family.GetName() != "copse_authorize_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			if n := m.GetCounter().GetValue(); n > 0 {
				out[m.GetLabel()[0].GetValue()] = n
			}
		}
	}
	return out
}

// The zero values of what is optional work.
func TestWithoutLogAndMetrics(t *testing.T) {
	f := newFixture()
	h := New(Config{
		Verify: func(context.Context, string) (*token.Verified, error) { v := verified; return &v, nil },
		IdentitySource: func(context.Context, copse.PolicyStoreID, copse.Incarnation) (*copse.IdentitySource, error) {
			return nil, nil
		},
		Directory: f, Decider: f,
	})
	r := httptest.NewRequest(http.MethodPost, "/v1/authorize", strings.NewReader(plainBody))
	r.Header.Set("Authorization", "Bearer a.b.c")
	w := httptest.NewRecorder()
	start := time.Now()
	h.ServeHTTP(w, r)
	if w.Code != 200 || time.Since(start) > 10*time.Second {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
