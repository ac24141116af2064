package storage_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/copse-authz/copse/internal/storage"
)

// A value that was invalidated is given to Renew, once, and never to a caller; one that was dropped is
// given to nobody.
func TestCacheRenews(t *testing.T) {
	source, fail := 1, error(nil)
	c := storage.NewCache(storage.CacheConfig[string, string]{
		Load: func(context.Context, string) (string, error) { return fmt.Sprintf("%d", source), fail },
		Renew: func(_ context.Context, _ string, former string) (string, error) {
			return fmt.Sprintf("%d after %s", source, former), fail
		},
		MaxWeight: 100,
	})
	checkGet(t, c, "a", "1")
	source = 2
	c.Invalidate("a")
	checkGet(t, c, "a", "2 after 1")
	checkGet(t, c, "a", "2 after 1")
	source = 3
	c.Invalidate("a")
	c.Invalidate("a") // nothing was kept in between
	fail = errors.New("out of reach")
	if got, err := c.Get(t.Context(), "a"); !errors.Is(err, fail) {
		t.Errorf("got %q, %v", got, err)
	}
	fail = nil
	checkGet(t, c, "a", "3 after 2 after 1")
	c.Drop("a")
	checkGet(t, c, "a", "3")
	c.Invalidate("a")
	c.Drop("a")
	checkGet(t, c, "a", "3")
	c.Invalidate("a")
	fail = storage.ErrNotFound // gone: what it was is not kept either
	if _, err := c.Get(t.Context(), "a"); !errors.Is(err, fail) {
		t.Error(err)
	}
	fail = nil
	checkGet(t, c, "a", "3")
	c.Invalidate("a")
	c.InvalidateAll()
	checkGet(t, c, "a", "3")
}

// A load that is overtaken leaves the former value to the next one, unless what overtook it was a Drop.
func TestCacheRenewsOvertaken(t *testing.T) {
	for _, drop := range []bool{false, true} {
		started, goOn := make(chan bool), make(chan bool)
		loads := 0
		c := storage.NewCache(storage.CacheConfig[string, string]{
			Load: func(context.Context, string) (string, error) { return "whole", nil },
			Renew: func(_ context.Context, _ string, former string) (string, error) {
				if loads++; loads == 1 {
					started <- true
					<-goOn
				}
				return "renewed from " + former, nil
			},
			MaxWeight: 100,
		})
		checkGet(t, c, "a", "whole")
		c.Invalidate("a")
		got := make(chan string)
		go func() {
			v, _ := c.Get(context.Background(), "a")
			got <- v
		}()
		<-started
		want := "renewed from whole"
		if drop {
			c.Drop("a")
			want = "whole"
		} else {
			c.Invalidate("a")
		}
		goOn <- true
		if v := <-got; v != want {
			t.Errorf("dropped %t: got %q, want %q", drop, v, want)
		}
		checkGet(t, c, "a", want)
	}
}
