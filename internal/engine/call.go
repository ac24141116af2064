package engine

import (
	"hash/maphash"
	"sync"
	"unsafe"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

// call is one request being decided: what was read of it, and the room in which that was done. All it
// holds is good for the call only: values refer to the request's bytes, and the room is used again.
type call struct {
	snapshot *Snapshot
	symbols  *symbols
	request  *copse.Request

	principal, action, resource *entity
	context                     value
	serverContext               []slot

	// steps is what deciding has cost so far, restAt after how many others may go first again, and fault
	// why the expression evaluated last failed.
	steps  int
	restAt int
	fault  fault
	bools  [2]value
	shown  int // steps of evaluating what an explanation shows beside the decision

	// What the request names and the snapshot does not, numbered beyond the snapshot's symbols.
	names words
	types words
	// entities are all that the request names, known or not, in the order they come up; places finds
	// them by hash.
	entities []*entity
	places   []uint32
	climbed  int // of finding ancestors

	text   slab[byte]
	values slab[value]
	slots  slab[slot]
	uids   slab[entity]
	links  slab[*entity]
	ranks  slab[uint32]

	scanner scanner   // of the data being read
	way     []place   // to the value being checked
	stack   []slot    // of records and sets being read
	parents []*entity // of the entity being read
	found   []uint32  // candidates
	permits []uint32
	forbids []uint32
	failed  []failure
}

// failure is a policy that could not be evaluated.
type failure struct {
	policy uint32
	fault  fault
}

// calls are kept for the next request. A policy store decides too seldom to keep its own.
var calls = sync.Pool{New: func() any {
	c := &call{}
	c.bools = [2]value{{kind: kindBool}, {kind: kindBool, num: 1}}
	return c
}}

// newCall takes the room of a former call, or makes one. Whoever gets it releases it, whatever happens,
// and must not use it or anything of it after that.
func newCall(s *Snapshot, req *copse.Request) *call {
	c := calls.Get().(*call)
	c.snapshot, c.symbols, c.request = s, s.symbols, req
	c.restAt = stepsBetweenRests
	return c
}

// maxKept is how much room a call keeps for the next one, of each kind, in bytes: what the largest requests
// take, because those who send them one after the other would have the collector at work all the time,
// and everybody wait for it. It is little enough for as many calls as there are processors, and given
// back when no such request came between two collections.
const maxKept = 8 << 20

// maxPlaces and maxSwept are how large a hash table and a list are kept whose emptying costs their size, however
// little the next request needs.
const (
	maxPlaces = 1024
	maxSwept  = 1024
)

// release forgets the request. Nothing may hold on to values of the call. What it forgets it also clears,
// so that nothing of one tenant's request is in reach of the next one's.
func (c *call) release() {
	c.snapshot, c.symbols, c.request = nil, nil, nil
	c.principal, c.action, c.resource = nil, nil, nil
	c.context, c.serverContext, c.scanner = value{}, nil, scanner{}
	c.steps, c.climbed, c.shown, c.fault = 0, 0, 0, fault{}
	c.names.forget()
	c.types.forget()
	c.entities, c.places = forgotten(c.entities), forgottenPlaces(c.places, len(c.entities))
	c.text.forget()
	c.values.forget()
	c.slots.forget()
	c.uids.forget()
	c.links.forget()
	c.ranks.forget()
	c.stack, c.parents, c.way = forgotten(c.stack), swept(c.parents), swept(c.way)
	c.found, c.permits, c.forbids = forgotten(c.found), forgotten(c.permits), forgotten(c.forbids)
	c.failed = forgotten(c.failed)
	calls.Put(c)
}

// swept is forgotten for a list that was cut off and has former elements beyond its end: all of it is cleared, so
// that what one large request left there must not cost every small one after it.
func swept[T any](list []T) []T {
	if cap(list) > maxSwept {
		return nil
	}
	return forgotten(list[:cap(list)])
}

// forgotten clears a list and keeps its room, unless that is too much to keep.
func forgotten[T any](list []T) []T {
	var one T
	if cap(list)*int(unsafe.Sizeof(one)) > maxKept {
		return nil
	}
	clear(list)
	return list[:0]
}

// forgottenPlaces empties a hash table that had n entries.
func forgottenPlaces(places []uint32, n int) []uint32 {
	if len(places) > maxPlaces {
		return nil
	}
	if n > 0 {
		clear(places)
	}
	return places
}

// forget empties the table and keeps its room, within the same bounds.
func (w *words) forget() {
	w.places = forgottenPlaces(w.places, len(w.list))
	w.list = forgotten(w.list)
}

// slab hands out parts of large slices. A part stays where it is and is zero when it is handed out. It
// grows by doubling. Nothing is given back singly: everything is with the call.
type slab[T any] struct {
	chunk []T
	used  int
}

// take hands out n of them, which can't be grown into the next part.
func (s *slab[T]) take(n int) []T {
	if n > len(s.chunk)-s.used {
		// What was handed out keeps the former chunk for as long as it is needed.
		s.chunk = make([]T, max(64, 2*len(s.chunk), n))
		s.used = 0
	}
	out := s.chunk[s.used : s.used+n : s.used+n]
	s.used += n
	return out
}

// one hands out a single one.
func (s *slab[T]) one() *T { return &s.take(1)[0] }

// forget clears what was handed out of the chunk, and keeps that unless it is too large. Former chunks went
// with those who had parts of them.
func (s *slab[T]) forget() {
	var one T
	if len(s.chunk)*int(unsafe.Sizeof(one)) > maxKept {
		s.chunk = nil
	} else {
		clear(s.chunk[:s.used])
	}
	s.used = 0
}

// pop takes the slots above from off the stack.
func (c *call) pop(from int) []slot {
	top := c.stack[from:]
	if len(top) == 0 {
		return nil
	}
	out := c.slots.take(len(top))
	copy(out, top)
	// release only sees what is on the stack then.
	clear(top)
	c.stack = c.stack[:from]
	return out
}

// newValue is a value that reading makes. It costs no steps: the request's size bounds those.
func (c *call) newValue(k kind, num int64) *value {
	v := c.values.one()
	v.kind, v.num = k, num
	return v
}

// result is a value that evaluating makes.
func (c *call) result(k kind, num int64) *value {
	c.steps += stepsOfResult
	return c.newValue(k, num)
}

// boolean is one of the two values of kindBool. All share the two, so nobody may change them.
func (c *call) boolean(yes bool) *value {
	if yes {
		return &c.bools[1]
	}
	return &c.bools[0]
}

// name numbers an attribute, tag or context member. The text is kept as it is, which refers to the
// request.
func (c *call) name(name string) uint32 {
	hash := maphash.String(c.symbols.seed, name)
	if n, ok := c.symbols.names.find(hash, name); ok {
		return n
	}
	known := uint32(len(c.symbols.names.list))
	if n, ok := c.names.find(hash, name); ok {
		return known + n
	}
	return known + c.names.add(c.symbols.seed, hash, name)
}

// findName is the number of a name if anything has it. Unlike name it gives none, so asking for names
// leaves no trace.
func (c *call) findName(name string) (uint32, bool) {
	hash := maphash.String(c.symbols.seed, name)
	if n, ok := c.symbols.names.find(hash, name); ok {
		return n, true
	}
	n, ok := c.names.find(hash, name)
	return n + uint32(len(c.symbols.names.list)), ok
}

// nameText is the name with a number that name gave.
func (c *call) nameText(number uint32) string {
	if known := len(c.symbols.names.list); int(number) >= known {
		return c.names.list[int(number)-known]
	}
	return c.symbols.names.list[number]
}

// entityType numbers an entity type. It says what is wrong with one, or nothing.
func (c *call) entityType(name string) (number uint32, wrong string) {
	hash := maphash.String(c.symbols.seed, name)
	if n, ok := c.symbols.types.find(hash, name); ok {
		return n, ""
	}
	known := uint32(len(c.symbols.types.list))
	if n, ok := c.types.find(hash, name); ok {
		return known + n, ""
	}
	// A type that the snapshot names is one: its name was read with a policy or the schema.
	if wrong := checkType(name); wrong != "" {
		return 0, wrong
	}
	return known + c.types.add(c.symbols.seed, hash, name), ""
}

// entity returns the one entity for all mentions of it, or says what is wrong with its identifier. The
// id is valid UTF-8.
func (c *call) entity(entityType, id string) (e *entity, wrong string) {
	typ, wrong := c.entityType(entityType)
	// Up to the lower of the limits no id is too long, whatever its type.
	if wrong == "" && len(id) > copse.MaxActionIDBytes {
		wrong = checkID(entityType, id)
	}
	if wrong != "" {
		return nil, wrong
	}
	hash := hashUID(c.symbols.seed, typ, id)
	if len(c.places) > 0 {
		mask := uint64(len(c.places) - 1)
		for at := hash & mask; c.places[at] != 0; at = (at + 1) & mask {
			if e := c.entities[c.places[at]-1]; e.hash == hash && e.typ == typ && string(e.uid.ID) == id {
				return e, ""
			}
		}
	}
	e = c.uids.one()
	*e = entity{uid: types.EntityUID{Type: types.EntityType(entityType), ID: types.String(id)}, hash: hash, typ: typ}
	e.self = value{kind: kindEntity, entity: e}
	number, known := c.symbols.entities.find(hash, typ, id)
	if !known {
		// The entities that the snapshot knows leave gaps among these. Only equality and order matter.
		number = uint32(len(c.symbols.entities.list) + len(c.entities))
	}
	e.number = number
	e.fromSchema(c.snapshot.schema)
	c.entities = append(c.entities, e)
	if crowded(len(c.entities), len(c.places)) {
		c.places = make([]uint32, roomier(len(c.places)))
		for i, e := range c.entities {
			settle(c.places, e.hash, uint32(i))
		}
	} else {
		settle(c.places, hash, uint32(len(c.entities)-1))
	}
	return e, ""
}

// local returns what the request knows of an entity that a condition names. A request that does not
// mention the entity knows nothing of it, and it stays undefined.
func (c *call) local(e *entity) *entity {
	if e.origin != undefined || len(c.places) == 0 {
		return e
	}
	mask := uint64(len(c.places) - 1)
	for at := e.hash & mask; c.places[at] != 0; at = (at + 1) & mask {
		if l := c.entities[c.places[at]-1]; l.number == e.number {
			return l
		}
	}
	return e
}

// asText reads bytes as a string without copying them. They must not change for as long as the string
// is used.
func asText(b []byte) string {
	return unsafe.String(unsafe.SliceData(b), len(b)) //nolint:gosec // for the time of a call only, whose caller promises that they don't change
}
