package rls

// tableChecks are about the tables that the role can reach: that policies are in force on them, that these
// are the right ones, and that nothing beside them tells what other tenants have.
func tableChecks() []check {
	return []check{
		{CheckInfo{"no-tenant-column", "the role reaches a table that has no tenant's column: everybody's, or forgotten"}, `
SELECT r.name, format('role %I can reach it, and no column says whose a row is', app.rolname),
    format('REVOKE ALL ON TABLE %s FROM PUBLIC, %I; -- or accept it, if it is the same for all tenants', r.name, app.rolname)
FROM app, rel r WHERE r.relkind IN ('r', 'p') AND r.tenant IS NULL`},

		{CheckInfo{"rls-off", "row security is not enabled"}, `
SELECT r.name, 'row security is off: the role sees the rows of every tenant' ||
    CASE WHEN r.relispartition OR EXISTS (SELECT FROM pg_inherits WHERE inhrelid = r.oid)
        THEN ', because the policies of a parent are not those of its partitions and children' ELSE '' END,
    format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY; -- and copse rls add', r.name)
FROM rel r WHERE r.relkind IN ('r', 'p') AND r.tenant IS NOT NULL AND NOT r.relrowsecurity`},

		// The role owns nothing, but what it may read or call may run as the owner.
		{CheckInfo{"rls-not-forced", "the table's owner sees every row, and so do views and functions of that owner"}, `
SELECT r.name, format('row security is not forced on its owner %I, and whatever runs as that', o.rolname),
    format('ALTER TABLE %s FORCE ROW LEVEL SECURITY;', r.name)
FROM rel r JOIN pg_roles o ON o.oid = r.relowner
WHERE r.relkind IN ('r', 'p') AND r.tenant IS NOT NULL AND r.relrowsecurity AND NOT r.relforcerowsecurity`},

		{CheckInfo{"policy", "the policies let through more than the tenant's rows"}, policyQuery},

		// Tenant ids are compared as bytes everywhere in copse; the column must not find two of them equal.
		{CheckInfo{"tenant-compare", "the tenant's column does not compare bytes, so that two tenants are one"}, `
SELECT format('%s.%I', r.name, r.attname), v.detail, format('ALTER TABLE %s ALTER COLUMN %I TYPE text COLLATE "C";', r.name, r.attname)
FROM rel r, LATERAL (
    SELECT 'its collation is not deterministic: ids that differ can be equal' FROM pg_collation WHERE oid = r.attcollation AND NOT collisdeterministic
    UNION ALL
    SELECT format('type %s does not compare bytes', format_type(r.atttypid, NULL))
    FROM pg_type t LEFT JOIN pg_type base ON base.oid = t.typbasetype
    WHERE t.oid = r.atttypid AND coalesce(nullif(base.typname, ''), t.typname) NOT IN ('text', 'varchar', 'uuid')
) AS v (detail)
WHERE r.relkind IN ('r', 'p') AND r.tenant IS NOT NULL`},

		{CheckInfo{"table-privilege", "the role may do to a table what policies do not cover"}, `
SELECT r.name, format('role %I has %s: %s', app.rolname, v.privilege, v.detail),
    format('REVOKE %s ON TABLE %s FROM PUBLIC, %I;', v.privilege, r.name, app.rolname)
FROM app, rel r, (VALUES
    ('TRUNCATE', 'it empties the table for every tenant'),
    ('REFERENCES', 'a foreign key on it tells which keys there are'),
    ('TRIGGER', 'a trigger sees the rows of whoever writes')
) AS v (privilege, detail)
WHERE r.relkind IN ('r', 'p', 'f') AND has_table_privilege(app.oid, r.oid, v.privilege)`},

		// Uniqueness is checked without policies. With the tenant's column in it, nobody meets another's value.
		{CheckInfo{"unique-index", "a unique index or exclusion constraint that is not the tenant's own tells what others have"}, `
SELECT format('%I.%I', n.nspname, ic.relname),
    format('it is unique over all tenants of %s: who writes a value that another tenant has is told so', r.name),
    CASE WHEN con.oid IS NOT NULL AND con.contype <> 'x' THEN format('ALTER TABLE %s DROP CONSTRAINT %I, ADD %s (%I, %s);', r.name, con.conname,
            CASE con.contype WHEN 'p' THEN 'PRIMARY KEY' ELSE 'UNIQUE' END, r.attname, k.columns)
        WHEN con.oid IS NOT NULL THEN '-- add the tenant''s column WITH = to the constraint'
        ELSE format('DROP INDEX %I.%I; -- and make it again with the tenant''s column first', n.nspname, ic.relname) END
FROM rel r JOIN pg_index i ON i.indrelid = r.oid AND (i.indisunique OR i.indisexclusion)
JOIN pg_class ic ON ic.oid = i.indexrelid JOIN pg_namespace n ON n.oid = ic.relnamespace
LEFT JOIN pg_constraint con ON con.conindid = i.indexrelid AND con.conrelid = r.oid AND con.contype IN ('p', 'u', 'x'),
LATERAL (
    SELECT string_agg(pg_get_indexdef(i.indexrelid, o::int, true), ', ' ORDER BY o) AS columns, bool_or(i.indkey[o - 1] = r.tenant) AS has_tenant
    FROM generate_series(1, i.indnkeyatts) AS o
) AS k
WHERE r.relkind IN ('r', 'p') AND r.tenant IS NOT NULL AND NOT k.has_tenant`},

		{CheckInfo{"foreign-key", "a foreign key crosses tenants: it is checked without policies"}, `
SELECT format('%I on %s', c.conname, s.name),
    format('it can refer to another tenant''s row of %s, and so tells that the row is there', t.name),
    format('ALTER TABLE %s DROP CONSTRAINT %I, ADD FOREIGN KEY (%s%s) REFERENCES %s (%s%s); -- needs a unique index on the latter', s.name, c.conname,
        CASE WHEN s.tenant IS NULL THEN '... , ' ELSE format('%I, ', s.attname) END,
        (SELECT string_agg(quote_ident(attname), ', ' ORDER BY array_position(c.conkey, attnum)) FROM pg_attribute WHERE attrelid = c.conrelid AND attnum = ANY (c.conkey)),
        t.name, format('%I, ', t.attname),
        (SELECT string_agg(quote_ident(attname), ', ' ORDER BY array_position(c.confkey, attnum)) FROM pg_attribute WHERE attrelid = c.confrelid AND attnum = ANY (c.confkey)))
FROM pg_constraint c JOIN rel s ON s.oid = c.conrelid JOIN tenant_rel t ON t.oid = c.confrelid
WHERE c.contype = 'f' AND c.conparentid = 0
  AND NOT EXISTS (SELECT FROM generate_subscripts(c.conkey, 1) AS o WHERE c.conkey[o] = s.tenant AND c.confkey[o] = t.tenant)`},
	}
}

// policyQuery compares policies with the one right condition, as the server prints it for the column's
// type. The restrictive wall, if it is there for everybody and every command, settles it: what other
// policies say can only narrow it. Without it, each permissive policy that applies to the role has to have
// the condition itself, and there has to be one, or nothing was set up.
const policyQuery = `,
wanted AS (
    SELECT r.oid, r.name, r.attname, format('(%s = %s)', col.text, CASE WHEN t.typname = 'uuid' THEN format('(%s)::uuid', v.value) ELSE v.value END) AS condition
    FROM rel r JOIN pg_type t ON t.oid = r.atttypid,
    (SELECT 'NULLIF(current_setting(''` + Setting + `''::text, true), ''''::text)') AS v (value),
    LATERAL (SELECT CASE WHEN t.typname IN ('text', 'uuid') THEN quote_ident(r.attname) ELSE format('(%s)::text', quote_ident(r.attname)) END) AS col (text)
    WHERE r.relkind IN ('r', 'p') AND r.tenant IS NOT NULL AND r.relrowsecurity
),
found AS (
    SELECT w.oid, w.name, w.attname, p.polname, p.polcmd, p.polpermissive, 0 = ANY (p.polroles) AS everybody,
        pg_get_expr(p.polqual, p.polrelid) AS using_text, pg_get_expr(p.polwithcheck, p.polrelid) AS check_text,
        CASE WHEN p.polcmd = 'a' THEN pg_get_expr(p.polwithcheck, p.polrelid) IS NOT DISTINCT FROM w.condition
            ELSE pg_get_expr(p.polqual, p.polrelid) IS NOT DISTINCT FROM w.condition
                AND coalesce(pg_get_expr(p.polwithcheck, p.polrelid), w.condition) = w.condition END AS right_one
    FROM app, wanted w JOIN pg_policy p ON p.polrelid = w.oid
    WHERE 0 = ANY (p.polroles) OR EXISTS (SELECT FROM unnest(p.polroles) AS role WHERE role <> 0 AND pg_has_role(app.oid, role, 'MEMBER'))
),
walled AS (SELECT DISTINCT oid FROM found WHERE NOT polpermissive AND polcmd = '*' AND everybody AND right_one)
SELECT format('%I on %s', f.polname, f.name),
    CASE WHEN EXISTS (SELECT FROM unnest(ARRAY[f.using_text, f.check_text]) AS text WHERE text LIKE '%` + Setting + `%' AND text NOT ILIKE '%nullif%')
        THEN 'it does not handle the empty string, which the setting is after a transaction: rows of the empty tenant show'
        ELSE concat('it is not the tenant''s condition:', ' USING ' || f.using_text, ' WITH CHECK ' || f.check_text) END,
    format('DROP POLICY %I ON %s; -- and copse rls add', f.polname, f.name)
FROM found f WHERE f.polpermissive AND NOT f.right_one AND f.oid NOT IN (SELECT oid FROM walled)
UNION ALL
SELECT w.name, 'no policy has the tenant''s condition', '-- copse rls add'
FROM wanted w WHERE NOT EXISTS (SELECT FROM found f WHERE f.oid = w.oid AND f.right_one)
  AND NOT EXISTS (SELECT FROM found f WHERE f.oid = w.oid AND f.polpermissive)`
