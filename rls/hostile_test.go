package rls_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver of database/sql

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/rls"
)

// What one tenant's transaction leaves behind, with a pool of one connection, which the next gets.
func TestNothingIsLeftForTheNextTenant(t *testing.T) {
	database := newDatabase(t)
	for name, leave := range map[string]func(t *testing.T, db *rls.DB, acme context.Context){
		"a panic": func(t *testing.T, db *rls.DB, acme context.Context) {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_ = db.InTx(acme, pgx.TxOptions{}, func(tx *rls.Tx) error {
				if _, err := tx.Exec(acme, "UPDATE invoices SET amount = 0"); err != nil {
					t.Error(err)
				}
				panic("in a handler")
			})
		},
		"a context that ends in a statement": func(t *testing.T, db *rls.DB, acme context.Context) {
			ctx, cancel := context.WithCancel(acme)
			err := db.InTx(ctx, pgx.TxOptions{}, func(tx *rls.Tx) error {
				if _, err := tx.Exec(ctx, "UPDATE invoices SET amount = 0"); err != nil {
					t.Error(err)
				}
				cancel()
				_, err := tx.Exec(ctx, "SELECT pg_sleep(60)")
				return err
			})
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		},
		"a context that ended in a batch": func(t *testing.T, db *rls.DB, acme context.Context) {
			ctx, cancel := context.WithCancel(acme)
			batch := &pgx.Batch{}
			batch.Queue("UPDATE invoices SET amount = 0")
			batch.Queue("SELECT pg_sleep(60)")
			context.AfterFunc(ctx, func() {})
			go cancel()
			if err := db.SendBatch(ctx, batch).Close(); err == nil {
				t.Error("no error")
			}
		},
		"rows that were not read": func(t *testing.T, db *rls.DB, acme context.Context) {
			rows, err := db.Query(acme, everything)
			if err != nil || !rows.Next() {
				t.Error(err)
			}
			rows.Close()
		},
		"an error": func(t *testing.T, db *rls.DB, acme context.Context) {
			if _, err := db.Exec(acme, "SELECT 1/0"); err == nil {
				t.Error("no error")
			}
		},
		"a setting of the session": func(t *testing.T, db *rls.DB, acme context.Context) {
			mustExec(t, db, acme, "SET copse.tenant = 'acme'")
			mustExec(t, db, acme, "SELECT set_config('copse.tenant', 'acme', false)")
		},
		"RESET ALL":                  statements("RESET ALL"),
		"a COMMIT of its own":        statements("COMMIT"),
		"a BEGIN of its own":         statements("BEGIN"),
		"a prepared statement":       statements("PREPARE mine AS SELECT amount FROM invoices ORDER BY amount", "EXECUTE mine"),
		"a cursor":                   statements("DECLARE mine CURSOR FOR SELECT amount FROM invoices"),
		"a cursor that is held":      statements("DECLARE mine CURSOR WITH HOLD FOR SELECT amount FROM invoices ORDER BY amount"),
		"a listener":                 statements("LISTEN invoices"),
		"row_security off":           statements("SET row_security = off"),
		"a savepoint rolled back to": statements("SAVEPOINT a", "SELECT set_config('copse.tenant', 'globex', true)", "ROLLBACK TO a"),
	} {
		t.Run(name, func(t *testing.T) {
			b := &bank{name: database}
			b.open(t, pg.URL(database, database)+" pool_max_conns=1")
			leave(t, b.db, as(t, "acme"))
			globex := as(t, "globex")
			if name == "row_security off" {
				// A query that the policies would change is then an error, not all rows.
				if _, err := b.db.Exec(globex, everything); err == nil {
					t.Error("without row security, no error")
				}
				mustExec(t, b.db, globex, "RESET row_security")
			}
			if got := amounts(t, globex, b.db, everything); !slices.Equal(got, ofGlobex) {
				t.Errorf("globex sees %v", got)
			}
			for _, way := range []string{"FETCH ALL FROM mine", "EXECUTE mine"} {
				err := b.db.InTx(globex, pgx.TxOptions{}, func(tx *rls.Tx) error {
					rows, err := tx.Query(globex, way, pgx.QueryExecModeExec)
					if err != nil {
						return err
					}
					got, err := pgx.CollectRows(rows, pgx.RowTo[int64])
					if err == nil && !slices.Equal(got, ofGlobex) {
						t.Errorf("%s gives globex %v", way, got)
					}
					return err
				})
				if err == nil && name != "a prepared statement" {
					t.Errorf("globex found something of acme's by %s", way)
				}
			}
			if got := pg.Exec(t, b.name, "SELECT sum(amount) FROM invoices"); got != "36" {
				t.Errorf("the amounts sum up to %s", got)
			}
		})
	}
}

// statements runs some in one transaction of acme's and commits; what they answer is not the point.
func statements(sqls ...string) func(*testing.T, *rls.DB, context.Context) {
	return func(t *testing.T, db *rls.DB, acme context.Context) {
		t.Helper()
		tx, err := db.Begin(acme)
		if err != nil {
			t.Fatal(err)
		}
		for _, sql := range sqls {
			if _, err := tx.Exec(acme, sql, pgx.QueryExecModeExec); err != nil {
				t.Errorf("%s: %v", sql, err)
			}
		}
		if err := tx.Commit(acme); err != nil {
			t.Error(err)
		}
	}
}

func mustExec(t *testing.T, db *rls.DB, ctx context.Context, sql string) {
	t.Helper()
	if _, err := db.Exec(ctx, sql); err != nil {
		t.Errorf("%s: %v", sql, err)
	}
}

// What the role can't do, whatever the statement.
func TestTheRoleCannotStepOut(t *testing.T) {
	b := newBank(t, "")
	acme := as(t, "acme")
	for _, sql := range []string{
		"SET ROLE postgres", "SET SESSION AUTHORIZATION postgres", "SET LOCAL ROLE postgres",
		"CREATE TEMP TABLE mine AS SELECT * FROM invoices", "CREATE TABLE mine (a int)", "CREATE SCHEMA mine",
		"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "DROP POLICY copse_tenant_only ON invoices",
		"COPY invoices TO '/tmp/x'", "COPY invoices (tenant_id, amount) FROM STDIN", "LOCK TABLE invoices", "TRUNCATE invoices",
		"ALTER ROLE " + b.name + " BYPASSRLS", "GRANT SELECT ON invoices TO PUBLIC", "SELECT lo_import('/etc/passwd')", "SELECT pg_read_file('/etc/passwd')",
	} {
		if _, err := b.db.Exec(acme, sql); err == nil && sql != "GRANT SELECT ON invoices TO PUBLIC" && !strings.HasPrefix(sql, "LOCK") {
			t.Errorf("%s was done", sql)
		}
	}
	if got := pg.Exec(t, b.name, "SELECT has_table_privilege('public', 'invoices', 'SELECT')"); got != "f" {
		t.Errorf("PUBLIC may read: %s", got)
	}
	if _, err := b.db.Exec(acme, "DISCARD ALL"); err == nil {
		// Where a server allows it in a batch, what follows has no tenant.
		if got := amounts(t, acme, b.db, everything); !slices.Equal(got, ofAcme) {
			t.Errorf("after DISCARD ALL acme sees %v", got)
		}
	}
	// COPY TO is covered by the policies, and so is a cursor.
	tag, err := b.db.Exec(acme, "COPY (SELECT * FROM invoices) TO STDOUT")
	if err == nil && tag.RowsAffected() != int64(len(ofAcme)) {
		t.Errorf("COPY of a query has %v rows", tag)
	}
}

func TestSavepoints(t *testing.T) {
	b := newBank(t, "")
	acme := as(t, "acme")
	undone := errors.New("undone")
	err := b.db.InTx(acme, pgx.TxOptions{}, func(tx *rls.Tx) error {
		if err := tx.InTx(acme, func(inner *rls.Tx) error {
			if inner.Tenant() != "acme" {
				t.Errorf("the savepoint is bound to %q", inner.Tenant())
			}
			_, err := inner.Exec(acme, "DELETE FROM invoices")
			return errors.Join(err, undone)
		}); !errors.Is(err, undone) {
			t.Error(err)
		}
		if got := amounts(t, acme, tx, everything); !slices.Equal(got, ofAcme) {
			t.Errorf("after going back to the savepoint: %v", got)
		}
		return tx.InTx(acme, func(inner *rls.Tx) error {
			_, err := inner.Exec(acme, "UPDATE invoices SET amount = amount + 100")
			return err
		})
	})
	if err != nil {
		t.Error(err)
	}
	if got := amounts(t, acme, b.db, everything); !slices.Equal(got, []int64{101, 102, 103}) {
		t.Errorf("after the transaction: %v", got)
	}
}

// Two tenants through PgBouncer in transaction mode, 32 clients on 4 connections of the server: each
// query forgets its WHERE clause, and none sees the other tenant's rows.
func TestLaw9ThroughPgBouncer(t *testing.T) {
	const goroutines, rounds, least = 32, 12, 1500
	name := newDatabase(t)
	url := pg.PgBouncer(t, 4)(name, name) + " default_query_exec_mode=exec"
	b := &bank{name: name}
	b.open(t, url+" pool_max_conns=16")
	plain, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	plain.SetMaxOpenConns(16)
	sqlDB := rls.WrapSQL(plain)

	var queries, crossings, nobody atomic.Int64
	tenants := map[copse.TenantID][]int64{"acme": ofAcme, "globex": ofGlobex}
	look := func(want []int64, got []int64) {
		queries.Add(1)
		for _, amount := range got {
			if !slices.Contains(want, amount) {
				crossings.Add(1)
			}
		}
		if len(got) != len(want) {
			crossings.Add(1)
		}
	}
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(g)))
			for range rounds {
				tenant := []copse.TenantID{"acme", "globex"}[random.IntN(2)]
				if err := visit(as(t, tenant), b, sqlDB, func(got []int64) { look(tenants[tenant], got) }, random); err != nil {
					t.Error(err)
					return
				}
				got := amounts(t, t.Context(), b.pool, everything)
				nobody.Add(1)
				if len(got) > 0 {
					t.Errorf("without a tenant: %v", got)
				}
			}
		})
	}
	wg.Wait()
	if queries.Load() < least || nobody.Load() < goroutines*rounds || crossings.Load() != 0 {
		t.Errorf("%d queries (want at least %d), %d without a tenant, %d crossings", queries.Load(), least, nobody.Load(), crossings.Load())
	}
	if used := pg.Exec(t, name, "SELECT count(*) FROM pg_stat_activity WHERE usename = current_database()"); used != "4" && used != "3" && used != "2" {
		t.Errorf("%s connections of the server were used: nobody had to share", used)
	}
}

// visit looks at the table in each way there is, leaving some transactions in the middle.
func visit(ctx context.Context, b *bank, plain *rls.SQLDB, look func([]int64), random *rand.Rand) error {
	collect := func(q queryer) error {
		rows, err := q.Query(ctx, everything)
		if err != nil {
			return err
		}
		got, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		look(got)
		return err
	}
	err := collect(b.db)
	err = errors.Join(err, b.db.InTx(ctx, pgx.TxOptions{}, func(tx *rls.Tx) error {
		return errors.Join(collect(tx), tx.InTx(ctx, func(inner *rls.Tx) error { return collect(inner) }))
	}))
	if random.IntN(4) == 0 {
		short, cancel := context.WithCancel(ctx)
		failed := b.db.InTx(short, pgx.TxOptions{}, func(tx *rls.Tx) error {
			cancel()
			_, err := tx.Exec(short, "SELECT pg_sleep(5)")
			return err
		})
		cancel()
		if failed == nil {
			return errors.New("a cancelled transaction was committed")
		}
	}
	return errors.Join(err, plain.InTx(ctx, nil, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, everything)
		if err != nil {
			return err
		}
		defer rows.Close()
		var got []int64
		for rows.Next() {
			var amount int64
			if err := rows.Scan(&amount); err != nil {
				return err
			}
			got = append(got, amount)
		}
		look(got)
		return rows.Err()
	}))
}

// database/sql: the same promises, and what a held cursor of another tenant's is to it.
func TestSQLDB(t *testing.T) {
	name := newDatabase(t)
	plain, err := sql.Open("pgx", pg.URL(name, name))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	plain.SetMaxOpenConns(1)
	db := rls.WrapSQL(plain)
	if err := db.SelfTest(t.Context()); err != nil {
		t.Error(err)
	}
	for what, ctx := range map[string]context.Context{"nobody": t.Context(), "two": rls.ForTenant(as(t, "acme"), "globex")} {
		if tx, err := db.BeginTx(ctx, nil); err == nil || tx != nil || plain.Stats().InUse != 0 {
			t.Errorf("%s: a transaction began: %v", what, err)
		}
	}
	count := func(ctx context.Context) (n int) {
		t.Helper()
		err := db.InTx(ctx, nil, func(tx *sql.Tx) error {
			return tx.QueryRowContext(ctx, "SELECT count(*) FROM invoices").Scan(&n)
		})
		if err != nil {
			t.Error(err)
		}
		return n
	}
	acme, globex := as(t, "acme"), as(t, "globex")
	if a, g := count(acme), count(globex); a != 3 || g != 2 {
		t.Errorf("acme sees %d, globex %d", a, g)
	}
	err = db.InTx(acme, nil, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(acme, "DECLARE mine CURSOR WITH HOLD FOR SELECT amount FROM invoices")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	err = db.InTx(globex, nil, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(globex, "FETCH ALL FROM mine")
		return err
	})
	if err == nil {
		t.Error("globex fetched from acme's cursor")
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = db.InTx(acme, nil, func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(acme, "DELETE FROM invoices"); err != nil {
				t.Error(err)
			}
			panic("in a handler")
		})
	}()
	if a := count(acme); a != 3 {
		t.Errorf("after a panic acme sees %d", a)
	}
}

// The two compile to what sqlc's generated code asks for, and what a service would pass around.
func TestTenantIsAParameter(t *testing.T) {
	name := newDatabase(t)
	b := &bank{name: name}
	b.open(t, pg.URL(name, name))
	// Every byte that a tenant id may have, and a look that it comes out as it went in.
	id := copse.TenantID("A0.z_:@-" + strings.Repeat("x", 120))
	var got string
	if err := b.db.QueryRow(as(t, id), "SELECT current_setting('copse.tenant')").Scan(&got); err != nil || got != string(id) {
		t.Errorf("the setting is %q, %v", got, err)
	}
	for _, hostile := range []string{"acme'; RESET ROLE; --", "a\x00b", "acme ", "ACME\n", "\xff"} {
		if err := b.db.QueryRow(as(t, copse.TenantID(hostile)), "SELECT 1").Scan(); err == nil {
			t.Errorf("tenant %q was taken", hostile)
		}
	}
	if got := amounts(t, as(t, "ACME"), b.db, everything); len(got) > 0 {
		t.Errorf("ACME sees acme's %v", got)
	}
	// What is queued is the statement, with the tenant beside it.
	if text := fmt.Sprint(pg.Exec(t, name, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%set_config%' AND query LIKE '%'||'xxxx'||'%' AND pid <> pg_backend_pid()")); text != "0" {
		t.Errorf("%s statements have the tenant in their text", text)
	}
}
