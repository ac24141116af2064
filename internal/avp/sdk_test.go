package avp

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	vp "github.com/aws/aws-sdk-go-v2/service/verifiedpermissions"
	"github.com/aws/aws-sdk-go-v2/service/verifiedpermissions/types"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
)

// The main job: what a program written for AVP does, with AWS's own client.
func TestRoundTripWithTheSDK(t *testing.T) {
	ctx, s := t.Context(), start(t)
	c := s.root()
	ps := newPolicyStore(ctx, t, c)

	got := must[*vp.GetPolicyStoreOutput](t)(c.GetPolicyStore(ctx, &vp.GetPolicyStoreInput{PolicyStoreId: &ps, Tags: true}))
	if *got.Arn != "arn:aws:verifiedpermissions::000000000000:policy-store/"+ps || got.ValidationSettings.Mode != types.ValidationModeStrict ||
		got.CedarVersion != types.CedarVersionCedar4 || got.DeletionProtection != types.DeletionProtectionDisabled || got.CreatedDate.IsZero() {
		t.Errorf("GetPolicyStore: %+v", got)
	}
	if _, ok := got.EncryptionState.(*types.EncryptionStateMemberDefault); !ok {
		t.Errorf("encryptionState: %T", got.EncryptionState)
	}
	schema := must[*vp.GetSchemaOutput](t)(c.GetSchema(ctx, &vp.GetSchemaInput{PolicyStoreId: &ps}))
	if schema.Schema == nil || !strings.Contains(*schema.Schema, "Invoice") || schema.LastUpdatedDate.IsZero() {
		t.Errorf("GetSchema: %+v", schema)
	}

	owners := newPolicy(ctx, t, c, ps, "owners", `permit (principal, action == Action::"view", resource) when { resource.owner == principal };`)
	seniors := newPolicy(ctx, t, c, ps, "seniors", `permit (principal, action in Action::"view", resource) when { principal.level > 5 };`)
	mfa := newPolicy(ctx, t, c, ps, "", `forbid (principal, action == Action::"pay", resource) unless { context.mfa };`)

	ask := func(user, act string, level int64, mfa bool) *vp.IsAuthorizedOutput {
		t.Helper()
		return must[*vp.IsAuthorizedOutput](t)(c.IsAuthorized(ctx, &vp.IsAuthorizedInput{
			PolicyStoreId: &ps, Principal: entity("User", user), Action: action(act), Resource: entity("Invoice", "i1"),
			Context: &types.ContextDefinitionMemberContextMap{Value: map[string]types.AttributeValue{"mfa": &types.AttributeValueMemberBoolean{Value: mfa}}},
			Entities: &types.EntitiesDefinitionMemberEntityList{Value: []types.EntityItem{
				{Identifier: entity("User", user), Attributes: map[string]types.AttributeValue{"level": &types.AttributeValueMemberLong{Value: level}}},
				{Identifier: entity("Invoice", "i1"), Attributes: map[string]types.AttributeValue{"owner": &types.AttributeValueMemberEntityIdentifier{Value: *entity("User", "alice")}}},
			}},
		}))
	}
	for _, test := range []struct {
		user, action string
		level        int64
		mfa          bool
		want         types.Decision
		determining  []string
	}{
		{"alice", "view", 1, false, types.DecisionAllow, []string{owners}},
		{"alice", "view", 9, false, types.DecisionAllow, []string{owners, seniors}},
		{"bob", "view", 1, true, types.DecisionDeny, nil},
		{"bob", "pay", 9, true, types.DecisionAllow, []string{seniors}},
		{"bob", "pay", 9, false, types.DecisionDeny, []string{mfa}},
	} {
		out := ask(test.user, test.action, test.level, test.mfa)
		slices.Sort(test.determining)
		var determining []string
		for _, d := range out.DeterminingPolicies {
			determining = append(determining, *d.PolicyId)
		}
		if out.Decision != test.want || !slices.Equal(determining, test.determining) || len(out.Errors) != 0 {
			t.Errorf("%+v: %s by %v, errors %v", test, out.Decision, determining, out.Errors)
		}
	}

	// A change is effective when its answer is there.
	must[*vp.DeletePolicyOutput](t)(c.DeletePolicy(ctx, &vp.DeletePolicyInput{PolicyStoreId: &ps, PolicyId: aws.String("name/owners")}))
	if out := ask("alice", "view", 1, false); out.Decision != types.DecisionDeny || len(out.DeterminingPolicies) != 0 {
		t.Errorf("after its permit is deleted: %+v", out)
	}
	must[*vp.DeletePolicyStoreOutput](t)(c.DeletePolicyStore(ctx, &vp.DeletePolicyStoreInput{PolicyStoreId: &ps}))
	must[*vp.DeletePolicyStoreOutput](t)(c.DeletePolicyStore(ctx, &vp.DeletePolicyStoreInput{PolicyStoreId: &ps}))
	_, err := c.IsAuthorized(ctx, &vp.IsAuthorizedInput{PolicyStoreId: &ps, Principal: entity("User", "a"), Action: action("view"), Resource: entity("Invoice", "i")})
	notFound, ok := errors.AsType[*types.ResourceNotFoundException](err)
	if !ok || *notFound.ResourceId != ps || notFound.ResourceType != types.ResourceTypePolicyStore {
		t.Errorf("a deleted policy store: %v", err)
	}
}

func TestPoliciesWithTheSDK(t *testing.T) {
	ctx, s := t.Context(), start(t)
	c := s.root()
	ps := newPolicyStore(ctx, t, c)
	const statement = `forbid (principal == User::"mallory", action in [Action::"view", Action::"pay"], resource == Invoice::"i1");`
	made := must[*vp.CreatePolicyOutput](t)(c.CreatePolicy(ctx, &vp.CreatePolicyInput{
		PolicyStoreId: &ps, Name: aws.String("name/no-mallory"), ClientToken: aws.String("token-1"),
		Definition: &types.PolicyDefinitionMemberStatic{Value: types.StaticPolicyDefinition{Statement: aws.String(statement), Description: aws.String("keep out")}},
	}))
	if made.Effect != types.PolicyEffectForbid || made.PolicyType != types.PolicyTypeStatic || *made.Principal.EntityId != "mallory" ||
		*made.Resource.EntityType != "Invoice" || len(made.Actions) != 2 || *made.PolicyStoreId != ps {
		t.Errorf("CreatePolicy: %+v", made)
	}
	for _, id := range []string{*made.PolicyId, "name/no-mallory"} {
		got := must[*vp.GetPolicyOutput](t)(c.GetPolicy(ctx, &vp.GetPolicyInput{PolicyStoreId: &ps, PolicyId: &id}))
		static, ok := got.Definition.(*types.PolicyDefinitionDetailMemberStatic)
		if !ok || *static.Value.Statement != statement || *static.Value.Description != "keep out" || *got.Name != "name/no-mallory" || *got.PolicyId != *made.PolicyId {
			t.Errorf("GetPolicy %s: %+v", id, got)
		}
	}
	const narrower = `forbid (principal == User::"mallory", action == Action::"pay", resource == Invoice::"i1");`
	updated := must[*vp.UpdatePolicyOutput](t)(c.UpdatePolicy(ctx, &vp.UpdatePolicyInput{
		PolicyStoreId: &ps, PolicyId: aws.String("name/no-mallory"), Name: aws.String(""),
		Definition: &types.UpdatePolicyDefinitionMemberStatic{Value: types.UpdateStaticPolicyDefinition{Statement: aws.String(narrower)}},
	}))
	if *updated.PolicyId != *made.PolicyId || len(updated.Actions) != 1 || updated.LastUpdatedDate.Before(*made.CreatedDate) {
		t.Errorf("UpdatePolicy: %+v", updated)
	}
	got := must[*vp.GetPolicyOutput](t)(c.GetPolicy(ctx, &vp.GetPolicyInput{PolicyStoreId: &ps, PolicyId: made.PolicyId}))
	if got.Name != nil || *got.Definition.(*types.PolicyDefinitionDetailMemberStatic).Value.Description != "keep out" {
		t.Errorf("an empty name clears it, an absent description keeps it: %+v", got)
	}
	must[*vp.UpdatePolicyOutput](t)(c.UpdatePolicy(ctx, &vp.UpdatePolicyInput{PolicyStoreId: &ps, PolicyId: made.PolicyId, Name: aws.String("name/again")}))
	must[*vp.DeletePolicyOutput](t)(c.DeletePolicy(ctx, &vp.DeletePolicyInput{PolicyStoreId: &ps, PolicyId: aws.String("name/again")}))
	must[*vp.DeletePolicyOutput](t)(c.DeletePolicy(ctx, &vp.DeletePolicyInput{PolicyStoreId: &ps, PolicyId: made.PolicyId}))
	_, err := c.GetPolicy(ctx, &vp.GetPolicyInput{PolicyStoreId: &ps, PolicyId: made.PolicyId})
	if notFound, ok := errors.AsType[*types.ResourceNotFoundException](err); !ok || notFound.ResourceType != types.ResourceTypePolicy {
		t.Errorf("a deleted policy: %v", err)
	}
}

func TestListsPageWithTheSDK(t *testing.T) {
	ctx, s := t.Context(), start(t)
	c := s.root()
	var stores []string
	for range 12 {
		out := must[*vp.CreatePolicyStoreOutput](t)(c.CreatePolicyStore(ctx, &vp.CreatePolicyStoreInput{
			ValidationSettings: &types.ValidationSettings{Mode: types.ValidationModeOff}, Description: aws.String("one of twelve"),
		}))
		stores = append(stores, *out.PolicyStoreId)
	}
	slices.Sort(stores)
	var listed []string
	var pages []int
	for p := vp.NewListPolicyStoresPaginator(c, &vp.ListPolicyStoresInput{}); p.HasMorePages(); {
		page := must[*vp.ListPolicyStoresOutput](t)(p.NextPage(ctx))
		pages = append(pages, len(page.PolicyStores))
		for _, ps := range page.PolicyStores {
			listed = append(listed, *ps.PolicyStoreId)
			if *ps.Description != "one of twelve" || !strings.HasSuffix(*ps.Arn, *ps.PolicyStoreId) {
				t.Errorf("item %+v", ps)
			}
		}
	}
	if !slices.Equal(listed, stores) || !slices.Equal(pages, []int{10, 2}) {
		t.Errorf("pages of %v; -want +got:\n%s", pages, cmp.Diff(stores, listed))
	}
}

func TestListPoliciesWithTheSDK(t *testing.T) {
	ctx, s := t.Context(), start(t)
	c := s.root()
	ps := aws.String(newPolicyStore(ctx, t, c))
	var alices, all []string
	for i := range 55 {
		who := "principal"
		if i%5 == 0 {
			who = `principal == User::"alice"`
		}
		id := newPolicy(ctx, t, c, *ps, fmt.Sprintf("p%d", i), "permit ("+who+`, action == Action::"view", resource == Invoice::"`+fmt.Sprint(i)+`");`)
		all = append(all, id)
		if i%5 == 0 {
			alices = append(alices, id)
		}
	}
	list := func(filter *types.PolicyFilter, size int32) (ids []string, pages int) {
		for p := vp.NewListPoliciesPaginator(c, &vp.ListPoliciesInput{PolicyStoreId: ps, Filter: filter, MaxResults: &size}); p.HasMorePages() && pages < 100; pages++ {
			for _, item := range must[*vp.ListPoliciesOutput](t)(p.NextPage(ctx)).Policies {
				ids = append(ids, *item.PolicyId)
				if item.Name == nil || item.Definition.(*types.PolicyDefinitionItemMemberStatic).Value.Description != nil {
					t.Errorf("item %+v", item)
				}
			}
		}
		slices.Sort(ids)
		return ids, pages
	}
	slices.Sort(all)
	slices.Sort(alices)
	if ids, pages := list(nil, 7); !slices.Equal(ids, all) || pages != 8 {
		t.Errorf("%d policies on %d pages", len(ids), pages)
	}
	if ids, pages := list(nil, 1000); !slices.Equal(ids, all) || pages != 2 {
		t.Errorf("maxResults over 50 is taken as 50: %d policies on %d pages", len(ids), pages)
	}
	alice := &types.PolicyFilter{Principal: &types.EntityReferenceMemberIdentifier{Value: *entity("User", "alice")}}
	if ids, _ := list(alice, 4); !slices.Equal(ids, alices) {
		t.Errorf("by principal: %s", cmp.Diff(alices, ids))
	}
	if ids, _ := list(&types.PolicyFilter{Principal: &types.EntityReferenceMemberUnspecified{Value: true}}, 50); len(ids) != 44 {
		t.Errorf("unspecified principal: %d policies", len(ids))
	}
	if ids, _ := list(&types.PolicyFilter{Resource: &types.EntityReferenceMemberIdentifier{Value: *entity("Invoice", "3")}}, 50); len(ids) != 1 {
		t.Errorf("by resource: %d policies", len(ids))
	}
	if ids, _ := list(&types.PolicyFilter{PolicyType: types.PolicyTypeTemplateLinked}, 50); len(ids) != 0 {
		t.Errorf("template-linked: %d policies", len(ids))
	}
}

func TestPageTokensAreBoundToTheirCall(t *testing.T) {
	ctx, s := t.Context(), start(t)
	c := s.root()
	ps, another := aws.String(newPolicyStore(ctx, t, c)), aws.String(newPolicyStore(ctx, t, c))
	for range 2 {
		newPolicy(ctx, t, c, *ps, "", `permit (principal, action == Action::"view", resource);`)
	}
	alice := &types.PolicyFilter{Principal: &types.EntityReferenceMemberIdentifier{Value: *entity("User", "alice")}}
	first := must[*vp.ListPoliciesOutput](t)(c.ListPolicies(ctx, &vp.ListPoliciesInput{PolicyStoreId: ps, MaxResults: aws.Int32(1)}))
	must[*vp.ListPoliciesOutput](t)(c.ListPolicies(ctx, &vp.ListPoliciesInput{PolicyStoreId: ps, NextToken: first.NextToken}))
	other := s.key(t, access.Scope{All: true}, access.Read)
	for name, call := range map[string]func() error{
		"another policy store": func() error {
			_, err := c.ListPolicies(ctx, &vp.ListPoliciesInput{PolicyStoreId: another, NextToken: first.NextToken})
			return err
		},
		"another filter": func() error {
			_, err := c.ListPolicies(ctx, &vp.ListPoliciesInput{PolicyStoreId: ps, NextToken: first.NextToken, Filter: alice})
			return err
		},
		"another operation": func() error {
			_, err := c.ListPolicyStores(ctx, &vp.ListPolicyStoresInput{NextToken: first.NextToken})
			return err
		},
		"another caller": func() error {
			_, err := other.ListPolicies(ctx, &vp.ListPoliciesInput{PolicyStoreId: ps, NextToken: first.NextToken})
			return err
		},
		"made up": func() error {
			_, err := c.ListPolicyStores(ctx, &vp.ListPolicyStoresInput{NextToken: aws.String("QQ==")})
			return err
		},
	} {
		invalid, ok := errors.AsType[*types.ValidationException](call())
		if !ok || len(invalid.FieldList) != 1 || *invalid.FieldList[0].Path != "nextToken" {
			t.Errorf("token of %s: %+v", name, invalid)
		}
	}
}

// Each exception AVP's model has, where copse can cause it, as the SDK's own type.
func TestExceptionsWithTheSDK(t *testing.T) {
	ctx, s := t.Context(), start(t)
	c := s.root()
	ps := newPolicyStore(ctx, t, c)
	create := func(c *vp.Client, name *string, statement string) error {
		_, err := c.CreatePolicy(ctx, &vp.CreatePolicyInput{PolicyStoreId: &ps, Name: name,
			Definition: &types.PolicyDefinitionMemberStatic{Value: types.StaticPolicyDefinition{Statement: &statement}}})
		return err
	}
	t.Run("a policy that does not parse", func(t *testing.T) {
		e, ok := errors.AsType[*types.ValidationException](create(c, nil, "permit (principal, action, resource)\nwhen { 1 + };"))
		if !ok || *e.Message != "Invalid input" || len(e.FieldList) != 1 || *e.FieldList[0].Path != "definition.static.statement" ||
			!strings.Contains(*e.FieldList[0].Message, "line 2") {
			t.Errorf("%v %+v", e, e.FieldList)
		}
	})
	t.Run("a policy that breaks the schema", func(t *testing.T) {
		e, ok := errors.AsType[*types.ValidationException](create(c, nil, `permit (principal, action == Action::"view", resource) when { principal.lavel > 1 };`))
		if !ok || len(e.FieldList) == 0 || *e.FieldList[0].Path != "definition.static.statement" {
			t.Errorf("%v", e)
		}
	})
	t.Run("a schema that does not resolve", func(t *testing.T) {
		_, err := c.PutSchema(ctx, &vp.PutSchemaInput{PolicyStoreId: &ps, Definition: &types.SchemaDefinitionMemberCedarJson{Value: `{"": {"entityTypes": {"A": {"memberOfTypes": ["Gone"]}}, "actions": {}}}`}})
		e, ok := errors.AsType[*types.ValidationException](err)
		if !ok || len(e.FieldList) == 0 || *e.FieldList[0].Path != "definition.cedarJson" {
			t.Errorf("%v", err)
		}
	})
	t.Run("a name that is taken", func(t *testing.T) {
		const statement = `permit (principal, action == Action::"view", resource);`
		if err := create(c, aws.String("name/taken"), statement); err != nil {
			t.Fatal(err)
		}
		e, ok := errors.AsType[*types.ConflictException](create(c, aws.String("name/taken"), statement))
		if !ok || len(e.Resources) != 1 || e.Resources[0].ResourceType != types.ResourceTypePolicy {
			t.Errorf("%+v", e)
		}
	})
	t.Run("an update of the effect", func(t *testing.T) {
		_, err := c.UpdatePolicy(ctx, &vp.UpdatePolicyInput{PolicyStoreId: &ps, PolicyId: aws.String("name/taken"),
			Definition: &types.UpdatePolicyDefinitionMemberStatic{Value: types.UpdateStaticPolicyDefinition{Statement: aws.String(`forbid (principal, action == Action::"view", resource);`)}}})
		if _, ok := errors.AsType[*types.ValidationException](err); !ok {
			t.Errorf("%v", err)
		}
	})
	t.Run("a quota", func(t *testing.T) {
		var err error
		filler := strings.Repeat("x", 9000)
		for range copse.MaxPolicyBytesPerScope/9000 + 1 {
			if err = create(c, nil, `permit (principal, action == Action::"view", resource) when { context.mfa || "`+filler+`" == "" };`); err != nil {
				break
			}
		}
		if e, ok := errors.AsType[*types.ServiceQuotaExceededException](err); !ok || e.ResourceType == "" {
			t.Errorf("%v", err)
		}
	})
	t.Run("absent things", func(t *testing.T) {
		_, err := c.GetSchema(ctx, &vp.GetSchemaInput{PolicyStoreId: aws.String("nothing")})
		if e, ok := errors.AsType[*types.ResourceNotFoundException](err); !ok || e.ResourceType != types.ResourceTypePolicyStore || *e.ResourceId != "nothing" {
			t.Errorf("%v", err)
		}
		bare := must[*vp.CreatePolicyStoreOutput](t)(c.CreatePolicyStore(ctx, &vp.CreatePolicyStoreInput{ValidationSettings: &types.ValidationSettings{Mode: types.ValidationModeOff}}))
		_, err = c.GetSchema(ctx, &vp.GetSchemaInput{PolicyStoreId: bare.PolicyStoreId})
		if e, ok := errors.AsType[*types.ResourceNotFoundException](err); !ok || e.ResourceType != types.ResourceTypeSchema {
			t.Errorf("%v", err)
		}
	})
	t.Run("values that ask for nothing", func(t *testing.T) {
		must[*vp.CreatePolicyStoreOutput](t)(c.CreatePolicyStore(ctx, &vp.CreatePolicyStoreInput{
			ValidationSettings: &types.ValidationSettings{Mode: types.ValidationModeOff}, Tags: map[string]string{}, ClientToken: aws.String("a-b-1"),
			DeletionProtection: types.DeletionProtectionDisabled, EncryptionSettings: &types.EncryptionSettingsMemberDefault{},
		}))
	})
}

// A credential that is refused, as AWS's common errors.
func TestCredentialErrorsWithTheSDK(t *testing.T) {
	ctx, s := t.Context(), start(t)
	for name, test := range map[string]struct {
		client *vp.Client
		code   string
	}{
		"wrong secret": {s.client(s.rootID, "wrong"+s.rootSecret), "InvalidSignatureException"},
		"no such key":  {s.client("CPKAAAAAAAAAAAAAAAAA", s.rootSecret), "UnrecognizedClientException"},
	} {
		_, err := test.client.ListPolicyStores(ctx, &vp.ListPolicyStoresInput{})
		e, ok := errors.AsType[smithy.APIError](err)
		if !ok || e.ErrorCode() != test.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Law 5: what the key does not cover is answered as if it did not exist, and a verb it lacks is
// refused, for each row of the table.
func TestScopesAndVerbs(t *testing.T) {
	ctx, s := t.Context(), start(t)
	root := s.root()
	mine, theirs := newPolicyStore(ctx, t, root), newPolicyStore(ctx, t, root)
	policy := newPolicy(ctx, t, root, theirs, "", `permit (principal, action == Action::"view", resource);`)
	template := newTemplate(ctx, t, root, theirs, "", viewTemplate)
	calls := func(c *vp.Client, ps string) map[string]func() error {
		id := &ps
		all := map[string]func() error{
			"GetPolicyStore": func() error { _, err := c.GetPolicyStore(ctx, &vp.GetPolicyStoreInput{PolicyStoreId: id}); return err },
			"ListTagsForResource": func() error {
				_, err := c.ListTagsForResource(ctx, &vp.ListTagsForResourceInput{ResourceArn: arnOf(ps)})
				return err
			},
			"TagResource": func() error {
				_, err := c.TagResource(ctx, &vp.TagResourceInput{ResourceArn: arnOf(ps), Tags: map[string]string{"a": "b"}})
				return err
			},
			"UntagResource": func() error {
				_, err := c.UntagResource(ctx, &vp.UntagResourceInput{ResourceArn: arnOf(ps), TagKeys: []string{"a"}})
				return err
			},
			"GetSchema": func() error { _, err := c.GetSchema(ctx, &vp.GetSchemaInput{PolicyStoreId: id}); return err },
			"PutSchema": func() error {
				_, err := c.PutSchema(ctx, &vp.PutSchemaInput{PolicyStoreId: id, Definition: &types.SchemaDefinitionMemberCedarJson{Value: testSchema}})
				return err
			},
			"CreatePolicy": func() error {
				_, err := c.CreatePolicy(ctx, &vp.CreatePolicyInput{PolicyStoreId: id, Definition: &types.PolicyDefinitionMemberStatic{
					Value: types.StaticPolicyDefinition{Statement: aws.String(`permit (principal, action == Action::"pay", resource);`)}}})
				return err
			},
			"GetPolicy": func() error {
				_, err := c.GetPolicy(ctx, &vp.GetPolicyInput{PolicyStoreId: id, PolicyId: &policy})
				return err
			},
			"UpdatePolicy": func() error {
				_, err := c.UpdatePolicy(ctx, &vp.UpdatePolicyInput{PolicyStoreId: id, PolicyId: &policy, Name: aws.String("name/n")})
				return err
			},
			"DeletePolicy": func() error {
				_, err := c.DeletePolicy(ctx, &vp.DeletePolicyInput{PolicyStoreId: id, PolicyId: &policy})
				return err
			},
			"CreatePolicyTemplate": func() error {
				_, err := c.CreatePolicyTemplate(ctx, &vp.CreatePolicyTemplateInput{PolicyStoreId: id, Statement: aws.String(viewTemplate)})
				return err
			},
			"GetPolicyTemplate": func() error {
				_, err := c.GetPolicyTemplate(ctx, &vp.GetPolicyTemplateInput{PolicyStoreId: id, PolicyTemplateId: &template})
				return err
			},
			"UpdatePolicyTemplate": func() error {
				_, err := c.UpdatePolicyTemplate(ctx, &vp.UpdatePolicyTemplateInput{PolicyStoreId: id, PolicyTemplateId: &template, Statement: aws.String(viewTemplate)})
				return err
			},
			"DeletePolicyTemplate": func() error {
				_, err := c.DeletePolicyTemplate(ctx, &vp.DeletePolicyTemplateInput{PolicyStoreId: id, PolicyTemplateId: &template})
				return err
			},
			"ListPolicyTemplates": func() error {
				_, err := c.ListPolicyTemplates(ctx, &vp.ListPolicyTemplatesInput{PolicyStoreId: id})
				return err
			},
			"ListPolicies": func() error { _, err := c.ListPolicies(ctx, &vp.ListPoliciesInput{PolicyStoreId: id}); return err },
			"IsAuthorized": func() error {
				_, err := c.IsAuthorized(ctx, &vp.IsAuthorizedInput{PolicyStoreId: id, Principal: entity("User", "u"), Action: action("view"), Resource: entity("Invoice", "i")})
				return err
			},
		}
		maps.Copy(all, identityCalls(ctx, c, ps))
		return all
	}
	full := access.Read | access.Write | access.Decide
	scoped := s.key(t, access.Scope{PolicyStore: copse.PolicyStoreID(mine)}, full)
	asked := 0
	for name, call := range calls(scoped, theirs) {
		absent := calls(scoped, "never-was")[name]()
		err := call()
		e, ok := errors.AsType[*types.ResourceNotFoundException](err)
		never, okNever := errors.AsType[*types.ResourceNotFoundException](absent)
		if !ok || !okNever || e.ResourceType != never.ResourceType || strings.ReplaceAll(*e.Message, theirs, "never-was") != *never.Message {
			t.Errorf("%s on another's: %v; on one that never was: %v", name, err, absent)
		}
		asked++
	}
	// By an alias the same, and the answer does not tell where it leads.
	alias := policystore.AliasPrefix + "theirs"
	must[*vp.CreatePolicyStoreAliasOutput](t)(root.CreatePolicyStoreAlias(ctx, &vp.CreatePolicyStoreAliasInput{AliasName: &alias, PolicyStoreId: &theirs}))
	for name, call := range calls(scoped, alias) {
		if strings.HasSuffix(name, "Resource") {
			continue // by ARN
		}
		err, absent := call(), calls(scoped, policystore.AliasPrefix+"never-was")[name]()
		e, ok := errors.AsType[*types.ResourceNotFoundException](err)
		never, okNever := errors.AsType[*types.ResourceNotFoundException](absent)
		if !ok || !okNever || e.ResourceType != types.ResourceTypePolicyStoreAlias || *e.ResourceId != alias ||
			e.ResourceType != never.ResourceType || strings.ReplaceAll(*e.Message, "theirs", "never-was") != *never.Message {
			t.Errorf("%s by another's alias: %v; by one that never was: %v", name, err, absent)
		}
		asked++
	}
	for _, op := range operations {
		if op.needs == access.Admin || op.name == "BatchGetPolicy" || strings.HasSuffix(op.name, "Alias") || op.name == "ListPolicyStoreAliases" {
			continue // see TestAliasesAreSeenByThoseTheyAreOf
		}
		lacking := s.key(t, access.Scope{PolicyStore: copse.PolicyStoreID(theirs)}, full&^op.needs)
		if op.name == "ListPolicyStores" {
			out := must[*vp.ListPolicyStoresOutput](t)(lacking.ListPolicyStores(ctx, &vp.ListPolicyStoresInput{}))
			if len(out.PolicyStores) != 0 {
				t.Errorf("a key without read lists %d policy stores", len(out.PolicyStores))
			}
			continue
		}
		if op.name == "BatchGetPolicy" {
			out := batchGet(ctx, t, lacking, theirs, policy)
			if len(out.Results) != 0 || out.Errors[0].Code != types.BatchGetPolicyErrorCodePolicyStoreNotFound {
				t.Errorf("a key without read gets %+v", out)
			}
			continue
		}
		if err := calls(lacking, theirs)[op.name](); err == nil {
			t.Errorf("%s worked without its verb", op.name)
		}
		asked++
	}
	if all := len(calls(scoped, mine)); asked != 3*all-3 || all < 12 {
		t.Errorf("%d calls asked of %d operations", asked, all)
	}
	listed := must[*vp.ListPolicyStoresOutput](t)(scoped.ListPolicyStores(ctx, &vp.ListPolicyStoresInput{}))
	if len(listed.PolicyStores) != 1 || *listed.PolicyStores[0].PolicyStoreId != mine {
		t.Errorf("a scoped key lists %v", listed.PolicyStores)
	}
	_, err := scoped.CreatePolicyStore(ctx, &vp.CreatePolicyStoreInput{ValidationSettings: &types.ValidationSettings{Mode: types.ValidationModeOff}})
	if _, ok := errors.AsType[*types.AccessDeniedException](err); !ok {
		t.Errorf("CreatePolicyStore with a scoped key: %v", err)
	}
	if _, err := scoped.DeletePolicyStore(ctx, &vp.DeletePolicyStoreInput{PolicyStoreId: &theirs}); err == nil {
		t.Error("DeletePolicyStore worked with another's key")
	}
	must[*vp.GetPolicyOutput](t)(root.GetPolicy(ctx, &vp.GetPolicyInput{PolicyStoreId: &theirs, PolicyId: &policy}))
}

func arnOf(id string) *string {
	return aws.String("arn:aws:verifiedpermissions::000000000000:policy-store/" + id)
}
