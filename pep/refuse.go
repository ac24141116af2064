package pep

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
)

// result is how a request ended, and the label it is counted under.
type result uint8

const (
	resultError result = iota // zero: what nobody classified
	resultAllow
	resultAuthenticated
	resultDeny
	resultUnauthenticated
	resultTenant
	resultTenantHeader
	resultContextMissing
	resultContext
	resultInvalid
	resultThrottled
	resultUnavailable
	resultService // the status follows the error's Kind
)

var outcomes = [...]struct {
	label  string
	status int
	level  slog.Level
}{
	resultError:           {"error", http.StatusInternalServerError, slog.LevelError},
	resultAllow:           {"allow", http.StatusOK, slog.LevelInfo},
	resultAuthenticated:   {"authenticated", http.StatusOK, slog.LevelInfo},
	resultDeny:            {"deny", http.StatusForbidden, slog.LevelInfo},
	resultUnauthenticated: {"unauthenticated", http.StatusUnauthorized, slog.LevelInfo},
	resultTenant:          {"tenant", http.StatusForbidden, slog.LevelInfo},
	// These three don't happen by accident: somebody forges, or the gateway is misconfigured.
	resultTenantHeader:   {"tenant_header", http.StatusForbidden, slog.LevelWarn},
	resultContextMissing: {"context_missing", http.StatusForbidden, slog.LevelWarn},
	resultContext:        {"context", http.StatusForbidden, slog.LevelWarn},
	resultInvalid:        {"invalid", http.StatusBadRequest, slog.LevelInfo},
	resultThrottled:      {"throttled", http.StatusTooManyRequests, slog.LevelInfo},
	resultUnavailable:    {"unavailable", http.StatusServiceUnavailable, slog.LevelWarn},
	resultService:        {"service", http.StatusInternalServerError, slog.LevelInfo},
}

// refusal is an error whose result its Kind does not tell.
type refusal struct {
	result result
	err    error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// byKind is the result of an error that is none of the above. An unknown tenant, or a policy store that
// is gone, is answered like a tenant the issuer may not speak for.
func byKind(kind copse.Kind) result {
	switch kind {
	case copse.Unauthenticated:
		return resultUnauthenticated
	case copse.Denied, copse.NotFound:
		return resultTenant
	case copse.Invalid:
		return resultInvalid
	case copse.Throttled:
		return resultThrottled
	case copse.Unavailable:
		return resultUnavailable
	default:
		return resultError
	}
}

// refuse ends a request. What is answered depends on the status alone, so that two refusals can't be
// told apart; why is for the log.
func (p *PEP) refuse(w http.ResponseWriter, r *http.Request, who *Identity, err error) {
	kind := copse.KindOf(err)
	res := byKind(kind)
	status := outcomes[res].status
	if refusal, ok := errors.AsType[*refusal](err); ok {
		res = refusal.result
		if res != resultService {
			status = outcomes[res].status
		} else if kind == copse.NotFound { // the service's own resource, in the user's own tenant
			status = http.StatusNotFound
		}
	}
	out := outcomes[res]
	level := out.level
	if status == http.StatusInternalServerError {
		level = slog.LevelError
	}
	header := w.Header()
	switch status {
	case http.StatusUnauthorized:
		header.Set("WWW-Authenticate", "Bearer")
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		header.Set("Retry-After", "1")
	}
	body := fmt.Sprintf("{\"error\":{\"kind\":%q,\"message\":%q}}\n", answers[status].kind.String(), answers[status].message)
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body)) // a client that went away is its own problem
	p.metrics.count(res)
	tenant := copse.TenantID("")
	if who != nil {
		tenant = who.Tenant
	}
	p.log.LogAttrs(r.Context(), level, "request refused",
		slog.String("tenant", string(tenant)), slog.String("method", r.Method), slog.Int("status", status),
		slog.String("result", out.label), slog.String("reason", reasonText(err)))
}

// answers are what a caller is told, by status.
var answers = map[int]struct {
	kind    copse.Kind
	message string
}{
	http.StatusBadRequest:          {copse.Invalid, "the request can't be decided on"},
	http.StatusUnauthorized:        {copse.Unauthenticated, "send a valid token in the Authorization header, as a bearer token"},
	http.StatusForbidden:           {copse.Denied, "this is not allowed"},
	http.StatusNotFound:            {copse.NotFound, "there is no such resource"},
	http.StatusTooManyRequests:     {copse.Throttled, "too many requests; try again"},
	http.StatusInternalServerError: {copse.Internal, "something is broken; the log tells what"},
	http.StatusServiceUnavailable:  {copse.Unavailable, "no decision can be had now; try again"},
}

// reasonText is the detail, and the cause that nobody outside is shown.
func reasonText(err error) string {
	text := err.Error()
	if e, ok := errors.AsType[*copse.Error](err); ok && e.Err != nil && e.Err.Error() != text {
		text += ": " + e.Err.Error()
	}
	return text
}

type metrics struct {
	by [len(outcomes)]prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	total := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "copse_pep_requests_total",
		Help: "Requests by how they ended at the service's own check.",
	}, []string{"result"})
	m := &metrics{}
	for i, out := range outcomes {
		m.by[i] = total.WithLabelValues(out.label)
	}
	if reg != nil {
		if err := reg.Register(total); err != nil {
			return nil, fmt.Errorf("pep: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) count(r result) { m.by[r].Inc() }
