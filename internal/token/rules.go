package token

import (
	"slices"
	"strings"

	"github.com/copse-authz/copse"
)

// rules say how one kind of token of one issuer is read: what it may be signed with, what its claims
// must say, and how they become a principal. An issuer's registration gives rules, and so does a policy
// store's identity source; everything past this file does not know which.
type rules struct {
	tokenType  copse.TokenType
	algorithms []string
	// meant checks whom the token was made for.
	meant func(*unverified) error
	// tellsUse: the token must say in token_use what it is, as Cognito's do.
	tellsUse bool

	principalType, principalIDClaim, prefix string
	groupType, groupClaim                   string
	// nests adds claims of the form "custom:name" once more as members of a record "custom".
	nests bool
}

// registrationRules are those of an issuer, for tokens of a kind that is its own unless somebody else
// may choose.
func registrationRules(iss *copse.Issuer, kind copse.TokenType) *rules {
	return &rules{
		tokenType: kind, algorithms: iss.Algorithms,
		meant:         func(u *unverified) error { return u.checkAudience(iss, kind) },
		principalType: iss.PrincipalType, principalIDClaim: iss.PrincipalIDClaim, prefix: iss.PrincipalIDPrefix,
		groupType: iss.GroupType, groupClaim: iss.GroupClaim,
	}
}

// sourceRules are those of an identity source: AVP's, as its documentation has them.
// Unauthenticated for a kind of token that it does not take. Cognito signs with RS256 alone.
func sourceRules(src *copse.IdentitySource, kind copse.TokenType) (*rules, error) {
	if !src.Accepts(kind) {
		return nil, refuse(ReasonType, "the policy store's identity source does not take %s tokens", kind)
	}
	r := &rules{tokenType: kind, principalType: src.PrincipalType}
	if pool := src.CognitoUserPool; pool != nil {
		r.algorithms, r.tellsUse = []string{"RS256"}, true
		r.meant = func(u *unverified) error { return u.checkPoolClient(pool.ClientIDs, kind) }
		r.prefix = pool.PoolID()
		r.groupClaim, r.groupType = "cognito:groups", pool.GroupType
		if r.groupType == "" {
			r.groupType = copse.DefaultCognitoGroupType
		}
		r.nests = kind == copse.TokenID
		return r, nil
	}
	oidc := src.OpenIDConnect
	r.algorithms = Algorithms()
	r.meant = func(u *unverified) error { return u.checkOIDCAudience(oidc.Audiences, kind) }
	r.prefix, r.principalIDClaim = oidc.EntityIDPrefix, oidc.PrincipalIDClaim
	r.groupClaim, r.groupType = oidc.GroupClaim, oidc.GroupType
	return r, nil
}

// checkPoolClient compares the client of a Cognito token: aud of an ID token, client_id of an access
// token, which has no audience of its own.
// Without clients any client of the pool will do.
func (u *unverified) checkPoolClient(clients []string, kind copse.TokenType) error {
	if len(clients) == 0 {
		return nil
	}
	if kind == copse.TokenID {
		return u.checkAud(clients)
	}
	if client, ok := u.claims.text("client_id"); !ok || !slices.Contains(clients, client) {
		return refuse(ReasonAudience, "client_id: the token was made for another client")
	}
	return nil
}

// checkOIDCAudience wants one of an ID token's audiences among the clients, and one of an access token's
// among the audiences; an access token without aud is judged by the client it names instead.
// An ID token of any client will do where none is named.
func (u *unverified) checkOIDCAudience(accepted []string, kind copse.TokenType) error {
	if kind == copse.TokenID && len(accepted) == 0 {
		return nil
	}
	if kind == copse.TokenID || u.claims.has("aud") {
		return u.checkAud(accepted)
	}
	named := false
	for _, claim := range []string{"cid", "client_id"} {
		if !u.claims.has(claim) {
			continue
		}
		// Of two that disagree either could be the one that counts.
		if client, ok := u.claims.text(claim); !ok || !slices.Contains(accepted, client) {
			return refuse(ReasonAudience, "%s: the token was made for another client", claim)
		}
		named = true
	}
	if !named {
		return refuse(ReasonAudience, "aud: the token names neither an audience nor a client")
	}
	return nil
}

// checkAud wants one of the token's audiences to be an accepted one.
func (u *unverified) checkAud(accepted []string) error {
	aud, present := u.claims["aud"]
	if !present {
		return refuse(ReasonAudience, "aud: the token names no audience")
	}
	audiences, ok := textsOf(aud)
	if one, isText := textOf(aud); isText {
		audiences, ok = []string{one}, true
	}
	if !ok {
		return refuse(ReasonAudience, "aud: it is not a string or a list of strings")
	}
	if !meet(audiences, accepted) {
		return refuse(ReasonAudience, "the token is meant for another audience")
	}
	return nil
}

// nested are the prefixes of claim names that Cognito keeps for itself and for user pools' own
// attributes.
var nested = []string{"cognito", "custom", "dev"}

// nestedName gives the name inside the record of its prefix. A name that begins with two underscores has
// none: Cedar's JSON would read more than a member into it.
func nestedName(prefix, claim string) (string, bool) {
	name, ok := strings.CutPrefix(claim, prefix+":")
	return name, ok && name != "" && !strings.HasPrefix(name, "__")
}
