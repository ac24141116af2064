package engine

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
)

// head is what a schema makes of the scope of a policy: which request environments it admits. It
// depends on the types the scope names and on its actions, not on the ids of principal and resource, so
// that thousands of policies share a few. A head is of one validation and one goroutine. Its messages are
// what a policy with this scope is refused for, whatever its conditions say; each is in it once.
type head struct {
	s        *Schema
	messages []string

	principals, resources constraint
	actions               actionSet

	// merged stands for all environments where conditions don't speak of actions: of those that differ in
	// nothing else, one. full has each. Both are made when first used.
	merged, full *slice
}

// slice is a schema cut down to the request environments that a head admits, for cedar-go's
// typechecker: it would enumerate every environment of a schema for each policy, and the sub-types of
// a scope in cubic time. environments is how many it has, which the budget of validation is charged with.
// A slice is not changed once it is made.
type slice struct {
	schema       *resolved.Schema
	environments int
	contexts     uint64 // nodes of their contexts, which are written out
}

// headKey tells heads apart. Entities are written as literals and types are names, so nothing a policy
// says can make two different heads one.
func headKey(p *ast.Policy) string {
	var b strings.Builder
	scope := func(node ast.IsScopeNode) {
		switch n := node.(type) {
		case ast.ScopeTypeEq:
			b.WriteString("=" + string(n.Entity.Type))
			// An action can stand here, and is known by its id.
			if isActionType(n.Entity.Type) {
				b.WriteString(n.Entity.String())
			}
		case ast.ScopeTypeIn:
			b.WriteString("i" + string(n.Entity.Type))
			if isActionType(n.Entity.Type) {
				b.WriteString(n.Entity.String())
			}
		case ast.ScopeTypeIs:
			b.WriteString("t" + string(n.Type))
		case ast.ScopeTypeIsIn:
			b.WriteString("b" + string(n.Type) + "," + string(n.Entity.Type))
			if isActionType(n.Entity.Type) {
				b.WriteString(n.Entity.String())
			}
		case ast.ScopeTypeInSet:
			b.WriteString("[")
			for _, e := range n.Entities {
				b.WriteString(e.String())
			}
		}
		b.WriteString(";")
	}
	scope(p.Principal)
	scope(p.Resource)
	switch a := p.Action.(type) {
	case ast.ScopeTypeEq:
		b.WriteString("=" + a.Entity.String())
	case ast.ScopeTypeIn:
		b.WriteString("i" + a.Entity.String())
	default:
		scope(a)
	}
	return b.String()
}

// newHead settles a scope: it costs what the schema has of types and actions, see [typeCosts].
func newHead(s *Schema, p *ast.Policy) *head {
	h := &head{s: s}
	h.principals = h.scopeTypes(p.Principal)
	h.scopeActions(p.Action)
	h.resources = h.scopeTypes(p.Resource)
	h.checkApplication()
	return h
}

// add notes a message, as many as an answer can show and one.
func (h *head) add(message string) {
	if !slices.Contains(h.messages, message) && len(h.messages) <= maxFindings {
		h.messages = append(h.messages, message)
	}
}

// constraint is the entity types a scope admits; free admits all. Its zero value admits none.
type constraint struct {
	free  bool
	types map[types.EntityType]bool
}

// only admits one type.
func only(t types.EntityType) constraint {
	return constraint{types: map[types.EntityType]bool{t: true}}
}

func (c constraint) admits(t types.EntityType) bool { return c.free || c.types[t] }

// cut returns the types of a list that are admitted, in its order. It may be the list itself, which
// belongs to the schema.
func (c constraint) cut(list []types.EntityType) []types.EntityType {
	if c.free {
		return list
	}
	var out []types.EntityType
	for _, t := range list {
		if c.admits(t) {
			out = append(out, t)
		}
	}
	return out
}

// scopeTypes finds the types a scope admits. A slot takes any entity.
func (h *head) scopeTypes(scope ast.IsScopeNode) constraint {
	switch n := scope.(type) {
	case ast.ScopeTypeEq:
		if isSlot(n.Entity) {
			return constraint{free: true}
		}
		return h.entityType(n.Entity)
	case ast.ScopeTypeIn:
		if isSlot(n.Entity) {
			return constraint{free: true}
		}
		// A type that does not exist admits nothing; it is reported as such.
		if known := h.entityType(n.Entity); len(known.types) == 0 {
			return known
		}
		return constraint{types: h.s.typesIn(n.Entity.Type)}
	case ast.ScopeTypeIs:
		return h.knownType(n.Type)
	case ast.ScopeTypeIsIn:
		// Of `is T in E` the types must fit together: a T that can't be in an E is no environment.
		known := h.knownType(n.Type)
		if isSlot(n.Entity) {
			return known
		}
		if len(known.types) == 0 || len(h.entityType(n.Entity).types) == 0 || !h.s.typesIn(n.Entity.Type)[n.Type] {
			return constraint{}
		}
		return known
	default:
		return constraint{free: true}
	}
}

// isSlot recognises what stands for a slot in the tree of a template. The grammar lets no policy name an
// entity of the empty type.
func isSlot(uid types.EntityUID) bool { return uid == types.EntityUID{} }

// entityType admits the type of one entity. The types of actions are not declared as entity types, so an
// action is known by itself.
func (h *head) entityType(uid types.EntityUID) constraint {
	if _, isAction := h.s.resolved.Actions[uid]; isAction {
		return only(uid.Type)
	}
	return h.knownType(uid.Type)
}

// knownType admits one type, or none and says that the schema has no such type.
func (h *head) knownType(t types.EntityType) constraint {
	if !h.s.knows(t) {
		h.add(unknownType(t))
		return constraint{}
	}
	return only(t)
}

// unknownType words it the same for heads and conditions, so that a type named in both is reported once.
func unknownType(t types.EntityType) string {
	return fmt.Sprintf("unrecognized entity type `%s`", t)
}

func unknownAction(uid types.EntityUID) string { return fmt.Sprintf("unrecognized action `%s`", uid) }

// typesIn are the types whose entities can be in an entity of type target. The type itself is one of them,
// for `in` is reflexive.
func (s *Schema) typesIn(target types.EntityType) map[types.EntityType]bool {
	out := map[types.EntityType]bool{target: true}
	for t, above := range s.typeAncestors {
		if above[target] {
			out[t] = true
		}
	}
	return out
}

// actionSet is the actions a scope admits; free admits all. An empty list admits none, yet cedar-go
// checks the conditions as if it admitted all.
type actionSet struct {
	free    bool
	empty   bool
	uids    map[types.EntityUID]bool
	unknown bool
}

// scopeActions finds the actions that a scope admits: the one named, or those named and all that are in
// them.
func (h *head) scopeActions(scope ast.IsActionScopeNode) {
	var named []types.EntityUID
	groups := true
	switch n := scope.(type) {
	case ast.ScopeTypeEq:
		named, groups = []types.EntityUID{n.Entity}, false
	case ast.ScopeTypeIn:
		named = []types.EntityUID{n.Entity}
	case ast.ScopeTypeInSet:
		named = n.Entities
	}
	if len(named) == 0 {
		_, isList := scope.(ast.ScopeTypeInSet)
		h.actions = actionSet{free: true, empty: isList}
		return
	}
	h.actions = actionSet{uids: map[types.EntityUID]bool{}}
	for _, uid := range named {
		h.actions.uids[uid] = true
		if _, ok := h.s.resolved.Actions[uid]; !ok {
			h.actions.unknown = true
			h.add(unknownAction(uid))
		}
	}
	if !groups {
		return
	}
	// The ancestors are transitive, so it does not matter in which order the map gives the actions.
	for uid, above := range h.s.actionAncestors {
		if slices.ContainsFunc(above, func(group types.EntityUID) bool { return h.actions.uids[group] }) {
			h.actions.uids[uid] = true
		}
	}
}

// admitted lists the actions of the scope that apply to anything, and to what of it, sorted. They are
// copies, cut to what the scope admits. An action that is left with no principal or no resource is not
// among them.
func (h *head) admitted() []resolved.Action {
	var out []resolved.Action
	// An action that the schema does not declare applies to nothing. What is cut is a copy: the schema is
	// shared.
	consider := func(uid types.EntityUID) {
		a := h.s.resolved.Actions[uid]
		if a.AppliesTo == nil {
			return
		}
		applies := resolved.AppliesTo{Context: a.AppliesTo.Context, Principals: h.principals.cut(a.AppliesTo.Principals), Resources: h.resources.cut(a.AppliesTo.Resources)}
		if len(applies.Principals) > 0 && len(applies.Resources) > 0 {
			a.Entity.UID, a.AppliesTo = uid, &applies
			out = append(out, a)
		}
	}
	if h.actions.free {
		for uid := range h.s.resolved.Actions {
			consider(uid)
		}
	} else {
		for uid := range h.actions.uids {
			consider(uid)
		}
	}
	slices.SortFunc(out, func(a, b resolved.Action) int { return compareUIDs(a.Entity.UID, b.Entity.UID) })
	return out
}

// checkApplication refuses a scope that no request can meet. The reference had this as an error until
// 4.13; it stays one here (docs/cedar.md).
func (h *head) checkApplication() {
	if h.actions.empty {
		h.add("empty set literals are forbidden in policies")
	} else if !h.actions.unknown && len(h.admitted()) > 0 {
		return
	}
	h.add("unable to find an applicable action given the policy scope constraints")
}

// cut makes the slice of a head. The whole one keeps all actions, so that conditions may ask for them. The
// merged one has an action only if it is the first of its kind.
func (h *head) cut(merge bool) *slice {
	target := &h.full
	if merge {
		target = &h.merged
	}
	if *target != nil {
		return *target
	}
	cut := *h.s.resolved
	cut.Actions = map[types.EntityUID]resolved.Action{}
	if !merge {
		maps.Copy(cut.Actions, h.s.resolved.Actions)
		for uid, a := range cut.Actions {
			// Without an environment the context would still be written out.
			if a.AppliesTo != nil {
				a.AppliesTo = nil
				cut.Actions[uid] = a
			}
		}
	}
	out := &slice{schema: &cut}
	seen := map[string]bool{}
	for _, a := range h.admitted() {
		if merge {
			key := h.s.environmentKey(&a)
			if seen[key] {
				continue
			}
			seen[key] = true
		}
		out.environments += len(a.AppliesTo.Principals) * len(a.AppliesTo.Resources)
		out.contexts += uint64(h.s.costs.contexts[a.Entity.UID])
		cut.Actions[a.Entity.UID] = a
	}
	*target = out
	return out
}

// environmentKey is the same for actions whose environments differ in nothing but the action. What order
// the schema lists types in makes no difference.
func (s *Schema) environmentKey(a *resolved.Action) string {
	var b strings.Builder
	for _, list := range [][]types.EntityType{a.AppliesTo.Principals, a.AppliesTo.Resources} {
		for _, t := range slices.Sorted(slices.Values(list)) {
			b.WriteString(string(t) + ",")
		}
		b.WriteString(";")
	}
	writeType(&b, a.AppliesTo.Context)
	return b.String()
}

// writeType writes a type so that no two different ones are written alike.
func writeType(b *strings.Builder, t resolved.IsType) {
	switch t := t.(type) {
	case resolved.RecordType:
		b.WriteString("{")
		for _, name := range slices.Sorted(maps.Keys(t)) {
			fmt.Fprintf(b, "%q?%v:", string(name), t[name].Optional)
			writeType(b, t[name].Type)
		}
		b.WriteString("}")
	case resolved.SetType:
		b.WriteString("Set<")
		writeType(b, t.Element)
		b.WriteString(">")
	default:
		fmt.Fprintf(b, "%T %v,", t, t)
	}
}
