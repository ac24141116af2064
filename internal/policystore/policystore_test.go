package policystore_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
)

func TestCreateGetDelete(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx, s := context.Background(), newService(t, b)
		text := schema(schemaText)
		p := create(t, s, policystore.NewPolicyStore{
			Settings: copse.Settings{Validation: copse.ValidationStrict, CheckRequests: true}, Description: "first",
			Schema: &text, Policies: named("all-view", permitView, "", ownersView),
		})
		got, err := s.Get(ctx, root, p.ID)
		must(t, err)
		if diff := cmp.Diff(p, got); diff != "" {
			t.Fatal(diff)
		}
		if got.Policies != 2 || got.Revision != 1 || got.Incarnation.IsZero() || got.CreatedAt.IsZero() {
			t.Fatalf("%+v", got)
		}
		out := wantDecision(t, s, p.ID, copse.Allow, "all-view")
		if out.Revision != 1 {
			t.Fatalf("revision %d", out.Revision)
		}
		must(t, s.Delete(ctx, root, p.ID))
		must(t, s.Delete(ctx, root, p.ID)) // what is absent is deleted
		_, err = s.Get(ctx, root, p.ID)
		wantKind(t, err, copse.NotFound)
		_, err = s.Decider().Decide(ctx, view(p.ID))
		wantKind(t, err, copse.NotFound)
		_, err = s.CreatePolicy(ctx, root, p.ID, policystore.NewPolicy{Statement: permitAll})
		wantKind(t, err, copse.NotFound)
		if left := traces(t, b, string(p.ID), "all-view", "resource.owner"); len(left) > 0 {
			t.Fatalf("left after deletion: %q", left)
		}
	})
}

func TestCreateRefusesWholeRequest(t *testing.T) {
	ctx, b := context.Background(), memory.New()
	s := newService(t, b)
	strict := copse.Settings{Validation: copse.ValidationStrict}
	good, bad := schema(schemaText), schema(`entity User in Missing;`)
	for name, tt := range map[string]struct {
		in   policystore.NewPolicyStore
		kind copse.Kind
		path string
		line int
	}{
		"mode":            {policystore.NewPolicyStore{}, copse.Invalid, "settings.validation", 0},
		"description":     {policystore.NewPolicyStore{Settings: strict, Description: strings.Repeat("x", 151)}, copse.Invalid, "description", 0},
		"no schema":       {policystore.NewPolicyStore{Settings: strict, Policies: named("a", permitAll)}, copse.Invalid, "policies[0].statement", 0},
		"schema":          {policystore.NewPolicyStore{Settings: strict, Schema: &bad}, copse.Invalid, "schema.cedar", 0},
		"both syntaxes":   {policystore.NewPolicyStore{Settings: strict, Schema: &policystore.SchemaText{JSON: "{}", Cedar: schemaText}}, copse.Invalid, "schema", 0},
		"no syntax":       {policystore.NewPolicyStore{Settings: strict, Schema: &policystore.SchemaText{}}, copse.Invalid, "schema", 0},
		"large schema":    {policystore.NewPolicyStore{Settings: strict, Schema: &policystore.SchemaText{Cedar: schemaText + strings.Repeat(" ", copse.MaxSchemaBytes)}}, copse.QuotaExceeded, "schema.cedar", 0},
		"large policy":    {policystore.NewPolicyStore{Settings: strict, Schema: &good, Policies: named("a", permitAll+strings.Repeat(" ", copse.MaxPolicyBytes))}, copse.QuotaExceeded, "policies[0].statement", 0},
		"parse":           {policystore.NewPolicyStore{Settings: strict, Schema: &good, Policies: named("a", permitAll, "b", "\npermit (principal,, action);")}, copse.Invalid, "policies[1].statement", 2},
		"validation":      {policystore.NewPolicyStore{Settings: strict, Schema: &good, Policies: named("a", permitAll, "b", levelView)}, copse.Invalid, "policies[1].statement", 1},
		"name":            {policystore.NewPolicyStore{Settings: strict, Schema: &good, Policies: named("a b", permitAll)}, copse.Invalid, "policies[0].name", 0},
		"name twice":      {policystore.NewPolicyStore{Settings: strict, Schema: &good, Policies: named("a", permitAll, "a", permitAll)}, copse.Invalid, "policies[1].name", 0},
		"not UTF-8":       {policystore.NewPolicyStore{Settings: strict, Schema: &good, Policies: named("a", permitAll+"// \xff")}, copse.Invalid, "policies[0].statement", 0},
		"schema encoding": {policystore.NewPolicyStore{Settings: strict, Schema: &policystore.SchemaText{Cedar: schemaText + "// \xff"}}, copse.Invalid, "schema.cedar", 0},
		"two at once":     {policystore.NewPolicyStore{Settings: strict, Schema: &good, Policies: named("a", permitAll+forbidAll)}, copse.Invalid, "policies[0].statement", 1},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Create(ctx, root, tt.in)
			wantKind(t, err, tt.kind)
			wantField(t, err, tt.path, tt.line)
		})
	}
	if heads, err := b.Heads(ctx, "", 10); err != nil || len(heads) != 0 {
		t.Fatalf("refused requests left partitions: %v %v", heads, err)
	}
}

func TestFindingsOfAllPoliciesAtOnce(t *testing.T) {
	s := newService(t, memory.New())
	text := schema(schemaText)
	p := create(t, s, policystore.NewPolicyStore{Schema: &text})
	_, err := s.PutContents(context.Background(), root, p.ID, policystore.NewContents{
		Policies: named("a", permitAll, "b", "nonsense", "c", levelView, "bad name", permitAll, "e", levelView),
	})
	wantKind(t, err, copse.Invalid)
	for _, path := range []string{"policies[1].statement", "policies[2].statement", "policies[3].name", "policies[4].statement"} {
		wantField(t, err, path, 0)
	}

	var many []policystore.PolicyText
	for i := range 500 {
		many = append(many, policystore.PolicyText{Name: fmt.Sprint(i), Statement: "nonsense"})
	}
	_, err = s.PutContents(context.Background(), root, p.ID, policystore.NewContents{Policies: many})
	if e := wantKind(t, err, copse.Invalid, "500 findings"); len(e.Fields) != 100 {
		t.Fatalf("%d fields", len(e.Fields))
	}
}

func TestPolicyLifeCycle(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx, s := context.Background(), newService(t, b)
		text := schema(schemaText)
		id := create(t, s, policystore.NewPolicyStore{Schema: &text}).ID

		made, err := s.CreatePolicy(ctx, root, id, policystore.NewPolicy{
			Name: "own/one", Description: "d", Statement: `forbid (principal == User::"a", action in [Action::"view", Action::"edit"], resource == Doc::"1");`,
		})
		must(t, err)
		if made.Principal.String() != `User::"a"` || made.Resource.String() != `Doc::"1"` || len(made.Actions) != 2 || !made.Forbids {
			t.Fatalf("%+v", made)
		}
		for _, key := range []copse.PolicyID{made.ID, "name/own/one"} {
			got, err := s.GetPolicy(ctx, root, id, key)
			must(t, err)
			if diff := cmp.Diff(made, got); diff != "" {
				t.Fatal(diff)
			}
		}
		_, err = s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Name: "own/one", Statement: permitAll})
		wantKind(t, err, copse.Conflict, "own/one")

		// Everything that may change, at once.
		statement, name, description := `forbid (principal == User::"a", action, resource == Doc::"1") when { resource.owner != principal };`, "two", ""
		updated, err := s.UpdatePolicy(ctx, root, id, "name/own/one", policystore.PolicyUpdate{Statement: &statement, Name: &name, Description: &description})
		must(t, err)
		if updated.ID != made.ID || updated.Statement != statement || updated.Name != "two" || updated.Description != "" ||
			!updated.CreatedAt.Equal(made.CreatedAt) || len(updated.Actions) != 0 {
			t.Fatalf("%+v", updated)
		}
		_, err = s.GetPolicy(ctx, root, id, "name/own/one")
		wantKind(t, err, copse.NotFound)
		// The name is free again, and another's is not.
		_, err = s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Name: "own/one", Statement: permitView})
		must(t, err)
		_, err = s.UpdatePolicy(ctx, root, id, "name/two", policystore.PolicyUpdate{Name: &[]string{"own/one"}[0]})
		wantKind(t, err, copse.Conflict)
		none := ""
		updated, err = s.UpdatePolicy(ctx, root, id, made.ID, policystore.PolicyUpdate{Name: &none})
		must(t, err)
		if updated.Name != "" || updated.Statement != statement {
			t.Fatalf("%+v", updated)
		}
		_, err = s.GetPolicy(ctx, root, id, "name/two")
		wantKind(t, err, copse.NotFound)

		must(t, s.DeletePolicy(ctx, root, id, "name/own/one"))
		must(t, s.DeletePolicy(ctx, root, id, "name/own/one"))
		must(t, s.DeletePolicy(ctx, root, id, "absent"))
		_, err = s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Name: "own/one", Statement: permitView})
		must(t, err)
	})
}

func TestUpdatePolicyKeepsItsTarget(t *testing.T) {
	ctx, s := context.Background(), newService(t, memory.New())
	id := create(t, s, policystore.NewPolicyStore{}).ID
	const before = `permit (principal == User::"a", action == Action::"view", resource in Folder::"f") when { true };`
	p, err := s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Statement: before})
	must(t, err)
	for _, after := range []string{
		`forbid (principal == User::"a", action == Action::"view", resource in Folder::"f");`,
		`permit (principal == User::"b", action == Action::"view", resource in Folder::"f");`,
		`permit (principal in User::"a", action == Action::"view", resource in Folder::"f");`,
		`permit (principal is User in User::"a", action == Action::"view", resource in Folder::"f");`,
		`permit (principal, action == Action::"view", resource in Folder::"f");`,
		`permit (principal == User::"a", action == Action::"view", resource == Folder::"f");`,
		`permit (principal == User::"a", action == Action::"view", resource is Folder);`,
		`permit (principal == User::"a", action == Action::"view", resource);`,
	} {
		_, err := s.UpdatePolicy(ctx, root, id, p.ID, policystore.PolicyUpdate{Statement: &after})
		wantKind(t, err, copse.Invalid)
		wantField(t, err, "definition.static.statement", 0)
	}
	after := `@why("more") permit (principal == User::"a", action, resource in Folder::"f") unless { false };`
	if _, err := s.UpdatePolicy(ctx, root, id, p.ID, policystore.PolicyUpdate{Statement: &after}); err != nil {
		t.Fatal(err)
	}
}

func TestStrictAndOff(t *testing.T) {
	ctx, s := context.Background(), newService(t, memory.New())
	strict := create(t, s, policystore.NewPolicyStore{Settings: copse.Settings{Validation: copse.ValidationStrict}}).ID
	off := create(t, s, policystore.NewPolicyStore{}).ID

	_, err := s.CreatePolicy(ctx, root, strict, policystore.NewPolicy{Statement: permitAll})
	wantKind(t, err, copse.Invalid, "no schema")
	wantField(t, err, "definition.static.statement", 0)
	_, err = s.CreatePolicy(ctx, root, off, policystore.NewPolicy{Statement: levelView})
	must(t, err)
	_, err = s.CreatePolicy(ctx, root, off, policystore.NewPolicy{Statement: "permit"})
	wantKind(t, err, copse.Invalid)
	wantField(t, err, "definition.static.statement", 1)

	_, err = s.PutSchema(ctx, root, strict, schema(schemaText))
	must(t, err)
	p, err := s.CreatePolicy(ctx, root, strict, policystore.NewPolicy{Statement: ownersView})
	must(t, err)
	_, err = s.CreatePolicy(ctx, root, strict, policystore.NewPolicy{Statement: levelView})
	wantKind(t, err, copse.Invalid)
	// A schema that stored policies break is taken, and they are checked when they are next updated.
	_, err = s.PutSchema(ctx, root, strict, schema(otherSchema))
	must(t, err)
	text := ownersView
	_, err = s.UpdatePolicy(ctx, root, strict, p.ID, policystore.PolicyUpdate{Statement: &text})
	wantKind(t, err, copse.Invalid)
	name := "renamed"
	_, err = s.UpdatePolicy(ctx, root, strict, p.ID, policystore.PolicyUpdate{Name: &name})
	must(t, err)
	_, err = s.PutSchema(ctx, root, strict, schema("entity"))
	wantKind(t, err, copse.Invalid)
	wantField(t, err, "schema.cedar", 0)
}

func TestSchemaRoundTrip(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx, s := context.Background(), newService(t, b)
		id := create(t, s, policystore.NewPolicyStore{}).ID
		_, err := s.GetSchema(ctx, root, id)
		if e := wantKind(t, err, copse.NotFound); e.Resource != copse.ResourceSchema {
			t.Fatalf("%+v", e)
		}
		put, err := s.PutSchema(ctx, root, id, policystore.SchemaText{Cedar: "namespace B { entity X; }\nnamespace A { entity Y; }"})
		must(t, err)
		got, err := s.GetSchema(ctx, root, id)
		must(t, err)
		if diff := cmp.Diff([]string{"A", "B"}, got.Namespaces); diff != "" {
			t.Fatal(diff)
		}
		if got.Cedar == "" || !strings.Contains(string(got.JSON), `"A"`) {
			t.Fatalf("%+v", got)
		}
		again, err := s.PutSchema(ctx, root, id, policystore.SchemaText{JSON: string(got.JSON)})
		must(t, err)
		if again.Cedar != "" || !again.CreatedAt.Equal(put.CreatedAt) || again.UpdatedAt.Before(put.UpdatedAt) {
			t.Fatalf("%+v after %+v", again, put)
		}
	})
}

func TestListing(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx, s := context.Background(), newService(t, b)
		want := map[copse.PolicyStoreID]bool{}
		for range 7 {
			want[create(t, s, policystore.NewPolicyStore{}).ID] = true
		}
		var last copse.PolicyStoreID
		for more, pages := true, 0; more; pages++ {
			page, rest, err := s.List(ctx, root, last, 3)
			must(t, err)
			if len(page) > 3 || pages > 3 {
				t.Fatalf("page of %d", len(page))
			}
			for _, p := range page {
				if p.ID <= last || !want[p.ID] {
					t.Fatalf("%s after %s", p.ID, last)
				}
				delete(want, p.ID)
				last = p.ID
			}
			more = rest
		}
		if len(want) > 0 {
			t.Fatalf("not listed: %v", want)
		}

		seen := map[copse.PolicyID]bool{}
		for range 5 {
			p, err := s.CreatePolicy(ctx, root, last, policystore.NewPolicy{Statement: permitAll})
			must(t, err)
			seen[p.ID] = true
		}
		var after copse.PolicyID
		for more := true; more; {
			page, next, err := s.ListPolicies(ctx, root, last, policystore.PolicyFilter{}, after, 2)
			must(t, err)
			if len(page) == 0 {
				t.Fatal("empty page")
			}
			for _, p := range page {
				delete(seen, p.ID)
			}
			after, more = next, next != ""
		}
		if len(seen) > 0 {
			t.Fatalf("not listed: %v", seen)
		}
	})
}

// A key that does not cover a policy store gets the very answer that an absent one gets, from every
// method.
func TestNotCoveredIsNotFound(t *testing.T) {
	ctx, s := context.Background(), newService(t, memory.New())
	text := schema(schemaText)
	mine := create(t, s, policystore.NewPolicyStore{Tenant: "mine", Schema: &text, Policies: named("p", permitAll)})
	theirs := create(t, s, policystore.NewPolicyStore{Tenant: "theirs", Schema: &text, Policies: named("p", permitAll)})
	absent := copse.PolicyStoreID(copse.NewID())
	s.UseDirectory(directory{"mine": mine.ID, "theirs": theirs.ID})
	every := access.Read | access.Write | access.Decide

	calls := map[string]struct {
		verb access.Verb
		call func(c access.Caller, id copse.PolicyStoreID) error
	}{
		"Get":         {access.Read, func(c access.Caller, id copse.PolicyStoreID) error { _, err := s.Get(ctx, c, id); return err }},
		"GetSchema":   {access.Read, func(c access.Caller, id copse.PolicyStoreID) error { _, err := s.GetSchema(ctx, c, id); return err }},
		"GetContents": {access.Read, func(c access.Caller, id copse.PolicyStoreID) error { _, err := s.GetContents(ctx, c, id); return err }},
		"GetPolicy": {access.Read, func(c access.Caller, id copse.PolicyStoreID) error {
			_, err := s.GetPolicy(ctx, c, id, "name/p")
			return err
		}},
		"ListPolicies": {access.Read, func(c access.Caller, id copse.PolicyStoreID) error {
			_, _, err := s.ListPolicies(ctx, c, id, policystore.PolicyFilter{}, "", 5)
			return err
		}},
		"PutSchema": {access.Write, func(c access.Caller, id copse.PolicyStoreID) error {
			_, err := s.PutSchema(ctx, c, id, text)
			return err
		}},
		"CreatePolicy": {access.Write, func(c access.Caller, id copse.PolicyStoreID) error {
			_, err := s.CreatePolicy(ctx, c, id, policystore.NewPolicy{Statement: permitAll})
			return err
		}},
		"CreatePolicy, bad": {0, func(c access.Caller, id copse.PolicyStoreID) error {
			_, err := s.CreatePolicy(ctx, c, id, policystore.NewPolicy{Statement: "nonsense"})
			return err
		}},
		"UpdatePolicy": {access.Write, func(c access.Caller, id copse.PolicyStoreID) error {
			_, err := s.UpdatePolicy(ctx, c, id, "name/p", policystore.PolicyUpdate{})
			return err
		}},
		"DeletePolicy": {access.Write, func(c access.Caller, id copse.PolicyStoreID) error { return s.DeletePolicy(ctx, c, id, "other") }},
		"PutContents": {access.Write, func(c access.Caller, id copse.PolicyStoreID) error {
			_, err := s.PutContents(ctx, c, id, policystore.NewContents{Policies: named("p", permitAll)})
			return err
		}},
		"DecideAs": {access.Decide, func(c access.Caller, id copse.PolicyStoreID) error {
			_, err := s.DecideAs(ctx, c, view(id))
			return err
		}},
	}
	for name, tt := range calls {
		t.Run(name, func(t *testing.T) {
			for _, scope := range []access.Scope{{}, {Tenant: "mine"}, {PolicyStore: mine.ID}} {
				c := access.Caller{KeyID: "k", Scope: scope, Verbs: every}
				foreign, missing := tt.call(c, theirs.ID), tt.call(c, absent)
				wantKind(t, foreign, copse.NotFound)
				wantKind(t, missing, copse.NotFound)
				if a, b := strings.ReplaceAll(foreign.Error(), string(theirs.ID), "ID"), strings.ReplaceAll(missing.Error(), string(absent), "ID"); a != b {
					t.Fatalf("existence shows: %q and %q", a, b)
				}
				if tt.verb == 0 || scope == (access.Scope{}) {
					continue
				}
				must(t, tt.call(c, mine.ID))
				c.Verbs = every &^ tt.verb
				wantKind(t, tt.call(c, mine.ID), copse.NotFound)
			}
		})
	}
}

func TestOnlyAdminMakesAndRemoves(t *testing.T) {
	ctx, s := context.Background(), newService(t, memory.New())
	mine := create(t, s, policystore.NewPolicyStore{Tenant: "mine"})
	create(t, s, policystore.NewPolicyStore{Tenant: "theirs"})
	absent, every := copse.PolicyStoreID(copse.NewID()), access.Read|access.Write|access.Decide
	// The refusal says nothing about existence.
	for _, c := range []access.Caller{{}, {Scope: access.Scope{Tenant: "mine"}, Verbs: every | access.Admin}, {Scope: access.Scope{All: true}, Verbs: every}} {
		_, err := s.Create(ctx, c, policystore.NewPolicyStore{Settings: copse.Settings{Validation: copse.ValidationOff}})
		wantKind(t, err, copse.Denied)
		wantKind(t, s.Delete(ctx, c, mine.ID), copse.Denied)
		wantKind(t, s.Delete(ctx, c, absent), copse.Denied)
	}
	for _, tt := range []struct {
		c    access.Caller
		want int
	}{
		{access.Caller{Scope: access.Scope{All: true}, Verbs: access.Read}, 2},
		{access.Caller{Scope: access.Scope{All: true}, Verbs: access.Write}, 0},
		{access.Caller{Scope: access.Scope{PolicyStore: mine.ID}, Verbs: access.Read}, 1},
		{access.Caller{Scope: access.Scope{PolicyStore: mine.ID}, Verbs: access.Decide}, 0},
		{access.Caller{Scope: access.Scope{PolicyStore: absent}, Verbs: access.Read}, 0},
		{access.Caller{Verbs: every}, 0},
	} {
		got, _, err := s.List(ctx, tt.c, "", 10)
		must(t, err)
		if len(got) != tt.want || tt.want == 1 && got[0].ID != mine.ID {
			t.Fatalf("%+v sees %v", tt.c, got)
		}
	}
}

// directory knows active tenants.
type directory map[copse.TenantID]copse.PolicyStoreID

func (d directory) Lookup(_ context.Context, id copse.TenantID) (copse.DirectoryEntry, error) {
	if _, ok := d[id]; !ok {
		return copse.DirectoryEntry{}, copse.NotFoundError(copse.ResourceTenant, string(id))
	}
	return copse.DirectoryEntry{Tenant: id, State: copse.TenantActive, PolicyStoreID: d[id]}, nil
}

func TestTenantsPolicyStoreIsNotDecidedWithoutDirectory(t *testing.T) {
	ctx, s := context.Background(), newService(t, memory.New())
	p := create(t, s, policystore.NewPolicyStore{Tenant: "acme", Policies: named("p", permitAll)})
	_, err := s.DecideAs(ctx, root, view(p.ID))
	wantKind(t, err, copse.Unavailable)
	s.UseDirectory(directory{})
	_, err = s.DecideAs(ctx, root, view(p.ID))
	wantKind(t, err, copse.NotFound)
	s.UseDirectory(directory{"acme": "another"})
	_, err = s.DecideAs(ctx, root, view(p.ID))
	wantKind(t, err, copse.NotFound)
	s.UseDirectory(directory{"acme": p.ID})
	out, err := s.DecideAs(ctx, root, view(p.ID))
	if err != nil || out.Decision != copse.Allow {
		t.Fatal(out, err)
	}
}

func TestTenantsPolicyStoreIsDeletedWithTheTenant(t *testing.T) {
	s := newService(t, memory.New())
	p := create(t, s, policystore.NewPolicyStore{Tenant: "acme", Policies: named("p", permitAll)})
	wantKind(t, s.Delete(context.Background(), root, p.ID), copse.InvalidState, "acme")
	wantDecision(t, s, p.ID, copse.Allow, "p")
}

func TestMalformedIDs(t *testing.T) {
	ctx, s := context.Background(), newService(t, memory.New())
	id := create(t, s, policystore.NewPolicyStore{}).ID
	for _, bad := range []string{"", "a b", "a\x00", strings.Repeat("a", 201)} {
		_, err := s.Get(ctx, root, copse.PolicyStoreID(bad))
		wantKind(t, err, copse.Invalid)
		_, err = s.GetPolicy(ctx, root, id, copse.PolicyID(bad))
		wantKind(t, err, copse.Invalid)
		wantKind(t, s.DeletePolicy(ctx, root, id, copse.PolicyID(bad)), copse.Invalid)
	}
}

func TestIncarnationGuardsDecisions(t *testing.T) {
	ctx, s := context.Background(), newService(t, memory.New())
	p := create(t, s, policystore.NewPolicyStore{Policies: named("p", permitAll)})
	req := view(p.ID)
	req.Incarnation = p.Incarnation
	out, err := s.Decider().Decide(ctx, req)
	if err != nil || out.Decision != copse.Allow {
		t.Fatal(out, err)
	}
	req.Incarnation = copse.NewIncarnation()
	out, err = s.Decider().Decide(ctx, req)
	wantKind(t, err, copse.NotFound)
	if out.Decision != copse.Deny || out.Determining != nil {
		t.Fatalf("%+v beside an error", out)
	}
}
