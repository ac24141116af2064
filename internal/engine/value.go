package engine

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
)

// value is a Cedar value. It is passed by pointer and never changed once it is made, so that an
// attribute is read without copying it. The zero value is the Bool false. Those of a call are in its room
// and end with it; those of a snapshot stay.
type value struct {
	kind kind
	// num is a Bool as 0 or 1, a Long, a decimal in ten thousandths, a datetime or duration in
	// milliseconds.
	num int64
	// text is a String, or an ipaddr as it is compared: 4 or 16 bytes of address, and one of prefix.
	text string
	// slots are the members of a record, sorted by name, or the elements of a set, sorted by
	// [call.compare] and each once, with no names.
	slots []slot
	// entity is of kindEntity.
	entity *entity
}

// slot is a member of a record under the number of its name.
type slot struct {
	value *value
	name  uint32
}

// entity is one that a request or a condition speaks of. All mentions of one within a request share it.
// That makes comparing two entities a comparison of numbers. Entities of conditions belong to the
// snapshot, are shared by all calls, and know nothing of a request.
type entity struct {
	uid    types.EntityUID
	hash   uint64
	number uint32
	typ    uint32
	self   value // what refers to it

	// What follows is known of a request's entities and of a schema's actions only.
	origin     origin
	visit      visit
	attributes []slot
	tags       []slot
	parents    []*entity
	ancestors  []uint32 // sorted; itself is not among them
}

// origin tells where the definition of an entity comes from. The server's definition stands against the
// caller's, see [scanner.define].
type origin uint8

const (
	undefined origin = iota // it is named, and does not exist
	fromSchema
	fromServer
	fromCaller
)

// fromSchema gives an action of the schema the groups it is in. It leaves others alone: in all symbols
// made from the schema's, its actions have the lowest numbers.
func (e *entity) fromSchema(s *Schema) {
	if s != nil && int(e.number) < len(s.actions) {
		e.origin, e.visit, e.ancestors = fromSchema, done, s.actions[e.number].ancestors
	}
}

// in reports whether an entity is the one with the number or below it. That takes no more than seven
// looks: nobody has more than 100 ancestors.
func (e *entity) in(number uint32) bool {
	if e.number == number {
		return true
	}
	if len(e.ancestors) == 0 {
		return false
	}
	_, found := slices.BinarySearch(e.ancestors, number)
	return found
}

// find looks for a member of a record. It returns nil if there is none. Short lists are looked through
// from the front, longer ones halved.
func find(slots []slot, name uint32) *value {
	if len(slots) <= 8 {
		for i := range slots {
			if slots[i].name == name {
				return slots[i].value
			}
		}
		return nil
	}
	low, high := 0, len(slots)
	for low < high {
		middle := int(uint(low+high) / 2)
		if slots[middle].name < name {
			low = middle + 1
		} else {
			high = middle
		}
	}
	if low < len(slots) && slots[low].name == name {
		return slots[low].value
	}
	return nil
}

// sortByName orders a record's members and reports whether any two have one name. It sorts in place.
func sortByName(slots []slot) (twice bool) {
	if len(slots) > 12 {
		slices.SortFunc(slots, func(a, b slot) int { return cmp.Compare(a.name, b.name) })
	} else {
		for i := 1; i < len(slots); i++ {
			for j := i; j > 0 && slots[j].name < slots[j-1].name; j-- {
				slots[j], slots[j-1] = slots[j-1], slots[j]
			}
		}
	}
	for i := 1; i < len(slots); i++ {
		if slots[i].name == slots[i-1].name {
			return true
		}
	}
	return false
}

// textSize is what comparing or searching a text counts beyond one step.
func textSize(bytes int) int { return bytes / 16 }

// equal reports whether two values are the same. The steps are those of finding that out.
func (c *call) equal(a, b *value) bool {
	if a.kind != b.kind {
		return false
	}
	switch a.kind {
	case kindString, kindIP:
		c.steps += textSize(min(len(a.text), len(b.text)))
		return a.text == b.text
	case kindEntity:
		return a.entity.number == b.entity.number
	case kindSet, kindRecord:
		// Both are kept in order, so the same set is the same list.
		return len(a.slots) == len(b.slots) && c.compare(a, b) == 0
	default:
		return a.num == b.num
	}
}

// compare puts all values of a request and its snapshot in one order, which means nothing: it makes sets
// of the same elements the same, and looking for an element cheap. It is no hash: nobody can find
// values for which it does worse. Past the budget everything is equal, and nobody looks at the result.
func (c *call) compare(a, b *value) int {
	c.steps++
	if a.kind != b.kind {
		return cmp.Compare(a.kind, b.kind)
	}
	switch a.kind {
	case kindString, kindIP:
		// By length first: that settles many without reading them.
		if len(a.text) != len(b.text) {
			return cmp.Compare(len(a.text), len(b.text))
		}
		c.steps += textSize(len(a.text))
		return strings.Compare(a.text, b.text)
	case kindEntity:
		return cmp.Compare(a.entity.number, b.entity.number)
	case kindSet, kindRecord:
		if len(a.slots) != len(b.slots) {
			return cmp.Compare(len(a.slots), len(b.slots))
		}
		for i := range a.slots {
			if c.overBudget() {
				return 0
			}
			x, y := &a.slots[i], &b.slots[i]
			if x.name != y.name {
				return cmp.Compare(x.name, y.name)
			}
			if order := c.compare(x.value, y.value); order != 0 {
				return order
			}
		}
		return 0
	default:
		return cmp.Compare(a.num, b.num)
	}
}

// normalize makes a set of elements: sorted, each once. It changes the slice. Comparing counts, so a set
// of many large elements has its price in steps.
func (c *call) normalize(elements []slot) []slot {
	if len(elements) < 2 {
		return elements
	}
	slices.SortFunc(elements, func(a, b slot) int {
		if c.overBudget() {
			return 0
		}
		return c.compare(a.value, b.value)
	})
	return slices.CompactFunc(elements, func(a, b slot) bool { return c.equal(a.value, b.value) })
}

// contains looks for an element.
func (c *call) contains(set []slot, element *value) bool {
	_, found := slices.BinarySearchFunc(set, element, func(s slot, e *value) int { return c.compare(s.value, e) })
	return found
}

// countShared goes through two sets side by side and counts what is in both, up to enough. Both are in the
// order of [call.compare]. Over the budget it ends early: what it returns then decides nothing.
func (c *call) countShared(a, b []slot, enough int) int {
	shared := 0
	for len(a) > 0 && len(b) > 0 && shared < enough && !c.overBudget() {
		switch order := c.compare(a[0].value, b[0].value); {
		case order == 0:
			shared++
			a, b = a[1:], b[1:]
		case order < 0:
			a = a[1:]
		default:
			b = b[1:]
		}
	}
	return shared
}

// containsAll reports whether all of b are in a, containsAny whether one is. A few elements are each
// looked for, many side by side.
func (c *call) containsAll(a, b []slot) bool {
	if len(b) > len(a) {
		return false
	}
	if !isFew(b, a) {
		return c.countShared(a, b, len(b)) == len(b)
	}
	for i := range b {
		if !c.contains(a, b[i].value) {
			return false
		}
	}
	return true
}

// containsAny may exchange the two: which is looked through for the other makes no difference.
func (c *call) containsAny(a, b []slot) bool {
	if len(b) > len(a) {
		a, b = b, a
	}
	if !isFew(b, a) {
		return c.countShared(a, b, 1) == 1
	}
	for i := range b {
		if c.contains(a, b[i].value) {
			return true
		}
	}
	return false
}

// isFew tells when looking for each is likely to take fewer steps than going through both.
func isFew(few, many []slot) bool { return len(few) <= len(many)/16 || len(few) <= 2 }

// ipText is an address or range in the form that a value keeps. The lengths tell the families apart, and
// equal texts are equal addresses with equal prefixes.
func ipText(room []byte, p netip.Prefix) []byte {
	if p.Addr().Is4() {
		four := p.Addr().As4()
		room = append(room, four[:]...)
	} else {
		sixteen := p.Addr().As16()
		room = append(room, sixteen[:]...)
	}
	return append(room, byte(p.Bits()))
}

// ip is what an ipaddr stands for. v must be an ipaddr.
func (v *value) ip() types.IPAddr {
	last := len(v.text) - 1
	var addr netip.Addr
	if last == 4 {
		addr = netip.AddrFrom4([4]byte([]byte(v.text[:4])))
	} else {
		addr = netip.AddrFrom16([16]byte([]byte(v.text[:16])))
	}
	return types.IPAddr(netip.PrefixFrom(addr, int(v.text[last])))
}
