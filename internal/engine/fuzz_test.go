package engine

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

// mutatedInputs is how many mutated seeds TestMutations feeds to each target.
const mutatedInputs = 2_500

// fuzzTarget is one way bytes get into the engine. check fails the test when a property is broken; it
// reports whether the bytes were accepted.
type fuzzTarget struct {
	name   string
	seeds  []string
	words  []string // put in by mutations
	accept float64  // least share of mutated inputs that must be accepted, so that the rest is reached
	check  func(t *testing.T, data []byte) bool
}

func fuzzTargets() []fuzzTarget {
	return []fuzzTarget{
		{"policy", policySeeds, policyWords, 0.05, checkPolicyText},
		{"schema", schemaSeeds, schemaWords, 0.05, func(t *testing.T, data []byte) bool { return checkSchemaText(t, data, SyntaxCedar) }},
		{"schema JSON", schemaJSONSeeds, jsonWords, 0.05, func(t *testing.T, data []byte) bool { return checkSchemaText(t, data, SyntaxJSON) }},
		{"entities", entitySeeds, jsonWords, 0.05, checkEntities},
		{"context", contextSeeds, jsonWords, 0.05, checkContext},
		{"template", templateSeeds, policyWords, 0.05, checkTemplateText},
		{"policy JSON", policyJSONSeeds, policyJSONWords, 0.02, checkPolicyJSON},
	}
}

var (
	policySeeds = []string{
		`permit(principal, action, resource);`,
		`@id("x") forbid(principal == A::"b", action in [Action::"a", B::Action::"c"], resource is D in E::"f") when { context has a.b.c && principal.x["y z"] like "a*\*" } unless { -1 + 2 * 3 >= -(4) };`,
		`permit(principal in U::"", action, resource,) when { if [1, {a: "\u{1F332}"}].contains(ip("10.0.0.0/8").isIpv4()) then !true else (principal is U in [resource]) };`,
		"permit(principal,action,resource)when{decimal(\"1.5\").lessThan(decimal(\"2.0\"))&&datetime(\"2024-01-02\").offset(duration(\"1h\"))<datetime(\"2024-01-03\")};// c\n// d",
		`permit(principal, action, resource) when { principal.hasTag("t") && principal.getTag("t") == context.a.b["c"].d && [].isEmpty() };`,
	}
	templateSeeds = []string{
		`permit(principal == ?principal, action, resource in ?resource) when { principal.age > 3 };`,
		`@a("?") forbid(principal is U in ?principal, action in [Action::"a"], resource is D in E::"f") unless { context has a.b };`,
		`permit(principal in A::"", action == Action::"x", resource == ?resource);`,
	}
	policyJSONSeeds = []string{
		`{"effect":"permit","principal":{"op":"==","entity":{"type":"A","id":""}},"action":{"op":"All"},"resource":{"op":"is","entity_type":"D","in":{"entity":{"type":"E","id":"f"}}},"conditions":[{"kind":"when","body":{"&&":{"left":{"has":{"left":{"Var":"context"},"attr":"a"}},"right":{"like":{"left":{"Value":"x"},"pattern":["Wildcard",{"Literal":"a"}]}}}}}]}`,
		`{"effect":"forbid","principal":{"op":"is","entity_type":"U","in":{"slot":"?principal"}},"action":{"op":"in","entities":[{"type":"Action","id":"a"}]},"resource":{"op":"==","slot":"?resource"},"conditions":[{"kind":"unless","body":{"isIpv4":[{"ip":[{"Value":"::1"}]}]}}],"annotations":{"id":"x"}}`,
	}
	policyJSONWords = append([]string{`"slot":"?principal"`, `"entity":{"type":"A","id":"x"}`, `{"Var":"principal"}`, `{"Value":1}`, `"==":`, `"op":"in"`, `{"!":{"arg":`}, jsonWords...)
	policyWords     = []string{"permit", "forbid", "when", "unless", "principal", "action", "resource", "context", "in", "is", "has", "like", "if", "then", "else", "true", "!", "-", "(", ")", "[", "]", "{", "}", ".", "::", "==", "&&", "||", ",", ";", `"`, `\`, "//", "/*", "*/", "\r", "\n", "\u00a0", "9223372036854775808", "?principal", "@", " has a.b", "(context has a.b)"}
	schemaSeeds     = []string{
		shopSchema,
		`type A = { x: Long, "y z"?: Set<B> }; type B = A2; type A2 = __cedar::String; @doc("d") namespace N::M { entity U, V in [U] = { a: A, i: ipaddr } tags Set<Long>; action "a b", c in [d, N::M::Action::"e"] appliesTo { principal: U, resource: [V], context: A }; action d; action e; }`,
	}
	schemaWords     = []string{"entity", "action", "type", "namespace", "appliesTo", "principal", "resource", "context", "in", "enum", "tags", "Set<", ">", "{", "}", "[", "]", ":", "?", ";", ",", "=", "::", "A", "B", "Long", "String", `"`, "@doc", "//"}
	schemaJSONSeeds = []string{
		`{"":{"entityTypes":{"U":{"memberOfTypes":["G"],"shape":{"type":"Record","attributes":{"a":{"type":"Set","element":{"type":"T"}},"b":{"type":"EntityOrCommon","name":"T","required":false}}},"tags":{"type":"String"}},"G":{},"E":{"enum":["a","b"]}},"actions":{"r":{"memberOf":[{"id":"g"}],"appliesTo":{"principalTypes":["U"],"resourceTypes":["G"],"context":{"type":"Record","attributes":{}}}},"g":{}},"commonTypes":{"T":{"type":"Extension","name":"ipaddr"}}}}`,
		`{"N::M":{"entityTypes":{},"actions":{},"annotations":{"doc":"x"}}}`,
	}
	entitySeeds = []string{
		`[{"uid":{"type":"User","id":"a"},"attrs":{"age":3,"home":{"city":"x"},"l":[1,"2",{"__extn":{"fn":"ip","arg":"::1"}}]},"parents":[{"__entity":{"type":"Group","id":"g"}}],"tags":{"t":"v"}}]`,
		`[{"parents":[],"attrs":{"n":-5},"uid":{"__entity":{"type":"N::T","id":"\u0000"}}},{"uid":{"type":"N::T","id":"b"},"attrs":{},"parents":[{"type":"N::T","id":"\u0000"}]}]`,
		`[{"identifier":{"entityType":"User","entityId":"a"},"attributes":{"n":{"long":5},"s":{"set":[{"string":"x"}]},"r":{"record":{"d":{"decimal":"1.5"}}}},"parents":[{"entityType":"G","entityId":"g"}],"tags":{}}]`,
	}
	contextSeeds = []string{everyTypeCedar, everyTypeAVP, `{}`, `{"a":{"b":{"c":[[1],[2]]}}}`}
	jsonWords    = []string{"{", "}", "[", "]", ",", ":", `"`, `\u0000`, "null", "true", "-0", "1e9", "9223372036854775807", "9223372036854775808", `"__entity"`, `"__extn"`, `"type"`, `"id"`, `"long"`, `"set"`, `"record"`, `{"a":1}`, "\xff", "[[1,4],[2,3]]"}
)

// bounded runs one check and fails when it takes long: no input may.
func bounded(t *testing.T, data []byte, check func(*testing.T, []byte) bool) bool {
	t.Helper()
	start := time.Now()
	accepted := check(t, data)
	if took := time.Since(start); took > prompt {
		t.Errorf("%q took %v", clip(string(data)), took)
	}
	return accepted
}

// refused checks the form of a refusal.
func refused(t *testing.T, data []byte, err error) {
	t.Helper()
	e, ok := errors.AsType[*copse.Error](err)
	if !ok || e.Kind != copse.Invalid && e.Kind != copse.QuotaExceeded || len(e.Fields) == 0 || e.Detail == "" {
		t.Errorf("%q: got %v, want a refusal with findings", data, err)
		return
	}
	for _, f := range e.Fields {
		if f.Message == "" || f.Path == "" || len(f.Message) > maxMessageBytes+3 {
			t.Errorf("%q: finding %+v", data, f)
		}
	}
}

func checkPolicyText(t *testing.T, data []byte) bool {
	policies, err := ParsePolicies("p", data)
	if err != nil {
		refused(t, data, err)
		for _, f := range findingsOf(err) {
			if f.Line == 0 || strings.Contains(f.Message, "parse error at") {
				t.Errorf("%q: the grammar let pass what cedar-go refuses: %+v", data, f)
			}
		}
		checkRefusalAgainstCedarGo(t, data, err)
		return false
	}
	s := mustSchema(t, shopSchema)
	for _, p := range policies {
		again, err := ParsePolicy("again", []byte(p.Text()))
		if err != nil {
			t.Fatalf("%q: its own text %q is refused: %v", data, p.Text(), err)
		}
		if err := s.Validate(again); err != nil {
			refused(t, data, err)
		}
		snapshot, err := Compile(nil, copse.Settings{}, []Source{{Ref: copse.PolicyRef{ID: "p"}, Policy: p}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := snapshot.Decide(viewRequest())
		if err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		want, err := judge(map[string]string{"p": shownToCedarGo(p)}, nil, types.Request{Principal: uid("User", "a"), Action: uid("Action", "view"), Resource: uid("Doc", "d")})
		if err != nil || verdictOf(got).String() != want.String() && !got.OverBudget {
			t.Errorf("%q: got %v, the judge says %v %v", data, verdictOf(got), want, err)
		}
	}
	return len(policies) > 0
}

// shownToCedarGo is the text of a policy, without what cedar-go is known to read in another way.
func shownToCedarGo(p *Policy) string {
	if strings.ContainsFunc(p.Text(), func(r rune) bool { return r != ' ' && unicode.IsSpace(r) }) {
		return string(plainText(p.Text()))
	}
	return p.Text()
}

// stricter lists what the grammar refuses though cedar-go takes it, by words of its messages.
var stricter = []string{
	"not the type of an action", "in a row", "can't follow each other", "nest more than", "goes more than", "more than 32 links", "nodes up to here",
	"NUL",                                        // cedar-go finds it only outside of what it skips
	"no comments like this", "a carriage return", // Cedar's reference refuses them too
}

// checkRefusalAgainstCedarGo: what the grammar refuses, cedar-go must refuse too, but for the list.
func checkRefusalAgainstCedarGo(t *testing.T, data []byte, refusal error) {
	t.Helper()
	// cedar-go can't be asked about what its parser does not survive.
	if strings.Count(string(data), "has") > 6 || len(data) > 20_000 {
		return
	}
	for _, words := range stricter {
		if strings.Contains(refusal.Error(), words) {
			return
		}
	}
	if _, err := cedar.NewPolicyListFromBytes("", data); err == nil {
		t.Errorf("%q: cedar-go accepts it, the grammar says %v", data, refusal)
	}
}

// checkTemplateText: what is a template is not a policy, and its links are policies that a text could be.
func checkTemplateText(t *testing.T, data []byte) bool {
	template, err := ParseTemplate("p", data)
	if err != nil {
		refused(t, data, err)
		return false
	}
	checkTemplate(t, data, template)
	return true
}

func checkTemplate(t *testing.T, data []byte, template *Template) {
	t.Helper()
	if _, err := ParsePolicy("p", []byte(template.Text())); err == nil {
		t.Errorf("%q is a policy too", data)
	}
	var principal, resource types.EntityUID
	if template.Slots().Principal {
		principal = uid("U", "p")
	}
	if template.Slots().Resource {
		resource = uid("D", "r")
	}
	link, err := template.Link("l", principal, resource)
	if err != nil {
		t.Fatalf("%q: %v", data, err)
	}
	// cedar-go writes chains longer than Cedar's reference takes, so only what parses is compared.
	text := string(asCedarGo(link).MarshalCedar())
	if written, err := ParsePolicy("l", []byte(text)); err == nil && string(asCedarGo(written).MarshalCedar()) != text {
		t.Errorf("%q: the link %s reads as %s", data, text, asCedarGo(written).MarshalCedar())
	}
	if err := mustSchema(t, shopSchema).ValidateTemplates(template); err != nil {
		refused(t, data, err)
	}
}

func checkPolicyJSON(t *testing.T, data []byte) bool {
	p, err := ParsePolicyJSON("p", data)
	if err == nil {
		again, err := ParsePolicy("p", []byte(p.Text()))
		if err != nil || string(asCedarGo(again).MarshalCedar()) != string(asCedarGo(p).MarshalCedar()) {
			t.Errorf("%q: reads as %s, %v", data, p.Text(), err)
		}
		return true
	}
	refused(t, data, err)
	template, err := ParseTemplateJSON("p", data)
	if err != nil {
		refused(t, data, err)
		return false
	}
	checkTemplate(t, data, template)
	return true
}

func checkSchemaText(t *testing.T, data []byte, syntax Syntax) bool {
	s, err := ParseSchema("s", data, syntax)
	if err != nil {
		refused(t, data, err)
		return false
	}
	again, err := ParseSchema("again", s.JSON(), SyntaxJSON)
	if err != nil {
		// A schema without any declaration is written as one without a namespace; all else must read back.
		t.Errorf("%q: its own JSON %s is refused: %v", data, s.JSON(), err)
		return true
	}
	if string(again.JSON()) != string(s.JSON()) {
		t.Errorf("%q: %s reads back as %s", data, s.JSON(), again.JSON())
	}
	for _, text := range policySeeds {
		if err := s.Validate(mustPolicies(t, "p", text)...); err != nil {
			refused(t, data, err)
		}
	}
	return true
}

func checkEntities(t *testing.T, data []byte) bool {
	schema := mustSchema(t, shopSchema)
	accepted := false
	for _, format := range []copse.Format{copse.FormatAVPList, copse.FormatCedarJSON} {
		req := viewRequest()
		req.Entities = copse.Data{Format: format, Bytes: data}
		c, err := decodeFor(t, nil, req)
		if err != nil {
			refused(t, data, err)
		} else {
			accepted = true
			if format == copse.FormatCedarJSON {
				compareEntities(t, data, c.exportedEntities())
			}
		}
		for _, check := range []bool{false, true} {
			s := compileText(t, schema, copse.Settings{CheckRequests: check}, policySeeds[1:]...)
			if _, err := s.Decide(req); err != nil {
				refused(t, data, err)
			}
		}
	}
	return accepted
}

// compareEntities: what is accepted as Cedar JSON must mean what cedar-go says it means.
func compareEntities(t *testing.T, data []byte, got types.EntityMap) {
	t.Helper()
	var want types.EntityMap
	if err := want.UnmarshalJSON(data); err != nil {
		t.Errorf("%q: cedar-go refuses it: %v", data, err)
		return
	}
	if len(got) != len(want) {
		t.Errorf("%q: %d entities, cedar-go reads %d", data, len(got), len(want))
	}
	for uid, e := range got {
		if !e.Equal(want[uid]) {
			t.Errorf("%q: %v, cedar-go reads %v", data, e, want[uid])
		}
	}
}

func checkContext(t *testing.T, data []byte) bool {
	accepted := false
	for _, format := range []copse.Format{copse.FormatAVPMap, copse.FormatCedarJSON} {
		req := viewRequest()
		req.Context = copse.Data{Format: format, Bytes: data}
		c, err := decodeFor(t, nil, req)
		if err != nil {
			refused(t, data, err)
			continue
		}
		accepted = true
		if format != copse.FormatCedarJSON {
			continue
		}
		var want types.Record
		if err := want.UnmarshalJSON(data); err != nil || !want.Equal(c.exported(&c.context)) {
			t.Errorf("%q: %v, cedar-go reads %v %v", data, c.exported(&c.context), want, err)
		}
	}
	return accepted
}

// mutate changes a seed in a few places.
func mutate(r *rand.Rand, target fuzzTarget) []byte {
	data := []byte(target.seeds[r.IntN(len(target.seeds))])
	for range 1 + r.IntN(1+r.IntN(4)) {
		at := r.IntN(len(data) + 1)
		to := min(len(data), at+r.IntN(20))
		word := target.words[r.IntN(len(target.words))]
		var middle string
		switch r.IntN(12) {
		case 7, 8, 9, 10, 11: // one letter or digit becomes another
			if at == len(data) || !isNameByte(data[at]) {
				continue
			}
			middle, to = string("abcUAG01259_"[r.IntN(12)]), at+1
		case 0: // leave out
		case 1:
			middle = word + string(data[at:to])
		case 2:
			middle = word
		case 3:
			middle = strings.Repeat(string(data[at:to]), 2)
		case 4:
			middle = strings.Repeat(word, 1+r.IntN(300))
		case 5:
			middle = string([]byte{byte(r.IntN(256))})
		default:
			other := target.seeds[r.IntN(len(target.seeds))]
			from := r.IntN(len(other))
			middle = other[from:min(len(other), from+r.IntN(40))]
		}
		data = []byte(string(data[:at]) + middle + string(data[to:]))
	}
	return data
}

func TestMutations(t *testing.T) {
	for i, target := range fuzzTargets() {
		t.Run(target.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(20261123, uint64(i)))
			ran, accepted := 0, 0
			for range mutatedInputs {
				if bounded(t, mutate(r, target), target.check) {
					accepted++
				}
				ran++
			}
			t.Logf("%d inputs, %d accepted", ran, accepted)
			if ran < 2_000 || float64(accepted) < target.accept*float64(ran) {
				t.Errorf("%d inputs ran, %d were accepted", ran, accepted)
			}
			for _, seed := range target.seeds {
				if !bounded(t, []byte(seed), target.check) {
					t.Errorf("the seed %q is refused", seed)
				}
			}
		})
	}
}

func fuzz(f *testing.F, i int) {
	target := fuzzTargets()[i]
	for _, seed := range target.seeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) { bounded(t, data, target.check) })
}

func FuzzPolicy(f *testing.F)     { fuzz(f, 0) }
func FuzzSchema(f *testing.F)     { fuzz(f, 1) }
func FuzzSchemaJSON(f *testing.F) { fuzz(f, 2) }
func FuzzEntities(f *testing.F)   { fuzz(f, 3) }
func FuzzContext(f *testing.F)    { fuzz(f, 4) }
func FuzzTemplate(f *testing.F)   { fuzz(f, 5) }
func FuzzPolicyJSON(f *testing.F) { fuzz(f, 6) }
