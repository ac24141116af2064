package authorizer

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/copse-authz/copse"
)

// outcome is how an error of a Kind is answered, and under which label it is counted.
type outcome struct {
	status int
	result string
	level  slog.Level
}

// outcomes is indexed by Kind; a test sees to it that no Kind is missing.
var outcomes = [...]outcome{
	copse.Internal:        {http.StatusInternalServerError, "error", slog.LevelError},
	copse.Invalid:         {http.StatusBadRequest, "invalid", slog.LevelInfo},
	copse.Unauthenticated: {http.StatusUnauthorized, "unauthenticated", slog.LevelInfo},
	copse.Denied:          {http.StatusForbidden, "refused", slog.LevelInfo},
	// An unknown tenant, or a policy store that was deleted between the directory and the decision.
	copse.NotFound:      {http.StatusForbidden, "refused", slog.LevelInfo},
	copse.Conflict:      {http.StatusConflict, "error", slog.LevelError},
	copse.QuotaExceeded: {http.StatusUnprocessableEntity, "invalid", slog.LevelInfo},
	copse.TooManyTags:   {http.StatusUnprocessableEntity, "invalid", slog.LevelInfo},
	copse.Throttled:     {http.StatusTooManyRequests, "throttled", slog.LevelInfo},
	copse.InvalidState:  {http.StatusConflict, "error", slog.LevelError},
	copse.Unavailable:   {http.StatusServiceUnavailable, "unavailable", slog.LevelWarn},
}

// refused is the one answer to everything that is wrong with the tenant. It holds no request id and
// nothing of the request: two of them can't be told apart.
var refused = []byte(`{"error":{"kind":"Denied","message":"this token may not be used for this"}}` + "\n")

// refusal is what there is to say of a request that was not decided, or not let pass.
type refusal struct {
	log     *slog.Logger
	metrics *metrics
	what    string         // the log line's message
	tenant  copse.TenantID // verified, or empty
	start   time.Time
}

// write answers an error, counts it and logs it. out is a buffer to use, and is returned.
func (f *refusal) write(w http.ResponseWriter, r *http.Request, err error, buffer []byte) []byte {
	kind := copse.KindOf(err)
	out := outcomes[kind]
	header := w.Header()
	header["Content-Type"] = jsonType
	switch out.status {
	case http.StatusForbidden:
		buffer = append(buffer[:0], refused...)
	default:
		buffer = appendError(buffer[:0], kind, err, requestID(w))
	}
	if errors.Is(err, errTooLarge) {
		out.status = http.StatusRequestEntityTooLarge
	}
	switch out.status {
	case http.StatusUnauthorized:
		header.Set("WWW-Authenticate", `Bearer realm="copse"`)
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		header.Set("Retry-After", "1")
	}
	header.Set("Content-Length", strconv.Itoa(len(buffer)))
	w.WriteHeader(out.status)
	_, _ = w.Write(buffer)
	took := time.Since(f.start)
	f.metrics.failed(kind, took)
	f.log.LogAttrs(r.Context(), out.level, f.what,
		slog.String("requestId", requestID(w)),
		slog.String("tenant", string(f.tenant)),
		slog.Int("status", out.status),
		slog.String("result", out.result),
		slog.String("reason", reasonText(err)),
		slog.Int64("micros", took.Microseconds()))
	return buffer
}

// reasonText is for the log: the detail, and the cause that no caller is shown.
func reasonText(err error) string {
	text := err.Error()
	if cause := errors.Unwrap(err); cause != nil && cause.Error() != text {
		text += ": " + cause.Error()
	}
	return text
}

// appendError writes an error in the form of the control API.
func appendError(out []byte, kind copse.Kind, err error, requestID string) []byte {
	message := "something is broken inside copse; the request id finds it in the log"
	var fields []copse.Field
	if e, ok := errors.AsType[*copse.Error](err); ok && kind != copse.Internal {
		message, fields = e.Detail, e.Fields
	} else if kind == copse.Unavailable {
		message = "no decision in time"
	}
	out = append(out, `{"error":{"kind":"`...)
	out = append(out, kind.String()...)
	out = append(out, `","message":`...)
	out = appendString(out, message)
	if len(fields) > 0 {
		out = append(out, `,"fields":[`...)
		for i, f := range fields {
			if i > 0 {
				out = append(out, ',')
			}
			out = append(out, `{"path":`...)
			out = appendString(out, f.Path)
			out = append(out, `,"message":`...)
			out = appendString(out, f.Message)
			if f.Line > 0 {
				out = append(out, `,"line":`...)
				out = strconv.AppendInt(out, int64(f.Line), 10)
				out = append(out, `,"column":`...)
				out = strconv.AppendInt(out, int64(f.Column), 10)
			}
			out = append(out, '}')
		}
		out = append(out, ']')
	}
	if requestID != "" {
		out = append(out, `,"requestId":`...)
		out = appendString(out, requestID)
	}
	return append(out, "}}\n"...)
}

// logDecision writes a decision's line. The answer is on its way; its buffer serves for the line.
func logDecision(ctx context.Context, log *slog.Logger, requestID string, entry *copse.DirectoryEntry, resp *copse.Response, took time.Duration, buffer []byte) []byte {
	if !log.Enabled(ctx, slog.LevelInfo) {
		return buffer
	}
	buffer = buffer[:0]
	for i, ref := range resp.Determining {
		if i > 0 {
			buffer = append(buffer, ' ')
		}
		buffer = append(buffer, ref.ID...)
	}
	log.LogAttrs(ctx, slog.LevelInfo, "decision",
		slog.String("requestId", requestID),
		slog.String("tenant", string(entry.Tenant)),
		slog.String("policyStore", string(entry.PolicyStoreID)),
		slog.Uint64("revision", resp.Revision),
		slog.String("decision", resp.Decision.String()),
		slog.String("determining", string(buffer)),
		slog.Int("errors", len(resp.Errors)),
		slog.Int64("micros", took.Microseconds()))
	return buffer
}
