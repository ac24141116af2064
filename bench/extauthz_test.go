package bench

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/dev"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/server"
	"github.com/copse-authz/copse/internal/tenant"
)

// echoed answers every check with the same response: what a gRPC server costs that does nothing.
type echoed struct {
	authv3.UnimplementedAuthorizationServer
	answer *authv3.CheckResponse
}

func (e echoed) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return e.answer, nil
}

// BenchmarkExtAuthz is copse's answer to Envoy against a bare server of the same library with the same
// answer, without a signed context and with one. The two take turns in lots of eight callers.
func BenchmarkExtAuthz(b *testing.B) {
	for name, service := range map[string]string{"no-context": "", "context": "    service: invoices\n"} {
		b.Run(name, func(b *testing.B) { extAuthz(b, service) })
	}
}

func extAuthz(b *testing.B, service string) {
	routes := filepath.Join(b.TempDir(), "routes.yaml")
	if err := os.WriteFile(routes, []byte("routes:\n  - route: GET /invoices/{id}\n    action: reach\n    resource: Service::\"{id}\"\n"+service), 0o600); err != nil {
		b.Fatal(err)
	}
	cfg := dev.Config{NoSamples: true, Server: server.DefaultConfig()}
	cfg.Server.Listen, cfg.Server.OpsListen, cfg.Server.ExtAuthzListen = "127.0.0.1:0", "", "127.0.0.1:0"
	cfg.Server.DefaultPlan, cfg.Server.RoutesFile, cfg.Server.PublicURL = policystore.PlanUnmetered, routes, "https://copse.test"
	d, err := dev.Start(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = d.Close() })
	onboardForEnvoy(b, d)
	token, err := dev.Mint(b.Context(), http.DefaultClient, d.URL(), dev.TokenRequest{Issuer: dev.Shared, Tenant: "acme", User: "alice"})
	if err != nil {
		b.Fatal(err)
	}
	pairs := []*corev3.HeaderValue{}
	for _, h := range [][2]string{{":path", "/invoices/17"}, {":method", "GET"}, {"authorization", "Bearer " + token}, {"user-agent", "a client"}} {
		pairs = append(pairs, &corev3.HeaderValue{Key: h[0], RawValue: []byte(h[1])})
	}
	question := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
		Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Path: "/invoices/17", HeaderMap: &corev3.HeaderMap{Headers: pairs}},
	}}}
	copse := dialEnvoy(b, d.Server.ExtAuthzAddr().String())
	answer, err := copse.Check(b.Context(), question)
	if err != nil || answer.GetOkResponse() == nil {
		b.Fatalf("copse answers %v, %v", answer, err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	bareServer := grpc.NewServer()
	authv3.RegisterAuthorizationServer(bareServer, echoed{answer: answer})
	go func() { _ = bareServer.Serve(ln) }()
	b.Cleanup(bareServer.Stop)
	bare := dialEnvoy(b, ln.Addr().String())

	const lot, callers = 400, 8
	took := map[bool]time.Duration{}
	b.ResetTimer()
	for range b.N {
		for _, isCopse := range []bool{false, true} {
			client := map[bool]authv3.AuthorizationClient{true: copse, false: bare}[isCopse]
			start := time.Now()
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for range lot / callers {
						if got, err := client.Check(b.Context(), question); err != nil || got.GetOkResponse() == nil {
							b.Errorf("%v, %v", got, err)
							return
						}
					}
				})
			}
			wg.Wait()
			took[isCopse] += time.Since(start)
		}
	}
	n := float64(b.N * lot)
	b.ReportMetric(0, "ns/op") // of both together: means nothing
	b.ReportMetric(n/took[true].Seconds(), "copse-req/s")
	b.ReportMetric(n/took[false].Seconds(), "bare-req/s")
	b.ReportMetric(float64(took[false])/float64(took[true]), "of-bare")
}

func dialEnvoy(b *testing.B, address string) authv3.AuthorizationClient {
	b.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	return authv3.NewAuthorizationClient(conn)
}

func onboardForEnvoy(b *testing.B, d *dev.Dev) {
	b.Helper()
	var in tenant.NewTenant
	in.ID, in.Policies = "acme", []policystore.PolicyText{{Name: "reach", Statement: `permit (principal == User::"alice", action == Action::"reach", resource);`}}
	if _, err := d.Server.Tenants.Create(b.Context(), access.System(), in); err != nil {
		b.Fatal(err)
	}
}
