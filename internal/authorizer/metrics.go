package authorizer

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
)

// metrics are looked up once: a label lookup per decision would cost more than the counting. Counting
// takes no lock of ours.
type metrics struct {
	allow, deny prometheus.Counter
	byKind      [len(outcomes)]prometheus.Counter
	seconds     prometheus.Histogram
}

// newMetrics counts what comes to an endpoint, under copse_<name>_total and, as everything that
// decides, by path under copse_decision_seconds. reg may be nil, and then nobody reads them. A name
// that reg has already is a panic.
func newMetrics(reg prometheus.Registerer, name, what string) *metrics {
	total := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "copse_" + name + "_total",
		Help: what + " by result; refused is law 4: a tenant that is unknown, suspended or not the issuer's.",
	}, []string{"result"})
	m := &metrics{
		allow: total.WithLabelValues("allow"),
		deny:  total.WithLabelValues("deny"),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "copse_decision_seconds", Help: "Time from a decision request's headers to the written answer, by path.",
			ConstLabels: prometheus.Labels{"path": name},
			Buckets:     []float64{25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 500e-3, 1},
		}),
	}
	// Kinds that share a result share its counter.
	for kind, out := range outcomes {
		m.byKind[kind] = total.WithLabelValues(out.result)
	}
	if reg != nil {
		reg.MustRegister(total, m.seconds)
	}
	return m
}

// decided counts an answered decision, the time from the request's headers included.
func (m *metrics) decided(d copse.Decision, took time.Duration) {
	if d == copse.Allow {
		m.allow.Inc()
	} else {
		m.deny.Inc()
	}
	m.seconds.Observe(took.Seconds())
}

// failed counts what was not decided; its time is measured too, since a slow refusal is
// slow for its caller.
func (m *metrics) failed(kind copse.Kind, took time.Duration) {
	m.byKind[kind].Inc()
	m.seconds.Observe(took.Seconds())
}
