package pep_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/bound"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/server"
	"github.com/copse-authz/copse/internal/tenant"
	"github.com/copse-authz/copse/pep"
	"github.com/copse-authz/copse/remote"
)

// services are copse's own, in this process, with what embedded.PDP has of them and also what changes
// them.
type services struct{ *server.Server }

func (s services) Decide(ctx context.Context, r *copse.Request) (copse.Response, error) {
	return s.PolicyStores.Decider().Decide(ctx, r)
}
func (s services) Lookup(ctx context.Context, t copse.TenantID) (copse.DirectoryEntry, error) {
	return s.Tenants.Lookup(ctx, t)
}
func (s services) Issuer(ctx context.Context, url string) (copse.Issuer, error) {
	return s.Tenants.Issuer(ctx, url)
}
func (s services) IdentitySource(ctx context.Context, id copse.PolicyStoreID, i copse.Incarnation) (*copse.IdentitySource, error) {
	return s.PolicyStores.IdentitySource(ctx, id, i)
}

// signer is a key pair that the test signs with.
type signer struct {
	kid string
	key *ecdsa.PrivateKey
}

func newSigner(t testing.TB, kid string) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer{kid, key}
}

func (s signer) sign(t testing.TB, typ string, claims jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	token.Header["kid"], token.Header["typ"] = s.kid, typ
	if s.kid == "" {
		delete(token.Header, "kid")
	}
	text, err := token.SignedString(s.key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (s signer) keySet(t testing.TB) []byte {
	t.Helper()
	raw, err := s.key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	text, err := json.Marshal(map[string]any{"keys": []any{map[string]any{
		"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": s.kid, "x": b64(raw[1:33]), "y": b64(raw[33:]),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// provider is an identity provider: one key, several issuers.
type provider struct {
	*httptest.Server
	signer
}

func newProvider(t testing.TB) *provider {
	p := &provider{signer: newSigner(t, "idp-1")}
	mux := http.NewServeMux()
	keys := p.keySet(t)
	mux.HandleFunc("GET /{issuer}/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		url := p.URL + "/" + r.PathValue("issuer")
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": url, "jwks_uri": url + "/keys"})
	})
	mux.HandleFunc("GET /{issuer}/keys", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(keys) })
	p.Server = httptest.NewTLSServer(mux)
	t.Cleanup(p.Close)
	return p
}

func (p *provider) roots() *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AddCert(p.Certificate())
	return roots
}

func (p *provider) registration(name string, tenants ...copse.TenantID) copse.Issuer {
	return copse.Issuer{
		URL: p.URL + "/" + name, Tenants: tenants, TokenType: copse.TokenAccess, Audiences: []string{"api"},
		Algorithms: []string{"ES256"}, TenantClaim: "tenant_id", PrincipalType: "User", PrincipalIDPrefix: name,
		GroupType: "Role", GroupClaim: "roles",
	}
}

// token of a clerk, changed by pairs of claim and value.
func (p *provider) token(t testing.TB, issuer, tenant string, change jwt.MapClaims) string {
	t.Helper()
	claims := jwt.MapClaims{
		"iss": p.URL + "/" + issuer, "aud": "api", "sub": "alice", "tenant_id": tenant, "roles": []string{"clerk"},
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}
	maps.Copy(claims, change)
	return p.sign(t, "JWT", claims)
}

// world is two tenants, their provider, and a service with one protected route.
type world struct {
	*provider
	services
	guard    *pep.PEP
	registry *prometheus.Registry
	service  *httptest.Server
	gateway  signer
	// asked is how often the hook ran, handled how often the handler; seen is its last request.
	asked, handled int
	seen           *http.Request
	who            *pep.Identity
}

// Clerks of either issuer of acme.
const acmePolicy = `permit (principal, action == Action::"view", resource is Invoice)
when { resource.amount <= 1000 && (principal in Role::"main|clerk" || principal in Role::"second|clerk") };`

func newWorld(t *testing.T, adjust ...func(*world, *pep.Config)) *world {
	t.Helper()
	cfg := server.DefaultConfig()
	cfg.InMemory, cfg.NoRates, cfg.AllowPrivateIssuers = true, true, true
	cfg.DrainDelay = 0
	cfg.Listen, cfg.OpsListen = "127.0.0.1:0", "127.0.0.1:0"
	s, err := server.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{provider: newProvider(t), services: services{s}, registry: prometheus.NewRegistry(), gateway: newSigner(t, "ctx-1")}
	w.createTenant(t, "acme", acmePolicy)
	w.createTenant(t, "globex", `permit (principal, action, resource);`)
	w.trust(t, w.registration("main", "acme"))
	w.trust(t, w.registration("globex", "globex"))
	conf := pep.Config{PDP: w.pdp(t), AllowPrivateIssuers: true, RootCAs: w.roots(), Metrics: w.registry}
	for _, f := range adjust {
		f(w, &conf)
	}
	if w.guard, err = pep.New(conf); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.guard.Close() })
	mux := http.NewServeMux()
	mux.Handle("/invoices/{id}", w.guard.Require(w.hook)(http.HandlerFunc(w.handle)))
	w.service = httptest.NewServer(mux)
	t.Cleanup(w.service.Close)
	return w
}

// remotely is whether the PDPs of worlds are of package remote: every test of this package runs with both.
var remotely = false

func TestMain(m *testing.M) {
	code := m.Run()
	remotely = true
	os.Exit(max(code, m.Run()))
}

// pdp decides in this process, or by asking a server on a socket with a key that may only do that.
func (w *world) pdp(t *testing.T) pep.PDP {
	if !remotely {
		return w.services
	}
	if err := w.services.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- w.services.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	key, secret, err := w.Access.CreateKey(t.Context(), access.System(), access.Key{Scope: access.Scope{All: true}, Verbs: access.Decide})
	if err != nil {
		t.Fatal(err)
	}
	// Read again for every question: these tests are about what is true now.
	p, err := remote.NewPDP(remote.PDPOptions{URL: w.services.URL(), Key: "copse_" + key.ID + "_" + string(secret), RereadAfter: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func (w *world) createTenant(t testing.TB, id copse.TenantID, policy string) {
	t.Helper()
	_, err := w.Tenants.Create(t.Context(), access.System(), tenant.NewTenant{ID: id, Policies: []policystore.PolicyText{{Name: "one", Statement: policy}}})
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) trust(t testing.TB, in copse.Issuer) copse.Issuer {
	t.Helper()
	out, err := w.Tenants.AddIssuer(t.Context(), access.System(), in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// invoice is described by its id: "900" is of amount 900.
func invoice(id string) pep.Question {
	return pep.Ask("view", "Invoice", id).WithEntities(fmt.Appendf(nil,
		`[{"uid":{"type":"Invoice","id":%q},"attrs":{"amount":%s},"parents":[]}]`, id, id))
}

func (w *world) hook(r *http.Request, _ *pep.Identity) (pep.Question, error) {
	w.asked++
	switch id := r.PathValue("id"); id {
	case "absent":
		return pep.Question{}, copse.NotFoundError("INVOICE", id)
	case "broken":
		return pep.Question{}, fmt.Errorf("the database is away")
	case "principal": // a service that is talked into describing the user
		return pep.Ask("view", "Invoice", "1").WithEntities([]byte(`[{"uid":{"type":"User","id":"main|alice"},"attrs":{},"parents":[]}]`)), nil
	default:
		if _, err := bound.Tenant(r.Context()); err != nil {
			return pep.Question{}, err
		}
		return invoice(strings.TrimSuffix(id, "€")), nil
	}
}

func (w *world) handle(rw http.ResponseWriter, r *http.Request) {
	w.handled++
	_, _ = io.Copy(io.Discard, r.Body)
	w.seen, w.who = r, pep.From(r.Context())
	tenant, err := bound.Tenant(r.Context())
	_, _ = fmt.Fprintf(rw, "%s %v", tenant, err)
}

// get asks the service; headers are pairs of name and value, sent as they are spelled.
func (w *world) get(t testing.TB, path, token string, headers ...string) (status int, body string) {
	t.Helper()
	return w.send(t, http.MethodGet, path, token, headers...)
}

func (w *world) send(t testing.TB, method, path, token string, headers ...string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, w.service.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header[headers[i]] = append(r.Header[headers[i]], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func (w *world) count(t testing.TB, result string) float64 {
	t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "copse_pep_requests_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			if m.GetLabel()[0].GetValue() == result {
				return m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("there is no counter of the result %q", result)
	return 0
}

// wantRefused sends a request that must not reach the handler, and sees it counted.
func (w *world) wantRefused(t *testing.T, status int, result, method, path, token string, headers ...string) {
	t.Helper()
	handled, before := w.handled, w.count(t, result)
	got, body := w.send(t, method, path, token, headers...)
	if got != status || w.handled != handled {
		t.Errorf("%s %s: %d %s, want %d; the handler ran %d times", method, path, got, body, status, w.handled-handled)
	}
	if after := w.count(t, result); after != before+1 {
		t.Errorf("%s %s: counted %v times as %s", method, path, after-before, result)
	}
}

// contextClaims are those of a good signed context for GET /invoices/900 with this token.
func (w *world) contextClaims(token string, change jwt.MapClaims) jwt.MapClaims {
	hash := sha256.Sum256([]byte(token))
	claims := jwt.MapClaims{
		"iss": "https://copse.example", "aud": "invoices", "tenant": "acme",
		"principal": map[string]string{"type": "User", "id": "main|alice"}, "did": "decision-7",
		"ath": base64.RawURLEncoding.EncodeToString(hash[:]), "htm": "GET", "path": "/invoices/900",
		"iat": time.Now().Unix(), "exp": time.Now().Add(30 * time.Second).Unix(),
	}
	for name, value := range change {
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
	}
	return claims
}
