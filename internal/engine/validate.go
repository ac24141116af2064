package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"

	"github.com/copse-authz/copse"
)

// Validation budgets, in steps: the nodes of a policy, weighed by what the typechecker does for them
// (see validationWeight), times the request environments its head admits. A step takes it about
// 100 ns.
const (
	maxValidationSteps      = 2_000_000  // one policy
	maxTotalValidationSteps = 50_000_000 // one call of Validate
)

// Validate checks policies as STRICT demands; of a link only its head, for what its template says was
// checked with the template. The error is a *copse.Error of kind Invalid with a Field for each finding,
// its Path the Path the policy was parsed with. Nothing is kept of the policies. It ends when there is
// more to say than an answer shows, or at its budget, which is a finding at the policy it came to.
func (s *Schema) Validate(policies ...*Policy) error {
	v := validation{schema: s}
	for _, p := range policies {
		if more, err := v.policy(p); err != nil || !more {
			return v.result(err)
		}
	}
	return v.result(nil)
}

// ValidateTemplates checks templates as Validate does policies: for any entity that a slot may take.
func (s *Schema) ValidateTemplates(templates ...*Template) error {
	v := validation{schema: s}
	for _, t := range templates {
		if more, err := v.policy(t.source); err != nil || !more {
			return v.result(err)
		}
	}
	return v.result(nil)
}

// MaxCheckSteps is a budget for a [Check] that one call may spend: seconds of one core at most.
const MaxCheckSteps = maxTotalValidationSteps

// Check validates what is stored, one after another and within one budget of steps, where Validate would
// end at the first that is too much. It is not for concurrent use. Its steps are those of all policies so
// far.
type Check struct {
	v      validation
	budget uint64
}

// NewCheck begins a check against the schema.
func (s *Schema) NewCheck(budget uint64) *Check {
	return &Check{v: validation{schema: s}, budget: budget}
}

// Spent reports that the budget is used up. Who goes on all the same is not stopped.
func (c *Check) Spent() bool { return c.v.steps >= c.budget }

// Policy validates a policy, and of a link its head. Its error is that of Validate.
func (c *Check) Policy(p *Policy) error {
	check := &policyCheck{v: &c.v, s: c.v.schema, p: p}
	if err := check.run(); err != nil {
		return err
	}
	c.v.steps = plus(c.v.steps, check.steps)
	if fields := check.fields(); len(fields) > 0 {
		return policyError(fields...)
	}
	return nil
}

// Template validates a template, as ValidateTemplates does.
func (c *Check) Template(t *Template) error { return c.Policy(t.source) }

// validation is one call that checks policies. It keeps what it finds out about a head for the policies
// that follow: a cache in the schema would have to be shared, locked and bounded, and a call that checks
// few policies needs none.
type validation struct {
	schema *Schema
	heads  map[string]*head
	fields []copse.Field
	steps  uint64
	// For tests: what was made and what was checked.
	headsMade, checked int
}

// maxHeads bounds what a validation remembers: a head holds a list of all actions.
const maxHeads = 256

// head returns the head of a policy's scope and what it costs to settle: nearly nothing for one that is
// remembered.
func (v *validation) head(p *ast.Policy) (*head, uint64) {
	key := headKey(p)
	if h, ok := v.heads[key]; ok {
		return h, 1
	}
	// All are forgotten at once: which one will be asked for again is not known.
	if v.heads == nil || len(v.heads) >= maxHeads {
		v.heads = map[string]*head{}
	}
	h := newHead(v.schema, p)
	v.heads[key] = h
	v.headsMade++
	return h, plus(v.schema.costs.head, 1)
}

// policy checks one policy, or a template, and reports whether the call may go on.
func (v *validation) policy(p *Policy) (bool, error) {
	check := &policyCheck{v: v, s: v.schema, p: p}
	if err := check.run(); err != nil {
		return false, err
	}
	v.fields = append(v.fields, check.fields()...)
	if v.steps += check.steps; v.steps > maxTotalValidationSteps {
		v.fields = append(v.fields, p.at.field(p.path, "validating these policies together takes more than %d steps (nodes x request environments); send fewer at a time, or name actions and types in their heads", maxTotalValidationSteps))
		return false, nil
	}
	return len(v.fields) <= 2*maxFindings, nil
}

// result is the error of the call: one that ended it, or else the findings.
func (v *validation) result(err error) error {
	if err == nil && len(v.fields) > 0 {
		return policyError(v.fields...)
	}
	return err
}

// policyCheck validates one policy. It settles the head itself and leaves the conditions to cedar-go's
// typechecker, in the request environments that the head admits.
type policyCheck struct {
	v          *validation
	s          *Schema
	p          *Policy
	impossible bool // look for this too: can it never be satisfied?
	messages   []string
	warnings   []string
	steps      uint64
}

// add notes a message once. The empty one is none.
func (c *policyCheck) add(message string) {
	if message != "" && !slices.Contains(c.messages, message) && len(c.messages) <= maxFindings {
		c.messages = append(c.messages, message)
	}
}

// fields places all messages where the policy begins: the tree has no other positions.
func (c *policyCheck) fields() []copse.Field {
	out := make([]copse.Field, len(c.messages))
	for i, message := range c.messages {
		out[i] = c.p.at.field(c.p.path, "%s", message)
	}
	return out
}

// run finds what is wrong with a policy and counts the steps it took. An error is about the validation
// itself.
func (c *policyCheck) run() (err error) {
	// Text that parsed can't make the typechecker panic as far as we know; if it can, one policy is
	// refused instead of a process lost.
	defer func() {
		if caught := recover(); caught != nil {
			err = copse.Errorf(copse.Internal, "validating a policy at %s: %v", c.p.path, caught)
		}
	}()
	var h *head
	h, c.steps = c.v.head(c.p.tree)
	// Heads don't depend on ids, so those of enum types are looked at here.
	for _, scope := range []ast.IsScopeNode{c.p.tree.Principal, c.p.tree.Resource} {
		c.add(c.s.enumViolation(scopeEntity(scope)))
	}
	for _, message := range h.messages {
		c.add(message)
	}
	// A link's conditions were checked with the template.
	if len(c.p.tree.Conditions) == 0 || c.p.template != nil {
		return nil
	}
	merge := c.checkNames()
	conditions := joined(c.p.tree.Conditions)
	if !c.typecheck(h.cut(merge), conditions) && merge {
		// Something is wrong: name all actions it is wrong for.
		c.typecheck(h.cut(false), conditions)
	}
	if c.impossible && len(c.messages) == 0 {
		c.checkPossible(h.cut(merge), conditions)
	}
	return nil
}

// typecheck lets cedar-go check the conditions, if that is within the budget, and reports whether it has
// nothing against them or was not asked.
func (c *policyCheck) typecheck(in *slice, conditions []ast.ConditionType) bool {
	weight := c.s.costs.validationWeight(c.p.tree)
	steps := plus(times(weight, uint64(in.environments)), in.contexts)
	c.steps = plus(c.steps, steps)
	if steps > maxValidationSteps {
		c.add(fmt.Sprintf("validating this policy takes %s steps (its nodes, weighed %s, x %d request environments), at most %d are allowed; name actions and types in its head, or make it simpler",
			count(steps), count(weight), in.environments, maxValidationSteps))
		return true
	}
	err := c.cedarGo(in, conditions)
	for _, message := range messagesOf(err) {
		c.add(message)
	}
	return err == nil
}

// cedarGo runs the typechecker over the conditions in all environments of a slice. The scope is replaced
// by an open one, as the slice has only what it admits. The caller has seen to the budget.
func (c *policyCheck) cedarGo(in *slice, conditions []ast.ConditionType) error {
	if in.environments == 0 {
		return nil
	}
	c.v.checked += in.environments
	body := &ast.Policy{Effect: c.p.tree.Effect, Principal: ast.ScopeTypeAll{}, Action: ast.ScopeTypeAll{}, Resource: ast.ScopeTypeAll{}, Conditions: conditions}
	return validate.New(in.schema, validate.WithStrict()).Policy("", body)
}

// checkPossible finds out whether the conditions of a valid policy are false by their types in every
// environment. cedar-go does not tell the type of an expression, but it leaves out the right side of an
// && whose left side can't be true; so a right side is put there that it would refuse.
func (c *policyCheck) checkPossible(in *slice, conditions []ast.ConditionType) {
	all := joined(conditions)[0]
	body := ast.NewNode(all.Body)
	if all.Condition == ast.ConditionUnless {
		body = ast.Not(body)
	}
	c.steps = plus(c.steps, times(c.s.costs.validationWeight(c.p.tree), uint64(in.environments))) // it is checked a second time
	probe := []ast.ConditionType{{Condition: ast.ConditionWhen, Body: body.And(ast.Long(1)).AsIsNode()}}
	if c.cedarGo(in, probe) == nil {
		c.warnings = append(c.warnings, "policy is impossible: the policy expression evaluates to false for all valid requests")
	}
}

// messagesOf lists the joined errors of the validator. It walks maps, so their order means nothing.
func messagesOf(err error) []string {
	if err == nil {
		return nil
	}
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) {
		return []string{clip(err.Error())}
	}
	var out []string
	for _, e := range joined.Unwrap() {
		out = append(out, clip(e.Error()))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// joined makes one condition of all, as Cedar does: what one guards may be used in those behind it.
// cedar-go checks each for itself.
func joined(conditions []ast.ConditionType) []ast.ConditionType {
	if len(conditions) < 2 {
		return conditions
	}
	var all ast.IsNode
	for i, c := range conditions {
		body := ast.NewNode(c.Body)
		if c.Condition == ast.ConditionUnless {
			body = ast.Not(body)
		}
		if i > 0 {
			body = ast.NewNode(all).And(body)
		}
		all = body.AsIsNode()
	}
	return []ast.ConditionType{{Condition: ast.ConditionWhen, Body: all}}
}

// checkNames finds what the conditions name and the schema does not declare, in branches that can't be
// reached too: entity types, entities of enum types, actions. Decimals with a plus sign it finds as well. It reports whether the conditions speak
// of nothing that differs between actions but the context.
func (c *policyCheck) checkNames() bool {
	noActions := true
	for _, condition := range c.p.tree.Conditions {
		ast.Inspect(ast.NewNode(condition.Body), func(n ast.IsNode) bool {
			switch n := n.(type) {
			case ast.NodeTypeVariable:
				noActions = noActions && n.Name != "action"
			case ast.NodeTypeIs:
				noActions = c.namedType(n.EntityType) && noActions
			case ast.NodeTypeIsIn:
				noActions = c.namedType(n.EntityType) && noActions
			case ast.NodeTypeExtensionCall:
				c.add(plusSign(n))
			case ast.NodeValue:
				if uid, ok := n.Value.(types.EntityUID); ok {
					noActions = c.namedEntity(uid) && noActions
				}
			}
			return true
		})
	}
	return noActions
}

// plusSign finds a decimal that cedar-go's typechecker takes, and Cedar does not. It is worded as others that are none.
func plusSign(n ast.NodeTypeExtensionCall) string {
	if n.Name != "decimal" || len(n.Args) != 1 {
		return ""
	}
	value, _ := n.Args[0].(ast.NodeValue)
	text, ok := value.Value.(types.String)
	if !ok || !strings.HasPrefix(string(text), "+") {
		return ""
	}
	return fmt.Sprintf("error during extension function argument validation: failed to parse as a decimal value: `%q`", string(text))
}

// namedType checks a type that a condition asks for and reports whether it is not one of actions; unlike
// a head, it may ask for any type of those.
func (c *policyCheck) namedType(t types.EntityType) bool {
	if isActionType(t) {
		return false
	}
	if !c.s.knows(t) {
		c.add(unknownType(t))
	}
	return true
}

// namedEntity checks an entity that a condition names and reports whether it is no action.
func (c *policyCheck) namedEntity(uid types.EntityUID) bool {
	if isActionType(uid.Type) {
		if _, ok := c.s.resolved.Actions[uid]; !ok {
			c.add(unknownAction(uid))
		}
		return false
	}
	c.add(c.s.enumViolation(uid))
	return c.namedType(uid.Type)
}
