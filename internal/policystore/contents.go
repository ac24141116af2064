package policystore

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/engine"
)

// GetContents needs Read.
// All of it is of one revision, which PutContents takes as IfRevision. Links whose template is gone are not in
// it. Nothing is parsed: what no longer compiles is shown as it is stored, so that it can be repaired.
func (s *Service) GetContents(ctx context.Context, c access.Caller, id copse.PolicyStoreID) (Contents, error) {
	r, err := s.admit(ctx, c, access.Read, "GetContents", id)
	if err != nil {
		return Contents{}, err
	}
	stored, err := s.read(ctx, id, r.incarnation)
	if err != nil {
		return Contents{}, fromStorage(err, id)
	}
	out := Contents{Revision: stored.revision, Policies: make([]Policy, len(stored.policies)), Templates: []Template{}}
	if stored.schemaBody != nil {
		schema := stored.schemaBody.schema()
		out.Schema = &schema
	}
	for i := range stored.policies {
		out.Policies[i] = stored.policies[i].policy()
	}
	for _, t := range stored.templates {
		out.Templates = append(out.Templates, t.body.template(t.id))
	}
	slices.SortFunc(out.Templates, func(a, b Template) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	slices.SortFunc(out.Policies, func(a, b Policy) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

// PutContents validates everything, then commits everything at once, so that no moment exists without
// a forbid. The same name keeps its id. A template that goes takes its links along. Conflict when
// IfRevision is not the current one. Needs Write.
//
// Invalid lists what is wrong in all of them, up to a bound, and nothing is changed; so with every other error
// but one that leaves the outcome of a commit open.
//
// Policies and templates that have no name, and stay, are not validated again: like PutSchema, this
// checks what it is given.
func (s *Service) PutContents(ctx context.Context, c access.Caller, id copse.PolicyStoreID, in NewContents) (ContentsResult, error) {
	r, err := s.admit(ctx, c, access.Write, "PutContents", id)
	if err != nil {
		return ContentsResult{}, err
	}
	// Findings that need nothing stored are collected first, and told together with those that do.
	var f findings
	drafts, err := parseContents(&f, in, true)
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
	result.Revision, err = s.apply(ctx, operation{"PutContents", c.Actor(), id, r}, func(ctx context.Context, k *desk) (change, error) {
		stored, err := s.read(ctx, id, r.incarnation)
		if err != nil {
			return change{}, err
		}
		if in.IfRevision != nil && *in.IfRevision != stored.revision {
			return change{}, &copse.Error{Kind: copse.Conflict, Resource: copse.ResourcePolicyStore, ID: string(id),
				Detail: fmt.Sprintf("the policy store is at revision %d, not %d; read it again and retry", stored.revision, *in.IfRevision)}
		}
		// Validated against the schema of afterwards: that which comes along, or else the stored one.
		against := schema
		if in.Schema == nil {
			if against, err = stored.schema(); err != nil && stored.settings.Validation == copse.ValidationStrict {
				return change{}, err
			}
		}
		if stored.quotas, err = s.quotas(ctx, id); err != nil {
			return change{}, err
		}
		m := newMerge(stored, in, drafts, against)
		if err := m.plan(f); err != nil {
			return change{}, err
		}
		result = m.result
		if err := m.check(s); err != nil {
			return change{}, err
		}
		// Without settle: the next change finds anew what is used of each limit.
		return change{base: &stored.ledger, writes: m.writes}, nil
	})
	if err != nil {
		return ContentsResult{}, err
	}
	return result, nil
}
