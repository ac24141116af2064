package engine

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
)

// Keep says what becomes of a value when part of a request is written down. The zero value drops it.
type Keep uint8

// What may become of a value.
const (
	KeepNothing Keep = iota
	KeepHash         // a keyed hash: equal values can be told to be equal, and no more
	KeepValue
)

// Picking says what of a record is written down: a tree of member names, the most exact of which wins. It
// is not changed while a request is picked from, and may be shared.
type Picking struct {
	Keep    Keep
	Given   bool // Keep was said of this member, and is not that of what it is in
	Members map[string]*Picking
}

// Pickings are those of the three parts of a request that may be written down; nil: nothing of it.
type Pickings struct{ Context, Principal, Resource *Picking }

// Picked is what was written down of a request: JSON objects in Cedar's form; nil where there is nothing.
// It refers to nothing of the request.
type Picked struct{ Context, Principal, Resource []byte }

// maxPicked bounds what is written down of one request, in bytes of JSON. What does not fit is
// {"__cut": true}.
const maxPicked = 8 << 10

// Pick reads a request as [Snapshot.Decide] does, the caller's part and the server's joined, and writes down
// what pick says of its context and of the attributes of principal and resource. hash makes a text of a
// value's canonical JSON. A value is in the result as it is, or {"__hash": text}; text that looks like a
// token or a key never is: it is {"__dropped": "token"}. An error is that of Decide for a request that
// can't be read; a request over the budget of reading yields nothing.
func (s *Snapshot) Pick(req *copse.Request, pick Pickings, hash func([]byte) string) (Picked, error) {
	c := newCall(s, req)
	defer c.release()
	if err := c.decode(); err != nil {
		return Picked{}, err
	}
	if c.overBudget() { // sets that were being read then are not what was sent
		return Picked{}, nil
	}
	p := picker{c: c, hash: hash, left: maxPicked}
	return Picked{
		Context:   p.part(c.context.slots, pick.Context),
		Principal: p.part(c.principal.attributes, pick.Principal),
		Resource:  p.part(c.resource.attributes, pick.Resource),
	}, nil
}

// picker writes one request down; left is how many bytes more may come of it.
type picker struct {
	c    *call
	hash func([]byte) string
	left int
}

// part writes one of the three parts, nil if nothing of it is kept.
func (p *picker) part(members []slot, rule *Picking) []byte {
	if rule == nil {
		return nil
	}
	out := p.record(nil, members, rule, rule.Keep)
	if bytes.Equal(out, []byte("{}")) {
		return nil
	}
	return out
}

// record writes the members that are kept, in order of their names. keep is the rule for members that have
// none of their own. A member of which nothing is kept is not named either.
func (p *picker) record(out []byte, members []slot, rule *Picking, keep Keep) []byte {
	out = append(out, '{')
	for _, m := range p.c.byName(members) {
		before := len(out)
		if before > 0 && out[before-1] != '{' {
			out = append(out, ',')
		}
		name := p.c.nameText(m.name)
		out, _ = jsontext.AppendQuote(out, name)
		out = append(out, ':')
		at, left := len(out), p.left
		var below *Picking
		if rule != nil {
			below = rule.Members[name]
		}
		if out = p.value(out, m.value, below, keep); len(out) == at {
			out = out[:before] // nothing of it
			continue
		}
		counted := left - p.left // by a record below
		if p.left -= len(out) - before - counted; p.left < 0 {
			out = out[:before]
			if out[before-1] != '{' {
				out = append(out, ',')
			}
			return append(out, `"__cut":true}`...)
		}
	}
	return append(out, '}')
}

// value writes what is kept of a value, which may be nothing.
func (p *picker) value(out []byte, v *value, rule *Picking, keep Keep) []byte {
	// A rule that only leads to others leaves what was said before.
	if rule != nil && rule.Given {
		keep = rule.Keep
	}
	switch {
	case rule != nil && len(rule.Members) > 0 && v.kind == kindRecord:
		at := len(out)
		if out = p.record(out, v.slots, rule, keep); keep != KeepValue && len(out) == at+2 {
			return out[:at]
		}
		return out
	case keep == KeepValue:
		at := len(out)
		if out = p.c.appendJSON(out, v, true); len(out)-at > maxPicked {
			return append(out[:at], `{"__cut":true}`...)
		}
		return out
	case keep == KeepHash:
		out = append(out, `{"__hash":`...)
		// A keyed hash shows nothing of a text, so none is left out.
		out, _ = jsontext.AppendQuote(out, p.hash(p.c.appendJSON(nil, v, false)))
		return append(out, '}')
	}
	return out
}

// byName orders members by what their names are: their numbers are those of one snapshot. It is a copy, as
// values are not changed.
func (c *call) byName(members []slot) []slot {
	out := slices.Clone(members)
	slices.SortFunc(out, func(a, b slot) int { return cmp.Compare(c.nameText(a.name), c.nameText(b.name)) })
	return out
}

// appendJSON writes a value in Cedar's JSON form, one text for each value. With guarded, text that looks
// like a token is not in it. Sets are in order of their elements' texts: their own order is that of one
// snapshot's numbers.
func (c *call) appendJSON(out []byte, v *value, guarded bool) []byte {
	switch v.kind {
	case kindSet:
		parts := make([][]byte, len(v.slots))
		for i := range v.slots {
			parts[i] = c.appendJSON(nil, v.slots[i].value, guarded)
		}
		slices.SortFunc(parts, bytes.Compare)
		return append(append(append(out, '['), bytes.Join(parts, []byte{','})...), ']')
	case kindRecord:
		out = append(out, '{')
		for i, m := range c.byName(v.slots) {
			if i > 0 {
				out = append(out, ',')
			}
			out, _ = jsontext.AppendQuote(out, c.nameText(m.name))
			out = c.appendJSON(append(out, ':'), m.value, guarded)
		}
		return append(out, '}')
	case kindBool, kindLong:
		return append(out, scalarOf(v).MarshalCedar()...)
	case kindString:
		if guarded && looksSecret(v.text) {
			return append(out, `{"__dropped":"token"}`...)
		}
		out, _ = jsontext.AppendQuote(out, v.text)
		return out
	case kindEntity:
		return AppendEntityJSON(out, string(v.entity.uid.Type), string(v.entity.uid.ID))
	default:
		out = append(append(out, `{"__extn":{"fn":"`...), v.kind.constructor()...)
		out, _ = jsontext.AppendQuote(append(out, `","arg":`...), scalarOf(v).String())
		return append(out, "}}"...)
	}
}

// AppendEntityJSON writes a reference to an entity as [Snapshot.Pick] does, so that the hash of an id is that
// of an attribute which refers to the same entity.
func AppendEntityJSON(out []byte, entityType, id string) []byte {
	out, _ = jsontext.AppendQuote(append(out, `{"__entity":{"type":`...), entityType)
	out, _ = jsontext.AppendQuote(append(out, `,"id":`...), id)
	return append(out, "}}"...)
}

// looksSecret: a JSON Web Token anywhere in the text, or one of copse's own access keys. Whoever keeps an
// attribute did not ask for what somebody put into it by mistake.
func looksSecret(text string) bool {
	if at := strings.Index(text, "eyJ"); at >= 0 && strings.Count(text[at:], ".") >= 2 {
		return true
	}
	return strings.Contains(text, "copse_") || len(text) > 7 && strings.EqualFold(text[:7], "bearer ")
}
