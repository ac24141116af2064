package policystore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
)

// settled waits until heads and directory rows agree and no erasure is left, and lists the rows.
func settled(t *testing.T, b storage.Backend) []string {
	t.Helper()
	ctx := context.Background()
	var rows []string
	eventually(t, "heads and directory rows to agree", func() bool {
		rows = nil
		heads, err := b.Heads(ctx, "", 1000)
		must(t, err)
		items, err := b.Scan(ctx, storage.Directory(), "policy-store", "", 1000)
		must(t, err)
		erasures, err := b.Scan(ctx, storage.Directory(), "erasure", "", 1000)
		must(t, err)
		for _, item := range items {
			rows = append(rows, item.ID)
		}
		for _, h := range heads {
			if h.State != storage.Active {
				return false
			}
		}
		return len(heads) == len(items) && len(erasures) == 0
	})
	return rows
}

func TestCrashWhileCreating(t *testing.T) {
	ctx := context.Background()
	made, unmade := 0, 0
	for n := int64(1); n <= 3; n++ {
		for _, late := range []bool{false, true} {
			b := memory.New()
			other := create(t, newService(t, b), policystore.NewPolicyStore{Policies: named("p", permitAll)})
			broken, err := policystore.New(policystore.Config{Backend: &faulty{Backend: b, n: n, late: late}})
			must(t, err)
			_, err = broken.Create(ctx, root, policystore.NewPolicyStore{
				Settings: copse.Settings{Validation: copse.ValidationOff}, Policies: named("half-made", permitAll),
			})
			if (err == nil) != (n > 2) {
				t.Fatalf("plug pulled at %d: %v", n, err)
			}
			must(t, broken.Close())

			s := newService(t, b)
			must(t, s.Resume(ctx))
			for _, row := range settled(t, b) {
				wantDecision(t, s, copse.PolicyStoreID(row), copse.Allow, map[bool]string{true: "p", false: "half-made"}[row == string(other.ID)])
			}
			if len(traces(t, b, "half-made")) > 0 {
				made++
			} else {
				unmade++
			}
		}
	}
	if made < 2 || unmade < 3 {
		t.Fatalf("made %d, unmade %d: the crashes came at the wrong moments", made, unmade)
	}
}

func TestCrashWhileDeleting(t *testing.T) {
	ctx := context.Background()
	var gone, there int
	for n := int64(1); n <= 10; n++ {
		for _, late := range []bool{false, true} {
			b := memory.New()
			s := newService(t, b)
			keep := create(t, s, policystore.NewPolicyStore{Policies: named("p", permitAll)})
			p := create(t, s, policystore.NewPolicyStore{Policies: named("to-be-erased", permitAll)})
			f := &faulty{Backend: b, n: n, late: late}
			broken, err := policystore.New(policystore.Config{Backend: f})
			must(t, err)
			if err := broken.Delete(ctx, root, p.ID); err == nil && n == 1 {
				t.Fatal("deleted without a commit")
			}
			must(t, broken.Close())

			again := newService(t, b)
			must(t, again.Resume(ctx))
			_, err = again.Get(ctx, root, p.ID)
			settled(t, b)
			left := traces(t, b, string(p.ID), "to-be-erased")
			switch {
			case err == nil:
				there++
				wantDecision(t, again, p.ID, copse.Allow, "to-be-erased")
			case copse.KindOf(err) == copse.NotFound && len(left) == 0:
				gone++
			default:
				t.Fatalf("plug pulled at %d (late %v): %v, left %q", n, late, err, left)
			}
			wantDecision(t, again, keep.ID, copse.Allow, "p")
		}
	}
	if gone < 10 || there < 1 {
		t.Fatalf("gone %d, there %d: the crashes came at the wrong moments", gone, there)
	}
}

// A commit whose answer was lost is asked about: the policy store is there, so it was made.
func TestLostAnswerOfCreate(t *testing.T) {
	b := memory.New()
	s := newService(t, &lostAnswer{Backend: b})
	p := create(t, s, policystore.NewPolicyStore{Policies: named("p", permitAll)})
	wantDecision(t, s, p.ID, copse.Allow, "p")
}

// A deletion whose answer was lost goes on by itself: nobody is told that the policy store is gone before it is
// fenced. One that did not happen leaves it as it was.
func TestLostAnswerOfDelete(t *testing.T) {
	ctx := context.Background()
	for _, happened := range []bool{true, false} {
		b := memory.New()
		l := &lostDeletion{Backend: b, happens: happened}
		s := newService(t, l)
		p := create(t, s, policystore.NewPolicyStore{Policies: named("to-be-erased", permitAll)})
		l.lose.Store(true)
		wantKind(t, s.Delete(ctx, root, p.ID), copse.Unavailable)
		l.lose.Store(false)
		if !happened {
			wantDecision(t, s, p.ID, copse.Allow, "to-be-erased")
		}
		must(t, s.Delete(ctx, root, p.ID))
		if head, err := b.Head(ctx, storage.PolicyStore(p.ID)); err == nil && head.State != storage.Fenced {
			t.Errorf("happened %t: acknowledged without a fence", happened)
		}
		settled(t, b)
		if left := traces(t, b, string(p.ID), "to-be-erased"); len(left) > 0 {
			t.Errorf("happened %t: left after deletion: %q", happened, left)
		}
	}
}

type lostDeletion struct {
	storage.Backend
	happens bool
	lose    atomic.Bool
}

func (l *lostDeletion) Commit(ctx context.Context, c storage.Commit) (uint64, error) {
	if !l.lose.Load() || c.Operation != "DeletePolicyStore" {
		return l.Backend.Commit(ctx, c)
	}
	if l.happens {
		_, _ = l.Backend.Commit(ctx, c)
	}
	return 0, storage.ErrFailing
}

type lostAnswer struct{ storage.Backend }

func (l *lostAnswer) Commit(ctx context.Context, c storage.Commit) (uint64, error) {
	v, err := l.Backend.Commit(ctx, c)
	if c.Partition == storage.Directory() && c.Operation == "CreatePolicyStore" && err == nil {
		err = errPulled
	}
	return v, err
}

func TestLargeErasureGoesOnInTheBackground(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		b = slowErase{b} // 20 rows at a time: 400 before the answer
		ctx, s := context.Background(), newService(t, b)
		ids := []copse.PolicyStoreID{}
		for range 2 {
			id := create(t, s, policystore.NewPolicyStore{}).ID
			for part := range 2 {
				var in policystore.NewContents
				for i := range 300 {
					in.Policies = append(in.Policies, policystore.PolicyText{
						Name: fmt.Sprint("p", i), Statement: fmt.Sprintf(`@n("%d") permit (principal, action, resource == Doc::"%d");`, part, i)})
				}
				_, err := s.PutContents(ctx, root, id, in)
				must(t, err)
			}
			ids = append(ids, id)
		}
		for _, id := range ids {
			must(t, s.Delete(ctx, root, id))
			_, err := s.Decider().Decide(ctx, view(id))
			wantKind(t, err, copse.NotFound)
		}
		heads, err := b.Heads(ctx, "", 10)
		must(t, err)
		if len(heads) == 0 {
			t.Fatal("nothing was left to the background")
		}
		must(t, s.Close()) // stops in the middle
		again := newService(t, b)
		must(t, again.Resume(ctx))
		settled(t, b)
		if left := traces(t, b, string(ids[0]), string(ids[1]), "Doc::"); len(left) > 0 {
			t.Fatalf("left after deletion: %d traces, %q", len(left), left[0])
		}
	})
}

type slowErase struct{ storage.Backend }

func (s slowErase) Erase(ctx context.Context, p storage.Partition, i copse.Incarnation, limit int) (bool, error) {
	time.Sleep(5 * time.Millisecond)
	return s.Backend.Erase(ctx, p, i, min(limit, 20))
}

// A failing fence must not be acknowledged, because a write under way could still land.
func TestDeleteIsNotAcknowledgedWithoutFence(t *testing.T) {
	ctx := context.Background()
	b := &noFence{Backend: memory.New()}
	s := newService(t, b)
	p := create(t, s, policystore.NewPolicyStore{Policies: named("p", permitAll)})
	b.refuse.Store(true)
	wantKind(t, s.Delete(ctx, root, p.ID), copse.Unavailable, "repeat")
	short, cancel := context.WithCancel(ctx)
	cancel()
	wantKind(t, s.Delete(short, root, p.ID), copse.Unavailable)
	b.refuse.Store(false)
	must(t, s.Delete(ctx, root, p.ID))
	head, err := b.Head(ctx, storage.PolicyStore(p.ID))
	if err == nil && head.State != storage.Fenced {
		t.Fatal("acknowledged without a fence")
	}
	settled(t, b)
}

type noFence struct {
	storage.Backend
	refuse atomic.Bool
}

func (n *noFence) Fence(ctx context.Context, p storage.Partition, i copse.Incarnation, actor string) error {
	if n.refuse.Load() {
		return errPulled
	}
	return n.Backend.Fence(ctx, p, i, actor)
}

// An erasure that is finished late must not take the history of a tenant made since under the name.
func TestASuccessorKeepsItsHistory(t *testing.T) {
	for name, restart := range map[string]bool{"in the background": false, "after a restart": true} {
		t.Run(name, func(t *testing.T) {
			ctx, b := context.Background(), &noFence{Backend: memory.New()}
			s := newService(t, b)
			p := create(t, s, policystore.NewPolicyStore{Policies: named("p", permitAll)})
			tenant := storage.Key{Kind: "tenant", ID: "acme"}
			write := func(body string) {
				t.Helper()
				head, err := b.Head(ctx, storage.Directory())
				must(t, err)
				_, err = b.Commit(ctx, storage.Commit{Partition: storage.Directory(), Incarnation: head.Incarnation,
					Writes: []storage.Write{{Key: tenant, Body: []byte(body)}}, Actor: "test", Operation: "Test"})
				must(t, err)
			}
			write("predecessor")
			b.refuse.Store(true)
			wantKind(t, s.Delete(ctx, root, p.ID, storage.Write{Key: tenant, Expect: storage.Any()}), copse.Unavailable)
			write("successor")
			if restart {
				must(t, s.Close())
				s = newService(t, b)
			}
			b.refuse.Store(false)
			must(t, s.Resume(ctx))
			settled(t, b)
			rows, err := b.History(ctx, storage.Directory(), 0, 100)
			must(t, err)
			var bodies []string
			for _, row := range rows {
				if row.Key == tenant {
					bodies = append(bodies, string(row.Body))
				}
			}
			if !slices.Equal(bodies, []string{"successor"}) {
				t.Errorf("the directory remembers %q", bodies)
			}
		})
	}
}

// The sweep must not take a policy store that is just being made for one that a crash left behind.
func TestSweepLeavesCreatesAlone(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx, s := context.Background(), newService(t, b)
		var wg sync.WaitGroup
		var mu sync.Mutex
		var made []copse.PolicyStoreID
		for range 8 {
			wg.Go(func() {
				for range 25 {
					p, err := s.Create(ctx, root, policystore.NewPolicyStore{Settings: copse.Settings{Validation: copse.ValidationOff}, Policies: named("p", permitAll)})
					if err != nil {
						t.Error(describe(err))
						return
					}
					mu.Lock()
					made = append(made, p.ID)
					mu.Unlock()
				}
			})
		}
		for range 30 {
			must(t, s.Resume(ctx))
		}
		wg.Wait()
		must(t, s.Resume(ctx))
		if rows := settled(t, b); len(rows) != len(made) || len(made) != 200 {
			t.Fatalf("%d made, %d there", len(made), len(rows))
		}
		for _, id := range made {
			wantDecision(t, s, id, copse.Allow, "p")
		}
	})
}

// What no longer parses makes the policy store refuse decisions; leaving it out could leave out a forbid.
func TestUnreadablePolicyFailsClosed(t *testing.T) {
	ctx, b := context.Background(), memory.New()
	var log bytes.Buffer
	s := newServiceFrom(t, policystore.Config{Backend: b, Log: slog.New(slog.NewTextHandler(&log, nil))})
	p := create(t, s, policystore.NewPolicyStore{Policies: named("p", permitAll, "q", forbidAll)})
	q, err := s.GetPolicy(ctx, root, p.ID, "name/q")
	must(t, err)
	key := storage.Key{Kind: "policy", ID: string(q.ID)}
	item, err := b.Get(ctx, storage.PolicyStore(p.ID), key)
	must(t, err)
	for _, body := range []string{
		strings.Replace(string(item.Body), "forbid (", "outlaw (", 1),
		strings.Replace(string(item.Body), `"v":1`, `"v":2`, 1),
		`{`,
	} {
		_, err = b.Commit(ctx, storage.Commit{Partition: storage.PolicyStore(p.ID), Incarnation: p.Incarnation,
			Writes: []storage.Write{{Key: key, Body: []byte(body), Expect: storage.Any()}}})
		must(t, err)
		log.Reset()
		for range 3 {
			out, err := s.Decider().Decide(ctx, view(p.ID))
			e := wantKind(t, err, copse.Unavailable)
			if out.Decision != copse.Deny || strings.Contains(e.Detail, string(q.ID)) {
				t.Fatalf("%+v %q", out, e.Detail)
			}
		}
		if n := strings.Count(log.String(), "can't be compiled"); n != 1 || !strings.Contains(log.String(), string(p.ID)) || !strings.Contains(log.String(), string(q.ID)) {
			t.Fatalf("logged %d times: %s", n, &log)
		}
	}
	// It can be repaired through the front door as long as the body can be read.
	_, err = b.Commit(ctx, storage.Commit{Partition: storage.PolicyStore(p.ID), Incarnation: p.Incarnation,
		Writes: []storage.Write{{Key: key, Body: []byte(strings.Replace(string(item.Body), "forbid (", "outlaw (", 1)), Expect: storage.Any()}}})
	must(t, err)
	text := forbidAll
	_, err = s.UpdatePolicy(ctx, root, p.ID, q.ID, policystore.PolicyUpdate{Statement: &text})
	must(t, err)
	wantDecision(t, s, p.ID, copse.Deny, "q")
}

func TestFailingStorage(t *testing.T) {
	ctx := context.Background()
	for _, tt := range []struct {
		err            error
		write, decides copse.Kind
	}{
		{storage.ErrFull, copse.Unavailable, copse.Unavailable},
		{storage.ErrFailing, copse.Unavailable, copse.Unavailable},
		{storage.ErrClosed, copse.Unavailable, copse.Unavailable},
		{context.DeadlineExceeded, copse.Unavailable, copse.Unavailable},
		{storage.ErrTooLarge, copse.QuotaExceeded, copse.Unavailable},
		{errors.New("disk on fire"), copse.Internal, copse.Unavailable},
	} {
		b := &failing{Backend: memory.New()}
		s := newService(t, b)
		p := create(t, s, policystore.NewPolicyStore{Policies: named("p", permitAll)})
		b.err.Store(&tt.err)
		_, err := s.CreatePolicy(ctx, root, p.ID, policystore.NewPolicy{Statement: permitAll})
		wantKind(t, err, tt.write)
		out, err := s.Decider().Decide(ctx, view(p.ID))
		wantKind(t, err, tt.decides)
		if out.Decision != copse.Deny {
			t.Fatal("allowed on an error path")
		}
		b.err.Store(nil)
		wantDecision(t, s, p.ID, copse.Allow, "p")
	}
}

type failing struct {
	storage.Backend
	err atomic.Pointer[error]
}

func (f *failing) Load(ctx context.Context, p storage.Partition) (storage.Snapshot, error) {
	if err := f.err.Load(); err != nil {
		return storage.Snapshot{}, *err
	}
	return f.Backend.Load(ctx, p)
}

// A page of which all is deleted while it is read is not taken for the end of the list.
func TestListGoesOnBehindWhatWasDeleted(t *testing.T) {
	ctx := context.Background()
	v := &vanishing{Backend: memory.New()}
	s := newService(t, v)
	for range 5 {
		create(t, s, policystore.NewPolicyStore{})
	}
	v.found = func(items []storage.Item) {
		for _, item := range items[:2] {
			must(t, s.Delete(ctx, root, copse.PolicyStoreID(item.ID)))
		}
	}
	listed := 0
	for after, more := copse.PolicyStoreID(""), true; more; {
		var page []policystore.PolicyStore
		var err error
		page, more, err = s.List(ctx, root, after, 2)
		must(t, err)
		if listed += len(page); len(page) > 0 {
			after = page[len(page)-1].ID
		} else if more {
			t.Fatal("there is more, and nothing to go on from")
		}
	}
	if listed != 3 {
		t.Errorf("%d of the 3 that are left are listed", listed)
	}
}

// vanishing tells of the first scan of policy stores before its result is looked at.
type vanishing struct {
	storage.Backend
	found func([]storage.Item)
}

func (v *vanishing) Scan(ctx context.Context, p storage.Partition, k storage.Kind, after string, limit int) ([]storage.Item, error) {
	items, err := v.Backend.Scan(ctx, p, k, after, limit)
	if found := v.found; k == "policy-store" && found != nil {
		v.found = nil
		found(items)
	}
	return items, err
}
