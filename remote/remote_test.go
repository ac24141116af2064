package remote

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	avp "github.com/aws/aws-sdk-go-v2/service/verifiedpermissions"
	"github.com/aws/aws-sdk-go-v2/service/verifiedpermissions/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/copsetest"
)

func newClient(t *testing.T, s *copsetest.Server) *Client {
	t.Helper()
	c, err := New(Options{Endpoint: s.URL, AccessKeyID: s.AccessKeyID, SecretAccessKey: s.SecretAccessKey})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const schema = `{"Shop":{"entityTypes":{"User":{"shape":{"type":"Record","attributes":{"level":{"type":"Long"}}}},"Role":{},"Invoice":{}},"actions":{"view":{"appliesTo":{"principalTypes":["User"],"resourceTypes":["Invoice"]}}}}}`

// sample has one of everything that the API can carry.
func sample() *Contents {
	return &Contents{
		PolicyStoreID: "source", Description: "to be moved", Validation: "STRICT", DeletionProtection: true,
		Tags: map[string]string{"team": "a", "empty": ""}, Aliases: []string{"policy-store-alias/shop"},
		Schema: schema,
		Templates: []Template{
			{ID: "t1", Name: "name/viewer", Description: "may look", Statement: "// who may look\npermit (principal == ?principal, action == Shop::Action::\"view\", resource == ?resource);"},
			{ID: "t2", Statement: `forbid (principal == ?principal, action, resource is Shop::Invoice);`},
		},
		Policies: []Policy{
			{ID: "p1", Name: "name/all", Description: "of all", Statement: "permit (principal, action == Shop::Action::\"view\", resource)\nwhen { principal.level > 3 };"},
			{ID: "p2", Statement: `forbid (principal == Shop::User::"eve", action, resource);`},
			{ID: "p3", TemplateID: "t1", Principal: &Entity{"Shop::User", "alice"}, Resource: &Entity{"Shop::Invoice", "1"}},
			{ID: "p4", Name: "name/link", TemplateID: "t2", Principal: &Entity{"Shop::User", "mallory"}},
		},
		IdentitySources: []IdentitySource{{ID: "s1", PrincipalType: "Shop::User", OpenID: &OpenIDRef{
			Issuer: "https://idp.example.com", AccessTokens: true, Audiences: []string{"shop"}, PrincipalClaim: "email", EntityIDPrefix: "idp", GroupClaim: "roles", GroupType: "Shop::Role",
		}}},
	}
}

// sameParts compares contents by what they say: ids differ, and with them the order.
func sameParts(t *testing.T, got, want *Contents) {
	t.Helper()
	names := map[string]string{}
	plain := func(c *Contents) *Contents {
		out := *c
		out.PolicyStoreID, out.Templates, out.Policies, out.IdentitySources = "", nil, nil, nil
		for _, x := range c.Templates {
			names[x.ID], x.ID = x.Statement, ""
			out.Templates = append(out.Templates, x)
		}
		for _, x := range c.Policies {
			x.ID = ""
			if x.TemplateID != "" {
				x.TemplateID = names[x.TemplateID]
			}
			out.Policies = append(out.Policies, x)
		}
		for _, x := range c.IdentitySources {
			x.ID = ""
			out.IdentitySources = append(out.IdentitySources, x)
		}
		return &out
	}
	bySaying := []cmp.Option{
		cmpopts.SortSlices(func(a, b Template) bool { return a.Statement < b.Statement }),
		cmpopts.SortSlices(func(a, b Policy) bool { return a.Statement+a.TemplateID < b.Statement+b.TemplateID }),
	}
	if diff := cmp.Diff(plain(want), plain(got), bySaying...); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A policy store goes from one server to another, by way of a directory and directly, and decides there
// as it did.
func TestMoveFromServerToServer(t *testing.T) {
	ctx := t.Context()
	from, to := copsetest.Start(t), copsetest.Start(t)
	source, target := newClient(t, from), newClient(t, to)
	id, report, err := source.Import(ctx, sample(), ImportOptions{Aliases: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Notes) != 1 || len(report.NewIDs) != 7 {
		t.Errorf("report %+v", report)
	}
	exported, report, err := source.Export(ctx, "policy-store-alias/shop")
	if err != nil {
		t.Fatal(err)
	}
	if exported.PolicyStoreID != id || len(report.Notes) != 0 {
		t.Errorf("exported %s, want %s; %+v", exported.PolicyStoreID, id, report)
	}
	sameParts(t, exported, sample())

	dir := filepath.Join(t.TempDir(), "shop")
	if err := WriteDir(dir, exported); err != nil {
		t.Fatal(err)
	}
	read, err := ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(exported, read); diff != "" {
		t.Errorf("through a directory: -wrote +read:\n%s", diff)
	}
	moved, report, err := target.Import(ctx, read, ImportOptions{Aliases: true})
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := target.Export(ctx, moved)
	if err != nil {
		t.Fatal(err)
	}
	sameParts(t, again, exported)
	for user, want := range map[string]types.Decision{"alice": types.DecisionAllow, "eve": types.DecisionDeny, "mallory": types.DecisionDeny, "bob": types.DecisionDeny} {
		a, b := decide(t, source, id, user), decide(t, target, "policy-store-alias/shop", user)
		if a.Decision != want || b.Decision != want || len(a.DeterminingPolicies) != len(b.DeterminingPolicies) {
			t.Errorf("%s: %s here, %s there, want %s", user, a.Decision, b.Decision, want)
		}
		for i, p := range a.DeterminingPolicies {
			if report.NewIDs[*p.PolicyId] != *b.DeterminingPolicies[i].PolicyId {
				t.Errorf("%s: by %s here and %s there", user, *p.PolicyId, *b.DeterminingPolicies[i].PolicyId)
			}
		}
	}
}

func decide(t *testing.T, c *Client, policyStore, user string) *avp.IsAuthorizedOutput {
	t.Helper()
	entity := func(typ, id string) *types.EntityIdentifier {
		return &types.EntityIdentifier{EntityType: &typ, EntityId: &id}
	}
	actionType, view := "Shop::Action", "view"
	out, err := c.avp.IsAuthorized(t.Context(), &avp.IsAuthorizedInput{PolicyStoreId: &policyStore,
		Principal: entity("Shop::User", user), Action: &types.ActionIdentifier{ActionType: &actionType, ActionId: &view}, Resource: entity("Shop::Invoice", "1")})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// What is stored is carried also where the schema would refuse it by now.
func TestPoliciesOlderThanTheirSchemaAreCarried(t *testing.T) {
	c := newClient(t, copsetest.Start(t))
	contents := &Contents{Validation: "STRICT", Schema: schema, Policies: []Policy{{ID: "old", Statement: `permit (principal is Gone, action, resource);`}}}
	id, _, err := c.Import(t.Context(), contents, ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := c.Export(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	sameParts(t, got, contents)
}

// An import that fails leaves nothing behind.
func TestFailedImportIsUndone(t *testing.T) {
	c := newClient(t, copsetest.Start(t))
	count := func() int {
		out, err := c.avp.ListPolicyStores(t.Context(), &avp.ListPolicyStoresInput{})
		if err != nil {
			t.Fatal(err)
		}
		return len(out.PolicyStores)
	}
	for name, change := range map[string]func(*Contents){
		"schema":   func(c *Contents) { c.Schema = "{" },
		"template": func(c *Contents) { c.Templates[1].Statement = "permit" },
		"policy":   func(c *Contents) { c.Policies[1].Statement = "permit (principal, action, resource) when { 1 + };" },
		"two identity sources": func(c *Contents) {
			other := c.IdentitySources[0]
			other.ID = "s2"
			c.IdentitySources = append(c.IdentitySources, other)
		},
	} {
		contents := sample()
		change(contents)
		_, _, err := c.Import(t.Context(), contents, ImportOptions{Aliases: true})
		if kind := copse.KindOf(err); kind != copse.Invalid && kind != copse.QuotaExceeded || count() != 0 {
			t.Errorf("%s: %v; %d policy stores are left", name, err, count())
		}
	}
	// Nor does one whose caller has gone.
	ctx, cancel := context.WithCancel(t.Context())
	many := sample()
	cancel()
	if _, _, err := c.Import(ctx, many, ImportOptions{}); err == nil || count() != 0 {
		t.Errorf("after its caller went: %v; %d policy stores", err, count())
	}
}

func TestWhatCannotBeCarriedIsReported(t *testing.T) {
	c := newClient(t, copsetest.Start(t))
	if _, _, err := c.Import(t.Context(), sample(), ImportOptions{Aliases: true}); err != nil {
		t.Fatal(err)
	}
	has := func(r *Report, what, words string) bool {
		for _, n := range r.Notes {
			if n.What == what && strings.Contains(n.Why, words) {
				return true
			}
		}
		return false
	}
	_, report, err := c.Import(t.Context(), sample(), ImportOptions{Aliases: true})
	if err != nil || !has(report, "alias", "taken") {
		t.Errorf("a taken alias: %v %+v", err, report)
	}
	_, report, err = c.Import(t.Context(), sample(), ImportOptions{})
	if err != nil || !has(report, "alias", "not asked for") || !has(report, "policy store", "its id is") {
		t.Errorf("aliases left out: %v %+v", err, report)
	}
	made, err := c.avp.CreatePolicyStore(t.Context(), &avp.CreatePolicyStoreInput{
		ValidationSettings: &types.ValidationSettings{Mode: types.ValidationModeOff},
		EncryptionSettings: &types.EncryptionSettingsMemberKmsEncryptionSettings{Value: types.KmsEncryptionSettings{Key: optional("alias/k")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, report, err = c.Export(t.Context(), *made.PolicyStoreId)
	if err != nil || !has(report, "encryption", "KMS") {
		t.Errorf("a KMS key: %v %+v", err, report)
	}
}

// A directory is somebody's to edit, and a server may be anybody's: neither can name a file outside.
func TestDirectoriesKeepToThemselves(t *testing.T) {
	parent := t.TempDir()
	if err := os.WriteFile(filepath.Join(parent, "secret.cedar"), []byte("permit (principal, action, resource);"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(parent, "d")
	contents := sample()
	contents.Policies[0].Name, contents.Policies[1].Name = "name/../../out", "name/___out"
	contents.Policies[1].ID = "a/b"
	if err := WriteDir(dir, contents); err != nil {
		t.Fatal(err)
	}
	read, err := ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(contents, read); diff != "" {
		t.Errorf("-wrote +read:\n%s", diff)
	}
	if found, _ := filepath.Glob(filepath.Join(parent, "*")); len(found) != 2 {
		t.Errorf("beside the directory: %v", found)
	}
	if err := WriteDir(dir, contents); copse.KindOf(err) != copse.Conflict {
		t.Errorf("over what is there: %v", err)
	}
	settings := filepath.Join(dir, settingsFile)
	text, err := os.ReadFile(settings)
	if err != nil {
		t.Fatal(err)
	}
	for name, edited := range map[string]string{
		"a file outside":     strings.Replace(string(text), `"policies/___out.cedar"`, `"../secret.cedar"`, 1),
		"an absolute path":   strings.Replace(string(text), `"templates/viewer.cedar"`, `"/etc/hostname"`, 1),
		"an unknown member":  strings.Replace(string(text), `"validation"`, `"validations"`, 1),
		"a missing template": strings.Replace(string(text), `"templateId": "t1"`, `"templateId": "t9"`, 1),
		"no JSON":            "{",
	} {
		if edited == string(text) {
			t.Fatalf("%s: nothing was edited in\n%s", name, text)
		}
		if err := os.WriteFile(settings, []byte(edited), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadDir(dir); err == nil {
			t.Errorf("%s: it was read", name)
		}
	}
}

func TestErrorsAreCopse(t *testing.T) {
	s := copsetest.Start(t)
	_, _, err := newClient(t, s).Export(t.Context(), "never-was")
	e, ok := errors.AsType[*copse.Error](err)
	if !ok || e.Kind != copse.NotFound || !strings.Contains(e.Detail, "never-was") {
		t.Errorf("%v", err)
	}
	wrong, err := New(Options{Endpoint: s.URL, AccessKeyID: s.AccessKeyID, SecretAccessKey: strings.Repeat("x", 40)})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := wrong.Export(t.Context(), "x"); copse.KindOf(err) != copse.Unauthenticated {
		t.Errorf("%v", err)
	}
	for _, o := range []Options{{}, {AccessKeyID: "a", SecretAccessKey: "b"}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}
