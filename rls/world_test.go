package rls_test

import (
	"context"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/pgtest"
	"github.com/copse-authz/copse/rls"
)

var pg *pgtest.Cluster

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m, &pg)) }

// invoices is a table as a service would have it: 3 rows of acme's, 2 of globex's.
const invoices = `
CREATE TABLE invoices (
    tenant_id text NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    amount bigint NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
INSERT INTO invoices (tenant_id, amount) VALUES ('acme', 1), ('acme', 2), ('acme', 3), ('globex', 10), ('globex', 20);
`

// bank is a database that was set up as the documentation says. Its role has the database's name.
type bank struct {
	name string
	db   *rls.DB
	pool *pgxpool.Pool // of the same role, bound to nobody
}

// newBank makes a database with invoices; parameters are added to the connection string.
func newBank(t testing.TB, parameters string) *bank {
	t.Helper()
	b := &bank{name: newDatabase(t)}
	b.open(t, pg.URL(b.name, b.name)+" "+parameters)
	return b
}

// newDatabase makes a database, a role of its name, and invoices that are kept apart.
func newDatabase(t testing.TB) string {
	t.Helper()
	name := pg.Database(t)
	pg.Exec(t, name, must(t)(rls.InitSQL(name, "public"))+invoices+
		must(t)(rls.AddTableSQL(rls.Table{Schema: "public", Name: "invoices", Role: name})))
	return name
}

func (b *bank) open(t testing.TB, connString string) {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), connString)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	b.pool = pool
	if b.db, err = rls.Wrap(pool); err != nil {
		t.Fatal(err)
	}
}

func must(t testing.TB) func(string, error) string {
	return func(text string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
}

// as is a context that is bound to a tenant.
func as(t testing.TB, tenant copse.TenantID) context.Context {
	t.Helper()
	return rls.ForTenant(t.Context(), tenant)
}

// queryer is what DB, Tx and a bare pool have in common.
type queryer interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// amounts runs a query of one column of numbers.
func amounts(t testing.TB, ctx context.Context, q queryer, sql string, args ...any) []int64 {
	t.Helper()
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// everything is the query that every test runs: the one whose WHERE clause was forgotten.
const everything = "SELECT amount FROM invoices ORDER BY amount"

var (
	ofAcme   = []int64{1, 2, 3}
	ofGlobex = []int64{10, 20}
)
