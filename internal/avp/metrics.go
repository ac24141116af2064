package avp

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
)

// deciding is what is counted of the four operations that decide. The counters are looked up once: a
// label lookup for each decision would cost more than the counting. Its maps don't change after
// [newDeciding], so counting takes no lock of ours.
type deciding struct {
	decisions *prometheus.CounterVec
	byPath    map[string]*pathMetrics // by operation; read only
}

// pathMetrics are one operation's counters.
type pathMetrics struct {
	decided [2]prometheus.Counter // by copse.Decision
	seconds prometheus.Histogram
}

// paths are the names under which the operations are counted, next to those of the authorizer.
var paths = map[string]string{
	"IsAuthorized": "avp", "BatchIsAuthorized": "avp_batch",
	"IsAuthorizedWithToken": "avp_token", "BatchIsAuthorizedWithToken": "avp_batch_token",
}

// newDeciding makes all label values up front, so that a path without
// decisions shows 0 and is not missing.
func newDeciding() deciding {
	m := deciding{byPath: make(map[string]*pathMetrics, len(paths)), decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "copse_avp_decisions_total",
		Help: "Decisions of IsAuthorized and its three relatives by path, each request of a batch counted.",
	}, []string{"path", "decision"})}
	for operation, path := range paths {
		p := &pathMetrics{seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			// The authorizer's family, which wants the same help.
			Name: "copse_decision_seconds", Help: "Time from a decision request's headers to the written answer, by path.",
			ConstLabels: prometheus.Labels{"path": path},
			Buckets:     []float64{25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 500e-3, 1},
		})}
		for d := range p.decided {
			p.decided[d] = m.decisions.WithLabelValues(path, copse.Decision(d).String())
		}
		m.byPath[operation] = p
	}
	return m
}

// register reports every collector that could not be registered.
func (m *deciding) register(r prometheus.Registerer) error {
	errs := []error{r.Register(m.decisions)}
	for _, p := range m.byPath {
		errs = append(errs, r.Register(p.seconds))
	}
	return errors.Join(errs...)
}

// decided counts an answered decision. operation must be one of [paths].
func (m *deciding) decided(operation string, d copse.Decision) {
	m.byPath[operation].decided[d].Inc()
}

// took is told of every call; those that decide nothing are not timed.
func (m *deciding) took(operation string, d time.Duration) {
	if p, ok := m.byPath[operation]; ok {
		p.seconds.Observe(d.Seconds())
	}
}
