package token

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"github.com/copse-authz/copse"
)

const (
	// rememberFor bounds how long a verified token is believed without looking again.
	rememberFor     = time.Minute
	rememberedBytes = 64 << 20
	shardCount      = 16
	// sweepEvery bounds how long a token stays in memory after it expired, however quiet the server.
	sweepEvery    = time.Minute
	entryOverhead = 512
)

// digest is of all bytes of a token. A part of it, the signature for instance, would let another
// token pass for the one that was verified.
type digest [sha256.Size]byte

// Hashing wants bytes; copying a token into a used buffer spares an allocation of its size per call.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

func digestOf(token string) digest { return digestWith(token) }

// digestWith is of a token together with what else decides what it means. Their number and each one's
// length come first, so that nothing a caller sends reads like another list.
func digestWith(token string, with ...string) digest {
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	*b = append((*b)[:0], byte(len(with)))
	for _, part := range with {
		*b = binary.BigEndian.AppendUint32(*b, uint32(len(part)))
		*b = append(*b, part...)
	}
	*b = append(*b, token...)
	d := digest(sha256.Sum256(*b))
	clear(*b) // tokens are credentials: none stays behind in a pool
	return d
}

// entry is a verified token. Everything in it is immutable.
type entry struct {
	verified *Verified
	until    time.Time

	// The registration it was verified with, if with one; see [entry.standsFor].
	registered           bool
	issuerID             string
	revision             uint64
	createdAt, updatedAt time.Time
	// The policy store whose identity source it was verified by, if it was.
	policyStore copse.PolicyStoreID
	source      *keySource
	generation  uint64

	bytes int
}

// under notes the registration that the token was verified under.
func (e *entry) under(iss *copse.Issuer) {
	e.registered = true
	e.issuerID, e.revision, e.createdAt, e.updatedAt = iss.ID, iss.Revision, iss.CreatedAt, iss.UpdatedAt
}

// standsFor reports whether the registration is the one that the token was verified under. The times
// tell an issuer that was removed and registered again, whose revisions start over.
func (e *entry) standsFor(iss *copse.Issuer) bool {
	return e.revision == iss.Revision && e.issuerID == iss.ID &&
		e.createdAt.Equal(iss.CreatedAt) && e.updatedAt.Equal(iss.UpdatedAt)
}

// remembered holds verified tokens, bounded in bytes. It is split so that cores do not wait for each
// other. What expired goes as others come, and where none come by [remembered.sweepUntil].
type remembered struct{ shards [shardCount]shard }

type shard struct {
	mu      sync.RWMutex
	entries map[digest]*entry
	bytes   int
}

// A digest's first byte is as good as random, so shards fill alike.
func (r *remembered) shard(d *digest) *shard { return &r.shards[d[0]%shardCount] }

func (r *remembered) get(d *digest) *entry {
	s := r.shard(d)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.entries[*d]
}

// What was there under d is replaced.
func (r *remembered) put(d *digest, e *entry, now time.Time) {
	e.bytes = entryOverhead + len(e.verified.Entities.Bytes) + len(e.verified.Context.Bytes)
	s := r.shard(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries == nil {
		s.entries = make(map[digest]*entry)
	}
	s.removeLocked(*d)
	s.sweepLocked(now)
	// Maps are walked in random order, so what goes early is nobody's to choose.
	for old := range s.entries {
		if s.bytes+e.bytes <= rememberedBytes/shardCount {
			break
		}
		s.removeLocked(old)
	}
	s.entries[*d] = e
	s.bytes += e.bytes
}

// size counts what is kept, shard by shard.
func (r *remembered) size() (entries, bytes int) {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.RLock()
		entries, bytes = entries+len(s.entries), bytes+s.bytes
		s.mu.RUnlock()
	}
	return entries, bytes
}

// sweepLocked looks at a few entries each time one is added, which keeps pace with any rate.
func (s *shard) sweepLocked(now time.Time) {
	const look = 8
	n := 0
	for d, e := range s.entries {
		if !now.Before(e.until) {
			s.removeLocked(d)
		}
		if n++; n == look {
			return
		}
	}
}

func (s *shard) removeLocked(d digest) {
	if e, ok := s.entries[d]; ok {
		s.bytes -= e.bytes
		delete(s.entries, d)
	}
}

// drop removes one entry, unless another took its place.
func (r *remembered) drop(d *digest, e *entry) {
	s := r.shard(d)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries[*d] == e {
		s.removeLocked(*d)
	}
}

// sweepUntil removes what expired until ctx ends.
func (r *remembered) sweepUntil(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			now := time.Now()
			r.forget(func(e *entry) bool { return !now.Before(e.until) })
		case <-ctx.Done():
			return
		}
	}
}

// forget removes every entry for which gone is true.
func (r *remembered) forget(gone func(*entry) bool) {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		for d, e := range s.entries {
			if gone(e) {
				s.removeLocked(d)
			}
		}
		if len(s.entries) == 0 {
			s.entries = nil // an emptied map keeps the room of its best days
		}
		s.mu.Unlock()
	}
}
