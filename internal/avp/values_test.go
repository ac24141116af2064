package avp

import (
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	vp "github.com/aws/aws-sdk-go-v2/service/verifiedpermissions"
	"github.com/aws/aws-sdk-go-v2/service/verifiedpermissions/types"
)

// sdkValue is one value in each way a request can say it.
type sdkValue struct {
	attribute types.AttributeValue
	tag       types.CedarTagValue
	json      string
}

// Every type of value reaches policies from each place of a request, in both forms, as itself: the policy
// that asks for it is satisfied, and not by its neighbour.
func TestEveryValueTypeWithTheSDK(t *testing.T) {
	long := func(n int64) sdkValue {
		return sdkValue{&types.AttributeValueMemberLong{Value: n}, &types.CedarTagValueMemberLong{Value: n}, fmt.Sprint(n)}
	}
	text := func(s string) sdkValue {
		return sdkValue{&types.AttributeValueMemberString{Value: s}, &types.CedarTagValueMemberString{Value: s}, fmt.Sprintf("%q", s)}
	}
	boolean := func(b bool) sdkValue {
		return sdkValue{&types.AttributeValueMemberBoolean{Value: b}, &types.CedarTagValueMemberBoolean{Value: b}, fmt.Sprint(b)}
	}
	uid := func(id string) sdkValue {
		return sdkValue{&types.AttributeValueMemberEntityIdentifier{Value: *entity("User", id)},
			&types.CedarTagValueMemberEntityIdentifier{Value: *entity("User", id)}, fmt.Sprintf(`{"__entity": {"type": "User", "id": %q}}`, id)}
	}
	set := func(of sdkValue) sdkValue {
		return sdkValue{&types.AttributeValueMemberSet{Value: []types.AttributeValue{of.attribute, of.attribute}},
			&types.CedarTagValueMemberSet{Value: []types.CedarTagValue{of.tag}}, "[" + of.json + "," + of.json + "]"}
	}
	record := func(of sdkValue) sdkValue {
		return sdkValue{&types.AttributeValueMemberRecord{Value: map[string]types.AttributeValue{"m": of.attribute}},
			&types.CedarTagValueMemberRecord{Value: map[string]types.CedarTagValue{"m": of.tag}}, `{"m": ` + of.json + "}"}
	}
	extension := func(fn, arg string, attribute types.AttributeValue, tag types.CedarTagValue) sdkValue {
		return sdkValue{attribute, tag, fmt.Sprintf(`{"__extn": {"fn": %q, "arg": %q}}`, fn, arg)}
	}
	ip := func(s string) sdkValue {
		return extension("ip", s, &types.AttributeValueMemberIpaddr{Value: s}, &types.CedarTagValueMemberIpaddr{Value: s})
	}
	decimal := func(s string) sdkValue {
		return extension("decimal", s, &types.AttributeValueMemberDecimal{Value: s}, &types.CedarTagValueMemberDecimal{Value: s})
	}
	datetime := func(s string) sdkValue {
		return extension("datetime", s, &types.AttributeValueMemberDatetime{Value: s}, &types.CedarTagValueMemberDatetime{Value: s})
	}
	duration := func(s string) sdkValue {
		return extension("duration", s, &types.AttributeValueMemberDuration{Value: s}, &types.CedarTagValueMemberDuration{Value: s})
	}

	ctx, s := t.Context(), start(t)
	c := s.root()
	made := must[*vp.CreatePolicyStoreOutput](t)(c.CreatePolicyStore(ctx, &vp.CreatePolicyStoreInput{
		ValidationSettings: &types.ValidationSettings{Mode: types.ValidationModeOff}}))
	asked := 0
	for name, test := range map[string]struct {
		cedar       string // what the policy compares with
		value, next sdkValue
	}{
		"boolean":            {"true", boolean(true), boolean(false)},
		"long":               {"9007199254740993", long(9007199254740993), long(9007199254740992)},
		"most-negative-long": {"-9223372036854775808", long(-9223372036854775808), long(-9223372036854775807)},
		"string":             {`"ü"`, text("ü"), text("u")},
		"entity":             {`User::"alice"`, uid("alice"), uid("Alice")},
		"set":                {"[1]", set(long(1)), set(long(2))},
		"record":             {`{m: {m: "x"}}`, record(record(text("x"))), record(text("x"))},
		"ipaddr":             {`ip("10.0.0.0/8")`, ip("10.0.0.0/8"), ip("10.0.0.0/9")},
		"decimal":            {`decimal("1.5")`, decimal("1.5000"), decimal("1.5001")},
		"datetime":           {`datetime("2026-01-01")`, datetime("2026-01-01T00:00:00Z"), datetime("2026-01-01T00:00:00.001Z")},
		"duration":           {`duration("1h")`, duration("60m"), duration("60m1ms")},
		"set of extensions":  {`[decimal("1.0")]`, set(decimal("1.0")), set(decimal("1.1"))},
	} {
		for place, read := range map[string]string{"attribute": "resource.v", "tag": `resource.getTag("v")`, "context": "context.v"} {
			id := newPolicy(ctx, t, c, *made.PolicyStoreId, "", fmt.Sprintf("permit (principal, action, resource) when { %s == %s };", read, test.cedar))
			for _, v := range []struct {
				sdkValue
				want types.Decision
			}{{test.value, types.DecisionAllow}, {test.next, types.DecisionDeny}} {
				item := types.EntityItem{Identifier: entity("Doc", "1")}
				in := vp.IsAuthorizedInput{PolicyStoreId: made.PolicyStoreId, Principal: entity("User", "u"), Action: action("view"), Resource: item.Identifier}
				cedar := in
				switch place {
				case "attribute":
					item.Attributes = map[string]types.AttributeValue{"v": v.attribute}
					cedar.Entities = &types.EntitiesDefinitionMemberCedarJson{Value: `[{"uid": {"type": "Doc", "id": "1"}, "attrs": {"v": ` + v.json + `}, "parents": []}]`}
				case "tag":
					item.Tags = map[string]types.CedarTagValue{"v": v.tag}
					cedar.Entities = &types.EntitiesDefinitionMemberCedarJson{Value: `[{"uid": {"type": "Doc", "id": "1"}, "attrs": {}, "tags": {"v": ` + v.json + `}, "parents": []}]`}
				case "context":
					in.Context = &types.ContextDefinitionMemberContextMap{Value: map[string]types.AttributeValue{"v": v.attribute}}
					cedar.Context = &types.ContextDefinitionMemberCedarJson{Value: `{"v": ` + v.json + `}`}
				}
				if place != "context" {
					in.Entities = &types.EntitiesDefinitionMemberEntityList{Value: []types.EntityItem{item}}
				}
				for form, in := range map[string]*vp.IsAuthorizedInput{"members": &in, "cedarJson": &cedar} {
					out := must[*vp.IsAuthorizedOutput](t)(c.IsAuthorized(ctx, in))
					if out.Decision != v.want || len(out.Errors) != 0 {
						t.Errorf("%s as %s, %s of %s: %s, errors %v", name, place, form, v.json, out.Decision, out.Errors)
					}
					asked++
				}
			}
			must[*vp.DeletePolicyOutput](t)(c.DeletePolicy(ctx, &vp.DeletePolicyInput{PolicyStoreId: made.PolicyStoreId, PolicyId: aws.String(id)}))
		}
	}
	if asked != 12*3*2*2 {
		t.Errorf("%d requests", asked)
	}
}
