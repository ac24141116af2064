package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
)

func registerDoctor(a *API, h huma.API) {
	register(a, h, route{method: http.MethodGet, path: "/v1/doctor", id: "diagnose", tag: tagSupport, status: http.StatusOK, needs: adminOfServers,
		summary:     "Look the server over",
		description: "What is wrong or soon will be, and what to do, as `copse doctor` shows it. Nothing is changed."}, (*API).diagnose)
}

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

func (a *API) diagnose(ctx context.Context, c access.Caller, _ *struct{}) (*struct{ Body Diagnosis }, error) {
	if !c.MayEverywhere(access.Admin) {
		return nil, &copse.Error{Kind: copse.Denied, Detail: adminOfServers.admin}
	}
	if a.support.Diagnose == nil {
		return nil, copse.Errorf(copse.InvalidState, "this program does not look at itself")
	}
	return &struct{ Body Diagnosis }{a.support.Diagnose(ctx)}, nil
}
