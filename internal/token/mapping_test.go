package token

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
)

// accepted registers the good issuer as adjusted and verifies a token with these changes to it.
func accepted(t *testing.T, adjust func(*copse.Issuer), change map[string]any) *Verified {
	t.Helper()
	w := newWorld(t)
	if adjust != nil {
		w.register(w.issuer, adjust)
	}
	return w.wantAccepted(t, rs256().sign(w.claims(change), nil))
}

func wantJSON(t *testing.T, got copse.Data, want string) {
	t.Helper()
	if got.Format != copse.FormatCedarJSON {
		t.Fatalf("format %v", got.Format)
	}
	if !jsontext.Value(got.Bytes).IsValid() {
		t.Fatalf("not JSON: %s", got.Bytes)
	}
	canonical := jsontext.Value(want)
	if err := canonical.Compact(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(canonical), string(got.Bytes)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAccessTokenBecomesContext(t *testing.T) {
	w := newWorld(t)
	v := w.wantAccepted(t, rs256().raw(goodHeader, `{"iss":"`+w.issuer+`","sub":"alice","aud":["x","api"],"exp":4102444800,
		"tenant_id":"acme","scope":" read  write ","groups":"staff admins staff","level":7,"vip":true}`))
	wantJSON(t, v.Context, `{"token":{"aud":["x","api"],"exp":4102444800,"iss":"`+w.issuer+`","level":7,
		"scope":["read","write"],"sub":"alice","tenant_id":"acme","vip":true}}`)
	wantJSON(t, v.Entities, `[{"uid":{"type":"App::User","id":"pool|alice"},"attrs":{},
		"parents":[{"type":"App::Group","id":"pool|admins"},{"type":"App::Group","id":"pool|staff"}]}]`)
	if v.Expires.Unix() != 4102444800 {
		t.Error(v.Expires)
	}
}

func TestIDTokenBecomesAttributes(t *testing.T) {
	w := newWorld(t)
	w.register(w.issuer, func(i *copse.Issuer) { i.TokenType = copse.TokenID })
	v := w.wantAccepted(t, rs256().raw(goodHeader, `{"iss":"`+w.issuer+`","sub":"alice","aud":"api","exp":4102444800,"nonce":"n",
		"token_use":"id","tenant_id":"acme","scope":"a b","custom:department":"eng","groups":["staff"]}`))
	wantJSON(t, v.Entities, `[{"uid":{"type":"App::User","id":"pool|alice"},"attrs":{"aud":"api","custom:department":"eng",
		"exp":4102444800,"iss":"`+w.issuer+`","nonce":"n","scope":"a b","sub":"alice","tenant_id":"acme","token_use":"id"},
		"parents":[{"type":"App::Group","id":"pool|staff"}]}]`)
	if v.Context.Format != copse.FormatNone || v.Context.Bytes != nil {
		t.Errorf("context %+v", v.Context)
	}
}

func TestPrincipalForms(t *testing.T) {
	for name, c := range map[string]struct {
		adjust func(*copse.Issuer)
		change map[string]any
		want   types.EntityUID
	}{
		"without a prefix, no bar":  {func(i *copse.Issuer) { i.PrincipalIDPrefix = "" }, nil, types.NewEntityUID("App::User", "alice")},
		"another claim":             {func(i *copse.Issuer) { i.PrincipalIDClaim = "uid" }, map[string]any{"uid": "u1"}, types.NewEntityUID("App::User", "pool|u1")},
		"quotes, bars and line end": {nil, map[string]any{"sub": "a\"b|c\n\\\x00"}, types.NewEntityUID("App::User", "pool|a\"b|c\n\\\x00")},
		"text of an entity":         {nil, map[string]any{"sub": `App::User::"admin"`}, types.NewEntityUID("App::User", `pool|App::User::"admin"`)},
		"JSON of an entity":         {nil, map[string]any{"sub": `{"__entity":{"type":"App::User","id":"admin"}}`}, types.NewEntityUID("App::User", `pool|{"__entity":{"type":"App::User","id":"admin"}}`)},
		"claim at a pointer":        {func(i *copse.Issuer) { i.PrincipalIDClaim = "/app/id~1" }, map[string]any{"app": map[string]any{"id/": "u1"}}, types.NewEntityUID("App::User", "pool|u1")},
		"at the limit":              {nil, map[string]any{"sub": strings.Repeat("x", copse.MaxEntityIDBytes-5)}, types.NewEntityUID("App::User", types.String("pool|"+strings.Repeat("x", copse.MaxEntityIDBytes-5)))},
	} {
		t.Run(name, func(t *testing.T) {
			v := accepted(t, c.adjust, c.change)
			if v.Principal != c.want {
				t.Errorf("principal %v, want %v", v.Principal, c.want)
			}
			// The entity that policies will see is this one, whatever is in the id.
			var list []types.Entity
			if err := unmarshalStd(v.Entities.Bytes, &list); err != nil || len(list) != 1 || list[0].UID != c.want {
				t.Errorf("%v, %v: %s", list, err, v.Entities.Bytes)
			}
		})
	}
}

func TestGroupForms(t *testing.T) {
	many := make([]string, maxGroups)
	for i := range many {
		many[i] = fmt.Sprintf("g%03d", i)
	}
	for name, c := range map[string]struct {
		adjust func(*copse.Issuer)
		groups any
		want   []string
	}{
		"one string":           {nil, "admins", []string{"pool|admins"}},
		"separated by spaces":  {nil, "b a  c", []string{"pool|a", "pool|b", "pool|c"}},
		"list":                 {nil, []string{"b", "a"}, []string{"pool|a", "pool|b"}},
		"list keeps spaces":    {nil, []string{"the admins"}, []string{"pool|the admins"}},
		"named twice":          {nil, []string{"a", "a"}, []string{"pool|a"}},
		"no groups":            {nil, []string{}, nil},
		"empty string":         {nil, "", nil},
		"missing":              {nil, nil, nil},
		"no prefix":            {func(i *copse.Issuer) { i.PrincipalIDPrefix = "" }, "admins", []string{"admins"}},
		"as many as may be":    {func(i *copse.Issuer) { i.PrincipalIDPrefix = "" }, many, many},
		"another claim":        {func(i *copse.Issuer) { i.GroupClaim = "scope" }, "ignored", []string{"pool|read", "pool|write"}},
		"issuer has no groups": {func(i *copse.Issuer) { i.GroupType, i.GroupClaim = "", "" }, "admins", nil},
	} {
		t.Run(name, func(t *testing.T) {
			v := accepted(t, c.adjust, map[string]any{"groups": c.groups})
			var list []types.Entity
			if err := unmarshalStd(v.Entities.Bytes, &list); err != nil || len(list) != 1 {
				t.Fatal(err)
			}
			var want []types.EntityUID
			for _, id := range c.want {
				want = append(want, types.NewEntityUID("App::Group", types.String(id)))
			}
			if !list[0].Parents.Equal(types.NewEntityUIDSet(want...)) {
				t.Errorf("parents %v, want %v", list[0].Parents, want)
			}
		})
	}
}

// A group claim at a pointer is read, is no attribute beside, and where it is missing there are no groups.
func TestGroupsAtAPointer(t *testing.T) {
	at := func(claim string) func(*copse.Issuer) {
		return func(i *copse.Issuer) { i.GroupClaim = claim }
	}
	for name, c := range map[string]struct {
		claim  string
		groups string // members of the token
		want   []types.EntityUID
		rest   string // members of context.token
	}{
		"one level": {"/groups", `"groups":["a"]`, inGroups("a"), ``},
		"two levels": {"/realm_access/roles", `"realm_access":{"roles":["b","a"],"x":1},"roles":["no"]`,
			inGroups("a", "b"), `,"realm_access":{"x":1},"roles":["no"]`},
		"three, a string": {"/resource_access/shop/roles", `"resource_access":{"bar":{"roles":["no"]},"shop":{"roles":"a b","shop":{"roles":1}}}`,
			inGroups("a", "b"), `,"resource_access":{"bar":{"roles":["no"]},"shop":{"shop":{"roles":1}}}`},
		"escapes":             {"/https:~1~1acme.example/g~0", `"https://acme.example":{"g~":["a"]}`, inGroups("a"), `,"https://acme.example":{}`},
		"a plain URL":         {"https://acme.example/g", `"https://acme.example/g":["a"]`, inGroups("a"), ``},
		"missing":             {"/realm_access/roles", `"realm_access":{"x":1}`, nil, `,"realm_access":{"x":1}`},
		"the way missing":     {"/realm_access/roles", `"x":1`, nil, `,"x":1`},
		"the pointer's text":  {"/app/g", `"/app/g":["no"]`, nil, `,"/app/g":["no"]`},
		"the way, not within": {"/app/g", `"app":{"h":[{"g":["no"]}],"app":{"g":["no"]}}`, nil, `,"app":{"h":[{"g":["no"]}],"app":{"g":["no"]}}`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.register(w.issuer, at(c.claim))
			v := w.wantAccepted(t, rs256().raw(goodHeader, `{"tenant_id":"acme","iss":"`+w.issuer+`","sub":"a","aud":"api","exp":4102444800,`+c.groups+`}`))
			var list []types.Entity
			if err := unmarshalStd(v.Entities.Bytes, &list); err != nil || len(list) != 1 {
				t.Fatal(err)
			}
			if !list[0].Parents.Equal(types.NewEntityUIDSet(c.want...)) {
				t.Errorf("parents %v, want %v", list[0].Parents, c.want)
			}
			var got, want types.Record
			if err := unmarshalStd(v.Context.Bytes, &got); err != nil {
				t.Fatal(err)
			}
			if err := unmarshalStd([]byte(`{"token":{"tenant_id":"acme","iss":"`+w.issuer+`","sub":"a","aud":"api","exp":4102444800`+c.rest+`}}`), &want); err != nil {
				t.Fatal(err)
			}
			if !got.Equal(want) {
				t.Errorf("context %v, want %v", got, want)
			}
		})
	}
}

func inGroups(names ...string) (groups []types.EntityUID) {
	for _, name := range names {
		groups = append(groups, types.NewEntityUID("App::Group", types.String("pool|"+name)))
	}
	return groups
}

func TestReservedTypes(t *testing.T) {
	for name, c := range map[string]struct {
		adjust func(*copse.Issuer)
		want   []types.EntityType
	}{
		"principal and groups": {nil, []types.EntityType{"App::User", "App::Group"}},
		"one type for both":    {func(i *copse.Issuer) { i.GroupType = "App::User" }, []types.EntityType{"App::User"}},
		"no groups":            {func(i *copse.Issuer) { i.GroupType, i.GroupClaim = "", "" }, []types.EntityType{"App::User"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, accepted(t, c.adjust, nil).ReservedTypes); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Each claim is written as the JSON of the token's claim x and read as that of context.token.x;
// empty means that it is left out.
func TestClaimTypes(t *testing.T) {
	entity := `{"__entity":{"type":"App::User","id":"admin"}}`
	extension := `{"__extn":{"fn":"ip","arg":"10.0.0.1"}}`
	for claim, want := range map[string]string{
		`"text"`:                      `"text"`,
		`""`:                          `""`,
		`"\u00e9\n\"\u0000"`:          `"\u00e9\n\"\u0000"`,
		`true`:                        `true`,
		`false`:                       `false`,
		`0`:                           `0`,
		`-0`:                          `0`,
		`9007199254740993`:            `9007199254740993`,
		`9223372036854775807`:         `9223372036854775807`,
		`-9223372036854775808`:        `-9223372036854775808`,
		`9223372036854775808`:         ``,
		`1.5`:                         ``,
		`1.0`:                         ``,
		`1e3`:                         ``,
		`null`:                        ``,
		`[]`:                          `[]`,
		`["a","b"]`:                   `["a","b"]`,
		`[1,null,2.5,3]`:              `[1,3]`,
		`[null]`:                      `[]`,
		`[[1],[null],{"a":null}]`:     `[[1],[],{}]`,
		`{}`:                          `{}`,
		`{"a":{"b":[true]},"c":null}`: `{"a":{"b":[true]}}`,
		`{"z":1,"a":null,"b":2}`:      `{"z":1,"b":2}`,
		`{"_a":1,"a__":2}`:            `{"_a":1,"a__":2}`,
		entity:                        ``,
		extension:                     ``,
		`[` + entity + `]`:            `[]`,
		`[1,` + extension + `,2]`:     `[1,2]`,
		`{"a":` + entity + `}`:        `{}`,
		`{"a":1,"b":` + entity + `}`:  `{"a":1}`,
		`{"a":1,"__entity":2}`:        ``,
		`{"\u005f_entity":{"type":"App::User","id":"admin"}}`:                   ``,
		`{"__expr":"principal"}`:                                                ``,
		`{"__entity":null}`:                                                     ``,
		`{"a":{"b":{"c":{"__x":1}}}}`:                                           `{"a":{"b":{}}}`,
		`{"type":"App::User","id":"a"}`:                                         `{"type":"App::User","id":"a"}`,
		`"{\"__entity\":{\"type\":\"App::User\",\"id\":\"admin\"}}"`:            `"{\"__entity\":{\"type\":\"App::User\",\"id\":\"admin\"}}"`,
		strings.Repeat("[", maxClaimDepth) + strings.Repeat("]", maxClaimDepth): strings.Repeat("[", maxClaimDepth) + strings.Repeat("]", maxClaimDepth),
	} {
		t.Run(claim, func(t *testing.T) {
			w := newWorld(t)
			v := w.wantAccepted(t, rs256().raw(goodHeader, `{"iss":"`+w.issuer+`","sub":"a","aud":"api","exp":4102444800,"tenant_id":"acme","x":`+claim+`}`))
			if want != "" {
				want = `,"x":` + want
			}
			wantJSON(t, v.Context, `{"token":{"aud":"api","exp":4102444800,"iss":"`+w.issuer+`","sub":"a","tenant_id":"acme"`+want+`}}`)
			// Nothing a claim says may come out as an entity or an extension value.
			var record types.Record
			if err := unmarshalStd(v.Context.Bytes, &record); err != nil {
				t.Fatal(err)
			}
			wantPlain(t, record)
		})
	}
}

func wantPlain(t *testing.T, v types.Value) {
	t.Helper()
	switch v := v.(type) {
	case types.Record:
		for _, member := range v.All() {
			wantPlain(t, member)
		}
	case types.Set:
		for member := range v.All() {
			wantPlain(t, member)
		}
	case types.String, types.Long, types.Boolean:
	default:
		t.Errorf("a claim became %T %v", v, v)
	}
}

func TestClaimNamesCantEscape(t *testing.T) {
	v := accepted(t, nil, map[string]any{
		"__entity": map[string]any{"type": "App::User", "id": "admin"}, "__extn": 1, "__": 2, "ok": 3,
	})
	if strings.Contains(string(v.Context.Bytes), "__") {
		t.Errorf("%s", v.Context.Bytes)
	}
	// With nothing but the escape left, the record would have become an entity.
	v = accepted(t, func(i *copse.Issuer) { i.TokenType = copse.TokenID }, map[string]any{"__entity": map[string]any{"type": "App::User", "id": "admin"}})
	if strings.Contains(string(v.Entities.Bytes), "__") {
		t.Errorf("%s", v.Entities.Bytes)
	}
}

func TestAcceptedAudiences(t *testing.T) {
	for name, change := range map[string]map[string]any{
		"string":                  {"aud": "api"},
		"list of one":             {"aud": []string{"api"}},
		"one of a list":           {"aud": []string{"other", "api"}},
		"client_id":               {"aud": nil, "client_id": "web"},
		"cid":                     {"aud": nil, "cid": "web"},
		"audience and any client": {"aud": "api", "client_id": "other"},
	} {
		t.Run(name, func(t *testing.T) { accepted(t, nil, change) })
	}
}

func TestAcceptedAudiencesOfIDTokens(t *testing.T) {
	clientsOnly := func(i *copse.Issuer) { i.Audiences, i.TokenType = nil, copse.TokenID }
	both := func(i *copse.Issuer) { i.TokenType = copse.TokenID }
	audiencesOnly := func(i *copse.Issuer) { i.ClientIDs, i.TokenType = nil, copse.TokenID }
	for name, c := range map[string]struct {
		adjust func(*copse.Issuer)
		change map[string]any
	}{
		"a client":                         {clientsOnly, map[string]any{"aud": "web"}},
		"a client among others":            {clientsOnly, map[string]any{"aud": []string{"other", "web"}}},
		"made for a client":                {clientsOnly, map[string]any{"aud": []string{"other", "web"}, "azp": "web"}},
		"an audience, clients too":         {both, map[string]any{"aud": "api"}},
		"a client, audiences too":          {both, map[string]any{"aud": "web"}},
		"an audience, made for a client":   {both, map[string]any{"aud": "api", "azp": "web"}},
		"no clients registered: any azp":   {audiencesOnly, map[string]any{"aud": "api", "azp": "anyone"}},
		"no clients registered and no azp": {audiencesOnly, map[string]any{"aud": "api"}},
	} {
		t.Run(name, func(t *testing.T) { accepted(t, c.adjust, c.change) })
	}
	// An access token's azp is its client, which its audience does not depend on.
	accepted(t, nil, map[string]any{"aud": "api", "azp": "other"})
}

func TestAcceptedTenants(t *testing.T) {
	for name, c := range map[string]struct {
		adjust func(*copse.Issuer)
		change map[string]any
		want   copse.TenantID
	}{
		"plain claim":          {nil, nil, "acme"},
		"claim with a colon":   {func(i *copse.Issuer) { i.TenantClaim = "custom:tenant" }, map[string]any{"custom:tenant": "acme"}, "acme"},
		"pointer":              {func(i *copse.Issuer) { i.TenantClaim = "/app/tenant" }, map[string]any{"app": map[string]any{"tenant": "acme"}}, "acme"},
		"pointer with escapes": {func(i *copse.Issuer) { i.TenantClaim = "/https:~1~1acme.example~1app/t~0" }, map[string]any{"https://acme.example/app": map[string]any{"t~": "acme"}}, "acme"},
		"fixed":                {func(i *copse.Issuer) { i.FixedTenant, i.TenantClaim = "acme", "" }, map[string]any{"tenant_id": "globex"}, "acme"},
		"fixed, claim missing": {func(i *copse.Issuer) { i.FixedTenant = "acme" }, map[string]any{"tenant_id": nil}, "acme"},
		"fixed, claim agrees":  {func(i *copse.Issuer) { i.FixedTenant = "acme" }, nil, "acme"},
		"any tenant":           {func(i *copse.Issuer) { i.AllTenants, i.Tenants = true, nil }, map[string]any{"tenant_id": "globex"}, "globex"},
		"one of several":       {func(i *copse.Issuer) { i.Tenants = []copse.TenantID{"a", "globex"} }, map[string]any{"tenant_id": "globex"}, "globex"},
	} {
		t.Run(name, func(t *testing.T) {
			if v := accepted(t, c.adjust, c.change); v.Tenant != c.want {
				t.Errorf("tenant %q, want %q", v.Tenant, c.want)
			}
		})
	}
}

func TestAcceptedForms(t *testing.T) {
	for name, header := range map[string]map[string]any{
		"no typ":           {"typ": nil},
		"typ at+jwt":       {"typ": "at+jwt"},
		"typ in long form": {"typ": "application/at+jwt"},
		"typ in capitals":  {"typ": "AT+JWT"},
		"no key id":        {"kid": nil}, // there is one key only
		"unknown member":   {"x-anything": 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.wantAccepted(t, rs256().sign(w.claims(nil), header))
		})
	}
	for name, change := range map[string]map[string]any{
		"expiry with a fraction": {"exp": 4102444800.5},
		"issued within the skew": {"iat": timeNow() + 20},
		"nbf within the skew":    {"nbf": timeNow() + 20},
		"Cognito's token_use":    {"token_use": "access"},
		"Keycloak's typ":         {"typ": "Bearer"},
		"e-mail, any domain":     {"email": "a@b.example"},
	} {
		t.Run(name, func(t *testing.T) { accepted(t, nil, change) })
	}
	vouches := func(i *copse.Issuer) { i.EmailDomains = []string{"acme.example"} }
	for _, address := range []string{"a@acme.example", "a@ACME.Example", `"a@b"@acme.example`} {
		t.Run(address, func(t *testing.T) { accepted(t, vouches, map[string]any{"email": address}) })
	}
	t.Run("e-mail not said", func(t *testing.T) { accepted(t, vouches, nil) })
}

func TestEveryAlgorithmVerifies(t *testing.T) {
	ran := 0
	for _, s := range allSigners() {
		t.Run(s.method.Alg(), func(t *testing.T) {
			w := newWorld(t)
			w.register(w.issuer, func(i *copse.Issuer) { i.Algorithms = Algorithms() })
			w.publish("/pool", published(s))
			token := s.sign(w.claims(nil), nil)
			w.wantAccepted(t, token)
			last := strings.LastIndexByte(token, '.')
			signature := must(base64.RawURLEncoding.DecodeString(token[last+1:]))
			for _, at := range []int{0, len(signature) / 2, len(signature) - 1} {
				signature[at] ^= 1
				w.wantRefused(t, token[:last+1]+base64.RawURLEncoding.EncodeToString(signature), ReasonSignature)
				signature[at] ^= 1
			}
			ran++
		})
	}
	if ran != len(methods) {
		t.Errorf("%d of %d algorithms ran", ran, len(methods))
	}
}

func allSigners() []signer {
	var all []signer
	for _, name := range Algorithms() {
		s := signer{kid: "k", method: jwt.GetSigningMethod(name)}
		switch name {
		case "ES256":
			s.secret = ecKey()
		case "ES384":
			s.secret = ec384()
		case "ES512":
			s.secret = ec521()
		case "EdDSA":
			s.secret = edKey()
		default:
			s.secret = rsaKey()
		}
		all = append(all, s)
	}
	return all
}
