package embedded_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/verifiedpermissions"
	avptypes "github.com/aws/aws-sdk-go-v2/service/verifiedpermissions/types"
	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/copsetest"
	"github.com/copse-authz/copse/embedded"
)

// verdict is what all ways of asking must agree on.
type verdict struct {
	Decision    string
	Determining []string // policy ids
	Errors      []string // as the AVP API words them
	Revision    uint64
}

// randomCase is one request, in the values of its parts.
type randomCase struct {
	tenant, user, action, doc string
	roles                     []string
	attrs                     map[string]any
	context                   map[string]any
}

func (c *randomCase) resourceJSON() string {
	text, _ := json.Marshal([]any{map[string]any{"uid": uidJSON("Doc", c.doc), "attrs": c.attrs, "parents": []any{uidJSON("Folder", "f"+c.doc[1:])}}}, json.Deterministic(true))
	return string(text)
}

func (c *randomCase) principalJSON() string {
	parents := []any{}
	for _, r := range c.roles {
		parents = append(parents, uidJSON("Role", r))
	}
	text, _ := json.Marshal([]any{map[string]any{"uid": uidJSON("User", c.user), "attrs": map[string]any{}, "parents": parents}}, json.Deterministic(true))
	return string(text)
}

func (c *randomCase) contextJSON() string {
	text, _ := json.Marshal(c.context, json.Deterministic(true))
	return string(text)
}

func uidJSON(entityType, id string) map[string]string {
	return map[string]string{"type": entityType, "id": id}
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

func randomPolicy(r *rand.Rand) string {
	scope := fmt.Sprintf("%s (%s, %s, %s)", pick(r, "permit", "permit", "permit", "forbid"),
		pick(r, "principal", `principal == User::"u1"`, `principal in Role::"r1"`, `principal is User`, `principal is User in Role::"r2"`),
		pick(r, "action", `action == Action::"a1"`, `action in [Action::"a1", Action::"a2"]`),
		pick(r, "resource", `resource == Doc::"d1"`, `resource in Folder::"f2"`, `resource is Doc`))
	condition := pick(r,
		"", "",
		`when { resource.level > 3 }`,
		`when { resource.owner == principal }`,
		`when { context has mfa && context.mfa }`,
		`unless { resource.labels.contains("secret") }`,
		`when { resource.name like "a*" }`,
		`when { context.absent == 1 }`,
		`when { resource.level + 9223372036854775807 > 0 }`,
		`when { resource.name > 3 }`,
		`when { principal in Role::"r3" || ip(context.from).isInRange(ip("10.0.0.0/8")) }`,
	)
	return scope + " " + condition + ";"
}

func randomRequest(r *rand.Rand, tenants int) randomCase {
	c := randomCase{
		tenant: fmt.Sprintf("tenant-%d", r.IntN(tenants)), user: pick(r, "u1", "u2", `u"3\`), action: pick(r, "a1", "a2", "a3"), doc: pick(r, "d1", "d2", "d3"),
		attrs: map[string]any{"level": r.IntN(7), "name": pick(r, "alpha", "beta"), "labels": pick(r, []string{"secret"}, []string{"x", "y"}, []string{})},
	}
	for _, role := range []string{"r1", "r2", "r3"} {
		if r.IntN(3) == 0 {
			c.roles = append(c.roles, role)
		}
	}
	if r.IntN(4) > 0 {
		c.attrs["owner"] = map[string]any{"__entity": uidJSON("User", pick(r, "u1", c.user))}
	}
	c.context = map[string]any{"from": map[string]any{"__extn": map[string]string{"fn": "ip", "arg": pick(r, "10.1.2.3", "192.0.2.1")}}}
	if r.IntN(2) == 0 {
		c.context["mfa"] = r.IntN(2) == 0
	}
	return c
}

// A server's two ways to decide and this package's agree on everything they say, at the same revision
// of the same data: law 12.
func TestLaw12EmbeddedEqualsServed(t *testing.T) {
	const tenants, requests = 12, 400
	r := rand.New(rand.NewPCG(20, 26))
	dir := t.TempDir()
	srv := copsetest.Start(t, copsetest.DataDir(dir))
	stores := map[string]copsetest.Tenant{}
	for i := range tenants {
		policies := map[string]string{}
		for n := range 3 + r.IntN(8) {
			policies[fmt.Sprintf("policy-%d", n)] = randomPolicy(r)
		}
		id := fmt.Sprintf("tenant-%d", i)
		stores[id] = srv.CreateTenant(t, copse.TenantID(id), copsetest.Contents{Policies: policies})
	}
	client := verifiedpermissions.New(verifiedpermissions.Options{
		Region: "eu-central-1", BaseEndpoint: aws.String(srv.URL),
		Credentials: credentials.NewStaticCredentialsProvider(srv.AccessKeyID, srv.SecretAccessKey, ""),
	})
	cases := make([]randomCase, requests)
	served := make([]verdict, requests)
	allowed, denied, failed := 0, 0, 0
	for i := range cases {
		c := randomRequest(r, tenants)
		cases[i] = c
		served[i] = authorize(t, srv, &c)
		signed := isAuthorized(t, client, string(stores[c.tenant].PolicyStoreID), &c)
		signed.Revision = served[i].Revision // AVP has no word for it
		if diff := cmp.Diff(served[i], signed); diff != "" {
			t.Fatalf("request %d %+v: /v1/authorize and IsAuthorized differ:\n%s", i, c, diff)
		}
		switch {
		case served[i].Decision == "ALLOW":
			allowed++
		case len(served[i].Determining) > 0:
			denied++
		}
		if len(served[i].Errors) > 0 {
			failed++
		}
	}
	if allowed < requests/5 || denied < requests/10 || failed < requests/5 {
		t.Errorf("of %d requests only %d were allowed, %d denied by a policy, %d had errors: the generator is too tame", requests, allowed, denied, failed)
	}
	if err := srv.Close(); err != nil {
		t.Fatal(err)
	}

	pdp, err := embedded.Open(dir, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer pdp.Close()
	for i := range cases {
		got := inProcess(t, pdp, &cases[i])
		if diff := cmp.Diff(served[i], got); diff != "" {
			t.Fatalf("request %d %+v: served and embedded differ:\n%s", i, cases[i], diff)
		}
	}
}

func authorize(t *testing.T, srv *copsetest.Server, c *randomCase) verdict {
	t.Helper()
	body, err := json.Marshal(map[string]any{
		"action": map[string]string{"id": c.action}, "resource": uidJSON("Doc", c.doc),
		"context":  map[string]any{"cedarJson": c.context},
		"entities": map[string]any{"cedarJson": c.resourceJSON()},
	})
	if err != nil {
		t.Fatal(err)
	}
	answer := srv.Authorize(t, srv.Token(t, copse.TenantID(c.tenant), c.user, copsetest.Groups(c.roles...)), string(body))
	var wire struct {
		Determining []struct {
			ID string `json:"policyId"`
		} `json:"determiningPolicies"`
		Errors []struct {
			ID   string `json:"policyId"`
			Text string `json:"errorDescription"`
		} `json:"errors"`
	}
	if err := json.Unmarshal([]byte(answer.Body), &wire); err != nil || answer.Status != 200 {
		t.Fatalf("%+v: %d %s", c, answer.Status, answer.Body)
	}
	v := verdict{Decision: answer.Decision, Revision: answer.Revision}
	for _, p := range wire.Determining {
		v.Determining = append(v.Determining, p.ID)
	}
	for _, e := range wire.Errors {
		v.Errors = append(v.Errors, "policy "+e.ID+": "+e.Text)
	}
	slices.Sort(v.Errors)
	return v
}

func isAuthorized(t *testing.T, client *verifiedpermissions.Client, policyStore string, c *randomCase) verdict {
	t.Helper()
	entities := strings.TrimSuffix(c.resourceJSON(), "]") + "," + strings.TrimPrefix(c.principalJSON(), "[")
	out, err := client.IsAuthorized(context.Background(), &verifiedpermissions.IsAuthorizedInput{
		PolicyStoreId: aws.String(policyStore),
		Principal:     &avptypes.EntityIdentifier{EntityType: aws.String("User"), EntityId: aws.String(c.user)},
		Action:        &avptypes.ActionIdentifier{ActionType: aws.String("Action"), ActionId: aws.String(c.action)},
		Resource:      &avptypes.EntityIdentifier{EntityType: aws.String("Doc"), EntityId: aws.String(c.doc)},
		Context:       &avptypes.ContextDefinitionMemberCedarJson{Value: c.contextJSON()},
		Entities:      &avptypes.EntitiesDefinitionMemberCedarJson{Value: entities},
	})
	if err != nil {
		t.Fatalf("%+v: %v", c, err)
	}
	v := verdict{Decision: string(out.Decision)}
	for _, p := range out.DeterminingPolicies {
		v.Determining = append(v.Determining, *p.PolicyId)
	}
	for _, e := range out.Errors {
		v.Errors = append(v.Errors, *e.ErrorDescription)
	}
	slices.Sort(v.Errors)
	return v
}

func inProcess(t *testing.T, pdp *embedded.PDP, c *randomCase) verdict {
	t.Helper()
	cedar := func(text string) copse.Data { return copse.Data{Format: copse.FormatCedarJSON, Bytes: []byte(text)} }
	resp, err := pdp.DecideFor(t.Context(), copse.TenantID(c.tenant), copse.Request{
		Principal: types.NewEntityUID("User", types.String(c.user)),
		Action:    types.NewEntityUID("Action", types.String(c.action)),
		Resource:  types.NewEntityUID("Doc", types.String(c.doc)),
		Context:   cedar(c.contextJSON()), Entities: cedar(c.resourceJSON()),
		ServerEntities: cedar(c.principalJSON()),
	})
	if err != nil {
		t.Fatalf("%+v: %v", c, err)
	}
	v := verdict{Decision: resp.Decision.String(), Revision: resp.Revision}
	for _, p := range resp.Determining {
		v.Determining = append(v.Determining, string(p.ID))
	}
	for _, e := range resp.Errors {
		v.Errors = append(v.Errors, "policy "+string(e.Policy.ID)+": "+e.Message)
	}
	slices.Sort(v.Errors)
	return v
}
