package rls_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/pgtest"
	"github.com/copse-authz/copse/rls"
)

// defect is one thing wrong with a database that was fine. {role} is the service's role.
type defect struct {
	name string
	seed string
	want []string // "check object", all there are
	more bool     // there are others beside want
	undo string   // run instead of the fixes, where these are for a person to complete
	then string   // run after the fixes, to have the next case begin clean
}

var defects = []defect{
	{name: "superuser", seed: "ALTER ROLE {role} SUPERUSER", want: []string{"role-attribute {role}"}, more: true, undo: "ALTER ROLE {role} NOSUPERUSER"},
	{name: "bypass", seed: "ALTER ROLE {role} BYPASSRLS", want: []string{"role-attribute {role}"}},
	{name: "replication", seed: "ALTER ROLE {role} REPLICATION", want: []string{"role-attribute {role}"}},
	{name: "createrole", seed: "ALTER ROLE {role} CREATEROLE CREATEDB", want: []string{"role-attribute {role}", "role-attribute {role}"}},
	{name: "reads all data", seed: "GRANT pg_read_all_data TO {role}", want: []string{"role-membership pg_read_all_data"}},
	{name: "member of a member of the owner", seed: `CREATE ROLE "Team ""A"""; GRANT postgres TO "Team ""A"""; GRANT "Team ""A""" TO {role}`,
		want: []string{`role-membership "Team ""A"""`}, then: `DROP ROLE "Team ""A"""`},
	{name: "owns a table", seed: "CREATE TABLE own (tenant_id text); ALTER TABLE own OWNER TO {role}; REVOKE ALL ON own FROM {role}",
		want: []string{"role-owns public.own"}, undo: "DROP TABLE own"},
	{name: "owns the database", seed: "ALTER DATABASE {role} OWNER TO {role}",
		want: []string{"database-privilege {role}", "database-privilege {role}", "role-owns {role}"},
		undo: "ALTER DATABASE {role} OWNER TO postgres"},
	{name: "starts with a tenant", seed: "ALTER ROLE {role} SET copse.tenant = 'acme'", want: []string{"role-setting copse.tenant=acme"}},
	{name: "starts with a tenant, here", seed: "ALTER ROLE {role} IN DATABASE {role} SET copse.tenant = 'acme'", want: []string{"role-setting copse.tenant=acme"}},
	{name: "the database starts with a tenant", seed: "ALTER DATABASE {role} SET copse.tenant = 'acme'", want: []string{"role-setting copse.tenant=acme"}},
	{name: "temporary tables", seed: "GRANT TEMP ON DATABASE {role} TO PUBLIC", want: []string{"database-privilege {role}"}},
	{name: "makes schemas", seed: "GRANT CREATE ON DATABASE {role} TO {role}", want: []string{"database-privilege {role}"}},
	{name: "makes tables", seed: "GRANT CREATE ON SCHEMA public TO PUBLIC", want: []string{"schema-create public"}},
	{name: "default privileges", seed: `CREATE SCHEMA "New"; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {role}; ALTER DEFAULT PRIVILEGES IN SCHEMA "New" GRANT SELECT ON SEQUENCES TO PUBLIC`,
		want: []string{"default-privileges SEQUENCES of postgres", "default-privileges TABLES of postgres"}},
	{name: "statistics", seed: "GRANT SELECT ON pg_statistic TO {role}", want: []string{"catalog-privilege pg_statistic"}},
	{name: "one column of the statistics", seed: "GRANT SELECT (stavalues1) ON pg_statistic TO {role}", want: []string{"catalog-privilege pg_statistic"}, undo: "REVOKE SELECT (stavalues1) ON pg_statistic FROM {role}"},
	{name: "server's files", seed: "GRANT EXECUTE ON FUNCTION pg_read_file(text) TO {role}", want: []string{"catalog-privilege pg_read_file(text)"}},

	{name: "no tenant column", seed: "CREATE TABLE countries (code text); GRANT SELECT ON countries TO {role}", want: []string{"no-tenant-column public.countries"}},
	{name: "no tenant column, one column", seed: `CREATE TABLE "a.b" (code text); GRANT SELECT (code) ON "a.b" TO PUBLIC`, want: []string{`no-tenant-column public."a.b"`}},
	{name: "row security off", seed: "ALTER TABLE invoices DISABLE ROW LEVEL SECURITY", want: []string{"rls-off public.invoices"}},
	{name: "not forced", seed: "ALTER TABLE invoices NO FORCE ROW LEVEL SECURITY", want: []string{"rls-not-forced public.invoices"}},
	{name: "a partition", seed: "CREATE TABLE events (tenant_id text, at int) PARTITION BY LIST (at); CREATE TABLE events1 PARTITION OF events FOR VALUES IN (1); GRANT SELECT ON events1 TO {role}",
		want: []string{"rls-off public.events1"}, undo: "REVOKE ALL ON events1 FROM {role}"},
	{name: "a child", seed: "CREATE TABLE base (tenant_id text); CREATE TABLE child () INHERITS (base); GRANT INSERT ON child TO {role}",
		want: []string{"rls-off public.child"}, undo: "REVOKE ALL ON child FROM {role}"},
	{name: "a policy for all rows", seed: "{no wall} CREATE POLICY everything ON invoices USING (true)", want: []string{"policy everything on public.invoices"}, then: "{add invoices}"},
	{name: "a policy for a group", seed: "{no wall} CREATE POLICY support ON invoices FOR SELECT TO {role} USING (amount < 100)", want: []string{"policy support on public.invoices"}, then: "{add invoices}"},
	{name: "a wall for the role alone", seed: "{no wall} CREATE POLICY everything ON invoices USING (true); CREATE POLICY part ON invoices AS RESTRICTIVE TO {role} USING (tenant_id = NULLIF(current_setting('copse.tenant', true), ''))",
		want: []string{"policy everything on public.invoices"}, undo: "DROP POLICY part ON invoices; DROP POLICY everything ON invoices; {add invoices}"},
	{name: "writes anything", seed: "{no wall} CREATE POLICY w ON invoices FOR INSERT WITH CHECK (true)", want: []string{"policy w on public.invoices"}, then: "{add invoices}"},
	{name: "checks another condition than it reads", seed: "{no wall} ALTER POLICY copse_tenant ON invoices WITH CHECK (true)", want: []string{"policy copse_tenant on public.invoices"},
		undo: "{add invoices}"},
	{name: "the empty string", seed: "{no wall} ALTER POLICY copse_tenant ON invoices USING (tenant_id = current_setting('copse.tenant', true))", want: []string{"policy copse_tenant on public.invoices"},
		undo: "{add invoices}"},
	{name: "a function that shadows", seed: "{no wall} CREATE SCHEMA evil; CREATE FUNCTION evil.current_setting(text, bool) RETURNS text LANGUAGE sql AS $$SELECT 'acme'$$; ALTER POLICY copse_tenant ON invoices USING (tenant_id = NULLIF(evil.current_setting('copse.tenant', true), ''))",
		want: []string{"policy copse_tenant on public.invoices"}, undo: "{add invoices}"},
	{name: "no policy", seed: "CREATE TABLE bare (tenant_id text); ALTER TABLE bare ENABLE ROW LEVEL SECURITY; ALTER TABLE bare FORCE ROW LEVEL SECURITY; GRANT SELECT ON bare TO {role}",
		want: []string{"policy public.bare"}, undo: "DROP TABLE bare"},
	{name: "blanks do not count", seed: "CREATE TABLE padded (tenant_id char(20)); {add padded}", want: []string{"tenant-compare public.padded.tenant_id"}, undo: "DROP TABLE padded"},
	{name: "case does not count", seed: `CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false); CREATE TABLE cased (tenant_id text COLLATE ci); {add cased}`,
		want: []string{"tenant-compare public.cased.tenant_id"}, undo: "DROP TABLE cased"},
	{name: "truncate", seed: "GRANT ALL ON invoices TO {role}", want: []string{"table-privilege public.invoices", "table-privilege public.invoices", "table-privilege public.invoices"}},
	{name: "unique index", seed: "CREATE UNIQUE INDEX amounts ON invoices ((amount + 1)) WHERE amount > 5", want: []string{"unique-index public.amounts"}},
	{name: "unique constraint", seed: `ALTER TABLE invoices ADD CONSTRAINT "A's" UNIQUE (amount, id)`, want: []string{`unique-index public."A's"`}},
	{name: "exclusion", seed: "ALTER TABLE invoices ADD CONSTRAINT apart EXCLUDE USING btree (amount WITH =)", want: []string{"unique-index public.apart"}, undo: "ALTER TABLE invoices DROP CONSTRAINT apart"},
	{name: "primary key", seed: "CREATE TABLE keyed (id int PRIMARY KEY, tenant_id text); {add keyed}", want: []string{"unique-index public.keyed_pkey"}},
	{name: "foreign key", seed: "CREATE UNIQUE INDEX ids ON invoices (id); CREATE TABLE lines (tenant_id text, invoice bigint CONSTRAINT ref REFERENCES invoices (id)); {add lines}",
		want: []string{"foreign-key ref on public.lines", "unique-index public.ids"}, then: "DROP TABLE lines"},

	{name: "view", seed: "CREATE VIEW overview AS SELECT * FROM invoices; GRANT SELECT ON overview TO {role}", want: []string{"view public.overview"}},
	{name: "a column of a view", seed: "CREATE VIEW sums WITH (security_barrier) AS SELECT sum(amount) FROM invoices; GRANT SELECT (sum) ON sums TO PUBLIC", want: []string{"view public.sums"}},
	{name: "a view of a view", seed: "CREATE VIEW inner_view AS SELECT * FROM invoices; CREATE VIEW outer_view WITH (security_invoker) AS SELECT * FROM inner_view; GRANT SELECT ON inner_view, outer_view TO {role}",
		want: []string{"view public.inner_view"}},
	{name: "materialized view", seed: "CREATE MATERIALIZED VIEW report AS SELECT * FROM invoices; GRANT SELECT ON report TO {role}", want: []string{"materialized-view public.report"}},
	{name: "foreign table", seed: "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE far (tenant_id text) SERVER s; GRANT SELECT ON far TO {role}", want: []string{"foreign-table public.far"}},
	{name: "parent", seed: "CREATE TABLE things (amount int); CREATE TABLE owned_things (tenant_id text) INHERITS (things); GRANT SELECT ON things TO {role}",
		want: []string{"no-tenant-column public.things", "parent-table public.things"}},
	{name: "rule", seed: "CREATE TABLE copies (tenant_id text, amount bigint); CREATE RULE copy AS ON INSERT TO invoices DO ALSO INSERT INTO copies VALUES (new.tenant_id, new.amount)", want: []string{"rule copy on public.invoices"}},
	{name: "sequence", seed: "CREATE SEQUENCE numbers; GRANT ALL ON SEQUENCE numbers TO {role}", want: []string{"sequence public.numbers", "sequence public.numbers"}},
	{name: "large object", seed: "SELECT lo_create(4242); GRANT SELECT ON LARGE OBJECT 4242 TO PUBLIC", want: []string{"large-object large object 4242"}},
	{name: "publication", seed: `CREATE PUBLICATION "All" FOR ALL TABLES`, want: []string{`publication "All"`}},

	{name: "security definer", seed: "CREATE FUNCTION total() RETURNS numeric LANGUAGE sql SECURITY DEFINER AS 'SELECT sum(amount) FROM invoices'; GRANT EXECUTE ON FUNCTION total() TO PUBLIC", want: []string{"security-definer public.total()"}},
	{name: "procedure", seed: "CREATE PROCEDURE tidy() LANGUAGE sql SECURITY DEFINER AS 'DELETE FROM invoices'; GRANT EXECUTE ON PROCEDURE tidy() TO {role}", want: []string{"security-definer public.tidy()"}},
	{name: "trigger", seed: "CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN new; END'; CREATE TRIGGER audit BEFORE INSERT ON invoices FOR EACH ROW EXECUTE FUNCTION audit()",
		want: []string{"security-definer public.audit()"}},
	{name: "leakproof", seed: "CREATE FUNCTION peek(text) RETURNS bool LANGUAGE plpgsql LEAKPROOF AS 'BEGIN RAISE NOTICE ''%'', $1; RETURN true; END'; GRANT EXECUTE ON FUNCTION peek(text) TO PUBLIC", want: []string{"leakproof public.peek(text)"}},
	{name: "function of a tenant", seed: "CREATE FUNCTION as_acme() RETURNS bigint LANGUAGE sql SET copse.tenant = 'acme' AS 'SELECT count(*) FROM invoices'; GRANT EXECUTE ON FUNCTION as_acme() TO {role}", want: []string{"function-setting public.as_acme()"}},
}

// Each defect is found, by its name and nothing else, and its fix mends it.
func TestCheckFindsEachDefect(t *testing.T) {
	name := newDatabase(t)
	conn := superuser(t, name)
	ctx := t.Context()
	run := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(ctx, fill(t, sql, name), pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%v in\n%s", err, sql)
		}
	}
	if got := audit(t, name); len(got) > 0 {
		t.Fatalf("the clean database has findings: %v", got)
	}
	checked := map[string]bool{"server-version": true} // has a test of its own
	for _, d := range defects {
		t.Run(d.name, func(t *testing.T) {
			run(d.seed)
			findings := audit(t, name)
			var got, want []string
			for _, f := range findings {
				got = append(got, f.Check+" "+f.Object)
				checked[f.Check] = true
				if f.Detail == "" || f.Fix == "" {
					t.Errorf("%s has no detail or fix", f.Check)
				}
			}
			for _, w := range d.want {
				want = append(want, fill(t, w, name))
			}
			if d.more {
				got = slices.DeleteFunc(got, func(g string) bool { return !slices.Contains(want, g) })
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s\n%v", diff, findings)
			}
			if d.undo != "" {
				run(d.undo)
			} else {
				for _, f := range findings {
					if strings.HasPrefix(f.Fix, "--") {
						t.Errorf("%s: the fix is no statement: %s", f.Check, f.Fix)
					}
					run(f.Fix)
				}
			}
			if d.then != "" {
				run(d.then)
			}
			if left := audit(t, name); len(left) > 0 {
				t.Fatalf("after the fix: %v", left)
			}
		})
	}
	for _, c := range rls.Checks() {
		if !checked[c.Name] || c.Finds == "" {
			t.Errorf("no defect of this table is found by %s (%q)", c.Name, c.Finds)
		}
	}
}

// What only narrows what the tenant's own policies let through is no finding, and neither is what the
// wall stops.
func TestCheckKnowsWhatIsFine(t *testing.T) {
	name := newDatabase(t)
	conn := superuser(t, name)
	for _, sql := range []string{
		"CREATE POLICY more ON invoices FOR SELECT USING (true)",
		"CREATE POLICY less ON invoices AS RESTRICTIVE FOR DELETE USING (amount < 100)",
		"CREATE VIEW mine WITH (security_invoker = on) AS SELECT * FROM invoices; GRANT SELECT ON mine TO {role}",
		"CREATE VIEW clock AS SELECT now(); GRANT SELECT ON clock TO PUBLIC",
		"CREATE FUNCTION twice(bigint) RETURNS bigint LANGUAGE sql AS 'SELECT 2 * $1'; GRANT EXECUTE ON FUNCTION twice(bigint) TO PUBLIC",
		"CREATE UNIQUE INDEX of_tenant ON invoices (lower(tenant_id), tenant_id, amount)",
		"CREATE TABLE lines (tenant_id varchar(128), invoice bigint, FOREIGN KEY (tenant_id, invoice) REFERENCES invoices (tenant_id, id)); {add lines}",
		"CREATE TABLE secrets (tenant_id text); CREATE MATERIALIZED VIEW sums AS SELECT sum(amount) FROM invoices",
		"CREATE POLICY operators ON invoices TO postgres USING (true)",
	} {
		if _, err := conn.Exec(t.Context(), fill(t, sql, name), pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%v in\n%s", err, sql)
		}
		if got := audit(t, name); len(got) > 0 {
			t.Errorf("%s: %v", sql, got)
		}
	}
}

// fill puts the role into SQL, and the migration of a table where {add TABLE} asks for it.
func fill(t *testing.T, sql, role string) string {
	t.Helper()
	sql = strings.NewReplacer("{role}", role, "{no wall}", "DROP POLICY copse_tenant_only ON invoices;").Replace(sql)
	before, rest, found := strings.Cut(sql, "{add ")
	if !found {
		return sql
	}
	table, after, _ := strings.Cut(rest, "}")
	return before + must(t)(rls.AddTableSQL(rls.Table{Schema: "public", Name: table, Role: role})) + after
}

func audit(t *testing.T, name string) []rls.Finding {
	t.Helper()
	findings, err := rls.Check(t.Context(), pg.URL(pgtest.Superuser, name), rls.Audit{Role: name})
	if err != nil {
		t.Fatal(err)
	}
	return findings
}

func superuser(t testing.TB, database string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pg.URL(pgtest.Superuser, database))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// The role itself can run the audit: it needs to see catalogs only. Another role's database is not there.
func TestCheckRunsAsTheRole(t *testing.T) {
	name := newDatabase(t)
	findings, err := rls.Check(t.Context(), pg.URL(name, name), rls.Audit{Role: name})
	if err != nil || len(findings) > 0 {
		t.Errorf("as the role: %v, %v", findings, err)
	}
	if _, err := rls.Check(t.Context(), pg.URL(name, name), rls.Audit{Role: "nobody'; --"}); copse.KindOf(err) != copse.NotFound {
		t.Errorf("a role that is not there: %v", err)
	}
	if _, err := rls.Check(t.Context(), "host=/nowhere user=x", rls.Audit{Role: name}); copse.KindOf(err) != copse.Unavailable {
		t.Errorf("no server: %v", err)
	}
	if _, err := rls.Check(t.Context(), "postgres://%zz", rls.Audit{Role: name}); copse.KindOf(err) != copse.Invalid {
		t.Errorf("no connection string: %v", err)
	}
}

// Names that would mean something else, or end the statement, where they are not quoted; the migrations
// are run by an owner who is no superuser, as on a hosted server.
func TestHostileNamesAndAnOwnerWhoIsNoSuperuser(t *testing.T) {
	database := pg.Database(t)
	owner := database + "_owner"
	pg.Exec(t, database, "CREATE ROLE "+owner+" LOGIN CREATEROLE; ALTER DATABASE "+database+" OWNER TO "+owner)
	role := `app"; DROP SCHEMA "$copse$ ` + "\n" + `it's \ ` + database
	schema, table, column := `Sales"."x`, `o'rders"; --`, "Tenant\nID\\"
	quoted := func(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
	whole := quoted(schema) + "." + quoted(table)
	sql := "CREATE SCHEMA " + quoted(schema) + "; CREATE TABLE " + whole + " (" + quoted(column) + " uuid, amount bigint);" +
		must(t)(rls.InitSQL(role, schema, "public")) +
		must(t)(rls.AddTableSQL(rls.Table{Schema: schema, Name: table, Column: column, Type: "uuid", Role: role}))
	for range 2 { // a migration may be run again
		if _, err := pg.ExecAs(owner, database, sql); err != nil {
			t.Fatalf("%v in\n%s", err, sql)
		}
		sql = strings.Join(strings.Split(sql, "amount bigint);")[1:], "")
	}
	ctx := t.Context()
	url := pg.URL(role, database)
	findings, err := rls.Check(ctx, url, rls.Audit{Role: role, Column: column})
	if err != nil || len(findings) > 0 {
		t.Errorf("findings %v, %v", findings, err)
	}
	db, err := rls.Open(ctx, url, rls.TenantColumn(column))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	mine, other := as(t, "6f1c1a3e-0000-4000-8000-000000000001"), as(t, "6f1c1a3e-0000-4000-8000-000000000002")
	mustExec(t, db, mine, "INSERT INTO "+whole+" (amount) VALUES (1)")
	if got := amounts(t, other, db, "SELECT amount FROM "+whole); len(got) > 0 {
		t.Errorf("another tenant sees %v", got)
	}
	if got := amounts(t, mine, db, "SELECT amount FROM "+whole); !slices.Equal(got, []int64{1}) {
		t.Errorf("the tenant sees %v", got)
	}
	if _, err := db.Exec(as(t, "not-a-uuid"), "SELECT amount FROM "+whole); err == nil {
		t.Error("a tenant that is no UUID is no error")
	}
}
