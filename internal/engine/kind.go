package engine

import (
	"github.com/cedar-policy/cedar-go/types"
)

// kind is the type of a Cedar value, as far as it is known without looking inside.
type kind uint8

const (
	kindBool kind = iota
	kindLong
	kindString
	kindEntity
	kindSet
	kindRecord
	kindDecimal
	kindIP
	kindDatetime
	kindDuration
)

// kindNames are Cedar's names of the types, as schemas write them.
var kindNames = [...]string{"Bool", "Long", "String", "entity", "Set", "record", "decimal", "ipaddr", "datetime", "duration"}

func (k kind) String() string { return kindNames[k] }

// isNumber reports whether cedar-go hashes values of the kind to different numbers.
func (k kind) isNumber() bool {
	switch k {
	case kindBool, kindLong, kindDecimal, kindDatetime, kindDuration:
		return true
	default:
		return false
	}
}

// constructor is the function that makes values of an extension type from text.
func (k kind) constructor() string {
	if k == kindIP {
		return "ip"
	}
	return kindNames[k]
}

func kindOf(v types.Value) kind {
	switch v.(type) {
	case types.Boolean:
		return kindBool
	case types.Long:
		return kindLong
	case types.String:
		return kindString
	case types.EntityUID:
		return kindEntity
	case types.Set:
		return kindSet
	case types.Decimal:
		return kindDecimal
	case types.IPAddr:
		return kindIP
	case types.Datetime:
		return kindDatetime
	case types.Duration:
		return kindDuration
	default:
		return kindRecord
	}
}
