package policystore

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage/memory"
)

// One policy store that floods has its own turn and no more; another's expensive decision goes on, and
// cheap ones never wait.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := turns{make(chan struct{}, 1)}
		noisy, other := &turn{of: make(chan struct{}, 1)}, &turn{of: make(chan struct{}, 1)}
		ctx := t.Context()
		if taken, err := all.begin(ctx, "noisy", noisy, expensive); !taken || err != nil {
			t.Fatal(taken, err)
		}
		start := time.Now()
		if taken, err := all.begin(ctx, "noisy", noisy, expensive); taken || copse.KindOf(err) != copse.Throttled || time.Since(start) != longestTurn {
			t.Errorf("a second one at once: %v, %v after %s", taken, err, time.Since(start))
		}
		for _, o := range []*turn{noisy, other} {
			if taken, err := all.begin(ctx, "cheap", o, expensive-1); taken || err != nil {
				t.Errorf("a cheap decision waited: %v, %v", taken, err)
			}
		}
		ended, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := all.begin(ended, "noisy", noisy, expensive); copse.KindOf(err) != copse.Unavailable {
			t.Errorf("a caller that left: %v", err)
		}
		// Ten of the noisy one's and one of another's wait. The other's is not behind the ten.
		var order []string
		for range 10 {
			go func() {
				if taken, err := all.begin(ctx, "noisy", noisy, expensive); err == nil {
					order = append(order, "noisy")
					all.end(noisy, taken)
				}
			}()
		}
		synctest.Wait()
		go func() {
			if taken, err := all.begin(ctx, "other", other, expensive); err == nil {
				order = append(order, "other")
				all.end(other, taken)
			}
		}()
		synctest.Wait()
		all.end(noisy, true)
		synctest.Wait()
		if len(order) != 11 || order[0] != "other" {
			t.Errorf("in the order %v", order)
		}
		if len(all.all) != 0 || len(noisy.of) != 0 || len(other.of) != 0 {
			t.Error("a turn was not given back")
		}
	})
}

// A defect in the middle of a decision, which the server answers with an error, costs nobody a turn.
func TestATurnIsGivenBackAfterADefect(t *testing.T) {
	s, e := &Service{turns: newTurns()}, &compiled{turn: newTurn()}
	for range 100 {
		func() {
			defer func() { _ = recover() }()
			if err := s.inTurn(t.Context(), "p", e, expensive, func() { panic("defect") }); err != nil {
				t.Error(err)
			}
		}()
	}
	if len(s.turns.all) != 0 || len(e.turn.of) != 0 {
		t.Error("a turn was not given back")
	}
}

// What a policy store's decisions cost is known from the last ones, and not forgotten over a few cheap ones
// or a change of a policy.
func TestExpensiveDecisionsAreKnown(t *testing.T) {
	ctx := t.Context()
	s, err := New(Config{Backend: memory.New()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	p, err := s.Create(ctx, access.System(), NewPolicyStore{
		Settings: copse.Settings{Validation: copse.ValidationOff},
		Policies: []PolicyText{{Name: "p", Statement: `permit (principal, action == Action::"view", resource) when { true` +
			strings.Repeat(` && context.a.containsAll(context.b)`, 250) + ` };`}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var set []string
	for i := range 1000 {
		set = append(set, fmt.Sprintf(`{"long":%d}`, i))
	}
	all := `{"set":[` + strings.Join(set, ",") + `]}`
	req := &copse.Request{PolicyStoreID: p.ID, Incarnation: p.Incarnation, Principal: types.NewEntityUID("User", "alice"),
		Action: types.NewEntityUID("Action", "view"), Resource: types.NewEntityUID("Doc", "1"),
		Context: copse.Data{Format: copse.FormatAVPMap, Bytes: []byte(`{"a":` + all + `,"b":` + all + `}`)}}
	usual := func() int64 {
		e, err := s.snapshots.Get(ctx, p.ID)
		if err != nil {
			t.Fatal(err)
		}
		return e.turn.usual.Load()
	}
	decide := func(want copse.Decision) {
		if out, err := s.Decider().Decide(ctx, req); err != nil || out.Decision != want || out.OverBudget {
			t.Fatal(out, err)
		}
	}
	decide(copse.Allow)
	if usual() < expensive {
		t.Fatalf("it cost %d", usual())
	}
	cheap := *req
	cheap.Action.ID, cheap.Context = "edit", copse.Data{}
	req = &cheap
	for range 10 {
		decide(copse.Deny)
	}
	if _, err := s.CreatePolicy(ctx, access.System(), p.ID, NewPolicy{Statement: `permit (principal, action == Action::"x", resource);`}); err != nil {
		t.Fatal(err)
	}
	decide(copse.Deny)
	if usual() < expensive {
		t.Errorf("forgotten: %d", usual())
	}
	for range 1000 {
		decide(copse.Deny)
	}
	if usual() >= expensive {
		t.Errorf("still expensive after a thousand cheap ones: %d", usual())
	}
}

// Rules of the decision log read a request once more: a large one waits for its turn there as well.
func TestRulesOfTheLogWaitForTheirTurn(t *testing.T) {
	s, err := New(Config{Backend: memory.New(), LogKey: []byte("key")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	p, err := s.Create(t.Context(), access.System(), NewPolicyStore{Settings: copse.Settings{Validation: copse.ValidationOff}})
	if err != nil {
		t.Fatal(err)
	}
	if p, err = s.Update(t.Context(), access.System(), p.ID, Update{Logging: &LoggingUpdate{Hash: &[]string{"context"}}}); err != nil {
		t.Fatal(err)
	}
	e, err := s.snapshots.Get(t.Context(), p.ID)
	if err != nil {
		t.Fatal(err)
	}
	for range cap(e.turn.of) {
		e.turn.of <- struct{}{} // others decide
	}
	for letters, want := range map[int]copse.Kind{100: 0, 20_000: copse.Unavailable} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		req := &copse.Request{PolicyStoreID: p.ID, Incarnation: p.Incarnation, Principal: types.NewEntityUID("User", "alice"),
			Action: types.NewEntityUID("Action", "view"), Resource: types.NewEntityUID("Doc", "1"),
			Context: copse.Data{Format: copse.FormatAVPMap, Bytes: []byte(`{"a":{"string":"` + strings.Repeat("a", letters) + `"}}`)}}
		if out, err := s.Logged(ctx, p.ID, p.Incarnation, req); copse.KindOf(err) != want || err == nil && len(out.Kept.Context) == 0 {
			t.Errorf("a context of %d: %s, %v", letters, out.Kept.Context, err)
		}
		cancel()
	}
}
