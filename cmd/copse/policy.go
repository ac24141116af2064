package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/copse-authz/copse/internal/api"
)

// policyCommand knows policies by name: those without one belong to the AVP API, and are left alone unless a
// command says otherwise.
func (a *app) policyCommand() *cobra.Command {
	return group("policy", "Put, look at, delete and check policies",
		`Policies live in files of your repository and are put into a tenant's policy store by name. A
policy's name is its @id annotation, else the name of its file without ".cedar"; several policies in
one file each need an @id:

  @id("owners-may-view")
  permit (principal, action == Action::"view", resource) when { resource.owner == principal };

A policy with ?principal or ?resource in its scope is a policy template, named in the same way. Policies
are made of it by a file called links.json beside them (or any .json file that is named):

  [{"name": "alice-views-plans", "template": "viewers",
    "principal": {"type": "User", "id": "alice"}, "resource": {"type": "Folder", "id": "plans"}}]

The same name keeps its policy id. Everything put by one command is validated and committed at once:
there is no moment at which half of it decides.`,
		`  copse policy check policies/ --schema acme.cedarschema
  copse policy put policies/ --tenant acme`,
		a.policyPut(), a.policyGet(), a.policyList(), a.policyDelete(), a.policyCheck())
}

// policyPutOptions are the flags of `policy put`. prune without replace is refused before anything is read.
type policyPutOptions struct {
	target             target
	schemaFile, format string
	replace, prune     bool
}

// policyPut reads all files before it asks a server anything: what does not parse changes nothing.
func (a *app) policyPut() *cobra.Command {
	var opts policyPutOptions
	cmd := &cobra.Command{
		Use:   "put FILE|DIR...",
		Short: "Add policies, or replace those of the same name",
		Long: `Add the policies of files and directories to a policy store, replacing those of the same name. A
directory means all .cedar and links.json files below it; "-" is standard input. All other policies stay
as they are.

With --replace the policy store is made equal to what is given: named policies that are not among it
are deleted. Policies without a name, made through the AVP API, are kept and listed, unless --prune
deletes them too. Templates stay in any case, since they decide nothing without links; "copse template
delete" deletes them.

With --schema the schema changes in the same commit, and policies and schema are checked against
each other as they will be.`,
		Example: `  copse policy put policies/ --tenant acme
  copse policy put freeze.cedar --tenant acme

  # the repository is the truth: what is not in it goes
  copse policy put policies/ --tenant acme --schema acme.cedarschema --replace`,
		Args: args(1, -1, "files or directories"),
		RunE: func(cmd *cobra.Command, args []string) error {
			// Prune alone would delete what was made through the AVP API, and keep named policies that no
			// file has.
			if opts.prune && !opts.replace {
				return usagef("--prune goes with --replace")
			}
			local, err := a.readContents(opts.schemaFile, opts.format, args)
			if err != nil {
				return err
			}
			return a.putPolicies(cmd.Context(), opts, local)
		},
	}
	opts.target.flags(a, cmd)
	flags := cmd.Flags()
	flags.StringVar(&opts.schemaFile, "schema", "", "file of a schema to put in the same commit")
	flags.StringVar(&opts.format, "format", "", "syntax of the schema: cedar or json (default: by the file's extension)")
	flags.BoolVar(&opts.replace, "replace", false, "delete the named policies that are not given")
	flags.BoolVar(&opts.prune, "prune", false, "with --replace: also delete the policies that have no name; of templates as well, if any is given")
	return cmd
}

// putPolicies puts files' policies into a policy store, in one commit. The API takes all named policies as
// they shall be, so those that are to stay are read and sent back: only --replace leaves them out.
// It needs read and write on the policy store.
func (a *app) putPolicies(ctx context.Context, opts policyPutOptions, local *localContents) error {
	c, policyStore, err := a.reach(ctx, &opts.target)
	if err != nil {
		return err
	}
	result, err := c.change(ctx, policyStore, func(stored api.Contents) (api.PutContentsRequest, error) {
		// Of the policies that are replaced the descriptions stay; files have none.
		if opts.replace {
			stored.Policies = descriptionsOf(stored.Policies, local)
		}
		return api.PutContentsRequest{
			Schema: local.schemaText(), Policies: local.merge(stored.Policies), Prune: opts.prune,
			Templates: local.mergeTemplates(stored.Templates),
		}, nil
	})
	if err != nil {
		return local.explain(err)
	}
	return a.showPut(result, local, opts.replace)
}

// descriptionsOf leaves of the stored policies those that are being put, whose descriptions stay. It may be
// nil.
func descriptionsOf(stored []api.Policy, local *localContents) []api.Policy {
	given := map[string]bool{}
	for _, p := range local.policies {
		given[p.name] = true
	}
	var kept []api.Policy
	for _, p := range stored {
		if given[p.Name] {
			kept = append(kept, p)
		}
	}
	return kept
}

// change reads a policy store, makes the new contents, and puts them if nobody else did meanwhile. edit is
// called once for each attempt, with what is there then; its error ends it, and nothing was sent. With any
// error nothing has changed, unless the answer was lost on the way. One collision is worth another try; more
// of them are worth a person's attention.
func (c *client) change(ctx context.Context, policyStore string, edit func(api.Contents) (api.PutContentsRequest, error)) (api.ContentsResult, error) {
	// Twice at most.
	for attempt := 1; ; attempt++ {
		stored, err := c.contents(ctx, policyStore)
		if err != nil {
			return api.ContentsResult{}, err
		}
		in, err := edit(stored)
		if err != nil {
			return api.ContentsResult{}, err
		}
		result, err := c.putContents(ctx, policyStore, stored.Revision, in)
		// Only 412 says that somebody else was faster; any other error would be the same again.
		moved, ok := errors.AsType[*apiError](err)
		if !ok || moved.status != http.StatusPreconditionFailed || attempt == 2 {
			return result, err
		}
	}
}

// showPut shows which policy came from which place, and what else the commit did. In the table, policies of
// the policy store that were sent back as they are do not appear.
func (a *app) showPut(result api.ContentsResult, local *localContents, replace bool) error {
	err := a.show(result, func(t *table) {
		// By name: what was put has one, and the answer has the ids of all that have.
		ids := map[string]string{}
		for _, p := range result.Policies {
			ids[p.Name] = p.PolicyID
		}
		t.row("NAME", "POLICY ID", "FROM")
		// The answer has no ids of templates.
		for i := range local.templates {
			p := &local.templates[i]
			from := p.start("")
			t.row(p.name, "(template)", from.place())
		}
		for i := range local.policies {
			p := &local.policies[i]
			from := p.start("")
			t.row(p.name, ids[p.name], from.place())
		}
	})
	if err != nil {
		return err
	}
	a.say("revision %d: %d created, %d updated, %d deleted", result.Revision, result.Created, result.Updated, result.Deleted)
	// Whoever wanted the policy store equal to the files hears where it is not.
	if replace && len(result.Kept) > 0 {
		var ids []string
		for _, p := range result.Kept {
			ids = append(ids, p.PolicyID)
		}
		a.say("kept, because they have no name (--prune deletes them): %s", strings.Join(ids, " "))
	}
	return nil
}

// findPolicy takes a name or an id, and returns the index; a name wins, since a person chose it.
func findPolicy(policies []api.Policy, nameOrID string) (int, error) {
	for i, p := range policies {
		if p.Name == nameOrID {
			return i, nil
		}
	}
	for i, p := range policies {
		if p.PolicyID == nameOrID {
			return i, nil
		}
	}
	return 0, failf("no policy has the name or id %q; `copse policy list` shows them", nameOrID)
}

// policyGet prints text that `policy put` would take, except for a link, of which it prints a comment.
// It needs read on the policy store, as the list does.
func (a *app) policyGet() *cobra.Command {
	var target target
	cmd := &cobra.Command{
		Use:   "get NAME|ID",
		Short: "Print a policy's text",
		Long: `Print the text of a policy, found by its name or its id, ready to be saved to a file. With
--output json, print all that is known about it.`,
		Example: `  copse policy get owners-may-view --tenant acme > owners-may-view.cedar`,
		Args:    args(1, 1, "the name or id of a policy"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, contents, err := a.contentsOf(cmd.Context(), &target)
			if err != nil {
				return err
			}
			i, err := findPolicy(contents.Policies, args[0])
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.show(contents.Policies[i], nil)
			}
			_, err = fmt.Fprintln(a.stdout, textOf(&contents.Policies[i]))
			return err
		},
	}
	target.flags(a, cmd)
	return cmd
}

// reach finds the policy store a command names, and the server it is on. Of a tenant the directory is asked.
func (a *app) reach(ctx context.Context, target *target) (c *client, policyStore string, err error) {
	if c, err = a.newClient(); err != nil {
		return nil, "", err
	}
	policyStore, err = target.resolve(ctx, c)
	return c, policyStore, err
}

// contentsOf reads the policy store a command names: all of it, at one revision, in one answer.
func (a *app) contentsOf(ctx context.Context, target *target) (policyStore string, contents api.Contents, err error) {
	c, policyStore, err := a.reach(ctx, target)
	if err != nil {
		return "", contents, err
	}
	contents, err = c.contents(ctx, policyStore)
	return policyStore, contents, err
}

// policyList shows templates' links as well, by what they say: they have no text.
func (a *app) policyList() *cobra.Command {
	var target target
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the policies of a policy store",
		Long: `List the policies of a policy store, in the order of their names. Those without a name were made
through the AVP API.`,
		Example: `  copse policy list --tenant acme

  # the names of all that forbid
  copse policy list --tenant acme --output json | jq -r '.policies[] | select(.effect == "forbid").name'`,
		Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, contents, err := a.contentsOf(cmd.Context(), &target)
			if err != nil {
				return err
			}
			// A list of policies is not the place for a schema, which may be larger than all of them.
			contents.Schema = nil
			return a.show(contents, func(t *table) {
				t.row("NAME", "EFFECT", "POLICY ID", "UPDATED", "DESCRIPTION")
				for _, p := range contents.Policies {
					about := p.Description
					if p.Link != nil {
						about = linkText(p.Link)
					}
					t.row(p.Name, p.Effect, p.PolicyID, when(p.UpdatedAt), about)
				}
			})
		},
	}
	target.flags(a, cmd)
	return cmd
}

// policyDelete takes names and asks once for all of them.
func (a *app) policyDelete() *cobra.Command {
	var target target
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete NAME...",
		Short: "Delete policies by name",
		Long: `Delete named policies of a policy store, all in one commit: if one of the names is unknown, or the
remaining policies would not be valid, nothing is deleted.

Mind what is deleted together: without a forbid, what a permit allows is allowed.`,
		Example: `  copse policy delete freeze --tenant acme
  copse policy delete old-permit old-forbid --tenant acme --yes   # in scripts`,
		Args: args(1, -1, "names of policies"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.deletePolicies(cmd.Context(), &target, args, yes)
		},
	}
	target.flags(a, cmd)
	yesFlag(cmd, &yes)
	return cmd
}

// deletePolicies puts what is left of the named policies, in one commit, with [client.change]. Templates,
// the schema and policies without a name stay as they are. It needs read and write on the policy store.
func (a *app) deletePolicies(ctx context.Context, target *target, names []string, yes bool) error {
	c, policyStore, err := a.reach(ctx, target)
	if err != nil {
		return err
	}
	// Whether the names exist is told before the question is asked.
	contents, err := c.contents(ctx, policyStore)
	if err != nil {
		return err
	}
	if _, err := without(contents.Policies, names); err != nil {
		return err
	}
	if err := a.confirm(yes, "Delete "+strings.Join(names, ", ")+"?"); err != nil {
		return err
	}
	result, err := c.change(ctx, policyStore, func(stored api.Contents) (api.PutContentsRequest, error) {
		// Looked for again: what was there when the question was asked may be gone.
		left, err := without(stored.Policies, names)
		nothing := &localContents{}
		return api.PutContentsRequest{Policies: nothing.merge(left)}, err
	})
	if err != nil {
		return err
	}
	if a.output == "json" {
		return a.show(result, nil)
	}
	a.say("revision %d: %d deleted", result.Revision, result.Deleted)
	return nil
}

// without is the policies less those of the names given, each of which must exist. Ids do as well, if the
// policy has a name: PUT contents knows policies by name, and leaves those without one alone.
func without(policies []api.Policy, names []string) ([]api.Policy, error) {
	// By index: a policy may be named twice, by name and by id.
	gone := map[int]bool{}
	for _, name := range names {
		i, err := findPolicy(policies, name)
		if err != nil {
			return nil, err
		}
		if policies[i].Name == "" {
			return nil, failf("policy %s has no name, so it is the AVP API's to delete (DeletePolicy); `copse policy put --replace --prune` deletes all such", name)
		}
		gone[i] = true
	}
	var left []api.Policy
	for i, p := range policies {
		if !gone[i] {
			left = append(left, p)
		}
	}
	return left, nil
}

// textOf is a policy's text; of a link, which has none, a comment that says what it is, so that a file of it
// is Cedar still.
func textOf(p *api.Policy) string {
	if p.Link != nil {
		return "// " + linkText(p.Link)
	}
	return strings.TrimRight(p.Statement, "\n")
}

// linkText is what a link says, in one line for people. A template without a name is called by its id.
func linkText(link *api.Link) string {
	text := "link of template " + cmp.Or(link.Template, link.TemplateID)
	if e := link.Principal; e != nil {
		text += fmt.Sprintf(", ?principal = %s::%q", e.Type, e.ID)
	}
	if e := link.Resource; e != nil {
		text += fmt.Sprintf(", ?resource = %s::%q", e.Type, e.ID)
	}
	return text
}
