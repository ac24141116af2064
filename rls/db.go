package rls

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/bound"
)

// Setting is the PostgreSQL setting that names the tenant of a transaction. The policies that
// [AddTable] writes read it.
const Setting = "copse.tenant"

// Local to the transaction, so that nothing is left on a connection that others use next.
const bindTenant = "SELECT pg_catalog.set_config('" + Setting + "', $1, true)"

// A cursor WITH HOLD outlives its transaction, and would show the rows of one tenant to the next that
// gets the connection.
const closeHeld = "CLOSE ALL"

// ForTenant binds a context to a tenant where there is no user whose token says so: in jobs, migrations
// of data, command line tools. In a service that serves users, pep's middleware has bound the context.
//
// It can't change a tenant. A context that is bound to another is bound to none afterwards, and nothing
// starts with it: so this is no way for a handler to trust a header.
func ForTenant(ctx context.Context, tenant copse.TenantID) context.Context {
	return bound.WithTenant(ctx, tenant)
}

// DB is a pool whose every statement runs in a transaction that is bound to the tenant of its context.
// It has no method that gives away a connection. It is safe for concurrent use.
//
// Exec, Query, QueryRow and SendBatch are what sqlc's generated code asks of a database.
type DB struct {
	pool    *pgxpool.Pool
	expects expectations
}

// expectations of the database, for the self-test.
type expectations struct{ column string }

// Option changes what the self-test expects of the database.
type Option func(*expectations)

// TenantColumn names the column that holds the tenant. Without it, tenant_id.
func TenantColumn(name string) Option { return func(e *expectations) { e.column = name } }

// expect is the defaults with the options applied in order.
func expect(options []Option) expectations {
	e := expectations{column: defaultColumn}
	for _, o := range options {
		o(&e)
	}
	return e
}

// Open makes a pool from a connection string or URL, and runs [DB.SelfTest]: a database in which tenants
// are not kept apart is refused. Through PgBouncer in transaction mode, add default_query_exec_mode=exec
// to the string.
func Open(ctx context.Context, connString string, options ...Option) (*DB, error) {
	config, err := pgxpool.ParseConfig(connString)
	if err != nil {
		// pgx leaves the password out of its message.
		return nil, copse.Errorf(copse.Invalid, "rls: the connection string: %w", err)
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, copse.Errorf(copse.Unavailable, "rls: opening the pool: %w", err)
	}
	db, err := Wrap(pool, options...)
	if err == nil {
		err = db.SelfTest(ctx)
	}
	if err != nil {
		pool.Close()
		return nil, err
	}
	return db, nil
}

// Wrap makes a DB of a pool that is yours; call [DB.SelfTest] before you serve. What you do with the pool
// itself is bound to nobody, and PostgreSQL then shows nothing of anybody's.
//
// A pool that speaks the simple protocol is refused: it has no parameters, so pgx would write the tenant
// into the text of the statement.
func Wrap(pool *pgxpool.Pool, options ...Option) (*DB, error) {
	if pool.Config().ConnConfig.DefaultQueryExecMode == pgx.QueryExecModeSimpleProtocol {
		return nil, copse.Errorf(copse.Invalid, "rls: the simple protocol writes parameters into the statement; use default_query_exec_mode=exec, which works behind PgBouncer too")
	}
	return &DB{pool: pool, expects: expect(options)}, nil
}

const defaultColumn = "tenant_id"

// Close closes the pool once its connections have come back.
func (db *DB) Close() { db.pool.Close() }

// Ping tells whether the database answers. It needs no tenant.
func (db *DB) Ping(ctx context.Context) error { return db.pool.Ping(ctx) }

// Stat tells how the pool is used.
func (db *DB) Stat() *pgxpool.Stat { return db.pool.Stat() }

// SendBatch runs a batch as one transaction, bound to the context's tenant, in one round trip. Without a
// tenant nothing is sent. Close the results: only then is it known that the transaction was committed.
func (db *DB) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	br, err := db.send(ctx, b)
	if err != nil {
		return pgx.FailedBatchResults(&pgx.Batch{}, err)
	}
	return br
}

// send puts the binding in front of a batch and reads its two results. PostgreSQL runs what is sent together as one
// transaction, so no statement of b runs if the binding fails. After an error the connection has gone back.
func (db *DB) send(ctx context.Context, b *pgx.Batch) (guardedResults, error) {
	tenant, err := tenantOf(ctx)
	if err != nil {
		return guardedResults{}, err
	}
	// A batch does not say whether it begins a transaction; results that failed on purpose do.
	if pgx.FailedBatchResults(b, errors.ErrUnsupported).Tx() != nil {
		return guardedResults{}, copse.Errorf(copse.Invalid, "rls: this batch begins a transaction of its own; begin it with DB.BeginTx, which binds it")
	}
	whole := &pgx.Batch{}
	queueBinding(whole, tenant)
	appendGuarded(whole, b)
	br := guardedResults{db.pool.SendBatch(ctx, whole)}
	if err := readBinding(br); err != nil {
		return guardedResults{}, errors.Join(err, br.close(err))
	}
	return br, nil
}

// Exec runs one statement, as a transaction of its own, in one round trip.
func (db *DB) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	br, err := db.send(ctx, single(sql, args))
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	tag, err := br.Exec()
	if closed := br.Close(); err == nil {
		err = closed // what is checked at the commit fails here
	}
	return tag, err
}

// Query runs one statement, as a transaction of its own, in one round trip. As with pgx, the connection is
// in use until the rows are closed or read to their end.
func (db *DB) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	br, err := db.send(ctx, single(sql, args))
	if err != nil {
		return failedRows(err), err
	}
	rows, err := br.BatchResults.Query()
	r := &ownedRows{guardedRows: guardedRows{rows}, br: br}
	if err != nil {
		r.Close()
	}
	return r, err
}

// QueryRow is [DB.Query] for at most one row; its error is that of Scan.
func (db *DB) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, err := db.Query(ctx, sql, args...)
	return &row{rows: rows, err: err}
}

// Begin begins a transaction that is bound to the context's tenant.
func (db *DB) Begin(ctx context.Context) (*Tx, error) { return db.BeginTx(ctx, pgx.TxOptions{}) }

// BeginTx begins a transaction that is bound to the context's tenant, in one round trip. Without a tenant
// it does not begin.
func (db *DB) BeginTx(ctx context.Context, options pgx.TxOptions) (*Tx, error) {
	tenant, err := tenantOf(ctx)
	if err != nil {
		return nil, err
	}
	b := &pgx.Batch{}
	b.BeginTx(options)
	queueBinding(b, tenant)
	br := db.pool.SendBatch(ctx, b)
	tx := br.Tx()
	if err := br.Close(); err != nil {
		if tx != nil {
			_ = tx.Rollback(ctx) // gives the connection back; the first error is the one to tell
		}
		return nil, err
	}
	return &Tx{tx: tx, tenant: tenant}, nil
}

// InTx runs f in a transaction that is bound to the context's tenant: committed when f returns nil,
// rolled back when it returns an error or panics.
func (db *DB) InTx(ctx context.Context, options pgx.TxOptions, f func(*Tx) error) error {
	tx, err := db.BeginTx(ctx, options)
	if err != nil {
		return err
	}
	return tx.run(ctx, f)
}

// tenantOf is asked before anything is sent. The kind of its error is that of [bound.Tenant].
func tenantOf(ctx context.Context) (copse.TenantID, error) {
	tenant, err := bound.Tenant(ctx)
	if err != nil {
		return "", copse.Errorf(copse.KindOf(err), "rls: nothing was sent to the database: %w", err)
	}
	return tenant, nil
}

func queueBinding(b *pgx.Batch, tenant copse.TenantID) {
	b.Queue(closeHeld)
	b.Queue(bindTenant, string(tenant))
}

// readBinding takes the results of what queueBinding put in front.
func readBinding(br guardedResults) error {
	if _, err := br.Exec(); err != nil {
		return err
	}
	_, err := br.Exec()
	return err
}

// single is a batch of one statement.
func single(sql string, args []any) *pgx.Batch {
	b := &pgx.Batch{}
	b.Queue(sql, args...)
	return b
}
