package server

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/copse-authz/copse/internal/authorizer"
)

// Traces that are off cost nothing: not an allocation, and nothing stands between the parts.
func TestNoTracesNoCost(t *testing.T) {
	off, err := newTracer(&Config{}, slog.New(slog.DiscardHandler)), errors.New("any")
	ctx := context.Background()
	if n := testing.AllocsPerRun(100, func() {
		within, end := off.start(ctx, "decide")
		if within != ctx {
			t.Error("a context of its own")
		}
		end(kindOf(nil))
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	decider := tracedDecider{}
	if got := off.around(authorizer.Config{Decider: decider}); got.Decider != decider {
		t.Error("the decider is wrapped")
	}
	if kindOf(err) != "Internal" {
		t.Errorf("an unknown error is %q", kindOf(err))
	}
}
