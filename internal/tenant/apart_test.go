package tenant_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/tenant"
)

// A thousand tenants with the same users, resources and policy names, made at once, whose policies
// allow a different set of documents each: whoever reads another's policy store, snapshot, name or id
// gets caught.
func TestThousandTenantsDecideApart(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		const tenants, bits = 1000, 10
		names := [2]string{copse.Deny: "forbid", copse.Allow: "permit"}
		ctx, s := context.Background(), newServices(t, b)
		var decided, allowed atomic.Int64
		each(tenants, 32, func(n int) {
			id := copse.TenantID(fmt.Sprint("tenant-", n))
			var docs [2]string
			for bit := range bits {
				docs[n>>bit&1] += fmt.Sprintf(`Doc::"%d", `, bit)
			}
			in := tenant.NewTenant{ID: id}
			for i, name := range names {
				in.Policies = append(in.Policies, policystore.PolicyText{Name: name, Statement: fmt.Sprintf(
					`%s (principal == User::"alice", action == Action::"view", resource) when { [%s].contains(resource) };`, name, strings.TrimSuffix(docs[i], ", "))})
			}
			if _, err := s.Create(ctx, root, in); err != nil {
				t.Error(describe(err))
			}
		})
		if t.Failed() {
			return
		}
		stores := sync.Map{}
		each(tenants, 8, func(n int) {
			id := copse.TenantID(fmt.Sprint("tenant-", n))
			entry, err := s.Lookup(ctx, id)
			if err != nil || entry.Tenant != id {
				t.Error(entry, err)
				return
			}
			if other, shared := stores.LoadOrStore(entry.PolicyStoreID, id); shared {
				t.Errorf("%s and %s share a policy store", id, other)
			}
			for bit := range bits {
				out, err := s.policies.Decider().Decide(ctx, &copse.Request{
					PolicyStoreID: entry.PolicyStoreID, Incarnation: entry.Incarnation,
					Principal: types.NewEntityUID("User", "alice"), Action: types.NewEntityUID("Action", "view"),
					Resource: types.NewEntityUID("Doc", types.String(fmt.Sprint(bit))),
				})
				want := copse.Decision(n >> bit & 1)
				if err != nil || out.Decision != want || len(out.Determining) != 1 || out.Determining[0].Name != names[want] {
					t.Errorf("%s, document %d: got %+v, %v, want %v", id, bit, out, err, want)
					return
				}
				decided.Add(1)
				allowed.Add(int64(out.Decision))
			}
		})
		if decided.Load() != tenants*bits || allowed.Load() < 4000 || allowed.Load() > 6000 {
			t.Fatalf("%d decisions, %d allowed", decided.Load(), allowed.Load())
		}
	})
}

// each calls f for 0 to n-1, so many at a time.
func each(n, at int, f func(int)) {
	var wg sync.WaitGroup
	var next atomic.Int64
	for range at {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				f(int(i))
			}
		})
	}
	wg.Wait()
}

// Equal policy ids, which only storage could make, stay apart as well.
func TestEqualPolicyIDsStayApart(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx, s := context.Background(), newServices(t, b)
		for id, statement := range map[copse.TenantID]string{"allow": permitAll, "deny": forbidAll} {
			onboard(t, s, id, "p", statement)
			entry, err := s.Lookup(ctx, id)
			must(t, err)
			move(t, b, entry)
		}
		for range 3 {
			wantSame(t, s, "allow", copse.Allow)
			wantSame(t, s, "deny", copse.Deny)
		}
	})
}

// move gives a tenant's only policy the id "same".
func move(t *testing.T, b storage.Backend, entry copse.DirectoryEntry) {
	t.Helper()
	ctx, p := context.Background(), storage.PolicyStore(entry.PolicyStoreID)
	items, err := b.Scan(ctx, p, "policy", "", 2)
	must(t, err)
	if len(items) != 1 {
		t.Fatalf("%d policies", len(items))
	}
	_, err = b.Commit(ctx, storage.Commit{Partition: p, Incarnation: entry.Incarnation, Writes: []storage.Write{
		{Key: items[0].Key, Expect: storage.Any()},
		{Key: storage.Key{Kind: "policy", ID: "same"}, Body: items[0].Body},
	}})
	must(t, err)
}

func wantSame(t *testing.T, s services, id copse.TenantID, want copse.Decision) {
	t.Helper()
	out, err := decide(context.Background(), s, id)
	must(t, err)
	if out.Decision != want || len(out.Determining) != 1 || out.Determining[0].ID != "same" {
		t.Fatalf("tenant %s: %+v, want %v", id, out, want)
	}
}
