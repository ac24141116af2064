package token

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/copse-authz/copse"
)

// attack forges a token in a world where an untampered one verifies. prepare, if any, changes the
// world first; the untampered twin must pass after that as well.
type attack struct {
	prepare func(*world)
	forge   func(*world) string
	want    Reason
}

// with is an attack that changes claims only; the signature is good.
func with(name string, value any, want Reason) attack {
	return attack{nil, func(w *world) string { return rs256().sign(w.claims(map[string]any{name: value}), nil) }, want}
}

// header is an attack that changes the header only; the signature is good.
func header(name string, value any, want Reason) attack {
	return attack{nil, func(w *world) string { return rs256().sign(w.claims(nil), map[string]any{name: value}) }, want}
}

// rewritten is an attack on the text of a good payload; the signature is good again.
func rewritten(old, replacement string, want Reason) attack {
	return attack{nil, func(w *world) string {
		payload := text(w.claims(nil))
		if !strings.Contains(payload, old) {
			panic(old + " is not in " + payload)
		}
		return rs256().raw(goodHeader, strings.Replace(payload, old, replacement, 1))
	}, want}
}

const goodHeader = `{"alg":"RS256","kid":"k1","typ":"JWT"}`

// at sets a time claim relative to now.
func at(name string, d time.Duration, want Reason) attack {
	return attack{nil, func(w *world) string {
		return rs256().sign(w.claims(map[string]any{name: time.Now().Add(d).Unix()}), nil)
	}, want}
}

func registered(adjust func(*copse.Issuer)) func(*world) {
	return func(w *world) { w.register(w.issuer, adjust) }
}

// TestAttacks has a subtest for each way in that other systems left open.
func TestAttacks(t *testing.T) {
	groups := map[string]map[string]attack{
		"algorithm": algorithmAttacks(), "key": keyAttacks(), "header": headerAttacks(), "form": formAttacks(),
		"issuer and audience": issuerAttacks(), "time": timeAttacks(), "type": typeAttacks(),
		"tenant": tenantAttacks(), "claims": claimAttacks(),
	}
	n := 0
	for group, attacks := range groups {
		t.Run(group, func(t *testing.T) {
			for name, a := range attacks {
				n++
				t.Run(name, func(t *testing.T) {
					w := newWorld(t)
					if a.prepare != nil {
						a.prepare(w)
					}
					w.wantAccepted(t, w.good())
					w.wantRefused(t, a.forge(w), a.want)
					w.wantAccepted(t, w.good())
				})
			}
		})
	}
	if n < 225 {
		t.Errorf("only %d attacks ran", n)
	}
}

func algorithmAttacks() map[string]attack {
	none := func(alg string) attack {
		return attack{nil, func(w *world) string {
			return part(`{"alg":"`+alg+`","kid":"k1","typ":"JWT"}`) + "." + part(text(w.claims(nil))) + "."
		}, ReasonMalformed}
	}
	noneSigned := func(alg string) attack {
		return attack{nil, func(w *world) string {
			return rs256().raw(`{"alg":"`+alg+`","kid":"k1","typ":"JWT"}`, text(w.claims(nil)))
		}, ReasonAlgorithm}
	}
	// The public key is everybody's; as an HMAC secret it would let anybody sign.
	confusion := func(alg *jwt.SigningMethodHMAC, secret func() []byte) attack {
		return attack{nil, func(w *world) string {
			signed := part(`{"alg":"`+alg.Name+`","kid":"k1","typ":"JWT"}`) + "." + part(text(w.claims(nil)))
			return signed + "." + base64.RawURLEncoding.EncodeToString(must(alg.Sign(signed, secret())))
		}, ReasonAlgorithm}
	}
	der := func() []byte { return must(x509.MarshalPKIXPublicKey(rsaKey().Public())) }
	return map[string]attack{
		"none":                            none("none"),
		"none, in capitals":               none("NONE"),
		"none, in mixed case":             none("nOnE"),
		"none, with a signature":          noneSigned("none"),
		"empty":                           noneSigned(""),
		"in small letters":                noneSigned("rs256"),
		"missing":                         header("alg", nil, ReasonAlgorithm),
		"a number":                        header("alg", 256, ReasonAlgorithm),
		"a list":                          header("alg", []string{"RS256"}, ReasonAlgorithm),
		"HS256 with the public key DER":   confusion(jwt.SigningMethodHS256, der),
		"HS256 with the public key PEM":   confusion(jwt.SigningMethodHS256, func() []byte { return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der()}) }),
		"HS256 with the modulus":          confusion(jwt.SigningMethodHS256, func() []byte { return rsaKey().Public().(*rsa.PublicKey).N.Bytes() }),
		"HS256 with the key set":          confusion(jwt.SigningMethodHS256, func() []byte { return []byte(published(rs256())) }),
		"HS512 with an empty secret":      confusion(jwt.SigningMethodHS512, func() []byte { return []byte{} }),
		"HS256 even if it is registered":  {registered(func(i *copse.Issuer) { i.Algorithms = []string{"RS256", "HS256"} }), confusion(jwt.SigningMethodHS256, der).forge, ReasonAlgorithm},
		"one the issuer is not pinned to": {func(w *world) { w.publish("/pool", published(rs256(), signer{"k2", jwt.SigningMethodES256, ecKey()})) }, func(w *world) string { return signer{"k2", jwt.SigningMethodES256, ecKey()}.sign(w.claims(nil), nil) }, ReasonAlgorithm},
		"PS256 with a key for RS256":      {registered(func(i *copse.Issuer) { i.Algorithms = []string{"RS256", "PS256"} }), func(w *world) string { return signer{"k1", jwt.SigningMethodPS256, rsaKey()}.sign(w.claims(nil), nil) }, ReasonAlgorithm},
		"RS512 with a key for RS256":      {registered(func(i *copse.Issuer) { i.Algorithms = []string{"RS256", "RS512"} }), func(w *world) string { return signer{"k1", jwt.SigningMethodRS512, rsaKey()}.sign(w.claims(nil), nil) }, ReasonAlgorithm},
		"ES256 named, for an RSA key":     {registered(func(i *copse.Issuer) { i.Algorithms = []string{"RS256", "ES256"} }), func(w *world) string { return signer{"k1", jwt.SigningMethodES256, ecKey()}.sign(w.claims(nil), nil) }, ReasonAlgorithm},
		"ES256 with a key of P-384": {func(w *world) {
			k := publicJWK(signer{"k2", jwt.SigningMethodES384, ec384()}, "sig", "")
			w.publish("/pool", withKeys(publicJWK(rs256(), "sig", "RS256"), k))
			w.register(w.issuer, func(i *copse.Issuer) { i.Algorithms = []string{"RS256", "ES256"} })
		}, func(w *world) string { return signer{"k2", jwt.SigningMethodES256, ecKey()}.sign(w.claims(nil), nil) }, ReasonAlgorithm},
		"RS256 named, for an EC key": {func(w *world) {
			w.publish("/pool", published(rs256(), signer{"k2", jwt.SigningMethodES256, ecKey()}))
		}, func(w *world) string { return signer{"k2", jwt.SigningMethodRS256, rsaKey()}.sign(w.claims(nil), nil) }, ReasonAlgorithm},
	}
}

func keyAttacks() map[string]attack {
	attacker := func() signer { return signer{"k1", jwt.SigningMethodRS256, otherRSA()} }
	kid := func(value string) attack { return header("kid", value, ReasonUnknownKey) }
	swap := func(w *world) string { // the other issuer of the same provider, with a key of the same id
		return w.publish("/other", published(attacker()))
	}
	return map[string]attack{
		"another key":          {nil, func(w *world) string { return attacker().sign(w.claims(nil), nil) }, ReasonSignature},
		"signature of another": {nil, func(w *world) string { return swapSignature(w.good(), attacker().sign(w.claims(nil), nil)) }, ReasonSignature},
		"signature cut":        {nil, func(w *world) string { s := w.good(); return s[:len(s)-10] }, ReasonSignature},
		"signature empty":      {nil, func(w *world) string { s := w.good(); return s[:strings.LastIndexByte(s, '.')+1] }, ReasonMalformed},
		"payload changed":      {nil, func(w *world) string { return swapPayload(w.good(), text(w.claims(map[string]any{"sub": "mallory"}))) }, ReasonSignature},
		"header changed": {nil, func(w *world) string {
			s := w.good()
			return part(`{"kid":"k1","alg":"RS256"}`) + s[strings.IndexByte(s, '.'):]
		}, ReasonSignature},
		"unknown id":        kid("k2"),
		"id with a path":    kid("../../../../dev/null"),
		"id with SQL":       kid("k1' UNION SELECT 'secret' -- "),
		"id with a URL":     kid("https://attacker.example/keys.json"),
		"id with a command": kid("k1|/bin/true"),
		"id with NUL":       kid("k1\x00"),
		"id in capitals":    kid("K1"),
		"id with a space":   kid("k1 "),
		"id empty":          header("kid", "", ReasonMalformed),
		"id a number":       header("kid", 1, ReasonMalformed),
		"id null":           {nil, func(w *world) string { return rs256().raw(`{"alg":"RS256","kid":null}`, text(w.claims(nil))) }, ReasonMalformed},
		"id a list":         header("kid", []string{"k1"}, ReasonMalformed),
		"id very long":      header("kid", strings.Repeat("k", 300), ReasonMalformed),
		"no id, two keys": {func(w *world) {
			w.publish("/pool", published(rs256(), signer{"k2", jwt.SigningMethodRS256, otherRSA()}))
		}, func(w *world) string { return rs256().sign(w.claims(nil), map[string]any{"kid": nil}) }, ReasonUnknownKey},
		"same id, another issuer": {func(w *world) { w.register(swap(w)) }, func(w *world) string { return attacker().sign(w.claims(nil), nil) }, ReasonSignature},
		"same id, the other way":  {func(w *world) { w.register(swap(w)) }, func(w *world) string { return rs256().sign(w.claims(map[string]any{"iss": w.URL + "/other"}), nil) }, ReasonSignature},
		"key for encryption": {func(w *world) {
			w.publish("/pool", withKeys(publicJWK(rs256(), "sig", "RS256"), publicJWK(signer{"k2", jwt.SigningMethodRS256, otherRSA()}, "enc", "")))
		}, func(w *world) string {
			return signer{"k2", jwt.SigningMethodRS256, otherRSA()}.sign(w.claims(nil), nil)
		}, ReasonUnknownKey},
		"weak key": {func(w *world) {
			w.publish("/pool", published(rs256(), signer{"k2", jwt.SigningMethodRS256, weakRSA()}))
		}, func(w *world) string { return signer{"k2", jwt.SigningMethodRS256, weakRSA()}.sign(w.claims(nil), nil) }, ReasonUnknownKey},
		"symmetric key in the set": {func(w *world) {
			w.publish("/pool", withKeys(publicJWK(rs256(), "sig", "RS256"), map[string]any{"kty": "oct", "kid": "k2", "k": "c2VjcmV0"}))
		}, func(w *world) string { return hmacToken(w, "k2", "secret") }, ReasonAlgorithm},
	}
}

func part(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func withKeys(keys ...any) string { return text(map[string]any{"keys": keys}) }

func hmacToken(w *world, kid, secret string) string {
	signed := part(`{"alg":"HS256","kid":"`+kid+`"}`) + "." + part(text(w.claims(nil)))
	return signed + "." + base64.RawURLEncoding.EncodeToString(must(jwt.SigningMethodHS256.Sign(signed, []byte(secret))))
}

func swapSignature(token, other string) string {
	return token[:strings.LastIndexByte(token, '.')] + other[strings.LastIndexByte(other, '.'):]
}

func swapPayload(token, payload string) string {
	parts := strings.Split(token, ".")
	return parts[0] + "." + part(payload) + "." + parts[2]
}

func headerAttacks() map[string]attack {
	attacker := signer{"k1", jwt.SigningMethodRS256, otherRSA()}
	lure := func(name string) attack { // the attacker's own key, and where to find it
		return attack{nil, func(w *world) string {
			w.serve("/attacker", says(published(attacker)))
			return attacker.sign(w.claims(nil), map[string]any{name: w.URL + "/attacker"})
		}, ReasonHeader}
	}
	return map[string]attack{
		"jku": lure("jku"),
		"x5u": lure("x5u"),
		"jwk": {nil, func(w *world) string {
			return attacker.sign(w.claims(nil), map[string]any{"jwk": publicJWK(attacker, "sig", "RS256")})
		}, ReasonHeader},
		"jwk, of the right key":       header("jwk", publicJWK(rs256(), "sig", "RS256"), ReasonHeader),
		"jku, empty":                  header("jku", "", ReasonHeader),
		"x5c is ignored":              {nil, func(w *world) string { return attacker.sign(w.claims(nil), map[string]any{"x5c": []string{"MIIB"}}) }, ReasonSignature},
		"crit":                        header("crit", []string{"exp"}, ReasonHeader),
		"crit, empty":                 header("crit", []string{}, ReasonHeader),
		"unencoded payload":           header("b64", false, ReasonHeader),
		"zipped":                      header("zip", "DEF", ReasonHeader),
		"encrypted":                   header("enc", "A256GCM", ReasonHeader),
		"nested":                      header("cty", "JWT", ReasonHeader),
		"nested, another way":         header("cty", "application/json", ReasonHeader),
		"nested token as the payload": {nil, func(w *world) string { return rs256().raw(`{"alg":"RS256","kid":"k1"}`, w.good()) }, ReasonMalformed},
		"a tenant context of copse":   header("typ", "copse-ctx+jwt", ReasonHeader),
		"a logout token":              header("typ", "logout+jwt", ReasonHeader),
		"a security event":            header("typ", "secevent+jwt", ReasonHeader),
		"DPoP proof":                  header("typ", "dpop+jwt", ReasonHeader),
		"type not a string":           header("typ", 1, ReasonHeader),
		"type empty":                  header("typ", "", ReasonHeader),
		"algorithm twice": {nil, func(w *world) string {
			return rs256().raw(`{"alg":"none","alg":"RS256","kid":"k1"}`, text(w.claims(nil)))
		}, ReasonMalformed},
		"key id twice": {nil, func(w *world) string {
			return rs256().raw(`{"alg":"RS256","kid":"k1","kid":"k1"}`, text(w.claims(nil)))
		}, ReasonMalformed},
		"key id twice, one escaped": {nil, func(w *world) string {
			return rs256().raw(`{"alg":"RS256","kid":"k2","\u006bid":"k1"}`, text(w.claims(nil)))
		}, ReasonMalformed},
		"key id in another case": {nil, func(w *world) string {
			return rs256().raw(`{"alg":"RS256","KID":"k1","Kid":"k1","kid":"k9"}`, text(w.claims(nil)))
		}, ReasonUnknownKey},
		"algorithm in another case":    {nil, func(w *world) string { return rs256().raw(`{"ALG":"RS256","kid":"k1"}`, text(w.claims(nil))) }, ReasonAlgorithm},
		"header is a list":             {nil, func(w *world) string { return rs256().raw(`[{"alg":"RS256","kid":"k1"}]`, text(w.claims(nil))) }, ReasonMalformed},
		"header is null":               {nil, func(w *world) string { return rs256().raw(`null`, text(w.claims(nil))) }, ReasonMalformed},
		"header with something behind": {nil, func(w *world) string { return rs256().raw(goodHeader+`{}`, text(w.claims(nil))) }, ReasonMalformed},
	}
}

func formAttacks() map[string]attack {
	plain := func(token string) attack {
		return attack{nil, func(*world) string { return token }, ReasonMalformed}
	}
	edited := func(f func(string) string, want Reason) attack {
		return attack{nil, func(w *world) string { return f(w.good()) }, want}
	}
	return map[string]attack{
		"empty":                  plain(""),
		"dots only":              plain(".."),
		"one part":               plain("abc"),
		"two parts":              edited(func(s string) string { return s[:strings.LastIndexByte(s, '.')] }, ReasonMalformed),
		"four parts":             edited(func(s string) string { return s + ".x" }, ReasonMalformed),
		"five parts, as a JWE":   edited(func(s string) string { return s + ".x.y" }, ReasonMalformed),
		"ten thousand dots":      plain(strings.Repeat(".", 10_000)),
		"too large":              edited(func(s string) string { return s + strings.Repeat("A", copse.MaxTokenBytes) }, ReasonTooLarge),
		"a claim makes it large": with("pad", strings.Repeat("x", copse.MaxTokenBytes), ReasonTooLarge),
		"very large":             {nil, func(*world) string { return strings.Repeat("a.", 5<<20) }, ReasonTooLarge},
		"with a scheme":          edited(func(s string) string { return "Bearer " + s }, ReasonMalformed),
		"padding":                edited(func(s string) string { return s + "==" }, ReasonMalformed),
		"standard base64":        edited(func(s string) string { return "+/" + s[2:] }, ReasonMalformed),
		"space before":           edited(func(s string) string { return " " + s }, ReasonMalformed),
		"line break at the end":  edited(func(s string) string { return s + "\n" }, ReasonMalformed),
		"line break inside":      edited(func(s string) string { return s[:len(s)-9] + "\r\n" + s[len(s)-9:] }, ReasonMalformed),
		"stray bits at the end":  edited(strayBits, ReasonMalformed),
		"invalid UTF-8":          rewritten(`"alice"`, "\"al\xffice\"", ReasonMalformed),
		"lone surrogate":         rewritten(`"alice"`, `"al\ud800ice"`, ReasonMalformed),
		"claims are a list":      {nil, func(w *world) string { return rs256().raw(goodHeader, "["+text(w.claims(nil))+"]") }, ReasonMalformed},
		"claims are null":        {nil, func(w *world) string { return rs256().raw(goodHeader, "null") }, ReasonMalformed},
		"claims, then more":      {nil, func(w *world) string { return rs256().raw(goodHeader, text(w.claims(nil))+"x") }, ReasonMalformed},
		"comment in the claims":  rewritten(`"alice"`, `"alice"/**/`, ReasonMalformed),
		"subject twice":          rewritten(`"sub":"alice"`, `"sub":"alice","sub":"admin"`, ReasonMalformed),
		"tenant twice":           rewritten(`"tenant_id":"acme"`, `"tenant_id":"acme","tenant_id":"globex"`, ReasonMalformed),
		"tenant twice, escaped":  rewritten(`"tenant_id":"acme"`, `"tenant_id":"globex","tenant\u005fid":"acme"`, ReasonMalformed),
		"expiry twice":           rewritten(`"exp":`, `"exp":1,"exp":`, ReasonMalformed),
		"a member twice, nested": rewritten(`"sub":"alice"`, `"sub":"alice","x":[{"y":1,"y":2}]`, ReasonMalformed),
		"brackets":               rewritten(`"alice"`, `"alice","x":`+strings.Repeat("[", 4000)+strings.Repeat("]", 4000), ReasonClaim),
		"objects":                rewritten(`"alice"`, `"alice","x":`+strings.Repeat(`{"a":`, 500)+"1"+strings.Repeat("}", 500), ReasonClaim),
		"brackets left open":     rewritten(`"alice"`, `"alice","x":`+strings.Repeat("[", 8000), ReasonMalformed),
	}
}

// strayBits sets a bit that a lax decoder throws away.
func strayBits(token string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	if len(token[strings.LastIndexByte(token, '.')+1:])%4 == 0 {
		panic("the signature has no stray bits")
	}
	last := strings.IndexByte(alphabet, token[len(token)-1])
	return token[:len(token)-1] + string(alphabet[last|1])
}

func issuerAttacks() map[string]attack {
	iss := func(f func(string) string) attack {
		return attack{nil, func(w *world) string {
			return rs256().sign(w.claims(map[string]any{"iss": f(w.issuer)}), nil)
		}, ReasonIssuer}
	}
	noClients := registered(func(i *copse.Issuer) { i.ClientIDs = nil })
	clientOnly := func(name, value string, want Reason) attack {
		return attack{nil, func(w *world) string {
			return rs256().sign(w.claims(map[string]any{"aud": nil, name: value}), nil)
		}, want}
	}
	return map[string]attack{
		"prefix of a registered one": iss(func(s string) string { return s[:len(s)-1] }),
		"registered one and more":    iss(func(s string) string { return s + "x" }),
		"trailing slash":             iss(func(s string) string { return s + "/" }),
		"in capitals":                iss(strings.ToUpper),
		"host in capitals":           iss(func(s string) string { return strings.Replace(s, "https", "HTTPS", 1) }),
		"escaped":                    iss(func(s string) string { return strings.Replace(s, "pool", "p%6fol", 1) }),
		"with a query":               iss(func(s string) string { return s + "?" }),
		"dot segment":                iss(func(s string) string { return strings.Replace(s, "/pool", "/x/../pool", 1) }),
		"empty":                      iss(func(string) string { return "" }),
		"missing":                    with("iss", nil, ReasonIssuer),
		"a list":                     {nil, func(w *world) string { return rs256().sign(w.claims(map[string]any{"iss": []string{w.issuer}}), nil) }, ReasonIssuer},
		"registered without audiences": {nil, func(w *world) string {
			return incomplete(w, func(i *copse.Issuer) { i.Audiences, i.ClientIDs = nil, nil })
		}, ReasonIssuer},
		"ID tokens without audiences": {nil, func(w *world) string {
			return incomplete(w, func(i *copse.Issuer) { i.Audiences, i.ClientIDs, i.TokenType = nil, nil, copse.TokenID })
		}, ReasonIssuer},
		"access token of azp, no aud":       clientOnly("azp", "web", ReasonAudience),
		"access token for a client, by azp": {nil, func(w *world) string { return rs256().sign(w.claims(map[string]any{"aud": "web", "azp": "web"}), nil) }, ReasonAudience},
		"registered without algorithms":     {nil, func(w *world) string { return incomplete(w, func(i *copse.Issuer) { i.Algorithms = nil }) }, ReasonIssuer},
		"registered without a token type":   {nil, func(w *world) string { return incomplete(w, func(i *copse.Issuer) { i.TokenType = "" }) }, ReasonIssuer},
		"audience of another":               with("aud", "other", ReasonAudience),
		"audience that is a client":         with("aud", "web", ReasonAudience),
		"audience empty, as registered":     {registered(func(i *copse.Issuer) { i.Audiences = append(i.Audiences, "") }), with("aud", "", "").forge, ReasonAudience},
		"audience in capitals":              with("aud", "API", ReasonAudience),
		"audience's prefix":                 with("aud", "ap", ReasonAudience),
		"audience empty":                    with("aud", "", ReasonAudience),
		"audience missing":                  with("aud", nil, ReasonAudience),
		"audience null":                     rewritten(`"aud":"api"`, `"aud":null`, ReasonAudience),
		"audience a number":                 with("aud", 1, ReasonAudience),
		"audience an object":                with("aud", map[string]any{"api": "api"}, ReasonAudience),
		"audiences of others":               with("aud", []string{"other", "third"}, ReasonAudience),
		"no audiences":                      with("aud", []string{}, ReasonAudience),
		"audiences not all strings":         with("aud", []any{"api", 1}, ReasonAudience),
		"audiences with null":               with("aud", []any{"api", nil}, ReasonAudience),
		"audiences nested":                  with("aud", []any{[]string{"api"}}, ReasonAudience),
		"audience in Audience": {nil, func(w *world) string {
			return rs256().sign(w.claims(map[string]any{"aud": nil, "Aud": "api", "AUD": "api"}), nil)
		}, ReasonAudience},
		"client of another":          clientOnly("client_id", "other", ReasonAudience),
		"client, by cid, of another": clientOnly("cid", "other", ReasonAudience),
		"client where audiences count": {noClients, func(w *world) string {
			return rs256().sign(w.claims(map[string]any{"aud": nil, "client_id": "web"}), nil)
		}, ReasonAudience},
		"client named as an audience": clientOnly("client_id", "api", ReasonAudience),
		"client does not mend audience": {nil, func(w *world) string {
			return rs256().sign(w.claims(map[string]any{"aud": "other", "client_id": "web"}), nil)
		}, ReasonAudience},
		"client and cid disagree": {nil, func(w *world) string {
			return rs256().sign(w.claims(map[string]any{"aud": nil, "client_id": "other", "cid": "web"}), nil)
		}, ReasonAudience},
	}
}

// incomplete registers a second issuer that a registration should not have let in, and signs for it.
func incomplete(w *world, adjust func(*copse.Issuer)) string {
	url := w.publish("/second", published(rs256()))
	w.register(url, adjust)
	return rs256().sign(w.claims(map[string]any{"iss": url}), nil)
}

func timeAttacks() map[string]attack {
	return map[string]attack{
		"expired":                   at("exp", -time.Second, ReasonExpired),
		"expired within the skew":   at("exp", -5*time.Second, ReasonExpired),
		"expired an hour ago":       at("exp", -time.Hour, ReasonExpired),
		"expired in 1970":           with("exp", 0, ReasonExpired),
		"never expires":             with("exp", nil, ReasonTime),
		"expiry null":               rewritten(`"exp":`, `"exp":null,"x":`, ReasonTime),
		"expiry a string":           with("exp", "4102444800", ReasonTime),
		"expiry negative":           with("exp", -1, ReasonTime),
		"expiry beyond every clock": with("exp", 1e300, ReasonTime),
		"expiry in milliseconds":    with("exp", time.Now().Add(time.Hour).UnixMilli(), ReasonTime),
		"expiry true":               with("exp", true, ReasonTime),
		"expiry a list":             with("exp", []int64{4102444800}, ReasonTime),
		"not yet valid":             at("nbf", time.Minute, ReasonTime),
		"valid in a hundred years":  at("nbf", 100*365*24*time.Hour, ReasonTime),
		"not before, a string":      with("nbf", "0", ReasonTime),
		"issued in the future":      at("iat", time.Minute, ReasonTime),
		"issued an hour from now":   at("iat", time.Hour, ReasonTime),
		"issued at no time":         with("iat", "now", ReasonTime),
		"expiry in Exp": {nil, func(w *world) string {
			return rs256().sign(w.claims(map[string]any{"exp": nil, "Exp": 4102444800, "EXP": 4102444800}), nil)
		}, ReasonTime},
		"expiry overflows an int64":  rewritten(`"exp":`, `"exp":18446744073709551616,"x":`, ReasonTime),
		"expiry with a long tail":    rewritten(`"exp":`, `"exp":`+strings.Repeat("9", 5000)+`,"x":`, ReasonTime),
		"not before is not a number": with("nbf", map[string]any{}, ReasonTime),
	}
}

func typeAttacks() map[string]attack {
	id := func(i *copse.Issuer) { i.TokenType = copse.TokenID }
	// In these, the second issuer takes ID tokens and the token is for it.
	toID := func(claims map[string]any, head map[string]any) attack {
		return attack{nil, func(w *world) string {
			url := w.publish("/ids", published(rs256()))
			w.register(url, id)
			claims["iss"] = url
			return rs256().sign(w.claims(claims), head)
		}, ReasonType}
	}
	return map[string]attack{
		"ID token by token_use":               with("token_use", "id", ReasonType),
		"ID token by nonce":                   with("nonce", "n", ReasonType),
		"ID token by at_hash":                 with("at_hash", "h", ReasonType),
		"ID token by c_hash":                  with("c_hash", "h", ReasonType),
		"ID token by Keycloak's typ":          with("typ", "ID", ReasonType),
		"refresh token":                       with("typ", "Refresh", ReasonType),
		"token_use of another kind":           with("token_use", "refresh", ReasonType),
		"token_use in capitals":               with("token_use", "ACCESS", ReasonType),
		"token_use a list":                    with("token_use", []string{"access"}, ReasonType),
		"logout token":                        with("events", map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}, ReasonType),
		"access token where ID, by header":    toID(map[string]any{}, map[string]any{"typ": "at+jwt"}),
		"access token where ID, long form":    toID(map[string]any{}, map[string]any{"typ": "application/at+jwt"}),
		"access token where ID, by token_use": toID(map[string]any{"token_use": "access"}, nil),
		"access token where ID, by typ":       toID(map[string]any{"typ": "Bearer"}, nil),
	}
}

func tenantAttacks() map[string]attack {
	fixed := registered(func(i *copse.Issuer) { i.FixedTenant, i.Tenants = "acme", []copse.TenantID{"acme", "globex"} })
	nested := func(token map[string]any) attack {
		return attack{nil, func(w *world) string {
			url := w.publish("/nested", published(rs256()))
			w.register(url, func(i *copse.Issuer) { i.TenantClaim = "/app/tenant" })
			token["iss"] = url
			return rs256().sign(w.claims(token), nil)
		}, ReasonTenant}
	}
	return map[string]attack{
		"another tenant":          with("tenant_id", "globex", ReasonTenant),
		"missing":                 with("tenant_id", nil, ReasonTenant),
		"null":                    rewritten(`"acme"`, `null`, ReasonTenant),
		"empty":                   with("tenant_id", "", ReasonTenant),
		"in capitals":             with("tenant_id", "ACME", ReasonTenant),
		"with a space":            with("tenant_id", "acme ", ReasonTenant),
		"with NUL":                with("tenant_id", "acme\x00", ReasonTenant),
		"a list of the right one": with("tenant_id", []string{"acme"}, ReasonTenant),
		"a list of two":           with("tenant_id", []string{"acme", "globex"}, ReasonTenant),
		"a number":                with("tenant_id", 1, ReasonTenant),
		"an object":               with("tenant_id", map[string]any{"acme": true}, ReasonTenant),
		"in another claim": {nil, func(w *world) string {
			return rs256().sign(w.claims(map[string]any{"tenant_id": nil, "Tenant_ID": "acme", "tid": "acme"}), nil)
		}, ReasonTenant},
		"a wildcard":                   with("tenant_id", "*", ReasonTenant),
		"disagrees with the fixed one": {fixed, with("tenant_id", "globex", "").forge, ReasonTenant},
		"no string, and a fixed one":   {fixed, with("tenant_id", []string{"acme"}, "").forge, ReasonTenant},
		"bound to nobody":              {nil, func(w *world) string { return incomplete(w, func(i *copse.Issuer) { i.Tenants = nil }) }, ReasonTenant},
		"fixed, but not bound": {nil, func(w *world) string {
			return incomplete(w, func(i *copse.Issuer) { i.FixedTenant, i.TenantClaim, i.Tenants = "acme", "", nil })
		}, ReasonTenant},
		"no way to tell":                 {nil, func(w *world) string { return incomplete(w, func(i *copse.Issuer) { i.TenantClaim = "" }) }, ReasonTenant},
		"pointer to nothing":             nested(map[string]any{"app": map[string]any{}}),
		"pointer through a string":       nested(map[string]any{"app": "acme"}),
		"pointer into a list":            nested(map[string]any{"app": []any{map[string]any{"tenant": "acme"}}}),
		"pointer to a list":              nested(map[string]any{"app": map[string]any{"tenant": []string{"acme"}}}),
		"pointer's own text as a claim":  nested(map[string]any{"/app/tenant": "acme"}),
		"another tenant at the pointer":  nested(map[string]any{"app": map[string]any{"tenant": "globex"}}),
		"plain claim where a pointer is": nested(map[string]any{"tenant": "acme"}),
	}
}

func claimAttacks() map[string]attack {
	many := make([]string, 100)
	for i := range many {
		many[i] = strings.Repeat("g", i+1)
	}
	vouches := registered(func(i *copse.Issuer) { i.EmailDomains = []string{"acme.example", "kiosk.example"} })
	email := func(address any) attack { return attack{vouches, with("email", address, "").forge, ReasonEmailDomain} }
	return map[string]attack{
		"subject missing":            with("sub", nil, ReasonPrincipal),
		"subject empty":              with("sub", "", ReasonPrincipal),
		"subject null":               rewritten(`"alice"`, `null`, ReasonPrincipal),
		"subject a number":           with("sub", 7, ReasonPrincipal),
		"subject a list":             with("sub", []string{"alice"}, ReasonPrincipal),
		"subject an entity":          with("sub", map[string]any{"__entity": map[string]any{"type": "App::User", "id": "admin"}}, ReasonPrincipal),
		"subject very long":          with("sub", strings.Repeat("x", copse.MaxEntityIDBytes), ReasonPrincipal),
		"groups a number":            with("groups", 1, ReasonGroups),
		"groups an object":           with("groups", map[string]any{"admins": true}, ReasonGroups),
		"groups null":                rewritten(`["admins","staff"]`, `null`, ReasonGroups),
		"groups true":                with("groups", true, ReasonGroups),
		"groups with a number":       with("groups", []any{"admins", 1}, ReasonGroups),
		"groups with null":           with("groups", []any{"admins", nil}, ReasonGroups),
		"groups nested":              with("groups", []any{[]string{"admins"}}, ReasonGroups),
		"groups with an entity":      with("groups", []any{map[string]any{"__entity": map[string]any{"type": "App::Group", "id": "admins"}}}, ReasonGroups),
		"a group empty":              with("groups", []string{""}, ReasonGroups),
		"a group very long":          with("groups", []string{strings.Repeat("x", copse.MaxEntityIDBytes)}, ReasonGroups),
		"a hundred groups":           with("groups", many, ReasonGroups),
		"reserved claim cognito":     with("cognito", map[string]any{"groups": []string{"admins"}}, ReasonClaim),
		"reserved claim dev":         with("dev", "x", ReasonClaim),
		"reserved claim custom":      with("custom", 1, ReasonClaim),
		"e-mail of another domain":   email("eve@globex.example"),
		"e-mail of a subdomain":      email("eve@sub.acme.example"),
		"e-mail of a longer domain":  email("eve@evil-acme.example"),
		"e-mail with two at signs":   email("eve@acme.example@globex.example"),
		"e-mail with a dot behind":   email("eve@acme.example."),
		"e-mail without an at sign":  email("acme.example"),
		"e-mail without a local":     email("@acme.example"),
		"e-mail a list":              email([]string{"alice@acme.example"}),
		"e-mail folding to a domain": email("eve@\u212aiosk.example"),
	}
}

// The key document that a token names must not even be asked for.
func TestATokenCantMakeTheServerFetch(t *testing.T) {
	w := newWorld(t)
	bait := newProvider(t)
	bait.serve("/keys", func(http.ResponseWriter, *http.Request) {})
	evil := bait.publish("/evil", published(rs256()))
	w.wantAccepted(t, w.good())
	for _, h := range []string{"jku", "x5u"} {
		w.wantRefused(t, rs256().sign(w.claims(nil), map[string]any{h: bait.URL + "/keys"}), ReasonHeader)
	}
	w.wantRefused(t, rs256().sign(w.claims(map[string]any{"iss": evil}), nil), ReasonIssuer)
	w.wantRefused(t, rs256().sign(w.claims(map[string]any{"jwks_uri": bait.URL + "/keys"}), map[string]any{"kid": bait.URL + "/keys"}), ReasonUnknownKey)
	if n := bait.requests.Load(); n != 0 {
		t.Errorf("%d requests to where a token pointed", n)
	}
}

// Every case of law 4 that this package sees has one answer, to the byte.
func TestDeniedIsOneAnswer(t *testing.T) {
	answers := map[string]bool{}
	for name, a := range tenantAttacks() {
		w := newWorld(t)
		if a.prepare != nil {
			a.prepare(w)
		}
		_, err := w.Verify(t.Context(), a.forge(w))
		if copse.KindOf(err) != copse.Denied {
			t.Errorf("%s: %v", name, err)
			continue
		}
		answers[err.Error()] = true
	}
	if len(answers) != 1 {
		t.Errorf("%d answers: %v", len(answers), answers)
	}
}
