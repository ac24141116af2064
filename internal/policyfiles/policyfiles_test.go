package policyfiles

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/policystore"
)

// What is wrong with files is tested where they are used, in package embedded.

func TestRead(t *testing.T) {
	const schema = "entity User;\nentity Doc;\naction view appliesTo { principal: User, resource: Doc };\n"
	for _, dir := range []string{".", "acme"} {
		at := func(name string) string { return strings.TrimPrefix(dir+"/"+name, "./") }
		got, err := Read(fstest.MapFS{
			at("schema.cedarschema"): {Data: []byte(schema)},
			at("b.cedar"):            {Data: []byte("permit (principal, action, resource); // the file's name\n")},
			at("a/two.cedar"): {Data: []byte("@id(\"first\")\npermit (principal, action, resource)\nwhen { true }; // inside\n\n" +
				"@id(\"second\") forbid (principal, action, resource)\n// a reason\nwhen { false };\n")},
		}, dir)
		if err != nil {
			t.Fatal(err)
		}
		if got.Schema == nil || got.Schema.Cedar != schema || got.Schema.JSON != "" {
			t.Errorf("schema %+v", got.Schema)
		}
		var names []string
		for _, p := range got.Policies {
			names = append(names, p.Name)
			if strings.Count(p.Statement, "principal") != 1 {
				t.Errorf("%s is not one policy: %s", p.Name, p.Statement)
			}
		}
		if diff := cmp.Diff([]string{"first", "second", "b"}, names); diff != "" {
			t.Error(diff)
		}
		if text := got.Policies[1].Statement; !strings.Contains(text, "// a reason\nwhen { false };") {
			t.Errorf("the comment is lost: %s", text)
		}
	}
}

func TestReadWithoutSchema(t *testing.T) {
	got, err := Read(fstest.MapFS{"x/a.cedar": {Data: []byte("permit (principal, action, resource);")}}, "x")
	if err != nil || got.Schema != nil || len(got.Policies) != 1 || got.Policies[0].Name != "a" {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = Read(fstest.MapFS{"x/schema.json": {Data: []byte("{}")}}, "x")
	if diff := cmp.Diff(Contents{Schema: &policystore.SchemaText{JSON: "{}"}}, got); diff != "" || err != nil {
		t.Errorf("%s %v", diff, err)
	}
}

func TestReadNothing(t *testing.T) {
	_, err := Read(fstest.MapFS{}, "absent")
	if copse.KindOf(err) != copse.Invalid || !errors.Is(err, fs.ErrNotExist) || Findings(err) != nil {
		t.Errorf("got %v", err)
	}
}

const (
	shareSchema = "entity User;\nentity Folder;\nentity Doc in Folder;\naction view appliesTo { principal: User, resource: Doc };\n"
	viewers     = `permit (principal == ?principal, action == Action::"view", resource in ?resource);`
)

func TestReadTemplatesAndLinks(t *testing.T) {
	got, err := Read(fstest.MapFS{
		"x/schema.cedarschema": {Data: []byte(shareSchema)},
		"x/a/links.json": {Data: []byte(`[
  {"name": "alice-plans", "template": "viewers", "principal": {"type": "User", "id": "alice"}, "resource": {"type": "Folder", "id": ""}},
  {"name": "no-bob", "template": "never", "principal": {"type": "User", "id": "bob"}}]`)},
		"x/viewers.cedar": {Data: []byte(viewers)},
		// A template and a policy may have one name, as in a policy store.
		"x/both.cedar": {Data: []byte("@id(\"never\") forbid (principal == ?principal, action, resource is Doc);\n@id(\"viewers\") permit (principal, action, resource) when { false };")},
	}, "x")
	if err != nil {
		t.Fatal(err)
	}
	var templates, policies []string
	for _, p := range got.Templates {
		templates = append(templates, p.Name)
	}
	for _, p := range got.Policies {
		policies = append(policies, p.Name)
	}
	if diff := cmp.Diff([]string{"never", "viewers"}, templates); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"viewers", "alice-plans", "no-bob"}, policies); diff != "" {
		t.Error(diff)
	}
	link := got.Policies[1].Link
	if link == nil || link.Template != "name/viewers" || link.Principal.String() != `User::"alice"` || link.Resource.String() != `Folder::""` {
		t.Errorf("got %+v", link)
	}
	if link := got.Policies[2].Link; link == nil || !link.Resource.IsZero() {
		t.Errorf("got %+v", link)
	}
}

// What is wrong with templates and links is told with the place in the file.
func TestReadRefusesTemplatesAndLinks(t *testing.T) {
	const alice = `"principal": {"type": "User", "id": "alice"}`
	for _, c := range []struct {
		name, file, text string
		line, column     int
		want             string
	}{
		{"a template that breaks the schema", "b.cedar", "\n" + `permit (principal == ?principal, action == Action::"veiw", resource in ?resource);`, 2, 1, "veiw"},
		{"a template for everything", "b.cedar", `permit (principal == ?principal, action, resource);`, 1, 1, "resource"},
		{"a slot where none may be", "b.cedar", `permit (principal, action, resource) when { resource == ?resource };`, 1, 57, "slot"},
		{"a template's name twice", "z.cedar", `@id("viewers")` + viewers, 1, 1, `the name "viewers" is taken by a template in x/viewers.cedar`},
		{"no template", "links.json", `[{"name": "a", "template": "editors", ` + alice + `}]`, 1, 2, `there is no policy template "editors"`},
		{"a name twice", "links.json", "[\n  {\"name\": \"fixed\", \"template\": \"viewers\"}]", 2, 3, `the name "fixed" is taken by a policy in x/fixed.cedar`},
		{"a slot left out", "links.json", `[{"name": "a", "template": "viewers", ` + alice + `}]`, 1, 2, "?resource"},
		{"a slot that is none", "links.json", `[{"name": "a", "template": "viewers", ` + alice + `, "action": 1}]`, 1, 85, "action"},
		{"a type the schema has not", "links.json", "[\n{\"name\": \"a\", \"template\": \"viewers\", " + alice + `, "resource": {"type": "File", "id": "1"}}]`, 2, 1, "File"},
		{"no id", "links.json", `[{"name": "a", "template": "viewers", "principal": {"type": "User"}}]`, 1, 2, "type and an id"},
		{"no name", "links.json", `[{"template": "viewers"}]`, 1, 2, "policy name"},
		{"a number", "links.json", `[7]`, 1, 2, ""},
		{"an object", "links.json", `{"name": "a"}`, 1, 1, "expected a list of links"},
		{"nothing", "links.json", ``, 1, 1, "expected a list of links"},
		{"no end", "links.json", "[\n{\"name\": \"a\", ", 2, 0, ""},
		{"more than a list", "links.json", "[]\n[]", 2, 1, "ends before this"},
		{"a member twice", "links.json", `[{"name": "a", "name": "b", "template": "viewers"}]`, 1, 16, "duplicate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Read(fstest.MapFS{
				"x/schema.cedarschema": {Data: []byte(shareSchema)}, "x/viewers.cedar": {Data: []byte(viewers)},
				"x/fixed.cedar": {Data: []byte("permit (principal, action, resource);")}, "x/" + c.file: {Data: []byte(c.text)},
			}, "x")
			found := Findings(err)
			if copse.KindOf(err) != copse.Invalid || len(found) == 0 || !strings.Contains(found[0].Message, c.want) {
				t.Fatalf("got %v %+v", err, found)
			}
			if f := found[0]; f.Path != "x/"+c.file || f.Line != c.line || c.column > 0 && f.Column != c.column {
				t.Errorf("got %+v, want line %d, column %d", f, c.line, c.column)
			}
		})
	}
}
