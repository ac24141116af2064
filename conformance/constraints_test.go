package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// Every constraint of the service model is checked before anything is done: for each member of each
// operation's input, a request that is right but for that member is refused with a
// ValidationException whose fieldList names that member and no other.
func TestEveryMemberIsValidated(t *testing.T) {
	m, s := loadModel(t), start(t)
	ps, untouched := s.newPolicyStore(t), s.newPolicyStore(t)
	// So that requests with tokens get as far as their entities.
	source := s.call(t, "CreateIdentitySource", `{"policyStoreId":"`+untouched+`","principalEntityType":"Person","configuration":{"cognitoUserPoolConfiguration":{"userPoolArn":"`+poolARN+`"}}}`)
	if source.status != http.StatusOK {
		t.Fatal(source.text)
	}
	tokens := map[string]string{"identityToken": s.issuer.token(t, "id", nil), "accessToken": s.issuer.token(t, "access", nil)}
	before := s.lists(t, untouched)
	violations := 0
	for name, op := range m.Operations {
		t.Run(name, func(t *testing.T) {
			asked := map[string]bool{}
			for _, choice := range m.choices(op.Input.Shape) {
				g := &generator{model: m, operation: name, policyStore: ps, choice: choice, tokens: tokens}
				base := g.body(op.Input.Shape)
				if a := s.call(t, name, base); a.thrown == "ValidationException" || a.thrown == "UnknownOperationException" {
					t.Errorf("the request that is to be spoilt is refused already: %s\n%s", a.text, base)
					continue
				}
				for _, v := range g.violations(op.Input.Shape, "") {
					if asked[v.name()] {
						continue
					}
					asked[v.name()] = true
					violations++
					if accepted[v.rule+" "+v.shape] != "" || v.rule == "too short" && v.shape == "EntityId" && inCedarValue(v.path) {
						continue
					}
					g.spoil, g.policyStore = v, untouched
					body := g.body(op.Input.Shape)
					g.spoil, g.policyStore = violation{}, ps
					a := s.call(t, name, body)
					if a.status != http.StatusBadRequest || a.thrown != "ValidationException" || !v.named(a) {
						t.Errorf("%s: %d %s", v.name(), a.status, clip(a.text))
					}
				}
			}
		})
	}
	if violations < 1000 {
		t.Errorf("only %d violations were tried", violations)
	}
	if after := s.lists(t, untouched); after != before {
		t.Errorf("something was stored: %s, then %s", before, after)
	}
}

// accepted are violations of the model that copse takes on purpose, by rule and shape.
var accepted = map[string]string{
	"pattern ActionId":            "line breaks in ids are Cedar's to allow",
	"pattern EntityId":            "line breaks in ids are Cedar's to allow",
	"pattern EntityType":          "a type with a line break is no Cedar type: refused where one is read",
	"pattern PrincipalEntityType": "see EntityType",
	"too many TagMap":             "TooManyTagsException says it better",
	"pattern ClientId":            "a client's id is compared byte by byte with what a token says",
}

// violation is one way to spoil a request.
type violation struct {
	path  string // of the member: requests[0].action.actionId
	rule  string
	shape string
	with  any // the value instead
}

func (v violation) name() string { return v.path + ": " + v.rule }

// inCedarValue tells whether the engine reads what is at a path. It takes an empty entity id, as Cedar
// does.
func inCedarValue(path string) bool {
	return strings.Contains(path, "contextMap") || strings.Contains(path, "entityList")
}

// named tells whether an answer names the member and no other. The engine, which reads Cedar values,
// may name the identifier instead of its half; of a map, the map or the entry may be named.
func (v violation) named(a *answer) bool {
	parent := v.path
	if i := strings.LastIndex(v.path, "."); i > 0 && (inCedarValue(v.path) || strings.HasSuffix(v.path, ".k")) {
		parent = v.path[:i]
	}
	for _, f := range a.fields {
		if f.Path != v.path && f.Path != parent && !strings.HasPrefix(f.Path, v.path+".") && v.path != "" {
			return false
		}
	}
	return len(a.fields) > 0
}

// Values that have no JSON form by themselves.
type (
	absent  struct{}            // the member is left out
	twice   struct{ of any }    // the member is there twice
	unknown struct{ of object } // with a member nobody knows
	object  []member
	member  struct {
		name  string
		value any
	}
)

// generator writes requests with all members, one variant of each union.
type generator struct {
	model       *model
	operation   string
	policyStore string
	choice      map[string]string // union shape -> member
	tokens      map[string]string // member -> a token that the policy store takes
	spoil       violation
}

func (g *generator) body(shapeName string) string {
	return write(g.value(shapeName, "", nil))
}

func (g *generator) value(shapeName, path string, above []string) any {
	v := g.rightValue(shapeName, path, above)
	if g.spoil.rule == "" || g.spoil.path != path {
		return v
	}
	switch g.spoil.with.(type) {
	case twice:
		return twice{v}
	case unknown:
		return unknown{v.(object)}
	}
	return g.spoil.with
}

func (g *generator) rightValue(shapeName, path string, above []string) any {
	s := g.model.Shapes[shapeName]
	switch s.Type {
	case "structure":
		out := object{}
		for _, name := range s.memberNames() {
			if s.Union && name != g.variant(shapeName, above) || g.leavesOut(join(path, name)) {
				continue
			}
			out = append(out, member{name, g.value(s.Members[name].Shape, join(path, name), append(above, shapeName))})
		}
		return out
	case "list":
		return []any{g.value(s.Member.Shape, path+"[0]", append(above, shapeName))}
	case "map":
		return object{{"k", g.value(s.Value.Shape, join(path, "k"), append(above, shapeName))}}
	case "boolean":
		return true
	case "integer", "long":
		return 1
	}
	if len(s.Enum) > 0 {
		return s.Enum[0]
	}
	switch {
	case strings.HasSuffix(path, "context.cedarJson"):
		return "{}"
	case g.tokens[path] != "":
		return g.tokens[path]
	case strings.Contains(path, "parents") && shapeName == "EntityId":
		return "parent"
	}
	if text, ok := g.sample(shapeName); ok {
		return text
	}
	return "x"
}

// leavesOut names the members that no right request of this generator has: a page's token, which only
// the server can make. They are there when it is their turn to be wrong.
func (g *generator) leavesOut(path string) bool {
	return path == "nextToken" && g.spoil.path != path
}

// variant is the member of a union: the chosen one, but inside itself one that ends.
func (g *generator) variant(shapeName string, above []string) string {
	if chosen, ok := g.choice[shapeName]; ok && !slices.Contains(above, shapeName) {
		return chosen
	}
	if _, ok := g.model.Shapes[shapeName].Members["string"]; ok {
		return "string"
	}
	return g.model.Shapes[shapeName].memberNames()[0]
}

func (g *generator) sample(shapeName string) (string, bool) {
	samples := map[string]string{
		"PolicyStoreId": g.policyStore, "Alias": "policy-store-alias/x", "PolicyName": "name/x", "PolicyTemplateName": "name/x",
		"ActionType": "Action", "ActionId": "view", "EntityType": "User", "PrincipalEntityType": "Person", "ClientId": "client-1", "GroupEntityType": "Group",
		"PolicyStatement": "permit (principal, action, resource);", "SchemaJson": `{}`,
		"AmazonResourceName": "arn:aws:verifiedpermissions::000000000000:policy-store/" + g.policyStore,
		"ResourceArn":        "arn:aws:verifiedpermissions::000000000000:policy-store/" + g.policyStore,
		"UserPoolArn":        "arn:aws:cognito-idp:eu-west-1:000000000000:userpool/eu-west-1_Abcdefghi",
		"Issuer":             "https://idp.example.com", "DiscoveryUrl": "https://idp.example.com", "KmsKey": "alias/key",
		"NextToken": "AAAA",
		"Decimal":   "1.0", "IpAddr": "10.0.0.1", "DatetimeAttribute": "2026-01-01", "Duration": "1h",
		"CedarJson": "[]",
	}
	if g.operation == "DeletePolicyStore" && shapeName == "PolicyStoreId" {
		return "never-was", true
	}
	if g.operation == "UpdatePolicyTemplate" || g.operation == "CreatePolicyTemplate" {
		samples["PolicyStatement"] = "permit (principal == ?principal, action, resource == ?resource);"
	}
	text, ok := samples[shapeName]
	return text, ok
}

// choices lists, for each union below a shape, each of its variants once.
func (m *model) choices(shapeName string) []map[string]string {
	out := []map[string]string{{}}
	seen := map[string]bool{}
	var walk func(name string, above map[string]string)
	walk = func(name string, above map[string]string) {
		if seen[name] {
			return
		}
		seen[name] = true
		s := m.Shapes[name]
		for _, memberName := range s.memberNames() {
			inside := above
			if s.Union {
				inside = map[string]string{name: memberName}
				for k, v := range above {
					inside[k] = v
				}
				out = append(out, inside)
			}
			walk(s.Members[memberName].Shape, inside)
		}
		for _, r := range []ref{s.Member, s.Value} {
			if r.Shape != "" {
				walk(r.Shape, above)
			}
		}
	}
	walk(shapeName, map[string]string{})
	return out
}

// violations lists what can be wrong at and below a path, in a request that this generator writes.
func (g *generator) violations(shapeName, path string) []violation {
	return g.violationsIn(shapeName, path, nil)
}

func (g *generator) violationsIn(shapeName, path string, above []string) (out []violation) {
	s := g.model.Shapes[shapeName]
	add := func(path, rule string, with any) { out = append(out, violation{path, rule, shapeName, with}) }
	below := append(slices.Clone(above), shapeName)
	if path != "" {
		if !strings.HasSuffix(path, "]") { // an item of a list given twice is only a longer list
			add(path, "twice", twice{})
		}
		wrongType := any(7)
		if s.Type == "integer" || s.Type == "long" {
			wrongType = "7"
		}
		add(path, "wrong JSON type", wrongType)
	}
	switch s.Type {
	case "structure":
		add(path, "unknown member", unknown{})
		if s.Union {
			add(path, "no variant", object{})
			if first, second, ok := g.twoVariants(shapeName, path, below); ok {
				add(path, "two variants", object{first, second})
			}
		}
		for _, name := range s.Required {
			out = append(out, violation{join(path, name), "missing", shapeName, absent{}}, violation{join(path, name), "null", shapeName, nil})
		}
		for _, name := range s.memberNames() {
			if s.Union && name != g.variant(shapeName, above) {
				continue
			}
			out = append(out, g.violationsIn(s.Members[name].Shape, join(path, name), below)...)
		}
	case "list":
		item := g.value(s.Member.Shape, path+"[0]", below)
		if s.Min != nil && *s.Min > 0 {
			add(path, "too few", []any{})
		}
		if s.Max != nil {
			add(path, "too many", slices.Repeat([]any{item}, *s.Max+1))
		}
		out = append(out, g.violationsIn(s.Member.Shape, path+"[0]", below)...)
	case "map":
		if s.Max != nil {
			add(path, "too many", many(*s.Max+1, g.value(s.Value.Shape, join(path, "k"), below)))
		}
		if key := g.model.Shapes[s.Key.Shape]; key.Max != nil {
			add(path, "key too long", object{{strings.Repeat("k", *key.Max+1), g.value(s.Value.Shape, join(path, "k"), below)}})
		}
		out = append(out, g.violationsIn(s.Value.Shape, join(path, "k"), below)...)
	case "integer", "long":
		if s.Min != nil {
			add(path, "too small", *s.Min-1)
		}
		add(path, "not whole", json.Number("1.5"))
	case "string":
		out = append(out, g.textViolations(shapeName, path)...)
	}
	return out
}

func (g *generator) textViolations(shapeName, path string) (out []violation) {
	s := g.model.Shapes[shapeName]
	add := func(rule string, with any) { out = append(out, violation{path, rule, shapeName, with}) }
	if len(s.Enum) > 0 {
		add("enum", "NONE_OF_THEM")
		add("enum in another case", strings.ToLower(s.Enum[0])+"S")
		return out
	}
	if s.Min != nil && *s.Min > 0 {
		add("too short", "")
	}
	sample, _ := g.rightValue(shapeName, path, nil).(string)
	if s.Max != nil {
		add("too long", sample+strings.Repeat("a", *s.Max+1-len(sample)))
	}
	for _, spoilt := range []string{sample + "\n", sample + " é", "!" + sample} {
		if !s.matches(spoilt) {
			add("pattern", spoilt)
			break
		}
	}
	return out
}

// twoVariants are the generator's own variant of a union and another one.
func (g *generator) twoVariants(shapeName, path string, below []string) (first, second member, ok bool) {
	s := g.model.Shapes[shapeName]
	own := g.variant(shapeName, below[:len(below)-1])
	for _, name := range s.memberNames() {
		if name != own {
			other := *g
			other.spoil = violation{}
			return member{own, other.value(s.Members[own].Shape, join(path, own), below)},
				member{name, other.value(s.Members[name].Shape, join(path, name), below)}, true
		}
	}
	return first, second, false
}

func many(n int, value any) object {
	out := make(object, n)
	for i := range out {
		out[i] = member{fmt.Sprintf("k%d", i), value}
	}
	return out
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// write encodes a value, with what encoding/json would not: the same member twice.
func write(v any) string {
	switch v := v.(type) {
	case object:
		var parts []string
		for _, m := range v {
			switch value := m.value.(type) {
			case absent:
			case twice:
				parts = append(parts, quote(m.name)+":"+write(value.of), quote(m.name)+":"+write(value.of))
			default:
				parts = append(parts, quote(m.name)+":"+write(m.value))
			}
		}
		return "{" + strings.Join(parts, ",") + "}"
	case unknown:
		return write(append(slices.Clone(v.of), member{"unknownMember", 1}))
	case []any:
		parts := make([]string, len(v))
		for i, item := range v {
			parts[i] = write(item)
		}
		return "[" + strings.Join(parts, ",") + "]"
	}
	return quote(v)
}

func quote(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func clip(text string) string {
	const most = 600
	if len(text) > most {
		return text[:most] + "..."
	}
	return text
}
