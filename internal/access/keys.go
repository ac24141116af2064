package access

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// Key describes an access key, without its secret.
// In what this package returns, exactly one part of Scope is set and times are in UTC.
type Key struct {
	ID          string
	Description string
	Scope       Scope
	Verbs       Verb
	CreatedAt   time.Time
	ExpiresAt   time.Time // zero: never
	LastUsedAt  time.Time // zero: not seen yet; see useInterval
}

const (
	idPrefix     = "CPK"
	idAlphabet   = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	idRandom     = 17 // 85 bits
	secretLength = 40
	secretChars  = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	maxSecret    = 256 // bounds the work for a credential nobody has looked at yet
)

// NewRootKey draws the id and secret of a root key, for the server that has none configured.
func NewRootKey() (id string, secret Secret) { return newKeyID(), newSecret() }

// newKeyID draws an id. Callers never choose one, so an id that was revoked does not come back.
func newKeyID() string { return idPrefix + randomText(idAlphabet, idRandom) }

func newSecret() Secret { return Secret(randomText(secretChars, secretLength)) }

// randomText draws n characters, each equally likely.
func randomText(alphabet string, n int) string {
	// Bytes at the top that would favour the first characters are thrown away.
	limit := 256 - 256%len(alphabet)
	out := make([]byte, 0, n)
	var buf [64]byte
	for {
		_, _ = rand.Read(buf[:])
		for _, b := range buf {
			if int(b) >= limit {
				continue
			}
			if out = append(out, alphabet[int(b)%len(alphabet)]); len(out) == n {
				return string(out)
			}
		}
	}
}

// validKeyID accepts what AWS clients accept as an access key id, without the underscore: it
// separates id and secret in a bearer.
func validKeyID(id string) bool {
	if len(id) < 16 || len(id) > 128 {
		return false
	}
	for i := range len(id) {
		if c := id[i]; !isLowerAlnum(c) && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}

// requireAdmin keeps the management of keys to those who could give themselves any key: the scope all and Admin.
func requireAdmin(c Caller) error {
	if !c.MayEverywhere(Admin) {
		return copse.Errorf(copse.Denied, "access keys need a credential with the verb admin and the scope all")
	}
	return nil
}

// validateKey checks what a caller may choose about a key.
// Exactly one scope: the zero Scope covers nothing, and two would leave open whether both or either is meant.
func validateKey(k Key, now time.Time) error {
	scopes := 0
	if k.Scope.All {
		scopes++
	}
	if k.Scope.Tenant != "" {
		scopes++
		if err := k.Scope.Tenant.Validate(); err != nil {
			return err
		}
	}
	if k.Scope.PolicyStore != "" {
		scopes++
		if err := k.Scope.PolicyStore.Validate(); err != nil {
			return err
		}
	}
	switch {
	case scopes != 1:
		return copse.Errorf(copse.Invalid, "scope: name exactly one of all, tenant and policyStoreId")
	case k.Verbs == 0 || k.Verbs&^(Read|Write|Decide|Admin) != 0:
		return copse.Errorf(copse.Invalid, "verbs: name at least one of read, write, decide and admin")
	case k.Verbs&Admin != 0 && !k.Scope.All:
		return copse.Errorf(copse.Invalid, "verbs: admin covers tenants, issuers and access keys, so it needs the scope all")
	case !k.ExpiresAt.IsZero() && !k.ExpiresAt.After(now):
		return copse.Errorf(copse.Invalid, "expiresAt: %s is past", k.ExpiresAt.UTC().Format(time.RFC3339))
	case len(k.Description) > copse.MaxDescriptionBytes:
		return copse.Errorf(copse.Invalid, "description: at most %d bytes, this one has %d", copse.MaxDescriptionBytes, len(k.Description))
	case !utf8.ValidString(k.Description):
		return copse.Errorf(copse.Invalid, "description: it is not valid UTF-8")
	}
	for _, r := range k.Description {
		if unicode.IsControl(r) {
			return copse.Errorf(copse.Invalid, "description: it contains the control character %U", r)
		}
	}
	return nil
}

// maxAttempts bounds how often a change is computed again because another writer was faster.
const maxAttempts = 10

// CreateKey makes a key; the secret is returned once and can't be read again. Needs Admin everywhere.
// Of k, id, creation and last use are ignored. NotFound when the tenant or policy store of its scope does
// not exist, QuotaExceeded when that has too many keys.
func (s *Service) CreateKey(ctx context.Context, c Caller, k Key) (Key, Secret, error) {
	if err := requireAdmin(c); err != nil {
		return Key{}, "", err
	}
	now := time.Now()
	if err := validateKey(k, now); err != nil {
		return Key{}, "", err
	}
	k.ID, k.LastUsedAt = newKeyID(), time.Time{}
	// Truncated here, so that what is returned is what a list says later.
	k.CreatedAt = now.UTC().Truncate(time.Microsecond)
	if !k.ExpiresAt.IsZero() {
		k.ExpiresAt = k.ExpiresAt.UTC().Truncate(time.Microsecond)
	}
	secret := newSecret()
	body, err := s.seal(k, string(secret))
	if err != nil {
		return Key{}, "", fmt.Errorf("access: %w", err)
	}
	write := storage.Write{Key: storage.Key{Kind: keyKind, ID: k.ID}, Body: body, Expect: storage.Absent()}
	for range maxAttempts {
		// Read anew each time: the tenant may have gone, or have got the last key there is room for.
		var require []storage.Requirement
		var writes []storage.Write
		if require, writes, err = s.admit(ctx, k); err != nil {
			break
		}
		err = s.commit(ctx, c, "CreateKey", require, append(writes, write)...)
		if !errors.Is(err, storage.ErrConflict) {
			break
		}
	}
	if err != nil {
		return Key{}, "", err
	}
	return k, secret, nil
}

// ListKeys returns up to limit keys with ids greater than after, in order, and whether there are
// more. The root key is not among them. Needs Admin everywhere.
func (s *Service) ListKeys(ctx context.Context, c Caller, after string, limit int) ([]Key, bool, error) {
	if err := requireAdmin(c); err != nil {
		return nil, false, err
	}
	if limit < 1 {
		return nil, false, copse.Errorf(copse.Invalid, "maxResults: it must be at least 1")
	}
	// One more than asked for tells whether there are more.
	items, err := s.backend.Scan(ctx, storage.Directory(), keyKind, after, limit+1)
	if err != nil {
		return nil, false, storageError(err)
	}
	more := len(items) > limit
	if more {
		items = items[:limit]
	}
	keys := make([]Key, 0, len(items))
	for _, item := range items {
		// A row that can't be read ends the list: an operator must not take it for complete.
		k, _, err := parseStored(item)
		if err != nil {
			return nil, false, err
		}
		if k.LastUsedAt, err = s.lastUse(ctx, k.ID); err != nil {
			return nil, false, err
		}
		keys = append(keys, k)
	}
	return keys, more, nil
}

// RevokeKey is effective before it returns. NotFound when absent. Needs Admin everywhere. The sealed
// secret is removed from the history too; should that fail, the key is revoked all the same, and the
// same call may be repeated.
func (s *Service) RevokeKey(ctx context.Context, c Caller, id string) error {
	if err := s.requireStored(c, id); err != nil {
		return err
	}
	revoked, err := s.remove(ctx, c, "RevokeKey", id)
	if err != nil {
		return err
	}
	if !revoked {
		return copse.NotFoundError(copse.ResourceAccessKey, id)
	}
	return nil
}

// remove takes a key, its place in its scope's list and its last use away in one commit, and forgets their
// history after it. revoked beside an error: it opens nothing any more, only its history is left. Repeated,
// it finds no key, and forgets what is left.
func (s *Service) remove(ctx context.Context, c Caller, operation, id string) (revoked bool, err error) {
	key := storage.Key{Kind: keyKind, ID: id}
	for range maxAttempts {
		if revoked, err = s.removeOnce(ctx, c, operation, key); !errors.Is(err, storage.ErrConflict) {
			break
		}
	}
	if err != nil {
		return false, err
	}
	s.uses.drop(id)
	for _, gone := range []storage.Key{key, useKey(id)} {
		if err := s.backend.Forget(ctx, storage.Directory(), gone, 0); err != nil && !errors.Is(err, storage.ErrNotFound) {
			return revoked, storageError(fmt.Errorf("the key is revoked, but its history is not forgotten: %w", err))
		}
	}
	return revoked, nil
}

// removeOnce is false when there is no such key, and ErrConflict when another writer was faster.
func (s *Service) removeOnce(ctx context.Context, c Caller, operation string, key storage.Key) (bool, error) {
	item, err := s.backend.Get(ctx, storage.Directory(), key)
	if errors.Is(err, storage.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, storageError(err)
	}
	writes, err := s.dismiss(ctx, item)
	if err != nil {
		return false, err
	}
	writes = append(writes, storage.Write{Key: key, Expect: storage.Version(item.Version)},
		storage.Write{Key: useKey(key.ID), Expect: storage.Any()})
	if err := s.commit(ctx, c, operation, nil, writes...); err != nil {
		return false, err
	}
	return true, nil
}

// commit writes to the directory partition, which the first writer makes.
// The incarnation is read each time, and a directory that came or went in between is met by another attempt.
// Conflicts are the caller's to repeat, since what it computed may not hold any more.
func (s *Service) commit(ctx context.Context, c Caller, operation string, require []storage.Requirement, writes ...storage.Write) error {
	const attempts = 3 // another writer may make the directory between our two steps
	var err error
	for range attempts {
		commit := storage.Commit{Partition: storage.Directory(), Require: require, Writes: writes, Actor: c.Actor(), Operation: operation}
		var head storage.Head
		switch head, err = s.backend.Head(ctx, storage.Directory()); {
		case err == nil:
			commit.Incarnation = head.Incarnation
		case errors.Is(err, storage.ErrNotFound):
			commit.Create, commit.Incarnation = true, copse.NewIncarnation()
		default:
			return storageError(err)
		}
		if _, err = s.backend.Commit(ctx, commit); err == nil {
			return nil
		}
		if !errors.Is(err, storage.ErrExists) && !errors.Is(err, storage.ErrNoHead) {
			break
		}
	}
	return storageError(err)
}

// storageError keeps the cause, so errors.Is still finds [storage.ErrConflict].
func storageError(err error) error { return storage.AsError(err, copse.ResourceAccessKey, "") }
