package engine

import (
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
)

// shape is a schema type made ready for checking values: what must be there is listed, so that a
// check costs what the value has, not what the schema could have.
type shape struct {
	kind     kind
	entity   types.EntityType        // of kindEntity
	element  *shape                  // of kindSet
	members  map[types.String]*shape // of kindRecord
	required []types.String          // of kindRecord, sorted
}

func shapeOf(t resolved.IsType) *shape {
	switch t := t.(type) {
	case resolved.StringType:
		return &shape{kind: kindString}
	case resolved.LongType:
		return &shape{kind: kindLong}
	case resolved.BoolType:
		return &shape{kind: kindBool}
	case resolved.ExtensionType:
		return &shape{kind: kind(slices.Index(kindNames[:], string(t)))}
	case resolved.EntityType:
		return &shape{kind: kindEntity, entity: types.EntityType(t)}
	case resolved.SetType:
		return &shape{kind: kindSet, element: shapeOf(t.Element)}
	case resolved.RecordType:
		s := &shape{kind: kindRecord, members: make(map[types.String]*shape, len(t))}
		for name, attr := range t {
			s.members[name] = shapeOf(attr.Type)
			if !attr.Optional {
				s.required = append(s.required, name)
			}
		}
		slices.Sort(s.required)
		return s
	default:
		return nil
	}
}

// member returns the type of a record's member, nil when it is not declared or s is no record.
func (s *shape) member(name types.String) *shape {
	if s == nil {
		return nil
	}
	return s.members[name]
}

// describe names the type in a finding.
func (s *shape) describe() string {
	if s.kind == kindEntity {
		return "an entity of type " + string(s.entity)
	}
	return s.kind.String()
}

// entityShape is what the schema says about entities of a type.
type entityShape struct {
	attributes *shape
	tags       *shape // nil: no tags
}

// shapes makes the types of entities and contexts ready.
func (s *Schema) shapes() {
	s.entityShapes = make(map[types.EntityType]entityShape, len(s.resolved.Entities))
	for name, e := range s.resolved.Entities {
		out := entityShape{attributes: shapeOf(e.Shape)}
		if e.Tags != nil {
			out.tags = shapeOf(e.Tags)
		}
		s.entityShapes[name] = out
	}
	s.contextShapes = make(map[types.EntityUID]*shape, len(s.resolved.Actions))
	for uid, a := range s.resolved.Actions {
		if a.AppliesTo != nil {
			s.contextShapes[uid] = shapeOf(a.AppliesTo.Context)
		}
	}
}
