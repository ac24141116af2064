package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	stdjson "encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json"
	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
)

// signer is a key pair with the id it is published under. Keys come from golang-jwt and jwkset, so
// that what is verified here was made by somebody else's code.
type signer struct {
	kid    string
	method jwt.SigningMethod
	secret crypto.Signer
}

var (
	rsaKey   = sync.OnceValue(func() crypto.Signer { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	otherRSA = sync.OnceValue(func() crypto.Signer { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	weakRSA  = sync.OnceValue(func() crypto.Signer { return must(rsa.GenerateKey(rand.Reader, 1024)) })
	ecKey    = sync.OnceValue(func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	ec384    = sync.OnceValue(func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) })
	ec521    = sync.OnceValue(func() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)) })
	edKey    = sync.OnceValue(func() crypto.Signer {
		_, secret, err := ed25519.GenerateKey(rand.Reader)
		return must(secret, err)
	})
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func rs256() signer { return signer{"k1", jwt.SigningMethodRS256, rsaKey()} }

// raw signs header and payload as they are, whatever they say.
func (s signer) raw(header, payload string) string {
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	return text + "." + base64.RawURLEncoding.EncodeToString(must(s.method.Sign(text, s.secret)))
}

// sign makes an ordinary token; header members are added or, with nil, removed.
func (s signer) sign(claims map[string]any, header map[string]any) string {
	h := map[string]any{"alg": s.method.Alg(), "typ": "JWT", "kid": s.kid}
	for name, value := range header {
		if h[name] = value; value == nil {
			delete(h, name)
		}
	}
	return s.raw(text(h), text(claims))
}

func timeNow() int64 { return time.Now().Unix() }

// unmarshalStd is for cedar-go's types, which read themselves.
func unmarshalStd(b []byte, v any) error { return stdjson.Unmarshal(b, v) }

func text(v any) string { return string(must(json.Marshal(v, json.Deterministic(true)))) }

// published is the key set that holds the signers' public keys.
func published(signers ...signer) string {
	keys := []any{}
	for _, s := range signers {
		keys = append(keys, publicJWK(s, "sig", s.method.Alg()))
	}
	return text(map[string]any{"keys": keys})
}

func publicJWK(s signer, use, alg string) jwkset.JWKMarshal {
	k := must(jwkset.NewJWKFromKey(s.secret.Public(), jwkset.JWKOptions{
		Metadata: jwkset.JWKMetadataOptions{KID: s.kid, USE: jwkset.USE(use), ALG: jwkset.ALG(alg)},
		Validate: jwkset.JWKValidateOptions{SkipAll: true},
	}))
	return k.Marshal()
}

// provider is an identity provider's web site: it serves documents and counts requests.
type provider struct {
	*httptest.Server
	mu       sync.Mutex
	answers  map[string]http.HandlerFunc
	requests atomic.Int64
}

func newProvider(t testing.TB) *provider {
	t.Helper()
	p := &provider{answers: map[string]http.HandlerFunc{}}
	p.Server = httptest.NewTLSServer(p)
	t.Cleanup(p.Close)
	return p
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.requests.Add(1)
	p.mu.Lock()
	answer := p.answers[r.URL.Path]
	p.mu.Unlock()
	if answer == nil {
		http.NotFound(w, r)
		return
	}
	answer(w, r)
}

func (p *provider) serve(path string, answer http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers[path] = answer
}

func says(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }
}

// publish makes base+path an issuer with these keys and returns its URL.
func (p *provider) publish(path string, keys string) string {
	url := p.URL + path
	p.serve(path+"/.well-known/openid-configuration", says(text(map[string]any{"issuer": url, "jwks_uri": url + "/keys"})))
	p.serve(path+"/keys", says(keys))
	return url
}

// world is a verifier with the registrations it trusts, and one good issuer among them.
type world struct {
	*provider
	*Verifier
	registry *prometheus.Registry
	issuer   string // URL of the good one

	regs struct {
		sync.Mutex
		byURL map[string]copse.Issuer
	}
}

func newWorld(t testing.TB, adjust ...func(*Config)) *world {
	t.Helper()
	w := &world{provider: newProvider(t), registry: prometheus.NewRegistry()}
	w.regs.byURL = map[string]copse.Issuer{}
	w.issuer = w.publish("/pool", published(rs256()))
	w.register(w.issuer)
	roots := x509.NewCertPool()
	roots.AddCert(w.Certificate())
	cfg := Config{Issuer: w.lookup, Fetch: FetchPolicy{AllowPrivate: true}, RootCAs: roots, Metrics: w.registry}
	for _, f := range adjust {
		f(&cfg)
	}
	v, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	w.Verifier = v
	return w
}

func (w *world) lookup(_ context.Context, url string) (copse.Issuer, error) {
	w.regs.Lock()
	defer w.regs.Unlock()
	iss, ok := w.regs.byURL[url]
	if !ok {
		return copse.Issuer{}, copse.NotFoundError(copse.ResourceIssuer, url)
	}
	return iss, nil
}

// register trusts an issuer for tenant acme, with everything else usual, or as adjusted.
func (w *world) register(url string, adjust ...func(*copse.Issuer)) {
	w.regs.Lock()
	defer w.regs.Unlock()
	iss, ok := w.regs.byURL[url]
	if !ok {
		iss = copse.Issuer{
			ID: "id-of-" + url, URL: url, Tenants: []copse.TenantID{"acme"}, TokenType: copse.TokenAccess,
			Audiences: []string{"api"}, ClientIDs: []string{"web"}, Algorithms: []string{"RS256"},
			TenantClaim: "tenant_id", PrincipalType: "App::User", PrincipalIDPrefix: "pool",
			GroupType: "App::Group", GroupClaim: "groups", CreatedAt: time.Now(),
		}
	}
	for _, f := range adjust {
		f(&iss)
	}
	iss.Revision++
	iss.UpdatedAt = time.Now()
	w.regs.byURL[url] = iss
}

// claims of a good access token of the good issuer; with nil, a claim is removed.
func (w *world) claims(change map[string]any) map[string]any {
	now := time.Now().Unix()
	c := map[string]any{
		"iss": w.issuer, "sub": "alice", "aud": "api", "tenant_id": "acme",
		"iat": now, "exp": now + 3600, "scope": "read write", "groups": []string{"admins", "staff"},
	}
	maps.Copy(c, change)
	for name, value := range c {
		if value == nil {
			delete(c, name)
		}
	}
	return c
}

func (w *world) good() string { return rs256().sign(w.claims(nil), nil) }

func (w *world) failures(t testing.TB) map[string]float64 {
	t.Helper()
	return counts(t, w.registry, "copse_token_failures_total")
}

// counts reads a counter, by its only label or by "".
func counts(t testing.TB, g prometheus.Gatherer, name string) map[string]float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			label := ""
			if len(m.GetLabel()) > 0 {
				label = m.GetLabel()[0].GetValue()
			}
			out[label] = m.GetCounter().GetValue()
		}
	}
	return out
}

// wantRefused verifies a bad token and checks the answer and the metric.
func (w *world) wantRefused(t *testing.T, token string, reason Reason) {
	t.Helper()
	kind := copse.Unauthenticated
	switch reason {
	case ReasonTenant:
		kind = copse.Denied
	case ReasonKeys, ReasonIssuerLookup:
		kind = copse.Unavailable
	default:
	}
	before := w.failures(t)
	v, err := w.Verify(t.Context(), token)
	if v != nil || err == nil {
		t.Fatalf("accepted: %+v", v)
	}
	if copse.KindOf(err) != kind || ReasonOf(err) != reason {
		t.Errorf("%v, reason %q: %v; want %v, %q", copse.KindOf(err), ReasonOf(err), err, kind, reason)
	}
	after := w.failures(t)
	for _, r := range Reasons() {
		want := before[string(r)]
		if r == reason {
			want++
		}
		if after[string(r)] != want {
			t.Errorf("failures of reason %s: %v, want %v", r, after[string(r)], want)
		}
	}
}

func (w *world) wantAccepted(t testing.TB, token string) *Verified {
	t.Helper()
	v, err := w.Verify(t.Context(), token)
	if err != nil {
		t.Fatalf("a good token is refused: %v (%v)", err, ReasonOf(err))
	}
	return v
}

func TestAGoodTokenVerifies(t *testing.T) {
	w := newWorld(t)
	token := w.good()
	v := w.wantAccepted(t, token)
	if v.Issuer != w.issuer || v.Tenant != "acme" || v.Principal.Type != "App::User" || v.Principal.ID != "pool|alice" {
		t.Errorf("%+v", v)
	}
	if again := w.wantAccepted(t, token); again != v {
		t.Error("the same token was verified twice within a minute")
	}
	if hits, misses := counts(t, w.registry, "copse_token_cache_hits_total")[""], counts(t, w.registry, "copse_token_cache_misses_total")[""]; hits != 1 || misses != 1 {
		t.Errorf("%v hits, %v misses", hits, misses)
	}
	if !slices.Equal(v.ReservedTypes, []types.EntityType{"App::User", "App::Group"}) {
		t.Errorf("reserved %v", v.ReservedTypes)
	}
}
