// Package tenant keeps the directory (tenant -> policy store) and the trusted issuers, and takes
// tenants in and out.
//
// Which tenant a decision is for is the question everything else hangs on: an answer that is a minute
// old serves a customer who was suspended, and an issuer that may speak for one tenant too many is a
// way into that tenant. So the directory is cached, but a change is in effect before it is
// acknowledged; a tenant that is deleted and made again never meets its former self; and every rule
// about issuers is checked against all of them in the commit itself, not before it.
package tenant

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage"
)

// Config is what a Service is made of.
type Config struct {
	Backend      storage.Backend
	PolicyStores *policystore.Service
	// CheckIssuerURL refuses issuer URLs this server would not fetch keys from. nil: all but https.
	CheckIssuerURL func(url string) error
	// Changed is told that a tenant was made, suspended, resumed or deleted, before that is
	// acknowledged. It must neither block nor call the service. nil: nobody.
	Changed func(id copse.TenantID)
	// Leaving gives what else is written in the commit that deletes a tenant, and Left is called after it.
	// nil: nothing.
	Leaving func(id copse.TenantID, incarnation copse.Incarnation) (storage.Write, error)
	Left    func(ctx context.Context, id copse.TenantID, incarnation copse.Incarnation)
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Service is the directory, and implements copse.Directory.
type Service struct {
	backend      storage.Backend
	directory    copse.Incarnation // of the directory partition
	policyStores *policystore.Service
	checkURL     func(url string) error
	changed      func(id copse.TenantID)
	leaving      func(id copse.TenantID, incarnation copse.Incarnation) (storage.Write, error)
	left         func(ctx context.Context, id copse.TenantID, incarnation copse.Incarnation)
	log          *slog.Logger

	entries  *storage.Cache[copse.TenantID, copse.DirectoryEntry]
	issuers  *storage.Cache[string, copse.Issuer] // by id, which stands for the URL
	unfollow func()

	// issuerRules is held while issuers change, so that changes on this node queue instead of costing
	// each other retries. Between nodes the rules' marker decides.
	issuerRules sync.Mutex
	known       registry // guarded by issuerRules, but for its dirty set
}

// Sizes of the caches, in entries of a few hundred bytes, and how long an absence is believed.
const (
	maxEntries  = 100_000
	maxIssuers  = 10_000
	negativeTTL = 5 * time.Second
)

// New makes a Service. It follows the backend until Close.
func New(cfg Config) (*Service, error) {
	if cfg.Backend == nil || cfg.PolicyStores == nil {
		return nil, errors.New("tenant: Config.Backend and Config.PolicyStores are needed")
	}
	// The policy store service has made the directory.
	head, err := cfg.Backend.Head(context.Background(), storage.Directory())
	if err != nil {
		return nil, err
	}
	s := &Service{
		backend: cfg.Backend, directory: head.Incarnation, policyStores: cfg.PolicyStores,
		checkURL: cfg.CheckIssuerURL, changed: cfg.Changed, leaving: cfg.Leaving, left: cfg.Left, log: cfg.Log,
	}
	if s.changed == nil {
		s.changed = func(copse.TenantID) {}
	}
	if s.checkURL == nil {
		s.checkURL = requireHTTPS
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.entries = storage.NewCache(storage.CacheConfig[copse.TenantID, copse.DirectoryEntry]{
		Load: s.loadEntry, MaxWeight: maxEntries, NegativeTTL: negativeTTL,
	})
	s.issuers = storage.NewCache(storage.CacheConfig[string, copse.Issuer]{
		Load: s.loadIssuer, MaxWeight: maxIssuers, NegativeTTL: negativeTTL,
	})
	if err := registerMetrics(cfg.Metrics, s); err != nil {
		return nil, err
	}
	s.unfollow = cfg.Backend.Follow(s.follow)
	s.policyStores.UseDirectory(s)
	return s, nil
}

// Close stops following the backend.
func (s *Service) Close() error {
	s.unfollow()
	return nil
}

// follow runs before a change is acknowledged.
func (s *Service) follow(c storage.Change) {
	if c.Partition != storage.Directory() {
		return
	}
	if c.Keys == nil {
		s.entries.InvalidateAll()
		s.issuers.InvalidateAll()
		s.known.dirty.markAll()
		return
	}
	for _, k := range c.Keys {
		switch k.Kind {
		case kindTenant:
			s.entries.Invalidate(copse.TenantID(k.ID))
			s.changed(copse.TenantID(k.ID))
		case kindIssuer:
			s.issuers.Invalidate(k.ID)
			s.known.dirty.mark(k.ID)
		}
	}
}

// Lookup is the cached directory read of copse.Directory.
// NotFound when there is no such tenant, Unavailable when that can't be known. A suspended tenant is an entry:
// its state is the caller's to look at.
func (s *Service) Lookup(ctx context.Context, id copse.TenantID) (copse.DirectoryEntry, error) {
	if id.Validate() != nil {
		// It can't exist, and must not fill the cache.
		return copse.DirectoryEntry{}, copse.NotFoundError(copse.ResourceTenant, string(id))
	}
	e, err := s.entries.Get(ctx, id)
	if err != nil {
		return copse.DirectoryEntry{}, unknowable(err, copse.ResourceTenant, string(id))
	}
	return e, nil
}

// loadEntry takes a tenant's word for which policy store is its own only if the policy store's row
// says the same: a directory that contradicts itself answers nothing.
func (s *Service) loadEntry(ctx context.Context, id copse.TenantID) (copse.DirectoryEntry, error) {
	r, err := s.read(ctx, id)
	if err != nil {
		return copse.DirectoryEntry{}, err
	}
	owner, incarnation, err := s.policyStores.Owner(ctx, r.PolicyStore)
	if err != nil {
		return copse.DirectoryEntry{}, err
	}
	if owner != id || incarnation != r.Incarnation {
		s.log.ErrorContext(ctx, "a tenant and its policy store contradict each other; its decisions are refused",
			"tenant", id, "policy_store", r.PolicyStore, "owner", owner)
		return copse.DirectoryEntry{}, &copse.Error{Kind: copse.Unavailable, Resource: copse.ResourceTenant, ID: string(id),
			Detail: "the directory contradicts itself about this tenant"}
	}
	return copse.DirectoryEntry{Tenant: id, State: r.State, PolicyStoreID: r.PolicyStore, Incarnation: r.Incarnation, CreatedAt: r.CreatedAt}, nil
}

// commit writes to the directory. Errors are storage's own, so that callers can tell a conflict.
func (s *Service) commit(ctx context.Context, c access.Caller, operation string, require []storage.Requirement, writes ...storage.Write) error {
	_, err := s.backend.Commit(ctx, storage.Commit{
		Partition: storage.Directory(), Incarnation: s.directory, Require: require, Writes: writes,
		Actor: c.Actor(), Operation: operation,
	})
	return err
}

// requireAdmin is Denied and not NotFound: it says nothing of whether something is there.
func requireAdmin(c access.Caller) error {
	if !c.MayEverywhere(access.Admin) {
		return &copse.Error{Kind: copse.Denied, Detail: "this key may not administer tenants and issuers: that needs admin, everywhere"}
	}
	return nil
}
