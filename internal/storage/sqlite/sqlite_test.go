package sqlite

import (
	"errors"
	"testing"

	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/storagetest"
)

// open opens dir and closes it with the test.
func open(t testing.TB, dir string) *Backend {
	t.Helper()
	return openFormat(t, dir, newest())
}

func openFormat(t testing.TB, dir string, f format) *Backend {
	t.Helper()
	b, err := openAs(dir, f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestContract(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Backend { return open(t, t.TempDir()) })
}

func TestRandomWithReopening(t *testing.T) {
	dir, reopened := t.TempDir(), 0
	storagetest.Random(t, storagetest.RandomConfig{
		Backend: open(t, dir), Seed: 2, Operations: 2500,
		Reopen: func(b storage.Backend) storage.Backend {
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			reopened++
			return open(t, dir)
		},
	})
	if reopened < 10 {
		t.Fatalf("reopened %d times only", reopened)
	}
}

// A read that panicked, and one whose transaction could not be ended, leave a reader that others can use.
func TestReadersSurviveWhatTheyAreUsedFor(t *testing.T) {
	b := open(t, t.TempDir())
	for range 3 * readerCount {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_ = b.read(t.Context(), func(*reader) error { panic("in the middle") })
		}()
	}
	for range readerCount {
		r := <-b.readers
		if _, err := r.begin.exec(); err != nil { // as a ROLLBACK that failed leaves it
			t.Fatal(err)
		}
		b.readers <- r
	}
	for range 2 * readerCount {
		if _, err := b.Head(t.Context(), storage.Directory()); !errors.Is(err, storage.ErrNotFound) {
			t.Fatal(err)
		}
	}
}
