// Package policyfiles reads what an operator keeps in files: a tenant's schema, and its policies and
// templates under the names they have in the policy store.
//
// A directory holds at most one schema, schema.cedarschema or schema.json, and any number of .cedar
// files, in directories below it as well. A policy's name is its @id; the only policy of a file may go
// without one, and is then named for the file. A policy with slots is a template, named in the same way.
// Files called links.json, in any of the directories, make policies of templates: see [ParseLinks].
// Everything is parsed and validated here, before any of
// it is sent anywhere, so that what is wrong is told with file, line and column.
package policyfiles

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
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

// Contents is what a directory holds. Policies are in the order of the files' names; it means nothing
// to a policy store.
type Contents struct {
	Schema    *policystore.SchemaText // nil: none
	Templates []policystore.PolicyText
	Policies  []policystore.PolicyText // links behind the others
}

// Read reads the directory dir of fsys. Its error is a *copse.Error of kind Invalid whose Fields point
// into the files, or one that says which file can't be read. With an error there are no contents: all
// that could be found is told at once, so that one run is enough to know what to mend. Validation
// against the schema comes only when everything parses.
func Read(fsys fs.FS, dir string) (Contents, error) {
	// Templates are looked up by name, links are filled when all of them are known.
	r := reader{fsys: fsys, policyNames: map[string]string{}, templates: map[string]*engine.Template{}, templateNames: map[string]string{}, places: map[string]copse.Field{}}
	if err := r.schema(dir); err != nil {
		return Contents{}, err
	}
	err := fs.WalkDir(fsys, dir, func(file string, d fs.DirEntry, err error) error {
		switch {
		// A directory that can't be read could hold a forbid.
		case err != nil:
			return err
		// Mounted configuration keeps its older versions in hidden directories.
		case strings.HasPrefix(d.Name(), ".") && file != dir && d.IsDir():
			return fs.SkipDir
		case d.IsDir() || strings.HasPrefix(d.Name(), "."):
			return nil
		case path.Ext(file) == ".cedar":
			return r.statements(file)
		case d.Name() == LinksFile:
			return r.readLinks(file)
		}
		return nil
	})
	if err != nil {
		return Contents{}, readError(err)
	}
	// Links come last, since a template may stand in any file.
	r.fillLinks()
	// What does not parse would be found again as what refers to it.
	if len(r.problems) == 0 && r.parsedSchema != nil {
		r.note(r.parsedSchema.ValidateTemplates(r.sortedTemplates()...))
		r.note(r.parsedSchema.Validate(r.parsed...))
	}
	if len(r.problems) > 0 {
		return Contents{}, &copse.Error{Kind: copse.Invalid, Resource: copse.ResourcePolicy,
			Detail: fmt.Sprintf("%s does not hold a valid policy store", dir), Fields: r.problems}
	}
	return r.out, nil
}

// reader is one Read under way.
type reader struct {
	fsys         fs.FS
	out          Contents
	parsedSchema *engine.Schema
	parsed       []*engine.Policy
	templates    map[string]*engine.Template
	links        []fileLink // filled when all templates are known
	// The file each name is from. A policy and a template may share a name, as in a policy store.
	policyNames, templateNames map[string]string
	places                     map[string]copse.Field // of links, by the path their findings come with
	problems                   []copse.Field
}

// fileLink is a link and the file it is from.
type fileLink struct {
	file string
	NamedLink
}

// schema reads whichever of the two there is; both are a mistake, since they could differ. One that
// does not parse is a finding, and nothing is held against it.
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

// statements reads all policies and templates of a file. Its error is that the file can't be read; what
// is wrong in it is a finding.
func (r *reader) statements(file string) error {
	text, err := fs.ReadFile(r.fsys, file)
	if err != nil {
		return err
	}
	statements, err := engine.ParseDocument(file, text)
	if err != nil {
		r.note(err)
		return nil
	}
	for _, s := range statements {
		name, annotated := s.Annotation("id")
		switch {
		// A name follows the policy when it is moved to another file; the file's own name can't be
		// shared by several.
		case annotated:
		case len(statements) > 1:
			r.problem(file, "several policies in one file need a name each: put @id(\"...\") before every one")
			return nil
		default:
			name = strings.TrimSuffix(path.Base(file), ".cedar")
		}
		// The other policies of the file are still looked at.
		if err := copse.ValidateName(name); err != nil {
			r.problem(file, "%v", err)
			continue
		}
		kind, names := "policy", r.policyNames
		if s.Template != nil {
			kind, names = "template", r.templateNames
		}
		// Names are what policies are told apart by when contents are put: of two with
		// one name, one would vanish.
		if other, taken := names[name]; taken {
			r.problem(file, "the name %q is taken by a %s in %s", name, kind, other)
			continue
		}
		names[name] = file
		in := policystore.PolicyText{Name: name, Statement: s.Text()}
		// As with what comes in over an API: a template must constrain principal and resource.
		if s.Template != nil {
			r.note(s.Template.RequireConstraints())
			r.templates[name] = s.Template
			r.out.Templates = append(r.out.Templates, in)
			continue
		}
		r.parsed = append(r.parsed, s.Policy)
		r.out.Policies = append(r.out.Policies, in)
	}
	return nil
}

// readLinks keeps the links that are right even where others in the file are not.
func (r *reader) readLinks(file string) error {
	text, err := fs.ReadFile(r.fsys, file)
	if err != nil {
		return err
	}
	links, err := ParseLinks(file, text)
	r.note(err)
	for _, l := range links {
		r.links = append(r.links, fileLink{file, l})
	}
	return nil
}

// fillLinks holds each link against its template, which is in these files: they are all there is.
func (r *reader) fillLinks() {
	for _, l := range r.links {
		// Findings about a link point at its beginning: it has no text of its own.
		at := func(format string, args ...any) copse.Field {
			return copse.Field{Path: l.file, Message: fmt.Sprintf(format, args...), Line: l.Line, Column: l.Column}
		}
		// A link is a policy, and shares the policies' names.
		if other, taken := r.policyNames[l.Name]; taken {
			r.problems = append(r.problems, at("the name %q is taken by a policy in %s", l.Name, other))
			continue
		}
		r.policyNames[l.Name] = l.file
		template := r.templates[l.TemplateName()]
		if template == nil {
			r.problems = append(r.problems, at("there is no policy template %q in these files", l.TemplateName()))
			continue
		}
		// The key stands for the link in the engine's findings, and [reader.note] puts
		// the place in its stead.
		key := fmt.Sprintf("%s:%d:%d", l.file, l.Line, l.Column)
		r.places[key] = at("")
		policy, err := template.Link(key, l.Link.Principal, l.Link.Resource)
		if err != nil {
			r.note(err)
			continue
		}
		r.parsed = append(r.parsed, policy)
		r.out.Policies = append(r.out.Policies, policystore.PolicyText{Name: l.Name, Link: &l.Link})
	}
}

// sortedTemplates puts them in order, so that findings come in the same order each time.
func (r *reader) sortedTemplates() []*engine.Template {
	var out []*engine.Template
	for _, name := range slices.Sorted(maps.Keys(r.templates)) {
		out = append(out, r.templates[name])
	}
	return out
}

// problem is a finding about a file as a whole, shown at its beginning.
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
	// What the engine found in a link is shown where the link is.
	for _, f := range e.Fields {
		if place, isLink := r.places[f.Path]; isLink {
			f.Path, f.Line, f.Column = place.Path, place.Line, place.Column
		}
		r.problems = append(r.problems, f)
	}
}

// readError is for what can't be read; it has no findings.
func readError(err error) error {
	return copse.Errorf(copse.Invalid, "policy files: %w", err)
}

// Findings are the places an error of Read points to; nil when it is not about what the files say. The
// slice is the error's own.
func Findings(err error) []copse.Field {
	if e, ok := errors.AsType[*copse.Error](err); ok {
		return e.Fields
	}
	return nil
}
