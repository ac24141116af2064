package engine

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
)

func uid(typ, id string) types.EntityUID {
	return types.NewEntityUID(types.EntityType(typ), types.String(id))
}

func compileText(t testing.TB, schema *Schema, settings copse.Settings, texts ...string) *Snapshot {
	t.Helper()
	var sources []Source
	for i, text := range texts {
		p, err := ParsePolicy("p", []byte(text))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		sources = append(sources, Source{Ref: copse.PolicyRef{ID: copse.PolicyID(fmt.Sprintf("p%d", i))}, Policy: p})
	}
	s, err := Compile(schema, settings, sources)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func avpList(text string) copse.Data {
	return copse.Data{Format: copse.FormatAVPList, Bytes: []byte(text)}
}

func avpMap(text string) copse.Data {
	return copse.Data{Format: copse.FormatAVPMap, Bytes: []byte(text)}
}

func cedarJSON(text string) copse.Data {
	return copse.Data{Format: copse.FormatCedarJSON, Bytes: []byte(text)}
}

func viewRequest() *copse.Request {
	return &copse.Request{Principal: uid("User", "a"), Action: uid("Action", "view"), Resource: uid("Doc", "d")}
}

const everyTypeAVP = `{
	"yes": {"boolean": true}, "big": {"long": 9007199254740993}, "least": {"long": -9223372036854775808},
	"text": {"string": "ünï \u0000 \" \n"}, "who": {"entityIdentifier": {"entityType": "Shop::User", "entityId": "q\"uote\n"}},
	"set": {"set": [{"long": 1}, {"long": 2}, {"long": 1}]}, "empty": {"set": []},
	"record": {"record": {"a": {"record": {}}, "odd name": {"set": [{"record": {"x": {"long": 1}}}]}}},
	"ip": {"ipaddr": "10.0.0.0/8"}, "dec": {"decimal": "-12.5"}, "at": {"datetime": "2024-01-02T03:04:05.678+0100"}, "span": {"duration": "-1d2h"}
}`

const everyTypeCedar = `{
	"yes": true, "big": 9007199254740993, "least": -9223372036854775808,
	"text": "ünï \u0000 \" \n", "who": {"__entity": {"type": "Shop::User", "id": "q\"uote\n"}},
	"set": [1, 2, 1], "empty": [],
	"record": {"a": {}, "odd name": [{"x": 1}]},
	"ip": {"__extn": {"fn": "ip", "arg": "10.0.0.0/8"}}, "dec": {"__extn": {"fn": "decimal", "arg": "-12.5"}},
	"at": {"__extn": {"fn": "datetime", "arg": "2024-01-02T03:04:05.678+0100"}}, "span": {"__extn": {"fn": "duration", "arg": "-1d2h"}}
}`

func TestEveryValueType(t *testing.T) {
	ip, _ := types.ParseIPAddr("10.0.0.0/8")
	dec, _ := types.ParseDecimal("-12.5")
	at, _ := types.ParseDatetime("2024-01-02T03:04:05.678+0100")
	span, _ := types.ParseDuration("-1d2h")
	one := types.NewRecord(types.RecordMap{"x": types.Long(1)})
	want := types.NewRecord(types.RecordMap{
		"yes": types.True, "big": types.Long(9007199254740993), "least": types.Long(-9223372036854775808),
		"text": types.String("ünï \x00 \" \n"), "who": uid("Shop::User", "q\"uote\n"),
		"set": types.NewSet(types.Long(1), types.Long(2)), "empty": types.NewSet(),
		"record": types.NewRecord(types.RecordMap{"a": types.Record{}, "odd name": types.NewSet(one)}),
		"ip":     ip, "dec": dec, "at": at, "span": span,
	})
	for format, data := range map[string]copse.Data{"AVP": avpMap(everyTypeAVP), "Cedar": cedarJSON(everyTypeCedar)} {
		req := viewRequest()
		req.Context = data
		c, err := decodeFor(t, nil, req)
		if err != nil {
			t.Fatalf("%s: %v", format, err)
		}
		if got := c.exported(&c.context); !got.Equal(want) {
			t.Errorf("%s: got %v, want %v", format, got, want)
		}
	}
}

func TestContextRefusals(t *testing.T) {
	for _, test := range []struct {
		data          copse.Data
		path, message string
		line, column  int
	}{
		{avpMap(`{`), "context.contextMap", "ends too early", 0, 0},
		{avpMap(``), "context.contextMap", "ends too early", 0, 0},
		{avpMap(`[]`), "context.contextMap", "expected a map of attribute values, found an array", 0, 0},
		{avpMap(`{} {}`), "context.contextMap", "after the value's end", 0, 0},
		{avpMap(`{"a": 1}`), "context.contextMap.a", "found a number", 0, 0},
		{avpMap(`{"a": {}}`), "context.contextMap.a", "exactly one member", 0, 0},
		{avpMap(`{"a": {"long": 1, "string": ""}}`), "context.contextMap.a.string", "exactly one member", 0, 0},
		{avpMap(`{"a": {"Long": 1}}`), "context.contextMap.a.Long", "unknown value type", 0, 0},
		{avpMap(`{"a": {"long": 1.0}}`), "context.contextMap.a.long", "1.0 is not a Long", 0, 0},
		{avpMap(`{"a": {"long": 1e3}}`), "context.contextMap.a.long", "1e3 is not a Long", 0, 0},
		{avpMap(`{"a": {"long": -0}}`), "context.contextMap.a.long", "-0 is not a Long", 0, 0},
		{avpMap(`{"a": {"long": 9223372036854775808}}`), "context.contextMap.a.long", "64 bits", 0, 0},
		{avpMap(`{"a": {"long": "1"}}`), "context.contextMap.a.long", "expected an integer, found a string", 0, 0},
		{avpMap(`{"a": {"boolean": null}}`), "context.contextMap.a.boolean", "found null", 0, 0},
		{avpMap(`{"a": {"decimal": "1"}}`), "context.contextMap.a.decimal", "not a valid decimal", 0, 0},
		{avpMap(`{"a": {"decimal": "+1.5"}}`), "context.contextMap.a.decimal", "not a valid decimal", 0, 0},
		{avpMap(`{"a": {"ipaddr": "256.0.0.1"}}`), "context.contextMap.a.ipaddr", "not a valid ipaddr", 0, 0},
		{avpMap(`{"a": {"datetime": "yesterday"}}`), "context.contextMap.a.datetime", "not a valid datetime", 0, 0},
		{avpMap(`{"a": {"duration": "1y"}}`), "context.contextMap.a.duration", "not a valid duration", 0, 0},
		{avpMap(`{"a": {"entityIdentifier": {"entityType": "User"}}}`), "context.contextMap.a.entityIdentifier", "has entityType and entityId", 0, 0},
		{avpMap(`{"a": {"entityIdentifier": {"entityType": "a b", "entityId": "x"}}}`), "context.contextMap.a.entityIdentifier", "is not an entity type", 0, 0},
		{avpMap(`{"a": {"entityIdentifier": {"entityType": "U", "entityId": "x", "more": 1}}}`), "context.contextMap.a.entityIdentifier.more", "unknown member", 0, 0},
		{avpMap(`{"a": {"set": [{"long": 1}, {"long": true}]}}`), "context.contextMap.a.set[1].long", "found a boolean", 0, 0},
		{avpMap(`{"a": {"long": 1}, "a": {"long": 2}}`), "context.contextMap.a", "occurs twice", 0, 0},
		{avpMap(`{"a": {"record": {"b": {"long": 1}, "b": {"long": 1}}}}`), "context.contextMap.a.record.b", "occurs twice", 0, 0},
		{avpMap("{\"a\": {\"string\": \"\xff\"}}"), "context.contextMap.a.string", "UTF-8", 0, 0},
		{cedarJSON("{\n \"a\": null}"), "context.cedarJson", "a: expected a Cedar value, found null", 2, 11},
		{cedarJSON(`[]`), "context.cedarJson", "expected an object", 1, 2},
		{cedarJSON(`{"__entity": {"type": "U", "id": "x"}}`), "context.cedarJson", "expected a record here", 1, 12},
		{cedarJSON(`{"a": {"__entity": {"type": "U", "id": "x"}, "b": 1}}`), "context.cedarJson", "stand alone", 1, 49},
		{cedarJSON(`{"a": {"__entity": {"type": "U", "id": "x"}, "__extn": {"fn": "ip", "arg": "::1"}}}`), "context.cedarJson", "stand alone", 1, 54},
		{cedarJSON(`{"a": {"b": 1, "__extn": {"fn": "ip", "arg": "::1"}}}`), "context.cedarJson", "stand alone", 1, 24},
		{cedarJSON(`{"a": {"__extn": {"fn": "offset", "args": [1, 2]}}}`), "context.cedarJson", "several arguments", 1, 41},
		{cedarJSON(`{"a": {"__extn": {"fn": "ip", "arg": ["1", "2"]}}}`), "context.cedarJson", "several arguments", 1, 39},
		{cedarJSON(`{"a": {"__extn": {"fn": "sqrt", "arg": "4"}}}`), "context.cedarJson", "unknown extension function", 1, 44},
		{cedarJSON(`{"a": 1.5}`), "context.cedarJson", "1.5 is not a Long", 1, 10},
		{avpList(`[]`), "context", "can't have this format", 0, 0},
	} {
		req := viewRequest()
		req.Context = test.data
		_, err := compileText(t, nil, copse.Settings{}).Decide(req)
		f := invalid(t, err)[0]
		if f.Path != test.path || !strings.Contains(f.Message, test.message) || f.Line != test.line || f.Column != test.column {
			t.Errorf("%s: got %+v, want %s:%d:%d %q", test.data.Bytes, f, test.path, test.line, test.column, test.message)
		}
	}
}

func TestEntityRefusals(t *testing.T) {
	long := strings.Repeat("x", copse.MaxEntityIDBytes+1)
	for _, test := range []struct {
		data          copse.Data
		path, message string
	}{
		{avpList(`{}`), "entities.entityList", "expected an array of entities"},
		{avpList(`[{}]`), "entities.entityList[0]", "no identifier"},
		{avpList(`[{"identifier": {"entityType": "User", "entityId": "a"}, "attrs": {}}]`), "entities.entityList[0].attrs", "unknown member"},
		{avpList(`[{"identifier": {"entityType": "User", "entityId": "a"}, "parents": {}}]`), "entities.entityList[0].parents", "expected an array"},
		{avpList(`[{"identifier": {"entityType": "User", "entityId": "` + long + `"}}]`), "entities.entityList[0].identifier", "at most 612 bytes, this one has 613"},
		{avpList(`[{"identifier": {"entityType": "` + strings.Repeat("x", 201) + `", "entityId": ""}}]`), "entities.entityList[0].identifier", "at most 200 bytes"},
		{avpList(`[{"identifier": {"entityType": "Action", "entityId": "view"}}]`), "entities.entityList[0]", "actions come from the schema"},
		{avpList(`[{"identifier": {"entityType": "A::Action", "entityId": "view"}}]`), "entities.entityList[0]", "actions come from the schema"},
		{avpList(`[{"identifier": {"entityType": "User", "entityId": "a"}, "attributes": {"x": {"nope": 1}}}]`), "entities.entityList[0].attributes.x.nope", "unknown value type"},
		{avpList(`[{"identifier": {"entityType": "User", "entityId": "a"}, "tags": {"x": {"long": "1"}}}]`), "entities.entityList[0].tags.x.long", "expected an integer"},
		{cedarJSON(`[{"uid": {"type": "User", "id": "a"}, "attrs": {}}]`), "entities.cedarJson", "no parents"},
		{cedarJSON(`[{"uid": {"type": "User", "id": "a"}, "parents": []}]`), "entities.cedarJson", "no attrs"},
		{cedarJSON(`[{"attrs": {}, "parents": []}]`), "entities.cedarJson", "no uid"},
		{cedarJSON(`[{"uid": {"type": "User", "id": "a"}, "attrs": {}, "parents": [], "x": 1}]`), "entities.cedarJson", "[0].x: unknown member"},
		{cedarJSON(`[{"uid": "User::\"a\"", "attrs": {}, "parents": []}]`), "entities.cedarJson", "expected an entity reference, found a string"},
		{cedarJSON(`[{"uid": {"type": "User", "id": "a"}, "attrs": {"a": {"b": [1, null]}}, "parents": []}]`), "entities.cedarJson", "[0].attrs.a.b[1]: expected a Cedar value"},
		{cedarJSON(`[{"uid": {"type": "U", "id": "a"}, "attrs": {}, "parents": []}, {"uid": {"type": "U", "id": "a"}, "attrs": {}, "parents": []}]`), "entities.cedarJson", `[1]: U::"a" is defined twice`},
		{avpMap(`{}`), "entities", "can't have this format"},
	} {
		req := viewRequest()
		req.Entities = test.data
		_, err := compileText(t, nil, copse.Settings{}).Decide(req)
		f := invalid(t, err)[0]
		if f.Path != test.path || !strings.Contains(f.Message, test.message) {
			t.Errorf("%s: got %+v, want %s %q", clip(string(test.data.Bytes)), f, test.path, test.message)
		}
		if inText := test.data.Format == copse.FormatCedarJSON; inText != (f.Line > 0) {
			t.Errorf("%s: line %d", test.data.Bytes, f.Line)
		}
	}
}

func TestRequestHeads(t *testing.T) {
	for _, test := range []struct {
		change  func(*copse.Request)
		path    string
		message string
	}{
		{func(r *copse.Request) { r.Principal = types.EntityUID{} }, "principal", "missing"},
		{func(r *copse.Request) { r.Resource.Type = "a-b" }, "resource", "not an entity type"},
		{func(r *copse.Request) { r.Resource.Type = "a::in" }, "resource", "not an entity type"},
		{func(r *copse.Request) { r.Action.Type = "User" }, "action", "not an action"},
		{func(r *copse.Request) { r.Action.ID = types.String(strings.Repeat("x", copse.MaxActionIDBytes+1)) }, "action", "at most 512"},
		{func(r *copse.Request) { r.Principal.ID = types.String(strings.Repeat("x", 10_000)) }, "principal", "at most 612 bytes, this one has 10000"},
		{func(r *copse.Request) { r.Principal.ID = "\xff" }, "principal", "UTF-8"},
	} {
		req := viewRequest()
		test.change(req)
		_, err := compileText(t, nil, copse.Settings{}).Decide(req)
		if f := invalid(t, err)[0]; f.Path != test.path || !strings.Contains(f.Message, test.message) {
			t.Errorf("got %+v, want %s %q", f, test.path, test.message)
		}
	}
	// What Cedar allows in an id is data and nothing else.
	for _, id := range []string{"", `q"uote`, "new\nline", "nul\x00", `"; DROP`, "日本", strings.Repeat("x", copse.MaxEntityIDBytes)} {
		s := compileText(t, nil, copse.Settings{}, "permit(principal == "+literal(uid("User", id))+", action, resource);")
		req := viewRequest()
		req.Principal = uid("User", id)
		if got, err := s.Decide(req); err != nil || got.Decision != copse.Allow {
			t.Errorf("%q: %+v %v", id, got, err)
		}
		req.Principal = uid("User", id+"x")
		if len(id) < copse.MaxEntityIDBytes {
			if got, err := s.Decide(req); err != nil || got.Decision != copse.Deny {
				t.Errorf("%q: %+v %v", id, got, err)
			}
		}
	}
}

func TestLastOfTwoEntitiesWinsInAnEntityList(t *testing.T) {
	s := compileText(t, nil, copse.Settings{}, `permit(principal, action, resource) when { principal.n == 2 };`)
	req := viewRequest()
	entity := `{"identifier": {"entityType": "User", "entityId": "a"}, "attributes": {"n": {"long": %d}}}`
	req.Entities = avpList("[" + fmt.Sprintf(entity, 1) + "," + fmt.Sprintf(entity, 2) + "]")
	if got, err := s.Decide(req); err != nil || got.Decision != copse.Allow {
		t.Errorf("got %+v %v", got, err)
	}
}

func TestHierarchyRefusals(t *testing.T) {
	entity := func(id string, parents ...string) string {
		var list []string
		for _, p := range parents {
			list = append(list, fmt.Sprintf(`{"entityType":"G","entityId":%q}`, p))
		}
		return fmt.Sprintf(`{"identifier":{"entityType":"G","entityId":%q},"parents":[%s]}`, id, strings.Join(list, ","))
	}
	chain := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, entity(fmt.Sprint(i), fmt.Sprint(i+1)))
		}
		return "[" + strings.Join(list, ",") + "]"
	}
	var crowd []string
	for i := range 101 {
		crowd = append(crowd, fmt.Sprint(i))
	}
	for what, test := range map[string]struct{ text, message string }{
		"own parent":         {"[" + entity("a", "a") + "]", `G::"a" is its own ancestor`},
		"cycle":              {"[" + entity("a", "b") + "," + entity("b", "c") + "," + entity("c", "a") + "]", "is its own ancestor"},
		"101 parents":        {"[" + entity("a", crowd...) + "]", "at most 100 are allowed"},
		"101 levels":         {chain(101), "at most 100 are allowed"},
		"5,000 levels":       {chain(5000), "at most 100 are allowed"},
		"100 levels is fine": {chain(100), ""},
	} {
		inTime(t, what, func() {
			req := viewRequest()
			req.Entities = avpList(test.text)
			_, err := compileText(t, nil, copse.Settings{}).Decide(req)
			if test.message == "" {
				if err != nil {
					t.Errorf("%s: %v", what, err)
				}
				return
			}
			if f := invalid(t, err)[0]; !strings.Contains(f.Message, test.message) {
				t.Errorf("%s: %+v", what, f)
			}
		})
	}
}

// Law 1: nothing a caller sends can define what the verified token defines.
func TestCallersCannotDefineWhatTheServerDefines(t *testing.T) {
	s := compileText(t, nil, copse.Settings{}, `permit(principal, action, resource) when { principal.admin || context.token.admin };`)
	const me = `{"uid":{"type":"User","id":"a"},"attrs":{"admin":%v},"parents":[]}`
	base := func() *copse.Request {
		req := viewRequest()
		req.ServerEntities = cedarJSON("[" + fmt.Sprintf(me, false) + "]")
		req.ServerContext = cedarJSON(`{"token": {"admin": false}}`)
		req.ReservedTypes = []types.EntityType{"User", "Group"}
		return req
	}
	if got, err := s.Decide(base()); err != nil || got.Decision != copse.Deny {
		t.Fatalf("the untampered request: %+v %v", got, err)
	}
	for what, test := range map[string]struct {
		change  func(*copse.Request)
		message string
	}{
		"the principal": {func(r *copse.Request) { r.Entities = cedarJSON("[" + fmt.Sprintf(me, true) + "]") }, "defined by the verified token"},
		"the principal, other form": {func(r *copse.Request) {
			r.Entities = avpList(`[{"identifier":{"entityType":"User","entityId":"a"},"attributes":{"admin":{"boolean":true}}}]`)
		}, "defined by the verified token"},
		"another user": {func(r *copse.Request) { r.Entities = avpList(`[{"identifier":{"entityType":"User","entityId":"b"}}]`) }, "come from the verified token"},
		"a group":      {func(r *copse.Request) { r.Entities = avpList(`[{"identifier":{"entityType":"Group","entityId":"g"}}]`) }, "come from the verified token"},
		"an action": {func(r *copse.Request) {
			r.Entities = avpList(`[{"identifier":{"entityType":"Action","entityId":"view"}}]`)
		}, "actions come from the schema"},
		"the token's claims":        {func(r *copse.Request) { r.Context = avpMap(`{"token":{"record":{"admin":{"boolean":true}}}}`) }, "comes from the verified token"},
		"the token's claims, Cedar": {func(r *copse.Request) { r.Context = cedarJSON(`{"token":{"admin":true}}`) }, "comes from the verified token"},
		"an escaped name":           {func(r *copse.Request) { r.Context = cedarJSON(`{"tok\u0065n":{"admin":true}}`) }, "comes from the verified token"},
		"claims of no access token": {func(r *copse.Request) {
			r.ServerContext = copse.Data{}
			r.Context = cedarJSON(`{"token":{"admin":true}}`)
		}, "comes from the verified token"},
	} {
		req := base()
		test.change(req)
		got, err := s.Decide(req)
		if f := invalid(t, err)[0]; !strings.Contains(f.Message, test.message) {
			t.Errorf("%s: %+v", what, f)
		}
		if diff := cmp.Diff(copse.Response{}, got); diff != "" {
			t.Errorf("%s: a response beside the error: %s", what, diff)
		}
	}
	// Without a token, context.token is a member like any other.
	req := viewRequest()
	req.Context = cedarJSON(`{"token":{"admin":true}}`)
	req.Entities = cedarJSON("[" + fmt.Sprintf(me, false) + "]")
	if got, err := s.Decide(req); err != nil || got.Decision != copse.Allow {
		t.Errorf("got %+v %v", got, err)
	}
}

// 100,000 nested brackets, megabytes of one thing, and what cedar-go handles in quadratic time.
func TestHostileData(t *testing.T) {
	const n = 100_000
	var many []string
	for i := range 20_000 {
		many = append(many, fmt.Sprintf(`{"uid":{"type":"U","id":"%d"},"attrs":{},"parents":[{"type":"U","id":"%d"}]}`, i, i+1))
	}
	for what, test := range map[string]struct {
		entities, context copse.Data
	}{
		"arrays":           {context: cedarJSON(`{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + "}")},
		"open arrays":      {context: cedarJSON(strings.Repeat("[", n))},
		"objects":          {context: cedarJSON(strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n))},
		"AVP records":      {context: avpMap(strings.Repeat(`{"a":{"record":`, n/10) + "{}" + strings.Repeat("}}", n/10))},
		"AVP sets":         {context: avpMap(`{"a":` + strings.Repeat(`{"set":[`, n) + strings.Repeat("]}", n) + "}")},
		"entity brackets":  {entities: avpList(strings.Repeat("[", n))},
		"entity objects":   {entities: cedarJSON("[" + strings.Repeat(`{"uid":`, n))},
		"late attributes":  {entities: cedarJSON(`[{"attrs":` + strings.Repeat(`{"a":`, n))},
		"a chain of users": {entities: cedarJSON("[" + strings.Join(many, ",") + "]")},
		"a long number":    {context: cedarJSON(`{"a":` + strings.Repeat("9", n) + "}")},
		"a long type":      {entities: avpList(`[{"identifier":{"entityType":"` + strings.Repeat("a::", n) + `a","entityId":""}}]`)},
		"an open string":   {context: cedarJSON(`{"` + strings.Repeat("x", n))},
	} {
		for _, s := range []*Snapshot{compileText(t, nil, copse.Settings{}), compileText(t, mustSchema(t, shopSchema), copse.Settings{})} {
			inTime(t, what, func() {
				req := viewRequest()
				req.Entities, req.Context = test.entities, test.context
				_, err := s.Decide(req)
				f := invalid(t, err)[0]
				if len(f.Path)+len(f.Message) > 3*maxMessageBytes {
					t.Errorf("%s: a finding of %d bytes", what, len(f.Message))
				}
			})
		}
	}
}
