package remote_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/server"
	"github.com/copse-authz/copse/internal/tenant"
	"github.com/copse-authz/copse/remote"
)

const testKey = "copse_CPK00000000000000000_secretsecretsecretsecret"

var aRequest = copse.Request{
	PolicyStoreID: "ps", Principal: types.NewEntityUID("User", "alice"),
	Action: types.NewEntityUID("Action", "view"), Resource: types.NewEntityUID("Doc", "1"),
}

const allowing = `{"decision":"ALLOW","determiningPolicies":[],"errors":[],"copse":{"revision":1,"considered":1,"determining":null,"errors":null}}`

func newPDP(t *testing.T, o remote.PDPOptions) *remote.PDP {
	t.Helper()
	if o.Key == "" {
		o.Key = testKey
	}
	p, err := remote.NewPDP(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// Law 11: whatever answers in a server's place, it is an error and no ALLOW.
func TestLaw11WhatIsNoAnswerIsNoAllow(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(allowing)) }))
	defer elsewhere.Close()
	for name, answer := range map[string]http.HandlerFunc{
		"an ALLOW without copse's part": text(200, `{"decision":"ALLOW","determiningPolicies":[],"errors":[]}`),
		"an ALLOW with another status":  text(201, allowing),
		"an ALLOW with a 500":           text(500, allowing),
		"an ALLOW with a 403":           text(403, allowing),
		"a word that is no decision":    text(200, strings.Replace(allowing, "ALLOW", "allow", 1)),
		"a decision twice":              text(200, strings.Replace(allowing, "{", `{"decision":"DENY",`, 1)),
		"a page":                        text(200, "<html>ALLOW</html>"),
		"nothing":                       text(200, ""),
		"more than an answer":           text(200, allowing+strings.Repeat(" ", 5<<20)),
		"half an answer":                text(200, allowing[:len(allowing)-1]),
		"a redirect":                    http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect).ServeHTTP,
		"a connection that breaks":      func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"an exception nobody knows":     text(400, `{"__type":"Strange","message":"x"}`),
	} {
		srv := httptest.NewServer(answer)
		resp, err := newPDP(t, remote.PDPOptions{URL: srv.URL}).Decide(t.Context(), &aRequest)
		if err == nil || copse.KindOf(err) != copse.Unavailable || resp.Decision != copse.Deny {
			t.Errorf("%s: %+v, %v", name, resp, err)
		}
		srv.Close()
	}
	srv := httptest.NewServer(text(200, allowing))
	defer srv.Close()
	if resp, err := newPDP(t, remote.PDPOptions{URL: srv.URL}).Decide(t.Context(), &aRequest); err != nil || resp.Decision != copse.Allow {
		t.Errorf("the answer that all of these are near: %+v, %v", resp, err)
	}
}

func text(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

// A server that fails is asked a bounded number of times: the budget of retries, then the breaker.
func TestNoRetryStorm(t *testing.T) {
	var asked atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer srv.Close()
	registry := prometheus.NewRegistry()
	p := newPDP(t, remote.PDPOptions{URL: srv.URL, Metrics: registry, Timeout: time.Minute})
	const calls = 200
	for range calls {
		if resp, err := p.Decide(t.Context(), &aRequest); copse.KindOf(err) != copse.Unavailable || err == nil || resp.Decision != copse.Deny {
			t.Fatalf("%+v, %v", resp, err)
		}
	}
	if n := asked.Load(); n < 5 || n > 50 {
		t.Errorf("%d calls were sent %d times", calls, n)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := family.GetName()
			if len(m.GetLabel()) > 0 {
				name = m.GetLabel()[0].GetValue()
			}
			counted[name] = m.GetCounter().GetValue()
		}
	}
	if counted["failed"] != float64(asked.Load()) || counted["copse_remote_breaker_opened_total"] < 1 || counted["open"] < calls/2 {
		t.Errorf("counted %v for %d", counted, asked.Load())
	}
}

// A call ends with its context, and a caller that left says nothing of the server.
func TestCallsEndWithTheirContext(t *testing.T) {
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer srv.Close()
	defer close(release)
	p := newPDP(t, remote.PDPOptions{URL: srv.URL, Timeout: time.Hour})
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		if _, err := p.Decide(ctx, &aRequest); copse.KindOf(err) != copse.Unavailable || err == nil || strings.Contains(err.Error(), "several times") {
			t.Fatal(err)
		}
	}
	short := newPDP(t, remote.PDPOptions{URL: srv.URL, Timeout: time.Millisecond})
	for n := range 7 {
		_, err := short.Decide(t.Context(), &aRequest)
		if open := err != nil && strings.Contains(err.Error(), "several times"); err == nil || open != (n >= 5) {
			t.Errorf("%d: %v", n, err)
		}
	}
}

// world is a server and its services.
type world struct{ *server.Server }

func newWorld(t *testing.T) world {
	t.Helper()
	cfg := server.DefaultConfig()
	cfg.InMemory, cfg.NoRates, cfg.Listen, cfg.OpsListen = true, true, "127.0.0.1:0", "127.0.0.1:0"
	cfg.DrainDelay = 0
	s, err := server.Open(t.Context(), cfg)
	if err == nil {
		err = s.Listen()
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		_ = s.Close()
	})
	return world{s}
}

func (w world) create(t *testing.T, id copse.TenantID) {
	t.Helper()
	if _, err := w.Tenants.Create(t.Context(), access.System(), tenant.NewTenant{ID: id}); err != nil {
		t.Fatal(err)
	}
}

func (w world) pdp(t *testing.T, o remote.PDPOptions, scope access.Scope, verbs access.Verb) *remote.PDP {
	t.Helper()
	key, secret, err := w.Access.CreateKey(t.Context(), access.System(), access.Key{Scope: scope, Verbs: verbs})
	if err != nil {
		t.Fatal(err)
	}
	o.URL, o.Key = w.URL(), "copse_"+key.ID+"_"+string(secret)
	return newPDP(t, o)
}

// Law 5: a key sees the directory and the issuers of what it covers with decide, and of nobody else.
func TestLaw5KeySeesItsTenants(t *testing.T) {
	w := newWorld(t)
	for _, id := range []copse.TenantID{"acme", "globex", "a:b@c.d_e-f"} {
		w.create(t, id)
	}
	for n, tenants := range [][]copse.TenantID{{"acme"}, {"globex"}, {"acme", "globex"}, nil} {
		_, err := w.Tenants.AddIssuer(t.Context(), access.System(), copse.Issuer{
			URL: fmt.Sprintf("https://idp.example.com/%d", n), Tenants: tenants, AllTenants: tenants == nil,
			TokenType: copse.TokenAccess, Audiences: []string{"api"}, TenantClaim: "t", PrincipalType: "User", PrincipalIDPrefix: fmt.Sprint(n),
			EmailDomains: []string{fmt.Sprintf("d%d.example.com", n)},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	acme, err := w.Tenants.Lookup(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	for _, bearer := range []bool{false, true} {
		for name, c := range map[string]struct {
			scope   access.Scope
			verbs   access.Verb
			tenants string // visible of acme, globex, the odd one
			issuers string // visible of 0 to 3
		}{
			"all":              {access.Scope{All: true}, access.Decide, "yyy", "yyyy"},
			"all, to read":     {access.Scope{All: true}, access.Read | access.Write, "nnn", "nnnn"},
			"acme":             {access.Scope{Tenant: "acme"}, access.Decide, "ynn", "ynyy"},
			"acme, to read":    {access.Scope{Tenant: "acme"}, access.Read, "nnn", "nnnn"},
			"its policy store": {access.Scope{PolicyStore: acme.PolicyStoreID}, access.Decide, "ynn", "ynyy"},
		} {
			p := w.pdp(t, remote.PDPOptions{Bearer: bearer}, c.scope, c.verbs)
			for n, id := range []copse.TenantID{"acme", "globex", "a:b@c.d_e-f"} {
				entry, err := p.Lookup(t.Context(), id)
				if visible := c.tenants[n] == 'y'; (err == nil) != visible || err != nil && copse.KindOf(err) != copse.NotFound {
					t.Errorf("%s: %s: %v", name, id, err)
				} else if want, _ := w.Tenants.Lookup(t.Context(), id); visible && (entry.Incarnation != want.Incarnation || !entry.CreatedAt.Equal(want.CreatedAt)) {
					t.Errorf("%s: %+v, want %+v", name, entry, want)
				}
			}
			for n := range 4 {
				found, err := p.Issuer(t.Context(), fmt.Sprintf("https://idp.example.com/%d", n))
				if visible := c.issuers[n] == 'y'; (err == nil) != visible || err != nil && copse.KindOf(err) != copse.NotFound {
					t.Errorf("%s: issuer %d: %v", name, n, err)
				} else if visible && !c.scope.All && (found.AllTenants || len(found.Tenants) != 1 || found.Tenants[0] != "acme" || len(found.EmailDomains) > 0) {
					t.Errorf("%s: issuer %d tells of others: %+v", name, n, found)
				}
			}
		}
	}
}

// What was known of a tenant is never an ALLOW for what came after it: the server decides, and it knows.
func TestLaw11StaleEntriesAllowNothing(t *testing.T) {
	w := newWorld(t)
	w.create(t, "acme")
	p := w.pdp(t, remote.PDPOptions{}, access.Scope{All: true}, access.Decide)
	entry, err := p.Lookup(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	req := aRequest
	req.PolicyStoreID, req.Incarnation = entry.PolicyStoreID, entry.Incarnation
	want := func(when string, kind copse.Kind) {
		t.Helper()
		resp, err := p.Decide(t.Context(), &req)
		if (err != nil) != (kind != copse.Internal) || err != nil && copse.KindOf(err) != kind || resp.Decision != copse.Deny {
			t.Errorf("%s: %+v, %v", when, resp, err)
		}
	}
	want("at first", copse.Internal)
	if _, err := w.Tenants.SetState(t.Context(), access.System(), "acme", copse.TenantSuspended); err != nil {
		t.Fatal(err)
	}
	want("suspended", copse.Denied)
	if err := w.Tenants.Delete(t.Context(), access.System(), "acme"); err != nil {
		t.Fatal(err)
	}
	want("deleted", copse.NotFound)
	w.create(t, "acme")
	want("made again", copse.NotFound)
	again, err := w.Tenants.Lookup(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	req.PolicyStoreID = again.PolicyStoreID
	want("made again, under the former incarnation", copse.NotFound)
}

func TestNewPDPRefuses(t *testing.T) {
	for name, o := range map[string]remote.PDPOptions{
		"no URL":           {Key: testKey},
		"http to anywhere": {URL: "http://copse.example.com", Key: testKey},
		"a path":           {URL: "https://copse.example.com/x", Key: testKey},
		"no key":           {URL: "https://copse.example.com"},
		"half a key":       {URL: "https://copse.example.com", Key: "copse_CPK1"},
		"too seldom":       {URL: "https://copse.example.com", Key: testKey, RereadAfter: 6 * time.Second},
	} {
		if _, err := remote.NewPDP(o); err == nil || copse.KindOf(err) != copse.Invalid || strings.Contains(err.Error(), "secretsecret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
