package token

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"

	"github.com/copse-authz/copse"
)

func TestCheckURL(t *testing.T) {
	strict, private, all := FetchPolicy{}, FetchPolicy{AllowPrivate: true}, FetchPolicy{AllowPrivate: true, AllowHTTP: true}
	type verdict struct{ strict, private, all bool }
	always, never := verdict{true, true, true}, verdict{}
	withPrivate, withBoth := verdict{false, true, true}, verdict{false, false, true}
	cases := map[string]verdict{
		"https://idp.example":                      always,
		"https://idp.example/":                     always,
		"https://idp.example/pools/1":              always,
		"https://idp.example:8443/x":               always,
		"https://93.184.216.34/x":                  always,
		"https://[2606:2800:220:1::1]/x":           always,
		"https://localhost/x":                      withPrivate,
		"https://LOCALHOST./x":                     withPrivate,
		"https://idp.localhost/x":                  withPrivate,
		"https://127.0.0.1/x":                      withPrivate,
		"https://127.8.9.10/x":                     withPrivate,
		"https://10.1.2.3/x":                       withPrivate,
		"https://172.16.0.1/x":                     withPrivate,
		"https://192.168.1.1/x":                    withPrivate,
		"https://100.64.0.1/x":                     withPrivate,
		"https://[::1]/x":                          withPrivate,
		"https://[fd00::1]/x":                      withPrivate,
		"https://[::ffff:127.0.0.1]/x":             withPrivate,
		"https://[::ffff:10.0.0.1]/x":              withPrivate,
		"https://[::ffff:100.64.0.1]/x":            withPrivate,
		"https://[::ffff:100.100.100.200]/x":       never,
		"https://[64:ff9b::a00:1]/x":               withPrivate,
		"https://[2002:a00:1::1]/x":                withPrivate,
		"https://[::7f00:1]/x":                     withPrivate,
		"https://192.0.2.1/x":                      withPrivate,
		"https://198.18.0.1/x":                     withPrivate,
		"https://255.255.255.255/x":                withPrivate,
		"https://169.254.169.254/latest/meta-data": never,
		"https://[fe80::1]/x":                      never,
		"https://[::ffff:169.254.169.254]/x":       never,
		"https://[fd00:ec2::254]/x":                never,
		"https://100.100.100.200/x":                never,
		"https://0.0.0.0/x":                        never,
		"https://[::]/x":                           never,
		"https://224.0.0.1/x":                      never,
		"http://localhost:8080/x":                  withBoth,
		"http://127.0.0.1:8080/x":                  withBoth,
		"http://[::1]/x":                           withBoth,
		"http://idp.example/x":                     never,
		"http://10.0.0.1/x":                        never,
		"http://127.0.0.1.nip.example/x":           never,
		"HTTPS://idp.example":                      always, // another issuer than https://, but not a worse one
		"ftp://idp.example":                        never,
		"file:///etc/passwd":                       never,
		"idp.example":                              never,
		"//idp.example/x":                          never,
		"https:idp.example":                        never,
		"https://":                                 never,
		"https:///x":                               never,
		"https://user:secret@idp.example/x":        never,
		"https://idp.example/x?tenant=1":           never,
		"https://idp.example/x?":                   never,
		"https://idp.example/x#y":                  never,
		"https://idp.example/x#":                   never,
		"https://idp.example:port/x":               never,
		"https://idp example/x":                    never,
		"https://idp.example/\n":                   never,
		"":                                         never,
		"https://idp.example/" + strings.Repeat("x", maxURLBytes): never,
	}
	for url, want := range cases {
		t.Run(url, func(t *testing.T) {
			got := verdict{strict.CheckURL(url) == nil, private.CheckURL(url) == nil, all.CheckURL(url) == nil}
			if got != want {
				t.Errorf("allowed %+v, want %+v", got, want)
			}
			if (FetchPolicy{AllowHTTP: true}).CheckURL(url) == nil != want.strict {
				t.Error("AllowHTTP alone must change nothing")
			}
			if err := strict.CheckURL(url); err != nil && (copse.KindOf(err) != copse.Invalid || strings.Contains(err.Error(), "secret")) {
				t.Errorf("%v: %v", copse.KindOf(err), err)
			}
		})
	}
}

func TestCheckAddr(t *testing.T) {
	strict, private := FetchPolicy{}, FetchPolicy{AllowPrivate: true, AllowHTTP: true}
	zoned := netip.MustParseAddr("fe80::1%eth0")
	if strict.checkAddr(zoned, false) == nil || private.checkAddr(zoned, false) == nil || private.checkAddr(netip.Addr{}, false) == nil {
		t.Error("an address with a zone, or none at all, was allowed")
	}
	// An IPv4 address behind a translating gateway is looked at as itself.
	for address, allowed := range map[string]bool{
		"64:ff9b::a9fe:a9fe": false, "64:ff9b:1::a9fe:a9fe": false, "64:ff9b:1:a9fe:a9:fe00::": false, "2002:a9fe:a9fe::1": false, "::a9fe:a9fe": false, "64:ff9b::6464:64c8": false,
		"64:ff9b::a00:1": true, "2002:a00:1::1": true,
	} {
		if err := private.checkAddr(netip.MustParseAddr(address), false); (err == nil) != allowed {
			t.Errorf("%s: %v", address, err)
		}
		if strict.checkAddr(netip.MustParseAddr(address), false) == nil {
			t.Errorf("%s is not private", address)
		}
	}
	if private.checkAddr(netip.MustParseAddr("10.0.0.1"), true) == nil {
		t.Error("http to a private address that is not loopback")
	}
	if err := private.checkAddr(netip.MustParseAddr("::ffff:127.0.0.1"), true); err != nil {
		t.Error(err)
	}
}

// The text of a URL can lie about where it leads; the address that is connected to can't.
func TestTheAddressIsCheckedWhenItIsConnectedTo(t *testing.T) {
	p := newProvider(t)
	_, port, err := net.SplitHostPort(p.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(p.Certificate())
	get := func(policy FetchPolicy, url string) error {
		g := newGuarded(policy, roots)
		defer g.CloseIdleConnections()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := g.RoundTrip(r)
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	}
	if err := get(FetchPolicy{AllowPrivate: true}, "https://127.0.0.1:"+port); err != nil {
		t.Fatalf("untampered: %v", err)
	}
	before := p.requests.Load()
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]"} {
		for _, scheme := range []string{"https", "http"} {
			err := get(FetchPolicy{}, scheme+"://"+host+":"+port)
			if err == nil || !strings.Contains(err.Error(), "private") {
				t.Errorf("%s://%s: %v", scheme, host, err)
			}
		}
	}
	if p.requests.Load() != before {
		t.Error("a request came through")
	}
	// The loopback interface's own check does not depend on the policy: http never leaves it.
	err = get(FetchPolicy{AllowPrivate: true, AllowHTTP: true}, "http://192.168.255.254:1")
	if err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("http to a private address: %v", err)
	}
}

func TestProxiesOfTheEnvironmentAreNotUsed(t *testing.T) {
	g := newGuarded(FetchPolicy{}, nil)
	if g.http.Proxy != nil || g.https.Proxy != nil {
		t.Error("a proxy would connect where nothing is checked")
	}
}

// Each case breaks what the issuer publishes; the keys are then not to be had, and a good issuer next
// to it is not affected.
func TestWhatIssuersMustPublish(t *testing.T) {
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
	}
	discovery := func(p *provider, members map[string]any) http.HandlerFunc {
		doc := map[string]any{"issuer": p.URL + "/bad", "jwks_uri": p.URL + "/bad/keys"}
		for name, value := range members {
			doc[name] = value
		}
		return says(text(doc))
	}
	// It answers rightly, so only the scheme can be what is refused.
	plain := httptest.NewServer(says(published(rs256())))
	t.Cleanup(plain.Close)
	const document, keys = "/bad/.well-known/openid-configuration", "/bad/keys"
	for name, breakIt := range map[string]func(p *provider){
		"no discovery document":         func(p *provider) { p.serve(document, http.NotFound) },
		"discovery document redirected": func(p *provider) { p.serve(document, redirect(p.URL+"/pool/.well-known/openid-configuration")) },
		"discovery document of another": func(p *provider) { p.serve(document, discovery(p, map[string]any{"issuer": p.URL + "/pool"})) },
		"issuer with a slash more":      func(p *provider) { p.serve(document, discovery(p, map[string]any{"issuer": p.URL + "/bad/"})) },
		"issuer in capitals": func(p *provider) {
			p.serve(document, discovery(p, map[string]any{"issuer": strings.ToUpper(p.URL) + "/bad"}))
		},
		"issuer missing": func(p *provider) { p.serve(document, says(`{"jwks_uri":"`+p.URL+`/bad/keys"}`)) },
		"issuer twice": func(p *provider) {
			p.serve(document, says(`{"issuer":"x","issuer":"`+p.URL+`/bad","jwks_uri":"`+p.URL+`/bad/keys"}`))
		},
		"issuer in another case": func(p *provider) {
			p.serve(document, says(`{"Issuer":"`+p.URL+`/bad","jwks_uri":"`+p.URL+`/bad/keys"}`))
		},
		"no key set named": func(p *provider) { p.serve(document, says(`{"issuer":"`+p.URL+`/bad"}`)) },
		"key set over http": func(p *provider) {
			p.serve(document, discovery(p, map[string]any{"jwks_uri": plain.URL + "/keys"}))
		},
		"key set in a file": func(p *provider) { p.serve(document, discovery(p, map[string]any{"jwks_uri": "file:///etc/passwd"})) },
		"key set at the metadata": func(p *provider) {
			p.serve(document, discovery(p, map[string]any{"jwks_uri": "https://169.254.169.254/keys"}))
		},
		"key set with a user": func(p *provider) {
			p.serve(document, discovery(p, map[string]any{"jwks_uri": "https://a:b@127.0.0.1/keys"}))
		},
		"key set redirected":           func(p *provider) { p.serve(keys, redirect(p.URL+"/pool/keys")) },
		"key set redirected, relative": func(p *provider) { p.serve(keys, redirect("/pool/keys")) },
		"key set missing":              func(p *provider) { p.serve(keys, http.NotFound) },
		"key set with status 201": func(p *provider) {
			p.serve(keys, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusCreated)
				_, _ = w.Write([]byte(published(rs256())))
			})
		},
		"key set too large": func(p *provider) {
			p.serve(keys, says(published(rs256())+strings.Repeat(" ", maxDocument)))
		},
		"key set without end": func(p *provider) {
			p.serve(keys, func(w http.ResponseWriter, r *http.Request) {
				for r.Context().Err() == nil {
					if _, err := w.Write(make([]byte, 1<<16)); err != nil {
						return
					}
				}
			})
		},
		"key set is HTML":          func(p *provider) { p.serve(keys, says("<html>")) },
		"key set is a list":        func(p *provider) { p.serve(keys, says("["+published(rs256())+"]")) },
		"key set without keys":     func(p *provider) { p.serve(keys, says("{}")) },
		"key set with keys twice":  func(p *provider) { p.serve(keys, says(`{"keys":[],`+published(rs256())[1:])) },
		"key set with many keys":   func(p *provider) { p.serve(keys, says(`{"keys":[`+strings.Repeat("{},", maxKeys)+`{}]}`)) },
		"key set of deep brackets": func(p *provider) { p.serve(keys, says(`{"keys":`+strings.Repeat("[", 100_000))) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			bad := w.publish("/bad", published(rs256()))
			w.register(bad)
			token := rs256().sign(w.claims(map[string]any{"iss": bad}), nil)
			w.wantAccepted(t, token)
			// Another verifier, which has not seen the good state.
			w2 := newWorld(t, func(c *Config) {
				c.Issuer = w.lookup
				c.RootCAs = x509.NewCertPool()
				c.RootCAs.AddCert(w.Certificate())
			})
			breakIt(w.provider)
			w2.wantRefused(t, token, ReasonKeys)
			w2.wantAccepted(t, w.good())
		})
	}
}

func TestPrivateIssuersNeedPermission(t *testing.T) {
	w := newWorld(t)
	token := w.good()
	w.wantAccepted(t, token)
	strict := newWorld(t, func(c *Config) { c.Issuer, c.Fetch = w.lookup, FetchPolicy{} })
	before := w.requests.Load()
	strict.wantRefused(t, token, ReasonKeys)
	if w.requests.Load() != before {
		t.Error("a request came through")
	}
}

func TestHTTPIssuersNeedPermission(t *testing.T) {
	plain := httptest.NewServer(nil)
	t.Cleanup(plain.Close)
	url := plain.URL + "/pool"
	plain.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/keys") {
			_, _ = rw.Write([]byte(published(rs256())))
			return
		}
		_, _ = rw.Write([]byte(text(map[string]any{"issuer": url, "jwks_uri": url + "/keys"})))
	})
	for name, c := range map[string]struct {
		policy FetchPolicy
		ok     bool
	}{
		"both":         {FetchPolicy{AllowPrivate: true, AllowHTTP: true}, true},
		"private only": {FetchPolicy{AllowPrivate: true}, false},
		"http only":    {FetchPolicy{AllowHTTP: true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(cfg *Config) { cfg.Fetch = c.policy })
			w.register(url)
			token := rs256().sign(w.claims(map[string]any{"iss": url}), nil)
			if c.ok {
				w.wantAccepted(t, token)
			} else {
				w.wantRefused(t, token, ReasonKeys)
			}
		})
	}
}

func TestAStrangersCertificateIsRefused(t *testing.T) {
	w := newWorld(t)
	token := w.good()
	w.wantAccepted(t, token)
	other := newWorld(t, func(c *Config) { c.Issuer, c.RootCAs = w.lookup, x509.NewCertPool() })
	other.wantRefused(t, token, ReasonKeys)
}

func TestUsableKeys(t *testing.T) {
	member := func(s signer, change map[string]any) string {
		k := map[string]any{}
		if err := unmarshalStd([]byte(text(publicJWK(s, "sig", s.method.Alg()))), &k); err != nil {
			t.Fatal(err)
		}
		for name, value := range change {
			if k[name] = value; value == nil {
				delete(k, name)
			}
		}
		return text(k)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	rsaSigner, ec := rs256(), signer{"k", jwt.SigningMethodES256, ecKey()}
	ed := signer{"k", jwt.SigningMethodEdDSA, edKey()}
	even := new(big.Int).Lsh(big.NewInt(1), 2047)
	for name, c := range map[string]struct {
		jwk    string
		usable bool
	}{
		"RSA":                      {member(rsaSigner, nil), true},
		"RSA without use and alg":  {member(rsaSigner, map[string]any{"use": nil, "alg": nil}), true},
		"RSA with certificates":    {member(rsaSigner, map[string]any{"x5c": []string{"garbage"}, "x5u": "https://x.example"}), true},
		"RSA to verify":            {member(rsaSigner, map[string]any{"key_ops": []string{"verify"}}), true},
		"RSA to encrypt":           {member(rsaSigner, map[string]any{"use": "enc"}), false},
		"RSA to wrap keys":         {member(rsaSigner, map[string]any{"key_ops": []string{"wrapKey"}}), false},
		"RSA for no operation":     {member(rsaSigner, map[string]any{"key_ops": []string{}}), false},
		"RSA for RSA-OAEP":         {member(rsaSigner, map[string]any{"alg": "RSA-OAEP"}), false},
		"RSA named for HS256":      {member(rsaSigner, map[string]any{"alg": "HS256"}), false},
		"RSA of 1024 bits":         {member(signer{"k", jwt.SigningMethodRS256, weakRSA()}, nil), false},
		"RSA of 16384 bits":        {member(rsaSigner, map[string]any{"n": b64(append([]byte{0x80}, make([]byte, 2047)...))}), false},
		"RSA with leading zeros":   {member(signer{"k", jwt.SigningMethodRS256, weakRSA()}, map[string]any{"n": b64(append(make([]byte, 256), 1))}), false},
		"RSA with an even modulus": {member(rsaSigner, map[string]any{"n": b64(even.Bytes())}), false},
		"RSA with exponent 1":      {member(rsaSigner, map[string]any{"e": "AQ"}), false},
		"RSA with exponent 2":      {member(rsaSigner, map[string]any{"e": "Ag"}), false},
		"RSA with exponent 3":      {member(rsaSigner, map[string]any{"e": "Aw"}), true},
		"RSA with a huge exponent": {member(rsaSigner, map[string]any{"e": b64([]byte{1, 0, 0, 0, 1})}), false},
		"RSA without exponent":     {member(rsaSigner, map[string]any{"e": nil}), false},
		"RSA with bad base64":      {member(rsaSigner, map[string]any{"n": "!!!"}), false},
		"RSA with a number":        {member(rsaSigner, map[string]any{"n": 1}), false},
		"RSA named EC":             {member(rsaSigner, map[string]any{"kty": "EC"}), false},
		"EC":                       {member(ec, nil), true},
		"EC off the curve":         {member(ec, map[string]any{"y": b64(make([]byte, 32))}), false},
		"EC at infinity":           {member(ec, map[string]any{"x": b64(make([]byte, 32)), "y": b64(make([]byte, 32))}), false},
		"EC cut":                   {member(ec, map[string]any{"x": b64(make([]byte, 31))}), false},
		"EC on another curve":      {member(ec, map[string]any{"crv": "P-384"}), false},
		"EC on secp256k1":          {member(ec, map[string]any{"crv": "secp256k1"}), false},
		"Ed25519":                  {member(ed, nil), true},
		"Ed25519 cut":              {member(ed, map[string]any{"x": b64(make([]byte, 31))}), false},
		"X25519":                   {member(ed, map[string]any{"crv": "X25519"}), false},
		"symmetric":                {`{"kty":"oct","kid":"k","k":"c2VjcmV0"}`, false},
		"kid a number":             {member(rsaSigner, map[string]any{"kid": 1}), false},
		"kid very long":            {member(rsaSigner, map[string]any{"kid": strings.Repeat("k", 300)}), false},
		"not an object":            {`"key"`, false},
		"null":                     {`null`, false},
	} {
		t.Run(name, func(t *testing.T) {
			if !jsontext.Value(c.jwk).IsValid() {
				t.Fatal("the case itself is not JSON")
			}
			set, err := parseKeySet([]byte(`{"keys":[` + c.jwk + `,` + member(ec, map[string]any{"kid": "beside"}) + `]}`))
			if err != nil {
				t.Fatal(err)
			}
			want := 1 // a bad key does not take its neighbour with it
			if c.usable {
				want = 2
			}
			if len(set.keys) != want {
				t.Errorf("%d usable keys, want %d", len(set.keys), want)
			}
		})
	}
}

func TestFingerprintTellsKeySetsApart(t *testing.T) {
	a, b := rs256(), newSigner("k1")
	seen := map[[32]byte]string{}
	for name, keys := range map[string]string{
		"one": published(a), "another": published(b), "both": published(a, b), "none": `{"keys":[]}`,
		"other id":  published(signer{"k2", a.method, a.secret}),
		"other alg": published(signer{"k1", jwt.SigningMethodPS256, a.secret}),
	} {
		set, err := parseKeySet([]byte(keys))
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[set.fingerprint]; ok {
			t.Errorf("%s and %s have one fingerprint", name, other)
		}
		seen[set.fingerprint] = name
	}
}

func TestAFailingRegistryIsNotAnUnknownIssuer(t *testing.T) {
	w := newWorld(t)
	broken := newWorld(t, func(c *Config) {
		c.Issuer = func(context.Context, string) (copse.Issuer, error) {
			return copse.Issuer{}, copse.Errorf(copse.Internal, "disk on fire")
		}
	})
	broken.wantRefused(t, w.good(), ReasonIssuerLookup)
	// A registry that answers with another registration is not to be believed either.
	lying := newWorld(t, func(c *Config) {
		c.Issuer = func(ctx context.Context, _ string) (copse.Issuer, error) { return w.lookup(ctx, w.issuer) }
	})
	lying.wantRefused(t, rs256().sign(w.claims(map[string]any{"iss": w.issuer + "x"}), nil), ReasonIssuer)
}
