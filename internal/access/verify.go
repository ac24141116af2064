package access

import (
	"context"
	"fmt"

	"github.com/copse-authz/copse/internal/storage"
)

// Sealed counts what is sealed under a master key.
type Sealed struct {
	Keys    int `json:"keys"` // access keys
	Secrets int `json:"secrets"`
}

// Verify opens every stored access key and every secret of the server with the master key, counts those it opened,
// and tells found of the others: which, and why not. The error is a backend that can't be read.
// It changes nothing. [Service.CheckMasterKey] is the short form for a start: one row of each kind.
func Verify(ctx context.Context, b storage.Backend, master MasterKey, found func(error)) (opened Sealed, err error) {
	s, err := newSealers(master)
	if err != nil {
		return opened, err
	}
	return s.eachRow(ctx, b, func(_ storage.Key, err error) {
		if err != nil {
			found(err)
		}
	})
}

// eachRow goes through everything that is sealed, with the reason for what can't be opened, and counts what can.
func (s *sealers) eachRow(ctx context.Context, b storage.Backend, do func(storage.Key, error)) (opened Sealed, err error) {
	if err = eachSealed(ctx, b, keyKind, func(item storage.Item) {
		_, err := s.open(item)
		if err == nil {
			opened.Keys++
		}
		do(item.Key, err)
	}); err != nil {
		return opened, fmt.Errorf("the access keys can't be read: %w", err)
	}
	if err = eachSealed(ctx, b, secretKind, func(item storage.Item) {
		_, err := s.openSecret(item)
		if err == nil {
			opened.Secrets++
		}
		do(item.Key, err)
	}); err != nil {
		return opened, fmt.Errorf("the server's secrets can't be read: %w", err)
	}
	return opened, nil
}

// eachSealed walks the directory's rows of a kind.
// Page by page: rows that come or go meanwhile may be seen or not, all others are.
func eachSealed(ctx context.Context, b storage.Backend, kind storage.Kind, do func(storage.Item)) error {
	const page = 1000
	for after := ""; ; {
		items, err := b.Scan(ctx, storage.Directory(), kind, after, page)
		if err != nil {
			return err
		}
		for _, item := range items {
			after = item.ID
			do(item)
		}
		if len(items) < page {
			return nil
		}
	}
}
