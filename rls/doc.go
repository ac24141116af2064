// Package rls binds database transactions to a tenant, and has PostgreSQL refuse the rows of every other.
// It is the last link of the chain: it holds when a query has forgotten its WHERE clause.
//
//	db, err := rls.Open(ctx, os.Getenv("DATABASE_URL"))
//	...
//	rows, err := db.Query(r.Context(), "SELECT id, amount FROM invoices")
//
// The tenant is the context's. In a service, pep's middleware puts it there once the user's token is
// verified; in jobs and tools, [ForTenant] does. A transaction or batch without a tenant does not start.
// The tenant is a setting, local to the transaction and set by a parameter, which the policies on the
// tables compare with the row's: [InitSQL] and [AddTableSQL] (copse rls init and add) write them,
// [Check] (copse rls check) looks for every way around them, and [DB.SelfTest] refuses to start on a
// database that has one.
//
// What it does not stop: SQL that an attacker injects can set the setting to another tenant. Use
// parameters; see docs/rls.md.
package rls
