package server_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/server"
)

// dataIn keeps a server's data in a known place.
func dataIn(dir string) func(*server.Config) {
	return func(c *server.Config) { c.DataDir = dir }
}

// traces lists the words that some file of the data directory still holds.
func traces(t *testing.T, dir string, words []string) (found []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "copse.db*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no data in %s: %v", dir, err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range words {
			if bytes.Contains(content, []byte(word)) {
				found = append(found, filepath.Base(file)+" holds "+word)
			}
		}
	}
	return found
}

// wantNoTrace allows the background a moment for what the deletion did not finish by itself.
func wantNoTrace(t *testing.T, dir string, words []string) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		found := traces(t, dir, words)
		if len(found) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("after the deletion: %s", strings.Join(found, "; "))
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestLaw8NothingIsLeftAfterOffboarding(t *testing.T) {
	dir := t.TempDir()
	s, p := start(t, dataIn(dir)), newIDP(t)
	words := []string{"gone-tenant-7f3a", "canary-first-text", "canary-later-text", "canary-name", "CanaryType", "canary-description",
		"canary-user", "canary-loose-text", "canary-key", "canary-member", "canary-role", "canary-invited"}
	const name = "gone-tenant-7f3a"
	neighbour := s.onboard("stays", map[string]string{"view": aliceViews})

	policy := func(text string) []api.PolicyText {
		return []api.PolicyText{{Name: "canary-name", Description: "canary-description",
			Statement: `permit (principal == User::"canary-user", action, resource) when { context.token.sub != "` + text + `" };`}}
	}
	tenant := decode[api.Tenant](t, s.must(201, "POST", "/v1/tenants", api.CreateTenantRequest{
		Tenant: name, Description: "canary-description", Policies: policy("canary-first-text"),
		Settings: &api.Settings{Validation: "OFF"}, Schema: &api.SchemaText{Cedar: "entity CanaryType;"},
	}))
	issuer := p.register(s, p.registration("stays", name))
	s.must(200, "PUT", "/v1/policy-stores/"+tenant.PolicyStoreID+"/contents", api.PutContentsRequest{Policies: policy("canary-later-text")}, "If-Match", "*")
	loose := s.amazon(s.root, "CreatePolicy", fmt.Sprintf(`{"policyStoreId":%q,"definition":{"static":{"statement":"permit(principal,action,resource) when {\"canary-loose-text\"==\"\"};"}}}`, tenant.PolicyStoreID))
	wantStatus(t, loose, 200)
	key := decode[api.CreatedKey](t, s.must(201, "POST", "/v1/keys", api.CreateKeyRequest{
		Description: "canary-key", Scope: api.KeyScope{Tenant: name}, Verbs: []string{"read", "decide"}}))
	for _, tenant := range []string{name, "stays"} {
		s.must(200, "PUT", "/v1/tenants/"+tenant+"/members", api.PutMembersRequest{Members: []api.MemberInput{
			{MemberRef: api.MemberRef{Issuer: p.URL, Subject: "in-both"}, Roles: []string{map[bool]string{true: "canary-role", false: "clerk"}[tenant == name]}}}})
	}
	s.must(200, "PUT", "/v1/tenants/"+name+"/members", api.PutMembersRequest{Members: []api.MemberInput{
		{MemberRef: api.MemberRef{Issuer: p.URL, Subject: "canary-member"}}, {MemberRef: api.MemberRef{Email: "canary-invited@example.com"}}}})
	s.must(200, "POST", "/v1/tenants/"+name+"/suspend", nil)
	s.must(200, "POST", "/v1/tenants/"+name+"/resume", nil)
	user := p.token(name, "canary-user")
	wantDecision(t, s.authorize(user, viewDoc), "ALLOW")
	for _, word := range words {
		if len(traces(t, dir, []string{word})) == 0 {
			t.Fatalf("%s is not on disk before the deletion: the search below proves nothing", word)
		}
	}

	s.must(204, "DELETE", "/v1/tenants/"+name, nil)
	wantStatus(t, s.authorize(user, viewDoc), 403)
	wantNoTrace(t, dir, words)
	for _, path := range []string{"/v1/tenants", "/v1/policy-stores", "/v1/issuers", "/v1/keys"} {
		if r := s.must(200, "GET", path, nil); strings.Contains(r.body, name) || strings.Contains(r.body, tenant.PolicyStoreID) {
			t.Errorf("%s still names it: %v", path, r)
		}
	}
	s.must(404, "GET", "/v1/policy-stores/"+tenant.PolicyStoreID, nil)
	s.must(404, "GET", "/v1/tenants/"+name, nil)
	if list := decode[api.MemberList](t, s.must(200, "GET", "/v1/tenants/stays/members", nil)); len(list.Members) != 1 || list.Members[0].Subject != "in-both" {
		t.Errorf("the neighbour's members are %+v", list.Members)
	}
	s.must(404, "DELETE", "/v1/tenants/"+name, nil)
	if r := s.amazon(s.root, "GetPolicyStore", fmt.Sprintf(`{"policyStoreId":%q}`, tenant.PolicyStoreID)); !strings.Contains(r.body, "ResourceNotFoundException") {
		t.Errorf("GetPolicyStore: %v", r)
	}
	if resp, err := s.http.Get(s.ops + "/metrics"); err != nil {
		t.Fatal(err)
	} else {
		var text bytes.Buffer
		_, _ = text.ReadFrom(resp.Body)
		resp.Body.Close()
		for _, word := range append(words, "stays", neighbour.PolicyStoreID) {
			if strings.Contains(text.String(), word) {
				t.Errorf("the metrics name %s", word)
			}
		}
	}
	wantStatus(t, s.as(key.Credential, "GET", "/v1/tenants/"+name, nil), 401)
	wantDecision(t, s.authorize(p.token("stays", "alice"), viewDoc), "ALLOW")

	// The name may be used again, by somebody who has nothing to do with the former.
	again := s.onboard(name, map[string]string{"view": bobViews})
	if again.PolicyStoreID == tenant.PolicyStoreID {
		t.Error("the new tenant got the former one's policy store")
	}
	wantStatus(t, s.as(key.Credential, "GET", "/v1/tenants/"+name, nil), 401)
	// The issuer was bound to the former tenant. Whether it speaks for this one is for the operator to say.
	wantStatus(t, s.authorize(user, viewDoc), 403)
	issuer.Revision, issuer.Tenants = 0, []string{"stays", name}
	s.must(200, "PUT", "/v1/issuers/"+issuer.ID, issuer)
	wantDecision(t, s.authorize(user, viewDoc), "DENY")
	wantDecision(t, s.authorize(p.token(name, "bob"), viewDoc), "ALLOW")
	// A token that says it is older than the tenant was made for the former one.
	older := p.claims(name, "bob")
	older["iat"] = time.Now().Add(-time.Hour).Unix()
	wantStatus(t, s.authorize(p.key.token(t, nil, older), viewDoc), 403)
}

// Writers that are at it while the tenant is deleted bring nothing back, neither for the next reader
// nor in the file.
func TestLaw8WriteUnderWayBringsNothingBack(t *testing.T) {
	dir := t.TempDir()
	s, p := start(t, dataIn(dir)), newIDP(t)
	p.register(s, p.registration())
	const rounds, writers = 8, 4
	acknowledged := 0
	for round := range rounds {
		word := fmt.Sprintf("racing-canary-%d-", round)
		tenant := s.onboard("raced", map[string]string{"view": aliceViews})
		path := "/v1/policy-stores/" + tenant.PolicyStoreID
		user := p.token("raced", "alice")
		var wrote, deleted atomic.Int64
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() {
				for n := 0; deleted.Load() == 0; n++ {
					statement := fmt.Sprintf(`permit (principal, action, resource) when { "%s%d-%d" != "" };`, word, i, n)
					put := api.PutContentsRequest{Policies: []api.PolicyText{{Name: "view", Statement: statement}}}
					r, err := s.try("PUT", path+"/contents", put, "If-Match", "*", "Authorization", "Bearer "+s.root)
					switch {
					case err != nil:
						t.Error(err)
						return
					case r.status == 200:
						wrote.Add(1)
					case r.status != 404 && r.status != 409 && r.status != 412:
						t.Errorf("a write during the deletion: %v", r)
					}
					_, _ = s.try("POST", "/v1/authorize", viewDoc, "Authorization", "Bearer "+user)
				}
			})
		}
		for wrote.Load() < int64(2*writers) && !t.Failed() {
			time.Sleep(time.Millisecond)
		}
		s.must(204, "DELETE", "/v1/tenants/raced", nil)
		deleted.Store(1)
		// A write answered from here on may be one that was taken before.
		s.must(404, "GET", path, nil)
		wantStatus(t, s.authorize(user, viewDoc), 403)
		wg.Wait()
		s.must(404, "GET", path+"/contents", nil)
		wantStatus(t, s.authorize(user, viewDoc), 403)
		wantNoTrace(t, dir, []string{word})
		acknowledged += int(wrote.Load())
	}
	if acknowledged < rounds*2*writers {
		t.Errorf("only %d writes were acknowledged: nothing raced", acknowledged)
	}
}

// Bob may do nothing under either of these, and everything under the base of the one without the guard of
// the same.
var (
	guarded = []api.PolicyText{
		{Name: "base", Statement: `permit (principal, action, resource);`},
		{Name: "guard", Statement: `forbid (principal == User::"bob", action, resource);`},
	}
	closed = []api.PolicyText{
		{Name: "base", Statement: `permit (principal == User::"nobody", action, resource);`},
		{Name: "other", Statement: `permit (principal == User::"nobody either", action, resource);`},
	}
)

// A reader sees the contents before a replacement or those after it.
func TestLaw10ReadersNeverSeeHalfOfAReplacement(t *testing.T) {
	s, p := start(t), newIDP(t)
	p.register(s, p.registration())
	tenant := decode[api.Tenant](t, s.must(201, "POST", "/v1/tenants", api.CreateTenantRequest{Tenant: "acme", Policies: guarded}))
	contents := "/v1/policy-stores/" + tenant.PolicyStoreID + "/contents"
	first := s.contents(tenant.PolicyStoreID).Revision
	reasonAt := func(revision uint64) string {
		return []string{"denied by policy", "no policy applied"}[(revision-first)%2]
	}
	bob := p.token("acme", "bob")

	const replacements = 150
	var done atomic.Bool
	var decisions, reads atomic.Int64
	var wg sync.WaitGroup
	reader := func(count *atomic.Int64, read func() error) {
		wg.Go(func() {
			for !done.Load() {
				if err := read(); err != nil {
					t.Error(err)
					return
				}
				count.Add(1)
			}
		})
	}
	for range 3 {
		var last uint64
		reader(&decisions, func() error {
			r, err := s.try("POST", "/v1/authorize", viewDoc, "Authorization", "Bearer "+bob)
			if err != nil {
				return err
			}
			got := decode[api.AuthorizeResponse](t, r)
			if r.status != 200 || got.Decision != "DENY" || got.Reason != reasonAt(got.Revision) {
				return fmt.Errorf("bob got %v, want DENY since %s", r, reasonAt(got.Revision))
			}
			if got.Revision < last {
				return fmt.Errorf("decided at revision %d after %d", got.Revision, last)
			}
			last = got.Revision
			return nil
		})
	}
	reader(&reads, func() error {
		r, err := s.try("GET", contents, nil, "Authorization", "Bearer "+s.root)
		if err != nil {
			return err
		}
		got := decode[api.Contents](t, r)
		var names []string
		for _, p := range got.Policies {
			names = append(names, p.Name)
		}
		want := [][]string{{"base", "guard"}, {"base", "other"}}[(got.Revision-first)%2]
		if fmt.Sprint(names) != fmt.Sprint(want) || r.header.Get("Etag") != fmt.Sprintf("%q", fmt.Sprint(got.Revision)) {
			return fmt.Errorf("revision %d (ETag %s) holds %v, want %v", got.Revision, r.header.Get("Etag"), names, want)
		}
		return nil
	})
	revision := first
	for i := range replacements {
		next := closed
		if i%2 == 1 {
			next = guarded
		}
		r := s.must(200, "PUT", contents, api.PutContentsRequest{Policies: next}, "If-Match", fmt.Sprintf("%q", fmt.Sprint(revision)))
		revision = decode[api.ContentsResult](t, r).Revision
		// The answer is out: what it replaced decides no more.
		if got := wantDecision(t, s.authorize(bob, viewDoc), "DENY"); got.Revision != revision || got.Reason != reasonAt(revision) {
			t.Errorf("after the write of revision %d: %+v", revision, got)
		}
	}
	done.Store(true)
	wg.Wait()
	if decisions.Load() < replacements || reads.Load() < replacements/3 {
		t.Errorf("only %d decisions and %d reads beside %d replacements", decisions.Load(), reads.Load(), replacements)
	}
}

// A storage that is gone is 503 on every surface; what is not known is not allowed, and an unknown
// tenant can't be told from a known one.
func TestLaw11WithoutStorageNothingIsAllowed(t *testing.T) {
	// It will complain.
	s, p := start(t, func(c *server.Config) { c.Log = nil }), newIDP(t)
	p.register(s, p.registration())
	tenant := s.onboard("cold", map[string]string{"view": aliceViews})
	s.onboard("warm", map[string]string{"view": aliceViews})
	cold, warm, unknown := p.token("cold", "alice"), p.token("warm", "alice"), p.token("unknown", "alice")
	wantDecision(t, s.authorize(warm, viewDoc), "ALLOW")
	if err := server.CloseBackend(s.Server); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]reply{
		"a cold tenant":     s.authorize(cold, viewDoc),
		"an unknown tenant": s.authorize(unknown, viewDoc),
		"contents":          s.as(s.root, "GET", "/v1/policy-stores/"+tenant.PolicyStoreID+"/contents", nil),
		"a new tenant":      s.as(s.root, "POST", "/v1/tenants", api.CreateTenantRequest{Tenant: "new"}),
		"suspending":        s.as(s.root, "POST", "/v1/tenants/warm/suspend", nil),
		"deleting":          s.as(s.root, "DELETE", "/v1/tenants/warm", nil),
		"a new key":         s.as(s.root, "POST", "/v1/keys", api.CreateKeyRequest{Scope: api.KeyScope{All: true}, Verbs: []string{"read"}}),
		"a stored key":      s.as("copse_"+strings.Repeat("A", 20)+"_"+strings.Repeat("s", 40), "GET", "/v1/tenants", nil),
		"IsAuthorized": s.amazon(s.root, "IsAuthorized", fmt.Sprintf(`{"policyStoreId":%q,"principal":{"entityType":"User","entityId":"alice"},`+
			`"action":{"actionType":"Action","actionId":"view"},"resource":{"entityType":"Doc","entityId":"1"}}`, tenant.PolicyStoreID)),
		"CreatePolicyStore": s.amazon(s.root, "CreatePolicyStore", `{"validationSettings":{"mode":"OFF"}}`),
	} {
		wantStatus(t, r, 503)
		if strings.Contains(r.body, "ALLOW") || strings.Contains(r.body, "storage") {
			t.Errorf("%s: the answer says too much: %v", name, r)
		}
	}
	if r, err := s.http.Get(s.ops + "/readyz"); err != nil || r.StatusCode != 503 {
		t.Errorf("/readyz: %v, %v", r, err)
	} else {
		r.Body.Close()
	}
}

// What was changed on disk behind copse's back, by a failing disk or by somebody, is not decided by.
func TestLaw11DamagedStorageDecidesNothing(t *testing.T) {
	dir, p := t.TempDir(), newIDP(t)
	t.Run("written", func(t *testing.T) {
		s := start(t, dataIn(dir))
		p.register(s, p.registration())
		s.onboard("damaged", map[string]string{"view": `permit (principal == User::"alice-1", action, resource);`})
		s.onboard("whole", map[string]string{"view": aliceViews})
		wantDecision(t, s.authorize(p.token("damaged", "alice-1"), viewDoc), "ALLOW")
	})
	file := filepath.Join(dir, "copse.db")
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.ReplaceAll(content, []byte("alice-1"), []byte("mally-1"))
	if bytes.Equal(changed, content) {
		t.Fatal("the policy is not in the file as text: this test damages nothing")
	}
	if err := os.WriteFile(file, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, dataIn(dir), func(c *server.Config) { c.Log = nil }) // it will complain
	for _, user := range []string{"alice-1", "mally-1"} {
		if r := s.authorize(p.token("damaged", user), viewDoc); r.status < 500 || strings.Contains(r.body, "ALLOW") {
			t.Errorf("%s got %v from a damaged policy store", user, r)
		}
	}
	wantDecision(t, s.authorize(p.token("whole", "alice"), viewDoc), "ALLOW")
}

// Suspended and resumed hold for every decision that starts after the answer, however warm the caches.
func TestLaw11SuspendedAtOnce(t *testing.T) {
	s, p := start(t), newIDP(t)
	s.onboard("acme", map[string]string{"view": aliceViews})
	p.register(s, p.registration())
	alice := p.token("acme", "alice")
	var done atomic.Bool
	var wg sync.WaitGroup
	for range 2 { // keep every cache warm, and loads under way
		wg.Go(func() {
			for !done.Load() {
				_, _ = s.try("POST", "/v1/authorize", viewDoc, "Authorization", "Bearer "+alice)
			}
		})
	}
	for range 50 {
		s.must(200, "POST", "/v1/tenants/acme/suspend", nil)
		wantStatus(t, s.authorize(alice, viewDoc), 403)
		s.must(200, "POST", "/v1/tenants/acme/resume", nil)
		wantDecision(t, s.authorize(alice, viewDoc), "ALLOW")
	}
	done.Store(true)
	wg.Wait()
}

// A restart forgets nothing: tenants and their states, policies, issuers and keys are as they were, at
// the same revision.
func TestLaw10RestartKeepsEverything(t *testing.T) {
	dir, p := t.TempDir(), newIDP(t)
	var root, key, contents string
	var tenant api.Tenant
	t.Run("before", func(t *testing.T) {
		s := start(t, dataIn(dir))
		tenant = s.onboard("acme", map[string]string{"view": aliceViews}, docSchema)
		s.onboard("suspended", map[string]string{"view": aliceViews})
		s.onboard("gone", nil)
		s.must(200, "POST", "/v1/tenants/suspended/suspend", nil)
		s.must(204, "DELETE", "/v1/tenants/gone", nil)
		p.register(s, p.registration())
		root, key = s.root, s.key(api.KeyScope{Tenant: "acme"}, "read")
		contents = s.as(key, "GET", "/v1/policy-stores/"+tenant.PolicyStoreID+"/contents", nil).body
		wantDecision(t, s.authorize(p.token("acme", "alice"), viewDoc), "ALLOW")
	})
	s := start(t, dataIn(dir))
	if s.root != root {
		t.Error("there is another root key")
	}
	if after := s.as(key, "GET", "/v1/policy-stores/"+tenant.PolicyStoreID+"/contents", nil); after.status != 200 || after.body != contents {
		t.Errorf("the contents were\n%s\nand are\n%v", contents, after)
	}
	wantDecision(t, s.authorize(p.token("acme", "alice"), viewDoc), "ALLOW")
	wantDecision(t, s.authorize(p.token("acme", "bob"), viewDoc), "DENY")
	wantStatus(t, s.authorize(p.token("suspended", "alice"), viewDoc), 403)
	wantStatus(t, s.authorize(p.token("gone", "alice"), viewDoc), 403)
	if list := decode[api.TenantList](t, s.must(200, "GET", "/v1/tenants", nil)); len(list.Tenants) != 2 {
		t.Errorf("tenants: %v", list)
	}
}
