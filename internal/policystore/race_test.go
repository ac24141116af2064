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

// Two nodes change schema, mode and policies of one policy store at the same time. Whatever order the
// commits took, the history must show that each policy was valid under the schema and mode that were
// in force just before it.
func TestSchemaChangeNeverLetsAnUnvalidatedPolicyIn(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx := context.Background()
		a, z := newService(t, b), newService(t, b)
		text := schema(schemaText)
		p := create(t, a, policystore.NewPolicyStore{Schema: &text})
		const rounds = 80
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range rounds {
				_, err := a.PutSchema(ctx, root, p.ID, schema([]string{otherSchema, schemaText}[i%2]))
				if err != nil && copse.KindOf(err) != copse.Conflict {
					t.Error(describe(err))
				}
			}
		})
		wg.Go(func() { flipMode(t, b, p, rounds) })
		var accepted, refused atomic.Int64
		for n, s := range []*policystore.Service{a, z, z} {
			wg.Go(func() {
				for i := range rounds {
					var err error
					statement := []string{ownersView, levelView}[i%2]
					if n == 2 {
						_, err = s.PutContents(ctx, root, p.ID, policystore.NewContents{Policies: named("contents", fmt.Sprintf(`@i("%d") %s`, i, statement))})
					} else {
						_, err = s.CreatePolicy(ctx, root, p.ID, policystore.NewPolicy{Statement: statement})
					}
					switch {
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
		strictWrites, modes, schemas := replay(t, b, p.ID)
		t.Logf("%d accepted (%d under STRICT), %d refused, %d schemas, %d modes", accepted.Load(), strictWrites, refused.Load(), schemas, modes)
		if accepted.Load() < 30 || refused.Load() < 15 || strictWrites < 15 || modes < 10 || schemas < 15 {
			t.Fatal("too little happened")
		}
	})
}

// flipMode changes the validation mode as a future UpdatePolicyStore will.
func flipMode(t *testing.T, b storage.Backend, p policystore.PolicyStore, rounds int) {
	key := storage.Key{Kind: "settings"}
	for i := range rounds {
		item, err := b.Get(context.Background(), storage.PolicyStore(p.ID), key)
		if err != nil {
			t.Error(err)
			return
		}
		from, to := `"STRICT"`, `"OFF"`
		if i%3 > 0 { // STRICT more often than not
			from, to = to, from
		}
		_, err = b.Commit(context.Background(), storage.Commit{
			Partition: storage.PolicyStore(p.ID), Incarnation: p.Incarnation,
			Writes: []storage.Write{{Key: key, Body: []byte(strings.Replace(string(item.Body), from, to, 1)), Expect: storage.Any()}},
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// replay walks the history and holds each policy against what was in force before its commit.
func replay(t *testing.T, b storage.Backend, id copse.PolicyStoreID) (strictWrites, modes, schemas int) {
	t.Helper()
	var mode, text string
	rows, err := b.History(context.Background(), storage.PolicyStore(id), 0, 100_000)
	must(t, err)
	for _, row := range rows {
		if row.Deleted {
			continue
		}
		var body struct {
			Validation string `json:"validation"`
			Cedar      string `json:"cedar"`
			Statement  string `json:"statement"`
		}
		must(t, json.Unmarshal(row.Body, &body))
		switch row.Key.Kind {
		case "settings":
			mode = body.Validation
			modes++
		case "schema":
			text = body.Cedar
			schemas++
		case "policy":
			if mode != "STRICT" {
				continue
			}
			strictWrites++
			if usesLevel := strings.Contains(body.Statement, "level"); usesLevel != (text == otherSchema) {
				t.Fatalf("revision %d: %q was taken under the schema %q", row.Revision, body.Statement, text)
			}
		}
	}
	return strictWrites, modes, schemas
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
