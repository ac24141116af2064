package engine

import (
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
)

// typeCosts is what the typechecker's work depends on, beyond the number of nodes: it writes out an
// attribute's type at each access, and walks the hierarchies at each `in`.
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
	c.head += uint64(c.actions + len(s.typeAncestors))
	return c
}

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
