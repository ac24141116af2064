package engine

// The expression part of the grammar, in the order of precedence.

// expression: "if" expression "then" expression "else" expression, or an or. It nests through itself alone, so the bound of
// its depth is the grammar's: cedar-go's parser and every walk over its tree recurse as deep.
func (g *grammar) expression() *syntaxFault {
	if g.depth++; g.depth > maxNesting {
		return g.fault("expressions nest more than %d deep here", maxNesting)
	}
	defer func() { g.depth-- }()
	if !g.tok.is("if") {
		return g.or()
	}
	if f := g.advance(); f != nil {
		return f
	}
	if f := g.expression(); f != nil {
		return f
	}
	if f := g.expect("then"); f != nil {
		return f
	}
	if f := g.expression(); f != nil {
		return f
	}
	if f := g.expect("else"); f != nil {
		return f
	}
	// All that follows belongs to the else.
	return g.expression()
}

// chain reads operands joined by any of the operators. It loops instead of recursing, so a chain may be as
// long as its nodes' bound lets it.
func (g *grammar) chain(operand func() *syntaxFault, operators ...string) *syntaxFault {
	for {
		if f := operand(); f != nil {
			return f
		}
		if !g.atAny(operators) {
			return nil
		}
		if f := g.advance(); f != nil {
			return f
		}
		if f := g.grow(1); f != nil {
			return f
		}
	}
}

// atAny reports whether the next token is one of the operators. It consumes nothing.
func (g *grammar) atAny(operators []string) bool {
	for _, op := range operators {
		if g.tok.is(op) {
			return true
		}
	}
	return false
}

// The four levels of operators that group to the left. Each operator is a node of the tree, for its bound.
// Subtraction and addition are one level, multiplication another; Cedar has no division.
func (g *grammar) or() *syntaxFault  { return g.chain(g.and, "||") }
func (g *grammar) and() *syntaxFault { return g.chain(g.relation, "&&") }
func (g *grammar) add() *syntaxFault { return g.chain(g.multiply, "+", "-") }

func (g *grammar) multiply() *syntaxFault { return g.chain(g.unary, "*") }

// atComparison: "in" is one of them for the grammar, so it does not chain either.
func (g *grammar) atComparison() bool {
	return g.atAny([]string{"<", "<=", ">", ">=", "!=", "==", "in"})
}

// relation: an add, and at most one of: a comparison with another, has, like, is. The reference refuses a < b < c, and so
// does this, before cedar-go could read it in some way.
func (g *grammar) relation() *syntaxFault {
	// How many nodes the left side has, for has, which repeats it.
	before := g.nodes
	if f := g.add(); f != nil {
		return f
	}
	// The comparison's node, or one too many if there is none: the count is a bound.
	if f := g.grow(1); f != nil {
		return f
	}
	switch {
	case g.tok.is("has"):
		return g.has(g.nodes - before)
	case g.tok.is("like"):
		if f := g.advance(); f != nil {
			return f
		}
		return g.stringLiteral("a pattern in quotes", true)
	case g.tok.is("is"):
		return g.isType()
	// A frequent mistake, with words of its own.
	case g.tok.is("="):
		return g.fault("expected ==, found `=`")
	case g.atComparison():
		if f := g.advance(); f != nil {
			return f
		}
		if f := g.add(); f != nil {
			return f
		}
		if g.atComparison() || g.tok.is("has") || g.tok.is("like") || g.tok.is("is") {
			return g.fault("unexpected %s: comparisons don't chain, use parentheses or &&", g.tok.show())
		}
	}
	return nil
}

// has reads what follows an operand of so many nodes. Of a.b.c each link costs the operand once more and
// the links before it, for cedar-go writes that out; of a string there is only one link.
func (g *grammar) has(operand int) *syntaxFault {
	if f := g.advance(); f != nil {
		return f
	}
	if g.tok.kind == tokString {
		return g.stringLiteral("the name of an attribute", false)
	}
	for links := 1; ; links++ {
		if links > maxNameChain {
			return g.fault("has goes more than %d attributes deep here", maxNameChain)
		}
		if f := g.grow(operand + links); f != nil {
			return f
		}
		if _, f := g.name("the name of an attribute"); f != nil {
			return f
		}
		if !g.tok.is(".") {
			return nil
		}
		if f := g.advance(); f != nil {
			return f
		}
	}
}

// isType reads what follows "is": a type, and maybe "in" and an add. The type is a name and not an
// expression, so it can't depend on the request. `is T in E` is one operator, not a comparison behind
// another.
func (g *grammar) isType() *syntaxFault {
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
	return g.add()
}

// unary: up to four of ! or of -, not mixed, and a member. The reference has the same bound.
func (g *grammar) unary() *syntaxFault {
	first := g.tok
	links := 0
	// These are only counted: there are few, and the next grow holds the sum to the bound.
	for g.tok.is("!") || g.tok.is("-") {
		g.nodes++
		if links++; links > maxUnaryChain {
			return g.fault("more than %d `%s` in a row", maxUnaryChain, first.text)
		}
		// The reference's grammar has no !-x and no -!x.
		if g.tok.text != first.text {
			return g.fault("`!` and `-` can't follow each other; use parentheses")
		}
		if f := g.advance(); f != nil {
			return f
		}
	}
	if links > 0 && first.text == "-" && g.tok.kind == tokNumber {
		// As in cedar-go, the minus belongs to the number, which ends the operand.
		return g.integer(true)
	}
	return g.member()
}

// member: a primary and any accesses: .name, .method(arguments), ["name"]. A chain is bounded in links,
// because the tree nests once for each of them.
func (g *grammar) member() *syntaxFault {
	if f := g.primary(); f != nil {
		return f
	}
	// The first turn counts the primary, each further one an access.
	for links := 1; ; links++ {
		if f := g.grow(1); f != nil {
			return f
		}
		switch {
		case g.tok.is("."):
			if f := g.attributeOrMethod(); f != nil {
				return f
			}
		case g.tok.is("["):
			if f := g.advance(); f != nil {
				return f
			}
			if f := g.stringLiteral("the name of an attribute in quotes", false); f != nil {
				return f
			}
			if f := g.expect("]"); f != nil {
				return f
			}
		default:
			return nil
		}
		if links > maxNameChain {
			return g.fault("an attribute chain has more than %d links here", maxNameChain)
		}
	}
}

// attributeOrMethod reads what follows a dot. What is called must be a method that there is, so that a mistake
// is found when the policy is written, and not by a decision. An attribute may have a method's name: what
// makes it a call is the parenthesis.
func (g *grammar) attributeOrMethod() *syntaxFault {
	if f := g.advance(); f != nil {
		return f
	}
	at := g.tok.start
	name, f := g.name("the name of an attribute or method")
	if f != nil || !g.tok.is("(") {
		return f
	}
	want, known := methodArguments(name)
	if !known {
		if isConstructor(name) {
			return faultAt(at, "`%s` is a function, not a method: write %s(...)", name, name)
		}
		return faultAt(at, "there is no method `%s`", clipTo(name, 60))
	}
	got, f := g.arguments()
	if f != nil {
		return f
	}
	if want >= 0 && got != want {
		return faultAt(at, "`%s` wants %d as its number of arguments, not %d", name, want, got)
	}
	return nil
}

// arguments reads (a, b, ...) and counts. It starts at the opening parenthesis. A comma behind the last
// argument is fine.
func (g *grammar) arguments() (int, *syntaxFault) {
	if f := g.advance(); f != nil {
		return 0, f
	}
	count := 0
	f := g.list(")", func() *syntaxFault {
		count++
		return g.expression()
	})
	return count, f
}

// methodArguments tells how many arguments a method takes; -1 leaves it to evaluation, as Cedar does
// for extension methods.
func methodArguments(name string) (int, bool) {
	switch name {
	case "contains", "containsAll", "containsAny", "hasTag", "getTag":
		return 1, true
	case "isEmpty":
		return 0, true
	case "lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual",
		"isIpv4", "isIpv6", "isLoopback", "isMulticast", "isInRange",
		"toDate", "toTime", "offset", "durationSince",
		"toDays", "toHours", "toMinutes", "toSeconds", "toMilliseconds":
		return -1, true
	default:
		return 0, false
	}
}

// isConstructor: the functions are those that make values of the extension types.
func isConstructor(name string) bool {
	switch name {
	case "ip", "decimal", "datetime", "duration":
		return true
	default:
		return false
	}
}

// primary: a literal, a variable, an entity, a call, or something in brackets. What nests, nests through
// [grammar.expression], which counts how deep.
func (g *grammar) primary() *syntaxFault {
	switch {
	case g.tok.kind == tokNumber:
		return g.integer(false)
	case g.tok.kind == tokString:
		return g.stringLiteral("a string", false)
	case g.tok.is("true"), g.tok.is("false"):
		return g.advance()
	case g.tok.is("("):
		if f := g.advance(); f != nil {
			return f
		}
		if f := g.expression(); f != nil {
			return f
		}
		if !g.tok.is(")") {
			return g.fault("expected an operator or `)`, found %s", g.tok.show())
		}
		return g.advance()
	case g.tok.is("["):
		if f := g.advance(); f != nil {
			return f
		}
		// A set, which may be empty: validation refuses that, evaluation does not.
		return g.list("]", g.expression)
	case g.tok.is("{"):
		return g.record()
	case g.tok.is("if"):
		return g.fault("an if inside an expression needs parentheses")
	// Reserved words that begin an expression were above; the others can't.
	case g.tok.kind == tokName && !reservedName(g.tok.text):
		return g.nameOrEntityOrCall()
	default:
		return g.fault("expected an expression, found %s", g.tok.show())
	}
}

// record: the same key twice is refused, as the reference does; cedar-go would keep the last one. Keys are
// compared as they are meant: "a" in quotes is the same key as a without.
func (g *grammar) record() *syntaxFault {
	if f := g.advance(); f != nil {
		return f
	}
	seen := map[string]bool{}
	return g.list("}", func() *syntaxFault {
		at, key := g.tok.start, g.tok.text
		var f *syntaxFault
		if g.tok.kind == tokString {
			if f = checkEscapes(key, at, false); f == nil {
				key = unquote(key)
				f = g.advance()
			}
		} else {
			_, f = g.name("a key")
		}
		if f != nil {
			return f
		}
		if seen[key] {
			return faultAt(at, "the key %s occurs twice in this record", clipTo(key, 60))
		}
		seen[key] = true
		if f := g.expect(":"); f != nil {
			return f
		}
		return g.expression()
	})
}

// nameOrEntityOrCall: what a name begins can be a variable, A::B::"id", or ip("...").
func (g *grammar) nameOrEntityOrCall() *syntaxFault {
	first := g.tok
	if f := g.advance(); f != nil {
		return f
	}
	qualified := false
	// A path names an entity here and ends in an id: types stand behind is only.
	for g.tok.is("::") {
		qualified = true
		if f := g.advance(); f != nil {
			return f
		}
		if g.tok.kind == tokString {
			return g.stringLiteral("an id", false)
		}
		if _, f := g.name("a name or an id in quotes"); f != nil {
			return f
		}
	}
	switch {
	case g.tok.is("("):
		if qualified || !isConstructor(first.text) {
			name := clipTo(compact(g.lex.text[first.start:g.prevEnd]), 60)
			// What exists under this name is a method: then the finding says how to write it.
			if _, method := methodArguments(name); method {
				return faultAt(first.start, "`%s` is a method, not a function: write x.%s(...)", name, name)
			}
			return faultAt(first.start, "there is no function `%s`", name)
		}
		_, f := g.arguments()
		return f
	case qualified:
		return g.fault("expected `::` and an id in quotes, found %s", g.tok.show())
	}
	// A name with nothing behind it is a variable, or a mistake.
	switch first.text {
	case "principal", "action", "resource", "context":
		return nil
	default:
		return faultAt(first.start, "unknown name `%s`: use principal, action, resource or context; put text in quotes", clipTo(first.text, 60))
	}
}
