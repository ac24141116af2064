package engine

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/copse-authz/copse"
)

// Report is what validation has to say about one policy or template. All its Fields are placed in the text
// that the policy was parsed from, under the path given there.
type Report struct {
	Errors   []copse.Field // why STRICT refuses it; none when it is valid
	Warnings []copse.Field // valid, and probably not what its author meant
	// Unchecked says that the budget of the call ended before this one: nothing is known about it.
	Unchecked bool
}

// Reports checks many policies against a schema and returns a report for each, in their order. Without
// a schema only what can be seen in the text is reported. It costs little for policies whose heads
// name actions and types, and is bounded for any. An error is of kind Internal and ends it; what is wrong
// with a policy is in its report.
func Reports(schema *Schema, policies ...*Policy) ([]Report, error) {
	r := reporter{v: validation{schema: schema}}
	for _, p := range policies {
		if err := r.add(p); err != nil {
			return nil, err
		}
	}
	return r.reports, nil
}

// TemplateReports does for templates what Reports does for policies.
func TemplateReports(schema *Schema, templates ...*Template) ([]Report, error) {
	r := reporter{v: validation{schema: schema}}
	for _, t := range templates {
		if err := r.add(t.source); err != nil {
			return nil, err
		}
	}
	return r.reports, nil
}

// reporter makes the reports of one call, which share a budget and what is found out about heads.
type reporter struct {
	v       validation
	reports []Report
}

// add reports on one policy, or a template. Its error is a defect found while checking, never the policy's
// fault.
func (r *reporter) add(p *Policy) error {
	var out Report
	// A link's text is its template's, which is reported on by itself.
	if p.template == nil {
		out.Warnings = textWarnings(p)
	}
	if r.v.schema != nil {
		if out.Unchecked = r.v.steps > maxTotalValidationSteps; !out.Unchecked {
			check := &policyCheck{v: &r.v, s: r.v.schema, p: p, impossible: true}
			if err := check.run(); err != nil {
				return err
			}
			r.v.steps += check.steps
			out.Errors = check.fields()
			for _, message := range check.warnings {
				out.Warnings = append(out.Warnings, p.at.field(p.path, "%s", message))
			}
		}
	}
	r.reports = append(r.reports, out)
	return nil
}

// textWarnings finds text that reads differently from what it means: characters that change the
// direction of writing, anywhere, comments included; and strings that mix scripts, where one letter can
// be taken for that of another. Values of annotations may mix them: they decide nothing.
func textWarnings(p *Policy) []copse.Field {
	if isASCII(p.text) && !strings.Contains(p.text, `\u`) {
		return nil
	}
	var out []copse.Field
	// The same string is warned of once, and not at every place where it stands.
	seen := map[string]bool{}
	warn := func(offset int, format, shown string) {
		if message := fmt.Sprintf(format, clipTo(shown, 200)); !seen[message] && len(out) < maxFindings {
			seen[message] = true
			out = append(out, p.place(offset).field(p.path, "%s", message))
		}
	}
	l := lexer{text: p.text}
	annotation := 0 // tokens since the @
	for behind := 0; ; behind = l.at {
		tok, f := l.next()
		if at := strings.IndexFunc(p.text[behind:tok.start], isBidi); at >= 0 {
			warn(behind+at, "a comment contains BIDI control characters%s: what is shown is not what is there", "")
		}
		if f != nil || tok.kind == tokEnd {
			return out
		}
		annotation++
		if tok.is("@") {
			annotation = 0
		}
		if tok.kind != tokString {
			continue
		}
		switch value := unquote(tok.text); {
		case strings.ContainsFunc(value, isBidi):
			warn(tok.start, "string %q contains BIDI control characters", value)
		// The third token behind the @ is the annotation's value.
		case annotation != 3 && !isSingleScript(value):
			warn(tok.start, "string %q contains mixed scripts", value)
		}
	}
}

// place is where an offset of the policy's text is in the document it came from. The policy's text may
// begin with comments, while p.at is where its first token is.
func (p *Policy) place(offset int) position {
	l := lexer{text: p.text}
	first, _ := l.next()
	start, at := positionAt([]byte(p.text), first.start), positionAt([]byte(p.text), offset)
	if at.line == start.line {
		at.column += p.at.column - start.column
	}
	at.line += p.at.line - start.line
	return at
}

// isASCII is the way out for most texts: ASCII is of one script.
func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// isBidi tells the characters that Cedar's reference warns of.
func isBidi(r rune) bool {
	return r >= 0x202A && r <= 0x202E || r >= 0x2066 && r <= 0x2069
}

// writingSystems are scripts that are written together (UTS 39, section 5.1).
var writingSystems = map[string][]string{
	"Han":      {"Han", "Han+Bopomofo", "Japanese", "Korean"},
	"Bopomofo": {"Bopomofo", "Han+Bopomofo"},
	"Hiragana": {"Hiragana", "Japanese"},
	"Katakana": {"Katakana", "Japanese"},
	"Hangul":   {"Hangul", "Korean"},
}

// isSingleScript reports whether a text could be of one script: digits, signs and marks go with any.
func isSingleScript(text string) bool {
	if isASCII(text) {
		return true
	}
	var possible []string // nil: any
	var last *unicode.RangeTable
	for _, r := range text {
		// Mostly a character is of the script of the one before.
		if last != nil && unicode.Is(last, r) || unicode.In(r, unicode.Common, unicode.Inherited) {
			continue
		}
		name, table := scriptOf(r)
		if table == nil {
			continue
		}
		last = table
		systems, ok := writingSystems[name]
		if !ok {
			systems = []string{name}
		}
		// What all characters so far could belong to together; it only shrinks.
		if possible == nil {
			possible = slices.Clone(systems)
		} else if possible = slices.DeleteFunc(possible, func(s string) bool { return !slices.Contains(systems, s) }); len(possible) == 0 {
			return false
		}
	}
	return true
}

// scriptOf finds the script of a character, nil for one that has none.
func scriptOf(r rune) (string, *unicode.RangeTable) {
	for name, table := range unicode.Scripts {
		if unicode.Is(table, r) {
			return name, table
		}
	}
	return "", nil
}
