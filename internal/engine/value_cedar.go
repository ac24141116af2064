package engine

import (
	"github.com/cedar-policy/cedar-go/types"
)

// cedarValue reads a value in Cedar's JSON form. With an expected type, the forms only a schema can
// tell apart are understood as well: {"type", "id"} for an entity, a string for an extension value.
func (r *reader) cedarValue(expected *shape) (types.Value, error) {
	switch r.dec.PeekKind() {
	case '"':
		text, err := r.string("a string")
		if err != nil {
			return nil, err
		}
		if expected != nil && expected.kind >= kindDecimal {
			return r.extension(expected.kind.constructor(), text)
		}
		r.size += 1 + textSize(len(text))
		return types.String(text), nil
	case 't', 'f':
		return r.boolean()
	case '0':
		return r.long()
	case '[':
		return r.cedarSet(expected)
	case '{':
		return r.cedarObject(expected)
	default:
		token, err := r.token()
		if err != nil {
			return nil, err
		}
		return nil, r.fail("expected a Cedar value, found %s", describe(token.Kind()))
	}
}

func (r *reader) cedarSet(expected *shape) (types.Value, error) {
	if err := r.enter(); err != nil {
		return nil, err
	}
	defer r.leave()
	var element *shape
	if expected != nil {
		element = expected.element
	}
	elements := []types.Value{}
	err := r.array("an array", func() error {
		v, err := r.cedarValue(element)
		elements = append(elements, v)
		return err
	})
	if err != nil {
		return nil, err
	}
	return r.set(elements)
}

// cedarObject reads a record, an entity reference or an extension value.
func (r *reader) cedarObject(expected *shape) (types.Value, error) {
	if err := r.enter(); err != nil {
		return nil, err
	}
	defer r.leave()
	members := types.RecordMap{}
	var escaped types.Value
	err := r.object("an object", func(name string) error {
		r.size += textSize(len(name))
		var err error
		switch {
		case escaped != nil:
			err = r.fail("__entity and __extn stand alone in their object")
		case name == "__entity":
			escaped, err = r.cedarIdentifier()
		case name == "__extn":
			escaped, err = r.cedarExtension()
		default:
			members[types.String(name)], err = r.cedarValue(expected.member(types.String(name)))
		}
		if err == nil && escaped != nil && len(members) > 0 {
			err = r.fail("__entity and __extn stand alone in their object")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if escaped != nil {
		return escaped, nil
	}
	if expected != nil && expected.kind == kindEntity {
		entityType, isType := members["type"].(types.String)
		id, isID := members["id"].(types.String)
		if isType && isID && len(members) == 2 {
			return r.uid(string(entityType), string(id))
		}
	}
	r.size++
	return types.NewRecord(members), nil
}

// cedarIdentifier reads {"type", "id"}.
func (r *reader) cedarIdentifier() (types.EntityUID, error) {
	var entityType, id string
	var hasType, hasID bool
	err := r.object("an entity reference", func(name string) error {
		var err error
		switch name {
		case "type":
			entityType, err = r.string("a string")
			hasType = true
		case "id":
			id, err = r.string("a string")
			hasID = true
		default:
			err = r.fail("unknown member; an entity reference has type and id")
		}
		return err
	})
	if err == nil && (!hasType || !hasID) {
		err = r.fail("an entity reference has type and id")
	}
	if err != nil {
		return types.EntityUID{}, err
	}
	return r.uid(entityType, id)
}

// cedarUID reads a uid or parent: {"type", "id"}, bare or inside __entity.
func (r *reader) cedarUID() (types.EntityUID, error) {
	var out types.EntityUID
	var entityType, id string
	var bare, escaped int
	err := r.object("an entity reference", func(name string) error {
		var err error
		switch name {
		case "__entity":
			out, err = r.cedarIdentifier()
			escaped++
		case "type":
			entityType, err = r.string("a string")
			bare++
		case "id":
			id, err = r.string("a string")
			bare++
		default:
			err = r.fail("unknown member; an entity reference has type and id")
		}
		return err
	})
	switch {
	case err != nil:
		return types.EntityUID{}, err
	case escaped == 1 && bare == 0:
		return out, nil
	case escaped == 0 && bare == 2:
		return r.uid(entityType, id)
	default:
		return types.EntityUID{}, r.fail("an entity reference has type and id")
	}
}

// cedarExtension reads {"fn", "arg"}. Functions of several arguments are not values of data.
func (r *reader) cedarExtension() (types.Value, error) {
	var fn, arg string
	var hasFn, hasArg bool
	err := r.object("an extension value", func(name string) error {
		var err error
		switch name {
		case "fn":
			fn, err = r.string("a string")
			hasFn = true
		case "arg":
			arg, err = r.string("a string; extension values of several arguments are not supported")
			hasArg = true
		case "args":
			err = r.fail("extension values of several arguments are not supported; write the result instead")
		default:
			err = r.fail("unknown member; an extension value has fn and arg")
		}
		return err
	})
	if err == nil && (!hasFn || !hasArg) {
		err = r.fail("an extension value has fn and arg")
	}
	if err != nil {
		return nil, err
	}
	switch fn {
	case "ip", "decimal", "datetime", "duration":
		return r.extension(fn, arg)
	default:
		return nil, r.fail("unknown extension function; use ip, decimal, datetime or duration")
	}
}

// lateMember is a member that must wait until the entity's type is known.
type lateMember struct {
	name string
	from *reader
}

// cedarEntity reads an entity. The type in uid decides how its attributes are read, so attributes
// that come before it wait.
func (r *reader) cedarEntity(s *Schema) (types.Entity, error) {
	var e types.Entity
	var hasUID, hasAttrs, hasParents bool
	var late []lateMember
	err := r.object("an entity", func(name string) error {
		var err error
		switch name {
		case "uid":
			e.UID, err = r.cedarUID()
			hasUID = true
		case "attrs", "tags":
			hasAttrs = hasAttrs || name == "attrs"
			if s == nil || hasUID {
				return r.cedarAttributes(s, &e, name)
			}
			var from *reader
			from, err = r.detach()
			late = append(late, lateMember{name, from})
		case "parents":
			e.Parents, err = r.parents(r.cedarUID)
			hasParents = true
		default:
			err = r.fail("unknown member; an entity has uid, attrs, parents and tags")
		}
		return err
	})
	switch {
	case err != nil:
		return e, err
	case !hasUID:
		return e, r.fail("the entity has no uid")
	case !hasAttrs:
		return e, r.fail("the entity has no attrs; write \"attrs\": {}")
	case !hasParents:
		return e, r.fail("the entity has no parents; write \"parents\": []")
	}
	for _, m := range late {
		if err := m.from.cedarAttributes(s, &e, m.name); err != nil {
			return e, err
		}
		r.largest = max(r.largest, m.from.largest)
	}
	return e, nil
}

func (r *reader) cedarAttributes(s *Schema, e *types.Entity, name string) error {
	var want entityShape
	if s != nil {
		want = s.entityShapes[e.UID.Type]
	}
	var err error
	if name == "attrs" {
		e.Attributes, err = r.cedarRecord(want.attributes.member)
	} else {
		e.Tags, err = r.cedarRecord(func(types.String) *shape { return want.tags })
	}
	return err
}

// cedarRecord reads an object that can only be a record: attributes, tags, a context.
func (r *reader) cedarRecord(expected func(types.String) *shape) (types.Record, error) {
	var members recordMembers
	err := r.object("an object", func(name string) error {
		if name == "__entity" || name == "__extn" {
			return r.fail("expected a record here, found an entity reference or extension value")
		}
		v, err := r.attribute(types.String(name), func() (types.Value, error) { return r.cedarValue(expected(types.String(name))) })
		return members.add(name, v, err)
	})
	return members.record(err)
}
