package policystore_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
)

func tokensIn(t *testing.T, b storage.Backend, p storage.Partition) int {
	t.Helper()
	items, err := b.Scan(context.Background(), p, "client-token", "", 100_000)
	must(t, err)
	return len(items)
}

func TestClientTokenMakesAPolicyOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, b := context.Background(), memory.New()
		a, z := newService(t, b), newService(t, b)
		id := create(t, a, policystore.NewPolicyStore{}).ID
		in := policystore.NewPolicy{Name: "once", Statement: permitAll, Description: "for alice", ClientToken: "t-1"}
		first, err := a.CreatePolicy(ctx, root, id, in)
		must(t, err)
		time.Sleep(time.Hour)
		for _, s := range []*policystore.Service{a, z} { // another node too
			again, err := s.CreatePolicy(ctx, root, id, in)
			must(t, err)
			if fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", first) {
				t.Errorf("got %+v, first %+v", again, first)
			}
		}
		for _, other := range []policystore.NewPolicy{
			{Name: "once", Statement: forbidAll, Description: "for alice", ClientToken: "t-1"},
			{Name: "once", Statement: permitAll, ClientToken: "t-1"},
			{Statement: permitAll, Description: "for alice", ClientToken: "t-1"},
		} {
			_, err := z.CreatePolicy(ctx, root, id, other)
			if e := wantKind(t, err, copse.Conflict, "clientToken"); e.ID != string(first.ID) {
				t.Errorf("about %q", e.ID)
			}
		}
		// A request that was long on its way does not bring back what was deleted.
		must(t, a.DeletePolicy(ctx, root, id, first.ID))
		again, err := a.CreatePolicy(ctx, root, id, in)
		must(t, err)
		if _, err := a.GetPolicy(ctx, root, id, again.ID); copse.KindOf(err) != copse.NotFound {
			t.Errorf("a repeated create made it again: %v", err)
		}
		wantDecision(t, a, id, copse.Deny)
		// After eight hours the token is as new.
		time.Sleep(7 * time.Hour)
		late, err := z.CreatePolicy(ctx, root, id, in)
		must(t, err)
		if late.ID == first.ID {
			t.Error("still remembered after eight hours")
		}
		wantDecision(t, a, id, copse.Allow, "once")
		// Nor does a token mean anything in another policy store.
		other := create(t, a, policystore.NewPolicyStore{}).ID
		elsewhere, err := a.CreatePolicy(ctx, root, other, in)
		must(t, err)
		if elsewhere.ID == late.ID {
			t.Error("two policy stores share a token")
		}
	})
}

func TestClientTokensAreSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, b := context.Background(), memory.New()
		s := newService(t, b)
		id := create(t, s, policystore.NewPolicyStore{}).ID
		make := func(token string) {
			t.Helper()
			_, err := s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Statement: permitAll, ClientToken: token})
			must(t, err)
		}
		for i := range 20 {
			make(fmt.Sprint("old-", i))
		}
		time.Sleep(8 * time.Hour)
		must(t, s.Close())
		s = newService(t, b) // the order is in what is stored
		make("old-0")        // used again: it takes its own place
		for i := range 15 {
			make(fmt.Sprint("new-", i))
		}
		if n := tokensIn(t, b, storage.PolicyStore(id)); n != 16 {
			t.Errorf("%d tokens are kept, want the 16 of now", n)
		}
		for i := range 15 {
			if _, err := s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Statement: forbidAll, ClientToken: fmt.Sprint("new-", i)}); copse.KindOf(err) != copse.Conflict {
				t.Errorf("token %d of now is forgotten: %v", i, err)
			}
		}
	})
}

func TestClientTokenMakesAPolicyStoreOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, b := context.Background(), memory.New()
		s := newService(t, b)
		in := policystore.NewPolicyStore{Settings: copse.Settings{Validation: copse.ValidationOff}, Description: "one", ClientToken: "t"}
		first := create(t, s, in)
		if again := create(t, s, in); !reflect.DeepEqual(again, first) {
			t.Errorf("got %+v, first %+v", again, first)
		}
		in.Description = "another"
		_, err := s.Create(ctx, root, in)
		wantKind(t, err, copse.Conflict, "clientToken")
		// Nothing of a policy store stays, not even this.
		must(t, s.Delete(ctx, root, first.ID))
		settled(t, b)
		if left := traces(t, b, string(first.ID)); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
		create(t, s, in)
		for i := range 30 {
			in.ClientToken = fmt.Sprint("t-", i)
			create(t, s, in)
		}
		time.Sleep(8 * time.Hour)
		for i := range 30 {
			in.ClientToken = fmt.Sprint("u-", i)
			create(t, s, in)
		}
		if n := tokensIn(t, b, storage.Directory()); n != 30 {
			t.Errorf("%d tokens are kept, want the 30 of now", n)
		}
	})
}

// Many senders of one call, on two nodes: one thing is made and all are told of it.
func TestClientTokenUnderRace(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx := context.Background()
		services := []*policystore.Service{newService(t, b), newService(t, b)}
		id := create(t, services[0], policystore.NewPolicyStore{}).ID
		for i := range 10 {
			var wg sync.WaitGroup
			policies, stores := make([]copse.PolicyID, 8), make([]copse.PolicyStoreID, 8)
			for n := range 8 {
				wg.Go(func() {
					token := fmt.Sprint("t", i)
					p, err := services[n%2].CreatePolicy(ctx, root, id, policystore.NewPolicy{Statement: permitAll, ClientToken: token})
					ps, err2 := services[n%2].Create(ctx, root, policystore.NewPolicyStore{
						Settings: copse.Settings{Validation: copse.ValidationOff}, ClientToken: token})
					if err := errors.Join(err, err2); err != nil {
						t.Error(describe(err))
					}
					policies[n], stores[n] = p.ID, ps.ID
				})
			}
			wg.Wait()
			for n := range 8 {
				if policies[n] != policies[0] || stores[n] != stores[0] || policies[n] == "" || stores[n] == "" {
					t.Fatalf("made %v and %v", policies, stores)
				}
			}
		}
		if rows := settled(t, b); len(rows) != 11 {
			t.Errorf("%d policy stores, want 11", len(rows))
		}
		if p, err := services[0].Get(ctx, root, id); err != nil || p.Policies != 10 {
			t.Errorf("%d policies, want 10 (%v)", p.Policies, err)
		}
	})
}
