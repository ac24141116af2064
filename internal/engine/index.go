package engine

import (
	"cmp"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// index finds the policies whose scope matches a request without looking at the others. It is exact,
// not a filter: scope tests can't fail, so a policy left out would have been neither satisfied nor an
// error, and one that is found satisfies its scope. Its size decides nothing about a lookup's cost;
// how many policies match does.
//
// A policy has a key for the principal and one for the resource: any, a type, an entity, or "in" an
// entity. Policies with the same pair of keys lie together in entries, ordered by their action keys,
// so that ten thousand policies on the same types and different actions are not walked either.
type index struct {
	// Only what some scope names has a number: other entities of a request can't match a key.
	entities map[types.EntityUID]uint32
	types    map[types.EntityType]uint32
	entries  []indexEntry
	// buckets finds the entries of a pair of keys.
	buckets map[bucketKey]bucket
	// principals and resources tell which keys occur on each side.
	principals, resources map[scopeKey]bool
}

// scopeKey is a kind of test and the number of what is tested for.
type scopeKey uint32

const (
	keyAny scopeKey = 0
	keyIs  scopeKey = 1
	keyEq  scopeKey = 2
	keyIn  scopeKey = 3
)

func keyFor(test scopeKey, number uint32) scopeKey { return scopeKey(number)<<2 | test }

type bucketKey struct{ principal, resource scopeKey }

type bucket struct{ from, to uint32 }

// indexEntry is a policy under one action key. For `action in [...]` it has several entries.
type indexEntry struct {
	action scopeKey
	policy uint32
	// `is T in E` is kept under "in E", and T here; 0 is no type.
	principalType, resourceType uint32
}

type keyedEntry struct {
	bucketKey
	indexEntry
}

func newIndex(policies []compiled) *index {
	x := &index{
		entities: map[types.EntityUID]uint32{}, types: map[types.EntityType]uint32{},
		buckets: map[bucketKey]bucket{}, principals: map[scopeKey]bool{}, resources: map[scopeKey]bool{},
	}
	all := make([]keyedEntry, 0, len(policies))
	for i, p := range policies {
		tree := (*ast.Policy)(p.policy.AST())
		var e keyedEntry
		e.policy = uint32(i)
		e.principal, e.principalType = x.scope(tree.Principal)
		e.resource, e.resourceType = x.scope(tree.Resource)
		x.principals[e.principal] = true
		x.resources[e.resource] = true
		for _, action := range x.actions(tree.Action) {
			e.action = action
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b keyedEntry) int {
		return cmp.Or(
			cmp.Compare(a.principal, b.principal), cmp.Compare(a.resource, b.resource),
			cmp.Compare(a.action, b.action), cmp.Compare(a.policy, b.policy))
	})
	x.entries = make([]indexEntry, len(all))
	for i, e := range all {
		x.entries[i] = e.indexEntry
		if i == 0 || all[i-1].bucketKey != e.bucketKey {
			x.buckets[e.bucketKey] = bucket{from: uint32(i)}
		}
		b := x.buckets[e.bucketKey]
		b.to = uint32(i) + 1
		x.buckets[e.bucketKey] = b
	}
	return x
}

// scope returns the key of a principal or resource scope, and the type it tests for beside an "in".
func (x *index) scope(node ast.IsScopeNode) (scopeKey, uint32) {
	switch n := node.(type) {
	case ast.ScopeTypeEq:
		return keyFor(keyEq, x.entity(n.Entity)), 0
	case ast.ScopeTypeIn:
		return keyFor(keyIn, x.entity(n.Entity)), 0
	case ast.ScopeTypeIs:
		return keyFor(keyIs, x.entityType(n.Type)), 0
	case ast.ScopeTypeIsIn:
		return keyFor(keyIn, x.entity(n.Entity)), x.entityType(n.Type)
	default:
		return keyAny, 0
	}
}

// actions returns the keys of an action scope: none for an empty list, which nothing is in.
func (x *index) actions(node ast.IsActionScopeNode) []scopeKey {
	switch n := node.(type) {
	case ast.ScopeTypeEq:
		return []scopeKey{keyFor(keyEq, x.entity(n.Entity))}
	case ast.ScopeTypeIn:
		return []scopeKey{keyFor(keyIn, x.entity(n.Entity))}
	case ast.ScopeTypeInSet:
		keys := make([]scopeKey, len(n.Entities))
		for i, e := range n.Entities {
			keys[i] = keyFor(keyIn, x.entity(e))
		}
		return keys
	default:
		return []scopeKey{keyAny}
	}
}

func (x *index) entity(uid types.EntityUID) uint32 {
	n, ok := x.entities[uid]
	if !ok {
		n = uint32(len(x.entities)) + 1
		x.entities[uid] = n
	}
	return n
}

func (x *index) entityType(t types.EntityType) uint32 {
	n, ok := x.types[t]
	if !ok {
		n = uint32(len(x.types)) + 1
		x.types[t] = n
	}
	return n
}

// find returns the policies whose scope matches, in ascending order.
func (x *index) find(d *decoded) []uint32 {
	var room [3][16]scopeKey
	principals := x.expand(room[0][:0], d, d.request.Principal, x.principals)
	resources := x.expand(room[1][:0], d, d.request.Resource, x.resources)
	if len(principals) == 0 || len(resources) == 0 {
		return nil
	}
	actions := x.expand(room[2][:0], d, d.request.Action, nil)
	principalType, resourceType := x.types[d.request.Principal.Type], x.types[d.request.Resource.Type]
	var found []uint32
	for _, p := range principals {
		for _, r := range resources {
			b, ok := x.buckets[bucketKey{p, r}]
			if !ok {
				continue
			}
			entries := x.entries[b.from:b.to]
			for _, a := range actions {
				for _, e := range withAction(entries, a) {
					if (e.principalType == 0 || e.principalType == principalType) && (e.resourceType == 0 || e.resourceType == resourceType) {
						found = append(found, e.policy)
					}
				}
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// expand lists the keys an entity of the request meets, of those that occur. It is in itself.
func (x *index) expand(keys []scopeKey, d *decoded, uid types.EntityUID, used map[scopeKey]bool) []scopeKey {
	add := func(k scopeKey) {
		if used == nil || used[k] {
			keys = append(keys, k)
		}
	}
	add(keyAny)
	if n, ok := x.types[uid.Type]; ok {
		add(keyFor(keyIs, n))
	}
	if n, ok := x.entities[uid]; ok {
		add(keyFor(keyEq, n))
		add(keyFor(keyIn, n))
	}
	for _, above := range d.above(uid) {
		// A cycle can't make an entity its own ancestor: decoding refuses it.
		if n, ok := x.entities[above]; ok {
			add(keyFor(keyIn, n))
		}
	}
	return keys
}

// withAction returns the run of entries, ordered by action, that have the key.
func withAction(entries []indexEntry, action scopeKey) []indexEntry {
	from, ok := slices.BinarySearchFunc(entries, action, func(e indexEntry, a scopeKey) int { return cmp.Compare(e.action, a) })
	if !ok {
		return nil
	}
	to := from + 1
	for to < len(entries) && entries[to].action == action {
		to++
	}
	return entries[from:to]
}
