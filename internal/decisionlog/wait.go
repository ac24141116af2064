package decisionlog

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"

	"github.com/copse-authz/copse"
)

// Why decisions were refused.
const (
	refusedQueue = "queue full"
	refusedDisk  = "disk"
	refusedSlow  = "no answer in time"
)

// waiting is what one call of Record waits for.
type waiting struct {
	entries []Entry
	claimed atomic.Bool // by the writer, or by whoever waited and gave up: only one of them has the entries
	done    chan error  // has room for the one answer, so that the writer never waits for who gave up
}

// recordDurably returns when the entries are on disk. Who gives up while the writer has them may leave lines
// of decisions that were not given: a log can't be sure of both sides.
func (l *Log) recordDurably(ctx context.Context, entries []Entry) error {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	x := &waiting{entries: slices.Clone(entries), done: make(chan error, 1)}
	l.mu.Lock()
	switch {
	case l.ended:
		l.mu.Unlock()
		return l.refuse(refusedDisk, len(entries), errors.New("the log is closed"))
	case l.waits+len(entries) > l.cfg.Queue:
		l.mu.Unlock()
		return l.refuse(refusedQueue, len(entries), errors.New("too many decisions wait for the disk"))
	}
	l.waiting = append(l.waiting, x)
	l.waits += len(entries)
	l.mu.Unlock()
	l.wakeUp()
	select {
	case err := <-x.done:
		if err != nil {
			return l.refuse(refusedDisk, len(entries), err)
		}
		return nil
	case <-ctx.Done():
		x.claimed.Store(true)
		return l.refuse(refusedSlow, len(entries), ctx.Err())
	}
}

// refuse counts decisions that are not given, and says so to their caller without what the disk said.
func (l *Log) refuse(reason string, count int, err error) error {
	l.refused.WithLabelValues(reason).Add(float64(count))
	return &copse.Error{Kind: copse.Unavailable, Err: err,
		Detail: "the decision can't be recorded now, and must not be given without a record; try again"}
}

// taken is what the queues held.
type taken struct {
	entries []Entry
	missed  uint64
	waiting []*waiting // after claim: those that are written
}

// take empties the queues.
func (l *Log) take() (t taken) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t = taken{l.queue, l.missed, l.waiting}
	l.queue, l.missed, l.spare = l.spare[:0], 0, nil
	l.waiting, l.waits = nil, 0
	return t
}

// claim gathers the entries that are waited for. Of a policy store that leaves nothing is written any more, and a
// decision that must be written is then refused.
func (t *taken) claim(l *Log) (durable []Entry) {
	kept := t.waiting[:0]
	for _, x := range t.waiting {
		switch {
		case x.claimed.Swap(true): // nobody waits any more
		case slices.ContainsFunc(x.entries, func(e Entry) bool { _, gone := l.gone.Load(e.PolicyStoreID); return gone }):
			x.done <- errors.New("the policy store is being deleted")
		default:
			durable = append(durable, x.entries...)
			kept = append(kept, x)
		}
	}
	t.waiting = kept
	return durable
}

// answer lets those go on whose entries were written, or were not.
func (t *taken) answer(err error) {
	for _, x := range t.waiting {
		x.done <- err
	}
}
