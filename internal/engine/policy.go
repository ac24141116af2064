package engine

import (
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/copse-authz/copse"
)

// Policy is one static policy that parsed.
type Policy struct {
	text   string
	path   string
	at     position
	parsed *cedar.Policy
	tree   *ast.Policy
}

// Scope is what a policy's head names; zero UIDs where it names no single entity.
type Scope struct {
	Principal, Resource types.EntityUID
	Actions             []types.EntityUID
}

// ParsePolicy reads exactly one policy. path names it in the Fields of an error: a file name or a
// member path.
func ParsePolicy(path string, text []byte) (*Policy, error) {
	policies, err := parsePolicies(path, text, copse.MaxPolicyBytes)
	if err != nil {
		return nil, err
	}
	switch len(policies) {
	case 0:
		return nil, policyError(position{1, 1}.field(path, "there is no policy here: expected permit or forbid"))
	case 1:
		policies[0].text = string(text)
		return policies[0], nil
	default:
		return nil, policyError(policies[1].at.field(path, "expected exactly one policy, but a second one starts here"))
	}
}

// ParsePolicies reads a document of any number of policies.
func ParsePolicies(path string, text []byte) ([]*Policy, error) {
	return parsePolicies(path, text, copse.MaxContentsBytes)
}

func parsePolicies(path string, text []byte, limit int) ([]*Policy, error) {
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
	out := make([]*Policy, 0, len(spans))
	from := 0
	at, counted := position{1, 1}, 0
	for i, span := range spans {
		to := len(source)
		if i+1 < len(spans) {
			to = endOfPolicy(source, span.end)
		}
		at = at.advance(source[counted:span.start])
		counted = span.start
		p := &Policy{text: strings.Clone(strings.TrimSpace(source[from:to])), path: path, at: at}
		if len(p.text) > copse.MaxPolicyBytes {
			err := sizeError(copse.ResourcePolicy, path, len(p.text), copse.MaxPolicyBytes)
			err.Fields[0].Line, err.Fields[0].Column = p.at.line, p.at.column
			return nil, err
		}
		if err := p.build(text[span.start:span.end]); err != nil {
			return nil, policyError(p.at.field(path, "%s", err))
		}
		out = append(out, p)
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
func (p *Policy) build(text []byte) error {
	p.parsed = new(cedar.Policy)
	if err := p.parsed.UnmarshalCedar(text); err != nil {
		return err
	}
	p.tree = (*ast.Policy)(p.parsed.AST())
	return nil
}

// Text is the policy's source, comments included.
func (p *Policy) Text() string { return p.text }

// Forbids reports the effect.
func (p *Policy) Forbids() bool { return p.tree.Effect == ast.EffectForbid }

// Scope tells what the policy's head names.
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

// Annotation returns the value of @name("value").
func (p *Policy) Annotation(name string) (string, bool) {
	for _, a := range p.tree.Annotations {
		if string(a.Key) == name {
			return string(a.Value), true
		}
	}
	return "", false
}
