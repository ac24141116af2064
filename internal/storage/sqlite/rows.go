package sqlite

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/copse-authz/copse/internal/storage"
)

// headRow is a head as it is stored: with the number of items and the digest of all their sums.
// An item's sum includes its version, so an old copy of an item changes the digest as a missing one does.
type headRow struct {
	storage.Head
	items  uint64
	digest uint64
}

// checksum is over length-prefixed parts, so that no two rows have the same bytes. 64 bits of
// SHA-256: enough against a failing disk; someone who can write the file can write sums too.
type checksum struct{ buffer []byte }

func (c *checksum) number(n uint64) { c.buffer = binary.BigEndian.AppendUint64(c.buffer, n) }

func (c *checksum) bytes(b []byte) {
	c.number(uint64(len(b)))
	c.buffer = append(c.buffer, b...)
}

func (c *checksum) text(s string) {
	c.number(uint64(len(s)))
	c.buffer = append(c.buffer, s...)
}

func (c *checksum) sum() uint64 {
	h := sha256.Sum256(c.buffer)
	return binary.BigEndian.Uint64(h[:8])
}

// sum covers all columns but itself, and the name of the table: a row of one kind never passes for another.
func (h *headRow) sum() uint64 {
	var c checksum
	c.text("head")
	c.text(h.Partition.String())
	c.bytes(h.Incarnation[:])
	c.number(uint64(h.State))
	c.number(h.Revision)
	c.bytes(h.Chain[:])
	c.number(uint64(h.CreatedAt.UnixNano()))
	c.number(h.items)
	c.number(h.digest)
	return c.sum()
}

// itemSum covers the partition too: an item that shows up under another partition is damage.
func itemSum(p storage.Partition, item storage.Item) uint64 {
	c := checksum{make([]byte, 0, 128+len(item.Body))}
	c.text("item")
	c.text(p.String())
	c.text(string(item.Kind))
	c.text(item.ID)
	c.number(item.Version)
	c.bytes(item.Body)
	return c.sum()
}

// feedSum covers the time as well, which decides when the row goes.
func feedSum(row storage.FeedRow, at time.Time) uint64 {
	var c checksum
	c.text("feed")
	c.number(row.Seq)
	c.text(row.Partition.String())
	c.bytes(row.Incarnation[:])
	c.number(row.Revision)
	c.number(flag(row.Fenced))
	c.number(uint64(at.UnixNano()))
	return c.sum()
}

func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// corruptf is damage that was found in something that could be read.
func corruptf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
}

func (r *row) time() time.Time { return time.Unix(0, int64(r.number())).UTC() }

// partition is the zero Partition, beside an error in r, when the name is none.
func (r *row) partition() storage.Partition {
	p, err := storage.ParsePartition(r.text())
	if err != nil {
		r.damaged("a partition")
	}
	return p
}

// verify compares a stored checksum with one made from what was read.
// A column that could not be read comes first: the checksum of what took its place says nothing.
func (r *row) verify(stored, computed uint64, what string) error {
	if r.err == nil && stored != computed {
		r.err = corruptf("checksum of %s", what)
	}
	return r.err
}

// head, and the readers of rows after it, take the columns in the order of headColumns, itemColumns and so on. On an
// error what they return must not be used.
func (r *row) head() (h headRow, err error) {
	h.Partition = r.partition()
	r.fixed(h.Incarnation[:])
	h.State = storage.State(r.number())
	h.Revision = r.number()
	r.fixed(h.Chain[:])
	h.CreatedAt = r.time()
	h.items = r.number()
	h.digest = r.number()
	return h, r.verify(r.number(), h.sum(), "a head")
}

// item also returns the verified sum, for those who add sums up to the head's digest.
func (r *row) item(p storage.Partition) (item storage.Item, sum uint64, err error) {
	item.Kind = storage.Kind(r.text())
	item.ID = r.text()
	item.Version = r.number()
	sum = r.number()
	if item.Body = r.bytes(); item.Body == nil {
		item.Body = []byte{} // an item always has a body; an empty one reads as nil
	}
	return item, sum, r.verify(sum, itemSum(p, item), "an item")
}

// history needs no checksum of its own: the commitment, which the chain binds, is one over key, body and salt.
func (r *row) history() (h storage.HistoryRow, err error) {
	h.Revision = r.number()
	h.N = int(r.number())
	r.fixed(h.Commitment[:])
	h.At = r.time()
	h.Deleted = r.number() != 0
	h.Salt = r.bytes()
	h.Key = storage.Key{Kind: storage.Kind(r.text()), ID: r.text()}
	h.Body = r.bytes()
	if h.Salt == nil {
		return h, r.err // forgotten
	}
	if !h.Deleted && h.Body == nil {
		h.Body = []byte{}
	}
	if r.err == nil && h.Commitment != storage.Commitment(h.Salt, h.Key, h.Body, h.Deleted) {
		r.err = corruptf("commitment of revision %d, row %d", h.Revision, h.N)
	}
	return h, r.err
}

// audit does not verify: a row's chain can only be judged with that of the row before, see [Backend.Audit].
func (r *row) audit() (a storage.AuditRow, err error) {
	a.Seq = r.number()
	a.At = r.time()
	a.Actor = r.text()
	a.Operation = r.text()
	a.Partition = r.partition()
	r.fixed(a.Incarnation[:])
	a.Revision = r.number()
	a.Writes = int(r.number())
	r.fixed(a.Head[:])
	r.fixed(a.Chain[:])
	return a, r.err
}

func (r *row) feed() (f storage.FeedRow, err error) {
	f.Seq = r.number()
	f.Partition = r.partition()
	r.fixed(f.Incarnation[:])
	f.Revision = r.number()
	f.Fenced = r.number() != 0
	at := r.time()
	return f, r.verify(r.number(), feedSum(f, at), "a feed row")
}
