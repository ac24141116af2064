package access

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"

	"github.com/copse-authz/copse"
)

const (
	// maxUnverified bounds what all callers together make this process hold before their signatures
	// are known to be good: an access key's id is no secret, and it is enough to get that far.
	maxUnverified = 64 << 20
	// freeUnverified of each body is not counted, so that a stranger who fills the bound stops no
	// ordinary decision. It is of the size of what an open connection costs anyway.
	freeUnverified = 16 << 10
)

// intake counts the bytes of bodies whose callers are not verified yet.
type intake struct{ held atomic.Int64 }

// take reports whether n more bytes fit; if not, nothing is taken.
func (in *intake) take(n int64) bool {
	if in.held.Add(n) > maxUnverified {
		in.held.Add(-n)
		return false
	}
	return true
}

// ErrBodyTooLarge is what ReadBody returns for a body over its limit.
var ErrBodyTooLarge = errors.New("the body is over its limit")

// ReadBody reads a request's body, growing as bytes arrive and never to more than the limit: a
// length that was only announced costs nothing. For a caller who is not verified yet the bytes count
// towards a bound over all such callers; over it the answer is Unavailable. They count until release
// is called, which is to be when the caller is verified or refused. It is never nil.
func (s *Service) ReadBody(r *http.Request, limit int64, verified bool) (body []byte, release func(), err error) {
	var taken int64
	release = func() {
		s.unverified.held.Add(-taken)
		taken = 0
	}
	// Announced too large: nothing is read.
	if r.ContentLength > limit {
		return nil, release, ErrBodyTooLarge
	}
	// One byte more than the limit tells a body that fits from one that does not.
	most := limit + 1
	if r.ContentLength >= 0 {
		most = r.ContentLength + 1
	}
	for {
		if len(body) == cap(body) {
			size := min(most, max(2*int64(cap(body)), freeUnverified))
			if size == int64(len(body)) {
				return nil, release, ErrBodyTooLarge
			}
			// Counted before it is allocated.
			if more := size - freeUnverified - taken; !verified && more > 0 {
				if !s.unverified.take(more) {
					return nil, release, &copse.Error{Kind: copse.Unavailable,
						Detail: "too many large requests are waiting for their signatures to be verified; try again"}
				}
				taken += more
			}
			body = append(make([]byte, 0, size), body...)
		}
		n, err := r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		_, over := errors.AsType[*http.MaxBytesError](err)
		switch {
		case over || int64(len(body)) > limit:
			return nil, release, ErrBodyTooLarge
		case errors.Is(err, io.EOF):
			return body, release, nil
		case err != nil:
			return nil, release, copse.Errorf(copse.Invalid, "the body could not be read to its end: %w", err)
		}
	}
}
