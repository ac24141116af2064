package server

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
)

// maxBodyBytes is the backstop for every route: the largest contents, escaped in JSON. Each transport
// has its own, smaller limits.
const maxBodyBytes = 2*copse.MaxContentsBytes + 1<<20

// middleware is what every request goes through: it gets an id, which its answer carries and every log
// line about it names; its body is bounded; and a panic ends it and nothing else.
type middleware struct {
	next   http.Handler
	log    *slog.Logger
	tracer *tracer // nil: traces are off
	panics prometheus.Counter
	flying atomic.Int64
	// draining: HTTP/1 connections end with their answer, which says so, and no client is surprised later.
	// Over HTTP/2 other requests may be on their way on the same connection: it ends after the delay.
	draining   *atomic.Bool
	maxHeaders int
	byCode     [6]prometheus.Counter // by hundreds
}

// newMiddleware makes the counters of all classes of status at once, so that each is there from the start.
func newMiddleware(next http.Handler, log *slog.Logger, reg prometheus.Registerer, t *tracer, maxHeaders int, draining *atomic.Bool) *middleware {
	m := &middleware{next: next, log: log, tracer: t, maxHeaders: maxHeaders, draining: draining,
		panics: prometheus.NewCounter(prometheus.CounterOpts{Name: "copse_http_panics_total", Help: "Requests that a defect ended."})}
	codes := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "copse_http_requests_total", Help: "Answers of the API's listener by status."}, []string{"code"})
	for i := 1; i < len(m.byCode); i++ {
		m.byCode[i] = codes.WithLabelValues(strconv.Itoa(i) + "xx")
	}
	reg.MustRegister(m.panics, codes, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "copse_http_requests_in_flight", Help: "Requests of the API's listener that are being answered.",
	}, func() float64 { return float64(m.flying.Load()) }))
	return m
}

func (m *middleware) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := []string{requestID(r.Header["X-Request-Id"])}
	// Canonical keys, set without the lookups of Header.Set. Handlers read the id from here.
	header := w.Header()
	header["X-Request-Id"] = id
	if r.URL.Path == "/" {
		header["X-Amzn-Requestid"] = id
	}
	if m.draining.Load() && r.ProtoMajor == 1 {
		header["Connection"] = []string{"close"}
	}
	if r.ContentLength != 0 {
		r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
	}
	out := &response{ResponseWriter: w}
	m.flying.Add(1)
	defer m.finish(out, r, id[0])
	// Go bounds the bytes of headers and not their number, and each costs more than its bytes.
	if countHeaders(r.Header) > m.maxHeaders {
		writeError(out, http.StatusRequestHeaderFieldsTooLarge, copse.Invalid, "the request has more headers than this server takes (--max-headers)")
		return
	}
	if m.tracer != nil {
		m.tracer.serve(m.next, out, r)
		return
	}
	m.next.ServeHTTP(out, r)
}

// countHeaders counts lines and not names: the same header a thousand times is a thousand.
func countHeaders(h http.Header) (n int) {
	for _, values := range h {
		n += len(values)
	}
	return n
}

// finish runs deferred, whatever became of the handler. ErrAbortHandler is a handler's own wish to break the
// connection, and goes on to net/http.
func (m *middleware) finish(out *response, r *http.Request, id string) {
	defer m.flying.Add(-1)
	if cause := recover(); cause != nil {
		if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(cause)
		}
		m.panics.Inc()
		m.log.Error("panic", "requestId", id, "method", r.Method, "path", r.URL.Path,
			"panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
		if out.status != 0 {
			// Part of an answer is out: a broken connection is the only honest end of it.
			panic(http.ErrAbortHandler)
		}
		writeError(out, http.StatusInternalServerError, copse.Internal, "something is broken inside copse; the request id finds it in the log")
	}
	if class := out.status / 100; class > 0 && class < len(m.byCode) {
		m.byCode[class].Inc()
	}
}

// response remembers whether an answer began.
// status is 0 until it did. One handler writes it, in the request's goroutine.
type response struct {
	http.ResponseWriter
	status int
}

func (w *response) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// requestID takes the caller's, so that a request can be followed through several services, unless it
// could be mistaken for something else in a log. Else it draws one in the form of a UUID, as AWS does.
func requestID(claimed []string) string {
	if len(claimed) == 1 && plainID(claimed[0]) {
		return claimed[0]
	}
	// An id is no secret: the fast generator will do.
	var raw [16]byte
	binary.LittleEndian.PutUint64(raw[:], rand.Uint64())
	binary.LittleEndian.PutUint64(raw[8:], rand.Uint64())
	raw[6] = raw[6]&0x0f | 0x40
	raw[8] = raw[8]&0x3f | 0x80
	var out [36]byte
	hex.Encode(out[:8], raw[:4])
	hex.Encode(out[9:13], raw[4:6])
	hex.Encode(out[14:18], raw[6:8])
	hex.Encode(out[19:23], raw[8:10])
	hex.Encode(out[24:], raw[10:])
	out[8], out[13], out[18], out[23] = '-', '-', '-', '-'
	return string(out[:])
}

// plainID admits no space, quote, line end or comma, so an id stays one word in logs, headers and audit rows.
func plainID(id string) bool {
	if len(id) < 8 || len(id) > 64 {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}

// writeError answers in the form of the control API, for what no transport answers. The message holds
// nothing of the request.
func writeError(w http.ResponseWriter, status int, kind copse.Kind, message string) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Del("Content-Length")
	w.WriteHeader(status)
	fmt.Fprintf(w, "{\"error\":{\"kind\":%q,\"message\":%q,\"requestId\":%q}}\n", kind.String(), message, h.Get("X-Request-Id"))
}
