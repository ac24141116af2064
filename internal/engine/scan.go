package engine

import (
	"encoding/binary"
	"math/bits"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/copse-authz/copse"
)

// scanner reads one piece of request data token by token, strictly, without copying it and without
// building anything. It knows where it is and not how it got there: a finding's path is worked out by
// reading the text again (see reader), which only those pay who send faulty data. What it returns refers
// to the data, or to the call's room where escapes had to be resolved. There is one for each call, used
// for one piece of data after the other.
type scanner struct {
	call *call
	data []byte
	text string // the same
	pos  int
	// last is the end of the token read last, where findings point.
	last int
	// restAt is where others may go first again.
	restAt int
	// root is the member path the text was found at; inText says that the text is one string there,
	// so that findings have a line and column inside it.
	root   string
	inText bool
	depth  int
}

// scan begins to read a piece of data. The former one has been read.
func (c *call) scan(member string, data copse.Data) *scanner {
	root, inText := dataPath(member, data.Format)
	// The bytes are read as text without a copy, so they must not change before the call ends.
	c.scanner = scanner{call: c, data: data.Bytes, text: asText(data.Bytes), root: root, inText: inText, restAt: bytesBetweenRests}
	return &c.scanner
}

// fail makes the error for the value or name read last. The position is found by reading as far as the
// scanner had, so a fault costs a request once more and no more.
func (s *scanner) fail(format string, args ...any) error {
	r := newReader(s.root, s.inText, s.data)
	for int(r.dec.InputOffset()) < s.last {
		if _, err := r.token(); err != nil {
			return err // a name that occurs twice: objects are looked through at their end
		}
	}
	return r.fail(format, args...)
}

// syntax makes the error for text that is not JSON, or has a member name twice. It lets another reader
// find the fault, so that the two agree on what JSON is, or the text is refused all the same.
func (s *scanner) syntax() error {
	r := newReader(s.root, s.inText, s.data)
	for {
		if _, err := r.token(); err != nil {
			return err
		}
		if r.dec.StackDepth() == 0 {
			return r.fail("not valid JSON")
		}
	}
}

// space skips what JSON takes for white space, and nothing else.
func (s *scanner) space() {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// peek returns the first byte of the next token, 0 at the end. It consumes no more than space. A NUL in
// the data looks like the end, and is refused like any other byte.
func (s *scanner) peek() byte {
	// There is no space in most places.
	if s.pos < len(s.text) && s.text[s.pos] > ' ' {
		return s.text[s.pos]
	}
	s.space()
	if s.pos < len(s.text) {
		return s.text[s.pos]
	}
	return 0
}

// unexpected makes the error for the next token, when another was expected. It reads that token, so that
// the finding can say what was found, and is placed behind it.
func (s *scanner) unexpected(what string) error {
	found := ""
	switch b := s.peek(); {
	case b == '{':
		found, s.pos = "an object", s.pos+1
	case b == '[':
		found, s.pos = "an array", s.pos+1
	case b == '"':
		found = "a string"
		if _, err := s.quoted(); err != nil {
			return err
		}
	case b == '-' || b >= '0' && b <= '9':
		found = "a number"
		if !s.number() {
			return s.syntax()
		}
	case s.word("true"), s.word("false"):
		found = "a boolean"
	case s.word("null"):
		found = "null"
	default:
		return s.syntax()
	}
	s.last = s.pos
	return s.fail("expected %s, found %s", what, found)
}

// open reads the bracket that begins an object or array. what is what a finding says was expected.
func (s *scanner) open(bracket byte, what string) error {
	if s.peek() != bracket {
		return s.unexpected(what)
	}
	s.pos++
	s.last = s.pos
	return nil
}

// more reads what is between elements: a comma, or the bracket that ends the array. It is called for each
// element and each member, so this is where reading rests.
func (s *scanner) more(first bool, bracket byte) (bool, error) {
	// By bytes and not by elements, for these may be long.
	if s.pos > s.restAt {
		giveWay()
		s.restAt = s.pos + bytesBetweenRests
	}
	switch b := s.peek(); {
	case b == bracket:
		s.pos++
		s.last = s.pos
		return false, nil
	case first:
		return true, nil
	case b == ',':
		s.pos++
		return true, nil
	default:
		return false, s.syntax()
	}
}

// member reads the name of an object's next member and the colon; false at the end of the object. The name
// is as it is meant, its escapes resolved. Whether it occurs twice is looked at when its object ends, see
// [scanner.members].
func (s *scanner) member(first bool) (name string, more bool, err error) {
	if more, err = s.more(first, '}'); !more {
		return "", false, err
	}
	if s.peek() != '"' {
		return "", false, s.syntax()
	}
	// Findings about a member are placed at its name.
	if name, err = s.quoted(); err != nil {
		return "", false, err
	}
	s.last = s.pos
	if s.peek() != ':' {
		return "", false, s.syntax()
	}
	s.pos++
	return name, true, nil
}

// end checks that nothing follows the value.
func (s *scanner) end() error {
	if s.peek() == 0 && s.pos == len(s.text) {
		return nil
	}
	r := newReader(s.root, s.inText, s.data)
	// Another reader could take what follows for the request.
	return r.failAt("", s.pos, "there is something after the value's end")
}

// string reads a string; what says what was expected.
func (s *scanner) string(what string) (string, error) {
	if s.peek() != '"' {
		return "", s.unexpected(what)
	}
	text, err := s.quoted()
	s.last = s.pos
	return text, err
}

// quoted reads a string that begins here. The result is a part of the text if nothing in it is escaped. It
// is always valid UTF-8, and has no control character that was not escaped.
func (s *scanner) quoted() (string, error) {
	start := s.pos + 1
	at := start
	// What is not ASCII must be UTF-8: in texts that are not, another program could see other characters.
	ascii := true
	for {
		// Eight bytes at once while there is nothing special among them.
		for at+8 <= len(s.data) {
			word := binary.LittleEndian.Uint64(s.data[at:])
			special := specialBytes(word)
			if special == 0 {
				at += 8
				continue
			}
			at += bits.TrailingZeros64(special) / 8
			break
		}
		if at >= len(s.text) {
			return "", s.syntax()
		}
		switch b := s.text[at]; {
		case b == '"':
			text := s.text[start:at]
			if !ascii && !utf8.ValidString(text) {
				return "", s.syntax()
			}
			s.pos = at + 1
			return text, nil
		case b == '\\':
			return s.escaped(start, at)
		case b < ' ':
			return "", s.syntax()
		case b >= utf8.RuneSelf:
			ascii = false
		}
		at++
	}
}

// specialBytes has the top bit of each byte set that is a quote, a backslash, a control character or
// not ASCII. Behind the first such byte others may be wrong.
func specialBytes(word uint64) uint64 {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	quotes, slashes := word^('"'*ones), word^('\\'*ones)
	return ((quotes - ones) | (slashes - ones) | (word - ' '*ones) | word) & tops
}

// escaped reads a string from its first backslash on. The string begins at start, and ends at the first
// quote that no backslash precedes.
func (s *scanner) escaped(start, at int) (string, error) {
	end := at
	for end < len(s.text) && s.text[end] != '"' {
		// Whatever is escaped does not end the string; which escapes there are is looked at below.
		if s.text[end] == '\\' {
			end++
		}
		end++
	}
	if end >= len(s.text) {
		return "", s.syntax()
	}
	// What is written with escapes is never shorter than what it means.
	room := s.call.text.take(end - start)
	out := append(room[:0], s.text[start:at]...)
	for at < end {
		b := s.text[at]
		switch {
		case b < ' ':
			return "", s.syntax()
		case b != '\\':
			out = append(out, b)
			at++
			continue
		}
		at += 2
		switch s.text[at-1] {
		case '"', '\\', '/':
			out = append(out, s.text[at-1])
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, n := escapedRune(s.text[at:end])
			if n == 0 {
				return "", s.syntax()
			}
			out = utf8.AppendRune(out, r)
			at += n
		default:
			return "", s.syntax()
		}
	}
	if !utf8.Valid(out) {
		return "", s.syntax()
	}
	s.pos = end + 1
	return asText(out), nil
}

// escapedRune reads the four digits behind \u, and the second half of a pair. n is how many bytes it
// read, 0 if that is no character. Half a pair is no character: it could not be written as UTF-8.
func escapedRune(text string) (r rune, n int) {
	first, ok := fourDigits(text)
	switch {
	case !ok:
		return 0, 0
	case !utf16.IsSurrogate(first):
		return first, 4
	case len(text) < 10 || text[4] != '\\' || text[5] != 'u':
		return 0, 0
	}
	second, ok := fourDigits(text[6:])
	if r = utf16.DecodeRune(first, second); !ok || r == utf8.RuneError {
		return 0, 0
	}
	return r, 10
}

// fourDigits reads a number of four hexadecimal digits.
func fourDigits(text string) (rune, bool) {
	if len(text) < 4 {
		return 0, false
	}
	var r rune
	for i := range 4 {
		b := text[i]
		switch {
		case b >= '0' && b <= '9':
			b -= '0'
		case b >= 'a' && b <= 'f':
			b -= 'a' - 10
		case b >= 'A' && b <= 'F':
			b -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(b)
	}
	return r, true
}

// word reads one of the words of JSON, if it is there. What follows it is looked at by whoever reads on:
// it must be a comma or bracket.
func (s *scanner) word(word string) bool {
	if !strings.HasPrefix(s.text[s.pos:], word) {
		return false
	}
	s.pos += len(word)
	return true
}

// number moves past a number as JSON writes them. It reports false if there is none. Digits behind a
// leading zero are left, and refused as something that follows.
func (s *scanner) number() bool {
	digits := func() bool {
		from := s.pos
		for s.pos < len(s.text) && s.text[s.pos]-'0' <= 9 {
			s.pos++
		}
		return s.pos > from
	}
	next := func(set string) bool {
		if s.pos < len(s.text) && strings.IndexByte(set, s.text[s.pos]) >= 0 {
			s.pos++
			return true
		}
		return false
	}
	next("-")
	if !next("0") && !digits() {
		return false
	}
	if next(".") && !digits() {
		return false
	}
	if next("eE") {
		next("+-")
		return digits()
	}
	return true
}

// long reads a number that is a 64-bit integer exactly as written. A fraction or exponent is refused even
// if its value is an integer, and nothing is rounded.
func (s *scanner) long() (int64, error) {
	b := s.peek()
	if b != '-' && (b < '0' || b > '9') {
		return 0, s.unexpected("an integer")
	}
	from := s.pos
	if !s.number() {
		return 0, s.syntax()
	}
	s.last = s.pos
	text := s.text[from:s.pos]
	if text == "-0" || strings.ContainsAny(text, ".eE") {
		return 0, s.fail("%s is not a Long: Cedar's numbers are integers", clip(text))
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, s.fail("%s is not a Long: it does not fit into 64 bits", clip(text))
	}
	return n, nil
}

// boolean reads true or false.
func (s *scanner) boolean() (*value, error) {
	s.peek()
	yes := s.word("true")
	if !yes && !s.word("false") {
		return nil, s.unexpected("true or false")
	}
	s.last = s.pos
	return s.call.boolean(yes), nil
}

// skip moves past a value that is going to be read later, and may be wrong about where it ends if it is
// not JSON. It does not recurse, so nesting needs no bound here; the reading has one. It goes by brackets
// and strings alone.
func (s *scanner) skip() error {
	depth := 0
	for {
		switch s.peek() {
		case 0:
			return s.syntax()
		case '"':
			if _, err := s.quoted(); err != nil {
				return err
			}
		case '{', '[':
			depth++
			s.pos++
		case '}', ']':
			depth--
			s.pos++
		default:
			s.pos++
			if depth > 0 {
				continue
			}
			for s.pos < len(s.text) && strings.IndexByte(",]} \t\r\n", s.text[s.pos]) < 0 {
				s.pos++
			}
		}
		switch {
		case depth < 0:
			return s.syntax()
		case depth == 0:
			s.last = s.pos
			return nil
		}
	}
}

func (s *scanner) enter() error {
	if s.depth++; s.depth > maxValueDepth {
		return s.fail("sets and records nest more than %d deep", maxValueDepth)
	}
	return nil
}

// leave ends what enter began. The two keep how deep sets and records nest: reading, and whatever walks a
// value, recurses as deep.
func (s *scanner) leave() { s.depth-- }

// entity checks an identifier that was read and returns the one entity it names. What is wrong with it is
// placed where it was read.
func (s *scanner) entity(entityType, id string) (*entity, error) {
	e, wrong := s.call.entity(entityType, id)
	if wrong != "" {
		return nil, s.fail("%s", wrong)
	}
	return e, nil
}

// extension reads the text of an extension value. fn is Cedar's constructor name. A text that the
// constructor does not take makes the request invalid, before any policy is evaluated.
func (s *scanner) extension(fn, text string) (*value, error) {
	v := s.call.values.one()
	if !s.call.construct(v, fn, text) {
		return nil, s.fail("%q is not a valid %s", clip(text), extensionType(fn))
	}
	return v, nil
}

// newText makes a String of text that stays where it is.
func (s *scanner) newText(text string) *value {
	v := s.call.values.one()
	v.kind, v.text = kindString, text
	return v
}
