package token

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/golang-jwt/jwt/v5"

	"github.com/copse-authz/copse"
)

// ContextKey is a key that signed contexts are signed with: its kid, and its private half in PKCS #8.
type ContextKey struct {
	ID        string
	Private   []byte
	CreatedAt time.Time
}

// ContextKeyStore keeps the keys, sealed, for all nodes of a server.
// Load gives all of them, in any order. Remove of one that is absent is not an error.
type ContextKeyStore struct {
	Load func(ctx context.Context) ([]ContextKey, error)
	// Add is Conflict when there is a key of that id.
	Add    func(ctx context.Context, k ContextKey) error
	Remove func(ctx context.Context, id string) error
}

// ContextKeysPath is where a server publishes its keys of signed contexts.
const ContextKeysPath = "/.well-known/copse-context-keys"

const (
	// publishedAhead is how long a key is in the key set before anything is signed with it: longer than
	// any verifier goes without reading the set again.
	publishedAhead = 2 * freshFor
	// publishedAfter is how long it stays there once another signs: what it signed is good for a minute.
	publishedAfter = time.Hour
	// lookAtKeys is how often keys are read and made, by each node.
	lookAtKeys = time.Minute
	// MinContextKeyRotation keeps rotation slower than publication.
	MinContextKeyRotation = 4 * publishedAhead
)

// ContextSigner signs tenant contexts, and publishes the keys to verify them with.
// Sign and KeySet read keys without a lock; one goroutine replaces them.
type ContextSigner struct {
	issuer string
	rotate time.Duration
	store  ContextKeyStore
	log    *slog.Logger
	work   *workers
	keys   atomic.Pointer[contextKeys]
}

// contextKeys are the keys of one moment, oldest first.
type contextKeys struct {
	all    []contextKey
	keySet []byte // JWKS
}

type contextKey struct {
	id      string
	created time.Time
	private ed25519.PrivateKey
}

// NewContextSigner makes one, with a first key when there is none. issuer is copse's public URL; a key
// signs for about the time of rotate. It keeps itself in order until Close.
// Its keys are there when it returns, or there is an error.
func NewContextSigner(ctx context.Context, issuer string, rotate time.Duration, store ContextKeyStore, log *slog.Logger) (*ContextSigner, error) {
	if rotate < MinContextKeyRotation {
		return nil, copse.Errorf(copse.Invalid, "keys of signed contexts can't be rotated more often than every %v: verifiers must have read a key before it is used", MinContextKeyRotation)
	}
	s := &ContextSigner{issuer: issuer, rotate: rotate, store: store, log: log, work: newWorkers()}
	if err := s.maintain(ctx); err != nil {
		return nil, err
	}
	s.work.start(s.maintainUntil, func() {})
	return s, nil
}

// Close stops looking after the keys.
func (s *ContextSigner) Close() error {
	s.work.close()
	return nil
}

// An error leaves the keys that are in use, which go on signing.
func (s *ContextSigner) maintainUntil(ctx context.Context) {
	tick := time.NewTicker(lookAtKeys)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := s.maintain(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("the keys of signed contexts can't be looked after; those there are stay in use", "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// maintain reads the keys, makes the next one when it is due, and removes those nobody needs.
func (s *ContextSigner) maintain(ctx context.Context) error {
	keys, err := s.load(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	if newest := len(keys) - 1; newest < 0 || now.Sub(keys[newest].created) >= s.rotate {
		made, err := newContextKey(now)
		if err != nil {
			return err
		}
		if err := s.store.Add(ctx, made); err != nil && copse.KindOf(err) != copse.Conflict {
			return err
		}
		// Read again, and not appended: with Conflict it was another node that made one.
		if keys, err = s.load(ctx); err != nil {
			return err
		}
	}
	return s.use(ctx, keys, now)
}

// A key that can't be read is an error and not left out: it may be the one that others sign with.
func (s *ContextSigner) load(ctx context.Context) ([]contextKey, error) {
	stored, err := s.store.Load(ctx)
	if err != nil {
		return nil, err
	}
	keys := make([]contextKey, 0, len(stored))
	for _, k := range stored {
		parsed, err := x509.ParsePKCS8PrivateKey(k.Private)
		if err != nil {
			return nil, fmt.Errorf("context key %s: %w", k.ID, err)
		}
		private, ok := parsed.(ed25519.PrivateKey)
		if !ok {
			return nil, fmt.Errorf("context key %s is a %T", k.ID, parsed)
		}
		keys = append(keys, contextKey{k.ID, k.CreatedAt, private})
	}
	slices.SortFunc(keys, func(a, b contextKey) int { return a.created.Compare(b.created) })
	return keys, nil
}

// use publishes and signs with keys, and removes those that have been out of use for long enough.
func (s *ContextSigner) use(ctx context.Context, keys []contextKey, now time.Time) error {
	if len(keys) == 0 {
		return copse.Errorf(copse.Unavailable, "there is no key to sign contexts with")
	}
	// The next one has signed for so long that nothing of the first is good any more.
	for len(keys) > 1 && now.Sub(keys[1].created) > publishedAhead+publishedAfter {
		if err := s.store.Remove(ctx, keys[0].id); err != nil {
			return err
		}
		keys = keys[1:]
	}
	set, err := publicSet(keys)
	if err != nil {
		return err
	}
	s.keys.Store(&contextKeys{all: keys, keySet: set})
	return nil
}

// newContextKey names a key by its time, so that nodes which find one missing at the same minute mostly
// make one and not several; several do no harm.
func newContextKey(now time.Time) (ContextKey, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return ContextKey{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	return ContextKey{ID: now.UTC().Format("20060102-1504"), Private: der, CreatedAt: now.UTC()}, err
}

// publicSet is the JWK set of the keys' public halves, of those that don't sign yet as well.
func publicSet(keys []contextKey) ([]byte, error) {
	type published struct {
		Kty string `json:"kty"`
		Crv string `json:"crv"`
		Use string `json:"use"`
		Alg string `json:"alg"`
		Kid string `json:"kid"`
		X   string `json:"x"`
	}
	var doc struct {
		Keys []published `json:"keys"`
	}
	for _, k := range keys {
		public, _ := k.private.Public().(ed25519.PublicKey)
		doc.Keys = append(doc.Keys, published{"OKP", "Ed25519", "sig", "EdDSA", k.id, base64.RawURLEncoding.EncodeToString(public)})
	}
	return json.Marshal(doc)
}

// current is the newest key that verifiers have had time to read; the oldest where there is none.
// There is always one: use takes no empty list.
func (k *contextKeys) current(now time.Time) *contextKey {
	for i := len(k.all) - 1; i > 0; i-- {
		if now.Sub(k.all[i].created) >= publishedAhead {
			return &k.all[i]
		}
	}
	return &k.all[0]
}

// KeySet is the JWK set to publish.
// It is shared and must not be changed.
func (s *ContextSigner) KeySet() []byte { return s.keys.Load().keySet }

// Context is what a signed context says: Bound is the request it is for.
type Context struct {
	Bound
	Audience   string
	DecisionID string
}

// Sign makes the context of one request. It is good for as long as [ContextVerifier] takes one.
// The user's token is in it by its hash alone: who sees a context has no token.
func (s *ContextSigner) Sign(c *Context) (string, error) {
	now := time.Now()
	key := s.keys.Load().current(now)
	hash := sha256.Sum256([]byte(c.Token))
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
		"iss": s.issuer, "aud": c.Audience, "tenant": string(c.Verified.Tenant),
		"principal": map[string]string{"type": string(c.Verified.Principal.Type), "id": string(c.Verified.Principal.ID)},
		"did":       c.DecisionID,
		"ath":       base64.RawURLEncoding.EncodeToString(hash[:]),
		"htm":       c.Method, "path": c.Path,
		"iat": now.Unix(), "exp": now.Unix() + int64(maxContextLife/time.Second),
	})
	// The type keeps it from being taken for a user's token, and the other way round.
	token.Header["typ"], token.Header["kid"] = ContextType, key.id
	signed, err := token.SignedString(key.private)
	if err != nil {
		return "", copse.Errorf(copse.Internal, "signing a context: %w", err)
	}
	return signed, nil
}
