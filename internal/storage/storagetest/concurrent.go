package storagetest

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// concurrentCommits: several read an item and write it at the version they read. Of those that read the same
// version exactly one wins, the others get ErrConflict, and revisions count the winners.
func concurrentCommits(h *harness) {
	const committers, wanted = 8, 200
	i := h.create(alpha, put(one, "0"))
	var wins sync.Map // version -> winner
	var won, lost atomic.Int64
	var wg sync.WaitGroup
	for n := range committers {
		wg.Go(func() {
			// Until somebody lost: without a race the case proves nothing. Bounded, if there never is one.
			for won.Load() < wanted || lost.Load() == 0 && won.Load() < 500*wanted {
				item, err := h.b.Get(h.Context(), alpha, one)
				if err != nil {
					h.Error(err)
					return
				}
				runtime.Gosched() // let the others read the same version
				c := commitOf(alpha, i, storage.Write{Key: one, Body: fmt.Append(nil, n), Expect: storage.Version(item.Version)})
				switch revision, err := h.b.Commit(h.Context(), c); {
				case err == nil:
					won.Add(1)
					// Each version has one successor at most, or a write was lost.
					if other, twice := wins.LoadOrStore(item.Version, n); twice {
						h.Errorf("version %d was replaced by %v and by %d", item.Version, other, n)
					}
					if revision <= item.Version {
						h.Errorf("revision %d after version %d", revision, item.Version)
					}
				// Somebody else had replaced that version first; the next round reads again.
				case errors.Is(err, storage.ErrConflict):
					lost.Add(1)
				default:
					h.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if won.Load() < wanted || lost.Load() == 0 {
		h.Fatalf("%d won, %d lost: no race", won.Load(), lost.Load())
	}
	// The creation and the winners; a loser has left no revision behind.
	h.equal(h.head(alpha).Revision, uint64(won.Load())+1)
	h.chains()
}

// concurrentPartitions: many partitions are written at once, so that a backend that groups commits does so. Each
// hears of its own revisions in order and before the commit returns; feed rows have every seq once and no gap.
func concurrentPartitions(h *harness) {
	const partitions, commits = 32, 10
	var mu sync.Mutex
	last := make(map[storage.Partition]uint64)
	// Refused commits must not show up here, and none may come twice or too early.
	defer h.b.Follow(func(c storage.Change) {
		mu.Lock()
		defer mu.Unlock()
		if c.Revision != last[c.Partition]+1 {
			h.Errorf("%v was told %d after %d", c.Partition, c.Revision, last[c.Partition])
		}
		last[c.Partition] = c.Revision
	})()
	// What followers know, read by the committers while others are being told.
	told := func(p storage.Partition) uint64 {
		mu.Lock()
		defer mu.Unlock()
		return last[p]
	}
	var wg sync.WaitGroup
	for n := range partitions {
		wg.Go(func() {
			p, i := storage.PolicyStore(copse.PolicyStoreID(fmt.Sprint(n))), copse.NewIncarnation()
			for revision := uint64(1); revision <= commits; revision++ {
				c := commitOf(p, i, put(one, fmt.Sprint(n, revision)))
				c.Create = revision == 1
				if got, err := h.b.Commit(h.Context(), c); err != nil || got != revision {
					h.Errorf("Commit = %d, %v; want %d", got, err, revision)
					return
				}
				// Who is acknowledged may rely on every cache having heard of it.
				if got := told(p); got != revision {
					h.Errorf("commit %d returned, followers know %d", revision, got)
				}
				if bad := commitOf(p, copse.NewIncarnation(), put(one, "x")); n%2 == 0 {
					// A refused neighbour in the same group costs nobody anything.
					if _, err := h.b.Commit(h.Context(), bad); !errors.Is(err, storage.ErrNoHead) {
						h.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	for n := range partitions {
		h.equal(h.bodies(storage.PolicyStore(copse.PolicyStoreID(fmt.Sprint(n))))[one], fmt.Sprint(n, commits))
	}
	// The feed has all of them, whatever order the commits came in.
	rows, err := h.b.Feed(h.Context(), 0, partitions*commits*2)
	h.ok(err)
	h.equal(len(rows), partitions*commits)
	for n, row := range rows {
		h.equal(row.Seq, uint64(n)+1)
	}
	h.chains()
}

// readersSeeWholeCommits: each commit rewrites all items, so a Load in which two of them differ, or in which one
// is not of the head's revision, has seen half a commit. Revisions never go back for one reader.
func readersSeeWholeCommits(h *harness) {
	const commits, items = 60, 20
	// All items get one body, which tells of the revision.
	write := func(revision int) []storage.Write {
		var writes []storage.Write
		for n := range items {
			// Bodies of changing size move rows about in whatever keeps them.
			writes = append(writes, put(storage.Key{Kind: "policy", ID: fmt.Sprint(n)}, fmt.Sprintf("%0*d", 1+revision%7*150, revision)))
		}
		return writes
	}
	i := h.create(alpha, write(1)...)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var loads atomic.Int64
	for range 3 {
		wg.Go(func() {
			for last := uint64(0); ; {
				select {
				// Readers go on until they have seen enough, if the writer was much faster.
				case <-stop:
					if loads.Load() >= commits/2 {
						return
					}
				default:
				}
				snapshot, err := h.b.Load(h.Context(), alpha)
				if err != nil {
					h.Error(err)
					return
				}
				loads.Add(1)
				// A connection that lags behind would show a former revision after a later one.
				if snapshot.Head.Revision < last {
					h.Errorf("revision %d after %d", snapshot.Head.Revision, last)
				}
				last = snapshot.Head.Revision
				for _, item := range snapshot.Items {
					if item.Kind == "policy" && (item.Version != last || string(item.Body) != string(snapshot.Items[0].Body)) {
						h.Errorf("revision %d has %s at %d", last, item.ID, item.Version)
						return
					}
				}
			}
		})
	}
	// The writer goes on without waiting for readers; only its end is told to them.
	for revision := 2; revision <= commits; revision++ {
		h.commit(commitOf(alpha, i, write(revision)...), uint64(revision))
	}
	close(stop)
	wg.Wait()
}

// commitsRaceFence: after Fence has returned no commit is taken and the revision stands, whatever was under way.
// A commit that came through would bring back a policy store whose deletion was acknowledged.
func commitsRaceFence(h *harness) {
	// A fresh partition each time, since a fence is for good.
	for round := range 20 {
		p := storage.PolicyStore(copse.PolicyStoreID(fmt.Sprint("round", round)))
		i := h.create(p)
		var after atomic.Bool
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 1000 {
					// Read before the commit begins: one that began earlier may still be taken, before the fence.
					late := after.Load()
					_, err := h.b.Commit(h.Context(), commitOf(p, i, put(one, "x")))
					switch {
					case errors.Is(err, storage.ErrNoHead):
						return
					case err != nil:
						h.Error(err)
						return
					case late:
						h.Error("a commit was taken after the fence")
						return
					}
				}
			})
		}
		h.ok(h.b.Fence(h.Context(), p, i, "tester"))
		after.Store(true)
		revision := h.head(p).Revision
		wg.Wait()
		h.equal(h.head(p).Revision, revision)
		h.eraseAll(p, i, 1000)
	}
	h.chains()
}
