package token

import (
	"maps"
	"testing"

	"github.com/copse-authz/copse"
)

// Attacks on registrations under which the usual good token is none: each has a twin of its own, which
// differs from the attack in one claim and must be accepted before and after it.
func TestAttacksOnOtherRegistrations(t *testing.T) {
	n := 0
	for registration, c := range map[string]struct {
		adjust  func(*copse.Issuer)
		good    map[string]any
		attacks map[string]map[string]any
		want    Reason
	}{
		"ID tokens by client": {
			func(i *copse.Issuer) { i.Audiences, i.TokenType = nil, copse.TokenID },
			map[string]any{"aud": []string{"web", "other"}, "azp": "web"},
			map[string]map[string]any{
				"for a client of another":   {"aud": "other"},
				"for an audience":           {"aud": "api"},
				"no audience":               {"aud": nil},
				"no audience, but client":   {"aud": nil, "client_id": "web"},
				"no audience of that name":  {"aud": nil, "Aud": "web"},
				"empty audience":            {"aud": ""},
				"made for another client":   {"azp": "other"},
				"made for an audience":      {"azp": "api"},
				"made for clients":          {"azp": []string{"web"}},
				"made for the empty client": {"azp": ""},
				"made for a number":         {"azp": 1},
			}, ReasonAudience,
		},
		"ID tokens by either": {
			func(i *copse.Issuer) { i.TokenType = copse.TokenID },
			map[string]any{"aud": "api", "azp": "web"},
			map[string]map[string]any{
				"for another":             {"aud": "other"},
				"made for another client": {"azp": "other"},
				"made for an audience":    {"azp": "api"},
			}, ReasonAudience,
		},
		"ID tokens by audience": {
			func(i *copse.Issuer) { i.ClientIDs, i.TokenType = nil, copse.TokenID },
			map[string]any{"aud": "api", "azp": "web"},
			map[string]map[string]any{"for the client": {"aud": "web"}},
			ReasonAudience,
		},
		"groups at a pointer": {
			func(i *copse.Issuer) { i.GroupClaim = "/app/groups" },
			map[string]any{"app": map[string]any{"groups": []string{"admins"}}},
			map[string]map[string]any{
				"a number":       {"app": map[string]any{"groups": 1}},
				"null":           {"app": map[string]any{"groups": nil}},
				"true":           {"app": map[string]any{"groups": true}},
				"an object":      {"app": map[string]any{"groups": map[string]any{"admins": true}}},
				"nested":         {"app": map[string]any{"groups": []any{[]string{"admins"}}}},
				"an empty one":   {"app": map[string]any{"groups": []string{""}}},
				"below a string": {"app": "admins"},
				"below a list":   {"app": []any{map[string]any{"groups": "admins"}}},
				"below a number": {"app": 1},
				"below true":     {"app": true},
			}, ReasonGroups,
		},
		"subject at a pointer": {
			func(i *copse.Issuer) { i.PrincipalIDClaim = "/app/id" },
			map[string]any{"app": map[string]any{"id": "alice"}},
			map[string]map[string]any{
				"missing":            {"app": map[string]any{}},
				"missing, with sub":  {"app": map[string]any{"sub": "alice"}},
				"empty":              {"app": map[string]any{"id": ""}},
				"a number":           {"app": map[string]any{"id": 7}},
				"a list":             {"app": map[string]any{"id": []string{"alice"}}},
				"below a string":     {"app": "alice"},
				"below a list":       {"app": []any{map[string]any{"id": "alice"}}},
				"the pointer's text": {"app": map[string]any{}, "/app/id": "alice", "id": "alice"},
			}, ReasonPrincipal,
		},
	} {
		for name, change := range c.attacks {
			n++
			t.Run(registration+"/"+name, func(t *testing.T) {
				w := newWorld(t)
				w.register(w.issuer, c.adjust)
				good := w.claims(c.good)
				attack := maps.Clone(good)
				for name, value := range change {
					if attack[name] = value; value == nil {
						delete(attack, name)
					}
				}
				w.wantAccepted(t, rs256().sign(good, nil))
				w.wantRefused(t, rs256().sign(attack, nil), c.want)
				w.wantAccepted(t, rs256().sign(good, nil))
			})
		}
	}
	if n < 33 {
		t.Errorf("only %d attacks ran", n)
	}
}

// A null on the way, which a map of claims can't spell, is no missing group claim either.
func TestGroupsBelowNull(t *testing.T) {
	w := newWorld(t)
	w.register(w.issuer, func(i *copse.Issuer) { i.GroupClaim = "/app/groups" })
	claims := `{"iss":"` + w.issuer + `","sub":"a","aud":"api","exp":4102444800,"tenant_id":"acme","app":`
	w.wantAccepted(t, rs256().raw(goodHeader, claims+`{}}`))
	w.wantRefused(t, rs256().raw(goodHeader, claims+`null}`), ReasonGroups)
}
