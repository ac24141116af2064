// Package authorizer answers "may this token's holder do this?" for gateways and services: it is the
// policy enforcement point's endpoint, POST /v1/authorize.
//
// The user's token is the credential. It names the tenant and the principal, and nothing else does:
// the body has no place for either, a header or query parameter that names another tenant makes the
// call fail, and the engine refuses entities in the body that would redefine the principal or its
// groups. Which policy store decides follows from the tenant through the directory.
//
// Whatever is wrong with the tenant (unknown, suspended, not the issuer's to speak for, named twice)
// has one answer, byte for byte, so that nobody can find out which tenants exist.
//
// A DENY is a 200: the question was answered. Which policies decided is for callers that prove, with
// an access key in X-Copse-Key, that they may see it; an end user is not told what rules there are. A
// key that does not cover the tenant's policy store with "decide" gets the answer of a wrong tenant,
// not a smaller answer: a gateway that loses its details should hear of it, and a key must not be a
// way to ask whether two tenants' policy stores are one. With the key a caller may also ask, by the body's
// member explain, why: what each part of the policies came to. Without it that is refused.
//
// The handler is on the hot path: the body is cut by a scanner and the answer appended by hand, in
// pooled buffers.
package authorizer

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/decisionlog"
	"github.com/copse-authz/copse/internal/token"
)

// The headers a caller may add.
const (
	HeaderKey    = "X-Copse-Key"    // an access key, to be told which policies decided
	HeaderTenant = "X-Copse-Tenant" // the tenant the caller believes in; must be the token's
)

// Config is what an authorizer is made of. All but Refused, Record, Log and Metrics are required.
type Config struct {
	// Verify checks a user's token: token.Verifier's method.
	Verify func(ctx context.Context, token string) (*token.Verified, error)
	// VerifyBy checks it once more by the identity source of the tenant's policy store, when that has
	// one: token.Verifier's method.
	VerifyBy       func(ctx context.Context, p token.Presented) (*token.Verified, error)
	IdentitySource func(ctx context.Context, id copse.PolicyStoreID, incarnation copse.Incarnation) (*copse.IdentitySource, error)
	Directory      copse.Directory
	Decider        copse.Decider
	// Explain decides as Decider does, with reasons: policystore.Service's method.
	Explain func(ctx context.Context, req *copse.Request) (copse.Explanation, error)
	// Key verifies what X-Copse-Key holds: access.Service's Bearer.
	Key func(ctx context.Context, credential string) (access.Caller, error)
	// Refused is told of a key that does not cover what it was shown for: access.Service's Refused. Nil: nobody is.
	Refused func(c access.Caller, err error)
	// Record keeps decisions before they are answered; an error refuses them. Nil: none are kept.
	Record func(ctx context.Context, decided []decisionlog.Entry) error
	// Log gets a line per refusal or failure. Nil: none.
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// New makes the handler of POST /v1/authorize. It takes the request id from the X-Request-Id header of
// the response, where the server puts it. A metric whose name the registry has already is a panic: two
// authorizers in one process are a mistake of who wires them.
func New(cfg Config) http.Handler {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Record == nil {
		cfg.Record = recordNothing
	}
	return &handler{
		cfg: cfg, metrics: newMetrics(cfg.Metrics, "authorize", "Requests to /v1/authorize"),
		placing: token.Placing{Directory: cfg.Directory, IdentitySource: cfg.IdentitySource, VerifyBy: cfg.VerifyBy},
	}
}

// handler serves all requests at once: nothing of it changes after [New] but counters and pool.
type handler struct {
	cfg     Config
	metrics *metrics
	placing token.Placing
	pool    sync.Pool // of *exchange
}

// exchange is one request being answered. Its buffers are used again. A request has it alone from take
// to give, and nothing that outlives the answer may point into it.
type exchange struct {
	body   []byte
	out    []byte
	q      question
	req    copse.Request
	tenant copse.TenantID // verified; empty until then
	entry  copse.DirectoryEntry
	detail bool // the caller may see which policies decided

	explanation *copse.Explanation // asked for and allowed
	record      [1]decisionlog.Entry
}

// Buffers that one large request grew are not kept.
const keptBuffer = 64 << 10

// take gives an exchange without anything of a former request: give has seen to that.
func (h *handler) take() *exchange {
	if x, ok := h.pool.Get().(*exchange); ok {
		return x
	}
	return &exchange{}
}

// give clears everything but the two buffers: what was verified for one request must
// not be there for another.
func (h *handler) give(x *exchange) {
	if cap(x.body) > keptBuffer || cap(x.out) > keptBuffer {
		return
	}
	*x = exchange{body: x.body[:0], out: x.out[:0]}
	h.pool.Put(x)
}

// ServeHTTP answers one request. The decision is recorded before it is given; what
// can't be recorded is refused.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	x := h.take()
	defer h.give(x)
	resp, err := h.answer(x, r)
	// The entry is part of the exchange, so it costs no allocation.
	if err == nil {
		describe(&x.record[0], requestID(w), "authorize", &x.entry, &x.req, &resp, start)
		err = h.cfg.Record(r.Context(), x.record[:])
	}
	if err != nil {
		f := refusal{log: h.cfg.Log, metrics: h.metrics, what: "authorize refused", tenant: x.tenant, start: start}
		x.out = f.write(w, r, err, x.out)
		return
	}
	x.out = appendAnswer(x.out[:0], x, &resp)
	header := w.Header()
	header["Content-Type"] = jsonType
	header["Content-Length"] = []string{strconv.Itoa(len(x.out))}
	// A client that went away is its own problem: the decision stands, and is logged and counted.
	_, _ = w.Write(x.out)
	h.metrics.decided(resp.Decision, time.Since(start))
}

// The slices are shared by all answers, and never changed.
var jsonType = []string{"application/json"}

// requestID is what the server in front has put on the answer; empty without one.
func requestID(w http.ResponseWriter) string { return w.Header().Get("X-Request-Id") }

// answer goes through the checks in the order of what they cost a stranger: nothing of the body is
// read before the token verified and its tenant was found active.
func (h *handler) answer(x *exchange, r *http.Request) (copse.Response, error) {
	ctx := r.Context()
	// The token first: without it nothing else of the request is looked at.
	bearer, err := token.Bearer(r.Header)
	if err != nil {
		return copse.Response{}, err
	}
	verified, err := h.cfg.Verify(ctx, bearer)
	if err != nil {
		return copse.Response{}, err
	}
	// From here on the log may name the tenant: it is proven.
	x.tenant = verified.Tenant
	if err := sameTenant(r, verified.Tenant); err != nil {
		return copse.Response{}, err
	}
	// The directory says where to decide, and the policy store's identity source who the principal is.
	verified, x.entry, err = h.placing.Place(ctx, bearer, verified)
	if err != nil {
		return copse.Response{}, err
	}
	// A key decides what is shown and never what is decided.
	if err := h.checkKey(x, r); err != nil {
		return copse.Response{}, err
	}
	if err := readBody(x, r); err != nil {
		return copse.Response{}, err
	}
	if err := parseBody(x.body, &x.q); err != nil {
		return copse.Response{}, err
	}
	// What the server knows goes into members that a caller can't fill: the engine holds the two apart.
	// The incarnation keeps a successor of the policy store from deciding for this tenant.
	x.req = copse.Request{
		PolicyStoreID: x.entry.PolicyStoreID,
		Incarnation:   x.entry.Incarnation,
		Principal:     verified.Principal,
		Action:        x.q.action, Resource: x.q.resource,
		Context: x.q.context, Entities: x.q.entities,
		ServerContext: verified.Context, ServerEntities: verified.Entities,
		ReservedTypes: verified.ReservedTypes,
	}
	if !x.q.explain {
		return h.cfg.Decider.Decide(ctx, &x.req)
	}
	if !x.detail {
		return copse.Response{}, invalid("explain", "needs an access key in the header %s that may decide on this policy store: an explanation shows policies", HeaderKey)
	}
	explanation, err := h.cfg.Explain(ctx, &x.req)
	if err != nil {
		return copse.Response{}, err
	}
	x.explanation = &explanation
	return explanation.Response, nil
}

// sameTenant holds every other place that names a tenant against the token's.
func sameTenant(r *http.Request, tenant copse.TenantID) error {
	for _, named := range r.Header[HeaderTenant] {
		if named != string(tenant) {
			return copse.Errorf(copse.Denied, "the token is for tenant %q, the header %s names another", tenant, HeaderTenant)
		}
	}
	if r.URL.RawQuery == "" {
		return nil
	}
	// A query that can't be read could name a tenant.
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return copse.Errorf(copse.Invalid, "the query can't be read: %w", err)
	}
	for _, named := range query["tenant"] {
		if named != string(tenant) {
			return copse.Errorf(copse.Denied, "the token is for tenant %q, the query names another", tenant)
		}
	}
	return nil
}

// checkKey lets no key pass that covers less than this tenant's policy store: the answer is that of a
// wrong tenant, see the package's comment. No key at all is fine, and gives no details.
func (h *handler) checkKey(x *exchange, r *http.Request) error {
	values := r.Header[HeaderKey]
	switch {
	case len(values) == 0:
		return nil
	// Which of the two counts would be for each reader to choose.
	case len(values) > 1:
		return copse.Errorf(copse.Invalid, "there are %d %s headers; send one", len(values), HeaderKey)
	}
	caller, err := h.cfg.Key(r.Context(), values[0])
	if err != nil {
		return err
	}
	if !caller.May(access.Decide, x.entry.PolicyStoreID, x.entry.Tenant) {
		err := copse.Errorf(copse.Denied, "access key %s does not cover tenant %q with decide", caller.KeyID, x.entry.Tenant)
		if h.cfg.Refused != nil {
			h.cfg.Refused(caller, err)
		}
		return err
	}
	x.detail = true
	return nil
}

// errTooLarge is Invalid with a status of its own.
var errTooLarge = &copse.Error{Kind: copse.Invalid,
	Detail: "the body is over " + strconv.Itoa(copse.MaxRequestBytes) + " bytes"}

// readBody reads into the exchange's own room, which the next request uses again: most bodies fit, and then nothing is
// allocated. What a client announces is not believed further than the limit.
func readBody(x *exchange, r *http.Request) error {
	if r.ContentLength > copse.MaxRequestBytes {
		return errTooLarge
	}
	x.body = x.body[:0]
	// A body without a length grows as it comes.
	if n := int(r.ContentLength); n >= cap(x.body) {
		x.body = make([]byte, 0, n+1) // one more, so that the end is seen without growing
	}
	for {
		// Full without an end: append makes room as it does for everybody.
		if len(x.body) == cap(x.body) {
			x.body = append(x.body, 0)[:len(x.body)]
		}
		n, err := r.Body.Read(x.body[len(x.body):cap(x.body)])
		x.body = x.body[:len(x.body)+n]
		switch {
		case len(x.body) > copse.MaxRequestBytes:
			return errTooLarge
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return copse.Errorf(copse.Invalid, "the body could not be read: %w", err)
		}
	}
}
