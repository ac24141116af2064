package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/engine"
)

// localSchema is a schema file of the user's.
type localSchema struct {
	file   string
	text   []byte
	syntax engine.Syntax
}

// localContents is what a command sends, kept with where it came from, so that findings of the server
// ("policies[3].statement" line 2) can be shown in the user's own files.
type localContents struct {
	schema   *localSchema
	policies []localPolicy
	// sent are the policies as they went out. Those merged in from the server have no local policy.
	sent  []api.PolicyText
	local map[int]*localPolicy
}

// readContents reads what --schema and --policies name; either may be left out.
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
		contents.policies = policies
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
	l.sent, l.local = []api.PolicyText{}, map[int]*localPolicy{}
	mine := map[string]*localPolicy{}
	for i := range l.policies {
		mine[l.policies[i].name] = &l.policies[i]
	}
	for _, p := range stored {
		if p.Name == "" {
			continue
		}
		text := api.PolicyText{Name: p.Name, Statement: p.Statement, Link: p.Link, Description: p.Description}
		if local, replaced := mine[p.Name]; replaced {
			text.Statement, text.Link = local.text, nil
			l.local[len(l.sent)] = local
			delete(mine, p.Name)
		}
		l.sent = append(l.sent, text)
	}
	for i := range l.policies {
		if p := &l.policies[i]; mine[p.name] == p {
			l.local[len(l.sent)] = p
			l.sent = append(l.sent, api.PolicyText{Name: p.name, Statement: p.text})
		}
	}
	return l.sent
}

// explain turns the places in a server's answer into places in local files.
func (l *localContents) explain(err error) error { return explainFields(err, l.finding) }

// explainFields shows the findings of an answer where show says.
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

func (l *localContents) finding(field api.ErrorField) finding {
	if index, member, ok := policyMember(field.Path); ok && index < len(l.sent) {
		return l.policyFinding(index, member, field)
	}
	if l.schema != nil && (strings.HasSuffix(field.Path, "schema.cedar") || strings.HasSuffix(field.Path, "schema.json") ||
		field.Path == "schema" || field.Path == "cedar" || field.Path == "json") {
		return newFinding(l.schema.file, l.schema.text, field.Line, field.Column, field.Message)
	}
	return finding{File: field.Path, Line: field.Line, Column: field.Column, Message: field.Message}
}

// policyMember takes "policies[3].statement" apart.
func policyMember(path string) (index int, member string, ok bool) {
	_, rest, ok := strings.Cut(path, "policies[")
	if !ok {
		return 0, "", false
	}
	digits, member, ok := strings.Cut(rest, "]")
	index, err := strconv.Atoi(digits)
	return index, strings.TrimPrefix(member, "."), ok && err == nil && index >= 0
}

func (l *localContents) policyFinding(index int, member string, field api.ErrorField) finding {
	sent := l.sent[index]
	local := l.local[index]
	if local == nil {
		name := fmt.Sprintf("policy %q of the policy store", sent.Name)
		return newFinding(name, []byte(sent.Statement), field.Line, field.Column, field.Message)
	}
	if member != "statement" || field.Line == 0 {
		return local.start(field.Message)
	}
	return local.at(field.Line, field.Column, field.Message)
}

// checkLocally validates without a server, and returns findings and warnings. Without a schema there is
// little left to check: reading the policies has parsed them.
func (l *localContents) checkLocally() (findings, warnings []finding) {
	var schema *engine.Schema
	if l.schema != nil {
		var err error
		if schema, err = engine.ParseSchema(l.schema.file, l.schema.text, l.schema.syntax); err != nil {
			return findingsOf(err, l.schema.file, l.schema.text), nil
		}
	}
	for _, p := range l.policies {
		reports, err := engine.Reports(schema, p.policy)
		if err != nil {
			findings = append(findings, findingsOf(err, p.file, p.source)...)
			continue
		}
		for _, f := range reports[0].Errors {
			findings = append(findings, newFinding(p.file, p.source, f.Line, f.Column, f.Message))
		}
		for _, f := range reports[0].Warnings {
			warnings = append(warnings, newFinding(p.file, p.source, f.Line, f.Column, "warning: "+f.Message))
		}
	}
	return sortFindings(findings), sortFindings(warnings)
}
