package tenant_test

import (
	"context"
	"errors"
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

func TestOffboardingRemovesTheTenantFromIssuers(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx, s := context.Background(), newServices(t, b)
		onboard(t, s, "leaving", "p", permitAll)
		onboard(t, s, "staying", "p", permitAll)
		shared := add(t, s, issuer("https://shared.example.com", "leaving", "staying"))
		own := add(t, s, issuer("https://own.example.com", "leaving"))
		in := issuer("https://fixed.example.com", "leaving")
		in.TenantClaim, in.FixedTenant = "", "leaving"
		fixed := add(t, s, in)
		foreign := add(t, s, issuer("https://foreign.example.com", "staying"))
		in = issuer("https://all.example.com")
		in.AllTenants = true
		every := add(t, s, in)

		must(t, s.Delete(ctx, root, "leaving"))
		for url, want := range map[string][]copse.TenantID{shared.URL: {"staying"}, own.URL: nil, foreign.URL: {"staying"}, every.URL: nil} {
			got, err := s.Issuer(ctx, url)
			must(t, err)
			if diff := cmp.Diff(want, got.Tenants); diff != "" {
				t.Fatal(url, diff)
			}
			if got.MaySpeakFor("leaving") != (url == every.URL) {
				t.Fatalf("%s speaks for a tenant that left", url)
			}
			if changed := url == shared.URL || url == own.URL; changed != (got.Revision > every.Revision) {
				t.Fatalf("%s is at revision %d", url, got.Revision)
			}
		}
		_, err := s.Issuer(ctx, fixed.URL)
		wantKind(t, err, copse.NotFound)
		if left := traces(t, b, "leaving"); len(left) > 0 {
			t.Fatalf("left after offboarding: %q", left)
		}
		// A later tenant of the same name is spoken for by nobody who spoke for the former.
		onboard(t, s, "leaving", "p", permitAll)
		if got, err := s.Issuer(ctx, shared.URL); err != nil || got.MaySpeakFor("leaving") {
			t.Fatal(got, err)
		}
	})
}

// Issuers and tenants change while tenants leave. Nothing may name a tenant that is gone.
func TestOffboardingUnderRace(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx := context.Background()
		nodes := []services{newServices(t, b), newServices(t, b)}
		shared := add(t, nodes[0], issuer("https://shared.example.com"))
		var listed, gone atomic.Int64
		for round := range 20 {
			id := copse.TenantID(fmt.Sprintf("leaving-%d-", round))
			onboard(t, nodes[0], id, "p", permitAll)
			var wg sync.WaitGroup
			before := listed.Load()
			for n := range 2 {
				wg.Go(func() {
					for {
						in, err := nodes[n].GetIssuer(ctx, root, shared.ID)
						if err == nil {
							in.Tenants = []copse.TenantID{id}
							_, err = nodes[n].UpdateIssuer(ctx, root, in)
						}
						switch copse.KindOf(err) {
						case copse.Invalid: // the tenant does not exist any more
							return
						case copse.Conflict:
						default:
							if err != nil {
								t.Error(describe(err))
								return
							}
							listed.Add(1)
						}
					}
				})
			}
			wg.Go(func() {
				for _, state := range []copse.TenantState{copse.TenantSuspended, copse.TenantActive, copse.TenantSuspended} {
					_, err := nodes[1].SetState(ctx, root, id, state)
					if err != nil && copse.KindOf(err) != copse.NotFound && copse.KindOf(err) != copse.Conflict {
						t.Error(describe(err))
					}
				}
			})
			eventually(t, "issuer to list the tenant", func() bool { return t.Failed() || listed.Load() > before })
			for {
				err := nodes[round%2].Delete(ctx, root, id)
				if err == nil {
					gone.Add(1)
					break
				}
				if copse.KindOf(err) != copse.Conflict {
					t.Fatal(describe(err))
				}
			}
			wg.Wait()
			eventually(t, "no trace", func() bool { return len(traces(t, b, string(id))) == 0 })
		}
		if listed.Load() < 20 || gone.Load() != 20 {
			t.Fatalf("listed %d times, %d gone", listed.Load(), gone.Load())
		}
	})
}

// Keys of a tenant are made while it leaves. None may be left for the next tenant of that name.
func TestKeysAreNotMadeForATenantThatLeaves(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx, s := context.Background(), newServices(t, b)
		keys, err := access.New(access.Config{Backend: b, MasterKey: masterKey(t)})
		must(t, err)
		t.Cleanup(func() { must(t, keys.Close()) })
		made, rounds := 0, 5
		for range rounds {
			p := onboard(t, s, "acme", "p", permitAll)
			scopes := []access.Scope{{Tenant: "acme"}, {PolicyStore: p.PolicyStoreID}}
			started, counts := make(chan struct{}, len(scopes)), make([]int, len(scopes))
			var wg sync.WaitGroup
			for n, scope := range scopes {
				wg.Go(func() {
					for {
						_, _, err := keys.CreateKey(ctx, root, access.Key{Scope: scope, Verbs: access.Read})
						if err == nil {
							if counts[n]++; counts[n] == 1 {
								started <- struct{}{}
							}
							continue
						}
						switch copse.KindOf(err) {
						case copse.NotFound, copse.QuotaExceeded:
							return
						case copse.Conflict:
						default:
							t.Error(describe(err))
							started <- struct{}{}
							return
						}
					}
				})
			}
			for range scopes {
				<-started
			}
			for {
				err := s.Delete(ctx, root, "acme")
				if err == nil {
					break
				}
				wantKind(t, err, copse.Conflict)
			}
			wg.Wait()
			left, _, err := keys.ListKeys(ctx, root, "", 10)
			must(t, err)
			if len(left) > 0 {
				t.Fatalf("left after offboarding: %+v", left)
			}
			made += counts[0] + counts[1]
		}
		if left := traces(t, b, "acme"); len(left) > 0 {
			t.Fatalf("left after offboarding: %q", left)
		}
		if made < 2*rounds {
			t.Fatalf("only %d keys were made", made)
		}
	})
}

// At every limit a tenant can still be deleted: that is one commit.
func TestTheLargestTenantCanLeave(t *testing.T) {
	ctx, b := context.Background(), memory.New()
	s := newServices(t, b)
	keys, err := access.New(access.Config{Backend: b, MasterKey: masterKey(t)})
	must(t, err)
	t.Cleanup(func() { must(t, keys.Close()) })
	p := onboard(t, s, "acme", "p", permitAll)
	for range copse.MaxKeysPerScope {
		for _, scope := range []access.Scope{{Tenant: "acme"}, {PolicyStore: p.PolicyStoreID}} {
			_, _, err := keys.CreateKey(ctx, root, access.Key{Scope: scope, Verbs: access.Read, Description: strings.Repeat("x", copse.MaxDescriptionBytes)})
			must(t, err)
		}
	}
	large := func(n int) copse.Issuer {
		in := issuer(fmt.Sprintf("https://idp%d.example.com", n), "acme")
		for c := range 1000 {
			in.ClientIDs = append(in.ClientIDs, fmt.Sprintf("%0254d", c))
		}
		return in
	}
	for n := range copse.MaxIssuersPerTenant {
		add(t, s, large(n))
	}
	_, err = s.AddIssuer(ctx, root, issuer("https://more.example.com", "acme"))
	wantKind(t, err, copse.QuotaExceeded, `32 issuers list tenant "acme"`)
	all := issuer("https://all.example.com")
	all.AllTenants = true
	add(t, s, all)
	first, err := s.Issuer(ctx, "https://idp0.example.com")
	must(t, err)
	_, err = s.UpdateIssuer(ctx, root, first) // it is one of the 32
	must(t, err)
	tooLarge := large(0)
	tooLarge.URL, tooLarge.Tenants = "https://large.example.com", nil
	for d := range 1000 {
		tooLarge.EmailDomains = append(tooLarge.EmailDomains, fmt.Sprintf("d%d.example.com", d))
	}
	_, err = s.AddIssuer(ctx, root, tooLarge)
	wantKind(t, err, copse.QuotaExceeded, "at most 262144")
	must(t, s.Delete(ctx, root, "acme"))
	left, _, err := keys.ListKeys(ctx, root, "", 10)
	must(t, err)
	if len(left) > 0 {
		t.Fatalf("%d keys left", len(left))
	}
	eventually(t, "no trace", func() bool { return len(traces(t, b, "acme")) == 0 })
}

// errPulled is what a backend answers after the plug was pulled.
var errPulled = errors.New("the plug was pulled")

// faulty carries out n changes and fails from then on, as a process that died would.
type faulty struct {
	storage.Backend
	left atomic.Int64
}

func (f *faulty) spend() error {
	if f.left.Add(-1) < 0 {
		return errPulled
	}
	return nil
}

func (f *faulty) Commit(ctx context.Context, c storage.Commit) (uint64, error) {
	if err := f.spend(); err != nil {
		return 0, err
	}
	return f.Backend.Commit(ctx, c)
}

func (f *faulty) Fence(ctx context.Context, p storage.Partition, i copse.Incarnation, actor string) error {
	if err := f.spend(); err != nil {
		return err
	}
	return f.Backend.Fence(ctx, p, i, actor)
}

func (f *faulty) Forget(ctx context.Context, p storage.Partition, k storage.Key, upTo uint64) error {
	if err := f.spend(); err != nil {
		return err
	}
	return f.Backend.Forget(ctx, p, k, upTo)
}

func (f *faulty) Erase(ctx context.Context, p storage.Partition, i copse.Incarnation, limit int) (bool, error) {
	if err := f.spend(); err != nil {
		return false, err
	}
	return f.Backend.Erase(ctx, p, i, limit)
}

// dying makes services on a backend that dies after n changes; they are closed when f returns.
func dying(t *testing.T, b storage.Backend, n int64, f func(s services)) {
	t.Helper()
	broken := &faulty{Backend: b}
	broken.left.Store(n)
	p, err := policystore.New(policystore.Config{Backend: broken})
	must(t, err)
	s, err := tenant.New(tenant.Config{Backend: broken, PolicyStores: p})
	must(t, err)
	f(services{s, p})
	must(t, s.Close())
	must(t, p.Close())
}

func TestCrashInOnboarding(t *testing.T) {
	ctx := context.Background()
	for n := range int64(3) {
		b := memory.New()
		s := newServices(t, b)
		onboard(t, s, "other", "p", permitAll)
		dying(t, b, n, func(s services) {
			_, err := s.Create(ctx, root, tenant.NewTenant{ID: "acme", Policies: []policystore.PolicyText{{Name: "p", Statement: permitAll}}})
			if (err == nil) != (n == 2) {
				t.Fatalf("after %d changes: %v", n, err)
			}
		})
		again := newServices(t, b)
		must(t, again.policies.Resume(ctx))
		want := 1
		if n == 2 {
			want = 2
			wantDecision(t, again, "acme", copse.Allow, "p")
		}
		eventually(t, "half-made policy stores to be swept", func() bool {
			heads, err := b.Heads(ctx, "", 10)
			must(t, err)
			return len(heads) == want
		})
		if n < 2 {
			if left := traces(t, b, "acme"); len(left) > 0 {
				t.Fatalf("left: %q", left)
			}
			onboard(t, again, "acme", "p", forbidAll)
			wantDecision(t, again, "acme", copse.Deny, "p")
		}
		wantDecision(t, again, "other", copse.Allow, "p")
	}
}

func TestCrashInOffboarding(t *testing.T) {
	ctx := context.Background()
	finished := 0
	for n := range int64(14) {
		b := memory.New()
		s := newServices(t, b)
		onboard(t, s, "other", "p", permitAll)
		onboard(t, s, "leaving", "p", permitAll)
		shared := add(t, s, issuer("https://shared.example.com", "leaving", "other"))
		dying(t, b, n, func(s services) {
			if err := s.Delete(ctx, root, "leaving"); err == nil {
				finished++
			}
		})
		again := newServices(t, b)
		must(t, again.policies.Resume(ctx))
		if n == 0 {
			wantDecision(t, again, "leaving", copse.Allow, "p")
			continue
		}
		_, err := again.Lookup(ctx, "leaving")
		wantKind(t, err, copse.NotFound)
		// At once a new tenant of that name: its own history must survive what is still to be erased.
		onboard(t, again, "leaving", "new", forbidAll)
		eventually(t, "erasure to be finished", func() bool {
			heads, err := b.Heads(ctx, "", 10)
			must(t, err)
			rows, err := b.Scan(ctx, storage.Directory(), "erasure", "", 10)
			must(t, err)
			return len(heads) == 2 && len(rows) == 0
		})
		wantDecision(t, again, "leaving", copse.Deny, "new")
		wantDecision(t, again, "other", copse.Allow, "p")
		got, err := again.Issuer(ctx, shared.URL)
		must(t, err)
		if got.MaySpeakFor("leaving") {
			t.Fatal("an issuer still speaks for the tenant")
		}
		kept := 0
		rows, err := b.History(ctx, storage.Directory(), 0, 1000)
		must(t, err)
		for _, row := range rows {
			if row.Key == (storage.Key{Kind: "tenant", ID: "leaving"}) {
				kept++
			}
		}
		if kept != 1 {
			t.Fatalf("after %d changes: history has %d rows of the tenant, want the new one's only", n, kept)
		}
	}
	if finished < 4 {
		t.Fatalf("only %d offboardings came to their answer", finished)
	}
}

// A deletion that could not fence the policy store says so, and repeated it is NotFound only when it is fenced.
func TestARepeatedDeletionIsCertain(t *testing.T) {
	b := &noFence{Backend: memory.New()}
	s := newServices(t, b)
	made, err := s.Create(t.Context(), root, tenant.NewTenant{ID: "acme"})
	must(t, err)
	b.refuse.Store(true)
	wantKind(t, s.Delete(t.Context(), root, "acme"), copse.Unavailable, "repeat")
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	wantKind(t, s.Delete(short, root, "acme"), copse.Unavailable)
	b.refuse.Store(false)
	wantKind(t, s.Delete(t.Context(), root, "acme"), copse.NotFound)
	if head, err := b.Head(t.Context(), storage.PolicyStore(made.PolicyStoreID)); err == nil && head.State != storage.Fenced {
		t.Error("said to be gone without a fence")
	}
	wantKind(t, s.Delete(t.Context(), root, "never-was"), copse.NotFound)
}

type noFence struct {
	storage.Backend
	refuse atomic.Bool
}

func (n *noFence) Fence(ctx context.Context, p storage.Partition, i copse.Incarnation, actor string) error {
	if n.refuse.Load() {
		return storage.ErrFailing
	}
	return n.Backend.Fence(ctx, p, i, actor)
}
