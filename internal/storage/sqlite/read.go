package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"

	"github.com/copse-authz/copse/internal/storage"
)

// reader is a connection that only reads, for one call at a time.
// Statements and their row buffers belong to the connection; who has taken it from Backend.readers has them alone.
type reader struct {
	conn                                                                                      *conn
	begin, end                                                                                *stmt
	head, heads, item, kind, items, past, commit, former, audit, chain, newest, ended, feeder *stmt
}

// openReader makes a connection that SQLite itself keeps from writing (query_only), with all its statements.
func openReader(path string, parameters url.Values) (*reader, error) {
	c, err := openConn(path, parameters, "busy_timeout = 5000", "query_only = ON", "cell_size_check = ON",
		"trusted_schema = OFF", "temp_store = MEMORY", "cache_size = -8192")
	if err != nil {
		return nil, err
	}
	r := &reader{conn: c}
	for _, p := range []struct {
		to   **stmt
		text string
	}{
		{&r.begin, "BEGIN"}, {&r.end, "ROLLBACK"}, {&r.head, selectHead}, {&r.heads, selectHeads},
		{&r.item, selectItem}, {&r.kind, selectKind}, {&r.items, selectItems}, {&r.past, selectPast},
		{&r.commit, selectCommit}, {&r.former, selectFormer}, {&r.ended, selectCounter}, {&r.audit, selectAudit}, {&r.chain, selectChain}, {&r.newest, selectNewest}, {&r.feeder, selectFeed},
	} {
		if *p.to, err = c.prepare(p.text); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	return r, nil
}

// read lends a connection to f, within a transaction, so that f sees one state however many
// statements it needs. ctx bounds the wait for the connection.
// What f returns comes back under the contract's names (see translate). f must not call the Backend: with all
// connections lent out, it would wait for its own.
func (b *Backend) read(ctx context.Context, f func(r *reader) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.enter(); err != nil {
		return err
	}
	defer b.leave()
	var r *reader
	select {
	case r = <-b.readers:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { b.readers <- r }()
	// A deferred transaction: the state it sees is that of its first statement.
	if _, err := r.begin.exec(); err != nil {
		// The one before may still be open, if it could not be ended: then it is now, or this reader would be lost.
		_, _ = r.end.exec()
		if _, err := r.begin.exec(); err != nil {
			return b.translate(err)
		}
	}
	ended := false
	defer func() {
		if !ended { // f panicked
			_, _ = r.end.exec()
		}
	}()
	err := f(r)
	ended = true
	if _, endErr := r.end.exec(); err == nil {
		err = endErr
	}
	return b.translate(err)
}

// readActive is read for a partition that must be there and not fenced; else storage.ErrNotFound.
// The head is read in f's transaction, so f's rows are of that revision.
func (b *Backend) readActive(ctx context.Context, p storage.Partition, f func(r *reader, head headRow) error) error {
	if err := valid(p); err != nil {
		return err
	}
	return b.read(ctx, func(r *reader) error {
		head, ok, err := r.getHead(p)
		if err != nil {
			return err
		}
		if !ok || head.State != storage.Active {
			return storage.ErrNotFound
		}
		return f(r, head)
	})
}

// getHead reads a head whatever its state; ok is false when there is none.
func (r *reader) getHead(p storage.Partition) (head headRow, ok bool, err error) {
	ok, err = r.head.one(func(r *row) (err error) {
		head, err = r.head()
		return err
	}, []byte(p.String()))
	return head, ok, err
}

// position turns "after this" into what SQLite can compare: its numbers end at half of uint64.
func position(after uint64) int64 { return int64(min(after, math.MaxInt64)) }

// Head implements [storage.Backend].
func (b *Backend) Head(ctx context.Context, p storage.Partition) (head storage.Head, err error) {
	if err := valid(p); err != nil {
		return storage.Head{}, err
	}
	err = b.read(ctx, func(r *reader) error {
		found, ok, err := r.getHead(p)
		if err == nil && !ok {
			err = storage.ErrNotFound
		}
		head = found.Head
		return err
	})
	if err != nil {
		return storage.Head{}, err
	}
	return head, nil
}

// Get implements [storage.Backend].
func (b *Backend) Get(ctx context.Context, p storage.Partition, k storage.Key) (item storage.Item, err error) {
	err = b.readActive(ctx, p, func(r *reader, _ headRow) error {
		ok, err := r.item.one(func(r *row) (err error) {
			item, _, err = r.item(p)
			return err
		}, []byte(p.String()), []byte(k.Kind), []byte(k.ID))
		if err == nil && !ok {
			err = storage.ErrNotFound
		}
		return err
	})
	if err != nil {
		return storage.Item{}, err
	}
	return item, nil
}

// Scan implements [storage.Backend].
// It verifies each row it hands out. That none is missing is what Load and Whole can tell, by the head's sums.
func (b *Backend) Scan(ctx context.Context, p storage.Partition, kind storage.Kind, after string, limit int) (items []storage.Item, err error) {
	err = b.readActive(ctx, p, func(r *reader, _ headRow) error {
		return r.kind.query(func(r *row) error {
			item, _, err := r.item(p)
			items = append(items, item)
			return err
		}, []byte(p.String()), []byte(kind), []byte(after), int64(max(limit, 0)))
	})
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return items, nil
}

// Load implements [storage.Backend].
// All or nothing: a damaged or missing item makes the whole partition [ErrCorrupt], because a forbid may be
// what is missing.
func (b *Backend) Load(ctx context.Context, p storage.Partition) (snapshot storage.Snapshot, err error) {
	err = b.readActive(ctx, p, func(r *reader, head headRow) error {
		snapshot.Head = head.Head
		return r.all(p, head, func(item storage.Item) { snapshot.Items = append(snapshot.Items, item) })
	})
	if err != nil {
		return storage.Snapshot{}, err
	}
	return snapshot, nil
}

// Whole implements [storage.Backend].
func (b *Backend) Whole(ctx context.Context, p storage.Partition) error {
	err := b.readActive(ctx, p, func(r *reader, head headRow) error { return r.all(p, head, func(storage.Item) {}) })
	if errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	return err
}

// all hands out every item of a partition; at the end, an error if they are not those of the head.
func (r *reader) all(p storage.Partition, head headRow, each func(storage.Item)) error {
	count, digest := uint64(0), uint64(0)
	err := r.items.query(func(r *row) error {
		item, sum, err := r.item(p)
		if err == nil {
			each(item)
		}
		count, digest = count+1, digest+sum
		return err
	}, []byte(p.String()))
	if err == nil && (count != head.items || digest != head.digest) {
		err = corruptf("items of %v are not those of the head: %d, should be %d", p, count, head.items)
	}
	return err
}

// Heads implements [storage.Backend].
func (b *Backend) Heads(ctx context.Context, after string, limit int) (heads []storage.Head, err error) {
	// Policy stores have names between "p/" and "p0"; nothing is named "p/" itself.
	after = max(after, "p/")
	err = b.read(ctx, func(r *reader) error {
		return r.heads.query(func(r *row) error {
			head, err := r.head()
			heads = append(heads, head.Head)
			return err
		}, []byte(after), int64(max(limit, 0)))
	})
	if err != nil {
		return nil, err
	}
	return heads, nil
}

// History implements [storage.Backend].
// Each row is held against its own commitment. The chain through them is for [storage.VerifyHistory].
func (b *Backend) History(ctx context.Context, p storage.Partition, after uint64, limit int) (rows []storage.HistoryRow, err error) {
	if limit < 1 {
		return nil, valid(p)
	}
	err = b.readActive(ctx, p, func(r *reader, _ headRow) error {
		add := func(r *row) error {
			h, err := r.history()
			rows = append(rows, h)
			return err
		}
		// One row more tells whether the last commit is complete.
		if err := r.past.query(add, []byte(p.String()), position(after), int64(limit)+1); err != nil {
			return err
		}
		// The first commit alone is over the limit, and is read to its end.
		if len(rows) > limit && rows[0].Revision == rows[limit].Revision {
			first := rows[0].Revision
			rows = rows[:0]
			return r.commit.query(add, []byte(p.String()), int64(first))
		}
		rows = storage.WholeCommits(rows, limit)
		return nil
	})
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return rows, nil
}

// Former implements [storage.Backend].
// The index has no rows that were forgotten, so those are never found.
func (b *Backend) Former(ctx context.Context, p storage.Partition, k storage.Key, before uint64) (found storage.HistoryRow, err error) {
	err = b.readActive(ctx, p, func(r *reader, _ headRow) error {
		ok, err := r.former.one(func(r *row) (err error) {
			found, err = r.history()
			return err
		}, []byte(p.String()), []byte(k.Kind), []byte(k.ID), position(before))
		if err == nil && !ok {
			err = storage.ErrNotFound
		}
		return err
	})
	if err != nil {
		return storage.HistoryRow{}, err
	}
	return found, nil
}

// AuditEnd implements [storage.Backend].
func (b *Backend) AuditEnd(ctx context.Context) (seq uint64, chain [32]byte, err error) {
	err = b.read(ctx, func(r *reader) error {
		ok, err := r.ended.one(func(r *row) error {
			_ = r.number() // of the feed
			seq = r.number()
			r.fixed(chain[:])
			return r.err
		})
		if err == nil && !ok {
			err = corruptf("there is no end of the audit rows")
		}
		return err
	})
	return seq, chain, err
}

// Audit implements [storage.Backend].
// The chain is verified from the row before the page on: a row that was changed, taken out or put in between
// ends in [ErrCorrupt]. Rows missing at the end are noticed by [Backend.AuditEnd] only.
func (b *Backend) Audit(ctx context.Context, after uint64, limit int) (rows []storage.AuditRow, err error) {
	err = b.read(ctx, func(r *reader) error {
		var chain [32]byte
		if after > 0 {
			if _, err := r.chain.one(func(r *row) error {
				r.fixed(chain[:])
				return r.err
			}, position(after)); err != nil {
				return err
			}
		}
		seq := after
		return r.audit.query(func(r *row) error {
			a, err := r.audit()
			if err != nil {
				return err
			}
			if seq++; a.Seq != seq || a.Chain != storage.AuditNext(chain, a) {
				return fmt.Errorf("%w: audit chain at row %d", ErrCorrupt, seq)
			}
			chain = a.Chain
			rows = append(rows, a)
			return nil
		}, position(after), int64(max(limit, 0)))
	})
	if err != nil {
		return nil, err
	}
	return rows, nil
}

// Feed implements [storage.Backend].
// Gaps are no damage: rows leave with their partition's erasure, and when they are past their retention.
func (b *Backend) Feed(ctx context.Context, after uint64, limit int) (rows []storage.FeedRow, err error) {
	err = b.read(ctx, func(r *reader) error {
		return r.feeder.query(func(r *row) error {
			f, err := r.feed()
			rows = append(rows, f)
			return err
		}, position(after), int64(max(limit, 0)))
	})
	if err != nil {
		return nil, err
	}
	return rows, nil
}
