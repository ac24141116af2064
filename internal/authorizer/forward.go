package authorizer

import (
	"net/http"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/token"
)

// OriginalHeaders name the request that a proxy asks about. A proxy sets one pair and passes the
// client's headers along, so which pair is read is for the operator to say, by the endpoint's path:
// reading whichever is there would take a client's word. Method and Target are names of headers, in
// Go's canonical form unless they are pseudo-headers.
type OriginalHeaders struct{ Method, Target string }

// The pairs in use: nginx's configuration sets the first, Caddy and Traefik the second by themselves.
var (
	nginxHeaders     = OriginalHeaders{"X-Original-Method", "X-Original-Uri"}
	forwardedHeaders = OriginalHeaders{"X-Forwarded-Method", "X-Forwarded-Uri"}
)

// Nginx is the endpoint of auth_request. It is to be reached by the gateway only; see [Gateway] for
// what a stranger could do with it.
func (g *Gateway) Nginx() http.Handler { return g.forwardAuth(nginxHeaders) }

// Forwarded is the endpoint of forward authentication as Caddy and Traefik have it.
func (g *Gateway) Forwarded() http.Handler { return g.forwardAuth(forwardedHeaders) }

// forwardAuth answers 200 with headers for the service, or 401, 403 or 503. It reads no body: proxies
// don't send one along.
func (g *Gateway) forwardAuth(names OriginalHeaders) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		// Errors too are for one request of one user.
		noStore(w)
		in, err := passing(r.Header, names)
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
		header := w.Header()
		if passed.Response.Decision != copse.Allow {
			header["Content-Type"] = jsonType
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write(refused) // as for everything else that is not let through
		} else {
			// All four are set, empty ones included: a proxy that copies them replaces
			// what the client sent.
			for _, h := range passed.Headers() {
				header.Set(h[0], h[1])
			}
			w.WriteHeader(http.StatusOK)
		}
		g.answered(passed, start)
	})
}

// passing reads the request under way out of the headers that came with the question. Its only error is
// about the token; a gateway that asks in a way that can't be read is for [Gateway.Decide] to refuse,
// once the token has verified, so that a stranger learns nothing of how it is set up.
func passing(header http.Header, names OriginalHeaders) (*Passing, error) {
	bearer, err := token.Bearer(header)
	if err != nil {
		return nil, err
	}
	in := &Passing{Token: bearer, Asked: Asked{Header: header}}
	for _, part := range []struct {
		name string
		into *string
	}{{names.Method, &in.Method}, {names.Target, &in.Target}} {
		values := header[part.name]
		if len(values) != 1 {
			in.Unclear = copse.Errorf(copse.Denied, "there are %d headers %s; the gateway must set one, in place of the client's", len(values), part.name)
			break
		}
		*part.into = values[0]
	}
	return in, nil
}
