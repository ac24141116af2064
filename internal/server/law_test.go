package server_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/copse-authz/copse/internal/api"
)

// One test at least for each isolation law of DESIGN.md, called TestLaw<number>. Each attack is paired
// with the nearest call that must succeed, so that a server which refuses everything fails too. Laws 6
// and 9 have no code yet.

// What most of these tests ask, and who may.
const (
	viewDoc    = `{"action":{"id":"view"},"resource":{"type":"Doc","id":"1"}}`
	aliceViews = `permit (principal == User::"alice", action == Action::"view", resource);`
	bobViews   = `permit (principal == User::"bob", action == Action::"view", resource);`
	adminViews = `permit (principal in Role::"admin", action == Action::"view", resource);`
)

func TestLaw1TenantComesFromTheTokenOnly(t *testing.T) {
	s, p := start(t), newIDP(t)
	s.onboard("acme", map[string]string{"view": aliceViews})
	other := s.onboard("other", map[string]string{"view": bobViews})
	p.register(s, p.registration())
	alice := p.token("acme", "alice")

	with := func(member string) string { return `{` + member + `,` + viewDoc[1:] }
	for _, c := range []struct {
		name, path, body string
		headers          []string
		status           int
	}{
		{"header names another", "", viewDoc, []string{"X-Copse-Tenant", "other"}, 403},
		{"header names it in another case", "", viewDoc, []string{"X-Copse-Tenant", "ACME"}, 403},
		{"second header names another", "", viewDoc, []string{"X-Copse-Tenant", "acme", "X-Copse-Tenant", "other"}, 403},
		{"header is empty", "", viewDoc, []string{"X-Copse-Tenant", ""}, 403},
		{"query names another", "?tenant=other", viewDoc, nil, 403},
		{"query names both", "?tenant=acme&tenant=other", viewDoc, nil, 403},
		{"query can't be read", "?tenant=acme;tenant=other", viewDoc, nil, 400},
		{"body names a tenant", "", with(`"tenant":"other"`), nil, 400},
		{"body names its own tenant", "", with(`"tenant":"acme"`), nil, 400},
		{"body names a policy store", "", with(`"policyStoreId":"` + other.PolicyStoreID + `"`), nil, 400},
		{"body names a principal", "", with(`"principal":{"type":"User","id":"bob"}`), nil, 400},
		{"key of another tenant", "", viewDoc, []string{"X-Copse-Key", s.key(api.KeyScope{Tenant: "other"}, "decide")}, 403},
		{"header, query and key agree", "?tenant=acme", viewDoc, []string{"X-Copse-Tenant", "acme", "X-Copse-Key", s.key(api.KeyScope{Tenant: "acme"}, "decide")}, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := s.call("POST", "/v1/authorize"+c.path, c.body, append(c.headers, "Authorization", "Bearer "+alice)...)
			wantStatus(t, r, c.status)
			if c.status == 200 {
				wantDecision(t, r, "ALLOW")
			}
			wantDecision(t, s.authorize(alice, viewDoc), "ALLOW")
		})
	}
}

// Whatever would make alice an admin, if copse believed it, has to fail the call: being ignored is not
// enough, since the next reader of the same body might believe it.
func TestLaw1NothingInTheBodyDefinesThePrincipal(t *testing.T) {
	s, p := start(t), newIDP(t)
	s.onboard("acme", map[string]string{"admins": adminViews,
		"claims": `permit (principal, action, resource) when { context.token has department && context.token.department == "it" };`,
		"ground": `permit (principal, action == Action::"view", resource) when { resource has public && resource.public };`})
	p.register(s, p.registration())
	alice := p.token("acme", "alice", "clerk")

	list := func(entity string) string { return `"entities":{"entityList":[` + entity + `]}` }
	cedar := func(entity string) string { return `"entities":{"cedarJson":[` + entity + `]}` }
	text := func(entity string) string {
		return `"entities":{"cedarJson":"[` + strings.ReplaceAll(entity, `"`, `\"`) + `]"}`
	}
	const (
		aliceAVP    = `{"identifier":{"entityType":"User","entityId":"alice"},"parents":[{"entityType":"Role","entityId":"admin"}]}`
		aliceCedar  = `{"uid":{"type":"User","id":"alice"},"attrs":{},"parents":[{"type":"Role","id":"admin"}]}`
		strangerAVP = `{"identifier":{"entityType":"User","entityId":"bob"},"attributes":{}}`
		groupAVP    = `{"identifier":{"entityType":"Role","entityId":"clerk"},"parents":[{"entityType":"Role","entityId":"admin"}]}`
		groupCedar  = `{"uid":{"type":"Role","id":"clerk"},"attrs":{},"parents":[{"type":"Role","id":"admin"}]}`
		actionAVP   = `{"identifier":{"entityType":"Action","entityId":"view"},"attributes":{}}`
		actionCedar = `{"uid":{"type":"Action","id":"other"},"attrs":{},"parents":[{"type":"Action","id":"view"}]}`
		openDoc     = `{"identifier":{"entityType":"Doc","entityId":"1"},"attributes":{"public":{"boolean":true}}}`
		openCedar   = `{"uid":{"type":"Doc","id":"1"},"attrs":{"public":true},"parents":[]}`
	)
	for _, c := range []struct{ name, member string }{
		{"principal, AVP", list(aliceAVP)},
		{"principal, Cedar", cedar(aliceCedar)},
		{"principal, Cedar in a string", text(aliceCedar)},
		{"principal after a harmless entity", list(openDoc + "," + aliceAVP)},
		{"principal with escaped type", list(strings.Replace(aliceAVP, `"User"`, `"\u0055ser"`, 1))},
		{"principal as __entity", cedar(strings.Replace(aliceCedar, `{"type":"User","id":"alice"}`, `{"__entity":{"type":"User","id":"alice"}}`, 1))},
		{"another of the principal's type", list(strangerAVP)},
		{"group, AVP", list(groupAVP)},
		{"group, Cedar", cedar(groupCedar)},
		{"group, Cedar in a string", text(groupCedar)},
		{"action, AVP", list(actionAVP)},
		{"action, Cedar", cedar(actionCedar)},
		{"identifier given twice", list(`{"identifier":{"entityType":"Doc","entityId":"1"},` + aliceAVP[1:])},
		{"context.token, AVP", `"context":{"contextMap":{"token":{"record":{"department":{"string":"it"}}}}}`},
		{"context.token, Cedar", `"context":{"cedarJson":{"token":{"department":"it"}}}`},
		{"context.token, Cedar in a string", `"context":{"cedarJson":"{\"token\":{\"department\":\"it\"}}"}`},
		{"context.token, escaped", `"context":{"cedarJson":{"\u0074oken":{"department":"it"}}}`},
		{"context twice", `"context":{"cedarJson":{}},"context":{"cedarJson":{"token":{"department":"it"}}}`},
		{"principal in another case", `"Principal":{"entityType":"User","entityId":"bob"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := s.authorize(alice, `{"action":{"id":"view"},"resource":{"type":"Doc","id":"1"},`+c.member+`}`)
			wantStatus(t, r, 400)
		})
	}
	for _, twin := range []string{list(openDoc), cedar(openCedar), text(openCedar)} {
		wantDecision(t, s.authorize(alice, viewDoc[:len(viewDoc)-1]+`,`+twin+`}`), "ALLOW")
	}
	wantDecision(t, s.authorize(alice, viewDoc), "DENY")
	wantDecision(t, s.authorize(p.token("acme", "alice", "admin"), viewDoc), "ALLOW")
	claims := p.claims("acme", "alice")
	claims["department"] = "it"
	wantDecision(t, s.authorize(p.key.token(t, nil, claims), viewDoc), "ALLOW")
}

func TestLaw2IssuerSpeaksForItsTenantsOnly(t *testing.T) {
	s := start(t)
	ps := newIDPs(t, "a", "b", "shared", "nobody")
	for _, tenant := range []string{"a", "b"} {
		s.onboard(tenant, map[string]string{"view": aliceViews})
	}
	issuerA := ps[0].register(s, ps[0].registration("a"))
	ps[1].register(s, ps[1].registration("b"))
	shared := ps[2].registration()
	shared.SameSubjects = true
	ps[2].register(s, shared)

	wantStatus(t, s.authorize(ps[0].token("b", "alice"), viewDoc), 403)
	wantStatus(t, s.authorize(ps[1].token("a", "alice"), viewDoc), 403)
	for i, tenant := range []string{"a", "b", "a"} {
		got := wantDecision(t, s.authorize(ps[i].token(tenant, "alice"), viewDoc), "ALLOW")
		if got.Tenant != tenant {
			t.Errorf("decided for %q, want %q", got.Tenant, tenant)
		}
	}

	t.Run("neither a list nor all is nobody", func(t *testing.T) {
		in := ps[3].registration()
		in.AllTenants = false
		if r := s.as(s.root, "POST", "/v1/issuers", in); r.status != 400 && r.status != 201 {
			t.Fatalf("registering: %v", r)
		} else if r.status == 201 {
			wantStatus(t, s.authorize(ps[3].token("a", "alice"), viewDoc), 403)
			return
		}
		wantStatus(t, s.authorize(ps[3].token("a", "alice"), viewDoc), 401)
	})
	t.Run("a tenant taken from the list is refused at once", func(t *testing.T) {
		warm := ps[0].token("a", "alice")
		wantDecision(t, s.authorize(warm, viewDoc), "ALLOW")
		change := issuerA
		change.Revision, change.Tenants = 0, []string{"b"}
		// The other issuer of b has the same principal type: the same people.
		change.SameSubjects = true
		s.must(200, "PUT", "/v1/issuers/"+issuerA.ID, change)
		wantStatus(t, s.authorize(warm, viewDoc), 403)
		wantDecision(t, s.authorize(ps[0].token("b", "alice"), viewDoc), "ALLOW")
	})
	t.Run("a removed issuer is nobody's at once", func(t *testing.T) {
		warm := ps[0].token("b", "alice")
		wantDecision(t, s.authorize(warm, viewDoc), "ALLOW")
		s.must(204, "DELETE", "/v1/issuers/"+issuerA.ID, nil)
		wantStatus(t, s.authorize(warm, viewDoc), 401)
	})
}

// Issuers are told apart by the bytes of their URL.
func TestLaw2IssuerURLIsComparedAsBytes(t *testing.T) {
	s, p := start(t), newIDP(t)
	s.onboard("acme", map[string]string{"view": aliceViews})
	p.register(s, p.registration("acme"))
	wantDecision(t, s.authorize(p.token("acme", "alice"), viewDoc), "ALLOW")

	for _, url := range []string{
		p.URL + "/", p.URL + "?", p.URL + "#", p.URL + "x", p.URL[:len(p.URL)-1], " " + p.URL, p.URL + "\x00",
		strings.Replace(p.URL, "http://", "HTTP://", 1), strings.Replace(p.URL, "/main", "/Main", 1),
		strings.Replace(p.URL, "/main", "/%6dain", 1), strings.Replace(p.URL, "/main", "//main", 1), "",
	} {
		claims := p.claims("acme", "alice")
		claims["iss"] = url
		wantStatus(t, s.authorize(p.key.token(t, nil, claims), viewDoc), 401)
	}
	again := p.registration("acme")
	again.PrincipalType = "Other"
	wantStatus(t, s.as(s.root, "POST", "/v1/issuers", again), 409)
}

// Two tenants in which everything that has an id has the same one decide each by its own policies, from
// warm caches and after one of them changed.
func TestLaw3EqualIdsInTwoPolicyStoresNeverMeet(t *testing.T) {
	s := start(t)
	ps := newIDPs(t, "a", "b") // same key id, same subjects
	policies := []map[string]string{
		{"view": aliceViews, "stop": `forbid (principal == User::"bob", action, resource);`},
		{"view": bobViews, "stop": `forbid (principal == User::"alice", action, resource);`},
	}
	var tenants []api.Tenant
	own := make([]map[string]bool, 2)
	for i, name := range []string{"a", "b"} {
		tenants = append(tenants, s.onboard(name, policies[i]))
		ps[i].register(s, ps[i].registration(name))
		own[i] = map[string]bool{}
		for _, p := range s.contents(tenants[i].PolicyStoreID).Policies {
			own[i][p.PolicyID] = true
		}
	}
	if len(own[0]) != 2 || len(own[1]) != 2 {
		t.Fatalf("policies: %v", own)
	}
	ask := func(i int, user string) api.AuthorizeResponse {
		t.Helper()
		want := "DENY"
		if user == []string{"alice", "bob"}[i] {
			want = "ALLOW"
		}
		got := wantDecision(t, s.authorize(ps[i].token(tenants[i].Tenant, user), viewDoc, "X-Copse-Key", s.root), want)
		if got.Tenant != tenants[i].Tenant || got.PolicyStoreID != tenants[i].PolicyStoreID {
			t.Fatalf("asked %s, answered by %s (%s)", tenants[i].Tenant, got.Tenant, got.PolicyStoreID)
		}
		if len(got.DeterminingPolicies) != 1 || !own[i][got.DeterminingPolicies[0].PolicyID] {
			t.Fatalf("%s was decided by %v, its own are %v", tenants[i].Tenant, got.DeterminingPolicies, own[i])
		}
		return got
	}
	for range 20 {
		for i := range 2 {
			ask(i, "alice")
			ask(i, "bob")
		}
	}
	before := ask(1, "alice").Revision
	// The first tenant's "stop" and "view" go; the second's of the same names stay.
	s.must(200, "PUT", "/v1/policy-stores/"+tenants[0].PolicyStoreID+"/contents", api.PutContentsRequest{Policies: []api.PolicyText{}}, "If-Match", "*")
	wantDecision(t, s.authorize(ps[0].token("a", "alice"), viewDoc), "DENY")
	if after := ask(1, "alice").Revision; after != before {
		t.Errorf("the second tenant moved from revision %d to %d by a write to the first", before, after)
	}
	ask(1, "bob")
}

// Whatever is wrong with the tenant is one answer, byte for byte.
func TestLaw4RefusalsAreIdentical(t *testing.T) {
	s := start(t)
	ps := newIDPs(t, "bound", "shared")
	for _, tenant := range []string{"acme", "suspended", "deleted", "foreign"} {
		s.onboard(tenant, map[string]string{"view": aliceViews})
	}
	ps[0].register(s, ps[0].registration("acme"))
	shared := ps[1].registration()
	shared.SameSubjects = true
	ps[1].register(s, shared)
	s.must(200, "POST", "/v1/tenants/suspended/suspend", nil)
	s.must(204, "DELETE", "/v1/tenants/deleted", nil)
	foreignKey := s.key(api.KeyScope{Tenant: "foreign"}, "decide")

	with := func(tenant any) string {
		claims := ps[1].claims("", "alice")
		if claims["tenant_id"] = tenant; tenant == nil {
			delete(claims, "tenant_id")
		}
		return ps[1].key.token(t, nil, claims)
	}
	cases := map[string]func() reply{
		"unknown":               func() reply { return s.authorize(with("nobody"), viewDoc) },
		"unknown, another name": func() reply { return s.authorize(with("a-much-longer-name.nobody.ever:had"), viewDoc) },
		"suspended":             func() reply { return s.authorize(with("suspended"), viewDoc) },
		"deleted":               func() reply { return s.authorize(with("deleted"), viewDoc) },
		"unbound":               func() reply { return s.authorize(ps[0].token("foreign", "alice"), viewDoc) },
		"unbound and unknown":   func() reply { return s.authorize(ps[0].token("nobody", "alice"), viewDoc) },
		"no claim":              func() reply { return s.authorize(with(nil), viewDoc) },
		"empty claim":           func() reply { return s.authorize(with(""), viewDoc) },
		"a number":              func() reply { return s.authorize(with(7), viewDoc) },
		"two tenants":           func() reply { return s.authorize(with([]string{"acme", "foreign"}), viewDoc) },
		"not a tenant id":       func() reply { return s.authorize(with("acme\n"), viewDoc) },
		"another case":          func() reply { return s.authorize(with("ACME"), viewDoc) },
		"header disagrees":      func() reply { return s.authorize(with("acme"), viewDoc, "X-Copse-Tenant", "foreign") },
		"key disagrees":         func() reply { return s.authorize(with("acme"), viewDoc, "X-Copse-Key", foreignKey) },
		"suspended, bad body":   func() reply { return s.authorize(with("suspended"), `{`) },
	}
	var first, firstName string
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		// The second time a cache may answer: it must not answer otherwise.
		for range 2 {
			r := cases[name]()
			wantStatus(t, r, http.StatusForbidden)
			r.header.Del("Date")
			r.header.Del("X-Request-Id")
			got := fmt.Sprintf("%d\n%v\n%s", r.status, r.header, r.body)
			if first == "" {
				first, firstName = got, name
			}
			if got != first {
				t.Errorf("%q is answered\n%s\nbut %q is answered\n%s", name, got, firstName, first)
			}
		}
	}
	for _, leak := range []string{"acme", "suspended", "nobody", "foreign"} {
		if strings.Contains(first, leak) {
			t.Errorf("the answer names %q:\n%s", leak, first)
		}
	}
	wantDecision(t, s.authorize(with("acme"), viewDoc), "ALLOW")
	s.must(200, "POST", "/v1/tenants/suspended/resume", nil)
	wantDecision(t, s.authorize(with("suspended"), viewDoc), "ALLOW")
}
