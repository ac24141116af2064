package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
)

// maxValueDepth is how deep sets and records may nest in entities and context.
const maxValueDepth = 64

// reader decodes one piece of request data token by token, strictly: duplicate member names, unknown
// members and invalid UTF-8 are refused, and nothing is built before it is checked.
type reader struct {
	dec  *jsontext.Decoder
	text []byte
	// root is the member path the text was found at; inText says that the text is one string there,
	// so that findings have a line and column inside it.
	root   string
	inText bool
	// A detached reader reads a part of text: from base on, found below the member path prefix.
	base   int
	prefix string

	// allowMember may refuse a member of a context by name.
	allowMember func(*reader, types.String) error

	depth int
	sets  *setCosts
	// size counts what is read: one for each scalar, set and record, and one for each 16 bytes of text.
	// largest is the size of the largest attribute, total of all of them with their names.
	size, largest, total uint64
}

func newReader(root string, inText bool, text []byte, sets *setCosts) *reader {
	return &reader{dec: jsontext.NewDecoder(bytes.NewBuffer(text)), text: text, root: root, inText: inText, sets: sets}
}

// fail makes the error for the value or name read last.
func (r *reader) fail(format string, args ...any) error {
	return r.failAt(r.dec.StackPointer(), int(r.dec.InputOffset()), fmt.Sprintf(format, args...))
}

func (r *reader) failAt(pointer jsontext.Pointer, offset int, message string) error {
	where := r.prefix + memberPath(pointer)
	offset += r.base
	field := copse.Field{Path: r.root, Message: clip(message)}
	if r.inText {
		at := positionAt(r.text, offset)
		field.Line, field.Column = at.line, at.column
		if where != "" {
			field.Message = clip(strings.TrimPrefix(where, ".") + ": " + message)
		}
	} else {
		field.Path += where
	}
	return findings("", "the request is not valid", []copse.Field{field})
}

// memberPath writes a JSON pointer the way field paths are written: /0/attributes/age becomes
// [0].attributes.age. Names are clipped, for they are the caller's.
func memberPath(pointer jsontext.Pointer) string {
	var b strings.Builder
	for token := range pointer.Tokens() {
		if len(token) > 100 {
			token = strings.ToValidUTF8(token[:100], "") + "..."
		}
		if _, err := strconv.ParseUint(token, 10, 31); err == nil {
			b.WriteString("[" + token + "]")
		} else if token == "" {
			b.WriteString(`.""`)
		} else {
			b.WriteString("." + token)
		}
		if b.Len() > maxMessageBytes/2 {
			b.WriteString("...")
			break
		}
	}
	return b.String()
}

// token reads the next token, turning a syntax error into a finding.
func (r *reader) token() (jsontext.Token, error) {
	token, err := r.dec.ReadToken()
	if err != nil {
		return token, r.syntax(err)
	}
	return token, nil
}

func (r *reader) syntax(err error) error {
	fault, ok := errors.AsType[*jsontext.SyntacticError](err)
	if !ok {
		return r.fail("not valid JSON: it ends too early")
	}
	message := "not valid JSON: " + fault.Err.Error()
	switch {
	case !utf8.Valid(r.text):
		message = "not valid JSON: it is not UTF-8"
	case errors.Is(err, jsontext.ErrDuplicateName):
		message = "the member name occurs twice"
	case errors.Is(err, io.ErrUnexpectedEOF):
		message = "not valid JSON: it ends too early"
	}
	return r.failAt(fault.JSONPointer, int(fault.ByteOffset), message)
}

func (r *reader) begin(kind jsontext.Kind, what string) error {
	token, err := r.token()
	if err != nil {
		return err
	}
	if token.Kind() != kind {
		return r.fail("expected %s, found %s", what, describe(token.Kind()))
	}
	return nil
}

// object reads an object member by member; member must consume the member's value.
func (r *reader) object(what string, member func(name string) error) error {
	if err := r.begin('{', what); err != nil {
		return err
	}
	for r.dec.PeekKind() != '}' {
		raw, err := r.dec.ReadValue()
		if err != nil {
			return r.syntax(err)
		}
		if err := member(memberName(raw)); err != nil {
			return err
		}
	}
	_, err := r.token()
	return err
}

// memberName unquotes the name of a member. Most are one of the formats' own and need no allocation.
func memberName(raw []byte) string {
	if bytes.IndexByte(raw, '\\') >= 0 {
		text, _ := jsontext.AppendUnquote(nil, raw)
		return string(text)
	}
	switch name := raw[1 : len(raw)-1]; string(name) {
	case "identifier":
		return "identifier"
	case "attributes":
		return "attributes"
	case "parents":
		return "parents"
	case "tags":
		return "tags"
	case "entityType":
		return "entityType"
	case "entityId":
		return "entityId"
	case "string":
		return "string"
	case "long":
		return "long"
	case "boolean":
		return "boolean"
	case "uid":
		return "uid"
	case "attrs":
		return "attrs"
	case "type":
		return "type"
	case "id":
		return "id"
	default:
		return string(name)
	}
}

// array reads an array element by element; element must consume one value.
func (r *reader) array(what string, element func() error) error {
	if err := r.begin('[', what); err != nil {
		return err
	}
	for {
		switch r.dec.PeekKind() {
		case ']':
			_, err := r.token()
			return err
		default:
			if err := element(); err != nil {
				return err
			}
		}
	}
}

func (r *reader) string(what string) (string, error) {
	token, err := r.token()
	if err != nil {
		return "", err
	}
	if token.Kind() != '"' {
		return "", r.fail("expected %s, found %s", what, describe(token.Kind()))
	}
	return token.String(), nil
}

// long reads a number that is a 64-bit integer exactly as written.
func (r *reader) long() (types.Value, error) {
	token, err := r.token()
	if err != nil {
		return nil, err
	}
	if token.Kind() != '0' {
		return nil, r.fail("expected an integer, found %s", describe(token.Kind()))
	}
	text := token.String()
	if text == "-0" || strings.ContainsAny(text, ".eE") {
		return nil, r.fail("%s is not a Long: Cedar's numbers are integers", clip(text))
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, r.fail("%s is not a Long: it does not fit into 64 bits", clip(text))
	}
	r.size++
	return types.Long(n), nil
}

// detach cuts out the next value, to be read later by the reader it returns.
func (r *reader) detach() (*reader, error) {
	raw, err := r.dec.ReadValue()
	if err != nil {
		return nil, r.syntax(err)
	}
	return &reader{
		dec: jsontext.NewDecoder(bytes.NewBuffer(bytes.Clone(raw))), text: r.text, root: r.root, inText: r.inText,
		base: r.base + int(r.dec.InputOffset()) - len(raw), prefix: r.prefix + memberPath(r.dec.StackPointer()),
		depth: r.depth, sets: r.sets,
	}, nil
}

// end checks that nothing follows the value.
func (r *reader) end() error {
	if _, err := r.dec.ReadToken(); err == nil {
		return r.fail("there is something after the value's end")
	} else if !errors.Is(err, io.EOF) {
		return r.fail("there is something after the value's end")
	}
	return nil
}

// attribute reads the value of one attribute, tag or context member.
func (r *reader) attribute(name types.String, read func() (types.Value, error)) (types.Value, error) {
	if r.allowMember != nil {
		if err := r.allowMember(r, name); err != nil {
			return nil, err
		}
	}
	r.size = 0
	v, err := read()
	r.largest = max(r.largest, r.size)
	r.total += 1 + r.size + textSize(len(name))
	return v, err
}

func (r *reader) enter() error {
	if r.depth++; r.depth > maxValueDepth {
		return r.fail("sets and records nest more than %d deep", maxValueDepth)
	}
	return nil
}

func (r *reader) leave() { r.depth-- }

// set builds a set within the bounds of maxSetWork.
func (r *reader) set(elements []types.Value) (types.Value, error) {
	if !r.sets.add(elements) {
		return nil, r.fail("the values in the sets up to here clash: to tell them apart takes more than %d comparisons", maxSetWork)
	}
	r.size++
	return types.NewSet(elements...), nil
}

// uid checks an entity identifier that was read.
func (r *reader) uid(entityType, id string) (types.EntityUID, error) {
	uid := types.EntityUID{Type: types.EntityType(entityType), ID: types.String(id)}
	if message := checkUID(uid); message != "" {
		return types.EntityUID{}, r.fail("%s", message)
	}
	r.size += 1 + textSize(len(id))
	return uid, nil
}

// checkUID says what is wrong with an entity identifier, or nothing.
func checkUID(uid types.EntityUID) string {
	limit := copse.MaxEntityIDBytes
	if isActionType(uid.Type) {
		limit = copse.MaxActionIDBytes
	}
	switch {
	case uid.Type == "":
		return "the entity type is missing"
	case len(uid.Type) > copse.MaxEntityTypeBytes:
		return fmt.Sprintf("an entity type has at most %d bytes, this one has %d", copse.MaxEntityTypeBytes, len(uid.Type))
	case len(uid.ID) > limit:
		return fmt.Sprintf("an entity id of type %s has at most %d bytes, this one has %d", uid.Type, limit, len(uid.ID))
	case !utf8.ValidString(string(uid.ID)):
		return "the entity id is not valid UTF-8"
	}
	if _, err := types.NewEntityType(string(uid.Type)); err != nil {
		return fmt.Sprintf("%q is not an entity type: expected names joined by ::", string(uid.Type))
	}
	return ""
}

// isActionType reports whether entities of the type are actions.
func isActionType(t types.EntityType) bool {
	return t == "Action" || strings.HasSuffix(string(t), "::Action")
}

func describe(kind jsontext.Kind) string {
	switch kind {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	default:
		return "something else"
	}
}

// extension parses the text of an extension value. fn is Cedar's constructor name.
func (r *reader) extension(fn, text string) (types.Value, error) {
	value, err := parseExtension(fn, text)
	if err != nil {
		return nil, r.fail("%q is not a valid %s", clip(text), extensionType(fn))
	}
	r.size++
	return value, nil
}

func parseExtension(fn, text string) (types.Value, error) {
	switch fn {
	case "ip":
		return types.ParseIPAddr(text)
	case "decimal":
		// strconv lets a plus sign pass, Cedar does not.
		if strings.HasPrefix(text, "+") {
			return nil, errors.New("a decimal has no plus sign")
		}
		return types.ParseDecimal(text)
	case "datetime":
		return types.ParseDatetime(text)
	case "duration":
		return types.ParseDuration(text)
	default:
		return nil, fmt.Errorf("unknown extension function %q", fn)
	}
}

func extensionType(fn string) string {
	if fn == "ip" {
		return "ipaddr"
	}
	return fn
}
