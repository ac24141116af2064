package saas

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/copse-authz/copse/pep"
)

// Invoices is the service at /invoices: the list, one invoice, and paying it.
func Invoices(c Config) http.Handler {
	show := c.Guard.Require(c.ask("view"))
	pay := c.Guard.Require(c.ask("pay"))

	mux := http.NewServeMux()
	// The list is many questions, one for each row, so nothing is decided in front of it: [Config.list] asks.
	mux.Handle("GET /invoices", c.Guard.Authenticate(http.HandlerFunc(c.list)))
	mux.Handle("GET /invoices/{id}", show(http.HandlerFunc(c.show)))
	mux.Handle("POST /invoices/{id}/pay", pay(http.HandlerFunc(c.pay)))
	return mux
}

// ask makes the question of a route: the action, and the invoice with what policies may know of it.
func (c *Config) ask(action string) pep.Hook {
	return func(r *http.Request, _ *pep.Identity) (pep.Question, error) {
		in, err := c.invoice(r)
		if err != nil {
			return pep.Question{}, err
		}
		return question(action, in), nil
	}
}

// question asks for an action on an invoice, and describes the invoice as the database has it: policies read
// its amount, and whether it is frozen.
func question(action string, in Invoice) pep.Question {
	id := strconv.Itoa(in.ID)
	description, _ := json.Marshal([]any{map[string]any{ // strings, numbers and a boolean: nothing here can fail
		"uid":     map[string]string{"type": "Invoice", "id": id},
		"attrs":   map[string]any{"amount": in.Amount, "frozen": in.Frozen},
		"parents": []any{},
	}})
	return pep.Ask(action, "Invoice", id).WithEntities(description)
}

// list answers those invoices that the user may view.
func (c *Config) list(w http.ResponseWriter, r *http.Request) {
	all, err := c.invoices(r, c.Queries.List)
	if err != nil {
		answer(w, nil, err)
		return
	}
	visible, err := pep.Filter(r.Context(), all, func(in Invoice) pep.Question { return question("view", in) })
	// An empty list is an array for its reader too, and not null.
	if visible == nil {
		visible = []Invoice{}
	}
	answer(w, visible, err)
}

// show answers the invoice of the path. It is read again: what the guard's hook read was for the decision.
func (c *Config) show(w http.ResponseWriter, r *http.Request) {
	in, err := c.invoice(r)
	answer(w, in, err)
}

// pay marks the invoice as paid, and answers its row. That the user may was decided in front of it.
func (c *Config) pay(w http.ResponseWriter, r *http.Request) {
	paid, err := c.invoices(r, c.Queries.Pay)
	answer(w, paid, err)
}
