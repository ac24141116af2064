package main

import (
	"github.com/spf13/cobra"
)

// checkResult is what `policy check --output json` prints, for editors and CI. Findings is a list also where
// there is nothing in it. Where files could not be read as policies the numbers are 0.
type checkResult struct {
	Policies  int       `json:"policies"` // links among them
	Templates int       `json:"templates"`
	Findings  []finding `json:"findings"`
	Warnings  []finding `json:"warnings,omitempty"`
}

// policyCheck asks no server and needs no key.
func (a *app) policyCheck() *cobra.Command {
	var schemaFile, format string
	cmd := &cobra.Command{
		Use:   "check FILE|DIR...",
		Short: "Check policies against a schema, without a server",
		Long: `Check policies by the same code a server checks them with, but without one: that they parse, that
each has a name of its own, that none is over a limit and, with --schema, that they agree with the
schema as STRICT demands. Nothing is sent anywhere.

Each finding has file, line and column, and the line itself. The exit code is 1 if there is one, so
that this can stand in CI or in a commit hook. Warnings are printed and change nothing else: policies
that can never be satisfied, characters that change the direction of writing, strings of mixed scripts.`,
		Example: `  copse policy check policies/ --schema acme.cedarschema

  # in an editor or a CI step
  copse policy check policies/ --schema acme.cedarschema --output json`,
		Args: args(1, -1, "files or directories"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.check(schemaFile, format, args)
		},
	}
	cmd.Flags().StringVar(&schemaFile, "schema", "", "file of the schema, in Cedar or JSON syntax")
	cmd.Flags().StringVar(&format, "format", "", "syntax of the schema: cedar or json (default: by the file's extension)")
	return cmd
}

// check reads and validates files, and shows all that is found. What keeps the files from being read as
// policies is a finding like any other when it has a place in a file; otherwise it is the error. Findings
// end it with code 1, warnings do not.
func (a *app) check(schemaFile, format string, paths []string) error {
	// local is nil when reading failed, and there is nothing to count.
	local, err := a.readContents(schemaFile, format, paths)
	var findings, warnings []finding
	switch bad := asFailure(err); {
	case err == nil:
		findings, warnings = local.checkLocally()
	// Files were read, and what is in them is wrong.
	case bad != nil && len(bad.findings) > 0:
		findings = bad.findings
	default:
		return err
	}
	result := checkResult{Findings: findings, Warnings: warnings}
	if local != nil {
		result.Policies, result.Templates = len(local.policies), len(local.templates)
	}
	if a.output == "json" {
		// An editor reads a list, also where there is nothing in it.
		if result.Findings == nil {
			result.Findings = []finding{}
		}
		if err := a.show(result, nil); err != nil {
			return err
		}
	}
	if a.output != "json" {
		// Warnings are no part of the error, which has the findings.
		for _, w := range warnings {
			w.render(a.stderr)
		}
	}
	if len(findings) > 0 {
		// As JSON they are on standard output already, and are not said twice.
		failed := &failure{code: exitError, message: "policy check: " + count(len(findings), "finding")}
		if a.output != "json" {
			failed.findings = findings
		}
		return failed
	}
	switch {
	case a.output == "json":
	case schemaFile == "":
		a.say("%s: the syntax is right (give --schema to check more)", result.counted())
	default:
		a.say("%s agree with %s", result.counted(), schemaFile)
	}
	return nil
}

// counted is what was looked at, in words.
func (r *checkResult) counted() string {
	if r.Templates == 0 {
		return policiesCount(r.Policies)
	}
	return policiesCount(r.Policies) + " and " + count(r.Templates, "template")
}

// policiesCount is [count] for a word that does not take a plain s.
func policiesCount(n int) string {
	if n == 1 {
		return "1 policy"
	}
	return count(n, "policie")
}
