package server_test

import (
	"testing"

	"github.com/copse-authz/copse/internal/api"
)

func TestUsage(t *testing.T) {
	s, p := start(t), newIDP(t)
	p.register(s, p.registration())
	s.must(200, "PUT", "/v1/plans/slow", api.PutPlanRequest{Quotas: func() api.Quotas {
		q := decode[api.Plan](t, s.must(200, "GET", "/v1/plans/unmetered", nil)).Quotas
		q.DecisionsPerSecond = 1
		return q
	}()})
	busy, calm := s.onboard("busy", map[string]string{"view": aliceViews}), s.onboard("calm", map[string]string{"view": aliceViews})
	s.must(200, "PATCH", "/v1/policy-stores/"+calm.PolicyStoreID, map[string]string{"plan": "slow"})
	for range 5 {
		wantDecision(t, s.authorize(p.token("busy", "alice"), viewDoc), "ALLOW")
	}
	refused := 0
	for range 4 {
		if s.authorize(p.token("calm", "alice"), viewDoc).status == 429 {
			refused++
		}
	}
	if refused == 0 {
		t.Fatal("nothing was refused: the test proves nothing")
	}
	usage := func(credential, query string) []api.Usage {
		t.Helper()
		r := s.as(credential, "GET", "/v1/usage"+query, nil)
		wantStatus(t, r, 200)
		out := decode[api.UsageList](t, r)
		if out.Minutes != 5 {
			t.Errorf("%d minutes", out.Minutes)
		}
		return out.PolicyStores
	}
	all := usage(s.root, "")
	if len(all) != 2 || all[0].Tenant != "busy" || all[0].PolicyStoreID != busy.PolicyStoreID || all[0].Decisions != 5 || all[0].Refusals != 0 || all[0].CompiledBytes < 500 ||
		all[1].Tenant != "calm" || all[1].Decisions != int64(4-refused) || all[1].Refusals != int64(refused) {
		t.Errorf("%+v, %d refused", all, refused)
	}
	if top := usage(s.root, "?by=refusals&top=1"); len(top) != 1 || top[0].Tenant != "calm" {
		t.Errorf("most refusals: %+v", top)
	}
	for name, scope := range map[string]api.KeyScope{"tenant": {Tenant: "calm"}, "policy store": {PolicyStoreID: calm.PolicyStoreID}} {
		if own := usage(s.key(scope, "read"), ""); len(own) != 1 || own[0].Tenant != "calm" {
			t.Errorf("a key of a %s sees %+v", name, own)
		}
		if none := usage(s.key(scope, "decide"), ""); len(none) != 0 {
			t.Errorf("a key of a %s without read sees %+v", name, none)
		}
	}
	wantStatus(t, s.as(s.key(api.KeyScope{All: true}, "read"), "GET", "/v1/usage", nil), 403)
	wantStatus(t, s.as(s.root, "GET", "/v1/usage?by=names", nil), 400)
	s.must(204, "DELETE", "/v1/tenants/busy", nil)
	if left := usage(s.root, ""); len(left) != 1 || left[0].Tenant != "calm" {
		t.Errorf("after a deletion: %+v", left)
	}
}
