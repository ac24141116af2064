package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/auditlog"
)

// auditCommand only reads the log.
func (a *app) auditCommand() *cobra.Command {
	return group("audit", "Read the audit log, and verify it",
		`The server keeps a row for every change: who, what, when, in which request, with commitments to what was
there before and after, and once a minute a row for the uses of access keys that failed. Each row is
chained to the one before. tail shows what the key covers; verify needs a key with admin everywhere.`,
		`  copse audit tail --tenant acme
  copse audit tail --follow --operation FailedKeyUses
  copse audit verify`,
		a.auditTail(), a.auditVerify())
}

// auditPage asks for one page. The query is sent as it is; what the key does not cover is not in the answer.
func (c *client) auditPage(ctx context.Context, query url.Values) (api.AuditPage, error) {
	var out api.AuditPage
	return out, c.do(ctx, request{method: http.MethodGet, path: "/v1/audit", query: query, out: &out})
}

// auditTail shows one table, and with --follow goes on below it without a second head. As JSON each page
// that comes is a list of its own, so that a reader gets whole values.
func (a *app) auditTail() *cobra.Command {
	var filter [4]string
	var since string
	var limit int
	var followOn, asJSON bool
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Show the last changes",
		Long: `Show the last changes that match, the oldest first; all that is given must match, in full. With --follow go
on with those that come, until interrupted. --since takes a time (RFC 3339), or a duration before now.`,
		Example: `  copse audit tail --since 24h --operation PutContents
  copse audit tail --follow --json`,
		Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := url.Values{}
			// The API's names of the filters, in the order in which the flags are bound below.
			for n, name := range []string{"tenant", "policyStoreId", "actor", "operation"} {
				if filter[n] != "" {
					query.Set(name, filter[n])
				}
			}
			if since != "" {
				at, err := timeFlag("since", since)
				if err != nil {
					return err
				}
				query.Set("from", at)
			}
			if limit < 1 {
				return usagef("--limit must be at least 1")
			}
			// For all pages, with --follow too.
			if asJSON {
				a.output = "json"
			}
			c, err := a.newClient()
			if err != nil {
				return err
			}
			// That nothing was found is said before the empty table.
			page, err := c.lastAuditRows(cmd.Context(), query, limit)
			if err == nil && len(page.Rows) == 0 {
				a.nothingOf(query.Get("tenant"))
			}
			if err == nil {
				err = a.showAudit(page.Rows, true)
			}
			if err != nil || !followOn {
				return err
			}
			return a.followAudit(cmd.Context(), c, query, page.Next)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&filter[0], "tenant", "", "of this tenant")
	flags.StringVar(&filter[1], "policy-store", "", "of this policy store")
	flags.StringVar(&filter[2], "actor", "", "done with this access key; system is copse itself")
	flags.StringVar(&filter[3], "operation", "", "of this kind, such as PutContents or FailedKeyUses")
	flags.StringVar(&since, "since", "", "not before: a time, or how long ago")
	flags.IntVar(&limit, "limit", 50, "the most to show to begin with")
	flags.BoolVarP(&followOn, "follow", "f", false, "go on with what is changed from now on")
	flags.BoolVar(&asJSON, "json", false, "the same as --output json")
	return cmd
}

// lastAuditRows asks until there are enough rows, or no more: a page may be short without being the last.
// Rows are the oldest first. Next and End are those of the first page, which is the latest: to go on from
// there leaves no gap to what was written meanwhile. query is changed, and comes back without before.
func (c *client) lastAuditRows(ctx context.Context, query url.Values, limit int) (api.AuditPage, error) {
	const perPage = 500
	var all api.AuditPage
	for first := true; ; first = false {
		query.Set("maxResults", strconv.Itoa(min(limit-len(all.Rows), perPage)))
		page, err := c.auditPage(ctx, query)
		if err != nil {
			return all, err
		}
		// Each further page is of earlier rows.
		all.Rows = append(page.Rows, all.Rows...)
		if first {
			all.Next, all.End = page.Next, page.End
		}
		if len(all.Rows) >= limit || page.Earlier == "" {
			query.Del("before")
			return all, nil
		}
		query.Set("before", page.Earlier)
	}
}

// followAudit asks once a second for what comes after next, and shows it. It ends without an error when ctx
// does, and with the first error otherwise. While there is more than a page it asks at once.
func (a *app) followAudit(ctx context.Context, c *client, query url.Values, next string) error {
	// As many as the server gives: what to begin with was limited, not what comes.
	query.Del("maxResults")
	pause := time.Second
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		query.Set("after", next)
		page, err := c.auditPage(ctx, query)
		if err == nil && len(page.Rows) > 0 {
			err = a.showAudit(page.Rows, false)
		}
		if err != nil {
			return err
		}
		next = page.Next
		// With more behind it, another second would fall behind.
		if pause = 0; page.AtEnd {
			pause = time.Second
		}
	}
}

// showAudit shows rows; head is for the first of several tables that make one.
func (a *app) showAudit(rows []api.AuditRow, head bool) error {
	return a.show(rows, func(t *table) {
		if head {
			t.row("ROW", "TIME", "ACTOR", "OPERATION", "WHERE", "WHAT", "REQUEST")
		}
		for i := range rows {
			r := &rows[i]
			number := "-" // of a key that does not cover everything
			if r.Number > 0 {
				number = strconv.FormatUint(r.Number, 10)
			}
			t.row(number, r.Time, r.Actor, r.Operation,
				cmp.Or(r.PolicyStoreID, "directory"), auditWhat(r), r.RequestID)
		}
	})
}

// auditWhat names a few of the things that were written: kind and id, with a minus for what was deleted. A
// row of uses of keys that failed has those instead.
func auditWhat(r *api.AuditRow) string {
	const most = 3
	var words []string
	if f := r.FailedUses; f != nil {
		for _, use := range f.Uses {
			words = append(words, fmt.Sprintf("%s %s x%d", use.Key, use.Reason, use.Count))
		}
	} else {
		for _, c := range r.Changes {
			switch {
			// What it was is gone, with its name.
			case c.Erased:
				words = append(words, "(erased)")
			case c.Deleted:
				words = append(words, "-"+strings.Trim(c.Kind+"/"+c.ID, "/"))
			default:
				words = append(words, strings.Trim(c.Kind+"/"+c.ID, "/"))
			}
		}
		// Erased with its policy store, down to the commitments: that there was something is all that is left.
		if len(words) == 0 && r.Writes > 0 {
			words = []string{count(r.Writes, "item") + " (erased)"}
		}
	}
	// One commit may have written thousands of items; the JSON has all of them.
	if more := len(words) - most; more > 0 {
		words = append(slices.Clone(words[:most]), fmt.Sprintf("and %d more", more))
	}
	return strings.Join(words, ", ")
}

// auditVerify trusts nothing that the server says of its log: the chain is computed here, from the rows.
// Problems are the result and are shown as such; the error after them is for the exit code. It needs a key
// with admin everywhere: others see a log with holes.
func (a *app) auditVerify() *cobra.Command {
	var head string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that no row of the log was changed, left out or moved",
		Long: `Read the whole audit log from the server, compute its chain here, and hold every row and the commitments
to what was changed against it. Ends with 1 when something is not as it was written, and names the rows.
What was erased, with a tenant or by hand, breaks nothing.

It prints a head. Given with --head to a later verification, it also finds a log whose end was cut off, or
that somebody who has the disk wrote anew: keep it where they can't change it. Of a data directory that no
server has, and of a backup, "copse check" verifies the same.`,
		Example: `  copse audit verify
  copse audit verify --head 1729:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08`,
		Args: args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			// A head that is none is told before anything is read.
			v, err := auditlog.NewVerifier(head)
			if err != nil {
				return usagef("--head: %v", err)
			}
			c, err := a.newClient()
			if err != nil {
				return err
			}
			settled, err := c.verifyAudit(cmd.Context(), v)
			if err != nil {
				return err
			}
			report := v.Done(settled)
			err = a.show(report, func(t *table) {
				for _, p := range report.Problems {
					t.line(p.String())
				}
				t.pairs("rows", strconv.FormatUint(report.Rows, 10), "erased", strconv.FormatUint(report.Erased, 10),
					"head", report.Head, "problems", strconv.Itoa(len(report.Problems)))
			})
			if err == nil && len(report.Problems) > 0 {
				err = &failure{code: exitError, message: "the audit log is not as it was written"}
			}
			return err
		},
	}
	cmd.Flags().StringVar(&head, "head", "", "head of an earlier verification, which the log must contain")
	return cmd
}

// verifyAudit hands all rows to v, in their order. It returns the number of the last row of the first pass,
// for Done. It reads to the end that the log had at first, and then to the end that it had after that: a
// policy store that was deleted while its rows were read has said so by then.
func (c *client) verifyAudit(ctx context.Context, v *auditlog.Verifier) (settled uint64, err error) {
	query := url.Values{"maxResults": {"500"}}
	// Positions are numbers for a key that covers everything: after 0 comes the first row.
	next := uint64(0)
	for pass := range 2 {
		// How far this pass goes is known from its first page.
		goal := uint64(0)
		for first := true; first || next < goal; first = false {
			query.Set("after", strconv.FormatUint(next, 10))
			page, err := c.auditPage(ctx, query)
			if err != nil {
				return 0, err
			}
			// The server tells the end only to keys that see all: with holes in it no chain can be followed.
			if page.End == nil {
				return 0, failf("this key does not see all rows of the audit log: verify with one that has admin everywhere")
			}
			// What the log says of its end must be in it.
			if first {
				goal = page.End.Number
				v.Declare(page.End.Log())
			}
			// Rows are in the order in which the chain goes, so each can be handed on and forgotten.
			for i := range page.Rows {
				e, err := page.Rows[i].Entry()
				if err != nil {
					return 0, err
				}
				v.Add(e)
			}
			// The position of the last row that was looked at, also where a page has none.
			reached, err := strconv.ParseUint(page.Next, 10, 64)
			if err != nil {
				return 0, failf("the server gave the position %q, which is none", page.Next)
			}
			if reached <= next {
				break // the rows that are missing are for v to name
			}
			next = reached
		}
		if pass == 0 {
			settled = next
		}
	}
	return settled, nil
}
