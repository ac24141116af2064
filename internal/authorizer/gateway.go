package authorizer

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/decisionlog"
	"github.com/copse-authz/copse/internal/token"
)

// GatewayConfig is what a Gateway is made of. Its Config's Key, Explain and Refused are not used here:
// a gateway is told no details.
type GatewayConfig struct {
	Config
	// Routes is the route table of now; nil when there is none, and then nothing passes.
	Routes func() *RouteTable
	// Sign signs a tenant context. Nil: none are sent.
	Sign func(*token.Context) (string, error)
	// RequestID is the id of a request that does not come over HTTP, given those that it claims.
	RequestID func(claimed []string) string
}

// Gateway answers gateways: may this request pass? It is one core behind several shapes, which only say
// where the method, the path and the token of the request under way are found.
//
// The token decides who asks, the route table what is asked. A gateway's word is taken for method and path
// alone, so an endpoint in the hands of a stranger tells him what he may do with his own token, and no more.
type Gateway struct {
	cfg     GatewayConfig
	metrics *metrics
	placing token.Placing
}

// NewGateway makes a Gateway. As [New], it panics when the registry has its metrics already.
func NewGateway(cfg GatewayConfig) *Gateway {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Record == nil {
		cfg.Record = recordNothing
	}
	return &Gateway{
		cfg: cfg, metrics: newMetrics(cfg.Metrics, "gateway", "Requests of gateways"),
		placing: token.Placing{Directory: cfg.Directory, IdentitySource: cfg.IdentitySource, VerifyBy: cfg.VerifyBy},
	}
}

// Passing is a request that stands at a gateway. Nothing of it is believed but method and target; who
// asks is in the token.
type Passing struct {
	Asked
	Token     string
	RequestID string // for the decision log
	// Unclear is what was wrong with how the gateway asked: for whoever has a good token to hear.
	Unclear error
	// Cached says that the gateway may use the answer again for another request. No context is then signed:
	// it would be that of the first one.
	Cached bool
}

// Passed is the answer to it. It is only there for a decision, ALLOW or DENY, that is recorded.
type Passed struct {
	Response   copse.Response
	Entry      copse.DirectoryEntry
	Verified   *token.Verified
	Match      *Matched
	DecisionID string
	Context    string // signed; empty on a DENY, and where the route names no service
}

// Decide asks what a request at a gateway asks, and records what was decided. Denied: no route, an ambiguous request, or law 4's cases;
// tenant is then that of the verified token, if there is one, for the log.
func (g *Gateway) Decide(ctx context.Context, in *Passing) (out *Passed, tenant copse.TenantID, err error) {
	start := time.Now()
	// The order is the authorizer's: nothing is said about routes to who has no good token.
	verified, err := g.cfg.Verify(ctx, in.Token)
	if err != nil {
		return nil, "", err
	}
	tenant = verified.Tenant
	// A client that names another tenant than its token means something else than what
	// would be decided.
	for _, named := range in.Header[HeaderTenant] {
		if named != string(tenant) {
			return nil, tenant, copse.Errorf(copse.Denied, "the token is for tenant %q, the header %s names another", tenant, HeaderTenant)
		}
	}
	out = &Passed{DecisionID: copse.NewID()}
	if out.Verified, out.Entry, err = g.placing.Place(ctx, in.Token, verified); err != nil {
		return nil, tenant, err
	}
	// Only now, for the same reason.
	if in.Unclear != nil {
		return nil, tenant, in.Unclear
	}
	routes := g.cfg.Routes()
	if routes == nil {
		return nil, tenant, copse.Errorf(copse.Denied, "there is no route table: set --routes-file")
	}
	if out.Match, err = routes.Match(&in.Asked); err != nil {
		return nil, tenant, err
	}
	// Action and resource are the route's, with what the path gave; a gateway's request
	// has no entities.
	req := copse.Request{
		PolicyStoreID: out.Entry.PolicyStoreID, Incarnation: out.Entry.Incarnation,
		Principal: out.Verified.Principal, Action: out.Match.Route.Action, Resource: out.Match.Resource,
		Context:       out.Match.Context,
		ServerContext: out.Verified.Context, ServerEntities: out.Verified.Entities, ReservedTypes: out.Verified.ReservedTypes,
	}
	if out.Response, err = g.cfg.Decider.Decide(ctx, &req); err != nil {
		return nil, tenant, err
	}
	var record [1]decisionlog.Entry
	describe(&record[0], in.RequestID, "gateway", &out.Entry, &req, &out.Response, start)
	if err := g.cfg.Record(ctx, record[:]); err != nil {
		return nil, tenant, err
	}
	if out.Response.Decision == copse.Allow && g.cfg.Sign != nil && out.Match.Route.Service != "" && !in.Cached {
		out.Context, err = g.cfg.Sign(&token.Context{
			Bound:    token.Bound{Token: in.Token, Verified: out.Verified, Method: in.Method, Path: out.Match.Path},
			Audience: out.Match.Route.Service, DecisionID: out.DecisionID,
		})
		if err != nil {
			return nil, tenant, err
		}
	}
	return out, tenant, nil
}

// The headers that a gateway passes on to the service. All are set with every ALLOW, empty where there is
// nothing to say, so that a gateway which copies them leaves none of the client's.
const (
	HeaderPrincipal = "X-Copse-Principal"
	HeaderDecision  = "X-Copse-Decision"
	HeaderContext   = "X-Copse-Context"
)

// Headers gives names and values of what the service is told. They are valid as headers' values. A
// DENY has them as well: callers send them with an ALLOW only.
func (p *Passed) Headers() [4][2]string {
	return [4][2]string{
		{HeaderTenant, headerText(string(p.Entry.Tenant))},
		{HeaderPrincipal, headerText(p.Verified.Principal.String())},
		{HeaderDecision, p.DecisionID},
		{HeaderContext, p.Context},
	}
}

// headerText escapes what a header can't carry as a URL would, and the percent sign. What is escaped
// can be undone by unescaping as in a URL, so that two names are never one.
func headerText(s string) string {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			return strings.ReplaceAll(url.PathEscape(s), "%22", `"`)
		}
	}
	return s
}

// answered counts a decision.
func (g *Gateway) answered(p *Passed, start time.Time) {
	g.metrics.decided(p.Response.Decision, time.Since(start))
}

// refusal is for one request; tenant is that of a verified token, or empty.
func (g *Gateway) refusal(tenant copse.TenantID, start time.Time) *refusal {
	return &refusal{log: g.cfg.Log, metrics: g.metrics, what: "gateway refused", tenant: tenant, start: start}
}

// noStore keeps an answer, which is for one request of one user, out of every cache.
func noStore(w http.ResponseWriter) { w.Header().Set("Cache-Control", "no-store") }
