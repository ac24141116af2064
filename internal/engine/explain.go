package engine

import (
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/copse-authz/copse"
)

// Explain decides as [Snapshot.Decide] does, and tells what each part of the policies came to. policy
// returns a policy as it was compiled, for a snapshot keeps neither texts nor trees; its errors end the
// explanation. Of a decision that went over its budget nothing is explained.
//
// Each part that is shown is compiled by itself and evaluated again, so an explanation costs several
// decisions. What the parts come to is held against the decision: an explanation that does not agree
// with it is an error, and is not shown. policy is called once for each policy that is shown, before any
// part is evaluated, and its errors are returned as they are; with any error the Explanation is its zero
// value.
func (s *Snapshot) Explain(req *copse.Request, policy func(copse.PolicyID) (*Policy, error)) (copse.Explanation, error) {
	out, found, err := s.decideToExplain(req)
	if err != nil || out.OverBudget {
		return out, err
	}
	// Those that matched come first, for they decided.
	shown := slices.Clip(found.matching[:min(len(found.matching), copse.MaxExplainedPolicies)])
	out.LeftOut = len(found.matching) - len(shown)
	// In a small policy store the others are shown too: often the question is why a policy did not apply.
	if len(s.policies) <= copse.MaxExplainedPolicies {
		for i := range s.policies {
			if _, matches := found.outcomes[uint32(i)]; !matches {
				shown = append(shown, uint32(i))
			}
		}
	}
	p := newPlanner(s.schema)
	plans := make([]*plan, len(shown))
	for i, number := range shown {
		// What the snapshot has is compiled as a whole, so the policy is read again, and its parts
		// compiled one by one.
		compiled := &s.policies[number]
		parsed, err := policy(compiled.ref.ID)
		if err != nil {
			return copse.Explanation{}, err
		}
		_, matches := found.outcomes[number]
		if plans[i], err = p.plan(compiled.ref, parsed, matches); err != nil {
			return copse.Explanation{}, err
		}
	}
	// The symbols are complete only now, and a request is read with them.
	c := newCall(&Snapshot{schema: s.schema, settings: s.settings, symbols: p.compiler.symbols}, req)
	defer c.release()
	if err := c.decode(); err != nil {
		return copse.Explanation{}, err
	}
	for i, plan := range plans {
		explained := c.explainPolicy(plan)
		// Whatever made the two differ, nothing that is not true is shown.
		if !plan.settle(&explained, found.outcomes[shown[i]]) {
			return copse.Explanation{}, copse.Errorf(copse.Internal, "the explanation of policy %q is not what was decided", plan.ref.ID)
		}
		out.Policies = append(out.Policies, explained)
	}
	return out, nil
}

// candidates is what a decision says of the policies whose scope matched, by their numbers, which are in the
// order of their ids. A policy that is not in outcomes did not match: what a map returns for it is
// NotEvaluated.
type candidates struct {
	matching []uint32
	outcomes map[uint32]copse.Outcome
}

// decideToExplain decides like [Snapshot.Decide], by the same code, and copies what explaining needs of
// the call before its room is given back.
func (s *Snapshot) decideToExplain(req *copse.Request) (copse.Explanation, candidates, error) {
	c := newCall(s, req)
	defer c.release()
	if err := c.answer(); err != nil {
		return copse.Explanation{}, candidates{}, err
	}
	out := candidates{matching: slices.Clone(c.found), outcomes: make(map[uint32]copse.Outcome, len(c.found))}
	for _, i := range c.found {
		out.outcomes[i] = copse.False
	}
	// A policy that matched and was neither satisfied nor a failure came to false.
	for _, satisfied := range [][]uint32{c.permits, c.forbids} {
		for _, i := range satisfied {
			out.outcomes[i] = copse.True
		}
	}
	for i := range c.failed {
		out.outcomes[c.failed[i].policy] = copse.Failed
	}
	return copse.Explanation{Response: c.response()}, out, nil
}

// plan is a policy on its way to being explained. cut: it has parts that are not shown.
type plan struct {
	ref        copse.PolicyRef
	policy     *Policy
	scope      []*part
	conditions []*part
	cut        bool
}

// part is a piece of a policy that is shown by itself. It has parts of its own, which its operator joins,
// or it is evaluated whole. Either parts and operator are set or test is. operands are those whose values
// are worth showing.
type part struct {
	// It is never empty: its first token is the part's place.
	clause   clause
	bound    types.EntityUID // in its slot
	operator string
	parts    []*part
	test     test
	operands []operand
}

// operand is what an expression compares, and where that stands in the text.
type operand struct {
	clause clause
	term   term
}

// planner compiles the parts of all policies that are shown, with symbols of its own: those of the
// snapshot don't grow.
type planner struct {
	compiler compiler
	room     int // for parts of the policy at hand
	cut      bool
}

func newPlanner(schema *Schema) *planner {
	symbols := newSymbols()
	if schema != nil {
		symbols = schema.symbols.clone()
	}
	return &planner{compiler: newCompiler(symbols, schema)}
}

// plan cuts one policy into parts and compiles them. Of one whose scope does not match only the scope is,
// for Cedar evaluates no more of it. An error means that text and tree were cut differently, which would
// be a defect.
func (p *planner) plan(ref copse.PolicyRef, policy *Policy, matches bool) (*plan, error) {
	text, ok := layOut(policy.text)
	if !ok || len(text.conditions) != len(policy.tree.Conditions) {
		return nil, copse.Errorf(copse.Internal, "the text of policy %q is not that of its tree", ref.ID)
	}
	out := &plan{ref: ref, policy: policy}
	for i, side := range []struct {
		name  string
		scope ast.IsScopeNode
	}{{"principal", policy.tree.Principal}, {"action", policy.tree.Action}, {"resource", policy.tree.Resource}} {
		out.scope = append(out.scope, p.scope(side.name, side.scope, text.scope[i]))
	}
	p.room, p.cut = copse.MaxExplainedParts, false
	for i, condition := range policy.tree.Conditions {
		// A condition takes itself and what stands in its braces.
		if p.room -= 2; p.room < 0 {
			p.cut = true
			break
		}
		s := text.conditions[i]
		part := &part{clause: s, operator: "when"}
		if condition.Condition == ast.ConditionUnless {
			part.operator = "unless"
		}
		if matches {
			part.parts = append(part.parts, p.part(condition.Body, s[2:len(s)-1]))
		}
		out.conditions = append(out.conditions, part)
	}
	out.cut = p.cut
	return out, nil
}

// scope makes the expression that a scope stands for. The index settles scopes without an expression, so
// the one here is evaluated to be held against it.
func (p *planner) scope(name string, scope ast.IsScopeNode, s clause) *part {
	variable := ast.NodeTypeVariable{Name: types.String(name)}
	var n ast.IsNode
	switch scope := scope.(type) {
	case ast.ScopeTypeEq:
		n = ast.NodeTypeEquals{BinaryNode: ast.BinaryNode{Left: variable, Right: ast.NodeValue{Value: scope.Entity}}}
	case ast.ScopeTypeIn:
		n = ast.NodeTypeIn{BinaryNode: ast.BinaryNode{Left: variable, Right: ast.NodeValue{Value: scope.Entity}}}
	case ast.ScopeTypeInSet:
		elements := make([]types.Value, len(scope.Entities))
		for i, e := range scope.Entities {
			elements[i] = e
		}
		n = ast.NodeTypeIn{BinaryNode: ast.BinaryNode{Left: variable, Right: ast.NodeValue{Value: types.NewSet(elements...)}}}
	case ast.ScopeTypeIs:
		n = ast.NodeTypeIs{Left: variable, EntityType: scope.Type}
	case ast.ScopeTypeIsIn:
		n = ast.NodeTypeIsIn{NodeTypeIs: ast.NodeTypeIs{Left: variable, EntityType: scope.Type}, Entity: ast.NodeValue{Value: scope.Entity}}
	default:
		n = ast.NodeValue{Value: types.True}
	}
	out := p.whole(n, s)
	// Of a link's slot the text shows the entity that fills it.
	out.bound = scopeEntity(scope)
	return out
}

// part goes into an expression as far as its operators decide which parts are evaluated. Where the text
// can't be cut like the tree, as for `has a.b`, which cedar-go writes out, it is shown whole.
func (p *planner) part(n ast.IsNode, s clause) *part {
	s = s.unwrap()
	operator, nodes, clauses := cut(n, s)
	if len(nodes) < 1 || len(nodes) != len(clauses) {
		return p.whole(n, s)
	}
	// Too many parts: this one is evaluated whole, and so are all behind it.
	if p.room -= len(nodes); p.room < 0 {
		p.room, p.cut = 0, true
		return p.whole(n, s)
	}
	// Each part may be an operator again.
	out := &part{clause: s, operator: operator}
	for i := range nodes {
		out.parts = append(out.parts, p.part(nodes[i], clauses[i]))
	}
	return out
}

// cut takes an expression apart at the operator that comes last. It returns as many clauses as nodes, or
// what the caller takes for a failure: text and tree must agree.
func cut(n ast.IsNode, s clause) (operator string, nodes []ast.IsNode, clauses []clause) {
	switch n := n.(type) {
	case ast.NodeTypeAnd:
		operator = "&&"
		clauses = s.split(operator)
		nodes = chained(n, len(clauses), func(n ast.IsNode) (ast.BinaryNode, bool) {
			and, ok := n.(ast.NodeTypeAnd)
			return and.BinaryNode, ok
		})
	case ast.NodeTypeOr:
		operator = "||"
		clauses = s.split(operator)
		nodes = chained(n, len(clauses), func(n ast.IsNode) (ast.BinaryNode, bool) {
			or, ok := n.(ast.NodeTypeOr)
			return or.BinaryNode, ok
		})
	case ast.NodeTypeNot:
		if len(s) > 1 && s[0].is("!") {
			return "!", []ast.IsNode{n.Arg}, []clause{s[1:]}
		}
	case ast.NodeTypeIfThenElse:
		if parts, ok := s.choice(); ok {
			return "if", []ast.IsNode{n.If, n.Then, n.Else}, parts
		}
	}
	return operator, nodes, clauses
}

// chained are the operands of a chain, which the tree has as ((a op b) op c); nil if there are fewer.
// Parentheses on the left leave no trace in the tree, so no more are taken off it than the text has
// operands.
func chained(n ast.IsNode, operands int, open func(ast.IsNode) (ast.BinaryNode, bool)) []ast.IsNode {
	if operands < 2 {
		return nil
	}
	out := make([]ast.IsNode, operands)
	for i := operands - 1; i > 0; i-- {
		pair, ok := open(n)
		if !ok {
			return nil
		}
		out[i], n = pair.Right, pair.Left
	}
	out[0] = n
	return out
}

// whole is a part that is evaluated at once, with what its operands come to.
func (p *planner) whole(n ast.IsNode, s clause) *part {
	out := &part{clause: s, test: p.compiler.test(n)}
	nodes, clauses := operands(n, s)
	// Where the operands stand is not known: then their values are not shown.
	if len(nodes) > len(clauses) {
		return out
	}
	for i, n := range nodes {
		// A literal shows its value by itself.
		if p.compiler.literalOf(n) == nil {
			out.operands = append(out.operands, operand{clauses[i], p.compiler.term(n)})
		}
	}
	return out
}

// operands are what a comparison or call compares, and where that stands. Both are in order; there may be
// more clauses, as what follows has is none of its operands.
func operands(n ast.IsNode, s clause) ([]ast.IsNode, []clause) {
	pair := func(n ast.BinaryNode) []ast.IsNode { return []ast.IsNode{n.Left, n.Right} }
	switch n := n.(type) {
	case ast.NodeTypeEquals:
		return pair(n.BinaryNode), s.relation()
	case ast.NodeTypeNotEquals:
		return pair(n.BinaryNode), s.relation()
	case ast.NodeTypeLessThan:
		return pair(n.BinaryNode), s.relation()
	case ast.NodeTypeLessThanOrEqual:
		return pair(n.BinaryNode), s.relation()
	case ast.NodeTypeGreaterThan:
		return pair(n.BinaryNode), s.relation()
	case ast.NodeTypeGreaterThanOrEqual:
		return pair(n.BinaryNode), s.relation()
	case ast.NodeTypeIn:
		return pair(n.BinaryNode), s.relation()
	case ast.NodeTypeHas:
		return []ast.IsNode{n.Arg}, s.relation()
	case ast.NodeTypeLike:
		return []ast.IsNode{n.Arg}, s.relation()
	case ast.NodeTypeIs:
		return []ast.IsNode{n.Left}, s.relation()
	case ast.NodeTypeIsIn:
		return []ast.IsNode{n.Left, n.Entity}, s.relation()
	case ast.NodeTypeHasTag:
		return pair(n.BinaryNode), s.method()
	case ast.NodeTypeContains:
		return pair(n.BinaryNode), s.method()
	case ast.NodeTypeContainsAll:
		return pair(n.BinaryNode), s.method()
	case ast.NodeTypeContainsAny:
		return pair(n.BinaryNode), s.method()
	case ast.NodeTypeIsEmpty:
		return []ast.IsNode{n.Arg}, s.method()
	case ast.NodeTypeExtensionCall:
		return n.Args, s.method()
	default:
		return nil, nil
	}
}

// explainPolicy evaluates the parts of a policy in the order in which the decision did, as far as it went.
func (c *call) explainPolicy(p *plan) copse.ExplainedPolicy {
	out := copse.ExplainedPolicy{Policy: p.ref, Forbids: p.policy.Forbids(), Linked: p.policy.template != nil, Cut: p.cut}
	text := []byte(p.policy.text)
	for _, part := range p.scope {
		out.Scope = append(out.Scope, c.explain(part, true, text))
	}
	out.Outcome = scopeOutcome(out.Scope)
	for _, part := range p.conditions {
		explained := c.explain(part, out.Outcome == copse.True, text)
		if out.Outcome == copse.True {
			out.Outcome = explained.Outcome
		}
		out.Conditions = append(out.Conditions, explained)
	}
	return out
}

// settle holds an explanation against what was decided, which is NotEvaluated if the scope did not match.
// Conditions that are not shown may have settled the outcome. It reports whether the two agree.
func (p *plan) settle(explained *copse.ExplainedPolicy, decided copse.Outcome) bool {
	if matches := decided != copse.NotEvaluated; matches != (scopeOutcome(explained.Scope) == copse.True) {
		return false
	} else if !matches {
		return true
	}
	if len(p.conditions) < len(p.policy.tree.Conditions) && explained.Outcome == copse.True {
		explained.Outcome = decided
	}
	return explained.Outcome == decided
}

// scopeOutcome is the first test's that is not true, or true.
func scopeOutcome(scope []copse.ExplainedPart) copse.Outcome {
	for _, part := range scope {
		if part.Outcome != copse.True {
			return part.Outcome
		}
	}
	return copse.True
}

// explain evaluates a part, if the parts before it leave that open. Every part is returned, also one that
// was not reached, which is NotEvaluated. A part's outcome is that of the part of it that was evaluated
// last, before ! and unless turn it round.
func (c *call) explain(p *part, reached bool, text []byte) copse.ExplainedPart {
	at := positionAt(text, p.clause[0].start)
	out := copse.ExplainedPart{Text: p.clause.text(p.bound), Line: at.line, Column: at.column, Operator: p.operator}
	if p.test != nil {
		if reached {
			c.evaluate(p, &out)
		}
		return out
	}
	for i, part := range p.parts {
		explained := c.explain(part, reached && goesOn(p.operator, i, &out), text)
		if explained.Outcome != copse.NotEvaluated {
			out.Outcome = explained.Outcome
		}
		out.Parts = append(out.Parts, explained)
	}
	if p.operator == "!" || p.operator == "unless" {
		out.Outcome = inverted(out.Outcome)
	}
	return out
}

// goesOn reports whether an operator evaluates the part with number next. so is the whole as far as it is
// known: the parts before that one, and what they came to.
func goesOn(operator string, next int, so *copse.ExplainedPart) bool {
	switch {
	case next == 0:
		return true
	case operator == "&&":
		return so.Outcome == copse.True
	case operator == "||":
		return so.Outcome == copse.False
	case next == 1: // if: the condition says which of the two
		return so.Parts[0].Outcome == copse.True
	default:
		return so.Parts[0].Outcome == copse.False
	}
}

// inverted leaves faults, and what was not evaluated, as they are.
func inverted(o copse.Outcome) copse.Outcome {
	switch o {
	case copse.True:
		return copse.False
	case copse.False:
		return copse.True
	default:
		return o
	}
}

// evaluate runs a part that is shown whole, then each of its operands for its value. An operand that can't
// be evaluated has none: the part's error says why.
func (c *call) evaluate(p *part, out *copse.ExplainedPart) {
	c.steps = 0 // the whole decision was within the budget, and so is its part
	switch p.test(c) {
	case yes:
		out.Outcome = copse.True
	case no:
		out.Outcome = copse.False
	default:
		out.Outcome = copse.Failed
		out.Error = clipTo(c.message(&c.fault), copse.MaxExplainedText)
	}
	for _, o := range p.operands {
		// The decision may not have come to an operand, so they have a budget of their own, all together.
		if c.steps = c.shown; c.overBudget() {
			return
		}
		v := o.term(c)
		if c.shown = c.steps; v != nil && !c.overBudget() {
			out.Values = append(out.Values, copse.ExplainedValue{
				Text: o.clause.text(p.bound), Value: clipTo(string(c.appendValue(nil, v)), copse.MaxExplainedText)})
		}
	}
}

// appendValue writes a value as Cedar does, and stops soon behind what is shown of it. The result may be
// longer than the limit, or cut in the middle: who shows it clips it.
func (c *call) appendValue(out []byte, v *value) []byte {
	if len(out) > copse.MaxExplainedText {
		return out
	}
	list := func(open, end byte, item func(slot)) []byte {
		out = append(out, open)
		for i, s := range v.slots {
			if len(out) > copse.MaxExplainedText {
				break
			}
			if i > 0 {
				out = append(out, ", "...)
			}
			item(s)
		}
		return append(out, end)
	}
	switch v.kind {
	case kindSet:
		return list('[', ']', func(s slot) { out = c.appendValue(out, s.value) })
	case kindRecord:
		return list('{', '}', func(s slot) {
			out = append(out, types.String(clipTo(c.nameText(s.name), copse.MaxExplainedText)).MarshalCedar()...)
			out = c.appendValue(append(out, ": "...), s.value)
		})
	case kindString:
		return append(out, types.String(clipTo(v.text, copse.MaxExplainedText)).MarshalCedar()...)
	default:
		return append(out, scalarOf(v).MarshalCedar()...)
	}
}

// scalarOf is a value without parts as cedar-go has it. Sets and records are not for it.
func scalarOf(v *value) types.Value {
	switch v.kind {
	case kindBool:
		return types.Boolean(v.num != 0)
	case kindLong:
		return types.Long(v.num)
	case kindEntity:
		return v.entity.uid
	case kindDecimal:
		d, _ := types.NewDecimal(v.num, -decimalDigits) // every Long is one
		return d
	case kindIP:
		return v.ip()
	case kindDatetime:
		return types.NewDatetimeFromMillis(v.num)
	case kindDuration:
		return types.NewDurationFromMillis(v.num)
	default:
		return types.String(v.text)
	}
}
