package server_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/copse-authz/copse/internal/api"
)

// What a tenant's key is told of the logs is the same, whatever others did meanwhile: no number counts them.
func TestLaw3PositionsTellNothingOfOthers(t *testing.T) {
	s, p := start(t), newIDP(t)
	p.register(s, p.registration())
	s.onboard("acme", permitAll)
	globex := s.onboard("globex", permitAll).PolicyStoreID
	wantDecision(t, s.authorize(p.token("acme", "alice"), anyQuestion), "ALLOW")
	key, all := s.key(api.KeyScope{Tenant: "acme"}, "read"), s.key(api.KeyScope{All: true}, "read")
	sealed := regexp.MustCompile(`"(next|before|earlier)":"[A-Za-z0-9_-]{40,}"`)
	told := func(key string) string {
		t.Helper()
		var b strings.Builder
		for _, path := range []string{"/v1/decisions", "/v1/audit", "/v1/audit?maxResults=1", "/v1/audit?after=0"} {
			r := s.as(key, "GET", path, nil)
			wantStatus(t, r, 200)
			fmt.Fprintf(&b, "%s %d %s\n", path, len(r.body), sealed.ReplaceAllString(r.body, `"$1":""`))
		}
		return b.String()
	}
	before, beforeAll := told(key), told(all)
	for range 120 { // the numbers get a digit more
		wantDecision(t, s.authorize(p.token("globex", "bob"), anyQuestion), "ALLOW")
		s.must(200, "PUT", "/v1/policy-stores/"+globex+"/contents", map[string]any{"policies": []any{map[string]string{"name": "p", "statement": permitAll["all"]}}}, "If-Match", "*")
	}
	if after := told(key); after != before {
		t.Errorf("a tenant's key is told\n%s\nand after others were at work\n%s", before, after)
	}
	if strings.Contains(before, `"line"`) || strings.Contains(before, `"number"`) || !strings.Contains(before, `"next":""`) {
		t.Errorf("a number, or no position, is in\n%s", before)
	}
	if after := told(all); after == beforeAll || !strings.Contains(after, `"line":`) {
		t.Errorf("a key of everything is told\n%s", after)
	}

	// They work, for the key that they were given to and for that list.
	next := decode[api.DecisionList](t, s.as(key, "GET", "/v1/decisions", nil)).Next
	wantDecision(t, s.authorize(p.token("acme", "carol"), anyQuestion), "ALLOW")
	if found := decode[api.DecisionList](t, s.as(key, "GET", "/v1/decisions?after="+next, nil)).Decisions; len(found) != 1 || !strings.Contains(found[0].Principal, "carol") {
		t.Errorf("after %s: %+v", next, found)
	}
	for name, r := range map[string]reply{
		"another key's":  s.as(s.key(api.KeyScope{Tenant: "acme"}, "read"), "GET", "/v1/decisions?after="+next, nil),
		"another list's": s.as(key, "GET", "/v1/audit?after="+next, nil),
		"a number":       s.as(key, "GET", "/v1/decisions?before=17", nil),
		"no number":      s.as(all, "GET", "/v1/decisions?after=x", nil),
	} {
		if r.status != 400 || !strings.Contains(r.body, "query.") {
			t.Errorf("%s: %v", name, r)
		}
	}
}
