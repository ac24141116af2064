package access

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// MaxOverlap is the longest that a replaced key may stay good.
const MaxOverlap = 30 * 24 * time.Hour

// SetExpiry changes when a key expires; zero is never. It is in force before it returns. A key that has
// expired stays so: what was taken out of use, by time or by rotation, comes back as a new key only.
// NotFound when absent. Needs Admin everywhere.
func (s *Service) SetExpiry(ctx context.Context, c Caller, id string, at time.Time) (Key, error) {
	if !at.IsZero() && !at.After(time.Now()) {
		return Key{}, copse.Errorf(copse.Invalid, "expiresAt: %s is past; to end a key now, revoke it", at.UTC().Format(time.RFC3339))
	}
	var changed Key
	err := s.change(ctx, c, id, func(r *record, item storage.Item) error {
		// What is returned is what was sealed, and not another reading of it.
		changed = r.key
		changed.ExpiresAt = at.UTC().Truncate(time.Microsecond)
		body, err := s.seal(changed, r.secret)
		if err != nil {
			return fmt.Errorf("access: %w", err)
		}
		return s.commit(ctx, c, "SetKeyExpiry", nil, storage.Write{Key: item.Key, Body: body, Expect: storage.Version(item.Version)})
	})
	if err != nil {
		return Key{}, err
	}
	changed.LastUsedAt, _ = s.lastUse(ctx, id) // unknown is no reason to call failed what has happened
	return changed, nil
}

// RotateKey makes a key that covers and may do what another does, and lets that one expire after the
// overlap, unless it does so earlier. The new key lives as long as the old one was made to live. Both
// happen or neither does; the secret is returned once. NotFound when there is no such key, InvalidState
// when it has expired. Needs Admin everywhere.
func (s *Service) RotateKey(ctx context.Context, c Caller, id string, overlap time.Duration) (made Key, secret Secret, old Key, err error) {
	if overlap < 0 || overlap > MaxOverlap {
		return Key{}, "", Key{}, copse.Errorf(copse.Invalid, "overlap: %s is not between 0 and %s", overlap, MaxOverlap)
	}
	secret = newSecret()
	err = s.change(ctx, c, id, func(r *record, item storage.Item) error {
		now := time.Now().UTC().Truncate(time.Microsecond)
		// Both are computed from the row that is read in this attempt, and the commit holds it to its version.
		made, old = r.key, r.key
		made.ID, made.CreatedAt = newKeyID(), now
		if !old.ExpiresAt.IsZero() {
			made.ExpiresAt = now.Add(old.ExpiresAt.Sub(old.CreatedAt))
		}
		// An overlap never makes the old key live longer than it would have.
		if end := now.Add(overlap); old.ExpiresAt.IsZero() || end.Before(old.ExpiresAt) {
			old.ExpiresAt = end
		}
		require, writes, err := s.admit(ctx, made)
		if err != nil {
			return err
		}
		newBody, err := s.seal(made, string(secret))
		if err != nil {
			return fmt.Errorf("access: %w", err)
		}
		oldBody, err := s.seal(old, r.secret)
		if err != nil {
			return fmt.Errorf("access: %w", err)
		}
		return s.commit(ctx, c, "RotateKey", require, append(writes,
			storage.Write{Key: storage.Key{Kind: keyKind, ID: made.ID}, Body: newBody, Expect: storage.Absent()},
			storage.Write{Key: item.Key, Body: oldBody, Expect: storage.Version(item.Version)})...)
	})
	if err != nil {
		return Key{}, "", Key{}, err
	}
	// An error here would have the caller drop a secret that nobody can read again, of a key that is there.
	old.LastUsedAt, _ = s.lastUse(ctx, id)
	return made, secret, old, nil
}

// change hands a stored key that has not expired to do, again when another writer was faster.
// do must end in the commit, and not do anything outside it that could not be done twice.
func (s *Service) change(ctx context.Context, c Caller, id string, do func(*record, storage.Item) error) error {
	if err := s.requireStored(c, id); err != nil {
		return err
	}
	var err error
	for range maxAttempts {
		var item storage.Item
		item, err = s.backend.Get(ctx, storage.Directory(), storage.Key{Kind: keyKind, ID: id})
		if errors.Is(err, storage.ErrNotFound) {
			return copse.NotFoundError(copse.ResourceAccessKey, id)
		}
		if err != nil {
			return storageError(err)
		}
		r, openErr := s.open(item)
		if openErr != nil {
			return storageError(openErr)
		}
		if r.expired(time.Now()) {
			return copse.Errorf(copse.InvalidState, "access key %s has expired; make a new one", id)
		}
		if err = do(r, item); !errors.Is(err, storage.ErrConflict) {
			break
		}
	}
	return err
}

// requireStored is what changing or revoking a key needs of the caller and of the id.
func (s *Service) requireStored(c Caller, id string) error {
	if err := requireAdmin(c); err != nil {
		return err
	}
	if s.root != nil && id == s.root.key.ID {
		return copse.Errorf(copse.InvalidState, "the root access key is configured, not stored: change the configuration and restart")
	}
	if !validKeyID(id) {
		return copse.NotFoundError(copse.ResourceAccessKey, id)
	}
	return nil
}
