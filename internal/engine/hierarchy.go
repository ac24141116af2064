package engine

import (
	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

// maxAncestorSteps bounds the work of finding the ancestors of all entities of a request: one step for
// each parent of each entity and for each ancestor of that parent.
const maxAncestorSteps = 500_000

// hierarchy finds the ancestors of a request's entities, each from its parents' ones. Entities are
// numbered, so that an identifier is hashed once for each place that names it and never compared: ids
// that differ in their last byte only would cost their length each time.
type hierarchy struct {
	d       *decoded
	numbers map[types.EntityUID]int32
	nodes   []node
	// generation marks the nodes already listed as ancestors of the entity at hand.
	generation int32
	steps      int
	// longest is the most parents that one `in` can have to follow, an ancestor's own included.
	longest int
}

type node struct {
	uid     types.EntityUID
	state   visit
	listed  int32 // the generation that listed it
	parents int
	above   []int32
}

type visit uint8

const (
	unseen visit = iota
	open
	done
)

// add finds the ancestors of an entity of the request and of everything above it.
func (h *hierarchy) add(uid types.EntityUID) error { return h.visit(h.number(uid)) }

// above lists the ancestors of an entity that was added, or that is above one; false for others.
func (h *hierarchy) above(uid types.EntityUID) ([]types.EntityUID, bool) {
	n, ok := h.numbers[uid]
	if !ok {
		return nil, false
	}
	out := make([]types.EntityUID, len(h.nodes[n].above))
	for i, a := range h.nodes[n].above {
		out[i] = h.nodes[a].uid
	}
	return out, true
}

func (h *hierarchy) number(uid types.EntityUID) int32 {
	n, ok := h.numbers[uid]
	if !ok {
		if h.numbers == nil {
			h.numbers = map[types.EntityUID]int32{}
		}
		n = int32(len(h.nodes))
		h.numbers[uid] = n
		h.nodes = append(h.nodes, node{uid: uid})
	}
	return n
}

func (h *hierarchy) visit(n int32) error {
	uid := h.nodes[n].uid
	switch h.nodes[n].state {
	case done:
		return nil
	case open:
		return requestError("entities", "%s is its own ancestor: the parents of entities must not form a cycle", uid)
	case unseen:
	}
	e, ok := h.d.Get(uid)
	if !ok || e.Parents.Len() == 0 {
		h.nodes[n].state = done
		return nil
	}
	if count := e.Parents.Len(); count > copse.MaxParents {
		return crowd(uid, count)
	}
	h.nodes[n].state = open
	parents := make([]int32, 0, e.Parents.Len())
	for parent := range e.Parents.All() {
		p := h.number(parent)
		if err := h.visit(p); err != nil {
			return err
		}
		parents = append(parents, p)
	}
	above, err := h.union(uid, parents)
	if err != nil {
		return err
	}
	at := &h.nodes[n]
	at.state, at.parents, at.above = done, len(parents), above
	edges := len(parents)
	for _, a := range above {
		edges += h.nodes[a].parents
	}
	h.longest = max(h.longest, edges)
	return nil
}

// union lists the parents and what is above them, each once. It may append to parents.
func (h *hierarchy) union(uid types.EntityUID, parents []int32) ([]int32, error) {
	h.generation++
	for _, p := range parents {
		h.nodes[p].listed = h.generation
		if h.steps += 1 + len(h.nodes[p].above); h.steps > maxAncestorSteps {
			return nil, requestError("entities",
				"finding the ancestors of the entities takes more than %d steps, one for each parent of an entity and for each ancestor of that parent; send fewer entities or fewer parents",
				maxAncestorSteps)
		}
	}
	above := parents
	for _, p := range parents {
		for _, a := range h.nodes[p].above {
			if h.nodes[a].listed == h.generation {
				continue
			}
			h.nodes[a].listed = h.generation
			if above = append(above, a); len(above) > copse.MaxParents {
				return nil, crowd(uid, len(above))
			}
		}
	}
	return above, nil
}

func crowd(uid types.EntityUID, n int) error {
	return requestError("entities", "%s has %d or more parents, counting parents of parents; at most %d are allowed",
		uid, n, copse.MaxParents)
}
