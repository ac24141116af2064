package api

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/auditlog"
	"github.com/copse-authz/copse/internal/member"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage/memory"
	"github.com/copse-authz/copse/internal/tenant"
)

// server is the API over the real services on a backend of its own.
type server struct {
	api          *API
	url          string
	root         string // credential
	rootID       string
	rootSecret   string
	access       *access.Service
	policyStores *policystore.Service
	backend      *memory.Backend
	log          *bytes.Buffer
}

func start(t *testing.T) *server {
	t.Helper()
	s := &server{backend: memory.New(), log: new(bytes.Buffer)}
	id, secret := access.NewRootKey()
	s.rootID, s.rootSecret = id, string(secret)
	s.root = "copse_" + id + "_" + string(secret)
	var err error
	if s.policyStores, err = policystore.New(policystore.Config{Backend: s.backend}); err != nil {
		t.Fatal(err)
	}
	if s.access, err = access.New(access.Config{Backend: s.backend, MasterKey: bytes.Repeat([]byte{7}, 32), RootID: id, Root: secret}); err != nil {
		t.Fatal(err)
	}
	tenants, err := tenant.New(tenant.Config{Backend: s.backend, PolicyStores: s.policyStores})
	if err != nil {
		t.Fatal(err)
	}
	members, err := member.New(member.Config{Backend: s.backend, Directory: tenants, Issuer: tenants.Issuer})
	if err != nil {
		t.Fatal(err)
	}
	s.api, err = New(Config{Tenants: tenants, PolicyStores: s.policyStores, Access: s.access, Members: members,
		Audit: auditlog.New(auditlog.Config{Backend: s.backend, Owner: s.policyStores.Owner, Lookup: tenants.Lookup}), Log: slog.New(slog.NewTextHandler(s.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(s.api)
	s.url = web.URL
	t.Cleanup(func() {
		web.Close()
		for _, c := range []io.Closer{members, s.access, tenants, s.policyStores, s.backend} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return s
}

// key makes an access key and returns its credential.
func (s *server) key(t *testing.T, scope access.Scope, verbs access.Verb) string {
	t.Helper()
	k, secret, err := s.access.CreateKey(t.Context(), access.System(), access.Key{Scope: scope, Verbs: verbs})
	if err != nil {
		t.Fatal(err)
	}
	return "copse_" + k.ID + "_" + string(secret)
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (a *answer) error(t *testing.T) ErrorInfo {
	t.Helper()
	var body ErrorBody
	if err := json.Unmarshal([]byte(a.body), &body, json.RejectUnknownMembers(true)); err != nil {
		t.Fatalf("the error body is not an ErrorBody: %v: %s", err, a.body)
	}
	if a.header.Get("Content-Type") != "application/json" || body.Error.RequestID != a.header.Get("X-Request-Id") || body.Error.RequestID == "" {
		t.Errorf("headers of an error: %v, body %s", a.header, a.body)
	}
	return body.Error
}

// call sends a body as it is; an empty credential is none.
func (s *server) call(t *testing.T, credential, method, path, body string, change ...func(*http.Request)) *answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if credential != "" {
		r.Header.Set("Authorization", "Bearer "+credential)
	}
	for _, c := range change {
		c(r)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return &answer{status: resp.StatusCode, header: resp.Header, body: string(text)}
}

// do calls as root, demands a status and decodes the answer, strictly: what the server sends is what
// the types say.
func do[T any](t *testing.T, s *server, method, path string, in any, status int, change ...func(*http.Request)) (out T) {
	t.Helper()
	body := ""
	if in != nil {
		text, err := json.Marshal(in, encodeOptions)
		if err != nil {
			t.Fatal(err)
		}
		body = string(text)
	}
	a := s.call(t, s.root, method, path, body, change...)
	if a.status != status {
		t.Fatalf("%s %s: %d %s", method, path, a.status, a.body)
	}
	if status == http.StatusNoContent {
		if a.body != "" {
			t.Errorf("%s %s: 204 with a body: %s", method, path, a.body)
		}
		return out
	}
	if err := json.Unmarshal([]byte(a.body), &out, json.RejectUnknownMembers(true)); err != nil {
		t.Fatalf("%s %s: %v: %s", method, path, err, a.body)
	}
	return out
}

type nothing struct{}

func ifMatchHeader(value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("If-Match", value) }
}

const testSchema = `entity User { level: Long }; entity Invoice { owner: User };
action view, pay appliesTo { principal: User, resource: Invoice, context: { mfa: Bool } };`

func newTenant(t *testing.T, s *server, id string) Tenant {
	t.Helper()
	return do[Tenant](t, s, http.MethodPost, "/v1/tenants", CreateTenantRequest{
		Tenant: id, Schema: &SchemaText{Cedar: testSchema},
		Policies: []PolicyText{{Name: "owners", Statement: `permit (principal, action == Action::"view", resource) when { resource.owner == principal };`}},
	}, http.StatusCreated)
}

// recorder is an http.ResponseWriter without a server.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

// The log has an ERROR when copse fails, and none when the client has gone.
func TestTheLogOfAClientThatWentAway(t *testing.T) {
	s := start(t)
	ask := func(ctx context.Context) string {
		t.Helper()
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/v1/policy-stores/absent/schema", nil)
		r.Header.Set("Authorization", "Bearer "+s.root)
		w := httptest.NewRecorder()
		s.log.Reset()
		s.api.ServeHTTP(w, r)
		if w.Code < http.StatusInternalServerError {
			t.Fatalf("%d %s: nothing failed", w.Code, w.Body)
		}
		return s.log.String()
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if log := ask(gone); strings.Contains(log, "ERROR") {
		t.Errorf("a client that went away: %s", log)
	}
	if err := s.backend.Close(); err != nil {
		t.Fatal(err)
	}
	if log := ask(t.Context()); !strings.Contains(log, "ERROR") {
		t.Errorf("storage that fails: %s", log)
	}
}
