package engine

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
)

// explainText explains a request to policies p0, p1 and so on.
func explainText(t testing.TB, schema *Schema, settings copse.Settings, req *copse.Request, texts ...string) copse.Explanation {
	t.Helper()
	out, err := compileText(t, schema, settings, texts...).Explain(req, func(id copse.PolicyID) (*Policy, error) {
		var n int
		if _, err := fmt.Sscanf(string(id), "p%d", &n); err != nil {
			t.Fatal(err)
		}
		return ParsePolicy(string(id), []byte(texts[n]))
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// drawn writes an explanation down, a part a line.
func drawn(e copse.Explanation) string {
	var b strings.Builder
	var draw func(depth int, p copse.ExplainedPart)
	draw = func(depth int, p copse.ExplainedPart) {
		fmt.Fprintf(&b, "%s%s %d:%d ", strings.Repeat("  ", depth), p.Outcome, p.Line, p.Column)
		if p.Operator != "" {
			fmt.Fprintf(&b, "<%s> ", p.Operator)
		}
		b.WriteString(p.Text)
		for _, v := range p.Values {
			fmt.Fprintf(&b, " | %s = %s", v.Text, v.Value)
		}
		if p.Error != "" {
			b.WriteString(" | " + p.Error)
		}
		b.WriteString("\n")
		for _, inner := range p.Parts {
			draw(depth+1, inner)
		}
	}
	for _, p := range e.Policies {
		fmt.Fprintf(&b, "%s: %s\n", p.Policy.ID, p.Outcome)
		for _, part := range append(p.Scope, p.Conditions...) {
			draw(1, part)
		}
	}
	return b.String()
}

func TestExplanation(t *testing.T) {
	req := viewRequest()
	req.Principal = uid("User", "alice")
	req.Entities = cedarJSON(`[{"uid": {"type": "Doc", "id": "1"}, "attrs": {"amount": 90000, "tags": ["b", "a"], "r": {"x": {"y": 1}}, "ip": {"__extn": {"fn": "ip", "arg": "10.0.0.1"}}}, "parents": []},
		{"uid": {"type": "User", "id": "alice"}, "attrs": {}, "parents": [{"type": "Group", "id": "staff"}]}]`)
	req.Resource = uid("Doc", "1")
	for what, test := range map[string]struct{ policy, want string }{
		"chains and where they end": {"permit(principal in Group::\"staff\", action == Action::\"view\", resource)\nwhen {\n  resource.amount <= 50000 && // too much\n  principal has mfa\n  || (resource.tags.contains(\"a\") && !(principal == resource))\n  || context.late\n};",
			`p0: true
  true 1:8 principal in Group::"staff" | principal = User::"alice"
  true 1:37 action == Action::"view" | action = Action::"view"
  true 1:63 resource
  true 2:1 <when> when { resource.amount <= 50000 && principal has mfa || (resource.tags.contains("a") && !(principal == resource)) || context.late }
    true 3:3 <||> resource.amount <= 50000 && principal has mfa || (resource.tags.contains("a") && !(principal == resource)) || context.late
      false 3:3 <&&> resource.amount <= 50000 && principal has mfa
        false 3:3 resource.amount <= 50000 | resource.amount = 90000
        not evaluated 4:3 principal has mfa
      true 5:7 <&&> resource.tags.contains("a") && !(principal == resource)
        true 5:7 resource.tags.contains("a") | resource.tags = ["a", "b"]
        true 5:38 <!> !(principal == resource)
          false 5:40 principal == resource | principal = User::"alice" | resource = Doc::"1"
      not evaluated 6:6 context.late
`},
		"an error": {`forbid(principal, action, resource) unless { resource.ip.isInRange(ip("10.0.0.0/8")) } when { principal.age + 1 > 17 } when { true };`,
			`p0: false
  true 1:8 principal
  true 1:19 action
  true 1:27 resource
  false 1:37 <unless> unless { resource.ip.isInRange(ip("10.0.0.0/8")) }
    true 1:46 resource.ip.isInRange(ip("10.0.0.0/8")) | resource.ip = ip("10.0.0.1")
  not evaluated 1:88 <when> when { principal.age + 1 > 17 }
    not evaluated 1:95 principal.age + 1 > 17
  not evaluated 1:120 <when> when { true }
    not evaluated 1:127 true
`},
		"a failed comparison shows what it could": {`permit(principal, action, resource) when { if resource has r.x.y then principal.age > resource.amount else false };`,
			"p0: error\n  true 1:8 principal\n  true 1:19 action\n  true 1:27 resource\n" +
				"  error 1:37 <when> when { if resource has r.x.y then principal.age > resource.amount else false }\n" +
				"    error 1:44 <if> if resource has r.x.y then principal.age > resource.amount else false\n" +
				"      true 1:47 resource has r.x.y\n" +
				"      error 1:71 principal.age > resource.amount | resource.amount = 90000 | `User::\"alice\"` does not have the attribute `age`\n" +
				"      not evaluated 1:108 false\n"},
		"a scope that does not match": {"@id(\"a(b\") @x\npermit(principal is Group in Group::\"staff\", action in [Action::\"a\", Action::\"b\"], resource is Doc,) when { context.x };",
			`p0: false
  false 2:8 principal is Group in Group::"staff" | principal = User::"alice"
  false 2:46 action in [Action::"a", Action::"b"] | action = Action::"view"
  true 2:84 resource is Doc | resource = Doc::"1"
  not evaluated 2:102 <when> when { context.x }
`},
		"ifs in ifs": {`permit(principal, action, resource) when { if if true then false else true then 1 == 1 else if (false) then false else resource.r == {"x": {y: 1}} };`,
			`p0: true
  true 1:8 principal
  true 1:19 action
  true 1:27 resource
  true 1:37 <when> when { if if true then false else true then 1 == 1 else if (false) then false else resource.r == {"x": {y: 1}} }
    true 1:44 <if> if if true then false else true then 1 == 1 else if (false) then false else resource.r == {"x": {y: 1}}
      false 1:47 <if> if true then false else true
        true 1:50 true
        false 1:60 false
        not evaluated 1:71 true
      not evaluated 1:81 1 == 1
      true 1:93 <if> if (false) then false else resource.r == {"x": {y: 1}}
        false 1:97 false
        not evaluated 1:109 false
        true 1:120 resource.r == {"x": {y: 1}} | resource.r = {"x": {"y": 1}}
`},
	} {
		if diff := cmp.Diff(test.want, drawn(explainText(t, nil, copse.Settings{}, req, test.policy))); diff != "" {
			t.Errorf("%s:\n%s", what, diff)
		}
	}
}

// A link is explained in its template's text, with what stands in the slots.
func TestExplanationOfALink(t *testing.T) {
	link, err := mustTemplate(t, "permit(\n  principal == ?principal,\n  action,\n  resource in ?resource\n);").Link("l", uid("User", "a"), uid("Folder", "f"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Compile(nil, copse.Settings{}, []Source{{Ref: copse.PolicyRef{ID: "l", Name: "n"}, Policy: link}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Explain(viewRequest(), func(copse.PolicyID) (*Policy, error) { return link, nil })
	if err != nil || len(got.Policies) != 1 || !got.Policies[0].Linked || got.Policies[0].Policy.Name != "n" {
		t.Fatalf("%+v %v", got, err)
	}
	want := "l: false\n  true 2:3 principal == User::\"a\" | principal = User::\"a\"\n  true 3:3 action\n  false 4:3 resource in Folder::\"f\" | resource = Doc::\"d\"\n"
	if diff := cmp.Diff(want, drawn(got)); diff != "" {
		t.Error(diff)
	}
}

func TestExplanationsAreBounded(t *testing.T) {
	long := strings.Repeat("x", 5000)
	req := viewRequest()
	req.Context = cedarJSON(fmt.Sprintf(`{"long": %q, "list": [%s], "rec": {%q: 1}}`, long, longs(3000), long))
	matching := make([]string, copse.MaxExplainedPolicies+5)
	for i := range matching {
		matching[i] = fmt.Sprintf(`permit(principal, action, resource) when { context.long == "%s" || context.list.contains(-1) || context.rec has "%s" || principal["%s"] == 1 };`, long[:3000], long[:3000], long[:1000])
	}
	got := explainText(t, nil, copse.Settings{}, req, append(matching, `permit(principal == User::"nobody", action, resource);`)...)
	if len(got.Policies) != copse.MaxExplainedPolicies || got.LeftOut != 5 || len(got.Errors) != len(matching) {
		t.Fatalf("%d policies, %d left out", len(got.Policies), got.LeftOut)
	}
	const most = copse.MaxExplainedText + len("...")
	parts, longest := 0, 0
	var count func(p copse.ExplainedPart)
	count = func(p copse.ExplainedPart) {
		parts++
		for _, text := range []string{p.Text, p.Error} {
			longest = max(longest, len(text))
		}
		for _, v := range p.Values {
			longest = max(longest, len(v.Text), len(v.Value))
		}
		for _, inner := range p.Parts {
			count(inner)
		}
	}
	for _, p := range got.Policies {
		for _, part := range p.Conditions {
			count(part)
		}
	}
	if longest != most || parts != 6*copse.MaxExplainedPolicies {
		t.Errorf("the longest text has %d bytes of %d, there are %d parts", longest, most, parts)
	}

	// What is not shown still counts.
	for what, text := range map[string]string{
		"one condition":   `permit(principal, action, resource) when { ` + strings.Repeat("true && ", 200) + `false };`,
		"many conditions": `permit(principal, action, resource)` + strings.Repeat(" when { true }", 100) + ` when { false };`,
		"in the middle":   `permit(principal, action, resource) when { ` + strings.Repeat("(true || true) && ", 50) + `(false || false) };`,
	} {
		got := explainText(t, nil, copse.Settings{}, viewRequest(), text)
		parts = 0
		for _, part := range got.Policies[0].Conditions {
			count(part)
		}
		if p := got.Policies[0]; !p.Cut || p.Outcome != copse.False || parts > copse.MaxExplainedParts || got.Decision != copse.Deny {
			t.Errorf("%s: cut: %v, %v, %d parts", what, p.Cut, p.Outcome, parts)
		}
	}
	if got := explainText(t, nil, copse.Settings{}, viewRequest(), `permit(principal, action, resource);`); got.Policies[0].Cut {
		t.Error("a policy that is shown whole says that it is cut")
	}
}

// Operands that the decision never came to are evaluated to be shown. All of them together cost no more
// than a decision.
func TestShowingOperandsIsBounded(t *testing.T) {
	const dear = `principal is Nobody in (if context.a.containsAll(context.a) then principal else resource)`
	text := "permit(principal, action, resource) when { " + strings.Repeat(dear+" || ", 50) + "true };"
	p, err := ParsePolicy("p", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	s := compileText(t, nil, copse.Settings{}, text)
	req := viewRequest()
	req.Context = cedarJSON(`{"a": ` + longs(100_000) + `}`)
	got, err := s.Explain(req, func(copse.PolicyID) (*Policy, error) { return p, nil })
	if err != nil || got.Response.Decision != copse.Allow || len(got.Policies) != 1 {
		t.Fatalf("%+v %v", got, err)
	}
	shown := 0
	for _, part := range got.Policies[0].Conditions[0].Parts[0].Parts {
		for _, v := range part.Values {
			if v.Text != "principal" {
				shown++
			}
		}
	}
	if shown == 0 || shown > MaxDecisionSteps/100_000 {
		t.Errorf("%d dear operands are shown", shown)
	}
}

func TestWhatCanNotBeExplained(t *testing.T) {
	const text = `permit(principal, action, resource) when { context.n == 1 };`
	s := compileText(t, nil, copse.Settings{}, text)
	req := viewRequest()
	req.Context = cedarJSON(`{"n": 1}`)
	// Another text than the one that decided is not passed off as its explanation.
	for what, other := range map[string]string{
		"another condition": `permit(principal, action, resource) when { context.n == 2 };`,
		"another scope":     `permit(principal, action == Action::"other", resource) when { context.n == 1 };`,
	} {
		got, err := s.Explain(req, func(copse.PolicyID) (*Policy, error) { return ParsePolicy("p0", []byte(other)) })
		if err == nil || copse.KindOf(err) != copse.Internal || got.Decision != copse.Deny || got.Policies != nil {
			t.Errorf("%s: %+v %v", what, got, err)
		}
	}
	gone := copse.Errorf(copse.Conflict, "gone")
	if got, err := s.Explain(req, func(copse.PolicyID) (*Policy, error) { return nil, gone }); err != gone || got.Decision != copse.Deny { //nolint:errorlint // it is handed on as it is
		t.Errorf("%+v %v", got, err)
	}
	req.Context = cedarJSON(`{"n": `)
	if got, err := s.Explain(req, nil); copse.KindOf(err) != copse.Invalid || err == nil || got.Decision != copse.Deny {
		t.Errorf("%+v %v", got, err)
	}
}
