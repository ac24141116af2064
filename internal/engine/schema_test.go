package engine

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
)

func mustSchema(t testing.TB, text string) *Schema {
	t.Helper()
	s, err := ParseSchema("schema.cedarschema", []byte(text), SyntaxCedar)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSchemaBothSyntaxes(t *testing.T) {
	s := mustSchema(t, `
		type Address = { city: String, zip?: Long };
		namespace Shop {
			entity Group;
			entity User in [Group] { home: Address, colour: Colour } tags Set<String>;
			entity Colour enum ["red", "green"];
			action all;
			action read in all appliesTo { principal: User, resource: [User, Group], context: { ip?: ipaddr } };
		}`)
	if diff := cmp.Diff([]string{"", "Shop"}, s.Namespaces()); diff != "" {
		t.Error(diff)
	}
	again, err := ParseSchema("schema.json", s.JSON(), SyntaxJSON)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(s.JSON()), string(again.JSON())); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(s.nodes, again.nodes); diff != "" {
		t.Error(diff)
	}
}

func TestSchemaErrors(t *testing.T) {
	for _, test := range []struct {
		text         string
		line, column int
		message      string
	}{
		{"entity User", 1, 12, "expected ';'"},
		{"entity User;\nentity Dokument in [Ordner];", 2, 21, `undefined entity type "Ordner"`},
		{"entity User {\n  a: Strng\n};", 2, 6, `undefined type "Strng"`},
		{"namespace A { entity U { x: B::T }; }", 1, 29, `undefined type "B::T"`},
		{"entity U;\nentity U;", 2, 10, "declared twice"},
		{"entity U {\n  a: Long,\n  \"a\": String };", 3, 3, "declared twice here"},
		{"type A = B;\ntype B = Set<C>;\ntype C = {x: A};", 1, 6, "defined by itself: A -> B -> C -> A"},
		{"action a in [b];\naction b in [a];", 0, 0, "cycle"},
		{"entity U;\naction a in [zzz];", 0, 0, "undefined parent action"},
		{"entity U;\naction a appliesTo { principal: U, resource: U, context: Long };", 2, 8, "must resolve to a record"},
		{"entity U = { x: \"open };", 1, 17, "this string is not closed"},
		{"entity Ü;", 1, 8, "not part of the language"},
		{"entity U;\x00", 1, 10, "NUL"},
		{"entity U; // \xff", 1, 14, "UTF-8"},
		{"type Bool = Long;", 1, 6, "reserved type name"},
	} {
		t.Run(test.text, func(t *testing.T) {
			_, err := ParseSchema("f", []byte(test.text), SyntaxCedar)
			if test.line > 0 {
				wantField(t, err, test.line, test.column, test.message)
			} else if f := invalid(t, err)[0]; !strings.Contains(f.Message, test.message) {
				t.Errorf("got %q, want %q", f.Message, test.message)
			}
		})
	}
}

func TestSchemaErrorsInJSON(t *testing.T) {
	const rest = `"actions":{}`
	for text, message := range map[string]string{
		`{`:                                    "ends too early",
		`[]`:                                   "an array is not expected here",
		`{"":{"entityTypes":{}}}`:              `"actions" is missing`,
		`{"":{"entityTypes":[],` + rest + `}}`: "an array is not expected here",
		`{"":{"entityTypes":{},"actions":{},"more":1}}`:                                                                        "unknown member",
		`{"":{"entityTypes":{},"entityTypes":{},` + rest + `}}`:                                                                "occurs twice",
		`{"":{"entityTypes":{"a b":{}},` + rest + `}}`:                                                                         "not the name of an entity type",
		`{"":{"entityTypes":{"in":{}},` + rest + `}}`:                                                                          "reserved word",
		`{"a b":{"entityTypes":{},` + rest + `}}`:                                                                              "not the name of a namespace",
		`{"__cedar":{"entityTypes":{},` + rest + `}}`:                                                                          "not the name of a namespace",
		`{"":{"entityTypes":{"U":{"shape":{"type":"Record","attributes":{"a":{"type":"Strng"}}}}},` + rest + `}}`:              `undefined type "Strng"`,
		`{"":{"entityTypes":{"U":{"shape":{"type":"Long"}}},` + rest + `}}`:                                                    "is a Record written out here",
		`{"":{"entityTypes":{"U":{"shape":{"type":"T"}}},"commonTypes":{"T":{"type":"Record","attributes":{}}},` + rest + `}}`: "is a Record written out here",
		`{"":{"entityTypes":{"U":{"tags":{"type":"Extension","name":"money"}}},` + rest + `}}`:                                 "undefined extension type",
		`{"":{"entityTypes":{"U":{"memberOfTypes":["G"]}},` + rest + `}}`:                                                      `undefined entity type "G"`,
		`{"":{"entityTypes":{"U":{}},` + rest + `}} x`:                                                                         "after the value's end",
		"{\"\xff\":{}}": "UTF-8",
	} {
		t.Run(text, func(t *testing.T) {
			_, err := ParseSchema("schema", []byte(text), SyntaxJSON)
			if f := invalid(t, err)[0]; !strings.Contains(f.Message, message) || strings.Contains(f.Message, "json.") {
				t.Errorf("got %q, want %q", f.Message, message)
			}
		})
	}
}

// doubling is the schema of the review: valid, 730 bytes, each common type twice the last one.
func doubling(levels int) string {
	var b strings.Builder
	b.WriteString("type T0 = {a: Long};")
	for i := range levels {
		fmt.Fprintf(&b, "type T%d = {a: T%d, b: T%d};", i+1, i, i)
	}
	fmt.Fprintf(&b, "entity U {x: T%d};", levels)
	return b.String()
}

func doublingJSON(levels int) string {
	var b strings.Builder
	b.WriteString(`{"":{"entityTypes":{"U":{}},"actions":{},"commonTypes":{"T0":{"type":"Long"}`)
	for i := range levels {
		fmt.Fprintf(&b, `,"T%d":{"type":"Record","attributes":{"a":{"type":"T%d"},"b":{"type":"T%d"}}}`, i+1, i, i)
	}
	b.WriteString("}}}")
	return b.String()
}

func TestSchemaBombs(t *testing.T) {
	names := func(prefix string, n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf("%s%d", prefix, i))
		}
		return strings.Join(list, ",")
	}
	attributes := strings.Repeat(" ", 1)
	for i := range 1000 {
		attributes += fmt.Sprintf("a%d?: Long,", i)
	}
	chain := func(format string, n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i+1, i)
		}
		return b.String()
	}
	for _, test := range []struct {
		what, text, message string
		syntax              Syntax
	}{
		{"doubling common types", doubling(24), "65531 nodes, at most 50000", SyntaxCedar},
		{"doubling past 64 bits", doubling(300), "more than 10^19", SyntaxCedar},
		{"doubling in JSON", doublingJSON(24), "nodes, at most 50000", SyntaxJSON},
		{"sets of sets", "type A = " + strings.Repeat("Set<", 19_000) + "Long" + strings.Repeat(">", 19_000) + ";", "nest more than 100 deep", SyntaxCedar},
		{"records of records", "type A = " + strings.Repeat("{a:", 20_000) + "Long" + strings.Repeat("}", 20_000) + ";", "nest more than 100 deep", SyntaxCedar},
		{"open braces", strings.Repeat("{", 90_000), "nest more than 100 deep", SyntaxCedar},
		{"arrays in JSON", strings.Repeat("[", 90_000), "nest more than 100 deep", SyntaxJSON},
		{"objects in JSON", strings.Repeat(`{"a":`, 19_000), "nest more than 100 deep", SyntaxJSON},
		{"names times parents", "entity " + names("B", 5000) + "; entity " + names("A", 5000) + " in [" + names("B", 5000) + "];", "at most 50000", SyntaxCedar},
		{"names times attributes", "entity " + names("A", 5000) + " {" + attributes + "};", "at most 50000", SyntaxCedar},
		{"names times annotation", "@doc(\"" + strings.Repeat("x", 60_000) + "\") entity " + names("A", 5000) + ";", "at most 50000", SyntaxCedar},
		{"actions times principals", "entity " + names("B", 5000) + "; action " + names("a", 5000) + " appliesTo {principal: [" + names("B", 5000) + "], resource: B0};", "at most 50000", SyntaxCedar},
		{"enum values times names", "entity " + names("B", 2000) + " enum [\"" + strings.ReplaceAll(names("v", 5000), ",", `","`) + "\"];", "at most 50000", SyntaxCedar},
		{"cycle", "type A = {a: B, b: B}; type B = {a: A, b: A};", "defined by itself", SyntaxCedar},
		{"cycle in JSON", `{"":{"entityTypes":{},"actions":{},"commonTypes":{"A":{"type":"Set","element":{"type":"A"}}}}}`, "defined by itself: A -> A", SyntaxJSON},
		{"chain of entity types", "entity E0;" + chain("entity E%d in E%d;", 4000), "hierarchy of entity types", SyntaxCedar},
		{"chain of actions", "action a0;" + chain("action a%d in a%d;", 4000), "in more than 100 groups", SyntaxCedar},
		{"many undefined names", "entity U {" + chain("a%d: X%d,", 6000) + "};", "undefined type", SyntaxCedar},
	} {
		if len(test.text) > copse.MaxSchemaBytes {
			t.Errorf("%s: %d bytes test the wrong limit", test.what, len(test.text))
		}
		inTime(t, test.what, func() {
			_, err := ParseSchema("f", []byte(test.text), test.syntax)
			if f := invalid(t, err)[0]; !strings.Contains(f.Message, test.message) {
				t.Errorf("%s: got %q, want %q", test.what, f.Message, test.message)
			}
		})
	}
	if len(doubling(24)) > 1000 {
		t.Error("the bomb is not a small one")
	}
	if _, err := ParseSchema("f", []byte(doubling(12)), SyntaxCedar); err != nil {
		t.Errorf("a schema within the limit: %v", err)
	}
	_, err := ParseSchema("f", make([]byte, copse.MaxSchemaBytes+1), SyntaxJSON)
	if copse.KindOf(err) != copse.QuotaExceeded {
		t.Errorf("got %v", err)
	}
}

// What the limit admits must be built in time: schemas close below it.
func TestLargestSchemasParseInTime(t *testing.T) {
	var types, actions strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&types, "entity E%d in [E%d] {a: Long, b?: String};", i, i/2)
	}
	for i := range 400 {
		fmt.Fprintf(&actions, "action a%d in g appliesTo {principal: [E1,E2,E3], resource: [E4,E5,E6], context: {x: Long, y: Set<Long>}};", i)
	}
	for what, text := range map[string]string{
		"types":    types.String(),
		"actions":  "entity E1; entity E2; entity E3; entity E4; entity E5; entity E6; action g;" + actions.String(),
		"doubling": doubling(12),
	} {
		inTime(t, what, func() {
			if _, err := ParseSchema("f", []byte(text), SyntaxCedar); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
}
