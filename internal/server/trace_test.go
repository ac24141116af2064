package server_test

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/copse-authz/copse/internal/server"
)

// receiver takes traces as a collector does: OTLP's own protobuf messages, over HTTP.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*tracepb.Span
	all   strings.Builder // everything received, as text
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		var data tracepb.TracesData
		if err == nil {
			err = proto.Unmarshal(body, &data)
		}
		if err != nil || req.URL.Path != "/v1/traces" || req.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("%s %s %v: %v", req.Method, req.URL, req.Header, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.all.WriteString(prototext.Format(&data))
		for _, of := range data.ResourceSpans {
			for _, scope := range of.ScopeSpans {
				r.spans = append(r.spans, scope.Spans...)
			}
		}
	}))
	t.Cleanup(r.Close)
	return r
}

// traced runs f against a server that sends its traces to a receiver, and returns that once the server
// has ended and so has sent them all.
func traced(t *testing.T, adjust func(*server.Config), f func(s *site, p *idp)) (r *receiver) {
	t.Helper()
	r = newReceiver(t)
	t.Run("server", func(t *testing.T) {
		s := start(t, func(c *server.Config) {
			c.TraceEndpoint, c.TraceRatio, c.Version = r.URL+"/v1/traces", 1, "1.2.3"
			if adjust != nil {
				adjust(c)
			}
		})
		p := newIDP(t)
		f(s, p)
	})
	r.mu.Lock()
	t.Cleanup(r.mu.Unlock)
	return r
}

const callersTrace, callersSpan = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

func askTraced(s *site, p *idp) {
	s.onboard("acme-mk1", map[string]string{"view": aliceViews})
	p.register(s, p.registration("acme-mk1"))
	for range 2 {
		wantDecision(s.t, s.authorize(p.token("acme-mk1", "alice"), viewDoc, "Traceparent", "00-"+callersTrace+"-"+callersSpan+"-01"), "ALLOW")
	}
	wantStatus(s.t, s.authorize(p.token("acme-mk1", "alice")+"x", viewDoc), 401)
	s.must(200, "GET", "/v1/tenants/acme-mk1", nil)
	wantStatus(s.t, s.call("GET", "/no-such-path-mk2", nil), 404)
}

func TestTraces(t *testing.T) {
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "from=environment-mk3")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_TRACES_SAMPLER", "always_off")
	r := traced(t, nil, askTraced)
	children := map[string]map[string]int{} // by name of the request's span
	byID := map[string]*tracepb.Span{}
	for _, span := range r.spans {
		byID[string(span.SpanId)] = span
	}
	requests := 0
	for _, span := range r.spans {
		if span.EndTimeUnixNano < span.StartTimeUnixNano || span.StartTimeUnixNano == 0 {
			t.Errorf("%s ends before it begins", span.Name)
		}
		if hex.EncodeToString(span.TraceId) == callersTrace {
			t.Errorf("%s is in the trace of a caller that nobody said to believe", span.Name)
		}
		root := span
		for len(root.ParentSpanId) > 0 {
			if root = byID[string(root.ParentSpanId)]; root == nil {
				t.Fatalf("the parent of %s never came", span.Name)
			}
		}
		if root == span {
			requests++
			if span.Kind != tracepb.Span_SPAN_KIND_SERVER {
				t.Errorf("%s is of kind %v", span.Name, span.Kind)
			}
			continue
		}
		if children[root.Name] == nil {
			children[root.Name] = map[string]int{}
		}
		children[root.Name][span.Name]++
	}
	for _, want := range []struct {
		request, part string
		times         int
	}{
		{"POST /v1/authorize", "verify token", 3}, {"POST /v1/authorize", "directory", 2}, {"POST /v1/authorize", "decide", 2},
		{"POST /v1/authorize", "snapshot", 2}, {"POST /v1/authorize", "storage load", 1}, {"POST /v1/tenants", "storage commit", 1},
	} {
		if got := children[want.request][want.part]; got < want.times {
			t.Errorf("%s has %d spans %q, want %d: %v", want.request, got, want.part, want.times, children[want.request])
		}
	}
	if requests != 7 {
		t.Errorf("%d requests traced, want 7", requests)
	}
	for _, secret := range []string{"acme-mk1", "mk2", "mk3", "alice", "Doc", "eyJ"} {
		if strings.Contains(r.all.String(), secret) {
			t.Errorf("the spans hold %q", secret)
		}
	}
	for _, public := range []string{"GET /v1/tenants/{tenant}", "service.name", "1.2.3", "Unauthenticated"} {
		if !strings.Contains(r.all.String(), public) {
			t.Errorf("the spans lack %q", public)
		}
	}
}

func TestTracesOfCallersThatAreBelieved(t *testing.T) {
	r := traced(t, func(c *server.Config) { c.TraceRatio, c.TraceParents, c.TraceTenants = 0, true, true }, askTraced)
	if len(r.spans) < 8 {
		t.Errorf("%d spans: the caller's sampling was not followed", len(r.spans))
	}
	for _, span := range r.spans {
		if hex.EncodeToString(span.TraceId) != callersTrace {
			t.Errorf("%s is traced, though its caller did not ask and the ratio is 0", span.Name)
		}
		if span.Kind == tracepb.Span_SPAN_KIND_SERVER && hex.EncodeToString(span.ParentSpanId) != callersSpan {
			t.Errorf("%s has the parent %x", span.Name, span.ParentSpanId)
		}
	}
	if !strings.Contains(r.all.String(), "acme-mk1") {
		t.Error("--trace-tenants puts no tenant into spans")
	}
}

// A receiver that is not there costs nothing but its spans.
func TestTracesWithoutReceiver(t *testing.T) {
	s := start(t, func(c *server.Config) { c.TraceEndpoint, c.TraceRatio = "http://127.0.0.1:1/v1/traces", 1 })
	askTraced(s, newIDP(t))
}

func TestTraceSettingsAreChecked(t *testing.T) {
	for _, c := range []struct {
		endpoint string
		ratio    float64
	}{{"localhost:4318", 1}, {"ftp://x/", 1}, {"", 1.5}, {"", -1}} {
		cfg := server.DefaultConfig()
		cfg.InMemory, cfg.TraceEndpoint, cfg.TraceRatio = true, c.endpoint, c.ratio
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "--trace-") {
			t.Errorf("%v: %v", c, err)
		}
	}
}
