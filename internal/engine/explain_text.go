package engine

import (
	"slices"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

// A clause is a piece of a policy's text, as tokens. cedar-go's tree has no positions, so explaining
// goes along the tree and cuts the text at the same operators: outside of brackets there is only one
// way to do that, and the grammar has passed the text before.
type clause []token

// layout is the text of one policy in its pieces.
type layout struct {
	scope      []clause // principal, action, resource
	conditions []clause // with their `when {` and `}`
}

// layOut takes a policy apart whose text is sound; false says that it is not. Annotations are left out:
// they decide nothing.
func layOut(text string) (out layout, ok bool) {
	var s clause
	for l := (lexer{text: text}); ; {
		tok, f := l.next()
		if f != nil {
			return out, false
		}
		if tok.kind == tokEnd {
			break
		}
		s = append(s, tok)
	}
	// An annotation may have no value.
	for len(s) > 2 && s[0].is("@") {
		if s = s[2:]; s[0].is("(") {
			s = s[s.closing()+1:]
		}
	}
	if len(s) < 2 || !s[1].is("(") {
		return out, false
	}
	end := s[1:].closing() + 1
	out.scope = s[2:end].split(",")
	// Each condition keeps its braces, and is as long as the tree has it, from the first token to the
	// closing brace.
	for s = s[end+1:]; len(s) > 2 && (s[0].is("when") || s[0].is("unless")) && s[1].is("{"); s = s[end+1:] {
		end = s[1:].closing() + 1
		out.conditions = append(out.conditions, s[:end+1])
	}
	return out, len(out.scope) >= 3
}

// closing finds the bracket that closes the one a clause begins with. The text is sound, so there is one;
// else the last token stands in for it.
func (s clause) closing() int {
	depth := 0
	for i, tok := range s {
		if depth += bracket(tok); depth == 0 {
			return i
		}
	}
	return len(s) - 1
}

// bracket counts an opening one as 1 and a closing one as -1. Strings hold none: they are tokens of their
// own.
func bracket(tok token) int {
	if tok.kind != tokOperator {
		return 0
	}
	switch tok.text {
	case "(", "[", "{":
		return 1
	case ")", "]", "}":
		return -1
	default:
		return 0
	}
}

// find looks for the first of words outside of brackets, and returns -1 if there is none. The words are
// operators or reserved, so no attribute can be taken for one.
func (s clause) find(words ...string) int {
	depth := 0
	for i, tok := range s {
		if depth == 0 && slices.ContainsFunc(words, tok.is) {
			return i
		}
		depth += bracket(tok)
	}
	return -1
}

// split cuts at an operator wherever it stands outside of brackets, and returns the whole if it does not.
// The tree says which operator binds last, so none that binds more weakly is left in the clause.
func (s clause) split(operator string) []clause {
	var out []clause
	for {
		at := s.find(operator)
		if at < 0 {
			return append(out, s)
		}
		out, s = append(out, s[:at]), s[at+1:]
	}
}

// unwrap takes away the parentheses around a whole clause. Parentheses leave no trace in the tree.
func (s clause) unwrap() clause {
	for len(s) > 2 && s[0].is("(") && s.closing() == len(s)-1 {
		s = s[1 : len(s)-1]
	}
	return s
}

// choice cuts `if a then b else c`. An if inside takes a then and an else of its own. The else branch is
// all that is left.
func (s clause) choice() (parts []clause, ok bool) {
	if len(s) == 0 || !s[0].is("if") {
		return nil, false
	}
	s = s[1:]
	for _, word := range []string{"then", "else"} {
		at, inside := 0, 0
		for {
			next := s[at:].find("if", word, "else")
			if next < 0 {
				return nil, false
			}
			at += next
			if inside == 0 && s[at].is(word) {
				break
			}
			switch {
			case s[at].is("if"):
				inside++
			case s[at].is("else"):
				inside--
			}
			at++
		}
		parts, s = append(parts, s[:at]), s[at+1:]
	}
	return append(parts, s), true
}

// relation cuts `a op b`, which there can't be two of in a row; behind `is T in` stands the place. It
// returns nil if there is no such operator.
func (s clause) relation() []clause {
	at := s.find("==", "!=", "<", "<=", ">", ">=", "in", "has", "like", "is")
	if at < 0 {
		return nil
	}
	left, right := s[:at], s[at+1:]
	// The type has no value of its own that could be shown.
	if s[at].is("is") {
		if at := right.find("in"); at >= 0 {
			right = right[at+1:]
		}
	}
	return []clause{left, right}
}

// method cuts `a.name(b, c)` into a, b and c. It returns nil for what is no method call, as a function's.
func (s clause) method() []clause {
	// The last bracket that opens outside of brackets is the call's.
	open, depth := -1, 0
	for i, tok := range s {
		if depth == 0 && tok.is("(") {
			open = i
		}
		depth += bracket(tok)
	}
	if open < 3 || !s[open-2].is(".") || !s[len(s)-1].is(")") {
		return nil
	}
	out := []clause{s[:open-2]}
	if args := s[open+1 : len(s)-1]; len(args) > 0 {
		out = append(out, args.split(",")...)
	}
	return out
}

// text writes a clause on one line, without comments, and bound where it has a slot. It stops soon
// behind the limit. Spaces, line ends and comments between tokens become one space.
func (s clause) text(bound types.EntityUID) string {
	var out []byte
	for i := 0; i < len(s) && len(out) <= copse.MaxExplainedText; i++ {
		if i > 0 && s[i-1].end < s[i].start {
			out = append(out, ' ')
		}
		if s[i].is("?") {
			out = append(out, bound.String()...)
			i++ // the slot's name
			continue
		}
		out = append(out, s[i].text...)
	}
	return clipTo(string(out), copse.MaxExplainedText)
}
