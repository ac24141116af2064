package engine

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/copse-authz/copse"
)

// maxFindings bounds an error's Fields: a hostile policy must not turn into megabytes of answer.
const maxFindings = 100

// maxMessageBytes bounds one message, for the same reason: cedar-go quotes whole types and values.
const maxMessageBytes = 1000

// position is a place in a text: 1-based line and column, column in bytes.
type position struct{ line, column int }

// positionAt finds the place of a byte offset. It is called on the way to an error only, so it may
// count from the start.
func positionAt(text []byte, offset int) position {
	offset = min(max(offset, 0), len(text))
	before := text[:offset]
	return position{
		line:   1 + bytes.Count(before, []byte{'\n'}),
		column: offset - bytes.LastIndexByte(before, '\n'),
	}
}

// advance moves a position over text that follows it. It takes the time of that text, not of all before
// it.
func (p position) advance(text string) position {
	if i := strings.LastIndexByte(text, '\n'); i >= 0 {
		return position{line: p.line + strings.Count(text, "\n"), column: len(text) - i}
	}
	return position{line: p.line, column: p.column + len(text)}
}

// field makes a finding there; the zero position is none. The message is clipped.
func (p position) field(path, format string, args ...any) copse.Field {
	return copse.Field{Path: path, Message: clip(fmt.Sprintf(format, args...)), Line: p.line, Column: p.column}
}

// clip shortens a message at a character border. It marks where it was cut.
func clip(s string) string {
	if len(s) <= maxMessageBytes {
		return s
	}
	cut := maxMessageBytes
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}

// policyError, schemaError and requestError make errors of kind Invalid, for three kinds of input.
func policyError(fields ...copse.Field) *copse.Error {
	return findings(copse.ResourcePolicy, "the policy is not valid", fields)
}

func schemaError(fields ...copse.Field) *copse.Error {
	return findings(copse.ResourceSchema, "the schema is not valid", fields)
}

func requestError(path, format string, args ...any) *copse.Error {
	return findings("", "the request is not valid", []copse.Field{{Path: path, Message: clip(fmt.Sprintf(format, args...))}})
}

// findings makes an error of at most maxFindings fields, and one that says so if there are more. How many is not
// known: looking ends soon after.
func findings(resource copse.ResourceType, detail string, fields []copse.Field) *copse.Error {
	if len(fields) > maxFindings {
		last := fields[maxFindings]
		fields = append(fields[:maxFindings:maxFindings], copse.Field{
			Path: last.Path, Message: "and more findings, which are not shown"})
	}
	return &copse.Error{Kind: copse.Invalid, Resource: resource, Detail: detail, Fields: fields}
}

// sizeError is of kind QuotaExceeded: a text that is too long may be right otherwise, and was not read.
func sizeError(resource copse.ResourceType, path string, size, limit int) *copse.Error {
	what := "policy"
	if resource == copse.ResourceSchema {
		what = "schema"
	}
	return &copse.Error{
		Kind: copse.QuotaExceeded, Resource: resource,
		Detail: fmt.Sprintf("a %s has at most %d bytes, this one has %d", what, limit, size),
		Fields: []copse.Field{{Path: path, Message: fmt.Sprintf("%d bytes, at most %d are allowed", size, limit)}},
	}
}
