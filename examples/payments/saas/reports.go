package saas

import (
	"net/http"

	"github.com/jackc/pgx/v5"

	"github.com/copse-authz/copse/pep"
)

// Total is what a customer's invoices come to, in cents.
type Total struct {
	Tenant string `json:"tenant"`
	Count  int64  `json:"count"`
	Amount int64  `json:"amount"`
}

// Reports is the service at /reports: what all invoices come to. It has the same table and no other way
// to it, and is a service of its own so that a context the gateway signed for one can be tried at the other.
func Reports(c Config) http.Handler {
	sum := c.Guard.Require(func(*http.Request, *pep.Identity) (pep.Question, error) {
		return pep.Ask("sum", "Service", "reports"), nil
	})
	mux := http.NewServeMux()
	mux.Handle("GET /reports/total", sum(http.HandlerFunc(c.total)))
	return mux
}

// total answers the sums as the query groups them: by tenant, of which the database shows one.
func (c *Config) total(w http.ResponseWriter, r *http.Request) {
	args, err := arguments(r)
	if err != nil {
		answer(w, nil, err)
		return
	}
	rows, err := c.DB.Query(r.Context(), c.Queries.Sum, args)
	if err != nil {
		answer(w, nil, err)
		return
	}
	totals, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Total])
	answer(w, totals, err)
}
