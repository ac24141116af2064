package storage_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// counting is a loader that counts its calls and answers what answer says.
func counting(loads *atomic.Int64, answer func(k string) (string, error)) func(context.Context, string) (string, error) {
	return func(_ context.Context, k string) (string, error) {
		loads.Add(1)
		return answer(k)
	}
}

func echo(k string) (string, error) { return "value of " + k, nil }

func checkGet(t *testing.T, c *storage.Cache[string, string], k, want string) {
	t.Helper()
	if got, err := c.Get(t.Context(), k); err != nil || got != want {
		t.Errorf("Get(%q) = %q, %v; want %q", k, got, err, want)
	}
}

func checkLoads(t *testing.T, loads *atomic.Int64, want int64) {
	t.Helper()
	if got := loads.Load(); got != want {
		t.Fatalf("%d loads, want %d", got, want)
	}
}

func TestCacheKeepsValuesForTheirTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var loads atomic.Int64
		c := storage.NewCache(storage.CacheConfig[string, string]{
			Load: counting(&loads, func(k string) (string, error) {
				time.Sleep(2 * time.Second) // the TTL counts from the start of the load
				return echo(k)
			}),
			MaxWeight: 10, TTL: 10 * time.Second,
		})
		checkGet(t, c, "a", "value of a")
		time.Sleep(7999 * time.Millisecond)
		checkGet(t, c, "a", "value of a")
		checkLoads(t, &loads, 1)
		time.Sleep(2 * time.Millisecond)
		checkGet(t, c, "a", "value of a")
		checkLoads(t, &loads, 2)
	})
}

func TestCacheDoesNotKeepWhatWasOutdatedWhenItArrived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var loads atomic.Int64
		c := storage.NewCache(storage.CacheConfig[string, string]{
			Load: counting(&loads, func(k string) (string, error) {
				time.Sleep(11 * time.Second)
				return echo(k)
			}),
			MaxWeight: 10, TTL: 10 * time.Second,
		})
		checkGet(t, c, "a", "value of a")
		checkGet(t, c, "a", "value of a")
		checkLoads(t, &loads, 2)
	})
}

func TestCacheKeepsNotFoundForItsOwnTTL(t *testing.T) {
	for _, notFound := range []error{
		fmt.Errorf("wrapped: %w", storage.ErrNotFound),
		fmt.Errorf("wrapped: %w", copse.NotFoundError(copse.ResourceTenant, "a")),
	} {
		synctest.Test(t, func(t *testing.T) {
			var loads atomic.Int64
			c := storage.NewCache(storage.CacheConfig[string, string]{
				Load:      counting(&loads, func(string) (string, error) { return "", notFound }),
				MaxWeight: 10, NegativeTTL: 5 * time.Second,
			})
			for range 3 {
				if _, err := c.Get(t.Context(), "a"); !errors.Is(err, notFound) {
					t.Fatal(err)
				}
			}
			checkLoads(t, &loads, 1)
			time.Sleep(5 * time.Second)
			_, _ = c.Get(t.Context(), "a")
			checkLoads(t, &loads, 2)
			c.Invalidate("a") // creation
			_, _ = c.Get(t.Context(), "a")
			checkLoads(t, &loads, 3)
		})
	}
}

func TestCacheKeepsNoOtherErrorAndNoNotFoundWithoutTTL(t *testing.T) {
	for _, failure := range []error{errors.New("disk on fire"), storage.ErrNotFound} {
		var loads atomic.Int64
		c := storage.NewCache(storage.CacheConfig[string, string]{
			Load:      counting(&loads, func(string) (string, error) { return "", failure }),
			MaxWeight: 10, TTL: time.Hour,
		})
		for range 3 {
			if _, err := c.Get(t.Context(), "a"); !errors.Is(err, failure) {
				t.Fatal(err)
			}
		}
		checkLoads(t, &loads, 3)
	}
}

func TestCacheSurvivesLoadThatPanicsOrExits(t *testing.T) {
	for name, fail := range map[string]func(){"panic": func() { panic("bad policy") }, "exit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			var loads atomic.Int64
			c := storage.NewCache(storage.CacheConfig[string, string]{
				Load: counting(&loads, func(k string) (string, error) {
					if loads.Load() == 1 {
						fail()
					}
					return echo(k)
				}),
				MaxWeight: 10,
			})
			if v, err := c.Get(t.Context(), "a"); err == nil || v != "" {
				t.Fatalf("Get = %q, %v; want an error", v, err)
			}
			checkGet(t, c, "a", "value of a")
		})
	}
}

func TestCacheLoadsOnceForAllWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var loads atomic.Int64
		c := storage.NewCache(storage.CacheConfig[string, string]{
			Load: counting(&loads, func(k string) (string, error) {
				time.Sleep(time.Second)
				return echo(k)
			}),
			MaxWeight: 10,
		})
		for range 100 {
			go checkGet(t, c, "a", "value of a")
		}
		synctest.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
		checkLoads(t, &loads, 1)
	})
}

func TestCacheCallerStopsWaitingButLoadGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var loads atomic.Int64
		c := storage.NewCache(storage.CacheConfig[string, string]{
			Load: func(ctx context.Context, k string) (string, error) {
				loads.Add(1)
				time.Sleep(time.Minute)
				return k, ctx.Err()
			},
			MaxWeight: 10,
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := c.Get(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited != time.Second {
			t.Fatalf("waited %v", waited)
		}
		time.Sleep(time.Minute)
		checkGet(t, c, "a", "a") // the load was not cancelled with its first caller
		checkLoads(t, &loads, 1)
	})
}

func TestCacheOfACallerThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		var loads atomic.Int64
		c := storage.NewCache(storage.CacheConfig[string, string]{Load: counting(&loads, echo), MaxWeight: 10})
		if v, err := c.Get(gone, "a"); !errors.Is(err, context.Canceled) {
			t.Errorf("%q, %v", v, err)
		}
		synctest.Wait() // for a load that nobody waits for
		checkLoads(t, &loads, 0)
		checkGet(t, c, "a", "value of a")
		if v, err := c.Get(gone, "a"); v != "value of a" || err != nil {
			t.Errorf("kept: %q, %v", v, err)
		}
	})
}

func TestCacheRepeatsOvertakenLoad(t *testing.T) {
	for name, invalidate := range map[string]func(c *storage.Cache[string, string]){
		"one": func(c *storage.Cache[string, string]) { c.Invalidate("a") },
		"all": func(c *storage.Cache[string, string]) { c.InvalidateAll() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var loads atomic.Int64
				var source atomic.Value
				source.Store("old")
				c := storage.NewCache(storage.CacheConfig[string, string]{
					Load: counting(&loads, func(string) (string, error) {
						read := source.Load().(string)
						time.Sleep(time.Second) // the answer is on its way while the source changes
						return read, nil
					}),
					MaxWeight: 10,
				})
				go checkGet(t, c, "a", "new") // comes before the change, and is repeated
				synctest.Wait()
				source.Store("new")
				invalidate(c)
				checkGet(t, c, "a", "new") // comes after the change
				time.Sleep(time.Second)    // the old load has ended by now
				checkGet(t, c, "a", "new") // and was not kept
				synctest.Wait()
				checkLoads(t, &loads, 2)
			})
		})
	}
}

func TestCacheOvertakenForeverStillAnswers(t *testing.T) {
	var c *storage.Cache[string, string]
	var loads atomic.Int64
	c = storage.NewCache(storage.CacheConfig[string, string]{
		Load: counting(&loads, func(k string) (string, error) {
			c.Invalidate(k)
			return echo(k)
		}),
		MaxWeight: 10,
	})
	checkGet(t, c, "a", "value of a")
	if n := loads.Load(); n > 10 {
		t.Fatalf("%d loads for one caller", n)
	}
}

func TestCacheWeight(t *testing.T) {
	c := storage.NewCache(storage.CacheConfig[string, string]{
		Load:      func(_ context.Context, k string) (string, error) { return k, nil },
		Weigh:     func(_, v string) int64 { return int64(len(v)) * 100 },
		MaxWeight: 1000,
	})
	for i := range 100 {
		checkGet(t, c, fmt.Sprint(i), fmt.Sprint(i))
		if _, _, weight, _ := c.Stats(); weight > 1000 {
			t.Fatalf("weighs %d", weight)
		}
	}
	checkGet(t, c, "far too heavy to keep", "far too heavy to keep")
	hits, misses, weight, entries := c.Stats()
	if hits != 0 || misses != 101 || weight == 0 || weight > 1000 || entries == 0 || entries > 10 {
		t.Fatal(hits, misses, weight, entries)
	}
	c.InvalidateAll()
	if _, _, weight, entries := c.Stats(); weight != 0 || entries != 0 {
		t.Fatal(weight, entries)
	}
}

func TestCacheWithoutWeightKeepsNothing(t *testing.T) {
	var loads atomic.Int64
	c := storage.NewCache(storage.CacheConfig[string, string]{Load: counting(&loads, echo)})
	checkGet(t, c, "a", "value of a")
	checkGet(t, c, "a", "value of a")
	checkLoads(t, &loads, 2)
}

// TestCacheNeverServesWhatWasInvalidated hammers the cache while its source moves. Every reader notes
// what had been invalidated before it asked, and may be given nothing older.
func TestCacheNeverServesWhatWasInvalidated(t *testing.T) {
	const keys, readers, changesPerKey, minReads = 3, 4, 4000, 20_000
	var source, acknowledged [keys]atomic.Int64
	c := storage.NewCache(storage.CacheConfig[int, int64]{
		Load: func(_ context.Context, k int) (int64, error) {
			v := source[k].Load()
			if v%3 == 0 {
				runtime.Gosched() // a result that is late
			}
			if v%50 == 7 {
				return v, errors.New("broken now and then")
			}
			return v, nil
		},
		MaxWeight: 2, // below the number of keys: eviction takes part
		TTL:       time.Millisecond,
	})
	var writers, all sync.WaitGroup
	var reads, served atomic.Int64
	stop := make(chan struct{})
	for k := range keys {
		writers.Go(func() {
			for range changesPerKey {
				v := source[k].Add(1)
				if v%10 == 0 {
					c.InvalidateAll()
				} else {
					c.Invalidate(k)
				}
				acknowledged[k].Store(v)
				// Wait for a read now and then, or all changes happen between two of them.
				for was, spins := reads.Load(), 0; v%2 == 0 && reads.Load() == was && spins < 1000; spins++ {
					runtime.Gosched()
				}
			}
		})
	}
	for r := range readers {
		all.Go(func() {
			for i := r; ; i++ {
				select {
				case <-stop:
					if reads.Load() >= minReads {
						return
					}
				default:
				}
				k := i % keys
				before := acknowledged[k].Load()
				got, err := c.Get(context.Background(), k)
				reads.Add(1)
				if err != nil {
					continue
				}
				served.Add(1)
				if got < before {
					t.Errorf("key %d: served %d after %d was acknowledged", k, got, before)
					return
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	all.Wait()
	hits, misses, _, _ := c.Stats()
	if reads.Load() < minReads || served.Load() < minReads/2 || hits < 1000 || misses < 1000 {
		t.Fatalf("%d reads, %d served, %d hits, %d misses: not enough to prove anything", reads.Load(), served.Load(), hits, misses)
	}
}

func BenchmarkCacheHit(b *testing.B) {
	c := storage.NewCache(storage.CacheConfig[string, string]{
		Load:      func(_ context.Context, k string) (string, error) { return k, nil },
		MaxWeight: 1000, TTL: time.Minute,
	})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := c.Get(context.Background(), "a"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
