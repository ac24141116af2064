//go:build !race

package engine

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

// What the random run must have covered, or it proves nothing.
const (
	randomStores         = 800
	requestsPerStore     = 30
	leastPairs           = 20_000
	leastAllowPercent    = 25
	leastErrorPercent    = 10
	leastCandidates      = 3
	leastOperatorSamples = 2_000 // two encodings of each request: 1,000 requests
)

var operators = strings.Fields(`&& || == != < <= > >= + - * ! negate if in is like has access set record
	contains containsAll containsAny isEmpty hasTag getTag ip decimal datetime duration
	isIpv4 isIpv6 isLoopback isMulticast isInRange lessThan lessThanOrEqual greaterThan greaterThanOrEqual
	offset durationSince toDate toTime toDays toHours toMinutes toSeconds toMilliseconds when unless`)

var operatorsOfSeveralWords = []string{
	"in set", "is in", "extended has",
	"principal any", "principal ==", "principal in", "principal is", "principal is in",
	"resource any", "resource ==", "resource in", "resource is", "resource is in",
	"action any", "action ==", "action in", "action in []",
}

func TestEngineAgreesWithTheJudge(t *testing.T) {
	const seed = 20261123
	g := &grove{r: rand.New(rand.NewPCG(seed, 0))}
	var pairs, allows, withErrors, considered, mismatches int
	seen := map[string]int{}
	for store := range randomStores {
		g.plant()
		texts := map[string]string{}
		ops := map[string]map[string]int{}
		for i := range g.r.IntN(40) {
			id := fmt.Sprintf("p%02d", i)
			texts[id] = g.policy()
			ops[id] = g.ops
		}
		snapshot, set := compileRandom(t, g, texts)
		written := g.lists()
		heads := cedar.PolicyMap{}
		for id, p := range set.All() {
			heads[id] = headOnly(p)
		}
		for range requestsPerStore {
			request := g.request()
			want := judgeSet(set, g.entities, request)
			for _, req := range g.encodings(written, request) {
				got, err := snapshot.Decide(&req)
				if err != nil {
					t.Fatalf("policy store %d, %+v: %v", store, request, err)
				}
				if verdict := verdictOf(got); verdict.String() != want.String() {
					if mismatches++; mismatches < 10 {
						t.Errorf("policy store %d, %v: got %v, the judge says %v", store, request, verdict, want)
					}
				}
				considered += got.Considered
				if matched := g.countEvaluated(heads, request, ops, seen); got.Considered != matched {
					t.Fatalf("policy store %d: %d policies considered, %d heads match", store, got.Considered, matched)
				}
			}
			pairs++
			if want.decision == copse.Allow {
				allows++
			}
			if len(want.errors) > 0 {
				withErrors++
			}
		}
	}
	candidates := float64(considered) / float64(2*pairs)
	t.Logf("%d pairs, %d ALLOW, %d with errors, %.2f candidates, %d mismatches", pairs, allows, withErrors, candidates, mismatches)
	if pairs < leastPairs || allows*100 < pairs*leastAllowPercent || withErrors*100 < pairs*leastErrorPercent || candidates < leastCandidates {
		t.Errorf("the run is too narrow: %d pairs, %d ALLOW, %d with errors, %.2f candidates", pairs, allows, withErrors, candidates)
	}
	for _, op := range append(slices.Clone(operators), operatorsOfSeveralWords...) {
		if seen[op] < leastOperatorSamples {
			t.Errorf("%q was in an evaluated policy %d times only", op, seen[op])
		}
	}
}

func compileRandom(t *testing.T, g *grove, texts map[string]string) (*Snapshot, *cedar.PolicySet) {
	t.Helper()
	var schema *Schema
	if g.schema != "" {
		var err error
		if schema, err = ParseSchema("schema", []byte(g.schema), SyntaxJSON); err != nil {
			t.Fatal(err)
		}
	}
	set := cedar.NewPolicySet()
	var sources []Source
	for _, id := range slices.Sorted(maps.Keys(texts)) {
		p, err := ParsePolicy("p", []byte(texts[id]))
		if err != nil {
			t.Fatalf("%s: %v", texts[id], err)
		}
		sources = append(sources, Source{Ref: copse.PolicyRef{ID: copse.PolicyID(id)}, Policy: p})
		judges := new(cedar.Policy)
		if err := judges.UnmarshalCedar([]byte(texts[id])); err != nil {
			t.Fatal(err)
		}
		set.Add(types.PolicyID(id), judges)
	}
	// The order policies come in must not matter.
	g.r.Shuffle(len(sources), func(i, j int) { sources[i], sources[j] = sources[j], sources[i] })
	snapshot, err := Compile(schema, copse.Settings{}, sources)
	if err != nil {
		t.Fatal(err)
	}
	return snapshot, set
}

func (g *grove) request() types.Request {
	return types.Request{
		Principal: pick(g, g.uids), Action: pick(g, g.actions), Resource: pick(g, g.uids),
		Context: g.record(attributes, 75),
	}
}

// lists are the entities of a policy store, written out once.
type lists struct {
	all            string
	caller, server map[types.EntityType]string // with the entities of that type taken out, or only them
}

func (g *grove) lists() lists {
	out := lists{caller: map[types.EntityType]string{}, server: map[types.EntityType]string{}}
	var all []types.Entity
	for _, e := range g.entities {
		if !isActionType(e.UID.Type) {
			all = append(all, e)
		}
	}
	out.all = avpListJSON(all)
	for _, t := range randomTypes {
		var caller, server []types.Entity
		for _, e := range all {
			if e.UID.Type == t {
				server = append(server, e)
			} else {
				caller = append(caller, e)
			}
		}
		out.caller[t], out.server[t] = cedarListJSON(caller), cedarListJSON(server)
	}
	return out
}

// encodings writes a request in both formats; the second as if a token had defined a part of it.
func (g *grove) encodings(written lists, request types.Request) []copse.Request {
	base := copse.Request{Principal: request.Principal, Action: request.Action, Resource: request.Resource}
	avp, byToken := base, base
	avp.Entities = copse.Data{Format: copse.FormatAVPList, Bytes: []byte(written.all)}
	avp.Context = copse.Data{Format: copse.FormatAVPMap, Bytes: []byte(avpMapJSON(request.Context))}

	mine, theirs := types.RecordMap{}, types.RecordMap{}
	for name, v := range request.Context.All() {
		if g.chance(50) {
			mine[name] = v
		} else {
			theirs[name] = v
		}
	}
	reserved := request.Principal.Type
	byToken.ReservedTypes = []types.EntityType{reserved}
	byToken.Entities = copse.Data{Format: copse.FormatCedarJSON, Bytes: []byte(written.caller[reserved])}
	byToken.ServerEntities = copse.Data{Format: copse.FormatCedarJSON, Bytes: []byte(written.server[reserved])}
	byToken.Context = copse.Data{Format: copse.FormatCedarJSON, Bytes: []byte(cedarRecordJSON(types.NewRecord(theirs)))}
	byToken.ServerContext = copse.Data{Format: copse.FormatCedarJSON, Bytes: []byte(cedarRecordJSON(types.NewRecord(mine)))}
	return []copse.Request{avp, byToken}
}

// countEvaluated counts the operators of the policies whose scope matched. Which those are, it finds
// without the index: the heads are the policies as permits without conditions.
func (g *grove) countEvaluated(heads cedar.PolicyMap, request types.Request, ops map[string]map[string]int, seen map[string]int) int {
	_, diagnostic := cedar.Authorize(heads, g.entities, request)
	for _, reason := range diagnostic.Reasons {
		for op := range ops[string(reason.PolicyID)] {
			seen[op]++
		}
	}
	return len(diagnostic.Reasons)
}
