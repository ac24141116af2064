package engine

import (
	"cmp"
	"slices"

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
	entries []indexEntry
	// buckets finds the entries of a pair of keys.
	buckets map[bucketKey]bucket
	// uses and typeUses tell what occurs in scopes, by the numbers of entities and types: most of what a
	// request names does not, or on the other side.
	uses     []uses
	typeUses []uses
}

// scopeKey is a kind of test and the number of what is tested for.
type scopeKey uint32

const (
	// No test, `is`, `==` and `in`. The number is that of an entity, of a type behind `is`, and of nothing
	// for any.
	keyAny scopeKey = 0
	keyIs  scopeKey = 1
	keyEq  scopeKey = 2
	keyIn  scopeKey = 3
)

// It holds 30 bits of number, many more than a policy store has names.
func keyFor(test scopeKey, number uint32) scopeKey { return scopeKey(number)<<2 | test }

// uses are the tests that an entity or type occurs in, a bit each.
type uses uint8

// side is where in a scope; it shifts the bits of uses.
type side uint8

const (
	sidePrincipal side = 0
	sideResource  side = 4
)

func (u uses) has(at side, test scopeKey) bool { return u&(1<<test<<at) != 0 }

// bucketKey is the pair of keys for principal and resource.
type bucketKey struct{ principal, resource scopeKey }

// bucket is a range of entries, without the one at to.
type bucket struct{ from, to uint32 }

// indexEntry is a policy under one action key. For `action in [...]` it has several entries.
type indexEntry struct {
	action scopeKey
	policy uint32
	// `is T in E` is kept under "in E", and T here plus one; 0 is no type.
	principalType, resourceType uint32
}

// keyedEntry is an entry that still knows its pair, as entries do not once they are in their bucket.
type keyedEntry struct {
	bucketKey
	indexEntry
}

// keyed appends the entries of a policy. The symbols learn what its scope names. The policy is known by
// its number in the snapshot, which is its place in the order of ids.
func (s *symbols) keyed(all []keyedEntry, policy uint32, tree *ast.Policy) []keyedEntry {
	var e keyedEntry
	e.policy = policy
	e.principal, e.principalType = s.scope(tree.Principal)
	e.resource, e.resourceType = s.scope(tree.Resource)
	switch n := tree.Action.(type) {
	case ast.ScopeTypeEq:
		e.action = keyFor(keyEq, s.entity(n.Entity))
		return append(all, e)
	case ast.ScopeTypeIn:
		e.action = keyFor(keyIn, s.entity(n.Entity))
		return append(all, e)
	case ast.ScopeTypeInSet: // nothing is in an empty list
		for _, uid := range n.Entities {
			e.action = keyFor(keyIn, s.entity(uid))
			all = append(all, e)
		}
		return all
	default:
		e.action = keyAny
		return append(all, e)
	}
}

// scope returns the key of a principal or resource scope, and the type it tests for beside an "in".
// Numbers are given to what has none.
func (s *symbols) scope(node ast.IsScopeNode) (scopeKey, uint32) {
	switch n := node.(type) {
	case ast.ScopeTypeEq:
		return keyFor(keyEq, s.entity(n.Entity)), 0
	case ast.ScopeTypeIn:
		return keyFor(keyIn, s.entity(n.Entity)), 0
	case ast.ScopeTypeIs:
		return keyFor(keyIs, s.entityType(n.Type)), 0
	case ast.ScopeTypeIsIn:
		return keyFor(keyIn, s.entity(n.Entity)), s.entityType(n.Type) + 1
	default:
		return keyAny, 0
	}
}

// newIndex sorts the entries so that those of one principal and resource lie side by side, by action: a bucket is a range.
func newIndex(s *symbols, all []keyedEntry) *index {
	slices.SortFunc(all, func(a, b keyedEntry) int {
		switch {
		case a.principal != b.principal:
			return cmp.Compare(a.principal, b.principal)
		case a.resource != b.resource:
			return cmp.Compare(a.resource, b.resource)
		case a.action != b.action:
			return cmp.Compare(a.action, b.action)
		default:
			return cmp.Compare(a.policy, b.policy)
		}
	})
	pairs := 0
	for i := range all {
		if i == 0 || all[i].bucketKey != all[i-1].bucketKey {
			pairs++
		}
	}
	x := &index{
		entries: make([]indexEntry, len(all)), buckets: make(map[bucketKey]bucket, pairs),
		uses: make([]uses, len(s.entities.list)), typeUses: make([]uses, len(s.types.list)),
	}
	for from := 0; from < len(all); {
		to := from
		for ; to < len(all) && all[to].bucketKey == all[from].bucketKey; to++ {
			x.entries[to] = all[to].indexEntry
		}
		x.buckets[all[from].bucketKey] = bucket{uint32(from), uint32(to)}
		x.use(all[from].principal, sidePrincipal)
		x.use(all[from].resource, sideResource)
		from = to
	}
	return x
}

// use notes that a test occurs.
func (x *index) use(k scopeKey, at side) {
	bit := uses(1 << (k & 3) << at)
	switch k & 3 {
	case keyIs:
		x.typeUses[k>>2] |= bit
	case keyEq, keyIn:
		x.uses[k>>2] |= bit
	default:
	}
}

// keyed lists the entries with their keys again, in their order, for the next index.
func (x *index) keyed() []keyedEntry {
	out := make([]keyedEntry, len(x.entries))
	for key, b := range x.buckets {
		for i := b.from; i < b.to; i++ {
			out[i] = keyedEntry{key, x.entries[i]}
		}
	}
	return out
}

// find returns the policies whose scope matches, in ascending order. It costs a look for each pair of keys
// that principal and resource meet, and what it finds. The result is in the call's room; the keys are on
// the stack, unless there are unusually many.
func (x *index) find(c *call) []uint32 {
	var room [3][24]scopeKey
	principals := x.expand(room[0][:0], c.principal, sidePrincipal)
	resources := x.expand(room[1][:0], c.resource, sideResource)
	actions := x.expandAction(room[2][:0], c.action)
	found := c.found[:0]
	for _, p := range principals {
		for _, r := range resources {
			b, ok := x.buckets[bucketKey{p, r}]
			if !ok {
				continue
			}
			// By their keys principal and resource match. The type of `is T in E` is the one test that is left.
			entries := x.entries[b.from:b.to]
			for _, a := range actions {
				for _, e := range withAction(entries, a) {
					if (e.principalType == 0 || e.principalType == c.principal.typ+1) && (e.resourceType == 0 || e.resourceType == c.resource.typ+1) {
						found = append(found, e.policy)
					}
				}
			}
		}
	}
	// A policy may be found under several actions of its list.
	slices.Sort(found)
	c.found = slices.Compact(found)
	return c.found
}

// expand lists the keys an entity of the request meets, of those that occur. It is in itself.
func (x *index) expand(keys []scopeKey, e *entity, at side) []scopeKey {
	keys = append(keys, keyAny)
	if int(e.typ) < len(x.typeUses) && x.typeUses[e.typ].has(at, keyIs) {
		keys = append(keys, keyFor(keyIs, e.typ))
	}
	if int(e.number) < len(x.uses) {
		if x.uses[e.number].has(at, keyEq) {
			keys = append(keys, keyFor(keyEq, e.number))
		}
		if x.uses[e.number].has(at, keyIn) {
			keys = append(keys, keyFor(keyIn, e.number))
		}
	}
	for _, above := range e.ancestors {
		// A cycle can't make an entity its own ancestor: decoding refuses it.
		if int(above) < len(x.uses) && x.uses[above].has(at, keyIn) {
			keys = append(keys, keyFor(keyIn, above))
		}
	}
	return keys
}

// expandAction lists the keys an action meets. Whether they occur is seen in each bucket.
func (x *index) expandAction(keys []scopeKey, e *entity) []scopeKey {
	keys = append(keys, keyAny)
	if int(e.number) < len(x.uses) {
		keys = append(keys, keyFor(keyEq, e.number), keyFor(keyIn, e.number))
	}
	for _, above := range e.ancestors {
		keys = append(keys, keyFor(keyIn, above))
	}
	return keys
}

// withAction returns the run of entries, ordered by action, that have the key. It is empty if there are
// none.
func withAction(entries []indexEntry, action scopeKey) []indexEntry {
	low, high := 0, len(entries)
	for low < high {
		middle := int(uint(low+high) / 2)
		if entries[middle].action < action {
			low = middle + 1
		} else {
			high = middle
		}
	}
	to := low
	for to < len(entries) && entries[to].action == action {
		to++
	}
	return entries[low:to]
}
