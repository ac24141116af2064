package rls

// roleChecks are about the role itself: what it is, what it belongs to, what it may make.
func roleChecks() []check {
	return []check{
		{CheckInfo{"role-attribute", "the role is a superuser, bypasses policies, replicates, or makes roles or databases"}, `
SELECT format('%I', r.rolname), v.detail, format('ALTER ROLE %I %s;', r.rolname, v.fix)
FROM pg_roles r JOIN app USING (oid), LATERAL (VALUES
    (r.rolsuper, 'the role is a superuser, to whom no policy applies', 'NOSUPERUSER'),
    (r.rolbypassrls, 'the role has BYPASSRLS: no policy applies to it', 'NOBYPASSRLS'),
    (r.rolreplication, 'the role may replicate, which copies every row', 'NOREPLICATION'),
    (r.rolcreaterole, 'the role may make roles, and grant itself what they can', 'NOCREATEROLE'),
    (r.rolcreatedb, 'the role may make databases, which it then owns', 'NOCREATEDB')
) AS v (has, detail, fix) WHERE v.has`},

		{CheckInfo{"role-membership", "the role can become another, by SET ROLE or by inheriting"}, `
SELECT format('%I', g.rolname), format('role %I is a member of %I, and can do what that role can', app.rolname, g.rolname),
    format('REVOKE %I FROM %I;', g.rolname, app.rolname)
FROM app JOIN pg_auth_members m ON m.member = app.oid JOIN pg_roles g ON g.oid = m.roleid`},

		// Objects of the cluster (0) and of this database; those of others can't be named from here.
		{CheckInfo{"role-owns", "the role owns something: an owner can change policies, grants and code"}, `
SELECT identity, format('role %I owns this %s, and can change it and grant it', app.rolname, type),
    '-- REASSIGN OWNED BY the role TO the one that runs your migrations'
FROM app JOIN pg_shdepend d ON d.refobjid = app.oid AND d.refclassid = 'pg_authid'::regclass AND d.deptype = 'o',
    LATERAL pg_identify_object(d.classid, d.objid, d.objsubid)
WHERE d.dbid = 0 OR d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())`},

		// Stored settings of the role, of the database and of the two together, then what the server itself says.
		{CheckInfo{"role-setting", "a stored setting gives connections a tenant, or takes row security away"}, `
SELECT format('%s', setting), format('every connection of %s starts with %s',
        CASE WHEN s.setrole = 0 THEN 'this database' ELSE format('role %I', app.rolname) END, setting),
    CASE WHEN s.setrole = 0 THEN format('ALTER DATABASE %I RESET %s;', current_database(), split_part(setting, '=', 1))
        WHEN s.setdatabase = 0 THEN format('ALTER ROLE %I RESET %s;', app.rolname, split_part(setting, '=', 1))
        ELSE format('ALTER ROLE %I IN DATABASE %I RESET %s;', app.rolname, current_database(), split_part(setting, '=', 1)) END
FROM app, pg_db_role_setting s, unnest(s.setconfig) AS setting
WHERE s.setrole IN (0, app.oid) AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
  AND split_part(setting, '=', 1) IN ('` + Setting + `', 'role', 'session_authorization', 'row_security')
UNION ALL
SELECT '` + Setting + `', format('this connection started with tenant %L', current_setting('` + Setting + `', true)), '-- remove it from the server''s configuration'
WHERE current_setting('` + Setting + `', true) <> ''
  AND NOT EXISTS (SELECT FROM pg_db_role_setting s, unnest(s.setconfig) AS setting WHERE split_part(setting, '=', 1) = '` + Setting + `')`},

		{CheckInfo{"database-privilege", "the role may make schemas, or temporary tables, which outlive a transaction"}, `
SELECT format('%I', current_database()), format('role %I has %s on the database: %s', app.rolname, v.privilege, v.detail),
    format('REVOKE %s ON DATABASE %I FROM PUBLIC, %I;', v.privilege, current_database(), app.rolname)
FROM app, (VALUES
    ('CREATE', 'schemas of its own have no policies'),
    ('TEMPORARY', 'a temporary table keeps one tenant''s rows for the next that gets the connection')
) AS v (privilege, detail)
WHERE has_database_privilege(app.oid, current_database(), v.privilege)`},

		{CheckInfo{"schema-create", "the role may make objects, which have no policies"}, `
SELECT format('%I', n.nspname), format('role %I has CREATE on the schema: tables and functions of its own have no policies', app.rolname),
    format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC, %I;', n.nspname, app.rolname)
FROM app, pg_namespace n
WHERE n.nspname !~ '^pg_(toast|temp)' AND has_schema_privilege(app.oid, n.oid, 'CREATE')`},

		{CheckInfo{"default-privileges", "what is made later is the role's, or everybody's, before anyone looks at it"}, `
SELECT format('%s of %I', v.what, o.rolname),
    format('default privileges give %s to %s on every new one', x.privilege_type, CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(app.rolname) END),
    format('ALTER DEFAULT PRIVILEGES FOR ROLE %I %sREVOKE %s ON %s FROM %s;', o.rolname,
        CASE WHEN d.defaclnamespace = 0 THEN '' ELSE format('IN SCHEMA %I ', n.nspname) END, x.privilege_type, v.what,
        CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(app.rolname) END)
FROM app, pg_default_acl d JOIN pg_roles o ON o.oid = d.defaclrole LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
JOIN (VALUES ('r'::"char", 'TABLES'), ('S', 'SEQUENCES'), ('f', 'FUNCTIONS'), ('n', 'SCHEMAS')) AS v (type, what) ON v.type = d.defaclobjtype,
LATERAL aclexplode(d.defaclacl) AS x
WHERE x.grantee IN (0, app.oid) AND NOT (d.defaclobjtype = 'S' AND x.privilege_type = 'USAGE')
  AND NOT (d.defaclobjtype = 'n' AND x.privilege_type = 'USAGE')`},

		{CheckInfo{"catalog-privilege", "the role may read what the server keeps about everybody's rows, or its files"}, `
SELECT c.oid::regclass::text, format('role %I may read it: it holds values or passwords that no policy covers', app.rolname),
    format('REVOKE ALL ON %s FROM PUBLIC, %I;', c.oid::regclass, app.rolname)
FROM app, pg_class c
WHERE c.oid IN ('pg_statistic'::regclass, 'pg_statistic_ext_data'::regclass, 'pg_authid'::regclass, 'pg_largeobject'::regclass, 'pg_user_mapping'::regclass)
  AND (has_table_privilege(app.oid, c.oid, 'SELECT')
    OR c.oid = 'pg_statistic'::regclass AND has_column_privilege(app.oid, c.oid, 'stavalues1', 'SELECT'))
UNION ALL
SELECT p.oid::regprocedure::text, format('role %I may run it, which reaches the server''s files', app.rolname),
    format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC, %I;', p.oid::regprocedure, app.rolname)
FROM app, pg_proc p
WHERE p.pronamespace = 'pg_catalog'::regnamespace
  AND p.proname IN ('pg_read_file', 'pg_read_binary_file', 'pg_ls_dir', 'pg_stat_file', 'lo_import', 'lo_export')
  AND has_function_privilege(app.oid, p.oid, 'EXECUTE')`},
	}
}
