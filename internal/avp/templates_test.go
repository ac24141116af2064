package avp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	vp "github.com/aws/aws-sdk-go-v2/service/verifiedpermissions"
	"github.com/aws/aws-sdk-go-v2/service/verifiedpermissions/types"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
)

const (
	viewTemplate  = `permit (principal == ?principal, action == Action::"view", resource in ?resource);`
	ownerTemplate = `permit (principal in ?principal, action == Action::"view", resource is Invoice) when { resource.owner == principal };`
)

func newTemplate(ctx context.Context, t *testing.T, c *vp.Client, policyStore, name, statement string) string {
	t.Helper()
	in := &vp.CreatePolicyTemplateInput{PolicyStoreId: &policyStore, Statement: &statement}
	if name != "" {
		in.Name = aws.String("name/" + name)
	}
	return *must[*vp.CreatePolicyTemplateOutput](t)(c.CreatePolicyTemplate(ctx, in)).PolicyTemplateId
}

func linkInput(policyStore, template string, principal, resource *types.EntityIdentifier) *vp.CreatePolicyInput {
	return &vp.CreatePolicyInput{PolicyStoreId: &policyStore, Definition: &types.PolicyDefinitionMemberTemplateLinked{
		Value: types.TemplateLinkedPolicyDefinition{PolicyTemplateId: &template, Principal: principal, Resource: resource}}}
}

func batchGet(ctx context.Context, t *testing.T, c *vp.Client, storeAndPolicy ...string) *vp.BatchGetPolicyOutput {
	t.Helper()
	in := &vp.BatchGetPolicyInput{}
	for i := 0; i < len(storeAndPolicy); i += 2 {
		in.Requests = append(in.Requests, types.BatchGetPolicyInputItem{PolicyStoreId: &storeAndPolicy[i], PolicyId: &storeAndPolicy[i+1]})
	}
	return must[*vp.BatchGetPolicyOutput](t)(c.BatchGetPolicy(ctx, in))
}

// mayView asks with an invoice of alice's, mfa given.
func mayView(ctx context.Context, t *testing.T, c *vp.Client, policyStore, user, invoice string) (types.Decision, []string) {
	t.Helper()
	out := must[*vp.IsAuthorizedOutput](t)(c.IsAuthorized(ctx, &vp.IsAuthorizedInput{
		PolicyStoreId: &policyStore, Principal: entity("User", user), Action: action("view"), Resource: entity("Invoice", invoice),
		Context: &types.ContextDefinitionMemberContextMap{Value: map[string]types.AttributeValue{"mfa": &types.AttributeValueMemberBoolean{Value: true}}},
		Entities: &types.EntitiesDefinitionMemberEntityList{Value: []types.EntityItem{
			{Identifier: entity("Invoice", invoice), Attributes: map[string]types.AttributeValue{"owner": &types.AttributeValueMemberEntityIdentifier{Value: *entity("User", "alice")}}},
		}},
	}))
	var by []string
	for _, p := range out.DeterminingPolicies {
		by = append(by, *p.PolicyId)
	}
	return out.Decision, by
}

func TestPolicyTemplatesWithTheSDK(t *testing.T) {
	ctx, s := t.Context(), start(t)
	c := s.root()
	ps := newPolicyStore(ctx, t, c)
	made := must[*vp.CreatePolicyTemplateOutput](t)(c.CreatePolicyTemplate(ctx, &vp.CreatePolicyTemplateInput{
		PolicyStoreId: &ps, Statement: aws.String(viewTemplate), Name: aws.String("name/viewers"), Description: aws.String("who may view"), ClientToken: aws.String("t"),
	}))
	again := must[*vp.CreatePolicyTemplateOutput](t)(c.CreatePolicyTemplate(ctx, &vp.CreatePolicyTemplateInput{
		PolicyStoreId: &ps, Statement: aws.String(viewTemplate), Name: aws.String("name/viewers"), Description: aws.String("who may view"), ClientToken: aws.String("t"),
	}))
	if *again.PolicyTemplateId != *made.PolicyTemplateId || !again.CreatedDate.Equal(*made.CreatedDate) || *made.PolicyStoreId != ps {
		t.Errorf("CreatePolicyTemplate: %+v, then %+v", made, again)
	}
	id := *made.PolicyTemplateId
	for _, by := range []string{id, "name/viewers"} {
		got := must[*vp.GetPolicyTemplateOutput](t)(c.GetPolicyTemplate(ctx, &vp.GetPolicyTemplateInput{PolicyStoreId: &ps, PolicyTemplateId: &by}))
		if *got.PolicyTemplateId != id || *got.Statement != viewTemplate || *got.Description != "who may view" || *got.Name != "name/viewers" {
			t.Errorf("GetPolicyTemplate %s: %+v", by, got)
		}
	}

	in := linkInput(ps, "name/viewers", entity("User", "bob"), entity("Invoice", "i1"))
	in.Name, in.ClientToken = aws.String("name/bob-views"), aws.String("link-1")
	link := must[*vp.CreatePolicyOutput](t)(c.CreatePolicy(ctx, in))
	if link.PolicyType != types.PolicyTypeTemplateLinked || link.Effect != types.PolicyEffectPermit || *link.Principal.EntityId != "bob" ||
		*link.Resource.EntityId != "i1" || len(link.Actions) != 1 || *link.Actions[0].ActionId != "view" {
		t.Errorf("CreatePolicy: %+v", link)
	}
	if same := must[*vp.CreatePolicyOutput](t)(c.CreatePolicy(ctx, in)); *same.PolicyId != *link.PolicyId || len(same.Actions) != 1 {
		t.Errorf("repeated: %+v", same)
	}
	for _, by := range []string{*link.PolicyId, "name/bob-views"} {
		got := must[*vp.GetPolicyOutput](t)(c.GetPolicy(ctx, &vp.GetPolicyInput{PolicyStoreId: &ps, PolicyId: &by}))
		def, ok := got.Definition.(*types.PolicyDefinitionDetailMemberTemplateLinked)
		if !ok || *def.Value.PolicyTemplateId != id || *def.Value.Principal.EntityId != "bob" || *def.Value.Resource.EntityId != "i1" || len(got.Actions) != 1 {
			t.Errorf("GetPolicy: %+v", got)
		}
	}
	if d, by := mayView(ctx, t, c, ps, "bob", "i1"); d != types.DecisionAllow || !slices.Equal(by, []string{*link.PolicyId}) {
		t.Errorf("%s by %v", d, by)
	}

	// An update reaches the link before it is answered, and shows in what the link answers.
	must[*vp.UpdatePolicyTemplateOutput](t)(c.UpdatePolicyTemplate(ctx, &vp.UpdatePolicyTemplateInput{PolicyStoreId: &ps, PolicyTemplateId: aws.String("name/viewers"), Name: aws.String(""),
		Statement: aws.String(`permit (principal == ?principal, action in [Action::"view", Action::"pay"], resource in ?resource) when { resource.owner == principal };`)}))
	if d, _ := mayView(ctx, t, c, ps, "bob", "i1"); d != types.DecisionDeny {
		t.Errorf("after the update: %s", d)
	}
	if got := must[*vp.GetPolicyOutput](t)(c.GetPolicy(ctx, &vp.GetPolicyInput{PolicyStoreId: &ps, PolicyId: link.PolicyId})); len(got.Actions) != 2 {
		t.Errorf("actions after the update: %+v", got.Actions)
	}
	if got := must[*vp.GetPolicyTemplateOutput](t)(c.GetPolicyTemplate(ctx, &vp.GetPolicyTemplateInput{PolicyStoreId: &ps, PolicyTemplateId: &id})); got.Name != nil || *got.Description != "who may view" {
		t.Errorf("an empty name clears it, an absent description keeps it: %+v", got)
	}
	// A link's name is all that can be updated of it.
	must[*vp.UpdatePolicyOutput](t)(c.UpdatePolicy(ctx, &vp.UpdatePolicyInput{PolicyStoreId: &ps, PolicyId: link.PolicyId, Name: aws.String("name/other")}))
	_, err := c.UpdatePolicy(ctx, &vp.UpdatePolicyInput{PolicyStoreId: &ps, PolicyId: link.PolicyId, Definition: &types.UpdatePolicyDefinitionMemberStatic{
		Value: types.UpdateStaticPolicyDefinition{Statement: aws.String(`permit (principal == User::"bob", action, resource == Invoice::"i1");`)}}})
	wantInvalid(t, err, "definition")

	// Its deletion takes the link along, and the link's name is free.
	must[*vp.DeletePolicyTemplateOutput](t)(c.DeletePolicyTemplate(ctx, &vp.DeletePolicyTemplateInput{PolicyStoreId: &ps, PolicyTemplateId: &id}))
	_, err = c.GetPolicy(ctx, &vp.GetPolicyInput{PolicyStoreId: &ps, PolicyId: link.PolicyId})
	wantNotFound(t, err, types.ResourceTypePolicy, *link.PolicyId)
	newPolicy(ctx, t, c, ps, "other", `permit (principal, action == Action::"view", resource);`)
	_, err = c.DeletePolicyTemplate(ctx, &vp.DeletePolicyTemplateInput{PolicyStoreId: &ps, PolicyTemplateId: &id})
	wantNotFound(t, err, types.ResourceTypePolicyTemplate, id)
}

func wantInvalid(t *testing.T, err error, path string, parts ...string) {
	t.Helper()
	e, ok := errors.AsType[*types.ValidationException](err)
	if !ok || *e.Message != "Invalid input" || len(e.FieldList) == 0 || *e.FieldList[0].Path != path {
		t.Errorf("got %v %+v, want a finding at %s", err, e, path)
		return
	}
	for _, part := range parts {
		if !strings.Contains(*e.FieldList[0].Message, part) {
			t.Errorf("%q does not mention %q", *e.FieldList[0].Message, part)
		}
	}
}

func wantNotFound(t *testing.T, err error, resource types.ResourceType, id string) {
	t.Helper()
	e, ok := errors.AsType[*types.ResourceNotFoundException](err)
	if !ok || e.ResourceType != resource || *e.ResourceId != id {
		t.Errorf("got %v %+v, want no %s %s", err, e, resource, id)
	}
}

func TestTemplateExceptionsWithTheSDK(t *testing.T) {
	ctx, s := t.Context(), start(t)
	c := s.root()
	ps := newPolicyStore(ctx, t, c)
	create := func(statement string) error {
		_, err := c.CreatePolicyTemplate(ctx, &vp.CreatePolicyTemplateInput{PolicyStoreId: &ps, Statement: &statement})
		return err
	}
	for name, statement := range map[string]string{
		"unconstrained resource":  `permit (principal == ?principal, action == Action::"view", resource);`,
		"unconstrained principal": `permit (principal, action == Action::"view", resource == ?resource);`,
		"no slot":                 `permit (principal == User::"a", action == Action::"view", resource == Invoice::"i");`,
		"slot in a condition":     `permit (principal == ?principal, action == Action::"view", resource == ?resource) when { resource == ?resource };`,
		"does not parse":          `permit (principal == ?principal, action == Action::"view" resource == ?resource);`,
		"breaks the schema":       `permit (principal == ?principal, action == Action::"view", resource == ?resource) when { resource.onwer == principal };`,
		"two of them":             viewTemplate + viewTemplate,
	} {
		t.Run(name, func(t *testing.T) { wantInvalid(t, create(statement), "statement", "line 1") })
	}
	if page := must[*vp.ListPolicyTemplatesOutput](t)(c.ListPolicyTemplates(ctx, &vp.ListPolicyTemplatesInput{PolicyStoreId: &ps})); len(page.PolicyTemplates) != 0 {
		t.Errorf("something was stored: %+v", page)
	}
	viewers, owners := newTemplate(ctx, t, c, ps, "viewers", viewTemplate), newTemplate(ctx, t, c, ps, "owners", ownerTemplate)
	_, err := c.CreatePolicyTemplate(ctx, &vp.CreatePolicyTemplateInput{PolicyStoreId: &ps, Statement: aws.String(viewTemplate), Name: aws.String("name/viewers")})
	wantConflict(t, err, types.ResourceTypePolicyTemplate, "name/viewers")
	newPolicy(ctx, t, c, ps, "viewers", `permit (principal, action == Action::"view", resource);`) // policies have names of their own

	user, invoice := entity("User", "bob"), entity("Invoice", "i1")
	for name, test := range map[string]struct {
		template            string
		principal, resource *types.EntityIdentifier
		path                string
	}{
		"a slot is empty":          {viewers, user, nil, "definition.templateLinked"},
		"both are":                 {viewers, nil, nil, "definition.templateLinked"},
		"there is no such slot":    {owners, user, invoice, "definition.templateLinked"},
		"type unknown":             {viewers, entity("Robot", "r"), invoice, "definition.templateLinked"},
		"type of no action":        {viewers, invoice, user, "definition.templateLinked"},
		"not a type":               {viewers, entity("not a type", "r"), invoice, "definition.templateLinked"},
		"no template is named":     {"", user, invoice, "definition.templateLinked.policyTemplateId"},
		"an identifier is missing": {viewers, entity("User", ""), invoice, "definition.templateLinked.principal.entityId"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.CreatePolicy(ctx, linkInput(ps, test.template, test.principal, test.resource))
			wantInvalid(t, err, test.path)
		})
	}
	_, err = c.CreatePolicy(ctx, linkInput(ps, "name/nobody", user, invoice))
	wantNotFound(t, err, types.ResourceTypePolicyTemplate, "name/nobody")
	for name, statement := range map[string]string{
		"effect":    strings.Replace(viewTemplate, "permit", "forbid", 1),
		"principal": strings.Replace(viewTemplate, "principal ==", "principal in", 1),
		"resource":  strings.Replace(viewTemplate, "resource in ?resource", `resource == Invoice::"i1"`, 1),
	} {
		t.Run("update of the "+name, func(t *testing.T) {
			_, err := c.UpdatePolicyTemplate(ctx, &vp.UpdatePolicyTemplateInput{PolicyStoreId: &ps, PolicyTemplateId: &viewers, Statement: &statement})
			wantInvalid(t, err, "statement", "must stay")
		})
	}
	_, err = c.UpdatePolicyTemplate(ctx, &vp.UpdatePolicyTemplateInput{PolicyStoreId: &ps, PolicyTemplateId: aws.String("gone"), Statement: aws.String(viewTemplate)})
	wantNotFound(t, err, types.ResourceTypePolicyTemplate, "gone")
	_, err = c.UpdatePolicyTemplate(ctx, &vp.UpdatePolicyTemplateInput{PolicyStoreId: &ps, PolicyTemplateId: &owners, Name: aws.String("name/viewers"), Statement: aws.String(ownerTemplate)})
	wantConflict(t, err, types.ResourceTypePolicyTemplate, "name/viewers")
	_, err = c.CreatePolicy(ctx, &vp.CreatePolicyInput{PolicyStoreId: &ps, Definition: &types.PolicyDefinitionMemberStatic{Value: types.StaticPolicyDefinition{Statement: aws.String(viewTemplate)}}})
	wantInvalid(t, err, "definition.static.statement", "template")
	// STRICT without a schema refuses every policy and template.
	bare := must[*vp.CreatePolicyStoreOutput](t)(c.CreatePolicyStore(ctx, &vp.CreatePolicyStoreInput{ValidationSettings: &types.ValidationSettings{Mode: types.ValidationModeStrict}}))
	_, err = c.CreatePolicyTemplate(ctx, &vp.CreatePolicyTemplateInput{PolicyStoreId: bare.PolicyStoreId, Statement: aws.String(viewTemplate)})
	wantInvalid(t, err, "statement", "No schema present")
}

func TestListsOfLinksWithTheSDK(t *testing.T) {
	ctx, s := t.Context(), start(t)
	c := s.root()
	ps := newPolicyStore(ctx, t, c)
	viewers, owners := newTemplate(ctx, t, c, ps, "viewers", viewTemplate), newTemplate(ctx, t, c, ps, "owners", ownerTemplate)
	want := map[string][]string{}
	add := func(id string, lists ...string) {
		for _, list := range lists {
			want[list] = append(want[list], id)
		}
	}
	for i := range 30 {
		user, invoice := entity("User", fmt.Sprint("u", i%3)), entity("Invoice", fmt.Sprint("i", i%5))
		lists := []string{"all", "linked", "viewers"}
		if i%3 == 0 {
			lists = append(lists, "u0")
		}
		if i%5 == 0 {
			lists = append(lists, "i0")
		}
		add(*must[*vp.CreatePolicyOutput](t)(c.CreatePolicy(ctx, linkInput(ps, viewers, user, invoice))).PolicyId, lists...)
		if i < 5 {
			add(*must[*vp.CreatePolicyOutput](t)(c.CreatePolicy(ctx, linkInput(ps, owners, entity("User", "u0"), nil))).PolicyId, "all", "linked", "owners", "u0", "no resource")
			add(newPolicy(ctx, t, c, ps, "", `permit (principal, action == Action::"view", resource);`), "all", "static", "no resource")
		}
	}
	for name, filter := range map[string]*types.PolicyFilter{
		"all": nil, "linked": {PolicyType: types.PolicyTypeTemplateLinked}, "static": {PolicyType: types.PolicyTypeStatic},
		"viewers": {PolicyTemplateId: &viewers}, "owners": {PolicyTemplateId: aws.String("name/owners")},
		"u0":          {Principal: &types.EntityReferenceMemberIdentifier{Value: *entity("User", "u0")}},
		"i0":          {Resource: &types.EntityReferenceMemberIdentifier{Value: *entity("Invoice", "i0")}},
		"no resource": {Resource: &types.EntityReferenceMemberUnspecified{Value: true}},
		"none":        {PolicyTemplateId: &viewers, PolicyType: types.PolicyTypeStatic},
		"gone":        {PolicyTemplateId: aws.String("gone")},
	} {
		var got []string
		for p := vp.NewListPoliciesPaginator(c, &vp.ListPoliciesInput{PolicyStoreId: &ps, Filter: filter, MaxResults: aws.Int32(4)}); p.HasMorePages(); {
			for _, item := range must[*vp.ListPoliciesOutput](t)(p.NextPage(ctx)).Policies {
				got = append(got, *item.PolicyId)
				def, linked := item.Definition.(*types.PolicyDefinitionItemMemberTemplateLinked)
				if linked != (item.PolicyType == types.PolicyTypeTemplateLinked) || linked && (*def.Value.Principal.EntityId != *item.Principal.EntityId || len(item.Actions) != 1) {
					t.Errorf("%s: item %+v", name, item)
				}
			}
		}
		slices.Sort(want[name])
		if slices.Sort(got); !slices.Equal(got, want[name]) {
			t.Errorf("%s: %d policies, want %d", name, len(got), len(want[name]))
		}
	}
	for range 12 {
		newTemplate(ctx, t, c, ps, "", viewTemplate)
	}
	var pages []int
	for p := vp.NewListPolicyTemplatesPaginator(c, &vp.ListPolicyTemplatesInput{PolicyStoreId: &ps}); p.HasMorePages(); {
		pages = append(pages, len(must[*vp.ListPolicyTemplatesOutput](t)(p.NextPage(ctx)).PolicyTemplates))
	}
	if !slices.Equal(pages, []int{10, 4}) {
		t.Errorf("pages of templates: %v", pages)
	}
}

// Nothing is lost or shown twice while others write, and a deleted item does not stop the list.
func TestPagingWhileOthersWrite(t *testing.T) {
	ctx, s := t.Context(), start(t)
	c := s.root()
	ps := newPolicyStore(ctx, t, c)
	stay := map[string]int{}
	var others []string
	for i := range 40 {
		id := newPolicy(ctx, t, c, ps, "", `permit (principal, action == Action::"view", resource);`)
		if i%2 == 0 {
			stay[id] = 0
		} else {
			others = append(others, id)
		}
	}
	for p := vp.NewListPoliciesPaginator(c, &vp.ListPoliciesInput{PolicyStoreId: &ps, MaxResults: aws.Int32(3)}); p.HasMorePages(); {
		page := must[*vp.ListPoliciesOutput](t)(p.NextPage(ctx))
		for _, item := range page.Policies {
			if n, ok := stay[*item.PolicyId]; ok {
				stay[*item.PolicyId] = n + 1
			}
		}
		newPolicy(ctx, t, c, ps, "", `permit (principal, action == Action::"pay", resource);`)
		if len(others) == 0 {
			continue // new policies that happen to come late in the order make the list longer
		}
		gone := others[0]
		if last := page.Policies[len(page.Policies)-1].PolicyId; slices.Contains(others, *last) {
			gone = *last // the very one the token stands at
		}
		others = slices.DeleteFunc(others, func(id string) bool { return id == gone })
		must[*vp.DeletePolicyOutput](t)(c.DeletePolicy(ctx, &vp.DeletePolicyInput{PolicyStoreId: &ps, PolicyId: &gone}))
	}
	for id, n := range stay {
		if n != 1 {
			t.Errorf("%s is listed %d times", id, n)
		}
	}
}

func TestBatchGetPolicyWithTheSDK(t *testing.T) {
	ctx, s := t.Context(), start(t)
	c := s.root()
	one, two := newPolicyStore(ctx, t, c), newPolicyStore(ctx, t, c)
	const statement = `permit (principal, action == Action::"view", resource);`
	static := newPolicy(ctx, t, c, one, "named", statement)
	link := *must[*vp.CreatePolicyOutput](t)(c.CreatePolicy(ctx, linkInput(two, newTemplate(ctx, t, c, two, "", viewTemplate), entity("User", "u"), entity("Invoice", "i")))).PolicyId
	ask := []string{one, static, one, "name/named", two, link, two, static, "never-was", static}
	out := batchGet(ctx, t, c, ask...)
	if len(out.Results) != 3 || len(out.Errors) != 2 {
		t.Fatalf("%d results, %d errors", len(out.Results), len(out.Errors))
	}
	if r := out.Results[1]; *r.PolicyId != static || *r.Name != "name/named" || r.PolicyType != types.PolicyTypeStatic ||
		*r.Definition.(*types.PolicyDefinitionDetailMemberStatic).Value.Statement != statement || r.CreatedDate.IsZero() {
		t.Errorf("%+v", r)
	}
	if r := out.Results[2]; *r.PolicyStoreId != two || r.PolicyType != types.PolicyTypeTemplateLinked || *r.Definition.(*types.PolicyDefinitionDetailMemberTemplateLinked).Value.Principal.EntityId != "u" {
		t.Errorf("%+v", r)
	}
	if e := out.Errors[0]; e.Code != types.BatchGetPolicyErrorCodePolicyNotFound || *e.PolicyStoreId != two || *e.PolicyId != static || *e.Message == "" {
		t.Errorf("%+v", e)
	}
	if e := out.Errors[1]; e.Code != types.BatchGetPolicyErrorCodePolicyStoreNotFound || *e.PolicyStoreId != "never-was" {
		t.Errorf("%+v", e)
	}
	// Each policy store is authorized by itself: what the key does not cover is not there.
	scoped := batchGet(ctx, t, s.key(t, access.Scope{PolicyStore: copse.PolicyStoreID(one)}, access.Read), ask...)
	if len(scoped.Results) != 2 || len(scoped.Errors) != 3 {
		t.Fatalf("a key of one policy store: %d results, %d errors", len(scoped.Results), len(scoped.Errors))
	}
	if theirs, never := scoped.Errors[0], scoped.Errors[2]; theirs.Code != never.Code || strings.ReplaceAll(*theirs.Message, two, "never-was") != *never.Message {
		t.Errorf("not covered: %+v, absent: %+v", theirs, never)
	}
	for _, n := range []int{0, 101} {
		_, err := c.BatchGetPolicy(ctx, &vp.BatchGetPolicyInput{Requests: slices.Repeat([]types.BatchGetPolicyInputItem{{PolicyStoreId: &one, PolicyId: &static}}, n)})
		wantInvalid(t, err, "requests")
	}
	if full := batchGet(ctx, t, c, slices.Repeat([]string{one, static}, 100)...); len(full.Results) != 100 {
		t.Errorf("%d results of 100", len(full.Results))
	}
}

// The forty-first template is one too many, until one goes.
func TestTemplateQuotaWithTheSDK(t *testing.T) {
	ctx, s := t.Context(), start(t)
	c := s.root()
	ps, other := newPolicyStore(ctx, t, c), newPolicyStore(ctx, t, c)
	var last string
	for i := range 40 {
		last = newTemplate(ctx, t, c, ps, fmt.Sprint("t", i), viewTemplate)
	}
	over := &vp.CreatePolicyTemplateInput{PolicyStoreId: &ps, Statement: aws.String(viewTemplate)}
	_, err := c.CreatePolicyTemplate(ctx, over)
	if e := wantException[*types.ServiceQuotaExceededException](t, err); e.ResourceType != types.ResourceTypePolicyTemplate {
		t.Errorf("%+v", e)
	}
	newTemplate(ctx, t, c, other, "t", viewTemplate)
	must[*vp.DeletePolicyTemplateOutput](t)(c.DeletePolicyTemplate(ctx, &vp.DeletePolicyTemplateInput{PolicyStoreId: &ps, PolicyTemplateId: &last}))
	must[*vp.CreatePolicyTemplateOutput](t)(c.CreatePolicyTemplate(ctx, over))
}
