package policystore

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
)

// metrics count what is decided. None has a label that names a tenant or policy store: there may be a
// million, and who may read metrics may not read tenants. All values of the labels exist from the start, so
// that what never happened is 0 and not missing.
type metrics struct {
	decisions    [2]prometheus.Counter // by copse.Decision
	errors       []prometheus.Counter  // by copse.Kind
	evaluation   prometheus.Counter
	forbidErrors prometheus.Counter
	overBudget   prometheus.Counter
	rates        map[string]prometheus.Counter             // by what was too much
	quotas       map[copse.ResourceType]prometheus.Counter // by what there was too much of
}

// newMetrics makes the counters and registers them, and snapshots' collectors, unless r is nil. An error is
// that of a registration; what was registered before it stays registered.
func newMetrics(r prometheus.Registerer, snapshots []prometheus.Collector) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	decisions := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "copse_decisions_total", Help: "Decisions, by verdict.",
	}, []string{"decision"})
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "copse_decision_errors_total", Help: "Decision requests that got no verdict, by kind of error.",
	}, []string{"kind"})
	rates := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "copse_rate_refusals_total", Help: "Calls that came faster than the policy store's plan allows: decisions, writes, those of an operation with a rate of its own, or turns: decisions that take long.",
	}, []string{"rate"})
	quotas := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "copse_quota_refusals_total", Help: "Changes that would have gone beyond a size or count of the policy store's plan, by what there would be too much of.",
	}, []string{"resource"})
	m := &metrics{
		rates: map[string]prometheus.Counter{}, quotas: map[copse.ResourceType]prometheus.Counter{},
		evaluation:   counter("copse_evaluation_errors_total", "Policies that failed to evaluate and were skipped."),
		forbidErrors: counter("copse_forbid_errors_total", "Of these, policies that forbid: what they would have forbidden may have been allowed."),
		overBudget:   counter("copse_over_budget_total", "Decisions that were cut short by their budget, and denied."),
	}
	// Made here, so that deciding takes no look-up by label.
	for d := range m.decisions {
		m.decisions[d] = decisions.WithLabelValues(copse.Decision(d).String())
	}
	for _, k := range copse.Kinds() {
		m.errors = append(m.errors, failures.WithLabelValues(k.String()))
	}
	for _, rate := range []string{rateDecisions, rateWrites, rateOperation, rateTurns} {
		m.rates[rate] = rates.WithLabelValues(rate)
	}
	for _, resource := range quotaResources {
		m.quotas[resource] = quotas.WithLabelValues(string(resource))
	}
	// They count all the same, for nobody to read.
	if r == nil {
		return m, nil
	}
	all := []prometheus.Collector{decisions, failures, rates, quotas, m.evaluation, m.forbidErrors, m.overBudget}
	for _, c := range append(all, snapshots...) {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// What the rates are of.
const (
	rateDecisions = "decisions"
	rateWrites    = "writes"
	rateOperation = "operation"
	rateTurns     = "turns"
)

// quotaResources are what quotas are of. Any other is not counted: the values of a label are fixed.
var quotaResources = []copse.ResourceType{copse.ResourcePolicyStore, copse.ResourcePolicy, copse.ResourceTemplate, copse.ResourceSchema,
	copse.ResourceAlias, copse.ResourceIdentitySource, copse.ResourcePlan}

// refused counts err if a quota is the reason, and passes it on.
func (m *metrics) refused(err error) error {
	if e, ok := errors.AsType[*copse.Error](err); ok && e.Kind == copse.QuotaExceeded {
		if c, ok := m.quotas[e.Resource]; ok {
			c.Inc()
		}
	}
	return err
}

// failed leaves out what nobody waits for any more: clients that go away are no reason to wake somebody.
// It is for decisions alone, and counts what gave no verdict; a DENY is a verdict. err is not nil.
func (m *metrics) failed(err error) {
	if !errors.Is(err, context.Canceled) {
		m.errors[copse.KindOf(err)].Inc()
	}
}

// decided counts a verdict, and the policies that failed in it. Cedar skips a policy that fails, so of one that
// forbids that is the number to watch. e tells which policies forbid, at the revision that decided.
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
