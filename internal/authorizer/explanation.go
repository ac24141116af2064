package authorizer

import (
	"strconv"

	"github.com/copse-authz/copse"
)

// appendExplanation writes why a decision is what it is, for callers that may see policies. Its members
// are those of api.AuthorizeExplanation; texts and values are cut by the engine.
func appendExplanation(out []byte, e *copse.Explanation) []byte {
	out = append(out, `{"policies":[`...)
	for i := range e.Policies {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendExplained(out, &e.Policies[i])
	}
	out = append(out, `],"leftOut":`...)
	out = strconv.AppendInt(out, int64(e.LeftOut), 10)
	return append(out, '}')
}

// appendExplained writes one policy, with what it came to as a whole before what its parts did.
func appendExplained(out []byte, p *copse.ExplainedPolicy) []byte {
	out = appendRef(out, p.Policy)
	effect := "permit"
	if p.Forbids {
		effect = "forbid"
	}
	out = append(out, `,"effect":"`+effect+`","outcome":"`+p.Outcome.String()+`","scope":`...)
	out = appendParts(out, p.Scope)
	out = appendParts(append(out, `,"conditions":`...), p.Conditions)
	if p.Linked {
		out = append(out, `,"templateLinked":true`...)
	}
	if p.Cut {
		out = append(out, `,"cut":true`...)
	}
	return append(out, '}')
}

// appendParts is a list that is there, if empty.
func appendParts(out []byte, parts []copse.ExplainedPart) []byte {
	out = append(out, '[')
	for i := range parts {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendPart(out, &parts[i])
	}
	return append(out, ']')
}

// appendPart calls itself by way of [appendParts]; how deep is bounded by the parts that an explanation
// shows of a policy. Members that say nothing are left out.
func appendPart(out []byte, p *copse.ExplainedPart) []byte {
	out = appendString(append(out, `{"text":`...), p.Text)
	out = strconv.AppendInt(append(out, `,"line":`...), int64(p.Line), 10)
	out = strconv.AppendInt(append(out, `,"column":`...), int64(p.Column), 10)
	out = append(out, `,"outcome":"`+p.Outcome.String()+`"`...)
	if p.Operator != "" {
		out = appendString(append(out, `,"operator":`...), p.Operator)
	}
	if p.Error != "" {
		out = appendString(append(out, `,"error":`...), p.Error)
	}
	if len(p.Values) > 0 {
		out = append(out, `,"values":[`...)
		for i, v := range p.Values {
			if i > 0 {
				out = append(out, ',')
			}
			out = appendString(append(out, `{"text":`...), v.Text)
			out = appendString(append(out, `,"value":`...), v.Value)
			out = append(out, '}')
		}
		out = append(out, ']')
	}
	if len(p.Parts) > 0 {
		out = appendParts(append(out, `,"parts":`...), p.Parts)
	}
	return append(out, '}')
}
