package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// answer is copse's to /v1/authorize/request. Only what is passed on is read, and unknown members are left
// alone: the server may be newer.
type answer struct {
	Decision  string `json:"decision"`
	Tenant    string `json:"tenant"`
	Principal struct {
		Type string `json:"type"`
		ID   string `json:"id"`
	} `json:"principal"`
	DecisionID string            `json:"decisionId"`
	Headers    map[string]string `json:"headers"`
}

// maxAnswer is far more than copse says. An answer over it is cut off, and then is no JSON.
const maxAnswer = 1 << 20

// ask has a request decided. errUnauthorized: its token is no good; errRefused: it must not pass; any other
// error: it can't be known.
func (f *function) ask(ctx context.Context, p *passing) (*answer, error) {
	// Copse would say the same.
	if p.authorization == "" {
		return nil, errUnauthorized
	}
	body, err := json.Marshal(map[string]any{"method": p.method, "target": p.target, "headers": p.headers, "cached": f.cached})
	if err != nil {
		return nil, errRefused
	}
	status, text, err := f.post(ctx, "/v1/authorize/request", p.authorization, body)
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusUnauthorized:
		return nil, errUnauthorized
	// With a 400 copse found the request itself wrong: asking again would not help, and it must not pass.
	case status == http.StatusForbidden, status == http.StatusBadRequest:
		return nil, errRefused
	case status != http.StatusOK:
		return nil, f.failed("authorize", fmt.Errorf("copse answers %d", status))
	}
	var out answer
	// Every answer of copse has a tenant. What has none was answered by something else, and its ALLOW is
	// worth nothing.
	if err := json.Unmarshal(text, &out); err != nil || out.Tenant == "" {
		return nil, f.failed("authorize", errors.New("copse's answer can't be read"))
	}
	return &out, nil
}

// tokenHook passes a pre token generation event to copse and its answer back, both as they are: copse knows the
// versions of the event. Any failure ends the sign-in.
func (f *function) tokenHook(ctx context.Context, event json.RawMessage) (any, error) {
	// An event that went back as it came would have Cognito issue a token without a tenant.
	if f.key == "" {
		return nil, f.failed("token hook", errors.New("COPSE_KEY or COPSE_KEY_FILE is not set"))
	}
	path := "/v1/hooks/cognito"
	if f.issuer != "" {
		path += "?issuer=" + url.QueryEscape(f.issuer)
	}
	status, text, err := f.post(ctx, path, "Bearer "+f.key, event)
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusForbidden:
		return nil, errors.New("no tenant for this user") // shown to the user by Cognito
	// What is no JSON is no event: the page of a proxy on the way, for example.
	case status != http.StatusOK || !json.Valid(text):
		return nil, f.failed("token hook", fmt.Errorf("copse answers %d", status))
	}
	return json.RawMessage(text), nil
}

// post sends JSON to copse and returns status and body of the answer, whatever the status. authorization is the
// value of the header, scheme and all. An error has been logged, and can be shown to anybody.
func (f *function) post(ctx context.Context, path, authorization string, body []byte) (int, []byte, error) {
	// Lambda's own deadline may come first: it is in the context.
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, f.copse+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, f.failed(path, err)
	}
	r.Header.Set("Authorization", authorization)
	r.Header.Set("Content-Type", "application/json")
	resp, err := f.client.Do(r)
	if err != nil {
		return 0, nil, f.failed(path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, nil, f.failed(path, err)
	}
	return resp.StatusCode, text, nil
}

// failed logs the cause and gives an error that says nothing of the inside: it can reach the client.
func (f *function) failed(what string, cause error) error {
	f.log.Error("copse can't be asked", "what", what, "error", cause.Error())
	return errors.New("the decision is not available")
}
