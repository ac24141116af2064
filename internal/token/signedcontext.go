package token

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/copse-authz/copse"
)

// ContextType is the typ of a signed tenant context: what a gateway tells the service behind it of the
// request it let pass. A user's token is refused with this type, and a context with any other.
const ContextType = "copse-ctx+jwt"

// maxContextLife bounds exp - iat: a context is for one request that is under way.
const maxContextLife = 60 * time.Second

// contextAlgorithms are those copse signs contexts with.
var contextAlgorithms = []string{"ES256", "EdDSA"}

// ContextConfig says whose contexts are believed, and for which service.
type ContextConfig struct {
	Issuer   string // iss: the public URL of copse
	Audience string // aud: this service
	// KeysURL is the https URL of copse's key set; http to loopback only. Keys is a key set itself. One of
	// the two is set.
	KeysURL string
	Keys    []byte
	RootCAs *x509.CertPool // for KeysURL; nil: the system's
}

// ContextVerifier verifies signed contexts. Its keys are its own: none is ever tried on a user's token,
// and none of an issuer's on a context.
type ContextVerifier struct {
	issuer, audience string
	fetcher          *fetcher
	work             *workers
	source           *keySource
}

// NewContextVerifier makes one. Nothing is fetched yet.
// Invalid for what is missing in cfg, and for a key set that verifies nothing.
func NewContextVerifier(cfg ContextConfig) (*ContextVerifier, error) {
	if cfg.Issuer == "" || cfg.Audience == "" {
		return nil, copse.Errorf(copse.Invalid, "signed contexts: the issuer (copse's public URL) and the audience (this service) are needed")
	}
	if (cfg.KeysURL == "") == (cfg.Keys == nil) {
		return nil, copse.Errorf(copse.Invalid, "signed contexts: either a key set's URL or a key set is needed")
	}
	v := &ContextVerifier{issuer: cfg.Issuer, audience: cfg.Audience, work: newWorkers()}
	v.source = &keySource{issuer: cfg.Issuer, work: v.work, fetches: func(string) {}}
	if cfg.Keys != nil {
		set, err := parseKeySet(cfg.Keys)
		if err != nil {
			return nil, copse.Errorf(copse.Invalid, "signed contexts: %w", err)
		}
		if len(set.keys) == 0 {
			return nil, copse.Errorf(copse.Invalid, "signed contexts: the key set has no key that could verify a signature")
		}
		v.source.fetch = func(context.Context, string) (*keySet, error) { return set, nil }
		return v, nil
	}
	// Whoever runs the service named the URL, so its address may be a private one.
	policy := FetchPolicy{AllowHTTP: true, Endpoints: map[string]Endpoint{cfg.Issuer: {KeysURL: cfg.KeysURL, Roots: cfg.RootCAs}}}
	if err := policy.CheckEndpoint(policy.Endpoints[cfg.Issuer]); err != nil {
		return nil, copse.Errorf(copse.Invalid, "signed contexts: keys: %w", err)
	}
	v.fetcher = newFetcher(Config{Fetch: policy})
	v.source.fetch = v.fetcher.keys
	return v, nil
}

// Close stops fetching keys.
func (v *ContextVerifier) Close() error {
	v.work.close()
	if v.fetcher != nil {
		v.fetcher.close()
	}
	return nil
}

// Bound is what a context must be bound to: the request that it came with.
// All of it is needed.
type Bound struct {
	Token    string // the user's, as it was presented
	Verified *Verified
	Method   string
	Path     string // canonical, as the client sent it to the gateway
}

// Verify checks a context, and that it is for this request and no other; it returns the gateway's
// decision id. Denied: it does not verify, or is for something else. Unavailable: copse's keys can't be
// had now.
func (v *ContextVerifier) Verify(ctx context.Context, text string, to *Bound) (decisionID string, err error) {
	u, err := parseAs(text, func(_ *unverified, header object) error {
		if typ, _ := header.text("typ"); typ != ContextType {
			return errors.New("the type is not " + ContextType)
		}
		return nil
	})
	switch {
	case err != nil:
		return "", notForThis(err.Error())
	case u.issuer != v.issuer:
		return "", notForThis("iss: it is of another issuer")
	case !u.hasKid:
		return "", notForThis("kid: it names no key")
	case !slices.Contains(contextAlgorithms, u.alg):
		return "", notForThis("alg: it is signed with another algorithm than ES256 or EdDSA")
	}
	// The key set is copse's alone: an issuer's key of the same id is not in it.
	keys, _, err := v.source.keysFor(ctx, u)
	switch {
	case copse.KindOf(err) == copse.Unavailable && err != nil:
		return "", &copse.Error{Kind: copse.Unavailable, Detail: "the keys of signed contexts can't be fetched now; try again", Err: err}
	case err != nil:
		return "", notForThis(err.Error())
	case !u.verifiedBy(keys):
		return "", notForThis("the signature does not verify")
	}
	if err := u.checkContextTimes(time.Now()); err != nil {
		return "", err
	}
	return u.boundTo(v.audience, to)
}

// Both are needed: from one alone it can't be seen for how long it was meant.
func (u *unverified) checkContextTimes(now time.Time) error {
	expires, hasExpiry, expiryOK := u.claims.instant("exp")
	issued, hasIssued, issuedOK := u.claims.instant("iat")
	switch {
	case !hasExpiry || !hasIssued || !expiryOK || !issuedOK:
		return notForThis("exp, iat: both are needed")
	case expires.Sub(issued) > maxContextLife:
		return notForThis("exp: it is good for more than a minute")
	case !now.Before(expires):
		return notForThis("exp: it has expired")
	case issued.After(now.Add(skew)):
		return notForThis("iat: it is in the future")
	}
	return nil
}

// boundTo compares every claim that ties a context to a request.
// A context is a second word beside the token, never in place of it: both must say the same.
func (u *unverified) boundTo(audience string, to *Bound) (decisionID string, err error) {
	hash := sha256.Sum256([]byte(to.Token))
	for _, claim := range []struct{ name, want string }{
		{"aud", audience},
		{"ath", base64.RawURLEncoding.EncodeToString(hash[:])},
		{"htm", to.Method},
		{"path", to.Path},
		{"tenant", string(to.Verified.Tenant)},
	} {
		if said, ok := u.claims.text(claim.name); !ok || said != claim.want {
			return "", notForThis(claim.name + ": it is for another")
		}
	}
	// Without an object there are no texts in it either.
	principal := objectOf(u.claims["principal"])
	entityType, hasType := principal.text("type")
	id, hasID := principal.text("id")
	if !hasType || !hasID || entityType != string(to.Verified.Principal.Type) || id != string(to.Verified.Principal.ID) {
		return "", notForThis("principal: it is for another")
	}
	if decisionID, _ = u.claims.text("did"); decisionID == "" {
		return "", notForThis("did: it names no decision")
	}
	return decisionID, nil
}

// notForThis has one text for whoever sent it; the cause is for the log.
func notForThis(cause string) error {
	return &copse.Error{Kind: copse.Denied, Detail: "the signed context is not for this request", Err: errors.New(cause)}
}

// CanonicalPath gives the one spelling of a request's path, without its query, in which gateway and
// service compare it: escapes only where they must be, in upper case. A path that two programs could
// read two ways is refused: empty or dotted segments, escaped slashes, backslashes, control characters.
func CanonicalPath(target string) (string, error) {
	// The query is not bound: services read it in too many ways to compare.
	path, _, _ := strings.Cut(target, "?")
	if !strings.HasPrefix(path, "/") {
		return "", copse.Errorf(copse.Invalid, "the path does not begin with a slash")
	}
	out := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' {
			if i+2 >= len(path) || !isHex(path[i+1]) || !isHex(path[i+2]) {
				return "", copse.Errorf(copse.Invalid, "the path has a %% that begins no escape, at byte %d", i)
			}
			c = unhex(path[i+1])<<4 | unhex(path[i+2])
			// Whoever decodes once more would see another path.
			if c == '/' || c == '%' {
				return "", copse.Errorf(copse.Invalid, "the path has an escaped %q, at byte %d", c, i)
			}
			i += 2
		}
		switch {
		case c < ' ' || c == 0x7f || c == '\\' || c == '#' || c == ';':
			return "", copse.Errorf(copse.Invalid, "the path has the character %q, which is read in more than one way, at byte %d", c, i)
		case c == '/' || plainInPath(c):
			out = append(out, c)
		default:
			const digits = "0123456789ABCDEF"
			out = append(out, '%', digits[c>>4], digits[c&15])
		}
	}
	// A slash at the end stays: it makes another path.
	segments := strings.Split(string(out[1:]), "/")
	for i, segment := range segments {
		if segment == "." || segment == ".." || segment == "" && i < len(segments)-1 {
			return "", copse.Errorf(copse.Invalid, "the path has an empty or dotted segment")
		}
	}
	return string(out), nil
}

// plainInPath: unreserved characters, and those reserved ones that mean themselves in a path.
func plainInPath(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~!$&'()*+,=:@", c) >= 0
}

// isHex and unhex are for the two digits of an escape.
func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	}
	return c - 'a' + 10
}
