//go:build !race

package engine

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/eval"
	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
)

// explanationJudge evaluates the parts of explanations with cedar-go.
type explanationJudge struct {
	env                                         eval.Env
	parts, failed, skipped, values, cut, linked int
}

// value evaluates an expression.
func (j *explanationJudge) value(t *testing.T, text string) (types.Value, error) {
	t.Helper()
	var p cedar.Policy
	if err := p.UnmarshalCedar([]byte("permit(principal, action, resource) when { " + text + " };")); err != nil {
		t.Fatalf("a part can't be read: %s: %v", text, err)
	}
	return eval.Eval((*ast.Policy)(p.AST()).Conditions[0].Body, j.env)
}

func isCut(text string) bool { return len(text) > copse.MaxExplainedText }

func (j *explanationJudge) part(t *testing.T, p copse.ExplainedPart, source string) {
	t.Helper()
	at := source
	for range p.Line - 1 {
		_, at, _ = strings.Cut(at, "\n")
	}
	first, _, _ := strings.Cut(p.Text, " ")
	if first, _, _ = strings.Cut(first, "..."); !strings.HasPrefix(at[p.Column-1:], first) {
		t.Errorf("%d:%d is not where %q begins in %s", p.Line, p.Column, p.Text, source)
	}
	settled := false
	for i, inner := range p.Parts {
		j.part(t, inner, source)
		if (p.Operator == "&&" || p.Operator == "||") && (inner.Outcome == copse.NotEvaluated) != (settled || p.Outcome == copse.NotEvaluated) {
			t.Errorf("part %d of %s: %v", i, p.Text, inner.Outcome)
		}
		settled = settled || inner.Outcome == copse.Failed || inner.Outcome == copse.True == (p.Operator == "||")
	}
	switch {
	case p.Outcome == copse.NotEvaluated:
		j.skipped++
		return
	case isCut(p.Text):
		j.cut++
		return
	case p.Operator == "when" || p.Operator == "unless":
		return
	}
	j.parts++
	got := copse.Failed
	v, err := j.value(t, "true && ("+p.Text+")") // a part is wanted as a Bool
	switch v {
	case types.True:
		got = copse.True
	case types.False:
		got = copse.False
	}
	if got != p.Outcome || p.Error != "" && clipTo(err.Error(), copse.MaxExplainedText) != p.Error {
		t.Errorf("%s: %v %s, the judge says %v %v", p.Text, p.Outcome, p.Error, v, err)
	}
	if p.Outcome == copse.Failed {
		j.failed++
	}
	for _, v := range p.Values {
		if isCut(v.Value) || isCut(v.Text) {
			continue
		}
		j.values++
		if same, err := j.value(t, "("+v.Text+") == "+v.Value); same != types.True {
			t.Errorf("%s is not %s: %v", v.Text, v.Value, err)
		}
	}
}

// Explanations of random policy stores: the answer is Decide's, and every part is what cedar-go's evaluator
// makes of its text.
func TestExplanationsAgreeWithTheJudge(t *testing.T) {
	g := &grove{r: rand.New(rand.NewPCG(8, 2026))}
	j := &explanationJudge{}
	pairs := 0
	for pairs < 2000 && !t.Failed() {
		g.plant()
		policies := map[string]written{}
		for i := range g.r.IntN(40) {
			policies[fmt.Sprintf("p%02d", i)] = g.policy(3)
		}
		snapshot, _ := compileRandom(t, g, policies)
		parsed := map[copse.PolicyID]*Policy{}
		for id, w := range policies {
			parsed[copse.PolicyID(id)] = mustWrite(t, w)
		}
		entities := g.lists()
		for i := range 12 {
			request := g.request()
			req := g.encodings(entities, request)[0]
			want, err := snapshot.Decide(&req)
			if err != nil {
				t.Fatal(err)
			}
			got, err := snapshot.Explain(&req, func(id copse.PolicyID) (*Policy, error) { return parsed[id], nil })
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got.Response); diff != "" {
				t.Errorf("explained is not decided: %s", diff)
			}
			if shown := len(got.Policies) + got.LeftOut; shown < want.Considered || len(policies) <= copse.MaxExplainedPolicies && shown != len(policies) {
				t.Errorf("%d policies are shown of %d, %d matched", shown, len(policies), want.Considered)
			}
			j.env = eval.Env{Principal: request.Principal, Action: request.Action, Resource: request.Resource, Context: request.Context, Entities: g.entities}
			failures := map[copse.PolicyID]bool{}
			for _, e := range want.Errors {
				failures[e.Policy.ID] = true
			}
			for _, p := range got.Policies {
				source := policies[string(p.Policy.ID)].text
				if p.Linked {
					j.linked++
				}
				if failures[p.Policy.ID] != (p.Outcome == copse.Failed) {
					t.Errorf("%s: %v", source, p.Outcome)
				}
				if i%4 > 0 {
					continue // judging takes ten times as long as explaining
				}
				for _, part := range p.Scope {
					if part.Text == "principal" || part.Text == "action" || part.Text == "resource" {
						continue // not an expression
					}
					j.part(t, part, source)
				}
				for _, part := range p.Conditions {
					j.part(t, part, source)
				}
			}
			pairs++
		}
	}
	t.Logf("%d pairs: %+v parts", pairs, []int{j.parts, j.failed, j.skipped, j.values, j.cut, j.linked})
	if j.parts < 10_000 || j.failed < 400 || j.skipped < 1000 || j.values < 8_000 || j.linked < 1000 || j.cut > j.parts/4 {
		t.Errorf("too little was judged: %+v", j)
	}
}
