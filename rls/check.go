package rls

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/copse-authz/copse"
)

// A Finding is one way in which one tenant's rows, or the knowledge that there are some, could reach
// another.
type Finding struct {
	Check  string `json:"check"`  // which of [Checks]; a name does not change
	Object string `json:"object"` // as SQL names it
	Detail string `json:"detail"` // what leaks, and how
	Fix    string `json:"fix"`    // SQL to review; a comment where there is no statement for it. No comment holds a name
}

// Audit says what [Check] is to look at.
type Audit struct {
	Role   string // the one that the service connects as
	Column string // that holds the tenant; empty = tenant_id
}

// Check audits a live database: everything through which the role could see or sway rows of another
// tenant than its transaction's. It only reads the catalogs, in a read-only transaction, so any role that
// may connect can run it. Findings are sorted by check and object; none means that none was found.
//
// The audit is of the catalogs as they are: it can't know what the code of functions and triggers does,
// and lists those that run with other rights than the role's.
func Check(ctx context.Context, connString string, audit Audit) ([]Finding, error) {
	if audit.Column == "" {
		audit.Column = defaultColumn
	}
	config, err := pgx.ParseConfig(connString)
	if err != nil {
		return nil, copse.Errorf(copse.Invalid, "rls: the connection string: %w", err)
	}
	// Each statement is run once; remembering it would only fail behind PgBouncer.
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, copse.Errorf(copse.Unavailable, "rls: connecting: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }() // nothing was written
	var findings []Finding
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		findings, err = runChecks(ctx, tx, audit)
		return err
	})
	return findings, err
}

// runChecks is all or nothing: a check that can't be made is an error, and not a database without findings.
func runChecks(ctx context.Context, tx pgx.Tx, audit Audit) ([]Finding, error) {
	// What the catalogs print is shortened by the search path: with none, every name is whole, and a
	// function that shadows one of PostgreSQL's is told from it.
	if _, err := tx.Exec(ctx, "SET LOCAL search_path = ''"); err != nil {
		return nil, copse.Errorf(copse.Unavailable, "rls: %w", err)
	}
	var known bool
	if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1)", audit.Role).Scan(&known); err != nil {
		return nil, copse.Errorf(copse.Unavailable, "rls: %w", err)
	}
	if !known {
		return nil, copse.Errorf(copse.NotFound, "rls: there is no role %q in this database", audit.Role)
	}
	var findings []Finding
	for _, c := range checks() {
		rows, err := tx.Query(ctx, prelude+c.query, audit.Role, audit.Column)
		if err != nil {
			return nil, copse.Errorf(copse.Unavailable, "rls: check %s: %w", c.Name, err)
		}
		found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Finding, error) {
			f := Finding{Check: c.Name}
			return f, row.Scan(&f.Object, &f.Detail, &f.Fix)
		})
		if err != nil {
			return nil, copse.Errorf(copse.Unavailable, "rls: check %s: %w", c.Name, err)
		}
		findings = append(findings, found...)
	}
	if version, err := serverVersion(ctx, tx); err != nil {
		return nil, err
	} else if f, old := oldServer(version); old {
		findings = append(findings, f)
	}
	slices.SortStableFunc(findings, func(a, b Finding) int {
		return compareStrings(a.Check, b.Check, a.Object, b.Object, a.Detail, b.Detail)
	})
	return findings, nil
}

// compareStrings compares pairs in turn: the first that differ decide.
func compareStrings(pairs ...string) int {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i] != pairs[i+1] {
			if pairs[i] < pairs[i+1] {
				return -1
			}
			return 1
		}
	}
	return 0
}

// CheckInfo describes a check.
type CheckInfo struct {
	Name  string `json:"check"`
	Finds string `json:"finds"`
}

// Checks lists what [Check] looks for.
func Checks() []CheckInfo {
	var infos []CheckInfo
	for _, c := range checks() {
		infos = append(infos, c.CheckInfo)
	}
	infos = append(infos, CheckInfo{serverVersionCheck, "a server with a published way around row security"})
	slices.SortFunc(infos, func(a, b CheckInfo) int { return compareStrings(a.Name, b.Name) })
	return infos
}

// check is a query, after [prelude], of object, detail and fix. $1 is the role and $2 the tenant's column.
type check struct {
	CheckInfo
	query string
}

// checks are in no order that anybody may rely on; names are unique.
func checks() []check {
	return slices.Concat(roleChecks(), tableChecks(), relationChecks(), codeChecks())
}

// prelude names what most checks ask about. It mentions both parameters, so that every query takes both.
//
// app is the role. rel are the relations of the database's users that the role has any privilege on, by
// itself, through PUBLIC or through a membership, with the tenant's column where there is one. tenant_rel
// are all tables with that column, whoever can reach them.
const prelude = `
WITH app AS (SELECT oid, rolname FROM pg_roles WHERE rolname = $1::text),
any_rel AS (
    SELECT c.oid, c.relkind, c.relowner, c.relrowsecurity, c.relforcerowsecurity, c.reloptions, c.relispartition,
        format('%I.%I', n.nspname, c.relname) AS name, a.attnum AS tenant, a.attname, a.atttypid, a.attcollation
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = $2::text AND NOT a.attisdropped
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
),
rel AS (
    SELECT r.* FROM any_rel r, app
    WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f')
      AND (has_table_privilege(app.oid, r.oid, 'SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER')
        OR has_any_column_privilege(app.oid, r.oid, 'SELECT,INSERT,UPDATE,REFERENCES'))
),
tenant_rel AS (SELECT * FROM any_rel WHERE relkind IN ('r', 'p') AND tenant IS NOT NULL)
`

const serverVersionCheck = "server-version"

// serverVersion is PostgreSQL's number: 170006 is 17.6.
func serverVersion(ctx context.Context, tx pgx.Tx) (int, error) {
	var version int
	if err := tx.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		return 0, errors.Join(copse.Errorf(copse.Unavailable, "rls: asking for the server's version"), err)
	}
	return version, nil
}

// oldServer tells servers before the releases that closed CVE-2024-10976 (a plan made for one role is
// used for another) and CVE-2025-8713 (statistics show rows that policies hide).
func oldServer(version int) (Finding, bool) {
	// The first release of each line that has both closed. Lines before these count as old.
	minor, known := map[int]int{13: 22, 14: 19, 15: 14, 16: 10, 17: 6}[version/10000]
	if version/10000 > 17 || known && version%10000 >= minor {
		return Finding{}, false
	}
	return Finding{
		Check:  serverVersionCheck,
		Object: fmt.Sprintf("PostgreSQL %d.%d", version/10000, version%10000),
		Detail: "this release has known ways around row security (CVE-2024-10976, CVE-2025-8713)",
		Fix:    "-- update the server to 13.22, 14.19, 15.14, 16.10, 17.6 or later",
	}, true
}
