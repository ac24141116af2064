package storage

import (
	"context"
	"errors"

	"github.com/copse-authz/copse"
)

// AsError gives what a backend answered the kind that a caller can act on. What is an error of copse's
// already stays as it is, and so does nil. That something is not there is not for storage to name: whoever
// may meet ErrNotFound or ErrNoHead looks for it first. Anything else that the contract does not name is
// Internal, and its text stays in the log.
func AsError(err error, resource copse.ResourceType, id string) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*copse.Error](err); ok {
		return err
	}
	e := &copse.Error{Resource: resource, ID: id, Err: err}
	switch {
	case errors.Is(err, ErrConflict), errors.Is(err, ErrExists):
		e.Kind, e.Detail = copse.Conflict, "changed by others meanwhile; read it again and retry"
	case errors.Is(err, ErrTooLarge):
		e.Kind, e.Detail = copse.QuotaExceeded, "the change is too large for one commit: "+err.Error()
	case errors.Is(err, ErrFull):
		e.Kind, e.Detail = copse.Unavailable, "storage is full; nothing was written"
	case errors.Is(err, ErrFailing):
		e.Kind, e.Detail = copse.Unavailable, "the disk can't be read or written now; read again before you repeat a change, which may have been stored"
	case errors.Is(err, ErrCorrupt):
		e.Kind, e.Detail = copse.Unavailable, "stored data are damaged; the operator has to stop the server and run copse check"
	case errors.Is(err, ErrClosed):
		e.Kind, e.Detail = copse.Unavailable, "the server is shutting down"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		e.Kind, e.Detail = copse.Unavailable, "the request ended before storage answered"
	default:
		e.Kind, e.Detail = copse.Internal, "storage failed: "+err.Error()
	}
	return e
}
