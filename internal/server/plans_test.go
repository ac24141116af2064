package server_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/copse-authz/copse/internal/api"
)

// A plan that an operator changes holds at once on every surface, without a restart, and each says in
// its own words that there is too much. The neighbour on another plan notices nothing (law 7).
func TestLaw7PlanHoldsOnEverySurface(t *testing.T) {
	s, p := start(t), newIDP(t)
	p.register(s, p.registration())
	acme := s.onboard("acme", map[string]string{"view": aliceViews}, docSchema)
	globex := s.onboard("globex", map[string]string{"view": aliceViews}, docSchema)
	quotas := decode[api.Plan](t, s.must(200, "GET", "/v1/plans/unmetered", nil)).Quotas
	s.must(200, "PUT", "/v1/plans/gold", api.PutPlanRequest{Quotas: quotas})
	s.must(200, "PATCH", "/v1/policy-stores/"+acme.PolicyStoreID, api.UpdatePolicyStoreRequest{Plan: new("gold")})

	surfaces := []struct {
		name   string
		status int
		words  string
		ask    func(tenant, id string) reply
	}{
		{"/v1/authorize", http.StatusTooManyRequests, `"kind":"Throttled"`, func(tenant, _ string) reply {
			return s.authorize(p.token(tenant, "alice"), viewDoc)
		}},
		{"IsAuthorized", http.StatusBadRequest, "ThrottlingException", func(_, id string) reply {
			return s.amazon(s.root, "IsAuthorized", `{"policyStoreId":"`+id+`","principal":{"entityType":"User","entityId":"alice"},`+
				`"action":{"actionType":"Action","actionId":"view"},"resource":{"entityType":"Doc","entityId":"1"}}`)
		}},
		{"PUT contents", http.StatusTooManyRequests, `"kind":"Throttled"`, func(_, id string) reply {
			return s.as(s.root, "PUT", "/v1/policy-stores/"+id+"/contents", `{"policies":[]}`, "If-Match", "*")
		}},
		{"PutSchema", http.StatusBadRequest, "ThrottlingException", func(_, id string) reply {
			return s.amazon(s.root, "PutSchema", `{"policyStoreId":"`+id+`","definition":{"cedarJson":"{\"\":{\"entityTypes\":{},\"actions\":{}}}"}}`)
		}},
	}
	const often = 30 // in a row; a second lets one through
	for _, x := range surfaces {
		for range often {
			if r := x.ask("acme", acme.PolicyStoreID); r.status != 200 {
				t.Fatalf("%s without rates: %v", x.name, r)
			}
		}
		quotas.DecisionsPerSecond, quotas.WritesPerSecond = 1, 1
		s.must(200, "PUT", "/v1/plans/gold", api.PutPlanRequest{Quotas: quotas})
		throttled := 0
		for range often {
			r := x.ask("acme", acme.PolicyStoreID)
			if r.status == 200 {
				continue
			}
			throttled++
			if r.status != x.status || r.header.Get("Retry-After") != "1" || !strings.Contains(r.body, x.words) {
				t.Errorf("%s: %v %v", x.name, r, r.header)
			}
			if n := x.ask("globex", globex.PolicyStoreID); n.status != 200 {
				t.Errorf("%s of the neighbour: %v", x.name, n)
			}
		}
		if throttled == 0 {
			t.Errorf("%s: %d calls in a row, and none too many", x.name, often)
		}
		quotas.DecisionsPerSecond, quotas.WritesPerSecond = 0, 0
		s.must(200, "PUT", "/v1/plans/gold", api.PutPlanRequest{Quotas: quotas})
	}
}
