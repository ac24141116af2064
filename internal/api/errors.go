package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
)

// statuses has a row for every copse.Kind; a test ranges over them. Where two kinds share a status, the
// body's kind tells them apart.
var statuses = [...]int{
	copse.Internal:        http.StatusInternalServerError,
	copse.Invalid:         http.StatusBadRequest,
	copse.Unauthenticated: http.StatusUnauthorized,
	copse.Denied:          http.StatusForbidden,
	copse.NotFound:        http.StatusNotFound,
	copse.Conflict:        http.StatusConflict,
	copse.QuotaExceeded:   http.StatusUnprocessableEntity,
	copse.TooManyTags:     http.StatusUnprocessableEntity,
	copse.Throttled:       http.StatusTooManyRequests,
	copse.InvalidState:    http.StatusConflict,
	copse.Unavailable:     http.StatusServiceUnavailable,
}

// refusal is an error with the status it is answered with. It passes through huma as one of its
// StatusErrors, and becomes an ErrorBody in transform. Its status may differ from its kind's: 413, 415,
// 405 and those of preconditions have no kind.
type refusal struct {
	err    error
	status int
}

func (r *refusal) Error() string  { return r.err.Error() }
func (r *refusal) Unwrap() error  { return r.err }
func (r *refusal) GetStatus() int { return r.status }

// asRefusal gives any error its status. One that has a status keeps it, also when it
// was wrapped on the way.
func asRefusal(err error) *refusal {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r
	}
	return &refusal{err: err, status: statuses[copse.KindOf(err)]}
}

// maxFields bounds an answer: ten thousand mistakes in one body are not ten thousand findings.
const maxFields = 50

// describe makes the body of an error. The detail of an internal one stays inside. It takes any error,
// classified or not, and always has a message.
func describe(err error, requestID string) ErrorBody {
	kind := copse.KindOf(err)
	info := ErrorInfo{Kind: kind.String(), RequestID: requestID}
	e, ok := errors.AsType[*copse.Error](err)
	switch {
	// Whatever it says may name files, rows or other tenants.
	case kind == copse.Internal:
		info.Message = "internal error"
	// A context that ended is Unavailable without being a copse.Error.
	case !ok:
		info.Message = "the answer can't be known now; try again"
	default:
		info.Message, info.Resource, info.ID = e.Detail, string(e.Resource), e.ID
		for _, f := range e.Fields[:min(len(e.Fields), maxFields)] {
			info.Fields = append(info.Fields, ErrorField(f))
		}
	}
	if info.Message == "" && len(info.Fields) > 0 {
		info.Message = info.Fields[0].Path + ": " + info.Fields[0].Message
	}
	if info.Message == "" {
		info.Message = kind.String()
	}
	return ErrorBody{Error: info}
}

// refuse answers a request that never reached huma. It writes the same body that transform makes, so a
// client can't tell where a request ended.
func (a *API) refuse(w http.ResponseWriter, r *http.Request, requestID string, err error) {
	refused := asRefusal(err)
	a.logFailure(r.Method, r.URL.Path, requestID, refused)
	body, err := json.Marshal(describe(refused, requestID), encodeOptions)
	if err != nil {
		// Only text that is not UTF-8 gets here.
		body = fmt.Appendf(nil, `{"error":{"kind":%q,"message":"the request is not valid UTF-8","requestId":%q}}`, copse.Invalid.String(), requestID)
	}
	setErrorHeaders(w.Header().Set, refused.status)
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(refused.status)
	_, _ = w.Write(append(body, '\n'))
}

// transform turns errors on their way through huma, ours and its own, into the one error shape. huma
// calls it for every answer; what is not an error passes as it is.
func (a *API) transform(ctx huma.Context, _ string, v any) (any, error) {
	x, ok := ctx.(*exchange)
	if !ok {
		return v, nil
	}
	var refused *refusal
	// huma has its own type for what it found; ours comes back as it went in.
	switch e := v.(type) {
	case *refusal:
		refused = e
	case *huma.ErrorModel:
		refused = fromHuma(e)
	default:
		return v, nil
	}
	// [exchange.SetStatus] takes this in place of huma's.
	x.status = refused.status
	setErrorHeaders(x.SetHeader, refused.status)
	url := x.URL()
	a.logFailure(x.Method(), url.Path, x.requestID, refused)
	return describe(refused, x.requestID), nil
}

// fromHuma reads an error of huma's own: a parameter or body that breaks its schema. What it says is
// about the request and in the document's words, so it may go out; unless it is about huma itself,
// which is internal.
func fromHuma(m *huma.ErrorModel) *refusal {
	if m.Status >= http.StatusInternalServerError {
		return asRefusal(fmt.Errorf("huma: %s: %v", m.Detail, m.Errors))
	}
	e := &copse.Error{Kind: copse.Invalid, Detail: m.Detail}
	for _, d := range m.Errors[:min(len(m.Errors), maxFields)] {
		path := shorten(strings.TrimPrefix(d.Location, "body."))
		e.Fields = append(e.Fields, copse.Field{Path: path, Message: d.Message})
	}
	// One finding is the message as well, for clients that show nothing else.
	switch len(e.Fields) {
	case 0:
	case 1:
		e.Detail = e.Fields[0].Path + ": " + e.Fields[0].Message
	default:
		e.Detail = "the request is not as the OpenAPI document at /openapi.json describes it"
	}
	status := m.Status
	// To huma a body that breaks its schema is 422; here that is for quotas.
	if status == http.StatusUnprocessableEntity {
		status = http.StatusBadRequest
	}
	return &refusal{err: e, status: status}
}

// setErrorHeaders adds what HTTP wants with some statuses: how to authenticate, and when to try again.
func setErrorHeaders(set func(name, value string), status int) {
	switch status {
	case http.StatusUnauthorized:
		set("WWW-Authenticate", `Bearer realm="copse"`)
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		set("Retry-After", "1")
	}
}

// logFailure puts what went wrong inside copse into the log, since it is not in the answer. It logs no
// body and no header, in which secrets could be. What a client that went away caused is not logged.
func (a *API) logFailure(method, path, requestID string, r *refusal) {
	if r.status < http.StatusInternalServerError || errors.Is(r.err, context.Canceled) { // the client went away
		return
	}
	attrs := []any{"requestId", requestID, "method", method, "path", path, "error", r.err}
	// An Error's text is for callers; its cause is only here.
	if e, ok := errors.AsType[*copse.Error](r.err); ok && e.Err != nil {
		attrs = append(attrs, "cause", e.Err)
	}
	a.log.Error("control API operation failed", attrs...)
}
