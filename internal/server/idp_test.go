package server_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/copse-authz/copse/internal/api"
)

const audience = "https://api.example.com"

// idp is an identity provider that publishes what it is told and signs anything. It shares no code with
// the development issuer: what one of them gets wrong in copse's favour, the other does not.
type idp struct {
	t   testing.TB
	URL string
	key *signingKey // signs what token makes

	mu        sync.Mutex
	published []*signingKey
	keysURL   string // what the discovery document names
	claimed   string // as whose it is
	fetches   atomic.Int64
	// serveKeys, when set, answers for the key set.
	serveKeys http.HandlerFunc
}

// newIDP starts a provider with one ES256 key.
func newIDP(t testing.TB) *idp { return newIDPs(t, "main")[0] }

// newIDPs starts providers that share a host, as tenants of one identity service do.
func newIDPs(t testing.TB, names ...string) []*idp {
	mux := http.NewServeMux()
	host := httptest.NewServer(mux)
	t.Cleanup(host.Close)
	var out []*idp
	for _, name := range names {
		p := &idp{t: t, URL: host.URL + "/" + name, key: newKey(t, "key-1", "ES256")}
		p.published, p.keysURL, p.claimed = []*signingKey{p.key}, p.URL+"/keys", p.URL
		mux.HandleFunc("GET /"+name+"/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
			p.mu.Lock()
			defer p.mu.Unlock()
			_ = json.NewEncoder(w).Encode(map[string]any{"issuer": p.claimed, "jwks_uri": p.keysURL})
		})
		mux.HandleFunc("GET /"+name+"/keys", p.answerKeys)
		out = append(out, p)
	}
	return out
}

func (p *idp) answerKeys(w http.ResponseWriter, r *http.Request) {
	p.fetches.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.serveKeys != nil {
		p.serveKeys(w, r)
		return
	}
	set := []any{}
	for _, k := range p.published {
		set = append(set, k.jwk())
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	_ = json.NewEncoder(w).Encode(map[string]any{"keys": set})
}

func (p *idp) publish(keys ...*signingKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.published = keys
}

// registration is how the tests register a provider unless they say otherwise: access tokens of
// everyone, with roles.
func (p *idp) registration(tenants ...string) api.Issuer {
	return api.Issuer{
		URL: p.URL, Tenants: tenants, AllTenants: len(tenants) == 0,
		TokenType: "access", Audiences: []string{audience}, Algorithms: []string{"ES256"},
		TenantClaim: "tenant_id", PrincipalType: "User", GroupType: "Role", GroupClaim: "roles",
	}
}

func (p *idp) register(s *site, in api.Issuer) api.Issuer {
	p.t.Helper()
	return decode[api.Issuer](p.t, s.must(201, "POST", "/v1/issuers", in))
}

// claims are those of a good token.
func (p *idp) claims(tenant, user string, roles ...string) jwt.MapClaims {
	now := time.Now()
	return jwt.MapClaims{
		"iss": p.URL, "aud": audience, "sub": user, "tenant_id": tenant, "roles": append([]string{}, roles...),
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
}

func (p *idp) token(tenant, user string, roles ...string) string {
	p.t.Helper()
	return p.key.token(p.t, nil, p.claims(tenant, user, roles...))
}

// signingKey is a key pair with the name and algorithm it is published under.
type signingKey struct {
	id, alg string
	private crypto.Signer
}

// One RSA key is enough for all tests: they tell keys apart by the ES256 ones.
var rsaKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func newKey(t testing.TB, id, alg string) *signingKey {
	t.Helper()
	var private crypto.Signer
	var err error
	if alg == "ES256" {
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	} else {
		private, err = rsaKey()
	}
	if err != nil {
		t.Fatal(err)
	}
	return &signingKey{id, alg, private}
}

func (k *signingKey) jwk() map[string]any {
	out := map[string]any{"kid": k.id, "use": "sig", "alg": k.alg}
	switch public := k.private.Public().(type) {
	case *ecdsa.PublicKey:
		raw, _ := public.Bytes() // 4, x, y
		out["kty"], out["crv"] = "EC", "P-256"
		out["x"], out["y"] = encode64(raw[1:33]), encode64(raw[33:])
	case *rsa.PublicKey:
		out["kty"], out["n"] = "RSA", encode64(public.N.Bytes())
		out["e"] = encode64(big.NewInt(int64(public.E)).Bytes())
	}
	return out
}

// token signs claims under the header of a good token, changed by what header says.
func (k *signingKey) token(t testing.TB, header map[string]any, claims any) string {
	t.Helper()
	full := map[string]any{"alg": k.alg, "kid": k.id, "typ": "JWT"}
	for name, value := range header {
		if full[name] = value; value == nil {
			delete(full, name)
		}
	}
	return k.sign(t, k.alg, full, claims)
}

// sign is the bare act: any header and claims, as text or as values, under any algorithm the key can do.
func (k *signingKey) sign(t testing.TB, alg string, header, claims any) string {
	t.Helper()
	return signWith(t, alg, k.private, header, claims)
}

func signWith(t testing.TB, alg string, key, header, claims any) string {
	t.Helper()
	signed := segment(t, header) + "." + segment(t, claims)
	signature, err := jwt.GetSigningMethod(alg).Sign(signed, key)
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + encode64(signature)
}

// segment encodes text as it is, and anything else as JSON.
func segment(t testing.TB, v any) string {
	t.Helper()
	if text, ok := v.(string); ok {
		return encode64([]byte(text))
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return encode64(text)
}

func encode64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
