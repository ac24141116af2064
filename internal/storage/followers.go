package storage

import "sync"

// Followers is the list behind [Backend.Follow]. The zero value is ready.
type Followers struct {
	mu   sync.RWMutex
	next int
	list []follower
}

type follower struct {
	id int
	f  func(Change)
}

// Add lists f until stop is called; stop may be called from within f.
func (l *Followers) Add(f func(Change)) (stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	id := l.next
	// Always a new slice: Tell walks the old one without the lock.
	l.list = append(append([]follower(nil), l.list...), follower{id, f})
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		var kept []follower
		for _, o := range l.list {
			if o.id != id {
				kept = append(kept, o)
			}
		}
		l.list = kept
	}
}

// Tell calls every follower. Callers order their calls; Tell does not.
func (l *Followers) Tell(c Change) {
	l.mu.RLock()
	list := l.list
	l.mu.RUnlock()
	for _, o := range list {
		o.f(c)
	}
}
