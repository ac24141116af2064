package avp

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	vp "github.com/aws/aws-sdk-go-v2/service/verifiedpermissions"
	"github.com/aws/aws-sdk-go-v2/service/verifiedpermissions/types"
	"github.com/go-json-experiment/json"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/decisionlog"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage/memory"
	"github.com/copse-authz/copse/internal/token"
)

// server is the handler over the real services on an own backend.
type server struct {
	handler      *handler
	url          string
	rootID       string
	rootSecret   access.Secret
	access       *access.Service
	policyStores *policystore.Service
	verifier     *token.Verifier
	backend      *memory.Backend
	metrics      *prometheus.Registry
	log          *bytes.Buffer

	mu       sync.Mutex
	recorded []decisionlog.Entry
}

func start(t testing.TB) *server {
	t.Helper()
	s := &server{backend: memory.New(), metrics: prometheus.NewRegistry(), log: new(bytes.Buffer)}
	s.rootID, s.rootSecret = access.NewRootKey()
	var err error
	if s.policyStores, err = policystore.New(policystore.Config{Backend: s.backend}); err != nil {
		t.Fatal(err)
	}
	s.access, err = access.New(access.Config{Backend: s.backend, MasterKey: bytes.Repeat([]byte{7}, 32), RootID: s.rootID, Root: s.rootSecret})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(s.log, nil))
	// No issuer is registered; tokens are the server package's to try.
	s.verifier, err = token.New(token.Config{Issuer: func(context.Context, string) (copse.Issuer, error) {
		return copse.Issuer{}, copse.NotFoundError(copse.ResourceIssuer, "")
	}})
	if err != nil {
		t.Fatal(err)
	}
	h, err := New(Config{PolicyStores: s.policyStores, Access: s.access, VerifyBy: s.verifier.VerifyBy, Metrics: s.metrics, Log: log,
		Record: func(_ context.Context, decided []decisionlog.Entry) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.recorded = append(s.recorded, decided...)
			return nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	s.handler = h.(*handler)
	web := httptest.NewServer(h)
	s.url = web.URL
	t.Cleanup(func() {
		web.Close()
		for _, c := range []io.Closer{s.verifier, s.access, s.policyStores, s.backend} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return s
}

// client is the SDK's, unmodified, without retries so that a test sees each error once.
func (s *server) client(id string, secret access.Secret) *vp.Client {
	return vp.New(vp.Options{
		Region: "eu-west-1", BaseEndpoint: aws.String(s.url), Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider(id, string(secret), ""),
	})
}

func (s *server) root() *vp.Client { return s.client(s.rootID, s.rootSecret) }

// key makes an access key and returns its client.
func (s *server) key(t *testing.T, scope access.Scope, verbs access.Verb) *vp.Client {
	t.Helper()
	k, secret, err := s.access.CreateKey(t.Context(), access.System(), access.Key{Scope: scope, Verbs: verbs})
	if err != nil {
		t.Fatal(err)
	}
	return s.client(k.ID, secret)
}

// answer is a raw response.
type answer struct {
	status int
	header http.Header
	body   string
}

type wireError struct {
	Type         string       `json:"__type"`
	Message      string       `json:"message"`
	FieldList    []fieldError `json:"fieldList"`
	ResourceID   string       `json:"resourceId"`
	ResourceType string       `json:"resourceType"`
}

func (a *answer) error(t *testing.T) wireError {
	t.Helper()
	var e wireError
	if err := json.Unmarshal([]byte(a.body), &e); err != nil {
		t.Fatalf("the error body is not JSON: %v: %s", err, a.body)
	}
	return e
}

// call sends a body as it is, with the root key as bearer: the signature is the SDK tests' business.
func (s *server) call(t *testing.T, operation, body string, change ...func(*http.Request)) *answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("X-Amz-Target", targetPrefix+operation)
	r.Header.Set("Authorization", "Bearer copse_"+s.rootID+"_"+string(s.rootSecret))
	for _, c := range change {
		c(r)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return &answer{status: resp.StatusCode, header: resp.Header, body: string(text)}
}

func must[T any](t *testing.T) func(v T, err error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

const testSchema = `{"": {
	"entityTypes": {
		"User": {"shape": {"type": "Record", "attributes": {"level": {"type": "Long", "required": true}}}},
		"Invoice": {"shape": {"type": "Record", "attributes": {"owner": {"type": "Entity", "name": "User", "required": true}}}}
	},
	"actions": {
		"view": {"appliesTo": {"principalTypes": ["User"], "resourceTypes": ["Invoice"], "context": {"type": "Record", "attributes": {"mfa": {"type": "Boolean", "required": true}}}}},
		"pay": {"memberOf": [{"id": "view"}], "appliesTo": {"principalTypes": ["User"], "resourceTypes": ["Invoice"], "context": {"type": "Record", "attributes": {"mfa": {"type": "Boolean", "required": true}}}}}
	}
}}`

// newPolicyStore makes one with the schema above.
func newPolicyStore(ctx context.Context, t *testing.T, c *vp.Client) string {
	t.Helper()
	ps := must[*vp.CreatePolicyStoreOutput](t)(c.CreatePolicyStore(ctx, &vp.CreatePolicyStoreInput{
		ValidationSettings: &types.ValidationSettings{Mode: types.ValidationModeStrict},
	}))
	must[*vp.PutSchemaOutput](t)(c.PutSchema(ctx, &vp.PutSchemaInput{
		PolicyStoreId: ps.PolicyStoreId, Definition: &types.SchemaDefinitionMemberCedarJson{Value: testSchema},
	}))
	return *ps.PolicyStoreId
}

func newPolicy(ctx context.Context, t *testing.T, c *vp.Client, policyStore, name, statement string) string {
	t.Helper()
	in := &vp.CreatePolicyInput{
		PolicyStoreId: &policyStore,
		Definition:    &types.PolicyDefinitionMemberStatic{Value: types.StaticPolicyDefinition{Statement: &statement}},
	}
	if name != "" {
		in.Name = aws.String("name/" + name)
	}
	return *must[*vp.CreatePolicyOutput](t)(c.CreatePolicy(ctx, in)).PolicyId
}

func entity(typ, id string) *types.EntityIdentifier {
	return &types.EntityIdentifier{EntityType: &typ, EntityId: &id}
}

func action(id string) *types.ActionIdentifier {
	return &types.ActionIdentifier{ActionType: aws.String("Action"), ActionId: &id}
}

// The log has an ERROR when copse fails, and none when the client has gone.
func TestTheLogOfAClientThatWentAway(t *testing.T) {
	s := start(t)
	ask := func(ctx context.Context) string {
		t.Helper()
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(`{"policyStoreId":"PSEXAMPLEabcdefg111111"}`))
		r.Header.Set("Authorization", "Bearer copse_"+s.rootID+"_"+string(s.rootSecret))
		r.Header.Set("Content-Type", "application/x-amz-json-1.0")
		r.Header.Set("X-Amz-Target", "VerifiedPermissions.GetPolicyStore")
		w := httptest.NewRecorder()
		s.log.Reset()
		s.handler.ServeHTTP(w, r)
		if w.Code < http.StatusInternalServerError {
			t.Fatalf("%d %s: nothing failed", w.Code, w.Body)
		}
		return s.log.String()
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if log := ask(gone); strings.Contains(log, "ERROR") {
		t.Errorf("a client that went away: %s", log)
	}
	if err := s.backend.Close(); err != nil {
		t.Fatal(err)
	}
	if log := ask(t.Context()); !strings.Contains(log, "ERROR") {
		t.Errorf("storage that fails: %s", log)
	}
}
