package pep_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/golang-jwt/jwt/v5"
	"github.com/labstack/echo/v4"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/bound"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/pep"
)

func TestRequire(t *testing.T) {
	w := newWorld(t)
	good := w.token(t, "main", "acme", nil)
	status, body := w.get(t, "/invoices/900", good, "X-Copse-Tenant", "acme", "X-Copse-Key", "k", "X_copse_principal", "bob", "Accept", "a/b")
	if status != 200 || body != "acme <nil>" {
		t.Fatalf("%d %s", status, body)
	}
	for name := range w.seen.Header {
		if strings.HasPrefix(strings.ToLower(name), "x") {
			t.Errorf("the handler is given the header %s", name)
		}
	}
	if w.seen.Header.Get("Accept") != "a/b" || w.seen.PathValue("id") != "900" {
		t.Error("what is not an identity header must be passed on")
	}
	if w.who.Tenant != "acme" || w.who.Principal.ID != "main|alice" || w.who.Decision.Decision != copse.Allow ||
		len(w.who.Decision.Determining) != 1 || w.who.Decision.Determining[0].Name != "one" || w.count(t, "allow") != 1 {
		t.Errorf("%+v", w.who)
	}
	for _, c := range []struct {
		status       int
		result       string
		path, bearer string
		headers      []string
	}{
		{403, "deny", "/invoices/1001", good, nil},
		{403, "deny", "/invoices/900", w.token(t, "main", "acme", jwt.MapClaims{"roles": []string{}}), nil},
		{401, "unauthenticated", "/invoices/900", "", nil},
		{401, "unauthenticated", "/invoices/900", good + "x", nil},
		{401, "unauthenticated", "/invoices/900", w.token(t, "main", "acme", jwt.MapClaims{"exp": time.Now().Add(-time.Minute).Unix()}), nil},
		{401, "unauthenticated", "/invoices/900", w.token(t, "main", "acme", jwt.MapClaims{"aud": "other"}), nil},
		{401, "unauthenticated", "/invoices/900", newSigner(t, "idp-1").sign(t, "JWT", w.contextClaims(good, jwt.MapClaims{"iss": w.provider.URL + "/main"})), nil},
		{400, "invalid", "/invoices/900", good, []string{"Authorization", "Bearer " + good}},
		{404, "service", "/invoices/absent", good, nil},
		{500, "service", "/invoices/broken", good, nil},
		{400, "invalid", "/invoices/principal", good, nil},
		{400, "invalid", "/invoices/abc", good, nil}, // entities that are no JSON
	} {
		w.wantRefused(t, c.status, c.result, http.MethodGet, c.path, c.bearer, c.headers...)
	}
}

// The tenant is the token's; what any header says can only end the request.
func TestLaw1HeadersNameNoTenant(t *testing.T) {
	w := newWorld(t)
	good := w.token(t, "main", "acme", nil)
	for _, headers := range [][]string{
		{"X-Copse-Tenant", "globex"},
		{"x-copse-tenant", "globex"},
		{"X-COPSE-TENANT", "globex"},
		{"X_Copse_Tenant", "globex"},
		{"X-Copse_tenant", "globex"},
		{"X-Copse-Tenant", "ACME"},
		{"X-Copse-Tenant", ""},
		{"X-Copse-Tenant", "acme, globex"},
		{"X-Copse-Tenant", "acme", "X-Copse-Tenant", "globex"},
		{"X-Copse-Tenant", "acme", "X-Copse-Tenant", "acme"},
		{"X-Copse-Tenant", "acme", "X_Copse_Tenant", "acme"},
	} {
		w.wantRefused(t, 403, "tenant_header", http.MethodGet, "/invoices/900", good, headers...)
	}
	if w.asked != 0 {
		t.Errorf("the service was asked %d times about requests that were refused before", w.asked)
	}
}

// Trailers come after the checks. Announced ones are refused, others never reach the handler.
func TestLaw1TrailersNameNoTenant(t *testing.T) {
	w := newWorld(t)
	good := w.token(t, "main", "acme", nil)
	for announced, want := range map[string]int{"X-Copse-Tenant": 403, "x_copse_tenant": 403, "X-Other": 200, "": 200} {
		conn, err := net.Dial("tcp", w.service.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		text := "POST /invoices/900 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nAuthorization: Bearer " + good + "\r\n"
		if announced != "" {
			text += "Trailer: " + announced + "\r\n"
		}
		if _, err := fmt.Fprint(conn, text+"\r\n1\r\nx\r\n0\r\nX-Copse-Tenant: globex\r\nX-Other: 1\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("announced %q: %d, want %d", announced, resp.StatusCode, want)
		}
		if want == 200 && len(w.seen.Trailer) > 0 {
			t.Errorf("announced %q: the handler is given trailers %v", announced, w.seen.Trailer)
		}
	}
}

// Whatever is wrong with the tenant, the answer is the same, byte for byte, and the same as a DENY's.
func TestLaw4PEPRefusesAlike(t *testing.T) {
	w := newWorld(t)
	w.createTenant(t, "umbrella", `permit (principal, action, resource);`)
	w.trust(t, w.registration("umbrella", "umbrella"))
	if _, err := w.Tenants.SetState(t.Context(), access.System(), "umbrella", copse.TenantSuspended); err != nil {
		t.Fatal(err)
	}
	_, deny := w.get(t, "/invoices/1001", w.token(t, "main", "acme", nil))
	for name, token := range map[string]string{
		"suspended":              w.token(t, "umbrella", "umbrella", nil),
		"not the issuer's":       w.token(t, "main", "globex", nil),
		"unknown":                w.token(t, "main", "nobody", nil),
		"none":                   w.token(t, "main", "acme", jwt.MapClaims{"tenant_id": 1}),
		"older than the tenant":  w.token(t, "main", "acme", jwt.MapClaims{"iat": time.Now().Add(-time.Hour).Unix()}),
		"the tenant's id folded": w.token(t, "main", "ACME", nil),
	} {
		before := w.count(t, "tenant")
		status, body := w.get(t, "/invoices/900", token)
		if status != 403 || body != deny || w.count(t, "tenant") != before+1 {
			t.Errorf("%s: %d %q, want 403 %q", name, status, body, deny)
		}
	}
	if w.handled != 0 {
		t.Errorf("the handler ran %d times", w.handled)
	}
}

// What the operator changes is in force for the next request, whatever is remembered of the token.
func TestChangesAreInForceAtOnce(t *testing.T) {
	w := newWorld(t)
	second := w.registration("second", "acme")
	iss := w.trust(t, second)
	token := w.token(t, "second", "acme", nil)
	if status, body := w.get(t, "/invoices/900", token); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	who := w.who
	if err := w.Tenants.RemoveIssuer(t.Context(), access.System(), iss.ID); err != nil {
		t.Fatal(err)
	}
	w.wantRefused(t, 401, "unauthenticated", http.MethodGet, "/invoices/900", token)
	if _, err := w.Tenants.SetState(t.Context(), access.System(), "acme", copse.TenantSuspended); err != nil {
		t.Fatal(err)
	}
	w.wantRefused(t, 403, "tenant", http.MethodGet, "/invoices/900", w.token(t, "main", "acme", nil))
	if _, err := who.Decide(t.Context(), invoice("900")); copse.KindOf(err) != copse.Denied || err == nil {
		t.Errorf("a handler under way asks for a suspended tenant: %v", err)
	}
}

// An identity source of the tenant's policy store says who the principal is, here as at the server.
func TestIdentitySource(t *testing.T) {
	w := newWorld(t)
	entry, err := w.Lookup(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	in := policystore.NewIdentitySource{IdentitySource: copse.IdentitySource{PrincipalType: "Person", OpenIDConnect: &copse.OpenIDConnect{
		Issuer: w.provider.URL + "/main", TokenType: copse.TokenAccess, Audiences: []string{"api"}, EntityIDPrefix: "p"}}}
	if _, err := w.PolicyStores.CreateIdentitySource(t.Context(), access.System(), entry.PolicyStoreID, in); err != nil {
		t.Fatal(err)
	}
	// The source names no groups, so that the user is no clerk any more.
	w.wantRefused(t, 403, "deny", http.MethodGet, "/invoices/900", w.token(t, "main", "acme", nil))
}

func TestDecideMany(t *testing.T) {
	w := newWorld(t)
	if status, _ := w.get(t, "/invoices/900", w.token(t, "main", "acme", nil)); status != 200 {
		t.Fatal(status)
	}
	ctx := context.WithoutCancel(w.seen.Context()) // that handler has returned
	got, err := pep.Filter(ctx, []string{"2000", "3", "1000", "1001", "7"}, invoice)
	if err != nil || !slices.Equal(got, []string{"3", "1000", "7"}) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := pep.Filter(ctx, []string{"3", "x"}, invoice); err == nil || got != nil {
		t.Errorf("a question that can't be answered: %v, %v", got, err)
	}
	answers, err := w.who.DecideAll(ctx, []pep.Question{invoice("3"), invoice("3000")})
	if err != nil || answers[0].Decision != copse.Allow || answers[1].Decision != copse.Deny || answers[0].Revision != answers[1].Revision {
		t.Errorf("%+v, %v", answers, err)
	}
	for n, q := range []pep.Question{invoice("3"), invoice("3000")} {
		if one, err := w.who.Decide(ctx, q); err != nil || one.Decision != answers[n].Decision || one.Revision != answers[n].Revision {
			t.Errorf("%d: %+v, %v, in the batch %+v", n, one, err, answers[n])
		}
	}
	// Nobody is nobody, and another tenant's context is no place to ask from.
	if got, err := pep.Filter(t.Context(), []string{"3"}, invoice); copse.KindOf(err) != copse.Unauthenticated || err == nil || got != nil {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := w.who.Decide(bound.WithTenant(t.Context(), "globex"), invoice("3")); copse.KindOf(err) != copse.Denied || err == nil {
		t.Error(err)
	}
}

// A tenant that something outside bound is not replaced, and not obeyed either.
func TestContextBoundBefore(t *testing.T) {
	w := newWorld(t)
	h := w.guard.Require(w.hook)(http.HandlerFunc(w.handle))
	for tenant, want := range map[copse.TenantID]int{"acme": 200, "globex": 403} {
		r := httptest.NewRequest(http.MethodGet, "/invoices/900", nil)
		r.SetPathValue("id", "900")
		r.Header.Set("Authorization", "Bearer "+w.token(t, "main", "acme", nil))
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r.WithContext(bound.WithTenant(r.Context(), tenant)))
		if rec.Code != want {
			t.Errorf("%s: %d", tenant, rec.Code)
		}
	}
}

func TestRouters(t *testing.T) {
	w := newWorld(t)
	good := w.token(t, "main", "acme", nil)
	byPath := func(r *http.Request, _ *pep.Identity) (pep.Question, error) {
		return invoice(strings.TrimPrefix(r.URL.Path, "/invoices/")), nil
	}
	answer := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(rw, pep.From(r.Context()).Tenant)
	})

	mux := http.NewServeMux()
	mux.Handle("/invoices/{id}", w.guard.Require(byPath)(answer))

	router := chi.NewRouter()
	router.Use(w.guard.Authenticate)
	router.With(w.guard.Require(func(r *http.Request, _ *pep.Identity) (pep.Question, error) {
		return invoice(chi.URLParam(r, "id")), nil
	})).Get("/invoices/{id}", answer)

	e := echo.New()
	e.GET("/invoices/:id", func(c echo.Context) error {
		return c.String(200, string(pep.From(c.Request().Context()).Tenant))
	}, echo.WrapMiddleware(w.guard.Require(byPath)))

	for name, h := range map[string]http.Handler{"net/http": mux, "chi": router, "echo": e} {
		t.Run(name, func(t *testing.T) {
			for _, c := range []struct {
				path, bearer string
				headers      []string
				status       int
				body         string
			}{
				{"/invoices/900", good, nil, 200, "acme"},
				{"/invoices/1001", good, nil, 403, "Denied"},
				{"/invoices/900", "", nil, 401, "Unauthenticated"},
				{"/invoices/900", good, []string{"X-Copse-Tenant", "globex"}, 403, "Denied"},
			} {
				w.service.Config.Handler = h
				status, body := w.get(t, c.path, c.bearer, c.headers...)
				if status != c.status || !strings.Contains(body, c.body) {
					t.Errorf("%s %v: %d %s", c.path, c.headers, status, body)
				}
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*pep.Config){
		"no PDP": func(c *pep.Config) { c.PDP = nil },
		"no audience": func(c *pep.Config) {
			c.SignedContext = &pep.SignedContext{Issuer: "https://a", Keys: w.gateway.keySet(t)}
		},
		"no keys": func(c *pep.Config) { c.SignedContext = &pep.SignedContext{Issuer: "https://a", Audience: "b"} },
		"keys of none": func(c *pep.Config) {
			c.SignedContext = &pep.SignedContext{Issuer: "https://a", Audience: "b", Keys: []byte(`{"keys":[]}`)}
		},
		"keys over http": func(c *pep.Config) {
			c.SignedContext = &pep.SignedContext{Issuer: "https://a", Audience: "b", KeysURL: "http://example.com/k"}
		},
		"a prefix with end/": func(c *pep.Config) {
			c.SignedContext = &pep.SignedContext{Issuer: "https://a", Audience: "b", Keys: w.gateway.keySet(t), StrippedPrefix: "/api/"}
		},
	} {
		cfg := pep.Config{PDP: w.services}
		change(&cfg)
		if guard, err := pep.New(cfg); err == nil || copse.KindOf(err) != copse.Invalid {
			t.Errorf("%s: %v, %v", name, guard, err)
		}
	}
}
