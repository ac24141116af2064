package authorizer

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/decisionlog"
)

// outcome is how an error of a Kind is answered, and under which label it is counted. level is how much
// the operator needs to hear of it: a client's mistake is no error of the server's.
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
// nothing of the request: two of them can't be told apart. It is shared and must not be changed.
var refused = []byte(`{"error":{"kind":"Denied","message":"this token may not be used for this"}}` + "\n")

// refusal is what there is to say of a request that was not decided, or not let pass. One is for one
// request. tenant must be a verified one: the log is not for names that callers make up.
type refusal struct {
	log     *slog.Logger
	metrics *metrics
	what    string         // the log line's message
	tenant  copse.TenantID // verified, or empty
	start   time.Time
}

// errorAnswer is how an error is answered, over whatever protocol. HTTP and Envoy's gRPC are answered
// from the same one, so they can't differ.
type errorAnswer struct {
	status int
	hint   [2]string // a header that tells the caller what to do: name and value, or empty
	body   []byte
}

// answer says how an error is answered. buffer is for the body. buffer's contents are lost, and the
// body of a may lie in it.
func (f *refusal) answer(err error, requestID string, buffer []byte) (a errorAnswer) {
	kind := copse.KindOf(err)
	a.status = outcomes[kind].status
	// By status and not by kind: whatever is 403 must look the same.
	switch a.status {
	case http.StatusForbidden:
		a.body = append(buffer[:0], refused...)
	default:
		a.body = appendError(buffer[:0], kind, err, requestID)
	}
	// The size has no kind of its own.
	if errors.Is(err, errTooLarge) {
		a.status = http.StatusRequestEntityTooLarge
	}
	switch a.status {
	case http.StatusUnauthorized:
		a.hint = [2]string{"WWW-Authenticate", `Bearer realm="copse"`}
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		a.hint = [2]string{"Retry-After", "1"}
	}
	return a
}

// write answers an error, counts it and logs it. buffer is one to use, and is returned. Nothing of the
// answer may have been written before.
func (f *refusal) write(w http.ResponseWriter, r *http.Request, err error, buffer []byte) []byte {
	id := requestID(w)
	a := f.answer(err, id, buffer)
	header := w.Header()
	header["Content-Type"] = jsonType
	if a.hint[0] != "" {
		header.Set(a.hint[0], a.hint[1])
	}
	header.Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
	f.note(r.Context(), id, a.status, err)
	return a.body
}

// note counts an error that was answered, and logs it. Each error is counted once and is one line:
// callers don't log it again.
func (f *refusal) note(ctx context.Context, requestID string, status int, err error) {
	took := time.Since(f.start)
	kind := copse.KindOf(err)
	f.metrics.failed(kind, took)
	f.log.LogAttrs(ctx, outcomes[kind].level, f.what,
		slog.String("requestId", requestID),
		slog.String("tenant", string(f.tenant)),
		slog.Int("status", status),
		slog.String("result", outcomes[kind].result),
		slog.String("reason", reasonText(err)),
		slog.Int64("micros", took.Microseconds()))
}

// reasonText is for the log: the detail, and the cause that no caller is shown. The two may name the
// tenant and the policy store, which no answer does.
func reasonText(err error) string {
	text := err.Error()
	if cause := errors.Unwrap(err); cause != nil && cause.Error() != text {
		text += ": " + cause.Error()
	}
	return text
}

// appendError writes an error in the form of the control API. Details of an internal error are
// replaced, since they may name files or other tenants.
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

// describe fills the decision log's entry. The strings of a request are copies of the body's. The entry
// points to req, which must stay as it is until the entry was recorded.
func describe(out *decisionlog.Entry, requestID, via string, entry *copse.DirectoryEntry, req *copse.Request, resp *copse.Response, start time.Time) {
	*out = decisionlog.Entry{
		Time: start, RequestID: requestID, Via: via,
		Tenant: entry.Tenant, PolicyStoreID: entry.PolicyStoreID, Incarnation: entry.Incarnation,
		Principal: req.Principal, Action: req.Action, Resource: req.Resource,
		Response: *resp, Latency: time.Since(start), Request: req,
	}
}

// recordNothing stands in where there is no decision log, so that callers need not ask.
func recordNothing(context.Context, []decisionlog.Entry) error { return nil }
