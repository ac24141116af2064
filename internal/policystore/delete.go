package policystore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage"
)

// Unbind is what leaves the directory in the same commit as a policy store's row.
type Unbind struct {
	// Require must still hold when the row goes.
	Require []storage.Requirement
	// Writes delete or change further rows. The history of every key in it is forgotten as part of
	// the erasure, since it names the tenant.
	Writes []storage.Write
}

// Delete removes the directory row (together with unbind's), fences the partition, and erases it
// before it returns or, when that takes long, in the background. Access keys that cover nothing else
// go with it. Deleting what is absent succeeds. Needs Admin everywhere. InvalidState for a tenant's policy store when nothing is unbound: the
// tenant must not be left without one.
func (s *Service) Delete(ctx context.Context, c access.Caller, id copse.PolicyStoreID, unbind ...storage.Write) error {
	var err error
	for range maxAttempts {
		err = s.Release(ctx, c, id, Unbind{Writes: unbind})
		// Without rows of the caller's only another Delete can be the conflict: look again.
		if len(unbind) > 0 || !errors.Is(err, storage.ErrConflict) {
			break
		}
	}
	return err
}

// Release is Delete with requirements. The error wraps storage.ErrConflict when they, or an
// expectation of the writes, are not met; then nothing was done.
// It returns when the policy store is fenced: no decision that begins later is made by it, and nothing is
// written to it, whatever was under way. Unavailable when that is not certain: the row is gone, and the call
// can be repeated.
func (s *Service) Release(ctx context.Context, c access.Caller, id copse.PolicyStoreID, u Unbind) error {
	if !c.MayEverywhere(access.Admin) {
		return denied("delete policy stores")
	}
	if err := id.Validate(); err != nil {
		return err
	}
	item, err := s.backend.Get(ctx, storage.Directory(), rowKey(id))
	if errors.Is(err, storage.ErrNotFound) {
		// Somebody else's Delete may be between its commit and its fence; success means it is over.
		err := s.eraser.awaitFence(ctx, id)
		if err == nil && len(u.Writes) > 0 {
			err = fromStorage(storage.ErrConflict, id) // what was to be unbound is no longer as it was read
		}
		return err
	}
	if err != nil {
		return fromStorage(err, id)
	}
	r, err := decodeRow(item)
	if err != nil {
		return err
	}
	if r.tenant != "" && len(u.Writes) == 0 {
		return &copse.Error{Kind: copse.InvalidState, Resource: copse.ResourcePolicyStore, ID: string(id),
			Detail: fmt.Sprintf("the policy store belongs to tenant %q; delete the tenant instead", r.tenant)}
	}
	if r.protected {
		return protected(id)
	}
	e := &erasure{
		s: s, rowID: copse.NewID(), policyStore: id, incarnation: r.incarnation, startedAt: now(),
		forget: []storage.Key{rowKey(id)},
	}
	if u, err = s.withKeys(ctx, u, id, r); err != nil {
		return err
	}
	if u, err = s.withAliases(ctx, u, id, r); err != nil {
		return fromStorage(err, id)
	}
	if r.clientToken != "" {
		token := storage.Key{Kind: kindClientToken, ID: r.clientToken}
		// The memory of its own making goes with it, since it names it.
		u.Writes = append(slices.Clone(u.Writes), storage.Write{Key: token, Expect: storage.Any()})
	}
	// After all of them were added: what is written here must be forgotten as well.
	for _, w := range u.Writes {
		e.forget = append(e.forget, w.Key)
	}
	body, err := encode(e.body())
	if err != nil {
		return err
	}
	s.eraser.expect(id) // before the row goes, so that no other Delete can miss it
	e.upTo, err = s.backend.Commit(ctx, storage.Commit{
		Partition: storage.Directory(), Incarnation: s.directory, Require: u.Require,
		Writes: append([]storage.Write{
			{Key: rowKey(id), Expect: storage.Version(item.Version)},
			{Key: e.key(), Body: body},
		}, u.Writes...),
		Actor: c.Actor(), Operation: "DeletePolicyStore",
	})
	switch {
	case errors.Is(err, storage.ErrConflict):
		s.eraser.drop(id)
		return fromStorage(err, id)
	case err != nil:
		// It may have happened all the same, when the disk failed in the middle. Whoever deletes the policy store
		// again must not be told that it is gone before that is known, and it is fenced.
		s.eraser.add(unsure{e})
		return fromStorage(err, id)
	}
	return s.carryOut(context.WithoutCancel(ctx), e, c.Actor())
}

// AwaitDeletions returns when every deletion that was not certain when it was answered is: for a caller that finds
// nothing left by which to name the policy store. Unavailable when ctx ends first.
func (s *Service) AwaitDeletions(ctx context.Context) error { return s.eraser.awaitAll(ctx) }

// protected is for what deletion protection is against: the policy store, and its aliases.
func protected(id copse.PolicyStoreID) error {
	return &copse.Error{Kind: copse.InvalidState, Resource: copse.ResourcePolicyStore, ID: string(id),
		Detail: "the policy store is protected from deletion; set its deletion protection to DISABLED first"}
}

// withKeys adds the removal of access keys that cover nothing else: a key of a tenant must not open a
// later tenant of the same name, and neither must one that is being made just now.
func (s *Service) withKeys(ctx context.Context, u Unbind, id copse.PolicyStoreID, r row) (Unbind, error) {
	scopes := []access.Scope{{PolicyStore: id}}
	if r.tenant != "" {
		scopes = append(scopes, access.Scope{Tenant: r.tenant})
	}
	require, writes, err := access.RemoveKeysOf(ctx, s.backend, scopes...)
	if err != nil {
		return Unbind{}, err
	}
	return Unbind{Require: slices.Concat(u.Require, require), Writes: slices.Concat(u.Writes, writes)}, nil
}

// Erasing in the foreground is limited to this; a tenant of usual size is gone before the answer.
const (
	eraseBatch  = 500
	syncBatches = 20
)

// carryOut does what must be done before the answer, and leaves the rest to the background. The caller
// learns of a failure only if it means that the policy store may still take a write.
func (s *Service) carryOut(ctx context.Context, e *erasure, actor string) error {
	ctx, cancel := context.WithTimeout(ctx, cleanUpTime)
	defer cancel()
	if err := s.fence(ctx, e, actor); err != nil {
		s.eraser.add(e)
		return &copse.Error{Kind: copse.Unavailable, Resource: copse.ResourcePolicyStore, ID: string(e.policyStore),
			Detail: "the policy store is being deleted, but it is not certain yet that nothing can be written to it; repeat the call",
			Err:    err}
	}
	// Fenced: what follows can take as long as it needs, and its failures are the background's.
	err := s.forgetKeys(ctx, e)
	done := false
	if err == nil {
		done, err = s.eraseSome(ctx, e, syncBatches)
	}
	if err == nil && done {
		err = s.finish(ctx, e)
	}
	if err != nil {
		s.log.WarnContext(ctx, "erasing is continued in the background", "policy_store", e.policyStore, "err", err)
	}
	if err != nil || !done {
		s.eraser.add(e)
	}
	return nil
}

// erasure is a policy store on its way out. Each step may be repeated.
// One has one goroutine at a time: the call that began it, and after that the eraser's.
type erasure struct {
	s           *Service
	rowID       string // of the directory row; empty for a partition that never had one
	policyStore copse.PolicyStoreID
	incarnation copse.Incarnation
	forget      []storage.Key
	upTo        uint64 // of the directory: the deletion's revision, past which a successor's history begins
	startedAt   time.Time
	forgotten   bool // see forgetKeys
}

// key is that of the row that a restart finds it by.
func (e *erasure) key() storage.Key { return storage.Key{Kind: kindErasure, ID: e.rowID} }

// body is that row; the revision up to which history is forgotten is the row's own version.
func (e *erasure) body() *erasureBody {
	b := &erasureBody{V: bodyVersion, PolicyStore: e.policyStore, Incarnation: e.incarnation, StartedAt: e.startedAt}
	for _, k := range e.forget {
		b.Forget = append(b.Forget, keyBody{Kind: k.Kind, ID: k.ID})
	}
	return b
}

// decodeErasure makes a job of a row. What was done of it is not noted, and is done again.
func (s *Service) decodeErasure(item storage.Item) (*erasure, error) {
	var b erasureBody
	if err := decode(item, &b); err != nil {
		return nil, err
	}
	e := &erasure{s: s, rowID: item.ID, policyStore: b.PolicyStore, incarnation: b.Incarnation, startedAt: b.StartedAt,
		upTo: item.Version} // it is written by the deletion, and never again
	for _, k := range b.Forget {
		e.forget = append(e.forget, storage.Key{Kind: k.Kind, ID: k.ID})
	}
	return e, nil
}

// fence ends the partition: from here on no write that was under way can bring anything back.
// Whoever waits for it is released here, and what is kept elsewhere is hidden first.
func (s *Service) fence(ctx context.Context, e *erasure, actor string) error {
	err := s.backend.Fence(ctx, storage.PolicyStore(e.policyStore), e.incarnation, actor)
	if err != nil && !errors.Is(err, storage.ErrNoHead) { // no head: a former attempt finished
		return err
	}
	if e.rowID != "" {
		s.hideElsewhere(e.policyStore)
	}
	s.eraser.markFenced(e.policyStore)
	return nil
}

// forgetKeys takes the directory's memory of the policy store. In a call it comes before the partition's
// rows, which are many. It goes no further than the deletion, because a tenant of the same name may be made
// as soon as the call is answered, and its history is not to be forgotten with that of its predecessor.
func (s *Service) forgetKeys(ctx context.Context, e *erasure) error {
	if e.forgotten {
		return nil
	}
	for _, k := range e.forget {
		if err := s.backend.Forget(ctx, storage.Directory(), k, e.upTo); err != nil {
			return err
		}
	}
	e.forgotten = true
	return nil
}

// eraseSome erases at most so many batches of the partition; done when nothing is left of it.
func (s *Service) eraseSome(ctx context.Context, e *erasure, batches int) (done bool, err error) {
	for range batches {
		done, err = s.backend.Erase(ctx, storage.PolicyStore(e.policyStore), e.incarnation, eraseBatch)
		if errors.Is(err, storage.ErrNoHead) {
			return true, nil // ids are never used twice: it was erased before
		}
		if done || err != nil {
			return done, err
		}
	}
	return false, nil
}

// finish removes the erasure's own row and what history keeps of it; if there is something elsewhere, the
// background does, after it has erased that.
func (s *Service) finish(ctx context.Context, e *erasure) error {
	if e.rowID == "" {
		return nil
	}
	if s.eraseElsewhere != nil {
		s.eraser.addElsewhere(e)
		return nil
	}
	return s.forgetRow(ctx, e.key(), "FinishErasure")
}

// forgetRow removes a row of the directory with all history of it. What its body said, the name of a
// tenant or policy store, goes first; what a crash could leave is a random id.
func (s *Service) forgetRow(ctx context.Context, key storage.Key, operation string) error {
	if err := s.backend.Forget(ctx, storage.Directory(), key, 0); err != nil {
		return err
	}
	_, err := s.backend.Commit(ctx, storage.Commit{
		Partition: storage.Directory(), Incarnation: s.directory,
		Writes: []storage.Write{{Key: key, Expect: storage.Any()}},
		Actor:  storage.ActorSystem, Operation: operation,
	})
	if err != nil {
		return err
	}
	return s.backend.Forget(ctx, storage.Directory(), key, 0)
}
