package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/copse-authz/copse/internal/api"
)

// templateCommand makes links but does not list or delete them: they are policies, and `copse policy` does.
func (a *app) templateCommand() *cobra.Command {
	return group("template", "Put, look at, link and delete policy templates",
		`A policy template has slots, ?principal or ?resource, in its scope. A link of it is a policy that says
which entities stand in the slots; what else the policy says is the template's, so that changing the
template changes all its links in one moment:

  permit (principal == ?principal, action == Action::"view", resource in ?resource);`,
		`  copse template put viewers.cedar --tenant acme
  copse template link viewers --name alice-views-plans --principal 'User::"alice"' --resource 'Folder::"plans"' --tenant acme`,
		a.templateList(), a.templateGet(), a.templatePut(), a.templateDelete(), a.templateLink())
}

// templateList counts the links by what the policies say, in the same answer: the two are of one revision.
func (a *app) templateList() *cobra.Command {
	var target target
	cmd := &cobra.Command{
		Use: "list", Short: "List the policy templates of a policy store",
		Long:    "List the policy templates of a policy store, in the order of their names, with how many links each has.",
		Example: "  copse template list --tenant acme",
		Args:    args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, contents, err := a.contentsOf(cmd.Context(), &target)
			if err != nil {
				return err
			}
			links := linksOf(contents.Policies)
			return a.show(struct {
				Templates []api.Template `json:"templates"`
			}{slices.Concat([]api.Template{}, contents.Templates)}, func(t *table) {
				t.row("NAME", "EFFECT", "TEMPLATE ID", "LINKS", "UPDATED", "DESCRIPTION")
				for _, p := range contents.Templates {
					t.row(p.Name, p.Effect, p.TemplateID, fmt.Sprint(links[p.TemplateID]), when(p.UpdatedAt), p.Description)
				}
			})
		},
	}
	target.flags(a, cmd)
	return cmd
}

// linksOf counts the links of each template, by its id. A template without links is not in it.
func linksOf(policies []api.Policy) map[string]int {
	links := map[string]int{}
	for _, p := range policies {
		if p.Link != nil {
			links[p.Link.TemplateID]++
		}
	}
	return links
}

// findTemplate takes a name or an id, as findPolicy. What it returns points into templates.
func findTemplate(templates []api.Template, nameOrID string) (*api.Template, error) {
	// All names before any id, so that a name wins.
	for _, by := range []func(*api.Template) string{
		func(t *api.Template) string { return t.Name },
		func(t *api.Template) string { return t.TemplateID },
	} {
		if i := slices.IndexFunc(templates, func(t api.Template) bool { return by(&t) == nameOrID }); i >= 0 {
			return &templates[i], nil
		}
	}
	return nil, failf("no policy template has the name or id %q; `copse template list` shows them", nameOrID)
}

// templateGet prints text that `template put` takes again.
func (a *app) templateGet() *cobra.Command {
	var target target
	cmd := &cobra.Command{
		Use: "get NAME|ID", Short: "Print a policy template's text",
		Long: `Print the text of a policy template, found by its name or its id, ready to be saved to a file. With
--output json, print all that is known about it.`,
		Example: `  copse template get viewers --tenant acme > viewers.cedar`,
		Args:    args(1, 1, "the name or id of a policy template"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, contents, err := a.contentsOf(cmd.Context(), &target)
			if err != nil {
				return err
			}
			t, err := findTemplate(contents.Templates, args[0])
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.show(t, nil)
			}
			_, err = fmt.Fprintln(a.stdout, strings.TrimRight(t.Statement, "\n"))
			return err
		},
	}
	target.flags(a, cmd)
	return cmd
}

// templatePut sends the text as it is; whether it is one template, and fits its links, is the server's to
// say, whose findings are shown in the file.
func (a *app) templatePut() *cobra.Command {
	var target target
	var name, description string
	cmd := &cobra.Command{
		Use: "put FILE", Short: "Add a policy template, or replace the one of that name",
		Long: `Add the policy template of a file to a policy store, or replace the one of the same name: then all its
links are what the new text says, in the same moment. The name is that of the file without ".cedar",
unless --name gives another; "-" is standard input.`,
		Example: `  copse template put viewers.cedar --tenant acme`,
		Args:    args(1, 1, "the file of a policy template"),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readFile(args[0], a.stdin)
			if err != nil {
				return failf("%w", err)
			}
			if name == "" && args[0] == "-" {
				return usagef("a template from standard input needs --name")
			}
			if name == "" {
				name = strings.TrimSuffix(filepath.Base(args[0]), ".cedar")
			}
			// The name is the only thing that ties a file to a template: nothing is read out of the text.
			put := api.TemplateText{Name: name, Statement: string(text), Description: description}
			return a.editTemplates(cmd.Context(), &target, func(stored api.Contents) (templateEdit, error) {
				e := editOf(stored)
				// In the place of the one of that name, or at the end: the index is how the server's
				// findings name it.
				i := slices.IndexFunc(e.templates, func(t api.TemplateText) bool { return t.Name == name })
				if i < 0 {
					i, e.templates = len(e.templates), append(e.templates, api.TemplateText{})
				} else if !cmd.Flags().Changed("description") {
					put.Description = e.templates[i].Description
				}
				e.templates[i] = put
				e.explain = map[string]source{fmt.Sprintf("templates[%d].statement", i): {args[0], text}}
				return e, nil
			})
		},
	}
	target.flags(a, cmd)
	cmd.Flags().StringVar(&name, "name", "", "the template's name (default: the file's)")
	cmd.Flags().StringVar(&description, "description", "", "for people")
	return cmd
}

// templateDelete uses the template's own route, which is not bound to what one commit takes: see decision 10.
// It needs write on the policy store, and read to find the template.
func (a *app) templateDelete() *cobra.Command {
	var target target
	var yes bool
	cmd := &cobra.Command{
		Use: "delete NAME|ID", Short: "Delete a policy template and all its links",
		Long: `Delete a policy template and every policy that is linked to it, however many, in one moment. Mind what a
link of a forbid kept out.`,
		Example: `  copse template delete viewers --tenant acme`,
		Args:    args(1, 1, "the name or id of a policy template"),
		RunE: func(cmd *cobra.Command, args []string) error {
			policyStore, contents, err := a.contentsOf(cmd.Context(), &target)
			if err != nil {
				return err
			}
			// What is to go is known, and is there, before anybody is asked.
			t, err := findTemplate(contents.Templates, args[0])
			if err != nil {
				return err
			}
			if err := a.confirm(yes, "Delete "+args[0]+" and its links?"); err != nil {
				return err
			}
			c, err := a.newClient()
			if err != nil {
				return err
			}
			path := policyStorePath(policyStore) + "/templates/" + url.PathEscape(t.TemplateID)
			if err := c.do(cmd.Context(), request{method: http.MethodDelete, path: path}); err != nil {
				return err
			}
			a.say("template %s and %s are gone", args[0], count(linksOf(contents.Policies)[t.TemplateID], "link"))
			return nil
		},
	}
	target.flags(a, cmd)
	yesFlag(cmd, &yes)
	return cmd
}

// templateLink makes a link, or puts one in the place of the policy of that name. Whether the slots that are
// filled are those that the template has, the server says.
func (a *app) templateLink() *cobra.Command {
	var target target
	var name, principal, resource string
	cmd := &cobra.Command{
		Use: "link NAME|ID", Short: "Make a policy of a policy template",
		Long: `Make a policy of a policy template, or replace the policy of the same name by one: --principal and
--resource say what stands in the slots it has. "copse policy list" shows it, "copse policy delete"
deletes it.`,
		Example: `  copse template link viewers --name alice-views-plans --principal 'User::"alice"' --resource 'Folder::"plans"' --tenant acme`,
		Args:    args(1, 1, "the name or id of a policy template"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if name == "" {
				return usagef("--name gives the policy its name")
			}
			link := &api.Link{}
			for _, slot := range []struct {
				flag, value string
				into        **api.EntityUID
			}{{"principal", principal, &link.Principal}, {"resource", resource, &link.Resource}} {
				// Which slots there are is not known here.
				if slot.value == "" {
					continue
				}
				entityType, id, err := parseUID(slot.flag, slot.value)
				if err != nil {
					return err
				}
				*slot.into = &api.EntityUID{Type: entityType, ID: id}
			}
			return a.editTemplates(cmd.Context(), &target, func(stored api.Contents) (templateEdit, error) {
				t, err := findTemplate(stored.Templates, args[0])
				if err != nil {
					return templateEdit{}, err
				}
				// Both, so that a template without a name can be linked too.
				link.Template, link.TemplateID = t.Name, t.TemplateID
				// It replaces the policy of its name, whatever that was: two of one name would be refused.
				stored.Policies = slices.DeleteFunc(stored.Policies, func(p api.Policy) bool { return p.Name == name })
				e := editOf(stored)
				e.policies = append(e.policies, api.PolicyText{Name: name, Link: link})
				return e, nil
			})
		},
	}
	target.flags(a, cmd)
	cmd.Flags().StringVar(&name, "name", "", "the policy's name")
	cmd.Flags().StringVar(&principal, "principal", "", `the entity in ?principal: Type::"id"`)
	cmd.Flags().StringVar(&resource, "resource", "", `the entity in ?resource: Type::"id"`)
	return cmd
}

// templateEdit is what becomes of a policy store's named templates and policies: all of them, since what PUT
// contents is not given is deleted. Policies and templates without a name are not in it, and stay.
type templateEdit struct {
	templates []api.TemplateText
	policies  []api.PolicyText
	explain   map[string]source // findings at a path are shown in a file
}

// source is where a text of the request came from.
type source struct {
	file string
	text []byte
}

// editOf starts with everything as it is: sent like this, it would change nothing.
func editOf(stored api.Contents) templateEdit {
	return templateEdit{templates: namedTemplates(stored.Templates), policies: (&localContents{}).merge(stored.Policies)}
}

// editTemplates reads a policy store, has edit change it, and puts it, by [client.change]. The schema stays.
// It needs read and write on the policy store.
func (a *app) editTemplates(ctx context.Context, target *target, edit func(api.Contents) (templateEdit, error)) error {
	c, policyStore, err := a.reach(ctx, target)
	if err != nil {
		return err
	}
	// The last attempt's, which the answer is about.
	var sent templateEdit
	result, err := c.change(ctx, policyStore, func(stored api.Contents) (api.PutContentsRequest, error) {
		var err error
		sent, err = edit(stored)
		return api.PutContentsRequest{Templates: &sent.templates, Policies: sent.policies}, err
	})
	if err != nil {
		return sent.explained(err)
	}
	if a.output == "json" {
		return a.show(result, nil)
	}
	a.say("revision %d: %d created, %d updated, %d deleted", result.Revision, result.Created, result.Updated, result.Deleted)
	return nil
}

// explained turns places in a server's answer into places in the file that was put.
func (e *templateEdit) explained(err error) error {
	return explainFields(err, func(field api.ErrorField) finding {
		if of, ok := e.explain[field.Path]; ok {
			return newFinding(of.file, of.text, field.Line, field.Column, field.Message)
		}
		return finding{File: field.Path, Line: field.Line, Column: field.Column, Message: field.Message}
	})
}
