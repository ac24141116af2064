package server_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/server"
	"github.com/copse-authz/copse/internal/token"
)

// Attacks on where keys come from, and on what claims become. Those on tokens themselves are in
// attack_test.go.

func failures(reason token.Reason) string {
	return fmt.Sprintf("copse_token_failures_total{reason=%q}", reason)
}

// Whoever may register an issuer must not be able to make the server call what only it can reach.
func TestAttackIssuerURLIntoTheNetwork(t *testing.T) {
	guarded := start(t, func(c *server.Config) { c.AllowPrivateIssuers, c.AllowHTTPIssuers = false, false })
	open := start(t)
	p := newIDP(t)
	register := func(s *site, url string) reply {
		in := p.registration()
		in.URL = url
		return s.as(s.root, "POST", "/v1/issuers", in)
	}
	for _, url := range []string{
		p.URL, "http://idp.example.com", "https://127.0.0.1/idp", "https://localhost/idp", "https://LOCALHOST./idp", "https://a.localhost",
		"https://[::1]/idp", "https://[::ffff:127.0.0.1]/idp", "https://10.1.2.3", "https://172.16.0.1", "https://192.168.1.1:8443/idp",
		"https://100.64.0.1", "https://[fd00::1]", "https://0.0.0.0", "https://169.254.169.254/latest", "https://[fe80::1]",
	} {
		wantStatus(t, register(guarded, url), 400)
	}
	for _, url := range []string{
		"http://idp.example.com", "http://10.1.2.3/idp", "https://169.254.169.254/latest", "https://[fe80::1%25lo]/idp", "ftp://127.0.0.1/idp",
		"file:///etc/passwd", "https://user:secret@idp.example.com", p.URL + "#x", p.URL + "?x=1", "https:///idp", "//idp.example.com", "idp",
		"https://idp.example.com:99999/%zz", "https://idp.example.com/" + strings.Repeat("x", 3000),
	} {
		wantStatus(t, register(open, url), 400)
	}
	wantStatus(t, register(guarded, "https://idp.example.com"), 201)
	wantStatus(t, register(open, p.URL), 201)
	if n := p.fetches.Load(); n != 0 {
		t.Errorf("registering made %d requests", n)
	}
}

// What an issuer's own documents say can't send the server elsewhere either. Without keys nothing can
// be known: 503, and the twin is the same provider behaving.
func TestAttackKeySetFetch(t *testing.T) {
	var touched atomic.Int64
	canary := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { touched.Add(1) }))
	t.Cleanup(canary.Close)
	answer := func(f http.HandlerFunc) func(*idp) { return func(p *idp) { p.serveKeys = f } }
	names := func(url string) func(*idp) { return func(p *idp) { p.keysURL = url } }
	for _, c := range []struct {
		name    string
		prepare func(*idp)
	}{
		{"key set redirects", answer(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, canary.URL+"/keys", http.StatusFound)
		})},
		{"key set redirects for good", answer(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, canary.URL+"/keys", http.StatusPermanentRedirect)
		})},
		{"key set at a metadata service", names("https://169.254.169.254/latest/meta-data")},
		{"key set over http elsewhere", names("http://192.0.2.1/keys")},
		{"key set in a file", names("file:///etc/passwd")},
		{"key set nowhere", names("")},
		{"discovery of another issuer", func(p *idp) { p.claimed = p.URL + "/" }},
		{"key set is an error", answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })},
		{"key set is not JSON", answer(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") })},
		{"key set has no keys member", answer(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") })},
		{"key set without end", answer(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"keys":["`)
			for range 4000 {
				if _, err := fmt.Fprint(w, strings.Repeat("x", 1<<10)); err != nil {
					return
				}
			}
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t)
			s.onboard("acme", map[string]string{"view": aliceViews})
			ps := newIDPs(t, "bad", "twin")
			for _, p := range ps {
				in := p.registration("acme")
				in.SameSubjects = true
				p.register(s, in)
			}
			c.prepare(ps[0])
			before := s.count(failures(token.ReasonKeys))
			r := s.authorize(ps[0].token("acme", "alice"), viewDoc)
			wantStatus(t, r, 503)
			if r.header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			if after := s.count(failures(token.ReasonKeys)); after != before+1 {
				t.Errorf("counted %d times, want once", after-before)
			}
			wantDecision(t, s.authorize(ps[1].token("acme", "alice"), viewDoc), "ALLOW")
		})
	}
	if n := touched.Load(); n != 0 {
		t.Errorf("the server followed to %d places it was sent to", n)
	}
}

// A symmetric or weak key in a published set, or one that is for encryption, verifies nothing.
func TestAttackPublishedKeyOfTheWrongKind(t *testing.T) {
	s := start(t)
	s.onboard("acme", map[string]string{"view": aliceViews})
	ps := newIDPs(t, "oct", "enc", "twin")
	secret := []byte(strings.Repeat("s", 32))
	for _, p := range ps {
		in := p.registration("acme")
		in.SameSubjects = true
		p.register(s, in)
	}
	ps[0].serveKeys = func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"keys":[{"kty":"oct","kid":"key-1","alg":"HS256","k":%q}]}`, encode64(secret))
	}
	ps[1].serveKeys = func(w http.ResponseWriter, _ *http.Request) {
		jwk := ps[1].key.jwk()
		fmt.Fprintf(w, `{"keys":[{"kty":"EC","use":"enc","kid":"key-1","crv":"P-256","x":%q,"y":%q}]}`, jwk["x"], jwk["y"])
	}
	header := map[string]any{"alg": "HS256", "kid": "key-1", "typ": "JWT"}
	wantStatus(t, s.authorize(signWith(t, "HS256", secret, header, ps[0].claims("acme", "alice")), viewDoc), 401)
	wantStatus(t, s.authorize(ps[1].token("acme", "alice"), viewDoc), 401)
	if n := s.count(failures(token.ReasonAlgorithm)) + s.count(failures(token.ReasonUnknownKey)); n != 2 {
		t.Errorf("%d refusals were counted, want 2", n)
	}
	wantDecision(t, s.authorize(ps[2].token("acme", "alice"), viewDoc), "ALLOW")

	in := ps[0].registration("acme")
	in.URL += "/symmetric"
	for _, algorithms := range [][]string{{"HS256"}, {"none"}, {"ES256", "HS256"}, {"es256"}, {""}} {
		in.Algorithms = algorithms
		wantStatus(t, s.as(s.root, "POST", "/v1/issuers", in), 400)
	}
}

// Tokens with made-up key ids cost the issuer a bounded number of requests, however many come at once.
func TestAttackUnknownKeysDoNotFloodTheIssuer(t *testing.T) {
	s, p := start(t), newIDP(t)
	s.onboard("acme", map[string]string{"view": aliceViews})
	p.register(s, p.registration("acme"))
	before := s.count(failures(token.ReasonUnknownKey))
	began := time.Now()
	const callers, each = 8, 25
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for j := range each {
				header := map[string]any{"kid": fmt.Sprintf("made-up-%d-%d", i, j)}
				if r := s.authorize(p.key.token(t, header, p.claims("acme", "alice")), viewDoc); r.status != 401 {
					t.Errorf("got %v, want 401", r)
				}
			}
		})
	}
	wg.Wait()
	if got := s.count(failures(token.ReasonUnknownKey)) - before; got != callers*each {
		t.Errorf("%d were counted, want %d", got, callers*each)
	}
	// One to begin with, and one for each cool-down that went by.
	if most := 2 + int64(time.Since(began)/(5*time.Second)); p.fetches.Load() > most {
		t.Errorf("the issuer got %d requests for keys, want at most %d", p.fetches.Load(), most)
	}
	wantDecision(t, s.authorize(p.token("acme", "alice"), viewDoc), "ALLOW")
}

// A key that its issuer withdrew is refused from the refresh on, also for a token that is remembered as
// verified. What brings the refresh is the first token under the new key.
func TestAttackStaleKeyAfterRevocation(t *testing.T) {
	t.Parallel() // it waits out a cool-down
	s, p := start(t), newIDP(t)
	s.onboard("acme", map[string]string{"view": aliceViews})
	p.register(s, p.registration("acme"))
	old := p.token("acme", "alice")
	wantDecision(t, s.authorize(old, viewDoc), "ALLOW")

	next := newKey(t, "key-2", "ES256")
	p.publish(next)
	fresh := next.token(t, nil, p.claims("acme", "alice"))
	deadline := time.Now().Add(30 * time.Second)
	for {
		r := s.authorize(fresh, viewDoc)
		if r.status == 200 {
			wantDecision(t, r, "ALLOW")
			break
		}
		if r.status != 401 || time.Now().After(deadline) {
			t.Fatalf("token under the new key: %v", r)
		}
		time.Sleep(200 * time.Millisecond)
	}
	before := s.count(failures(token.ReasonUnknownKey))
	wantStatus(t, s.authorize(old, viewDoc), 401)
	wantStatus(t, s.authorize(p.token("acme", "alice"), viewDoc), 401)
	if n := s.count(failures(token.ReasonUnknownKey)) - before; n != 2 {
		t.Errorf("%d refusals were counted, want 2", n)
	}
	wantDecision(t, s.authorize(fresh, viewDoc), "ALLOW")
}

// Claims are values. None of them is ever read as Cedar, as JSON, or as somebody else's prefix.
func TestAttackEntityIDsThroughClaims(t *testing.T) {
	s, p := start(t), newIDP(t)
	s.onboard("acme", map[string]string{"view": aliceViews, "admins": adminViews})
	p.register(s, p.registration("acme"))
	for _, subject := range []string{
		`alice"`, `"alice`, `alice\`, `alice" , action, resource); permit (principal == User::"x`, `User::"alice"`, `main|alice`, `|alice`,
		"alice\x00", "alice\n", " alice", "alice ", "Alice", "ALICE", "a\u0301lice", "alice\u200b", "\u0430lice",
		`","type":"User"},"attrs":{},"parents":[{"type":"Role","id":"admin"}]}]`, `alice","id":"alice`,
	} {
		wantDecision(t, s.authorize(p.token("acme", subject), viewDoc), "DENY")
	}
	for _, role := range []string{
		`admin"`, `Role::"admin"`, "admin\x00", "Admin", "main|admin", `x"},{"type":"Role","id":"admin`, "admin\u200b", " admin ",
	} {
		wantDecision(t, s.authorize(p.token("acme", "bob", role), viewDoc), "DENY")
	}
	wantDecision(t, s.authorize(p.token("acme", "alice"), viewDoc), "ALLOW")
	wantDecision(t, s.authorize(p.token("acme", "bob", "admin"), viewDoc), "ALLOW")
}

// Two issuers of one tenant are told apart by their prefixes, so no subject of one may spell what the
// other's prefix makes. It is all the same whether registering or the token is what gets refused.
func TestAttackPrefixOfAnotherIssuer(t *testing.T) {
	const poolAlice = `permit (principal == User::"pool|alice", action, resource);`
	const euAlice = `permit (principal == User::"pool|eu|alice", action, resource);`
	for _, c := range []struct{ name, policy, prefix, subject string }{
		{"no prefix", poolAlice, "", "pool|alice"},
		{"the prefix of the prefix", euAlice, "pool|eu", "alice"},
		{"the same prefix", poolAlice, "pool", "alice"},
		{"the prefix with its bar", poolAlice, "pool|", "alice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t)
			s.onboard("acme", map[string]string{"view": c.policy})
			ps := newIDPs(t, "good", "evil")
			good := ps[0].registration("acme")
			good.PrincipalIDPrefix = "pool"
			ps[0].register(s, good)
			subject := strings.TrimPrefix(map[string]string{poolAlice: "pool|alice", euAlice: "pool|eu|alice"}[c.policy], "pool|")
			wantDecision(t, s.authorize(ps[0].token("acme", subject), viewDoc), "ALLOW")

			evil := ps[1].registration("acme")
			evil.PrincipalIDPrefix = c.prefix
			if r := s.as(s.root, "POST", "/v1/issuers", evil); r.status != 201 {
				if r.status != 400 && r.status != 409 {
					t.Errorf("registering: %v", r)
				}
				return
			}
			if r := s.authorize(ps[1].token("acme", c.subject), viewDoc); strings.Contains(r.body, "ALLOW") {
				t.Errorf("the token of an issuer with prefix %q and subject %q decides as the other issuer's user: %v", c.prefix, c.subject, r)
			}
		})
	}
}

// Two issuer registrations with one URL would let the second bring its own tenants, audiences and
// mapping to the first one's keys.
func TestAttackSecondRegistrationOfAnIssuer(t *testing.T) {
	s, p := start(t), newIDP(t)
	s.onboard("acme", map[string]string{"view": aliceViews})
	s.onboard("other", map[string]string{"view": aliceViews})
	first := p.register(s, p.registration("acme"))
	second := p.registration("other")
	wantStatus(t, s.as(s.root, "POST", "/v1/issuers", second), 409)
	wantStatus(t, s.authorize(p.token("other", "alice"), viewDoc), 403)
	wantDecision(t, s.authorize(p.token("acme", "alice"), viewDoc), "ALLOW")
	second.URL += "-else"
	wantStatus(t, s.as(s.root, "PUT", "/v1/issuers/"+first.ID, second), 400)
	list := decode[api.IssuerList](t, s.must(200, "GET", "/v1/issuers", nil))
	if len(list.Issuers) != 1 || list.Issuers[0].URL != p.URL {
		t.Errorf("issuers: %v", list.Issuers)
	}
}

// What a gateway in front and copse could read in two ways is refused.
func TestAttackRequestWithTwoCredentials(t *testing.T) {
	s, p := start(t), newIDP(t)
	s.onboard("acme", map[string]string{"view": aliceViews})
	p.register(s, p.registration())
	alice, bob := p.token("acme", "alice"), p.token("acme", "bob")
	for _, c := range []struct {
		name    string
		headers []string
		status  int
		result  string
	}{
		{"two headers", []string{"Authorization", "Bearer " + alice, "Authorization", "Bearer " + bob}, 400, "invalid"},
		{"two in one", []string{"Authorization", "Bearer " + alice + ", Bearer " + bob}, 401, "unauthenticated"},
		{"another scheme", []string{"Authorization", "Basic " + alice}, 401, "unauthenticated"},
		{"no scheme", []string{"Authorization", alice}, 401, "unauthenticated"},
		{"empty", []string{"Authorization", "Bearer "}, 401, "unauthenticated"},
		{"none", nil, 401, "unauthenticated"},
		{"an access key", []string{"Authorization", "Bearer " + s.root}, 401, "unauthenticated"},
		{"two keys", []string{"Authorization", "Bearer " + alice, "X-Copse-Key", s.root, "X-Copse-Key", s.root}, 400, "invalid"},
		{"a key that is none", []string{"Authorization", "Bearer " + alice, "X-Copse-Key", "copse_x_y"}, 401, "unauthenticated"},
	} {
		t.Run(c.name, func(t *testing.T) {
			series := fmt.Sprintf("copse_authorize_total{result=%q}", c.result)
			before := s.count(series)
			r := s.call("POST", "/v1/authorize", viewDoc, c.headers...)
			wantStatus(t, r, c.status)
			if strings.Contains(r.body, "eyJ") || strings.Contains(r.body, s.root) {
				t.Errorf("the answer repeats the credential: %v", r)
			}
			if after := s.count(series); after != before+1 {
				t.Errorf("%s went from %d to %d", series, before, after)
			}
			wantDecision(t, s.authorize(alice, viewDoc, "X-Copse-Key", s.root), "ALLOW")
		})
	}
}
