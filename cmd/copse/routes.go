package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/copse-authz/copse/internal/authorizer"
)

// routesCommand needs no server and no key. What is wrong with a table is told by the code that a server
// reads it with.
func (a *app) routesCommand() *cobra.Command {
	return group("routes", "Check the route table of gateways, without a server",
		`The route table (serve --routes-file) says what a request at a gateway asks: which action on which
resource. What no route matches is denied. docs/gateway.md describes the file.`,
		`  copse routes check routes.yaml
  copse routes test routes.yaml GET /invoices/17`,
		a.routesCheck(), a.routesTest())
}

// readRoutes reads a route table by the server's own code, so that what passes here is taken there.
// The error has the line where there is one.
func readRoutes(file string) (*authorizer.RouteTable, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, failf("%w", err)
	}
	return authorizer.ParseRoutes(file, text)
}

// routesCheck says how many routes there are, which shows that it was the right file.
func (a *app) routesCheck() *cobra.Command {
	return &cobra.Command{
		Use:     "check FILE",
		Short:   "Check a route table",
		Long:    `Read a route table as the server would. A mistake is told with its line, and the exit code is 1.`,
		Example: `  copse routes check routes.yaml`,
		Args:    args(1, 1, "the route table's file"),
		RunE: func(_ *cobra.Command, args []string) error {
			routes, err := readRoutes(args[0])
			if err != nil {
				return err
			}
			a.say("%s: %s", args[0], count(routes.Len(), "route"))
			return nil
		},
	}
}

// routeMatch is what `routes test --output json` prints. Path is the one that was matched, Context is JSON
// and Service the audience of the signed context.
type routeMatch struct {
	Route    string `json:"route"`
	Line     int    `json:"line"`
	Path     string `json:"path"`
	Action   string `json:"action"`
	Resource string `json:"resource"`
	Context  string `json:"context,omitempty"`
	Service  string `json:"service,omitempty"`
}

// routesTest sends no request and knows no headers: what a route takes from one is as if it were not there.
func (a *app) routesTest() *cobra.Command {
	return &cobra.Command{
		Use:   "test FILE METHOD PATH",
		Short: "Show what a request would ask",
		Long: `Show which route a request matches and what is then decided, for a path as a client sends it, query
included. A request that would be denied without a decision, because no route matches it or because it
can be read in more than one way, is told so, and the exit code is 1.`,
		Example: `  copse routes test routes.yaml GET /invoices/17
  copse routes test routes.yaml GET '/invoices/..%2f17'`,
		Args: args(3, 3, "the route table's file, a method and a path"),
		RunE: func(_ *cobra.Command, args []string) error {
			routes, err := readRoutes(args[0])
			if err != nil {
				return err
			}
			m, err := routes.Match(&authorizer.Asked{Method: args[1], Target: args[2]})
			if err != nil {
				// A request that no route takes is the answer to the question, but a script must see that it
				// is no match.
				return failf("denied without a decision: %w", err)
			}
			// What the request asks, with its parameters filled in.
			found := routeMatch{
				Route: m.Route.Pattern, Line: m.Route.Line, Path: m.Path,
				Action: m.Route.Action.String(), Resource: m.Resource.String(),
				Context: string(m.Context.Bytes), Service: m.Route.Service,
			}
			return a.show(found, func(t *table) {
				t.pairs("route", fmt.Sprintf("%s (line %d)", found.Route, found.Line),
					"action", found.Action, "resource", found.Resource, "context", found.Context, "service", found.Service)
			})
		},
	}
}
