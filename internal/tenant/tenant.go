package tenant

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage"
)

// Tenant describes a tenant.
// A tenant has one policy store for as long as it lives; what changes is its state.
type Tenant struct {
	ID            copse.TenantID
	State         copse.TenantState
	PolicyStoreID copse.PolicyStoreID
	CreatedAt     time.Time
	UpdatedAt     time.Time
}

// NewTenant asks for a tenant with a policy store of its own.
type NewTenant struct {
	ID          copse.TenantID
	Description string
	Settings    *copse.Settings // nil: STRICT with requests checked when there is a schema, else OFF
	Schema      *policystore.SchemaText
	Templates   []policystore.PolicyText
	Policies    []policystore.PolicyText
	// PolicyStoreID binds a policy store of the operator's own, as it is, instead of making one: nothing
	// of the above but ID may then be set.
	PolicyStoreID copse.PolicyStoreID
}

// Create onboards a tenant: Conflict when it exists. Needs Admin everywhere, as all methods that
// change the directory.
// Invalid for an id that can't be one, and for what is wrong with the contents; after any error the tenant is
// not there, unless the outcome of the commit could not be known.
func (s *Service) Create(ctx context.Context, c access.Caller, in NewTenant) (Tenant, error) {
	if err := requireAdmin(c); err != nil {
		return Tenant{}, err
	}
	if err := in.ID.Validate(); err != nil {
		return Tenant{}, invalidTenant("tenant", err)
	}
	if in.PolicyStoreID != "" {
		return s.bindExisting(ctx, c, in)
	}
	settings := copse.Settings{Validation: copse.ValidationOff}
	if in.Schema != nil {
		settings = copse.Settings{Validation: copse.ValidationStrict, CheckRequests: true}
	}
	// What was asked for stands, also STRICT without a schema: then nothing can be added before there is one.
	if in.Settings != nil {
		settings = *in.Settings
	}
	// The commit decides; asking first only spares the making and unmaking of a policy store.
	if _, err := s.read(ctx, in.ID); err == nil {
		return Tenant{}, exists(in.ID, nil)
	}
	var body tenantBody
	var bindErr error
	created, err := s.policyStores.Create(ctx, c, policystore.NewPolicyStore{
		Tenant: in.ID, Settings: settings, Description: in.Description, Schema: in.Schema, Templates: in.Templates, Policies: in.Policies,
		// In the commit that makes the policy store's row: no moment has the one without the other.
		Bind: func(p policystore.PolicyStore) []storage.Write {
			body = newBody(p, p.CreatedAt)
			var write storage.Write
			write, bindErr = bind(in.ID, p, &body)
			return []storage.Write{write}
		},
	})
	if bindErr != nil {
		return Tenant{}, bindErr
	}
	if errors.Is(err, storage.ErrConflict) {
		return Tenant{}, exists(in.ID, err)
	}
	if err != nil {
		return Tenant{}, err
	}
	body.PolicyStore = created.ID
	return body.tenant(in.ID), nil
}

// newBody is a tenant that begins active, with the incarnation of its policy store: the tenant's life is that.
func newBody(p policystore.PolicyStore, at time.Time) tenantBody {
	return tenantBody{
		V: bodyVersion, State: copse.TenantActive, PolicyStore: p.ID, Incarnation: p.Incarnation,
		CreatedAt: at, UpdatedAt: at,
	}
}

// bindExisting makes a tenant of a policy store that was the operator's own. Both rows say so in one
// commit: a policy store that another tenant has, or gets in the same moment, is a Conflict.
func (s *Service) bindExisting(ctx context.Context, c access.Caller, in NewTenant) (Tenant, error) {
	if in.Description != "" || in.Settings != nil || in.Schema != nil || len(in.Templates)+len(in.Policies) > 0 {
		return Tenant{}, &copse.Error{Kind: copse.Invalid, Resource: copse.ResourceTenant, Detail: "a policy store is bound as it is",
			Fields: []copse.Field{{Path: "policyStoreId", Message: "give either policyStoreId, or description, settings, schema, templates and policies for a new policy store"}}}
	}
	if _, err := s.read(ctx, in.ID); err == nil {
		return Tenant{}, exists(in.ID, nil)
	}
	var body tenantBody
	err := s.policyStores.Bind(ctx, c, in.PolicyStoreID, in.ID, func(p policystore.PolicyStore) ([]storage.Write, error) {
		body = newBody(p, now())
		write, err := bind(in.ID, p, &body)
		return []storage.Write{write}, err
	})
	if errors.Is(err, storage.ErrConflict) {
		return Tenant{}, exists(in.ID, err)
	}
	if err != nil {
		return Tenant{}, err
	}
	return body.tenant(in.ID), nil
}

// bind is the row that makes a policy store a tenant's. Only a policy store made for the tenant may be
// bound to it: two tenants on one policy store would decide by each other's policies.
// The row must be absent, so of two that make a tenant at once one gets a conflict.
func bind(id copse.TenantID, p policystore.PolicyStore, body *tenantBody) (storage.Write, error) {
	if p.Tenant != id {
		return storage.Write{}, &copse.Error{Kind: copse.Conflict, Resource: copse.ResourcePolicyStore, ID: string(p.ID),
			Detail: fmt.Sprintf("the policy store belongs to %q and can't be tenant %q's as well", p.Tenant, id)}
	}
	encoded, err := encode(body)
	return storage.Write{Key: tenantKey(id), Body: encoded, Expect: storage.Absent()}, err
}

// exists is a Conflict; cause may be nil. Who may create tenants may know which there are.
func exists(id copse.TenantID, cause error) error {
	return &copse.Error{Kind: copse.Conflict, Resource: copse.ResourceTenant, ID: string(id), Err: cause,
		Detail: fmt.Sprintf("tenant %q exists already", id)}
}

// invalidTenant puts a finding about an id where it was given.
func invalidTenant(path string, err error) error {
	return &copse.Error{Kind: copse.Invalid, Resource: copse.ResourceTenant, Detail: "the tenant id is not valid",
		Fields: []copse.Field{{Path: path, Message: err.Error()}}}
}

// row is a tenant as it is stored.
type row struct {
	tenantBody
	version uint64
}

// read reads a tenant's row past the cache. A malformed id is absent like any other.
// Changes and administration read here: what they compute from must not be a cache's.
func (s *Service) read(ctx context.Context, id copse.TenantID) (row, error) {
	item, err := s.backend.Get(ctx, storage.Directory(), tenantKey(id))
	if err != nil {
		return row{}, fromStorage(err, copse.ResourceTenant, string(id))
	}
	r := row{version: item.Version}
	return r, decode(item, &r.tenantBody)
}

// Get needs Admin everywhere, or Read on the tenant's policy store.
// NotFound for every tenant that the key does not cover.
func (s *Service) Get(ctx context.Context, c access.Caller, id copse.TenantID) (Tenant, error) {
	r, err := s.read(ctx, id)
	if err != nil {
		return Tenant{}, err
	}
	if !mayRead(c, id, r.PolicyStore) {
		return Tenant{}, access.NotCovered(copse.ResourceTenant, string(id))
	}
	return r.tenant(id), nil
}

// mayRead is the access check for one tenant. An administrator needs no Read.
func mayRead(c access.Caller, id copse.TenantID, policyStore copse.PolicyStoreID) bool {
	return c.MayEverywhere(access.Admin) || c.May(access.Read, policyStore, id)
}

// maxPage bounds what one call of a List method reads.
const maxPage = 1000

// pageSize makes a limit one that a page can have: at least one, at most maxPage.
func pageSize(limit int) int { return min(max(limit, 1), maxPage) }

// List returns up to limit tenants with ids after a given one that the caller may see, and whether
// there are more.
// In order of id. For a key that may see none, none and no error.
func (s *Service) List(ctx context.Context, c access.Caller, after copse.TenantID, limit int) ([]Tenant, bool, error) {
	if !c.Scope.All {
		return s.listOwn(ctx, c, after)
	}
	if !c.MayEverywhere(access.Admin) && !c.MayEverywhere(access.Read) {
		return nil, false, nil
	}
	limit = pageSize(limit)
	items, err := s.backend.Scan(ctx, storage.Directory(), kindTenant, string(after), limit+1)
	if err != nil {
		return nil, false, fromStorage(err, copse.ResourceTenant, "")
	}
	more := len(items) > limit
	items = items[:min(len(items), limit)]
	out := make([]Tenant, len(items))
	for i, item := range items {
		var body tenantBody
		if err := decode(item, &body); err != nil {
			return nil, false, err
		}
		out[i] = body.tenant(copse.TenantID(item.ID))
	}
	return out, more, nil
}

// listOwn is List for a key of one tenant or one policy store, which never sees a second tenant.
func (s *Service) listOwn(ctx context.Context, c access.Caller, after copse.TenantID) ([]Tenant, bool, error) {
	id := c.Scope.Tenant
	if id == "" && c.Scope.PolicyStore != "" {
		owner, _, err := s.policyStores.Owner(ctx, c.Scope.PolicyStore)
		if err != nil && copse.KindOf(err) != copse.NotFound {
			return nil, false, err
		}
		id = owner
	}
	if id == "" || id <= after {
		return nil, false, nil
	}
	t, err := s.Get(ctx, c, id)
	if err != nil && copse.KindOf(err) == copse.NotFound {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	return []Tenant{t}, false, nil
}

// maxAttempts bounds how often a change is computed again because another writer was faster.
const maxAttempts = 10

// SetState suspends or resumes. Effective for every decision that starts after it returns.
// NotFound when absent; the state that it has already is no error, and no commit.
func (s *Service) SetState(ctx context.Context, c access.Caller, id copse.TenantID, state copse.TenantState) (Tenant, error) {
	if err := requireAdmin(c); err != nil {
		return Tenant{}, err
	}
	if state != copse.TenantActive && state != copse.TenantSuspended {
		return Tenant{}, &copse.Error{Kind: copse.Invalid, Resource: copse.ResourceTenant, ID: string(id),
			Detail: fmt.Sprintf("%q is not a state of a tenant: use %s or %s", state, copse.TenantActive, copse.TenantSuspended)}
	}
	// The audit log tells the two apart by their names.
	operation := "ResumeTenant"
	if state == copse.TenantSuspended {
		operation = "SuspendTenant"
	}
	for range maxAttempts {
		r, err := s.read(ctx, id)
		if err != nil || r.State == state {
			return r.tenant(id), err
		}
		// The policy store is not touched: a tenant that is resumed decides as it did before.
		r.State, r.UpdatedAt = state, now()
		body, err := encode(&r.tenantBody)
		if err != nil {
			return Tenant{}, err
		}
		err = s.commit(ctx, c, operation, nil, storage.Write{Key: tenantKey(id), Body: body, Expect: storage.Version(r.version)})
		if err == nil {
			return r.tenant(id), nil
		}
		if !errors.Is(err, storage.ErrConflict) {
			return Tenant{}, fromStorage(err, copse.ResourceTenant, string(id))
		}
	}
	return Tenant{}, fromStorage(storage.ErrConflict, copse.ResourceTenant, string(id))
}

// Delete offboards: directory row, then policy store, then the history rows that name the tenant,
// and the tenant from every issuer that listed it. NotFound when absent. Access keys and members of the tenant go
// too, and so does an issuer whose every token was of this tenant.
// InvalidState while the policy store is protected from deletion. Conflict when others were faster too often;
// then nothing was done. Left is told only of a deletion that is certain.
func (s *Service) Delete(ctx context.Context, c access.Caller, id copse.TenantID) error {
	if err := requireAdmin(c); err != nil {
		return err
	}
	for range maxAttempts {
		r, err := s.read(ctx, id)
		if err != nil && copse.KindOf(err) == copse.NotFound {
			// Perhaps by a call that could not be sure that nothing is written to the policy store any more, and said
			// so: repeated, it may say that the tenant is gone only when that is so.
			return cmp.Or(s.policyStores.AwaitDeletions(ctx), err)
		}
		if err != nil {
			return err
		}
		u, err := s.unbind(ctx, id, r)
		if err != nil {
			return err
		}
		// One commit takes the tenant's row and the policy store's, and all that u has.
		err = s.policyStores.Release(ctx, c, r.PolicyStore, u)
		if err == nil && s.left != nil {
			s.left(ctx, id, r.Incarnation)
		}
		if !errors.Is(err, storage.ErrConflict) {
			return err
		}
	}
	return fromStorage(storage.ErrConflict, copse.ResourceTenant, string(id))
}

// unbind is what must leave the directory together with the tenant's policy store. The requirement on
// the rules' marker makes it all issuers: none was added or changed since they were read.
// Issuers that may speak for all tenants list none, and are not touched.
func (s *Service) unbind(ctx context.Context, id copse.TenantID, r row) (policystore.Unbind, error) {
	version, listing, err := s.listing(ctx, id)
	if err != nil {
		return policystore.Unbind{}, err
	}
	u := policystore.Unbind{
		Require: []storage.Requirement{{Key: rulesKey, Expect: version}},
		Writes:  []storage.Write{{Key: tenantKey(id), Expect: storage.Version(r.version)}},
	}
	if s.leaving != nil {
		note, err := s.leaving(id, r.Incarnation)
		if err != nil {
			return policystore.Unbind{}, err
		}
		u.Writes = append(u.Writes, note)
	}
	// An issuer whose fixed tenant this is has nobody left to speak for: its row goes.
	for _, issuer := range listing {
		reg, err := s.readIssuer(ctx, issuer)
		if err != nil && copse.KindOf(err) == copse.NotFound {
			continue // removed since; then the requirement fails
		}
		if err != nil {
			return policystore.Unbind{}, err
		}
		// The issuer as it was read is expected: an update that comes in between is not overwritten.
		write := storage.Write{Key: issuerKey(reg.ID), Expect: storage.Version(reg.Revision)}
		if reg.FixedTenant != id {
			if write.Body, err = encode(reg.without(id)); err != nil {
				return policystore.Unbind{}, err
			}
		}
		u.Writes = append(u.Writes, write)
	}
	return u, nil
}

// listing is the issuers that list a tenant, and what must hold for there to be no others.
// It takes the lock of issuerRules, and gives it back before the commit: the expectation stands in for it.
func (s *Service) listing(ctx context.Context, id copse.TenantID) (storage.Expectation, []string, error) {
	s.issuerRules.Lock()
	defer s.issuerRules.Unlock()
	known, err := s.registry(ctx)
	if err != nil {
		return storage.Expectation{}, nil, err
	}
	return known.expect(), slices.Sorted(maps.Keys(known.tenants[id])), nil
}
