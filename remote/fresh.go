package remote

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/copse-authz/copse"
)

const (
	// maxReread is how old what was read may be, at the most, before it is read again.
	maxReread = 5 * time.Second
	// maxStale is how old it may be when it can't be read again. Beyond, nothing is decided by it.
	maxStale = 30 * time.Second
)

// fresh is something read from the server and read again on use: nothing runs in the background, so what
// nobody asks for costs nothing.
type fresh[V any] struct {
	after   time.Duration // how old it may be before it is read again
	last    atomic.Pointer[reading[V]]
	reading chan struct{} // holds one: who reads
}

type reading[V any] struct {
	value  V
	absent error     // NotFound, which is an answer like any other
	at     time.Time // before it was asked for: what changed since may not be in it
}

// newFresh knows nothing yet: its first get reads.
func newFresh[V any](after time.Duration) *fresh[V] {
	return &fresh[V]{after: after, reading: make(chan struct{}, 1)}
}

// youngerThan is false for what was never read.
func (r *reading[V]) youngerThan(age time.Duration) bool { return r != nil && time.Since(r.at) < age }

// answer is the value, or the error that says there is none.
func (r *reading[V]) answer() (V, error) { return r.value, r.absent }

// get returns what is known, reading it when that is too old. While another call reads, what is not yet
// past the bound is used. A server that refuses the key is believed at once.
func (f *fresh[V]) get(ctx context.Context, read func(context.Context) (V, error)) (V, error) {
	var none V
	last := f.last.Load()
	if last.youngerThan(f.after) {
		return last.answer()
	}
	// One caller reads at a time; the server is not asked once for each that waits.
	select {
	case f.reading <- struct{}{}:
	default:
		if last.youngerThan(maxStale) {
			return last.answer()
		}
		select {
		case f.reading <- struct{}{}:
		case <-ctx.Done():
			return none, copse.Errorf(copse.Unavailable, "waiting for the copse server: %w", ctx.Err())
		}
	}
	defer func() { <-f.reading }()
	if last = f.last.Load(); last.youngerThan(f.after) { // the one before us has read it
		return last.answer()
	}
	next := &reading[V]{at: time.Now()}
	value, err := read(ctx)
	switch kind := copse.KindOf(err); {
	case err == nil:
		next.value = value
	case kind == copse.NotFound:
		next.absent = err
	case kind == copse.Unauthenticated || kind == copse.Denied || !last.youngerThan(maxStale):
		return none, err
	default:
		return last.answer()
	}
	f.last.Store(next)
	return next.answer()
}
