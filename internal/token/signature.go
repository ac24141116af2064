package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"slices"

	"github.com/golang-jwt/jwt/v5"
)

// method is an algorithm with the keys it may be used with. Naming the key's type beside the
// algorithm is what stops a public key from being taken for an HMAC secret.
// verify computes over bytes: it is never shown a header, in which a token would choose.
type method struct {
	verify jwt.SigningMethod
	fits   func(crypto.PublicKey) bool
}

// methods holds asymmetric algorithms only; it is never written.
var methods = map[string]*method{
	"RS256": {jwt.SigningMethodRS256, isRSA},
	"RS384": {jwt.SigningMethodRS384, isRSA},
	"RS512": {jwt.SigningMethodRS512, isRSA},
	"PS256": {jwt.SigningMethodPS256, isRSA},
	"PS384": {jwt.SigningMethodPS384, isRSA},
	"PS512": {jwt.SigningMethodPS512, isRSA},
	"ES256": {jwt.SigningMethodES256, isEC(elliptic.P256())},
	"ES384": {jwt.SigningMethodES384, isEC(elliptic.P384())},
	"ES512": {jwt.SigningMethodES512, isEC(elliptic.P521())},
	"EdDSA": {jwt.SigningMethodEdDSA, isEd25519},
}

// Algorithms lists the algorithms an issuer may be registered with, in order.
func Algorithms() []string {
	names := make([]string, 0, len(methods))
	for name := range methods {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// isRSA, isEC and isEd25519 look at the key itself, not at what it says it is for.
func isRSA(k crypto.PublicKey) bool {
	_, ok := k.(*rsa.PublicKey)
	return ok
}

// isEC names the curve as well: each of the ES algorithms is for one (RFC 7518, section 3.4).
func isEC(curve elliptic.Curve) func(crypto.PublicKey) bool {
	return func(k crypto.PublicKey) bool {
		ec, ok := k.(*ecdsa.PublicKey)
		return ok && ec.Curve == curve
	}
}

func isEd25519(k crypto.PublicKey) bool {
	_, ok := k.(ed25519.PublicKey)
	return ok
}

// verifiedBy reports whether one of the keys made the signature. The keys fit the algorithm.
// There may be none, and then it is false.
func (u *unverified) verifiedBy(keys []crypto.PublicKey) bool {
	m := methods[u.alg]
	// Mostly one: several only where an issuer gave several keys one id.
	for _, key := range keys {
		if m.verify.Verify(u.signed, u.signature, key) == nil {
			return true
		}
	}
	return false
}
