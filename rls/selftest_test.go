package rls_test

import (
	"database/sql"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/rls"
)

// A service does not start on a database that lets it see across tenants.
func TestSelfTestRefuses(t *testing.T) {
	name := newDatabase(t)
	conn := superuser(t, name)
	run := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), fill(t, sql, name), pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%v in\n%s", err, sql)
		}
	}
	plain, err := sql.Open("pgx", pg.URL(name, name))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	plain.SetMaxIdleConns(0) // each self-test has a new connection, as at a start
	open := func(t *testing.T) error {
		t.Helper()
		db, err := rls.Open(t.Context(), pg.URL(name, name))
		if err == nil {
			db.Close()
		}
		if other := rls.WrapSQL(plain).SelfTest(t.Context()); (other == nil) != (err == nil) || err != nil && other.Error() != err.Error() {
			t.Errorf("database/sql says %v, pgx says %v", other, err)
		}
		return err
	}
	if err := open(t); err != nil {
		t.Fatalf("a clean database: %v", err)
	}
	for _, c := range []struct{ seed, says, undo string }{
		{"ALTER ROLE {role} SUPERUSER", "superuser", "ALTER ROLE {role} NOSUPERUSER"},
		{"ALTER ROLE {role} BYPASSRLS", "BYPASSRLS", "ALTER ROLE {role} NOBYPASSRLS"},
		{"ALTER ROLE {role} CREATEROLE", "make roles", "ALTER ROLE {role} NOCREATEROLE"},
		{"ALTER ROLE {role} CREATEDB", "make roles or databases", "ALTER ROLE {role} NOCREATEDB"},
		{"GRANT pg_monitor TO {role}", "member of pg_monitor", "REVOKE pg_monitor FROM {role}"},
		{"CREATE TABLE own (a int); ALTER TABLE own OWNER TO {role}", "owns 1 objects", "DROP TABLE own"},
		{"GRANT TEMP ON DATABASE {role} TO {role}", "temporary tables", "REVOKE TEMP ON DATABASE {role} FROM {role}"},
		{"GRANT CREATE ON SCHEMA public TO {role}", "objects in schema public", "REVOKE CREATE ON SCHEMA public FROM {role}"},
		{"ALTER ROLE {role} SET copse.tenant = 'acme'", "starts with tenant acme", "ALTER ROLE {role} RESET copse.tenant"},
		{"ALTER TABLE invoices DISABLE ROW LEVEL SECURITY", "not in force on public.invoices; public.invoices shows rows", "ALTER TABLE invoices ENABLE ROW LEVEL SECURITY"},
		{"ALTER TABLE invoices NO FORCE ROW LEVEL SECURITY", "not in force on public.invoices", "ALTER TABLE invoices FORCE ROW LEVEL SECURITY"},
		{"DROP POLICY copse_tenant_only ON invoices; CREATE POLICY everything ON invoices USING (true)", "public.invoices shows rows without a tenant", "DROP POLICY everything ON invoices; {add invoices}"},
		{"CREATE VIEW overview AS SELECT * FROM invoices; GRANT SELECT ON overview TO {role}", "public.overview shows rows without a tenant", "DROP VIEW overview"},
		{"CREATE MATERIALIZED VIEW report AS SELECT * FROM invoices; GRANT SELECT ON report TO {role}", "public.report shows rows without a tenant", "DROP MATERIALIZED VIEW report"},
	} {
		run(c.seed)
		if err := open(t); copse.KindOf(err) != copse.InvalidState || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.seed, err, c.says)
		}
		run(c.undo)
	}
	if err := open(t); err != nil {
		t.Errorf("in the end: %v", err)
	}
	// A connection that took on the role after it began as another can go back.
	_, err = rls.Open(t.Context(), pg.URL("postgres", name)+" options='-c role="+name+"'")
	if err == nil || !strings.Contains(err.Error(), "go back to role postgres") {
		t.Errorf("SET ROLE: %v", err)
	}
	if _, err := rls.Open(t.Context(), "host=/nowhere user=x password=hunter2"); copse.KindOf(err) != copse.Unavailable || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("no server: %v", err)
	}
	if _, err := rls.Open(t.Context(), "postgres://x:hunter2@%zz"); copse.KindOf(err) != copse.Invalid || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("no connection string: %v", err)
	}
}
