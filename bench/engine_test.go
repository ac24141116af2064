package bench

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/engine"
)

// The workload: of n policies, 80 % give one user one action on one folder, 10 % give a group two
// actions on a folder, 10 % compare attributes; at most ten of those are on the action asked for. A
// request carries five entities in AVP's format.

func workload(n int) map[string]string {
	texts := make(map[string]string, n)
	attributes := 0
	for i := range n {
		id := fmt.Sprintf("policy%06d", i)
		switch {
		case i%10 < 8:
			texts[id] = fmt.Sprintf(`permit(principal == User::"u%d", action == Action::"view", resource in Folder::"f%d");`, i, i)
		case i%10 == 8:
			texts[id] = fmt.Sprintf(`permit(principal in Group::"g%d", action in [Action::"view", Action::"edit"], resource in Folder::"f%d");`, i, i)
		default:
			action := fmt.Sprintf("other%d", i)
			if attributes < 10 {
				action = "view"
			}
			attributes++
			texts[id] = fmt.Sprintf(`permit(principal is User, action == Action::"%s", resource is Document) when { principal.dept == resource.dept && principal.level >= 3 && context.mfa && !resource.labels.contains("secret") };`, action)
		}
	}
	return texts
}

const requestEntities = `[
	{"identifier": {"entityType": "User", "entityId": "u0"}, "attributes": {"dept": {"string": "engineering"}, "level": {"long": 4}, "name": {"string": "Ada"}},
	 "parents": [{"entityType": "Group", "entityId": "g8"}, {"entityType": "Group", "entityId": "g28"}]},
	{"identifier": {"entityType": "Document", "entityId": "d1"}, "attributes": {"dept": {"string": "engineering"}, "labels": {"set": [{"string": "draft"}, {"string": "q3"}]},
	 "owner": {"entityIdentifier": {"entityType": "User", "entityId": "u7"}}}, "parents": [{"entityType": "Folder", "entityId": "f8"}]},
	{"identifier": {"entityType": "Folder", "entityId": "f8"}, "attributes": {}, "parents": [{"entityType": "Folder", "entityId": "f0"}]},
	{"identifier": {"entityType": "Group", "entityId": "g8"}, "attributes": {}, "parents": [{"entityType": "Group", "entityId": "everyone"}]},
	{"identifier": {"entityType": "Group", "entityId": "everyone"}, "attributes": {"size": {"long": 12}}, "parents": []}]`

const requestContext = `{"mfa": {"boolean": true}, "hour": {"long": 14}}`

func requests() []copse.Request {
	base := copse.Request{
		Principal: types.NewEntityUID("User", "u0"), Action: types.NewEntityUID("Action", "view"), Resource: types.NewEntityUID("Document", "d1"),
		Entities: copse.Data{Format: copse.FormatAVPList, Bytes: []byte(requestEntities)},
		Context:  copse.Data{Format: copse.FormatAVPMap, Bytes: []byte(requestContext)},
	}
	stranger, edit, missing := base, base, base
	stranger.Principal.ID = "nobody"
	edit.Action.ID = "edit"
	missing.Context.Bytes = []byte(`{}`)
	return []copse.Request{base, stranger, edit, missing}
}

func compile(b testing.TB, texts map[string]string) *engine.Snapshot {
	b.Helper()
	sources := make([]engine.Source, 0, len(texts))
	for id, text := range texts {
		p, err := engine.ParsePolicy(id, []byte(text))
		if err != nil {
			b.Fatal(err)
		}
		sources = append(sources, engine.Source{Ref: copse.PolicyRef{ID: copse.PolicyID(id)}, Policy: p})
	}
	s, err := engine.Compile(nil, copse.Settings{}, sources)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// scan is what a program does that uses cedar-go directly: decode the request into structs, turn them
// into cedar-go's values, let cedar-go look at every policy, sort what it says.
type scan struct{ policies *cedar.PolicySet }

type answer struct {
	Decision    copse.Decision
	Determining []string
	Errors      []string
}

func newScan(b testing.TB, texts map[string]string) scan {
	b.Helper()
	set := cedar.NewPolicySet()
	for id, text := range texts {
		p := new(cedar.Policy)
		if err := p.UnmarshalCedar([]byte(text)); err != nil {
			b.Fatal(err)
		}
		set.Add(cedar.PolicyID(id), p)
	}
	return scan{set}
}

type identifier struct {
	EntityType string `json:"entityType"`
	EntityID   string `json:"entityId"`
}

func (i identifier) uid() types.EntityUID {
	return types.NewEntityUID(types.EntityType(i.EntityType), types.String(i.EntityID))
}

type value struct {
	Boolean          *bool            `json:"boolean"`
	Long             *int64           `json:"long"`
	String           *string          `json:"string"`
	EntityIdentifier *identifier      `json:"entityIdentifier"`
	Set              []value          `json:"set"`
	Record           map[string]value `json:"record"`
}

func (v value) cedar() types.Value {
	switch {
	case v.Boolean != nil:
		return types.Boolean(*v.Boolean)
	case v.Long != nil:
		return types.Long(*v.Long)
	case v.String != nil:
		return types.String(*v.String)
	case v.EntityIdentifier != nil:
		return v.EntityIdentifier.uid()
	case v.Set != nil:
		elements := make([]types.Value, len(v.Set))
		for i, e := range v.Set {
			elements[i] = e.cedar()
		}
		return types.NewSet(elements...)
	default:
		return record(v.Record)
	}
}

func record(m map[string]value) types.Record {
	out := make(types.RecordMap, len(m))
	for name, v := range m {
		out[types.String(name)] = v.cedar()
	}
	return types.NewRecord(out)
}

type entity struct {
	Identifier identifier       `json:"identifier"`
	Attributes map[string]value `json:"attributes"`
	Parents    []identifier     `json:"parents"`
}

func (s scan) decide(req *copse.Request) (answer, error) {
	var list []entity
	if err := json.Unmarshal(req.Entities.Bytes, &list); err != nil {
		return answer{}, err
	}
	var context map[string]value
	if err := json.Unmarshal(req.Context.Bytes, &context); err != nil {
		return answer{}, err
	}
	entities := make(types.EntityMap, len(list))
	for _, e := range list {
		parents := make([]types.EntityUID, len(e.Parents))
		for i, p := range e.Parents {
			parents[i] = p.uid()
		}
		uid := e.Identifier.uid()
		entities[uid] = types.Entity{UID: uid, Parents: types.NewEntityUIDSet(parents...), Attributes: record(e.Attributes)}
	}
	decision, diagnostic := cedar.Authorize(s.policies, entities, cedar.Request{
		Principal: req.Principal, Action: req.Action, Resource: req.Resource, Context: record(context)})
	var out answer
	if decision == cedar.Allow {
		out.Decision = copse.Allow
	}
	for _, r := range diagnostic.Reasons {
		out.Determining = append(out.Determining, string(r.PolicyID))
	}
	for _, e := range diagnostic.Errors {
		out.Errors = append(out.Errors, string(e.PolicyID)+": "+e.Message)
	}
	slices.Sort(out.Determining)
	slices.Sort(out.Errors)
	return out, nil
}

func answerOf(r copse.Response) answer {
	out := answer{Decision: r.Decision}
	for _, p := range r.Determining {
		out.Determining = append(out.Determining, string(p.ID))
	}
	for _, e := range r.Errors {
		out.Errors = append(out.Errors, string(e.Policy.ID)+": "+e.Message)
	}
	return out
}

// same fails unless both answer every request alike, and the workload is what it should be.
func same(b testing.TB, s *engine.Snapshot, baseline scan) {
	b.Helper()
	for i, req := range requests() {
		got, err := s.Decide(&req)
		if err != nil {
			b.Fatal(err)
		}
		want, err := baseline.decide(&req)
		if err != nil {
			b.Fatal(err)
		}
		if diff := cmp.Diff(want, answerOf(got)); diff != "" {
			b.Fatal(diff)
		}
		if i == 0 && (got.Decision != copse.Allow || len(got.Determining) < 2) {
			b.Fatalf("the request should match some policies: %+v", got)
		}
	}
}

func TestBothEnginesAgree(t *testing.T) {
	for _, n := range []int{10, 1_000} {
		texts := workload(n)
		same(t, compile(t, texts), newScan(t, texts))
	}
}

var sizes = []int{10, 1_000, 100_000}

// BenchmarkDecision is one decision, request bytes in, answer out. The metric times-the-scan says how
// many decisions fit into the time of one full scan, measured in the same run.
func BenchmarkDecision(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("policies=%d", n), func(b *testing.B) {
			texts := workload(n)
			s, baseline := compile(b, texts), newScan(b, texts)
			same(b, s, baseline)
			req := requests()[0]
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Decide(&req); err != nil {
					b.Fatal(err)
				}
			}
			ours := perCall(func() { _, _ = s.Decide(&req) })
			theirs := perCall(func() { _, _ = baseline.decide(&req) })
			b.ReportMetric(float64(theirs)/float64(ours), "times-the-scan")
			b.ReportMetric(float64(theirs), "scan-ns/op")
		})
	}
}

// perCall times a function over half a second.
func perCall(f func()) time.Duration {
	f()
	start := time.Now()
	calls := 0
	for time.Since(start) < 500*time.Millisecond {
		f()
		calls++
	}
	return time.Since(start) / time.Duration(calls)
}

// BenchmarkCompile is what the first decision of a cold policy store waits for: ten small policies from
// text to snapshot.
func BenchmarkCompile(b *testing.B) {
	texts := workload(10)
	b.ReportAllocs()
	for b.Loop() {
		compile(b, texts)
	}
}
