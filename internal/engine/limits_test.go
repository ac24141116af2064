package engine

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

// Every limit of the engine: what keeps it is taken, what breaks it, by little or by much, is refused
// when it arrives, in words that name the limit and its value.
func TestEveryLimitIsNamed(t *testing.T) {
	policy := func(condition func(n int) string) func(n int) error {
		return func(n int) error {
			_, err := ParsePolicy("p", []byte("permit(principal, action, resource) when { "+condition(n)+" };"))
			return err
		}
	}
	schema := func(syntax Syntax, text func(n int) string) func(n int) error {
		return func(n int) error {
			_, err := ParseSchema("s", []byte(text(n)), syntax)
			return err
		}
	}
	request := func(change func(req *copse.Request, n int)) func(n int) error {
		s := compileText(t, nil, copse.Settings{}, `permit(principal, action, resource);`)
		return func(n int) error {
			req := viewRequest()
			change(req, n)
			_, err := s.Decide(req)
			return err
		}
	}
	context := func(text func(n int) string) func(n int) error {
		return request(func(req *copse.Request, n int) { req.Context = cedarJSON(text(n)) })
	}
	entities := func(text func(n int) string) func(n int) error {
		return request(func(req *copse.Request, n int) { req.Entities = cedarJSON(text(n)) })
	}
	around := func(before, middle, after string) func(n int) string {
		return func(n int) string { return strings.Repeat(before, n) + middle + strings.Repeat(after, n) }
	}
	user := func(parents string) string {
		return fmt.Sprintf(`{"uid":{"type":"User","id":"a"},"attrs":{},"parents":[%s]}`, parents)
	}
	for name, test := range map[string]struct {
		limit, much int // much: far beyond
		says        string
		try         func(n int) error
	}{
		"policy bytes": {10_000, 1 << 20, "at most 10000 bytes", func(n int) error {
			text := `permit(principal, action, resource);`
			_, err := ParsePolicy("p", []byte(strings.Repeat(" ", n-len(text))+text))
			return err
		}},
		"template bytes": {10_000, 1 << 20, "at most 10000 bytes", func(n int) error {
			text := `permit(principal == ?principal, action, resource);`
			_, err := ParseTemplate("p", []byte(strings.Repeat(" ", n-len(text))+text))
			return err
		}},
		"parentheses":         {99, 4_900, "nest more than 100 deep", policy(around("(", "true", ")"))},
		"sets":                {99, 4_900, "nest more than 100 deep", policy(func(n int) string { return around("[", "", "]")(n) + " == []" })},
		"records":             {98, 2_400, "nest more than 100 deep", policy(func(n int) string { return around("{a:", "1", "}")(n) + " == {}" })},
		"ifs":                 {99, 400, "nest more than 100 deep", policy(func(n int) string { return strings.Repeat("if true then true else ", n) + "true" })},
		"! in a row":          {4, 9_000, "more than 4 `!` in a row", policy(around("!", "true", ""))},
		"- in a row":          {4, 9_000, "more than 4 `-` in a row", policy(func(n int) string { return around("-", "context.a", "")(n) + " == 1" })},
		"has chain":           {32, 4_000, "has goes more than 32 attributes deep", policy(func(n int) string { return "context has " + strings.Repeat("a.", n-1) + "a" })},
		"attribute chain":     {32, 4_000, "an attribute chain has more than 32 links", policy(func(n int) string { return "context" + strings.Repeat(".a", n) })},
		"schema bytes":        {100_000, 4 << 20, "at most 100000 bytes", schema(SyntaxCedar, func(n int) string { return "entity A;" + strings.Repeat(" ", n-9) })},
		"schema JSON bytes":   {100_000, 4 << 20, "at most 100000 bytes", schema(SyntaxJSON, func(n int) string { return `{"":{"entityTypes":{"A":{}},"actions":{}}}` + strings.Repeat(" ", n-42) })},
		"schema type nesting": {99, 10_000, "nest more than 100 deep", schema(SyntaxCedar, func(n int) string { return "entity A {a: " + around("Set<", "Long", ">")(n-1) + "};" })},
		"schema JSON nesting": {92, 3_000, "nest more than 100 deep", schema(SyntaxJSON, func(n int) string {
			return `{"":{"entityTypes":{"A":{"shape":{"type":"Record","attributes":{"a":` + around(`{"type":"Set","element":`, `{"type":"Long"}`, "}")(n) + `}}}},"actions":{}}}`
		})},
		"context nesting":    {63, 300_000, "nest more than 64 deep", context(func(n int) string { return `{"a":` + around("[", "", "]")(n) + `}` })},
		"record nesting":     {64, 100_000, "nest more than 64 deep", context(around(`{"a":`, "1", "}"))},
		"contextMap nesting": {63, 30_000, "nest more than 64 deep", request(func(req *copse.Request, n int) { req.Context = avpMap(`{"a":` + around(`{"set":[`, "", "]}")(n) + `}`) })},
		"parents of one":     {100, 9_000, "at most 100 are allowed", entities(func(n int) string { return "[" + user(manyUIDs(n)) + "]" })},
		"parents of parents": {100, 5_000, "at most 100 are allowed", entities(func(n int) string { return "[" + user(`{"type":"G","id":"0"}`) + "," + chainOf(n) + "]" })},
		"entity id bytes":    {612, 90_000, "at most 612 bytes", request(func(req *copse.Request, n int) { req.Principal.ID = types.String(strings.Repeat("x", n)) })},
		"entity type bytes":  {200, 90_000, "at most 200 bytes", request(func(req *copse.Request, n int) { req.Resource.Type = types.EntityType(strings.Repeat("x", n)) })},
		"action id bytes":    {512, 90_000, "at most 512 bytes", request(func(req *copse.Request, n int) { req.Action.ID = types.String(strings.Repeat("x", n)) })},
		"sent entity's id": {612, 90_000, "at most 612 bytes", entities(func(n int) string {
			return `[{"uid":{"type":"A","id":"` + strings.Repeat("x", n) + `"},"attrs":{},"parents":[]}]`
		})},
		"sent entity's type": {200, 90_000, "at most 200 bytes", entities(func(n int) string {
			return `[{"uid":{"type":"` + strings.Repeat("x", n) + `","id":""},"attrs":{},"parents":[]}]`
		})},
		"groups of an action": {100, 400, "more than 100 groups", schema(SyntaxCedar, actionChain)},
	} {
		if err := test.try(test.limit); err != nil {
			t.Errorf("%s: %d are refused: %v", name, test.limit, err)
		}
		for _, n := range []int{test.limit + 2, test.much} {
			err := test.try(n)
			refused(t, []byte(name), err)
			// What is larger than a policy or schema may be is refused for that.
			if err != nil && !strings.Contains(err.Error(), test.says) && !(n == test.much && strings.Contains(err.Error(), "bytes")) {
				t.Errorf("%s: %d: got %q, want it to say %q", name, n, err, test.says)
			}
		}
	}
}

// A set that takes too long to put in order is no set of fewer elements: the decision is over its budget,
// and DENY.
func TestLargeSetsKeepTheirElements(t *testing.T) {
	var beginning []string
	for i := range 60 {
		beginning = append(beginning, fmt.Sprint(i))
	}
	set := func(i int) string { return "[" + strings.Join(beginning, ",") + "," + fmt.Sprint(1000+i) + "]" }
	s := compileText(t, nil, copse.Settings{}, `permit(principal, action, resource);`,
		`forbid(principal, action, resource) when { context.s.contains(`+set(7)+`) };`)
	for n, overBudget := range map[int]bool{20: false, 500: false, 5_000: true} {
		sets := make([]string, n)
		for place, i := range rand.New(rand.NewPCG(1, 1)).Perm(n) {
			sets[place] = set(i)
		}
		req := viewRequest()
		req.Context = cedarJSON(`{"s":[` + strings.Join(sets, ",") + `]}`)
		got, err := s.Decide(req)
		if err != nil || got.Decision != copse.Deny || got.OverBudget != overBudget || !overBudget && len(got.Determining) != 1 {
			t.Errorf("%d elements: %+v %v", n, got, err)
		}
	}
}

func manyUIDs(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`{"type":"G","id":"%d"}`, i)
	}
	return strings.Join(list, ",")
}

// chainOf is n-1 entities of which each is in the next.
func chainOf(n int) string {
	list := make([]string, n-1)
	for i := range list {
		list[i] = fmt.Sprintf(`{"uid":{"type":"G","id":"%d"},"attrs":{},"parents":[{"type":"G","id":"%d"}]}`, i, i+1)
	}
	return strings.Join(list, ",")
}

// actionChain has an action that is in n groups, each in the next.
func actionChain(n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "action a%d in a%d;\n", i, i+1)
	}
	fmt.Fprintf(&text, "action a%d;\n", n)
	return text.String()
}
