package server

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/authorizer"
	"github.com/copse-authz/copse/internal/token"
)

// routeFile is a route table on disk that may be replaced under a running server.
// It is looked at when a request comes, so it needs no goroutine of its own.
type routeFile struct {
	file string
	log  *slog.Logger

	mu        sync.Mutex
	table     *authorizer.RouteTable
	text      []byte // of the file, as it was last looked at, good or not
	why       string // it can't be read, as last told
	lookAgain time.Time
}

// routesCheck is how long a replaced route table may go unnoticed.
const routesCheck = time.Second

// newRouteFile loads the table once, so that a server does not start with one that is no good. Without a name
// there is no table, and nothing passes a gateway.
func newRouteFile(file string, log *slog.Logger) (*routeFile, error) {
	f := &routeFile{file: file, log: log}
	if file == "" {
		return f, nil
	}
	if _, err := f.load(); err != nil {
		return nil, err
	}
	return f, nil
}

// routes is the table of now; nil without a file. A file that can't be used leaves the table as it was,
// and says so once for each reason.
func (f *routeFile) routes() *authorizer.RouteTable {
	if f.file == "" {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	// Requests look at the file at most once a second all together, under the lock.
	now := time.Now()
	if now.Before(f.lookAgain) {
		return f.table
	}
	f.lookAgain = now.Add(routesCheck)
	replaced, err := f.load()
	switch {
	case err != nil && err.Error() != f.why:
		f.why = err.Error()
		f.log.Error("the route table can't be used as it is now; the former one stays in use", "error", err)
	case err == nil:
		f.why = ""
	}
	if replaced {
		f.log.Info("route table replaced", "file", f.file, "routes", f.table.Len())
	}
	return f.table
}

// load replaces the table if the file has another text and all of it is right. Bytes are compared and not times: those of
// a copy may be older, and a file that could not be read has the time it had when it can be. f.mu is held, or
// nobody else has f yet.
func (f *routeFile) load() (replaced bool, err error) {
	text, err := os.ReadFile(f.file)
	if err != nil {
		return false, copse.Errorf(copse.Invalid, "route table: %w", err)
	}
	if f.text != nil && bytes.Equal(text, f.text) {
		return false, nil
	}
	f.text = text // a table that is refused is not parsed again at every look
	table, err := authorizer.ParseRoutes(f.file, text)
	if err != nil {
		return false, err
	}
	f.table = table
	return true, nil
}

// contextKeys is what keys of signed contexts are kept for.
const contextKeys = "context-key"

// contextKeyStore keeps the keys among the server's secrets.
// They survive a restart, so what was signed before it still verifies.
func contextKeyStore(a *access.Service) token.ContextKeyStore {
	return token.ContextKeyStore{
		Load: func(ctx context.Context) ([]token.ContextKey, error) {
			secrets, err := a.Secrets(ctx, contextKeys)
			if err != nil {
				return nil, err
			}
			keys := make([]token.ContextKey, len(secrets))
			for i, s := range secrets {
				keys[i] = token.ContextKey{ID: s.Name, Private: []byte(s.Value), CreatedAt: s.CreatedAt}
			}
			return keys, nil
		},
		Add: func(ctx context.Context, k token.ContextKey) error {
			return a.PutSecret(ctx, access.ServerSecret{Purpose: contextKeys, Name: k.ID, Value: access.Secret(k.Private), CreatedAt: k.CreatedAt})
		},
		Remove: func(ctx context.Context, id string) error { return a.DeleteSecret(ctx, contextKeys, id) },
	}
}

// openContexts makes the signer, if the server has a public URL to sign as.
func (s *Server) openContexts(ctx context.Context) error {
	if s.cfg.PublicURL == "" {
		return nil
	}
	var err error
	s.contexts, err = token.NewContextSigner(ctx, s.cfg.PublicURL, s.cfg.ContextKeyRotation, contextKeyStore(s.Access), s.log)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, s.contexts.Close)
	return nil
}

// gatewayRoutes are the endpoints of gateways, and the keys of what they are given to pass on.
// They decide as POST /v1/authorize does; the route table says what a request asks.
func (s *Server) gatewayRoutes(cfg authorizer.Config) ([]Route, error) {
	file, err := newRouteFile(s.cfg.RoutesFile, s.log)
	if err != nil {
		return nil, err
	}
	gateway := authorizer.GatewayConfig{Config: cfg, Routes: file.routes, RequestID: requestID}
	// Without a public URL nothing is signed, and what passes carries no context.
	if s.contexts != nil {
		gateway.Sign = s.contexts.Sign
	}
	g := authorizer.NewGateway(gateway)
	// Envoy's is a listener of its own, see [Server.Listen]; the rest are routes of the API.
	s.extAuthz = g.ExtAuthz()
	routes := []Route{
		{Pattern: "POST /v1/authorize/request", Handler: g.Request()},
		// Whatever the method of the subrequest is.
		{Pattern: "/v1/forward-auth/nginx", Handler: g.Nginx()},
		{Pattern: "/v1/forward-auth/forwarded", Handler: g.Forwarded()},
	}
	if s.contexts != nil {
		routes = append(routes, Route{Pattern: "GET " + token.ContextKeysPath, Open: true, Handler: http.HandlerFunc(s.serveContextKeys)})
	}
	return routes, nil
}

// serveContextKeys answers everybody: public keys are public, and services that verify have no key of copse.
func (s *Server) serveContextKeys(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "public, max-age=60")
	_, _ = w.Write(s.contexts.KeySet())
}
