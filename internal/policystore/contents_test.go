package policystore_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
)

func TestPutContents(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx, s := context.Background(), newService(t, b)
		text := schema(schemaText)
		id := create(t, s, policystore.NewPolicyStore{Schema: &text, Policies: named("keep", permitView, "change", permitView, "drop", forbidAll)}).ID
		unnamed, err := s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Statement: ownersView})
		must(t, err)
		before := byName(t, s, id)

		in := policystore.NewContents{Policies: named("new", permitAll, "keep", permitView, "change", ownersView)}
		in.IfRevision = new(uint64)
		*in.IfRevision = 1
		_, err = s.PutContents(ctx, root, id, in)
		wantKind(t, err, copse.Conflict, "revision 2")
		*in.IfRevision = 2
		got, err := s.PutContents(ctx, root, id, in)
		must(t, err)
		after := byName(t, s, id)
		want := policystore.ContentsResult{
			Revision: 3, Created: 1, Updated: 1, Deleted: 1,
			Policies: []copse.PolicyRef{{ID: before["change"].ID, Name: "change"}, {ID: before["keep"].ID, Name: "keep"}, {ID: after["new"].ID, Name: "new"}},
			Kept:     []copse.PolicyRef{{ID: unnamed.ID}},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
		if diff := cmp.Diff(before["keep"], after["keep"]); diff != "" {
			t.Fatalf("an unchanged policy was rewritten: %s", diff)
		}
		if c := after["change"]; c.Statement != ownersView || !c.CreatedAt.Equal(before["change"].CreatedAt) || !c.UpdatedAt.After(before["change"].UpdatedAt) {
			t.Fatalf("%+v", c)
		}
		if _, there := after["drop"]; there || len(after) != 4 {
			t.Fatalf("%v", after)
		}
		_, err = s.GetPolicy(ctx, root, id, "name/drop")
		wantKind(t, err, copse.NotFound)

		// The same again changes nothing, and says so.
		again, err := s.PutContents(ctx, root, id, policystore.NewContents{Schema: &text, Policies: in.Policies})
		must(t, err)
		if again.Revision != 3 || again.Created+again.Updated+again.Deleted != 0 || len(again.Policies) != 3 {
			t.Fatalf("%+v", again)
		}
		pruned, err := s.PutContents(ctx, root, id, policystore.NewContents{Policies: named("new", permitAll), Prune: true})
		must(t, err)
		if pruned.Revision != 4 || pruned.Deleted != 3 || len(pruned.Kept) != 0 {
			t.Fatalf("%+v", pruned)
		}
		c, err := s.GetContents(ctx, root, id)
		must(t, err)
		if len(c.Policies) != 1 || c.Revision != 4 || c.Schema == nil || c.Schema.Cedar != schemaText {
			t.Fatalf("%+v", c)
		}
		// A dropped name is free, an effect may change under a name, and all of it shows in decisions.
		_, err = s.PutContents(ctx, root, id, policystore.NewContents{Policies: named("new", forbidAll, "drop", permitAll)})
		must(t, err)
		wantDecision(t, s, id, copse.Deny, "new")
	})
}

func byName(t *testing.T, s *policystore.Service, id copse.PolicyStoreID) map[string]policystore.Policy {
	t.Helper()
	c, err := s.GetContents(context.Background(), root, id)
	must(t, err)
	out := map[string]policystore.Policy{}
	last := ""
	for _, p := range c.Policies {
		if p.Name < last {
			t.Fatalf("%q after %q", p.Name, last)
		}
		out[p.Name], last = p, p.Name
	}
	return out
}

func TestPutContentsIsAllOrNothing(t *testing.T) {
	ctx, s := context.Background(), newService(t, memory.New())
	text, other := schema(schemaText), schema(otherSchema)
	id := create(t, s, policystore.NewPolicyStore{Schema: &text, Policies: named("a", ownersView)}).ID
	for name, in := range map[string]policystore.NewContents{
		"policy against the new schema": {Schema: &other, Policies: named("a", ownersView)},
		"policy against the old schema": {Policies: named("a", levelView)},
		"schema":                        {Schema: &policystore.SchemaText{JSON: "{"}, Policies: named("a", permitAll)},
		"no name":                       {Policies: named("a", permitAll, "", permitAll)},
		"name twice":                    {Policies: named("a", permitAll, "a", forbidAll)},
		"description":                   {Policies: []policystore.PolicyText{{Name: "a", Statement: permitAll, Description: strings.Repeat("x", 151)}}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.PutContents(ctx, root, id, in)
			wantKind(t, err, copse.Invalid)
			c, err := s.GetContents(ctx, root, id)
			must(t, err)
			if c.Revision != 1 || len(c.Policies) != 1 || c.Schema.Cedar != schemaText {
				t.Fatalf("%+v", c)
			}
		})
	}
	// Both at once is the way from one schema to the next.
	_, err := s.PutContents(ctx, root, id, policystore.NewContents{Schema: &other, Policies: named("a", levelView)})
	must(t, err)
}

func TestContentsNeverWithoutForbid(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx, s := context.Background(), newService(t, b)
		id := create(t, s, policystore.NewPolicyStore{Policies: named("allow", permitAll, "stop", forbidAll)}).ID
		var decisions, revisions atomic.Int64
		done := make(chan struct{})
		var readers sync.WaitGroup
		for range 4 {
			readers.Go(func() {
				last := uint64(0)
				for {
					select {
					case <-done:
						return
					default:
					}
					out, err := s.Decider().Decide(ctx, view(id))
					if err != nil || out.Decision != copse.Deny || len(out.Determining) == 0 || out.Revision < last {
						t.Errorf("%+v, %v, after revision %d", out, err, last)
						return
					}
					if out.Revision > last {
						revisions.Add(1)
					}
					last = out.Revision
					decisions.Add(1)
				}
			})
		}
		for i := range 60 {
			in := policystore.NewContents{Policies: named("allow", permitAll, fmt.Sprintf("stop%d", i%2), fmt.Sprintf(`@n("%d") %s`, i, forbidAll))}
			seen := decisions.Load()
			_, err := s.PutContents(ctx, root, id, in)
			must(t, err)
			// Let the readers meet this revision, and be under way when the next one comes.
			eventually(t, "decisions", func() bool { return t.Failed() || decisions.Load() > seen+8 })
		}
		close(done)
		readers.Wait()
		if decisions.Load() < 400 || revisions.Load() < 40 {
			t.Fatalf("only %d decisions at %d revisions", decisions.Load(), revisions.Load())
		}
	})
}

func TestReadYourWrites(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx, s := context.Background(), newService(t, b)
		id := create(t, s, policystore.NewPolicyStore{Policies: named("p", permitAll)}).ID
		for i := range 50 {
			wantDecision(t, s, id, copse.Allow, "p")
			stop, err := s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Name: "stop", Statement: forbidAll})
			must(t, err)
			wantDecision(t, s, id, copse.Deny, "stop")
			p, err := s.Get(ctx, root, id)
			must(t, err)
			if p.Policies != 2 || p.Revision != uint64(2*i+2) {
				t.Fatalf("%+v", p)
			}
			must(t, s.DeletePolicy(ctx, root, id, stop.ID))
		}
	})
}
