package access

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// MasterKeySize is the length of a master key in bytes.
const MasterKeySize = 32

// MasterKeyFile is the name of a generated master key inside the data directory.
const MasterKeyFile = "master.key"

// OpenMasterKey loads the master key from file or, when file is empty, from dir/master.key, which it
// generates if there is none and nothing in b is sealed under another: a new key would open none of it, and
// hide that one is missing. generated tells the caller to warn that this file is now worth a backup.
func OpenMasterKey(ctx context.Context, b storage.Backend, file, dir string) (key MasterKey, generated bool, err error) {
	own := file == ""
	if own {
		file = filepath.Join(dir, MasterKeyFile)
	}
	key, err = LoadMasterKey(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, false, err
	}
	generation, sealed, sealedErr := sealedUnder(ctx, b)
	switch {
	case sealedErr != nil:
		return nil, false, sealedErr
	case sealed:
		return nil, false, copse.Errorf(copse.Invalid, "master key: there is no %s, and what is stored here is sealed under master key %s: bring that file back, or name it with --master-key-file; %s",
			file, generation, lostMasterKey)
	// A file that was named is not made: a misspelt name would make a second key.
	case !own:
		return nil, false, copse.Errorf(copse.Invalid, "master key: there is no %s; make one: openssl rand -hex 32 > FILE, for the server's user alone", file)
	}
	key, err = GenerateMasterKey(file)
	return key, err == nil, err
}

// lostMasterKey is what is left to somebody who has no copy of it.
const lostMasterKey = "if no copy of it is left, `copse key reset-master` drops what it sealed and keeps the rest"

// sealedUnder looks at the first row of each kind: which master key opens it, when it says so.
// It is asked before a key is generated, when there is none to try. sealed is false when nothing is stored.
func sealedUnder(ctx context.Context, b storage.Backend) (generation string, sealed bool, err error) {
	for _, kind := range []storage.Kind{keyKind, secretKind} {
		items, err := b.Scan(ctx, storage.Directory(), kind, "", 1)
		if err != nil {
			return "", false, storageError(err)
		}
		for _, item := range items {
			var row struct {
				MasterKey string `json:"masterKey"`
			}
			if err := json.Unmarshal(item.Body, &row); err != nil || row.MasterKey == "" {
				row.MasterKey = "of an unknown name"
			}
			return row.MasterKey, true, nil
		}
	}
	return "", false, nil
}

// LoadMasterKey reads 32 bytes written as 64 hexadecimal digits or as base64. A file that is not [Private]
// is refused: whoever reads it can open every stored secret.
func LoadMasterKey(file string) (MasterKey, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrPermission) {
		return nil, copse.Errorf(copse.Invalid, "master key: %w; give it to the user that copse runs as: chown", err)
	}
	if err != nil {
		return nil, copse.Errorf(copse.Invalid, "master key: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, copse.Errorf(copse.Invalid, "master key: %w", err)
	}
	// The open file is looked at, not the name: what is read is what was checked.
	if !info.Mode().IsRegular() {
		return nil, copse.Errorf(copse.Invalid, "master key: %s is not a regular file", file)
	}
	if !Private(info) {
		return nil, copse.Errorf(copse.Invalid,
			"master key: %s has mode %04o, so others can reach it; run: chmod 600 %s", file, info.Mode().Perm(), file)
	}
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return nil, copse.Errorf(copse.Invalid, "master key: %w", err)
	}
	key := decodeMasterKey(bytes.TrimSpace(text))
	if key == nil {
		return nil, copse.Errorf(copse.Invalid,
			"master key: %s must hold 32 random bytes as 64 hexadecimal digits or as base64, and nothing else", file)
	}
	return key, nil
}

// Private reports whether a file of secrets is for the server alone: nobody but its owner can reach it, or it
// is root's, and a server that is not root reads it as one of its group. So Kubernetes mounts secrets.
func Private(info fs.FileInfo) bool {
	owner, known := OwnerOf(info)
	return private(info.Mode().Perm(), known && owner == 0 && os.Geteuid() != 0)
}

// private is the rule for the permission bits. A group may read root's file, and never write it.
func private(mode fs.FileMode, ofRoot bool) bool {
	return mode&0o077 == 0 || ofRoot && mode&0o037 == 0
}

// decodeMasterKey is nil for anything but 32 bytes. 64 hexadecimal digits are base64 too, of 48 bytes, so
// nothing has two meanings.
func decodeMasterKey(text []byte) MasterKey {
	if raw, err := hex.DecodeString(string(text)); err == nil && len(raw) == MasterKeySize {
		return raw
	}
	for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if raw, err := encoding.Strict().DecodeString(string(text)); err == nil && len(raw) == MasterKeySize {
			return raw
		}
	}
	return nil
}

// GenerateMasterKey writes a new master key to a file that must not exist yet, readable by its owner
// only, and returns once it is on disk: a key that a crash could take back must not seal anything.
func GenerateMasterKey(file string) (MasterKey, error) {
	key := make(MasterKey, MasterKeySize)
	_, _ = rand.Read(key)
	if err := WriteSecret(file, hex.EncodeToString(key)+"\n"); err != nil {
		return nil, copse.Errorf(copse.Invalid, "master key: %w", err)
	}
	return key, nil
}

// WriteSecret makes a file that must not exist yet, readable by its owner only, and returns once it is on disk.
func WriteSecret(file, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(file))
	}
	return syncDir(filepath.Dir(file))
}

// ReplaceMasterKey gives the former key a name that is free before the new one takes its place, so that at
// no moment there is no key, or a key that has only one name and loses it.
func ReplaceMasterKey(file, next string) (former string, err error) {
	failed := func(err error) (string, error) {
		return "", copse.Errorf(copse.Invalid, "the data are sealed under %s, which could not take the place of %s; run this again: %w", next, file, err)
	}
	mine, err := os.Stat(file)
	if err != nil {
		return failed(err)
	}
	for n := 1; ; n++ {
		former = fmt.Sprintf("%s.former-%d", file, n)
		if err = os.Link(file, former); err == nil {
			break
		}
		if other, statErr := os.Stat(former); statErr == nil && os.SameFile(mine, other) {
			break // a former run came this far
		}
		if !errors.Is(err, fs.ErrExist) {
			return failed(err)
		}
	}
	if err := syncDir(filepath.Dir(file)); err != nil {
		return failed(err)
	}
	if err := os.Rename(next, file); err != nil {
		return failed(err)
	}
	if err := syncDir(filepath.Dir(file)); err != nil {
		return failed(err)
	}
	return former, nil
}

// syncDir has a name that was given or taken away in a directory survive a crash.
func syncDir(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// derive makes an independent key for one purpose, so that a paging token can never be mistaken for
// a sealed secret, whatever its bytes.
func (k MasterKey) derive(purpose string) ([]byte, error) {
	if len(k) != MasterKeySize {
		return nil, fmt.Errorf("a master key has %d bytes, this one has %d", MasterKeySize, len(k))
	}
	return hkdf.Key(sha256.New, k, nil, "copse "+purpose+" v1", MasterKeySize)
}
