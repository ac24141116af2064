package policystore

import (
	"context"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage"
)

// EntityFilter asks for policies whose scope names an entity, or none. Nil asks for all.
// "Names" is to be one single entity by ==, in or is-in; a slot that a link fills counts as what is in it.
type EntityFilter struct {
	Is          types.EntityUID // unless Unspecified is set
	Unspecified *bool           // the scope names no single entity (true), or any (false)
}

// uid is the zero UID where the scope names no single entity.
func (f *EntityFilter) matches(uid types.EntityUID) bool {
	switch {
	case f == nil:
		return true
	case f.Unspecified != nil:
		return *f.Unspecified == uid.IsZero()
	default:
		return uid == f.Is
	}
}

// PolicyFilter narrows a list of policies. Its zero value asks for all.
// All that is set must match.
type PolicyFilter struct {
	Principal, Resource *EntityFilter
	Linked              *bool                  // links only, or static policies only
	Template            copse.PolicyTemplateID // links of one template, named by id or "name/<name>"
}

func (f *PolicyFilter) matches(b *policyBody) bool {
	return f.Principal.matches(b.Principal.uid()) && f.Resource.matches(b.Resource.uid()) &&
		(f.Linked == nil || *f.Linked == (b.Link != nil)) &&
		(f.Template == "" || b.Link != nil && b.Link.Template == f.Template)
}

// A call of ListPolicies looks at so many policies at most, in pieces: a filter that few policies match
// gives short pages instead of a slow answer.
const (
	maxScan   = 2000
	scanPiece = 250
)

// ListPolicies returns up to limit policies with ids after a given one that a filter matches, and the id
// after which to go on; empty when there are no more. Needs Read.
// In order of id, as bytes. A page may be short, or empty, and not be the last: only an empty id to go on after
// ends the list. Pages are not of one revision; what stays is neither lost nor repeated. A template that the
// filter names and that is absent has no links.
func (s *Service) ListPolicies(ctx context.Context, c access.Caller, id copse.PolicyStoreID, f PolicyFilter, after copse.PolicyID, limit int) ([]Policy, copse.PolicyID, error) {
	if _, err := s.admit(ctx, c, access.Read, "ListPolicies", id); err != nil {
		return nil, "", err
	}
	out := []Policy{}
	if f.Template != "" {
		t, err := s.storedTemplate(ctx, id, f.Template)
		if err != nil && copse.KindOf(err) == copse.NotFound {
			return out, "", nil
		}
		if err != nil {
			return nil, "", fromStorage(err, id)
		}
		f.Template = t.id
	}
	limit = pageSize(limit)
	piece := scanPiece
	// Without a filter nearly all match, and one piece makes the page.
	if f == (PolicyFilter{}) {
		piece = limit + 1
	}
	// Read once for each page, however many links of one template are on it.
	templates := make(map[copse.PolicyTemplateID]*storedTemplate)
	for looked := 0; looked < maxScan; looked += piece {
		items, err := s.backend.Scan(ctx, storage.PolicyStore(id), kindPolicy, string(after), piece)
		if err != nil {
			return nil, "", fromStorage(err, id)
		}
		for _, item := range items {
			if len(out) == limit {
				return out, after, nil
			}
			p := storedPolicy{id: copse.PolicyID(item.ID), version: item.Version}
			if err := decode(item, &p.body); err != nil {
				return nil, "", err
			}
			// Also of one that does not match, so that the next call does not look at it again.
			after = p.id
			if !f.matches(&p.body) {
				continue
			}
			there, err := s.join(ctx, id, &p, templates)
			if err != nil {
				return nil, "", fromStorage(err, id)
			}
			if there {
				out = append(out, p.policy())
			}
		}
		// That was the last of them.
		if len(items) < piece {
			return out, "", nil
		}
	}
	return out, after, nil
}

// join gives a link its template, from known or storage, and reports false when that is gone.
// known is filled, also with nil for a template that is gone.
func (s *Service) join(ctx context.Context, id copse.PolicyStoreID, p *storedPolicy, known map[copse.PolicyTemplateID]*storedTemplate) (bool, error) {
	if p.body.Link == nil {
		return true, nil
	}
	template, ok := known[p.body.Link.Template]
	if !ok {
		t, err := s.storedTemplate(ctx, id, p.body.Link.Template)
		if err == nil {
			template = &t
		} else if copse.KindOf(err) != copse.NotFound {
			return false, err
		}
		known[p.body.Link.Template] = template
	}
	p.template = template
	return template != nil, nil
}

// ListTemplates returns up to limit policy templates with ids after a given one, and whether there are
// more. Needs Read.
// In order of id, as bytes. A limit below one is one, and there is a most to it.
func (s *Service) ListTemplates(ctx context.Context, c access.Caller, id copse.PolicyStoreID, after copse.PolicyTemplateID, limit int) ([]Template, bool, error) {
	if _, err := s.admit(ctx, c, access.Read, "ListPolicyTemplates", id); err != nil {
		return nil, false, err
	}
	limit = pageSize(limit)
	items, err := s.backend.Scan(ctx, storage.PolicyStore(id), kindTemplate, string(after), limit+1)
	if err != nil {
		return nil, false, fromStorage(err, id)
	}
	more := len(items) > limit
	items = items[:min(len(items), limit)]
	out := make([]Template, len(items))
	for i, item := range items {
		var body templateBody
		if err := decode(item, &body); err != nil {
			return nil, false, err
		}
		out[i] = body.template(copse.PolicyTemplateID(item.ID))
	}
	return out, more, nil
}
