package engine

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
)

// declarations is a random schema. The name of an attribute decides its type, as everywhere in a grove,
// so the schema only says where it may be and where it must be.
type declarations struct {
	types   map[types.EntityType]typeDeclaration
	actions map[types.EntityUID]actionDeclaration
}

type typeDeclaration struct {
	attributes map[types.String]bool // true: required
	parents    []types.EntityType
	tags       bool
}

type actionDeclaration struct {
	principals, resources []types.EntityType
	context               map[types.String]bool
}

// A schema may not declare a name of the empty namespace again in another.
var declaredTypes = []types.EntityType{"User", "Group", "Doc", "Folder", "Shop::Clerk", "Shop::Inner::Page"}

const enumType = types.EntityType("Color")

var enumIDs = []types.String{"red", "green", "日本"}

// declare makes up a schema and turns the policy store to its types.
func (g *grove) declare() {
	g.types = declaredTypes
	d := &declarations{types: map[types.EntityType]typeDeclaration{}, actions: map[types.EntityUID]actionDeclaration{}}
	for _, t := range declaredTypes {
		of := typeDeclaration{attributes: g.declareAttributes(), tags: g.chance(60)}
		for _, parent := range declaredTypes {
			if g.chance(35) || t == "Folder" && parent == "Folder" {
				of.parents = append(of.parents, parent)
			}
		}
		d.types[t] = of
	}
	for _, u := range g.actions {
		of := actionDeclaration{context: g.declareAttributes()}
		for len(of.principals) == 0 || len(of.resources) == 0 {
			of.principals, of.resources = nil, nil
			for _, t := range append(slices.Clone(declaredTypes), enumType) {
				if g.chance(40) {
					of.principals = append(of.principals, t)
				}
				if g.chance(40) {
					of.resources = append(of.resources, t)
				}
			}
		}
		d.actions[u] = of
	}
	g.declared = d
}

func (g *grove) declareAttributes() map[types.String]bool {
	out := map[types.String]bool{}
	for _, name := range attributes {
		if g.chance(90) {
			out[name] = g.chance(70)
		}
	}
	return out
}

// allowed keeps the parents that the schema allows: of a type above, directly or not.
func (t typeDeclaration) allowed(d *declarations, parents []types.EntityUID) []types.EntityUID {
	above := map[types.EntityType]bool{}
	var climb func(types.EntityType)
	climb = func(of types.EntityType) {
		if !above[of] {
			above[of] = true
			for _, parent := range d.types[of].parents {
				climb(parent)
			}
		}
	}
	for _, parent := range t.parents {
		climb(parent)
	}
	return slices.DeleteFunc(slices.Clone(parents), func(u types.EntityUID) bool { return !above[u.Type] })
}

var attributeTypes = map[types.String]string{
	"n": `{"type":"Long"`, "m": `{"type":"Long"`, "s": `{"type":"String"`, "odd name": `{"type":"String"`, "flag": `{"type":"Boolean"`,
	"owner": `{"type":"Entity","name":"User"`, "color": `{"type":"Entity","name":"Color"`,
	"tags": `{"type":"Set","element":{"type":"String"}`, "set": `{"type":"Set","element":{"type":"String"}`,
	"rec": `{"type":"Record","attributes":{"n":{"type":"Long"},"inner":{"type":"Record","attributes":{"flag":{"type":"Boolean"}}}}`,
	"ip":  `{"type":"Extension","name":"ipaddr"`, "dec": `{"type":"Extension","name":"decimal"`,
	"when": `{"type":"Extension","name":"datetime"`, "span": `{"type":"Extension","name":"duration"`,
}

func attributesJSON(names map[types.String]bool) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		parts = append(parts, fmt.Sprintf(`%s:%s,"required":%v}`, quoted(string(name)), attributeTypes[name], names[name]))
	}
	return `{"type":"Record","attributes":{` + strings.Join(parts, ",") + `}}`
}

func typesJSON(list []types.EntityType) string {
	names := make([]string, len(list))
	for i, t := range list {
		names[i] = quoted(string(t))
	}
	return "[" + strings.Join(names, ",") + "]"
}

// json writes the schema.
func (d *declarations) json(g *grove) string {
	inNamespace := map[string][]string{}
	for _, t := range declaredTypes {
		namespace, name := "", string(t)
		if i := strings.LastIndex(name, "::"); i >= 0 {
			namespace, name = name[:i], name[i+2:]
		}
		of := d.types[t]
		text := fmt.Sprintf(`%q:{"memberOfTypes":%s,"shape":%s`, name, typesJSON(of.parents), attributesJSON(of.attributes))
		if of.tags {
			text += `,"tags":{"type":"String"}`
		}
		inNamespace[namespace] = append(inNamespace[namespace], text+"}")
	}
	var ids []string
	for _, id := range enumIDs {
		ids = append(ids, quoted(string(id)))
	}
	inNamespace[""] = append(inNamespace[""], fmt.Sprintf(`%q:{"enum":[%s]}`, enumType, strings.Join(ids, ",")))
	ofActions, actions := g.actionsJSON()
	var parts []string
	for _, namespace := range slices.Sorted(maps.Keys(inNamespace)) {
		declared := ""
		if namespace == ofActions {
			declared = actions
		}
		parts = append(parts, fmt.Sprintf(`%q:{"entityTypes":{%s},"actions":{%s}}`, namespace, strings.Join(inNamespace[namespace], ","), declared))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// actionSchema declares the actions and nothing else.
func (g *grove) actionSchema() string {
	namespace, actions := g.actionsJSON()
	return fmt.Sprintf(`{%q:{"entityTypes":{},"actions":{%s}}}`, namespace, actions)
}

func (g *grove) actionsJSON() (namespace, members string) {
	var parts []string
	for _, u := range g.actions {
		var groups []string
		for _, group := range slices.SortedFunc(g.entities[u].Parents.All(), compareUIDs) {
			groups = append(groups, fmt.Sprintf(`{"id":%s}`, quoted(string(group.ID))))
		}
		text := fmt.Sprintf(`%s:{"memberOf":[%s]`, quoted(string(u.ID)), strings.Join(groups, ","))
		if g.declared != nil {
			of := g.declared.actions[u]
			text += fmt.Sprintf(`,"appliesTo":{"principalTypes":%s,"resourceTypes":%s,"context":%s}`, typesJSON(of.principals), typesJSON(of.resources), attributesJSON(of.context))
		}
		parts = append(parts, text+"}")
	}
	namespace = strings.TrimSuffix(strings.TrimSuffix(string(g.actions[0].Type), "Action"), "::")
	return namespace, strings.Join(parts, ",")
}

// violation breaks a request that agrees with the schema in one way, and says which.
func (g *grove) violation(request types.Request) (types.Request, string) {
	bad := types.NewEntityUID(enumType, "no such colour")
	with := func(name types.String, v types.Value) types.Record {
		m := request.Context.Map()
		if m == nil {
			m = types.RecordMap{}
		}
		m[name] = v
		return types.NewRecord(m)
	}
	context := g.declared.actions[request.Action].context
	_, hasColor := context["color"]
	required, hasN := context["n"]
	switch n := g.r.IntN(6); {
	case n == 0 && hasColor:
		request.Context = with("color", bad)
		return request, "enum id in the context"
	case n == 1 && hasN:
		request.Context = with("n", types.String("x"))
		return request, "type of a context member"
	case n == 2 && required:
		m := request.Context.Map()
		delete(m, "n")
		request.Context = types.NewRecord(m)
		return request, "missing context member"
	case n == 3:
		request.Context = with("undeclared", types.Long(1))
		return request, "undeclared context member"
	case n == 4:
		request.Action.ID = "no such action"
		return request, "unknown action"
	default:
		request.Principal, request.Resource = bad, bad
		return request, "enum id of principal and resource"
	}
}
