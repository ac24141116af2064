package engine

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
)

// invalid returns the findings of an error that must be Invalid.
func invalid(t *testing.T, err error) []copse.Field {
	t.Helper()
	e, ok := errors.AsType[*copse.Error](err)
	if !ok {
		t.Fatalf("got %v, want a *copse.Error", err)
	}
	if e.Kind != copse.Invalid || len(e.Fields) == 0 || e.Detail == "" {
		t.Fatalf("got %v %+v, want Invalid with fields and detail", e.Kind, e)
	}
	return e.Fields
}

// findingsOf returns the findings of an error, none of none.
func findingsOf(err error) []copse.Field {
	if e, ok := errors.AsType[*copse.Error](err); ok {
		return e.Fields
	}
	return nil
}

func wantField(t *testing.T, err error, line, column int, message string) {
	t.Helper()
	f := invalid(t, err)[0]
	if f.Line != line || f.Column != column || !strings.Contains(f.Message, message) {
		t.Errorf("got %d:%d %q, want %d:%d %q", f.Line, f.Column, f.Message, line, column, message)
	}
}

func TestPolicySyntaxErrors(t *testing.T) {
	const head = "permit(principal, action, resource)"
	for _, test := range []struct {
		text         string
		line, column int
		message      string
	}{
		{"", 1, 1, "there is no policy here"},
		{"// only a comment\n", 1, 1, "there is no policy here"},
		{"allow(principal, action, resource);", 1, 1, "expected permit or forbid, found `allow`"},
		{head, 1, 36, "expected when, unless or `;`, found the end of the text"},
		{head + " when { true }", 1, 50, "found the end of the text"},
		{head + " when { };", 1, 44, "empty condition"},
		{head + "\nwhen {\n  principal.age = 3 };", 3, 17, "expected ==, found `=`"},
		{head + "\nwhen { principal.age > 3 > 2 };", 2, 26, "comparisons don't chain"},
		{head + "\nwhen { principal.name == bob };", 2, 26, "unknown name `bob`"},
		{head + "\nwhen { é };", 2, 8, "'é' is not part of the language"},
		{head + "\nwhen { \"ünï\" == x };", 2, 19, "unknown name `x`"},
		{head + " when { \"open };", 1, 44, "this string is not closed"},
		{head + " when { \"open\\", 1, 44, "this string is not closed"}, // recovering from it must not read on behind the end
		{head + " when { \"new\rline\" == \"\" };", 1, 48, "write \\r"},
		{head + " when { \"new\\\nline\" == \"\" };", 1, 48, "unknown escape"},
		{head + " when {\u200b true };", 1, 43, "not part of the language"},
		{head + " when { \"\\q\" == \"\" };", 1, 45, "unknown escape"},
		{head + " when { \"\\*\" == \"\" };", 1, 45, "an escape of patterns only"},
		{head + " when { \"\\u{110000}\" == \"\" };", 1, 45, "\\u takes"},
		{head + " when { \"\\x80\" == \"\" };", 1, 45, "\\x takes"},
		{head + " /* no */;", 1, 37, "begin each of their lines with //"},
		{head + " when { 9223372036854775808 == 1 };", 1, 44, "does not fit into a Long"},
		{head + " when { -9223372036854775809 == 1 };", 1, 45, "does not fit into a Long"},
		{head + " when { !!!!!true };", 1, 48, "more than 4 `!` in a row"},
		{head + " when { -----1 == 1 };", 1, 48, "more than 4 `-` in a row"},
		{head + " when { !-1 == 1 };", 1, 45, "can't follow each other"},
		{head + " when { foo(1) };", 1, 44, "there is no function `foo`"},
		{head + " when { principal.foo(1) };", 1, 54, "there is no method `foo`"},
		{head + " when { principal.ip(1) };", 1, 54, "is a function, not a method"},
		{head + " when { contains(1) };", 1, 44, "is a method, not a function"},
		{head + " when { [1].contains(1, 2) };", 1, 48, "wants 1 as its number of arguments, not 2"},
		{head + " when { {a: 1, \"\\x61\": 2} == 1 };", 1, 51, "occurs twice in this record"},
		{head + " when { principal has if };", 1, 58, "the reserved word `if`"},
		{head + " when { principal is \"User\" };", 1, 57, "expected an entity type, found the string"},
		{head + " when { principal is User::\"a\" };", 1, 63, "`is` takes a type, not an entity"},
		{head + " when { User::alice };", 1, 56, "expected `::` and an id in quotes"},
		{"@id(\"a\") @id(\"b\") " + head + ";", 1, 11, "occurs twice"},
		{"permit(principal == ?principal, action, resource);", 1, 21, "this is a template, for it has the slot ?principal"},
		{"permit(principal, action, resource in ?resource);", 1, 39, "this is a template, for it has the slot ?resource"},
		{"permit(principal, action == User::\"y\", resource);", 1, 29, "User is not the type of an action"},
		{"permit(principal, action in [Action::\"a\", Foo::\"y\"], resource);", 1, 43, "Foo is not the type of an action"},
		{"permit(principal, action in Foo // c\n :: Bar::\"y\", resource);", 1, 29, "Foo::Bar is not the type of an action"},
		{"permit(principal in [User::\"a\"], action, resource);", 1, 21, "only action can be in a list"},
		{"permit(principal.admin, action, resource);", 1, 17, "other tests belong into when"},
		{"permit(principal, resource);", 1, 19, "expected `action`, found `resource`"},
		{"permit(principal, action is X, resource);", 1, 26, "expected ==, in or the end of the action's scope"},
		{head + "; " + head + ";", 1, 38, "a second one starts here"},
		{head + "\x00;", 1, 36, "NUL"},
		{head + "\n \xff;", 2, 2, "not valid UTF-8"},
	} {
		_, err := ParsePolicy("p.cedar", []byte(test.text))
		if err == nil {
			t.Errorf("%s: accepted", test.text)
			continue
		}
		t.Run(test.text, func(t *testing.T) {
			wantField(t, err, test.line, test.column, test.message)
			if f := invalid(t, err)[0]; f.Path != "p.cedar" {
				t.Errorf("path %q", f.Path)
			}
		})
	}
}

// Cedar's reference refuses what is listed here; cedar-go does not, and so does not speak for us.
func TestStricterThanCedarGo(t *testing.T) {
	for _, text := range []string{
		`permit(principal, action == User::"y", resource);`,
		`permit(principal, action in User::"y", resource);`,
		`permit(principal, action, resource) when { !!!!!true };`,
		`permit(principal, action, resource) when { -----1 == 1 };`,
		`permit(principal, action, resource) when { !-1 == 1 };`,
	} {
		if err := new(cedar.Policy).UnmarshalCedar([]byte(text)); err != nil {
			t.Errorf("cedar-go refuses %s by itself now: %v", text, err)
		}
		if _, err := ParsePolicy("p", []byte(text)); err == nil {
			t.Errorf("accepted: %s", text)
		}
	}
}

// What cedar-go reads in another way than Cedar's reference, or not at all, is read as the reference
// does. The policy that a comment hides from cedar-go alone could be a wrong ALLOW.
func TestReadAsTheReferenceDoes(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"permit(principal, action, resource) // all\r when { false };", "permit (principal, action, resource) when { false };"},
		{"// all\rpermit(principal, action, resource);", "permit (principal, action, resource);"},
		{"permit(principal,\u00a0action,\f\vresource)\u2028;\u3000", "permit (principal, action, resource);"},
		{"permit(principal, action, resource) when { \"a\nb\" like \"a\n*\" && {\"k\n\": 1} has \"k\n\" };", `permit (principal, action, resource) when { "a\nb" like "a\n*" && {"k\n":1} has "k\n" };`},
		{"@a(\"\n\") permit(principal == A::\"\n\", action, resource);", `@a("\n") permit (principal == A::"\n", action, resource);`},
		{"permit(principal, action, resource); // tail\r\n// \r // tail\r", "permit (principal, action, resource);"},
		{"permit(principal, action, resource)\r\n// \"\n// ?principal\rwhen { context.\"; };", ""},
	} {
		p, err := ParsePolicy("p", []byte(test.text))
		if test.want == "" {
			if err == nil {
				t.Errorf("%q: accepted", test.text)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", test.text, err)
			continue
		}
		got := strings.Join(strings.Fields(string(asCedarGo(p).MarshalCedar())), " ")
		if got = strings.NewReplacer("( ", "(", " )", ")").Replace(got); got != test.want {
			t.Errorf("%q: read as %s", test.text, got)
		}
		if p.Text() != test.text {
			t.Errorf("%q: kept as %q", test.text, p.Text())
		}
	}
	s := mustSchema(t, "entity U {\f// a\r b: Long,\u00a0\"c\nd\": Long };")
	if got := string(s.JSON()); !strings.Contains(got, `"b":`) || !strings.Contains(got, `"c\nd":`) {
		t.Error(got)
	}
}

func TestEveryFaultOfADocumentIsReported(t *testing.T) {
	_, err := ParsePolicies("dir/all.cedar", []byte(`permit(principal, action, resource) when { 1 = 1 };
permit(principal, action, resource);
forbid(principal, action, resource) when { ; };
forbid(principal, action == Foo::"x", resource);
`))
	var got []string
	for _, f := range invalid(t, err) {
		got = append(got, fmt.Sprintf("%s:%d:%d", f.Path, f.Line, f.Column))
	}
	if diff := cmp.Diff([]string{"dir/all.cedar:1:46", "dir/all.cedar:3:44", "dir/all.cedar:4:29"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestTextIsPreserved(t *testing.T) {
	const first = "// why this exists\n@id(\"one\")\npermit(principal, action, resource) // not all\nwhen { true }; // end of one"
	const second = "// two\nforbid(principal in Group::\"g\", action in [Action::\"a\", Action::\"b\"], resource is Doc in Folder::\"f\");\n// tail"
	policies, err := ParsePolicies("doc", []byte(first+"\n\n"+second+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{first, second}, []string{policies[0].Text(), policies[1].Text()}); diff != "" {
		t.Error(diff)
	}
	for _, p := range policies {
		again, err := ParsePolicy("again", []byte(p.Text()))
		if err != nil || again.Text() != p.Text() {
			t.Errorf("%v: %q", err, again.Text())
		}
	}
	if id, ok := policies[0].Annotation("id"); !ok || id != "one" || policies[0].Forbids() {
		t.Errorf("annotation %q %v, forbids %v", id, ok, policies[0].Forbids())
	}
	if _, ok := policies[1].Annotation("id"); ok || !policies[1].Forbids() {
		t.Error("the second policy has no annotation and forbids")
	}
	want := Scope{Principal: uid("Group", "g"), Resource: uid("Folder", "f")}
	want.Actions = append(want.Actions, uid("Action", "a"), uid("Action", "b"))
	if diff := cmp.Diff(want, policies[1].Scope()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Scope{}, policies[0].Scope()); diff != "" {
		t.Error(diff)
	}
}

func TestPolicySizes(t *testing.T) {
	const head = "permit(principal, action, resource);"
	pad := func(n int) []byte { return []byte(head + "//" + strings.Repeat("x", n-len(head)-2)) }
	if _, err := ParsePolicy("p", pad(copse.MaxPolicyBytes)); err != nil {
		t.Error(err)
	}
	_, err := ParsePolicy("p", pad(copse.MaxPolicyBytes+1))
	if copse.KindOf(err) != copse.QuotaExceeded || !strings.Contains(err.Error(), "10001") {
		t.Errorf("got %v", err)
	}
	_, err = ParsePolicies("p", append([]byte(head+"\n"), pad(copse.MaxPolicyBytes+1)...))
	if e, ok := errors.AsType[*copse.Error](err); !ok || e.Kind != copse.QuotaExceeded || e.Fields[0].Line != 2 {
		t.Errorf("got %v", err)
	}
}

func TestLargeDocuments(t *testing.T) {
	const one = "permit(principal, action, resource) when { context.x };\n"
	inTime(t, "many policies", func() {
		policies, err := ParsePolicies("p", []byte(strings.Repeat("\n"+one, copse.MaxContentsWrites)))
		if err != nil {
			t.Fatal(err)
		}
		if last := policies[len(policies)-1]; last.at != (position{2 * copse.MaxContentsWrites, 1}) {
			t.Errorf("the last policy is at %v", last.at)
		}
	})
	inTime(t, "too many policies", func() {
		_, err := ParsePolicies("p", []byte(strings.Repeat(one, copse.MaxContentsWrites+1)))
		wantField(t, err, copse.MaxContentsWrites+1, 1, "at most 10000 policies, this one has 10001")
	})
	inTime(t, "megabytes of policies", func() {
		_, err := ParsePolicies("p", []byte(strings.Repeat("permit(principal,action,resource);", 450_000)))
		wantField(t, err, 1, 340_001, "at most 10000 policies")
	})
	_, err := ParsePolicies("p", make([]byte, copse.MaxContentsBytes+1))
	if copse.KindOf(err) != copse.QuotaExceeded {
		t.Errorf("got %v", err)
	}
}

// prompt is what dealing with anything may take, on a machine that is busy with other things. What the
// tests guard against takes minutes, hours or all memory.
const prompt = 15 * time.Second

// inTime fails when something hostile is not dealt with promptly.
func inTime(t *testing.T, what string, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if took := time.Since(start); took > prompt {
		t.Errorf("%s took %v", what, took)
	}
}

func TestHostilePolicies(t *testing.T) {
	const n = 100_000
	when := func(expression string) string {
		return "permit(principal, action, resource) when { " + expression + " };"
	}
	nestedHas := "context"
	for range 40 {
		nestedHas = "(" + nestedHas + " has a.b.c)"
	}
	for what, text := range map[string]string{
		"parentheses":      when(strings.Repeat("(", n) + "1" + strings.Repeat(")", n)),
		"open parentheses": when(strings.Repeat("(", n)),
		"sets":             when(strings.Repeat("[", n) + strings.Repeat("]", n)),
		"records":          when(strings.Repeat("{a:", n) + "1" + strings.Repeat("}", n)),
		"ifs":              when(strings.Repeat("if ", n)),
		"calls":            when(strings.Repeat("ip(", n)),
		"not":              when(strings.Repeat("!", n) + "true"),
		"minus":            when(strings.Repeat("-", n) + "1 == 1"),
		"has":              when("context has a" + strings.Repeat(".a", n)),
		"attributes":       when("context" + strings.Repeat(".a", n)),
		"indexes":          when("context" + strings.Repeat(`["a"]`, n)),
		"nested has":       when(nestedHas),
		"quotes":           strings.Repeat(`"`, n),
		"escapes":          `"` + strings.Repeat(`\`, n),
		"comments":         strings.Repeat("/*", n),
		"semicolons":       strings.Repeat(";", n),
		"annotations":      strings.Repeat("@a ", n),
		"braces":           strings.Repeat("}", n),
	} {
		inTime(t, what, func() {
			// As a document, so that the size of one policy is not what stops it.
			_, err := ParsePolicies("p", []byte(text))
			if len(text) < copse.MaxPolicyBytes {
				_, err = ParsePolicy("p", []byte(text))
			}
			if fields := invalid(t, err); fields[0].Line == 0 {
				t.Errorf("%s: no position: %+v", what, fields[0])
			}
		})
	}
}

// What is within the limits must also be cheap: 10,000 bytes of the worst that parses.
func TestLargestPoliciesParseInTime(t *testing.T) {
	fill := func(prefix, unit, suffix string) string {
		head := "permit(principal, action, resource) when { " + prefix
		n := (copse.MaxPolicyBytes - len(head) - len(suffix) - 5) / len(unit)
		return head + strings.Repeat(unit, n) + suffix + " };"
	}
	accepted := 0
	for what, text := range map[string]string{
		"and":       fill("", "true&&", "true"),
		"or":        fill("", "1==1||", "true"),
		"add":       fill("1==", "1+", "1"),
		"has chain": fill("", "context has "+strings.Repeat("a.", 31)+"a||", "true"),
		"like":      fill(`"`, "a", `" like "*b"`),
		"strings":   fill(`"`, `\u{1F332}`, `" == ""`),
		"set":       fill("[", "[1,2],", "[]].isEmpty()"),
		"chain":     fill("", "context"+strings.Repeat(".a", 31)+"&&", "true"),
		"scope":     "permit(principal, action in [" + strings.Repeat(`Action::"a",`, 800) + "], resource);",
	} {
		inTime(t, what, func() {
			p, err := ParsePolicy("p", []byte(text))
			if err != nil {
				t.Logf("%s: %v", what, err)
				return
			}
			accepted++
			total := uint64(0)
			for _, condition := range p.tree.Conditions {
				total += nodes(condition.Body)
			}
			if total > 100*maxPolicyNodes {
				t.Errorf("%s: %d nodes", what, total)
			}
		})
	}
	if accepted < 7 {
		t.Errorf("only %d were accepted", accepted)
	}
}
