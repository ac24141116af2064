package avp

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	vp "github.com/aws/aws-sdk-go-v2/service/verifiedpermissions"
	"github.com/aws/aws-sdk-go-v2/service/verifiedpermissions/types"
	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
)

func wantException[E error](t *testing.T, err error) E {
	t.Helper()
	e, ok := errors.AsType[E](err)
	if !ok {
		t.Fatalf("got %v, want %T", err, e)
	}
	return e
}

func wantFieldOf(t *testing.T, err error, path string) {
	t.Helper()
	e := wantException[*types.ValidationException](t, err)
	for _, f := range e.FieldList {
		if *f.Path == path {
			return
		}
	}
	t.Errorf("no finding at %s: %v", path, e.FieldList)
}

func off() *types.ValidationSettings {
	return &types.ValidationSettings{Mode: types.ValidationModeOff}
}

func strict() *types.ValidationSettings {
	return &types.ValidationSettings{Mode: types.ValidationModeStrict}
}

func TestPolicyStoreSettingsWithTheSDK(t *testing.T) {
	ctx, s := t.Context(), start(t)
	c := s.root()
	tags := map[string]string{"team": "payments", "cost center": "12/b"}
	made := must[*vp.CreatePolicyStoreOutput](t)(c.CreatePolicyStore(ctx, &vp.CreatePolicyStoreInput{
		ValidationSettings: off(), Description: aws.String("first"), DeletionProtection: types.DeletionProtectionEnabled, Tags: tags,
		EncryptionSettings: &types.EncryptionSettingsMemberKmsEncryptionSettings{Value: types.KmsEncryptionSettings{
			Key: aws.String("1234abcd-12ab-34cd-56ef-1234567890ab"), EncryptionContext: map[string]string{"a": "b"}}},
	}))
	id := made.PolicyStoreId
	got := must[*vp.GetPolicyStoreOutput](t)(c.GetPolicyStore(ctx, &vp.GetPolicyStoreInput{PolicyStoreId: id}))
	if got.Tags != nil || got.CedarVersion != types.CedarVersionCedar4 || got.DeletionProtection != types.DeletionProtectionEnabled || *got.Arn != *made.Arn {
		t.Errorf("%+v", got)
	}
	kms, ok := got.EncryptionState.(*types.EncryptionStateMemberKmsEncryptionState)
	if !ok || *kms.Value.Key != "arn:aws:kms:us-east-1:000000000000:key/1234abcd-12ab-34cd-56ef-1234567890ab" || kms.Value.EncryptionContext["a"] != "b" {
		t.Errorf("encryption: %+v", got.EncryptionState)
	}
	got = must[*vp.GetPolicyStoreOutput](t)(c.GetPolicyStore(ctx, &vp.GetPolicyStoreInput{PolicyStoreId: id, Tags: true}))
	if diff := cmp.Diff(tags, got.Tags); diff != "" {
		t.Error(diff)
	}

	_, err := c.DeletePolicyStore(ctx, &vp.DeletePolicyStoreInput{PolicyStoreId: id})
	wantException[*types.InvalidStateException](t, err)
	updated := must[*vp.UpdatePolicyStoreOutput](t)(c.UpdatePolicyStore(ctx, &vp.UpdatePolicyStoreInput{PolicyStoreId: id, ValidationSettings: strict()}))
	if *updated.Arn != *made.Arn || !updated.CreatedDate.Equal(*made.CreatedDate) || updated.LastUpdatedDate.Before(*made.LastUpdatedDate) {
		t.Errorf("%+v", updated)
	}
	got = must[*vp.GetPolicyStoreOutput](t)(c.GetPolicyStore(ctx, &vp.GetPolicyStoreInput{PolicyStoreId: id}))
	if got.ValidationSettings.Mode != types.ValidationModeStrict || *got.Description != "first" || got.DeletionProtection != types.DeletionProtectionEnabled {
		t.Errorf("what was not given has changed: %+v", got)
	}
	// STRICT without a schema refuses every policy.
	_, err = c.CreatePolicy(ctx, &vp.CreatePolicyInput{PolicyStoreId: id, Definition: static(`permit (principal, action, resource);`)})
	wantFieldOf(t, err, "definition.static.statement")
	must[*vp.UpdatePolicyStoreOutput](t)(c.UpdatePolicyStore(ctx, &vp.UpdatePolicyStoreInput{
		PolicyStoreId: id, ValidationSettings: off(), Description: aws.String(""), DeletionProtection: types.DeletionProtectionDisabled}))
	newPolicy(ctx, t, c, *id, "", `permit (principal, action, resource);`)
	got = must[*vp.GetPolicyStoreOutput](t)(c.GetPolicyStore(ctx, &vp.GetPolicyStoreInput{PolicyStoreId: id}))
	if got.Description != nil || got.DeletionProtection != types.DeletionProtectionDisabled {
		t.Errorf("%+v", got)
	}
	must[*vp.DeletePolicyStoreOutput](t)(c.DeletePolicyStore(ctx, &vp.DeletePolicyStoreInput{PolicyStoreId: id}))
	must[*vp.DeletePolicyStoreOutput](t)(c.DeletePolicyStore(ctx, &vp.DeletePolicyStoreInput{PolicyStoreId: id}))
	_, err = c.UpdatePolicyStore(ctx, &vp.UpdatePolicyStoreInput{PolicyStoreId: id, ValidationSettings: off()})
	wantException[*types.ResourceNotFoundException](t, err)
}

func static(statement string) *types.PolicyDefinitionMemberStatic {
	return &types.PolicyDefinitionMemberStatic{Value: types.StaticPolicyDefinition{Statement: &statement}}
}

func TestPolicyStoreInputsAreChecked(t *testing.T) {
	ctx, s := t.Context(), start(t)
	c := s.root()
	kms := func(key string, context map[string]string) types.EncryptionSettings {
		return &types.EncryptionSettingsMemberKmsEncryptionSettings{Value: types.KmsEncryptionSettings{Key: &key, EncryptionContext: context}}
	}
	many := map[string]string{}
	for i := range 51 {
		many[fmt.Sprint(i)] = ""
	}
	for path, in := range map[string]*vp.CreatePolicyStoreInput{
		"tags": {Tags: many},
		"encryptionSettings.kmsEncryptionSettings.key":               {EncryptionSettings: kms("", nil)},
		"encryptionSettings.kmsEncryptionSettings.encryptionContext": {EncryptionSettings: kms("k", map[string]string{"a": strings.Repeat("x", 8192)})},
		"deletionProtection": {DeletionProtection: "MAYBE"},
	} {
		in.ValidationSettings = off()
		_, err := c.CreatePolicyStore(ctx, in)
		wantFieldOf(t, err, path)
	}
	for _, tags := range []map[string]string{
		{strings.Repeat("k", 129): ""}, {"": "v"}, {"k": strings.Repeat("v", 257)}, {"k": "tab\t"}, {"semi;colon": ""}, {"aws:mine": ""}, {"AWS:mine": ""},
	} {
		_, err := c.CreatePolicyStore(ctx, &vp.CreatePolicyStoreInput{ValidationSettings: off(), Tags: tags})
		wantFieldOf(t, err, "tags")
	}
	id := newPolicyStore(ctx, t, c)
	alias := policystore.AliasPrefix + "a"
	must[*vp.CreatePolicyStoreAliasOutput](t)(c.CreatePolicyStoreAlias(ctx, &vp.CreatePolicyStoreAliasInput{AliasName: &alias, PolicyStoreId: &id}))
	_, err := c.DeletePolicyStore(ctx, &vp.DeletePolicyStoreInput{PolicyStoreId: &alias})
	wantFieldOf(t, err, "policyStoreId")
	_, err = c.CreatePolicyStoreAlias(ctx, &vp.CreatePolicyStoreAliasInput{AliasName: aws.String(alias + "b"), PolicyStoreId: &alias})
	wantFieldOf(t, err, "policyStoreId")
	for _, name := range []string{"a", "policy-store-alias/", "Policy-Store-Alias/a", "policy-store-alias/a b", "policy-store-alias/" + strings.Repeat("a", 132)} {
		_, err = c.CreatePolicyStoreAlias(ctx, &vp.CreatePolicyStoreAliasInput{AliasName: &name, PolicyStoreId: &id})
		wantFieldOf(t, err, "aliasName")
	}
	_, err = c.DeletePolicyStoreAlias(ctx, &vp.DeletePolicyStoreAliasInput{AliasName: &alias, DeletionMode: "Hard"})
	wantFieldOf(t, err, "deletionMode")
	_, err = c.ListPolicyStoreAliases(ctx, &vp.ListPolicyStoreAliasesInput{Filter: &types.PolicyStoreAliasFilter{PolicyStoreId: aws.String("?")}})
	wantFieldOf(t, err, "filter.policyStoreId")
	_, err = c.UpdatePolicyStore(ctx, &vp.UpdatePolicyStoreInput{PolicyStoreId: &id, ValidationSettings: &types.ValidationSettings{Mode: "LAX"}})
	wantFieldOf(t, err, "validationSettings.mode")
}

func TestTagsWithTheSDK(t *testing.T) {
	ctx, s := t.Context(), start(t)
	c := s.root()
	arn := arnOf(newPolicyStore(ctx, t, c))
	tag := func(tags map[string]string) error {
		_, err := c.TagResource(ctx, &vp.TagResourceInput{ResourceArn: arn, Tags: tags})
		return err
	}
	want := func(tags map[string]string) {
		t.Helper()
		got := must[*vp.ListTagsForResourceOutput](t)(c.ListTagsForResource(ctx, &vp.ListTagsForResourceInput{ResourceArn: arn}))
		if diff := cmp.Diff(tags, got.Tags); diff != "" {
			t.Error(diff)
		}
	}
	want(map[string]string{})
	if err := tag(map[string]string{"a": "1", "b": ""}); err != nil {
		t.Fatal(err)
	}
	if err := tag(map[string]string{"b": "2"}); err != nil {
		t.Fatal(err)
	}
	want(map[string]string{"a": "1", "b": "2"})
	must[*vp.UntagResourceOutput](t)(c.UntagResource(ctx, &vp.UntagResourceInput{ResourceArn: arn, TagKeys: []string{"a", "never"}}))
	want(map[string]string{"b": "2"})
	more := map[string]string{}
	for i := range 49 {
		more[fmt.Sprint(i)] = "x"
	}
	if err := tag(more); err != nil {
		t.Fatal(err)
	}
	err := tag(map[string]string{"one": "too many"})
	if e := wantException[*types.TooManyTagsException](t, err); *e.ResourceName != *arn {
		t.Errorf("%v", e)
	}
	if err := tag(map[string]string{"b": "3"}); err != nil {
		t.Errorf("one in place of another: %v", err)
	}
	for i := range 51 {
		more[fmt.Sprint(i)] = "x"
	}
	wantException[*types.TooManyTagsException](t, tag(more))
	wantFieldOf(t, tag(map[string]string{"aws:a": ""}), "tags")
	for _, other := range []string{
		"arn:aws:verifiedpermissions::000000000000:policy-store/never-was", "arn:aws:verifiedpermissions::111111111111:policy-store/" + (*arn)[56:],
		"arn:aws:verifiedpermissions:eu-west-1:000000000000:policy-store-alias/a", "arn:aws:s3:::bucket", *arn + "/policy",
	} {
		_, err := c.TagResource(ctx, &vp.TagResourceInput{ResourceArn: &other, Tags: map[string]string{"a": "b"}})
		if e := wantException[*types.ResourceNotFoundException](t, err); *e.ResourceId != other || e.ResourceType != types.ResourceTypePolicyStore {
			t.Errorf("%s: %v", other, e)
		}
	}
	_, err = c.ListTagsForResource(ctx, &vp.ListTagsForResourceInput{ResourceArn: aws.String("policy-store/x")})
	wantFieldOf(t, err, "resourceArn")
}

func TestAliasesWithTheSDK(t *testing.T) {
	ctx, s := t.Context(), start(t)
	c := s.root()
	one, two := newPolicyStore(ctx, t, c), newPolicyStore(ctx, t, c)
	create := func(name, id string) (*vp.CreatePolicyStoreAliasOutput, error) {
		return c.CreatePolicyStoreAlias(ctx, &vp.CreatePolicyStoreAliasInput{AliasName: aws.String(policystore.AliasPrefix + name), PolicyStoreId: &id})
	}
	alias := aws.String(policystore.AliasPrefix + "acme/live")
	made := must[*vp.CreatePolicyStoreAliasOutput](t)(create("acme/live", one))
	if *made.AliasArn != "arn:aws:verifiedpermissions:us-east-1:000000000000:policy-store-alias/acme/live" || *made.AliasName != *alias || *made.PolicyStoreId != one {
		t.Errorf("%+v", made)
	}
	again := must[*vp.CreatePolicyStoreAliasOutput](t)(create("acme/live", one))
	if !again.CreatedAt.Equal(*made.CreatedAt) {
		t.Error("the same alias was made twice")
	}
	_, err := create("acme/live", two)
	if e := wantException[*types.ConflictException](t, err); len(e.Resources) != 1 || e.Resources[0].ResourceType != types.ResourceTypePolicyStoreAlias {
		t.Errorf("%+v", e.Resources)
	}
	_, err = create("of-nothing", "never-was")
	wantException[*types.ResourceNotFoundException](t, err)

	// In the place of an id, everywhere; answers have the id.
	policy := newPolicy(ctx, t, c, *alias, "p", `permit (principal, action == Action::"view", resource);`)
	got := must[*vp.GetPolicyOutput](t)(c.GetPolicy(ctx, &vp.GetPolicyInput{PolicyStoreId: alias, PolicyId: &policy}))
	if *got.PolicyStoreId != one {
		t.Errorf("%s", *got.PolicyStoreId)
	}
	ask := func() (*vp.IsAuthorizedOutput, error) {
		return c.IsAuthorized(ctx, &vp.IsAuthorizedInput{PolicyStoreId: alias, Principal: entity("User", "u"), Action: action("view"), Resource: entity("Invoice", "i")})
	}
	if out := must[*vp.IsAuthorizedOutput](t)(ask()); out.Decision != types.DecisionAllow {
		t.Errorf("%+v", out)
	}
	must[*vp.UpdatePolicyStoreOutput](t)(c.UpdatePolicyStore(ctx, &vp.UpdatePolicyStoreInput{PolicyStoreId: alias, ValidationSettings: off(), DeletionProtection: types.DeletionProtectionEnabled}))
	_, err = c.DeletePolicyStoreAlias(ctx, &vp.DeletePolicyStoreAliasInput{AliasName: alias})
	wantException[*types.InvalidStateException](t, err)
	must[*vp.UpdatePolicyStoreOutput](t)(c.UpdatePolicyStore(ctx, &vp.UpdatePolicyStoreInput{PolicyStoreId: alias, ValidationSettings: off(), DeletionProtection: types.DeletionProtectionDisabled}))

	// Deleted: in force at once, the name kept for a day.
	for range 2 {
		must[*vp.DeletePolicyStoreAliasOutput](t)(c.DeletePolicyStoreAlias(ctx, &vp.DeletePolicyStoreAliasInput{AliasName: alias}))
	}
	_, err = ask()
	if e := wantException[*types.ResourceNotFoundException](t, err); e.ResourceType != types.ResourceTypePolicyStoreAlias || *e.ResourceId != *alias {
		t.Errorf("%+v", e)
	}
	shown := must[*vp.GetPolicyStoreAliasOutput](t)(c.GetPolicyStoreAlias(ctx, &vp.GetPolicyStoreAliasInput{AliasName: alias}))
	if shown.State != types.AliasStatePendingDeletion || *shown.PolicyStoreId != one {
		t.Errorf("%+v", shown)
	}
	for _, id := range []string{one, two} {
		_, err = create("acme/live", id)
		wantException[*types.ConflictException](t, err)
	}
	must[*vp.DeletePolicyStoreAliasOutput](t)(c.DeletePolicyStoreAlias(ctx, &vp.DeletePolicyStoreAliasInput{AliasName: alias, DeletionMode: types.DeletionModeHardDelete}))
	_, err = c.GetPolicyStoreAlias(ctx, &vp.GetPolicyStoreAliasInput{AliasName: alias})
	wantException[*types.ResourceNotFoundException](t, err)
	must[*vp.CreatePolicyStoreAliasOutput](t)(create("acme/live", two))
	if out := must[*vp.IsAuthorizedOutput](t)(ask()); out.Decision != types.DecisionDeny {
		t.Errorf("the alias still leads to its former policy store: %+v", out)
	}

	// With its policy store an alias goes too, and leads to nothing.
	must[*vp.DeletePolicyStoreOutput](t)(c.DeletePolicyStore(ctx, &vp.DeletePolicyStoreInput{PolicyStoreId: &two}))
	_, err = ask()
	wantException[*types.ResourceNotFoundException](t, err)
	must[*vp.CreatePolicyStoreAliasOutput](t)(create("acme/live", one))

	for i := range 9 {
		must[*vp.CreatePolicyStoreAliasOutput](t)(create(fmt.Sprint("n", i), one))
	}
	_, err = create("n9", one)
	if e := wantException[*types.ServiceQuotaExceededException](t, err); e.ResourceType != types.ResourceTypePolicyStoreAlias {
		t.Errorf("%+v", e)
	}
}

// Law 5: a list shows a key what it covers, and pages without loss.
func TestAliasesAreSeenByThoseTheyAreOf(t *testing.T) {
	ctx, s := t.Context(), start(t)
	c := s.root()
	mine, theirs := newPolicyStore(ctx, t, c), newPolicyStore(ctx, t, c)
	var all, own []string
	for i := range 8 {
		for id, name := range map[string]string{mine: fmt.Sprint("m", i), theirs: fmt.Sprint("t", i)} {
			name = policystore.AliasPrefix + name
			must[*vp.CreatePolicyStoreAliasOutput](t)(c.CreatePolicyStoreAlias(ctx, &vp.CreatePolicyStoreAliasInput{AliasName: &name, PolicyStoreId: &id}))
			all = append(all, name)
			if id == mine {
				own = append(own, name)
			}
		}
	}
	list := func(c *vp.Client, filter string) (names []string) {
		t.Helper()
		in := &vp.ListPolicyStoreAliasesInput{}
		if filter != "" {
			in.Filter = &types.PolicyStoreAliasFilter{PolicyStoreId: &filter}
		}
		pages := vp.NewListPolicyStoreAliasesPaginator(c, in)
		for n := 0; pages.HasMorePages(); n++ {
			page := must[*vp.ListPolicyStoreAliasesOutput](t)(pages.NextPage(ctx))
			if len(page.PolicyStoreAliases) > 5 {
				t.Errorf("a page of %d", len(page.PolicyStoreAliases))
			}
			for _, a := range page.PolicyStoreAliases {
				names = append(names, *a.AliasName)
			}
		}
		return names
	}
	scoped := s.key(t, access.Scope{PolicyStore: copse.PolicyStoreID(mine)}, access.Read)
	same := func(got, want []string) {
		t.Helper()
		if len(got) != len(want) || !cmp.Equal(setOf(got), setOf(want)) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	same(list(c, ""), all)
	same(list(c, mine), own)
	same(list(c, policystore.AliasPrefix+"m3"), own)
	same(list(c, "never-was"), nil)
	same(list(scoped, ""), own)
	same(list(scoped, mine), own)
	same(list(scoped, theirs), nil)
	same(list(scoped, policystore.AliasPrefix+"t3"), nil)
	same(list(s.key(t, access.Scope{PolicyStore: copse.PolicyStoreID(mine)}, access.Decide), ""), nil)
	same(list(s.key(t, access.Scope{All: true}, access.Decide), ""), nil)

	_, err := scoped.GetPolicyStoreAlias(ctx, &vp.GetPolicyStoreAliasInput{AliasName: aws.String(policystore.AliasPrefix + "t3")})
	wantException[*types.ResourceNotFoundException](t, err)
	must[*vp.GetPolicyStoreAliasOutput](t)(scoped.GetPolicyStoreAlias(ctx, &vp.GetPolicyStoreAliasInput{AliasName: aws.String(policystore.AliasPrefix + "m3")}))
	writer := s.key(t, access.Scope{PolicyStore: copse.PolicyStoreID(mine)}, access.Read|access.Write|access.Decide)
	_, err = writer.CreatePolicyStoreAlias(ctx, &vp.CreatePolicyStoreAliasInput{AliasName: aws.String(policystore.AliasPrefix + "new"), PolicyStoreId: &mine})
	wantException[*types.AccessDeniedException](t, err)
	_, err = writer.DeletePolicyStoreAlias(ctx, &vp.DeletePolicyStoreAliasInput{AliasName: aws.String(policystore.AliasPrefix + "m3")})
	wantException[*types.AccessDeniedException](t, err)
	_, err = writer.UpdatePolicyStore(ctx, &vp.UpdatePolicyStoreInput{PolicyStoreId: &mine, ValidationSettings: off()})
	wantException[*types.AccessDeniedException](t, err)
}

func setOf(names []string) map[string]bool {
	set := map[string]bool{}
	for _, n := range names {
		set[n] = true
	}
	return set
}

// On plan avp an operation is throttled at its own rate, with AVP's code; aliases of one policy store
// share what it has.
func TestThrottlingWithTheSDK(t *testing.T) {
	ctx, s := t.Context(), start(t)
	c := s.root()
	id := newPolicyStore(ctx, t, c)
	names := []string{id, policystore.AliasPrefix + "a", policystore.AliasPrefix + "b"}
	for _, name := range names[1:] {
		must[*vp.CreatePolicyStoreAliasOutput](t)(c.CreatePolicyStoreAlias(ctx, &vp.CreatePolicyStoreAliasInput{AliasName: &name, PolicyStoreId: &id}))
	}
	if _, err := s.policyStores.PutPlan(ctx, access.System(), slow()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.policyStores.Update(ctx, access.System(), copse.PolicyStoreID(id), policystore.Update{Plan: aws.String("slow")}); err != nil {
		t.Fatal(err)
	}
	// One call a second: of many in a row only those that a new second let through are answered.
	begun, answered := time.Now(), 0
	var throttled *types.ThrottlingException
	for i := range 30 {
		_, err := c.GetPolicyStore(ctx, &vp.GetPolicyStoreInput{PolicyStoreId: &names[i%len(names)]})
		if err == nil {
			answered++
		} else {
			throttled = wantException[*types.ThrottlingException](t, err)
		}
	}
	if most := 1 + int(time.Since(begun)/time.Second) + 1; answered < 1 || answered > most {
		t.Errorf("%d of 30 calls were answered, want at most %d", answered, most)
	}
	if throttled == nil || *throttled.ServiceCode != "verifiedpermissions" || *throttled.QuotaCode != "L-E1924570" {
		t.Fatalf("%+v", throttled)
	}
	for {
		a := s.call(t, "GetPolicyStore", `{"policyStoreId":"`+id+`"}`)
		if a.status == http.StatusOK {
			continue
		}
		if a.status != http.StatusBadRequest || a.header.Get("Retry-After") != "1" || a.error(t).Type != "ThrottlingException" {
			t.Errorf("%d %v %s", a.status, a.header, a.body)
		}
		return
	}
}

func slow() policystore.Plan {
	return policystore.Plan{Name: "slow", Quotas: policystore.Quotas{
		PolicyBytes: 1, SchemaBytes: 1, ScopeBytes: 1, Namespaces: 1, Operations: map[string]int{"GetPolicyStore": 1},
	}}
}
