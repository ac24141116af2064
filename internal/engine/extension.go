package engine

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// construct makes an extension value of text. It reports whether that is one, as Cedar's reference
// implementation has it: cedar-go takes decimals with a plus sign and not the least duration. The errors of
// cedar-go's parsers are asked for when somebody reads them, see fault. The value is of the kind that the
// constructor makes, and its text a part of the call's room. When it reports false, v is not to be used.
func (c *call) construct(v *value, fn, text string) bool {
	switch fn {
	case "ip":
		prefix, ok := parseIP(text)
		if ok {
			v.kind, v.text = kindIP, asText(ipText(c.text.take(17)[:0], prefix))
		}
		return ok
	case "decimal":
		n, ok := parseDecimal(text)
		v.kind, v.num = kindDecimal, n
		return ok
	case "datetime":
		t, err := types.ParseDatetime(text)
		v.kind, v.num = kindDatetime, t.Milliseconds()
		return err == nil
	default:
		ms, ok := parseDuration(text)
		v.kind, v.num = kindDuration, ms
		return ok
	}
}

// parseIP is types.ParseIPAddr without the error it makes of every address that is no range. An IPv4
// address written inside of an IPv6 one is none, as in Cedar, nor is one with a zone.
func parseIP(text string) (netip.Prefix, bool) {
	if strings.Count(text, ":") >= 2 && strings.Count(text, ".") >= 2 {
		return netip.Prefix{}, false
	}
	if strings.IndexByte(text, '/') >= 0 {
		prefix, err := netip.ParsePrefix(text)
		return prefix, err == nil
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(addr, addr.BitLen()), true
}

// decimalDigits is how many digits a decimal has behind its point; it is kept as a number of their unit.
const decimalDigits = 4

// parseDecimal is types.ParseDecimal, which does not show the number, without the plus sign. A decimal of
// 1.5 is the number 15000.
func parseDecimal(text string) (int64, bool) {
	digits, negative := strings.CutPrefix(text, "-")
	whole, fraction, ok := strings.Cut(digits, ".")
	if !ok || whole == "" || fraction == "" || len(fraction) > decimalDigits {
		return 0, false
	}
	n := uint64(0)
	// The bound keeps the next digit within the 64 bits; what fits a decimal exactly is decided at the
	// end, since below zero there is one number more than above.
	for _, part := range [...]string{whole, fraction} {
		for i := range len(part) {
			digit := part[i] - '0'
			if digit > 9 || n > 1<<63/10 {
				return 0, false
			}
			n = 10*n + uint64(digit)
		}
	}
	// The digits that were not written.
	for range decimalDigits - len(fraction) {
		if n > 1<<63/10 {
			return 0, false
		}
		n *= 10
	}
	return signed(n, negative)
}

// signed is n, or its opposite, if 64 bits have it: there is one number more below zero than above.
func signed(n uint64, negative bool) (int64, bool) {
	switch {
	case negative && n <= 1<<63:
		return -int64(n), true
	case !negative && n < 1<<63:
		return int64(n), true
	default:
		return 0, false
	}
}

// durationUnits are those of a duration, in the order they must have.
var durationUnits = [...]struct {
	name string
	ms   uint64
}{{"d", millisPerDay}, {"h", millisPerHour}, {"m", millisPerMinute}, {"s", millisPerSecond}, {"ms", 1}}

// parseDuration reads pairs of a number and a unit, each unit at most once and at least one of them, with
// one sign for all (RFC 80 of Cedar). The result is in milliseconds.
func parseDuration(text string) (int64, bool) {
	rest, negative := strings.CutPrefix(text, "-")
	if rest == "" {
		return 0, false
	}
	total := uint64(0)
	for _, unit := range durationUnits {
		digits := 0
		for digits < len(rest) && '0' <= rest[digits] && rest[digits] <= '9' {
			digits++
		}
		behind, ok := strings.CutPrefix(rest[digits:], unit.name)
		if digits == 0 || !ok || unit.name == "m" && strings.HasPrefix(behind, "s") {
			continue // of a later unit, or nothing that there is
		}
		n, err := strconv.ParseUint(rest[:digits], 10, 64)
		if err != nil || n > (1<<63-total)/unit.ms {
			return 0, false
		}
		total, rest = total+n*unit.ms, behind
	}
	if rest != "" {
		return 0, false
	}
	return signed(total, negative)
}

// extensionType is the name of the type whose values a constructor makes.
func extensionType(fn string) string {
	if fn == "ip" {
		return "ipaddr"
	}
	return fn
}

// makesValue reports whether a call is of a constructor, which makes a value of an extension type from text.
func makesValue(n ast.NodeTypeExtensionCall) bool {
	switch n.Name {
	case "ip", "decimal", "datetime", "duration":
		return len(n.Args) == 1
	default:
		return false
	}
}

// arity is how many operands a function of an extension has, counting the value it is called on; 0 for
// functions that do not exist. The names are those that the grammar lets pass.
func arity(name types.Path) int {
	switch name {
	case "ip", "decimal", "datetime", "duration", "isIpv4", "isIpv6", "isLoopback", "isMulticast",
		"toDate", "toTime", "toMilliseconds", "toSeconds", "toMinutes", "toHours", "toDays":
		return 1
	case "lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual", "isInRange", "offset", "durationSince":
		return 2
	default:
		return 0
	}
}

// extensionTest compiles those that are true or false, and returns nil for others. Of the wrong number of
// arguments it returns nil as well, and leaves saying so to extensionTerm.
func (c *compiler) extensionTest(n ast.NodeTypeExtensionCall) test {
	if arity(n.Name) != len(n.Args) {
		return nil
	}
	switch n.Name {
	case "lessThan":
		return c.decimals(n, func(a, b int64) bool { return a < b })
	case "lessThanOrEqual":
		return c.decimals(n, func(a, b int64) bool { return a <= b })
	case "greaterThan":
		return c.decimals(n, func(a, b int64) bool { return a > b })
	case "greaterThanOrEqual":
		return c.decimals(n, func(a, b int64) bool { return a >= b })
	case "isIpv4":
		return c.address(n, types.IPAddr.IsIPv4)
	case "isIpv6":
		return c.address(n, types.IPAddr.IsIPv6)
	case "isLoopback":
		return c.address(n, types.IPAddr.IsLoopback)
	case "isMulticast":
		return c.address(n, types.IPAddr.IsMulticast)
	case "isInRange":
		return c.isInRange(n)
	default:
		return nil
	}
}

// decimals compares two decimals, which have methods for that and no operators.
func (c *compiler) decimals(n ast.NodeTypeExtensionCall, op func(a, b int64) bool) test {
	left, right := c.term(n.Args[0]), c.term(n.Args[1])
	return func(c *call) verdict {
		c.steps++
		l, r := c.wantBoth(left, right, kindDecimal, kindDecimal, wantDecimal, wantDecimal)
		if r == nil {
			return failed
		}
		return verdictIf(op(l.num, r.num))
	}
}

// address asks something of one address or range.
func (c *compiler) address(n ast.NodeTypeExtensionCall, is func(types.IPAddr) bool) test {
	of := c.term(n.Args[0])
	return func(c *call) verdict {
		c.steps++
		v := c.want(of, kindIP, wantIP)
		if v == nil {
			return failed
		}
		return verdictIf(is(v.ip()))
	}
}

// isInRange asks whether the range on the right contains all of the one on the left. An address is a range
// of one; one of the other family is in none.
func (c *compiler) isInRange(n ast.NodeTypeExtensionCall) test {
	left, right := c.term(n.Args[0]), c.term(n.Args[1])
	return func(c *call) verdict {
		c.steps++
		l, r := c.wantBoth(left, right, kindIP, kindIP, wantIP, wantIP)
		if r == nil {
			return failed
		}
		return verdictIf(r.ip().Contains(l.ip()))
	}
}

const (
	// Datetimes and durations are kept in milliseconds. All days have 24 hours.
	millisPerSecond = 1000
	millisPerMinute = 60 * millisPerSecond
	millisPerHour   = 60 * millisPerMinute
	millisPerDay    = 24 * millisPerHour
)

// extensionTerm compiles those that make a value.
func (c *compiler) extensionTerm(n ast.NodeTypeExtensionCall) term {
	// The grammar leaves the number of a method's arguments to evaluation, as Cedar does: such a policy is
	// stored and fails each time it is asked.
	switch want := arity(n.Name); want {
	case 0:
		return c.never("function does not exist: " + string(n.Name))
	case len(n.Args):
	default:
		return c.never(fmt.Sprintf("wrong number of arguments provided to extension function: %s takes %d parameter(s), but %d provided", n.Name, want, len(n.Args)))
	}
	switch n.Name {
	case "toDate":
		return c.toDate(n)
	case "toTime":
		return c.convert(n, kindDatetime, wantDatetime, kindDuration, timeOfDay)
	case "toMilliseconds":
		return c.convert(n, kindDuration, wantDuration, kindLong, func(ms int64) int64 { return ms })
	case "toSeconds":
		return c.convert(n, kindDuration, wantDuration, kindLong, func(ms int64) int64 { return ms / millisPerSecond })
	case "toMinutes":
		return c.convert(n, kindDuration, wantDuration, kindLong, func(ms int64) int64 { return ms / millisPerMinute })
	case "toHours":
		return c.convert(n, kindDuration, wantDuration, kindLong, func(ms int64) int64 { return ms / millisPerHour })
	case "toDays":
		return c.convert(n, kindDuration, wantDuration, kindLong, func(ms int64) int64 { return ms / millisPerDay })
	case "offset":
		return c.shift(n, kindDuration, wantDuration, kindDatetime, add, faultOffset)
	case "durationSince":
		return c.shift(n, kindDatetime, wantDatetime, kindDuration, subtract, faultSince)
	default:
		return c.constructor(n)
	}
}

// never is an expression that can't be evaluated. Its operands are not looked at. The words are those of
// cedar-go's evaluator, given whole.
func (c *compiler) never(message string) term {
	return func(c *call) *value {
		c.steps++
		c.fault = fault{code: faultCall, text: message}
		return nil
	}
}

// constructor makes a value of text: once and for all of a literal, else each time. A literal that is no
// such value is kept as an expression that fails, so that the policies beside it decide as ever.
func (c *compiler) constructor(n ast.NodeTypeExtensionCall) term {
	if v := c.literalOf(n); v != nil {
		return c.literal(v)
	}
	fn, of := string(n.Name), c.term(n.Args[0])
	return func(c *call) *value {
		c.steps++
		text := c.want(of, kindString, wantString)
		if text == nil {
			return nil
		}
		// Reading the text counts by its length, and the value is made before it is known to be one.
		c.steps += textSize(len(text.text))
		v := c.result(kindBool, 0) // construct says what it is
		if !c.construct(v, fn, text.text) {
			// The text is kept for the message, which is made when the answer is put together.
			c.fault = fault{code: faultConstructor, text: text.text, of: fn}
			return nil
		}
		return v
	}
}

// convert makes a number of a datetime or duration another one. The divisions cut off towards zero.
func (c *compiler) convert(n ast.NodeTypeExtensionCall, from kind, want string, to kind, op func(int64) int64) term {
	of := c.term(n.Args[0])
	return func(c *call) *value {
		c.steps++
		v := c.want(of, from, want)
		if v == nil {
			return nil
		}
		return c.result(to, op(v.num))
	}
}

// timeOfDay is how far a datetime is into its day, also before 1970. (cedar-go counts back from the day's
// end there; the reference does not.)
func timeOfDay(ms int64) int64 {
	if ms %= millisPerDay; ms < 0 {
		ms += millisPerDay
	}
	return ms
}

// toDate is the beginning of a datetime's day. The first representable day has no beginning that fits.
func (c *compiler) toDate(n ast.NodeTypeExtensionCall) term {
	of := c.term(n.Args[0])
	return func(c *call) *value {
		c.steps++
		v := c.want(of, kindDatetime, wantDatetime)
		if v == nil {
			return nil
		}
		ms, fits := subtract(v.num, timeOfDay(v.num))
		if !fits {
			c.fault = fault{code: faultOffset}
			return nil
		}
		return c.result(kindDatetime, ms)
	}
}

// shift adds to a datetime, or finds what is between two. The left operand is a datetime in both, the
// right one of the kind given.
func (c *compiler) shift(n ast.NodeTypeExtensionCall, by kind, want string, to kind, op func(a, b int64) (int64, bool), overflow faultCode) term {
	left, right := c.term(n.Args[0]), c.term(n.Args[1])
	return func(c *call) *value {
		c.steps++
		l, r := c.wantBoth(left, right, kindDatetime, by, wantDatetime, want)
		if r == nil {
			return nil
		}
		ms, fits := op(l.num, r.num)
		if !fits {
			c.fault = fault{code: overflow}
			return nil
		}
		return c.result(to, ms)
	}
}
