package engine

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
)

func source(t testing.TB, id string, version uint64, text string) Source {
	t.Helper()
	p, err := ParsePolicy(id, []byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return Source{Ref: copse.PolicyRef{ID: copse.PolicyID(id)}, Policy: p, Version: version}
}

// A snapshot made from the one before decides like one made of everything, after any change: the judge
// is Compile.
func TestRecompileIsCompile(t *testing.T) {
	r := rand.New(rand.NewPCG(20261125, 1))
	schema := mustSchema(t, shopSchema)
	text := func() string {
		effect := []string{"permit", "permit", "forbid"}[r.IntN(3)]
		principal := []string{"principal", fmt.Sprintf(`principal == User::"%d"`, r.IntN(5)), "principal is User", fmt.Sprintf(`principal in Group::"%d"`, r.IntN(4))}[r.IntN(4)]
		action := []string{"action", `action == Action::"view"`, fmt.Sprintf(`action in [Action::"view", Action::"a%d"]`, r.IntN(9)), "action in []"}[r.IntN(4)]
		condition := []string{"", fmt.Sprintf(` when { context.n%d == %d }`, r.IntN(6), r.IntN(3)), fmt.Sprintf(` unless { principal.x.contains("t%d") }`, r.IntN(50)), fmt.Sprintf(` when { principal in Group::"%d" || context has n%d }`, r.IntN(4), r.IntN(60))}[r.IntN(4)]
		return fmt.Sprintf("%s(%s, %s, resource)%s;", effect, principal, action, condition)
	}
	texts, versions := map[string]string{}, map[string]uint64{}
	var snapshot *Snapshot
	reused, decided, allowed := 0, 0, 0
	for round := range 400 {
		for range r.IntN(4) {
			id := fmt.Sprintf("p%02d", r.IntN(40))
			if r.IntN(3) == 0 {
				delete(texts, id)
			} else {
				texts[id] = text()
				versions[id] = uint64(round + 1)
			}
		}
		var all, sources []Source
		for id, text := range texts {
			full := source(t, id, versions[id], text)
			all = append(all, full)
			if snapshot.Holds(schema, full) {
				full.Policy = nil
				reused++
			}
			sources = append(sources, full)
		}
		next, err := snapshot.Recompile(schema, copse.Settings{}, sources)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := Compile(schema, copse.Settings{}, all)
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			req := &copse.Request{
				Principal: uid("User", fmt.Sprint(r.IntN(5))), Action: uid("Action", []string{"view", "a1", "a2"}[r.IntN(3)]), Resource: uid("Doc", "d"),
				Context:  cedarJSON(fmt.Sprintf(`{"n%d": %d, "n%d": 1}`, r.IntN(6), r.IntN(3), 6+r.IntN(60))),
				Entities: cedarJSON(fmt.Sprintf(`[{"uid":{"type":"User","id":"%d"},"attrs":{"x":["t%d"]},"parents":[{"type":"Group","id":"%d"}]}]`, r.IntN(5), r.IntN(50), r.IntN(4))),
			}
			got, err := next.Decide(req)
			if err != nil {
				t.Fatal(err)
			}
			want, err := whole.Decide(req)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("round %d: %s", round, diff)
			}
			decided++
			if got.Decision == copse.Allow {
				allowed++
			}
		}
		snapshot = next
	}
	if reused < 3000 || decided < 2000 || allowed < 200 {
		t.Errorf("%d policies reused, %d decisions, %d of them ALLOW", reused, decided, allowed)
	}
	// What was dropped is forgotten in the end.
	if names := len(snapshot.symbols.entities.list); names > 300 {
		t.Errorf("%d entities have symbols", names)
	}
}

// One policy that is changed again and again must not fill the memory that its policy store was charged
// for with the names of its former texts.
func TestFormerNamesAreForgotten(t *testing.T) {
	var sources []Source
	for i := range 500 {
		sources = append(sources, source(t, fmt.Sprintf("small%03d", i), 1, "permit(principal, action, resource);"))
	}
	var snapshot *Snapshot
	kept := 0
	for round := range 200 {
		name := strings.Repeat("n", 9000)
		all := append(slices.Clone(sources), source(t, "large", uint64(round+1),
			fmt.Sprintf("permit(principal, action, resource) when { context.%s%d };", name, round)))
		for i := range all {
			if snapshot.Holds(nil, all[i]) {
				all[i].Policy = nil
				kept++
			}
		}
		var err error
		if snapshot, err = snapshot.Recompile(nil, copse.Settings{}, all); err != nil {
			t.Fatal(err)
		}
		if snapshot.Weight() > 500_000 {
			t.Fatalf("round %d: 500 policies of nothing and one of 9 kB weigh %d", round, snapshot.Weight())
		}
	}
	if kept < 190*len(sources) {
		t.Errorf("%d policies were kept", kept)
	}
}

func TestHoldsAndRecompileRefuse(t *testing.T) {
	a, b := source(t, "a", 1, "permit(principal, action, resource);"), source(t, "b", 7, "forbid(principal, action, resource);")
	s, err := Compile(nil, copse.Settings{}, []Source{a, b})
	if err != nil {
		t.Fatal(err)
	}
	newer, unknown, unversioned := a, a, a
	newer.Version, unknown.Ref.ID, unversioned.Version = 2, "c", 0
	schema := mustSchema(t, shopSchema)
	for what, held := range map[string]bool{
		"the same":       s.Holds(nil, a),
		"newer":          !s.Holds(nil, newer),
		"unknown":        !s.Holds(nil, unknown),
		"unversioned":    !s.Holds(nil, unversioned),
		"another schema": !s.Holds(schema, a),
		"no snapshot":    !(*Snapshot)(nil).Holds(nil, a),
	} {
		if !held {
			t.Errorf("%s: wrong answer", what)
		}
	}
	newer.Policy = nil
	if _, err := s.Recompile(nil, copse.Settings{}, []Source{newer, b}); copse.KindOf(err) != copse.Internal {
		t.Errorf("a policy that is not there was taken: %v", err)
	}
	if _, err := Compile(nil, copse.Settings{}, []Source{{Ref: a.Ref}}); copse.KindOf(err) != copse.Internal {
		t.Errorf("a policy that is not there was taken: %v", err)
	}
}

// Links share their template's program, also across snapshots.
func TestLinksShareTheirProgram(t *testing.T) {
	sources := links(t, 50)
	first, err := Compile(nil, copse.Settings{}, sources)
	if err != nil {
		t.Fatal(err)
	}
	for i := range first.policies {
		if first.policies[i].program != first.policies[0].program {
			t.Fatal("a link has a program of its own")
		}
	}
	for i := range sources[1:] {
		sources[1+i].Policy = nil
	}
	sources[0].Version = 2
	second, err := first.Recompile(nil, copse.Settings{}, sources)
	if err != nil {
		t.Fatal(err)
	}
	if second.policies[0].program != first.policies[0].program {
		t.Error("a new link of a known template has a program of its own")
	}
}

// links are n links of one template.
func links(t testing.TB, n int) []Source {
	t.Helper()
	template := mustTemplate(t, `permit(principal == ?principal, action == Action::"view", resource == ?resource) when { principal.level >= 3 && context.mfa && resource.label like "*x*" };`)
	sources := make([]Source, n)
	for i := range sources {
		sources[i] = Source{
			Ref:    copse.PolicyRef{ID: copse.PolicyID(fmt.Sprintf("%022d", i))},
			Policy: mustLink(t, template, uid("User", fmt.Sprint(i%100)), uid("Doc", fmt.Sprint(i/100))), Version: 1,
		}
	}
	return sources
}
