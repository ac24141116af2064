package engine

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
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
// its Path the Path the policy was parsed with.
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

// validation is one call that checks policies.
type validation struct {
	schema *Schema
	fields []copse.Field
	steps  uint64
}

// policy checks one policy, or a template, and reports whether the call may go on.
func (v *validation) policy(p *Policy) (bool, error) {
	check := &policyCheck{s: v.schema, p: p}
	if err := check.run(); err != nil {
		return false, err
	}
	for _, message := range check.messages {
		v.fields = append(v.fields, p.at.field(p.path, "%s", message))
	}
	if v.steps += check.steps; v.steps > maxTotalValidationSteps {
		v.fields = append(v.fields, p.at.field(p.path, "validating these policies together takes more than %d steps (nodes x request environments); send fewer at a time, or name actions and types in their heads", maxTotalValidationSteps))
		return false, nil
	}
	return len(v.fields) <= 2*maxFindings, nil
}

func (v *validation) result(err error) error {
	if err == nil && len(v.fields) > 0 {
		return policyError(v.fields...)
	}
	return err
}

// policyCheck validates one policy. It settles the head itself and gives cedar-go's typechecker a
// schema cut down to the request environments the head admits: cedar-go would enumerate every
// environment of the schema for each policy, and the sub-types of a scope in cubic time.
type policyCheck struct {
	s        *Schema
	p        *Policy
	messages []string
	steps    uint64
}

func (c *policyCheck) add(message string) {
	if message != "" && !slices.Contains(c.messages, message) && len(c.messages) <= maxFindings {
		c.messages = append(c.messages, message)
	}
}

func (c *policyCheck) run() (err error) {
	// Text that parsed can't make the typechecker panic as far as we know; if it can, one policy is
	// refused instead of a process lost.
	defer func() {
		if caught := recover(); caught != nil {
			err = copse.Errorf(copse.Internal, "validating a policy at %s: %v", c.p.path, caught)
		}
	}()
	c.steps = c.s.costs.head
	principals := c.scopeTypes(c.p.tree.Principal)
	actions := c.scopeActions()
	resources := c.scopeTypes(c.p.tree.Resource)
	c.checkApplication(principals, actions, resources)
	if len(c.p.tree.Conditions) == 0 || c.p.template != nil {
		return nil
	}
	c.checkNames()
	slice, environments, contexts := c.slice(principals, actions, resources)
	weight := c.s.costs.validationWeight(c.p.tree)
	c.steps = plus(c.steps, times(weight, uint64(environments)), contexts)
	if c.steps > maxValidationSteps {
		c.add(fmt.Sprintf("validating this policy takes %s steps (its nodes, weighed %s, x %d request environments), at most %d are allowed; name actions and types in its head, or make it simpler",
			count(c.steps), count(weight), environments, maxValidationSteps))
		return nil
	}
	if environments == 0 {
		return nil
	}
	body := &ast.Policy{Effect: c.p.tree.Effect, Principal: ast.ScopeTypeAll{}, Action: ast.ScopeTypeAll{}, Resource: ast.ScopeTypeAll{}, Conditions: joined(c.p.tree.Conditions)}
	found := validate.New(slice, validate.WithStrict()).Policy("", body)
	for _, message := range messagesOf(found) {
		c.add(message)
	}
	return nil
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

// constraint is the entity types a scope admits; free admits all.
type constraint struct {
	free  bool
	types map[types.EntityType]bool
}

func only(t types.EntityType) constraint {
	return constraint{types: map[types.EntityType]bool{t: true}}
}

func (c constraint) admits(t types.EntityType) bool { return c.free || c.types[t] }

func (c constraint) admitsAny(list []types.EntityType) bool {
	return c.free || slices.ContainsFunc(list, c.admits)
}

func (c constraint) cut(list []types.EntityType) []types.EntityType {
	if c.free {
		return list
	}
	var out []types.EntityType
	for _, t := range list {
		if c.admits(t) {
			out = append(out, t)
		}
	}
	return out
}

func (c *policyCheck) scopeTypes(scope ast.IsScopeNode) constraint {
	switch n := scope.(type) {
	case ast.ScopeTypeEq:
		if isSlot(n.Entity) {
			return constraint{free: true}
		}
		return c.entityType(n.Entity)
	case ast.ScopeTypeIn:
		if isSlot(n.Entity) {
			return constraint{free: true}
		}
		if known := c.entityType(n.Entity); len(known.types) == 0 {
			return known
		}
		return constraint{types: c.typesIn(n.Entity.Type)}
	case ast.ScopeTypeIs:
		return c.knownType(n.Type)
	case ast.ScopeTypeIsIn:
		known := c.knownType(n.Type)
		if isSlot(n.Entity) {
			return known
		}
		if len(known.types) == 0 || len(c.entityType(n.Entity).types) == 0 || !c.typesIn(n.Entity.Type)[n.Type] {
			return constraint{}
		}
		return known
	default:
		return constraint{free: true}
	}
}

// isSlot recognises what stands for a slot in the tree of a template.
func isSlot(uid types.EntityUID) bool { return uid == types.EntityUID{} }

func (c *policyCheck) entityType(uid types.EntityUID) constraint {
	c.add(c.s.enumViolation(uid))
	if _, isAction := c.s.resolved.Actions[uid]; isAction {
		return only(uid.Type)
	}
	return c.knownType(uid.Type)
}

func (c *policyCheck) knownType(t types.EntityType) constraint {
	if !c.s.knows(t) {
		c.add(fmt.Sprintf("unrecognized entity type `%s`", t))
		return constraint{}
	}
	return only(t)
}

// typesIn are the types whose entities can be in an entity of type target.
func (c *policyCheck) typesIn(target types.EntityType) map[types.EntityType]bool {
	out := map[types.EntityType]bool{target: true}
	for t, above := range c.s.typeAncestors {
		if above[target] {
			out[t] = true
		}
	}
	return out
}

// actionSet is the actions a scope admits; free admits all. An empty list admits none, yet cedar-go
// checks the conditions as if it admitted all.
type actionSet struct {
	free    bool
	empty   bool
	uids    map[types.EntityUID]bool
	unknown bool
}

func (c *policyCheck) scopeActions() actionSet {
	var named []types.EntityUID
	groups := true
	switch n := c.p.tree.Action.(type) {
	case ast.ScopeTypeEq:
		named, groups = []types.EntityUID{n.Entity}, false
	case ast.ScopeTypeIn:
		named = []types.EntityUID{n.Entity}
	case ast.ScopeTypeInSet:
		named = n.Entities
	}
	if len(named) == 0 {
		_, isList := c.p.tree.Action.(ast.ScopeTypeInSet)
		return actionSet{free: true, empty: isList}
	}
	out := actionSet{uids: map[types.EntityUID]bool{}}
	for _, uid := range named {
		out.uids[uid] = true
		if _, ok := c.s.resolved.Actions[uid]; !ok {
			out.unknown = true
			c.add(fmt.Sprintf("unrecognized action `%s`", uid))
		}
	}
	if groups {
		for uid, above := range c.s.actionAncestors {
			if slices.ContainsFunc(above, func(group types.EntityUID) bool { return out.uids[group] }) {
				out.uids[uid] = true
			}
		}
	}
	return out
}

func (c *policyCheck) checkApplication(principals constraint, actions actionSet, resources constraint) {
	if actions.empty {
		c.add("empty set literals are forbidden in policies")
	} else if principals.free && actions.free && resources.free {
		return
	}
	if !actions.unknown && !actions.empty {
		for uid, a := range c.s.resolved.Actions {
			if a.AppliesTo != nil && (actions.free || actions.uids[uid]) &&
				principals.admitsAny(a.AppliesTo.Principals) && resources.admitsAny(a.AppliesTo.Resources) {
				return
			}
		}
	}
	c.add("unable to find an applicable action given the policy scope constraints")
}

// slice cuts the schema down to the environments the head admits, and counts them and the nodes of
// their contexts.
func (c *policyCheck) slice(principals constraint, actions actionSet, resources constraint) (*resolved.Schema, int, uint64) {
	cut := *c.s.resolved
	cut.Actions = make(map[types.EntityUID]resolved.Action, len(c.s.resolved.Actions))
	environments, contexts := 0, uint64(0)
	for uid, a := range c.s.resolved.Actions {
		if a.AppliesTo != nil {
			applies := resolved.AppliesTo{Context: a.AppliesTo.Context}
			if actions.free || actions.uids[uid] {
				applies.Principals = principals.cut(a.AppliesTo.Principals)
				applies.Resources = resources.cut(a.AppliesTo.Resources)
			}
			n := len(applies.Principals) * len(applies.Resources)
			environments += n
			// Without an environment the context would still be written out.
			if a.AppliesTo = &applies; n == 0 {
				a.AppliesTo = nil
			} else {
				contexts += uint64(c.s.costs.contexts[uid])
			}
		}
		cut.Actions[uid] = a
	}
	return &cut, environments, contexts
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
// reached too: entity types, entities of enum types, actions.
func (c *policyCheck) checkNames() {
	for _, condition := range c.p.tree.Conditions {
		ast.Inspect(ast.NewNode(condition.Body), func(n ast.IsNode) bool {
			switch n := n.(type) {
			case ast.NodeTypeIs:
				c.anyType(n.EntityType)
			case ast.NodeTypeIsIn:
				c.anyType(n.EntityType)
			case ast.NodeValue:
				if uid, ok := n.Value.(types.EntityUID); ok {
					c.knownEntity(uid)
				}
			}
			return true
		})
	}
}

// anyType is a type that a condition may ask for; unlike a head, it may ask for any type of actions.
func (c *policyCheck) anyType(t types.EntityType) {
	if !isActionType(t) {
		c.knownType(t)
	}
}

func (c *policyCheck) knownEntity(uid types.EntityUID) {
	if isActionType(uid.Type) {
		if _, ok := c.s.resolved.Actions[uid]; !ok {
			c.add(fmt.Sprintf("unrecognized action `%s`", uid))
		}
		return
	}
	c.entityType(uid)
}
