package engine

import (
	"fmt"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
)

// boolean writes an expression that is mostly of type Bool.
func (g *grove) boolean(depth int) string {
	if g.chance(2) {
		return g.long(depth)
	}
	if depth == 0 {
		return g.booleanLeaf()
	}
	d := depth - 1
	switch g.r.IntN(17) {
	case 0:
		return g.binary("&&", g.boolean(d), g.boolean(d))
	case 1:
		return g.binary("||", g.boolean(d), g.boolean(d))
	case 2:
		g.use("!")
		return "!(" + g.boolean(d) + ")"
	case 3:
		g.use("if")
		return "(if " + g.boolean(d) + " then " + g.boolean(d) + " else " + g.boolean(d) + ")"
	case 4:
		return g.binary(pick(g, []string{"<", "<=", ">", ">="}), g.long(d), g.long(d))
	case 5:
		return g.equality(d)
	case 6:
		return g.membership()
	case 7:
		return g.typeTest()
	case 8:
		return g.has()
	case 9:
		g.use("like")
		return g.text(d) + " like " + pick(g, []string{`"*"`, `"r*"`, `"*e*"`, `"a\**"`, `"x"`, `"*日*"`})
	case 10:
		return g.setTest(d)
	case 11:
		return g.tagTest(d)
	default:
		return g.extensionTest(d)
	}
}

func (g *grove) booleanLeaf() string {
	switch g.r.IntN(8) {
	case 0:
		return "false"
	case 1:
		return g.access("flag")
	case 2:
		g.use("has")
		return g.base() + " has " + pick(g, []string{"n", "owner", `"odd name"`})
	default:
		return "true"
	}
}

func (g *grove) binary(op, left, right string) string {
	g.use(op)
	return "(" + left + " " + op + " " + right + ")"
}

func (g *grove) base() string {
	return pick(g, []string{"principal", "resource", "principal", "resource", "context"})
}

func (g *grove) access(name string) string {
	g.use("access")
	if name == "odd name" || g.chance(20) {
		return g.base() + "[" + literal(types.String(name)) + "]"
	}
	return g.base() + "." + name
}

func (g *grove) long(depth int) string {
	if g.chance(2) {
		return `"not a long"`
	}
	if depth == 0 || g.chance(40) {
		return pick(g, []string{"0", "1", "2", "-1", "9223372036854775807", g.access("n"), g.access("m"), g.access("rec") + ".n"})
	}
	d := depth - 1
	switch g.r.IntN(5) {
	case 0:
		g.use("negate")
		return "-(" + g.long(d) + ")"
	case 1:
		g.use(".toDays")
		return g.span(d) + "." + pick(g, []string{"toDays", "toHours", "toMinutes", "toSeconds", "toMilliseconds"}) + "()"
	default:
		return g.binary(pick(g, []string{"+", "-", "*"}), g.long(d), g.long(d))
	}
}

func (g *grove) text(depth int) string {
	if depth > 0 && g.chance(15) {
		g.use("if")
		return "(if " + g.boolean(depth-1) + " then " + g.text(0) + " else " + g.text(0) + ")"
	}
	if g.chance(50) {
		return g.access(pick(g, []string{"s", "odd name"}))
	}
	return literal(types.String(pick(g, randomText)))
}

func (g *grove) entity() string {
	switch g.r.IntN(9) {
	case 0:
		return g.access("owner")
	case 1:
		return literal(pick(g, g.uids))
	case 2:
		return "action"
	case 8: // mostly not the request's
		g.use("an action by name")
		return literal(pick(g, g.actions))
	case 3:
		g.use("enum")
		return pick(g, []string{g.access("color"), literal(types.NewEntityUID(enumType, pick(g, enumIDs)))})
	default:
		return pick(g, []string{"principal", "resource"})
	}
}

func (g *grove) equality(d int) string {
	op := pick(g, []string{"==", "!="})
	switch g.r.IntN(7) {
	case 0:
		return g.binary(op, g.long(d), g.long(d))
	case 1:
		return g.binary(op, g.text(d), g.text(d))
	case 2:
		return g.binary(op, g.entity(), g.entity())
	case 3:
		return g.binary(op, g.set(), g.set())
	case 4:
		g.use("record")
		// One member that can fail: of two, cedar-go reports whichever its map yields first.
		return g.binary(op, g.access("rec"), fmt.Sprintf(`{n: %s, "inner": {flag: true}}`, g.long(0)))
	case 5:
		return g.binary(op, g.span(d), g.span(d))
	default:
		// Values of different types are never equal, and that is no error.
		return g.binary(op, g.long(d), g.text(d))
	}
}

func (g *grove) membership() string {
	g.use("in")
	if g.chance(50) {
		return "(" + g.entity() + " in " + g.entity() + ")"
	}
	var list []string
	for range g.r.IntN(4) {
		list = append(list, g.entity())
	}
	if g.chance(10) {
		// One element that is no entity; two of different types would make the message a matter of luck.
		list = []string{g.text(0)}
	}
	g.use("in set")
	g.use("set")
	return "(" + g.entity() + " in [" + strings.Join(list, ", ") + "])"
}

func (g *grove) typeTest() string {
	t := string(pick(g, g.types))
	if g.chance(50) {
		g.use("is")
		return "(" + g.entity() + " is " + t + ")"
	}
	g.use("is in")
	return "(" + g.entity() + " is " + t + " in " + g.entity() + ")"
}

func (g *grove) has() string {
	switch g.r.IntN(4) {
	case 0:
		g.use("extended has")
		return "(" + g.base() + " has rec.inner.flag && " + g.base() + ".rec.inner.flag)"
	case 1:
		g.use("extended has")
		return "(" + g.base() + " has " + pick(g, []string{"rec.n", "rec.missing.n", "owner.flag", "s.n"}) + ")"
	case 2:
		g.use("has")
		return "(" + pick(g, []string{"principal", "resource", literal(pick(g, g.uids)), "{n: 1}"}) + " has " + pick(g, []string{"n", "missing", `"odd name"`}) + ")"
	default:
		g.use("has")
		name := string(pick(g, attributes[:4]))
		base := g.base()
		return "(" + base + " has " + name + " && " + base + "." + name + " == " + base + "." + name + ")"
	}
}

func (g *grove) set() string {
	if g.chance(50) {
		return g.access(pick(g, []string{"tags", "set"}))
	}
	g.use("set")
	var list []string
	if g.chance(10) {
		for _, text := range g.texts() {
			list = append(list, literal(types.String(text)))
		}
	}
	for range g.r.IntN(4) {
		list = append(list, g.text(0))
	}
	if g.chance(10) {
		for _, v := range g.mixture() {
			list = append(list, literal(v))
		}
	}
	if g.chance(10) {
		list = append(list, "[1, 4]", "[2, 3]", "{a: [2, 3]}")
	}
	return "[" + strings.Join(list, ", ") + "]"
}

func (g *grove) setTest(d int) string {
	switch g.r.IntN(4) {
	case 0:
		g.use("contains")
		if g.chance(30) {
			return g.set() + ".contains(" + g.access(string(pick(g, attributes))) + ")"
		}
		return g.set() + ".contains(" + g.text(d) + ")"
	case 1:
		g.use("containsAll")
		return g.set() + ".containsAll(" + g.set() + ")"
	case 2:
		g.use("containsAny")
		return g.set() + ".containsAny(" + g.set() + ")"
	default:
		g.use("isEmpty")
		return g.set() + ".isEmpty()"
	}
}

func (g *grove) tagTest(d int) string {
	e, tag := g.entity(), g.text(0)
	if g.chance(40) {
		g.use("hasTag")
		return e + ".hasTag(" + tag + ")"
	}
	g.use("getTag")
	if g.chance(30) {
		return "(" + e + ".getTag(" + tag + ") == " + g.text(0) + ")"
	}
	g.use("hasTag")
	return "(" + e + ".hasTag(" + tag + ") && " + e + ".getTag(" + tag + ") != " + g.text(0) + ")"
}

func (g *grove) extension(fn string, valid ...string) string {
	g.use(fn)
	if g.chance(6) {
		return fn + `("not one")`
	}
	return fn + "(" + literal(types.String(pick(g, valid))) + ")"
}

func (g *grove) ip() string {
	if g.chance(40) {
		return g.access("ip")
	}
	return g.extension("ip", "127.0.0.1", "10.1.2.3", "10.0.0.0/8", "::1", "ff00::2")
}

func (g *grove) decimal() string {
	if g.chance(40) {
		return g.access("dec")
	}
	return g.extension("decimal", "1.5", "0.0", "922337203685477.5807")
}

// time avoids what is before 1970: cedar-go takes the date of such a time for the day after it, which
// the engine and the reference do not (see TestReferenceOnNamedExpressions).
func (g *grove) time(d int) string {
	if d > 0 && g.chance(30) {
		g.use("offset")
		return g.time(d-1) + ".offset(" + g.span(0) + ")"
	}
	if d > 0 && g.chance(20) {
		g.use("toDate")
		return g.time(d-1) + ".toDate()"
	}
	if g.chance(40) {
		return g.access("when")
	}
	return g.extension("datetime", "2024-01-02", "2024-01-02T03:04:05Z", "1970-01-04", "2024-01-02T03:04:05.678+0100")
}

func (g *grove) span(d int) string {
	if d > 0 && g.chance(25) {
		g.use("durationSince")
		return g.time(d-1) + ".durationSince(" + g.time(0) + ")"
	}
	if d > 0 && g.chance(20) {
		g.use("toTime")
		return g.time(d-1) + ".toTime()"
	}
	if g.chance(40) {
		return g.access("span")
	}
	return g.extension("duration", "1h", "-5m", "1d2h3m4s5ms")
}

func (g *grove) extensionTest(d int) string {
	switch g.r.IntN(6) {
	case 0:
		test := pick(g, []string{"isIpv4", "isIpv6", "isLoopback", "isMulticast"})
		g.use(test)
		return g.ip() + "." + test + "()"
	case 1:
		g.use("isInRange")
		return g.ip() + ".isInRange(" + g.ip() + ")"
	case 2:
		test := pick(g, []string{"lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual"})
		g.use(test)
		return g.decimal() + "." + test + "(" + g.decimal() + ")"
	case 3:
		return g.binary(pick(g, []string{"<", "<=", ">", ">="}), g.time(d), g.time(d))
	case 4:
		return g.binary(pick(g, []string{"<", "<=", ">", ">="}), g.span(d), g.span(d))
	default:
		unit := pick(g, []string{"toDays", "toHours", "toMinutes", "toSeconds", "toMilliseconds"})
		g.use(unit)
		return g.binary(">", g.span(d)+"."+unit+"()", g.long(0))
	}
}
