package conformance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	vp "github.com/aws/aws-sdk-go-v2/service/verifiedpermissions"
	"github.com/aws/aws-sdk-go-v2/service/verifiedpermissions/types"
	"github.com/aws/smithy-go"
)

// run is one client going through the whole API. A check that fails ends that client's run only.
type run struct {
	t   *testing.T
	ctx context.Context
	c   *vp.Client
	// issuer signs what the policy stores believe; stranger signs the same with a key of its own.
	issuer, stranger *issuer
	name             string // unique among the runs of a server
}

// client is the SDK's, unmodified, without retries so that a test sees each error once.
func (s *server) client(transport http.RoundTripper) *vp.Client {
	return vp.New(vp.Options{
		Region: "eu-west-1", BaseEndpoint: aws.String(s.URL), Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider(s.AccessKeyID, s.SecretAccessKey, ""),
		HTTPClient:  &http.Client{Transport: transport},
	})
}

// scenarios each make policy stores of their own, so that any number can run at a time.
var scenarios = map[string]func(*run){
	"policy stores":    (*run).policyStores,
	"aliases":          (*run).aliases,
	"schema":           (*run).schema,
	"static policies":  (*run).staticPolicies,
	"templates":        (*run).templates,
	"batch get":        (*run).batchGet,
	"paging":           (*run).paging,
	"identity sources": (*run).identitySources,
	"decisions":        (*run).decisions,
	"batch decisions":  (*run).batchDecisions,
	"token decisions":  (*run).tokenDecisions,
	"quotas":           (*run).quotas,
	"client tokens":    (*run).clientTokens,
	"absent things":    (*run).absentThings,
}

// runAll runs every scenario clients times, all of it at once, and returns when all have ended.
func runAll(t *testing.T, s *server, watch *recorder, clients int) {
	t.Helper()
	var all sync.WaitGroup
	for i := range clients {
		c := s.client(watch)
		for name, scenario := range scenarios {
			all.Go(func() {
				scenario(&run{t: t, ctx: t.Context(), c: c, issuer: s.issuer, stranger: s.stranger, name: fmt.Sprintf("%d-%s", i, name)})
			})
		}
	}
	all.Wait()
}

// The whole API through the SDK, once. Every operation succeeds, and every exception that an operation
// documents is seen, but for those that unprovoked names.
func TestWholeAPI(t *testing.T) {
	watch, s := newRecorder(t), start(t)
	runAll(t, s, watch, 1)
	for operation := range watch.model.Operations {
		if watch.count(operation, "") == 0 {
			t.Errorf("%s never succeeded", operation)
		}
		for _, exception := range watch.model.errorsOf(operation) {
			seen := watch.count(operation, exception) > 0
			_, excused := unprovoked[exception]
			if !excused {
				_, excused = unprovoked[operation+" "+exception]
			}
			if !seen && !excused {
				t.Errorf("%s never answered %s", operation, exception)
			}
		}
	}
}

// unprovoked are documented exceptions that this suite does not cause, and where they are caused.
var unprovoked = map[string]string{
	"InternalServerException": "a defect or a broken disk: internal/avp",
	"ThrottlingException":     "this server's plan has no rates: testdata/throttling.txt",
	"AccessDeniedException":   "the key may do everything: testdata/access-denied.txt",
	"ValidationException":     "TestEveryMemberIsValidated",
	// What AVP answers to writes at the same time, copse tries again by itself.
	"PutSchema ConflictException":            "a concurrent change",
	"UpdatePolicyStore ConflictException":    "a concurrent change",
	"UpdateIdentitySource ConflictException": "a concurrent change",
	"DeleteIdentitySource ConflictException": "a concurrent change",
	"DeletePolicy ConflictException":         "a concurrent change",
	"DeletePolicyTemplate ConflictException": "a concurrent change",
	// Differences that docs/avp.md lists.
	"CreatePolicyStore ServiceQuotaExceededException": "there is no cap on policy stores",
	"DeletePolicyStoreAlias InvalidStateException":    "an alias has no state that stands in the way",
}

// The same, 32 clients at once: no answer differs from what a client alone gets.
func TestThirtyTwoClients(t *testing.T) {
	watch, s := newRecorder(t), start(t)
	runAll(t, s, watch, 32)
	if n := watch.count("CreatePolicyStore", ""); n < 32*len(scenarios) {
		t.Errorf("only %d policy stores were made", n)
	}
}

func (r *run) fatalf(format string, args ...any) {
	r.t.Helper()
	r.t.Errorf(r.name+": "+format, args...)
	runtime.Goexit()
}

// ok ends the run for an error.
func (r *run) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.fatalf("%v", err)
	}
}

// check goes on.
func (r *run) check(right bool, format string, args ...any) {
	r.t.Helper()
	if !right {
		r.t.Errorf(r.name+": "+format, args...)
	}
}

// throws asks for an exception of the SDK's type E.
func throws[E error](r *run, err error) (e E) {
	r.t.Helper()
	e, ok := errors.AsType[E](err)
	if !ok {
		r.fatalf("want a %T, got %v", e, err)
	}
	return e
}

// throwsCode asks for an exception by its code.
func (r *run) throwsCode(err error, code string) {
	r.t.Helper()
	e, ok := errors.AsType[smithy.APIError](err)
	r.check(ok && e.ErrorCode() == code, "want %s, got %v", code, err)
}

func value[T any](r *run) func(v *T, err error) *T {
	return func(v *T, err error) *T {
		r.t.Helper()
		r.ok(err)
		return v
	}
}

const schemaJSON = `{"Shop": {
	"entityTypes": {
		"User": {"memberOfTypes": ["Role"], "shape": {"type": "Record", "attributes": {"level": {"type": "Long", "required": false}}}},
		"Role": {},
		"Invoice": {"shape": {"type": "Record", "attributes": {"owner": {"type": "Entity", "name": "User", "required": false}}}, "tags": {"type": "String"}}
	},
	"actions": {
		"look": {},
		"view": {"memberOf": [{"id": "look"}], "appliesTo": {"principalTypes": ["User"], "resourceTypes": ["Invoice"]}},
		"pay": {"appliesTo": {"principalTypes": ["User"], "resourceTypes": ["Invoice"]}}
	}
}}`

// newPolicyStore makes one of a mode; a strict one has the schema above.
func (r *run) newPolicyStore(mode types.ValidationMode) *string {
	r.t.Helper()
	ps := value[vp.CreatePolicyStoreOutput](r)(r.c.CreatePolicyStore(r.ctx, &vp.CreatePolicyStoreInput{
		ValidationSettings: &types.ValidationSettings{Mode: mode},
	}))
	if mode == types.ValidationModeStrict {
		value[vp.PutSchemaOutput](r)(r.c.PutSchema(r.ctx, &vp.PutSchemaInput{
			PolicyStoreId: ps.PolicyStoreId, Definition: &types.SchemaDefinitionMemberCedarJson{Value: schemaJSON},
		}))
	}
	return ps.PolicyStoreId
}

func static(statement string) types.PolicyDefinition {
	return &types.PolicyDefinitionMemberStatic{Value: types.StaticPolicyDefinition{Statement: &statement}}
}

func link(template *string, principal, resource *types.EntityIdentifier) types.PolicyDefinition {
	return &types.PolicyDefinitionMemberTemplateLinked{Value: types.TemplateLinkedPolicyDefinition{
		PolicyTemplateId: template, Principal: principal, Resource: resource,
	}}
}

func (r *run) newPolicy(ps *string, definition types.PolicyDefinition) *string {
	r.t.Helper()
	return value[vp.CreatePolicyOutput](r)(r.c.CreatePolicy(r.ctx, &vp.CreatePolicyInput{PolicyStoreId: ps, Definition: definition})).PolicyId
}

func (r *run) newTemplate(ps *string, statement string) *string {
	r.t.Helper()
	return value[vp.CreatePolicyTemplateOutput](r)(r.c.CreatePolicyTemplate(r.ctx, &vp.CreatePolicyTemplateInput{
		PolicyStoreId: ps, Statement: &statement,
	})).PolicyTemplateId
}

func entity(entityType, id string) *types.EntityIdentifier {
	return &types.EntityIdentifier{EntityType: aws.String("Shop::" + entityType), EntityId: &id}
}

func action(id string) *types.ActionIdentifier {
	return &types.ActionIdentifier{ActionType: aws.String("Shop::Action"), ActionId: &id}
}

// decides asks who may do what to an invoice, and expects an answer by certain policies.
func (r *run) decides(ps *string, user, act, invoice string, want types.Decision, by ...*string) {
	r.t.Helper()
	out := value[vp.IsAuthorizedOutput](r)(r.c.IsAuthorized(r.ctx, &vp.IsAuthorizedInput{
		PolicyStoreId: ps, Principal: entity("User", user), Action: action(act), Resource: entity("Invoice", invoice),
	}))
	r.check(out.Decision == want && sameIDs(out.DeterminingPolicies, by), "%s %s %s: %s by %v, want %s", user, act, invoice, out.Decision, out.DeterminingPolicies, want)
}

func sameIDs(items []types.DeterminingPolicyItem, want []*string) bool {
	var got, ids []string
	for _, item := range items {
		got = append(got, *item.PolicyId)
	}
	for _, id := range want {
		ids = append(ids, *id)
	}
	slices.Sort(got)
	slices.Sort(ids)
	return slices.Equal(got, ids)
}
