package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/copse-authz/copse/internal/api"
)

func (a *app) schemaCommand() *cobra.Command {
	return group("schema", "Put and get the schema of a policy store",
		`A schema says which entity types, attributes and actions a tenant's policies may speak of. In a
STRICT policy store no policy gets in that disagrees with it. Schemas are written in Cedar syntax
(.cedarschema) or in Cedar's JSON syntax (.json).`,
		`  copse schema put acme.cedarschema --tenant acme
  copse schema get --tenant acme`,
		a.schemaPut(), a.schemaGet())
}

func (a *app) schemaPut() *cobra.Command {
	var target target
	var format string
	cmd := &cobra.Command{
		Use:   "put FILE",
		Short: "Put a schema",
		Long: `Put a schema into a policy store, in place of the one it has. As in Amazon Verified Permissions, the
policies that are there are not checked against it before they are written again. To change schema
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

func (a *app) putSchema(ctx context.Context, target *target, local *localContents) error {
	c, err := a.newClient()
	if err != nil {
		return err
	}
	policyStore, err := target.resolve(ctx, c)
	if err != nil {
		return err
	}
	var out api.Schema
	err = c.do(ctx, request{method: http.MethodPut, path: policyStorePath(policyStore) + "/schema", in: local.schemaText(), out: &out})
	if err != nil {
		return local.explain(err)
	}
	if a.output == "json" {
		return a.show(out, nil)
	}
	a.say("policy store %s has the schema of %s", policyStore, local.schema.file)
	return nil
}

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

func (a *app) getSchema(ctx context.Context, target *target, format string) error {
	c, err := a.newClient()
	if err != nil {
		return err
	}
	policyStore, err := target.resolve(ctx, c)
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
