package conformance

import (
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	vp "github.com/aws/aws-sdk-go-v2/service/verifiedpermissions"
	"github.com/aws/aws-sdk-go-v2/service/verifiedpermissions/types"
	"github.com/go-json-experiment/json/jsontext"
)

var strict, off = &types.ValidationSettings{Mode: types.ValidationModeStrict}, &types.ValidationSettings{Mode: types.ValidationModeOff}

func (r *run) policyStores() {
	made := value[vp.CreatePolicyStoreOutput](r)(r.c.CreatePolicyStore(r.ctx, &vp.CreatePolicyStoreInput{
		ValidationSettings: off, Description: aws.String(r.name), DeletionProtection: types.DeletionProtectionEnabled,
		Tags: map[string]string{"team": "a", "empty": ""},
		EncryptionSettings: &types.EncryptionSettingsMemberKmsEncryptionSettings{Value: types.KmsEncryptionSettings{
			Key: aws.String("alias/key"), EncryptionContext: map[string]string{"of": "tests"},
		}},
	}))
	id := made.PolicyStoreId
	got := value[vp.GetPolicyStoreOutput](r)(r.c.GetPolicyStore(r.ctx, &vp.GetPolicyStoreInput{PolicyStoreId: id, Tags: true}))
	r.check(*got.Description == r.name && *got.Arn == *made.Arn && got.DeletionProtection == types.DeletionProtectionEnabled &&
		got.ValidationSettings.Mode == types.ValidationModeOff && got.CedarVersion == types.CedarVersionCedar4 && len(got.Tags) == 2, "%+v", got)
	kms, ok := got.EncryptionState.(*types.EncryptionStateMemberKmsEncryptionState)
	r.check(ok && kms.Value.EncryptionContext["of"] == "tests" && strings.Contains(*kms.Value.Key, "alias/key"), "encryption %+v", got.EncryptionState)
	bare := value[vp.GetPolicyStoreOutput](r)(r.c.GetPolicyStore(r.ctx, &vp.GetPolicyStoreInput{PolicyStoreId: id}))
	r.check(bare.Tags == nil, "tags that nobody asked for: %v", bare.Tags)

	_, err := r.c.DeletePolicyStore(r.ctx, &vp.DeletePolicyStoreInput{PolicyStoreId: id})
	throws[*types.InvalidStateException](r, err)
	value[vp.UpdatePolicyStoreOutput](r)(r.c.UpdatePolicyStore(r.ctx, &vp.UpdatePolicyStoreInput{PolicyStoreId: id, ValidationSettings: strict}))
	got = value[vp.GetPolicyStoreOutput](r)(r.c.GetPolicyStore(r.ctx, &vp.GetPolicyStoreInput{PolicyStoreId: id}))
	r.check(got.DeletionProtection == types.DeletionProtectionEnabled && *got.Description == r.name && got.ValidationSettings.Mode == types.ValidationModeStrict,
		"what an update does not name stays: %+v", got)
	value[vp.UpdatePolicyStoreOutput](r)(r.c.UpdatePolicyStore(r.ctx, &vp.UpdatePolicyStoreInput{
		PolicyStoreId: id, ValidationSettings: off, DeletionProtection: types.DeletionProtectionDisabled, Description: aws.String("changed"),
	}))
	r.tags(made.Arn)

	found := 0
	for p := vp.NewListPolicyStoresPaginator(r.c, &vp.ListPolicyStoresInput{MaxResults: aws.Int32(50)}); p.HasMorePages(); {
		page := value[vp.ListPolicyStoresOutput](r)(p.NextPage(r.ctx))
		for _, item := range page.PolicyStores {
			if *item.PolicyStoreId == *id {
				found++
				r.check(*item.Description == "changed", "listed as %+v", item)
			}
		}
	}
	r.check(found == 1, "it is listed %d times", found)
	for range 2 { // deleting what is gone is no error
		value[vp.DeletePolicyStoreOutput](r)(r.c.DeletePolicyStore(r.ctx, &vp.DeletePolicyStoreInput{PolicyStoreId: id}))
	}
	_, err = r.c.GetPolicyStore(r.ctx, &vp.GetPolicyStoreInput{PolicyStoreId: id})
	e := throws[*types.ResourceNotFoundException](r, err)
	r.check(*e.ResourceId == *id && e.ResourceType == types.ResourceTypePolicyStore, "%+v", e)
}

func (r *run) tags(arn *string) {
	value[vp.TagResourceOutput](r)(r.c.TagResource(r.ctx, &vp.TagResourceInput{ResourceArn: arn, Tags: map[string]string{"team": "b", "new": "x"}}))
	value[vp.UntagResourceOutput](r)(r.c.UntagResource(r.ctx, &vp.UntagResourceInput{ResourceArn: arn, TagKeys: []string{"empty", "never-was"}}))
	listed := value[vp.ListTagsForResourceOutput](r)(r.c.ListTagsForResource(r.ctx, &vp.ListTagsForResourceInput{ResourceArn: arn}))
	r.check(len(listed.Tags) == 2 && listed.Tags["team"] == "b" && listed.Tags["new"] == "x", "tags %v", listed.Tags)
	many := map[string]string{}
	for i := range 49 {
		many[fmt.Sprint("k", i)] = ""
	}
	_, err := r.c.TagResource(r.ctx, &vp.TagResourceInput{ResourceArn: arn, Tags: many})
	throws[*types.TooManyTagsException](r, err)
	listed = value[vp.ListTagsForResourceOutput](r)(r.c.ListTagsForResource(r.ctx, &vp.ListTagsForResourceInput{ResourceArn: arn}))
	r.check(len(listed.Tags) == 2, "a refused call left %d tags", len(listed.Tags))
}

func (r *run) aliases() {
	first, second := r.newPolicyStore(types.ValidationModeOff), r.newPolicyStore(types.ValidationModeOff)
	alias := aws.String("policy-store-alias/" + strings.ReplaceAll(r.name, " ", "_"))
	create := func(name, ps *string) (*vp.CreatePolicyStoreAliasOutput, error) {
		return r.c.CreatePolicyStoreAlias(r.ctx, &vp.CreatePolicyStoreAliasInput{AliasName: name, PolicyStoreId: ps})
	}
	made := value[vp.CreatePolicyStoreAliasOutput](r)(create(alias, first))
	again := value[vp.CreatePolicyStoreAliasOutput](r)(create(alias, first))
	r.check(*made.AliasArn == *again.AliasArn && made.CreatedAt.Equal(*again.CreatedAt), "made again: %+v, %+v", made, again)
	_, err := create(alias, second)
	throws[*types.ConflictException](r, err)
	_, err = create(aws.String(*alias+"-2"), aws.String("never-was"))
	throws[*types.ResourceNotFoundException](r, err)

	got := value[vp.GetPolicyStoreAliasOutput](r)(r.c.GetPolicyStoreAlias(r.ctx, &vp.GetPolicyStoreAliasInput{AliasName: alias}))
	r.check(*got.PolicyStoreId == *first && got.State == types.AliasStateActive, "%+v", got)
	policy := r.newPolicy(alias, static("permit (principal, action, resource);"))
	r.decides(alias, "u", "view", "1", types.DecisionAllow, policy)
	r.decides(first, "u", "view", "1", types.DecisionAllow, policy)
	value[vp.CreatePolicyStoreAliasOutput](r)(create(aws.String(*alias+"-b"), second))
	listed := value[vp.ListPolicyStoreAliasesOutput](r)(r.c.ListPolicyStoreAliases(r.ctx, &vp.ListPolicyStoreAliasesInput{
		Filter: &types.PolicyStoreAliasFilter{PolicyStoreId: first},
	}))
	r.check(len(listed.PolicyStoreAliases) == 1 && *listed.PolicyStoreAliases[0].AliasName == *alias, "listed %+v", listed.PolicyStoreAliases)

	// A soft deletion keeps the name; what it stood for can't be reached by it any more.
	remove := func(mode types.DeletionMode) {
		value[vp.DeletePolicyStoreAliasOutput](r)(r.c.DeletePolicyStoreAlias(r.ctx, &vp.DeletePolicyStoreAliasInput{AliasName: alias, DeletionMode: mode}))
	}
	remove(types.DeletionModeSoftDelete)
	got = value[vp.GetPolicyStoreAliasOutput](r)(r.c.GetPolicyStoreAlias(r.ctx, &vp.GetPolicyStoreAliasInput{AliasName: alias}))
	r.check(got.State == types.AliasStatePendingDeletion, "%+v", got)
	_, err = r.c.GetPolicyStore(r.ctx, &vp.GetPolicyStoreInput{PolicyStoreId: alias})
	throws[*types.ResourceNotFoundException](r, err)
	_, err = create(alias, second)
	throws[*types.ConflictException](r, err)
	remove(types.DeletionModeHardDelete)
	remove(types.DeletionModeHardDelete)
	_, err = r.c.GetPolicyStoreAlias(r.ctx, &vp.GetPolicyStoreAliasInput{AliasName: alias})
	throws[*types.ResourceNotFoundException](r, err)
	value[vp.CreatePolicyStoreAliasOutput](r)(create(alias, second))
	r.decides(alias, "u", "view", "1", types.DecisionDeny)
}

func (r *run) schema() {
	ps := r.newPolicyStore(types.ValidationModeOff)
	_, err := r.c.GetSchema(r.ctx, &vp.GetSchemaInput{PolicyStoreId: ps})
	e := throws[*types.ResourceNotFoundException](r, err)
	r.check(e.ResourceType == types.ResourceTypeSchema, "%+v", e)
	put := func(text string) (*vp.PutSchemaOutput, error) {
		return r.c.PutSchema(r.ctx, &vp.PutSchemaInput{PolicyStoreId: ps, Definition: &types.SchemaDefinitionMemberCedarJson{Value: text}})
	}
	two := strings.TrimSuffix(schemaJSON, "}") + `, "Office": {"entityTypes": {"Desk": {}}, "actions": {}}}`
	out := value[vp.PutSchemaOutput](r)(put(two))
	r.check(len(out.Namespaces) == 2, "namespaces %v", out.Namespaces)
	got := value[vp.GetSchemaOutput](r)(r.c.GetSchema(r.ctx, &vp.GetSchemaInput{PolicyStoreId: ps}))
	r.check(sameJSON(*got.Schema, two), "the schema comes back as %s", *got.Schema)
	_, err = put(`{"": {"entityTypes": {"A": {"memberOfTypes": ["Gone"]}}, "actions": {}}}`)
	invalid := throws[*types.ValidationException](r, err)
	r.check(len(invalid.FieldList) > 0 && *invalid.FieldList[0].Path == "definition.cedarJson", "%+v", invalid.FieldList)
	_, err = put(`{"": {"entityTypes": {"A": {"annotations": {"doc": "` + strings.Repeat("x", 100_000) + `"}}}, "actions": {}}}`)
	throws[*types.ServiceQuotaExceededException](r, err)

	// STRICT: what the schema does not allow is not stored. Without a schema nothing is allowed.
	bare := value[vp.CreatePolicyStoreOutput](r)(r.c.CreatePolicyStore(r.ctx, &vp.CreatePolicyStoreInput{ValidationSettings: strict})).PolicyStoreId
	for store, statement := range map[*string]string{
		bare: "permit (principal, action, resource);",
		r.newPolicyStore(types.ValidationModeStrict): `permit (principal is Shop::User, action == Shop::Action::"view", resource) when { principal.lavel > 1 };`,
	} {
		_, err := r.c.CreatePolicy(r.ctx, &vp.CreatePolicyInput{PolicyStoreId: store, Definition: static(statement)})
		invalid := throws[*types.ValidationException](r, err)
		r.check(len(invalid.FieldList) > 0 && *invalid.FieldList[0].Path == "definition.static.statement", "%+v", invalid.FieldList)
		r.check(*invalid.Message == "Invalid input", "message %q", *invalid.Message)
		listed := value[vp.ListPoliciesOutput](r)(r.c.ListPolicies(r.ctx, &vp.ListPoliciesInput{PolicyStoreId: store}))
		r.check(len(listed.Policies) == 0, "an invalid policy was stored")
	}
}

func (r *run) quotas() {
	ps := r.newPolicyStore(types.ValidationModeOff)
	var err error
	templates := 0
	for ; err == nil && templates < 100; templates++ {
		_, err = r.c.CreatePolicyTemplate(r.ctx, &vp.CreatePolicyTemplateInput{PolicyStoreId: ps, Statement: aws.String("permit (principal == ?principal, action, resource == ?resource);")})
	}
	e := throws[*types.ServiceQuotaExceededException](r, err)
	r.check(templates == 41 && e.ServiceCode != nil && *e.ServiceCode == "verifiedpermissions", "after %d templates: %+v", templates, e)
	aliases := 0
	for err = nil; err == nil && aliases < 100; aliases++ {
		_, err = r.c.CreatePolicyStoreAlias(r.ctx, &vp.CreatePolicyStoreAliasInput{PolicyStoreId: ps, AliasName: aws.String(fmt.Sprintf("policy-store-alias/%s-%d", strings.ReplaceAll(r.name, " ", "_"), aliases))})
	}
	throws[*types.ServiceQuotaExceededException](r, err)
	r.check(aliases == 11, "%d aliases", aliases)
	filler := `permit (principal, action, resource) when { "` + strings.Repeat("x", 9_900) + `" == "" };`
	policies := 0
	var last *string
	for err = nil; err == nil && policies < 100; policies++ {
		var out *vp.CreatePolicyOutput
		if out, err = r.c.CreatePolicy(r.ctx, &vp.CreatePolicyInput{PolicyStoreId: ps, Definition: static(filler)}); err == nil {
			last = out.PolicyId
		}
	}
	throws[*types.ServiceQuotaExceededException](r, err)
	r.check(policies >= 19 && policies <= 21, "%d policies of 10,000 bytes fit", policies)
	// As full as it is, a policy can become smaller and not larger.
	small := r.newPolicy(ps, static(`permit (principal, action, resource == Shop::Invoice::"1");`))
	r.ok(second(r.c.DeletePolicy(r.ctx, &vp.DeletePolicyInput{PolicyStoreId: ps, PolicyId: small})))
	update := func(id *string, statement string) error {
		return second(r.c.UpdatePolicy(r.ctx, &vp.UpdatePolicyInput{PolicyStoreId: ps, PolicyId: id, Definition: &types.UpdatePolicyDefinitionMemberStatic{
			Value: types.UpdateStaticPolicyDefinition{Statement: &statement}}}))
	}
	r.ok(update(last, `permit (principal, action, resource);`))
	again := r.newPolicy(ps, static(`permit (principal, action, resource) when { "`+strings.Repeat("x", 9_000)+`" == "" };`))
	throws[*types.ServiceQuotaExceededException](r, update(last, filler))
	r.ok(second(r.c.DeletePolicy(r.ctx, &vp.DeletePolicyInput{PolicyStoreId: ps, PolicyId: again})))
}

func second[T any](_ T, err error) error { return err }

// sameJSON compares texts up to white space.
func sameJSON(a, b string) bool {
	x, y := jsontext.Value(a), jsontext.Value(b)
	return x.Compact() == nil && y.Compact() == nil && string(x) == string(y)
}
