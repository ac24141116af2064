package engine

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
)

// verdicts are what Cedar's reference 4.12.0 says of conditions under shopSchema; "" is valid.
func TestVerdictsOfTheReference(t *testing.T) {
	const all, read, paint = `permit(principal, action, resource)`, `permit(principal, action == Action::"read", resource)`, `permit(principal, action == Action::"paint", resource)`
	s := mustSchema(t, shopSchema)
	for _, test := range []struct{ head, tail, want string }{
		// What one condition guards may be used in the next.
		{read, `when { principal has nick } when { principal.nick == "a" }`, ""},
		{read, `unless { !(principal has nick) } when { principal.nick == "a" }`, "optional attribute `nick`"},
		{read, `when { principal.nick == "a" } when { principal has nick }`, "optional attribute `nick`"},
		{read, `when { false } when { principal.nope }`, ""},
		{read, `when { true } when { 1 }`, "expected Bool but saw Long"},
		// Names are looked at where evaluation can't come.
		{read, `when { false && principal is Nope }`, "unrecognized entity type `Nope`"},
		{read, `when { false && principal == Nope::"x" }`, "unrecognized entity type `Nope`"},
		{read, `when { true || action == Action::"nope" }`, "unrecognized action"},
		{read, `when { false && Colour::"blue" == resource }`, `Colour::"blue" is not one of the entities`},
		{read, `when { principal is User in Nope::"x" }`, "unrecognized entity type `Nope`"},
		// The type of an action may be asked for in a condition, but not in a head.
		{read, `when { principal is Action }`, ""},
		{read, `when { action is Nope::Action }`, ""},
		{`permit(principal is Action, action, resource)`, ``, "unrecognized entity type `Action`"},
		{`permit(principal in Action::"all", action, resource)`, ``, "unable to find an applicable action"},
		// Groups of actions, and types above types.
		{`permit(principal, action in [Action::"all"], resource in Folder::"f")`, `when { action in Action::"all" && resource.owner == principal }`, ""},
		{`permit(principal, action == Action::"all", resource)`, ``, "unable to find an applicable action"},
		{`permit(principal, action, resource is Doc in Folder::"f")`, ``, ""},
		{`permit(principal, action, resource is Doc in Group::"f")`, ``, "unable to find an applicable action"},
		{read, `when { Action::"read" in Action::"all" && principal in Group::"g" }`, ""},
		// Enum types.
		{paint, `when { resource == Colour::"red" || [Colour::"green"].contains(resource) }`, ""},
		{paint, `when { [Colour::"red", Colour::"blue"].contains(resource) }`, `Colour::"blue" is not one of the entities`},
		{`permit(principal, action, resource in Colour::"blue")`, ``, `Colour::"blue" is not one of the entities`},
		{`permit(principal, action, resource is Colour in Colour::"red")`, ``, ""},
		{paint, `when { resource has x }`, ""},
		{paint, `when { resource.x == 1 }`, "attribute `x` on entity type `Colour` not found"},
		{all, `when { resource is Doc && resource.owner == principal }`, ""},
		{all, `when { resource is Colour || resource.owner == principal }`, ""},
		{all, `when { context.mfa }`, "attribute `mfa` in context for Action::\"paint\" not found"},
		{read, `when { [] == [] }`, "empty set literals are forbidden"},
	} {
		text := test.head + " " + test.tail + ";"
		err := s.Validate(mustPolicies(t, "p", text)...)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(fmt.Sprint(findingsOf(err)), test.want)) {
			t.Errorf("%s\n got %v, want %q", text, findingsOf(err), test.want)
		}
	}
	for _, schema := range []string{"entity U;", "entity U; action a;"} {
		err := mustSchema(t, schema).Validate(mustPolicies(t, "p", all+";")...)
		if err == nil || !strings.Contains(err.Error(), "unable to find an applicable action") {
			t.Errorf("%s: got %v", schema, err)
		}
	}
}

func TestVerdictsOfTheReferenceOnTemplates(t *testing.T) {
	s := mustSchema(t, shopSchema)
	for text, want := range map[string]string{
		`permit(principal == ?principal, action, resource);`:                                                                      "",
		`permit(principal == ?principal, action == Action::"read", resource == ?resource) when { principal.age > 1 };`:            "",
		`permit(principal in ?principal, action == Action::"read", resource) when { resource.owner == principal };`:               "",
		`permit(principal is User in ?principal, action, resource is Doc in ?resource) when { resource.nope };`:                   "attribute `nope`",
		`permit(principal is Nope in ?principal, action, resource);`:                                                              "unrecognized entity type `Nope`",
		`permit(principal is Group in ?principal, action, resource);`:                                                             "unable to find an applicable action",
		`permit(principal == ?principal, action, resource is Folder);`:                                                            "unable to find an applicable action",
		`permit(principal in ?principal, action == Action::"nope", resource);`:                                                    "unrecognized action",
		`permit(principal == ?principal, action, resource == Colour::"blue");`:                                                    `Colour::"blue" is not one of`,
		`permit(principal == ?principal, action == Action::"paint", resource in ?resource) when { resource.owner == principal };`: "attribute `owner`",
	} {
		err := s.ValidateTemplates(mustTemplate(t, text))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(fmt.Sprint(findingsOf(err)), want)) {
			t.Errorf("%s\n got %v, want %q", text, findingsOf(err), want)
		}
	}
	template := mustTemplate(t, `permit(principal is User in ?principal, action, resource == ?resource) when { principal.age > 1 };`)
	for _, test := range []struct {
		principal, resource [2]string
		want                string
	}{
		{[2]string{"Group", "g"}, [2]string{"Doc", "d"}, ""},
		{[2]string{"User", "u"}, [2]string{"Colour", "red"}, ""},
		{[2]string{"Group", "g"}, [2]string{"Colour", "blue"}, `Colour::"blue" is not one of`},
		{[2]string{"Nope", "g"}, [2]string{"Doc", "d"}, "unrecognized entity type `Nope`"},
		{[2]string{"Doc", "g"}, [2]string{"Doc", "d"}, "unable to find an applicable action"},
		{[2]string{"Group", "g"}, [2]string{"Folder", "d"}, "unable to find an applicable action"},
	} {
		link := mustLink(t, template, uid(test.principal[0], test.principal[1]), uid(test.resource[0], test.resource[1]))
		err := s.Validate(link)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(fmt.Sprint(findingsOf(err)), test.want)) {
			t.Errorf("%v\n got %v, want %q", test, findingsOf(err), test.want)
		}
	}
}

func TestWarnings(t *testing.T) {
	s := mustSchema(t, shopSchema)
	const read = `permit(principal, action == Action::"read", resource) `
	const impossible = "1:1 policy is impossible: the policy expression evaluates to false for all valid requests"
	for text, want := range map[string][]string{
		read + `;`:                            nil,
		read + `when { principal.age > 1 };`:  nil,
		read + `when { false };`:              {impossible},
		read + `unless { true };`:             {impossible},
		read + `when { principal is Group };`: {impossible},
		read + `when { principal.age > 1 } when { resource is Colour };`:                      {impossible},
		read + `when { principal has nope || false };`:                                        {impossible},
		`permit(principal, action, resource) when { resource is Colour && resource is Doc };`: {impossible},
		`permit(principal, action, resource) when { resource is Colour };`:                    nil,
		`permit(principal, action, resource) when { action == Action::"read" };`:              nil,
		`permit(principal, action, resource) when { 1 };`:                                     nil, // an error, no warning
		read + `when { principal.home.city == "раураl" };`:                                    {`1:85 string "раураl" contains mixed scripts`},
		read + `when { principal.home.city == "p\u{430}" };`:                                  {`1:85 string "pа" contains mixed scripts`},
		read + `when { principal.home.city like "日本*ひカ" || principal.home.city == "é1!" };`:   nil,
		read + `when { principal == User::"ひ한" };`:                                            {`1:81 string "ひ한" contains mixed scripts`},
		`@doc("раураl") ` + read + `;`:                                                        nil,
		`@doc("` + "\u202e" + `") ` + read + `;`:                                              {`1:6 string "\u202e" contains BIDI control characters`},
		"// \u2066 permit(principal, action, resource);\n" + read + ";":                       {"1:4 a comment contains BIDI control characters: what is shown is not what is there"},
		"// раураl\n" + read + ";":                                                            nil,
	} {
		reports, err := Reports(s, mustPolicies(t, "p", text)...)
		if err != nil || len(reports) != 1 {
			t.Fatal(reports, err)
		}
		var got []string
		for _, f := range reports[0].Warnings {
			got = append(got, fmt.Sprintf("%d:%d %s", f.Line, f.Column, f.Message))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s\n%s", text, diff)
		}
	}
	reports, err := Reports(nil, mustPolicies(t, "p", read+`when { false && principal.nope == "раураl" };`)...)
	if err != nil || len(reports[0].Warnings) != 1 || reports[0].Errors != nil {
		t.Errorf("without a schema: %+v %v", reports, err)
	}
	document := mustPolicies(t, "p", read+";\n\n// why\n// \u2066\n  "+read+"when {\n principal.home.city == \"раураl\" };")
	if reports, err = Reports(s, document...); err != nil || len(reports[1].Warnings) != 2 {
		t.Fatalf("%+v %v", reports, err)
	}
	if a, b := reports[1].Warnings[0], reports[1].Warnings[1]; a.Line != 4 || a.Column != 4 || b.Line != 6 || b.Column != 25 {
		t.Errorf("in a document: %+v", reports[1].Warnings)
	}
	templates, err := TemplateReports(s, mustTemplate(t, `permit(principal == ?principal, action, resource) when { false };`), mustTemplate(t, `permit(principal == ?principal, action, resource is Nope);`))
	if err != nil || len(templates[0].Warnings) != 1 || len(templates[0].Errors) != 0 || len(templates[1].Errors) != 2 {
		t.Errorf("templates: %+v %v", templates, err)
	}
}

func TestReportsAgreeWithValidate(t *testing.T) {
	s := mustSchema(t, shopSchema)
	var policies []*Policy
	for i, text := range policySeeds {
		policies = append(policies, mustPolicies(t, fmt.Sprint(i), text)...)
	}
	policies = append(policies, mustPolicies(t, "good", `permit(principal, action == Action::"read", resource) when { context.mfa };`)...)
	reports, err := Reports(s, policies...)
	if err != nil || len(reports) != len(policies) {
		t.Fatal(len(reports), err)
	}
	valid := 0
	for i, p := range policies {
		if diff := cmp.Diff(findingsOf(s.Validate(p)), reports[i].Errors, cmp.Transformer("none", func(f []copse.Field) []copse.Field {
			return append([]copse.Field{}, f...)
		})); diff != "" && len(reports[i].Errors) > 0 {
			t.Error(diff)
		}
		if len(reports[i].Errors) == 0 {
			valid++
		}
	}
	if valid == 0 || valid == len(policies) {
		t.Errorf("%d of %d are valid", valid, len(policies))
	}
}

// bigSchema has 200 actions: half of them on users and documents, half on groups and folders.
func bigSchema(t testing.TB) *Schema {
	var b strings.Builder
	b.WriteString("entity Group; entity User in [Group] { level: Long, dept: String }; entity Folder; entity Doc in [Folder] { dept: String, labels: Set<String> }; action all;")
	for i := range 200 {
		on := "principal: User, resource: Doc"
		if i%2 == 1 {
			on = "principal: User, resource: [Doc, Folder]"
		}
		fmt.Fprintf(&b, "action a%d in all appliesTo { %s, context: { mfa: Bool } };", i, on)
	}
	return mustSchema(t, b.String())
}

const abac = ` when { principal.dept == resource.dept && principal.level >= 3 && context.mfa && !resource.labels.contains("secret") };`

// scopedPolicies name one action and types each, as most policies do.
func scopedPolicies(t testing.TB, n int) []*Policy {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "permit(principal == User::\"u%d\", action == Action::\"a%d\", resource is Doc in Folder::\"f%d\")%s\n", i, i%200, i%17, abac)
	}
	return mustPolicies(t, "p", b.String())
}

func wildcardPolicies(t testing.TB, n int) []*Policy {
	return mustPolicies(t, "p", strings.Repeat("permit(principal is User, action, resource is Doc)"+abac+"\n", n))
}

// What validating many policies costs, in what is made and checked: heads and environments.
func TestValidatingManyPolicies(t *testing.T) {
	s := bigSchema(t)
	for _, test := range []struct {
		what                string
		policies            []*Policy
		heads, environments int
	}{
		{"scoped", scopedPolicies(t, 1000), 200, 1000},
		{"wildcard", wildcardPolicies(t, 1000), 1, 1000},
	} {
		v := validation{schema: s}
		for _, p := range test.policies {
			if more, err := v.policy(p); err != nil || !more {
				t.Fatal(v.result(err))
			}
		}
		if len(v.fields) > 0 || v.headsMade != test.heads || v.checked != test.environments {
			t.Errorf("%s: %d heads made, %d environments checked, %v", test.what, v.headsMade, v.checked, v.fields)
		}
	}
	// More heads than are kept are made again, and no more are kept.
	v := validation{schema: s}
	for i := range 600 {
		if _, err := v.policy(mustPolicies(t, "p", fmt.Sprintf("permit(principal, action in [Action::\"a1\",Action::\"x%d\"], resource);", i%300))[0]); err != nil {
			t.Fatal(err)
		}
	}
	if v.headsMade != 600 || len(v.heads) > maxHeads {
		t.Errorf("%d made, %d kept", v.headsMade, len(v.heads))
	}
}

func BenchmarkValidate(b *testing.B) {
	s := bigSchema(b)
	for what, policies := range map[string][]*Policy{"scoped": scopedPolicies(b, 10_000), "wildcard": wildcardPolicies(b, 10_000), "one": scopedPolicies(b, 1)} {
		b.Run(what, func(b *testing.B) {
			for b.Loop() {
				if err := s.Validate(policies...); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
