package access

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

const keyKind storage.Kind = "access-key"

// record is a key ready to verify with. It holds its secret in the clear, so it formats as nothing.
type record struct {
	key    Key
	caller Caller
	known  bool // false only for the stand-in of keys that do not exist
	secret string
	hash   [sha256.Size]byte // of the secret: equal lengths for a constant-time comparison
	// The last signing key that a good signature was made with; nil at first.
	derived atomic.Pointer[signingKey]
	use     *use // nil: nobody keeps it
}

// Format keeps a record that strays into a log line from showing its secret.
func (*record) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// newRecord hashes the secret once, so that comparing hashes the guess alone.
func newRecord(k Key, secret string) *record {
	return &record{
		key: k, caller: Caller{KeyID: k.ID, Scope: k.Scope, Verbs: k.Verbs}, known: true,
		secret: secret, hash: sha256.Sum256([]byte(secret)),
	}
}

// hasSecret compares in constant time, whatever the length of the guess.
func (r *record) hasSecret(secret string) bool {
	guess := sha256.Sum256([]byte(secret))
	return subtle.ConstantTimeCompare(guess[:], r.hash[:]) == 1 && r.known
}

func (r *record) expired(now time.Time) bool {
	return !r.key.ExpiresAt.IsZero() && !now.Before(r.key.ExpiresAt)
}

// lookup never fails for an unknown id: it hands out the stand-in, and the caller goes on to do the
// same work as for a known key with a wrong secret.
// The root key is looked for first and needs no storage. Its error is Unavailable: the keys can't be read.
func (s *Service) lookup(ctx context.Context, id string) (*record, error) {
	if s.root != nil && id == s.root.key.ID {
		return s.root, nil
	}
	if !validKeyID(id) {
		return s.nobody, nil
	}
	r, err := s.keys.Get(ctx, id)
	switch {
	case err == nil:
		return r, nil
	case errors.Is(err, storage.ErrNotFound):
		return s.nobody, nil
	}
	return nil, unavailable(err)
}

// load is the cache's: [storage.ErrNotFound] is kept for a while, any other error is not.
func (s *Service) load(ctx context.Context, id string) (*record, error) {
	item, err := s.backend.Get(ctx, storage.Directory(), storage.Key{Kind: keyKind, ID: id})
	if err != nil {
		return nil, err
	}
	r, err := s.open(item)
	if err == nil {
		r.use = s.uses.of(id, time.Now())
	}
	return r, err
}

// stored is a key's body in storage.
// What is public of the key is in the clear, so lists need no master key.
type stored struct {
	Sealed      []byte              `json:"sealed"`             // the secret under AES-256-GCM, the key id as associated data
	MasterKey   string              `json:"masterKey,omitzero"` // generation of the master key it is sealed under
	All         bool                `json:"all,omitzero"`
	Tenant      copse.TenantID      `json:"tenant,omitzero"`
	PolicyStore copse.PolicyStoreID `json:"policyStoreId,omitzero"`
	Verbs       Verb                `json:"verbs"`
	Description string              `json:"description,omitzero"`
	CreatedAt   time.Time           `json:"createdAt"`
	ExpiresAt   time.Time           `json:"expiresAt,omitzero"`
}

// seal makes the body of a key's row. The id is bound to the secret: sealed text put under another id is no secret.
func (s *sealers) seal(k Key, secret string) ([]byte, error) {
	return json.Marshal(stored{
		Sealed: seal(s.sealer, secret, k.ID), MasterKey: s.generation,
		All: k.Scope.All, Tenant: k.Scope.Tenant, PolicyStore: k.Scope.PolicyStore,
		Verbs: k.Verbs, Description: k.Description, CreatedAt: k.CreatedAt, ExpiresAt: k.ExpiresAt,
	})
}

// open reads a key's row and opens its secret. Errors name the key and never show anything of the secret.
func (s *sealers) open(item storage.Item) (*record, error) {
	k, b, err := parseStored(item)
	if err != nil {
		return nil, err
	}
	secret, err := s.sealer.Open(nil, nil, b.Sealed, []byte(k.ID))
	if err != nil {
		return nil, fmt.Errorf("access key %s: its secret can't be opened%s: %w", k.ID, s.otherThan(b.MasterKey), err)
	}
	return newRecord(k, string(secret)), nil
}

// otherThan tells which master key would open what this one does not.
func (s *sealers) otherThan(generation string) string {
	if generation == "" || generation == s.generation {
		return ""
	}
	return fmt.Sprintf(", it is sealed under master key %s and this is %s", generation, s.generation)
}

// parseStored opens nothing, and so works without the right master key. LastUsedAt has a row of its own.
func parseStored(item storage.Item) (Key, stored, error) {
	var b stored
	if err := json.Unmarshal(item.Body, &b); err != nil {
		return Key{}, b, fmt.Errorf("access key %s: %w", item.ID, err)
	}
	return Key{
		ID: item.ID, Description: b.Description,
		Scope: Scope{All: b.All, Tenant: b.Tenant, PolicyStore: b.PolicyStore},
		Verbs: b.Verbs, CreatedAt: b.CreatedAt, ExpiresAt: b.ExpiresAt,
	}, b, nil
}
