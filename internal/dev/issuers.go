package dev

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/golang-jwt/jwt/v5"

	"github.com/copse-authz/copse"
)

// Shared is the name of the issuer that speaks for every tenant. A tenant of that name would have no issuer
// of its own.
const Shared = "shared"

// Audience is whom development tokens are for.
const Audience = "copse"

// Claims by which development tokens name tenant and groups.
const (
	TenantClaim = "tenant_id"
	GroupClaim  = "roles"
)

// issuersFile keeps the keys in a data directory that is kept, so that tokens outlive a restart.
const issuersFile = "dev-issuers.json"

// maxIssuers bounds what asking for ever new names can make a forgotten development server hold.
const maxIssuers = 10_000

// issuers are the development token issuers: one for any name that could be a tenant's, each with a
// key of its own that is made when it is first asked for.
type issuers struct {
	file    string // where keys are kept; empty: nowhere
	baseURL string

	// mu guards keys, and the file. A key is made under it, so that two requests never make two for one name.
	mu   sync.Mutex
	keys map[string]crypto.Signer
}

// stored is the form of the file. It holds private keys, and only its owner may read it.
type stored struct {
	BaseURL string            `json:"baseURL"`
	Keys    map[string][]byte `json:"keys"` // PKCS #8
}

// openIssuers reads the keys of a data directory; dir empty keeps none. formerURL is where the issuers were
// reached at before, empty the first time.
func openIssuers(dir, baseURL string) (i *issuers, formerURL string, err error) {
	i = &issuers{baseURL: baseURL, keys: map[string]crypto.Signer{}}
	if dir == "" {
		return i, "", nil
	}
	i.file = filepath.Join(dir, issuersFile)
	text, err := os.ReadFile(i.file)
	if errors.Is(err, fs.ErrNotExist) {
		return i, "", nil
	}
	var s stored
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	// One key that can't be read is an error for all: a new one in its place would end the tokens signed
	// with it, and nobody would be told why.
	for name, der := range s.Keys {
		key, parseErr := x509.ParsePKCS8PrivateKey(der)
		signer, ok := key.(crypto.Signer)
		if parseErr == nil && !ok {
			parseErr = errors.New("it is of a kind that signs nothing")
		}
		if parseErr != nil {
			err = errors.Join(err, fmt.Errorf("the key of %q can't be used: %w", name, parseErr))
			continue
		}
		i.keys[name] = signer
	}
	if err != nil {
		return nil, "", copse.Errorf(copse.Invalid, "development issuers: %s: %w; remove the file to have new ones made", i.file, err)
	}
	return i, s.BaseURL, nil
}

// URL is the iss claim of an issuer's tokens.
func (i *issuers) URL(name string) string { return i.baseURL + "/issuers/" + name }

// Algorithm is what an issuer signs with. One of the samples uses RSA, so that both families are
// tried; not more, because such keys take long to make.
func (i *issuers) Algorithm(name string) string {
	if name == "initech" {
		return "RS256"
	}
	return "ES256"
}

// key returns an issuer's key, making it when there is none: Invalid for a name that no tenant could have,
// QuotaExceeded when there are [maxIssuers]. With a file, a key it returns is in it.
func (i *issuers) key(name string) (crypto.Signer, error) {
	if err := copse.TenantID(name).Validate(); err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if key, ok := i.keys[name]; ok {
		return key, nil
	}
	if len(i.keys) >= maxIssuers {
		return nil, copse.Errorf(copse.QuotaExceeded, "there are %d development issuers, and no more are made", maxIssuers)
	}
	var key crypto.Signer
	var err error
	if i.Algorithm(name) == "RS256" {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return nil, err
	}
	i.keys[name] = key
	// What could not be kept is not used either: its tokens would not verify after a restart.
	if err := i.save(); err != nil {
		delete(i.keys, name)
		return nil, err
	}
	return key, nil
}

// save replaces the file as a whole. The caller holds the lock, or is the only one.
func (i *issuers) save() error {
	if i.file == "" {
		return nil
	}
	s := stored{BaseURL: i.baseURL, Keys: map[string][]byte{}}
	for name, key := range maps.All(i.keys) {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		s.Keys[name] = der
	}
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	// Written beside and renamed: who is stopped in between has the former file, whole.
	next := i.file + ".next"
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return err
	}
	return os.Rename(next, i.file)
}

// claims are what a token says; minted at the time now. in.Claims come last and replace any of them, also
// iss and exp, so that every kind of wrong token can be made.
func (i *issuers) claims(issuer string, in *TokenRequest, now time.Time) jwt.MapClaims {
	claims := jwt.MapClaims{
		"iss": i.URL(issuer), "sub": in.User, "aud": Audience, "token_use": "access",
		"iat": now.Unix(), "exp": now.Add(cmp.Or(in.Expires, time.Hour)).Unix(), "jti": copse.NewID(),
	}
	// An expired token is one that was good for an hour, and not one that ended before it began.
	if in.Expires < 0 {
		claims["iat"] = now.Add(in.Expires - time.Hour).Unix()
	}
	if in.Tenant != "" {
		claims[TenantClaim] = string(in.Tenant)
	}
	if len(in.Groups) > 0 {
		claims[GroupClaim] = in.Groups
	}
	maps.Copy(claims, in.Claims)
	return claims
}

// mint signs a token as an issuer.
func (i *issuers) mint(issuer string, in *TokenRequest) (string, error) {
	key, err := i.key(issuer)
	if err != nil {
		return "", err
	}
	t := jwt.NewWithClaims(jwt.GetSigningMethod(i.Algorithm(issuer)), i.claims(issuer, in, time.Now()))
	// RFC 9068 has at+jwt for access tokens in the form of a JWT.
	t.Header["kid"] = keyID(key.Public())
	t.Header["typ"] = "at+jwt"
	return t.SignedString(key)
}

// keyID is the start of a digest of the public key: the same key has the same id after a restart.
func keyID(public crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:8])
}

// jwk is a public key as RFC 7517 writes it.
// Members of the other key type stay empty.
type jwk struct {
	KeyType   string `json:"kty"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
	Curve     string `json:"crv,omitempty"`
	X         string `json:"x,omitempty"`
	Y         string `json:"y,omitempty"`
	N         string `json:"n,omitempty"`
	E         string `json:"e,omitempty"`
}

type jwks struct {
	Keys []jwk `json:"keys"`
}

// keySet is an issuer's key set document. Asking for it makes the key, as asking for a token does: a
// verifier may come first.
func (i *issuers) keySet(name string) (jwks, error) {
	key, err := i.key(name)
	if err != nil {
		return jwks{}, err
	}
	out := jwk{Use: "sig", Algorithm: i.Algorithm(name), KeyID: keyID(key.Public())}
	enc := base64.RawURLEncoding
	switch public := key.Public().(type) {
	case *ecdsa.PublicKey:
		point, err := public.Bytes() // uncompressed: 4, then the two coordinates
		if err != nil {
			return jwks{}, err
		}
		half := (len(point) - 1) / 2
		out.KeyType, out.Curve = "EC", "P-256"
		out.X, out.Y = enc.EncodeToString(point[1:1+half]), enc.EncodeToString(point[1+half:])
	case *rsa.PublicKey:
		out.KeyType = "RSA"
		out.N = enc.EncodeToString(public.N.Bytes())
		out.E = enc.EncodeToString(big.NewInt(int64(public.E)).Bytes())
	}
	return jwks{Keys: []jwk{out}}, nil
}

// discovery is what OpenID Connect Discovery requires, and no more.
type discovery struct {
	Issuer        string   `json:"issuer"`
	JWKSURI       string   `json:"jwks_uri"`
	TokenEndpoint string   `json:"token_endpoint"`
	ResponseTypes []string `json:"response_types_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
	Algorithms    []string `json:"id_token_signing_alg_values_supported"`
}

// discovery is an issuer's discovery document. It takes any name: whoever calls it has looked whether it is one.
func (i *issuers) discovery(name string) discovery {
	url := i.URL(name)
	return discovery{
		Issuer: url, JWKSURI: url + "/jwks.json", TokenEndpoint: url + "/token",
		ResponseTypes: []string{"token"}, SubjectTypes: []string{"public"},
		Algorithms: []string{i.Algorithm(name)},
	}
}

// warm makes the keys of the samples and keeps them, and the base URL, on disk. It comes after
// [moveIssuers], which needs the former base URL until it is done, and after a start that failed.
func (i *issuers) warm(ctx context.Context, tenants []copse.TenantID) error {
	for _, id := range tenants {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := i.key(string(id)); err != nil {
			return err
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.save()
}
