package avp

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/copse-authz/copse"
)

// findings collects what is wrong with a request, so that one answer names all of it. Messages are in
// the words of AWS's. The zero value is ready to use; findings are of one request and one goroutine.
type findings struct{ fields []copse.Field }

// add takes the path of a member as fieldList has it, and a message that may quote the value's size but
// not the value: a request may hold secrets.
func (f *findings) add(path, format string, args ...any) {
	f.fields = append(f.fields, copse.Field{Path: path, Message: fmt.Sprintf(format, args...)})
}

// err is nil when nothing was found.
func (f *findings) err() error {
	if len(f.fields) == 0 {
		return nil
	}
	return &copse.Error{Kind: copse.Invalid, Detail: "Invalid input", Fields: f.fields}
}

// positioned puts a field's place in the text before its message.
func positioned(f copse.Field) string {
	if f.Line == 0 {
		return f.Message
	}
	return fmt.Sprintf("line %d, column %d: %s", f.Line, f.Column, f.Message)
}

// required reports whether the member is there; an empty text counts as absent where one character is
// the least. A check that goes on to look inside what may be absent depends on the result.
func (f *findings) required(path string, present bool) bool {
	if !present {
		f.add(path, "Member must not be null")
	}
	return present
}

// text checks a length in characters, as the service model counts.
func (f *findings) text(path, value string, least, most int) {
	if n := utf8.RuneCountInString(value); n < least || n > most {
		f.add(path, "Member must have length between %d and %d, has %d", least, most, n)
	}
}

// pattern checks a value against one of the service model's expressions.
func (f *findings) pattern(path, value string, want *regexp.Regexp) {
	if !want.MatchString(value) {
		f.add(path, "Member must satisfy regular expression pattern: %s", want)
	}
}

// list checks audiences and client ids, which are compared with what a token says byte by byte. Each
// has at least one character, and 255 at most.
func (f *findings) list(path string, values []string, least, most int) {
	if n := len(values); n < least || n > most {
		f.add(path, "Member must have length between %d and %d, has %d", least, most, n)
		return
	}
	for i, v := range values {
		f.text(fmt.Sprintf("%s[%d]", path, i), v, 1, 255)
	}
}

// claim checks the name of a claim. nil is fine: the identity source's default applies.
func (f *findings) claim(path string, name *string) {
	if name != nil {
		f.text(path, *name, 1, 255)
	}
}

// id checks a required identifier: 1 to 200 of letters, digits, - / and _. Aliases and policies' names
// go the same way as ids, which is why the pattern has slash and underscore.
func (f *findings) id(path, value string) {
	if !f.required(path, value != "") {
		return
	}
	f.text(path, value, 1, 200)
	if !onlyIDChars(value) {
		f.add(path, "Member must satisfy regular expression pattern: [a-zA-Z0-9-/_]*")
	}
}

// onlyIDChars passes an empty text; who does not want that asks for a length.
func onlyIDChars(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '/' || c == '_') {
			return false
		}
	}
	return true
}

// clientToken checks the form of an idempotency token. Its pattern is
// that of ids without slash and underscore.
func (f *findings) clientToken(value *string) {
	if value == nil {
		return
	}
	f.text("clientToken", *value, 1, 64)
	if strings.ContainsAny(*value, "/_") || !onlyIDChars(*value) {
		f.add("clientToken", "Member must satisfy regular expression pattern: [a-zA-Z0-9-]*")
	}
}

// namePrefix is how AVP shows a policy's name; inside copse names have no prefix.
const namePrefix = "name/"

// policyName checks a name; the empty one means none. With an update, none clears the name and an
// absent member keeps it: the operation tells them apart.
func (f *findings) policyName(value *string) {
	if value == nil || *value == "" {
		return
	}
	f.text("name", *value, 0, 150)
	bare, ok := strings.CutPrefix(*value, namePrefix)
	if !ok || bare == "" || !onlyIDChars(bare) {
		f.add("name", "Member must satisfy regular expression pattern: name/[a-zA-Z0-9-/_]+")
	}
}

// description bounds an optional text; absent and empty both pass.
func (f *findings) description(path string, value *string) {
	if value != nil {
		f.text(path, *value, 0, copse.MaxDescriptionBytes)
	}
}

// enum checks a value against those the model lists.
func (f *findings) enum(path, value string, allowed ...string) {
	for _, a := range allowed {
		if value == a {
			return
		}
	}
	f.add(path, "Member must satisfy enum value set: [%s]", strings.Join(allowed, ", "))
}

// oneOf checks a union: exactly one member is set. A union with two members would let two readers of
// one message see different things; one with none says nothing.
func (f *findings) oneOf(path string, set ...bool) bool {
	n := 0
	for _, s := range set {
		if s {
			n++
		}
	}
	if n != 1 {
		f.add(path, "Member must have exactly one of its variants set, has %d", n)
	}
	return n == 1
}

// entity checks an entity identifier. Lengths are in bytes, as everywhere in copse. The bounds are
// copse's, which are AVP's numbers; form is the engine's to check.
func (f *findings) entity(path string, e entityIdentifier) {
	f.bytes(path+".entityType", e.EntityType, copse.MaxEntityTypeBytes)
	f.bytes(path+".entityId", e.EntityID, copse.MaxEntityIDBytes)
}

// action checks an action identifier.
func (f *findings) action(path string, a actionIdentifier) {
	f.bytes(path+".actionType", a.ActionType, copse.MaxEntityTypeBytes)
	f.bytes(path+".actionId", a.ActionID, copse.MaxActionIDBytes)
	prefix, isAction := strings.CutSuffix(a.ActionType, "::Action")
	if a.ActionType != "" && a.ActionType != "Action" && (!isAction || prefix == "") {
		f.add(path+".actionType", "Member must satisfy regular expression pattern: ^Action$|^.+::Action$")
	}
}

// bytes is [findings.text] for what copse counts in bytes: identifiers,
// which are keys and go into the index.
func (f *findings) bytes(path, value string, most int) {
	switch {
	case value == "":
		f.add(path, "Member must not be null or empty")
	case len(value) > most:
		f.add(path, "Member must have length between 1 and %d, has %d bytes", most, len(value))
	}
}
