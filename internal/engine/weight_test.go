//go:build !race

package engine

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/copse-authz/copse"
)

// weighed compiles n policies and measures what stays on the heap because of the snapshot alone. It
// does so several times over when the snapshot is small, or the runtime's own comings and goings show.
func weighed(t *testing.T, schemaText string, n int, text func(i int) string) (claimed, measured int64) {
	t.Helper()
	copies := max(1, 300/n)
	snapshots := make([]*Snapshot, copies)
	before := liveBytes()
	for i := range snapshots {
		snapshots[i] = compileMany(t, schemaText, n, text)
	}
	measured = (liveBytes() - before) / int64(copies)
	claimed = snapshots[0].Weight()
	runtime.KeepAlive(snapshots)
	return claimed, measured
}

func compileMany(t *testing.T, schemaText string, n int, text func(i int) string) *Snapshot {
	t.Helper()
	var schema *Schema
	if schemaText != "" {
		schema = mustSchema(t, schemaText)
	}
	sources := make([]Source, n)
	for i := range sources {
		p, err := ParsePolicy("p", []byte(text(i)))
		if err != nil {
			t.Fatal(err)
		}
		sources[i] = Source{Ref: copse.PolicyRef{ID: copse.PolicyID(fmt.Sprintf("%022d", i)), Name: fmt.Sprintf("name%d", i)}, Policy: p}
	}
	s, err := Compile(schema, copse.Settings{}, sources)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Caches are bounded by Weight, so it must be what the heap says, for small and large policies, with
// and without a schema.
func TestWeightIsHonest(t *testing.T) {
	var wide strings.Builder
	for i := range 300 {
		fmt.Fprintf(&wide, "entity E%d { a: Long, b?: String, c: Set<String>, d: { x: Long, y?: Bool } };", i)
	}
	for i := range 100 {
		fmt.Fprintf(&wide, "action a%d appliesTo { principal: [E1, E2], resource: [E3], context: { mfa: Bool, ip?: ipaddr } };", i)
	}
	var enums strings.Builder
	for i := range 100 {
		fmt.Fprintf(&enums, "entity E%d enum [\"a\", \"b\", \"c\", \"d\", \"e\", \"f\", \"g\", \"h\"];", i)
	}
	for what, test := range map[string]struct {
		schema string
		n      int
		text   func(int) string
	}{
		"point": {"", 2000, func(i int) string {
			return fmt.Sprintf(`permit(principal == User::"u%d", action == Action::"view", resource in Folder::"f%d");`, i, i)
		}},
		"group": {"", 2000, func(i int) string {
			return fmt.Sprintf(`permit(principal in Group::"g%d", action in [Action::"view", Action::"edit"], resource in Folder::"f%d");`, i, i)
		}},
		"attributes": {"", 2000, func(i int) string {
			return fmt.Sprintf(`permit(principal is User, action == Action::"a%d", resource is Document) when { principal.dept == resource.dept && principal.level >= 3 && context.mfa && !resource.labels.contains("secret") };`, i)
		}},
		"any": {"", 2000, func(i int) string { return "permit(principal, action, resource);" }},
		"long": {"", 100, func(i int) string {
			return `permit(principal, action, resource) when { ` + strings.Repeat(`principal.name == "someone" || `, 100) + ` false };`
		}},
		"text": {"", 100, func(i int) string {
			return `@doc("` + strings.Repeat("x", 3000) + `") permit(principal, action, resource) when { context.a like "` + strings.Repeat("y", 3000) + `*" };`
		}},
		"lists": {"", 100, func(i int) string {
			return `permit(principal, action in [` + strings.Repeat(`Action::"a",`, 200) + `], resource) when { ["a","b","c","d"].contains(context.x) && {a: 1, b: 2}.a == context.y };`
		}},
		"enums":    {enums.String(), 10, func(i int) string { return "permit(principal, action, resource);" }},
		"expanded": {doubling(12), 500, func(i int) string { return "permit(principal, action, resource);" }},
		"small":    {shopSchema, 10, func(i int) string { return "permit(principal, action, resource) when { 1 == 1 };" }},
		"schema":   {wide.String(), 10, func(i int) string { return "permit(principal, action, resource);" }},
	} {
		claimed, measured := weighed(t, test.schema, test.n, test.text)
		ratio := float64(claimed) / float64(measured)
		t.Logf("%-10s claims %9d, the heap holds %9d: %.2f", what, claimed, measured, ratio)
		if ratio < 0.8 || ratio > 1.2 {
			t.Errorf("%s: claims %d bytes, the heap holds %d", what, claimed, measured)
		}
	}
}

// A link shares all of its template but the entities it names.
func TestLinksAreSmall(t *testing.T) {
	const n = 20_000
	before := liveBytes()
	s, err := Compile(nil, copse.Settings{}, links(t, n))
	if err != nil {
		t.Fatal(err)
	}
	perLink := (liveBytes()-before)/n - 24 // its own id
	t.Logf("%d bytes per link beside its id", perLink)
	if perLink > 100 {
		t.Errorf("a link takes %d bytes beside its id", perLink)
	}
	if ratio := float64(s.Weight()) / float64((perLink+24)*n); ratio < 0.8 || ratio > 1.2 {
		t.Errorf("claims %.2f of what the heap holds", ratio)
	}
	runtime.KeepAlive(s)
}

// liveBytes is what the heap holds after collection.
func liveBytes() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
