package engine

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
)

func TestDecisionsAndTheirReasons(t *testing.T) {
	const (
		permit      = `permit(principal, action, resource);`
		permitFalse = `permit(principal, action, resource) when { false };`
		forbid      = `forbid(principal, action, resource);`
		permitError = `permit(principal, action, resource) when { principal.x };`
		forbidError = `forbid(principal, action, resource) when { context.y == 1 };`
		elsewhere   = `permit(principal, action == Action::"other", resource);`
	)
	ref := func(ids ...string) (out []copse.PolicyRef) {
		for _, id := range ids {
			out = append(out, copse.PolicyRef{ID: copse.PolicyID(id)})
		}
		return out
	}
	fault := func(id, message string) copse.EvaluationError {
		return copse.EvaluationError{Policy: copse.PolicyRef{ID: copse.PolicyID(id)}, Message: message}
	}
	noAttribute := "`User::\"a\"` does not have the attribute `x`"
	for what, test := range map[string]struct {
		strict   bool
		policies []string
		want     copse.Response
	}{
		"no policy":         {false, nil, copse.Response{}},
		"none applies":      {false, []string{elsewhere}, copse.Response{}},
		"none satisfied":    {false, []string{permitFalse}, copse.Response{Considered: 1}},
		"permits":           {false, []string{permit, permitFalse, permit}, copse.Response{Decision: copse.Allow, Determining: ref("p0", "p2"), Considered: 3}},
		"forbid overrides":  {false, []string{permit, forbid, forbid}, copse.Response{Determining: ref("p1", "p2"), Considered: 3}},
		"error on permit":   {false, []string{permit, permitError}, copse.Response{Decision: copse.Allow, Determining: ref("p0"), Errors: []copse.EvaluationError{fault("p1", noAttribute)}, Considered: 2}},
		"error on forbid":   {false, []string{permit, forbidError}, copse.Response{Decision: copse.Allow, Determining: ref("p0"), Errors: []copse.EvaluationError{fault("p1", "record does not have the attribute `y`")}, Considered: 2}},
		"forbid must work":  {true, []string{permit, forbidError}, copse.Response{Errors: []copse.EvaluationError{fault("p1", "record does not have the attribute `y`")}, Considered: 2}},
		"permit may fail":   {true, []string{permit, permitError}, copse.Response{Decision: copse.Allow, Determining: ref("p0"), Errors: []copse.EvaluationError{fault("p1", noAttribute)}, Considered: 2}},
		"forbid, and error": {true, []string{permit, forbid, forbidError}, copse.Response{Determining: ref("p1"), Errors: []copse.EvaluationError{fault("p2", "record does not have the attribute `y`")}, Considered: 3}},
	} {
		s := compileText(t, nil, copse.Settings{ForbidErrorsDeny: test.strict}, test.policies...)
		req := viewRequest()
		req.Entities = cedarJSON(`[{"uid": {"type": "User", "id": "a"}, "attrs": {}, "parents": []}]`)
		got, err := s.Decide(req)
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
}

func TestAnswersAreSortedAndNamed(t *testing.T) {
	var sources []Source
	for _, id := range []string{"z", "B", "a10", "a2", "a", "Z"} {
		p, err := ParsePolicy(id, []byte("permit(principal, action, resource);"))
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, Source{Ref: copse.PolicyRef{ID: copse.PolicyID(id), Name: "name of " + id}, Policy: p})
	}
	s, err := Compile(nil, copse.Settings{}, sources)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Decide(viewRequest())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range got.Determining {
		names = append(names, p.Name)
	}
	if diff := cmp.Diff([]string{"name of B", "name of Z", "name of a", "name of a10", "name of a2", "name of z"}, names); diff != "" {
		t.Error(diff)
	}
	if _, err := Compile(nil, copse.Settings{}, append(sources, sources[0])); err == nil {
		t.Error("two policies with one id were accepted")
	}
}

// Action groups come from the schema, whether or not requests are checked.
func TestActionGroups(t *testing.T) {
	schema := mustSchema(t, `
		action everything;
		action write in everything;
		action edit in [write];
		action read;`)
	s := compileText(t, schema, copse.Settings{},
		`permit(principal, action in Action::"everything", resource);`,
		`permit(principal, action in [Action::"read", Action::"write"], resource);`,
		`permit(principal, action, resource) when { action in Action::"everything" };`,
		`permit(principal, action == Action::"everything", resource);`)
	for action, want := range map[string]string{
		"edit": "ALLOW by [p0 p1 p2], errors []", "write": "ALLOW by [p0 p1 p2], errors []", "everything": "ALLOW by [p0 p2 p3], errors []",
		"read": "ALLOW by [p1], errors []", "other": "DENY by [], errors []",
	} {
		req := viewRequest()
		req.Action = uid("Action", action)
		got, err := s.Decide(req)
		if err != nil || verdictOf(got).String() != want {
			t.Errorf("%s: got %v %v, want %s", action, verdictOf(got), err, want)
		}
	}
}

// Law 11: over its budget a decision is DENY, says so, and is so every time.
func TestBudget(t *testing.T) {
	var elements []string
	for i := range 60_000 {
		elements = append(elements, fmt.Sprint(i))
	}
	const compare = `permit(principal, action, resource) when { context.a == context.a };`
	policies := make([]string, 100)
	for i := range policies {
		policies[i] = compare
	}
	s := compileText(t, nil, copse.Settings{}, policies...)
	req := viewRequest()
	want := copse.Response{Considered: 100, OverBudget: true, Errors: []copse.EvaluationError{{Message: "budget exceeded"}}}
	for name, context := range map[string]string{
		"a large set":  `{"a": [` + strings.Join(elements, ",") + `]}`,
		"a long text":  `{"a": "` + strings.Repeat("x", 900_000) + `"}`,
		"clashing set": `{"a": ` + clashingSets(100) + `}`,
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
	// The budget is no obstacle to thousands of ordinary policies.
	if cost := uint64(10_000) * s.policies[0].cost.nodes * 20; cost > MaxDecisionSteps {
		t.Errorf("10,000 policies and an attribute of 20 values cost %d", cost)
	}
}

// The dearest decisions that the budget admits take a second or so, not minutes.
func TestDecisionsWithinBudgetAreFast(t *testing.T) {
	var elements []string
	for i := range 20_000 {
		elements = append(elements, fmt.Sprint(i))
	}
	for what, test := range map[string]struct{ condition, context string }{
		"sets":           {strings.TrimSuffix(strings.Repeat("context.a.containsAll(context.a) && ", 80), "&& "), `{"a": [` + strings.Join(elements, ",") + `]}`},
		"patterns":       {`context.a like "*` + strings.Repeat("a", 9000) + `b"`, `{"a": "` + strings.Repeat("a", 60_000) + `"}`},
		"clashing":       {strings.TrimSuffix(strings.Repeat("context.a == context.a && ", 15), "&& "), `{"a": ` + clashingSets(25) + `}`},
		"clashing texts": {`context.a.containsAll(context.a)`, `{"a": ` + clashingTexts(8, 0) + `}`},
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

// clashingSets are n sets of one length and sum.
func clashingSets(n int) string {
	sets := make([]string, n)
	for i := range sets {
		sets[i] = fmt.Sprintf("[%d,%d]", i, 2*n-i)
	}
	return "[" + strings.Join(sets, ",") + "]"
}

// The context as a whole is as large as all its members, and `in` follows the parents of parents: both
// count where a policy uses them, and only there.
func TestContextAndAncestorsAreCharged(t *testing.T) {
	var members, entities []string
	for i := range 5000 {
		members = append(members, fmt.Sprintf(`"%d":1`, i))
	}
	for i := range 100 {
		var parents []string
		for j := range i {
			parents = append(parents, fmt.Sprintf(`{"type":"G","id":"%d"}`, j))
		}
		id := fmt.Sprintf(`{"type":"G","id":"%d"}`, i)
		if i == 99 {
			id = `{"type":"User","id":"a"}`
		}
		entities = append(entities, fmt.Sprintf(`{"uid":%s,"attrs":{},"parents":[%s]}`, id, strings.Join(parents, ",")))
	}
	req := viewRequest()
	req.Context = cedarJSON("{" + strings.Join(members, ",") + "}")
	req.Entities = cedarJSON("[" + strings.Join(entities, ",") + "]")
	d, err := decode(nil, req)
	if err != nil {
		t.Fatal(err)
	}
	for policy, want := range map[string]uint64{
		`permit(principal, action, resource) when { context["1"] == 1 && context has "2" };`: 8,
		`permit(principal, action, resource) when { context == context };`:                   4 * 10_000,
		`permit(principal, action, resource) when { {a: context} != {} };`:                   5 * 10_000,
		`permit(principal, action, resource) when { principal in D::"x" };`:                  4 * 4950,
		`permit(principal, action, resource) when { principal is User in D::"x" };`:          4 * 4950,
		`permit(principal in G::"1", action, resource);`:                                     4950,
		`permit(principal, action in [Action::"view"], resource);`:                           4950,
		`permit(principal is User, action == Action::"view", resource);`:                     1,
	} {
		s := compileText(t, nil, copse.Settings{}, policy)
		found := s.index.find(d)
		if len(found) != 1 {
			t.Fatalf("%s: found %v", policy, found)
		}
		if got := s.steps(found, d); got != want {
			t.Errorf("%s: %d steps, want %d", policy, got, want)
		}
	}
	// Actions have their parents from the schema.
	schema := mustSchema(t, `action a; action b in a; action c in [a, b]; action d in [a, b, c];`)
	s := compileText(t, schema, copse.Settings{}, `permit(principal, action in Action::"a", resource);`)
	req = viewRequest()
	req.Action = uid("Action", "d")
	if d, err = decode(schema, req); err != nil {
		t.Fatal(err)
	}
	if got := s.steps(s.index.find(d), d); got != 6 {
		t.Errorf("%d steps, want 6", got)
	}
}

// A snapshot is read by many at once.
func TestSnapshotsAreShared(t *testing.T) {
	s := compileText(t, mustSchema(t, shopSchema), copse.Settings{CheckRequests: true},
		`permit(principal, action in Action::"all", resource) when { principal.age > 2 };`, `forbid(principal, action, resource) when { !context.mfa };`)
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for range 200 {
				if got, err := s.Decide(readRequest()); err != nil || got.Decision != copse.Allow {
					t.Errorf("%+v %v", got, err)
				}
			}
		})
	}
	workers.Wait()
}
