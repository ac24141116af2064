package policystore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
)

const (
	viewTemplate  = `permit (principal == ?principal, action == Action::"view", resource == ?resource);`
	ownerTemplate = `permit (principal == ?principal, action == Action::"view", resource is Doc) when { resource.owner == principal };`
	levelTemplate = `permit (principal == ?principal, action == Action::"view", resource is Doc) when { principal.level > 3 };`
)

func newTemplate(t *testing.T, s *policystore.Service, id copse.PolicyStoreID, name, statement string) copse.PolicyTemplateID {
	t.Helper()
	made, err := s.CreateTemplate(context.Background(), root, id, policystore.NewTemplate{Name: name, Statement: statement})
	must(t, err)
	return made.ID
}

// link says that a user may view a document.
func link(template copse.PolicyTemplateID, user, doc string) *policystore.Link {
	l := &policystore.Link{Template: template, Principal: types.NewEntityUID("User", types.String(user))}
	if doc != "" {
		l.Resource = types.NewEntityUID("Doc", types.String(doc))
	}
	return l
}

func newLink(t *testing.T, s *policystore.Service, id copse.PolicyStoreID, name string, l *policystore.Link) policystore.Policy {
	t.Helper()
	p, err := s.CreatePolicy(context.Background(), root, id, policystore.NewPolicy{Name: name, Link: l})
	must(t, err)
	return p
}

func TestAnUpdateReachesAllLinks(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx := context.Background()
		a, z := newService(t, b), newService(t, b)
		id := create(t, a, policystore.NewPolicyStore{}).ID
		template := newTemplate(t, a, id, "viewers", viewTemplate)
		newLink(t, z, id, "alice-1", link("name/viewers", "alice", "1"))
		for i := range 20 {
			newLink(t, z, id, "", link(template, "bob", fmt.Sprint(i)))
		}
		wantDecision(t, a, id, copse.Allow, "alice-1")
		for range 3 {
			_, err := a.UpdateTemplate(ctx, root, id, template, policystore.TemplateUpdate{Statement: strings.TrimSuffix(viewTemplate, ";") + ` when { false };`})
			must(t, err)
			wantDecision(t, a, id, copse.Deny)
			wantDecision(t, z, id, copse.Deny)
			_, err = z.UpdateTemplate(ctx, root, id, "name/viewers", policystore.TemplateUpdate{Statement: viewTemplate})
			must(t, err)
			wantDecision(t, a, id, copse.Allow, "alice-1")
			wantDecision(t, z, id, copse.Allow, "alice-1")
		}
		p, err := a.Get(ctx, root, id)
		must(t, err)
		if p.Policies != 21 || p.Templates != 1 {
			t.Errorf("%d policies, %d templates", p.Policies, p.Templates)
		}
	})
}

// Without a template its links are nothing from the very moment of its deletion, however many there are
// and however long their rows stay.
func TestDeletingATemplateOfMoreLinksThanACommitTakes(t *testing.T) {
	ctx, b := context.Background(), storage.Backend(memory.New()) // SQLite under the race detector takes a minute for this
	held := &holdErase{Backend: b}
	s := newService(t, held)
	var unnamed []policystore.PolicyText
	for i := range copse.MaxContentsWrites - 10 {
		unnamed = append(unnamed, policystore.PolicyText{Link: link("name/viewers", "alice", fmt.Sprint(i))})
	}
	p := create(t, s, policystore.NewPolicyStore{
		Templates: named("viewers", viewTemplate, "owners", ownerTemplate), Policies: unnamed,
	})
	in := policystore.NewContents{Policies: named("stays", permitView)}
	for i := range 2000 {
		in.Policies = append(in.Policies, policystore.PolicyText{Name: fmt.Sprint("bob-", i), Link: link("name/viewers", "bob", fmt.Sprint(i))})
	}
	_, err := s.PutContents(ctx, root, p.ID, in)
	must(t, err)
	other := newLink(t, s, p.ID, "other", link("name/owners", "alice", ""))
	if out := wantPolicies(t, s, p.ID, len(unnamed)+2002); out < 10_001 {
		t.Fatalf("only %d links", out)
	}

	held.hold.Store(true)
	must(t, s.DeleteTemplate(ctx, root, p.ID, "name/viewers"))
	wantDecision(t, s, p.ID, copse.Allow, "stays")
	wantPolicies(t, s, p.ID, 2)
	_, err = s.GetPolicy(ctx, root, p.ID, "name/bob-7")
	wantKind(t, err, copse.NotFound)
	must(t, s.DeletePolicy(ctx, root, p.ID, "name/bob-7")) // it is absent
	page, _, err := s.ListPolicies(ctx, root, p.ID, policystore.PolicyFilter{Linked: new(true)}, other.ID[:len(other.ID)-1], 1)
	if must(t, err); len(page) != 1 || page[0].ID != other.ID {
		t.Errorf("listed: %+v", page)
	}
	// Names are free at once, and what takes them stays.
	_, err = s.CreatePolicy(ctx, root, p.ID, policystore.NewPolicy{Name: "bob-7", Statement: permitView})
	must(t, err)
	_, err = s.PutContents(ctx, root, p.ID, policystore.NewContents{Policies: named("bob-7", permitView, "bob-8", `forbid (principal, action, resource) when { false };`)})
	must(t, err)
	newTemplate(t, s, p.ID, "viewers", viewTemplate)

	must(t, s.Close()) // in the middle of it
	held.hold.Store(false)
	again := newService(t, b)
	must(t, again.Resume(ctx))
	eventually(t, "the links to go", func() bool {
		return count(t, b, storage.Directory(), "unlinking") == 0 && count(t, b, storage.PolicyStore(p.ID), "cascade") == 0
	})
	if policies, names := count(t, b, storage.PolicyStore(p.ID), "policy"), count(t, b, storage.PolicyStore(p.ID), "name"); policies != 2 || names != 2 {
		t.Errorf("%d policies and %d names are stored, want 2", policies, names)
	}
	wantDecision(t, again, p.ID, copse.Allow, "bob-7")
	eventually(t, "the directory to forget the cascade", func() bool {
		rows, err := b.History(ctx, storage.Directory(), 0, 100_000)
		must(t, err)
		return !slices.ContainsFunc(rows, func(row storage.HistoryRow) bool { return row.Key.Kind == "unlinking" })
	})
}

func wantPolicies(t *testing.T, s *policystore.Service, id copse.PolicyStoreID, want int) int {
	t.Helper()
	p, err := s.Get(context.Background(), root, id)
	must(t, err)
	c, err := s.GetContents(context.Background(), root, id)
	must(t, err)
	if p.Policies != want || len(c.Policies) != want {
		t.Fatalf("%d policies are counted and %d shown, want %d", p.Policies, len(c.Policies), want)
	}
	return want
}

func count(t *testing.T, b storage.Backend, p storage.Partition, kind storage.Kind) int {
	t.Helper()
	items, err := b.Scan(context.Background(), p, kind, "", 100_000)
	must(t, err)
	return len(items)
}

// holdErase refuses to erase links while it holds.
type holdErase struct {
	storage.Backend
	hold atomic.Bool
}

func (h *holdErase) Commit(ctx context.Context, c storage.Commit) (uint64, error) {
	if c.Operation == "EraseLinks" && h.hold.Load() {
		return 0, errPulled
	}
	return h.Backend.Commit(ctx, c)
}

// Wherever a process dies while it deletes a template: template and links are all there, or all gone,
// rows included, and nothing of the work stays in the directory.
func TestCrashWhileDeletingATemplate(t *testing.T) {
	ctx := context.Background()
	var gone, there int
	for n := int64(1); n <= 6; n++ {
		for _, late := range []bool{false, true} {
			b := memory.New()
			s := newService(t, b)
			p := create(t, s, policystore.NewPolicyStore{Templates: named("viewers", viewTemplate)})
			for i := range 3 {
				newLink(t, s, p.ID, fmt.Sprint("link-", i), link("name/viewers", "alice", fmt.Sprint(i)))
			}
			broken, err := policystore.New(policystore.Config{Backend: &faulty{Backend: b, n: n, late: late}})
			must(t, err)
			if err := broken.DeleteTemplate(ctx, root, p.ID, "name/viewers"); err == nil && n == 1 {
				t.Fatal("deleted without a commit")
			}
			must(t, broken.Close())

			again := newService(t, b)
			must(t, again.Resume(ctx))
			_, err = again.GetTemplate(ctx, root, p.ID, "name/viewers")
			eventually(t, "the directory to be clean", func() bool { return count(t, b, storage.Directory(), "unlinking") == 0 })
			rows := count(t, b, storage.PolicyStore(p.ID), "policy")
			switch {
			case err == nil && rows == 3:
				there++
				wantDecision(t, again, p.ID, copse.Allow, "link-1")
			case copse.KindOf(err) == copse.NotFound && rows == 0:
				gone++
				wantDecision(t, again, p.ID, copse.Deny)
				wantPolicies(t, again, p.ID, 0)
			default:
				t.Fatalf("plug pulled at %d (late %v): %v, %d links are stored", n, late, err, rows)
			}
			if n := count(t, b, storage.PolicyStore(p.ID), "cascade"); n != 0 {
				t.Errorf("%d marks stay", n)
			}
		}
	}
	if gone < 6 || there < 3 {
		t.Fatalf("gone %d, there %d: the crashes came at the wrong moments", gone, there)
	}
}

// A policy store that is deleted in the middle of a cascade leaves nothing, the note in the directory
// included.
func TestDeletingThePolicyStoreEndsACascade(t *testing.T) {
	ctx, b := context.Background(), &holdErase{Backend: memory.New()}
	s := newService(t, b)
	p := create(t, s, policystore.NewPolicyStore{Templates: named("viewers", viewTemplate)})
	newLink(t, s, p.ID, "", link("name/viewers", "alice", "1"))
	b.hold.Store(true)
	must(t, s.DeleteTemplate(ctx, root, p.ID, "name/viewers"))
	must(t, s.Delete(ctx, root, p.ID))
	must(t, s.Close())
	b.hold.Store(false)
	must(t, newService(t, b).Resume(ctx))
	eventually(t, "the note to go", func() bool { return len(traces(t, b, string(p.ID))) == 0 })
}

// Two nodes make links of templates that two others delete: what history has of a link is after its
// template's making and before its deletion, and no link outlives it.
func TestLinksAndDeletionsRace(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx := context.Background()
		services := []*policystore.Service{newService(t, b), newService(t, b)}
		id := create(t, services[0], policystore.NewPolicyStore{}).ID
		var linked, refused atomic.Int64
		for range 15 {
			template := newTemplate(t, services[0], id, "", viewTemplate)
			var wg sync.WaitGroup
			for n, s := range append(services, services...) {
				wg.Go(func() {
					for i := range 4 {
						if n == 3 && i == 2 {
							if err := s.DeleteTemplate(ctx, root, id, template); err != nil {
								t.Error(describe(err))
							}
						}
						_, err := s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Link: link(template, "alice", "1")})
						switch {
						case err == nil:
							linked.Add(1)
						case copse.KindOf(err) == copse.NotFound:
							refused.Add(1)
						case copse.KindOf(err) != copse.Conflict:
							t.Error(describe(err))
						}
						if _, err := s.Decider().Decide(ctx, view(id)); err != nil {
							t.Error(describe(err))
						}
					}
				})
			}
			wg.Wait()
			wantDecision(t, services[0], id, copse.Deny)
		}
		if linked.Load() < 30 || refused.Load() < 15 {
			t.Fatalf("%d linked, %d refused: too little happened", linked.Load(), refused.Load())
		}
		eventually(t, "all links to go", func() bool { return count(t, b, storage.PolicyStore(id), "policy") == 0 })
	})
}

// A link may be made of a template older than the schema, or than STRICT: then the template is held
// against them first.
func TestALinkOfAnUnvalidatedTemplateIsRefused(t *testing.T) {
	ctx, b := context.Background(), memory.New()
	s := newService(t, b)
	text := schema(schemaText)
	p := create(t, s, policystore.NewPolicyStore{Schema: &text})
	owners := newTemplate(t, s, p.ID, "owners", ownerTemplate)
	newLink(t, s, p.ID, "", link(owners, "alice", ""))
	_, err := s.PutSchema(ctx, root, p.ID, schema(otherSchema))
	must(t, err)
	_, err = s.CreatePolicy(ctx, root, p.ID, policystore.NewPolicy{Link: link(owners, "bob", "")})
	wantKind(t, err, copse.Invalid, "owner")
	wantField(t, err, "definition.templateLinked", 1)
	_, err = s.PutContents(ctx, root, p.ID, policystore.NewContents{Policies: []policystore.PolicyText{{Name: "bob", Link: link(owners, "bob", "")}}})
	wantKind(t, err, copse.Invalid, "owner")
	_, err = s.UpdateTemplate(ctx, root, p.ID, owners, policystore.TemplateUpdate{Statement: levelTemplate})
	must(t, err)
	newLink(t, s, p.ID, "", link(owners, "bob", ""))
}

func TestTheSizeOfALink(t *testing.T) {
	ctx, s := context.Background(), newService(t, memory.New())
	id := create(t, s, policystore.NewPolicyStore{}).ID
	// The text of a template counts once, not with each link.
	template := newTemplate(t, s, id, "", strings.TrimSuffix(viewTemplate, ";")+` when { context.a == "`+strings.Repeat("x", 9000)+`" };`)
	user := strings.Repeat("u", 600)
	perLink := len(`User::"`+user+`"`) + len(`Doc::"1"`)
	made := 0
	var err error
	for ; err == nil && made < 1000; made++ {
		_, err = s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Link: link(template, user, "1")})
	}
	wantKind(t, err, copse.QuotaExceeded, "200000", `Doc::"1"`)
	if want := copse.MaxPolicyBytesPerScope / perLink; made-1 != want {
		t.Errorf("%d links fit, want %d", made-1, want)
	}
	newLink(t, s, id, "", link(template, user, "2")) // another resource has room of its own
	page, _, err := s.ListPolicies(ctx, root, id, policystore.PolicyFilter{}, "", 1)
	must(t, err)
	must(t, s.DeletePolicy(ctx, root, id, page[0].ID))
	if page[0].Resource.ID == "1" {
		newLink(t, s, id, "", link(template, user, "1"))
	}
}

func TestContentsWithTemplates(t *testing.T) {
	ctx, b := context.Background(), memory.New()
	s := newService(t, b)
	text := schema(schemaText)
	id := create(t, s, policystore.NewPolicyStore{
		Schema: &text, Templates: named("viewers", viewTemplate, "owners", ownerTemplate),
		Policies: []policystore.PolicyText{{Name: "alice", Link: link("name/viewers", "alice", "1")}},
	}).ID
	wantDecision(t, s, id, copse.Allow, "alice")
	unnamed := newLink(t, s, id, "", link("name/viewers", "bob", "1"))
	put := func(in policystore.NewContents) (policystore.ContentsResult, error) {
		return s.PutContents(ctx, root, id, in)
	}

	before, err := s.GetContents(ctx, root, id)
	must(t, err)
	if len(before.Templates) != 2 || before.Templates[0].Name != "owners" || len(before.Policies) != 2 || before.Policies[1].Link.Template != before.Templates[1].ID {
		t.Fatalf("contents: %+v", before)
	}
	// What was read can be put again, and nothing changes.
	same := policystore.NewContents{Templates: named("viewers", viewTemplate, "owners", ownerTemplate),
		Policies: []policystore.PolicyText{{Name: "alice", Link: before.Policies[1].Link}}}
	out, err := put(same)
	if must(t, err); out.Revision != before.Revision || out.Created+out.Updated+out.Deleted != 0 || len(out.Kept) != 1 {
		t.Errorf("result: %+v", out)
	}
	// Templates that are not spoken of stay; a link becomes a statement, and the other way round.
	out, err = put(policystore.NewContents{Policies: []policystore.PolicyText{{Name: "alice", Statement: permitView}, {Name: "carol", Link: link("name/owners", "carol", "")}}})
	if must(t, err); out.Created != 1 || out.Updated != 1 || out.Deleted != 0 {
		t.Errorf("result: %+v", out)
	}
	_, err = put(same)
	must(t, err)
	wantDecision(t, s, id, copse.Allow, "alice")

	for name, tt := range map[string]struct {
		in   policystore.NewContents
		path string
	}{
		"no such template":     {policystore.NewContents{Policies: []policystore.PolicyText{{Name: "x", Link: link("name/nobody", "x", "1")}}}, "policies[0].link"},
		"a template that goes": {policystore.NewContents{Templates: named("owners", ownerTemplate), Policies: []policystore.PolicyText{{Name: "x", Link: link("name/viewers", "x", "1")}}}, "policies[0].link"},
		"a slot is empty":      {policystore.NewContents{Policies: []policystore.PolicyText{{Name: "x", Link: link("name/viewers", "x", "")}}}, "policies[0].link"},
		"link and statement":   {policystore.NewContents{Policies: []policystore.PolicyText{{Name: "x", Statement: permitAll, Link: link("name/viewers", "x", "1")}}}, "policies[0].statement"},
		"a template's name":    {policystore.NewContents{Templates: named("", viewTemplate)}, "templates[0].name"},
		"a linked template":    {policystore.NewContents{Templates: []policystore.PolicyText{{Name: "x", Link: link("name/viewers", "x", "1")}}}, "templates[0].statement"},
		"an invalid template":  {policystore.NewContents{Templates: named("viewers", levelTemplate)}, "templates[0].statement"},
		"links that no longer fit": {policystore.NewContents{Templates: named("viewers", ownerTemplate),
			Policies: nil}, "templates[0].statement"}, // bob's has a resource
	} {
		t.Run(name, func(t *testing.T) {
			_, err := put(tt.in)
			wantKind(t, err, copse.Invalid)
			wantField(t, err, tt.path, 0)
		})
	}
	wantDecision(t, s, id, copse.Allow, "alice")

	// A new text of a template reaches the links that are not in the contents as well.
	out, err = put(policystore.NewContents{Templates: named("viewers", strings.TrimSuffix(viewTemplate, ";")+` unless { true };`), Policies: same.Policies})
	if must(t, err); out.Updated != 1 || out.Deleted != 1 {
		t.Errorf("result: %+v", out)
	}
	wantDecision(t, s, id, copse.Deny)
	// A template that goes takes its links along, those without a name too.
	out, err = put(policystore.NewContents{Templates: []policystore.PolicyText{}})
	if must(t, err); out.Deleted != 3 || len(out.Kept) != 0 {
		t.Errorf("result: %+v", out)
	}
	_, err = s.GetPolicy(ctx, root, id, unnamed.ID)
	wantKind(t, err, copse.NotFound)
	for _, kind := range []storage.Kind{"policy", "template", "name", "template-name"} {
		if n := count(t, b, storage.PolicyStore(id), kind); n != 0 {
			t.Errorf("%d rows of kind %s are left", n, kind)
		}
	}
}

// Templates are as much a policy store's own as its policies.
func TestTemplatesStayInTheirPolicyStore(t *testing.T) {
	ctx, s := context.Background(), newService(t, memory.New())
	mine, theirs := create(t, s, policystore.NewPolicyStore{}).ID, create(t, s, policystore.NewPolicyStore{}).ID
	template := newTemplate(t, s, theirs, "viewers", viewTemplate)
	c := access.Caller{KeyID: "k", Scope: access.Scope{PolicyStore: mine}, Verbs: access.Read | access.Write}
	for name, call := range map[string]func(id copse.PolicyStoreID) error{
		"create": func(id copse.PolicyStoreID) error {
			_, err := s.CreateTemplate(ctx, c, id, policystore.NewTemplate{Statement: viewTemplate})
			return err
		},
		"get": func(id copse.PolicyStoreID) error { _, err := s.GetTemplate(ctx, c, id, template); return err },
		"update": func(id copse.PolicyStoreID) error {
			_, err := s.UpdateTemplate(ctx, c, id, template, policystore.TemplateUpdate{Statement: viewTemplate})
			return err
		},
		"delete": func(id copse.PolicyStoreID) error { return s.DeleteTemplate(ctx, c, id, template) },
		"list":   func(id copse.PolicyStoreID) error { _, _, err := s.ListTemplates(ctx, c, id, "", 5); return err },
		"link": func(id copse.PolicyStoreID) error {
			_, err := s.CreatePolicy(ctx, c, id, policystore.NewPolicy{Link: link(template, "alice", "1")})
			return err
		},
	} {
		covered, absent := call(theirs), call("never-was")
		if covered == nil || absent == nil || strings.ReplaceAll(covered.Error(), string(theirs), "never-was") != absent.Error() {
			t.Errorf("%s: %v of a policy store that is not covered, %v of none", name, covered, absent)
		}
	}
	for _, of := range []copse.PolicyTemplateID{template, "name/viewers"} {
		_, err := s.CreatePolicy(ctx, c, mine, policystore.NewPolicy{Link: link(of, "alice", "1")})
		if e, ok := errors.AsType[*copse.Error](err); !ok || e.Kind != copse.NotFound || e.Resource != copse.ResourceTemplate {
			t.Errorf("linked to another policy store's template: %v", err)
		}
	}
}

// Contents may replace a template by one of another effect and scope. What is said of its links is then
// what they decide.
func TestLinksAreShownAsTheyDecide(t *testing.T) {
	ctx := context.Background()
	s := newService(t, memory.New())
	id := create(t, s, policystore.NewPolicyStore{
		Templates: named("t", `permit (principal == ?principal, action, resource == Doc::"1");`),
		Policies:  []policystore.PolicyText{{Name: "alice", Link: link("name/t", "alice", "")}},
	}).ID
	unnamed := newLink(t, s, id, "", link("name/t", "bob", ""))
	wantDecision(t, s, id, copse.Allow, "alice")
	_, err := s.PutContents(ctx, root, id, policystore.NewContents{
		Templates: named("t", `forbid (principal == ?principal, action, resource in Doc::"2");`),
		Policies:  []policystore.PolicyText{{Name: "alice", Link: link("name/t", "alice", "")}},
	})
	must(t, err)
	for _, policy := range []copse.PolicyID{"name/alice", unnamed.ID} {
		p, err := s.GetPolicy(ctx, root, id, policy)
		must(t, err)
		if !p.Forbids || p.Resource != types.NewEntityUID("Doc", "2") || p.Link.Resource != (types.EntityUID{}) {
			t.Errorf("%s is shown as forbid %v of %v", policy, p.Forbids, p.Resource)
		}
	}
	filter := policystore.PolicyFilter{Resource: &policystore.EntityFilter{Is: types.NewEntityUID("Doc", "2")}}
	page, _, err := s.ListPolicies(ctx, root, id, filter, "", 10)
	if must(t, err); len(page) != 2 {
		t.Errorf("%d policies are listed", len(page))
	}
}
