package storage

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/maypok86/otter/v2/stats"

	"github.com/copse-authz/copse"
)

// CacheConfig says what a [Cache] keeps, how much and how long.
type CacheConfig[K comparable, V any] struct {
	// Load reads the value from where it is true. Its ctx carries the values of the caller that
	// started it, but not its cancellation.
	Load func(ctx context.Context, k K) (V, error)
	// Renew, if set, is Load after an invalidation: former is what was kept then, for those of its parts
	// that need not be read or made again. What it returns must be as Load would have it. Former values
	// take up to another quarter of MaxWeight.
	Renew func(ctx context.Context, k K, former V) (V, error)
	// Weigh is what a value counts against MaxWeight; nil: 1 each.
	Weigh     func(k K, v V) int64
	MaxWeight int64 // nothing is kept below 1
	TTL       time.Duration
	// NegativeTTL is how long "not found" is kept; 0: not at all.
	NegativeTTL time.Duration
}

// Cache reads through to a source and remembers. It is made for values whose staleness is a security
// defect: the owner of the source calls Invalidate after each change and before acknowledging it, and
// may rely on this:
//
//   - A Get that starts after Invalidate returned never yields what the source held before the change,
//     even if a load of it was under way, finished late, or is shared by many callers.
//   - A load overtaken by an Invalidate is thrown away and repeated, so nothing outdated is kept.
//   - Errors are never kept, except "not found" for NegativeTTL. A load that panics is an error.
//   - TTLs count from the start of the load: a value is at most TTL older than the source.
//
// Eviction by weight and expiry are otter's; the correctness above is this type's own: storing a
// result and invalidating exclude one another.
type Cache[K comparable, V any] struct {
	cfg  CacheConfig[K, V]
	kept *otter.Cache[K, cached[V]]
	// formers are values as they were when they were invalidated, for Renew alone; nil without it.
	formers *otter.Cache[K, cached[V]]

	mu    sync.Mutex
	calls map[K]*call[V] // loads that an Invalidate has not overtaken
}

// cached is a value, or the not-found error that took its place.
type cached[V any] struct {
	value  V
	err    error
	ttl    time.Duration
	weight uint32
}

// call is one load, shared by every caller that came while it was under way and current.
type call[V any] struct {
	done      chan struct{}
	cached[V]            // set before done is closed
	overtaken bool       // guarded by Cache.mu until done is closed
	former    *cached[V] // for Renew
}

// maxOvertaken bounds how often a caller waits again because its load was overtaken. The result it
// takes in the end is still no older than the caller itself: an Invalidate before its arrival would
// have kept it from joining the load.
const maxOvertaken = 8

// negativeWeight is what a kept "not found" counts in a cache weighed in bytes.
const negativeWeight = 256

// NewCache makes an empty cache.
func NewCache[K comparable, V any](cfg CacheConfig[K, V]) *Cache[K, V] {
	if cfg.TTL <= 0 {
		cfg.TTL = math.MaxInt64
	}
	c := &Cache[K, V]{cfg: cfg, calls: make(map[K]*call[V])}
	options := &otter.Options[K, cached[V]]{
		MaximumWeight: uint64(max(cfg.MaxWeight, 1)),
		Weigher:       func(_ K, v cached[V]) uint32 { return v.weight },
		StatsRecorder: stats.NewCounter(),
	}
	if cfg.TTL != math.MaxInt64 || cfg.NegativeTTL > 0 {
		options.ExpiryCalculator = otter.ExpiryWritingFunc(func(e otter.Entry[K, cached[V]]) time.Duration {
			return e.Value.ttl
		})
		options.Clock = clock{start: time.Now()}
	}
	c.kept = otter.Must(options)
	if cfg.Renew != nil {
		c.formers = otter.Must(&otter.Options[K, cached[V]]{
			MaximumWeight: uint64(max(cfg.MaxWeight/4, 1)), Weigher: func(_ K, v cached[V]) uint32 { return v.weight },
		})
	}
	return c
}

// clock is monotonic, and has no ticks: expired entries are never shown and go with later writes, so
// that a cache needs no goroutine of its own and no Close.
type clock struct{ start time.Time }

func (c clock) NowNano() int64                      { return time.Since(c.start).Nanoseconds() }
func (c clock) Tick(time.Duration) <-chan time.Time { return nil }

// Get returns the value of k, loading it if need be, once for all callers that wait for it. ctx bounds
// this caller's wait only; one that has ended already starts no load, and gets what is kept.
func (c *Cache[K, V]) Get(ctx context.Context, k K) (V, error) {
	if hit, ok := c.kept.GetIfPresent(k); ok {
		return hit.value, hit.err
	}
	if err := ctx.Err(); err != nil {
		var none V
		return none, err
	}
	for repeats := 0; ; repeats++ {
		l, hit, ok := c.join(ctx, k)
		if ok {
			return hit.value, hit.err
		}
		select {
		case <-l.done:
		case <-ctx.Done():
			var none V
			return none, ctx.Err()
		}
		if !l.overtaken || repeats == maxOvertaken {
			return l.value, l.err
		}
	}
}

// join finds the current load of k, or starts it, unless a value was kept meanwhile.
func (c *Cache[K, V]) join(ctx context.Context, k K) (l *call[V], hit cached[V], ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l, ok := c.calls[k]; ok {
		return l, cached[V]{}, false
	}
	if e, ok := c.kept.GetEntryQuietly(k); ok {
		return nil, e.Value, true
	}
	l = &call[V]{done: make(chan struct{})}
	if c.formers != nil {
		if former, ok := c.formers.Invalidate(k); ok {
			l.former = &former
		}
	}
	c.calls[k] = l
	go c.load(context.WithoutCancel(ctx), k, l)
	return l, cached[V]{}, false
}

func (c *Cache[K, V]) load(ctx context.Context, k K, l *call[V]) {
	start := time.Now()
	finished := false
	// Deferred, so that callers are released even if Load ends the goroutine (runtime.Goexit).
	defer func() {
		if !finished {
			// A panic here would end the process, since no request's own recovery is above.
			l.value, l.err = *new(V), fmt.Errorf("load of cached value panicked: %v\n%s", recover(), debug.Stack())
		}
		c.finish(k, l, time.Since(start))
	}()
	if l.former != nil {
		l.value, l.err = c.cfg.Renew(ctx, k, l.former.value)
	} else {
		l.value, l.err = c.cfg.Load(ctx, k)
	}
	l.weight = c.weigh(k, l.value, l.err)
	finished = true
}

func (c *Cache[K, V]) weigh(k K, v V, err error) uint32 {
	switch {
	case c.cfg.Weigh == nil:
		return 1
	case err != nil:
		return negativeWeight
	}
	// Never 0: otter does not evict what weighs nothing.
	return uint32(min(max(c.cfg.Weigh(k, v), 1), math.MaxUint32))
}

// finish keeps the result, if it may be kept, under the lock that Invalidate takes: so a result is
// either kept before an invalidation, which then removes it, or known to be overtaken.
func (c *Cache[K, V]) finish(k K, l *call[V], took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(l.done)
	former := l.former
	l.former = nil
	if l.overtaken {
		return
	}
	delete(c.calls, k)
	l.ttl = c.cfg.TTL
	if l.err != nil {
		if !isNotFound(l.err) {
			if former != nil {
				c.formers.Set(k, *former) // the next load may use it
			}
			return
		}
		l.ttl = c.cfg.NegativeTTL
	}
	if l.ttl != math.MaxInt64 {
		l.ttl -= took
	}
	if l.ttl > 0 && c.cfg.MaxWeight > 0 {
		c.kept.Set(k, l.cached)
	}
}

func isNotFound(err error) bool {
	return errors.Is(err, ErrNotFound) || copse.KindOf(err) == copse.NotFound
}

// Invalidate makes the next Get of k read the source again, whatever is kept or being loaded. Call it
// after the change is visible in the source.
func (c *Cache[K, V]) Invalidate(k K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.overtake(k); l != nil && l.former != nil {
		c.formers.Set(k, *l.former)
	}
	if kept, ok := c.kept.Invalidate(k); ok && c.formers != nil && kept.err == nil {
		c.formers.Set(k, kept)
	}
}

// Drop is Invalidate of what is gone for good: nothing of it is left here, not even for Renew.
func (c *Cache[K, V]) Drop(k K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.overtake(k)
	c.kept.Invalidate(k)
	if c.formers != nil {
		c.formers.Invalidate(k)
	}
}

// overtake makes the load of k that is under way, if any, one whose result is not kept.
func (c *Cache[K, V]) overtake(k K) *call[V] {
	l, ok := c.calls[k]
	if ok {
		l.overtaken = true
		delete(c.calls, k)
	}
	return l
}

// InvalidateAll is Invalidate for every key.
func (c *Cache[K, V]) InvalidateAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.calls {
		l.overtaken = true
	}
	clear(c.calls)
	c.kept.InvalidateAll()
	if c.formers != nil {
		c.formers.InvalidateAll()
	}
}

// Stats counts Gets answered from what is kept and Gets that had to wait for a load, and says what is
// kept now.
func (c *Cache[K, V]) Stats() (hits, misses uint64, weight int64, entries int) {
	c.kept.CleanUp() // otter evicts a little later than it stores
	s := c.kept.Stats()
	return s.Hits, s.Misses, int64(c.kept.WeightedSize()), c.kept.EstimatedSize()
}
