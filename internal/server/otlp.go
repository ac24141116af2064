package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// exportTimeout bounds one attempt to hand spans over.
const exportTimeout = 5 * time.Second

// spanExporter sends spans as OTLP over HTTP. It is ours because OpenTelemetry's own would bring gRPC
// into the binary, and reads addresses, headers and certificates from OTEL_ variables.
type spanExporter struct {
	endpoint string
	client   *http.Client
	log      *slog.Logger
	resource *resourcepb.Resource
	scope    *commonpb.InstrumentationScope
}

// newSpanExporter opens no connection: a collector may come later, or go.
func newSpanExporter(endpoint, version string, log *slog.Logger) *spanExporter {
	return &spanExporter{
		endpoint: endpoint, log: log,
		client: &http.Client{Timeout: exportTimeout,
			Transport: &http.Transport{MaxIdleConns: 2, IdleConnTimeout: time.Minute},
			// A redirect would carry the spans to where nobody configured.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{text("service.name", "copse"), text("service.version", version)}},
		scope:    &commonpb.InstrumentationScope{Name: "copse", Version: version},
	}
}

// ExportSpans implements sdktrace.SpanExporter. What can't be sent is lost, and never sent twice. An error
// would go to the library's global handler, and so is logged here.
func (e *spanExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := e.send(ctx, spans); err != nil {
		e.log.WarnContext(ctx, "spans are lost", "spans", len(spans), "error", err)
	}
	return nil
}

// send hands over one batch in one request; any answer but 2xx is a failure.
func (e *spanExporter) send(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	out := &tracepb.ScopeSpans{Scope: e.scope}
	for _, s := range spans {
		out.Spans = append(out.Spans, wireSpan(s))
	}
	// On the wire this is an ExportTraceServiceRequest.
	// The two messages have the same one field, and this one needs no code of the gRPC service.
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{Resource: e.resource, ScopeSpans: []*tracepb.ScopeSpans{out}}}})
	if err != nil {
		return fmt.Errorf("traces: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.endpoint, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("traces: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	// The context is the batcher's, with its own bound; the client's timeout holds also without one.
	resp, err := e.client.Do(req)
	if err != nil {
		return fmt.Errorf("traces: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("traces: %s answers %s", e.endpoint, resp.Status)
	}
	return nil
}

// Shutdown implements sdktrace.SpanExporter.
// The batcher has exported what it had before it calls this.
func (e *spanExporter) Shutdown(context.Context) error {
	e.client.CloseIdleConnections()
	return nil
}

// wireSpan takes what copse's own spans have: no events, no links, attributes that are numbers or text.
func wireSpan(s sdktrace.ReadOnlySpan) *tracepb.Span {
	id, parent, at := s.SpanContext(), s.Parent(), s.SpanContext().TraceID()
	span := id.SpanID()
	out := &tracepb.Span{
		TraceId: at[:], SpanId: span[:], TraceState: id.TraceState().String(), Name: s.Name(),
		Kind:              tracepb.Span_SpanKind(s.SpanKind()), // one numbering
		StartTimeUnixNano: uint64(s.StartTime().UnixNano()), EndTimeUnixNano: uint64(s.EndTime().UnixNano()),
		Status: &tracepb.Status{},
	}
	if parent.HasSpanID() {
		above := parent.SpanID()
		out.ParentSpanId = above[:]
	}
	if st := s.Status(); st.Code == codes.Error {
		out.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: st.Description}
	}
	for _, a := range s.Attributes() {
		switch a.Value.Type() {
		case attribute.INT64:
			out.Attributes = append(out.Attributes, &commonpb.KeyValue{Key: string(a.Key), Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: a.Value.AsInt64()}}})
		default:
			out.Attributes = append(out.Attributes, text(string(a.Key), a.Value.AsString()))
		}
	}
	return out
}

// text is an attribute whose value is text.
func text(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
}
