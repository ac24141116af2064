// Package storagetest proves that a backend keeps the contract of package storage.
//
// Every sentence of the contract that a caller may lean on is a case here, and every backend runs all
// of them, each on a fresh backend, so that no case sees what another left. [Random] adds what nobody
// thought of: long random sequences of operations whose every answer must be the memory backend's.
//
// A new backend needs one test that calls [Run] and, if it keeps anything beyond the process, one that calls
// [Random] with a Reopen. What the contract can't ask of all backends alike is for the backend's own tests: what
// a crash, a full disk or a damaged file leaves, and how a context that ends meets a commit under way.
//
// The memory backend is the model of [Random] and passes [Run] itself, so that it is not wrong in the same way
// as what is compared with it. A sentence that the contract gains is a case here, and an operation of [Random]
// if chance can reach it.
//
// A case is a function of a harness, in the file named for what it is about: commits.go for what is taken and
// read back, lifecycle.go for heads, fences and erasure, records.go for history, audit, feed and followers,
// concurrent.go for what several do at a time.
package storagetest

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// Run runs all cases. open makes an empty backend, and sees to it that it is closed in the end.
// open is called once for each case, with that case's t. Cases run one after the other and none expects another
// to have run, so a single one can be picked by name.
func Run(t *testing.T, open func(t *testing.T) storage.Backend) {
	cases := []struct {
		name string
		f    func(h *harness)
	}{
		{"absent partition", absentPartition},
		{"create", create},
		{"zero partition", zeroPartition},
		{"invalid commits", invalidCommits},
		// What a commit is held against.
		{"expectations", expectations},
		{"requirements", requirements},
		{"expected revision", expectedRevision},
		{"order of refusals", orderOfRefusals},
		{"a refused commit leaves nothing", refusedLeavesNothing},
		// What is written is what is read.
		{"empty bodies and ids", emptyBodiesAndIDs},
		{"ids are bytes", idsAreBytes},
		{"scan pages", scanPages},
		{"load", load},
		{"bodies are not shared", bodiesNotShared},
		{"size limits", sizeLimits},
		// How partitions live beside each other, end, and come again.
		{"partitions are apart", partitionsApart},
		{"directory is a partition", directoryPartition},
		{"heads", heads},
		{"fence", fence},
		{"erase", erase},
		{"erase leaves others alone", eraseLeavesOthers},
		{"create again after erasure", createAgain},
		// What is recorded of it all.
		{"history", history},
		{"history keeps commits whole", historyWholeCommits},
		{"what was before", former},
		{"forget", forget},
		{"forget up to a revision", forgetUpTo},
		{"forget in a long history", forgetLong},
		{"audit", audit},
		{"feed", feed},
		{"follow", follow},
		// Callers that go, and a backend that goes.
		{"cancelled context", cancelledContext},
		{"closed", closed},
		// More than one at a time.
		{"concurrent commits", concurrentCommits},
		{"concurrent partitions", concurrentPartitions},
		{"readers see whole commits", readersSeeWholeCommits},
		{"commits race a fence", commitsRaceFence},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.f(&harness{T: t, b: open(t)})
		})
	}
	// The seed is fixed: a test that fails for one and not for the next would be found by whom it does not concern.
	t.Run("random", func(t *testing.T) {
		Random(t, RandomConfig{Backend: open(t), Seed: 1, Operations: 1500})
	})
}

// harness is a case's backend with the checks that cases repeat.
// Checks end the case at the first difference. They are for the case's own goroutine; others report with Error,
// because testing.T allows Fatal there only.
type harness struct {
	*testing.T
	b storage.Backend
}

// Two keys that differ in their id alone, and the partition of the cases that need only one.
var (
	alpha = storage.PolicyStore("alpha")
	one   = storage.Key{Kind: "policy", ID: "1"}
	two   = storage.Key{Kind: "policy", ID: "2"}
)

// put writes whatever is there.
func put(k storage.Key, body string) storage.Write {
	return storage.Write{Key: k, Body: []byte(body), Expect: storage.Any()}
}

// remove deletes whatever is there, and nothing is fine.
func remove(k storage.Key) storage.Write { return storage.Write{Key: k, Expect: storage.Any()} }

// commitOf is a commit without requirements, expected revision or Create, which cases set themselves.
func commitOf(p storage.Partition, i copse.Incarnation, writes ...storage.Write) storage.Commit {
	return storage.Commit{Partition: p, Incarnation: i, Writes: writes, Actor: "tester", Operation: "Test"}
}

// create makes a partition with one item and returns its incarnation.
// The item comes after writes, at version 1: every partition has something that no case has to mention.
func (h *harness) create(p storage.Partition, writes ...storage.Write) copse.Incarnation {
	h.Helper()
	i := copse.NewIncarnation()
	c := commitOf(p, i, append(writes, put(storage.Key{Kind: "settings"}, "{}"))...)
	c.Create = true
	h.commit(c, 1)
	return i
}

// commit must succeed and reach the revision.
func (h *harness) commit(c storage.Commit, revision uint64) {
	h.Helper()
	got, err := h.b.Commit(h.Context(), c)
	if err != nil || got != revision {
		h.Fatalf("Commit = %d, %v; want revision %d", got, err, revision)
	}
}

// refuse must be refused with the error.
// A refused commit has no revision: a caller that forgets the error gets nothing it could use.
func (h *harness) refuse(c storage.Commit, want error) {
	h.Helper()
	if got, err := h.b.Commit(h.Context(), c); !errors.Is(err, want) || got != 0 {
		h.Fatalf("Commit = %d, %v; want %v", got, err, want)
	}
}

// wantErr compares as callers do, by errors.Is: a backend may say more in its error.
func (h *harness) wantErr(err, want error) {
	h.Helper()
	if !errors.Is(err, want) {
		h.Fatalf("error is %v, want %v", err, want)
	}
}

func (h *harness) ok(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// equal compares as diff does. The two must be of one type: an int is no uint64.
func (h *harness) equal(got, want any) {
	h.Helper()
	if d := diff(want, got); d != "" {
		h.Fatalf("want -, got +:\n%s", d)
	}
}

// diff is empty when got is want. No rows are no rows, but an empty body is a body.
// The contract tells a body of no bytes from a deletion by nil, so slices of bytes are compared strictly and all
// other slices leniently. Partitions have no exported fields, and are compared by ==.
func diff(want, got any) string {
	if reflect.DeepEqual(want, got) {
		return "" // by far the usual case, and much cheaper
	}
	isBytes := func(p cmp.Path) bool { return p.Last().Type() == reflect.TypeFor[[]byte]() }
	return cmp.Diff(want, got,
		cmp.Comparer(func(x, y storage.Partition) bool { return x == y }),
		cmp.FilterPath(isBytes, cmp.Comparer(func(x, y []byte) bool { return (x == nil) == (y == nil) && bytes.Equal(x, y) })),
		cmp.FilterPath(func(p cmp.Path) bool { return !isBytes(p) }, cmpopts.EquateEmpty()),
	)
}

// head must be there, fenced or not.
func (h *harness) head(p storage.Partition) storage.Head {
	h.Helper()
	head, err := h.b.Head(h.Context(), p)
	h.ok(err)
	return head
}

// bodies is what Load finds, by key.
func (h *harness) bodies(p storage.Partition) map[storage.Key]string {
	h.Helper()
	snapshot, err := h.b.Load(h.Context(), p)
	h.ok(err)
	bodies := make(map[storage.Key]string)
	for _, item := range snapshot.Items {
		bodies[item.Key] = string(item.Body)
	}
	return bodies
}

// eraseAll erases in steps of limit, and fails if that does not end.
// steps is how many calls it took, the one that reported the end included.
func (h *harness) eraseAll(p storage.Partition, i copse.Incarnation, limit int) (steps int) {
	h.Helper()
	for range 100_000 {
		done, err := h.b.Erase(h.Context(), p, i, limit)
		h.ok(err)
		steps++
		if done {
			return steps
		}
	}
	h.Fatal("erasing does not end")
	return 0
}

// chains must verify.
func (h *harness) chains() {
	h.Helper()
	h.ok(CheckChains(h.Context(), h.b))
}

// CheckChains recomputes the history chain of every partition that is not fenced, and the audit chain,
// and returns the first difference. Small pages: those must not cut a chain.
// It also has each partition count its own items (Whole). It reads through the contract alone, so tests outside
// this package use it to judge what a crash, a full disk or a restored backup left. Nothing may be committed
// meanwhile.
func CheckChains(ctx context.Context, b storage.Backend) error {
	partitions := []storage.Partition{storage.Directory()}
	for after := ""; ; {
		heads, err := b.Heads(ctx, after, 100)
		if err != nil {
			return err
		}
		if len(heads) == 0 {
			break
		}
		for _, head := range heads {
			partitions = append(partitions, head.Partition)
			after = head.Partition.String()
		}
	}
	for _, p := range partitions {
		if err := errors.Join(storage.VerifyHistory(ctx, b, p), b.Whole(ctx, p)); err != nil {
			return err
		}
	}
	return storage.VerifyAudit(ctx, b)
}
