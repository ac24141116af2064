package access

import (
	"context"
	"slices"

	"github.com/copse-authz/copse/internal/storage"
)

// KeysOf lists the items of all keys that have exactly one of the scopes. What a policy store or tenant
// leaves behind is removed in the commit that removes it, so whoever commits that needs the items.
func KeysOf(ctx context.Context, backend storage.Backend, scopes ...Scope) ([]storage.Item, error) {
	const page = 1000
	var found []storage.Item
	for after := ""; ; {
		items, err := backend.Scan(ctx, storage.Directory(), keyKind, after, page)
		if err != nil {
			return nil, storageError(err)
		}
		for _, item := range items {
			after = item.ID
			k, _, err := parseStored(item)
			if err != nil {
				return nil, err
			}
			if slices.Contains(scopes, k.Scope) {
				found = append(found, item)
			}
		}
		if len(items) < page {
			return found, nil
		}
	}
}
