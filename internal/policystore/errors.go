package policystore

import (
	"context"
	"errors"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

func notFound(id copse.PolicyStoreID) error {
	return copse.NotFoundError(copse.ResourcePolicyStore, string(id))
}

// fromStorage gives a backend's error the kind a caller can act on. Anything the contract does not
// name is Internal, and its text stays in the log.
func fromStorage(err error, id copse.PolicyStoreID) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*copse.Error](err); ok {
		return err
	}
	e := &copse.Error{Resource: copse.ResourcePolicyStore, ID: string(id), Err: err}
	switch {
	case errors.Is(err, storage.ErrNotFound), errors.Is(err, storage.ErrNoHead):
		return notFound(id)
	case errors.Is(err, storage.ErrConflict), errors.Is(err, storage.ErrExists):
		e.Kind, e.Detail = copse.Conflict, "the policy store was changed by others meanwhile; read it again and retry"
	case errors.Is(err, storage.ErrTooLarge):
		e.Kind, e.Detail = copse.QuotaExceeded, "the change is too large for one commit: "+err.Error()
	case errors.Is(err, storage.ErrFull):
		e.Kind, e.Detail = copse.Unavailable, "storage is full; nothing was written"
	case errors.Is(err, storage.ErrFailing):
		e.Kind, e.Detail = copse.Unavailable, "the disk can't be read or written now; read again before you repeat a change, which may have been stored"
	case errors.Is(err, storage.ErrClosed):
		e.Kind, e.Detail = copse.Unavailable, "the server is shutting down"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		e.Kind, e.Detail = copse.Unavailable, "the request ended before storage answered"
	default:
		e.Kind, e.Detail = copse.Internal, "storage failed: "+err.Error()
	}
	return e
}

// unknowable is fromStorage for reads a decision depends on: when storage fails in a way nobody
// foresaw, the answer can't be known now, which is not the same as a defect in the request.
func unknowable(err error, id copse.PolicyStoreID) error {
	err = fromStorage(err, id)
	if copse.KindOf(err) == copse.NotFound {
		return err
	}
	return &copse.Error{Kind: copse.Unavailable, Resource: copse.ResourcePolicyStore, ID: string(id),
		Detail: "the policy store can't be read now", Err: err}
}
