package storagetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
)

// RandomConfig says what [Random] works on and how long.
type RandomConfig struct {
	// Backend must be empty; Random does not close it, nor the ones that Reopen returns.
	Backend storage.Backend
	// Seed decides everything but the salts, the times and the incarnations: a failure names it, and it repeats.
	Seed       uint64
	Operations int // at least 1000, or the spread asserted in the end can't be reached
	// Reopen, if set, is called now and then: it closes the backend and opens it again on the same
	// data, and returns that.
	// It gives the backend that is in use. Without it, nothing is proved of what is on the disk.
	Reopen func(storage.Backend) storage.Backend
}

// Random does the same random operations on a backend and on the memory backend, and fails when
// anything either of them answers, tells followers or holds is different. What is random in itself
// (salts, times, and the chains made of them) is verified by recomputation instead.
func Random(t *testing.T, cfg RandomConfig) {
	r := &random{
		T: t, cfg: cfg, rand: rand.New(rand.NewPCG(cfg.Seed, 0)),
		b: cfg.Backend, model: memory.New(), counts: make(map[string]int),
		former: make(map[storage.Partition][]copse.Incarnation),
	}
	// The model is the one that is not reopened, so its followers stay.
	r.model.Follow(func(c storage.Change) { r.modelTold = append(r.modelTold, c) })
	r.follow()
	for n := range cfg.Operations {
		r.step(n)
		// At the first difference: what follows would only be its consequences.
		if t.Failed() {
			t.Fatalf("after operation %d of seed %d", n, cfg.Seed)
		}
	}
	r.compareAll()
	if err := CheckChains(t.Context(), r.b); err != nil {
		t.Error(err)
	}
	// How often each answer came in 1000 operations, at least. A change of the weights in step that leaves one of
	// them out is noticed here.
	for what, want := range map[string]int{
		"create": 10, "create ErrExists": 5, "create again": 3, "commit": 150, "commit ErrConflict": 50, "commit ErrNoHead": 20,
		"commit ErrInvalid": 3, "fence": 10, "fence ErrNoHead": 1, "erase part": 10, "erase done": 5,
		"erase ErrConflict": 3, "forget": 10, "get": 20, "get ErrNotFound": 20, "scan": 20, "load": 10, "compare": 10,
	} {
		if r.counts[what] < want*cfg.Operations/1000 {
			t.Errorf("%q happened %d times in %d operations: too few to prove anything", what, r.counts[what], cfg.Operations)
		}
	}
}

// random is one run. All of it happens in the test's goroutine: which of two operations came first is not in
// question here, see concurrent.go for that.
type random struct {
	*testing.T
	cfg  RandomConfig
	rand *rand.Rand

	b, model storage.Backend
	// Since the last step, in order. Both are held against each other after each step, so that a change told
	// late, twice or of the wrong partition is found with the operation that made it.
	told, modelTold []storage.Change
	stop            func()

	former map[storage.Partition][]copse.Incarnation // all that a partition ever had
	counts map[string]int
}

// follow listens to the backend, again after each reopening, since followers do not outlive a backend.
func (r *random) follow() {
	r.stop = r.b.Follow(func(c storage.Change) { r.told = append(r.told, c) })
}

// count is by operation and answer: "commit" counts those that were taken, "commit ErrConflict" those refused.
func (r *random) count(operation string, err error) {
	for name, answer := range map[string]error{
		"ErrNotFound": storage.ErrNotFound, "ErrNoHead": storage.ErrNoHead, "ErrExists": storage.ErrExists,
		"ErrConflict": storage.ErrConflict, "ErrInvalid": storage.ErrInvalid,
	} {
		if errors.Is(err, answer) {
			operation += " " + name
		}
	}
	r.counts[operation]++
}

// same compares the two answers to one operation.
// Errors are the same when they are the same for errors.Is, whatever their texts; then the values are compared,
// which beside an error must be equal too.
func (r *random) same(operation string, got, want any, gotErr, wantErr error) {
	r.Helper()
	r.count(operation, wantErr)
	for _, answer := range []error{
		storage.ErrNotFound, storage.ErrNoHead, storage.ErrExists, storage.ErrConflict, storage.ErrInvalid,
		storage.ErrTooLarge, storage.ErrFull, storage.ErrClosed,
	} {
		if errors.Is(gotErr, answer) != errors.Is(wantErr, answer) {
			r.Errorf("%s: error is %v, model says %v", operation, gotErr, wantErr)
			return
		}
	}
	if (gotErr == nil) != (wantErr == nil) {
		r.Errorf("%s: error is %v, model says %v", operation, gotErr, wantErr)
		return
	}
	if d := diff(want, got); d != "" {
		r.Errorf("%s: model -, backend +:\n%s", operation, d)
	}
}

func (r *random) partition() storage.Partition {
	names := prefixes()
	// A few are busy, so that histories get long; the others come and go.
	return names[min(r.rand.IntN(len(names)), r.rand.IntN(len(names)))]
}

// key is one of few, so that writes meet, with kinds of which one begins the other and ids that a collation or a
// C string would mix up.
func (r *random) key() storage.Key {
	return storage.Key{
		Kind: []storage.Kind{"policy", "polic", "name"}[r.rand.IntN(3)],
		ID:   []string{"", "a", "A", "a\x00", "ab", "b", "\xff"}[r.rand.IntN(7)],
	}
}

// incarnation is mostly the partition's own, sometimes a former one, or nobody's.
func (r *random) incarnation(p storage.Partition) copse.Incarnation {
	former := r.former[p]
	switch n := r.rand.IntN(20); {
	case len(former) == 0 || n == 0:
		return copse.NewIncarnation()
	case n == 1:
		return former[r.rand.IntN(len(former))]
	}
	return former[len(former)-1]
}

// expectation is mostly met.
// It asks the model: asking the backend would hide that the backend is wrong.
func (r *random) expectation(p storage.Partition, k storage.Key) storage.Expectation {
	item, _ := r.model.Get(context.Background(), p, k)
	switch r.rand.IntN(12) {
	case 0:
		return storage.Absent()
	case 1:
		return storage.Version(item.Version + uint64(r.rand.IntN(3)))
	case 2, 3, 4, 5:
		return storage.Any()
	}
	return storage.Version(item.Version)
}

// commitFor is a commit that is mostly taken, and sometimes invalid, outdated, another incarnation's, or of a
// partition that does not exist.
func (r *random) commitFor(p storage.Partition) storage.Commit {
	c := storage.Commit{
		Partition: p, Incarnation: r.incarnation(p),
		Actor: fmt.Sprint("actor", r.rand.IntN(3)), Operation: fmt.Sprint("operation", r.rand.IntN(3)),
	}
	used := make(map[storage.Key]bool)
	for range min(1+r.rand.IntN(6), r.rand.IntN(40)) { // hardly ever none
		k := r.key()
		if used[k] && r.rand.IntN(20) > 0 { // hardly ever the same twice
			continue
		}
		used[k] = true
		w := storage.Write{Key: k, Expect: r.expectation(p, k)}
		// A quarter are deletions, of what is there or not; of the others, half have an empty body.
		if r.rand.IntN(4) > 0 {
			w.Body = make([]byte, r.rand.IntN(2)*r.rand.IntN(3000))
			for n := range w.Body {
				w.Body[n] = byte(r.rand.IntN(256))
			}
		}
		c.Writes = append(c.Writes, w)
	}
	if r.rand.IntN(4) == 0 {
		k := r.key()
		c.Require = append(c.Require, storage.Requirement{Key: k, Expect: r.expectation(p, k)})
	}
	// One in ten of these names a revision that is still to come.
	if head, err := r.model.Head(context.Background(), p); err == nil && r.rand.IntN(4) == 0 {
		c.Expect = storage.Revision{Set: true, Value: head.Revision + uint64(r.rand.IntN(10)/9)}
	}
	return c
}

// step does one operation on both and compares what they answer and tell. n is its number.
func (r *random) step(n int) {
	ctx, p := context.Background(), r.partition()
	switch choice := r.rand.IntN(100); {
	case choice < 9:
		r.create(ctx, p)
	case choice < 60:
		c := r.commitFor(p)
		got, gotErr := r.b.Commit(ctx, c)
		want, wantErr := r.model.Commit(ctx, c)
		r.same("commit", got, want, gotErr, wantErr)
	case choice < 62:
		i := r.incarnation(p)
		r.same("fence", nil, nil, r.b.Fence(ctx, p, i, "fencer"), r.model.Fence(ctx, p, i, "fencer"))
	case choice < 68:
		r.erase(ctx, p)
	case choice < 70:
		k, upTo := r.key(), uint64(r.counts["forget"]%20) // 0, all of them, included
		r.same("forget", nil, nil, r.b.Forget(ctx, p, k, upTo), r.model.Forget(ctx, p, k, upTo))
	case choice < 82:
		k := r.key()
		got, gotErr := r.b.Get(ctx, p, k)
		want, wantErr := r.model.Get(ctx, p, k)
		r.same("get", got, want, gotErr, wantErr)
	case choice < 90:
		k, limit := r.key(), r.rand.IntN(6)
		got, gotErr := r.b.Scan(ctx, p, k.Kind, k.ID, limit)
		want, wantErr := r.model.Scan(ctx, p, k.Kind, k.ID, limit)
		r.same("scan", got, want, gotErr, wantErr)
	case choice < 97:
		got, gotErr := r.b.Load(ctx, p)
		want, wantErr := r.model.Load(ctx, p)
		r.same("load", stripHead(&got), stripHead(&want), gotErr, wantErr)
	default:
		if r.cfg.Reopen != nil && r.rand.IntN(3) == 0 {
			r.stop()
			r.b = r.cfg.Reopen(r.b)
			r.follow()
			r.counts["reopen"]++
		}
		r.compareAll()
	}
	if d := diff(r.modelTold, r.told); d != "" {
		r.Errorf("followers were told, model -, backend +:\n%s", d)
	}
	r.told, r.modelTold = nil, nil
}

// create is mostly valid, so that it is the partition that decides: absent, there, or fenced.
func (r *random) create(ctx context.Context, p storage.Partition) {
	c := r.commitFor(p)
	c.Create, c.Incarnation, c.Require = true, copse.NewIncarnation(), nil
	if r.rand.IntN(4) > 0 {
		c.Expect = storage.Revision{}
		c.Writes = []storage.Write{put(r.key(), "created")}
	}
	got, gotErr := r.b.Commit(ctx, c)
	want, wantErr := r.model.Commit(ctx, c)
	r.same("create", got, want, gotErr, wantErr)
	if wantErr == nil {
		if r.former[p] = append(r.former[p], c.Incarnation); len(r.former[p]) > 1 {
			r.counts["create again"]++
		}
	}
}

// erase goes on until nothing is left, more often than not: or partitions would stay fenced.
func (r *random) erase(ctx context.Context, p storage.Partition) {
	i := r.incarnation(p)
	for done := false; !done; {
		limit := 1 + r.rand.IntN(30)
		got, gotErr := r.b.Erase(ctx, p, i, limit)
		want, wantErr := r.model.Erase(ctx, p, i, limit)
		if done = want; wantErr != nil {
			done = true
			r.same("erase", got, want, gotErr, wantErr)
		} else if want {
			r.same("erase done", got, want, gotErr, wantErr)
		} else {
			r.same("erase part", got, want, gotErr, wantErr)
		}
		if r.Failed() || r.rand.IntN(4) == 0 {
			return
		}
	}
}

// compareAll compares everything that can be read.
// Pages begin and end where chance has it. Chains are recomputed now and then only, because it is dear.
func (r *random) compareAll() {
	ctx := context.Background()
	for _, p := range prefixes() {
		got, gotErr := r.b.Head(ctx, p)
		want, wantErr := r.model.Head(ctx, p)
		got.Chain, got.CreatedAt, want.Chain, want.CreatedAt = [32]byte{}, time.Time{}, [32]byte{}, time.Time{}
		r.same("head", got, want, gotErr, wantErr)
		gotAll, gotErr := r.b.Load(ctx, p)
		wantAll, wantErr := r.model.Load(ctx, p)
		r.same("load", stripHead(&gotAll), stripHead(&wantAll), gotErr, wantErr)
		after, limit := uint64(r.rand.IntN(5)), 1+r.rand.IntN(40)
		gotRows, gotErr := r.b.History(ctx, p, after, limit)
		wantRows, wantErr := r.model.History(ctx, p, after, limit)
		r.same("history", stripHistory(gotRows), stripHistory(wantRows), gotErr, wantErr)
	}
	got, gotErr := r.b.Heads(ctx, "", 5)
	want, wantErr := r.model.Heads(ctx, "", 5)
	r.same("heads", len(got), len(want), gotErr, wantErr)
	after := uint64(r.rand.IntN(50))
	gotFeed, gotErr := r.b.Feed(ctx, after, 1000)
	wantFeed, wantErr := r.model.Feed(ctx, after, 1000)
	r.same("feed", gotFeed, wantFeed, gotErr, wantErr)
	gotAudit, gotErr := r.b.Audit(ctx, after, 1000)
	wantAudit, wantErr := r.model.Audit(ctx, after, 1000)
	r.same("audit", stripAudit(gotAudit), stripAudit(wantAudit), gotErr, wantErr)
	if r.counts["compare"]++; r.counts["compare"]%4 == 0 {
		if err := CheckChains(ctx, r.b); err != nil {
			r.Error(err)
		}
	}
}

// stripHead takes out what two backends can't agree on: the chain, made of random salts, and the time.
func stripHead(s *storage.Snapshot) *storage.Snapshot {
	s.Head.Chain, s.Head.CreatedAt = [32]byte{}, time.Time{}
	return s
}

// stripHistory leaves of the salt whether there is one, which says whether the row is forgotten.
func stripHistory(rows []storage.HistoryRow) []storage.HistoryRow {
	for n := range rows {
		if rows[n].Salt != nil {
			rows[n].Salt = []byte("salt")
		}
		rows[n].Commitment, rows[n].At = [32]byte{}, time.Time{}
	}
	return rows
}

// stripAudit leaves who did what where, and how much of it.
func stripAudit(rows []storage.AuditRow) []storage.AuditRow {
	for n := range rows {
		rows[n].At, rows[n].Head, rows[n].Chain = time.Time{}, [32]byte{}, [32]byte{}
	}
	return rows
}
