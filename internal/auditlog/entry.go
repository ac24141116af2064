// Package auditlog reads the audit log: who changed what, when, in which request, and which uses of access
// keys failed.
//
// Storage writes a row for every commit, in the commit. A row holds ids, counts and hashes, and nothing of
// what was written; each is chained to the one before. What a commit wrote is told by the history of its
// partition, as commitments of what was there before and after. When that is erased, with a policy store or
// a key, the row stays, so that the chain verifies, and nobody learns any more what it was about.
//
// [Log] reads for a caller, who sees what its key covers. [Verifier] needs no server: it holds rows against
// their chain, and the commitments in them against the rows.
package auditlog

import (
	"context"
	"errors"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage"
)

// Entry is a row of the audit log with what is known of the change.
type Entry struct {
	Number        uint64 // counts from 1, without gaps
	At            time.Time
	Actor         string // id of an access key, "system" for copse itself, "user" for one who chose their tenant
	RequestID     string // empty when there was no request
	Operation     string
	PolicyStoreID copse.PolicyStoreID // empty: the directory
	Incarnation   copse.Incarnation
	Revision      uint64   // of the policy store or directory, after the change
	Writes        int      // how many items were written
	Head          [32]byte // of the history chain, after the change
	Chain         [32]byte // of the audit rows
	// Changes has an element for each write, or none: what was written is erased, or nothing was.
	Changes []Change
	// FailedUses is what a row of failed uses of access keys is the record of.
	FailedUses *access.FailedUses
}

// Change is one item that was written.
type Change struct {
	Kind, ID string // empty once erased
	Deleted  bool
	Before   *[32]byte // commitment to what it was; nil: it was not there, or that is erased
	After    [32]byte  // commitment to what it became
}

// Erased reports whether only the commitment is left.
func (c *Change) Erased() bool { return c.Kind == "" }

// partition is the one the row is of, whether or not it still exists.
func (e *Entry) partition() storage.Partition {
	if e.PolicyStoreID == "" {
		return storage.Directory()
	}
	return storage.PolicyStore(e.PolicyStoreID)
}

// row is the entry as it was hashed.
func (e *Entry) row() storage.AuditRow {
	return storage.AuditRow{
		Seq: e.Number, At: e.At, Actor: access.FormatActor(e.Actor, e.RequestID), Operation: e.Operation, Partition: e.partition(),
		Incarnation: e.Incarnation, Revision: e.Revision, Writes: e.Writes, Head: e.Head, Chain: e.Chain,
	}
}

// newEntry is a row without its changes, which are in the history; row turns it back, to the byte.
func newEntry(r *storage.AuditRow) Entry {
	e := Entry{
		Number: r.Seq, At: r.At, Operation: r.Operation, Incarnation: r.Incarnation,
		Revision: r.Revision, Writes: r.Writes, Head: r.Head, Chain: r.Chain,
	}
	e.Actor, e.RequestID = access.ParseActor(r.Actor)
	e.PolicyStoreID, _ = r.Partition.PolicyStoreID()
	return e
}

// isCommit tells the rows of commits from those that storage writes when it ends or erases something.
func (e *Entry) isCommit() bool {
	switch e.Operation {
	case storage.OperationFence, storage.OperationErase, storage.OperationForget:
		return false
	}
	return true
}

// readChanges adds what the history says of the commit. The head is looked at last: a policy store of the
// same id that was made meanwhile has another incarnation, and what was read is not this one's.
func (e *Entry) readChanges(ctx context.Context, b storage.Backend) error {
	if !e.isCommit() || e.Revision == 0 {
		return nil
	}
	// A page of one row holds the whole commit. Another revision, or another number of rows, means that the history
	// is another's or gone: the row is told without changes then.
	p := e.partition()
	rows, err := b.History(ctx, p, e.Revision-1, 1)
	if err != nil || len(rows) != e.Writes || rows[0].Revision != e.Revision {
		return err
	}
	changes := make([]Change, len(rows))
	var failed *access.FailedUses
	for n, row := range rows {
		changes[n] = Change{Kind: string(row.Key.Kind), ID: row.Key.ID, Deleted: row.Deleted, After: row.Commitment}
		if row.Salt == nil {
			continue
		}
		if failed, err = access.ParseFailedUses(p, row.Key, row.Body); err != nil {
			return err
		}
		former, err := b.Former(ctx, p, row.Key, e.Revision)
		switch {
		case err == nil && !former.Deleted:
			changes[n].Before = &former.Commitment
		case err != nil && !errors.Is(err, storage.ErrNotFound):
			return err
		}
	}
	head, err := b.Head(ctx, p)
	if errors.Is(err, storage.ErrNotFound) || err == nil && head.Incarnation != e.Incarnation {
		return nil
	}
	if err != nil {
		return err
	}
	e.Changes, e.FailedUses = changes, failed
	return nil
}
