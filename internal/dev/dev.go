// Package dev is what `copse dev` has and `copse serve` has not: development token issuers for any
// tenant name, the sample SaaS of examples/payments onboarded, and a tour of requests with the answer
// each must give.
//
// None of it is linked into the routes of a server for real use: it enters through
// server.Config.ExtraRoutes only.
package dev

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/server"
)

// Config is what a development server can be told. The zero value works.
type Config struct {
	// Server is the base; its DataDir empty means a temporary directory that Close removes. Private
	// and http issuers are always allowed.
	Server server.Config
	// NoSamples leaves the sample tenants out.
	NoSamples bool
}

// Dev is a running development server.
type Dev struct {
	Server *server.Server
}

// Start opens, listens, serves in the background, onboards the samples (again, when the data directory
// was kept: nothing is doubled), and returns when all of it answers. It ends when ctx does.
func Start(ctx context.Context, cfg Config) (*Dev, error) { panic("being written") }

// URL is the base URL of the API, for COPSE_URL.
func (d *Dev) URL() string { panic("being written") }

// Credential is the root credential, for COPSE_KEY.
func (d *Dev) Credential() access.Secret { panic("being written") }

// Wait returns when the server has ended, with its error.
func (d *Dev) Wait() error { panic("being written") }

// Close ends the server, waits for it, and removes a temporary data directory.
func (d *Dev) Close() error { panic("being written") }

// WriteIntro prints what to paste: COPSE_URL and COPSE_KEY, the issuers, and a curl line with a real
// token for every case of the tour, with the answer it must give.
func (d *Dev) WriteIntro(ctx context.Context, w io.Writer) error { panic("being written") }

// Row is one request of the tour, and what came of it.
type Row struct {
	Name        string
	Asked       string // "acme: alice approve invoice 17"
	Expected    string // "200 ALLOW", "403"
	Got         string
	Determining []string // names of the determining policies
	Elapsed     time.Duration
	OK          bool
}

// Tour asks every case over HTTP and returns all rows. The error is not nil when a row is not OK.
func (d *Dev) Tour(ctx context.Context, client *http.Client) ([]Row, error) { panic("being written") }

// TokenRequest asks a development issuer for a token.
type TokenRequest struct {
	// Issuer is the issuer's name: a tenant id or "shared". Empty: Tenant.
	Issuer string
	// Tenant is the tenant the token claims.
	Tenant  copse.TenantID
	User    string
	Groups  []string
	Claims  map[string]any // further claims; they win over the ones made from the members above
	Expires time.Duration  // from now; negative makes an expired token; 0 = one hour
}

// Mint asks the development server at baseURL for a token. Client nil: http.DefaultClient.
func Mint(ctx context.Context, client *http.Client, baseURL string, in TokenRequest) (string, error) {
	panic("being written")
}
