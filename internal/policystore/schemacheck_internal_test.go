package policystore

import (
	"fmt"
	"testing"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage/memory"
)

// A check ends with its budget and says what it did not look at, and a policy store has one at a time.
func TestLaw7SchemaCheckIsBounded(t *testing.T) {
	s, err := New(Config{Backend: memory.New()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	ctx := t.Context()
	in := NewPolicyStore{
		Settings:  copse.Settings{Validation: copse.ValidationOff},
		Schema:    &SchemaText{Cedar: "entity User, Doc; action view appliesTo { principal: User, resource: Doc };"},
		Templates: []PolicyText{{Name: "one", Statement: "permit (principal == ?principal, action, resource is Doc);"}},
	}
	for i := range 10 {
		in.Policies = append(in.Policies, PolicyText{Name: fmt.Sprint(i), Statement: `permit (principal, action, resource) when { principal.name == "x" };`})
	}
	made, err := s.Create(ctx, access.System(), in)
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.CheckSchema(ctx, access.System(), made.ID, nil)
	if err != nil || all.Checked != 11 || len(all.Broken) != 10 || all.Unchecked != 0 {
		t.Fatalf("got %+v, %v", all, err)
	}
	s.checkSteps = 1
	some, err := s.CheckSchema(ctx, access.System(), made.ID, nil)
	if err != nil || some.Checked != 11 || some.Unchecked != 10 || len(some.Broken) != 0 {
		t.Errorf("got %+v, %v", some, err)
	}
	s.checking.Store(made.ID, nil)
	if _, err := s.CheckSchema(ctx, access.System(), made.ID, nil); copse.KindOf(err) != copse.Throttled {
		t.Errorf("a second check at the same time: %v", err)
	}
	s.checking.Delete(made.ID)
	if _, err := s.CheckSchema(ctx, access.System(), made.ID, nil); err != nil {
		t.Error(err)
	}
}
