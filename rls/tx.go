package rls

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/bound"
)

// Tx is a transaction that is bound to a tenant. It has pgx.Tx's methods but those that lead around row
// security: Conn, LargeObjects (large objects have no policies) and CopyFrom (PostgreSQL refuses COPY FROM
// on a table with policies). As with pgx, one goroutine at a time may use it.
//
// A statement whose context is bound to another tenant than the transaction is refused: it is another
// tenant's work that got hold of this transaction.
type Tx struct {
	tx     pgx.Tx
	tenant copse.TenantID
}

// Tenant is the tenant the transaction is bound to.
func (tx *Tx) Tenant() copse.TenantID { return tx.tenant }

// Begin makes a savepoint, which the returned Tx commits or rolls back to. It is bound as tx is.
func (tx *Tx) Begin(ctx context.Context) (*Tx, error) {
	if err := tx.check(ctx); err != nil {
		return nil, err
	}
	nested, err := tx.tx.Begin(ctx)
	if err != nil {
		return nil, err
	}
	return &Tx{tx: nested, tenant: tx.tenant}, nil
}

// InTx runs f in a savepoint: kept when f returns nil, undone when it returns an error or panics.
func (tx *Tx) InTx(ctx context.Context, f func(*Tx) error) error {
	nested, err := tx.Begin(ctx)
	if err != nil {
		return err
	}
	return nested.run(ctx, f)
}

// run commits what f did, if f returned nil. A panic goes on to the caller, after the rollback.
func (tx *Tx) run(ctx context.Context, f func(*Tx) error) error {
	// After a commit this does nothing; after an error, a panic or a context that ended it gives the
	// connection back, or closes it when it is no longer known what state it is in.
	defer func() { _ = tx.Rollback(ctx) }()
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// Commit commits the transaction, or keeps what was done since the savepoint.
func (tx *Tx) Commit(ctx context.Context) error { return tx.tx.Commit(ctx) }

// Rollback undoes the transaction, or what was done since the savepoint. After Commit it does nothing
// and returns pgx.ErrTxClosed.
func (tx *Tx) Rollback(ctx context.Context) error { return tx.tx.Rollback(ctx) }

// Exec runs a statement.
func (tx *Tx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if err := tx.check(ctx); err != nil {
		return pgconn.CommandTag{}, err
	}
	return tx.tx.Exec(ctx, sql, args...)
}

// Query runs a statement that has rows.
func (tx *Tx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if err := tx.check(ctx); err != nil {
		return failedRows(err), err
	}
	rows, err := tx.tx.Query(ctx, sql, args...)
	return guardedRows{rows}, err
}

// QueryRow runs a statement that has at most one row; its error is that of Scan.
func (tx *Tx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, err := tx.Query(ctx, sql, args...)
	return &row{rows: rows, err: err}
}

// SendBatch sends several statements in one round trip.
func (tx *Tx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	err := tx.check(ctx)
	if pgx.FailedBatchResults(b, errors.ErrUnsupported).Tx() != nil {
		err = copse.Errorf(copse.Invalid, "rls: a batch inside a transaction can't begin another; use Tx.Begin for a savepoint")
	}
	if err != nil {
		return pgx.FailedBatchResults(&pgx.Batch{}, err)
	}
	guarded := &pgx.Batch{}
	appendGuarded(guarded, b)
	return guardedResults{tx.tx.SendBatch(ctx, guarded)}
}

// check lets a context that is bound to no tenant pass: the transaction's own binding holds for it.
func (tx *Tx) check(ctx context.Context) error {
	if bound.Disagrees(ctx, tx.tenant) {
		return copse.Errorf(copse.Internal, "rls: nothing was sent to the database: the transaction is bound to tenant %q and the statement's context is not", tx.tenant)
	}
	return nil
}
