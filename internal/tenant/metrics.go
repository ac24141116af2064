package tenant

import "github.com/prometheus/client_golang/prometheus"

// registerMetrics publishes how the two caches do. Nothing in it names a tenant or an issuer.
func registerMetrics(r prometheus.Registerer, s *Service) error {
	if r == nil {
		return nil
	}
	type stats func() (hits, misses uint64, weight int64, entries int)
	for _, cache := range []struct {
		name, what string
		stats      stats
	}{
		{"directory", "tenants", s.entries.Stats},
		{"issuer", "issuers", s.issuers.Stats},
	} {
		for _, c := range []prometheus.Collector{
			prometheus.NewCounterFunc(prometheus.CounterOpts{
				Name: "copse_" + cache.name + "_cache_hits_total", Help: "Reads of " + cache.what + " answered from memory.",
			}, func() float64 { hits, _, _, _ := cache.stats(); return float64(hits) }),
			prometheus.NewCounterFunc(prometheus.CounterOpts{
				Name: "copse_" + cache.name + "_cache_misses_total", Help: "Reads of " + cache.what + " that went to storage.",
			}, func() float64 { _, misses, _, _ := cache.stats(); return float64(misses) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "copse_" + cache.name + "_cache_entries", Help: "What is kept of " + cache.what + " in memory.",
			}, func() float64 { _, _, _, entries := cache.stats(); return float64(entries) }),
		} {
			if err := r.Register(c); err != nil {
				return err
			}
		}
	}
	return nil
}
