package avp

import (
	"errors"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	vp "github.com/aws/aws-sdk-go-v2/service/verifiedpermissions"
	"github.com/aws/aws-sdk-go-v2/service/verifiedpermissions/types"
)

// A client token makes a call repeatable: the same answer for the same call, a conflict for another.
func TestClientTokensWithTheSDK(t *testing.T) {
	ctx, s := t.Context(), start(t)
	c := s.root()
	newStore := func(token, description string) (*vp.CreatePolicyStoreOutput, error) {
		return c.CreatePolicyStore(ctx, &vp.CreatePolicyStoreInput{ClientToken: &token, Description: &description,
			ValidationSettings: &types.ValidationSettings{Mode: types.ValidationModeOff}})
	}
	ps := must[*vp.CreatePolicyStoreOutput](t)(newStore("token-1", "one"))
	again := must[*vp.CreatePolicyStoreOutput](t)(newStore("token-1", "one"))
	if *again.PolicyStoreId != *ps.PolicyStoreId || *again.Arn != *ps.Arn || !again.CreatedDate.Equal(*ps.CreatedDate) {
		t.Errorf("CreatePolicyStore: %+v, then %+v", ps, again)
	}
	_, err := newStore("token-1", "two")
	wantConflict(t, err, types.ResourceTypePolicyStore, *ps.PolicyStoreId)

	create := func(token, statement string) (*vp.CreatePolicyOutput, error) {
		return c.CreatePolicy(ctx, &vp.CreatePolicyInput{PolicyStoreId: ps.PolicyStoreId, ClientToken: &token, Name: aws.String("name/once"),
			Definition: &types.PolicyDefinitionMemberStatic{Value: types.StaticPolicyDefinition{Statement: &statement}}})
	}
	const statement = `forbid (principal == User::"mallory", action in [Action::"view", Action::"pay"], resource == Invoice::"i1");`
	policy := must[*vp.CreatePolicyOutput](t)(create("token-1", statement))
	same := must[*vp.CreatePolicyOutput](t)(create("token-1", statement))
	if *same.PolicyId != *policy.PolicyId || same.Effect != policy.Effect || len(same.Actions) != 2 || *same.Principal.EntityId != "mallory" ||
		*same.Resource.EntityId != "i1" || !same.CreatedDate.Equal(*policy.CreatedDate) || !same.LastUpdatedDate.Equal(*policy.LastUpdatedDate) {
		t.Errorf("CreatePolicy: %+v, then %+v", policy, same)
	}
	_, err = create("token-1", `forbid (principal, action, resource);`)
	wantConflict(t, err, types.ResourceTypePolicy, *policy.PolicyId)
	_, err = create("token-2", statement)
	wantConflict(t, err, types.ResourceTypePolicy, "name/once") // another call, and the name is taken
}

func wantConflict(t *testing.T, err error, resource types.ResourceType, id string) {
	t.Helper()
	e, ok := errors.AsType[*types.ConflictException](err)
	if !ok || len(e.Resources) != 1 || e.Resources[0].ResourceType != resource || *e.Resources[0].ResourceId != id {
		t.Errorf("got %v %+v, want a conflict about %s %s", err, e, resource, id)
	}
}
