package conformance

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	vp "github.com/aws/aws-sdk-go-v2/service/verifiedpermissions"
	"github.com/aws/aws-sdk-go-v2/service/verifiedpermissions/types"
	"github.com/go-json-experiment/json"
	"github.com/golang-jwt/jwt/v5"
)

// The identity providers that policy stores of these tests believe: a user pool and another provider.
const (
	poolID     = "eu-west-1_Abcdefghi"
	poolARN    = "arn:aws:cognito-idp:eu-west-1:000000000000:userpool/" + poolID
	poolIssuer = "https://cognito-idp.eu-west-1.amazonaws.com/" + poolID
	oidcIssuer = "https://idp.example.com/tenants"
)

// issuer signs tokens as both providers, and publishes its key at url, on loopback.
type issuer struct {
	key *rsa.PrivateKey
	url string // of the key set
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	n := base64.RawURLEncoding.EncodeToString(key.N.Bytes())
	e := base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes())
	keys, err := json.Marshal(map[string]any{"keys": []map[string]string{{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "k1", "n": n, "e": e}}})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(keys)
	}))
	t.Cleanup(web.Close)
	return &issuer{key: key, url: web.URL + "/jwks.json"}
}

// token is the user pool's, of a use: "id" or "access". Claims are added; a nil one is taken away.
func (i *issuer) token(t *testing.T, use string, claims map[string]any) string {
	t.Helper()
	all := jwt.MapClaims{
		"iss": poolIssuer, "sub": "alice", "token_use": use, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		"cognito:groups": []string{"clerk"},
	}
	if use == "id" {
		all["aud"] = "client-1"
	} else {
		all["client_id"], all["scope"] = "client-1", "read write"
	}
	return i.sign(t, all, claims)
}

// oidcToken is an access token of the other provider.
func (i *issuer) oidcToken(t *testing.T, claims map[string]any) string {
	t.Helper()
	return i.sign(t, jwt.MapClaims{
		"iss": oidcIssuer, "sub": "alice", "aud": "shop", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		"roles": []string{"clerk"},
	}, claims)
}

func (i *issuer) sign(t *testing.T, all jwt.MapClaims, claims map[string]any) string {
	t.Helper()
	maps.Copy(all, claims)
	for name, v := range claims {
		if v == nil {
			delete(all, name)
		}
	}
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, all)
	token.Header["kid"] = "k1"
	text, err := token.SignedString(i.key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// userPool is the configuration of an identity source for the user pool and one of its clients.
func userPool(client string) types.Configuration {
	return &types.ConfigurationMemberCognitoUserPoolConfiguration{Value: types.CognitoUserPoolConfiguration{
		UserPoolArn: aws.String(poolARN), ClientIds: []string{client},
		GroupConfiguration: &types.CognitoGroupConfiguration{GroupEntityType: aws.String("Shop::Role")},
	}}
}

func updatedUserPool(client string) types.UpdateConfiguration {
	return &types.UpdateConfigurationMemberCognitoUserPoolConfiguration{Value: types.UpdateCognitoUserPoolConfiguration{
		UserPoolArn: aws.String(poolARN), ClientIds: []string{client},
		GroupConfiguration: &types.UpdateCognitoGroupConfiguration{GroupEntityType: aws.String("Shop::Role")},
	}}
}

func openID() types.Configuration {
	return &types.ConfigurationMemberOpenIdConnectConfiguration{Value: types.OpenIdConnectConfiguration{
		Issuer: aws.String(oidcIssuer), EntityIdPrefix: aws.String("idp"),
		GroupConfiguration: &types.OpenIdConnectGroupConfiguration{GroupClaim: aws.String("roles"), GroupEntityType: aws.String("Shop::Role")},
		TokenSelection: &types.OpenIdConnectTokenSelectionMemberAccessTokenOnly{Value: types.OpenIdConnectAccessTokenConfiguration{
			Audiences: []string{"shop"}, PrincipalIdClaim: aws.String("sub"),
		}},
	}}
}

func (r *run) newIdentitySource(ps *string, configuration types.Configuration) *string {
	r.t.Helper()
	return value[vp.CreateIdentitySourceOutput](r)(r.c.CreateIdentitySource(r.ctx, &vp.CreateIdentitySourceInput{
		PolicyStoreId: ps, Configuration: configuration, PrincipalEntityType: aws.String("Shop::User"),
	})).IdentitySourceId
}

func (r *run) identitySources() {
	ps := r.newPolicyStore(types.ValidationModeOff)
	id := r.newIdentitySource(ps, userPool("client-1"))
	get := func() *vp.GetIdentitySourceOutput {
		return value[vp.GetIdentitySourceOutput](r)(r.c.GetIdentitySource(r.ctx, &vp.GetIdentitySourceInput{PolicyStoreId: ps, IdentitySourceId: id}))
	}
	got := get()
	cognito, ok := got.Configuration.(*types.ConfigurationDetailMemberCognitoUserPoolConfiguration)
	r.check(ok && *cognito.Value.Issuer == poolIssuer && *cognito.Value.UserPoolArn == poolARN && len(cognito.Value.ClientIds) == 1 &&
		*cognito.Value.GroupConfiguration.GroupEntityType == "Shop::Role" && *got.PrincipalEntityType == "Shop::User", "%+v", got)
	_, err := r.c.CreateIdentitySource(r.ctx, &vp.CreateIdentitySourceInput{PolicyStoreId: ps, Configuration: openID()})
	e := throws[*types.ServiceQuotaExceededException](r, err)
	r.check(e.ResourceType != "", "%+v", e)

	value[vp.UpdateIdentitySourceOutput](r)(r.c.UpdateIdentitySource(r.ctx, &vp.UpdateIdentitySourceInput{
		PolicyStoreId: ps, IdentitySourceId: id, UpdateConfiguration: updatedUserPool("client-2"), PrincipalEntityType: aws.String("Shop::Person"),
	}))
	got = get()
	cognito, ok = got.Configuration.(*types.ConfigurationDetailMemberCognitoUserPoolConfiguration)
	r.check(ok && cognito.Value.ClientIds[0] == "client-2" && *got.PrincipalEntityType == "Shop::Person", "updated to %+v", got)
	list := func(filters ...types.IdentitySourceFilter) []types.IdentitySourceItem {
		return value[vp.ListIdentitySourcesOutput](r)(r.c.ListIdentitySources(r.ctx, &vp.ListIdentitySourcesInput{PolicyStoreId: ps, Filters: filters})).IdentitySources
	}
	person, user := "Shop::Person", "Shop::User"
	r.check(len(list()) == 1 && len(list(types.IdentitySourceFilter{PrincipalEntityType: &person})) == 1 &&
		len(list(types.IdentitySourceFilter{PrincipalEntityType: &user})) == 0, "listed %+v", list())
	value[vp.DeleteIdentitySourceOutput](r)(r.c.DeleteIdentitySource(r.ctx, &vp.DeleteIdentitySourceInput{PolicyStoreId: ps, IdentitySourceId: id}))
	r.check(len(list()) == 0, "it is still listed")
	id = r.newIdentitySource(ps, openID())
	openid, ok := get().Configuration.(*types.ConfigurationDetailMemberOpenIdConnectConfiguration)
	r.check(ok && *openid.Value.Issuer == oidcIssuer && *openid.Value.EntityIdPrefix == "idp", "%+v", openid)
}

// tokenDecisions: who asks is what the token says, and nothing the caller sends can say it.
func (r *run) tokenDecisions() {
	ps := r.newPolicyStore(types.ValidationModeOff)
	policy := r.newPolicy(ps, static(`permit (principal in Shop::Role::"`+poolID+`|clerk", action, resource);`))
	scoped := r.newPolicy(ps, static(`permit (principal == Shop::User::"`+poolID+`|alice", action == Shop::Action::"pay", resource) when { context.token.scope.contains("write") };`))
	r.newIdentitySource(ps, userPool("client-1"))
	ask := func(in vp.IsAuthorizedWithTokenInput) (*vp.IsAuthorizedWithTokenOutput, error) {
		in.PolicyStoreId, in.Resource = ps, entity("Invoice", "1")
		if in.Action == nil {
			in.Action = action("view")
		}
		return r.c.IsAuthorizedWithToken(r.ctx, &in)
	}
	identity, access := aws.String(r.issuer.token(r.t, "id", nil)), aws.String(r.issuer.token(r.t, "access", nil))
	out := value[vp.IsAuthorizedWithTokenOutput](r)(ask(vp.IsAuthorizedWithTokenInput{IdentityToken: identity}))
	r.check(out.Decision == types.DecisionAllow && sameIDs(out.DeterminingPolicies, []*string{policy}) && *out.Principal.EntityId == poolID+"|alice" && *out.Principal.EntityType == "Shop::User", "%+v", out)
	out = value[vp.IsAuthorizedWithTokenOutput](r)(ask(vp.IsAuthorizedWithTokenInput{AccessToken: access, Action: action("pay")}))
	r.check(out.Decision == types.DecisionAllow && sameIDs(out.DeterminingPolicies, []*string{policy, scoped}), "%+v", out)
	stranger := aws.String(r.issuer.token(r.t, "id", map[string]any{"sub": "eve", "cognito:groups": nil}))
	out = value[vp.IsAuthorizedWithTokenOutput](r)(ask(vp.IsAuthorizedWithTokenInput{IdentityToken: stranger}))
	r.check(out.Decision == types.DecisionDeny && *out.Principal.EntityId == poolID+"|eve", "%+v", out)

	for name, in := range map[string]vp.IsAuthorizedWithTokenInput{
		"no token":               {},
		"an access token as id":  {IdentityToken: access},
		"an id token as access":  {AccessToken: identity},
		"expired":                {IdentityToken: aws.String(r.issuer.token(r.t, "id", map[string]any{"exp": 1_700_000_000}))},
		"another client":         {IdentityToken: aws.String(r.issuer.token(r.t, "id", map[string]any{"aud": "client-9"}))},
		"another issuer":         {IdentityToken: aws.String(r.issuer.token(r.t, "id", map[string]any{"iss": poolIssuer + "x"}))},
		"signed by another key":  {IdentityToken: aws.String(r.stranger.token(r.t, "id", nil))},
		"entities of the user":   {IdentityToken: stranger, Entities: &types.EntitiesDefinitionMemberEntityList{Value: []types.EntityItem{{Identifier: entity("User", poolID+"|eve"), Parents: []types.EntityIdentifier{*entity("Role", poolID+"|clerk")}}}}},
		"entities of the group":  {IdentityToken: stranger, Entities: &types.EntitiesDefinitionMemberEntityList{Value: []types.EntityItem{{Identifier: entity("Role", "x")}}}},
		"context that is claims": {AccessToken: access, Context: &types.ContextDefinitionMemberContextMap{Value: map[string]types.AttributeValue{"token": &types.AttributeValueMemberString{Value: "x"}}}},
	} {
		if _, err := ask(in); err == nil {
			r.fatalf("%s: it was answered", name)
		} else {
			throws[*types.ValidationException](r, err)
		}
	}

	batch := value[vp.BatchIsAuthorizedWithTokenOutput](r)(r.c.BatchIsAuthorizedWithToken(r.ctx, &vp.BatchIsAuthorizedWithTokenInput{
		PolicyStoreId: ps, AccessToken: access, Requests: []types.BatchIsAuthorizedWithTokenInputItem{
			{Action: action("view"), Resource: entity("Invoice", "1")}, {Action: action("pay"), Resource: entity("Invoice", "2")},
		},
	}))
	r.check(len(batch.Results) == 2 && *batch.Principal.EntityId == poolID+"|alice" && batch.Results[1].Decision == types.DecisionAllow &&
		sameIDs(batch.Results[1].DeterminingPolicies, []*string{policy, scoped}) && *batch.Results[1].Request.Resource.EntityId == "2", "%+v", batch)
	throws[*types.ValidationException](r, second(r.c.BatchIsAuthorizedWithToken(r.ctx, &vp.BatchIsAuthorizedWithTokenInput{
		PolicyStoreId: ps, AccessToken: access, IdentityToken: access, Requests: []types.BatchIsAuthorizedWithTokenInputItem{{Action: action("view"), Resource: entity("Invoice", "1")}},
	})))

	// Another provider, by OpenID Connect.
	ps = r.newPolicyStore(types.ValidationModeOff)
	r.newIdentitySource(ps, openID())
	policy = r.newPolicy(ps, static(`permit (principal in Shop::Role::"idp|clerk", action, resource);`))
	out = value[vp.IsAuthorizedWithTokenOutput](r)(ask(vp.IsAuthorizedWithTokenInput{AccessToken: aws.String(r.issuer.oidcToken(r.t, nil))}))
	r.check(out.Decision == types.DecisionAllow && *out.Principal.EntityId == "idp|alice" && sameIDs(out.DeterminingPolicies, []*string{policy}), "%+v", out)
	throws[*types.ValidationException](r, second(ask(vp.IsAuthorizedWithTokenInput{AccessToken: aws.String(r.issuer.oidcToken(r.t, map[string]any{"aud": "another"}))})))
}
