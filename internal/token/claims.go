package token

import (
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
)

// skew is how far an issuer's clock may be ahead of ours. It is not added to exp: a token ends when
// its issuer says so.
const skew = 30 * time.Second

// checkRegistration refuses to verify by a registration that leaves out what keeps other people's
// tokens away. Registering checks this too; a hole there must not become one here.
func checkRegistration(iss *copse.Issuer) error {
	switch {
	case len(iss.Algorithms) == 0,
		len(iss.Audiences) == 0 && len(iss.ClientIDs) == 0,
		iss.TokenType != copse.TokenAccess && iss.TokenType != copse.TokenID,
		iss.PrincipalType == "":
		return refuse(ReasonIssuer, "the token's issuer is registered incompletely: it needs algorithms, audiences or client ids, a token type and a principal type")
	}
	return nil
}

// checkClaims holds the claims of a token with a good signature against the rules.
func (u *unverified) checkClaims(r *rules, now time.Time) (expires time.Time, err error) {
	if expires, err = u.checkTimes(now); err != nil {
		return expires, err
	}
	if err := u.checkType(r); err != nil {
		return expires, err
	}
	return expires, r.meant(u)
}

// checkTimes wants an exp, and takes nbf and iat where they are.
func (u *unverified) checkTimes(now time.Time) (time.Time, error) {
	expires, present, ok := u.claims.instant("exp")
	switch {
	case !present:
		return expires, refuse(ReasonTime, "exp: the token never expires; such tokens are not accepted")
	case !ok:
		return expires, refuse(ReasonTime, "exp: it is not a time in seconds since 1970")
	case !now.Before(expires):
		return expires, refuse(ReasonExpired, "the token has expired")
	}
	// A clock that is ahead of ours makes both come from the future; a little of that is no reason to refuse.
	for _, name := range []string{"nbf", "iat"} {
		at, present, ok := u.claims.instant(name)
		switch {
		case !ok:
			return expires, refuse(ReasonTime, "%s: it is not a time in seconds since 1970", name)
		case present && at.After(now.Add(skew)):
			return expires, refuse(ReasonTime, "%s: it is in the future", name)
		}
	}
	return expires, nil
}

// checkType keeps the two kinds of token apart: an ID token tells a client who signed in, and any
// client of the issuer holds some; only an access token was meant to be presented here.
func (u *unverified) checkType(r *rules) error {
	access := r.tokenType == copse.TokenAccess
	wrong := refuse(ReasonType, "this kind of token is not accepted here, only %s tokens are", r.tokenType)
	if u.accessTyp && !access {
		return wrong
	}
	if r.tellsUse || u.claims.has("token_use") { // Cognito
		if use, _ := u.claims.text("token_use"); use != string(r.tokenType) {
			return wrong
		}
	}
	if typ, ok := u.claims.text("typ"); ok { // Keycloak
		other := map[bool][]string{true: {"ID", "Refresh", "Offline", "Logout"}, false: {"Bearer", "Refresh", "Offline", "Logout"}}
		if slices.Contains(other[access], typ) {
			return wrong
		}
	}
	// A security event, a logout token for instance, has issuer, audience and subject like any other.
	if u.claims.has("events") {
		return wrong
	}
	// These belong to an ID token (OpenID Connect Core, sections 2 and 3).
	if access && (u.claims.has("nonce") || u.claims.has("at_hash") || u.claims.has("c_hash")) {
		return wrong
	}
	return nil
}

// checkAudience: a token that was made for another service must not work here, although the same issuer signed it.
// It needs the registration to name an audience or a client, which checkRegistration has seen to.
func (u *unverified) checkAudience(iss *copse.Issuer, kind copse.TokenType) error {
	accepted := iss.Audiences
	if kind == copse.TokenID {
		// An ID token's audience is the client that the user signed in to; azp tells which of several.
		accepted = slices.Concat(iss.Audiences, iss.ClientIDs)
		if len(iss.ClientIDs) > 0 && u.claims.has("azp") {
			if client, ok := u.claims.text("azp"); !ok || !meet([]string{client}, iss.ClientIDs) {
				return refuse(ReasonAudience, "azp: the token was made for another client")
			}
		}
	}
	if kind == copse.TokenAccess && !u.claims.has("aud") {
		// Cognito's access tokens name the client that asked for them instead; others spell it cid.
		// The first one that is there decides.
		for _, name := range []string{"client_id", "cid"} {
			if !u.claims.has(name) {
				continue
			}
			if client, ok := u.claims.text(name); ok && meet([]string{client}, iss.ClientIDs) {
				return nil
			}
			return refuse(ReasonAudience, "the token is meant for another audience")
		}
	}
	return u.checkAud(accepted)
}

// meet reports whether the two lists have something in common. The empty string is nobody.
func meet(said, accepted []string) bool {
	for _, s := range said {
		if s != "" && slices.Contains(accepted, s) {
			return true
		}
	}
	return false
}

// checkEmail refuses an address of a domain that the issuer may not vouch for. Leaving the claim out
// instead could switch off a forbid that reads it.
// A claim that is not a string, or no address, is refused as well. Without domains there is no rule.
func (u *unverified) checkEmail(iss *copse.Issuer) error {
	if len(iss.EmailDomains) == 0 || !u.claims.has("email") {
		return nil
	}
	address, _ := u.claims.text("email")
	// The last one: what is before it may have one in quotes.
	at := strings.LastIndexByte(address, '@')
	if at < 1 || !slices.Contains(iss.EmailDomains, lowerASCII(address[at+1:])) {
		return refuse(ReasonEmailDomain, "email: the issuer may not vouch for this address's domain")
	}
	return nil
}

// lowerASCII folds ASCII only: a domain that equals another one after Unicode folding is another one.
func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// tenant reads the one tenant that the token is for, and checks that the issuer may speak for it.
// Denied for every way in which there is none, with one answer; the cause is for the log.
func (u *unverified) tenant(iss *copse.Issuer) (copse.TenantID, error) {
	tenant := iss.FixedTenant
	// A claim that contradicts a fixed tenant is refused and not ignored: somebody meant another tenant.
	if iss.TenantClaim != "" {
		value, present, ok := u.claims.at(iss.TenantClaim)
		said, isText := textOf(value)
		switch {
		case !ok:
			return "", denied("the way to the tenant claim leads through what is no object")
		case present && !isText:
			return "", denied("the tenant claim is not a string")
		case present && tenant != "" && said != string(tenant):
			return "", denied("the tenant claim is not the issuer's fixed tenant")
		case !present && tenant == "":
			return "", denied("there is no tenant claim")
		case present:
			tenant = copse.TenantID(said)
		}
	}
	if tenant.Validate() != nil {
		return "", denied("the tenant claim can't be a tenant id")
	}
	if !iss.MaySpeakFor(tenant) {
		return "", denied("the issuer may not speak for this tenant")
	}
	return tenant, nil
}

// at finds the claim that a registration names. ok is false when the way to it leads through something
// that is no object: the issuer says something there, but not in the shape the registration expects.
// An array is no way either: which of several would be meant is not for a position to say.
func (o object) at(claim string) (value jsontext.Value, present, ok bool) {
	names := claimPath(claim)
	for i, name := range names {
		v, present := o[name]
		if !present || i == len(names)-1 {
			return v, present, true
		}
		if o = objectOf(v); o == nil {
			return nil, false, false
		}
	}
	return nil, false, true
}

// claimPath is the names that lead to a claim: its own or, of a JSON pointer, several.
func claimPath(claim string) []string {
	if !strings.HasPrefix(claim, "/") {
		return []string{claim}
	}
	names := strings.Split(claim[1:], "/")
	unescape := strings.NewReplacer("~1", "/", "~0", "~")
	for i, name := range names {
		names[i] = unescape.Replace(name)
	}
	return names
}

// subject is whose token it is and which client's, as far as it says so.
// They name a member: the principal is made by the rules and not of these.
func (o object) subject(kind copse.TokenType) (subject, client string) {
	subject, _ = o.text("sub")
	for _, name := range []string{"client_id", "azp", "cid"} {
		if client, _ = o.text(name); client != "" {
			return subject, client
		}
	}
	if kind == copse.TokenID {
		client, _ = o.text("aud")
	}
	return subject, client
}
