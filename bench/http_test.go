package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/copse-authz/copse/copsetest"
)

// Over HTTP, copse is held against what any server written in Go has to spend: a net/http handler that
// reads the same body and writes the same answer. Both answer the same bytes of request, sent by a
// client that does nothing but write them and read as many bytes as the answer has, over connections
// that stay. The two take turns in small lots, so that whatever else the machine does hits both.

// documents is a policy store of middling size and a request of about 1 KB that matches a few of it.
func documents(b *testing.B, options ...copsetest.Option) (*copsetest.Server, copsetest.Tenant) {
	b.Helper()
	file, err := os.Create(filepath.Join(b.TempDir(), "copse.log"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = file.Close() })
	srv := copsetest.Start(b, append(options, copsetest.Log(slog.New(slog.NewJSONHandler(file, nil))))...)
	policies := map[string]string{
		"owners":   `permit (principal, action == Action::"edit", resource is Doc) when { resource.owner == principal };`,
		"readers":  `permit (principal in Role::"reader", action == Action::"view", resource is Doc) when { resource.level <= 3 };`,
		"no-leaks": `forbid (principal, action, resource is Doc) when { resource.labels.contains("secret") && !context.mfa };`,
	}
	for i := range 7 {
		policies[fmt.Sprintf("folder-%d", i)] = fmt.Sprintf(`permit (principal in Role::"team-%d", action in [Action::"view", Action::"edit"], resource in Folder::"f%d");`, i, i)
	}
	return srv, srv.CreateTenant(b, "acme", copsetest.Contents{Policies: policies})
}

const docEntities = `[{"identifier":{"entityType":"Doc","entityId":"17"},` +
	`"attributes":{"owner":{"entityIdentifier":{"entityType":"User","entityId":"alice"}},"level":{"long":2},"labels":{"set":[{"string":"internal"},{"string":"draft"}]},` +
	`"title":{"string":"A title that nobody decides by, but that came along"},"size":{"long":123456}},"parents":[{"entityType":"Folder","entityId":"f3"}]},` +
	`{"identifier":{"entityType":"Folder","entityId":"f3"},"attributes":{},"parents":[{"entityType":"Folder","entityId":"root"}]},` +
	`{"identifier":{"entityType":"Folder","entityId":"root"},"attributes":{"name":{"string":"everything"}},"parents":[]}`

const docContext = `{"contextMap":{"mfa":{"boolean":true},"from":{"ipaddr":"10.1.2.3"},"channel":{"string":"web"}}}`

func BenchmarkHTTPAuthorize(b *testing.B) {
	srv, _ := documents(b)
	header, body := aliceAsks(b, srv)
	compare(b, srv.URL, "/v1/authorize", header, body, `"decision":"ALLOW"`)
}

func aliceAsks(b *testing.B, srv *copsetest.Server) (header http.Header, body string) {
	b.Helper()
	body = `{"action":{"actionType":"Action","actionId":"view"},"resource":{"entityType":"Doc","entityId":"17"},"context":` + docContext + `,"entities":{"entityList":` + docEntities + `]}}`
	return http.Header{"Authorization": {"Bearer " + srv.Token(b, "acme", "alice", copsetest.Groups("reader"))}, "Content-Type": {"application/json"}}, body
}

func BenchmarkHTTPIsAuthorized(b *testing.B) {
	srv, acme := documents(b)
	body := `{"policyStoreId":"` + string(acme.PolicyStoreID) + `","principal":{"entityType":"User","entityId":"alice"},"action":{"actionType":"Action","actionId":"view"},"resource":{"entityType":"Doc","entityId":"17"},"context":` + docContext +
		`,"entities":{"entityList":` + docEntities + `,{"identifier":{"entityType":"User","entityId":"alice"},"attributes":{},"parents":[{"entityType":"Role","entityId":"reader"}]}]}}`
	req, err := http.NewRequest(http.MethodPost, srv.URL+"/", strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.0")
	req.Header.Set("X-Amz-Target", "VerifiedPermissions.IsAuthorized")
	hash := sha256.Sum256([]byte(body))
	err = v4.NewSigner().SignHTTP(context.Background(), aws.Credentials{AccessKeyID: srv.AccessKeyID, SecretAccessKey: srv.SecretAccessKey},
		req, hex.EncodeToString(hash[:]), "verifiedpermissions", "eu-central-1", time.Now())
	if err != nil {
		b.Fatal(err)
	}
	compare(b, srv.URL, "/", req.Header, body, `"decision":"ALLOW"`)
}

// compare times copse and the bare handler on the same request.
func compare(b *testing.B, url, path string, header http.Header, body, mustContain string) {
	b.Helper()
	copse := newLoad(b, strings.TrimPrefix(url, "http://"), path, header, body)
	answer := copse.ask(b)
	if !strings.Contains(string(answer.body), mustContain) {
		b.Fatalf("copse answers %s", answer.body)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: bareHandler(answer), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(ln) }()
	b.Cleanup(func() { _ = server.Close() })
	bare := newLoad(b, ln.Addr().String(), path, header, body)
	if same := bare.ask(b); !bytes.Equal(same.body, answer.body) {
		b.Fatalf("the answers differ: %s, %s", same.body, answer.body)
	}

	const lots = 20
	perLot := max(b.N/lots, 1)
	copse.run(b, perLot)
	bare.run(b, perLot)
	var copseTime, bareTime time.Duration
	b.ResetTimer()
	for range lots {
		bareTime += bare.run(b, perLot)
		copseTime += copse.run(b, perLot)
	}
	b.StopTimer()
	n := float64(perLot * lots)
	b.ReportMetric(0, "ns/op") // of both together: means nothing
	b.ReportMetric(float64(copseTime.Nanoseconds())/n, "copse-ns/op")
	b.ReportMetric(float64(bareTime.Nanoseconds())/n, "bare-ns/op")
	b.ReportMetric(float64(bareTime)/float64(copseTime), "of-bare")
	b.ReportMetric(n/copseTime.Seconds(), "copse-req/s")
}

// bareHandler is idiomatic: read all, set what headers the answer had, write.
func bareHandler(answer reply) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", answer.contentType)
		w.Header().Set("Content-Length", strconv.Itoa(len(answer.body)))
		_, _ = w.Write(answer.body)
	})
}

type reply struct {
	contentType string
	body        []byte
	bytes       int // of the whole answer
}

// load is a request as bytes, and the connections it goes out on.
type load struct {
	address string
	request []byte
	answer  reply
	conns   []net.Conn
}

func newLoad(b *testing.B, address, path string, header http.Header, body string) *load {
	b.Helper()
	var text bytes.Buffer
	fmt.Fprintf(&text, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", path, address, len(body))
	_ = header.Write(&text)
	text.WriteString("\r\n" + body)
	l := &load{address: address, request: text.Bytes()}
	for range 4 * runtime.GOMAXPROCS(0) {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		l.conns = append(l.conns, conn)
	}
	return l
}

// ask sends the request once and reads the answer as a client would, to know it and its length.
func (l *load) ask(b *testing.B) reply {
	b.Helper()
	conn := l.conns[0]
	if _, err := conn.Write(l.request); err != nil {
		b.Fatal(err)
	}
	var seen bytes.Buffer
	resp, err := http.ReadResponse(bufio.NewReader(io.TeeReader(conn, &seen)), nil)
	if err != nil {
		b.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		b.Fatalf("%s %s %v", resp.Status, body, err)
	}
	l.answer = reply{resp.Header.Get("Content-Type"), body, seen.Len()}
	// A connection that never asked anything is closed after a while.
	buf := make([]byte, l.answer.bytes)
	for _, conn := range l.conns[1:] {
		if _, err := conn.Write(l.request); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(conn, buf); err != nil {
			b.Fatal(err)
		}
	}
	return l.answer
}

// run sends n requests over all connections and returns how long that took.
func (l *load) run(b *testing.B, n int) time.Duration {
	var wg sync.WaitGroup
	var mu sync.Mutex
	left := n
	start := time.Now()
	for _, conn := range l.conns {
		wg.Go(func() {
			buf := make([]byte, l.answer.bytes)
			for {
				mu.Lock()
				left--
				done := left < 0
				mu.Unlock()
				if done {
					return
				}
				if _, err := conn.Write(l.request); err != nil {
					b.Error(err)
					return
				}
				if _, err := io.ReadFull(conn, buf); err != nil || !bytes.HasPrefix(buf, []byte("HTTP/1.1 200")) {
					b.Errorf("%v: %s", err, buf)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}
