package policystore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
)

// Two nodes change schema, mode, policies, templates and links of one policy store at the same time.
// Whatever order the commits took, the history must show that each of what was written was valid under
// the schema and mode that were in force just before it: a link with its template as it was then.
func TestSchemaChangeNeverLetsAnUnvalidatedPolicyIn(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx := context.Background()
		a, z := newService(t, b), newService(t, b)
		text := schema(schemaText)
		id := create(t, a, policystore.NewPolicyStore{Schema: &text, Settings: copse.Settings{Validation: copse.ValidationOff}}).ID
		putSchema := func(i int) error {
			_, err := a.PutSchema(ctx, root, id, schema([]string{otherSchema, schemaText}[i%2]))
			return err
		}
		setMode := func(i int) error {
			mode := copse.ValidationOff
			if i%3 > 0 { // STRICT more often than not
				mode = copse.ValidationStrict
			}
			_, err := z.Update(ctx, root, id, policystore.Update{Validation: &mode})
			return err
		}
		writers := append(racingWriters(t, a, z, id), putSchema, setMode)
		var accepted, refused atomic.Int64
		var n replayed
		// How the writers meet is the scheduler's to say: they go on until enough of each has happened.
		for range 8 {
			var wg sync.WaitGroup
			for _, write := range writers {
				wg.Go(func() {
					for i := range 80 {
						switch err := write(i); {
						case err == nil:
							accepted.Add(1)
						case copse.KindOf(err) == copse.Invalid:
							refused.Add(1)
						case copse.KindOf(err) != copse.Conflict:
							t.Error(describe(err))
						}
					}
				})
			}
			wg.Wait()
			if n = replay(t, b, id); n.enough() {
				break
			}
		}
		t.Logf("%d accepted, %d refused; under STRICT %d policies, %d templates, %d links; %d schemas, %d modes",
			accepted.Load(), refused.Load(), n.policies, n.templates, n.links, n.schemas, n.modes)
		if !n.enough() || refused.Load() < 30 {
			t.Fatal("too little happened")
		}
	})
}

// racingWriters write policies, templates and links of which each is valid under one of two schemas.
func racingWriters(t *testing.T, a, z *policystore.Service, id copse.PolicyStoreID) []func(i int) error {
	ctx := context.Background()
	owners, levels := newTemplate(t, a, id, "owners", ownerTemplate), newTemplate(t, a, id, "levels", levelTemplate)
	changing := newTemplate(t, a, id, "changing", ownerTemplate)
	pick := func(i int, of, level string) string { return []string{of, level}[i%2] }
	newLink := func(s *policystore.Service, i int) error {
		template := []copse.PolicyTemplateID{owners, changing, levels, changing}[i%4]
		_, err := s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Link: link(template, fmt.Sprint("user", i), "")})
		return err
	}
	return []func(i int) error{
		func(i int) error {
			_, err := a.CreatePolicy(ctx, root, id, policystore.NewPolicy{Statement: pick(i, ownersView, levelView)})
			return err
		},
		func(i int) error {
			_, err := z.PutContents(ctx, root, id, policystore.NewContents{
				Policies: named("contents", fmt.Sprintf(`@i("%d") %s`, i, pick(i, ownersView, levelView)))})
			return err
		},
		func(i int) error {
			made, err := z.CreateTemplate(ctx, root, id, policystore.NewTemplate{Statement: pick(i, ownerTemplate, levelTemplate)})
			if err != nil {
				return err
			}
			return a.DeleteTemplate(ctx, root, id, made.ID) // a plan has room for forty
		},
		func(i int) error {
			_, err := a.UpdateTemplate(ctx, root, id, changing, policystore.TemplateUpdate{Statement: pick(i, levelTemplate, ownerTemplate)})
			return err
		},
		func(i int) error { return newLink(a, i) },
		func(i int) error { return newLink(z, i) },
	}
}

// replayed counts what happened: schemas and modes, and what was written under STRICT.
type replayed struct{ schemas, modes, policies, templates, links int }

func (n replayed) enough() bool {
	return n.policies >= 15 && n.templates >= 15 && n.links >= 15 && n.modes >= 10 && n.schemas >= 15
}

// replay walks the history and holds each policy and template against what was in force before its commit.
func replay(t *testing.T, b storage.Backend, id copse.PolicyStoreID) (n replayed) {
	t.Helper()
	var mode, text string
	templates := map[string]string{}
	rows, err := b.History(context.Background(), storage.PolicyStore(id), 0, 100_000)
	must(t, err)
	fits := func(revision uint64, what, statement string) {
		if usesLevel := strings.Contains(statement, "level"); usesLevel != (text == otherSchema) {
			t.Fatalf("revision %d: the %s %q was taken under the schema %q", revision, what, statement, text)
		}
	}
	for _, row := range rows {
		if row.Deleted {
			continue
		}
		var body struct {
			Validation string `json:"validation"`
			Cedar      string `json:"cedar"`
			Statement  string `json:"statement"`
			Link       *struct {
				Template string `json:"template"`
			} `json:"link"`
		}
		must(t, json.Unmarshal(row.Body, &body))
		strict := mode == "STRICT"
		switch row.Key.Kind {
		case "settings":
			mode = body.Validation
			n.modes++
		case "schema":
			text = body.Cedar
			n.schemas++
		case "template":
			templates[row.Key.ID] = body.Statement
			if strict {
				n.templates++
				fits(row.Revision, "template", body.Statement)
			}
		case "policy":
			switch {
			case !strict:
			case body.Link != nil:
				n.links++
				fits(row.Revision, "link of the template", templates[body.Link.Template])
			default:
				n.policies++
				fits(row.Revision, "policy", body.Statement)
			}
		}
	}
	return n
}

func TestNamesStayUniqueUnderRace(t *testing.T) {
	ctx, b := context.Background(), memory.New()
	services := []*policystore.Service{newService(t, b), newService(t, b)}
	id := create(t, services[0], policystore.NewPolicyStore{}).ID
	for i := range 40 {
		var wg sync.WaitGroup
		var won atomic.Int64
		for _, s := range append(services, services...) {
			wg.Go(func() {
				_, err := s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Name: fmt.Sprint("n", i), Statement: permitAll})
				if err == nil {
					won.Add(1)
				} else if copse.KindOf(err) != copse.Conflict {
					t.Error(describe(err))
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d policies have one name", won.Load())
		}
	}
	if c, err := services[0].GetContents(ctx, root, id); err != nil || len(c.Policies) != 40 {
		t.Fatal(len(c.Policies), err)
	}
}

func TestConcurrentWritersAllGetThrough(t *testing.T) {
	ctx, b := context.Background(), memory.New()
	services := []*policystore.Service{newService(t, b), newService(t, b)}
	id := create(t, services[0], policystore.NewPolicyStore{}).ID
	var wg sync.WaitGroup
	var made atomic.Int64
	for _, s := range services {
		for range 8 {
			wg.Go(func() {
				for range 25 {
					_, err := s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Statement: permitAll})
					if err == nil {
						made.Add(1)
					} else if copse.KindOf(err) != copse.Conflict {
						t.Error(describe(err))
					}
				}
			})
		}
	}
	wg.Wait()
	p, err := services[1].Get(ctx, root, id)
	must(t, err)
	if int64(p.Policies) != made.Load() || made.Load() < 350 {
		t.Fatalf("%d made, %d stored of 400", made.Load(), p.Policies)
	}
}

func TestDeletedPolicyStoreStaysDeleted(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx := context.Background()
		a, z := newService(t, b), newService(t, b)
		text := schema(schemaText)
		var written atomic.Int64
		for i := range 25 {
			p := create(t, a, policystore.NewPolicyStore{Schema: &text, Policies: named("secret-name", permitAll)})
			var wg sync.WaitGroup
			started := make(chan struct{}, 8)
			for n, s := range []*policystore.Service{a, a, z, z} {
				wg.Go(func() {
					for j := 0; ; j++ {
						var err error
						switch (n + j) % 4 {
						case 0:
							_, err = s.CreatePolicy(ctx, root, p.ID, policystore.NewPolicy{Statement: permitAll})
						case 1:
							_, err = s.PutSchema(ctx, root, p.ID, text)
						case 2:
							_, err = s.PutContents(ctx, root, p.ID, policystore.NewContents{Policies: named("secret-name", fmt.Sprintf(`@j("%d-%d") permit (principal, action, resource);`, n, j))})
						case 3:
							_, err = s.Decider().Decide(ctx, view(p.ID))
						}
						if j == 0 {
							started <- struct{}{}
						}
						if err == nil {
							written.Add(1)
						} else if copse.KindOf(err) == copse.NotFound {
							return
						} else if copse.KindOf(err) != copse.Conflict {
							t.Error(describe(err))
							return
						}
					}
				})
			}
			for range 4 {
				<-started
			}
			must(t, []*policystore.Service{a, z}[i%2].Delete(ctx, root, p.ID))
			if _, err := b.Get(ctx, storage.PolicyStore(p.ID), storage.Key{Kind: "settings"}); !errors.Is(err, storage.ErrNotFound) {
				t.Fatalf("readable after deletion: %v", err)
			}
			for _, s := range []*policystore.Service{a, z} {
				_, err := s.Decider().Decide(ctx, view(p.ID))
				wantKind(t, err, copse.NotFound)
			}
			wg.Wait()
			eventually(t, "erasure", func() bool {
				_, err := b.Head(ctx, storage.PolicyStore(p.ID))
				return errors.Is(err, storage.ErrNotFound)
			})
			if left := traces(t, b, string(p.ID), "secret-name"); len(left) > 0 {
				t.Fatalf("left after deletion: %q", left)
			}
		}
		if written.Load() < 25*4 {
			t.Fatalf("only %d calls succeeded before a deletion", written.Load())
		}
	})
}

func TestConcurrentDeletesSucceed(t *testing.T) {
	ctx, s := context.Background(), newService(t, memory.New())
	for range 30 {
		p := create(t, s, policystore.NewPolicyStore{Policies: named("p", permitAll)})
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if err := s.Delete(ctx, root, p.ID); err != nil {
					t.Error(describe(err))
				}
				if _, err := s.Decider().Decide(ctx, view(p.ID)); copse.KindOf(err) != copse.NotFound {
					t.Errorf("decides after deletion: %v", err)
				}
			})
		}
		wg.Wait()
	}
}
