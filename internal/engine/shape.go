package engine

import (
	"cmp"
	"maps"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
)

// shape is a schema type made ready for checking values: names are numbers and what must be there is
// marked, so that a check costs what the value has, not what the schema could have. Common types are
// written out in it, within the bound of the schema. It is immutable and shared by all calls.
type shape struct {
	kind       kind
	entity     uint32 // of kindEntity: the number of its type
	entityName types.EntityType
	element    *shape        // of kindSet
	members    []shapeMember // of kindRecord, sorted by name
	required   []uint32      // names of those that must be there, sorted
}

// shapeMember is a member that the schema declares, required or not.
type shapeMember struct {
	shape *shape
	name  uint32
}

// entityShape is what the schema says about entities of a type.
type entityShape struct {
	attributes *shape
	tags       *shape // nil: no tags
	enum       bool
	parents    []uint32 // the types of its ancestors, sorted
}

// actionShape is what the schema says about an action.
type actionShape struct {
	ancestors []uint32 // sorted
	// applies: it is no mere group. Then principals and resources are the types it applies to.
	applies               bool
	principals, resources []uint32
	context               *shape
}

// shapes gives numbers to what the schema names and makes its types ready. Its entity types and its
// actions come first, so that their numbers are their places in entities and actions. Names get their
// numbers in one order, whatever maps do, see [Schema.shape].
func (s *Schema) shapes() {
	s.symbols = newSymbols()
	for _, uid := range slices.SortedFunc(maps.Keys(s.resolved.Actions), compareUIDs) {
		s.symbols.entity(uid)
	}
	names := slices.Sorted(maps.Keys(s.resolved.Entities))
	names = append(names, slices.Sorted(maps.Keys(s.resolved.Enums))...)
	for _, name := range names {
		s.symbols.entityType(name)
	}
	// All types that have a shape have their numbers now: what shapes refer to is declared, too.
	s.entities = make([]entityShape, len(s.symbols.types.list))
	for _, name := range slices.Sorted(maps.Keys(s.resolved.Entities)) {
		e := s.resolved.Entities[name]
		out := &s.entities[s.symbols.entityType(name)]
		out.attributes = s.shape(e.Shape)
		if e.Tags != nil {
			out.tags = s.shape(e.Tags)
		}
		for above := range s.typeAncestors[name] {
			out.parents = append(out.parents, s.symbols.entityType(above))
		}
		slices.Sort(out.parents)
	}
	for name := range s.resolved.Enums {
		s.entities[s.symbols.entityType(name)].enum = true
	}
	s.actions = make([]actionShape, len(s.resolved.Actions))
	for _, uid := range slices.SortedFunc(maps.Keys(s.resolved.Actions), compareUIDs) {
		a := s.resolved.Actions[uid]
		out := &s.actions[s.symbols.entity(uid)]
		for _, above := range s.actionAncestors[uid] {
			out.ancestors = append(out.ancestors, s.symbols.entity(above))
		}
		slices.Sort(out.ancestors)
		if a.AppliesTo != nil {
			out.applies = true
			out.principals, out.resources = s.typeNumbers(a.AppliesTo.Principals), s.typeNumbers(a.AppliesTo.Resources)
			out.context = s.shape(a.AppliesTo.Context)
		}
	}
}

// typeNumbers are the numbers of types, in their order.
func (s *Schema) typeNumbers(list []types.EntityType) []uint32 {
	out := make([]uint32, len(list))
	for i, t := range list {
		out[i] = s.symbols.entityType(t)
	}
	return out
}

// shape makes one type ready. Depth and size are those that [schemaSource.measure] has let pass.
func (s *Schema) shape(t resolved.IsType) *shape {
	switch t := t.(type) {
	case resolved.StringType:
		return &shape{kind: kindString}
	case resolved.LongType:
		return &shape{kind: kindLong}
	case resolved.BoolType:
		return &shape{kind: kindBool}
	case resolved.ExtensionType:
		// Their names are among Cedar's, which measure checks.
		return &shape{kind: kind(slices.Index(kindNames[:], string(t)))}
	case resolved.EntityType:
		return &shape{kind: kindEntity, entity: s.symbols.entityType(types.EntityType(t)), entityName: types.EntityType(t)}
	case resolved.SetType:
		return &shape{kind: kindSet, element: s.shape(t.Element)}
	case resolved.RecordType:
		out := &shape{kind: kindRecord, members: make([]shapeMember, 0, len(t))}
		// In the order of their names: symbols are numbered as they come, and what is ordered by their numbers, budgets
		// and findings, is to be the same on every machine.
		for _, name := range slices.Sorted(maps.Keys(t)) {
			attr := t[name]
			member := shapeMember{name: s.symbols.name(string(name)), shape: s.shape(attr.Type)}
			out.members = append(out.members, member)
			if !attr.Optional {
				out.required = append(out.required, member.name)
			}
		}
		slices.Sort(out.required)
		slices.SortFunc(out.members, func(a, b shapeMember) int { return cmp.Compare(a.name, b.name) })
		return out
	default:
		return nil
	}
}

// member returns the type of a record's member, nil when it is not declared or s is no record.
func (s *shape) member(name uint32) *shape {
	if s == nil {
		return nil
	}
	i, found := slices.BinarySearchFunc(s.members, name, func(m shapeMember, name uint32) int { return cmp.Compare(m.name, name) })
	if !found {
		return nil
	}
	return s.members[i].shape
}

// describe names the type in a finding.
func (s *shape) describe() string {
	if s.kind == kindEntity {
		return "an entity of type " + string(s.entityName)
	}
	return s.kind.String()
}

// entityShape returns what is declared of a type, or nil. Enum types have one as well.
func (s *Schema) entityShape(typ uint32) *entityShape {
	// The types of actions have numbers too, and no shape.
	if int(typ) >= len(s.entities) || s.entities[typ].attributes == nil && !s.entities[typ].enum {
		return nil
	}
	return &s.entities[typ]
}

// contextShape returns the type of an action's context, or nil. A group of actions that applies to nothing
// has none.
func (s *Schema) contextShape(action *entity) *shape {
	if int(action.number) >= len(s.actions) {
		return nil
	}
	return s.actions[action.number].context
}

// compareUIDs orders entities by type and id.
func compareUIDs(a, b types.EntityUID) int {
	return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.ID, b.ID))
}
