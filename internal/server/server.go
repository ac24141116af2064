// Package server is the composition root: it makes a backend, the services on it and the HTTP handlers
// on those, and runs them.
//
// A server is opened in two steps, so that what needs no network can be used without one. [Open] takes
// a [Config] to working services; [Server.Listen] and [Server.Serve] put them on sockets until a
// context ends. The embedded package stops after the first step.
//
// Nothing else in copse knows which backend is used, or that a transport and a service meet.
package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/decisionlog"
	"github.com/copse-authz/copse/internal/member"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage/sqlite"
	"github.com/copse-authz/copse/internal/tenant"
	"github.com/copse-authz/copse/internal/token"
)

// Server is copse, wired. The services may be used from Open until Close.
// Its own methods may be called at the same time, but Listen and Serve are for one caller, once.
type Server struct {
	Access       *access.Service
	PolicyStores *policystore.Service
	Tenants      *tenant.Service
	Verifier     *token.Verifier

	Members *member.Service

	contexts  *token.ContextSigner // nil: no contexts are signed
	decisions *decisionlog.Log     // nil: nothing is on disk

	cfg      Config
	log      *slog.Logger
	registry *prometheus.Registry
	backend  *timedBackend   // as the services see it
	tracer   *tracer         // nil: traces are off
	tls      *tlsFiles       // nil: plain HTTP
	sqlite   *sqlite.Backend // nil in memory
	root     rootKey

	// Set by Listen. Before that there are no routes either, since some want to know the address.
	listener, opsListener net.Listener
	extAuthzListener      net.Listener
	routes                []Route
	handler               http.Handler
	http2Errors           prometheus.Counter
	extAuthz              authv3.AuthorizationServer
	draining              atomic.Bool
	probing               probing
	backingUp             sync.Mutex
	diagnosing            chan struct{} // holds whoever looks

	closers   []func() error // in the order of making
	closeOnce sync.Once
	closeErr  error
}

// Open makes the services and finishes what a former process left half done. Close ends them; Serve
// does so by itself.
// After an error everything is closed, and what was made on disk stays: keys, an empty database.
func Open(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, log: cfg.Log, registry: prometheus.NewRegistry(), diagnosing: make(chan struct{}, 1)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	registerProcess(s.registry, cfg.Version)
	s.http2Errors = prometheus.NewCounter(prometheus.CounterOpts{Name: "copse_http2_errors_total", Help: "Streams and connections over HTTP/2 that ended for what the client did wrong, or too often."})
	s.registry.MustRegister(s.http2Errors)
	// Before anything is made: a server that can't be reached should leave no trace.
	var err error
	if s.tls, err = openTLS(&cfg, s.log, s.registry); err != nil {
		return nil, err
	}
	if s.tracer = newTracer(&cfg, s.log); s.tracer != nil {
		s.closers = append(s.closers, s.tracer.close)
	}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// open takes the data directory first: its lock keeps a second process from making a second set of keys.
// What is made later may rely on what was made before, and is closed before it. The decision log comes before
// the policy stores, whose deletions take lines of it along.
func (s *Server) open(ctx context.Context) error {
	backend, err := s.openBackend()
	if err != nil {
		return err
	}
	s.backend = newTimedBackend(backend, s.registry, s.tracer)
	s.closers = append(s.closers, s.backend.Close)
	if err := s.selfTest(ctx); err != nil {
		return err
	}
	if err := s.openAccess(ctx); err != nil {
		return err
	}
	if err := s.openDecisionLog(ctx); err != nil {
		return err
	}
	if err := s.openTenancy(ctx); err != nil {
		return err
	}
	if err := s.openContexts(ctx); err != nil {
		return err
	}
	s.openSchedule()
	return nil
}

// openAccess loads the master key and the root key, or makes them. A master key that does not open what is stored
// ends it, so no service is made that could verify nobody.
func (s *Server) openAccess(ctx context.Context) error {
	masterKey, err := s.loadMasterKey(ctx)
	if err != nil {
		return err
	}
	if s.root, err = s.loadRootKey(); err != nil {
		return err
	}
	s.Access, err = access.New(access.Config{
		Backend: s.backend, MasterKey: masterKey,
		RootID: s.root.ID, Root: s.root.Secret,
		Region: s.cfg.Region, Metrics: s.registry,
	})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, s.Access.Close)
	return nil
}

// openTenancy makes policy stores, tenants, members and the verifier of tokens, which have news for each
// other.
// What a former process began to delete is taken up here, before anybody can ask (policystore's Resume).
func (s *Server) openTenancy(ctx context.Context) error {
	logKey, err := s.logHashKey(ctx)
	if err != nil {
		return err
	}
	fetch, err := s.fetchPolicy()
	if err != nil {
		return err
	}
	// Until it is stored there is no token that anybody could have verified, and so none to forget.
	var verifier atomic.Pointer[token.Verifier] // made after the services that have news for it
	s.PolicyStores, err = policystore.New(policystore.Config{
		Backend: s.backend, CacheBytes: s.cfg.SnapshotCacheBytes, DefaultPlan: s.cfg.DefaultPlan, NoRates: s.cfg.NoRates,
		LogFull: policystore.LogFull(s.cfg.DecisionLogFull), LogKey: logKey,
		CheckIssuerURL: fetch.CheckURL,
		SourceChanged: func(id copse.PolicyStoreID) {
			if v := verifier.Load(); v != nil {
				v.ForgetPolicyStore(id)
			}
		},
		HideElsewhere: s.decisions.Hide, EraseElsewhere: s.decisions.Erase,
		Log: s.log, Metrics: s.registry,
	})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, s.PolicyStores.Close)
	if err := s.PolicyStores.Resume(ctx); err != nil {
		return err
	}
	s.Tenants, err = tenant.New(tenant.Config{
		Backend: s.backend, PolicyStores: s.PolicyStores,
		CheckIssuerURL: fetch.CheckURL,
		Changed: func(id copse.TenantID) {
			if v := verifier.Load(); v != nil {
				v.ForgetTenant(id)
			}
		},
		Leaving: member.Leaving,
		Left:    func(ctx context.Context, id copse.TenantID, i copse.Incarnation) { s.Members.Left(ctx, id, i) },
		Log:     s.log, Metrics: s.registry,
	})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, s.Tenants.Close)
	s.Members, err = member.New(member.Config{Backend: s.backend, Directory: s.Tenants, Issuer: s.Tenants.Issuer, Log: s.log, Metrics: s.registry})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, s.Members.Close)
	s.Members.Resume()
	s.Verifier, err = token.New(token.Config{Issuer: s.Tenants.Issuer, Fetch: fetch, Metrics: s.registry})
	if err != nil {
		return err
	}
	verifier.Store(s.Verifier)
	s.closers = append(s.closers, s.Verifier.Close)
	return nil
}

// openSchedule begins the backups on schedule, if there are to be any.
func (s *Server) openSchedule() {
	// Nothing to copy, or nowhere to put it.
	if s.sqlite == nil || s.cfg.BackupDir == "" {
		return
	}
	// Not the context of Open: the schedule ends with the server.
	ctx, stop := context.WithCancel(context.Background())
	c := newSchedule(s.cfg, s.log, s.registry, s.backupTo)
	var work sync.WaitGroup
	work.Go(func() { c.run(ctx) })
	s.closers = append(s.closers, func() error {
		stop()
		work.Wait()
		return nil
	})
}

// Close ends the services and the backend, last made first. It is idempotent.
// Later calls wait for the first and return its error.
func (s *Server) Close() error {
	s.closeOnce.Do(func() {
		var errs []error
		for _, ln := range []net.Listener{s.listener, s.opsListener, s.extAuthzListener} {
			if ln == nil {
				continue
			}
			// Serving closes its listener itself.
			if err := ln.Close(); !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
		// All of them, whatever one answers: a log that does not close must not keep the database open.
		for i := len(s.closers) - 1; i >= 0; i-- {
			errs = append(errs, s.closers[i]())
		}
		s.closeErr = errors.Join(errs...)
	})
	return s.closeErr
}

// RootCredential is the root key as "copse_<id>_<secret>".
// Whoever has it may do everything, so it is shown to nobody but the operator.
func (s *Server) RootCredential() access.Secret { return s.root.credential() }

// RootKey is the root key in two parts, for signing.
func (s *Server) RootKey() (id string, secret access.Secret) { return s.root.ID, s.root.Secret }
