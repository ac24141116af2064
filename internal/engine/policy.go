package engine

import (
	"errors"

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
	cost   int // see policyCost
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
	list, err := cedar.NewPolicyListFromBytes(path, text)
	if err != nil {
		return nil, policyError(position{1, 1}.field(path, "%s", errors.Unwrap(err)))
	}
	out := make([]*Policy, len(list))
	for i, p := range list {
		pos := p.Position()
		end := len(text)
		if i+1 < len(list) {
			end = list[i+1].Position().Offset
		}
		out[i] = &Policy{
			text: string(text[pos.Offset:end]), path: path, at: positionAt(text, pos.Offset),
			parsed: p, tree: (*ast.Policy)(p.AST()),
		}
	}
	return out, nil
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
