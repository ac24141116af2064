package server_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	vp "github.com/aws/aws-sdk-go-v2/service/verifiedpermissions"
	"github.com/aws/aws-sdk-go-v2/service/verifiedpermissions/types"
	"github.com/golang-jwt/jwt/v5"
)

// Each claim becomes what AVP's documentation says, and the answer names the principal.
func TestClaimsAreMappedAsInAVP(t *testing.T) {
	s := newPoolSite(t)
	permit := func(condition string) string {
		return `permit (principal, action, resource) when { ` + condition + ` };`
	}
	idToken, accessToken := s.pool.sign(s.idClaims()), s.pool.sign(s.accessClaims())
	oidcClaims := changed(jwt.MapClaims{"iss": oidcIssuer, "sub": "bob", "uid": "b7", "aud": []string{"other", "api"}, "roles": "staff  ops"}, nil)
	for name, c := range map[string]struct {
		condition  string
		id, access *string
		oidc       types.Configuration
		wantID     string
		without    string // a condition that must not hold
	}{
		"a pool's principal":         {condition: `principal == User::"eu-west-1_Pool1|alice"`, id: idToken},
		"a pool's group":             {condition: `principal in Group::"eu-west-1_Pool1|admins"`, id: idToken, without: `principal in Group::"admins"`},
		"the group of access tokens": {condition: `principal in Group::"eu-west-1_Pool1|admins"`, access: accessToken},
		"claims with a colon":        {condition: `principal["custom:level"] == "7" && principal["cognito:username"] == "al"`, id: idToken},
		"claims with a dot":          {condition: `principal.custom.level == "7" && principal.cognito.username == "al" && principal.aud == "web"`, id: idToken},
		"groups are no attribute":    {condition: `principal has email`, id: idToken, without: `principal has "cognito:groups" || principal.cognito has groups`},
		"an access token's claims":   {condition: `context.token.client_id == "web" && context.token.scope.contains("write")`, access: accessToken, without: `principal has client_id`},
		"access tokens do not nest":  {condition: `context.token has username`, access: accessToken, without: `context.token has cognito`},
		"both tokens":                {condition: `principal.email == "alice@example.com" && context.token.scope.containsAll(["read", "write"]) && principal in Group::"eu-west-1_Pool1|admins"`, id: idToken, access: accessToken},
		"another provider":           {condition: `principal == User::"corp|b7" && principal in Team::"corp|ops" && context.token.uid == "b7"`, oidc: oidcSource("uid", "corp"), access: s.oidc.sign(oidcClaims), wantID: "corp|b7", without: `context.token has roles`},
		"no prefix":                  {condition: `principal == User::"bob" && principal in Team::"staff"`, oidc: oidcSource("", ""), access: s.oidc.sign(oidcClaims), wantID: "bob"},
	} {
		ps := s.policyStore(permit(c.condition))
		if c.without != "" {
			ps = s.policyStore(permit(c.condition), strings.Replace(permit(c.without), "permit", "forbid", 1))
		}
		want := "eu-west-1_Pool1|alice"
		if c.oidc == nil {
			c.oidc = poolConfiguration("web")
		} else {
			want = c.wantID
		}
		s.source(ps, c.oidc)
		out, err := s.ask(ps, c.id, c.access)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if out.Decision != types.DecisionAllow || len(out.Errors) > 0 {
			t.Errorf("%s: %s, errors %v", name, out.Decision, out.Errors)
		}
		if *out.Principal.EntityType != "User" || *out.Principal.EntityId != want {
			t.Errorf("%s: principal %s %s", name, *out.Principal.EntityType, *out.Principal.EntityId)
		}
	}
}

func oidcSource(claim, prefix string) types.Configuration {
	access := types.OpenIdConnectAccessTokenConfiguration{Audiences: []string{"api", "svc"}}
	oidc := types.OpenIdConnectConfiguration{
		Issuer: aws.String(oidcIssuer),
		GroupConfiguration: &types.OpenIdConnectGroupConfiguration{
			GroupClaim: aws.String("roles"), GroupEntityType: aws.String("Team")},
	}
	if claim != "" {
		access.PrincipalIdClaim = &claim
	}
	if prefix != "" {
		oidc.EntityIdPrefix = &prefix
	}
	oidc.TokenSelection = &types.OpenIdConnectTokenSelectionMemberAccessTokenOnly{Value: access}
	return &types.ConfigurationMemberOpenIdConnectConfiguration{Value: oidc}
}

// Each attack beside the good token that it is made from, on a policy store that permits everything.
func TestTokensThatMustNotDecide(t *testing.T) {
	s := newPoolSite(t)
	ps := s.policyStore(`permit (principal, action, resource);`)
	s.source(ps, poolConfiguration("web", "mobile"))
	s.wantAllow(ps, s.pool.sign(s.idClaims()), nil)
	s.wantAllow(ps, nil, s.pool.sign(s.accessClaims()))
	thief := newKey(t, "key-1", "ES256")
	public, err := x509.MarshalPKIXPublicKey(s.pool.key.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	asPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	hour := func(n int) int64 { return time.Now().Add(time.Duration(n) * time.Hour).Unix() }
	id := func(claims jwt.MapClaims) *string { return s.pool.sign(s.idClaims(claims)) }
	access := func(claims jwt.MapClaims) *string { return s.pool.sign(s.accessClaims(claims)) }
	header := func(change map[string]any) *string {
		return aws.String(s.pool.key.token(t, change, s.idClaims()))
	}
	unsigned := encode64([]byte(`{"alg":"none"}`)) + "." + segment(t, s.idClaims()) + "."
	for name, c := range map[string]struct{ id, access *string }{
		"of another issuer":                 {id: id(jwt.MapClaims{"iss": oidcIssuer})},
		"of another issuer, really":         {id: s.oidc.sign(s.idClaims(jwt.MapClaims{"iss": oidcIssuer}))},
		"of the issuer with a slash":        {id: id(jwt.MapClaims{"iss": poolIssuer + "/"})},
		"signed by another issuer":          {id: s.oidc.sign(s.idClaims())},
		"signed by a thief":                 {id: aws.String(thief.token(t, nil, s.idClaims()))},
		"alg none":                          {id: &unsigned},
		"HS256 with the public key":         {id: aws.String(signWith(t, "HS256", asPEM, map[string]any{"alg": "HS256", "kid": "key-1"}, s.idClaims()))},
		"another algorithm of the same key": {id: aws.String(s.pool.key.sign(t, "PS256", map[string]any{"alg": "PS256", "kid": "key-1"}, s.idClaims()))},
		"an unknown key id":                 {id: header(map[string]any{"kid": "key-2"})},
		"a key id that is a path":           {id: header(map[string]any{"kid": "../../dev/null"})},
		"no key id but a key":               {id: header(map[string]any{"kid": nil, "jwk": s.pool.key.jwk()})},
		"a key set to fetch":                {id: header(map[string]any{"jku": "https://evil.example/keys"})},
		"expired":                           {id: id(jwt.MapClaims{"exp": hour(-1)})},
		"without an end":                    {id: id(jwt.MapClaims{"exp": nil})},
		"not valid yet":                     {id: id(jwt.MapClaims{"nbf": hour(1)})},
		"an access token as identity":       {id: access(nil)},
		"an ID token as access":             {access: id(nil)},
		"without token_use":                 {id: id(jwt.MapClaims{"token_use": nil})},
		"of another client":                 {id: id(jwt.MapClaims{"aud": "foreign"})},
		"an access token of another client": {access: access(jwt.MapClaims{"client_id": "foreign"})},
		"an access token with a fair aud":   {access: access(jwt.MapClaims{"client_id": "foreign", "aud": "web"})},
		"without a subject":                 {id: id(jwt.MapClaims{"sub": nil})},
		"two principals":                    {id: id(nil), access: access(jwt.MapClaims{"sub": "mallory"})},
		"a bare cognito":                    {id: id(jwt.MapClaims{"cognito": map[string]any{"username": "root"}})},
		"a bare custom":                     {id: id(jwt.MapClaims{"custom": "x"})},
		"a bare dev":                        {access: access(jwt.MapClaims{"dev": true})},
		"groups that are none":              {id: id(jwt.MapClaims{"cognito:groups": map[string]any{"a": 1}})},
		"too many groups":                   {id: id(jwt.MapClaims{"cognito:groups": slices.Collect(groupNames(100))})},
		"no token":                          {},
	} {
		out, err := s.ask(ps, c.id, c.access)
		if out != nil {
			t.Errorf("%s: %s", name, out.Decision)
			continue
		}
		path := "identityToken"
		if c.access != nil || c.id == nil {
			path = "accessToken"
		}
		t.Run(name, func(t *testing.T) { wantInvalid(t, err, path) })
	}
	// What AVP takes as any client's.
	anyone := s.policyStore(`permit (principal, action, resource);`)
	s.source(anyone, poolConfiguration())
	s.wantAllow(anyone, id(jwt.MapClaims{"aud": "foreign"}), nil)
}

func groupNames(n int) func(func(string) bool) {
	return func(yield func(string) bool) {
		for i := range n {
			if !yield(strings.Repeat("g", i+1)) {
				return
			}
		}
	}
}

// Audiences of a provider that is not Cognito: aud, or the client where there is none.
func TestAudiencesAsInAVP(t *testing.T) {
	s := newPoolSite(t)
	ps := s.policyStore(`permit (principal, action, resource);`)
	s.source(ps, oidcSource("", ""))
	for name, c := range map[string]struct {
		claims jwt.MapClaims
		good   bool
	}{
		"one of several":             {jwt.MapClaims{"aud": []string{"x", "svc"}}, true},
		"none of several":            {jwt.MapClaims{"aud": []string{"x", "y"}}, false},
		"a client instead":           {jwt.MapClaims{"client_id": "api"}, true},
		"cid instead":                {jwt.MapClaims{"cid": "api"}, true},
		"another client":             {jwt.MapClaims{"client_id": "web"}, false},
		"two clients that disagree":  {jwt.MapClaims{"cid": "api", "client_id": "web"}, false},
		"aud is not replaced":        {jwt.MapClaims{"aud": "x", "client_id": "api"}, false},
		"neither":                    {nil, false},
		"an ID token of that client": {jwt.MapClaims{"aud": "api", "nonce": "n"}, false},
	} {
		token := s.oidc.sign(changed(jwt.MapClaims{"iss": oidcIssuer, "sub": "bob"}, []jwt.MapClaims{c.claims}))
		out, err := s.ask(ps, nil, token)
		if got := err == nil && out.Decision == types.DecisionAllow; got != c.good {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := s.ask(ps, token, nil); err == nil {
			t.Errorf("%s: taken as an ID token, of which the source takes none", name)
		}
	}
}

// Law 1: nothing in the message says who asks.
func TestLaw1NothingBesidesTheTokenDefinesThePrincipal(t *testing.T) {
	s := newPoolSite(t)
	ps := s.policyStore(`permit (principal in Group::"eu-west-1_Pool1|admins", action, resource);`,
		`permit (principal, action, resource) when { principal has vip || context.token has vip || principal in Group::"eu-west-1_Pool1|vip" };`)
	s.source(ps, poolConfiguration())
	token := s.pool.sign(s.idClaims(jwt.MapClaims{"cognito:groups": []string{"guests"}}))
	vip := map[string]types.AttributeValue{"vip": &types.AttributeValueMemberBoolean{Value: true}}
	list := func(items ...types.EntityItem) types.EntitiesDefinition {
		return &types.EntitiesDefinitionMemberEntityList{Value: items}
	}
	alice := awsEntity("User", poolID+"|alice")
	for name, c := range map[string]struct {
		entities types.EntitiesDefinition
		context  types.ContextDefinition
	}{
		"the principal":             {entities: list(types.EntityItem{Identifier: alice, Attributes: vip})},
		"another of its type":       {entities: list(types.EntityItem{Identifier: awsEntity("User", "bob"), Attributes: vip})},
		"its group":                 {entities: list(types.EntityItem{Identifier: awsEntity("Group", poolID+"|guests"), Parents: []types.EntityIdentifier{*awsEntity("Group", poolID+"|admins")}})},
		"the action":                {entities: list(types.EntityItem{Identifier: awsEntity("Action", "view")})},
		"the principal, Cedar JSON": {entities: &types.EntitiesDefinitionMemberCedarJson{Value: `[{"uid":{"type":"User","id":"eu-west-1_Pool1|alice"},"attrs":{"vip":true},"parents":[]}]`}},
		"the token":                 {context: &types.ContextDefinitionMemberCedarJson{Value: `{"token":{"vip":true}}`}},
		"the token, as a map":       {context: &types.ContextDefinitionMemberContextMap{Value: map[string]types.AttributeValue{"token": &types.AttributeValueMemberRecord{Value: vip}}}},
	} {
		out, err := s.ask(ps, token, nil, func(in *vp.IsAuthorizedWithTokenInput) { in.Entities, in.Context = c.entities, c.context })
		if _, ok := errors.AsType[*types.ValidationException](err); !ok {
			t.Errorf("%s: %+v, %v", name, out, err)
		}
	}
	out, err := s.ask(ps, token, nil, func(in *vp.IsAuthorizedWithTokenInput) {
		in.Entities = list(types.EntityItem{Identifier: awsEntity("Document", "plan"), Attributes: vip})
	})
	if err != nil || out.Decision != types.DecisionDeny {
		t.Errorf("the resource may be described, and no one is let in: %+v, %v", out, err)
	}
	// The wire has no member for it either.
	body := `{"policyStoreId":"` + ps + `","identityToken":"` + *token + `","principal":{"entityType":"User","entityId":"root"},"action":{"actionType":"Action","actionId":"view"},"resource":{"entityType":"Document","entityId":"d"}}`
	if r := s.amazon(s.root, "IsAuthorizedWithToken", body); r.status != 400 || !strings.Contains(r.body, "principal") {
		t.Errorf("a principal beside the token: %s", r)
	}
	if r := s.amazon(s.root, "IsAuthorizedWithToken", strings.Replace(body, `"principal":{"entityType":"User","entityId":"root"}`, `"identityToken":"`+*token+`"`, 1)); r.status != 400 {
		t.Errorf("two identity tokens: %s", r)
	}
}

// Law 12: a batch answers as the single requests do, and echoes them.
func TestLaw12BatchIsTheSingles(t *testing.T) {
	s := newPoolSite(t)
	ps := s.policyStore(`permit (principal, action == Action::"view", resource) when { resource.open };`,
		`forbid (principal, action, resource == Document::"2") when { context.night };`,
		`permit (principal in Group::"eu-west-1_Pool1|admins", action == Action::"edit", resource);`)
	s.source(ps, poolConfiguration())
	token := s.pool.sign(s.idClaims())
	entities := &types.EntitiesDefinitionMemberEntityList{Value: []types.EntityItem{
		{Identifier: awsEntity("Document", "1"), Attributes: map[string]types.AttributeValue{"open": &types.AttributeValueMemberBoolean{Value: true}}},
		{Identifier: awsEntity("Document", "2"), Attributes: map[string]types.AttributeValue{"open": &types.AttributeValueMemberBoolean{Value: true}}},
	}}
	night := &types.ContextDefinitionMemberContextMap{Value: map[string]types.AttributeValue{"night": &types.AttributeValueMemberBoolean{Value: true}}}
	var plain []types.BatchIsAuthorizedInputItem
	var byToken []types.BatchIsAuthorizedWithTokenInputItem
	for _, action := range []string{"view", "edit", "drop"} {
		for _, doc := range []string{"1", "2", "3"} {
			for _, context := range []types.ContextDefinition{nil, night, &types.ContextDefinitionMemberCedarJson{Value: `{"night":false}`}} {
				plain = append(plain, types.BatchIsAuthorizedInputItem{Principal: awsEntity("User", "x"), Action: awsAction(action), Resource: awsEntity("Document", doc), Context: context})
				byToken = append(byToken, types.BatchIsAuthorizedWithTokenInputItem{Action: awsAction(action), Resource: awsEntity("Document", doc), Context: context})
			}
		}
	}
	seen := map[types.Decision]int{}
	ctx := t.Context()
	batch, err := s.aws.BatchIsAuthorized(ctx, &vp.BatchIsAuthorizedInput{PolicyStoreId: &ps, Requests: plain, Entities: entities})
	if err != nil {
		t.Fatal(err)
	}
	for i, item := range batch.Results {
		one, err := s.aws.IsAuthorized(ctx, &vp.IsAuthorizedInput{PolicyStoreId: &ps, Principal: plain[i].Principal, Action: plain[i].Action,
			Resource: plain[i].Resource, Context: plain[i].Context, Entities: entities})
		if err != nil {
			t.Fatal(err)
		}
		if !same(item.Decision, one.Decision) || !same(item.DeterminingPolicies, one.DeterminingPolicies) || !same(item.Errors, one.Errors) || !same(item.Request, plain[i]) {
			t.Errorf("request %d: in the batch %+v, alone %+v", i, item, one)
		}
		seen[item.Decision]++
	}
	with, err := s.aws.BatchIsAuthorizedWithToken(ctx, &vp.BatchIsAuthorizedWithTokenInput{PolicyStoreId: &ps, IdentityToken: token, Requests: byToken, Entities: entities})
	if err != nil {
		t.Fatal(err)
	}
	if *with.Principal.EntityId != poolID+"|alice" {
		t.Errorf("principal %v", with.Principal)
	}
	for i, item := range with.Results {
		one, err := s.ask(ps, token, nil, func(in *vp.IsAuthorizedWithTokenInput) {
			in.Action, in.Resource, in.Context, in.Entities = byToken[i].Action, byToken[i].Resource, byToken[i].Context, entities
		})
		if err != nil {
			t.Fatal(err)
		}
		if !same(item.Decision, one.Decision) || !same(item.DeterminingPolicies, one.DeterminingPolicies) || !same(item.Errors, one.Errors) || !same(item.Request, byToken[i]) {
			t.Errorf("request %d by token: in the batch %+v, alone %+v", i, item, one)
		}
		seen[item.Decision]++
	}
	if len(batch.Results) != 27 || len(with.Results) != 27 || seen[types.DecisionAllow] < 10 || seen[types.DecisionDeny] < 10 {
		t.Errorf("%d and %d results, decisions %v", len(batch.Results), len(with.Results), seen)
	}
}

// same compares by what is on the wire.
func same(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// What a changed identity source no longer takes, it does not take from memory either.
func TestChangedIdentitySourceForgetsItsTokens(t *testing.T) {
	s := newPoolSite(t)
	ps := s.policyStore(`permit (principal, action, resource);`)
	source := s.source(ps, poolConfiguration("web"))
	token := s.pool.sign(s.idClaims())
	s.wantAllow(ps, token, nil)
	s.wantAllow(ps, token, nil)
	ctx := t.Context()
	_, err := s.aws.UpdateIdentitySource(ctx, &vp.UpdateIdentitySourceInput{PolicyStoreId: &ps, IdentitySourceId: &source,
		UpdateConfiguration: &types.UpdateConfigurationMemberCognitoUserPoolConfiguration{Value: types.UpdateCognitoUserPoolConfiguration{
			UserPoolArn: aws.String(poolARN), ClientIds: []string{"mobile"}}}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.ask(ps, token, nil)
	wantInvalid(t, err, "identityToken")
	s.wantAllow(ps, s.pool.sign(s.idClaims(jwt.MapClaims{"aud": "mobile"})), nil)
	got, err := s.aws.GetIdentitySource(ctx, &vp.GetIdentitySourceInput{PolicyStoreId: &ps, IdentitySourceId: &source})
	if err != nil || *got.PrincipalEntityType != "User" {
		t.Errorf("an update without a principal type keeps it: %+v, %v", got, err)
	}
	if _, err := s.aws.DeleteIdentitySource(ctx, &vp.DeleteIdentitySourceInput{PolicyStoreId: &ps, IdentitySourceId: &source}); err != nil {
		t.Fatal(err)
	}
	_, err = s.ask(ps, s.pool.sign(s.idClaims(jwt.MapClaims{"aud": "mobile"})), nil)
	if e, ok := errors.AsType[*types.ResourceNotFoundException](err); !ok || e.ResourceType != types.ResourceTypeIdentitySource {
		t.Errorf("without an identity source: %v", err)
	}
}

// A token is a JWT or nothing: what does not look like one is refused before anything is fetched.
func TestJunkInPlaceOfATokenWithTheSDK(t *testing.T) {
	s := newPoolSite(t)
	ps := s.policyStore(`permit (principal, action, resource);`)
	s.source(ps, poolConfiguration())
	good := *s.pool.sign(s.idClaims())
	for _, junk := range []string{"a", "a.b", "..", good + ".", good + "\n", " " + good, "\x00" + good, strings.Repeat("a", 20_000) + ".b.c",
		base64.StdEncoding.EncodeToString([]byte(good))} {
		_, err := s.ask(ps, &junk, nil)
		wantInvalid(t, err, "identityToken")
	}
	if n := s.pool.fetches.Load(); n != 0 {
		t.Errorf("%d fetches of keys for junk", n)
	}
}
