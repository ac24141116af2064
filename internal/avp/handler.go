package avp

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/decisionlog"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/token"
)

// Config is what a handler is made of.
type Config struct {
	// PolicyStores and Access do the work and check the caller's key;
	// both are required, as is VerifyBy.
	PolicyStores *policystore.Service
	Access       *access.Service
	// VerifyBy checks a user's token by a policy store's identity source: token.Verifier's method.
	VerifyBy func(ctx context.Context, p token.Presented) (*token.Verified, error)
	// AccountID and Region are what ARNs say. Empty: all zeros, and us-east-1.
	AccountID, Region string
	// Record keeps decisions before they are answered; an error refuses them. Nil: none are kept.
	Record  func(ctx context.Context, decided []decisionlog.Entry) error
	Log     *slog.Logger          // gets what fails inside copse. Nil: nothing
	Metrics prometheus.Registerer // nil: not registered
}

// handler serves all requests at once: but for its counters and its
// pool, nothing of it changes after [New], so it needs no lock.
type handler struct {
	policyStores *policystore.Service
	access       *access.Service
	verifyBy     func(ctx context.Context, p token.Presented) (*token.Verified, error)
	accountID    string
	region       string
	log          *slog.Logger
	record       func(ctx context.Context, decided []decisionlog.Entry) error
	// operations is the table by name; it is only read.
	operations map[string]operation
	answered   *prometheus.CounterVec
	deciding   deciding
	cutters    sync.Pool // of *cutter
}

// New makes the handler for POST /. It answers every request itself, authenticates
// each before it reads the body, and takes the request id from the X-Request-Id of
// the answer when a handler before it has set one. New reports what is missing
// from the configuration, and a metric whose name is taken in the registry.
func New(cfg Config) (http.Handler, error) {
	if cfg.PolicyStores == nil || cfg.Access == nil || cfg.VerifyBy == nil {
		return nil, errors.New("avp: PolicyStores, Access and VerifyBy are required")
	}
	h := &handler{
		policyStores: cfg.PolicyStores,
		access:       cfg.Access,
		verifyBy:     cfg.VerifyBy,
		accountID:    cmp.Or(cfg.AccountID, "000000000000"),
		region:       cmp.Or(cfg.Region, "us-east-1"),
		log:          cmp.Or(cfg.Log, slog.New(slog.DiscardHandler)),
		record:       cfg.Record,
		operations:   make(map[string]operation, len(operations)),
		answered: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "copse_avp_requests_total",
			Help: "Requests to the AVP API by operation and exception; no exception is a success.",
		}, []string{"operation", "exception"}),
		deciding: newDeciding(),
	}
	if h.record == nil {
		h.record = func(context.Context, []decisionlog.Entry) error { return nil }
	}
	for _, op := range operations {
		h.operations[op.name] = op
	}
	if cfg.Metrics != nil {
		if err := errors.Join(cfg.Metrics.Register(h.answered), h.deciding.register(cfg.Metrics)); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// What the protocol fixes: the media type of both directions, and what
// stands before an operation's name in X-Amz-Target.
const (
	contentType  = "application/x-amz-json-1.0"
	targetPrefix = "VerifiedPermissions."
)

// The slice is shared by all answers, and never changed.
var contentTypes = []string{contentType}

// ServeHTTP answers one call. The answer is whole before its status is sent, so whatever fails inside
// copse still becomes an exception with the status of one.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	header := w.Header()
	requestID := header.Get("X-Request-Id")
	if requestID == "" {
		requestID = copse.NewID()
	}
	// The SDKs put this id into the errors they raise; it is also what the log says.
	header["X-Amzn-Requestid"] = []string{requestID}
	header["Content-Type"] = contentTypes

	name, answer, err := h.serve(r, requestID)
	status, thrown := http.StatusOK, ""
	if err != nil {
		// describe is the only way from an error to text for a client: what
		// fails inside copse stays inside.
		x, body := describe(err)
		if copse.KindOf(err) == copse.Throttled {
			body.QuotaCode = rateCodes[name]
			header["Retry-After"] = []string{"1"} // every bucket has something in it again by then
		}
		status, thrown, answer = x.Status, x.Type, body.marshal()
		// The SDK for Go looks at this header first, then at __type in the body.
		header["X-Amzn-Errortype"] = []string{x.Type}
		if status == http.StatusServiceUnavailable {
			header["Retry-After"] = []string{"1"}
		}
		// Only what copse failed to do is logged; the mistakes of clients
		// are counted, and are theirs to know.
		if status >= http.StatusInternalServerError {
			level := slog.LevelError
			if errors.Is(err, context.Canceled) {
				level = slog.LevelDebug // the client went away, which is no failure of copse's
			}
			h.log.LogAttrs(r.Context(), level, "AVP operation failed",
				slog.String("requestId", requestID), slog.String("operation", name), slog.Any("error", cause(err)))
		}
	}
	// The name is empty until it is known to be one of the table, so clients make no new label values.
	h.answered.WithLabelValues(name, thrown).Inc()
	header["Content-Length"] = []string{strconv.Itoa(len(answer))}
	w.WriteHeader(status)
	_, _ = w.Write(answer) // a client that went away needs no answer
	h.deciding.took(name, time.Since(start))
}

// serve returns the operation's name (empty until it is known to be one) and its answer.
func (h *handler) serve(r *http.Request, requestID string) (string, []byte, error) {
	if r.URL.Path != "/" || r.Method != http.MethodPost {
		// The SDKs raise an exception for any answer that is not 2xx, but a
		// 404 without __type would be one without a name.
		return "", nil, &protocolError{unknownOperation, "the AVP API is POST / only"}
	}
	ctx, start := r.Context(), time.Now()
	// The credential comes before content type and target: whoever has none gets the same answer
	// whatever the rest of the request says, and costs no more.
	caller, body, err := h.authenticate(ctx, r)
	if err != nil {
		return "", nil, err
	}
	caller.RequestID = requestID
	if err := checkContentType(r.Header); err != nil {
		return "", nil, err
	}
	op, err := h.find(r.Header.Get("X-Amz-Target"))
	if err != nil {
		return "", nil, err
	}
	answer, err := op.run(h, ctx, &call{operation: op.name, start: start, caller: caller, body: body, requestID: requestID, needs: op.needs})
	// A key that was refused for what it does not cover counts as a failed use of it. Mistakes do not.
	h.access.Refused(caller, err)
	return op.name, answer, err
}

// authenticate verifies the credential. What can be refused without the body is refused before a
// byte of it is read, and no more than the limit is ever read.
func (h *handler) authenticate(ctx context.Context, r *http.Request) (access.Caller, []byte, error) {
	if len(r.Header["Authorization"]) > 1 {
		// A proxy in front could have looked at the other one.
		return access.Caller{}, nil, &protocolError{exception{"IncompleteSignatureException", http.StatusBadRequest},
			"there is more than one Authorization header"}
	}
	bearer, verified := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	// Everything that does not begin with Bearer is taken for a signature, so a request without any
	// Authorization gets the answer that SDKs know for a missing one.
	signed := !verified
	var caller access.Caller
	var err error
	// What is verified already, a bearer or a signature over the body's announced hash, may read a body
	// without counting towards the bound on those who are not.
	if signed {
		caller, verified, err = h.access.PrecheckSigV4(ctx, r)
	} else {
		caller, err = h.access.Bearer(ctx, bearer)
	}
	if err != nil {
		return access.Caller{}, nil, credentialError(err)
	}
	body, release, err := h.access.ReadBody(r, copse.MaxRequestBytes, verified)
	defer release()
	// The status is the one proxies and clients know for this; the
	// exception is the nearest that AVP has.
	if errors.Is(err, access.ErrBodyTooLarge) {
		err = &protocolError{exception{"ValidationException", http.StatusRequestEntityTooLarge},
			"the request is larger than " + strconv.Itoa(copse.MaxRequestBytes) + " bytes"}
	}
	if err != nil {
		return access.Caller{}, nil, err
	}
	// The signature covers the body, so it is only proven now, over exactly the bytes that are used.
	if signed {
		if caller, err = h.access.SigV4(ctx, r, body); err != nil {
			return access.Caller{}, nil, credentialError(err)
		}
	}
	return caller, body, nil
}

// unknownOperation is what the awsJson protocols answer to a target that is none of the service's.
var unknownOperation = exception{"UnknownOperationException", http.StatusBadRequest}

// checkContentType wants awsJson1_0 without compression. Another type would mean that the sender
// believes to talk another protocol; a compressed body would hide its size from the limit.
func checkContentType(header http.Header) error {
	given := header.Get("Content-Type")
	// The exact text, as the SDKs send it, needs no parsing.
	if given == contentType && header.Get("Content-Encoding") == "" {
		return nil
	}
	media, parameters, err := mime.ParseMediaType(given)
	charset := parameters["charset"]
	if err != nil || media != contentType || charset != "" && !strings.EqualFold(charset, "utf-8") || header.Get("Content-Encoding") != "" {
		return &protocolError{exception{"UnsupportedMediaTypeException", http.StatusUnsupportedMediaType},
			"Content-Type must be " + contentType + ", without Content-Encoding"}
	}
	return nil
}

// find is the row of the table for an X-Amz-Target. Names are compared as they are; its error is the
// same for a target of another service and for none.
func (h *handler) find(target string) (operation, error) {
	name, ok := strings.CutPrefix(target, targetPrefix)
	op, found := h.operations[name]
	switch {
	case ok && found:
		return op, nil
	default:
		return op, &protocolError{unknownOperation, "X-Amz-Target names no operation of Amazon Verified Permissions"}
	}
}

// cause is what the log gets: an Error's text is for callers, its cause for us.
func cause(err error) error {
	if e, ok := errors.AsType[*copse.Error](err); ok && e.Err != nil {
		return errors.Join(e, e.Err)
	}
	return err
}

// credentialExceptions are AWS's words for a credential that was refused, with its statuses.
var credentialExceptions = map[access.Reason]exception{
	access.MissingAuthenticationToken: {"MissingAuthenticationTokenException", http.StatusForbidden},
	access.IncompleteSignature:        {"IncompleteSignatureException", http.StatusBadRequest},
	access.InvalidSignature:           {"InvalidSignatureException", http.StatusForbidden},
	access.UnrecognizedClient:         {"UnrecognizedClientException", http.StatusForbidden},
	access.RequestExpired:             {"RequestExpiredException", http.StatusBadRequest},
	access.ExpiredToken:               {"ExpiredTokenException", http.StatusForbidden},
	// InvalidCredential is a bearer, which AWS does not have: it answers
	// like an access key nobody knows.
	access.InvalidCredential: {"UnrecognizedClientException", http.StatusForbidden},
}

// credentialError puts AWS's exception on a refusal. Unavailable keys stay what they are: 503.
func credentialError(err error) error {
	x, ok := credentialExceptions[access.ReasonOf(err)]
	if e, isError := errors.AsType[*copse.Error](err); ok && isError {
		return &protocolError{x, e.Detail}
	}
	return err
}
