package remote

import (
	"context"
	"fmt"
	"slices"
	"strings"

	avp "github.com/aws/aws-sdk-go-v2/service/verifiedpermissions"
	"github.com/aws/aws-sdk-go-v2/service/verifiedpermissions/types"

	"github.com/copse-authz/copse"
)

// Bounds of a page and of a batch, the API's most.
const (
	pageSize  = int32(50)
	batchSize = 100
)

// Export reads a policy store, by id or alias. It is no snapshot: what is written meanwhile may be in
// or not, and what is deleted meanwhile makes it fail with NotFound or Conflict. The contents are what
// the policy store has, whether or not its schema would take them now.
func (c *Client) Export(ctx context.Context, policyStore string) (*Contents, *Report, error) {
	// Every step reads one kind of thing; each may be of another moment.
	x := &exporter{avp: c.avp, id: &policyStore, out: &Contents{}, report: &Report{}}
	for _, step := range []func(context.Context) error{
		x.settings, x.schema, x.templates, x.policies, x.identitySources, x.aliases,
	} {
		if err := step(ctx); err != nil {
			return nil, nil, fromAPI(err, "reading policy store", policyStore)
		}
	}
	return x.out, x.report, nil
}

// exporter is one export under way; it is used once, by one goroutine.
type exporter struct {
	avp    *avp.Client
	id     *string
	out    *Contents
	report *Report
}

// settings also finds the id, where an alias was given: the later steps may go by either.
func (x *exporter) settings(ctx context.Context) error {
	got, err := x.avp.GetPolicyStore(ctx, &avp.GetPolicyStoreInput{PolicyStoreId: x.id, Tags: true})
	if err != nil {
		return err
	}
	x.out.PolicyStoreID, x.out.Description, x.out.Tags = text(got.PolicyStoreId), text(got.Description), got.Tags
	x.out.DeletionProtection = got.DeletionProtection == types.DeletionProtectionEnabled
	if got.ValidationSettings != nil {
		x.out.Validation = string(got.ValidationSettings.Mode)
	}
	if kms, ok := got.EncryptionState.(*types.EncryptionStateMemberKmsEncryptionState); ok {
		x.report.note("encryption", text(kms.Value.Key), "a key of AWS KMS is not carried: the new policy store has the default encryption of its side")
	}
	return nil
}

// schema leaves the text empty where there is none, which the API calls an error.
func (x *exporter) schema(ctx context.Context) error {
	got, err := x.avp.GetSchema(ctx, &avp.GetSchemaInput{PolicyStoreId: x.id})
	if isAbsent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	x.out.Schema = text(got.Schema)
	return nil
}

// isAbsent tells that a call found nothing.
func isAbsent(err error) bool {
	return err != nil && copse.KindOf(fromAPI(err, "", "")) == copse.NotFound
}

// templates are read one by one: lists hold no statements. They are put in order, so that two exports
// of the same are equal.
func (x *exporter) templates(ctx context.Context) error {
	size := pageSize
	for p := avp.NewListPolicyTemplatesPaginator(x.avp, &avp.ListPolicyTemplatesInput{PolicyStoreId: x.id, MaxResults: &size}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, item := range page.PolicyTemplates {
			got, err := x.avp.GetPolicyTemplate(ctx, &avp.GetPolicyTemplateInput{PolicyStoreId: x.id, PolicyTemplateId: item.PolicyTemplateId})
			if err != nil {
				return err
			}
			x.out.Templates = append(x.out.Templates, Template{
				ID: text(got.PolicyTemplateId), Name: text(got.Name), Description: text(got.Description), Statement: text(got.Statement),
			})
		}
	}
	slices.SortFunc(x.out.Templates, func(a, b Template) int { return strings.Compare(a.ID, b.ID) })
	return nil
}

// policies are read in batches, by ids that were listed before: a list holds no statements.
func (x *exporter) policies(ctx context.Context) error {
	var ids []string
	size := pageSize
	for p := avp.NewListPoliciesPaginator(x.avp, &avp.ListPoliciesInput{PolicyStoreId: x.id, MaxResults: &size}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, item := range page.Policies {
			ids = append(ids, text(item.PolicyId))
		}
	}
	slices.Sort(ids)
	for batch := range slices.Chunk(ids, batchSize) {
		requests := make([]types.BatchGetPolicyInputItem, len(batch))
		for i := range batch {
			requests[i] = types.BatchGetPolicyInputItem{PolicyStoreId: x.id, PolicyId: &batch[i]}
		}
		got, err := x.avp.BatchGetPolicy(ctx, &avp.BatchGetPolicyInput{Requests: requests})
		if err != nil {
			return err
		}
		// One that is missing could be a forbid: contents without it must not be taken for the whole.
		if len(got.Errors) > 0 || len(got.Results) != len(batch) {
			return copse.Errorf(copse.Conflict, "policies were deleted while they were read: try again")
		}
		for i := range got.Results {
			p, err := policyOf(&got.Results[i])
			if err != nil {
				return err
			}
			x.out.Policies = append(x.out.Policies, p)
		}
	}
	return nil
}

// policyOf refuses what it does not know rather than leave it out.
func policyOf(item *types.BatchGetPolicyOutputItem) (Policy, error) {
	p := Policy{ID: text(item.PolicyId), Name: text(item.Name)}
	switch d := item.Definition.(type) {
	case *types.PolicyDefinitionDetailMemberStatic:
		p.Statement, p.Description = text(d.Value.Statement), text(d.Value.Description)
	case *types.PolicyDefinitionDetailMemberTemplateLinked:
		p.TemplateID = text(d.Value.PolicyTemplateId)
		p.Principal, p.Resource = entityOf(d.Value.Principal), entityOf(d.Value.Resource)
	default:
		return p, fmt.Errorf("policy %s is of a kind that this version does not know", p.ID)
	}
	return p, nil
}

// identitySources are read one by one: what Get shows of each is what is carried.
func (x *exporter) identitySources(ctx context.Context) error {
	for p := avp.NewListIdentitySourcesPaginator(x.avp, &avp.ListIdentitySourcesInput{PolicyStoreId: x.id}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, item := range page.IdentitySources {
			got, err := x.avp.GetIdentitySource(ctx, &avp.GetIdentitySourceInput{PolicyStoreId: x.id, IdentitySourceId: item.IdentitySourceId})
			if err != nil {
				return err
			}
			s := IdentitySource{ID: text(got.IdentitySourceId), PrincipalType: text(got.PrincipalEntityType)}
			// A source of a kind that is not known would be lost with its policy store's principals.
			switch d := got.Configuration.(type) {
			case *types.ConfigurationDetailMemberCognitoUserPoolConfiguration:
				s.UserPool = userPoolOf(&d.Value)
			case *types.ConfigurationDetailMemberOpenIdConnectConfiguration:
				if s.OpenID = openIDOf(&d.Value); s.OpenID == nil {
					return fmt.Errorf("identity source %s selects tokens in a way that this version does not know", s.ID)
				}
			default:
				return fmt.Errorf("identity source %s is of a kind that this version does not know", s.ID)
			}
			x.out.IdentitySources = append(x.out.IdentitySources, s)
		}
	}
	return nil
}

// userPoolOf leaves out the issuer, which follows from the ARN.
func userPoolOf(d *types.CognitoUserPoolConfigurationDetail) *UserPool {
	pool := &UserPool{ARN: text(d.UserPoolArn), ClientIDs: d.ClientIds}
	if g := d.GroupConfiguration; g != nil {
		pool.GroupType = text(g.GroupEntityType)
	}
	return pool
}

// openIDOf keeps audiences and client ids apart, as the API does. nil when it is not known which tokens are meant:
// taken for one of the two kinds, without a client, they would be those of any client.
func openIDOf(d *types.OpenIdConnectConfigurationDetail) *OpenIDRef {
	o := &OpenIDRef{Issuer: text(d.Issuer), EntityIDPrefix: text(d.EntityIdPrefix)}
	if g := d.GroupConfiguration; g != nil {
		o.GroupClaim, o.GroupType = text(g.GroupClaim), text(g.GroupEntityType)
	}
	switch s := d.TokenSelection.(type) {
	case *types.OpenIdConnectTokenSelectionDetailMemberAccessTokenOnly:
		o.AccessTokens, o.Audiences, o.PrincipalClaim = true, s.Value.Audiences, text(s.Value.PrincipalIdClaim)
	case *types.OpenIdConnectTokenSelectionDetailMemberIdentityTokenOnly:
		o.ClientIDs, o.PrincipalClaim = s.Value.ClientIds, text(s.Value.PrincipalIdClaim)
	default:
		return nil
	}
	return o
}

// aliases leaves out those that wait for their deletion: they lead nowhere.
func (x *exporter) aliases(ctx context.Context) error {
	filter := &types.PolicyStoreAliasFilter{PolicyStoreId: &x.out.PolicyStoreID}
	for p := avp.NewListPolicyStoreAliasesPaginator(x.avp, &avp.ListPolicyStoreAliasesInput{Filter: filter}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, item := range page.PolicyStoreAliases {
			if item.State == types.AliasStateActive {
				x.out.Aliases = append(x.out.Aliases, text(item.AliasName))
			}
		}
	}
	slices.Sort(x.out.Aliases)
	return nil
}
