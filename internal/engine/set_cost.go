package engine

import (
	"cmp"
	"encoding/binary"
	"hash/maphash"
	"math"
	"slices"

	"github.com/cedar-policy/cedar-go/types"
)

// cedar-go keeps a set as a map from hashes to values and puts a value whose place is taken into the
// next free one. It hashes a Long, decimal, datetime and duration to its number, a set to the sum of its
// elements, anything else with FNV-1, for which anyone can compute texts that clash. So a value that is
// not in a set of n may be compared with all n, and whoever writes the values decides. Here the hashes of
// all elements of all sets of a request are known, and with them what building and comparing sets costs.

// maxSetWork bounds the building of sets: one for each comparison, times the size of the values compared.
const maxSetWork = 1_000_000

// setCosts collects the sets of a request.
type setCosts struct {
	work    uint64
	members []setMember // the elements of all sets
	kinds   uint32      // their kinds, a bit each
	runs    []setRun
	longest uint64 // of the runs
	// nested is the longest run of a set with sets or records in it, height how deep sets nest.
	nested, height uint64
	scratch        []setElement
	seed           maphash.Seed
	seeded         bool
}

// A setMember's hash is signed, so that small numbers of either sign lie together. Values of one kind
// are the same if hash and check are: nobody can make checks clash, their seed is random.
type setMember struct {
	hash  int64
	check uint64
	kind  kind
	size  uint32
}

// setRun is a stretch of places taken, of more than one. With a kind, all values there are of it and each
// at its own place: another of that kind finds itself or a free place at the first look, unless it
// clashes. With anyKind, and for values of another kind, it may take the whole length.
type setRun struct {
	from, to int64
	kind     kind
	length   uint64
}

const anyKind kind = 255

type setElement struct {
	setMember
	value types.Value
}

// add takes in a set that is going to be built, and reports whether it may be.
func (c *setCosts) add(elements []types.Value) bool {
	if len(elements) == 0 {
		c.height = max(c.height, 1)
		return true
	}
	all := slices.Grow(c.scratch[:0], len(elements))
	c.scratch = all
	uniform, height := kindOf(elements[0]), uint64(0)
	dearest, composite := uint64(1), false
	for _, e := range elements {
		measured := c.measure(e)
		if c.work > maxSetWork {
			return false
		}
		k := kindOf(e)
		if k != uniform {
			uniform = anyKind
		}
		composite = composite || k == kindSet || k == kindRecord
		dearest, height = max(dearest, measured.size), max(height, measured.height)
		c.kinds |= 1 << k
		all = append(all, setElement{setMember{int64(measured.hash), c.check(e), k, uint32(min(measured.size, math.MaxUint32))}, e})
	}
	if composite {
		uniform = anyKind
	}
	// Comparing two elements costs their size, and what their own sets' runs make of it.
	for range height {
		dearest = times(dearest, max(c.longest, 1))
	}
	slices.SortFunc(all, func(a, b setElement) int { return cmp.Compare(a.hash, b.hash) })
	longest, ok := c.place(all, uniform, dearest)
	if composite {
		c.nested = max(c.nested, longest)
	}
	c.height = max(c.height, height+1)
	return ok
}

// place goes through the elements in the order of their hashes as cedar-go does in any order: which
// places are taken in the end, and how many are passed on the way, is the same.
func (c *setCosts) place(all []setElement, uniform kind, dearest uint64) (longest uint64, ok bool) {
	first := len(c.runs)
	run := setRun{kind: uniform}
	distinct := 0 // elements so far
	wrapped, moved := false, false
	for group := 0; group < len(all); {
		end := group + 1
		for end < len(all) && all[end].hash == all[group].hash {
			end++
		}
		kept := group // of the group, the distinct ones are moved to its front
		for i := group; i < end; i++ {
			twice := false
			clashing := kept - group
			for j := group; j < kept && !twice; j++ {
				if c.work = plus(c.work, dearest); c.work > maxSetWork {
					return 0, false
				}
				twice = all[i].value.Equal(all[j].value)
			}
			if twice {
				continue
			}
			all[kept] = all[i]
			kept++
			place := all[i].hash
			switch {
			case distinct > 0 && run.to == math.MaxInt64:
				wrapped = true
			case distinct > 0 && place <= run.to+1:
				// All between its own place and the next free one are in the way, beside those of its hash.
				moved = moved || place <= run.to
				if c.work = plus(c.work, times(dearest, uint64(run.to+1-place-int64(clashing)))); c.work > maxSetWork {
					return 0, false
				}
				run.to++
			default:
				c.note(run, &longest)
				run.from, run.to = place, place
			}
			distinct++
			c.members = append(c.members, all[i].setMember)
		}
		group = end
	}
	c.note(run, &longest)
	if wrapped {
		// What does not fit at the end moves those at the start.
		if c.work = plus(c.work, times(dearest, uint64(distinct)*uint64(distinct))); c.work > maxSetWork {
			return 0, false
		}
	}
	if wrapped || distinct > 0 && run.to == math.MaxInt64 && len(c.runs) > first {
		// The last run goes on at the other end, with whatever lies there.
		c.runs = append(c.runs[:first], setRun{math.MinInt64, math.MaxInt64, uniform, uint64(distinct)})
		longest = uint64(distinct)
	}
	if wrapped || moved {
		for i := range c.runs[first:] {
			c.runs[first+i].kind = anyKind
		}
	}
	c.longest = max(c.longest, longest)
	return longest, true
}

func (c *setCosts) note(run setRun, longest *uint64) {
	if run.to == run.from {
		return
	}
	run.length = uint64(run.to-run.from) + 1
	*longest = max(*longest, run.length)
	c.runs = append(c.runs, run)
}

// extra is how many comparisons one operator can cost beyond one for each value: each element of one
// set is looked for in another.
func (c *setCosts) extra() uint64 {
	c.findClashes()
	slices.SortFunc(c.runs, func(a, b setRun) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.from, b.from))
	})
	total := uint64(0)
	for from := 0; from < len(c.runs); {
		to := from + 1
		for to < len(c.runs) && c.runs[to].kind == c.runs[from].kind {
			to++
		}
		total = plus(total, c.lookups(c.runs[from:to]))
		from = to
	}
	return total
}

// findClashes takes the kind from runs where a text of the same kind, in another set, clashes with one.
func (c *setCosts) findClashes() {
	clashing, hashed := uint32(0), false
	for _, r := range c.runs {
		hashed = hashed || r.kind != anyKind && !r.kind.isNumber()
	}
	if !hashed {
		return
	}
	slices.SortFunc(c.members, func(a, b setMember) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.kind, b.kind))
	})
	for i := 1; i < len(c.members); i++ {
		a, b := c.members[i-1], c.members[i]
		if a.hash == b.hash && a.kind == b.kind && a.check != b.check {
			clashing |= 1 << a.kind
		}
	}
	for i := range c.runs {
		if r := &c.runs[i]; r.kind != anyKind && clashing&(1<<r.kind) != 0 {
			r.kind = anyKind
		}
	}
}

// check tells texts apart that have the same hash. Other values are told apart by it, or not at all:
// sets of sets and records have no kind.
func (c *setCosts) check(v types.Value) uint64 {
	if !c.seeded {
		c.seed, c.seeded = maphash.MakeSeed(), true
	}
	switch v := v.(type) {
	case types.String:
		return maphash.String(c.seed, string(v))
	case types.EntityUID:
		return maphash.Comparable(c.seed, v)
	case types.IPAddr:
		return maphash.Comparable(c.seed, v)
	default:
		return 0
	}
}

// lookups counts those into runs of one kind, which may be of different sets.
func (c *setCosts) lookups(runs []setRun) uint64 {
	own := runs[0].kind
	if own != anyKind && c.kinds == 1<<own {
		return 0
	}
	joined := runs[:1]
	for _, r := range runs[1:] {
		if last := &joined[len(joined)-1]; r.from <= last.to {
			last.to, last.length = max(last.to, r.to), max(last.length, r.length)
		} else {
			joined = append(joined, r)
		}
	}
	total := uint64(0)
	for _, m := range c.members {
		if m.kind == own {
			continue
		}
		i, _ := slices.BinarySearchFunc(joined, m.hash, func(r setRun, hash int64) int { return cmp.Compare(r.to, hash) })
		if i == len(joined) || m.hash < joined[i].from {
			continue
		}
		size := uint64(m.size)
		if m.kind == kindSet || m.kind == kindRecord {
			size = 1 // see factor
		}
		total = plus(total, times(size, joined[i].length))
	}
	return total
}

// factor is what comparing sets within sets multiplies the work with: each of their elements may be
// compared in full with as many others as clash.
func (c *setCosts) factor() uint64 {
	product := uint64(1)
	for level := uint64(1); level < c.height && c.nested > 1 && product < math.MaxUint64; level++ {
		product = times(product, c.nested)
	}
	return product
}

// measured is what a set needs to know of an element.
type measured struct {
	hash   uint64 // as cedar-go computes it
	size   uint64
	height uint64 // how deep sets nest in it
}

// measure looks through a value. What it takes for sets and records counts as work, for those in
// several sets are looked through for each.
func (c *setCosts) measure(v types.Value) measured {
	switch v := v.(type) {
	case types.Set:
		out := measured{size: 1, height: 1}
		for e := range v.All() {
			inner := c.measure(e)
			c.work = plus(c.work, inner.size)
			out.hash += inner.hash
			out.size = plus(out.size, inner.size)
			out.height = max(out.height, inner.height+1)
		}
		return out
	case types.Record:
		out := measured{size: 1}
		if v.Len() > 0 {
			out.hash = fnvOffset
		}
		for _, name := range slices.Sorted(v.Keys()) {
			member, _ := v.Get(name)
			inner := c.measure(member)
			size := plus(inner.size, textSize(len(name)))
			c.work = plus(c.work, size)
			var digits [8]byte
			binary.LittleEndian.PutUint64(digits[:], inner.hash)
			out.hash = fnv(fnv(out.hash, string(name)), digits[:])
			out.size = plus(out.size, size)
			out.height = max(out.height, inner.height)
		}
		return out
	case types.String:
		return measured{hash: fnv(fnvOffset, string(v)), size: 1 + textSize(len(v))}
	case types.EntityUID:
		return measured{hash: fnv(fnv(fnvOffset, string(v.Type)), string(v.ID)), size: 1 + textSize(len(v.ID))}
	case types.IPAddr:
		// MarshalBinary of a prefix has no way to fail.
		text, _ := v.Prefix().MarshalBinary()
		return measured{hash: fnv(fnvOffset, text), size: 1}
	default:
		return measured{hash: numberOf(v), size: 1}
	}
}

func numberOf(v types.Value) uint64 {
	switch v := v.(type) {
	case types.Long:
		return uint64(v)
	case types.Datetime:
		return uint64(v.Milliseconds())
	case types.Duration:
		return uint64(v.ToMilliseconds())
	case types.Decimal:
		return uint64(decimalNumber(v.String()))
	case types.Boolean:
		if v {
			return 1
		}
	}
	return 0
}

// decimalNumber reads a decimal as the number of its ten thousandths.
func decimalNumber(text string) int64 {
	n, digits, point := int64(0), 0, false
	negative := text[0] == '-'
	for _, r := range text {
		switch {
		case r == '.':
			point = true
		case r >= '0' && r <= '9':
			// Counting down: the least number has no positive counterpart.
			n = n*10 - int64(r-'0')
			if point {
				digits++
			}
		}
	}
	for ; digits < 4; digits++ {
		n *= 10
	}
	if negative {
		return n
	}
	return -n
}

const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

func fnv[T string | []byte](hash uint64, text T) uint64 {
	for i := range len(text) {
		hash = hash*fnvPrime ^ uint64(text[i])
	}
	return hash
}

// textSize is what text counts beyond one.
func textSize(bytes int) uint64 { return uint64(bytes) / 16 }
