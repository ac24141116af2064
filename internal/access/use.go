package access

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse/internal/storage"
)

// useKind has a row for each key that was ever used, apart from the key's own: writing it takes no
// verified key out of the cache, and gets in nobody's way who changes the key.
const useKind storage.Kind = "access-key-use"

const (
	// useTick is how often uses are looked over, and so how long the first use of a key may go unwritten.
	useTick = time.Minute
	// useInterval is the least time between two writes for one key. What is lost with a killed process
	// is at most this much; while the process runs, lists are exact to the second.
	useInterval = 15 * time.Minute
	// useIdle is how long a key that nobody shows is kept in mind.
	useIdle = time.Hour
	// usesPerCommit keeps a commit of them small.
	usesPerCommit = 500
)

// storedUse is the body of a use's row. It is written late and never early, so At is a time the key was used.
type storedUse struct {
	At time.Time `json:"at"`
}

func useKey(id string) storage.Key { return storage.Key{Kind: useKind, ID: id} }

// use is when a key was last shown, with the right secret and before its expiry, in Unix seconds.
type use struct {
	last    atomic.Int64
	written int64 // guarded by uses.mu
	made    int64 // a use just made, and not yet touched, is not idle
}

// touch costs one load, and once a second a store: it is on the way of every request.
func (u *use) touch(now time.Time) {
	if sec := now.Unix(); u != nil && u.last.Load() < sec {
		u.last.Store(sec)
	}
}

// uses are those of the keys that this process has seen lately.
type uses struct {
	mu   sync.Mutex
	byID map[string]*use
}

// of hands every record of a key the same use, over reloads, until it is dropped as idle.
func (us *uses) of(id string, now time.Time) *use {
	us.mu.Lock()
	defer us.mu.Unlock()
	u := us.byID[id]
	if u == nil {
		u = &use{made: now.Unix()}
		us.byID[id] = u
	}
	return u
}

// last is zero when this process has not seen the key used.
func (us *uses) last(id string) time.Time {
	us.mu.Lock()
	u := us.byID[id]
	us.mu.Unlock()
	if u == nil || u.last.Load() == 0 {
		return time.Time{}
	}
	return time.Unix(u.last.Load(), 0).UTC()
}

// due are the keys whose use is to be written, with the use; forget is called for those that are idle
// and written, after they were dropped.
func (us *uses) due(now time.Time, all bool, forget func(id string)) map[string]int64 {
	us.mu.Lock()
	due := map[string]int64{}
	var idle []string
	for id, u := range us.byID {
		last := u.last.Load()
		switch {
		case last > u.written && (all || u.written == 0 || now.Unix()-u.written >= int64(useInterval/time.Second)):
			due[id] = last
		case last == u.written && now.Unix()-max(last, u.made) > int64(useIdle/time.Second):
			idle = append(idle, id)
			delete(us.byID, id)
		}
	}
	us.mu.Unlock()
	for _, id := range idle {
		forget(id) // its record holds on to the use that was dropped
	}
	return due
}

// wrote notes what is stored, or what storage had later already.
func (us *uses) wrote(id string, at int64) {
	us.mu.Lock()
	defer us.mu.Unlock()
	if u := us.byID[id]; u != nil {
		u.written = max(u.written, at)
	}
}

// drop is for keys that are gone.
func (us *uses) drop(id string) {
	us.mu.Lock()
	defer us.mu.Unlock()
	delete(us.byID, id)
}

// keepUses writes uses down, those that failed too, until stopped, and then what is left of them. A write that fails is made
// again at the next tick; nothing but the list of keys depends on it.
func (s *Service) keepUses(stopped <-chan struct{}) {
	tick := time.NewTicker(useTick)
	defer tick.Stop()
	for {
		select {
		case <-stopped:
			s.writeUses(true)
			return
		case <-tick.C:
			s.writeUses(false)
		}
	}
}

// writeUses writes what is due, failed uses first, in commits of a bounded size; all is for the end.
func (s *Service) writeUses(all bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s.writeFailed(ctx)
	due := s.uses.due(time.Now(), all, s.keys.Invalidate)
	for len(due) > 0 {
		batch := map[string]int64{}
		for id, at := range due {
			if len(batch) == usesPerCommit {
				break
			}
			batch[id] = at
			delete(due, id)
		}
		// What is left stays due, and is tried again at the next tick.
		if err := s.writeUsesOf(ctx, batch); err != nil {
			return
		}
		for id, at := range batch {
			s.uses.wrote(id, at)
		}
	}
}

// writeUsesOf requires each key as it is: the use of a key that is being revoked, or erased with its
// tenant, must not be written after that.
func (s *Service) writeUsesOf(ctx context.Context, batch map[string]int64) error {
	var require []storage.Requirement
	var writes []storage.Write
	for id, at := range batch {
		item, err := s.backend.Get(ctx, storage.Directory(), storage.Key{Kind: keyKind, ID: id})
		if errors.Is(err, storage.ErrNotFound) {
			s.uses.drop(id)
			continue
		}
		if err != nil {
			return err
		}
		stored, expect, err := s.storedUse(ctx, id)
		if err != nil {
			return err
		}
		if stored.Unix() >= at { // another node has seen it later
			continue
		}
		body, err := json.Marshal(storedUse{At: time.Unix(at, 0).UTC()})
		if err != nil {
			return err
		}
		require = append(require, storage.Requirement{Key: item.Key, Expect: storage.Version(item.Version)})
		writes = append(writes, storage.Write{Key: useKey(id), Body: body, Expect: expect})
	}
	if len(writes) == 0 {
		return nil
	}
	return s.commit(ctx, System(), "UseKeys", require, writes...)
}

// storedUse is the zero time for a key that was never seen used, and what the next write of it expects.
func (s *Service) storedUse(ctx context.Context, id string) (time.Time, storage.Expectation, error) {
	item, err := s.backend.Get(ctx, storage.Directory(), useKey(id))
	if errors.Is(err, storage.ErrNotFound) {
		return time.Time{}, storage.Absent(), nil
	}
	if err != nil {
		return time.Time{}, storage.Expectation{}, storageError(err)
	}
	var b storedUse
	if err := json.Unmarshal(item.Body, &b); err != nil {
		return time.Time{}, storage.Expectation{}, storageError(fmt.Errorf("use of access key %s: %w", id, err))
	}
	return b.At, storage.Version(item.Version), nil
}

// lastUse is the later of what is stored and what this process saw.
func (s *Service) lastUse(ctx context.Context, id string) (time.Time, error) {
	at, _, err := s.storedUse(ctx, id)
	if seen := s.uses.last(id); seen.After(at) {
		at = seen
	}
	return at, err
}
