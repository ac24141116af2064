package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"text/tabwriter"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// show prints a result in the form --output asks for: v as JSON, or what draw puts into a table. draw may be
// nil where the form is json already, v where it is not. JSON is indented and in one order of members, so
// that two outputs can be compared. Most commands give the API's own answer as v, so that JSON here is what
// it is over HTTP.
func (a *app) show(v any, draw func(*table)) error {
	if a.output == "json" {
		if err := json.MarshalWrite(a.stdout, v, jsontext.WithIndent("  "), json.Deterministic(true)); err != nil {
			return failf("writing the result: %w", err)
		}
		_, err := fmt.Fprintln(a.stdout)
		return err
	}
	t := &table{w: tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)}
	draw(t)
	return t.w.Flush()
}

// say prints a sentence about what was done, to where it is not in the way of a result: standard error. It
// stays one line whatever is in it.
func (a *app) say(format string, args ...any) {
	fmt.Fprintln(a.stderr, oneLine(fmt.Sprintf(format, args...)))
}

// table is text in columns, whose widths are known only when all rows are: nothing is written before the end.
type table struct{ w *tabwriter.Writer }

// row writes one line. A cell is one line whatever it holds: a name in a policy store is its
// tenant's to choose, and must not be able to draw rows of its own.
func (t *table) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = oneLine(cell)
		// A cell that is empty would let the next one be taken for it.
		if cells[i] == "" {
			cells[i] = "-"
		}
	}
	_, _ = io.WriteString(t.w, strings.Join(cells, "\t")+"\n") // Flush returns the error
}

// line writes text that belongs to no column.
func (t *table) line(text string) { _, _ = io.WriteString(t.w, oneLine(text)+"\n") }

// pairs writes names and values, one pair a line. A name without a value at the end is left out.
func (t *table) pairs(cells ...string) {
	for i := 0; i+1 < len(cells); i += 2 {
		t.row(cells[i], cells[i+1])
	}
}

// when shows a time in a table, in UTC; none as nothing, which a row shows as a dash.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// listed is a list in one cell. Commas in the items are not told apart from its own: programs read the JSON.
func listed(items []string) string { return strings.Join(items, ",") }
