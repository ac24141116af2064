package rls

// relationChecks are about what is read as a table and is none, and about copies of tables.
func relationChecks() []check {
	return []check{
		// A view that reads no table of the database's users shows nothing of anybody's.
		{CheckInfo{"view", "a view reads with its owner's rights, to whom other policies apply or none"}, `
SELECT r.name, format('the view reads tables as its owner %I%s', o.rolname, CASE WHEN o.rolsuper OR o.rolbypassrls THEN ', to whom no policy applies' ELSE '' END),
    CASE WHEN current_setting('server_version_num')::int >= 150000 THEN format('ALTER VIEW %s SET (security_invoker = true);', r.name)
        ELSE format('REVOKE ALL ON %s FROM PUBLIC, %I; -- this server has no security_invoker', r.name, app.rolname) END
FROM app, rel r JOIN pg_roles o ON o.oid = r.relowner
WHERE r.relkind = 'v'
  AND NOT EXISTS (SELECT FROM unnest(r.reloptions) AS option WHERE option ~ '^security_invoker=(true|on|yes|1)$')
  AND EXISTS (
    SELECT FROM pg_rewrite w JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
        AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.oid
    JOIN any_rel t ON t.oid = d.refobjid WHERE w.ev_class = r.oid)`},

		{CheckInfo{"materialized-view", "a materialized view holds rows of all tenants, and can't have policies"}, `
SELECT r.name, format('role %I can read it, and policies do not apply to what it holds', app.rolname),
    format('REVOKE ALL ON %s FROM PUBLIC, %I;', r.name, app.rolname)
FROM app, rel r WHERE r.relkind = 'm'`},

		{CheckInfo{"foreign-table", "a foreign table can't have policies"}, `
SELECT r.name, format('role %I can reach it, and policies do not apply to foreign tables', app.rolname),
    format('REVOKE ALL ON TABLE %s FROM PUBLIC, %I;', r.name, app.rolname)
FROM app, rel r WHERE r.relkind = 'f'`},

		{CheckInfo{"parent-table", "reading a parent shows its children's rows, under the parent's policies alone"}, `
SELECT p.name, format('rows of %s show in it, and the policies of %s are not asked', c.name, c.name),
    format('REVOKE ALL ON TABLE %s FROM PUBLIC, %I;', p.name, app.rolname)
FROM app, rel p JOIN pg_inherits i ON i.inhparent = p.oid JOIN tenant_rel c ON c.oid = i.inhrelid WHERE p.tenant IS NULL`},

		// Type 1 is the rule that makes a view a view.
		{CheckInfo{"rule", "a rule rewrites statements to others that run with its owner's rights"}, `
SELECT format('%I on %s', w.rulename, r.name), 'what a rule adds to a statement runs as the table''s owner',
    format('DROP RULE %I ON %s;', w.rulename, r.name)
FROM rel r JOIN pg_rewrite w ON w.ev_class = r.oid WHERE w.ev_type <> '1'`},

		{CheckInfo{"sequence", "a sequence tells how much all tenants together write"}, `
SELECT r.name, format('role %I has %s on it: it tells, or sets, a count over all tenants', app.rolname, v.privilege),
    format('REVOKE %s ON SEQUENCE %s FROM PUBLIC, %I; -- an identity column needs no privilege', v.privilege, r.name, app.rolname)
FROM app, any_rel r, (VALUES ('SELECT'), ('UPDATE')) AS v (privilege)
-- The kind is looked at first: the privilege of what is no sequence can't be asked for.
WHERE CASE WHEN r.relkind = 'S' THEN has_sequence_privilege(app.oid, r.oid, v.privilege) ELSE false END`},

		{CheckInfo{"large-object", "large objects have no policies"}, `
SELECT format('large object %s', m.oid), format('role %I may %s it', app.rolname, lower(x.privilege_type)),
    format('REVOKE ALL ON LARGE OBJECT %s FROM PUBLIC, %I;', m.oid, app.rolname)
FROM app, pg_largeobject_metadata m, LATERAL aclexplode(m.lomacl) AS x WHERE x.grantee IN (0, app.oid)
UNION ALL
SELECT 'lo_compat_privileges', 'everybody may read every large object', '-- set lo_compat_privileges = off in the server''s configuration'
WHERE current_setting('lo_compat_privileges') = 'on'`},

		{CheckInfo{"publication", "a publication sends the rows of all tenants to its subscribers"}, `
SELECT format('%I', p.pubname), format('it publishes %s: policies do not apply to replication', string_agg(t.name, ', ' ORDER BY t.name)),
    format('DROP PUBLICATION %I; -- or accept it, if its subscribers may have every tenant', p.pubname)
FROM pg_publication p JOIN pg_publication_tables pt ON pt.pubname = p.pubname
JOIN tenant_rel t ON t.name = format('%I.%I', pt.schemaname, pt.tablename)
GROUP BY p.pubname`},
	}
}

// codeChecks are about code that runs where policies do not apply, or before they do.
func codeChecks() []check {
	return []check{
		// A trigger runs whether or not the role may call its function.
		{CheckInfo{"security-definer", "a function or trigger runs with its owner's rights"}, `
SELECT p.oid::regprocedure::text, format('it runs as its owner %I%s, and role %I can %s it', o.rolname,
        CASE WHEN o.rolsuper OR o.rolbypassrls THEN ', to whom no policy applies' ELSE '' END, app.rolname,
        CASE WHEN has_function_privilege(app.oid, p.oid, 'EXECUTE') THEN 'call' ELSE 'trigger' END),
    format('ALTER %s %s SECURITY INVOKER; -- or revoke EXECUTE on it', v.what, p.oid::regprocedure)
FROM app, pg_proc p JOIN pg_roles o ON o.oid = p.proowner, LATERAL (SELECT CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END) AS v (what)
WHERE p.prosecdef AND p.pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
  AND (has_function_privilege(app.oid, p.oid, 'EXECUTE')
    OR EXISTS (SELECT FROM pg_trigger g JOIN rel r ON r.oid = g.tgrelid WHERE g.tgfoid = p.oid AND NOT g.tgisinternal))`},

		{CheckInfo{"leakproof", "a function that says it leaks nothing is run on rows before the policies are"}, `
SELECT p.oid::regprocedure::text, 'it is marked LEAKPROOF, so conditions that use it may see the rows that policies hide',
    format('ALTER FUNCTION %s NOT LEAKPROOF;', p.oid::regprocedure)
FROM app, pg_proc p
WHERE p.proleakproof AND p.pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
  AND has_function_privilege(app.oid, p.oid, 'EXECUTE')`},

		{CheckInfo{"function-setting", "a function sets the tenant, a role, or row security while it runs"}, `
SELECT p.oid::regprocedure::text, format('it runs with %s', setting), format('ALTER %s %s RESET %s;',
    CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, p.oid::regprocedure, split_part(setting, '=', 1))
FROM app, pg_proc p, unnest(p.proconfig) AS setting
WHERE split_part(setting, '=', 1) IN ('` + Setting + `', 'role', 'session_authorization', 'row_security')
  AND has_function_privilege(app.oid, p.oid, 'EXECUTE')`},
	}
}
