package policystore_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/engine"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage/memory"
)

// bulky is a policy of about 9 kB on a resource.
func bulky(resource string) string {
	return fmt.Sprintf("permit (principal, action, resource == Doc::%q) when { // %s\n true };", resource, strings.Repeat("x", 9000))
}

func TestScopeLimit(t *testing.T) {
	ctx, s := context.Background(), newService(t, memory.New())
	id := create(t, s, policystore.NewPolicyStore{}).ID
	var last policystore.Policy
	for range copse.MaxPolicyBytesPerScope / len(bulky("1")) {
		var err error
		last, err = s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Statement: bulky("1")})
		must(t, err)
	}
	_, err := s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Statement: bulky("1")})
	wantKind(t, err, copse.QuotaExceeded, `Doc::"1"`, "200000")
	// Other resources, and none, have their own limit.
	_, err = s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Statement: bulky("2")})
	must(t, err)
	_, err = s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Statement: permitAll})
	must(t, err)
	// An update counts the difference; a fresh service counts the same from what is stored.
	more := bulky("1") + strings.Repeat(" ", 300)
	_, err = s.UpdatePolicy(ctx, root, id, last.ID, policystore.PolicyUpdate{Statement: &more})
	must(t, err)
	less := `permit (principal, action, resource == Doc::"1");`
	_, err = s.UpdatePolicy(ctx, root, id, last.ID, policystore.PolicyUpdate{Statement: &less})
	must(t, err)
	_, err = s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Statement: bulky("1")})
	must(t, err)
	_, err = s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Statement: bulky("1")})
	wantKind(t, err, copse.QuotaExceeded)
	must(t, s.DeletePolicy(ctx, root, id, last.ID))

	var in policystore.NewContents
	for i := range 30 {
		in.Policies = append(in.Policies, policystore.PolicyText{Name: fmt.Sprint(i), Statement: bulky("3")})
	}
	_, err = s.PutContents(ctx, root, id, in)
	wantKind(t, err, copse.QuotaExceeded, `Doc::"3"`)
	_, err = s.Create(ctx, root, policystore.NewPolicyStore{Settings: copse.Settings{Validation: copse.ValidationOff}, Policies: in.Policies})
	wantKind(t, err, copse.QuotaExceeded, `Doc::"3"`)
}

func TestScopeLimitIsCountedFromStorage(t *testing.T) {
	ctx, b := context.Background(), memory.New()
	a, z := newService(t, b), newService(t, b)
	id := create(t, a, policystore.NewPolicyStore{}).ID
	// Two nodes taking turns: each must see what the other used.
	for i := range copse.MaxPolicyBytesPerScope / len(bulky("1")) {
		_, err := []*policystore.Service{a, z}[i%2].CreatePolicy(ctx, root, id, policystore.NewPolicy{Statement: bulky("1")})
		must(t, err)
	}
	for _, s := range []*policystore.Service{a, z} {
		_, err := s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Statement: bulky("1")})
		wantKind(t, err, copse.QuotaExceeded)
	}
}

func TestContentsLimits(t *testing.T) {
	ctx, s := context.Background(), newService(t, memory.New())
	id := create(t, s, policystore.NewPolicyStore{}).ID
	many := func(n int, statement func(i int) string) policystore.NewContents {
		var in policystore.NewContents
		for i := range n {
			in.Policies = append(in.Policies, policystore.PolicyText{Name: fmt.Sprint("p", i), Statement: statement(i)})
		}
		return in
	}
	small := func(i int) string { return fmt.Sprintf(`permit (principal, action, resource == Doc::"%d");`, i) }
	_, err := s.PutContents(ctx, root, id, many(copse.MaxContentsWrites+1, small))
	wantKind(t, err, copse.QuotaExceeded, "10000", "10001")
	_, err = s.PutContents(ctx, root, id, many(5001, small))
	wantKind(t, err, copse.QuotaExceeded, "10000", "10002", "a new policy with a name takes two")
	_, err = s.PutContents(ctx, root, id, many(4000, func(i int) string { return bulky(fmt.Sprint(i)) }))
	wantKind(t, err, copse.QuotaExceeded, "16777216")
	if c, err := s.GetContents(ctx, root, id); err != nil || len(c.Policies) != 0 {
		t.Fatal(len(c.Policies), err)
	}
	got, err := s.PutContents(ctx, root, id, many(4500, small))
	must(t, err)
	if got.Created != 4500 {
		t.Fatalf("created %d", got.Created)
	}
	// Unchanged policies cost nothing, so the next ones fit.
	got, err = s.PutContents(ctx, root, id, many(9000, small))
	must(t, err)
	if got.Created != 4500 || len(got.Policies) != 9000 {
		t.Fatalf("created %d of %d", got.Created, len(got.Policies))
	}
}

// The weight is charged when something is written, whichever way, and what was taken can be read.
func TestWeightIsChargedAtWrite(t *testing.T) {
	ctx, b := context.Background(), memory.New()
	const limit = 400_000
	s := newServiceFrom(t, policystore.Config{Backend: b, MaxWeight: limit})
	id := create(t, s, policystore.NewPolicyStore{}).ID
	statement := func(i int) string {
		return fmt.Sprintf(`permit (principal, action, resource == Doc::"%d") when { [%s1].contains(2) };`, i, strings.Repeat("action.a, ", 800))
	}
	taken := 0
	var refused error
	for refused == nil && taken < 2000 {
		if _, refused = s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Statement: statement(taken)}); refused == nil {
			taken++
		}
	}
	wantKind(t, refused, copse.QuotaExceeded, "400000", "memory")
	if taken < 3 {
		t.Fatalf("only %d policies fit", taken)
	}
	wantDecision(t, s, id, copse.Deny)
	if w := storedWeight(t, s, id); w > limit || w < limit/2 {
		t.Fatalf("%d policies of %d bytes were taken", taken, w)
	}
	// Other ways in, and a service that has to count from storage.
	fresh := newServiceFrom(t, policystore.Config{Backend: b, MaxWeight: limit})
	_, err := fresh.CreatePolicy(ctx, root, id, policystore.NewPolicy{Statement: statement(taken)})
	wantKind(t, err, copse.QuotaExceeded)
	var all []policystore.PolicyText
	for i := range taken + 1 {
		all = append(all, policystore.PolicyText{Name: fmt.Sprint(i), Statement: statement(i)})
	}
	_, err = fresh.PutContents(ctx, root, id, policystore.NewContents{Policies: all, Prune: true})
	wantKind(t, err, copse.QuotaExceeded)
	_, err = fresh.Create(ctx, root, policystore.NewPolicyStore{Settings: copse.Settings{Validation: copse.ValidationOff}, Policies: all})
	wantKind(t, err, copse.QuotaExceeded)
	// Deleting makes room again.
	page, _, err := s.ListPolicies(ctx, root, id, policystore.PolicyFilter{}, "", 2)
	must(t, err)
	must(t, s.DeletePolicy(ctx, root, id, page[0].ID))
	_, err = s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Statement: statement(taken)})
	must(t, err)
}

// Comments take no memory once compiled, but a policy store of nothing else is not without bounds.
func TestTextIsCharged(t *testing.T) {
	ctx := context.Background()
	const limit = 400_000
	statement := func(i int) string {
		return fmt.Sprintf("permit (principal, action, resource == Doc::\"%d\"); //%s", i, strings.Repeat("x", 9000))
	}
	b := memory.New()
	s := newServiceFrom(t, policystore.Config{Backend: b, MaxWeight: limit})
	id := create(t, s, policystore.NewPolicyStore{}).ID
	taken := 0
	var refused error
	for refused == nil && taken < 200 {
		if _, refused = s.CreatePolicy(ctx, root, id, policystore.NewPolicy{Statement: statement(taken)}); refused == nil {
			taken++
		}
	}
	wantKind(t, refused, copse.QuotaExceeded, "400000")
	if text := taken * len(statement(0)); text > limit || text < limit/2 {
		t.Errorf("%d bytes of policies were taken", text)
	}
	var all []policystore.PolicyText
	for i := range taken + 1 {
		all = append(all, policystore.PolicyText{Name: fmt.Sprint(i), Statement: statement(i)})
	}
	for _, service := range []*policystore.Service{s, newServiceFrom(t, policystore.Config{Backend: b, MaxWeight: limit})} {
		_, err := service.CreatePolicy(ctx, root, id, policystore.NewPolicy{Statement: statement(taken)})
		wantKind(t, err, copse.QuotaExceeded)
		_, err = service.PutContents(ctx, root, id, policystore.NewContents{Policies: all, Prune: true})
		wantKind(t, err, copse.QuotaExceeded)
		_, err = service.Create(ctx, root, policystore.NewPolicyStore{Settings: copse.Settings{Validation: copse.ValidationOff}, Policies: all})
		wantKind(t, err, copse.QuotaExceeded)
	}
	_, err := s.PutContents(ctx, root, id, policystore.NewContents{Policies: all[:taken], Prune: true})
	must(t, err)
}

func storedWeight(t *testing.T, s *policystore.Service, id copse.PolicyStoreID) int64 {
	t.Helper()
	c, err := s.GetContents(context.Background(), root, id)
	must(t, err)
	var sources []engine.Source
	for _, p := range c.Policies {
		parsed, err := engine.ParsePolicy("p", []byte(p.Statement))
		must(t, err)
		sources = append(sources, engine.Source{Ref: copse.PolicyRef{ID: p.ID}, Policy: parsed})
	}
	compiled, err := engine.Compile(nil, copse.Settings{}, sources)
	must(t, err)
	return compiled.Weight()
}
