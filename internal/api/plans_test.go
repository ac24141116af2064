package api

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestUpdatePolicyStore(t *testing.T) {
	s := start(t)
	made := newTenant(t, s, "acme")
	path := "/v1/policy-stores/" + made.PolicyStoreID
	before := do[PolicyStore](t, s, http.MethodGet, path, nil, 200)
	if before.Plan != "unmetered" || before.DeletionProtection {
		t.Errorf("at first: %+v", before)
	}
	// Each member alone changes what it names, and nothing else.
	want := before
	for _, step := range []struct {
		body  string
		apply func()
	}{
		{`{"validation":"OFF"}`, func() { want.Settings.Validation = "OFF" }},
		{`{"checkRequests":false}`, func() { want.Settings.CheckRequests = false }},
		{`{"forbidErrorsDeny":true}`, func() { want.Settings.ForbidErrorsDeny = true }},
		{`{"description":"of acme"}`, func() { want.Description = "of acme" }},
		{`{"description":""}`, func() { want.Description = "" }},
		{`{"deletionProtection":true}`, func() { want.DeletionProtection = true }},
		{`{"plan":"default"}`, func() { want.Plan = "default" }},
		{`{"validation":"STRICT","checkRequests":true,"plan":"avp"}`, func() {
			want.Settings.Validation, want.Settings.CheckRequests, want.Plan = "STRICT", true, "avp"
		}},
	} {
		a := s.call(t, s.root, http.MethodPatch, path, step.body)
		step.apply()
		got := do[PolicyStore](t, s, http.MethodGet, path, nil, 200)
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(PolicyStore{}, "Revision", "UpdatedAt")); diff != "" || a.status != 200 || a.body != marshal(t, got)+"\n" {
			t.Errorf("%s: %d %s; -want +got:\n%s", step.body, a.status, a.body, diff)
		}
		if err := s.api.Conforms("PolicyStore", []byte(a.body)); err != nil {
			t.Error(err)
		}
		if got.Revision <= before.Revision || got.UpdatedAt.Before(before.UpdatedAt) {
			t.Errorf("%s: revision %d after %d", step.body, got.Revision, before.Revision)
		}
		before = got
	}
	// What is protected stays, with its tenant, until the protection is off.
	if a := s.call(t, s.root, http.MethodDelete, "/v1/tenants/acme", ""); a.status != http.StatusConflict || a.error(t).Kind != "InvalidState" {
		t.Errorf("deleting a protected tenant: %d %s", a.status, a.body)
	}
	do[PolicyStore](t, s, http.MethodPatch, path, UpdatePolicyStoreRequest{DeletionProtection: new(false)}, 200)
	do[nothing](t, s, http.MethodDelete, "/v1/tenants/acme", nil, http.StatusNoContent)
	if a := s.call(t, s.root, http.MethodPatch, path, `{"plan":"avp"}`); a.status != http.StatusNotFound {
		t.Errorf("updating what is gone: %d %s", a.status, a.body)
	}
}

func TestPlans(t *testing.T) {
	s := start(t)
	names := func() (out []string) {
		for _, p := range do[PlanList](t, s, http.MethodGet, "/v1/plans", nil, 200).Plans {
			out = append(out, p.Name)
		}
		return out
	}
	if got := names(); !slices.Equal(got, []string{"avp", "default", "unmetered"}) {
		t.Errorf("at first: %v", got)
	}
	// What was read can be sent back under another name.
	gold := do[Plan](t, s, http.MethodGet, "/v1/plans/avp", nil, 200)
	if gold.Quotas.Operations["IsAuthorized"] != 200 || !gold.BuiltIn || !gold.UpdatedAt.IsZero() {
		t.Errorf("avp: %+v", gold)
	}
	gold.Quotas.Templates, gold.Quotas.DecisionsPerSecond = 500, 0
	put := do[Plan](t, s, http.MethodPut, "/v1/plans/gold", PutPlanRequest{Description: "more", Quotas: gold.Quotas}, 200)
	if put.Name != "gold" || put.Description != "more" || put.BuiltIn || put.UpdatedAt.IsZero() || !cmp.Equal(put.Quotas, gold.Quotas) {
		t.Errorf("put: %+v", put)
	}
	if got := do[Plan](t, s, http.MethodGet, "/v1/plans/gold", nil, 200); !cmp.Equal(got, put) {
		t.Errorf("-put +got:\n%s", cmp.Diff(put, got))
	}
	if got := names(); !slices.Equal(got, []string{"avp", "default", "gold", "unmetered"}) {
		t.Errorf("with one more: %v", got)
	}
	do[nothing](t, s, http.MethodDelete, "/v1/plans/gold", nil, http.StatusNoContent)
	do[nothing](t, s, http.MethodDelete, "/v1/plans/gold", nil, http.StatusNoContent)
	if e := s.call(t, s.root, http.MethodGet, "/v1/plans/gold", "").error(t); e.Kind != "NotFound" || e.Resource != "PLAN" || e.ID != "gold" {
		t.Errorf("after its deletion: %+v", e)
	}
	// One that is built in is changed, and is as before when it is deleted.
	do[Plan](t, s, http.MethodPut, "/v1/plans/default", PutPlanRequest{Quotas: gold.Quotas}, 200)
	if p := do[Plan](t, s, http.MethodGet, "/v1/plans/default", nil, 200); p.Quotas.Templates != 500 || !p.BuiltIn {
		t.Errorf("changed: %+v", p)
	}
	do[nothing](t, s, http.MethodDelete, "/v1/plans/default", nil, http.StatusNoContent)
	if p := do[Plan](t, s, http.MethodGet, "/v1/plans/default", nil, 200); p.Quotas.Templates != 40 || p.Quotas.DecisionsPerSecond != 5_000 || !p.UpdatedAt.IsZero() {
		t.Errorf("deleted: %+v", p)
	}
}

// Over a rate: 429 with Retry-After; over a count: 422. The plan can always be lifted, whatever it says.
func TestQuotasOfAPlan(t *testing.T) {
	s := start(t)
	made := newTenant(t, s, "acme")
	path := "/v1/policy-stores/" + made.PolicyStoreID
	tight := do[Plan](t, s, http.MethodGet, "/v1/plans/unmetered", nil, 200).Quotas
	tight.WritesPerSecond, tight.Templates = 1, 0
	do[Plan](t, s, http.MethodPut, "/v1/plans/tight", PutPlanRequest{Quotas: tight}, 200)
	do[PolicyStore](t, s, http.MethodPatch, path, UpdatePolicyStoreRequest{Validation: new("OFF"), Plan: new("tight")}, 200)
	var throttled, full int
	for i := range 20 {
		a := s.call(t, s.root, http.MethodPut, path+"/contents", `{"policies":[],"templates":[{"name":"t`+strconv.Itoa(i)+
			`","statement":"permit (principal == ?principal, action, resource == ?resource);"}]}`, ifMatchHeader("*"))
		switch e := a.error(t); {
		case a.status == http.StatusTooManyRequests && e.Kind == "Throttled" && a.header.Get("Retry-After") == "1" && strings.Contains(e.Message, `"tight" allows 1`):
			throttled++
		case a.status == http.StatusUnprocessableEntity && e.Kind == "QuotaExceeded":
			full++
		default:
			t.Errorf("%d %v %s", a.status, a.header, a.body)
		}
	}
	if throttled == 0 || full == 0 {
		t.Errorf("%d throttled, %d over the number of templates", throttled, full)
	}
	do[PolicyStore](t, s, http.MethodPatch, path, UpdatePolicyStoreRequest{Plan: new("unmetered")}, 200)
	for range 5 {
		if a := s.call(t, s.root, http.MethodPut, path+"/contents", `{"policies":[]}`, ifMatchHeader("*")); a.status != 200 {
			t.Errorf("lifted: %d %s", a.status, a.body)
		}
	}
}

// A path that does not take a method says which it takes.
func TestAllowNamesPatch(t *testing.T) {
	s := start(t)
	made := newTenant(t, s, "acme")
	a := s.call(t, s.root, http.MethodPost, "/v1/policy-stores/"+made.PolicyStoreID, `{}`)
	if got := a.header.Values("Allow"); a.status != http.StatusMethodNotAllowed || !slices.Equal(got, []string{"GET", "PATCH"}) {
		t.Errorf("%d, Allow: %v", a.status, got)
	}
}
