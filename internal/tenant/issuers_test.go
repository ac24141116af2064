package tenant_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
)

// issuer is a registration without fault, for tenants given.
func issuer(url string, tenants ...copse.TenantID) copse.Issuer {
	return copse.Issuer{
		URL: url, Tenants: tenants, TokenType: copse.TokenAccess, Audiences: []string{"api"},
		TenantClaim: "tenant_id", PrincipalType: "User", PrincipalIDPrefix: strings.NewReplacer("https://", "", "/", "-").Replace(url),
	}
}

func add(t *testing.T, s services, in copse.Issuer) copse.Issuer {
	t.Helper()
	out, err := s.AddIssuer(context.Background(), root, in)
	must(t, err)
	return out
}

func TestIssuerLifeCycle(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx, s := context.Background(), newServices(t, b)
		onboard(t, s, "acme", "p", permitAll)
		const url = "https://idp.example.com/acme"
		_, err := s.Issuer(ctx, url)
		wantKind(t, err, copse.NotFound)
		in := issuer(url, "acme")
		in.GroupType, in.GroupClaim, in.EmailDomains, in.ClientIDs = "App::Role", "/realm/roles", []string{"acme.example"}, []string{"web"}
		made := add(t, s, in)
		if len(made.ID) != 22 || made.Revision == 0 || made.PrincipalIDClaim != "sub" || made.CreatedAt.IsZero() {
			t.Fatalf("%+v", made)
		}
		if diff := cmp.Diff([]string{"RS256", "ES256", "EdDSA"}, made.Algorithms); diff != "" {
			t.Fatal(diff)
		}
		for name, read := range map[string]func() (copse.Issuer, error){
			"by URL": func() (copse.Issuer, error) { return s.Issuer(ctx, url) },
			"by id":  func() (copse.Issuer, error) { return s.GetIssuer(ctx, root, made.ID) },
		} {
			got, err := read()
			must(t, err)
			if diff := cmp.Diff(made, got); diff != "" {
				t.Fatal(name, diff)
			}
		}
		for _, near := range []string{url + "/", strings.ToUpper(url), "https://IDP.example.com/acme", url[:len(url)-1], url + "?", ""} {
			_, err := s.Issuer(ctx, near)
			wantKind(t, err, copse.NotFound)
		}
		_, err = s.AddIssuer(ctx, root, in)
		wantKind(t, err, copse.Conflict)

		next := made
		next.Audiences, next.URL = []string{"other"}, ""
		updated, err := s.UpdateIssuer(ctx, root, next)
		must(t, err)
		if updated.Revision <= made.Revision || updated.URL != url || updated.Audiences[0] != "other" || !updated.CreatedAt.Equal(made.CreatedAt) {
			t.Fatalf("%+v", updated)
		}
		got, err := s.Issuer(ctx, url)
		must(t, err)
		if diff := cmp.Diff(updated, got); diff != "" {
			t.Fatal(diff)
		}
		_, err = s.UpdateIssuer(ctx, root, next) // still says the first revision
		wantKind(t, err, copse.Conflict)
		next.Revision, next.URL = 0, url+"/moved"
		_, err = s.UpdateIssuer(ctx, root, next)
		wantField(t, err, "url")
		next.ID = "absent"
		_, err = s.UpdateIssuer(ctx, root, next)
		wantKind(t, err, copse.NotFound)

		must(t, s.RemoveIssuer(ctx, root, made.ID))
		_, err = s.Issuer(ctx, url)
		wantKind(t, err, copse.NotFound)
		wantKind(t, s.RemoveIssuer(ctx, root, made.ID), copse.NotFound)
		_, err = s.GetIssuer(ctx, root, made.ID)
		wantKind(t, err, copse.NotFound)
		add(t, s, in) // URL, domain and tenant are free again
	})
}

// flaw is what makes a registration unacceptable, and where that must be reported.
type flaw struct {
	path   string
	change func(i *copse.Issuer)
}

func flaws() map[string]flaw {
	many := func(n int) []string {
		out := make([]string, n)
		for i := range out {
			out[i] = fmt.Sprint("x", i)
		}
		return out
	}
	return map[string]flaw{
		"no URL":                  {"url", func(i *copse.Issuer) { i.URL = "" }},
		"http":                    {"url", func(i *copse.Issuer) { i.URL = "http://idp.example.com" }},
		"query":                   {"url", func(i *copse.Issuer) { i.URL += "?a" }},
		"empty query":             {"url", func(i *copse.Issuer) { i.URL += "?" }},
		"fragment":                {"url", func(i *copse.Issuer) { i.URL += "#" }},
		"user":                    {"url", func(i *copse.Issuer) { i.URL = "https://u:p@idp.example.com" }},
		"no host":                 {"url", func(i *copse.Issuer) { i.URL = "https:///x" }},
		"space":                   {"url", func(i *copse.Issuer) { i.URL += " " }},
		"newline":                 {"url", func(i *copse.Issuer) { i.URL += "\n" }},
		"not ASCII":               {"url", func(i *copse.Issuer) { i.URL = "https://exämple.com" }},
		"long URL":                {"url", func(i *copse.Issuer) { i.URL += strings.Repeat("x", 2048) }},
		"tenants and all":         {"tenants", func(i *copse.Issuer) { i.AllTenants = true }},
		"malformed tenant":        {"tenants[0]", func(i *copse.Issuer) { i.Tenants[0] = "a b" }},
		"tenant twice":            {"tenants[1]", func(i *copse.Issuer) { i.Tenants = append(i.Tenants, "acme") }},
		"absent tenant":           {"tenants[1]", func(i *copse.Issuer) { i.Tenants = append(i.Tenants, "absent") }},
		"case of tenant":          {"tenants[0]", func(i *copse.Issuer) { i.Tenants[0] = "Acme" }},
		"no token type":           {"tokenType", func(i *copse.Issuer) { i.TokenType = "" }},
		"token type":              {"tokenType", func(i *copse.Issuer) { i.TokenType = "refresh" }},
		"no audience":             {"audiences", func(i *copse.Issuer) { i.Audiences = nil }},
		"empty audience":          {"audiences[0]", func(i *copse.Issuer) { i.Audiences[0] = "" }},
		"audience encoding":       {"audiences[0]", func(i *copse.Issuer) { i.Audiences[0] = "\xff" }},
		"audiences":               {"audiences", func(i *copse.Issuer) { i.Audiences = many(256) }},
		"empty client":            {"clientIds[0]", func(i *copse.Issuer) { i.ClientIDs = []string{""} }},
		"clients":                 {"clientIds", func(i *copse.Issuer) { i.ClientIDs = many(1001) }},
		"none":                    {"algorithms[0]", func(i *copse.Issuer) { i.Algorithms = []string{"none"} }},
		"symmetric":               {"algorithms[1]", func(i *copse.Issuer) { i.Algorithms = []string{"RS256", "HS256"} }},
		"case of algorithm":       {"algorithms[0]", func(i *copse.Issuer) { i.Algorithms = []string{"rs256"} }},
		"empty algorithm":         {"algorithms[0]", func(i *copse.Issuer) { i.Algorithms = []string{""} }},
		"no claim":                {"tenantClaim", func(i *copse.Issuer) { i.TenantClaim = "" }},
		"claim and fixed":         {"tenantClaim", func(i *copse.Issuer) { i.FixedTenant = "acme" }},
		"foreign fixed":           {"fixedTenant", func(i *copse.Issuer) { i.TenantClaim, i.FixedTenant = "", "globex" }},
		"fixed and all":           {"fixedTenant", func(i *copse.Issuer) { i.TenantClaim, i.FixedTenant, i.Tenants, i.AllTenants = "", "acme", nil, true }},
		"bad pointer":             {"tenantClaim", func(i *copse.Issuer) { i.TenantClaim = "/a~2" }},
		"pointer's end":           {"tenantClaim", func(i *copse.Issuer) { i.TenantClaim = "/a~" }},
		"no type":                 {"principalType", func(i *copse.Issuer) { i.PrincipalType = "" }},
		"type":                    {"principalType", func(i *copse.Issuer) { i.PrincipalType = "A:B" }},
		"type with space":         {"principalType", func(i *copse.Issuer) { i.PrincipalType = "App:: User" }},
		"reserved type":           {"principalType", func(i *copse.Issuer) { i.PrincipalType = "in" }},
		"action":                  {"principalType", func(i *copse.Issuer) { i.PrincipalType = "App::Action" }},
		"long type":               {"principalType", func(i *copse.Issuer) { i.PrincipalType = strings.Repeat("x", 201) }},
		"long prefix":             {"principalIdPrefix", func(i *copse.Issuer) { i.PrincipalIDPrefix = strings.Repeat("x", 101) }},
		"bar in prefix":           {"principalIdPrefix", func(i *copse.Issuer) { i.PrincipalIDPrefix = "a|b" }},
		"group without claim":     {"groupType", func(i *copse.Issuer) { i.GroupType = "Role" }},
		"claim without group":     {"groupType", func(i *copse.Issuer) { i.GroupClaim = "roles" }},
		"group is action":         {"groupType", func(i *copse.Issuer) { i.GroupType, i.GroupClaim = "Action", "roles" }},
		"domain in capitals":      {"emailDomains[0]", func(i *copse.Issuer) { i.EmailDomains = []string{"Example.com"} }},
		"domain with at":          {"emailDomains[0]", func(i *copse.Issuer) { i.EmailDomains = []string{"@example.com"} }},
		"one label":               {"emailDomains[0]", func(i *copse.Issuer) { i.EmailDomains = []string{"localhost"} }},
		"empty label":             {"emailDomains[0]", func(i *copse.Issuer) { i.EmailDomains = []string{"example..com"} }},
		"domain with hyphen":      {"emailDomains[0]", func(i *copse.Issuer) { i.EmailDomains = []string{"-a.com"} }},
		"domain beyond ASCII":     {"emailDomains[0]", func(i *copse.Issuer) { i.EmailDomains = []string{"exämple.com"} }},
		"domain twice":            {"emailDomains[1]", func(i *copse.Issuer) { i.EmailDomains = []string{"a.com", "a.com"} }},
		"principal id claim, bad": {"principalIdClaim", func(i *copse.Issuer) { i.PrincipalIDClaim = "\x00" }},
	}
}

func TestIssuerRules(t *testing.T) {
	ctx, b := context.Background(), memory.New()
	s := newServices(t, b)
	onboard(t, s, "acme", "p", permitAll)
	onboard(t, s, "globex", "p", permitAll)
	for name, tt := range flaws() {
		t.Run(name, func(t *testing.T) {
			in := issuer("https://idp.example.com/x", "acme")
			tt.change(&in)
			_, err := s.AddIssuer(ctx, root, in)
			wantField(t, err, tt.path)
		})
	}
	if left, _, err := s.ListIssuers(ctx, root, "", 10); err != nil || len(left) != 0 {
		t.Fatal(left, err)
	}
	// What is allowed although it looks odd.
	nobody := issuer("https://nobody.example.com")
	nobody.Audiences, nobody.ClientIDs, nobody.PrincipalType = nil, []string{"cognito-client"}, "App::V2::User_1"
	made := add(t, s, nobody)
	if made.MaySpeakFor("acme") || made.MaySpeakFor("") {
		t.Fatal("an issuer without tenants speaks for somebody")
	}
	fixed := issuer("https://fixed.example.com", "acme")
	fixed.TenantClaim, fixed.FixedTenant = "", "acme"
	add(t, s, fixed)
}

func TestCallersBelowAdminSeeNoIssuers(t *testing.T) {
	ctx, s := context.Background(), newServices(t, memory.New())
	onboard(t, s, "acme", "p", permitAll)
	made := add(t, s, issuer("https://idp.example.com", "acme"))
	for _, c := range []access.Caller{
		{},
		{Scope: access.Scope{All: true}, Verbs: access.Read | access.Write | access.Decide},
		{Scope: access.Scope{Tenant: "acme"}, Verbs: access.Read | access.Admin},
	} {
		for _, id := range []string{made.ID, "absent"} {
			_, err := s.GetIssuer(ctx, c, id)
			wantKind(t, err, copse.Denied)
			wantKind(t, s.RemoveIssuer(ctx, c, id), copse.Denied)
			_, err = s.UpdateIssuer(ctx, c, copse.Issuer{ID: id})
			wantKind(t, err, copse.Denied)
		}
		_, err := s.AddIssuer(ctx, c, issuer("https://other.example.com", "acme"))
		wantKind(t, err, copse.Denied)
		_, _, err = s.ListIssuers(ctx, c, "", 5)
		wantKind(t, err, copse.Denied)
	}
}

func TestListIssuers(t *testing.T) {
	ctx, s := context.Background(), newServices(t, memory.New())
	for i := range 7 {
		add(t, s, issuer(fmt.Sprintf("https://idp%d.example.com", i)))
	}
	after, seen := "", 0
	for more := true; more; {
		page, rest, err := s.ListIssuers(ctx, root, after, 3)
		must(t, err)
		for _, i := range page {
			if i.ID <= after {
				t.Fatalf("%s after %s", i.ID, after)
			}
			after = i.ID
			seen++
		}
		more = rest
	}
	if seen != 7 {
		t.Fatalf("%d of 7 listed", seen)
	}
}

// A second issuer for a tenant must not be able to name the first one's principals.
func TestSecondIssuerNeedsItsOwnPrincipals(t *testing.T) {
	type change = func(i *copse.Issuer)
	prefix := func(p string) change { return func(i *copse.Issuer) { i.PrincipalIDPrefix = p } }
	all := func(i *copse.Issuer) { i.Tenants, i.AllTenants = nil, true }
	globex := func(i *copse.Issuer) { i.Tenants = []copse.TenantID{"globex"} }
	nobody := func(i *copse.Issuer) { i.Tenants = nil }
	staff := func(i *copse.Issuer) { i.PrincipalType = "Staff" }
	same := func(i *copse.Issuer) { i.SameSubjects = true }
	groups := func(typ string) change {
		return func(i *copse.Issuer) { i.GroupType, i.GroupClaim = typ, "roles" }
	}
	for name, tt := range map[string]struct {
		first, second []change
		ok            bool
	}{
		"same prefix":               {[]change{prefix("a")}, []change{prefix("a")}, false},
		"no prefixes":               {[]change{prefix("")}, []change{prefix("")}, false},
		"other prefix":              {[]change{prefix("a")}, []change{prefix("b")}, true},
		"prefix of prefix":          {[]change{prefix("a")}, []change{prefix("ab")}, true},
		"first names them all":      {[]change{prefix("")}, []change{prefix("b")}, false},
		"second names them all":     {[]change{prefix("a")}, []change{prefix("")}, false},
		"other type":                {[]change{prefix("a")}, []change{prefix("a"), staff}, true},
		"other type, none":          {[]change{prefix("")}, []change{prefix(""), staff}, true},
		"other tenant":              {[]change{prefix("a")}, []change{prefix("a"), globex}, true},
		"second speaks for all":     {[]change{prefix("a")}, []change{prefix("a"), all}, false},
		"first speaks for all":      {[]change{prefix("a"), all}, []change{prefix("a")}, false},
		"both speak for all":        {[]change{prefix("a"), all}, []change{prefix("a"), all}, false},
		"second speaks for nobody":  {[]change{prefix("a"), all}, []change{prefix("a"), nobody}, true},
		"first speaks for nobody":   {[]change{prefix("a"), nobody}, []change{prefix("a"), all}, true},
		"stated by the second":      {[]change{prefix("a")}, []change{prefix("a"), same}, true},
		"stated, all":               {[]change{prefix("")}, []change{prefix(""), all, same}, true},
		"groups of one type":        {[]change{prefix(""), groups("Role")}, []change{prefix(""), staff, groups("Role")}, false},
		"groups, one prefix":        {[]change{prefix("a"), groups("Role")}, []change{prefix("a"), staff, groups("Role")}, false},
		"groups, first any":         {[]change{prefix(""), groups("Role")}, []change{prefix("b"), staff, groups("Role")}, false},
		"groups, other prefix":      {[]change{prefix("a"), groups("Role")}, []change{prefix("b"), groups("Role")}, true},
		"groups of two types":       {[]change{prefix(""), groups("Role")}, []change{prefix(""), staff, groups("Team")}, true},
		"group names principals":    {[]change{prefix("")}, []change{prefix(""), staff, groups("User")}, false},
		"principal names groups":    {[]change{prefix(""), groups("Staff")}, []change{prefix(""), staff}, false},
		"groups, other tenant":      {[]change{prefix(""), groups("Role")}, []change{prefix(""), staff, groups("Role"), globex}, true},
		"groups, all":               {[]change{prefix(""), groups("Role")}, []change{prefix(""), staff, groups("Role"), all}, false},
		"groups, stated":            {[]change{prefix(""), groups("Role")}, []change{prefix(""), staff, groups("Role"), same}, true},
		"stated by the first alone": {[]change{prefix("a"), same}, []change{prefix("a")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, s := context.Background(), newServices(t, memory.New())
			onboard(t, s, "acme", "p", permitAll)
			onboard(t, s, "globex", "p", permitAll)
			first, second := issuer("https://one.example.com", "acme"), issuer("https://two.example.com", "acme")
			for _, c := range tt.first {
				c(&first)
			}
			for _, c := range tt.second {
				c(&second)
			}
			add(t, s, first)
			_, err := s.AddIssuer(ctx, root, second)
			if tt.ok {
				must(t, err)
			} else {
				wantField(t, err, "principalIdPrefix")
			}
			// The same by way of an update: harmless first, then what is asked for.
			harmless := issuer("https://three.example.com")
			harmless.PrincipalType = "Harmless"
			made := add(t, s, harmless)
			if tt.ok {
				return
			}
			second.ID, second.URL = made.ID, ""
			_, err = s.UpdateIssuer(ctx, root, second)
			wantField(t, err, "principalIdPrefix")
		})
	}
}

// Who stated it first may still be updated, but its statement can't be taken back while needed, nor
// stretched to a third issuer.
func TestSameSubjectsIsAboutOnePair(t *testing.T) {
	ctx, s := context.Background(), newServices(t, memory.New())
	onboard(t, s, "acme", "p", permitAll)
	onboard(t, s, "globex", "p", permitAll)
	plain := issuer("https://one.example.com", "acme")
	plain.PrincipalIDPrefix = "x"
	first := add(t, s, plain)
	plain.URL, plain.SameSubjects = "https://two.example.com", true
	plain.Tenants = []copse.TenantID{"acme", "globex"}
	second := add(t, s, plain)

	first.Audiences = []string{"changed"}
	first, err := s.UpdateIssuer(ctx, root, first)
	must(t, err)
	second.GroupType, second.GroupClaim = "Role", "roles"
	second, err = s.UpdateIssuer(ctx, root, second)
	must(t, err)
	grouped := first
	grouped.GroupType, grouped.GroupClaim = "Role", "roles" // nobody said that groups are the same
	_, err = s.UpdateIssuer(ctx, root, grouped)
	wantField(t, err, "principalIdPrefix")
	second.SameSubjects = false
	_, err = s.UpdateIssuer(ctx, root, second)
	wantField(t, err, "principalIdPrefix")
	plain.URL, plain.SameSubjects = "https://three.example.com", false
	_, err = s.AddIssuer(ctx, root, plain)
	wantField(t, err, "principalIdPrefix")
	plain.PrincipalIDPrefix = "y"
	third := add(t, s, plain)
	third.PrincipalIDPrefix = "x"
	_, err = s.UpdateIssuer(ctx, root, third)
	wantField(t, err, "principalIdPrefix")
}

func TestEmailDomainHasOneIssuer(t *testing.T) {
	ctx, s := context.Background(), newServices(t, memory.New())
	in := issuer("https://one.example.com")
	in.EmailDomains = []string{"a.example", "b.example"}
	one := add(t, s, in)
	in = issuer("https://two.example.com")
	in.EmailDomains = []string{"c.example", "b.example"}
	_, err := s.AddIssuer(ctx, root, in)
	wantField(t, err, "emailDomains[1]")
	one.EmailDomains = []string{"a.example"}
	_, err = s.UpdateIssuer(ctx, root, one)
	must(t, err)
	add(t, s, in)
	one.EmailDomains, one.Revision = []string{"a.example", "b.example"}, 0
	_, err = s.UpdateIssuer(ctx, root, one)
	wantField(t, err, "emailDomains[1]")
}

// The rules hold between two nodes that change issuers at the same time.
func TestIssuerRulesHoldUnderRace(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx := context.Background()
		nodes := []services{newServices(t, b), newServices(t, b)}
		var won, lost atomic.Int64
		for round := range 25 {
			id := copse.TenantID(fmt.Sprint("t", round))
			onboard(t, nodes[0], id, "p", permitAll)
			var wg sync.WaitGroup
			var here atomic.Int64
			for n := range 4 {
				wg.Go(func() {
					in := issuer(fmt.Sprintf("https://idp%d-%d.example.com", round, n), id)
					in.PrincipalIDPrefix, in.EmailDomains = "same", []string{fmt.Sprintf("d%d.example", round)}
					_, err := nodes[n%2].AddIssuer(ctx, root, in)
					switch {
					case err == nil:
						here.Add(1)
					case copse.KindOf(err) == copse.Invalid || copse.KindOf(err) == copse.Conflict:
						lost.Add(1)
					default:
						t.Error(describe(err))
					}
				})
			}
			wg.Wait()
			if here.Load() != 1 {
				t.Fatalf("round %d: %d issuers speak for one tenant with the same principals", round, here.Load())
			}
			won.Add(1)
		}
		if won.Load() != 25 || lost.Load() != 75 {
			t.Fatalf("%d won, %d lost", won.Load(), lost.Load())
		}
	})
}

// An issuer's registration is effective, or gone, when the call returns, on every node that follows.
func TestIssuerChangesAreEffectiveAtOnce(t *testing.T) {
	backends(t, func(t *testing.T, b storage.Backend) {
		ctx := context.Background()
		s, other := newServices(t, b), newServices(t, b)
		const url = "https://idp.example.com"
		deadline := time.Now().Add(30 * time.Second)
		for i := range 40 {
			if time.Now().After(deadline) {
				t.Fatal("too slow")
			}
			for _, n := range []services{s, other} {
				_, err := n.Issuer(ctx, url)
				wantKind(t, err, copse.NotFound)
			}
			made := add(t, s, issuer(url))
			made.Audiences = []string{fmt.Sprint("a", i)}
			_, err := s.UpdateIssuer(ctx, root, made)
			must(t, err)
			for _, n := range []services{s, other} {
				got, err := n.Issuer(ctx, url)
				must(t, err)
				if got.Audiences[0] != fmt.Sprint("a", i) || got.Revision == made.Revision {
					t.Fatalf("%+v", got)
				}
			}
			must(t, s.RemoveIssuer(ctx, root, made.ID))
		}
	})
}
