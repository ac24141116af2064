package policystore

import (
	"context"
	"strings"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/engine"
	"github.com/copse-authz/copse/internal/storage"
)

// CreatePolicy adds a policy. Conflict when the name is taken, NotFound (POLICY_TEMPLATE) when the
// template of a link is absent. Needs Write.
func (s *Service) CreatePolicy(ctx context.Context, c access.Caller, id copse.PolicyStoreID, in NewPolicy) (Policy, error) {
	r, err := s.admit(ctx, c, access.Write, "CreatePolicy", id)
	if err != nil {
		return Policy{}, err
	}
	static, err := in.check()
	if err != nil {
		return Policy{}, err
	}
	o, err := newOnce("CreatePolicy", copse.ResourcePolicy, in.ClientToken, in)
	if err != nil {
		return Policy{}, err
	}
	// Drawn once: an attempt that is repeated after a lost race makes the same policy.
	policyID := copse.PolicyID(copse.NewID())
	var made madePolicy
	err = s.edit(ctx, operation{"CreatePolicy", c.Actor(), id, r}, func(ctx context.Context, l *ledger) (change, error) {
		// In every attempt: of two equal calls at once one commits, and the other loses the race and finds
		// its answer here.
		if done, err := s.recall(ctx, storage.PolicyStore(id), o, &made); done || err != nil {
			return change{base: l}, err
		}
		p := posting{id: policyID, policy: static}
		if in.Link == nil {
			at := now()
			p.body = newPolicyBody(in.text(), static, at, at)
		} else if err := s.draftLink(ctx, id, &p, in); err != nil {
			return change{}, err
		}
		// Of a link the answer shows its template's actions, as GetPolicy does; the row has none.
		made = madePolicy{ID: policyID, Body: p.body}
		if p.template != nil {
			made.Body.Actions = p.template.body.Actions
		}
		if in.Name != "" {
			if p.names, err = s.takeName(ctx, id, policyID, in.Name); err != nil {
				return change{}, err
			}
		}
		posted, err := s.post(ctx, id, l, p)
		if err != nil {
			return change{}, err
		}
		answer := made
		answer.Body.Statement = "" // a repeated call has it
		return s.remember(ctx, id, posted, o, string(policyID), answer)
	})
	if err != nil {
		return Policy{}, err
	}
	made.Body.Statement = in.Statement
	return made.Body.policy(made.ID), nil
}

// madePolicy is what a client token remembers of CreatePolicy.
type madePolicy struct {
	ID   copse.PolicyID `json:"id"`
	Body policyBody     `json:"body"`
}

// check holds a new policy against the rules that need no stored one, and parses a static one.
// A link gives no policy and no error: its template is needed for it.
func (p *NewPolicy) check() (*engine.Policy, error) {
	if err := validateDescription(descriptionPath, p.Description); err != nil {
		return nil, err
	}
	if p.Name != "" {
		if err := validateName(namePath, p.Name); err != nil {
			return nil, err
		}
	}
	if p.Link == nil {
		return parsePolicy(statementPath, p.Statement)
	}
	if p.Statement != "" || p.Description != "" {
		return nil, invalid(copse.ResourcePolicy, "a policy is a statement or a link, not both", copse.Field{
			Path: linkPath, Message: "a link has neither statement nor description of its own"})
	}
	if err := p.Link.Template.Validate(); err != nil {
		return nil, invalid(copse.ResourcePolicy, "the policy template's id is not valid", copse.Field{
			Path: linkPath + ".policyTemplateId", Message: err.Error()})
	}
	return nil, nil
}

// draftLink fills a posting with a link of a stored template.
// The template's id and not its name goes into the row. NotFound (POLICY_TEMPLATE) when it is absent,
// InvalidState when it does not parse any more, Invalid when the entities don't fit its slots.
func (s *Service) draftLink(ctx context.Context, id copse.PolicyStoreID, p *posting, in NewPolicy) error {
	template, err := s.storedTemplate(ctx, id, in.Link.Template)
	if err != nil {
		return err
	}
	parsed, err := template.parse(linkPath)
	if err != nil {
		return unusable(&template, err)
	}
	if p.policy, err = parsed.Link(linkPath, in.Link.Principal, in.Link.Resource); err != nil {
		return err
	}
	p.template, p.parent = &template, parsed
	p.body = newLinkBody(in.Name, *in.Link, p.policy, template.id, now())
	return nil
}

// unusable is for a stored template that no longer parses: not the caller's text is wrong.
func unusable(t *storedTemplate, err error) error {
	return &copse.Error{Kind: copse.InvalidState, Resource: copse.ResourceTemplate, ID: string(t.id),
		Detail: "the stored policy template does not parse any more; update it", Err: err}
}

// posting is one policy to be written: new, or in place of former.
// policy is what the body says, parsed; template and parent are the row and the parsed text of a link's
// template. names are the writes that give or take names.
type posting struct {
	id       copse.PolicyID
	body     policyBody
	policy   *engine.Policy // nil: the statement stays as it is
	former   *storedPolicy
	template *storedTemplate // of a link
	parent   *engine.Template
	names    []storage.Write
}

// path is where findings about a posting are.
func (p *posting) path() string {
	if p.body.Link != nil {
		return linkPath
	}
	return statementPath
}

// post checks a posting against the ledger and turns it into a change.
// It checks, in this order, the schema, the policy's size, what names its resource, and the weight of the
// whole: what costs most comes last. The ledger is not touched before the commit was taken.
func (s *Service) post(ctx context.Context, id copse.PolicyStoreID, l *ledger, p posting) (change, error) {
	expect := storage.Absent()
	if p.former != nil {
		expect = storage.Version(p.former.version)
	}
	encoded, err := encode(&p.body)
	if err != nil {
		return change{}, err
	}
	writes := append([]storage.Write{{Key: policyKey(p.id), Body: encoded, Expect: expect}}, p.names...)
	c := change{base: l, writes: writes, settle: func(*ledger, uint64) {}}
	// Name or description alone: neither what is decided nor what is counted changes.
	if p.policy == nil {
		return c, nil
	}
	schema, err := l.schema()
	if err != nil && l.settings.Validation == copse.ValidationStrict {
		return change{}, err
	}
	if err := s.validatePosting(l, schema, &p); err != nil {
		return change{}, err
	}
	scope := newScopeKey(p.body.Resource.uid())
	// The bytes of all that name this resource, or no single one, as they will be.
	size := l.scopes[scope] + p.body.size()
	if p.former != nil {
		size -= p.former.body.size() // an update keeps the resource, and so the scope
	}
	if err := checkSize(copse.ResourcePolicy, statementPath, len(p.body.Statement), l.quotas.PolicyBytes); err != nil {
		return change{}, err
	}
	if err := checkScope(p.body.Resource.uid(), size, l.quotas.ScopeBytes); err != nil {
		return change{}, err
	}
	weight, err := s.chargeOne(ctx, id, l, schema, p)
	if err != nil {
		return change{}, err
	}
	c.settle = func(l *ledger, _ uint64) {
		l.scopes[scope], l.weight = size, weight
		if p.former == nil {
			l.countLink(p.body.Link, 1)
		}
	}
	return c, nil
}

// validatePosting holds a policy against the schema as the mode demands. A link's conditions are its
// template's, which was validated when it was written: if that was before the present schema or mode, it
// is validated again, so that nothing unvalidated gets in by way of a link.
// The policy itself is validated in any case: the entities in a link's slots are its own.
func (s *Service) validatePosting(l *ledger, schema *engine.Schema, p *posting) error {
	mode := l.settings.Validation
	if p.template != nil && p.template.version < max(l.schemaVersion, l.settingsVersion) {
		if err := validateTemplates(mode, schema, []string{linkPath}, p.parent); err != nil {
			return err
		}
	}
	return validate(mode, schema, []string{p.path()}, p.policy)
}

// chargeOne finds the weight with one more policy. Adding up is enough while there is room, and never
// too little; only near the limit is the whole compiled, to tell what is really left.
// QuotaExceeded when the policy store would weigh more than is allowed.
func (s *Service) chargeOne(ctx context.Context, id copse.PolicyStoreID, l *ledger, schema *engine.Schema, p posting) (int64, error) {
	settings := l.settings.settings()
	one, err := weighOne(settings, p.policy)
	if err != nil || l.weight+one <= s.maxWeight {
		return l.weight + one, err
	}
	// Near the limit: what is there, compiled together with this one in place of what it was before.
	all := l.load()
	all.text += p.body.size()
	if p.template != nil {
		all.linked += len(p.template.body.Statement)
	}
	weight, err := s.weigh(schema, settings, all, func() ([]policySource, error) {
		all, err := s.sourcesAt(ctx, id, l)
		if err != nil {
			return nil, err
		}
		kept := all[:0]
		for _, other := range all {
			if other.ref.ID != p.id {
				kept = append(kept, other)
			}
		}
		return append(kept, policySource{
			ref: copse.PolicyRef{ID: p.id, Name: p.body.Name}, policy: p.policy, size: p.body.size(),
		}), nil
	})
	if err != nil {
		return 0, err
	}
	return weight, s.checkWeight(weight)
}

// GetPolicy reads a policy by id, or by "name/<name>". Needs Read.
// It reads what is stored and parses nothing, so a policy that no longer parses can be looked at.
func (s *Service) GetPolicy(ctx context.Context, c access.Caller, id copse.PolicyStoreID, policy copse.PolicyID) (Policy, error) {
	if err := policy.Validate(); err != nil {
		return Policy{}, err
	}
	if _, err := s.admit(ctx, c, access.Read, "GetPolicy", id); err != nil {
		return Policy{}, err
	}
	// Between the two reads of a lookup by name the policy can be deleted and another take the name;
	// then the lookup is simply repeated.
	for range maxAttempts {
		p, err := s.stored(ctx, id, policy)
		if err != nil {
			return Policy{}, fromStorage(err, id)
		}
		if !strings.HasPrefix(string(policy), namePrefix) || namePrefix+p.body.Name == string(policy) {
			return p.policy(), nil
		}
	}
	return Policy{}, fromStorage(storage.ErrConflict, id)
}

// UpdatePolicy changes action scope, conditions, description and name, but neither effect nor
// principal nor resource, as AVP. Needs Write.
// Of a link only the name can change: Invalid otherwise. NotFound when it is absent, Conflict when the new name
// is taken. The id stays, and so does the time of making.
func (s *Service) UpdatePolicy(ctx context.Context, c access.Caller, id copse.PolicyStoreID, policy copse.PolicyID, u PolicyUpdate) (Policy, error) {
	if err := policy.Validate(); err != nil {
		return Policy{}, err
	}
	r, err := s.admit(ctx, c, access.Write, "UpdatePolicy", id)
	if err != nil {
		return Policy{}, err
	}
	parsed, err := u.check()
	if err != nil {
		return Policy{}, err
	}
	var updated Policy
	err = s.edit(ctx, operation{"UpdatePolicy", c.Actor(), id, r}, func(ctx context.Context, l *ledger) (change, error) {
		former, err := s.stored(ctx, id, policy)
		if err != nil {
			return change{}, err
		}
		// A copy of the stored body, so that what is not changed goes back as it was.
		p := posting{id: former.id, former: &former, body: former.body, policy: parsed}
		p.body.UpdatedAt = now()
		if former.body.Link != nil && (parsed != nil || u.Description != nil) {
			return change{}, invalid(copse.ResourcePolicy, "of a template-linked policy only the name can be updated",
				copse.Field{Path: "definition", Message: "the policy is linked to a template: update the template, or create another policy"})
		}
		if parsed != nil {
			// Built from the stored policy, so that what the update leaves out stays as it is at this revision.
			text := PolicyText{Name: former.body.Name, Statement: *u.Statement, Description: former.body.Description}
			p.body = newPolicyBody(text, parsed, former.body.CreatedAt, p.body.UpdatedAt)
			if err := checkTarget(&former.body, &p.body, parsed); err != nil {
				return change{}, err
			}
		}
		if u.Description != nil {
			p.body.Description = *u.Description
		}
		if u.Name != nil && *u.Name != former.body.Name {
			p.body.Name = *u.Name
			if p.names, err = s.rename(ctx, id, former, *u.Name); err != nil {
				return change{}, err
			}
		}
		updated = (&storedPolicy{id: p.id, body: p.body, template: former.template}).policy()
		return s.post(ctx, id, l, p)
	})
	if err != nil {
		return Policy{}, err
	}
	return updated, nil
}

// check holds an update against the rules that need no stored policy, and parses its statement.
// nil without an error when the statement stays as it is.
func (u *PolicyUpdate) check() (*engine.Policy, error) {
	if u.Description != nil {
		if err := validateDescription(descriptionPath, *u.Description); err != nil {
			return nil, err
		}
	}
	if u.Name != nil && *u.Name != "" {
		if err := validateName(namePath, *u.Name); err != nil {
			return nil, err
		}
	}
	if u.Statement == nil {
		return nil, nil
	}
	return parsePolicy(statementPath, *u.Statement)
}

// checkTarget refuses an update that would make another policy of it.
// A stored policy that no longer parses is compared by what its row says of its head.
func checkTarget(former, next *policyBody, parsed *engine.Policy) error {
	same := former.Effect == next.Effect && former.Principal.uid() == next.Principal.uid() && former.Resource.uid() == next.Resource.uid()
	if old, err := parsePolicy(statementPath, former.Statement); err == nil {
		same = old.SameTarget(parsed) // also tells "==" from "in" and "is"
	}
	if same {
		return nil
	}
	return invalid(copse.ResourcePolicy, "an update can't change a policy's effect, principal or resource",
		copse.Field{Path: statementPath, Message: "effect, principal and resource must stay as they are; create another policy instead"})
}

// rename is the writes that take a new name, unless it is empty, and free the old one: in one commit, so that
// nobody sees the policy with neither. Conflict when the new one is another policy's.
func (s *Service) rename(ctx context.Context, id copse.PolicyStoreID, former storedPolicy, name string) (writes []storage.Write, err error) {
	if name != "" {
		if writes, err = s.takeName(ctx, id, former.id, name); err != nil {
			return nil, err
		}
	}
	return append(writes, former.unname()...), nil
}

// unname is the write that makes a policy's name free.
// It expects no version: the name of a policy that is there is nobody else's.
func (p *storedPolicy) unname() []storage.Write {
	if p.body.Name == "" {
		return nil
	}
	return []storage.Write{{Key: nameKey(p.body.Name), Expect: storage.Any()}}
}

// DeletePolicy succeeds when the policy is absent. Needs Write.
// The policy may be named by "name/<name>". Deciding without it begins before this returns.
func (s *Service) DeletePolicy(ctx context.Context, c access.Caller, id copse.PolicyStoreID, policy copse.PolicyID) error {
	if err := policy.Validate(); err != nil {
		return err
	}
	r, err := s.admit(ctx, c, access.Write, "DeletePolicy", id)
	if err != nil {
		return err
	}
	err = s.edit(ctx, operation{"DeletePolicy", c.Actor(), id, r}, func(ctx context.Context, l *ledger) (change, error) {
		former, err := s.stored(ctx, id, policy)
		if err != nil && copse.KindOf(err) == copse.NotFound {
			return change{base: l}, nil
		}
		if err != nil {
			return change{}, err
		}
		// The policy and its name in one commit, so that the name is free when it is gone.
		writes := append([]storage.Write{{Key: policyKey(former.id), Expect: storage.Version(former.version)}}, former.unname()...)
		// The weight stays what it was: it is an upper bound, and is found anew near the limit.
		return change{base: l, writes: writes, settle: func(l *ledger, _ uint64) {
			scope := newScopeKey(former.body.Resource.uid())
			if l.scopes[scope] -= former.body.size(); l.scopes[scope] <= 0 {
				delete(l.scopes, scope)
			}
			l.countLink(former.body.Link, -1)
		}}, nil
	})
	return err
}
