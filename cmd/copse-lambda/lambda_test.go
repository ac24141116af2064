package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/copse-authz/copse/copsetest"
)

// The binary is run for real, against a real copse, by a loop that speaks Lambda's runtime API.

// runtime is that loop: what AWS runs beside a function.
type runtime struct {
	t       testing.TB
	server  *httptest.Server
	events  chan []byte
	answers chan outcome
	began   time.Time
	cold    time.Duration // from the start of the process until it asked for its first event
}

// outcome of one event: a response, or an error's text.
type outcome struct {
	response []byte
	failure  string
}

func buildLambda(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bootstrap")
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "lambda.norpc", "-o", file, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return file
}

func startRuntime(t testing.TB, binary string, env ...string) *runtime {
	t.Helper()
	r := &runtime{t: t, events: make(chan []byte), answers: make(chan outcome)}
	asked := make(chan time.Time, 100)
	const base = "/2018-06-01/runtime/"
	mux := http.NewServeMux()
	n := 0
	mux.HandleFunc("GET "+base+"invocation/next", func(w http.ResponseWriter, q *http.Request) {
		select {
		case asked <- time.Now():
		default:
		}
		select {
		case event := <-r.events:
			n++
			w.Header().Set("Lambda-Runtime-Aws-Request-Id", fmt.Sprint(n))
			w.Header().Set("Lambda-Runtime-Deadline-Ms", fmt.Sprint(time.Now().Add(time.Minute).UnixMilli()))
			w.Header().Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:eu-west-1:111122223333:function:copse")
			_, _ = w.Write(event)
		case <-q.Context().Done():
		}
	})
	mux.HandleFunc("POST "+base+"invocation/{id}/{kind}", func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		w.WriteHeader(http.StatusAccepted)
		if q.PathValue("kind") == "response" {
			r.answers <- outcome{response: body}
			return
		}
		var failure struct {
			ErrorMessage string `json:"errorMessage"`
		}
		_ = json.Unmarshal(body, &failure)
		r.answers <- outcome{failure: failure.ErrorMessage}
	})
	r.server = httptest.NewServer(mux)
	cmd := exec.Command(binary)
	cmd.Env = append(env, "AWS_LAMBDA_RUNTIME_API="+strings.TrimPrefix(r.server.URL, "http://"), "_HANDLER=bootstrap")
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	r.began = time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		r.server.CloseClientConnections()
		r.server.Close()
		for _, secret := range []string{"copse_", "Bearer", "eyJ"} {
			if strings.Contains(output.String(), secret) {
				t.Errorf("the log holds a credential: %s", output.String())
			}
		}
	})
	select {
	case at := <-asked:
		r.cold = at.Sub(r.began)
	case <-time.After(time.Minute):
		t.Fatalf("the function does not ask for events: %s", output.String())
	}
	return r
}

func (r *runtime) invoke(event []byte) outcome {
	r.t.Helper()
	limit := time.After(time.Minute)
	select {
	case r.events <- event:
	case <-limit:
		r.t.Fatal("the function does not take an event")
	}
	select {
	case out := <-r.answers:
		return out
	case <-limit:
		r.t.Fatal("the function does not answer")
	}
	return outcome{}
}

// sample is one of the events that come with AWS's library, with changes by dotted path.
func sample(t testing.TB, name string, change map[string]any) []byte {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/aws/aws-lambda-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "events", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var event map[string]any
	if err := json.Unmarshal(text, &event); err != nil {
		t.Fatal(err)
	}
	for path, value := range change {
		at := event
		parts := strings.Split(path, ".")
		for _, part := range parts[:len(parts)-1] {
			at = at[part].(map[string]any)
		}
		at[parts[len(parts)-1]] = value
	}
	out, err := json.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

const routes = `
routes:
  - route: GET /invoices/{id}
    action: view
    resource: Invoice::"{id}"
    service: invoices
  - route: GET /search
    action: search
    resource: Service::"invoices"
    context: {q: "{query.q}", device: "{header.X-Device}"}
`

// site is a copse with two tenants, and a function that asks it.
type site struct {
	*copsetest.Server
	clerk, stranger string
	binary          string
}

func newSite(t testing.TB) *site {
	t.Helper()
	file := filepath.Join(t.TempDir(), "routes.yaml")
	if err := os.WriteFile(file, []byte(routes), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &site{Server: copsetest.Start(t, copsetest.Routes(file)), binary: buildLambda(t)}
	s.CreateTenant(t, "acme", copsetest.Contents{Policies: map[string]string{
		"view":   `permit (principal in Role::"clerk", action == Action::"view", resource);`,
		"search": `permit (principal, action == Action::"search", resource) when { context.q == "a b" && context.device == "kiosk" };`,
	}})
	s.clerk = "Bearer " + s.Token(t, "acme", "alice", copsetest.Groups("clerk"))
	s.stranger = "Bearer " + s.Token(t, "acme", "eve")
	return s
}

func restARN(method, path string) string {
	return "arn:aws:execute-api:us-east-1:111122223333:abcdef123/prod/" + method + path
}

func TestAuthorizers(t *testing.T) {
	s := newSite(t)
	cached := startRuntime(t, s.binary, "COPSE_URL="+s.URL, "COPSE_HEADERS=X-Other, X-Device")
	fresh := startRuntime(t, s.binary, "COPSE_URL="+s.URL, "COPSE_CACHED=false", "COPSE_RESPONSE=iam")

	t.Run("REST, TOKEN", func(t *testing.T) {
		ask := func(token, method, path string) outcome {
			return cached.invoke(sample(t, "apigw-custom-auth-request.json", map[string]any{"type": "TOKEN", "authorizationToken": token, "methodArn": restARN(method, path)}))
		}
		wantPolicy(t, ask(s.clerk, "GET", "/invoices/17"), "Allow", restARN("GET", "/invoices/17"))
		wantPolicy(t, ask(s.stranger, "GET", "/invoices/17"), "Deny", restARN("GET", "/invoices/17"))
		wantPolicy(t, ask(s.clerk, "GET", "/admin"), "Deny", restARN("GET", "/admin"))
		wantPolicy(t, ask(s.clerk, "GET", "/invoices/../admin"), "Deny", restARN("GET", "/invoices/../admin"))
		// What a policy would read as a pattern allows nothing.
		for _, path := range []string{"/invoices/*", "/invoices/1?", "/invoices/${x}", "/invoices/" + strings.Repeat("1", 500)} {
			wantPolicy(t, ask(s.clerk, "GET", path), "Deny", restARN("GET", path))
		}
		for _, token := range []string{"", "x", "Bearer x.y.z"} {
			if got := ask(token, "GET", "/invoices/17"); got.failure != "Unauthorized" {
				t.Errorf("%q: %+v", token, got)
			}
		}
	})
	t.Run("REST, REQUEST", func(t *testing.T) {
		ask := func(r *runtime, change map[string]any) outcome {
			all := map[string]any{"type": "REQUEST", "methodArn": restARN("GET", "/invoices/17"), "httpMethod": "GET", "path": "/invoices/17",
				"headers": map[string]any{"authorization": s.clerk}, "multiValueHeaders": map[string]any{"authorization": []any{s.clerk}},
				"queryStringParameters": map[string]any{}, "multiValueQueryStringParameters": map[string]any{}}
			for k, v := range change {
				all[k] = v
			}
			return r.invoke(sample(t, "apigw-custom-auth-request-type-request.json", all))
		}
		got := wantPolicy(t, ask(cached, nil), "Allow", restARN("GET", "/invoices/17"))
		if got.Context["tenant"] != "acme" || got.Context["copseContext"] != nil {
			t.Errorf("an answer that is cached has context %v", got.Context)
		}
		got = wantPolicy(t, ask(fresh, nil), "Allow", restARN("GET", "/invoices/17"))
		if signed, _ := got.Context["copseContext"].(string); strings.Count(signed, ".") != 2 {
			t.Errorf("no signed context in %v", got.Context)
		}
		for name, value := range got.Context {
			if _, flat := value.(string); !flat {
				t.Errorf("%s is no text: a REST API takes no other", name)
			}
		}
		search := map[string]any{"path": "/search", "methodArn": restARN("GET", "/search"), "multiValueQueryStringParameters": map[string]any{"q": []any{"a b"}},
			"multiValueHeaders": map[string]any{"Authorization": []any{s.clerk}, "x-device": []any{"kiosk"}}}
		wantPolicy(t, ask(cached, search), "Allow", restARN("GET", "/search"))
		search["multiValueQueryStringParameters"] = map[string]any{"q": []any{"a b", "a b"}}
		wantPolicy(t, ask(cached, search), "Deny", restARN("GET", "/search"))
		wantPolicy(t, ask(cached, map[string]any{"multiValueHeaders": map[string]any{"Authorization": []any{s.clerk, s.stranger}}}), "Deny", restARN("GET", "/invoices/17"))
		// Names that differ in their case only are one header.
		for _, change := range []map[string]any{
			{"multiValueHeaders": map[string]any{"Authorization": []any{s.clerk}, "authorization": []any{s.stranger}}},
			{"multiValueHeaders": map[string]any{}, "headers": map[string]any{"Authorization": s.clerk, "authorization": s.stranger}},
		} {
			wantPolicy(t, ask(cached, change), "Deny", restARN("GET", "/invoices/17"))
		}
		if got := ask(cached, map[string]any{"headers": map[string]any{}, "multiValueHeaders": map[string]any{}}); got.failure != "Unauthorized" {
			t.Errorf("%+v", got)
		}
	})
	t.Run("HTTP API 2.0", func(t *testing.T) {
		ask := func(r *runtime, token, path, query string) outcome {
			return r.invoke(sample(t, "apigw-v2-custom-authorizer-v2-request.json", map[string]any{"version": "2.0", "type": "REQUEST",
				"routeArn": restARN("GET", path), "rawPath": "/prod" + path, "rawQueryString": query, "headers": map[string]any{"authorization": token, "x-device": "kiosk"},
				"requestContext.stage": "prod", "requestContext.http.method": "GET"}))
		}
		simple := func(out outcome, want bool) {
			t.Helper()
			var got events.APIGatewayV2CustomAuthorizerSimpleResponse
			if err := json.Unmarshal(out.response, &got); err != nil || got.IsAuthorized != want {
				t.Errorf("%s %s, %v; want %v", out.response, out.failure, err, want)
			}
			if want != (got.Context["tenant"] == "acme") {
				t.Errorf("context %v", got.Context)
			}
		}
		simple(ask(cached, s.clerk, "/invoices/17", ""), true)
		simple(ask(cached, s.clerk, "/search", "q=a+b"), true)
		simple(ask(cached, s.clerk, "/search", "q=a+b&q=c"), false)
		simple(ask(cached, s.stranger, "/invoices/17", ""), false)
		simple(ask(cached, s.clerk, "/admin", ""), false)
		simple(ask(cached, s.clerk+","+s.clerk, "/invoices/17", ""), false)
		simple(ask(cached, "", "/invoices/17", ""), false)
		// The stage is a whole segment of the path, or not in it.
		for stage, want := range map[string]bool{"inv": true, "invoices": false, "invoices/17": false, "$default": true} {
			simple(cached.invoke(sample(t, "apigw-v2-custom-authorizer-v2-request.json", map[string]any{"version": "2.0", "type": "REQUEST",
				"routeArn": restARN("GET", "/invoices/17"), "rawPath": "/invoices/17", "rawQueryString": "", "headers": map[string]any{"authorization": s.clerk},
				"requestContext.stage": stage, "requestContext.http.method": "GET"})), want)
		}
		wantPolicy(t, ask(fresh, s.clerk, "/invoices/17", ""), "Allow", restARN("GET", "/invoices/17"))
		wantPolicy(t, ask(fresh, s.stranger, "/invoices/17", ""), "Deny", restARN("GET", "/invoices/17"))
	})
	t.Run("other events", func(t *testing.T) {
		for _, event := range []string{`{}`, `[]`, `{"type":"OTHER"}`, `{"type":"TOKEN","authorizationToken":"` + s.clerk + `","methodArn":"x"}`} {
			if got := cached.invoke([]byte(event)); got.failure == "" {
				t.Errorf("%s: %s", event, got.response)
			}
		}
		// Without a key there is no hook, and without a hook no token.
		if got := cached.invoke([]byte(`{"triggerSource":"TokenGeneration_HostedAuth"}`)); got.failure == "" {
			t.Errorf("%s", got.response)
		}
	})
}

func wantPolicy(t *testing.T, out outcome, effect, resource string) events.APIGatewayCustomAuthorizerResponse {
	t.Helper()
	var got events.APIGatewayCustomAuthorizerResponse
	if err := json.Unmarshal(out.response, &got); err != nil {
		t.Errorf("%s %s: %v", out.response, out.failure, err)
		return got
	}
	s := got.PolicyDocument.Statement
	if got.PrincipalID == "" || got.PolicyDocument.Version != "2012-10-17" || len(s) != 1 || s[0].Effect != effect || len(s[0].Resource) != 1 || s[0].Resource[0] != resource {
		t.Errorf("%s, want %s of %s", out.response, effect, resource)
	}
	return got
}

// The trigger of Cognito, end to end but for Cognito.
func TestTokenHook(t *testing.T) {
	s := newSite(t)
	const pool = "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_EXAMPLE"
	s.api(t, "POST", "/v1/issuers", map[string]any{"url": pool, "tenants": []string{"acme"}, "tokenType": "access", "clientIds": []string{"1example23456789"},
		"tenantClaim": "tenant_id", "principalType": "Person", "groupType": "Group", "groupClaim": "cognito:groups"})
	s.api(t, "PUT", "/v1/tenants/acme/members", map[string]any{"members": []any{map[string]any{"issuer": pool, "subject": "a36036a8-9061-424d-a737-56d57dae7bc6", "roles": []string{"clerk"}}}})
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte(s.RootCredential+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startRuntime(t, s.binary, "COPSE_URL="+s.URL, "COPSE_KEY_FILE="+keyFile)
	const name = "cognito-event-userpools-pretokengen-v2_0.json"
	out := r.invoke(sample(t, name, nil))
	var got events.CognitoEventUserPoolsPreTokenGenV2_0
	if err := json.Unmarshal(out.response, &got); err != nil {
		t.Fatal(out.failure, err)
	}
	details := got.Response.ClaimsAndScopeOverrideDetails
	if details.AccessTokenGeneration.ClaimsToAddOrOverride["tenant_id"] != "acme" || fmt.Sprint(details.GroupOverrideDetails.GroupsToOverride) != "[clerk]" {
		t.Errorf("%s", out.response)
	}
	if out := r.invoke(sample(t, name, map[string]any{"request.userAttributes.sub": "someone-else"})); out.failure != "no tenant for this user" {
		t.Errorf("%+v", out)
	}
}

func (s *site) api(t *testing.T, method, path string, body any) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+s.RootCredential)
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode >= 300 {
		answer, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s %s: %s %s", method, path, resp.Status, answer)
	}
}

// Where copse can't be asked nothing passes, and the error says nothing of the inside.
func TestFailsClosed(t *testing.T) {
	binary := buildLambda(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	wrong := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Authorization") {
		case "Bearer redirect":
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
		case "Bearer garbage":
			_, _ = w.Write([]byte(`<html>`))
		case "Bearer empty":
			_, _ = w.Write([]byte(`{"decision":"ALLOW"}`))
		default:
			http.Error(w, "down", http.StatusServiceUnavailable)
		}
	}))
	defer wrong.Close()
	event := func(token string) []byte {
		return fmt.Appendf(nil, `{"type":"TOKEN","authorizationToken":"Bearer %s","methodArn":"%s"}`, token, restARN("GET", "/invoices/17"))
	}
	for _, address := range []string{"http://127.0.0.1:1", "http://" + silent.Addr().String(), wrong.URL} {
		r := startRuntime(t, binary, "COPSE_URL="+address, "COPSE_TIMEOUT=200ms")
		for _, token := range []string{"a", "redirect", "garbage", "empty"} {
			if got := r.invoke(event(token)); got.failure != "the decision is not available" {
				t.Errorf("%s, %s: %+v", address, token, got)
			}
		}
	}
	for _, env := range [][]string{{"COPSE_URL=ftp://x"}, {"COPSE_URL=x"}, {"COPSE_URL=http://copse.internal"}, {"COPSE_URL=https://c", "COPSE_TIMEOUT=0"},
		{"COPSE_URL=https://c", "COPSE_TIMEOUT=-1s"}, {"COPSE_URL=http://c", "COPSE_ALLOW_HTTP=yes"}} {
		out, err := exec.Command("env", append(append([]string{"-i"}, env...), binary)...).CombinedOutput()
		var ended *exec.ExitError
		if !errors.As(err, &ended) || ended.ExitCode() != 2 || !strings.Contains(string(out), "COPSE_") {
			t.Errorf("%q: %v: %s", env, err, out)
		}
	}
}

// What a Lambda function carries is loaded at every cold start: no database, no engine, no control API.
func TestLinksNoServer(t *testing.T) {
	out, err := exec.CommandContext(context.Background(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for dep := range strings.Lines(string(out)) {
		n++
		for _, never := range []string{"sqlite", "pgx", "huma", "cedar", "prometheus", "copse/internal"} {
			if strings.Contains(dep, never) {
				t.Errorf("it links %s", strings.TrimSpace(dep))
			}
		}
	}
	if n < 50 {
		t.Fatalf("only %d packages listed", n)
	}
	for _, arch := range []string{"arm64", "amd64"} {
		cmd := exec.Command("go", "build", "-tags", "lambda.norpc", "-o", os.DevNull, ".")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", arch, err, out)
		}
	}
}

// BenchmarkColdStart is from the start of the process until it asks for its first event, and until that is
// answered.
func BenchmarkColdStart(b *testing.B) {
	s := newSite(b)
	event := fmt.Appendf(nil, `{"type":"TOKEN","authorizationToken":"%s","methodArn":"%s"}`, s.clerk, restARN("GET", "/invoices/17"))
	var ready, answered time.Duration
	for b.Loop() {
		r := startRuntime(b, s.binary, "COPSE_URL="+s.URL)
		if got := r.invoke(event); got.failure != "" {
			b.Fatal(got.failure)
		}
		ready, answered = ready+r.cold, answered+time.Since(r.began)
	}
	b.ReportMetric(float64(ready.Microseconds())/float64(b.N)/1000, "ready-ms")
	b.ReportMetric(float64(answered.Microseconds())/float64(b.N)/1000, "answered-ms")
}
