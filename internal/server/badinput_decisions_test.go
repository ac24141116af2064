package server_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// decisions are the two ways to ask about the tenant without a schema: what the body says beside the
// identifiers goes to both.
func decisions(p *patient) map[string]func(resource, rest string) reply {
	return map[string]func(resource, rest string) reply{
		"authorize": func(resource, rest string) reply {
			return p.authorize(p.plainToken, fmt.Sprintf(`{"action":{"id":"view"},"resource":{"type":"Doc","id":%s}%s}`, resource, rest))
		},
		"IsAuthorized": func(resource, rest string) reply {
			return p.amazon(p.root, "IsAuthorized", fmt.Sprintf(`{"policyStoreId":%q,"principal":{"entityType":"User","entityId":"alice"},`+
				`"action":{"actionType":"Action","actionId":"view"},"resource":{"entityType":"Doc","entityId":%s}%s}`, p.plain.PolicyStoreID, resource, rest))
		},
	}
}

func quoted(text string) string {
	out, _ := json.Marshal(text)
	return string(out)
}

// Any text is a fine entity id up to a length. It is compared, and never read.
func TestBadInputEntityIDs(t *testing.T) {
	p := newPatient(t)
	for surface, ask := range decisions(p) {
		for _, id := range []string{`"`, `\`, "\n", "\r\n\t", "\x00", "a\x00b", `","type":"User`, `Doc::"1"`, "\u2028", "\U0001F332", " ", strings.Repeat("x", 612)} {
			if r := ask(quoted(id), ""); r.status != 200 || !strings.Contains(r.body, "ALLOW") {
				t.Errorf("%s: id %q: got %v, want ALLOW", surface, id, r)
			}
		}
		for name, id := range map[string]string{
			"10,000 characters": quoted(strings.Repeat("x", 10_000)), "613 bytes": quoted(strings.Repeat("x", 613)),
			"empty": `""`, "missing": "null", "raw NUL": "\"\x00\"", "raw line break": "\"\n\"", "invalid UTF-8": "\"\xff\"",
		} {
			t.Run(surface+"/"+name, func(t *testing.T) {
				p.refuses(t, func() reply { return ask(id, "") }, "", 400)
			})
		}
	}
	p.unharmed()
}

// avpEntity and cedarEntity are documents with these parents.
func avpEntity(id string, parents ...string) string {
	for i, parent := range parents {
		parents[i] = fmt.Sprintf(`{"entityType":"Doc","entityId":%q}`, parent)
	}
	return fmt.Sprintf(`{"identifier":{"entityType":"Doc","entityId":%q},"parents":[%s]}`, id, strings.Join(parents, ","))
}

func TestBadInputEntities(t *testing.T) {
	p := newPatient(t)
	list := func(entities ...string) string {
		return `,"entities":{"entityList":[` + strings.Join(entities, ",") + `]}`
	}
	attribute := func(value string) string {
		return list(`{"identifier":{"entityType":"Doc","entityId":"1"},"attributes":{"place":` + value + `}}`)
	}
	deep := func(open, middle, end string, n int) string {
		return strings.Repeat(open, n) + middle + strings.Repeat(end, n)
	}
	ring := make([]string, 90)
	crowd := make([]string, 101)
	for i := range ring {
		ring[i] = avpEntity(fmt.Sprint(i), fmt.Sprint((i+1)%len(ring)))
	}
	for i := range crowd {
		crowd[i] = fmt.Sprint("p", i)
	}
	ladder := make([]string, 150)
	for i := range ladder {
		ladder[i] = avpEntity(fmt.Sprint(i), fmt.Sprint(i+1))
	}
	for _, c := range []struct{ name, rest, place string }{
		{"its own parent", list(avpEntity("1", "1")), "entit"},
		{"cycle", list(avpEntity("a", "b"), avpEntity("b", "c"), avpEntity("c", "a")), "ancestor"},
		{"cycle of 90", list(ring...), "ancestor"},
		{"101 parents", list(avpEntity("1", crowd...)), "parents"},
		{"150 ancestors", list(ladder...), "parents"},
		{"no identifier", list(`{"attributes":{}}`), "identifier"},
		{"half an identifier", list(`{"identifier":{"entityType":"Doc"}}`), "entityId"},
		{"unknown member", list(`{"identifier":{"entityType":"Doc","entityId":"1"},"surprise":1}`), "surprise"},
		{"bad type name", list(`{"identifier":{"entityType":"Doc\"","entityId":"1"}}`), "identifier"},
		{"value of no type", attribute(`{}`), "place"},
		{"value of two types", attribute(`{"long":1,"string":"x"}`), "place"},
		{"value of an unknown type", attribute(`{"float":1}`), "place"},
		{"integer too large", attribute(`{"long":9223372036854775808}`), "place"},
		{"integer with a fraction", attribute(`{"long":1.5}`), "place"},
		{"decimal", attribute(`{"decimal":"1.23456"}`), "place"},
		{"address", attribute(`{"ipaddr":"1.2.3.4.5"}`), "place"},
		{"date", attribute(`{"datetime":"2024-02-30"}`), "place"},
		{"attribute twice", attribute(`{"long":1},"place":{"long":2}`), "place"},
		{"100,000 sets in each other", attribute(deep(`{"set":[`, `{"long":1}`, `]}`, 60_000)), ""},
		{"100 sets in each other", attribute(deep(`{"set":[`, `{"long":1}`, `]}`, 100)), ""},
		{"records in each other", attribute(deep(`{"record":{"a":`, `{"long":1}`, `}}`, 40_000)), ""},
		{"context is a list", `,"context":{"contextMap":[]}`, "context"},
		{"context of two formats", `,"context":{"contextMap":{},"cedarJson":"{}"}`, "context"},
		{"context of no format", `,"context":{}`, "context"},
		{"context member twice", `,"context":{"contextMap":{"place":{"long":1},"place":{"long":2}}}`, "place"},
		{"context member twice, escaped", `,"context":{"contextMap":{"place":{"long":1},"\u0070lace":{"long":2}}}`, "place"},
		{"context in deep brackets", `,"context":{"contextMap":{"a":` + deep(`{"set":[`, ``, `]}`, 60_000) + `}}`, ""},
		{"context that ends early", `,"context":{"cedarJson":"{"}`, "context"},
		{"context in text, deep", `,"context":{"cedarJson":"{\"a\":` + deep("[", "1", "]", 100_000) + `}"}`, "context"},
		{"context in text, second line", `,"context":{"cedarJson":"{\n\"a\": nonsense}"}`, "2"},
		{"null", `,"context":{"cedarJson":"{\"place\":null}"}`, "place"},
		{"fraction", `,"context":{"cedarJson":"{\"place\":1.5}"}`, "place"},
		{"unknown function", `,"context":{"cedarJson":"{\"place\":{\"__extn\":{\"fn\":\"exec\",\"arg\":\"x\"}}}"}`, "place"},
		{"entities in text, not a list", `,"entities":{"cedarJson":"{}"}`, "entit"},
		{"entities in text, cycle", `,"entities":{"cedarJson":"[{\"uid\":{\"type\":\"Doc\",\"id\":\"1\"},\"attrs\":{},\"parents\":[{\"type\":\"Doc\",\"id\":\"1\"}]}]"}`, "ancestor"},
		{"entities twice", list() + list(), "entities"},
	} {
		for surface, ask := range decisions(p) {
			t.Run(surface+"/"+c.name, func(t *testing.T) {
				// AVP has Cedar JSON too; the member and its form are the same.
				p.refuses(t, func() reply { return ask(`"1"`, c.rest) }, c.place, 400)
			})
		}
	}
	for surface, ask := range decisions(p) {
		if r := ask(`"1"`, attribute(deep(`{"set":[`, `{"long":1}`, `]}`, 20))+`,"context":{"contextMap":{"a":{"long":1}}}`); r.status != 200 {
			t.Errorf("%s: the twin is answered %v", surface, r)
		}
	}
	p.unharmed()
}

// Inputs of a megabyte that are legal, and that cost a careless reader its afternoon.
func TestBadInputExpensiveValues(t *testing.T) {
	p := newPatient(t)
	fill := func(start, item, end string) string {
		n := (990_000 - len(start) - len(end)) / (len(item) + 10)
		var b strings.Builder
		b.WriteString(start)
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(strings.ReplaceAll(item, "#", fmt.Sprint(10_000+i)))
		}
		return b.String() + end
	}
	for _, c := range []struct{ name, rest string }{
		{"sets that collide", fill(`,"context":{"contextMap":{"a":{"set":[`, `{"set":[{"long":#},{"long":-#}]}`, `]}}}`)},
		{"long set", fill(`,"context":{"contextMap":{"a":{"set":[`, `{"long":#}`, `]}}}`)},
		{"wide record", fill(`,"context":{"contextMap":{`, `"m#":{"long":1}`, `}}`)},
		{"many entities", fill(`,"entities":{"entityList":[`, `{"identifier":{"entityType":"Doc","entityId":"#"},"parents":[]}`, `]}`)},
		{"many parents in common", fill(`,"entities":{"entityList":[`, `{"identifier":{"entityType":"Doc","entityId":"#"},"parents":[{"entityType":"Doc","entityId":"x"}]}`, `]}`)},
	} {
		for surface, ask := range decisions(p) {
			t.Run(surface+"/"+c.name, func(t *testing.T) {
				p.refuses(t, func() reply { return ask(`"1"`, c.rest) }, "", 200, 400)
			})
		}
	}
	p.unharmed()
}
