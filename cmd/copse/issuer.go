package main

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/api"
)

func (a *app) issuerCommand() *cobra.Command {
	return group("issuer", "Say whose tokens are trusted, and for which tenants",
		`An issuer is an identity provider whose tokens copse believes. It is registered once, under its URL
byte for byte as the iss claim has it, together with the tenants it may speak for: a valid token that
names another tenant is refused.`,
		`  copse issuer add https://idp.example.com/acme --tenant acme --audience api.example.com \
      --tenant-claim tenant_id --principal-type User
  copse issuer list`,
		a.issuerAdd(), a.issuerUpdate(), a.issuerGet(), a.issuerList(), a.issuerRemove())
}

// issuerFlags binds one flag to each field of a registration. The names are those that [explainFlags] makes
// of the members, so that what the server finds wrong is told with the flag.
func issuerFlags(flags *pflag.FlagSet, in *api.Issuer) {
	flags.StringArrayVarP(&in.Tenants, "tenant", "t", nil, "a tenant it may speak for; may be repeated")
	flags.BoolVar(&in.AllTenants, "all-tenants", false, "it may speak for every tenant, also those to come")
	flags.StringVar(&in.TokenType, "token-type", string(copse.TokenAccess), "the type of token that is accepted: access or id")
	flags.StringArrayVar(&in.Audiences, "audience", nil, "a value of the aud claim that is accepted; may be repeated")
	flags.StringArrayVar(&in.ClientIDs, "client-id", nil, "a value of the client_id claim that is accepted instead (Cognito access tokens); may be repeated")
	flags.StringArrayVar(&in.Algorithms, "algorithm", nil, "a signature algorithm that is accepted; may be repeated (default: the server's)")
	flags.StringVar(&in.TenantClaim, "tenant-claim", "", "the claim that names the tenant, or a JSON pointer such as /app/tenant")
	flags.StringVar(&in.FixedTenant, "fixed-tenant", "", "the one tenant of all its tokens, instead of --tenant-claim")
	flags.StringVar(&in.PrincipalType, "principal-type", "User", "Cedar entity type of its users")
	flags.StringVar(&in.PrincipalIDClaim, "principal-id-claim", "", "the claim that names the user (default: sub)")
	flags.StringVar(&in.PrincipalIDPrefix, "principal-id-prefix", "", "put before the user's id, with a bar between")
	flags.StringVar(&in.GroupType, "group-type", "", "Cedar entity type of the user's groups")
	flags.StringVar(&in.GroupClaim, "group-claim", "", "the claim that lists the user's groups")
	flags.StringArrayVar(&in.EmailDomains, "email-domain", nil, "an e-mail domain it may vouch for; may be repeated")
	flags.BoolVar(&in.SameSubjects, "same-subjects", false, "its subjects are the same people as another issuer's of the same tenant")
}

// issuerAdd sends what the flags say and checks nothing by itself: the rules of registrations are the server's.
func (a *app) issuerAdd() *cobra.Command {
	var in api.Issuer
	cmd := &cobra.Command{
		Use:   "add URL",
		Short: "Trust an issuer",
		Long: `Trust an issuer, for the tenants named. Its keys are fetched from the discovery document at its URL.

The URL is compared with the iss claim byte by byte: a slash at the end matters. At least one
--audience or --client-id is needed, so that a token made for another service is not accepted here.
Two issuers for one tenant each need a --principal-id-prefix or a --principal-type of their own, or the
users of one could pass for the other's; if they are the same people, --same-subjects says so.`,
		Example: `  # one identity provider per tenant
  copse issuer add https://idp.example.com/acme --tenant acme --fixed-tenant acme \
      --audience api.example.com --group-type Role --group-claim roles

  # one for all, with the tenant in a claim
  copse issuer add https://login.example.com --all-tenants --tenant-claim tenant_id \
      --audience api.example.com`,
		Args: args(1, 1, "the issuer's URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.newClient()
			if err != nil {
				return err
			}
			// Byte for byte: nothing is tidied up, since the iss claim is compared with it.
			in.URL = args[0]
			var out api.Issuer
			if err := c.do(cmd.Context(), request{method: http.MethodPost, path: "/v1/issuers", in: in, out: &out}); err != nil {
				return explainFlags(cmd.Flags(), err)
			}
			return a.showIssuer(out)
		},
	}
	issuerFlags(cmd.Flags(), &in)
	a.completeTenantFlag(cmd)
	return cmd
}

// issuerUpdate reads the registration, changes it and sends it back with the revision that was read: a
// change that somebody else made meanwhile is a conflict, and not undone.
func (a *app) issuerUpdate() *cobra.Command {
	var change api.Issuer
	cmd := &cobra.Command{
		Use:   "update URL|ID",
		Short: "Change a trusted issuer",
		Long: `Change a trusted issuer, found by its URL or its id: what a flag is given for is replaced, as a whole
list where it is one; the rest stays. The URL can't change. Tokens accepted before are looked at
again under the new registration.`,
		Example: `  # it speaks for two tenants from now on, and for no others
  copse issuer update https://idp.example.com/acme --tenant acme --tenant acme-test`,
		Args: args(1, 1, "the issuer's URL or id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if change.AllTenants && cmd.Flags().Changed("tenant") {
				return usagef("--all-tenants and --tenant: it speaks for all or for those in a list")
			}
			c, err := a.newClient()
			if err != nil {
				return err
			}
			// With its revision, which goes back with the change.
			current, err := c.issuer(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			in := applyIssuerFlags(cmd.Flags(), current, change)
			var out api.Issuer
			err = c.do(cmd.Context(), request{method: http.MethodPut, path: "/v1/issuers/" + url.PathEscape(current.ID), in: in, out: &out})
			if err != nil {
				return explainFlags(cmd.Flags(), err)
			}
			return a.showIssuer(out)
		},
	}
	issuerFlags(cmd.Flags(), &change)
	a.completeTenantFlag(cmd)
	return cmd
}

// applyIssuerFlags takes over what flags were given for; those left at their defaults change nothing.
// Members of which only one may be set push each other out. issuer is a copy, and what it returns is that
// copy, changed.
func applyIssuerFlags(flags *pflag.FlagSet, issuer, change api.Issuer) api.Issuer {
	// One entry for each flag of issuerFlags: one that is missing here would be given and do nothing.
	set := map[string]func(){
		"tenant":              func() { issuer.Tenants, issuer.AllTenants = change.Tenants, false },
		"all-tenants":         func() { issuer.AllTenants = change.AllTenants },
		"token-type":          func() { issuer.TokenType = change.TokenType },
		"audience":            func() { issuer.Audiences = change.Audiences },
		"client-id":           func() { issuer.ClientIDs = change.ClientIDs },
		"algorithm":           func() { issuer.Algorithms = change.Algorithms },
		"tenant-claim":        func() { issuer.TenantClaim, issuer.FixedTenant = change.TenantClaim, "" },
		"fixed-tenant":        func() { issuer.TenantClaim, issuer.FixedTenant = "", change.FixedTenant },
		"principal-type":      func() { issuer.PrincipalType = change.PrincipalType },
		"principal-id-claim":  func() { issuer.PrincipalIDClaim = change.PrincipalIDClaim },
		"principal-id-prefix": func() { issuer.PrincipalIDPrefix = change.PrincipalIDPrefix },
		"group-type":          func() { issuer.GroupType = change.GroupType },
		"group-claim":         func() { issuer.GroupClaim = change.GroupClaim },
		"email-domain":        func() { issuer.EmailDomains = change.EmailDomains },
		"same-subjects":       func() { issuer.SameSubjects = change.SameSubjects },
	}
	// Visit has the flags that were given. The defaults of others must not replace what is registered.
	flags.Visit(func(f *pflag.Flag) {
		if apply, known := set[f.Name]; known {
			apply()
		}
	})
	// The server takes either a list or all: the list goes.
	if flags.Changed("all-tenants") && change.AllTenants && !flags.Changed("tenant") {
		issuer.Tenants = nil
	}
	return issuer
}

// showIssuer shows a registration the way a person asks about it: whose tokens, for which tenants, as which
// users.
func (a *app) showIssuer(i api.Issuer) error {
	return a.show(i, func(t *table) {
		t.pairs("issuer", i.URL, "id", i.ID, "tenants", tenantsOf(i), "tenant claim", tenantClaimOf(i),
			"token type", i.TokenType, "audiences", listed(i.Audiences), "client ids", listed(i.ClientIDs),
			"algorithms", listed(i.Algorithms), "principal", principalOf(i), "groups", groupsOf(i),
			"e-mail domains", listed(i.EmailDomains), "updated", when(i.UpdatedAt))
		if i.SameSubjects {
			t.pairs("same subjects", "yes")
		}
	})
}

// tenantsOf is for whom an issuer may speak; empty, nobody.
func tenantsOf(i api.Issuer) string {
	if i.AllTenants {
		return "all"
	}
	return listed(i.Tenants)
}

// tenantClaimOf is where the tenant of a token comes from.
func tenantClaimOf(i api.Issuer) string {
	if i.FixedTenant != "" {
		return "always " + i.FixedTenant
	}
	return i.TenantClaim
}

// principalOf shows what becomes of a user, with the claim's name in the place of its value.
func principalOf(i api.Issuer) string {
	// sub is what the server takes when no claim is named.
	id := "<" + firstOf(i.PrincipalIDClaim, "sub") + ">"
	if i.PrincipalIDPrefix != "" {
		id = i.PrincipalIDPrefix + "|" + id
	}
	return i.PrincipalType + `::"` + id + `"`
}

// groupsOf does the same for groups; empty where there are none.
func groupsOf(i api.Issuer) string {
	if i.GroupClaim == "" {
		return ""
	}
	return i.GroupType + `::"<` + i.GroupClaim + `>"`
}

// issuerGet finds the registration in the list of all: the API has them by id, people have the URL.
func (a *app) issuerGet() *cobra.Command {
	return &cobra.Command{
		Use:     "get URL|ID",
		Short:   "Show a trusted issuer",
		Long:    `Show the registration of a trusted issuer, found by its URL or its id.`,
		Example: `  copse issuer get https://idp.example.com/acme`,
		Args:    args(1, 1, "the issuer's URL or id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.newClient()
			if err != nil {
				return err
			}
			issuer, err := c.issuer(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.showIssuer(issuer)
		},
	}
}

// issuerList needs a key with admin everywhere, as all of these commands do: registrations say who is believed.
func (a *app) issuerList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the trusted issuers",
		Long:  `List the trusted issuers and the tenants each may speak for.`,
		Example: `  copse issuer list

  # who may speak for acme?
  copse issuer list --output json | jq -r '.issuers[] | select(.allTenants or (.tenants // [] | index("acme"))).url'`,
		Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.newClient()
			if err != nil {
				return err
			}
			all, err := c.issuers(cmd.Context())
			if err != nil {
				return err
			}
			return a.show(all, func(t *table) {
				t.row("ISSUER", "TENANTS", "TOKENS", "AUDIENCES", "PRINCIPAL", "ID")
				// A registration has audiences, client ids, or both: one column has what a token must name.
				for _, i := range all.Issuers {
					t.row(i.URL, tenantsOf(i), i.TokenType, listed(append(i.Audiences, i.ClientIDs...)), principalOf(i), i.ID)
				}
			})
		},
	}
}

// issuerRemove asks with the URL of what was found, so that an id of the wrong issuer is seen in time.
func (a *app) issuerRemove() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "remove URL|ID",
		Short: "Stop trusting an issuer",
		Long: `Stop trusting an issuer, found by its URL or its id. Its tokens are refused from then on, also those
that were accepted a moment before.`,
		Example: `  copse issuer remove https://idp.example.com/acme`,
		Args:    args(1, 1, "the issuer's URL or id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.newClient()
			if err != nil {
				return err
			}
			issuer, err := c.issuer(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if err := a.confirm(yes, "Refuse all tokens of "+strings.TrimSpace(issuer.URL)+"?"); err != nil {
				return err
			}
			if err := c.do(cmd.Context(), request{method: http.MethodDelete, path: "/v1/issuers/" + url.PathEscape(issuer.ID)}); err != nil {
				return err
			}
			a.say("issuer %s is no longer trusted", issuer.URL)
			return nil
		},
	}
	yesFlag(cmd, &yes)
	return cmd
}
