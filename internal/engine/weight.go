package engine

import (
	"unsafe"

	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
)

// Bytes that parts of a snapshot hold, measured on a 64-bit machine. TestWeightIsHonest compares their
// sum with the heap.
const (
	bytesOfSnapshot = 600
	bytesOfProgram  = 64
	bytesOfNode     = 24
	bytesOfValue    = 64
	bytesOfEntity   = 256
	bytesOfPattern  = 96
	bytesOfBucket   = 36

	bytesOfSchema    = 4500
	bytesOfType      = 350
	bytesOfAction    = 700
	bytesOfEnumValue = 55
	bytesOfRecord    = 420
	bytesOfMember    = 122
	bytesOfReference = 60 // to a type or action
)

// weigh adds up what a snapshot holds. Programs that policies share count once.
func (s *Snapshot) weigh() int64 {
	total := int64(bytesOfSnapshot) + s.named + s.index.weight()
	if s.schema != nil {
		total += s.schema.weight
	}
	total += int64(cap(s.policies)) * int64(unsafe.Sizeof(compiled{}))
	// Links share programs, and so do policies without conditions.
	counted := make(map[*program]bool)
	for i := range s.policies {
		p := &s.policies[i]
		total += sizeClass(len(p.ref.ID)) + sizeClass(len(p.ref.Name))
		if !counted[p.program] {
			counted[p.program] = true
			total += p.program.weight
		}
	}
	return total
}

// weight is of the entries, the table of buckets and the tables of uses.
func (x *index) weight() int64 {
	// A byte for each number in the tables of uses.
	return int64(cap(x.entries))*int64(unsafe.Sizeof(indexEntry{})) + bytesOfBucket*int64(len(x.buckets)) +
		int64(len(x.uses)+len(x.typeUses))
}

// sizeClass is about what the allocator takes for n bytes. It rounds up to whole words, and of larger ones
// adds what is lost to classes of sizes.
func sizeClass(n int) int64 {
	switch {
	case n == 0:
		return 0
	case n <= 64:
		return int64(n+7) &^ 7
	default:
		return int64(n) + int64(n)/16
	}
}

// weigh counts a schema's declarations, written out as it holds them, and twice: as cedar-go resolved
// them and as shapes.
func (s *Schema) weigh() int64 {
	total := int64(bytesOfSchema + len(s.json))
	for _, e := range s.resolved.Entities {
		total += bytesOfType + weightOfType(e.Shape)
		if e.Tags != nil {
			total += weightOfType(e.Tags)
		}
	}
	for _, above := range s.typeAncestors {
		total += int64(len(above)) * bytesOfReference
	}
	for _, e := range s.resolved.Enums {
		total += bytesOfType + int64(len(e.Values))*bytesOfEnumValue
	}
	for uid, a := range s.resolved.Actions {
		total += bytesOfAction + int64(len(s.actionAncestors[uid]))*bytesOfReference
		if a.AppliesTo != nil {
			total += weightOfType(a.AppliesTo.Context) + int64(len(a.AppliesTo.Principals)+len(a.AppliesTo.Resources))*bytesOfReference
		}
	}
	return total
}

// weightOfType is what a type holds beyond its place in what it is in. Simple types hold nothing more.
func weightOfType(t resolved.IsType) int64 {
	switch t := t.(type) {
	case resolved.SetType:
		return bytesOfMember/2 + weightOfType(t.Element)
	case resolved.RecordType:
		if len(t) == 0 {
			return bytesOfRecord / 4
		}
		total := int64(bytesOfRecord)
		for _, attr := range t {
			total += bytesOfMember + weightOfType(attr.Type)
		}
		return total
	default:
		return 0
	}
}
