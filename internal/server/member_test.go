package server_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/copse-authz/copse/internal/api"
)

// hooked is a site whose identity provider asks copse for claims before it signs.
type hooked struct {
	*site
	idp *idp
	key string // for the hook
}

func newHooked(t *testing.T, tenants ...string) *hooked {
	h := &hooked{site: start(t), idp: newIDP(t)}
	for _, name := range tenants {
		h.onboard(name, map[string]string{"all": `permit (principal, action, resource);`})
	}
	in := h.idp.registration(tenants...)
	in.EmailDomains = []string{"example.com"}
	h.idp.register(h.site, in)
	h.key = h.caller.key(api.KeyScope{All: true}, "decide")
	return h
}

// ask asks the hook; the answer's status is the caller's to look at.
func (h *hooked) ask(in api.TokenHookRequest) reply {
	h.t.Helper()
	if in.Issuer == "" {
		in.Issuer = h.idp.URL
	}
	return h.as(h.key, "POST", "/v1/hooks/token", in)
}

func (h *hooked) claims(in api.TokenHookRequest) api.TokenHookAnswer {
	h.t.Helper()
	r := h.ask(in)
	wantStatus(h.t, r, 200)
	return decode[api.TokenHookAnswer](h.t, r)
}

func (h *hooked) member(credential, tenant string, in api.MemberInput) api.PutMembersAnswer {
	h.t.Helper()
	if in.Issuer == "" && in.Email == "" {
		in.Issuer = h.idp.URL
	}
	r := h.as(credential, "PUT", "/v1/tenants/"+tenant+"/members", api.PutMembersRequest{Members: []api.MemberInput{in}})
	wantStatus(h.t, r, 200)
	return decode[api.PutMembersAnswer](h.t, r)
}

func subject(name string) api.MemberRef { return api.MemberRef{Subject: name} }

func (h *hooked) wantTenant(in api.TokenHookRequest, tenant string) {
	h.t.Helper()
	if tenant == "" {
		wantStatus(h.t, h.ask(in), 403)
		return
	}
	if got := h.claims(in); got.Tenant != tenant || got.Claims["tenant_id"] != tenant {
		h.t.Errorf("%s gets %+v, want tenant %s", in.Subject+in.ClientID, got, tenant)
	}
}

func TestTokenHook(t *testing.T) {
	h := newHooked(t, "acme", "globex")
	alice := api.TokenHookRequest{Subject: "alice", ClientID: "web"}
	h.wantTenant(alice, "")
	if got := h.member(h.root, "acme", api.MemberInput{MemberRef: subject("alice"), Roles: []string{"clerk"}, Attributes: map[string]string{"region": "eu"}}); got.Written != 1 {
		t.Fatalf("%+v", got)
	}
	got := h.claims(api.TokenHookRequest{Subject: "alice", ClientID: "web", Claims: []string{"Tenant_Id", "custom:tenant_id", "tenant_id", "ROLES", "email", "region"}})
	if fmt.Sprint(got.Claims) != "map[region:eu roles:[clerk] tenant_id:acme]" || fmt.Sprint(got.Suppress) != "[ROLES Tenant_Id custom:tenant_id]" {
		t.Errorf("%+v", got)
	}
	// The token that comes of it decides in that tenant.
	claims := h.idp.claims("", "alice")
	for name, value := range got.Claims {
		claims[name] = value
	}
	wantDecision(t, h.authorize(h.idp.key.token(t, nil, claims), viewDoc), "ALLOW")

	// A person and a machine of one name are two, and so are subjects of two issuers.
	h.wantTenant(api.TokenHookRequest{ClientID: "alice"}, "")
	h.wantTenant(api.TokenHookRequest{Issuer: h.idp.URL + "/", Subject: "alice"}, "")
	h.member(h.root, "globex", api.MemberInput{MemberRef: api.MemberRef{ClientID: "alice"}})
	h.wantTenant(api.TokenHookRequest{ClientID: "alice"}, "globex")
	h.wantTenant(alice, "acme")

	// In force before the acknowledgement, both ways.
	h.must(200, "POST", "/v1/tenants/acme/suspend", nil)
	h.wantTenant(alice, "")
	h.must(200, "POST", "/v1/tenants/acme/resume", nil)
	h.wantTenant(alice, "acme")
	h.must(204, "DELETE", "/v1/tenants/acme/member?issuer="+url.QueryEscape(h.idp.URL)+"&subject=alice", nil)
	h.wantTenant(alice, "")
	h.must(404, "DELETE", "/v1/tenants/acme/member?issuer="+url.QueryEscape(h.idp.URL)+"&subject=alice", nil)

	// A member of a tenant that was deleted is none of its successor.
	h.member(h.root, "acme", api.MemberInput{MemberRef: subject("alice")})
	h.must(204, "DELETE", "/v1/tenants/acme", nil)
	h.wantTenant(alice, "")
	h.onboard("acme", nil)
	h.wantTenant(alice, "")
	if list := decode[api.MemberList](t, h.must(200, "GET", "/v1/tenants/acme/members", nil)); len(list.Members) != 0 {
		t.Errorf("the successor has members %+v", list.Members)
	}
}

// Law 2, where members are written down: an issuer that is not bound to a tenant has no members in it, and
// one that no longer is gives them no tokens.
func TestLaw2MembersAreOfBoundIssuers(t *testing.T) {
	h := newHooked(t, "acme")
	h.onboard("globex", nil)
	if got := h.member(h.root, "globex", api.MemberInput{MemberRef: subject("alice")}); got.Written != 0 || len(got.Errors) != 1 || got.Errors[0].Error.Fields[0].Path != "issuer" {
		t.Errorf("%+v", got)
	}
	h.member(h.root, "acme", api.MemberInput{MemberRef: subject("alice")})
	h.wantTenant(api.TokenHookRequest{Subject: "alice"}, "acme")
	issuer := decode[api.IssuerList](t, h.must(200, "GET", "/v1/issuers", nil)).Issuers[0]
	issuer.Tenants = []string{"globex"}
	h.must(200, "PUT", "/v1/issuers/"+issuer.ID, issuer)
	h.wantTenant(api.TokenHookRequest{Subject: "alice"}, "")
}

// Law 5: a tenant's key sees and changes the tenant's own members, and nobody's sign-in at an issuer that
// others share.
func TestLaw5MembersOfOtherTenantsDoNotExist(t *testing.T) {
	h := newHooked(t, "acme", "globex")
	own := newIDP(t)
	registration := own.registration("acme")
	registration.SameSubjects = true
	own.register(h.site, registration)
	acme := h.caller.key(api.KeyScope{Tenant: "acme"}, "read", "write")
	h.member(h.root, "acme", api.MemberInput{MemberRef: subject("alice"), Roles: []string{"clerk"}})
	h.member(h.root, "globex", api.MemberInput{MemberRef: subject("alice"), Roles: []string{"canary-role"}})
	h.member(h.root, "globex", api.MemberInput{MemberRef: subject("bob")})

	list := h.as(acme, "GET", "/v1/tenants/acme/members", nil)
	wantStatus(t, list, 200)
	one := h.as(acme, "GET", "/v1/tenants/acme/member?issuer="+url.QueryEscape(h.idp.URL)+"&subject=alice", nil)
	wantStatus(t, one, 200)
	if strings.Contains(list.body+one.body, "canary") || strings.Contains(list.body+one.body, "globex") || strings.Contains(list.body, "bob") {
		t.Errorf("acme's key is shown %s %s", list, one)
	}
	for _, call := range [][2]string{
		{"GET", "/v1/tenants/globex/members"}, {"GET", "/v1/tenants/globex/member?subject=bob&issuer=x"}, {"DELETE", "/v1/tenants/globex/member?subject=bob&issuer=x"},
		{"GET", "/v1/tenants/hooli/members"}, {"GET", "/v1/tenants/acme/member?subject=bob&issuer=" + url.QueryEscape(h.idp.URL)},
	} {
		wantStatus(t, h.as(acme, call[0], call[1], nil), 404)
	}
	wantStatus(t, h.as(acme, "PUT", "/v1/tenants/globex/members", api.PutMembersRequest{Members: []api.MemberInput{{MemberRef: api.MemberRef{Email: "x@example.com"}}}}), 404)
	for _, path := range []string{"/v1/hooks/token", "/v1/hooks/cognito"} {
		wantStatus(t, h.as(acme, "POST", path, `{"issuer":"x"}`), 403)
	}
	wantStatus(t, h.as(acme, "PUT", "/v1/members/active", api.SetActiveRequest{MemberRef: api.MemberRef{Issuer: h.idp.URL, Subject: "alice"}, Tenant: "acme"}), 403)

	// carol is nobody's member yet: whoever names her first decides where she signs in to.
	if got := h.member(acme, "acme", api.MemberInput{MemberRef: subject("carol")}); got.Written != 0 {
		t.Error("a tenant's key named a member of a shared issuer")
	}
	if got := h.member(acme, "acme", api.MemberInput{MemberRef: api.MemberRef{Issuer: own.URL, Subject: "carol"}}); got.Written != 1 {
		t.Errorf("at the tenant's own issuer: %+v", got)
	}
	if got := h.member(acme, "acme", api.MemberInput{MemberRef: api.MemberRef{Email: "carol@example.com"}}); got.Written != 1 {
		t.Errorf("%+v", got)
	}
	h.wantTenant(api.TokenHookRequest{Subject: "carol", Email: "carol@example.com", EmailVerified: true}, "") // not at the shared issuer
	h.wantTenant(api.TokenHookRequest{Issuer: own.URL, Subject: "carol"}, "acme")
}

func TestInvitationIsRedeemedOnceByAVerifiedAddress(t *testing.T) {
	h := newHooked(t, "acme", "globex")
	invited := func(tenant, email string) {
		t.Helper()
		if got := h.member(h.root, tenant, api.MemberInput{MemberRef: api.MemberRef{Email: email}, Roles: []string{"clerk"}}); got.Written != 1 {
			t.Fatalf("%+v", got)
		}
	}
	invited("acme", "Alice@Example.com")
	invited("acme", "mallory@elsewhere.org")
	h.wantTenant(api.TokenHookRequest{Subject: "a1", Email: "alice@example.com"}, "")
	h.wantTenant(api.TokenHookRequest{ClientID: "a1", Email: "alice@example.com", EmailVerified: true}, "")
	h.wantTenant(api.TokenHookRequest{Subject: "m1", Email: "mallory@elsewhere.org", EmailVerified: true}, "") // not this issuer's domain
	h.wantTenant(api.TokenHookRequest{Subject: "m1", Email: "alice@example.com.", EmailVerified: true}, "")
	h.wantTenant(api.TokenHookRequest{Subject: "a1", Email: "ALICE@example.com", EmailVerified: true}, "acme")
	// Once: a second subject with the address is nobody, the first needs the address no more.
	h.wantTenant(api.TokenHookRequest{Subject: "a2", Email: "alice@example.com", EmailVerified: true}, "")
	h.wantTenant(api.TokenHookRequest{Subject: "a1"}, "acme")
	// A later invitation is a further tenant, and not the active one.
	invited("globex", "alice@example.com")
	h.wantTenant(api.TokenHookRequest{Subject: "a1", Email: "alice@example.com", EmailVerified: true}, "acme")
	list := decode[api.MemberList](t, h.must(200, "GET", "/v1/tenants/globex/members", nil))
	if len(list.Members) != 1 || list.Members[0].Subject != "a1" {
		t.Errorf("%+v", list.Members)
	}
	// One that was withdrawn is none.
	invited("acme", "bob@example.com")
	h.must(204, "DELETE", "/v1/tenants/acme/member?email=bob@example.com", nil)
	h.wantTenant(api.TokenHookRequest{Subject: "b1", Email: "bob@example.com", EmailVerified: true}, "")
}

// The active tenant is the first until the member's own token or the operator changes it, for each client.
func TestActiveTenant(t *testing.T) {
	h := newHooked(t, "acme", "globex", "initech")
	h.member(h.root, "acme", api.MemberInput{MemberRef: subject("alice")})
	h.member(h.root, "globex", api.MemberInput{MemberRef: subject("alice")})
	at := func(client string) api.TokenHookRequest {
		return api.TokenHookRequest{Subject: "alice", ClientID: client}
	}
	h.wantTenant(at("web"), "acme")
	token := func(user, client string) string {
		claims := h.idp.claims("acme", user)
		claims["client_id"] = client
		return h.idp.key.token(t, nil, claims)
	}
	choose := func(token, tenant string, status int) {
		t.Helper()
		wantStatus(t, h.as(token, "PUT", "/v1/me/tenant", map[string]string{"tenant": tenant}), status)
	}
	choose(token("alice", "web"), "globex", 204)
	h.wantTenant(at("web"), "globex")
	h.wantTenant(at("app"), "acme")
	if r := h.as(token("alice", "web"), "GET", "/v1/me/tenant", nil); r.status != 200 || r.body != `{"tenants":[{"tenant":"globex","active":true},{"tenant":"acme","active":false}]}` {
		t.Errorf("%v", r)
	}
	// Not a tenant of hers, nobody's tenant, nobody's token, an access key.
	choose(token("alice", "web"), "initech", 403)
	choose(token("alice", "web"), "hooli", 403)
	choose(token("bob", "web"), "acme", 403)
	choose("x.y.z", "acme", 401)
	choose(h.root, "acme", 401)
	wantStatus(t, h.as(token("alice", "web"), "PUT", "/v1/me/tenant", `{"tenant":"acme","subject":"bob"}`), 400)
	h.wantTenant(at("web"), "globex")
	// The operator, for all clients that have no choice of their own.
	h.must(204, "PUT", "/v1/members/active", api.SetActiveRequest{MemberRef: api.MemberRef{Issuer: h.idp.URL, Subject: "alice"}, Tenant: "globex"})
	h.wantTenant(at("app"), "globex")
	// A tenant that was left is not active; one that is suspended is not swapped for another.
	h.must(200, "POST", "/v1/tenants/globex/suspend", nil)
	h.wantTenant(at("web"), "")
	h.must(200, "POST", "/v1/tenants/globex/resume", nil)
	h.must(204, "DELETE", "/v1/tenants/globex/member?issuer="+url.QueryEscape(h.idp.URL)+"&subject=alice", nil)
	h.wantTenant(at("web"), "acme")
}

func TestMembersAreValidated(t *testing.T) {
	h := newHooked(t, "acme")
	for path, in := range map[string]api.MemberInput{
		"subject":    {},
		"email":      {MemberRef: api.MemberRef{Email: "no address"}},
		"issuer":     {MemberRef: api.MemberRef{Email: "a@example.com", Issuer: h.idp.URL}},
		"roles":      {MemberRef: subject("a"), Roles: []string{"x", "x"}},
		"attributes": {MemberRef: subject("a"), Attributes: map[string]string{"cognito:groups": "x"}},
	} {
		got := h.member(h.root, "acme", in)
		if got.Written != 0 || len(got.Errors) != 1 || len(got.Errors[0].Error.Fields) == 0 || got.Errors[0].Error.Fields[0].Path != path {
			t.Errorf("%s: %+v", path, got)
		}
	}
	for _, claim := range []string{"sub", "iss", "aud", "exp", "email", "email_verified", "custom", "dev", "cognito", "dev:x", "scope", "token_use", "a\nb"} {
		if got := h.member(h.root, "acme", api.MemberInput{MemberRef: subject("a"), Attributes: map[string]string{claim: "x"}}); got.Written != 0 {
			t.Errorf("the claim %q was taken", claim)
		}
	}
	// An attribute can't stand in for the tenant or the roles.
	h.member(h.root, "acme", api.MemberInput{MemberRef: subject("a"), Roles: []string{"clerk"}, Attributes: map[string]string{"tenant_id": "globex", "roles": "admin"}})
	if got := h.claims(api.TokenHookRequest{Subject: "a"}); fmt.Sprint(got.Claims) != "map[roles:[clerk] tenant_id:acme]" {
		t.Errorf("%v", got.Claims)
	}
	wantStatus(t, h.ask(api.TokenHookRequest{}), 403)
	wantStatus(t, h.as(h.key, "POST", "/v1/hooks/token", `{"issuer":"x","tenant":"acme"}`), 400)
}

// What Cognito's events become is in package member; here is the endpoint.
func TestCognitoHookEndpoint(t *testing.T) {
	h := newHooked(t, "acme")
	h.member(h.root, "acme", api.MemberInput{MemberRef: subject("alice"), Roles: []string{"clerk"}})
	event := `{"version":"2","triggerSource":"TokenGeneration_HostedAuth","region":"eu-west-1","userPoolId":"eu-west-1_x","userName":"alice",
		"callerContext":{"clientId":"web"},"request":{"userAttributes":{"sub":"alice"}},"response":{},"extra":{"n":12345678901234567890}}`
	r := h.as(h.key, "POST", "/v1/hooks/cognito?issuer="+url.QueryEscape(h.idp.URL), event)
	wantStatus(t, r, 200)
	if !strings.Contains(r.body, `"tenant_id":"acme"`) || !strings.Contains(r.body, `12345678901234567890`) || !strings.Contains(r.body, `"userName":"alice"`) {
		t.Errorf("%s", r.body)
	}
	wantStatus(t, h.as(h.key, "POST", "/v1/hooks/cognito", event), 403) // AWS's own issuer of that pool is nobody's
	wantStatus(t, h.as(h.key, "POST", "/v1/hooks/cognito", `{}`), 400)
	wantStatus(t, h.as(h.key, "POST", "/v1/hooks/cognito", `[]`), 400)
	wantStatus(t, h.as("x", "POST", "/v1/hooks/cognito", event), 401)
}
