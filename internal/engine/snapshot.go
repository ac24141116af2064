package engine

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

// Source is a policy on its way into a snapshot.
type Source struct {
	Ref    copse.PolicyRef
	Policy *Policy
}

// Snapshot is a policy store compiled for deciding: immutable, at one revision.
type Snapshot struct {
	schema   *Schema
	settings copse.Settings
	policies []Source // sorted by id
}

// Compile builds a snapshot. schema may be nil.
func Compile(schema *Schema, settings copse.Settings, policies []Source) (*Snapshot, error) {
	s := &Snapshot{schema: schema, settings: settings, policies: slices.Clone(policies)}
	slices.SortFunc(s.policies, func(a, b Source) int { return strings.Compare(string(a.Ref.ID), string(b.Ref.ID)) })
	for i := 1; i < len(s.policies); i++ {
		if s.policies[i].Ref.ID == s.policies[i-1].Ref.ID {
			return nil, copse.Errorf(copse.Internal, "policy id %q occurs twice", s.policies[i].Ref.ID)
		}
	}
	return s, nil
}

// Weight is about how many bytes the snapshot holds in memory.
func (s *Snapshot) Weight() int64 {
	var w int64 = 1000
	for _, p := range s.policies {
		w += 2000 + 10*int64(len(p.Policy.text))
	}
	return w
}

// Decide answers a request; PolicyStoreID, Incarnation and Revision are the caller's business.
func (s *Snapshot) Decide(req *copse.Request) (copse.Response, error) {
	d, err := decode(s.schema, req)
	if err != nil {
		return copse.Response{}, err
	}
	var all candidates
	for i := range s.policies {
		all = append(all, int32(i))
	}
	decision, diag := cedar.Authorize(subset{s, all}, world{d, s.schema}, d.request)
	out := copse.Response{Considered: len(all)}
	if decision == cedar.Allow {
		out.Decision = copse.Allow
	}
	for _, reason := range diag.Reasons {
		out.Determining = append(out.Determining, s.ref(reason.PolicyID))
	}
	for _, e := range diag.Errors {
		out.Errors = append(out.Errors, copse.EvaluationError{Policy: s.ref(e.PolicyID), Message: clip(e.Message)})
	}
	return out, nil
}

func (s *Snapshot) ref(id types.PolicyID) copse.PolicyRef {
	i, ok := slices.BinarySearchFunc(s.policies, string(id), func(p Source, id string) int { return strings.Compare(string(p.Ref.ID), id) })
	if !ok {
		panic(fmt.Sprintf("unknown policy %q", id))
	}
	return s.policies[i].Ref
}

type candidates []int32

type subset struct {
	s    *Snapshot
	only candidates
}

func (c subset) All() iter.Seq2[types.PolicyID, *cedar.Policy] {
	return func(yield func(types.PolicyID, *cedar.Policy) bool) {
		for _, i := range c.only {
			p := c.s.policies[i]
			if !yield(types.PolicyID(p.Ref.ID), p.Policy.parsed) {
				return
			}
		}
	}
}

// world finds entities: the request's, then the schema's actions.
type world struct {
	d *decoded
	s *Schema
}

// Get is cedar-go's hook.
func (w world) Get(uid types.EntityUID) (types.Entity, bool) {
	if e, ok := w.d.entities[uid]; ok {
		return e, true
	}
	if w.s != nil {
		if a, ok := w.s.resolved.Actions[uid]; ok {
			return a.Entity, true
		}
	}
	return types.Entity{}, false
}
