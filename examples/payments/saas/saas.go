// Package saas is a small product with many customers: two services on one table, which copse's chain
// keeps apart. It shows what a service needs for that, three things: a guard in front of its handlers,
// the guard's tenant in its queries, and a database handle that refuses to work without one.
//
// The handlers below are ordinary ones. Nothing in them says which tenant may see what.
package saas

import (
	_ "embed" // for the schema
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/pep"
	"github.com/copse-authz/copse/rls"
)

// Schema makes the table and its rows; rls's migrations come after it.
//
//go:embed schema.sql
var Schema string

// Invoice is a row; Amount is in cents. Tenant is in it so that whoever reads an answer can tell whose row it
// was.
type Invoice struct {
	Tenant   string `json:"tenant" db:"tenant_id"`
	ID       int    `json:"id"`
	Customer string `json:"customer"`
	Amount   int64  `json:"amount"`
	Frozen   bool   `json:"frozen"`
	Paid     bool   `json:"paid"`
}

// Queries of both services. Each names the tenant, although the database adds the same condition by
// itself: row-level security is the net under a query that was written without it.
type Queries struct{ List, Get, Pay, Sum string }

// DefaultQueries are those of the product.
func DefaultQueries() Queries {
	return Queries{
		List: "SELECT * FROM invoices WHERE tenant_id = @tenant ORDER BY id",
		Get:  "SELECT * FROM invoices WHERE tenant_id = @tenant AND id = @id",
		Pay:  "UPDATE invoices SET paid = true WHERE tenant_id = @tenant AND id = @id RETURNING *",
		Sum:  "SELECT tenant_id, count(*), sum(amount)::bigint FROM invoices WHERE tenant_id = @tenant GROUP BY tenant_id",
	}
}

// Config is what either service is made of. Both may share a DB; signed contexts are for one service, so each
// has a Guard of its own.
type Config struct {
	DB      *rls.DB
	Guard   *pep.PEP
	Queries Queries
}

// arguments names the tenant of the request, and the invoice if the route has one.
func arguments(r *http.Request) (pgx.NamedArgs, error) {
	args := pgx.NamedArgs{"tenant": string(pep.From(r.Context()).Tenant)}
	if text := r.PathValue("id"); text != "" {
		id, err := strconv.Atoi(text)
		if err != nil {
			return nil, copse.NotFoundError("INVOICE", text)
		}
		args["id"] = id
	}
	return args, nil
}

// invoices runs a query that gives rows of the table, bound to the tenant in the request's context. Without a
// tenant there, which is to say without the guard, DB runs nothing.
func (c *Config) invoices(r *http.Request, query string) ([]Invoice, error) {
	args, err := arguments(r)
	if err != nil {
		return nil, err
	}
	rows, err := c.DB.Query(r.Context(), query, args)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[Invoice])
}

// invoice reads the invoice of the path: NotFound when the user's tenant has none of that number, also where
// another tenant has one.
func (c *Config) invoice(r *http.Request) (Invoice, error) {
	found, err := c.invoices(r, c.Queries.Get)
	if err != nil {
		return Invoice{}, err
	}
	if len(found) == 0 {
		return Invoice{}, copse.NotFoundError("INVOICE", r.PathValue("id"))
	}
	return found[0], nil
}

// answer writes JSON, or an error as a status without its text: what went wrong inside is nobody's outside.
func answer(w http.ResponseWriter, v any, err error) {
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v) // the client may have gone
	case errors.As(err, new(*copse.Error)) && copse.KindOf(err) == copse.NotFound:
		http.Error(w, "not found", http.StatusNotFound)
	default:
		http.Error(w, "internal error", http.StatusInternalServerError)
	}
}
