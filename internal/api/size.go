package api

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
)

// A body is decoded into maps and checked against its schema before it becomes a request, and that
// costs by the value and by the finding, not by the byte: a few bytes each, if they are meant to. Every
// body that could be accepted is far below these.
const (
	maxElements = copse.MaxContentsWrites // of one list: policies, and an issuer's tenants
	maxValues   = 5 * maxElements         // an object, its name, statement and description, and all else
	maxNesting  = 16
)

// checkSize refuses a body of more values than an operation could take, at the first that is too many.
// It says nothing about text that is not JSON: what decodes it does, and gets no further than this. It
// comes before all decoding, costs one pass over the bytes, and remembers nothing but depth and counts.
func checkSize(body []byte) error {
	dec := jsontext.NewDecoder(bytes.NewBuffer(body))
	// A value counts where it ends up: in a list, by its place there; in all, by one.
	// Names are no values.
	for values := 0; ; {
		token, err := dec.ReadToken()
		if err != nil {
			return nil
		}
		depth := dec.StackDepth()
		in, length := dec.StackIndex(depth)
		// What closes was counted when it opened.
		switch token.Kind() {
		case '}', ']':
			continue
		case '{', '[':
			if depth > maxNesting {
				return tooMany("", "is nested to a depth of more than %d", maxNesting)
			}
			// An opening bracket is already inside; what it is an element of is one level up.
			in, length = dec.StackIndex(depth - 1)
		default: // a value by itself: counted below where it stands
		}
		if in == '{' && length%2 == 1 {
			continue // a member's name
		}
		// The index is the number so far, so the list need not be whole to be too long.
		if in == '[' && length > maxElements {
			return tooMany(dec.StackPointer().Parent(), "holds more than %d elements, which is the most of any list", maxElements)
		}
		if values++; values > maxValues {
			return tooMany("", "holds more than %d values, which is the most of any request", maxValues)
		}
	}
}

// tooMany says where in the words of every other finding, with dots.
func tooMany(where jsontext.Pointer, format string, limit int) error {
	path := "body"
	if where != "" {
		path = shorten(strings.ReplaceAll(string(where[1:]), "/", "."))
	}
	message := fmt.Sprintf(format, limit)
	return &copse.Error{Kind: copse.Invalid, Detail: path + " " + message, Fields: []copse.Field{{Path: path, Message: message}}}
}

// shorten keeps what a client wrote from filling its answer.
func shorten(text string) string {
	const most = 300
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}
