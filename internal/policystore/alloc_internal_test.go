//go:build !race

// The race detector makes pools forget at random, so what is allocated is counted without it.

package policystore

import (
	"context"
	"testing"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage/memory"
)

// What surrounds the engine on a warm decision costs no memory: cache, incarnation, metrics and the
// access check.
func TestWarmDecisionAddsNoAllocations(t *testing.T) {
	ctx := context.Background()
	s, err := New(Config{Backend: memory.New()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	p, err := s.Create(ctx, access.System(), NewPolicyStore{
		Settings: copse.Settings{Validation: copse.ValidationOff},
		Policies: []PolicyText{{Name: "p", Statement: "permit (principal, action, resource);"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	req := &copse.Request{
		PolicyStoreID: p.ID, Incarnation: p.Incarnation, Principal: types.NewEntityUID("User", "alice"),
		Action: types.NewEntityUID("Action", "view"), Resource: types.NewEntityUID("Doc", "1"),
	}
	decide := func(f func() (copse.Response, error)) float64 {
		return testing.AllocsPerRun(200, func() {
			if out, err := f(); err != nil || out.Decision != copse.Allow {
				t.Fatal(out, err)
			}
		})
	}
	d, key := s.Decider(), access.Caller{Scope: access.Scope{PolicyStore: p.ID}, Verbs: access.Decide}
	warm := decide(func() (copse.Response, error) { return d.Decide(ctx, req) })
	e, err := s.snapshots.Get(ctx, p.ID)
	if err != nil {
		t.Fatal(err)
	}
	bare := decide(func() (copse.Response, error) { return e.snapshot.Decide(req) })
	if warm > bare {
		t.Errorf("%v allocations, the engine's own are %v", warm, bare)
	}
	if keyed := decide(func() (copse.Response, error) { return s.DecideAs(ctx, key, req) }); keyed > bare {
		t.Errorf("%v allocations with a key, the engine's own are %v", keyed, bare)
	}
}
