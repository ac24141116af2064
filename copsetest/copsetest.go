// Package copsetest runs the real copse inside a test, in three lines:
//
//	srv := copsetest.Start(t)
//	srv.CreateTenant(t, "acme", copsetest.Contents{Policies: map[string]string{"all": "permit (principal, action, resource);"}})
//	answer := srv.Authorize(t, srv.Token(t, "acme", "alice"), `{"action":{"id":"view"},"resource":{"type":"Doc","id":"1"}}`)
//
// It is the server of `copse dev` on a free port of the loopback interface, with its data in a
// temporary directory: the same storage, the same checks of the same tokens, nothing replaced. It ends
// with the test.
package copsetest

import (
	"context"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/dev"
	"github.com/copse-authz/copse/internal/policyfiles"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/server"
	"github.com/copse-authz/copse/internal/tenant"
)

// T is what of *testing.T is used here; *testing.B, *testing.F and rapid's T have it too.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(f func())
}

// Server is a running copse.
type Server struct {
	URL    string // of the API, without a slash at the end: COPSE_URL
	OpsURL string // of /healthz, /readyz and /metrics
	// RootCredential may do everything: COPSE_KEY.
	RootCredential string
	// AccessKeyID and SecretAccessKey are the same key in two parts, for signing with SigV4 as the AWS
	// SDKs do. Any region will do.
	AccessKeyID, SecretAccessKey string

	dev    *dev.Dev
	client *http.Client
}

// Option changes how a server is started.
type Option func(*dev.Config)

// Samples onboards the tenants of examples/payments, each with its own issuer.
func Samples() Option { return func(c *dev.Config) { c.NoSamples = false } }

// DataDir keeps the data in a directory instead of a temporary one, so that a test can stop a server
// and start another on the same data.
func DataDir(dir string) Option { return func(c *dev.Config) { c.Server.DataDir = dir } }

// Log sends the server's log somewhere. Without it there is none.
func Log(log *slog.Logger) Option { return func(c *dev.Config) { c.Server.Log = log } }

// Plan is the plan of every policy store that names none. Without it there are no rates: a test must not
// fail because its machine is fast.
func Plan(name string) Option { return func(c *dev.Config) { c.Server.DefaultPlan = name } }

// Routes gives the server the route table of a file, for requests at gateways, and has it sign contexts as
// https://copse.test.
func Routes(file string) Option {
	return func(c *dev.Config) { c.Server.RoutesFile, c.Server.PublicURL = file, "https://copse.test" }
}

// IssuerKeys has the keys of an issuer fetched from an address on this machine, so that a test can sign
// as an issuer whose name is somebody else's to answer for.
func IssuerKeys(issuer, keysURL string) Option {
	return func(c *dev.Config) {
		c.Server.IssuerEndpoints = append(c.Server.IssuerEndpoints, server.IssuerEndpoint{Issuer: issuer, Keys: keysURL})
	}
}

// Start runs a server until the test ends. Its shared issuer is trusted for every tenant.
func Start(t T, options ...Option) *Server {
	t.Helper()
	cfg := dev.Config{NoSamples: true, Server: server.DefaultConfig()}
	cfg.Server.Listen, cfg.Server.OpsListen = "127.0.0.1:0", "127.0.0.1:0"
	cfg.Server.DefaultPlan = policystore.PlanUnmetered
	for _, o := range options {
		o(&cfg)
	}
	d, err := dev.Start(context.Background(), cfg)
	if err != nil {
		t.Fatalf("copsetest: %v", err)
	}
	id, secret := d.Server.RootKey()
	s := &Server{
		URL: d.URL(), OpsURL: d.Server.OpsURL(),
		RootCredential: string(d.Credential()), AccessKeyID: id, SecretAccessKey: string(secret),
		dev: d, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}},
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Fatalf("copsetest: the server did not end cleanly: %v", err)
		}
	})
	return s
}

// Close ends the server before the test does. It is idempotent.
func (s *Server) Close() error {
	s.client.CloseIdleConnections()
	return s.dev.Close()
}

// Contents is what a tenant starts with.
type Contents struct {
	Schema   string            // in Cedar's own syntax; empty: none, and nothing is validated
	Policies map[string]string // by name
}

// Tenant is a tenant that was created.
type Tenant struct {
	ID            copse.TenantID
	PolicyStoreID copse.PolicyStoreID
}

// CreateTenant onboards a tenant.
func (s *Server) CreateTenant(t T, id copse.TenantID, contents Contents) Tenant {
	t.Helper()
	in := tenant.NewTenant{ID: id}
	if contents.Schema != "" {
		in.Schema = &policystore.SchemaText{Cedar: contents.Schema}
	}
	for _, name := range slices.Sorted(maps.Keys(contents.Policies)) {
		in.Policies = append(in.Policies, policystore.PolicyText{Name: name, Statement: contents.Policies[name]})
	}
	return s.create(t, in)
}

// CreateTenantFrom onboards a tenant from a directory: its schema, and its .cedar files.
func (s *Server) CreateTenantFrom(t T, id copse.TenantID, fsys fs.FS) Tenant {
	t.Helper()
	contents, err := policyfiles.Read(fsys, ".")
	if err != nil {
		t.Fatalf("copsetest: tenant %s: %v", id, err)
	}
	return s.create(t, tenant.NewTenant{ID: id, Schema: contents.Schema, Templates: contents.Templates, Policies: contents.Policies})
}

func (s *Server) create(t T, in tenant.NewTenant) Tenant {
	t.Helper()
	created, err := s.dev.Server.Tenants.Create(context.Background(), access.System(), in)
	if err != nil {
		t.Fatalf("copsetest: tenant %s: %v", in.ID, err)
	}
	return Tenant{ID: created.ID, PolicyStoreID: created.PolicyStoreID}
}

// TrustIssuer registers the development issuer of a name, to speak for the tenants given and no other.
// Its tokens are had with the option From.
func (s *Server) TrustIssuer(t T, name string, tenants ...copse.TenantID) {
	t.Helper()
	in := dev.Registration(s.URL, name)
	in.Tenants = tenants
	if _, err := s.dev.Server.Tenants.AddIssuer(context.Background(), access.System(), in); err != nil {
		t.Fatalf("copsetest: issuer %s: %v", name, err)
	}
}

// TokenOption changes a token.
type TokenOption func(*dev.TokenRequest)

// From has the token signed by the development issuer of a name, instead of the shared one.
func From(issuer string) TokenOption { return func(r *dev.TokenRequest) { r.Issuer = issuer } }

// Groups puts the user into groups: entities of type Role.
func Groups(groups ...string) TokenOption {
	return func(r *dev.TokenRequest) { r.Groups = append(r.Groups, groups...) }
}

// Claim adds a claim, or replaces one: policies find it as context.token.<name>.
func Claim(name string, value any) TokenOption {
	return func(r *dev.TokenRequest) {
		if r.Claims == nil {
			r.Claims = map[string]any{}
		}
		r.Claims[name] = value
	}
}

// Token is a signed token of the shared development issuer, good for an hour. The principal it stands
// for is of type User.
func (s *Server) Token(t T, id copse.TenantID, user string, options ...TokenOption) string {
	t.Helper()
	in := dev.TokenRequest{Issuer: dev.Shared, Tenant: id, User: user}
	for _, o := range options {
		o(&in)
	}
	token, err := dev.Mint(context.Background(), s.client, s.URL, in)
	if err != nil {
		t.Fatalf("copsetest: token: %v", err)
	}
	return token
}

// Answer is what /v1/authorize said.
type Answer struct {
	Status   int    // 200 for a decision
	Decision string // "ALLOW" or "DENY"
	Revision uint64
	Reason   string
	// Policies that determined the decision, by name, sorted; those without a name by id.
	Policies []string
	Body     string // as it came
}

type wireAnswer struct {
	Decision    string `json:"decision"`
	Revision    uint64 `json:"revision"`
	Reason      string `json:"reason"`
	Determining []struct {
		ID   string `json:"policyId"`
		Name string `json:"policyName"`
	} `json:"determiningPolicies"`
}

// Authorize asks /v1/authorize, with the root key, so that the answer names the policies.
func (s *Server) Authorize(t T, token, body string) Answer {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, s.URL+"/v1/authorize", strings.NewReader(body))
	if err != nil {
		t.Fatalf("copsetest: %v", err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("X-Copse-Key", s.RootCredential)
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatalf("copsetest: %v", err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("copsetest: %v", err)
	}
	answer := Answer{Status: resp.StatusCode, Body: string(text)}
	if resp.StatusCode != http.StatusOK {
		return answer
	}
	var wire wireAnswer
	if err := json.Unmarshal(text, &wire); err != nil {
		t.Fatalf("copsetest: the answer %q: %v", text, err)
	}
	answer.Decision, answer.Revision, answer.Reason = wire.Decision, wire.Revision, wire.Reason
	for _, p := range wire.Determining {
		name := p.Name
		if name == "" {
			name = p.ID
		}
		answer.Policies = append(answer.Policies, name)
	}
	slices.Sort(answer.Policies)
	return answer
}
