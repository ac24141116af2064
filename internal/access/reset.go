package access

import (
	"context"
	"crypto/rand"

	"github.com/copse-authz/copse/internal/storage"
)

// Unopened lists what a master key does not open. It is for a backend that nothing else uses.
// Sealed counts what was not opened; the rest stays as it is.
type Unopened struct {
	s    *Service
	rows []storage.Key
	Sealed
}

// FindUnopened looks for access keys and secrets of the server that the master key does not open; with a nil key, of
// which no copy is left, it opens none.
func FindUnopened(ctx context.Context, b storage.Backend, master MasterKey) (*Unopened, error) {
	if master == nil {
		// A random key opens nothing, and every row is found by the same way.
		master = make(MasterKey, MasterKeySize)
		_, _ = rand.Read(master)
	}
	sealers, err := newSealers(master)
	if err != nil {
		return nil, err
	}
	u := &Unopened{s: &Service{backend: b, sealers: sealers, uses: uses{byID: map[string]*use{}}}}
	_, err = sealers.eachRow(ctx, b, func(row storage.Key, err error) {
		switch {
		case err == nil:
			return
		case row.Kind == keyKind:
			u.Keys++
		default:
			u.Secrets++
		}
		u.rows = append(u.rows, row)
	})
	if err != nil {
		return nil, err
	}
	return u, nil
}

// Drop removes them, from the history too, and then a rotation that nobody can finish. It may be ended at any point:
// what is left is found again, though the history of the row it was at may stay, sealed as it is. done may be nil; it is told the number of rows gone so far.
func (u *Unopened) Drop(ctx context.Context, done func(int)) error {
	const operation = "ResetMasterKey"
	for i, row := range u.rows {
		var err error
		if row.Kind == keyKind {
			_, err = u.s.remove(ctx, System(), operation, row.ID)
		} else {
			err = u.s.forgetSecret(ctx, operation, row)
		}
		if err != nil {
			return err
		}
		if done != nil {
			done(i + 1)
		}
	}
	return u.s.commit(ctx, System(), operation, nil, storage.Write{Key: rotationKey, Expect: storage.Any()})
}
