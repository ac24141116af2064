package tenant

import (
	"context"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage"
)

// What a PEP elsewhere reads with a key of its own: where a tenant's decisions are made, and whose tokens
// may speak for it. A key with Decide sees this of what it covers, and nothing of anybody else.

// EntryFor is Lookup for a key with Decide on the tenant's policy store; NotFound for any other tenant.
// Unavailable when that can't be known. A suspended tenant is an entry, as in Lookup.
func (s *Service) EntryFor(ctx context.Context, c access.Caller, id copse.TenantID) (copse.DirectoryEntry, error) {
	e, err := s.Lookup(ctx, id)
	if err != nil {
		return copse.DirectoryEntry{}, err
	}
	if !c.May(access.Decide, e.PolicyStoreID, id) {
		return copse.DirectoryEntry{}, copse.NotFoundError(copse.ResourceTenant, string(id))
	}
	return e, nil
}

// IssuersFor lists the issuers that may speak for tenants the key covers with Decide, in order of id. A
// key of one tenant sees them as if that were their only tenant.
// next is where to go on, empty at the end; a page may be short, as most issuers may be others'. Without Decide
// there is nothing to see, which is no error.
func (s *Service) IssuersFor(ctx context.Context, c access.Caller, after string, limit int) (page []copse.Issuer, next string, err error) {
	only, err := s.onlyTenant(ctx, c)
	if err != nil || only == "" && !c.MayEverywhere(access.Decide) {
		return nil, "", err
	}
	limit = pageSize(limit)
	items, err := s.backend.Scan(ctx, storage.Directory(), kindIssuer, after, limit+1)
	if err != nil {
		return nil, "", fromStorage(err, copse.ResourceIssuer, "")
	}
	if len(items) > limit {
		items = items[:limit]
		next = items[limit-1].ID
	}
	for _, item := range items {
		r, err := decodeIssuer(item)
		if err != nil {
			return nil, "", err
		}
		// Those that may not speak for it are left out: whose they are is not the key's to know.
		if i := r.Issuer; only == "" || narrow(&i, only) {
			page = append(page, i)
		}
	}
	return page, next, nil
}

// onlyTenant is the one that a key's scope is bounded to; empty when there is none.
func (s *Service) onlyTenant(ctx context.Context, c access.Caller) (copse.TenantID, error) {
	if c.Scope.All || c.Verbs&access.Decide == 0 {
		return "", nil
	}
	id := c.Scope.Tenant
	if id == "" && c.Scope.PolicyStore != "" {
		owner, _, err := s.policyStores.Owner(ctx, c.Scope.PolicyStore)
		if err != nil && copse.KindOf(err) != copse.NotFound {
			return "", err
		}
		id = owner
	}
	return id, nil
}

// narrow leaves of a registration what concerns one tenant, and reports whether anything does.
// It changes i, whose slices it replaces and does not write to.
func narrow(i *copse.Issuer, only copse.TenantID) bool {
	if !i.MaySpeakFor(only) || i.FixedTenant != "" && i.FixedTenant != only {
		return false
	}
	i.AllTenants, i.Tenants = false, []copse.TenantID{only}
	i.EmailDomains = nil // they say who else there is, and decide nothing
	return true
}
