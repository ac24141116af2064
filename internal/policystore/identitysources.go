package policystore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage"
)

// identitySourceBody is in the policy store's own partition, so that a change of it is a revision like
// any other, and deleting the policy store takes it along.
type identitySourceBody struct {
	V             int          `json:"v"`
	PrincipalType string       `json:"principalType"`
	Cognito       *cognitoBody `json:"cognito,omitzero"`
	OpenIDConnect *oidcBody    `json:"oidc,omitzero"`
	CreatedAt     time.Time    `json:"createdAt"`
	UpdatedAt     time.Time    `json:"updatedAt"`
}

// cognitoBody has what AVP keeps of a user pool; its issuer is computed from the ARN.
type cognitoBody struct {
	ARN       string   `json:"arn"`
	ClientIDs []string `json:"clientIds,omitempty"`
	GroupType string   `json:"groupType,omitzero"`
}

// oidcBody has audiences of access tokens and client ids of ID tokens in one list, as tokenType says.
type oidcBody struct {
	Issuer           string          `json:"issuer"`
	TokenType        copse.TokenType `json:"tokenType"`
	Audiences        []string        `json:"audiences,omitempty"`
	PrincipalIDClaim string          `json:"principalIdClaim,omitzero"`
	EntityIDPrefix   string          `json:"entityIdPrefix,omitzero"`
	GroupClaim       string          `json:"groupClaim,omitzero"`
	GroupType        string          `json:"groupType,omitzero"`
}

// newIdentitySourceBody is the row of a source that passed checkIdentitySource: exactly one kind is set.
func newIdentitySourceBody(src *copse.IdentitySource) *identitySourceBody {
	b := &identitySourceBody{V: bodyVersion, PrincipalType: src.PrincipalType, CreatedAt: src.CreatedAt, UpdatedAt: src.UpdatedAt}
	if c := src.CognitoUserPool; c != nil {
		b.Cognito = &cognitoBody{ARN: c.ARN, ClientIDs: c.ClientIDs, GroupType: c.GroupType}
	}
	if o := src.OpenIDConnect; o != nil {
		b.OpenIDConnect = &oidcBody{
			Issuer: o.Issuer, TokenType: o.TokenType, Audiences: o.Audiences, PrincipalIDClaim: o.PrincipalIDClaim,
			EntityIDPrefix: o.EntityIDPrefix, GroupClaim: o.GroupClaim, GroupType: o.GroupType,
		}
	}
	return b
}

// The item's version is the source's revision: tokens that were verified by another one are verified again.
func decodeIdentitySource(id copse.PolicyStoreID, item storage.Item) (*copse.IdentitySource, error) {
	var b identitySourceBody
	if err := decode(item, &b); err != nil {
		return nil, err
	}
	// Whose tokens it takes is not to be guessed: the whole policy store decides nothing then.
	if (b.Cognito == nil) == (b.OpenIDConnect == nil) {
		return nil, undecodable(item, errors.New("it is of no kind, or of two"))
	}
	src := &copse.IdentitySource{
		ID: item.ID, PolicyStoreID: id, Revision: item.Version, PrincipalType: b.PrincipalType,
		CreatedAt: b.CreatedAt, UpdatedAt: b.UpdatedAt,
	}
	if c := b.Cognito; c != nil {
		src.CognitoUserPool = &copse.CognitoUserPool{ARN: c.ARN, ClientIDs: c.ClientIDs, GroupType: c.GroupType}
	}
	if o := b.OpenIDConnect; o != nil {
		src.OpenIDConnect = &copse.OpenIDConnect{
			Issuer: o.Issuer, TokenType: o.TokenType, Audiences: o.Audiences, PrincipalIDClaim: o.PrincipalIDClaim,
			EntityIDPrefix: o.EntityIDPrefix, GroupClaim: o.GroupClaim, GroupType: o.GroupType,
		}
	}
	return src, nil
}

func identitySourceKey(id string) storage.Key {
	return storage.Key{Kind: kindIdentitySource, ID: id}
}

// maxIdentitySources is the most a plan may allow: with two, which of them reads a token would be up to
// the token.
const maxIdentitySources = 1

// noIdentitySource is NotFound with the source's own id.
func noIdentitySource(id string) error {
	return copse.NotFoundError(copse.ResourceIdentitySource, id)
}

// NewIdentitySource asks for one; ID, revision and times are not read.
type NewIdentitySource struct {
	copse.IdentitySource
	ClientToken string `json:"-"` // what makes it once
}

// madeIdentitySource is what a client token remembers of CreateIdentitySource.
// The rest of the answer is what the repeated call asks for, which must be the same.
type madeIdentitySource struct {
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"createdAt"`
}

// CreateIdentitySource adds one: QuotaExceeded when the policy store has one. Needs Write.
// Invalid as in checkIdentitySource, Conflict for a client token that was used otherwise. From its answer on
// the policy store's tokens are read by it.
func (s *Service) CreateIdentitySource(ctx context.Context, c access.Caller, id copse.PolicyStoreID, in NewIdentitySource) (copse.IdentitySource, error) {
	r, err := s.admit(ctx, c, access.Write, "CreateIdentitySource", id)
	if err != nil {
		return copse.IdentitySource{}, err
	}
	src := in.IdentitySource
	// As AVP does.
	if src.PrincipalType == "" {
		src.PrincipalType = copse.DefaultPrincipalType
	}
	if err := s.checkIdentitySource(&src); err != nil {
		return copse.IdentitySource{}, err
	}
	o, err := newOnce("CreateIdentitySource", copse.ResourceIdentitySource, in.ClientToken, in)
	if err != nil {
		return copse.IdentitySource{}, err
	}
	made := madeIdentitySource{ID: copse.NewID()}
	// Drawn once: every attempt makes the same one.
	fresh := made.ID
	_, err = s.apply(ctx, operation{"CreateIdentitySource", c.Actor(), id, r}, func(ctx context.Context, k *desk) (change, error) {
		l, err := s.current(ctx, k, id, r.incarnation)
		if err != nil {
			return change{}, err
		}
		// In every attempt: of two equal calls at once one commits, and the other finds its answer here.
		if done, err := s.recall(ctx, storage.PolicyStore(id), o, &made); done || err != nil {
			return change{base: l}, err
		}
		stored, err := s.identitySources(ctx, id)
		if err != nil {
			return change{}, err
		}
		// The plan may allow none. Asked at the revision of the commit, so two at once can't both be the first.
		if most := min(l.quotas.IdentitySources, maxIdentitySources); len(stored) >= most {
			err := quota(copse.ResourceIdentitySource, "identity sources in the policy store", len(stored)+1, most)
			err.ID = string(id)
			return change{}, err
		}
		made = madeIdentitySource{ID: fresh, CreatedAt: now()}
		src.ID, src.CreatedAt, src.UpdatedAt = made.ID, made.CreatedAt, made.CreatedAt
		c, err := putIdentitySource(l, &src, storage.Absent())
		if err != nil {
			return change{}, err
		}
		return s.remember(ctx, id, c, o, made.ID, made)
	})
	if err != nil {
		return copse.IdentitySource{}, err
	}
	// Of a repeated call these are the first one's.
	src.ID, src.PolicyStoreID, src.CreatedAt, src.UpdatedAt = made.ID, id, made.CreatedAt, made.CreatedAt
	return src, nil
}

// putIdentitySource is the change that writes a source. It moves nothing that a ledger counts.
func putIdentitySource(l *ledger, src *copse.IdentitySource, expect storage.Expectation) (change, error) {
	body, err := encode(newIdentitySourceBody(src))
	write := storage.Write{Key: identitySourceKey(src.ID), Body: body, Expect: expect}
	return change{base: l, writes: []storage.Write{write}, settle: func(*ledger, uint64) {}}, err
}

// UpdateIdentitySource replaces the configuration; an empty principal type stays as it is. Tokens that
// were verified by the former one are verified again. Needs Write.
// NotFound when there is none of this id, Invalid as for a new one. Its kind may change with it.
func (s *Service) UpdateIdentitySource(ctx context.Context, c access.Caller, id copse.PolicyStoreID, in copse.IdentitySource) (copse.IdentitySource, error) {
	r, err := s.admit(ctx, c, access.Write, "UpdateIdentitySource", id)
	if err != nil {
		return copse.IdentitySource{}, err
	}
	var next copse.IdentitySource
	_, err = s.changeIdentitySource(ctx, operation{"UpdateIdentitySource", c.Actor(), id, r}, in.ID, func(l *ledger, former *copse.IdentitySource) (change, error) {
		// All of it is replaced, but for what the policy store itself keeps of it.
		next = in
		next.PolicyStoreID, next.CreatedAt, next.UpdatedAt = id, former.CreatedAt, now()
		if next.PrincipalType == "" {
			next.PrincipalType = former.PrincipalType
		}
		if err := s.checkIdentitySource(&next); err != nil {
			return change{}, err
		}
		return putIdentitySource(l, &next, storage.Version(former.Revision))
	})
	return next, err
}

// changeIdentitySource is an update or a deletion: alter sees what is there at the revision that the
// commit expects.
// NotFound when there is none of this id.
func (s *Service) changeIdentitySource(ctx context.Context, op operation, source string,
	alter func(l *ledger, former *copse.IdentitySource) (change, error),
) (uint64, error) {
	return s.apply(ctx, op, func(ctx context.Context, k *desk) (change, error) {
		l, err := s.current(ctx, k, op.policyStore, op.row.incarnation)
		if err != nil {
			return change{}, err
		}
		stored, err := s.identitySources(ctx, op.policyStore)
		if err != nil {
			return change{}, err
		}
		former := findIdentitySource(stored, source)
		if former == nil {
			return change{}, noIdentitySource(source)
		}
		return alter(l, former)
	})
}

// DeleteIdentitySource is NotFound when there is none of this id. Needs Write.
// No token that comes after it returned is read by the source.
func (s *Service) DeleteIdentitySource(ctx context.Context, c access.Caller, id copse.PolicyStoreID, source string) error {
	r, err := s.admit(ctx, c, access.Write, "DeleteIdentitySource", id)
	if err != nil {
		return err
	}
	_, err = s.changeIdentitySource(ctx, operation{"DeleteIdentitySource", c.Actor(), id, r}, source, func(l *ledger, former *copse.IdentitySource) (change, error) {
		write := storage.Write{Key: identitySourceKey(source), Expect: storage.Version(former.Revision)}
		return change{base: l, writes: []storage.Write{write}, settle: func(*ledger, uint64) {}}, nil
	})
	return err
}

// GetIdentitySource needs Read.
// NotFound when there is none of this id. It reads past the snapshots, and what it returns is the caller's own.
func (s *Service) GetIdentitySource(ctx context.Context, c access.Caller, id copse.PolicyStoreID, source string) (copse.IdentitySource, error) {
	if _, err := s.admit(ctx, c, access.Read, "GetIdentitySource", id); err != nil {
		return copse.IdentitySource{}, err
	}
	all, err := s.identitySources(ctx, id)
	if err != nil {
		return copse.IdentitySource{}, fromStorage(err, id)
	}
	found := findIdentitySource(all, source)
	if found == nil {
		return copse.IdentitySource{}, noIdentitySource(source)
	}
	return *found, nil
}

// ListIdentitySources returns all of them, in order of their ids. Needs Read.
func (s *Service) ListIdentitySources(ctx context.Context, c access.Caller, id copse.PolicyStoreID) ([]copse.IdentitySource, error) {
	if _, err := s.admit(ctx, c, access.Read, "ListIdentitySources", id); err != nil {
		return nil, err
	}
	all, err := s.identitySources(ctx, id)
	return all, fromStorage(err, id)
}

// identitySources reads one more than there can be, so that a second one would be seen and not hidden.
func (s *Service) identitySources(ctx context.Context, id copse.PolicyStoreID) ([]copse.IdentitySource, error) {
	items, err := s.backend.Scan(ctx, storage.PolicyStore(id), kindIdentitySource, "", maxIdentitySources+1)
	if err != nil {
		return nil, err
	}
	out := make([]copse.IdentitySource, len(items))
	for i, item := range items {
		src, err := decodeIdentitySource(id, item)
		if err != nil {
			return nil, err
		}
		out[i] = *src
	}
	return out, nil
}

// findIdentitySource points into all; nil when there is none of this id.
func findIdentitySource(all []copse.IdentitySource, id string) *copse.IdentitySource {
	if i := slices.IndexFunc(all, func(s copse.IdentitySource) bool { return s.ID == id }); i >= 0 {
		return &all[i]
	}
	return nil
}

// checkIdentitySource holds a source against what concerns its meaning; the form of its members is the
// transport's to check, which knows what they are called there.
// Invalid lists all that is wrong, by the paths of AVP's messages.
func (s *Service) checkIdentitySource(src *copse.IdentitySource) error {
	if (src.CognitoUserPool == nil) == (src.OpenIDConnect == nil) {
		return invalid(copse.ResourceIdentitySource, "an identity source is a Cognito user pool or an OpenID Connect provider")
	}
	var fields []copse.Field
	bad := func(path string, err error) {
		if err != nil {
			fields = append(fields, copse.Field{Path: path, Message: err.Error()})
		}
	}
	bad("principalEntityType", copse.ValidateEntityType(src.PrincipalType))
	// The issuer of a user pool follows from its ARN, and must be one that keys may be fetched from.
	if pool := src.CognitoUserPool; pool != nil {
		if pool.GroupType != "" {
			bad("configuration.cognitoUserPoolConfiguration.groupConfiguration.groupEntityType", copse.ValidateEntityType(pool.GroupType))
		}
		bad("configuration.cognitoUserPoolConfiguration.userPoolArn", s.checkIssuerURL(pool.Issuer()))
	}
	// An OpenID Connect provider: groups have a claim and a type, an access token says for whom it is.
	if oidc := src.OpenIDConnect; oidc != nil {
		const at = "configuration.openIdConnectConfiguration"
		if (oidc.GroupType == "") != (oidc.GroupClaim == "") {
			bad(at+".groupConfiguration", errors.New("give the claim and the type together, or neither"))
		}
		if oidc.GroupType != "" {
			bad(at+".groupConfiguration.groupEntityType", copse.ValidateEntityType(oidc.GroupType))
		}
		if oidc.TokenType != copse.TokenAccess && oidc.TokenType != copse.TokenID {
			bad(at+".tokenSelection", fmt.Errorf("%q is no kind of token", oidc.TokenType))
		}
		if oidc.TokenType == copse.TokenAccess && len(oidc.Audiences) == 0 {
			bad(at+".tokenSelection.accessTokenOnly.audiences", errors.New("give at least one audience: without, a token made for any other service would do"))
		}
		bad(at+".issuer", s.checkIssuerURL(oidc.Issuer))
	}
	if len(fields) > 0 {
		return invalid(copse.ResourceIdentitySource, "the identity source is not valid", fields...)
	}
	return nil
}

// requireHTTPS stands in for Config.CheckIssuerURL.
func requireHTTPS(url string) error {
	if len(url) <= len("https://") || url[:len("https://")] != "https://" {
		return copse.Errorf(copse.Invalid, "an issuer's URL begins with https://")
	}
	return nil
}

// identitySourceWeight is about how many bytes a source takes in memory, beside the snapshot it is cached with.
func identitySourceWeight(src *copse.IdentitySource) int64 {
	w := 512 + len(src.PrincipalType)
	var list []string
	if src.CognitoUserPool != nil {
		list = src.CognitoUserPool.ClientIDs
	}
	if src.OpenIDConnect != nil {
		list = src.OpenIDConnect.Audiences
		w += len(src.OpenIDConnect.Issuer) + len(src.OpenIDConnect.GroupClaim) + len(src.OpenIDConnect.PrincipalIDClaim)
	}
	for _, s := range list {
		w += 16 + len(s)
	}
	return int64(w)
}
