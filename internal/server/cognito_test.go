package server_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/copse-authz/copse/internal/api"
)

// An emulator of Cognito that we did not write, npm's cognito-local, calls the trigger as Cognito does. It knows
// the first version of the event only, and what it says about ID tokens.

// cognito is a running emulator with one user pool and one client.
type cognito struct {
	t                      *testing.T
	url, pool, client, iss string
}

// startCognito runs the emulator, with the hook of a site as its pre token generation function.
func startCognito(t *testing.T, s *site) *cognito {
	t.Helper()
	const dir = "testdata/cognito"
	installNode(t, dir)
	address := freeAddress(t)
	c := &cognito{t: t, url: "http://" + address}
	front := c.front(s.caller.url, s.caller.key(api.KeyScope{All: true}, "decide"))
	data := t.TempDir()
	config, err := json.Marshal(map[string]any{
		"TriggerFunctions": map[string]string{"PreTokenGeneration": "copse"},
		"LambdaClient":     map[string]string{"endpoint": front},
		"TokenConfig":      map[string]string{"IssuerDomain": front},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(data, ".cognito"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, ".cognito", "config.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs(dir + "/node_modules/cognito-local/lib/bin/start.js")
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := strings.Cut(address, ":")
	cmd := exec.Command("node", script)
	cmd.Dir, cmd.Env = data, append(os.Environ(), "HOST="+host, "PORT="+port)
	startCommand(t, address, cmd)

	made := c.call("CreateUserPool", map[string]any{"PoolName": "people"})
	c.pool, _ = made["UserPool"].(map[string]any)["Id"].(string)
	made = c.call("CreateUserPoolClient", map[string]any{"UserPoolId": c.pool, "ClientName": "web"})
	c.client, _ = made["UserPoolClient"].(map[string]any)["ClientId"].(string)
	c.iss = front + "/" + c.pool
	return c
}

// front is what stands around the emulator: the endpoint where it invokes functions, which passes the event on
// as copse-lambda does, and a discovery document, because its own names another issuer than its tokens.
func (c *cognito) front(copse, key string) (url string) {
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	c.t.Cleanup(srv.Close)
	mux.HandleFunc("POST /2015-03-31/functions/copse/invocations", func(w http.ResponseWriter, r *http.Request) {
		req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, copse+"/v1/hooks/cognito?issuer="+c.iss, r.Body)
		if err != nil {
			c.t.Error(err)
			return
		}
		req.Header.Set("Authorization", "Bearer "+key)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			c.t.Error(err)
			return
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusOK {
			w.Header().Set("X-Amz-Function-Error", "Unhandled")
		}
		_, _ = io.Copy(w, resp.Body)
	})
	mux.HandleFunc("GET /{pool}/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, srv.URL+"/"+r.PathValue("pool"), c.url+"/"+r.PathValue("pool")+"/.well-known/jwks.json")
	})
	return srv.URL
}

// try calls an operation of the emulator's API.
func (c *cognito) try(operation string, in map[string]any) (out map[string]any, status int) {
	c.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		c.t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, c.url+"/", strings.NewReader(string(body)))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("X-Amz-Target", "AWSCognitoIdentityProviderService."+operation)
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	resp, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	_ = json.NewDecoder(resp.Body).Decode(&out) // some answers are empty
	return out, resp.StatusCode
}

func (c *cognito) call(operation string, in map[string]any) map[string]any {
	c.t.Helper()
	out, status := c.try(operation, in)
	if status != http.StatusOK {
		c.t.Fatalf("%s: %d %v", operation, status, out)
	}
	return out
}

const cognitoPassword = "Secret-12345"

// user makes somebody with a verified address, and an attribute that a user could have set themselves.
func (c *cognito) user(email string) {
	c.t.Helper()
	c.call("AdminCreateUser", map[string]any{"UserPoolId": c.pool, "Username": email, "MessageAction": "SUPPRESS", "UserAttributes": []map[string]string{
		{"Name": "email", "Value": email}, {"Name": "email_verified", "Value": "true"}, {"Name": "custom:tenant_id", "Value": "globex"}}})
	c.call("AdminSetUserPassword", map[string]any{"UserPoolId": c.pool, "Username": email, "Password": cognitoPassword, "Permanent": true})
}

// signIn gives the ID token, empty where the sign-in is refused.
func (c *cognito) signIn(email string) string {
	c.t.Helper()
	out, _ := c.try("InitiateAuth", map[string]any{"ClientId": c.client, "AuthFlow": "USER_PASSWORD_AUTH",
		"AuthParameters": map[string]string{"USERNAME": email, "PASSWORD": cognitoPassword}, "ClientMetadata": map[string]string{"tenant_id": "globex"}})
	result, _ := out["AuthenticationResult"].(map[string]any)
	token, _ := result["IdToken"].(string)
	return token
}

func TestCognitoEmulator(t *testing.T) {
	s := start(t)
	s.onboard("acme", map[string]string{"all": `permit (principal, action, resource);`})
	s.onboard("globex", map[string]string{"all": `permit (principal, action, resource);`})
	c := startCognito(t, s)
	s.must(201, "POST", "/v1/issuers", api.Issuer{
		URL: c.iss, Tenants: []string{"acme", "globex"}, TokenType: "id", Audiences: []string{c.client}, Algorithms: []string{"RS256"},
		TenantClaim: "tenant_id", PrincipalType: "User", EmailDomains: []string{"example.com"},
	})
	c.user("alice@example.com")
	if token := c.signIn("alice@example.com"); token != "" {
		t.Error("nobody's member gets a token")
	}
	s.must(200, "PUT", "/v1/tenants/acme/members", api.PutMembersRequest{Members: []api.MemberInput{{MemberRef: api.MemberRef{Email: "alice@example.com"}}}})
	token := c.signIn("alice@example.com")
	if token == "" {
		t.Fatal("the invited member gets no token")
	}
	claims := jwt.MapClaims{}
	if _, _, err := jwt.NewParser().ParseUnverified(token, claims); err != nil {
		t.Fatal(err)
	}
	if _, there := claims["custom:tenant_id"]; there || claims["tenant_id"] != "acme" {
		t.Errorf("the token says %v", claims)
	}
	if got := wantDecision(t, s.authorize(token, viewDoc), "ALLOW"); got.Tenant != "acme" {
		t.Errorf("it is decided for in %s", got.Tenant)
	}
	s.must(200, "POST", "/v1/tenants/acme/suspend", nil)
	if token := c.signIn("alice@example.com"); token != "" {
		t.Error("a suspended tenant's member gets a token")
	}
}
