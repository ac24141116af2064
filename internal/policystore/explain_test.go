package policystore_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
)

// meddler is a real backend behind which something happens whenever a policy is about to be read.
type meddler struct {
	storage.Backend
	before func()
}

func (m *meddler) Get(ctx context.Context, p storage.Partition, k storage.Key) (storage.Item, error) {
	if f := m.before; f != nil && k.Kind == "policy" {
		m.before = nil
		f()
	}
	return m.Backend.Get(ctx, p, k)
}

// agreesWithItself fails unless what is shown of a policy store's only policy is what decided.
func agreesWithItself(t *testing.T, e copse.Explanation) {
	t.Helper()
	if len(e.Policies) == 0 {
		if e.Decision == copse.Allow {
			t.Errorf("ALLOW by nothing at revision %d", e.Revision)
		}
		return
	}
	condition := e.Policies[0].Conditions[0].Parts[0]
	if says := condition.Text == "true"; says != (e.Decision == copse.Allow) || says != (condition.Outcome == copse.True) {
		t.Errorf("%v at revision %d by %q, which is %v", e.Decision, e.Revision, condition.Text, condition.Outcome)
	}
}

func statement(condition string) string {
	return `permit (principal == User::"alice", action, resource) when { ` + condition + ` };`
}

// A change between the decision and the reading of the policies is explained, not mixed into it.
func TestExplanationsAreOfOneRevision(t *testing.T) {
	ctx := context.Background()
	for what, change := range map[string]func(s *policystore.Service, id copse.PolicyStoreID) error{
		"update": func(s *policystore.Service, id copse.PolicyStoreID) error {
			text := statement("false")
			_, err := s.UpdatePolicy(ctx, root, id, "name/p", policystore.PolicyUpdate{Statement: &text})
			return err
		},
		"deletion": func(s *policystore.Service, id copse.PolicyStoreID) error {
			return s.DeletePolicy(ctx, root, id, "name/p")
		},
		"template": func(s *policystore.Service, id copse.PolicyStoreID) error {
			_, err := s.UpdateTemplate(ctx, root, id, "name/t", policystore.TemplateUpdate{Statement: linked("false")})
			return err
		},
		"deletion of the template": func(s *policystore.Service, id copse.PolicyStoreID) error {
			return s.DeleteTemplate(ctx, root, id, "name/t")
		},
	} {
		b := &meddler{Backend: memory.New()}
		s := newService(t, b)
		in := policystore.NewPolicyStore{}
		byTemplate := strings.Contains(what, "template")
		if !byTemplate {
			in.Policies = named("p", statement("true"))
		}
		id := create(t, s, in).ID
		if byTemplate {
			newLink(t, s, id, "p", link(newTemplate(t, s, id, "t", linked("true")), "alice", ""))
		}
		before, err := s.Explain(ctx, view(id))
		must(t, err)
		if before.Decision != copse.Allow || len(before.Policies) != 1 || before.Policies[0].Linked != byTemplate || before.Policies[0].Policy.Name != "p" {
			t.Fatalf("%s: %+v", what, before)
		}
		agreesWithItself(t, before)
		b.before = func() { must(t, change(s, id)) }
		after, err := s.Explain(ctx, view(id))
		must(t, err)
		if b.before != nil {
			t.Fatalf("%s: nothing came between", what)
		}
		if agreesWithItself(t, after); after.Decision != copse.Deny || after.Revision <= before.Revision {
			t.Errorf("%s: %v at revision %d", what, after.Decision, after.Revision)
		}
	}
}

func linked(condition string) string {
	return `permit (principal == ?principal, action, resource is Doc) when { ` + condition + ` };`
}

// Changes without end are an error, not an explanation that mixes revisions.
func TestExplanationOfWhatNeverRests(t *testing.T) {
	ctx := context.Background()
	b := &meddler{Backend: memory.New()}
	s := newService(t, b)
	id := create(t, s, policystore.NewPolicyStore{Policies: named("p", statement("true"))}).ID
	text, changes := statement("true"), 0
	var change func()
	change = func() {
		_, err := s.UpdatePolicy(ctx, root, id, "name/p", policystore.PolicyUpdate{Statement: &text})
		must(t, err)
		changes++
		b.before = change
	}
	b.before = change
	_, err := s.Explain(ctx, view(id))
	wantKind(t, err, copse.Unavailable)
	if changes < 5 {
		t.Errorf("it gave up after %d changes", changes)
	}
}

func TestExplanationsWhileOthersWrite(t *testing.T) {
	ctx := context.Background()
	s := newService(t, memory.New())
	id := create(t, s, policystore.NewPolicyStore{Policies: named("p", statement("true"))}).ID
	var readers sync.WaitGroup
	done := make(chan struct{})
	var explained [3]int
	for i := range explained {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				e, err := s.Explain(ctx, view(id))
				if err != nil {
					if copse.KindOf(err) != copse.Unavailable {
						t.Error(describe(err))
					}
					continue
				}
				agreesWithItself(t, e)
				explained[i]++
			}
		})
	}
	for i := range 200 {
		text := statement([]string{"true", "false"}[i%2])
		_, err := s.UpdatePolicy(ctx, root, id, "name/p", policystore.PolicyUpdate{Statement: &text})
		must(t, err)
	}
	close(done)
	readers.Wait()
	if explained[0]+explained[1]+explained[2] == 0 {
		t.Error("nothing was explained meanwhile")
	}
}

func TestExplanationsAreCharged(t *testing.T) {
	bubble(t, func(t *testing.T, s *policystore.Service) {
		id := create(t, s, policystore.NewPolicyStore{Policies: named("p", statement("true"))}).ID
		n := until(t, func() error { _, err := s.Explain(context.Background(), view(id)); return err })
		if n != 5_000/20 {
			t.Errorf("%d explanations in one moment, want 250", n)
		}
	})
}

func TestNothingToExplain(t *testing.T) {
	ctx := context.Background()
	s := newService(t, memory.New())
	_, err := s.Explain(ctx, view("nobody"))
	wantKind(t, err, copse.NotFound)
	id := create(t, s, policystore.NewPolicyStore{}).ID
	req := view(id)
	req.Incarnation = copse.Incarnation{1}
	_, err = s.Explain(ctx, req)
	wantKind(t, err, copse.NotFound)
	e, err := s.Explain(ctx, view(id))
	must(t, err)
	if e.Decision != copse.Deny || len(e.Policies) != 0 {
		t.Errorf("%+v", e)
	}
}
