package server_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/server"
)

// files is every byte that a server keeps of decisions, read as anybody could who has the disk.
func filesOf(t *testing.T, dir string) string {
	t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(dir, name.Name()))
		if err == nil && strings.HasSuffix(name.Name(), ".gz") {
			var plain *gzip.Reader
			if plain, err = gzip.NewReader(bytes.NewReader(text)); err == nil {
				text, err = io.ReadAll(plain)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

func uid(kind, id string) map[string]string {
	return map[string]string{"entityType": kind, "entityId": id}
}

// canaryQuestion has a canary in every place that has room for one: all but those in the ids are values of
// context and attributes.
func canaryQuestion(store string) map[string]any {
	text := func(s string) map[string]any { return map[string]any{"string": s} }
	return map[string]any{
		"policyStoreId": store,
		"principal":     uid("User", "canary-principal-id"), "resource": uid("Doc", "canary-resource-id"),
		"action": map[string]string{"actionType": "Action", "actionId": "view"},
		"context": map[string]any{"contextMap": map[string]any{
			"ip": map[string]any{"ipaddr": "203.0.113.77"}, "user-agent": text("canary-agent"), "big": map[string]any{"long": 9007199254740993},
			"token": text("eyJhbGciOiJub25lIn0.eyJjYW5hcnkiOjF9.canary-token"), "key": text("copse_canary_key"),
			"deep": map[string]any{"record": map[string]any{"a": text("canary-deep-a"), "b": text("canary-deep-b"),
				"c": map[string]any{"set": []any{text("canary-set-1"), text("canary-set-2")}}}},
		}},
		"entities": map[string]any{"entityList": []any{
			map[string]any{"identifier": uid("User", "canary-principal-id"), "attributes": map[string]any{"department": text("canary-department"), "email": text("canary-email"),
				"manager": map[string]any{"entityIdentifier": uid("User", "canary-manager")}}, "parents": []any{uid("Team", "canary-team")}},
			map[string]any{"identifier": uid("Doc", "canary-resource-id"), "attributes": map[string]any{
				"owner": map[string]any{"entityIdentifier": uid("User", "canary-principal-id")}, "title": text("canary-title")}},
			map[string]any{"identifier": uid("Team", "canary-team"), "attributes": map[string]any{"name": text("canary-team-name")}},
		}},
	}
}

var canaries = regexp.MustCompile(`canary[-_a-z0-9]*|203\.0\.113\.77|9007199254740993`)

// wantCanaries finds the canaries in a text, and wants these and no others.
func wantCanaries(t *testing.T, where, text string, want ...string) {
	t.Helper()
	found := map[string]bool{}
	for _, canary := range canaries.FindAllString(text, -1) {
		found[canary] = true
	}
	for _, canary := range want {
		if !found[canary] {
			t.Errorf("%s: %s is missing in %s", where, canary, text)
		}
		delete(found, canary)
	}
	if len(found) > 0 {
		t.Errorf("%s has %v:\n%s", where, found, text)
	}
}

// What is in a request's context and attributes is in no segment, copy or answer unless a rule keeps it.
func TestOnlyRulesPutAttributesIntoTheLog(t *testing.T) {
	dir := t.TempDir()
	copied := filepath.Join(t.TempDir(), "copy.jsonl")
	var logged bytes.Buffer
	s := start(t, func(c *server.Config) { c.DataDir, c.DecisionLogExport = dir, "file:"+copied })
	acme, globex := s.onboard("acme", permitAll).PolicyStoreID, s.onboard("globex", permitAll).PolicyStoreID
	// ask returns what the log has of one decision: in the search's answer, and that and the files all together.
	ask := func(store string) (found, all string) {
		t.Helper()
		wantStatus(t, s.amazon(s.root, "IsAuthorized", canaryQuestion(store)), 200)
		found = s.must(200, "GET", "/v1/decisions?maxResults=1&policyStoreId="+store, nil).body
		return found, found + filesOf(t, filepath.Join(dir, "decisions")) + logged.String()
	}
	ids := []string{"canary-principal-id", "canary-resource-id"}
	_, all := ask(acme)
	wantCanaries(t, "without rules", all, ids...)

	// Ids too can be hashed, and then nothing is left.
	patch := func(store string, in api.UpdateDecisionLog) api.PolicyStore {
		t.Helper()
		return decode[api.PolicyStore](t, s.must(200, "PATCH", "/v1/policy-stores/"+store, api.UpdatePolicyStoreRequest{DecisionLog: &in}))
	}
	both := []string{"principal", "resource"}
	patch(globex, api.UpdateDecisionLog{HashIDs: &both})
	found, _ := ask(globex)
	wantCanaries(t, "with hashed ids", found)

	patch(acme, api.UpdateDecisionLog{
		Keep: &[]string{"context.ip", "context.big", "context.deep", "context.token", "context.key", "principal.department", "resource.absent"},
		Hash: &[]string{"context.deep.b", `context["user-agent"]`, "principal.email", "principal.manager", "resource.owner"},
		Drop: &[]string{"context.deep.c"}, HashIDs: &both,
	})
	found, _ = ask(acme)
	wantCanaries(t, "with rules", found, "203.0.113.77", "9007199254740993", "canary-deep-a", "canary-department")
	d := decode[api.DecisionList](t, reply{status: 200, body: found}).Decisions[0]
	for _, want := range []string{`"ip":{"__extn":{"fn":"ip","arg":"203.0.113.77"}}`, `"token":{"__dropped":"token"}`, `"key":{"__dropped":"token"}`, `"deep":{"a":"canary-deep-a","b":{"__hash":"`} {
		if !strings.Contains(string(d.Context), want) {
			t.Errorf("the context is %s, without %s", d.Context, want)
		}
	}
	// An id is hashed as a reference to the same entity is: the owner is the principal.
	hash := strings.TrimSuffix(strings.TrimPrefix(d.Principal, `User::"hash:`), `"`)
	if len(hash) != 22 || string(d.ResourceAttributes) != `{"owner":{"__hash":"`+hash+`"}}` {
		t.Errorf("the principal is %s, the resource's owner %s", d.Principal, d.ResourceAttributes)
	}
	// Equal within a policy store, and nowhere else.
	again, _ := ask(acme)
	if d2 := decode[api.DecisionList](t, reply{status: 200, body: again}).Decisions[0]; d2.Principal != d.Principal || string(d2.Context) != string(d.Context) {
		t.Errorf("the same decision is logged as %+v and as %+v", d, d2)
	}
	other, _ := ask(globex)
	if d2 := decode[api.DecisionList](t, reply{status: 200, body: other}).Decisions[0]; d2.Principal == d.Principal {
		t.Errorf("two tenants' hashes are the same: %s", d.Principal)
	}
	// Who knows the id finds its decisions, by the policy store's own hash.
	if n := strings.Count(s.must(200, "GET", "/v1/decisions?policyStoreId="+globex+"&principal=User::%22canary-principal-id%22", nil).body, `"line"`); n != 2 {
		t.Errorf("%d decisions of a hashed principal are found, want 2", n)
	}

	// All of it goes with the tenant.
	s.must(204, "DELETE", "/v1/tenants/acme", nil)
	for deadline := time.Now().Add(20 * time.Second); s.count("copse_erasures_under_way") > 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
	}
	wantCanaries(t, "after the tenant left", filesOf(t, filepath.Join(dir, "decisions")))
	if r := s.decisionLog(dir); r.Erased != 3 {
		t.Errorf("%+v", r)
	}
	if text, err := os.ReadFile(copied); err != nil {
		t.Error(err)
	} else {
		wantCanaries(t, "the copy", string(text), "canary-principal-id", "canary-resource-id", "203.0.113.77", "9007199254740993", "canary-deep-a", "canary-department")
	}
}

func TestRulesOfTheLogAreChecked(t *testing.T) {
	s := start(t)
	path := "/v1/policy-stores/" + s.onboard("acme", permitAll).PolicyStoreID
	many := make([]string, 65)
	for i := range many {
		many[i] = "context.a" + strings.Repeat("b", i)
	}
	for name, c := range map[string]struct {
		in   api.UpdateDecisionLog
		want string
	}{
		"another root":          {api.UpdateDecisionLog{Keep: &[]string{"action.id"}}, `"action.id\" begins with none of context, principal and resource`},
		"an empty name":         {api.UpdateDecisionLog{Keep: &[]string{"context."}}, `"context.\" is not a path`},
		"an index":              {api.UpdateDecisionLog{Hash: &[]string{"context[0]"}}, `is not a path`},
		"no end":                {api.UpdateDecisionLog{Drop: &[]string{`context["a`}}, `ends with`},
		"nothing between":       {api.UpdateDecisionLog{Drop: &[]string{`context["a"]b`}}, `is not a path`},
		"two rules":             {api.UpdateDecisionLog{Keep: &[]string{"context.a"}, Hash: &[]string{`context["a"]`}}, `there are two rules for`},
		"another id":            {api.UpdateDecisionLog{HashIDs: &[]string{"action"}}, "hashIds"},
		"an id twice":           {api.UpdateDecisionLog{HashIDs: &[]string{"principal", "principal"}}, "there twice"},
		"another way":           {api.UpdateDecisionLog{Full: new("block")}, "full"},
		"too long":              {api.UpdateDecisionLog{Keep: &[]string{"context." + strings.Repeat("x", 600)}}, "at most 512 bytes"},
		"too many":              {api.UpdateDecisionLog{Keep: &many}, "64"},
		"too many in two calls": {api.UpdateDecisionLog{Keep: new(many[:40]), Hash: new(many[40:])}, "65 rules, at most 64"},
	} {
		if r := s.as(s.root, "PATCH", path, api.UpdatePolicyStoreRequest{DecisionLog: &c.in}); r.status < 400 || r.status >= 500 || !strings.Contains(r.body, c.want) {
			t.Errorf("%s: %v, want %s", name, r, c.want)
		}
	}
	got := decode[api.PolicyStore](t, s.must(http.StatusOK, "GET", path, nil)).DecisionLog
	if got.Full != "drop" || len(got.Keep)+len(got.Hash)+len(got.Drop)+len(got.HashIDs) > 0 {
		t.Errorf("what was refused had an effect: %+v", got)
	}
}
