package authorizer

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
)

// question is a body that was read: who asks comes from the token, never from here. Its
// Data may alias the body.
type question struct {
	action, resource  types.EntityUID
	context, entities copse.Data
	explain           bool
}

// scanner cuts a body into the members it knows. Structure, names and the identifiers are checked
// here; the raw values of context and entities are only delimited, since the engine, which decodes
// them, is the one that must be strict about what is inside. A value delimited too generously is
// therefore refused there, and can't be read two ways.
type scanner struct {
	in  []byte
	pos int
}

// parseBody reads a body into q. Bytes of q's Data alias body, except those of Cedar
// JSON that came inside a string. Invalid with the member's path for anything else than
// the one object; q is then of no use.
func parseBody(body []byte, q *question) error {
	// Checked once for all of it, so that no part of it needs to be again.
	if !utf8.Valid(body) {
		return invalid("", "the body is not valid UTF-8, from byte %d", invalidAt(body))
	}
	s := scanner{in: body}
	var seen fieldSet
	err := s.object("", func(name string) error {
		switch name {
		case "action":
			if err := seen.add(name, 1); err != nil {
				return err
			}
			return s.uid("action", "actionType", "actionId", "Action", copse.MaxActionIDBytes, &q.action)
		case "resource":
			if err := seen.add(name, 2); err != nil {
				return err
			}
			return s.uid("resource", "entityType", "entityId", "", copse.MaxEntityIDBytes, &q.resource)
		case "context":
			if err := seen.add(name, 4); err != nil {
				return err
			}
			return s.data("context", "contextMap", '{', copse.FormatAVPMap, &q.context)
		case "entities":
			if err := seen.add(name, 8); err != nil {
				return err
			}
			return s.data("entities", "entityList", '[', copse.FormatAVPList, &q.entities)
		case "explain":
			if err := seen.add(name, 16); err != nil {
				return err
			}
			return s.boolean("explain", &q.explain)
		}
		// An unknown member is refused and not passed over: it may be one that was meant to make the
		// answer stricter.
		return invalid(name, "there is no such member; the body has action, resource, context, entities and explain, and who asks comes from the token")
	})
	if err != nil {
		return err
	}
	// Text behind the object could be what another reader takes for it.
	if s.space(); s.pos < len(s.in) {
		return invalid("", "there is more after the body's end, at byte %d", s.pos)
	}
	switch {
	case seen&1 == 0:
		return invalid("action", `is missing; for example {"action":{"id":"view"},"resource":{"type":"Document","id":"1"}}`)
	case seen&2 == 0:
		return invalid("resource", `is missing; for example {"action":{"id":"view"},"resource":{"type":"Document","id":"1"}}`)
	}
	return nil
}

// fieldSet holds which members were seen, a bit each: JSON leaves open which of two counts.
type fieldSet uint8

func (f *fieldSet) add(path string, bit fieldSet) error {
	if *f&bit != 0 {
		return invalid(path, "stands twice")
	}
	*f |= bit
	return nil
}

// uid reads an identifier in one of its two spellings: {type, id}, or AVP's with its longer names. The
// two are not mixed.
func (s *scanner) uid(path, typeName, idName, defaultType string, maxID int, uid *types.EntityUID) error {
	// Bits of the four spellings in the set.
	const (
		ownType = 1 << iota
		ownID
		avpType
		avpID
	)
	var seen fieldSet
	var entityType, id string
	err := s.object(path, func(name string) error {
		var bit fieldSet
		into := &id
		switch name {
		case "type":
			bit, into = ownType, &entityType
		case "id":
			bit = ownID
		case typeName:
			bit, into = avpType, &entityType
		case idName:
			bit = avpID
		default:
			return invalid(path+"."+name, "there is no such member; use type and id, or %s and %s", typeName, idName)
		}
		if err := seen.add(path+"."+name, bit); err != nil {
			return err
		}
		var err error
		*into, err = s.text(path + "." + name)
		return err
	})
	if err != nil {
		return err
	}
	// Of two that disagree either could be the one that counts.
	if seen&(ownType|ownID) != 0 && seen&(avpType|avpID) != 0 {
		return invalid(path, "mixes two spellings; use type and id, or %s and %s", typeName, idName)
	}
	// Only an action has a type that goes without saying.
	if seen&(ownType|avpType) == 0 {
		entityType = defaultType
	}
	if entityType == "" {
		return invalid(path+".type", "is missing")
	}
	if len(entityType) > copse.MaxEntityTypeBytes {
		return invalid(path+".type", "has %d bytes, of at most %d", len(entityType), copse.MaxEntityTypeBytes)
	}
	if id == "" {
		return invalid(path+".id", "is missing")
	}
	if len(id) > maxID {
		return invalid(path+".id", "has %d bytes, of at most %d", len(id), maxID)
	}
	// The two are copies of the body's bytes.
	*uid = types.EntityUID{Type: types.EntityType(entityType), ID: types.String(id)}
	return nil
}

// data cuts out the one member a context or entities object has: AVP's form, or Cedar JSON, either raw
// or, as AVP sends it, inside a string.
func (s *scanner) data(path, avpName string, open byte, avp copse.Format, into *copse.Data) error {
	members := 0
	err := s.object(path, func(name string) error {
		// The second member is refused whatever it is: with both forms there would be two values.
		if members++; members > 1 {
			return invalid(path, "has one member: either %s or cedarJson", avpName)
		}
		path := path + "." + name
		switch name {
		case avpName:
			into.Format = avp
		case "cedarJson":
			into.Format = copse.FormatCedarJSON
			if s.space(); s.peek() == '"' {
				return s.embedded(path, into)
			}
		default:
			return invalid(path, "there is no such member; use %s or cedarJson", avpName)
		}
		// The first byte tells list from record; whether the rest is one is for the engine.
		if s.space(); s.peek() != open {
			return invalid(path, "expected %q, at byte %d", open, s.pos)
		}
		var err error
		into.Bytes, err = s.skip(path)
		return err
	})
	if err == nil && members == 0 {
		return invalid(path, "is empty; it has one member, %s or cedarJson", avpName)
	}
	return err
}

// embedded unquotes into memory of its own, since the text differs from what is in the body.
func (s *scanner) embedded(path string, into *copse.Data) error {
	raw, _, err := s.stringLiteral(path)
	if err != nil {
		return err
	}
	into.Bytes, err = jsontext.AppendUnquote(make([]byte, 0, len(raw)), raw)
	if err != nil {
		return invalid(path, "the string is not valid JSON: %v", err)
	}
	return nil
}

// object reads an object and calls member for each name, which then reads the value. The empty name is
// a name like any other: member refuses it. Names that stand twice are for member to see.
func (s *scanner) object(path string, member func(name string) error) error {
	if s.space(); s.peek() != '{' {
		return invalid(path, "expected an object, at byte %d", s.pos)
	}
	s.pos++
	if s.space(); s.peek() == '}' {
		s.pos++
		return nil
	}
	for {
		s.space()
		name, err := s.text(path)
		if err != nil {
			return err
		}
		if s.space(); s.peek() != ':' {
			return invalid(path, "expected ':' after the name %q, at byte %d", shorten(name), s.pos)
		}
		s.pos++
		if err := member(name); err != nil {
			return err
		}
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
		case '}':
			s.pos++
			return nil
		default:
			return invalid(path, "expected ',' or '}', at byte %d", s.pos)
		}
	}
}

// boolean takes the two words and no others: null or 0 would be a guess.
func (s *scanner) boolean(path string, into *bool) error {
	s.space()
	for _, word := range []string{"true", "false"} {
		if bytes.HasPrefix(s.in[s.pos:], []byte(word)) {
			s.pos += len(word)
			*into = word == "true"
			return nil
		}
	}
	return invalid(path, "expected true or false, at byte %d", s.pos)
}

// text reads a string. The result is a copy, so it may outlive the body.
func (s *scanner) text(path string) (string, error) {
	s.space()
	raw, plain, err := s.stringLiteral(path)
	if err != nil {
		return "", err
	}
	if plain {
		return string(raw[1 : len(raw)-1]), nil
	}
	out, err := jsontext.AppendUnquote(nil, raw)
	if err != nil {
		return "", invalid(path, "the string at byte %d is not valid JSON: %v", s.pos-len(raw), err)
	}
	return string(out), nil
}

// stringLiteral delimits a string, quotes included; plain says that its bytes are its value. raw
// aliases the body. An escape is not looked into here, only passed over: unquoting refuses bad ones.
func (s *scanner) stringLiteral(path string) (raw []byte, plain bool, err error) {
	if s.peek() != '"' {
		return nil, false, invalid(path, "expected a string, at byte %d", s.pos)
	}
	plain = true
	for i := s.pos + 1; i < len(s.in); i++ {
		switch c := s.in[i]; {
		case c == '"':
			raw = s.in[s.pos : i+1]
			s.pos = i + 1
			return raw, plain, nil
		case c == '\\':
			plain = false
			i++
		case c < ' ':
			return nil, false, invalid(path, "a control character inside a string must be escaped, at byte %d", i)
		}
	}
	return nil, false, invalid(path, "the string that starts at byte %d does not end", s.pos)
}

// skip delimits any value that starts with a bracket. It counts brackets and does not tell their kinds
// apart, which is enough to find an end: what is inside is for the engine, see [scanner].
func (s *scanner) skip(path string) ([]byte, error) {
	start, depth := s.pos, 0
	for i := start; i < len(s.in); i++ {
		switch s.in[i] {
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				s.pos = i + 1
				return s.in[start:s.pos], nil
			}
		case '"':
			for i++; i < len(s.in) && s.in[i] != '"'; i++ {
				if s.in[i] == '\\' {
					i++
				}
			}
		}
	}
	return nil, invalid(path, "the value that starts at byte %d does not end", start)
}

// space passes over JSON's four white characters, and no others.
func (s *scanner) space() {
	for s.pos < len(s.in) {
		switch s.in[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return
		}
	}
}

// peek is the next byte, 0 at the end: no structure starts with it.
func (s *scanner) peek() byte {
	if s.pos < len(s.in) {
		return s.in[s.pos]
	}
	return 0
}

// invalidAt is where a text stops being UTF-8, for the message.
func invalidAt(body []byte) int {
	at := 0
	for at < len(body) {
		r, n := utf8.DecodeRune(body[at:])
		if r == utf8.RuneError && n == 1 {
			break
		}
		at += n
	}
	return at
}

// invalid makes the error for a member; its path is shown shortened, since it may be
// the caller's own text.
func invalid(path, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if path == "" {
		return &copse.Error{Kind: copse.Invalid, Detail: text}
	}
	path = shorten(path)
	return &copse.Error{Kind: copse.Invalid, Detail: path + ": " + text,
		Fields: []copse.Field{{Path: path, Message: text}}}
}

// shorten keeps a caller's own long name out of answers and logs.
func shorten(name string) string {
	const most = 80
	if len(name) <= most {
		return name
	}
	return name[:most] + "..."
}
