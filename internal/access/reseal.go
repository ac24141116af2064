package access

import (
	"context"
	"crypto/cipher"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// sealers are what is made of a master key to keep things in storage with.
type sealers struct {
	sealer     cipher.AEAD // of access keys
	secrets    cipher.AEAD // of the server's own secrets
	generation string      // names the master key, and tells nothing of it
}

// newSealers derives a key for each purpose; Invalid for a master key of another length.
func newSealers(master MasterKey) (sealers, error) {
	var s sealers
	var err error
	if s.sealer, err = sealerFor(master, "access key secret"); err != nil {
		return sealers{}, err
	}
	if s.secrets, err = secretSealer(master); err != nil {
		return sealers{}, err
	}
	name, err := master.derive("generation")
	if err != nil {
		return sealers{}, copse.Errorf(copse.Invalid, "access: %w", err)
	}
	s.generation = hex.EncodeToString(name[:8])
	return s, nil
}

// rotationKind has one row while the master key is being rotated: then neither key opens everything.
const rotationKind storage.Kind = "master-key-rotation"

// rotation names the two generations, so that it is finished with the keys it was begun with.
type rotation struct {
	From string `json:"from"`
	To   string `json:"to"`
}

var rotationKey = storage.Key{Kind: rotationKind, ID: "now"}

// resealBatch is how many rows one commit seals anew.
const resealBatch = 100

// Reseal seals everything under another master key: access keys and the server's secrets. It may be ended
// at any point; the same call takes it up again, and until one has returned without an error New refuses
// this storage. Afterwards the former key opens nothing of it, nor of its history. Nothing else may
// use the backend meanwhile. It returns the number of rows that it sealed anew.
func Reseal(ctx context.Context, b storage.Backend, from, to MasterKey) (int, error) {
	former, err := newSealers(from)
	if err != nil {
		return 0, err
	}
	next, err := newSealers(to)
	if err != nil {
		return 0, err
	}
	if former.generation == next.generation {
		return 0, copse.Errorf(copse.Invalid, "the new master key is the one in use")
	}
	// Enough of a Service to seal and commit with: it has no caches, follows nothing, and is never handed out.
	s := &Service{backend: b, sealers: next}
	if _, err := b.Head(ctx, storage.Directory()); errors.Is(err, storage.ErrNotFound) {
		return 0, nil // nothing was ever stored
	} else if err != nil {
		return 0, storageError(err)
	}
	// Looked through before anything is changed: with a wrong key nothing begins.
	if _, err := s.resealAll(ctx, &former, false); err != nil {
		return 0, err
	}
	if err := s.beginRotation(ctx, rotation{From: former.generation, To: next.generation}); err != nil {
		return 0, err
	}
	// The mark goes last: as long as a row may be of either generation, no server starts.
	total, err := s.resealAll(ctx, &former, true)
	if err != nil {
		return total, err
	}
	return total, s.commit(ctx, System(), "RotateMasterKey", nil, storage.Write{Key: rotationKey, Expect: storage.Any()})
}

// resealAll changes nothing unless write is set: then it only tells whether it could.
func (s *Service) resealAll(ctx context.Context, former *sealers, write bool) (total int, err error) {
	for _, kind := range []storage.Kind{keyKind, secretKind} {
		n, err := s.resealKind(ctx, kind, former, write)
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// beginRotation refuses to go on with other keys than those it was begun with: three generations at once
// are more than anybody could untangle.
func (s *Service) beginRotation(ctx context.Context, r rotation) error {
	item, err := s.backend.Get(ctx, storage.Directory(), rotationKey)
	if err == nil {
		var began rotation
		if err := json.Unmarshal(item.Body, &began); err != nil {
			return storageError(fmt.Errorf("rotation of the master key: %w", err))
		}
		if began != r {
			return copse.Errorf(copse.InvalidState,
				"a rotation from master key %s to %s is not finished, these keys are %s and %s: finish it with the keys it was begun with", began.From, began.To, r.From, r.To)
		}
		return nil
	}
	if !errors.Is(err, storage.ErrNotFound) {
		return storageError(err)
	}
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("access: %w", err)
	}
	return s.commit(ctx, System(), "RotateMasterKey", nil, storage.Write{Key: rotationKey, Body: body, Expect: storage.Absent()})
}

// resealKind goes through the rows of a kind in batches, each one commit. Without write it only opens them: a rotation begins
// when the former key is known to open everything. Rows of the new generation are passed over, which is what makes it resumable.
func (s *Service) resealKind(ctx context.Context, kind storage.Kind, former *sealers, write bool) (int, error) {
	total := 0
	for after := ""; ; {
		items, err := s.backend.Scan(ctx, storage.Directory(), kind, after, resealBatch)
		if err != nil {
			return total, storageError(err)
		}
		var writes []storage.Write
		// Everything is opened before the batch is written, so a row that neither key opens stops the batch whole.
		for _, item := range items {
			after = item.ID
			body, err := s.reseal(item, former)
			if err != nil {
				return total, copse.Errorf(copse.Invalid, "this master key does not open everything, so it can't be rotated: %w", err)
			}
			if body != nil {
				writes = append(writes, storage.Write{Key: item.Key, Body: body, Expect: storage.Version(item.Version)})
			}
		}
		if !write {
			if len(items) < resealBatch {
				return 0, nil
			}
			continue
		}
		if len(writes) > 0 {
			if err := s.commit(ctx, System(), "RotateMasterKey", nil, writes...); err != nil {
				return total, err
			}
			total += len(writes)
		}
		// Also of those that a former run sealed: it may have ended before this.
		for _, item := range items {
			if err := s.forgetFormer(ctx, item.Key); err != nil {
				return total, err
			}
		}
		if len(items) < resealBatch {
			return total, nil
		}
	}
}

// reseal is nil when the row is of the new generation already.
func (s *Service) reseal(item storage.Item, former *sealers) ([]byte, error) {
	if item.Kind == keyKind {
		if _, err := s.open(item); err == nil {
			return nil, nil
		}
		r, err := former.open(item)
		if err != nil {
			return nil, err
		}
		// Only the seal is made anew: the key keeps its id, scope, verbs and times.
		return s.seal(r.key, r.secret)
	}
	if _, err := s.openSecret(item); err == nil {
		return nil, nil
	}
	value, err := former.openSecret(item)
	if err != nil {
		return nil, err
	}
	return s.sealSecret(&value, item.ID)
}

// forgetFormer leaves of a row's history only what the row is now.
// What was sealed under the former key must not be opened by whoever finds that one later.
func (s *Service) forgetFormer(ctx context.Context, key storage.Key) error {
	item, err := s.backend.Get(ctx, storage.Directory(), key)
	if err != nil {
		return storageError(err)
	}
	// Written by the directory's first commit: there is nothing before it, and 0 would mean all of it.
	if item.Version < 2 {
		return nil
	}
	if err := s.backend.Forget(ctx, storage.Directory(), key, item.Version-1); err != nil {
		return storageError(err)
	}
	return nil
}
