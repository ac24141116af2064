package sqlite

import (
	"context"
	"crypto/rand"
	"fmt"
	"math"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// commit is a storage.Commit with what can be computed before the writer's turn.
type commit struct {
	storage.Commit
	salts       [][]byte
	commitments [][32]byte
	keys        []storage.Key
}

// saltSize is in bytes: 128 bits, the least that [storage.VerifyHistoryRow] accepts.
const saltSize = 16

// newCommit hashes and draws the salts in the caller's goroutine, so that the one that writes does not spend
// its time on it.
func newCommit(c storage.Commit) *commit {
	prepared := &commit{Commit: c,
		salts:       make([][]byte, len(c.Writes)),
		commitments: make([][32]byte, len(c.Writes)),
		keys:        make([]storage.Key, len(c.Writes)),
	}
	random := make([]byte, saltSize*len(c.Writes))
	_, _ = rand.Read(random) // never fails, see crypto/rand
	for n, write := range c.Writes {
		salt := random[n*saltSize : (n+1)*saltSize]
		prepared.salts[n], prepared.keys[n] = salt, write.Key
		prepared.commitments[n] = storage.Commitment(salt, write.Key, write.Body, write.Body == nil)
	}
	return prepared
}

// Commit implements [storage.Backend].
// revision is written by the writer's goroutine and read here only after it answered.
func (b *Backend) Commit(ctx context.Context, c storage.Commit) (uint64, error) {
	if err := c.Validate(); err != nil {
		return 0, err
	}
	prepared, revision := newCommit(c), uint64(0)
	err := b.submit(ctx, &job{apply: func(w *writer, now time.Time) (_ []storage.Change, err error) {
		if revision, err = w.commit(prepared, now); err != nil {
			return nil, err
		}
		return []storage.Change{{
			Partition: c.Partition, Incarnation: c.Incarnation, Revision: revision, Keys: prepared.keys,
		}}, nil
	}})
	if err != nil {
		return 0, err
	}
	return revision, nil
}

// commit is one of several in a database transaction; its savepoint is taken back alone if it fails.
func (w *writer) commit(c *commit, now time.Time) (uint64, error) {
	// The order of the refusals is the contract's: who names the wrong incarnation learns nothing about revisions.
	head, err := w.target(c, now)
	if err != nil {
		return 0, err
	}
	if c.Expect.Set && c.Expect.Value != head.Revision {
		return 0, fmt.Errorf("%w: revision is %d, not %d", storage.ErrConflict, head.Revision, c.Expect.Value)
	}
	for _, r := range c.Require {
		if _, err := w.check(c, r.Key, r.Expect); err != nil {
			return 0, err
		}
	}
	// All is checked before anything is written.
	replaced := make([]stored, len(c.Writes))
	for n, write := range c.Writes {
		if replaced[n], err = w.check(c, write.Key, write.Expect); err != nil {
			return 0, err
		}
	}
	// The head goes into the same savepoint as rows and records; nothing of them is ever seen without the others.
	head.Revision++
	for n := range c.Writes {
		if err := w.write(head, c, n, replaced[n], now); err != nil {
			return 0, err
		}
	}
	head.Chain = storage.ChainNext(head.Chain, head.Revision, c.commitments)
	if err := w.putHead(head); err != nil {
		return 0, err
	}
	if err := w.record(head.Head, now, c.Actor, c.Operation, len(c.Writes)); err != nil {
		return 0, err
	}
	return head.Revision, w.publish(head.Head, now)
}

// target is the head a commit moves: a new one for Create.
// A fenced partition still has its head, so neither a commit nor a creation gets past it.
func (w *writer) target(c *commit, now time.Time) (*headRow, error) {
	head, ok, err := w.head(c.Partition)
	switch {
	case err != nil:
		return nil, err
	case c.Create && ok:
		return nil, storage.ErrExists
	case c.Create:
		return &headRow{Head: storage.Head{
			Partition: c.Partition, Incarnation: c.Incarnation, State: storage.Active, CreatedAt: now,
		}}, nil
	case !ok || head.State != storage.Active || head.Incarnation != c.Incarnation:
		return nil, storage.ErrNoHead
	}
	return &head, nil
}

// head reads within the transaction, so it sees what jobs before this one in the group have written.
func (w *writer) head(p storage.Partition) (head headRow, ok bool, err error) {
	ok, err = w.stmts.head.one(func(r *row) (err error) {
		head, err = r.head()
		return err
	}, []byte(p.String()))
	return head, ok, err
}

// stored is what is known of an item about to be replaced.
type stored struct {
	version uint64 // 0: absent
	sum     uint64
}

// check reads an item's version and holds it against an expectation. A partition without a head has
// no items, since the head is erased last.
func (w *writer) check(c *commit, k storage.Key, e storage.Expectation) (s stored, err error) {
	if !c.Create {
		_, err = w.stmts.version.one(func(r *row) error {
			s = stored{r.number(), r.number()}
			return r.err
		}, []byte(c.Partition.String()), []byte(k.Kind), []byte(k.ID))
	}
	if err == nil && !e.Met(s.version) {
		err = fmt.Errorf("%w: %s %q is at version %d", storage.ErrConflict, k.Kind, k.ID, s.version)
	}
	return s, err
}

// write carries out the n-th write of c: the item, its history row, and head's sums of its items.
// The digest is a sum modulo 2^64: an item's share can be taken out and put in without reading the others.
// The deletion of what is absent has a history row and no other effect.
func (w *writer) write(head *headRow, c *commit, n int, old stored, now time.Time) error {
	write := c.Writes[n]
	p, kind, id := []byte(c.Partition.String()), []byte(write.Key.Kind), []byte(write.Key.ID)
	if old.version != 0 {
		head.items--
		head.digest -= old.sum
	}
	if write.Body != nil {
		sum := itemSum(c.Partition, storage.Item{Key: write.Key, Version: head.Revision, Body: write.Body})
		head.items++
		head.digest += sum
		if _, err := w.stmts.upsertItem.exec(p, kind, id, int64(head.Revision), int64(sum), write.Body); err != nil {
			return err
		}
	} else if old.version != 0 {
		if _, err := w.stmts.deleteItem.exec(p, kind, id); err != nil {
			return err
		}
	}
	_, err := w.stmts.history.exec(p, int64(head.Revision), int64(n), c.commitments[n][:], now.UnixNano(),
		int64(flag(write.Body == nil)), c.salts[n], kind, id, write.Body)
	return err
}

// putHead writes the head as h has it. The upsert leaves incarnation and creation time of a head that is there.
func (w *writer) putHead(h *headRow) error {
	_, err := w.stmts.upsertHead.exec([]byte(h.Partition.String()), h.Incarnation[:], int64(h.State),
		int64(h.Revision), h.Chain[:], h.CreatedAt.UnixNano(), int64(h.items), int64(h.digest), int64(h.sum()))
	return err
}

// record appends an audit row for what just happened to the head's partition.
// It moves w.next only. The counter row is written once, at the end of the transaction.
func (w *writer) record(head storage.Head, at time.Time, actor, operation string, writes int) error {
	row := storage.AuditRow{
		Seq: w.next.auditSeq + 1, At: at, Actor: actor, Operation: operation, Partition: head.Partition,
		Incarnation: head.Incarnation, Revision: head.Revision, Writes: writes, Head: head.Chain,
	}
	row.Chain = storage.AuditNext(w.next.auditChain, row)
	_, err := w.stmts.audit.exec(int64(row.Seq), at.UnixNano(), []byte(actor), []byte(operation),
		[]byte(head.Partition.String()), head.Incarnation[:], int64(row.Revision), int64(writes), row.Head[:], row.Chain[:])
	w.next.auditSeq, w.next.auditChain = row.Seq, row.Chain
	return err
}

// publish appends a feed row.
// Seqs have no gaps between commits, because a savepoint that is taken back takes back w.next as well.
func (w *writer) publish(head storage.Head, at time.Time) error {
	w.next.feedSeq++
	row := storage.FeedRow{
		Seq: w.next.feedSeq, Partition: head.Partition, Incarnation: head.Incarnation,
		Revision: head.Revision, Fenced: head.State == storage.Fenced,
	}
	_, err := w.stmts.feed.exec(int64(row.Seq), []byte(head.Partition.String()), head.Incarnation[:],
		int64(row.Revision), int64(flag(row.Fenced)), at.UnixNano(), int64(feedSum(row, at)))
	return err
}

// gone is what followers are told when a partition is fenced, and again when it is erased.
func gone(head storage.Head) []storage.Change {
	return []storage.Change{{
		Partition: head.Partition, Incarnation: head.Incarnation, Revision: head.Revision, Fenced: true,
	}}
}

// valid refuses the zero partition before it gets any further.
func valid(p storage.Partition) error {
	_, err := storage.ParsePartition(p.String())
	return err
}

// Fence implements [storage.Backend].
// A second Fence of the same incarnation writes nothing and tells nobody.
func (b *Backend) Fence(ctx context.Context, p storage.Partition, i copse.Incarnation, actor string) error {
	if err := valid(p); err != nil {
		return err
	}
	return b.submit(ctx, &job{apply: func(w *writer, now time.Time) ([]storage.Change, error) {
		head, ok, err := w.head(p)
		switch {
		case err != nil:
			return nil, err
		case !ok || head.Incarnation != i:
			return nil, storage.ErrNoHead
		case head.State == storage.Fenced:
			return nil, nil
		}
		head.State = storage.Fenced
		if err := w.putHead(&head); err != nil {
			return nil, err
		}
		if err := w.record(head.Head, now, actor, storage.OperationFence, 0); err != nil {
			return nil, err
		}
		return gone(head.Head), w.publish(head.Head, now)
	}})
}

// Erase implements [storage.Backend].
// It is one step. Unless it is the last, nobody is told and nothing is recorded; the last one is answered
// after the log was truncated, or found to have a reader or a backup in the way.
func (b *Backend) Erase(ctx context.Context, p storage.Partition, i copse.Incarnation, limit int) (done bool, err error) {
	if err := valid(p); err != nil {
		return false, err
	}
	if limit < 1 {
		return false, fmt.Errorf("%w: an erase limit of %d", storage.ErrInvalid, limit)
	}
	j := &job{}
	j.apply = func(w *writer, now time.Time) (_ []storage.Change, err error) {
		head, ok, err := w.head(p)
		switch {
		case err != nil:
			return nil, err
		case !ok:
			done = true
			return nil, nil
		case head.Incarnation != i:
			return nil, storage.ErrNoHead
		case head.State != storage.Fenced:
			return nil, storage.ErrConflict
		}
		if done, err = w.erase(p, limit); err != nil || !done {
			return nil, err
		}
		// The log still has pages with what was erased.
		j.truncate = true
		return gone(head.Head), w.record(head.Head, now, storage.ActorSystem, storage.OperationErase, 0)
	}
	err = b.submit(ctx, j)
	return done && err == nil, err
}

// erase removes up to limit rows, the head when nothing else is left.
// The head goes last and alone: as long as it stands, nobody can create a successor among the remains, and
// an erasure cut short by a crash is found by its head.
func (w *writer) erase(p storage.Partition, limit int) (done bool, err error) {
	name, left := []byte(p.String()), int64(limit)
	for _, s := range []*stmt{w.stmts.eraseItems, w.stmts.eraseHistory, w.stmts.eraseFeed} {
		removed, err := s.exec(name, left)
		if err != nil {
			return false, err
		}
		if left -= removed; left <= 0 {
			return false, nil
		}
	}
	_, err = w.stmts.eraseHead.exec(name)
	return err == nil, err
}

// forgetStep bounds the history rows that one step of Forget changes.
const forgetStep = 2000

// Forget implements [storage.Backend].
// Each step is a transaction, and the last one that finds rows records the number of all of them.
func (b *Backend) Forget(ctx context.Context, p storage.Partition, k storage.Key, upTo uint64) error {
	if err := valid(p); err != nil {
		return err
	}
	last := int64(min(upTo, math.MaxInt64))
	if upTo == 0 {
		last = math.MaxInt64
	}
	for total, done := int64(0), false; !done; {
		var removed int64 // of the last run of apply, which may run twice
		j := &job{}
		j.apply = func(w *writer, now time.Time) ([]storage.Change, error) {
			head, ok, err := w.head(p)
			if err != nil || !ok {
				removed = 0
				return nil, err
			}
			removed, err = w.stmts.forget.exec([]byte(p.String()), []byte(k.Kind), []byte(k.ID), last, int64(forgetStep))
			// Not the last step, or there was nothing to forget at all, which leaves no trace.
			if err != nil || removed == forgetStep || total+removed == 0 {
				return nil, err
			}
			// The log and the pages it has not reached yet still have what was forgotten.
			j.tidy = true
			return nil, w.record(head.Head, now, storage.ActorSystem, storage.OperationForget, int(total+removed))
		}
		if err := b.submit(ctx, j); err != nil {
			return err
		}
		total += removed
		done = removed < forgetStep
	}
	return nil
}
