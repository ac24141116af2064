package rls

import (
	"context"
	"database/sql"
	"errors"

	"github.com/copse-authz/copse"
)

// SQLDB is database/sql with transactions that are bound to the tenant of their context, for any driver
// of PostgreSQL that takes $1 as a parameter. It has no method that gives away a connection or runs a
// statement outside of a transaction. It is safe for concurrent use.
type SQLDB struct {
	db      *sql.DB
	expects expectations
}

// WrapSQL makes an SQLDB. Run [SQLDB.SelfTest] before you serve. With pgx's driver behind PgBouncer, add
// default_query_exec_mode=exec to the connection string.
func WrapSQL(db *sql.DB, options ...Option) *SQLDB {
	return &SQLDB{db: db, expects: expect(options)}
}

// bindTenantIfClean binds a transaction, unless the connection has a cursor from another one: without
// batches, closing what is rarely there would cost each transaction a round trip.
const bindTenantIfClean = bindTenant + " WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)"

// BeginTx begins a transaction that is bound to the context's tenant, which takes one round trip more than
// a transaction by itself. Without a tenant it does not begin.
func (db *SQLDB) BeginTx(ctx context.Context, options *sql.TxOptions) (*sql.Tx, error) {
	tenant, err := tenantOf(ctx)
	if err != nil {
		return nil, err
	}
	tx, err := db.db.BeginTx(ctx, options)
	if err != nil {
		return nil, err
	}
	if err := bindSQL(ctx, tx, tenant); err != nil {
		_ = tx.Rollback() // gives the connection back; the first error is the one to tell
		return nil, err
	}
	return tx, nil
}

// bindSQL binds a transaction that has just begun, and compares what the database says the setting is: a driver
// that mangles the parameter must not bind another tenant. On an error the caller rolls back.
func bindSQL(ctx context.Context, tx *sql.Tx, tenant copse.TenantID) error {
	var set string
	err := tx.QueryRowContext(ctx, bindTenantIfClean, string(tenant)).Scan(&set)
	if errors.Is(err, sql.ErrNoRows) {
		if _, err = tx.ExecContext(ctx, closeHeld); err == nil {
			err = tx.QueryRowContext(ctx, bindTenantIfClean, string(tenant)).Scan(&set)
		}
	}
	if err == nil && set != string(tenant) {
		err = copse.Errorf(copse.Internal, "the database took another tenant than it was given")
	}
	if err != nil {
		return copse.Errorf(copse.Unavailable, "rls: binding the transaction: %w", err)
	}
	return nil
}

// InTx runs f in a transaction that is bound to the context's tenant: committed when f returns nil, rolled
// back when it returns an error or panics.
func (db *SQLDB) InTx(ctx context.Context, options *sql.TxOptions, f func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, options)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after a commit this does nothing
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}
