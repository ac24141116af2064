package memory_test

import (
	"context"
	"errors"
	"testing"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
)

func TestCreateCommitFenceErase(t *testing.T) {
	ctx, b, p, i := context.Background(), memory.New(), storage.PolicyStore("a"), copse.NewIncarnation()
	k := storage.Key{Kind: "policy", ID: "1"}
	c := storage.Commit{Partition: p, Incarnation: i, Create: true, Writes: []storage.Write{{Key: k, Body: []byte("{}")}}}
	if rev, err := b.Commit(ctx, c); err != nil || rev != 1 {
		t.Fatal(rev, err)
	}
	if _, err := b.Commit(ctx, c); !errors.Is(err, storage.ErrExists) {
		t.Fatal(err)
	}
	c.Create = false
	if _, err := b.Commit(ctx, c); !errors.Is(err, storage.ErrConflict) {
		t.Fatal(err)
	}
	c.Writes[0].Expect = storage.Version(1)
	if rev, err := b.Commit(ctx, c); err != nil || rev != 2 {
		t.Fatal(rev, err)
	}
	if err := b.Fence(ctx, p, i, "root"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(ctx, p, k); !errors.Is(err, storage.ErrNotFound) {
		t.Fatal(err)
	}
	steps := 0
	for done := false; !done && steps < 20; steps++ {
		var err error
		if done, err = b.Erase(ctx, p, i, 1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Head(ctx, p); !errors.Is(err, storage.ErrNotFound) {
		t.Fatal(err, steps)
	}
}
