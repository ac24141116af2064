package api

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/auditlog"
	"github.com/copse-authz/copse/internal/member"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/tenant"
)

// undressed is an API over services that are never called.
func undressed(t *testing.T) *API {
	t.Helper()
	a, err := New(Config{Tenants: new(tenant.Service), PolicyStores: new(policystore.Service), Access: new(access.Service), Members: new(member.Service), Audit: auditlog.New(auditlog.Config{}), Version: "v1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

type document struct {
	OpenAPI string `json:"openapi"`
	Info    struct {
		Version string `json:"version"`
	} `json:"info"`
	Paths map[string]map[string]struct {
		OperationID string                `json:"operationId"`
		Summary     string                `json:"summary"`
		Security    []map[string][]string `json:"security"`
		Responses   map[string]any        `json:"responses"`
	} `json:"paths"`
}

func TestDocumentDescribesEveryRouteAndNoOther(t *testing.T) {
	a := undressed(t)
	var doc document
	if err := json.Unmarshal(a.Document(), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" || doc.Info.Version != "v1.2.3" {
		t.Errorf("the document says OpenAPI %q, version %q", doc.OpenAPI, doc.Info.Version)
	}
	routes := map[string]bool{"POST /v1/authorize": true, "POST /v1/authorize/request": true} // served elsewhere, described here
	for _, r := range a.Routes() {
		if !r.Open {
			routes[r.Method+" "+r.Path] = true
		}
	}
	if len(routes) != 48 {
		t.Errorf("%d routes, want 48", len(routes))
	}
	described := 0
	for path, methods := range doc.Paths {
		for method, op := range methods {
			described++
			name := strings.ToUpper(method) + " " + path
			if !routes[name] {
				t.Errorf("%s is described and not served", name)
			}
			if len(op.Security) == 0 || op.OperationID == "" || op.Summary == "" {
				t.Errorf("%s lacks a security requirement, an id or a summary: %+v", name, op)
			}
			for _, status := range []string{"400", "401", "403", "413", "500", "503"} {
				if op.Responses[status] == nil {
					t.Errorf("%s does not describe its %s", name, status)
				}
			}
		}
	}
	if described != len(routes) {
		t.Errorf("%d operations are described, %d are served", described, len(routes))
	}
}

// Every reference in the document must lead somewhere, also after huma's own error schemas are out.
func TestDocumentReferencesResolve(t *testing.T) {
	a := undressed(t)
	text := string(a.Document())
	var doc struct {
		Components struct {
			Schemas map[string]any `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	references := strings.Split(text, `"$ref":"`+schemaPrefix)[1:]
	if len(references) < 100 {
		t.Errorf("only %d references", len(references))
	}
	for _, after := range references {
		name, _, _ := strings.Cut(after, `"`)
		if doc.Components.Schemas[name] == nil {
			t.Errorf("there is no schema %q", name)
		}
	}
	for _, huma := range []string{"ErrorModel", "ErrorDetail", "problem+json"} {
		if strings.Contains(text, huma) {
			t.Errorf("the document speaks of %s", huma)
		}
	}
}

func TestConforms(t *testing.T) {
	a := undressed(t)
	for _, test := range []struct {
		name, schema, text string
		ok                 bool
	}{
		{"cedar words", "AuthorizeRequest", `{"action":{"id":"view"},"resource":{"type":"Invoice","id":"1"}}`, true},
		{"avp words", "AuthorizeRequest", `{"action":{"actionType":"Action","actionId":"view"},"resource":{"entityType":"Invoice","entityId":"1"},"context":{"contextMap":{"mfa":{"boolean":true}}},"entities":{"entityList":[]}}`, true},
		{"cedar data as a string", "AuthorizeRequest", `{"action":{"id":"view"},"resource":{"type":"I","id":"1"},"context":{"cedarJson":"{}"},"entities":{"cedarJson":"[]"}}`, true},
		{"cedar data", "AuthorizeRequest", `{"action":{"id":"view"},"resource":{"type":"I","id":"1"},"context":{"cedarJson":{"a":1}},"entities":{"cedarJson":[]}}`, true},
		{"no resource", "AuthorizeRequest", `{"action":{"id":"view"}}`, false},
		{"a principal", "AuthorizeRequest", `{"action":{"id":"view"},"resource":{"type":"I","id":"1"},"principal":{}}`, false},
		{"other capitals", "AuthorizeRequest", `{"Action":{"id":"view"},"resource":{"type":"I","id":"1"}}`, false},
		{"given twice", "AuthorizeRequest", `{"action":{"id":"view"},"action":{"id":"view"},"resource":{"type":"I","id":"1"}}`, false},
		{"answer", "AuthorizeResponse", `{"decision":"DENY","tenant":"t","policyStoreId":"p","revision":3,"reason":"no policy applied"}`, true},
		{"full answer", "AuthorizeResponse", `{"decision":"ALLOW","tenant":"t","policyStoreId":"p","revision":3,"reason":"permitted by policy","determiningPolicies":[{"policyId":"x","policyName":"n"}],"errors":[{"policyId":"y","errorDescription":"e"}],"considered":2}`, true},
		{"no such decision", "AuthorizeResponse", `{"decision":"MAYBE","tenant":"t","policyStoreId":"p","revision":3,"reason":"no policy applied"}`, false},
		{"error", "ErrorBody", `{"error":{"kind":"Denied","message":"no","requestId":"r"}}`, true},
		{"error of no kind", "ErrorBody", `{"error":{"kind":"Nope","message":"no","requestId":"r"}}`, false},
		{"no such schema", "Nothing", `{}`, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := a.Conforms(test.schema, []byte(test.text)); (err == nil) != test.ok {
				t.Errorf("Conforms: %v", err)
			}
		})
	}
}
