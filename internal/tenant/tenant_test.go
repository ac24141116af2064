package tenant_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
	"github.com/copse-authz/copse/internal/tenant"
)

func TestTenantLifeCycle(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx, s := context.Background(), newServices(t, b)
		made := onboard(t, s, "acme", "p", permitAll)
		got, err := s.Get(ctx, root, "acme")
		must(t, err)
		if diff := cmp.Diff(made, got); diff != "" || got.State != copse.TenantActive {
			t.Fatal(diff, got)
		}
		_, err = s.Create(ctx, root, tenant.NewTenant{ID: "acme"})
		if e := wantKind(t, err, copse.Conflict, "acme"); e.Resource != copse.ResourceTenant {
			t.Fatalf("%+v", e)
		}
		wantDecision(t, s, "acme", copse.Allow, "p")

		suspended, err := s.SetState(ctx, root, "acme", copse.TenantSuspended)
		must(t, err)
		if suspended.State != copse.TenantSuspended || !suspended.UpdatedAt.After(made.UpdatedAt) {
			t.Fatalf("%+v", suspended)
		}
		_, err = decide(ctx, s, "acme")
		wantKind(t, err, copse.Denied)
		// Nor is a key for the policy store a way around it.
		for _, c := range []access.Caller{root, {Scope: access.Scope{PolicyStore: made.PolicyStoreID}, Verbs: access.Decide}} {
			_, err = s.policies.DecideAs(ctx, c, &copse.Request{PolicyStoreID: made.PolicyStoreID})
			wantKind(t, err, copse.Denied)
		}
		again, err := s.SetState(ctx, root, "acme", copse.TenantSuspended)
		must(t, err)
		if diff := cmp.Diff(suspended, again); diff != "" {
			t.Fatalf("suspending twice changed something: %s", diff)
		}
		_, err = s.SetState(ctx, root, "acme", "PAUSED")
		wantKind(t, err, copse.Invalid)
		_, err = s.SetState(ctx, root, "acme", copse.TenantActive)
		must(t, err)
		wantDecision(t, s, "acme", copse.Allow, "p")

		must(t, s.Delete(ctx, root, "acme"))
		wantKind(t, s.Delete(ctx, root, "acme"), copse.NotFound)
		_, err = s.Get(ctx, root, "acme")
		wantKind(t, err, copse.NotFound)
		_, err = s.Lookup(ctx, "acme")
		wantKind(t, err, copse.NotFound)
		_, err = s.SetState(ctx, root, "acme", copse.TenantActive)
		wantKind(t, err, copse.NotFound)
		if left := traces(t, b, "acme", string(made.PolicyStoreID)); len(left) > 0 {
			t.Fatalf("left after offboarding: %q", left)
		}
	})
}

func TestCreateSettings(t *testing.T) {
	ctx, s := context.Background(), newServices(t, memory.New())
	text := policystore.SchemaText{Cedar: `entity User; entity Doc; action view appliesTo { principal: User, resource: Doc };`}
	for id, tt := range map[copse.TenantID]struct {
		in   tenant.NewTenant
		want copse.Settings
	}{
		"bare":   {tenant.NewTenant{}, copse.Settings{Validation: copse.ValidationOff}},
		"schema": {tenant.NewTenant{Schema: &text}, copse.Settings{Validation: copse.ValidationStrict, CheckRequests: true}},
		"told":   {tenant.NewTenant{Schema: &text, Settings: &copse.Settings{Validation: copse.ValidationOff, ForbidErrorsDeny: true}}, copse.Settings{Validation: copse.ValidationOff, ForbidErrorsDeny: true}},
	} {
		tt.in.ID, tt.in.Description = id, "for "+string(id)
		made, err := s.Create(ctx, root, tt.in)
		must(t, err)
		p, err := s.policies.Get(ctx, root, made.PolicyStoreID)
		must(t, err)
		if p.Settings != tt.want || p.Tenant != id || p.Description != tt.in.Description {
			t.Fatalf("%+v", p)
		}
	}
	for _, bad := range []copse.TenantID{"", "-a", "a b", "a/b", "ä", copse.TenantID(strings.Repeat("a", 129))} {
		_, err := s.Create(ctx, root, tenant.NewTenant{ID: bad})
		wantField(t, err, "tenant")
		_, err = s.Lookup(ctx, bad)
		wantKind(t, err, copse.NotFound)
	}
	_, err := s.Create(ctx, root, tenant.NewTenant{ID: "bad", Policies: []policystore.PolicyText{{Statement: "nonsense"}}})
	wantField(t, err, "policies[0].statement")
	_, err = s.Lookup(ctx, "bad")
	wantKind(t, err, copse.NotFound)
}

func TestConcurrentCreatesOfOneTenant(t *testing.T) {
	ctx, b := context.Background(), memory.New()
	nodes := []services{newServices(t, b), newServices(t, b)}
	for i := range 20 {
		var wg sync.WaitGroup
		var won atomic.Int64
		id := copse.TenantID(fmt.Sprint("t", i))
		for n := range 6 {
			wg.Go(func() {
				_, err := nodes[n%2].Create(ctx, root, tenant.NewTenant{ID: id, Policies: []policystore.PolicyText{{Name: "p", Statement: permitAll}}})
				if err == nil {
					won.Add(1)
				} else if copse.KindOf(err) != copse.Conflict {
					t.Error(describe(err))
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d creates of %s succeeded", won.Load(), id)
		}
		wantDecision(t, nodes[0], id, copse.Allow, "p")
	}
	// The losers' policy stores are gone.
	heads, err := b.Heads(ctx, "", 100)
	must(t, err)
	if len(heads) != 20 {
		t.Fatalf("%d policy stores for 20 tenants", len(heads))
	}
}

// Absence is remembered, and forgotten at the moment the tenant is made.
func TestNegativeLookupEndsWithCreation(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx, s := context.Background(), newServices(t, b)
		other := newServices(t, b)
		for i := range 20 {
			id := copse.TenantID(fmt.Sprint("t", i))
			for _, n := range []services{s, other} {
				_, err := n.Lookup(ctx, id)
				wantKind(t, err, copse.NotFound)
			}
			onboard(t, s, id, "p", permitAll)
			wantDecision(t, s, id, copse.Allow, "p")
			wantDecision(t, other, id, copse.Allow, "p")
		}
	})
}

// A decision that starts after SetState or Delete returned never sees the former state, however many
// lookups are under way.
func TestSuspensionIsEffectiveAtOnce(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx, s := context.Background(), newServices(t, b)
		other := newServices(t, b)
		onboard(t, s, "acme", "p", permitAll)
		done := make(chan struct{})
		var readers sync.WaitGroup
		var answers atomic.Int64
		for _, n := range []services{s, other} {
			for range 2 {
				readers.Go(func() {
					for {
						select {
						case <-done:
							return
						default:
						}
						if _, err := decide(ctx, n, "acme"); err == nil || copse.KindOf(err) == copse.Denied {
							answers.Add(1)
						} else {
							t.Error(describe(err))
							return
						}
					}
				})
			}
		}
		for i := range 25 {
			_, err := s.SetState(ctx, root, "acme", copse.TenantSuspended)
			must(t, err)
			for _, n := range []services{s, other} {
				if _, err := decide(ctx, n, "acme"); copse.KindOf(err) != copse.Denied || err == nil {
					t.Fatalf("round %d: a suspended tenant was decided: %v", i, err)
				}
			}
			_, err = s.SetState(ctx, root, "acme", copse.TenantActive)
			must(t, err)
			wantDecision(t, s, "acme", copse.Allow, "p")
			wantDecision(t, other, "acme", copse.Allow, "p")
		}
		// On a busy machine the readers may not have had a turn yet.
		for end := time.Now().Add(20 * time.Second); answers.Load() < 100 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		close(done)
		readers.Wait()
		if answers.Load() < 100 {
			t.Fatalf("only %d answers", answers.Load())
		}
	})
}

// A tenant made again under the same name shares nothing with its former self: not the policies, not
// the incarnation, not the keys.
func TestTenantMadeAgainIsAnother(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx, s := context.Background(), newServices(t, b)
		keys, err := access.New(access.Config{Backend: b, MasterKey: masterKey(t)})
		must(t, err)
		t.Cleanup(func() { must(t, keys.Close()) })
		onboard(t, s, "bystander", "p", permitAll)
		for range 5 {
			onboard(t, s, "acme", "allow", permitAll)
			wantDecision(t, s, "acme", copse.Allow, "allow")
			before, err := s.Lookup(ctx, "acme")
			must(t, err)
			key, secret, err := keys.CreateKey(ctx, root, access.Key{Scope: access.Scope{Tenant: "acme"}, Verbs: access.Read})
			must(t, err)
			byID, _, err := keys.CreateKey(ctx, root, access.Key{Scope: access.Scope{PolicyStore: before.PolicyStoreID}, Verbs: access.Read})
			must(t, err)
			others, _, err := keys.CreateKey(ctx, root, access.Key{Scope: access.Scope{Tenant: "bystander"}, Verbs: access.Read})
			must(t, err)
			credential := "copse_" + key.ID + "_" + string(secret)
			_, err = keys.Bearer(ctx, credential)
			must(t, err)

			must(t, s.Delete(ctx, root, "acme"))
			onboard(t, s, "acme", "deny", forbidAll)
			wantDecision(t, s, "acme", copse.Deny, "deny")
			after, err := s.Lookup(ctx, "acme")
			must(t, err)
			if after.PolicyStoreID == before.PolicyStoreID || after.Incarnation == before.Incarnation {
				t.Fatalf("%+v after %+v", after, before)
			}
			if _, err := keys.Bearer(ctx, credential); copse.KindOf(err) != copse.Unauthenticated {
				t.Fatalf("the former tenant's key: %v", err)
			}
			if left := traces(t, b, string(before.PolicyStoreID), key.ID, byID.ID); len(left) > 0 {
				t.Fatalf("left of the former tenant: %q", left)
			}
			left, _, err := keys.ListKeys(ctx, root, "", 10)
			must(t, err)
			if len(left) != 1 || left[0].ID != others.ID {
				t.Fatalf("keys left: %v", left)
			}
			must(t, keys.RevokeKey(ctx, root, others.ID))
			must(t, s.Delete(ctx, root, "acme"))
		}
		wantDecision(t, s, "bystander", copse.Allow, "p")
	})
}

func masterKey(t *testing.T) access.MasterKey {
	t.Helper()
	return access.MasterKey(strings.Repeat("k", 32))
}

func TestWhoSeesWhichTenant(t *testing.T) {
	ctx, s := context.Background(), newServices(t, memory.New())
	mine := onboard(t, s, "mine", "p", permitAll)
	onboard(t, s, "theirs", "p", permitAll)
	onboard(t, s, "zebra", "p", permitAll)
	every := access.Read | access.Write | access.Decide
	for name, tt := range map[string]struct {
		c    access.Caller
		want string
	}{
		"root":             {root, "mine theirs zebra"},
		"admin":            {access.Caller{Scope: access.Scope{All: true}, Verbs: access.Admin}, "mine theirs zebra"},
		"reads all":        {access.Caller{Scope: access.Scope{All: true}, Verbs: access.Read}, "mine theirs zebra"},
		"writes all":       {access.Caller{Scope: access.Scope{All: true}, Verbs: access.Write | access.Decide}, ""},
		"tenant":           {access.Caller{Scope: access.Scope{Tenant: "mine"}, Verbs: every}, "mine"},
		"tenant, no read":  {access.Caller{Scope: access.Scope{Tenant: "mine"}, Verbs: access.Write | access.Decide}, ""},
		"policy store":     {access.Caller{Scope: access.Scope{PolicyStore: mine.PolicyStoreID}, Verbs: access.Read}, "mine"},
		"no policy store":  {access.Caller{Scope: access.Scope{PolicyStore: "absent"}, Verbs: access.Read}, ""},
		"no tenant":        {access.Caller{Scope: access.Scope{Tenant: "absent"}, Verbs: every}, ""},
		"nobody":           {access.Caller{Verbs: every}, ""},
		"prefix of tenant": {access.Caller{Scope: access.Scope{Tenant: "min"}, Verbs: every}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			list, more, err := s.List(ctx, tt.c, "", 10)
			must(t, err)
			var ids []string
			for _, x := range list {
				ids = append(ids, string(x.ID))
			}
			if got := strings.Join(ids, " "); got != tt.want || more {
				t.Fatalf("lists %q, want %q", got, tt.want)
			}
			for _, id := range []copse.TenantID{"mine", "theirs", "absent"} {
				_, err := s.Get(ctx, tt.c, id)
				if strings.Contains(tt.want, string(id)) {
					must(t, err)
					continue
				}
				wantKind(t, err, copse.NotFound)
				if want := copse.NotFoundError(copse.ResourceTenant, string(id)).Error(); err.Error() != want {
					t.Fatalf("%q is not %q", err, want)
				}
			}
			stores, _, err := s.policies.List(ctx, tt.c, "", 10)
			must(t, err)
			if want := len(strings.Fields(tt.want)); name != "admin" && len(stores) != want {
				t.Fatalf("%d policy stores, want %d", len(stores), want)
			}
			if tt.c.MayEverywhere(access.Admin) {
				return
			}
			_, err = s.Create(ctx, tt.c, tenant.NewTenant{ID: "new"})
			wantKind(t, err, copse.Denied)
			for _, id := range []copse.TenantID{"mine", "absent"} {
				_, err = s.SetState(ctx, tt.c, id, copse.TenantSuspended)
				wantKind(t, err, copse.Denied)
				wantKind(t, s.Delete(ctx, tt.c, id), copse.Denied)
			}
		})
	}
	page, more, err := s.List(ctx, root, "mine", 1)
	must(t, err)
	if len(page) != 1 || page[0].ID != "theirs" || !more {
		t.Fatalf("%v %v", page, more)
	}
}

// The directory does not believe a tenant's row that its policy store contradicts.
func TestTwoTenantsOnOnePolicyStoreAreRefused(t *testing.T) {
	ctx, b := context.Background(), memory.New()
	s := newServices(t, b)
	onboard(t, s, "acme", "p", permitAll)
	item, err := b.Get(ctx, storage.Directory(), storage.Key{Kind: "tenant", ID: "acme"})
	must(t, err)
	head, err := b.Head(ctx, storage.Directory())
	must(t, err)
	_, err = b.Commit(ctx, storage.Commit{Partition: storage.Directory(), Incarnation: head.Incarnation,
		Writes: []storage.Write{{Key: storage.Key{Kind: "tenant", ID: "intruder"}, Body: item.Body}}})
	must(t, err)
	_, err = s.Lookup(ctx, "intruder")
	wantKind(t, err, copse.Unavailable)
	wantDecision(t, s, "acme", copse.Allow, "p")
}

// What is kept elsewhere about a tenant can be dropped before a change of it is acknowledged.
func TestChangesAreTold(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx := context.Background()
		p, err := policystore.New(policystore.Config{Backend: b})
		must(t, err)
		var mu sync.Mutex
		var told []copse.TenantID
		service, err := tenant.New(tenant.Config{Backend: b, PolicyStores: p, Changed: func(id copse.TenantID) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, id)
		}})
		must(t, err)
		t.Cleanup(func() {
			must(t, service.Close())
			must(t, p.Close())
		})
		s := services{service, p}
		want := func(what string, ids ...copse.TenantID) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			if diff := cmp.Diff(ids, told); diff != "" {
				t.Fatal(what, diff)
			}
			told = nil
		}
		made := onboard(t, s, "acme", "p", permitAll)
		want("made", "acme")
		if entry, err := s.Lookup(ctx, "acme"); err != nil || !entry.CreatedAt.Equal(made.CreatedAt) || made.CreatedAt.IsZero() {
			t.Fatal(entry, err)
		}
		add(t, s, issuer("https://idp.example.com", "acme"))
		want("an issuer added")
		_, err = s.SetState(ctx, root, "acme", copse.TenantSuspended)
		must(t, err)
		want("suspended", "acme")
		must(t, s.Delete(ctx, root, "acme"))
		want("deleted", "acme")
	})
}
