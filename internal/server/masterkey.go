package server

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage/sqlite"
)

// MasterKeyRotation is what a rotation of the master key did.
type MasterKeyRotation struct {
	Resealed int    `json:"resealed"` // access keys and secrets of the server
	File     string `json:"file"`     // of the master key from now on
	Former   string `json:"former"`   // file of the former one
}

// RotateMasterKey gives a data directory that no process has another master key. It may be killed at any
// point and is then called again, with the same files.
//
// The key in file (empty: the data directory's own) is replaced by that in to, which is made when it is
// absent. With an empty to, the new key takes the former's place, and that is kept beside it, since
// backups of before need it.
func RotateMasterKey(ctx context.Context, dataDir, file, to string) (r MasterKeyRotation, err error) {
	if file == "" {
		file = filepath.Join(dataDir, access.MasterKeyFile)
	}
	former, err := access.LoadMasterKey(file)
	if err != nil {
		return r, err
	}
	inPlace := to == ""
	if inPlace {
		to = file + ".next"
	}
	// The directory first: its lock keeps two rotations from making two keys.
	b, err := sqlite.OpenExisting(dataDir)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	next, err := access.LoadMasterKey(to)
	if errors.Is(err, fs.ErrNotExist) {
		if err = opensAll(ctx, b, former); err != nil {
			return r, err // before a key is made that nothing will be sealed under
		}
		next, err = access.GenerateMasterKey(to)
	}
	if err != nil {
		return r, err
	}
	r = MasterKeyRotation{File: to, Former: file}
	if r.Resealed, err = access.Reseal(ctx, b, former, next); err != nil {
		return r, err
	}
	// Everything is sealed under the new key by now. If the files can't be exchanged, the error says where it is.
	if inPlace {
		r.File = file
		r.Former, err = access.ReplaceMasterKey(file, to)
	}
	return r, err
}

// opensAll is Invalid with the first of what the key does not open.
func opensAll(ctx context.Context, b *sqlite.Backend, key access.MasterKey) (err error) {
	_, failed := access.Verify(ctx, b, key, func(why error) {
		if err == nil {
			err = copse.Errorf(copse.Invalid, "this master key does not open everything, so it can't be rotated: %w", why)
		}
	})
	return errors.Join(failed, err)
}

// ResetMasterKey is for a master key of which no copy is left: it drops what is sealed under it, access keys and the
// server's own secrets, so that a server starts again, with another key. What the key in file (empty: the data directory's
// own, which may be absent) opens stays. goAhead is asked with what would go, before anything does; its error ends it.
func ResetMasterKey(ctx context.Context, dataDir, file string, goAhead func(access.Sealed) error, done func(int)) (n access.Sealed, err error) {
	if file == "" {
		file = filepath.Join(dataDir, access.MasterKeyFile)
	}
	b, err := sqlite.OpenExisting(dataDir)
	if err != nil {
		return n, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	// An absent key opens nothing, which is what this is for; one that can't be read is not absent.
	key, err := access.LoadMasterKey(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return n, err
	}
	shut, err := access.FindUnopened(ctx, b, key)
	if err != nil {
		return n, err
	}
	if shut.Sealed == (access.Sealed{}) {
		return n, copse.Errorf(copse.Invalid, "nothing to drop: nothing is sealed here that %s does not open", file)
	}
	if err := goAhead(shut.Sealed); err != nil {
		return n, err
	}
	return shut.Sealed, shut.Drop(ctx, done)
}
