package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/engine"
)

// localSchema is a schema file of the user's: its text as it is, which findings are shown in.
type localSchema struct {
	file   string
	text   []byte
	syntax engine.Syntax
}

// localContents is what a command sends, kept with where it came from, so that findings of the server
// ("policies[3].statement" line 2) can be shown in the user's own files. The indexes of sent and
// sentTemplates are those that the server's findings name. A command reads files into it, merges what the
// policy store has, and sends the result. When the server refuses, its findings name places in that request:
// local and localTemplate lead back from an index to the file, and what they have no entry for was the
// policy store's own.
type localContents struct {
	schema    *localSchema
	templates []localPolicy
	policies  []localPolicy // links among them
	// These are as they went out. What was merged in from the server has no local policy.
	sent          []api.PolicyText
	local         map[int]*localPolicy
	sentTemplates []api.TemplateText
	localTemplate map[int]*localPolicy
}

// readContents reads what --schema and --policies name; either may be left out. Policies are parsed, the
// schema is not. Files are read once each, so standard input can stand for one of them only.
func (a *app) readContents(schemaFile, format string, policyPaths []string) (*localContents, error) {
	contents := &localContents{}
	if schemaFile != "" {
		schema, err := a.readSchema(schemaFile, format)
		if err != nil {
			return nil, err
		}
		contents.schema = schema
	}
	if len(policyPaths) > 0 {
		policies, err := readPolicies(policyPaths, a.stdin)
		if err != nil {
			return nil, err
		}
		for _, p := range policies {
			// Templates go in a list of their own; links are policies.
			if p.template != nil {
				contents.templates = append(contents.templates, p)
			} else {
				contents.policies = append(contents.policies, p)
			}
		}
	}
	return contents, nil
}

// readSchema finds the syntax by the file's extension unless format says it. What it reads is not
// parsed: a schema that only the server refuses is explained all the same.
func (a *app) readSchema(file, format string) (*localSchema, error) {
	s := &localSchema{file: file}
	switch {
	case format == "cedar":
		s.syntax = engine.SyntaxCedar
	case format == "json":
		s.syntax = engine.SyntaxJSON
	case format != "":
		return nil, usagef("--format is cedar or json, not %q", format)
	case filepath.Ext(file) == ".json":
		s.syntax = engine.SyntaxJSON
	case filepath.Ext(file) == ".cedarschema", filepath.Ext(file) == ".cedar":
		s.syntax = engine.SyntaxCedar
	default:
		return nil, usagef("%s: is the schema in Cedar or in JSON syntax? Say --format cedar or --format json, or name the file .cedarschema or .json", file)
	}
	// Reading one would fail in the system's words.
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		return nil, failf("%s is a directory; a schema is one file", file)
	}
	text, err := readFile(file, a.stdin)
	if err != nil {
		return nil, failf("%w", err)
	}
	if file == "-" {
		s.file = stdinName
	}
	s.text = text
	return s, nil
}

// schemaText is the schema as the API takes it; nil when there is none, which leaves a stored one as it is.
func (l *localContents) schemaText() *api.SchemaText {
	switch {
	case l.schema == nil:
		return nil
	case l.schema.syntax == engine.SyntaxJSON:
		return &api.SchemaText{JSON: string(l.schema.text)}
	}
	return &api.SchemaText{Cedar: string(l.schema.text)}
}

// policyTexts is what is sent when there is nothing to merge with.
func (l *localContents) policyTexts() []api.PolicyText { return l.merge(nil) }

// merge adds the local policies to those of a policy store, replacing those of the same name, whose
// descriptions stay. Policies without a name are no part of what is put.
func (l *localContents) merge(stored []api.Policy) []api.PolicyText {
	// Anew at each attempt: findings are about what was sent last.
	l.sent, l.local = []api.PolicyText{}, map[int]*localPolicy{}
	mine := map[string]*localPolicy{}
	for i := range l.policies {
		mine[l.policies[i].name] = &l.policies[i]
	}
	for _, p := range stored {
		// They are not sent, and stay: PUT contents leaves policies without a name alone unless it is told
		// to prune.
		if p.Name == "" {
			continue
		}
		// A policy that is not replaced goes back as it came.
		text := api.PolicyText{Name: p.Name, Statement: p.Statement, Link: p.Link, Description: p.Description}
		if local, replaced := mine[p.Name]; replaced {
			text.Statement, text.Link = local.text, local.apiLink()
			if text.Link != nil {
				text.Description = "" // a link has none
			}
			l.local[len(l.sent)] = local
			// What is left in mine afterwards is new.
			delete(mine, p.Name)
		}
		l.sent = append(l.sent, text)
	}
	for i := range l.policies {
		if p := &l.policies[i]; mine[p.name] == p {
			l.local[len(l.sent)] = p
			l.sent = append(l.sent, api.PolicyText{Name: p.name, Statement: p.text, Link: p.apiLink()})
		}
	}
	return l.sent
}

// apiLink is what is sent of a link, nil for a policy that is none.
func (p *localPolicy) apiLink() *api.Link {
	if p.link == nil {
		return nil
	}
	out := &api.Link{Template: p.link.TemplateName()}
	if uid := p.link.Link.Principal; !uid.IsZero() {
		out.Principal = &api.EntityUID{Type: string(uid.Type), ID: string(uid.ID)}
	}
	if uid := p.link.Link.Resource; !uid.IsZero() {
		out.Resource = &api.EntityUID{Type: string(uid.Type), ID: string(uid.ID)}
	}
	return out
}

// mergeTemplates does for templates what merge does for policies. There is nothing to send, and what is
// stored stays, when no file has a template.
func (l *localContents) mergeTemplates(stored []api.Template) *[]api.TemplateText {
	if len(l.templates) == 0 {
		return nil
	}
	l.sentTemplates, l.localTemplate = namedTemplates(stored), map[int]*localPolicy{}
	for i := range l.templates {
		p := &l.templates[i]
		// One of a stored name takes its place and keeps its description; others come last.
		at := slices.IndexFunc(l.sentTemplates, func(t api.TemplateText) bool { return t.Name == p.name })
		if at < 0 {
			at, l.sentTemplates = len(l.sentTemplates), append(l.sentTemplates, api.TemplateText{Name: p.name})
		}
		l.sentTemplates[at].Statement, l.localTemplate[at] = p.text, p
	}
	return &l.sentTemplates
}

// namedTemplates are stored templates as they would be sent. Those without a name are not.
func namedTemplates(stored []api.Template) []api.TemplateText {
	out := []api.TemplateText{}
	for _, t := range stored {
		if t.Name != "" {
			out = append(out, api.TemplateText{Name: t.Name, Statement: t.Statement, Description: t.Description})
		}
	}
	return out
}

// explain turns the places in a server's answer into places in local files. It is about what merge and
// mergeTemplates made last. An error without places comes back as it is.
func (l *localContents) explain(err error) error { return explainFields(err, l.finding) }

// explainFields shows the findings of an answer where show says, in the order of files and lines.
func explainFields(err error, show func(api.ErrorField) finding) error {
	e, ok := errors.AsType[*apiError](err)
	if !ok || len(e.info.Fields) == 0 {
		return err
	}
	f := &failure{code: exitError, message: e.Error(), err: err}
	for _, field := range e.info.Fields {
		f.findings = append(f.findings, show(field))
	}
	sortFindings(f.findings)
	return f
}

// finding is where a place in the request came from: a policy, a template, the schema, or else the member of
// the request by its own name.
func (l *localContents) finding(field api.ErrorField) finding {
	if index, member, ok := listMember("policies", field.Path); ok && index < len(l.sent) {
		return l.policyFinding(index, member, field)
	}
	if index, member, ok := listMember("templates", field.Path); ok && index < len(l.sentTemplates) {
		return localFinding(l.localTemplate[index], "template", l.sentTemplates[index].Name, l.sentTemplates[index].Statement, member, field)
	}
	// The schema is a request of its own, or a member of one.
	if l.schema != nil && (strings.HasSuffix(field.Path, "schema.cedar") || strings.HasSuffix(field.Path, "schema.json") ||
		field.Path == "schema" || field.Path == "cedar" || field.Path == "json") {
		return newFinding(l.schema.file, l.schema.text, field.Line, field.Column, field.Message)
	}
	return finding{File: field.Path, Line: field.Line, Column: field.Column, Message: field.Message}
}

// listMember takes "policies[3].statement" apart, also below another member; false for a path that is not of
// the list.
func listMember(list, path string) (index int, member string, ok bool) {
	_, rest, ok := strings.Cut(path, list+"[")
	if !ok {
		return 0, "", false
	}
	digits, member, ok := strings.Cut(rest, "]")
	index, err := strconv.Atoi(digits)
	return index, strings.TrimPrefix(member, "."), ok && err == nil && index >= 0
}

// policyFinding is about a policy that was sent, the user's or one that went back as it was.
func (l *localContents) policyFinding(index int, member string, field api.ErrorField) finding {
	return localFinding(l.local[index], "policy", l.sent[index].Name, l.sent[index].Statement, member, field)
}

// localFinding shows a finding in the file of what was sent, or in its text if it is the policy store's.
func localFinding(local *localPolicy, kind, name, text, member string, field api.ErrorField) finding {
	if local == nil {
		return newFinding(fmt.Sprintf("%s %q of the policy store", kind, name), []byte(text), field.Line, field.Column, field.Message)
	}
	// A name or a link has no position in the policy's text.
	if member != "statement" || field.Line == 0 {
		return local.start(field.Message)
	}
	return local.at(field.Line, field.Column, field.Message)
}

// checkLocally validates without a server, and returns findings and warnings. Without a schema there is
// little left to check: reading the policies has parsed them.
func (l *localContents) checkLocally() (findings, warnings []finding) {
	// nil checks what can be seen in a text alone.
	var schema *engine.Schema
	if l.schema != nil {
		var err error
		// By a schema that does not parse nothing can be judged.
		if schema, err = engine.ParseSchema(l.schema.file, l.schema.text, l.schema.syntax); err != nil {
			return findingsOf(err, l.schema.file, l.schema.text), nil
		}
	}
	templates := map[string]*engine.Template{}
	// Each call of Reports below is of one policy, so that there is one report.
	note := func(p *localPolicy, reports []engine.Report, err error) {
		if err != nil {
			findings = append(findings, p.findingsOf(err)...)
			return
		}
		for _, f := range reports[0].Errors {
			findings = append(findings, p.inFile(f.Line, f.Column, f.Message))
		}
		for _, f := range reports[0].Warnings {
			warnings = append(warnings, p.inFile(f.Line, f.Column, "warning: "+f.Message))
		}
	}
	for i := range l.templates {
		p := &l.templates[i]
		// Whatever is wrong with it, its links can be looked at.
		templates[p.name] = p.template
		// A server demands it of every template, whatever the schema.
		if err := p.template.RequireConstraints(); err != nil {
			note(p, nil, err)
			continue
		}
		reports, err := engine.TemplateReports(schema, p.template)
		note(p, reports, err)
	}
	for i := range l.policies {
		p, policy := &l.policies[i], l.policies[i].policy
		if p.link != nil {
			// A server may have the template; here there are only files.
			t := templates[p.link.TemplateName()]
			if t == nil {
				warnings = append(warnings, p.start(fmt.Sprintf("warning: policy template %q is not in these files, so this link was not checked", p.link.TemplateName())))
				continue
			}
			var err error
			// A link is checked as the policy that it makes.
			if policy, err = t.Link(p.file, p.link.Link.Principal, p.link.Link.Resource); err != nil {
				note(p, nil, err)
				continue
			}
		}
		reports, err := engine.Reports(schema, policy)
		note(p, reports, err)
	}
	return sortFindings(findings), sortFindings(warnings)
}

// inFile makes a finding out of a position in the file. A link's positions are none: it is found where it
// begins.
func (p *localPolicy) inFile(line, column int, message string) finding {
	if p.link != nil {
		return p.start(message)
	}
	return newFinding(p.file, p.source, line, column, message)
}

// findingsOf is findings about a policy of the files. What is wrong with a link is found where the link begins.
func (p *localPolicy) findingsOf(err error) []finding {
	all := findingsOf(err, p.file, p.source)
	if p.link != nil {
		for i := range all {
			all[i] = p.start(all[i].Message)
		}
	}
	return all
}
