package avp

import (
	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
)

// verified is IsAuthorized's member "copse", which AVP does not have: what a PEP with a
// key of its own found out from a token that it verified. A key with Decide may name any
// principal and describe it as it likes, so this gives it nothing; it lets the engine
// tell the token's word from the caller's, and refuse here what it refuses where copse
// verifies the token itself. Its three kinds of content are separate in the message for
// the same reason, so that none can be taken for the caller's own entities and context.
type verified struct {
	// present tells an empty member, which also asks for the whole answer, from none.
	present           bool
	incarnation       string
	entities, context variant
	reservedTypes     []string
}

// read cuts the member out of the message. Its members are as strict as
// the message's: what is not known is refused.
func (v *verified) read(x *cutter, path string) error {
	v.present = true
	return x.object(path, func(x *cutter, name string) (err error) {
		at := path + "." + name
		switch name {
		case "incarnation":
			v.incarnation, err = x.text(at)
		case "entities":
			err = x.variant(at, "entityList", '[', copse.FormatAVPList, &v.entities)
		case "context":
			err = x.variant(at, "contextMap", '{', copse.FormatAVPMap, &v.context)
		case "reservedTypes":
			v.reservedTypes, err = x.texts(at, maxReservedTypes)
		default:
			err = unknownMember(at)
		}
		return err
	})
}

// maxReservedTypes is more than a registration has: the type of principals and that of groups. A bound
// keeps the list from being one that every entity is compared with.
const maxReservedTypes = 8

// texts reads an array of strings. The strings are copies.
func (x *cutter) texts(path string, most int) ([]string, error) {
	if x.dec.PeekKind() != '[' {
		return nil, x.wrongType(path, kindName('['))
	}
	raw, err := x.dec.ReadValue()
	if err != nil {
		return nil, decodingError(err)
	}
	var out []string
	if err := json.Unmarshal(raw, &out); err != nil || len(out) > most {
		return nil, invalidMember(path, "Member must be an array of a few strings")
	}
	return out, nil
}

// validate wants an incarnation to be one: a text that is none would otherwise mean any.
func (v *verified) validate(f *findings) {
	if !v.present {
		return
	}
	if v.entities.present {
		f.oneOf("copse.entities", v.entities.members == 1)
	}
	if v.context.present {
		f.oneOf("copse.context", v.context.members == 1)
	}
	if v.incarnation != "" && new(copse.Incarnation).UnmarshalText([]byte(v.incarnation)) != nil {
		f.add("copse.incarnation", "Member must be 32 hexadecimal digits")
	}
}

// complete adds to a request what the token says. The bytes alias the call's body. An incarnation makes
// the decision fail where the policy store is another one by now.
func (v *verified) complete(req *copse.Request) {
	if !v.present {
		return
	}
	_ = req.Incarnation.UnmarshalText([]byte(v.incarnation)) // validate has read it; empty is none
	req.ServerEntities, req.ServerContext = v.entities.data, v.context.data
	for _, t := range v.reservedTypes {
		req.ReservedTypes = append(req.ReservedTypes, types.EntityType(t))
	}
}

// whole is the answer's member "copse": all of a copse.Response, for who asked
// with one. It lets a remote PEP see what an embedded one would: revision and
// considered policies, names and the errors' policies apart from their texts.
type whole struct {
	Revision     uint64       `json:"revision"`
	Considered   int          `json:"considered"`
	OverBudget   bool         `json:"overBudget,omitzero"`
	ForbidFailed bool         `json:"forbidFailed,omitzero"`
	Determining  []policyRef  `json:"determining"`
	Errors       []wholeError `json:"errors"`
}

// policyRef is a [copse.PolicyRef] on the wire.
type policyRef struct {
	ID   copse.PolicyID `json:"id"`
	Name string         `json:"name,omitzero"`
}

// wholeError has the policy beside the message, where AVP's item has one text.
type wholeError struct {
	Policy  policyRef `json:"policy"`
	Message string    `json:"message"`
}

// appendWhole adds the member to an answer whose closing brace is still to come.
func appendWhole(out []byte, resp *copse.Response) ([]byte, error) {
	w := whole{Revision: resp.Revision, Considered: resp.Considered, OverBudget: resp.OverBudget, ForbidFailed: resp.ForbidFailed}
	for _, p := range resp.Determining {
		w.Determining = append(w.Determining, policyRef{p.ID, p.Name})
	}
	for _, e := range resp.Errors {
		w.Errors = append(w.Errors, wholeError{policyRef{e.Policy.ID, e.Policy.Name}, e.Message})
	}
	text, err := json.Marshal(&w, jsontext.AllowInvalidUTF8(true)) // a message may quote what was sent
	if err != nil {
		return nil, copse.Errorf(copse.Internal, "%w", err)
	}
	return append(append(out, `,"copse":`...), text...), nil
}
