package authorizer

import (
	"io"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/token"
)

// GatewayQuestion is the body of POST /v1/authorize/request: for gateways that run code of their own.
type GatewayQuestion struct {
	Method string `json:"method"`
	// Target is path and query as the client sent them.
	Target string `json:"target"`
	// Headers that routes take context from, one value each.
	Headers map[string]string `json:"headers,omitzero"`
	// Cached: the gateway may use the answer for other requests of the same token.
	Cached bool `json:"cached,omitzero"`
}

// GatewayAnswer is the 200 to it.
type GatewayAnswer struct {
	Decision      string              `json:"decision"`
	Tenant        copse.TenantID      `json:"tenant"`
	Principal     GatewayEntity       `json:"principal"`
	DecisionID    string              `json:"decisionId"`
	Route         string              `json:"route"`
	PolicyStoreID copse.PolicyStoreID `json:"policyStoreId"`
	Revision      uint64              `json:"revision"`
	Reason        string              `json:"reason"`
	Expires       time.Time           `json:"expires"` // of the token: an answer is good for no longer
	// Headers for the service, by name.
	Headers map[string]string `json:"headers"`
}

// GatewayEntity is an entity's identifier.
type GatewayEntity struct {
	Type string `json:"type"`
	ID   string `json:"id"`
}

// maxGatewayBody is a path, a query and some headers. More than that is no question about a request.
const maxGatewayBody = 64 << 10

// Request is the endpoint. A DENY is a 200; a path that is ambiguous or that no route matches is a 403,
// like everything that is wrong with the tenant. It says in JSON what nginx and Envoy are told by a
// status, for gateways with code of their own.
func (g *Gateway) Request() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		noStore(w)
		in, err := questionOf(w, r)
		if err != nil {
			g.refusal("", start).write(w, r, err, nil)
			return
		}
		in.RequestID = requestID(w)
		passed, tenant, err := g.Decide(r.Context(), in)
		if err != nil {
			g.refusal(tenant, start).write(w, r, err, nil)
			return
		}
		answer := GatewayAnswer{
			Decision: passed.Response.Decision.String(), Tenant: passed.Entry.Tenant,
			Principal:  GatewayEntity{string(passed.Verified.Principal.Type), string(passed.Verified.Principal.ID)},
			DecisionID: passed.DecisionID, Route: passed.Match.Route.Pattern,
			PolicyStoreID: passed.Entry.PolicyStoreID, Revision: passed.Response.Revision,
			Reason: reason(&passed.Response), Expires: passed.Verified.Expires, Headers: map[string]string{},
		}
		// A DENY gives no headers: nothing is passed on to a service then.
		if passed.Response.Decision == copse.Allow {
			for _, h := range passed.Headers() {
				if h[1] != "" {
					answer.Headers[h[0]] = h[1]
				}
			}
		}
		text, err := json.Marshal(answer)
		if err != nil {
			g.refusal(tenant, start).write(w, r, copse.Errorf(copse.Internal, "%w", err), nil)
			return
		}
		w.Header()["Content-Type"] = jsonType
		_, _ = w.Write(append(text, '\n'))
		g.answered(passed, start)
	})
}

// questionOf's only error is about the token: the body is read, but what is wrong with it waits until
// the token has verified, see [Passing].
func questionOf(w http.ResponseWriter, r *http.Request) (*Passing, error) {
	bearer, err := token.Bearer(r.Header)
	if err != nil {
		return nil, err
	}
	in := &Passing{Token: bearer, Asked: Asked{Header: http.Header{}}}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxGatewayBody))
	if err != nil {
		in.Unclear = copse.Errorf(copse.Invalid, "the body can't be read, or is over %d bytes", maxGatewayBody)
		return in, nil
	}
	var q GatewayQuestion
	if err := json.Unmarshal(body, &q, json.RejectUnknownMembers(true)); err != nil {
		in.Unclear = copse.Errorf(copse.Invalid, "the body is not a question such as {\"method\":\"GET\",\"target\":\"/invoices/17\"}: %w", err)
		return in, nil
	}
	in.Method, in.Target, in.Cached = q.Method, q.Target, q.Cached
	for name, value := range q.Headers {
		in.Header.Add(name, value) // two spellings of one name are two values, which no route takes
	}
	return in, nil
}
