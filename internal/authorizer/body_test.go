package authorizer

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
)

const plainBody = `{"action":{"id":"view"},"resource":{"type":"Doc","id":"1"}}`

func TestBodySpellings(t *testing.T) {
	uid := types.NewEntityUID
	for _, c := range []struct {
		name, body string
		want       question
	}{
		{"short", plainBody, question{action: uid("Action", "view"), resource: uid("Doc", "1")}},
		{"AVP's names", `{"resource":{"entityId":"1","entityType":"A::Doc"},"action":{"actionType":"A::Action","actionId":"view"}}`,
			question{action: uid("A::Action", "view"), resource: uid("A::Doc", "1")}},
		{"space everywhere", " {\n\t\"action\" : { \"id\" : \"view\" } ,\r\n \"resource\" : {\"type\":\"Doc\",\"id\":\"1\"} } \n",
			question{action: uid("Action", "view"), resource: uid("Doc", "1")}},
		{"escapes", `{"\u0061ction":{"id":"v\u0000\n\"\\é"},"resource":{"type":"Doc","id":"\ud83c\udf32"}}`,
			question{action: uid("Action", "v\x00\n\"\\é"), resource: uid("Doc", "🌲")}},
		{"AVP's values", `{"action":{"id":"view"},"resource":{"type":"Doc","id":"1"},"context":{"contextMap":{"a":{"string":"}\""}}},"entities":{"entityList":[{"x":"]"}]}}`,
			question{action: uid("Action", "view"), resource: uid("Doc", "1"),
				context:  copse.Data{Format: copse.FormatAVPMap, Bytes: []byte(`{"a":{"string":"}\""}}`)},
				entities: copse.Data{Format: copse.FormatAVPList, Bytes: []byte(`[{"x":"]"}]`)}}},
		{"Cedar JSON", `{"action":{"id":"view"},"resource":{"type":"Doc","id":"1"},"context":{"cedarJson": {"a":1}},"entities":{"cedarJson":[ ]}}`,
			question{action: uid("Action", "view"), resource: uid("Doc", "1"),
				context:  copse.Data{Format: copse.FormatCedarJSON, Bytes: []byte(`{"a":1}`)},
				entities: copse.Data{Format: copse.FormatCedarJSON, Bytes: []byte(`[ ]`)}}},
		{"Cedar JSON in a string", `{"action":{"id":"view"},"resource":{"type":"Doc","id":"1"},"context":{"cedarJson":"{\"a\":\"\\n\"}"}}`,
			question{action: uid("Action", "view"), resource: uid("Doc", "1"),
				context: copse.Data{Format: copse.FormatCedarJSON, Bytes: []byte(`{"a":"\n"}`)}}},
		{"explain", `{"explain" : true ,"action":{"id":"view"},"resource":{"type":"Doc","id":"1"}}`,
			question{action: uid("Action", "view"), resource: uid("Doc", "1"), explain: true}},
		{"explain not", `{"action":{"id":"view"},"resource":{"type":"Doc","id":"1"},"explain":false}`, question{action: uid("Action", "view"), resource: uid("Doc", "1")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got question
			if err := parseBody([]byte(c.body), &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(question{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBodyRefused(t *testing.T) {
	with := func(member string) string { return strings.TrimSuffix(plainBody, "}") + "," + member + "}" }
	for _, c := range []struct{ name, body, want string }{
		{"empty", "", "expected an object, at byte 0"},
		{"not an object", "[]", "expected an object"},
		{"null", "null", "expected an object"},
		{"no action", `{"resource":{"type":"Doc","id":"1"}}`, "action: is missing"},
		{"no resource", `{"action":{"id":"view"}}`, "resource: is missing"},
		{"principal", with(`"principal":{"type":"User","id":"root"}`), "principal: there is no such member"},
		{"tenant", with(`"tenant":"globex"`), "tenant: there is no such member"},
		{"case", with(`"Context":{}`), "Context: there is no such member"},
		{"twice", with(`"action":{"id":"delete"}`), "action: stands twice"},
		{"twice, one escaped", with(`"\u0061ction":{"id":"delete"}`), "action: stands twice"},
		{"id twice", `{"action":{"id":"view","id":"delete"},"resource":{"type":"Doc","id":"1"}}`, "action.id: stands twice"},
		{"two spellings", `{"action":{"id":"view","actionId":"delete"},"resource":{"type":"Doc","id":"1"}}`, "action: mixes two spellings"},
		{"spellings crossed", `{"action":{"id":"view"},"resource":{"type":"Doc","entityId":"1"}}`, "resource: mixes two spellings"},
		{"wrong spelling", `{"action":{"entityId":"view"},"resource":{"type":"Doc","id":"1"}}`, "action.entityId: there is no such member"},
		{"no type", `{"action":{"id":"view"},"resource":{"id":"1"}}`, "resource.type: is missing"},
		{"empty type", `{"action":{"type":"","id":"view"},"resource":{"type":"Doc","id":"1"}}`, "action.type: is missing"},
		{"no id", `{"action":{},"resource":{"type":"Doc","id":"1"}}`, "action.id: is missing"},
		{"number", `{"action":{"id":1},"resource":{"type":"Doc","id":"1"}}`, "action.id: expected a string, at byte 16"},
		{"uid is a string", `{"action":"view","resource":{"type":"Doc","id":"1"}}`, "action: expected an object"},
		{"long id", `{"action":{"id":"view"},"resource":{"type":"Doc","id":"` + strings.Repeat("x", 10_000) + `"}}`, "resource.id: has 10000 bytes, of at most 612"},
		{"long action", `{"action":{"id":"` + strings.Repeat("x", 513) + `"},"resource":{"type":"Doc","id":"1"}}`, "action.id: has 513 bytes, of at most 512"},
		{"long type", `{"action":{"id":"view"},"resource":{"type":"` + strings.Repeat("x", 201) + `","id":"1"}}`, "resource.type: has 201 bytes, of at most 200"},
		{"context null", with(`"context":null`), "context: expected an object"},
		{"context empty", with(`"context":{}`), "context: is empty"},
		{"context of both kinds", with(`"context":{"contextMap":{},"cedarJson":{}}`), "context: has one member"},
		{"context of the other's kind", with(`"context":{"entityList":[]}`), "context.entityList: there is no such member"},
		{"context is a list", with(`"context":{"contextMap":[]}`), `context.contextMap: expected '{'`},
		{"entities is an object", with(`"entities":{"cedarJson":{}}`), `entities.cedarJson: expected '['`},
		{"entities is a number", with(`"entities":{"entityList":12}`), `entities.entityList: expected '['`},
		{"explain is text", with(`"explain":"true"`), "explain: expected true or false"},
		{"explain is a number", with(`"explain":1`), "explain: expected true or false"},
		{"explain is null", with(`"explain":null`), "explain: expected true or false"},
		{"explain twice", with(`"explain":true,"explain":true`), "explain: stands twice"},
		{"explain and more", with(`"explain":truee`), "expected ',' or '}'"},
		{"lone surrogate", with(`"context":{"cedarJson":"\ud800"}`), "context.cedarJson: the string is not valid JSON"},
		{"bad escape", `{"action":{"id":"\x"},"resource":{"type":"Doc","id":"1"}}`, "action.id: the string at byte 16 is not valid JSON"},
		{"raw newline", "{\"action\":{\"id\":\"a\nb\"},\"resource\":{\"type\":\"Doc\",\"id\":\"1\"}}", "control character"},
		{"invalid UTF-8", "{\"action\":{\"id\":\"\xff\"}}", "not valid UTF-8, from byte 17"},
		{"cut off", plainBody[:len(plainBody)-1], "expected ',' or '}'"},
		{"string cut off", `{"action":{"id":"vi`, "does not end"},
		{"value cut off", with(`"context":{"contextMap":{"a":"`), "context.contextMap: the value that starts at byte"},
		{"trailing comma", `{"action":{"id":"view",},"resource":{"type":"Doc","id":"1"}}`, "action: expected a string"},
		{"two bodies", plainBody + plainBody, "more after the body's end"},
		{"deep", with(`"context":{"contextMap":` + strings.Repeat("[", 100_000)), "context.contextMap: expected '{'"},
		{"deep elsewhere", with(`"x":` + strings.Repeat("[", 100_000)), "x: there is no such member"},
		{"long name", with(`"` + strings.Repeat("n", 5_000) + `":1`), strings.Repeat("n", 80) + "..."},
	} {
		t.Run(c.name, func(t *testing.T) {
			var q question
			err := parseBody([]byte(c.body), &q)
			if copse.KindOf(err) != copse.Invalid || err == nil {
				t.Fatalf("got %v, want an Invalid error", err)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %q, want it to contain %q", err, c.want)
			}
			if len(err.Error()) > 500 {
				t.Errorf("the message has %d bytes", len(err.Error()))
			}
		})
	}
}

// modelBody is what a body is, as a strict decoder sees it.
type modelBody struct {
	Action   *map[string]string         `json:"action"`
	Resource *map[string]string         `json:"resource"`
	Context  *map[string]jsontext.Value `json:"context,omitzero"`
	Entities *map[string]jsontext.Value `json:"entities,omitzero"`
	Explain  bool                       `json:"explain"`
}

// The scanner is held to a strict decoder on bodies that were damaged in random ways. It may be
// more generous only inside the raw values, which the engine checks again.
func TestBodyAgreesWithStrictDecoder(t *testing.T) {
	seeds := []string{
		`{"action":{"id":"view"},"resource":{"type":"Doc","id":"1"},"context":{"contextMap":{"a":{"string":"b"}}},"entities":{"entityList":[{"identifier":{"entityType":"Doc","entityId":"1"}}]}}`,
		`{"action":{"actionType":"Action","actionId":"v\n"},"resource":{"entityType":"Doc","entityId":"1"},"context":{"cedarJson":{"a":[1,{"b":"}"}]}}}`,
		`{"entities":{"cedarJson":"[{\"uid\":{}}]"},"resource":{"type":"Doc","id":"\u00e9"},"action":{"id":"view"}}`,
		`{"explain":true,"resource":{"type":"Doc","id":"1"},"action":{"id":"view"}}`,
	}
	const bytesToInsert = "{}[]\",:\\ a1nt\x00\x80"
	rnd := rand.New(rand.NewPCG(1, 2))
	accepted, refused := 0, 0
	for range 20_000 {
		body := []byte(seeds[rnd.IntN(len(seeds))])
		for range rnd.IntN(3) {
			at := rnd.IntN(len(body))
			switch rnd.IntN(3) {
			case 0:
				body = append(body[:at], body[at+1:]...)
			case 1:
				body[at] = bytesToInsert[rnd.IntN(len(bytesToInsert))]
			case 2:
				body = append(body[:at], append([]byte{bytesToInsert[rnd.IntN(len(bytesToInsert))]}, body[at:]...)...)
			}
		}
		if checkAgainstModel(t, body) {
			accepted++
		} else {
			refused++
		}
	}
	if accepted < 5_000 || refused < 5_000 {
		t.Errorf("the generator leans to one side: %d accepted, %d refused", accepted, refused)
	}
}

func FuzzBody(f *testing.F) {
	f.Add([]byte(plainBody))
	f.Add([]byte(`{"action":{"actionId":"\u0061"},"resource":{"type":"Doc","id":"1"},"context":{"cedarJson":"{}"},"entities":{"entityList":[]}}`))
	f.Fuzz(func(t *testing.T, body []byte) { checkAgainstModel(t, body) })
}

func checkAgainstModel(t *testing.T, body []byte) (accepted bool) {
	t.Helper()
	var q question
	err := parseBody(bytes.Clone(body), &q)
	var m modelBody
	strict := json.Unmarshal(body, &m, json.RejectUnknownMembers(true))
	if err != nil {
		// To the model null is absence; here it is refused.
		if strict == nil && modelAccepts(&m) && !bytes.Contains(body, []byte("null")) {
			t.Fatalf("refused with %v what a strict decoder takes: %s", err, body)
		}
		return false
	}
	rawBroken := false
	for _, d := range []copse.Data{q.context, q.entities} {
		rawBroken = rawBroken || d.Format != copse.FormatNone && !jsontext.Value(d.Bytes).IsValid()
	}
	if rawBroken {
		return true // the engine refuses it
	}
	if strict != nil {
		t.Fatalf("took what a strict decoder refuses with %v: %s", strict, body)
	}
	if q.explain != m.Explain {
		t.Fatalf("read explain %v, a strict decoder %v: %s", q.explain, m.Explain, body)
	}
	for _, c := range []struct {
		uid    types.EntityUID
		member map[string]string
	}{{q.action, *m.Action}, {q.resource, *m.Resource}} {
		id := c.member["id"] + c.member["actionId"] + c.member["entityId"]
		if string(c.uid.ID) != id {
			t.Fatalf("read the id %q, a strict decoder %q: %s", c.uid.ID, id, body)
		}
	}
	return true
}

// modelAccepts knows the rules of the body that are not JSON's.
func modelAccepts(m *modelBody) bool {
	uid := func(p *map[string]string, names ...[2]string) bool {
		if p == nil {
			return false
		}
		for _, n := range names {
			entityType, typed := (*p)[n[0]]
			id := (*p)[n[1]]
			want := 1
			if typed {
				want = 2
			}
			if id != "" && len(*p) == want && (!typed || entityType != "") && (typed || n[1] != "entityId") &&
				len(id) <= copse.MaxActionIDBytes && len(entityType) <= copse.MaxEntityTypeBytes {
				return true
			}
		}
		return false
	}
	data := func(p *map[string]jsontext.Value, open byte, avp string) bool {
		if p == nil {
			return true
		}
		v, ok := (*p)[avp]
		if !ok {
			v, ok = (*p)["cedarJson"]
		}
		return ok && len(*p) == 1 && v[0] == open
	}
	if m.Resource != nil {
		if _, typed := (*m.Resource)["type"]; !typed {
			if _, typed = (*m.Resource)["entityType"]; !typed {
				return false
			}
		}
	}
	return uid(m.Action, [2]string{"type", "id"}, [2]string{"actionType", "actionId"}) &&
		uid(m.Resource, [2]string{"type", "id"}, [2]string{"entityType", "entityId"}) &&
		data(m.Context, '{', "contextMap") && data(m.Entities, '[', "entityList")
}
