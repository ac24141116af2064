package engine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

func readRequest() *copse.Request {
	return &copse.Request{
		Principal: uid("User", "a"), Action: uid("Action", "read"), Resource: uid("Doc", "d"),
		Context:  cedarJSON(`{"mfa": true}`),
		Entities: cedarJSON(`[{"uid": {"type": "User", "id": "a"}, "attrs": {"age": 3, "home": {"city": "x"}}, "parents": [{"type": "Group", "id": "g"}], "tags": {"t": "v"}},` + goodDoc + "]"),
	}
}

const goodDoc = `{"uid": {"type": "Doc", "id": "d"}, "attrs": {"owner": {"__entity": {"type": "User", "id": "a"}}, "colour": {"type": "Colour", "id": "red"}}, "parents": [{"type": "Folder", "id": "f"}]}`

func userWith(attrs, rest string) copse.Data {
	return cedarJSON(`[{"uid": {"type": "User", "id": "a"}, "attrs": ` + attrs + `, "parents": []` + rest + `},` + goodDoc + "]")
}

func TestRequestsAgreeWithTheSchema(t *testing.T) {
	schema := mustSchema(t, shopSchema)
	checked := compileText(t, schema, copse.Settings{CheckRequests: true}, "permit(principal, action, resource);")
	unchecked := compileText(t, schema, copse.Settings{}, "permit(principal, action, resource);")
	for what, test := range map[string]struct {
		change        func(*copse.Request)
		path, message string
	}{
		"as it should be":        {func(*copse.Request) {}, "", ""},
		"unknown principal type": {func(r *copse.Request) { r.Principal.Type = "Usr" }, "principal", "no entity type Usr"},
		"principal of no use":    {func(r *copse.Request) { r.Principal = uid("Group", "g") }, "principal", "does not apply to a principal of type Group"},
		"unknown resource type":  {func(r *copse.Request) { r.Resource.Type = "Dok" }, "resource", "no entity type Dok"},
		"resource of no use":     {func(r *copse.Request) { r.Resource = uid("Folder", "g") }, "resource", "does not apply to a resource of type Folder"},
		"unknown action":         {func(r *copse.Request) { r.Action.ID = "raed" }, "action", `no action Action::"raed"`},
		"a group as action":      {func(r *copse.Request) { r.Action.ID = "all" }, "action", "is a group of actions"},
		"enum resource": {func(r *copse.Request) {
			r.Action.ID, r.Resource, r.Context = "paint", uid("Colour", "blue"), copse.Data{}
		}, "resource", "not one of the entities the schema declares"},
		"enum resource, good": {func(r *copse.Request) {
			r.Action.ID, r.Resource, r.Context = "paint", uid("Colour", "red"), copse.Data{}
		}, "", ""},
		"context missing":      {func(r *copse.Request) { r.Context = copse.Data{} }, "context.mfa", "requires this context member"},
		"context type":         {func(r *copse.Request) { r.Context = cedarJSON(`{"mfa": "yes"}`) }, "context.mfa", "wants Bool, this is String"},
		"context undeclared":   {func(r *copse.Request) { r.Context = cedarJSON(`{"mfa": true, "mfb": true}`) }, "context.mfb", "does not declare this context member"},
		"attribute missing":    {func(r *copse.Request) { r.Entities = userWith(`{"home": {"city": "x"}}`, "") }, `entity User::"a".age`, "requires this attribute"},
		"attribute type":       {func(r *copse.Request) { r.Entities = userWith(`{"age": "3", "home": {"city": "x"}}`, "") }, `entity User::"a".age`, "wants Long, this is String"},
		"attribute undeclared": {func(r *copse.Request) { r.Entities = userWith(`{"age": 3, "home": {"city": "x"}, "x": 1}`, "") }, `entity User::"a".x`, "does not declare this attribute"},
		"nested missing":       {func(r *copse.Request) { r.Entities = userWith(`{"age": 3, "home": {}}`, "") }, `entity User::"a".home.city`, "requires this attribute"},
		"nested undeclared":    {func(r *copse.Request) { r.Entities = userWith(`{"age": 3, "home": {"city": "x", "y": 1}}`, "") }, `entity User::"a".home.y`, "does not declare"},
		"tag type": {func(r *copse.Request) {
			r.Entities = userWith(`{"age": 3, "home": {"city": "x"}}`, `, "tags": {"t": 1}`)
		}, `entity User::"a" tag.t`, "wants String, this is Long"},
		"no tags": {func(r *copse.Request) {
			r.Entities = cedarJSON(`[{"uid": {"type": "Group", "id": "g"}, "attrs": {}, "parents": [], "tags": {"t": "v"}}]`)
		}, `entity Group::"g"`, "have no tags"},
		"parent type": {func(r *copse.Request) {
			r.Entities = cedarJSON(`[{"uid": {"type": "Group", "id": "g"}, "attrs": {}, "parents": [{"type": "Folder", "id": "f"}]}]`)
		}, `entity Group::"g"`, "names no such parent type"},
		"unknown entity type": {func(r *copse.Request) {
			r.Entities = cedarJSON(`[{"uid": {"type": "Grp", "id": "g"}, "attrs": {}, "parents": []}]`)
		}, `entity Grp::"g"`, "no entity type Grp"},
		"enum entity": {func(r *copse.Request) {
			r.Entities = cedarJSON(`[{"uid": {"type": "Colour", "id": "blue"}, "attrs": {}, "parents": []}]`)
		}, `entity Colour::"blue"`, "not one of the entities"},
		"enum with attributes": {func(r *copse.Request) {
			r.Entities = cedarJSON(`[{"uid": {"type": "Colour", "id": "red"}, "attrs": {"a": 1}, "parents": []}]`)
		}, `entity Colour::"red"`, "has no attributes"},
		"enum in an attribute": {func(r *copse.Request) {
			r.Entities = cedarJSON("[" + strings.Replace(goodDoc, `"id": "red"`, `"id": "blue"`, 1) + "]")
		}, `entity Doc::"d".colour`, "not one of the entities"},
		"entity type of attribute": {func(r *copse.Request) {
			r.Entities = cedarJSON("[" + strings.Replace(goodDoc, `"type": "User"`, `"type": "Group"`, 1) + "]")
		}, `entity Doc::"d".owner`, "wants an entity of type User, this one is of type Group"},
	} {
		req := readRequest()
		test.change(req)
		got, err := checked.Decide(req)
		if test.path == "" {
			if err != nil || got.Decision != copse.Allow {
				t.Errorf("%s: %+v %v", what, got, err)
			}
			continue
		}
		if f := invalid(t, err)[0]; f.Path != test.path || !strings.Contains(f.Message, test.message) {
			t.Errorf("%s: got %+v, want %s %q", what, f, test.path, test.message)
		}
		if got, err := unchecked.Decide(req); err != nil || got.Decision != copse.Allow {
			t.Errorf("%s, unchecked: %+v %v", what, got, err)
		}
	}
}

// Doc may be in Folder because it may be in Sub and Sub in Folder, as Cedar's reference has it.
// What need not be there is not gone through: a request of a million bytes has room for tens of thousands
// of small records, and a schema for thousands of members.
func TestCheckingIsUpToTheRequest(t *testing.T) {
	var optional strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&optional, "o%04d?: Long, ", i)
	}
	schema := mustSchema(t, `entity User, Doc; action view appliesTo { principal: User, resource: Doc, context: {`+optional.String()+` a: Long, z: Long } };`)
	s := compileText(t, schema, copse.Settings{CheckRequests: true}, `permit(principal, action, resource);`)
	context := schema.contextShape(&entity{number: 0})
	if len(context.members) != 3002 || len(context.required) != 2 {
		t.Errorf("of %d members %d are required", len(context.members), len(context.required))
	}
	for data, want := range map[string]string{
		`{"a": 1, "z": 2}`:                              "",
		`{"a": 1, "z": 2, "o0000": 1, "o2999": 1}`:      "",
		`{"o1000": 1}`:                                  "context.a the schema requires this context member for Action::\"view\"; context.z the schema requires this context member for Action::\"view\"",
		`{"a": 1, "o1000": "x", "o3000": 1, "z": true}`: "context.o1000 the schema wants Long, this is String; context.z the schema wants Long, this is Bool; context.o3000 the schema does not declare this context member for Action::\"view\"",
	} {
		req := viewRequest()
		req.Context = cedarJSON(data)
		_, err := s.Decide(req)
		var got []string
		if e, ok := errors.AsType[*copse.Error](err); ok {
			for _, f := range e.Fields {
				got = append(got, f.Path+" "+f.Message)
			}
		}
		slices.Sort(got)
		wanted := strings.Split(want, "; ")
		slices.Sort(wanted)
		if strings.Join(got, "; ") != strings.Join(wanted, "; ") {
			t.Errorf("%s: got %q, want %q", data, got, wanted)
		}
	}
}

func TestParentTypesAreTransitive(t *testing.T) {
	s := compileText(t, mustSchema(t, shopSchema), copse.Settings{CheckRequests: true}, `permit(principal, action, resource in Folder::"f");`)
	if got, err := s.Decide(readRequest()); err != nil || got.Decision != copse.Allow {
		t.Errorf("got %+v %v", got, err)
	}
}

// What copse put in itself and the schema does not know is no fault of the caller's, and is still there
// for policies. What the schema declares is checked, whoever sent it.
func TestServerDataIsCheckedAsFarAsDeclared(t *testing.T) {
	s := compileText(t, mustSchema(t, `
		entity Group;
		entity User { age: Long };
		entity Doc;
		action read appliesTo { principal: User, resource: Doc, context: { token: { scope: Set<String> }, mfa?: Bool } };
		action plain appliesTo { principal: User, resource: Doc };`),
		copse.Settings{CheckRequests: true},
		`permit(principal in Group::"admins", action, resource) when { principal.email like "*@x" && context.token.iss == "idp" };`)
	base := func() *copse.Request {
		return &copse.Request{
			Principal: uid("User", "a"), Action: uid("Action", "read"), Resource: uid("Doc", "d"),
			ServerEntities: cedarJSON(`[{"uid": {"type": "User", "id": "a"}, "attrs": {"age": 3, "email": "a@x"}, "parents": [{"type": "Group", "id": "admins"}]},
				{"uid": {"type": "Stray", "id": "s"}, "attrs": {"x": 1}, "parents": []}]`),
			ServerContext: cedarJSON(`{"token": {"scope": ["a"], "iss": "idp", "deep": {"er": 1}}}`),
			ReservedTypes: []types.EntityType{"User", "Group"},
		}
	}
	for _, action := range []string{"read", "plain"} {
		req := base()
		req.Action = uid("Action", action)
		if got, err := s.Decide(req); err != nil || got.Decision != copse.Allow {
			t.Errorf("%s: %+v %v", action, got, err)
		}
	}
	for what, test := range map[string]struct {
		change        func(*copse.Request)
		path, message string
	}{
		"declared claim of another type": {func(r *copse.Request) { r.ServerContext = cedarJSON(`{"token": {"scope": "a"}}`) }, "context.token.scope", "wants Set, this is String"},
		"declared claim missing":         {func(r *copse.Request) { r.ServerContext = cedarJSON(`{"token": {}}`) }, "context.token.scope", "requires this attribute"},
		"declared attribute's type": {func(r *copse.Request) {
			r.ServerEntities = cedarJSON(`[{"uid": {"type": "User", "id": "a"}, "attrs": {"age": "3"}, "parents": []}]`)
		}, `entity User::"a".age`, "wants Long, this is String"},
		"the caller's own context": {func(r *copse.Request) { r.Context = cedarJSON(`{"other": 1}`) }, "context.other", "does not declare"},
		"the caller's own entity": {func(r *copse.Request) {
			r.Entities = cedarJSON(`[{"uid": {"type": "Doc", "id": "d"}, "attrs": {"x": 1}, "parents": []}]`)
		}, `entity Doc::"d".x`, "does not declare"},
	} {
		req := base()
		test.change(req)
		_, err := s.Decide(req)
		if f := invalid(t, err)[0]; f.Path != test.path || !strings.Contains(f.Message, test.message) {
			t.Errorf("%s: got %+v, want %s %q", what, f, test.path, test.message)
		}
	}
}

// With a schema, Cedar's JSON may leave out what only the schema can tell.
func TestSchemaDirectedForms(t *testing.T) {
	schema := mustSchema(t, `
		entity User { boss: User, from: ipaddr, at: Set<datetime>, nested: { cost: decimal } } tags duration;
		entity Doc;
		action read appliesTo { principal: User, resource: Doc, context: { who: User } };`)
	s := compileText(t, schema, copse.Settings{CheckRequests: true}, `permit(principal, action, resource) when {
		principal.boss == User::"b" && principal.from.isLoopback() && principal.at.contains(datetime("2024-01-02")) &&
		principal.nested.cost.lessThan(decimal("2.0")) && principal.getTag("t").toHours() == 1 && context.who == User::"c" };`)
	req := &copse.Request{
		Principal: uid("User", "a"), Action: uid("Action", "read"), Resource: uid("Doc", "d"),
		Context: cedarJSON(`{"who": {"type": "User", "id": "c"}}`),
	}
	for _, order := range []string{
		`[{"uid": {"type": "User", "id": "a"}, "attrs": %s, "parents": [], "tags": {"t": "1h"}}]`,
		`[{"tags": {"t": "1h"}, "attrs": %s, "parents": [], "uid": {"type": "User", "id": "a"}}]`,
	} {
		req.Entities = cedarJSON(strings.Replace(order, "%s", `{"boss": {"type": "User", "id": "b"}, "from": "127.0.0.1", "at": ["2024-01-02"], "nested": {"cost": "1.5"}}`, 1))
		if got, err := s.Decide(req); err != nil || got.Decision != copse.Allow || len(got.Errors) > 0 {
			t.Errorf("got %+v %v", got, err)
		}
	}
	req.Entities = cedarJSON(`[{"tags": {"t": "soon"}, "attrs": {}, "parents": [], "uid": {"type": "User", "id": "a"}}]`)
	_, err := s.Decide(req)
	wantField(t, err, 1, 23, `[0].tags.t: "soon" is not a valid duration`)
}
