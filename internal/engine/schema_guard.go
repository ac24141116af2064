package engine

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/cedar-policy/cedar-go/x/exp/schema/ast"

	"github.com/copse-authz/copse"
)

// maxSchemaNodes bounds a schema with its common types written out and its lists of names repeated:
// cedar-go holds it in that form. 730 bytes of common types that each use the last one twice would
// take it 11 s and 3.7 GB.
const maxSchemaNodes = 50_000

// guardSchemaText checks what a schema in Cedar syntax must have before a parser that recurses reads
// it, and the one thing that parser overlooks: an attribute declared twice. It returns the text to show
// to that parser. It goes by tokens, and knows no grammar of schemas: what it lets pass may still be
// refused by the parser.
func guardSchemaText(text string) ([]byte, *syntaxFault) {
	if f := checkText(text); f != nil {
		return nil, f
	}
	l := lexer{text: text}
	var keys []map[string]bool // one for each open bracket
	var last, beforeLast token
	for {
		tok, f := l.next()
		if f != nil {
			return nil, f
		}
		switch {
		case tok.kind == tokEnd:
			if l.odd {
				return plainText(text), nil
			}
			return []byte(text), nil
		case tok.kind == tokString:
			if f := checkEscapes(tok.text, tok.start, false); f != nil {
				return nil, f
			}
		// Set<Set<...>> nests as well, so angle brackets count.
		case tok.is("{"), tok.is("["), tok.is("("), tok.is("<"):
			if len(keys) == maxNesting {
				return nil, faultAt(tok.start, "types nest more than %d deep here", maxNesting)
			}
			keys = append(keys, nil)
		// A closing bracket too many is the parser's to refuse.
		case tok.is("}"), tok.is("]"), tok.is(")"), tok.is(">"):
			keys = keys[:max(len(keys)-1, 0)]
		// What stands before a colon is the name of an attribute, or a part of appliesTo; :: is a token of
		// its own.
		case tok.is(":") && len(keys) > 0:
			if f := declareKey(&keys[len(keys)-1], last, beforeLast); f != nil {
				return nil, f
			}
		}
		last, beforeLast = tok, last
	}
}

// declareKey notes an attribute's name, which may be quoted or have a question mark behind it, and refuses
// one that its record has already: the name is compared as it is meant, not as it is written.
func declareKey(keys *map[string]bool, last, beforeLast token) *syntaxFault {
	key := last
	if last.is("?") {
		key = beforeLast
	}
	name := key.text
	if key.kind == tokString {
		name = unquote(name)
	}
	if (*keys)[name] {
		return faultAt(key.start, "%s is declared twice here", key.show())
	}
	if *keys == nil {
		*keys = map[string]bool{}
	}
	(*keys)[name] = true
	return nil
}

// measurer finds the size of a schema's declarations written out, without writing them out, and what
// they name that does not exist.
type measurer struct {
	src *schemaSource
	// What is declared, by its name with the namespace: common types, and entity types with enums among
	// them. sizes are of the common types that were measured.
	common map[types.Path]ast.IsType
	types  map[types.EntityType]bool
	sizes  map[types.Path]uint64
	path   []types.Path // common types being measured, for cycles
	total  uint64
	last   string // the declaration counted last
	fields []copse.Field
}

// namedNamespace is a namespace with its name, which is empty for what stands outside of any.
type namedNamespace struct {
	name types.Path
	ast.Namespace
}

// measure returns the size of everything cedar-go's resolver will build. It works on the tree as it was
// parsed, before anything is resolved, and goes through everything in order of names, so that the same
// schema is refused with the same words each time. A common type is held to the limit by itself as well,
// used or not, so that the refusal names the one that grows.
func (src *schemaSource) measure(tree *ast.Schema) (uint64, error) {
	m := &measurer{src: src, common: map[types.Path]ast.IsType{}, types: map[types.EntityType]bool{}, sizes: map[types.Path]uint64{}}
	spaces := []namedNamespace{{"", ast.Namespace{Entities: tree.Entities, Enums: tree.Enums, Actions: tree.Actions, CommonTypes: tree.CommonTypes}}}
	for _, name := range slices.Sorted(maps.Keys(tree.Namespaces)) {
		spaces = append(spaces, namedNamespace{name, tree.Namespaces[name]})
	}
	// All names first: a type may be used before it is declared, and in another namespace.
	for _, ns := range spaces {
		m.declare(ns)
	}
	if len(m.fields) > 0 {
		return 0, schemaError(m.fields...)
	}
	for _, ns := range spaces {
		for _, name := range slices.Sorted(maps.Keys(ns.CommonTypes)) {
			path := qualify(ns.name, name)
			if n := m.commonType(path); n > maxSchemaNodes {
				return 0, src.refuse("the common type %s expands to %s nodes, at most %d are allowed", path, count(n), maxSchemaNodes)
			}
		}
		m.namespace(ns)
	}
	if len(m.fields) > 0 {
		return 0, schemaError(m.fields...)
	}
	if m.total > maxSchemaNodes {
		return 0, src.refuse("the schema expands to %s nodes at %s, at most %d are allowed in all: common types count wherever they are used, and what several names share counts for each", count(m.total), m.last, maxSchemaNodes)
	}
	return m.total, nil
}

// qualify puts a name into its namespace.
func qualify(ns types.Path, name ast.Ident) types.Path {
	if ns == "" {
		return types.Path(name)
	}
	return ns + "::" + types.Path(name)
}

// report adds a finding, placed where the name first stands in the text, or nowhere if it can't be found:
// the tree has no positions.
func (m *measurer) report(name, format string, args ...any) {
	if len(m.fields) > maxFindings {
		return
	}
	at := position{}
	if offset, ok := m.src.find(name); ok {
		at = positionAt(m.src.text, offset)
	}
	m.fields = append(m.fields, at.field(m.src.file, format, args...))
}

// declare collects names, and checks them: the JSON syntax lets anything pass.
func (m *measurer) declare(ns namedNamespace) {
	if ns.name != "" {
		if _, err := types.NewPath(string(ns.name)); err != nil {
			m.report(string(ns.name), "%q is not the name of a namespace: expected names joined by ::", string(ns.name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(ns.CommonTypes)) {
		m.checkName(name, "common type")
		// Otherwise a common type could take the place of one of Cedar's own.
		if slices.Contains([]ast.Ident{"Bool", "Boolean", "Entity", "Extension", "Long", "Record", "Set", "String"}, name) {
			m.report(string(name), "%q is a reserved type name", string(name))
		}
		m.common[qualify(ns.name, name)] = ns.CommonTypes[name].Type
	}
	for _, name := range slices.Sorted(maps.Keys(ns.Entities)) {
		m.checkName(name, "entity type")
		m.types[types.EntityType(qualify(ns.name, name))] = true
	}
	for _, name := range slices.Sorted(maps.Keys(ns.Enums)) {
		m.checkName(name, "entity type")
		m.types[types.EntityType(qualify(ns.name, name))] = true
	}
}

// checkName refuses a declared name that could not be written in Cedar text. What is declared is one name,
// not a path.
func (m *measurer) checkName(name ast.Ident, what string) {
	if _, err := types.NewPath(string(name)); err != nil || strings.Contains(string(name), "::") {
		m.report(string(name), "%q is not the name of an %s: expected letters, digits and _, and no reserved word", string(name), what)
	}
}

// add counts nodes of a declaration and reports whether the limit still holds. The names a list holds
// are looked up only after it was counted: declarations share lists and shapes. Once it is false it stays
// false, and the last declaration counted is named in the refusal.
func (m *measurer) add(what string, ns ...uint64) bool {
	if m.total > maxSchemaNodes {
		return false
	}
	m.total = plus(append(ns, m.total)...)
	m.last = what
	return m.total <= maxSchemaNodes
}

// namespace counts all that a namespace declares, but for its common types, which count where they are
// used. It ends at the limit.
func (m *measurer) namespace(ns namedNamespace) {
	m.add("namespace "+string(ns.name), annotationNodes(ns.Annotations))
	for _, name := range slices.Sorted(maps.Keys(ns.Entities)) {
		e := ns.Entities[name]
		what := "entity type " + string(qualify(ns.name, name))
		if !m.add(what, 1, uint64(len(e.ParentTypes)), annotationNodes(e.Annotations)) {
			return
		}
		for _, parent := range e.ParentTypes {
			m.entityRef(ns.name, parent)
		}
		if e.Shape != nil && !m.add(what, m.size(ns.name, e.Shape)) {
			return
		}
		if e.Tags != nil && !m.add(what, m.size(ns.name, e.Tags)) {
			return
		}
	}
	for _, name := range slices.Sorted(maps.Keys(ns.Enums)) {
		e := ns.Enums[name]
		what := "enum type " + string(qualify(ns.name, name))
		if !m.add(what, 1, uint64(len(e.Values)), annotationNodes(e.Annotations)) {
			return
		}
		for _, v := range e.Values {
			// Long ids are held as they are.
			m.add(what, uint64(len(v))/64)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(ns.Actions)) {
		if !m.action(ns.name, name, ns.Actions[name]) {
			return
		}
	}
}

// action counts an action and what it applies to, and reports whether to go on. A context that names a
// common type counts with that written out.
func (m *measurer) action(ns types.Path, name types.String, a ast.Action) bool {
	what := "action " + clipTo(string(name), 100)
	if !m.add(what, 1, uint64(len(a.Parents)), annotationNodes(a.Annotations)) {
		return false
	}
	if a.AppliesTo == nil {
		return true
	}
	for _, refs := range [][]ast.EntityTypeRef{a.AppliesTo.Principals, a.AppliesTo.Resources} {
		if !m.add(what, uint64(len(refs))) {
			return false
		}
		for _, ref := range refs {
			m.entityRef(ns, ref)
		}
	}
	return a.AppliesTo.Context == nil || m.add(what, m.size(ns, a.AppliesTo.Context))
}

// entityRef reports an entity type that is not declared. A name without a namespace is looked for in its
// own namespace, then in the empty one.
func (m *measurer) entityRef(ns types.Path, ref ast.EntityTypeRef) {
	name := types.EntityType(ref)
	if m.types[name] || ns != "" && !strings.Contains(string(name), "::") && m.types[types.EntityType(ns)+"::"+name] {
		return
	}
	m.report(string(name), "undefined entity type %q", string(name))
}

// size is the number of nodes of a type with its common types written out. It stops counting nothing: sums
// that would overflow stay at the most. The depth is bounded by the guards for what is written, and by
// cycles being cut for what is named.
func (m *measurer) size(ns types.Path, t ast.IsType) uint64 {
	switch t := t.(type) {
	case ast.SetType:
		return plus(1, m.size(ns, t.Element))
	case ast.RecordType:
		total := uint64(1)
		for _, name := range slices.Sorted(maps.Keys(t)) {
			total = plus(total, 1, annotationNodes(t[name].Annotations), m.size(ns, t[name].Type))
		}
		return total
	case ast.TypeRef:
		return plus(1, m.reference(ns, string(t)))
	case ast.EntityTypeRef:
		m.entityRef(ns, t)
	case ast.ExtensionType:
		if !slices.Contains([]ast.ExtensionType{"ipaddr", "decimal", "datetime", "duration"}, t) {
			m.report(string(t), "undefined extension type %q: use ipaddr, decimal, datetime or duration", string(t))
		}
	}
	return 1
}

// reference resolves a name as Cedar does: common type before entity type, own namespace before the
// empty one, builtin types last. It returns the size that the name stands for beyond itself, 0 for what is
// not written out. A name that stands for nothing is reported.
func (m *measurer) reference(ns types.Path, name string) uint64 {
	var tries []string
	switch {
	// What is written so is builtin, also where a declared type has the same name.
	case strings.HasPrefix(name, "__cedar::"):
		name = strings.TrimPrefix(name, "__cedar::")
	case ns != "" && !strings.Contains(name, "::"):
		tries = []string{string(ns) + "::" + name, name}
	default:
		tries = []string{name}
	}
	for _, full := range tries {
		if _, ok := m.common[types.Path(full)]; ok {
			return m.commonType(types.Path(full))
		}
		if m.types[types.EntityType(full)] {
			return 0
		}
	}
	switch name {
	case "String", "Long", "Bool", "Boolean", "ipaddr", "decimal", "datetime", "duration":
		return 0
	}
	m.report(name, "undefined type %q", name)
	return 0
}

// commonType returns the size of a common type, measured once. A name inside of it is resolved in the
// namespace that declares it, wherever it is used. One that is defined by itself is reported, and counts
// as one node.
func (m *measurer) commonType(path types.Path) uint64 {
	if n, ok := m.sizes[path]; ok {
		return n
	}
	if i := slices.Index(m.path, path); i >= 0 {
		m.reportCycle(m.path[i:], path)
		m.sizes[path] = 1
		return 1
	}
	m.path = append(m.path, path)
	ns := types.Path("")
	if i := strings.LastIndex(string(path), "::"); i >= 0 {
		ns = path[:i]
	}
	n := m.size(ns, m.common[path])
	m.path = m.path[:len(m.path)-1]
	m.sizes[path] = n
	return n
}

// reportCycle shows the way around, of which at most ten steps.
func (m *measurer) reportCycle(cycle []types.Path, path types.Path) {
	var steps strings.Builder
	for i, step := range cycle {
		if i == 10 {
			steps.WriteString("... -> ")
			break
		}
		steps.WriteString(string(step) + " -> ")
	}
	m.report(string(path), "the common type %s is defined by itself: %s%s", path, steps.String(), path)
}

// annotationNodes weighs annotations, for they are repeated with what they annotate.
func annotationNodes(annotations ast.Annotations) uint64 {
	var total uint64
	for key, value := range annotations {
		total = plus(total, 1+uint64(len(key)+len(value))/64)
	}
	return total
}

// plus adds without overflowing: doubling types reach 2^64 in 64 lines.
func plus(ns ...uint64) uint64 {
	var total uint64
	for _, n := range ns {
		if total > math.MaxUint64-n {
			return math.MaxUint64
		}
		total += n
	}
	return total
}

// count writes a number of nodes or steps, which may be the most that [plus] and [times] can say.
func count(n uint64) string {
	if n == math.MaxUint64 {
		return "more than 10^19"
	}
	return fmt.Sprint(cmp.Or(n, 0))
}
