// Package memory keeps partitions in memory: for tests, for policy stores loaded from files, and as
// the model that other backends are compared with.
//
// It is meant to be read in one sitting and be obviously right, not to be fast: one mutex, plain maps,
// and sorting when someone asks for an order. What a caller may rely on is the contract of
// [storage.Backend], nothing more; all is gone when the process ends.
package memory

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/copse-authz/copse/internal/storage"
)

// Backend is a [storage.Backend] without a disk.
// It needs no disk and no goroutine of its own, so one that is dropped without Close leaves nothing behind.
type Backend struct {
	followers storage.Followers

	// mu guards all below, and is held while followers are told: that is what gives them changes in order.
	// A follower that called the backend would wait for itself, and the contract forbids it.
	mu         sync.Mutex
	closed     bool
	partitions map[storage.Partition]*partition
	audit      []storage.AuditRow
	feed       []feedRow
	feedSeq    uint64 // of the last row ever given out; rows may be gone since
}

// partition is one head with what belongs to it. It stays in the map when it is fenced, and leaves with Erase.
type partition struct {
	head    storage.Head
	items   map[storage.Key]storage.Item
	history []storage.HistoryRow
}

// feedRow is a FeedRow with the time by which it goes; see publish.
type feedRow struct {
	storage.FeedRow
	at time.Time
}

var _ storage.Backend = (*Backend)(nil)

// New makes an empty backend.
func New() *Backend {
	return &Backend{partitions: make(map[storage.Partition]*partition)}
}

// begin locks for one call; the caller unlocks unless there is an error.
// The zero Partition is refused first, then a context that has ended, then a closed backend.
func (b *Backend) begin(ctx context.Context, p storage.Partition) error {
	if _, err := storage.ParsePartition(p.String()); err != nil {
		return err
	}
	return b.beginAll(ctx)
}

// beginAll is begin for what concerns no partition, or has had its own looked at.
func (b *Backend) beginAll(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return storage.ErrClosed
	}
	return nil
}

// active is the partition if it exists and is not fenced.
// What is fenced reads as absent everywhere but in Head and Heads.
func (b *Backend) active(p storage.Partition) (*partition, bool) {
	part, ok := b.partitions[p]
	return part, ok && part.head.State == storage.Active
}

// Head implements [storage.Backend].
func (b *Backend) Head(ctx context.Context, p storage.Partition) (storage.Head, error) {
	if err := b.begin(ctx, p); err != nil {
		return storage.Head{}, err
	}
	defer b.mu.Unlock()
	part, ok := b.partitions[p]
	if !ok {
		return storage.Head{}, storage.ErrNotFound
	}
	return part.head, nil
}

// Get implements [storage.Backend].
func (b *Backend) Get(ctx context.Context, p storage.Partition, k storage.Key) (storage.Item, error) {
	if err := b.begin(ctx, p); err != nil {
		return storage.Item{}, err
	}
	defer b.mu.Unlock()
	part, ok := b.active(p)
	if !ok {
		return storage.Item{}, storage.ErrNotFound
	}
	item, ok := part.items[k]
	if !ok {
		return storage.Item{}, storage.ErrNotFound
	}
	return cloneItem(item), nil
}

// Scan implements [storage.Backend].
func (b *Backend) Scan(ctx context.Context, p storage.Partition, kind storage.Kind, after string, limit int) ([]storage.Item, error) {
	if err := b.begin(ctx, p); err != nil {
		return nil, err
	}
	defer b.mu.Unlock()
	part, ok := b.active(p)
	if !ok {
		return nil, nil
	}
	var items []storage.Item
	for k, item := range part.items {
		if k.Kind == kind && k.ID > after {
			items = append(items, cloneItem(item))
		}
	}
	sortItems(items)
	// All that match are copied and sorted first: the page is the smallest of them.
	return items[:min(len(items), max(limit, 0))], nil
}

// Load implements [storage.Backend].
func (b *Backend) Load(ctx context.Context, p storage.Partition) (storage.Snapshot, error) {
	if err := b.begin(ctx, p); err != nil {
		return storage.Snapshot{}, err
	}
	defer b.mu.Unlock()
	part, ok := b.active(p)
	if !ok {
		return storage.Snapshot{}, storage.ErrNotFound
	}
	snapshot := storage.Snapshot{Head: part.head}
	for _, item := range part.items {
		snapshot.Items = append(snapshot.Items, cloneItem(item))
	}
	sortItems(snapshot.Items)
	return snapshot, nil
}

// Whole implements [storage.Backend]. Nothing gets lost here.
func (b *Backend) Whole(ctx context.Context, p storage.Partition) error {
	if err := b.begin(ctx, p); err != nil {
		return err
	}
	b.mu.Unlock()
	return nil
}

// Commit implements [storage.Backend].
// Everything is checked before anything is changed, so a refusal has nothing to take back.
func (b *Backend) Commit(ctx context.Context, c storage.Commit) (uint64, error) {
	if err := c.Validate(); err != nil {
		return 0, err
	}
	if err := b.beginAll(ctx); err != nil {
		return 0, err
	}
	defer b.mu.Unlock()
	// Without the monotonic reading, as a time that comes back from a disk.
	now := time.Unix(0, time.Now().UnixNano()).UTC()
	part, err := b.target(&c, now)
	if err != nil {
		return 0, err
	}
	if err := check(part, &c); err != nil {
		return 0, err
	}

	// From here nothing fails.
	part.head.Revision++
	commitments := make([][32]byte, len(c.Writes))
	keys := make([]storage.Key, len(c.Writes))
	for n, w := range c.Writes {
		salt := make([]byte, 16)
		_, _ = rand.Read(salt) // never fails, see crypto/rand
		// Bodies are copied twice, for history and item: neither is shared with the caller or with the other.
		row := storage.HistoryRow{
			Revision: part.head.Revision, N: n, Salt: salt, Key: w.Key,
			Body: bytes.Clone(w.Body), Deleted: w.Body == nil, At: now,
		}
		row.Commitment = storage.Commitment(row.Salt, row.Key, row.Body, row.Deleted)
		commitments[n], keys[n] = row.Commitment, w.Key
		part.history = append(part.history, row)
		if w.Body == nil {
			delete(part.items, w.Key)
		} else {
			part.items[w.Key] = storage.Item{Key: w.Key, Version: part.head.Revision, Body: bytes.Clone(w.Body)}
		}
	}
	part.head.Chain = storage.ChainNext(part.head.Chain, part.head.Revision, commitments)
	// A partition that is being created gets into the map here, after the last thing that could refuse it.
	b.partitions[c.Partition] = part
	b.record(part.head, now, c.Actor, c.Operation, len(c.Writes))
	b.publish(part.head, now)
	b.followers.Tell(storage.Change{
		Partition: c.Partition, Incarnation: c.Incarnation, Revision: part.head.Revision, Keys: keys,
	})
	return part.head.Revision, nil
}

// target is the partition a commit changes: a new one, not yet listed, for Create.
// A fenced partition is still in the map, so it is neither changed nor made anew.
func (b *Backend) target(c *storage.Commit, now time.Time) (*partition, error) {
	part, ok := b.partitions[c.Partition]
	switch {
	case c.Create && ok:
		return nil, storage.ErrExists
	case c.Create:
		return &partition{items: make(map[storage.Key]storage.Item), head: storage.Head{
			Partition: c.Partition, Incarnation: c.Incarnation, State: storage.Active, CreatedAt: now,
		}}, nil
	case !ok || part.head.State != storage.Active || part.head.Incarnation != c.Incarnation:
		return nil, storage.ErrNoHead
	}
	return part, nil
}

// check reports the first expectation of c that part does not meet.
// An absent item is at version 0, which is what the map gives for it.
func check(part *partition, c *storage.Commit) error {
	if c.Expect.Set && c.Expect.Value != part.head.Revision {
		return fmt.Errorf("%w: revision is %d, not %d", storage.ErrConflict, part.head.Revision, c.Expect.Value)
	}
	// Requirements come before writes; which of several is named is not part of the contract.
	met := func(k storage.Key, e storage.Expectation) error {
		if version := part.items[k].Version; !e.Met(version) {
			return fmt.Errorf("%w: %s %q is at version %d", storage.ErrConflict, k.Kind, k.ID, version)
		}
		return nil
	}
	for _, r := range c.Require {
		if err := met(r.Key, r.Expect); err != nil {
			return err
		}
	}
	for _, w := range c.Writes {
		if err := met(w.Key, w.Expect); err != nil {
			return err
		}
	}
	return nil
}

// record appends an audit row for what just happened to the head's partition.
// Audit rows are never removed, so the last one is the end of the record as well.
func (b *Backend) record(head storage.Head, at time.Time, actor, operation string, writes int) {
	var chain [32]byte
	row := storage.AuditRow{
		Seq: 1, At: at, Actor: actor, Operation: operation, Partition: head.Partition,
		Incarnation: head.Incarnation, Revision: head.Revision, Writes: writes, Head: head.Chain,
	}
	if len(b.audit) > 0 {
		last := b.audit[len(b.audit)-1]
		row.Seq, chain = last.Seq+1, last.Chain
	}
	row.Chain = storage.AuditNext(chain, row)
	b.audit = append(b.audit, row)
}

// publish appends a feed row, and lets go of those past their retention.
// Rows are in the order of time, so those that go are at the front.
func (b *Backend) publish(head storage.Head, at time.Time) {
	b.feedSeq++
	b.feed = append(b.feed, feedRow{at: at, FeedRow: storage.FeedRow{
		Seq: b.feedSeq, Partition: head.Partition, Incarnation: head.Incarnation,
		Revision: head.Revision, Fenced: head.State == storage.Fenced,
	}})
	keep := 0
	for keep < len(b.feed) && at.Sub(b.feed[keep].at) > storage.FeedRetention {
		keep++
	}
	b.feed = b.feed[keep:]
}

// Follow implements [storage.Backend].
func (b *Backend) Follow(f func(storage.Change)) (stop func()) { return b.followers.Add(f) }

// Close implements [storage.Backend].
// What was stored stays reachable for nobody; calls under way have the lock, and are waited for by taking it.
func (b *Backend) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

// cloneItem keeps the backend's body apart from the one handed out.
func cloneItem(item storage.Item) storage.Item {
	item.Body = bytes.Clone(item.Body)
	return item
}

// sortItems orders by kind, then id, both as bytes, which is how Go compares strings.
func sortItems(items []storage.Item) {
	slices.SortFunc(items, func(x, y storage.Item) int {
		return cmp.Or(cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.ID, y.ID))
	})
}
