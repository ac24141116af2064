package conformance

import (
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	vp "github.com/aws/aws-sdk-go-v2/service/verifiedpermissions"
	"github.com/aws/aws-sdk-go-v2/service/verifiedpermissions/types"
)

func (r *run) update(ps, id *string, statement string) error {
	return second(r.c.UpdatePolicy(r.ctx, &vp.UpdatePolicyInput{PolicyStoreId: ps, PolicyId: id, Definition: &types.UpdatePolicyDefinitionMemberStatic{
		Value: types.UpdateStaticPolicyDefinition{Statement: &statement}}}))
}

func (r *run) staticPolicies() {
	ps := r.newPolicyStore(types.ValidationModeStrict)
	const statement = `permit (principal == Shop::User::"alice", action in [Shop::Action::"view", Shop::Action::"pay"], resource == Shop::Invoice::"1");`
	made := value[vp.CreatePolicyOutput](r)(r.c.CreatePolicy(r.ctx, &vp.CreatePolicyInput{
		PolicyStoreId: ps, Name: aws.String("name/alice"),
		Definition: &types.PolicyDefinitionMemberStatic{Value: types.StaticPolicyDefinition{Statement: aws.String(statement), Description: aws.String("of alice")}},
	}))
	r.check(made.PolicyType == types.PolicyTypeStatic && made.Effect == types.PolicyEffectPermit && *made.Principal.EntityId == "alice" &&
		*made.Resource.EntityId == "1" && len(made.Actions) == 2, "%+v", made)
	for _, id := range []*string{made.PolicyId, aws.String("name/alice")} {
		got := value[vp.GetPolicyOutput](r)(r.c.GetPolicy(r.ctx, &vp.GetPolicyInput{PolicyStoreId: ps, PolicyId: id}))
		definition, ok := got.Definition.(*types.PolicyDefinitionDetailMemberStatic)
		r.check(ok && *definition.Value.Statement == statement && *definition.Value.Description == "of alice" && *got.Name == "name/alice" && *got.PolicyId == *made.PolicyId, "%+v", got)
	}
	r.decides(ps, "alice", "view", "1", types.DecisionAllow, made.PolicyId)
	r.decides(ps, "bob", "view", "1", types.DecisionDeny)

	// The actions and the conditions of a policy may change, and what it is called.
	r.ok(r.update(ps, made.PolicyId, `permit (principal == Shop::User::"alice", action == Shop::Action::"pay", resource == Shop::Invoice::"1") when { principal has level };`))
	r.decides(ps, "alice", "view", "1", types.DecisionDeny)
	for _, other := range []string{
		`forbid (principal == Shop::User::"alice", action == Shop::Action::"pay", resource == Shop::Invoice::"1");`,
		`permit (principal == Shop::User::"bob", action == Shop::Action::"pay", resource == Shop::Invoice::"1");`,
		`permit (principal == Shop::User::"alice", action == Shop::Action::"pay", resource);`,
		`permit (principal == Shop::User::"alice", action == Shop::Action::"pay", resource == Shop::Invoice::"1") when { 1 };`,
	} {
		throws[*types.ValidationException](r, r.update(ps, made.PolicyId, other))
	}
	value[vp.UpdatePolicyOutput](r)(r.c.UpdatePolicy(r.ctx, &vp.UpdatePolicyInput{PolicyStoreId: ps, PolicyId: made.PolicyId, Name: aws.String("name/renamed")}))
	_, err := r.c.GetPolicy(r.ctx, &vp.GetPolicyInput{PolicyStoreId: ps, PolicyId: aws.String("name/alice")})
	throws[*types.ResourceNotFoundException](r, err)
	other := value[vp.CreatePolicyOutput](r)(r.c.CreatePolicy(r.ctx, &vp.CreatePolicyInput{PolicyStoreId: ps, Name: aws.String("name/other"), Definition: static(statement)}))
	_, err = r.c.UpdatePolicy(r.ctx, &vp.UpdatePolicyInput{PolicyStoreId: ps, PolicyId: other.PolicyId, Name: aws.String("name/renamed")})
	throws[*types.ConflictException](r, err)
	_, err = r.c.CreatePolicy(r.ctx, &vp.CreatePolicyInput{PolicyStoreId: ps, Name: aws.String("name/renamed"), Definition: static(statement)})
	e := throws[*types.ConflictException](r, err)
	r.check(len(e.Resources) == 1 && e.Resources[0].ResourceType == types.ResourceTypePolicy, "%+v", e.Resources)
	value[vp.UpdatePolicyOutput](r)(r.c.UpdatePolicy(r.ctx, &vp.UpdatePolicyInput{PolicyStoreId: ps, PolicyId: made.PolicyId, Name: aws.String("")}))
	got := value[vp.GetPolicyOutput](r)(r.c.GetPolicy(r.ctx, &vp.GetPolicyInput{PolicyStoreId: ps, PolicyId: made.PolicyId}))
	r.check(got.Name == nil, "the name is still %v", got.Name)

	forbid := r.newPolicy(ps, static(`forbid (principal, action == Shop::Action::"view", resource);`))
	r.decides(ps, "alice", "view", "1", types.DecisionDeny, forbid)
	for range 2 {
		value[vp.DeletePolicyOutput](r)(r.c.DeletePolicy(r.ctx, &vp.DeletePolicyInput{PolicyStoreId: ps, PolicyId: forbid}))
	}
	r.decides(ps, "alice", "view", "1", types.DecisionAllow, other.PolicyId)
}

func (r *run) templates() {
	ps := r.newPolicyStore(types.ValidationModeStrict)
	made := value[vp.CreatePolicyTemplateOutput](r)(r.c.CreatePolicyTemplate(r.ctx, &vp.CreatePolicyTemplateInput{
		PolicyStoreId: ps, Name: aws.String("name/viewer"), Description: aws.String("may look"),
		Statement: aws.String(`permit (principal == ?principal, action == Shop::Action::"view", resource == ?resource);`),
	}))
	template := made.PolicyTemplateId
	for _, id := range []*string{template, aws.String("name/viewer")} {
		got := value[vp.GetPolicyTemplateOutput](r)(r.c.GetPolicyTemplate(r.ctx, &vp.GetPolicyTemplateInput{PolicyStoreId: ps, PolicyTemplateId: id}))
		r.check(*got.PolicyTemplateId == *template && *got.Description == "may look" && *got.Name == "name/viewer" && strings.Contains(*got.Statement, "?principal"), "%+v", got)
	}
	linked := value[vp.CreatePolicyOutput](r)(r.c.CreatePolicy(r.ctx, &vp.CreatePolicyInput{
		PolicyStoreId: ps, Definition: link(template, entity("User", "alice"), entity("Invoice", "1")),
	}))
	r.check(linked.PolicyType == types.PolicyTypeTemplateLinked && *linked.Principal.EntityId == "alice" && linked.Effect == types.PolicyEffectPermit && len(linked.Actions) == 1, "%+v", linked)
	another := r.newPolicy(ps, link(aws.String("name/viewer"), entity("User", "bob"), entity("Invoice", "2")))
	r.decides(ps, "alice", "view", "1", types.DecisionAllow, linked.PolicyId)
	r.decides(ps, "alice", "view", "2", types.DecisionDeny)
	r.decides(ps, "bob", "view", "2", types.DecisionAllow, another)
	got := value[vp.GetPolicyOutput](r)(r.c.GetPolicy(r.ctx, &vp.GetPolicyInput{PolicyStoreId: ps, PolicyId: linked.PolicyId}))
	detail, ok := got.Definition.(*types.PolicyDefinitionDetailMemberTemplateLinked)
	r.check(ok && *detail.Value.PolicyTemplateId == *template && *detail.Value.Resource.EntityId == "1", "%+v", got.Definition)

	// An update reaches every link at once; the scope may not change.
	update := func(statement string) error {
		return second(r.c.UpdatePolicyTemplate(r.ctx, &vp.UpdatePolicyTemplateInput{PolicyStoreId: ps, PolicyTemplateId: template, Statement: &statement}))
	}
	r.ok(update(`permit (principal == ?principal, action == Shop::Action::"pay", resource == ?resource);`))
	r.decides(ps, "alice", "view", "1", types.DecisionDeny)
	r.decides(ps, "alice", "pay", "1", types.DecisionAllow, linked.PolicyId)
	r.decides(ps, "bob", "pay", "2", types.DecisionAllow, another)
	throws[*types.ValidationException](r, update(`forbid (principal == ?principal, action == Shop::Action::"pay", resource == ?resource);`))
	throws[*types.ValidationException](r, update(`permit (principal in ?principal, action == Shop::Action::"pay", resource == ?resource);`))
	throws[*types.ValidationException](r, r.update(ps, linked.PolicyId, `permit (principal, action, resource);`))

	for _, statement := range []string{
		`permit (principal == ?principal, action, resource) when { resource == ?resource };`,
		`permit (principal == ?resource, action, resource == ?principal);`,
		`permit (principal == ?principal, action == Shop::Action::"view", resource == ?resource) when { principal.lavel > 1 };`,
	} {
		_, err := r.c.CreatePolicyTemplate(r.ctx, &vp.CreatePolicyTemplateInput{PolicyStoreId: ps, Statement: &statement})
		e := throws[*types.ValidationException](r, err)
		r.check(len(e.FieldList) > 0 && *e.FieldList[0].Path == "statement", "%+v", e.FieldList)
	}
	_, err := r.c.CreatePolicyTemplate(r.ctx, &vp.CreatePolicyTemplateInput{PolicyStoreId: ps, Name: aws.String("name/viewer"),
		Statement: aws.String(`permit (principal == ?principal, action, resource == ?resource);`)})
	throws[*types.ConflictException](r, err)
	second := r.newTemplate(ps, `permit (principal in ?principal, action, resource == ?resource);`)
	_, err = r.c.UpdatePolicyTemplate(r.ctx, &vp.UpdatePolicyTemplateInput{PolicyStoreId: ps, PolicyTemplateId: second, Name: aws.String("name/viewer"),
		Statement: aws.String(`permit (principal in ?principal, action, resource == ?resource);`)})
	throws[*types.ConflictException](r, err)
	_, err = r.c.CreatePolicy(r.ctx, &vp.CreatePolicyInput{PolicyStoreId: ps, Definition: link(aws.String("never-was"), entity("User", "u"), entity("Invoice", "1"))})
	throws[*types.ResourceNotFoundException](r, err)

	listed := value[vp.ListPolicyTemplatesOutput](r)(r.c.ListPolicyTemplates(r.ctx, &vp.ListPolicyTemplatesInput{PolicyStoreId: ps}))
	r.check(len(listed.PolicyTemplates) == 2, "%d templates are listed", len(listed.PolicyTemplates))
	value[vp.DeletePolicyTemplateOutput](r)(r.c.DeletePolicyTemplate(r.ctx, &vp.DeletePolicyTemplateInput{PolicyStoreId: ps, PolicyTemplateId: template}))
	r.decides(ps, "alice", "pay", "1", types.DecisionDeny)
	_, err = r.c.GetPolicy(r.ctx, &vp.GetPolicyInput{PolicyStoreId: ps, PolicyId: linked.PolicyId})
	throws[*types.ResourceNotFoundException](r, err)
}

func (r *run) batchGet() {
	first, other := r.newPolicyStore(types.ValidationModeOff), r.newPolicyStore(types.ValidationModeOff)
	a := r.newPolicy(first, static("permit (principal, action, resource);"))
	template := r.newTemplate(other, "permit (principal == ?principal, action, resource == ?resource);")
	b := r.newPolicy(other, link(template, entity("User", "u"), entity("Invoice", "1")))
	item := func(ps, policy *string) types.BatchGetPolicyInputItem {
		return types.BatchGetPolicyInputItem{PolicyStoreId: ps, PolicyId: policy}
	}
	out := value[vp.BatchGetPolicyOutput](r)(r.c.BatchGetPolicy(r.ctx, &vp.BatchGetPolicyInput{Requests: []types.BatchGetPolicyInputItem{
		item(first, a), item(other, b), item(first, b), item(aws.String("never-was"), a), item(aws.String("policy-store-alias/never-was"), a),
	}}))
	r.check(len(out.Results) == 2 && *out.Results[0].PolicyId == *a && *out.Results[1].PolicyId == *b, "results %+v", out.Results)
	var codes []types.BatchGetPolicyErrorCode
	for _, e := range out.Errors {
		codes = append(codes, e.Code)
	}
	slices.Sort(codes)
	r.check(slices.Equal(codes, []types.BatchGetPolicyErrorCode{types.BatchGetPolicyErrorCodePolicyNotFound,
		types.BatchGetPolicyErrorCodePolicyStoreAliasNotFound, types.BatchGetPolicyErrorCodePolicyStoreNotFound}), "errors %v", codes)
}

func (r *run) paging() {
	ps := r.newPolicyStore(types.ValidationModeOff)
	template := r.newTemplate(ps, "permit (principal == ?principal, action, resource == ?resource);")
	var want []string
	for i := range 12 {
		want = append(want, *r.newPolicy(ps, static(fmt.Sprintf(`permit (principal, action, resource == Shop::Invoice::"%d");`, i))))
	}
	var links []string
	for i := range 5 {
		links = append(links, *r.newPolicy(ps, link(template, entity("User", fmt.Sprint("u", i)), entity("Invoice", "1"))))
	}
	list := func(filter *types.PolicyFilter, write bool) (ids []string, pages int) {
		for p := vp.NewListPoliciesPaginator(r.c, &vp.ListPoliciesInput{PolicyStoreId: ps, Filter: filter, MaxResults: aws.Int32(3)}); p.HasMorePages(); pages++ {
			for _, item := range value[vp.ListPoliciesOutput](r)(p.NextPage(r.ctx)).Policies {
				ids = append(ids, *item.PolicyId)
			}
			if write { // what comes and goes meanwhile changes nothing of the rest
				gone := r.newPolicy(ps, static("forbid (principal, action, resource);"))
				r.ok(second(r.c.DeletePolicy(r.ctx, &vp.DeletePolicyInput{PolicyStoreId: ps, PolicyId: gone})))
			}
		}
		slices.Sort(ids)
		return ids, pages
	}
	slices.Sort(want)
	slices.Sort(links)
	all := append(slices.Clone(want), links...)
	slices.Sort(all)
	ids, pages := list(nil, true)
	r.check(slices.Equal(ids, all) && pages >= 6, "%d of %d policies on %d pages", len(ids), len(all), pages)
	for name, c := range map[string]struct {
		filter *types.PolicyFilter
		want   []string
	}{
		"static":      {&types.PolicyFilter{PolicyType: types.PolicyTypeStatic}, want},
		"linked":      {&types.PolicyFilter{PolicyType: types.PolicyTypeTemplateLinked}, links},
		"template":    {&types.PolicyFilter{PolicyTemplateId: template}, links},
		"unspecified": {&types.PolicyFilter{Principal: &types.EntityReferenceMemberUnspecified{Value: true}}, want},
		"principal":   {&types.PolicyFilter{Principal: &types.EntityReferenceMemberIdentifier{Value: *entity("User", "u9")}}, nil},
	} {
		ids, _ := list(c.filter, false)
		r.check(slices.Equal(ids, c.want), "filter %s: %v, want %v", name, ids, c.want)
	}
	first := value[vp.ListPoliciesOutput](r)(r.c.ListPolicies(r.ctx, &vp.ListPoliciesInput{PolicyStoreId: ps, MaxResults: aws.Int32(1)}))
	_, err := r.c.ListPolicyTemplates(r.ctx, &vp.ListPolicyTemplatesInput{PolicyStoreId: ps, NextToken: first.NextToken})
	throws[*types.ValidationException](r, err)
	_, err = r.c.ListPolicies(r.ctx, &vp.ListPoliciesInput{PolicyStoreId: ps, NextToken: aws.String(*first.NextToken + "A")})
	throws[*types.ValidationException](r, err)
}

// clientTokens: a call repeated with its token takes effect once; with other parameters it is refused.
func (r *run) clientTokens() {
	token := aws.String("token-" + strings.ReplaceAll(r.name, " ", "-"))
	createStore := func(mode *types.ValidationSettings) (*vp.CreatePolicyStoreOutput, error) {
		return r.c.CreatePolicyStore(r.ctx, &vp.CreatePolicyStoreInput{ValidationSettings: mode, ClientToken: token})
	}
	ps := value[vp.CreatePolicyStoreOutput](r)(createStore(off)).PolicyStoreId
	again := value[vp.CreatePolicyStoreOutput](r)(createStore(off)).PolicyStoreId
	r.check(*ps == *again, "the same call made %s and %s", *ps, *again)
	throws[*types.ConflictException](r, second(createStore(strict)))

	createPolicy := func(statement string) (*vp.CreatePolicyOutput, error) {
		return r.c.CreatePolicy(r.ctx, &vp.CreatePolicyInput{PolicyStoreId: ps, Definition: static(statement), ClientToken: token})
	}
	policy := value[vp.CreatePolicyOutput](r)(createPolicy("permit (principal, action, resource);")).PolicyId
	r.check(*policy == *value[vp.CreatePolicyOutput](r)(createPolicy("permit (principal, action, resource);")).PolicyId, "two policies")
	throws[*types.ConflictException](r, second(createPolicy("forbid (principal, action, resource);")))

	createTemplate := func(description string) (*vp.CreatePolicyTemplateOutput, error) {
		return r.c.CreatePolicyTemplate(r.ctx, &vp.CreatePolicyTemplateInput{PolicyStoreId: ps, ClientToken: token, Description: &description,
			Statement: aws.String("permit (principal == ?principal, action, resource == ?resource);")})
	}
	template := value[vp.CreatePolicyTemplateOutput](r)(createTemplate("a")).PolicyTemplateId
	r.check(*template == *value[vp.CreatePolicyTemplateOutput](r)(createTemplate("a")).PolicyTemplateId, "two templates")
	throws[*types.ConflictException](r, second(createTemplate("b")))

	createSource := func(client string) (*vp.CreateIdentitySourceOutput, error) {
		return r.c.CreateIdentitySource(r.ctx, &vp.CreateIdentitySourceInput{PolicyStoreId: ps, ClientToken: token, Configuration: userPool(client)})
	}
	source := value[vp.CreateIdentitySourceOutput](r)(createSource("a")).IdentitySourceId
	r.check(*source == *value[vp.CreateIdentitySourceOutput](r)(createSource("a")).IdentitySourceId, "two identity sources")
	throws[*types.ConflictException](r, second(createSource("b")))
}

// absentThings asks each operation for something that is not there.
func (r *run) absentThings() {
	ps, gone := r.newPolicyStore(types.ValidationModeOff), aws.String("never-was")
	who, what, act := entity("User", "u"), entity("Invoice", "1"), action("view")
	token := aws.String(r.issuer.token(r.t, "access", nil))
	statement := aws.String("permit (principal == ?principal, action, resource == ?resource);")
	arn := aws.String("arn:aws:verifiedpermissions::000000000000:policy-store/never-was")
	for name, err := range map[string]error{
		"GetPolicyStore":         second(r.c.GetPolicyStore(r.ctx, &vp.GetPolicyStoreInput{PolicyStoreId: gone})),
		"UpdatePolicyStore":      second(r.c.UpdatePolicyStore(r.ctx, &vp.UpdatePolicyStoreInput{PolicyStoreId: gone, ValidationSettings: off})),
		"GetSchema":              second(r.c.GetSchema(r.ctx, &vp.GetSchemaInput{PolicyStoreId: gone})),
		"PutSchema":              second(r.c.PutSchema(r.ctx, &vp.PutSchemaInput{PolicyStoreId: gone, Definition: &types.SchemaDefinitionMemberCedarJson{Value: schemaJSON}})),
		"CreatePolicy":           second(r.c.CreatePolicy(r.ctx, &vp.CreatePolicyInput{PolicyStoreId: gone, Definition: static("permit (principal, action, resource);")})),
		"GetPolicy":              second(r.c.GetPolicy(r.ctx, &vp.GetPolicyInput{PolicyStoreId: ps, PolicyId: gone})),
		"UpdatePolicy":           r.update(ps, gone, "permit (principal, action, resource);"),
		"DeletePolicy":           second(r.c.DeletePolicy(r.ctx, &vp.DeletePolicyInput{PolicyStoreId: gone, PolicyId: gone})),
		"ListPolicies":           second(r.c.ListPolicies(r.ctx, &vp.ListPoliciesInput{PolicyStoreId: gone})),
		"CreatePolicyTemplate":   second(r.c.CreatePolicyTemplate(r.ctx, &vp.CreatePolicyTemplateInput{PolicyStoreId: gone, Statement: statement})),
		"GetPolicyTemplate":      second(r.c.GetPolicyTemplate(r.ctx, &vp.GetPolicyTemplateInput{PolicyStoreId: ps, PolicyTemplateId: gone})),
		"UpdatePolicyTemplate":   second(r.c.UpdatePolicyTemplate(r.ctx, &vp.UpdatePolicyTemplateInput{PolicyStoreId: ps, PolicyTemplateId: gone, Statement: statement})),
		"DeletePolicyTemplate":   second(r.c.DeletePolicyTemplate(r.ctx, &vp.DeletePolicyTemplateInput{PolicyStoreId: ps, PolicyTemplateId: gone})),
		"ListPolicyTemplates":    second(r.c.ListPolicyTemplates(r.ctx, &vp.ListPolicyTemplatesInput{PolicyStoreId: gone})),
		"CreateIdentitySource":   second(r.c.CreateIdentitySource(r.ctx, &vp.CreateIdentitySourceInput{PolicyStoreId: gone, Configuration: userPool("c")})),
		"GetIdentitySource":      second(r.c.GetIdentitySource(r.ctx, &vp.GetIdentitySourceInput{PolicyStoreId: ps, IdentitySourceId: gone})),
		"UpdateIdentitySource":   second(r.c.UpdateIdentitySource(r.ctx, &vp.UpdateIdentitySourceInput{PolicyStoreId: ps, IdentitySourceId: gone, UpdateConfiguration: updatedUserPool("c")})),
		"DeleteIdentitySource":   second(r.c.DeleteIdentitySource(r.ctx, &vp.DeleteIdentitySourceInput{PolicyStoreId: ps, IdentitySourceId: gone})),
		"ListIdentitySources":    second(r.c.ListIdentitySources(r.ctx, &vp.ListIdentitySourcesInput{PolicyStoreId: gone})),
		"GetPolicyStoreAlias":    second(r.c.GetPolicyStoreAlias(r.ctx, &vp.GetPolicyStoreAliasInput{AliasName: aws.String("policy-store-alias/never-was")})),
		"CreatePolicyStoreAlias": second(r.c.CreatePolicyStoreAlias(r.ctx, &vp.CreatePolicyStoreAliasInput{AliasName: aws.String("policy-store-alias/of-nothing"), PolicyStoreId: gone})),
		"IsAuthorized":           second(r.c.IsAuthorized(r.ctx, &vp.IsAuthorizedInput{PolicyStoreId: gone, Principal: who, Action: act, Resource: what})),
		"BatchIsAuthorized": second(r.c.BatchIsAuthorized(r.ctx, &vp.BatchIsAuthorizedInput{PolicyStoreId: gone,
			Requests: []types.BatchIsAuthorizedInputItem{{Principal: who, Action: act, Resource: what}}})),
		"IsAuthorizedWithToken": second(r.c.IsAuthorizedWithToken(r.ctx, &vp.IsAuthorizedWithTokenInput{PolicyStoreId: gone, AccessToken: token, Action: act, Resource: what})),
		"BatchIsAuthorizedWithToken": second(r.c.BatchIsAuthorizedWithToken(r.ctx, &vp.BatchIsAuthorizedWithTokenInput{PolicyStoreId: gone, AccessToken: token,
			Requests: []types.BatchIsAuthorizedWithTokenInputItem{{Action: act, Resource: what}}})),
		"ListTagsForResource": second(r.c.ListTagsForResource(r.ctx, &vp.ListTagsForResourceInput{ResourceArn: arn})),
		"TagResource":         second(r.c.TagResource(r.ctx, &vp.TagResourceInput{ResourceArn: arn, Tags: map[string]string{"a": "b"}})),
		"UntagResource":       second(r.c.UntagResource(r.ctx, &vp.UntagResourceInput{ResourceArn: arn, TagKeys: []string{"a"}})),
	} {
		r.t.Log(name)
		e := throws[*types.ResourceNotFoundException](r, err)
		r.check(*e.ResourceId != "" && e.ResourceType != "", "%s: %+v", name, e)
	}
	// Without an exception: what is gone needs no deletion.
	r.ok(second(r.c.DeletePolicy(r.ctx, &vp.DeletePolicyInput{PolicyStoreId: ps, PolicyId: gone})))
	r.ok(second(r.c.DeletePolicyStore(r.ctx, &vp.DeletePolicyStoreInput{PolicyStoreId: gone})))
	r.ok(second(r.c.DeletePolicyStoreAlias(r.ctx, &vp.DeletePolicyStoreAliasInput{AliasName: aws.String("policy-store-alias/never-was")})))
}
