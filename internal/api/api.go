package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/auditlog"
	"github.com/copse-authz/copse/internal/decisionlog"
	"github.com/copse-authz/copse/internal/member"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/tenant"
)

// Config is what an API is made of. All but Backup, Decisions, Support, Version and Log are required.
type Config struct {
	Tenants      *tenant.Service
	PolicyStores *policystore.Service
	Access       *access.Service
	Members      *member.Service
	// Backup begins a backup and tells its size. Nil: there is nothing on a disk to back up.
	Backup    func(ctx context.Context) (io.ReadCloser, int64, error)
	Audit     *auditlog.Log
	Decisions *decisionlog.Log // nil: there is none
	Support   Support
	Version   string       // of copse, for the document
	Log       *slog.Logger // nil: nothing is logged
}

// Support is what a server tells about itself, to those who may administer everything. Support's
// functions may be nil, for a program that does not look at itself; the operations then say so. Both
// are called for keys with admin everywhere only.
type Support struct {
	Diagnose    func(ctx context.Context) (Diagnosis, error)
	DebugBundle func(ctx context.Context, withNames bool) (archive []byte, err error)
}

// API serves the control API: everything under /v1/ that has no handler of its own, and GET
// /openapi.json. It holds no state of its own but what is fixed by [New], so any number of requests may
// be in it at once.
type API struct {
	tenants      *tenant.Service
	policyStores *policystore.Service
	access       *access.Service
	members      *member.Service
	audit        *auditlog.Log
	decisions    *decisionlog.Log
	log          *slog.Logger
	backup       func(ctx context.Context) (io.ReadCloser, int64, error)
	support      Support

	mux      *http.ServeMux
	routes   []Route
	schemas  huma.Registry
	document []byte
}

// Route is one row of the API's table. A test asks each of them without a credential.
type Route struct {
	Method string
	Path   string // as in the document: /v1/tenants/{tenant}
	Open   bool   // needs no credential
}

// New makes the API. New fails for a missing service, and never for what a request could bring about.
func New(cfg Config) (*API, error) {
	if cfg.Tenants == nil || cfg.PolicyStores == nil || cfg.Access == nil || cfg.Members == nil || cfg.Audit == nil {
		return nil, errors.New("api: Tenants, PolicyStores, Access, Members and Audit are required")
	}
	a := &API{
		tenants: cfg.Tenants, policyStores: cfg.PolicyStores, access: cfg.Access, members: cfg.Members, audit: cfg.Audit, decisions: cfg.Decisions, log: cfg.Log, backup: cfg.Backup, support: cfg.Support,
		mux: http.NewServeMux(),
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	h := huma.NewAPI(a.humaConfig(cfg.Version), &adapter{a})
	a.schemas = h.OpenAPI().Components.Schemas
	// Registering an operation is what puts it into the document.
	registerTenants(a, h)
	registerIssuers(a, h)
	registerDirectory(a, h)
	registerPolicyStores(a, h)
	registerPlans(a, h)
	registerUsage(a, h)
	registerKeys(a, h)
	registerMembers(a, h)
	registerBackup(a, h)
	registerDecisions(a, h)
	registerDoctor(a, h)
	registerAudit(a, h)
	// These are served by the authorizer, but who looks for them looks in this document.
	describeAuthorize(h.OpenAPI())
	describeGatewayRequest(h.OpenAPI())
	var err error
	// From here on the document is bytes: what is served can't change with what is going on.
	if a.document, err = finish(h.OpenAPI()); err != nil {
		return nil, err
	}
	a.routes = append(a.routes, Route{Method: http.MethodGet, Path: "/openapi.json", Open: true})
	a.mux.HandleFunc("GET /openapi.json", a.serveDocument)
	// The mux' own answers to what it does not know would be plain text, and tell
	// strangers what there is.
	a.mux.HandleFunc("/", a.nowhere)
	return a, nil
}

// Routes lists every route, for the test that walks them.
func (a *API) Routes() []Route { return slices.Clone(a.routes) }

// Document is the OpenAPI document. The slice is the caller's.
func (a *API) Document() []byte { return slices.Clone(a.document) }

// ServeHTTP takes requests under /v1/ and for the document; others get the answer of a
// path where nothing is.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

// serveDocument asks for no credential: it is the same for everyone and names no tenant.
func (a *API) serveDocument(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/vnd.oai.openapi+json;version=3.1")
	_, _ = w.Write(a.document)
}

// nowhere answers what no route does, to callers that showed a credential: strangers learn nothing
// about what there is.
func (a *API) nowhere(w http.ResponseWriter, r *http.Request) {
	id := requestID(w)
	if _, _, err := a.authenticate(r, copse.MaxRequestBytes, need{}); err != nil {
		a.refuse(w, r, id, err)
		return
	}
	// Which methods a path takes is asked of the mux itself, so it can't disagree with what it does.
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		probe := r.Clone(r.Context())
		probe.Method = method
		if _, pattern := a.mux.Handler(probe); pattern != "/" {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) > 0 {
		w.Header()["Allow"] = allowed
		a.refuse(w, r, id, &refusal{status: http.StatusMethodNotAllowed,
			err: copse.Errorf(copse.Invalid, "this path does not take %s", r.Method)})
		return
	}
	a.refuse(w, r, id, copse.Errorf(copse.NotFound, "there is nothing at this path; /openapi.json lists what there is"))
}

// route describes an operation: the document's words and the server's limits.
type route struct {
	method, path string
	id           string // operationId
	summary      string
	description  string
	tag          string
	status       int // of a success
	needs        need
	limit        int64 // of the body; 0: copse.MaxRequestBytes
	errors       []int // besides those every operation has
}

// register adds an operation. Its function gets the caller as a parameter: huma offers no way for one
// but the context, which ends here. Its error goes out as a [refusal], whatever it was, and counts as a
// failed use of the key if it is one. do's context ends with the request.
func register[I, O any](a *API, h huma.API, rt route, do func(*API, context.Context, access.Caller, *I) (*O, error)) {
	if rt.limit == 0 {
		rt.limit = copse.MaxRequestBytes
	}
	op := huma.Operation{
		Method: rt.method, Path: rt.path, OperationID: rt.id,
		Summary: rt.summary, Description: rt.description, Tags: []string{rt.tag},
		DefaultStatus: rt.status,
		// The adapter has refused what is over the limit; huma would already refuse what equals it.
		MaxBodyBytes:                 rt.limit + 1,
		RejectUnknownQueryParameters: true,
		Responses:                    errorResponses(a.schemas, append(slices.Clone(everyError), rt.errors...)),
		Security:                     keySecurity(),
		Metadata:                     map[string]any{needsKey: rt.needs},
	}
	a.routes = append(a.routes, Route{Method: rt.method, Path: rt.path})
	huma.Register(h, op, func(ctx context.Context, in *I) (*O, error) {
		caller := callerFrom(ctx)
		out, err := do(a, ctx, caller, in)
		if err != nil {
			a.access.Refused(caller, err)
			return nil, asRefusal(err)
		}
		return out, nil
	})
}
