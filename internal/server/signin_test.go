package server_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/copse-authz/copse/internal/api"
)

// A sign-in at a provider that we did not write, npm's oidc-provider, which asks copse's hook: the sample's
// own, in examples/payments/idp.

// provider is a running oidc-provider.
type provider struct {
	t      *testing.T
	issuer string
	client *http.Client
}

func startProvider(t *testing.T, copseURL, key string) *provider {
	t.Helper()
	const dir = "../../examples/payments/idp"
	installNode(t, dir)
	address := freeAddress(t)
	_, port, _ := strings.Cut(address, ":")
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "node", "idp.mjs", port, copseURL)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "COPSE_HOOK_KEY="+key, "NODE_ENV=production")
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if lines.Text() == "http://"+address {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			jar, _ := cookiejar.New(nil)
			p := &provider{t: t, issuer: "http://" + address, client: &http.Client{Jar: jar, Timeout: 30 * time.Second}}
			p.client.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
				if strings.HasPrefix(r.URL.String(), redirectURI) {
					return http.ErrUseLastResponse
				}
				return nil
			}
			return p
		}
	}
	t.Fatal("the provider does not listen")
	return nil
}

const redirectURI = "http://127.0.0.1/signed-in"

// installNode brings a directory's pinned packages, unless they are there.
func installNode(t *testing.T, dir string) {
	t.Helper()
	lock, err := os.ReadFile(dir + "/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	stamp := dir + "/node_modules/.installed"
	sum := fmt.Sprintf("%x", sha256.Sum256(lock))
	if have, err := os.ReadFile(stamp); err == nil && string(have) == sum {
		return
	}
	npm := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
	npm.Dir = dir
	if out, err := npm.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	if err := os.WriteFile(stamp, []byte(sum), 0o600); err != nil {
		t.Fatal(err)
	}
}

var formAction = regexp.MustCompile(`<form[^>]* action="([^"]+)"`)

// signIn is an authorization code flow with PKCE, as a browser and an application do it together. extra goes
// with both of the application's requests.
func (p *provider) signIn(user string, extra url.Values) (token string, refusal string) {
	p.t.Helper()
	jar, _ := cookiejar.New(nil)
	p.client.Jar = jar // another person
	verifier := rand.Text() + rand.Text()
	challenge := sha256.Sum256([]byte(verifier))
	query := url.Values{"response_type": {"code"}, "client_id": {"web"}, "redirect_uri": {redirectURI}, "scope": {"openid email"},
		"code_challenge": {encode64(challenge[:])}, "code_challenge_method": {"S256"}, "state": {"s"}}
	form := url.Values{"grant_type": {"authorization_code"}, "redirect_uri": {redirectURI}, "client_id": {"web"}, "code_verifier": {verifier}}
	for name, values := range extra {
		query[name], form[name] = values, values
	}
	resp, err := p.client.Get(p.issuer + "/auth?" + query.Encode())
	for range 6 {
		if err != nil {
			p.t.Fatal(err)
		}
		page, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if back, err := resp.Location(); err == nil && strings.HasPrefix(back.String(), redirectURI) {
			if form.Set("code", back.Query().Get("code")); form.Get("code") == "" {
				return "", back.Query().Get("error_description")
			}
			return p.token(form)
		}
		action := formAction.FindSubmatch(page)
		if action == nil {
			p.t.Fatalf("the provider answered %s: %.600s", resp.Status, page)
		}
		next, err := resp.Request.URL.Parse(string(action[1]))
		if err != nil {
			p.t.Fatal(err)
		}
		fill := url.Values{"prompt": {"login"}, "login": {user}, "password": {"any"}}
		if strings.Contains(string(page), `value="consent"`) {
			fill = url.Values{"prompt": {"consent"}}
		}
		resp, err = p.client.PostForm(next.String(), fill)
		if err != nil {
			p.t.Fatal(err)
		}
	}
	p.t.Fatal("the provider asks without end")
	return "", ""
}

func (p *provider) token(form url.Values) (token, refusal string) {
	p.t.Helper()
	resp, err := p.client.PostForm(p.issuer+"/token", form)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var out struct {
		AccessToken string `json:"access_token"`
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		p.t.Fatal(err)
	}
	return out.AccessToken, out.Error + " " + out.Description
}

// robot asks with its own credentials.
func (p *provider) robot(extra url.Values) (token, refusal string) {
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {"robot"}, "client_secret": {"robot-secret-of-the-sample"}}
	for name, values := range extra {
		form[name] = values
	}
	return p.token(form)
}

func TestSignIn(t *testing.T) {
	s := start(t)
	s.onboard("acme", map[string]string{
		"staff":  `permit (principal in Role::"clerk", action, resource);`,
		"robots": `permit (principal == User::"robot", action, resource);`})
	s.onboard("globex", map[string]string{"all": `permit (principal, action, resource);`})
	p := startProvider(t, s.caller.url, s.caller.key(api.KeyScope{All: true}, "decide"))
	s.must(201, "POST", "/v1/issuers", api.Issuer{
		URL: p.issuer, Tenants: []string{"acme", "globex"}, TokenType: "access", Audiences: []string{"https://api.payments.example"}, Algorithms: []string{"RS256"},
		TenantClaim: "tenant_id", PrincipalType: "User", GroupType: "Role", GroupClaim: "roles", EmailDomains: []string{"example.com"},
	})
	put := func(tenant string, in api.MemberInput) {
		t.Helper()
		if in.Email == "" {
			in.Issuer = p.issuer
		}
		got := decode[api.PutMembersAnswer](t, s.must(200, "PUT", "/v1/tenants/"+tenant+"/members", api.PutMembersRequest{Members: []api.MemberInput{in}}))
		if got.Written != 1 {
			t.Fatalf("%+v", got)
		}
	}
	put("acme", api.MemberInput{MemberRef: subject("alice"), Roles: []string{"clerk"}})
	put("globex", api.MemberInput{MemberRef: subject("bob")})
	put("acme", api.MemberInput{MemberRef: api.MemberRef{Email: "mona@example.com"}, Roles: []string{"clerk"}})
	put("acme", api.MemberInput{MemberRef: subject("robot")})
	put("acme", api.MemberInput{MemberRef: api.MemberRef{ClientID: "robot"}})

	// Whatever the client sends along has no say.
	hostile := url.Values{"tenant_id": {"globex"}, "tenant": {"globex"}, "claims": {`{"id_token":{"tenant_id":{"value":"globex"}},"userinfo":{"tenant_id":null}}`}}
	for user, tenant := range map[string]string{"alice": "acme", "bob": "globex", "mona": "acme"} {
		token, refusal := p.signIn(user, hostile)
		if token == "" {
			t.Fatalf("%s: %s", user, refusal)
		}
		claims := jwt.MapClaims{}
		if _, _, err := jwt.NewParser().ParseUnverified(token, claims); err != nil {
			t.Fatal(err)
		}
		if claims["tenant_id"] != tenant || claims["sub"] != user {
			t.Errorf("%s: %v", user, claims)
		}
		r := s.authorize(token, `{"action":{"id":"view"},"resource":{"type":"Doc","id":"1"}}`)
		if got := wantDecision(t, r, "ALLOW"); got.Tenant != tenant {
			t.Errorf("%s is decided for in %s", user, got.Tenant)
		}
	}
	if token, refusal := p.signIn("nobody", nil); token != "" || !strings.Contains(refusal, "no member") {
		t.Errorf("nobody's member gets a token: %q", refusal)
	}
	token, refusal := p.robot(hostile)
	if token == "" {
		t.Fatal(refusal)
	}
	claims := jwt.MapClaims{}
	if _, _, err := jwt.NewParser().ParseUnverified(token, claims); err != nil || claims["tenant_id"] != "acme" {
		t.Errorf("%v %v", claims, err)
	}
	// The member's own token changes the tenant of the next one.
	put("globex", api.MemberInput{MemberRef: subject("alice")})
	token, _ = p.signIn("alice", nil)
	wantStatus(t, s.as(token, "PUT", "/v1/me/tenant", map[string]string{"tenant": "globex"}), 204)
	token, _ = p.signIn("alice", nil)
	if got := wantDecision(t, s.authorize(token, viewDoc), "ALLOW"); got.Tenant != "globex" {
		t.Errorf("after the change the token is for %s", got.Tenant)
	}
	// No token while the tenant is suspended.
	s.must(200, "POST", "/v1/tenants/globex/suspend", nil)
	if token, _ := p.signIn("bob", nil); token != "" {
		t.Error("a suspended tenant's member gets a token")
	}
}
