package engine

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
)

const shopSchema = `
entity Group;
entity User in [Group] { age: Long, nick?: String, home: { city: String, zip?: Long } } tags String;
entity Colour enum ["red", "green"];
entity Folder;
entity Sub in [Folder];
entity Doc in [Sub] { owner: User, colour: Colour };
action all;
action read in all appliesTo { principal: User, resource: Doc, context: { mfa: Bool } };
action paint appliesTo { principal: User, resource: Colour };
`

func mustPolicies(t testing.TB, path, text string) []*Policy {
	t.Helper()
	policies, err := ParsePolicies(path, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return policies
}

func TestValidateFindings(t *testing.T) {
	s := mustSchema(t, shopSchema)
	for text, want := range map[string][]string{
		`permit(principal, action, resource);`:                                                               nil,
		`permit(principal in Group::"g", action in Action::"all", resource is Doc in Folder::"f");`:          nil,
		`permit(principal, action == Action::"read", resource) when { principal.age > 3 && context.mfa };`:   nil,
		`permit(principal, action, resource) when { principal has nick && principal.nick == "x" };`:          nil,
		`permit(principal, action, resource) when { principal.agee > 3 };`:                                   {"attribute `agee` on entity type `User` not found"},
		`permit(principal, action, resource) when { principal.nick == "x" };`:                                {"unable to guarantee safety of access to optional attribute `nick` on entity type `User`"},
		`permit(principal == Usr::"a", action, resource);`:                                                   {"unrecognized entity type `Usr`", "unable to find an applicable action given the policy scope constraints"},
		`permit(principal, action == Action::"write", resource);`:                                            {"unrecognized action `Action::\"write\"`", "unable to find an applicable action given the policy scope constraints"},
		`permit(principal, action == Action::"paint", resource is Doc);`:                                     {"unable to find an applicable action given the policy scope constraints"},
		`permit(principal, action in [], resource);`:                                                         {"empty set literals are forbidden in policies", "unable to find an applicable action given the policy scope constraints"},
		`permit(principal, action, resource) when { 1 };`:                                                    {"unexpected type: expected Bool but saw Long"},
		`permit(principal, action == Action::"paint", resource == Colour::"blue");`:                          {`Colour::"blue" is not one of the entities the schema declares for the enum type Colour`},
		`permit(principal, action == Action::"paint", resource == Colour::"red");`:                           nil,
		`permit(principal, action == Action::"read", resource) when { resource.colour == Colour::"blue" };`:  {`Colour::"blue" is not one of the entities the schema declares for the enum type Colour`},
		`permit(principal, action == Action::"read", resource) when { resource.colour == Colour::"green" };`: nil,
		`permit(principal, action, resource) when { [] == [] } unless { [].isEmpty() };`:                     {"empty set literals are forbidden in policies"},
		`permit(principal, action, resource) when { ip("nope").isIpv4() && ip("nope").isIpv4() };`:           {"error during extension function argument validation: failed to parse as IP address: `\"nope\"`"},
		`permit(principal is User in Doc::"d", action, resource);`:                                           {"unable to find an applicable action given the policy scope constraints"},
	} {
		err := s.Validate(mustPolicies(t, "p", text)...)
		var got []string
		if err != nil {
			for _, f := range invalid(t, err) {
				got = append(got, f.Message)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s\n%s", text, diff)
		}
	}
}

func TestValidatePlacesEachFinding(t *testing.T) {
	s := mustSchema(t, shopSchema)
	one := mustPolicies(t, "one.cedar", "\n  permit(principal, action, resource) when { principal.x == 1 };\npermit(principal, action, resource);\n// why\nforbid(principal is Nobody, action, resource);")
	two := mustPolicies(t, "two.cedar", "permit(principal, action, resource) when { 3 };")
	var got []string
	for _, f := range invalid(t, s.Validate(append(one, two...)...)) {
		got = append(got, fmt.Sprintf("%s:%d:%d", f.Path, f.Line, f.Column))
	}
	if diff := cmp.Diff([]string{"one.cedar:2:3", "one.cedar:5:1", "one.cedar:5:1", "two.cedar:1:1"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestFindingsAreBounded(t *testing.T) {
	s := mustSchema(t, shopSchema)
	policies := mustPolicies(t, "p", strings.Repeat("permit(principal, action, resource) when { 1 };\n", 1000))
	fields := invalid(t, s.Validate(policies...))
	if len(fields) != maxFindings+1 || !strings.Contains(fields[maxFindings].Message, "more findings") {
		t.Errorf("%d fields, the last %q", len(fields), fields[len(fields)-1].Message)
	}
}

// wideSchema has n x n request environments, and attributes of every costly kind.
func wideSchema(t testing.TB, n int) *Schema {
	var b, list strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "entity U%d {a?: R}; entity D%d;", i, i)
		fmt.Fprintf(&list, "U%d,", i)
	}
	b.WriteString("type R = {a?: R1, big: Big}; type R1 = {a?: R2}; type R2 = {a?: R3}; type R3 = {a?: R4}; type R4 = {a?: R5}; type R5 = {a?: Long};")
	b.WriteString("type Big = {")
	for i := range 150 {
		fmt.Fprintf(&b, "m%d?: Long,", i)
	}
	fmt.Fprintf(&b, "}; action g; action v in g appliesTo { principal: [%s], resource: [%s], context: R };", list.String(), strings.ReplaceAll(list.String(), "U", "D"))
	return mustSchema(t, b.String())
}

// Each of these keeps cedar-go's typechecker busy far longer than its size suggests. They are refused
// with the number, at once.
func TestValidationBudget(t *testing.T) {
	s := wideSchema(t, 100)
	var guards []string
	for i := range 150 {
		guards = append(guards, fmt.Sprintf("context.big has m%d", i))
	}
	isIn := "principal"
	for range 20 {
		isIn = "(if " + isIn + " is U0 in principal then principal else principal)"
	}
	ifs := `"x"`
	for range 40 {
		ifs = "if true then " + ifs + ` else "y"`
	}
	for what, expression := range map[string]string{
		"nodes":            strings.TrimSuffix(strings.Repeat("1 == 1 && ", 500), "&& "),
		"guards":           strings.Join(guards, " && "),
		"optional chain":   "context" + strings.Repeat(".a", 6) + " == 1" + strings.Repeat(" && context"+strings.Repeat(".a", 6)+" == 1", 20),
		"large attributes": strings.TrimSuffix(strings.Repeat("context.big == 1 && ", 100), "&& "),
		"context":          strings.TrimSuffix(strings.Repeat("context == 1 && ", 100), "&& "),
		"is in":            isIn + " == principal",
		"tag":              `principal.getTag(` + ifs + `) == ""`,
	} {
		inTime(t, what, func() {
			p, err := ParsePolicy("dir/"+what, []byte("permit(principal, action, resource) when { "+expression+" };"))
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			f := invalid(t, s.Validate(p))[0]
			if !strings.Contains(f.Message, "at most 2000000 are allowed") || !strings.Contains(f.Message, "10000 request environments") || f.Path != "dir/"+what {
				t.Errorf("%s: %+v", what, f)
			}
		})
	}
	// The same policies with a head that says what they are about fit.
	p := mustPolicies(t, "p", `permit(principal is U0, action == Action::"v", resource is D0) when { `+strings.Join(guards[:50], " && ")+` };`)
	if err := s.Validate(p...); err != nil {
		t.Error(err)
	}
}

func TestValidationBudgetOfOneCall(t *testing.T) {
	s := wideSchema(t, 8)
	// Long sums are cheaper than the budget takes them for, which keeps this test short.
	text := `permit(principal, action, resource) when { 1 == ` + strings.Repeat("1 + ", 800) + `1 };`
	policies := mustPolicies(t, "p", strings.Repeat(text+"\n", 100))
	err := s.Validate(policies...)
	fields := invalid(t, err)
	if last := fields[len(fields)-1].Message; !strings.Contains(last, "takes more than 50000000 steps") {
		t.Errorf("got %q", last)
	}
}

// The largest policies the budget admits are validated in bounded time.
func TestValidationWithinBudgetIsFast(t *testing.T) {
	s := wideSchema(t, 20)
	var guards []string
	for i := range 30 {
		guards = append(guards, fmt.Sprintf("context.big has m%d", i))
	}
	for what, expression := range map[string]string{
		"nodes":          strings.TrimSuffix(strings.Repeat("1 == 1 && ", 100), "&& "),
		"guards":         strings.Join(guards, " && "),
		"optional chain": "context" + strings.Repeat(".a", 6) + " == 1",
		"wrong types":    strings.TrimSuffix(strings.Repeat(`"" + `, 100), "+ ") + " == 1",
	} {
		inTime(t, what, func() {
			policies := mustPolicies(t, "p", "permit(principal, action, resource) when { "+expression+" };")
			if err := s.Validate(policies...); err != nil && copse.KindOf(err) != copse.Invalid {
				t.Error(err)
			}
		})
	}
}
