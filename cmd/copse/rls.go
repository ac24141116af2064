package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/rls"
)

// rlsCommand speaks to no copse at all: its SQL is made here, and check connects to the database of the
// services.
func (a *app) rlsCommand() *cobra.Command {
	return group("rls", "Have PostgreSQL refuse the rows of other tenants",
		`Row-level security is the last link of the chain: it holds when a query has forgotten its WHERE
clause. init and add write the SQL, as migrations for you to review and run; check looks into a live
database for every way around it. Services then use the Go package rls, or set copse.tenant in each
transaction themselves.

It does not stop injected SQL, which can set another tenant.`,
		`  copse rls init --role app > migrations/001_rls.sql
  copse rls add invoices customers --role app > migrations/002_rls.sql
  copse rls check --role app`,
		a.rlsInit(), a.rlsAdd(), a.rlsCheck())
}

// rlsInit needs no database. Names that no SQL can be made of are wrong usage.
func (a *app) rlsInit() *cobra.Command {
	var role string
	var schemas []string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write the SQL that makes the role a service connects as",
		Long: `Write the SQL that makes the role a service connects as: one that owns nothing, is a member of
nothing, bypasses no policy and can't make tables, temporary ones included. Nothing is run.

Names are taken byte for byte and quoted: App is not app.`,
		Example: `  copse rls init --role app > migrations/001_rls.sql

  # when tables are not in public
  copse rls init --role app --schema sales --schema billing`,
		Args: args(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			sql, err := rls.InitSQL(role, schemas...)
			if err != nil {
				return rlsFailure(err)
			}
			return a.showSQL(sql)
		},
	}
	rlsRoleFlag(cmd, &role)
	cmd.Flags().StringArrayVar(&schemas, "schema", []string{"public"}, "schema with tables of tenants; repeat it for more")
	return cmd
}

// rlsAdd prints one migration for all tables named, or nothing when one of the names is wrong.
func (a *app) rlsAdd() *cobra.Command {
	var table rls.Table
	cmd := &cobra.Command{
		Use:   "add TABLE...",
		Short: "Write the SQL that keeps tenants apart in a table",
		Long: `Write the SQL that enables and forces row-level security on tables, makes the policies, and lets
the role at them. Nothing is run; it may be run again.

A table is named as SQL would: invoices, sales.invoices, or with quotes, '"My Table"'. Names are taken
byte for byte, and without a schema it is public. The tenant's column is there already; it becomes
NOT NULL, and its default the transaction's tenant.`,
		Example: `  copse rls add invoices customers --role app > migrations/002_rls.sql
  copse rls add sales.orders --role app --column org_id --type uuid`,
		Args: args(1, -1, "tables"),
		RunE: func(_ *cobra.Command, names []string) error {
			// Printed at the end: half a migration would look like a whole one.
			var all strings.Builder
			for _, name := range names {
				var err error
				// table keeps role, column and type from one name to the next.
				if table.Schema, table.Name, err = rls.ParseTable(name); err != nil {
					return rlsFailure(err)
				}
				sql, err := rls.AddTableSQL(table)
				if err != nil {
					return rlsFailure(err)
				}
				all.WriteString(sql)
			}
			return a.showSQL(all.String())
		},
	}
	rlsRoleFlag(cmd, &table.Role)
	cmd.Flags().StringVar(&table.Column, "column", "tenant_id", "column that holds the tenant")
	cmd.Flags().StringVar(&table.Type, "type", "text", "type of that column: text (varchar too) or uuid")
	return cmd
}

// rlsRoleFlag adds --role, which has to be given, and takes the command's PreRunE for that. There is no
// default: SQL for the wrong role would keep nobody out.
func rlsRoleFlag(cmd *cobra.Command, role *string) {
	cmd.Flags().StringVar(role, "role", "", "role that the service connects as")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if *role == "" {
			return usagef("which role? give --role the name of the one that the service connects as")
		}
		return nil
	}
}

// showSQL prints SQL as it is, to be redirected into a file, or in a member of an object.
func (a *app) showSQL(sql string) error {
	if a.output == "json" {
		return a.show(map[string]string{"sql": sql}, nil)
	}
	_, err := fmt.Fprint(a.stdout, sql)
	return err
}

// rlsCheckResult is what `rls check --output json` prints. Both are lists, also where there is nothing in
// them; what was accepted does not change the exit code.
type rlsCheckResult struct {
	Findings []rls.Finding `json:"findings"`
	Accepted []rls.Finding `json:"accepted"`
}

// rlsCheck is the one of them that connects to a database, with the rights of whoever runs it. Findings are
// printed as SQL, and the code is 1 when there is one that was not accepted.
func (a *app) rlsCheck() *cobra.Command {
	var audit rls.Audit
	var database string
	var accept []string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look into a live database for ways across tenants",
		Long: `Look into a live database for every way in which the role could see or sway the rows of another
tenant, or learn of them. Only catalogs are read, in a read-only transaction; any role that may connect
can do it. The connection string or URL is in COPSE_DATABASE_URL, or in --database where other users of
this machine may see it.

Findings are printed as SQL to review: what leaks, as a comment, and the fix. The exit code is 1 if there
is one, so that this can stand in CI. What you have looked at and want so is accepted by the name of the
check, for one object or for all.

It looks for:

` + rlsCheckList(),
		Example: `  COPSE_DATABASE_URL=postgres://app@db/shop copse rls check --role app

  # countries are the same for every tenant
  copse rls check --role app --accept no-tenant-column:public.countries`,
		Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if database == "" {
				database = a.env("COPSE_DATABASE_URL")
			}
			if database == "" {
				return usagef("which database? set COPSE_DATABASE_URL to its connection string or URL")
			}
			if err := checkAccepts(accept); err != nil {
				return err
			}
			findings, err := rls.Check(cmd.Context(), database, audit)
			if err != nil {
				return rlsFailure(err)
			}
			return a.showRLSFindings(findings, accept)
		},
	}
	rlsRoleFlag(cmd, &audit.Role)
	cmd.Flags().StringVar(&audit.Column, "column", "tenant_id", "column that holds the tenant")
	cmd.Flags().StringVar(&database, "database", "", "connection string or URL (COPSE_DATABASE_URL)")
	cmd.Flags().StringArrayVar(&accept, "accept", nil, "CHECK or CHECK:OBJECT that is no finding; repeat it for more")
	return cmd
}

// rlsCheckList is the list of checks for the help, from the checks themselves.
func rlsCheckList() string {
	var b strings.Builder
	for _, c := range rls.Checks() {
		fmt.Fprintf(&b, "  %-20s %s\n", c.Name, c.Finds)
	}
	return b.String()
}

// checkAccepts refuses the name of a check that there is none of: it would accept nothing, in silence.
func checkAccepts(accept []string) error {
	checks := rls.Checks()
	for _, entry := range accept {
		name, _, _ := strings.Cut(entry, ":")
		if !slices.ContainsFunc(checks, func(c rls.CheckInfo) bool { return c.Name == name }) {
			return usagef("--accept %s: there is no check %q; `copse rls check --help` lists them", entry, name)
		}
	}
	return nil
}

// showRLSFindings shows what was found and not accepted; in JSON both. An entry of --accept that met no
// finding is told, since it would hide a new one of the same name later.
func (a *app) showRLSFindings(findings []rls.Finding, accept []string) error {
	result := rlsCheckResult{Findings: []rls.Finding{}, Accepted: []rls.Finding{}}
	used := map[string]bool{}
	for _, f := range findings {
		// By the check alone for all objects, or with the object's name as the finding has it.
		i := slices.IndexFunc(accept, func(entry string) bool { return entry == f.Check || entry == f.Check+":"+f.Object })
		if i < 0 {
			result.Findings = append(result.Findings, f)
			continue
		}
		// The first entry that fits counts, so that a second one for the same is told as well.
		used[accept[i]] = true
		result.Accepted = append(result.Accepted, f)
	}
	for _, entry := range accept {
		if !used[entry] {
			a.say("--accept %s: there is no such finding any more", entry)
		}
	}
	if a.output == "json" {
		if err := a.show(result, nil); err != nil {
			return err
		}
	} else {
		for _, f := range result.Findings {
			// Object and detail are names in the database, of anybody who may make tables there: they stay
			// within the comment.
			fmt.Fprintf(a.stdout, "-- %s: %s\n-- %s\n%s\n\n", f.Check, oneLine(f.Object), oneLine(f.Detail), shownFix(f.Fix))
		}
	}
	summary := fmt.Sprintf("rls check: %s, %d accepted", count(len(result.Findings), "finding"), len(result.Accepted))
	if len(result.Findings) > 0 {
		return &failure{code: exitError, message: summary}
	}
	if a.output != "json" {
		a.say("%s", summary)
	}
	return nil
}

// shownFix is SQL as it has to be, or nothing that looks like it: a name can hold what steers a terminal,
// and without that it would be another name.
func shownFix(fix string) string {
	if strings.ContainsFunc(fix, unprintable) {
		return "-- the fix has characters that can't be shown: --output json has it"
	}
	return fix
}

// rlsFailure is an error of package rls, as a fault of the command line where it is one. Names, connection
// strings and types that are none are such faults: package rls has the kind Invalid for them.
func rlsFailure(err error) error {
	if copse.KindOf(err) == copse.Invalid {
		return usagef("%v", err)
	}
	return failf("%w", err)
}
