//go:build linux

package server_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests here run the real program with fewer files, or with more connections, than it would like.
// This process is its client.

func TestDescriptors(t *testing.T) {
	t.Parallel()
	binary := buildCopse(t)
	t.Run("run out", func(t *testing.T) { filesRunOut(t, binary) })
	t.Run("few", func(t *testing.T) { fewFiles(t, binary) })
	t.Run("idle connections", func(t *testing.T) { idleConnections(t, binary) })
}

// remote is a server in a process of its own, which ends with the test.
func (p *process) site(t *testing.T) *site {
	t.Helper()
	s := &site{caller: newCaller(t, p.url, p.root()), ops: p.ops}
	t.Cleanup(func() {
		s.http.CloseIdleConnections()
		if err := p.signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := p.Wait(); err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
	return s
}

// filesRunOut takes all files from a running server: what is connected goes on, who comes waits, the log
// and a metric say so, and with files again all of them are served.
func filesRunOut(t *testing.T, binary string) {
	var log lockedBuffer
	p, err := launch(io.MultiWriter(&log, t.Output()), binary, "--data", filepath.Join(t.TempDir(), "data"), "--ops-listen", "127.0.0.1:0", "--drain-delay", "0s")
	if err != nil {
		t.Fatal(err)
	}
	s := p.site(t)
	store := s.onboard("acme", map[string]string{"p": aliceMayView}).PolicyStoreID
	if err := s.tryView(store); err != nil {
		t.Fatal(err)
	}
	if n := s.count("copse_http_accept_failures_total"); n != 0 {
		t.Fatalf("%d failures before any", n)
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("a server with two connections has %d files open", len(open))
	limit := func(n uint64) {
		t.Helper()
		var was unix.Rlimit
		if err := unix.Prlimit(p.Process.Pid, unix.RLIMIT_NOFILE, nil, &was); err != nil {
			t.Fatal(err)
		}
		if err := unix.Prlimit(p.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: was.Max}, nil); err != nil {
			t.Fatal(err)
		}
	}
	limit(1) // files that are open stay so; every other is refused
	var waiting []net.Conn
	for range 20 {
		conn := dial(t, strings.TrimPrefix(p.url, "http://"), "")
		if _, err := io.WriteString(conn, "GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
			t.Error(err)
		}
		waiting = append(waiting, conn)
	}
	for deadline := time.Now().Add(time.Minute); s.count("copse_http_accept_failures_total") == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no failure was counted")
		}
	}
	for range 50 {
		if err := s.tryView(store); err != nil {
			t.Fatalf("over a connection that was there: %v", err)
		}
	}
	made := s.as(s.root, "POST", "/v1/tenants", map[string]any{"tenant": "meanwhile"})
	if made.status != http.StatusCreated && made.status != http.StatusServiceUnavailable {
		t.Errorf("a write meanwhile: %v", made)
	}
	if !strings.Contains(log.String(), "a connection can't be taken") {
		t.Errorf("the log does not say so: %s", &log)
	}
	limit(4096)
	for _, conn := range waiting {
		if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 OK") {
			t.Errorf("one that waited: %q, %v", answer, err)
		}
	}
	found := s.as(s.root, "GET", "/v1/tenants/meanwhile", nil)
	if (found.status == http.StatusOK) != (made.status == http.StatusCreated) {
		t.Errorf("the write was answered with %v, and left %v", made, found)
	}
	s.onboard("globex", nil)
}

// fewFiles starts a server that may open fewer than its limit of connections: it takes fewer of those, and
// keeps the rest of the files.
func fewFiles(t *testing.T, binary string) {
	const files, own = 160, 128
	var log lockedBuffer
	p, err := launchBy(io.MultiWriter(&log, t.Output()), []string{"sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$0" "$@"`, files)}, binary,
		"--data", filepath.Join(t.TempDir(), "data"), "--ops-listen", "127.0.0.1:0", "--drain-delay", "0s")
	if err != nil {
		t.Fatal(err)
	}
	s := p.site(t)
	store := s.onboard("acme", map[string]string{"p": aliceMayView}).PolicyStoreID // over a connection that stays
	var in []net.Conn
	refused := 0
	for range 2 * files {
		conn := dial(t, strings.TrimPrefix(p.url, "http://"), "")
		if served(conn) {
			in = append(in, conn)
		} else {
			refused++
		}
	}
	if len(in) != files-own-1 {
		t.Errorf("%d connections were served beside the first, and %d refused", len(in), refused)
	}
	s.await(`copse_http_connections_refused_total{reason="limit"}`, refused)
	s.await("copse_http_accept_failures_total", 0)
	for range 20 {
		if err := s.tryView(store); err != nil {
			t.Fatalf("over a connection that was there: %v", err)
		}
	}
	for _, said := range []string{"too few files for --max-connections", "connections are refused"} {
		if !strings.Contains(log.String(), said) {
			t.Errorf("the log does not say %q: %s", said, &log)
		}
	}
	for _, conn := range in {
		_ = conn.Close()
	}
	s.await("copse_http_connections", 1)
	if !served(dial(t, strings.TrimPrefix(p.url, "http://"), "")) {
		t.Error("with room again, a connection is refused")
	}
}

// idleConnections holds many connections that ask for nothing more: decisions go on, and the server lets
// them go. It needs as many files here as there: where this process may not have them, there are fewer.
func idleConnections(t *testing.T, binary string) {
	number, idle := 10_000, 30*time.Second
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Cur < 3000 {
		t.Fatalf("this process may open %d files: %v", files.Cur, err)
	}
	if files.Cur < 11_000 {
		number = int(files.Cur) - 1000
		t.Logf("this process may open %d files only", files.Cur)
	}
	p, err := launch(t.Output(), binary, "--data", filepath.Join(t.TempDir(), "data"), "--ops-listen", "127.0.0.1:0", "--drain-delay", "0s",
		"--idle-timeout", idle.String(), "--log-level", "error", "--default-plan", "unmetered")
	if err != nil {
		t.Fatal(err)
	}
	s := p.site(t)
	store := s.onboard("acme", map[string]string{"p": aliceMayView}).PolicyStoreID
	goroutines := s.count("go_goroutines")
	conns := make([]net.Conn, number)
	var wait sync.WaitGroup
	var failed atomic.Int64
	const workers = 8
	for w := range workers {
		wait.Go(func() {
			for i := w; i < number; i += workers {
				// Of several addresses: one alone may not have so many.
				d := net.Dialer{Timeout: time.Minute, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+w))}}
				conn, err := d.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
				if err != nil {
					t.Error(err)
					return
				}
				conns[i] = conn
				if _, err := io.WriteString(conn, "GET /none HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
					failed.Add(1)
				}
			}
		})
	}
	wait.Wait()
	if t.Failed() {
		return
	}
	for deadline := time.Now().Add(idle); s.count("copse_http_connections") < number; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("only %d connections", s.count("copse_http_connections"))
		}
	}
	memory := s.count("process_resident_memory_bytes")
	for range 200 {
		if err := s.tryView(store); err != nil {
			t.Errorf("a decision meanwhile: %v", err)
		}
	}
	if n := s.count("copse_http_connections"); n < number {
		t.Errorf("only %d connections after the decisions", n)
	}
	t.Logf("%d idle connections: the process has %d MiB and %d goroutines", number, memory>>20, s.count("go_goroutines"))
	for _, conn := range conns {
		_ = conn.SetReadDeadline(time.Now().Add(idle + time.Minute))
		if _, err := io.Copy(io.Discard, conn); err != nil {
			failed.Add(1)
		}
		_ = conn.Close()
	}
	if n := failed.Load(); n != 0 {
		t.Errorf("%d connections were not closed as they should be", n)
	}
	s.http.CloseIdleConnections()
	s.await("copse_http_connections", 0)
	for deadline := time.Now().Add(time.Minute); s.count("go_goroutines") > goroutines+10; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines are left of %d", s.count("go_goroutines"), goroutines)
		}
	}
}
