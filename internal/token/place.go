package token

import (
	"context"
	"net/http"
	"strings"

	"github.com/copse-authz/copse"
)

// Bearer takes the token from the one Authorization header. Two are refused: a proxy in front could have
// checked the other one.
func Bearer(header http.Header) (string, error) {
	values := header["Authorization"]
	switch {
	case len(values) == 0:
		return "", copse.Errorf(copse.Unauthenticated, "no token: send the user's token as \"Authorization: Bearer <token>\"")
	case len(values) > 1:
		return "", copse.Errorf(copse.Invalid, "there are %d Authorization headers; send one", len(values))
	}
	// The scheme in any case (RFC 9110, section 11.1). A comma would be two headers that somebody joined.
	scheme, bearer, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || bearer == "" || strings.ContainsAny(bearer, " ,") {
		return "", copse.Errorf(copse.Unauthenticated, "the Authorization header is not \"Bearer <token>\"")
	}
	return bearer, nil
}

// Placing finds where the decisions of a verified token are made. Every enforcement point goes through
// it, so that they can't differ in whom they refuse or in who the principal is.
type Placing struct {
	Directory copse.Directory
	// IdentitySource is that of a policy store; nil: it has none.
	IdentitySource func(ctx context.Context, id copse.PolicyStoreID, incarnation copse.Incarnation) (*copse.IdentitySource, error)
	// VerifyBy checks a token once more by it: Verifier's method.
	VerifyBy func(ctx context.Context, p Presented) (*Verified, error)
}

// Place returns the directory's entry of the token's tenant, which is active and was made before the
// token, and the token as the identity source of its policy store reads it. That source, when there is
// one, says who the principal is; the issuer's registration, by which the tenant was found, then only
// speaks for tenants. Denied and NotFound are law 4's cases, which callers answer alike.
func (p *Placing) Place(ctx context.Context, bearer string, verified *Verified) (*Verified, copse.DirectoryEntry, error) {
	entry, err := p.Directory.Lookup(ctx, verified.Tenant)
	if err != nil {
		return nil, copse.DirectoryEntry{}, err
	}
	if entry.Tenant != verified.Tenant || entry.State != copse.TenantActive {
		return nil, copse.DirectoryEntry{}, copse.Errorf(copse.Denied, "tenant %q is %s", verified.Tenant, entry.State)
	}
	if err := verified.SameLife(&entry); err != nil {
		return nil, copse.DirectoryEntry{}, err
	}
	source, err := p.IdentitySource(ctx, entry.PolicyStoreID, entry.Incarnation)
	switch {
	case err != nil:
		return nil, copse.DirectoryEntry{}, err
	case source == nil:
		return verified, entry, nil
	case source.Issuer() != verified.Issuer:
		return nil, copse.DirectoryEntry{}, copse.Errorf(copse.Denied, "tenant %q has an identity source of another issuer than the token's", entry.Tenant)
	}
	// The same token once more, by the source's rules; the signature's keys are the same issuer's.
	verified, err = p.VerifyBy(ctx, Presented{
		Token: bearer, Kind: verified.TokenType, Source: source, Tenant: entry.Tenant,
	})
	if err != nil {
		return nil, copse.DirectoryEntry{}, err
	}
	return verified, entry, nil
}
