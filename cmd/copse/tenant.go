package main

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/api"
)

// tenantCommand is the operator's: but for get and list, these commands need a key with admin everywhere.
func (a *app) tenantCommand() *cobra.Command {
	return group("tenant", "Take tenants in and out, and look at them",
		`A tenant is a customer of yours. Taking one in makes a policy store of its own and a directory
entry that says so; from then on the tokens that name it are decided there and nowhere else.

A tenant's id is what the tenant claim of its users' tokens says, byte for byte.`,
		`  copse tenant create acme --schema acme.cedarschema --policies policies/
  copse tenant suspend acme`,
		a.tenantCreate(), a.tenantGet(), a.tenantList(), a.tenantState("suspend"), a.tenantState("resume"), a.tenantDelete())
}

// tenantCreate reads and parses all files first, then makes everything in one call. With --policy-store
// there are no files: it is taken as it is. It needs a key with admin everywhere.
func (a *app) tenantCreate() *cobra.Command {
	var in api.CreateTenantRequest
	var schemaFile, format, validation string
	var policyPaths []string
	var checkRequests, forbidErrorsDeny bool
	cmd := &cobra.Command{
		Use:   "create TENANT",
		Short: "Take a tenant in, with its first schema and policies",
		Long: `Take a tenant in: its policy store, schema, policies and directory entry are made together or
not at all. The policies are checked against the schema first.

With a schema, the policy store is STRICT and checks requests against the schema too; without one it
is OFF and takes every policy that parses, also when a schema follows. --validation, --check-requests
and --forbid-errors-deny say otherwise.

With --policy-store, a policy store that was made through the AVP API and belongs to no tenant
becomes this tenant's, with all that is in it.`,
		Example: `  copse tenant create acme --schema acme.cedarschema --policies policies/

  # schema and policies can follow later
  copse tenant create globex --validation STRICT --check-requests
  copse schema put globex.cedarschema --tenant globex
  copse policy put policies/ --tenant globex`,
		Args: args(1, 1, "the tenant's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			// Before the files are read: the id is what is wrong then, and not they.
			if _, err := tenantPath(args[0]); err != nil {
				return err
			}
			in.Tenant = args[0]
			if in.PolicyStoreID != "" {
				// Flags that would change what is in it are refused and not left out.
				for _, other := range []string{"schema", "format", "policies", "description", "validation", "check-requests", "forbid-errors-deny"} {
					if cmd.Flags().Changed(other) {
						return usagef("--policy-store takes a policy store as it is: leave out --%s", other)
					}
				}
			}
			// Names, syntax and duplicates are judged here, with places in the files; the rest is the server's.
			local, err := a.readContents(schemaFile, format, policyPaths)
			if err != nil {
				return err
			}
			// All that is given is new: there is nothing to merge with.
			in.Schema, in.Policies = local.schemaText(), local.policyTexts()
			if templates := local.mergeTemplates(nil); templates != nil {
				in.Templates = *templates
			}
			// nil leaves the choice to the server.
			in.Settings = newSettings(cmd, in.Schema != nil, validation, checkRequests, forbidErrorsDeny)
			return a.createTenant(cmd.Context(), in, local)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&schemaFile, "schema", "", "file of the schema, in Cedar or JSON syntax")
	flags.StringVar(&format, "format", "", "syntax of the schema: cedar or json (default: by the file's extension)")
	flags.StringArrayVar(&policyPaths, "policies", nil, "a file of policies, templates or links, or a directory of such; may be repeated")
	flags.StringVar(&in.PolicyStoreID, "policy-store", "", "id of a policy store that belongs to no tenant, to be this one's as it is")
	flags.StringVar(&in.Description, "description", "", "description of the policy store, for people")
	flags.StringVar(&validation, "validation", "", "STRICT or OFF: whether policies must agree with the schema")
	flags.BoolVar(&checkRequests, "check-requests", false, "refuse decision requests that disagree with the schema")
	flags.BoolVar(&forbidErrorsDeny, "forbid-errors-deny", false, "deny when a forbid policy fails to evaluate, where Cedar skips it")
	return cmd
}

// newSettings leaves the choice to the server unless a flag makes it. The settings travel whole, so a flag
// that was not given gets here what the server would choose. nil when no flag was given. schema says whether
// the tenant gets one.
func newSettings(cmd *cobra.Command, schema bool, validation string, checkRequests, forbidErrorsDeny bool) *api.Settings {
	changed := cmd.Flags().Changed
	if !changed("validation") && !changed("check-requests") && !changed("forbid-errors-deny") {
		return nil
	}
	// As the server chooses: with a schema STRICT, and requests are checked.
	s := api.Settings{Validation: string(copse.ValidationOff), CheckRequests: schema, ForbidErrorsDeny: forbidErrorsDeny}
	if schema {
		s.Validation = string(copse.ValidationStrict)
	}
	// What it may be is the server's to say.
	if changed("validation") {
		s.Validation = validation
	}
	if changed("check-requests") {
		s.CheckRequests = checkRequests
	}
	return &s
}

// createTenant sends the request. What the server finds in schema or policies is shown in the files they
// came from.
func (a *app) createTenant(ctx context.Context, in api.CreateTenantRequest, local *localContents) error {
	c, err := a.newClient()
	if err != nil {
		return err
	}
	var out api.Tenant
	if err := c.do(ctx, request{method: http.MethodPost, path: "/v1/tenants", in: in, out: &out}); err != nil {
		return local.explain(err)
	}
	return a.showTenant(out)
}

// showTenant shows a row of the directory.
func (a *app) showTenant(tenant api.Tenant) error {
	return a.show(tenant, func(t *table) {
		t.pairs("tenant", tenant.Tenant, "state", tenant.State, "policy store", tenant.PolicyStoreID,
			"created", when(tenant.CreatedAt), "updated", when(tenant.UpdatedAt))
	})
}

// tenantGet is the way from a tenant to its policy store, for programs too.
func (a *app) tenantGet() *cobra.Command {
	return &cobra.Command{
		Use:   "get TENANT",
		Short: "Show a tenant: its state and its policy store",
		Long: `Show a tenant's directory entry: whether it is active, and which policy store decides for it.

A key that covers only this tenant's policy store and may read it can do this too.`,
		Example: `  copse tenant get acme
  copse tenant get acme --output json | jq -r .policyStoreId`,
		Args:              args(1, 1, "the tenant's id"),
		ValidArgsFunction: a.completeTenant,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.newClient()
			if err != nil {
				return err
			}
			tenant, err := c.tenant(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.showTenant(tenant)
		},
	}
}

// tenantList reads all pages before it shows the first.
func (a *app) tenantList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the tenants the key covers",
		Long:  `List the tenants that the access key covers, in the order of their ids.`,
		Example: `  copse tenant list

  # all that are suspended
  copse tenant list --output json | jq -r '.tenants[] | select(.state == "SUSPENDED").tenant'`,
		Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.newClient()
			if err != nil {
				return err
			}
			all, err := c.tenants(cmd.Context())
			if err != nil {
				return err
			}
			return a.show(all, func(t *table) {
				t.row("TENANT", "STATE", "POLICY STORE", "CREATED")
				for _, tenant := range all.Tenants {
					t.row(tenant.Tenant, tenant.State, tenant.PolicyStoreID, when(tenant.CreatedAt))
				}
			})
		},
	}
}

// tenantState makes suspend and resume, which differ in words only; verb is one of the two. Doing it again
// is no error. It needs a key with admin everywhere, so that nobody who is suspended can resume.
func (a *app) tenantState(verb string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "suspend TENANT",
		Short: "Refuse all decisions of a tenant, keeping everything",
		Long: `Suspend a tenant: every decision that starts after this command has answered is refused, the
same way as for a tenant that does not exist. Its schema and policies stay and can still be changed.`,
		Example: `  copse tenant suspend acme
  copse tenant resume acme`,
		Args:              args(1, 1, "the tenant's id"),
		ValidArgsFunction: a.completeTenant,
	}
	if verb == "resume" {
		cmd.Use, cmd.Short = "resume TENANT", "Let a suspended tenant be decided again"
		cmd.Long = `Resume a suspended tenant. Its next decision is made by the policies as they are now.`
		cmd.Example = `  copse tenant resume acme`
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		// An id that can't be one is told without asking a server.
		path, err := tenantPath(args[0])
		if err != nil {
			return err
		}
		c, err := a.newClient()
		if err != nil {
			return err
		}
		var out api.Tenant
		if err := c.do(cmd.Context(), request{method: http.MethodPost, path: path + "/" + verb, out: &out}); err != nil {
			return err
		}
		return a.showTenant(out)
	}
	return cmd
}

// tenantDelete asks with the id alone: what will be gone is everything. When it has returned, no decision is
// made for the tenant. It needs a key with admin everywhere.
func (a *app) tenantDelete() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete TENANT",
		Short: "Offboard a tenant and erase its policy store",
		Long: `Offboard a tenant: its directory entry goes first, so that no decision is made any more, then its
policy store with schema, policies and history is erased, and it is taken off the issuers that may
speak for it. This can't be undone. A tenant made later under the same id starts from nothing.`,
		Example: `  copse tenant delete acme
  copse tenant delete acme --yes   # in scripts`,
		Args:              args(1, 1, "the tenant's id"),
		ValidArgsFunction: a.completeTenant,
		RunE: func(cmd *cobra.Command, args []string) error {
			// An id that can't be one is told before anybody is asked.
			path, err := tenantPath(args[0])
			if err != nil {
				return err
			}
			c, err := a.newClient()
			if err != nil {
				return err
			}
			if err := a.confirm(yes, "Erase tenant "+args[0]+" with all its policies?"); err != nil {
				return err
			}
			if err := c.do(cmd.Context(), request{method: http.MethodDelete, path: path}); err != nil {
				return err
			}
			a.say("tenant %s is gone", args[0])
			return nil
		},
	}
	yesFlag(cmd, &yes)
	return cmd
}

// yesFlag adds --yes, for what [app.confirm] would ask.
func yesFlag(cmd *cobra.Command, yes *bool) {
	cmd.Flags().BoolVarP(yes, "yes", "y", false, "don't ask")
}
