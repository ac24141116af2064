package engine

import (
	"math"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// validationWeight is what typechecking a policy in one request environment costs, in steps of about
// 100 ns: its nodes, and where cedar-go's typechecker does more for a node than look at it, that. The
// figures are measured; several of its habits are quadratic or worse, so that a policy of a few hundred
// bytes could keep it busy for hours. It is computed before the typechecker sees the policy, and saturates
// instead of overflowing.
func (c *typeCosts) validationWeight(p *ast.Policy) uint64 {
	w := validationWeigher{costs: c}
	deepest := 0
	for _, condition := range p.Conditions {
		w.expression(condition.Body)
		deepest = max(deepest, isInNesting(condition.Body))
	}
	// The head counts three. The findings of each branch are copied into those of the whole.
	w.total = plus(w.total, 3+w.nodes+w.nodes*w.nodes/128)
	// Each && merges what its left side knows to exist into what is known, comparing each with each.
	w.total = plus(w.total, times(w.guards*w.guards, w.guarded)/8)
	w.total = plus(w.total, times(w.contexts*8, uint64(c.context)))
	// `is in` reports the findings of its left side twice.
	return times(w.total, 1<<deepest)
}

// validationWeigher goes once over the conditions of a policy.
type validationWeigher struct {
	costs    *typeCosts
	nodes    uint64
	total    uint64 // what nodes weigh beyond one each
	guards   uint64 // has and hasTag
	guarded  uint64 // nodes they guard
	contexts uint64 // uses of context as a whole
}

// expression adds what one condition weighs.
func (w *validationWeigher) expression(body ast.IsNode) {
	ast.Inspect(ast.NewNode(body), func(n ast.IsNode) bool {
		w.nodes++
		switch n := n.(type) {
		case ast.NodeTypeAccess:
			w.total = plus(w.total, w.costs.access(n.Value), w.chain(n))
			w.member(n.Arg)
		case ast.NodeTypeGetTag:
			w.total = plus(w.total, uint64(w.costs.tag), tagText(n.Right))
		case ast.NodeTypeHas:
			w.guards++
			w.guarded += nodes(n.Arg)
			w.member(n.Arg)
		case ast.NodeTypeHasTag:
			w.guards++
			w.guarded += nodes(n.Left) + nodes(n.Right)
		case ast.NodeTypeVariable:
			if n.Name == "context" {
				w.contexts++
			}
		case ast.NodeTypeIn:
			w.total = plus(w.total, w.membership(n.Left, n.Right))
		case ast.NodeTypeIsIn:
			w.total = plus(w.total, w.membership(n.Left, n.Entity))
		}
		return true
	})
}

// member takes back one use of context as a whole: reading a member of it is cheap.
func (w *validationWeigher) member(of ast.IsNode) {
	if v, ok := of.(ast.NodeTypeVariable); ok && v.Name == "context" {
		// The variable itself is visited after its parent, so this may pass through zero.
		w.contexts--
	}
}

// access weighs reading an attribute: its type is written out each time.
func (c *typeCosts) access(name types.String) uint64 {
	if size := c.attribute[name]; size > 1 {
		return 8 * uint64(size)
	}
	return 0
}

// chain weighs an access to an attribute of an attribute: to word its finding about an unguarded
// optional attribute, cedar-go checks every prefix again, which does the same for its own prefixes.
func (w *validationWeigher) chain(n ast.NodeTypeAccess) uint64 {
	weight := uint64(1)
	// From the outermost attribute inwards: each optional one more than doubles what was found so far.
	for {
		if w.costs.optional[n.Value] {
			weight = weight*5/2 + 1
		}
		inner, ok := n.Arg.(ast.NodeTypeAccess)
		if !ok {
			return weight - 1
		}
		n = inner
	}
}

// tagText weighs the text of a tag's name in a finding: an if with a constant condition is written
// with the branch taken in both places. n is the expression of that name.
func tagText(n ast.IsNode) uint64 {
	return times(nodes(n), 1<<nesting(n, func(n ast.IsNode) []ast.IsNode {
		if v, ok := n.(ast.NodeTypeIfThenElse); ok {
			return []ast.IsNode{v.If, v.Then, v.Else}
		}
		return nil
	}))
}

// isInNesting is how deep `is in` stands inside of `is in`.
func isInNesting(n ast.IsNode) int {
	return nesting(n, func(n ast.IsNode) []ast.IsNode {
		if v, ok := n.(ast.NodeTypeIsIn); ok {
			return []ast.IsNode{v.Left, v.Entity}
		}
		return nil
	})
}

// nesting is how many nodes of a kind contain one another; children returns the children of such a
// node and nothing for others. The grammar's maxNesting bounds it, and 60 is more than any budget.
func nesting(n ast.IsNode, children func(ast.IsNode) []ast.IsNode) int {
	deepest := 0
	ast.Inspect(ast.NewNode(n), func(n ast.IsNode) bool {
		inside := children(n)
		for _, child := range inside {
			deepest = max(deepest, 1+nesting(child, children))
		}
		return inside == nil
	})
	return min(deepest, 60)
}

// membership weighs `in`: a walk up the entity types, or one over all actions for each action named. Each
// mention of an action counts as one named, also where it is part of something larger.
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
func nodes(n ast.IsNode) uint64 {
	total := uint64(0)
	ast.Inspect(ast.NewNode(n), func(ast.IsNode) bool {
		total++
		return true
	})
	return total
}

// times multiplies without overflowing, like plus.
func times(a, b uint64) uint64 {
	if a != 0 && b > math.MaxUint64/a {
		return math.MaxUint64
	}
	return a * b
}
