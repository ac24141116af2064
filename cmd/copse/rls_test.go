package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse/internal/pgtest"
)

// From an empty database to one that passes the audit, by nothing but what the commands print.
func TestRLSCommands(t *testing.T) {
	pg := pgtest.Start(t)
	db := pg.Database(t)
	pg.Exec(t, db, `CREATE TABLE invoices (tenant_id text, id bigint, PRIMARY KEY (tenant_id, id)); CREATE TABLE "My ""Table""" (tenant_id text);
		CREATE TABLE countries (code text)`)
	environ := []string{"COPSE_DATABASE_URL=" + pg.URL(pgtest.Superuser, db)}
	copse := func(wantCode int, args ...string) (stdout, stderr string) {
		t.Helper()
		var out, errs bytes.Buffer
		code := run(t.Context(), append([]string{"rls"}, args...), environ, strings.NewReader(""), &out, &errs)
		if code != wantCode {
			t.Fatalf("copse rls %q: exit code %d, want %d: %s%s", args, code, wantCode, &out, &errs)
		}
		return out.String(), errs.String()
	}
	sql, _ := copse(0, "init", "--role", "app")
	pg.Exec(t, db, sql)
	sql, _ = copse(0, "add", "invoices", `"My ""Table"""`, "--role", "app")
	pg.Exec(t, db, sql)
	if _, said := copse(0, "check", "--role", "app"); !strings.Contains(said, "rls check: 0 findings, 0 accepted") {
		t.Errorf("a clean database: %s", said)
	}

	// The audit's output mends what it found.
	pg.Exec(t, db, `GRANT SELECT ON countries TO app; CREATE VIEW "Every
thing" AS SELECT * FROM invoices; GRANT SELECT ON "Every
thing" TO app; CREATE POLICY "-- more" ON invoices USING (true)`)
	found, said := copse(1, "check", "--role", "app", "--accept", "no-tenant-column:public.countries")
	if !strings.Contains(said, "1 finding, 1 accepted") || !strings.Contains(found, "can't be shown") || strings.Contains(found, "\nthing") {
		t.Errorf("findings: %s%s", found, said)
	}
	pg.Exec(t, db, `ALTER VIEW "Every
thing" RENAME TO everything`)
	found, _ = copse(1, "check", "--role", "app", "--accept", "no-tenant-column:public.countries")
	pg.Exec(t, db, found)
	if _, said := copse(0, "check", "--role", "app", "--accept", "no-tenant-column", "--accept", "view:public.everything"); !strings.Contains(said, "no such finding any more") {
		t.Errorf("accepted for nothing: %s", said)
	}
	asJSON, _ := copse(1, "check", "--role", "app", "--output", "json")
	var result rlsCheckResult
	if err := json.Unmarshal([]byte(asJSON), &result); err != nil || len(result.Findings) != 1 || result.Findings[0].Check != "no-tenant-column" || result.Findings[0].Fix == "" {
		t.Errorf("as JSON: %s, %v", asJSON, err)
	}

	// What the command line got wrong ends with 2, before anything is tried.
	for _, args := range [][]string{
		{"init"}, {"init", "--role", ""}, {"add", "invoices"}, {"add", "--role", "app"}, {"add", "a.b.c", "--role", "app"}, {"add", "t", "--role", "app", "--type", "int"},
		{"check"}, {"check", "--role", "app", "--accept", "nothing"}, {"check", "--role", "app", "--database", "postgres://u:hunter2@%zz/"},
	} {
		if _, said := copse(2, args...); strings.Contains(said, "hunter2") || strings.Count(said, "\n") != 1 {
			t.Errorf("%q: %s", args, said)
		}
	}
	if _, said := copse(1, "check", "--role", "nobody"); !strings.Contains(said, `no role "nobody"`) {
		t.Errorf("no such role: %s", said)
	}
	if _, said := copse(1, "check", "--role", "app", "--database", "host=/nowhere user=u password=hunter2"); strings.Contains(said, "hunter2") {
		t.Errorf("the password is told: %s", said)
	}
	environ = nil
	if _, said := copse(2, "check", "--role", "app"); !strings.Contains(said, "COPSE_DATABASE_URL") {
		t.Errorf("no database: %s", said)
	}
}
