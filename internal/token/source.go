package token

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

// Presented is a token as it was handed to a policy store.
type Presented struct {
	Token string
	// Kind the caller says it is of; the token must agree.
	Kind copse.TokenType
	// Source is the policy store's identity source: whose tokens it takes, and what they mean.
	Source *copse.IdentitySource
	// Tenant of the policy store; empty for an operator's own. With a tenant, the issuer must be registered
	// and may speak for it, and the token must name it and be for an audience of the registration,
	// whatever the source says: who may write to a policy store may not choose who speaks for its tenant.
	Tenant copse.TenantID
}

// VerifyBy checks a token by a policy store's identity source instead of its issuer's registration alone.
// Errors are those of [Verifier.Verify]; Denied, where the policy store has a tenant, also for an issuer
// that is not registered, and for a token of another tenant.
func (v *Verifier) VerifyBy(ctx context.Context, p Presented) (*Verified, error) {
	verified, err := v.verifyBy(ctx, &p)
	if err != nil {
		v.metrics.count(err)
		return nil, err
	}
	return verified, nil
}

// verifyBy remembers under everything that decides how the token is read, but for the registration, which
// recall asks about.
func (v *Verifier) verifyBy(ctx context.Context, p *Presented) (*Verified, error) {
	if len(p.Token) > copse.MaxTokenBytes {
		_, err := parse(p.Token)
		return nil, err
	}
	d := digestWith(p.Token, string(p.Source.PolicyStoreID), p.Source.ID, strconv.FormatUint(p.Source.Revision, 10),
		string(p.Kind), string(p.Tenant))
	return v.remember(ctx, &d, func() (*entry, error) { return v.verifyByAnew(ctx, p) })
}

// verifyByAnew holds a token against the policy store's identity source, and where that is a tenant's also against the issuer's
// registration: the stricter of the two wins each time, and the tenant that the token names must be this one. A tenant's administrator
// writes the source, the operator the registration.
func (v *Verifier) verifyByAnew(ctx context.Context, p *Presented) (*entry, error) {
	r, err := sourceRules(p.Source, p.Kind)
	if err != nil {
		return nil, err
	}
	u, err := parse(p.Token)
	if err != nil {
		return nil, err
	}
	if u.issuer != p.Source.Issuer() {
		return nil, refuse(ReasonIssuer, "iss: the token is not of the issuer of the policy store's identity source")
	}
	if p.Tenant == "" {
		e, err := v.prove(ctx, u, r)
		if err != nil {
			return nil, err
		}
		e.policyStore = p.Source.PolicyStoreID
		return e, nil
	}
	// Registered before anything is fetched: a tenant's administrator can't make this server call an
	// address that the operator did not choose.
	iss, err := v.registration(ctx, u.issuer)
	switch {
	case ReasonOf(err) == ReasonIssuer:
		return nil, denied("the issuer of the identity source is not registered")
	case err != nil:
		return nil, err
	}
	if err := checkRegistration(&iss); err != nil {
		return nil, err
	}
	r.algorithms = slices.DeleteFunc(slices.Clone(iss.Algorithms), func(a string) bool { return !slices.Contains(r.algorithms, a) })
	e, err := v.prove(ctx, u, r)
	if err != nil {
		return nil, err
	}
	if err := u.checkAudience(&iss, p.Kind); err != nil {
		return nil, err
	}
	if err := u.checkEmail(&iss); err != nil {
		return nil, err
	}
	tenant, err := u.tenant(&iss)
	if err != nil {
		return nil, err
	}
	if tenant != p.Tenant {
		return nil, denied("the token is for another tenant than the policy store's")
	}
	e.verified.Tenant, e.policyStore = tenant, p.Source.PolicyStoreID
	e.under(&iss)
	return e, nil
}

// ForgetPolicyStore removes what is remembered of tokens that were verified by a policy store's identity
// source, for when that changes.
func (v *Verifier) ForgetPolicyStore(id copse.PolicyStoreID) {
	v.remembered.forget(func(e *entry) bool { return e.policyStore == id })
}

// Join makes one of an ID token and an access token that were verified by the same identity source: the
// first describes the principal, the second the request, and groups are those of either. Both must be of
// one principal.
// Neither of the two is changed. Refused as a token is, by the principal or the groups.
func Join(id, access *Verified) (*Verified, error) {
	if id.Principal != access.Principal || id.Issuer != access.Issuer || id.Tenant != access.Tenant {
		return nil, refuse(ReasonPrincipal, "the two tokens are of different principals")
	}
	joined := *id
	joined.groups = slices.Concat(id.groups, access.groups)
	slices.SortFunc(joined.groups, compareGroups)
	joined.groups = slices.Compact(joined.groups)
	if len(joined.groups) > maxGroups {
		return nil, refuse(ReasonGroups, "the two tokens have %d groups, more than %d", len(joined.groups), maxGroups)
	}
	joined.Entities = copse.Data{Format: copse.FormatCedarJSON, Bytes: principalJSON(id.Principal, id.attributes, joined.groups)}
	joined.Context = access.Context
	joined.Expires = earliest(id.Expires, access.Expires)
	if !access.IssuedAt.IsZero() && (joined.IssuedAt.IsZero() || access.IssuedAt.Before(joined.IssuedAt)) {
		joined.IssuedAt = access.IssuedAt
	}
	return &joined, nil
}

// All groups of one source are of one type.
func compareGroups(a, b types.EntityUID) int {
	switch {
	case a.ID < b.ID:
		return -1
	case a.ID > b.ID:
		return 1
	}
	return 0
}

// clockSkew is how far an issuer's clock may be behind ours.
const clockSkew = 30 * time.Second

// SameLife refuses a token that was issued to users of a former tenant of the same name. One that does
// not say when it was issued passes: not every issuer tells, and its expiry ends it too.
func (v *Verified) SameLife(entry *copse.DirectoryEntry) error {
	if !v.IssuedAt.IsZero() && v.IssuedAt.Before(entry.CreatedAt.Add(-clockSkew)) {
		return denied("the token was issued before its tenant was made")
	}
	return nil
}
