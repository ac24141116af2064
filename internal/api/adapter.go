package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
)

// adapter is what huma runs on: net/http's router, behind authentication and our own reading of the
// body.
type adapter struct{ api *API }

// ServeHTTP is the whole API's: huma asks its adapter for it.
func (ad *adapter) ServeHTTP(w http.ResponseWriter, r *http.Request) { ad.api.ServeHTTP(w, r) }

// Handle registers an operation behind everything that must happen before huma sees a request: who
// calls and whether that key could do this at all, then the form of the message, then its size in
// values. What is refused here cost no decoding.
func (ad *adapter) Handle(op *huma.Operation, next func(huma.Context)) {
	a := ad.api
	// An operation without a need is open to every key, and leaves it to its service.
	needs, _ := op.Metadata[needsKey].(need)
	a.mux.HandleFunc(op.Method+" "+op.Path, func(w http.ResponseWriter, r *http.Request) {
		id := requestID(w)
		// huma is given one byte more than the limit, see [register].
		caller, body, err := a.authenticate(r, op.MaxBodyBytes-1, needs)
		if err == nil {
			err = checkForm(op, r, body)
		}
		if err == nil {
			err = checkSize(body)
		}
		if err != nil {
			a.refuse(w, r, id, err)
			return
		}
		caller.RequestID = id
		// Only the adapter puts a caller there, so who finds one in the context knows
		// that it was verified.
		r = r.WithContext(context.WithValue(r.Context(), callerKey{}, caller))
		// The body is in memory by now and within its limit; huma reads that copy.
		r.Body = io.NopCloser(bytes.NewReader(body))
		next(&exchange{humaContext: humago.NewContext(op, r, w), requestID: id})
	})
}

type callerKey struct{}

// callerFrom is the zero Caller, which may do nothing, for a request that no adapter authenticated.
func callerFrom(ctx context.Context) access.Caller {
	caller, _ := ctx.Value(callerKey{}).(access.Caller)
	return caller
}

// humaContext gives the embedded field a name that is not also one of its methods.
type humaContext = huma.Context

// exchange is huma's view of a request, with our own errors written through it.
type exchange struct {
	humaContext
	requestID string
	status    int // when set, instead of what huma says
}

// SetStatus corrects the status of errors that huma itself found: a body that breaks its schema is
// 422 to huma, and 400 here.
func (x *exchange) SetStatus(code int) {
	if x.status != 0 {
		code = x.status
	}
	x.humaContext.SetStatus(code)
}

// SetHeader keeps the one content type of the API, but for what is no JSON; huma calls its own errors problem+json.
func (x *exchange) SetHeader(name, value string) {
	if name == "Content-Type" && value != backupType && value != bundleType {
		value = contentType
	}
	x.humaContext.SetHeader(name, value)
}

// SetReadDeadline does nothing: the body has been read, and deadlines are the server's.
func (x *exchange) SetReadDeadline(time.Time) error { return nil }

// contentType is that of all bodies in both directions, but for backups and bundles.
const contentType = "application/json"

// requestID is the one the server in front has put on the answer, or a new one. The caller sees it in
// the answer, and an error's body and the log have the same.
func requestID(w http.ResponseWriter) string {
	id := w.Header().Get("X-Request-Id")
	if id == "" {
		id = copse.NewID()
		w.Header().Set("X-Request-Id", id)
	}
	return id
}

// authenticate verifies the credential, refuses what its key can't do at all, and reads the body:
// nothing of it before all that as far as it is possible, and never more than the limit.
func (a *API) authenticate(r *http.Request, limit int64, needs need) (access.Caller, []byte, error) {
	ctx := r.Context()
	values := r.Header["Authorization"]
	if len(values) > 1 {
		// A proxy in front could have looked at the other one.
		return access.Caller{}, nil, copse.Errorf(copse.Unauthenticated, "there are %d Authorization headers; send one", len(values))
	}
	var scheme, rest string
	// One header holds either form. What is neither is told about both, since it may be
	// a forgotten prefix.
	if len(values) == 1 {
		scheme, rest, _ = strings.Cut(values[0], " ")
	}
	// The scheme's name is compared as AWS writes it; the other as RFC 9110 says,
	// without regard to case.
	if scheme == "AWS4-HMAC-SHA256" {
		return a.authenticateSigned(r, limit, needs)
	}
	if !strings.EqualFold(scheme, "Bearer") || rest == "" {
		return access.Caller{}, nil, copse.Errorf(copse.Unauthenticated,
			`no access key: send "Authorization: Bearer copse_<id>_<secret>", or sign the request (AWS Signature Version 4)`)
	}
	caller, err := a.access.Bearer(ctx, rest)
	if err != nil {
		return access.Caller{}, nil, err
	}
	// Before the body: what the key can't do needs none of it.
	if err := a.allow(caller, needs, r); err != nil {
		return access.Caller{}, nil, err
	}
	body, release, err := a.access.ReadBody(r, limit, true)
	release()
	return caller, body, tooLarge(err, limit)
}

// authenticateSigned reads large bodies only of requests whose signature can be verified first: for the
// others it takes no more than an access key's id, which is no secret, to have them read.
func (a *API) authenticateSigned(r *http.Request, limit int64, needs need) (access.Caller, []byte, error) {
	caller, verified, err := a.access.PrecheckSigV4(r.Context(), r)
	if err != nil {
		return access.Caller{}, nil, err
	}
	// The key is proven without the body, so it is refused without it too. To who has not proven it yet
	// nothing is told of what it may do.
	if verified {
		if err := a.allow(caller, needs, r); err != nil {
			return access.Caller{}, nil, err
		}
	}
	// A larger body than this is only taken on a proven signature.
	most := limit
	if !verified {
		most = min(limit, copse.MaxRequestBytes)
	}
	body, release, err := a.access.ReadBody(r, most, verified)
	defer release()
	if most < limit && errors.Is(err, access.ErrBodyTooLarge) {
		return access.Caller{}, nil, copse.Errorf(copse.Unauthenticated,
			"a signed request with a body of more than %d bytes needs the header X-Amz-Content-Sha256: without it the signature can't be verified before the body is read", most)
	}
	if err != nil {
		return access.Caller{}, nil, tooLarge(err, limit)
	}
	// The body counts only now: the signature is over exactly these bytes.
	if caller, err = a.access.SigV4(r.Context(), r, body); err != nil {
		return access.Caller{}, nil, err
	}
	return caller, body, a.allow(caller, needs, r)
}

// allow counts what it refuses as a failed use of the key.
func (a *API) allow(c access.Caller, needs need, r *http.Request) error {
	err := needs.check(c, r)
	a.access.Refused(c, err)
	return err
}

// tooLarge gives the one error that has a status of its own; others pass.
func tooLarge(err error, limit int64) error {
	if errors.Is(err, access.ErrBodyTooLarge) {
		return &refusal{status: http.StatusRequestEntityTooLarge,
			err: copse.Errorf(copse.Invalid, "the body is larger than %d bytes", limit)}
	}
	return err
}

// checkForm refuses what could be read two ways, or would be ignored: a parameter given twice, a
// query that does not parse, a body in another format or where none is taken.
func checkForm(op *huma.Operation, r *http.Request, body []byte) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return copse.Errorf(copse.Invalid, "the query can't be read: %w", err)
	}
	// Which of the two counts would be for each reader to choose.
	for name, values := range query {
		if len(values) > 1 {
			return &copse.Error{Kind: copse.Invalid, Detail: "a query parameter is given twice",
				Fields: []copse.Field{{Path: "query." + name, Message: "is given more than once"}}}
		}
	}
	// A body that nobody reads could be meant for another operation.
	if op.RequestBody == nil {
		if len(body) > 0 {
			return copse.Errorf(copse.Invalid, "this operation takes no body")
		}
		return nil
	}
	given := r.Header["Content-Type"]
	switch {
	case len(r.Header["Content-Encoding"]) > 0:
		return unsupported("send the body without Content-Encoding")
	// No Content-Type is JSON: there is nothing else it could be, and tools for the
	// command line leave it out.
	case len(given) == 0 || slices.Equal(given, []string{contentType}):
		return nil
	}
	media, parameters, err := mime.ParseMediaType(given[0])
	charset := parameters["charset"]
	if len(given) > 1 || err != nil || media != contentType || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return unsupported("the body must be " + contentType)
	}
	return nil
}

// unsupported is 415, which no Kind has.
func unsupported(message string) error {
	return &refusal{status: http.StatusUnsupportedMediaType, err: copse.Errorf(copse.Invalid, "%s", message)}
}
