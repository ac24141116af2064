package memory

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"sort"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// Fence implements [storage.Backend].
// Revision and chain stay as they are: ending a partition is not a commit of it.
func (b *Backend) Fence(ctx context.Context, p storage.Partition, i copse.Incarnation, actor string) error {
	if err := b.begin(ctx, p); err != nil {
		return err
	}
	defer b.mu.Unlock()
	part, ok := b.partitions[p]
	if !ok || part.head.Incarnation != i {
		return storage.ErrNoHead
	}
	if part.head.State == storage.Fenced {
		return nil
	}
	// Followers are told once, since a second Fence has returned by now.
	now := time.Unix(0, time.Now().UnixNano()).UTC()
	part.head.State = storage.Fenced
	b.record(part.head, now, actor, storage.OperationFence, 0)
	b.publish(part.head, now)
	b.tellGone(part.head)
	return nil
}

// Erase implements [storage.Backend].
// Items go first, then history, then the feed's rows, and the head by itself when there is room for one row more.
func (b *Backend) Erase(ctx context.Context, p storage.Partition, i copse.Incarnation, limit int) (bool, error) {
	if limit < 1 {
		return false, storage.ErrInvalid
	}
	if err := b.begin(ctx, p); err != nil {
		return false, err
	}
	defer b.mu.Unlock()
	part, ok := b.partitions[p]
	switch {
	case !ok:
		return true, nil
	case part.head.Incarnation != i:
		return false, storage.ErrNoHead
	case part.head.State != storage.Fenced:
		return false, storage.ErrConflict
	}
	// Any order will do: what is fenced is not read, and how far an erasure got nobody sees.
	for k := range part.items {
		if limit == 0 {
			return false, nil
		}
		delete(part.items, k)
		limit--
	}
	// The rows are cleared as well as cut off, because the slice's array would keep their bodies.
	n := min(limit, len(part.history))
	clear(part.history[:n])
	part.history = part.history[n:]
	limit -= n
	b.feed = slices.DeleteFunc(b.feed, func(r feedRow) bool {
		if r.Partition != p || limit == 0 {
			return false
		}
		limit--
		return true
	})
	// Not known to be empty, or no room for the head: there is another step.
	if limit == 0 {
		return false, nil
	}
	// Recorded with the last head, which is gone from the map when followers hear of it.
	delete(b.partitions, p)
	b.record(part.head, time.Unix(0, time.Now().UnixNano()).UTC(), storage.ActorSystem, storage.OperationErase, 0)
	b.tellGone(part.head)
	return true, nil
}

// tellGone has no keys, which tells followers that all of the partition may have changed. b.mu is held.
func (b *Backend) tellGone(head storage.Head) {
	b.followers.Tell(storage.Change{
		Partition: head.Partition, Incarnation: head.Incarnation, Revision: head.Revision, Fenced: true,
	})
}

// Forget implements [storage.Backend].
// A row that is forgotten keeps its place, its time and its commitment, which is all the chain needs.
func (b *Backend) Forget(ctx context.Context, p storage.Partition, k storage.Key, upTo uint64) error {
	if err := b.begin(ctx, p); err != nil {
		return err
	}
	defer b.mu.Unlock()
	part, ok := b.partitions[p]
	if !ok {
		return nil
	}
	forgotten := 0
	for n, row := range part.history {
		if row.Key != k || row.Salt == nil || upTo != 0 && row.Revision > upTo {
			continue
		}
		part.history[n] = storage.HistoryRow{
			Revision: row.Revision, N: row.N, Commitment: row.Commitment, At: row.At,
		}
		forgotten++
	}
	if forgotten > 0 {
		now := time.Unix(0, time.Now().UnixNano()).UTC()
		b.record(part.head, now, storage.ActorSystem, storage.OperationForget, forgotten)
	}
	return nil
}

// Heads implements [storage.Backend].
func (b *Backend) Heads(ctx context.Context, after string, limit int) ([]storage.Head, error) {
	if err := b.beginAll(ctx); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	// The directory is no policy store, and not among them.
	var heads []storage.Head
	for p, part := range b.partitions {
		if _, ok := p.PolicyStoreID(); ok && p.String() > after {
			heads = append(heads, part.head)
		}
	}
	slices.SortFunc(heads, func(x, y storage.Head) int {
		return cmp.Compare(x.Partition.String(), y.Partition.String())
	})
	return heads[:min(len(heads), max(limit, 0))], nil
}

// History implements [storage.Backend].
// The binary search relies on rows being in order of revision, which Erase does not change.
func (b *Backend) History(ctx context.Context, p storage.Partition, after uint64, limit int) ([]storage.HistoryRow, error) {
	if err := b.begin(ctx, p); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	part, ok := b.active(p)
	if !ok || limit < 1 {
		return nil, nil
	}
	start := sort.Search(len(part.history), func(n int) bool { return part.history[n].Revision > after })
	// A clone of the slice first: Forget replaces rows in place.
	rows := slices.Clone(storage.WholeCommits(part.history[start:], limit))
	for n := range rows {
		rows[n].Salt, rows[n].Body = bytes.Clone(rows[n].Salt), bytes.Clone(rows[n].Body)
	}
	return rows, nil
}

// Audit implements [storage.Backend].
// Rows hold no slices, so a clone of the slice shares nothing.
func (b *Backend) Audit(ctx context.Context, after uint64, limit int) ([]storage.AuditRow, error) {
	if err := b.beginAll(ctx); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	start := min(after, uint64(len(b.audit))) // Seq n is at n-1
	rows := b.audit[start:]
	return slices.Clone(rows[:min(len(rows), max(limit, 0))]), nil
}

// Former implements [storage.Backend].
// From the newest row on. A forgotten row has no key, and is passed over.
func (b *Backend) Former(ctx context.Context, p storage.Partition, k storage.Key, before uint64) (storage.HistoryRow, error) {
	if err := b.begin(ctx, p); err != nil {
		return storage.HistoryRow{}, err
	}
	defer b.mu.Unlock()
	if part, ok := b.active(p); ok {
		// Bodies are copied for whoever asked, as everywhere.
		for _, row := range slices.Backward(part.history) {
			if row.Revision < before && row.Salt != nil && row.Key == k {
				row.Salt, row.Body = bytes.Clone(row.Salt), bytes.Clone(row.Body)
				return row, nil
			}
		}
	}
	return storage.HistoryRow{}, storage.ErrNotFound
}

// AuditEnd implements [storage.Backend].
// Zeros when nothing was ever recorded.
func (b *Backend) AuditEnd(ctx context.Context) (seq uint64, chain [32]byte, err error) {
	if err := b.beginAll(ctx); err != nil {
		return 0, chain, err
	}
	defer b.mu.Unlock()
	if len(b.audit) > 0 {
		last := b.audit[len(b.audit)-1]
		seq, chain = last.Seq, last.Chain
	}
	return seq, chain, nil
}

// Feed implements [storage.Backend].
// Seqs have gaps where Erase or publish took rows away.
func (b *Backend) Feed(ctx context.Context, after uint64, limit int) ([]storage.FeedRow, error) {
	if err := b.beginAll(ctx); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	// All rows are looked at; there are no more than a day's.
	var rows []storage.FeedRow
	for _, row := range b.feed {
		if row.Seq > after && len(rows) < limit {
			rows = append(rows, row.FeedRow)
		}
	}
	return rows, nil
}
