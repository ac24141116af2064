package bench

import (
	"fmt"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/engine"
)

func compile(b testing.TB, schema *engine.Schema, settings copse.Settings, texts map[string]string) *engine.Snapshot {
	b.Helper()
	s, err := engine.Compile(schema, settings, sources(b, texts))
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func sources(b testing.TB, texts map[string]string) []engine.Source {
	b.Helper()
	out := make([]engine.Source, 0, len(texts))
	for id, text := range texts {
		p, err := engine.ParsePolicy(id, []byte(text))
		if err != nil {
			b.Fatal(err)
		}
		out = append(out, engine.Source{Ref: copse.PolicyRef{ID: copse.PolicyID(id)}, Policy: p})
	}
	return out
}

// same fails unless all answer every request alike, and the workload is what it should be.
func same(b testing.TB, s *engine.Snapshot, theirs *baseline) {
	b.Helper()
	for i, req := range requests() {
		got, err := s.Decide(&req)
		if err != nil {
			b.Fatal(err)
		}
		d, err := decode(&req)
		if err != nil {
			b.Fatal(err)
		}
		for _, want := range []answer{theirs.indexed(d), theirs.scan(d)} {
			if diff := cmp.Diff(want, answerOf(got)); diff != "" {
				b.Fatal(diff)
			}
		}
		if i == 0 && (got.Decision != copse.Allow || len(got.Determining) < 2) {
			b.Fatalf("the request should match some policies: %+v", got)
		}
	}
}

func TestBothEnginesAgree(t *testing.T) {
	for _, n := range []int{10, 1_000} {
		texts := workload(n)
		same(t, compile(t, nil, copse.Settings{}, texts), newBaseline(t, texts))
	}
}

// writeAnswer writes an answer as AVP does; both sides use it.
func writeAnswer(to []byte, allow bool, determining int, id func(int) string, failures int) []byte {
	to = append(to, `{"decision":"DENY","determiningPolicies":[`...)
	if allow {
		to = append(to[:0], `{"decision":"ALLOW","determiningPolicies":[`...)
	}
	for i := range determining {
		if i > 0 {
			to = append(to, ',')
		}
		to = append(append(append(to, `{"policyId":"`...), id(i)...), `"}`...)
	}
	return strconv.AppendInt(append(to, `],"errors":`...), int64(failures), 10)
}

// BenchmarkBytesToBytes is one decision: the bytes of entities and context in, the bytes of the answer out.
// times-faster compares it with the baseline: the same decoder's output, index and answer, cedar-go's
// values and evaluator. Request checking is off on both sides; checked-ns/op is copse with it on.
func BenchmarkBytesToBytes(b *testing.B) {
	var smallest time.Duration
	for _, n := range []int{10, 1_000, 100_000} {
		b.Run(fmt.Sprintf("policies=%d", n), func(b *testing.B) {
			texts := workload(n)
			s, theirs := compile(b, nil, copse.Settings{}, texts), newBaseline(b, texts)
			same(b, s, theirs)
			schema, err := engine.ParseSchema("schema", []byte(workloadSchema), engine.SyntaxCedar)
			if err != nil {
				b.Fatal(err)
			}
			checked := compile(b, schema, copse.Settings{CheckRequests: true}, texts)
			req := requests()[0]
			if got, err := checked.Decide(&req); err != nil || got.Decision != copse.Allow {
				b.Fatal(got, err)
			}
			var buf []byte
			decide := func(s *engine.Snapshot) {
				got, _ := s.Decide(&req)
				buf = writeAnswer(buf[:0], got.Decision == copse.Allow, len(got.Determining), func(i int) string { return string(got.Determining[i].ID) }, len(got.Errors))
			}
			b.ReportAllocs()
			for b.Loop() {
				decide(s)
			}
			cost := turns(
				func() { decide(s) },
				func() {
					got, _ := theirs.decide(&req)
					buf = writeAnswer(buf[:0], got.Decision == copse.Allow, len(got.Determining), func(i int) string { return got.Determining[i] }, len(got.Errors))
				},
				func() { decide(checked) })
			if n == 10 {
				smallest = cost[0]
			}
			b.ReportMetric(0, "ns/op") // see copse-ns/op: in processor time, in turns with the others
			b.ReportMetric(float64(cost[0]), "copse-ns/op")
			b.ReportMetric(float64(cost[1]), "baseline-ns/op")
			b.ReportMetric(float64(cost[2]), "checked-ns/op")
			b.ReportMetric(float64(cost[1])/float64(cost[0]), "times-faster")
			if smallest > 0 {
				b.ReportMetric(float64(cost[0])/float64(smallest), "of-own-at-10")
			}
		})
	}
}

// BenchmarkAgainstScan holds a decision against cedar-go's own way, which looks at every policy. cedar-go's
// request is decoded beforehand; copse decodes its own each time.
func BenchmarkAgainstScan(b *testing.B) {
	for _, n := range []int{10, 1_000, 100_000} {
		b.Run(fmt.Sprintf("policies=%d", n), func(b *testing.B) {
			texts := workload(n)
			s, theirs := compile(b, nil, copse.Settings{}, texts), newBaseline(b, texts)
			same(b, s, theirs)
			req := requests()[0]
			d, err := decode(&req)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				_, _ = s.Decide(&req)
			}
			cost := turns(func() { _, _ = s.Decide(&req) }, func() { theirs.scan(d) })
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(cost[0]), "copse-ns/op")
			b.ReportMetric(float64(cost[1]), "scan-ns/op")
			b.ReportMetric(float64(cost[1])/float64(cost[0]), "times-faster")
		})
	}
}

// turns measures the processor time of one call of each function. They take turns in small lots, so that
// whatever else the machine does hits all of them; each pays for its own garbage and not for another's.
func turns(functions ...func()) []time.Duration {
	const lots = 20
	calls := make([]int, len(functions))
	for i, f := range functions {
		f()
		start := processorTime()
		for calls[i] = 0; processorTime()-start < 20*time.Millisecond; calls[i]++ {
			f()
		}
	}
	out := make([]time.Duration, len(functions))
	for range lots {
		for i, f := range functions {
			runtime.GC()
			start := processorTime()
			for range calls[i] {
				f()
			}
			out[i] += processorTime() - start
		}
	}
	for i := range out {
		out[i] /= time.Duration(lots * calls[i])
	}
	return out
}

// processorTime is what the process has used of its processors, the garbage collector included.
func processorTime() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkCold is what the first decision of a cold policy store costs: ten policies from text to a
// decision, without a schema and with one of six actions.
func BenchmarkCold(b *testing.B) {
	texts := workload(10)
	req := requests()[0]
	for name, withSchema := range map[string]bool{"schema=none": false, "schema=6-actions": true} {
		b.Run(name, func(b *testing.B) {
			cold := func() {
				var schema *engine.Schema
				if withSchema {
					var err error
					if schema, err = engine.ParseSchema("schema", []byte(workloadSchema), engine.SyntaxCedar); err != nil {
						b.Fatal(err)
					}
				}
				s := compile(b, schema, copse.Settings{CheckRequests: withSchema}, texts)
				if got, err := s.Decide(&req); err != nil || got.Decision != copse.Allow {
					b.Fatal(got, err)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				cold()
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(turns(cold)[0])/1000, "cpu-us/op")
		})
	}
}

// BenchmarkMemory is what a policy holds in a snapshot: by the heap, once all that it was made of is gone, and
// by what the snapshot says of itself.
func BenchmarkMemory(b *testing.B) {
	const n = 20_000
	kind := func(text func(i int) string) func() []engine.Source {
		return func() []engine.Source {
			texts := make(map[string]string, n)
			for i := range n {
				texts[fmt.Sprintf("policy%06d", i)] = text(i)
			}
			return sources(b, texts)
		}
	}
	for name, list := range map[string]func() []engine.Source{
		"mixed":     func() []engine.Source { return sources(b, workload(n)) },
		"point":     kind(workloadPoint),
		"condition": kind(func(i int) string { return workloadCondition(fmt.Sprint("other", i)) }),
		"links":     func() []engine.Source { return shares(b, n) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				before := live()
				s, err := engine.Compile(nil, copse.Settings{}, list())
				if err != nil {
					b.Fatal(err)
				}
				held := live() - before
				b.ReportMetric(float64(held)/n, "heap-B/policy")
				b.ReportMetric(float64(s.Weight())/n, "weight-B/policy")
				if name == "links" {
					// Its own id, and what it links: a person and a folder, of which the types are shared.
					const ids = unsafe.Sizeof(copse.PolicyRef{}) + 16 + 2*(unsafe.Sizeof(types.EntityUID{})+8)
					b.ReportMetric(float64(held)/n-float64(ids), "beside-ids-B/link")
				}
				runtime.KeepAlive(s)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkRecompile is a change of one policy among many: the next snapshot, with all others taken from the
// last one.
func BenchmarkRecompile(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprintf("policies=%d", n), func(b *testing.B) {
			list := sources(b, workload(n))
			for i := range list {
				list[i].Version = 1
			}
			s, err := engine.Compile(nil, copse.Settings{}, list)
			if err != nil {
				b.Fatal(err)
			}
			for i := range list {
				list[i].Policy = nil
			}
			version := uint64(1)
			change := func() {
				version++
				p, err := engine.ParsePolicy("changed", []byte(workloadPoint(int(version))))
				if err == nil {
					list[n/2].Policy, list[n/2].Version = p, version
					s, err = s.Recompile(nil, copse.Settings{}, list)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				change()
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(turns(change)[0])/1e6, "cpu-ms/op")
		})
	}
}

func live() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
