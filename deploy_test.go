package copse_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// describedMetrics are those of docs/metrics.md, which a test of the server holds against a busy one.
func describedMetrics(t *testing.T) map[string]bool {
	t.Helper()
	page, err := os.ReadFile("docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(copse_[a-z0-9_]+)` \\| (counter|gauge|histogram)").FindAllStringSubmatch(string(page), -1) {
		names[row[1]] = true
		if row[2] == "histogram" {
			names[row[1]+"_bucket"], names[row[1]+"_count"], names[row[1]+"_sum"] = true, true, true
		}
	}
	return names
}

// A dashboard or an alert over a metric that was renamed stays silent for ever.
func TestDashboardAndAlertsUseMetricsThatExist(t *testing.T) {
	text, err := os.ReadFile("deploy/grafana/copse.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	var expressions []string
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			expressions = append(expressions, target.Expr)
		}
	}
	rules, err := os.ReadFile("deploy/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^ +expr: (.*)$`).FindAllStringSubmatch(string(rules), -1) {
		expressions = append(expressions, m[1])
	}
	known, used := describedMetrics(t), 0
	for _, expr := range expressions {
		for _, name := range regexp.MustCompile(`\bcopse_[a-z0-9_]+`).FindAllString(expr, -1) {
			used++
			if !known[name] {
				t.Errorf("%s: there is no metric %s", expr, name)
			}
		}
	}
	if len(expressions) < 20 || used < 25 {
		t.Errorf("%d expressions with %d metrics", len(expressions), used)
	}
	// Prometheus' own parser reads the dashboard's too, as recording rules.
	var all strings.Builder
	all.WriteString("groups:\n- name: dashboard\n  rules:\n")
	for _, expr := range expressions {
		quoted, err := json.Marshal(strings.ReplaceAll(expr, "$__rate_interval", "5m"))
		if err != nil {
			t.Fatal(err)
		}
		all.WriteString("  - {record: x, expr: " + string(quoted) + "}\n")
	}
	file := filepath.Join(t.TempDir(), "dashboard.yaml")
	if err := os.WriteFile(file, []byte(all.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, ".", "check", "rules", "--lint=none", file)
}

func TestAlertRules(t *testing.T) {
	promtool(t, "deploy/prometheus", "check", "rules", "alerts.yaml")
	promtool(t, "deploy/prometheus", "test", "rules", "alerts_test.yaml")
}

// promtool is Prometheus' own checker; scripts/deps installs it.
func promtool(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("promtool", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
