package server_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/copse-authz/copse/internal/server"
)

// frames is a connection over HTTP/2 on which frames are written one by one.
type frames struct {
	*tls.Conn
	*http2.Framer
	t       *testing.T
	encoder *hpack.Encoder
	encoded bytes.Buffer
}

func dialFrames(t *testing.T, s *site) *frames {
	t.Helper()
	config := trusting()
	config.NextProtos = []string{"h2"}
	f := &frames{t: t, Conn: tls.Client(dial(t, s.Addr().String(), ""), config)}
	f.must(f.Handshake())
	f.Framer = http2.NewFramer(f.Conn, f.Conn)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f.encoder = hpack.NewEncoder(&f.encoded)
	_, err := io.WriteString(f.Conn, http2.ClientPreface)
	f.must(err)
	f.must(f.WriteSettings())
	return f
}

func (f *frames) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Error(err)
	}
}

// block is the headers of a request.
func (f *frames) block(method, path string, headers ...string) []byte {
	f.encoded.Reset()
	all := append([]string{":method", method, ":path", path, ":scheme", "https", ":authority", "x"}, headers...)
	for i := 0; i+1 < len(all); i += 2 {
		f.must(f.encoder.WriteField(hpack.HeaderField{Name: all[i], Value: all[i+1]}))
	}
	return bytes.Clone(f.encoded.Bytes())
}

// end is how the server took its leave of a connection.
type end struct {
	code     http2.ErrCode // of GOAWAY
	goneAway bool
	refused  map[uint32]bool // streams
	statuses map[uint32]int  // of answers, by stream
}

// listen reads what the server sends until it closes the connection, or a stream is answered or refused.
func (f *frames) listen(until uint32) (e end) {
	e.statuses, e.refused = map[uint32]int{}, map[uint32]bool{}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return e
		}
		switch frame := frame.(type) {
		case *http2.GoAwayFrame:
			e.code, e.goneAway = frame.ErrCode, true
		case *http2.RSTStreamFrame:
			if frame.ErrCode == http2.ErrCodeRefusedStream {
				if e.refused[frame.StreamID] = true; frame.StreamID == until {
					return e
				}
			}
		case *http2.MetaHeadersFrame:
			status := 0
			for _, digit := range frame.PseudoValue("status") {
				status = 10*status + int(digit-'0')
			}
			if e.statuses[frame.StreamID] = status; frame.StreamID == until {
				return e
			}
		}
	}
}

// held is a route that answers when it is let, and not when its client goes away; it knows how many of it
// there were at once.
type held struct {
	let           chan bool
	running, most atomic.Int64
}

func (h *held) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	n := h.running.Add(1)
	for most := h.most.Load(); n > most && !h.most.CompareAndSwap(most, n); most = h.most.Load() {
	}
	<-h.let
	h.running.Add(-1)
	_, _ = io.WriteString(w, "done")
}

const fewStreams = 10

// flooded is a server with few streams, and what shows that others are served.
func flooded(t *testing.T) (s *site, h *held, done func()) {
	t.Helper()
	h = &held{let: make(chan bool)}
	s, _, _ = secure(t, extra(server.Route{Pattern: "GET /held", Handler: h}), func(c *server.Config) { c.MaxStreams, c.Log = fewStreams, nil })
	s.onboard("warm", nil)
	before := s.rest()
	bystander := s.bystander(t)
	return s, h, func() {
		t.Helper()
		bystander()
		close(h.let)
		s.settles(before)
	}
}

// Streams that are opened and reset at once (CVE-2023-44487) make no more handlers run than streams may be
// open, and whoever goes on with it is sent away.
func TestHTTP2RapidReset(t *testing.T) {
	s, h, done := flooded(t)
	f := dialFrames(t, s)
	ended := make(chan end, 1)
	go func() { ended <- f.listen(0) }()
	const floods = 100_000 // it reads on for a second after it said so, and does nothing with it
	sent := 0
	for ; sent < floods; sent++ {
		id := uint32(2*sent + 1)
		if f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: true, EndHeaders: true, BlockFragment: f.block("GET", "/held")}) != nil ||
			f.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			break
		}
	}
	e := <-ended
	if !e.goneAway || e.code != http2.ErrCodeEnhanceYourCalm {
		t.Errorf("after %d resets it was told %v (%v)", sent, e.code, e.goneAway)
	}
	if most := h.most.Load(); most == 0 || most > fewStreams {
		t.Errorf("%d handlers ran at once, of %d streams", most, fewStreams)
	}
	if n := s.count("copse_http2_errors_total"); n == 0 {
		t.Error("nothing was counted")
	}
	done()
}

// More streams than the server said it takes are refused one by one.
func TestHTTP2Streams(t *testing.T) {
	s, h, done := flooded(t)
	f := dialFrames(t, s)
	for n := range uint32(fewStreams + 5) {
		f.must(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*n + 1, EndStream: true, EndHeaders: true, BlockFragment: f.block("GET", "/held")}))
	}
	for deadline := time.Now().Add(time.Minute); h.running.Load() < fewStreams && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	// The last of them is refused last.
	if e := f.listen(2*(fewStreams+5) - 1); len(e.refused) != 5 || len(e.statuses) != 0 || h.most.Load() != fewStreams {
		t.Errorf("%d ran at once; %+v", h.most.Load(), e)
	}
	for range fewStreams {
		h.let <- true
	}
	// A stream is over a moment after its handler.
	for id := uint32(101); ; id += 2 {
		f.must(f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: true, EndHeaders: true, BlockFragment: f.block("GET", "/openapi.json")}))
		if e := f.listen(id); e.statuses[id] == http.StatusOK {
			break
		} else if !e.refused[id] {
			t.Fatalf("afterwards: %+v", e)
		}
	}
	_ = f.Close()
	done()
}

// A header block without an end (CVE-2023-45288) is neither kept nor read for ever.
func TestHTTP2ContinuationFlood(t *testing.T) {
	s, _, done := flooded(t)
	f := dialFrames(t, s)
	ended := make(chan end, 1)
	go func() { ended <- f.listen(0) }()
	f.must(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: f.block("GET", "/openapi.json")}))
	const most = 64 << 20
	sent := 0
	for sent < most {
		f.encoded.Reset()
		f.must(f.encoder.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("\xff", 12<<10), Sensitive: true}))
		if f.WriteContinuation(1, false, f.encoded.Bytes()) != nil {
			break
		}
		sent += f.encoded.Len()
	}
	e := <-ended
	// The sockets' buffers hold some of it.
	if sent > most/2 || !e.goneAway {
		t.Errorf("%d bytes of headers were taken; %+v", sent, e)
	}
	done()
}

// A small block that says one large header thousands of times is answered with 431, and never unfolded.
func TestHTTP2HeaderBomb(t *testing.T) {
	s, _, done := flooded(t)
	f := dialFrames(t, s)
	block := f.block("GET", "/openapi.json", "x", strings.Repeat("y", 3000))
	block = append(block, bytes.Repeat([]byte{0x80 | 62}, 12<<10)...) // 62: what was added to the table last
	f.must(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true, BlockFragment: block}))
	if e := f.listen(1); e.statuses[1] != http.StatusRequestHeaderFieldsTooLarge && !e.goneAway {
		t.Errorf("%+v", e)
	}
	_ = f.Close()
	done()
}

// Frames that have to be answered (CVE-2019-9512), from a client that reads no answer: so many are kept and no
// more. Others are served meanwhile.
func TestHTTP2PingFlood(t *testing.T) {
	s, _, done := flooded(t)
	f := dialFrames(t, s)
	tcp, ok := f.NetConn().(*net.TCPConn)
	if !ok {
		t.Fatalf("a connection is a %T", f.NetConn())
	}
	f.must(tcp.SetReadBuffer(4 << 10)) // else the kernel keeps many for the client
	f.must(f.SetWriteDeadline(time.Now().Add(time.Minute)))
	var many bytes.Buffer
	batch := http2.NewFramer(&many, nil)
	const each, most = 1000, 2_000_000
	for range each {
		f.must(batch.WritePing(false, [8]byte{1}))
	}
	sent := 0
	for ; sent < most; sent += each {
		if _, err := f.Write(many.Bytes()); err != nil {
			break
		}
	}
	if sent == most {
		t.Errorf("%d of them were taken", sent)
	}
	_ = f.Close()
	done()
}
