package policystore_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage"
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
