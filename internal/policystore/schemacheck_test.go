package policystore_test

import (
	"context"
	"testing"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage/memory"
)

// What a schema breaks is told before it is put and after, templates and policies alike.
func TestCheckSchema(t *testing.T) {
	ctx, s := context.Background(), newService(t, memory.New())
	text := schema(schemaText)
	id := create(t, s, policystore.NewPolicyStore{Schema: &text,
		Templates: named("owners", ownerTemplate, "viewers", viewTemplate), Policies: named("mine", ownersView, "all", permitView)}).ID
	newLink(t, s, id, "alice", link("name/owners", "alice", ""))
	other := schema(otherSchema)
	check := func(text *policystore.SchemaText, broken ...string) {
		t.Helper()
		got, err := s.CheckSchema(ctx, root, id, text)
		must(t, err)
		if got.Checked != 5 || len(got.Broken) != len(broken) {
			t.Fatalf("got %+v, want %v", got, broken)
		}
		for i, b := range got.Broken {
			if b.Name != broken[i] || b.Template != (b.Name == "owners") || len(b.Fields) == 0 || b.Fields[0].Line != 1 || b.Fields[0].Message == "" {
				t.Errorf("got %+v, want %s", b, broken[i])
			}
		}
	}
	check(nil)
	check(&other, "owners", "mine")
	_, err := s.PutSchema(ctx, root, id, other)
	must(t, err)
	check(nil, "owners", "mine")
	check(&text)
	bad := schema(`entity User in Missing;`)
	_, err = s.CheckSchema(ctx, root, id, &bad)
	wantKind(t, err, copse.Invalid)
	_, err = s.CheckSchema(ctx, root, create(t, s, policystore.NewPolicyStore{}).ID, nil)
	wantKind(t, err, copse.NotFound)
}
