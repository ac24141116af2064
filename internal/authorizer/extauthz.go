package authorizer

import (
	"context"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"

	"github.com/copse-authz/copse"
)

// ExtAuthz is Envoy's external authorization over gRPC.
//
// It never fails as a call. Envoy takes a failed call for an authorizer that is away, and may be set up
// to let requests pass then; what copse can't decide is an answer that refuses. It may be asked by any
// number of streams at once.
func (g *Gateway) ExtAuthz() authv3.AuthorizationServer { return extAuthz{g} }

// extAuthz keeps gRPC's methods off [Gateway]'s own.
type extAuthz struct{ *Gateway }

// envoyHeaders are where Envoy's raw headers have method and path. The fields of the same names are text
// in which Envoy replaced what is no UTF-8: they could be another path than the service is sent.
var envoyHeaders = OriginalHeaders{":method", ":path"}

// Check answers one request. An empty CheckResponse is an ALLOW to Envoy, so there is always one of
// allowed and denied on the way out, after a panic as well.
func (e extAuthz) Check(ctx context.Context, r *authv3.CheckRequest) (answer *authv3.CheckResponse, _ error) {
	start := time.Now()
	header := rawHeaders(r)
	requestID := e.cfg.RequestID(header["X-Request-Id"])
	// Empty until the token is verified; refuse reads it when it is called.
	var tenant copse.TenantID
	// Every refusal goes this way, so each is counted and logged as over HTTP.
	refuse := func(err error) *authv3.CheckResponse {
		f := e.refusal(tenant, start)
		a := f.answer(err, requestID, nil)
		f.note(ctx, requestID, a.status, err)
		return denied(&a)
	}
	defer func() {
		if cause := recover(); cause != nil {
			answer = refuse(copse.Errorf(copse.Internal, "panic: %v\n%s", cause, debug.Stack()))
		}
	}()
	// Without them the request could only be read from fields in which bytes were replaced.
	if len(header) == 0 {
		return refuse(copse.Errorf(copse.Denied, "Envoy sent no raw headers: set encode_raw_headers: true in its ext_authz filter")), nil
	}
	in, err := passing(header, envoyHeaders)
	if err != nil {
		return refuse(err), nil
	}
	in.RequestID = requestID
	var passed *Passed
	if passed, tenant, err = e.Decide(ctx, in); err != nil {
		return refuse(err), nil
	}
	// Everything but ALLOW is a refusal, so a decision of an unknown kind would be one as well.
	if passed.Response.Decision == copse.Allow {
		answer = allowed(passed, header)
	} else {
		answer = denied(&errorAnswer{status: http.StatusForbidden, body: refused}) // as for everything else that is not let through
	}
	e.answered(passed, start)
	return answer, nil
}

// rawHeaders are the client's, and the pseudo-headers. Values in bytes go before those in text, in
// which Envoy may have replaced some. A name that comes twice keeps both values, for [passing] and
// routes to refuse.
func rawHeaders(r *authv3.CheckRequest) http.Header {
	raw := r.GetAttributes().GetRequest().GetHttp().GetHeaderMap().GetHeaders()
	header := make(http.Header, len(raw))
	values := make([]string, 0, len(raw)) // one allocation for all
	for _, h := range raw {
		value := h.GetValue()
		if v := h.GetRawValue(); len(v) > 0 {
			value = string(v)
		}
		name := http.CanonicalHeaderKey(h.GetKey())
		if former, ok := header[name]; ok {
			header[name] = append(former, value)
			continue
		}
		values = append(values, value)
		header[name] = values[len(values)-1 : len(values) : len(values)]
	}
	return header
}

// allowed tells Envoy what to set in place of the client's headers, and which of those to take away:
// everything in copse's name, in any spelling that a service might take for it.
func allowed(p *Passed, client http.Header) *authv3.CheckResponse {
	ok := &authv3.OkHttpResponse{HeadersToRemove: []string{HeaderKey}}
	ours := p.Headers()
	// An empty value is removed instead of set.
	for _, h := range ours {
		if h[1] == "" {
			ok.HeadersToRemove = append(ok.HeadersToRemove, h[0])
		} else {
			ok.Headers = append(ok.Headers, replaceHeader(h[0], h[1]))
		}
	}
names:
	for name := range client {
		// What the client sent in copse's name, and Envoy would not overwrite.
		if !inCopseName(name) {
			continue
		}
		for _, h := range ours {
			if name == h[0] {
				continue names // Envoy removes after it set
			}
		}
		ok.HeadersToRemove = append(ok.HeadersToRemove, name)
	}
	return &authv3.CheckResponse{
		Status:       &status.Status{Code: int32(codes.OK)},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok},
	}
}

// inCopseName takes underscores for hyphens, as servers do that turn headers into
// variables of an environment.
func inCopseName(name string) bool {
	const prefix = "X-Copse-"
	return len(name) > len(prefix) && strings.EqualFold(strings.ReplaceAll(name[:len(prefix)], "_", "-"), prefix)
}

// replaceHeader leaves one value, whatever the client sent.
func replaceHeader(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

// denied is what the client gets. Of the call's own status Envoy reads only that it is not OK.
func denied(a *errorAnswer) *authv3.CheckResponse {
	headers := []*corev3.HeaderValueOption{
		replaceHeader("Content-Type", jsonType[0]), replaceHeader("Cache-Control", "no-store"),
	}
	if a.hint[0] != "" {
		headers = append(headers, replaceHeader(a.hint[0], a.hint[1]))
	}
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode(a.status)},
			Headers: headers,
			Body:    string(a.body),
		}},
	}
}
