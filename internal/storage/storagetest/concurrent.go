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

func concurrentCommits(h *harness) {
	const committers, wanted = 8, 200
	i := h.create(alpha, put(one, "0"))
	var wins sync.Map // version -> winner
	var won, lost atomic.Int64
	var wg sync.WaitGroup
	for n := range committers {
		wg.Go(func() {
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
					if other, twice := wins.LoadOrStore(item.Version, n); twice {
						h.Errorf("version %d was replaced by %v and by %d", item.Version, other, n)
					}
					if revision <= item.Version {
						h.Errorf("revision %d after version %d", revision, item.Version)
					}
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
	h.equal(h.head(alpha).Revision, uint64(won.Load())+1)
	h.chains()
}

func concurrentPartitions(h *harness) {
	const partitions, commits = 32, 10
	var mu sync.Mutex
	last := make(map[storage.Partition]uint64)
	defer h.b.Follow(func(c storage.Change) {
		mu.Lock()
		defer mu.Unlock()
		if c.Revision != last[c.Partition]+1 {
			h.Errorf("%v was told %d after %d", c.Partition, c.Revision, last[c.Partition])
		}
		last[c.Partition] = c.Revision
	})()
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
	rows, err := h.b.Feed(h.Context(), 0, partitions*commits*2)
	h.ok(err)
	h.equal(len(rows), partitions*commits)
	for n, row := range rows {
		h.equal(row.Seq, uint64(n)+1)
	}
	h.chains()
}

func readersSeeWholeCommits(h *harness) {
	const commits, items = 60, 20
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
	for revision := 2; revision <= commits; revision++ {
		h.commit(commitOf(alpha, i, write(revision)...), uint64(revision))
	}
	close(stop)
	wg.Wait()
}

func commitsRaceFence(h *harness) {
	for round := range 20 {
		p := storage.PolicyStore(copse.PolicyStoreID(fmt.Sprint("round", round)))
		i := h.create(p)
		var after atomic.Bool
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 1000 {
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
