package copsetest_test

import (
	"fmt"
	"testing/fstest"

	"github.com/copse-authz/copse/copsetest"
)

// In a test, t is its *testing.T.
func ExampleStart() {
	t := &exampleT{}
	defer t.end()

	srv := copsetest.Start(t)
	srv.CreateTenant(t, "acme", copsetest.Contents{
		Policies: map[string]string{
			"clerks-view": `permit (principal in Role::"clerk", action == Action::"view", resource);`,
		},
	})
	const body = `{"action":{"id":"view"},"resource":{"type":"Invoice","id":"17"}}`

	answer := srv.Authorize(t, srv.Token(t, "acme", "alice", copsetest.Groups("clerk")), body)
	fmt.Println(answer.Decision, answer.Policies)
	answer = srv.Authorize(t, srv.Token(t, "acme", "bob"), body)
	fmt.Println(answer.Decision, answer.Reason)
	answer = srv.Authorize(t, srv.Token(t, "globex", "alice", copsetest.Groups("clerk")), body)
	fmt.Println(answer.Status)
	// Output:
	// ALLOW [clerks-view]
	// DENY no policy applied
	// 403
}

// A tenant's own issuer may speak for that tenant only.
func ExampleServer_TrustIssuer() {
	t := &exampleT{}
	defer t.end()

	srv := copsetest.Start(t)
	everybody := copsetest.Contents{Policies: map[string]string{"all": `permit (principal, action, resource);`}}
	srv.CreateTenant(t, "acme", everybody)
	srv.CreateTenant(t, "globex", everybody)
	srv.TrustIssuer(t, "acme-idp", "acme")
	const body = `{"action":{"id":"view"},"resource":{"type":"Invoice","id":"17"}}`

	for _, tenant := range []string{"acme", "globex"} {
		token := srv.Token(t, "acme", "alice", copsetest.From("acme-idp"), copsetest.Claim("tenant_id", tenant))
		fmt.Println(tenant, srv.Authorize(t, token, body).Status)
	}
	// Output:
	// acme 200
	// globex 403
}

func ExampleServer_CreateTenantFrom() {
	t := &exampleT{}
	defer t.end()

	srv := copsetest.Start(t)
	srv.CreateTenantFrom(t, "acme", fstest.MapFS{ // in a test: os.DirFS("policies/acme")
		"schema.cedarschema": {Data: []byte(`entity User; entity Doc { owner: User }; action edit appliesTo { principal: User, resource: Doc };`)},
		"owner.cedar":        {Data: []byte(`permit (principal, action, resource is Doc) when { resource.owner == principal };`)},
	})
	answer := srv.Authorize(t, srv.Token(t, "acme", "alice"), `{
		"action":   {"id": "edit"},
		"resource": {"type": "Doc", "id": "1"},
		"entities": {"cedarJson": [
			{"uid": {"type": "Doc", "id": "1"}, "attrs": {"owner": {"__entity": {"type": "User", "id": "alice"}}}, "parents": []}
		]}}`)
	fmt.Println(answer.Decision, answer.Policies)
	// Output: ALLOW [owner]
}

// exampleT stands in for a *testing.T, which examples have none of.
type exampleT struct{ cleanups []func() }

func (*exampleT) Helper()                           {}
func (*exampleT) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (t *exampleT) Cleanup(f func())                { t.cleanups = append(t.cleanups, f) }

func (t *exampleT) end() {
	for i := len(t.cleanups) - 1; i >= 0; i-- {
		t.cleanups[i]()
	}
}
