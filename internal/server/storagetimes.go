package server

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// timedBackend is the backend as the services see it: each call that a decision or a write waits for is
// timed, counted when storage failed, and, when traces are on, a span. The calls of a cold policy store
// and of writes come here; a decision from memory does not.
type timedBackend struct {
	storage.Backend
	tracer *tracer // nil: traces are off
	times  map[storageCall]prometheus.Observer
	failed map[storageCall]prometheus.Counter

	damage  prometheus.Counter
	damaged atomic.Int64 // when damage was met last, in Unix seconds; 0: it was not
}

// storageCall names a call, as a label and in a span.
type storageCall string

// callHead and the others are all values that the label has: what is not timed has none.
const (
	callHead   storageCall = "head"
	callGet    storageCall = "get"
	callScan   storageCall = "scan"
	callLoad   storageCall = "load"
	callWhole  storageCall = "whole"
	callCommit storageCall = "commit"
	callErase  storageCall = "erase"
)

// newTimedBackend makes the series of each call at the start, so that calls need no lookup by label.
func newTimedBackend(b storage.Backend, reg prometheus.Registerer, t *tracer) *timedBackend {
	times := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "copse_storage_seconds", Help: "Time that calls of the storage took, by call; a commit is durable at its end.",
		// From a read that the cache of pages answers to a disk that hangs.
		Buckets: []float64{50e-6, 250e-6, 1e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 1, 5},
	}, []string{"call"})
	failed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "copse_storage_failures_total", Help: "Calls of the storage that failed: disk full, unreadable, closed. Refusals, such as a lost race, are none.",
	}, []string{"call"})
	damage := prometheus.NewCounter(prometheus.CounterOpts{Name: "copse_storage_damage_total", Help: "Calls of the storage that met damaged data, and handed out none of it. Run copse check."})
	reg.MustRegister(times, failed, damage)
	out := &timedBackend{damage: damage, Backend: b, tracer: t, times: map[storageCall]prometheus.Observer{}, failed: map[storageCall]prometheus.Counter{}}
	for _, call := range []storageCall{callHead, callGet, callScan, callLoad, callWhole, callCommit, callErase} {
		out.times[call], out.failed[call] = times.WithLabelValues(string(call)), failed.WithLabelValues(string(call))
	}
	return out
}

// begin starts the clock; what it returns ends it.
// It must be called once, with the call's own error: a span ends with it, and damage is noticed by it.
func (b *timedBackend) begin(ctx context.Context, call storageCall) (context.Context, func(error)) {
	ctx, end := b.tracer.start(ctx, "storage "+string(call))
	start := time.Now()
	return ctx, func(err error) {
		b.times[call].Observe(time.Since(start).Seconds())
		b.notice(err)
		if storageFailed(err) {
			b.failed[call].Inc()
			end(copse.Unavailable.String())
			return
		}
		end("")
	}
}

// notice remembers damage for /readyz. It does not clear: what is damaged stays so until it is restored.
func (b *timedBackend) notice(err error) {
	if errors.Is(err, storage.ErrCorrupt) {
		b.damage.Inc()
		b.damaged.Store(time.Now().Unix())
	}
}

// met is an error once damage was met, for those who look at how the server is.
func (b *timedBackend) met() error {
	at := b.damaged.Load()
	if at == 0 {
		return nil
	}
	return fmt.Errorf("damaged data were met since the start, last at %s; decisions that need them are refused", time.Unix(at, 0).UTC().Format(time.RFC3339))
}

// storageFailed tells a failure from an answer: that something is absent or has changed is one, and so
// is the end of a caller's patience.
func storageFailed(err error) bool {
	if err == nil {
		return false
	}
	for _, answer := range []error{storage.ErrNotFound, storage.ErrNoHead, storage.ErrExists, storage.ErrConflict, storage.ErrTooLarge, storage.ErrInvalid,
		context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, answer) {
			return false
		}
	}
	return true
}

// Head, and the methods after it, change nothing about a call or its answer. What is not among them is the
// backend's own, untimed, or at the end of this file.
func (b *timedBackend) Head(ctx context.Context, p storage.Partition) (storage.Head, error) {
	ctx, end := b.begin(ctx, callHead)
	head, err := b.Backend.Head(ctx, p)
	end(err)
	return head, err
}

func (b *timedBackend) Get(ctx context.Context, p storage.Partition, k storage.Key) (storage.Item, error) {
	ctx, end := b.begin(ctx, callGet)
	item, err := b.Backend.Get(ctx, p, k)
	end(err)
	return item, err
}

func (b *timedBackend) Scan(ctx context.Context, p storage.Partition, kind storage.Kind, after string, limit int) ([]storage.Item, error) {
	ctx, end := b.begin(ctx, callScan)
	items, err := b.Backend.Scan(ctx, p, kind, after, limit)
	end(err)
	return items, err
}

func (b *timedBackend) Load(ctx context.Context, p storage.Partition) (storage.Snapshot, error) {
	ctx, end := b.begin(ctx, callLoad)
	snapshot, err := b.Backend.Load(ctx, p)
	end(err)
	return snapshot, err
}

func (b *timedBackend) Whole(ctx context.Context, p storage.Partition) error {
	ctx, end := b.begin(ctx, callWhole)
	err := b.Backend.Whole(ctx, p)
	end(err)
	return err
}

// Commit's time has the wait for the writer in it, and the fsync that it shared.
func (b *timedBackend) Commit(ctx context.Context, c storage.Commit) (uint64, error) {
	ctx, end := b.begin(ctx, callCommit)
	revision, err := b.Backend.Commit(ctx, c)
	end(err)
	return revision, err
}

func (b *timedBackend) Erase(ctx context.Context, p storage.Partition, i copse.Incarnation, limit int) (bool, error) {
	ctx, end := b.begin(ctx, callErase)
	done, err := b.Backend.Erase(ctx, p, i, limit)
	end(err)
	return done, err
}

// Audit and History are read by people, and not timed.
// Damage is noticed all the same.
func (b *timedBackend) Audit(ctx context.Context, after uint64, limit int) ([]storage.AuditRow, error) {
	rows, err := b.Backend.Audit(ctx, after, limit)
	b.notice(err)
	return rows, err
}

// History is as Audit.
func (b *timedBackend) History(ctx context.Context, p storage.Partition, after uint64, limit int) ([]storage.HistoryRow, error) {
	rows, err := b.Backend.History(ctx, p, after, limit)
	b.notice(err)
	return rows, err
}

// These are not timed: only maintenance calls them. Damage that they meet is damage all the same.

func (b *timedBackend) Heads(ctx context.Context, after string, limit int) ([]storage.Head, error) {
	heads, err := b.Backend.Heads(ctx, after, limit)
	b.notice(err)
	return heads, err
}

func (b *timedBackend) Fence(ctx context.Context, p storage.Partition, i copse.Incarnation, actor string) error {
	err := b.Backend.Fence(ctx, p, i, actor)
	b.notice(err)
	return err
}

func (b *timedBackend) Forget(ctx context.Context, p storage.Partition, k storage.Key, upTo uint64) error {
	err := b.Backend.Forget(ctx, p, k, upTo)
	b.notice(err)
	return err
}

func (b *timedBackend) Former(ctx context.Context, p storage.Partition, k storage.Key, before uint64) (storage.HistoryRow, error) {
	row, err := b.Backend.Former(ctx, p, k, before)
	b.notice(err)
	return row, err
}

func (b *timedBackend) Feed(ctx context.Context, after uint64, limit int) ([]storage.FeedRow, error) {
	rows, err := b.Backend.Feed(ctx, after, limit)
	b.notice(err)
	return rows, err
}
