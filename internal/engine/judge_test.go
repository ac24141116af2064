package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	publicast "github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/ast"

	"github.com/copse-authz/copse"
)

// The judge is cedar-go's own parser and evaluator over all policies, one after the other. It shares
// nothing with the engine that it could get wrong with it: not the grammar, not the index, not the
// decoder, not the order.

type judged struct {
	decision    copse.Decision
	determining []string
	errors      []string // "id: message"
}

// judge decides from policy texts by id.
func judge(policies map[string]string, entities types.EntityMap, request types.Request) (judged, error) {
	set := cedar.NewPolicySet()
	for id, text := range policies {
		p := new(cedar.Policy)
		if err := p.UnmarshalCedar([]byte(text)); err != nil {
			return judged{}, fmt.Errorf("%s: %w", text, err)
		}
		set.Add(types.PolicyID(id), p)
	}
	return judgeSet(set, entities, request), nil
}

func judgeSet(set *cedar.PolicySet, entities types.EntityMap, request types.Request) judged {
	decision, diagnostic := cedar.Authorize(set, entities, request)
	var out judged
	if decision == cedar.Allow {
		out.decision = copse.Allow
	}
	for _, r := range diagnostic.Reasons {
		out.determining = append(out.determining, string(r.PolicyID))
	}
	for _, e := range diagnostic.Errors {
		out.errors = append(out.errors, string(e.PolicyID)+": "+clip(e.Message))
	}
	slices.Sort(out.determining)
	slices.Sort(out.errors)
	return out
}

// verdictOf puts a response in the judge's form. It does not sort: the order is promised.
func verdictOf(r copse.Response) judged {
	out := judged{decision: r.Decision}
	for _, p := range r.Determining {
		out.determining = append(out.determining, string(p.ID))
	}
	for _, e := range r.Errors {
		out.errors = append(out.errors, string(e.Policy.ID)+": "+e.Message)
	}
	return out
}

func (j judged) String() string {
	return fmt.Sprintf("%v by [%s], errors [%s]", j.decision, strings.Join(j.determining, " "), strings.Join(j.errors, "; "))
}

// headOnly is a permit with the scope of p and no conditions.
func headOnly(p *cedar.Policy) *cedar.Policy {
	tree := *(*ast.Policy)(p.AST())
	tree.Effect = ast.EffectPermit
	tree.Conditions = nil
	return cedar.NewPolicyFromAST((*publicast.Policy)(&tree))
}

// asCedarGo is a parsed policy as cedar-go has it.
func asCedarGo(p *Policy) *cedar.Policy {
	return cedar.NewPolicyFromAST((*publicast.Policy)(p.tree))
}
