package engine

import (
	"github.com/cedar-policy/cedar-go/types"
)

// avpValue reads an AttributeValue or CedarTagValue: a union, an object with exactly one member that
// names the type.
func (r *reader) avpValue() (types.Value, error) {
	var value types.Value
	members := 0
	err := r.object("an attribute value like {\"string\": \"...\"}", func(name string) error {
		if members++; members > 1 {
			return r.fail("an attribute value has exactly one member")
		}
		var err error
		value, err = r.avpMember(name)
		return err
	})
	if err == nil && members == 0 {
		err = r.fail("an attribute value has exactly one member, this one is empty")
	}
	return value, err
}

func (r *reader) avpMember(name string) (types.Value, error) {
	switch name {
	case "string":
		s, err := r.string("a string")
		r.size += 1 + textSize(len(s))
		return types.String(s), err
	case "boolean":
		return r.boolean()
	case "long":
		return r.long()
	case "entityIdentifier":
		return r.avpIdentifier()
	case "set":
		return r.avpSet()
	case "record":
		return r.avpRecord()
	case "ipaddr":
		return r.avpExtension("ip")
	case "decimal", "datetime", "duration":
		return r.avpExtension(name)
	default:
		return nil, r.fail("unknown value type; use boolean, long, string, entityIdentifier, set, record, ipaddr, decimal, datetime or duration")
	}
}

func (r *reader) boolean() (types.Value, error) {
	token, err := r.token()
	if err != nil {
		return nil, err
	}
	if token.Kind() != 't' && token.Kind() != 'f' {
		return nil, r.fail("expected true or false, found %s", describe(token.Kind()))
	}
	r.size++
	return types.Boolean(token.Kind() == 't'), nil
}

func (r *reader) avpExtension(fn string) (types.Value, error) {
	text, err := r.string("a string")
	if err != nil {
		return nil, err
	}
	return r.extension(fn, text)
}

func (r *reader) avpSet() (types.Value, error) {
	if err := r.enter(); err != nil {
		return nil, err
	}
	defer r.leave()
	elements := []types.Value{}
	err := r.array("an array", func() error {
		v, err := r.avpValue()
		elements = append(elements, v)
		return err
	})
	if err != nil {
		return nil, err
	}
	return r.set(elements)
}

func (r *reader) avpRecord() (types.Value, error) {
	if err := r.enter(); err != nil {
		return nil, err
	}
	defer r.leave()
	var members recordMembers
	err := r.object("a record", func(name string) error {
		r.size += textSize(len(name))
		v, err := r.avpValue()
		return members.add(name, v, err)
	})
	r.size++
	return members.record(err)
}

// avpAttributes reads a contextMap, attributes or tags.
func (r *reader) avpAttributes(what string) (types.Record, error) {
	var members recordMembers
	err := r.object(what, func(name string) error {
		v, err := r.attribute(types.String(name), r.avpValue)
		return members.add(name, v, err)
	})
	return members.record(err)
}

// recordMembers collects what a record is made of. A record without members is not built at all: most
// entities have no tags, many no attributes.
type recordMembers struct{ m types.RecordMap }

// add takes a member that was read, or the error that reading it ended with.
func (b *recordMembers) add(name string, v types.Value, err error) error {
	if err != nil {
		return err
	}
	if b.m == nil {
		b.m = types.RecordMap{}
	}
	b.m[types.String(name)] = v
	return nil
}

// record makes the record, unless reading ended with an error: cedar-go panics on half a member.
func (b *recordMembers) record(err error) (types.Record, error) {
	if err != nil || len(b.m) == 0 {
		return types.Record{}, err
	}
	return types.NewRecord(b.m), nil
}

func (r *reader) avpIdentifier() (types.EntityUID, error) {
	var entityType, id string
	var hasType, hasID bool
	err := r.object("an entity identifier", func(name string) error {
		var err error
		switch name {
		case "entityType":
			entityType, err = r.string("a string")
			hasType = true
		case "entityId":
			id, err = r.string("a string")
			hasID = true
		default:
			err = r.fail("unknown member; an entity identifier has entityType and entityId")
		}
		return err
	})
	if err == nil && (!hasType || !hasID) {
		err = r.fail("an entity identifier has entityType and entityId")
	}
	if err != nil {
		return types.EntityUID{}, err
	}
	return r.uid(entityType, id)
}

// avpEntity reads an EntityItem.
func (r *reader) avpEntity() (types.Entity, error) {
	var e types.Entity
	var identified bool
	err := r.object("an entity", func(name string) error {
		var err error
		switch name {
		case "identifier":
			e.UID, err = r.avpIdentifier()
			identified = true
		case "attributes":
			e.Attributes, err = r.avpAttributes("a map of attribute values")
		case "tags":
			e.Tags, err = r.avpAttributes("a map of tag values")
		case "parents":
			e.Parents, err = r.parents(r.avpIdentifier)
		default:
			err = r.fail("unknown member; an entity has identifier, attributes, parents and tags")
		}
		return err
	})
	if err == nil && !identified {
		err = r.fail("the entity has no identifier")
	}
	return e, err
}

func (r *reader) parents(one func() (types.EntityUID, error)) (types.EntityUIDSet, error) {
	var uids []types.EntityUID
	err := r.array("an array of entity identifiers", func() error {
		uid, err := one()
		uids = append(uids, uid)
		return err
	})
	if err != nil || len(uids) == 0 {
		return types.EntityUIDSet{}, err
	}
	return types.NewEntityUIDSet(uids...), nil
}
