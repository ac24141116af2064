package server_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/authorizer"
	"github.com/copse-authz/copse/internal/server"
	"github.com/copse-authz/copse/pep"
)

// The gateways here are real ones, started by the test, between a client that writes its requests by hand
// and a service that is guarded by pep and requires the gateway's signed context.

const gatewayRoutesFile = `
routes:
  - route: GET /invoices/{id}
    action: view
    resource: Invoice::"{id}"
    service: invoices
  - route: GET /reports/{id}
    action: view
    resource: Report::"{id}"
    service: reports
  - route: POST /invoices/{id}/pay
    action: pay
    resource: Invoice::"{id}"
    service: invoices
`

// chainSite is a server with two tenants, and a service that stands behind a gateway.
type chainSite struct {
	*site
	idp     *idp
	service *httptest.Server
	guard   *pep.PEP

	mu   sync.Mutex
	seen []*http.Request // what reached the service, before pep
}

func newChainSite(t *testing.T) *chainSite {
	t.Helper()
	file := filepath.Join(t.TempDir(), "routes.yaml")
	if err := os.WriteFile(file, []byte(gatewayRoutesFile), 0o600); err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	c := &chainSite{idp: newIDP(t)}
	c.site = start(t, func(cfg *server.Config) {
		cfg.Listen, cfg.PublicURL, cfg.RoutesFile = address, "http://"+address, file
		cfg.ExtAuthzListen = "127.0.0.1:0"
	})
	c.onboard("acme", map[string]string{
		"view": `permit (principal in Role::"clerk", action == Action::"view", resource);`,
		"pay":  `permit (principal in Role::"manager", action == Action::"pay", resource);`,
	})
	c.onboard("globex", map[string]string{"all": `permit (principal, action, resource);`})
	c.idp.register(c.site, c.idp.registration("acme", "globex"))
	var err error
	c.guard, err = pep.New(pep.Config{
		PDP: inProcess{c.Server}, AllowPrivateIssuers: true, AllowHTTPIssuers: true,
		SignedContext: &pep.SignedContext{
			Issuer: "http://" + address, Audience: "invoices", Required: true, KeysURL: "http://" + address + "/.well-known/copse-context-keys",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.guard.Close() })
	guarded := c.guard.Require(func(r *http.Request, _ *pep.Identity) (pep.Question, error) {
		action := "view"
		if r.Method == http.MethodPost {
			action = "pay"
		}
		return pep.Ask(action, "Invoice", "17"), nil
	})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := pep.From(r.Context())
		_, _ = fmt.Fprintf(w, "%s %s %s", who.Tenant, who.Principal, r.URL.EscapedPath())
	}))
	c.service = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.seen = append(c.seen, r.Clone(context.Background()))
		c.mu.Unlock()
		guarded.ServeHTTP(w, r)
	}))
	t.Cleanup(c.service.Close)
	return c
}

// inProcess gives pep the server's own services.
type inProcess struct{ *server.Server }

func (p inProcess) Decide(ctx context.Context, r *copse.Request) (copse.Response, error) {
	return p.PolicyStores.Decider().Decide(ctx, r)
}
func (p inProcess) Lookup(ctx context.Context, t copse.TenantID) (copse.DirectoryEntry, error) {
	return p.Tenants.Lookup(ctx, t)
}
func (p inProcess) Issuer(ctx context.Context, url string) (copse.Issuer, error) {
	return p.Tenants.Issuer(ctx, url)
}
func (p inProcess) IdentitySource(ctx context.Context, id copse.PolicyStoreID, i copse.Incarnation) (*copse.IdentitySource, error) {
	return p.PolicyStores.IdentitySource(ctx, id, i)
}

func (c *chainSite) reached() []*http.Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.seen
	c.seen = nil
	return out
}

func freeAddress(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}

// startProgram runs a gateway until the test ends, and waits until it takes connections.
func startProgram(t *testing.T, address, name string, args ...string) (stop func()) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path = "/usr/sbin/" + name
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "XDG_CONFIG_HOME="+t.TempDir(), "XDG_DATA_HOME="+t.TempDir())
	return startCommand(t, address, cmd)
}

// startCommand runs a command until the test ends, and waits until it takes connections.
func startCommand(t *testing.T, address string, cmd *exec.Cmd) (stop func()) {
	t.Helper()
	name := filepath.Base(cmd.Path)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: `make deps` installs it", err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-done
		}
	})
	t.Cleanup(stop)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return stop
		}
		select {
		case <-done:
			t.Fatalf("%s ended: %s", name, output.String())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen: %s", name, output.String())
		}
	}
}

func (c *chainSite) nginx(t *testing.T, copse upstream) (address string) {
	t.Helper()
	address = freeAddress(t)
	dir := t.TempDir()
	text := configFromDocs(t, "nginx", map[string]string{
		"copse.internal:8420": copse.http, "invoices.internal:8080": strings.TrimPrefix(c.service.URL, "http://"), "listen 80;": "listen " + address + ";",
	})
	whole := fmt.Sprintf("daemon off;\nmaster_process off;\npid %[1]s/pid;\nerror_log %[1]s/error.log;\nevents {}\nhttp {\naccess_log off;\nclient_body_temp_path %[1]s/b;\nproxy_temp_path %[1]s/p;\nfastcgi_temp_path %[1]s/f;\nuwsgi_temp_path %[1]s/u;\nscgi_temp_path %[1]s/s;\n%[2]s}\n", dir, text)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	startProgram(t, address, "nginx", "-c", file, "-p", dir, "-e", filepath.Join(dir, "error.log"))
	return address
}

func (c *chainSite) caddy(t *testing.T, copse upstream) (address string) {
	t.Helper()
	address = freeAddress(t)
	text := configFromDocs(t, "caddy", map[string]string{
		"copse.internal:8420": copse.http, "invoices.internal:8080": strings.TrimPrefix(c.service.URL, "http://"), "http://api.example.com": "http://" + address,
	})
	file := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(file, []byte("{\n\tadmin off\n\tauto_https off\n}\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	startProgram(t, address, "caddy", "run", "--config", file, "--adapter", "caddyfile")
	return address
}

// configFromDocs takes a gateway's configuration out of the page that users copy it from, so that the page
// is what is tested. Each replacement must find its place.
func configFromDocs(t *testing.T, language string, replace map[string]string) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/gateway.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), "```"+language+"\n")
	text, _, closed := strings.Cut(rest, "```\n")
	if !found || !closed {
		t.Fatalf("docs/gateway.md has no %s block", language)
	}
	for from, to := range replace {
		if !strings.Contains(text, from) {
			t.Fatalf("the %s block does not name %s", language, from)
		}
		text = strings.ReplaceAll(text, from, to)
	}
	return text
}

// handwritten sends a request as it is spelled, which no HTTP client would.
func handwritten(t *testing.T, address, method, target, token string, headers ...string) (int, http.Header, string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	text := method + " " + target + " HTTP/1.1\r\nHost: " + address + "\r\nConnection: close\r\n"
	if token != "" {
		text += "Authorization: Bearer " + token + "\r\n"
	}
	for _, h := range headers {
		text += h + "\r\n"
	}
	if method == "POST" {
		text += "Content-Length: 2\r\n\r\n{}"
	} else {
		text += "\r\n"
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body) // a gateway may close early on a bad request
	return resp.StatusCode, resp.Header, string(body)
}

// upstream is where a gateway finds copse, if it is there.
type upstream struct{ http, grpc string }

func gateways() map[string]func(c *chainSite, t *testing.T, copse upstream) (address string) {
	return map[string]func(c *chainSite, t *testing.T, copse upstream) (address string){
		"nginx": (*chainSite).nginx, "caddy": (*chainSite).caddy, "envoy": (*chainSite).envoy,
	}
}

func TestGateways(t *testing.T) {
	for name, run := range gateways() {
		t.Run(name, func(t *testing.T) {
			c := newChainSite(t)
			address := run(c, t, upstream{c.Addr().String(), c.ExtAuthzAddr().String()})
			t.Run("passes", func(t *testing.T) { c.passes(t, address) })
			t.Run("refuses", func(t *testing.T) { c.refuses(t, address) })
			t.Run("spoofed headers", func(t *testing.T) { c.spoofed(t, address, name == "envoy") })
			t.Run("ambiguous paths", func(t *testing.T) { c.ambiguous(t, address) })
		})
	}
}

func (c *chainSite) passes(t *testing.T, address string) {
	clerk := c.idp.token("acme", "alice", "clerk")
	for target, path := range map[string]string{
		"/invoices/17": "/invoices/17", "/invoices/17?a=b": "/invoices/17", "/invoices/%31%37": "/invoices/%31%37", "/invoices/a%20b": "/invoices/a%20b",
	} {
		status, _, body := handwritten(t, address, "GET", target, clerk)
		if status != 200 || body != `acme User::"alice" `+path {
			t.Errorf("%s: %d %s", target, status, body)
		}
	}
	status, _, body := handwritten(t, address, "POST", "/invoices/17/pay", c.idp.token("acme", "mona", "manager"))
	if status != 200 {
		t.Errorf("pay: %d %s", status, body)
	}
	if status, _, body := handwritten(t, address, "GET", "/invoices/17", clerk, "X-Large: "+strings.Repeat("a", 6000)); status != 200 {
		t.Errorf("a large header: %d %s", status, body)
	}
	for _, r := range c.reached() {
		if r.Header.Get("X-Copse-Tenant") != "acme" || r.Header.Get("X-Copse-Context") == "" || r.Header.Get("X-Copse-Decision") == "" ||
			!strings.HasPrefix(r.Header.Get("X-Copse-Principal"), `User::"`) {
			t.Errorf("%s: the service is told tenant %q, decision %q, principal %q, context %q", r.URL, r.Header.Get("X-Copse-Tenant"), r.Header.Get("X-Copse-Decision"), r.Header.Get("X-Copse-Principal"), r.Header.Get("X-Copse-Context"))
		}
	}
}

func (c *chainSite) refuses(t *testing.T, address string) {
	claims := c.idp.claims("acme", "alice", "clerk")
	claims["exp"] = time.Now().Add(-time.Hour).Unix()
	for name, want := range map[string]struct {
		status                int
		method, target, token string
	}{
		"no token":             {401, "GET", "/invoices/17", ""},
		"no real token":        {401, "GET", "/invoices/17", "x.y.z"},
		"an expired token":     {401, "GET", "/invoices/17", c.idp.key.token(t, nil, claims)},
		"a DENY":               {403, "GET", "/invoices/17", c.idp.token("acme", "eve")},
		"a DENY by the action": {403, "POST", "/invoices/17/pay", c.idp.token("acme", "alice", "clerk")},
		"an unknown tenant":    {403, "GET", "/invoices/17", c.idp.token("hooli", "alice", "clerk")},
		"no route":             {403, "GET", "/admin", c.idp.token("acme", "alice", "clerk")},
		"no such method":       {403, "PUT", "/invoices/17", c.idp.token("acme", "alice", "clerk")},
	} {
		status, header, body := handwritten(t, address, want.method, want.target, want.token)
		if status != want.status {
			t.Errorf("%s: %d %s, want %d", name, status, body, want.status)
		}
		if want.status == 401 && !strings.Contains(header.Get("WWW-Authenticate"), "Bearer") {
			t.Errorf("%s: no challenge in %v", name, header)
		}
		if n := len(c.reached()); n > 0 {
			t.Errorf("%s: %d requests reached the service", name, n)
		}
	}
}

// Strip, then set: whatever the client says of itself is gone, in any spelling the service could read.
// Envoy shows copse the client's headers before that: one that names another tenant ends the request.
func (c *chainSite) spoofed(t *testing.T, address string, shown bool) {
	clerk := c.idp.token("acme", "alice", "clerk")
	headers := []string{"X-Copse-Tenant: globex"}
	if shown {
		if status, _, body := handwritten(t, address, "GET", "/invoices/17", clerk, headers...); status != 403 || len(c.reached()) != 0 {
			t.Errorf("another tenant: %d %s", status, body)
		}
		headers = []string{"X-Copse-Tenant: acme", "X-Copse-Role: root", "X_Copse_Tenant: globex"}
	}
	status, _, body := handwritten(t, address, "GET", "/invoices/17", clerk, append(headers,
		"x-copse-principal: User::\"root\"", "X-Copse-Decision: mine", "X-Copse-Context: a.b.c", "X-Copse-Context: d.e.f",
		"X-Original-Method: GET", "X-Original-URI: /invoices/99", "X-Forwarded-Uri: /invoices/99", "X-Forwarded-Method: HEAD", "X-Copse-Key: copse_a_b")...)
	if status != 200 || body != `acme User::"alice" /invoices/17` {
		t.Errorf("%d %s", status, body)
	}
	reached := c.reached()
	if len(reached) != 1 {
		t.Fatalf("%d requests reached the service", len(reached))
	}
	for name, values := range reached[0].Header {
		text := strings.Join(values, " ")
		if strings.HasPrefix(name, "X-Copse-") && (len(values) != 1 || strings.Contains(text, "globex") || strings.Contains(text, "root") || strings.Contains(text, "mine") || strings.Contains(text, "a.b.c")) {
			t.Errorf("the service is told %s: %v", name, values)
		}
	}
	// Where the header decides what is asked, the client's is not read: a route he may use does not open one he may not.
	status, _, _ = handwritten(t, address, "POST", "/invoices/17/pay", clerk,
		"X-Original-Method: GET", "X-Original-URI: /invoices/17", "X-Forwarded-Uri: /invoices/17", "X-Forwarded-Method: GET", "X-Http-Method-Override: GET")
	if status != 403 || len(c.reached()) != 0 {
		t.Errorf("another request's method and path: %d", status)
	}
}

func (c *chainSite) ambiguous(t *testing.T, address string) {
	clerk := c.idp.token("acme", "alice", "clerk")
	n := 0
	for _, target := range []string{
		"//invoices/17", "/invoices//17", "/./invoices/17", "/x/../invoices/17", "/invoices/../admin", "/invoices/%2e%2e/admin", "/invoices/..%2fadmin",
		"/invoices/17%2f..%2f18", "/invoices/17%2F", "/invoices/17%5c..", `/invoices/17\..`, "/invoices/17;x=y", "/invoices/%2517", "/invoices/17%00", "/invoices/17%0a",
		"/invoices/%ff", "/invoices/%c0%ae", "/invoices/", "/invoices/17/", "/INVOICES/17", "/invoices", "/", "/v1/forward-auth/nginx", "/_copse",
	} {
		status, _, body := handwritten(t, address, "GET", target, clerk)
		if status == 200 || status >= 500 {
			t.Errorf("%s: %d %s", target, status, body)
		}
		if reached := c.reached(); len(reached) > 0 {
			t.Errorf("%s: reached the service as %s", target, reached[0].URL)
		}
		n++
	}
	if n < 20 {
		t.Fatalf("only %d paths", n)
	}
}

// A gateway whose copse is away lets nothing pass.
func TestGatewayFailsClosed(t *testing.T) {
	c := newChainSite(t)
	token := c.idp.token("acme", "alice", "clerk")
	nothing := freeAddress(t)
	for name, run := range gateways() {
		address := run(c, t, upstream{nothing, nothing})
		status, _, body := handwritten(t, address, "GET", "/invoices/17", token)
		if status < 500 {
			t.Errorf("%s: %d %s", name, status, body)
		}
		if n := len(c.reached()); n > 0 {
			t.Errorf("%s: %d requests reached the service", name, n)
		}
	}
}

// The endpoint by itself: which headers it reads, and what it takes for ambiguous.
func TestForwardAuthReadsItsOwnHeadersOnly(t *testing.T) {
	c := newChainSite(t)
	bearer := "Bearer " + c.idp.token("acme", "alice", "clerk")
	for name, want := range map[string]struct {
		status  int
		path    string
		headers []string
	}{
		"nginx's":              {200, "/v1/forward-auth/nginx", []string{"X-Original-Method", "GET", "X-Original-Uri", "/invoices/17"}},
		"nginx's with others":  {200, "/v1/forward-auth/nginx", []string{"X-Original-Method", "GET", "X-Original-Uri", "/invoices/17", "X-Forwarded-Uri", "/x", "X-Forwarded-Method", "POST"}},
		"none":                 {403, "/v1/forward-auth/nginx", nil},
		"the other's":          {403, "/v1/forward-auth/nginx", []string{"X-Forwarded-Method", "GET", "X-Forwarded-Uri", "/invoices/17"}},
		"two paths":            {403, "/v1/forward-auth/nginx", []string{"X-Original-Method", "GET", "X-Original-Uri", "/invoices/17", "X-Original-Uri", "/invoices/17"}},
		"two methods":          {403, "/v1/forward-auth/nginx", []string{"X-Original-Method", "GET", "X-Original-Method", "PUT", "X-Original-Uri", "/invoices/17"}},
		"forwarded":            {200, "/v1/forward-auth/forwarded", []string{"X-Forwarded-Method", "GET", "X-Forwarded-Uri", "/invoices/17"}},
		"forwarded, nginx's":   {403, "/v1/forward-auth/forwarded", []string{"X-Original-Method", "GET", "X-Original-Uri", "/invoices/17"}},
		"another tenant named": {403, "/v1/forward-auth/nginx", []string{"X-Original-Method", "GET", "X-Original-Uri", "/invoices/17", "X-Copse-Tenant", "globex"}},
	} {
		r := c.call("GET", want.path, nil, append([]string{"Authorization", bearer}, want.headers...)...)
		if r.status != want.status {
			t.Errorf("%s: %v, want %d", name, r, want.status)
		}
		if (r.header.Get("X-Copse-Tenant") != "") != (want.status == 200) || r.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: headers %v", name, r.header)
		}
	}
}

func TestGatewayRequest(t *testing.T) {
	c := newChainSite(t)
	clerk := "Bearer " + c.idp.token("acme", "alice", "clerk")
	ask := func(body string, status int) authorizer.GatewayAnswer {
		t.Helper()
		r := c.call("POST", "/v1/authorize/request", body, "Authorization", clerk)
		wantStatus(t, r, status)
		if status != 200 {
			return authorizer.GatewayAnswer{}
		}
		return decode[authorizer.GatewayAnswer](t, r)
	}
	got := ask(`{"method":"GET","target":"/invoices/17"}`, 200)
	if got.Decision != "ALLOW" || got.Tenant != "acme" || got.Principal != (authorizer.GatewayEntity{Type: "User", ID: "alice"}) || got.Headers["X-Copse-Context"] == "" || got.Route != "GET /invoices/{id}" {
		t.Errorf("%+v", got)
	}
	if got = ask(`{"method":"GET","target":"/invoices/17","cached":true}`, 200); got.Headers["X-Copse-Context"] != "" || got.Headers["X-Copse-Tenant"] != "acme" {
		t.Errorf("an answer that may be used again has headers %v", got.Headers)
	}
	if got = ask(`{"method":"POST","target":"/invoices/17/pay"}`, 200); got.Decision != "DENY" || len(got.Headers) != 0 {
		t.Errorf("%+v", got)
	}
	ask(`{"method":"GET","target":"/admin"}`, 403)
	ask(`{"method":"GET","target":"/invoices/../x"}`, 403)
	ask(`{"method":"GET","path":"/invoices/17"}`, 400)
	ask(`{"method":"GET","method":"PUT","target":"/invoices/17"}`, 400)
	ask(`{`, 400)
	ask(`{"method":"GET","target":"/`+strings.Repeat("a", 70_000)+`"}`, 400)
}

// What a gateway is told is in the decision log, with its tenant and the layer that decided; what was not decided is not.
func TestGatewayDecisionsAreLogged(t *testing.T) {
	c := newChainSite(t)
	alice, eve := "Bearer "+c.idp.token("acme", "alice", "clerk"), "Bearer "+c.idp.token("globex", "eve")
	invoice := []string{"X-Original-Method", "GET", "X-Original-Uri", "/invoices/17"}
	wantStatus(t, c.call("POST", "/v1/authorize/request", `{"method":"GET","target":"/invoices/17"}`, "Authorization", alice), 200)
	wantStatus(t, c.call("POST", "/v1/authorize/request", `{"method":"POST","target":"/invoices/18/pay"}`, "Authorization", alice), 200)
	wantStatus(t, c.call("GET", "/v1/forward-auth/nginx", nil, append(invoice, "Authorization", eve)...), 200)
	wantStatus(t, c.call("POST", "/v1/authorize/request", `{"method":"GET","target":"/admin"}`, "Authorization", alice), 403)
	wantStatus(t, c.call("GET", "/v1/forward-auth/nginx", nil, invoice...), 401)
	var got []string
	for _, d := range decode[api.DecisionList](t, c.must(200, "GET", "/v1/decisions", nil)).Decisions {
		got = append(got, strings.Join([]string{d.Tenant, d.Via, d.Principal, d.Action, d.Resource, d.Decision, d.Layer, strconv.Itoa(len(d.Determining))}, " "))
		if d.RequestID == "" || d.PolicyStoreID == "" || d.Revision == 0 {
			t.Errorf("%+v", d)
		}
	}
	want := []string{
		`acme gateway User::"alice" Action::"view" Invoice::"17" ALLOW tenant 1`,
		`acme gateway User::"alice" Action::"pay" Invoice::"18" DENY tenant 0`,
		`globex gateway User::"eve" Action::"view" Invoice::"17" ALLOW tenant 1`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("logged:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A context is no user's token, though its signature verifies and copse itself made it.
func TestContextIsNoToken(t *testing.T) {
	c := newChainSite(t)
	r := c.call("POST", "/v1/authorize/request", `{"method":"GET","target":"/invoices/17"}`, "Authorization", "Bearer "+c.idp.token("acme", "alice", "clerk"))
	text := decode[authorizer.GatewayAnswer](t, r).Headers["X-Copse-Context"]
	if text == "" {
		t.Fatal("no context")
	}
	claims := jwt.MapClaims{}
	if _, _, err := jwt.NewParser().ParseUnverified(text, claims); err != nil {
		t.Fatal(err)
	}
	if claims["aud"] != "invoices" || claims["tenant"] != "acme" {
		t.Errorf("claims %v", claims)
	}
	// Even when somebody registers copse itself as an issuer.
	c.must(201, "POST", "/v1/issuers", map[string]any{
		"url": claims["iss"], "tenants": []string{"acme"}, "tokenType": "access", "audiences": []string{"invoices"}, "algorithms": []string{"EdDSA"},
		"tenantClaim": "tenant", "principalType": "Ctx", "principalIdClaim": "did",
	})
	wantStatus(t, c.authorize(text, `{"action":{"id":"view"},"resource":{"type":"Invoice","id":"17"}}`), 401)
}

func TestRouteTableIsReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "routes.yaml")
	write := func(text string, at time.Time) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	write(gatewayRoutesFile, now)
	s := start(t, func(cfg *server.Config) { cfg.RoutesFile = file })
	p := newIDP(t)
	s.onboard("acme", map[string]string{"all": `permit (principal, action, resource);`})
	p.register(s, p.registration("acme"))
	bearer := "Bearer " + p.token("acme", "alice")
	status := func(target string) int {
		return s.call("POST", "/v1/authorize/request", map[string]string{"method": "GET", "target": target}, "Authorization", bearer).status
	}
	if status("/invoices/17") != 200 || status("/things/17") != 403 {
		t.Fatal("the first table is not in use")
	}
	eventually := func(target string, want int) {
		t.Helper()
		for range 100 {
			if status(target) == want {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Errorf("%s is not answered with %d", target, want)
	}
	write(strings.ReplaceAll(gatewayRoutesFile, "/invoices/", "/things/"), now.Add(time.Second))
	eventually("/things/17", 200)
	eventually("/invoices/17", 403)
	// The time of a copy may be that of the former file.
	write(gatewayRoutesFile, now.Add(time.Second))
	eventually("/invoices/17", 200)
	write(strings.ReplaceAll(gatewayRoutesFile, "/invoices/", "/things/"), now)
	eventually("/things/17", 200)
	// A table that can't be used changes nothing.
	write("routes: [", now.Add(2*time.Second))
	time.Sleep(1500 * time.Millisecond)
	if status("/things/17") != 200 {
		t.Error("a broken table took the former one away")
	}
}
