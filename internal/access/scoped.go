package access

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// Kinds of the directory's rows that say a tenant or a policy store exists, for the packages that own
// them. Keys need them too: a key of what is not there yet would open whatever comes under that name.
const (
	TenantKind      storage.Kind = "tenant"       // id = tenant id
	PolicyStoreKind storage.Kind = "policy-store" // id = policy store id
)

// ofKind has an item for each tenant and policy store that keys were made for, with the ids of those
// there are. It is written with every such key, so whoever removes them all in the commit that removes
// the tenant is told of a key he did not see, and needs no walk over everybody's keys. It stays when
// the last key goes, so that what history says of it is found and forgotten with the tenant.
const ofKind storage.Kind = "access-keys-of"

// ofBody is versioned and read strictly: a list that was half understood could leave a key behind.
type ofBody struct {
	V    int      `json:"v"`
	Keys []string `json:"keys"`
}

const ofVersion = 1

// row is the directory row that keys of the scope stand and fall with; false for all.
func (s Scope) row() (storage.Key, bool) {
	switch {
	case s.Tenant != "":
		return storage.Key{Kind: TenantKind, ID: string(s.Tenant)}, true
	case s.PolicyStore != "":
		return storage.Key{Kind: PolicyStoreKind, ID: string(s.PolicyStore)}, true
	}
	return storage.Key{}, false
}

// notFound is for scopes that have a row.
func (s Scope) notFound() error {
	if s.Tenant != "" {
		return copse.NotFoundError(copse.ResourceTenant, string(s.Tenant))
	}
	return copse.NotFoundError(copse.ResourcePolicyStore, string(s.PolicyStore))
}

// keysOf is what is stored of a row's keys.
// expect holds a commit to the list as it was read, absent included.
type keysOf struct {
	key    storage.Key
	ids    []string
	expect storage.Expectation
	exists bool
}

// readKeysOf is an empty list for a row that no key was ever made for.
func readKeysOf(ctx context.Context, backend storage.Backend, row storage.Key) (keysOf, error) {
	of := keysOf{key: storage.Key{Kind: ofKind, ID: string(row.Kind) + "/" + row.ID}, expect: storage.Absent()}
	item, err := backend.Get(ctx, storage.Directory(), of.key)
	if errors.Is(err, storage.ErrNotFound) {
		return of, nil
	}
	if err != nil {
		return keysOf{}, storageError(err)
	}
	var b ofBody
	if err := json.Unmarshal(item.Body, &b, json.RejectUnknownMembers(true)); err != nil {
		return keysOf{}, storageError(fmt.Errorf("%s %q: %w", item.Kind, item.ID, err))
	}
	if b.V != ofVersion {
		return keysOf{}, storageError(fmt.Errorf("%s %q: body version %d, this copse knows %d", item.Kind, item.ID, b.V, ofVersion))
	}
	of.ids, of.expect, of.exists = b.Keys, storage.Version(item.Version), true
	return of, nil
}

// write replaces the list, if it is still as it was read.
func (of *keysOf) write(ids []string) (storage.Write, error) {
	body, err := json.Marshal(ofBody{V: ofVersion, Keys: ids})
	if err != nil {
		return storage.Write{}, fmt.Errorf("access: %w", err)
	}
	return storage.Write{Key: of.key, Body: body, Expect: of.expect}, nil
}

// IsKeysOf reports whether an item is the list of a tenant's or a policy store's access keys.
func IsKeysOf(kind, id string, tenant copse.TenantID, policyStore copse.PolicyStoreID) bool {
	return storage.Kind(kind) == ofKind && (id == string(TenantKind)+"/"+string(tenant) || id == string(PolicyStoreKind)+"/"+string(policyStore))
}

// admit is what goes with the making of a key: the tenant or policy store it is for must be there in the
// moment of the commit, and have room for one more.
func (s *Service) admit(ctx context.Context, k Key) ([]storage.Requirement, []storage.Write, error) {
	row, ok := k.Scope.row()
	if !ok {
		return nil, nil, nil
	}
	item, err := s.backend.Get(ctx, storage.Directory(), row)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil, k.Scope.notFound()
	}
	if err != nil {
		return nil, nil, storageError(err)
	}
	// Written with the key, so of two keys made at the same time one conflicts, and the quota holds.
	of, err := readKeysOf(ctx, s.backend, row)
	if err != nil {
		return nil, nil, err
	}
	if len(of.ids) >= copse.MaxKeysPerScope {
		return nil, nil, &copse.Error{Kind: copse.QuotaExceeded, Resource: copse.ResourceAccessKey,
			Detail: fmt.Sprintf("there are %d access keys of %s %q, at most %d are allowed; revoke one first", len(of.ids), row.Kind, row.ID, copse.MaxKeysPerScope)}
	}
	write, err := of.write(append(slices.Clone(of.ids), k.ID))
	return []storage.Requirement{{Key: row, Expect: storage.Version(item.Version)}}, []storage.Write{write}, err
}

// dismiss is what goes with the removal of a key.
// Nothing for a key that covers all, or is on no list.
func (s *Service) dismiss(ctx context.Context, item storage.Item) ([]storage.Write, error) {
	k, _, err := parseStored(item)
	row, ok := k.Scope.row()
	if err != nil || !ok {
		return nil, nil // a key that can't be read must go all the same
	}
	of, err := readKeysOf(ctx, s.backend, row)
	if err != nil && copse.KindOf(err) == copse.Internal {
		return nil, nil // and so must one whose list can't be read; `copse check` names the list
	}
	if err != nil || !slices.Contains(of.ids, k.ID) {
		return nil, err
	}
	write, err := of.write(slices.DeleteFunc(of.ids, func(id string) bool { return id == k.ID }))
	return []storage.Write{write}, err
}

// RemoveKeysOf is what removes all keys of exactly these scopes, for the commit that removes what they
// are of: a key of a tenant that is gone must not open a later tenant of the same name. The commit
// conflicts when a key was made or revoked since. History of everything written must be forgotten.
func RemoveKeysOf(ctx context.Context, backend storage.Backend, scopes ...Scope) (require []storage.Requirement, writes []storage.Write, err error) {
	for _, scope := range scopes {
		row, ok := scope.row()
		if !ok {
			continue
		}
		of, err := readKeysOf(ctx, backend, row)
		if err != nil {
			return nil, nil, err
		}
		if !of.exists {
			// No key was ever made for it, and none may be made before the commit.
			require = append(require, storage.Requirement{Key: of.key, Expect: of.expect})
			continue
		}
		// The list's version stands for the keys': none can be made or revoked without writing it.
		writes = append(writes, storage.Write{Key: of.key, Expect: of.expect})
		for _, id := range of.ids {
			writes = append(writes, storage.Write{Key: storage.Key{Kind: keyKind, ID: id}, Expect: storage.Any()},
				storage.Write{Key: useKey(id), Expect: storage.Any()})
		}
	}
	return require, writes, nil
}
