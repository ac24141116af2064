package member

import (
	"context"
	"errors"
	"math"
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
	eraseBatch = 200
	syncRows   = 20 * eraseBatch
	retryEvery = 10 * time.Second
	lookEvery  = time.Minute
)

// eraser erases what deleted tenants and former members left.
// It does one note after the other; what it does not finish is in storage, for Resume of the next process.
type eraser struct {
	s    *Service
	ctx  context.Context
	stop context.CancelFunc
	wake chan struct{}
	wg   sync.WaitGroup
}

// newEraser starts the background goroutine, which waits for Resume; close ends it.
func newEraser(s *Service) *eraser {
	ctx, stop := context.WithCancel(context.Background())
	e := &eraser{s: s, ctx: ctx, stop: stop, wake: make(chan struct{}, 1)}
	e.wg.Go(e.run)
	return e
}

// close waits for the step that is under way.
func (e *eraser) close() {
	e.stop()
	e.wg.Wait()
}

// run does all notes there are each time it is woken. After a failure it tries again later.
func (e *eraser) run() {
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-e.wake:
		case <-time.After(lookEvery): // for a note whose deletion was not certain when it was answered
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
	done, err := s.eraseLife(context.WithoutCancel(ctx), tenant, incarnation, syncRows)
	if err != nil {
		s.log.Warn("erasing the members of a deleted tenant goes on in the background", "error", err)
	}
	if !done || err != nil {
		s.Resume()
	}
}

// Resume has the background erase what notes speak of, those of a former process included.
// It returns at once.
func (s *Service) Resume() {
	select {
	case s.eraser.wake <- struct{}{}:
	default:
	}
}

// eraseNotes does what one note says; done when there is none.
// Notes of former members are small, and come first.
func (s *Service) eraseNotes(ctx context.Context) (done bool, err error) {
	items, err := s.backend.Scan(ctx, storage.Directory(), kindFormer, "", 1)
	if err != nil {
		return false, err
	}
	if len(items) > 0 {
		var note formerBody
		if err := decode(items[0], &note); err != nil {
			return false, err
		}
		return false, s.forgetNoted(ctx, items[0].Key, note)
	}
	items, err = s.backend.Scan(ctx, storage.Directory(), kindLeaving, "", 1)
	if err != nil || len(items) == 0 {
		return err == nil, err
	}
	// Tenant ids have no slash, so the first one ends it.
	tenant, text, _ := strings.Cut(items[0].ID, "/")
	var incarnation copse.Incarnation
	if err := incarnation.UnmarshalText([]byte(text)); err != nil {
		return false, err
	}
	// The note goes at its end; done is for the next look, which finds no more notes.
	_, err = s.eraseLife(ctx, copse.TenantID(tenant), incarnation, math.MaxInt)
	return false, err
}

// eraseLife erases the rows of one life of a tenant, their history included, and at the end the note; done is
// false after it looked at most rows. It goes once over all that the name has: those of a successor, which
// stay, may be many, and none of this life is added any more, as what makes members requires the tenant's row.
func (s *Service) eraseLife(ctx context.Context, tenant copse.TenantID, incarnation copse.Incarnation, most int) (done bool, err error) {
	prefix := string(tenant) + "/"
	after := prefix
	for seen := 0; seen < most; {
		items, err := s.backend.Scan(ctx, storage.Directory(), kindMembership, after, eraseBatch)
		if err != nil {
			return false, err
		}
		for _, item := range items {
			// Past the tenant's rows: the next ones are of another.
			id, ok := strings.CutPrefix(item.ID, prefix)
			if !ok {
				return true, s.finishErasing(ctx, tenant, incarnation)
			}
			if err := s.eraseRow(ctx, item, tenant, incarnation, id); err != nil {
				return false, err
			}
			after = item.ID
			seen++
		}
		if len(items) < eraseBatch {
			return true, s.finishErasing(ctx, tenant, incarnation)
		}
	}
	return false, nil
}

// eraseRow takes one membership or invitation of a former life away, and leaves those of a present one. What
// history has of it goes in either case: a successor's row may have been written over one of the former life.
func (s *Service) eraseRow(ctx context.Context, item storage.Item, tenant copse.TenantID, incarnation copse.Incarnation, id string) error {
	var err error
	for range maxAttempts {
		var index membershipBody
		if err := decode(item, &index); err != nil {
			return err
		}
		var writes []storage.Write
		// The tenant's row goes with what it stands for. One of a successor stays, and may have been written
		// over one of this life.
		if index.Incarnation == incarnation {
			writes = append(writes, storage.Write{Key: item.Key, Expect: storage.Version(item.Version)})
		}
		// In one commit with the tenant's row of it: the one without the other would lead nowhere.
		row, key, rowErr := s.withoutLife(ctx, &index, tenant, incarnation, id)
		if rowErr != nil {
			return rowErr
		}
		if row != nil {
			writes = append(writes, *row)
		}
		// With nothing to write the history goes all the same: a former attempt may have ended before that.
		if len(writes) > 0 {
			err = s.commit(ctx, storage.ActorSystem, "EraseMember", nil, writes)
		}
		if err == nil {
			return s.forget(ctx, key, item.Key)
		}
		if !errors.Is(err, storage.ErrConflict) {
			return err
		}
		// Somebody changed one of the two rows: both are looked at again.
		if item, err = s.backend.Get(ctx, storage.Directory(), item.Key); err != nil {
			if errors.Is(err, storage.ErrNotFound) {
				return s.forget(ctx, key, storage.Key{Kind: kindMembership, ID: string(tenant) + "/" + id})
			}
			return err
		}
	}
	return storage.ErrConflict
}

// withoutLife is the write that takes an incarnation out of a member or an invitation away; nil where it is
// not in it.
// key is that of the member or invitation in any case, for its history.
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
// The count may be a successor's by now, and then stays; its history goes either way.
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

// A membership that ended, or an invitation that was redeemed, has no row any more that would lead to it when
// the tenant is deleted: so its history is erased when it ends. former is the note of it, in the same commit.
func former(tenant copse.TenantID, id string, row storage.Key) (storage.Write, formerBody, error) {
	body := formerBody{V: bodyVersion, Keys: []formerKey{{row.Kind, row.ID}, {kindMembership, string(tenant) + "/" + id}}}
	note, err := put(storage.Key{Kind: kindFormer, ID: string(tenant) + "/" + id}, body, storage.Any())
	return note, body, err
}

// forgetFormer does what a note says, here or, where that fails, in the background.
// It returns nothing: the membership has ended in any case.
func (s *Service) forgetFormer(ctx context.Context, note storage.Key, body formerBody) {
	if err := s.forgetNoted(context.WithoutCancel(ctx), note, body); err != nil {
		s.log.Warn("erasing what history has of a former member goes on in the background", "error", err)
		s.Resume()
	}
}

// The note goes last: a crash has everything done once more, which does no harm.
func (s *Service) forgetNoted(ctx context.Context, note storage.Key, body formerBody) error {
	keys := []storage.Key{note}
	for _, k := range body.Keys {
		keys = append(keys, storage.Key(k))
	}
	if err := s.forget(ctx, keys[1:]...); err != nil {
		return err
	}
	if err := s.commit(ctx, storage.ActorSystem, "EraseFormerMember", nil, []storage.Write{{Key: note, Expect: storage.Any()}}); err != nil {
		return err
	}
	return s.forget(ctx, note)
}
