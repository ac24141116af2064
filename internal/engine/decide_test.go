package engine

import (
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
		"forbid must work":  {true, []string{permit, forbidError}, copse.Response{ForbidFailed: true, Errors: []copse.EvaluationError{fault("p1", "record does not have the attribute `y`")}, Considered: 2}},
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

// A condition may speak of actions that are not the request's: they are in their groups all the same.
func TestActionsThatTheRequestDoesNotName(t *testing.T) {
	schema := mustSchema(t, `
		action everything;
		action write in everything;
		action edit in [write];
		action read;`)
	s := compileText(t, schema, copse.Settings{},
		`permit(principal, action, resource);`,
		`forbid(principal, action, resource) when { Action::"edit" in Action::"everything" };`,
		`forbid(principal, action, resource) when { Action::"edit" in [Action::"read", Action::"write"] };`,
		`forbid(principal, action, resource) when { Action::"edit" is Action in Action::"write" };`,
		`forbid(principal, action, resource) when { Action::"read" in Action::"everything" };`)
	req := viewRequest()
	req.Action = uid("Action", "read")
	got, err := s.Decide(req)
	if want := "DENY by [p1 p2 p3], errors []"; err != nil || verdictOf(got).String() != want {
		t.Errorf("got %v %v, want %s", verdictOf(got), err, want)
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
