package engine

import (
	"iter"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

// MaxDecisionSteps is the budget of one decision: the nodes of all policies whose scope matches, each
// times the most values that one of them may have to go through (see decoded.reach). It is computed
// before anything is evaluated, so that the same request is over budget every time and on every machine.
// A step takes 100 ns or so at worst.
const MaxDecisionSteps = 10_000_000

const overBudget = "budget exceeded"

// Decide answers a request; PolicyStoreID, Incarnation and Revision are the caller's business. With an
// error, which is a *copse.Error of kind Invalid, the Response is its zero value.
func (s *Snapshot) Decide(req *copse.Request) (copse.Response, error) {
	d, err := decode(s.schema, req)
	if err != nil {
		return copse.Response{}, err
	}
	if s.schema != nil && s.settings.CheckRequests {
		if err := d.check(); err != nil {
			return copse.Response{}, err
		}
	}
	found := s.index.find(d)
	out := copse.Response{Considered: len(found)}
	if s.steps(found, d) > MaxDecisionSteps {
		out.OverBudget = true
		out.Errors = []copse.EvaluationError{{Message: overBudget}}
		return out, nil
	}
	decision, diagnostic := cedar.Authorize(candidates{s.policies, found}, d, d.request)
	if decision == cedar.Allow {
		out.Decision = copse.Allow
	}
	// The candidates are in the order of their ids, and cedar-go keeps their order.
	for _, reason := range diagnostic.Reasons {
		out.Determining = append(out.Determining, s.lookup(reason.PolicyID).ref)
	}
	for _, e := range diagnostic.Errors {
		p := s.lookup(e.PolicyID)
		out.Errors = append(out.Errors, copse.EvaluationError{Policy: p.ref, Message: clip(e.Message)})
		if p.forbids && s.settings.ForbidErrorsDeny && out.Decision == copse.Allow {
			out.Decision = copse.Deny
			out.Determining = nil
		}
	}
	return out, nil
}

func (s *Snapshot) steps(found []uint32, d *decoded) uint64 {
	reach := d.reach(s.schema)
	var total uint64
	for _, i := range found {
		cost := s.policies[i].cost
		total = plus(total, times(cost.nodes, reach.of(cost)))
	}
	return total
}

// reach is how many values of a request one operator goes through at most.
type reach struct{ attribute, context, ancestors uint64 }

// reach is the size of the largest attribute for most policies, of the whole context where a policy
// speaks of that, and the number of parents to follow where it says `in`. Where sets of the request
// clash, it is that many values more.
func (d *decoded) reach(s *Schema) reach {
	extra, factor := d.sets.extra(), d.sets.factor()
	out := reach{
		attribute: times(plus(max(d.largest, 1), extra), factor),
		context:   times(plus(d.whole, extra), factor),
		ancestors: uint64(d.hierarchy.longest),
	}
	if s != nil {
		out.ancestors = max(out.ancestors, uint64(s.longestWalk))
	}
	return out
}

func (r reach) of(p policyCost) uint64 {
	out := r.attribute
	if p.context {
		out = max(out, r.context)
	}
	if p.in {
		out = max(out, r.ancestors)
	}
	return out
}

func (s *Snapshot) lookup(id types.PolicyID) *compiled {
	i, _ := slices.BinarySearchFunc(s.policies, string(id), func(p compiled, id string) int { return strings.Compare(string(p.ref.ID), id) })
	return &s.policies[i]
}

// candidates yields policies to cedar-go.
type candidates struct {
	policies []compiled
	found    []uint32
}

// All implements cedar.PolicyIterator.
func (c candidates) All() iter.Seq2[types.PolicyID, *cedar.Policy] {
	return func(yield func(types.PolicyID, *cedar.Policy) bool) {
		for _, i := range c.found {
			if p := &c.policies[i]; !yield(types.PolicyID(p.ref.ID), p.policy) {
				return
			}
		}
	}
}
