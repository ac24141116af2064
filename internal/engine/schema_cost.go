package engine

import (
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
)

// typeCosts is what the typechecker's work depends on, beyond the number of nodes: it writes out an
// attribute's type at each access, and walks the hierarchies at each `in`. It is computed once for each
// schema, and is the worst case over all types and actions: an attribute is known by its name alone, since
// the weigher does not know the types of expressions.
type typeCosts struct {
	attribute map[types.String]int  // largest type of an attribute of this name, in nodes
	optional  map[types.String]bool // some attribute of this name is optional
	tag       int
	context   int                     // largest context
	contexts  map[types.EntityUID]int // by action
	typeWalk  int                     // entity types above one type
	actions   int                     // actions and their groups
	head      uint64                  // what settling the head of a policy looks at
}

// costsOf measures a schema that resolved. Its shapes are written out, so this takes as long as they are
// large, which [schemaSource.measure] has bounded.
func costsOf(s *Schema) typeCosts {
	c := typeCosts{attribute: map[types.String]int{}, optional: map[types.String]bool{}, contexts: map[types.EntityUID]int{}}
	for _, e := range s.resolved.Entities {
		c.record(e.Shape)
		if e.Tags != nil {
			c.tag = max(c.tag, c.size(e.Tags))
		}
	}
	for uid, a := range s.resolved.Actions {
		c.actions += 1 + len(s.actionAncestors[uid])
		if a.AppliesTo != nil {
			c.contexts[uid] = c.record(a.AppliesTo.Context)
			c.context = max(c.context, c.contexts[uid])
			c.head += uint64(len(a.AppliesTo.Principals) + len(a.AppliesTo.Resources))
		}
	}
	for _, above := range s.typeAncestors {
		c.typeWalk = max(c.typeWalk, len(above))
	}
	// A head looks through all actions with what they apply to, and through all types with parents.
	c.head += uint64(c.actions + len(s.typeAncestors))
	return c
}

// record notes the size of each attribute, also of records inside, and returns that of the whole, in
// nodes.
func (c *typeCosts) record(r resolved.RecordType) int {
	total := 1
	for name, attr := range r {
		n := c.size(attr.Type)
		c.attribute[name] = max(c.attribute[name], n)
		if attr.Optional {
			c.optional[name] = true
		}
		total += n
	}
	return total
}

// size of a type in nodes. An entity type is one node: its attributes are not written out where it is
// named.
func (c *typeCosts) size(t resolved.IsType) int {
	switch t := t.(type) {
	case resolved.SetType:
		return 1 + c.size(t.Element)
	case resolved.RecordType:
		return c.record(t)
	default:
		return 1
	}
}
