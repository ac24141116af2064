package dev

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
)

// Row is one request of the tour, and what came of it.
type Row struct {
	Name        string
	Asked       string   // "acme: alice, a clerk, pays 900.00"
	Expected    string   // "200 ALLOW by clerks-pay-small-amounts", "403"
	Got         string   // "200 ALLOW", "403"; with the body when another status was expected
	Determining []string // names of the determining policies
	Elapsed     time.Duration
	OK          bool
}

// expected is a case's answer as people read it; what is compared is the case itself.
func expected(c Case) string {
	switch {
	case c.Status != http.StatusOK:
		return fmt.Sprint(c.Status)
	case len(c.Determining) > 0:
		return fmt.Sprintf("%d %s by %s", c.Status, c.Decision, strings.Join(c.Determining, ", "))
	}
	return fmt.Sprintf("%d %s, no policy", c.Status, c.Decision)
}

// Tour asks every case over HTTP, twice, and returns all rows of the second time. The error is not nil when
// a row is not OK, or when a case can't be asked: then the rows before it are returned. Client nil:
// http.DefaultClient.
func (d *Dev) Tour(ctx context.Context, client *http.Client) ([]Row, error) {
	if client == nil {
		client = http.DefaultClient
	}
	if err := d.greet(ctx, client); err != nil {
		return nil, err
	}
	var rows []Row
	var wrong []string
	for _, c := range Cases() {
		row, err := d.ask(ctx, client, c)
		if err != nil {
			return rows, fmt.Errorf("%s: %w", c.Name, err)
		}
		rows = append(rows, row)
		if !row.OK {
			wrong = append(wrong, fmt.Sprintf("%s: expected %s, got %s %v", c.Name, row.Expected, row.Got, row.Determining))
		}
	}
	if len(wrong) > 0 {
		return rows, fmt.Errorf("%d of %d answers differ: %s", len(wrong), len(rows), strings.Join(wrong, "; "))
	}
	return rows, nil
}

// greet opens the connection and has the issuers' keys fetched, so that no row pays for it.
func (d *Dev) greet(ctx context.Context, client *http.Client) error {
	for _, c := range Cases() {
		if _, err := d.ask(ctx, client, c); err != nil {
			return err
		}
	}
	return nil
}

// answer is what of the answers the tour looks at.
type answer struct {
	Decision    string `json:"decision"`
	Determining []struct {
		Name string `json:"policyName"`
	} `json:"determiningPolicies"`
}

// ask mints a case's token, asks, and compares. The error is of what prevented an answer; an answer that is not
// the expected one is a row that is not OK.
func (d *Dev) ask(ctx context.Context, client *http.Client, c Case) (Row, error) {
	row := Row{Name: c.Name, Asked: c.Asked, Expected: expected(c)}
	token, err := Mint(ctx, client, d.URL(), c.Token)
	if err != nil {
		return row, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.URL()+"/v1/authorize", strings.NewReader(c.Body))
	if err != nil {
		return row, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	// Only with a key that may decide does an answer name the determining policies.
	req.Header.Set("X-Copse-Key", string(d.Credential()))
	// What is timed is the decision's round trip, without the token's.
	start := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return row, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, copse.MaxRequestBytes))
	row.Elapsed = time.Since(start)
	if err != nil {
		return row, err
	}
	var a answer
	if resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(body, &a); err != nil {
			return row, err
		}
	}
	for _, p := range a.Determining {
		row.Determining = append(row.Determining, p.Name)
	}
	// Answers are in order of policy ids, which are drawn anew with every policy store: names have an order of
	// their own.
	slices.Sort(row.Determining)
	row.OK = resp.StatusCode == c.Status && a.Decision == c.Decision && slices.Equal(row.Determining, c.Determining)
	row.Got = strings.TrimSpace(fmt.Sprint(resp.StatusCode) + " " + a.Decision)
	if resp.StatusCode != c.Status {
		row.Got += " " + strings.TrimSpace(string(body))
	}
	return row, nil
}

// WriteIntro prints what to paste: COPSE_URL and COPSE_KEY, the issuers, and a curl line with a real
// token for every case of the tour, with the answer it must give.
func (d *Dev) WriteIntro(_ context.Context, w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, `copse dev is ready, for development only: its issuers give a token to whoever asks.

  export COPSE_URL=%s
  export COPSE_KEY=%s

tenants   acme, globex and initech, of examples/payments
issuers   %s/issuers/TENANT   one per tenant, for that tenant only
          %s/issuers/shared   for every tenant
tokens    copse dev token --tenant acme --user alice --group clerk
metrics   %s/metrics

Each line below can be pasted once COPSE_KEY is exported. Tokens are good for a day.
`, d.URL(), string(d.Credential()), d.URL(), d.URL(), cmp.Or(d.Server.OpsURL(), "not served"))
	for _, c := range Cases() {
		token, err := d.issuers.mint(cmp.Or(c.Token.Issuer, string(c.Token.Tenant)), &c.Token)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "\n# %s: %s\n", c.Asked, expected(c))
		// No body of a case has a single quote, so that it can stand between two in a shell.
		fmt.Fprintf(&b, "curl -s %s/v1/authorize -H 'Authorization: Bearer %s' -H \"X-Copse-Key: $COPSE_KEY\" -d '%s'\n", d.URL(), token, c.Body)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
