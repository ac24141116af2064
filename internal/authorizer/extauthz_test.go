package authorizer

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/token"
)

func (f *fixture) envoy(t *testing.T) authv3.AuthorizationServer {
	t.Helper()
	table, err := ParseRoutes("routes.yaml", []byte("routes:\n  - route: GET /invoices/{id}\n    action: view\n    resource: Invoice::\"{id}\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	return NewGateway(GatewayConfig{Config: f.cfg, Routes: func() *RouteTable { return table }, RequestID: func([]string) string { return "request-0001" }}).ExtAuthz()
}

var envoyAsks = &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
	Http: &authv3.AttributeContext_HttpRequest{HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
		{Key: ":method", RawValue: []byte("GET")}, {Key: ":path", RawValue: []byte("/invoices/17")}, {Key: "authorization", RawValue: []byte("Bearer a.b.c")},
	}}},
}}}

// Whatever goes wrong, Envoy is told to refuse: a call that fails it may let pass.
func TestExtAuthzRefusesWhateverGoesWrong(t *testing.T) {
	boom := errors.New("boom")
	wrong := []error{context.Canceled, context.DeadlineExceeded, io.ErrUnexpectedEOF, boom}
	for _, kind := range copse.Kinds() {
		wrong = append(wrong, &copse.Error{Kind: kind, Detail: "the detail", Err: errors.New("the cause")})
	}
	places := map[string]func(*fixture, error){
		"token":     func(f *fixture, err error) { f.verify = err },
		"directory": func(f *fixture, err error) { f.lookup = err },
		"decider":   func(f *fixture, err error) { f.decide = err },
		"panic": func(f *fixture, err error) {
			f.cfg.Verify = func(context.Context, string) (*token.Verified, error) { panic(err) }
		},
	}
	refused := 0
	for place, set := range places {
		for _, err := range wrong {
			f := newFixture()
			set(f, err)
			f.cfg.Metrics = nil // one registry, two handlers
			answer, failed := f.envoy(t).Check(t.Context(), envoyAsks)
			denied := answer.GetDeniedResponse()
			if failed != nil || denied == nil || answer.GetStatus().GetCode() == int32(codes.OK) || denied.GetStatus().GetCode() < 400 {
				t.Errorf("%v from the %s: %v, %v", err, place, answer, failed)
				continue
			}
			if strings.Contains(denied.GetBody(), "the cause") || strings.Contains(denied.GetBody(), "goroutine") {
				t.Errorf("%v from the %s tells %s", err, place, denied.GetBody())
			}
			if log := f.log.String(); !strings.Contains(log, "gateway refused") || place == "panic" && !strings.Contains(log, "extauthz.go") {
				t.Errorf("%v from the %s: the log does not tell: %s", err, place, log)
			}
			refused++
		}
	}
	if want := len(places) * len(wrong); refused != want {
		t.Errorf("%d of %d refused", refused, want)
	}
	f := newFixture()
	f.cfg.Metrics = nil
	if answer, err := f.envoy(t).Check(t.Context(), envoyAsks); err != nil || answer.GetOkResponse() == nil || answer.GetStatus().GetCode() != 0 {
		t.Errorf("with nothing wrong: %v, %v", answer, err)
	}
	f.answer.Decision = copse.Deny
	if answer, err := f.envoy(t).Check(t.Context(), envoyAsks); err != nil || answer.GetDeniedResponse().GetStatus().GetCode() != 403 || answer.GetStatus().GetCode() == 0 {
		t.Errorf("a DENY: %v, %v", answer, err)
	}
}
