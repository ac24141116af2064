package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
)

// rootKeyFile is the file of the data directory that holds a generated root key, readable by its owner
// only.
const rootKeyFile = "root.key"

// loadMasterKey reads the key that access keys are encrypted under, or makes one beside the data.
// In memory, where nothing is kept, a random one does.
func (s *Server) loadMasterKey(ctx context.Context) (access.MasterKey, error) {
	if s.cfg.MasterKeyFile == "" && s.cfg.InMemory {
		return randomBytes(access.MasterKeySize), nil
	}
	key, generated, err := access.OpenMasterKey(ctx, s.backend, s.cfg.MasterKeyFile, s.cfg.DataDir)
	if generated {
		s.log.Warn("made a master key beside the data it protects: back it up, better keep it elsewhere and name it with --master-key-file",
			"file", filepath.Join(s.cfg.DataDir, access.MasterKeyFile))
	}
	return key, err
}

// rootKey may do everything.
type rootKey struct {
	ID     string
	Secret access.Secret
}

func (k rootKey) credential() access.Secret { return access.FormatBearer(k.ID, k.Secret) }

// loadRootKey takes the configured one, else the one of the data directory, else makes one.
// A file that is there and can't be used is an error and never replaced: somebody may use its key.
func (s *Server) loadRootKey() (rootKey, error) {
	if s.cfg.RootAccessKeyID != "" {
		return rootKey{s.cfg.RootAccessKeyID, s.cfg.RootSecretAccessKey}, nil
	}
	made := rootKey{ID: copse.NewID(), Secret: access.Secret(copse.NewID() + copse.NewID())}
	if s.cfg.InMemory {
		return made, nil
	}
	file := filepath.Join(s.cfg.DataDir, rootKeyFile)
	if kept, err := readRootKey(file); !errors.Is(err, fs.ErrNotExist) {
		return kept, err
	}
	// Before it is used for anything: nobody can be locked out by a crash.
	if err := access.WriteSecret(file, string(made.credential())+"\n"); err != nil {
		return rootKey{}, copse.Errorf(copse.Invalid, "making the root key: %w", err)
	}
	// The one moment at which it may be shown. The file keeps it.
	if s.cfg.OnRootKey != nil {
		s.cfg.OnRootKey(file, made.credential())
	}
	return made, nil
}

// readRootKey is Invalid for a file that holds none or that others can reach, and wraps fs.ErrNotExist when there is no file.
func readRootKey(file string) (rootKey, error) {
	text, mode, err := readWithMode(file)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return rootKey{}, copse.Errorf(copse.Invalid, "root key: %w; give it to the user that copse runs as: chown, or remove it to have a new one made", err)
	case err != nil:
		return rootKey{}, copse.Errorf(copse.Invalid, "root key: %w", err)
	case mode&0o077 != 0:
		return rootKey{}, copse.Errorf(copse.Invalid,
			"root key: %s has mode %04o, so others can reach it; run: chmod 600 %s, or remove it to have a new one made", file, mode, file)
	}
	return parseRootKey(file, string(bytes.TrimSpace(text)))
}

// readWithMode reads a whole file and tells who else can.
// Both are of the file that was opened, whatever has the name meanwhile.
func readWithMode(file string) (text []byte, mode fs.FileMode, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	text, err = io.ReadAll(f)
	return text, info.Mode().Perm(), err
}

// parseRootKey does not quote what it can't parse: it may be most of a secret.
func parseRootKey(file, credential string) (rootKey, error) {
	id, secret, ok := access.ParseBearer(credential)
	if !ok {
		return rootKey{}, copse.Errorf(copse.Invalid, "root key file %s does not hold a credential copse_<id>_<secret>; remove it to have a new one made", file)
	}
	return rootKey{ID: id, Secret: access.Secret(secret)}, nil
}

// randomBytes are n bytes from the system's generator.
func randomBytes(n int) []byte {
	out := make([]byte, n)
	_, _ = rand.Read(out) // ends the process rather than fail
	return out
}
