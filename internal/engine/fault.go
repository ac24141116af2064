package engine

import (
	"fmt"

	"github.com/cedar-policy/cedar-go/types"
)

// fault is why an expression could not be evaluated: what is needed to say it, and not yet said: that is
// done when the answer is put together, outside of evaluation. The words are cedar-go's, so that ours can be held
// against its.
type fault struct {
	code   faultCode
	value  *value  // that has not the type wanted
	entity *entity // that has not what was asked of it
	name   uint32  // of an attribute
	a, b   int64   // that do not fit
	text   string  // of a tag, an extension value, a type wanted, or the whole message
	of     string  // the constructor that does not take the text
}

// faultCode says which of the sentences of [call.message] it is, and so which members of a fault are set.
type faultCode uint8

const (
	noFault faultCode = iota
	faultType
	faultComparison
	faultComparisonJoined
	// The entity is not defined, or lacks what was asked of it; a record lacks a member.
	faultNoEntity
	faultNoAttribute
	faultNoMember
	faultNoTag
	// Arithmetic that leaves the 64 bits of a Long. Of the first four, a and b are the operands; datetimes
	// and durations are not shown.
	faultAdd
	faultSubtract
	faultMultiply
	faultNegate
	faultOffset
	faultSince
	// Text that is no value of an extension type, and a call that no arguments could save.
	faultConstructor
	faultCall
	// The budget ended in the middle of an expression. It is not shown: the answer says that the whole
	// decision was cut short.
	faultBudget
)

const overflow = "integer overflow while attempting to "

// message says what went wrong. The result is a text of its own, which may be as long as what it quotes:
// who answers with it clips it. The call must not be released yet, for faults refer to its values and
// names.
func (c *call) message(f *fault) string {
	switch f.code {
	case faultType:
		return "type error: expected " + f.text + " got " + typeName(f.value)
	case faultComparison:
		return "type error: incompatible types in comparison"
	case faultComparisonJoined: // cedar-go puts them together differently for >=
		return "type error\nincompatible types in comparison"
	case faultNoEntity:
		return "entity `" + f.entity.uid.String() + "` does not exist"
	case faultNoAttribute:
		return "`" + f.entity.uid.String() + "` does not have the attribute `" + c.nameText(f.name) + "`"
	case faultNoMember:
		return "record does not have the attribute `" + c.nameText(f.name) + "`"
	case faultNoTag:
		return "`" + f.entity.uid.String() + "` does not have the tag `" + f.text + "`"
	case faultAdd:
		return fmt.Sprintf(overflow+"add `%d` with `%d`", f.a, f.b)
	case faultSubtract:
		return fmt.Sprintf(overflow+"subtract `%d` from `%d`", f.b, f.a)
	case faultMultiply:
		return fmt.Sprintf(overflow+"multiply `%d` by `%d`", f.a, f.b)
	case faultNegate:
		return fmt.Sprintf(overflow+"negate `%d`", f.a)
	case faultOffset:
		return overflow + "compute datetime offset"
	case faultSince:
		return overflow + "compute durationSince"
	case faultConstructor:
		return constructorError(f.of, f.text)
	case faultBudget:
		return overBudget
	default:
		return f.text
	}
}

// constructorError asks cedar-go's parser once more, for its words: ours has none.
func constructorError(fn, text string) string {
	var err error
	switch fn {
	case "ip":
		_, err = types.ParseIPAddr(text)
	case "decimal":
		_, err = types.ParseDecimal(text)
	case "datetime":
		_, err = types.ParseDatetime(text)
	default:
		_, err = types.ParseDuration(text)
	}
	if err == nil { // ours are Cedar's where cedar-go's take more
		return "this is no " + extensionType(fn)
	}
	return err.Error()
}

// typeName is what evaluation errors call the type of a value. The words are those of cedar-go's
// evaluator, which differ from the ones in schemas: bool, IP.
func typeName(v *value) string {
	switch v.kind {
	case kindBool:
		return "bool"
	case kindLong:
		return "long"
	case kindString:
		return "string"
	case kindEntity:
		return "(entity of type `" + string(v.entity.uid.Type) + "`)"
	case kindSet:
		return "set"
	case kindRecord:
		return "record"
	case kindDecimal:
		return "decimal"
	case kindIP:
		return "IP"
	case kindDatetime:
		return "datetime"
	default:
		return "unknown type"
	}
}

// What expressions want of their operands, with the comma that cedar-go writes but for records.
const (
	wantBool       = "bool,"
	wantLong       = "long,"
	wantString     = "string,"
	wantSet        = "set,"
	wantEntity     = "(entity of type `any_entity_type`),"
	wantComparable = "comparable value,"
	wantMembers    = "one of [record, (entity of type `any_entity_type`)],"
	wantPlace      = "one of [set, (entity of type `any_entity_type`)],"
	wantDecimal    = "decimal,"
	wantIP         = "ipaddr,"
	wantDatetime   = "datetime,"
	wantDuration   = "duration,"
)
