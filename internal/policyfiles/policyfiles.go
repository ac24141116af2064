// Package policyfiles reads what an operator keeps in files: a tenant's schema, and its policies under
// the names they have in the policy store.
//
// A directory holds at most one schema, schema.cedarschema or schema.json, and any number of .cedar
// files, in directories below it as well. A policy's name is its @id; the only policy of a file may go
// without one, and is then named for the file. Everything is parsed and validated here, before any of
// it is sent anywhere, so that what is wrong is told with file, line and column.
package policyfiles

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/engine"
	"github.com/copse-authz/copse/internal/policystore"
)

// The two names a schema may have.
const (
	cedarSchema = "schema.cedarschema"
	jsonSchema  = "schema.json"
)

// Contents is what a directory holds.
type Contents struct {
	Schema   *policystore.SchemaText // nil: none
	Policies []policystore.PolicyText
}

// Read reads the directory dir of fsys. Its error is a *copse.Error of kind Invalid whose Fields point
// into the files, or one that says which file can't be read.
func Read(fsys fs.FS, dir string) (Contents, error) {
	r := reader{fsys: fsys, names: map[string]string{}}
	if err := r.schema(dir); err != nil {
		return Contents{}, err
	}
	err := fs.WalkDir(fsys, dir, func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		// Mounted configuration keeps its older versions in hidden directories.
		case strings.HasPrefix(d.Name(), ".") && file != dir && d.IsDir():
			return fs.SkipDir
		case d.IsDir() || strings.HasPrefix(d.Name(), ".") || path.Ext(file) != ".cedar":
			return nil
		}
		return r.policies(file)
	})
	if err != nil {
		return Contents{}, readError(err)
	}
	if len(r.problems) == 0 && r.parsedSchema != nil {
		r.note(r.parsedSchema.Validate(r.parsed...))
	}
	if len(r.problems) > 0 {
		return Contents{}, &copse.Error{Kind: copse.Invalid, Resource: copse.ResourcePolicy,
			Detail: fmt.Sprintf("%s does not hold a valid policy store", dir), Fields: r.problems}
	}
	return r.out, nil
}

type reader struct {
	fsys         fs.FS
	out          Contents
	parsedSchema *engine.Schema
	parsed       []*engine.Policy
	names        map[string]string // of policies, with the file each is from
	problems     []copse.Field
}

func (r *reader) schema(dir string) error {
	for _, name := range []string{cedarSchema, jsonSchema} {
		file := path.Join(dir, name)
		text, err := fs.ReadFile(r.fsys, file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return readError(err)
		}
		if r.out.Schema != nil {
			r.problem(file, "there is %s as well; keep one", cedarSchema)
			return nil
		}
		syntax := engine.SyntaxJSON
		r.out.Schema = &policystore.SchemaText{JSON: string(text)}
		if name == cedarSchema {
			syntax = engine.SyntaxCedar
			r.out.Schema = &policystore.SchemaText{Cedar: string(text)}
		}
		r.parsedSchema, err = engine.ParseSchema(file, text, syntax)
		if err != nil {
			r.note(err)
		}
	}
	return nil
}

func (r *reader) policies(file string) error {
	text, err := fs.ReadFile(r.fsys, file)
	if err != nil {
		return err
	}
	policies, err := engine.ParsePolicies(file, text)
	if err != nil {
		r.note(err)
		return nil
	}
	for _, p := range policies {
		name, annotated := p.Annotation("id")
		switch {
		case annotated:
		case len(policies) > 1:
			r.problem(file, "several policies in one file need a name each: put @id(\"...\") before every one")
			return nil
		default:
			name = strings.TrimSuffix(path.Base(file), ".cedar")
		}
		if err := copse.ValidateName(name); err != nil {
			r.problem(file, "%v", err)
			continue
		}
		if other, taken := r.names[name]; taken {
			r.problem(file, "the name %q is taken by a policy in %s", name, other)
			continue
		}
		r.names[name] = file
		r.parsed = append(r.parsed, p)
		r.out.Policies = append(r.out.Policies, policystore.PolicyText{Name: name, Statement: p.Text()})
	}
	return nil
}

func (r *reader) problem(file, format string, args ...any) {
	r.problems = append(r.problems, copse.Field{Path: file, Message: fmt.Sprintf(format, args...), Line: 1, Column: 1})
}

// note keeps the findings of an engine error; every one of the engine's has some.
func (r *reader) note(err error) {
	if err == nil {
		return
	}
	e, ok := errors.AsType[*copse.Error](err)
	if !ok || len(e.Fields) == 0 {
		r.problems = append(r.problems, copse.Field{Path: "", Message: err.Error()})
		return
	}
	r.problems = append(r.problems, e.Fields...)
}

func readError(err error) error {
	return copse.Errorf(copse.Invalid, "policy files: %w", err)
}

// Findings are the places an error of Read points to; nil when it is not about what the files say.
func Findings(err error) []copse.Field {
	if e, ok := errors.AsType[*copse.Error](err); ok {
		return e.Fields
	}
	return nil
}
