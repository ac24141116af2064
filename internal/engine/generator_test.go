//go:build !race

package engine

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

// What a random run must have covered, or it proves nothing.
const (
	pairsPerRun          = 50_000
	pairsInLongRun       = 1_000_000 // with COPSE_LONG=1
	requestsPerStore     = 30
	leastAllowPercent    = 25
	leastErrorPercent    = 10
	leastCandidates      = 3
	leastLinkPercent     = 7     // of the candidates
	leastOperatorSamples = 3_000 // two encodings of each request: 1,500 requests
)

var operators = strings.Fields(`&& || == != < <= > >= + - * ! negate if in is like has access set record
	contains containsAll containsAny isEmpty hasTag getTag ip decimal datetime duration
	isIpv4 isIpv6 isLoopback isMulticast isInRange lessThan lessThanOrEqual greaterThan greaterThanOrEqual
	offset durationSince toDate toTime toDays toHours toMinutes toSeconds toMilliseconds when unless
	permit forbid link enum ?principal ?resource`)

var operatorsOfSeveralWords = []string{
	"in set", "is in", "extended has", "an action by name",
	"principal any", "principal ==", "principal in", "principal is", "principal is in",
	"resource any", "resource ==", "resource in", "resource is", "resource is in",
	"action any", "action ==", "action in", "action in []",
}

// Kinds of evaluation error, by words of the messages that have them.
var errorKinds = []string{"overflow", "type error", "does not have the attribute", "does not have the tag", "does not exist", "error parsing"}

// coverage counts what a random run met.
type coverage struct {
	pairs, allows, failing, candidates, refused, kept int
	seen                                              map[string]int // operators of the policies that were evaluated
	kinds                                             map[string]int // kinds of error
	graphs                                            map[string]int
}

func TestEngineAgreesWithTheJudge(t *testing.T) {
	pairs, seed := pairsPerRun, uint64(20261123)
	if os.Getenv("COPSE_LONG") != "" {
		pairs, seed = pairsInLongRun, 20261124
	}
	g := &grove{r: rand.New(rand.NewPCG(seed, 0))}
	c := newCoverage()
	mismatches := 0
	for store := 0; c.pairs < pairs; store++ {
		for _, difference := range g.compareStore(t, c) {
			t.Errorf("policy store %d of seed %d: %s", store, seed, difference)
			if mismatches++; mismatches == 10 {
				t.FailNow()
			}
		}
	}
	t.Logf("%d mismatches; %+v", mismatches, *c)
	c.assertBreadth(t)
}

// FuzzDecisions lets the fuzzer choose policy stores and requests.
func FuzzDecisions(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) {
		g := &grove{r: rand.New(rand.NewPCG(seed, 1))}
		for _, difference := range g.compareStore(t, newCoverage()) {
			t.Error(difference)
		}
	})
}

func newCoverage() *coverage {
	return &coverage{seen: map[string]int{}, kinds: map[string]int{}, graphs: map[string]int{}}
}

func (c *coverage) assertBreadth(t *testing.T) {
	t.Helper()
	perRequest := float64(c.candidates) / float64(2*c.pairs)
	if c.pairs < pairsPerRun || c.allows*100 < c.pairs*leastAllowPercent || c.allows*100 > c.pairs*75 ||
		c.failing*100 < c.pairs*leastErrorPercent || perRequest < leastCandidates {
		t.Errorf("the run is too narrow: %d pairs, %d ALLOW, %d with errors, %.2f candidates", c.pairs, c.allows, c.failing, perRequest)
	}
	if c.seen["link"]*100 < c.candidates*leastLinkPercent {
		t.Errorf("%d of %d candidates were links", c.seen["link"], c.candidates)
	}
	if c.kept < 5_000 {
		t.Errorf("%d policies were kept from a former snapshot", c.kept)
	}
	if c.refused < 500 {
		t.Errorf("%d requests that disagree with their schema were refused", c.refused)
	}
	for _, op := range append(slices.Clone(operators), operatorsOfSeveralWords...) {
		if c.seen[op] < leastOperatorSamples {
			t.Errorf("%q was in an evaluated policy %d times only", op, c.seen[op])
		}
	}
	for _, kind := range errorKinds {
		if c.kinds[kind] < 200 {
			t.Errorf("%d errors of the kind %q", c.kinds[kind], kind)
		}
	}
	for _, graph := range []string{"bushy", "deep", "wide"} {
		if c.graphs[graph] < 50 {
			t.Errorf("%d policy stores have a %s hierarchy", c.graphs[graph], graph)
		}
	}
}

// compareStore makes a policy store, asks it and the judge the same requests, and returns where they differ.
func (g *grove) compareStore(t *testing.T, c *coverage) (differences []string) {
	t.Helper()
	g.plant()
	c.graphs[g.graph]++
	policies := map[string]written{}
	for i := range g.r.IntN(40) {
		policies[fmt.Sprintf("p%02d", i)] = g.policy(3)
	}
	snapshot, set := compileRandom(t, g, policies)
	c.kept = g.kept
	heads := cedar.PolicyMap{}
	for id, p := range set.All() {
		heads[id] = headOnly(p)
	}
	entities := g.lists()
	for range requestsPerStore {
		request := g.request()
		want := judgeSet(set, g.entities, request)
		matching := g.matching(heads, request)
		for _, req := range g.encodings(entities, request) {
			got, err := snapshot.Decide(&req)
			if err != nil {
				t.Fatalf("%+v: %v", request, err)
			}
			if verdict := verdictOf(got); verdict.String() != want.String() || got.Considered != len(matching) {
				differences = append(differences, fmt.Sprintf("%v: got %v of %d, the judge says %v of %d", request, verdict, got.Considered, want, len(matching)))
			}
			c.candidates += got.Considered
			for _, id := range matching {
				for op := range policies[id].ops {
					c.seen[op]++
				}
			}
		}
		c.count(want)
		if g.declared != nil && g.chance(10) {
			differences = append(differences, g.mustRefuse(c, snapshot, entities, request)...)
		}
	}
	return differences
}

func (c *coverage) count(want judged) {
	c.pairs++
	if want.decision == copse.Allow {
		c.allows++
	}
	if len(want.errors) > 0 {
		c.failing++
	}
	for _, message := range want.errors {
		for _, kind := range errorKinds {
			if strings.Contains(message, kind) {
				c.kinds[kind]++
			}
		}
	}
}

// mustRefuse breaks a request in a way that a schema forbids. All of them must be refused.
func (g *grove) mustRefuse(c *coverage, snapshot *Snapshot, entities lists, request types.Request) (differences []string) {
	broken, how := g.violation(request)
	for _, req := range g.encodings(entities, broken)[:1] {
		if got, err := snapshot.Decide(&req); copse.KindOf(err) != copse.Invalid || err == nil {
			differences = append(differences, fmt.Sprintf("%s in %v: got %+v %v, want a refusal", how, broken, got, err))
		}
		c.refused++
	}
	return differences
}

func compileRandom(t *testing.T, g *grove, policies map[string]written) (*Snapshot, *cedar.PolicySet) {
	t.Helper()
	var schema *Schema
	if g.schema != "" {
		var err error
		if schema, err = ParseSchema("schema", []byte(g.schema), SyntaxJSON); err != nil {
			t.Fatalf("%s: %v", g.schema, err)
		}
	}
	set := cedar.NewPolicySet()
	var sources []Source
	for _, id := range slices.Sorted(maps.Keys(policies)) {
		source := Source{Ref: copse.PolicyRef{ID: copse.PolicyID(id)}, Policy: mustWrite(t, policies[id]), Version: 1}
		sources = append(sources, source)
		judges := new(cedar.Policy)
		if err := judges.UnmarshalCedar([]byte(policies[id].materialised())); err != nil {
			t.Fatal(err)
		}
		set.Add(types.PolicyID(id), judges)
	}
	// The order policies come in must not matter.
	g.r.Shuffle(len(sources), func(i, j int) { sources[i], sources[j] = sources[j], sources[i] })
	// Requests are checked where they agree with the schema by making.
	settings := copse.Settings{CheckRequests: g.declared != nil}
	var former *Snapshot
	if g.chance(50) {
		former = g.former(t, schema, settings, sources)
	}
	for i, source := range sources {
		if former.Holds(schema, source) {
			g.kept++
			sources[i].Policy = nil
		}
	}
	snapshot, err := former.Recompile(schema, settings, sources)
	if err != nil {
		t.Fatal(err)
	}
	return snapshot, set
}

// former is a snapshot from before some changes: of the policies of today, some had another text then, some
// were not there, and one was there that is gone.
func (g *grove) former(t *testing.T, schema *Schema, settings copse.Settings, today []Source) *Snapshot {
	t.Helper()
	sources := []Source{{Ref: copse.PolicyRef{ID: "gone"}, Policy: mustWrite(t, g.policy(2)), Version: 1}}
	for _, source := range today {
		switch {
		case g.chance(20):
			source.Policy, source.Version = mustWrite(t, g.policy(2)), 2
		case g.chance(20):
			continue
		}
		sources = append(sources, source)
	}
	snapshot, err := Compile(schema, settings, sources)
	if err != nil {
		t.Fatal(err)
	}
	return snapshot
}

// mustWrite is the policy as the engine reads it.
func mustWrite(t *testing.T, w written) *Policy {
	t.Helper()
	if !w.isLink() {
		return mustPolicies(t, "p", w.text)[0]
	}
	var principal, resource types.EntityUID
	if w.principal != nil {
		principal = *w.principal
	}
	if w.resource != nil {
		resource = *w.resource
	}
	p, err := mustTemplate(t, w.text).Link("p", principal, resource)
	if err != nil {
		t.Fatalf("%s: %v", w.text, err)
	}
	return p
}

// matching finds the policies whose scope matches, without the index: the heads are the policies as
// permits without conditions.
func (g *grove) matching(heads cedar.PolicyMap, request types.Request) (ids []string) {
	_, diagnostic := cedar.Authorize(heads, g.entities, request)
	for _, reason := range diagnostic.Reasons {
		ids = append(ids, string(reason.PolicyID))
	}
	return ids
}
