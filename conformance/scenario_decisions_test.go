package conformance

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	vp "github.com/aws/aws-sdk-go-v2/service/verifiedpermissions"
	"github.com/aws/aws-sdk-go-v2/service/verifiedpermissions/types"
)

// decisions: every type of value, in both forms, decides; and what is not a number in floating point.
func (r *run) decisions() {
	ps := r.newPolicyStore(types.ValidationModeOff)
	policy := r.newPolicy(ps, static(`permit (principal in Shop::Role::"top", action, resource) when {
		context.bool && context.long == 9007199254740993 && context.text == "ü" && context.list.contains(2) && context.record.inner == "x" &&
		context.ip.isInRange(ip("10.0.0.0/8")) && context.price.lessThan(decimal("2.0")) && context.at < datetime("2027-01-01") &&
		context.span == duration("1h") && context.who == principal && resource.owner == principal && resource.getTag("k") == "v" };`))
	broken := r.newPolicy(ps, static(`forbid (principal, action, resource) when { resource.nothing > 1 };`))
	contextMap := &types.ContextDefinitionMemberContextMap{Value: map[string]types.AttributeValue{
		"bool":   &types.AttributeValueMemberBoolean{Value: true},
		"long":   &types.AttributeValueMemberLong{Value: 9007199254740993},
		"text":   &types.AttributeValueMemberString{Value: "ü"},
		"list":   &types.AttributeValueMemberSet{Value: []types.AttributeValue{&types.AttributeValueMemberLong{Value: 1}, &types.AttributeValueMemberLong{Value: 2}}},
		"record": &types.AttributeValueMemberRecord{Value: map[string]types.AttributeValue{"inner": &types.AttributeValueMemberString{Value: "x"}}},
		"ip":     &types.AttributeValueMemberIpaddr{Value: "10.1.2.3"},
		"price":  &types.AttributeValueMemberDecimal{Value: "1.99"},
		"at":     &types.AttributeValueMemberDatetime{Value: "2026-11-25T08:00:00Z"},
		"span":   &types.AttributeValueMemberDuration{Value: "60m"},
		"who":    &types.AttributeValueMemberEntityIdentifier{Value: *entity("User", "alice")},
	}}
	contextJSON := &types.ContextDefinitionMemberCedarJson{Value: `{"bool": true, "long": 9007199254740993, "text": "ü", "list": [1, 2], "record": {"inner": "x"},
		"ip": {"__extn": {"fn": "ip", "arg": "10.1.2.3"}}, "price": {"__extn": {"fn": "decimal", "arg": "1.99"}},
		"at": {"__extn": {"fn": "datetime", "arg": "2026-11-25T08:00:00Z"}}, "span": {"__extn": {"fn": "duration", "arg": "60m"}},
		"who": {"__entity": {"type": "Shop::User", "id": "alice"}}}`}
	owner := map[string]types.AttributeValue{"owner": &types.AttributeValueMemberEntityIdentifier{Value: *entity("User", "alice")}}
	entityList := &types.EntitiesDefinitionMemberEntityList{Value: []types.EntityItem{
		{Identifier: entity("User", "alice"), Parents: []types.EntityIdentifier{*entity("Role", "clerk")}},
		{Identifier: entity("Role", "clerk"), Parents: []types.EntityIdentifier{*entity("Role", "top")}},
		{Identifier: entity("Invoice", "1")}, // the last of two wins
		{Identifier: entity("Invoice", "1"), Attributes: owner, Tags: map[string]types.CedarTagValue{"k": &types.CedarTagValueMemberString{Value: "v"}}},
	}}
	const invoice = `{"uid": {"type": "Shop::Invoice", "id": "1"}, "attrs": {"owner": {"__entity": {"type": "Shop::User", "id": "alice"}}}, "tags": {"k": "v"}, "parents": []}`
	const people = `{"uid": {"type": "Shop::User", "id": "alice"}, "attrs": {}, "parents": [{"type": "Shop::Role", "id": "clerk"}]},
		{"uid": {"type": "Shop::Role", "id": "clerk"}, "attrs": {}, "parents": [{"type": "Shop::Role", "id": "top"}]}`
	entitiesJSON := &types.EntitiesDefinitionMemberCedarJson{Value: "[" + people + ", " + invoice + "]"}
	ask := func(ctx types.ContextDefinition, entities types.EntitiesDefinition) (*vp.IsAuthorizedOutput, error) {
		return r.c.IsAuthorized(r.ctx, &vp.IsAuthorizedInput{PolicyStoreId: ps, Principal: entity("User", "alice"), Action: action("view"),
			Resource: entity("Invoice", "1"), Context: ctx, Entities: entities})
	}
	for _, ctx := range []types.ContextDefinition{contextMap, contextJSON} {
		for _, entities := range []types.EntitiesDefinition{entityList, entitiesJSON} {
			out := value[vp.IsAuthorizedOutput](r)(ask(ctx, entities))
			r.check(out.Decision == types.DecisionAllow && sameIDs(out.DeterminingPolicies, []*string{policy}), "%T %T: %+v", ctx, entities, out)
			r.check(len(out.Errors) == 1 && strings.Contains(*out.Errors[0].ErrorDescription, *broken), "errors %+v", out.Errors)
		}
	}
	contextMap.Value["long"] = &types.AttributeValueMemberLong{Value: 9007199254740992}
	out := value[vp.IsAuthorizedOutput](r)(ask(contextMap, entityList))
	r.check(out.Decision == types.DecisionDeny && len(out.DeterminingPolicies) == 0, "the neighbour of 2^53+1 is taken for it: %+v", out)
	// In Cedar's own form an entity defined twice is a mistake; actions come from the schema only.
	throws[*types.ValidationException](r, second(ask(nil, &types.EntitiesDefinitionMemberCedarJson{Value: "[" + invoice + "," + invoice + "]"})))
	throws[*types.ValidationException](r, second(ask(nil, &types.EntitiesDefinitionMemberEntityList{Value: []types.EntityItem{{Identifier: &types.EntityIdentifier{
		EntityType: aws.String("Shop::Action"), EntityId: aws.String("view")}}}})))
}

func (r *run) batchDecisions() {
	ps := r.newPolicyStore(types.ValidationModeStrict)
	policy := r.newPolicy(ps, static(`permit (principal == Shop::User::"alice", action in Shop::Action::"look", resource);`))
	item := func(user, act, invoice string) types.BatchIsAuthorizedInputItem {
		return types.BatchIsAuthorizedInputItem{Principal: entity("User", user), Action: action(act), Resource: entity("Invoice", invoice)}
	}
	batch := func(items ...types.BatchIsAuthorizedInputItem) (*vp.BatchIsAuthorizedOutput, error) {
		return r.c.BatchIsAuthorized(r.ctx, &vp.BatchIsAuthorizedInput{PolicyStoreId: ps, Requests: items})
	}
	out := value[vp.BatchIsAuthorizedOutput](r)(batch(item("alice", "view", "1"), item("alice", "pay", "1"), item("alice", "view", "2")))
	r.check(len(out.Results) == 3, "%d results", len(out.Results))
	for i, want := range []types.Decision{types.DecisionAllow, types.DecisionDeny, types.DecisionAllow} {
		got := out.Results[i]
		r.check(got.Decision == want && *got.Request.Resource.EntityId == []string{"1", "1", "2"}[i], "result %d: %+v", i, got)
		// A batch is its single questions.
		by := []*string{policy}
		if want == types.DecisionDeny {
			by = nil
		}
		r.check(sameIDs(got.DeterminingPolicies, by), "result %d by %v", i, got.DeterminingPolicies)
		r.decides(ps, *got.Request.Principal.EntityId, *got.Request.Action.ActionId, *got.Request.Resource.EntityId, want, by...)
	}
	// One principal or one resource, and at most 30.
	_, err := batch(item("alice", "view", "1"), item("bob", "view", "2"))
	throws[*types.ValidationException](r, err)
	value[vp.BatchIsAuthorizedOutput](r)(batch(item("alice", "view", "1"), item("bob", "view", "1")))
	var many []types.BatchIsAuthorizedInputItem
	for range 31 {
		many = append(many, item("alice", "view", "1"))
	}
	throws[*types.ValidationException](r, second(batch(many...)))
	out = value[vp.BatchIsAuthorizedOutput](r)(batch(many[:30]...))
	r.check(len(out.Results) == 30, "%d results", len(out.Results))
}
