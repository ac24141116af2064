package policystore_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage/memory"
)

// bubble runs a test in which time stands still until it is slept through.
func bubble(t *testing.T, f func(t *testing.T, s *policystore.Service)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := policystore.New(policystore.Config{Backend: memory.New(), DefaultPlan: policystore.PlanDefault})
		must(t, err)
		defer func() { must(t, s.Close()) }()
		f(t, s)
	})
}

// until counts how often do succeeds before it is throttled.
func until(t *testing.T, do func() error) int {
	t.Helper()
	for n := range 20_000 {
		if err := do(); err != nil {
			wantKind(t, err, copse.Throttled, "per second")
			return n
		}
	}
	t.Fatal("never throttled")
	return 0
}

func decideIn(s *policystore.Service, id copse.PolicyStoreID) func() error {
	return func() error {
		_, err := s.DecideAs(context.Background(), root, view(id))
		return err
	}
}

func createIn(s *policystore.Service, id copse.PolicyStoreID) func() error {
	n := 0
	return func() error {
		n++
		_, err := s.CreatePolicy(context.Background(), root, id, policystore.NewPolicy{Statement: fmt.Sprintf("permit (principal, action, resource == Doc::\"%d\");", n)})
		return err
	}
}

// Law 7: what one policy store spends is its own.
func TestRatesArePerPolicyStore(t *testing.T) {
	bubble(t, func(t *testing.T, s *policystore.Service) {
		one, two := create(t, s, policystore.NewPolicyStore{}).ID, create(t, s, policystore.NewPolicyStore{}).ID
		if n := until(t, decideIn(s, one)); n != 5_000 {
			t.Errorf("%d decisions in one moment, want 5000", n)
		}
		if n := until(t, createIn(s, one)); n != 100 {
			t.Errorf("%d writes in one moment, want 100", n)
		}
		// The authorizer's way to the same policy store has the same bucket.
		_, err := s.Decider().Decide(context.Background(), view(one))
		wantKind(t, err, copse.Throttled)
		if n := until(t, decideIn(s, two)); n != 5_000 {
			t.Errorf("%d decisions of the neighbour, want 5000", n)
		}
		// A stranger spends nothing: what his key does not cover is not there.
		time.Sleep(time.Second)
		stranger := access.Caller{KeyID: "k", Scope: access.Scope{PolicyStore: two}, Verbs: access.Decide}
		for range 100 {
			_, err := s.DecideAs(context.Background(), stranger, view(one))
			wantKind(t, err, copse.NotFound)
		}
		time.Sleep(100 * time.Millisecond)
		if n := until(t, decideIn(s, one)); n != 5_000 {
			t.Errorf("%d decisions a second later, want 5000", n)
		}
		time.Sleep(100 * time.Millisecond)
		if n := until(t, decideIn(s, one)); n != 500 {
			t.Errorf("%d decisions in a tenth of a second, want 500", n)
		}
	})
}

func TestPlansChangeWithoutRestart(t *testing.T) {
	bubble(t, func(t *testing.T, s *policystore.Service) {
		ctx := context.Background()
		id := create(t, s, policystore.NewPolicyStore{}).ID
		until(t, decideIn(s, id))
		p, err := s.GetPlan(ctx, root, policystore.PlanDefault)
		must(t, err)
		p.Quotas.DecisionsPerSecond, p.Quotas.PolicyBytes, p.Quotas.ScopeBytes = 7, 50, 60
		_, err = s.PutPlan(ctx, root, p)
		must(t, err)
		if n := until(t, decideIn(s, id)); n != 7 {
			t.Errorf("%d decisions, want the 7 of the plan as it is now", n)
		}
		_, err = s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Statement: forbidAll + "// this comment makes it too long"})
		wantKind(t, err, copse.QuotaExceeded, "at most 50")
		_, err = s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Statement: permitAll})
		must(t, err)
		_, err = s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Statement: permitAll})
		wantKind(t, err, copse.QuotaExceeded, "at most 60")
		_, err = s.Create(ctx, root, policystore.NewPolicyStore{
			Settings: copse.Settings{Validation: copse.ValidationOff}, Policies: named("a", permitAll, "b", permitAll)})
		wantKind(t, err, copse.QuotaExceeded, "at most 60")
		must(t, s.DeletePlan(ctx, root, policystore.PlanDefault))
		if n := until(t, decideIn(s, id)); n != 5_000 {
			t.Errorf("%d decisions, want the plan as it is built in", n)
		}
	})
}

func TestPlanAVPCountsOperations(t *testing.T) {
	bubble(t, func(t *testing.T, s *policystore.Service) {
		ctx := context.Background()
		id := create(t, s, policystore.NewPolicyStore{Plan: policystore.PlanAVP}).ID
		for name, c := range map[string]struct {
			do   func() error
			want int
		}{
			"IsAuthorized": {decideIn(s, id), 200},
			"CreatePolicy": {createIn(s, id), 10},
			"ListPolicies": {func() error {
				_, _, err := s.ListPolicies(ctx, root, id, policystore.PolicyFilter{}, "", 10)
				return err
			}, 10},
			"GetPolicyStore": {func() error { _, err := s.Get(ctx, root, id); return err }, 10},
		} {
			if n := until(t, c.do); n != c.want {
				t.Errorf("%s: %d in one moment, want %d", name, n, c.want)
			}
		}
	})
}

func TestPlansAreTheOperators(t *testing.T) {
	ctx, s := context.Background(), newService(t, memory.New())
	id := create(t, s, policystore.NewPolicyStore{}).ID
	writer := access.Caller{KeyID: "k", Scope: access.Scope{PolicyStore: id}, Verbs: access.Read | access.Write | access.Decide}
	_, err := s.PutPlan(ctx, writer, policystore.Plan{Name: "mine"})
	wantKind(t, err, copse.Denied)
	wantKind(t, s.DeletePlan(ctx, writer, policystore.PlanDefault), copse.Denied)
	_, err = s.GetPlan(ctx, writer, policystore.PlanDefault)
	wantKind(t, err, copse.NotFound)
	if plans, err := s.ListPlans(ctx, writer); err != nil || len(plans) != 0 {
		t.Errorf("%v, %v", plans, err)
	}
	_, err = s.PutPlan(ctx, root, policystore.Plan{Name: "a plan", Quotas: policystore.Quotas{Aliases: 101, Operations: map[string]int{"Nonsense": 1, "GetPolicy": 0}}})
	for _, path := range []string{"name", "quotas.aliases", "quotas.policyBytes", "quotas.operations.Nonsense", "quotas.operations.GetPolicy"} {
		wantField(t, err, path, 0)
	}
	_, err = s.Create(ctx, root, policystore.NewPolicyStore{Plan: "nowhere", Settings: copse.Settings{Validation: copse.ValidationOff}})
	wantField(t, err, "plan", 0)
	if _, err := policystore.New(policystore.Config{Backend: memory.New(), DefaultPlan: "nowhere"}); copse.KindOf(err) != copse.Invalid {
		t.Errorf("a default plan that there is not: %v", err)
	}
	plans, err := s.ListPlans(ctx, root)
	must(t, err)
	if len(plans) != 3 || plans[0].Name != "avp" || plans[1].Name != "default" || plans[2].Name != "unmetered" {
		t.Errorf("%+v", plans)
	}
}

// A plan that is removed leaves its policy stores with quotas: the default plan's.
func TestPolicyStoresOfARemovedPlan(t *testing.T) {
	bubble(t, func(t *testing.T, s *policystore.Service) {
		ctx := context.Background()
		p, err := s.GetPlan(ctx, root, policystore.PlanAVP)
		must(t, err)
		p.Name, p.Quotas.DecisionsPerSecond, p.Quotas.Operations = "gold", 9_000, nil
		_, err = s.PutPlan(ctx, root, p)
		must(t, err)
		id := create(t, s, policystore.NewPolicyStore{Plan: "gold"}).ID
		if n := until(t, decideIn(s, id)); n != 9_000 {
			t.Errorf("%d, want 9000", n)
		}
		must(t, s.DeletePlan(ctx, root, "gold"))
		if n := until(t, decideIn(s, id)); n != 5_000 {
			t.Errorf("%d, want 5000", n)
		}
	})
}

// However many ask at once, no more get through than the bucket holds.
func TestRatesUnderConcurrency(t *testing.T) {
	bubble(t, func(t *testing.T, s *policystore.Service) {
		id := create(t, s, policystore.NewPolicyStore{}).ID
		var taken atomic.Int64
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				for range 500 {
					if decideIn(s, id)() == nil {
						taken.Add(1)
					}
				}
			})
		}
		all.Wait()
		if taken.Load() != 5_000 {
			t.Errorf("%d of 8000 got through, want 5000", taken.Load())
		}
	})
}
