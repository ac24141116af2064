package pep_test

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/copse-authz/copse/pep"
)

const contextType = "copse-ctx+jwt"

func requireContext(w *world, cfg *pep.Config) {
	cfg.SignedContext = &pep.SignedContext{Issuer: "https://copse.example", Audience: "invoices", Required: true}
}

func withKeys(t *testing.T) func(*world, *pep.Config) {
	return func(w *world, cfg *pep.Config) {
		requireContext(w, cfg)
		cfg.SignedContext.Keys = w.gateway.keySet(t)
	}
}

// A context is for one request: everything else about which it could be sent again is refused.
func TestSignedContextIsForOneRequest(t *testing.T) {
	w := newWorld(t, withKeys(t))
	token := w.token(t, "main", "acme", nil)
	sign := func(change jwt.MapClaims) string {
		return w.gateway.sign(t, contextType, w.contextClaims(token, change))
	}

	if status, body := w.get(t, "/invoices/900", token, "X-Copse-Context", sign(nil)); status != 200 || w.who.GatewayDecision != "decision-7" {
		t.Fatalf("%d %s", status, body)
	}
	if w.seen.Header.Get("X-Copse-Context") != "" {
		t.Error("the handler is given the context")
	}
	w.wantRefused(t, 403, "context_missing", http.MethodGet, "/invoices/900", token)
	// The same context elsewhere.
	w.wantRefused(t, 403, "context", http.MethodGet, "/invoices/7", token, "X-Copse-Context", sign(nil))
	w.wantRefused(t, 403, "context", http.MethodPost, "/invoices/900", token, "X-Copse-Context", sign(nil))
	w.wantRefused(t, 403, "context", http.MethodGet, "/invoices/900", w.token(t, "main", "acme", jwt.MapClaims{"jti": "2"}), "X-Copse-Context", sign(nil))
	w.wantRefused(t, 403, "context", http.MethodGet, "/invoices/900", w.token(t, "globex", "globex", nil), "X-Copse-Context", sign(nil))
	w.wantRefused(t, 403, "context", http.MethodGet, "/invoices/900", token, "X-Copse-Context", sign(nil), "X-Copse-Context", sign(nil))
	w.wantRefused(t, 403, "context", http.MethodGet, "/invoices/900", token, "X-Copse-Context", sign(nil), "X_Copse_Context", sign(nil))

	now := time.Now().Unix()
	for name, change := range map[string]jwt.MapClaims{
		"another issuer":      {"iss": "https://other.example"},
		"another audience":    {"aud": "orders"},
		"several audiences":   {"aud": []string{"invoices", "orders"}},
		"no audience":         {"aud": nil},
		"another tenant":      {"tenant": "globex"},
		"no tenant":           {"tenant": nil},
		"another user":        {"principal": map[string]string{"type": "User", "id": "main|bob"}},
		"another type":        {"principal": map[string]string{"type": "Admin", "id": "main|alice"}},
		"a user as text":      {"principal": `User::"main|alice"`},
		"no user":             {"principal": nil},
		"another method":      {"htm": "POST"},
		"a method's case":     {"htm": "get"},
		"no method":           {"htm": nil},
		"another path":        {"path": "/invoices/901"},
		"a path's spelling":   {"path": "/invoices/%39%30%30"},
		"no path":             {"path": nil},
		"no hash":             {"ath": nil},
		"another token's":     {"ath": "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"},
		"no decision":         {"did": nil},
		"expired":             {"iat": now - 50, "exp": now - 1},
		"no expiry":           {"exp": nil},
		"no time of issue":    {"iat": nil},
		"good for too long":   {"exp": now + 90},
		"from the future":     {"iat": now + 100, "exp": now + 130},
		"a time that is text": {"exp": "soon"},
	} {
		t.Run(name, func(t *testing.T) {
			w.wantRefused(t, 403, "context", http.MethodGet, "/invoices/900", token, "X-Copse-Context", sign(change))
		})
	}
	if w.asked != 1 || w.handled != 1 {
		t.Errorf("the service was asked %d times and handled %d", w.asked, w.handled)
	}
}

// Keys and types of the two kinds of token don't mix.
func TestSignedContextIsNoToken(t *testing.T) {
	w := newWorld(t, withKeys(t))
	token := w.token(t, "main", "acme", nil)
	claims := w.contextClaims(token, nil)
	good := w.gateway.sign(t, contextType, claims)
	stranger := newSigner(t, "ctx-1")
	nobody := w.gateway
	nobody.kid = ""
	other := w.gateway
	other.kid = "ctx-2"
	for name, text := range map[string]string{
		"the type of a token":    w.gateway.sign(t, "JWT", claims),
		"the type at+jwt":        w.gateway.sign(t, "at+jwt", claims),
		"the type in upper case": w.gateway.sign(t, "COPSE-CTX+JWT", claims),
		"no type":                w.gateway.sign(t, "", claims),
		"the issuer's key":       w.provider.sign(t, contextType, claims),
		"a stranger's key":       stranger.sign(t, contextType, claims),
		"no key id":              nobody.sign(t, contextType, claims),
		"an unknown key id":      other.sign(t, contextType, claims),
		"the user's token":       token,
		"cut short":              good[:len(good)-4],
		"nothing":                "",
		"not a token":            "true",
	} {
		t.Run(name, func(t *testing.T) {
			w.wantRefused(t, 403, "context", http.MethodGet, "/invoices/900", token, "X-Copse-Context", text)
		})
	}
	// A context is nobody's token, even if an issuer's claims are put into one and its key signs it.
	user := jwt.MapClaims{"iss": w.provider.URL + "/main", "aud": "api", "sub": "alice", "tenant_id": "acme", "roles": []string{"clerk"},
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix()}
	w.wantRefused(t, 401, "unauthenticated", http.MethodGet, "/invoices/900", w.provider.sign(t, contextType, user), "X-Copse-Context", good)
	w.wantRefused(t, 401, "unauthenticated", http.MethodGet, "/invoices/900", w.gateway.sign(t, "JWT", user), "X-Copse-Context", good)
	w.wantRefused(t, 401, "unauthenticated", http.MethodGet, "/invoices/900", good, "X-Copse-Context", good)
}

// The path is the client's: a gateway that strips a prefix signs what was before it, in one spelling.
func TestSignedContextPaths(t *testing.T) {
	w := newWorld(t, withKeys(t), func(_ *world, cfg *pep.Config) { cfg.SignedContext.StrippedPrefix = "/api" })
	token := w.token(t, "main", "acme", nil)
	for _, c := range []struct {
		sent, signed string
		status       int
	}{
		{"/invoices/900", "/api/invoices/900", 200},
		{"/invoices/900?x=%2F..", "/api/invoices/900", 200},
		{"/invoices/%39%30%30", "/api/invoices/900", 200},
		{"/invoices/900%e2%82%ac", "/api/invoices/900%E2%82%AC", 200},
		{"/invoices/900", "/invoices/900", 403},
		{"/api/invoices/900", "/api/invoices/900", 403},
		{"/invoices/900%2f", "/api/invoices/900/", 403},
		{"/invoices/900%252e", "/api/invoices/900%2e", 403},
		{"/invoices/900;a=b", "/api/invoices/900;a=b", 403},
		{"/invoices/900%5c", "/api/invoices/900%5C", 403},
		{"/invoices/900%00", "/api/invoices/900%00", 403},
	} {
		text := w.gateway.sign(t, contextType, w.contextClaims(token, jwt.MapClaims{"path": c.signed}))
		if status, body := w.get(t, c.sent, token, "X-Copse-Context", text); status != c.status && !(c.status == 403 && status == 404) {
			t.Errorf("%s, signed as %s: %d %s, want %d", c.sent, c.signed, status, body, c.status)
		}
	}
}

// Where a context is not required, one that is there must still be right.
func TestOptionalContext(t *testing.T) {
	w := newWorld(t, withKeys(t), func(_ *world, cfg *pep.Config) { cfg.SignedContext.Required = false })
	token := w.token(t, "main", "acme", nil)
	if status, body := w.get(t, "/invoices/900", token); status != 200 || w.who.GatewayDecision != "" {
		t.Errorf("%d %s", status, body)
	}
	w.wantRefused(t, 403, "context", http.MethodGet, "/invoices/900", token, "X-Copse-Context",
		w.gateway.sign(t, contextType, w.contextClaims(token, jwt.MapClaims{"tenant": "globex"})))
}

// Keys come from copse; while they can't be had, nothing passes.
func TestContextKeysAreFetched(t *testing.T) {
	var answers atomic.Bool
	var keys []byte
	copse := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		if !answers.Load() {
			rw.WriteHeader(500)
			return
		}
		_, _ = rw.Write(keys)
	}))
	defer copse.Close()
	fetched := func(w *world, cfg *pep.Config) {
		requireContext(w, cfg)
		cfg.SignedContext.KeysURL, keys = copse.URL+"/.well-known/copse-context-keys", w.gateway.keySet(t)
	}
	away := newWorld(t, fetched)
	token := away.token(t, "main", "acme", nil)
	away.wantRefused(t, 503, "unavailable", http.MethodGet, "/invoices/900", token, "X-Copse-Context",
		away.gateway.sign(t, contextType, away.contextClaims(token, nil)))

	answers.Store(true)
	w := newWorld(t, fetched)
	token = w.token(t, "main", "acme", nil)
	if status, body := w.get(t, "/invoices/900", token, "X-Copse-Context", w.gateway.sign(t, contextType, w.contextClaims(token, nil))); status != 200 {
		t.Errorf("%d %s", status, body)
	}
}
