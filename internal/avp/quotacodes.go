package avp

import "github.com/copse-authz/copse"

// rateCodes are AWS's codes of the quotas on requests per second, by operation. Operations that are not
// here have a quota without a published code, or none.
var rateCodes = map[string]string{
	"IsAuthorized": "L-771544C7", "IsAuthorizedWithToken": "L-645D3857",
	"BatchIsAuthorized": "L-9DB5CAA4", "BatchIsAuthorizedWithToken": "L-1FC83DB7",
	"BatchGetPolicy": "L-DE99D97D", "GetPolicy": "L-C9736881", "ListPolicies": "L-4E0E8AFD",
	"CreatePolicy": "L-9647C866", "UpdatePolicy": "L-2AFF096D", "DeletePolicy": "L-F81CF58F",
	"CreatePolicyTemplate": "L-8D5CB09F", "UpdatePolicyTemplate": "L-DC54B663", "DeletePolicyTemplate": "L-5CA93A13",
	"GetPolicyTemplate": "L-D82415D2", "ListPolicyTemplates": "L-70239429",
	"GetSchema": "L-B49B9779", "PutSchema": "L-886D79EB",
	"CreateIdentitySource": "L-6DD21905", "UpdateIdentitySource": "L-D2870CD3", "DeleteIdentitySource": "L-38A7DE67",
	"GetIdentitySource": "L-5A76F227", "ListIdentitySources": "L-8E2326FF",
	"GetPolicyStore": "L-E1924570", "ListPolicyStores": "L-271BE7E8",
}

// countCodes are the codes of quotas on numbers, as far as they are published.
var countCodes = map[copse.ResourceType]string{
	copse.ResourceTemplate: "L-97BDA0CF",
}
