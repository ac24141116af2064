package engine

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

// The costs of sets rest on cedar-go's hashes, which it does not show. But it writes a set in the order
// of its places: a value between Long(h-1) and Long(h), though that is h's place too, came first to h.
func TestHashesAreCedarGos(t *testing.T) {
	r := rand.New(rand.NewPCG(20261123, 1))
	compared := map[kind]int{}
	for range 5000 {
		v := randomHashed(r, 3)
		h := (&setCosts{}).measure(v).hash
		if h == 0 || h == math.MaxUint64 {
			continue // nothing can lie before or after
		}
		if k := kindOf(v); k != kindLong {
			compared[k]++
		}
		before, at := types.Long(int64(h-1)), types.Long(int64(h))
		got := types.NewSet(v, at, before).String()
		if want := fmt.Sprintf("[%s, %s, %s]", before.MarshalCedar(), v.MarshalCedar(), at.MarshalCedar()); got != want && kindOf(v) != kindLong {
			t.Fatalf("%s has not the hash %d: %s", v.MarshalCedar(), h, got)
		}
	}
	for _, k := range []kind{kindString, kindEntity, kindSet, kindRecord, kindDecimal, kindIP, kindDatetime, kindDuration} {
		if compared[k] < 100 {
			t.Errorf("compared %d values of type %s", compared[k], k)
		}
	}
	for v, want := range map[string]uint64{"-922337203685477.5808": 1 << 63, "922337203685477.5807": 1<<63 - 1, "-0.0001": math.MaxUint64, "1.5": 15000} {
		d, err := types.ParseDecimal(v)
		if err != nil || numberOf(d) != want {
			t.Errorf("%s: %d, %v", v, numberOf(d), err)
		}
	}
}

func randomHashed(r *rand.Rand, depth int) types.Value {
	number := r.Int64() >> r.IntN(64)
	text := func() string { return strings.Repeat("aé\x00", r.IntN(3)) + fmt.Sprint(r.IntN(1000)) }
	switch n := r.IntN(10); {
	case n == 0:
		return types.Boolean(r.IntN(2) == 0)
	case n == 1:
		return types.Long(number)
	case n == 2:
		return types.String(text())
	case n == 3:
		return uid(strings.Repeat("N::", r.IntN(2))+"T", text())
	case n == 4:
		d, _ := types.NewDecimal(number>>14, r.IntN(4)-4)
		return d
	case n == 5:
		ip, _ := types.ParseIPAddr([]string{"1.2.3.4", "::1", "10.0.0.0/8", "fe80::/10", "::ffff:102:304"}[r.IntN(5)])
		return ip
	case n == 6:
		return types.NewDatetimeFromMillis(number >> 16)
	case n == 7:
		return types.NewDurationFromMillis(number)
	case depth == 0:
		return types.Long(number)
	case n == 8:
		elements := make([]types.Value, r.IntN(4))
		for i := range elements {
			elements[i] = randomHashed(r, depth-1)
		}
		return types.NewSet(elements...)
	default:
		members := types.RecordMap{}
		for range r.IntN(4) {
			members[types.String(text())] = randomHashed(r, depth-1)
		}
		return types.NewRecord(members)
	}
}

// probed does what cedar-go's sets do and counts the comparisons.
type probed struct {
	value types.Value
	hash  uint64
	slots map[uint64]*probed // of a set
}

func probe(v types.Value, count *uint64) *probed {
	p := &probed{value: v, hash: (&setCosts{}).measure(v).hash}
	if s, ok := v.(types.Set); ok {
		p.slots = map[uint64]*probed{}
		for _, e := range s.Slice() {
			p.insert(probe(e, count), count)
		}
	}
	return p
}

func (p *probed) insert(e *probed, count *uint64) {
	for at := e.hash; ; at++ {
		existing := p.slots[at]
		if existing == nil {
			p.slots[at] = e
			return
		}
		if e.equal(existing, count) {
			return
		}
	}
}

func (p *probed) contains(e *probed, count *uint64) bool {
	for at := e.hash; ; at++ {
		existing := p.slots[at]
		if existing == nil {
			*count++
			return false
		}
		if e.equal(existing, count) {
			return true
		}
	}
}

func (p *probed) equal(other *probed, count *uint64) bool {
	*count++
	if p.slots == nil || other.slots == nil {
		return p.value.Equal(other.value)
	}
	if len(p.slots) != len(other.slots) || p.hash != other.hash {
		return false
	}
	for _, e := range p.slots {
		if !other.contains(e, count) {
			return false
		}
	}
	return true
}

// clashing makes values that get in each other's way: small numbers of several kinds, the extreme ones,
// and sets of them.
func clashing(r *rand.Rand, kinds, depth int) types.Value {
	number := int64(r.IntN(24)) - 8
	if r.IntN(8) == 0 {
		number += math.MaxInt64 - 10 // and around to the least ones
	}
	switch n := r.IntN(kinds); {
	case depth > 0 && r.IntN(3) > 0:
		elements := make([]types.Value, r.IntN(8))
		for i := range elements {
			elements[i] = clashing(r, kinds, depth-1)
		}
		return types.NewSet(elements...)
	case n == 1:
		return types.NewDurationFromMillis(number)
	case n == 2:
		return types.Boolean(number%2 == 0)
	case n == 3:
		return types.String(fmt.Sprint(number))
	default:
		return types.Long(number)
	}
}

// What cedar-go does with the sets of a request is never more than what is charged for it.
func TestSetsCostNoMoreThanCharged(t *testing.T) {
	r := rand.New(rand.NewPCG(20261123, 2))
	compared, crowded := 0, 0
	for range 3000 {
		kinds, depth := 1+r.IntN(4), r.IntN(3)
		var sets [3][]types.Value
		for i := range sets {
			sets[i] = make([]types.Value, r.IntN(20))
			for j := range sets[i] {
				sets[i][j] = clashing(r, kinds, depth)
			}
		}
		var costs setCosts
		var built []*probed
		var size, whole uint64
		for _, elements := range sets {
			v := types.NewSet(elements...)
			// Inner sets are read before the outer one.
			charge(t, &costs, v, elements)
			size = max(size, costs.measure(v).size)
			whole += costs.measure(v).size
			var count uint64
			p := &probed{value: v, slots: map[uint64]*probed{}}
			for _, e := range elements {
				p.insert(probe(e, &count), &count)
			}
			p.hash = costs.measure(v).hash
			if limit := costs.work + whole; count > limit {
				t.Fatalf("building %v takes %d comparisons, charged are %d", elements, count, limit)
			}
			built = append(built, p)
		}
		limit := times(plus(size, costs.extra()), costs.factor())
		for _, a := range built {
			for _, b := range built {
				var any, equal uint64
				for _, e := range b.slots {
					a.contains(e, &any)
				}
				b.equal(a, &equal)
				if n := max(any, equal); n > 1+limit {
					t.Fatalf("%v and %v take %d comparisons, charged are %d", a.value, b.value, n, limit)
				} else if n > size {
					crowded++
				}
				compared++
			}
		}
	}
	if compared < 20_000 || crowded < 500 {
		t.Errorf("%d pairs of sets, %d of them crowded", compared, crowded)
	}
}

func charge(t *testing.T, costs *setCosts, v types.Value, elements []types.Value) {
	t.Helper()
	for _, e := range elements {
		if s, ok := e.(types.Set); ok {
			charge(t, costs, s, s.Slice())
		}
	}
	costs.work = 0 // each is within bounds by itself
	if !costs.add(elements) {
		t.Skipf("refused: %v", v)
	}
}

// An ordinary request is charged for its values and nothing else.
func TestOrdinarySetsCostTheirSize(t *testing.T) {
	var groups, ids []string
	for i := range 300 {
		groups = append(groups, fmt.Sprintf(`"group-%d"`, i))
		ids = append(ids, fmt.Sprint(i))
	}
	req := viewRequest()
	req.Context = cedarJSON(`{"groups": [` + strings.Join(groups, ",") + `], "ids": [` + strings.Join(ids, ",") + `], "levels": [-1, 0, 1],
		"records": [{"a": 1, "b": [1, 2]}, {"a": 2, "b": [1, 2]}, {"a": 1, "b": [1, 2]}], "flags": [true, false],
		"who": [{"__entity": {"type": "User", "id": "a"}}, {"__entity": {"type": "User", "id": "b"}}]}`)
	d, err := decode(nil, req)
	if err != nil {
		t.Fatal(err)
	}
	// true and false lie where 0 and 1 do.
	if got := d.reach(nil); got.attribute > 301+2*300+20 || got.attribute < 301 {
		t.Errorf("%+v", got)
	}
}

func longs(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%d,", i)
	}
	return "[" + strings.TrimSuffix(b.String(), ",") + "]"
}

func durations(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = cedarExtensionJSON("duration", fmt.Sprintf("%dms", i))
	}
	return "[" + strings.Join(list, ",") + "]"
}

// A thousand durations looked for among 30,000 Longs are compared with all of them.
func TestSetsOfSeveralKindsAreCharged(t *testing.T) {
	s := compileText(t, nil, copse.Settings{}, `permit(principal, action, resource) when { principal.a.containsAny(context.b) };`)
	entity := func(a string) copse.Data {
		return cedarJSON(`[{"uid": {"type": "User", "id": "a"}, "attrs": {"a": ` + a + `}, "parents": []}]`)
	}
	for what, test := range map[string]struct {
		a, b     string
		from, to uint64
	}{
		"one kind":         {longs(30_000), longs(1000), 30_001, 30_001},
		"two kinds":        {longs(30_000), durations(1000), 30_000_000, 61_000_000},
		"and the other":    {durations(1000), longs(30_000), 30_000_000, 61_000_000},
		"far apart":        {longs(30_000), `["a", "b", "c"]`, 30_001, 30_001},
		"clashing texts":   {clashingTexts(7, 0), clashingTexts(7, 1), 128 * 128 * 9, 300_000},
		"texts, twice":     {clashingTexts(7, 0), clashingTexts(7, 0), 128 * 128 * 9, 300_000},
		"nested, one kind": {`[` + longs(300) + `]`, `[` + longs(300) + `,` + longs(200) + `]`, 300, 1000},
	} {
		req := viewRequest()
		req.Entities, req.Context = entity(test.a), cedarJSON(`{"b": `+test.b+`}`)
		d, err := decode(nil, req)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.reach(nil).attribute; got < test.from || got > test.to {
			t.Errorf("%s: %d steps, want %d to %d", what, got, test.from, test.to)
		}
		if over := s.steps(s.index.find(d), d) > MaxDecisionSteps; over != (test.from > 1_000_000) {
			t.Errorf("%s: over budget: %t", what, over)
		}
	}
}

// clashingTexts are 2^n texts that all have one hash under FNV-1: each pair leads from the hash before
// it to the same hash after it. Lattice reduction finds such pairs in no time.
func clashingTexts(n int, last int) string {
	pairs := [11][2]string{
		{"IkanWdDt5azxEQKo", "IkgQN03pcede8GIj"}, {"IkaXzgBzNVDJ72xx", "IkoWC71RJpBCnjXu"}, {"IkaVEMDjHQMxP9Yr", "IkgKNQKrTQQeoSGq"},
	}
	for i := 3; i < len(pairs); i++ {
		pairs[i] = pairs[i-2]
	}
	texts := make([]string, 1<<n)
	for i := range texts {
		var b strings.Builder
		for bit := range n {
			b.WriteString(pairs[bit][i>>bit&1])
		}
		b.WriteString(pairs[n][last])
		texts[i] = `"` + b.String() + `"`
	}
	return "[" + strings.Join(texts, ",") + "]"
}

func TestTextsThatClashAreRefused(t *testing.T) {
	a, b := types.String("IkanWdDt5azxEQKo"), types.String("IkgQN03pcede8GIj")
	if (&setCosts{}).measure(a).hash != (&setCosts{}).measure(b).hash {
		t.Fatal("they don't clash")
	}
	req := viewRequest()
	for n, want := range map[int]string{7: "", 10: "clash"} {
		req.Context = cedarJSON(`{"a": ` + clashingTexts(n, 0) + `}`)
		_, err := decode(nil, req)
		if want == "" && err != nil {
			t.Errorf("2^%d texts: %v", n, err)
		} else if want != "" && !strings.Contains(invalid(t, err)[0].Message, want) {
			t.Errorf("2^%d texts: %v", n, err)
		}
	}
}

func TestClashesAreRefusedAtTheLimit(t *testing.T) {
	element := func(i int, place int64) setElement {
		return setElement{setMember{hash: place, kind: kindString, size: 1}, types.String(fmt.Sprint(i))}
	}
	for _, test := range []struct {
		n  int
		at func(i int) int64
		ok bool
	}{
		{100_000, func(i int) int64 { return int64(i) }, true},
		{500, func(int) int64 { return 7 }, true},
		{2000, func(int) int64 { return 7 }, false},
		{3000, func(i int) int64 { return int64(i / 2) }, false},
		{2000, func(int) int64 { return math.MaxInt64 }, false},
		{2000, func(i int) int64 { return math.MaxInt64 - int64(i/2) }, false},
	} {
		all := make([]setElement, test.n)
		for i := range all {
			all[i] = element(i, test.at(i))
		}
		slices.SortFunc(all, func(a, b setElement) int {
			if a.hash < b.hash {
				return -1
			}
			return min(1, int(a.hash-b.hash))
		})
		var costs setCosts
		if _, ok := costs.place(all, anyKind, 1); ok != test.ok {
			t.Errorf("%d values: %t after %d comparisons", test.n, ok, costs.work)
		}
		if costs.work > maxSetWork+uint64(test.n*test.n) {
			t.Errorf("%d values: stopped after %d comparisons", test.n, costs.work)
		}
	}
}
