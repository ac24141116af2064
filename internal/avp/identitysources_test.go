package avp

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	vp "github.com/aws/aws-sdk-go-v2/service/verifiedpermissions"
	"github.com/aws/aws-sdk-go-v2/service/verifiedpermissions/types"
)

const testPool = "arn:aws:cognito-idp:us-east-1:123456789012:userpool/us-east-1_1a2b3c4d5"

func TestIdentitySourcesWithTheSDK(t *testing.T) {
	ctx, s := t.Context(), start(t)
	c := s.root()
	ps := newPolicyStore(ctx, t, c)
	in := &vp.CreateIdentitySourceInput{PolicyStoreId: &ps, ClientToken: aws.String("token-1"),
		Configuration: &types.ConfigurationMemberCognitoUserPoolConfiguration{Value: types.CognitoUserPoolConfiguration{
			UserPoolArn: aws.String(testPool), ClientIds: []string{"web"}}}}
	made := must[*vp.CreateIdentitySourceOutput](t)(c.CreateIdentitySource(ctx, in))
	again := must[*vp.CreateIdentitySourceOutput](t)(c.CreateIdentitySource(ctx, in))
	if *again.IdentitySourceId != *made.IdentitySourceId || !again.CreatedDate.Equal(*made.CreatedDate) || *made.PolicyStoreId != ps {
		t.Errorf("the same client token: %+v, %+v", made, again)
	}
	in.PrincipalEntityType = aws.String("User")
	_, err := c.CreateIdentitySource(ctx, in)
	wantConflict(t, err, types.ResourceTypeIdentitySource, *made.IdentitySourceId)
	in.ClientToken = nil
	_, err = c.CreateIdentitySource(ctx, in)
	if e, ok := errors.AsType[*types.ServiceQuotaExceededException](err); !ok || e.ResourceType != types.ResourceTypeIdentitySource || *e.ResourceId != ps {
		t.Errorf("a second identity source: %v", err)
	}

	get := func() *vp.GetIdentitySourceOutput {
		t.Helper()
		return must[*vp.GetIdentitySourceOutput](t)(c.GetIdentitySource(ctx, &vp.GetIdentitySourceInput{PolicyStoreId: &ps, IdentitySourceId: made.IdentitySourceId}))
	}
	got := get()
	pool, ok := got.Configuration.(*types.ConfigurationDetailMemberCognitoUserPoolConfiguration)
	const issuer = "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_1a2b3c4d5"
	if !ok || *pool.Value.Issuer != issuer || *pool.Value.UserPoolArn != testPool || !slices.Equal(pool.Value.ClientIds, []string{"web"}) || pool.Value.GroupConfiguration != nil {
		t.Errorf("configuration: %+v", got.Configuration)
	}
	//nolint:staticcheck // the deprecated form is what this looks at
	if d := got.Details; *got.PrincipalEntityType != "AWS::Cognito" || d.OpenIdIssuer != types.OpenIdIssuerCognito || *d.DiscoveryUrl != issuer+"/.well-known/openid-configuration" ||
		*d.UserPoolArn != testPool || !slices.Equal(d.ClientIds, []string{"web"}) {
		t.Errorf("details: %+v, principal type %s", d, *got.PrincipalEntityType)
	}

	updated := must[*vp.UpdateIdentitySourceOutput](t)(c.UpdateIdentitySource(ctx, &vp.UpdateIdentitySourceInput{PolicyStoreId: &ps, IdentitySourceId: made.IdentitySourceId,
		PrincipalEntityType: aws.String("App::User"),
		UpdateConfiguration: &types.UpdateConfigurationMemberOpenIdConnectConfiguration{Value: types.UpdateOpenIdConnectConfiguration{
			Issuer: aws.String("https://login.example.com"), EntityIdPrefix: aws.String("corp"),
			GroupConfiguration: &types.UpdateOpenIdConnectGroupConfiguration{GroupClaim: aws.String("groups"), GroupEntityType: aws.String("App::Group")},
			TokenSelection: &types.UpdateOpenIdConnectTokenSelectionMemberIdentityTokenOnly{Value: types.UpdateOpenIdConnectIdentityTokenConfiguration{
				ClientIds: []string{"a", "b"}, PrincipalIdClaim: aws.String("email")}}}}}))
	if !updated.CreatedDate.Equal(*made.CreatedDate) || updated.LastUpdatedDate.Before(*made.LastUpdatedDate) {
		t.Errorf("UpdateIdentitySource: %+v", updated)
	}
	oidc, ok := get().Configuration.(*types.ConfigurationDetailMemberOpenIdConnectConfiguration)
	if !ok || *oidc.Value.Issuer != "https://login.example.com" || *oidc.Value.EntityIdPrefix != "corp" || *oidc.Value.GroupConfiguration.GroupClaim != "groups" {
		t.Errorf("configuration: %+v", get().Configuration)
	} else if id, ok := oidc.Value.TokenSelection.(*types.OpenIdConnectTokenSelectionDetailMemberIdentityTokenOnly); !ok || len(id.Value.ClientIds) != 2 || *id.Value.PrincipalIdClaim != "email" {
		t.Errorf("tokenSelection: %+v", oidc.Value.TokenSelection)
	}

	for filter, want := range map[string]int{"": 1, "App::User": 1, "User": 0} {
		in := &vp.ListIdentitySourcesInput{PolicyStoreId: &ps}
		if filter != "" {
			in.Filters = []types.IdentitySourceFilter{{PrincipalEntityType: &filter}}
		}
		out := must[*vp.ListIdentitySourcesOutput](t)(c.ListIdentitySources(ctx, in))
		if len(out.IdentitySources) != want || out.NextToken != nil {
			t.Errorf("filter %q: %d listed", filter, len(out.IdentitySources))
		} else if want == 1 && (*out.IdentitySources[0].PrincipalEntityType != "App::User" || *out.IdentitySources[0].IdentitySourceId != *made.IdentitySourceId) {
			t.Errorf("listed: %+v", out.IdentitySources[0])
		}
	}
	_, err = c.ListIdentitySources(ctx, &vp.ListIdentitySourcesInput{PolicyStoreId: &ps, NextToken: aws.String("made-up")})
	if _, ok := errors.AsType[*types.ValidationException](err); !ok {
		t.Errorf("a token nobody gave: %v", err)
	}

	must[*vp.DeleteIdentitySourceOutput](t)(c.DeleteIdentitySource(ctx, &vp.DeleteIdentitySourceInput{PolicyStoreId: &ps, IdentitySourceId: made.IdentitySourceId}))
	_, err = c.DeleteIdentitySource(ctx, &vp.DeleteIdentitySourceInput{PolicyStoreId: &ps, IdentitySourceId: made.IdentitySourceId})
	if e, ok := errors.AsType[*types.ResourceNotFoundException](err); !ok || e.ResourceType != types.ResourceTypeIdentitySource || *e.ResourceId != *made.IdentitySourceId {
		t.Errorf("deleted twice: %v", err)
	}
}

// Every member of a configuration is held against its rule before anything is stored.
func TestIdentitySourceMembersAreChecked(t *testing.T) {
	ctx, s := t.Context(), start(t)
	ps := newPolicyStore(ctx, t, s.root())
	cognito := func(members string) string {
		return `"configuration":{"cognitoUserPoolConfiguration":{` + members + `}}`
	}
	oidc := func(issuer, members string) string {
		return fmt.Sprintf(`"configuration":{"openIdConnectConfiguration":{"issuer":%q,%s}}`, issuer, members)
	}
	const arn = `"userPoolArn":"` + testPool + `"`
	const access = `"tokenSelection":{"accessTokenOnly":{"audiences":["api"]}}`
	at := "configuration.cognitoUserPoolConfiguration"
	of := "configuration.openIdConnectConfiguration"
	for name, c := range map[string]struct{ members, path string }{
		"no configuration":     {`"principalEntityType":"User"`, "configuration"},
		"no form":              {`"configuration":{}`, "configuration"},
		"both forms":           {`"configuration":{"cognitoUserPoolConfiguration":{` + arn + `},"openIdConnectConfiguration":{"issuer":"https://x",` + access + `}}`, "configuration"},
		"no ARN":               {cognito(`"clientIds":[]`), at + ".userPoolArn"},
		"another ARN":          {cognito(`"userPoolArn":"arn:aws:iam::123456789012:role/x"`), at + ".userPoolArn"},
		"an ARN with more":     {cognito(`"userPoolArn":"` + testPool + `/x"`), at + ".userPoolArn"},
		"an empty client":      {cognito(arn + `,"clientIds":["a",""]`), at + ".clientIds[1]"},
		"a group claim":        {cognito(arn + `,"groupConfiguration":{"groupEntityType":"G","groupClaim":"g"}`), at + ".groupConfiguration.groupClaim"},
		"a group type":         {cognito(arn + `,"groupConfiguration":{"groupEntityType":"a b"}`), at + ".groupConfiguration.groupEntityType"},
		"actions as groups":    {cognito(arn + `,"groupConfiguration":{"groupEntityType":"App::Action"}`), at + ".groupConfiguration.groupEntityType"},
		"actions as users":     {cognito(arn) + `,"principalEntityType":"Action"`, "principalEntityType"},
		"no type":              {cognito(arn) + `,"principalEntityType":""`, "principalEntityType"},
		"plain http":           {oidc("http://idp.example", access), of + ".issuer"},
		"no token selection":   {oidc("https://idp.example", `"entityIdPrefix":"x"`), of + ".tokenSelection"},
		"both kinds of token":  {oidc("https://idp.example", `"tokenSelection":{"accessTokenOnly":{"audiences":["a"]},"identityTokenOnly":{}}`), of + ".tokenSelection"},
		"no audience":          {oidc("https://idp.example", `"tokenSelection":{"accessTokenOnly":{"audiences":[]}}`), of + ".tokenSelection.accessTokenOnly.audiences"},
		"an empty claim":       {oidc("https://idp.example", `"tokenSelection":{"identityTokenOnly":{"principalIdClaim":""}}`), of + ".tokenSelection.identityTokenOnly.principalIdClaim"},
		"an empty prefix":      {oidc("https://idp.example", access+`,"entityIdPrefix":""`), of + ".entityIdPrefix"},
		"no group claim":       {oidc("https://idp.example", access+`,"groupConfiguration":{"groupEntityType":"G"}`), of + ".groupConfiguration.groupClaim"},
		"a member nobody has":  {cognito(arn + `,"clients":[]`), at + ".clients"},
		"a member twice":       {cognito(arn + `,` + arn), at + ".userPoolArn"},
		"too long a token":     {cognito(arn) + `,"clientToken":"` + strings.Repeat("a", 65) + `"`, "clientToken"},
		"too many audiences":   {oidc("https://idp.example", `"tokenSelection":{"accessTokenOnly":{"audiences":["a"`+strings.Repeat(`,"a"`, 255)+`]}}`), of + ".tokenSelection.accessTokenOnly.audiences"},
		"too long an audience": {oidc("https://idp.example", `"tokenSelection":{"accessTokenOnly":{"audiences":["`+strings.Repeat("a", 256)+`"]}}`), of + ".tokenSelection.accessTokenOnly.audiences[0]"},
	} {
		a := s.call(t, "CreateIdentitySource", `{"policyStoreId":"`+ps+`",`+c.members+`}`)
		e := a.error(t)
		if a.status != 400 || e.Type != "ValidationException" || !slices.ContainsFunc(e.FieldList, func(f fieldError) bool { return f.Path == c.path }) {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if out := must[*vp.ListIdentitySourcesOutput](t)(s.root().ListIdentitySources(ctx, &vp.ListIdentitySourcesInput{PolicyStoreId: &ps})); len(out.IdentitySources) != 0 {
		t.Errorf("something was stored: %+v", out.IdentitySources)
	}
}

// A batch's own rules: how many, about whom, and how much beside it.
func TestBatchRules(t *testing.T) {
	ctx, s := t.Context(), start(t)
	ps := newPolicyStore(ctx, t, s.root())
	item := func(user, invoice, more string) string {
		return fmt.Sprintf(`{"principal":{"entityType":"User","entityId":%q},"action":{"actionType":"Action","actionId":"view"},"resource":{"entityType":"Invoice","entityId":%q}%s}`, user, invoice, more)
	}
	crowd := func(n int, typ string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,{"identifier":{"entityType":%q,"entityId":"%d"}}`, typ, i)
		}
		return `,"entities":{"entityList":[` + strings.TrimPrefix(b.String(), ",") + `]}`
	}
	one := item("u", "i", "")
	for name, c := range map[string]struct{ requests, more, path string }{
		"one":                     {requests: one},
		"thirty":                  {requests: one + strings.Repeat(","+one, 29)},
		"thirty-one":              {requests: one + strings.Repeat(","+one, 30), path: "requests"},
		"none":                    {path: "requests"},
		"the same principal":      {requests: item("u", "i", "") + "," + item("u", "j", "")},
		"the same resource":       {requests: item("u", "i", "") + "," + item("v", "i", "")},
		"neither":                 {requests: item("u", "i", "") + "," + item("v", "j", ""), path: "requests"},
		"no action":               {requests: one + `,{"principal":{"entityType":"User","entityId":"u"},"resource":{"entityType":"Invoice","entityId":"i"}}`, path: "requests[1].action"},
		"an unknown member":       {requests: item("u", "i", `,"entities":{}`), path: "requests[0].entities"},
		"a context of two forms":  {requests: item("u", "i", `,"context":{"contextMap":{},"cedarJson":"{}"}`), path: "requests[0].context"},
		"a context that is none":  {requests: one + "," + item("u", "i", `,"context":{"contextMap":{"a":{}}}`), path: "requests[1].context.contextMap.a"},
		"a hundred principals":    {requests: one, more: crowd(100, "User")},
		"too many principals":     {requests: one, more: crowd(101, "User"), path: "entities"},
		"too many resources":      {requests: one, more: crowd(101, "Invoice"), path: "entities"},
		"too many in Cedar JSON":  {requests: one, more: `,"entities":{"cedarJson":"[` + strings.TrimPrefix(strings.Repeat(`,{\"uid\":{\"type\":\"Invoice\",\"id\":\"i\"}}`, 101), ",") + `]"}`, path: "entities"},
		"twice in Cedar JSON":     {requests: one, more: `,"entities":{"cedarJson":"[{\"uid\":{\"type\":\"Invoice\",\"id\":\"i\"},\"attrs\":{},\"parents\":[]},{\"uid\":{\"type\":\"Invoice\",\"id\":\"i\"},\"attrs\":{},\"parents\":[]}]"}`, path: "entities.cedarJson"},
		"a principal of its own":  {requests: one, more: `,"principal":{"entityType":"User","entityId":"u"}`, path: "principal"},
		"a token without the use": {requests: one, more: `,"accessToken":"a.b.c"`, path: "accessToken"},
	} {
		a := s.call(t, "BatchIsAuthorized", `{"policyStoreId":"`+ps+`","requests":[`+c.requests+`]`+c.more+`}`)
		if c.path == "" {
			if a.status != 200 {
				t.Errorf("%s: %d %s", name, a.status, a.body)
			}
			continue
		}
		e := a.error(t)
		if a.status != 400 || e.Type != "ValidationException" || !slices.ContainsFunc(e.FieldList, func(f fieldError) bool { return strings.HasPrefix(f.Path, c.path) }) {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}
