package api

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/authorizer"
	"github.com/copse-authz/copse/internal/token"
)

// The document describes /v1/authorize and the authorizer reads it by hand; this holds the two
// together. A body is taken by both or by neither, but for the rules that no schema states; and every
// answer, success or not, is one that the document describes.
func TestAuthorizeIsAsDocumented(t *testing.T) {
	s := start(t)
	newTenant(t, s, "acme")
	tenantOfToken := copse.TenantID("acme")
	h := authorizer.New(authorizer.Config{
		Verify: func(_ context.Context, bearer string) (*token.Verified, error) {
			if bearer != "good" {
				return nil, copse.Errorf(copse.Unauthenticated, "the token does not verify")
			}
			v := token.Verified{Tenant: tenantOfToken,
				Entities: copse.Data{Format: copse.FormatCedarJSON, Bytes: []byte(`[{"uid":{"type":"User","id":"alice"},"attrs":{"level":1},"parents":[]}]`)}}
			v.Principal.Type, v.Principal.ID = "User", "alice"
			v.ReservedTypes = append(v.ReservedTypes, "User")
			return &v, nil
		},
		IdentitySource: s.policyStores.IdentitySource,
		Directory:      s.api.tenants, Decider: s.policyStores.Decider(), Explain: s.policyStores.Explain, Key: s.access.Bearer,
	})
	key := s.key(t, access.Scope{Tenant: "acme"}, access.Decide)
	ask := func(body, bearer, key string) *answer {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/authorize", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+bearer)
		if key != "" {
			r.Header.Set("X-Copse-Key", key)
		}
		w := httptest.NewRecorder()
		w.Header().Set("X-Request-Id", "the-id")
		h.ServeHTTP(w, r)
		return &answer{status: w.Code, header: w.Header(), body: w.Body.String()}
	}
	const (
		asked    = `"action":{"id":"view"},"resource":{"type":"Invoice","id":"i1"}`
		context  = `,"context":{"cedarJson":{"mfa":true}}`
		entities = `,"entities":{"cedarJson":[{"uid":{"type":"Invoice","id":"i1"},"attrs":{"owner":{"__entity":{"type":"User","id":"alice"}}},"parents":[]}]}`
		long     = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
	)
	taken := 0
	for _, test := range []struct {
		name, body string
		taken      bool // by the authorizer
		unsaid     bool // a rule that the schema does not state
	}{
		{"Cedar's words", `{` + asked + context + entities + `}`, true, false},
		{"AVP's words", `{"action":{"actionType":"Action","actionId":"view"},"resource":{"entityType":"Invoice","entityId":"i1"},"context":{"contextMap":{"mfa":{"boolean":true}}},"entities":{"entityList":[{"identifier":{"entityType":"Invoice","entityId":"i1"},"attributes":{"owner":{"entityIdentifier":{"entityType":"User","entityId":"alice"}}}}]}}`, true, false},
		{"Cedar JSON in strings", `{` + asked + `,"context":{"cedarJson":"{\"mfa\":true}"},"entities":{"cedarJson":"[]"}}`, true, false},
		{"an action's type", `{"action":{"type":"Action","id":"view"},"resource":{"type":"Invoice","id":"i1"}` + context + `}`, true, false},
		{"not to be explained", `{` + asked + context + `,"explain":false}`, true, false},

		{"an explanation as text", `{` + asked + `,"explain":"true"}`, false, false},
		{"nothing", `{}`, false, false},
		{"no action", `{"resource":{"type":"Invoice","id":"i1"}}`, false, false},
		{"no resource", `{"action":{"id":"view"}}`, false, false},
		{"a principal", `{` + asked + `,"principal":{"type":"User","id":"root"}}`, false, false},
		{"a tenant", `{` + asked + `,"tenant":"globex"}`, false, false},
		{"a policy store", `{` + asked + `,"policyStoreId":"x"}`, false, false},
		{"other capitals", `{` + asked + `,"Context":{"cedarJson":{}}}`, false, false},
		{"an action twice", `{` + asked + `,"action":{"id":"view"}}`, false, false},
		{"an id twice", `{"action":{"id":"view","id":"pay"},"resource":{"type":"Invoice","id":"i1"}}`, false, false},
		{"a number as id", `{"action":{"id":7},"resource":{"type":"Invoice","id":"i1"}}`, false, false},
		{"an action as text", `{"action":"view","resource":{"type":"Invoice","id":"i1"}}`, false, false},
		{"an unknown member inside", `{"action":{"id":"view","name":"x"},"resource":{"type":"Invoice","id":"i1"}}`, false, false},
		{"an empty context", `{` + asked + `,"context":{}}`, false, false},
		{"two contexts", `{` + asked + `,"context":{"contextMap":{},"cedarJson":{}}}`, false, false},
		{"a context of another name", `{` + asked + `,"context":{"map":{}}}`, false, false},
		{"a contextMap as list", `{` + asked + `,"context":{"contextMap":[]}}`, false, false},
		{"an entityList as map", `{` + asked + `,"entities":{"entityList":{}}}`, false, false},
		{"empty entities", `{` + asked + `,"entities":{}}`, false, false},
		{"a long id", `{"action":{"id":"view"},"resource":{"type":"Invoice","id":"` + strings.Repeat(long, 10) + `"}}`, false, false},
		{"a list", `[]`, false, false},
		{"not JSON", `{`, false, false},
		{"invalid UTF-8", "{\"action\":{\"id\":\"\xff\"},\"resource\":{\"type\":\"Invoice\",\"id\":\"i1\"}}", false, false},

		{"no id", `{"action":{},"resource":{"type":"Invoice","id":"i1"}}`, false, true},
		{"two spellings", `{"action":{"id":"view","actionType":"Action"},"resource":{"type":"Invoice","id":"i1"}}`, false, true},
		{"an entity of the principal's type", `{` + asked + context + `,"entities":{"cedarJson":[{"uid":{"type":"User","id":"alice"},"attrs":{},"parents":[]}]}}`, false, true},
		{"a context that breaks the schema", `{` + asked + `,"context":{"cedarJson":{"mfa":7}}}`, false, true},
	} {
		a := ask(test.body, "good", "")
		if (a.status == http.StatusOK) != test.taken || !test.taken && a.status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", test.name, a.status, a.body)
		}
		if err := s.api.Conforms("AuthorizeRequest", []byte(test.body)); (err == nil) != (test.taken || test.unsaid) {
			t.Errorf("%s: the document says: %v", test.name, err)
		}
		schema := "ErrorBody"
		if test.taken {
			schema = "AuthorizeResponse"
			taken++
			detailed := ask(test.body, "good", key)
			if err := s.api.Conforms(schema, []byte(detailed.body)); err != nil || !strings.Contains(detailed.body, `"considered"`) {
				t.Errorf("%s: the answer with a key: %v: %s", test.name, err, detailed.body)
			}
		}
		if err := s.api.Conforms(schema, []byte(a.body)); err != nil {
			t.Errorf("%s: the answer: %v: %s", test.name, err, a.body)
		}
	}
	if taken != 5 {
		t.Errorf("%d bodies were taken", taken)
	}
	why := `{` + asked + context + entities + `,"explain":true}`
	explained := ask(why, "good", key)
	if err := errors.Join(s.api.Conforms("AuthorizeRequest", []byte(why)), s.api.Conforms("AuthorizeResponse", []byte(explained.body))); err != nil {
		t.Errorf("%v: %s", err, explained.body)
	}
	for _, part := range []string{`"explanation":{"policies":[{`, `"operator":"when"`, `"values":[{`, `"parts":[{`, `"outcome":"true"`} {
		if !strings.Contains(explained.body, part) {
			t.Errorf("no %s in the explanation: %s", part, explained.body)
		}
	}
	if a := ask(why, "good", ""); a.status != http.StatusBadRequest || s.api.Conforms("ErrorBody", []byte(a.body)) != nil {
		t.Errorf("without a key: %d %s", a.status, a.body)
	}

	refusals := map[int]*answer{401: ask(`{}`, "bad", ""), 413: ask(strings.Repeat(" ", 1_000_001), "good", "")}
	tenantOfToken = "nobody"
	refusals[403] = ask(`{`+asked+`}`, "good", "")
	for status, a := range refusals {
		if a.status != status {
			t.Errorf("%d instead of %d: %s", a.status, status, a.body)
		}
		if err := s.api.Conforms("ErrorBody", []byte(a.body)); err != nil {
			t.Errorf("the %d: %v: %s", status, err, a.body)
		}
	}
}
