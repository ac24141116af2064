package policystore

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
)

// admit is the entrance of every method that names a policy store: what the caller's key does not cover
// is not there, and what it covers is charged to that policy store's rates. A stranger spends nothing.
// With an error there is no row: callers must not go on with one.
func (s *Service) admit(ctx context.Context, c access.Caller, verb access.Verb, operation string, id copse.PolicyStoreID) (row, error) {
	r, err := s.find(ctx, c, verb, id)
	if err != nil {
		return row{}, err
	}
	return r, s.charge(ctx, id, r, verb, operation, 1)
}

// charge takes n from the rate that the policy store's plan has for an operation, and answers Throttled
// when there is not so much left. It comes before the work it stands for. The policy store is named by
// its id: an alias, of which a caller may have many, has no rate of its own.
// What is refused takes nothing. Reading and administering have a rate only where the plan names the operation.
func (s *Service) charge(ctx context.Context, id copse.PolicyStoreID, r row, verb access.Verb, operation string, n int) error {
	if s.noRates {
		return nil
	}
	plan, err := s.plan(ctx, r)
	if err != nil {
		return unknowable(err, id)
	}
	if !plan.metered() {
		return nil
	}
	limiter, single := s.meters.of(id, plan).limiter(verb, operation)
	if limiter == nil {
		return nil
	}
	if single {
		n = 1 // a call is one, however much is in it
	}
	// A batch that is larger than a whole second's worth takes the whole second.
	if limiter.AllowN(time.Now(), min(n, limiter.Burst())) {
		return nil
	}
	rate, what := rateWrites, "writes"
	switch {
	case single:
		rate, what = rateOperation, operation+" calls"
	case verb == access.Decide:
		rate, what = rateDecisions, "decisions"
	}
	s.metrics.rates[rate].Inc()
	s.tallies.refused(id)
	return &copse.Error{Kind: copse.Throttled, Resource: copse.ResourcePolicyStore, ID: string(id),
		Detail: fmt.Sprintf("too many %s: the plan %q allows %d per second of this policy store; try again in a moment",
			what, plan.Name, limiter.Burst())}
}

// metered reports whether the plan has any rate; without one no meter is made.
func (p *Plan) metered() bool {
	return p.Quotas.DecisionsPerSecond > 0 || p.Quotas.WritesPerSecond > 0 || len(p.Quotas.Operations) > 0
}

// meter is a policy store's token buckets, each as deep as a second. It never changes but for the
// buckets' contents, so that finding one takes no lock.
type meter struct {
	plan              *Plan
	decisions, writes *rate.Limiter // nil: no limit
	operations        map[string]*rate.Limiter
}

// newMeter makes full buckets: a plan that is changed begins with a whole second's worth.
func newMeter(p *Plan) *meter {
	m := &meter{plan: p, decisions: newLimiter(p.Quotas.DecisionsPerSecond), writes: newLimiter(p.Quotas.WritesPerSecond)}
	if len(p.Quotas.Operations) > 0 {
		m.operations = make(map[string]*rate.Limiter, len(p.Quotas.Operations))
	}
	for op, perSecond := range p.Quotas.Operations {
		m.operations[op] = newLimiter(perSecond)
	}
	return m
}

// newLimiter is nil for 0, which is no limit.
func newLimiter(perSecond int) *rate.Limiter {
	if perSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(perSecond), perSecond)
}

// limiter finds the bucket of an operation, and tells whether it is that operation's own.
func (m *meter) limiter(verb access.Verb, operation string) (l *rate.Limiter, single bool) {
	if m.operations != nil {
		if l, ok := m.operations[operation]; ok {
			return l, true
		}
	}
	switch verb {
	case access.Decide:
		return m.decisions, false
	case access.Write:
		return m.writes, false
	case access.Read, access.Admin:
	}
	return nil, false
}

// full reports whether nothing was taken for so long that a new meter would be no different.
func (m *meter) full(at time.Time) bool {
	for _, l := range m.operations {
		if l.TokensAt(at) < float64(l.Burst()) {
			return false
		}
	}
	for _, l := range []*rate.Limiter{m.decisions, m.writes} {
		if l != nil && l.TokensAt(at) < float64(l.Burst()) {
			return false
		}
	}
	return true
}

// meters keeps a meter for each policy store that was lately used. Those whose buckets are full again
// are dropped now and then, so that there are no more than what a second of requests can name.
type meters struct {
	byID    sync.Map // copse.PolicyStoreID -> *meter
	count   atomic.Int64
	sweepAt atomic.Int64
	sweeps  sync.Mutex
}

// keptMeters are not worth a sweep.
const keptMeters = 4096

// of finds the meter, and makes it when there is none or when the plan is not what it was.
func (m *meters) of(id copse.PolicyStoreID, p *Plan) *meter {
	found, ok := m.byID.Load(id)
	if ok {
		if k, ok := found.(*meter); ok && k.plan == p {
			return k
		}
	}
	return m.add(id, p, found)
}

// Of several calls at once one makes it, and all go on with that.
func (m *meters) add(id copse.PolicyStoreID, p *Plan, former any) *meter {
	fresh := newMeter(p)
	if former != nil {
		if m.byID.CompareAndSwap(id, former, fresh) {
			return fresh
		}
	}
	found, loaded := m.byID.LoadOrStore(id, fresh)
	if k, ok := found.(*meter); ok && loaded {
		return k // of another call at the same time
	}
	if n := m.count.Add(1); n > max(m.sweepAt.Load(), keptMeters) && m.sweeps.TryLock() {
		m.sweep(time.Now())
		m.sweeps.Unlock()
	}
	return fresh
}

// sweep drops meters that are full. What another call takes from one in this moment is forgotten with
// it: at most a token.
func (m *meters) sweep(at time.Time) {
	m.byID.Range(func(id, found any) bool {
		if k, ok := found.(*meter); ok && k.full(at) && m.byID.CompareAndDelete(id, found) {
			m.count.Add(-1)
		}
		return true
	})
	m.sweepAt.Store(2 * m.count.Load())
}

// drop forgets a policy store that was deleted.
// Its plan's rates are gone with it; a call that is under way makes another meter, which a sweep finds full.
func (m *meters) drop(id copse.PolicyStoreID) {
	if _, had := m.byID.LoadAndDelete(id); had {
		m.count.Add(-1)
	}
}
