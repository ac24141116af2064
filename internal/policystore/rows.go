package policystore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage"
)

// row is what the directory says of a policy store.
// It is read through a cache, so its aliases are shared and must not be changed.
type row struct {
	tenant      copse.TenantID
	incarnation copse.Incarnation
	createdAt   time.Time
	clientToken string // see rowBody
	plan        string
	protected   bool
	aliases     []string
	version     uint64
}

// loadRow is what the cache of rows reads by. That a row is absent is not remembered.
func (s *Service) loadRow(ctx context.Context, id copse.PolicyStoreID) (row, error) {
	item, err := s.backend.Get(ctx, storage.Directory(), rowKey(id))
	if errors.Is(err, storage.ErrNotFound) {
		return row{}, notFound(id)
	}
	if err != nil {
		return row{}, err
	}
	return decodeRow(item)
}

func decodeRow(item storage.Item) (row, error) {
	var body rowBody
	if err := decode(item, &body); err != nil {
		return row{}, err
	}
	return row{tenant: body.Tenant, incarnation: body.Incarnation, createdAt: body.CreatedAt,
		clientToken: body.ClientToken, plan: body.Plan, protected: body.Protected, aliases: body.Aliases, version: item.Version}, nil
}

// changeRow changes a policy store's row, and what compute wants written with it, in one commit that is
// taken only if the row is still as compute saw it. Nothing to change commits nothing.
// compute may be called several times, each time with what the row is then, and must leave nothing behind that
// a later call does not replace. NotFound when there is no such policy store. Who may is the caller's to ask.
func (s *Service) changeRow(ctx context.Context, c access.Caller, operation string, id copse.PolicyStoreID, compute func(ctx context.Context, body *rowBody) ([]storage.Write, error)) error {
	for range maxAttempts {
		item, err := s.backend.Get(ctx, storage.Directory(), rowKey(id))
		if err != nil {
			return fromStorage(err, id)
		}
		var body rowBody
		if err := decode(item, &body); err != nil {
			return err
		}
		writes, err := compute(ctx, &body)
		if err != nil {
			return fromStorage(err, id)
		}
		encoded, err := encode(&body)
		if err != nil {
			return err
		}
		commit := storage.Commit{
			Partition: storage.Directory(), Incarnation: s.directory, Actor: c.Actor(), Operation: operation, Writes: writes,
		}
		expect := storage.Version(item.Version)
		switch {
		// The row itself is among the writes, which expect its version.
		case !bytes.Equal(encoded, item.Body):
			commit.Writes = append(commit.Writes, storage.Write{Key: rowKey(id), Body: encoded, Expect: expect})
		case len(writes) == 0:
			return nil
		// Something beside the row: it depends on the row without writing it.
		default:
			commit.Require = []storage.Requirement{{Key: rowKey(id), Expect: expect}}
		}
		if _, err = s.backend.Commit(ctx, commit); !errors.Is(err, storage.ErrConflict) {
			return fromStorage(err, id)
		}
	}
	return fromStorage(storage.ErrConflict, id)
}

// find is the access check of every method that names a policy store: absent and not covered are the
// same answer.
// It charges nothing. Invalid for what can't be an id.
func (s *Service) find(ctx context.Context, c access.Caller, verb access.Verb, id copse.PolicyStoreID) (row, error) {
	if err := id.Validate(); err != nil {
		return row{}, err
	}
	r, err := s.rows.Get(ctx, id)
	if err != nil {
		return row{}, fromStorage(err, id)
	}
	if !c.May(verb, id, r.tenant) {
		return row{}, access.NotCovered(copse.ResourcePolicyStore, string(id))
	}
	return r, nil
}

// Owner tells whose a policy store is, without asking who calls: for the tenant service, which checks
// that its rows and the policy stores' own rows agree.
// NotFound when there is no such policy store. Every other error is Unavailable: a decision depends on it.
func (s *Service) Owner(ctx context.Context, id copse.PolicyStoreID) (copse.TenantID, copse.Incarnation, error) {
	r, err := s.rows.Get(ctx, id)
	if err != nil {
		return "", copse.Incarnation{}, unknowable(err, id)
	}
	return r.tenant, r.incarnation, nil
}

// summary is what describes a policy store besides its row.
// It has counts and no policies, so that many can be kept.
type summary struct {
	incarnation copse.Incarnation
	settings    settingsBody
	revision    uint64
	policies    int
	templates   int
}

// loadSummary counts what is there, without decoding policies: links whose template is being deleted make it do so, since they
// are not there any more for anybody.
func (s *Service) loadSummary(ctx context.Context, id copse.PolicyStoreID) (summary, error) {
	// One read of everything, since the counts must be of one revision.
	snapshot, err := s.backend.Load(ctx, storage.PolicyStore(id))
	if errors.Is(err, storage.ErrNotFound) {
		return summary{}, notFound(id)
	}
	if err != nil {
		return summary{}, err
	}
	sum := summary{incarnation: snapshot.Head.Incarnation, revision: snapshot.Head.Revision}
	cascading := false
	for _, item := range snapshot.Items {
		switch item.Kind {
		case kindPolicy:
			sum.policies++
		case kindTemplate:
			sum.templates++
		case kindCascade:
			cascading = true
		case kindSettings:
			if err := decode(item, &sum.settings); err != nil {
				return summary{}, err
			}
		}
	}
	if cascading { // some policies are links without a template, which are none
		c, err := decodeContents(snapshot)
		if err != nil {
			return summary{}, err
		}
		sum.policies = len(c.policies)
	}
	return sum, nil
}

// Get needs Read. NotFound also when the caller's key does not cover it.
func (s *Service) Get(ctx context.Context, c access.Caller, id copse.PolicyStoreID) (PolicyStore, error) {
	r, err := s.admit(ctx, c, access.Read, "GetPolicyStore", id)
	if err != nil {
		return PolicyStore{}, err
	}
	return s.describe(ctx, id, r)
}

// Row and summary are read apart: where they are of two lives, the answer is NotFound.
func (s *Service) describe(ctx context.Context, id copse.PolicyStoreID, r row) (PolicyStore, error) {
	sum, err := s.summaries.Get(ctx, id)
	if err != nil {
		return PolicyStore{}, fromStorage(err, id)
	}
	if sum.incarnation != r.incarnation {
		return PolicyStore{}, notFound(id)
	}
	return PolicyStore{
		ID: id, Tenant: r.tenant, Incarnation: r.incarnation, Settings: sum.settings.settings(), Logging: sum.settings.logging(),
		Description: sum.settings.Description, Plan: cmp.Or(r.plan, PlanDefault), Protected: r.protected, Encryption: sum.settings.Encryption,
		Revision: sum.revision, Policies: sum.policies, Templates: sum.templates,
		CreatedAt: r.createdAt, UpdatedAt: sum.settings.UpdatedAt,
	}, nil
}

// maxPage bounds what one call of a List method reads.
const maxPage = 1000

// pageSize makes a limit one that a page can have: at least one, at most maxPage.
func pageSize(limit int) int { return min(max(limit, 1), maxPage) }

// List returns up to limit policy stores with ids after a given one that the caller may Read, and
// whether there are more.
// In order of id. What is deleted while the page is read is left out.
func (s *Service) List(ctx context.Context, c access.Caller, after copse.PolicyStoreID, limit int) ([]PolicyStore, bool, error) {
	if !c.Scope.All {
		return s.listOwn(ctx, c, after)
	}
	// Nothing and no error: what a key may not read is not there for it.
	if !c.MayEverywhere(access.Read) {
		return nil, false, nil
	}
	limit = pageSize(limit)
	for {
		out, last, err := s.listPage(ctx, after, limit)
		// A page all of which was deleted since the scan has nothing to go on from.
		if err != nil || len(out) > 0 || last == "" {
			return out, last != "", err
		}
		after = last
	}
}

// listPage describes what one scan found. last is where the next one goes on; empty: there is nothing behind it.
func (s *Service) listPage(ctx context.Context, after copse.PolicyStoreID, limit int) (out []PolicyStore, last copse.PolicyStoreID, err error) {
	// One more than is shown, to tell whether there are more.
	items, err := s.backend.Scan(ctx, storage.Directory(), kindPolicyStore, string(after), limit+1)
	if err != nil {
		return nil, "", fromStorage(err, "")
	}
	if len(items) > limit {
		items = items[:limit]
		last = copse.PolicyStoreID(items[limit-1].ID)
	}
	out = make([]PolicyStore, 0, len(items))
	for _, item := range items {
		id := copse.PolicyStoreID(item.ID)
		r, err := decodeRow(item)
		if err != nil {
			return nil, "", err
		}
		p, err := s.describe(ctx, id, r)
		if copse.KindOf(err) == copse.NotFound && err != nil {
			continue // deleted since the scan
		}
		if err != nil {
			return nil, "", err
		}
		out = append(out, p)
	}
	return out, last, nil
}

// listOwn is List for a key that covers one policy store, by its id or by its tenant. It must not walk
// the directory: that is as long as there are tenants.
func (s *Service) listOwn(ctx context.Context, c access.Caller, after copse.PolicyStoreID) ([]PolicyStore, bool, error) {
	id, err := s.ownPolicyStore(ctx, c)
	// The one that there is was on a page before.
	if err != nil || id == "" || id <= after {
		return nil, false, err
	}
	p, err := s.Get(ctx, c, id)
	if err != nil && copse.KindOf(err) == copse.NotFound {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	return []PolicyStore{p}, false, nil
}

// ownPolicyStore is the one policy store that a key covers which does not cover all; empty: none.
// A tenant's is found through the directory of tenants; until UseDirectory there is none.
func (s *Service) ownPolicyStore(ctx context.Context, c access.Caller) (copse.PolicyStoreID, error) {
	if c.Scope.Tenant == "" || c.Scope.PolicyStore != "" {
		return c.Scope.PolicyStore, nil
	}
	directory := s.tenants.Load()
	if directory == nil {
		return "", nil
	}
	entry, err := (*directory).Lookup(ctx, c.Scope.Tenant)
	if err != nil && copse.KindOf(err) != copse.NotFound {
		return "", err
	}
	return entry.PolicyStoreID, nil
}
