package main

import (
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/copse-authz/copse/internal/api"
)

// planCommand is about the plans of a server. Which plan a policy store is on is one of its settings: `copse
// store`.
func (a *app) planCommand() *cobra.Command {
	return group("plan", "List plans, and change the quotas they stand for",
		`A plan is a named set of quotas; each policy store is on one. "default" has Amazon Verified
Permissions' sizes and counts, "avp" its rates too, "unmetered" no rates. A change of a plan holds at
once for every policy store on it.`,
		`  copse plan list
  copse plan get default --output json > gold.json
  copse plan put gold gold.json
  copse store update --tenant acme --plan gold`,
		a.planList(), a.planGet(), a.planPut(), a.planDelete())
}

// planPath is the path of a plan, whose name the server judges.
func planPath(name string) string { return "/v1/plans/" + url.PathEscape(name) }

// perSecond shows a rate; none is no limit.
func perSecond(n int) string {
	if n == 0 {
		return "no limit"
	}
	return strconv.Itoa(n)
}

// showPlan shows the quotas that people ask for first. Rates of single operations are counted only: the JSON
// has them.
func (a *app) showPlan(p api.Plan) error {
	return a.show(p, func(t *table) {
		q := p.Quotas
		t.pairs("plan", p.Name, "description", p.Description,
			"decisions per second", perSecond(q.DecisionsPerSecond), "writes per second", perSecond(q.WritesPerSecond),
			"operations with rates of their own", strconv.Itoa(len(q.Operations)),
			"templates", strconv.Itoa(q.Templates), "aliases", strconv.Itoa(q.Aliases), "identity sources", strconv.Itoa(q.IdentitySources),
			"namespaces", strconv.Itoa(q.Namespaces), "policy bytes", strconv.Itoa(q.PolicyBytes),
			"schema bytes", strconv.Itoa(q.SchemaBytes), "bytes per resource", strconv.Itoa(q.ScopeBytes), "changed", when(p.UpdatedAt))
	})
}

// planList shows plans to keys that may read everywhere. Others are shown an empty list, and no error.
func (a *app) planList() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the plans",
		Long:    `List all plans: those built in, as they are now, and your own.`,
		Example: `  copse plan list`,
		Args:    args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.newClient()
			if err != nil {
				return err
			}
			var out api.PlanList
			if err := c.do(cmd.Context(), request{method: http.MethodGet, path: "/v1/plans", out: &out}); err != nil {
				return err
			}
			return a.show(out, func(t *table) {
				t.row("PLAN", "DECISIONS/S", "WRITES/S", "DESCRIPTION")
				for _, p := range out.Plans {
					t.row(p.Name, perSecond(p.Quotas.DecisionsPerSecond), perSecond(p.Quotas.WritesPerSecond), p.Description)
				}
			})
		},
	}
}

// planGet gives in JSON what [app.planPut] reads, so that a plan is made by changing another.
func (a *app) planGet() *cobra.Command {
	return &cobra.Command{
		Use:     "get PLAN",
		Short:   "Show a plan's quotas",
		Long:    `Show a plan's quotas. As JSON it is what "copse plan put" reads.`,
		Example: `  copse plan get default --output json > gold.json`,
		Args:    args(1, 1, "the plan's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.newClient()
			if err != nil {
				return err
			}
			var out api.Plan
			if err := c.do(cmd.Context(), request{method: http.MethodGet, path: planPath(args[0]), out: &out}); err != nil {
				return err
			}
			return a.showPlan(out)
		},
	}
}

// planFile is api.Plan with the quotas as they were written: one that is left out is for the server to miss,
// and not a 0. Members that a plan has and that are not read are here so that the rest can be refused.
// Quotas are checked by the server, which knows all there are.
type planFile struct {
	Name        string         `json:"name"`
	Description string         `json:"description"`
	Quotas      jsontext.Value `json:"quotas"`
	BuiltIn     bool           `json:"builtIn"`
	UpdatedAt   time.Time      `json:"updatedAt"`
}

// putPlanBody is api.PutPlanRequest, likewise.
type putPlanBody struct {
	Description string         `json:"description,omitempty"`
	Quotas      jsontext.Value `json:"quotas"`
}

// planPut sends the quotas of the file as they are written there. The name on the command line wins: what a
// file was got from does not say what it is for. It needs a key with admin everywhere, as deleting does.
func (a *app) planPut() *cobra.Command {
	return &cobra.Command{
		Use:   "put PLAN FILE",
		Short: "Make or change a plan",
		Long: `Make a plan, or change one, from a JSON file in the form of "copse plan get --output json"; what the
file says of the plan's name and time is not read. It holds at once for every policy store on the
plan. What is over a lowered size or count stays, and nothing can be added to it.

A rate that the file leaves out is no limit; everything else has to be there.`,
		Example: `  copse plan put gold gold.json`,
		Args:    args(2, 2, "a plan's name and a file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := os.ReadFile(args[1])
			if err != nil {
				return usagef("%v", err)
			}
			var file planFile
			// A misspelt quota must not be one that was left out.
			if err := json.Unmarshal(text, &file, json.RejectUnknownMembers(true)); err != nil {
				return usagef("%s: %v", args[1], err)
			}
			// An object without them is some other file.
			if len(file.Quotas) == 0 {
				return usagef("%s has no quotas; \"copse plan get default --output json\" shows the form", args[1])
			}
			c, err := a.newClient()
			if err != nil {
				return err
			}
			var out api.Plan
			err = c.do(cmd.Context(), request{method: http.MethodPut, path: planPath(args[0]),
				in: putPlanBody{file.Description, file.Quotas}, out: &out})
			if err != nil {
				return err
			}
			return a.showPlan(out)
		},
	}
}

// planDelete does not ask: policy stores on the plan go on with other quotas, and keep what they hold.
func (a *app) planDelete() *cobra.Command {
	return &cobra.Command{
		Use:   "delete PLAN",
		Short: "Delete a plan, or bring back what is built in",
		Long: `Delete a plan of your own: its policy stores have the quotas of the plan "default" from then on. A plan
that is built in is again as copse has it.`,
		Example: `  copse plan delete gold`,
		Args:    args(1, 1, "the plan's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.newClient()
			if err != nil {
				return err
			}
			if err := c.do(cmd.Context(), request{method: http.MethodDelete, path: planPath(args[0])}); err != nil {
				return err
			}
			a.say("plan %s is deleted, or as it is built in", args[0])
			return nil
		},
	}
}
