package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
)

// registerDirectory adds what the remote package reads: the part of the directory that a key with decide
// covers.
func registerDirectory(a *API, h huma.API) {
	register(a, h, route{method: http.MethodGet, path: "/v1/directory/tenants/{tenant}", id: "lookUpTenant", tag: tagTenants, status: http.StatusOK,
		summary:     "Find where a tenant's decisions are made",
		description: "For a PEP that decides through the AVP API: needs the verb decide on the tenant's policy store.",
		errors:      []int{http.StatusNotFound}}, (*API).lookUpTenant)
	register(a, h, route{method: http.MethodGet, path: "/v1/directory/issuers", id: "listIssuersForDeciding", tag: tagIssuers, status: http.StatusOK,
		summary:     "List the issuers that may speak for what the key covers",
		description: "For a PEP that verifies tokens itself: needs the verb decide. A key of one tenant sees each issuer as if that were its only tenant."}, (*API).listIssuersForDeciding)
}

// directoryOutput is the answer of lookUpTenant.
type directoryOutput struct{ Body DirectoryEntry }

// DirectoryEntry is where a tenant's decisions are made, and by whose tokens.
type DirectoryEntry struct {
	Tenant         string          `json:"tenant" doc:"The tenant's id." example:"acme"`
	State          string          `json:"state" enum:"ACTIVE,SUSPENDED" doc:"Decisions of a suspended tenant are refused."`
	PolicyStoreID  string          `json:"policyStoreId" doc:"The policy store that decides for this tenant."`
	Incarnation    string          `json:"incarnation" doc:"Of the policy store: another one under the same id has another."`
	CreatedAt      time.Time       `json:"createdAt" doc:"Tokens issued before are not for this tenant."`
	IdentitySource *IdentitySource `json:"identitySource,omitzero" doc:"By which the policy store reads tokens, when it has one."`
}

// IdentitySource says how a policy store reads users' tokens: by exactly one of the two members.
type IdentitySource struct {
	ID              string           `json:"id" doc:"Of the identity source."`
	Revision        uint64           `json:"revision" doc:"Changes with each update."`
	PrincipalType   string           `json:"principalType" doc:"Cedar entity type of the principal."`
	CognitoUserPool *CognitoUserPool `json:"cognitoUserPool,omitzero" doc:"An Amazon Cognito user pool."`
	OpenIDConnect   *OpenIDConnect   `json:"openIdConnect,omitzero" doc:"Any other provider."`
}

// CognitoUserPool is an Amazon Cognito user pool.
type CognitoUserPool struct {
	ARN       string   `json:"arn" doc:"Of the user pool."`
	ClientIDs []string `json:"clientIds,omitempty" nullable:"false" doc:"Clients whose tokens are accepted; left out: all."`
	GroupType string   `json:"groupType,omitzero" doc:"Cedar entity type of groups."`
}

// OpenIDConnect is an OpenID Connect provider.
type OpenIDConnect struct {
	Issuer           string   `json:"issuer" doc:"The iss claim, byte for byte."`
	TokenType        string   `json:"tokenType" enum:"access,id" doc:"The one type of token that is accepted."`
	Audiences        []string `json:"audiences,omitempty" nullable:"false" doc:"Audiences, or clients, that are accepted."`
	PrincipalIDClaim string   `json:"principalIdClaim,omitzero" doc:"The claim that names the principal; left out: sub."`
	EntityIDPrefix   string   `json:"entityIdPrefix,omitzero" doc:"Put before ids, with a bar between."`
	GroupClaim       string   `json:"groupClaim,omitzero" doc:"The claim that lists groups."`
	GroupType        string   `json:"groupType,omitzero" doc:"Cedar entity type of groups."`
}

// lookUpTenant answers keys with decide on the tenant's policy store. For all others there
// is no such tenant.
func (a *API) lookUpTenant(ctx context.Context, c access.Caller, in *TenantPath) (*directoryOutput, error) {
	id, err := in.id()
	if err != nil {
		return nil, err
	}
	e, err := a.tenants.EntryFor(ctx, c, id)
	if err != nil {
		return nil, err
	}
	// Of the incarnation that the directory names: that of a successor would say what
	// the successor's tokens mean.
	source, err := a.policyStores.IdentitySource(ctx, e.PolicyStoreID, e.Incarnation)
	if err != nil {
		return nil, err
	}
	return &directoryOutput{Body: DirectoryEntry{
		Tenant: string(e.Tenant), State: string(e.State), PolicyStoreID: string(e.PolicyStoreID),
		Incarnation: e.Incarnation.String(), CreatedAt: e.CreatedAt, IdentitySource: identitySourceOf(source),
	}}, nil
}

// identitySourceOf is nil for none; one of the two members is set otherwise. Its lists are the
// service's, and only written out.
func identitySourceOf(src *copse.IdentitySource) *IdentitySource {
	if src == nil {
		return nil
	}
	out := &IdentitySource{ID: src.ID, Revision: src.Revision, PrincipalType: src.PrincipalType}
	if p := src.CognitoUserPool; p != nil {
		out.CognitoUserPool = &CognitoUserPool{ARN: p.ARN, ClientIDs: p.ClientIDs, GroupType: p.GroupType}
	}
	if o := src.OpenIDConnect; o != nil {
		out.OpenIDConnect = &OpenIDConnect{
			Issuer: o.Issuer, TokenType: string(o.TokenType), Audiences: o.Audiences, PrincipalIDClaim: o.PrincipalIDClaim,
			EntityIDPrefix: o.EntityIDPrefix, GroupClaim: o.GroupClaim, GroupType: o.GroupType,
		}
	}
	return out
}

// listIssuersForDeciding never names another tenant to a key that covers one.
func (a *API) listIssuersForDeciding(ctx context.Context, c access.Caller, in *struct{ Paging }) (*struct{ Body IssuerList }, error) {
	const list = "directory/issuers"
	after, err := in.start(a, list, c)
	if err != nil {
		return nil, err
	}
	page, next, err := a.tenants.IssuersFor(ctx, c, after, in.limit())
	if err != nil {
		return nil, err
	}
	out := &struct{ Body IssuerList }{Body: IssuerList{Issuers: make([]Issuer, len(page))}}
	for i := range page {
		out.Body.Issuers[i] = issuerOf(&page[i])
	}
	out.Body.NextToken = a.next(list, c, next != "", next)
	return out, nil
}
