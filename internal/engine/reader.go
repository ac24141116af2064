package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
)

// reader reads JSON token by token and can say of each where it stands: by member path, line and
// column. Schemas are looked through with it before they are decoded, and where request data is at
// fault, it reads up to there once more.
type reader struct {
	dec  *jsontext.Decoder
	text []byte
	// root is the member path the text was found at; inText says that the text is one string there,
	// so that findings have a line and column inside it.
	root   string
	inText bool
}

// newReader reads text, which must not change meanwhile. Names that occur twice and text that is not UTF-8
// are errors.
func newReader(root string, inText bool, text []byte) *reader {
	return &reader{dec: jsontext.NewDecoder(bytes.NewBuffer(text)), text: text, root: root, inText: inText}
}

// fail makes the error for the value or name read last.
func (r *reader) fail(format string, args ...any) error {
	return r.failAt(r.dec.StackPointer(), int(r.dec.InputOffset()), fmt.Sprintf(format, args...))
}

// failAt makes the error for a place. Where the text is one string of the request, the path ends there,
// and the way on from it is part of the message, with line and column.
func (r *reader) failAt(pointer jsontext.Pointer, offset int, message string) error {
	where := memberPath(pointer)
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

// token reads the next token, turning a syntax error into a finding. It checks as it goes: what was read
// so far is sound.
func (r *reader) token() (jsontext.Token, error) {
	token, err := r.dec.ReadToken()
	if err != nil {
		return token, r.syntax(err)
	}
	return token, nil
}

// syntax words an error of the decoder as a finding. Text that is not UTF-8 is called that, whatever the
// decoder stumbled over.
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

// end checks that nothing follows the value. It is for who has read one whole value.
func (r *reader) end() error {
	if _, err := r.dec.ReadToken(); err == nil {
		return r.fail("there is something after the value's end")
	} else if !errors.Is(err, io.EOF) {
		return r.fail("there is something after the value's end")
	}
	return nil
}

// describe names what a value is, in a finding.
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
