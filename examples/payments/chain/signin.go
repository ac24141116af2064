package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
)

// browser is what a person uses to sign in: cookies, redirects and forms, no more.
type browser struct {
	issuer, clientID, redirect string
	// extra is added to the authorization request and to the token request: what an attacker's client
	// might send along.
	extra url.Values
}

// signIn goes through an authorization code flow with PKCE and returns the access token.
func (b *browser) signIn(ctx context.Context, user string) (string, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return "", err
	}
	// A jar for each sign-in: who signed in before is not signed in here.
	client := &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), b.redirect) {
			return http.ErrUseLastResponse // the code is in this address; nobody listens there
		}
		return nil
	}}
	// PKCE with S256, as RFC 7636 describes it: the provider requires it of every client.
	verifier := rand.Text() + rand.Text()
	challenge := sha256.Sum256([]byte(verifier))
	// What an application asks for; b.extra comes after it, and could replace any of it.
	query := url.Values{
		"response_type": {"code"}, "client_id": {b.clientID}, "redirect_uri": {b.redirect}, "scope": {"openid email"},
		"code_challenge":        {base64.RawURLEncoding.EncodeToString(challenge[:])},
		"code_challenge_method": {"S256"}, "state": {rand.Text()},
	}
	for name, values := range b.extra {
		query[name] = values
	}
	// The code is worth nothing without the verifier, which only this side has.
	code, err := b.authorize(ctx, client, b.issuer+"/auth?"+query.Encode(), user)
	if err != nil {
		return "", fmt.Errorf("signing in as %s: %w", user, err)
	}
	form := url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {b.redirect},
		"client_id": {b.clientID}, "code_verifier": {verifier},
	}
	for name, values := range b.extra {
		form[name] = values
	}
	return b.token(ctx, client, form)
}

// formAction finds where the provider's page sends its form. The page is that of its development interactions.
var formAction = regexp.MustCompile(`<form[^>]* action="([^"]+)"`)

// authorize fills in the provider's forms until it redirects back with a code. Any password is good there.
func (b *browser) authorize(ctx context.Context, client *http.Client, at, user string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return "", err
	}
	for range 5 { // sign in, consent, and some room
		resp, err := client.Do(r)
		if err != nil {
			return "", err
		}
		page, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			return "", err
		}
		// The redirect to the application ends it, with a code or with what the provider has against it.
		if back, err := resp.Location(); err == nil && strings.HasPrefix(back.String(), b.redirect) {
			if code := back.Query().Get("code"); code != "" {
				return code, nil
			}
			return "", fmt.Errorf("the provider refused: %s", back.Query().Get("error_description"))
		}
		// Any other answer has to be a page with a form to fill in.
		action := formAction.FindSubmatch(page)
		if action == nil {
			return "", fmt.Errorf("the provider answered %s: %.500s", resp.Status, page)
		}
		// The form's address may be relative to the page, which redirects may have led to.
		next, err := resp.Request.URL.Parse(string(action[1]))
		if err != nil {
			return "", err
		}
		form := url.Values{"login": {user}, "password": {"any"}, "prompt": {"login"}}
		if strings.Contains(string(page), `value="consent"`) {
			form = url.Values{"prompt": {"consent"}}
		}
		r, err = http.NewRequestWithContext(ctx, http.MethodPost, next.String(), strings.NewReader(form.Encode()))
		if err != nil {
			return "", err
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return "", fmt.Errorf("the provider asks without end")
}

// token trades the code for an access token. It is an error when there is none: that is how the token hook's
// refusal reaches an application.
func (b *browser) token(ctx context.Context, client *http.Client, form url.Values) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, b.issuer+"/token", strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		AccessToken string `json:"access_token"`
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&answer); err != nil {
		return "", err
	}
	if answer.AccessToken == "" {
		return "", fmt.Errorf("no token: %s %s", answer.Error, answer.Description)
	}
	return answer.AccessToken, nil
}

// claims reads a token without verifying it, to show what is in it; nil for what is no JWT.
func claims(token string) map[string]any {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil
	}
	var all map[string]any
	_ = json.Unmarshal(text, &all) // for display only
	return all
}
