package server

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/authorizer"
	"github.com/copse-authz/copse/internal/token"
)

// tracer makes spans: of a request, and of the parts of it that take time. It stands between the parts
// where the server joins them, so that they know nothing of it, and with traces off (nil) nothing stands
// there: a decision pays nothing.
//
// A span holds a name, times, the route, the status and the kind of an error. It holds no token, key,
// principal, entity, context or text of an error, and a tenant only if the operator wants that.
type tracer struct {
	provider *sdktrace.TracerProvider
	spans    trace.Tracer
	parents  bool // callers' traceparent is believed
	tenants  bool
}

// Bounds of what waits to be sent. Beyond them spans are dropped: traces never hold up a request.
const (
	traceQueue = 4096
	traceBatch = 512
	traceEvery = 2 * time.Second
)

// newTracer is nil when no endpoint is configured.
// start, close, around and verifyBy work on that: they do nothing, or hand back what they were given.
func newTracer(cfg *Config, log *slog.Logger) *tracer {
	if cfg.TraceEndpoint == "" {
		return nil
	}
	// Everything is said here, because the library would take what is not from OTEL_ variables.
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sampler(cfg)),
		sdktrace.WithRawSpanLimits(sdktrace.SpanLimits{AttributeValueLengthLimit: 256, AttributeCountLimit: 16}),
		sdktrace.WithBatcher(newSpanExporter(cfg.TraceEndpoint, cfg.Version, log),
			sdktrace.WithMaxQueueSize(traceQueue), sdktrace.WithMaxExportBatchSize(traceBatch),
			sdktrace.WithBatchTimeout(traceEvery), sdktrace.WithExportTimeout(exportTimeout)))
	return &tracer{provider: provider, spans: provider.Tracer("copse"), parents: cfg.TraceParents, tenants: cfg.TraceTenants}
}

// sampler follows a caller that is believed; everybody else gets the ratio.
// Whose parent is not believed has none here: serve has left it out.
func sampler(cfg *Config) sdktrace.Sampler {
	ratio := sdktrace.TraceIDRatioBased(cfg.TraceRatio)
	return sdktrace.ParentBased(ratio)
}

// close sends what is left, within a bound.
// Spans that end after it are lost.
func (t *tracer) close() error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), exportTimeout)
	defer cancel()
	return t.provider.Shutdown(ctx)
}

func noEnd(string) {}

// start begins a part of a request; what it returns ends it, with the kind of an error or nothing. What
// belongs to no request has no span.
func (t *tracer) start(ctx context.Context, name string) (context.Context, func(kind string)) {
	if t == nil || !trace.SpanContextFromContext(ctx).IsValid() {
		return ctx, noEnd
	}
	ctx, span := t.spans.Start(ctx, name)
	return ctx, func(kind string) {
		if kind != "" {
			span.SetStatus(codes.Error, kind)
		}
		span.End()
	}
}

// kindOf is what a span may say of an error.
func kindOf(err error) string {
	if err == nil {
		return ""
	}
	return copse.KindOf(err).String()
}

// serve answers a request within a span that is named after its route, never after its path.
// A path may hold ids of tenants and resources.
func (t *tracer) serve(next http.Handler, w *response, r *http.Request) {
	ctx := r.Context()
	if t.parents {
		ctx = propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(r.Header))
	}
	ctx, span := t.spans.Start(ctx, r.Method, trace.WithSpanKind(trace.SpanKindServer))
	r = r.WithContext(ctx)
	// The route is known only when the router has run.
	defer func() {
		if span.IsRecording() {
			route := r.Pattern
			if route == "" {
				route = r.Method + " (no route)"
			}
			span.SetName(route)
			span.SetAttributes(attribute.String("http.request.method", knownMethod(r.Method)), attribute.String("http.route", strings.TrimSuffix(route, "{$}")),
				attribute.Int("http.response.status_code", w.status))
			if w.status >= http.StatusInternalServerError {
				span.SetStatus(codes.Error, strconv.Itoa(w.status))
			}
		}
		span.End()
	}()
	next.ServeHTTP(w, r)
}

// knownMethod keeps a caller's own words out.
func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "_OTHER"
}

// around puts spans around what the authorizer asks for; with traces off it is c itself.
func (t *tracer) around(c authorizer.Config) authorizer.Config {
	if t == nil {
		return c
	}
	verify := c.Verify
	c.Verify = func(ctx context.Context, text string) (*token.Verified, error) {
		ctx, end := t.start(ctx, "verify token")
		v, err := verify(ctx, text)
		end(kindOf(err))
		return v, err
	}
	c.VerifyBy = t.verifyBy(c.VerifyBy)
	c.Directory = tracedDirectory{c.Directory, t}
	c.Decider = tracedDecider{c.Decider, t}
	source := c.IdentitySource
	c.IdentitySource = func(ctx context.Context, id copse.PolicyStoreID, i copse.Incarnation) (*copse.IdentitySource, error) {
		ctx, end := t.start(ctx, "snapshot")
		s, err := source(ctx, id, i)
		end(kindOf(err))
		return s, err
	}
	return c
}

// verifyBy is what verifies by an identity source.
type verifyBy = func(ctx context.Context, p token.Presented) (*token.Verified, error)

// verifyBy puts a span around f.
func (t *tracer) verifyBy(f verifyBy) verifyBy {
	if t == nil {
		return f
	}
	return func(ctx context.Context, p token.Presented) (*token.Verified, error) {
		ctx, end := t.start(ctx, "verify token by identity source")
		v, err := f(ctx, p)
		end(kindOf(err))
		return v, err
	}
}

// tracedDirectory puts a span around each lookup, and on the request's span the tenant, if the operator wants it.
type tracedDirectory struct {
	copse.Directory
	t *tracer
}

func (d tracedDirectory) Lookup(ctx context.Context, tenant copse.TenantID) (copse.DirectoryEntry, error) {
	if d.t.tenants {
		trace.SpanFromContext(ctx).SetAttributes(attribute.String("copse.tenant", string(tenant)))
	}
	ctx, end := d.t.start(ctx, "directory")
	e, err := d.Directory.Lookup(ctx, tenant)
	end(kindOf(err))
	return e, err
}

// tracedDecider puts a span around each decision. Its end is a kind of error, never what was decided.
type tracedDecider struct {
	copse.Decider
	t *tracer
}

func (d tracedDecider) Decide(ctx context.Context, req *copse.Request) (copse.Response, error) {
	ctx, end := d.t.start(ctx, "decide")
	resp, err := d.Decider.Decide(ctx, req)
	end(kindOf(err))
	return resp, err
}
