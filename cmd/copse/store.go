package main

import (
	"net/http"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/copse-authz/copse/internal/api"
)

// storeCommand is about one policy store's settings; `copse tenant` makes policy stores and deletes them.
func (a *app) storeCommand() *cobra.Command {
	return group("store", "Look at a policy store's settings, and change them",
		`A policy store has settings that change its answers, a protection from deletion, and a plan: the
quotas it has. All of them can be changed at any time, and are in force when the command has answered.`,
		`  copse store get --tenant acme
  copse store update --tenant acme --plan unmetered`,
		a.storeGet(), a.storeUpdate())
}

// showStore shows all settings, also those at their defaults: what is in force is what is looked for.
func (a *app) showStore(ps api.PolicyStore) error {
	return a.show(ps, func(t *table) {
		t.pairs("policy store", ps.PolicyStoreID, "tenant", ps.Tenant, "description", ps.Description,
			"validation", ps.Settings.Validation, "check requests", strconv.FormatBool(ps.Settings.CheckRequests),
			"forbid errors deny", strconv.FormatBool(ps.Settings.ForbidErrorsDeny),
			"deletion protection", strconv.FormatBool(ps.DeletionProtection), "plan", ps.Plan,
			"decision log full", ps.DecisionLog.Full, "decision log keeps", listed(ps.DecisionLog.Keep), "decision log hashes", listed(ps.DecisionLog.Hash),
			"decision log drops", listed(ps.DecisionLog.Drop), "decision log hashes ids of", listed(ps.DecisionLog.HashIDs),
			"policies", strconv.Itoa(ps.Policies), "revision", strconv.FormatUint(ps.Revision, 10),
			"created", when(ps.CreatedAt), "updated", when(ps.UpdatedAt))
	})
}

// storeGet needs a key that may read the policy store.
func (a *app) storeGet() *cobra.Command {
	var target target
	cmd := &cobra.Command{
		Use:   "get",
		Short: "Show a policy store's settings and plan",
		Long:  `Show a policy store: whose it is, its settings, its plan, and how much is in it.`,
		Example: `  copse store get --tenant acme
  copse store get --policy-store C7v5xMplfFH3i3e4Jrzb1a --output json`,
		Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.newClient()
			if err != nil {
				return err
			}
			id, err := target.resolve(cmd.Context(), c)
			if err != nil {
				return err
			}
			var out api.PolicyStore
			if err := c.do(cmd.Context(), request{method: http.MethodGet, path: policyStorePath(id), out: &out}); err != nil {
				return err
			}
			return a.showStore(out)
		},
	}
	target.flags(a, cmd)
	return cmd
}

// storeUpdate sends what was given and nothing else. A flag that is not given is not the same as its
// default: the request has pointers for that, nil where a setting is to stay.
func (a *app) storeUpdate() *cobra.Command {
	var target target
	var validation, description, plan string
	var checkRequests, forbidErrorsDeny, protection bool
	var log logFlags
	cmd := &cobra.Command{
		Use:   "update",
		Short: "Change a policy store's settings, deletion protection or plan",
		Long: `Change what the flags name, and nothing else. Switching validation to STRICT does not check the
policies that are there; "copse schema check" does.

While --deletion-protection is on, neither the policy store nor its tenant nor its aliases can be
deleted.

The decision log has nothing of a request's context and attributes but what rules keep or hash. Paths
are written as in policies: context.ip, principal["cost center"], or context for all of it; the longest
that matches wins. A list of rules replaces the former one; '' clears it.`,
		Example: `  copse store update --tenant acme --validation STRICT --check-requests
  copse store update --tenant acme --deletion-protection=false
  copse store update --tenant acme --plan avp
  copse store update --tenant acme --decision-log-full wait
  copse store update --tenant acme --decision-log-keep context.ip --decision-log-hash principal.email`,
		Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var in api.UpdatePolicyStoreRequest
			changed := cmd.Flags().Changed
			given(changed("validation"), &in.Validation, &validation)
			given(changed("description"), &in.Description, &description)
			given(changed("plan"), &in.Plan, &plan)
			given(changed("check-requests"), &in.CheckRequests, &checkRequests)
			given(changed("forbid-errors-deny"), &in.ForbidErrorsDeny, &forbidErrorsDeny)
			given(changed("deletion-protection"), &in.DeletionProtection, &protection)
			// nil leaves the rules as they are.
			in.DecisionLog = log.update(changed)
			// Only pointers are in it, so that equal means none was set.
			if in == (api.UpdatePolicyStoreRequest{}) {
				return usagef("nothing to change: give a flag, such as --plan")
			}
			// It needs a key with admin everywhere, whoever's policy store it is: quotas are the operator's.
			c, err := a.newClient()
			if err != nil {
				return err
			}
			id, err := target.resolve(cmd.Context(), c)
			if err != nil {
				return err
			}
			var out api.PolicyStore
			if err := c.do(cmd.Context(), request{method: http.MethodPatch, path: policyStorePath(id), in: in, out: &out}); err != nil {
				return explainFlags(cmd.Flags(), err)
			}
			return a.showStore(out)
		},
	}
	target.flags(a, cmd)
	flags := cmd.Flags()
	flags.StringVar(&validation, "validation", "", "STRICT or OFF: whether policies must agree with the schema")
	flags.StringVar(&description, "description", "", "for people")
	flags.StringVar(&plan, "plan", "", "the plan whose quotas it has")
	flags.BoolVar(&checkRequests, "check-requests", false, "refuse decision requests that disagree with the schema")
	flags.BoolVar(&forbidErrorsDeny, "forbid-errors-deny", false, "deny when a forbid policy fails to evaluate, where Cedar skips it")
	log.flags(flags)
	flags.BoolVar(&protection, "deletion-protection", false, "refuse to delete it")
	return cmd
}

// logFlags are those of how decisions are logged. A list that is given replaces the stored one, whole.
type logFlags struct {
	full                      string
	keep, hash, drop, hashIDs []string
}

// flags adds them to a command.
func (l *logFlags) flags(flags *pflag.FlagSet) {
	flags.StringVar(&l.full, "decision-log-full", "", "drop or wait: whether a decision that can't be logged is given, or refused")
	flags.StringArrayVar(&l.keep, "decision-log-keep", nil, "a path of context, principal or resource whose value is logged; repeat it")
	flags.StringArrayVar(&l.hash, "decision-log-hash", nil, "a path whose value is logged as a hash; repeat it")
	flags.StringArrayVar(&l.drop, "decision-log-drop", nil, "a path that is not logged although a shorter one is; repeat it")
	flags.StringSliceVar(&l.hashIDs, "decision-log-hash-ids", nil, "principal,resource: whose ids are logged as hashes")
}

// update is what the flags change, nil when none was given: then the rules stay as they are. changed says
// whether the flag of a name was given.
func (l *logFlags) update(changed func(string) bool) *api.UpdateDecisionLog {
	out := &api.UpdateDecisionLog{}
	given(changed("decision-log-full"), &out.Full, &l.full)
	for name, list := range map[string]struct {
		to   **[]string
		from *[]string
	}{"keep": {&out.Keep, &l.keep}, "hash": {&out.Hash, &l.hash}, "drop": {&out.Drop, &l.drop}, "hash-ids": {&out.HashIDs, &l.hashIDs}} {
		// '' is how a shell says that there is to be no rule; pflag makes one empty string of it, or no string.
		if len(*list.from) == 0 || len(*list.from) == 1 && (*list.from)[0] == "" {
			*list.from = []string{} // clears it
		}
		given(changed("decision-log-"+name), list.to, list.from)
	}
	if *out == (api.UpdateDecisionLog{}) {
		return nil
	}
	return out
}

// given points to a flag's value when the flag was given, and leaves *to alone otherwise. It tells a flag
// that was set to its default from one that was not set.
func given[T any](was bool, to **T, value *T) {
	if was {
		*to = value
	}
}
