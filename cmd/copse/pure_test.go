package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/api"
)

func TestFindingRendersTheLineWithACaret(t *testing.T) {
	text := []byte("permit (\n\tprincipal,\r\n  ä x\n\x1b[31mred\n" + strings.Repeat("a", 300) + "!" + strings.Repeat("b", 300))
	for _, tc := range []struct {
		name         string
		line, column int
		want         string
	}{
		{"start of a line", 1, 1, "f:1:1: m\n    1 | permit (\n      | ^\n"},
		{"behind a tab, at any tab width", 2, 2, "f:2:2: m\n    2 | \tprincipal,\n      | \t^\n"},
		{"columns are bytes, the caret is under the character", 3, 6, "f:3:6: m\n    3 |   ä x\n      |     ^\n"},
		{"past the end", 1, 99, "f:1:99: m\n    1 | permit (\n      |         ^\n"},
		{"control characters don't reach the terminal", 4, 2, "f:4:2: m\n    4 | \uFFFD[31mred\n      |  ^\n"},
		{"no such line", 9, 1, "f:9:1: m\n"},
		{"a line only", 1, 0, "f:1: m\n    1 | permit (\n"},
		{"no place", 0, 0, "f: m\n"},
		{"inside of a long line", 5, 301,
			"f:5:301: m\n    5 | ..." + strings.Repeat("a", 60) + "!" + strings.Repeat("b", 59) + "...\n      |    " + strings.Repeat(" ", 60) + "^\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got bytes.Buffer
			newFinding("f", text, tc.line, tc.column, "m").render(&got)
			if diff := cmp.Diff(tc.want, got.String()); diff != "" {
				t.Errorf("rendered (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReportIsOneLineAndFindings(t *testing.T) {
	var got bytes.Buffer
	report(&got, &failure{code: exitError, message: "bad\nthings\x07", findings: []finding{{File: "f", Message: "m"}}})
	if diff := cmp.Diff("copse: bad things\uFFFD\nf: m\n", got.String()); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	got.Reset()
	report(&got, &apiError{status: 400, info: api.ErrorInfo{Message: "no", Fields: []api.ErrorField{{Path: "tenant", Message: "too long"}}}})
	if diff := cmp.Diff("copse: no\ntenant: too long\n", got.String()); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}

func TestParseUID(t *testing.T) {
	for _, tc := range []struct{ in, wantType, wantID string }{
		{`User::"alice"`, "User", "alice"},
		{`A::B::User::""`, "A::B::User", ""},
		{`User::"a::\"b\""`, "User", `a::"b"`},
		{`User::"\\\n\t\r\0\'\x41\u{1F600}"`, "User", "\\\n\t\r\x00'A\U0001F600"},
	} {
		gotType, gotID, err := parseUID("resource", tc.in)
		if err != nil || gotType != tc.wantType || gotID != tc.wantID {
			t.Errorf("parseUID(%s) = %q, %q, %v", tc.in, gotType, gotID, err)
		}
	}
	for _, in := range []string{``, `User`, `User::alice`, `::"x"`, `User::"x`, `User::"`, `User::"a"b"`, `User::"\"`, `User::"\q"`, `User::"\x"`, `User::"\xff"`, `User::"\u{}"`, `User::"\u{110000}"`, `User::"\u{D800}"`, "User::\"\xff\""} {
		if _, _, err := parseUID("resource", in); exitCode(err) != exitUsage {
			t.Errorf("parseUID(%s): %v, want a usage error", in, err)
		}
	}
	if typ, id, err := parseAction("view"); typ != "Action" || id != "view" || err != nil {
		t.Errorf("parseAction(view) = %q, %q, %v", typ, id, err)
	}
	if typ, id, err := parseAction(`Bank::Action::"pay"`); typ != "Bank::Action" || id != "pay" || err != nil {
		t.Errorf("parseAction = %q, %q, %v", typ, id, err)
	}
}

func writeFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestReadPoliciesNamesAndPlacesThem(t *testing.T) {
	dir := writeFiles(t, map[string]string{
		"one.cedar": "// About one.\npermit (principal, action, resource);\n",
		"sub/many.cedar": "// The file.\n\n@id(\"a\")\npermit (principal, action, resource) when { \"; // no end\" == \"\\\";\" }; // of a\n" +
			"// About b;\n@id(\"team/b\") forbid (principal, action, resource); @id(\"c\")\npermit (principal, action, resource);\n// The end.\n\n",
		"..data/one.cedar": "permit (principal, action, resource);",
		".hidden.cedar":    "not cedar",
		"notes.txt":        "not cedar",
		"comment.cedar":    "// nothing yet\n",
	})
	got, err := readPolicies([]string{dir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		Name, Text, Start string
		Line, Column      int
	}
	var rows []row
	for _, p := range got {
		start := p.start("").place()
		rows = append(rows, row{p.name, p.text, strings.TrimPrefix(start, dir), p.line, p.column})
	}
	want := []row{
		{"one", "// About one.\npermit (principal, action, resource);", "/one.cedar:2:1", 1, 1},
		{"a", "// The file.\n\n@id(\"a\")\npermit (principal, action, resource) when { \"; // no end\" == \"\\\";\" }; // of a", "/sub/many.cedar:3:1", 1, 1},
		{"team/b", "// About b;\n@id(\"team/b\") forbid (principal, action, resource);", "/sub/many.cedar:6:1", 5, 1},
		{"c", "@id(\"c\")\npermit (principal, action, resource);\n// The end.", "/sub/many.cedar:6:53", 6, 53},
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("policies (-want +got):\n%s", diff)
	}
}

func TestReadPoliciesTellsEverythingAtOnce(t *testing.T) {
	dir := writeFiles(t, map[string]string{
		"a.cedar":        "permit (principal, action, resource);",
		"b.cedar":        "@id(\"a\")\nforbid (principal, action, resource);",
		"broken.cedar":   "permit (principal, action, resource)\nwhen { principal. };",
		"nameless.cedar": "permit (principal, action, resource);\n@id(\"x\") permit (principal, action, resource);",
		"bad name.cedar": "permit (principal, action, resource);",
		"long.cedar":     "permit (principal, action, resource) when { \"" + strings.Repeat("x", copse.MaxPolicyBytes) + "\" == \"\" };",
	})
	_, err := readPolicies([]string{dir}, nil)
	f, ok := errors.AsType[*failure](err)
	if !ok {
		t.Fatalf("error %v, want a failure", err)
	}
	var places []string
	for _, finding := range f.findings {
		places = append(places, strings.TrimPrefix(finding.place(), dir+"/"))
	}
	want := []string{"bad name.cedar:1:1", "broken.cedar:2:19", "long.cedar:1:1", "nameless.cedar:1:1", "b.cedar:1:1"}
	if diff := cmp.Diff(want, places); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}

func TestReadPoliciesRefusesNothing(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"empty directory":   {},
		"no cedar file":     {"a.txt": ""},
		"nothing but notes": {"a.cedar": "// later\n"},
	} {
		if _, err := readPolicies([]string{writeFiles(t, files)}, nil); exitCode(err) != exitError {
			t.Errorf("%s: %v, want an error", name, err)
		}
	}
	_, err := readPolicies([]string{"-"}, strings.NewReader("permit (principal, action, resource);"))
	if f := asFailure(err); len(f.findings) != 1 || f.findings[0].place() != "<stdin>:1:1" {
		t.Errorf("nameless policy from standard input: %v %v", err, f.findings)
	}
}

func TestMergeKeepsWhatIsNotGiven(t *testing.T) {
	local := &localContents{policies: []localPolicy{
		{name: "new", text: "N"}, {name: "old", text: "O2"},
	}}
	got := local.merge([]api.Policy{
		{Name: "old", Statement: "O1", Description: "kept"}, {Name: "", Statement: "nameless"}, {Name: "other", Statement: "X"},
	})
	want := []api.PolicyText{{Name: "old", Statement: "O2", Description: "kept"}, {Name: "other", Statement: "X"}, {Name: "new", Statement: "N"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("merged (-want +got):\n%s", diff)
	}
}

func TestServerFindingsAreShownInLocalFiles(t *testing.T) {
	source := []byte("// one\n@id(\"a\") permit (x); @id(\"b\")\n  forbid (y);\n")
	local := &localContents{
		schema: &localSchema{file: "s.cedarschema", text: []byte("entity User;\nentity X in Y;\n")},
		policies: []localPolicy{
			{name: "b", text: "@id(\"b\")\n  forbid (y);", file: "f.cedar", line: 2, column: 22, source: source},
		},
	}
	local.merge([]api.Policy{{Name: "stored", Statement: "permit (z);"}})
	err := local.explain(&apiError{status: 400, info: api.ErrorInfo{Message: "not valid", Fields: []api.ErrorField{
		{Path: "policies[1].statement", Message: "first line", Line: 1, Column: 2},
		{Path: "policies[1].statement", Message: "second line", Line: 2, Column: 11},
		{Path: "policies[1].name", Message: "name"},
		{Path: "policies[0].statement", Message: "stored", Line: 1, Column: 9},
		{Path: "schema.cedar", Message: "no Y", Line: 2, Column: 13},
		{Path: "policies[9].statement", Message: "beyond"},
	}}})
	var got bytes.Buffer
	report(&got, err)
	want := `copse: not valid
f.cedar:2:22: name
    2 | @id("a") permit (x); @id("b")
      |                      ^
f.cedar:2:23: first line
    2 | @id("a") permit (x); @id("b")
      |                       ^
f.cedar:3:11: second line
    3 |   forbid (y);
      |           ^
policies[9].statement: beyond
policy "stored" of the policy store:1:9: stored
    1 | permit (z);
      |         ^
s.cedarschema:2:13: no Y
    2 | entity X in Y;
      |             ^
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}

func TestIssuerUpdateChangesWhatFlagsSay(t *testing.T) {
	current := api.Issuer{ID: "i", URL: "https://i", AllTenants: true, TokenType: "id", Audiences: []string{"a"}, TenantClaim: "t", PrincipalType: "User", Revision: 7}
	for _, tc := range []struct {
		args []string
		want func(*api.Issuer)
	}{
		{nil, func(*api.Issuer) {}},
		{[]string{"--tenant", "x", "--tenant", "y"}, func(i *api.Issuer) { i.Tenants, i.AllTenants = []string{"x", "y"}, false }},
		{[]string{"--fixed-tenant", "x"}, func(i *api.Issuer) { i.FixedTenant, i.TenantClaim = "x", "" }},
		{[]string{"--audience", "b,c"}, func(i *api.Issuer) { i.Audiences = []string{"b,c"} }},
		{[]string{"--token-type", "access", "--same-subjects"}, func(i *api.Issuer) { i.TokenType, i.SameSubjects = "access", true }},
	} {
		var change api.Issuer
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		issuerFlags(flags, &change)
		if err := flags.Parse(tc.args); err != nil {
			t.Fatal(err)
		}
		want := current
		tc.want(&want)
		if diff := cmp.Diff(want, applyIssuerFlags(flags, current, change)); diff != "" {
			t.Errorf("%v (-want +got):\n%s", tc.args, diff)
		}
	}
}

// Every flag of `issuer update` must be wired; one that is not would be accepted and do nothing.
func TestIssuerUpdateKnowsEveryFlag(t *testing.T) {
	values := map[string]string{"bool": "true", "string": "changed", "stringArray": "changed"}
	flags := 0
	var names pflag.FlagSet
	issuerFlags(&names, &api.Issuer{})
	names.VisitAll(func(f *pflag.Flag) {
		flags++
		var change api.Issuer
		set := pflag.NewFlagSet("", pflag.ContinueOnError)
		issuerFlags(set, &change)
		if err := set.Set(f.Name, values[f.Value.Type()]); err != nil {
			t.Fatal(err)
		}
		if cmp.Equal(api.Issuer{}, applyIssuerFlags(set, api.Issuer{}, change)) {
			t.Errorf("--%s changes nothing", f.Name)
		}
	})
	if flags < 15 {
		t.Errorf("%d flags, want at least 15", flags)
	}
}

func TestScopeAndVerbs(t *testing.T) {
	for in, want := range map[string]api.KeyScope{
		"all":             {All: true},
		"tenant:a:b":      {Tenant: "a:b"},
		"policy-store:C7": {PolicyStoreID: "C7"},
	} {
		got, err := parseScope(in)
		if err != nil || got != want {
			t.Errorf("parseScope(%s) = %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "al", "all:x", "tenant:", "tenant", "policy-store:", "policy-store:a b", "x:y"} {
		if _, err := parseScope(in); exitCode(err) != exitUsage {
			t.Errorf("parseScope(%q): %v, want a usage error", in, err)
		}
	}
	if got, err := parseVerbs([]string{"read", "write", "read"}); err != nil || !cmp.Equal(got, []string{"read", "write"}) {
		t.Errorf("parseVerbs = %v, %v", got, err)
	}
	for _, in := range [][]string{nil, {"READ"}, {"read", ""}} {
		if _, err := parseVerbs(in); exitCode(err) != exitUsage {
			t.Errorf("parseVerbs(%q): %v, want a usage error", in, err)
		}
	}
}

func TestParseClaims(t *testing.T) {
	got, err := parseClaims([]string{"region=eu", "level=3", `roles=["a","b"]`, "mfa=true", `zip="01234"`, "note=a=b", "empty=", "big=9007199254740993"})
	want := map[string]any{"region": "eu", "level": jsontext.Value("3"), "roles": jsontext.Value(`["a","b"]`), "mfa": jsontext.Value("true"),
		"zip": jsontext.Value(`"01234"`), "note": "a=b", "empty": "", "big": jsontext.Value("9007199254740993")}
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
	for _, in := range []string{"x", "=x"} {
		if _, err := parseClaims([]string{in}); exitCode(err) != exitUsage {
			t.Errorf("parseClaims(%q): %v, want a usage error", in, err)
		}
	}
}

func TestReadData(t *testing.T) {
	file := filepath.Join(writeFiles(t, map[string]string{"context.json": "{\"n\": 9007199254740993}"}), "context.json")
	a := &app{stdin: strings.NewReader(`[]`)}
	for _, tc := range []struct{ flag, avp, in, wantMember, want string }{
		{"context", "contextMap", `{"a": 1}`, "cedarJson", `"{\"a\": 1}"`},
		{"context", "contextMap", ` {"contextMap": {"a": {"long": 1}}}`, "contextMap", `{"a": {"long": 1}}`},
		{"context", "contextMap", `{"contextMap": {}, "b": 1}`, "cedarJson", `"{\"contextMap\": {}, \"b\": 1}"`},
		{"entities", "entityList", `[]`, "cedarJson", `"[]"`},
		{"entities", "entityList", `{"entityList": []}`, "entityList", `[]`},
		{"entities", "entityList", `-`, "cedarJson", `"[]"`},
		{"context", "contextMap", file, "cedarJson", `"{\"n\": 9007199254740993}"`},
	} {
		got, err := a.readData(tc.flag, tc.in, tc.avp)
		if err != nil || len(got.members) != 1 || string(got.members[tc.wantMember]) != tc.want {
			t.Errorf("readData(%s) = %v, %v, want %s: %s", tc.in, got, err, tc.wantMember, tc.want)
		}
	}
	_, err := a.readData("context", "{\"a\":\n  1,}", "contextMap")
	if f := asFailure(err); len(f.findings) != 1 || f.findings[0].place() != "--context:2:5" {
		t.Errorf("broken JSON: %v %v", err, f.findings)
	}
	if _, err := a.readData("context", "no-such-file", "contextMap"); exitCode(err) != exitError {
		t.Errorf("missing file: %v", err)
	}
}

// Help that teaches: no command is without an explanation and an example that names it.
func TestEveryCommandTeaches(t *testing.T) {
	commands := 0
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		commands++
		if c.Short == "" || len(c.Long) <= len(c.Short)/2 {
			t.Errorf("%s: no explanation", c.CommandPath())
		}
		if name := strings.TrimPrefix(c.CommandPath(), "copse exit-codes"); name != "" && !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s: no example of it", c.CommandPath())
		}
		for _, child := range c.Commands() {
			walk(child)
		}
	}
	walk((&app{}).rootCommand())
	if commands < 30 {
		t.Errorf("%d commands, want at least 30", commands)
	}
}

func TestNullDeviceIsNoTerminal(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if isTerminal(null) || isTerminal(&bytes.Buffer{}) {
		t.Error("taken for a terminal")
	}
	a := &app{stdin: null, stderr: null}
	if err := a.confirm(false, "Sure?"); exitCode(err) != exitUsage {
		t.Errorf("confirm without a terminal: %v, want a usage error", err)
	}
	if err := a.confirm(true, "Sure?"); err != nil {
		t.Errorf("confirm with --yes: %v", err)
	}
}
