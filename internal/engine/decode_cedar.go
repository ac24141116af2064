package engine

// cedarValue reads a value in Cedar's JSON form. With an expected type, the forms only a schema can
// tell apart are understood as well: {"type", "id"} for an entity, a string for an extension value. What
// is expected only helps to read. A value of another type is read as what it is; whether that is right is
// for [call.check] to say, where requests are checked.
func (s *scanner) cedarValue(expected *shape) (*value, error) {
	switch b := s.peek(); {
	case b == '"':
		text, err := s.string("a string")
		if err != nil {
			return nil, err
		}
		// The extension types are the last of the kinds.
		if expected != nil && expected.kind >= kindDecimal {
			return s.extension(expected.kind.constructor(), text)
		}
		return s.newText(text), nil
	case b == 't' || b == 'f':
		return s.boolean()
	case b == '-' || b >= '0' && b <= '9':
		n, err := s.long()
		return s.call.newValue(kindLong, n), err
	case b == '[':
		return s.cedarSet(expected)
	case b == '{':
		return s.cedarObject(expected)
	default:
		return nil, s.unexpected("a Cedar value")
	}
}

// cedarSet reads an array. What is expected of a set is expected of each of its elements; elements that
// are equal are in the set once.
func (s *scanner) cedarSet(expected *shape) (*value, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	var element *shape
	if expected != nil {
		element = expected.element
	}
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
		v, err := s.cedarValue(element)
		if err != nil {
			return nil, err
		}
		s.call.stack = append(s.call.stack, slot{value: v})
	}
}

// cedarObject reads a record, an entity reference or an extension value. Which of them is known at the end
// only, so members go on the call's stack first, as a record's do.
func (s *scanner) cedarObject(expected *shape) (*value, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	if err := s.open('{', "an object"); err != nil {
		return nil, err
	}
	from := len(s.call.stack)
	var escaped *value
	for first := true; ; first = false {
		name, more, err := s.member(first)
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
		// A reference with more beside it is refused, whichever comes first: another reader could take the
		// object for a record, and see something else than is decided on.
		isEscape := name == "__entity" || name == "__extn"
		if escaped != nil || isEscape && len(s.call.stack) > from {
			return nil, s.fail("__entity and __extn stand alone in their object")
		}
		if isEscape {
			if escaped, err = s.cedarEscape(name); err != nil {
				return nil, err
			}
			continue
		}
		number := s.call.name(name)
		// Nothing is expected of a member that is not declared, nor of any where no record is.
		v, err := s.cedarValue(expected.member(number))
		if err != nil {
			return nil, err
		}
		s.call.stack = append(s.call.stack, slot{value: v, name: number})
	}
	if escaped != nil {
		return escaped, nil
	}
	members, err := s.members(from)
	if err != nil {
		return nil, err
	}
	// Where the schema wants an entity, a record of the two texts can only be one. Anything else stays a
	// record, and is refused as one if requests are checked.
	if expected != nil && expected.kind == kindEntity && len(members) == 2 {
		entityType, id := find(members, nameOfType), find(members, nameOfID)
		if entityType != nil && id != nil && entityType.kind == kindString && id.kind == kindString {
			e, err := s.entity(entityType.text, id.text)
			if err != nil {
				return nil, err
			}
			return &e.self, nil
		}
	}
	return s.call.newRecord(members), nil
}

// cedarEscape reads what stands behind __entity or __extn.
func (s *scanner) cedarEscape(name string) (*value, error) {
	if name == "__extn" {
		return s.cedarExtension()
	}
	e, err := s.cedarIdentifier()
	if err != nil {
		return nil, err
	}
	return &e.self, nil
}

// cedarIdentifier reads {"type", "id"}. Nothing else may stand beside the two.
func (s *scanner) cedarIdentifier() (*entity, error) {
	return s.identifier("an entity reference", "type", "id")
}

// cedarUID reads a uid or parent: {"type", "id"}, bare or inside __entity. A text that names an entity in
// Cedar's syntax is none of these, and refused.
func (s *scanner) cedarUID() (*entity, error) {
	start := s.pos
	if err := s.open('{', "an entity reference"); err != nil {
		return nil, err
	}
	name, _, err := s.member(true)
	if err != nil {
		return nil, err
	}
	if name != "__entity" {
		// It was the bare form: its first member is read again with the others.
		s.pos = start
		return s.cedarIdentifier()
	}
	e, err := s.cedarIdentifier()
	if err != nil {
		return nil, err
	}
	if _, more, err := s.member(false); err != nil {
		return nil, err
	} else if more {
		return nil, s.fail("an entity reference has type and id")
	}
	return e, nil
}

// cedarExtension reads {"fn", "arg"}. Functions of several arguments are not values of data. Of fn or arg
// twice, the second is not read: reading the text again finds and words that.
func (s *scanner) cedarExtension() (*value, error) {
	if err := s.open('{', "an extension value"); err != nil {
		return nil, err
	}
	var fn, arg string
	var hasFn, hasArg bool
	for first := true; ; first = false {
		name, more, err := s.member(first)
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
		switch {
		case name == "fn" && !hasFn:
			fn, err = s.string("a string")
			hasFn = true
		case name == "arg" && !hasArg:
			arg, err = s.string("a string; extension values of several arguments are not supported")
			hasArg = true
		case name == "fn", name == "arg":
			err = s.syntax()
		case name == "args":
			err = s.fail("extension values of several arguments are not supported; write the result instead")
		default:
			err = s.fail("unknown member; an extension value has fn and arg")
		}
		if err != nil {
			return nil, err
		}
	}
	if !hasFn || !hasArg {
		return nil, s.fail("an extension value has fn and arg")
	}
	// What makes values of text is listed here, so that no other function of Cedar's can be named.
	switch fn {
	case "ip", "decimal", "datetime", "duration":
		return s.extension(fn, arg)
	default:
		return nil, s.fail("unknown extension function; use ip, decimal, datetime or duration")
	}
}

// cedarEntity reads an entity. The type in uid decides how its attributes are read, so attributes
// that come before it are read when it is known.
func (s *scanner) cedarEntity() (d definition, err error) {
	if err := s.open('{', "an entity"); err != nil {
		return d, err
	}
	// Where they begin, of the attributes and the tags that came too early.
	var late [2]struct {
		at  int
		tag bool
	}
	// How many of the two wait.
	waiting := 0
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
		case "uid":
			if fresh = d.once(seenID); fresh {
				d.entity, err = s.cedarUID()
			}
		// Each is read or put off once. A second one is refused below, whichever it was.
		case "attrs", "tags":
			member := uint8(seenAttributes)
			if name == "tags" {
				member = seenTags
			}
			switch fresh = d.once(member); {
			case !fresh:
			// Without a schema nothing depends on the type, and they are read at once.
			case d.entity == nil && s.call.snapshot.schema != nil:
				late[waiting].at, late[waiting].tag = s.pos, name == "tags"
				waiting++
				err = s.skip()
			default:
				err = s.cedarAttributes(&d, name == "tags")
			}
		case "parents":
			if fresh = d.once(seenParents); fresh {
				d.parents, err = s.parents((*scanner).cedarUID)
			}
		default:
			err = s.fail("unknown member; an entity has uid, attrs, parents and tags")
		}
		if err == nil && !fresh {
			err = s.syntax()
		}
		if err != nil {
			return d, err
		}
	}
	// Attributes and parents must be there, if only empty; tags need not.
	end := s.pos
	switch {
	// Before what was put off is read, for without a type nobody knows how.
	case d.seen&seenID == 0:
		return d, s.fail("the entity has no uid")
	case d.seen&seenAttributes == 0:
		return d, s.fail(`the entity has no attrs; write "attrs": {}`)
	case d.seen&seenParents == 0:
		return d, s.fail(`the entity has no parents; write "parents": []`)
	}
	// skip only found where they end. Here they are read, and must be sound.
	for _, l := range late[:waiting] {
		s.pos = l.at
		if err := s.cedarAttributes(&d, l.tag); err != nil {
			return d, err
		}
	}
	s.pos = end
	return d, nil
}

// cedarAttributes reads an entity's attributes, or its tags, which all have one type. For a type that the
// schema does not know nothing is expected.
func (s *scanner) cedarAttributes(d *definition, tags bool) (err error) {
	var want *entityShape
	if schema := s.call.snapshot.schema; schema != nil && d.entity != nil {
		want = schema.entityShape(d.entity.typ)
	}
	switch {
	case tags && want == nil:
		d.tags, err = s.cedarRecord(nil, nil, nil)
	case tags:
		d.tags, err = s.cedarRecord(nil, want.tags, nil)
	case want == nil:
		d.attributes, err = s.cedarRecord(nil, nil, nil)
	default:
		d.attributes, err = s.cedarRecord(want.attributes, nil, nil)
	}
	return err
}

// cedarRecord reads an object that can only be a record: attributes, tags, a context. Its members are
// expected as record says, or to be of the type all. allow may refuse a member by its name. The names that
// stand for references and extension values can't be members: the whole would be no record.
func (s *scanner) cedarRecord(record, all *shape, allow func(*scanner, uint32) error) ([]slot, error) {
	if err := s.open('{', "an object"); err != nil {
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
		if name == "__entity" || name == "__extn" {
			return nil, s.fail("expected a record here, found an entity reference or extension value")
		}
		number := s.call.name(name)
		if allow != nil {
			if err := allow(s, number); err != nil {
				return nil, err
			}
		}
		expected := all
		if all == nil {
			expected = record.member(number)
		}
		v, err := s.cedarValue(expected)
		if err != nil {
			return nil, err
		}
		s.call.stack = append(s.call.stack, slot{value: v, name: number})
	}
}
