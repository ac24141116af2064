package engine

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// tokenKind is what a lexer found.
type tokenKind uint8

const (
	tokEnd tokenKind = iota
	tokName
	tokNumber
	tokString
	tokOperator
)

// token is one token of Cedar policy or schema text. text is as it was written, of a string with its
// quotes; start and end are offsets of its bytes.
type token struct {
	kind  tokenKind
	text  string
	start int
	end   int
}

// is reports whether a token is this operator or word. A string never is one, whatever it contains.
func (t token) is(text string) bool {
	return t.text == text && (t.kind == tokOperator || t.kind == tokName)
}

// show names a token in a message.
func (t token) show() string {
	switch t.kind {
	case tokEnd:
		return "the end of the text"
	case tokString:
		if len(t.text) > 40 {
			return "a string"
		}
		return "the string " + t.text
	default:
		return "`" + clipTo(t.text, 60) + "`"
	}
}

// clipTo cuts a text to n bytes and what marks the cut. Of a character that is cut nothing stays.
func clipTo(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}

// lexer cuts Cedar text into tokens, in one pass and without allocating. It exists so that everything
// hostile is refused before cedar-go's parsers see the text: they recurse without a limit, and a
// stack overflow can't be recovered. The zero value with a text reads that from its beginning.
type lexer struct {
	text string
	at   int
	// odd says that the text met so far has what Cedar's reference reads and cedar-go does not, or reads
	// differently: then cedar-go is shown plainText of it.
	odd bool
}

// syntaxFault is a fault at a place, on its way to becoming a Field.
type syntaxFault struct {
	offset  int
	message string
}

// Error makes it an error of Go's. Its message is for users, but says no place.
func (f *syntaxFault) Error() string { return f.message }

// faultAt makes a fault at an offset of the text.
func faultAt(offset int, format string, args ...any) *syntaxFault {
	return &syntaxFault{offset: offset, message: fmt.Sprintf(format, args...)}
}

// checkText refuses what no Cedar text may contain, before anything else looks at it. NUL is refused
// though Cedar could read it, see docs/cedar.md. What passes can be quoted in an answer.
func checkText(text string) *syntaxFault {
	for i := 0; i < len(text); {
		c := text[i]
		if c == 0 {
			return faultAt(i, "a NUL character is not allowed here")
		}
		if c < utf8.RuneSelf {
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && size == 1 {
			return faultAt(i, "the text is not valid UTF-8 here")
		}
		i += size
	}
	return nil
}

// next returns the next token, at the end of the text one of kind tokEnd, again and again. After a fault
// it is not called again.
func (l *lexer) next() (token, *syntaxFault) {
	if f := l.skipSpace(); f != nil {
		return token{}, f
	}
	start := l.at
	if start == len(l.text) {
		return token{kind: tokEnd, start: start, end: start}, nil
	}
	c := l.text[start]
	var kind tokenKind
	switch {
	// Cedar's names are ASCII: a letter that only looks like one is refused below.
	case isNameByte(c) && !isDigit(c):
		kind = tokName
		for l.at < len(l.text) && isNameByte(l.text[l.at]) {
			l.at++
		}
	case isDigit(c):
		kind = tokNumber
		for l.at < len(l.text) && isDigit(l.text[l.at]) {
			l.at++
		}
	case c == '"':
		kind = tokString
		if f := l.skipString(); f != nil {
			return token{}, f
		}
	default:
		// Whatever begins no operator is no part of the language.
		kind = tokOperator
		width := operatorWidth(l.text[start:])
		if width == 0 {
			r, _ := utf8.DecodeRuneInString(l.text[start:])
			return token{}, faultAt(start, "the character %q is not part of the language", r)
		}
		l.at += width
	}
	return token{kind: kind, text: l.text[start:l.at], start: start, end: l.at}, nil
}

// skipSpace skips what Cedar's reference skips: Unicode's white space, and comments, which end at a
// carriage return too. What hides behind one in a comment for cedar-go may be a condition.
func (l *lexer) skipSpace() *syntaxFault {
	for l.at < len(l.text) {
		rest := l.text[l.at:]
		switch c := rest[0]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			l.at++
		case strings.HasPrefix(rest, "//"):
			// The line's end is left to the loop. A carriage return with a line feed ends the comment for
			// cedar-go too, so nothing is odd about that.
			end := strings.IndexAny(rest, "\r\n")
			if end < 0 {
				end = len(rest)
			} else if rest[end] == '\r' && !strings.HasPrefix(rest[end:], "\r\n") {
				l.odd = true
			}
			l.at += end
		case strings.HasPrefix(rest, "/*"):
			return faultAt(l.at, "Cedar has no comments like this: begin each of their lines with //")
		// White space other than the usual four is shown to cedar-go as spaces.
		default:
			r, size := utf8.DecodeRuneInString(rest)
			if !unicode.IsSpace(r) {
				return nil
			}
			l.odd = true
			l.at += size
		}
	}
	return nil
}

// skipString moves behind a string literal. What its escapes mean is checked by unquote.
func (l *lexer) skipString() *syntaxFault {
	start := l.at
	for l.at++; l.at < len(l.text); l.at++ {
		switch l.text[l.at] {
		case '"':
			l.at++
			return nil
		case '\n':
			// The reference takes a raw line end for a part of the string; cedar-go is shown its escape.
			l.odd = true
		case '\r':
			return faultAt(l.at, "a carriage return is not allowed inside of a string: write \\r")
		case '\\':
			l.at++
		}
	}
	l.at = len(l.text) // a backslash at the end moved past it
	return faultAt(start, "this string is not closed: expected \"")
}

// plainText writes sound text so that cedar-go reads it as Cedar's reference does: comments and what
// surrounds tokens become spaces, raw line ends in strings their escape, and the slots at the places
// given an entity. It never fails: from a fault on there is nothing more to write, and there is none in
// text that is sound.
func plainText(text string, slots ...int) []byte {
	out := make([]byte, 0, len(text)+16)
	l := lexer{text: text}
	for behind := 0; ; {
		tok, f := l.next()
		for _, r := range text[behind:tok.start] {
			// One byte for each character: cedar-go counts columns in characters.
			if r != '\n' {
				r = ' '
			}
			out = append(out, byte(r))
		}
		if f != nil || tok.kind == tokEnd {
			return out
		}
		switch {
		case tok.kind == tokString:
			out = append(out, strings.ReplaceAll(tok.text, "\n", `\n`)...)
		case tok.is("?") && slices.Contains(slots, tok.start):
			// The slot's name. No type of this name matters: the entity is taken out of the tree again.
			_, _ = l.next()
			out = append(out, `A::""`...)
		default:
			out = append(out, tok.text...)
		}
		behind = l.at
	}
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// isNameByte tells what a name is made of; it does not begin with a digit.
func isNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || isDigit(c)
}

// operatorWidth returns how many bytes the operator at the beginning has, 0 if there is none. It knows
// those of policies and of schemas; which may stand where is for others to say.
func operatorWidth(s string) int {
	if len(s) >= 2 {
		switch s[:2] {
		case "::", "==", "!=", "<=", ">=", "&&", "||":
			return 2
		}
	}
	if strings.IndexByte("@.,;:()[]{}<>!+-*?=", s[0]) >= 0 {
		return 1
	}
	return 0
}

// reservedNames can't be names of anything in Cedar.
func reservedName(s string) bool {
	switch s {
	case "true", "false", "if", "then", "else", "in", "like", "has", "is", "__cedar":
		return true
	default:
		return false
	}
}

// checkEscapes finds the first escape in a string literal that Cedar does not know. In a pattern, \*
// is a star. offset is where the literal starts. The literal is closed and has its quotes.
func checkEscapes(literal string, offset int, pattern bool) *syntaxFault {
	for i := 1; i < len(literal)-1; i++ {
		if literal[i] != '\\' {
			continue
		}
		at := i
		i++
		switch literal[i] {
		case 'n', 'r', 't', '\\', '0', '\'', '"':
			continue
		case '*':
			if pattern {
				continue
			}
			return faultAt(offset+at, "\\* is an escape of patterns only")
		case 'x':
			if i+2 < len(literal) && isHex(literal[i+1]) && literal[i+1] < '8' && isHex(literal[i+2]) {
				i += 2
				continue
			}
			return faultAt(offset+at, "\\x takes two hexadecimal digits, at most 7F")
		case 'u':
			end := unicodeEscape(literal[i:])
			if end > 0 {
				i += end - 1
				continue
			}
			return faultAt(offset+at, "\\u takes one to six hexadecimal digits of a character in braces, as in \\u{1F332}")
		default:
			return faultAt(offset+at, "unknown escape: use \\n \\r \\t \\\\ \\0 \\' \\\" \\xNN or \\u{...}")
		}
	}
	return nil
}

// unquote returns what a string literal means, once its escapes were checked. Of what checkEscapes refuses
// it may panic.
func unquote(literal string) string {
	body := literal[1 : len(literal)-1]
	if strings.IndexByte(body, '\\') < 0 {
		return body
	}
	var b strings.Builder
	for i := 0; i < len(body); i++ {
		if body[i] != '\\' {
			b.WriteByte(body[i])
			continue
		}
		i++
		switch c := body[i]; c {
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 't':
			b.WriteByte('\t')
		case '0':
			b.WriteByte(0)
		case 'x':
			// At most 7F, so one byte is one character.
			b.WriteByte(hexValue(body[i+1])<<4 | hexValue(body[i+2]))
			i += 2
		case 'u':
			end := i + strings.IndexByte(body[i:], '}')
			digits := strings.ReplaceAll(body[i+2:end], "_", "")
			value, _ := strconv.ParseUint(digits, 16, 32)
			b.WriteRune(rune(value))
			i = end
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func isHex(c byte) bool {
	return isDigit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// unicodeEscape returns the length of u{...}, or 0 when it is not a character. A character is what Unicode
// gives to one: no halves of pairs. Underscores may stand between the digits.
func unicodeEscape(s string) int {
	if len(s) < 2 || s[1] != '{' {
		return 0
	}
	digits, value := 0, rune(0)
	for i := 2; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '}':
			if digits == 0 || digits > 6 || !utf8.ValidRune(value) {
				return 0
			}
			return i + 1
		case c == '_' && digits > 0:
		case isHex(c) && digits < 7:
			digits++
			value = value*16 + rune(hexValue(c))
		default:
			return 0
		}
	}
	return 0
}

// hexValue is of a digit that isHex takes.
func hexValue(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	default:
		return c - '0'
	}
}
