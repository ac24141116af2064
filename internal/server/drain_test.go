package server_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

const aliceMayView = `permit (principal == User::"alice", action, resource);`

// TestSIGTERMUnderLoad: a server that is told to end fails no decision of clients that look at /readyz, as
// load balancers do, and go elsewhere. They retry nothing: neither what they ask, nor a connection.
func TestSIGTERMUnderLoad(t *testing.T) {
	t.Parallel()
	binary := buildCopse(t)
	t.Run("load", func(t *testing.T) { endUnderLoad(t, binary) })
	t.Run("second signal", func(t *testing.T) { endAtOnce(t, binary) })
}

func endUnderLoad(t *testing.T, binary string) {
	const plain, multiplexed, streams = 150, 5, 50
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificate(t, cert, key, 1)
	p, err := launch(t.Output(), binary, "--data", filepath.Join(dir, "data"), "--ops-listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key,
		"--drain-delay", "4s", "--log-level", "error", "--default-plan", "unmetered")
	if err != nil {
		t.Fatal(err)
	}
	c := newCaller(t, p.url, p.root())
	c.trust(nil)
	store := c.onboard("acme", map[string]string{"p": aliceMayView}).PolicyStoreID

	l := &load{t: t, url: p.url, root: p.root(), store: store}
	for range plain {
		l.clients.Go(l.plain)
	}
	var connections []*http2.ClientConn
	for range multiplexed {
		conn := l.connect2()
		connections = append(connections, conn)
		for range streams {
			l.clients.Go(func() { l.run(conn.RoundTrip) })
		}
	}
	// How many of the clients are between asking and answer changes all the time, and with the machine: the
	// signal comes at a moment when many are.
	var flying, before int64
	for deadline := time.Now().Add(time.Minute); before < 5*(plain+multiplexed*streams) || flying < 100; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) || t.Failed() {
			t.Fatalf("only %d decisions, and %d in flight", before, flying)
		}
		flying, before = l.flying.Load(), l.answered.Load()
	}
	if err := p.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for ops := newCaller(t, p.ops, ""); ; time.Sleep(5 * time.Millisecond) {
		if r, err := ops.try("GET", "/readyz", nil); err != nil || r.status != http.StatusOK {
			if err != nil || !strings.Contains(r.body, "told to end") {
				t.Errorf("/readyz: %v, %v", r, err)
			}
			break
		}
	}
	l.elsewhere.Store(true)
	l.clients.Wait()
	if err := p.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	t.Logf("%d decisions in flight at the signal; %d before it, %d after, of which %d over HTTP/1 said that their connection ends",
		flying, before, l.answered.Load()-before, l.last.Load())
	if l.answered.Load() == before || l.last.Load() == 0 {
		t.Error("too little was under way to prove anything")
	}
	for _, conn := range connections {
		if !conn.State().Closing {
			t.Error("a connection over HTTP/2 ended without GOAWAY")
		}
	}
}

// load is clients that ask for decisions one after the other until they are sent elsewhere.
type load struct {
	t                      *testing.T
	url, root, store       string
	clients                sync.WaitGroup
	elsewhere              atomic.Bool
	flying, answered, last atomic.Int64
}

func (l *load) run(roundTrip func(*http.Request) (*http.Response, error)) {
	body, err := json.Marshal(viewRequest(l.store, "alice"))
	if err != nil {
		l.t.Error(err)
	}
	for !l.elsewhere.Load() && !l.t.Failed() {
		req, err := http.NewRequestWithContext(context.Background(), "POST", l.url+"/", bytes.NewReader(body))
		if err != nil {
			l.t.Error(err)
			return
		}
		req.Header.Set("Authorization", "Bearer "+l.root)
		req.Header.Set("X-Amz-Target", "VerifiedPermissions.IsAuthorized")
		req.Header.Set("Content-Type", "application/x-amz-json-1.0")
		l.flying.Add(1)
		resp, err := roundTrip(req)
		var text []byte
		if err == nil {
			text, err = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
		}
		l.flying.Add(-1)
		if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(text), `"ALLOW"`) {
			l.t.Errorf("a decision failed: %v %s", err, text)
			return
		}
		l.answered.Add(1)
	}
}

// plain is a client over HTTP/1.1 that keeps its connection until it is told that it ends.
func (l *load) plain() {
	var conn *tls.Conn
	var in *bufio.Reader
	l.run(func(req *http.Request) (*http.Response, error) {
		if conn == nil {
			var err error
			if conn, err = tls.Dial("tcp", req.URL.Host, trusting()); err != nil {
				return nil, err
			}
			in = bufio.NewReader(conn)
		}
		if err := req.Write(conn); err != nil {
			return nil, err
		}
		resp, err := http.ReadResponse(in, req)
		if err == nil && resp.Close {
			l.last.Add(1)
			whole, err := io.ReadAll(resp.Body)
			resp.Body = io.NopCloser(strings.NewReader(string(whole)))
			_ = conn.Close()
			conn = nil
			return resp, err
		}
		return resp, err
	})
	if conn != nil {
		_ = conn.Close()
	}
}

func (l *load) connect2() *http2.ClientConn {
	l.t.Helper()
	secure := trusting()
	secure.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", strings.TrimPrefix(l.url, "https://"), secure)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = conn.Close() })
	h2, err := (&http2.Transport{}).NewClientConn(conn)
	if err != nil {
		l.t.Fatal(err)
	}
	return h2
}

// endAtOnce: while the server waits for load balancers it takes new connections, and a second signal is an
// end at once.
func endAtOnce(t *testing.T, binary string) {
	p, err := launch(t.Output(), binary, "--data", filepath.Join(t.TempDir(), "data"), "--ops-listen", "127.0.0.1:0", "--drain-delay", "1h", "--log-level", "error")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ops := newCaller(t, p.ops, "")
	for deadline := time.Now().Add(time.Minute); ops.call("GET", "/readyz", nil).status == http.StatusOK; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("/readyz still says ready")
		}
	}
	wantStatus(t, ops.call("GET", "/healthz", nil), http.StatusOK)
	for range 3 {
		resp, err := http.Get(p.url + "/openapi.json")
		if err != nil || resp.StatusCode != http.StatusOK || !resp.Close {
			t.Errorf("a new connection meanwhile: %+v, %v", resp, err)
		}
		_ = resp.Body.Close()
	}
	if err := p.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err = p.Wait()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if status, _ := exit.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGTERM {
		t.Errorf("the second signal: %v", err)
	}
}
