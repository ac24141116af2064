package policystore

import (
	"context"
	"errors"
	"fmt"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/engine"
	"github.com/copse-authz/copse/internal/storage"
)

// Verify reads every policy store of a backend that nobody else uses, and tells found what is wrong and
// where: a policy store of the directory without its data or with another's, data that does not add up
// or has another history than it says, policies and schemas that this copse can't use. walked is told of
// each policy store that was read, unlisted of data that the directory has no row for: of what was being
// made or erased when a server ended, which its next start erases. The error is a backend that can't be
// read at all.
// It changes nothing. found, walked and unlisted are called one after the other, in the caller's goroutine.
func Verify(ctx context.Context, b storage.Backend, found func(copse.PolicyStoreID, error), walked, unlisted func(copse.PolicyStoreID)) error {
	// What is listed first, then what is there and not listed: together that is everything.
	if err := verifyRows(ctx, b, found, walked); err != nil {
		return fmt.Errorf("the directory of policy stores can't be read: %w", err)
	}
	for after := ""; ; {
		heads, err := b.Heads(ctx, after, maxPage)
		if err != nil {
			return fmt.Errorf("the list of what is stored can't be read: %w", err)
		}
		for _, head := range heads {
			after = head.Partition.String()
			id, _ := head.Partition.PolicyStoreID()
			// No damage: this is what being made, or erased, looks like.
			if _, err := b.Get(ctx, storage.Directory(), rowKey(id)); errors.Is(err, storage.ErrNotFound) {
				unlisted(id)
			} else if err != nil {
				return fmt.Errorf("the directory of policy stores can't be read: %w", err)
			}
		}
		if len(heads) < maxPage {
			return nil
		}
	}
}

// verifyRows goes on after a policy store that is wrong, and ends with ctx or when rows can't be read.
func verifyRows(ctx context.Context, b storage.Backend, found func(copse.PolicyStoreID, error), walked func(copse.PolicyStoreID)) error {
	for after := ""; ; {
		items, err := b.Scan(ctx, storage.Directory(), kindPolicyStore, after, maxPage)
		if err != nil {
			return err
		}
		for _, item := range items {
			if err := ctx.Err(); err != nil {
				return err
			}
			after = item.ID
			id := copse.PolicyStoreID(item.ID)
			if err := verifyOne(ctx, b, id, item); err != nil {
				found(id, err)
			}
			walked(id)
		}
		if len(items) < maxPage {
			return nil
		}
	}
}

// verifyOne does what a server would at the first decision, and more: the row and the data must be of one life, the history
// must be the one that the head commits to, and everything must compile.
func verifyOne(ctx context.Context, b storage.Backend, id copse.PolicyStoreID, item storage.Item) error {
	r, err := decodeRow(item)
	if err != nil {
		return err
	}
	loaded, err := b.Load(ctx, storage.PolicyStore(id))
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return errors.New("the directory has it, and its data is not there")
	case err != nil:
		return err
	// Nobody would be served from it: every read of the policy store compares the two.
	case loaded.Head.Incarnation != r.incarnation:
		return fmt.Errorf("the directory has incarnation %v, its data %v", r.incarnation, loaded.Head.Incarnation)
	}
	// The history is read before anything is decoded: what was altered is told as that, not as what it became.
	if err := storage.VerifyHistory(ctx, b, storage.PolicyStore(id)); err != nil {
		return err
	}
	c, err := decodeContents(loaded)
	if err != nil {
		return err
	}
	schema, err := c.schema()
	if err != nil {
		return err
	}
	// Unlike a check by schema this compiles, as the first decision would.
	sources := make([]engine.Source, len(c.policies))
	parse := c.parser()
	for i := range c.policies {
		p := &c.policies[i]
		parsed, err := parse(p)
		if err != nil {
			return fmt.Errorf("policy %s: %w", p.id, err)
		}
		sources[i] = engine.Source{Ref: copse.PolicyRef{ID: p.id, Name: p.body.Name}, Policy: parsed, Version: p.changed()}
	}
	_, err = engine.Compile(schema, c.settings.settings(), sources)
	return err
}
