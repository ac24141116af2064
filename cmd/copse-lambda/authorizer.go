package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-lambda-go/events"
)

// errUnauthorized has the one text that a REST API answers with 401, compared byte by byte.
var errUnauthorized = errors.New("Unauthorized")

// errRefused: copse says that the request must not pass, without having decided.
var errRefused = errors.New("refused")

// passing is a request at the gateway. Method and target are the gateway's word. AWS has decoded the path,
// so it is not always what the client sent.
type passing struct {
	authorization string
	method        string
	target        string            // path and query
	headers       map[string]string // those of function.headers that the request has
}

// restToken answers REST APIs whose authorizer is of type TOKEN. Such an event has a token and the resource's
// ARN, and neither query nor headers: routes that read those find none.
func (f *function) restToken(ctx context.Context, event json.RawMessage) (any, error) {
	var in events.APIGatewayCustomAuthorizerRequest
	if err := json.Unmarshal(event, &in); err != nil {
		return nil, fmt.Errorf("the event can't be read")
	}
	method, path, err := ofARN(in.MethodArn)
	if err != nil {
		return nil, err
	}
	return f.iam(ctx, in.MethodArn, &passing{authorization: in.AuthorizationToken, method: method, target: path})
}

// restRequest answers REST APIs, and HTTP APIs with payloads of version 1.0.
func (f *function) restRequest(ctx context.Context, event json.RawMessage) (any, error) {
	var in events.APIGatewayCustomAuthorizerRequestTypeRequest
	if err := json.Unmarshal(event, &in); err != nil {
		return nil, fmt.Errorf("the event can't be read")
	}
	p := &passing{method: in.HTTPMethod, target: in.Path}
	// The event has the query in parts. Written again, names are in order and values keep theirs.
	if query := url.Values(in.MultiValueQueryStringParameters); len(query) > 0 {
		p.target += "?" + query.Encode()
	}
	header := canonical(in.Headers)
	multi := http.Header{}
	for name, values := range in.MultiValueHeaders {
		name = http.CanonicalHeaderKey(name)
		multi[name] = append(multi[name], values...)
	}
	maps.Copy(header, multi) // they say more of the same headers: which of them stands twice
	// Which of two values the service will read can't be known, so that neither is decided on.
	if err := f.take(p, header); err != nil {
		return f.denyARN(in.MethodArn), nil
	}
	return f.iam(ctx, in.MethodArn, p)
}

// httpAPI answers HTTP APIs with payloads of version 2.0, in the form that [function.simple] says, which
// is how the authorizer was set up.
func (f *function) httpAPI(ctx context.Context, event json.RawMessage) (any, error) {
	var in events.APIGatewayV2CustomAuthorizerV2Request
	if err := json.Unmarshal(event, &in); err != nil {
		return nil, fmt.Errorf("the event can't be read")
	}
	p := &passing{method: in.RequestContext.HTTP.Method, target: withoutStage(in.RawPath, in.RequestContext.Stage)}
	if in.RawQueryString != "" {
		p.target += "?" + in.RawQueryString
	}
	err := f.take(p, canonical(in.Headers)) // a header that stands twice is joined with a comma, which no token has
	if !f.simple {
		if err != nil {
			return f.denyARN(in.RouteArn), nil
		}
		return f.iam(ctx, in.RouteArn, p)
	}
	denied := events.APIGatewayV2CustomAuthorizerSimpleResponse{IsAuthorized: false, Context: map[string]any{}}
	if err != nil {
		return denied, nil
	}
	passed, err := f.ask(ctx, p)
	switch {
	case errors.Is(err, errUnauthorized), errors.Is(err, errRefused):
		return denied, nil // an HTTP API has no 401 for this
	case err != nil:
		return nil, err
	case passed.Decision != "ALLOW":
		return denied, nil
	}
	return events.APIGatewayV2CustomAuthorizerSimpleResponse{IsAuthorized: true, Context: passed.context()}, nil
}

// withoutStage is a path as routes are written. It begins with the stage, unless that is the default one. Whole segments
// only: the stage prod is no part of /production.
func withoutStage(path, stage string) string {
	if stage == "" || stage == "$default" {
		return path
	}
	if rest, ok := strings.CutPrefix(path, "/"+stage); ok && (rest == "" || rest[0] == '/') {
		return cmp.Or(rest, "/")
	}
	return path
}

// canonical joins names that differ in their case only: whoever sends one header under two of them has sent it twice.
func canonical(headers map[string]string) http.Header {
	out := http.Header{}
	for name, value := range headers {
		out.Add(name, value)
	}
	return out
}

// take fills in what headers say. errRefused: one that is read stands twice. header's keys are canonical.
func (f *function) take(p *passing, header http.Header) error {
	values := header["Authorization"]
	if len(values) > 1 {
		return errRefused
	}
	if len(values) == 1 {
		p.authorization = values[0]
	}
	for _, name := range f.headers {
		switch values := header[http.CanonicalHeaderKey(name)]; {
		case len(values) > 1:
			return errRefused
		case len(values) == 1:
			if p.headers == nil {
				p.headers = map[string]string{}
			}
			p.headers[name] = values[0]
		}
	}
	return nil
}

// iam answers with a policy for exactly the request's resource, Allow or Deny; errUnauthorized is for the
// gateway to answer with 401, and any other error with 500. docs/decisions/012 says why no more than
// that resource, and why that needs a TTL of 0 to be right for every route.
func (f *function) iam(ctx context.Context, arn string, p *passing) (any, error) {
	passed, err := f.ask(ctx, p)
	switch {
	case errors.Is(err, errUnauthorized):
		return nil, errUnauthorized
	case errors.Is(err, errRefused):
		return f.denyARN(arn), nil
	case err != nil:
		return nil, err
	// An ALLOW that can't be written as a policy for this one resource becomes a Deny.
	case passed.Decision != "ALLOW", !literalARN(arn):
		return f.denyARN(arn), nil
	}
	return policy(passed.Tenant+"/"+passed.Principal.Type+"/"+passed.Principal.ID, "Allow", arn, passed.context()), nil
}

// denyARN denies one resource. A pattern may stand here: it denies more, and allows nothing.
func (f *function) denyARN(arn string) any { return policy("nobody", "Deny", arn, nil) }

// policy is the answer of IAM form. The integration finds principal as $context.authorizer.principalId, and
// values beside it.
func policy(principal, effect, arn string, values map[string]any) events.APIGatewayCustomAuthorizerResponse {
	return events.APIGatewayCustomAuthorizerResponse{
		PrincipalID: principal,
		PolicyDocument: events.APIGatewayCustomAuthorizerPolicy{Version: "2012-10-17", Statement: []events.IAMPolicyStatement{
			{Action: []string{"execute-api:Invoke"}, Effect: effect, Resource: []string{arn}},
		}},
		Context: values,
	}
}

// maxResource is the longest resource that API Gateway takes in a policy.
const maxResource = 512

// literalARN refuses what a policy would read as a pattern: a request for /invoices/* must not make a policy
// for all invoices.
func literalARN(arn string) bool {
	return len(arn) <= maxResource && !strings.ContainsAny(arn, "*?$")
}

// ofARN takes method and path out of arn:aws:execute-api:region:account:api/stage/METHOD/path.
func ofARN(arn string) (method, path string, err error) {
	parts := strings.SplitN(arn, "/", 4)
	// The path is what is left after three slashes, with all of its own; the root has none.
	if len(parts) < 3 || !strings.HasPrefix(arn, "arn:") {
		return "", "", fmt.Errorf("the event's methodArn can't be read")
	}
	if len(parts) == 4 {
		path = parts[3]
	}
	return parts[2], "/" + path, nil
}

// context is what the integration may pass on: flat, and all of it text, as REST APIs want it.
func (a *answer) context() map[string]any {
	out := map[string]any{"tenant": a.Tenant, "principal": a.Principal.Type + "::" + a.Principal.ID, "decisionId": a.DecisionID}
	// Copse signs one only when it was told that the answer is not cached, and the route names a service.
	if signed := a.Headers["X-Copse-Context"]; signed != "" {
		out["copseContext"] = signed
	}
	return out
}
