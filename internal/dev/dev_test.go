package dev

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/server"
	"github.com/copse-authz/copse/internal/tenant"
)

func startDev(t *testing.T, dir string) *Dev {
	t.Helper()
	cfg := server.DefaultConfig()
	cfg.DataDir, cfg.Listen, cfg.OpsListen = dir, "127.0.0.1:0", ""
	d, err := Start(context.Background(), Config{Server: cfg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

func tour(t *testing.T, d *Dev) {
	t.Helper()
	rows, err := d.Tour(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != len(Cases()) || len(rows) < 17 {
		t.Errorf("%d rows of %d cases", len(rows), len(Cases()))
	}
}

func TestTour(t *testing.T) {
	d := startDev(t, "")
	tour(t, d)
	dir := d.tempDir
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the temporary directory is still there: %v", err)
	}
}

// A tour that can't fail would be no tour.
func TestTourTellsDifferences(t *testing.T) {
	d := startDev(t, "")
	if _, err := d.Server.Tenants.SetState(t.Context(), access.System(), "globex", copse.TenantSuspended); err != nil {
		t.Fatal(err)
	}
	rows, err := d.Tour(t.Context(), nil)
	wrong := 0
	for _, r := range rows {
		if !r.OK {
			wrong++
		}
	}
	if err == nil || wrong != 4 || len(rows) != len(Cases()) {
		t.Errorf("with globex suspended %d of %d rows differ, error %v", wrong, len(rows), err)
	}
}

// Each pasted line gives the answer that stands above it.
func TestIntroCanBePasted(t *testing.T) {
	d := startDev(t, "")
	var b strings.Builder
	if err := d.WriteIntro(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^# .*: (\d\d\d)( ALLOW| DENY)?.*\ncurl -s (\S+) -H '(\w+): ([^']+)' -H "(\S+): \$COPSE_KEY" -d '([^']+)'$`)
	found := line.FindAllStringSubmatch(b.String(), -1)
	if len(found) != len(Cases()) {
		t.Fatalf("%d lines for %d cases:\n%s", len(found), len(Cases()), b.String())
	}
	for _, f := range found {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f[3], strings.NewReader(f[7]))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded") // as curl -d does
		req.Header.Set(f[4], f[5])
		req.Header.Set(f[6], string(d.Credential()))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.Status[:3] != f[1] || !strings.Contains(string(body), strings.TrimSpace(f[2])) {
			t.Errorf("got %s %s for\n%s", resp.Status, body, f[0])
		}
	}
	for _, want := range []string{"export COPSE_URL=" + d.URL(), "export COPSE_KEY=" + string(d.Credential())} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no line %q", want)
		}
	}
}

// A kept directory may be opened again, on another port: nothing is doubled, what its user changed
// stays, and issuers are trusted where they are now, and only there.
func TestKeptDirectory(t *testing.T) {
	dir := t.TempDir()
	d := startDev(t, dir)
	ctx := t.Context()
	if _, err := d.Server.Tenants.Create(ctx, access.System(), tenant.NewTenant{ID: "hooli"}); err != nil {
		t.Fatal(err)
	}
	fourth := Registration(d.URL(), "hooli")
	fourth.Tenants = []copse.TenantID{"hooli"}
	if _, err := d.Server.Tenants.AddIssuer(ctx, access.System(), fourth); err != nil {
		t.Fatal(err)
	}
	if err := d.Server.Tenants.Delete(ctx, access.System(), "initech"); err != nil {
		t.Fatal(err)
	}
	before, _, err := d.Server.Tenants.List(ctx, access.System(), "", 10)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := os.ReadFile(filepath.Join(dir, issuersFile))
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, issuersFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the keys have mode %v, %v", info.Mode(), err)
	}
	formerURL := d.URL()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	// Keep the port, so that the second server surely gets another one.
	holder := httptest.NewUnstartedServer(nil)
	holder.Start()
	defer holder.Close()

	d = startDev(t, dir)
	tour(t, d)
	after, _, err := d.Server.Tenants.List(ctx, access.System(), "", 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, was := range before {
		i := slices.IndexFunc(after, func(is tenant.Tenant) bool { return is.ID == was.ID })
		if i < 0 || after[i].PolicyStoreID != was.PolicyStoreID {
			t.Errorf("tenant %s was made again", was.ID)
		}
	}
	issuers, _, err := d.Server.Tenants.ListIssuers(ctx, access.System(), "", 100)
	if err != nil {
		t.Fatal(err)
	}
	var urls []string
	for _, in := range issuers {
		urls = append(urls, in.URL)
	}
	slices.Sort(urls)
	want := []string{d.URL() + "/issuers/acme", d.URL() + "/issuers/globex", d.URL() + "/issuers/hooli", d.URL() + "/issuers/initech", d.URL() + "/issuers/shared"}
	if !slices.Equal(urls, want) {
		t.Errorf("issuers %q, want %q", urls, want)
	}
	var was, is stored
	again, err := os.ReadFile(filepath.Join(dir, issuersFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(keys, &was); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(again, &is); err != nil {
		t.Fatal(err)
	}
	if string(was.Keys["acme"]) == "" || string(was.Keys["acme"]) != string(is.Keys["acme"]) || is.BaseURL != d.URL() {
		t.Errorf("keys or address were not kept; it was at %s", formerURL)
	}
}

// The addresses in the documents are the server's own, whatever a request says it is called.
func TestIssuerDocuments(t *testing.T) {
	d := startDev(t, "")
	for name, alg := range map[string]string{"acme": "ES256", "initech": "RS256", Shared: "ES256", "any-other.name": "ES256"} {
		var doc discovery
		getJSON(t, d.URL()+"/issuers/"+name+"/.well-known/openid-configuration", &doc)
		if doc.Issuer != d.URL()+"/issuers/"+name || doc.JWKSURI != doc.Issuer+"/jwks.json" || doc.TokenEndpoint != doc.Issuer+"/token" {
			t.Errorf("%s: %+v", name, doc)
		}
		var set jwks
		getJSON(t, doc.JWKSURI, &set)
		if len(set.Keys) != 1 || set.Keys[0].Algorithm != alg || set.Keys[0].KeyID == "" {
			t.Errorf("%s: %+v", name, set)
		}
	}
	for _, name := range []string{"-x", "a%20b", "..%2f", strings.Repeat("x", 129)} {
		resp, err := http.Get(d.URL() + "/issuers/" + name + "/jwks.json")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode < 400 || resp.StatusCode > 499 {
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
}

func getJSON(t *testing.T, url string, into any) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "evil.example"
	req.Header.Set("X-Forwarded-Host", "evil.example")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", url, resp.Status)
	}
	if err := json.UnmarshalRead(resp.Body, into); err != nil {
		t.Fatalf("%s: %v", url, err)
	}
}

func TestMint(t *testing.T) {
	d := startDev(t, "")
	for _, c := range []struct {
		name string
		in   TokenRequest
		want string // of an error
	}{
		{"tenant's own issuer", TokenRequest{Tenant: "acme", User: "alice"}, ""},
		{"a tenant nobody has", TokenRequest{Tenant: "hooli", User: "alice", Expires: -time.Minute}, ""},
		{"no tenant", TokenRequest{Issuer: Shared, User: "alice"}, ""},
		{"a name that is none", TokenRequest{Issuer: "a b", User: "alice"}, "tenant id"},
	} {
		token, err := Mint(t.Context(), nil, d.URL()+"/", c.in)
		if c.want == "" && (err != nil || strings.Count(token, ".") != 2) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %q, %v", c.name, token, err)
		}
	}
	resp, err := http.Post(d.URL()+"/issuers/acme/token", "application/x-www-form-urlencoded",
		strings.NewReader("tenant=acme&user=alice&group=clerk&group=manager&claim=region=eu&expires=5m"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer tokenAnswer
	if err := json.UnmarshalRead(resp.Body, &answer); err != nil || answer.ExpiresIn != 300 {
		t.Fatalf("%+v, %v", answer, err)
	}
	v, err := d.Server.Verifier.Verify(t.Context(), answer.AccessToken)
	if err != nil || v.Tenant != "acme" || v.Principal.String() != `User::"alice"` || !strings.Contains(string(v.Entities.Bytes), "manager") || !strings.Contains(string(v.Context.Bytes), `"eu"`) {
		t.Errorf("%+v, %v", v, err)
	}
	for _, body := range []string{"tenant", "tenant=acme&usr=x", "claim=x", "%zz=1"} {
		resp, err := http.Post(d.URL()+"/issuers/acme/token", "application/x-www-form-urlencoded", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if want := body == "tenant"; (resp.StatusCode == 200) != want {
			t.Errorf("%q: %s", body, resp.Status)
		}
	}
	// A server for real use has no issuers.
	cfg := server.DefaultConfig()
	cfg.InMemory, cfg.DrainDelay, cfg.Listen, cfg.OpsListen = true, 0, "127.0.0.1:0", ""
	s, err := server.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	if _, err := Mint(t.Context(), nil, s.URL(), TokenRequest{Tenant: "acme", User: "alice"}); copse.KindOf(err) != copse.NotFound {
		t.Errorf("serve: %v", err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// What dev opens beside the document, and nothing else.
func TestOpenRoutes(t *testing.T) {
	d := startDev(t, "")
	var open []string
	for _, r := range d.Server.Routes() {
		if r.Open {
			open = append(open, r.Pattern)
		}
	}
	slices.Sort(open)
	want := []string{"GET /issuers/{name}/.well-known/openid-configuration", "GET /issuers/{name}/jwks.json", "GET /openapi.json", "POST /issuers/{name}/token"}
	if !slices.Equal(open, want) {
		t.Errorf("open routes %q, want %q", open, want)
	}
}

func TestIssuersAreBounded(t *testing.T) {
	i, _, err := openIssuers("", "http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	key, err := i.key("acme")
	if err != nil {
		t.Fatal(err)
	}
	for n := range maxIssuers {
		i.keys[string(rune('a'+n%26))+time.Duration(n).String()] = key
	}
	if _, err := i.key("one-more"); copse.KindOf(err) != copse.QuotaExceeded {
		t.Errorf("got %v", err)
	}
	if _, err := i.key("acme"); err != nil {
		t.Errorf("one that is there: %v", err)
	}
}
