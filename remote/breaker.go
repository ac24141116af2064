package remote

import (
	"sync"
	"time"

	"github.com/copse-authz/copse"
)

// failuresToOpen are counted in a row: one answer in between starts anew.
const (
	failuresToOpen = 5
	openFor        = time.Second

	// The budget of retries: they may be one call in ten, and ten at once.
	maxRetries    = 10.0
	retryPerOK    = 0.1
	tokenPerRetry = 1.0
)

// breaker keeps calls from a server that does not answer: after some failures in a row it refuses at
// once, and lets one call try again when a second has passed. Refused is an error, never an answer. It
// is safe for concurrent use; the zero value is closed, with no budget of retries. The budget keeps a
// server in trouble from getting twice the calls.
type breaker struct {
	mu      sync.Mutex
	failed  int       // in a row
	until   time.Time // open until then; the zero time: closed
	probing bool      // the one call of a breaker that was open is under way
	retries float64   // left in the budget
}

// outcome of a call, as the breaker sees it.
type outcome int

const (
	answered  outcome = iota // also with a refusal: the server is there
	failed                   // no answer, or one that can't be one
	abandoned                // by the caller: says nothing
)

// errOpen is shared, and must not be changed.
var errOpen = copse.Errorf(copse.Unavailable, "the copse server has not answered several times; not asking again for a moment")

// enter admits a call, whose outcome must be told to leave with the same probe; or refuses it. Only one
// call is out as a probe; all others are refused until it is back.
func (b *breaker) enter(now time.Time) (probe bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.until.IsZero():
		return false, nil
	case b.probing || now.Before(b.until):
		return false, errOpen
	}
	b.probing = true
	return true, nil
}

// leave reports whether this outcome opened the breaker. Calls that began before it opened don't close
// it. The calls in a row are of all callers together.
func (b *breaker) leave(now time.Time, probe bool, o outcome) (opened bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false
	}
	switch o {
	// An answer earns a part of a retry. One that was asked for before the breaker
	// opened says nothing about now.
	case answered:
		b.retries = min(maxRetries, b.retries+retryPerOK)
		if probe || b.until.IsZero() {
			b.failed, b.until = 0, time.Time{}
		}
	// What the caller gave up tells neither way; a probe that was given up lets the next call be one.
	case abandoned:
	case failed:
		// A probe that fails opens it for another second, and counts as opened again.
		if b.failed++; probe || b.until.IsZero() && b.failed >= failuresToOpen {
			b.until = now.Add(openFor)
			return true
		}
	}
	return false
}

// mayRetry takes one retry out of the budget, if there is one. None while the breaker is open: the
// second attempt would be refused.
func (b *breaker) mayRetry() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.retries < tokenPerRetry || !b.until.IsZero() {
		return false
	}
	b.retries -= tokenPerRetry
	return true
}
