package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// reply is an answer, and the tenants of the rows in it.
type reply struct {
	status int
	rows   map[string]int // by tenant
	body   string
}

// send sends a request as it is; headers are "Name: value". A URL with ?raw= sends what follows as the
// request's path, as it is written. Every status is a reply; an error is of the connection.
func (w *world) send(ctx context.Context, method, to, token string, headers ...string) (reply, error) {
	r, err := http.NewRequestWithContext(ctx, method, to, nil)
	if err != nil {
		return reply{}, err
	}
	if _, raw, ok := strings.Cut(to, "?raw="); ok { // a path that a client would tidy up
		r.URL.RawQuery, r.URL.Opaque = "", raw
		if strings.HasPrefix(raw, "//") { // net/http takes that for the name of a host when it is opaque
			r.URL.Opaque, r.URL.Path = "", raw
		}
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	// Redirects are followed as a browser would: what comes back at the end is what counts.
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return reply{}, err
	}
	// What is no JSON has no rows: an error's text, or the gateway's page.
	out := reply{status: resp.StatusCode, rows: map[string]int{}, body: strings.TrimSpace(string(text))}
	var any any
	if json.Unmarshal(text, &any) == nil {
		countRows(any, out.rows)
	}
	return out, nil
}

// countRows finds rows wherever they are in an answer: objects with a customer's data have a tenant.
func countRows(v any, rows map[string]int) {
	switch v := v.(type) {
	case []any:
		for _, each := range v {
			countRows(each, rows)
		}
	case map[string]any:
		if tenant, ok := v["tenant"].(string); ok {
			rows[tenant]++
		}
		for _, each := range v {
			countRows(each, rows)
		}
	}
}

// signIn signs a user in at the identity provider, and returns the access token. extra is what a client
// sends along.
func (w *world) signIn(ctx context.Context, user string, extra url.Values) (string, error) {
	return (&browser{issuer: w.issuer, clientID: "web", redirect: "http://127.0.0.1/signed-in", extra: extra}).signIn(ctx, user)
}

// tour asks what honest users ask, and compares the answers. It ends at the first that is otherwise: attacks
// on a chain that does not serve its own users would prove nothing.
func (w *world) tour(ctx context.Context, say narrator) (asked int, err error) {
	say.head("The tour: what honest users see")
	for _, c := range []struct {
		user, method, path string
		status             int
		tenant             string
		rows               int
		why                string
	}{
		{"alice", "GET", "/invoices", 200, "acme", 3, "a clerk of acme sees acme's invoices"},
		{"alice", "GET", "/invoices/17", 200, "acme", 1, "number 17 is acme's to her"},
		{"bob", "GET", "/invoices/17", 200, "globex", 1, "and globex's to bob"},
		{"alice", "GET", "/invoices/20", 404, "", 0, "globex's number 20 does not exist for her"},
		{"alice", "POST", "/invoices/17/pay", 200, "acme", 1, "900.00 is within a clerk's limit"},
		{"alice", "POST", "/invoices/18/pay", 403, "", 0, "2,500.00 is not: the gateway let it pass, the service, which knows the amount, did not"},
		{"mona", "POST", "/invoices/18/pay", 200, "acme", 1, "a manager may"},
		{"mona", "POST", "/invoices/19/pay", 403, "", 0, "but nobody pays what is in dispute"},
		{"alice", "GET", "/reports/total", 403, "", 0, "reports are for managers: the gateway says so already"},
		{"mona", "GET", "/reports/total", 200, "acme", 1, "the total of acme's invoices"},
		{"eve", "GET", "/invoices", 403, "", 0, "eve is in acme and has no role"},
		{"", "GET", "/invoices", 401, "", 0, "nobody signed in"},
	} {
		token := ""
		if c.user != "" {
			if token, err = w.signIn(ctx, c.user, nil); err != nil {
				return asked, err
			}
		}
		got, err := w.send(ctx, c.method, w.gateway+c.path, token)
		if err != nil {
			return asked, err
		}
		// As many rows as there must be and, where there are any, none of another tenant's.
		if got.status != c.status || got.rows[c.tenant] != c.rows || c.rows > 0 && len(got.rows) != 1 {
			return asked, fmt.Errorf("%s %s %s: %d %s, want %d and %d rows", c.user, c.method, c.path, got.status, got.body, c.status, c.rows)
		}
		asked++
		say.line("%-6s %-4s %-18s %d  %s", c.user, c.method, c.path, got.status, c.why)
	}
	// The user "nobody" has an account at the provider and is no member at copse: so there is no token.
	if _, err := w.signIn(ctx, "nobody", nil); err == nil {
		return asked, fmt.Errorf("somebody who is no member got a token")
	}
	say.line("%-6s %-23s %s", "nobody", "signs in", "is no member of any tenant, and gets no token")
	return asked + 1, nil
}
