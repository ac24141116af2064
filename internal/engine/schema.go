package engine

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
)

// Syntax is how a schema is written.
type Syntax uint8

// The two syntaxes of a Cedar schema.
const (
	SyntaxJSON Syntax = iota
	SyntaxCedar
)

// Schema is a schema that resolved. It is immutable. It keeps none of its text but the same schema in
// JSON.
type Schema struct {
	// resolved is cedar-go's form; json is the same in Cedar's JSON, whatever it was written in;
	// namespaces are sorted.
	resolved   *resolved.Schema
	json       []byte
	namespaces []string
	nodes      uint64 // expanded size

	// The entities of each enum type, by their ids.
	enums map[types.EntityType]map[types.String]bool
	// symbols number what the schema names. entities are by the numbers of their types, actions by their
	// own.
	symbols  *symbols
	entities []entityShape
	actions  []actionShape
	// typeAncestors are the transitive parent types of each entity type that has any.
	typeAncestors map[types.EntityType]map[types.EntityType]bool
	// actionAncestors are the groups each action is in, directly or not.
	actionAncestors map[types.EntityUID][]types.EntityUID
	costs           typeCosts
	weight          int64
}

// ParseSchema reads a schema. file names it in error positions. Everything hostile is refused before it is
// written out: by size, by what guards the parser, and by what it would expand to. An error is a
// *copse.Error, of kind QuotaExceeded if the text is too long and else Invalid, with places where they are
// known.
func ParseSchema(file string, text []byte, syntax Syntax) (*Schema, error) {
	if len(text) > copse.MaxSchemaBytes {
		return nil, sizeError(copse.ResourceSchema, file, len(text), copse.MaxSchemaBytes)
	}
	src := &schemaSource{file: file, text: text, syntax: syntax}
	parsed, err := src.parse()
	if err != nil {
		return nil, err
	}
	// Before Resolve, which writes common types out.
	nodes, err := src.measure(parsed.AST())
	if err != nil {
		return nil, err
	}
	s := &Schema{nodes: nodes}
	if s.resolved, err = parsed.Resolve(); err != nil {
		return nil, src.located(err.Error())
	}
	if err := s.closeOver(src); err != nil {
		return nil, err
	}
	if s.json, err = parsed.MarshalJSON(); err != nil {
		return nil, src.located(err.Error())
	}
	// What stands outside of any namespace is in the empty one, which is only there if it has anything.
	tree := parsed.AST()
	if len(tree.Entities)+len(tree.Enums)+len(tree.Actions)+len(tree.CommonTypes) > 0 {
		s.namespaces = append(s.namespaces, "")
	}
	for name := range tree.Namespaces {
		s.namespaces = append(s.namespaces, string(name))
	}
	slices.Sort(s.namespaces)
	s.enums = make(map[types.EntityType]map[types.String]bool, len(s.resolved.Enums))
	for name, enum := range s.resolved.Enums {
		s.enums[name] = make(map[types.String]bool, len(enum.Values))
		for _, v := range enum.Values {
			s.enums[name][v.ID] = true
		}
	}
	s.shapes()
	s.costs = costsOf(s)
	s.weight = s.weigh()
	return s, nil
}

// JSON is the schema in Cedar's JSON syntax. The caller may change it.
func (s *Schema) JSON() []byte { return slices.Clone(s.json) }

// Namespaces it declares, sorted; "" is the empty one.
func (s *Schema) Namespaces() []string { return slices.Clone(s.namespaces) }

// knows reports whether the schema declares an entity type, enums included.
func (s *Schema) knows(t types.EntityType) bool {
	if _, ok := s.resolved.Entities[t]; ok {
		return true
	}
	_, ok := s.resolved.Enums[t]
	return ok
}

// enumViolation says what is wrong with an entity of an enum type, or nothing. An entity of another type
// is none.
func (s *Schema) enumViolation(uid types.EntityUID) string {
	values, ok := s.enums[uid.Type]
	if !ok || values[uid.ID] {
		return ""
	}
	return uid.String() + " is not one of the entities the schema declares for the enum type " + string(uid.Type)
}

// maxTypeAncestors bounds the pairs of entity types where one is above the other.
const maxTypeAncestors = 100_000

// closeOver computes both hierarchies once, within bounds. A type may be above itself, as one of groups
// that are in groups.
func (s *Schema) closeOver(src *schemaSource) error {
	s.typeAncestors = map[types.EntityType]map[types.EntityType]bool{}
	pairs := 0
	for name, entity := range s.resolved.Entities {
		if len(entity.ParentTypes) == 0 {
			continue
		}
		above := map[types.EntityType]bool{}
		queue := slices.Clone(entity.ParentTypes)
		for len(queue) > 0 {
			next := queue[len(queue)-1]
			queue = queue[:len(queue)-1]
			if above[next] {
				continue
			}
			above[next] = true
			if pairs++; pairs > maxTypeAncestors {
				return src.refuse("the hierarchy of entity types has more than %d pairs of a type and one above it", maxTypeAncestors)
			}
			// Enum types have no parents, and are not found here.
			queue = append(queue, s.resolved.Entities[next].ParentTypes...)
		}
		s.typeAncestors[name] = above
	}
	s.actionAncestors = make(map[types.EntityUID][]types.EntityUID, len(s.resolved.Actions))
	for uid := range s.resolved.Actions {
		if err := s.closeAction(src, uid); err != nil {
			return err
		}
	}
	return nil
}

// closeAction finds the groups above an action, with the bound that requests have for other entities.
func (s *Schema) closeAction(src *schemaSource, uid types.EntityUID) error {
	var above []types.EntityUID
	queue := s.resolved.Actions[uid].Entity.Parents.Slice()
	for len(queue) > 0 {
		next := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		if slices.Contains(above, next) {
			continue
		}
		if above = append(above, next); len(above) > copse.MaxParents {
			return src.refuse("the action %s is in more than %d groups, counting groups of groups", uid, copse.MaxParents)
		}
		queue = append(queue, s.resolved.Actions[next].Entity.Parents.Slice()...)
	}
	if len(above) > 0 {
		s.actionAncestors[uid] = above
	}
	return nil
}

// schemaSource is a schema's text, for positions.
type schemaSource struct {
	file   string
	text   []byte
	syntax Syntax
}

// refuse makes an error about the schema as a whole, without a place.
func (src *schemaSource) refuse(format string, args ...any) error {
	return schemaError(position{}.field(src.file, format, args...))
}

// parse guards the text and hands it to cedar-go. Which of the two guards it needs depends on the syntax;
// after them no parser recurses deeper than they let it.
func (src *schemaSource) parse() (*schema.Schema, error) {
	parsed := new(schema.Schema)
	if src.syntax == SyntaxCedar {
		text, f := guardSchemaText(string(src.text))
		if f != nil {
			return nil, schemaError(positionAt(src.text, f.offset).field(src.file, "%s", f.message))
		}
		if err := parsed.UnmarshalCedar(text); err != nil {
			return nil, src.cedarError(err)
		}
		return parsed, nil
	}
	if err := src.guardJSON(); err != nil {
		return nil, err
	}
	if err := parsed.UnmarshalJSON(src.text); err != nil {
		return nil, src.located(jsonMessage(err, "this can't be read as a schema"))
	}
	return parsed, nil
}

// cedarError takes the position out of an error of cedar-go's schema parser: <input>:2:5: message. A
// message that is not of this form is placed by what it names.
func (src *schemaSource) cedarError(err error) error {
	message := err.Error()
	rest, ok := strings.CutPrefix(message, "<input>:")
	line, rest, ok1 := strings.Cut(rest, ":")
	column, rest, ok2 := strings.Cut(rest, ": ")
	l, err1 := strconv.Atoi(line)
	c, err2 := strconv.Atoi(column)
	if !ok || !ok1 || !ok2 || err1 != nil || err2 != nil {
		return src.located(message)
	}
	return schemaError(position{l, src.byteColumn(l, c)}.field(src.file, "%s", rest))
}

// byteColumn turns a column counted in characters into one counted in bytes.
func (src *schemaSource) byteColumn(line, column int) int {
	text := src.text
	for ; line > 1; line-- {
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	at := 1
	for ; column > 1 && len(text) > 0; column-- {
		_, size := utf8.DecodeRune(text)
		text = text[size:]
		at += size
	}
	return at
}

// guardJSON checks depth, duplicate names and UTF-8 token by token, before a decoder that recurses,
// and one thing that decoder overlooks. That is a shape which names a type instead of being a record.
func (src *schemaSource) guardJSON() error {
	r := newReader(src.file, true, src.text)
	for {
		tok, err := r.token()
		if err != nil {
			return asSchemaError(err)
		}
		depth := r.dec.StackDepth()
		if depth > maxNesting {
			return asSchemaError(r.fail("objects and arrays nest more than %d deep", maxNesting))
		}
		if depth == 5 && tok.Kind() == '"' && tok.String() != "Record" && isShapeType(r.dec) {
			return asSchemaError(r.fail("the shape of an entity type is a Record written out here, not the name of a type"))
		}
		if depth == 0 {
			break
		}
	}
	if err := r.end(); err != nil {
		return asSchemaError(err)
	}
	return nil
}

// isShapeType reports whether the token read last is the value of NAMESPACE.entityTypes.NAME.shape.type.
func isShapeType(dec *jsontext.Decoder) bool {
	// A member's name has an odd count of tokens behind it in its object, its value an even one. Level 5
	// is that of the shape's own members.
	if _, n := dec.StackIndex(5); n%2 != 0 {
		return false
	}
	path := slices.Collect(dec.StackPointer().Tokens())
	return len(path) == 5 && path[1] == "entityTypes" && path[3] == "shape" && path[4] == "type"
}

// asSchemaError makes the reader's findings, which it words for requests, those of a schema.
func asSchemaError(err error) error {
	if e, ok := errors.AsType[*copse.Error](err); ok {
		return schemaError(e.Fields...)
	}
	return err
}

// jsonMessage words an error of the JSON decoder without naming Go types. message is what to say if
// nothing more is known. The decoder's own words stay where they are not about Go.
func jsonMessage(err error, message string) string {
	semantic, ok := errors.AsType[*json.SemanticError](err)
	if !ok {
		return err.Error()
	}
	switch {
	case errors.Is(err, json.ErrUnknownName):
		message = "unknown member"
	case semantic.JSONKind != 0:
		message = describe(semantic.JSONKind) + " is not expected here"
	}
	prefix, _, found := strings.Cut(err.Error(), ": json: ")
	if found {
		message = prefix + ": " + message
	}
	where := strings.TrimPrefix(memberPath(semantic.JSONPointer), ".")
	if where != "" {
		message += " (" + where + ")"
	}
	return message
}

// located makes the error for a message, placed where the last name it quotes stands in the text. It is a
// guess that helps: cedar-go's resolver gives no positions.
func (src *schemaSource) located(message string) error {
	at := position{}
	if name := lastQuoted(message); name != "" {
		if offset, ok := src.find(name); ok {
			at = positionAt(src.text, offset)
		}
	}
	return schemaError(at.field(src.file, "%s", message))
}

// lastQuoted returns what stands in the last pair of quotes, or nothing.
func lastQuoted(message string) string {
	end := strings.LastIndexByte(message, '"')
	if end <= 0 {
		return ""
	}
	start := strings.LastIndexByte(message[:end], '"')
	if start < 0 {
		return ""
	}
	return message[start+1 : end]
}

// find looks for the first occurrence of a name: as a string in JSON, as tokens in Cedar syntax. That may
// be a use before the declaration, or part of another name's path.
func (src *schemaSource) find(name string) (int, bool) {
	if src.syntax == SyntaxJSON {
		offset := strings.Index(string(src.text), strconv.Quote(name))
		return offset, offset >= 0
	}
	want := strings.Split(name, "::")
	l := lexer{text: string(src.text)}
	matched, start := 0, 0
	for {
		tok, f := l.next()
		if f != nil || tok.kind == tokEnd {
			return 0, false
		}
		switch {
		case tok.kind == tokString && unquoteOrEmpty(tok.text) == name:
			return tok.start, true
		case tok.is("::") && matched > 0:
			continue
		case tok.kind == tokName && tok.text == want[matched]:
			if matched == 0 {
				start = tok.start
			}
			if matched++; matched == len(want) {
				return start, true
			}
		default:
			matched = 0
		}
	}
}

// unquoteOrEmpty is unquote for strings that nobody has checked.
func unquoteOrEmpty(literal string) string {
	if checkEscapes(literal, 0, false) != nil {
		return ""
	}
	return unquote(literal)
}
