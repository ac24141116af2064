package policystore

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/engine"
)

// Paths under which findings are reported: AVP's for one policy, the control API's for contents.
const (
	statementPath   = "definition.static.statement"
	descriptionPath = "definition.static.description"
	linkPath        = "definition.templateLinked"
	templatePath    = "statement"
	namePath        = "name"
	schemaJSONPath  = "schema.json"
	schemaCedarPath = "schema.cedar"
)

// invalid is an error for text or settings that the caller can put right; fields say where and what.
func invalid(resource copse.ResourceType, detail string, fields ...copse.Field) error {
	return &copse.Error{Kind: copse.Invalid, Resource: resource, Detail: detail, Fields: fields}
}

// parseSchema reads a schema that is given or stored. Invalid, with fields under schema.json or schema.cedar,
// when it is not a schema, or is in both syntaxes or neither.
func parseSchema(text SchemaText) (*engine.Schema, error) {
	switch {
	case (text.JSON == "") == (text.Cedar == ""):
		return nil, invalid(copse.ResourceSchema, "a schema is given in exactly one syntax",
			copse.Field{Path: "schema", Message: "give either json or cedar, not both and not neither"})
	case text.Cedar != "":
		if !utf8.ValidString(text.Cedar) {
			return nil, notUTF8(copse.ResourceSchema, schemaCedarPath)
		}
		return engine.ParseSchema(schemaCedarPath, []byte(text.Cedar), engine.SyntaxCedar)
	default:
		if !utf8.ValidString(text.JSON) {
			return nil, notUTF8(copse.ResourceSchema, schemaJSONPath)
		}
		return engine.ParseSchema(schemaJSONPath, []byte(text.JSON), engine.SyntaxJSON)
	}
}

// notUTF8 refuses text that can't be stored: bodies are JSON.
func notUTF8(resource copse.ResourceType, path string) error {
	return invalid(resource, "text is not valid UTF-8", copse.Field{Path: path, Message: "not valid UTF-8"})
}

// newSchemaBody keeps the source: Cedar text for the one who wrote Cedar, the JSON as it was put for
// the one who put JSON.
// Namespaces are kept beside the text, for answers that name them, and are never null in JSON.
func newSchemaBody(text SchemaText, schema *engine.Schema, created, updated time.Time) *schemaBody {
	b := &schemaBody{V: bodyVersion, Cedar: text.Cedar, Namespaces: schema.Namespaces(), CreatedAt: created, UpdatedAt: updated}
	if text.JSON != "" {
		b.JSON = jsontext.Value(text.JSON)
	} else {
		b.JSON = schema.JSON()
	}
	if b.Namespaces == nil {
		b.Namespaces = []string{}
	}
	return b
}

// validateDescription counts characters and not bytes.
func validateDescription(path, text string) error {
	if !utf8.ValidString(text) {
		return notUTF8("", path)
	}
	if n := utf8.RuneCountInString(text); n > copse.MaxDescriptionBytes {
		return invalid("", "a description is too long", copse.Field{Path: path,
			Message: fmt.Sprintf("%d characters, at most %d are allowed", n, copse.MaxDescriptionBytes)})
	}
	return nil
}

// validateName is for names of policies and of templates, which follow one rule. The empty name is not one:
// callers ask only about names that were given.
func validateName(path, name string) error {
	if err := copse.ValidateName(name); err != nil {
		return invalid(copse.ResourcePolicy, "a policy name is not valid", copse.Field{Path: path, Message: err.Error()})
	}
	return nil
}

// validateSettings knows two modes and no default. Nothing else in settings can be wrong.
func validateSettings(in copse.Settings) error {
	if in.Validation != copse.ValidationStrict && in.Validation != copse.ValidationOff {
		return invalid(copse.ResourcePolicyStore, "the validation mode is not known", copse.Field{
			Path:    "settings.validation",
			Message: fmt.Sprintf("%q is neither %s nor %s", in.Validation, copse.ValidationStrict, copse.ValidationOff)})
	}
	return nil
}

// parsePolicy reads one static policy that is given or stored; findings are under path. Invalid when the text
// is not exactly one policy, or has slots.
func parsePolicy(path, statement string) (*engine.Policy, error) {
	if !utf8.ValidString(statement) {
		return nil, notUTF8(copse.ResourcePolicy, path)
	}
	return engine.ParsePolicy(path, []byte(statement))
}

// parseTemplate reads one template that is given or stored, without the constraints that [readTemplate]
// demands of what is given.
func parseTemplate(path, statement string) (*engine.Template, error) {
	if !utf8.ValidString(statement) {
		return nil, notUTF8(copse.ResourceTemplate, path)
	}
	return engine.ParseTemplate(path, []byte(statement))
}

// validateTemplates is validate for templates.
// Slots are open here: whether a link's entities fit is validated with the link.
func validateTemplates(mode copse.ValidationMode, schema *engine.Schema, paths []string, templates ...*engine.Template) error {
	if mode != copse.ValidationStrict || len(templates) == 0 {
		return nil
	}
	if schema == nil {
		return noSchema(copse.ResourceTemplate, paths)
	}
	return schema.ValidateTemplates(templates...)
}

// noSchema is what STRICT says of everything while there is no schema, in the words of AVP.
func noSchema(resource copse.ResourceType, paths []string) error {
	f := findings{}
	for _, path := range paths {
		f.add(copse.Field{Path: path, Message: "No schema present - automatically failing all validation; put a schema first"})
	}
	return f.err(resource, "the policy store has no schema; put one first")
}

// validate holds policies against the schema as the mode demands. paths are the policies' own, for the
// finding that there is no schema.
// With OFF nothing is looked at and no schema is needed. Invalid has the findings of all policies, under the
// paths that they were parsed with.
func validate(mode copse.ValidationMode, schema *engine.Schema, paths []string, policies ...*engine.Policy) error {
	if mode != copse.ValidationStrict || len(policies) == 0 {
		return nil
	}
	if schema == nil {
		return noSchema(copse.ResourcePolicy, paths)
	}
	return schema.Validate(policies...)
}

// findings collects what is wrong with many policies into one answer of bounded size.
type findings struct {
	fields []copse.Field
	more   int
}

// maxFindings bounds an answer; what is beyond it is counted.
const maxFindings = 100

// add keeps what there is room for and counts the rest.
func (f *findings) add(fields ...copse.Field) {
	room := min(len(fields), maxFindings-len(f.fields))
	f.fields = append(f.fields, fields[:room]...)
	f.more += len(fields) - room
}

// err is Invalid with all that was found; nil when nothing was.
func (f *findings) err(resource copse.ResourceType, detail string) error {
	if len(f.fields) == 0 {
		return nil
	}
	if f.more > 0 {
		detail = fmt.Sprintf("%s (%d findings, the first %d are listed)", detail, len(f.fields)+f.more, len(f.fields))
	}
	return invalid(resource, detail, f.fields...)
}

// take adds the fields of an Invalid error; any other error is returned.
// So a caller goes on after what is wrong with one policy, to tell everything at once, and stops at what is
// wrong with storage or with a limit.
func (f *findings) take(err error) error {
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*copse.Error](err)
	if !ok || e.Kind != copse.Invalid {
		return err
	}
	if len(e.Fields) == 0 {
		f.add(copse.Field{Message: e.Detail})
	}
	f.add(e.Fields...)
	return nil
}

// draft is a policy, or a template, that was read and is on its way in.
// path is where findings about its text are: a link's ends in link, everything else's in statement.
type draft struct {
	text     PolicyText
	path     string
	policy   *engine.Policy   // of a static policy that parsed
	template *engine.Template // of a template that parsed
}

// drafts are what contents hold.
type drafts struct{ policies, templates []draft }

// parseContents reads policies and templates of a request and checks everything that needs neither schema
// nor what is stored: text, description, names and their uniqueness. needNames refuses policies without
// one; a template always needs one. What it finds goes into f; a draft whose text does not parse has
// neither policy nor template.
func parseContents(f *findings, in NewContents, needNames bool) (drafts, error) {
	// Before anything is parsed: how much there is to parse is the caller's to say.
	n, size := len(in.Policies)+len(in.Templates), 0
	if n > copse.MaxContentsWrites {
		return drafts{}, quota(copse.ResourcePolicyStore, "policies in one request", n, copse.MaxContentsWrites)
	}
	for _, texts := range [][]PolicyText{in.Policies, in.Templates} {
		for _, text := range texts {
			size += len(text.Name) + len(text.Statement) + len(text.Description)
		}
	}
	if size > copse.MaxContentsBytes {
		return drafts{}, quota(copse.ResourcePolicyStore, "bytes of policies in one request", size, copse.MaxContentsBytes)
	}
	templates, err := parseTexts(f, "templates", in.Templates, true, func(d *draft) (err error) {
		if d.text.Link != nil {
			return linkedToo(copse.ResourceTemplate, d.path)
		}
		d.template, err = readTemplate(d.path, d.text.Statement)
		if err != nil {
			d.template = nil
		}
		return err
	})
	if err != nil {
		return drafts{}, err
	}
	policies, err := parseTexts(f, "policies", in.Policies, needNames, func(d *draft) (err error) {
		if d.text.Link == nil {
			d.policy, err = parsePolicy(d.path, d.text.Statement)
			return err
		}
		if d.text.Statement != "" || d.text.Description != "" {
			return linkedToo(copse.ResourcePolicy, d.path)
		}
		d.path = strings.TrimSuffix(d.path, "statement") + "link"
		return nil
	})
	return drafts{policies: policies, templates: templates}, err
}

// linkedToo refuses a policy that is a statement and a link at once, and a template that is a link: what was
// meant is not to be guessed.
func linkedToo(resource copse.ResourceType, path string) error {
	return invalid(resource, "a link is a policy that has neither statement nor description of its own",
		copse.Field{Path: path, Message: "give either a statement or a link"})
}

// parseTexts checks what policies and templates have in common, and lets parse do the rest.
// The drafts are as many as the texts, in their order, whatever is found. Policies and templates have names of
// their own, so the same name may stand in both lists.
func parseTexts(f *findings, member string, in []PolicyText, needNames bool, parse func(*draft) error) ([]draft, error) {
	out := make([]draft, len(in))
	names := make(map[string]int, len(in))
	for i, text := range in {
		at := fmt.Sprintf("%s[%d]", member, i)
		out[i] = draft{text: text, path: at + ".statement"}
		if err := f.take(parse(&out[i])); err != nil {
			return nil, err
		}
		if err := f.take(validateDescription(at+".description", text.Description)); err != nil {
			return nil, err
		}
		if text.Name == "" {
			if needNames {
				f.add(copse.Field{Path: at + ".name", Message: "what is in contents needs a name, by which it is replaced next time"})
			}
			continue
		}
		if err := f.take(validateName(at+".name", text.Name)); err != nil {
			return nil, err
		}
		if first, twice := names[text.Name]; twice {
			f.add(copse.Field{Path: at + ".name", Message: fmt.Sprintf("%q is also the name of %s[%d]", text.Name, member, first)})
		}
		names[text.Name] = i
	}
	return out, nil
}

// newPolicyBody is the row of a static policy: the text, and what its head says, for lists and filters.
func newPolicyBody(text PolicyText, p *engine.Policy, created, updated time.Time) policyBody {
	scope := p.Scope()
	return policyBody{
		V: bodyVersion, Name: text.Name, Statement: text.Statement, Description: text.Description,
		Effect: effectOf(p.Forbids()), Principal: newEntityBody(scope.Principal), Resource: newEntityBody(scope.Resource),
		Actions: actionsOf(scope), CreatedAt: created, UpdatedAt: updated,
	}
}

// newLinkBody is the row of a link. The template is stored by its id, also where it was named: a name may come
// to be another's. It has no actions: they are the template's, which may change them.
func newLinkBody(name string, link Link, p *engine.Policy, template copse.PolicyTemplateID, at time.Time) policyBody {
	scope := p.Scope()
	return policyBody{
		V: bodyVersion, Name: name, Effect: effectOf(p.Forbids()),
		Link:      &linkBody{Template: template, Principal: newEntityBody(link.Principal), Resource: newEntityBody(link.Resource)},
		Principal: newEntityBody(scope.Principal), Resource: newEntityBody(scope.Resource),
		CreatedAt: at, UpdatedAt: at,
	}
}

// newTemplateBody is the row of a template. Of its head it keeps effect and actions.
func newTemplateBody(text PolicyText, t *engine.Template, created, updated time.Time) templateBody {
	return templateBody{
		V: bodyVersion, Name: text.Name, Statement: text.Statement, Description: text.Description,
		Effect: effectOf(t.Forbids()), Actions: actionsOf(t.Scope()), CreatedAt: created, UpdatedAt: updated,
	}
}

func effectOf(forbids bool) string {
	if forbids {
		return effectForbid
	}
	return effectPermit
}

func actionsOf(scope engine.Scope) []entityBody {
	var out []entityBody
	for _, a := range scope.Actions {
		out = append(out, entityBody{Type: string(a.Type), ID: string(a.ID)})
	}
	return out
}

// size is what a policy counts toward the limit of its resource: its text, or what stands in its slots.
// A template's text is not in it: it is there once however many links it has.
func (b *policyBody) size() int {
	if b.Link == nil {
		return len(b.Statement)
	}
	size := 0
	for _, e := range []*entityBody{b.Link.Principal, b.Link.Resource} {
		if e != nil {
			size += len(e.uid().String())
		}
	}
	return size
}
