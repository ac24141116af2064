package server

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/copse-authz/copse/internal/storage/sqlite"
)

// registerProcess publishes what is known before there is any service. docs/metrics.md lists every
// metric, and a test holds the two together. None has a label that names a tenant, a policy store, an
// issuer, a key or a user: there may be a million of them, and who may read metrics may not read tenants.
func registerProcess(reg prometheus.Registerer, version string) {
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "copse_build_info", Help: "Always 1; the labels say which copse this is."},
		[]string{"version", "go_version"})
	build.WithLabelValues(version, runtime.Version()).Set(1)
	reg.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

// registerGroups publishes how many changes share an fsync.
// They are read from the backend when somebody asks; counting costs a commit nothing more.
func registerGroups(reg prometheus.Registerer, b *sqlite.Backend) {
	reg.MustRegister(
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "copse_storage_groups_total", Help: "Transactions of the database: each is one fsync for all changes in it.",
		}, func() float64 { groups, _ := b.Groups(); return float64(groups) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "copse_storage_group_changes_total", Help: "Changes in these transactions; divided by their number, how many share an fsync.",
		}, func() float64 { _, changes := b.Groups(); return float64(changes) }))
}
