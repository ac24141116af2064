package policystore

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
)

// metrics count what is decided. None has a label that names a tenant or policy store: there may be a
// million, and who may read metrics may not read tenants.
type metrics struct {
	decisions    [2]prometheus.Counter // by copse.Decision
	errors       []prometheus.Counter  // by copse.Kind
	evaluation   prometheus.Counter
	forbidErrors prometheus.Counter
	overBudget   prometheus.Counter
}

func newMetrics(r prometheus.Registerer, cache func() (hits, misses uint64, weight int64, entries int)) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	decisions := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "copse_decisions_total", Help: "Decisions, by verdict.",
	}, []string{"decision"})
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "copse_decision_errors_total", Help: "Decision requests that got no verdict, by kind of error.",
	}, []string{"kind"})
	m := &metrics{
		evaluation:   counter("copse_evaluation_errors_total", "Policies that failed to evaluate and were skipped."),
		forbidErrors: counter("copse_forbid_errors_total", "Of these, policies that forbid: what they would have forbidden may have been allowed."),
		overBudget:   counter("copse_over_budget_total", "Decisions that were cut short by their budget, and denied."),
	}
	for d := range m.decisions {
		m.decisions[d] = decisions.WithLabelValues(copse.Decision(d).String())
	}
	for _, k := range copse.Kinds() {
		m.errors = append(m.errors, failures.WithLabelValues(k.String()))
	}
	if r == nil {
		return m, nil
	}
	all := []prometheus.Collector{decisions, failures, m.evaluation, m.forbidErrors, m.overBudget}
	for _, c := range append(all, cacheMetrics(cache)...) {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func cacheMetrics(stats func() (hits, misses uint64, weight int64, entries int)) []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "copse_snapshot_cache_hits_total", Help: "Decisions whose policy store was compiled already.",
		}, func() float64 { hits, _, _, _ := stats(); return float64(hits) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "copse_snapshot_cache_misses_total", Help: "Decisions that waited for their policy store to be loaded.",
		}, func() float64 { _, misses, _, _ := stats(); return float64(misses) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "copse_snapshot_cache_bytes", Help: "Weight of the policy stores kept compiled.",
		}, func() float64 { _, _, weight, _ := stats(); return float64(weight) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "copse_snapshot_cache_entries", Help: "Policy stores kept compiled.",
		}, func() float64 { _, _, _, entries := stats(); return float64(entries) }),
	}
}

func (m *metrics) failed(err error) { m.errors[copse.KindOf(err)].Inc() }

func (m *metrics) decided(e *compiled, out *copse.Response) {
	m.decisions[out.Decision].Inc()
	if out.OverBudget {
		m.overBudget.Inc()
	}
	if len(out.Errors) == 0 {
		return
	}
	m.evaluation.Add(float64(len(out.Errors)))
	for _, x := range out.Errors {
		if _, forbids := e.forbids[x.Policy.ID]; forbids {
			m.forbidErrors.Inc()
		}
	}
}
