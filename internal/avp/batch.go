package avp

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/decisionlog"
	"github.com/copse-authz/copse/internal/policystore"
)

// Bounds of a batch, AVP's. They keep one call from holding a thread for as long as it likes; a body's
// size alone would allow thousands of small requests.
const (
	maxBatch           = 30
	maxBatchPrincipals = 100
	maxBatchResources  = 100
)

// batchIsAuthorized decides several requests by one revision of the policy store: each as IsAuthorized
// would have decided it then. Rights are asked for once, and the plan is charged with the number of
// requests, before the first is decided.
func (h *handler) batchIsAuthorized(ctx context.Context, c *call) ([]byte, error) {
	in := question{batch: true}
	if err := h.read(ctx, c, &in); err != nil {
		return nil, err
	}
	if err := in.checkCrowd(); err != nil {
		return nil, err
	}
	view, err := h.policyStores.ViewAs(ctx, c.caller, "BatchIsAuthorized", copse.PolicyStoreID(in.policyStoreID), len(in.requests))
	if err != nil {
		return nil, err
	}
	out, err := h.decideAll(ctx, c, &in, view, func(*copse.Request) {})
	if err != nil {
		return nil, err
	}
	return append(out, '}'), nil
}

// decideAll answers a batch's requests in their order; complete adds to each what is not in the
// message. One request that can't be decided ends the call, as it would alone: AVP's answer has no
// place for it. Nothing is answered of a batch of which not everything is recorded. The answer's brace
// is left open, for what the caller has to add.
func (h *handler) decideAll(ctx context.Context, c *call, in *question, view policystore.View, complete func(*copse.Request)) ([]byte, error) {
	out := []byte(`{"results":[`)
	decided := make([]decisionlog.Entry, 0, len(in.requests)) // recorded together: one wait for the disk
	for i := range in.requests {
		// A client that is gone is the end of the work, also between two requests of a batch.
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		item := &in.requests[i]
		req := in.request(item)
		complete(&req)
		resp, err := view.Decide(ctx, &req)
		// A finding about one of many is no use without its index.
		if err != nil {
			return nil, item.place(err)
		}
		decided = append(decided, c.entry(&view, &req, &resp))
		if i > 0 {
			out = append(out, ',')
		}
		out = appendDecision(out, &resp)
		out = append(out, `,"request":`...)
		out = append(item.appendTo(out, in.byToken), '}')
	}
	if err := h.recorded(ctx, c, decided); err != nil {
		return nil, err
	}
	return append(out, ']'), nil
}

// place says of a finding which of the requests it is about. The error
// itself is left as it was; what is returned is a copy. Findings about
// members that the requests share, entities above all, stay where they are.
func (q *asked) place(err error) error {
	e, ok := errors.AsType[*copse.Error](err)
	if !ok || e.Kind != copse.Invalid {
		return err
	}
	placed := *e
	placed.Fields = make([]copse.Field, len(e.Fields))
	for i, f := range e.Fields {
		member, _, _ := strings.Cut(f.Path, ".")
		switch member {
		case "principal", "action", "resource", "context":
			f.Path = q.at + f.Path
		}
		placed.Fields[i] = f
	}
	return &placed
}

// requests reads a batch's items. Its bound is checked as they come, so
// that a body full of tiny items costs no more than one too many.
func (x *cutter) requests(path string, q *question) error {
	if x.dec.PeekKind() != '[' {
		return x.wrongType(path, "array")
	}
	if _, err := x.dec.ReadToken(); err != nil {
		return decodingError(err)
	}
	for x.dec.PeekKind() != ']' {
		item := asked{at: path + "[" + strconv.Itoa(len(q.requests)) + "]."}
		// The path without its dot, for a finding about the item itself.
		err := x.object(item.at[:len(item.at)-1], func(x *cutter, name string) error { return item.member(x, name, q.byToken) })
		if err != nil {
			return err
		}
		if q.requests = append(q.requests, item); len(q.requests) > maxBatch {
			return invalidMember(path, "Member must have length between 1 and "+strconv.Itoa(maxBatch))
		}
	}
	if _, err := x.dec.ReadToken(); err != nil {
		return decodingError(err)
	}
	return nil
}

// validateBatch checks every item, then what AVP asks of them together: one principal for many
// resources, or one resource for many principals.
func (q *question) validateBatch(f *findings) {
	if len(q.requests) == 0 {
		f.add("requests", "Member must have length between 1 and %d, has 0", maxBatch)
		return
	}
	samePrincipal, sameResource := true, true
	for i := range q.requests {
		item := &q.requests[i]
		item.validate(f, q.byToken)
		samePrincipal = samePrincipal && item.principal == q.requests[0].principal
		sameResource = sameResource && item.resource == q.requests[0].resource
	}
	// With a token there is one principal anyway, that of the token.
	if !q.byToken && !samePrincipal && !sameResource {
		f.add("requests", "Member must have the same principal, or the same resource, in all requests")
	}
}

// checkCrowd bounds the entities of a batch: those of the requests' principal types are principals, all
// others resources. What can't be read here is left to the engine, which says what is wrong with it.
// Entities are shared by all requests of the batch, so this is about the call and not about an item.
func (q *question) checkCrowd() error {
	principals := map[string]bool{}
	for i := range q.requests {
		// With a token no type is that of principals: it takes no entities of the principal's type.
		principals[q.requests[i].principal.EntityType] = !q.byToken
	}
	kinds := [2]int{}
	// Position 0 counts principals, position 1 resources.
	for _, typ := range q.entities.entityTypes() {
		if principals[typ] {
			kinds[0]++
		} else {
			kinds[1]++
		}
	}
	var f findings
	if kinds[0] > maxBatchPrincipals {
		f.add("entities", "Member must have at most %d principals, has %d", maxBatchPrincipals, kinds[0])
	}
	if kinds[1] > maxBatchResources {
		f.add("entities", "Member must have at most %d resources, has %d", maxBatchResources, kinds[1])
	}
	return f.err()
}

// entityTypes of the entities, which are read no further than to their types. Both of AVP's forms are
// read, the list's identifier and Cedar JSON's uid with or without __entity; an entity has one of them,
// so the concatenation is that one. An entity that can't be read counts as one of the empty type.
func (v *variant) entityTypes() []string {
	var all []jsontext.Value
	if !v.present || json.Unmarshal(v.data.Bytes, &all) != nil {
		return nil
	}
	out := make([]string, 0, len(all))
	for _, item := range all {
		var entity struct {
			Identifier struct {
				EntityType string `json:"entityType"`
			} `json:"identifier"`
			UID struct {
				Type   string `json:"type"`
				Entity struct {
					Type string `json:"type"`
				} `json:"__entity"`
			} `json:"uid"`
		}
		_ = json.Unmarshal(item, &entity)
		out = append(out, entity.Identifier.EntityType+entity.UID.Type+entity.UID.Entity.Type)
	}
	return out
}

// appendTo writes the item as it was sent. The answer repeats each
// request so that callers need not count. Members that were not sent are
// not made up, and a context goes back in the form in which it came.
func (q *asked) appendTo(out []byte, byToken bool) []byte {
	out = append(out, '{')
	if !byToken {
		out = append(appendIdentifier(append(out, `"principal":`...), q.principal), ',')
	}
	out = append(out, `"action":{"actionType":`...)
	out = appendQuoted(out, q.action.ActionType)
	out = append(out, `,"actionId":`...)
	out = appendQuoted(out, q.action.ActionID)
	out = append(out, `},"resource":`...)
	out = appendIdentifier(out, q.resource)
	if q.context.present {
		out = append(out, `,"context":`...)
		if q.context.data.Format == copse.FormatAVPMap {
			out = append(append(append(out, `{"contextMap":`...), q.context.data.Bytes...), '}')
		} else {
			out = append(appendQuoted(append(out, `{"cedarJson":`...), string(q.context.data.Bytes)), '}')
		}
	}
	return append(out, '}')
}

// appendIdentifier writes an entity identifier as an object.
func appendIdentifier(out []byte, e entityIdentifier) []byte {
	out = append(out, `{"entityType":`...)
	out = appendQuoted(out, e.EntityType)
	out = append(out, `,"entityId":`...)
	return append(appendQuoted(out, e.EntityID), '}')
}

// appendPrincipal writes the answer's last member, with the comma before
// it: whom the token was found to name.
func appendPrincipal(out []byte, uid types.EntityUID) []byte {
	return appendIdentifier(append(out, `,"principal":`...), entityIdentifier{EntityType: string(uid.Type), EntityID: string(uid.ID)})
}
