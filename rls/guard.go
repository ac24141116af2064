package rls

import "github.com/jackc/pgx/v5"

// Rows and results of pgx lead to the connection they came over, which goes back to the pool and to
// another tenant. The types here are the same without that way.

// guardedRows are pgx's in everything but Conn.
type guardedRows struct{ pgx.Rows }

// Conn returns nil: what is sent over the bare connection is bound to no transaction.
func (guardedRows) Conn() *pgx.Conn { return nil }

// ownedRows belong to a batch of their own, which ends with them.
type ownedRows struct {
	guardedRows
	br  guardedResults
	err error
}

// Next gives the connection back at the end of the rows, for callers who do not close them.
func (r *ownedRows) Next() bool {
	if r.guardedRows.Next() {
		return true
	}
	r.Close()
	return false
}

// Close gives the connection back. What the commit found wrong becomes the rows' error.
func (r *ownedRows) Close() {
	r.guardedRows.Close()
	if err := r.br.Close(); r.err == nil {
		r.err = err
	}
}

// Err is complete once the rows are closed or read to their end: only then was the transaction committed.
func (r *ownedRows) Err() error {
	if err := r.guardedRows.Err(); err != nil {
		return err
	}
	return r.err
}

// row is the first of some rows, which are read to their end: an INSERT ... RETURNING has done its work
// only then.
type row struct {
	rows pgx.Rows
	err  error
}

// Scan is pgx.ErrNoRows when there is none. For [DB.QueryRow] it is also where a failed commit shows.
func (r *row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.rows.Close()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return pgx.ErrNoRows
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	r.rows.Close()
	return r.rows.Err()
}

// guardedResults hand out guarded rows and no transaction, whose Conn would lead to the bare connection.
type guardedResults struct{ pgx.BatchResults }

func (br guardedResults) Query() (pgx.Rows, error) {
	rows, err := br.BatchResults.Query()
	return guardedRows{rows}, err
}

func (br guardedResults) Tx() pgx.Tx { return nil }

// close ends results that failed with err, which their Close repeats.
func (br guardedResults) close(err error) error {
	if closed := br.Close(); closed != nil && closed.Error() != err.Error() {
		return closed
	}
	return nil
}

// appendGuarded copies what is queued in b to the end of whole. The queries are copied because sending
// changes them, and so that b's functions are handed guarded results.
func appendGuarded(whole, b *pgx.Batch) {
	for _, q := range b.QueuedQueries {
		added := whole.Queue(q.SQL, q.Arguments...)
		if f := q.Fn; f != nil {
			added.Fn = func(br pgx.BatchResults) error { return f(guardedResults{br}) }
		}
	}
}

// failedRows are rows that were never asked for.
func failedRows(err error) pgx.Rows {
	rows, _ := pgx.FailedBatchResults(&pgx.Batch{}, err).Query()
	return rows
}
