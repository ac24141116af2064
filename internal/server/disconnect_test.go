package server_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/server"
)

// hangUp sends a request, or only so much of it, and goes away: with a reset, or as if it were done. The
// connection was served before, so that the server is done with the request when it has closed that.
func hangUp(t *testing.T, s *site, request string, part float64, reset bool, after time.Duration) {
	t.Helper()
	conn := dial(t, s.Addr().String(), "")
	if _, err := io.WriteString(conn, "GET /none HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request[:int(part*float64(len(request)))]); err != nil {
		t.Error(err)
	}
	time.Sleep(after)
	if tcp, ok := conn.(*net.TCPConn); ok && reset {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// text is a request as it is sent.
func (c *caller) text(method, path string, body any, headers ...string) string {
	c.t.Helper()
	content, err := json.Marshal(body)
	if err != nil {
		c.t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n", method, path, c.root, len(content))
	for i := 0; i+1 < len(headers); i += 2 {
		fmt.Fprintf(&b, "%s: %s\r\n", headers[i], headers[i+1])
	}
	return b.String() + "\r\n" + string(content)
}

// A client that goes away in mid-request leaves nothing behind: no goroutine, no turn that expensive
// decisions wait for, no lock.
func TestClientsThatGoAway(t *testing.T) {
	var log lockedBuffer
	s := start(t, func(c *server.Config) {
		c.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	})
	store := s.onboard("acme", map[string]string{"p": aliceMayView}).PolicyStoreID
	amazon := []string{"X-Amz-Target", "VerifiedPermissions.IsAuthorized", "Content-Type", "application/x-amz-json-1.0"}
	// Reading so large a request needs a turn, of which a policy store has half as many as there are processors.
	large := viewRequest(store, "alice")
	large["context"] = map[string]any{"contextMap": map[string]any{"x": map[string]string{"string": strings.Repeat("y", 300_000)}}}
	before := s.rest()
	for n := range 60 {
		body := viewRequest(store, "alice")
		if n%2 == 0 {
			body = large
		}
		part := 1.0
		if n%3 == 0 {
			part = 0.5
		}
		hangUp(t, s, s.text("POST", "/", body, amazon...), part, n%4 < 2, time.Duration(rand.IntN(2000))*time.Microsecond)
	}
	for range 5 {
		hangUp(t, s, s.text("POST", "/v1/backup", nil), 1, true, time.Duration(rand.IntN(5000))*time.Microsecond)
	}
	s.settles(before)
	// Alerts go by these.
	if n := s.count(`copse_decision_errors_total{kind="Unavailable"}`) + s.count(`copse_decision_errors_total{kind="Internal"}`); n > 0 || strings.Contains(log.String(), "ERROR") {
		t.Errorf("clients that went away are %d failures, and in the log: %s", n, &log)
	}
	for range 10 {
		if r := s.amazon(s.root, "IsAuthorized", large); r.status != http.StatusOK || !strings.Contains(r.body, `"ALLOW"`) {
			t.Fatalf("a large decision afterwards: %v", r)
		}
	}
	wantStatus(t, s.as(s.root, "POST", "/v1/backup", nil), http.StatusOK)
}

// The same over HTTP/2, where it is a stream that ends and not the connection.
func TestStreamsThatAreReset(t *testing.T) {
	s, _, _ := secure(t)
	store := s.onboard("acme", map[string]string{"p": aliceMayView}).PolicyStoreID
	before := s.rest()
	f := dialFrames(t, s)
	body, err := json.Marshal(viewRequest(store, "alice"))
	f.must(err)
	headers := []string{"authorization", "Bearer " + s.root, "x-amz-target", "VerifiedPermissions.IsAuthorized", "content-type", "application/x-amz-json-1.0"}
	const streams = 100
	for n := range uint32(streams) {
		id := 2*n + 1
		f.must(f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, BlockFragment: f.block("POST", "/", headers...)}))
		f.must(f.WriteData(id, n%2 == 0, body[:len(body)-int(n%2)]))
		f.must(f.WriteRSTStream(id, http2.ErrCodeCancel))
		time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
	}
	f.must(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*streams + 1, EndHeaders: true, BlockFragment: f.block("POST", "/", headers...)}))
	f.must(f.WriteData(2*streams+1, true, body))
	if e := f.listen(2*streams + 1); e.statuses[2*streams+1] != http.StatusOK {
		t.Errorf("the connection afterwards: %+v", e)
	}
	_ = f.Close()
	s.settles(before)
}

// A write whose client goes away is done or not done, and never half: the parts of what is found are of one
// version, the last one or the one under way.
func TestWritesWhoseClientGoesAway(t *testing.T) {
	p := newIDP(t)
	s := start(t)
	p.register(s, p.registration())
	schema, policies := versioned(1)
	store := decode[api.Tenant](t, s.must(http.StatusCreated, "POST", "/v1/tenants", api.CreateTenantRequest{Tenant: "acme", Schema: schema, Policies: policies})).PolicyStoreID
	v := &victim{t: t, client: s.caller, idp: p}
	before := s.rest()
	now, done, undone := 1, 0, 0
	for next := 2; next < 34; next++ {
		schema, policies := versioned(next)
		request := s.text("PUT", "/v1/policy-stores/"+store+"/contents", api.PutContentsRequest{Schema: schema, Policies: policies}, "If-Match", "*", "Content-Type", "application/json")
		part := 1.0
		if next%4 == 0 {
			part = 0.9
		}
		hangUp(t, s, request, part, next%2 == 0, time.Duration(rand.IntN(4000))*time.Microsecond)
		s.http.CloseIdleConnections()
		s.await("copse_http_connections", 0)
		seen, err := v.see(&fact{name: "acme"}, store)
		switch {
		case err != nil:
			t.Fatal(err)
		case seen.version == next && part == 1:
			now = next
			done++
		case seen.version == now:
			undone++
		default:
			t.Fatalf("version %d, after %d and %d", seen.version, now, next)
		}
	}
	t.Logf("%d writes were done, %d not", done, undone)
	if done == 0 || undone < 8 {
		t.Error("too little happened to prove anything")
	}
	s.settles(before)
}
