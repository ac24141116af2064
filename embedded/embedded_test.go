package embedded_test

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/copsetest"
	"github.com/copse-authz/copse/embedded"
	"github.com/copse-authz/copse/examples/payments"
)

var request = copse.Request{
	Principal: types.NewEntityUID("User", "alice"),
	Action:    types.NewEntityUID("Action", "view"),
	Resource:  types.NewEntityUID("Doc", "1"),
}

func TestLoadRefuses(t *testing.T) {
	const good = `permit (principal, action, resource);`
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string // "path:line:column: message" or a part of it
	}{
		{"a policy that does not parse", map[string]string{"acme/a.cedar": "\n\npermit (principal, action, resource) when { 1 + };"}, "acme/a.cedar:3:"},
		{"a policy that breaks the schema", map[string]string{
			"acme/schema.cedarschema": "entity User; entity Doc; action view appliesTo { principal: User, resource: Doc };",
			"acme/deep/a.cedar":       "// why\npermit (principal, action == Action::\"veiw\", resource);"}, "acme/deep/a.cedar:2:1: "},
		{"a schema that does not resolve", map[string]string{"acme/schema.cedarschema": "entity User in [Group];", "acme/a.cedar": good}, "acme/schema.cedarschema:1:"},
		{"a schema in JSON that is none", map[string]string{"acme/schema.json": "{\n\"\": 1}", "acme/a.cedar": good}, "acme/schema.json"},
		{"two schemas", map[string]string{"acme/schema.json": "{}", "acme/schema.cedarschema": "entity User;"}, "acme/schema.json:1:1: there is schema.cedarschema as well"},
		{"several without names", map[string]string{"acme/a.cedar": good + "\n" + good}, `put @id("...")`},
		{"the same name twice", map[string]string{"acme/a.cedar": `@id("x")` + good, "acme/b.cedar": `@id("x")` + good}, `the name "x" is taken by a policy in acme/a.cedar`},
		{"a name that is none", map[string]string{"acme/a b.cedar": good}, "policy name"},
		{"a tenant that is none", map[string]string{"-acme/a.cedar": good}, "tenant id"},
		{"two tenants at once", map[string]string{"acme/a.cedar": "permit", "globex/b.cedar": "forbid"}, "globex/b.cedar:1:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := fstest.MapFS{}
			for name, text := range c.files {
				files[name] = &fstest.MapFile{Data: []byte(text)}
			}
			p, err := embedded.Load(files, embedded.Options{})
			if err == nil {
				_ = p.Close()
			}
			if copse.KindOf(err) != copse.Invalid || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want it to contain %q", err, c.want)
			}
		})
	}
}

func TestLoadLeavesOut(t *testing.T) {
	p, err := embedded.Load(fstest.MapFS{
		"README.md":                   {Data: []byte("not a tenant")},
		".git/config":                 {Data: []byte("not one either")},
		"acme/..2026_01/old.cedar":    {Data: []byte("not a policy")},
		"acme/notes.txt":              {Data: []byte("not a policy")},
		"acme/policies/deep/in.cedar": {Data: []byte(`permit (principal, action, resource);`)},
		"empty/notes.txt":             {Data: []byte("a tenant without policies")},
	}, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if resp, err := p.DecideFor(t.Context(), "acme", request); err != nil || resp.Decision != copse.Allow || resp.Considered != 1 {
		t.Errorf("%+v, %v", resp, err)
	}
	if resp, err := p.DecideFor(t.Context(), "empty", request); err != nil || resp.Decision != copse.Deny || resp.Considered != 0 {
		t.Errorf("%+v, %v", resp, err)
	}
}

// Links in files decide as their template says, for the entities they name and no others.
func TestLoadLinks(t *testing.T) {
	p, err := embedded.Load(fstest.MapFS{
		"acme/viewers.cedar": {Data: []byte(`permit (principal == ?principal, action == Action::"view", resource == ?resource);`)},
		"acme/links.json": {Data: []byte(`[{"name": "alice-1", "template": "viewers",
			"principal": {"type": "User", "id": "alice"}, "resource": {"type": "Doc", "id": "1"}}]`)},
	}, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for id, want := range map[string]copse.Decision{"1": copse.Allow, "2": copse.Deny} {
		of := request
		of.Resource = types.NewEntityUID("Doc", types.String(id))
		resp, err := p.DecideFor(t.Context(), "acme", of)
		if err != nil || resp.Decision != want || want == copse.Allow && resp.Determining[0].Name != "alice-1" {
			t.Errorf("Doc %s: %+v, %v", id, resp, err)
		}
	}
	_, err = embedded.Load(fstest.MapFS{"acme/links.json": {Data: []byte(`[{"name": "a", "template": "viewers"}]`)}}, embedded.Options{})
	if err == nil || !strings.Contains(err.Error(), `acme/links.json:1:2: there is no policy template "viewers"`) {
		t.Errorf("got %v", err)
	}
}

func TestSamplesLoad(t *testing.T) {
	dir, err := payments.Files.ReadDir("tenants")
	if err != nil || len(dir) != 3 {
		t.Fatalf("%v, %v", dir, err)
	}
	tenants, err := fs.Sub(payments.Files, "tenants")
	if err != nil {
		t.Fatal(err)
	}
	p, err := embedded.Load(tenants, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, d := range dir {
		if entry, err := p.Lookup(t.Context(), copse.TenantID(d.Name())); err != nil || entry.State != copse.TenantActive {
			t.Errorf("%s: %+v, %v", d.Name(), entry, err)
		}
	}
	// A schema means that requests are checked against it.
	_, err = p.DecideFor(t.Context(), "acme", request)
	if copse.KindOf(err) != copse.Invalid || err == nil {
		t.Errorf("a request outside the schema: %v", err)
	}
}

func TestDecideForWantsTheTenantOnly(t *testing.T) {
	p, err := embedded.Load(fstest.MapFS{"acme/a.cedar": {Data: []byte(`permit (principal, action, resource);`)}}, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	named := request
	named.PolicyStoreID = "other"
	for _, c := range []struct {
		tenant copse.TenantID
		req    copse.Request
		kind   copse.Kind
	}{{"acme", named, copse.Invalid}, {"globex", request, copse.Denied}, {"ACME", request, copse.Denied}, {"", request, copse.Denied}} {
		resp, err := p.DecideFor(t.Context(), c.tenant, c.req)
		if err == nil || copse.KindOf(err) != c.kind || resp.Decision == copse.Allow {
			t.Errorf("%q: %+v, %v", c.tenant, resp, err)
		}
		why, err := p.ExplainFor(t.Context(), c.tenant, c.req)
		if err == nil || copse.KindOf(err) != c.kind || why.Decision == copse.Allow || why.Policies != nil {
			t.Errorf("%q, explained: %+v, %v", c.tenant, why, err)
		}
	}
	why, err := p.ExplainFor(t.Context(), "acme", request)
	if err != nil || why.Decision != copse.Allow || len(why.Policies) != 1 || why.Policies[0].Policy.Name != "a" || why.Policies[0].Outcome != copse.True {
		t.Errorf("%+v, %v", why, err)
	}
}

func TestDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	copsetest.Start(t, copsetest.DataDir(dir))
	if p, err := embedded.Open(dir, embedded.Options{}); err == nil {
		_ = p.Close()
		t.Error("a directory that a server uses was opened again")
	}
}
