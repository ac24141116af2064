package tenant

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// registerMetrics publishes how the two caches do. Nothing in it names a tenant or an issuer.
// Without a registerer nothing is counted.
func registerMetrics(r prometheus.Registerer, s *Service) error {
	if r == nil {
		return nil
	}
	for _, c := range slices.Concat(s.entries.Collectors("directory", "tenants", false), s.issuers.Collectors("issuer", "issuers", false)) {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}
