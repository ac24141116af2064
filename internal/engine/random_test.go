package engine

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

// grove makes random policy stores and requests. Values follow their types most of the time, so that
// policies are satisfied often, and break them often enough for every kind of error.
type grove struct {
	r *rand.Rand
	// What exists in the policy store at hand.
	types    []types.EntityType
	uids     []types.EntityUID // the first ones are defined, the last ones only named
	entities types.EntityMap
	actions  []types.EntityUID
	schema   string // JSON, or empty
	declared *declarations
	graph    string // the form of the hierarchy
	// ops counts the operators of the policy at hand.
	ops map[string]int
	// kept counts the policies that snapshots took from former ones.
	kept int
}

var (
	looseTypes = []types.EntityType{"User", "Group", "Doc", "Folder", "Shop::User", "Shop::Inner::Doc"}
	randomIDs  = []types.String{"a", "b", "c", "", "ünï", "日本", `q"uote`, "new\nline", "nul\x00", "🌲"}
	randomText = []string{"", "x", "red", "green", "a*b", "ünï", "日本", "te\\st", "127.0.0.1", "1.5", "2024-01-02", "1h"}
	attributes = []types.String{"n", "m", "s", "flag", "owner", "color", "tags", "rec", "ip", "dec", "when", "span", "set", "odd name"}
)

func pick[T any](g *grove, list []T) T { return list[g.r.IntN(len(list))] }

func (g *grove) chance(percent int) bool { return g.r.IntN(100) < percent }

func (g *grove) use(op string) { g.ops[op]++ }

// plant makes a new policy store's world: without a schema, with one that knows actions only, or with
// one that declares everything and that the entities follow.
func (g *grove) plant() {
	g.types, g.uids, g.entities, g.actions, g.schema, g.declared = looseTypes, nil, types.EntityMap{}, nil, "", nil
	kind := g.r.IntN(4)
	g.plantActions()
	if kind == 0 {
		g.declare()
	}
	g.name()
	g.define()
	switch {
	case kind == 0:
		g.schema = g.declared.json(g)
	case kind < 3:
		g.schema = g.actionSchema()
	default:
		// Nobody says what is in what.
		for _, u := range g.actions {
			delete(g.entities, u)
		}
	}
}

// name chooses the entities that there are.
func (g *grove) name() {
	seen := map[types.EntityUID]bool{}
	add := func(t types.EntityType, id types.String) {
		if u := types.NewEntityUID(t, id); !seen[u] {
			seen[u] = true
			g.uids = append(g.uids, u)
		}
	}
	for range 6 + g.r.IntN(8) {
		add(pick(g, g.types), pick(g, randomIDs))
	}
	g.graph = pick(g, []string{"bushy", "bushy", "bushy", "bushy", "bushy", "bushy", "bushy", "bushy", "deep", "wide"})
	if g.graph != "bushy" {
		for i := range 40 {
			add("Folder", types.String(fmt.Sprint("f", i)))
		}
	}
	add("User", "a")
	add("Folder", "a")
	if g.declared != nil {
		// What a schema's types need to have values at all.
		for _, t := range g.types {
			add(t, "z")
		}
		for _, id := range enumIDs {
			add(enumType, id)
		}
	}
}

// define gives entities their attributes and parents, which come later in the list: there is no cycle.
func (g *grove) define() {
	defined := len(g.uids) - 2
	for i, u := range g.uids[:defined] {
		if u.Type == enumType {
			continue
		}
		later := g.uids[i+1:]
		var parents []types.EntityUID
		switch {
		case g.graph == "deep" && u.Type == "Folder" && later[0].Type == "Folder":
			parents = append(parents, later[0])
		case g.graph == "wide" && i < 3:
			parents = append(parents, later[:len(later)*3/4]...)
		default:
			for range g.r.IntN(3) {
				parents = append(parents, pick(g, later))
			}
		}
		percent := 75
		if strings.HasPrefix(string(u.ID), "f") {
			percent = 5 // one of many
		}
		e := types.Entity{UID: u, Attributes: g.record(nil, percent), Tags: g.tags()}
		if g.declared != nil {
			d := g.declared.types[u.Type]
			parents = d.allowed(g.declared, parents)
			e.Attributes = g.record(d.attributes, 60)
			if !d.tags {
				e.Tags = types.Record{}
			}
		}
		e.Parents = types.NewEntityUIDSet(parents...)
		g.entities[u] = e
	}
}

// plantActions makes actions and groups of actions.
func (g *grove) plantActions() {
	namespace := types.EntityType("Action")
	if g.chance(30) {
		namespace = "Shop::Action"
	}
	for _, n := range []types.String{"read", "write", "odd \"name", "all", "some"} {
		g.actions = append(g.actions, types.NewEntityUID(namespace, n))
	}
	for i, u := range g.actions {
		var groups []types.EntityUID
		for _, group := range g.actions[i+1:] {
			if g.chance(40) {
				groups = append(groups, group)
			}
		}
		g.entities[u] = types.Entity{UID: u, Parents: types.NewEntityUIDSet(groups...)}
	}
}

// record makes attributes: all that are required, and as many percent of the others.
func (g *grove) record(names map[types.String]bool, percent int) types.Record {
	m := types.RecordMap{}
	for _, name := range attributes {
		required, declared := names[name]
		if required || (declared || names == nil) && g.chance(percent) {
			m[name] = g.attribute(name, names != nil)
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

var extremes = []types.Value{types.Long(0), types.Long(1), types.Long(2), types.Long(9223372036854775807), types.Long(-9223372036854775808)}

// attribute makes a value of the type its name stands for; of another sometimes, unless it must be right.
func (g *grove) attribute(name types.String, right bool) types.Value {
	if !right && g.chance(4) {
		return types.Long(1)
	}
	switch name {
	case "n", "m":
		return pick(g, extremes)
	case "flag":
		return types.Boolean(g.chance(70))
	case "owner":
		if right {
			return types.NewEntityUID("User", pick(g, randomIDs))
		}
		return pick(g, g.uids)
	case "color":
		return types.NewEntityUID(enumType, pick(g, enumIDs))
	case "tags", "set":
		if !right && g.chance(15) {
			return types.NewSet(g.mixture()...)
		}
		var vs []types.Value
		for _, text := range g.texts() {
			vs = append(vs, types.String(text))
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
		v, _ := types.ParseDatetime(pick(g, []string{"2024-01-02", "2024-01-02T03:04:05Z", "1970-01-04"}))
		return v
	case "span":
		v, _ := types.ParseDuration(pick(g, []string{"1h", "-5m", "1d2h"}))
		return v
	default:
		return types.String(pick(g, randomText))
	}
}

// texts are elements of a set: a few of the usual ones, or many.
func (g *grove) texts() (list []string) {
	if g.chance(10) {
		for range 10 + g.r.IntN(60) {
			list = append(list, fmt.Sprint("t", g.r.IntN(70)))
		}
		return list
	}
	for range g.r.IntN(4) {
		list = append(list, pick(g, randomText))
	}
	return list
}

// mixture is values of all types, also inside each other.
func (g *grove) mixture() (list []types.Value) {
	for range g.r.IntN(6) {
		v := g.attribute(pick(g, attributes[:len(attributes)-1]), true)
		switch g.r.IntN(4) {
		case 0:
			v = types.NewSet(v, types.Long(int64(g.r.IntN(3))))
		case 1:
			v = types.NewRecord(types.RecordMap{"n": v})
		}
		list = append(list, v)
	}
	return list
}

func literal(v types.Value) string { return string(v.MarshalCedar()) }

// written is a random policy: its text, or a template's with the values of its slots.
type written struct {
	text                string
	principal, resource *types.EntityUID // nil: no such slot
	ops                 map[string]int
}

func (w written) isLink() bool { return w.principal != nil || w.resource != nil }

// materialised is the policy as a static one: the judge knows no templates.
func (w written) materialised() string {
	text := w.text
	if w.principal != nil {
		text = strings.Replace(text, "?principal", literal(*w.principal), 1)
	}
	if w.resource != nil {
		text = strings.Replace(text, "?resource", literal(*w.resource), 1)
	}
	return text
}

// policy writes a random policy, with conditions of some depth at most.
func (g *grove) policy(depth int) written {
	g.ops = map[string]int{}
	w := written{ops: g.ops}
	effect := "permit"
	if g.chance(15) {
		effect = "forbid"
	}
	g.use(effect)
	var principal, resource string
	principal, w.principal = g.scope("principal")
	resource, w.resource = g.scope("resource")
	w.text = fmt.Sprintf("%s(%s, %s, %s)", effect, principal, g.actionScope(), resource)
	for range g.r.IntN(3) {
		word := "when"
		if g.chance(25) {
			word = "unless"
		}
		g.use(word)
		w.text += fmt.Sprintf(" %s { %s }", word, g.boolean(depth))
	}
	w.text += ";"
	if w.isLink() {
		g.use("link")
	}
	return w
}

// scope writes the scope of a side; where it has a slot, it returns the slot's value as well.
func (g *grove) scope(side string) (string, *types.EntityUID) {
	target, uid := "", pick(g, g.uids)
	slot := g.chance(40)
	if target = literal(uid); slot {
		target = "?" + side
	}
	var text string
	switch g.r.IntN(9) {
	case 0:
		g.use(side + " ==")
		text = side + " == " + target
	case 1, 2:
		g.use(side + " in")
		text = side + " in " + target
	case 4:
		g.use(side + " is in")
		text = side + " is " + string(pick(g, g.uids).Type) + " in " + target
	case 3:
		g.use(side + " is")
		return side + " is " + string(uid.Type), nil
	default:
		g.use(side + " any")
		return side, nil
	}
	if !slot {
		return text, nil
	}
	g.use("?" + side)
	return text, &uid
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

// request asks for anything about anything; where a schema declares what goes together, for that.
func (g *grove) request() types.Request {
	request := types.Request{
		Principal: pick(g, g.uids), Action: pick(g, g.actions), Resource: pick(g, g.uids),
		Context: g.record(nil, 75),
	}
	if g.declared != nil {
		applies := g.declared.actions[request.Action]
		request.Principal, request.Resource = g.of(applies.principals), g.of(applies.resources)
		request.Context = g.record(applies.context, 60)
	}
	return request
}

// of picks an entity of one of the types.
func (g *grove) of(allowed []types.EntityType) types.EntityUID {
	for {
		u := pick(g, g.uids)
		for _, t := range allowed {
			if u.Type == t {
				return u
			}
		}
	}
}

// lists are the entities of a policy store, written out once.
type lists struct {
	all            string
	caller, server map[types.EntityType]string // with the entities of that type taken out, or only them
}

func (g *grove) lists() lists {
	out := lists{caller: map[types.EntityType]string{}, server: map[types.EntityType]string{}}
	var all []types.Entity
	for _, e := range g.entities {
		if !strings.HasSuffix(string(e.UID.Type), "Action") {
			all = append(all, e)
		}
	}
	out.all = avpListJSON(all)
	for _, u := range g.uids {
		if _, done := out.caller[u.Type]; done {
			continue
		}
		var caller, server []types.Entity
		for _, e := range all {
			if e.UID.Type == u.Type {
				server = append(server, e)
			} else {
				caller = append(caller, e)
			}
		}
		out.caller[u.Type], out.server[u.Type] = cedarListJSON(caller), cedarListJSON(server)
	}
	return out
}

// encodings writes a request in both formats; the second as if a token had defined a part of it.
func (g *grove) encodings(written lists, request types.Request) []copse.Request {
	base := copse.Request{Principal: request.Principal, Action: request.Action, Resource: request.Resource}
	avp, byToken := base, base
	avp.Entities = copse.Data{Format: copse.FormatAVPList, Bytes: []byte(written.all)}
	avp.Context = copse.Data{Format: copse.FormatAVPMap, Bytes: []byte(avpMapJSON(request.Context))}

	mine, theirs := types.RecordMap{}, types.RecordMap{}
	for name, v := range request.Context.All() {
		if g.chance(50) {
			mine[name] = v
		} else {
			theirs[name] = v
		}
	}
	reserved := request.Principal.Type
	byToken.ReservedTypes = []types.EntityType{reserved}
	byToken.Entities = copse.Data{Format: copse.FormatCedarJSON, Bytes: []byte(written.caller[reserved])}
	byToken.ServerEntities = copse.Data{Format: copse.FormatCedarJSON, Bytes: []byte(written.server[reserved])}
	byToken.Context = copse.Data{Format: copse.FormatCedarJSON, Bytes: []byte(cedarRecordJSON(types.NewRecord(theirs)))}
	byToken.ServerContext = copse.Data{Format: copse.FormatCedarJSON, Bytes: []byte(cedarRecordJSON(types.NewRecord(mine)))}
	return []copse.Request{avp, byToken}
}
