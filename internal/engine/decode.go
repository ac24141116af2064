package engine

import (
	"slices"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

// decoded is a request as the evaluator sees it: what the caller sent and what copse found out,
// joined.
type decoded struct {
	schema   *Schema // may be nil
	request  types.Request
	entities types.EntityMap
	// hierarchy has the ancestors of each entity of the request that has parents.
	hierarchy hierarchy
	// fromServer are the entities copse itself defined, and serverContext the context members.
	fromServer    map[types.EntityUID]bool
	serverContext types.Record
	sets          setCosts
	// What operators may have to go through: largest is the size of the largest attribute, whole that of
	// the context.
	largest, whole uint64
}

// Get implements types.EntityGetter: the request's entities, then the schema's actions, which can't
// be among them.
func (d *decoded) Get(uid types.EntityUID) (types.Entity, bool) {
	if e, ok := d.entities[uid]; ok {
		return e, true
	}
	if d.schema != nil {
		if a, ok := d.schema.resolved.Actions[uid]; ok {
			return a.Entity, true
		}
	}
	return types.Entity{}, false
}

// above lists the ancestors of an entity as the evaluator would find them.
func (d *decoded) above(uid types.EntityUID) []types.EntityUID {
	if of, ok := d.hierarchy.above(uid); ok {
		return of
	}
	if d.schema != nil {
		return d.schema.actionAncestors[uid]
	}
	return nil
}

// decode reads a request. s may be nil.
func decode(s *Schema, req *copse.Request) (*decoded, error) {
	d := &decoded{schema: s, request: types.Request{Principal: req.Principal, Action: req.Action, Resource: req.Resource}}
	for _, part := range []struct {
		path string
		uid  types.EntityUID
	}{{"principal", req.Principal}, {"action", req.Action}, {"resource", req.Resource}} {
		if message := checkUID(part.uid); message != "" {
			return nil, requestError(part.path, "%s", message)
		}
	}
	if !isActionType(req.Action.Type) {
		return nil, requestError("action", "%s is not an action: its type must be Action or end in ::Action", req.Action)
	}
	if err := d.readEntities(s, req); err != nil {
		return nil, err
	}
	if err := d.readContext(s, req); err != nil {
		return nil, err
	}
	if err := d.closeOver(); err != nil {
		return nil, err
	}
	return d, nil
}

// dataPath names request data in findings, as AVP and copse's own API name it.
func dataPath(member string, format copse.Format) (path string, inText bool) {
	switch format {
	case copse.FormatAVPList:
		return member + ".entityList", false
	case copse.FormatAVPMap:
		return member + ".contextMap", false
	default:
		return member + ".cedarJson", true
	}
}

func (d *decoded) readEntities(s *Schema, req *copse.Request) error {
	server, err := d.entityData(s, "serverEntities", req.ServerEntities, nil)
	if err != nil {
		return err
	}
	caller, err := d.entityData(s, "entities", req.Entities, func(r *reader, uid types.EntityUID) error {
		_, defined := server[uid]
		switch {
		case isActionType(uid.Type):
			return r.fail("%s is an action: actions come from the schema, they can't be sent", uid)
		case defined:
			return r.fail("%s is defined by the verified token and can't be sent", uid)
		case slices.Contains(req.ReservedTypes, uid.Type):
			return r.fail("entities of type %s come from the verified token and can't be sent", uid.Type)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(server) == 0 {
		d.entities = caller
		return nil
	}
	d.entities = server
	d.fromServer = make(map[types.EntityUID]bool, len(server))
	for uid := range server {
		d.fromServer[uid] = true
	}
	for uid, e := range caller {
		d.entities[uid] = e
	}
	return nil
}

// entityData reads entities in any format; allow may refuse one by its identifier.
func (d *decoded) entityData(s *Schema, member string, data copse.Data, allow func(*reader, types.EntityUID) error) (types.EntityMap, error) {
	if data.Format == copse.FormatNone {
		return types.EntityMap{}, nil
	}
	path, inText := dataPath(member, data.Format)
	r := newReader(path, inText, data.Bytes, &d.sets)
	out := types.EntityMap{}
	read := r.avpEntity
	switch data.Format {
	case copse.FormatAVPList:
	case copse.FormatCedarJSON:
		read = func() (types.Entity, error) { return r.cedarEntity(s) }
	default:
		return nil, requestError(member, "entities can't have this format")
	}
	err := r.array("an array of entities", func() error {
		e, err := read()
		if err != nil {
			return err
		}
		if allow != nil {
			if err := allow(r, e.UID); err != nil {
				return err
			}
		}
		// In an entityList the last of two entities wins, as in AVP; Cedar's own form has no such rule.
		if _, twice := out[e.UID]; twice && data.Format == copse.FormatCedarJSON {
			return r.fail("%s is defined twice", e.UID)
		}
		out[e.UID] = e
		return nil
	})
	if err == nil {
		err = r.end()
	}
	d.largest = max(d.largest, r.largest)
	return out, err
}

// tokenMember is the context member that policies trust as verified claims.
const tokenMember = "token"

func (d *decoded) readContext(s *Schema, req *copse.Request) error {
	var want *shape
	if s != nil {
		want = s.contextShapes[req.Action]
	}
	var err error
	d.serverContext, err = d.contextData(want, "serverContext", req.ServerContext, nil)
	if err != nil {
		return err
	}
	byToken := req.ServerContext.Format != copse.FormatNone || req.ServerEntities.Format != copse.FormatNone || len(req.ReservedTypes) > 0
	caller, err := d.contextData(want, "context", req.Context, func(r *reader, name types.String) error {
		_, defined := d.serverContext.Get(name)
		if defined || byToken && name == tokenMember {
			return r.fail("this context member comes from the verified token and can't be sent")
		}
		return nil
	})
	if err != nil {
		return err
	}
	switch {
	case d.serverContext.Len() == 0:
		d.request.Context = caller
	case caller.Len() == 0:
		d.request.Context = d.serverContext
	default:
		joined := caller.Map()
		for name, v := range d.serverContext.All() {
			joined[name] = v
		}
		d.request.Context = types.NewRecord(joined)
	}
	return nil
}

func (d *decoded) contextData(want *shape, member string, data copse.Data, allow func(*reader, types.String) error) (types.Record, error) {
	if data.Format == copse.FormatNone {
		return types.Record{}, nil
	}
	path, inText := dataPath(member, data.Format)
	r := newReader(path, inText, data.Bytes, &d.sets)
	r.allowMember = allow
	var out types.Record
	var err error
	switch data.Format {
	case copse.FormatAVPMap:
		out, err = r.avpAttributes("a map of attribute values")
	case copse.FormatCedarJSON:
		out, err = r.cedarRecord(want.member)
	default:
		return out, requestError(member, "a context can't have this format")
	}
	if err == nil {
		err = r.end()
	}
	d.largest, d.whole = max(d.largest, r.largest), d.whole+r.total
	return out, err
}

// closeOver finds the ancestors of every entity, and refuses cycles and crowds.
func (d *decoded) closeOver() error {
	d.hierarchy.d = d
	for uid, e := range d.entities {
		if e.Parents.Len() == 0 {
			continue
		}
		if err := d.hierarchy.add(uid); err != nil {
			return err
		}
	}
	return nil
}
