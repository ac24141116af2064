package engine

import (
	"bytes"
	"errors"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
)

// Limits of policies in Cedar's JSON syntax, which says the same in more bytes and levels than the text:
// a && b && c has two levels more for each &&. cedar-go reads each level again for those around it.
const (
	// Ten times the bytes of a text, and four times the levels: the text that comes of it has limits of
	// its own.
	maxPolicyJSONBytes   = 100_000
	maxPolicyJSONNesting = 400
)

// ParsePolicyJSON reads one policy in Cedar's JSON syntax. It is written as Cedar text and read again as
// such, so that all limits of text hold, and Text is what decides. Errors have no lines of that text,
// since the caller has never seen it; those about the JSON itself may have its lines.
func ParsePolicyJSON(path string, data []byte) (*Policy, error) {
	text, err := jsonToText(path, data)
	if err != nil {
		return nil, err
	}
	p, err := ParsePolicy(path, text)
	return p, withoutPlaces(err)
}

// ParseTemplateJSON reads one template in Cedar's JSON syntax, as ParsePolicyJSON does a policy.
func ParseTemplateJSON(path string, data []byte) (*Template, error) {
	text, err := jsonToText(path, data)
	if err != nil {
		return nil, err
	}
	t, err := ParseTemplate(path, text)
	return t, withoutPlaces(err)
}

// withoutPlaces drops the lines of findings about a text that the caller has never seen.
func withoutPlaces(err error) error {
	if e, ok := errors.AsType[*copse.Error](err); ok {
		for i := range e.Fields {
			e.Fields[i].Line, e.Fields[i].Column = 0, 0
		}
	}
	return err
}

// jsonToText writes a policy or template in JSON as Cedar text. Errors about the JSON are made here; what
// the text says is judged by whoever parses it.
func jsonToText(path string, data []byte) ([]byte, error) {
	if len(data) > maxPolicyJSONBytes {
		return nil, sizeError(copse.ResourcePolicy, path, len(data), maxPolicyJSONBytes)
	}
	plain, slots, err := fillSlots(path, data)
	if err != nil {
		return nil, asPolicyError(err)
	}
	refuse := func(format string, args ...any) error {
		return policyError(position{}.field(path, format, args...))
	}
	var p cedar.Policy
	// Depth, names and text were looked at token by token, so the decoder may recurse.
	if err := p.UnmarshalJSON(plain); err != nil {
		return nil, refuse("%s", jsonMessage(err, "this can't be read as a policy"))
	}
	// Before it is written: a name could otherwise carry text of its own into the policy.
	if name := badName((*ast.Policy)(p.AST())); name != "" {
		return nil, refuse("%q is not a name: expected letters, digits and _, parts of it joined by ::, and no reserved word", clipTo(name, 100))
	}
	text := p.MarshalCedar()
	for variable, slot := range slots {
		text = putSlot(text, variable, slot)
	}
	return text, nil
}

// fillSlots checks depth, duplicate names and UTF-8 token by token, before a decoder that recurses, and
// puts an entity in the place of each slot, for cedar-go does not know them. It returns which variables
// have one. Where else a slot may be written, cedar-go refuses it as an unknown member. Something behind
// the value is refused.
func fillSlots(path string, data []byte) ([]byte, map[string]string, error) {
	r := newReader(path, true, data)
	var out bytes.Buffer
	enc := jsontext.NewEncoder(&out)
	slots := map[string]string{}
	for {
		tok, err := r.token()
		if err != nil {
			return nil, nil, err
		}
		if r.dec.StackDepth() > maxPolicyJSONNesting {
			return nil, nil, r.fail("objects and arrays nest more than %d deep", maxPolicyJSONNesting)
		}
		variable := ""
		switch r.dec.StackPointer() {
		case "/principal/slot", "/principal/in/slot":
			variable = "principal"
		case "/resource/slot", "/resource/in/slot":
			variable = "resource"
		}
		if variable == "" {
			err = enc.WriteToken(tok)
		} else {
			// The name was read; this is its value, which must be the slot of the same side.
			if tok, err = r.token(); err != nil {
				return nil, nil, err
			}
			if tok.Kind() != '"' || tok.String() != "?"+variable {
				return nil, nil, r.fail("the slot of the %s's scope is written %q", variable, "?"+variable)
			}
			slots[variable] = tok.String()
			if err = enc.WriteToken(jsontext.String("entity")); err == nil {
				err = enc.WriteValue(jsontext.Value(`{"type":"A","id":""}`))
			}
		}
		if err != nil {
			// The encoder refuses a second member of one name.
			return nil, nil, r.fail("a scope has either an entity or a slot")
		}
		if r.dec.StackDepth() == 0 {
			return out.Bytes(), slots, r.end()
		}
	}
}

// putSlot writes the slot where the scope of the variable names an entity. The text is what cedar-go
// wrote, with A::"" in that place, so the first entity behind the variable's operator in the head is it.
func putSlot(text []byte, variable, slot string) []byte {
	l := lexer{text: string(text)}
	inside, start := false, -1
	var last token
	for {
		tok, f := l.next()
		if f != nil || tok.kind == tokEnd {
			return text
		}
		switch {
		case start >= 0 && tok.kind == tokString:
			return []byte(l.text[:start] + slot + l.text[tok.end:])
		case start == 0:
			start = tok.start
		case tok.is(variable) && (last.is("(") || last.is(",")):
			inside = true
		// Of `is T in` the type is passed over.
		case inside && start < 0 && (tok.is("==") || tok.is("in")):
			start = 0
		}
		last = tok
	}
}

// badName returns a name of the policy that isn't one. cedar-go takes any string from JSON for a type,
// a function or the key of an annotation, and writes it into the text as it is. The empty result means
// that all are names. Function names are not qualified, and variables neither. Attributes and the keys of
// records are quoted where they are no names, and need no check.
func badName(p *ast.Policy) string {
	bad := ""
	check := func(name string, qualified bool) {
		if _, err := types.NewPath(name); bad == "" && (err != nil || !qualified && strings.Contains(name, "::")) {
			bad = name
		}
	}
	for _, a := range p.Annotations {
		// Reserved words are fine as names of annotations.
		if !reservedName(string(a.Key)) {
			check(string(a.Key), false)
		}
	}
	for _, scope := range []ast.IsScopeNode{p.Principal, p.Action, p.Resource} {
		switch n := scope.(type) {
		case ast.ScopeTypeIs:
			check(string(n.Type), true)
		case ast.ScopeTypeIsIn:
			check(string(n.Type), true)
			check(string(n.Entity.Type), true)
		case ast.ScopeTypeInSet:
			for _, e := range n.Entities {
				check(string(e.Type), true)
			}
		case ast.ScopeTypeEq, ast.ScopeTypeIn:
			check(string(scopeEntity(n).Type), true)
		}
	}
	for _, condition := range p.Conditions {
		ast.Inspect(ast.NewNode(condition.Body), func(n ast.IsNode) bool {
			switch n := n.(type) {
			case ast.NodeTypeIs:
				check(string(n.EntityType), true)
			case ast.NodeTypeIsIn:
				check(string(n.EntityType), true)
			case ast.NodeTypeExtensionCall:
				check(string(n.Name), false)
			case ast.NodeTypeVariable:
				check(string(n.Name), false)
			case ast.NodeValue:
				if uid, ok := n.Value.(types.EntityUID); ok {
					check(string(uid.Type), true)
				}
			}
			return true
		})
	}
	return bad
}

// asPolicyError makes the reader's findings, which it words for requests, those of a policy.
func asPolicyError(err error) error {
	if e, ok := errors.AsType[*copse.Error](err); ok {
		return policyError(e.Fields...)
	}
	return err
}
