package api

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// forge opens connections of somebody who knows the root key's id and not its secret: each announces a
// body, sends most of it, and stays open. The answers to those that are refused come over the channel.
func (s *server) forge(t *testing.T, n, announced, sent int, header string) <-chan *http.Response {
	t.Helper()
	signedHeaders := "host;x-amz-date"
	if header != "" {
		signedHeaders = "host;x-amz-content-sha256;x-amz-date"
	}
	now := time.Now().UTC()
	request := []byte(fmt.Sprintf("PUT /v1/policy-stores/x/contents HTTP/1.1\r\nHost: h\r\nX-Amz-Date: %s\r\n%sAuthorization: AWS4-HMAC-SHA256 Credential=%s/%s/eu-west-1/verifiedpermissions/aws4_request, SignedHeaders=%s, Signature=%s\r\nContent-Length: %d\r\n\r\n",
		now.Format("20060102T150405Z"), header, s.rootID, now.Format("20060102"), signedHeaders, strings.Repeat("a", 64), announced) + strings.Repeat("x", sent))
	answers := make(chan *http.Response, n)
	for range n {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		// A server that refuses stops reading; then the write fails, or never ends.
		go conn.Write(request)
		go func() {
			if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
				answers <- resp
			}
		}()
	}
	return answers
}

func wantAnswers(t *testing.T, answers <-chan *http.Response, n, status int) {
	t.Helper()
	for i := range n {
		select {
		case resp := <-answers:
			if resp.StatusCode != status || (resp.Header.Get("Retry-After") != "") != (status == http.StatusServiceUnavailable) {
				t.Fatalf("%d %v, want %d", resp.StatusCode, resp.Header, status)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%d connections are refused, want %d", i, n)
		}
	}
}

// heap is what is in use after a collection.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// An access key's id is no secret, so that it must not be enough to fill the memory.
func TestBodiesOfUnverifiedCallersAreBounded(t *testing.T) {
	s := start(t)
	before := heap()
	// Large bodies need a signature that can be verified without them.
	wantAnswers(t, s.forge(t, 20, 16<<20, 1<<20, ""), 20, http.StatusUnauthorized)
	wantAnswers(t, s.forge(t, 20, 16<<20, 1<<20, "X-Amz-Content-Sha256: "+strings.Repeat("0", 64)+"\r\n"), 20, http.StatusUnauthorized)
	if grown := heap() - before; grown > 16<<20 {
		t.Errorf("%d MB are held for refused callers", grown>>20)
	}
	// Of smaller ones the bound holds 67.
	wantAnswers(t, s.forge(t, 100, 1_000_000, 999_999, ""), 20, http.StatusServiceUnavailable)
	if grown := heap() - before; grown > 100<<20 {
		t.Errorf("%d MB are held for callers nobody has verified", grown>>20)
	}
	if a := s.call(t, s.root, http.MethodPost, "/v1/tenants", `{"tenant":"acme"}`+strings.Repeat(" ", 2<<20)); a.status != http.StatusCreated {
		t.Errorf("a large call with a bearer meanwhile: %d %s", a.status, a.body)
	}
}

func TestLargeSignedBodies(t *testing.T) {
	s := start(t)
	path := "/v1/policy-stores/" + newTenant(t, s, "acme").PolicyStoreID + "/contents"
	body := `{"policies":[]` + strings.Repeat(" ", 2<<20) + `}`
	sign := func(credential string, hashed bool) func(*http.Request) {
		return func(r *http.Request) {
			id, secret, _ := strings.Cut(strings.TrimPrefix(credential, "copse_"), "_")
			sum := sha256.Sum256([]byte(body))
			hash := hex.EncodeToString(sum[:])
			r.Header.Set("If-Match", "*")
			if hashed {
				r.Header.Set("X-Amz-Content-Sha256", hash)
			}
			err := v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: id, SecretAccessKey: secret}, r, hash, "verifiedpermissions", "eu-west-1", time.Now())
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if a := s.call(t, "", http.MethodPut, path, body, sign(s.root, true)); a.status != http.StatusOK {
		t.Errorf("with its hash: %d %s", a.status, a.body)
	}
	if a := s.call(t, "", http.MethodPut, path, body, sign(s.root, false)); a.status != http.StatusUnauthorized || !strings.Contains(a.body, "X-Amz-Content-Sha256") {
		t.Errorf("without its hash: %d %s", a.status, a.body)
	}
	reader := s.key(t, accessAll, accessAdmin)
	if a := s.call(t, "", http.MethodPut, path, body, sign(reader, true)); a.status != http.StatusNotFound {
		t.Errorf("of a key that may not write: %d %s", a.status, a.body)
	}
}
