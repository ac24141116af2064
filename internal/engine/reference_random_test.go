//go:build !race

package engine

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

const (
	referenceStores   = 400
	referenceRequests = 5 // of each policy store
)

// Random policy stores with links and whole schemas; requests that a schema allows, and requests that
// it forbids. The reference and the engine refuse the same ones and answer the others alike.
func TestReferenceDecides(t *testing.T) {
	r := startReference(t)
	g := &grove{r: rand.New(rand.NewPCG(20261125, 0))}
	var decided, allows, failing, refused, links, mismatches int
	for range referenceStores {
		g.plant()
		policies := map[string]written{}
		for i := range g.r.IntN(20) {
			w := g.policy(3)
			if policies[fmt.Sprintf("p%02d", i)] = w; w.isLink() {
				links++
			}
		}
		snapshot, _ := compileRandom(t, g, policies)
		set, schema := policySetJSON(policies), ""
		var entities []types.Entity
		for _, e := range g.entities {
			if g.declared == nil || !isActionType(e.UID.Type) {
				entities = append(entities, e)
			}
		}
		if g.declared != nil {
			schema = g.schema
		}
		mine, theirs := g.lists(), cedarListJSON(entities)
		for range referenceRequests {
			request := g.request()
			if g.declared != nil && g.chance(40) {
				request, _ = g.violation(request)
			}
			var want referenceVerdict
			r.ask(t, "isAuthorized", authorizationJSON(schema, set, theirs, cedarRecordJSON(request.Context), request), &want)
			req := g.encodings(mine, request)[0]
			got, err := snapshot.Decide(&req)
			switch {
			case want.refused() != (err != nil):
				mismatches++
				t.Errorf("%v: got %v, the reference says %+v", request, err, want.Errors)
			case want.refused():
				refused++
			default:
				decided++
				if !want.sameAs(got) {
					mismatches++
					t.Errorf("%v: got %v, the reference says %v", request, verdictOf(got), want.judged())
				}
				if got.Decision == copse.Allow {
					allows++
				}
				if len(got.Errors) > 0 {
					failing++
				}
			}
			if mismatches > 10 {
				t.FailNow()
			}
		}
	}
	t.Logf("%d decided, %d ALLOW, %d with errors, %d refused, %d links", decided, allows, failing, refused, links)
	if decided < 1_500 || allows < 300 || failing < 300 || refused < 100 || links < 300 {
		t.Error("the run is too narrow")
	}
}

// findings are what the reference finds wrong with a policy, in the engine's words: cedar-go writes the
// names of attributes without quotes, and wants a datetime or a duration as well where a Long would do.
func (v referenceVerdict) findings(id string) (messages []string) {
	for _, e := range v.ValidationErrors {
		if e.PolicyID != id {
			continue
		}
		message := strings.TrimPrefix(e.Error.Message, "for policy `"+id+"`, ")
		message = quotedAttribute.ReplaceAllString(message, "attribute `$1`")
		messages = append(messages, strings.ReplaceAll(message, "expected Long but saw String", "expected datetime, or duration, or Long but saw String"))
	}
	return messages
}

const isImpossible = "policy is impossible"

func impossible(warnings []copse.Field) bool {
	return slices.ContainsFunc(warnings, func(f copse.Field) bool { return strings.Contains(f.Message, isImpossible) })
}

func (v referenceVerdict) impossible(id string) bool {
	return slices.ContainsFunc(v.ValidationWarnings, func(e referenceError) bool {
		return e.PolicyID == id && strings.Contains(e.Error.Message, isImpossible)
	})
}

var quotedAttribute = regexp.MustCompile("attribute `\\[\"(.*?)\"\\]`")

// knownToFindMore are the cases where cedar-go's validator finds all that the reference finds and more:
// in `x is T in e`, the reference does not look at e where x can't be a T; and it does not mention that a
// list of actions is empty where no types would do either.
func knownToFindMore(w written, got error, reference []string) bool {
	var messages []string
	for _, f := range findingsOf(got) {
		messages = append(messages, f.Message)
	}
	for _, m := range reference {
		if !slices.Contains(messages, m) {
			return false
		}
	}
	emptyList := len(reference) > 0 && len(messages) == len(reference)+1 && slices.Contains(messages, "empty set literals are forbidden in policies")
	return w.ops["is in"] > 0 || emptyList
}

const (
	referenceSchemas  = 150
	referencePolicies = 12 // for each schema
)

// Random policies against random schemas: the same ones are valid, and what is wrong with the others is
// said in the reference's words.
func TestReferenceValidates(t *testing.T) {
	r := startReference(t)
	g := &grove{r: rand.New(rand.NewPCG(20261126, 0))}
	var valid, impossibles, invalid, templates, mismatches, reworded, unlikeWarnings int
	for range referenceSchemas {
		for g.plant(); g.declared == nil; {
			g.plant()
		}
		schema, err := ParseSchema("schema", []byte(g.schema), SyntaxJSON)
		if err != nil {
			t.Fatal(err)
		}
		policies := map[string]written{}
		for i := range referencePolicies {
			policies[fmt.Sprintf("p%02d", i)] = g.policy(1)
		}
		var want referenceVerdict
		r.ask(t, "validate", fmt.Sprintf(`{"schema":%s,"policies":%s}`, g.schema, policySetJSON(policies)), &want)
		if want.refused() {
			t.Fatalf("%+v", want.Errors)
		}
		for id, w := range policies {
			// Of a link only the head is looked at; the rest was its template's.
			policy := mustWrite(t, w)
			checks := map[string]error{id: schema.Validate(policy)}
			reports, err := Reports(schema, policy)
			if w.isLink() {
				templates++
				template := mustTemplate(t, w.text)
				checks["template "+id] = schema.ValidateTemplates(template)
				reports, err = TemplateReports(schema, template)
			}
			if err != nil {
				t.Fatal(err)
			}
			for id, got := range checks {
				findings := want.findings(id)
				// A link's warnings are its template's.
				if got == nil && len(findings) == 0 && strings.HasPrefix(id, "template ") == w.isLink() {
					byUs, byThem := impossible(reports[0].Warnings), want.impossible(id)
					if byThem {
						impossibles++
					}
					if byUs != byThem && w.ops["is in"] == 0 {
						unlikeWarnings++
						t.Logf("%s, %s: impossible %v, the reference says %v", id, w.text, byUs, byThem)
					}
				}
				if len(findings) > 0 {
					invalid++
				} else {
					valid++
				}
				switch err := sameFindings(got, findings); {
				case err == nil || knownToFindMore(w, got, findings):
				case (got != nil) != (len(findings) > 0):
					if mismatches++; mismatches < 10 {
						t.Errorf("%s, %s: %v", id, w.materialised(), err)
					}
				default:
					reworded++
				}
			}
		}
	}
	t.Logf("%d valid, %d impossible, %d invalid, %d of templates, %d mismatches, %d with other findings, %d with other warnings",
		valid, impossibles, invalid, templates, mismatches, reworded, unlikeWarnings)
	// After a wrong operand of &&, and in what order types are named, the two are not always alike. With a
	// slot for the principal, the reference does not know that principal == principal is always true.
	if unlikeWarnings > 2 || valid < 500 || impossibles < 50 || invalid < 500 || templates < 200 || reworded > 50 {
		t.Error("the run is too narrow")
	}
}
