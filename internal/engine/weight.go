package engine

import (
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
)

// Bytes that parts of a snapshot hold, measured on a 64-bit machine: cedar-go's tree, its folded copy
// and the evaluator built from it, and the index. TestWeightIsHonest compares their sum with the heap.
const (
	bytesOfSnapshot    = 1000
	bytesOfPolicy      = 280
	bytesOfTypeTest    = 120
	bytesOfEntityTest  = 260
	bytesOfList        = 420
	bytesOfListElement = 115
	bytesOfNode        = 60
	bytesOfAnnotation  = 64

	bytesOfSchema    = 4500
	bytesOfType      = 350
	bytesOfAction    = 700
	bytesOfEnumValue = 55
	bytesOfRecord    = 500
	bytesOfMember    = 150
	bytesOfReference = 60 // to a type or action
)

func (s *Snapshot) weigh() int64 {
	total := int64(bytesOfSnapshot)
	if s.schema != nil {
		total += s.schema.weight
	}
	for i := range s.policies {
		p := &s.policies[i]
		total += int64(len(p.ref.ID)+len(p.ref.Name)) + weightOf((*ast.Policy)(p.policy.AST()))
	}
	return total
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

func weightOf(p *ast.Policy) int64 {
	total := int64(bytesOfPolicy)
	for _, a := range p.Annotations {
		total += bytesOfAnnotation + int64(len(a.Key)+len(a.Value))
	}
	for _, scope := range []ast.IsScopeNode{p.Principal, p.Action, p.Resource} {
		switch n := scope.(type) {
		case ast.ScopeTypeEq, ast.ScopeTypeIn:
			total += bytesOfEntityTest + int64(len(scopeEntity(n).ID))
		case ast.ScopeTypeIs:
			total += bytesOfTypeTest
		case ast.ScopeTypeIsIn:
			total += bytesOfTypeTest + bytesOfEntityTest + int64(len(n.Entity.ID))
		case ast.ScopeTypeInSet:
			total += bytesOfList
			for _, e := range n.Entities {
				total += bytesOfListElement + int64(len(e.ID))
			}
		}
	}
	for _, condition := range p.Conditions {
		ast.Inspect(ast.NewNode(condition.Body), func(n ast.IsNode) bool {
			total += bytesOfNode
			switch n := n.(type) {
			case ast.NodeTypeLike:
				total += int64(len(n.Value.MarshalCedar()))
			case ast.NodeValue:
				switch v := n.Value.(type) {
				case types.String:
					total += int64(len(v))
				case types.EntityUID:
					total += int64(len(v.Type) + len(v.ID))
				}
			}
			return true
		})
	}
	return total
}
