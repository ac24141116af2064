package storagetest

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// history: each write has a row, a deletion of what is absent too, in order of revision and position. Every row
// opens its commitment by itself and has a salt of its own.
func history(h *harness) {
	before := time.Now().Add(-time.Second)
	i := h.create(alpha, put(one, "a"))
	h.commit(commitOf(alpha, i, put(one, "b"), remove(two)), 2)
	// A deletion of what is there; the one before it is of what is not.
	h.commit(commitOf(alpha, i, remove(one)), 3)
	// Times are the backend's own, of about now.
	rows, err := h.b.History(h.Context(), alpha, 0, 100)
	h.ok(err)
	salts := make(map[string]bool)
	for n := range rows {
		// With a second to spare for clocks of different grain.
		if rows[n].At.Before(before) || rows[n].At.After(time.Now().Add(time.Second)) {
			h.Fatalf("row %d is of %v", n, rows[n].At)
		}
		h.ok(storage.VerifyHistoryRow(rows[n], rows[n].N))
		salts[string(rows[n].Salt)] = true
		// Checked above; the rest is compared whole.
		rows[n].At, rows[n].Salt, rows[n].Commitment = time.Time{}, nil, [32]byte{}
	}
	h.equal(rows, []storage.HistoryRow{
		{Revision: 1, N: 0, Key: one, Body: []byte("a")},
		{Revision: 1, N: 1, Key: storage.Key{Kind: "settings"}, Body: []byte("{}")},
		{Revision: 2, N: 0, Key: one, Body: []byte("b")},
		{Revision: 2, N: 1, Key: two, Deleted: true},
		{Revision: 3, N: 0, Key: one, Deleted: true},
	})
	h.equal(len(salts), len(rows)) // one each, or forgetting one row opens another
	h.chains()
}

// historyWholeCommits: a page ends where a commit does, so that whoever walks the chain never meets half of one.
// A commit that is over the limit by itself comes whole. Positions past the end have nothing.
func historyWholeCommits(h *harness) {
	i := h.create(alpha) // 1 row
	// Rows in each commit: larger and smaller than most of the limits.
	sizes := []int{1, 3, 5, 1, 2}
	for n, size := range sizes[1:] {
		var writes []storage.Write
		for k := range size {
			writes = append(writes, put(storage.Key{Kind: "policy", ID: fmt.Sprint(k)}, fmt.Sprint(n)))
		}
		h.commit(commitOf(alpha, i, writes...), uint64(n+2))
	}
	// From a limit that most commits exceed to one that all 12 rows fit into.
	for limit := 1; limit <= 13; limit++ {
		after := uint64(0)
		// The page after the last revision that was seen, until the end; each begins with the next revision.
		for after < uint64(len(sizes)) {
			rows, err := h.b.History(h.Context(), alpha, after, limit)
			h.ok(err)
			// What fits into the limit in whole commits, but at least one.
			want := 0
			for r := after; r < uint64(len(sizes)) && (want == 0 || want+sizes[r] <= limit); r++ {
				want += sizes[r]
			}
			h.equal(len(rows), want)
			h.equal(rows[0].Revision, after+1)
			after = rows[len(rows)-1].Revision
		}
	}
	// The last revision, and others that a database with signed numbers might misread.
	for _, after := range []uint64{5, 6, math.MaxInt64, math.MaxUint64} {
		rows, err := h.b.History(h.Context(), alpha, after, 10)
		h.ok(err)
		h.equal(len(rows), 0)
	}
	for _, limit := range []int{0, -1} {
		rows, err := h.b.History(h.Context(), alpha, 0, limit)
		h.ok(err)
		h.equal(len(rows), 0)
	}
	rows, err := h.b.History(h.Context(), alpha, 0, math.MaxInt)
	h.ok(err)
	h.equal(len(rows), 12)
}

// former: what a write replaced is the row before it, of that key and that partition, a deletion included. Once
// it is forgotten there is none, and a fenced partition shows none.
func former(h *harness) {
	ctx, i := h.Context(), h.create(alpha, put(one, "a"))
	h.commit(commitOf(alpha, i, put(one, "b"), put(two, "c")), 2)
	h.commit(commitOf(alpha, i, remove(one)), 3)
	h.create(storage.PolicyStore("beta"), put(one, "of another"))
	// In this case an empty body stands for a deletion.
	wantAt := func(k storage.Key, before, revision uint64, body string) {
		h.Helper()
		row, err := h.b.Former(ctx, alpha, k, before)
		h.ok(err)
		h.ok(storage.VerifyHistoryRow(row, row.N))
		h.equal([]any{row.Revision, row.Key, string(row.Body), row.Deleted}, []any{revision, k, body, body == ""})
	}
	wantAt(one, 2, 1, "a")
	wantAt(one, 3, 2, "b")
	wantAt(one, 4, 3, "")
	wantAt(one, math.MaxUint64, 3, "")
	wantAt(two, 3, 2, "c")
	// Nothing before the first, of an absent partition, or of what was forgotten.
	none := func(p storage.Partition, k storage.Key, before uint64) {
		h.Helper()
		_, err := h.b.Former(ctx, p, k, before)
		h.wantErr(err, storage.ErrNotFound)
	}
	none(alpha, one, 1)
	none(alpha, two, 2)
	none(alpha, one, 0)
	none(storage.PolicyStore("absent"), one, 9)
	h.ok(h.b.Forget(ctx, alpha, one, 2))
	none(alpha, one, 3)
	wantAt(one, 4, 3, "")
	h.ok(h.b.Fence(ctx, alpha, i, "tester"))
	none(alpha, two, 9)
}

// forget: no row of the key has salt, key or body any more, and the chain leads to the same head as before.
// Others' rows stay, the item stays, and later writes are remembered until they are forgotten as well.
func forget(h *harness) {
	i := h.create(alpha, put(one, "personal 1"), put(two, "keep"))
	h.commit(commitOf(alpha, i, put(one, "personal 2")), 2)
	h.commit(commitOf(alpha, i, remove(one), put(two, "keep 2")), 3)
	h.commit(commitOf(alpha, i, put(one, "personal 3")), 4)
	// A chain that moved would be a history rewritten; the head is read before and after.
	chain := h.head(alpha).Chain
	h.ok(h.b.Forget(h.Context(), alpha, one, 0))
	check := func(forgotten int) {
		h.Helper()
		rows, err := h.b.History(h.Context(), alpha, 0, 100)
		h.ok(err)
		got := 0
		for _, row := range rows {
			if row.Salt == nil {
				got++
			} else if row.Key == one && row.Revision <= 4 {
				h.Fatalf("%+v is still there", row)
			}
		}
		h.equal(got, forgotten)
		h.chains()
	}
	check(4)
	h.equal(h.head(alpha).Chain, chain)
	h.equal(h.bodies(alpha)[one], "personal 3") // the item itself stays
	h.commit(commitOf(alpha, i, put(one, "later")), 5)
	check(4)
	for range 2 { // the second has nothing to do, and says so
		h.ok(h.b.Forget(h.Context(), alpha, one, 0))
		check(5)
	}
	audit, err := h.b.Audit(h.Context(), 0, 100)
	h.ok(err)
	// Each call that found something is in the audit log, with the number of rows.
	var counts []int
	for _, row := range audit {
		if row.Operation == storage.OperationForget {
			h.equal(row.Partition, alpha)
			counts = append(counts, row.Writes)
		}
	}
	h.equal(counts, []int{4, 1})
	// A fenced partition's history is not shown, and can be forgotten all the same.
	h.ok(h.b.Fence(h.Context(), alpha, i, "tester"))
	h.ok(h.b.Forget(h.Context(), alpha, two, 0))
	h.chains()
}

// forgetUpTo is the law that a successor of the same name keeps its own history.
// Revisions that no int64 holds are bounds as well, and mean all of it.
func forgetUpTo(h *harness) {
	i := h.create(alpha, put(one, "old"), put(two, "keep"))
	h.commit(commitOf(alpha, i, remove(one)), 2)
	h.commit(commitOf(alpha, i, put(one, "successor")), 3)
	h.commit(commitOf(alpha, i, put(one, "successor 2")), 4)
	// What is left of the key: the revision and the body of each row.
	check := func(want ...string) {
		h.Helper()
		rows, err := h.b.History(h.Context(), alpha, 0, 100)
		h.ok(err)
		var got []string
		for _, row := range rows {
			if row.Salt != nil && row.Key == one {
				got = append(got, fmt.Sprintf("%d %s", row.Revision, row.Body))
			}
		}
		h.equal(got, want)
		h.chains()
	}
	check("1 old", "2 ", "3 successor", "4 successor 2")
	for range 2 {
		h.ok(h.b.Forget(h.Context(), alpha, one, 2))
		check("3 successor", "4 successor 2")
	}
	// What is of a successor goes as well, once it is asked for by its revision.
	h.ok(h.b.Forget(h.Context(), alpha, one, 3))
	check("4 successor 2")
	h.ok(h.b.Fence(h.Context(), alpha, i, "tester"))
	for _, upTo := range []uint64{1, math.MaxInt64, math.MaxInt64 + 1, math.MaxUint64} {
		h.ok(h.b.Forget(h.Context(), alpha, one, upTo))
	}
	audit, err := h.b.Audit(h.Context(), 0, 100)
	h.ok(err)
	var counts []int
	for _, row := range audit {
		if row.Operation == storage.OperationForget {
			counts = append(counts, row.Writes)
		}
	}
	h.equal(counts, []int{2, 1, 1}) // those that found nothing leave no trace
	h.chains()
}

// forgetLong: rows of one key are found among thousands of others, all of them and no others.
func forgetLong(h *harness) {
	i := h.create(alpha)
	var writes []storage.Write
	for n := range 3000 {
		writes = append(writes, put(storage.Key{Kind: "policy", ID: fmt.Sprint(n)}, "x"))
	}
	// Three times all of them, so that the rows of one key lie far apart.
	for revision := range uint64(3) {
		h.commit(commitOf(alpha, i, writes...), revision+2)
	}
	// Each of the three commits wrote it, last of all.
	last := storage.Key{Kind: "policy", ID: "2999"}
	h.ok(h.b.Forget(h.Context(), alpha, last, 0))
	rows, err := h.b.History(h.Context(), alpha, 0, math.MaxInt)
	h.ok(err)
	forgotten := 0
	for _, row := range rows {
		if row.Key == last {
			h.Fatalf("revision %d still has it", row.Revision)
		}
		if row.Salt == nil {
			forgotten++
		}
	}
	h.equal(forgotten, 3)
	h.ok(storage.VerifyHistory(h.Context(), h.b, alpha))
}

// audit: there is a row for each commit with who, what and the head after it, in UTC; pages of any size; and
// AuditEnd knows the last one. Erasure takes nothing away here, because rows hold no bodies.
func audit(h *harness) {
	ctx, i := h.Context(), h.create(alpha, put(one, "the body"))
	// Actor and operation come from the commit, the rest from what became of it.
	c := commitOf(alpha, i, put(one, "b"), put(two, "c"))
	c.Actor, c.Operation = "key-1", "PutSchema"
	h.commit(c, 2)
	chain := h.head(alpha).Chain
	h.create(storage.Directory())
	// It is kept apart from the rows, so that one that is missing at the end is noticed.
	end := func() {
		h.Helper()
		rows, err := h.b.Audit(ctx, 0, 100)
		h.ok(err)
		seq, chain, err := h.b.AuditEnd(ctx)
		h.ok(err)
		h.equal(seq, uint64(len(rows)))
		h.equal(chain, rows[len(rows)-1].Chain)
	}
	end()
	rows, err := h.b.Audit(ctx, 1, 1)
	h.ok(err)
	row := rows[0]
	if row.At.IsZero() || row.At.Location() != time.UTC {
		h.Fatalf("audit row of %v", row.At)
	}
	h.equal([]any{row.Seq, row.Actor, row.Operation, row.Partition, row.Incarnation, row.Revision, row.Writes, row.Head},
		[]any{uint64(2), "key-1", "PutSchema", alpha, i, uint64(2), 2, chain})
	// Pages, positions past the end, and limits that read nothing.
	for _, page := range []struct {
		after uint64
		limit int
		want  int
	}{{0, 10, 3}, {0, 2, 2}, {2, 10, 1}, {3, 10, 0}, {99, 10, 0}, {math.MaxUint64, 10, 0}, {0, 0, 0}, {0, -1, 0}, {0, math.MaxInt, 3}} {
		rows, err := h.b.Audit(ctx, page.after, page.limit)
		h.ok(err)
		h.equal(len(rows), page.want)
	}
	// Erasing takes nothing from the operator's record.
	// The fence and the erasure each added a row of their own.
	h.ok(h.b.Fence(ctx, alpha, i, "tester"))
	h.eraseAll(alpha, i, 1)
	rows, err = h.b.Audit(ctx, 0, 10)
	h.ok(err)
	h.equal(len(rows), 5)
	end()
	h.chains()
}

// feed: a row for each commit in the order of commits, with seqs from 1 and without gaps, in pages of any size.
// A follower that was away goes on after the last seq it has seen, and misses nothing.
func feed(h *harness) {
	ctx := h.Context()
	incarnations := make(map[storage.Partition]copse.Incarnation)
	// What the feed must be, in the order of the commits below.
	var want []storage.FeedRow
	note := func(p storage.Partition, revision uint64) {
		want = append(want, storage.FeedRow{Seq: uint64(len(want)) + 1, Partition: p, Incarnation: incarnations[p], Revision: revision})
	}
	for _, p := range prefixes() {
		incarnations[p] = h.create(p)
		note(p, 1)
	}
	// Partitions take turns, so that the order of the feed is nobody's own.
	for revision := uint64(2); revision < 5; revision++ {
		for _, p := range prefixes() {
			h.commit(commitOf(p, incarnations[p], put(one, "x")), revision)
			note(p, revision)
		}
	}
	// Paged by the seq of the last row, which is also how many there were.
	for _, limit := range []int{1, 5, math.MaxInt} {
		var got []storage.FeedRow
		for {
			rows, err := h.b.Feed(ctx, uint64(len(got)), limit)
			h.ok(err)
			if len(rows) > limit {
				h.Fatalf("%d rows, limit %d", len(rows), limit)
			}
			if len(rows) == 0 {
				break
			}
			got = append(got, rows...)
		}
		h.equal(got, want)
	}
	for _, limit := range []int{0, -1} {
		rows, err := h.b.Feed(ctx, 0, limit)
		h.ok(err)
		h.equal(len(rows), 0)
	}
	rows, err := h.b.Feed(ctx, math.MaxUint64, 10)
	h.ok(err)
	h.equal(len(rows), 0)
}

// follow: a follower knows of a change before whoever made it does, with the keys that were written. Refusals
// tell nothing, nor does Forget. One that has stopped hears no more, and stopping twice is harmless.
func follow(h *harness) {
	// Two, so that one that stops is seen to leave the other alone.
	var first, second []storage.Change
	stopFirst := h.b.Follow(func(c storage.Change) { first = append(first, c) })
	stopSecond := h.b.Follow(func(c storage.Change) { second = append(second, c) })
	i := h.create(alpha, put(two, "x"))
	// Told before the call returned, so no waiting here.
	created := storage.Change{Partition: alpha, Incarnation: i, Revision: 1, Keys: []storage.Key{two, {Kind: "settings"}}}
	h.equal(first, []storage.Change{created})
	h.equal(second, []storage.Change{created})
	stopFirst()
	stopFirst() // harmless
	h.commit(commitOf(alpha, i, remove(two)), 2)
	h.equal(len(first), 1)
	h.equal(second[1:], []storage.Change{{Partition: alpha, Incarnation: i, Revision: 2, Keys: []storage.Key{two}}})
	// Neither of these changes what anybody may have cached.
	h.refuse(commitOf(alpha, copse.NewIncarnation(), remove(two)), storage.ErrNoHead)
	h.ok(h.b.Forget(h.Context(), alpha, two, 0)) // changes no item
	h.equal(len(second), 2)
	stopSecond()
}

// cancelledContext: who has gone gets nothing done, and learns why.
func cancelledContext(h *harness) {
	i := h.create(alpha)
	ctx, cancel := context.WithCancel(h.Context())
	cancel()
	// Reads and writes alike, before anything is looked at.
	_, err := h.b.Commit(ctx, commitOf(alpha, i, put(one, "x")))
	h.wantErr(err, context.Canceled)
	h.wantErr(h.b.Fence(ctx, alpha, i, "tester"), context.Canceled)
	_, err = h.b.Get(ctx, alpha, one)
	h.wantErr(err, context.Canceled)
	_, err = h.b.Load(ctx, alpha)
	h.wantErr(err, context.Canceled)
	_, err = h.b.Feed(ctx, 0, 1)
	h.wantErr(err, context.Canceled)
	// And nobody else is the worse for it.
	h.equal(h.head(alpha).Revision, uint64(1))
	h.commit(commitOf(alpha, i, put(one, "y")), 2)
}

// closed: after Close everything answers ErrClosed, and nothing panics or hangs; Close itself may be repeated.
func closed(h *harness) {
	ctx, i := h.Context(), h.create(alpha)
	h.ok(h.b.Close())
	_, headErr := h.b.Head(ctx, alpha)
	_, getErr := h.b.Get(ctx, alpha, one)
	_, scanErr := h.b.Scan(ctx, alpha, "policy", "", 1)
	_, loadErr := h.b.Load(ctx, alpha)
	_, commitErr := h.b.Commit(ctx, commitOf(alpha, i, put(one, "x")))
	_, eraseErr := h.b.Erase(ctx, alpha, i, 1)
	_, headsErr := h.b.Heads(ctx, "", 1)
	_, historyErr := h.b.History(ctx, alpha, 0, 1)
	_, auditErr := h.b.Audit(ctx, 0, 1)
	_, _, endErr := h.b.AuditEnd(ctx)
	_, formerErr := h.b.Former(ctx, alpha, one, 1)
	_, feedErr := h.b.Feed(ctx, 0, 1)
	for _, err := range []error{
		headErr, getErr, scanErr, loadErr, commitErr, eraseErr, headsErr, historyErr, auditErr, endErr, formerErr, feedErr,
		h.b.Fence(ctx, alpha, i, "tester"), h.b.Forget(ctx, alpha, one, 0),
	} {
		h.wantErr(err, storage.ErrClosed)
	}
	h.ok(h.b.Close())
}
