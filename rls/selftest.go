package rls

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/copse-authz/copse"
)

// SelfTest proves to a service, at its start, that this connection can't see across tenants: its role
// bypasses nothing, owns nothing, belongs to nothing and makes nothing; row security is in force on
// every table with a tenant's column that it can read; and without a tenant, each of them has no rows.
// It needs no tenant in the context. What it can't see from here is for copse rls check.
func (db *DB) SelfTest(ctx context.Context) error {
	tx, err := db.pool.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return noSelfTest(err)
	}
	defer func() { _ = tx.Rollback(ctx) }() // nothing was written
	return selfTest(db.expects.column, func(sql string, args ...any) ([]string, error) {
		rows, err := tx.Query(ctx, sql, args...)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, pgx.RowTo[string])
	})
}

// noSelfTest is Unavailable: the database may be as it should, nobody knows yet.
func noSelfTest(err error) error {
	return copse.Errorf(copse.Unavailable, "rls: the self-test could not begin: %w", err)
}

// SelfTest is as [DB.SelfTest].
func (db *SQLDB) SelfTest(ctx context.Context) error {
	tx, err := db.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return noSelfTest(err)
	}
	defer func() { _ = tx.Rollback() }() // nothing was written
	return selfTest(db.expects.column, func(query string, args ...any) ([]string, error) {
		rows, err := tx.QueryContext(ctx, query, args...)
		if err != nil {
			return nil, err
		}
		defer func() { _ = rows.Close() }() // rows.Err tells what went wrong
		var texts []string
		for rows.Next() {
			var text string
			if err := rows.Scan(&text); err != nil {
				return nil, err
			}
			texts = append(texts, text)
		}
		return texts, rows.Err()
	})
}

// selfTest asks through either driver: query returns the first column of the rows.
// InvalidState names everything that is wrong, not the first of it.
func selfTest(column string, query func(sql string, args ...any) ([]string, error)) error {
	problems, err := query(selfTestRole)
	if err != nil {
		return copse.Errorf(copse.Unavailable, "rls: the self-test could not ask about the role: %w", err)
	}
	open, err := query(selfTestTables, column)
	if err != nil {
		return copse.Errorf(copse.Unavailable, "rls: the self-test could not ask about the tables: %w", err)
	}
	problems = append(problems, open...)
	// Names come from the catalog, quoted by the server.
	relations, err := query(selfTestRelations, column)
	if err != nil {
		return copse.Errorf(copse.Unavailable, "rls: the self-test could not list the tables: %w", err)
	}
	// The proof beside the catalogs: whatever the policies say, without a tenant nothing may show.
	for _, name := range relations {
		seen, err := query("SELECT 'yes' WHERE EXISTS (SELECT FROM " + name + ")")
		if err != nil {
			return copse.Errorf(copse.Unavailable, "rls: the self-test could not look into %s, which the role may read: %w", name, err)
		}
		if len(seen) > 0 {
			problems = append(problems, fmt.Sprintf("%s shows rows without a tenant", name))
		}
	}
	if len(problems) > 0 {
		return copse.Errorf(copse.InvalidState, "rls: the database does not keep tenants apart: %s; copse rls check has the fixes", strings.Join(problems, "; "))
	}
	return nil
}

// selfTestRole asks about current_user, whatever role the service believes it connects as. Each row is a sentence.
const selfTestRole = `
SELECT format('role %I is a superuser', rolname) FROM pg_catalog.pg_roles WHERE rolname = current_user AND rolsuper
UNION ALL
SELECT format('role %I has BYPASSRLS', rolname) FROM pg_catalog.pg_roles WHERE rolname = current_user AND rolbypassrls
UNION ALL
SELECT format('role %I may replicate, or make roles or databases', rolname) FROM pg_catalog.pg_roles WHERE rolname = current_user AND (rolreplication OR rolcreaterole OR rolcreatedb)
UNION ALL
SELECT format('the connection can go back to role %I, which it began as', session_user) WHERE session_user <> current_user
UNION ALL
SELECT format('role %I is a member of %I', current_user, g.rolname)
FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles r ON r.oid = m.member JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
WHERE r.rolname = current_user
UNION ALL
SELECT format('role %I owns %s objects', current_user, count(*))
FROM pg_catalog.pg_shdepend d JOIN pg_catalog.pg_roles r ON r.oid = d.refobjid
WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.deptype = 'o' AND r.rolname = current_user
  AND d.dbid IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
HAVING count(*) > 0
UNION ALL
SELECT format('role %I may make %s in this database', current_user, what)
FROM (VALUES ('CREATE', 'schemas'), ('TEMPORARY', 'temporary tables')) AS p (privilege, what)
WHERE has_database_privilege(current_database(), privilege)
UNION ALL
SELECT format('role %I may make objects in schema %I', current_user, nspname) FROM pg_catalog.pg_namespace
WHERE nspname !~ '^pg_(toast|temp)' AND has_schema_privilege(oid, 'CREATE')
UNION ALL
SELECT format('the connection starts with tenant %s', current_setting('` + Setting + `', true)) WHERE current_setting('` + Setting + `', true) <> ''`

// withTenantColumn are the relations that hold tenants' rows and that the role may read.
const withTenantColumn = `
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = $1 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
  AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')`

const selfTestTables = `SELECT format('row security is not in force on %I.%I', n.nspname, c.relname)` + withTenantColumn +
	` AND c.relkind IN ('r', 'p') AND NOT (c.relforcerowsecurity AND row_security_active(c.oid)) ORDER BY 1`

const selfTestRelations = `SELECT format('%I.%I', n.nspname, c.relname)` + withTenantColumn + ` ORDER BY 1`
