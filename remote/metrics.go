package remote

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are of one PDP; attempts are counted, and not calls.
type metrics struct {
	calls           *prometheus.CounterVec
	retries, opened prometheus.Counter
}

// newMetrics fails when a name is taken in the registry; nil: counted all the same, and
// shown to nobody.
func newMetrics(to prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "copse_remote_calls_total",
			Help: "Attempts to ask the copse server: ok, refused, failed (no answer), open (not sent, by the breaker), abandoned by the caller.",
		}, []string{"result"}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "copse_remote_retries_total", Help: "Second attempts.",
		}),
		opened: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "copse_remote_breaker_opened_total", Help: "How often the breaker opened, failed probes included.",
		}),
	}
	// All results are there from the start, so that none is missing before it first happens.
	for _, result := range []string{"ok", "refused", "failed", "open", "abandoned"} {
		m.calls.WithLabelValues(result)
	}
	if to == nil {
		return m, nil
	}
	return m, errors.Join(to.Register(m.calls), to.Register(m.retries), to.Register(m.opened))
}

// count takes one of the results that newMetrics has set up.
func (m *metrics) count(result string) { m.calls.WithLabelValues(result).Inc() }
