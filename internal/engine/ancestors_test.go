package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

// below are n entities in the last of a chain of groups with ids that are long and differ at the end.
func below(n, chain int) string {
	pad := strings.Repeat("x", 500)
	var b strings.Builder
	for i := range chain {
		parents := ""
		if i > 0 {
			parents = fmt.Sprintf(`{"type":"G","id":"%s%03d"}`, pad, i-1)
		}
		fmt.Fprintf(&b, `{"uid":{"type":"G","id":"%s%03d"},"attrs":{},"parents":[%s]},`, pad, i, parents)
	}
	for i := range n {
		fmt.Fprintf(&b, `{"uid":{"type":"U","id":"%d"},"attrs":{},"parents":[{"type":"G","id":"%s%03d"}]},`, i, pad, chain-1)
	}
	return "[" + strings.TrimSuffix(b.String(), ",") + "]"
}

// Finding ancestors takes one step for each parent and each ancestor of a parent, looks at no
// identifier in one, and has an end.
func TestAncestorsAreBoundedInAll(t *testing.T) {
	req := viewRequest()
	req.Entities = cedarJSON(below(1000, 99))
	d, err := decodeFor(t, nil, req)
	if err != nil {
		t.Fatal(err)
	}
	if want := 98*99/2 + 1000*99; d.climbed != want || len(d.entities) != 1099+3 {
		t.Errorf("%d steps for %d entities, want %d", d.climbed, len(d.entities), want)
	}
	if got := len(d.above(uid("U", "7"))); got != 99 {
		t.Errorf("%d ancestors", got)
	}
	// With a short id for the last of the chain, many more fit into a request.
	many := strings.ReplaceAll(below(6000, 99), `{"type":"G","id":"`+strings.Repeat("x", 500)+`098"}`, `{"type":"G","id":"k"}`)
	req.Entities = cedarJSON(many)
	if len(req.Entities.Bytes) > copse.MaxRequestBytes {
		t.Fatalf("%d bytes", len(req.Entities.Bytes))
	}
	_, err = decodeFor(t, nil, req)
	if f := invalid(t, err)[0]; f.Path != "entities" || !strings.Contains(f.Message, "more than 500000 steps") {
		t.Errorf("%+v", f)
	}
}

// The ancestors are those a plain search finds.
func TestAncestors(t *testing.T) {
	parents := map[string][]string{"a": {"b", "c"}, "b": {"d", "x"}, "c": {"d", "b"}, "d": {"e"}, "f": {"e", "a"}, "g": {"nowhere"}}
	var entities []string
	for id, above := range parents {
		var list []string
		for _, p := range above {
			list = append(list, fmt.Sprintf(`{"type":"G","id":%q}`, p))
		}
		entities = append(entities, fmt.Sprintf(`{"uid":{"type":"G","id":%q},"attrs":{},"parents":[%s]}`, id, strings.Join(list, ",")))
	}
	req := viewRequest()
	req.Entities = cedarJSON("[" + strings.Join(entities, ",") + "]")
	for range 20 { // maps are walked in any order
		d, err := decodeFor(t, nil, req)
		if err != nil {
			t.Fatal(err)
		}
		for id, want := range map[string]string{"a": "bcdex", "b": "dex", "c": "bdex", "d": "e", "e": "", "f": "abcdex", "g": "nowhere", "x": "", "unknown": ""} {
			var got []string
			for _, a := range d.above(types.NewEntityUID("G", types.String(id))) {
				got = append(got, string(a.ID))
			}
			slices.Sort(got)
			if strings.Join(got, "") != want {
				t.Errorf("%s: got %v, want %s", id, got, want)
			}
		}
	}
}
