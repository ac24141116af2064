package token

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
)

// Reason says why a token was refused, in a fixed set of words: they are the label values of
// copse_token_failures_total.
type Reason string

// The reasons.
const (
	ReasonTooLarge     Reason = "too_large"        // over copse.MaxTokenBytes
	ReasonMalformed    Reason = "malformed"        // not three parts of base64url with JSON objects, or a member twice
	ReasonHeader       Reason = "header"           // the header asks for something that is refused: crit, jku, x5u, jwk, zip, cty, typ
	ReasonAlgorithm    Reason = "algorithm"        // not one of the issuer's, or not the key's
	ReasonIssuer       Reason = "issuer"           // nobody registered it
	ReasonUnknownKey   Reason = "unknown_key"      // no key of the issuer has this id
	ReasonSignature    Reason = "signature"        // does not verify
	ReasonExpired      Reason = "expired"          // exp is past
	ReasonTime         Reason = "time"             // exp is missing or no time; nbf or iat in the future
	ReasonAudience     Reason = "audience"         // meant for somebody else, or for nobody in particular
	ReasonType         Reason = "type"             // an ID token where an access token is expected, or the other way round
	ReasonPrincipal    Reason = "principal"        // no usable principal id
	ReasonGroups       Reason = "groups"           // group claim of another type, or too many
	ReasonClaim        Reason = "claim"            // a claim that can't be mapped, or is reserved
	ReasonEmailDomain  Reason = "email_domain"     // an e-mail address the issuer may not vouch for
	ReasonTenant       Reason = "tenant"           // names no tenant, several, or one the issuer may not speak for
	ReasonKeys         Reason = "keys_unavailable" // the issuer's keys can't be had now
	ReasonIssuerLookup Reason = "issuer_lookup"    // the registration can't be read now
)

// Reasons lists every Reason, for tables and the tests that range over them.
func Reasons() []Reason {
	return []Reason{ReasonTooLarge, ReasonMalformed, ReasonHeader, ReasonAlgorithm, ReasonIssuer, ReasonUnknownKey,
		ReasonSignature, ReasonExpired, ReasonTime, ReasonAudience, ReasonType, ReasonPrincipal, ReasonGroups,
		ReasonClaim, ReasonEmailDomain, ReasonTenant, ReasonKeys, ReasonIssuerLookup}
}

// ReasonOf tells why Verify refused; empty for any other error.
func ReasonOf(err error) Reason {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.reason
	}
	return ""
}

// refusal is the cause inside a *copse.Error; it carries the Reason past the border.
type refusal struct {
	reason Reason
	err    error
}

// Its text is for the log: what was refused stands in the error around it.
func (r *refusal) Error() string {
	if r.err != nil {
		return string(r.reason) + ": " + r.err.Error()
	}
	return string(r.reason)
}

// Unwrap leads to what the attempt failed by, if anything did.
func (r *refusal) Unwrap() error { return r.err }

// refuse is Unauthenticated. Its text is for whoever sent the token.
func refuse(reason Reason, format string, args ...any) error {
	e := copse.Errorf(copse.Unauthenticated, format, args...)
	e.Err = &refusal{reason: reason, err: e.Err}
	return e
}

// denied is one answer for a token that names no tenant, several, an impossible one, or one that its
// issuer may not speak for: whoever holds a token can't find out which tenants exist.
func denied(cause string) error {
	return &copse.Error{Kind: copse.Denied, Detail: "the token may not be used here",
		Err: &refusal{reason: ReasonTenant, err: errors.New(cause)}}
}

// unavailable is for what can't be known now: no word about the token.
func unavailable(reason Reason, detail string, err error) error {
	return &copse.Error{Kind: copse.Unavailable, Detail: detail, Err: &refusal{reason: reason, err: err}}
}

// metrics of a Verifier. Labels have a fixed set of values: none names an issuer, tenant or user.
type metrics struct {
	failures     *prometheus.CounterVec
	hits, misses prometheus.Counter
	fetches      *prometheus.CounterVec
}

// newMetrics has every value of the labels from the start, so that what never happened is 0 and not missing.
func newMetrics(r prometheus.Registerer, kept *remembered) (*metrics, error) {
	m := &metrics{
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "copse_token_failures_total", Help: "User tokens that were refused, by reason.",
		}, []string{"reason"}),
		hits: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "copse_token_cache_hits_total", Help: "User tokens found verified already.",
		}),
		misses: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "copse_token_cache_misses_total", Help: "User tokens that had to be verified.",
		}),
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "copse_token_key_fetches_total", Help: "Attempts to fetch an issuer's keys, by result.",
		}, []string{"result"}),
	}
	for _, reason := range Reasons() {
		m.failures.WithLabelValues(string(reason))
	}
	for _, result := range []string{fetchOK, fetchFailed} {
		m.fetches.WithLabelValues(result)
	}
	if r == nil {
		return m, nil
	}
	return m, errors.Join(r.Register(m.failures), r.Register(m.hits), r.Register(m.misses), r.Register(m.fetches),
		r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "copse_token_cache_entries", Help: "Verified user tokens kept in memory.",
		}, func() float64 { n, _ := kept.size(); return float64(n) })),
		r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "copse_token_cache_bytes", Help: "What the verified user tokens kept in memory weigh.",
		}, func() float64 { _, bytes := kept.size(); return float64(bytes) })))
}

const (
	fetchOK     = "ok"
	fetchFailed = "failed"
)

// count leaves out errors that are no refusal of a token.
func (m *metrics) count(err error) {
	if reason := ReasonOf(err); reason != "" {
		m.failures.WithLabelValues(string(reason)).Inc()
	}
}
