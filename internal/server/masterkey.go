package server

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

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
		next, err = access.GenerateMasterKey(to)
	}
	if err != nil {
		return r, err
	}
	r = MasterKeyRotation{File: to, Former: file}
	if r.Resealed, err = access.Reseal(ctx, b, former, next); err != nil {
		return r, err
	}
	if inPlace {
		r.File = file
		r.Former, err = access.ReplaceMasterKey(file, to)
	}
	return r, err
}
