package pep

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/bound"
	"github.com/copse-authz/copse/internal/token"
)

// PDP decides, and knows what the operator said of tenants and issuers. *embedded.PDP is one.
type PDP interface {
	copse.Decider
	copse.Directory
	// Issuer finds a registration by its URL, byte for byte; NotFound for an untrusted one. It is asked
	// for every request, so it answers from memory.
	Issuer(ctx context.Context, url string) (copse.Issuer, error)
	// IdentitySource is that of a policy store; nil when it has none.
	IdentitySource(ctx context.Context, id copse.PolicyStoreID, incarnation copse.Incarnation) (*copse.IdentitySource, error)
}

// Config is what a PEP is made of. Only PDP is needed.
type Config struct {
	PDP PDP
	// SignedContext has the gateway's signed contexts checked. Nil: the header is removed unread.
	SignedContext *SignedContext
	// AllowPrivateIssuers admits issuers at private and loopback addresses, AllowHTTPIssuers with it
	// plain http to loopback. Keys are otherwise fetched over https from public addresses.
	AllowPrivateIssuers, AllowHTTPIssuers bool
	// RootCAs that issuers' certificates must chain to; nil: the system's.
	RootCAs *x509.CertPool
	// Log gets a line per refusal. Nil: none.
	Log *slog.Logger
	// Metrics gets copse_pep_requests_total by result, and the token verifier's counters. Nil: none.
	Metrics prometheus.Registerer
}

// SignedContext says whose contexts are believed, in the header X-Copse-Context; docs/pep.md has their
// format.
type SignedContext struct {
	Issuer   string // copse's public URL, byte for byte
	Audience string // the name of this service at the gateway
	// KeysURL of copse's key set, https (http to loopback only), or Keys, a key set in JSON.
	KeysURL string
	Keys    []byte
	RootCAs *x509.CertPool // for KeysURL; nil: the system's
	// Required refuses requests without a context: what did not come through the gateway.
	Required bool
	// StrippedPrefix is the beginning of the path that the gateway removes: "/api" when the client's
	// /api/invoices arrives here as /invoices.
	StrippedPrefix string
}

// PEP is a policy enforcement point. It is safe for concurrent use; Close it when the service ends.
type PEP struct {
	pdp      PDP
	verifier *token.Verifier
	placing  token.Placing
	contexts *token.ContextVerifier // nil: none are read
	signed   SignedContext
	log      *slog.Logger
	metrics  *metrics
}

// New makes a PEP. Nothing is fetched before the first request.
func New(cfg Config) (*PEP, error) {
	if cfg.PDP == nil {
		return nil, copse.Errorf(copse.Invalid, "pep: Config.PDP is needed: what decides")
	}
	p := &PEP{pdp: cfg.PDP, log: cfg.Log}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if cfg.SignedContext != nil {
		p.signed = *cfg.SignedContext
		if prefix := p.signed.StrippedPrefix; prefix != "" {
			if canonical, err := token.CanonicalPath(prefix); err != nil || canonical != prefix || strings.HasSuffix(prefix, "/") {
				return nil, copse.Errorf(copse.Invalid, "pep: StrippedPrefix %q: it must be a path like /api, without a slash at the end", prefix)
			}
		}
		var err error
		p.contexts, err = token.NewContextVerifier(token.ContextConfig{
			Issuer: p.signed.Issuer, Audience: p.signed.Audience,
			KeysURL: p.signed.KeysURL, Keys: p.signed.Keys, RootCAs: p.signed.RootCAs,
		})
		if err != nil {
			return nil, err
		}
	}
	var err error
	if p.metrics, err = newMetrics(cfg.Metrics); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	p.verifier, err = token.New(token.Config{
		Issuer:  cfg.PDP.Issuer,
		Fetch:   token.FetchPolicy{AllowPrivate: cfg.AllowPrivateIssuers, AllowHTTP: cfg.AllowHTTPIssuers},
		RootCAs: cfg.RootCAs, Metrics: cfg.Metrics,
	})
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	p.placing = token.Placing{Directory: cfg.PDP, IdentitySource: cfg.PDP.IdentitySource, VerifyBy: p.verifier.VerifyBy}
	return p, nil
}

// Close stops what refreshes keys in the background. It does not close the PDP.
func (p *PEP) Close() error {
	var errs []error
	if p.contexts != nil {
		errs = append(errs, p.contexts.Close())
	}
	if p.verifier != nil {
		errs = append(errs, p.verifier.Close())
	}
	return errors.Join(errs...)
}

// A Hook says what a request asks: which action on which resource. It runs after the token verified, with
// the request's context bound to the tenant. An error ends the request: NotFound as 404, Invalid as 400,
// Denied as 403, Unavailable as 503, any other as 500.
type Hook func(r *http.Request, who *Identity) (Question, error)

// Require lets a request through when the decision on what it asks is ALLOW.
func (p *PEP) Require(hook Hook) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			admitted, who, err := p.admit(r)
			if err != nil {
				p.refuse(w, r, who, err)
				return
			}
			decided, err := who.ask(admitted, hook)
			if err != nil {
				p.refuse(w, r, who, err)
				return
			}
			p.metrics.count(resultAllow)
			next.ServeHTTP(w, admitted.WithContext(context.WithValue(admitted.Context(), identityKey{}, decided)))
		})
	}
}

// Authenticate lets a request through when its token is good, and decides nothing: it is for services
// whose handlers ask themselves, with [Identity.Decide]. A [PEP.Require] further in does not verify again.
func (p *PEP) Authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		admitted, who, err := p.admit(r)
		if err != nil {
			p.refuse(w, r, who, err)
			return
		}
		p.metrics.count(resultAuthenticated)
		next.ServeHTTP(w, admitted)
	})
}

// admit does everything but decide. The request it returns is a copy, bound to the tenant and without
// identity headers. With an error, the identity holds what was verified until then, if anything.
func (p *PEP) admit(r *http.Request) (*http.Request, *Identity, error) {
	if who := From(r.Context()); who != nil && who.pep == p {
		return r, who, nil
	}
	ctx := r.Context()
	said, err := readHeaders(r)
	if err != nil {
		return nil, nil, err
	}
	bearer, err := token.Bearer(r.Header)
	if err != nil {
		return nil, nil, err
	}
	verified, err := p.verifier.Verify(ctx, bearer)
	if err != nil {
		return nil, nil, err
	}
	who := &Identity{Tenant: verified.Tenant, pep: p}
	if said.tenant != nil && *said.tenant != string(verified.Tenant) {
		return nil, who, refused(resultTenantHeader, "the token is for tenant %q, the header %s names another", verified.Tenant, headerTenant)
	}
	if bound.Disagrees(ctx, verified.Tenant) {
		return nil, who, refused(resultTenantHeader, "the token is for tenant %q, the request's context was bound to another before", verified.Tenant)
	}
	verified, who.entry, err = p.placing.Place(ctx, bearer, verified)
	if err != nil {
		return nil, who, err
	}
	if who.GatewayDecision, err = p.checkContext(r, said.context, bearer, verified); err != nil {
		return nil, who, err
	}
	who.verified = verified
	who.Principal, who.Issuer, who.Expires = verified.Principal, verified.Issuer, verified.Expires
	ctx = context.WithValue(bound.WithTenant(ctx, verified.Tenant), identityKey{}, who)
	return said.strip(r.WithContext(ctx)), who, nil
}

// checkContext holds the signed context, if one is to be had, against the request.
func (p *PEP) checkContext(r *http.Request, text *string, bearer string, verified *token.Verified) (decisionID string, err error) {
	switch {
	case p.contexts == nil:
		return "", nil
	case text == nil && p.signed.Required:
		return "", refused(resultContextMissing, "there is no %s: the request did not come through the gateway", headerContext)
	case text == nil:
		return "", nil
	}
	target := r.RequestURI
	if target == "" { // not from net/http's server
		target = r.URL.EscapedPath()
	}
	if !strings.HasPrefix(target, "/") {
		return "", refused(resultContext, "the request's target is no path")
	}
	path, err := token.CanonicalPath(p.signed.StrippedPrefix + target)
	if err != nil {
		return "", &refusal{result: resultContext, err: err}
	}
	decisionID, err = p.contexts.Verify(r.Context(), *text, &token.Bound{
		Token: bearer, Verified: verified, Method: r.Method, Path: path,
	})
	if err != nil && copse.KindOf(err) != copse.Unavailable {
		err = &refusal{result: resultContext, err: err}
	}
	return decisionID, err
}
