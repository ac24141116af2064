// Package token verifies users' tokens against the keys of trusted issuers, and turns their claims
// into a tenant, a principal and its groups.
package token

import (
	"context"
	"net/http"
	"time"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
)

// STUB: signatures the authorizer builds on. The package's author moves each to its file.

// Config is what a Verifier is made of.
type Config struct {
	// Issuer finds a registration by URL; NotFound for an untrusted one.
	Issuer func(ctx context.Context, url string) (copse.Issuer, error)
	// Fetch limits where keys may come from.
	Fetch FetchPolicy
	// Transport replaces the guarded transport, for tests of time.
	Transport http.RoundTripper
	Metrics   prometheus.Registerer
}

// FetchPolicy says where issuer keys may be fetched from. The zero value: https, public addresses.
type FetchPolicy struct {
	AllowPrivate bool // private and loopback addresses
	AllowHTTP    bool // http, to loopback only, and only with AllowPrivate
}

// CheckURL refuses issuer URLs that the policy would not fetch from: Invalid, with what to change.
func (p FetchPolicy) CheckURL(url string) error { panic("stub") }

// Verified is a token that verified: whose it is and what it says.
type Verified struct {
	Issuer    string
	Tenant    copse.TenantID // the issuer may speak for it
	Principal types.EntityUID
	// Entities: the principal with its attributes and groups; Context: {"token": {...}} for an access
	// token. Both Cedar JSON.
	Entities, Context copse.Data
	// ReservedTypes are the entity types a caller may not define.
	ReservedTypes []types.EntityType
	Expires       time.Time
}

// Verifier verifies tokens and remembers the verified ones for at most a minute.
type Verifier struct{}

// New makes a Verifier.
func New(cfg Config) (*Verifier, error) { panic("stub") }

// Close stops refreshing key sets.
func (v *Verifier) Close() error { panic("stub") }

// Verify checks a token. Unauthenticated: it does not verify (or nobody registered its issuer).
// Denied: it verifies, but names no tenant, several, or one its issuer may not speak for.
// Unavailable: the issuer's keys can't be had now.
func (v *Verifier) Verify(ctx context.Context, token string) (*Verified, error) { panic("stub") }
