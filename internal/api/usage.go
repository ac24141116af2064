package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
)

func registerUsage(a *API, h huma.API) {
	register(a, h, route{method: http.MethodGet, path: "/v1/usage", id: "topUsage", tag: tagPolicyStores, status: http.StatusOK,
		summary: "See which policy stores are used most",
		description: "Of the last five minutes and the one that has begun, counted by this process and in memory only. " +
			"With admin everywhere it is of all; a key of a tenant or policy store with read sees its own only."}, (*API).topUsage)
}

// UsageQuery is exported for the same reason as [Paging].
type UsageQuery struct {
	By  string `query:"by" enum:"decisions,refusals,bytes" default:"decisions" doc:"What the list begins with the most of."`
	Top int    `query:"top" minimum:"1" maximum:"1000" default:"10" doc:"How many to list at the most."`
}

// topUsage is of this process and this memory: it is for finding who is busy, and not for bills.
func (a *API) topUsage(ctx context.Context, c access.Caller, in *UsageQuery) (*struct{ Body UsageList }, error) {
	top, err := a.policyStores.TopUsage(ctx, c, policystore.UsageOrder(in.By), in.Top)
	if err != nil {
		return nil, err
	}
	out := &struct{ Body UsageList }{Body: UsageList{Minutes: policystore.UsageMinutes, PolicyStores: make([]Usage, len(top))}}
	for i, u := range top {
		out.Body.PolicyStores[i] = Usage{PolicyStoreID: string(u.PolicyStoreID), Tenant: string(u.Tenant),
			Decisions: u.Decisions, Refusals: u.Refusals, CompiledBytes: u.CompiledBytes}
	}
	return out, nil
}
