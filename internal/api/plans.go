package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
)

func registerPlans(a *API, h huma.API) {
	register(a, h, route{method: http.MethodGet, path: "/v1/plans", id: "listPlans", tag: tagPlans, status: http.StatusOK,
		summary: "List the plans", description: "Those that are built in, as they are now, and your own. A key without read everywhere sees none."}, (*API).listPlans)
	register(a, h, route{method: http.MethodGet, path: "/v1/plans/{name}", id: "getPlan", tag: tagPlans, status: http.StatusOK,
		summary: "Get a plan", errors: []int{http.StatusNotFound}}, (*API).getPlan)
	register(a, h, route{method: http.MethodPut, path: "/v1/plans/{name}", id: "putPlan", tag: tagPlans, status: http.StatusOK, needs: adminOfPlans,
		summary:     "Make or change a plan",
		description: "Holds at once for every policy store on it, without a restart. What is over a lowered size or count stays; nothing can be added.",
		errors:      []int{http.StatusUnprocessableEntity}}, (*API).putPlan)
	register(a, h, route{method: http.MethodDelete, path: "/v1/plans/{name}", id: "deletePlan", tag: tagPlans, status: http.StatusNoContent, needs: adminOfPlans,
		summary:     "Delete a plan",
		description: "A plan of your own goes, and its policy stores have the quotas of the plan default. One that is built in is again as copse has it."}, (*API).deletePlan)
}

// PlanPath is exported for the same reason as [Paging].
type PlanPath struct {
	Name string `path:"name" maxLength:"64" doc:"The plan's name." example:"default"`
}

// planOutput is the answer to everything that is about one plan.
type planOutput struct{ Body Plan }

// planOf converts quotas as a whole, so one that only one of the two types has does not compile.
func planOf(p *policystore.Plan) Plan {
	return Plan{Name: p.Name, Description: p.Description, Quotas: Quotas(p.Quotas), BuiltIn: p.BuiltIn, UpdatedAt: p.UpdatedAt}
}

// listPlans needs no paging: the number of plans is bounded.
func (a *API) listPlans(ctx context.Context, c access.Caller, _ *struct{}) (*struct{ Body PlanList }, error) {
	plans, err := a.policyStores.ListPlans(ctx, c)
	if err != nil {
		return nil, err
	}
	out := &struct{ Body PlanList }{Body: PlanList{Plans: make([]Plan, len(plans))}}
	for i := range plans {
		out.Body.Plans[i] = planOf(&plans[i])
	}
	return out, nil
}

// getPlan also finds a built-in plan that was never changed.
func (a *API) getPlan(ctx context.Context, c access.Caller, in *PlanPath) (*planOutput, error) {
	p, err := a.policyStores.GetPlan(ctx, c, in.Name)
	if err != nil {
		return nil, err
	}
	return &planOutput{Body: planOf(&p)}, nil
}

// putPlan takes all quotas at once, so that none is whatever it was.
func (a *API) putPlan(ctx context.Context, c access.Caller, in *struct {
	PlanPath
	Body PutPlanRequest
}) (*planOutput, error) {
	p, err := a.policyStores.PutPlan(ctx, c, policystore.Plan{Name: in.Name, Description: in.Body.Description, Quotas: policystore.Quotas(in.Body.Quotas)})
	if err != nil {
		return nil, err
	}
	return &planOutput{Body: planOf(&p)}, nil
}

// deletePlan succeeds for a plan that does not exist.
func (a *API) deletePlan(ctx context.Context, c access.Caller, in *PlanPath) (*struct{}, error) {
	return nil, a.policyStores.DeletePlan(ctx, c, in.Name)
}
