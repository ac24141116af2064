package engine

import (
	"github.com/copse-authz/copse"
)

// maxAncestorSteps bounds the work of finding the ancestors of all entities of a request: one step for
// each parent of each entity and for each ancestor of that parent.
const maxAncestorSteps = 500_000

// visit is how far finding an entity's ancestors got. An entity that is open is met again only on a cycle.
type visit uint8

const (
	unseen visit = iota
	open
	done
)

// findAncestors finds the ancestors of every entity, each from its parents' ones, and refuses cycles
// and crowds. It comes after everything was read, since an entity may be defined behind those that are in
// it.
func (c *call) findAncestors() error {
	for _, e := range c.entities {
		if len(e.parents) > 0 && e.visit != done {
			if err := c.climb(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// climb finds all that an entity is in, its parents' first. Each entity is done once, and the whole is bounded, since a request
// may have thousands with a hundred ancestors each. It recurses as deep as the longest chain of parents,
// which the limit of ancestors does not shorten: they are counted on the way back.
func (c *call) climb(e *entity) error {
	e.visit = open
	var above []uint32
	for _, parent := range e.parents {
		if parent.visit == open {
			return requestError("entities", "%s is its own ancestor: the parents of entities must not form a cycle", parent.uid)
		}
		if parent.visit == unseen && len(parent.parents) > 0 {
			if err := c.climb(parent); err != nil {
				return err
			}
		}
		if c.climbed += 1 + len(parent.ancestors); c.climbed > maxAncestorSteps {
			return requestError("entities",
				"finding the ancestors of the entities takes more than %d steps, one for each parent of an entity and for each ancestor of that parent; send fewer entities or fewer parents",
				maxAncestorSteps)
		}
		// An entity may be above e by several ways, and is in the result once.
		above = c.unite(above, parent)
		if len(above) > copse.MaxParents {
			return requestError("entities", "%s has %d or more parents, counting parents of parents; at most %d are allowed",
				e.uid, len(above), copse.MaxParents)
		}
	}
	e.ancestors, e.visit = above, done
	return nil
}

// unite merges a parent and its ancestors into the ancestors found so far: both are sorted. The result is
// in the call's room and may be larger than needed: how much both have in common is known at the end.
func (c *call) unite(above []uint32, parent *entity) []uint32 {
	// The usual case: one parent, which is in nothing itself.
	if len(above) == 0 && len(parent.ancestors) == 0 {
		out := c.ranks.take(1)
		out[0] = parent.number
		return out
	}
	out := c.ranks.take(len(above) + len(parent.ancestors) + 1)[:0]
	more, self := parent.ancestors, []uint32{parent.number}
	for len(above)+len(more)+len(self) > 0 {
		least := ^uint32(0)
		for _, list := range [...][]uint32{above, more, self} {
			if len(list) > 0 {
				least = min(least, list[0])
			}
		}
		out = append(out, least)
		for _, list := range [...]*[]uint32{&above, &more, &self} {
			if len(*list) > 0 && (*list)[0] == least {
				*list = (*list)[1:]
			}
		}
	}
	return out
}
