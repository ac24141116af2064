package engine

import (
	"strconv"
	"strings"

	"github.com/copse-authz/copse"
)

// Limits on the shape of policies and schemas. Cedar's reference has the unary one in its grammar and
// stops at the others when its stack ends; here they are numbers.
const (
	maxNesting    = 100 // brackets, braces, parentheses and ifs inside each other
	maxUnaryChain = 4   // ! or - in a row
	maxNameChain  = 32  // links of a.b.c, and of has a.b.c
	// maxPolicyNodes bounds the expression tree of one policy as cedar-go builds it: x has a.b.c stands
	// for x has a && x.a has b && x.a.b has c, with x in it three times, and so on inside x. 200 bytes
	// of nested has would take all memory there is.
	maxPolicyNodes = 20_000
)

// policySpan is where one policy lies in a document. Spans of a document do not overlap, are in order, and
// leave out what is between policies: comments and space.
type policySpan struct {
	start int // its first token
	end   int // behind its semicolon
	slots slotPlaces
	// It may be set because of an earlier policy of the document, which does no harm.
	odd bool // cedar-go must be shown the plainText of it
}

// grammar reads the text of policies as Cedar's grammar has it, builds nothing, and reports the first
// fault of each policy where it is. cedar-go's parser then only sees text that is sound and small;
// its own errors name the token after the one at fault. It looks one token ahead, tok; prevEnd is where
// the one before ended. Each method that reads expects tok to be its first token, and leaves tok at
// the first one behind.
type grammar struct {
	lex     lexer
	tok     token
	prevEnd int
	depth   int
	nodes   int        // of the policy at hand, see maxPolicyNodes
	slots   slotPlaces // of the policy at hand
}

// checkPolicies finds the policies of a document and its faults. Faults and spans may both be there:
// after a fault it goes on behind the next semicolon. Faults are in order, and at most one more than an
// answer shows. Without any, the spans are all policies of the document.
func checkPolicies(text string) ([]policySpan, []*syntaxFault) {
	if f := checkText(text); f != nil {
		return nil, []*syntaxFault{f}
	}
	g := &grammar{lex: lexer{text: text}}
	if f := g.advance(); f != nil {
		return nil, []*syntaxFault{f}
	}
	var spans []policySpan
	var faults []*syntaxFault
	for g.tok.kind != tokEnd && len(faults) <= maxFindings {
		start := g.tok.start
		f := g.policy()
		if f == nil {
			spans = append(spans, policySpan{start: start, end: g.prevEnd, slots: g.slots, odd: g.lex.odd})
			continue
		}
		faults = append(faults, f)
		if !g.recover() {
			break
		}
	}
	return spans, faults
}

// recover moves to the next policy after a fault: behind a semicolon, where one begins. A fault of the
// lexer ends the reading: what follows an open string or comment means nothing. It reports false when
// there is nothing left that could be read.
func (g *grammar) recover() bool {
	g.depth = 0
	for {
		// A semicolon that stands in the middle of something ends no policy: the beginning of one must
		// follow.
		behind := g.tok.is(";")
		if g.tok.kind == tokEnd || g.advance() != nil {
			return false
		}
		if behind && (g.tok.is("permit") || g.tok.is("forbid") || g.tok.is("@") || g.tok.kind == tokEnd) {
			return true
		}
	}
}

// advance moves to the next token. At the end of the text it stays there.
func (g *grammar) advance() *syntaxFault {
	g.prevEnd = g.tok.end
	tok, f := g.lex.next()
	if f != nil {
		return f
	}
	g.tok = tok
	return nil
}

// fault makes the fault for the next token. Whatever was expected, a question mark is somebody's attempt
// at a slot.
func (g *grammar) fault(format string, args ...any) *syntaxFault {
	if g.tok.is("?") {
		return faultAt(g.tok.start, "a slot can't stand here: ?principal belongs behind == or in of the principal's scope, ?resource behind those of the resource's")
	}
	return faultAt(g.tok.start, format, args...)
}

// expect consumes an operator or word that must come here.
func (g *grammar) expect(text string) *syntaxFault {
	if !g.tok.is(text) {
		return g.fault("expected `%s`, found %s", text, g.tok.show())
	}
	return g.advance()
}

// name reads a name that is not reserved. what says in a finding what the name would have been of.
func (g *grammar) name(what string) (string, *syntaxFault) {
	if g.tok.kind != tokName {
		return "", g.fault("expected %s, found %s", what, g.tok.show())
	}
	if reservedName(g.tok.text) {
		return "", g.fault("expected %s, found the reserved word `%s`", what, g.tok.text)
	}
	text := g.tok.text
	return text, g.advance()
}

// stringLiteral reads a string whose escapes Cedar knows. A pattern may escape a star as well.
func (g *grammar) stringLiteral(what string, pattern bool) *syntaxFault {
	if g.tok.kind != tokString {
		return g.fault("expected %s, found %s", what, g.tok.show())
	}
	if f := checkEscapes(g.tok.text, g.tok.start, pattern); f != nil {
		return f
	}
	return g.advance()
}

// policy reads one policy or template, with the annotations before it and the semicolon behind.
func (g *grammar) policy() *syntaxFault {
	g.nodes, g.slots = 0, slotPlaces{}
	if f := g.annotations(); f != nil {
		return f
	}
	if !g.tok.is("permit") && !g.tok.is("forbid") {
		return g.fault("expected permit or forbid, found %s", g.tok.show())
	}
	if f := g.advance(); f != nil {
		return f
	}
	if f := g.head(); f != nil {
		return f
	}
	for g.tok.is("when") || g.tok.is("unless") {
		if f := g.condition(); f != nil {
			return f
		}
	}
	if !g.tok.is(";") {
		return g.fault("expected when, unless or `;`, found %s", g.tok.show())
	}
	return g.advance()
}

// annotations reads those of one policy. A name may occur once, with or without a value.
func (g *grammar) annotations() *syntaxFault {
	seen := map[string]bool{}
	for g.tok.is("@") {
		if f := g.advance(); f != nil {
			return f
		}
		// Reserved words are fine as names of annotations.
		if g.tok.kind != tokName {
			return g.fault("expected the name of an annotation, found %s", g.tok.show())
		}
		if seen[g.tok.text] {
			return g.fault("the annotation @%s occurs twice", g.tok.text)
		}
		seen[g.tok.text] = true
		if f := g.advance(); f != nil {
			return f
		}
		if !g.tok.is("(") {
			continue
		}
		if f := g.advance(); f != nil {
			return f
		}
		if f := g.stringLiteral("the annotation's value in quotes", false); f != nil {
			return f
		}
		if f := g.expect(")"); f != nil {
			return f
		}
	}
	return nil
}

// head reads the scope: principal, action and resource, in this order, all three. A comma behind is fine.
func (g *grammar) head() *syntaxFault {
	if f := g.expect("("); f != nil {
		return f
	}
	if f := g.scopeOf("principal"); f != nil {
		return f
	}
	if f := g.expect(","); f != nil {
		return f
	}
	if f := g.actionScope(); f != nil {
		return f
	}
	if f := g.expect(","); f != nil {
		return f
	}
	if f := g.scopeOf("resource"); f != nil {
		return f
	}
	if g.tok.is(",") {
		if f := g.advance(); f != nil {
			return f
		}
	}
	return g.expect(")")
}

// scopeOf reads the scope of principal or resource: nothing, or one test with an entity, a type or a slot.
// Scopes can't fail and know no other operators, which is what makes the index exact.
func (g *grammar) scopeOf(variable string) *syntaxFault {
	if f := g.expect(variable); f != nil {
		return f
	}
	switch {
	case g.tok.is("=="), g.tok.is("in"):
		if f := g.advance(); f != nil {
			return f
		}
		return g.scopeEntity(variable)
	case g.tok.is("is"):
		if f := g.advance(); f != nil {
			return f
		}
		if f := g.path("an entity type"); f != nil {
			return f
		}
		if !g.tok.is("in") {
			return nil
		}
		if f := g.advance(); f != nil {
			return f
		}
		return g.scopeEntity(variable)
	case g.tok.is(","), g.tok.is(")"):
		return nil
	default:
		return g.fault("expected ==, in, is or the end of the %s's scope, found %s; other tests belong into when { }", variable, g.tok.show())
	}
}

// scopeEntity reads what a principal or resource is compared with.
func (g *grammar) scopeEntity(variable string) *syntaxFault {
	if g.tok.is("[") {
		return g.fault("only action can be in a list of entities; test %s in [...] in when { }", variable)
	}
	if g.tok.is("?") {
		return g.slot(variable)
	}
	_, f := g.entity()
	return f
}

// slot reads ?principal or ?resource in the scope of that variable. A slot is known by where it stands,
// and by nothing else.
func (g *grammar) slot(variable string) *syntaxFault {
	start := g.tok.start
	if f := g.advance(); f != nil {
		return f
	}
	// The question mark is an operator for the lexer, so the name behind it must touch it. Only the
	// scope's own variable will do: a link fills each slot by where it stands.
	if g.tok.kind != tokName || g.tok.start != start+1 || g.tok.text != variable {
		return faultAt(start, "the slot of the %s's scope is written ?%s", variable, variable)
	}
	if variable == "principal" {
		g.slots.principal = start
	} else {
		g.slots.resource = start
	}
	return g.advance()
}

// actionScope reads the scope of the action. A list may be empty, which nothing is in. It has no slot.
func (g *grammar) actionScope() *syntaxFault {
	if f := g.expect("action"); f != nil {
		return f
	}
	switch {
	case g.tok.is("=="):
		if f := g.advance(); f != nil {
			return f
		}
		return g.actionEntity()
	case g.tok.is("in"):
		if f := g.advance(); f != nil {
			return f
		}
		if !g.tok.is("[") {
			return g.actionEntity()
		}
		if f := g.advance(); f != nil {
			return f
		}
		return g.list("]", g.actionEntity)
	case g.tok.is(","), g.tok.is(")"):
		return nil
	default:
		return g.fault("expected ==, in or the end of the action's scope, found %s", g.tok.show())
	}
}

// actionEntity reads an entity whose type is one of actions. cedar-go would take any type, the reference
// does not.
func (g *grammar) actionEntity() *syntaxFault {
	start := g.tok.start
	entityType, f := g.entity()
	if f == nil && entityType != "Action" && !strings.HasSuffix(entityType, "::Action") {
		f = faultAt(start, "%s is not the type of an action: expected Action or a name ending in ::Action", clipTo(entityType, 200))
	}
	return f
}

// entity reads Type::"id" and returns the type. The type is without the space and comments that may stand
// between its parts.
func (g *grammar) entity() (string, *syntaxFault) {
	start := g.tok.start
	if _, f := g.name("an entity like User::\"alice\""); f != nil {
		return "", f
	}
	for {
		end := g.prevEnd
		if !g.tok.is("::") {
			return "", g.fault("expected `::` and an id in quotes, as in User::\"alice\", found %s", g.tok.show())
		}
		if f := g.advance(); f != nil {
			return "", f
		}
		if g.tok.kind == tokString {
			return compact(g.lex.text[start:end]), g.stringLiteral("an id", false)
		}
		if _, f := g.name("a name or an id in quotes"); f != nil {
			return "", f
		}
	}
}

// compact removes the space and comments that may stand around the :: of a path. The path was read before,
// so the lexer finds no fault in it.
func compact(path string) string {
	l := lexer{text: path}
	var b strings.Builder
	for {
		tok, f := l.next()
		if f != nil || tok.kind == tokEnd {
			return b.String()
		}
		b.WriteString(tok.text)
	}
}

// path reads the name of a type, with or without namespaces.
func (g *grammar) path(what string) *syntaxFault {
	if _, f := g.name(what); f != nil {
		return f
	}
	for g.tok.is("::") {
		if f := g.advance(); f != nil {
			return f
		}
		if g.tok.kind == tokString {
			return g.fault("expected the name of an entity type, found %s: `is` takes a type, not an entity", g.tok.show())
		}
		if _, f := g.name(what); f != nil {
			return f
		}
	}
	return nil
}

// list reads items up to a closing bracket, which it consumes. A comma before it is fine. item may be
// called not at all: whether a list may be empty is up to what it is of.
func (g *grammar) list(closing string, item func() *syntaxFault) *syntaxFault {
	for !g.tok.is(closing) {
		if f := item(); f != nil {
			return f
		}
		if g.tok.is(",") {
			if f := g.advance(); f != nil {
				return f
			}
		} else if !g.tok.is(closing) {
			return g.fault("expected `,` or `%s`, found %s", closing, g.tok.show())
		}
	}
	return g.advance()
}

// condition reads `when { ... }` or `unless { ... }`, which hold one expression each.
func (g *grammar) condition() *syntaxFault {
	if f := g.advance(); f != nil {
		return f
	}
	if f := g.expect("{"); f != nil {
		return f
	}
	if g.tok.is("}") {
		return g.fault("expected an expression, found an empty condition")
	}
	if f := g.expression(); f != nil {
		return f
	}
	if !g.tok.is("}") {
		return g.fault("expected an operator or `}`, found %s", g.tok.show())
	}
	return g.advance()
}

// grow counts nodes. The bound is held while the text is read, so a fault says where the policy became too
// large.
func (g *grammar) grow(n int) *syntaxFault {
	if g.nodes += n; g.nodes > maxPolicyNodes {
		return g.fault("the policy has more than %d nodes up to here, counting what has repeats: x has a.b means x has a && x.a has b", maxPolicyNodes)
	}
	return nil
}

// integer checks that a literal fits into 64 bits. The sign belongs to it, because the least Long has no
// positive twin.
func (g *grammar) integer(negative bool) *syntaxFault {
	text := g.tok.text
	if negative {
		text = "-" + text
	}
	if _, err := strconv.ParseInt(text, 10, 64); err != nil {
		return g.fault("%s does not fit into a Long, which has 64 bits", clipTo(text, 60))
	}
	return g.advance()
}

// policyFaults turns faults into the error for a document at path. Places are in the whole document, also
// of its later policies.
func policyFaults(path string, text []byte, faults []*syntaxFault) *copse.Error {
	fields := make([]copse.Field, len(faults))
	for i, f := range faults {
		fields[i] = positionAt(text, f.offset).field(path, "%s", f.message)
	}
	return policyError(fields...)
}
