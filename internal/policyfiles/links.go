package policyfiles

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/policystore"
)

// LinksFile is what a file of links is called in a directory of policies.
const LinksFile = "links.json"

// NamedLink is a policy made of a template, and where it begins in its file.
type NamedLink struct {
	Name         string
	Link         policystore.Link // its template is "name/<name>"
	Line, Column int
}

// byName is how a link names its template by name instead of id.
const byName = "name/"

// TemplateName is the name of the template it is made of.
func (l *NamedLink) TemplateName() string { return strings.TrimPrefix(string(l.Link.Template), byName) }

// linkText is a link as it is written, with the names the control API has for the same. Members that
// are not among these are refused, so a slot that is misspelt is not left out in silence.
type linkText struct {
	Name      string   `json:"name"`
	Template  string   `json:"template"`
	Principal *uidText `json:"principal"`
	Resource  *uidText `json:"resource"`
}

type uidText struct {
	Type string  `json:"type"`
	ID   *string `json:"id"` // may be empty, but not absent
}

// ParseLinks reads a file of links, a JSON list whose order means nothing:
//
//	[{"name": "alice-views-plans", "template": "viewers",
//	  "principal": {"type": "User", "id": "alice"}, "resource": {"type": "Folder", "id": "plans"}}]
//
// There is an entity for each slot that the template has. Whether there is such a template is not asked
// here. All that is wrong is told at once, in a *copse.Error whose Fields have file, line and column; the
// links that are right are returned beside it.
func ParseLinks(file string, text []byte) ([]NamedLink, error) {
	p := linkParser{file: file, text: text}
	p.parse()
	if len(p.problems) > 0 {
		return p.links, &copse.Error{Kind: copse.Invalid, Resource: copse.ResourcePolicy,
			Detail: file + " is not a list of links", Fields: p.problems}
	}
	return p.links, nil
}

// linkParser collects what is wrong, and goes on with the next link where it can.
type linkParser struct {
	file     string
	text     []byte
	links    []NamedLink
	problems []copse.Field
}

// parse reads link by link, so that a mistake in one hides none in the others. Only
// broken JSON ends it.
func (p *linkParser) parse() {
	// No commit could take more, whatever is in it.
	if len(p.text) > copse.MaxContentsBytes {
		p.problem(0, "a file of links has at most %d bytes, this one has %d", copse.MaxContentsBytes, len(p.text))
		return
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(p.text))
	if dec.PeekKind() != '[' {
		p.problem(0, `expected a list of links: [{"name": ..., "template": ..., "principal": {"type": ..., "id": ...}}]`)
		return
	}
	_, _ = dec.ReadToken() // it is the bracket
	for dec.PeekKind() != ']' {
		value, err := dec.ReadValue()
		if err != nil {
			p.wrong(0, err)
			return
		}
		// The offset is where the link's own text begins.
		p.link(int(dec.InputOffset())-len(value), value)
	}
	_, _ = dec.ReadToken() // the other bracket
	// Anything behind the list would be ignored by a reader that stops there.
	if rest := bytes.TrimLeft(p.text[dec.InputOffset():], " \t\r\n"); len(rest) > 0 {
		p.problem(len(p.text)-len(rest), "the list of links ends before this")
	}
}

// link reads the link at an offset of the file.
func (p *linkParser) link(at int, value jsontext.Value) {
	var in linkText
	if err := json.Unmarshal(value, &in, json.RejectUnknownMembers(true)); err != nil {
		p.wrong(at, err)
		return
	}
	// The place is kept also for findings of the template, which know nothing of this file.
	out := NamedLink{Name: in.Name, Link: policystore.Link{Template: copse.PolicyTemplateID(byName + in.Template)}}
	out.Line, out.Column = p.place(at)
	// Both names keep to the rules of the policy store, so what passes here is not
	// refused there for its name.
	for _, name := range []string{in.Name, in.Template} {
		if err := copse.ValidateName(name); err != nil {
			p.problem(at, "a link has a name and a template, by its name: %v", err)
			return
		}
	}
	for _, slot := range []struct {
		name string
		in   *uidText
		out  *types.EntityUID
	}{{"principal", in.Principal, &out.Link.Principal}, {"resource", in.Resource, &out.Link.Resource}} {
		switch {
		case slot.in == nil: // as the template has it
		case slot.in.Type == "" || slot.in.ID == nil:
			p.problem(at, `the %s needs a type and an id: {"type": "User", "id": "alice"}`, slot.name)
			return
		default:
			*slot.out = types.NewEntityUID(types.EntityType(slot.in.Type), types.String(*slot.in.ID))
		}
	}
	p.links = append(p.links, out)
}

// wrong notes what the JSON package found, where it found it: offsets in err count from base. Without
// an offset the finding is at base.
func (p *linkParser) wrong(base int, err error) {
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		p.problem(base+int(e.ByteOffset), "%v", e.Err)
		return
	}
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		member := string(e.JSONPointer)
		if e.Err == nil {
			p.problem(base+int(e.ByteOffset), "%s is not what belongs there", member)
			return
		}
		p.problem(base+int(e.ByteOffset), "%s: %v", member, e.Err)
		return
	}
	p.problem(base, "%v", err)
}

// problem notes a finding at an offset of the file.
func (p *linkParser) problem(at int, format string, args ...any) {
	line, column := p.place(at)
	p.problems = append(p.problems, copse.Field{Path: p.file, Message: fmt.Sprintf(format, args...), Line: line, Column: column})
}

// place gives line and column from 1, columns in bytes; an offset beyond the text is its end.
func (p *linkParser) place(at int) (line, column int) {
	before := p.text[:min(at, len(p.text))]
	return 1 + bytes.Count(before, []byte("\n")), len(before) - bytes.LastIndexByte(before, '\n')
}
