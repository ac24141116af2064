package rls_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/rls"
)

// Law 9, whole: every way into the database, without a tenant, with two, and with one; and the bare
// connection, for which the database itself has to refuse.
func TestLaw9NothingWithoutATenant(t *testing.T) {
	b := newBank(t, "")
	nobody := t.Context()
	both := rls.ForTenant(as(t, "acme"), "globex")
	for name, ctx := range map[string]context.Context{"nobody": nobody, "two tenants": both, "an empty tenant": rls.ForTenant(nobody, "")} {
		for way, try := range ways(b.db) {
			sent := b.pool.Stat().AcquireCount()
			if err := try(ctx, "UPDATE invoices SET amount = 0"); err == nil || !strings.Contains(err.Error(), "nothing was sent to the database") {
				t.Errorf("%s by %s: %v", name, way, err)
			}
			if now := b.pool.Stat().AcquireCount(); now != sent {
				t.Errorf("%s by %s: %d connections were taken", name, way, now-sent)
			}
		}
	}
	// The bare pool, as code that does not know rls would use it.
	if got := amounts(t, nobody, b.pool, everything); len(got) != 0 {
		t.Errorf("without a tenant: %v", got)
	}
	for _, sql := range []string{"UPDATE invoices SET amount = 0", "DELETE FROM invoices"} {
		if tag, err := b.pool.Exec(nobody, sql); err != nil || tag.RowsAffected() != 0 {
			t.Errorf("without a tenant, %s: %v, %v", sql, tag, err)
		}
	}
	for _, tenant := range []string{"'acme'", "''", "NULL", "DEFAULT"} {
		if _, err := b.pool.Exec(nobody, "INSERT INTO invoices (tenant_id, amount) VALUES ("+tenant+", 7)"); err == nil {
			t.Errorf("without a tenant, a row of %s was written", tenant)
		}
	}
	if got := pg.Exec(t, b.name, "SELECT count(*), sum(amount) FROM invoices"); got != "5|36" {
		t.Errorf("the table holds %s", got)
	}
}

// The empty string is what the setting reads as once a transaction that had it has ended.
func TestLaw9EmptyTenantIsNobody(t *testing.T) {
	b := newBank(t, "pool_max_conns=1")
	pg.Exec(t, b.name, "INSERT INTO invoices (tenant_id, amount) VALUES ('', 99)")
	if got := amounts(t, as(t, "acme"), b.db, everything); !slices.Equal(got, ofAcme) {
		t.Errorf("acme sees %v", got)
	}
	var setting *string
	if err := b.pool.QueryRow(t.Context(), "SELECT current_setting('copse.tenant', true)").Scan(&setting); err != nil || setting == nil || *setting != "" {
		t.Fatalf("after a transaction the setting is %v, %v; this test is about the empty string", setting, err)
	}
	if got := amounts(t, t.Context(), b.pool, everything); len(got) != 0 {
		t.Errorf("after a transaction, without a tenant: %v", got)
	}
}

// ways are all ways to run a statement, and what each answers.
func ways(db *rls.DB) map[string]func(ctx context.Context, sql string) error {
	return map[string]func(ctx context.Context, sql string) error{
		"Exec": func(ctx context.Context, sql string) error { _, err := db.Exec(ctx, sql); return err },
		"Query": func(ctx context.Context, sql string) error {
			rows, err := db.Query(ctx, sql)
			rows.Close()
			return err
		},
		"QueryRow": func(ctx context.Context, sql string) error { return db.QueryRow(ctx, sql).Scan() },
		"SendBatch": func(ctx context.Context, sql string) error {
			batch := &pgx.Batch{}
			batch.Queue(sql)
			return db.SendBatch(ctx, batch).Close()
		},
		"Begin": func(ctx context.Context, _ string) error {
			tx, err := db.Begin(ctx)
			if err == nil {
				_ = tx.Rollback(ctx) // or the pool would never close
			}
			return err
		},
		"InTx": func(ctx context.Context, sql string) error {
			return db.InTx(ctx, pgx.TxOptions{}, func(tx *rls.Tx) error { _, err := tx.Exec(ctx, sql); return err })
		},
	}
}

// Each mode of sending statements but the one that has no parameters.
func TestEveryModeIsBound(t *testing.T) {
	name := newDatabase(t)
	for _, mode := range []string{"cache_statement", "cache_describe", "describe_exec", "exec"} {
		t.Run(mode, func(t *testing.T) {
			b := &bank{name: name}
			b.open(t, pg.URL(name, name)+" pool_max_conns=1 default_query_exec_mode="+mode)
			for range 3 { // statements are remembered, and plans change after some runs
				for tenant, want := range map[copse.TenantID][]int64{"acme": ofAcme, "globex": ofGlobex, "initech": nil} {
					ctx := as(t, tenant)
					if got := amounts(t, ctx, b.db, everything); !slices.Equal(got, want) {
						t.Errorf("%s sees %v", tenant, got)
					}
					// With and without the condition that the policy makes needless.
					if got := amounts(t, ctx, b.db, "SELECT amount FROM invoices WHERE tenant_id = $1 ORDER BY amount", "acme"); tenant != "acme" && len(got) > 0 {
						t.Errorf("%s sees %v of acme's", tenant, got)
					}
					err := b.db.InTx(ctx, pgx.TxOptions{}, func(tx *rls.Tx) error {
						if got := amounts(t, ctx, tx, everything); !slices.Equal(got, want) {
							t.Errorf("%s sees %v in a transaction", tenant, got)
						}
						return nil
					})
					if err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	pool, err := pgxpool.New(t.Context(), pg.URL(name, name)+" default_query_exec_mode=simple_protocol")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := rls.Wrap(pool); copse.KindOf(err) != copse.Invalid {
		t.Errorf("the simple protocol: %v", err)
	}
}

func TestWritesStayWithTheTenant(t *testing.T) {
	b := newBank(t, "")
	acme := as(t, "acme")
	refused := func(sql string, args ...any) {
		t.Helper()
		var pgErr *pgconn.PgError
		if _, err := b.db.Exec(acme, sql, args...); !errors.As(err, &pgErr) || pgErr.Code != "42501" {
			t.Errorf("%s: %v, want it refused by the policy", sql, err)
		}
	}
	refused("INSERT INTO invoices (tenant_id, amount) VALUES ('globex', 7)")
	refused("INSERT INTO invoices (tenant_id, amount) VALUES ('', 7)")
	refused("UPDATE invoices SET tenant_id = 'globex' WHERE amount = 1")
	refused("TRUNCATE invoices")
	refused("ALTER TABLE invoices DISABLE ROW LEVEL SECURITY")
	// Without naming a tenant, a row is the transaction's.
	var tenant string
	if err := b.db.QueryRow(acme, "INSERT INTO invoices (amount) VALUES ($1) RETURNING tenant_id", 4).Scan(&tenant); err != nil || tenant != "acme" {
		t.Errorf("INSERT without a tenant: %q, %v", tenant, err)
	}
	if tag, err := b.db.Exec(acme, "DELETE FROM invoices"); err != nil || tag.RowsAffected() != 4 {
		t.Errorf("DELETE without WHERE: %v, %v", tag, err)
	}
	if got := pg.Exec(t, b.name, "SELECT tenant_id, sum(amount) FROM invoices GROUP BY 1"); got != "globex|30" {
		t.Errorf("left: %s", got)
	}
}

// A batch is one transaction: what fails in it undoes all of it.
func TestBatchIsOneTransaction(t *testing.T) {
	b := newBank(t, "")
	acme := as(t, "acme")
	batch := &pgx.Batch{}
	var seen []int64
	batch.Queue("INSERT INTO invoices (amount) VALUES (4)")
	batch.Queue(everything).Query(func(rows pgx.Rows) error {
		if rows.Conn() != nil {
			t.Error("rows in a batch give away their connection")
		}
		var err error
		seen, err = pgx.CollectRows(rows, pgx.RowTo[int64])
		return err
	})
	if err := b.db.SendBatch(acme, batch).Close(); err != nil || !slices.Equal(seen, []int64{1, 2, 3, 4}) {
		t.Errorf("batch: %v, %v", seen, err)
	}
	failing := &pgx.Batch{}
	failing.Queue("INSERT INTO invoices (amount) VALUES (5)")
	failing.Queue("SELECT 1/0")
	if err := b.db.SendBatch(acme, failing).Close(); err == nil {
		t.Error("a failing batch is no error")
	}
	if got := amounts(t, acme, b.db, everything); !slices.Equal(got, []int64{1, 2, 3, 4}) {
		t.Errorf("after a failed batch: %v", got)
	}
	// Results in the order of the queries; the binding's own are not among them.
	mixed := &pgx.Batch{}
	mixed.Queue("SELECT 41")
	mixed.Queue("SELECT 42")
	br := b.db.SendBatch(acme, mixed)
	var first, second int
	if err := errors.Join(br.QueryRow().Scan(&first), br.QueryRow().Scan(&second), br.Close()); err != nil || first != 41 || second != 42 {
		t.Errorf("results: %d, %d, %v", first, second, err)
	}
	beginning := &pgx.Batch{}
	beginning.BeginTx(pgx.TxOptions{})
	if err := b.db.SendBatch(acme, beginning).Close(); copse.KindOf(err) != copse.Invalid {
		t.Errorf("a batch that begins a transaction: %v", err)
	}
}

// What the commit finds wrong is an error of the statement, whichever way it was run.
func TestErrorsOfTheCommitAreTold(t *testing.T) {
	b := newBank(t, "")
	pg.Exec(t, b.name, `ALTER TABLE invoices ADD CONSTRAINT once UNIQUE (tenant_id, amount) DEFERRABLE INITIALLY DEFERRED`)
	acme := as(t, "acme")
	const twice = "INSERT INTO invoices (amount) VALUES (1) RETURNING amount"
	var amount int64
	rows, err := b.db.Query(acme, twice)
	if err == nil {
		_, err = pgx.CollectRows(rows, pgx.RowTo[int64])
	}
	_, execErr := b.db.Exec(acme, twice)
	for way, err := range map[string]error{"Query": err, "QueryRow": b.db.QueryRow(acme, twice).Scan(&amount), "Exec": execErr} {
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || pgErr.Code != "23505" {
			t.Errorf("%s: %v, want the unique violation", way, err)
		}
	}
	if err := b.db.QueryRow(acme, "SELECT amount FROM invoices WHERE amount = 77").Scan(&amount); !errors.Is(err, pgx.ErrNoRows) {
		t.Errorf("no row: %v", err)
	}
}

// No path leads from a DB to a bare connection.
func TestNoBareConnection(t *testing.T) {
	b := newBank(t, "pool_max_conns=1")
	acme := as(t, "acme")
	rows, err := b.db.Query(acme, everything)
	if err != nil || rows.Conn() != nil {
		t.Errorf("rows of a DB lead to %v (%v)", rows.Conn(), err)
	}
	rows.Close()
	tx, err := b.db.Begin(acme)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(acme) }()
	rows, err = tx.Query(acme, everything)
	if err != nil || rows.Conn() != nil {
		t.Errorf("rows of a Tx lead to %v (%v)", rows.Conn(), err)
	}
	rows.Close()
	batch := &pgx.Batch{}
	batch.Queue(everything)
	br := tx.SendBatch(acme, batch)
	if rows, err := br.Query(); err != nil || rows.Conn() != nil || br.Tx() != nil {
		t.Errorf("rows of a batch lead to %v (%v)", rows.Conn(), err)
	}
	if err := br.Close(); err != nil {
		t.Error(err)
	}
	for _, v := range []any{b.db, tx} {
		if _, ok := v.(interface{ Conn() *pgx.Conn }); ok {
			t.Errorf("%T has Conn", v)
		}
		if _, ok := v.(interface {
			Acquire(context.Context) (*pgxpool.Conn, error)
		}); ok {
			t.Errorf("%T has Acquire", v)
		}
	}
}

// Another tenant's work that got hold of a transaction is not done in it.
func TestStatementOfAnotherTenantIsRefused(t *testing.T) {
	b := newBank(t, "")
	acme, globex := as(t, "acme"), as(t, "globex")
	err := b.db.InTx(acme, pgx.TxOptions{}, func(tx *rls.Tx) error {
		_, execErr := tx.Exec(globex, "DELETE FROM invoices")
		_, queryErr := tx.Query(globex, everything)
		_, beginErr := tx.Begin(globex)
		batch := &pgx.Batch{}
		batch.Queue(everything)
		for way, err := range map[string]error{"Exec": execErr, "Query": queryErr, "Begin": beginErr, "QueryRow": tx.QueryRow(globex, everything).Scan(), "SendBatch": tx.SendBatch(globex, batch).Close()} {
			if err == nil || !strings.Contains(err.Error(), `bound to tenant "acme"`) {
				t.Errorf("%s: %v", way, err)
			}
		}
		if got := amounts(t, t.Context(), tx, everything); !slices.Equal(got, ofAcme) {
			t.Errorf("a context that is bound to nobody: %v", got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
