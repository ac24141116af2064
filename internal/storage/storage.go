// Package storage is the persistence contract: items, in partitions, changed by commits.
//
// A partition is one policy store, or the directory of all of them. It has a head (incarnation,
// state, revision), items (kind, id, version, body) and a history. Everything a policy store owns
// lives in its partition, so that isolation, erasure and a consistent snapshot are one key prefix.
//
// The contract is narrow on purpose: a backend is a few hundred lines, and storagetest proves each of
// them the same way. Nothing here knows what a policy is; bodies are bytes.
package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/copse-authz/copse"
)

// Partition names the unit of atomicity. It can only be made by [PolicyStore] and [Directory], so a
// key that belongs to no partition can't be written down.
type Partition struct{ name string }

// PolicyStore is the partition of one policy store.
func PolicyStore(id copse.PolicyStoreID) Partition { return Partition{"p/" + string(id)} }

// Directory is the partition of what spans policy stores: tenants, issuers, access keys, and the row
// that says a policy store exists.
func Directory() Partition { return Partition{"directory"} }

// String is the partition's name as backends store it. The zero Partition's is empty, and every
// backend refuses it.
func (p Partition) String() string { return p.name }

// ParsePartition reads what String wrote; for backends only, which have names to turn back.
func ParsePartition(name string) (Partition, error) {
	p := Partition{name}
	if _, ok := p.PolicyStoreID(); ok || p == Directory() {
		return p, nil
	}
	return Partition{}, fmt.Errorf("%w: %q names no partition", ErrInvalid, name)
}

// PolicyStoreID is the id of the policy store whose partition this is; false for the directory.
func (p Partition) PolicyStoreID() (copse.PolicyStoreID, bool) {
	if len(p.name) > 2 && p.name[:2] == "p/" {
		return copse.PolicyStoreID(p.name[2:]), true
	}
	return "", false
}

// Kind groups items of a partition: "policy", "schema", "tenant".
type Kind string

// Key names an item inside its partition. IDs are compared and ordered as bytes.
type Key struct {
	Kind Kind
	ID   string
}

// Item is a stored value. Version is the partition revision of the commit that wrote it.
type Item struct {
	Key
	Version uint64
	Body    []byte
}

// Expectation is what must hold of a key for a commit to be taken.
type Expectation struct {
	any     bool
	version uint64
}

// Any takes the key as it is, present or absent.
func Any() Expectation { return Expectation{any: true} }

// Absent expects that there is no such item.
func Absent() Expectation { return Expectation{} }

// Version expects the item at exactly this version.
func Version(v uint64) Expectation { return Expectation{version: v} }

// Met reports whether an item at version (0 = absent) satisfies e.
func (e Expectation) Met(version uint64) bool { return e.any || e.version == version }

// Write puts an item, or deletes it when Body is nil. The zero Expect means absent.
type Write struct {
	Key    Key
	Body   []byte
	Expect Expectation
}

// Requirement is an item the commit depends on but does not write: the schema a policy was validated
// against, the settings it was validated under.
type Requirement struct {
	Key    Key
	Expect Expectation
}

// Commit is one atomic change of one partition.
type Commit struct {
	Partition   Partition
	Incarnation copse.Incarnation // must be the head's; with Create, becomes the head's
	Create      bool              // make the partition; refused when it has a head
	Expect      Revision          // the revision the partition must be at, when set
	Require     []Requirement
	Writes      []Write

	Actor     string // who, for the audit row: an access key id, "system"; and after a space the request it was for
	Operation string // what, for the audit row: "CreatePolicy"
}

// Validate finds what is wrong with a commit before any backend looks at its data: ErrInvalid or
// ErrTooLarge. Every backend calls it first, so that they all refuse the same commits.
func (c *Commit) Validate() error {
	if _, err := ParsePartition(c.Partition.name); err != nil {
		return err
	}
	if c.Create && c.Incarnation.IsZero() {
		return fmt.Errorf("%w: a partition can't be made with the zero incarnation", ErrInvalid)
	}
	if len(c.Writes) == 0 {
		return fmt.Errorf("%w: a commit without writes", ErrInvalid)
	}
	if len(c.Writes) > MaxCommitWrites {
		return fmt.Errorf("%w: %d writes, at most %d", ErrTooLarge, len(c.Writes), MaxCommitWrites)
	}
	size, seen := 0, make(map[Key]struct{}, len(c.Writes))
	for _, w := range c.Writes {
		if w.Key.Kind == "" {
			return fmt.Errorf("%w: a write without a kind", ErrInvalid)
		}
		if _, twice := seen[w.Key]; twice {
			return fmt.Errorf("%w: %s %q is written twice", ErrInvalid, w.Key.Kind, w.Key.ID)
		}
		seen[w.Key] = struct{}{}
		size += len(w.Key.Kind) + len(w.Key.ID) + len(w.Body)
	}
	for _, r := range c.Require {
		if r.Key.Kind == "" {
			return fmt.Errorf("%w: a requirement without a kind", ErrInvalid)
		}
	}
	if size > MaxCommitBytes {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, size, MaxCommitBytes)
	}
	return nil
}

// Revision is an optional expected revision.
type Revision struct {
	Set   bool
	Value uint64
}

// Limits of one commit.
const (
	MaxCommitWrites = 10_000
	MaxCommitBytes  = 16 << 20 // keys and bodies
)

// State of a head.
type State uint8

// A fenced partition takes no commit, ever again; it is on its way to being erased.
const (
	Active State = iota + 1
	Fenced
)

// Head is a partition's first row.
type Head struct {
	Partition   Partition
	Incarnation copse.Incarnation
	State       State
	Revision    uint64
	Chain       [32]byte // of the history, see [ChainNext]
	CreatedAt   time.Time
}

// Snapshot is a whole partition at one revision, items ordered by kind, then id.
type Snapshot struct {
	Head  Head
	Items []Item
}

// HistoryRow is one write of one commit. Forgotten rows keep Commitment only.
type HistoryRow struct {
	Revision   uint64
	N          int // position in the commit
	Commitment [32]byte
	Salt       []byte // nil once forgotten
	Key        Key
	Body       []byte // nil for a deletion, and once forgotten
	Deleted    bool
	At         time.Time
}

// AuditRow is one line of the operator's own record: ids, counts and heads, never bodies.
type AuditRow struct {
	Seq         uint64
	At          time.Time
	Actor       string
	Operation   string
	Partition   Partition
	Incarnation copse.Incarnation
	Revision    uint64
	Writes      int
	Head        [32]byte // the partition's history chain after the commit
	Chain       [32]byte // of the audit rows, see [AuditNext]
}

// What backends themselves write into audit rows.
const (
	ActorSystem     = "system"
	OperationFence  = "Fence"
	OperationErase  = "Erase"
	OperationForget = "Forget"
)

// WholeCommits cuts rows, which are in order, to at most limit without cutting a commit in two; the
// first commit stays whole whatever its size. The last commit in rows must be complete.
func WholeCommits(rows []HistoryRow, limit int) []HistoryRow {
	if limit < 1 || len(rows) <= limit {
		return rows[:min(len(rows), max(limit, 0))]
	}
	end := limit
	for end > 0 && rows[end-1].Revision == rows[end].Revision {
		end--
	}
	if end == 0 {
		for end < len(rows) && rows[end].Revision == rows[0].Revision {
			end++
		}
	}
	return rows[:end]
}

// Change says that a partition moved. Keys are what a commit wrote; nil when all of it may have
// changed (the partition was fenced, or erased).
type Change struct {
	Partition   Partition
	Incarnation copse.Incarnation
	Revision    uint64
	Keys        []Key
	Fenced      bool
}

// FeedRow is a Change as it is stored, for followers that were away. It carries no keys.
type FeedRow struct {
	Seq         uint64
	Partition   Partition
	Incarnation copse.Incarnation
	Revision    uint64
	Fenced      bool
}

// What a backend answers besides success. Anything else is a failure of the backend.
var (
	ErrNotFound = errors.New("storage: not found")
	// ErrNoHead: the partition does not exist, is fenced, or is of another incarnation.
	ErrNoHead = errors.New("storage: no such partition, or of another incarnation")
	// ErrExists: Create on a partition that has a head, fenced or not.
	ErrExists = errors.New("storage: partition exists")
	// ErrConflict: an expectation is not met.
	ErrConflict = errors.New("storage: changed meanwhile")
	// ErrTooLarge: the commit is over MaxCommitWrites or MaxCommitBytes.
	ErrTooLarge = errors.New("storage: commit too large")
	// ErrInvalid: zero partition, empty kind, the same key written twice, a commit without writes,
	// the zero incarnation on Create.
	ErrInvalid = errors.New("storage: invalid")
	// ErrFull: no space left; nothing was written.
	ErrFull = errors.New("storage: no space left")
	// ErrFailing: the disk can't be read or written now, for want of more than space. Of a commit it is not
	// known whether it was carried out.
	ErrFailing = errors.New("storage: the disk fails")
	// ErrCorrupt: what is stored is not what was written. Nothing of it is handed out.
	ErrCorrupt = errors.New("data corrupt")
	ErrClosed  = errors.New("storage: closed")
)

// FeedRetention is how long a backend keeps feed rows; older ones may be gone at any time.
const FeedRetention = 24 * time.Hour

// Backend keeps partitions. Implementations are safe for concurrent use. Bodies passed in and handed
// out are not shared with the backend afterwards. The zero Partition is ErrInvalid everywhere; a
// limit below one reads nothing.
type Backend interface {
	// Head returns the partition's head, fenced ones included. ErrNotFound when there is none.
	Head(ctx context.Context, p Partition) (Head, error)

	// Get reads one item. ErrNotFound when it, or the partition, is absent or the partition fenced.
	Get(ctx context.Context, p Partition, k Key) (Item, error)

	// Scan returns up to limit items of a kind with ids greater than after, in byte order. An absent
	// or fenced partition has none. The empty id is greater than nothing: Get reads it.
	Scan(ctx context.Context, p Partition, kind Kind, after string, limit int) ([]Item, error)

	// Load reads a whole partition at one revision. ErrNotFound when it is absent or fenced.
	Load(ctx context.Context, p Partition) (Snapshot, error)

	// Whole reads every item of a partition and holds them against the head: an error when one is not
	// there, or is not as a commit left it. That an item is absent proves something only when the
	// partition is whole. An absent or fenced partition is.
	Whole(ctx context.Context, p Partition) error

	// Commit applies all of c or nothing, and returns the partition's new revision once it is
	// durable: items, history, audit and feed rows and the head move together. Each write has its
	// history row, a deletion of what is absent too. Followers are told before it returns. ctx bounds
	// the wait to be taken; a commit that has begun is carried out, and its outcome reported. Errors,
	// in this order: ErrInvalid and ErrTooLarge, ErrExists or ErrNoHead, ErrConflict; ErrFull,
	// ErrClosed, or ctx's own (then nothing was committed). After any other error the outcome is
	// not known.
	Commit(ctx context.Context, c Commit) (uint64, error)

	// Fence ends a partition: no later commit is taken. Its revision stays. Idempotent for the same
	// incarnation; ErrNoHead for an absent partition or another incarnation. Followers are told, and
	// an audit row is written, the first time.
	Fence(ctx context.Context, p Partition, i copse.Incarnation, actor string) error

	// Erase removes up to limit rows of a fenced partition, the head last, its feed rows included,
	// and reports whether nothing is left. An absent partition is done. ErrConflict when not fenced,
	// ErrNoHead for another incarnation, ErrInvalid for a limit below one. The last step writes an
	// audit row and tells followers again.
	Erase(ctx context.Context, p Partition, i copse.Incarnation, limit int) (done bool, err error)

	// Forget removes key, body and salt of every history row of the key up to a revision, also of a
	// fenced partition; upTo 0 is all of them. With the revision of a deletion it leaves alone what was
	// written under the same key since. The item itself stays. The chain still verifies. An absent partition has nothing to forget.
	// After an error part of it may be done; calling again finishes it.
	Forget(ctx context.Context, p Partition, k Key, upTo uint64) error

	// Heads lists policy-store partitions by name, after a name, fenced ones included.
	Heads(ctx context.Context, after string, limit int) ([]Head, error)

	// History returns up to limit rows with revision greater than after, in order, whole commits
	// only (one commit may exceed limit). An absent or fenced partition has none.
	History(ctx context.Context, p Partition, after uint64, limit int) ([]HistoryRow, error)

	// Former returns the last history row of a key with a revision less than before: what a later write
	// replaced. ErrNotFound when there is none, it is forgotten, or the partition is absent or fenced.
	Former(ctx context.Context, p Partition, k Key, before uint64) (HistoryRow, error)

	// Audit returns up to limit audit rows with Seq greater than after. There is one for every
	// commit, and one for each partition that was fenced or erased, and each Forget that found rows.
	Audit(ctx context.Context, after uint64, limit int) ([]AuditRow, error)

	// AuditEnd is the number and the chain of the last audit row, from a record apart from the rows, so that
	// rows missing at the end are noticed.
	AuditEnd(ctx context.Context) (seq uint64, chain [32]byte, err error)

	// Feed returns up to limit feed rows with Seq greater than after, in order. Seqs are given out
	// consecutively in the order of commits and a row is never seen before a lower one, so nothing
	// is missed; only Erase and [FeedRetention] take rows away.
	Feed(ctx context.Context, after uint64, limit int) ([]FeedRow, error)

	// Follow calls f for every change from now on, after it is durable and before the call that made
	// it returns; for one partition in revision order. f must not block and must not call the
	// backend. stop ends it; a call of f under way may still finish.
	Follow(f func(Change)) (stop func())

	// Close waits for commits under way and releases everything. Later calls answer ErrClosed, but
	// for Close itself, which may be repeated.
	Close() error
}
