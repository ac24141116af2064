package token

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
)

// Config is what a Verifier is made of.
type Config struct {
	// Issuer finds a registration by URL; NotFound for an untrusted one. It is asked for every token,
	// remembered or not, so it should answer from memory.
	Issuer func(ctx context.Context, url string) (copse.Issuer, error)
	// Fetch limits where keys may come from.
	Fetch FetchPolicy
	// RootCAs that issuers' certificates must chain to; nil: the system's.
	RootCAs *x509.CertPool
	// Transport replaces the guarded transport, for tests of time. It is trusted with addresses.
	Transport http.RoundTripper
	Metrics   prometheus.Registerer
}

// Verified is a token that verified: whose it is and what it says. It is shared between callers and
// must not be changed.
type Verified struct {
	Issuer    string
	Tenant    copse.TenantID // the issuer may speak for it; empty where none is asked for
	TokenType copse.TokenType
	Principal types.EntityUID
	// Subject and ClientID are who and through what, in the provider's words: sub, and client_id, azp or
	// the one audience of an ID token. Empty where the token does not say.
	Subject, ClientID string
	// Entities: the principal with its attributes and groups; Context: {"token": {...}} for an access
	// token. Both Cedar JSON.
	Entities, Context copse.Data
	// ReservedTypes are the entity types a caller may not define.
	ReservedTypes []types.EntityType
	Expires       time.Time
	// IssuedAt is the iat claim, zero for a token that does not say. It is the issuer's clock, and
	// mostly whole seconds rounded down.
	IssuedAt time.Time

	attributes []byte // of the principal, Cedar JSON
	groups     []types.EntityUID
}

// Verifier verifies tokens and remembers the verified ones for at most a minute.
type Verifier struct {
	issuer     func(ctx context.Context, url string) (copse.Issuer, error)
	fetcher    *fetcher
	metrics    *metrics
	work       *workers
	remembered remembered

	mu      sync.Mutex
	sources map[string]*keySource // by issuer URL
}

// maxSources bounds the issuers whose keys are held at one time; the others are fetched again.
const maxSources = 16_384

// New makes a Verifier.
// Nothing is fetched before a token needs it.
func New(cfg Config) (*Verifier, error) {
	v := &Verifier{
		issuer: cfg.Issuer, fetcher: newFetcher(cfg), work: newWorkers(),
		sources: make(map[string]*keySource),
	}
	var err error
	if v.metrics, err = newMetrics(cfg.Metrics, &v.remembered); err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	v.work.start(v.remembered.sweepUntil, func() {})
	return v, nil
}

// Close stops refreshing key sets and forgetting tokens, and waits until both have. Tokens that need keys afterwards are Unavailable.
func (v *Verifier) Close() error {
	v.work.close()
	v.fetcher.close()
	return nil
}

// Verify checks a token. Unauthenticated: it does not verify (or nobody registered its issuer).
// Denied: it verifies, but names no tenant, several, or one its issuer may not speak for.
// Unavailable: the issuer's keys can't be had now.
//
// Where the two meet, Unauthenticated comes first: only the holder of a good token is told Denied.
func (v *Verifier) Verify(ctx context.Context, token string) (*Verified, error) {
	verified, err := v.verify(ctx, token)
	if err != nil {
		v.metrics.count(err)
		return nil, err
	}
	return verified, nil
}

// ForgetTenant removes what is remembered of a tenant's tokens, for offboarding.
func (v *Verifier) ForgetTenant(tenant copse.TenantID) {
	v.remembered.forget(func(e *entry) bool { return e.verified.Tenant == tenant })
}

func (v *Verifier) verify(ctx context.Context, token string) (*Verified, error) {
	if len(token) > copse.MaxTokenBytes { // before anything is done with all of it
		_, err := parse(token)
		return nil, err
	}
	d := digestOf(token)
	return v.remember(ctx, &d, func() (*entry, error) { return v.verifyAnew(ctx, token) })
}

// remember answers from memory, or verifies and remembers.
func (v *Verifier) remember(ctx context.Context, d *digest, verify func() (*entry, error)) (*Verified, error) {
	hit, err := v.recall(ctx, d)
	if hit != nil || err != nil {
		return hit, err
	}
	v.metrics.misses.Inc()
	e, err := verify()
	if err != nil {
		return nil, err
	}
	// A key set that is about to be asked for again, or a token about to expire, leaves nothing to remember.
	if now := time.Now(); now.Before(e.until) {
		v.remembered.put(d, e, now)
	}
	return e.verified, nil
}

// recall finds a token that was verified before, under the registration and the keys of now. What was
// remembered under others is dropped.
// nil without an error: it must be verified. An error says that the registration is gone or can't be read.
func (v *Verifier) recall(ctx context.Context, d *digest) (*Verified, error) {
	e := v.remembered.get(d)
	if e == nil {
		return nil, nil
	}
	if time.Now().Before(e.until) && e.source.generation.Load() == e.generation {
		stands := !e.registered
		if e.registered {
			iss, err := v.registration(ctx, e.verified.Issuer)
			if err != nil {
				return nil, err
			}
			stands = e.standsFor(&iss)
		}
		if stands {
			v.metrics.hits.Inc()
			e.source.lastUsed.Store(time.Now().UnixNano())
			return e.verified, nil
		}
	}
	v.remembered.drop(d, e)
	return nil, nil
}

// registration asks who the issuer is, byte for byte.
func (v *Verifier) registration(ctx context.Context, url string) (copse.Issuer, error) {
	iss, err := v.issuer(ctx, url)
	switch {
	case err == nil && iss.URL == url:
		return iss, nil
	case err == nil, copse.KindOf(err) == copse.NotFound:
		return copse.Issuer{}, refuse(ReasonIssuer, "iss: nobody registered the token's issuer")
	}
	return copse.Issuer{}, unavailable(ReasonIssuerLookup, "the token's issuer can't be looked up now; try again", err)
}

// verifyAnew takes the issuer's name from the unverified token to find the registration, and nothing else from it before the
// signature is proved by that registration's keys.
func (v *Verifier) verifyAnew(ctx context.Context, token string) (*entry, error) {
	u, err := parse(token)
	if err != nil {
		return nil, err
	}
	iss, err := v.registration(ctx, u.issuer)
	if err != nil {
		return nil, err
	}
	if err := checkRegistration(&iss); err != nil {
		return nil, err
	}
	e, err := v.prove(ctx, u, registrationRules(&iss, iss.TokenType))
	if err != nil {
		return nil, err
	}
	if err := u.checkEmail(&iss); err != nil {
		return nil, err
	}
	if e.verified.Tenant, err = u.tenant(&iss); err != nil {
		return nil, err
	}
	e.under(&iss)
	return e, nil
}

// prove holds a token against rules: signature, times, kind, audience. What it returns is a token of the
// issuer it names, for the principal it names, and says nothing of a tenant.
func (v *Verifier) prove(ctx context.Context, u *unverified, r *rules) (*entry, error) {
	if !slices.Contains(r.algorithms, u.alg) {
		return nil, refuse(ReasonAlgorithm, "the token's algorithm is not one that its issuer is registered with")
	}
	source := v.source(u.issuer)
	keys, view, err := source.keysFor(ctx, u)
	if err != nil {
		return nil, err
	}
	if !u.verifiedBy(keys) {
		return nil, refuse(ReasonSignature, "the token's signature does not verify")
	}
	now := time.Now()
	verified := &Verified{Issuer: u.issuer, TokenType: r.tokenType}
	verified.Subject, verified.ClientID = u.claims.subject(r.tokenType)
	if verified.Expires, err = u.checkClaims(r, now); err != nil {
		return nil, err
	}
	verified.IssuedAt, _, _ = u.claims.instant("iat")
	if err := u.mapClaims(r, verified); err != nil {
		return nil, err
	}
	return &entry{
		verified: verified, until: earliest(verified.Expires, now.Add(rememberFor), view.until),
		source: source, generation: view.generation,
	}, nil
}

// earliest is the first of them in time.
func earliest(first time.Time, others ...time.Time) time.Time {
	for _, t := range others {
		if t.Before(first) {
			first = t
		}
	}
	return first
}

// source returns the keys of a registered issuer.
// An issuer that was evicted comes back with keys to be fetched, and what was remembered by its former source
// stays good until its time is over.
func (v *Verifier) source(issuer string) *keySource {
	now := time.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.sources[issuer]
	if s == nil {
		if len(v.sources) >= maxSources {
			v.evictLocked(now)
		}
		s = &keySource{
			issuer: issuer, fetch: v.fetcher.keys, work: v.work,
			fetches: func(result string) { v.metrics.fetches.WithLabelValues(result).Inc() },
		}
		v.sources[issuer] = s
	}
	s.lastUsed.Store(now.UnixNano())
	return s
}

// evictLocked makes room: for what was not used for so long that it is stale anyway or, failing
// that, for any one.
func (v *Verifier) evictLocked(now time.Time) {
	before := len(v.sources)
	for url, s := range v.sources {
		if now.UnixNano()-s.lastUsed.Load() > int64(staleFor) {
			delete(v.sources, url)
		}
	}
	for url := range v.sources {
		if len(v.sources) < before {
			return
		}
		delete(v.sources, url)
	}
}
