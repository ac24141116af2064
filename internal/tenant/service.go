// Package tenant keeps the directory (tenant -> policy store) and the trusted issuers, and takes
// tenants in and out.
package tenant

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage"
)

// STUB: signatures the transports build on. The package's author moves each to its file.

// Config is what a Service is made of.
type Config struct {
	Backend      storage.Backend
	PolicyStores *policystore.Service
	// CheckIssuerURL refuses issuer URLs this server would not fetch keys from.
	CheckIssuerURL func(url string) error
	Log            *slog.Logger
	Metrics        prometheus.Registerer
}

// Service is the directory, and implements copse.Directory.
type Service struct{}

// New makes a Service. It follows the backend until Close.
func New(cfg Config) (*Service, error) { panic("stub") }

// Close stops following the backend.
func (s *Service) Close() error { panic("stub") }

// Tenant describes a tenant.
type Tenant struct {
	ID            copse.TenantID
	State         copse.TenantState
	PolicyStoreID copse.PolicyStoreID
	CreatedAt     time.Time
	UpdatedAt     time.Time
}

// NewTenant asks for a tenant with a policy store of its own.
type NewTenant struct {
	ID          copse.TenantID
	Description string
	Settings    *copse.Settings // nil: STRICT with requests checked when there is a schema, else OFF
	Schema      *policystore.SchemaText
	Policies    []policystore.PolicyText
}

// Create onboards a tenant: Conflict when it exists. Needs Admin everywhere, as all methods that
// change the directory.
func (s *Service) Create(ctx context.Context, c access.Caller, in NewTenant) (Tenant, error) {
	panic("stub")
}

// Get needs Admin everywhere, or Read on the tenant's policy store.
func (s *Service) Get(ctx context.Context, c access.Caller, id copse.TenantID) (Tenant, error) {
	panic("stub")
}

// List returns up to limit tenants with ids after a given one that the caller may see, and whether
// there are more.
func (s *Service) List(ctx context.Context, c access.Caller, after copse.TenantID, limit int) ([]Tenant, bool, error) {
	panic("stub")
}

// SetState suspends or resumes. Effective for every decision that starts after it returns.
func (s *Service) SetState(ctx context.Context, c access.Caller, id copse.TenantID, state copse.TenantState) (Tenant, error) {
	panic("stub")
}

// Delete offboards: directory row, then policy store, then the history rows that name the tenant,
// and the tenant from every issuer that listed it. NotFound when absent.
func (s *Service) Delete(ctx context.Context, c access.Caller, id copse.TenantID) error {
	panic("stub")
}

// Lookup is the cached directory read of copse.Directory.
func (s *Service) Lookup(ctx context.Context, id copse.TenantID) (copse.DirectoryEntry, error) {
	panic("stub")
}

// Issuer is the cached read by URL, byte for byte, for token verification. NotFound when nobody
// registered it. No Caller: the token is the credential.
func (s *Service) Issuer(ctx context.Context, url string) (copse.Issuer, error) { panic("stub") }

// AddIssuer registers an issuer: Conflict when its URL is taken. Invalid when it breaks a rule: no
// audience, no algorithm, a symmetric one, no tenant, a second issuer for a tenant with equal prefix
// and principal type and no SameSubjects.
func (s *Service) AddIssuer(ctx context.Context, c access.Caller, in copse.Issuer) (copse.Issuer, error) {
	panic("stub")
}

// UpdateIssuer replaces a registration by id; the URL stays.
func (s *Service) UpdateIssuer(ctx context.Context, c access.Caller, in copse.Issuer) (copse.Issuer, error) {
	panic("stub")
}

// GetIssuer by id.
func (s *Service) GetIssuer(ctx context.Context, c access.Caller, id string) (copse.Issuer, error) {
	panic("stub")
}

// ListIssuers in order of id.
func (s *Service) ListIssuers(ctx context.Context, c access.Caller, after string, limit int) ([]copse.Issuer, bool, error) {
	panic("stub")
}

// RemoveIssuer by id; NotFound when absent. Its tokens are refused from then on.
func (s *Service) RemoveIssuer(ctx context.Context, c access.Caller, id string) error { panic("stub") }
