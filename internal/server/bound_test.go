package server_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/copse-authz/copse/internal/api"
)

// bind makes a tenant of a policy store.
func (s *poolSite) bind(tenant, policyStore string) reply {
	s.t.Helper()
	return s.as(s.root, "POST", "/v1/tenants", map[string]any{"tenant": tenant, "policyStoreId": policyStore})
}

// trust registers the user pool for tenants, by the claim tenant_id of its ID tokens.
func (s *poolSite) trust(tenants ...string) api.Issuer {
	s.t.Helper()
	return s.pool.register(s.site, api.Issuer{
		URL: poolIssuer, Tenants: tenants, TokenType: "id", ClientIDs: []string{"web"}, Algorithms: []string{"RS256"},
		TenantClaim: "tenant_id", PrincipalType: "Person",
	})
}

func (s *poolSite) tokenOf(tenant any, change ...jwt.MapClaims) *string {
	s.t.Helper()
	return s.pool.sign(s.idClaims(append(change, jwt.MapClaims{"tenant_id": tenant})...))
}

// Laws 1, 2 and 4 for tokens that are handed to a tenant's policy store: its identity source does not
// say who may speak for the tenant, and every way of not being allowed to has one answer.
func TestLaw2IdentitySourceGivesNobodyATenant(t *testing.T) {
	s := newPoolSite(t)
	ps := s.policyStore(`permit (principal, action, resource);`)
	s.source(ps, poolConfiguration())
	s.wantAllow(ps, s.tokenOf(nil), nil) // as long as it is the operator's own
	if r := s.bind("acme", ps); r.status != http.StatusCreated {
		t.Fatal(r)
	}
	answers := map[string]string{}
	refused := func(name string, token *string) {
		t.Helper()
		out, err := s.ask(ps, token, nil)
		if out != nil {
			t.Errorf("%s: %s", name, out.Decision)
			return
		}
		answers[wantDenied(t, err)] += name + "; "
	}
	refused("not registered", s.tokenOf("acme"))
	if n := s.pool.fetches.Load(); n != 1 {
		t.Errorf("%d fetches of keys: those of an issuer that is not registered are not fetched for a tenant", n)
	}
	s.onboard("globex", map[string]string{"all": `permit (principal, action, resource);`})
	issuer := s.trust("globex")
	refused("registered for another tenant", s.tokenOf("acme"))
	if r := s.as(s.root, "DELETE", "/v1/issuers/"+issuer.ID, nil); r.status != http.StatusNoContent {
		t.Fatal(r)
	}
	s.trust("acme", "globex")
	good := s.tokenOf("acme")
	s.wantAllow(ps, good, nil)
	refused("of another tenant", s.tokenOf("globex"))
	refused("of an unknown tenant", s.tokenOf("initech"))
	refused("of no tenant", s.tokenOf(nil))
	refused("of two tenants", s.tokenOf([]string{"acme", "globex"}))
	refused("older than its tenant", s.tokenOf("acme", jwt.MapClaims{"iat": 1}))
	// The registration's clients hold for the tenant, whatever the source leaves out.
	_, err := s.ask(ps, s.tokenOf("acme", jwt.MapClaims{"aud": "foreign"}), nil)
	wantInvalid(t, err, "identityToken")
	if len(answers) != 1 {
		t.Errorf("the answers tell the cases apart: %v", answers)
	}

	// The user's token decides at /v1/authorize as it does here: by the policy store's source.
	r := s.as(*good, "POST", "/v1/authorize", `{"action":{"id":"view"},"resource":{"type":"Document","id":"plan"}}`)
	if r.status != http.StatusOK || !strings.Contains(r.body, `"ALLOW"`) {
		t.Errorf("/v1/authorize: %s", r)
	}
	for _, person := range []string{"User", "Group"} {
		r = s.as(*good, "POST", "/v1/authorize", `{"action":{"id":"view"},"resource":{"type":"Document","id":"plan"},"entities":[{"uid":{"type":"`+person+`","id":"x"},"attrs":{},"parents":[]}]}`)
		if r.status != http.StatusBadRequest {
			t.Errorf("/v1/authorize: an entity of the source's type %s: %s", person, r)
		}
	}

	if r := s.as(s.root, "POST", "/v1/tenants/acme/suspend", nil); r.status != http.StatusOK {
		t.Fatal(r)
	}
	_, err = s.ask(ps, good, nil)
	wantDenied(t, err)
	if r := s.as(s.root, "POST", "/v1/tenants/acme/resume", nil); r.status != http.StatusOK {
		t.Fatal(r)
	}
	s.wantAllow(ps, good, nil)
	if r := s.as(s.root, "DELETE", "/v1/tenants/acme", nil); r.status != http.StatusNoContent {
		t.Fatal(r)
	}
	if _, err := s.ask(ps, good, nil); err == nil {
		t.Error("a deleted tenant's policy store takes tokens")
	}
}

// A source of another issuer shuts out the tokens of all others, also where those would do without it.
func TestAuthorizeUsesThePolicyStoresIdentitySource(t *testing.T) {
	s := newPoolSite(t)
	ps := s.policyStore(`permit (principal == User::"eu-west-1_Pool1|alice", action, resource) when { principal.custom.level == "7" };`)
	if r := s.bind("acme", ps); r.status != http.StatusCreated {
		t.Fatal(r)
	}
	s.trust("acme")
	token := *s.tokenOf("acme")
	const body = `{"action":{"id":"view"},"resource":{"type":"Document","id":"plan"}}`
	decide := func(want int, text string) {
		t.Helper()
		if r := s.as(token, "POST", "/v1/authorize", body); r.status != want || !strings.Contains(r.body, text) {
			t.Errorf("want %d with %s, got %s", want, text, r)
		}
	}
	decide(http.StatusOK, `"DENY"`) // a Person without a prefix, says the registration
	source := s.source(ps, poolConfiguration())
	decide(http.StatusOK, `"ALLOW"`) // a User with one, says the source
	if r := s.amazon(s.root, "DeleteIdentitySource", `{"policyStoreId":"`+ps+`","identitySourceId":"`+source+`"}`); r.status != 200 {
		t.Fatal(r)
	}
	decide(http.StatusOK, `"DENY"`)
	s.source(ps, oidcSource("", ""))
	decide(http.StatusForbidden, "")
}

// One policy store is one tenant's, whoever asks first.
func TestPolicyStoreIsBoundOnce(t *testing.T) {
	s := newPoolSite(t)
	ps := s.policyStore()
	var wg sync.WaitGroup
	replies := make([]reply, 8)
	for i := range replies {
		wg.Go(func() { replies[i] = s.bind("tenant-"+string(rune('a'+i)), ps) })
	}
	wg.Wait()
	made := 0
	for _, r := range replies {
		switch r.status {
		case http.StatusCreated:
			made++
		case http.StatusConflict:
		default:
			t.Errorf("%s", r)
		}
	}
	if made != 1 {
		t.Errorf("%d tenants got the same policy store", made)
	}
	if r := s.bind("late", ps); r.status != http.StatusConflict || !strings.Contains(r.body, "belongs to tenant") {
		t.Errorf("bound already: %s", r)
	}
	if r := s.bind("late", "never-was"); r.status != http.StatusNotFound {
		t.Errorf("unknown: %s", r)
	}
	other := s.policyStore()
	s.onboard("acme", map[string]string{"all": `permit (principal, action, resource);`})
	if r := s.bind("acme", other); r.status != http.StatusConflict {
		t.Errorf("a tenant that has one: %s", r)
	}
	for member, value := range map[string]any{
		"description": "x",
		"templates":   []any{map[string]any{"name": "t", "statement": "forbid (principal == ?principal, action, resource is Doc);"}},
	} {
		if r := s.as(s.root, "POST", "/v1/tenants", map[string]any{"tenant": "late", "policyStoreId": other, member: value}); r.status != http.StatusBadRequest {
			t.Errorf("bound, and its %s given: %s", member, r)
		}
	}
	if r := s.bind("late", other); r.status != http.StatusCreated {
		t.Errorf("the other is free still: %s", r)
	}
	if r := s.amazon(s.root, "DeletePolicyStore", `{"policyStoreId":"`+other+`"}`); r.status != 400 || !strings.Contains(r.body, "InvalidState") {
		t.Errorf("a tenant's policy store is not deleted alone: %s", r)
	}
}
