package server_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/copse-authz/copse/internal/api"
)

// lineTwo is how the control API says it.
const lineTwo = `"line":2`

// badPolicies are statements that no policy store with docSchema takes, and what the answer points at.
func badPolicies() map[string][2]string {
	deep := func(open, middle, end string, n int) string {
		return "permit (principal, action, resource) when { " + strings.Repeat(open, n) + middle + strings.Repeat(end, n) + " };"
	}
	return map[string][2]string{
		"no text":                {"", ""},
		"blank":                  {" \n ", ""},
		"no policy":              {"// nothing", ""},
		"does not parse":         {"permit (principal, action, resource) when {\n  principal = 1 };", lineTwo},
		"open":                   {"permit (principal", ""},
		"two policies":           {"permit (principal, action, resource);\nforbid (principal, action, resource);", ""},
		"template":               {"permit (principal == ?principal, action, resource);", "principal"},
		"JSON":                   {`{"effect":"permit"}`, ""},
		"unknown entity type":    {`permit (principal == Usr::"a", action, resource);`, "Usr"},
		"unknown action":         {`permit (principal, action == Action::"veiw", resource);`, "veiw"},
		"unknown attribute":      {`permit (principal, action, resource) when { resource.onwer == principal };`, "onwer"},
		"types disagree":         {`permit (principal, action, resource) when { 1 == "x" || "a" < "b" };`, ""},
		"unknown function":       {`permit (principal, action, resource) when { exec("ls") };`, "exec"},
		"bad constant":           {`permit (principal, action, resource) when { decimal("x") == decimal("1.0") };`, ""},
		"number too large":       {`permit (principal, action, resource) when { 9223372036854775808 == 1 };`, "9223372036854775808"},
		"NUL":                    {"permit (principal, action, resource);\x00", ""},
		"too long":               {"permit (principal, action, resource); //" + strings.Repeat("x", 10_000), "10000"},
		"parentheses":            {deep("(", "true", ")", 2000), ""},
		"sets":                   {deep("[", "1", "]", 2000) + " == 1", ""},
		"negations":              {deep("!", "true", "", 4000), ""},
		"minuses":                {deep("-", "1", "", 4000), ""},
		"conditions":             {deep("if true then (", "true", ") else false", 300), ""},
		"attributes":             {deep("", "context"+strings.Repeat(".a", 4000), "", 1), ""},
		"records in each other":  {deep("{a:", "1", "}", 2000), ""},
		"has chain":              {deep("", "context has "+strings.Repeat("a.", 2000)+"a", "", 1), ""},
		"invalid UTF-8, escaped": {`permit (principal == User::"\u{d800}", action, resource);`, ""},
	}
}

// badSchemas are texts in Cedar syntax.
func badSchemas() map[string][2]string {
	bomb := `type T0 = { a: Long, b: Long };`
	for i := range 25 {
		bomb += fmt.Sprintf(` type T%d = { a: T%d, b: T%d };`, i+1, i, i)
	}
	return map[string][2]string{
		"does not parse":      {"entity User;\nentity {", lineTwo},
		"does not resolve":    {"entity User in [Group];", "Group"},
		"unknown type":        {"entity User { age: Lnog };", "Lnog"},
		"type of itself":      {"type A = { a: B }; type B = { a: A }; entity User { a: A };", ""},
		"twice":               {"entity User; entity User;", "User"},
		"action of nothing":   {`entity User; action view appliesTo { principal: Usr, resource: User };`, "Usr"},
		"action in a circle":  {`action a in [b]; action b in [a];`, ""},
		"bomb":                {bomb + ` entity User { t: T25 };`, ""},
		"deep":                {"entity User { a: " + strings.Repeat("Set<", 5000) + "Long" + strings.Repeat(">", 5000) + " };", ""},
		"deep records":        {"entity User { a: " + strings.Repeat("{a:", 5000) + "Long" + strings.Repeat("}", 5000) + " };", ""},
		"too long":            {"entity User; //" + strings.Repeat("x", 100_000), "100000"},
		"NUL":                 {"entity User;\x00", ""},
		"reserved name":       {"entity __cedar::User;", "__cedar"},
		"bare closing braces": {strings.Repeat("}", 50_000), ""},
	}
}

// badSchemasJSON are texts in JSON syntax.
func badSchemasJSON() map[string][2]string {
	common := `"T0":{"type":"Record","attributes":{"a":{"type":"Long"},"b":{"type":"Long"}}}`
	for i := range 25 {
		common += fmt.Sprintf(`,"T%d":{"type":"Record","attributes":{"a":{"type":"T%d"},"b":{"type":"T%d"}}}`, i+1, i, i)
	}
	return map[string][2]string{
		"not JSON":         {"entity User;", ""},
		"a list":           {"[]", ""},
		"member twice":     {`{"":{"entityTypes":{},"entityTypes":{},"actions":{}}}`, "entityTypes"},
		"deep":             {`{"":{"entityTypes":{"User":{"shape":` + strings.Repeat(`{"type":"Set","element":`, 1500) + `{"type":"Long"}` + strings.Repeat("}", 1500) + `}},"actions":{}}}`, ""},
		"brackets":         {strings.Repeat("[", 90_000), ""},
		"does not resolve": {`{"":{"entityTypes":{"User":{"memberOfTypes":["Group"]}},"actions":{}}}`, "Group"},
		"bomb":             {`{"":{"commonTypes":{` + common + `},"entityTypes":{"User":{"shape":{"type":"T25"}}},"actions":{}}}`, ""},
	}
}

// TestBadInputPolicies sends each bad policy through every way a policy comes in.
func TestBadInputPolicies(t *testing.T) {
	p := newPatient(t)
	made := p.amazon(p.root, "ListPolicies", fmt.Sprintf(`{"policyStoreId":%q}`, p.tenant.PolicyStoreID))
	id := p.contents(p.tenant.PolicyStoreID).Policies[0].PolicyID
	if !strings.Contains(made.body, id) {
		t.Fatalf("ListPolicies: %v", made)
	}
	static := func(statement string) map[string]any {
		return map[string]any{"static": map[string]string{"statement": statement}}
	}
	ways := map[string]func(statement string) reply{
		"contents": func(statement string) reply {
			return p.as(p.root, "PUT", "/v1/policy-stores/"+p.tenant.PolicyStoreID+"/contents", api.PutContentsRequest{Policies: []api.PolicyText{
				{Name: "fine", Statement: bobViews}, {Name: "bad", Statement: statement}}}, "If-Match", "*")
		},
		"tenant": func(statement string) reply {
			return p.as(p.root, "POST", "/v1/tenants", api.CreateTenantRequest{Tenant: "new", Schema: &api.SchemaText{Cedar: docSchema},
				Policies: []api.PolicyText{{Name: "fine", Statement: bobViews}, {Name: "bad", Statement: statement}}})
		},
		"CreatePolicy": func(statement string) reply {
			return p.amazon(p.root, "CreatePolicy", map[string]any{"policyStoreId": p.tenant.PolicyStoreID, "definition": static(statement)})
		},
		"UpdatePolicy": func(statement string) reply {
			return p.amazon(p.root, "UpdatePolicy", map[string]any{"policyStoreId": p.tenant.PolicyStoreID, "policyId": id, "definition": static(statement)})
		},
	}
	for name, bad := range badPolicies() {
		for way, send := range ways {
			t.Run(way+"/"+name, func(t *testing.T) {
				place := bad[1]
				switch {
				case way == "UpdatePolicy":
					place = "" // that it has another scope is found first
				case way == "CreatePolicy" && place == lineTwo:
					place = "line 2" // AVP has no member for it
				}
				p.refuses(t, func() reply { return send(bad[0]) }, place, 400, 422)
				if r := send(bad[0]); (way == "contents" || way == "tenant") && !strings.Contains(r.body, "policies[1]") {
					t.Errorf("the answer does not say which policy: %v", r)
				}
			})
		}
	}
	p.unharmed()
}

func TestBadInputSchemas(t *testing.T) {
	p := newPatient(t)
	store := "/v1/policy-stores/" + p.tenant.PolicyStoreID
	for syntax, texts := range map[string]map[string][2]string{"cedar": badSchemas(), "json": badSchemasJSON()} {
		for name, bad := range texts {
			text := map[string]string{syntax: bad[0]}
			ways := map[string]func() reply{
				"schema": func() reply { return p.as(p.root, "PUT", store+"/schema", text) },
				"contents": func() reply {
					return p.as(p.root, "PUT", store+"/contents", map[string]any{"schema": text, "policies": []any{}}, "If-Match", "*")
				},
				"tenant": func() reply {
					return p.as(p.root, "POST", "/v1/tenants", map[string]any{"tenant": "new", "schema": text})
				},
			}
			if syntax == "json" {
				ways["PutSchema"] = func() reply {
					return p.amazon(p.root, "PutSchema", map[string]any{"policyStoreId": p.tenant.PolicyStoreID, "definition": map[string]string{"cedarJson": bad[0]}})
				}
			}
			for way, send := range ways {
				t.Run(syntax+"/"+way+"/"+name, func(t *testing.T) {
					p.refuses(t, send, bad[1], 400, 422)
				})
			}
		}
	}
	for name, text := range map[string]map[string]string{"both": {"cedar": docSchema, "json": "{}"}, "neither": {}} {
		t.Run(name, func(t *testing.T) {
			p.refuses(t, func() reply { return p.as(p.root, "PUT", store+"/schema", text) }, "cedar", 400)
		})
	}
	p.unharmed()
}

// What is wrong with the contents as a whole.
func TestBadInputContents(t *testing.T) {
	p := newPatient(t)
	store := "/v1/policy-stores/" + p.tenant.PolicyStoreID + "/contents"
	revision := p.contents(p.tenant.PolicyStoreID).Revision
	one := func(names ...string) []api.PolicyText {
		var out []api.PolicyText
		for _, name := range names {
			out = append(out, api.PolicyText{Name: name, Statement: aliceViews})
		}
		return out
	}
	many := make([]string, 10_001)
	for i := range many {
		many[i] = fmt.Sprint("p", i)
	}
	broken := one("fine")
	for i := range 500 {
		broken = append(broken, api.PolicyText{Name: fmt.Sprint("bad-", i), Statement: "permit ("})
	}
	for _, c := range []struct {
		name, ifMatch string
		policies      []api.PolicyText
		place         string
		statuses      []int
	}{
		{"no If-Match", "", one("a"), "If-Match", []int{428}},
		{"another revision", fmt.Sprintf("%q", fmt.Sprint(revision+1)), one("a"), "", []int{412}},
		{"revision without quotes", fmt.Sprint(revision), one("a"), "If-Match", []int{400}},
		{"weak ETag", fmt.Sprintf("W/%q", fmt.Sprint(revision)), one("a"), "If-Match", []int{400}},
		{"name twice", "*", one("a", "b", "a"), "policies[2]", []int{400}},
		{"name with a space", "*", one("a b"), "policies[0]", []int{400}},
		{"name of 146", "*", one(strings.Repeat("n", 146)), "policies[0]", []int{400}},
		{"no name", "*", one(""), "policies[0]", []int{400}},
		{"10,001 policies", "*", one(many...), "10000", []int{400, 413, 422}},
		{"500 broken ones", "*", broken, "policies[1]", []int{400}},
	} {
		t.Run(c.name, func(t *testing.T) {
			headers := []string{"If-Match", c.ifMatch}
			if c.ifMatch == "" {
				headers = nil
			}
			p.refuses(t, func() reply {
				return p.as(p.root, "PUT", store, api.PutContentsRequest{Policies: c.policies}, headers...)
			}, c.place, c.statuses...)
		})
	}
	for _, tenant := range []string{"", "-", "a b", "a/b", "a\x00", "é", strings.Repeat("t", 129), "..", "a%2fb"} {
		t.Run(fmt.Sprintf("tenant %.10q", tenant), func(t *testing.T) {
			p.refuses(t, func() reply { return p.as(p.root, "POST", "/v1/tenants", api.CreateTenantRequest{Tenant: tenant}) }, "tenant", 400)
		})
	}
	t.Run("tenant that exists", func(t *testing.T) {
		p.refuses(t, func() reply { return p.as(p.root, "POST", "/v1/tenants", api.CreateTenantRequest{Tenant: "acme"}) }, "acme", 409)
	})
	p.unharmed()
}
