package server_test

import (
	"testing"
	"time"

	"github.com/copse-authz/copse/internal/api"
)

const anyQuestion = `{"action":{"id":"view"},"resource":{"type":"Doc","id":"1"}}`

var permitAll = map[string]string{"all": `permit (principal, action, resource);`}

// A token that outlived its tenant is not for the next one of that name.
func TestTokenOfAFormerTenantIsRefused(t *testing.T) {
	s, p := start(t), newIDP(t)
	p.register(s, p.registration()) // for all tenants: it is not unbound when one goes
	s.onboard("acme", permitAll)
	claims := p.claims("acme", "alice")
	claims["iat"] = time.Now().Add(-10 * time.Minute).Unix()
	old, fresh := p.key.token(t, nil, claims), p.token("acme", "alice")
	wantStatus(t, s.authorize(old, anyQuestion), 403)
	wantDecision(t, s.authorize(fresh, anyQuestion), "ALLOW")
	delete(claims, "iat")
	wantDecision(t, s.authorize(p.key.token(t, nil, claims), anyQuestion), "ALLOW")
}

// What is remembered of a tenant's tokens goes when its state changes, and only that.
func TestTokensAreForgottenWithTheirTenant(t *testing.T) {
	s, p := start(t), newIDP(t)
	p.register(s, p.registration())
	s.onboard("acme", permitAll)
	s.onboard("other", permitAll)
	acme, other := p.token("acme", "alice"), p.token("other", "alice")
	const misses = "copse_token_cache_misses_total"
	wantMisses := func(want int) {
		t.Helper()
		if got := s.count(misses); got != want {
			t.Errorf("%d tokens verified, want %d", got, want)
		}
	}
	for range 3 {
		wantDecision(t, s.authorize(acme, anyQuestion), "ALLOW")
		wantDecision(t, s.authorize(other, anyQuestion), "ALLOW")
	}
	wantMisses(2)
	s.must(200, "POST", "/v1/tenants/acme/suspend", nil)
	wantStatus(t, s.authorize(acme, anyQuestion), 403)
	wantMisses(3)
	s.must(204, "DELETE", "/v1/tenants/acme", nil)
	wantStatus(t, s.authorize(acme, anyQuestion), 403)
	wantMisses(4)
	wantDecision(t, s.authorize(other, anyQuestion), "ALLOW")
	wantMisses(4)
}

// Two issuers of one tenant meet in the groups they name, even if their principals can't.
func TestSecondIssuerCannotNameTheFirstOnesGroups(t *testing.T) {
	s, ps := start(t), newIDPs(t, "corp", "partner")
	s.onboard("acme", map[string]string{"admins": `permit (principal in Role::"admin", action, resource);`})
	ps[0].register(s, ps[0].registration("acme"))
	partner := ps[1].registration("acme")
	partner.PrincipalType = "Partner"
	s.must(400, "POST", "/v1/issuers", partner)
	partner.GroupType = "PartnerRole"
	ps[1].register(s, partner)
	wantDecision(t, s.authorize(ps[1].token("acme", "eve", "admin"), anyQuestion), "DENY")
	wantDecision(t, s.authorize(ps[0].token("acme", "alice", "admin"), anyQuestion), "ALLOW")
}

// A key made for a name without a tenant would open whatever tenant comes under it.
func TestKeyNeedsItsTenant(t *testing.T) {
	s := start(t)
	for _, scope := range []api.KeyScope{{Tenant: "acme"}, {PolicyStoreID: "acme"}} {
		s.must(404, "POST", "/v1/keys", api.CreateKeyRequest{Scope: scope, Verbs: []string{"read"}})
	}
	one := s.onboard("acme", permitAll)
	keys := []string{s.key(api.KeyScope{Tenant: "acme"}, "read"), s.key(api.KeyScope{PolicyStoreID: one.PolicyStoreID}, "read")}
	for _, key := range keys {
		wantStatus(t, s.as(key, "GET", "/v1/policy-stores/"+one.PolicyStoreID, nil), 200)
	}
	s.must(204, "DELETE", "/v1/tenants/acme", nil)
	s.must(404, "POST", "/v1/keys", api.CreateKeyRequest{Scope: api.KeyScope{PolicyStoreID: one.PolicyStoreID}, Verbs: []string{"read"}})
	two := s.onboard("acme", permitAll)
	for _, key := range keys {
		wantStatus(t, s.as(key, "GET", "/v1/policy-stores/"+two.PolicyStoreID, nil), 401)
	}
}
