package remote

import (
	"context"
	"errors"
	"fmt"
	"time"

	avp "github.com/aws/aws-sdk-go-v2/service/verifiedpermissions"
	"github.com/aws/aws-sdk-go-v2/service/verifiedpermissions/types"

	"github.com/copse-authz/copse"
)

// ImportOptions say what of the contents is to be made too.
type ImportOptions struct {
	// Aliases makes the aliases, which are names of a whole side and may be taken there.
	Aliases bool
}

// Import makes a new policy store of contents and returns its id. It holds what the other held also
// where its own schema would refuse that today: policies are written first and the validation mode is
// set at the end, as are deletion protection and, last of all, aliases.
//
// All of it is made or nothing: with an error, the policy store that was begun is deleted again. Only
// an alias that can't be had is not an error; the report has it. NewIDs of the report leads from each
// id in the contents to the new one. With an error there is no report.
func (c *Client) Import(ctx context.Context, contents *Contents, o ImportOptions) (policyStore string, report *Report, err error) {
	if err := contents.check(); err != nil {
		return "", nil, err
	}
	// Nothing is sent before the contents are known to fit together.
	im := &importer{avp: c.avp, in: contents, report: &Report{NewIDs: map[string]string{}}}
	if err := im.create(ctx); err != nil {
		return "", nil, err
	}
	for _, step := range []func(context.Context) error{im.schema, im.templates, im.policies, im.identitySources, im.settings} {
		if err := step(ctx); err != nil {
			return "", nil, errors.Join(err, im.undo(ctx))
		}
	}
	// The new policy store is whole by now: an alias leads to all of it or is not there.
	im.aliases(ctx, o)
	im.report.note("policy store", contents.PolicyStoreID, "its id is "+im.id+" now; so are those of its policies and templates new, and all dates")
	return im.id, im.report, nil
}

// importer is one import under way; it is used once, by one goroutine.
type importer struct {
	avp    *avp.Client
	in     *Contents
	id     string
	report *Report
}

// create makes it with validation OFF, so that no order of writing is refused, and without protection,
// so that it can be taken back.
func (im *importer) create(ctx context.Context) error {
	made, err := im.avp.CreatePolicyStore(ctx, &avp.CreatePolicyStoreInput{
		ValidationSettings: &types.ValidationSettings{Mode: types.ValidationModeOff},
		Description:        optional(im.in.Description), Tags: im.in.Tags,
	})
	if err != nil {
		return fromAPI(err, "making a policy store for", im.in.PolicyStoreID)
	}
	im.id = text(made.PolicyStoreId)
	return nil
}

// undo takes back what was begun, also when the import ended because its context did.
func (im *importer) undo(ctx context.Context) error {
	// It has a time of its own: the context may be what ended the import.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	// Protection is the one setting that could stand in the way.
	_, _ = im.avp.UpdatePolicyStore(ctx, &avp.UpdatePolicyStoreInput{PolicyStoreId: &im.id,
		ValidationSettings: &types.ValidationSettings{Mode: types.ValidationModeOff}, DeletionProtection: types.DeletionProtectionDisabled})
	_, err := im.avp.DeletePolicyStore(ctx, &avp.DeletePolicyStoreInput{PolicyStoreId: &im.id})
	return fromAPI(err, "deleting the policy store that was begun,", im.id)
}

// schema is put first. With validation OFF no policy is held against it.
func (im *importer) schema(ctx context.Context) error {
	if im.in.Schema == "" {
		return nil
	}
	_, err := im.avp.PutSchema(ctx, &avp.PutSchemaInput{PolicyStoreId: &im.id, Definition: &types.SchemaDefinitionMemberCedarJson{Value: im.in.Schema}})
	return fromAPI(err, "putting the schema of", im.in.PolicyStoreID)
}

// templates come before the policies, which need their new ids.
func (im *importer) templates(ctx context.Context) error {
	for _, t := range im.in.Templates {
		made, err := im.avp.CreatePolicyTemplate(ctx, &avp.CreatePolicyTemplateInput{
			PolicyStoreId: &im.id, Name: optional(t.Name), Description: optional(t.Description), Statement: &t.Statement,
		})
		if err != nil {
			return fromAPI(err, "making template", t.ID)
		}
		im.report.NewIDs[t.ID] = text(made.PolicyTemplateId)
	}
	return nil
}

// policies are made in the order of the contents, static and linked ones: all templates are there.
func (im *importer) policies(ctx context.Context) error {
	for _, p := range im.in.Policies {
		definition := types.PolicyDefinition(&types.PolicyDefinitionMemberStatic{Value: types.StaticPolicyDefinition{
			Statement: &p.Statement, Description: optional(p.Description),
		}})
		if p.TemplateID != "" {
			// check has seen to it that there is one.
			template := im.report.NewIDs[p.TemplateID]
			definition = &types.PolicyDefinitionMemberTemplateLinked{Value: types.TemplateLinkedPolicyDefinition{
				PolicyTemplateId: &template, Principal: p.Principal.identifier(), Resource: p.Resource.identifier(),
			}}
		}
		made, err := im.avp.CreatePolicy(ctx, &avp.CreatePolicyInput{PolicyStoreId: &im.id, Name: optional(p.Name), Definition: definition})
		if err != nil {
			return fromAPI(err, "making policy", p.ID)
		}
		im.report.NewIDs[p.ID] = text(made.PolicyId)
	}
	return nil
}

// identitySources makes each with the configuration it had.
func (im *importer) identitySources(ctx context.Context) error {
	for _, s := range im.in.IdentitySources {
		// A method of nil is fine until it is called.
		configuration := s.OpenID.configuration
		if s.UserPool != nil {
			configuration = s.UserPool.configuration
		}
		made, err := im.avp.CreateIdentitySource(ctx, &avp.CreateIdentitySourceInput{
			PolicyStoreId: &im.id, PrincipalEntityType: optional(s.PrincipalType), Configuration: configuration(),
		})
		if err != nil {
			return fromAPI(err, "making identity source", s.ID)
		}
		im.report.NewIDs[s.ID] = text(made.IdentitySourceId)
	}
	return nil
}

// configuration is the pool in the API's types; the issuer is not part of them.
func (p *UserPool) configuration() types.Configuration {
	value := types.CognitoUserPoolConfiguration{UserPoolArn: &p.ARN, ClientIds: p.ClientIDs}
	if p.GroupType != "" {
		value.GroupConfiguration = &types.CognitoGroupConfiguration{GroupEntityType: &p.GroupType}
	}
	return &types.ConfigurationMemberCognitoUserPoolConfiguration{Value: value}
}

// configuration takes ID tokens unless access tokens are asked for.
func (o *OpenIDRef) configuration() types.Configuration {
	value := types.OpenIdConnectConfiguration{Issuer: &o.Issuer, EntityIdPrefix: optional(o.EntityIDPrefix)}
	if o.GroupClaim != "" {
		value.GroupConfiguration = &types.OpenIdConnectGroupConfiguration{GroupClaim: &o.GroupClaim, GroupEntityType: &o.GroupType}
	}
	value.TokenSelection = &types.OpenIdConnectTokenSelectionMemberIdentityTokenOnly{Value: types.OpenIdConnectIdentityTokenConfiguration{
		ClientIds: o.ClientIDs, PrincipalIdClaim: optional(o.PrincipalClaim),
	}}
	if o.AccessTokens {
		value.TokenSelection = &types.OpenIdConnectTokenSelectionMemberAccessTokenOnly{Value: types.OpenIdConnectAccessTokenConfiguration{
			Audiences: o.Audiences, PrincipalIdClaim: optional(o.PrincipalClaim),
		}}
	}
	return &types.ConfigurationMemberOpenIdConnectConfiguration{Value: value}
}

// settings is the last step that can fail: from here on the policy store is as the other was.
func (im *importer) settings(ctx context.Context) error {
	protection := types.DeletionProtectionDisabled
	if im.in.DeletionProtection {
		protection = types.DeletionProtectionEnabled
	}
	_, err := im.avp.UpdatePolicyStore(ctx, &avp.UpdatePolicyStoreInput{
		PolicyStoreId: &im.id, DeletionProtection: protection,
		ValidationSettings: &types.ValidationSettings{Mode: types.ValidationMode(im.in.Validation)},
	})
	return fromAPI(err, "setting the validation mode of", im.id)
}

// aliases never fails. What it could not make is in the report, each with why.
func (im *importer) aliases(ctx context.Context, o ImportOptions) {
	for _, name := range im.in.Aliases {
		if !o.Aliases {
			im.report.note("alias", name, "aliases were not asked for")
			continue
		}
		_, err := im.avp.CreatePolicyStoreAlias(ctx, &avp.CreatePolicyStoreAliasInput{AliasName: &name, PolicyStoreId: &im.id})
		switch err := fromAPI(err, "making alias", name); {
		case err == nil:
		case copse.KindOf(err) == copse.Conflict:
			im.report.note("alias", name, "the name is taken: on one side there can be only one of a name; delete the old alias, then make this one")
		default:
			im.report.note("alias", name, fmt.Sprintf("it could not be made: %s", describe(err)))
		}
	}
}
