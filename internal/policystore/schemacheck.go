package policystore

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/engine"
)

// SchemaCheck says what of a policy store a schema breaks.
type SchemaCheck struct {
	Revision uint64
	Checked  int      // policies and templates there are
	Broken   []Broken // at most [maxBroken]
	More     int      // broken ones that are not listed
	// Unchecked are those of Checked about which nothing is known: the check has a budget of
	// validation steps (engine.MaxCheckSteps), and it ended before them.
	Unchecked int
}

// Broken is a stored policy or template that STRICT would refuse.
type Broken struct {
	Template bool
	ID, Name string
	Fields   []copse.Field // in its text; without a path
}

// maxBroken bounds an answer. All are counted.
const maxBroken = 100

// CheckSchema holds everything that is stored against a schema as STRICT would, whatever the mode: PutSchema
// does not, and neither does a change of the mode. text is a schema that was not put yet; nil is the stored
// one, and NotFound (SCHEMA) when there is none. Nothing is changed. Needs Read.
//
// It is the dearest thing that a reader can ask for. So its work is bounded, it ends when the caller has
// gone, and a policy store has one at a time: a second is Throttled.
func (s *Service) CheckSchema(ctx context.Context, c access.Caller, id copse.PolicyStoreID, text *SchemaText) (SchemaCheck, error) {
	r, err := s.admit(ctx, c, access.Read, "CheckSchema", id)
	if err != nil {
		return SchemaCheck{}, err
	}
	// Before anything is read: a second one would cost as much as the first.
	if _, running := s.checking.LoadOrStore(id, nil); running {
		return SchemaCheck{}, &copse.Error{Kind: copse.Throttled, Resource: copse.ResourcePolicyStore, ID: string(id),
			Detail: "another check of this policy store's policies is under way; wait for it, then try again"}
	}
	defer s.checking.Delete(id)
	stored, err := s.read(ctx, id, r.incarnation)
	if err != nil {
		return SchemaCheck{}, fromStorage(err, id)
	}
	var schema *engine.Schema
	if text != nil {
		schema, err = parseSchema(*text)
	} else if schema, err = stored.schema(); err == nil && schema == nil {
		err = noSchemaYet(id)
	}
	if err != nil {
		return SchemaCheck{}, err
	}
	return stored.check(ctx, schema.NewCheck(s.checkSteps))
}

// check validates everything that is there until the schema's budget is spent, and counts what is left. Nothing is changed,
// and what does not validate is listed rather than returned as an error.
// Templates come first, and then policies in order of id. Whatever is not a finding ends it.
func (c *contents) check(ctx context.Context, schema *engine.Check) (SchemaCheck, error) {
	out := SchemaCheck{Revision: c.revision, Checked: len(c.templates) + len(c.policies), Broken: []Broken{}}
	// QuotaExceeded is a finding too: a policy can be too much to validate under one schema and not another.
	note := func(err error, template bool, id, name string) error {
		e, ok := errors.AsType[*copse.Error](err)
		switch {
		case err == nil:
			return nil
		case !ok || e.Kind != copse.Invalid && e.Kind != copse.QuotaExceeded:
			return err
		case len(out.Broken) == maxBroken:
			out.More++
			return nil
		}
		// Cloned, as links share the error of a template that does not parse.
		fields := slices.Clone(e.Fields)
		for i := range fields {
			fields[i].Path = ""
		}
		if len(fields) == 0 {
			fields = []copse.Field{{Message: e.Detail}}
		}
		out.Broken = append(out.Broken, Broken{Template: template, ID: id, Name: name, Fields: fields})
		return nil
	}
	for _, id := range slices.Sorted(maps.Keys(c.templates)) {
		if schema.Spent() {
			out.Unchecked++
			continue
		}
		t := c.templates[id]
		parsed, err := t.parse("")
		if err == nil {
			err = schema.Template(parsed)
		}
		if err := note(err, true, string(t.id), t.body.Name); err != nil {
			return SchemaCheck{}, err
		}
	}
	parse := c.parser()
	for i := range c.policies {
		// Nobody waits for the rest when the caller has gone.
		if err := ctx.Err(); err != nil {
			return SchemaCheck{}, err
		}
		if schema.Spent() {
			out.Unchecked += len(c.policies) - i
			break
		}
		p := &c.policies[i]
		parsed, err := parse(p)
		if err == nil {
			err = schema.Policy(parsed) // of a link its head: its conditions are the template's
		}
		if err := note(err, false, string(p.id), p.body.Name); err != nil {
			return SchemaCheck{}, err
		}
	}
	// Templates first: what is wrong with one is often wrong with its links.
	slices.SortStableFunc(out.Broken, func(a, b Broken) int {
		return cmp.Or(compareBool(b.Template, a.Template), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

// compareBool orders false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
