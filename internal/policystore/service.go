// Package policystore is the PAP: every change to a policy store goes through it, and every decision
// reads the snapshots it caches.
//
// A policy that nobody validated, a moment without a forbid, a decision from a policy store that was
// deleted, a name that belongs to two policies: each is a hole in somebody's authorization, and each
// is what a careless read-modify-write leads to. So there is one way to write. A change is computed
// from a policy store's state at one revision and committed only if that revision still stands;
// whoever loses such a race computes again from what is there now. Validation therefore never uses a
// schema or a mode that the commit did not still find.
//
// A policy store exists when, and only when, its directory row does. It is made partition first, row
// last, and taken away row first, partition last; what a crash leaves in between is finished by
// [Service.Resume].
//
// Every method takes the [access.Caller]. What the caller's key does not cover is answered exactly as
// if it did not exist.
package policystore

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/engine"
	"github.com/copse-authz/copse/internal/storage"
)

// Config is what a Service is made of.
type Config struct {
	Backend     storage.Backend
	CacheBytes  int64  // snapshots kept compiled; 0 = 256 MiB
	MaxWeight   int64  // what one policy store may weigh compiled; 0 = copse.MaxPolicyStoreWeight
	DefaultPlan string // of new policy stores; empty: PlanUnmetered
	NoRates     bool   // the rates of all plans are left aside
	// LogFull is of new policy stores; empty: LogDrop. LogKey makes hashes for the decision log: whoever has it can
	// tell what was hashed, so it is secret, and kept.
	LogFull LogFull
	LogKey  []byte
	// CheckIssuerURL refuses issuers of identity sources that this server would not fetch keys from.
	// nil: all but https.
	CheckIssuerURL func(url string) error
	// SourceChanged is told that a policy store's identity source was made, changed or deleted, the last
	// also with the policy store, before that is acknowledged. It must neither block nor call the
	// service. nil: nobody.
	SourceChanged func(id copse.PolicyStoreID)
	// HideElsewhere hides what is kept of a policy store outside of storage, its lines in the decision log,
	// as soon as nothing can be decided there any more, and for as long as the process lives. nil with
	// EraseElsewhere.
	HideElsewhere func(id copse.PolicyStoreID)
	// EraseElsewhere takes it away: in the background, since it may take long, and of all that left
	// meanwhile at once. It is called again after an error. nil: nothing is kept elsewhere.
	EraseElsewhere func(ctx context.Context, ids ...copse.PolicyStoreID) error
	Log            *slog.Logger
	Metrics        prometheus.Registerer
}

// Service administers policy stores and decides from them.
type Service struct {
	backend        storage.Backend
	directory      copse.Incarnation // of the directory partition
	maxWeight      int64
	defaultPlan    string
	logFull        LogFull
	logKey         []byte
	noRates        bool
	checkIssuerURL func(url string) error
	sourceChanged  func(id copse.PolicyStoreID)
	hideElsewhere  func(id copse.PolicyStoreID)
	eraseElsewhere func(ctx context.Context, ids ...copse.PolicyStoreID) error
	log            *slog.Logger
	metrics        *metrics

	rows      *storage.Cache[copse.PolicyStoreID, row]
	summaries *storage.Cache[copse.PolicyStoreID, summary]
	snapshots *storage.Cache[copse.PolicyStoreID, *compiled]
	plans     *storage.Cache[string, *Plan]
	aliases   *storage.Cache[string, alias] // by name
	meters    meters
	turns     turns
	tallies   tallies
	desks     desks
	tenants   atomic.Pointer[copse.Directory]
	unfollow  func()

	creating sync.Map // copse.PolicyStoreID: partitions of this process that have no row yet
	checking sync.Map // copse.PolicyStoreID: those whose policies are being held against a schema
	// What one check of a policy store may spend: engine.MaxCheckSteps.
	checkSteps uint64
	hand       hand
	eraser     *eraser
}

// Entries of the small caches: a row or summary is a few hundred bytes.
const (
	maxRows      = 100_000
	maxSummaries = 20_000
	negativeTTL  = 5 * time.Second // how long an absence is believed, unless what was absent is made
)

// New makes a Service. It follows the backend until Close.
func New(cfg Config) (*Service, error) {
	if cfg.Backend == nil {
		return nil, errors.New("policystore: Config.Backend is missing")
	}
	directory, err := openDirectory(context.Background(), cfg.Backend)
	if err != nil {
		return nil, err
	}
	s := &Service{
		backend: cfg.Backend, directory: directory, maxWeight: cfg.MaxWeight, noRates: cfg.NoRates, log: cfg.Log,
		logFull: cfg.LogFull, logKey: cfg.LogKey,
		checkIssuerURL: cfg.CheckIssuerURL, sourceChanged: cfg.SourceChanged, hideElsewhere: cfg.HideElsewhere, eraseElsewhere: cfg.EraseElsewhere, checkSteps: engine.MaxCheckSteps,
		turns: newTurns(), desks: desks{open: make(map[copse.PolicyStoreID]*desk)},
	}
	if s.maxWeight <= 0 {
		s.maxWeight = copse.MaxPolicyStoreWeight
	}
	if s.checkIssuerURL == nil {
		s.checkIssuerURL = requireHTTPS
	}
	if len(s.logKey) == 0 {
		s.logKey = make([]byte, 32)
		_, _ = rand.Read(s.logKey) // hashes then mean nothing after this process
	}
	if s.hideElsewhere == nil || s.eraseElsewhere == nil {
		s.hideElsewhere = func(copse.PolicyStoreID) {}
		s.eraseElsewhere = nil
	}
	if s.sourceChanged == nil {
		s.sourceChanged = func(copse.PolicyStoreID) {}
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if cfg.CacheBytes <= 0 {
		cfg.CacheBytes = 256 << 20
	}
	s.rows = storage.NewCache(storage.CacheConfig[copse.PolicyStoreID, row]{Load: s.loadRow, MaxWeight: maxRows})
	s.summaries = storage.NewCache(storage.CacheConfig[copse.PolicyStoreID, summary]{Load: s.loadSummary, MaxWeight: maxSummaries})
	s.snapshots = storage.NewCache(storage.CacheConfig[copse.PolicyStoreID, *compiled]{
		Load: s.loadSnapshot, Renew: s.renewSnapshot, MaxWeight: cfg.CacheBytes,
		Weigh: func(_ copse.PolicyStoreID, e *compiled) int64 { return e.weight() },
	})
	s.plans = storage.NewCache(storage.CacheConfig[string, *Plan]{Load: s.loadPlan, MaxWeight: 10 * maxPlans, NegativeTTL: negativeTTL})
	s.aliases = storage.NewCache(storage.CacheConfig[string, alias]{Load: s.loadAlias, MaxWeight: maxRows, NegativeTTL: negativeTTL})
	if s.defaultPlan = cfg.DefaultPlan; s.defaultPlan == "" {
		s.defaultPlan = PlanUnmetered
	}
	if err := s.knownPlan(context.Background(), "default-plan", s.defaultPlan); err != nil {
		return nil, err
	}
	if s.metrics, err = newMetrics(cfg.Metrics, s.snapshots.Collectors("snapshot", "compiled policy stores", true)); err != nil {
		return nil, err
	}
	s.eraser = newEraser(s)
	if cfg.Metrics != nil {
		err = cfg.Metrics.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "copse_erasures_under_way",
			Help: "Erasures that are not complete: of policy stores, of their lines in the decision log, of the policies of deleted templates."}, s.eraser.left))
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	s.unfollow = cfg.Backend.Follow(s.follow)
	return s, nil
}

// Close stops following the backend and background work; the backend stays open.
func (s *Service) Close() error {
	if s.unfollow != nil { // nil: New failed before that
		s.unfollow()
	}
	s.eraser.close()
	return nil
}

// UseDirectory tells the service where tenants are looked up: whether a tenant is suspended, and which
// policy store a key covers that names a tenant. The tenant service calls it when it is made; until
// then a tenant's policy store is not decided for a key.
func (s *Service) UseDirectory(d copse.Directory) { s.tenants.Store(&d) }

// follow runs before a change is acknowledged. Rows go first: a snapshot is loaded through its row,
// so a load that is repeated because of this change must not find the old row again.
func (s *Service) follow(c storage.Change) {
	if id, ok := c.Partition.PolicyStoreID(); ok {
		s.summaries.Invalidate(id)
		s.snapshots.Invalidate(id)
		if c.Fenced {
			s.snapshots.Drop(id)
			s.desks.forget(id)
			s.meters.drop(id)
			s.tallies.drop(id)
		}
		if c.Fenced || c.Keys == nil || slices.ContainsFunc(c.Keys, func(k storage.Key) bool { return k.Kind == kindIdentitySource }) {
			s.sourceChanged(id)
		}
		return
	}
	if c.Keys == nil {
		s.rows.InvalidateAll()
		s.plans.InvalidateAll()
		s.aliases.InvalidateAll()
		s.summaries.InvalidateAll()
		s.snapshots.InvalidateAll()
		return
	}
	for _, k := range c.Keys {
		switch k.Kind {
		case kindPolicyStore:
			id := copse.PolicyStoreID(k.ID)
			s.rows.Invalidate(id)
			s.summaries.Invalidate(id)
			s.snapshots.Invalidate(id)
		case kindPlan:
			s.plans.Invalidate(k.ID)
		case kindAlias:
			s.aliases.Invalidate(k.ID)
		}
	}
}

// openDirectory returns the directory partition's incarnation, making the partition when this is the
// first start. Several services do this at once; one of them makes it.
func openDirectory(ctx context.Context, backend storage.Backend) (copse.Incarnation, error) {
	for {
		head, err := backend.Head(ctx, storage.Directory())
		if err == nil {
			return head.Incarnation, nil
		}
		if !errors.Is(err, storage.ErrNotFound) {
			return copse.Incarnation{}, err
		}
		_, err = backend.Commit(ctx, storage.Commit{
			Partition: storage.Directory(), Incarnation: copse.NewIncarnation(), Create: true,
			Writes: []storage.Write{{Key: storage.Key{Kind: "directory"}, Body: []byte(`{"v":1}`)}},
			Actor:  storage.ActorSystem, Operation: "CreateDirectory",
		})
		if err != nil && !errors.Is(err, storage.ErrExists) {
			return copse.Incarnation{}, err
		}
	}
}
