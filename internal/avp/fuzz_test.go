package avp

import (
	"errors"
	"math/rand/v2"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
)

// rightBodies has a request with everything in it for each operation: what mutations begin with.
var rightBodies = map[string][]string{
	"CreatePolicyStore": {
		`{"clientToken":"t-1","validationSettings":{"mode":"STRICT"},"description":"d","deletionProtection":"ENABLED","encryptionSettings":{"default":{}},"tags":{"k":"v"}}`,
		`{"validationSettings":{"mode":"OFF"},"encryptionSettings":{"kmsEncryptionSettings":{"key":"alias/k","encryptionContext":{"a":"b"}}}}`,
	},
	"GetPolicyStore":         {`{"policyStoreId":"ps","tags":true}`},
	"ListPolicyStores":       {`{"maxResults":3,"nextToken":"AAAA"}`},
	"UpdatePolicyStore":      {`{"policyStoreId":"ps","validationSettings":{"mode":"OFF"},"deletionProtection":"DISABLED","description":""}`},
	"DeletePolicyStore":      {`{"policyStoreId":"ps"}`},
	"CreatePolicyStoreAlias": {`{"aliasName":"policy-store-alias/a","policyStoreId":"ps"}`},
	"GetPolicyStoreAlias":    {`{"aliasName":"policy-store-alias/a"}`},
	"DeletePolicyStoreAlias": {`{"aliasName":"policy-store-alias/a","deletionMode":"HardDelete"}`},
	"ListPolicyStoreAliases": {`{"filter":{"policyStoreId":"ps"},"maxResults":5,"nextToken":"AAAA"}`},
	"TagResource":            {`{"resourceArn":"arn:aws:verifiedpermissions::000000000000:policy-store/ps","tags":{"k":"v","l":""}}`},
	"UntagResource":          {`{"resourceArn":"arn:aws:verifiedpermissions::000000000000:policy-store/ps","tagKeys":["k"]}`},
	"ListTagsForResource":    {`{"resourceArn":"arn:aws:verifiedpermissions::000000000000:policy-store/ps"}`},
	"PutSchema":              {`{"policyStoreId":"ps","definition":{"cedarJson":"{\"\":{\"entityTypes\":{},\"actions\":{}}}"}}`},
	"GetSchema":              {`{"policyStoreId":"ps"}`},
	"CreatePolicy": {
		`{"policyStoreId":"ps","clientToken":"t","name":"name/n","definition":{"static":{"statement":"permit (principal, action, resource);","description":"d"}}}`,
		`{"policyStoreId":"ps","definition":{"templateLinked":{"policyTemplateId":"t","principal":{"entityType":"U","entityId":"u"},"resource":{"entityType":"R","entityId":"r"}}}}`,
	},
	"GetPolicy":    {`{"policyStoreId":"ps","policyId":"name/n"}`},
	"UpdatePolicy": {`{"policyStoreId":"ps","policyId":"p","name":"","definition":{"static":{"statement":"permit (principal, action, resource);"}}}`},
	"DeletePolicy": {`{"policyStoreId":"ps","policyId":"p"}`},
	"ListPolicies": {
		`{"policyStoreId":"ps","maxResults":1,"nextToken":"AAAA","filter":{"principal":{"identifier":{"entityType":"U","entityId":"u"}},"resource":{"unspecified":true},"policyType":"STATIC","policyTemplateId":"t"}}`,
	},
	"BatchGetPolicy":       {`{"requests":[{"policyStoreId":"ps","policyId":"p"},{"policyStoreId":"policy-store-alias/a","policyId":"name/n"}]}`},
	"CreatePolicyTemplate": {`{"policyStoreId":"ps","clientToken":"t","description":"d","name":"name/t","statement":"permit (principal == ?principal, action, resource);"}`},
	"GetPolicyTemplate":    {`{"policyStoreId":"ps","policyTemplateId":"t"}`},
	"UpdatePolicyTemplate": {`{"policyStoreId":"ps","policyTemplateId":"t","statement":"permit (principal == ?principal, action, resource);","description":"","name":"name/t"}`},
	"DeletePolicyTemplate": {`{"policyStoreId":"ps","policyTemplateId":"t"}`},
	"ListPolicyTemplates":  {`{"policyStoreId":"ps","maxResults":1,"nextToken":"AAAA"}`},
	"CreateIdentitySource": {
		`{"policyStoreId":"ps","clientToken":"t","principalEntityType":"U","configuration":{"cognitoUserPoolConfiguration":{"userPoolArn":"arn:aws:cognito-idp:eu-west-1:000000000000:userpool/eu-west-1_a","clientIds":["c"],"groupConfiguration":{"groupEntityType":"G"}}}}`,
		`{"policyStoreId":"ps","configuration":{"openIdConnectConfiguration":{"issuer":"https://i","entityIdPrefix":"p","groupConfiguration":{"groupClaim":"g","groupEntityType":"G"},"tokenSelection":{"accessTokenOnly":{"audiences":["a"],"principalIdClaim":"sub"}}}}}`,
	},
	"GetIdentitySource": {`{"policyStoreId":"ps","identitySourceId":"i"}`},
	"UpdateIdentitySource": {
		`{"policyStoreId":"ps","identitySourceId":"i","principalEntityType":"U","updateConfiguration":{"openIdConnectConfiguration":{"issuer":"https://i","tokenSelection":{"identityTokenOnly":{"clientIds":["a"]}}}}}`,
	},
	"DeleteIdentitySource": {`{"policyStoreId":"ps","identitySourceId":"i"}`},
	"ListIdentitySources":  {`{"policyStoreId":"ps","maxResults":1,"nextToken":"AAAA","filters":[{"principalEntityType":"U"}]}`},
	"IsAuthorized": {
		`{"policyStoreId":"ps","principal":{"entityType":"U","entityId":"u"},"action":{"actionType":"A::Action","actionId":"v"},"resource":{"entityType":"R","entityId":"r"},"context":{"contextMap":{"a":{"set":[{"long":1}]}}},"entities":{"entityList":[{"identifier":{"entityType":"R","entityId":"r"},"attributes":{"x":{"decimal":"1.0"}},"parents":[],"tags":{}}]}}`,
		`{"policyStoreId":"ps","principal":{"entityType":"U","entityId":"u"},"action":{"actionType":"Action","actionId":"v"},"resource":{"entityType":"R","entityId":"r"},"context":{"cedarJson":"{}"},"entities":{"cedarJson":"[]"}}`,
	},
	"BatchIsAuthorized": {
		`{"policyStoreId":"ps","entities":{"cedarJson":"[]"},"requests":[{"principal":{"entityType":"U","entityId":"u"},"action":{"actionType":"Action","actionId":"v"},"resource":{"entityType":"R","entityId":"r"},"context":{"contextMap":{}}}]}`,
	},
	"IsAuthorizedWithToken": {
		`{"policyStoreId":"ps","identityToken":"eyJhbGciOiJSUzI1NiJ9.e30.AAAA","action":{"actionType":"Action","actionId":"v"},"resource":{"entityType":"R","entityId":"r"},"context":{"contextMap":{}},"entities":{"entityList":[]}}`,
	},
	"BatchIsAuthorizedWithToken": {
		`{"policyStoreId":"ps","accessToken":"eyJhbGciOiJSUzI1NiJ9.e30.AAAA","entities":{"cedarJson":"[]"},"requests":[{"action":{"actionType":"Action","actionId":"v"},"resource":{"entityType":"R","entityId":"r"}}]}`,
	},
}

// bodyWords are what mutations put in.
var bodyWords = []string{
	"{", "}", "[", "]", ",", ":", `"`, `\`, `\u0000`, `\ud800`, "null", "true", "-1", "1e400", "9223372036854775808", "1.5", `""`, "{}", "[]", "\xff", "\x00",
	`"policyStoreId":"x",`, `"unknown":1,`, `"nextToken":"!",`, `"` + strings.Repeat("x", 700) + `"`, strings.Repeat("[", 200), strings.Repeat(`{"record":`, 50), "  ", `{"__entity":1}`,
}

// mutationsPerBody is how many mutated requests TestDecodersOnMutations makes of each right one.
const mutationsPerBody = 400

// Whatever bytes come as the body of a call: an answer or a refusal in AVP's terms, no panic, and
// memory in proportion. The caller covers nothing, so that a call ends where its message was read.
func TestDecodersOnMutations(t *testing.T) {
	s := start(t)
	random := rand.New(rand.NewPCG(1, 2))
	runs, read := 0, 0
	for _, op := range operations {
		bodies := rightBodies[op.name]
		if len(bodies) == 0 {
			t.Errorf("%s has no body to begin with", op.name)
		}
		for _, body := range bodies {
			if err := decodeOnly(t, s, op, []byte(body)); copse.KindOf(err) == copse.Invalid && !strings.Contains(body, "nextToken") {
				t.Errorf("%s: the right body is refused: %v\n%s", op.name, err, body)
			}
			for range mutationsPerBody {
				err := decodeOnly(t, s, op, mutate(random, body))
				runs++
				if err == nil || copse.KindOf(err) != copse.Invalid {
					read++
				}
			}
		}
	}
	if runs < len(operations)*mutationsPerBody || read < runs/50 {
		t.Errorf("%d mutated bodies, of which %d were read to their end", runs, read)
	}
}

// mutate changes a body in one to four places.
func mutate(random *rand.Rand, body string) []byte {
	out := []byte(body)
	for range 1 + random.IntN(4) {
		at := random.IntN(len(out) + 1)
		switch random.IntN(4) {
		case 0: // another word
			out = slices.Insert(out, at, []byte(bodyWords[random.IntN(len(bodyWords))])...)
		case 1: // a part less
			out = slices.Delete(out, at, min(len(out), at+1+random.IntN(12)))
		case 2: // a part twice
			end := min(len(out), at+random.IntN(60))
			out = slices.Insert(out, at, slices.Clone(out[at:end])...)
		default: // another byte
			if at < len(out) {
				out[at] ^= 1 << random.IntN(8)
			}
		}
	}
	return out
}

func FuzzDecoders(f *testing.F) {
	s := start(f)
	for name, bodies := range rightBodies {
		for _, body := range bodies {
			f.Add(name, []byte(body))
		}
	}
	f.Fuzz(func(t *testing.T, name string, body []byte) {
		if op, known := s.handler.operations[name]; known && len(body) <= copse.MaxRequestBytes {
			_ = decodeOnly(t, s, op, body)
		}
	})
}

// decodeOnly runs an operation for a caller that covers nothing, and checks how it ends.
func decodeOnly(t *testing.T, s *server, op operation, body []byte) error {
	t.Helper()
	before := allocated()
	answer, err := op.run(s.handler, t.Context(), &call{caller: access.Caller{KeyID: "nobody"}, body: slices.Clone(body), requestID: "r"})
	if grown := allocated() - before; grown > 2<<20+200*uint64(len(body)) {
		t.Errorf("%s: %d bytes are allocated for a body of %d: %.200q", op.name, grown, len(body), body)
	}
	if err == nil {
		if !jsontext.Value(answer).IsValid() {
			t.Errorf("%s: the answer is not JSON: %s", op.name, answer)
		}
		return nil
	}
	x, told := describe(err)
	if x.Status >= 500 || !jsontext.Value(told.marshal()).IsValid() || len(told.FieldList) > maxFields {
		t.Errorf("%s: %.200q ends in %+v: %v", op.name, body, x, err)
	}
	if e, ok := errors.AsType[*copse.Error](err); ok && e.Kind == copse.Invalid && len(e.Fields) == 0 {
		t.Errorf("%s: %.200q is refused without a place: %v", op.name, body, err)
	}
	return err
}

// allocated is how many bytes this process has allocated so far.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
