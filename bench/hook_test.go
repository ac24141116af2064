package bench

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse/copsetest"
)

// BenchmarkTokenHook asks the token hook over HTTP, for a member it has in memory: what an identity provider
// waits for before it signs. One connection, as a sign-in is one question.
func BenchmarkTokenHook(b *testing.B) {
	srv := copsetest.Start(b)
	srv.CreateTenant(b, "acme", copsetest.Contents{})
	client := &http.Client{}
	b.Cleanup(client.CloseIdleConnections)
	send := func(method, path string, in any) {
		b.Helper()
		body, err := json.Marshal(in)
		if err != nil {
			b.Fatal(err)
		}
		req, err := http.NewRequest(method, srv.URL+path, bytes.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+srv.RootCredential)
		resp, err := client.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode >= 300 {
			b.Fatalf("%s %s: %s %s %v", method, path, resp.Status, text, err)
		}
	}
	const issuer = "https://idp.example.com"
	send(http.MethodPost, "/v1/issuers", map[string]any{"url": issuer, "tenants": []string{"acme"}, "tokenType": "access", "audiences": []string{"api"},
		"tenantClaim": "tenant_id", "principalType": "User", "groupType": "Role", "groupClaim": "roles", "sameSubjects": true})
	var members []map[string]any
	for i := range 500 {
		members = append(members, map[string]any{"issuer": issuer, "subject": fmt.Sprintf("user-%d", i), "roles": []string{"clerk", "approver"}, "attributes": map[string]string{"region": "eu"}})
	}
	send(http.MethodPut, "/v1/tenants/acme/members", map[string]any{"members": members})
	ask := func() {
		send(http.MethodPost, "/v1/hooks/token", map[string]any{"issuer": issuer, "subject": "user-250", "clientId": "web", "claims": []string{"sub", "custom:tenant_id"}})
	}
	ask()
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		ask()
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
