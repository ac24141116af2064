package engine

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
)

// grove makes random policy stores and requests. Values follow their types most of the time, so that
// policies are satisfied often, and break them often enough for every kind of error.
type grove struct {
	r *rand.Rand
	// What exists in the policy store at hand.
	uids     []types.EntityUID // the first ones are defined, the last ones only named
	entities types.EntityMap
	actions  []types.EntityUID
	schema   string
	// ops counts the operators of the policy at hand.
	ops map[string]int
}

var (
	randomTypes = []types.EntityType{"User", "Group", "Doc", "Folder", "Shop::User", "Shop::Inner::Doc"}
	randomIDs   = []types.String{"a", "b", "c", "", "ünï", "日本", `q"uote`, "new\nline", "nul\x00", "🌲"}
	randomText  = []string{"", "x", "red", "green", "a*b", "ünï", "日本", "te\\st", "127.0.0.1", "1.5", "2024-01-02", "1h"}
	attributes  = []types.String{"n", "m", "s", "flag", "owner", "tags", "rec", "ip", "dec", "when", "span", "set", "odd name"}
)

func pick[T any](g *grove, list []T) T { return list[g.r.IntN(len(list))] }

func (g *grove) chance(percent int) bool { return g.r.IntN(100) < percent }

func (g *grove) use(op string) { g.ops[op]++ }

// plant makes a new policy store's world.
func (g *grove) plant() {
	g.uids, g.entities, g.actions = nil, types.EntityMap{}, nil
	seen := map[types.EntityUID]bool{}
	for range 6 + g.r.IntN(8) {
		u := types.NewEntityUID(pick(g, randomTypes), pick(g, randomIDs))
		if !seen[u] {
			seen[u] = true
			g.uids = append(g.uids, u)
		}
	}
	defined := len(g.uids) - 2
	for i, u := range g.uids[:defined] {
		var parents []types.EntityUID
		// Parents come later in the list, so there is no cycle.
		for range g.r.IntN(3) {
			parents = append(parents, g.uids[i+1+g.r.IntN(len(g.uids)-i-1)])
		}
		g.entities[u] = types.Entity{UID: u, Parents: types.NewEntityUIDSet(parents...), Attributes: g.record(attributes, 75), Tags: g.tags()}
	}
	g.plantActions()
}

// plantActions declares actions and groups in a schema. Half of the policy stores have none.
func (g *grove) plantActions() {
	names := []types.String{"read", "write", "odd \"name", "all", "some"}
	namespace := types.EntityType("Action")
	if g.chance(30) {
		namespace = "Shop::Action"
	}
	for _, n := range names {
		g.actions = append(g.actions, types.NewEntityUID(namespace, n))
	}
	g.schema = ""
	if g.chance(50) {
		return
	}
	var actions []string
	for i, u := range g.actions {
		var parents, groups []string
		for j := i + 1; j < len(g.actions); j++ {
			if g.chance(40) {
				parents = append(parents, fmt.Sprintf(`{"id":%s}`, quoted(string(g.actions[j].ID))))
				groups = append(groups, string(g.actions[j].ID))
			}
		}
		actions = append(actions, fmt.Sprintf(`%s:{"memberOf":[%s]}`, quoted(string(u.ID)), strings.Join(parents, ",")))
		var uids []types.EntityUID
		for _, id := range groups {
			uids = append(uids, types.NewEntityUID(namespace, types.String(id)))
		}
		g.entities[u] = types.Entity{UID: u, Parents: types.NewEntityUIDSet(uids...)}
	}
	name := strings.TrimSuffix(strings.TrimSuffix(string(namespace), "Action"), "::")
	g.schema = fmt.Sprintf(`{%q:{"entityTypes":{},"actions":{%s}}}`, name, strings.Join(actions, ","))
}

func (g *grove) record(names []types.String, percent int) types.Record {
	m := types.RecordMap{}
	for _, name := range names {
		if g.chance(percent) {
			m[name] = g.attribute(name)
		}
	}
	return types.NewRecord(m)
}

func (g *grove) tags() types.Record {
	m := types.RecordMap{}
	for _, name := range randomText[:5] {
		if g.chance(50) {
			m[types.String(name)] = types.String(pick(g, randomText))
		}
	}
	return types.NewRecord(m)
}

// attribute makes a value of the type its name stands for, sometimes of another.
func (g *grove) attribute(name types.String) types.Value {
	if g.chance(4) {
		return types.Long(1)
	}
	switch name {
	case "n", "m":
		return pick(g, []types.Value{types.Long(0), types.Long(1), types.Long(2), types.Long(9223372036854775807), types.Long(-9223372036854775808)})
	case "flag":
		return types.Boolean(g.chance(70))
	case "owner":
		return pick(g, g.uids)
	case "tags", "set":
		var vs []types.Value
		for range g.r.IntN(4) {
			vs = append(vs, types.String(pick(g, randomText)))
		}
		return types.NewSet(vs...)
	case "rec":
		return types.NewRecord(types.RecordMap{"n": types.Long(int64(g.r.IntN(3))), "inner": types.NewRecord(types.RecordMap{"flag": types.Boolean(g.chance(60))})})
	case "ip":
		v, _ := types.ParseIPAddr(pick(g, []string{"127.0.0.1", "10.1.2.3", "10.0.0.0/8", "::1", "224.0.0.1"}))
		return v
	case "dec":
		v, _ := types.ParseDecimal(pick(g, []string{"1.5", "0.0", "-3.25"}))
		return v
	case "when":
		v, _ := types.ParseDatetime(pick(g, []string{"2024-01-02", "2024-01-02T03:04:05Z", "1969-12-31"}))
		return v
	case "span":
		v, _ := types.ParseDuration(pick(g, []string{"1h", "-5m", "1d2h"}))
		return v
	default:
		return types.String(pick(g, randomText))
	}
}

func literal(v types.Value) string { return string(v.MarshalCedar()) }

// policy writes a random policy.
func (g *grove) policy() string {
	g.ops = map[string]int{}
	effect := "permit"
	if g.chance(15) {
		effect = "forbid"
	}
	text := fmt.Sprintf("%s(%s, %s, %s)", effect, g.scope("principal"), g.actionScope(), g.scope("resource"))
	for range g.r.IntN(3) {
		word := "when"
		if g.chance(25) {
			word = "unless"
		}
		g.use(word)
		text += fmt.Sprintf(" %s { %s }", word, g.boolean(3))
	}
	return text + ";"
}

func (g *grove) scope(variable string) string {
	switch g.r.IntN(9) {
	case 0:
		g.use(variable + " ==")
		return variable + " == " + literal(pick(g, g.uids))
	case 1, 2:
		g.use(variable + " in")
		return variable + " in " + literal(pick(g, g.uids))
	case 3:
		g.use(variable + " is")
		return variable + " is " + string(pick(g, g.uids).Type)
	case 4:
		g.use(variable + " is in")
		return variable + " is " + string(pick(g, g.uids).Type) + " in " + literal(pick(g, g.uids))
	default:
		g.use(variable + " any")
		return variable
	}
}

func (g *grove) actionScope() string {
	switch g.r.IntN(7) {
	case 0:
		g.use("action ==")
		return "action == " + literal(pick(g, g.actions))
	case 1:
		g.use("action in")
		return "action in " + literal(pick(g, g.actions))
	case 2, 3:
		g.use("action in []")
		var list []string
		for range g.r.IntN(4) {
			list = append(list, literal(pick(g, g.actions)))
		}
		return "action in [" + strings.Join(list, ", ") + "]"
	default:
		g.use("action any")
		return "action"
	}
}
