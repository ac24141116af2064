package authorizer

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
)

// appendAnswer writes the 200 of a decision. The control API's document describes it; a test there and
// one here hold the two together. Strings are escaped and UTF-8, whatever they were. What a caller
// without a key may see comes first, so the answer with details is that and more.
func appendAnswer(out []byte, x *exchange, resp *copse.Response) []byte {
	out = append(out, `{"decision":"`...)
	out = append(out, resp.Decision.String()...)
	out = append(out, `","tenant":`...)
	out = appendString(out, string(x.entry.Tenant))
	out = append(out, `,"policyStoreId":`...)
	out = appendString(out, string(x.entry.PolicyStoreID))
	out = append(out, `,"revision":`...)
	out = strconv.AppendUint(out, resp.Revision, 10)
	out = append(out, `,"reason":"`...)
	out = append(out, reason(resp)...)
	out = append(out, '"')
	// Lists are there for who may see them, empty or not.
	if x.detail {
		out = append(out, `,"determiningPolicies":[`...)
		for i, ref := range resp.Determining {
			if i > 0 {
				out = append(out, ',')
			}
			out = appendRef(out, ref)
			out = append(out, '}')
		}
		out = append(out, `],"errors":[`...)
		for i := range resp.Errors {
			if i > 0 {
				out = append(out, ',')
			}
			out = appendRef(out, resp.Errors[i].Policy)
			out = append(out, `,"errorDescription":`...)
			out = appendString(out, resp.Errors[i].Message)
			out = append(out, '}')
		}
		out = append(out, `],"considered":`...)
		out = strconv.AppendInt(out, int64(resp.Considered), 10)
	}
	if x.explanation != nil {
		out = appendExplanation(append(out, `,"explanation":`...), x.explanation)
	}
	return append(out, "}\n"...)
}

// ReasonForbidFailed is the reason of a denial for want of certainty.
const ReasonForbidFailed = "a forbid failed"

// reason is one of five texts. They tell why and name no policy, so they are for everyone; a decision
// that was cut short is told apart, since it says nothing about the policies.
func reason(resp *copse.Response) string {
	switch {
	case resp.OverBudget:
		return "budget exceeded"
	case resp.Decision == copse.Allow:
		return "permitted by policy"
	case len(resp.Determining) > 0:
		return "denied by policy"
	case resp.ForbidFailed:
		return ReasonForbidFailed
	}
	return "no policy applied"
}

// appendRef leaves the object open. The caller closes it, after members of its own.
func appendRef(out []byte, ref copse.PolicyRef) []byte {
	out = append(out, `{"policyId":`...)
	out = appendString(out, string(ref.ID))
	if ref.Name != "" {
		out = append(out, `,"policyName":`...)
		out = appendString(out, ref.Name)
	}
	return out
}

// appendString quotes. Ids and names need no escape, and are the common case. So the loop looks for
// what would need one before it copies.
func appendString(out []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			out, _ = jsontext.AppendQuote(out, s) // invalid UTF-8 becomes U+FFFD
			return out
		}
	}
	out = append(out, '"')
	out = append(out, s...)
	return append(out, '"')
}
