package main

import (
	"fmt"
	"strings"

	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/authorizer"
)

// tick marks what a part came to. What it does not know counts as not evaluated.
func tick(outcome string) string {
	switch outcome {
	case "true":
		return "✓"
	case "false":
		return "✗"
	case "error":
		return "!"
	default:
		return "·"
	}
}

// drawExplanation shows each policy as a tree. It draws what the server says and evaluates nothing. Beside
// each part is the line of the policy's text that it begins in. Policies that were considered and are not
// shown are counted at the end. reason is that of the decision.
func drawExplanation(t *table, e *api.AuthorizeExplanation, reason string) {
	for i := range e.Policies {
		p := &e.Policies[i]
		t.line("")
		// Cedar leaves a policy out whose evaluation fails, a forbid too, unless the policy store denies then.
		came := map[string]string{"true": "applies", "false": "does not apply", "error": "failed, and was skipped"}[p.Outcome]
		if p.Outcome == "error" && p.Effect == "forbid" && reason == authorizer.ReasonForbidFailed {
			came = "failed, and so denies"
		}
		if p.TemplateLinked {
			came += " (the lines are its template's)"
		}
		t.line(fmt.Sprintf("%s %s %s %s", tick(p.Outcome), p.Effect, firstOf(p.PolicyName, p.PolicyID), came))
		for _, part := range p.Scope {
			if part.Outcome == "true" {
				part.Values = nil // the request's own words
			}
			drawPart(t, 1, part)
		}
		for _, part := range p.Conditions {
			drawPart(t, 1, part)
		}
		// The server tells so many parts of a policy and no more.
		if p.Cut {
			t.line("      | ... and more parts than are shown")
		}
	}
	if e.LeftOut > 0 {
		t.line("")
		t.line(fmt.Sprintf("%s matched too and are not shown", policiesCount(e.LeftOut)))
	}
}

// drawPart draws a part and, one step to the right, the parts it is made of. A part that has any is named
// for what joins them: its text would repeat them all.
func drawPart(t *table, depth int, p api.AuthorizePart) {
	text := p.Text
	if p.Operator != "" && len(p.Parts) > 0 {
		text = map[string]string{"&&": "all of (&&)", "||": "any of (||)", "!": "not (!)"}[p.Operator]
		// when, unless and if are named as they are.
		text = firstOf(text, p.Operator)
	}
	switch {
	case p.Outcome == "not evaluated":
		text += "   (not evaluated)"
	case p.Error != "":
		text += "   error: " + p.Error
	}
	// What the operands came to, behind the text they are in.
	for i, v := range p.Values {
		joint := ", "
		if i == 0 {
			joint = "   with "
		}
		text += joint + v.Text + " = " + v.Value
	}
	t.line(fmt.Sprintf("%5d | %s%s %s", p.Line, strings.Repeat("  ", depth-1), tick(p.Outcome), text))
	for _, inner := range p.Parts {
		drawPart(t, depth+1, inner)
	}
}
