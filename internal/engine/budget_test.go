package engine

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
)

// Law 11: over its budget a decision is DENY, says so, and is so every time.
func TestBudget(t *testing.T) {
	const compare = `permit(principal, action, resource) when { context.a == context.a };`
	policies := make([]string, 100)
	for i := range policies {
		policies[i] = compare
	}
	s := compileText(t, nil, copse.Settings{}, policies...)
	req := viewRequest()
	want := copse.Response{Considered: 100, OverBudget: true, Errors: []copse.EvaluationError{{Message: "budget exceeded"}}}
	for name, context := range map[string]string{
		"a large set": `{"a": ` + longs(60_000) + `}`,
		"a long text": `{"a": "` + strings.Repeat("x", 900_000) + `"}`,
	} {
		req.Context = cedarJSON(context)
		for range 2 {
			inTime(t, name, func() {
				got, err := s.Decide(req)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s: %s", name, diff)
				}
			})
		}
	}
	req.Context = cedarJSON(`{"a": [1, 2, 3]}`)
	if got, err := s.Decide(req); err != nil || got.Decision != copse.Allow || got.OverBudget {
		t.Errorf("an ordinary request: %+v %v", got, err)
	}
}

// The budget ends one condition as well as many policies, whatever it goes through, and a forbid that
// was reached before can't make an error of it.
func TestBudgetEndsOneCondition(t *testing.T) {
	for what, test := range map[string]struct{ condition, context string }{
		"sets compared":  {strings.Repeat("context.a == context.a && ", 100) + "true", `{"a": ` + longs(60_000) + `}`},
		"sets of sets":   {strings.Repeat("[context.a, context.b, context.a, context.b].contains(context.a) && ", 60) + "true", `{"a": ` + longs(40_000) + `, "b": ` + longs(40_001) + `}`},
		"sets contained": {strings.Repeat("context.a.containsAll(context.a) && ", 200) + "true", `{"a": ` + longs(20_000) + `}`},
		"sets disjoint":  {strings.Repeat("context.a.containsAny(context.b) || ", 100) + "true", `{"a": ` + longs(40_000) + `, "b": ` + texts(30_000) + `}`},
		"patterns":       {strings.Repeat(`context.a like "*b*" || `, 100) + "true", `{"a": "` + strings.Repeat("a", 900_000) + `"}`},
		"members":        {strings.Repeat("context == context && ", 200) + "true", `{"a": ` + longs(60_000) + `}`},
		"in":             {strings.Repeat("principal in context.a || ", 100) + "true", `{"a": ` + groups(20_000) + `}`},
	} {
		s := compileText(t, nil, copse.Settings{}, "permit(principal, action, resource) when { "+test.condition+" };", "forbid(principal, action, resource);")
		req := viewRequest()
		req.Context = cedarJSON(test.context)
		inTime(t, what, func() {
			got, err := s.Decide(req)
			want := copse.Response{Considered: 2, OverBudget: true, Errors: []copse.EvaluationError{{Message: "budget exceeded"}}}
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%s: %s %v", what, diff, err)
			}
		})
	}
}

// The dearest decisions that the budget admits are no burden.
func TestDecisionsWithinBudgetAreFast(t *testing.T) {
	for what, test := range map[string]struct{ condition, context string }{
		"sets":           {strings.TrimSuffix(strings.Repeat("context.a.containsAll(context.a) && ", 80), "&& "), `{"a": ` + longs(20_000) + `}`},
		"patterns":       {`context.a like "*` + strings.Repeat("a", 9000) + `b"`, `{"a": "` + strings.Repeat("a", 60_000) + `"}`},
		"inner patterns": {`context.a like "*` + strings.Repeat("a", 9000) + `b*"`, `{"a": "` + strings.Repeat("a", 60_000) + `"}`},
		"clashing texts": {`context.a.containsAll(context.a)`, `{"a": ` + clashingTexts(10, 0) + `}`},
	} {
		s := compileText(t, nil, copse.Settings{}, "permit(principal, action, resource) when { "+test.condition+" };")
		req := viewRequest()
		req.Context = cedarJSON(test.context)
		inTime(t, what, func() {
			got, err := s.Decide(req)
			if err != nil || got.OverBudget {
				t.Errorf("%s: %v %+v", what, err, got)
			}
		})
	}
}

// Failures are told of, each in many bytes, and there may be many policies.
func TestFailuresAreWithinTheBudget(t *testing.T) {
	policy, err := ParsePolicy("p", []byte(`permit(principal, action, resource) when { principal.x };`))
	if err != nil {
		t.Fatal(err)
	}
	for n, over := range map[int]bool{9_000: false, 11_000: true} {
		sources := make([]Source, n)
		for i := range sources {
			sources[i] = Source{Ref: copse.PolicyRef{ID: copse.PolicyID(fmt.Sprint(i))}, Policy: policy}
		}
		s, err := Compile(nil, copse.Settings{}, sources)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Decide(viewRequest())
		if err != nil || got.Decision != copse.Deny || got.OverBudget != over || !over && len(got.Errors) != n || over && len(got.Errors) != 1 {
			t.Errorf("%d failures: %v, over budget %v, %d errors, %v", n, got.Decision, got.OverBudget, len(got.Errors), err)
		}
	}
}

// What conditions make is kept until the decision is made, so it has to be little.
func TestResultsAreWithinTheBudget(t *testing.T) {
	policy, err := ParsePolicy("p", []byte(`permit(principal, action, resource) when { `+strings.Repeat(`[principal].isEmpty() || `, 300)+`false };`))
	if err != nil {
		t.Fatal(err)
	}
	sources := make([]Source, 3000)
	for i := range sources {
		sources[i] = Source{Ref: copse.PolicyRef{ID: copse.PolicyID(fmt.Sprint(i))}, Policy: policy}
	}
	s, err := Compile(nil, copse.Settings{}, sources)
	if err != nil {
		t.Fatal(err)
	}
	c := newCall(s, viewRequest())
	defer c.release()
	if err := c.decode(); err != nil {
		t.Fatal(err)
	}
	c.steps = 0
	c.decide(s.index.find(c))
	if !c.overBudget() || cap(c.values.chunk) < 50_000 || cap(c.values.chunk) > 150_000 || cap(c.slots.chunk) > 150_000 {
		t.Errorf("over budget %v, room for %d values and %d members", c.overBudget(), cap(c.values.chunk), cap(c.slots.chunk))
	}
}

// Each node counts, and each element and member that an operator goes through.
func TestStepsAreCounted(t *testing.T) {
	entities := `[{"uid":{"type":"User","id":"a"},"attrs":{},"parents":[{"type":"G","id":"1"}]},{"uid":{"type":"G","id":"1"},"attrs":{},"parents":[{"type":"G","id":"2"}]}]`
	context := `{"l": ` + longs(1000) + `, "m": ` + longs(1000) + `, "t": "` + strings.Repeat("x", 1600) + `", "u": "` + strings.Repeat("x", 1600) + `", "r": {"a": 1, "b": 2}}`
	for condition, want := range map[string]int{
		`true`:                                1,
		`context.t has x`:                     2 + stepsOfFailure,
		`1 == 2`:                              3,
		`false && context.l == context.m`:     2,
		`context.l == context.m`:              3 + 1001,
		`context.t == context.u`:              3 + 100,
		`context.r == context.r`:              3 + 1 + 2,
		`context.l.contains(5)`:               3 + 11,
		`context.l.containsAll(context.m)`:    3 + 1000,
		`context.l.containsAny(context.m)`:    3 + 1,
		`context.l.containsAll([1, 2])`:       3 + 2*11,
		`context.t like "*y*"`:                2 + 1 + 200,
		`principal in G::"2"`:                 3 + 2,
		`principal in [G::"2", G::"1"]`:       3 + 2 + 2*2,
		`principal is User in G::"2"`:         3 + 2,
		`[context.l, context.m].isEmpty()`:    4 + 1001 + 1001 + stepsOfResult,
		`{a: context.l, b: 1}.b < 1`:          6 + stepsOfResult,
		`if 1 < 2 then 3 == 4 else true`:      1 + 3 + 3,
		`context.r.a + 1 < 2`:                 6 + stepsOfResult,
		`principal has x || principal.y`:      4 + stepsOfFailure,
		`ip("1.2.3.4").isInRange(ip("::/0"))`: 3,
		`duration("1h").toMinutes() > 5`:      4 + stepsOfResult,
	} {
		s := compileText(t, nil, copse.Settings{}, "permit(principal, action, resource) when { "+condition+" };")
		req := viewRequest()
		req.Context, req.Entities = cedarJSON(context), cedarJSON(entities)
		c := newCall(s, req)
		if err := c.decode(); err != nil {
			t.Fatal(err)
		}
		c.steps = 0
		c.decide(s.index.find(c))
		if c.steps != want {
			t.Errorf("%s: %d steps, want %d", condition, c.steps, want)
		}
	}
}

// Reading a request takes no more steps than its size allows, whatever its sets are made of.
func TestReadingSetsIsCheap(t *testing.T) {
	var sums, mixed, nested []string
	for i := range 15_000 {
		sums = append(sums, fmt.Sprintf("[%d,%d]", i, 30_000-i))
		mixed = append(mixed, fmt.Sprint(i), cedarExtensionJSON("decimal", fmt.Sprintf("0.%04d", i%10_000)))
	}
	deep := "1"
	for range 15 {
		deep = "[" + deep + ",[" + deep + "]]"
		nested = append(nested, deep)
	}
	for what, set := range map[string]string{
		"longs":  longs(60_000),
		"sums":   "[" + strings.Join(sums, ",") + "]",
		"mixed":  "[" + strings.Join(mixed, ",") + "]",
		"texts":  clashingTexts(10, 0),
		"nested": "[" + strings.Join(nested, ",") + "]",
	} {
		req := viewRequest()
		req.Context = cedarJSON(`{"a": ` + set + `}`)
		c, err := decodeFor(t, nil, req)
		if err != nil {
			t.Fatal(err)
		}
		if limit := 30 * len(set); c.steps > limit {
			t.Errorf("%s: %d bytes take %d steps", what, len(set), c.steps)
		}
	}
}

func groups(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`{"__entity":{"type":"G","id":"%d"}}`, i)
	}
	return "[" + strings.Join(list, ",") + "]"
}

func texts(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`"%d"`, i)
	}
	return "[" + strings.Join(list, ",") + "]"
}

func longs(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%d,", i)
	}
	return "[" + strings.TrimSuffix(b.String(), ",") + "]"
}

// clashingTexts are 2^n texts that all have one hash under FNV-1: each pair leads from the hash before
// it to the same hash after it. Lattice reduction finds such pairs in no time.
func clashingTexts(n int, last int) string {
	pairs := [11][2]string{
		{"IkanWdDt5azxEQKo", "IkgQN03pcede8GIj"}, {"IkaXzgBzNVDJ72xx", "IkoWC71RJpBCnjXu"}, {"IkaVEMDjHQMxP9Yr", "IkgKNQKrTQQeoSGq"},
	}
	for i := 3; i < len(pairs); i++ {
		pairs[i] = pairs[i-2]
	}
	texts := make([]string, 1<<n)
	for i := range texts {
		var b strings.Builder
		for bit := range n {
			b.WriteString(pairs[bit][i>>bit&1])
		}
		b.WriteString(pairs[n][last])
		texts[i] = `"` + b.String() + `"`
	}
	return "[" + strings.Join(texts, ",") + "]"
}

// A decision that takes long lets others go first again and again, to its budget's end and not beyond it;
// one that does not, never.
func TestRests(t *testing.T) {
	c := newCall(&Snapshot{symbols: newSymbols()}, &copse.Request{})
	rests := 0
	for last := c.restAt; c.steps <= MaxDecisionSteps; c.steps++ {
		if c.overBudget() {
			t.Fatalf("over budget after %d steps", c.steps)
		}
		if c.restAt != last {
			rests, last = rests+1, c.restAt
		}
		if rests > 0 && c.steps <= stepsBetweenRests {
			t.Fatalf("it rests after %d steps", c.steps)
		}
	}
	if want := MaxDecisionSteps/stepsBetweenRests - 1; !c.overBudget() || rests < want-1 || rests > want+1 {
		t.Errorf("%d rests in %d steps, want %d", rests, c.steps, want)
	}
	text := "[" + strings.Repeat("1,", 10*bytesBetweenRests) + "1]"
	s := c.scan("context", cedarJSON(text))
	if _, err := s.cedarValue(nil); err != nil || s.restAt < len(text)-2*bytesBetweenRests || s.restAt > len(text)+bytesBetweenRests {
		t.Errorf("read to its end, %d bytes, it rests next at %d: %v", len(text), s.restAt, err)
	}
}
