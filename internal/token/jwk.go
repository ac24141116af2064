package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	maxKeys    = 100  // in one key set
	minRSABits = 2048 // NIST SP 800-131A
	maxRSABits = 8192 // verifying costs grow with the square
)

// key is one usable key of an issuer.
// id may be empty: a set of one key needs none.
type key struct {
	id     string
	alg    string // the only algorithm it is for; empty: any that fits its type
	public crypto.PublicKey
}

// keySet is what an issuer published at one time. It is immutable.
type keySet struct {
	keys        []key
	fingerprint [sha256.Size]byte
}

// find returns the keys that a token with this header may have been signed with. known is true when
// the key id is one of the set's, even if that key is not for this algorithm. Without a key id there
// must be one key only, so that nothing is left to guess.
// Several keys may have one id: issuers do that with keys of different kinds, and each that fits is tried.
func (s *keySet) find(kid string, hasKid bool, alg string) (found []crypto.PublicKey, known bool) {
	if !hasKid {
		if len(s.keys) != 1 {
			return nil, false
		}
		kid = s.keys[0].id
	}
	for _, k := range s.keys {
		if k.id != kid {
			continue
		}
		known = true
		if (k.alg == "" || k.alg == alg) && methods[alg].fits(k.public) {
			found = append(found, k.public)
		}
	}
	return found, known
}

// jwk has the members of a JSON Web Key that public signature keys need.
// Members of private and symmetric keys are not read.
type jwk struct {
	Kty    string   `json:"kty"`
	Use    string   `json:"use"`
	KeyOps []string `json:"key_ops"`
	Alg    string   `json:"alg"`
	Kid    string   `json:"kid"`
	N      string   `json:"n"`
	E      string   `json:"e"`
	Crv    string   `json:"crv"`
	X      string   `json:"x"`
	Y      string   `json:"y"`
}

// parseKeySet keeps the keys that can verify signatures and leaves out the others: encryption keys,
// symmetric ones, weak ones, kinds not known here. A set of none is a valid answer of an issuer that
// withdrew its keys.
// An error is for what is no key set, or has more than maxKeys. The fingerprint is of the keys that are kept, in
// their order.
func parseKeySet(body []byte) (*keySet, error) {
	var doc struct {
		Keys []jsontext.Value `json:"keys"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	// No list is another document; an empty list says that there is no key any more.
	if doc.Keys == nil {
		return nil, errors.New("key set: it has no keys member")
	}
	if len(doc.Keys) > maxKeys {
		return nil, fmt.Errorf("key set: it has %d keys, at most %d are read", len(doc.Keys), maxKeys)
	}
	set := &keySet{}
	hash := sha256.New()
	for _, raw := range doc.Keys {
		// One that can't be read is left out like one of an unknown kind: it may be of a standard to come.
		var j jwk
		if json.Unmarshal(raw, &j) != nil || !j.signs() {
			continue
		}
		public := j.public()
		if public == nil {
			continue
		}
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			continue
		}
		// Its form is checked, and it is of a kind that some method takes.
		set.keys = append(set.keys, key{id: j.Kid, alg: j.Alg, public: public})
		for _, part := range [][]byte{[]byte(j.Kid), []byte(j.Alg), der} {
			// With lengths, so that no two lists of keys are hashed alike.
			hash.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
			hash.Write(part)
		}
	}
	hash.Sum(set.fingerprint[:0])
	return set, nil
}

// signs reports whether the key says it is for signatures, of an algorithm we know, if it says so.
func (j *jwk) signs() bool {
	// What a key does not say of itself, it does not restrict.
	return (j.Use == "" || j.Use == "sig") &&
		(j.KeyOps == nil || slices.Contains(j.KeyOps, "verify")) &&
		(j.Alg == "" || methods[j.Alg] != nil) &&
		len(j.Kid) <= maxKeyID
}

// public returns nil for a key that is malformed, weak, or of another kind.
func (j *jwk) public() crypto.PublicKey {
	switch j.Kty {
	case "RSA":
		return j.rsaKey()
	case "EC":
		return j.ecKey()
	// Ed25519 alone of that type (RFC 8037): the others are for key agreement, or not known here.
	case "OKP":
		if x := decode(j.X); j.Crv == "Ed25519" && len(x) == ed25519.PublicKeySize {
			return ed25519.PublicKey(x)
		}
	}
	return nil
}

// rsaKey bounds both ends: short keys are weak, and long ones cost whoever verifies.
func (j *jwk) rsaKey() crypto.PublicKey {
	n, e := new(big.Int).SetBytes(decode(j.N)), new(big.Int).SetBytes(decode(j.E))
	// An even modulus has the factor 2.
	if n.BitLen() < minRSABits || n.BitLen() > maxRSABits || n.Bit(0) == 0 {
		return nil
	}
	if e.BitLen() < 2 || e.BitLen() > 31 || e.Bit(0) == 0 { // odd, from 3 to 2^31-1
		return nil
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}
}

// ecKey wants coordinates of exactly the curve's length (RFC 7518, section 6.2.1.2), and a point on the curve.
func (j *jwk) ecKey() crypto.PublicKey {
	var curve elliptic.Curve
	switch j.Crv {
	case "P-256":
		curve = elliptic.P256()
	case "P-384":
		curve = elliptic.P384()
	case "P-521":
		curve = elliptic.P521()
	default:
		return nil
	}
	size := (curve.Params().BitSize + 7) / 8
	x, y := decode(j.X), decode(j.Y)
	if len(x) != size || len(y) != size {
		return nil
	}
	public, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y))
	if err != nil { // not on the curve
		return nil
	}
	return public
}

// decode is nil for what is not base64url without padding.
func decode(text string) []byte {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	return raw
}
