package sqlite

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/copse-authz/copse/internal/storage"
)

// contentsOf is every file of a directory, but for the index of the write-ahead log, which is no data.
func contentsOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "-shm") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		out[filepath.Base(file)] = fmt.Sprint(sha256.Sum256(text), info.ModTime(), info.Mode())
	}
	return out
}

func lookOnly(t *testing.T, dir string) {
	t.Helper()
	before := contentsOf(t, dir)
	b, err := OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	if head, err := b.Head(t.Context(), storage.PolicyStore("a")); err != nil || head.Revision == 0 {
		t.Errorf("Head = %+v, %v", head, err)
	}
	if problems, err := b.QuickCheck(t.Context()); err != nil || len(problems) > 0 {
		t.Errorf("QuickCheck = %v, %v", problems, err)
	}
	if newest, err := b.Newest(t.Context()); err != nil || newest.IsZero() {
		t.Errorf("Newest = %v, %v", newest, err)
	}
	if err := b.Fence(t.Context(), storage.PolicyStore("a"), [16]byte{}, "x"); !errors.Is(err, ErrNotWritable) {
		t.Errorf("Fence = %v", err)
	}
	wantOpenError(t, dir, ErrInUse)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if after := contentsOf(t, dir); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("before %v\nafter  %v", before, after)
	}
}

func TestLookingChangesNothing(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	createOne(t, b, storage.PolicyStore("a"), "x")
	if _, err := OpenReadOnly(dir); !errors.Is(err, ErrInUse) {
		t.Errorf("of a directory in use: %v", err)
	}
	// As a killed process leaves it: what was committed is in the log, and nowhere else.
	killed := t.TempDir()
	for _, name := range []string{FileName, FileName + "-wal"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(killed, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	lookOnly(t, dir)
	// Where no process ever was there is no lock, and nothing to keep others out by.
	if err := os.WriteFile(filepath.Join(killed, lockName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	lookOnly(t, killed)
	if _, err := os.Stat(filepath.Join(killed, FileName+"-shm")); err == nil {
		t.Error("the log's index was left behind")
	}
	open(t, killed)
}

func TestLookingTellsFormats(t *testing.T) {
	if _, err := OpenReadOnly(t.TempDir()); !errors.Is(err, ErrNotWritable) {
		t.Errorf("of nothing: %v", err)
	}
	dir := made(t)
	next := newest()
	next.steps = append(next.steps, func(*conn) error { return errors.New("it migrates") })
	if _, err := readOnlyAs(dir, next); !errors.Is(err, ErrOlder) {
		t.Errorf("of the format before: %v", err)
	}
	for version, want := range map[int]error{schemaVersion + 1: ErrNewer, 0: ErrCorrupt} {
		raw(t, dir, fmt.Sprintf("PRAGMA user_version = %d", version))
		if _, err := OpenReadOnly(dir); !errors.Is(err, want) {
			t.Errorf("format %d: %v, want %v", version, err, want)
		}
	}
}
