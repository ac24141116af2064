package policystore_test

import (
	"context"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage/memory"
)

// gather sums the samples of each metric whose labels contain the text after the name.
func gather(t *testing.T, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	must(t, err)
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			out[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return out
}

func TestMetrics(t *testing.T) {
	ctx, r := context.Background(), prometheus.NewRegistry()
	s := newServiceFrom(t, policystore.Config{Backend: memory.New(), Metrics: r})
	allow := create(t, s, policystore.NewPolicyStore{Policies: named("p", permitAll, "broken", `forbid (principal, action, resource) when { resource.absent };`, "too", `permit (principal, action, resource) when { resource.absent };`)}).ID
	deny := create(t, s, policystore.NewPolicyStore{}).ID
	for range 3 {
		out := wantDecision(t, s, allow, copse.Allow, "p")
		if len(out.Errors) != 2 {
			t.Fatalf("%+v", out)
		}
	}
	wantDecision(t, s, deny, copse.Deny)
	_, err := s.Decider().Decide(ctx, view("absent"))
	wantKind(t, err, copse.NotFound)
	req := view(allow)
	req.Context = copse.Data{Format: copse.FormatCedarJSON, Bytes: []byte("{")}
	_, err = s.Decider().Decide(ctx, req)
	wantKind(t, err, copse.Invalid)
	got := gather(t, r)
	for name, want := range map[string]float64{
		"copse_decisions_total ALLOW":               3,
		"copse_decisions_total DENY":                1,
		"copse_decision_errors_total NotFound":      1,
		"copse_decision_errors_total Invalid":       1,
		"copse_evaluation_errors_total":             6,
		"copse_forbid_errors_total":                 3,
		"copse_over_budget_total":                   0,
		"copse_snapshot_cache_hits_total":           3,
		"copse_snapshot_cache_misses_total":         2,
		"copse_snapshot_cache_entries":              2,
		"copse_decision_errors_total Unavailable":   0,
		"copse_decision_errors_total QuotaExceeded": 0,
	} {
		if v, there := got[name]; !there || v != want {
			t.Errorf("%s is %v (%v), want %v", name, v, there, want)
		}
	}
	if got["copse_snapshot_cache_bytes"] <= 0 {
		t.Error("compiled policy stores weigh nothing")
	}
	for name := range got {
		if strings.Contains(name, string(allow)) {
			t.Errorf("%s names a policy store", name)
		}
	}
	if _, err := policystore.New(policystore.Config{Backend: memory.New(), Metrics: r}); err == nil {
		t.Error("the same metrics were registered twice")
	}
}

// Alerts go by errors: a client that goes away before it is decided is none, and storage that fails is.
func TestClientsThatGoAwayAreNoErrors(t *testing.T) {
	r, backend := prometheus.NewRegistry(), memory.New()
	first := newServiceFrom(t, policystore.Config{Backend: backend})
	id := create(t, first, policystore.NewPolicyStore{Policies: named("p", permitAll)}).ID
	cold := newServiceFrom(t, policystore.Config{Backend: backend, Metrics: r})
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := cold.Decider().Decide(gone, view(id))
	wantKind(t, err, copse.Unavailable)
	if n := gather(t, r)["copse_decision_errors_total Unavailable"]; n != 0 {
		t.Errorf("a client that went away is %v errors", n)
	}
	must(t, backend.Close())
	_, err = cold.Decider().Decide(context.Background(), view(id))
	wantKind(t, err, copse.Unavailable)
	if n := gather(t, r)["copse_decision_errors_total Unavailable"]; n != 1 {
		t.Errorf("storage that fails is %v errors", n)
	}
}
