package policystore

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/copse-authz/copse"
)

const (
	// expensive is what a decision costs, in steps of its budget, from which on it waits for a turn: a
	// millisecond or so. Ordinary ones cost a hundredth of that and never wait.
	expensive = 100_000
	// longestTurn is how long a decision may wait before it is refused: the request's memory is held
	// meanwhile, and whoever asked for it will not wait forever.
	longestTurn = time.Second
)

// turns keep processors free for those whose decisions are cheap, however many expensive ones are asked
// for: a decision that has begun is not interrupted. A policy store has half of the processors at the
// most, and all of them together leave one.
type turns struct{ all chan struct{} }

// turn is a policy store's side of it, kept from one revision to the next.
type turn struct {
	of chan struct{}
	// usual is what its decisions cost lately: at once when one costs more, slowly when they cost less.
	// Who sends a cheap one between two expensive ones gains nothing.
	usual atomic.Int64
}

func newTurns() turns { return turns{make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1))} }

func newTurn() *turn { return &turn{of: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))} }

// stepsOfByte is what reading a byte of a request costs at worst, as sets of one element each do: 70 ns.
const stepsOfByte = 7

// size is what reading a request may cost, in steps: from 14 KB or so on it waits for a turn by that alone.
func size(req *copse.Request) int {
	return stepsOfByte * (len(req.Context.Bytes) + len(req.Entities.Bytes) + len(req.ServerContext.Bytes) + len(req.ServerEntities.Bytes))
}

// begin waits for a turn if a decision that costs as much as the last ones, or as reading its request,
// needs one. The policy store's own turn comes first, so that among those who wait for the processors no
// policy store has more than its share. taken must be given back with end.
func (t turns) begin(ctx context.Context, id copse.PolicyStoreID, own *turn, cost int64) (taken bool, err error) {
	if max(cost, own.usual.Load()) < expensive {
		return false, nil
	}
	wait, cancel := context.WithTimeout(ctx, longestTurn)
	defer cancel()
	select {
	case own.of <- struct{}{}:
	case <-wait.Done():
		return false, noTurn(ctx, id)
	}
	select {
	case t.all <- struct{}{}:
		return true, nil
	case <-wait.Done():
		<-own.of
		return false, noTurn(ctx, id)
	}
}

// end gives back what begin took, in the opposite order; without taken it does nothing.
func (t turns) end(own *turn, taken bool) {
	if taken {
		<-t.all
		<-own.of
	}
}

// spent tells what a decision cost.
func (o *turn) spent(cost int64) {
	usual := o.usual.Load()
	if next := max(cost, usual-usual/64); next != usual {
		o.usual.CompareAndSwap(usual, next) // another decision's word is as good
	}
}

// noTurn is Unavailable when the caller has gone or its time is over, and else Throttled.
func noTurn(ctx context.Context, id copse.PolicyStoreID) error {
	if err := ctx.Err(); err != nil {
		return unknowable(err, id)
	}
	return &copse.Error{Kind: copse.Throttled, Resource: copse.ResourcePolicyStore, ID: string(id),
		Detail: "too many decisions of this policy store that take long were asked for at once; try again in a moment"}
}
