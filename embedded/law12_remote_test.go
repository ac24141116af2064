package embedded_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/google/go-cmp/cmp"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/copsetest"
	"github.com/copse-authz/copse/embedded"
	"github.com/copse-authz/copse/remote"
)

// smuggles are what a caller may try, each changing a good request; they are refused where a token decides.
var smuggles = []struct {
	name   string
	change func(c *randomCase, req *copse.Request)
}{
	{"the principal", func(c *randomCase, req *copse.Request) { addEntity(req, uid("User", c.user)) }},
	{"another principal", func(_ *randomCase, req *copse.Request) { addEntity(req, uid("User", "mallory")) }},
	{"a principal, escaped", func(_ *randomCase, req *copse.Request) { addEntity(req, `{"type":"\u0055ser","id":"mallory"}`) }},
	{"a principal, as a reference", func(_ *randomCase, req *copse.Request) {
		addEntity(req, `{"__entity":{"type":"User","id":"mallory"}}`)
	}},
	{"a group", func(_ *randomCase, req *copse.Request) { addEntity(req, uid("Role", "r1")) }},
	{"an action", func(_ *randomCase, req *copse.Request) { addEntity(req, uid("Action", "a1")) }},
	{"a uid twice", func(_ *randomCase, req *copse.Request) {
		addEntity(req, uid("Doc", "x")+`,"uid":`+uid("User", "mallory"))
	}},
	{"claims", func(_ *randomCase, req *copse.Request) { req.Context = cedar(`{"token":{"level":9}}`) }},
	{"claims, escaped", func(_ *randomCase, req *copse.Request) { req.Context = cedar(`{"\u0074oken":{}}`) }},
	{"claims, in AVP's form", func(_ *randomCase, req *copse.Request) {
		req.Context = copse.Data{Format: copse.FormatAVPMap, Bytes: []byte(`{"token":{"record":{}}}`)}
	}},
	{"a principal, in AVP's form", func(_ *randomCase, req *copse.Request) {
		req.Entities = copse.Data{Format: copse.FormatAVPList, Bytes: []byte(`[{"identifier":{"entityType":"User","entityId":"mallory"}}]`)}
	}},
	{"broken JSON", func(_ *randomCase, req *copse.Request) { req.Entities = cedar(`[{]`) }},
	{"bytes that are no text", func(_ *randomCase, req *copse.Request) { req.Principal.ID = "u\xff" }},
	{"entities that are no text", func(_ *randomCase, req *copse.Request) { addEntity(req, uid("Doc", "\xff")) }},
	{"the wrong format", func(_ *randomCase, req *copse.Request) { req.Entities.Format = copse.FormatAVPMap }},
	{"empty entities", func(_ *randomCase, req *copse.Request) { req.Entities = cedar("") }},
	{"an action of a type that is none", func(_ *randomCase, req *copse.Request) { req.Action.Type = "Doc" }},
	{"another incarnation", func(_ *randomCase, req *copse.Request) { req.Incarnation[3] ^= 1 }},
}

func uid(entityType, id string) string { return fmt.Sprintf(`{"type":"%s","id":"%s"}`, entityType, id) }

func cedar(text string) copse.Data {
	return copse.Data{Format: copse.FormatCedarJSON, Bytes: []byte(text)}
}

func addEntity(req *copse.Request, uid string) {
	text := string(req.Entities.Bytes)
	req.Entities = cedar(text[:len(text)-1] + `,{"uid":` + uid + `,"attrs":{},"parents":[]}]`)
}

// outcome is all that a Decider says.
type outcome struct {
	Response copse.Response
	Kind     string
}

func ask(t *testing.T, d copse.Decider, req *copse.Request) outcome {
	t.Helper()
	resp, err := d.Decide(t.Context(), req)
	out := outcome{Response: resp}
	if err == nil {
		return out
	}
	if diff := cmp.Diff(copse.Response{}, resp); diff != "" {
		t.Errorf("an error with a response: %s", diff)
	}
	out.Kind = copse.KindOf(err).String()
	return out
}

const remoteSchema = `entity Role; entity User in [Role]; entity Folder;
entity Doc in [Folder] { level: Long, name: String, labels: Set<String>, owner?: User };
action a1, a2, a3 appliesTo { principal: [User], resource: [Doc], context: { from: ipaddr, mfa?: Bool } };`

// A remote Decider says what one in process says, of decisions and of refusals: law 12. What the token
// says and what the caller says stay apart on the way, also where a schema is checked, which lists no
// claims.
func TestLaw12RemoteEqualsEmbedded(t *testing.T) {
	const tenants, requests = 8, 600
	r := rand.New(rand.NewPCG(20, 27))
	dir := t.TempDir()
	srv := copsetest.Start(t, copsetest.DataDir(dir))
	for i := range tenants {
		contents := copsetest.Contents{Policies: map[string]string{}}
		if i%2 == 0 {
			contents.Schema = remoteSchema
			contents.Policies["levels"] = `permit (principal, action == Action::"a1", resource) when { resource.level > 2 };`
			contents.Policies["roles"] = `permit (principal in Role::"r1", action, resource) unless { resource.labels.contains("secret") };`
			contents.Policies["beta"] = `forbid (principal, action, resource) when { resource.name == "beta" && resource.level + 9223372036854775807 > 0 };`
		} else {
			for n := range 3 + r.IntN(8) {
				contents.Policies[fmt.Sprintf("policy-%d", n)] = randomPolicy(r)
			}
			contents.Policies["claims"] = `forbid (principal, action, resource) when { context.token.level == 3 };`
		}
		srv.CreateTenant(t, copse.TenantID(fmt.Sprintf("tenant-%d", i)), contents)
	}
	pdp, err := remote.NewPDP(remote.PDPOptions{URL: srv.URL, Key: srv.RootCredential})
	if err != nil {
		t.Fatal(err)
	}
	defer pdp.Close()
	asked, answers := make([]copse.Request, requests), make([]outcome, requests)
	counts := map[string]int{}
	for i := range asked {
		c := randomRequest(r, tenants)
		entry, err := pdp.Lookup(t.Context(), copse.TenantID(c.tenant))
		if err != nil {
			t.Fatal(err)
		}
		req := &asked[i]
		*req = copse.Request{
			PolicyStoreID: entry.PolicyStoreID, Incarnation: entry.Incarnation,
			Principal: types.NewEntityUID("User", types.String(c.user)),
			Action:    types.NewEntityUID("Action", types.String(c.action)),
			Resource:  types.NewEntityUID("Doc", types.String(c.doc)),
			Context:   cedar(c.contextJSON()), Entities: cedar(c.resourceJSON()),
			ServerEntities: cedar(c.principalJSON()),
			ServerContext:  cedar(fmt.Sprintf(`{"token":{"iss":"https://idp.example.com","level":%d}}`, r.IntN(5))),
			ReservedTypes:  []types.EntityType{"User", "Role"},
		}
		name := "decided"
		if i%3 == 0 {
			s := smuggles[i/3%len(smuggles)]
			s.change(&c, req)
			name = s.name
		}
		answers[i] = ask(t, pdp, req)
		if name != "decided" && answers[i].Kind == "" {
			t.Errorf("%s was not refused: %+v", name, answers[i].Response)
		}
		if name == "decided" && answers[i].Kind != "" {
			t.Errorf("request %d was refused: %s", i, answers[i].Kind)
		}
		counts[name]++
		counts[answers[i].Response.Decision.String()]++
		counts["errors"] += min(1, len(answers[i].Response.Errors))
	}
	if counts["ALLOW"] < 50 || counts["DENY"] < 100 || counts["errors"] < 50 || len(counts) != len(smuggles)+4 {
		t.Errorf("the generator is too tame: %v", counts)
	}
	if err := srv.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := pdp.Decide(t.Context(), &asked[1]); copse.KindOf(err) != copse.Unavailable {
		t.Errorf("without a server: %v", err)
	}

	inProcess, err := embedded.Open(dir, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer inProcess.Close()
	for i := range asked {
		if diff := cmp.Diff(ask(t, inProcess, &asked[i]), answers[i]); diff != "" {
			t.Fatalf("request %d: embedded and remote differ:\n%s", i, diff)
		}
	}
}
