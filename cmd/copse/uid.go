package main

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// parseUID reads an entity as Cedar writes it: Type::"id". what names the flag in errors, which are all
// wrong usage. Whether the type is a name is for the server to say.
func parseUID(what, s string) (entityType, id string, err error) {
	// From the left: the id may hold the same three characters, a type can't.
	cut := strings.Index(s, `::"`)
	// An empty id still has two quotes, and a type has at least one character.
	if cut < 1 || len(s) < cut+4 || !strings.HasSuffix(s, `"`) {
		return "", "", usagef(`%s %q is not an entity; write Type::"id", in single quotes for the shell: --%s 'Invoice::"42"'`, what, s, what)
	}
	entityType = s[:cut]
	id, ok := unescape(s[cut+3 : len(s)-1])
	if !ok {
		return "", "", usagef(`%s %q: the id is not a Cedar string; escape quotes and backslashes with a backslash`, what, s)
	}
	return entityType, id, nil
}

// parseAction takes a bare id for the type Action, the one nearly every schema uses. A bare id is taken as
// it is, with nothing escaped in it.
func parseAction(s string) (actionType, id string, err error) {
	if !strings.Contains(s, `::"`) {
		return "Action", s, nil
	}
	return parseUID("action", s)
}

// unescape reads the inside of a Cedar string literal; false for a quote or an escape that none can hold,
// and for bytes that are no UTF-8.
func unescape(s string) (string, bool) {
	var b strings.Builder
	for s != "" {
		if s[0] == '"' {
			return "", false
		}
		if s[0] != '\\' {
			// The replacement character itself may stand in an id; a byte that decodes to it may not.
			r, n := utf8.DecodeRuneInString(s)
			if r == utf8.RuneError && n == 1 {
				return "", false
			}
			b.WriteString(s[:n])
			s = s[n:]
			continue
		}
		r, n := unescapeOne(s)
		if n == 0 {
			return "", false
		}
		b.WriteRune(r)
		s = s[n:]
	}
	return b.String(), true
}

// unescapeOne reads the escape that s starts with; 0 bytes when there is none such in Cedar. They are
// Rust's: \x goes up to 7f, and \u{...} has one to six digits.
func unescapeOne(s string) (rune, int) {
	if len(s) < 2 {
		return 0, 0
	}
	switch s[1] {
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case '0':
		return 0, 2
	case '\\', '"', '\'':
		return rune(s[1]), 2
	case 'x':
		if len(s) < 4 {
			return 0, 0
		}
		v, err := strconv.ParseUint(s[2:4], 16, 8)
		if err != nil || v > 0x7f {
			return 0, 0
		}
		return rune(v), 4
	// Surrogates and what is above 10ffff are no characters.
	case 'u':
		end := strings.IndexByte(s, '}')
		if len(s) < 4 || s[2] != '{' || end < 4 || end > 9 {
			return 0, 0
		}
		v, err := strconv.ParseUint(s[3:end], 16, 32)
		if err != nil || !utf8.ValidRune(rune(v)) {
			return 0, 0
		}
		return rune(v), end + 1
	}
	return 0, 0
}
