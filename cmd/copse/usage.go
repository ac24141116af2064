package main

import (
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/copse-authz/copse/internal/api"
)

// usageCommand shows counts of one server's memory: they begin anew when it starts, and another server
// behind the same address has its own.
func (a *app) usageCommand() *cobra.Command {
	var by string
	var top int
	cmd := &cobra.Command{
		Use:   "usage",
		Short: "See which policy stores are used most",
		Long: `List the policy stores that were used most in the last five minutes, as the server that answers has
counted them: metrics name no tenant. A key with admin everywhere sees all of them; a key of a tenant or
a policy store, with read, its own only.`,
		Example: `  copse usage
  copse usage --by refusals --top 3`,
		Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.newClient()
			if err != nil {
				return err
			}
			// What is no order, and a number that is too large, are the server's to refuse.
			query := url.Values{"by": {by}, "top": {strconv.Itoa(top)}}
			var out api.UsageList
			if err := c.do(cmd.Context(), request{method: http.MethodGet, path: "/v1/usage", query: query, out: &out}); err != nil {
				return err
			}
			return a.show(out, func(t *table) {
				t.row("TENANT", "POLICY STORE", "DECISIONS", "REFUSALS", "COMPILED BYTES")
				for _, u := range out.PolicyStores {
					// A policy store without a tenant has a dash.
					t.row(u.Tenant, u.PolicyStoreID, strconv.FormatInt(u.Decisions, 10), strconv.FormatInt(u.Refusals, 10), strconv.FormatInt(u.CompiledBytes, 10))
				}
			})
		},
	}
	cmd.Flags().StringVar(&by, "by", "decisions", "decisions, refusals or bytes: what the list begins with the most of")
	cmd.Flags().IntVar(&top, "top", 10, "how many to list")
	return cmd
}
