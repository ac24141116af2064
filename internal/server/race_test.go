package server_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/copse-authz/copse/internal/api"
)

// population is a thousand tenants in which everything has the same name: users, resources, policies.
// What tells them apart is a number in the text of their one policy, so that an answer from anybody
// else's is the wrong one.
type population struct {
	*site
	idp   *idp
	rooms []*room
	asked atomic.Int64
}

// room is one tenant, and what must be true of it now. One goroutine at a time changes it.
type room struct {
	mu         sync.RWMutex
	name       string
	n          int // which tenant
	generation int // how often it was made
	suspended  bool
	gone       bool
	token      string
	store      string // the policy store's id
	policy     string // the policy's id
}

const (
	populationSize = 1000
	clients        = 32
)

func numbered(n, generation int) map[string]string {
	return map[string]string{"door": fmt.Sprintf(
		`permit (principal == User::"alice", action == Action::"enter", resource == Room::"1") when { context.n == %d && context.generation == %d };`, n, generation)}
}

// question lets in whoever is tenant n in this generation.
func question(n, generation int) string {
	return fmt.Sprintf(`{"action":{"id":"enter"},"resource":{"type":"Room","id":"1"},"context":{"cedarJson":{"n":%d,"generation":%d}}}`, n, generation)
}

// each runs do for every room in a random order, by as many clients as there are.
func (p *population) each(do func(r *room) error) {
	p.t.Helper()
	work := make(chan *room)
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for r := range work {
				if p.t.Failed() {
					continue
				}
				if err := do(r); err != nil {
					p.t.Errorf("tenant %s: %v", r.name, err)
				}
			}
		})
	}
	for _, i := range rand.Perm(len(p.rooms)) {
		work <- p.rooms[i]
	}
	close(work)
	wg.Wait()
	if p.t.Failed() {
		p.t.FailNow()
	}
}

func (p *population) admin(status int, method, path string, body any) (reply, error) {
	r, err := p.try(method, path, body, "Authorization", "Bearer "+p.root)
	if err == nil && r.status != status {
		err = fmt.Errorf("%s %s: got %v, want %d", method, path, r, status)
	}
	return r, err
}

// create makes a room's tenant anew.
func (p *population) create(r *room) error {
	got, err := p.admin(201, "POST", "/v1/tenants", api.CreateTenantRequest{Tenant: r.name, Policies: named(numbered(r.n, r.generation))})
	if err != nil {
		return err
	}
	r.store = decode[api.Tenant](p.t, got).PolicyStoreID
	got, err = p.admin(200, "GET", "/v1/policy-stores/"+r.store+"/contents", nil)
	if err != nil {
		return err
	}
	policies := decode[api.Contents](p.t, got).Policies
	if len(policies) != 1 {
		return fmt.Errorf("it has %d policies", len(policies))
	}
	r.policy = policies[0].PolicyID
	return nil
}

// check asks the tenant's own question, a neighbour's and a former self's.
func (p *population) check(r *room) error {
	for _, c := range []struct {
		n, generation int
		decision      string
	}{{r.n + 1, r.generation, "DENY"}, {r.n, r.generation - 1, "DENY"}, {r.n, r.generation, "ALLOW"}} {
		got, err := p.try("POST", "/v1/authorize", question(c.n, c.generation), "Authorization", "Bearer "+r.token, "X-Copse-Key", p.root)
		if err != nil {
			return err
		}
		p.asked.Add(1)
		if r.suspended || r.gone {
			if got.status != 403 {
				return fmt.Errorf("suspended or gone, but answered %v", got)
			}
			continue
		}
		if got.status != 200 {
			return fmt.Errorf("got %v, want %s", got, c.decision)
		}
		answer := decode[api.AuthorizeResponse](p.t, got)
		if answer.Decision != c.decision || answer.Tenant != r.name || answer.PolicyStoreID != r.store {
			return fmt.Errorf("as %d.%d of %d.%d: got %v, want %s from %s", c.n, c.generation, r.n, r.generation, got, c.decision, r.store)
		}
		if c.decision == "ALLOW" && (len(answer.DeterminingPolicies) != 1 || answer.DeterminingPolicies[0].PolicyID != r.policy) {
			return fmt.Errorf("decided by %v, want by %s", answer.DeterminingPolicies, r.policy)
		}
	}
	return nil
}

// change takes the tenant one step further through its life, and checks that the step shows at once.
func (p *population) change(r *room, step int) error {
	var err error
	switch step % 4 {
	case 0:
		r.suspended = true
		_, err = p.admin(200, "POST", "/v1/tenants/"+r.name+"/suspend", nil)
	case 1:
		r.suspended = false
		_, err = p.admin(200, "POST", "/v1/tenants/"+r.name+"/resume", nil)
	case 2:
		r.gone = true
		_, err = p.admin(204, "DELETE", "/v1/tenants/"+r.name, nil)
	case 3:
		r.gone, r.generation = false, r.generation+1
		r.token = p.idp.token(r.name, "alice") // the former one was for the former tenant
		err = p.create(r)
	}
	if err != nil {
		return err
	}
	return p.check(r)
}

// TestThousandTenants is issue 2's: a thousand tenants with equal ids, made at the same time, each
// decide by their own policies only, also while half of them are suspended, resumed, deleted and made
// again.
func TestThousandTenants(t *testing.T) {
	began := time.Now()
	p := &population{site: start(t), idp: newIDP(t)}
	p.idp.register(p.site, p.idp.registration())
	for i := range populationSize {
		name := fmt.Sprintf("tenant-%d", i)
		p.rooms = append(p.rooms, &room{name: name, n: i, generation: 1, token: p.idp.token(name, "alice")})
	}
	p.each(p.create)
	t.Logf("made after %v", time.Since(began))
	stores, policies := map[string]bool{}, map[string]bool{}
	for _, r := range p.rooms {
		stores[r.store], policies[r.policy] = true, true
	}
	if len(stores) != populationSize || len(policies) != populationSize {
		t.Fatalf("%d policy stores and %d policies for %d tenants", len(stores), len(policies), populationSize)
	}
	p.each(p.check)
	t.Logf("asked after %v", time.Since(began))

	// Every other tenant goes through its life while the rest, and it itself, are asked.
	p.each(func(r *room) error {
		if r.n%2 != 0 {
			return p.check(r)
		}
		for step := range 4 {
			r.mu.Lock()
			err := p.change(r, step)
			r.mu.Unlock()
			if err != nil {
				return fmt.Errorf("step %d: %w", step, err)
			}
			other := p.rooms[rand.IntN(len(p.rooms))]
			other.mu.RLock()
			err = p.check(other)
			other.mu.RUnlock()
			if err != nil {
				return fmt.Errorf("beside step %d of %s: tenant %s: %w", step, r.name, other.name, err)
			}
		}
		return nil
	})
	t.Logf("changed after %v", time.Since(began))
	p.each(p.check)
	if n := p.asked.Load(); n < 10_000 {
		t.Errorf("only %d questions were asked", n)
	}
	p.wantListed()
	t.Logf("%d questions in %v", p.asked.Load(), time.Since(began))
}

// wantListed pages through the directory: every tenant once, with its own policy store, and nothing of
// those that were deleted.
func (p *population) wantListed() {
	p.t.Helper()
	listed := map[string]string{}
	for next := ""; ; {
		page := decode[api.TenantList](p.t, p.must(200, "GET", "/v1/tenants?maxResults=300&nextToken="+next, nil))
		for _, tenant := range page.Tenants {
			listed[tenant.Tenant] = tenant.PolicyStoreID
		}
		if next = page.NextToken; next == "" {
			break
		}
	}
	wrong := slices.DeleteFunc(slices.Clone(p.rooms), func(r *room) bool { return listed[r.name] == r.store })
	if len(listed) != len(p.rooms) || len(wrong) > 0 {
		p.t.Errorf("%d tenants are listed, want %d; %d with another policy store", len(listed), len(p.rooms), len(wrong))
	}
}
