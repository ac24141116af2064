package storagetest

import (
	"fmt"
	"math"
	"slices"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// prefixes are names of which one is the beginning of the next, or nearly the same.
// A policy store called "directory" is among them, and one whose id looks like a partition's name.
func prefixes() []storage.Partition {
	var partitions []storage.Partition
	for _, id := range []copse.PolicyStoreID{"a", "A", "ab", "a/", "a/b", "a\x00", "a ", "p/a", "directory", "b"} {
		partitions = append(partitions, storage.PolicyStore(id))
	}
	return append(partitions, storage.Directory())
}

// partitionsApart is isolation: reading, scanning and history of one partition show nothing of another, however
// alike the names, and the incarnation of one is no key to the next.
func partitionsApart(h *harness) {
	// All of them at the same time, each with one item that says whose it is.
	incarnations := make(map[storage.Partition]copse.Incarnation)
	for _, p := range prefixes() {
		incarnations[p] = h.create(p, put(one, "of "+p.String()))
	}
	for n, p := range prefixes() {
		// What is written into one of them is seen in none of the others.
		h.commit(commitOf(p, incarnations[p], put(storage.Key{Kind: "policy", ID: fmt.Sprint("own", n)}, "x")), 2)
		h.ok(h.b.Forget(h.Context(), p, two, 0))
	}
	for n, p := range prefixes() {
		h.equal(h.bodies(p), map[storage.Key]string{
			one: "of " + p.String(), {Kind: "policy", ID: fmt.Sprint("own", n)}: "x", {Kind: "settings"}: "{}",
		})
		items, err := h.b.Scan(h.Context(), p, "policy", "", 100)
		h.ok(err)
		h.equal(len(items), 2)
		rows, err := h.b.History(h.Context(), p, 0, 100)
		h.ok(err)
		h.equal(len(rows), 3)
		// Another partition's incarnation opens nothing.
		other := prefixes()[(n+1)%len(prefixes())]
		h.refuse(commitOf(p, incarnations[other], put(one, "stranger")), storage.ErrNoHead)
		h.wantErr(h.b.Fence(h.Context(), p, incarnations[other], "tester"), storage.ErrNoHead)
	}
	h.chains()
}

// directoryPartition: it takes commits as any other, is not what a policy store of that name is, and is not in
// Heads, which lists policy stores only.
func directoryPartition(h *harness) {
	i := h.create(storage.Directory(), put(one, "row"))
	h.create(storage.PolicyStore("directory"), put(one, "not the directory"))
	h.commit(commitOf(storage.Directory(), i, put(two, "row 2")), 2)
	h.equal(h.bodies(storage.Directory())[one], "row")
	list, err := h.b.Heads(h.Context(), "", 10)
	h.ok(err)
	h.equal(len(list), 1)
	h.equal(list[0].Partition, storage.PolicyStore("directory"))
}

// heads: pages of any size list every policy store once and in byte order, fenced ones too, because that is how
// an erasure that was cut short is found again.
func heads(h *harness) {
	var want []string
	for _, p := range prefixes() {
		i := h.create(p)
		if p == storage.Directory() {
			continue
		}
		want = append(want, p.String())
		if len(want)%3 == 0 {
			h.ok(h.b.Fence(h.Context(), p, i, "tester")) // listed all the same
		}
	}
	slices.Sort(want)
	for _, limit := range []int{1, 3, 100, math.MaxInt} {
		var got []string
		for after := ""; ; after = got[len(got)-1] {
			list, err := h.b.Heads(h.Context(), after, limit)
			h.ok(err)
			if len(list) > limit {
				h.Fatalf("%d heads, limit %d", len(list), limit)
			}
			for _, head := range list {
				h.equal(head, h.head(head.Partition))
				got = append(got, head.Partition.String())
			}
			if len(list) == 0 {
				break
			}
		}
		h.equal(got, want)
	}
	// Past the last name, and below a limit of one.
	for _, none := range []struct {
		after string
		limit int
	}{{"", 0}, {"", -1}, {"q", 10}, {"p0", 10}} {
		list, err := h.b.Heads(h.Context(), none.after, none.limit)
		h.ok(err)
		h.equal(len(list), 0)
	}
}

// fence: only the right incarnation can end a partition. From then on it takes no commit, not even a creation, and
// shows nothing but its head. Followers and the audit log hear of it once, with the revision it stays at.
func fence(h *harness) {
	ctx, i := h.Context(), h.create(alpha, put(one, "secret"))
	// A wrong incarnation ends nothing, and tells nobody.
	var told []storage.Change
	defer h.b.Follow(func(c storage.Change) { told = append(told, c) })()
	h.wantErr(h.b.Fence(ctx, alpha, copse.NewIncarnation(), "tester"), storage.ErrNoHead)
	h.wantErr(h.b.Fence(ctx, alpha, copse.Incarnation{}, "tester"), storage.ErrNoHead)
	h.commit(commitOf(alpha, i, put(one, "secret 2")), 2)
	before := h.head(alpha)
	// Three times, and all but the first change nothing.
	for range 3 {
		h.ok(h.b.Fence(ctx, alpha, i, "fencer"))
	}
	before.State = storage.Fenced
	h.equal(h.head(alpha), before)
	h.equal(told, []storage.Change{
		{Partition: alpha, Incarnation: i, Revision: 2, Keys: []storage.Key{one}},
		{Partition: alpha, Incarnation: i, Revision: 2, Fenced: true},
	})
	// Neither its own writes nor a successor, as long as anything of it is left.
	h.refuse(commitOf(alpha, i, put(one, "too late")), storage.ErrNoHead)
	c := commitOf(alpha, copse.NewIncarnation(), put(one, "too early"))
	c.Create = true
	h.refuse(c, storage.ErrExists)
	// It reads as if it were gone.
	_, err := h.b.Get(ctx, alpha, one)
	h.wantErr(err, storage.ErrNotFound)
	_, err = h.b.Load(ctx, alpha)
	h.wantErr(err, storage.ErrNotFound)
	items, err := h.b.Scan(ctx, alpha, "policy", "", 10)
	h.ok(err)
	rows, err := h.b.History(ctx, alpha, 0, 10)
	h.ok(err)
	h.equal(len(items)+len(rows), 0)
	audit, err := h.b.Audit(ctx, 2, 10)
	h.ok(err)
	h.equal(len(audit), 1) // once, however often it was asked for
	row := audit[0]
	h.equal([]any{row.Actor, row.Operation, row.Partition, row.Incarnation, row.Revision, row.Writes, row.Head},
		[]any{"fencer", storage.OperationFence, alpha, i, uint64(2), 0, before.Chain})
	feed, err := h.b.Feed(ctx, 2, 10)
	h.ok(err)
	h.equal(feed, []storage.FeedRow{{Seq: 3, Partition: alpha, Incarnation: i, Revision: 2, Fenced: true}})
	h.chains()
}

// erase: a fenced partition goes in steps of any size, each within its limit, and then not even the head is left;
// the audit log keeps that it was there, with its last head. Asking again is done at once.
func erase(h *harness) {
	for _, limit := range []int{1, 2, 5, 1000} {
		p := storage.PolicyStore(copse.PolicyStoreID(fmt.Sprint("limit", limit)))
		i := h.create(p, put(one, "1"), put(two, "2"))
		h.commit(commitOf(p, i, put(one, "1b"), remove(two)), 2)
		_, err := h.b.Erase(h.Context(), p, i, limit)
		h.wantErr(err, storage.ErrConflict) // not fenced
		h.ok(h.b.Fence(h.Context(), p, i, "tester"))
		_, err = h.b.Erase(h.Context(), p, copse.NewIncarnation(), limit)
		h.wantErr(err, storage.ErrNoHead)
		// Followers hear of the last step only, and the audit row of it has the last head.
		chain := h.head(p).Chain
		var told []storage.Change
		stop := h.b.Follow(func(c storage.Change) { told = append(told, c) })
		steps := h.eraseAll(p, i, limit)
		stop()
		// 2 items, 5 history rows, 3 feed rows and the head.
		// Too few steps would mean that one took more than its limit, too many that a step did nothing.
		if limit < 1000 && steps < 10/limit || steps > 11/limit+2 {
			h.Fatalf("limit %d: %d steps", limit, steps)
		}
		_, err = h.b.Head(h.Context(), p)
		h.wantErr(err, storage.ErrNotFound)
		h.equal(told, []storage.Change{{Partition: p, Incarnation: i, Revision: 2, Fenced: true}})
		done, err := h.b.Erase(h.Context(), p, i, limit)
		h.ok(err)
		h.equal(done, true)
		feed, err := h.b.Feed(h.Context(), 0, 100)
		h.ok(err)
		h.equal(len(feed), 0)
		audit, err := h.b.Audit(h.Context(), 0, 100)
		h.ok(err)
		last := audit[len(audit)-1]
		h.equal([]any{last.Operation, last.Partition, last.Revision, last.Head}, []any{storage.OperationErase, p, uint64(2), chain})
		h.chains()
	}
}

// eraseLeavesOthers: of names that begin alike one is erased after the other, and those that are left keep all
// they have. An erasure by prefix that forgets where a name ends takes a neighbour with it.
func eraseLeavesOthers(h *harness) {
	// In the order of prefixes, so that the shorter names go while the longer ones stay.
	incarnations := make(map[storage.Partition]copse.Incarnation)
	for _, p := range prefixes() {
		incarnations[p] = h.create(p, put(one, "of "+p.String()))
	}
	for n, gone := range prefixes() {
		h.ok(h.b.Fence(h.Context(), gone, incarnations[gone], "tester"))
		h.eraseAll(gone, incarnations[gone], 2)
		for _, left := range prefixes()[n+1:] {
			h.equal(h.bodies(left), map[storage.Key]string{one: "of " + left.String(), {Kind: "settings"}: "{}"})
		}
		feed, err := h.b.Feed(h.Context(), 0, 100)
		h.ok(err)
		h.equal(len(feed), len(prefixes())-n-1)
		h.chains()
	}
}

// createAgain: a name that was erased can be used again, from revision 1. The former incarnation stays dead: what
// was on its way to it does not reach the successor, and seqs of the feed go on.
func createAgain(h *harness) {
	old := h.create(alpha, put(one, "old"))
	h.ok(h.b.Fence(h.Context(), alpha, old, "tester"))
	h.eraseAll(alpha, old, 100)
	// Before a successor exists as after: an incarnation ends with its partition.
	h.refuse(commitOf(alpha, old, put(one, "from beyond")), storage.ErrNoHead)
	now := h.create(alpha, put(two, "new"))
	h.equal(h.head(alpha).Revision, uint64(1))
	h.equal(h.bodies(alpha), map[storage.Key]string{two: "new", {Kind: "settings"}: "{}"})
	// A write, a fence, an erasure that was meant for the former self meets nothing.
	h.refuse(commitOf(alpha, old, put(one, "from beyond")), storage.ErrNoHead)
	h.wantErr(h.b.Fence(h.Context(), alpha, old, "tester"), storage.ErrNoHead)
	_, err := h.b.Erase(h.Context(), alpha, old, 100)
	h.wantErr(err, storage.ErrNoHead)
	h.commit(commitOf(alpha, now, put(two, "newer")), 2)
	feed, err := h.b.Feed(h.Context(), 0, 100)
	h.ok(err)
	h.equal(feed, []storage.FeedRow{ // no seq is used twice
		{Seq: 3, Partition: alpha, Incarnation: now, Revision: 1},
		{Seq: 4, Partition: alpha, Incarnation: now, Revision: 2},
	})
	h.chains()
}
