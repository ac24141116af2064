package dev

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/server"
)

// TokenRequest asks a development issuer for a token.
type TokenRequest struct {
	// Issuer is the issuer's name: a tenant id or "shared". Empty: Tenant.
	Issuer string
	// Tenant is the tenant the token claims; empty: none.
	Tenant copse.TenantID
	User   string
	Groups []string
	Claims map[string]any // further claims; they win over the ones made from the members above
	// Expires is how long from now; negative makes an expired token; 0 = one hour.
	Expires time.Duration
}

// tokenForm is a TokenRequest on the wire; the issuer is in the path. The endpoint takes it as JSON,
// or as a form with the members of the same names, group and claim (name=value) repeated.
type tokenForm struct {
	Tenant  string         `json:"tenant,omitempty"`
	User    string         `json:"user"`
	Groups  []string       `json:"groups,omitempty"`
	Claims  map[string]any `json:"claims,omitempty"`
	Expires string         `json:"expires,omitempty"` // "1h", "-1m"
}

// tokenAnswer is RFC 6749's, so that OAuth clients can read it.
type tokenAnswer struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int64  `json:"expires_in"`
}

// errorAnswer has the form of the control API's errors.
type errorAnswer struct {
	Error struct {
		Kind    string `json:"kind"`
		Message string `json:"message"`
	} `json:"error"`
}

// maxTokenForm bounds the body of a request for a token, in bytes.
const maxTokenForm = 64 << 10

// routes are what a development server adds to the route table. They ask for no credential: that is
// what makes them development issuers.
func (i *issuers) routes() []server.Route {
	return []server.Route{
		{Pattern: "GET /issuers/{name}/.well-known/openid-configuration", Open: true, Handler: i.handle(func(name string, _ *http.Request) (any, error) {
			// Discovery makes no key, so it asks for itself whether the name can be an issuer's.
			if err := copse.TenantID(name).Validate(); err != nil {
				return nil, err
			}
			return i.discovery(name), nil
		})},
		{Pattern: "GET /issuers/{name}/jwks.json", Open: true, Handler: i.handle(func(name string, _ *http.Request) (any, error) {
			return i.keySet(name)
		})},
		{Pattern: "POST /issuers/{name}/token", Open: true, Handler: i.handle(i.token)},
	}
}

// handle makes a handler of what gives an answer for an issuer's name. Every error is a 400, with its kind and
// text in the body: nothing of a development server is a secret to whoever reaches it.
func (i *issuers) handle(f func(name string, r *http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := http.StatusOK
		answer, err := f(r.PathValue("name"), r)
		if err != nil {
			status = http.StatusBadRequest
			var e errorAnswer
			e.Error.Kind, e.Error.Message = copse.KindOf(err).String(), err.Error()
			answer = e
		}
		body, err := json.Marshal(answer)
		if err != nil {
			status, body = http.StatusInternalServerError, nil
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write(append(body, '\n'))
	})
}

// token answers a request for a token. It takes the word of whoever asks for everything, the tenant included:
// an issuer that is trusted for one tenant and claims another is one of the attacks to try.
func (i *issuers) token(name string, r *http.Request) (any, error) {
	form, err := readTokenForm(r)
	if err != nil {
		return nil, err
	}
	in := TokenRequest{Tenant: copse.TenantID(form.Tenant), User: form.User, Groups: form.Groups, Claims: form.Claims}
	if form.Expires != "" {
		if in.Expires, err = time.ParseDuration(form.Expires); err != nil {
			return nil, copse.Errorf(copse.Invalid, "expires: %q is not a duration such as 1h or -1m", form.Expires)
		}
	}
	token, err := i.mint(name, &in)
	if err != nil {
		return nil, err
	}
	// What [issuers.claims] does with 0.
	expires := in.Expires
	if expires == 0 {
		expires = time.Hour
	}
	return tokenAnswer{AccessToken: token, TokenType: "Bearer", ExpiresIn: int64(expires / time.Second)}, nil
}

// readTokenForm reads either form of the body. A member that it does not know is an error, so that a
// misspelt one is not a token without that claim. Claims of a form are all strings.
func readTokenForm(r *http.Request) (tokenForm, error) {
	var form tokenForm
	body, err := io.ReadAll(io.LimitReader(r.Body, maxTokenForm+1))
	if err != nil || len(body) > maxTokenForm {
		return form, copse.Errorf(copse.Invalid, "the body can't be read, or is over %d bytes", maxTokenForm)
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind == "application/json" {
		if err := json.Unmarshal(body, &form, json.RejectUnknownMembers(true)); err != nil {
			return form, copse.Errorf(copse.Invalid, "the body: %w", err)
		}
		return form, nil
	}
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return form, copse.Errorf(copse.Invalid, "the body is neither JSON (with its content type) nor a form: %w", err)
	}
	for name, all := range values {
		switch name {
		case "tenant":
			form.Tenant = all[0]
		case "user":
			form.User = all[0]
		case "expires":
			form.Expires = all[0]
		case "group":
			form.Groups = all
		case "claim":
			form.Claims = map[string]any{}
			for _, claim := range all {
				claimName, value, ok := strings.Cut(claim, "=")
				if !ok {
					return form, copse.Errorf(copse.Invalid, "claim %q is not name=value", claim)
				}
				form.Claims[claimName] = value
			}
		default:
			return form, copse.Errorf(copse.Invalid, "there is no parameter %q; use tenant, user, group, claim and expires", name)
		}
	}
	return form, nil
}

// Mint asks the development server at baseURL for a token. Client nil: http.DefaultClient. Errors: Unavailable
// when nobody answers, NotFound when the server there has no development issuers, Invalid when the issuer
// refuses.
func Mint(ctx context.Context, client *http.Client, baseURL string, in TokenRequest) (string, error) {
	if client == nil {
		client = http.DefaultClient
	}
	issuer := in.Issuer
	if issuer == "" {
		issuer = string(in.Tenant)
	}
	form := tokenForm{Tenant: string(in.Tenant), User: in.User, Groups: in.Groups, Claims: in.Claims}
	if in.Expires != 0 {
		form.Expires = in.Expires.String()
	}
	body, err := json.Marshal(form)
	if err != nil {
		return "", err
	}
	endpoint := strings.TrimSuffix(baseURL, "/") + "/issuers/" + url.PathEscape(issuer) + "/token"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return "", copse.Errorf(copse.Unavailable, "no development server answers at %s: %w", baseURL, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", err
	}
	switch resp.StatusCode {
	case http.StatusOK:
		var answer tokenAnswer
		err := json.Unmarshal(text, &answer)
		return answer.AccessToken, err
	// A refusal by an issuer is a 400, see [issuers.handle]. A server without issuers has no such route.
	case http.StatusNotFound:
		return "", copse.Errorf(copse.NotFound, "the server at %s has no development issuers: they are a part of `copse dev` only", baseURL)
	}
	var answer errorAnswer
	if err := json.Unmarshal(text, &answer); err != nil || answer.Error.Message == "" {
		return "", errors.New(resp.Status)
	}
	return "", copse.Errorf(copse.Invalid, "%s", answer.Error.Message)
}
