package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/copse-authz/copse/internal/api"
)

// schemaCommand is about the schema alone; `copse policy put --schema` changes schema and policies in one
// commit.
func (a *app) schemaCommand() *cobra.Command {
	return group("schema", "Put and get the schema of a policy store",
		`A schema says which entity types, attributes and actions a tenant's policies may speak of. In a
STRICT policy store no policy gets in that disagrees with it. Schemas are written in Cedar syntax
(.cedarschema) or in Cedar's JSON syntax (.json).`,
		`  copse schema put acme.cedarschema --tenant acme
  copse schema get --tenant acme`,
		a.schemaPut(), a.schemaGet(), a.schemaCheck())
}

// schemaPut does not check the schema by itself: the server's findings are shown in the file.
func (a *app) schemaPut() *cobra.Command {
	var target target
	var format string
	cmd := &cobra.Command{
		Use:   "put FILE",
		Short: "Put a schema",
		Long: `Put a schema into a policy store, in place of the one it has. As in Amazon Verified Permissions, the
policies that are there are not checked against it before they are written again; those that it
breaks are told afterwards. "copse schema check" tells them without putting it. To change schema
and policies together and have them checked against each other, use "copse policy put --schema".`,
		Example: `  copse schema put acme.cedarschema --tenant acme
  generate-schema | copse schema put - --format json --tenant acme`,
		Args: args(1, 1, "the file of a schema"),
		RunE: func(cmd *cobra.Command, args []string) error {
			local, err := a.readContents(args[0], format, nil)
			if err != nil {
				return err
			}
			return a.putSchema(cmd.Context(), &target, local)
		},
	}
	target.flags(a, cmd)
	cmd.Flags().StringVar(&format, "format", "", "syntax of the schema: cedar or json (default: by the file's extension)")
	return cmd
}

// putSchema puts the schema, and then asks what it breaks, which is told and is no error. The two are two
// calls: what is written in between may be in what is told. It needs write on the policy store, and read to
// tell what the schema breaks.
func (a *app) putSchema(ctx context.Context, target *target, local *localContents) error {
	c, policyStore, err := a.reach(ctx, target)
	if err != nil {
		return err
	}
	var out api.Schema
	err = c.do(ctx, request{method: http.MethodPut, path: policyStorePath(policyStore) + "/schema", in: local.schemaText(), out: &out})
	if err != nil {
		return local.explain(err)
	}
	if a.output == "json" {
		err = a.show(out, nil)
	} else {
		a.say("policy store %s has the schema of %s", policyStore, local.schema.file)
	}
	if err != nil {
		return err
	}
	// The schema is there: that it breaks policies, or that this can't be told, is no failure of the put.
	var check api.SchemaCheck
	if err := c.do(ctx, request{method: http.MethodGet, path: policyStorePath(policyStore) + "/schema:check", out: &check}); err != nil {
		a.say("which policies it breaks could not be found out: %v", err)
		return nil
	}
	a.sayBroken(&check)
	return nil
}

// schemaCheck changes nothing, so a key that may read is enough.
func (a *app) schemaCheck() *cobra.Command {
	var target target
	var format string
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Tell which stored policies a schema breaks",
		Long: `Hold all policies and policy templates of a policy store against the schema of a file, without putting
it; or, without a file, against the schema that is there. Nothing is changed. The exit code is 1 when
something would be refused.`,
		Example: `  copse schema check acme.cedarschema --tenant acme && copse schema put acme.cedarschema --tenant acme`,
		Args:    args(0, 1, "the file of a schema, or nothing"),
		RunE: func(cmd *cobra.Command, args []string) error {
			local := &localContents{}
			if len(args) == 1 {
				var err error
				// No policies: those are the policy store's.
				if local, err = a.readContents(args[0], format, nil); err != nil {
					return err
				}
			}
			return a.checkSchema(cmd.Context(), &target, local)
		},
	}
	target.flags(a, cmd)
	cmd.Flags().StringVar(&format, "format", "", "syntax of the schema: cedar or json (default: by the file's extension)")
	return cmd
}

// checkSchema asks about the schema of a file, or without one about the stored one, and shows what that
// breaks. It is an error when something is broken, and also when not all could be checked: only a whole
// check is a yes.
func (a *app) checkSchema(ctx context.Context, target *target, local *localContents) error {
	c, policyStore, err := a.reach(ctx, target)
	if err != nil {
		return err
	}
	var check api.SchemaCheck
	// GET is about the stored schema, POST about one that comes along.
	r := request{method: http.MethodGet, path: policyStorePath(policyStore) + "/schema:check", out: &check}
	// The same question in another form: a schema that is not stored has to be sent along.
	if local.schema != nil {
		r.method, r.in = http.MethodPost, local.schemaText()
	}
	if err := c.do(ctx, r); err != nil {
		return local.explain(err)
	}
	if a.output == "json" {
		if err := a.show(check, nil); err != nil {
			return err
		}
	} else {
		a.sayBroken(&check)
	}
	// First, since what is broken among the rest is not known either.
	if check.Unchecked > 0 {
		return failf("%d of %d policies and templates were not checked, because checking all takes too long; name actions and types in their heads", check.Unchecked, check.Checked)
	}
	// More is how many were found and not listed.
	if n := len(check.Broken) + check.More; n > 0 {
		return failf("the schema breaks %d of %d policies and templates", n, check.Checked)
	}
	if a.output != "json" {
		a.say("%d policies and templates agree with the schema", check.Checked)
	}
	return nil
}

// sayBroken lists what a schema breaks, with the place in its text. It goes to standard error, a line for
// each finding, under the policy's name or else its id.
func (a *app) sayBroken(check *api.SchemaCheck) {
	for _, b := range check.Broken {
		for _, f := range b.Findings {
			where := cmp.Or(b.Name, b.ID)
			if f.Line > 0 { // what is wrong with a link has no place in a text
				where += fmt.Sprintf(":%d:%d", f.Line, f.Column)
			}
			a.say("%s %s: %s", b.Kind, where, f.Message)
		}
	}
	if check.More > 0 {
		a.say("and %d more", check.More)
	}
}

// schemaGet prints text that `schema put` takes again.
func (a *app) schemaGet() *cobra.Command {
	var target target
	var format string
	cmd := &cobra.Command{
		Use:   "get",
		Short: "Print the schema",
		Long: `Print the schema of a policy store: in Cedar syntax as it was put, comments included, or in JSON
syntax when it was put in that. --format json prints the JSON syntax of either.`,
		Example: `  copse schema get --tenant acme > acme.cedarschema
  copse schema get --tenant acme --format json`,
		Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "" && format != "cedar" && format != "json" {
				return usagef("--format is cedar or json, not %q", format)
			}
			return a.getSchema(cmd.Context(), &target, format)
		},
	}
	target.flags(a, cmd)
	cmd.Flags().StringVar(&format, "format", "", "cedar or json (default: as it was put)")
	return cmd
}

// getSchema prints the schema in the syntax asked for. The server makes JSON of Cedar syntax, not the other
// way round. It needs read on the policy store.
func (a *app) getSchema(ctx context.Context, target *target, format string) error {
	c, policyStore, err := a.reach(ctx, target)
	if err != nil {
		return err
	}
	var out api.Schema
	if err := c.do(ctx, request{method: http.MethodGet, path: policyStorePath(policyStore) + "/schema", out: &out}); err != nil {
		return err
	}
	if a.output == "json" {
		return a.show(out, nil)
	}
	// Without --format it is the text that was put: with comments, if it was Cedar's.
	text := out.JSON
	switch {
	case format == "cedar" && out.Cedar == "":
		return failf("the schema was put in JSON syntax; it can be had in that only")
	case format != "json" && out.Cedar != "":
		text = out.Cedar
	}
	_, err = fmt.Fprintln(a.stdout, strings.TrimRight(text, "\n"))
	return err
}
