package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/storagetest"
)

var one = storage.Key{Kind: "policy", ID: "1"}

func createOne(t testing.TB, b storage.Backend, p storage.Partition, body string) copse.Incarnation {
	t.Helper()
	i := copse.NewIncarnation()
	if _, err := b.Commit(t.Context(), storage.Commit{
		Partition: p, Incarnation: i, Create: true, Writes: []storage.Write{{Key: one, Body: []byte(body)}},
	}); err != nil {
		t.Fatal(err)
	}
	return i
}

func overwrite(p storage.Partition, i copse.Incarnation, body []byte) storage.Commit {
	return storage.Commit{Partition: p, Incarnation: i, Writes: []storage.Write{{Key: one, Body: body, Expect: storage.Any()}}}
}

// hold occupies the writer until release is called, so that what is submitted meanwhile is one group.
func hold(t *testing.T, b *Backend) (release func()) {
	t.Helper()
	held, goOn := make(chan struct{}), make(chan struct{})
	finished := make(chan error)
	go func() {
		finished <- b.submit(context.Background(), &job{apply: func(*writer, time.Time) ([]storage.Change, error) {
			close(held)
			<-goOn
			return nil, nil
		}})
	}()
	<-held
	return func() {
		close(goOn)
		if err := <-finished; err != nil {
			t.Error(err)
		}
	}
}

// queued waits until n jobs are in the queue.
func queued(t *testing.T, b *Backend, n int) {
	t.Helper()
	for range 5000 {
		if len(b.writer.queue) == n {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("%d jobs in the queue, want %d", len(b.writer.queue), n)
}

func TestDiskFull(t *testing.T) {
	ctx, b := t.Context(), open(t, t.TempDir())
	small, big := storage.PolicyStore("small"), storage.PolicyStore("big")
	smallIncarnation, bigIncarnation := createOne(t, b, small, "x"), createOne(t, b, big, "x")
	// The limit stands in for a disk: SQLite reports both in the same way, in mid-transaction.
	pages, err := b.writer.conn.value("PRAGMA page_count")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.writer.conn.exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages.(int64)+20)); err != nil {
		t.Fatal(err)
	}
	var told []storage.Change
	defer b.Follow(func(c storage.Change) { told = append(told, c) })()

	release := hold(t, b)
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			_, err := b.Commit(ctx, overwrite(small, smallIncarnation, fmt.Append(nil, n)))
			if n == 3 {
				_, err = b.Commit(ctx, overwrite(big, bigIncarnation, bytes.Repeat([]byte("x"), 1<<20)))
				if !errors.Is(err, storage.ErrFull) {
					t.Errorf("the big commit: %v", err)
				}
			} else if err != nil {
				t.Errorf("a small neighbour: %v", err)
			}
		})
	}
	queued(t, b, 8)
	release()
	wg.Wait()
	for range 3 { // alone
		if _, err := b.Commit(ctx, overwrite(big, bigIncarnation, bytes.Repeat([]byte("x"), 1<<20))); !errors.Is(err, storage.ErrFull) {
			t.Fatal(err)
		}
	}
	if head, err := b.Head(ctx, big); err != nil || head.Revision != 1 {
		t.Fatal(head, err)
	}
	if head, err := b.Head(ctx, small); err != nil || head.Revision != 9 || len(told) != 8 {
		t.Fatal(head, err, told)
	}
	if err := storagetest.CheckChains(ctx, b); err != nil {
		t.Fatal(err)
	}
	// Room again, no restart.
	if err := b.writer.conn.exec("PRAGMA max_page_count = 1000000"); err != nil {
		t.Fatal(err)
	}
	if revision, err := b.Commit(ctx, overwrite(big, bigIncarnation, bytes.Repeat([]byte("x"), 1<<20))); err != nil || revision != 2 {
		t.Fatal(revision, err)
	}
	if err := storagetest.CheckChains(ctx, b); err != nil {
		t.Fatal(err)
	}
}

func TestDiskFullInAGroup(t *testing.T) {
	ctx, b := t.Context(), open(t, t.TempDir())
	big := createOne(t, b, storage.PolicyStore("big"), "x")
	pages, err := b.writer.conn.value("PRAGMA page_count")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.writer.conn.exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages.(int64)+60)); err != nil {
		t.Fatal(err)
	}
	release := hold(t, b)
	var wg sync.WaitGroup
	for n := range 20 {
		wg.Go(func() {
			if n == 10 {
				if _, err := b.Commit(ctx, overwrite(storage.PolicyStore("big"), big, bytes.Repeat([]byte("x"), 1<<20))); !errors.Is(err, storage.ErrFull) {
					t.Errorf("the big commit: %v", err)
				}
				return
			}
			p := storage.PolicyStore(copse.PolicyStoreID(fmt.Sprint(n)))
			c := overwrite(p, copse.NewIncarnation(), []byte("x"))
			c.Create = true
			if _, err := b.Commit(ctx, c); err != nil {
				t.Errorf("neighbour %d: %v", n, err)
			}
		})
	}
	queued(t, b, 20)
	release()
	wg.Wait()
	if heads, err := b.Heads(ctx, "", 100); err != nil || len(heads) != 20 {
		t.Fatal(len(heads), err)
	}
	if err := storagetest.CheckChains(ctx, b); err != nil {
		t.Fatal(err)
	}
}

func TestContextEndsTheWaitButNotTheWork(t *testing.T) {
	b, p := open(t, t.TempDir()), storage.PolicyStore("a")
	i := createOne(t, b, p, "x")

	release := hold(t, b)
	ctx, cancel := context.WithCancel(t.Context())
	answer := make(chan error)
	go func() {
		_, err := b.Commit(ctx, overwrite(p, i, []byte("abandoned")))
		answer <- err
	}()
	queued(t, b, 1)
	cancel()
	if err := <-answer; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	release()
	if _, err := b.Commit(t.Context(), overwrite(p, i, []byte("y"))); err != nil {
		t.Fatal(err)
	}
	if head, err := b.Head(t.Context(), p); err != nil || head.Revision != 2 {
		t.Fatalf("an abandoned commit was carried out: %+v, %v", head, err)
	}

	// Once begun it is carried out, and its outcome is reported, whatever becomes of the context.
	ctx, cancel = context.WithCancel(t.Context())
	err := b.submit(ctx, &job{apply: func(w *writer, now time.Time) ([]storage.Change, error) {
		cancel()
		time.Sleep(10 * time.Millisecond)
		_, err := w.commit(newCommit(overwrite(p, i, []byte("z"))), now)
		return nil, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	if item, err := b.Get(t.Context(), p, one); err != nil || string(item.Body) != "z" {
		t.Fatal(item, err)
	}
}

func TestPanicEndsOneMutation(t *testing.T) {
	b, p := open(t, t.TempDir()), storage.PolicyStore("a")
	i := createOne(t, b, p, "x")
	release := hold(t, b)
	var wg sync.WaitGroup
	for n := range 6 {
		wg.Go(func() {
			if n%2 == 0 {
				if _, err := b.Commit(t.Context(), overwrite(p, i, []byte("y"))); err != nil {
					t.Error(err)
				}
				return
			}
			err := b.submit(t.Context(), &job{apply: func(w *writer, now time.Time) ([]storage.Change, error) {
				if _, err := w.commit(newCommit(overwrite(p, i, []byte("half"))), now); err != nil {
					return nil, err
				}
				panic("a defect")
			}})
			if err == nil || !strings.Contains(err.Error(), "a defect") {
				t.Errorf("the panic became %v", err)
			}
		})
	}
	queued(t, b, 6)
	release()
	wg.Wait()
	if item, err := b.Get(t.Context(), p, one); err != nil || string(item.Body) != "y" || item.Version != 4 {
		t.Fatal(item, err)
	}
	if err := storagetest.CheckChains(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func TestRefusalAfterWritingIsUndoneAlone(t *testing.T) {
	b, p := open(t, t.TempDir()), storage.PolicyStore("a")
	i := createOne(t, b, p, "x")
	release := hold(t, b)
	var wg sync.WaitGroup
	for n := range 6 {
		wg.Go(func() {
			want := error(nil)
			if n%2 == 1 {
				want = storage.ErrConflict
			}
			if err := b.submit(t.Context(), &job{apply: func(w *writer, now time.Time) ([]storage.Change, error) {
				if _, err := w.commit(newCommit(overwrite(p, i, fmt.Append(nil, n%2))), now); err != nil {
					return nil, err
				}
				return nil, want
			}}); !errors.Is(err, want) {
				t.Error(err)
			}
		})
	}
	queued(t, b, 6)
	release()
	wg.Wait()
	if item, err := b.Get(t.Context(), p, one); err != nil || string(item.Body) != "0" || item.Version != 4 {
		t.Fatal(item, err)
	}
	if err := storagetest.CheckChains(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func TestContextEndsTheWaitForAReader(t *testing.T) {
	b, p := open(t, t.TempDir()), storage.PolicyStore("a")
	createOne(t, b, p, "x")
	var busy []*reader
	for range readerCount {
		busy = append(busy, <-b.readers)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := b.Get(ctx, p, one); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	for _, r := range busy {
		b.readers <- r
	}
	if _, err := b.Get(t.Context(), p, one); err != nil {
		t.Fatal(err)
	}
}

func TestErasedBytesAreGone(t *testing.T) {
	dir := t.TempDir()
	b, p := open(t, dir), storage.PolicyStore("a")
	other := createOne(t, b, storage.PolicyStore("b"), "x")
	secret := "the-secret-of-the-tenant"
	i := createOne(t, b, p, strings.Repeat(secret, 500))
	for n := range 50 {
		c := overwrite(p, i, []byte(secret))
		c.Writes[0].Key.ID = secret + fmt.Sprint(n)
		if _, err := b.Commit(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	contains := func() (found []string) {
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(names) < 3 {
			t.Fatal(names, err)
		}
		for _, name := range names {
			if name == filepath.Join(dir, FileName) {
				continue // see below
			}
			content, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(content, []byte(secret)) {
				found = append(found, name)
			}
		}
		return found
	}
	if len(contains()) == 0 {
		t.Fatal("the secret can't be found even before it is erased")
	}
	if err := b.Fence(t.Context(), p, i, "tester"); err != nil {
		t.Fatal(err)
	}
	for done := false; !done; {
		var err error
		if done, err = b.Erase(t.Context(), p, i, 10); err != nil {
			t.Fatal(err)
		}
	}
	if found := contains(); len(found) > 0 {
		t.Fatalf("erased, and still in %v", found)
	}
	if _, err := b.Commit(t.Context(), overwrite(storage.PolicyStore("b"), other, []byte("y"))); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	// The database itself only now: closing it while SQLite has it open would drop SQLite's locks.
	content, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil || bytes.Contains(content, []byte(secret)) {
		t.Fatalf("erased, and still in the database (%v)", err)
	}
}

func TestFeedIsTrimmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, t.TempDir())
		p := storage.PolicyStore("a")
		i := createOne(t, b, p, "x")
		const old = 100
		b.writer.trimRows = 30 // so that it takes more than one step
		for range old {
			if _, err := b.Commit(t.Context(), overwrite(p, i, []byte("y"))); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(storage.FeedRetention - time.Hour)
		rows, err := b.Feed(t.Context(), 0, 10_000)
		if err != nil || len(rows) != old+1 {
			t.Fatalf("%d rows before their time, %v", len(rows), err)
		}
		if _, err := b.Commit(t.Context(), overwrite(p, i, []byte("z"))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour + 2*trimEvery)
		synctest.Wait()
		if rows, err = b.Feed(t.Context(), 0, 10_000); err != nil || len(rows) != 1 || rows[0].Seq != old+2 {
			t.Fatalf("%d rows after their time: %v", len(rows), err)
		}
		time.Sleep(storage.FeedRetention)
		if rows, err = b.Feed(t.Context(), 0, 10_000); err != nil || len(rows) != 0 {
			t.Fatalf("%d rows in the end: %v", len(rows), err)
		}
		// Numbers go on where they were.
		if _, err := b.Commit(t.Context(), overwrite(p, i, []byte("z"))); err != nil {
			t.Fatal(err)
		}
		if rows, err = b.Feed(t.Context(), 0, 10_000); err != nil || len(rows) != 1 || rows[0].Seq != old+3 {
			t.Fatal(rows, err)
		}
	})
}

func TestCloseWaitsForCommits(t *testing.T) {
	dir := t.TempDir()
	b, p := open(t, dir), storage.PolicyStore("a")
	i := createOne(t, b, p, "x")
	release := hold(t, b)
	var acknowledged sync.WaitGroup
	for range 5 {
		acknowledged.Go(func() {
			if _, err := b.Commit(context.Background(), overwrite(p, i, []byte("y"))); err != nil {
				t.Error(err)
			}
		})
	}
	queued(t, b, 5)
	closed := make(chan error)
	go func() { closed <- b.Close() }()
	release()
	acknowledged.Wait()
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	if head, err := open(t, dir).Head(t.Context(), p); err != nil || head.Revision != 6 {
		t.Fatal(head, err)
	}
}
