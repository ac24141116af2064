package pep_test

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/embedded"
	"github.com/copse-authz/copse/pep"
)

type Invoice struct {
	ID     string
	Amount int64
}

// load stands for a query. With package rls and r.Context() it finds the tenant's own rows only.
func load(id string) (Invoice, error) {
	if id != "17" {
		return Invoice{}, copse.NotFoundError("INVOICE", id)
	}
	return Invoice{ID: id, Amount: 900}, nil
}

// describe says what the policies may know of an invoice.
func describe(in Invoice) pep.Question {
	text, _ := json.Marshal([]any{map[string]any{
		"uid":     map[string]string{"type": "Invoice", "id": in.ID},
		"attrs":   map[string]any{"amount": in.Amount},
		"parents": []any{},
	}})
	return pep.Ask("view", "Invoice", in.ID).WithEntities(text)
}

// A service that decides in its own process: policies as files, one directory per tenant.
func Example() {
	pdp, err := embedded.Load(os.DirFS("policies"), embedded.Options{Issuers: []copse.Issuer{{
		URL: "https://idp.example.com/acme", Tenants: []copse.TenantID{"acme"},
		TokenType: copse.TokenAccess, Audiences: []string{"invoices"}, Algorithms: []string{"RS256"},
		TenantClaim: "tenant_id", PrincipalType: "User", GroupType: "Role", GroupClaim: "roles",
	}}})
	if err != nil {
		log.Fatal(err)
	}
	guard, err := pep.New(pep.Config{PDP: pdp})
	if err != nil {
		log.Fatal(err)
	}

	mux := http.NewServeMux()
	mux.Handle("GET /invoices/{id}", guard.Require(func(r *http.Request, _ *pep.Identity) (pep.Question, error) {
		invoice, err := load(r.PathValue("id"))
		if err != nil {
			return pep.Question{}, err // NotFound: 404
		}
		return describe(invoice), nil
	})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := pep.From(r.Context())
		_, _ = fmt.Fprintf(w, "invoice %s of %s for %s\n", r.PathValue("id"), who.Tenant, who.Principal)
	})))
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", mux))
}

// A list: the user gets those items that policies let them see.
func ExampleFilter() {
	list := func(w http.ResponseWriter, r *http.Request) {
		all := []Invoice{{"17", 900}, {"18", 90_000}} // of the tenant's rows
		visible, err := pep.Filter(r.Context(), all, describe)
		if err != nil {
			http.Error(w, "no decision can be had now", http.StatusServiceUnavailable)
			return
		}
		_ = json.NewEncoder(w).Encode(visible)
	}
	_ = list // behind guard.Authenticate, which verifies the token and leaves deciding to the handler
}

// Behind a gateway that signs what it let pass: nothing that came another way is served.
func ExampleSignedContext() {
	var pdp *embedded.PDP // as in the first example
	_, err := pep.New(pep.Config{PDP: pdp, SignedContext: &pep.SignedContext{
		Issuer:         "https://copse.example.com",
		Audience:       "invoices",
		KeysURL:        "https://copse.example.com/.well-known/copse-context-keys",
		Required:       true,
		StrippedPrefix: "/api",
	}})
	fmt.Println(err)
	// Output: <nil>
}
