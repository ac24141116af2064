package policystore

import (
	"errors"
	"fmt"
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
	namePath        = "name"
	schemaJSONPath  = "schema.json"
	schemaCedarPath = "schema.cedar"
)

func invalid(resource copse.ResourceType, detail string, fields ...copse.Field) error {
	return &copse.Error{Kind: copse.Invalid, Resource: resource, Detail: detail, Fields: fields}
}

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

func notUTF8(resource copse.ResourceType, path string) error {
	return invalid(resource, "text is not valid UTF-8", copse.Field{Path: path, Message: "not valid UTF-8"})
}

// newSchemaBody keeps the source: Cedar text for the one who wrote Cedar, the JSON as it was put for
// the one who put JSON.
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

func validateName(path, name string) error {
	if err := copse.ValidateName(name); err != nil {
		return invalid(copse.ResourcePolicy, "a policy name is not valid", copse.Field{Path: path, Message: err.Error()})
	}
	return nil
}

func validateSettings(in copse.Settings) error {
	if in.Validation != copse.ValidationStrict && in.Validation != copse.ValidationOff {
		return invalid(copse.ResourcePolicyStore, "the validation mode is not known", copse.Field{
			Path:    "settings.validation",
			Message: fmt.Sprintf("%q is neither %s nor %s", in.Validation, copse.ValidationStrict, copse.ValidationOff)})
	}
	return nil
}

func parsePolicy(path, statement string) (*engine.Policy, error) {
	if !utf8.ValidString(statement) {
		return nil, notUTF8(copse.ResourcePolicy, path)
	}
	return engine.ParsePolicy(path, []byte(statement))
}

// validate holds policies against the schema as the mode demands. paths are the policies' own, for the
// finding that there is no schema.
func validate(mode copse.ValidationMode, schema *engine.Schema, paths []string, policies ...*engine.Policy) error {
	if mode != copse.ValidationStrict || len(policies) == 0 {
		return nil
	}
	if schema == nil {
		f := findings{}
		for _, path := range paths {
			f.add(copse.Field{Path: path, Message: "can't be validated: the policy store has no schema; put one first"})
		}
		return f.err(copse.ResourcePolicy, "the policy store has no schema; put one first")
	}
	return schema.Validate(policies...)
}

// findings collects what is wrong with many policies into one answer of bounded size.
type findings struct {
	fields []copse.Field
	more   int
}

const maxFindings = 100

func (f *findings) add(fields ...copse.Field) {
	room := min(len(fields), maxFindings-len(f.fields))
	f.fields = append(f.fields, fields[:room]...)
	f.more += len(fields) - room
}

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
func (f *findings) take(err error) error {
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

// draft is a policy that was read and is on its way in.
type draft struct {
	text   PolicyText
	path   string
	policy *engine.Policy
}

// parseAll reads policies of a request and checks everything that needs neither schema nor stored
// policies: text, description, names and their uniqueness. needNames refuses policies without one.
// What it finds goes into f; a draft whose text does not parse has no policy.
func parseAll(f *findings, in []PolicyText, needNames bool) ([]draft, error) {
	if len(in) > copse.MaxContentsWrites {
		return nil, quota(copse.ResourcePolicyStore, "policies in one request", len(in), copse.MaxContentsWrites)
	}
	size := 0
	for _, text := range in {
		size += len(text.Name) + len(text.Statement) + len(text.Description)
	}
	if size > copse.MaxContentsBytes {
		return nil, quota(copse.ResourcePolicyStore, "bytes of policies in one request", size, copse.MaxContentsBytes)
	}
	out := make([]draft, len(in))
	names := make(map[string]int, len(in))
	for i, text := range in {
		at := fmt.Sprintf("policies[%d]", i)
		out[i] = draft{text: text, path: at + ".statement"}
		var err error
		if out[i].policy, err = parsePolicy(out[i].path, text.Statement); f.take(err) != nil {
			return nil, err
		}
		if err := f.take(validateDescription(at+".description", text.Description)); err != nil {
			return nil, err
		}
		if text.Name == "" {
			if needNames {
				f.add(copse.Field{Path: at + ".name", Message: "a policy in contents needs a name, by which it is replaced next time"})
			}
			continue
		}
		if err := f.take(validateName(at+".name", text.Name)); err != nil {
			return nil, err
		}
		if first, twice := names[text.Name]; twice {
			f.add(copse.Field{Path: at + ".name", Message: fmt.Sprintf("%q is also the name of policies[%d]", text.Name, first)})
		}
		names[text.Name] = i
	}
	return out, nil
}

// validateAll is validate for the drafts that parsed, and then tells everything that was found.
func validateAll(f *findings, mode copse.ValidationMode, schema *engine.Schema, drafts []draft) error {
	var policies []*engine.Policy
	var paths []string
	for _, d := range drafts {
		if d.policy != nil {
			policies, paths = append(policies, d.policy), append(paths, d.path)
		}
	}
	if err := f.take(validate(mode, schema, paths, policies...)); err != nil {
		return err
	}
	return f.err(copse.ResourcePolicy, "the policies are not valid")
}

func newPolicyBody(text PolicyText, p *engine.Policy, created, updated time.Time) policyBody {
	scope := p.Scope()
	b := policyBody{
		V: bodyVersion, Name: text.Name, Statement: text.Statement, Description: text.Description,
		Effect: effectPermit, Principal: newEntityBody(scope.Principal), Resource: newEntityBody(scope.Resource),
		CreatedAt: created, UpdatedAt: updated,
	}
	if p.Forbids() {
		b.Effect = effectForbid
	}
	for _, a := range scope.Actions {
		b.Actions = append(b.Actions, entityBody{Type: string(a.Type), ID: string(a.ID)})
	}
	return b
}
