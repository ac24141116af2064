package policystore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage"
)

// AliasPrefix is how an alias is told from a policy store's id. Inside copse aliases have no prefix.
const AliasPrefix = "policy-store-alias/"

// aliasReserve is how long a deleted alias keeps its name from being used for something else, so that
// callers who still have it reach nothing rather than a stranger. As AVP.
const aliasReserve = 24 * time.Hour

// maxAliasName with the prefix makes AVP's 150.
const maxAliasName = 150 - len(AliasPrefix)

// Alias is another name for a policy store, unique in the whole installation.
type Alias struct {
	Name        string
	PolicyStore copse.PolicyStoreID
	CreatedAt   time.Time
	// DeletedAt is set while the name is still reserved: the alias is shown, and names nothing.
	DeletedAt time.Time
}

// alias is an alias as it is stored. The incarnation makes sure that it never names a policy store other
// than the one it was made for.
type alias struct {
	aliasBody
	name    string
	version uint64
}

// alias shows a stored alias.
func (a *alias) alias() Alias {
	return Alias{Name: a.name, PolicyStore: a.PolicyStore, CreatedAt: a.CreatedAt, DeletedAt: a.DeletedAt}
}

// free reports whether the name may be another's: it was deleted, and its reserve is over.
func (a *alias) free(at time.Time) bool {
	return !a.DeletedAt.IsZero() && at.Sub(a.DeletedAt) >= aliasReserve
}

// validAliasName checks a name without its prefix.
func validAliasName(name string) error {
	if copse.PolicyStoreID(name).Validate() != nil || len(name) > maxAliasName {
		return invalid(copse.ResourceAlias, "the alias is not valid", copse.Field{Path: "aliasName",
			Message: fmt.Sprintf("after %s come 1 to %d letters, digits, - / and _", AliasPrefix, maxAliasName)})
	}
	return nil
}

// noAlias is the one answer for a name that leads to nothing for whoever asks.
func noAlias(name string) error { return copse.NotFoundError(copse.ResourceAlias, AliasPrefix+name) }

// loadAlias reads past the cache, which is filled by it. NotFound (POLICY_STORE_ALIAS) when there is no item.
func (s *Service) loadAlias(ctx context.Context, name string) (alias, error) {
	item, err := s.backend.Get(ctx, storage.Directory(), aliasKey(name))
	if errors.Is(err, storage.ErrNotFound) {
		return alias{}, noAlias(name)
	}
	if err != nil {
		return alias{}, err
	}
	return decodeAlias(item)
}

// decodeAlias reads an item of the directory; the name is its id.
func decodeAlias(item storage.Item) (alias, error) {
	a := alias{name: item.ID, version: item.Version}
	return a, decode(item, &a.aliasBody)
}

// Resolve finds the policy store that an alias names, for a caller whose key must cover it with the verb.
// An alias that is absent, was deleted, or is of a policy store that is gone or not covered has one
// answer, which says nothing but the name that was asked for.
//
// The key is held against the policy store that the alias leads to, never against the alias: an alias gives
// nobody access. Unavailable while the directory can't be read.
func (s *Service) Resolve(ctx context.Context, c access.Caller, verb access.Verb, name string) (copse.PolicyStoreID, error) {
	if validAliasName(name) != nil {
		return "", noAlias(name) // it can't exist, and must not fill the cache
	}
	a, r, err := s.aliasAndRow(ctx, name)
	switch {
	case err != nil && copse.KindOf(err) == copse.NotFound:
		return "", noAlias(name)
	case err != nil:
		return "", &copse.Error{Kind: copse.Unavailable, Resource: copse.ResourceAlias, ID: AliasPrefix + name,
			Detail: "the alias can't be read now", Err: err}
	case !a.DeletedAt.IsZero(), r.incarnation != a.Incarnation, !c.May(verb, a.PolicyStore, r.tenant):
		return "", noAlias(name)
	}
	return a.PolicyStore, nil
}

// aliasAndRow reads both from the caches, which are invalidated before a change is acknowledged.
func (s *Service) aliasAndRow(ctx context.Context, name string) (alias, row, error) {
	a, err := s.aliases.Get(ctx, name)
	if err != nil {
		return alias{}, row{}, err
	}
	r, err := s.rows.Get(ctx, a.PolicyStore)
	return a, r, err
}

// CreateAlias gives a policy store one more name. The same alias of the same policy store is answered
// again; Conflict while the name is another's or still reserved, QuotaExceeded beyond the plan's number.
// Names are one space for all tenants: it needs Admin everywhere.
func (s *Service) CreateAlias(ctx context.Context, c access.Caller, name string, id copse.PolicyStoreID) (Alias, error) {
	if !c.MayEverywhere(access.Admin) {
		return Alias{}, denied("create aliases")
	}
	if err := validAliasName(name); err != nil {
		return Alias{}, err
	}
	if _, err := s.admit(ctx, c, access.Admin, "CreatePolicyStoreAlias", id); err != nil {
		return Alias{}, err
	}
	var made Alias
	err := s.changeRow(ctx, c, "CreatePolicyStoreAlias", id, func(ctx context.Context, body *rowBody) ([]storage.Write, error) {
		// What has the name: nothing, this policy store, or another, or what had it and keeps it reserved.
		at, expect := now(), storage.Absent()
		former, err := s.loadAlias(ctx, name)
		switch {
		case err != nil && copse.KindOf(err) != copse.NotFound:
			return nil, err
		case err != nil:
		// Asked again: the same answer, and nothing is committed.
		case former.PolicyStore == id && former.Incarnation == body.Incarnation && former.DeletedAt.IsZero():
			made = former.alias()
			return nil, nil
		case !former.free(at):
			return nil, taken(&former)
		default:
			expect = storage.Version(former.version)
		}
		// Before the commit, so that history under this name begins with this policy store.
		if err := s.forgetAlias(ctx, name); err != nil {
			return nil, err
		}
		// Past the cache of rows: the limit is of the plan that the row names in this commit.
		quotas, err := s.plan(ctx, row{plan: body.Plan})
		if err != nil {
			return nil, err
		}
		// Names that are free again don't count against the plan any more.
		if body.Aliases, err = s.keptAliases(ctx, id, body, at); err != nil {
			return nil, err
		}
		if have := len(body.Aliases); have >= quotas.Quotas.Aliases {
			return nil, s.metrics.refused(quota(copse.ResourceAlias, "aliases, deleted ones whose names are still reserved included,", have+1, quotas.Quotas.Aliases))
		}
		body.Aliases = append(body.Aliases, name)
		slices.Sort(body.Aliases)
		b := aliasBody{V: bodyVersion, PolicyStore: id, Incarnation: body.Incarnation, CreatedAt: at}
		made = (&alias{aliasBody: b, name: name}).alias()
		encoded, err := encode(&b)
		return []storage.Write{{Key: aliasKey(name), Body: encoded, Expect: expect}}, err
	})
	if err != nil {
		return Alias{}, err
	}
	return made, nil
}

// taken is the Conflict over a name, with the time from which it is free where it is only reserved.
func taken(a *alias) error {
	e := &copse.Error{Kind: copse.Conflict, Resource: copse.ResourceAlias, ID: AliasPrefix + a.name,
		Detail: fmt.Sprintf("the alias %q names another policy store", AliasPrefix+a.name)}
	if !a.DeletedAt.IsZero() {
		e.Detail = fmt.Sprintf("the alias %q was deleted; its name is reserved until %s, or until it is deleted with HardDelete",
			AliasPrefix+a.name, a.DeletedAt.Add(aliasReserve).Format(time.RFC3339))
	}
	return e
}

// keptAliases is a policy store's list without the names that are free again. What history says of
// those is forgotten.
func (s *Service) keptAliases(ctx context.Context, id copse.PolicyStoreID, body *rowBody, at time.Time) ([]string, error) {
	kept := make([]string, 0, len(body.Aliases)+1)
	for _, name := range body.Aliases {
		a, err := s.loadAlias(ctx, name)
		if err != nil && copse.KindOf(err) != copse.NotFound {
			return nil, err
		}
		// Still its own, live or reserved.
		if err == nil && a.PolicyStore == id && !a.free(at) {
			kept = append(kept, name)
			continue
		}
		if err == nil && a.PolicyStore != id {
			continue // whoever took the name has forgotten what was before
		}
		if err := s.forgetAlias(ctx, name); err != nil {
			return nil, err
		}
	}
	return kept, nil
}

// forgetAlias removes what history says of a name up to now. It comes before the name is used anew, so
// that nothing of a former policy store is left under it.
func (s *Service) forgetAlias(ctx context.Context, name string) error {
	head, err := s.backend.Head(ctx, storage.Directory())
	if err != nil {
		return err
	}
	return s.backend.Forget(ctx, storage.Directory(), aliasKey(name), head.Revision)
}

// DeleteAlias takes a name from a policy store, in force before it returns. Unless hard, the name stays
// reserved for a day. Deleting what is absent succeeds; InvalidState while the policy store is protected
// from deletion. Needs Admin everywhere.
func (s *Service) DeleteAlias(ctx context.Context, c access.Caller, name string, hard bool) error {
	if !c.MayEverywhere(access.Admin) {
		return denied("delete aliases")
	}
	if err := validAliasName(name); err != nil {
		return err
	}
	a, err := s.loadAlias(ctx, name)
	if err != nil && copse.KindOf(err) == copse.NotFound {
		return nil
	}
	if err != nil {
		return fromStorage(err, "")
	}
	// The row that is changed is the one that was found now; compute looks again whether the name is still its.
	owner := a.PolicyStore
	err = s.changeRow(ctx, c, "DeletePolicyStoreAlias", owner, func(ctx context.Context, body *rowBody) ([]storage.Write, error) {
		a, err := s.loadAlias(ctx, name)
		if err != nil && copse.KindOf(err) == copse.NotFound {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if a.PolicyStore != owner {
			return nil, nil // the name was freed, and taken by another, since it was looked up
		}
		// Whoever comes by the alias would be cut off as by the policy store's deletion.
		if body.Protected {
			return nil, protected(a.PolicyStore)
		}
		write := storage.Write{Key: aliasKey(name), Expect: storage.Version(a.version)}
		if !hard {
			if !a.DeletedAt.IsZero() {
				return nil, nil
			}
			// The item stays, to keep the name; from this commit on it leads nowhere.
			a.DeletedAt = now()
			write.Body, err = encode(&a.aliasBody)
		}
		return []storage.Write{write}, err
	})
	if err != nil && copse.KindOf(err) == copse.NotFound {
		return nil // it went with its policy store
	}
	if err != nil || !hard {
		return err
	}
	return s.strikeAlias(ctx, c, name, owner)
}

// strikeAlias takes a name that is gone from its policy store's list, once history has forgotten it: as
// long as it is listed, the policy store's erasure would see to that.
func (s *Service) strikeAlias(ctx context.Context, c access.Caller, name string, id copse.PolicyStoreID) error {
	err := s.changeRow(ctx, c, "DeletePolicyStoreAlias", id, func(ctx context.Context, body *rowBody) (_ []storage.Write, err error) {
		if slices.Contains(body.Aliases, name) {
			body.Aliases, err = s.keptAliases(ctx, id, body, now())
		}
		return nil, err
	})
	if err != nil && copse.KindOf(err) == copse.NotFound {
		return nil
	}
	return err
}

// GetAlias needs Read on the policy store. NotFound also when the key does not cover it.
// One that is reserved is shown, with the time of its deletion.
func (s *Service) GetAlias(ctx context.Context, c access.Caller, name string) (Alias, error) {
	if err := validAliasName(name); err != nil {
		return Alias{}, err
	}
	a, r, err := s.aliasAndRow(ctx, name)
	if err != nil && copse.KindOf(err) == copse.NotFound {
		return Alias{}, noAlias(name)
	}
	if err != nil {
		return Alias{}, fromStorage(err, "")
	}
	if a.free(now()) || r.incarnation != a.Incarnation || !c.May(access.Read, a.PolicyStore, r.tenant) {
		return Alias{}, noAlias(name)
	}
	return a.alias(), nil
}

// ListAliases returns up to limit aliases with names after a given one, and the name after which to go
// on, empty at the end: of one policy store, or of all that the caller may Read. A policy store that the
// caller's key does not cover has none. A page may be short.
func (s *Service) ListAliases(ctx context.Context, c access.Caller, of copse.PolicyStoreID, after string, limit int) ([]Alias, string, error) {
	limit = pageSize(limit)
	if of == "" && c.Scope.All {
		return s.listAllAliases(ctx, c, after, limit)
	}
	if of == "" {
		// A key of one policy store, or of one tenant, must not walk over everybody's aliases.
		own, err := s.ownPolicyStore(ctx, c)
		if err != nil || own == "" {
			return nil, "", err
		}
		of = own
	}
	r, err := s.find(ctx, c, access.Read, of)
	if err != nil && copse.KindOf(err) == copse.NotFound {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	var out []Alias
	for _, name := range r.aliases {
		if name <= after {
			continue
		}
		if len(out) == limit {
			return out, out[limit-1].Name, nil
		}
		a, err := s.GetAlias(ctx, c, name)
		if err != nil && copse.KindOf(err) == copse.NotFound {
			continue
		}
		if err != nil {
			return nil, "", err
		}
		if a.PolicyStore == of {
			out = append(out, a)
		}
	}
	return out, "", nil
}

// listAllAliases is for keys that cover all. Names that are free again are left out, and their pages are short.
func (s *Service) listAllAliases(ctx context.Context, c access.Caller, after string, limit int) ([]Alias, string, error) {
	if !c.MayEverywhere(access.Read) {
		return nil, "", nil
	}
	items, err := s.backend.Scan(ctx, storage.Directory(), kindAlias, after, limit+1)
	if err != nil {
		return nil, "", fromStorage(err, "")
	}
	next := ""
	if len(items) > limit {
		items = items[:limit]
		next = items[limit-1].ID
	}
	out := make([]Alias, 0, len(items))
	for _, item := range items {
		a, err := decodeAlias(item)
		if err != nil {
			return nil, "", err
		}
		if !a.free(now()) {
			out = append(out, a.alias())
		}
	}
	return out, next, nil
}

// withAliases adds the removal of a policy store's aliases, those with a reserved name included: a name
// is of a policy store and goes with it.
// The policy store's row is written in the same commit and expected as it was read, so that no alias can be
// added unseen meanwhile. u.Writes is never changed in place: it is the caller's.
func (s *Service) withAliases(ctx context.Context, u Unbind, id copse.PolicyStoreID, r row) (Unbind, error) {
	for _, name := range r.aliases {
		a, err := s.loadAlias(ctx, name)
		switch {
		case err != nil && copse.KindOf(err) == copse.NotFound:
			// Its history may still be there; writing the key has it forgotten.
			u.Writes = append(slices.Clone(u.Writes), storage.Write{Key: aliasKey(name), Expect: storage.Absent()})
		case err != nil:
			return Unbind{}, err
		case a.PolicyStore == id:
			u.Writes = append(slices.Clone(u.Writes), storage.Write{Key: aliasKey(name), Expect: storage.Version(a.version)})
		}
	}
	return u, nil
}

// CutAlias tells whether what stands where a policy store's id is expected is an alias.
func CutAlias(id string) (name string, ok bool) { return strings.CutPrefix(id, AliasPrefix) }
