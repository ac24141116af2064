package policystore_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
)

// interrupted does something just before the first deletion is committed.
type interrupted struct {
	storage.Backend
	once sync.Once
	do   func()
}

func (i *interrupted) Commit(ctx context.Context, c storage.Commit) (uint64, error) {
	if c.Operation == "DeletePolicyStore" {
		i.once.Do(i.do)
	}
	return i.Backend.Commit(ctx, c)
}

// A key that is made after a deletion has read which keys there are goes with the policy store too.
func TestDeleteTakesAKeyMadeMeanwhile(t *testing.T) {
	for name, before := range map[string]int{"the first": 0, "one more": 2} {
		t.Run(name, func(t *testing.T) {
			ctx, b := context.Background(), &interrupted{Backend: memory.New()}
			s := newService(t, b)
			keys, err := access.New(access.Config{Backend: b, MasterKey: access.MasterKey(strings.Repeat("k", 32))})
			must(t, err)
			t.Cleanup(func() { must(t, keys.Close()) })
			p := create(t, s, policystore.NewPolicyStore{})
			makeKey := func() (access.Key, access.Secret) {
				k, secret, err := keys.CreateKey(ctx, root, access.Key{Scope: access.Scope{PolicyStore: p.ID}, Verbs: access.Read})
				must(t, err)
				return k, secret
			}
			for range before {
				makeKey()
			}
			var late access.Key
			var secret access.Secret
			b.do = func() { late, secret = makeKey() }
			must(t, s.Delete(ctx, root, p.ID))
			if late.ID == "" {
				t.Fatal("no key was made meanwhile")
			}
			_, err = keys.Bearer(ctx, string(access.FormatBearer(late.ID, secret)))
			wantKind(t, err, copse.Unauthenticated)
			left, _, err := keys.ListKeys(ctx, root, "", 10)
			must(t, err)
			if len(left) > 0 {
				t.Errorf("left: %+v", left)
			}
		})
	}
}

// What is kept of policy stores elsewhere is hidden before the answer, erased of all that left together, and
// a process that ends before that is followed by one that does it.
func TestDeleteErasesElsewhere(t *testing.T) {
	ctx, b := context.Background(), memory.New()
	var mu sync.Mutex
	hidden, erased, passes := map[copse.PolicyStoreID]bool{}, map[copse.PolicyStoreID]bool{}, 0
	elsewhere := func(erase func(ids []copse.PolicyStoreID) error) policystore.Config {
		return policystore.Config{Backend: b, HideElsewhere: func(id copse.PolicyStoreID) {
			mu.Lock()
			defer mu.Unlock()
			hidden[id] = true
		}, EraseElsewhere: func(_ context.Context, ids ...copse.PolicyStoreID) error { return erase(ids) }}
	}
	const stores = 50
	// The first process gets nowhere.
	stuck, err := policystore.New(elsewhere(func([]copse.PolicyStoreID) error { return errPulled }))
	must(t, err)
	for range stores {
		p := create(t, stuck, policystore.NewPolicyStore{})
		must(t, stuck.Delete(ctx, root, p.ID))
		mu.Lock()
		if !hidden[p.ID] {
			t.Errorf("%s is deleted and not hidden", p.ID)
		}
		mu.Unlock()
	}
	must(t, stuck.Close())
	clear(hidden)

	s := newServiceFrom(t, elsewhere(func(ids []copse.PolicyStoreID) error {
		mu.Lock()
		defer mu.Unlock()
		if passes++; passes == 1 {
			return errPulled
		}
		for _, id := range ids {
			erased[id] = true
		}
		return nil
	}))
	must(t, s.Resume(ctx))
	mu.Lock()
	if len(hidden) != stores {
		t.Errorf("after a restart %d are hidden, want %d", len(hidden), stores)
	}
	mu.Unlock()
	settled(t, b)
	mu.Lock()
	defer mu.Unlock()
	if len(erased) != stores || passes > stores/2 {
		t.Errorf("%d erased in %d passes, want %d in few", len(erased), passes, stores)
	}
}
