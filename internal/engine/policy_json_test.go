package engine

import (
	"strings"
	"testing"

	"github.com/copse-authz/copse"
)

// Policies and templates survive the way through JSON: what cedar-go writes of a text is read as the
// policy of that text.
func TestPolicyJSONIsItsText(t *testing.T) {
	texts := append([]string{
		`@if("x") permit(principal is A in ?principal, action == N::Action::"a", resource == ?resource) when { principal == A::"" && [A::"", {slot: 1}].contains(resource) };`,
		`forbid(principal == A::"", action, resource in ?resource);`,
		`@in("in") permit(principal is resource, action in resource::Action::"x", resource is principal in ?resource);`,
		`permit(principal in ?principal, action in [Action::"a", resource::Action::"b"], resource is in2::in3) unless { {"slot": "?principal"}.slot == "in" };`,
	}, policySeeds...)
	for _, text := range texts {
		parsed, err := parseOne("p", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		data, err := asCedarGo(parsed.Policy).MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		written := string(data)
		for variable, at := range map[string]int{"principal": parsed.slots.principal, "resource": parsed.slots.resource} {
			if at > 0 {
				start := strings.Index(written, `"`+variable+`":`)
				written = written[:start] + strings.Replace(written[start:], `"entity":{"type":"","id":""}`, `"slot":"?`+variable+`"`, 1)
			}
		}
		var got *Policy
		if _, _, isTemplate := parsed.slots.first(); isTemplate {
			template, err := ParseTemplateJSON("p", []byte(written))
			if err != nil {
				t.Errorf("%s: %v", written, err)
				continue
			}
			if template.slots.Principal != (parsed.slots.principal > 0) || template.slots.Resource != (parsed.slots.resource > 0) {
				t.Errorf("%s: slots %+v", written, template.slots)
			}
			got = template.source
			if _, err := ParsePolicyJSON("p", []byte(written)); err == nil {
				t.Errorf("%s is a policy", written)
			}
		} else if got, err = ParsePolicyJSON("p", []byte(written)); err != nil {
			t.Errorf("%s: %v", written, err)
			continue
		}
		if want := string(asCedarGo(parsed.Policy).MarshalCedar()); string(asCedarGo(got).MarshalCedar()) != want {
			t.Errorf("%s\nreads as %s\nwant     %s", written, got.Text(), want)
		}
	}
}

func TestPolicyJSONErrors(t *testing.T) {
	scope := func(principal, more string) string {
		return `{"effect":"permit","principal":` + principal + `,"action":{"op":"All"},"resource":{"op":"All"},"conditions":[` + more + `]}`
	}
	when := func(body string) string { return scope(`{"op":"All"}`, `{"kind":"when","body":`+body+`}`) }
	for text, message := range map[string]string{
		``:                                      "ends too early",
		`[]`:                                    "not expected here",
		when(`{"Value":1}`) + "x":               "after the value's end",
		`{"effect":"permit","effect":"forbid"}`: "occurs twice",
		scope(`{"op":"==","entity":{"type":"a b","id":"x"}}`, ""):                            "principal.entity",
		scope(`{"op":"is","entity_type":"U, action, resource); //"}`, ""):                    "invalid entity_type",
		scope(`{"op":"==","slot":"?resource"}`, ""):                                          "is written \"?principal\"",
		scope(`{"op":"==","slot":1}`, ""):                                                    "is written \"?principal\"",
		scope(`{"op":"==","slot":"?principal","entity":{"type":"A","id":""}}`, ""):           "either an entity or a slot",
		scope(`{"op":"==","slot":"?principal"}`, ""):                                         "this is a template",
		when(`{"Slot":"?principal"}`):                                                        "",
		when(`{"Var":"x"}`):                                                                  "",
		when(`{"Value":{"__entity":{"type":"A::\"x\" || true } ; //","id":"x"}}}`):           "",
		when(`{"foo":[{"Value":1}]}`):                                                        "",
		when(`{"is":{"left":{"Var":"principal"},"entity_type":"A || true"}}`):                "invalid entity_type",
		when(strings.Repeat(`{"!":{"arg":`, 5) + `{"Value":true}` + strings.Repeat("}}", 5)): "",
		strings.Repeat(`[`, 5000):                                                            "nest more than 400 deep",
		when(strings.Repeat(`{"!":{"arg":`, 5000) + `1`):                                     "nest more than 400 deep",
		when(`{"Value":99999999999999999999}`):                                               "",
		"{\"\xff\":1}":                                                                       "UTF-8",
	} {
		_, err := ParsePolicyJSON("statement", []byte(text))
		if err == nil {
			t.Errorf("%s: accepted", clip(text))
			continue
		}
		if f := invalid(t, err)[0]; !strings.Contains(f.Message, message) || f.Path != "statement" || strings.Contains(f.Message, "json.") {
			t.Errorf("%s: got %+v, want %q", clip(text), f, message)
		}
	}
	if _, err := ParsePolicyJSON("p", make([]byte, maxPolicyJSONBytes+1)); copse.KindOf(err) != copse.QuotaExceeded {
		t.Errorf("got %v", err)
	}
	if _, err := ParseTemplateJSON("p", []byte(when(`{"Value":true}`))); err == nil || !strings.Contains(err.Error(), "no slot") {
		t.Errorf("got %v", err)
	}
}
