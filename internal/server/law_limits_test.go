package server_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/copse-authz/copse/internal/api"
)

// padded is a policy of exactly this many bytes. Names that differ make texts that differ.
func padded(name string, size int) api.PolicyText {
	statement := `permit (principal == User::"` + name + `", action, resource);//`
	return api.PolicyText{Name: name, Statement: statement + strings.Repeat("x", size-len(statement))}
}

// What one tenant may store is bounded, and what is over a bound is refused whole.
func TestLaw7LimitsAtWrite(t *testing.T) {
	s, p := start(t), newIDP(t)
	p.register(s, p.registration())
	tenant := s.onboard("acme", map[string]string{"view": aliceViews})
	s.onboard("neighbour", map[string]string{"view": aliceViews})
	store := "/v1/policy-stores/" + tenant.PolicyStoreID
	put := func(policies ...api.PolicyText) reply {
		return s.as(s.root, "PUT", store+"/contents", api.PutContentsRequest{Policies: policies}, "If-Match", "*")
	}
	policies := func(n, size int) (out []api.PolicyText) {
		for i := range n {
			out = append(out, padded(fmt.Sprintf("policy-%d", i), size))
		}
		return out
	}
	// No resource is named: together at most 200,000 bytes.
	fits, over := policies(20, 10_000), policies(21, 9_600)
	unchanged := func(f func() reply, statuses ...int) {
		t.Helper()
		before := s.contents(tenant.PolicyStoreID)
		r := f()
		if after := s.contents(tenant.PolicyStoreID); after.Revision != before.Revision || len(after.Policies) != len(before.Policies) {
			t.Errorf("revision %d became %d", before.Revision, after.Revision)
		}
		for _, status := range statuses {
			if r.status == status {
				return
			}
		}
		t.Errorf("got %v, want %v", r, statuses)
	}
	unchanged(func() reply { return put(padded("one", 10_001)) }, 400, 422)
	unchanged(func() reply { return put(over...) }, 422)
	unchanged(func() reply {
		schema := "entity User; //" + strings.Repeat("x", 100_000)
		return s.as(s.root, "PUT", store+"/schema", api.SchemaText{Cedar: schema})
	}, 400, 422)
	wantStatus(t, put(fits...), 200)
	// One by one it is the same bound.
	create := func(size int) reply {
		return s.amazon(s.root, "CreatePolicy", map[string]any{"policyStoreId": tenant.PolicyStoreID,
			"definition": map[string]any{"static": map[string]string{"statement": padded("loose", size).Statement}}})
	}
	unchanged(func() reply { return create(100) }, 400)
	if r := create(100); !strings.Contains(r.body, "ServiceQuotaExceededException") {
		t.Errorf("over the bound by one policy: %v", r)
	}
	wantStatus(t, put(fits[1:]...), 200)
	wantStatus(t, create(100), 200)
	wantDecision(t, s.authorize(p.token("neighbour", "alice"), viewDoc), "ALLOW")
}

// What one request may cost is bounded before anything is evaluated.
func TestLaw7LimitsAtRequest(t *testing.T) {
	s, p := start(t), newIDP(t)
	p.register(s, p.registration())
	s.onboard("acme", map[string]string{"view": aliceViews})
	alice := p.token("acme", "alice")
	ask := func(action, resource int, rest string) reply {
		return s.authorize(alice, fmt.Sprintf(`{"action":{"id":%q},"resource":{"type":"Doc","id":%q}%s}`,
			strings.Repeat("a", action), strings.Repeat("r", resource), rest))
	}
	parents := func(n int) string {
		var out []string
		for i := range n {
			out = append(out, fmt.Sprintf(`{"entityType":"Folder","entityId":"%d"}`, i))
		}
		return `,"entities":{"entityList":[{"identifier":{"entityType":"Doc","entityId":"1"},"parents":[` + strings.Join(out, ",") + `]}]}`
	}
	sized := func(n int) string {
		const start, end = `,"context":{"contextMap":{"a":{"string":"`, `"}}}`
		whole := len(`{"action":{"id":"a"},"resource":{"type":"Doc","id":"r"}}`) + len(start) + len(end)
		return start + strings.Repeat("x", n-whole) + end
	}
	for name, c := range map[string]struct {
		r      reply
		status int
	}{
		"action id at the limit":      {ask(512, 1, ""), 200},
		"action id over it":           {ask(513, 1, ""), 400},
		"resource id at the limit":    {ask(1, 612, ""), 200},
		"resource id over it":         {ask(1, 613, ""), 400},
		"100 parents":                 {ask(1, 1, parents(100)), 200},
		"101 parents":                 {ask(1, 1, parents(101)), 400},
		"a body at the limit":         {ask(1, 1, sized(1_000_000)), 200},
		"a body one byte over it":     {ask(1, 1, sized(1_000_001)), 413},
		"values 64 deep are too many": {ask(1, 1, `,"context":{"contextMap":{"a":`+strings.Repeat(`{"set":[`, 70)+strings.Repeat(`]}`, 70)+`}}`), 400},
	} {
		if c.r.status != c.status {
			t.Errorf("%s: got %.300s, want %d", name, c.r, c.status)
		}
	}
}

// An expensive policy store and request are DENY at once, for the answer would come too late; the same
// policies over a small request still decide. Meanwhile the neighbour is served.
func TestLaw11OverBudgetIsDeny(t *testing.T) {
	s, p := start(t), newIDP(t)
	p.register(s, p.registration())
	policies := map[string]string{"view": aliceViews}
	clause := strings.Repeat(`context.a == context.b || `, 280)
	for i := range 18 { // together just within the 200,000 bytes
		policies[fmt.Sprint("costly-", i)] = `permit (principal == User::"alice", action, resource) when { ` + clause + `false };`
	}
	s.onboard("costly", policies)
	s.onboard("neighbour", map[string]string{"view": aliceViews})
	// Two sets of n elements that are the same but for their last ones, so that comparing walks all of both.
	with := func(n int) string {
		var elements strings.Builder
		for i := range n {
			fmt.Fprintf(&elements, `{"string":"%016d"},`, i)
		}
		return viewDoc[:len(viewDoc)-1] + `,"context":{"contextMap":{"a":{"set":[` + elements.String() + `{"string":"~~~~~~~~~~~~~~~a"}]},` +
			`"b":{"set":[` + elements.String() + `{"string":"~~~~~~~~~~~~~~~b"}]}}}}`
	}
	alice, bob := p.token("costly", "alice"), p.token("neighbour", "alice")
	if got := wantDecision(t, s.authorize(alice, with(1)), "ALLOW"); got.Reason != "permitted by policy" {
		t.Errorf("within the budget: %+v", got)
	}
	before := s.count("copse_over_budget_total")
	began := time.Now()
	var wg sync.WaitGroup
	const asked = 8
	for range asked {
		wg.Go(func() {
			r, err := s.try("POST", "/v1/authorize", with(5_000), "Authorization", "Bearer "+alice, "X-Copse-Key", s.root)
			for tries := 0; tries < 30 && err == nil && r.status == 429; tries++ { // it waited for its turn for too long
				r, err = s.try("POST", "/v1/authorize", with(5_000), "Authorization", "Bearer "+alice, "X-Copse-Key", s.root)
			}
			if err != nil || r.status != 200 || !strings.Contains(r.body, `"DENY"`) || !strings.Contains(r.body, `"reason":"budget exceeded"`) ||
				!strings.Contains(r.body, `"determiningPolicies":[]`) {
				t.Errorf("over the budget: %v %v", r, err)
			}
			if r, err := s.try("POST", "/v1/authorize", viewDoc, "Authorization", "Bearer "+bob); err != nil || !strings.Contains(r.body, "ALLOW") {
				t.Errorf("the neighbour: %v %v", r, err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("%d refusals took %v", asked, took)
	}
	if n := s.count("copse_over_budget_total") - before; n != asked {
		t.Errorf("%d were counted, want %d", n, asked)
	}
}
