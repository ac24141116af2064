package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/copsetest"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/server"
	"github.com/copse-authz/copse/internal/tenant"
)

// Onboarding is durable: a tenant counts when its policy store, schema and policies are on disk. AVP
// creates one policy store a second, empty.

const onboardClients = 32

const onboardSchema = `entity Role; entity User in [Role]; entity Doc { owner: User, level: Long }; action view, edit appliesTo { principal: User, resource: Doc };`

var onboardPolicies = []policystore.PolicyText{
	{Name: "owners", Statement: `permit (principal, action, resource is Doc) when { resource.owner == principal };`},
	{Name: "readers", Statement: `permit (principal in Role::"reader", action == Action::"view", resource is Doc) when { resource.level <= 3 };`},
	{Name: "guests", Statement: `forbid (principal in Role::"guest", action == Action::"edit", resource);`},
}

// BenchmarkOnboardInProcess creates tenants through the service, on SQLite.
func BenchmarkOnboardInProcess(b *testing.B) {
	cfg := server.DefaultConfig()
	cfg.DataDir = b.TempDir()
	s, err := server.Open(context.Background(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	onboard(b, func(id copse.TenantID) error {
		_, err := s.Tenants.Create(context.Background(), access.System(), tenant.NewTenant{
			ID: id, Schema: &policystore.SchemaText{Cedar: onboardSchema}, Policies: onboardPolicies,
		})
		return err
	})
}

// BenchmarkOnboardHTTP creates the same through the control API.
func BenchmarkOnboardHTTP(b *testing.B) {
	srv := copsetest.Start(b)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: onboardClients}}
	b.Cleanup(client.CloseIdleConnections)
	type policy struct {
		Name      string `json:"name"`
		Statement string `json:"statement"`
	}
	var policies []policy
	for _, p := range onboardPolicies {
		policies = append(policies, policy{p.Name, p.Statement})
	}
	onboard(b, func(id copse.TenantID) error {
		body, err := json.Marshal(map[string]any{"tenant": string(id), "schema": map[string]string{"cedar": onboardSchema}, "policies": policies})
		if err != nil {
			return err
		}
		req, err := http.NewRequest(http.MethodPost, srv.URL+"/v1/tenants", bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+srv.RootCredential)
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusCreated {
			err = fmt.Errorf("%s: %s", resp.Status, text)
		}
		return err
	})
}

func onboard(b *testing.B, create func(copse.TenantID) error) {
	b.Helper()
	took := make([]time.Duration, b.N)
	next := make(chan int, b.N)
	for i := range b.N {
		next <- i
	}
	close(next)
	b.ResetTimer()
	start := time.Now()
	var wg sync.WaitGroup
	for range onboardClients {
		wg.Go(func() {
			for i := range next {
				begin := time.Now()
				if err := create(copse.TenantID(fmt.Sprintf("tenant-%08d", i))); err != nil {
					b.Error(err)
					return
				}
				took[i] = time.Since(begin)
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/elapsed.Seconds(), "tenants/s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}
