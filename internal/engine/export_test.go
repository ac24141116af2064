package engine

import (
	"testing"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

// decodeFor reads a request as a snapshot without policies does. The call is not given back: what it
// holds stays good for the test.
func decodeFor(t testing.TB, schema *Schema, req *copse.Request) (*call, error) {
	t.Helper()
	s, err := Compile(schema, copse.Settings{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := newCall(s, req)
	return c, c.decode()
}

// exported is a value as cedar-go has it, to hold one against the other.
func (c *call) exported(v *value) types.Value {
	switch v.kind {
	case kindSet:
		var elements []types.Value
		for _, s := range v.slots {
			elements = append(elements, c.exported(s.value))
		}
		return types.NewSet(elements...)
	case kindRecord:
		return c.exportedRecord(v.slots)
	default:
		return scalarOf(v)
	}
}

func (c *call) exportedRecord(slots []slot) types.Record {
	members := types.RecordMap{}
	for _, s := range slots {
		members[types.String(c.nameText(s.name))] = c.exported(s.value)
	}
	return types.NewRecord(members)
}

// exportedEntities are the entities that the request defines.
func (c *call) exportedEntities() types.EntityMap {
	out := types.EntityMap{}
	for _, e := range c.entities {
		if e.origin != fromServer && e.origin != fromCaller {
			continue
		}
		var parents []types.EntityUID
		for _, p := range e.parents {
			parents = append(parents, p.uid)
		}
		out[e.uid] = types.Entity{UID: e.uid, Parents: types.NewEntityUIDSet(parents...), Attributes: c.exportedRecord(e.attributes), Tags: c.exportedRecord(e.tags)}
	}
	return out
}

// above lists the ancestors that were found of an entity.
func (c *call) above(uid types.EntityUID) []types.EntityUID {
	var out []types.EntityUID
	for _, e := range c.entities {
		if e.uid != uid {
			continue
		}
		for _, n := range e.ancestors {
			for _, a := range c.entities {
				if a.number == n {
					out = append(out, a.uid)
				}
			}
		}
	}
	return out
}
