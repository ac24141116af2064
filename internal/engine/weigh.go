package engine

import (
	"math"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// validationWeight is what typechecking a policy in one request environment costs, in steps of about
// 100 ns: its nodes, and where cedar-go's typechecker does more for a node than look at it, that.
func (c *typeCosts) validationWeight(p *ast.Policy) uint64 {
	w := validationWeigher{costs: c, total: 3}
	for _, condition := range p.Conditions {
		w.expression(condition.Body)
	}
	// Each && merges what its left side knows to exist into what is known, comparing each with each.
	guards := uint64(w.guards)
	return plus(w.total, times(guards*guards, uint64(w.guarded))/64)
}

type validationWeigher struct {
	costs   *typeCosts
	total   uint64
	guards  int // has and hasTag
	guarded int // nodes they guard
}

func (w *validationWeigher) expression(body ast.IsNode) {
	ast.Inspect(ast.NewNode(body), func(n ast.IsNode) bool {
		w.total = plus(w.total, 1)
		switch n := n.(type) {
		case ast.NodeTypeAccess:
			w.total = plus(w.total, uint64(w.costs.attribute[n.Value]), w.chain(n))
		case ast.NodeTypeGetTag:
			w.total = plus(w.total, uint64(w.costs.tag))
		case ast.NodeTypeHas:
			w.guards++
			w.guarded += nodes(n.Arg)
		case ast.NodeTypeHasTag:
			w.guards++
			w.guarded += nodes(n.Left) + nodes(n.Right)
		case ast.NodeTypeVariable:
			if n.Name == "context" {
				w.total = plus(w.total, uint64(w.costs.context)/64)
			}
		case ast.NodeTypeIn:
			w.total = plus(w.total, w.membership(n.Left, n.Right))
		case ast.NodeTypeIsIn:
			w.total = plus(w.total, w.membership(n.Left, n.Entity))
		}
		return true
	})
}

// chain weighs an access to an attribute of an attribute: to word its finding about an unguarded
// optional attribute, cedar-go checks every prefix again, which does the same for its own prefixes.
func (w *validationWeigher) chain(n ast.NodeTypeAccess) uint64 {
	weight := uint64(1)
	for {
		if w.costs.optional[n.Value] {
			weight = times(weight, 3)
		}
		inner, ok := n.Arg.(ast.NodeTypeAccess)
		if !ok {
			return weight - 1
		}
		n = inner
	}
}

// membership weighs `in`: a walk up the entity types, or one over all actions for each action named.
func (w *validationWeigher) membership(left, right ast.IsNode) uint64 {
	actions := 0
	for _, side := range []ast.IsNode{left, right} {
		ast.Inspect(ast.NewNode(side), func(n ast.IsNode) bool {
			switch n := n.(type) {
			case ast.NodeValue:
				if uid, ok := n.Value.(types.EntityUID); ok && isActionType(uid.Type) {
					actions++
				}
			case ast.NodeTypeVariable:
				if n.Name == "action" {
					actions++
				}
			}
			return true
		})
	}
	return plus(uint64(w.costs.typeWalk), times(uint64(actions), uint64(w.costs.actions)))
}

// nodes counts an expression.
func nodes(n ast.IsNode) int {
	total := 0
	ast.Inspect(ast.NewNode(n), func(ast.IsNode) bool {
		total++
		return true
	})
	return total
}

func times(a, b uint64) uint64 {
	if a != 0 && b > math.MaxUint64/a {
		return math.MaxUint64
	}
	return a * b
}

// evaluationCost is the nodes of a policy, more for a pattern, which is tried at each byte of the
// text, and for a list that cedar-go builds by comparing each with each. Its scope costs one.
func evaluationCost(p *ast.Policy) uint64 {
	total := uint64(1)
	for _, condition := range p.Conditions {
		ast.Inspect(ast.NewNode(condition.Body), func(n ast.IsNode) bool {
			total++
			switch n := n.(type) {
			case ast.NodeTypeLike:
				total += uint64(len(n.Value.MarshalCedar())) / 16
			case ast.NodeTypeSet:
				square := uint64(len(n.Elements)) * uint64(len(n.Elements))
				total += square / 16
			}
			return true
		})
	}
	return total
}
