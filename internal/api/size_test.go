package api

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/tenant"
)

// direct calls the API without sockets, and tells what it allocated and how often it read the body.
func (s *server) direct(t *testing.T, credential, method, path, body string) (w recorder, allocated int64, reads int) {
	t.Helper()
	unread := &unread{Reader: bytes.NewReader([]byte(body))}
	r, err := http.NewRequestWithContext(t.Context(), method, path, unread)
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = int64(len(body))
	r.Header.Set("Authorization", "Bearer "+credential)
	r.Header.Set("If-Match", "*")
	w = recorder{header: http.Header{}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s.api.ServeHTTP(&w, r)
	runtime.ReadMemStats(&after)
	return w, int64(after.TotalAlloc - before.TotalAlloc), unread.reads
}

// many is n times the same, with commas.
func many(n int, element string) string {
	return strings.TrimSuffix(strings.Repeat(element+",", n), ",")
}

// A body that costs by the value is refused before that cost: what is allocated over all of the
// request stays near the body's size.
func TestHostileBodiesCostLittle(t *testing.T) {
	s := start(t)
	newTenant(t, s, "acme")
	var members strings.Builder
	for i := range 400_000 {
		fmt.Fprintf(&members, `"m%d":0,`, i)
	}
	for name, body := range map[string]string{
		"1.35 million empty policies": `{"tenant":"x","policies":[` + many(1_350_000, "{}") + `]}`,
		"zeroes":                      `{"tenant":"x","policies":[` + many(4_000_000, "0") + `]}`,
		"lists of lists":              `{"tenant":"x","policies":[` + many(9_000, "["+many(100, "{}")+"]") + `]}`,
		"members":                     `{` + members.String() + `"tenant":"x"}`,
		"members of a policy":         `{"tenant":"x","policies":[{` + members.String() + `"name":"x"}]}`,
		"depth":                       `{"tenant":` + strings.Repeat("[", 4_000_000),
	} {
		w, allocated, _ := s.direct(t, s.root, http.MethodPost, "/v1/tenants", body)
		// Reading takes twice the body, since the buffer grows as it fills.
		if limit := 3*int64(len(body)) + 16<<20; w.status != http.StatusBadRequest || allocated > limit {
			t.Errorf("%s: %d after %d MB for a body of %d MB: %s", name, w.status, allocated>>20, len(body)>>20, w.body.String())
		}
	}
	// The worst that passes: each value a finding.
	for name, body := range map[string]string{
		"10,000 empty policies": `{"tenant":"x","policies":[` + many(10_000, "{}") + `]}`,
		"unknown members":       `{"tenant":"x","policies":[` + many(4_900, `{"a":0,"b":0,"c":0,"d":0,"e":0,"f":0,"g":0,"h":0,"i":0}`) + `]}`,
		"wrong types":           `{"tenant":"x","policies":[` + many(9_900, `{"name":0,"statement":[],"description":{}}`) + `]}`,
	} {
		w, allocated, _ := s.direct(t, s.root, http.MethodPost, "/v1/tenants", body)
		if w.status != http.StatusBadRequest || allocated > 32<<20 || w.body.Len() > 20_000 {
			t.Errorf("%s: %d after %d MB: %.300s", name, w.status, allocated>>20, w.body.String())
		}
	}
}

func TestTheLargestContentsPass(t *testing.T) {
	policies := many(copse.MaxContentsWrites, `{"name":"n","statement":"s","description":"d"}`)
	body := `{"tenant":"x","description":"d","settings":{"validation":"OFF","checkRequests":false,"forbidErrorsDeny":true},"schema":{"cedar":""},"policies":[` + policies + `]}`
	if err := checkSize([]byte(body)); err != nil {
		t.Error(err)
	}
	err := checkSize([]byte(strings.Replace(body, `"policies":[`, `"policies":[{},`, 1)))
	e, ok := errors.AsType[*copse.Error](err)
	if !ok || e.Kind != copse.Invalid || len(e.Fields) != 1 || e.Fields[0].Path != "policies" || !strings.Contains(e.Fields[0].Message, "10000") {
		t.Errorf("one more: %v", err)
	}
	for name, text := range map[string]string{"nothing": "", "no JSON": `{"tenant`, "nested as far as may be": strings.Repeat("[", 16) + strings.Repeat("]", 16)} {
		if err := checkSize([]byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a key can't do at all is refused before a byte of the body is read, in the words of the
// services, which tell no more of what there is.
func TestKeysAreHeldAgainstTheRouteBeforeTheBodyIsRead(t *testing.T) {
	s := start(t)
	made := newTenant(t, s, "acme")
	theirs := newTenant(t, s, "globex")
	hostile := `{"tenant":"x","policies":[` + many(1_350_000, "{}") + `]}`
	keys := map[string]string{
		"of a tenant":         s.key(t, access.Scope{Tenant: "acme"}, access.Decide),
		"of a policy store":   s.key(t, access.Scope{PolicyStore: copse.PolicyStoreID(made.PolicyStoreID)}, access.Decide),
		"of everything":       s.key(t, accessAll, access.Decide),
		"of another's writer": s.key(t, access.Scope{PolicyStore: copse.PolicyStoreID(theirs.PolicyStoreID)}, access.Write|access.Read),
	}
	asked := 0
	for _, route := range s.api.Routes() {
		path := strings.NewReplacer("{tenant}", "acme", "/policy-stores/{id}", "/policy-stores/"+made.PolicyStoreID, "{id}", "some").Replace(route.Path)
		ofPolicyStore := strings.HasPrefix(route.Path, "/v1/policy-stores/")
		if route.Open || route.Method == http.MethodGet && !ofPolicyStore {
			continue
		}
		for name, credential := range keys {
			if strings.HasPrefix(route.Path, "/v1/hooks/") && name == "of everything" {
				continue // may do that
			}
			w, allocated, reads := s.direct(t, credential, route.Method, path, hostile)
			want := http.StatusForbidden
			if ofPolicyStore && route.Method != http.MethodPatch { // settings are the operator's
				want = http.StatusNotFound
			}
			if strings.HasPrefix(route.Path, "/v1/tenants/{tenant}/member") {
				want = http.StatusNotFound
			}
			if w.status != want || reads != 0 || allocated > 1<<20 {
				t.Errorf("%s %s with a key %s: %d after %d reads and %d bytes: %s", route.Method, route.Path, name, w.status, reads, allocated, w.body.String())
			}
			asked++
		}
	}
	if asked != (4+3+3+8+2+5+1+2)*len(keys)-2 {
		t.Errorf("%d requests", asked)
	}
}

func TestRefusalsAreTheServices(t *testing.T) {
	s := start(t)
	made := newTenant(t, s, "acme")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	stranger := access.Caller{KeyID: "x", Scope: access.Scope{Tenant: "acme"}, Verbs: access.Decide}
	same := func(name string, ours, theirs error) {
		t.Helper()
		if ours == nil || theirs == nil || marshal(t, describe(ours, "id")) != marshal(t, describe(theirs, "id")) {
			t.Errorf("%s: %v, the service says: %v", name, ours, theirs)
		}
	}
	_, err = s.api.tenants.Create(t.Context(), stranger, tenant.NewTenant{ID: "x"})
	same("tenants", adminOfTenants.check(stranger, r), err)
	_, err = s.api.tenants.AddIssuer(t.Context(), stranger, copse.Issuer{})
	same("issuers", adminOfTenants.check(stranger, r), err)
	_, _, err = s.access.CreateKey(t.Context(), stranger, access.Key{})
	same("keys", adminOfKeys.check(stranger, r), err)
	_, err = s.policyStores.Update(t.Context(), stranger, copse.PolicyStoreID(made.PolicyStoreID), policystore.Update{})
	same("updates of policy stores", adminOfPolicyStores.check(stranger, r), err)
	_, err = s.policyStores.PutPlan(t.Context(), stranger, policystore.Plan{})
	same("plans", adminOfPlans.check(stranger, r), err)
	same("plans, deleting", adminOfPlans.check(stranger, r), s.policyStores.DeletePlan(t.Context(), stranger, "default"))
	for _, id := range []copse.PolicyStoreID{copse.PolicyStoreID(made.PolicyStoreID), "never-was", "not/an id"} {
		r.SetPathValue("id", string(id))
		_, err = s.policyStores.GetSchema(t.Context(), stranger, id)
		same("policy store "+string(id), need{policyStore: access.Write}.check(stranger, r), err)
	}
}
