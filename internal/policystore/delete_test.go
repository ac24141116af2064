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
