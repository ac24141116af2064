package engine

// avpValue reads an AttributeValue or CedarTagValue: a union, an object with exactly one member that
// names the type. More members than one are refused, and none: a reader that takes another one would see
// another value.
func (s *scanner) avpValue() (*value, error) {
	if err := s.open('{', `an attribute value like {"string": "..."}`); err != nil {
		return nil, err
	}
	name, more, err := s.member(true)
	if err != nil {
		return nil, err
	}
	if !more {
		return nil, s.fail("an attribute value has exactly one member, this one is empty")
	}
	v, err := s.avpMember(name)
	if err != nil {
		return nil, err
	}
	// This is also what reads the end of the object.
	if _, more, err = s.member(false); err != nil {
		return nil, err
	}
	if more {
		return nil, s.fail("an attribute value has exactly one member")
	}
	return v, nil
}

// avpMember reads the value behind a union's member. Names are AVP's: ipaddr is what Cedar calls ip. Sets
// and records come back to [scanner.avpValue], as deep as [scanner.enter] lets them.
func (s *scanner) avpMember(name string) (*value, error) {
	switch name {
	case "string":
		text, err := s.string("a string")
		if err != nil {
			return nil, err
		}
		return s.newText(text), nil
	case "boolean":
		return s.boolean()
	case "long":
		n, err := s.long()
		return s.call.newValue(kindLong, n), err
	case "entityIdentifier":
		e, err := s.avpIdentifier()
		if err != nil {
			return nil, err
		}
		return &e.self, nil
	case "set":
		return s.avpSet()
	case "record":
		return s.avpRecord()
	case "ipaddr":
		return s.avpExtension("ip")
	case "decimal", "datetime", "duration":
		return s.avpExtension(name)
	default:
		return nil, s.fail("unknown value type; use boolean, long, string, entityIdentifier, set, record, ipaddr, decimal, datetime or duration")
	}
}

// avpExtension reads the text that an extension's constructor takes. What that refuses is a mistake in the request, and
// refused as such: no policy has been looked at yet.
func (s *scanner) avpExtension(fn string) (*value, error) {
	text, err := s.string("a string")
	if err != nil {
		return nil, err
	}
	return s.extension(fn, text)
}

// avpSet collects elements on the call's stack, since how many there are is known at the end, and sets
// nest. An element that occurs again is in the set once.
func (s *scanner) avpSet() (*value, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	if err := s.open('[', "an array"); err != nil {
		return nil, err
	}
	from := len(s.call.stack)
	for first := true; ; first = false {
		more, err := s.more(first, ']')
		if err != nil {
			return nil, err
		}
		if !more {
			return s.call.newSet(from), nil
		}
		v, err := s.avpValue()
		if err != nil {
			return nil, err
		}
		s.call.stack = append(s.call.stack, slot{value: v})
	}
}

// avpRecord is a contextMap inside a value. The record counts as a level of nesting; attributes, tags and
// the context itself are none.
func (s *scanner) avpRecord() (*value, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	members, err := s.avpAttributes("a record", nil)
	if err != nil {
		return nil, err
	}
	return s.call.newRecord(members), nil
}

// avpAttributes reads a contextMap, attributes, tags or a record. allow may refuse a member by its name.
// It is called before the member's value is read. A name that occurs twice is refused.
func (s *scanner) avpAttributes(what string, allow func(*scanner, uint32) error) ([]slot, error) {
	if err := s.open('{', what); err != nil {
		return nil, err
	}
	from := len(s.call.stack)
	for first := true; ; first = false {
		name, more, err := s.member(first)
		if err != nil {
			return nil, err
		}
		if !more {
			return s.members(from)
		}
		number := s.call.name(name)
		if allow != nil {
			if err := allow(s, number); err != nil {
				return nil, err
			}
		}
		v, err := s.avpValue()
		if err != nil {
			return nil, err
		}
		// Values wait on the call's stack: how many members there are is known at the end.
		s.call.stack = append(s.call.stack, slot{value: v, name: number})
	}
}

// avpIdentifier reads an EntityIdentifier. Members named twice, and others, are refused: of two readings another program
// could take the other one.
func (s *scanner) avpIdentifier() (*entity, error) {
	return s.identifier("an entity identifier", "entityType", "entityId")
}

// identifier reads an object of exactly two texts: an entity's type and id. Both must be there, each once,
// in any order. The result is the call's one entity of that name, as yet undefined if nothing has defined
// it.
func (s *scanner) identifier(what, typeName, idName string) (*entity, error) {
	if err := s.open('{', what); err != nil {
		return nil, err
	}
	var entityType, id string
	var hasType, hasID bool
	for first := true; ; first = false {
		name, more, err := s.member(first)
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
		switch {
		case name == typeName && !hasType:
			entityType, err = s.string("a string")
			hasType = true
		case name == idName && !hasID:
			id, err = s.string("a string")
			hasID = true
		// Twice. Reading the text again finds that, and says where.
		case name == typeName, name == idName:
			err = s.syntax()
		default:
			err = s.fail("unknown member; %s has %s and %s", what, typeName, idName)
		}
		if err != nil {
			return nil, err
		}
	}
	if !hasType || !hasID {
		return nil, s.fail("%s has %s and %s", what, typeName, idName)
	}
	return s.entity(entityType, id)
}

// definition is what an entity's JSON says, before the entity is known. attributes and tags are sorted by
// name; parents are as they were sent, and may repeat.
type definition struct {
	entity           *entity
	attributes, tags []slot
	parents          []*entity
	seen             uint8 // the members that were read, a bit each
}

const (
	// The members of an entity, in either form.
	seenID = 1 << iota
	seenAttributes
	seenParents
	seenTags
)

// once notes that a member was read, and reports whether it is the first of its name.
func (d *definition) once(member uint8) bool {
	first := d.seen&member == 0
	d.seen |= member
	return first
}

// avpEntity reads an EntityItem. Only the identifier must be there. A member that occurs twice is not read
// again; syntax words that.
func (s *scanner) avpEntity() (d definition, err error) {
	if err := s.open('{', "an entity"); err != nil {
		return d, err
	}
	for first := true; ; first = false {
		name, more, err := s.member(first)
		if err != nil {
			return d, err
		}
		if !more {
			break
		}
		fresh := true
		switch name {
		case "identifier":
			if fresh = d.once(seenID); fresh {
				d.entity, err = s.avpIdentifier()
			}
		case "attributes":
			if fresh = d.once(seenAttributes); fresh {
				d.attributes, err = s.avpAttributes("a map of attribute values", nil)
			}
		// Tags are kept apart from attributes, and may have the same names.
		case "tags":
			if fresh = d.once(seenTags); fresh {
				d.tags, err = s.avpAttributes("a map of tag values", nil)
			}
		case "parents":
			if fresh = d.once(seenParents); fresh {
				d.parents, err = s.parents((*scanner).avpIdentifier)
			}
		default:
			err = s.fail("unknown member; an entity has identifier, attributes, parents and tags")
		}
		if err == nil && !fresh {
			err = s.syntax()
		}
		if err != nil {
			return d, err
		}
	}
	if d.seen&seenID == 0 {
		return d, s.fail("the entity has no identifier")
	}
	return d, nil
}

// parents reads the entities that one is directly in. They need not be defined: an entity is in them all
// the same. It uses the call's list for parents, since entities don't nest, and returns a part of the
// call's room.
func (s *scanner) parents(one func(*scanner) (*entity, error)) ([]*entity, error) {
	if err := s.open('[', "an array of entity identifiers"); err != nil {
		return nil, err
	}
	s.call.parents = s.call.parents[:0]
	for first := true; ; first = false {
		more, err := s.more(first, ']')
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
		parent, err := one(s)
		if err != nil {
			return nil, err
		}
		s.call.parents = append(s.call.parents, parent)
	}
	// The list is used again for the next entity.
	out := s.call.links.take(len(s.call.parents))
	copy(out, s.call.parents)
	return out, nil
}
