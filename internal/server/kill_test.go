package server_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/copse-authz/copse/internal/api"
)

const (
	killDirectories = 4
	killWriters     = 3 // per directory
	tenantsOfWriter = 3
)

// TestServerKilledInMidWrite runs the real binary, writes to it over HTTP, kills it, and starts it again
// on what it left: nothing it had acknowledged is lost, nothing is half there, nothing deleted is back.
func TestServerKilledInMidWrite(t *testing.T) {
	t.Parallel() // most of its work is done by other processes
	kills := 45
	if os.Getenv("COPSE_LONG") == "1" {
		kills = 300
	}
	binary := buildCopse(t)
	p := newIDP(t)
	var counts killCounts
	var wg sync.WaitGroup
	for d := range killDirectories {
		wg.Go(func() {
			v := &victim{t: t, binary: binary, dir: t.TempDir(), idp: p, counts: &counts, rand: rand.New(rand.NewPCG(11, uint64(d)))}
			for i := range killWriters * tenantsOfWriter {
				v.tenants = append(v.tenants, &fact{name: fmt.Sprintf("tenant-%d", i)})
			}
			for counts.kills.Load() < int64(kills) && !t.Failed() {
				if err := v.live(); err != nil {
					t.Errorf("directory %d: %v", d, err)
				}
			}
			if err := v.retire(); err != nil && !t.Failed() {
				t.Errorf("directory %d, in the end: %v", d, err)
			}
		})
	}
	wg.Wait()
	t.Logf("%d kills, %d of them in mid-write; %d writes acknowledged, %d of them deletions; of those not answered %d were done, %d not",
		counts.kills.Load(), counts.midWrite.Load(), counts.acknowledged.Load(), counts.deleted.Load(), counts.done.Load(), counts.undone.Load())
	if n := int64(kills); counts.kills.Load() < n || counts.midWrite.Load() < n/2 || counts.acknowledged.Load() < 5*n ||
		counts.deleted.Load() < n/2 || counts.done.Load() < n/10 {
		t.Error("too little happened to prove anything")
	}
}

type killCounts struct {
	kills, midWrite, acknowledged, deleted, done, undone atomic.Int64
}

// victim is a data directory, the process that serves it, and what is known of its tenants.
type victim struct {
	t      *testing.T
	binary string
	dir    string
	idp    *idp
	counts *killCounts
	rand   *rand.Rand // of live; writers have their own

	process *process
	client  *caller
	lived   bool
	tenants []*fact
}

// state is a tenant as it can be seen from outside: the zero state does not exist.
type state struct {
	store   string   // policy store id, "?" for one not known yet
	version int      // of its contents, which all policies and the schema bear
	loose   []string // ids of policies without a name, "?" for one not known yet
}

func (s state) String() string {
	return fmt.Sprintf("%q version %d loose %q", s.store, s.version, s.loose)
}

// is reports whether a state that was seen is the one that was meant.
func (s state) is(meant state) bool {
	if s.store != meant.store && (meant.store != "?" || s.store == "") || s.version != meant.version {
		return false
	}
	unknown := slices.Contains(meant.loose, "?")
	for _, id := range meant.loose {
		if id != "?" && !slices.Contains(s.loose, id) {
			return false
		}
	}
	return len(s.loose) == len(meant.loose) && (unknown || slices.Equal(s.loose, meant.loose))
}

// fact is what is known of one tenant: what was acknowledged, and what it may be instead since the last
// call got no answer. One writer at a time works on it.
type fact struct {
	name    string
	now     state
	pending *state
	next    int      // version to write next; none is written twice
	gone    []string // policy stores it had
}

// live is one life: start, look at what the life before left, write, die.
func (v *victim) live() error {
	if err := v.start(); err != nil {
		return err
	}
	if err := v.examine(); err != nil {
		return errors.Join(err, v.kill())
	}
	acknowledged := make(chan struct{}, 1000)
	failed := make(chan error, killWriters)
	for i := range killWriters {
		mine := v.tenants[i*tenantsOfWriter : (i+1)*tenantsOfWriter]
		seed := v.rand.Uint64()
		go func() { failed <- v.write(mine, rand.New(rand.NewPCG(seed, 0)), acknowledged) }()
	}
	tired := time.After(30 * time.Second)
	for range 3 + v.rand.IntN(12) {
		select {
		case <-acknowledged:
		case <-tired:
			return errors.Join(errors.New("too little was acknowledged in 30 s"), v.kill())
		}
	}
	time.Sleep(time.Duration(v.rand.IntN(10_000)) * time.Microsecond)
	errs := []error{v.kill()}
	for range killWriters {
		errs = append(errs, <-failed)
	}
	v.counts.kills.Add(1)
	if slices.ContainsFunc(v.tenants, func(f *fact) bool { return f.pending != nil }) {
		v.counts.midWrite.Add(1)
	}
	return errors.Join(errs...)
}

// retire looks at what the last life left, and ends the process in the clean way.
func (v *victim) retire() error {
	if err := v.start(); err != nil {
		return err
	}
	if err := v.examine(); err != nil {
		return errors.Join(err, v.kill())
	}
	if err := v.process.signal(os.Interrupt); err != nil {
		return err
	}
	if err := v.process.Wait(); err != nil {
		return fmt.Errorf("interrupted: %w", err)
	}
	return nil
}

func (v *victim) start() error {
	var err error
	v.process, err = launch(v.t.Output(), v.binary, "--data", v.dir, "--ops-listen", "", "--drain-delay", "0s",
		"--allow-private-issuers", "--allow-http-issuers", "--log-level", "error", "--decision-log=false")
	if err == nil {
		v.client = newCaller(v.t, v.process.url, v.process.root())
	}
	return err
}

func (v *victim) kill() error {
	if v.client != nil {
		defer v.client.http.CloseIdleConnections()
	}
	return v.process.kill()
}

// write changes tenants at random until the server is gone. What got no answer stays pending.
func (v *victim) write(mine []*fact, random *rand.Rand, acknowledged chan<- struct{}) error {
	for {
		f := mine[random.IntN(len(mine))]
		meant, status, r, err := v.step(f, random)
		if err != nil {
			f.pending = &meant
			return nil
		}
		if r.status != status {
			return fmt.Errorf("%s from %v to %v: got %v, want %d", f.name, f.now, meant, r, status)
		}
		v.counts.acknowledged.Add(1)
		if meant.store == "" {
			f.gone = append(f.gone, f.now.store)
			v.counts.deleted.Add(1)
		}
		if meant.store == "?" {
			meant.store = decode[api.Tenant](v.t, r).PolicyStoreID
		}
		if i := slices.Index(meant.loose, "?"); i >= 0 {
			meant.loose[i] = regexp.MustCompile(`"policyId":"([^"]+)"`).FindStringSubmatch(r.body)[1]
			slices.Sort(meant.loose)
		}
		f.now = meant
		select {
		case acknowledged <- struct{}{}:
		default: // nobody counts any more
		}
	}
}

// step makes one call: what it means, the status it must have, and its answer if there is one.
func (v *victim) step(f *fact, random *rand.Rand) (meant state, status int, r reply, err error) {
	root := []string{"Authorization", "Bearer " + v.client.root}
	amazon := append([]string{"Content-Type", "application/x-amz-json-1.0", "X-Amz-Target"}, "")
	meant = f.now
	meant.loose = slices.Clone(f.now.loose)
	switch choice := random.IntN(10); {
	case f.now.store == "":
		f.next++
		meant = state{store: "?", version: f.next}
		schema, policies := versioned(f.next)
		r, err = v.client.try("POST", "/v1/tenants", api.CreateTenantRequest{Tenant: f.name, Schema: schema, Policies: policies}, root...)
		return meant, 201, r, err
	case choice < 5:
		f.next++
		meant.version = f.next
		schema, policies := versioned(f.next)
		r, err = v.client.try("PUT", "/v1/policy-stores/"+f.now.store+"/contents", api.PutContentsRequest{Schema: schema, Policies: policies},
			append(root, "If-Match", "*")...)
		return meant, 200, r, err
	case choice < 7:
		meant.loose = append(meant.loose, "?")
		amazon[3] = "VerifiedPermissions.CreatePolicy"
		r, err = v.client.try("POST", "/", map[string]any{"policyStoreId": f.now.store, "definition": map[string]any{
			"static": map[string]string{"statement": `permit (principal == User::"bob", action == Action::"view", resource);`}}}, append(root, amazon...)...)
		return meant, 200, r, err
	case choice < 8 && len(meant.loose) > 0:
		id := meant.loose[0]
		meant.loose = meant.loose[1:]
		amazon[3] = "VerifiedPermissions.DeletePolicy"
		r, err = v.client.try("POST", "/", map[string]string{"policyStoreId": f.now.store, "policyId": id}, append(root, amazon...)...)
		return meant, 200, r, err
	default:
		r, err = v.client.try("DELETE", "/v1/tenants/"+f.name, nil, root...)
		return state{}, 204, r, err
	}
}

// versioned is contents of which every part bears the version.
func versioned(version int) (*api.SchemaText, []api.PolicyText) {
	schema := fmt.Sprintf(`entity User; entity Doc; entity Version%d; action view appliesTo { principal: User, resource: Doc, context: { v: Long } };`, version)
	var policies []api.PolicyText
	for i := range 2 + version%3 {
		policies = append(policies, api.PolicyText{Name: fmt.Sprintf("policy-%d", i), Statement: fmt.Sprintf(
			`permit (principal == User::"alice", action == Action::"view", resource == Doc::"%d") when { context.v == %d };`, i, version)})
	}
	return &api.SchemaText{Cedar: schema}, policies
}

// examine compares what the server has with what is known, and takes over what it finds where two things
// were possible.
func (v *victim) examine() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if !v.lived {
		v.lived = true
		in := v.idp.registration()
		r, err := v.client.try("POST", "/v1/issuers", in, "Authorization", "Bearer "+v.client.root)
		if err != nil || r.status != 201 {
			return fmt.Errorf("registering the issuer: %v, %w", r, err)
		}
	}
	listed, err := v.listed()
	if err != nil {
		return err
	}
	stores := 0
	for _, f := range v.tenants {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		seen, err := v.see(f, listed[f.name])
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if seen.store != "" {
			stores++
		}
		wasDone := f.pending != nil && seen.is(*f.pending)
		switch {
		case wasDone:
			v.counts.done.Add(1)
			if seen.store == "" {
				f.gone = append(f.gone, f.now.store)
			}
		case !seen.is(f.now):
			return fmt.Errorf("%s: acknowledged was %v, under way %v, found is %v", f.name, f.now, f.pending, seen)
		case f.pending != nil:
			v.counts.undone.Add(1)
		}
		f.now, f.pending = seen, nil
		for _, id := range f.gone {
			r, err := v.client.try("GET", "/v1/policy-stores/"+id, nil, "Authorization", "Bearer "+v.client.root)
			if err != nil || r.status != 404 {
				return fmt.Errorf("%s: policy store %s was deleted and is %v (%w)", f.name, id, r, err)
			}
		}
		f.gone = f.gone[max(0, len(f.gone)-3):]
	}
	if len(listed) != stores {
		return fmt.Errorf("%d tenants are listed, %d are known", len(listed), stores)
	}
	return v.wantPolicyStores(listed)
}

// listed is the directory: tenant to policy store.
func (v *victim) listed() (map[string]string, error) {
	r, err := v.client.try("GET", "/v1/tenants?maxResults=500", nil, "Authorization", "Bearer "+v.client.root)
	if err != nil || r.status != 200 {
		return nil, fmt.Errorf("listing tenants: %v, %w", r, err)
	}
	out := map[string]string{}
	for _, tenant := range decode[api.TenantList](v.t, r).Tenants {
		out[tenant.Tenant] = tenant.PolicyStoreID
	}
	return out, nil
}

// wantPolicyStores holds the list of policy stores against the directory: no tenant without its own, none
// without a tenant.
func (v *victim) wantPolicyStores(listed map[string]string) error {
	r, err := v.client.try("GET", "/v1/policy-stores?maxResults=500", nil, "Authorization", "Bearer "+v.client.root)
	if err != nil || r.status != 200 {
		return fmt.Errorf("listing policy stores: %v, %w", r, err)
	}
	found := decode[api.PolicyStoreList](v.t, r).PolicyStores
	for _, ps := range found {
		if listed[ps.Tenant] != ps.PolicyStoreID {
			return fmt.Errorf("policy store %s says it is %q's, whose is %q", ps.PolicyStoreID, ps.Tenant, listed[ps.Tenant])
		}
	}
	if len(found) != len(listed) {
		return fmt.Errorf("%d policy stores for %d tenants", len(found), len(listed))
	}
	return nil
}

var versionInText = regexp.MustCompile(`Version(\d+)|context\.v == (\d+)`)

// see reads a tenant's contents and asks for decisions; the two have to agree, and every part has to be
// of one version.
func (v *victim) see(f *fact, store string) (state, error) {
	token := v.idp.token(f.name, "alice")
	if store == "" {
		return state{}, v.ask(token, 0, 0, 403, "")
	}
	r, err := v.client.try("GET", "/v1/policy-stores/"+store+"/contents", nil, "Authorization", "Bearer "+v.client.root)
	if err != nil || r.status != 200 {
		return state{}, fmt.Errorf("contents: %v, %w", r, err)
	}
	contents := decode[api.Contents](v.t, r)
	if contents.Schema == nil {
		return state{}, errors.New("the schema is missing")
	}
	seen, named := state{store: store}, 0
	text := contents.Schema.Cedar
	for _, p := range contents.Policies {
		if p.Name == "" {
			seen.loose = append(seen.loose, p.PolicyID)
			continue
		}
		named++
		text += p.Statement
	}
	slices.Sort(seen.loose)
	for _, found := range versionInText.FindAllStringSubmatch(text, -1) {
		n, err := strconv.Atoi(found[1] + found[2])
		if err != nil || seen.version != 0 && n != seen.version {
			return state{}, fmt.Errorf("parts of version %d and %d: %s", seen.version, n, text)
		}
		seen.version = n
	}
	if want := 2 + seen.version%3; named != want {
		return state{}, fmt.Errorf("version %d has %d named policies, want %d", seen.version, named, want)
	}
	return seen, errors.Join(v.ask(token, 0, seen.version, 200, "ALLOW"), v.ask(token, named-1, seen.version, 200, "ALLOW"),
		v.ask(token, named, seen.version, 200, "DENY"), v.ask(token, 0, seen.version-1, 200, "DENY"))
}

func (v *victim) ask(token string, doc, version, status int, decision string) error {
	body := fmt.Sprintf(`{"action":{"id":"view"},"resource":{"type":"Doc","id":"%d"},"context":{"cedarJson":{"v":%d}}}`, doc, version)
	r, err := v.client.try("POST", "/v1/authorize", body, "Authorization", "Bearer "+token)
	if err == nil && (r.status != status || !strings.Contains(r.body, decision)) {
		err = fmt.Errorf("asked with version %d about document %d: got %v, want %d %s", version, doc, r, status, decision)
	}
	return err
}
