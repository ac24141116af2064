package bench

import (
	"iter"
	"maps"
	"slices"
	"testing"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
)

// The baseline is what a good program on cedar-go does: decode the request with go-json-experiment into
// structs, turn those into cedar-go's values, find the policies whose scope matches in an index, and let
// cedar-go evaluate these. Without the index it is a scan: cedar-go's own way.
type baseline struct {
	policies []indexed // sorted by id
	index    *scopeIndex
	set      *cedar.PolicySet
}

type indexed struct {
	id     cedar.PolicyID
	policy *cedar.Policy
}

func newBaseline(b testing.TB, texts map[string]string) *baseline {
	b.Helper()
	out := &baseline{set: cedar.NewPolicySet()}
	for _, id := range slices.Sorted(maps.Keys(texts)) {
		p := new(cedar.Policy)
		if err := p.UnmarshalCedar([]byte(texts[id])); err != nil {
			b.Fatal(err)
		}
		out.set.Add(cedar.PolicyID(id), p)
		out.policies = append(out.policies, indexed{cedar.PolicyID(id), p})
	}
	out.index = newScopeIndex(out.policies)
	return out
}

// decoded is a request in cedar-go's values.
type decoded struct {
	entities types.EntityMap
	request  cedar.Request
}

func (b *baseline) decide(req *copse.Request) (answer, error) {
	d, err := decode(req)
	if err != nil {
		return answer{}, err
	}
	return b.indexed(d), nil
}

func (b *baseline) indexed(d decoded) answer {
	found := b.index.find(d)
	return answerFrom(cedar.Authorize(candidates{b.policies, found}, d.entities, d.request))
}

// scan looks at every policy. A PolicySet is a map: the answer has to be sorted.
func (b *baseline) scan(d decoded) answer {
	out := answerFrom(cedar.Authorize(b.set, d.entities, d.request))
	slices.Sort(out.Determining)
	slices.Sort(out.Errors)
	return out
}

type candidates struct {
	policies []indexed
	found    []uint32
}

// All implements cedar.PolicyIterator.
func (c candidates) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for _, i := range c.found {
			if p := c.policies[i]; !yield(p.id, p.policy) {
				return
			}
		}
	}
}

// answer is the common form of both engines' answers.
type answer struct {
	Decision    copse.Decision
	Determining []string
	Errors      []string
}

func answerFrom(decision cedar.Decision, diagnostic cedar.Diagnostic) answer {
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
	return out
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

type identifier struct {
	EntityType string `json:"entityType"`
	EntityID   string `json:"entityId"`
}

func (i identifier) uid() types.EntityUID {
	return types.NewEntityUID(types.EntityType(i.EntityType), types.String(i.EntityID))
}

// value is the union that AVP writes values as. (A decoder of its own that goes straight to cedar-go's
// values was not faster.)
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

func decode(req *copse.Request) (decoded, error) {
	var list []entity
	if err := json.Unmarshal(req.Entities.Bytes, &list); err != nil {
		return decoded{}, err
	}
	var context map[string]value
	if err := json.Unmarshal(req.Context.Bytes, &context); err != nil {
		return decoded{}, err
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
	return decoded{entities, cedar.Request{
		Principal: req.Principal, Action: req.Action, Resource: req.Resource, Context: record(context)}}, nil
}
