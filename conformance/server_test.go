// Package conformance holds what proves that clients of Amazon Verified Permissions can't tell copse
// from it: the whole API through the AWS SDK for Go, the service model walked member by member, and
// the AWS SDKs for JavaScript and Python, the AWS CLI and the published Express middleware, run as
// they are. It has no code of its own besides tests.
package conformance

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse/copsetest"
)

// server is a running copse and the way to talk to it in raw JSON.
type server struct {
	*copsetest.Server
	issuer, stranger *issuer
}

func start(t *testing.T) *server {
	t.Helper()
	s := &server{issuer: newIssuer(t), stranger: newIssuer(t)}
	s.Server = copsetest.Start(t, copsetest.IssuerKeys(poolIssuer, s.issuer.url), copsetest.IssuerKeys(oidcIssuer, s.issuer.url))
	return s
}

// answer is a raw response.
type answer struct {
	status int
	header http.Header
	text   string
	thrown string // the exception's type; empty for a success
	fields []fieldError
}

type fieldError struct {
	Path    string `json:"path"`
	Message string `json:"message"`
}

// call sends a body as it is, with the root key as bearer.
func (s *server) call(t *testing.T, operation, body string) *answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.0")
	r.Header.Set("X-Amz-Target", "VerifiedPermissions."+operation)
	r.Header.Set("Authorization", "Bearer "+s.RootCredential)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := &answer{status: resp.StatusCode, header: resp.Header, text: string(text)}
	if resp.StatusCode != http.StatusOK {
		var e struct {
			Type      string       `json:"__type"`
			FieldList []fieldError `json:"fieldList"`
		}
		if err := json.Unmarshal(text, &e); err != nil {
			t.Fatalf("the error body is not JSON: %v: %s", err, text)
		}
		a.thrown, a.fields = e.Type, e.FieldList
	}
	return a
}

// newPolicyStore makes one without validation.
func (s *server) newPolicyStore(t *testing.T) string {
	t.Helper()
	a := s.call(t, "CreatePolicyStore", `{"validationSettings":{"mode":"OFF"}}`)
	var out struct {
		PolicyStoreID string `json:"policyStoreId"`
	}
	if err := json.Unmarshal([]byte(a.text), &out); err != nil || out.PolicyStoreID == "" {
		t.Fatalf("%d %s", a.status, a.text)
	}
	return out.PolicyStoreID
}

// lists is how many things there are, for a look before and after.
func (s *server) lists(t *testing.T, policyStore string) string {
	t.Helper()
	var out []string
	for _, operation := range []string{"ListPolicies", "ListPolicyTemplates", "ListIdentitySources", "GetSchema", "GetPolicyStore"} {
		out = append(out, s.call(t, operation, `{"policyStoreId":"`+policyStore+`"}`).text)
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}
