package main

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/decisionlog"
)

// decisionsCommand only reads. Only verify works without a server.
func (a *app) decisionsCommand() *cobra.Command {
	return group("decisions", "Read the decision log, and verify it",
		`The server keeps a line for every decision, in signed and chained files under DATA/decisions. tail and
search ask the server, and show what the key covers; verify reads the files, and needs no server.`,
		`  copse decisions tail --tenant acme
  copse decisions search --tenant acme --principal 'User::"alice"' --decision DENY
  copse decisions keys --output json > keys.json
  copse decisions verify /var/lib/copse/decisions --keys keys.json`,
		a.decisionsTail(), a.decisionsSearch(), a.decisionsKeys(), a.decisionsVerify())
}

// decisionFilter is what tail and search have in common: empty strings filter nothing. What is given must
// match in full.
type decisionFilter struct {
	tenant, store, principal, action, resource, decision string
	limit                                                int
}

// flags adds the filters to a command.
func (f *decisionFilter) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.tenant, "tenant", "", "of this tenant")
	flags.StringVar(&f.store, "policy-store", "", "of this policy store")
	flags.StringVar(&f.principal, "principal", "", `who asked, such as 'User::"alice"'`)
	flags.StringVar(&f.action, "action", "", `what for, such as 'Action::"view"'`)
	flags.StringVar(&f.resource, "resource", "", `of what, such as 'Invoice::"17"'`)
	flags.StringVar(&f.decision, "decision", "", "ALLOW or DENY")
	flags.IntVar(&f.limit, "limit", 50, "the most to show, up to 500")
}

// query is the filters under the API's names. What is none of the values there are is the server's to refuse.
func (f *decisionFilter) query() url.Values {
	q := url.Values{"maxResults": {strconv.Itoa(f.limit)}}
	// Decisions are in capitals in the log, and may be given in any case.
	for name, value := range map[string]string{"tenant": f.tenant, "policyStoreId": f.store, "principal": f.principal,
		"action": f.action, "resource": f.resource, "decision": strings.ToUpper(f.decision)} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return q
}

// decisionRows shows decisions, the oldest first, each by its tenant, or its policy store where it has none.
func decisionRows(t *table, list []api.LoggedDecision) {
	for i := range list {
		d := &list[i]
		t.row(d.Time.UTC().Format("2006-01-02T15:04:05.000Z"), firstOf(d.Tenant, d.PolicyStoreID), d.Principal, d.Action, d.Resource,
			d.Decision, firstOf(listed(d.Determining), "-"), d.RequestID)
	}
}

// nothingOf says why a list may be empty: a tenant whose name is misspelt finds as little as one that did nothing.
func (a *app) nothingOf(tenant string) {
	if tenant != "" {
		a.say("nothing of tenant %s; `copse tenant get %s` says whether there is one", tenant, tenant)
	}
}

// showDecisions shows one answer. In JSON it has the positions to go on from, too. tenant is the one that
// was asked for, empty for all.
func (a *app) showDecisions(out api.DecisionList, tenant string) error {
	if len(out.Decisions) == 0 {
		a.nothingOf(tenant)
	}
	return a.show(out, func(t *table) {
		t.row("TIME", "TENANT", "PRINCIPAL", "ACTION", "RESOURCE", "DECISION", "DETERMINED BY", "REQUEST")
		decisionRows(t, out.Decisions)
	})
}

// searchDecisions asks until there are as many as wanted, or no more: one answer is of a part of the log.
// The oldest come first. next is that of the first answer, which is of the latest lines; before is where an
// earlier search goes on. With after in the query it asks once, and goes forward. query is left as it is.
func searchDecisions(ctx context.Context, c *client, query url.Values, limit int) (api.DecisionList, error) {
	query = maps.Clone(query)
	var all api.DecisionList
	for {
		var out api.DecisionList
		if err := c.do(ctx, request{method: http.MethodGet, path: "/v1/decisions", query: query, out: &out}); err != nil {
			return api.DecisionList{}, err
		}
		// Of the first answer only: later ones are of earlier lines.
		if all.Next == "" {
			all.Next = out.Next
		}
		// Each further answer is of earlier lines.
		all.Before, all.Decisions = out.Before, append(out.Decisions, all.Decisions...)
		if out.Before == "" || len(all.Decisions) >= limit || query.Has("after") {
			return all, nil
		}
		query.Set("before", out.Before)
		query.Set("maxResults", strconv.Itoa(limit-len(all.Decisions)))
	}
}

// decisionsTail shows the last decisions and with --follow, once a second, those that came since. It ends
// without an error when it is interrupted while it waits. It needs read on the policy stores whose decisions
// it shows; of others it finds none.
func (a *app) decisionsTail() *cobra.Command {
	var filter decisionFilter
	var followOn bool
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Show the last decisions",
		Long: `Show the last decisions that match, the oldest first. With --follow go on with those that come, until
interrupted.`,
		Example: `  copse decisions tail --tenant acme --follow`,
		Args:    args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.newClient()
			if err != nil {
				return err
			}
			query := filter.query()
			for {
				out, err := searchDecisions(cmd.Context(), c, query, filter.limit)
				if err != nil {
					return err
				}
				// The first answer is shown also when there is nothing in it: later ones only when there is.
				if !query.Has("after") || len(out.Decisions) > 0 {
					if err := a.showDecisions(out, filter.tenant); err != nil {
						return err
					}
				}
				if !followOn {
					return nil
				}
				query.Set("after", out.Next)
				if len(out.Decisions) > 0 {
					continue // there may be more, and a pause after each page would fall behind
				}
				select {
				case <-cmd.Context().Done():
					return nil
				case <-time.After(time.Second):
				}
			}
		},
	}
	filter.flags(cmd)
	cmd.Flags().BoolVarP(&followOn, "follow", "f", false, "go on with what is decided from now on")
	return cmd
}

// decisionsSearch differs from tail in that it can look at any time of the log, and does not go on.
func (a *app) decisionsSearch() *cobra.Command {
	var filter decisionFilter
	var from, to string
	var before string
	cmd := &cobra.Command{
		Use:   "search",
		Short: "Find decisions by tenant, principal, action, resource, decision and time",
		Long: `Find decisions, the last ones first found. All that is given must match, in full and byte for byte;
times are RFC 3339, or a duration before now. A time makes it fast: what was logged before it is not
read.`,
		Example: `  copse decisions search --tenant acme --resource 'Invoice::"17"' --from 24h`,
		Args:    args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := filter.query()
			// Where a key does not cover everything, the server has sealed it for that key.
			if before != "" {
				query.Set("before", before)
			}
			for name, value := range map[string]string{"from": from, "to": to} {
				if value == "" {
					continue
				}
				at, err := timeFlag(name, value)
				if err != nil {
					return err
				}
				query.Set(name, at)
			}
			c, err := a.newClient()
			if err != nil {
				return err
			}
			out, err := searchDecisions(cmd.Context(), c, query, filter.limit)
			if err != nil {
				return err
			}
			return a.showDecisions(out, filter.tenant)
		},
	}
	filter.flags(cmd)
	cmd.Flags().StringVar(&before, "before", "", "of lines before this one: go on with before of an earlier answer's JSON")
	cmd.Flags().StringVar(&from, "from", "", "not before: a time, or how long ago")
	cmd.Flags().StringVar(&to, "to", "", "before: a time, or how long ago")
	return cmd
}

// timeFlag reads a time, or a duration before now, and gives it as the API takes it: RFC 3339 in UTC. name
// is that of the flag, for the error.
func timeFlag(name, value string) (string, error) {
	at, err := time.Parse(time.RFC3339, value)
	// No time is also a duration, so the order of the two does not matter.
	if ago, agoErr := time.ParseDuration(value); agoErr == nil {
		at, err = time.Now().Add(-ago), nil
	}
	if err != nil {
		return "", usagef("--%s %q is neither a time such as 2026-01-31T12:00:00Z nor a duration such as 24h", name, value)
	}
	return at.UTC().Format(time.RFC3339Nano), nil
}

// decisionsKeys shows public keys, also of those that do not sign any more: old files are signed with them.
func (a *app) decisionsKeys() *cobra.Command {
	return &cobra.Command{
		Use:   "keys",
		Short: "Show the public keys that the log is signed with",
		Long: `Show the public keys that the decision log is and was signed with. As JSON it is what verify reads. Get
it once and keep it apart from the log: whoever can change both could sign anew.`,
		Example: `  copse decisions keys --output json > keys.json`,
		Args:    args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.newClient()
			if err != nil {
				return err
			}
			var out api.DecisionKeyList
			if err := c.do(cmd.Context(), request{method: http.MethodGet, path: "/v1/decisions/keys", out: &out}); err != nil {
				return err
			}
			return a.show(out, func(t *table) {
				t.row("KEY", "PUBLIC KEY")
				for _, k := range out.Keys {
					t.row(k.ID, base64.StdEncoding.EncodeToString(k.PublicKey))
				}
			})
		},
	}
}

// decisionsVerify reads files and asks nobody: a server that is at fault could otherwise vouch for its own
// log. Which keys are right is the keys file's word alone. Problems are shown as the result; the error is
// for the exit code.
func (a *app) decisionsVerify() *cobra.Command {
	var keysFile, head string
	cmd := &cobra.Command{
		Use:   "verify DIR",
		Short: "Check that no line of the log was changed, left out or moved",
		Long: `Read the files of a decision log, or a copy of them, and check them against the keys in a file made by
"copse decisions keys --output json". Ends with 1 when something is not as it was written, and names
it. Lines of tenants that have left are erased, and break nothing.

It prints a head. Given with --head to a later verification, it also finds a log whose end was cut off.`,
		Example: `  copse decisions verify /var/lib/copse/decisions --keys keys.json`,
		Args:    args(1, 1, "the directory of the log"),
		RunE: func(_ *cobra.Command, args []string) error {
			// There is no default: keys that lie beside the log can be changed with it.
			text, err := os.ReadFile(keysFile)
			if err != nil {
				return usagef("--keys: %v", err)
			}
			var list api.DecisionKeyList
			if err := json.Unmarshal(text, &list); err != nil || len(list.Keys) == 0 {
				return usagef("--keys: %s holds no keys; make it with \"copse decisions keys --output json\"", keysFile)
			}
			// By id, as the signatures in the log name them.
			keys := map[string]ed25519.PublicKey{}
			for _, k := range list.Keys {
				// crypto/ed25519 panics at a key of another length.
				if len(k.PublicKey) != ed25519.PublicKeySize {
					return usagef("--keys: key %s has %d bytes, not %d", k.ID, len(k.PublicKey), ed25519.PublicKeySize)
				}
				keys[k.ID] = ed25519.PublicKey(k.PublicKey)
			}
			report, err := decisionlog.Verify(args[0], keys, head)
			if err != nil {
				return err
			}
			err = a.show(report, func(t *table) {
				for _, p := range report.Problems {
					t.line(p.String())
				}
				number := func(n uint64) string { return strconv.FormatUint(n, 10) }
				lost := number(report.Lost)
				if report.AtLeast {
					lost = "at least " + lost
				}
				t.pairs("segments", strconv.Itoa(report.Segments), "lines", number(report.Lines), "erased", number(report.Erased),
					"lost", lost, "not signed yet", number(report.Unsigned), "signed after a restart", number(report.Resumed), "head", firstOf(report.Head, "-"), "problems", strconv.Itoa(len(report.Problems)))
			})
			if err == nil && len(report.Problems) > 0 {
				err = &failure{code: exitError, message: "the decision log is not as it was written"}
			}
			return err
		},
	}
	cmd.Flags().StringVar(&keysFile, "keys", "", "file of the public keys")
	cmd.Flags().StringVar(&head, "head", "", "head of an earlier verification, which the log must contain")
	_ = cmd.MarkFlagRequired("keys")
	return cmd
}
