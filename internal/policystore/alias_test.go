package policystore_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
)

func TestAliasNameIsReservedForADay(t *testing.T) {
	bubble(t, func(t *testing.T, s *policystore.Service) {
		ctx := context.Background()
		one, two := create(t, s, policystore.NewPolicyStore{}).ID, create(t, s, policystore.NewPolicyStore{}).ID
		_, err := s.CreateAlias(ctx, root, "a", one)
		must(t, err)
		must(t, s.DeleteAlias(ctx, root, "a", false))
		time.Sleep(24*time.Hour - time.Second)
		_, err = s.CreateAlias(ctx, root, "a", two)
		wantKind(t, err, copse.Conflict, "reserved")
		if a, err := s.GetAlias(ctx, root, "a"); err != nil || a.DeletedAt.IsZero() {
			t.Errorf("%+v, %v", a, err)
		}
		time.Sleep(time.Second)
		_, err = s.GetAlias(ctx, root, "a")
		wantKind(t, err, copse.NotFound)
		_, err = s.CreateAlias(ctx, root, "a", two)
		must(t, err)
		// The name is the second's now: the first must not take it along.
		must(t, s.Delete(ctx, root, one))
		id, err := s.Resolve(ctx, root, access.Read, "a")
		if err != nil || id != two {
			t.Errorf("%s, %v", id, err)
		}
	})
}

// A change of an alias is in force when it is acknowledged, on another node as well, and an alias of a
// deleted policy store leads nowhere.
func TestLaw5AliasNeverLeadsToAFormerPolicyStore(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx := context.Background()
		s, other := newService(t, b), newService(t, b)
		for range 30 {
			one, two := create(t, s, policystore.NewPolicyStore{}).ID, create(t, s, policystore.NewPolicyStore{}).ID
			_, err := other.Resolve(ctx, root, access.Read, "live") // absence is remembered too
			wantKind(t, err, copse.NotFound)
			for _, id := range []copse.PolicyStoreID{one, two} {
				_, err := s.CreateAlias(ctx, root, "live", id)
				must(t, err)
				for _, node := range []*policystore.Service{s, other} {
					if got, err := node.Resolve(ctx, root, access.Read, "live"); err != nil || got != id {
						t.Fatalf("leads to %s (%v), want %s", got, err, id)
					}
				}
				if id == one {
					must(t, s.DeleteAlias(ctx, root, "live", true))
				}
			}
			must(t, s.Delete(ctx, root, two))
			for _, node := range []*policystore.Service{s, other} {
				_, err := node.Resolve(ctx, root, access.Read, "live")
				wantKind(t, err, copse.NotFound)
			}
			must(t, s.Delete(ctx, root, one))
		}
	})
}

// An alias is resolved first, then the key is held against the policy store it names. What is not covered
// is answered like a name that never was, which does not tell the id either.
func TestLaw5AliasIsResolvedThenAuthorised(t *testing.T) {
	ctx, s := context.Background(), newService(t, memory.New())
	mine, theirs := create(t, s, policystore.NewPolicyStore{}).ID, create(t, s, policystore.NewPolicyStore{}).ID
	for name, id := range map[string]copse.PolicyStoreID{"mine": mine, "theirs": theirs} {
		_, err := s.CreateAlias(ctx, root, name, id)
		must(t, err)
	}
	verbs := []access.Verb{access.Read, access.Write, access.Decide}
	for _, has := range verbs {
		c := access.Caller{KeyID: "k", Scope: access.Scope{PolicyStore: mine}, Verbs: has}
		for _, wants := range verbs {
			id, err := s.Resolve(ctx, c, wants, "mine")
			if has == wants && (err != nil || id != mine) {
				t.Errorf("a key with %v that wants %v: %s, %v", has, wants, id, err)
			}
			if has != wants {
				wantKind(t, err, copse.NotFound)
			}
			_, foreign := s.Resolve(ctx, c, wants, "theirs")
			_, never := s.Resolve(ctx, c, wants, "nobody")
			wantKind(t, foreign, copse.NotFound)
			wantKind(t, never, copse.NotFound)
			if a, b := foreign.Error(), strings.ReplaceAll(never.Error(), "nobody", "theirs"); a != b {
				t.Errorf("another's alias is answered %q, one that never was %q", a, b)
			}
		}
	}
}

// An alias that was made for another life of a policy store's id leads nowhere, however it came to be left.
func TestLaw5AliasIsOfOneIncarnation(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx := context.Background()
		s := newService(t, b)
		p, other := create(t, s, policystore.NewPolicyStore{}), create(t, s, policystore.NewPolicyStore{})
		for name, id := range map[string]copse.PolicyStoreID{"live": p.ID, "model": other.ID} {
			_, err := s.CreateAlias(ctx, root, name, id)
			must(t, err)
		}
		if id, err := s.Resolve(ctx, root, access.Read, "live"); err != nil || id != p.ID {
			t.Fatalf("%s, %v", id, err)
		}
		// What is stored of "live" says the same id afterwards, and the other's incarnation.
		model, err := b.Get(ctx, storage.Directory(), storage.Key{Kind: "alias", ID: "model"})
		must(t, err)
		forged := strings.ReplaceAll(string(model.Body), string(other.ID), string(p.ID))
		if forged == string(model.Body) {
			t.Fatalf("no id in %s", model.Body)
		}
		head, err := b.Head(ctx, storage.Directory())
		must(t, err)
		_, err = b.Commit(ctx, storage.Commit{Partition: storage.Directory(), Incarnation: head.Incarnation, Actor: "test", Operation: "forge",
			Writes: []storage.Write{{Key: storage.Key{Kind: "alias", ID: "live"}, Body: []byte(forged), Expect: storage.Any()}}})
		must(t, err)
		_, err = newService(t, b).Resolve(ctx, root, access.Read, "live")
		wantKind(t, err, copse.NotFound)
	})
}

func TestLaw8AliasesAndTagsGoWithTheirPolicyStore(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx, s := context.Background(), newService(t, b)
		p := create(t, s, policystore.NewPolicyStore{Tags: map[string]string{"canary-tag": "canary-value"}})
		other := create(t, s, policystore.NewPolicyStore{})
		for i, hard := range []bool{true, false} {
			name := fmt.Sprint("canary-", i)
			_, err := s.CreateAlias(ctx, root, name, p.ID)
			must(t, err)
			must(t, s.DeleteAlias(ctx, root, name, hard))
		}
		_, err := s.CreateAlias(ctx, root, "canary-live", p.ID)
		must(t, err)
		// A name that went from the one to the other keeps nothing of the one.
		_, err = s.CreateAlias(ctx, root, "moved", p.ID)
		must(t, err)
		must(t, s.DeleteAlias(ctx, root, "moved", true))
		_, err = s.CreateAlias(ctx, root, "moved", other.ID)
		must(t, err)
		must(t, s.Tag(ctx, root, p.ID, map[string]string{"canary-late": ""}))
		must(t, s.Delete(ctx, root, p.ID))
		eventually(t, "nothing is left", func() bool {
			return len(traces(t, b, "canary", string(p.ID), p.Incarnation.String())) == 0
		})
		if id, err := s.Resolve(ctx, root, access.Read, "moved"); err != nil || id != other.ID {
			t.Errorf("%s, %v", id, err)
		}
	})
}

// A protection that was acknowledged holds, also against a deletion that had begun.
func TestProtectedPolicyStoreIsNotDeleted(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx := context.Background()
		i := &interrupted{Backend: b}
		s := newService(t, i)
		p := create(t, s, policystore.NewPolicyStore{})
		on, off := true, false
		i.do = func() {
			_, err := s.Update(ctx, root, p.ID, policystore.Update{DeletionProtection: &on})
			must(t, err)
		}
		wantKind(t, s.Delete(ctx, root, p.ID), copse.InvalidState)
		_, err := s.Update(ctx, root, p.ID, policystore.Update{DeletionProtection: &off})
		must(t, err)
		must(t, s.Delete(ctx, root, p.ID))
	})
}
