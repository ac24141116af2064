package avp

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
)

// operation is one row of the dispatch table. A row is served and
// counted, and the tests that walk the table ask it too.
type operation struct {
	// name is as in X-Amz-Target, without the service's prefix.
	name string
	// needs is the verb a caller's key must have. The services check it; it stands here so that a
	// test can ask each operation with a key that lacks it.
	needs access.Verb
	// run returns the body of the answer. Its error is a copse.Error, a protocolError, or something
	// internal of which nobody outside is told.
	run func(h *handler, ctx context.Context, c *call) ([]byte, error)
}

// call is one authenticated request. The body is in memory whole, within copse.MaxRequestBytes, and
// nobody changes it: what the deciding operations cut out of it aliases it.
type call struct {
	operation string
	// start is before the credential was looked at: a decision's latency has all of that in it.
	start  time.Time
	caller access.Caller
	body   []byte
	// requestID is what the client sees in X-Amzn-Requestid; decision log and errors are found by it.
	requestID string
	needs     access.Verb // the operation's
}

// operations are all of AVP's. A key with Write changes what is in a policy store, its tags included.
// That it exists, its aliases, settings and protection need Admin.
var operations = []operation{
	{"CreatePolicyStore", access.Admin, serve((*handler).createPolicyStore)},
	{"GetPolicyStore", access.Read, serve((*handler).getPolicyStore)},
	{"ListPolicyStores", access.Read, serve((*handler).listPolicyStores)},
	{"DeletePolicyStore", access.Admin, serve((*handler).deletePolicyStore)},
	{"UpdatePolicyStore", access.Admin, serve((*handler).updatePolicyStore)},
	{"CreatePolicyStoreAlias", access.Admin, serve((*handler).createPolicyStoreAlias)},
	{"GetPolicyStoreAlias", access.Read, serve((*handler).getPolicyStoreAlias)},
	{"ListPolicyStoreAliases", access.Read, serve((*handler).listPolicyStoreAliases)},
	{"DeletePolicyStoreAlias", access.Admin, serve((*handler).deletePolicyStoreAlias)},
	{"TagResource", access.Write, serve((*handler).tagResource)},
	{"UntagResource", access.Write, serve((*handler).untagResource)},
	{"ListTagsForResource", access.Read, serve((*handler).listTagsForResource)},
	{"PutSchema", access.Write, serve((*handler).putSchema)},
	{"GetSchema", access.Read, serve((*handler).getSchema)},
	{"CreatePolicy", access.Write, serve((*handler).createPolicy)},
	{"GetPolicy", access.Read, serve((*handler).getPolicy)},
	{"UpdatePolicy", access.Write, serve((*handler).updatePolicy)},
	{"DeletePolicy", access.Write, serve((*handler).deletePolicy)},
	{"ListPolicies", access.Read, serve((*handler).listPolicies)},
	{"CreateIdentitySource", access.Write, serve((*handler).createIdentitySource)},
	{"GetIdentitySource", access.Read, serve((*handler).getIdentitySource)},
	{"UpdateIdentitySource", access.Write, serve((*handler).updateIdentitySource)},
	{"DeleteIdentitySource", access.Write, serve((*handler).deleteIdentitySource)},
	{"ListIdentitySources", access.Read, serve((*handler).listIdentitySources)},
	{"BatchGetPolicy", access.Read, serve((*handler).batchGetPolicy)},
	{"CreatePolicyTemplate", access.Write, serve((*handler).createPolicyTemplate)},
	{"GetPolicyTemplate", access.Read, serve((*handler).getPolicyTemplate)},
	{"UpdatePolicyTemplate", access.Write, serve((*handler).updatePolicyTemplate)},
	{"DeletePolicyTemplate", access.Write, serve((*handler).deletePolicyTemplate)},
	{"ListPolicyTemplates", access.Read, serve((*handler).listPolicyTemplates)},
	// The four that decide have a reader of their own: Cedar values are cut out of the
	// message, not decoded.
	{"IsAuthorized", access.Decide, (*handler).isAuthorized},
	{"BatchIsAuthorized", access.Decide, (*handler).batchIsAuthorized},
	{"IsAuthorizedWithToken", access.Decide, (*handler).isAuthorizedWithToken},
	{"BatchIsAuthorizedWithToken", access.Decide, (*handler).batchIsAuthorizedWithToken},
}

// input is a request that can say what is wrong with it, before anything is done.
type input[Req any] interface {
	*Req
	validate(f *findings)
}

// serve makes a row's run from a typed function: decode strictly, validate, resolve an alias, call,
// encode. It refuses unknown members, members given twice and text that is not UTF-8: what two parsers
// could read in two ways is read in none.
func serve[Req any, P input[Req], Resp any](do func(*handler, context.Context, access.Caller, P) (Resp, error)) func(*handler, context.Context, *call) ([]byte, error) {
	return func(h *handler, ctx context.Context, c *call) ([]byte, error) {
		req := P(new(Req))
		if err := json.Unmarshal(c.body, req, json.RejectUnknownMembers(true)); err != nil {
			return nil, decodingError(err)
		}
		// All findings are collected before anything is read or charged, so
		// one answer names every mistake.
		var f findings
		if req.validate(&f); f.err() != nil {
			return nil, f.err()
		}
		// From here on the operation sees an id, unless it refuses the caller whatever is named: see
		// [handler.resolve]. Answers name the id, also where the request had an alias.
		if in, ok := any(req).(targeted); ok {
			id, err := h.resolve(ctx, c.caller, c.needs, *in.target())
			if err != nil {
				return nil, err
			}
			*in.target() = string(id)
		}
		resp, err := do(h, ctx, c.caller, req)
		if err != nil {
			return nil, err
		}
		return json.Marshal(resp)
	}
}

// decodingError names the place of what JSON or the member's type does not allow. The decoder's own
// text stays in the cause, for the log: it speaks of Go types.
func decodingError(err error) error {
	path, message := "", "the body is not valid JSON"
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		path = memberPath(e.JSONPointer)
		switch {
		// The same words as in the deciding operations, which have no Go type to fail on.
		case errors.Is(e.Err, json.ErrUnknownName):
			message = "Member is not known to copse; it would have no effect"
		case e.JSONKind != 0:
			message = "Member must not be of JSON type " + kindName(e.JSONKind)
		default:
			message = "Member has a value of the wrong type"
		}
	} else if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		path = memberPath(e.JSONPointer)
		message = "the body is not valid JSON: " + e.Err.Error()
		if errors.Is(e.Err, jsontext.ErrDuplicateName) {
			message = "Member is given twice"
		}
	}
	return &copse.Error{Kind: copse.Invalid, Detail: message, Err: err,
		Fields: []copse.Field{{Path: path, Message: message}}}
}

// memberPath turns a JSON pointer into the form of every path in a fieldList,
// which is the engine's too: requests[3].action.actionId. What is shown of it
// has a bound: names in the body are the caller's, of any length.
func memberPath(p jsontext.Pointer) string {
	var b strings.Builder
	for token := range p.Tokens() {
		// A name that looks like a number is shown like an index too; the path is for people to read.
		if _, err := strconv.ParseUint(token, 10, 31); err == nil {
			b.WriteString("[" + token + "]")
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(token)
	}
	const most = 300
	if b.Len() > most {
		// The cut may fall inside a character, and an answer must be UTF-8.
		return strings.ToValidUTF8(b.String()[:most], "") + "..."
	}
	return b.String()
}

// kindName is a JSON kind in words for a finding; brackets count as what they belong to.
func kindName(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "boolean"
	case '"':
		return "string"
	case '0':
		return "number"
	case '{', '}':
		return "object"
	case '[', ']':
		return "array"
	default:
		return "unknown"
	}
}

// Operations are the names of all operations, for the test that walks them. The slice is the caller's.
func Operations() []string {
	names := make([]string, len(operations))
	for i := range operations {
		names[i] = operations[i].name
	}
	return names
}
