package server_test

import (
	"crypto/ed25519"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/decisionlog"
	"github.com/copse-authz/copse/internal/server"
)

// decisionLog is what a server wrote, without a fault or a gap.
func (s *site) decisionLog(dir string) *decisionlog.Report {
	s.t.Helper()
	report := s.report(dir)
	if len(report.Problems) > 0 || report.Lost > 0 {
		s.t.Fatalf("the decision log: %+v", report)
	}
	return report
}

// report verifies the log as an auditor would.
func (s *site) report(dir string) *decisionlog.Report {
	s.t.Helper()
	keys := map[string]ed25519.PublicKey{}
	for _, k := range decode[api.DecisionKeyList](s.t, s.must(200, "GET", "/v1/decisions/keys", nil)).Keys {
		keys[k.ID] = ed25519.PublicKey(k.PublicKey)
	}
	report, err := decisionlog.Verify(filepath.Join(dir, "decisions"), keys, "")
	if err != nil {
		s.t.Fatal(err)
	}
	return report
}

// Every way to decide leaves its line, and a key sees the lines of what it covers.
func TestLaw3DecisionsAreLoggedApart(t *testing.T) {
	dir := t.TempDir()
	s, p := start(t, func(c *server.Config) { c.DataDir = dir }), newIDP(t)
	p.register(s, p.registration())
	acme, globex := s.onboard("acme", permitAll), s.onboard("globex", permitAll)
	wantDecision(t, s.authorize(p.token("acme", "alice"), anyQuestion), "ALLOW")
	wantDecision(t, s.authorize(p.token("globex", "alice"), anyQuestion), "ALLOW")
	wantStatus(t, s.authorize("no token", anyQuestion), 401) // was not decided
	asked := map[string]any{
		"principal": map[string]string{"entityType": "User", "entityId": "bob"}, "action": map[string]string{"actionType": "Action", "actionId": "view"},
		"resource": map[string]string{"entityType": "Doc", "entityId": "1"},
	}
	wantStatus(t, s.amazon(s.root, "BatchIsAuthorized", map[string]any{"policyStoreId": globex.PolicyStoreID, "requests": []any{asked, asked}}), 200)
	asked["policyStoreId"] = acme.PolicyStoreID
	wantStatus(t, s.amazon(s.root, "IsAuthorized", asked), 200)

	search := func(credential, query string) []api.LoggedDecision {
		t.Helper()
		r := s.as(credential, "GET", "/v1/decisions"+query, nil)
		wantStatus(t, r, 200)
		return decode[api.DecisionList](t, r).Decisions
	}
	var via []string
	for _, d := range search(s.root, "") {
		via = append(via, d.Tenant+" "+d.Via+" "+d.Principal+" "+d.Decision)
	}
	want := `acme authorize User::"alice" ALLOW, globex authorize User::"alice" ALLOW, ` +
		`globex BatchIsAuthorized User::"bob" ALLOW, globex BatchIsAuthorized User::"bob" ALLOW, acme IsAuthorized User::"bob" ALLOW`
	if got := strings.Join(via, ", "); got != want {
		t.Errorf("logged:\n%s\nwant:\n%s", got, want)
	}
	for _, scope := range []api.KeyScope{{Tenant: "acme"}, {PolicyStoreID: acme.PolicyStoreID}} {
		key := s.key(scope, "read")
		for query, want := range map[string]int{"": 2, "?tenant=acme": 2, "?tenant=globex": 0, "?policyStoreId=" + globex.PolicyStoreID: 0} {
			found := search(key, query)
			if len(found) != want {
				t.Errorf("a key of %+v finds %d with %q, want %d", scope, len(found), query, want)
			}
			for _, d := range found {
				if d.Tenant != "acme" {
					t.Errorf("a key of %+v sees %+v", scope, d)
				}
			}
		}
	}
	for _, scope := range []api.KeyScope{{All: true}, {Tenant: "acme"}, {PolicyStoreID: acme.PolicyStoreID}} {
		for _, verb := range []string{"write", "decide"} {
			if found := search(s.key(scope, verb), ""); len(found) != 0 {
				t.Errorf("a key of %+v with %s alone sees %d decisions", scope, verb, len(found))
			}
		}
	}
	if r := s.decisionLog(dir); r.Lines != 5 {
		t.Errorf("%+v", r)
	}
}

func TestLaw8DecisionsGoWithTheirTenant(t *testing.T) {
	dir := t.TempDir()
	s, p := start(t, func(c *server.Config) { c.DataDir = dir }), newIDP(t)
	p.register(s, p.registration())
	s.onboard("leaving", permitAll)
	s.onboard("staying", permitAll)
	for range 3 {
		wantDecision(t, s.authorize(p.token("leaving", "alice"), anyQuestion), "ALLOW")
		wantDecision(t, s.authorize(p.token("staying", "alice"), anyQuestion), "ALLOW")
	}
	if found := decode[api.DecisionList](t, s.must(200, "GET", "/v1/decisions", nil)).Decisions; len(found) != 6 {
		t.Fatalf("%d decisions logged, want 6", len(found))
	}
	s.must(204, "DELETE", "/v1/tenants/leaving", nil)
	found := decode[api.DecisionList](t, s.must(200, "GET", "/v1/decisions", nil)).Decisions
	if len(found) != 3 {
		t.Errorf("%d decisions left, want 3", len(found))
	}
	for _, d := range found {
		if d.Tenant != "staying" {
			t.Errorf("left: %+v", d)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); s.count("copse_erasures_under_way") > 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
	}
	if r := s.decisionLog(dir); r.Erased != 3 {
		t.Errorf("%+v", r)
	}
}
