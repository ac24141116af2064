package rls

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/copse-authz/copse"
)

// maxIdentifier is PostgreSQL's; it cuts longer names, and two that are cut alike are one.
const maxIdentifier = 63

// identifier quotes a name for SQL, byte for byte: no folding to lower case.
// what names its part in the statement, for the error.
func identifier(what, name string) (string, error) {
	switch {
	case name == "":
		return "", copse.Errorf(copse.Invalid, "rls: the name of the %s is empty", what)
	case len(name) > maxIdentifier:
		return "", copse.Errorf(copse.Invalid, "rls: the name of the %s has %d bytes; PostgreSQL would cut it at %d: %.80q", what, len(name), maxIdentifier, name)
	case strings.ContainsRune(name, 0) || !utf8.ValidString(name):
		return "", copse.Errorf(copse.Invalid, "rls: the name of the %s, %q, can't be one in PostgreSQL: it is not UTF-8 or holds a zero byte", what, name)
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`, nil
}

// literal quotes a text for SQL, whatever standard_conforming_strings says.
func literal(text string) string {
	quoted := "'" + strings.ReplaceAll(text, "'", "''") + "'"
	if strings.Contains(text, `\`) {
		return "E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}

// ParseTable reads a table's name: orders, sales.orders, or with quotes as SQL has them, "My Orders". A
// name without a schema is one of public. Nothing is folded to lower case: Orders is not orders.
// The names come back without quotes, for [Table], and are not looked up.
func ParseTable(name string) (schema, table string, err error) {
	var parts []string
	rest := name
	for {
		var part string
		if strings.HasPrefix(rest, `"`) {
			part, rest, err = unquote(rest)
		} else if i := strings.IndexAny(rest, `."`); i >= 0 {
			part, rest = rest[:i], rest[i:]
		} else {
			part, rest = rest, ""
		}
		if err == nil && part == "" {
			err = copse.Errorf(copse.Invalid, "a part of it is empty")
		}
		if err != nil {
			return "", "", copse.Errorf(copse.Invalid, "rls: table %q: %w", name, err)
		}
		parts = append(parts, part)
		if rest == "" {
			break
		}
		if rest[0] != '.' {
			return "", "", copse.Errorf(copse.Invalid, `rls: table %q: quotes go around a whole name, as in "a"."b"`, name)
		}
		rest = rest[1:]
	}
	switch len(parts) {
	case 1:
		return "public", parts[0], nil
	case 2:
		return parts[0], parts[1], nil
	}
	return "", "", copse.Errorf(copse.Invalid, "rls: table %q has %d parts; write schema.table", name, len(parts))
}

// unquote takes a quoted name off the front of s.
func unquote(s string) (name, rest string, err error) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] != '"':
			b.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] == '"':
			b.WriteByte('"')
			i++
		default:
			return b.String(), s[i+1:], nil
		}
	}
	return "", "", copse.Errorf(copse.Invalid, "a quote is not closed")
}

// InitSQL writes the migration that makes the role a service connects as, and gives it the use of some
// schemas: a role that owns nothing, belongs to nothing, bypasses nothing and makes nothing. A role of the
// name that is there already is taken if it is like that, and stops the migration if it isn't.
func InitSQL(role string, schemas ...string) (string, error) {
	name, err := identifier("role", role)
	if err != nil {
		return "", err
	}
	var grants strings.Builder
	for _, schema := range schemas {
		quoted, err := identifier("schema", schema)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&grants, "REVOKE CREATE ON SCHEMA %s FROM PUBLIC, %s;\nGRANT USAGE ON SCHEMA %s TO %s;\n", quoted, name, quoted, name)
	}
	// One pass: a name that holds {role} is not replaced in again.
	body := strings.NewReplacer("{role}", name, "{role text}", literal(role)).Replace(initBody)
	tag := dollarTag(body)
	return fmt.Sprintf(initTemplate, tag, body, tag, strings.NewReplacer("{role}", name).Replace(initDefaults), grants.String()), nil
}

// This migration, like that of AddTableSQL, may be run again.
const initTemplate = `-- Row-level security, once per database. Written by copse rls init; review it, then run it as the
-- database's owner, who needs CREATEROLE if the role does not exist. Set the role's password apart from
-- this file.
DO %s%s%s;

%s
-- The schemas it may look into. Tables follow, one by one, with copse rls add.
%s`

const initBody = `
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {role text}) THEN
        CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT;
    ELSIF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {role text}
            AND (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls)) THEN
        RAISE EXCEPTION 'role % exists and has more attributes than LOGIN', {role text};
    ELSIF EXISTS (SELECT FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles r ON r.oid = m.member
            WHERE r.rolname = {role text}) THEN
        RAISE EXCEPTION 'role % exists and is a member of other roles', {role text};
    END IF;
    -- Objects and temporary tables of its own would have no policies, and outlive a transaction.
    EXECUTE pg_catalog.format('REVOKE CREATE, TEMPORARY ON DATABASE %I FROM PUBLIC, %I', pg_catalog.current_database(), {role text});
    EXECUTE pg_catalog.format('GRANT CONNECT ON DATABASE %I TO %I', pg_catalog.current_database(), {role text});
END
`

const initDefaults = `-- What is made later is not everybody's: a function that runs as its owner would see every tenant.
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
`

// dollarTag is a quote that a body does not hold.
func dollarTag(body string) string {
	for i := 0; ; i++ {
		tag := "$copse$"
		if i > 0 {
			tag = fmt.Sprintf("$copse%d$", i)
		}
		if !strings.Contains(body, tag) {
			return tag
		}
	}
}

// A Table is one whose rows belong to tenants.
type Table struct {
	Schema, Name string
	Column       string // holds the tenant; empty = tenant_id
	Type         string // of the column: text, which varchar is too, or uuid; empty = text
	Role         string // that InitSQL made
}

// AddTableSQL writes the migration that lets the role at a table, and at the rows of the transaction's
// tenant only.
//
// Of the two policies, one admits the role and the other, restrictive and for everybody, is what no
// policy that is added later can widen.
func AddTableSQL(t Table) (string, error) {
	if t.Column == "" {
		t.Column = defaultColumn
	}
	cast := ""
	switch t.Type {
	case "", "text":
	case "uuid":
		cast = "::pg_catalog.uuid"
	default:
		return "", copse.Errorf(copse.Invalid, "rls: a tenant column is text or uuid, not %q", t.Type)
	}
	names := map[string]string{"schema": t.Schema, "table": t.Name, "column": t.Column, "role": t.Role}
	var pairs []string
	for _, what := range []string{"schema", "table", "column", "role"} {
		quoted, err := identifier(what, names[what])
		if err != nil {
			return "", err
		}
		pairs = append(pairs, "{"+what+"}", quoted)
	}
	tenant := "NULLIF(pg_catalog.current_setting(" + literal(Setting) + ", true), '')" + cast
	pairs = append(pairs, "{tenant}", tenant)
	return strings.NewReplacer(pairs...).Replace(addTemplate), nil
}

// PolicyName and WallName are the policies that AddTableSQL makes.
const (
	PolicyName = "copse_tenant"
	WallName   = "copse_tenant_only"
)

// NULLIF, because a setting that was local to a transaction reads as the empty string afterwards, not as
// NULL; a row whose tenant is the empty string must not be seen then.
const addTemplate = `-- Written by copse rls add; review it, then run it as the table's owner. Unique indexes and foreign keys
-- should start with the tenant's column, or they tell one tenant what another has: copse rls check
-- names those that do not.
ALTER TABLE {schema}.{table} ALTER COLUMN {column} SET NOT NULL;
ALTER TABLE {schema}.{table} ALTER COLUMN {column} SET DEFAULT {tenant};
ALTER TABLE {schema}.{table} ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.{table} FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS ` + PolicyName + ` ON {schema}.{table};
CREATE POLICY ` + PolicyName + ` ON {schema}.{table} AS PERMISSIVE FOR ALL TO {role}
    USING ({column} OPERATOR(pg_catalog.=) {tenant})
    WITH CHECK ({column} OPERATOR(pg_catalog.=) {tenant});
DROP POLICY IF EXISTS ` + WallName + ` ON {schema}.{table};
CREATE POLICY ` + WallName + ` ON {schema}.{table} AS RESTRICTIVE FOR ALL TO PUBLIC
    USING ({column} OPERATOR(pg_catalog.=) {tenant})
    WITH CHECK ({column} OPERATOR(pg_catalog.=) {tenant});
REVOKE ALL ON TABLE {schema}.{table} FROM PUBLIC, {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE {schema}.{table} TO {role};
`
