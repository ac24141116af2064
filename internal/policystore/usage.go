package policystore

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
)

// UsageMinutes is how far back usage goes, and the minute that has begun besides.
const UsageMinutes = 5

// maxTallies bounds the memory of usage to about 15 MB. When so many policy stores were used in the last
// minutes, further ones are not counted until others rest.
const maxTallies = 50_000

// Usage is what a policy store was used for in the last minutes.
type Usage struct {
	PolicyStoreID copse.PolicyStoreID
	Tenant        copse.TenantID // empty: a policy store of the operator's own
	Decisions     int64
	Refusals      int64 // calls that came too fast
	CompiledBytes int64 // when it was last compiled; 0: no decision yet
}

// tally counts for one policy store. It is found through the snapshot, so that counting takes no lock.
// Counts at the turn of a minute may be off by those of the moment.
type tally struct {
	minutes [UsageMinutes + 1]struct{ at, decisions, refusals atomic.Int64 }
	bytes   atomic.Int64
	state   atomic.Int32
}

// What becomes of a tally.
const (
	tallyKept    int32 = iota
	tallySwept         // it was idle: to be counted again, it is made again
	tallyDropped       // its policy store was deleted
)

// add counts in the minute of now, whose slot was that of six minutes before.
func (t *tally) add(now time.Time, decisions, refusals int64) {
	minute := now.Unix() / 60
	m := &t.minutes[minute%int64(len(t.minutes))]
	if former := m.at.Load(); former != minute && m.at.CompareAndSwap(former, minute) {
		m.decisions.Store(0)
		m.refusals.Store(0)
	}
	m.decisions.Add(decisions)
	m.refusals.Add(refusals)
}

// sum is of the minute that has begun and the five before it.
func (t *tally) sum(now time.Time) (decisions, refusals int64) {
	minute := now.Unix() / 60
	for i := range t.minutes {
		if m := &t.minutes[i]; minute-m.at.Load() <= UsageMinutes {
			decisions += m.decisions.Load()
			refusals += m.refusals.Load()
		}
	}
	return decisions, refusals
}

// tallies are those of the policy stores that were lately used.
// Finding a tally takes the lock and counting does not: decisions find theirs through the snapshot.
type tallies struct {
	mu      sync.Mutex
	byID    map[copse.PolicyStoreID]*tally
	sweepAt time.Time
}

// of finds a policy store's tally, or makes it; one that counts for nobody when there is no room.
func (t *tallies) of(id copse.PolicyStoreID) *tally {
	t.mu.Lock()
	defer t.mu.Unlock()
	found := t.byID[id]
	if found != nil {
		return found
	}
	made := &tally{}
	// At most once a minute: it walks over all of them, and everybody who wants a tally waits.
	if now := time.Now(); len(t.byID) >= maxTallies && now.After(t.sweepAt) {
		t.sweep(now)
		t.sweepAt = now.Add(time.Minute)
	}
	if len(t.byID) >= maxTallies {
		// So that whoever has it asks again next time: there may be room by then.
		made.state.Store(tallySwept)
		return made
	}
	if t.byID == nil {
		t.byID = map[copse.PolicyStoreID]*tally{}
	}
	t.byID[id] = made
	return made
}

// sweep drops those that nothing was counted in lately. The caller holds the lock. A decision that counts in
// one at the same moment is lost, and the next one makes another.
func (t *tallies) sweep(now time.Time) {
	for id, x := range t.byID {
		if decisions, refusals := x.sum(now); decisions+refusals == 0 {
			x.state.Store(tallySwept)
			delete(t.byID, id)
		}
	}
}

// A snapshot that is still in somebody's hands goes on counting in what was dropped, where nobody looks.
func (t *tallies) drop(id copse.PolicyStoreID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if x := t.byID[id]; x != nil {
		x.state.Store(tallyDropped)
		delete(t.byID, id)
	}
}

// refused counts a call that came too fast. It has no snapshot to find the tally by, and takes the lock.
func (t *tallies) refused(id copse.PolicyStoreID) { t.of(id).add(time.Now(), 0, 1) }

// decided counts a decision on a snapshot.
func (t *tallies) decided(id copse.PolicyStoreID, e *compiled) {
	x := e.tally.Load()
	// A new snapshot, or one whose tally was swept: its weight is told with that.
	if x == nil || x.state.Load() == tallySwept {
		x = t.of(id)
		x.bytes.Store(e.weight())
		e.tally.Store(x)
	}
	x.add(time.Now(), 1, 0)
}

// UsageOrder is what a list of usage begins with the most of.
type UsageOrder string

// The orders.
const (
	ByDecisions UsageOrder = "decisions"
	ByRefusals  UsageOrder = "refusals"
	ByBytes     UsageOrder = "bytes"
)

// TopUsage lists the policy stores that were used most in the last minutes, by this process. With Admin
// everywhere it is of all; a key of a tenant or policy store sees its own only, if it may read it.
func (s *Service) TopUsage(ctx context.Context, c access.Caller, order UsageOrder, top int) ([]Usage, error) {
	// nil is everybody's, which takes an administrator to see.
	ids, err := s.usageOf(ctx, c)
	if err != nil {
		return nil, err
	}
	verb := access.Read
	if ids == nil {
		verb = access.Admin
	}
	now := time.Now()
	var out []Usage
	// Only numbers are taken under the lock, which decisions wait for; rows are read after it.
	s.tallies.mu.Lock()
	for id, x := range s.tallies.byID {
		if ids != nil && !slices.Contains(ids, id) {
			continue
		}
		if decisions, refusals := x.sum(now); decisions+refusals > 0 {
			out = append(out, Usage{PolicyStoreID: id, Decisions: decisions, Refusals: refusals, CompiledBytes: x.bytes.Load()})
		}
	}
	s.tallies.mu.Unlock()
	// Equal ones in order of id, so that the same question has the same answer.
	slices.SortFunc(out, func(a, b Usage) int {
		return cmp.Or(cmp.Compare(b.by(order), a.by(order)), cmp.Compare(a.PolicyStoreID, b.PolicyStoreID))
	})
	shown := out[:0]
	for _, u := range out {
		if len(shown) == top {
			break
		}
		r, err := s.find(ctx, c, verb, u.PolicyStoreID)
		if err != nil && copse.KindOf(err) == copse.NotFound {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		u.Tenant = r.tenant
		shown = append(shown, u)
	}
	return shown, nil
}

// by is the number that an order looks at; decisions for an order that is not known.
func (u *Usage) by(order UsageOrder) int64 {
	switch order {
	case ByRefusals:
		return u.Refusals
	case ByBytes:
		return u.CompiledBytes
	case ByDecisions:
	}
	return u.Decisions
}

// usageOf is whose usage a caller sees; nil: everybody's.
// Denied for a key that covers all and does not administer.
func (s *Service) usageOf(ctx context.Context, c access.Caller) ([]copse.PolicyStoreID, error) {
	switch {
	case c.MayEverywhere(access.Admin):
		return nil, nil
	case c.Scope.PolicyStore != "":
		return []copse.PolicyStoreID{c.Scope.PolicyStore}, nil
	case c.Scope.Tenant == "":
		return nil, denied("see the usage of all")
	}
	directory := s.tenants.Load()
	if directory == nil {
		return []copse.PolicyStoreID{}, nil
	}
	entry, err := (*directory).Lookup(ctx, c.Scope.Tenant)
	if err != nil && copse.KindOf(err) == copse.NotFound {
		return []copse.PolicyStoreID{}, nil
	}
	return []copse.PolicyStoreID{entry.PolicyStoreID}, err
}
