package storage

import "github.com/prometheus/client_golang/prometheus"

// Collectors publish [Cache.Stats] as copse_<name>_cache_hits_total, _misses_total and _entries, and, of
// a cache that is weighed in bytes, _bytes. None has a label: keys name tenants. what says what is kept.
func (c *Cache[K, V]) Collectors(name, what string, inBytes bool) []prometheus.Collector {
	name = "copse_" + name + "_cache_"
	all := []prometheus.Collector{
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: name + "hits_total", Help: "Reads of " + what + " answered from memory.",
		}, func() float64 { hits, _, _, _ := c.Stats(); return float64(hits) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: name + "misses_total", Help: "Reads of " + what + " that waited for storage.",
		}, func() float64 { _, misses, _, _ := c.Stats(); return float64(misses) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: name + "entries", Help: "How many " + what + " are kept in memory.",
		}, func() float64 { _, _, _, entries := c.Stats(); return float64(entries) }),
	}
	if inBytes {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: name + "bytes", Help: "What the " + what + " kept in memory weigh.",
		}, func() float64 { _, _, weight, _ := c.Stats(); return float64(weight) }))
	}
	return all
}
