package avp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/decisionlog"
	"github.com/copse-authz/copse/internal/policystore"
)

// isAuthorized is the hot path: the message is cut, not decoded, and the answer is written by hand. What a
// token says goes in after what the caller says, and only where the message has the member for it.
func (h *handler) isAuthorized(ctx context.Context, c *call) ([]byte, error) {
	var in question
	if err := h.read(ctx, c, &in); err != nil {
		return nil, err
	}
	req := in.request(&in.asked)
	in.copse.complete(&req)
	view, err := h.policyStores.ViewAs(ctx, c.caller, "IsAuthorized", req.PolicyStoreID, 1)
	if err != nil {
		return nil, err
	}
	// A request that can't be decided has no answer at all: an error and
	// never a DENY that looks like one.
	resp, err := view.Decide(ctx, &req)
	if err != nil {
		return nil, err
	}
	if err := h.recordOne(ctx, c, &view, &req, &resp); err != nil {
		return nil, err
	}
	out := appendDecision(make([]byte, 0, 256), &resp)
	// Only who sent the member gets it back, so AWS's clients see exactly AVP's answer.
	if in.copse.present {
		if out, err = appendWhole(out, &resp); err != nil {
			return nil, err
		}
	}
	return append(out, '}'), nil
}

// recordOne has one decision recorded.
func (h *handler) recordOne(ctx context.Context, c *call, view *policystore.View, req *copse.Request, resp *copse.Response) error {
	return h.recorded(ctx, c, []decisionlog.Entry{c.entry(view, req, resp)})
}

// recorded has decisions recorded, before anybody is told of them, and counts them. Nothing is counted
// of a decision that could not be recorded: it was refused.
func (h *handler) recorded(ctx context.Context, c *call, decided []decisionlog.Entry) error {
	if err := h.record(ctx, decided); err != nil {
		return err
	}
	for i := range decided {
		h.deciding.decided(c.operation, decided[i].Response.Decision)
	}
	return nil
}

// entry is the decision as the log gets it. The request goes along for whoever applies the policy
// store's rules; the log keeps nothing of it.
func (c *call) entry(view *policystore.View, req *copse.Request, resp *copse.Response) decisionlog.Entry {
	return decisionlog.Entry{
		Time: c.start, RequestID: c.requestID, Via: c.operation, Key: c.caller.KeyID,
		Tenant: view.Tenant.Tenant, PolicyStoreID: req.PolicyStoreID, Incarnation: view.Incarnation,
		Principal: req.Principal, Action: req.Action, Resource: req.Resource,
		Response: *resp, Latency: time.Since(c.start), Request: req,
	}
}

// question is the input of the four operations that decide. Identifiers are copies; entities and
// context alias the body. The zero value but for its two switches is ready for [handler.cut].
type question struct {
	// Which operation's members there may be: those with a token name no principal, a batch asks several
	// times.
	byToken, batch bool

	policyStoreID string
	entities      variant
	copse         verified // unless batch or byToken
	asked                  // unless batch
	requests      []asked

	identityToken, accessToken string
}

// asked is one of the decisions that a question asks for. at is empty, or ends in a dot. The three
// has-members tell an absent identifier from one with empty texts.
type asked struct {
	at                  string // path of its members: "", or of a batch's item "requests[3]."
	principal, resource entityIdentifier
	action              actionIdentifier
	context             variant

	hasPrincipal, hasAction, hasResource bool
}

// variant is a union cut out of the message. members counts how many of the union's variants were
// given, the same one twice being refused earlier; data is the last of them.
type variant struct {
	present bool
	members int
	data    copse.Data
}

// validate asks for principal, action and resource, which AVP's model leaves optional: an absent one
// would have to mean something, and there is no meaning that can't surprise. It
// runs when the whole message is cut, since members come in any order.
func (q *question) validate(f *findings) {
	f.id("policyStoreId", q.policyStoreID)
	if q.byToken {
		q.validateTokens(f)
	}
	if q.batch {
		q.validateBatch(f)
	} else {
		q.asked.validate(f, q.byToken)
	}
	if q.entities.present {
		f.oneOf("entities", q.entities.members == 1)
	}
	q.copse.validate(f)
}

// validate lets context be absent, which is the empty record.
func (q *asked) validate(f *findings, byToken bool) {
	if !byToken && f.required(q.at+"principal", q.hasPrincipal) {
		f.entity(q.at+"principal", q.principal)
	}
	if f.required(q.at+"action", q.hasAction) {
		f.action(q.at+"action", q.action)
	}
	if f.required(q.at+"resource", q.hasResource) {
		f.entity(q.at+"resource", q.resource)
	}
	if q.context.present {
		f.oneOf(q.at+"context", q.context.members == 1)
	}
}

// request is one decision of the question; whoever verified a token adds what that says. Bytes of
// context and entities alias the call's body, so the request is good as long as that is.
func (q *question) request(a *asked) copse.Request {
	return copse.Request{
		PolicyStoreID: copse.PolicyStoreID(q.policyStoreID),
		Principal:     a.principal.uid(),
		Action:        entityIdentifier{EntityType: a.action.ActionType, EntityID: a.action.ActionID}.uid(),
		Resource:      a.resource.uid(),
		Context:       a.context.data,
		Entities:      q.entities.data,
	}
}

// cutter reads members with a decoder that checks the whole text: UTF-8,
// nesting and names that occur twice, also inside what is only cut out.
// A cutter serves one message at a time and goes back to the pool.
type cutter struct {
	buf bytes.Buffer
	dec jsontext.Decoder
}

// read cuts a question out of a call's body, holds it against the rules of
// its members, and puts the id in the place of an alias. The order is that
// of [serve], so that a mistake is the same answer in all operations.
func (h *handler) read(ctx context.Context, c *call, q *question) error {
	if err := h.cut(c.body, q); err != nil {
		return err
	}
	var f findings
	if q.validate(&f); f.err() != nil {
		return f.err()
	}
	id, err := h.resolve(ctx, c.caller, c.needs, q.policyStoreID)
	q.policyStoreID = string(id)
	return err
}

// cut fills the question with what aliases body; body must not change while the question is in use.
func (h *handler) cut(body []byte, q *question) error {
	x, ok := h.cutters.Get().(*cutter)
	if !ok {
		x = new(cutter)
	}
	// The buffer is the cutter's, so a message costs no allocation for it.
	x.buf = *bytes.NewBuffer(body)
	// Over a bytes.Buffer the decoder reads in place, so that values alias body and stay valid.
	x.dec.Reset(&x.buf)
	err := x.object("", q.member)
	if err == nil {
		err = x.end()
	}
	// What goes back to the pool must not keep the body alive.
	x.buf = bytes.Buffer{}
	x.dec.Reset(&x.buf)
	h.cutters.Put(x)
	return err
}

// member reads one member of the message. Which ones there may be depends on the operation: a principal
// beside a token would be a second word on who asks.
func (q *question) member(x *cutter, name string) (err error) {
	switch {
	case name == "policyStoreId":
		q.policyStoreID, err = x.text(name)
	case name == "entities":
		err = x.variant(name, "entityList", '[', copse.FormatAVPList, &q.entities)
	case q.byToken && name == "identityToken":
		q.identityToken, err = x.token(name)
	case q.byToken && name == "accessToken":
		q.accessToken, err = x.token(name)
	case q.batch && name == "requests":
		err = x.requests(name, q)
	case name == "copse" && !q.byToken && !q.batch:
		err = q.copse.read(x, name)
	case !q.batch:
		err = q.asked.member(x, name, q.byToken)
	default:
		err = unknownMember(name)
	}
	return err
}

// member reads one member of a decision's question, from the message or from a batch's item.
func (q *asked) member(x *cutter, name string, byToken bool) (err error) {
	switch {
	case name == "principal" && !byToken:
		q.hasPrincipal = true
		err = x.identifier(q.at+name, q.at+"principal.entityType", &q.principal.EntityType, q.at+"principal.entityId", &q.principal.EntityID)
	case name == "resource":
		q.hasResource = true
		err = x.identifier(q.at+name, q.at+"resource.entityType", &q.resource.EntityType, q.at+"resource.entityId", &q.resource.EntityID)
	case name == "action":
		q.hasAction = true
		err = x.identifier(q.at+name, q.at+"action.actionType", &q.action.ActionType, q.at+"action.actionId", &q.action.ActionID)
	case name == "context":
		err = x.variant(q.at+name, "contextMap", '{', copse.FormatAVPMap, &q.context)
	default:
		err = unknownMember(q.at + name)
	}
	return err
}

// object calls member for each member of the object that comes next. Names that stand twice are refused
// by the decoder, so member sees each at most once.
func (x *cutter) object(path string, member func(x *cutter, name string) error) error {
	if x.dec.PeekKind() != '{' {
		return x.wrongType(path, "object")
	}
	if _, err := x.dec.ReadToken(); err != nil {
		return decodingError(err)
	}
	// Whatever is not a name ends the loop, and is a closing brace or an error in ReadToken.
	for x.dec.PeekKind() == '"' {
		raw, err := x.dec.ReadValue()
		if err != nil {
			return decodingError(err)
		}
		name, err := memberName(raw)
		if err != nil {
			return err
		}
		if err := member(x, name); err != nil {
			return err
		}
	}
	if _, err := x.dec.ReadToken(); err != nil {
		return decodingError(err)
	}
	return nil
}

// memberName unquotes a name. The known ones cost no allocation, since they need no unescaping and the
// compiler interns the comparison. raw is a JSON string with its quotes, as the decoder returns it.
func memberName(raw jsontext.Value) (string, error) {
	inner := raw[1 : len(raw)-1]
	for _, known := range memberNames {
		if string(inner) == known {
			return known, nil
		}
	}
	name, err := jsontext.AppendUnquote(nil, []byte(raw))
	if err != nil {
		return "", decodingError(err)
	}
	return string(name), nil
}

// memberNames are compared in order, so those of the commonest operation come first.
var memberNames = [...]string{
	"policyStoreId", "principal", "action", "resource", "context", "entities",
	"entityType", "entityId", "actionType", "actionId", "contextMap", "entityList", "cedarJson",
	"identityToken", "accessToken", "requests", "copse",
}

// text reads a string member; null counts as absent, as the SDKs treat it. The text is a copy, so what
// is kept of it does not hold the body.
func (x *cutter) text(path string) (string, error) {
	switch x.dec.PeekKind() {
	case '"':
	case 'n':
		if _, err := x.dec.ReadToken(); err != nil {
			return "", decodingError(err)
		}
		return "", nil
	default:
		return "", x.wrongType(path, "string")
	}
	raw, err := x.dec.ReadValue()
	if err != nil {
		return "", decodingError(err)
	}
	text, err := unquote(raw)
	if err != nil {
		return "", decodingError(err)
	}
	return string(text), nil
}

// unquote returns the text inside quotes, in place when it holds no
// escape. The result may alias raw, which aliases the body.
func unquote(raw jsontext.Value) ([]byte, error) {
	if inner := raw[1 : len(raw)-1]; bytes.IndexByte(inner, '\\') < 0 {
		return inner, nil
	}
	return jsontext.AppendUnquote(nil, []byte(raw))
}

// identifier reads an object of two texts, each given by its whole path.
// Both texts are optional here: validate says what is missing.
func (x *cutter) identifier(path, typePath string, typ *string, idPath string, id *string) error {
	return x.object(path, func(x *cutter, name string) (err error) {
		switch name {
		case typePath[len(path)+1:]:
			*typ, err = x.text(typePath)
		case idPath[len(path)+1:]:
			*id, err = x.text(idPath)
		default:
			err = unknownMember(path + "." + name)
		}
		return err
	})
}

// variant cuts a union of AVP's own format, which begins with opening, and
// Cedar JSON in a string. The value is cut out whole and not looked into;
// the engine reads it once, in its own format, and says where it is wrong.
func (x *cutter) variant(path, own string, opening jsontext.Kind, format copse.Format, v *variant) error {
	v.present = true
	return x.object(path, func(x *cutter, name string) error {
		switch name {
		case own:
			if x.dec.PeekKind() != opening {
				return x.wrongType(path+"."+own, kindName(opening))
			}
			raw, err := x.dec.ReadValue()
			if err != nil {
				return decodingError(err)
			}
			v.data = copse.Data{Format: format, Bytes: raw}
		case "cedarJson":
			if x.dec.PeekKind() != '"' {
				return x.wrongType(path+".cedarJson", "string")
			}
			raw, err := x.dec.ReadValue()
			if err != nil {
				return decodingError(err)
			}
			text, err := unquote(raw)
			if err != nil {
				return decodingError(err)
			}
			v.data = copse.Data{Format: copse.FormatCedarJSON, Bytes: text}
		default:
			return unknownMember(path + "." + name)
		}
		v.members++
		return nil
	})
}

// end refuses anything after the object. Two values in one body could be
// read as one of them here and as the other elsewhere.
func (x *cutter) end() error {
	if x.dec.PeekKind() == 0 {
		if _, err := x.dec.ReadToken(); err != nil && !errors.Is(err, io.EOF) {
			return decodingError(err)
		}
		return nil
	}
	return invalidMember("", "there is more text after the JSON object")
}

// wrongType tells what should have come, or, when the text is broken
// there, that. It consumes nothing but a broken token, for the error.
func (x *cutter) wrongType(path, want string) error {
	if x.dec.PeekKind() == 0 {
		if _, err := x.dec.ReadToken(); err != nil && !errors.Is(err, io.EOF) {
			return decodingError(err)
		}
		return invalidMember(path, "the body is not valid JSON: it ends too early")
	}
	return invalidMember(path, fmt.Sprintf("Member must be of JSON type %s, not %s", want, kindName(x.dec.PeekKind())))
}

// unknownMember quotes a name back only to a length, since it may be as long as a body.
func unknownMember(path string) error {
	const most = 300
	if len(path) > most {
		path = strings.ToValidUTF8(path[:most], "") + "..." // a character may have been cut in two
	}
	return invalidMember(path, "Member is not known to copse; it would have no effect")
}

// invalidMember is the error for the one mistake that ends the reading of a message.
func invalidMember(path, message string) error {
	return &copse.Error{Kind: copse.Invalid, Detail: message, Fields: []copse.Field{{Path: path, Message: message}}}
}

// appendDecision writes an answer but for its closing brace. Both lists are always there, empty or not.
// Determining policies and errors are sorted by the engine, so equal requests have equal answers.
func appendDecision(out []byte, resp *copse.Response) []byte {
	out = append(out, `{"decision":"`...)
	out = append(out, resp.Decision.String()...)
	out = append(out, `","determiningPolicies":[`...)
	for i, p := range resp.Determining {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, `{"policyId":`...)
		out = appendQuoted(out, string(p.ID))
		out = append(out, '}')
	}
	out = append(out, `],"errors":[`...)
	for i := range resp.Errors {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, `{"errorDescription":`...)
		out = appendQuoted(out, errorDescription(&resp.Errors[i]))
		out = append(out, '}')
	}
	return append(out, ']')
}

// errorDescription names the policy, for which AVP's item has no member of its own. The policy's id
// comes first, so that the text can be traced without the answer's order.
func errorDescription(e *copse.EvaluationError) string {
	if e.Policy.ID == "" {
		return e.Message
	}
	return "policy " + string(e.Policy.ID) + ": " + e.Message
}

// appendQuoted writes any string as JSON, escaped and in quotes.
func appendQuoted(out []byte, s string) []byte {
	// Text that is not UTF-8 gets replacement characters, which is all a description needs.
	out, _ = jsontext.AppendQuote(out, s)
	return out
}
