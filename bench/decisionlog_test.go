package bench

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/copse-authz/copse/copsetest"
	"github.com/copse-authz/copse/internal/dev"
)

// The same requests to servers that differ in how they log, in turns: what the decision log costs
// over HTTP.
func BenchmarkHTTPDecisionLog(b *testing.B) {
	type side struct {
		name, settings string
		load           *load
		time           time.Duration
		processor      time.Duration // of the whole process, the client's part included
		share          int           // of the requests: what waits for the disk takes long
	}
	sides := []*side{
		{name: "off", share: 1},
		{name: "drop", share: 1},
		{name: "rules", share: 1, settings: `{"decisionLog":{"keep":["context.from","resource.level"],"hash":["resource.owner"],"hashIds":["principal"]}}`},
		{name: "wait", share: 4, settings: `{"decisionLog":{"full":"wait"}}`},
	}
	for _, s := range sides {
		srv, acme := documents(b, func(c *dev.Config) { c.Server.DecisionLog = s.name != "off" })
		if s.settings != "" {
			patch(b, srv, "/v1/policy-stores/"+string(acme.PolicyStoreID), s.settings)
		}
		header, body := aliceAsks(b, srv)
		s.load = newLoad(b, strings.TrimPrefix(srv.URL, "http://"), "/v1/authorize", header, body)
		s.load.ask(b)
	}
	const lots = 30
	perLot := max(b.N/lots, 8)
	run := func(s *side) {
		before := processorTime()
		s.time += s.load.run(b, perLot/s.share)
		time.Sleep(60 * time.Millisecond) // the writer's part, and that of nobody else
		s.processor += processorTime() - before
	}
	for _, s := range sides {
		s.load.run(b, perLot/s.share)
	}
	b.ResetTimer()
	// Each comes after each of the others: on a busy machine whoever follows one that slept gets more of it.
	quick := sides[:3]
	for i := range lots {
		for j := range quick {
			run(quick[(i+j)%len(quick)])
		}
	}
	for range lots {
		run(sides[3])
	}
	b.StopTimer()
	b.ReportMetric(0, "ns/op") // of all together: means nothing
	for _, s := range sides {
		n := float64(perLot / s.share * lots)
		b.ReportMetric(float64(s.time.Nanoseconds())/n, s.name+"-ns/op")
		b.ReportMetric(float64(s.processor.Nanoseconds())/n, s.name+"-cpu-ns/op")
	}
}

func patch(b *testing.B, srv *copsetest.Server, path, body string) {
	b.Helper()
	req, err := http.NewRequest(http.MethodPatch, srv.URL+path, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+srv.RootCredential)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		b.Fatalf("%s: %s", path, resp.Status)
	}
}
