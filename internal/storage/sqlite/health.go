package sqlite

import (
	"context"
	"time"
)

// Newest is the time of the newest audit row: that of the last change, by the clock there was then. Zero
// when there was no change yet.
func (b *Backend) Newest(ctx context.Context) (at time.Time, err error) {
	err = b.read(ctx, func(r *reader) error {
		_, err := r.newest.one(func(r *row) error {
			at = r.time()
			return r.err
		})
		return err
	})
	return at, err
}

// Free is the room on the disk; false where that can't be known.
func (b *Backend) Free() (bytes uint64, ok bool) { return free(b.dir) }
