//go:build !race

package engine

import (
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/copse-authz/copse"
)

// A decision takes memory for its answer and nothing else: one list for the determining policies, one
// for the errors and a text for each.
func TestOnlyTheAnswerIsAllocated(t *testing.T) {
	schema := mustSchema(t, shopSchema)
	allow := []string{
		`permit(principal, action in Action::"all", resource is Doc) when { principal.age > 2 && context.mfa && principal.home.city like "x*" };`,
		`permit(principal == User::"z", action, resource);`,
		`forbid(principal, action, resource) when { principal.age * 2 + 1 < 3 || [principal.age, 4].contains(5) };`,
		`forbid(principal, action, resource) when { principal.hasTag("t") && principal.getTag("t") == "w" };`,
	}
	for what, test := range map[string]struct {
		policies []string
		want     float64
	}{
		"allowed by one": {allow, 1},
		"denied by none": {allow[1:], 0},
	} {
		for _, check := range []bool{false, true} {
			s := compileText(t, schema, copse.Settings{CheckRequests: check}, test.policies...)
			req := readRequest()
			if got, err := s.Decide(req); err != nil || len(got.Errors) > 0 || len(got.Determining) != int(test.want) {
				t.Fatalf("%s: %+v %v", what, got, err)
			}
			// The pool may be emptied by the collector at any time, so the least of several runs counts.
			least := 1e9
			for range 10 {
				least = min(least, testing.AllocsPerRun(20, func() { _, _ = s.Decide(req) }))
			}
			if least != test.want {
				t.Errorf("%s, checked %t: %v allocations, want %v", what, check, least, test.want)
			}
		}
	}
}

// Large requests one after the other use the same room: what they would leave to the collector otherwise is
// ten times their size, and everybody waits for it.
func TestLargeRequestsUseRoomAgain(t *testing.T) {
	s := compileText(t, nil, copse.Settings{}, `permit(principal, action, resource);`)
	req := viewRequest()
	req.Context = cedarJSON(`{"a": ` + longs(60_000) + `}`)
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the collector may take the room at any time
	var before, after runtime.MemStats
	const warm, runs = 2, 5
	for i := range warm + runs {
		if i == warm {
			runtime.ReadMemStats(&before)
		}
		if _, err := s.Decide(req); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if got, most := (after.TotalAlloc-before.TotalAlloc)/runs, uint64(len(req.Context.Bytes))/10; got > most {
		t.Errorf("%d bytes for each request of %d", got, len(req.Context.Bytes))
	}
}

// What a large request leaves behind costs small ones nothing: of what is emptied as a whole, little is kept.
func TestSmallRequestsAfterALargeOne(t *testing.T) {
	s := compileText(t, nil, copse.Settings{}, `permit(principal, action, resource);`)
	req := viewRequest()
	c := newCall(s, req)
	c.parents, c.way = make([]*entity, 0, 100_000), make([]place, 0, 100_000)
	c.places, c.names.places = make([]uint32, 1<<17), make([]uint32, 1<<17)
	c.release()
	if n := max(cap(c.parents), cap(c.way), cap(c.places), cap(c.names.places)); n > 1024 {
		t.Errorf("%d elements are emptied after every request", n)
	}
}
