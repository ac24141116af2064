package bench

import (
	"cmp"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// scopeIndex is the engine's scope index on cedar-go's values, so that a comparison is about decoding and
// evaluating. Only what some scope names has a number; policies lie together by their principal's and
// resource's tests, ordered by their action's.
type scopeIndex struct {
	entities              map[types.EntityUID]uint32
	types                 map[types.EntityType]uint32
	entries               []indexEntry
	buckets               map[[2]scopeKey][2]uint32
	principals, resources map[scopeKey]bool
}

// scopeKey is the number of what is tested for, and the test in the lowest two bits.
type scopeKey uint32

const (
	keyAny scopeKey = iota
	keyIs
	keyEq
	keyIn
)

type indexEntry struct {
	sides  [2]scopeKey
	action scopeKey
	policy uint32
	types  [2]uint32 // of `is T in E`, which is kept under "in E"; 0: none
}

func newScopeIndex(policies []indexed) *scopeIndex {
	x := &scopeIndex{
		entities: map[types.EntityUID]uint32{}, types: map[types.EntityType]uint32{}, buckets: map[[2]scopeKey][2]uint32{},
		principals: map[scopeKey]bool{}, resources: map[scopeKey]bool{},
	}
	for i, p := range policies {
		tree := (*ast.Policy)(p.policy.AST())
		e := indexEntry{policy: uint32(i)}
		e.sides[0], e.types[0] = x.scope(tree.Principal)
		e.sides[1], e.types[1] = x.scope(tree.Resource)
		x.principals[e.sides[0]], x.resources[e.sides[1]] = true, true
		for _, action := range x.actions(tree.Action) {
			e.action = action
			x.entries = append(x.entries, e)
		}
	}
	slices.SortFunc(x.entries, func(a, b indexEntry) int {
		return cmp.Or(slices.Compare(a.sides[:], b.sides[:]), cmp.Compare(a.action, b.action), cmp.Compare(a.policy, b.policy))
	})
	for i, e := range x.entries {
		run, ok := x.buckets[e.sides]
		if !ok {
			run[0] = uint32(i)
		}
		run[1] = uint32(i) + 1
		x.buckets[e.sides] = run
	}
	return x
}

func number[T comparable](m map[T]uint32, what T) uint32 {
	n, ok := m[what]
	if !ok {
		n = uint32(len(m)) + 1
		m[what] = n
	}
	return n
}

func (x *scopeIndex) entity(test scopeKey, uid types.EntityUID) scopeKey {
	return scopeKey(number(x.entities, uid))<<2 | test
}

func (x *scopeIndex) scope(node ast.IsScopeNode) (scopeKey, uint32) {
	switch n := node.(type) {
	case ast.ScopeTypeEq:
		return x.entity(keyEq, n.Entity), 0
	case ast.ScopeTypeIn:
		return x.entity(keyIn, n.Entity), 0
	case ast.ScopeTypeIs:
		return scopeKey(number(x.types, n.Type))<<2 | keyIs, 0
	case ast.ScopeTypeIsIn:
		return x.entity(keyIn, n.Entity), number(x.types, n.Type)
	default:
		return keyAny, 0
	}
}

func (x *scopeIndex) actions(node ast.IsActionScopeNode) []scopeKey {
	switch n := node.(type) {
	case ast.ScopeTypeEq:
		return []scopeKey{x.entity(keyEq, n.Entity)}
	case ast.ScopeTypeIn:
		return []scopeKey{x.entity(keyIn, n.Entity)}
	case ast.ScopeTypeInSet:
		keys := make([]scopeKey, len(n.Entities))
		for i, e := range n.Entities {
			keys[i] = x.entity(keyIn, e)
		}
		return keys
	default:
		return []scopeKey{keyAny}
	}
}

// find returns the policies whose scope matches, in ascending order.
func (x *scopeIndex) find(d decoded) []uint32 {
	var room [3][16]scopeKey
	principals := x.expand(room[0][:0], d, d.request.Principal, x.principals)
	resources := x.expand(room[1][:0], d, d.request.Resource, x.resources)
	if len(principals) == 0 || len(resources) == 0 {
		return nil
	}
	actions := x.expand(room[2][:0], d, d.request.Action, nil)
	wanted := [2]uint32{x.types[d.request.Principal.Type], x.types[d.request.Resource.Type]}
	var found []uint32
	for _, p := range principals {
		for _, r := range resources {
			run, ok := x.buckets[[2]scopeKey{p, r}]
			if !ok {
				continue
			}
			entries := x.entries[run[0]:run[1]]
			for _, a := range actions {
				from, _ := slices.BinarySearchFunc(entries, a, func(e indexEntry, a scopeKey) int { return cmp.Compare(e.action, a) })
				for ; from < len(entries) && entries[from].action == a; from++ {
					e := &entries[from]
					if (e.types[0] == 0 || e.types[0] == wanted[0]) && (e.types[1] == 0 || e.types[1] == wanted[1]) {
						found = append(found, e.policy)
					}
				}
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// expand lists the keys that an entity of the request meets, of those that occur.
func (x *scopeIndex) expand(keys []scopeKey, d decoded, uid types.EntityUID, used map[scopeKey]bool) []scopeKey {
	add := func(k scopeKey) {
		if used == nil || used[k] {
			keys = append(keys, k)
		}
	}
	add(keyAny)
	if n, ok := x.types[uid.Type]; ok {
		add(scopeKey(n)<<2 | keyIs)
	}
	if n, ok := x.entities[uid]; ok {
		add(scopeKey(n)<<2 | keyEq)
	}
	var room [16]types.EntityUID
	seen := append(room[:0], uid)
	for i := 0; i < len(seen); i++ {
		if n, ok := x.entities[seen[i]]; ok {
			add(scopeKey(n)<<2 | keyIn)
		}
		for parent := range d.entities[seen[i]].Parents.All() {
			if !slices.Contains(seen, parent) {
				seen = append(seen, parent)
			}
		}
	}
	return keys
}
