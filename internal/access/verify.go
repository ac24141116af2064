package access

import (
	"context"
	"fmt"

	"github.com/copse-authz/copse/internal/storage"
)

// Sealed is how much of what is sealed under a master key was opened.
type Sealed struct{ Keys, Secrets int }

// Verify opens every stored access key and every secret of the server with the master key, and tells found
// of those that can't be opened: what they are, and why. The error is a backend that can't be read.
func Verify(ctx context.Context, b storage.Backend, master MasterKey, found func(what string, err error)) (n Sealed, err error) {
	s, err := newSealers(master)
	if err != nil {
		return n, err
	}
	if n.Keys, err = eachSealed(ctx, b, keyKind, func(item storage.Item) {
		if _, err := s.open(item); err != nil {
			found("access key "+item.ID, err)
		}
	}); err != nil {
		return n, fmt.Errorf("the access keys can't be read: %w", err)
	}
	if n.Secrets, err = eachSealed(ctx, b, secretKind, func(item storage.Item) {
		if _, err := s.openSecret(item); err != nil {
			found("server secret "+item.ID, err)
		}
	}); err != nil {
		return n, fmt.Errorf("the server's secrets can't be read: %w", err)
	}
	return n, nil
}

// eachSealed walks the directory's rows of a kind and counts them.
func eachSealed(ctx context.Context, b storage.Backend, kind storage.Kind, do func(storage.Item)) (count int, err error) {
	const page = 1000
	for after := ""; ; {
		items, err := b.Scan(ctx, storage.Directory(), kind, after, page)
		if err != nil {
			return count, err
		}
		for _, item := range items {
			after = item.ID
			do(item)
			count++
		}
		if len(items) < page {
			return count, nil
		}
	}
}
