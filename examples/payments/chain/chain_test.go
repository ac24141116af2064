package main

import (
	"testing"
)

// The whole chain and the script that attacks it, as `make example` runs them.
func TestChain(t *testing.T) {
	report, err := run(t.Context(), t.Output(), false)
	if err != nil {
		t.Fatal(err)
	}
	if report.Crossings != 0 {
		t.Errorf("%d rows of another tenant were seen", report.Crossings)
	}
	// A script that asks little, or gets nothing at all, would see no crossing either.
	if report.Tour < 13 || report.Attacks < 120 || report.Refused < 80 || report.OwnRows < 50 || report.Control != 3 {
		t.Errorf("%+v: less than the script has", report)
	}
}

// The queries without WHERE are the product's, and nothing else is missing from them.
func TestForgottenQueries(t *testing.T) {
	q, err := forgotten()
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		q.List: "SELECT * FROM invoices ORDER BY id",
		q.Get:  "SELECT * FROM invoices",
		q.Pay:  "UPDATE invoices SET paid = true RETURNING *",
		q.Sum:  "SELECT tenant_id, count(*), sum(amount)::bigint FROM invoices GROUP BY tenant_id",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
