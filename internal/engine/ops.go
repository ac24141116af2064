package engine

import (
	"math"

	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// The operators. Operands are evaluated from left to right, and each is looked at before the next one
// is evaluated, so that of two faults the one is reported that Cedar reports.

// wrong notes that a value has not the type wanted. The value must live as long as the call, which all
// values do.
func (c *call) wrong(want string, v *value) {
	c.fault = fault{code: faultType, text: want, value: v}
}

// want evaluates an operand that must be of a kind; nil if it fails or is of another. name is how the
// message calls what was wanted.
func (c *call) want(t term, k kind, name string) *value {
	v := t(c)
	if v != nil && v.kind != k {
		c.wrong(name, v)
		return nil
	}
	return v
}

// wantBoth evaluates two operands that must be of kinds. r is nil if either is missing or of another kind,
// so it alone need be looked at. The right one is not evaluated if the left one is wrong.
func (c *call) wantBoth(left, right term, ofLeft, ofRight kind, nameLeft, nameRight string) (l, r *value) {
	if l = c.want(left, ofLeft, nameLeft); l == nil {
		return nil, nil
	}
	return l, c.want(right, ofRight, nameRight)
}

// affordable ends a test that may have gone through much: past the budget it fails, so that an
// expression does not go on.
func (c *call) affordable(v verdict) verdict {
	if c.overBudget() {
		c.fault = fault{code: faultBudget}
		return failed
	}
	return v
}

// and does not evaluate the right side when the left one is false, so that a fault there does not count. Each side must be a
// bool: what evaluates both is a test, which fails on any other value.
func (c *compiler) and(left, right test) test {
	return func(c *call) verdict {
		c.steps++
		if v := left(c); v != yes {
			return v
		}
		return right(c)
	}
}

// or is and's twin: it stops at a true.
func (c *compiler) or(left, right test) test {
	return func(c *call) verdict {
		c.steps++
		if v := left(c); v != no {
			return v
		}
		return right(c)
	}
}

// not turns a Bool round. A fault stays one.
func (c *compiler) not(t test) test {
	return func(c *call) verdict {
		c.steps++
		switch t(c) {
		case yes:
			return no
		case no:
			return yes
		default:
			return failed
		}
	}
}

// choose is `if`. The branch that is not taken is not evaluated, so its faults do not count.
func (c *compiler) choose(condition, then, otherwise test) test {
	return func(c *call) verdict {
		c.steps++
		switch condition(c) {
		case yes:
			return then(c)
		case no:
			return otherwise(c)
		default:
			return failed
		}
	}
}

// chooseTerm is `if` whose branches need not be Bools.
func (c *compiler) chooseTerm(condition test, then, otherwise term) term {
	return func(c *call) *value {
		c.steps++
		switch condition(c) {
		case yes:
			return then(c)
		case no:
			return otherwise(c)
		default:
			return nil
		}
	}
}

// equals compares values of any types: those of different types are unequal, which is no fault. same is
// the verdict when they are equal.
func (c *compiler) equals(left, right term, same verdict) test {
	return func(c *call) verdict {
		c.steps++
		l := left(c)
		if l == nil {
			return failed
		}
		r := right(c)
		if r == nil {
			return failed
		}
		if c.equal(l, r) {
			return c.affordable(same)
		}
		// The other one of the two.
		return c.affordable(yes + no - same)
	}
}

// A comparison of numbers, as which of two results counts: whether the left one is less, or not more.
type comparison uint8

const (
	less comparison = iota
	lessOrEqual
	greater
	greaterOrEqual
)

// order compares two Longs, two datetimes or two durations. The left operand's type is looked at before the right operand
// is evaluated, and that the types are the same only after both are known to be of these.
func (c *compiler) order(left, right term, op comparison, mismatch faultCode) test {
	return func(c *call) verdict {
		c.steps++
		l := left(c)
		if l == nil || !c.comparable(l) {
			return failed
		}
		r := right(c)
		if r == nil || !c.comparable(r) {
			return failed
		}
		if l.kind != r.kind {
			c.fault = fault{code: mismatch}
			return failed
		}
		// All three kinds are kept as a number of their unit, so that one comparison does for them.
		switch op {
		case less:
			return verdictIf(l.num < r.num)
		case lessOrEqual:
			return verdictIf(l.num <= r.num)
		case greater:
			return verdictIf(l.num > r.num)
		default:
			return verdictIf(l.num >= r.num)
		}
	}
}

// comparable: Cedar orders nothing else. Decimals have methods for it.
func (c *call) comparable(v *value) bool {
	if v.kind == kindLong || v.kind == kindDatetime || v.kind == kindDuration {
		return true
	}
	c.wrong(wantComparable, v)
	return false
}

// negate fails on the one Long that has no opposite: Cedar's arithmetic does not wrap. A negative literal
// is made when it is compiled, and costs nothing more.
func (c *compiler) negate(n ast.NodeTypeNegate) term {
	if v := c.literalOf(n); v != nil {
		return c.literal(v)
	}
	arg := c.term(n.Arg)
	return func(c *call) *value {
		c.steps++
		v := c.want(arg, kindLong, wantLong)
		if v == nil {
			return nil
		}
		if v.num == math.MinInt64 {
			c.fault = fault{code: faultNegate, a: v.num}
			return nil
		}
		return c.result(kindLong, -v.num)
	}
}

// arithmetic is +, - or * of Longs. A result that does not fit into 64 bits is a fault, and the policy does not apply.
func (c *compiler) arithmetic(left, right term, op func(a, b int64) (int64, bool), overflow faultCode) term {
	return func(c *call) *value {
		c.steps++
		l, r := c.wantBoth(left, right, kindLong, kindLong, wantLong, wantLong)
		if r == nil {
			return nil
		}
		n, fits := op(l.num, r.num)
		if !fits {
			c.fault = fault{code: overflow, a: l.num, b: r.num}
			return nil
		}
		return c.result(kindLong, n)
	}
}

// add reports false instead of wrapping: the sum is beyond a on the wrong side of what b says.
func add(a, b int64) (int64, bool) {
	sum := a + b
	return sum, (sum > a) == (b > 0)
}

// subtract is add's twin.
func subtract(a, b int64) (int64, bool) {
	difference := a - b
	return difference, (difference < a) == (b > 0)
}

// multiply divides back. The one product for which that would pass wrongly, of -1 and the least Long, has the wrong sign
// and is caught before.
func multiply(a, b int64) (int64, bool) {
	if a == 0 || b == 0 {
		return 0, true
	}
	product := a * b
	if (product < 0) != ((a < 0) != (b < 0)) {
		return 0, false
	}
	return product, product/b == a
}

// variable evaluates to what the request says. Principal, action and resource are always there; a context that was not
// sent is an empty record. The name is one of the four that the grammar knows.
func (c *compiler) variable(name string) term {
	switch name {
	case "principal":
		return func(c *call) *value {
			c.steps++
			return &c.principal.self
		}
	case "action":
		return func(c *call) *value {
			c.steps++
			return &c.action.self
		}
	case "resource":
		return func(c *call) *value {
			c.steps++
			return &c.resource.self
		}
	default:
		return func(c *call) *value {
			c.steps++
			return &c.context
		}
	}
}

// access reads an attribute. Those of the variables are by far the most, so they need no operand. The name
// has its number from compiling, so no text is compared.
func (c *compiler) access(n ast.NodeTypeAccess) term {
	name := c.symbols.name(string(n.Value))
	if v, ok := n.Arg.(ast.NodeTypeVariable); ok {
		switch v.Name {
		case "principal":
			return func(c *call) *value {
				c.steps++
				return c.attribute(c.principal, name)
			}
		case "resource":
			return func(c *call) *value {
				c.steps++
				return c.attribute(c.resource, name)
			}
		case "context":
			return func(c *call) *value {
				c.steps++
				return c.member(&c.context, name)
			}
		}
	}
	of := c.term(n.Arg)
	return func(c *call) *value {
		c.steps++
		v := of(c)
		switch {
		case v == nil:
			return nil
		case v.kind == kindEntity:
			// The entity may be one that the policy names: what it has is in the request.
			return c.attribute(c.local(v.entity), name)
		case v.kind == kindRecord:
			return c.member(v, name)
		default:
			c.wrong(wantMembers, v)
			return nil
		}
	}
}

// attribute of an entity that nobody defined is another fault than one that an entity does not have: Cedar tells them apart,
// and so do those who read the error. Optional or not, the schema is not asked: requests may be unchecked
// and policies older than it.
func (c *call) attribute(e *entity, name uint32) *value {
	if v := find(e.attributes, name); v != nil {
		return v
	}
	code := faultNoAttribute
	if e.origin == undefined {
		code = faultNoEntity
	}
	c.fault = fault{code: code, entity: e, name: name}
	return nil
}

// member of a record.
func (c *call) member(record *value, name uint32) *value {
	v := find(record.slots, name)
	if v == nil {
		c.fault = fault{code: faultNoMember, name: name}
	}
	return v
}

// has is no for an entity that nobody defined, and no fault: so the reference does.
func (c *compiler) has(of term, name uint32) test {
	return func(c *call) verdict {
		c.steps++
		v := of(c)
		switch {
		case v == nil:
			return failed
		case v.kind == kindEntity:
			return verdictIf(find(c.local(v.entity).attributes, name) != nil)
		case v.kind == kindRecord:
			return verdictIf(find(v.slots, name) != nil)
		default:
			c.wrong(wantMembers, v)
			return failed
		}
	}
}

// tag finds the tag that two operands speak of: the entity, and the value if it has that tag. e is nil if
// either operand is a fault. The text is the tag's name.
func (c *call) tag(of, name term) (*entity, *value, string) {
	e := c.want(of, kindEntity, wantEntity)
	if e == nil {
		return nil, nil, ""
	}
	text := c.want(name, kindString, wantString)
	if text == nil {
		return nil, nil, ""
	}
	// A tag's name may come from anywhere in the request. One that nothing has is no tag, and gets no
	// number.
	c.steps += textSize(len(text.text))
	known := c.local(e.entity)
	if number, ok := c.findName(text.text); ok {
		return known, find(known.tags, number), text.text
	}
	return known, nil, text.text
}

// hasTag, like has, is no for an entity that nobody defined.
func (c *compiler) hasTag(of, name term) test {
	return func(c *call) verdict {
		c.steps++
		e, v, _ := c.tag(of, name)
		if e == nil {
			return failed
		}
		return verdictIf(v != nil)
	}
}

// getTag of a tag that is not there is a fault, of an entity that nobody defined another one.
func (c *compiler) getTag(of, name term) term {
	return func(c *call) *value {
		c.steps++
		e, v, text := c.tag(of, name)
		switch {
		// The fault is there already.
		case e == nil:
		case e.origin == undefined:
			c.fault = fault{code: faultNoEntity, entity: e}
		case v == nil:
			c.fault = fault{code: faultNoTag, entity: e, text: text}
		}
		return v
	}
}

// is compares the type's name and not its ancestors: Cedar's entity types have none.
func (c *compiler) is(of term, typ uint32) test {
	return func(c *call) verdict {
		c.steps++
		v := c.want(of, kindEntity, wantEntity)
		if v == nil {
			return failed
		}
		return verdictIf(v.entity.typ == typ)
	}
}

// isIn is "is ... in": of another type it is no before the place is evaluated, as "is ... && in" would be.
func (c *compiler) isIn(of term, typ uint32, place term) test {
	return func(c *call) verdict {
		c.steps++
		v := c.want(of, kindEntity, wantEntity)
		if v == nil {
			return failed
		}
		if v.entity.typ != typ {
			return no
		}
		return c.within(v.entity, place)
	}
}

// in is reflexive: an entity is in itself, also one that nobody defined.
func (c *compiler) in(of, place term) test {
	return func(c *call) verdict {
		c.steps++
		v := c.want(of, kindEntity, wantEntity)
		if v == nil {
			return failed
		}
		return c.within(v.entity, place)
	}
}

// stepsOfIn is what looking through up to 100 ancestors counts.
const stepsOfIn = 2

// within reports whether an entity is in one of the entities that place stands for. It is the common end
// of `in` and `is ... in`. Ancestors are complete before anything is evaluated, so this only looks.
func (c *call) within(e *entity, place term) verdict {
	where := place(c)
	if where == nil {
		return failed
	}
	c.steps += stepsOfIn
	e = c.local(e)
	switch where.kind {
	case kindEntity:
		return verdictIf(e.in(where.entity.number))
	case kindSet:
		// All elements first: one that is no entity is a fault, wherever it stands and whatever the others
		// are.
		c.steps += stepsOfIn * len(where.slots)
		for i := range where.slots {
			if v := where.slots[i].value; v.kind != kindEntity {
				c.wrong(wantEntity, v)
				return failed
			}
		}
		for i := range where.slots {
			if e.in(where.slots[i].value.entity.number) {
				return c.affordable(yes)
			}
		}
		return c.affordable(no)
	default:
		c.wrong(wantPlace, where)
		return failed
	}
}

// set of literals and expressions. A literal one is made once, when the policy is compiled. Elements may
// be of any types, and are in it once. The first that fails ends it.
func (c *compiler) set(n ast.NodeTypeSet) term {
	if v := c.literalOf(n); v != nil {
		return c.literal(v)
	}
	elements := make([]term, len(n.Elements))
	for i, e := range n.Elements {
		elements[i] = c.term(e)
	}
	return func(c *call) *value {
		c.steps++
		slots := c.slots.take(len(elements))
		for i, e := range elements {
			if slots[i].value = e(c); slots[i].value == nil {
				return nil
			}
		}
		v := c.result(kindSet, 0)
		v.slots = c.normalize(slots)
		// Past the budget the sorting broke off, and the set is not what was written.
		if c.affordable(yes) != yes {
			return nil
		}
		return v
	}
}

// record of literals and expressions. Of two members of one name the last counts, as in cedar-go. What a
// member that does not count would come to is not evaluated.
func (c *compiler) record(n ast.NodeTypeRecord) term {
	if v := c.literalOf(n); v != nil {
		return c.literal(v)
	}
	type member struct {
		value term
		name  uint32
	}
	var members []member
	at := map[uint32]int{}
	for _, e := range n.Elements {
		m := member{c.term(e.Value), c.symbols.name(string(e.Key))}
		if i, twice := at[m.name]; twice {
			members[i] = m
			continue
		}
		at[m.name] = len(members)
		members = append(members, m)
	}
	return func(c *call) *value {
		c.steps++
		slots := c.slots.take(len(members))
		for i := range members {
			slots[i].name = members[i].name
			if slots[i].value = members[i].value(c); slots[i].value == nil {
				return nil
			}
		}
		sortByName(slots)
		v := c.result(kindRecord, 0)
		v.slots = slots
		return v
	}
}

// contains takes an element of any type: one of another type than the others is just not in it. It is
// looked for by the order of [call.compare], as sets are kept.
func (c *compiler) contains(set, element term) test {
	return func(c *call) verdict {
		c.steps++
		s := c.want(set, kindSet, wantSet)
		if s == nil {
			return failed
		}
		e := element(c)
		if e == nil {
			return failed
		}
		return c.affordable(verdictIf(c.contains(s.slots, e)))
	}
}

// containsMany is containsAll or containsAny. Of an empty set on the right the one is always true, the
// other never.
func (c *compiler) containsMany(left, right term, op func(c *call, a, b []slot) bool) test {
	return func(c *call) verdict {
		c.steps++
		l, r := c.wantBoth(left, right, kindSet, kindSet, wantSet, wantSet)
		if r == nil {
			return failed
		}
		return c.affordable(verdictIf(op(c, l.slots, r.slots)))
	}
}

// isEmpty costs the same for every set.
func (c *compiler) isEmpty(set term) test {
	return func(c *call) verdict {
		c.steps++
		s := c.want(set, kindSet, wantSet)
		if s == nil {
			return failed
		}
		return verdictIf(len(s.slots) == 0)
	}
}
