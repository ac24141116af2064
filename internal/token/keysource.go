package token

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// How long a key set is good for, counted from the start of its fetch.
const (
	refreshAfter = 4 * time.Minute  // refreshed in the background from here on, while in use
	freshFor     = 5 * time.Minute  // used without asking the issuer again
	staleFor     = 10 * time.Minute // used while asking fails; unusable afterwards
	// cooldown is between two attempts for one issuer, whatever asks for them.
	cooldown = 10 * time.Second
	// A key id that a fetch did not bring is not asked for again for this long.
	unknownFor = 30 * time.Second
	maxUnknown = 256 // remembered ids; beyond them the cool-down alone bounds fetches
)

// keySource has the keys of one issuer. They never mix with another's: each issuer has its own.
// Its lock is never held while something is fetched.
type keySource struct {
	issuer  string
	fetch   func(ctx context.Context, issuer string) (*keySet, error)
	fetches func(result string)
	work    *workers

	// generation changes with the keys, so that a remembered token can tell.
	generation atomic.Uint64
	lastUsed   atomic.Int64 // UnixNano, for eviction

	mu        sync.Mutex
	set       *keySet // nil until the first success
	fetchedAt time.Time
	triedAt   time.Time // start of the last attempt; zero: none yet
	err       error     // of the last attempt
	flight    *flight   // the attempt under way
	unknown   map[string]time.Time
}

// flight is one attempt, which all that need it wait for.
type flight struct{ done chan struct{} }

// view is a key set as it may be used now.
// What was remembered under its generation stands for as long as the source has that generation.
type view struct {
	set        *keySet
	generation uint64
	until      time.Time // when the issuer is asked again, at the latest
}

// current returns keys that are fresh, or stale within bounds while the issuer can't be reached.
// Unavailable when there are none, or only ones that are too old, and the issuer can't be asked now; also when
// ctx ends first. The fetch goes on without the caller.
func (s *keySource) current(ctx context.Context) (view, error) {
	for attempts := 0; ; attempts++ {
		s.mu.Lock()
		now := time.Now()
		age := now.Sub(s.fetchedAt)
		// Waiting for an issuer that has just failed would make every caller as slow as it is.
		failing := s.err != nil && now.Sub(s.triedAt) < 2*(cooldown+fetchTimeout)
		switch {
		// Good as they are; stale ones only while asking fails, and not for long.
		case s.set != nil && (age < freshFor || age < staleFor && (failing || attempts > 0)):
			// In the background, so that nobody waits while the issuer answers.
			if age >= refreshAfter {
				s.startLocked(now)
			}
			v := s.viewLocked()
			s.mu.Unlock()
			return v, nil
		case s.flight == nil && s.err != nil && (now.Sub(s.triedAt) < cooldown || attempts > 1):
			err := s.err
			s.mu.Unlock()
			return view{}, keysUnavailable(err)
		}
		f := s.startLocked(now)
		s.mu.Unlock()
		if err := f.wait(ctx); err != nil {
			return view{}, err
		}
	}
}

// forKey returns the keys after the issuer was asked for a key id that the set does not have, at most
// once per cool-down. asked is false when that was not worth asking, or not allowed yet.
// Without the cool-down whoever invents key ids would have the issuer asked as often as they like.
func (s *keySource) forKey(ctx context.Context, kid string) (v view, asked bool, err error) {
	s.mu.Lock()
	now := time.Now()
	if until, ok := s.unknown[kid]; ok && now.Before(until) {
		s.mu.Unlock()
		return view{}, false, nil
	}
	// The set was asked for a moment ago. If that failed, the key may exist all the same: it can't be known.
	if s.flight == nil && now.Sub(s.triedAt) < cooldown {
		err := s.err
		s.mu.Unlock()
		if err != nil {
			return view{}, false, keysUnavailable(err)
		}
		return view{}, false, nil
	}
	f := s.startLocked(now)
	s.mu.Unlock()
	if err := f.wait(ctx); err != nil {
		return view{}, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return view{}, false, keysUnavailable(s.err)
	}
	return s.viewLocked(), true, nil
}

// rememberUnknown keeps a key id from causing another fetch for a while.
func (s *keySource) rememberUnknown(kid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for id, until := range s.unknown {
		if !now.Before(until) {
			delete(s.unknown, id)
		}
	}
	if len(s.unknown) < maxUnknown {
		if s.unknown == nil {
			s.unknown = make(map[string]time.Time)
		}
		s.unknown[kid] = now.Add(unknownFor)
	}
}

// viewLocked says how long what is verified by the keys of now may be remembered.
func (s *keySource) viewLocked() view {
	until := s.fetchedAt.Add(freshFor)
	if now := time.Now(); !now.Before(until) { // stale: until the next attempt
		until = now.Add(cooldown)
		if end := s.fetchedAt.Add(staleFor); end.Before(until) {
			until = end
		}
	}
	return view{set: s.set, generation: s.generation.Load(), until: until}
}

// startLocked joins the attempt under way or, once the cool-down is over, begins one. It returns nil
// when neither is to be had; waiting for that is over at once.
func (s *keySource) startLocked(now time.Time) *flight {
	if s.flight != nil || !s.triedAt.IsZero() && now.Sub(s.triedAt) < cooldown {
		return s.flight
	}
	f := &flight{done: make(chan struct{})}
	s.flight, s.triedAt = f, now
	s.work.start(func(ctx context.Context) {
		set, err := s.safely(ctx)
		s.finish(f, now, set, err)
	}, func() { s.finish(f, now, nil, errClosed) })
	return f
}

// A nil flight is over. The error is Unavailable, and only when ctx ended.
func (f *flight) wait(ctx context.Context) error {
	if f == nil {
		return nil
	}
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return unavailable(ReasonKeys, "the call ended before the issuer's keys were there", ctx.Err())
	}
}

// safely turns a panic over a stranger's document into a failed attempt.
func (s *keySource) safely(ctx context.Context) (set *keySet, err error) {
	defer func() {
		if p := recover(); p != nil {
			set, err = nil, fmt.Errorf("fetching keys panicked: %v\n%s", p, debug.Stack())
		}
	}()
	return s.fetch(ctx, s.issuer)
}

// The set counts from the start of its fetch: what the issuer changed since may not be in it.
func (s *keySource) finish(f *flight, began time.Time, set *keySet, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(f.done)
	s.flight, s.err = nil, err
	if err != nil {
		s.fetches(fetchFailed)
		return
	}
	s.fetches(fetchOK)
	s.fetchedAt = began
	// The same keys again leave remembered tokens as they are. Among others may be ids that were unknown.
	if s.set == nil || s.set.fingerprint != set.fingerprint {
		s.generation.Add(1)
		s.unknown = nil
	}
	s.set = set
}

// keysUnavailable is the answer while the issuer can't be asked: the token may well be good.
func keysUnavailable(err error) error {
	return unavailable(ReasonKeys, "the keys of the token's issuer can't be fetched now; try again", err)
}

// keysFor finds the keys that may have made the token's signature.
// Never none without an error. Unauthenticated for a key that the issuer does not have, or has for another
// algorithm; Unavailable as in current and forKey.
func (s *keySource) keysFor(ctx context.Context, u *unverified) ([]crypto.PublicKey, view, error) {
	v, err := s.current(ctx)
	if err != nil {
		return nil, v, err
	}
	found, known := v.set.find(u.kid, u.hasKid, u.alg)
	// The issuer may have made a key since; without a key id there is nothing to ask for.
	if !known && u.hasKid {
		newer, asked, err := s.forKey(ctx, u.kid)
		if err != nil {
			return nil, v, err
		}
		if asked {
			v = newer
			if found, known = v.set.find(u.kid, true, u.alg); !known {
				s.rememberUnknown(u.kid)
			}
		}
	}
	switch {
	case !known && !u.hasKid:
		return nil, v, refuse(ReasonUnknownKey, "the token names no key, and its issuer does not have exactly one")
	case !known:
		return nil, v, refuse(ReasonUnknownKey, "the token's issuer has no key of this id")
	case len(found) == 0:
		return nil, v, refuse(ReasonAlgorithm, "the token's key is not for its algorithm")
	}
	return found, v, nil
}

var errClosed = errors.New("the verifier is closed")

// workers runs attempts in the background and ends them on Close.
type workers struct {
	ctx    context.Context
	cancel context.CancelFunc
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

func newWorkers() *workers {
	w := &workers{}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w
}

// start runs f, or refused when Close was called already.
// Exactly one of the two is called, in a goroutine of its own.
func (w *workers) start(f func(context.Context), refused func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		go refused() // the caller may hold locks that refused takes
		return
	}
	w.wg.Go(func() { f(w.ctx) })
}

// close waits until all that was started has ended.
func (w *workers) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.cancel()
	w.wg.Wait()
}
