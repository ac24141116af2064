package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/server"
)

// The tests of this package talk to the real server over real sockets. This file starts it and says
// the calls in few words; idp_test.go is the identity provider whose tokens they use.

// site is a running server.
type site struct {
	*caller
	*server.Server
	ops string
}

// start runs a server on a data directory of its own until the test ends. Issuers may be on loopback,
// where the tests' own are.
func start(t testing.TB, adjust ...func(*server.Config)) *site {
	t.Helper()
	cfg := server.DefaultConfig()
	cfg.DataDir = t.TempDir()
	cfg.Listen, cfg.OpsListen = "127.0.0.1:0", "127.0.0.1:0"
	cfg.DrainDelay = 0
	cfg.DefaultPlan = policystore.PlanUnmetered // rates have tests of their own
	cfg.AllowPrivateIssuers, cfg.AllowHTTPIssuers = true, true
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	for _, f := range adjust {
		f(&cfg)
	}
	srv, err := server.Open(context.Background(), cfg)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	if err := srv.Listen(); err != nil {
		t.Fatalf("listen: %v", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ctx) }()
	s := &site{caller: newCaller(t, srv.URL(), string(srv.RootCredential())), Server: srv, ops: srv.OpsURL()}
	t.Cleanup(func() {
		s.http.CloseIdleConnections()
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the server did not end cleanly: %v", err)
		}
	})
	return s
}

// caller calls one server's API.
type caller struct {
	t    testing.TB
	http *http.Client
	url  string
	root string // credential that may do everything
}

func newCaller(t testing.TB, url, root string) *caller {
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	return &caller{t: t, url: url, root: root, http: &http.Client{Transport: transport, Timeout: time.Minute}}
}

// reply is an answer, read to its end.
type reply struct {
	status int
	header http.Header
	body   string
}

func (r reply) String() string { return fmt.Sprintf("%d %s", r.status, strings.TrimSpace(r.body)) }

// try sends a request. The body is nil, text that goes out as it is, or what encoding/json makes of it.
// Headers are pairs of name and value; equal names are sent twice.
func (c *caller) try(method, path string, body any, headers ...string) (reply, error) {
	var content io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		content = strings.NewReader(b)
	default:
		text, err := json.Marshal(b)
		if err != nil {
			return reply{}, err
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequest(method, c.url+path, content)
	if err != nil {
		return reply{}, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Content-Type" {
			req.Header.Del("Content-Type")
		}
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(text)}, err
}

func (c *caller) call(method, path string, body any, headers ...string) reply {
	c.t.Helper()
	r, err := c.try(method, path, body, headers...)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return r
}

// as is call with an access key.
func (c *caller) as(credential, method, path string, body any, headers ...string) reply {
	c.t.Helper()
	return c.call(method, path, body, append(headers, "Authorization", "Bearer "+credential)...)
}

// must is a call with the root key that has to have this status.
func (c *caller) must(status int, method, path string, body any, headers ...string) reply {
	c.t.Helper()
	r := c.as(c.root, method, path, body, headers...)
	if r.status != status {
		c.t.Fatalf("%s %s: got %v, want %d", method, path, r, status)
	}
	return r
}

// amazon calls an operation of the AVP API.
func (c *caller) amazon(credential, operation string, body any) reply {
	c.t.Helper()
	return c.as(credential, "POST", "/", body, "X-Amz-Target", "VerifiedPermissions."+operation, "Content-Type", "application/x-amz-json-1.0")
}

// viewRequest asks the AVP API whether a user may view something.
func viewRequest(store, user string) map[string]any {
	return map[string]any{"policyStoreId": store,
		"principal": map[string]string{"entityType": "User", "entityId": user},
		"action":    map[string]string{"actionType": "Action", "actionId": "view"},
		"resource":  map[string]string{"entityType": "R", "entityId": "r"}}
}

// tryView asks whether alice may, and takes nothing but ALLOW for an answer.
func (c *caller) tryView(store string) error {
	r, err := c.try("POST", "/", viewRequest(store, "alice"), "Authorization", "Bearer "+c.root,
		"X-Amz-Target", "VerifiedPermissions.IsAuthorized", "Content-Type", "application/x-amz-json-1.0")
	if err == nil && (r.status != http.StatusOK || !strings.Contains(r.body, `"ALLOW"`)) {
		err = fmt.Errorf("got %v, want ALLOW", r)
	}
	return err
}

func (c *caller) authorize(token string, body any, headers ...string) reply {
	c.t.Helper()
	return c.call("POST", "/v1/authorize", body, append(headers, "Authorization", "Bearer "+token)...)
}

// decode reads an answer's body strictly, as its type.
func decode[T any](t testing.TB, r reply) T {
	t.Helper()
	var out T
	d := json.NewDecoder(strings.NewReader(r.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&out); err != nil {
		t.Fatalf("%v: not a %T: %v", r, out, err)
	}
	return out
}

// onboard makes a tenant from policies by name; a schema in Cedar syntax may be given.
func (c *caller) onboard(tenant string, policies map[string]string, schema ...string) api.Tenant {
	c.t.Helper()
	req := api.CreateTenantRequest{Tenant: tenant, Policies: named(policies)}
	for _, text := range schema {
		req.Schema = &api.SchemaText{Cedar: text}
	}
	return decode[api.Tenant](c.t, c.must(201, "POST", "/v1/tenants", req))
}

func named(policies map[string]string) []api.PolicyText {
	out := []api.PolicyText{}
	for _, name := range slices.Sorted(maps.Keys(policies)) {
		out = append(out, api.PolicyText{Name: name, Statement: policies[name]})
	}
	return out
}

func (c *caller) contents(policyStoreID string) api.Contents {
	c.t.Helper()
	return decode[api.Contents](c.t, c.must(200, "GET", "/v1/policy-stores/"+policyStoreID+"/contents", nil))
}

// key makes an access key and returns its credential.
func (c *caller) key(scope api.KeyScope, verbs ...string) string {
	c.t.Helper()
	made := decode[api.CreatedKey](c.t, c.must(201, "POST", "/v1/keys", api.CreateKeyRequest{Scope: scope, Verbs: verbs}))
	return made.Credential
}

// count reads a counter of the operations listener, 0 when it is not there yet. A series is written as
// Prometheus shows it: copse_x_total{reason="y"}.
func (s *site) count(series string) int {
	s.t.Helper()
	resp, err := s.http.Get(s.ops + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("/metrics: %d, %v", resp.StatusCode, err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				s.t.Fatalf("%s: %v", line, err)
			}
			return int(n)
		}
	}
	return 0
}

// Answers, as far as tests look at them.

func wantDecision(t testing.TB, r reply, decision string) api.AuthorizeResponse {
	t.Helper()
	if r.status != 200 {
		t.Fatalf("got %v, want 200 %s", r, decision)
	}
	out := decode[api.AuthorizeResponse](t, r)
	if out.Decision != decision {
		t.Errorf("got %v, want %s", r, decision)
	}
	return out
}

func wantStatus(t testing.TB, r reply, status int) {
	t.Helper()
	if r.status != status {
		t.Errorf("got %v, want status %d", r, status)
	}
}
