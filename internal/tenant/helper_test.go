package tenant_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
	"github.com/copse-authz/copse/internal/storage/sqlite"
	"github.com/copse-authz/copse/internal/tenant"
)

const (
	permitAll = `permit (principal, action, resource);`
	forbidAll = `forbid (principal, action, resource);`
)

var root = access.System()

// backends runs a test on every backend.
func backends(t *testing.T, f func(t *testing.T, b storage.Backend)) {
	t.Run("memory", func(t *testing.T) { f(t, memory.New()) })
	t.Run("sqlite", func(t *testing.T) {
		b, err := sqlite.Open(t.TempDir())
		must(t, err)
		t.Cleanup(func() { must(t, b.Close()) })
		f(t, b)
	})
}

// services are one node: what a server wires over a backend.
type services struct {
	*tenant.Service
	policies *policystore.Service
}

func newServices(t *testing.T, b storage.Backend) services {
	t.Helper()
	p, err := policystore.New(policystore.Config{Backend: b})
	must(t, err)
	s, err := tenant.New(tenant.Config{Backend: b, PolicyStores: p})
	must(t, err)
	t.Cleanup(func() {
		must(t, s.Close())
		must(t, p.Close())
	})
	return services{s, p}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(describe(err))
	}
}

func describe(err error) string {
	var b strings.Builder
	for ; err != nil; err = errors.Unwrap(err) {
		fmt.Fprintf(&b, "%v (%v); ", err, copse.KindOf(err))
	}
	return b.String()
}

func wantKind(t *testing.T, err error, kind copse.Kind, parts ...string) *copse.Error {
	t.Helper()
	e, ok := errors.AsType[*copse.Error](err)
	if !ok || e.Kind != kind {
		t.Fatalf("got %s, want %v", describe(err), kind)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Fatalf("error %q does not mention %q", err, part)
		}
	}
	return e
}

func wantField(t *testing.T, err error, path string) {
	t.Helper()
	e := wantKind(t, err, copse.Invalid)
	for _, f := range e.Fields {
		if f.Path == path && f.Message != "" {
			return
		}
	}
	t.Fatalf("no finding at %s in %+v", path, e.Fields)
}

// onboard makes a tenant with one policy of a name.
func onboard(t *testing.T, s services, id copse.TenantID, name, statement string) tenant.Tenant {
	t.Helper()
	made, err := s.Create(context.Background(), root, tenant.NewTenant{
		ID: id, Policies: []policystore.PolicyText{{Name: name, Statement: statement}},
	})
	must(t, err)
	return made
}

// decide goes the way of a token's decision, from the tenant on.
func decide(ctx context.Context, s services, id copse.TenantID) (copse.Response, error) {
	entry, err := s.Lookup(ctx, id)
	if err != nil {
		return copse.Response{}, err
	}
	if entry.State != copse.TenantActive {
		return copse.Response{}, copse.Errorf(copse.Denied, "tenant is %s", entry.State)
	}
	return s.policies.Decider().Decide(ctx, &copse.Request{
		PolicyStoreID: entry.PolicyStoreID, Incarnation: entry.Incarnation,
		Principal: types.NewEntityUID("User", "alice"),
		Action:    types.NewEntityUID("Action", "view"),
		Resource:  types.NewEntityUID("Doc", "1"),
	})
}

func wantDecision(t *testing.T, s services, id copse.TenantID, want copse.Decision, by string) {
	t.Helper()
	out, err := decide(context.Background(), s, id)
	must(t, err)
	if out.Decision != want || len(out.Determining) != 1 || out.Determining[0].Name != by {
		t.Fatalf("tenant %s: got %v by %v, want %v by %s", id, out.Decision, out.Determining, want, by)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// traces is everything a backend holds in which one of the words occurs.
func traces(t *testing.T, b storage.Backend, words ...string) []string {
	t.Helper()
	ctx := context.Background()
	heads, err := b.Heads(ctx, "", 5000)
	must(t, err)
	partitions := []storage.Partition{storage.Directory()}
	var found []string
	note := func(where string, texts ...string) {
		for _, text := range texts {
			for _, w := range words {
				if strings.Contains(text, w) {
					found = append(found, where+": "+text)
				}
			}
		}
	}
	for _, h := range heads {
		partitions = append(partitions, h.Partition)
		note("head", h.Partition.String())
	}
	for _, p := range partitions {
		loaded, err := b.Load(ctx, p)
		if errors.Is(err, storage.ErrNotFound) {
			continue
		}
		must(t, err)
		for _, item := range loaded.Items {
			note("item of "+p.String(), item.ID, string(item.Body))
		}
		rows, err := b.History(ctx, p, 0, 100_000)
		must(t, err)
		for _, row := range rows {
			note("history of "+p.String(), row.Key.ID, string(row.Body))
		}
	}
	feed, err := b.Feed(ctx, 0, 100_000)
	must(t, err)
	for _, row := range feed {
		note("feed", row.Partition.String())
	}
	return found
}
