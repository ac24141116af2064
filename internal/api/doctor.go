package api

import (
	"context"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
)

func registerDoctor(a *API, h huma.API) {
	register(a, h, route{method: http.MethodGet, path: "/v1/doctor", id: "diagnose", tag: tagSupport, status: http.StatusOK, needs: adminOfServers,
		summary:     "Look the server over",
		description: "What is wrong or soon will be, and what to do, as `copse doctor` shows it. Nothing is changed."}, (*API).diagnose)
	register(a, h, route{method: http.MethodGet, path: "/v1/debug/bundle", id: "makeDebugBundle", tag: tagSupport, status: http.StatusOK, needs: adminOfServers,
		summary: "Collect what helps to find a fault",
		description: "An archive (tar, gzip): what the doctor finds, settings, metrics, profiles of goroutines and memory, use, sizes, facts about the machine. " +
			"No secrets, no policies and nobody's names are in it, unless names of tenants and plans are asked for."}, (*API).makeDebugBundle)
	h.OpenAPI().Paths["/v1/debug/bundle"].Get.Responses["200"] = &huma.Response{Description: "The archive.",
		Content: map[string]*huma.MediaType{bundleType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}}
}

// bundleType is what the archive is: a gzip of a tar.
const bundleType = "application/gzip"

// What a finding calls for.
const (
	SeverityOK      = "ok"
	SeverityNote    = "note"
	SeverityWarning = "warning"
	SeverityError   = "error"
)

// Finding is what a look at one thing came to.
type Finding struct {
	Severity string `json:"severity" enum:"ok,note,warning,error" doc:"error: it does not work, or is not safe. warning: it will not, or is weaker than it should be."`
	Check    string `json:"check" doc:"What was looked at."`
	What     string `json:"what"`
	Do       string `json:"do,omitempty" doc:"What to do about it."`
}

// Diagnosis is what a look at a server, or at its data directory, came to.
type Diagnosis struct {
	Version  string    `json:"version,omitempty" doc:"Of the server's copse."`
	Findings []Finding `json:"findings" nullable:"false"`
}

// Count is the number of findings of a severity.
func (d *Diagnosis) Count(severity string) (n int) {
	for _, f := range d.Findings {
		if f.Severity == severity {
			n++
		}
	}
	return n
}

// diagnose looks and changes nothing, so it may be asked while the server is in trouble.
func (a *API) diagnose(ctx context.Context, c access.Caller, _ *struct{}) (*struct{ Body Diagnosis }, error) {
	// need has asked already; there is no service behind it that would.
	if !c.MayEverywhere(access.Admin) {
		return nil, &copse.Error{Kind: copse.Denied, Detail: adminOfServers.admin}
	}
	if a.support.Diagnose == nil {
		return nil, errNoSupport()
	}
	found, err := a.support.Diagnose(ctx)
	if err != nil {
		return nil, err
	}
	return &struct{ Body Diagnosis }{found}, nil
}

// errNoSupport is for a program that has the API without a server around it.
func errNoSupport() error {
	return copse.Errorf(copse.InvalidState, "this program does not look at itself")
}

// BundleQuery is exported for the same reason as [Paging].
type BundleQuery struct {
	Names bool `query:"names" doc:"With the names of tenants and plans."`
}

// makeDebugBundle collects in memory: the archive's size is known before its first byte goes out.
func (a *API) makeDebugBundle(ctx context.Context, c access.Caller, in *BundleQuery) (*huma.StreamResponse, error) {
	if !c.MayEverywhere(access.Admin) {
		return nil, &copse.Error{Kind: copse.Denied, Detail: adminOfServers.admin}
	}
	if a.support.DebugBundle == nil {
		return nil, errNoSupport()
	}
	archive, err := a.support.DebugBundle(ctx, in.Names)
	if err != nil {
		return nil, err
	}
	// From here on nothing can fail but the connection.
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		hc.SetHeader("Content-Type", bundleType)
		hc.SetHeader("Content-Length", strconv.Itoa(len(archive)))
		hc.SetStatus(http.StatusOK)
		_, _ = hc.BodyWriter().Write(archive) // a client that went away misses it
	}}, nil
}
