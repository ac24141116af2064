package server_test

import (
	"testing"
	"time"
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
