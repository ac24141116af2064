package engine

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
)

// Room is used again by the next request, of whatever tenant. Nothing of the former one is in it, however large
// that was, and every answer is that of a call that was never used.
func TestRoomsHoldNothingOfFormerRequests(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 14))
	snapshots := []*Snapshot{
		compileText(t, nil, copse.Settings{}, `permit(principal in Group::"g1", action, resource) when { context.a.containsAll(context.b) };`,
			`forbid(principal, action, resource) when { principal has attr7 && principal.attr7 == "v7" };`),
		compileText(t, nil, copse.Settings{}, `permit(principal, action, resource) when { resource in Group::"g2" || principal.hasTag("t1") };`,
			`forbid(principal, action, resource) when { context has a && context.a.contains(3) };`),
	}
	var allowed, denied, large int
	const rounds = 600
	for n := range rounds {
		size := 1 + random.IntN(5)
		if n%5 == 0 {
			size = 200 + random.IntN(3000)
			large++
		}
		req := roomRequest(random, size)
		s := snapshots[random.IntN(len(snapshots))]
		got, err := s.Decide(req)
		fresh := calls.New().(*call)
		fresh.snapshot, fresh.symbols, fresh.request, fresh.restAt = s, s.symbols, req, stepsBetweenRests
		freshErr := fresh.answer()
		var want copse.Response
		if freshErr == nil {
			want = fresh.response()
		}
		if diff := cmp.Diff(want, got); diff != "" || fmt.Sprint(err) != fmt.Sprint(freshErr) {
			t.Fatalf("request %d, of size %d: %v and %v\n%s", n, size, err, freshErr, diff)
		}
		if got.Decision == copse.Allow {
			allowed++
		} else {
			denied++
		}
		if n%20 == 0 { // just after a large one
			wantEmpty(t, n)
		}
	}
	if allowed < rounds/20 || denied < rounds/20 || large < rounds/10 {
		t.Errorf("%d allowed, %d denied, %d large: too little happened", allowed, denied, large)
	}
}

// wantEmpty looks into a call that waits for its next request.
func wantEmpty(t *testing.T, n int) {
	t.Helper()
	c := calls.Get().(*call)
	defer calls.Put(c)
	rooms := reflect.ValueOf(c).Elem()
	for i := range rooms.NumField() {
		name, field := rooms.Type().Field(i).Name, rooms.Field(i)
		if name == "bools" {
			continue // two constants
		}
		if chunk := field; field.Kind() == reflect.Struct {
			if chunk = field.FieldByName("chunk"); chunk.IsValid() {
				field = chunk
			}
		}
		if field.Kind() != reflect.Slice {
			continue
		}
		for j := range field.Cap() { // beyond its end as well
			if !field.Slice(0, field.Cap()).Index(j).IsZero() {
				t.Fatalf("after request %d, %s[%d] of %d is of a former request", n, name, j, field.Cap())
			}
		}
	}
}

// roomRequest names so many entities, attributes, tags and elements, of which only some are known to policies.
func roomRequest(random *rand.Rand, size int) *copse.Request {
	req := viewRequest()
	var entities, a []string
	for i := range size {
		entities = append(entities, fmt.Sprintf(`{"uid":{"type":"User","id":"u%d"},"attrs":{"attr%d":"v%d"},"tags":{"t%d":1},"parents":[{"type":"Group","id":"g%d"}]}`,
			i, random.IntN(20), random.IntN(20), random.IntN(20), random.IntN(4)))
		a = append(a, fmt.Sprint(random.IntN(2*size)))
	}
	req.Entities = cedarJSON("[" + strings.Join(entities, ",") + "]")
	req.Context = cedarJSON(fmt.Sprintf(`{"a": [%s], "b": [%s]}`, strings.Join(a, ","), a[0]))
	req.Principal = uid("User", "u0")
	return req
}
