package policystore

import (
	"context"
	"fmt"
	"maps"
	"unicode/utf8"

	"errors"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage"
)

// Update changes a policy store itself: nil members stay as they are.
type Update struct {
	Validation         *copse.ValidationMode
	CheckRequests      *bool
	ForbidErrorsDeny   *bool
	Description        *string
	DeletionProtection *bool
	Plan               *string
	Logging            *LoggingUpdate
}

// Update changes settings, description, deletion protection and plan. Stored policies are not checked
// again; from its answer on, every write is held against the settings as they are then, also one that
// was under way. What holds for decisions is in the policy store's own partition and what holds for
// deletion in the directory, so an update of both can fail between them: then the settings have changed
// and the rest has not, and repeating the call ends it. Needs Admin everywhere: settings are the
// operator's.
func (s *Service) Update(ctx context.Context, c access.Caller, id copse.PolicyStoreID, u Update) (PolicyStore, error) {
	if !c.MayEverywhere(access.Admin) {
		return PolicyStore{}, denied("change policy stores")
	}
	r, err := s.find(ctx, c, access.Admin, id)
	if err != nil {
		return PolicyStore{}, err
	}
	// Not with admit: an operator must be able to lift a plan that throttles everything.
	if u.Plan == nil {
		if err := s.charge(ctx, id, r, access.Write, "UpdatePolicyStore", 1); err != nil {
			return PolicyStore{}, err
		}
	}
	// Everything that can be found wrong beforehand is, because two commits follow.
	if err := s.checkUpdate(ctx, &u); err != nil {
		return PolicyStore{}, err
	}
	// Settings first: they are held against the policy store's weight, which can refuse them.
	if err := s.updateSettings(ctx, c, id, r, &u); err != nil {
		return PolicyStore{}, err
	}
	err = s.changeRow(ctx, c, "UpdatePolicyStore", id, func(_ context.Context, body *rowBody) ([]storage.Write, error) {
		if u.DeletionProtection != nil {
			body.Protected = *u.DeletionProtection
		}
		if u.Plan != nil {
			body.Plan = *u.Plan
		}
		return nil, nil
	})
	if err != nil {
		return PolicyStore{}, err
	}
	// Read again, as the answer is of what is in force now.
	if r, err = s.find(ctx, c, access.Admin, id); err != nil {
		return PolicyStore{}, err
	}
	return s.describe(ctx, id, r)
}

// checkUpdate looks at what needs nothing stored but plans, before anything is written: a mistake in one
// member must not leave the others done.
func (s *Service) checkUpdate(ctx context.Context, u *Update) error {
	if u.Validation != nil {
		if err := validateSettings(copse.Settings{Validation: *u.Validation}); err != nil {
			return err
		}
	}
	if u.Description != nil {
		if err := validateDescription("description", *u.Description); err != nil {
			return err
		}
	}
	if u.Plan != nil {
		return s.knownPlan(ctx, "plan", *u.Plan)
	}
	return nil
}

// updateSettings also commits when nothing but the row is to change: the time of the last update is
// here. The ledger's revision keeps a policy that was validated under the former mode from being
// committed after the new one, and the other way round.
func (s *Service) updateSettings(ctx context.Context, c access.Caller, id copse.PolicyStoreID, r row, u *Update) error {
	_, err := s.apply(ctx, operation{"UpdatePolicyStore", c.Actor(), id, r}, func(ctx context.Context, k *desk) (change, error) {
		l, err := s.current(ctx, k, id, r.incarnation)
		if err != nil {
			return change{}, err
		}
		// A copy: the ledger changes when the commit was taken, not before.
		body := l.settings
		body.UpdatedAt = now()
		set(&body.Validation, u.Validation)
		set(&body.CheckRequests, u.CheckRequests)
		set(&body.ForbidErrorsDeny, u.ForbidErrorsDeny)
		set(&body.Description, u.Description)
		if u.Logging != nil {
			if body.Logging, err = u.Logging.apply(body.logging()); err != nil {
				return change{}, err
			}
		}
		// Before the commit: what would be too heavy to decide by must not be stored.
		weight, err := s.weighUnder(ctx, id, l, body.settings())
		if err != nil {
			return change{}, err
		}
		encoded, err := encode(&body)
		if err != nil {
			return change{}, err
		}
		write := storage.Write{Key: settingsKey, Body: encoded, Expect: storage.Version(l.settingsVersion)}
		return change{base: l, writes: []storage.Write{write}, settle: func(l *ledger, revision uint64) {
			l.settings, l.settingsVersion, l.weight = body, revision, weight
		}}, nil
	})
	return err
}

// set is how an update's members are taken: nil leaves what is there.
func set[T any](to *T, value *T) {
	if value != nil {
		*to = *value
	}
}

// weighUnder is the weight under other settings.
// Settings weigh, since policies are compiled for them. QuotaExceeded when it would be too much.
func (s *Service) weighUnder(ctx context.Context, id copse.PolicyStoreID, l *ledger, settings copse.Settings) (int64, error) {
	if settings == l.settings.settings() {
		return l.weight, nil
	}
	schema, err := l.schema()
	if copse.KindOf(err) == copse.InvalidState {
		schema, err = nil, nil // a schema that is broken must not keep validation from being switched off
	}
	if err != nil {
		return 0, err
	}
	weight, err := s.weigh(schema, settings, l.load(), func() ([]policySource, error) { return s.sourcesAt(ctx, id, l) })
	if err != nil {
		return 0, err
	}
	return weight, s.checkWeight(weight)
}

// Limits of tags, AVP's.
// They are counted in characters.
const (
	maxTags     = 50
	maxTagKey   = 128
	maxTagValue = 256
)

// Tags needs Read. They have no meaning to copse.
// The map is the caller's own; nil when there are none.
func (s *Service) Tags(ctx context.Context, c access.Caller, id copse.PolicyStoreID) (map[string]string, error) {
	if _, err := s.admit(ctx, c, access.Read, "ListTagsForResource", id); err != nil {
		return nil, err
	}
	body, _, err := s.storedTags(ctx, id)
	return body.Tags, fromStorage(err, id)
}

// The expectation is of the item as it was read, for the commit that writes it.
func (s *Service) storedTags(ctx context.Context, id copse.PolicyStoreID) (tagsBody, storage.Expectation, error) {
	item, err := s.backend.Get(ctx, storage.PolicyStore(id), tagsKey)
	if errors.Is(err, storage.ErrNotFound) {
		return tagsBody{V: bodyVersion}, storage.Absent(), nil
	}
	if err != nil {
		return tagsBody{}, storage.Expectation{}, err
	}
	var body tagsBody
	return body, storage.Version(item.Version), decode(item, &body)
}

// Tag adds tags, in place of those with the same key. TooManyTags beyond fifty. Needs Write.
// All of them are added or none. Invalid for one that is too long, by AVP's lengths.
func (s *Service) Tag(ctx context.Context, c access.Caller, id copse.PolicyStoreID, tags map[string]string) error {
	if err := checkTags("tags", tags); err != nil {
		return err
	}
	return s.changeTags(ctx, c, "TagResource", id, func(all map[string]string) error {
		maps.Copy(all, tags)
		return tooManyTags(id, len(all))
	})
}

// Untag removes tags by key; those that are absent are no mistake. Needs Write.
func (s *Service) Untag(ctx context.Context, c access.Caller, id copse.PolicyStoreID, keys []string) error {
	return s.changeTags(ctx, c, "UntagResource", id, func(all map[string]string) error {
		for _, key := range keys {
			delete(all, key)
		}
		return nil
	})
}

// changeTags commits what compute makes of the tags there are, nothing where that is the same. compute may be
// called again, with the tags of another revision.
func (s *Service) changeTags(ctx context.Context, c access.Caller, name string, id copse.PolicyStoreID, compute func(all map[string]string) error) error {
	r, err := s.admit(ctx, c, access.Write, name, id)
	if err != nil {
		return err
	}
	_, err = s.apply(ctx, operation{name, c.Actor(), id, r}, func(ctx context.Context, k *desk) (change, error) {
		l, err := s.current(ctx, k, id, r.incarnation)
		if err != nil {
			return change{}, err
		}
		body, expect, err := s.storedTags(ctx, id)
		if err != nil {
			return change{}, err
		}
		former := maps.Clone(body.Tags)
		if body.Tags == nil {
			body.Tags = make(map[string]string)
		}
		// No change is no commit: the revision, by which snapshots are known, stays.
		if err := compute(body.Tags); err != nil || maps.Equal(former, body.Tags) {
			return change{base: l}, err
		}
		encoded, err := encode(&body)
		if err != nil {
			return change{}, err
		}
		write := storage.Write{Key: tagsKey, Body: encoded, Expect: expect}
		return change{base: l, writes: []storage.Write{write}, settle: func(*ledger, uint64) {}}, nil
	})
	return err
}

// tooManyTags has a kind of its own, as AVP has.
func tooManyTags(id copse.PolicyStoreID, n int) error {
	if n <= maxTags {
		return nil
	}
	return &copse.Error{Kind: copse.TooManyTags, Resource: copse.ResourcePolicyStore, ID: string(id),
		Detail: fmt.Sprintf("%d tags are too many: a policy store has at most %d", n, maxTags)}
}

// checkTags holds tags against AVP's lengths, in characters.
// Invalid lists what is wrong, without the keys. The number is tooManyTags' to check.
func checkTags(path string, tags map[string]string) error {
	f := findings{}
	for key, value := range tags {
		switch n := utf8.RuneCountInString(key); {
		case !utf8.ValidString(key) || !utf8.ValidString(value):
			return notUTF8(copse.ResourcePolicyStore, path)
		case n < 1 || n > maxTagKey:
			f.add(copse.Field{Path: path, Message: fmt.Sprintf("a key has 1 to %d characters, one has %d", maxTagKey, n)})
		case utf8.RuneCountInString(value) > maxTagValue:
			f.add(copse.Field{Path: path, Message: fmt.Sprintf("a value has at most %d characters, one has %d", maxTagValue, utf8.RuneCountInString(value))})
		}
	}
	return f.err(copse.ResourcePolicyStore, "the tags are not valid")
}
