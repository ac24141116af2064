package engine

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

// maxValueDepth is how deep sets and records may nest in entities and context.
const maxValueDepth = 64

// decode reads the request: what the caller sent and what copse found out, joined. The head comes first,
// as the context is read by the action's declaration, and the ancestors last. Each error is of kind
// Invalid and names the member at fault.
func (c *call) decode() error {
	if err := c.readHead(); err != nil {
		return err
	}
	if err := c.readEntities(); err != nil {
		return err
	}
	if err := c.readContext(); err != nil {
		return err
	}
	return c.findAncestors()
}

// readHead reads the three entities that the request names. They have passed no scanner, so what that
// checks of text is checked here. They need not be defined by anything.
func (c *call) readHead() error {
	for _, part := range [...]struct {
		path string
		uid  types.EntityUID
		to   **entity
	}{{"principal", c.request.Principal, &c.principal}, {"action", c.request.Action, &c.action}, {"resource", c.request.Resource, &c.resource}} {
		wrong := ""
		if !utf8.ValidString(string(part.uid.ID)) {
			wrong = "the entity id is not valid UTF-8"
		} else {
			*part.to, wrong = c.entity(string(part.uid.Type), string(part.uid.ID))
		}
		if wrong != "" {
			return requestError(part.path, "%s", wrong)
		}
	}
	if !isActionType(c.request.Action.Type) {
		return requestError("action", "%s is not an action: its type must be Action or end in ::Action", c.request.Action)
	}
	return nil
}

// dataPath names request data in findings, as AVP and copse's own API name it. inText tells that the data
// is a text inside of one string of the message, as Cedar's JSON is: then findings also have a line and
// column in it.
func dataPath(member string, format copse.Format) (path string, inText bool) {
	var suffix string
	switch format {
	case copse.FormatAVPList:
		suffix = ".entityList"
	case copse.FormatAVPMap:
		suffix = ".contextMap"
	default:
		suffix, inText = ".cedarJson", true
	}
	switch member + suffix { // the usual ones are not put together
	case "entities.entityList":
		return "entities.entityList", inText
	case "context.contextMap":
		return "context.contextMap", inText
	case "entities.cedarJson":
		return "entities.cedarJson", inText
	case "context.cedarJson":
		return "context.cedarJson", inText
	default:
		return member + suffix, inText
	}
}

// readEntities reads the server's entities before the caller's, so that a caller's is refused that defines
// one of them.
func (c *call) readEntities() error {
	if err := c.entityData("serverEntities", c.request.ServerEntities, fromServer); err != nil {
		return err
	}
	return c.entityData("entities", c.request.Entities, fromCaller)
}

// entityData reads entities in any format. Each entity is defined as soon as it is read. After an error
// those before it are defined, which matters to nobody: the call ends.
func (c *call) entityData(member string, data copse.Data, from origin) error {
	if data.Format == copse.FormatNone {
		return nil
	}
	if data.Format != copse.FormatAVPList && data.Format != copse.FormatCedarJSON {
		return requestError(member, "entities can't have this format")
	}
	s := c.scan(member, data)
	if err := s.open('[', "an array of entities"); err != nil {
		return err
	}
	for first := true; ; first = false {
		more, err := s.more(first, ']')
		if err != nil {
			return err
		}
		if !more {
			return s.end()
		}
		var d definition
		if data.Format == copse.FormatAVPList {
			d, err = s.avpEntity()
		} else {
			d, err = s.cedarEntity()
		}
		if err != nil {
			return err
		}
		if err := s.define(d, from, data.Format); err != nil {
			return err
		}
	}
}

// define takes in an entity that was read, unless it is not for whoever sent it to define. Entities that
// are only named, as parents or in attributes, pass: naming is not defining.
func (s *scanner) define(d definition, from origin, format copse.Format) error {
	e := d.entity
	switch {
	case from == fromCaller && isActionType(e.uid.Type):
		return s.fail("%s is an action: actions come from the schema, they can't be sent", e.uid)
	case from == fromCaller && e.origin == fromServer:
		return s.fail("%s is defined by the verified token and can't be sent", e.uid)
	case from == fromCaller && len(s.call.request.ReservedTypes) > 0 && slices.Contains(s.call.request.ReservedTypes, e.uid.Type):
		return s.fail("entities of type %s come from the verified token and can't be sent", e.uid.Type)
	case e.origin == from && format == copse.FormatCedarJSON:
		// In an entityList the last of two entities wins, as in AVP; Cedar's own form has no such rule.
		return s.fail("%s is defined twice", e.uid)
	}
	e.origin, e.visit = from, unseen
	e.attributes, e.tags, e.parents, e.ancestors = d.attributes, d.tags, d.parents, nil
	return nil
}

// tokenMember is the context member that policies trust as verified claims.
const tokenMember = "token"

// readContext joins the server's members with the caller's. No name is in both where a token decides, for
// allowMember refuses that.
func (c *call) readContext() error {
	var want *shape
	if c.snapshot.schema != nil {
		// Also where requests are not checked: the schema then only helps to read.
		want = c.snapshot.schema.contextShape(c.action)
	}
	var err error
	if c.serverContext, err = c.contextData(want, "serverContext", c.request.ServerContext, nil); err != nil {
		return err
	}
	// Anything from the server means that a verified token is behind the request. Then a caller can't send
	// `token` either where the server did not.
	var allow func(*scanner, uint32) error
	if r := c.request; r.ServerContext.Format != copse.FormatNone || r.ServerEntities.Format != copse.FormatNone || len(r.ReservedTypes) > 0 {
		allow = (*scanner).allowMember
	}
	caller, err := c.contextData(want, "context", c.request.Context, allow)
	if err != nil {
		return err
	}
	all := c.serverContext
	switch {
	case len(all) == 0:
		all = caller
	case len(caller) > 0:
		all = c.slots.take(len(c.serverContext) + len(caller))
		// No two are of one name, so sorting loses none.
		copy(all[copy(all, c.serverContext):], caller)
		sortByName(all)
	}
	c.context = value{kind: kindRecord, slots: all}
	return nil
}

// allowMember refuses a caller's context member that the verified token defines.
func (s *scanner) allowMember(name uint32) error {
	if find(s.call.serverContext, name) != nil || s.call.nameText(name) == tokenMember {
		return s.fail("this context member comes from the verified token and can't be sent")
	}
	return nil
}

// contextData reads the members of one context, sorted by name. want is what the schema expects of them,
// nil if nothing; allow may refuse a member by its name.
func (c *call) contextData(want *shape, member string, data copse.Data, allow func(*scanner, uint32) error) ([]slot, error) {
	var members []slot
	var err error
	if data.Format == copse.FormatNone {
		return nil, nil
	}
	s := c.scan(member, data)
	switch data.Format {
	case copse.FormatAVPMap:
		members, err = s.avpAttributes("a map of attribute values", allow)
	case copse.FormatCedarJSON:
		members, err = s.cedarRecord(want, nil, allow)
	default:
		return nil, requestError(member, "a context can't have this format")
	}
	if err == nil {
		err = s.end()
	}
	return members, err
}

// members makes what was pushed on the stack the members of a record.
func (s *scanner) members(from int) ([]slot, error) {
	members := s.call.pop(from)
	if sortByName(members) {
		return nil, s.syntax()
	}
	return members, nil
}

// newRecord is a record of members that are sorted.
func (c *call) newRecord(members []slot) *value {
	v := c.values.one()
	v.kind, v.slots = kindRecord, members
	return v
}

// newSet makes what was pushed on the stack the elements of a set. The elements may be in any order, and
// equal ones among them.
func (c *call) newSet(from int) *value {
	v := c.values.one()
	v.kind, v.slots = kindSet, c.normalize(c.pop(from))
	return v
}

// checkType says what is wrong with an entity type, or nothing. It is asked once for each type of a
// request that the snapshot does not name.
func checkType(name string) string {
	switch {
	case name == "":
		return "the entity type is missing"
	case len(name) > copse.MaxEntityTypeBytes:
		return fmt.Sprintf("an entity type has at most %d bytes, this one has %d", copse.MaxEntityTypeBytes, len(name))
	}
	if _, err := types.NewEntityType(name); err != nil {
		return fmt.Sprintf("%q is not an entity type: expected names joined by ::", name)
	}
	return ""
}

// checkID says what is wrong with the id of an entity, or nothing. Actions have a lower limit than others.
func checkID(entityType, id string) string {
	limit := copse.MaxEntityIDBytes
	if isActionType(types.EntityType(entityType)) {
		limit = copse.MaxActionIDBytes
	}
	if len(id) <= limit {
		return ""
	}
	return fmt.Sprintf("an entity id of type %s has at most %d bytes, this one has %d", entityType, limit, len(id))
}

// isActionType reports whether entities of the type are actions. Those of a namespace are actions too.
func isActionType(t types.EntityType) bool {
	return t == "Action" || strings.HasSuffix(string(t), "::Action")
}
