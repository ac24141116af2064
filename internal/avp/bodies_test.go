package avp

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	vp "github.com/aws/aws-sdk-go-v2/service/verifiedpermissions"
)

// Who knows an access key's id and no secret can have only so many bytes held, and stops nobody's
// ordinary calls with it.
func TestBodiesOfUnverifiedCallersAreBounded(t *testing.T) {
	s := start(t)
	ps := newPolicyStore(t.Context(), t, s.root())
	now := time.Now().UTC()
	head := fmt.Sprintf("POST / HTTP/1.1\r\nHost: h\r\nX-Amz-Date: %s\r\nAuthorization: AWS4-HMAC-SHA256 Credential=%s/%s/eu-west-1/verifiedpermissions/aws4_request, SignedHeaders=host;x-amz-date, Signature=%s\r\nContent-Length: 1000000\r\n\r\n",
		now.Format("20060102T150405Z"), s.rootID, now.Format("20060102"), strings.Repeat("a", 64))
	most := []byte(head + strings.Repeat("x", 999_999))
	before := heap()
	const attackers = 100
	answers := make(chan *http.Response, attackers)
	conns := make([]net.Conn, attackers)
	for i := range conns {
		var err error
		if conns[i], err = net.Dial("tcp", strings.TrimPrefix(s.url, "http://")); err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close()
		// A server that refuses stops reading; then the write fails, or never ends.
		go conns[i].Write(most)
		go func() {
			if resp, err := http.ReadResponse(bufio.NewReader(conns[i]), nil); err == nil {
				answers <- resp
			}
		}()
	}
	// The bound holds 67 of them.
	for range 20 {
		select {
		case resp := <-answers:
			if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || resp.Header.Get("X-Amzn-Errortype") != "ServiceUnavailableException" {
				t.Fatalf("refused with %d %v", resp.StatusCode, resp.Header)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("nobody is refused; the heap grew by %d MB", (heap()-before)>>20)
		}
	}
	if grown := heap() - before; grown > 90<<20 {
		t.Errorf("%d MB are held for callers nobody has verified", grown>>20)
	}
	if _, err := s.root().GetPolicyStore(t.Context(), &vp.GetPolicyStoreInput{PolicyStoreId: &ps}); err != nil {
		t.Errorf("an ordinary call meanwhile: %v", err)
	}
	if a := s.call(t, "GetPolicyStore", `{"policyStoreId":"`+ps+`"}`+strings.Repeat(" ", 900_000)); a.status != http.StatusOK {
		t.Errorf("a large call with a verified credential meanwhile: %d %s", a.status, a.body)
	}
}

// heap is what is in use after a collection.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// The name of a member that is too long to be shown whole is cut between characters: a text that is no UTF-8 is no JSON.
func TestUnknownMembersWithLongNames(t *testing.T) {
	s := start(t)
	for pad := range 4 {
		name := strings.Repeat("x", pad) + strings.Repeat("€", 200)
		got := s.call(t, "IsAuthorized", `{"policyStoreId":"PSEXAMPLEabcdefg111111","`+name+`":1}`)
		if got.status != http.StatusBadRequest || !strings.Contains(got.body, `"__type":"ValidationException"`) || !strings.Contains(got.body, "€...") {
			t.Errorf("%d bytes before: %d %s", pad, got.status, got.body)
		}
	}
}
