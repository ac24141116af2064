// Package dev is what `copse dev` has and `copse serve` has not: development token issuers for any
// tenant name, the sample SaaS of examples/payments onboarded, and a tour of requests with the answer
// each must give.
//
// None of it is linked into the routes of a server for real use: it enters through
// server.Config.ExtraRoutes only.
package dev

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"

	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/server"
)

// Config is what a development server can be told. The zero value works.
type Config struct {
	// Server is the base; its DataDir empty means a temporary directory that Close removes. Private
	// and http issuers are always allowed.
	Server server.Config
	// NoSamples leaves the sample tenants and their issuers out; the shared issuer is there.
	NoSamples bool
}

// Dev is a running development server. Its methods are safe for concurrent use. It must be closed, also when
// it has ended by itself.
type Dev struct {
	Server *server.Server

	issuers *issuers
	tempDir string // empty: kept
	cancel  context.CancelFunc
	done    chan struct{}
	err     error // of serving, once done

	closeOnce sync.Once
	closeErr  error
}

// Start opens, listens, serves in the background, onboards the samples (again, when the data directory
// was kept: nothing is doubled), and returns when all of it answers. It ends when ctx does.
func Start(ctx context.Context, cfg Config) (*Dev, error) {
	d := &Dev{done: make(chan struct{})}
	dataDir := cfg.Server.DataDir
	if dataDir == "" {
		var err error
		// Close removes it, also where Start fails further on.
		if d.tempDir, err = os.MkdirTemp("", "copse-dev-"); err != nil {
			return nil, err
		}
		cfg.Server.DataDir = d.tempDir
		// What goes away with the directory needs no warning that its key is in it.
		cfg.Server.MasterKeyFile = filepath.Join(d.tempDir, access.MasterKeyFile)
		if _, err := access.GenerateMasterKey(cfg.Server.MasterKeyFile); err != nil {
			return nil, errors.Join(err, os.RemoveAll(d.tempDir))
		}
	}
	// The keys of development tokens are fetched from this same server, which is usually at http://127.0.0.1.
	cfg.Server.AllowPrivateIssuers, cfg.Server.AllowHTTPIssuers = true, true
	cfg.Server.DrainDelay = 0 // no load balancer has to notice
	if err := d.start(ctx, cfg, dataDir); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// start does what can fail halfway. keepIn is where the issuers' keys are kept, empty where nothing is. On an
// error the caller closes d, which may hold anything between nothing and a server that serves.
func (d *Dev) start(ctx context.Context, cfg Config, keepIn string) error {
	var formerURL string
	var issuersErr error
	// The issuers' URLs hold the port, which is known only when the server listens: so they are opened there.
	// The function has no error to return, and leaves it for after Listen.
	cfg.Server.ExtraRoutes = func(baseURL string) []server.Route {
		d.issuers, formerURL, issuersErr = openIssuers(keepIn, baseURL)
		if issuersErr != nil {
			return nil
		}
		return d.issuers.routes()
	}
	var err error
	if d.Server, err = server.Open(ctx, cfg.Server); err != nil {
		return err
	}
	if err := d.Server.Listen(); err != nil {
		return err
	}
	if issuersErr != nil {
		return issuersErr
	}
	// Close takes d.cancel as the sign that there is a goroutine to wait for.
	ctx, d.cancel = context.WithCancel(ctx)
	go func() {
		defer close(d.done)
		d.err = d.Server.Serve(ctx)
	}()
	// The issuers move before a sample is looked for, so that the samples' own are found where they are
	// reached, and not registered beside those at the former address.
	if err := moveIssuers(ctx, d.Server, d.issuers, formerURL); err != nil {
		return err
	}
	tenants := Samples()
	if cfg.NoSamples {
		tenants = nil
	}
	// An RSA key takes a while to find: meanwhile the tenants are onboarded.
	warmed := make(chan error, 1)
	go func() { warmed <- d.issuers.warm(ctx, tenants) }()
	return errors.Join(onboard(ctx, d.Server, d.issuers, tenants), <-warmed)
}

// URL is the base URL of the API, for COPSE_URL.
func (d *Dev) URL() string { return d.Server.URL() }

// Credential is the root credential, for COPSE_KEY.
func (d *Dev) Credential() access.Secret { return d.Server.RootCredential() }

// Wait returns when the server has ended, with its error.
func (d *Dev) Wait() error {
	<-d.done
	return d.err
}

// Close ends the server, waits for it, and removes a temporary data directory. What is done the first time is
// the answer of every call.
func (d *Dev) Close() error {
	d.closeOnce.Do(func() {
		switch {
		case d.cancel != nil:
			d.cancel()
			d.closeErr = d.Wait()
		case d.Server != nil:
			d.closeErr = d.Server.Close()
		}
		if d.tempDir != "" {
			d.closeErr = errors.Join(d.closeErr, os.RemoveAll(d.tempDir))
		}
	})
	return d.closeErr
}
