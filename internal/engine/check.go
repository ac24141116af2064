package engine

import (
	"fmt"
	"slices"

	"github.com/copse-authz/copse"
)

// check compares a request with the schema: types, applicability, context, attributes, tags, parents,
// enum ids. What it costs is up to the request, however much the schema declares.
//
// What copse itself put in is held to it as far as the schema speaks of it: a claim, group or
// attribute the schema does not declare is not the caller's fault and is passed over, at any depth. A
// policy can still see it. What the schema does declare must be there and have its type.
func (c *call) check() error {
	k := &checker{call: c, s: c.snapshot.schema}
	if err := k.application(); err != nil {
		return err
	}
	k.context()
	for _, e := range c.entities {
		if k.full() {
			break
		}
		if e.origin == fromServer || e.origin == fromCaller {
			k.entity(e)
		}
	}
	if len(k.fields) > 0 {
		return disagreement(k.fields)
	}
	return nil
}

// checker goes on after a finding, so that a caller sees what is wrong with a request at once, up to what
// an answer shows.
type checker struct {
	call   *call
	s      *Schema
	fields []copse.Field
}

// place is a step of the way to what is being checked. The way is written out for a finding only.
type place struct {
	text    string  // of the first step, behind the entity if it has one
	entity  *entity // of the first step
	name    uint32  // of a member
	element bool    // of a set
}

// enter and leave keep the way. They are called in pairs, except when the check ends.
func (c *checker) enter(p place) { c.call.way = append(c.call.way, p) }

func (c *checker) leave() { c.call.way = c.call.way[:len(c.call.way)-1] }

// path writes the way: entity User::"alice".address.city, or context.tags[].
func (c *checker) path() string {
	out := ""
	for i, p := range c.call.way {
		switch {
		case p.element:
			out += "[]"
		case i > 0:
			out += "." + clipTo(c.call.nameText(p.name), 100)
		case p.entity != nil:
			out = "entity " + p.entity.uid.String() + p.text
		default:
			out = p.text
		}
	}
	return out
}

// full tells that there are more findings than are shown, so no more need be found.
func (c *checker) full() bool { return len(c.fields) > maxFindings }

// add notes a finding where the check is.
func (c *checker) add(format string, args ...any) {
	if c.full() {
		return
	}
	field := copse.Field{Path: c.path(), Message: clip(fmt.Sprintf(format, args...))}
	// The elements of a set share one path and mostly one fault.
	if n := len(c.fields); n == 0 || c.fields[n-1] != field {
		c.fields = append(c.fields, field)
	}
}

// application finds the action and checks that it applies to principal and resource. Without that nothing
// else can be checked: the action decides what context there must be. So its findings are the only ones.
func (c *checker) application() error {
	action := c.call.action
	c.enter(place{text: "action"})
	// The schema's actions have the first numbers, so this finds those of others and unknown ones.
	if int(action.number) >= len(c.s.actions) {
		c.add("the schema has no action %s", action.uid)
		return disagreement(c.fields)
	}
	declared := &c.s.actions[action.number]
	if !declared.applies {
		c.add("the action %s is a group of actions: it applies to nothing itself", action.uid)
		return disagreement(c.fields)
	}
	c.leave()
	c.side("principal", c.call.principal, declared.principals)
	c.side("resource", c.call.resource, declared.resources)
	if len(c.fields) > 0 {
		return disagreement(c.fields)
	}
	return nil
}

// side checks the type of principal or resource. Their attributes come with those of the other entities.
func (c *checker) side(name string, e *entity, allowed []uint32) {
	c.enter(place{text: name})
	defer c.leave()
	switch {
	case c.s.entityShape(e.typ) == nil:
		c.add("the schema has no entity type %s", e.uid.Type)
	case !slices.Contains(allowed, e.typ):
		c.add("the action %s does not apply to a %s of type %s", c.call.action.uid, name, e.uid.Type)
	default:
		c.enum(e)
	}
}

// disagreement is the error for findings of a check.
func disagreement(fields []copse.Field) error {
	return findings("", "the request does not agree with the schema", fields)
}

// context checks the joined context. It is there, if only empty, so what the schema requires can't be
// missed out.
func (c *checker) context() {
	c.enter(place{text: "context"})
	c.members(c.call.context.slots, c.s.contextShape(c.call.action), partlyTrusted)
	c.leave()
}

// trust is what copse put in itself.
type trust uint8

const (
	nothingTrusted trust = iota
	allTrusted
	partlyTrusted // the context: a member is what its name is
)

// trusts tells what trust a member has in something of trust t. In the context it depends on who sent the
// member; below that all is from one side.
func (c *checker) trusts(t trust, name uint32) trust {
	if t == partlyTrusted && find(c.call.serverContext, name) != nil {
		return allTrusted
	}
	return t &^ partlyTrusted
}

// entity that the server put in, from a verified token, is not held against the schema beyond what policies read: claims that
// the schema does not know are no fault of the caller's. A caller's entity of a type that the schema does
// not know is refused.
func (c *checker) entity(e *entity) {
	c.enter(place{entity: e})
	defer c.leave()
	t := nothingTrusted
	if e.origin == fromServer {
		t = allTrusted
	}
	trusted := t == allTrusted
	want := c.s.entityShape(e.typ)
	switch {
	case want == nil:
		if !trusted {
			c.add("the schema has no entity type %s", e.uid.Type)
		}
		return
	case want.enum:
		// The entities of an enum type are names and nothing else.
		c.enum(e)
		if !trusted && len(e.attributes)+len(e.tags)+len(e.parents) > 0 {
			c.add("an entity of the enum type %s has no attributes, tags or parents", e.uid.Type)
		}
		return
	}
	if !trusted {
		c.parents(e, want)
	}
	c.members(e.attributes, want.attributes, t)
	if want.tags == nil {
		if len(e.tags) > 0 && !trusted {
			c.add("entities of type %s have no tags", e.uid.Type)
		}
		return
	}
	// A tag may have the name of an attribute, so the path says which it is.
	c.call.way[0].text = " tag"
	for i := range e.tags {
		c.enter(place{name: e.tags[i].name})
		c.value(e.tags[i].value, want.tags, t)
		c.leave()
	}
}

// enum checks the id of an entity of an enum type. Of other types it finds nothing.
func (c *checker) enum(e *entity) {
	if want := c.s.entityShape(e.typ); want == nil || !want.enum {
		return
	}
	if message := c.s.enumViolation(e.uid); message != "" {
		c.add("%s", message)
	}
}

// parents may be of any type above the entity's own, not only of the ones it names. The schema's list is
// transitive, as a caller may leave out those between.
func (c *checker) parents(e *entity, want *entityShape) {
	for _, parent := range e.parents {
		if _, found := slices.BinarySearch(want.parents, parent.typ); !found {
			c.add("an entity of type %s can't be in %s: the schema names no such parent type", e.uid.Type, parent.uid)
			continue
		}
		c.enum(parent)
	}
}

// members goes through a record and what must be in it side by side. What is declared and need not be
// there is not gone through: a set can have many small records of a type with thousands of members. Both
// lists are sorted by the numbers of the names. want is nil where the schema says nothing: then no member
// is declared.
func (c *checker) members(members []slot, want *shape, t trust) {
	var required []uint32
	if want != nil {
		required = want.required
	}
	for len(members)+len(required) > 0 {
		if c.full() {
			return
		}
		if len(members) == 0 || len(required) > 0 && required[0] < members[0].name {
			c.odd(required[0], t, "the schema requires this")
			required = required[1:]
			continue
		}
		name := members[0].name
		if len(required) > 0 && required[0] == name {
			required = required[1:]
		}
		trusted := c.trusts(t, name)
		if declared := want.member(name); declared != nil {
			c.enter(place{name: name})
			c.value(members[0].value, declared, trusted)
			c.leave()
		} else if trusted != allTrusted {
			c.odd(name, t, "the schema does not declare this")
		}
		members = members[1:]
	}
}

// odd adds that a member is missing or not declared.
func (c *checker) odd(name uint32, t trust, what string) {
	c.enter(place{name: name})
	defer c.leave()
	if t == partlyTrusted {
		c.add("%s context member for %s", what, c.call.action.uid)
	} else {
		c.add("%s attribute", what)
	}
}

// value must be of the kind that the schema wants, all the way down. Long lists end early when there is
// enough to report. Its depth is that of the request's data, which decoding bounds.
func (c *checker) value(v *value, want *shape, t trust) {
	if v.kind != want.kind {
		c.add("the schema wants %s, this is %s", want.describe(), v.kind)
		return
	}
	switch v.kind {
	case kindEntity:
		if v.entity.typ != want.entity {
			c.add("the schema wants %s, this one is of type %s", want.describe(), v.entity.uid.Type)
			return
		}
		c.enum(v.entity)
	case kindSet:
		c.enter(place{element: true})
		defer c.leave()
		for i := range v.slots {
			if c.full() {
				return
			}
			c.value(v.slots[i].value, want.element, t)
		}
	case kindRecord:
		c.members(v.slots, want, t)
	default:
	}
}
