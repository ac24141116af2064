package engine

import (
	"cmp"
	"slices"

	"github.com/copse-authz/copse"
)

// Source is a policy on its way into a snapshot. The zero Version is no version: such a source must have
// its Policy.
type Source struct {
	Ref    copse.PolicyRef
	Policy *Policy
	// Version tells this text of the policy from former and later ones of the same id: of a link, also
	// those of its template. It matters to whoever makes snapshots from each other.
	Version uint64
}

// Snapshot is a policy store compiled for deciding: immutable, at one revision. Any number of goroutines
// may decide by it, and make its successor, at the same time.
type Snapshot struct {
	schema   *Schema
	settings copse.Settings
	symbols  *symbols
	policies []compiled // sorted by id
	index    *index
	// dropped counts the policies that former snapshots had and this one has not: their symbols are here
	// still. named is what the symbols weigh, and namedAnew what they weighed when everything was last made
	// anew.
	dropped          int
	named, namedAnew int64
	weight           int64
}

// compiled is what deciding needs of a policy; its text stays behind. Which scope it has is in the index
// alone.
type compiled struct {
	ref     copse.PolicyRef
	program *program
	version uint64
}

// Compile builds a snapshot. schema may be nil. It takes any policies that parsed: stored ones may be
// older than the schema, and validation may be off. An id that occurs twice is an error of kind Internal:
// whoever stores policies has seen to it that it does not. The order of sources means nothing, and the
// slice is not kept.
func Compile(schema *Schema, settings copse.Settings, sources []Source) (*Snapshot, error) {
	return (*Snapshot)(nil).Recompile(schema, settings, sources)
}

// Recompile builds the snapshot that follows s, which may be nil. Sources without a Policy are taken
// from s, which must hold them. s is not changed and may go on deciding. Whether it holds a policy,
// [Snapshot.Holds] tells; one that it does not is an error of kind Internal.
func (s *Snapshot) Recompile(schema *Schema, settings copse.Settings, sources []Source) (*Snapshot, error) {
	sources = slices.Clone(sources)
	slices.SortFunc(sources, func(a, b Source) int { return cmp.Compare(a.Ref.ID, b.Ref.ID) })
	b := &builder{Snapshot: &Snapshot{schema: schema, settings: settings, policies: make([]compiled, len(sources))}, previous: s}
	entries, err := b.keep(sources)
	if err != nil {
		return nil, err
	}
	for i, source := range sources {
		p := &b.policies[i]
		p.ref, p.version = source.Ref, source.Version
		if source.Policy != nil {
			p.program = b.program(source.Policy)
			entries = b.symbols.keyed(entries, uint32(i), source.Policy.tree)
		}
	}
	b.index = newIndex(b.symbols, entries)
	if b.named = b.symbols.weight(); b.namedAnew == 0 {
		b.namedAnew = b.named
	}
	b.weight = b.weigh()
	return b.Snapshot, nil
}

// Holds reports whether Recompile can take a policy from s, which may be nil. The schema must be the same
// one, not an equal one, since its symbols are those of what is compiled.
func (s *Snapshot) Holds(schema *Schema, source Source) bool {
	_, ok := s.find(schema, source)
	return ok
}

// find returns the place of a policy that can be taken as it is. If s has outgrown itself it has none, so
// that all sources come with their policies and nothing of it is needed.
func (s *Snapshot) find(schema *Schema, source Source) (int, bool) {
	if s == nil || s.schema != schema || s.outgrown() {
		return 0, false
	}
	i, ok := slices.BinarySearchFunc(s.policies, source.Ref.ID, func(p compiled, id copse.PolicyID) int { return cmp.Compare(p.ref.ID, id) })
	return i, ok && s.policies[i].version == source.Version && source.Version != 0
}

// outgrown tells that it is time to begin anew: as much was dropped as is there, or the symbols have
// doubled. One large policy that is changed again and again drops little and names much.
func (s *Snapshot) outgrown() bool {
	return s.dropped > len(s.policies) || s.named > 2*s.namedAnew+spareSymbols
}

// spareSymbols are so few bytes that nobody minds them.
const spareSymbols = 256 << 10

// builder makes a snapshot. It is used once, by one goroutine. previous is nil when there is nothing to
// take from.
type builder struct {
	*Snapshot
	previous *Snapshot
	compiler compiler
	// always are the programs of policies without conditions, by effect. Links share their template's.
	always    [2]*program
	templates map[string]*program // by their text
}

// keep takes the policies that are not given from the previous snapshot, with all it knows, and returns
// their index entries. If none is needed, everything begins anew.
func (b *builder) keep(sources []Source) ([]keyedEntry, error) {
	b.templates = map[string]*program{}
	entries := make([]keyedEntry, 0, len(sources)+len(sources)/8)
	var kept []uint32 // for each policy of the previous snapshot its place in this one plus one
	needed := 0
	for i, source := range sources {
		if i > 0 && source.Ref.ID == sources[i-1].Ref.ID {
			return nil, copse.Errorf(copse.Internal, "policy id %q occurs twice in a policy store", source.Ref.ID)
		}
		if source.Policy != nil {
			continue
		}
		old, ok := b.previous.find(b.schema, source)
		if !ok {
			return nil, copse.Errorf(copse.Internal, "policy %q is neither given nor in the previous snapshot", source.Ref.ID)
		}
		if kept == nil {
			kept = make([]uint32, len(b.previous.policies))
		}
		// Links that come with their policy find their template's program here, if only one link of it was
		// kept.
		program := b.previous.policies[old].program
		if program.template != nil {
			b.templates[program.template.Text()] = program
		}
		b.policies[i].program = program
		kept[old] = uint32(i) + 1
		needed++
	}
	switch {
	// The numbers in what is kept must go on meaning the same, so the symbols are a copy that grows.
	case needed > 0:
		b.symbols = b.previous.symbols.clone()
		b.dropped, b.namedAnew = b.previous.dropped+len(b.previous.policies)-needed, b.previous.namedAnew
		for _, e := range b.previous.index.keyed() {
			if now := kept[e.policy]; now > 0 {
				e.policy = now - 1
				entries = append(entries, e)
			}
		}
	case b.schema != nil:
		b.symbols = b.schema.symbols.clone()
	default:
		b.symbols = newSymbols()
	}
	b.compiler = newCompiler(b.symbols, b.schema)
	return entries, nil
}

// program compiles a policy, or finds what it shares: a link with its template, by its text, and a policy
// without conditions with all such of its effect.
func (b *builder) program(p *Policy) *program {
	if p.template != nil {
		shared := b.templates[p.template.Text()]
		if shared == nil {
			shared = b.compiler.program(p.tree)
			shared.template = p.template
			b.templates[p.template.Text()] = shared
		}
		return shared
	}
	if len(p.tree.Conditions) > 0 {
		return b.compiler.program(p.tree)
	}
	effect := 0
	if p.Forbids() {
		effect = 1
	}
	if b.always[effect] == nil {
		b.always[effect] = b.compiler.program(p.tree)
	}
	return b.always[effect]
}

// Weight is about how many bytes the snapshot holds in memory. It includes its schema, and programs and
// symbols as if no other snapshot had them too.
func (s *Snapshot) Weight() int64 { return s.weight }
