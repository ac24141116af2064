package server

import (
	"crypto/x509"
	"os"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/token"
)

// IssuerEndpoint names another place for one issuer's keys than its discovery document does, for tests
// and private networks. Whoever answers there can sign as the issuer.
type IssuerEndpoint struct {
	// Issuer is the iss claim, byte for byte.
	Issuer string `yaml:"issuer"`
	// Keys is the https URL of the key set. It may have a private address: it is named here, by the
	// operator.
	Keys string `yaml:"keys"`
	// CA is a PEM file of the certificates that the URL's may chain to, and no others. Empty: those of
	// the system.
	CA string `yaml:"ca"`
}

// endpointsKey is set in the configuration file only: a list of lists is nothing for a flag.
const endpointsKey = "issuer_endpoints"

// loadEndpoints reads the list; an entry's unknown member is refused like an unknown setting.
func loadEndpoints(file string, list *yaml.Node) ([]IssuerEndpoint, error) {
	if list.Kind != yaml.SequenceNode {
		return nil, copse.Errorf(copse.Invalid, "%s:%d: %s is a list of entries with issuer, keys and ca", file, list.Line, endpointsKey)
	}
	known := []string{"issuer", "keys", "ca"}
	out := make([]IssuerEndpoint, len(list.Content))
	for i, entry := range list.Content {
		if entry.Kind != yaml.MappingNode {
			return nil, copse.Errorf(copse.Invalid, "%s:%d: %s: an entry has issuer, keys and ca", file, entry.Line, endpointsKey)
		}
		for m := 0; m+1 < len(entry.Content); m += 2 {
			if key := entry.Content[m]; !slices.Contains(known, key.Value) {
				return nil, copse.Errorf(copse.Invalid, "%s:%d: %s: there is no member %q; an entry has issuer, keys and ca", file, key.Line, endpointsKey, key.Value)
			}
		}
		if err := entry.Decode(&out[i]); err != nil {
			return nil, copse.Errorf(copse.Invalid, "%s:%d: %s: %w", file, entry.Line, endpointsKey, err)
		}
	}
	return out, nil
}

// fetchPolicy is where keys may come from, with the endpoints' trust anchors read.
// Everything is checked at the start: an endpoint that is no good would be noticed only when its keys are.
func (s *Server) fetchPolicy() (token.FetchPolicy, error) {
	p := token.FetchPolicy{
		AllowPrivate: s.cfg.AllowPrivateIssuers, AllowHTTP: s.cfg.AllowHTTPIssuers,
		Endpoints: make(map[string]token.Endpoint, len(s.cfg.IssuerEndpoints)),
	}
	for _, e := range s.cfg.IssuerEndpoints {
		if e.Issuer == "" {
			return p, copse.Errorf(copse.Invalid, "%s: an entry has no issuer", endpointsKey)
		}
		// Only one of the two could count, and the other may be the one that was meant.
		if _, twice := p.Endpoints[e.Issuer]; twice {
			return p, copse.Errorf(copse.Invalid, "%s: %s is there twice", endpointsKey, e.Issuer)
		}
		endpoint := token.Endpoint{KeysURL: e.Keys}
		if err := p.CheckEndpoint(endpoint); err != nil {
			return p, copse.Errorf(copse.Invalid, "%s: %s: keys: %w", endpointsKey, e.Issuer, err)
		}
		// A private CA is trusted for this endpoint, and for nothing else.
		if e.CA != "" {
			pem, err := os.ReadFile(e.CA)
			if err != nil {
				return p, copse.Errorf(copse.Invalid, "%s: %s: ca: %w", endpointsKey, e.Issuer, err)
			}
			endpoint.Roots = x509.NewCertPool()
			if !endpoint.Roots.AppendCertsFromPEM(pem) {
				return p, copse.Errorf(copse.Invalid, "%s: %s: ca: %s holds no certificate in PEM form", endpointsKey, e.Issuer, e.CA)
			}
		}
		p.Endpoints[e.Issuer] = endpoint
		// At each start, for whoever reads the log and not the configuration.
		s.log.Warn("the keys of an issuer come from an endpoint of the configuration; whoever answers there can sign as the issuer",
			"issuer", e.Issuer, "keys", e.Keys)
	}
	return p, nil
}
