package server_test

import (
	"bytes"
	"compress/flate"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/copse-authz/copse/internal/token"
)

// field is where the attacks of this file take place: a tenant with a neighbour, three identity
// providers, and a listener that nobody but an attacker's token names.
type field struct {
	*site
	es, rs, id *idp // access tokens under ES256, the same under RS256 or PS256, ID tokens
	thief      *signingKey
	canary     string
	touched    atomic.Int64 // requests the canary got
}

func newField(t *testing.T) *field {
	f := &field{site: start(t), thief: newKey(t, "key-1", "ES256")}
	canary := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		f.touched.Add(1)
		fmt.Fprint(w, `{"keys":[]}`)
	}))
	t.Cleanup(canary.Close)
	f.canary = canary.URL
	f.onboard("acme", map[string]string{"view": aliceViews, "admins": adminViews})
	f.onboard("other", map[string]string{"view": aliceViews})

	ps := newIDPs(t, "es", "rs", "id")
	f.es, f.rs, f.id = ps[0], ps[1], ps[2]
	f.es.publish(f.es.key, newKey(t, "rsa", "RS256")) // a key that the registration does not allow
	in := f.es.registration("acme")
	in.SameSubjects = true
	f.es.register(f.site, in)

	f.rs.key = newKey(t, "key-1", "RS256")
	f.rs.publish(f.rs.key)
	in = f.rs.registration("acme", "other")
	in.Algorithms, in.SameSubjects = []string{"RS256", "PS256"}, true
	f.rs.register(f.site, in)

	in = f.id.registration("acme")
	in.TokenType, in.SameSubjects = "id", true
	f.id.register(f.site, in)
	return f
}

// forge makes a token with the one thing wrong, or the twin in which it is right.
type forge func(f *field, tampered bool) string

// claim changes the claims of a good token.
func claim(change func(f *field, c jwt.MapClaims)) forge {
	return func(f *field, tampered bool) string {
		c := f.es.claims("acme", "alice", "clerk")
		if tampered {
			change(f, c)
		}
		return f.es.key.token(f.t, nil, c)
	}
}

func setClaim(name string, value any) forge {
	return claim(func(_ *field, c jwt.MapClaims) {
		if c[name] = value; value == nil {
			delete(c, name)
		}
	})
}

// header changes the header of a good token, which stays signed by the issuer's own key.
func header(name string, value any) forge {
	return func(f *field, tampered bool) string {
		change := map[string]any{name: value}
		if !tampered {
			change = nil
		}
		return f.es.key.token(f.t, change, f.es.claims("acme", "alice"))
	}
}

// stolen is signed by the thief's key, which the header praises.
func stolen(change func(f *field) map[string]any) forge {
	return func(f *field, tampered bool) string {
		if !tampered {
			return f.es.token("acme", "alice")
		}
		return f.thief.token(f.t, change(f), f.es.claims("acme", "alice"))
	}
}

// edited changes the text of a good token after it was signed.
func edited(change func(f *field, header, claims, signature string) string) forge {
	return func(f *field, tampered bool) string {
		good := f.es.token("acme", "alice")
		if !tampered {
			return good
		}
		parts := strings.Split(good, ".")
		return change(f, parts[0], parts[1], parts[2])
	}
}

// confused signs with HS256 and what everyone can know of the issuer's RSA key.
func confused(secret func(k *rsa.PublicKey) []byte) forge {
	return func(f *field, tampered bool) string {
		claims := f.rs.claims("acme", "alice")
		if !tampered {
			return f.rs.key.token(f.t, nil, claims)
		}
		public := f.rs.key.private.Public().(*rsa.PublicKey)
		return signWith(f.t, "HS256", secret(public), map[string]any{"alg": "HS256", "kid": "key-1", "typ": "JWT"}, claims)
	}
}

func spki(k *rsa.PublicKey) []byte {
	der, _ := x509.MarshalPKIXPublicKey(k)
	return der
}

// rawClaims signs a payload given as text, in which %s stands for the members of a good token.
func rawClaims(text string) forge {
	return func(f *field, tampered bool) string {
		now := time.Now().Unix()
		good := fmt.Sprintf(`"iss":%q,"aud":%q,"sub":"alice","iat":%d,"exp":%d`, f.es.URL, audience, now, now+3600)
		payload := fmt.Sprintf(text, good)
		if !tampered {
			payload = fmt.Sprintf(`{%s,"tenant_id":"acme"}`, good)
		}
		return f.es.key.token(f.t, nil, payload)
	}
}

// attack is one forgery: what it must be answered, and what it must be counted as.
type attack struct {
	name   string
	make   forge
	status int
	reason token.Reason
}

func runAttacks(t *testing.T, f *field, attacks []attack) {
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			series := failures(a.reason)
			// The twin comes first too: a cache that knows a part of it must not let the forgery pass.
			twin := a.make(f, false)
			wantDecision(t, f.authorize(twin, viewDoc), "ALLOW")
			bad := a.make(f, true)
			for range 2 {
				before := f.count(series)
				wantStatus(t, f.authorize(bad, viewDoc), a.status)
				if after := f.count(series); after != before+1 {
					t.Errorf("%s went from %d to %d, want one more", series, before, after)
				}
			}
			wantDecision(t, f.authorize(twin, viewDoc), "ALLOW")
		})
	}
	if n := f.touched.Load(); n != 0 {
		t.Errorf("tokens made copse send %d requests to an address of their own", n)
	}
}

func TestAttackSignature(t *testing.T) {
	f := newField(t)
	none := func(alg string, signature string) forge {
		return edited(func(f *field, _, claims, good string) string {
			if signature == "" {
				good = ""
			}
			return segment(f.t, map[string]any{"alg": alg, "kid": "key-1", "typ": "JWT"}) + "." + claims + "." + good
		})
	}
	runAttacks(t, f, []attack{
		{"alg none without signature", none("none", ""), 401, token.ReasonMalformed},
		{"alg none with signature", none("none", "kept"), 401, token.ReasonAlgorithm},
		{"alg nOnE", none("nOnE", "kept"), 401, token.ReasonAlgorithm},
		{"alg empty", none("", "kept"), 401, token.ReasonAlgorithm},
		{"alg missing", edited(func(f *field, _, claims, good string) string {
			return segment(f.t, map[string]any{"kid": "key-1", "typ": "JWT"}) + "." + claims + "." + good
		}), 401, token.ReasonAlgorithm},
		{"RS256 to HS256, secret is the PEM", confused(func(k *rsa.PublicKey) []byte {
			return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki(k)})
		}), 401, token.ReasonAlgorithm},
		{"RS256 to HS256, secret is the DER", confused(spki), 401, token.ReasonAlgorithm},
		{"RS256 to HS256, secret is PKCS 1", confused(x509.MarshalPKCS1PublicKey), 401, token.ReasonAlgorithm},
		{"RS256 to HS256, secret is the modulus", confused(func(k *rsa.PublicKey) []byte { return k.N.Bytes() }), 401, token.ReasonAlgorithm},
		{"RS256 to HS256, secret is empty", confused(func(*rsa.PublicKey) []byte { return nil }), 401, token.ReasonAlgorithm},
		{"algorithm of a published key, not of the registration", func(f *field, tampered bool) string {
			if !tampered {
				return f.es.token("acme", "alice")
			}
			return newKey(f.t, "rsa", "RS256").token(f.t, nil, f.es.claims("acme", "alice"))
		}, 401, token.ReasonAlgorithm},
		{"algorithm of the registration, not of the key", func(f *field, tampered bool) string {
			alg := "RS256"
			if tampered {
				alg = "PS256"
			}
			return f.rs.key.sign(f.t, alg, map[string]any{"alg": alg, "kid": "key-1"}, f.rs.claims("acme", "alice"))
		}, 401, token.ReasonAlgorithm},
		{"key of another issuer on the same host, with the same id", func(f *field, tampered bool) string {
			key := f.es.key
			if tampered {
				key = f.id.key
			}
			return key.token(f.t, nil, f.es.claims("acme", "alice"))
		}, 401, token.ReasonSignature},
		{"claims changed under a good signature", edited(func(f *field, header, _, signature string) string {
			return header + "." + segment(f.t, f.es.claims("acme", "root", "admin")) + "." + signature
		}), 401, token.ReasonSignature},
		{"header changed under a good signature", edited(func(f *field, _, claims, signature string) string {
			return segment(f.t, map[string]any{"alg": "ES256", "kid": "key-1", "typ": "at+jwt"}) + "." + claims + "." + signature
		}), 401, token.ReasonSignature},
		{"signature of another token", edited(func(f *field, header, claims, _ string) string {
			return header + "." + claims + "." + strings.Split(f.es.token("acme", "bob"), ".")[2]
		}), 401, token.ReasonSignature},
		{"signature cut short", edited(func(_ *field, header, claims, signature string) string {
			return header + "." + claims + "." + signature[:len(signature)-2]
		}), 401, token.ReasonSignature},
		{"signature of zeros", edited(func(_ *field, header, claims, _ string) string {
			return header + "." + claims + "." + encode64(make([]byte, 64))
		}), 401, token.ReasonSignature},
		{"signature in DER", edited(func(f *field, header, claims, _ string) string {
			der, err := ecdsa.SignASN1(rand.Reader, f.es.key.private.(*ecdsa.PrivateKey), make([]byte, 32))
			if err != nil {
				f.t.Fatal(err)
			}
			return header + "." + claims + "." + encode64(der)
		}), 401, token.ReasonSignature},
		{"signature spelled with stray bits", edited(func(f *field, header, claims, signature string) string {
			return header + "." + claims + "." + strayBits(f.t, signature)
		}), 401, token.ReasonMalformed},
		{"signature with padding", edited(func(_ *field, header, claims, signature string) string {
			return header + "." + claims + "." + signature + "=="
		}), 401, token.ReasonMalformed},
	})
}

// strayBits spells the same bytes in another way: the last character of an unpadded text has bits that a
// careless decoder drops.
func strayBits(t testing.TB, text string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, text[len(text)-1])
	other := text[:len(text)-1] + string(alphabet[last^1])
	a, errA := base64.RawURLEncoding.DecodeString(text)
	b, errB := base64.RawURLEncoding.DecodeString(other)
	if errA != nil || errB != nil || !bytes.Equal(a, b) || other == text {
		t.Fatalf("%q and %q are not two spellings of the same", text, other)
	}
	return other
}

func TestAttackHeader(t *testing.T) {
	f := newField(t)
	runAttacks(t, f, []attack{
		{"kid is a path", header("kid", "../../../../../../dev/null"), 401, token.ReasonUnknownKey},
		{"kid is SQL", header("kid", "key-1' OR '1'='1"), 401, token.ReasonUnknownKey},
		{"kid is a URL", header("kid", f.canary+"/keys"), 401, token.ReasonUnknownKey},
		{"kid in another case", header("kid", "KEY-1"), 401, token.ReasonUnknownKey},
		{"kid with NUL", header("kid", "key-1\x00"), 401, token.ReasonUnknownKey},
		{"kid is empty", header("kid", ""), 401, token.ReasonMalformed},
		{"kid is a number", header("kid", 1), 401, token.ReasonMalformed},
		{"kid is a list", header("kid", []string{"key-1"}), 401, token.ReasonMalformed},
		{"kid is long", header("kid", strings.Repeat("k", 4000)), 401, token.ReasonMalformed},
		{"no kid where there are two keys", header("kid", nil), 401, token.ReasonUnknownKey},
		{"jku", stolen(func(f *field) map[string]any { return map[string]any{"jku": f.canary + "/keys"} }), 401, token.ReasonHeader},
		{"x5u", stolen(func(f *field) map[string]any { return map[string]any{"x5u": f.canary + "/cert"} }), 401, token.ReasonHeader},
		{"jwk", stolen(func(f *field) map[string]any { return map[string]any{"jwk": f.thief.jwk()} }), 401, token.ReasonHeader},
		{"x5c", stolen(func(f *field) map[string]any { return map[string]any{"x5c": []string{certificateOf(f.t, f.thief)}} }), 401, token.ReasonSignature},
		{"none of them, but the right kid", stolen(func(*field) map[string]any { return nil }), 401, token.ReasonSignature},
		{"jku by the issuer's own key", header("jku", f.es.URL+"/keys"), 401, token.ReasonHeader},
		{"crit", header("crit", []string{"exp"}), 401, token.ReasonHeader},
		{"b64", header("b64", false), 401, token.ReasonHeader},
		{"typ of another kind", header("typ", "secevent+jwt"), 401, token.ReasonHeader},
		{"nested", func(f *field, tampered bool) string {
			inner := f.es.token("acme", "alice")
			if !tampered {
				return inner
			}
			return f.es.key.token(f.t, map[string]any{"cty": "JWT"}, inner)
		}, 401, token.ReasonHeader},
		{"nested without saying so", func(f *field, tampered bool) string {
			inner := f.es.token("acme", "alice")
			if !tampered {
				return inner
			}
			return f.es.key.token(f.t, nil, inner)
		}, 401, token.ReasonMalformed},
		{"zipped", func(f *field, tampered bool) string {
			if !tampered {
				return f.es.token("acme", "alice")
			}
			var packed bytes.Buffer
			w, _ := flate.NewWriter(&packed, flate.BestCompression)
			fmt.Fprint(w, strings.Repeat(" ", 1<<20)+"{}")
			w.Close()
			return f.es.key.token(f.t, map[string]any{"zip": "DEF"}, packed.String())
		}, 401, token.ReasonHeader},
		{"encrypted", edited(func(_ *field, header, claims, signature string) string {
			return strings.Join([]string{header, claims, signature, claims, signature}, ".")
		}), 401, token.ReasonMalformed},
		{"member twice", func(f *field, tampered bool) string {
			second := ""
			if tampered {
				second = `,"alg":"none"`
			}
			return f.es.key.sign(f.t, "ES256", `{"alg":"ES256","kid":"key-1"`+second+`}`, f.es.claims("acme", "alice"))
		}, 401, token.ReasonMalformed},
		{"oversized", header("padding", strings.Repeat("x", 20_000)), 401, token.ReasonTooLarge},
		{"many dots", edited(func(*field, string, string, string) string { return strings.Repeat("e.", 8000) }), 401, token.ReasonMalformed},
		{"more dots", edited(func(*field, string, string, string) string { return strings.Repeat(".", 50_000) }), 401, token.ReasonTooLarge},
	})
}

func certificateOf(t testing.TB, k *signingKey) string {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "thief"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.private.Public(), k.private)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

func TestAttackClaims(t *testing.T) {
	f := newField(t)
	now := time.Now()
	in := func(d time.Duration) int64 { return now.Add(d).Unix() }
	runAttacks(t, f, []attack{
		{"key set URL from the token", func(f *field, tampered bool) string {
			claims := f.es.claims("acme", "alice")
			if !tampered {
				return f.es.key.token(f.t, nil, claims)
			}
			claims["iss"], claims["jwks_uri"] = f.canary, f.canary+"/keys"
			return f.thief.token(f.t, nil, claims)
		}, 401, token.ReasonIssuer},
		{"iss by prefix", claim(func(f *field, c jwt.MapClaims) { c["iss"] = f.es.URL + ".evil.example" }), 401, token.ReasonIssuer},
		{"iss is a prefix", claim(func(f *field, c jwt.MapClaims) { c["iss"] = f.es.URL[:len(f.es.URL)-1] }), 401, token.ReasonIssuer},
		{"iss in another case", claim(func(f *field, c jwt.MapClaims) { c["iss"] = strings.ToUpper(f.es.URL) }), 401, token.ReasonIssuer},
		{"iss with a slash", claim(func(f *field, c jwt.MapClaims) { c["iss"] = f.es.URL + "/" }), 401, token.ReasonIssuer},
		{"iss of a neighbour", claim(func(f *field, c jwt.MapClaims) { c["iss"] = f.id.URL }), 401, token.ReasonSignature},
		{"iss missing", setClaim("iss", nil), 401, token.ReasonIssuer},
		{"iss is a list", claim(func(f *field, c jwt.MapClaims) { c["iss"] = []string{f.es.URL} }), 401, token.ReasonIssuer},
		{"aud missing", setClaim("aud", nil), 401, token.ReasonAudience},
		{"aud of another service", setClaim("aud", "https://other.example.com"), 401, token.ReasonAudience},
		{"aud by prefix", setClaim("aud", audience+"/admin"), 401, token.ReasonAudience},
		{"aud in another case", setClaim("aud", strings.ToUpper(audience)), 401, token.ReasonAudience},
		{"aud is an empty list", setClaim("aud", []string{}), 401, token.ReasonAudience},
		{"aud is a list of others", setClaim("aud", []string{"a", "b"}), 401, token.ReasonAudience},
		{"aud is a list with a stranger in it", setClaim("aud", []any{audience, 7}), 401, token.ReasonAudience},
		{"aud is an object", setClaim("aud", map[string]any{audience: true}), 401, token.ReasonAudience},
		{"exp missing", setClaim("exp", nil), 401, token.ReasonTime},
		{"exp is text", setClaim("exp", fmt.Sprint(in(time.Hour))), 401, token.ReasonTime},
		{"exp is beyond time", setClaim("exp", 1e300), 401, token.ReasonTime},
		{"exp is negative", setClaim("exp", -1), 401, token.ReasonTime},
		{"expired", setClaim("exp", in(-time.Hour)), 401, token.ReasonExpired},
		{"expired within a huge clock skew", setClaim("exp", in(-2*time.Minute)), 401, token.ReasonExpired},
		{"nbf far in the future", setClaim("nbf", in(24*time.Hour)), 401, token.ReasonTime},
		{"nbf within a huge clock skew", setClaim("nbf", in(10*time.Minute)), 401, token.ReasonTime},
		{"nbf is text", setClaim("nbf", "now"), 401, token.ReasonTime},
		{"iat far in the future", setClaim("iat", in(24*time.Hour)), 401, token.ReasonTime},
		{"duplicate claim", rawClaims(`{%s,"tenant_id":"acme","tenant_id":"other"}`), 401, token.ReasonMalformed},
		{"duplicate claim, the good one last", rawClaims(`{%s,"tenant_id":"other","tenant_id":"acme"}`), 401, token.ReasonMalformed},
		{"duplicate claim, escaped", rawClaims(`{%s,"tenant_id":"acme","tenant\u005fid":"other"}`), 401, token.ReasonMalformed},
		{"duplicate claim, deep inside", rawClaims(`{%s,"tenant_id":"acme","x":{"y":[{"z":1,"z":2}]}}`), 401, token.ReasonMalformed},
		{"claim in another case", rawClaims(`{%s,"Tenant_ID":"acme"}`), 403, token.ReasonTenant},
		{"more after the claims", rawClaims(`{%s,"tenant_id":"acme"}{}`), 401, token.ReasonMalformed},
		{"claims are not UTF-8", rawClaims("{%s,\"tenant_id\":\"acme\",\"x\":\"\xff\"}"), 401, token.ReasonMalformed},
		{"claims are a list", rawClaims(`[{%s,"tenant_id":"acme"}]`), 401, token.ReasonMalformed},
		{"claims nest deeply", rawClaims(`{%s,"tenant_id":"acme","x":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`), 401, token.ReasonClaim},
		{"ID token where an access token is due", setClaim("token_use", "id"), 401, token.ReasonType},
		{"access token where an ID token is due", func(f *field, tampered bool) string {
			claims := f.id.claims("acme", "alice")
			if tampered {
				claims["token_use"] = "access"
			}
			return f.id.key.token(f.t, nil, claims)
		}, 401, token.ReasonType},
		{"at+jwt where an ID token is due", func(f *field, tampered bool) string {
			var header map[string]any
			if tampered {
				header = map[string]any{"typ": "at+jwt"}
			}
			return f.id.key.token(f.t, header, f.id.claims("acme", "alice"))
		}, 401, token.ReasonType},
		{"tenant of another issuer", setClaim("tenant_id", "other"), 403, token.ReasonTenant},
		{"tenant missing", setClaim("tenant_id", nil), 403, token.ReasonTenant},
		{"two tenants", setClaim("tenant_id", []string{"acme", "other"}), 403, token.ReasonTenant},
		{"tenant is a number", setClaim("tenant_id", 1), 403, token.ReasonTenant},
		{"tenant with a path", setClaim("tenant_id", "acme/../other"), 403, token.ReasonTenant},
		{"subject missing", setClaim("sub", nil), 401, token.ReasonPrincipal},
		{"subject is empty", setClaim("sub", ""), 401, token.ReasonPrincipal},
		{"subject is a number", setClaim("sub", 7), 401, token.ReasonPrincipal},
		{"subject is a list", setClaim("sub", []string{"alice"}), 401, token.ReasonPrincipal},
		{"subject is long", setClaim("sub", strings.Repeat("a", 700)), 401, token.ReasonPrincipal},
		{"groups are a number", setClaim("roles", 7), 401, token.ReasonGroups},
		{"groups are an object", setClaim("roles", map[string]any{"admin": true}), 401, token.ReasonGroups},
		{"groups hold a number", setClaim("roles", []any{"clerk", 7}), 401, token.ReasonGroups},
		{"groups hold a list", setClaim("roles", []any{[]string{"admin"}}), 401, token.ReasonGroups},
		{"groups hold an entity", setClaim("roles", []any{map[string]string{"type": "Role", "id": "admin"}}), 401, token.ReasonGroups},
	})
}
