package server_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/policystore"
)

var (
	sampleLine = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[^}]*\})? `)
	labelPair  = regexp.MustCompile(`([a-zA-Z_]+)="((?:[^"\\]|\\.)*)"`)
)

// family is a metric as /metrics shows it.
type family struct {
	kind, help string
	labels     map[string]map[string]bool // values by name
}

// scrape reads /metrics as text, as Prometheus does.
func (s *site) scrape() map[string]*family {
	s.t.Helper()
	text := newCaller(s.t, s.ops, "").call("GET", "/metrics", nil).body
	families := map[string]*family{}
	var last string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "# HELP "); ok {
			name, help, _ := strings.Cut(rest, " ")
			families[name], last = &family{help: help, labels: map[string]map[string]bool{}}, name
			continue
		}
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			_, families[last].kind, _ = strings.Cut(rest, " ")
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil || !strings.HasPrefix(m[1], last) {
			s.t.Fatalf("can't read %q", line)
		}
		for _, pair := range labelPair.FindAllStringSubmatch(m[2], -1) {
			values := families[last].labels
			if values[pair[1]] == nil {
				values[pair[1]] = map[string]bool{}
			}
			values[pair[1]][pair[2]] = true
		}
	}
	return families
}

// busy makes every kind of thing happen whose name could end up in a label, and returns those names.
func busy(t *testing.T, s *chainSite) []string {
	t.Helper()
	const tenant, user, role, action, thing = "tenant-mk41", "user-mk42", "role-mk43", "action-mk44", "thing-mk45"
	made := s.onboard(tenant, map[string]string{"policy-mk46": `permit (principal, action == Action::"` + action + `", resource);`,
		"broken-mk47": `forbid (principal, action, resource) when { resource.attribute_mk48 };`})
	p := newIDP(t)
	p.register(s.site, p.registration(tenant))
	token := p.token(tenant, user, role)
	ask := `{"action":{"type":"Action","id":"` + action + `"},"resource":{"type":"Kind_mk49","id":"` + thing + `"}}`
	for range 3 {
		wantDecision(t, s.authorize(token, ask), "ALLOW")
	}
	wantStatus(t, s.authorize(token, "{"), 400)
	wantStatus(t, s.authorize("not-a-token", ask), 401)
	wantStatus(t, s.authorize(p.token("other-mk50", user), ask), 403)
	wantStatus(t, s.call("GET", "/path-mk51", nil), 404)
	wantStatus(t, s.as("copse_AKIAMK52MK52MK52MK52_secret", "GET", "/v1/tenants", nil), 401)
	single := `{"policyStoreId":"` + made.PolicyStoreID + `","principal":{"entityType":"User","entityId":"` + user + `"},"action":{"actionType":"Action","actionId":"` + action + `"},"resource":{"entityType":"Kind_mk49","entityId":"` + thing + `"}}`
	wantStatus(t, s.amazon(s.root, "IsAuthorized", single), 200)
	wantStatus(t, s.amazon(s.root, "IsAuthorized", strings.Replace(single, made.PolicyStoreID, "absent-mk53", 1)), 400)
	wantStatus(t, s.amazon(s.root, "Operation-mk54", single), 400)
	slow := decodePlan(s, policystore.PlanUnmetered)
	slow.Quotas.DecisionsPerSecond, slow.Quotas.Templates = 1, 0
	s.must(200, "PUT", "/v1/plans/plan-mk55", map[string]any{"quotas": slow.Quotas})
	s.must(200, "PATCH", "/v1/policy-stores/"+made.PolicyStoreID, map[string]any{"plan": "plan-mk55"})
	for range 50 {
		if s.authorize(token, ask).status == 429 {
			break
		}
	}
	wantStatus(t, s.amazon(s.root, "CreatePolicyTemplate", `{"policyStoreId":"`+made.PolicyStoreID+`","statement":"permit (principal == ?principal, action, resource is Kind_mk49);"}`), 400)
	return []string{"mk4", "mk5", "MK52", made.PolicyStoreID, p.URL, "acme", "globex"}
}

// Law 3: equal ids never meet in a metric, because none has an id of anything.
func TestLaw3MetricsNameNobody(t *testing.T) {
	s := newChainSite(t)
	names := busy(t, s)
	for series, least := range map[string]int{
		`copse_rate_refusals_total{rate="decisions"}`:             1,
		`copse_quota_refusals_total{resource="POLICY_TEMPLATE"}`:  1,
		`copse_avp_decisions_total{decision="ALLOW",path="avp"}`:  1,
		`copse_decision_seconds_count{path="authorize"}`:          6,
		`copse_decision_seconds_count{path="avp"}`:                2,
		`copse_storage_seconds_count{call="commit"}`:              3,
		`copse_storage_seconds_count{call="load"}`:                1,
		`copse_storage_groups_total`:                              3,
		`copse_forbid_errors_total`:                               3,
		`copse_authorize_total{result="refused"}`:                 1,
		`copse_token_cache_entries`:                               1,
		`copse_http_connections`:                                  1,
		`copse_access_key_cache_entries`:                          0,
		`copse_access_failures_total{reason="InvalidCredential"}`: 0,
	} {
		if got := s.count(series); got < least {
			t.Errorf("%s is %d, want at least %d: the test made less happen than it means to", series, got, least)
		}
	}
	// A label has one of a few values that are written in the source.
	allowed := map[string]bool{"call": true, "code": true, "decision": true, "exception": true, "kind": true, "operation": true, "path": true,
		"rate": true, "reason": true, "resource": true, "result": true, "version": true, "go_version": true, "le": true, "quantile": true, "cause": true}
	checked := 0
	for name, f := range s.scrape() {
		for label, values := range f.labels {
			if !allowed[label] {
				t.Errorf("%s has a label %s that this test does not know: can its values name a tenant, policy store, issuer, key or user?", name, label)
			}
			for value := range values {
				checked++
				for _, id := range names {
					if strings.Contains(strings.ToLower(value), strings.ToLower(id)) {
						t.Errorf("%s{%s=%q} names what belongs to somebody", name, label, value)
					}
				}
			}
		}
	}
	if checked < 100 {
		t.Errorf("only %d label values were looked at", checked)
	}
}

var tableRow = regexp.MustCompile("(?m)^\\| `(copse_[a-z0-9_]+)` \\| (counter|gauge|histogram) \\|([^|]*)\\|")

// The page lists what there is, with type and labels, and nothing else; names follow Prometheus' conventions.
func TestMetricsPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	described := map[string]string{}
	for _, m := range tableRow.FindAllStringSubmatch(string(page), -1) {
		if _, twice := described[m[1]]; twice {
			t.Errorf("docs/metrics.md lists %s twice", m[1])
		}
		described[m[1]] = m[2] + " " + strings.NewReplacer("`", "", " ", "").Replace(m[3])
	}
	s := newChainSite(t)
	busy(t, s)
	families := s.scrape()
	withTLS, _, _ := secure(t)
	for name, f := range withTLS.scrape() {
		if strings.HasPrefix(name, "copse_tls_") {
			families[name] = f
		}
	}
	found := 0
	for name, f := range families {
		if !strings.HasPrefix(name, "copse_") {
			continue
		}
		found++
		labels := slices.Sorted(maps.Keys(f.labels))
		labels = slices.DeleteFunc(labels, func(l string) bool { return l == "le" })
		if got := f.kind + " " + strings.Join(labels, ","); described[name] != got {
			t.Errorf("%s is %q, docs/metrics.md says %q (%s)", name, got, described[name], f.help)
		}
		if f.kind == "counter" != strings.HasSuffix(name, "_total") {
			t.Errorf("%s is a %s: counters, and only they, end in _total", name, f.kind)
		}
		if f.kind == "histogram" && !strings.HasSuffix(name, "_seconds") {
			t.Errorf("%s does not say its unit", name)
		}
		delete(described, name)
	}
	for name := range described {
		t.Errorf("docs/metrics.md lists %s, which there is not", name)
	}
	if found < 30 {
		t.Errorf("only %d metrics", found)
	}
}

func decodePlan(s *chainSite, name string) api.Plan {
	s.t.Helper()
	return decode[api.Plan](s.t, s.must(200, "GET", "/v1/plans/"+name, nil))
}
