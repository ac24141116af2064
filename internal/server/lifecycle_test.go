package server_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/server"
)

// Every route refuses strangers, but for those listed here. Under `copse dev` its issuers are added;
// internal/dev has the test of that.
func TestRoutesWantACredential(t *testing.T) {
	s := start(t)
	open := []string{"GET /openapi.json"}
	walked := 0
	for _, r := range s.Routes() {
		if r.Open != slices.Contains(open, r.Pattern) {
			t.Errorf("%s: open is %v", r.Pattern, r.Open)
		}
		method, path, ok := strings.Cut(r.Pattern, " ")
		if !ok {
			method, path = "GET", r.Pattern
		}
		path = strings.NewReplacer("{$}", "", "{", "", "}", "").Replace(path)
		for _, headers := range [][]string{
			nil,
			{"Authorization", "Bearer copse_" + strings.Repeat("a", 22) + "_" + strings.Repeat("b", 44)},
			{"Authorization", "Bearer x.y.z"},
			{"Authorization", "AWS4-HMAC-SHA256 Credential=" + strings.Repeat("a", 22) + "/20260101/x/verifiedpermissions/aws4_request, SignedHeaders=host, Signature=00"},
		} {
			body := any(`{}`)
			if method == "GET" {
				body = nil
			}
			got := s.call(method, path, body, append(headers, "X-Amz-Target", "VerifiedPermissions.ListPolicyStores", "Content-Type", "application/x-amz-json-1.0")...)
			switch {
			case r.Open:
				wantStatus(t, got, 200)
			case path == "/" && got.status != 400 && got.status != 403, path != "/" && got.status != 401:
				t.Errorf("%s with %v: got %v, want to be refused", r.Pattern, headers, got)
			}
			walked++
		}
	}
	if walked < 80 {
		t.Errorf("only %d requests: the table was not walked", walked)
	}
}

func TestNowhere(t *testing.T) {
	s := start(t)
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/", 405}, {"PUT", "/", 405}, {"GET", "/zebra", 404}, {"POST", "/zebra", 404},
		{"GET", "/v1/../v1/tenants", 404}, {"GET", "//v1/tenants", 404}, {"GET", "/v1//tenants", 404}, {"POST", "/./v1/authorize", 404},
		{"POST", "/openapi.json", 405}, {"GET", "/metrics", 404}, {"GET", "/readyz", 404}, {"GET", "/issuers/acme/jwks.json", 404},
		{"GET", "/debug/pprof/", 404}, {"OPTIONS", "/v1/tenants", 401}, {"GET", "/v1/authorize", 401}, {"GET", "/v1/zebra", 401},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			// Written by hand: a client would clean the path.
			status, header, body := raw(t, s, c.method+" "+c.path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			if status != c.status {
				t.Errorf("got %d %s, want %d", status, body, c.status)
			}
			if strings.Contains(body, "zebra") {
				t.Errorf("the answer repeats the path: %s", body)
			}
			if c.status == 405 && header.Get("Allow") == "" {
				t.Error("405 without Allow")
			}
			if header.Get("Content-Type") != "application/json" {
				t.Errorf("content type %q", header.Get("Content-Type"))
			}
		})
	}
}

// raw sends bytes and reads one answer.
func raw(t *testing.T, s *site, request string) (int, http.Header, string) {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

func TestRequestID(t *testing.T) {
	s := start(t)
	uuid := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	seen := map[string]bool{}
	for range 100 {
		id := s.call("GET", "/openapi.json", nil).header.Get("X-Request-Id")
		if !uuid.MatchString(id) || seen[id] {
			t.Fatalf("request id %q is not new, or not a UUID", id)
		}
		seen[id] = true
	}
	for _, c := range []struct {
		sent string
		kept bool
	}{
		{"trace-0123456789", true}, {strings.Repeat("a", 64), true}, {strings.Repeat("a", 65), false},
		{"short", false}, {"with space 1234", false}, {`quote"1234567`, false}, {"übergroß1234", false},
	} {
		got := s.call("GET", "/openapi.json", nil, "X-Request-Id", c.sent).header.Get("X-Request-Id")
		if (got == c.sent) != c.kept {
			t.Errorf("sent %q, answered %q", c.sent, got)
		}
	}
	r := s.amazon("x", "ListPolicyStores", "{}")
	if r.header.Get("X-Amzn-Requestid") != r.header.Get("X-Request-Id") {
		t.Errorf("AVP's answer has the ids %q and %q", r.header.Get("X-Amzn-Requestid"), r.header.Get("X-Request-Id"))
	}
}

func extra(routes ...server.Route) func(*server.Config) {
	return func(c *server.Config) { c.ExtraRoutes = func(string) []server.Route { return routes } }
}

// A defect in one request is that request's: it is answered, logged and counted, and the next is served.
func TestPanicIsContained(t *testing.T) {
	var log lockedBuffer
	s := start(t, func(c *server.Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) },
		extra(
			server.Route{Pattern: "GET /boom", Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("the detail") })},
			server.Route{Pattern: "GET /late", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, "half an ans")
				_ = http.NewResponseController(w).Flush()
				panic("the detail")
			})},
		))
	r := s.call("GET", "/boom", nil)
	wantStatus(t, r, 500)
	if strings.Contains(r.body, "detail") || !strings.Contains(r.body, r.header.Get("X-Request-Id")) {
		t.Errorf("the answer is %s", r.body)
	}
	if _, err := s.try("GET", "/late", nil); err == nil {
		t.Error("an answer that broke off looked whole")
	}
	if n := s.count("copse_http_panics_total"); n != 2 {
		t.Errorf("%d panics counted, want 2", n)
	}
	if text := log.String(); !strings.Contains(text, "the detail") || !strings.Contains(text, r.header.Get("X-Request-Id")) {
		t.Errorf("the log has neither cause nor request id: %s", text)
	}
	wantStatus(t, s.call("GET", "/openapi.json", nil), 200)
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) has(text string) bool { return strings.Contains(l.String(), text) }

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestLimitsOfARequest(t *testing.T) {
	s := start(t, func(c *server.Config) { c.ReadHeaderTimeout, c.MaxHeaderBytes = 300*time.Millisecond, 16<<10 })
	big := strings.Repeat("x", 2_000_000)
	p := newIDP(t)
	s.onboard("acme", map[string]string{"view": aliceViews})
	p.register(s, p.registration())
	wantStatus(t, s.authorize(p.token("acme", "alice"), `{"x":"`+big+`"}`), 413)
	wantStatus(t, s.as(s.root, "POST", "/v1/issuers", `{"x":"`+big+`"}`), 413)
	wantStatus(t, s.amazon(s.root, "IsAuthorized", `{"x":"`+big+`"}`), 413)
	status, _, _ := raw(t, s, "GET /openapi.json HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("y", 64<<10)+"\r\n\r\n")
	if status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("large headers: %d", status)
	}

	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET /openapi.json HTTP/1.1\r\nHost")
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("a connection that never finished its headers was not closed: %v", err)
	}
	wantDecision(t, s.authorize(p.token("acme", "alice"), viewDoc), "ALLOW")
}

func TestOperationsListener(t *testing.T) {
	s := start(t)
	ops := newCaller(t, s.ops, "")
	for path, want := range map[string]int{
		"/healthz": 200, "/readyz": 200, "/metrics": 200,
		"/": 404, "/openapi.json": 404, "/v1/tenants": 404, "/debug/pprof/": 404,
	} {
		wantStatus(t, ops.call("GET", path, nil), want)
	}
	s.onboard("acme-with-a-rare-name", map[string]string{"view": aliceViews})
	metrics := ops.call("GET", "/metrics", nil).body
	for _, name := range []string{"go_goroutines", "process_open_fds", "copse_authorize_total", "copse_http_requests_total"} {
		if !strings.Contains(metrics, name) {
			t.Errorf("no metric %s", name)
		}
	}
	if strings.Contains(metrics, "acme-with-a-rare-name") {
		t.Error("a metric names a tenant")
	}
	if err := server.CloseBackend(s.Server); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, ops.call("GET", "/readyz", nil), 503)
	wantStatus(t, ops.call("GET", "/healthz", nil), 200)
}

func TestTakenPortIsNamed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, setting := range []string{"listen", "ops-listen"} {
		cfg := server.DefaultConfig()
		cfg.InMemory, cfg.Listen, cfg.OpsListen = true, "127.0.0.1:0", "127.0.0.1:0"
		if err := cfg.Set(setting, ln.Addr().String()); err != nil {
			t.Fatal(err)
		}
		s, err := server.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		err = s.Serve(t.Context())
		if address, ok := errors.AsType[*server.AddressError](err); !ok || !errors.Is(err, server.ErrAddressInUse) ||
			address.Setting != setting || address.Address != ln.Addr().String() {
			t.Errorf("%s: got %v", setting, err)
		}
	}
}

// What is under way when the server is told to end is finished; nothing new is taken.
func TestShutdownDrains(t *testing.T) {
	started, finish := make(chan bool), make(chan bool)
	cfg := server.DefaultConfig()
	cfg.InMemory, cfg.Listen, cfg.OpsListen, cfg.DrainDelay = true, "127.0.0.1:0", "127.0.0.1:0", 0
	extra(server.Route{Pattern: "GET /slow", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started <- true
		<-finish
		fmt.Fprint(w, "whole", r.Context().Err())
	})})(&cfg)
	s, err := server.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	c, ops := newCaller(t, s.URL(), ""), newCaller(t, s.OpsURL(), "")
	answered := make(chan string, 1)
	go func() {
		r, err := c.try("GET", "/slow", nil)
		answered <- fmt.Sprint(r.body, err)
	}()
	<-started
	stop()
	for deadline := time.Now().Add(10 * time.Second); ops.call("GET", "/readyz", nil).status == 200; {
		if time.Now().After(deadline) {
			t.Fatal("/readyz still says ready")
		}
		time.Sleep(5 * time.Millisecond)
	}
	select {
	case err := <-ended:
		t.Fatalf("ended with a request under way: %v", err)
	default:
	}
	close(finish)
	if got := <-answered; got != "whole<nil><nil>" {
		t.Errorf("the request under way got %q", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
	if _, err := c.try("GET", "/openapi.json", nil); err == nil {
		t.Error("it still answers")
	}
}

func TestShutdownCutsOffAtTheTimeout(t *testing.T) {
	cut := make(chan error, 1)
	started := make(chan bool)
	cfg := server.DefaultConfig()
	cfg.InMemory, cfg.Listen, cfg.OpsListen, cfg.DrainDelay, cfg.ShutdownTimeout = true, "127.0.0.1:0", "", 0, 50*time.Millisecond
	extra(server.Route{Pattern: "GET /endless", Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		started <- true
		<-r.Context().Done()
		cut <- r.Context().Err()
	})})(&cfg)
	s, err := server.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	go func() { _, _ = newCaller(t, s.URL(), "").try("GET", "/endless", nil) }()
	<-started
	stop()
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
	if err := <-cut; err == nil {
		t.Error("the request was not told")
	}
}

func TestRootKeyIsMadeOnce(t *testing.T) {
	dir := t.TempDir()
	var log lockedBuffer
	var shown []string
	open := func(change func(*server.Config)) *server.Server {
		t.Helper()
		cfg := server.DefaultConfig()
		cfg.DataDir, cfg.Log = dir, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		cfg.OnRootKey = func(file string, credential access.Secret) {
			shown = append(shown, file, string(credential))
		}
		change(&cfg)
		s, err := server.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	s := open(func(*server.Config) {})
	first := string(s.RootCredential())
	if want := []string{filepath.Join(dir, "root.key"), first}; !slices.Equal(shown, want) {
		t.Errorf("shown %q, want %q", shown, want)
	}
	for _, name := range []string{"root.key", "master.key"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if c, err := s.Access.Bearer(t.Context(), first); err != nil || !c.MayEverywhere(access.Admin) {
		t.Errorf("the root key may %+v, %v", c, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	tryOpen := func() (*server.Server, error) {
		cfg := server.DefaultConfig()
		cfg.DataDir = dir
		return server.Open(t.Context(), cfg)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620} {
		if err := os.Chmod(filepath.Join(dir, "root.key"), mode); err != nil {
			t.Fatal(err)
		}
		if opened, err := tryOpen(); err == nil || !strings.Contains(err.Error(), "chmod 600") || strings.Contains(err.Error(), first) {
			t.Errorf("root.key with mode %04o: %v, %v", mode, opened, err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "root.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(func(*server.Config) {})
	if string(s.RootCredential()) != first || len(shown) != 2 {
		t.Error("the second start made another root key")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = open(func(c *server.Config) {
		c.RootAccessKeyID, c.RootSecretAccessKey = "CONFIGURED0000001", "a-secret-of-the-operator's-own"
	})
	if _, err := s.Access.Bearer(t.Context(), "copse_CONFIGURED0000001_a-secret-of-the-operator's-own"); err != nil {
		t.Errorf("the configured root key: %v", err)
	}
	if _, err := s.Access.Bearer(t.Context(), first); err == nil {
		t.Error("the key of the file works beside the configured one")
	}
	_, secret, _ := strings.Cut(strings.TrimPrefix(first, "copse_"), "_")
	if text := log.String(); strings.Contains(text, secret) || strings.Contains(text, "of-the-operator's-own") {
		t.Error("a root secret is in the log")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "root.key"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := server.DefaultConfig()
	cfg.DataDir = dir
	if _, err := server.Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "root.key") {
		t.Errorf("a broken root.key: %v", err)
	}
}
