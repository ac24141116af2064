package engine

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

// check compares a request with the schema: types, applicability, context, attributes, tags, parents,
// enum ids.
//
// What copse itself put in is held to it as far as the schema speaks of it: a claim, group or
// attribute the schema does not declare is not the caller's fault and is passed over, at any depth. A
// policy can still see it. What the schema does declare must be there and have its type.
func (d *decoded) check() error {
	c := &checker{s: d.schema}
	if err := c.application(d.request); err != nil {
		return err
	}
	c.context(d)
	for _, uid := range slices.SortedFunc(maps.Keys(d.entities), compareUIDs) {
		if c.full() {
			break
		}
		c.entity(d.entities[uid], d.fromServer[uid])
	}
	if len(c.fields) > 0 {
		return disagreement(c.fields)
	}
	return nil
}

func compareUIDs(a, b types.EntityUID) int {
	if c := strings.Compare(string(a.Type), string(b.Type)); c != 0 {
		return c
	}
	return strings.Compare(string(a.ID), string(b.ID))
}

type checker struct {
	s      *Schema
	fields []copse.Field
}

func (c *checker) full() bool { return len(c.fields) > maxFindings }

func (c *checker) add(path, format string, args ...any) {
	if c.full() {
		return
	}
	field := copse.Field{Path: path, Message: clip(fmt.Sprintf(format, args...))}
	// The elements of a set share one path and mostly one fault.
	if n := len(c.fields); n == 0 || c.fields[n-1] != field {
		c.fields = append(c.fields, field)
	}
}

// application finds the action and checks that it applies to principal and resource.
func (c *checker) application(req types.Request) error {
	action, ok := c.s.resolved.Actions[req.Action]
	if !ok {
		c.add("action", "the schema has no action %s", req.Action)
		return disagreement(c.fields)
	}
	applies := action.AppliesTo
	if applies == nil {
		c.add("action", "the action %s is a group of actions: it applies to nothing itself", req.Action)
		return disagreement(c.fields)
	}
	c.side("principal", req.Principal, req.Action, applies.Principals)
	c.side("resource", req.Resource, req.Action, applies.Resources)
	if len(c.fields) > 0 {
		return disagreement(c.fields)
	}
	return nil
}

func (c *checker) side(path string, uid, action types.EntityUID, allowed []types.EntityType) {
	switch {
	case !c.s.knows(uid.Type):
		c.add(path, "the schema has no entity type %s", uid.Type)
	case !slices.Contains(allowed, uid.Type):
		c.add(path, "the action %s does not apply to a %s of type %s", action, path, uid.Type)
	default:
		c.enum(path, uid)
	}
}

func disagreement(fields []copse.Field) error {
	return findings("", "the request does not agree with the schema", fields)
}

func (c *checker) context(d *decoded) {
	want := c.s.contextShapes[d.request.Action]
	for _, name := range want.required {
		if _, ok := d.request.Context.Get(name); !ok {
			c.add(memberOf("context", name), "the schema requires this context member for %s", d.request.Action)
		}
	}
	for _, name := range slices.Sorted(d.request.Context.Keys()) {
		value, _ := d.request.Context.Get(name)
		_, trusted := d.serverContext.Get(name)
		if member := want.member(name); member != nil {
			c.value(memberOf("context", name), value, member, trusted)
		} else if !trusted {
			c.add(memberOf("context", name), "the schema does not declare this context member for %s", d.request.Action)
		}
	}
}

func (c *checker) entity(e types.Entity, trusted bool) {
	path := "entity " + e.UID.String()
	if _, isEnum := c.s.enums[e.UID.Type]; isEnum {
		c.enumEntity(path, e, trusted)
		return
	}
	want, declared := c.s.entityShapes[e.UID.Type]
	if !declared {
		if !trusted {
			c.add(path, "the schema has no entity type %s", e.UID.Type)
		}
		return
	}
	if !trusted {
		c.parents(path, e)
	}
	c.record(path, e.Attributes, want.attributes, trusted)
	if want.tags == nil {
		if e.Tags.Len() > 0 && !trusted {
			c.add(path, "entities of type %s have no tags", e.UID.Type)
		}
		return
	}
	for _, name := range slices.Sorted(e.Tags.Keys()) {
		value, _ := e.Tags.Get(name)
		c.value(memberOf(path+" tag", name), value, want.tags, trusted)
	}
}

// enumEntity: the entities of an enum type are names and nothing else.
func (c *checker) enumEntity(path string, e types.Entity, trusted bool) {
	c.enum(path, e.UID)
	if !trusted && e.Attributes.Len()+e.Tags.Len()+e.Parents.Len() > 0 {
		c.add(path, "an entity of the enum type %s has no attributes, tags or parents", e.UID.Type)
	}
}

func (c *checker) enum(path string, uid types.EntityUID) {
	if message := c.s.enumViolation(uid); message != "" {
		c.add(path, "%s", message)
	}
}

// parents may be of any type above the entity's own, not only of the ones it names.
func (c *checker) parents(path string, e types.Entity) {
	above := c.s.typeAncestors[e.UID.Type]
	for _, parent := range slices.SortedFunc(e.Parents.All(), compareUIDs) {
		if !above[parent.Type] {
			c.add(path, "an entity of type %s can't be in %s: the schema names no such parent type", e.UID.Type, parent)
			continue
		}
		c.enum(path, parent)
	}
}

func (c *checker) record(path string, r types.Record, want *shape, trusted bool) {
	for _, name := range want.required {
		if _, ok := r.Get(name); !ok {
			c.add(memberOf(path, name), "the schema requires this attribute")
		}
	}
	for _, name := range slices.Sorted(r.Keys()) {
		value, _ := r.Get(name)
		if member := want.member(name); member != nil {
			c.value(memberOf(path, name), value, member, trusted)
		} else if !trusted {
			c.add(memberOf(path, name), "the schema does not declare this attribute")
		}
	}
}

func (c *checker) value(path string, v types.Value, want *shape, trusted bool) {
	if got := kindOf(v); got != want.kind {
		c.add(path, "the schema wants %s, this is %s", want.describe(), got)
		return
	}
	switch v := v.(type) {
	case types.EntityUID:
		if v.Type != want.entity {
			c.add(path, "the schema wants %s, this one is of type %s", want.describe(), v.Type)
			return
		}
		c.enum(path, v)
	case types.Set:
		for element := range v.All() {
			if c.full() {
				return
			}
			c.value(path+"[]", element, want.element, trusted)
		}
	case types.Record:
		c.record(path, v, want, trusted)
	}
}

func memberOf(path string, name types.String) string {
	return path + "." + clipTo(string(name), 100)
}
