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
