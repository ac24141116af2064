package policystore

import (
	"context"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
)

// View is a policy store at one revision, for answers that belong together: the decisions of a batch,
// and the identity source by which their token was read.
type View struct {
	// IdentitySource by which the policy store reads tokens; nil: none. Shared; it must not be changed.
	IdentitySource *copse.IdentitySource
	// Tenant is the directory's entry of the policy store's tenant, which is active; zero for a policy
	// store of the operator's own.
	Tenant copse.DirectoryEntry
	// Incarnation of the policy store.
	Incarnation copse.Incarnation

	s *Service
	e *compiled
}

// ViewAs opens a policy store for a caller whose key must cover it with Decide, and charges it for so
// many decisions of the operation. Denied while its tenant is suspended: a key must not be a way around
// that.
func (s *Service) ViewAs(ctx context.Context, c access.Caller, operation string, id copse.PolicyStoreID, decisions int) (View, error) {
	v, err := s.viewAs(ctx, c, operation, id, decisions)
	if err != nil {
		s.metrics.failed(err)
		return View{}, err
	}
	return v, nil
}

// viewAs asks for the rights first, and charges before anything dear is done. What it returns stays one revision, so that the
// decisions of one batch are of one.
func (s *Service) viewAs(ctx context.Context, c access.Caller, operation string, id copse.PolicyStoreID, decisions int) (View, error) {
	r, err := s.find(ctx, c, access.Decide, id)
	if err == nil {
		err = s.charge(ctx, id, r, access.Decide, operation, decisions)
	}
	if err != nil {
		if copse.KindOf(err) == copse.Internal {
			err = unknowable(err, id)
		}
		return View{}, err
	}
	v := View{s: s}
	if r.tenant != "" {
		if v.Tenant, err = s.activeTenant(ctx, r.tenant, id); err != nil {
			return View{}, err
		}
	}
	if v.e, err = s.snapshot(ctx, id, r.incarnation); err != nil {
		return View{}, err
	}
	v.IdentitySource, v.Incarnation = v.e.source, v.e.incarnation
	return v, nil
}

// Decide answers by this revision. The request's policy store is not looked at; an incarnation that it names must be this one.
func (v View) Decide(ctx context.Context, req *copse.Request) (copse.Response, error) {
	if !req.Incarnation.IsZero() && req.Incarnation != v.Incarnation {
		return copse.Response{}, notFound(req.PolicyStoreID)
	}
	return v.s.decideOn(ctx, v.e, req)
}

// IdentitySource is the one by which a policy store reads tokens; nil: none. It asks for no caller: the
// authorizer's authority is the user's token. The answer is shared and must not be changed.
func (s *Service) IdentitySource(ctx context.Context, id copse.PolicyStoreID, incarnation copse.Incarnation) (*copse.IdentitySource, error) {
	e, err := s.snapshot(ctx, id, incarnation)
	if err != nil {
		s.metrics.failed(err)
		return nil, err
	}
	return e.source, nil
}
