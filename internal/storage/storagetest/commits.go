package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// absentPartition: reading what does not exist says so, or is empty; ending it says so or is done already. None
// of it makes the partition, and a zero incarnation is no way in.
func absentPartition(h *harness) {
	ctx, i := h.Context(), copse.NewIncarnation()
	_, err := h.b.Head(ctx, alpha)
	h.wantErr(err, storage.ErrNotFound)
	_, err = h.b.Get(ctx, alpha, one)
	h.wantErr(err, storage.ErrNotFound)
	_, err = h.b.Load(ctx, alpha)
	h.wantErr(err, storage.ErrNotFound)
	items, err := h.b.Scan(ctx, alpha, "policy", "", 10)
	h.ok(err)
	h.equal(len(items), 0)
	rows, err := h.b.History(ctx, alpha, 0, 10)
	h.ok(err)
	h.equal(len(rows), 0)
	h.refuse(commitOf(alpha, i, put(one, "{}")), storage.ErrNoHead)
	h.refuse(commitOf(alpha, copse.Incarnation{}, put(one, "{}")), storage.ErrNoHead)
	h.wantErr(h.b.Fence(ctx, alpha, i, "tester"), storage.ErrNoHead)
	h.ok(h.b.Forget(ctx, alpha, one, 0))
	done, err := h.b.Erase(ctx, alpha, i, 1)
	h.ok(err)
	h.equal(done, true)
	// Asking leaves no trace.
	audit, err := h.b.Audit(ctx, 0, 10)
	h.ok(err)
	feed, err := h.b.Feed(ctx, 0, 10)
	h.ok(err)
	h.equal(len(audit)+len(feed), 0)
}

// create: a partition comes to be with its first commit, at revision 1 and version 1, and only once. The head
// keeps incarnation and creation time over later commits, while the chain moves.
func create(h *harness) {
	i := h.create(alpha, put(one, "first"))
	head := h.head(alpha)
	if head.Partition != alpha || head.Incarnation != i || head.State != storage.Active || head.Revision != 1 || head.CreatedAt.IsZero() {
		h.Fatalf("head is %+v", head)
	}
	item, err := h.b.Get(h.Context(), alpha, one)
	h.ok(err)
	h.equal(item, storage.Item{Key: one, Version: 1, Body: []byte("first")})
	// The second creation must not win, whatever incarnation it brings.
	for _, incarnation := range []copse.Incarnation{i, copse.NewIncarnation()} {
		c := commitOf(alpha, incarnation, put(one, "stolen"))
		c.Create = true
		h.refuse(c, storage.ErrExists)
	}
	// Nor is anything written that was meant for another incarnation.
	h.refuse(commitOf(alpha, copse.NewIncarnation(), put(one, "stranger")), storage.ErrNoHead)
	h.commit(commitOf(alpha, i, put(one, "second")), 2)
	after := h.head(alpha)
	if after.Incarnation != i || !after.CreatedAt.Equal(head.CreatedAt) || after.Chain == head.Chain {
		h.Fatalf("head went from %+v to %+v", head, after)
	}
	h.equal(h.bodies(alpha)[one], "second")
}

// zeroPartition: a key that belongs to no policy store is refused everywhere, a policy store without an id
// included. Otherwise an empty id that slipped through a caller would be a partition of its own.
func zeroPartition(h *harness) {
	ctx, i := h.Context(), copse.NewIncarnation()
	// The two ways to name nothing: a Partition that nobody made, and one made of an empty id.
	for _, p := range []storage.Partition{{}, storage.PolicyStore("")} {
		c := commitOf(p, i, put(one, "{}"))
		c.Create = true
		h.refuse(c, storage.ErrInvalid)
		_, headErr := h.b.Head(ctx, p)
		_, getErr := h.b.Get(ctx, p, one)
		_, scanErr := h.b.Scan(ctx, p, "policy", "", 1)
		_, loadErr := h.b.Load(ctx, p)
		_, historyErr := h.b.History(ctx, p, 0, 1)
		_, eraseErr := h.b.Erase(ctx, p, i, 1)
		for _, err := range []error{
			headErr, getErr, scanErr, loadErr, historyErr, eraseErr,
			h.b.Fence(ctx, p, i, "tester"), h.b.Forget(ctx, p, one, 0),
		} {
			h.wantErr(err, storage.ErrInvalid)
		}
	}
}

// invalidCommits: what Commit.Validate finds, each backend refuses, and the partition has not moved.
func invalidCommits(h *harness) {
	i := h.create(alpha)
	for name, c := range map[string]storage.Commit{
		"no writes":         commitOf(alpha, i),
		"empty kind":        commitOf(alpha, i, put(storage.Key{ID: "1"}, "{}")),
		"same key twice":    commitOf(alpha, i, put(one, "a"), put(two, "b"), put(one, "a")),
		"put and delete":    commitOf(alpha, i, put(one, "a"), remove(one)),
		"requires no kind":  {Partition: alpha, Incarnation: i, Writes: []storage.Write{put(one, "a")}, Require: []storage.Requirement{{}}},
		"zero incarnation ": {Partition: storage.PolicyStore("beta"), Create: true, Writes: []storage.Write{put(one, "a")}},
	} {
		if _, err := h.b.Commit(h.Context(), c); !errors.Is(err, storage.ErrInvalid) {
			h.Errorf("%s: %v", name, err)
		}
	}
	// A limit that can't get anywhere is the caller's mistake, not an erasure that never ends.
	done, err := h.b.Erase(h.Context(), alpha, i, 0)
	h.wantErr(err, storage.ErrInvalid)
	h.equal(done, false)
	h.equal(h.head(alpha).Revision, uint64(1))
}

// expectations: a write is taken only at the version its caller saw. One that was decided on an older reading
// must not overwrite what came since, a deletion as little as a change.
func expectations(h *harness) {
	i := h.create(alpha)
	// Versions below are revisions: each commit that is taken moves both, a refused one neither.
	with := func(w storage.Write, e storage.Expectation) storage.Commit {
		w.Expect = e
		return commitOf(alpha, i, w)
	}
	h.refuse(with(put(one, "a"), storage.Version(1)), storage.ErrConflict)
	h.commit(with(put(one, "a"), storage.Expectation{}), 2) // the zero expectation is Absent
	h.refuse(with(put(one, "b"), storage.Absent()), storage.ErrConflict)
	h.refuse(with(put(one, "b"), storage.Version(1)), storage.ErrConflict)
	h.refuse(with(put(one, "b"), storage.Version(3)), storage.ErrConflict)
	h.commit(with(put(one, "b"), storage.Version(2)), 3)
	h.refuse(with(remove(one), storage.Version(2)), storage.ErrConflict)
	h.refuse(with(remove(one), storage.Absent()), storage.ErrConflict)
	h.commit(with(remove(one), storage.Version(3)), 4)
	h.refuse(with(put(one, "c"), storage.Version(3)), storage.ErrConflict)
	h.refuse(with(put(one, "c"), storage.Version(4)), storage.ErrConflict)
	h.commit(with(put(one, "c"), storage.Version(0)), 5) // version 0 is absent, too
	h.commit(with(remove(two), storage.Absent()), 6)     // deleting what is not there is no mistake
	h.commit(with(remove(two), storage.Any()), 7)
	h.equal(h.bodies(alpha), map[storage.Key]string{one: "c", {Kind: "settings"}: "{}"})
	h.chains()
}

// requirements: what a commit depends on but does not write is held to its version in the same transaction; so a
// policy that was validated against one schema is never stored beside another.
func requirements(h *harness) {
	schema := storage.Key{Kind: "schema"}
	i := h.create(alpha, put(schema, "v1"))
	// Two requirements, of which the first is met: the second must count as well.
	requiring := func(k storage.Key, e storage.Expectation) storage.Commit {
		c := commitOf(alpha, i, put(one, "{}"))
		c.Require = []storage.Requirement{{Key: storage.Key{Kind: "settings"}, Expect: storage.Version(1)}, {Key: k, Expect: e}}
		return c
	}
	h.refuse(requiring(schema, storage.Absent()), storage.ErrConflict)
	h.refuse(requiring(schema, storage.Version(2)), storage.ErrConflict)
	h.refuse(requiring(two, storage.Version(1)), storage.ErrConflict)
	h.commit(requiring(schema, storage.Version(1)), 2)
	h.commit(requiring(two, storage.Absent()), 3)
	h.commit(requiring(two, storage.Any()), 4)
	// A requirement is not written: its version stays.
	h.commit(commitOf(alpha, i, put(schema, "v2")), 5)
	h.refuse(requiring(schema, storage.Version(1)), storage.ErrConflict)
	h.commit(requiring(schema, storage.Version(5)), 6)
	// What is required before a partition exists can only be absence.
	c := commitOf(storage.PolicyStore("beta"), copse.NewIncarnation(), put(one, "{}"))
	c.Create = true
	c.Require = []storage.Requirement{{Key: schema, Expect: storage.Version(5)}}
	h.refuse(c, storage.ErrConflict)
	c.Require[0].Expect = storage.Absent()
	h.commit(c, 1)
	// A requirement looks at what was before the commit, also for a key the commit writes.
	c = commitOf(alpha, i, put(schema, "v3"))
	c.Require = []storage.Requirement{{Key: schema, Expect: storage.Version(5)}}
	h.commit(c, 7)
}

// expectedRevision: a commit can depend on a whole partition at once. One that is being created is at 0.
func expectedRevision(h *harness) {
	i := h.create(alpha)
	// Every write would be taken; only the revision decides.
	at := func(revision uint64) storage.Commit {
		c := commitOf(alpha, i, put(one, "{}"))
		c.Expect = storage.Revision{Set: true, Value: revision}
		return c
	}
	h.refuse(at(0), storage.ErrConflict)
	h.refuse(at(2), storage.ErrConflict)
	h.commit(at(1), 2)
	h.refuse(at(1), storage.ErrConflict)
	// Before it exists a partition is at revision 0, also for a creation.
	c := commitOf(storage.PolicyStore("beta"), i, put(one, "{}"))
	c.Create, c.Expect = true, storage.Revision{Set: true, Value: 1}
	h.refuse(c, storage.ErrConflict)
	c.Expect.Value = 0
	h.commit(c, 1)
}

// orderOfRefusals: a commit that is wrong in several ways gets the refusal that comes first in the contract, from
// every backend the same.
func orderOfRefusals(h *harness) {
	i := h.create(alpha)
	// Everything is wrong with it; from here on one mistake after the other is mended.
	all := commitOf(alpha, copse.NewIncarnation(), put(one, "a"))
	all.Expect = storage.Revision{Set: true, Value: 9}
	h.refuse(all, storage.ErrNoHead) // a stranger learns nothing of revisions
	all.Create = true
	h.refuse(all, storage.ErrExists)
	all.Create, all.Incarnation = false, i
	h.refuse(all, storage.ErrConflict)
	all.Writes = nil
	h.refuse(all, storage.ErrInvalid)
}

// refusedLeavesNothing: one expectation that fails, here that of the last write, takes the whole commit with it:
// items, head, history, audit and feed rows are as before, and no follower has heard of it.
func refusedLeavesNothing(h *harness) {
	i := h.create(alpha, put(one, "before"))
	before := h.head(alpha)
	told := 0
	defer h.b.Follow(func(storage.Change) { told++ })()
	// The first three would be taken.
	c := commitOf(alpha, i, put(two, "new"), put(one, "after"), remove(storage.Key{Kind: "settings"}))
	c.Writes = append(c.Writes, storage.Write{Key: storage.Key{Kind: "policy", ID: "3"}, Body: []byte("x"), Expect: storage.Version(7)})
	h.refuse(c, storage.ErrConflict)
	h.equal(h.head(alpha), before)
	h.equal(h.bodies(alpha), map[storage.Key]string{one: "before", {Kind: "settings"}: "{}"})
	// What comes after the creation's own rows, in each of the three records.
	rows, err := h.b.History(h.Context(), alpha, 1, 10)
	h.ok(err)
	audit, err := h.b.Audit(h.Context(), 1, 10)
	h.ok(err)
	feed, err := h.b.Feed(h.Context(), 1, 10)
	h.ok(err)
	h.equal(len(rows)+len(audit)+len(feed)+told, 0)
	// And the next one is as if it had never been.
	h.commit(commitOf(alpha, i, put(two, "new")), 2)
	h.chains()
}

// emptyBodiesAndIDs: a body of no bytes is stored and comes back as one, and is no deletion; an item with an empty
// id can be read and removed. SQL databases and drivers like to take the one for NULL and lose the other.
func emptyBodiesAndIDs(h *harness) {
	empty := storage.Key{Kind: "policy"}
	i := h.create(alpha, storage.Write{Key: empty, Body: []byte{}}, put(one, "1"))
	item, err := h.b.Get(h.Context(), alpha, empty)
	h.ok(err)
	h.equal(item, storage.Item{Key: empty, Version: 1, Body: []byte{}})
	rows, err := h.b.History(h.Context(), alpha, 0, 10)
	h.ok(err)
	if rows[0].Body == nil || rows[0].Deleted || rows[0].Key != empty {
		h.Fatalf("an empty body became %+v", rows[0])
	}
	// The empty id is greater than nothing, so paging by last id can't meet it twice.
	items, err := h.b.Scan(h.Context(), alpha, "policy", "", 10)
	h.ok(err)
	h.equal(len(items), 1)
	// Deleting it leaves no item, though its body was as empty as a deletion's.
	h.commit(commitOf(alpha, i, remove(empty)), 2)
	_, err = h.b.Get(h.Context(), alpha, empty)
	h.wantErr(err, storage.ErrNotFound)
}

// awkwardIDs differ for bytes and are equal, or cut short, for anything cleverer.
// Case, Unicode forms of one letter, trailing spaces, NULs, numbers, bytes that are no UTF-8, patterns of SQL,
// and lengths.
var awkwardIDs = []string{
	"\x00", "\x00\x00", " ", "%", "'; DROP TABLE item; --", "1", "1.0", "10", "9", "A", "A ", "A\x00", "A\x00B",
	"\u00c5", "A\u030a", "_", "a", "a ", "a\t", "b", "\u00df", "ss", "\ufb00", "\U0001F333", "\xff", "\xff\xfe",
	strings.Repeat("\xff", 1000), strings.Repeat("\xff", 1000) + "\x00",
}

// idsAreBytes: kinds, ids and names of policy stores that differ in a byte are different, are ordered as bytes
// and never found in place of one another. Two tenants whose names a collation takes for equal would share data.
func idsAreBytes(h *harness) {
	ids := slices.Sorted(slices.Values(awkwardIDs))
	// Every id under kinds that are as hard to tell apart.
	var writes []storage.Write
	for _, kind := range []storage.Kind{"a", "A", "a ", "a\x00", "\u00e5", "a\u030a"} {
		for n, id := range ids {
			writes = append(writes, put(storage.Key{Kind: kind, ID: id}, fmt.Sprintf("%q %d", kind, n)))
		}
	}
	i := copse.NewIncarnation()
	c := commitOf(alpha, i, writes...)
	c.Create = true
	h.commit(c, 1)
	for _, w := range writes {
		item, err := h.b.Get(h.Context(), alpha, w.Key)
		h.ok(err)
		h.equal(item, storage.Item{Key: w.Key, Version: 1, Body: w.Body})
	}
	// In the order of bytes, which is Go's order of strings.
	items, err := h.b.Scan(h.Context(), alpha, "a", "", 1000)
	h.ok(err)
	h.equal(len(items), len(ids))
	for n, item := range items {
		h.equal(item.ID, ids[n])
	}
	// Deleting one takes none of its likenesses along.
	h.commit(commitOf(alpha, i, remove(storage.Key{Kind: "a", ID: "A"})), 2)
	items, err = h.b.Scan(h.Context(), alpha, "a", "", 1000)
	h.ok(err)
	h.equal(len(items), len(ids)-1)
	// The same names for policy stores.
	for n, id := range ids {
		h.create(storage.PolicyStore(copse.PolicyStoreID(id)), put(one, fmt.Sprint(n)))
	}
	for n, id := range ids {
		h.equal(h.bodies(storage.PolicyStore(copse.PolicyStoreID(id)))[one], fmt.Sprint(n))
	}
	h.chains()
}

// scanPages: pages of any size give every item of the kind once and in order, and none of kinds whose names
// begin the same. A limit below one reads nothing, and the largest int is a limit like another.
func scanPages(h *harness) {
	// The kinds before and after in byte order, with the same ids.
	var writes []storage.Write
	for n := range 25 {
		writes = append(writes, put(storage.Key{Kind: "policy", ID: fmt.Sprintf("%02d", n)}, fmt.Sprint(n)))
		writes = append(writes, put(storage.Key{Kind: "policy2", ID: fmt.Sprintf("%02d", n)}, "other kind"))
		writes = append(writes, put(storage.Key{Kind: "polic", ID: fmt.Sprintf("%02d", n)}, "other kind"))
	}
	h.create(alpha, writes...)
	// One, some, all, one more than all, and what overflows when one is added to it.
	for _, limit := range []int{1, 2, 7, 25, 26, math.MaxInt} {
		var ids []string
		after := ""
		for {
			items, err := h.b.Scan(h.Context(), alpha, "policy", after, limit)
			h.ok(err)
			if len(items) > limit {
				h.Fatalf("%d items, limit %d", len(items), limit)
			}
			if len(items) == 0 {
				break
			}
			for _, item := range items {
				h.equal(item, storage.Item{Key: storage.Key{Kind: "policy", ID: item.ID}, Version: 1, Body: []byte(fmt.Sprint(len(ids)))})
				ids = append(ids, item.ID)
			}
			after = ids[len(ids)-1]
		}
		h.equal(len(ids), 25)
	}
	for _, limit := range []int{0, -1, math.MinInt} {
		items, err := h.b.Scan(h.Context(), alpha, "policy", "", limit)
		h.ok(err)
		h.equal(len(items), 0)
	}
	items, err := h.b.Scan(h.Context(), alpha, "policy", "zz", 5)
	h.ok(err)
	h.equal(len(items), 0)
}

// load: a partition is read whole, in order of kind and id, each item at the version of the commit that wrote
// it. One whose last item was deleted exists all the same.
func load(h *harness) {
	i := h.create(alpha, put(two, "2"), put(one, "1"), put(storage.Key{Kind: "a", ID: "z"}, "z"))
	// One is changed, one deleted and one left as it was.
	h.commit(commitOf(alpha, i, put(one, "1b"), remove(two)), 2)
	snapshot, err := h.b.Load(h.Context(), alpha)
	h.ok(err)
	h.equal(snapshot, storage.Snapshot{Head: h.head(alpha), Items: []storage.Item{
		{Key: storage.Key{Kind: "a", ID: "z"}, Version: 1, Body: []byte("z")},
		{Key: one, Version: 2, Body: []byte("1b")},
		{Key: storage.Key{Kind: "settings"}, Version: 1, Body: []byte("{}")},
	}})
	h.commit(commitOf(alpha, i, remove(one), remove(storage.Key{Kind: "settings"}), remove(storage.Key{Kind: "a", ID: "z"})), 3)
	snapshot, err = h.b.Load(h.Context(), alpha) // an empty partition is not an absent one
	h.ok(err)
	h.equal(snapshot, storage.Snapshot{Head: h.head(alpha)})
}

// bodiesNotShared: the caller may go on using what it passed in, and change what it got. Here everything is
// scribbled over, and read again.
func bodiesNotShared(h *harness) {
	body := []byte("original")
	// What was passed in is scribbled over once the commit has returned.
	w := storage.Write{Key: one, Body: body}
	h.create(alpha, w)
	copy(body, "SCRIBBLE")
	check := func() {
		h.Helper()
		item, err := h.b.Get(h.Context(), alpha, one)
		h.ok(err)
		h.equal(string(item.Body), "original")
		copy(item.Body, "SCRIBBLE")
		items, err := h.b.Scan(h.Context(), alpha, "policy", "", 1)
		h.ok(err)
		h.equal(string(items[0].Body), "original")
		copy(items[0].Body, "SCRIBBLE")
		snapshot, err := h.b.Load(h.Context(), alpha)
		h.ok(err)
		h.equal(string(snapshot.Items[0].Body), "original")
		copy(snapshot.Items[0].Body, "SCRIBBLE")
		rows, err := h.b.History(h.Context(), alpha, 0, 10)
		h.ok(err)
		h.equal(string(rows[0].Body), "original")
		copy(rows[0].Body, "SCRIBBLE")
		copy(rows[0].Salt, "SCRIBBLE")
	}
	// Twice: the second time would show what the first has scribbled.
	check()
	check()
	h.chains()
}

// sizeLimits: a commit at each limit is taken, and one past it refused before anything moved. What was taken
// comes back whole and can be erased.
func sizeLimits(h *harness) {
	i := h.create(alpha)
	// The number of writes, and below their bytes.
	writes := make([]storage.Write, storage.MaxCommitWrites+1)
	for n := range writes {
		writes[n] = put(storage.Key{Kind: "policy", ID: fmt.Sprint(n)}, "{}")
	}
	h.refuse(commitOf(alpha, i, writes...), storage.ErrTooLarge)
	h.commit(commitOf(alpha, i, writes[1:]...), 2)

	size := storage.MaxCommitBytes - len(one.Kind) - len(one.ID) // keys count, too
	big := storage.Write{Key: one, Body: bytes.Repeat([]byte("x"), size+1), Expect: storage.Any()}
	h.refuse(commitOf(alpha, i, big), storage.ErrTooLarge)
	h.equal(h.head(alpha).Revision, uint64(2))
	big.Body = big.Body[1:]
	h.commit(commitOf(alpha, i, big), 3)
	item, err := h.b.Get(h.Context(), alpha, one)
	h.ok(err)
	if !bytes.Equal(item.Body, big.Body) {
		h.Fatalf("%d bytes came back", len(item.Body))
	}
	h.ok(h.b.Fence(h.Context(), alpha, i, "tester"))
	h.eraseAll(alpha, i, 6000)
}
