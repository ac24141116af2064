package server_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/server"
)

// Every way to show a key in vain is counted, on every surface, and only the operator sees it.
func TestFailedUsesOnEverySurface(t *testing.T) {
	dir := t.TempDir()
	onDisk := func(c *server.Config) { c.DataDir = dir }
	var key api.CreatedKey
	var acme, globex api.Tenant
	t.Run("used", func(t *testing.T) {
		s, p := start(t, onDisk), newIDP(t)
		p.register(s, p.registration())
		acme, globex = s.onboard("acme", permitAll), s.onboard("globex", permitAll)
		key = decode[api.CreatedKey](t, s.must(201, "POST", "/v1/keys", api.CreateKeyRequest{Scope: api.KeyScope{Tenant: "acme"}, Verbs: []string{"read"}}))
		wantStatus(t, s.as(key.Credential+"x", "GET", "/v1/tenants", nil), 401)
		wantStatus(t, s.amazon(key.Credential+"x", "ListPolicyStores", map[string]any{}), 403)
		wantStatus(t, s.authorize(p.token("acme", "alice"), anyQuestion, "X-Copse-Key", key.Credential+"x"), 401)
		// Known, and not allowed: an operator's operation, another's policy store on both APIs, a verb it has not.
		wantStatus(t, s.as(key.Credential, "POST", "/v1/tenants/acme/suspend", nil), 403)
		wantStatus(t, s.as(key.Credential, "GET", "/v1/policy-stores/"+globex.PolicyStoreID, nil), 404)
		wantStatus(t, s.as(key.Credential, "GET", "/v1/tenants/globex", nil), 404)
		wantStatus(t, s.amazon(key.Credential, "GetPolicyStore", map[string]any{"policyStoreId": globex.PolicyStoreID}), 400)
		wantStatus(t, s.as(key.Credential, "GET", "/v1/tenants/globex/members", nil), 404)
		wantStatus(t, s.authorize(p.token("acme", "alice"), anyQuestion, "X-Copse-Key", key.Credential), 403)
		// Not the key's fault.
		wantStatus(t, s.as(key.Credential, "GET", "/v1/policy-stores/"+acme.PolicyStoreID, nil), 200)
		wantStatus(t, s.as(key.Credential, "GET", "/v1/tenants/acme?no=such", nil), 400)
		wantStatus(t, s.call("GET", "/v1/tenants", nil), 401)
	})
	s := start(t, onDisk)
	rows := s.auditRows(s.root, "&operation=FailedKeyUses")
	if len(rows) != 1 || rows[0].FailedUses == nil {
		t.Fatalf("%+v", rows)
	}
	var got []string
	for _, u := range rows[0].FailedUses.Uses {
		got = append(got, fmt.Sprintf("%s %s %d", strings.Replace(u.Key, key.ID, "KEY", 1), u.Reason, u.Count))
	}
	if want := []string{"KEY InvalidCredential 3", "KEY NotAllowed 6"}; !slices.Equal(got, want) {
		t.Errorf("counted %q, want %q", got, want)
	}
	for _, r := range s.auditRows(s.key(api.KeyScope{All: true}, "read"), "") {
		if r.FailedUses != nil {
			t.Errorf("a key without admin sees %+v", r)
		}
	}
}
