package policystore

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/engine"
	"github.com/copse-authz/copse/internal/storage"
)

// GetContents needs Read.
func (s *Service) GetContents(ctx context.Context, c access.Caller, id copse.PolicyStoreID) (Contents, error) {
	r, err := s.admit(ctx, c, access.Read, "GetContents", id)
	if err != nil {
		return Contents{}, err
	}
	stored, err := s.read(ctx, id, r.incarnation)
	if err != nil {
		return Contents{}, fromStorage(err, id)
	}
	out := Contents{Revision: stored.revision, Policies: make([]Policy, len(stored.policies))}
	if stored.schemaBody != nil {
		schema := stored.schemaBody.schema()
		out.Schema = &schema
	}
	for i, p := range stored.policies {
		out.Policies[i] = p.body.policy(p.id)
	}
	slices.SortFunc(out.Policies, func(a, b Policy) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

// PutContents validates everything, then commits everything at once, so that no moment exists without
// a forbid. The same name keeps its policy id. Conflict when IfRevision is not the current one.
// Needs Write.
//
// Policies that have no name, and stay, are not validated again: like PutSchema, this checks what it
// is given.
func (s *Service) PutContents(ctx context.Context, c access.Caller, id copse.PolicyStoreID, in NewContents) (ContentsResult, error) {
	r, err := s.admit(ctx, c, access.Write, "PutContents", id)
	if err != nil {
		return ContentsResult{}, err
	}
	var f findings
	drafts, err := parseAll(&f, in.Policies, true)
	if err != nil {
		return ContentsResult{}, err
	}
	var schema *engine.Schema
	if in.Schema != nil {
		if schema, err = parseSchema(*in.Schema); f.take(err) != nil {
			return ContentsResult{}, err
		}
		if err != nil { // policies can't be validated against a schema that is none
			return ContentsResult{}, f.err(copse.ResourceSchema, "the contents are not valid")
		}
	}
	var result ContentsResult
	result.Revision, err = s.apply(ctx, operation{"PutContents", c.KeyID, id, r}, func(ctx context.Context, k *desk) (change, error) {
		stored, err := s.read(ctx, id, r.incarnation)
		if err != nil {
			return change{}, err
		}
		if in.IfRevision != nil && *in.IfRevision != stored.revision {
			return change{}, &copse.Error{Kind: copse.Conflict, Resource: copse.ResourcePolicyStore, ID: string(id),
				Detail: fmt.Sprintf("the policy store is at revision %d, not %d; read it again and retry", stored.revision, *in.IfRevision)}
		}
		against := schema
		if in.Schema == nil {
			if against, err = stored.schema(); err != nil && stored.settings.Validation == copse.ValidationStrict {
				return change{}, err
			}
		}
		found := findings{fields: slices.Clone(f.fields), more: f.more}
		if err := validateAll(&found, stored.settings.Validation, against, drafts); err != nil {
			return change{}, err
		}
		if stored.quotas, err = s.quotas(ctx, id); err != nil {
			return change{}, err
		}
		m := merge{stored: stored, in: in, drafts: drafts, schema: against, at: now()}
		writes, err := m.plan()
		if err != nil {
			return change{}, err
		}
		result = m.result
		if err := m.check(s, writes); err != nil {
			return change{}, err
		}
		return change{base: &stored.ledger, writes: writes}, nil
	})
	if err != nil {
		return ContentsResult{}, err
	}
	return result, nil
}

// merge is what becomes of stored contents under new ones.
type merge struct {
	stored *contents
	in     NewContents
	drafts []draft
	schema *engine.Schema // afterwards
	at     time.Time

	gone   map[copse.PolicyID]bool // deleted or replaced
	next   []policySource          // the named policies as they will be
	result ContentsResult
}

// plan computes the writes and the result.
func (m *merge) plan() ([]storage.Write, error) {
	m.gone = make(map[copse.PolicyID]bool)
	former := make(map[string]*storedPolicy)
	for i := range m.stored.policies {
		if p := &m.stored.policies[i]; p.body.Name != "" {
			former[p.body.Name] = p
		}
	}
	writes, err := m.planSchema()
	if err != nil {
		return nil, err
	}
	for _, d := range m.drafts {
		w, err := m.planPolicy(d, former[d.text.Name])
		if err != nil {
			return nil, err
		}
		writes = append(writes, w...)
		delete(former, d.text.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(former)) {
		writes = append(writes, m.remove(former[name])...)
		writes = append(writes, storage.Write{Key: nameKey(name), Expect: storage.Version(m.stored.names[name])})
	}
	for i := range m.stored.policies {
		switch p := &m.stored.policies[i]; {
		case p.body.Name != "":
		case m.in.Prune:
			writes = append(writes, m.remove(p)...)
		default:
			m.result.Kept = append(m.result.Kept, copse.PolicyRef{ID: p.id})
		}
	}
	slices.SortFunc(m.result.Policies, func(a, b copse.PolicyRef) int { return cmp.Compare(a.Name, b.Name) })
	return writes, nil
}

func (m *merge) planSchema() ([]storage.Write, error) {
	if m.in.Schema == nil {
		return nil, nil
	}
	if err := checkSchema(*m.in.Schema, m.schema, m.stored.quotas); err != nil {
		return nil, err
	}
	body := newSchemaBody(*m.in.Schema, m.schema, m.at, m.at)
	if old := m.stored.schemaBody; old != nil {
		// Compared as they would be stored, since JSON loses its white space there.
		was, err := encode(&schemaBody{JSON: old.JSON, Cedar: old.Cedar})
		if err != nil {
			return nil, err
		}
		is, err := encode(&schemaBody{JSON: body.JSON, Cedar: body.Cedar})
		if err != nil {
			return nil, err
		}
		if string(was) == string(is) {
			return nil, nil
		}
		body.CreatedAt = old.CreatedAt
	}
	encoded, err := encode(body)
	return []storage.Write{{Key: schemaKey, Body: encoded, Expect: storage.Version(m.stored.schemaVersion)}}, err
}

func (m *merge) planPolicy(d draft, former *storedPolicy) ([]storage.Write, error) {
	ref := copse.PolicyRef{Name: d.text.Name}
	expect, created := storage.Absent(), m.at
	if former != nil {
		ref.ID, expect, created = former.id, storage.Version(former.version), former.body.CreatedAt
		m.gone[former.id] = true
	} else {
		ref.ID = copse.PolicyID(copse.NewID())
	}
	m.result.Policies = append(m.result.Policies, ref)
	m.next = append(m.next, policySource{ref: ref, policy: d.policy, size: len(d.text.Statement)})
	if former != nil && former.body.Statement == d.text.Statement && former.body.Description == d.text.Description {
		return nil, nil
	}
	if err := checkSize(copse.ResourcePolicy, d.path, len(d.text.Statement), m.stored.quotas.PolicyBytes); err != nil {
		return nil, err
	}
	body := newPolicyBody(d.text, d.policy, created, m.at)
	encoded, err := encode(&body)
	if err != nil {
		return nil, err
	}
	writes := []storage.Write{{Key: policyKey(ref.ID), Body: encoded, Expect: expect}}
	if former != nil {
		m.result.Updated++
		return writes, nil
	}
	m.result.Created++
	names, err := newNameWrites(d.text.Name, ref.ID)
	return append(writes, names...), err
}

func (m *merge) remove(p *storedPolicy) []storage.Write {
	m.gone[p.id] = true
	m.result.Deleted++
	return []storage.Write{{Key: policyKey(p.id), Expect: storage.Version(p.version)}}
}

// check holds the limits of the contents as they will be.
func (m *merge) check(s *Service, writes []storage.Write) error {
	if err := checkCommit(writes); err != nil {
		return err
	}
	text := 0
	sizes := make(scopeSizes)
	for _, p := range m.next {
		text += p.size
		sizes.add(p.policy.Scope().Resource, p.size)
	}
	for _, p := range m.stored.policies {
		if !m.gone[p.id] {
			text += len(p.body.Statement)
			sizes.add(p.body.Resource.uid(), len(p.body.Statement))
		}
	}
	if err := sizes.check(m.stored.quotas.ScopeBytes); err != nil {
		return err
	}
	weight, err := s.weigh(m.schema, m.stored.settings.settings(), text, func() ([]policySource, error) {
		kept, err := m.stored.sources(m.gone)
		return append(kept, m.next...), err
	})
	if err != nil {
		return err
	}
	return s.checkWeight(weight)
}
