// Command copse-lambda is copse's side of AWS Lambda: the authorizer of API Gateway's REST and HTTP APIs,
// and the pre token generation trigger of Amazon Cognito. It asks a copse server over HTTP and decides
// nothing by itself, so it links no database, no engine and no control API. docs/aws-lambda.md tells how to
// set it up.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
)

// main ends with code 2 when the environment is wrong, before it asks for an event.
func main() {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	f, err := configure(os.Environ())
	if err != nil {
		log.Error("copse-lambda can't start", "error", err.Error())
		os.Exit(2)
	}
	f.log = log
	lambda.Start(f.handle)
}

// function answers events. It is safe for concurrent use.
type function struct {
	copse   string        // base URL, without a slash at the end
	key     string        // access key for the token hook; empty: no hook
	issuer  string        // of the user pool, where it is not AWS's own
	simple  bool          // HTTP APIs get simple responses
	cached  bool          // the gateway caches answers
	headers []string      // names of the headers that are sent along
	timeout time.Duration // of one question to copse
	client  *http.Client
	log     *slog.Logger
}

// configure reads the environment; docs/aws-lambda.md lists the variables. Only COPSE_URL must be there. An
// error names the variable that is wrong. The log is for the caller to set.
func configure(environ []string) (*function, error) {
	f := &function{simple: true, cached: true, timeout: 2 * time.Second}
	plain := false
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		var err error
		// Other names are left alone, also those that begin with COPSE_.
		switch name {
		case "COPSE_URL":
			f.copse = strings.TrimRight(value, "/")
		case "COPSE_KEY":
			f.key = value
		case "COPSE_KEY_FILE":
			var text []byte
			text, err = os.ReadFile(value)
			f.key = strings.TrimSpace(string(text))
		case "COPSE_ISSUER":
			f.issuer = value
		case "COPSE_RESPONSE":
			f.simple = value == "simple"
			if !f.simple && value != "iam" {
				err = fmt.Errorf("%q is neither simple nor iam", value)
			}
		case "COPSE_CACHED":
			f.cached = value != "false"
			if f.cached && value != "true" {
				err = fmt.Errorf("%q is neither true nor false", value)
			}
		case "COPSE_HEADERS":
			for name := range strings.SplitSeq(value, ",") {
				f.headers = append(f.headers, strings.TrimSpace(name))
			}
		case "COPSE_TIMEOUT":
			f.timeout, err = time.ParseDuration(value)
			if err == nil && f.timeout <= 0 {
				err = fmt.Errorf("%s is no time to wait for an answer; give 2s, for example", value)
			}
		case "COPSE_ALLOW_HTTP":
			plain = value == "true"
			if !plain && value != "false" {
				err = fmt.Errorf("%q is neither true nor false", value)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	u, err := url.Parse(f.copse)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("COPSE_URL %q is not the address of a copse server", f.copse)
	}
	// Tokens and the answers to them can be read and changed on the way.
	if u.Scheme == "http" && !plain && !loopback(u.Hostname()) {
		return nil, fmt.Errorf("COPSE_URL %q is plain HTTP to another machine; give its https address, or set COPSE_ALLOW_HTTP=true where the network itself is encrypted", f.copse)
	}
	// One client for all events: a function that is warm keeps its connection to copse.
	f.client = &http.Client{
		Timeout: f.timeout,
		// A token goes to the address it was meant for and to no other.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return f, nil
}

// loopback reports whether a host is this machine. Names other than localhost are not looked up.
func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// handle tells events apart by what only they have. What it does not know it fails on: API Gateway and
// Cognito then let nothing pass.
func (f *function) handle(ctx context.Context, event json.RawMessage) (any, error) {
	var kind struct {
		TriggerSource string `json:"triggerSource"`
		Type          string `json:"type"`
		Version       string `json:"version"`
	}
	if err := json.Unmarshal(event, &kind); err != nil {
		return nil, fmt.Errorf("this is no event that copse-lambda knows")
	}
	// Version goes before type: an event of version 2.0 says REQUEST as its type as well.
	switch {
	case kind.TriggerSource != "":
		return f.tokenHook(ctx, event)
	case kind.Version == "2.0":
		return f.httpAPI(ctx, event)
	case kind.Type == "TOKEN":
		return f.restToken(ctx, event)
	case kind.Type == "REQUEST":
		return f.restRequest(ctx, event)
	}
	return nil, fmt.Errorf("this is no event that copse-lambda knows")
}
