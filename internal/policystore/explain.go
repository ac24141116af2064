package policystore

import (
	"context"
	"errors"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/engine"
	"github.com/copse-authz/copse/internal/storage"
)

// explanationCharge is how many decisions an explanation counts as: it decides, reads and parses the
// policies, and evaluates their parts one by one.
const explanationCharge = 20

// errMoved says that a policy is not any more what a snapshot was made of.
var errMoved = errors.New("the policy store was changed")

// Explain is the Decider's Decide with reasons. It asks for no caller either, and shows policies and values:
// whoever calls it has seen to it that its own caller may decide on the policy store.
//
// Answer and reasons are of one revision. Where a change comes between the two, both are of the newer one.
func (s *Service) Explain(ctx context.Context, req *copse.Request) (copse.Explanation, error) {
	out, err := s.explain(ctx, req)
	if err != nil {
		s.metrics.failed(err)
		return copse.Explanation{}, err
	}
	return out, nil
}

// explain reads policies from storage that the snapshot has only compiled. One that was changed since is another revision's, so
// it begins again with the newest snapshot rather than explain a decision by two revisions.
func (s *Service) explain(ctx context.Context, req *copse.Request) (copse.Explanation, error) {
	if err := s.chargeUser(ctx, req.PolicyStoreID, explanationCharge); err != nil {
		return copse.Explanation{}, err
	}
	for range maxAttempts {
		e, err := s.snapshot(ctx, req.PolicyStoreID, req.Incarnation)
		if err != nil {
			return copse.Explanation{}, err
		}
		var out copse.Explanation
		noTurn := s.inTurn(ctx, req.PolicyStoreID, e, expensive, func() { // always a turn: parts are evaluated again
			out, err = e.snapshot.Explain(req, func(policy copse.PolicyID) (*engine.Policy, error) {
				return s.asOf(ctx, req.PolicyStoreID, policy, e.revision)
			})
		})
		if noTurn != nil {
			return copse.Explanation{}, noTurn
		}
		s.tallies.decided(req.PolicyStoreID, e)
		if errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			return copse.Explanation{}, err
		}
		out.Revision = e.revision
		s.metrics.decided(e, &out.Response)
		return out, nil
	}
	return copse.Explanation{}, unknowable(storage.ErrConflict, req.PolicyStoreID)
}

// asOf reads a policy that was there at a revision; errMoved if it, or its template, changed since. An
// item's version is the revision that wrote it.
func (s *Service) asOf(ctx context.Context, id copse.PolicyStoreID, policy copse.PolicyID, revision uint64) (*engine.Policy, error) {
	p, err := s.stored(ctx, id, policy)
	switch {
	case err != nil && copse.KindOf(fromStorage(err, id)) == copse.NotFound:
		return nil, errMoved
	case err != nil:
		return nil, unknowable(err, id)
	case p.version > revision, p.template != nil && p.template.version > revision:
		return nil, errMoved
	}
	return p.parse(string(policy))
}
