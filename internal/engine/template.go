package engine

import (
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/copse-authz/copse"
)

// Template is a policy with slots in its scope: ?principal, ?resource or both stand where an entity
// would. It decides nothing; its links do.
type Template struct {
	// source has the zero UID where a slot is. No policy's text can name that entity.
	source *Policy
	slots  Slots
}

// Slots tells which entities the links of a template name.
type Slots struct{ Principal, Resource bool }

// ParseTemplate reads exactly one template. path names it in the Fields of an error.
func ParseTemplate(path string, text []byte) (*Template, error) {
	parsed, err := parseOne(path, text)
	if err != nil {
		return nil, err
	}
	if _, _, has := parsed.slots.first(); !has {
		return nil, policyError(parsed.at.field(path, "this is a policy, not a template: it has no slot; write ?principal or ?resource behind == or in of the scope"))
	}
	return parsed.template(), nil
}

// Text is the template's source, comments included.
func (t *Template) Text() string { return t.source.text }

// Forbids reports the effect of its links.
func (t *Template) Forbids() bool { return t.source.Forbids() }

// Scope tells what the template's head names; zero UIDs where it has slots or names no single entity.
func (t *Template) Scope() Scope { return t.source.Scope() }

// Slots tells which slots it has: one of them at least.
func (t *Template) Slots() Slots { return t.slots }

// Annotation returns the value of @name("value").
func (t *Template) Annotation(name string) (string, bool) { return t.source.Annotation(name) }

// SameTarget reports whether two templates have the same effect, slots, and principal and resource
// scope: what an update of a template may not change.
func (t *Template) SameTarget(other *Template) bool { return t.source.SameTarget(other.source) }

// RequireConstraints refuses a template whose principal or resource is not constrained, as Amazon
// Verified Permissions does. Cedar itself has nothing against it. The error has a Field for each side that
// is at fault, at the place of the template.
func (t *Template) RequireConstraints() error {
	var fields []copse.Field
	for _, side := range []struct {
		name  string
		scope ast.IsScopeNode
	}{{"principal", t.source.tree.Principal}, {"resource", t.source.tree.Resource}} {
		if _, free := side.scope.(ast.ScopeTypeAll); free {
			fields = append(fields, t.source.at.field(t.source.path,
				"the scope of a template must say which %s it is about: write ==, in or is behind `%s`", side.name, side.name))
		}
	}
	if len(fields) > 0 {
		return policyError(fields...)
	}
	return nil
}

// Link fills the slots. It names an entity for each slot of the template, and the zero UID for one it
// does not have. The policy shares the conditions of the template, so it costs little more than the
// two UIDs. path names it in the Fields of errors. Whether their types fit the schema is not asked here;
// [Schema.Validate] asks it of the link.
func (t *Template) Link(path string, principal, resource types.EntityUID) (*Policy, error) {
	var fields []copse.Field
	for _, side := range []struct {
		name string
		slot bool
		uid  types.EntityUID
	}{{"principal", t.slots.Principal, principal}, {"resource", t.slots.Resource, resource}} {
		if message := wrongLink(side.name, side.slot, side.uid); message != "" {
			fields = append(fields, position{}.field(path, "%s", message))
		}
	}
	if len(fields) > 0 {
		return nil, findings(copse.ResourcePolicy, "the template can't be linked like this", fields)
	}
	tree := *t.source.tree
	if t.slots.Principal {
		tree.Principal = withEntity(tree.Principal, principal).(ast.IsPrincipalScopeNode)
	}
	if t.slots.Resource {
		tree.Resource = withEntity(tree.Resource, resource).(ast.IsResourceScopeNode)
	}
	return &Policy{text: t.source.text, path: path, tree: &tree, template: t}, nil
}

// wrongLink says what is wrong with the entity for one slot, or nothing.
func wrongLink(name string, slot bool, uid types.EntityUID) string {
	switch {
	case !slot && uid != (types.EntityUID{}):
		return "the template has no slot ?" + name + ", so a " + name + " can't be given"
	case slot && uid == (types.EntityUID{}):
		return "the template has the slot ?" + name + ": say which " + name + " stands there"
	case !slot:
		return ""
	}
	if _, err := types.NewPath(string(uid.Type)); err != nil {
		return "the " + name + " has a type that is not one: " + clipTo(string(uid.Type), 100)
	}
	return ""
}

// Template returns the template of a link, nil for a static policy.
func (p *Policy) Template() *Template { return p.template }

// withEntity is a scope that names uid where it named another entity.
func withEntity(scope ast.IsScopeNode, uid types.EntityUID) ast.IsScopeNode {
	switch n := scope.(type) {
	case ast.ScopeTypeEq:
		return ast.ScopeTypeEq{Entity: uid}
	case ast.ScopeTypeIn:
		return ast.ScopeTypeIn{Entity: uid}
	case ast.ScopeTypeIsIn:
		return ast.ScopeTypeIsIn{Type: n.Type, Entity: uid}
	default:
		return scope
	}
}

// slotPlaces is where the slots of a template lie in its text; 0 is nowhere, for a head begins there.
type slotPlaces struct{ principal, resource int }

// first returns the slot that comes first and where it is.
func (s slotPlaces) first() (string, int, bool) {
	switch {
	case s.principal > 0:
		return "?principal", s.principal, true
	case s.resource > 0:
		return "?resource", s.resource, true
	default:
		return "", 0, false
	}
}
