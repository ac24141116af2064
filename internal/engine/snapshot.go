package engine

import (
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"

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
	policies []compiled // sorted by id
	index    *index
	weight   int64
}

// compiled is what deciding needs of a policy; its text stays behind.
type compiled struct {
	ref     copse.PolicyRef
	policy  *cedar.Policy
	cost    policyCost
	forbids bool
}

// Compile builds a snapshot. schema may be nil. It takes any policies that parsed: stored ones may be
// older than the schema, and validation may be off.
func Compile(schema *Schema, settings copse.Settings, policies []Source) (*Snapshot, error) {
	s := &Snapshot{schema: schema, settings: settings, policies: make([]compiled, len(policies))}
	for i, p := range policies {
		s.policies[i] = compiled{ref: p.Ref, policy: p.Policy.evaluator(), cost: evaluationCost(p.Policy.tree), forbids: p.Policy.Forbids()}
	}
	slices.SortFunc(s.policies, func(a, b compiled) int { return strings.Compare(string(a.ref.ID), string(b.ref.ID)) })
	for i := 1; i < len(s.policies); i++ {
		if s.policies[i].ref.ID == s.policies[i-1].ref.ID {
			return nil, copse.Errorf(copse.Internal, "policy id %q occurs twice in a policy store", s.policies[i].ref.ID)
		}
	}
	s.index = newIndex(s.policies)
	s.weight = s.weigh()
	return s, nil
}

// Weight is about how many bytes the snapshot holds in memory.
func (s *Snapshot) Weight() int64 { return s.weight }
