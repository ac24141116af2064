package member

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// Leaving is what must be written in the commit that deletes a tenant: a note that its members are to be
// erased, which outlives a crash.
func Leaving(tenant copse.TenantID, incarnation copse.Incarnation) (storage.Write, error) {
	return put(leavingKey(tenant, incarnation), struct {
		V int `json:"v"`
	}{bodyVersion}, storage.Any())
}

func leavingKey(tenant copse.TenantID, incarnation copse.Incarnation) storage.Key {
	return storage.Key{Kind: kindLeaving, ID: string(tenant) + "/" + incarnation.String()}
}

// How much is erased before a deletion is acknowledged; the rest goes in the background.
const (
	eraseBatch  = 200
	syncBatches = 20
	retryEvery  = 10 * time.Second
)

// eraser erases what deleted tenants left, one batch after the other.
type eraser struct {
	s    *Service
	ctx  context.Context
	stop context.CancelFunc
	wake chan struct{}
	wg   sync.WaitGroup
}

func newEraser(s *Service) *eraser {
	ctx, stop := context.WithCancel(context.Background())
	e := &eraser{s: s, ctx: ctx, stop: stop, wake: make(chan struct{}, 1)}
	e.wg.Go(e.run)
	return e
}

func (e *eraser) close() {
	e.stop()
	e.wg.Wait()
}

func (e *eraser) run() {
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-e.wake:
		}
		for {
			done, err := e.s.eraseNotes(e.ctx)
			if done || e.ctx.Err() != nil {
				break
			}
			if err != nil {
				e.s.log.Warn("erasing the members of a deleted tenant goes on later", "error", err)
				select {
				case <-e.ctx.Done():
					return
				case <-time.After(retryEvery):
				}
			}
		}
	}
}

// Left erases the members of a tenant that was just deleted: before it returns or, when there are many, in
// the background. What is not erased yet is of an incarnation that is gone, and means nothing.
func (s *Service) Left(ctx context.Context, tenant copse.TenantID, incarnation copse.Incarnation) {
	for range syncBatches {
		done, err := s.eraseSome(context.WithoutCancel(ctx), tenant, incarnation)
		if err != nil {
			s.log.Warn("erasing the members of a deleted tenant goes on in the background", "error", err)
			break
		}
		if done {
			return
		}
	}
	s.Resume()
}

// Resume has the background erase what notes speak of, those of a former process included.
func (s *Service) Resume() {
	select {
	case s.eraser.wake <- struct{}{}:
	default:
	}
}

// eraseNotes erases a batch for the first note; done when there is none.
func (s *Service) eraseNotes(ctx context.Context) (done bool, err error) {
	items, err := s.backend.Scan(ctx, storage.Directory(), kindLeaving, "", 1)
	if err != nil || len(items) == 0 {
		return err == nil, err
	}
	tenant, text, _ := strings.Cut(items[0].ID, "/")
	var incarnation copse.Incarnation
	if err := incarnation.UnmarshalText([]byte(text)); err != nil {
		return false, err
	}
	_, err = s.eraseSome(ctx, copse.TenantID(tenant), incarnation)
	return false, err
}

// eraseSome erases a batch of one tenant's rows, their history included, and at the end the note.
func (s *Service) eraseSome(ctx context.Context, tenant copse.TenantID, incarnation copse.Incarnation) (done bool, err error) {
	prefix := string(tenant) + "/"
	after, erased := prefix, 0
	for erased < eraseBatch {
		items, err := s.backend.Scan(ctx, storage.Directory(), kindMembership, after, eraseBatch)
		if err != nil {
			return false, err
		}
		for _, item := range items {
			id, ok := strings.CutPrefix(item.ID, prefix)
			if !ok {
				return true, s.finishErasing(ctx, tenant, incarnation)
			}
			after = item.ID
			if err := s.eraseRow(ctx, item, tenant, incarnation, id); err != nil {
				return false, err
			}
			erased++
		}
		if len(items) < eraseBatch {
			return true, s.finishErasing(ctx, tenant, incarnation)
		}
	}
	return false, nil
}

// eraseRow takes one membership or invitation of a former life away, and leaves those of a present one.
func (s *Service) eraseRow(ctx context.Context, item storage.Item, tenant copse.TenantID, incarnation copse.Incarnation, id string) error {
	var index membershipBody
	if err := decode(item, &index); err != nil {
		return err
	}
	var writes []storage.Write
	if index.Incarnation == incarnation {
		writes = append(writes, storage.Write{Key: item.Key, Expect: storage.Version(item.Version)})
	}
	row, forget, err := s.withoutLife(ctx, &index, tenant, incarnation, id)
	if err != nil {
		return err
	}
	if row != nil {
		writes = append(writes, *row)
	}
	if len(writes) == 0 {
		return nil
	}
	if err := s.commit(ctx, storage.ActorSystem, "EraseMember", nil, writes); err != nil {
		return err // a conflict too: the next batch looks again
	}
	keys := []storage.Key{forget}
	if index.Incarnation == incarnation {
		keys = append(keys, item.Key)
	}
	return s.forget(ctx, keys...)
}

// withoutLife is the write that takes an incarnation out of a member or an invitation away; nil where it is
// not in it.
func (s *Service) withoutLife(ctx context.Context, index *membershipBody, tenant copse.TenantID, incarnation copse.Incarnation, id string) (*storage.Write, storage.Key, error) {
	if index.Invite {
		key := inviteKey(id, tenant)
		var b inviteBody
		expect, found, err := s.read(ctx, key, &b)
		if err != nil || !found || b.Incarnation != incarnation {
			return nil, key, err
		}
		return &storage.Write{Key: key, Expect: expect}, key, nil
	}
	key := memberKey(id)
	var b memberBody
	expect, found, err := s.read(ctx, key, &b)
	if err != nil || !found {
		return nil, key, err
	}
	before := len(b.Tenants)
	b.leave(func(t *tenantOf) bool { return t.Tenant == tenant && t.Incarnation == incarnation })
	if len(b.Tenants) == before {
		return nil, key, nil
	}
	if len(b.Tenants) == 0 {
		return &storage.Write{Key: key, Expect: expect}, key, nil
	}
	row, err := put(key, b, expect)
	return &row, key, err
}

// finishErasing takes the count away, if it is that of this life, and then the note.
func (s *Service) finishErasing(ctx context.Context, tenant copse.TenantID, incarnation copse.Incarnation) error {
	writes := []storage.Write{{Key: leavingKey(tenant, incarnation), Expect: storage.Any()}}
	var count countBody
	expect, found, err := s.read(ctx, countKey(tenant), &count)
	if err != nil {
		return err
	}
	if found && count.Incarnation == incarnation {
		writes = append(writes, storage.Write{Key: countKey(tenant), Expect: expect})
	}
	if err := s.commit(ctx, storage.ActorSystem, "EraseMembers", nil, writes); err != nil {
		return err
	}
	return s.forget(ctx, countKey(tenant), leavingKey(tenant, incarnation))
}

// forget erases what history has of rows up to now. Of a member who is still in other tenants the history
// of those goes with it: better too little of it is kept than something of a tenant that left.
func (s *Service) forget(ctx context.Context, keys ...storage.Key) error {
	head, err := s.backend.Head(ctx, storage.Directory())
	if err != nil {
		return err
	}
	for _, k := range keys {
		if err := s.backend.Forget(ctx, storage.Directory(), k, head.Revision); err != nil && !errors.Is(err, storage.ErrNotFound) {
			return err
		}
	}
	return nil
}
