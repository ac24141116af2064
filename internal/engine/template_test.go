package engine

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
)

func mustTemplate(t testing.TB, text string) *Template {
	t.Helper()
	template, err := ParseTemplate("t.cedar", []byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return template
}

func mustLink(t testing.TB, template *Template, principal, resource types.EntityUID) *Policy {
	t.Helper()
	p, err := template.Link("link", principal, resource)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTemplateSyntaxErrors(t *testing.T) {
	const head = "permit(principal == ?principal, action, resource)"
	for _, test := range []struct {
		text         string
		line, column int
		message      string
	}{
		{"permit(principal, action, resource);", 1, 1, "no slot"},
		{"\n permit(principal == A::\"\", action, resource);", 2, 2, "no slot"},
		{head + "; " + head + ";", 1, 52, "a second one starts here"},
		{"permit(principal == ?resource, action, resource);", 1, 21, "written ?principal"},
		{"permit(principal == ?user, action, resource);", 1, 21, "written ?principal"},
		{"permit(principal == ? principal, action, resource);", 1, 21, "written ?principal"},
		{"permit(principal, action, resource is T in ?principal);", 1, 44, "written ?resource"},
		{"permit(principal is ?principal, action, resource);", 1, 21, "a slot can't stand here"},
		{"permit(principal in [?principal], action, resource);", 1, 21, "only action can be in a list"},
		{"permit(principal, action == ?action, resource == ?resource);", 1, 29, "a slot can't stand here"},
		{"permit(principal, action in [?action], resource == ?resource);", 1, 30, "a slot can't stand here"},
		{"permit(?principal, action, resource);", 1, 8, "a slot can't stand here"},
		{head + "\nwhen { resource in ?resource };", 2, 20, "a slot can't stand here"},
		{head + "\nwhen { [?principal].isEmpty() };", 2, 9, "a slot can't stand here"},
		{head + "\nunless { ?principal.age > 3 };", 2, 10, "a slot can't stand here"},
		{head + " when { {a: ?principal} == 1 };", 1, 62, "a slot can't stand here"},
		{"@id(?principal) " + head + ";", 1, 5, "a slot can't stand here"},
	} {
		t.Run(test.text, func(t *testing.T) {
			_, err := ParseTemplate("p.cedar", []byte(test.text))
			wantField(t, err, test.line, test.column, test.message)
		})
	}
	_, err := ParsePolicies("p", []byte("permit(principal,action,resource);\nforbid(principal in\n ?principal, action, resource);"))
	wantField(t, err, 3, 2, "this is a template")
	_, err = ParseTemplate("p", []byte(head+";//"+strings.Repeat("x", copse.MaxPolicyBytes)))
	if copse.KindOf(err) != copse.QuotaExceeded {
		t.Errorf("got %v", err)
	}
}

// slotForms are the ways a slot may stand in the scope of a principal, with the same scope for one entity.
var slotForms = []struct{ slot, filled string }{
	{"%s == ?%[1]s", `%s == %s`},
	{"%s in ?%[1]s", `%s in %s`},
	{"%s is User in ?%[1]s", `%s is User in %s`},
	{"%s==?%[1]s// c\n", `%s == %s`},
}

// A link must be the policy one would have written by hand, and the words of a slot inside strings and
// comments are no slots.
func TestLinksAreTheirPoliciesWrittenOut(t *testing.T) {
	const tail = " when { context.x == \"?principal\" } unless { resource has ghost // ?resource\n };"
	alice, group, odd := uid("User", "alice"), uid("N::Group", "g"), uid("A", "")
	pairs := 0
	for _, p := range slotForms {
		for _, r := range slotForms {
			both := mustTemplate(t, "@id(\"?\") permit("+fmt.Sprintf(p.slot, "principal")+", action == Action::\"a\","+fmt.Sprintf(r.slot, "resource")+")"+tail)
			if both.Slots() != (Slots{true, true}) {
				t.Fatalf("slots %+v", both.Slots())
			}
			for _, ids := range [][2]types.EntityUID{{alice, group}, {group, odd}, {odd, odd}} {
				link := mustLink(t, both, ids[0], ids[1])
				written := mustPolicies(t, "p", "@id(\"?\") permit("+fmt.Sprintf(p.filled, "principal", ids[0])+", action == Action::\"a\","+fmt.Sprintf(r.filled, "resource", ids[1])+")"+tail)[0]
				if string(asCedarGo(link).MarshalCedar()) != string(asCedarGo(written).MarshalCedar()) {
					t.Errorf("%s differs from\n%s", asCedarGo(link).MarshalCedar(), asCedarGo(written).MarshalCedar())
				}
				if !link.SameTarget(written) || link.Template() != both || link.Text() != both.Text() {
					t.Errorf("%s", both.Text())
				}
				if diff := cmp.Diff(written.Scope(), link.Scope()); diff != "" {
					t.Error(diff)
				}
				if &link.tree.Conditions[0] != &both.source.tree.Conditions[0] {
					t.Error("the conditions are not shared")
				}
				pairs++
			}
		}
	}
	if pairs != 48 {
		t.Errorf("%d pairs ran", pairs)
	}
}

func TestOneSlot(t *testing.T) {
	template := mustTemplate(t, `forbid(principal is User, action, resource in ?resource);`)
	if diff := cmp.Diff(Slots{Resource: true}, template.Slots()); diff != "" || !template.Forbids() {
		t.Error(diff)
	}
	if diff := cmp.Diff(Scope{}, template.Scope()); diff != "" {
		t.Error(diff)
	}
	link := mustLink(t, template, types.EntityUID{}, uid("Doc", "d"))
	if diff := cmp.Diff(Scope{Resource: uid("Doc", "d")}, link.Scope()); diff != "" || !link.Forbids() {
		t.Error(diff)
	}
	for _, test := range []struct {
		principal, resource types.EntityUID
		message             string
	}{
		{uid("User", "a"), uid("Doc", "d"), "no slot ?principal"},
		{types.EntityUID{}, types.EntityUID{}, "say which resource"},
		{types.EntityUID{}, uid("a b", "d"), "a type that is not one"},
		{types.EntityUID{}, uid("", "d"), "a type that is not one"},
		{types.EntityUID{}, uid("__cedar::X", "d"), "a type that is not one"},
		{types.EntityUID{}, uid(`A::"x", action, resource) when {true}; //`, "d"), "a type that is not one"},
	} {
		_, err := template.Link("members", test.principal, test.resource)
		if f := invalid(t, err)[0]; !strings.Contains(f.Message, test.message) || f.Path != "members" {
			t.Errorf("%+v, want %q", f, test.message)
		}
	}
}

func TestTemplatesMustConstrain(t *testing.T) {
	for text, want := range map[string]int{
		`permit(principal == ?principal, action, resource);`:                   1,
		`permit(principal, action, resource in ?resource);`:                    1,
		`permit(principal is User, action, resource in ?resource);`:            0,
		`permit(principal in ?principal, action, resource == Doc::"d");`:       0,
		`permit(principal in ?principal, action, resource is D in ?resource);`: 0,
	} {
		if got := len(findingsOf(mustTemplate(t, text).RequireConstraints())); got != want {
			t.Errorf("%s: %d findings, want %d", text, got, want)
		}
	}
}

func TestSameTargetOfTemplates(t *testing.T) {
	template := mustTemplate(t, `permit(principal == ?principal, action, resource == Doc::"d");`)
	for text, same := range map[string]bool{
		`permit(principal == ?principal, action == Action::"a", resource == Doc::"d") when { true };`: true,
		`permit(principal in ?principal, action, resource == Doc::"d");`:                              false,
		`permit(principal == A::"", action, resource == ?resource);`:                                  false,
		`permit(principal == ?principal, action, resource == ?resource);`:                             false,
		`forbid(principal == ?principal, action, resource == Doc::"d");`:                              false,
	} {
		if got := template.SameTarget(mustTemplate(t, text)); got != same {
			t.Errorf("%s: same target %v", text, got)
		}
	}
}

func TestLinksDecide(t *testing.T) {
	template := mustTemplate(t, `permit(principal == ?principal, action == Action::"view", resource is Doc in ?resource) when { principal != User::"evil" };`)
	sources := []Source{
		{Ref: copse.PolicyRef{ID: "l1"}, Policy: mustLink(t, template, uid("User", "a"), uid("Doc", "d"))},
		{Ref: copse.PolicyRef{ID: "l2"}, Policy: mustLink(t, template, uid("User", "b"), uid("Doc", "d"))},
		{Ref: copse.PolicyRef{ID: "l3"}, Policy: mustLink(t, template, uid("User", "a"), uid("Folder", "f"))},
	}
	snapshot, err := Compile(nil, copse.Settings{}, sources)
	if err != nil {
		t.Fatal(err)
	}
	got, err := snapshot.Decide(viewRequest())
	if err != nil || verdictOf(got).String() != "ALLOW by [l1], errors []" {
		t.Errorf("%v %v", verdictOf(got), err)
	}
}
