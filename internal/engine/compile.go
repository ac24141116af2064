package engine

import (
	"maps"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// A condition is compiled to closures: each knows its operands, which are closures too, and what was
// looked up for it beforehand. Expressions that are true or false become a test, all others a term.
// Nothing is assumed of the types of values: stored policies may be older than the schema.
type (
	test func(*call) verdict
	// term returns nil when it fails, and the fault in the call.
	term func(*call) *value
)

// verdict of a test. Its zero value is the one that allows nothing.
type verdict uint8

const (
	// What a policy with this verdict comes to: an error, not satisfied, satisfied.
	failed verdict = iota // the fault is in the call
	no
	yes
)

// verdictIf is the verdict of what did not fail.
func verdictIf(is bool) verdict {
	if is {
		return yes
	}
	return no
}

// program is the conditions of a policy, or of a template and all its links. It is immutable. Conditions
// of `unless` are turned round in it; weight is about how many bytes it holds.
type program struct {
	template   *Template // of links
	forbids    bool
	conditions []test
	weight     int64
}

// run reports whether all conditions are met. They are asked in the order in which they stand, and one
// that is not met ends it: as in `&&`, what those behind it would come to, a fault as well, does not
// count.
func (p *program) run(c *call) verdict {
	for _, condition := range p.conditions {
		if v := condition(c); v != yes {
			return v
		}
	}
	return yes
}

// scalar is a value without parts. It is what literals are told apart by.
type scalar struct {
	kind kind
	num  int64
	text string
}

// A compiler is of one snapshot or explanation under construction, whose symbols grow with it. What it
// makes is shared by requests and goroutines, and not changed any more.
type compiler struct {
	symbols *symbols
	schema  *Schema // of the actions; nil: none
	// weight is about how many bytes the closures made so far hold.
	weight int64
	// literals and entities are what conditions refer to, each once for all conditions of a snapshot.
	literals map[scalar]*value
	entities map[uint32]*entity
	// room is where literals are made.
	room call
}

// newCompiler compiles with symbols that only it may add to.
func newCompiler(symbols *symbols, schema *Schema) compiler {
	return compiler{symbols: symbols, schema: schema, literals: map[scalar]*value{}, entities: map[uint32]*entity{}}
}

// program compiles the conditions. The scope is the index's business and is not asked again.
func (c *compiler) program(tree *ast.Policy) *program {
	p := &program{forbids: tree.Effect == ast.EffectForbid}
	// A literal that several programs share is weighed with the first.
	c.weight = bytesOfProgram
	for _, condition := range tree.Conditions {
		t := c.test(condition.Body)
		if condition.Condition == ast.ConditionUnless {
			t = c.not(t)
		}
		p.conditions = append(p.conditions, t)
	}
	p.weight = c.weight
	return p
}

// test compiles an expression that is wanted as a Bool. An expression of another type is refused where it
// is evaluated: only then Cedar calls it a fault.
func (c *compiler) test(n ast.IsNode) test {
	c.weight += bytesOfNode
	switch n := n.(type) {
	case ast.NodeTypeAnd:
		return c.and(c.test(n.Left), c.test(n.Right))
	case ast.NodeTypeOr:
		return c.or(c.test(n.Left), c.test(n.Right))
	case ast.NodeTypeNot:
		return c.not(c.test(n.Arg))
	case ast.NodeTypeIfThenElse:
		return c.choose(c.test(n.If), c.test(n.Then), c.test(n.Else))
	case ast.NodeTypeEquals:
		return c.equals(c.term(n.Left), c.term(n.Right), yes)
	case ast.NodeTypeNotEquals:
		return c.equals(c.term(n.Left), c.term(n.Right), no)
	case ast.NodeTypeLessThan:
		return c.order(c.term(n.Left), c.term(n.Right), less, faultComparison)
	case ast.NodeTypeLessThanOrEqual:
		return c.order(c.term(n.Left), c.term(n.Right), lessOrEqual, faultComparison)
	case ast.NodeTypeGreaterThan:
		return c.order(c.term(n.Left), c.term(n.Right), greater, faultComparison)
	case ast.NodeTypeGreaterThanOrEqual:
		// The code of its mismatch is another because cedar-go words it otherwise.
		return c.order(c.term(n.Left), c.term(n.Right), greaterOrEqual, faultComparisonJoined)
	case ast.NodeTypeHas:
		return c.has(c.term(n.Arg), c.symbols.name(string(n.Value)))
	case ast.NodeTypeHasTag:
		return c.hasTag(c.term(n.Left), c.term(n.Right))
	case ast.NodeTypeLike:
		return c.like(c.term(n.Arg), n.Value)
	case ast.NodeTypeIs:
		return c.is(c.term(n.Left), c.symbols.entityType(n.EntityType))
	case ast.NodeTypeIsIn:
		return c.isIn(c.term(n.Left), c.symbols.entityType(n.EntityType), c.term(n.Entity))
	case ast.NodeTypeIn:
		return c.in(c.term(n.Left), c.term(n.Right))
	case ast.NodeTypeContains:
		return c.contains(c.term(n.Left), c.term(n.Right))
	case ast.NodeTypeContainsAll:
		return c.containsMany(c.term(n.Left), c.term(n.Right), (*call).containsAll)
	case ast.NodeTypeContainsAny:
		return c.containsMany(c.term(n.Left), c.term(n.Right), (*call).containsAny)
	case ast.NodeTypeIsEmpty:
		return c.isEmpty(c.term(n.Arg))
	case ast.NodeTypeExtensionCall:
		if t := c.extensionTest(n); t != nil {
			return t
		}
	}
	return c.asTest(c.term(n))
}

// term compiles an expression of any type. What is a test becomes a term that wraps it. One of the two
// knows every kind of node, or they would call each other for ever.
func (c *compiler) term(n ast.IsNode) term {
	c.weight += bytesOfNode
	switch n := n.(type) {
	case ast.NodeValue:
		return c.literal(c.constant(n.Value))
	case ast.NodeTypeVariable:
		return c.variable(string(n.Name))
	case ast.NodeTypeAccess:
		return c.access(n)
	case ast.NodeTypeGetTag:
		return c.getTag(c.term(n.Left), c.term(n.Right))
	case ast.NodeTypeIfThenElse:
		return c.chooseTerm(c.test(n.If), c.term(n.Then), c.term(n.Else))
	case ast.NodeTypeNegate:
		return c.negate(n)
	case ast.NodeTypeAdd:
		return c.arithmetic(c.term(n.Left), c.term(n.Right), add, faultAdd)
	case ast.NodeTypeSub:
		return c.arithmetic(c.term(n.Left), c.term(n.Right), subtract, faultSubtract)
	case ast.NodeTypeMult:
		return c.arithmetic(c.term(n.Left), c.term(n.Right), multiply, faultMultiply)
	case ast.NodeTypeSet:
		return c.set(n)
	case ast.NodeTypeRecord:
		return c.record(n)
	case ast.NodeTypeExtensionCall:
		if t := c.extensionTest(n); t != nil {
			return c.asTerm(t)
		}
		return c.extensionTerm(n)
	default:
		return c.asTerm(c.test(n))
	}
}

// asTest wants a Bool of a term.
func (c *compiler) asTest(t term) test {
	return func(c *call) verdict {
		v := t(c)
		switch {
		case v == nil:
			return failed
		case v.kind != kindBool:
			c.wrong(wantBool, v)
			return failed
		default:
			return verdictIf(v.num != 0)
		}
	}
}

// asTerm makes a Bool of a test.
func (c *compiler) asTerm(t test) term {
	return func(c *call) *value {
		v := t(c)
		if v == failed {
			return nil
		}
		return c.boolean(v == yes)
	}
}

// literal is always the same value.
func (c *compiler) literal(v *value) term {
	return func(c *call) *value {
		c.steps++
		return v
	}
}

// literalOf returns the value of an expression that has one without any request, nil for others. A set or
// record is a literal if all in it are, so what policies list is sorted once, and not by each decision.
func (c *compiler) literalOf(n ast.IsNode) *value {
	switch n := n.(type) {
	case ast.NodeValue:
		return c.constant(n.Value)
	case ast.NodeTypeSet:
		elements := make([]slot, len(n.Elements))
		for i, e := range n.Elements {
			v := c.literalOf(e)
			if v == nil {
				return nil
			}
			elements[i].value = v
		}
		return c.constantSet(elements)
	case ast.NodeTypeRecord:
		// A name that occurs twice has its last value, as in cedar-go.
		members := make(map[string]*value, len(n.Elements))
		for _, e := range n.Elements {
			v := c.literalOf(e.Value)
			if v == nil {
				return nil
			}
			members[string(e.Key)] = v
		}
		return c.constantRecord(members)
	case ast.NodeTypeNegate:
		v := c.literalOf(n.Arg)
		// The least Long is its own opposite in 64 bits: that fault is left to evaluation.
		if v == nil || v.kind != kindLong || v.num == -v.num && v.num != 0 {
			return nil
		}
		return c.made(value{kind: kindLong, num: -v.num})
	case ast.NodeTypeExtensionCall:
		// Of calls only constructors are worked out before there is a request.
		if !makesValue(n) {
			return nil
		}
		arg := c.literalOf(n.Args[0])
		if arg == nil || arg.kind != kindString {
			return nil
		}
		var v value
		// A text that is no such value fails when it is evaluated, and not before.
		if !c.room.construct(&v, string(n.Name), arg.text) {
			return nil
		}
		return c.made(v)
	default:
		return nil
	}
}

// made is a value that a snapshot keeps. A value without parts is kept once. Its text is a copy, so that
// the policy's whole text is not held for it.
func (c *compiler) made(v value) *value {
	if v.slots == nil {
		key := scalar{v.kind, v.num, v.text}
		if known := c.literals[key]; known != nil {
			return known
		}
		v.text = strings.Clone(v.text)
		key.text = v.text
		c.literals[key] = &v
	}
	c.weight += bytesOfValue + sizeClass(len(v.text)) + 16*int64(len(v.slots))
	return &v
}

// constant is a value of cedar-go's as ours. What cedar-go parsed is a Cedar value, so the others it could
// be given are a defect of this package.
func (c *compiler) constant(v types.Value) *value {
	switch v := v.(type) {
	case types.Boolean:
		out := value{kind: kindBool}
		if v {
			out.num = 1
		}
		return c.made(out)
	case types.Long:
		return c.made(value{kind: kindLong, num: int64(v)})
	case types.String:
		return c.made(value{kind: kindString, text: string(v)})
	// What the entity has is looked up in each request.
	case types.EntityUID:
		return &c.entity(v).self
	case types.Set:
		elements := make([]slot, 0, v.Len())
		for e := range v.All() {
			elements = append(elements, slot{value: c.constant(e)})
		}
		return c.constantSet(elements)
	case types.Record:
		members := make(map[string]*value, v.Len())
		for name, member := range v.All() {
			members[string(name)] = c.constant(member)
		}
		return c.constantRecord(members)
	case types.Decimal:
		n, _ := parseDecimal(v.String())
		return c.made(value{kind: kindDecimal, num: n})
	case types.IPAddr:
		return c.made(value{kind: kindIP, text: string(ipText(nil, v.Prefix()))})
	case types.Datetime:
		return c.made(value{kind: kindDatetime, num: v.Milliseconds()})
	case types.Duration:
		return c.made(value{kind: kindDuration, num: v.ToMilliseconds()})
	default:
		panic("engine: a value of a type that Cedar does not have")
	}
}

// constantSet is a set in the order that requests' sets have as well. It changes the slice.
func (c *compiler) constantSet(elements []slot) *value {
	c.room.steps = 0 // sorting counts them, and here nobody asks
	return c.made(value{kind: kindSet, slots: slices.Clip(c.room.normalize(elements))})
}

func (c *compiler) constantRecord(members map[string]*value) *value {
	slots := make([]slot, 0, len(members))
	// Names get their numbers in an order, not in that of a Go map.
	for _, name := range slices.Sorted(maps.Keys(members)) {
		slots = append(slots, slot{name: c.symbols.name(name), value: members[name]})
	}
	sortByName(slots)
	return c.made(value{kind: kindRecord, slots: slots})
}

// entity is an entity that a condition names. It knows nothing of what requests say of it, which is found
// by [call.local] when it is asked for.
func (c *compiler) entity(uid types.EntityUID) *entity {
	number := c.symbols.entity(uid)
	if e, ok := c.entities[number]; ok {
		return e
	}
	// The hash is that by which a call finds its own entity of the same name.
	key := c.symbols.entities.list[number]
	e := &entity{uid: c.symbols.uid(number), number: number, typ: key.typ, hash: hashUID(c.symbols.seed, key.typ, key.id)}
	e.self = value{kind: kindEntity, entity: e}
	e.fromSchema(c.schema) // for requests that do not name it
	c.entities[number] = e
	c.weight += bytesOfEntity
	return e
}
