package server

import (
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/authorizer"
	"github.com/copse-authz/copse/internal/avp"
)

// Routes is the route table of the API's listener, known after Listen. What is not in it is not served.
func (s *Server) Routes() []Route { return slices.Clone(s.routes) }

// route builds the table. It waits for Listen because extra routes want to know the address.
func (s *Server) route() error {
	settings := api.Config{Tenants: s.Tenants, PolicyStores: s.PolicyStores, Access: s.Access, Members: s.Members, Audit: s.audit(), Decisions: s.decisions, Version: s.cfg.Version, Log: s.log,
		Support: api.Support{Diagnose: s.diagnose, DebugBundle: s.debugBundle}}
	// A server in memory has nothing to back up, and its route says so.
	if s.sqlite != nil {
		settings.Backup = s.backup
	}
	control, err := api.New(settings)
	if err != nil {
		return err
	}
	amazon, err := avp.New(avp.Config{
		PolicyStores: s.PolicyStores, Access: s.Access, VerifyBy: s.tracer.verifyBy(s.Verifier.VerifyBy),
		AccountID: s.cfg.AccountID, Region: s.cfg.Region, Record: s.record, Log: s.log, Metrics: s.registry,
	})
	if err != nil {
		return err
	}
	// One configuration for the authorizer, the gateways and the routes of members: they verify and decide alike.
	authorize := s.tracer.around(authorizer.Config{
		Verify: s.Verifier.Verify, VerifyBy: s.Verifier.VerifyBy, IdentitySource: s.PolicyStores.IdentitySource,
		Directory: s.Tenants, Decider: s.PolicyStores.Decider(), Explain: s.PolicyStores.Explain,
		Key: s.Access.Bearer, Refused: s.Access.Refused, Record: s.record, Log: s.log, Metrics: s.registry,
	})
	gateways, err := s.gatewayRoutes(authorize)
	if err != nil {
		return err
	}
	s.routes = []Route{
		{Pattern: "POST /v1/authorize", Handler: authorizer.New(authorize)},
		{Pattern: "POST /{$}", Handler: amazon},
		// What none of the control API's own routes takes is for it to refuse.
		{Pattern: "/v1/", Handler: control},
	}
	s.routes = append(s.routes, gateways...)
	list, choose := authorizer.NewMe(authorize, s.Members)
	s.routes = append(s.routes, Route{Pattern: "GET /v1/me/tenant", Handler: list}, Route{Pattern: "PUT /v1/me/tenant", Handler: choose})
	// Each by its own pattern, so that metrics, traces and the table name it, all to one handler.
	for _, r := range control.Routes() {
		s.routes = append(s.routes, Route{Pattern: r.Method + " " + r.Path, Open: r.Open, Handler: control})
	}
	if s.cfg.ExtraRoutes != nil {
		s.routes = append(s.routes, s.cfg.ExtraRoutes(s.URL())...)
	}
	s.handler = newMiddleware(newRouter(s.routes), s.log, s.registry, s.tracer, s.cfg.MaxHeaders, &s.draining)
	return nil
}

// router finds the handler of a request. Fixed paths, which are the hot ones, are one map lookup; the
// rest is net/http's. A path that is not in its shortest form is nowhere: redirecting it, or cleaning
// it in silence, would let a proxy in front and this server disagree about what was asked.
type router struct {
	fixed map[methodPath]Route
	mux   *http.ServeMux
}

type methodPath struct{ method, path string }

// newRouter takes fixed paths of POST, the method of decisions, into the map. Every pattern is in the mux as well,
// which panics when two of them clash: that is a defect of the table.
func newRouter(routes []Route) *router {
	rt := &router{fixed: map[methodPath]Route{}, mux: http.NewServeMux()}
	for _, r := range routes {
		rt.mux.Handle(r.Pattern, r.Handler)
		method, pattern, ok := strings.Cut(r.Pattern, " ")
		pattern = strings.TrimSuffix(pattern, "{$}")
		if ok && method == http.MethodPost && !strings.Contains(pattern, "{") {
			rt.fixed[methodPath{method, pattern}] = r
		}
	}
	return rt
}

// ServeHTTP finds the few paths that are asked most without net/http's matching. A path that is not in its shortest form is
// not found: net/http would redirect, and a gateway in front may have judged the other spelling.
func (rt *router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if fixed, ok := rt.fixed[methodPath{r.Method, r.URL.Path}]; ok {
		r.Pattern = fixed.Pattern // as net/http sets it
		fixed.Handler.ServeHTTP(w, r)
		return
	}
	if !cleanPath(r.URL.Path) {
		writeError(w, http.StatusNotFound, copse.NotFound, "there is nothing at this path")
		return
	}
	handler, pattern := rt.mux.Handler(r)
	if pattern != "" {
		rt.mux.ServeHTTP(w, r)
		return
	}
	// net/http knows whether another method would do; its text is left out.
	probe := headerOnly{header: http.Header{}}
	handler.ServeHTTP(&probe, r)
	if probe.status == http.StatusMethodNotAllowed {
		w.Header()["Allow"] = probe.header["Allow"]
		writeError(w, http.StatusMethodNotAllowed, copse.Invalid, "this path does not take this method")
		return
	}
	writeError(w, http.StatusNotFound, copse.NotFound, "there is nothing at this path")
}

// cleanPath admits one slash at the end, for patterns that have one.
func cleanPath(p string) bool {
	return p == "/" || path.Clean(p) == strings.TrimSuffix(p, "/")
}

// headerOnly takes a status and headers, and drops the body.
// It stands in for the client where only net/http's opinion is wanted.
type headerOnly struct {
	header http.Header
	status int
}

func (h *headerOnly) Header() http.Header         { return h.header }
func (h *headerOnly) Write(p []byte) (int, error) { return len(p), nil }
func (h *headerOnly) WriteHeader(status int)      { h.status = status }
