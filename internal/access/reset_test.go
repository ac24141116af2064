package access

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
)

// Where something is sealed, no key is made that opens none of it; once that is dropped, one is.
func TestNoMasterKeyIsMadeOverSealedRows(t *testing.T) {
	backend := memory.New()
	defer func() { _ = backend.Close() }()
	s := newService(t, over(backend))
	k, _ := createKey(t, s, Key{Scope: Scope{All: true}, Verbs: Read})
	dir := t.TempDir()
	_, generated, err := OpenMasterKey(t.Context(), backend, "", dir)
	wantKind(t, err, copse.Invalid)
	if _, statErr := os.Stat(filepath.Join(dir, MasterKeyFile)); generated || !errors.Is(statErr, fs.ErrNotExist) {
		t.Errorf("made: %t, %v", generated, statErr)
	}
	for _, words := range []string{s.generation, "--master-key-file", "reset-master"} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("%q does not say %q", err, words)
		}
	}
	if err := s.RevokeKey(t.Context(), System(), k.ID); err != nil {
		t.Fatal(err)
	}
	if _, generated, err = OpenMasterKey(t.Context(), backend, "", dir); err != nil || !generated {
		t.Errorf("with nothing sealed: made %t, %v", generated, err)
	}
}

// What a key opens stays; what it does not goes, from the history and from the rows of scopes too. It is killed after
// each of its steps in turn, and called again.
func TestDropUnopened(t *testing.T) {
	for deaths := 0; ; deaths++ {
		backend := memory.New()
		scope := Scope{Tenant: "acme"}
		former := newService(t, over(backend), func(c *Config) { c.MasterKey = testMaster(8) })
		createKey(t, former, Key{Scope: scope, Verbs: Read})
		putSecret(t, former, "lost")
		putSecret(t, &Service{backend: backend, sealers: sealersOf(t, 7)}, "kept")

		killed := &dying{Backend: backend, left: deaths}
		err := dropAll(t, killed)
		whole := err == nil
		if !whole && !errors.Is(err, errDied) {
			t.Fatal(err)
		}
		if !whole {
			if err := dropAll(t, backend); err != nil {
				t.Fatal(err)
			}
		}
		s := newService(t, over(backend)) // refuses what its key does not open
		kept, err := s.Secrets(t.Context(), "test")
		if err != nil || len(kept) != 1 || kept[0].Name != "kept" {
			t.Errorf("killed after %d: %v, %v", deaths, kept, err)
		}
		if keys, _, err := s.ListKeys(t.Context(), System(), "", 10); err != nil || len(keys) != 0 {
			t.Errorf("killed after %d: %v, %v", deaths, keys, err)
		}
		row, _ := scope.row()
		if of, err := readKeysOf(t.Context(), backend, row); err != nil || len(of.ids) != 0 {
			t.Errorf("killed after %d: the tenant still has %v, %v", deaths, of.ids, err)
		}
		if whole {
			if deaths < 4 {
				t.Errorf("it has %d steps only", deaths)
			}
			wantNoneSealed(t, backend, 8)
			return
		}
	}
}

func wantNoneSealed(t *testing.T, backend storage.Backend, master byte) {
	t.Helper()
	rows, err := backend.History(t.Context(), storage.Directory(), 0, 1000)
	if err != nil || len(rows) == 0 {
		t.Fatal(len(rows), err)
	}
	for _, row := range rows {
		if bytes.Contains(row.Body, []byte(sealersOf(t, master).generation)) {
			t.Errorf("%v of revision %d is still there", row.Key, row.Revision)
		}
	}
	if err := storage.VerifyHistory(t.Context(), backend, storage.Directory()); err != nil {
		t.Error(err)
	}
}

func sealersOf(t *testing.T, master byte) sealers {
	t.Helper()
	s, err := newSealers(testMaster(master))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// dropAll drops what the test's usual master key does not open.
func dropAll(t *testing.T, b storage.Backend) error {
	t.Helper()
	u, err := FindUnopened(t.Context(), b, testMaster(7))
	if err != nil {
		return err
	}
	return u.Drop(t.Context(), nil)
}

func putSecret(t *testing.T, s *Service, name string) {
	t.Helper()
	if err := s.PutSecret(t.Context(), ServerSecret{Purpose: "test", Name: name, Value: "v", CreatedAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
}
