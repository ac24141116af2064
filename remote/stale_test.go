package remote

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/copse-authz/copse"
)

// Law 11: what can't be read again is used until it is 30 seconds old, and not a moment longer.
func TestLaw11DirectoryIsStaleBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFresh[int](maxReread)
		reads, down := 0, error(nil)
		get := func() (int, error) {
			return f.get(t.Context(), func(context.Context) (int, error) {
				time.Sleep(time.Second) // of the bound: what is read may be as old as the question
				if reads++; down != nil {
					return 0, down
				}
				return reads, nil
			})
		}
		want := func(value, read int, fails bool) {
			t.Helper()
			if got, err := get(); got != value || reads != read || (err != nil) != fails {
				t.Fatalf("%d after %d reads, %v; want %d after %d", got, reads, err, value, read)
			}
		}
		want(1, 1, false)
		time.Sleep(3999 * time.Millisecond)
		want(1, 1, false)
		time.Sleep(time.Millisecond)
		want(2, 2, false)
		down = copse.Errorf(copse.Unavailable, "down")
		time.Sleep(27*time.Second + 999*time.Millisecond)
		want(2, 3, false) // begun within the bound; a second passes in the read
		want(0, 4, true)
		down = nil
		want(5, 5, false)
		for _, refused := range []copse.Kind{copse.Denied, copse.Unauthenticated} {
			time.Sleep(maxReread)
			down = copse.Errorf(refused, "the key was revoked")
			if _, err := get(); !errors.Is(err, down) {
				t.Errorf("%v: %v", refused, err)
			}
			down = nil
			reads = 4
			want(5, 5, false)
		}
	})
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b breaker
		try := func(o outcome) bool {
			probe, err := b.enter(time.Now())
			if err == nil {
				b.leave(time.Now(), probe, o)
			}
			return err == nil
		}
		for range failuresToOpen - 1 {
			try(failed)
		}
		if try(answered); b.failed != 0 {
			t.Error("an answer does not end a row of failures")
		}
		late, _ := b.enter(time.Now()) // under way when it opens
		for range failuresToOpen {
			if !try(failed) {
				t.Fatal("opened early")
			}
		}
		if try(answered) {
			t.Error("not open")
		}
		if b.leave(time.Now(), late, answered); try(answered) {
			t.Error("closed by a call from before")
		}
		time.Sleep(openFor)
		probe, err := b.enter(time.Now())
		if err != nil || !probe {
			t.Fatalf("no probe: %v", err)
		}
		if try(answered) {
			t.Error("a second call beside the probe")
		}
		if opened := b.leave(time.Now(), probe, failed); !opened || try(answered) {
			t.Error("a failed probe does not open it again")
		}
		time.Sleep(openFor)
		if !try(abandoned) || !try(answered) || !try(answered) {
			t.Error("not closed by a probe that was answered, after one that was abandoned")
		}
		b.retries = 1.05
		if !b.mayRetry() || b.mayRetry() {
			t.Error("the budget is not kept")
		}
	})
}
