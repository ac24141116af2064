package server_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/copse-authz/copse/internal/server"
	"golang.org/x/net/http2"
)

// The tests here are clients that no library would be: too many, too slow, or hostile. Each shows that
// another client is served meanwhile, and that nothing of it is left afterwards.

// bystander asks for decisions until the returned function is called, which waits for a few if there were none yet.
func (s *site) bystander(t *testing.T) (end func()) {
	t.Helper()
	store := s.onboard("bystander", map[string]string{"p": aliceMayView}).PolicyStoreID
	other := newCaller(t, s.URL(), s.root)
	other.trust(nil)
	var stop atomic.Bool
	ended := make(chan bool)
	go func() {
		defer close(ended)
		for n := 0; !stop.Load() || n < 10; n++ {
			if err := other.tryView(store); err != nil {
				t.Errorf("another client, meanwhile: %v", err)
				return
			}
		}
	}()
	return func() {
		stop.Store(true)
		<-ended
		other.http.CloseIdleConnections()
	}
}

// rest is what a server has when nobody asks it anything.
type rest struct {
	goroutines int
	heap       uint64
}

func (s *site) rest() rest {
	s.t.Helper()
	s.http.CloseIdleConnections()
	s.await("copse_http_connections", 0)
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return rest{runtime.NumGoroutine(), m.HeapAlloc}
}

// settles waits until the server has no more than it had.
func (s *site) settles(before rest) {
	s.t.Helper()
	s.await("copse_http_requests_in_flight", 0)
	var now rest
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if now = s.rest(); now.goroutines <= before.goroutines+3 && now.heap < before.heap+16<<20 {
			return
		}
	}
	stacks := make([]byte, 1<<20)
	s.t.Errorf("%d goroutines and %d bytes are left of %d and %d\n%s", now.goroutines, now.heap, before.goroutines, before.heap, stacks[:runtime.Stack(stacks, true)])
}

// dial is a plain connection that ends with the test.
func dial(t *testing.T, address, from string) net.Conn {
	t.Helper()
	d := net.Dialer{Timeout: time.Minute}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	conn, err := d.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return conn
}

// served says whether a connection is answered on, and not closed.
func served(conn net.Conn) bool {
	_, err := io.WriteString(conn, "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
	if err == nil {
		_, err = io.ReadFull(conn, make([]byte, len("HTTP/1.1 200 OK")))
	}
	return err == nil
}

func TestConnectionLimits(t *testing.T) {
	const limit, perAddress = 20, 8
	s := start(t, func(c *server.Config) {
		c.MaxConnections, c.MaxConnectionsPerAddress, c.ExtAuthzListen, c.Log = limit, perAddress, "127.0.0.1:0", nil
	})
	s.onboard("warm", nil)
	before := s.rest()
	address := s.Addr().String()
	fill := func(from string, n int) (open []net.Conn, refused int) {
		t.Helper()
		for range n {
			if conn := dial(t, address, from); served(conn) {
				open = append(open, conn)
			} else {
				refused++
			}
		}
		return open, refused
	}
	first, refused := fill("127.0.0.2", perAddress+5)
	if len(first) != perAddress || refused != 5 {
		t.Errorf("of one address %d connections are served and %d refused", len(first), refused)
	}
	s.await(`copse_http_connections_refused_total{reason="address"}`, 5)
	end := s.bystander(t) // of another address
	end()
	s.http.CloseIdleConnections()
	s.await("copse_http_connections", perAddress)
	second, _ := fill("127.0.0.3", perAddress)
	third, refused := fill("127.0.0.4", perAddress)
	if len(second) != perAddress || len(third) != limit-2*perAddress || refused != 3*perAddress-limit {
		t.Errorf("served are %d and %d, refused %d", len(second), len(third), refused)
	}
	s.await(`copse_http_connections_refused_total{reason="limit"}`, refused)
	// Envoy's listener is within the same limit; the operations listener, which was just asked, is not.
	if _, err := dial(t, s.ExtAuthzAddr().String(), "").Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Envoy's listener, over the limit: %v", err) // taken, it would begin with its SETTINGS
	}
	// Who is in goes on, and who leaves makes room.
	for _, conn := range append(append(first, second...), third...) {
		if _, err := io.WriteString(conn, "GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
			t.Error(err)
		}
		if answers, err := io.ReadAll(conn); err != nil || !bytes.Contains(answers, []byte("HTTP/1.1 200 OK")) {
			t.Errorf("a connection that was in: %v", err)
		}
		_ = conn.Close()
	}
	s.settles(before)
	if open, _ := fill("127.0.0.2", perAddress); len(open) != perAddress {
		t.Errorf("afterwards %d connections are served", len(open))
	} else {
		for _, conn := range open {
			_ = conn.Close()
		}
	}
}

func TestHeaderLimits(t *testing.T) {
	s := start(t, func(c *server.Config) { c.MaxHeaders, c.MaxHeaderBytes = 50, 16<<10 })
	get := func(headers string) int {
		status, _, _ := raw(t, s, "GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"+headers+"\r\n")
		return status
	}
	var different strings.Builder
	for n := range 60 {
		fmt.Fprintf(&different, "X-%d: y\r\n", n)
	}
	for name, c := range map[string]struct {
		headers string
		want    int
	}{
		"as many as may be":  {strings.Repeat("X: y\r\n", 49), 200},
		"one more":           {strings.Repeat("X: y\r\n", 50), 431},
		"of different names": {different.String(), 431},
		"large":              {"X: " + strings.Repeat("y", 32<<10) + "\r\n", 431},
	} {
		if got := get(c.headers); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// endless is a route whose answer never ends, and which says when it was given up.
func endless(given *atomic.Int64) func(*server.Config) {
	return extra(server.Route{Pattern: "GET /endless", Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for block := make([]byte, 64<<10); ; {
			if _, err := w.Write(block); err != nil {
				given.Add(1)
				return
			}
		}
	})})
}

// Who sends or reads slowly holds a connection for a bounded time, whatever the protocol, and nobody up.
func TestSlowClients(t *testing.T) {
	const each = 8
	var given atomic.Int64
	s, _, _ := secure(t, endless(&given), func(c *server.Config) {
		c.ReadHeaderTimeout, c.ReadTimeout, c.WriteTimeout, c.IdleTimeout, c.Log = 700*time.Millisecond, time.Second, time.Second, time.Second, nil
	})
	before := s.rest()
	end := s.bystander(t)
	address := s.Addr().String()
	over := func(t *testing.T) net.Conn {
		conn := dial(t, address, "")
		_ = conn.(*net.TCPConn).SetReadBuffer(4096)
		secured := tls.Client(conn, trusting())
		if err := secured.Handshake(); err != nil {
			t.Fatal(err)
		}
		return secured
	}
	post := "POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: VerifiedPermissions.ListPolicyStores\r\nContent-Type: application/x-amz-json-1.0\r\nAuthorization: Bearer " + s.root + "\r\n"
	write := func(t *testing.T, conn net.Conn, text string) {
		t.Helper()
		if _, err := io.WriteString(conn, text); err != nil {
			t.Error(err)
		}
	}
	slow := map[string]func(t *testing.T) net.Conn{
		"handshake": func(t *testing.T) net.Conn { return dial(t, address, "") },
		"silence":   over,
		"headers": func(t *testing.T) net.Conn {
			conn := over(t)
			write(t, conn, "GET /openapi.json HTTP/1.1\r\nHost")
			return conn
		},
		"body": func(t *testing.T) net.Conn {
			conn := over(t)
			write(t, conn, post+"Content-Length: 1000\r\n\r\n{")
			return conn
		},
		"chunks": func(t *testing.T) net.Conn {
			conn := over(t)
			write(t, conn, post+"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")
			return conn
		},
		"reader": func(t *testing.T) net.Conn {
			conn := over(t)
			write(t, conn, "GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
			return conn
		},
		"HTTP/2 silence": func(t *testing.T) net.Conn { return dialFrames(t, s) },
		"HTTP/2 headers": func(t *testing.T) net.Conn {
			f := dialFrames(t, s)
			f.must(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.block("GET", "/openapi.json")[:3]}))
			return f
		},
		"HTTP/2 body": func(t *testing.T) net.Conn {
			f := dialFrames(t, s)
			f.must(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: f.block("POST", "/", "authorization", "Bearer "+s.root,
				"x-amz-target", "VerifiedPermissions.ListPolicyStores", "content-type", "application/x-amz-json-1.0", "content-length", "1000")}))
			f.must(f.WriteData(1, false, []byte("{")))
			return f
		},
		"HTTP/2 reader": func(t *testing.T) net.Conn { // its windows are never opened again
			f := dialFrames(t, s)
			f.must(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true, BlockFragment: f.block("GET", "/endless")}))
			return f
		},
	}
	var wait sync.WaitGroup
	for name, begin := range slow {
		for range each {
			conn := begin(t)
			if strings.HasSuffix(name, "reader") {
				continue // to read would be to be quick
			}
			wait.Go(func() {
				if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%s: the connection was not closed", name)
				}
			})
		}
	}
	wait.Wait()
	for deadline := time.Now().Add(time.Minute); given.Load() < 2*each && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if n := given.Load(); n != 2*each {
		t.Errorf("%d endless answers were given up, want %d", n, 2*each)
	}
	end()
	s.settles(before)
}
