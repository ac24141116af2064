package policystore

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/engine"
	"github.com/copse-authz/copse/internal/storage"
)

// compiled is a cached snapshot, or the reason why there is none at this revision.
// It is shared by all who decide and never changed, but for the tally; turn is carried on from the snapshot
// before it.
type compiled struct {
	incarnation copse.Incarnation
	revision    uint64
	snapshot    *engine.Snapshot
	schema      *engine.Schema
	// schemaVersion is the stored schema's.
	schemaVersion uint64
	forbids       map[copse.PolicyID]struct{}
	source        *copse.IdentitySource // nil: none
	logging       *logging
	// turn is for decisions that cost much.
	turn  *turn
	tally atomic.Pointer[tally] // nil: nothing was decided yet
	// broken: what is stored can't be compiled. It is kept like a snapshot, because trying again
	// before the next change costs as much and ends the same.
	broken error
}

// weight is what the cache counts it as, in bytes. One that is broken has a weight too: it is kept.
func (e *compiled) weight() int64 {
	w := int64(512) + 64*int64(len(e.forbids)) + e.logging.weight()
	if e.source != nil {
		w += identitySourceWeight(e.source)
	}
	if e.snapshot != nil {
		w += e.snapshot.Weight()
	}
	return w
}

// loadSnapshot goes through the row, so that a partition whose policy store does not exist, not yet
// or not any more, decides nothing.
func (s *Service) loadSnapshot(ctx context.Context, id copse.PolicyStoreID) (*compiled, error) {
	return s.renewSnapshot(ctx, id, &compiled{})
}

// renewSnapshot is loadSnapshot after a change: what the former snapshot has of the policies that did not
// change need not be parsed and compiled again. Versions are revisions of the partition, so within an
// incarnation a version is one text.
func (s *Service) renewSnapshot(ctx context.Context, id copse.PolicyStoreID, former *compiled) (*compiled, error) {
	r, err := s.rows.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	loaded, err := s.read(ctx, id, r.incarnation)
	if errors.Is(err, storage.ErrNotFound) {
		return nil, notFound(id)
	}
	// A body that can't be decoded stays so until the next change; that storage fails may be over in a moment.
	if copse.KindOf(err) == copse.Internal && isOurs(err) {
		return &compiled{incarnation: r.incarnation, broken: s.broken(ctx, id, "", err)}, nil
	}
	if err != nil {
		return nil, err
	}
	e := &compiled{incarnation: r.incarnation, revision: loaded.revision, forbids: make(map[copse.PolicyID]struct{})}
	e.logging = s.compileLogging(loaded.settings.logging(), r.incarnation)
	if len(loaded.identity) > 0 {
		e.source = loaded.identity[0]
	}
	// Nothing of another life is used again: a version there is another text.
	if former.incarnation != e.incarnation {
		former = &compiled{}
	}
	if e.turn = former.turn; e.turn == nil {
		e.turn = newTurn()
	}
	// The same parsed schema, and not only an equal one: the engine takes compiled policies over by it.
	if loaded.schemaBody != nil && former.schemaVersion == loaded.schemaVersion {
		loaded.parsed = former.schema
	}
	schema, err := loaded.schema()
	if err != nil {
		e.broken = s.broken(ctx, id, "schema", err)
		return e, nil
	}
	e.schema, e.schemaVersion = schema, loaded.schemaVersion
	sources := make([]engine.Source, len(loaded.policies))
	parse := loaded.parser()
	for i := range loaded.policies {
		p := &loaded.policies[i]
		sources[i] = engine.Source{Ref: copse.PolicyRef{ID: p.id, Name: p.body.Name}, Version: p.changed()}
		if former.snapshot.Holds(schema, sources[i]) {
			if _, forbids := former.forbids[p.id]; forbids {
				e.forbids[p.id] = struct{}{}
			}
			continue
		}
		// One that does not parse is not left out: it could be the forbid that everything depends on.
		parsed, err := parse(p)
		if err != nil {
			e.broken = s.broken(ctx, id, "policy "+string(p.id), err)
			return e, nil
		}
		if parsed.Forbids() {
			e.forbids[p.id] = struct{}{}
		}
		sources[i].Policy = parsed
	}
	if e.snapshot, err = former.snapshot.Recompile(schema, loaded.settings.settings(), sources); err != nil {
		e.broken = s.broken(ctx, id, "policies", err)
	}
	return e, nil
}

// isOurs tells a body that can't be decoded from a backend that fails.
func isOurs(err error) bool {
	_, ok := errors.AsType[*copse.Error](err)
	return ok
}

// broken tells the operator which policy store can't be decided and why, once per change and not once
// per request. Leaving out what does not parse would leave out a forbid: nothing is decided instead.
func (s *Service) broken(ctx context.Context, id copse.PolicyStoreID, what string, err error) error {
	s.log.ErrorContext(ctx, "a policy store can't be compiled; its decisions are refused until it is changed",
		"policy_store", id, "what", what, "err", err)
	return &copse.Error{Kind: copse.Unavailable, Resource: copse.ResourcePolicyStore, ID: string(id),
		Detail: "the policy store can't be decided on now",
		Err:    &copse.Error{Kind: copse.Internal, Detail: fmt.Sprintf("policy store %s: stored %s can't be compiled", id, what), Err: err}}
}

// Decider decides without asking who calls: for the authorizer, whose authority is the user's token,
// and for embedded.
func (s *Service) Decider() copse.Decider { return decider{s} }

type decider struct{ s *Service }

// Decide charges the policy store as the AVP operation that a user's token would come by. With an error the
// Response is zero.
func (d decider) Decide(ctx context.Context, req *copse.Request) (copse.Response, error) {
	if err := d.s.chargeUser(ctx, req.PolicyStoreID, 1); err != nil {
		d.s.metrics.failed(err)
		return copse.Response{}, err
	}
	return d.s.decide(ctx, req)
}

// chargeUser charges a policy store for decisions that a user's token asks for.
// NotFound when there is no such policy store, Throttled over its rate, Unavailable when neither can be known.
func (s *Service) chargeUser(ctx context.Context, id copse.PolicyStoreID, decisions int) error {
	r, err := s.rows.Get(ctx, id)
	if err != nil {
		return unknowable(err, id)
	}
	return s.charge(ctx, id, r, access.Decide, "IsAuthorizedWithToken", decisions)
}

// DecideAs decides for a caller whose key must cover the policy store with Decide. Denied while the
// policy store's tenant is suspended: a key must not be a way around that.
// NotFound when the key does not cover it, Throttled over its rate, Unavailable when it can't be decided now.
func (s *Service) DecideAs(ctx context.Context, c access.Caller, req *copse.Request) (copse.Response, error) {
	v, err := s.ViewAs(ctx, c, "IsAuthorized", req.PolicyStoreID, 1)
	if err != nil {
		return copse.Response{}, err
	}
	return v.Decide(ctx, req)
}

// activeTenant refuses a tenant's policy store unless the directory says that the tenant is active and
// decides there.
// NotFound where the tenant is unknown or has another policy store, Denied where it is suspended, Unavailable
// where the directory can't be read.
func (s *Service) activeTenant(ctx context.Context, tenant copse.TenantID, id copse.PolicyStoreID) (copse.DirectoryEntry, error) {
	directory := s.tenants.Load()
	if directory == nil {
		return copse.DirectoryEntry{}, unknowable(errors.New("no directory was given to ask for the tenant's state"), id)
	}
	entry, err := (*directory).Lookup(ctx, tenant)
	switch {
	case err != nil && copse.KindOf(err) == copse.NotFound, err == nil && entry.PolicyStoreID != id:
		return copse.DirectoryEntry{}, notFound(id)
	case err != nil:
		return copse.DirectoryEntry{}, unknowable(err, id)
	case entry.State != copse.TenantActive:
		return copse.DirectoryEntry{}, &copse.Error{Kind: copse.Denied, Resource: copse.ResourcePolicyStore, ID: string(id),
			Detail: "the decisions of this policy store's tenant are suspended"}
	}
	return entry, nil
}

// decide is Decide without the charge.
func (s *Service) decide(ctx context.Context, req *copse.Request) (copse.Response, error) {
	e, err := s.snapshot(ctx, req.PolicyStoreID, req.Incarnation)
	if err != nil {
		s.metrics.failed(err)
		return copse.Response{}, err
	}
	return s.decideOn(ctx, e, req)
}

// snapshot is the policy store compiled, of this incarnation unless that is zero.
// NotFound for another incarnation and for no policy store; Unavailable for all else, a policy store that can't
// be compiled included.
func (s *Service) snapshot(ctx context.Context, id copse.PolicyStoreID, incarnation copse.Incarnation) (*compiled, error) {
	e, err := s.snapshots.Get(ctx, id)
	switch {
	case err != nil:
		return nil, unknowable(err, id)
	case !incarnation.IsZero() && incarnation != e.incarnation:
		return nil, notFound(id)
	case e.broken != nil:
		return nil, e.broken
	}
	return e, nil
}

// decideOn decides by one snapshot, in its turn where that is needed. Each answer bears its revision.
func (s *Service) decideOn(ctx context.Context, e *compiled, req *copse.Request) (copse.Response, error) {
	read := int64(size(req))
	var out copse.Response
	var err error
	if noTurn := s.inTurn(ctx, req.PolicyStoreID, e, read, func() {
		var steps int
		out, steps, err = e.snapshot.DecideCounted(req)
		e.turn.spent(read + int64(steps))
	}); noTurn != nil {
		err = noTurn
	} else {
		s.tallies.decided(req.PolicyStoreID, e)
	}
	if err != nil {
		s.metrics.failed(err)
		return copse.Response{}, err
	}
	out.Revision = e.revision
	s.metrics.decided(e, &out)
	return out, nil
}

// inTurn does what costs processor time, when it is its turn. The error is that of a turn that did not come.
// cost is what is known of it beforehand, in steps. When there is an error, do was not called.
func (s *Service) inTurn(ctx context.Context, id copse.PolicyStoreID, e *compiled, cost int64, do func()) error {
	taken, err := s.turns.begin(ctx, id, e.turn, cost)
	if err != nil {
		if copse.KindOf(err) == copse.Throttled {
			s.metrics.rates[rateTurns].Inc()
			s.tallies.refused(id)
		}
		return err
	}
	defer s.turns.end(e.turn, taken) // also after a defect: a turn that is lost is lost to everybody
	do()
	return nil
}
