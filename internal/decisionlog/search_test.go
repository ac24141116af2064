package decisionlog

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

// However little one call may read, the calls together find what reading everything finds: in segments that
// are compressed, closed and open, and in pieces of the last.
func TestPartsOfASearchAreTheWhole(t *testing.T) {
	dir := t.TempDir()
	l := open(t, config(dir))
	random := rand.New(rand.NewPCG(7, 7))
	stores := []string{"acme", "globex", "initech"}
	type known struct {
		n     uint64
		entry Entry
	}
	var all []known
	padding := types.String(strings.Repeat("x", 2000))
	write := func(n int) {
		for i := range n {
			e := entry(stores[random.IntN(len(stores))], i%10)
			e.Action.ID += padding
			must(t, l.Record(t.Context(), []Entry{*e}))
			if i%50 == 0 {
				l.drain()
			}
		}
		l.drain()
	}
	for range 3 {
		write(60)
		rotate(t, l)
	}
	must(t, l.tidy())
	write(30)
	rotate(t, l)
	write(500)
	chunks, last, err := l.chunks()
	must(t, err)
	if len(chunks) < 7 {
		t.Fatalf("only %d chunks", len(chunks))
	}
	everything := func(copse.PolicyStoreID, copse.TenantID) bool { return true }
	whole, err := l.Search(t.Context(), &Filter{May: everything}, 10_000)
	must(t, err)
	if len(whole.Found) != 710 || whole.Before != 0 || whole.Next != last {
		t.Fatalf("%d found, %d, %d of %d", len(whole.Found), whole.Before, whole.Next, last)
	}
	for _, f := range whole.Found {
		d, err := f.Decision()
		must(t, err)
		all = append(all, known{f.N, Entry{PolicyStoreID: d.PolicyStoreID, Time: d.Time}})
	}
	calls := 0
	for range 60 {
		l.budget = random.Int64N(1 << 20)
		f := Filter{May: everything}
		if random.IntN(2) == 0 {
			f.PolicyStoreID = copse.PolicyStoreID(stores[random.IntN(len(stores))])
		}
		if random.IntN(3) == 0 {
			f.From = all[random.IntN(len(all))].entry.Time
		}
		if random.IntN(3) == 0 {
			f.To = all[random.IntN(len(all))].entry.Time
		}
		limit := 1 + random.IntN(300)
		var want, got []uint64
		lowest := uint64(0)
		forward := random.IntN(2) == 0
		if forward {
			lowest = 1 + uint64(random.IntN(700))
		}
		for _, k := range all {
			if k.n > lowest && (f.PolicyStoreID == "" || f.PolicyStoreID == k.entry.PolicyStoreID) && !k.entry.Time.Before(f.From) && (f.To.IsZero() || k.entry.Time.Before(f.To)) {
				want = append(want, k.n)
			}
		}
		for f.After = lowest; ; calls++ {
			r, err := l.Search(t.Context(), &f, limit)
			must(t, err)
			var part []uint64
			for _, found := range r.Found {
				part = append(part, found.N)
			}
			if len(part) > limit {
				t.Fatalf("%d found, the limit is %d", len(part), limit)
			}
			if forward {
				got = append(got, part...)
				if r.Next == last {
					break
				}
				f.After = r.Next
				continue
			}
			if got = append(part, got...); r.Before == 0 {
				break
			}
			f.Before = r.Before
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%+v with limit %d and budget %d: found %d, want %d", f, limit, l.budget, len(got), len(want))
		}
	}
	if calls < 200 {
		t.Errorf("only %d calls", calls)
	}
}

// The last decisions, and those that have come since, cost the same in a log of any size.
func TestTheEndOfTheLogIsReadAlone(t *testing.T) {
	l := open(t, config(t.TempDir()))
	for range 20 {
		record(t, l, "acme", 500)
		l.drain()
	}
	chunks, last, err := l.chunks()
	must(t, err)
	for _, f := range []Filter{{}, {After: last - 10}, {From: time.Now().Add(time.Minute)}} {
		f.May = func(copse.PolicyStoreID, copse.TenantID) bool { return true }
		s := search{Filter: &f, ctx: t.Context(), limit: 10, before: 1 << 60, budget: searchBytes}
		part := slices.DeleteFunc(slices.Clone(chunks), s.elsewhere)
		if f.After > 0 {
			_, err = s.forward(part, last)
		} else {
			_, err = s.backward(part, last)
		}
		must(t, err)
		if s.read > 3*chunkBytes {
			t.Errorf("%+v reads %d bytes", f, s.read)
		}
	}
}

// One caller's searches leave the others a place, or are told to wait.
func TestSearchesAreFewAtATime(t *testing.T) {
	l := open(t, config(t.TempDir()))
	for range searches {
		l.searching <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Search(ctx, &Filter{}, 1); copse.KindOf(err) != copse.Throttled {
		t.Errorf("one search more: %v", err)
	}
}

// What a caller may send can't make a line of its own, or be another line's.
func TestTextStaysInItsLine(t *testing.T) {
	dir := t.TempDir()
	l := open(t, config(dir))
	const evil = "x\n{\"n\":1,\"seq\":1,\"commitment\":\"00\",\"erased\":true}\r\n\x00\u2028\"},\"entry\":{\"kind\":\"decision\",\"tenant\":\"tenant-globex\"\xff"
	e := entry("acme", 1)
	e.RequestID, e.Via, e.Key = evil, evil, evil
	e.Principal, e.Action, e.Resource = types.NewEntityUID(evil, evil), types.NewEntityUID("Action", evil), types.NewEntityUID("Doc", evil)
	e.Response.Determining = []copse.PolicyRef{{ID: evil}}
	e.Response.Errors = []copse.EvaluationError{{Policy: copse.PolicyRef{ID: evil}, Message: evil}}
	must(t, l.Record(t.Context(), []Entry{*e}))
	record(t, l, "globex", 1)
	everything := func(copse.PolicyStoreID, copse.TenantID) bool { return true }
	for tenant, want := range map[copse.TenantID]int{"tenant-acme": 1, "tenant-globex": 1} {
		r, err := l.Search(t.Context(), &Filter{May: everything, Tenant: tenant}, 10)
		must(t, err)
		if len(r.Found) != want {
			t.Errorf("%s: %d found", tenant, len(r.Found))
		}
	}
	must(t, l.Erase(t.Context(), "globex"))
	must(t, l.Close())
	r := verify(t, dir, "")
	wantClean(t, r)
	if r.Lines != 3 || r.Erased != 1 || strings.Count(contents(t, dir), "tenant-acme") != 1 {
		t.Errorf("%+v", r)
	}
}
