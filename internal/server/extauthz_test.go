package server_test

import (
	"context"
	"crypto/tls"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/copse-authz/copse/internal/server"
)

func (c *chainSite) envoy(t *testing.T, copse upstream) (address string) {
	t.Helper()
	address = freeAddress(t)
	port := func(address string) string { return address[strings.LastIndex(address, ":")+1:] }
	text := configFromDocs(t, "yml", map[string]string{
		"address: copse.internal, port_value: 8422":    "address: 127.0.0.1, port_value: " + port(copse.grpc),
		"address: invoices.internal, port_value: 8080": "address: 127.0.0.1, port_value: " + port(c.service.URL),
		"address: 0.0.0.0, port_value: 80 ":            "address: 127.0.0.1, port_value: " + port(address) + " ",
	})
	file := filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	startProgram(t, address, filepath.Join(cache, "copse-test", "envoy", "bin", "envoy"),
		"-c", file, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warn")
	return address
}

// checker asks as Envoy does.
func checker(t *testing.T, address string, secure credentials.TransportCredentials) authv3.AuthorizationClient {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(secure))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return authv3.NewAuthorizationClient(conn)
}

// checkRequest is a request as Envoy tells of it; headers are pairs of name and value.
func checkRequest(method, path, token string, headers ...string) *authv3.CheckRequest {
	pairs := []string{":authority", "api.example.com", ":path", path, ":method", method, ":scheme", "https", "x-request-id", "0a1b2c3d-request"}
	if token != "" {
		pairs = append(pairs, "authorization", "Bearer "+token)
	}
	pairs = append(pairs, headers...)
	raw := &corev3.HeaderMap{}
	for i := 0; i+1 < len(pairs); i += 2 {
		raw.Headers = append(raw.Headers, &corev3.HeaderValue{Key: pairs[i], RawValue: []byte(pairs[i+1])})
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
		Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/invoices/1", HeaderMap: raw}, // its text is not what counts
	}}}
}

// check returns the status the client would get, 0 when the request is let through, and what Envoy does
// with the request then.
func check(t *testing.T, client authv3.AuthorizationClient, r *authv3.CheckRequest) (status int, set map[string]string, removed []string, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	answer, err := client.Check(ctx, r)
	if err != nil {
		t.Fatalf("the call fails, which Envoy may be told to take for an ALLOW: %v", err)
	}
	set = map[string]string{}
	headers := answer.GetOkResponse().GetHeaders()
	if denied := answer.GetDeniedResponse(); denied != nil {
		status, body, headers = int(denied.GetStatus().GetCode()), denied.GetBody(), denied.GetHeaders()
	}
	if let := answer.GetStatus().GetCode() == int32(codes.OK); let != (status == 0) || let == (answer.GetOkResponse() == nil) {
		t.Fatalf("neither allowed nor denied: %v", answer)
	}
	for _, h := range headers {
		if h.GetAppendAction() != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
			t.Errorf("%s is added to the client's", h.GetHeader().GetKey())
		}
		set[h.GetHeader().GetKey()] = h.GetHeader().GetValue()
	}
	return status, set, answer.GetOkResponse().GetHeadersToRemove(), body
}

func TestExtAuthz(t *testing.T) {
	c := newChainSite(t)
	client := checker(t, c.ExtAuthzAddr().String(), insecure.NewCredentials())
	clerk := c.idp.token("acme", "alice", "clerk")
	expired := c.idp.claims("acme", "alice", "clerk")
	expired["exp"] = time.Now().Add(-time.Hour).Unix()
	textOnly := checkRequest("GET", "/invoices/17", clerk)
	textOnly.Attributes.Request.Http.HeaderMap = nil
	textOnly.Attributes.Request.Http.Headers = map[string]string{"authorization": "Bearer " + clerk, ":path": "/invoices/17", ":method": "GET"}
	refusals := map[string]bool{}
	for name, want := range map[string]struct {
		status  int
		request *authv3.CheckRequest
	}{
		"an ALLOW":                 {0, checkRequest("GET", "/invoices/17?x=y", clerk)},
		"the tenant's own header":  {0, checkRequest("GET", "/invoices/17", clerk, "x-copse-tenant", "acme")},
		"a DENY":                   {403, checkRequest("GET", "/invoices/17", c.idp.token("acme", "eve"))},
		"a DENY by the method":     {403, checkRequest("POST", "/invoices/17/pay", clerk)},
		"no route":                 {403, checkRequest("GET", "/admin", clerk)},
		"an ambiguous path":        {403, checkRequest("GET", "/invoices//17", clerk)},
		"a path that is no text":   {403, checkRequest("GET", "/invoices/\xff", clerk)},
		"an unknown tenant":        {403, checkRequest("GET", "/invoices/17", c.idp.token("hooli", "alice", "clerk"))},
		"another tenant's header":  {403, checkRequest("GET", "/invoices/17", clerk, "x-copse-tenant", "globex")},
		"a second tenant's header": {403, checkRequest("GET", "/invoices/17", clerk, "x-copse-tenant", "acme", "X-Copse-Tenant", "globex")},
		"two paths":                {403, checkRequest("GET", "/invoices/17", clerk, ":path", "/invoices/17")},
		"two methods":              {403, checkRequest("GET", "/invoices/17", clerk, ":method", "GET")},
		"no raw headers":           {403, textOnly},
		"nothing":                  {403, &authv3.CheckRequest{}},
		"no token":                 {401, checkRequest("GET", "/invoices/17", "")},
		"no real token":            {401, checkRequest("GET", "/invoices/17", "x.y.z")},
		"an expired token":         {401, checkRequest("GET", "/invoices/17", c.idp.key.token(t, nil, expired))},
		"two tokens":               {400, checkRequest("GET", "/invoices/17", clerk, "authorization", "Bearer "+clerk)},
	} {
		status, headers, _, body := check(t, client, want.request)
		if status != want.status {
			t.Errorf("%s: %d %s, want %d", name, status, body, want.status)
		}
		if challenged := strings.Contains(headers["WWW-Authenticate"], "Bearer"); challenged != (want.status == 401) {
			t.Errorf("%s: challenged: %v", name, challenged)
		}
		if want.status != 0 && headers["Cache-Control"] != "no-store" {
			t.Errorf("%s: may be cached", name)
		}
		if want.status == 403 {
			refusals[body] = true
		}
	}
	if len(refusals) != 1 {
		t.Errorf("refusals can be told apart: %v", slices.Collect(maps.Keys(refusals)))
	}
	if n := c.count(`copse_gateway_total{result="allow"}`); n != 2 {
		t.Errorf("%d ALLOWs are counted", n)
	}
	if n := c.count(`copse_gateway_total{result="deny"}`); n != 2 {
		t.Errorf("%d DENYs are counted", n)
	}
}

// What the client says in copse's name is replaced or taken away, in every spelling.
func TestExtAuthzTellsTheServiceOnlyWhatItDecided(t *testing.T) {
	c := newChainSite(t)
	client := checker(t, c.ExtAuthzAddr().String(), insecure.NewCredentials())
	spellings := []string{"x-copse-key", "x_copse_tenant", "X-Copse_Context", "x-copse-role"}
	pairs := []string{"x-copse-context", "a.b.c", "x-copse-principal", "root", "x-copse-decision", "mine"}
	for _, s := range spellings {
		pairs = append(pairs, s, "spoofed")
	}
	status, set, removed, body := check(t, client, checkRequest("GET", "/invoices/17", c.idp.token("acme", "alice", "clerk"), pairs...))
	if status != 0 || set["X-Copse-Tenant"] != "acme" || set["X-Copse-Principal"] != `User::"alice"` || set["X-Copse-Decision"] == "mine" || set["X-Copse-Decision"] == "" ||
		len(strings.Split(set["X-Copse-Context"], ".")) != 3 || set["X-Copse-Context"] == "a.b.c" {
		t.Errorf("%d %v %s", status, set, body)
	}
	for _, s := range spellings {
		if !slices.ContainsFunc(removed, func(r string) bool { return strings.EqualFold(r, s) }) {
			t.Errorf("%s stays", s)
		}
	}
	for name := range set {
		if slices.ContainsFunc(removed, func(r string) bool { return strings.EqualFold(r, name) }) {
			t.Errorf("%s is set and removed", name)
		}
	}
	// A route without a service has no context, and the client's is not left in its place.
	file := filepath.Join(t.TempDir(), "routes.yaml")
	if err := os.WriteFile(file, []byte("routes:\n  - route: GET /invoices/{id}\n    action: view\n    resource: Invoice::\"{id}\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, func(cfg *server.Config) { cfg.RoutesFile, cfg.ExtAuthzListen = file, "127.0.0.1:0" })
	s.onboard("acme", map[string]string{"all": `permit (principal, action, resource);`})
	c.idp.register(s, c.idp.registration("acme"))
	client = checker(t, s.ExtAuthzAddr().String(), insecure.NewCredentials())
	status, set, removed, _ = check(t, client, checkRequest("GET", "/invoices/17", c.idp.token("acme", "alice"), "x-copse-context", "a.b.c"))
	if status != 0 || set["X-Copse-Context"] != "" || !slices.Contains(removed, "X-Copse-Context") {
		t.Errorf("%d, sets %v, removes %v", status, set, removed)
	}
}

// The listener is there when it is asked for, and speaks TLS when the server does.
func TestExtAuthzListener(t *testing.T) {
	if s := start(t); s.ExtAuthzAddr() != nil {
		t.Errorf("by default it listens on %v", s.ExtAuthzAddr())
	}
	s, _, _ := secure(t, func(cfg *server.Config) { cfg.ExtAuthzListen, cfg.ReadTimeout = "127.0.0.1:0", 300*time.Millisecond })
	address := s.ExtAuthzAddr().String()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := checker(t, address, insecure.NewCredentials()).Check(ctx, checkRequest("GET", "/", "")); status.Code(err) != codes.Unavailable {
		t.Errorf("without TLS: %v", err)
	}
	old := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}
	if _, err := checker(t, address, credentials.NewTLS(old)).Check(ctx, checkRequest("GET", "/", "")); status.Code(err) != codes.Unavailable {
		t.Errorf("with TLS 1.1: %v", err)
	}
	modern := credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
	if got, _, _, body := check(t, checker(t, address, modern), checkRequest("GET", "/", "")); got != 401 {
		t.Errorf("with TLS: %d %s", got, body)
	}
	// A client that never says what it asks is let go.
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(modern))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, authv3.Authorization_Check_FullMethodName)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&authv3.CheckResponse{}); err == nil || ctx.Err() != nil {
		t.Errorf("a request without an end: %v, %v", err, ctx.Err())
	}
}
