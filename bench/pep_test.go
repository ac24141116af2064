package bench

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/fstest"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/copsetest"
	"github.com/copse-authz/copse/embedded"
	"github.com/copse-authz/copse/internal/dev"
	"github.com/copse-authz/copse/internal/token"
	"github.com/copse-authz/copse/pep"
)

// BenchmarkPEP is a service's own check of a request whose token was verified before: the token found in
// memory, the decision, and the whole middleware around a handler that does nothing. Ten policies, one
// entity of the service's beside the principal.
func BenchmarkPEP(b *testing.B) {
	srv := copsetest.Start(b)
	srv.CreateTenant(b, "acme", copsetest.Contents{}) // for its tokens only; the policies are in this process
	bearer := srv.Token(b, "acme", "alice", copsetest.Groups("clerk"))
	policies := fstest.MapFS{"acme/view.cedar": {Data: []byte(`permit (principal in Role::"clerk", action == Action::"view", resource is Invoice) when { resource.amount <= 1000 };`)}}
	for n := range 9 {
		policies[fmt.Sprintf("acme/other-%d.cedar", n)] = &fstest.MapFile{Data: fmt.Appendf(nil, `permit (principal == User::"u%d", action, resource);`, n)}
	}
	registration := dev.Registration(srv.URL, dev.Shared)
	registration.Tenants, registration.AllTenants = []copse.TenantID{"acme"}, false
	pdp, err := embedded.Load(policies, embedded.Options{Issuers: []copse.Issuer{registration}})
	if err != nil {
		b.Fatal(err)
	}
	defer pdp.Close()
	guard, err := pep.New(pep.Config{PDP: pdp, AllowPrivateIssuers: true, AllowHTTPIssuers: true})
	if err != nil {
		b.Fatal(err)
	}
	defer guard.Close()

	question := pep.Ask("view", "Invoice", "17").WithEntities([]byte(`[{"uid":{"type":"Invoice","id":"17"},"attrs":{"amount":900},"parents":[]}]`))
	var inside context.Context
	handler := guard.Require(func(*http.Request, *pep.Identity) (pep.Question, error) { return question, nil })(
		http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { inside = r.Context() }))
	r := httptest.NewRequest(http.MethodGet, "/invoices/17", nil)
	r.Header.Set("Authorization", "Bearer "+bearer)
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	if inside == nil || pep.From(inside).Decision.Decision != copse.Allow {
		b.Fatalf("the request is not let through: %d %s", w.Code, w.Body)
	}

	b.Run("token", func(b *testing.B) {
		verifier, err := token.New(token.Config{Issuer: pdp.Issuer, Fetch: token.FetchPolicy{AllowPrivate: true, AllowHTTP: true}})
		if err != nil {
			b.Fatal(err)
		}
		defer verifier.Close()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := verifier.Verify(b.Context(), bearer); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decision", func(b *testing.B) {
		who := pep.From(inside)
		b.ReportAllocs()
		for b.Loop() {
			if answer, err := who.Decide(inside, question); err != nil || answer.Decision != copse.Allow {
				b.Fatal(answer, err)
			}
		}
	})
	b.Run("middleware", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			inside = nil
			if handler.ServeHTTP(w, r); inside == nil {
				b.Fatal("refused")
			}
		}
	})
}
