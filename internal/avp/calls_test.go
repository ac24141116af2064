package avp

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	vp "github.com/aws/aws-sdk-go-v2/service/verifiedpermissions"
	"github.com/aws/aws-sdk-go-v2/service/verifiedpermissions/types"
)

// identityCalls is a call of each operation on identity sources, and of each that decides by token or in
// a batch, for the test of scopes and verbs.
func identityCalls(ctx context.Context, c *vp.Client, policyStore string) map[string]func() error {
	id := &policyStore
	source := aws.String("ISnone")
	oidc := types.OpenIdConnectConfiguration{Issuer: aws.String("https://idp.example"),
		TokenSelection: &types.OpenIdConnectTokenSelectionMemberAccessTokenOnly{Value: types.OpenIdConnectAccessTokenConfiguration{Audiences: []string{"api"}}}}
	token := aws.String("e30.e30.c2ln")
	return map[string]func() error{
		"CreateIdentitySource": func() error {
			_, err := c.CreateIdentitySource(ctx, &vp.CreateIdentitySourceInput{PolicyStoreId: id,
				Configuration: &types.ConfigurationMemberOpenIdConnectConfiguration{Value: oidc}})
			return err
		},
		"GetIdentitySource": func() error {
			_, err := c.GetIdentitySource(ctx, &vp.GetIdentitySourceInput{PolicyStoreId: id, IdentitySourceId: source})
			return err
		},
		"UpdateIdentitySource": func() error {
			_, err := c.UpdateIdentitySource(ctx, &vp.UpdateIdentitySourceInput{PolicyStoreId: id, IdentitySourceId: source,
				UpdateConfiguration: &types.UpdateConfigurationMemberOpenIdConnectConfiguration{Value: types.UpdateOpenIdConnectConfiguration{
					Issuer: aws.String("https://idp.example"),
					TokenSelection: &types.UpdateOpenIdConnectTokenSelectionMemberAccessTokenOnly{
						Value: types.UpdateOpenIdConnectAccessTokenConfiguration{Audiences: []string{"api"}}}}}})
			return err
		},
		"DeleteIdentitySource": func() error {
			_, err := c.DeleteIdentitySource(ctx, &vp.DeleteIdentitySourceInput{PolicyStoreId: id, IdentitySourceId: source})
			return err
		},
		"ListIdentitySources": func() error {
			_, err := c.ListIdentitySources(ctx, &vp.ListIdentitySourcesInput{PolicyStoreId: id})
			return err
		},
		"BatchIsAuthorized": func() error {
			_, err := c.BatchIsAuthorized(ctx, &vp.BatchIsAuthorizedInput{PolicyStoreId: id, Requests: []types.BatchIsAuthorizedInputItem{
				{Principal: entity("User", "u"), Action: action("view"), Resource: entity("Invoice", "i")}}})
			return err
		},
		"IsAuthorizedWithToken": func() error {
			_, err := c.IsAuthorizedWithToken(ctx, &vp.IsAuthorizedWithTokenInput{PolicyStoreId: id, AccessToken: token,
				Action: action("view"), Resource: entity("Invoice", "i")})
			return err
		},
		"BatchIsAuthorizedWithToken": func() error {
			_, err := c.BatchIsAuthorizedWithToken(ctx, &vp.BatchIsAuthorizedWithTokenInput{PolicyStoreId: id, AccessToken: token,
				Requests: []types.BatchIsAuthorizedWithTokenInputItem{{Action: action("view"), Resource: entity("Invoice", "i")}}})
			return err
		},
	}
}
