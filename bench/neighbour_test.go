package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/copsetest"
)

// BenchmarkNoisyNeighbour has one tenant flood the server over HTTP with the most expensive policies and
// requests it may have, while others go on asking. Quiet and flooded spells take turns in one run. The
// others' requests are due at fixed times, and what one takes counts from then, so that a server which
// stands still is not asked less. Server and clients share one process and its cores.
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
	var asked []*askLoad
	for i := range neighbours {
		id := copse.TenantID(fmt.Sprintf("neighbour-%d", i))
		srv.CreateTenant(b, id, copsetest.Contents{Policies: map[string]string{
			"readers": `permit (principal in Role::"reader", action == Action::"view", resource is Doc) when { resource.level <= 3 };`}})
		body := `{"action":{"actionType":"Action","actionId":"view"},"resource":{"entityType":"Doc","entityId":"17"},"context":` + docContext + `,"entities":{"entityList":` + docEntities + `]}}`
		asked = append(asked, newAskLoad(srv, srv.Token(b, id, "alice", copsetest.Groups("reader")), body))
	}
	srv.CreateTenant(b, "noisy", copsetest.Contents{Policies: mostExpensive()})
	token := srv.Token(b, "noisy", "mallory")
	flood := []*askLoad{newAskLoad(srv, token, expensiveRequest(0)), newAskLoad(srv, token, expensiveRequest(900_000))}
	for _, l := range append(slices.Clone(asked), flood...) {
		if status, body := l.once(b); status != http.StatusOK || strings.Contains(body, "ALLOW") != (l != flood[0] && l != flood[1]) {
			b.Fatalf("%d %s", status, body)
		}
	}
	var quiet, loud []time.Duration
	var floods, refused atomic.Int64
	for b.Loop() {
		for range spells {
			quiet = append(quiet, due(b, asked)...)
			stop := make(chan struct{})
			var wg sync.WaitGroup
			for i := range floodConns {
				wg.Go(func() { flood[i%8/7].repeat(b, stop, &floods, &refused) }) // one in eight sends the large one
			}
			time.Sleep(200 * time.Millisecond)
			loud = append(loud, due(b, asked)...)
			close(stop)
			wg.Wait()
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
	seconds := float64(b.N) * spells * spell.Seconds()
	b.ReportMetric(float64(floods.Load())/seconds, "flood-answers/s")
	b.ReportMetric(float64(refused.Load())/seconds, "flood-refusals/s")
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

// askLoad is one request, and the connections that are free to send it.
type askLoad struct {
	address string
	request []byte
	idle    chan *bufio.ReadWriter
}

func newAskLoad(srv *copsetest.Server, token, body string) *askLoad {
	l := &askLoad{address: strings.TrimPrefix(srv.URL, "http://"), idle: make(chan *bufio.ReadWriter, 1000)}
	l.request = fmt.Appendf(nil, "POST /v1/authorize HTTP/1.1\r\nHost: copse\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", token, len(body), body)
	return l
}

// once sends the request, on a connection of its own when none is free.
func (l *askLoad) once(b *testing.B) (status int, body string) {
	var rw *bufio.ReadWriter
	select {
	case rw = <-l.idle:
	default:
		conn, err := net.Dial("tcp", l.address)
		if err != nil {
			b.Error(err)
			return 0, ""
		}
		b.Cleanup(func() { _ = conn.Close() })
		rw = bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	}
	_, err := rw.Write(l.request)
	if err == nil {
		err = rw.Flush()
	}
	if err != nil {
		b.Error(err)
		return 0, ""
	}
	resp, err := http.ReadResponse(rw.Reader, nil)
	if err != nil {
		b.Error(err)
		return 0, ""
	}
	var text bytes.Buffer
	if _, err := io.Copy(&text, resp.Body); err != nil {
		b.Error(err)
	}
	l.idle <- rw
	return resp.StatusCode, text.String()
}

// repeat sends without a pause.
func (l *askLoad) repeat(b *testing.B, stop chan struct{}, answers, refused *atomic.Int64) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		switch status, body := l.once(b); status {
		case http.StatusOK:
			answers.Add(1)
		case http.StatusTooManyRequests:
			refused.Add(1)
		default:
			b.Errorf("the flood is answered %d %s", status, body)
			return
		}
	}
}

// due asks for each tenant in turn at its time for a spell, and returns what each answer took from then.
func due(b *testing.B, loads []*askLoad) []time.Duration {
	n := int(spell / every)
	took := make([]time.Duration, n)
	var wg sync.WaitGroup
	start := time.Now()
	for i := range n {
		at := start.Add(time.Duration(i) * every)
		time.Sleep(time.Until(at))
		wg.Go(func() {
			if status, body := loads[i%len(loads)].once(b); status != http.StatusOK {
				b.Errorf("a neighbour is answered %d %s", status, body)
			}
			took[i] = time.Since(at)
		})
	}
	wg.Wait()
	return took
}
