package remote

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
)

// PDPOptions say which copse server decides, and with which key it is asked.
type PDPOptions struct {
	// URL of the server: https, or http to a loopback address. AllowHTTP admits http elsewhere, where
	// whoever is in between can answer ALLOW.
	URL       string
	AllowHTTP bool
	// Key is an access key as `copse key create` prints it, copse_<id>_<secret>. The verb decide is
	// enough; its scope bounds which tenants there are.
	Key string
	// Bearer sends the key itself. Without it requests are signed with SigV4, and the secret stays here;
	// a proxy that changes the Host header breaks that.
	Bearer bool
	// Timeout of one attempt; 0 = 2 seconds. A call ends with its context as well.
	Timeout time.Duration
	// RereadAfter is how old directory and issuers may be before they are read again; 0 = 5 seconds, which
	// is also the most.
	RereadAfter time.Duration
	// TLS is how the server proves who it is. Nil: by the system's certificate authorities.
	TLS *tls.Config
	// Metrics gets copse_remote_*. Nil: none.
	Metrics prometheus.Registerer
}

// PDP decides by asking a copse server, and knows of its directory and issuers what its key covers. It is
// safe for concurrent use. Like *embedded.PDP it is what package pep asks.
//
// Decisions are never remembered. The directory is read again when it is 5 seconds old; when that fails it
// is used until it is 30 seconds old, and then nothing is decided.
type PDP struct {
	options       PDPOptions
	base          string
	keyID, secret string
	http          *http.Client
	signer        *v4.Signer
	metrics       *metrics
	breaker       breaker

	issuers *fresh[map[string]copse.Issuer]
	mu      sync.Mutex
	tenants map[copse.TenantID]*fresh[place]
	// owners leads from a policy store that a tenant was found to have back to the tenant.
	owners map[copse.PolicyStoreID]copse.TenantID
}

var (
	_ copse.Decider   = (*PDP)(nil)
	_ copse.Directory = (*PDP)(nil)
)

// NewPDP makes a PDP. Nothing is sent before the first question. Invalid for options that can't be;
// then there is no PDP.
func NewPDP(o PDPOptions) (*PDP, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return nil, copse.Errorf(copse.Invalid, "remote: URL must be a server's, such as https://copse.example.com")
	}
	// Over http whoever is in between reads the key, or with signatures at least forges answers.
	if u.Scheme != "https" && (u.Scheme != "http" || !o.AllowHTTP && !isLoopback(u.Hostname())) {
		return nil, copse.Errorf(copse.Invalid, "remote: URL must be https; http is for loopback addresses, or with AllowHTTP")
	}
	// The id has no underscore; the secret is all that follows.
	rest, isKey := strings.CutPrefix(o.Key, "copse_")
	id, secret, whole := strings.Cut(rest, "_")
	if !isKey || !whole || id == "" || secret == "" {
		return nil, copse.Errorf(copse.Invalid, "remote: Key must be an access key, copse_<id>_<secret>")
	}
	if o.Timeout < 0 || o.RereadAfter < 0 || o.RereadAfter > maxReread {
		return nil, copse.Errorf(copse.Invalid, "remote: Timeout must not be negative, RereadAfter must be from 0 to %v", maxReread)
	}
	if o.RereadAfter == 0 {
		o.RereadAfter = maxReread
	}
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Second
	}
	p := &PDP{
		options: o, base: u.Scheme + "://" + u.Host, keyID: id, secret: secret,
		signer: v4.NewSigner(), breaker: breaker{retries: maxRetries},
		issuers: newFresh[map[string]copse.Issuer](o.RereadAfter),
		tenants: map[copse.TenantID]*fresh[place]{}, owners: map[copse.PolicyStoreID]copse.TenantID{},
	}
	p.http = newHTTPClient(&p.options)
	if p.metrics, err = newMetrics(o.Metrics); err != nil {
		return nil, err
	}
	return p, nil
}

// isLoopback also takes the name that systems give to it. Other names are not looked up: what they lead
// to can change.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Close gives back the connections. It may be used after that: connections are made again.
func (p *PDP) Close() error {
	p.http.CloseIdleConnections()
	return nil
}

// maxTenants bounds memory, and not what may be asked for.
const maxTenants = 100_000

// Lookup finds a tenant's policy store. The caller must refuse a tenant that is not active. NotFound
// for a tenant that the key does not cover, as for one that never was. The entry may be as old as
// RereadAfter, or 30 seconds while the server can't be read.
func (p *PDP) Lookup(ctx context.Context, tenant copse.TenantID) (copse.DirectoryEntry, error) {
	found, err := p.place(ctx, tenant)
	if err != nil {
		return copse.DirectoryEntry{}, err
	}
	return found.entry, nil
}

// place finds a tenant's policy store in what is remembered for a while. When there are too many, all are forgotten rather than
// some chosen: reading them again is cheap, and nobody can push out one other tenant's alone.
func (p *PDP) place(ctx context.Context, tenant copse.TenantID) (place, error) {
	// What can't be a tenant's id is not asked for: it would be an entry for anything a token may say.
	if err := tenant.Validate(); err != nil {
		return place{}, &copse.Error{Kind: copse.NotFound, Resource: copse.ResourceTenant, Detail: err.Error(), Err: err}
	}
	// The lock is held for the maps alone, never while the server is asked; the cell sees to it that
	// one caller reads.
	p.mu.Lock()
	cell := p.tenants[tenant]
	if cell == nil {
		if len(p.tenants) >= maxTenants {
			clear(p.tenants)
			clear(p.owners)
		}
		cell = newFresh[place](p.options.RereadAfter)
		p.tenants[tenant] = cell
	}
	p.mu.Unlock()
	// A policy store leads back to its tenant once it was read: see IdentitySource.
	return cell.get(ctx, func(ctx context.Context) (place, error) {
		found, err := p.readPlace(ctx, tenant)
		if err == nil {
			p.mu.Lock()
			p.owners[found.entry.PolicyStoreID] = tenant
			p.mu.Unlock()
		}
		return found, err
	})
}

// IdentitySource is the one by which a policy store reads users' tokens; nil when it has none. The
// policy store is one that Lookup has found. The answer is shared and must not be changed. NotFound
// when the tenant has another policy store by now.
func (p *PDP) IdentitySource(ctx context.Context, id copse.PolicyStoreID, incarnation copse.Incarnation) (*copse.IdentitySource, error) {
	p.mu.Lock()
	tenant, known := p.owners[id]
	p.mu.Unlock()
	// Which tenant it is of can't be asked by the policy store's id.
	if !known {
		return nil, copse.Errorf(copse.Unavailable, "policy store %q was not looked up before", id)
	}
	found, err := p.place(ctx, tenant)
	switch {
	case err != nil:
		return nil, err
	case found.entry.PolicyStoreID != id || found.entry.Incarnation != incarnation:
		return nil, copse.NotFoundError(copse.ResourcePolicyStore, string(id))
	}
	return found.source, nil
}

// Issuer finds the registration of a trusted issuer by its URL, byte for byte. The answer is shared and
// must not be changed. NotFound means that the server lists no such issuer for this key.
func (p *PDP) Issuer(ctx context.Context, url string) (copse.Issuer, error) {
	all, err := p.issuers.get(ctx, p.readIssuers)
	if err != nil {
		if copse.KindOf(err) == copse.NotFound { // the listing itself: no word on this issuer
			err = copse.Errorf(copse.Unavailable, "the copse server lists no issuers: %w", err)
		}
		return copse.Issuer{}, err
	}
	found, ok := all[url]
	if !ok {
		return copse.Issuer{}, copse.NotFoundError(copse.ResourceIssuer, "")
	}
	return found, nil
}
