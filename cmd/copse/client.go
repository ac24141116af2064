package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/server"
)

// client speaks the control API.
type client struct {
	base       string // without a slash at the end
	credential string
	http       *http.Client
	misspelt   string // see app.misspelt
}

// A whole policy store is the largest that is sent, and read.
const (
	requestTimeout   = time.Minute
	maxResponseBytes = 4 * copse.MaxContentsBytes
)

// newClient takes address and key from flags, else from the environment.
func (a *app) newClient() (*client, error) {
	c, err := a.anonymousClient("http://" + server.DefaultConfig().Listen)
	if err != nil {
		return nil, err
	}
	if c.credential == "" {
		return nil, usagef("no access key: set COPSE_KEY to copse_<id>_<secret> (`copse dev` prints one, `copse serve` writes the first one to root.key in its data directory)%s", c.misspelt)
	}
	return c, nil
}

// anonymousClient does without a key, for what a user's token opens.
func (a *app) anonymousClient(fallback string) (*client, error) {
	address := firstOf(a.url, a.env("COPSE_URL"), fallback)
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.User != nil {
		return nil, usagef("%q is not the address of a server; write it as https://copse.example.com or http://127.0.0.1:8420", address)
	}
	transport, err := a.transport()
	if err != nil {
		return nil, err
	}
	return &client{
		base:       strings.TrimRight(u.String(), "/"),
		credential: firstOf(a.key, a.env("COPSE_KEY")),
		misspelt:   a.misspelt(),
		http: &http.Client{
			Timeout:   requestTimeout,
			Transport: transport,
			// A credential goes to the address it was meant for and to no other.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// misspelt is for errors that a variable would explain which is not there under its name. Others that begin with COPSE_
// may be the user's own, and are no error by themselves.
func (a *app) misspelt() string {
	unknown := server.UnknownVariables(a.environ)
	if len(unknown) == 0 {
		return ""
	}
	return fmt.Sprintf("; %s is nothing that copse reads: is it misspelt?", unknown[0])
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// request is one call. in and out may be nil. in is encoded as JSON, out is decoded into.
type request struct {
	// path begins with a slash, its parts are escaped. A header here wins over one that every request has.
	method, path string
	query        url.Values
	header       map[string]string
	in, out      any
}

// do sends a request and decodes the answer into out. An answer that is not a success is an *apiError, and
// out then is as it was.
func (c *client) do(ctx context.Context, r request) error {
	var body io.Reader
	if r.in != nil {
		text, err := json.Marshal(r.in)
		if err != nil {
			return failf("encoding the request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	// r.path is escaped already, and base has no slash at its end.
	address := c.base + r.path
	if len(r.query) > 0 {
		address += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, address, body)
	if err != nil {
		return failf("%w", err)
	}
	if c.credential != "" {
		req.Header.Set("Authorization", "Bearer "+c.credential)
	}
	if r.in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer func() { _ = resp.Body.Close() }()
	// One byte more tells an answer that is too large from one that just fits.
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxResponseBytes+1))
	if err != nil {
		return c.unreachable(err)
	}
	if len(answer) > maxResponseBytes {
		return failf("%s answered with more than %d bytes", c.base, maxResponseBytes)
	}
	// A redirect is no success: it is not followed, and its address is not this server's.
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return newAPIError(c.base, resp, answer, r.header["Authorization"] == "")
	}
	// An answer whose body nobody wants may have any.
	if r.out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, r.out); err != nil {
		return failf("%s did not answer as a copse server does: %w", c.base, err)
	}
	return nil
}

// open sends a request whose answer is large, and is read as it comes, however long that takes. size is -1
// when the server does not say it; closing body is the caller's.
func (c *client) open(ctx context.Context, method, path string) (body io.ReadCloser, size int64, err error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, nil)
	if err != nil {
		return nil, 0, failf("%w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.credential)
	// The client's timeout covers the body as well, and would cut a large one off.
	patient := *c.http
	patient.Timeout = 0
	resp, err := patient.Do(req)
	if err != nil {
		return nil, 0, c.unreachable(err)
	}
	// The body is the caller's from here on, and closed by nobody else.
	if resp.StatusCode == http.StatusOK {
		return resp.Body, resp.ContentLength, nil
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxResponseBytes))
	if err != nil {
		return nil, 0, c.unreachable(err)
	}
	return nil, 0, newAPIError(c.base, resp, answer, true)
}

// unreachable is the error of a request that got no answer, with what to look at first. The context's end is
// the person's own doing, and said so.
func (c *client) unreachable(err error) error {
	// It says method and URL once more.
	var reason *url.Error
	if errors.As(err, &reason) {
		err = reason.Err
	}
	switch {
	case errors.Is(err, context.Canceled):
		return failf("interrupted")
	case isTimeout(err):
		return failf("%s did not answer in %s", c.base, requestTimeout)
	}
	return failf("no answer from %s: %w; %s%s", c.base, err, tlsHint(err), c.misspelt)
}

// tlsHint is what to do about the usual reasons for which two sides do not come to speak.
func tlsHint(err error) string {
	var unknown x509.UnknownAuthorityError
	var notTLS tls.RecordHeaderError
	switch {
	case errors.As(err, &unknown):
		return "if its certificate is of a CA of your own, name that: --ca FILE (COPSE_CA)"
	case strings.Contains(err.Error(), "remote error: tls:"): // crypto/tls has no type for it
		return "does it ask for a client certificate? --client-cert and --client-key (COPSE_CLIENT_CERT, COPSE_CLIENT_KEY)"
	case errors.As(err, &notTLS), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return "it speaks plain HTTP: is COPSE_URL to begin with http://?"
	}
	return "is the server up, and COPSE_URL its address?"
}

// isTimeout covers the client's own time, a deadline of the context, and the network's.
func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// apiError is an answer that is not a success. info is the server's own, or made up by [newAPIError];
// asFailure shows its fields as findings.
type apiError struct {
	status     int
	info       api.ErrorInfo
	retryAfter string
	byKey      bool // the credential was the access key, not a user's token
}

// newAPIError makes sense of answers that are not copse's too: a proxy in between has its own. byKey says
// that the credential sent was the access key: then a 401 is about that.
func newAPIError(base string, resp *http.Response, answer []byte, byKey bool) error {
	var body api.ErrorBody
	if err := json.Unmarshal(answer, &body); err != nil || body.Error.Message == "" {
		body.Error = api.ErrorInfo{Message: fmt.Sprintf("%s answered %s, and not as a copse server does", base, resp.Status)}
		// So Go's server answers, in plain HTTP, whoever speaks that to its TLS.
		if strings.Contains(string(answer), "HTTP request to an HTTPS server") {
			body.Error.Message += "; it speaks TLS: is COPSE_URL to begin with https://?"
		}
	}
	return &apiError{status: resp.StatusCode, info: body.Error, retryAfter: resp.Header.Get("Retry-After"), byKey: byKey}
}

// Error is the server's message, and at most one thing to do about it.
func (e *apiError) Error() string {
	message := e.info.Message
	switch {
	// A user's token that is refused has nothing to do with COPSE_KEY.
	case e.status == http.StatusUnauthorized && e.byKey:
		message += " (is COPSE_KEY this server's, and did it expire?)"
	case e.retryAfter != "":
		message += " (try again in " + e.retryAfter + " s)"
	case e.status >= http.StatusInternalServerError && e.info.RequestID != "":
		message += " (request " + e.info.RequestID + " in the server's log)"
	}
	return message
}

// follow reads all pages of a list. fetch gets the query of a page, empty for the first one, and returns the
// token of the next, empty after the last. The first error ends it.
func follow(fetch func(query url.Values) (next string, err error)) error {
	query := url.Values{}
	for {
		next, err := fetch(query)
		if err != nil || next == "" {
			return err
		}
		// A server that is at fault must not keep this busy for ever.
		if next == query.Get("nextToken") {
			return failf("the server gave the same page twice")
		}
		query.Set("nextToken", next)
	}
}
