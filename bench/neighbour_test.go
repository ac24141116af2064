package bench

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/copsetest"
)

// BenchmarkNoisyNeighbour has one tenant flood the server over HTTP with the most expensive policies and
// requests it may have, while others go on asking. Quiet and flooded spells take turns in one run. The
// others' requests are due at fixed times, and what one takes counts from then, so that a server which
// stands still is not asked less. Server, flood and neighbours are a process each, on the same cores.
func BenchmarkNoisyNeighbour(b *testing.B) {
	for _, plan := range []string{"default", "unmetered"} {
		b.Run(plan, func(b *testing.B) { noisyNeighbour(b, plan) })
	}
}

const (
	neighbours = 10
	spells     = 5
	spell      = 2 * time.Second
	every      = 5 * time.Millisecond // a request of some neighbour is due
	floodConns = 32
)

func noisyNeighbour(b *testing.B, plan string) {
	srv := copsetest.Start(b, copsetest.Plan(plan))
	var asked, flood []clientLoad
	for i := range neighbours {
		id := copse.TenantID(fmt.Sprintf("neighbour-%d", i))
		srv.CreateTenant(b, id, copsetest.Contents{Policies: map[string]string{
			"readers": `permit (principal in Role::"reader", action == Action::"view", resource is Doc) when { resource.level <= 3 };`}})
		body := `{"action":{"actionType":"Action","actionId":"view"},"resource":{"entityType":"Doc","entityId":"17"},"context":` + docContext + `,"entities":{"entityList":` + docEntities + `]}}`
		asked = append(asked, clientLoad{srv.URL, srv.Token(b, id, "alice", copsetest.Groups("reader")), body, "ALLOW"})
	}
	srv.CreateTenant(b, "noisy", copsetest.Contents{Policies: mostExpensive()})
	token := srv.Token(b, "noisy", "mallory")
	for i := range 8 { // one in eight sends the large one
		flood = append(flood, clientLoad{srv.URL, token, expensiveRequest(i / 7 * 900_000), "DENY"})
	}
	others := startClient(b, "neighbours", asked)
	var quiet, loud []time.Duration
	var sum floodReport
	for b.Loop() {
		for range spells {
			quiet = append(quiet, ask[[]time.Duration](b, others)...)
			noise := startClient(b, "flood", flood)
			ask[string](b, noise) // it has begun
			loud = append(loud, ask[[]time.Duration](b, others)...)
			r := ask[floodReport](b, noise)
			sum.Answers, sum.Refusals, sum.Took = sum.Answers+r.Answers, sum.Refusals+r.Refusals, sum.Took+r.Took
		}
	}
	slices.Sort(quiet)
	slices.Sort(loud)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	p := func(all []time.Duration, percent int) time.Duration { return all[len(all)*percent/100] }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(p(quiet, 50)), "quiet-p50-ms")
	b.ReportMetric(ms(p(loud, 50)), "flooded-p50-ms")
	b.ReportMetric(ms(p(quiet, 99)), "quiet-p99-ms")
	b.ReportMetric(ms(p(loud, 99)), "flooded-p99-ms")
	b.ReportMetric(float64(p(loud, 99))/float64(p(quiet, 99)), "p99-ratio")
	b.ReportMetric(float64(sum.Answers)/sum.Took.Seconds(), "flood-answers/s")
	b.ReportMetric(float64(sum.Refusals)/sum.Took.Seconds(), "flood-refusals/s")
}

// mostExpensive are as many policies of the greatest size as may name no resource, each comparing sets of
// the request again and again, to the end of a decision's budget.
func mostExpensive() map[string]string {
	const term = ` && context.a.containsAll(context.b)`
	out := map[string]string{}
	for i := range copse.MaxPolicyBytesPerScope / copse.MaxPolicyBytes {
		head := fmt.Sprintf(`permit (principal, action, resource) when { %d > 0`, i)
		out[fmt.Sprintf("p%02d", i)] = head + strings.Repeat(term, (copse.MaxPolicyBytes-len(head)-3)/len(term)) + ` };`
	}
	return out
}

// expensiveRequest has two sets of many elements, and padding that must be read.
func expensiveRequest(padding int) string {
	var set []string
	for i := range 1000 {
		set = append(set, fmt.Sprintf(`{"long":%d}`, i))
	}
	all := `{"set":[` + strings.Join(set, ",") + `]}`
	var pad []string
	for n := 0; n < padding; n += 16 {
		pad = append(pad, `{"long":1234567}`)
	}
	return `{"action":{"actionType":"Action","actionId":"view"},"resource":{"entityType":"Doc","entityId":"1"},"context":{"contextMap":{"a":` + all + `,"b":` + all +
		`,"pad":{"set":[` + strings.Join(pad, ",") + `]}}}}`
}
