package access

import (
	"context"
	"fmt"

	"github.com/copse-authz/copse/internal/storage"
)

// VerifyKeys opens every stored access key with the master key, and tells found of those that can't be
// opened. The error is a backend that can't be read.
func VerifyKeys(ctx context.Context, b storage.Backend, master MasterKey, found func(id string, err error)) (keys int, err error) {
	s := &Service{}
	if s.sealer, err = sealerFor(master, "access key secret"); err != nil {
		return 0, err
	}
	const page = 1000
	for after := ""; ; {
		items, err := b.Scan(ctx, storage.Directory(), keyKind, after, page)
		if err != nil {
			return keys, fmt.Errorf("the access keys can't be read: %w", err)
		}
		for _, item := range items {
			after = item.ID
			if _, err := s.open(item); err != nil {
				found(item.ID, err)
			}
			keys++
		}
		if len(items) < page {
			return keys, nil
		}
	}
}
