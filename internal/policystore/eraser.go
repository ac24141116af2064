package policystore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// job is what the eraser has to do: the erasure of a policy store, or the cascade of a template.
// Nobody calls it twice at once.
type job interface {
	// step does some of it and reports whether nothing is left. It is called again after a failure.
	step(ctx context.Context) (done bool, err error)
}

// eraser finishes erasures in the background, one batch of one job after the other, so that a large one
// neither blocks the small ones nor floods the writer.
// What it does not finish is in storage, for Resume of the next process.
type eraser struct {
	s    *Service
	ctx  context.Context // ends with close
	stop context.CancelFunc
	work sync.WaitGroup
	wake chan struct{} // holds at most one token

	mu    sync.Mutex
	queue []job
	// elsewhere are the erasures of which nothing is left in storage but their rows.
	elsewhere []*erasure
	current   job
	pending   map[copse.PolicyStoreID]*pendingFence
}

// pendingFence is a policy store whose row goes, or may be gone, while it is not known to be fenced.
// Whoever deletes what is gone already waits for it, for success says that nothing can be written any more.
type pendingFence struct {
	fenced chan struct{} // closed when it is, or when nobody deletes it after all
	users  int
}

// newEraser starts the background goroutine; close ends it.
func newEraser(s *Service) *eraser {
	ctx, stop := context.WithCancel(context.Background())
	r := &eraser{s: s, ctx: ctx, stop: stop, wake: make(chan struct{}, 1), pending: make(map[copse.PolicyStoreID]*pendingFence)}
	r.work.Go(func() { r.run(ctx) })
	return r
}

// close stops background work where it is; Resume of the next process goes on.
func (r *eraser) close() {
	r.stop()
	r.work.Wait()
}

// expect announces a deletion whose directory commit is about to be tried.
// Several may be on their way for one policy store, of which one will do it; drop and markFenced end it.
func (r *eraser) expect(id copse.PolicyStoreID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.pending[id]
	if !ok {
		p = &pendingFence{fenced: make(chan struct{})}
		r.pending[id] = p
	}
	p.users++
}

// drop takes an announcement back: the commit was refused.
func (r *eraser) drop(id copse.PolicyStoreID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.pending[id]; ok {
		if p.users--; p.users == 0 {
			close(p.fenced)
			delete(r.pending, id)
		}
	}
}

// markFenced releases all who wait; those whose announcement it was need not take it back.
func (r *eraser) markFenced(id copse.PolicyStoreID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.pending[id]; ok {
		close(p.fenced)
		delete(r.pending, id)
	}
}

// awaitFence waits until an erasure of the policy store that is under way has fenced it.
// nil at once when there is none; Unavailable when ctx ends first.
func (r *eraser) awaitFence(ctx context.Context, id copse.PolicyStoreID) error {
	r.mu.Lock()
	p, ok := r.pending[id]
	r.mu.Unlock()
	if !ok {
		return nil
	}
	select {
	case <-p.fenced:
		return nil
	case <-ctx.Done():
		return fromStorage(ctx.Err(), id)
	}
}

// awaitAll is awaitFence for every policy store whose deletion is not certain yet.
func (r *eraser) awaitAll(ctx context.Context) error {
	r.mu.Lock()
	ids := slices.Collect(maps.Keys(r.pending))
	r.mu.Unlock()
	for _, id := range ids {
		if err := r.awaitFence(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// add hands a job to the background.
func (r *eraser) add(e job) {
	r.mu.Lock()
	r.queue = append(r.queue, e)
	r.mu.Unlock()
	r.rouse()
}

// rouse wakes the goroutine, or has it look again when it is awake.
func (r *eraser) rouse() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// retryPause is how long the background rests after a failure.
const retryPause = time.Second

// run does jobs until ctx ends. One that is not finished goes to the end of the queue.
func (r *eraser) run(ctx context.Context) {
	for {
		e := r.next()
		if e == nil {
			select {
			case <-r.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		done, err := e.step(ctx)
		if ctx.Err() != nil || errors.Is(err, storage.ErrClosed) {
			return
		}
		// Also after an error with done: what was left undone is in the last step.
		if !done || err != nil {
			r.add(e)
		}
		if err != nil {
			r.s.log.ErrorContext(ctx, "erasing failed; it is tried again", "err", err)
			select {
			case <-time.After(retryPause):
			case <-ctx.Done():
				return
			}
		}
	}
}

// addElsewhere is add for an erasure of which only what is kept elsewhere is left.
func (r *eraser) addElsewhere(e *erasure) {
	r.mu.Lock()
	r.elsewhere = append(r.elsewhere, e)
	r.mu.Unlock()
	r.rouse()
}

// manyElsewhere is how many erasures wait at the most for the queue to be empty.
const manyElsewhere = 1000

// next is the job to go on with; nil: there is none. What is kept elsewhere is erased when there is nothing
// else to do, of as many policy stores together as there are then: it is read as a whole each time.
func (r *eraser) next() job {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch all := r.elsewhere; {
	// A long queue must not keep the lines of those who left on disk forever.
	case len(all) > 0 && (len(r.queue) == 0 || len(all) >= manyElsewhere):
		r.elsewhere, r.current = nil, elsewhere(all)
	case len(r.queue) == 0:
		r.current = nil
	default:
		r.current, r.queue = r.queue[0], r.queue[1:]
	}
	return r.current
}

// left is how many erasures are not complete, for the gauge.
func (r *eraser) left() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.queue) + len(r.elsewhere)
	if r.current != nil {
		n++
	}
	return float64(n)
}

// elsewhere is the last part of erasures, all of the same service.
type elsewhere []*erasure

// The rows go after what they speak of: a crash between the two has it erased once more.
func (all elsewhere) step(ctx context.Context) (done bool, err error) {
	s, ids := all[0].s, make([]copse.PolicyStoreID, len(all))
	for i, e := range all {
		ids[i] = e.policyStore
	}
	if err := s.eraseElsewhere(ctx, ids...); err != nil {
		return false, err
	}
	for _, e := range all {
		if err := s.forgetRow(ctx, e.key(), "FinishErasure"); err != nil {
			return false, err
		}
	}
	return true, nil
}

// step does all of it again, but one batch only of what is long.
// fence is repeated because a former attempt may have failed there, and costs little when it did not.
func (e *erasure) step(ctx context.Context) (done bool, err error) {
	if err := e.s.fence(ctx, e, storage.ActorSystem); err != nil {
		return false, err
	}
	done, err = e.s.eraseSome(ctx, e, 1)
	if err != nil || !done {
		return false, err
	}
	if e.rowID == "" {
		return true, nil
	}
	if err := e.s.forgetKeys(ctx, e); err != nil {
		return false, err
	}
	return true, e.s.finish(ctx, e)
}

// unsure is the deletion of a policy store whose commit the disk did not confirm.
type unsure struct{ *erasure }

// step reads whether it happened, and then goes on with it, or takes the announcement back.
func (u unsure) step(ctx context.Context) (done bool, err error) {
	item, err := u.s.backend.Get(ctx, storage.Directory(), u.key())
	if errors.Is(err, storage.ErrNotFound) {
		u.s.eraser.drop(u.policyStore)
		return true, nil
	}
	if err != nil {
		return false, err
	}
	e, err := u.s.decodeErasure(item)
	if err != nil {
		return false, err
	}
	u.s.eraser.add(e)
	return true, nil
}

// Resume finishes what a former process left half done: policy stores being erased, links whose template
// is gone, heads that never got a directory row. It is called once, before the server listens. What must hold from the first
// request on is done when it returns; what may be long goes on in the background.
func (s *Service) Resume(ctx context.Context) error {
	started := time.Now()
	// From the first request on nothing that was deleted takes a write, and no history names who left.
	err := s.eachRow(ctx, kindErasure, func(item storage.Item) error {
		e, err := s.decodeErasure(item)
		if err != nil {
			return err
		}
		if err := s.fence(ctx, e, storage.ActorSystem); err != nil {
			return fromStorage(err, e.policyStore)
		}
		if err := s.forgetKeys(ctx, e); err != nil {
			return fromStorage(err, e.policyStore)
		}
		s.eraser.add(e)
		return nil
	})
	if err != nil {
		return err
	}
	// Links without a template are nothing already, so there is no hurry about their rows.
	err = s.eachRow(ctx, kindUnlinking, func(item storage.Item) error {
		c, err := s.decodeCascade(item)
		if err == nil {
			s.eraser.add(c)
		}
		return err
	})
	if err != nil {
		return err
	}
	s.eraser.sweepInBackground(started)
	return nil
}

// eachRow walks the directory's rows of a kind.
// An error of do ends it.
func (s *Service) eachRow(ctx context.Context, kind storage.Kind, do func(storage.Item) error) error {
	for after := ""; ; {
		items, err := s.backend.Scan(ctx, storage.Directory(), kind, after, maxPage)
		if err != nil {
			return fromStorage(err, "")
		}
		for _, item := range items {
			if err := do(item); err != nil {
				return err
			}
			after = item.ID
		}
		if len(items) < maxPage {
			return nil
		}
	}
}

// started is a time before which this process made nothing.
func (r *eraser) sweepInBackground(started time.Time) {
	r.work.Go(func() {
		if err := r.s.sweep(r.ctx, started); err != nil && r.ctx.Err() == nil {
			r.s.log.ErrorContext(r.ctx, "looking for half-made policy stores failed; it is repeated at the next start", "err", err)
		}
	})
}

// sweep walks heads and directory rows side by side, both in order of the policy store's id, and
// erases partitions without a row that are older than this process. A row that the disk lost looks like
// one that was never written, so nothing is erased while the directory is not whole.
// That is asked once, and only when there is something to erase: it reads all of the directory.
func (s *Service) sweep(ctx context.Context, started time.Time) error {
	after, whole := "", false
	var former copse.PolicyStoreID
	for {
		heads, err := s.backend.Heads(ctx, after, maxPage)
		if err != nil || len(heads) == 0 {
			return err
		}
		// Heads and rows are in the same order, so both are walked once, page by page.
		after = heads[len(heads)-1].Partition.String()
		last, _ := heads[len(heads)-1].Partition.PolicyStoreID()
		known, err := s.rowsBetween(ctx, former, last)
		if err != nil {
			return err
		}
		former = last
		for _, head := range heads {
			id, _ := head.Partition.PolicyStoreID()
			// What was made since is this process's own: its create gives it a row or takes it away.
			if known[id] || head.CreatedAt.After(started) {
				continue
			}
			orphan, err := s.isOrphan(ctx, id)
			if err != nil {
				return err
			}
			if orphan && !whole {
				if err := s.backend.Whole(ctx, storage.Directory()); err != nil {
					return fmt.Errorf("policy store %s has no row in the directory, which is damaged; nothing is erased, `copse check` tells more: %w", id, err)
				}
				whole = true
			}
			if orphan {
				s.eraser.add(&erasure{s: s, policyStore: id, incarnation: head.Incarnation})
			}
		}
	}
}

// rowsBetween lists policy stores with ids in (after, last].
// It bounds what is held in memory to the rows beside one page of heads.
func (s *Service) rowsBetween(ctx context.Context, after, last copse.PolicyStoreID) (map[copse.PolicyStoreID]bool, error) {
	known := make(map[copse.PolicyStoreID]bool)
	for {
		items, err := s.backend.Scan(ctx, storage.Directory(), kindPolicyStore, string(after), maxPage)
		if err != nil {
			return nil, err
		}
		for _, item := range items {
			after = copse.PolicyStoreID(item.ID)
			if after > last {
				return known, nil
			}
			known[after] = true
		}
		if len(items) < maxPage {
			return known, nil
		}
	}
}

// isOrphan asks in this order on purpose: a create that is no longer in the list by now has its row.
func (s *Service) isOrphan(ctx context.Context, id copse.PolicyStoreID) (bool, error) {
	if _, creating := s.creating.Load(id); creating {
		return false, nil
	}
	_, err := s.backend.Get(ctx, storage.Directory(), rowKey(id))
	if errors.Is(err, storage.ErrNotFound) {
		return true, nil
	}
	return false, err
}
