package engine

import (
	"hash/maphash"

	"github.com/cedar-policy/cedar-go/types"
)

// symbols number what the policies and the schema of a snapshot name: attributes and tags, entity types,
// entities. Deciding compares numbers. A request names other things as well; they get numbers beyond
// these for as long as the request lasts (see call).
//
// Numbers are given in order and never taken back, so a snapshot made from another one keeps its
// policies as they are compiled. They are given once at a time: a snapshot's symbols don't change.
type symbols struct {
	// It is random, so that nobody can choose names that clash; clones have the same.
	seed     maphash.Seed
	names    words
	types    words
	entities uids
}

// The names that Cedar's JSON gives to an entity's parts have these numbers in all symbols.
const (
	nameOfType uint32 = iota
	nameOfID
)

// newSymbols are those of nothing but the two names.
func newSymbols() *symbols {
	s := &symbols{seed: maphash.MakeSeed()}
	s.name("type")
	s.name("id")
	return s
}

// clone returns symbols that can grow. What they number now they number alike for ever. The one that was
// cloned may be in use meanwhile.
func (s *symbols) clone() *symbols {
	return &symbols{seed: s.seed, names: s.names.clone(), types: s.types.clone(), entities: s.entities.clone()}
}

// name, entityType and entity give a number to what has none: they are for building only, by one
// goroutine.
func (s *symbols) name(name string) uint32 { return s.names.number(s.seed, name) }

func (s *symbols) entityType(t types.EntityType) uint32 { return s.types.number(s.seed, string(t)) }

func (s *symbols) entity(uid types.EntityUID) uint32 {
	typ := s.entityType(uid.Type)
	return s.entities.number(s.seed, typ, string(uid.ID))
}

// uid is the entity with a number.
func (s *symbols) uid(number uint32) types.EntityUID {
	u := s.entities.list[number]
	return types.EntityUID{Type: types.EntityType(s.types.list[u.typ]), ID: types.String(u.id)}
}

// weight is about what the symbols hold in memory, beside the texts: these belong to the policies' ids
// and are counted there.
func (s *symbols) weight() int64 {
	total := 16*int64(cap(s.names.list)+cap(s.types.list)) + 24*int64(cap(s.entities.list)) +
		4*int64(cap(s.names.places)+cap(s.types.places)+cap(s.entities.places))
	for _, list := range [][]string{s.names.list, s.types.list} {
		for _, word := range list {
			total += sizeClass(len(word))
		}
	}
	for _, u := range s.entities.list {
		total += sizeClass(len(u.id))
	}
	return total
}

// words number texts. It is a hash table of its own because a request looks in two of them, its
// snapshot's and its own, with one hash; and because Go's maps take twice the memory.
type words struct {
	list   []string
	places []uint32 // numbers plus one, where their hashes say or behind; 0 is free
}

// clone has room of its own, so that adding to it does not reach the one it was cloned from.
func (w *words) clone() words {
	return words{list: append([]string(nil), w.list...), places: append([]uint32(nil), w.places...)}
}

// find returns the number of a text. hash is that of the text, by the seed of the symbols. It changes
// nothing, and may be called by many.
func (w *words) find(hash uint64, text string) (uint32, bool) {
	if len(w.places) == 0 {
		return 0, false
	}
	mask := uint64(len(w.places) - 1)
	for at := hash & mask; ; at = (at + 1) & mask {
		n := w.places[at]
		if n == 0 {
			return 0, false
		}
		if w.list[n-1] == text {
			return n - 1, true
		}
	}
}

// number returns the number of a text and gives it one if it has none.
func (w *words) number(seed maphash.Seed, text string) uint32 {
	hash := maphash.String(seed, text)
	if n, ok := w.find(hash, text); ok {
		return n
	}
	return w.add(seed, hash, text)
}

// add gives a number to a text that has none.
func (w *words) add(seed maphash.Seed, hash uint64, text string) uint32 {
	w.list = append(w.list, text)
	if crowded(len(w.list), len(w.places)) {
		w.places = make([]uint32, roomier(len(w.places)))
		for i, word := range w.list {
			settle(w.places, maphash.String(seed, word), uint32(i))
		}
	} else {
		settle(w.places, hash, uint32(len(w.list)-1))
	}
	return uint32(len(w.list) - 1)
}

// uids number entities. They are a table like words, of two parts each.
type uids struct {
	list   []uidKey
	places []uint32
}

type uidKey struct {
	id  string
	typ uint32
}

// clone is like that of words.
func (u *uids) clone() uids {
	return uids{list: append([]uidKey(nil), u.list...), places: append([]uint32(nil), u.places...)}
}

// hashUID hashes an entity by the number of its type. Equal ids of many types don't clash.
func hashUID(seed maphash.Seed, typ uint32, id string) uint64 {
	return maphash.String(seed, id) ^ uint64(typ)*0x9e3779b97f4a7c15
}

// find returns the number of an entity. Like that of words it changes nothing.
func (u *uids) find(hash uint64, typ uint32, id string) (uint32, bool) {
	if len(u.places) == 0 {
		return 0, false
	}
	mask := uint64(len(u.places) - 1)
	for at := hash & mask; ; at = (at + 1) & mask {
		n := u.places[at]
		if n == 0 {
			return 0, false
		}
		if e := &u.list[n-1]; e.typ == typ && e.id == id {
			return n - 1, true
		}
	}
}

// number returns the number of an entity and gives it one if it has none.
func (u *uids) number(seed maphash.Seed, typ uint32, id string) uint32 {
	hash := hashUID(seed, typ, id)
	if n, ok := u.find(hash, typ, id); ok {
		return n
	}
	u.list = append(u.list, uidKey{id: id, typ: typ})
	if crowded(len(u.list), len(u.places)) {
		u.places = make([]uint32, roomier(len(u.places)))
		for i, e := range u.list {
			settle(u.places, hashUID(seed, e.typ, e.id), uint32(i))
		}
	} else {
		settle(u.places, hash, uint32(len(u.list)-1))
	}
	return uint32(len(u.list) - 1)
}

// A hash table is at most three quarters full, and its size a power of two.
func crowded(n, places int) bool { return 4*n > 3*places }

// roomier is the size that follows.
func roomier(places int) int { return max(8, 2*places) }

// settle puts a number where its hash says, or behind.
func settle(places []uint32, hash uint64, number uint32) {
	mask := uint64(len(places) - 1)
	at := hash & mask
	for places[at] != 0 {
		at = (at + 1) & mask
	}
	places[at] = number + 1
}
