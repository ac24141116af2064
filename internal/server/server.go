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
	"fmt"
	"net"

	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/tenant"
	"github.com/copse-authz/copse/internal/token"
)

// ErrAddressInUse is wrapped by [AddressError] when the port is taken.
var ErrAddressInUse = errors.New("address already in use")

// AddressError says which address could not be listened on.
type AddressError struct {
	Setting string // "listen" or "ops-listen"
	Address string
	Err     error
}

func (e *AddressError) Error() string {
	return fmt.Sprintf("--%s %s: %v", e.Setting, e.Address, e.Err)
}

func (e *AddressError) Unwrap() error { return e.Err }

// Server is copse, wired.
type Server struct {
	Access       *access.Service
	PolicyStores *policystore.Service
	Tenants      *tenant.Service
	Verifier     *token.Verifier
}

// Open makes the services and finishes what a former process left half done. Close ends them; Serve
// does so by itself.
func Open(ctx context.Context, cfg Config) (*Server, error) { panic("being written") }

// RootCredential is the root key as "copse_<id>_<secret>".
func (s *Server) RootCredential() access.Secret { panic("being written") }

// Listen binds both listeners without answering yet. An *AddressError wraps ErrAddressInUse when a
// port is taken.
func (s *Server) Listen() error { panic("being written") }

// URL is the base URL of the API, without a slash at the end; OpsURL that of the operations listener,
// empty when there is none. Both are known after Listen, and are made from the listener's own address.
func (s *Server) URL() string { panic("being written") }

// OpsURL see URL.
func (s *Server) OpsURL() string { panic("being written") }

// Addr is the address the API listens on, after Listen.
func (s *Server) Addr() net.Addr { panic("being written") }

// Serve answers requests until ctx ends, then lets those under way finish for at most ShutdownTimeout,
// and closes everything. It calls Listen when nobody did. Its error is nil after a clean end.
func (s *Server) Serve(ctx context.Context) error { panic("being written") }

// Routes is the route table of the API's listener.
func (s *Server) Routes() []Route { panic("being written") }

// Close ends the services and the backend. It is idempotent.
func (s *Server) Close() error { panic("being written") }
