package policystore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/engine"
	"github.com/copse-authz/copse/internal/storage"
)

// namePrefix marks a name where an id is expected.
const namePrefix = "name/"

// CreatePolicy adds a policy. Conflict when the name is taken. Needs Write.
func (s *Service) CreatePolicy(ctx context.Context, c access.Caller, id copse.PolicyStoreID, in NewPolicy) (Policy, error) {
	text := in.text()
	r, err := s.admit(ctx, c, access.Write, "CreatePolicy", id)
	if err != nil {
		return Policy{}, err
	}
	if err := validateDescription(descriptionPath, text.Description); err != nil {
		return Policy{}, err
	}
	if text.Name != "" {
		if err := validateName(namePath, text.Name); err != nil {
			return Policy{}, err
		}
	}
	parsed, err := parsePolicy(statementPath, text.Statement)
	if err != nil {
		return Policy{}, err
	}
	o, err := newOnce("CreatePolicy", copse.ResourcePolicy, in.ClientToken, in)
	if err != nil {
		return Policy{}, err
	}
	policyID := copse.PolicyID(copse.NewID())
	var made madePolicy
	_, err = s.apply(ctx, operation{"CreatePolicy", c.KeyID, id, r}, func(ctx context.Context, k *desk) (change, error) {
		l, err := s.current(ctx, k, id, r.incarnation)
		if err != nil {
			return change{}, err
		}
		if done, err := s.recall(ctx, storage.PolicyStore(id), o, &made); done || err != nil {
			return change{base: l}, err
		}
		at := now()
		p := posting{id: policyID, body: newPolicyBody(text, parsed, at, at), policy: parsed}
		made = madePolicy{ID: policyID, Body: p.body}
		if text.Name != "" {
			if p.names, err = s.takeName(ctx, id, policyID, text.Name); err != nil {
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

// posting is one policy to be written: new, or in place of former.
type posting struct {
	id     copse.PolicyID
	body   policyBody
	policy *engine.Policy // nil: the statement stays as it is
	former *storedPolicy
	names  []storage.Write
}

// post checks a posting against the ledger and turns it into a change.
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
	if p.policy == nil {
		return c, nil
	}
	schema, err := l.schema()
	if err != nil && l.settings.Validation == copse.ValidationStrict {
		return change{}, err
	}
	if err := validate(l.settings.Validation, schema, []string{statementPath}, p.policy); err != nil {
		return change{}, err
	}
	scope := newScopeKey(p.body.Resource.uid())
	size := l.scopes[scope] + len(p.body.Statement)
	if p.former != nil {
		size -= len(p.former.body.Statement) // an update keeps the resource, and so the scope
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
	c.settle = func(l *ledger, _ uint64) { l.scopes[scope], l.weight = size, weight }
	return c, nil
}

// chargeOne finds the weight with one more policy. Adding up is enough while there is room, and never
// too little; only near the limit is the whole compiled, to tell what is really left.
func (s *Service) chargeOne(ctx context.Context, id copse.PolicyStoreID, l *ledger, schema *engine.Schema, p posting) (int64, error) {
	settings := l.settings.settings()
	one, err := weighOne(settings, p.policy)
	if err != nil || l.weight+one <= s.maxWeight {
		return l.weight + one, err
	}
	text := l.text() + len(p.body.Statement)
	weight, err := s.weigh(schema, settings, text, func() ([]policySource, error) {
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
			ref: copse.PolicyRef{ID: p.id, Name: p.body.Name}, policy: p.policy, size: len(p.body.Statement),
		}), nil
	})
	if err != nil {
		return 0, err
	}
	return weight, s.checkWeight(weight)
}

// takeName is the write that makes a name a policy's, or Conflict when it is another's.
func (s *Service) takeName(ctx context.Context, id copse.PolicyStoreID, policy copse.PolicyID, name string) ([]storage.Write, error) {
	_, err := s.backend.Get(ctx, storage.PolicyStore(id), nameKey(name))
	if err == nil {
		return nil, &copse.Error{Kind: copse.Conflict, Resource: copse.ResourcePolicy, ID: namePrefix + name,
			Detail: fmt.Sprintf("another policy of this policy store has the name %q", name)}
	}
	if !errors.Is(err, storage.ErrNotFound) {
		return nil, err
	}
	return newNameWrites(name, policy)
}

func newNameWrites(name string, policy copse.PolicyID) ([]storage.Write, error) {
	encoded, err := encode(&nameBody{V: bodyVersion, Policy: policy})
	if err != nil {
		return nil, err
	}
	return []storage.Write{{Key: nameKey(name), Body: encoded}}, nil
}

// stored reads one policy by id, or by "name/<name>".
func (s *Service) stored(ctx context.Context, id copse.PolicyStoreID, policy copse.PolicyID) (storedPolicy, error) {
	absent := copse.NotFoundError(copse.ResourcePolicy, string(policy))
	name, named := strings.CutPrefix(string(policy), namePrefix)
	found := policy
	if named {
		item, err := s.backend.Get(ctx, storage.PolicyStore(id), nameKey(name))
		if errors.Is(err, storage.ErrNotFound) {
			return storedPolicy{}, absent
		}
		if err != nil {
			return storedPolicy{}, err
		}
		var body nameBody
		if err := decode(item, &body); err != nil {
			return storedPolicy{}, err
		}
		found = body.Policy
	}
	item, err := s.backend.Get(ctx, storage.PolicyStore(id), policyKey(found))
	if errors.Is(err, storage.ErrNotFound) {
		return storedPolicy{}, absent
	}
	if err != nil {
		return storedPolicy{}, err
	}
	p := storedPolicy{id: found, version: item.Version}
	return p, decode(item, &p.body)
}

// GetPolicy reads a policy by id, or by "name/<name>". Needs Read.
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
			return p.body.policy(p.id), nil
		}
	}
	return Policy{}, fromStorage(storage.ErrConflict, id)
}

// UpdatePolicy changes action scope, conditions, description and name, but neither effect nor
// principal nor resource, as AVP. Needs Write.
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
	_, err = s.apply(ctx, operation{"UpdatePolicy", c.KeyID, id, r}, func(ctx context.Context, k *desk) (change, error) {
		l, err := s.current(ctx, k, id, r.incarnation)
		if err != nil {
			return change{}, err
		}
		former, err := s.stored(ctx, id, policy)
		if err != nil {
			return change{}, err
		}
		p := posting{id: former.id, former: &former, body: former.body, policy: parsed}
		p.body.UpdatedAt = now()
		if parsed != nil {
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
		updated = p.body.policy(p.id)
		return s.post(ctx, id, l, p)
	})
	if err != nil {
		return Policy{}, err
	}
	return updated, nil
}

// check holds an update against the rules that need no stored policy, and parses its statement.
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

func (s *Service) rename(ctx context.Context, id copse.PolicyStoreID, former storedPolicy, name string) (writes []storage.Write, err error) {
	if name != "" {
		if writes, err = s.takeName(ctx, id, former.id, name); err != nil {
			return nil, err
		}
	}
	if former.body.Name != "" {
		writes = append(writes, storage.Write{Key: nameKey(former.body.Name), Expect: storage.Any()})
	}
	return writes, nil
}

// DeletePolicy succeeds when the policy is absent. Needs Write.
func (s *Service) DeletePolicy(ctx context.Context, c access.Caller, id copse.PolicyStoreID, policy copse.PolicyID) error {
	if err := policy.Validate(); err != nil {
		return err
	}
	r, err := s.admit(ctx, c, access.Write, "DeletePolicy", id)
	if err != nil {
		return err
	}
	_, err = s.apply(ctx, operation{"DeletePolicy", c.KeyID, id, r}, func(ctx context.Context, k *desk) (change, error) {
		l, err := s.current(ctx, k, id, r.incarnation)
		if err != nil {
			return change{}, err
		}
		former, err := s.stored(ctx, id, policy)
		if err != nil && copse.KindOf(err) == copse.NotFound {
			return change{base: l}, nil
		}
		if err != nil {
			return change{}, err
		}
		writes := []storage.Write{{Key: policyKey(former.id), Expect: storage.Version(former.version)}}
		if former.body.Name != "" {
			writes = append(writes, storage.Write{Key: nameKey(former.body.Name), Expect: storage.Any()})
		}
		return change{base: l, writes: writes, settle: func(l *ledger, _ uint64) {
			scope := newScopeKey(former.body.Resource.uid())
			if l.scopes[scope] -= len(former.body.Statement); l.scopes[scope] <= 0 {
				delete(l.scopes, scope)
			}
		}}, nil
	})
	return err
}

// ListPolicies returns up to limit policies with ids after a given one, and whether there are more.
// Needs Read.
func (s *Service) ListPolicies(ctx context.Context, c access.Caller, id copse.PolicyStoreID, after copse.PolicyID, limit int) ([]Policy, bool, error) {
	if _, err := s.admit(ctx, c, access.Read, "ListPolicies", id); err != nil {
		return nil, false, err
	}
	limit = pageSize(limit)
	items, err := s.backend.Scan(ctx, storage.PolicyStore(id), kindPolicy, string(after), limit+1)
	if err != nil {
		return nil, false, fromStorage(err, id)
	}
	more := len(items) > limit
	items = items[:min(len(items), limit)]
	out := make([]Policy, len(items))
	for i, item := range items {
		var body policyBody
		if err := decode(item, &body); err != nil {
			return nil, false, err
		}
		out[i] = body.policy(copse.PolicyID(item.ID))
	}
	return out, more, nil
}
