//go:build !race

package engine

import (
	"fmt"
	"testing"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

// Named cases on which the reference and the engine are asked the same: each was a disagreement once, of
// the engine or of what it is built on, or is something that the corpus does not have.

const caseSchema = `
entity Group in [Group];
entity Color enum ["red", "green"];
entity User in [Group] { name: String, likes?: Color, manager?: User } tags String;
entity Folder in [Folder];
entity Doc in [Folder] { owner: User, public?: Bool };
action read in [all] appliesTo { principal: [User], resource: [Doc, Folder], context: { mfa?: Bool, theme?: Color } };
action paint appliesTo { principal: [User], resource: [Color], context: {} };
action all;
`

func TestReferenceOnNamedPolicies(t *testing.T) {
	r := startReference(t)
	schema := mustSchema(t, caseSchema)
	for name, test := range map[string]struct {
		policy string
		valid  bool
	}{
		"condition after one that can't be met":       {`permit(principal, action, resource) when { resource is Doc } when { resource.owner == principal };`, true},
		"unless after false":                          {`permit(principal, action, resource) when { false } unless { principal.nothing };`, true},
		"when after unless true":                      {`permit(principal, action, resource) unless { true } when { principal.nothing };`, true},
		"has in one condition, access in the next":    {`permit(principal, action, resource is Doc) when { resource has public } when { resource.public };`, true},
		"access before has":                           {`permit(principal, action, resource is Doc) when { resource.public } when { resource has public };`, false},
		"has under unless":                            {`permit(principal, action, resource is Doc) unless { resource has public } when { resource.public };`, false},
		"declared enum id":                            {`permit(principal, action, resource == Color::"red");`, true},
		"undeclared enum id in the scope":             {`permit(principal, action, resource == Color::"blue");`, false},
		"undeclared enum id in a condition":           {`permit(principal, action, resource) when { resource == Color::"blue" };`, false},
		"undeclared enum id after false":              {`permit(principal, action, resource) when { false && resource == Color::"blue" };`, false},
		"attribute of an enum type":                   {`permit(principal, action == Action::"paint", resource) when { resource.x };`, false},
		"tags where there are none":                   {`permit(principal, action, resource is Doc) when { resource.hasTag("a") };`, true},
		"tag not known to be there":                   {`permit(principal, action, resource) when { principal.getTag("a") == "b" };`, false},
		"action group":                                {`permit(principal, action in Action::"all", resource is Folder);`, true},
		"action that applies to nothing":              {`permit(principal, action == Action::"all", resource);`, false},
		"grandparent type in the scope":               {`permit(principal in Group::"g", action, resource in Folder::"f");`, true},
		"type that can't be in the scope's":           {`permit(principal in Folder::"f", action, resource);`, false},
		"action that does not apply to the resource":  {`permit(principal, action == Action::"paint", resource is Doc);`, false},
		"unknown entity type":                         {`permit(principal is Robot, action, resource);`, false},
		"comparison of unrelated types":               {`permit(principal, action, resource) when { principal == resource };`, true},
		"comparison of text and number":               {`permit(principal, action, resource) when { principal.name == 1 };`, false},
		"empty set":                                   {`permit(principal, action, resource) when { [].contains(1) };`, false},
		"extension value that is none":                {`permit(principal, action, resource) when { ip("x").isIpv4() };`, false},
		"extension value from an attribute":           {`permit(principal, action, resource) when { ip(principal.name).isIpv4() };`, false},
		"attribute of a record literal":               {`permit(principal, action, resource) when { {a: 1}.a == 1 };`, true},
		"extended has over an optional attribute":     {`permit(principal, action, resource) when { principal has manager.name && principal.manager.name == "x" };`, true},
		"access over an optional attribute":           {`permit(principal, action, resource) when { principal has manager && principal.manager.likes == Color::"red" };`, false},
		"context of one action only":                  {`permit(principal, action, resource) when { context has mfa && context.mfa };`, true},
		"context that only another action has":        {`permit(principal, action == Action::"paint", resource) when { context.mfa };`, false},
		"has on what can't be there is false":         {`permit(principal, action == Action::"paint", resource) when { context has mfa && context.mfa };`, true},
		"if whose branches differ":                    {`permit(principal, action, resource) when { (if true then 1 else "x") == 1 };`, true},
		"like on a number":                            {`permit(principal, action, resource) when { 1 like "x" };`, false},
		"entity literal of an action that is unknown": {`permit(principal, action, resource) when { action == Action::"nope" };`, false},
	} {
		var want referenceVerdict
		r.ask(t, "validate", fmt.Sprintf(`{"schema":%s,"policies":{"staticPolicies":%s}}`, quoted(caseSchema), textsJSON(map[string]string{"p": test.policy})), &want)
		if want.refused() {
			t.Errorf("%s: the reference can't read it: %+v", name, want.Errors)
			continue
		}
		got := schema.Validate(mustPolicies(t, "p", test.policy)...)
		if byReference := len(want.ValidationErrors) == 0; byReference != test.valid || (got == nil) != test.valid {
			t.Errorf("%s: got %v, the reference says %+v, this case %v", name, got, want.ValidationErrors, test.valid)
		}
	}
}

// Entities and requests under a schema: what is refused, and what is not.
func TestReferenceOnNamedRequests(t *testing.T) {
	r := startReference(t)
	schema := mustSchema(t, caseSchema)
	snapshot := compileText(t, schema, copse.Settings{CheckRequests: true}, `permit(principal, action, resource);`)
	policies := policySetJSON(map[string]written{"p0": {text: `permit(principal, action, resource);`}})
	const (
		user   = `{"uid":{"type":"User","id":"a"},"attrs":{"name":"x"%s},"parents":[%s]%s}`
		group  = `{"uid":{"type":"Group","id":%q},"attrs":{},"parents":[{"type":"Group","id":%q}]}`
		folder = `{"uid":{"type":"Folder","id":"f"},"attrs":{},"parents":[]}`
	)
	with := func(attrs, parents, tags string) string { return fmt.Sprintf(user, attrs, parents, tags) }
	read := types.Request{Principal: uid("User", "a"), Action: uid("Action", "read"), Resource: uid("Doc", "d")}
	paint := read
	paint.Action = uid("Action", "paint")
	of := func(request types.Request, resource types.EntityUID) types.Request {
		request.Resource = resource
		return request
	}
	for name, test := range map[string]struct {
		request           types.Request
		entities, context string
		refused           bool
	}{
		"nothing but names":               {read, ``, `{}`, false},
		"attributes":                      {read, with(`,"likes":{"__entity":{"type":"Color","id":"red"}}`, ``, ``), `{}`, false},
		"undeclared enum id":              {read, with(`,"likes":{"__entity":{"type":"Color","id":"blue"}}`, ``, ``), `{}`, true},
		"another entity than the enum's":  {read, with(`,"likes":{"__entity":{"type":"Group","id":"red"}}`, ``, ``), `{}`, true},
		"enum id in the context":          {read, ``, `{"theme":{"__entity":{"type":"Color","id":"red"}}}`, false},
		"undeclared enum in the context":  {read, ``, `{"theme":{"__entity":{"type":"Color","id":"blue"}}}`, true},
		"enum resource":                   {of(paint, uid("Color", "red")), ``, `{}`, false},
		"undeclared enum resource":        {of(paint, uid("Color", "blue")), ``, `{}`, true},
		"action does not apply":           {of(read, uid("Color", "red")), ``, `{}`, true},
		"action group as the action":      {types.Request{Principal: read.Principal, Action: uid("Action", "all"), Resource: read.Resource}, ``, `{}`, true},
		"unknown action":                  {types.Request{Principal: read.Principal, Action: uid("Action", "x"), Resource: read.Resource}, ``, `{}`, true},
		"enum entity that is only a name": {read, `{"uid":{"type":"Color","id":"red"},"attrs":{},"parents":[]}`, `{}`, false},
		"enum entity with an attribute":   {read, `{"uid":{"type":"Color","id":"red"},"attrs":{"x":1},"parents":[]}`, `{}`, true},
		"undeclared enum entity":          {read, `{"uid":{"type":"Color","id":"blue"},"attrs":{},"parents":[]}`, `{}`, true},
		"parent":                          {read, with(``, `{"type":"Group","id":"g"}`, ``), `{}`, false},
		"parent that can't be":            {read, with(``, `{"type":"Folder","id":"g"}`, ``), `{}`, true},
		"missing attribute":               {read, `{"uid":{"type":"User","id":"a"},"attrs":{},"parents":[]}`, `{}`, true},
		"undeclared attribute":            {read, with(`,"x":1`, ``, ``), `{}`, true},
		"wrong type":                      {read, with(`,"manager":1`, ``, ``), `{}`, true},
		"tags":                            {read, with(``, ``, `,"tags":{"a":"b"}`), `{}`, false},
		"tag of a wrong type":             {read, with(``, ``, `,"tags":{"a":1}`), `{}`, true},
		"tags where there are none":       {read, `{"uid":{"type":"Folder","id":"f"},"attrs":{},"parents":[],"tags":{"a":"b"}}`, `{}`, true},
		"context":                         {read, ``, `{"mfa":true}`, false},
		"context of a wrong type":         {read, ``, `{"mfa":1}`, true},
		"undeclared context":              {read, ``, `{"x":1}`, true},
		"context that another action has": {of(paint, uid("Color", "red")), ``, `{"mfa":true}`, true},
		"unknown entity type":             {read, `{"uid":{"type":"Robot","id":"f"},"attrs":{},"parents":[]}`, `{}`, true},
		"cycle":                           {read, fmt.Sprintf(group, "g", "h") + "," + fmt.Sprintf(group, "h", "g"), `{}`, true},
		"its own parent":                  {read, fmt.Sprintf(group, "g", "g"), `{}`, true},
		"the same entity twice":           {read, folder + "," + folder, `{}`, false}, // see below
		"two entities of one name":        {read, with(``, ``, ``) + "," + with(`,"manager":{"__entity":{"type":"User","id":"b"}}`, ``, ``), `{}`, true},
	} {
		entities := "[" + test.entities + "]"
		var want referenceVerdict
		r.ask(t, "isAuthorized", authorizationJSON(quoted(caseSchema), policies, entities, test.context, test.request), &want)
		got, err := snapshot.Decide(&copse.Request{
			Principal: test.request.Principal, Action: test.request.Action, Resource: test.request.Resource,
			Entities: cedarJSON(entities), Context: cedarJSON(test.context),
		})
		refused := test.refused
		if name == "the same entity twice" {
			refused = true // the reference lets it pass when both are equal; copse refuses a name twice, always
		}
		if want.refused() != test.refused || (err != nil) != refused || err == nil && got.Decision != copse.Allow {
			t.Errorf("%s: got %+v %v, the reference says %+v, this case %v", name, got, err, want, test.refused)
		}
	}
}

// Expressions at the edges: the same value, or the same kind of error.
func TestReferenceOnNamedExpressions(t *testing.T) {
	r := startReference(t)
	for _, expression := range []string{
		// Arithmetic ends where 64 bits do.
		`9223372036854775807 + 1 > 0`, `-9223372036854775808 - 1 < 0`, `-(-9223372036854775807) > 0`, `0 - -9223372036854775808 > 0`,
		`context.least * -1 > 0`, `-1 * context.least > 0`, `context.least * 1 < 0`, `-context.least > 0`, `4611686018427387904 * -2 == context.least`, `3037000500 * 3037000500 > 0`,
		`context.least - 1 < 0`, `context.most + context.least == -1`, `1 + -1 == 0`, `0 * context.least == 0`,
		// What is not looked at can't fail.
		`false && context.missing`, `true || context.missing`, `if true then true else context.missing`, `if context.missing then true else false`,
		`true && context.missing`, `context.missing && false`, `false || context.missing`, `true && 1`, `false && 1`, `1 && true`, `!1 == 1`,
		// Equality holds between any types; order does not.
		`1 == "1"`, `[1] == [1, 1]`, `[] == {}`, `{a: 1, b: 2} == {b: 2, a: 1}`, `{a: 1} == {a: 1, b: 2}`, `[[1, 2], [2, 1]] == [[1, 2]]`, `[1, "a", [1]] == [[1], "a", 1]`,
		`1 < "1"`, `"a" < "b"`, `datetime("2024-01-01") < duration("1h")`, `decimal("1.0") < decimal("2.0")`, `true < false`,
		`User::"a" == User::"a"`, `User::"a" == Group::"a"`, `User::"nobody" == User::"nobody"`,
		// Sets.
		`[1, 2, 3].containsAll([])`, `[].containsAll([])`, `[].containsAny([])`, `[].isEmpty()`, `[1].containsAll([1, 1, 1])`, `[1, 2].containsAny([2, 3])`, `[[]].contains([])`,
		`[1, true, "a", User::"a", ip("::1"), decimal("1.0"), {a: [1]}].containsAll([{a: [1]}, decimal("1.00"), ip("::1"), User::"a", "a", true, 1])`,
		`"a".contains("a")`, `[1].containsAll(1)`, `[1].containsAny(context.missing)`, `[ip("10.0.0.1")].contains(ip("10.0.0.1/32"))`,
		// Hierarchy.
		`principal in principal`, `User::"nobody" in User::"nobody"`, `User::"nobody" in Group::"g"`, `principal in Group::"g"`, `principal in Group::"top"`, `Group::"g" in principal`,
		`principal in []`, `principal in [Group::"x", Group::"top"]`, `principal in [Group::"top", 1]`, `principal in 1`, `1 in principal`, `principal in [principal]`, `action in Action::"all"`, `action in action`,
		`principal is User in Group::"top"`, `principal is Group in 1`, `principal is User in 1`, `1 is User`, `User::"nobody" is User`,
		// Attributes and tags.
		`principal.name == "x"`, `principal.missing == 1`, `User::"nobody".name == "x"`, `User::"nobody" has name`, `principal has name`, `principal has missing`, `1 has a`, `context has a.b.c`, `context has inner.deep.flag`,
		`context has inner.deep.flag.more`, `context.inner.deep.flag`, `context["inner"]["deep"]["flag"]`, `{"odd name": true}["odd name"]`, `{a: true}.b`, `context has inner.missing.flag`,
		`principal.hasTag("t")`, `principal.getTag("t") == "v"`, `principal.getTag("none") == "v"`, `principal.hasTag("none")`, `User::"nobody".hasTag("t")`, `User::"nobody".getTag("t") == "v"`, `principal.hasTag(1)`, `context.hasTag("t")`,
		// Patterns.
		`"abc" like "a*c"`, `"abc" like "*"`, `"" like "*"`, `"" like ""`, `"a*c" like "a\*c"`, `"abc" like "a\*c"`, `"aab" like "*ab"`, `"aaa" like "a*a*a*a"`, `"日本語" like "日*語"`, `"日本" like "日?"`, `"a\nb" like "a*b"`, `1 like "*"`, `"ab" like "ab*b"`,
		// Extension types.
		`ip("127.0.0.1").isLoopback()`, `ip("127.0.0.0/8").isLoopback()`, `ip("126.0.0.0/7").isLoopback()`, `ip("::1").isIpv6()`, `ip("224.0.0.1").isMulticast()`, `ip("10.0.0.5").isInRange(ip("10.0.0.0/24"))`, `ip("10.0.0.0/23").isInRange(ip("10.0.0.0/24"))`,
		`ip("10.0.0.0/24").isInRange(ip("10.0.0.0/24"))`, `ip("::ffff:10.0.0.1") == ip("10.0.0.1")`, `ip("10.0.0.1").isInRange(ip("::/0"))`, `ip("010.0.0.1").isIpv4()`, `ip("10.0.0.1/33").isIpv4()`, `ip("fe80::1%eth0").isIpv6()`, `ip("0.0.0.0/0") == ip("1.2.3.4/0")`,
		`decimal("1.0") == decimal("1.0000")`, `decimal("-0.5").lessThan(decimal("0.0"))`, `decimal("922337203685477.5808").lessThan(decimal("0.0"))`, `decimal("-922337203685477.5808").lessThan(decimal("0.0"))`, `decimal("1").lessThan(decimal("2.0"))`, `decimal("1.00000").lessThan(decimal("2.0"))`,
		`decimal("1.0").lessThan(1)`, `decimal("-0.0") == decimal("0.0")`, `decimal(".5").lessThan(decimal("1.0"))`,
		`datetime("1969-12-31T23:59:59Z").toDate() == datetime("1969-12-31")`, `datetime("1969-12-31").toDate() == datetime("1969-12-31")`, `datetime("1969-12-31T23:00:00Z").toTime() == duration("23h")`, `datetime("2024-02-29") < datetime("2024-03-01")`,
		`datetime("1970-01-01").offset(duration("-9223372036854775807ms")).offset(duration("-1ms")).toDate() < datetime("1970-01-01")`, `datetime("1970-01-01").offset(duration("-9223372036854775807ms")).offset(duration("-1ms")).toTime() > duration("0s")`,
		`datetime("2023-02-29") < datetime("2024-03-01")`, `datetime("2024-01-01T00:00:00+0100") == datetime("2023-12-31T23:00:00Z")`, `datetime("2024-01-01T24:00:00Z") == datetime("2024-01-02")`, `datetime("2024-12-31T23:59:60Z") < datetime("2025-01-01")`,
		`datetime("2024-01-01").offset(duration("-1d")) == datetime("2023-12-31")`, `datetime("2024-01-02").durationSince(datetime("2024-01-01")) == duration("24h")`, `datetime("2024-01-01").offset(duration("9223372036854775807ms")) > datetime("2024-01-01")`,
		`duration("1d").toHours() == 24`, `duration("-90s").toMinutes() == -1`, `duration("-1ms").toSeconds() == 0`, `duration("1h1d") == duration("25h")`, `duration("") == duration("0ms")`, `duration("1d1d") == duration("2d")`, `duration("106751991168d").toDays() > 0`,
		`duration("-") == duration("0s")`, `duration("1s").toMilliseconds() == 1000`, `duration("59m").toHours() == 0`,
	} {
		text := "permit(principal, action, resource) when { " + expression + " };"
		const (
			entities = `[{"uid":{"type":"User","id":"a"},"attrs":{"name":"x"},"parents":[{"type":"Group","id":"g"}],"tags":{"t":"v"}},
				{"uid":{"type":"Group","id":"g"},"attrs":{},"parents":[{"type":"Group","id":"top"}]}]`
			context = `{"least":-9223372036854775808,"most":9223372036854775807,"inner":{"deep":{"flag":true}}}`
		)
		p, err := ParsePolicy("p", []byte(text))
		var want referenceVerdict
		request := types.Request{Principal: uid("User", "a"), Action: uid("Action", "view"), Resource: uid("Doc", "d")}
		r.ask(t, "isAuthorized", authorizationJSON("", policySetJSON(map[string]written{"p0": {text: text}}), entities, context, request), &want)
		if (err != nil) != want.refused() {
			t.Errorf("%s: got %v, the reference says %+v", expression, err, want.Errors)
		}
		if err != nil {
			continue
		}
		snapshot, err := Compile(nil, copse.Settings{}, []Source{{Ref: copse.PolicyRef{ID: "p0"}, Policy: p}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := snapshot.Decide(&copse.Request{
			Principal: request.Principal, Action: request.Action, Resource: request.Resource, Entities: cedarJSON(entities), Context: cedarJSON(context)})
		if err != nil || !want.sameAs(got) {
			t.Errorf("%s: got %v %v, the reference says %v", expression, verdictOf(got), err, want.judged())
		}
	}
}
