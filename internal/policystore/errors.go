package policystore

import (
	"errors"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// notFound is the answer for a policy store that is absent, and for one that is another's.
func notFound(id copse.PolicyStoreID) error {
	return copse.NotFoundError(copse.ResourcePolicyStore, string(id))
}

// fromStorage is [storage.AsError] for a policy store that may not be there.
func fromStorage(err error, id copse.PolicyStoreID) error {
	if _, ok := errors.AsType[*copse.Error](err); !ok && (errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrNoHead)) {
		return notFound(id)
	}
	return storage.AsError(err, copse.ResourcePolicyStore, string(id))
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
