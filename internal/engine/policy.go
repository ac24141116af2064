package engine

import (
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/copse-authz/copse"
)

// Policy is one policy that parsed: a static one, or a template with its slots filled. It is immutable.
// tree is what decides; path and at say where it was found, for findings.
type Policy struct {
	text     string
	path     string
	at       position
	tree     *ast.Policy
	template *Template // of a link, which shares everything of it but slots
}

// Scope is what a policy's head names; zero UIDs where it names no single entity. It does not tell == from
// in: [Policy.SameTarget] does.
type Scope struct {
	Principal, Resource types.EntityUID
	Actions             []types.EntityUID
}

// ParsePolicy reads exactly one policy. path names it in the Fields of an error: a file name or a
// member path. An error is a *copse.Error: of kind QuotaExceeded if the text is too long, else Invalid,
// with line and column of each fault. A template is refused.
func ParsePolicy(path string, text []byte) (*Policy, error) {
	parsed, err := parseOne(path, text)
	if err != nil {
		return nil, err
	}
	if err := parsed.refuseSlots(path, text); err != nil {
		return nil, err
	}
	return parsed.Policy, nil
}

// parseOne reads exactly one policy or template.
func parseOne(path string, text []byte) (parsedText, error) {
	parsed, err := parseTexts(path, text, copse.MaxPolicyBytes)
	if err != nil {
		return parsedText{}, err
	}
	switch len(parsed) {
	case 0:
		return parsedText{}, policyError(position{1, 1}.field(path, "there is no policy here: expected permit or forbid"))
	case 1:
		// It is stored and shown as it was sent, with the space around it.
		parsed[0].text = string(text)
		return parsed[0], nil
	default:
		return parsedText{}, policyError(parsed[1].at.field(path, "expected exactly one policy, but a second one starts here"))
	}
}

// ParsePolicies reads a document of any number of policies. Each has the comments before it, and one
// behind it on its last line, as its text. One that is at fault, or a template, refuses the whole
// document.
func ParsePolicies(path string, text []byte) ([]*Policy, error) {
	parsed, err := parseTexts(path, text, copse.MaxContentsBytes)
	if err != nil {
		return nil, err
	}
	out := make([]*Policy, len(parsed))
	for i, p := range parsed {
		if err := p.refuseSlots(path, text); err != nil {
			return nil, err
		}
		out[i] = p.Policy
	}
	return out, nil
}

// Statement is what a document of policies and templates holds: one of the two, the other is nil.
type Statement struct {
	Policy   *Policy
	Template *Template
}

// Text is its source, comments included.
func (s Statement) Text() string { return s.policy().text }

// Annotation returns the value of @name("value").
func (s Statement) Annotation(name string) (string, bool) { return s.policy().Annotation(name) }

func (s Statement) policy() *Policy {
	if s.Template != nil {
		return s.Template.source
	}
	return s.Policy
}

// ParseDocument reads a document of any number of policies and templates, in their order: a template is
// what has slots. Limits and errors are those of [ParsePolicies].
func ParseDocument(path string, text []byte) ([]Statement, error) {
	parsed, err := parseTexts(path, text, copse.MaxContentsBytes)
	if err != nil {
		return nil, err
	}
	out := make([]Statement, len(parsed))
	for i, p := range parsed {
		if _, _, has := p.slots.first(); has {
			out[i].Template = p.template()
		} else {
			out[i].Policy = p.Policy
		}
	}
	return out, nil
}

// parsedText is a policy, or a template if it has slots: then the zero UID stands in their place,
// which no text can name.
type parsedText struct {
	*Policy
	slots slotPlaces
}

// template makes it one; it must have slots.
func (p parsedText) template() *Template {
	return &Template{source: p.Policy, slots: Slots{Principal: p.slots.principal > 0, Resource: p.slots.resource > 0}}
}

// refuseSlots is the error for a template where a policy belongs, placed at its first slot.
func (p parsedText) refuseSlots(path string, text []byte) error {
	name, offset, has := p.slots.first()
	if !has {
		return nil
	}
	return policyError(positionAt(text, offset).field(path, "this is a template, for it has the slot %s: make a policy template of it, and a template-linked policy that says what stands there; or name an entity here", name))
}

// parseTexts reads what all of these read: limit is for the document, and each policy in it has its own.
// All faults of the document are in one error.
func parseTexts(path string, text []byte, limit int) ([]parsedText, error) {
	if len(text) > limit {
		return nil, sizeError(copse.ResourcePolicy, path, len(text), limit)
	}
	source := string(text)
	spans, faults := checkPolicies(source)
	if len(faults) > 0 {
		return nil, policyFaults(path, text, faults)
	}
	if len(spans) > copse.MaxContentsWrites {
		return nil, policyError(positionAt(text, spans[copse.MaxContentsWrites].start).field(path,
			"a document has at most %d policies, this one has %d", copse.MaxContentsWrites, len(spans)))
	}
	out := make([]parsedText, 0, len(spans))
	from := 0
	at, counted := position{1, 1}, 0
	for i, span := range spans {
		to := len(source)
		if i+1 < len(spans) {
			to = endOfPolicy(source, span.end)
		}
		// Counted on from the policy before, so that a document is gone through once.
		at = at.advance(source[counted:span.start])
		counted = span.start
		p := &Policy{text: strings.Clone(strings.TrimSpace(source[from:to])), path: path, at: at}
		if len(p.text) > copse.MaxPolicyBytes {
			// Comments count too: they are stored.
			err := sizeError(copse.ResourcePolicy, path, len(p.text), copse.MaxPolicyBytes)
			err.Fields[0].Line, err.Fields[0].Column = p.at.line, p.at.column
			return nil, err
		}
		if err := p.build(source, span); err != nil {
			return nil, policyError(p.at.field(path, "%s", err))
		}
		out = append(out, parsedText{p, span.slots})
		from = to
	}
	return out, nil
}

// endOfPolicy returns where the text of a policy ends whose semicolon is before end: a comment on the
// rest of the line still belongs to it.
func endOfPolicy(source string, end int) int {
	line, _, _ := strings.Cut(source[end:], "\n")
	if strings.HasPrefix(strings.TrimLeft(line, " \t\r"), "//") {
		return end + len(line)
	}
	return end
}

// build hands the text of exactly one sound policy to cedar-go. It fails only where the grammar here
// is laxer than cedar-go's parser, which would be a defect, but not a reason to panic.
//
// cedar-go does not know slots. It is shown an entity in the place of each, and the tree then gets the
// zero UID there. What is a slot is known from where the grammar found it, never from a name in the
// tree, so no name in a policy can be taken for one. The tree may not be changed afterwards: compiled
// programs and links share parts of it.
func (p *Policy) build(source string, span policySpan) error {
	text := []byte(source[span.start:span.end])
	if span.odd || span.slots != (slotPlaces{}) {
		// The place of a slot that is not there is not behind the span's beginning, so no question mark is
		// at it.
		text = plainText(source[span.start:span.end], span.slots.principal-span.start, span.slots.resource-span.start)
	}
	var parsed cedar.Policy
	if err := parsed.UnmarshalCedar(text); err != nil {
		return err
	}
	p.tree = (*ast.Policy)(parsed.AST())
	if span.slots != (slotPlaces{}) {
		tree := *p.tree
		if span.slots.principal > 0 {
			tree.Principal = withEntity(tree.Principal, types.EntityUID{}).(ast.IsPrincipalScopeNode)
		}
		if span.slots.resource > 0 {
			tree.Resource = withEntity(tree.Resource, types.EntityUID{}).(ast.IsResourceScopeNode)
		}
		p.tree = &tree
	}
	return nil
}

// Text is the policy's source, comments included; of a link, its template's.
func (p *Policy) Text() string { return p.text }

// Forbids reports the effect.
func (p *Policy) Forbids() bool { return p.tree.Effect == ast.EffectForbid }

// Scope tells what the policy's head names. The list of actions is the caller's.
func (p *Policy) Scope() Scope {
	var s Scope
	s.Principal = scopeEntity(p.tree.Principal)
	s.Resource = scopeEntity(p.tree.Resource)
	switch a := p.tree.Action.(type) {
	case ast.ScopeTypeEq:
		s.Actions = []types.EntityUID{a.Entity}
	case ast.ScopeTypeIn:
		s.Actions = []types.EntityUID{a.Entity}
	case ast.ScopeTypeInSet:
		s.Actions = append(s.Actions, a.Entities...)
	}
	return s
}

// scopeEntity is the entity that a scope names, or the zero UID.
func scopeEntity(node ast.IsScopeNode) types.EntityUID {
	switch n := node.(type) {
	case ast.ScopeTypeEq:
		return n.Entity
	case ast.ScopeTypeIn:
		return n.Entity
	case ast.ScopeTypeIsIn:
		return n.Entity
	default:
		return types.EntityUID{}
	}
}

// Annotation returns the value of @name("value"). Without a value it is the empty text; the bool tells
// whether it is there.
func (p *Policy) Annotation(name string) (string, bool) {
	for _, a := range p.tree.Annotations {
		if string(a.Key) == name {
			return string(a.Value), true
		}
	}
	return "", false
}
