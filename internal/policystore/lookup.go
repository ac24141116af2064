package policystore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/engine"
	"github.com/copse-authz/copse/internal/storage"
)

// namePrefix marks a name where an id is expected.
const namePrefix = "name/"

// storedPolicy is a policy as it is stored. A link whose template is gone is none.
type storedPolicy struct {
	id       copse.PolicyID
	version  uint64
	body     policyBody
	template *storedTemplate // of a link
}

// storedTemplate is a policy template as it is stored. Links that were read together share one.
type storedTemplate struct {
	id      copse.PolicyTemplateID
	version uint64
	body    templateBody
}

// policy shows a stored policy, of a link with the actions of its template.
func (p *storedPolicy) policy() Policy {
	out := p.body.policy(p.id)
	if p.template != nil {
		for _, a := range p.template.body.Actions {
			out.Actions = append(out.Actions, a.uid())
		}
	}
	return out
}

// changed is the revision at which what the policy says changed last: of a link, also its template.
func (p *storedPolicy) changed() uint64 {
	if p.template == nil {
		return p.version
	}
	return max(p.version, p.template.version)
}

// parse turns what is stored into what decides: of a link, its template with the slots filled.
func (p *storedPolicy) parse(path string) (*engine.Policy, error) {
	if p.template == nil {
		return parsePolicy(path, p.body.Statement)
	}
	template, err := p.template.parse(path)
	if err != nil {
		return nil, err
	}
	return p.fill(template, path)
}

// fill makes a link of its parsed template: for those who parse a template once for many links.
func (p *storedPolicy) fill(template *engine.Template, path string) (*engine.Policy, error) {
	return template.Link(path, p.body.Link.Principal.uid(), p.body.Link.Resource.uid())
}

// parse reads the text. It was accepted once, so an error means that this copse reads it otherwise.
func (t *storedTemplate) parse(path string) (*engine.Template, error) {
	return parseTemplate(path, t.body.Statement)
}

// named is the id a name stands for, and the item's version, 0 when nothing has the name.
// It does not tell whether what the name stands for is there.
func (s *Service) named(ctx context.Context, id copse.PolicyStoreID, key storage.Key) (string, uint64, error) {
	item, err := s.backend.Get(ctx, storage.PolicyStore(id), key)
	if errors.Is(err, storage.ErrNotFound) {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, err
	}
	var body nameBody
	if err := decode(item, &body); err != nil {
		return "", 0, err
	}
	return string(body.Policy), item.Version, nil
}

// lookUp reads what has an id, or a name of the kind that goes with it. absent is the answer when nothing
// has.
// The name is read first and the item after it. Between the two it may come to be another's: who is not in a
// change, which would be repeated, compares it with the item's own name.
func (s *Service) lookUp(ctx context.Context, id copse.PolicyStoreID, kind, names storage.Kind, idOrName string, absent error) (storage.Item, error) {
	found := idOrName
	if name, isName := strings.CutPrefix(idOrName, namePrefix); isName {
		of, version, err := s.named(ctx, id, storage.Key{Kind: names, ID: name})
		if err != nil {
			return storage.Item{}, err
		}
		if version == 0 {
			return storage.Item{}, absent
		}
		found = of
	}
	item, err := s.backend.Get(ctx, storage.PolicyStore(id), storage.Key{Kind: kind, ID: found})
	if errors.Is(err, storage.ErrNotFound) {
		err = absent
	}
	return item, err
}

// stored reads one policy by id, or by "name/<name>".
// NotFound when it is absent, or is a link whose template is gone.
func (s *Service) stored(ctx context.Context, id copse.PolicyStoreID, policy copse.PolicyID) (storedPolicy, error) {
	absent := copse.NotFoundError(copse.ResourcePolicy, string(policy))
	item, err := s.lookUp(ctx, id, kindPolicy, kindName, string(policy), absent)
	if err != nil {
		return storedPolicy{}, err
	}
	p := storedPolicy{id: copse.PolicyID(item.ID), version: item.Version}
	// A static policy is complete with this.
	if err := decode(item, &p.body); err != nil || p.body.Link == nil {
		return p, err
	}
	template, err := s.storedTemplate(ctx, id, p.body.Link.Template)
	if err != nil && copse.KindOf(err) == copse.NotFound {
		return storedPolicy{}, absent
	}
	p.template = &template
	return p, err
}

// storedTemplate reads one policy template by id, or by "name/<name>".
// NotFound when it is absent.
func (s *Service) storedTemplate(ctx context.Context, id copse.PolicyStoreID, template copse.PolicyTemplateID) (storedTemplate, error) {
	absent := copse.NotFoundError(copse.ResourceTemplate, string(template))
	item, err := s.lookUp(ctx, id, kindTemplate, kindTemplateName, string(template), absent)
	if err != nil {
		return storedTemplate{}, err
	}
	t := storedTemplate{id: copse.PolicyTemplateID(item.ID), version: item.Version}
	return t, decode(item, &t.body)
}

// takeName is the write that makes a name a policy's, or Conflict when it is another's. What a link had
// that went with its template is free.
// The write expects the name as it was read here. Between the read and the commit it can only be taken at
// another revision, which the commit refuses.
func (s *Service) takeName(ctx context.Context, id copse.PolicyStoreID, policy copse.PolicyID, name string) ([]storage.Write, error) {
	of, version, err := s.named(ctx, id, nameKey(name))
	if err != nil {
		return nil, err
	}
	if version != 0 {
		if _, err := s.stored(ctx, id, copse.PolicyID(of)); err == nil {
			return nil, &copse.Error{Kind: copse.Conflict, Resource: copse.ResourcePolicy, ID: namePrefix + name,
				Detail: fmt.Sprintf("another policy of this policy store has the name %q", name)}
		} else if copse.KindOf(err) != copse.NotFound {
			return nil, err
		}
	}
	return newNameWrites(nameKey(name), string(policy), version)
}

// takeTemplateName is takeName for templates.
// Names of templates go in the commit that takes the template, so one that is there is another's.
func (s *Service) takeTemplateName(ctx context.Context, id copse.PolicyStoreID, template copse.PolicyTemplateID, name string) ([]storage.Write, error) {
	_, version, err := s.named(ctx, id, templateNameKey(name))
	if err != nil {
		return nil, err
	}
	if version != 0 {
		return nil, &copse.Error{Kind: copse.Conflict, Resource: copse.ResourceTemplate, ID: namePrefix + name,
			Detail: fmt.Sprintf("another policy template of this policy store has the name %q", name)}
	}
	return newNameWrites(templateNameKey(name), string(template), 0)
}

// newNameWrites is the write of a name's row, which is expected at version; 0 is absence.
func newNameWrites(key storage.Key, of string, version uint64) ([]storage.Write, error) {
	encoded, err := encode(&nameBody{V: bodyVersion, Policy: copse.PolicyID(of)})
	if err != nil {
		return nil, err
	}
	return []storage.Write{{Key: key, Body: encoded, Expect: storage.Version(version)}}, nil
}
