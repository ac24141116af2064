package engine

// kind is the type of a Cedar value, as far as it is known without looking inside. The order matters:
// elements of sets are sorted by it first, and the extension types come last.
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

// constructor is the function that makes values of an extension type from text.
func (k kind) constructor() string {
	if k == kindIP {
		return "ip"
	}
	return kindNames[k]
}
