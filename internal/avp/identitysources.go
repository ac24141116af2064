package avp

import (
	"context"
	"fmt"
	"regexp"
	"slices"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
)

// configuration is the union of an identity source's two forms. Input and output have the same members,
// but that the outputs name the issuer of a user pool.
type configuration struct {
	Cognito *cognitoConfiguration `json:"cognitoUserPoolConfiguration,omitzero"`
	OIDC    *oidcConfiguration    `json:"openIdConnectConfiguration,omitzero"`
}

// cognitoConfiguration names a user pool. The issuer follows from its
// ARN. Without client ids a token of any client of the pool is taken.
type cognitoConfiguration struct {
	UserPoolARN        string              `json:"userPoolArn"`
	ClientIDs          []string            `json:"clientIds"`
	GroupConfiguration *groupConfiguration `json:"groupConfiguration,omitzero"`
}

// groupConfiguration is of both forms; a user pool has no groupClaim in
// it, since Cognito's is always cognito:groups.
type groupConfiguration struct {
	GroupClaim      string `json:"groupClaim,omitzero"`
	GroupEntityType string `json:"groupEntityType"`
}

// oidcConfiguration is any other issuer. Its entityIdPrefix stands
// before the principal's id, and keeps users of two issuers apart.
type oidcConfiguration struct {
	Issuer             string              `json:"issuer"`
	TokenSelection     *tokenSelection     `json:"tokenSelection"`
	EntityIDPrefix     *string             `json:"entityIdPrefix,omitzero"`
	GroupConfiguration *groupConfiguration `json:"groupConfiguration,omitzero"`
}

// tokenSelection is a union: of such an issuer one type of token is taken and no other.
type tokenSelection struct {
	AccessTokenOnly   *accessTokenOnly   `json:"accessTokenOnly,omitzero"`
	IdentityTokenOnly *identityTokenOnly `json:"identityTokenOnly,omitzero"`
}

// accessTokenOnly must name audiences: without one, every token of the
// issuer would do, whomever it was issued for.
type accessTokenOnly struct {
	Audiences        []string `json:"audiences,omitempty"`
	PrincipalIDClaim *string  `json:"principalIdClaim,omitzero"`
}

// identityTokenOnly may leave out client ids, as AVP's model has it.
type identityTokenOnly struct {
	ClientIDs        []string `json:"clientIds,omitempty"`
	PrincipalIDClaim *string  `json:"principalIdClaim,omitzero"`
}

// The service model's patterns. They are anchored, as AVP's are: a
// pattern that may match anywhere is none.
var (
	userPoolARN     = regexp.MustCompile(`^arn:[a-zA-Z0-9-]+:cognito-idp:[a-zA-Z0-9-]+:\d{12}:userpool/[\w-]+_[0-9a-zA-Z]+$`)
	groupEntityType = regexp.MustCompile(`^([_a-zA-Z][_a-zA-Z0-9]*::)*[_a-zA-Z][_a-zA-Z0-9]*$`)
	issuerURL       = regexp.MustCompile(`^https://.*$`)
)

// validate adds everything that is wrong, except inside a union with the
// wrong number of members: what was meant there can't be known.
func (in *configuration) validate(f *findings, path string) {
	if !f.oneOf(path, in.Cognito != nil, in.OIDC != nil) {
		return
	}
	if c := in.Cognito; c != nil {
		path += ".cognitoUserPoolConfiguration"
		if f.required(path+".userPoolArn", c.UserPoolARN != "") {
			f.text(path+".userPoolArn", c.UserPoolARN, 1, 255)
			f.pattern(path+".userPoolArn", c.UserPoolARN, userPoolARN)
		}
		f.list(path+".clientIds", c.ClientIDs, 0, maxClients)
		if g := c.GroupConfiguration; g != nil {
			g.validate(f, path+".groupConfiguration", false)
		}
		return
	}
	in.OIDC.validate(f, path+".openIdConnectConfiguration")
}

// Bounds of an identity source's lists. The lists are compared with a
// token's claims at every verification.
const (
	maxClients   = 1000
	maxAudiences = 255
)

// validate checks the form of the issuer and no more: nothing is fetched from it, and whether it may
// speak for the policy store's tenant is for the service to find out.
func (in *oidcConfiguration) validate(f *findings, path string) {
	if f.required(path+".issuer", in.Issuer != "") {
		f.text(path+".issuer", in.Issuer, 1, 2048)
		f.pattern(path+".issuer", in.Issuer, issuerURL)
	}
	if in.EntityIDPrefix != nil {
		f.text(path+".entityIdPrefix", *in.EntityIDPrefix, 1, 100)
	}
	if g := in.GroupConfiguration; g != nil {
		g.validate(f, path+".groupConfiguration", true)
	}
	if !f.required(path+".tokenSelection", in.TokenSelection != nil) {
		return
	}
	path += ".tokenSelection"
	access, id := in.TokenSelection.AccessTokenOnly, in.TokenSelection.IdentityTokenOnly
	if !f.oneOf(path, access != nil, id != nil) {
		return
	}
	if access != nil {
		f.list(path+".accessTokenOnly.audiences", access.Audiences, 1, maxAudiences)
		f.claim(path+".accessTokenOnly.principalIdClaim", access.PrincipalIDClaim)
		return
	}
	f.list(path+".identityTokenOnly.clientIds", id.ClientIDs, 0, maxClients)
	f.claim(path+".identityTokenOnly.principalIdClaim", id.PrincipalIDClaim)
}

// validate tells the two forms apart by hasClaim: where the claim is fixed, one that is given would be
// ignored, and a setting that does nothing is refused.
func (g *groupConfiguration) validate(f *findings, path string, hasClaim bool) {
	if f.required(path+".groupEntityType", g.GroupEntityType != "") {
		f.text(path+".groupEntityType", g.GroupEntityType, 1, 200)
		f.pattern(path+".groupEntityType", g.GroupEntityType, groupEntityType)
	}
	switch {
	case hasClaim:
		if f.required(path+".groupClaim", g.GroupClaim != "") {
			f.claim(path+".groupClaim", &g.GroupClaim)
		}
	case g.GroupClaim != "":
		f.add(path+".groupClaim", "Member is not known to copse; it would have no effect")
	}
}

// source is the configuration in copse's words. It must have been
// validated, or its unions are not what is taken for granted here.
func (in *configuration) source() copse.IdentitySource {
	if c := in.Cognito; c != nil {
		pool := &copse.CognitoUserPool{ARN: c.UserPoolARN, ClientIDs: c.ClientIDs}
		if c.GroupConfiguration != nil {
			pool.GroupType = c.GroupConfiguration.GroupEntityType
		}
		return copse.IdentitySource{CognitoUserPool: pool}
	}
	oidc := &copse.OpenIDConnect{Issuer: in.OIDC.Issuer}
	if access := in.OIDC.TokenSelection.AccessTokenOnly; access != nil {
		oidc.TokenType, oidc.Audiences, oidc.PrincipalIDClaim = copse.TokenAccess, access.Audiences, textOf(access.PrincipalIDClaim)
	} else {
		id := in.OIDC.TokenSelection.IdentityTokenOnly
		oidc.TokenType, oidc.Audiences, oidc.PrincipalIDClaim = copse.TokenID, id.ClientIDs, textOf(id.PrincipalIDClaim)
	}
	oidc.EntityIDPrefix = textOf(in.OIDC.EntityIDPrefix)
	if g := in.OIDC.GroupConfiguration; g != nil {
		oidc.GroupClaim, oidc.GroupType = g.GroupClaim, g.GroupEntityType
	}
	return copse.IdentitySource{OpenIDConnect: oidc}
}

// createIdentitySourceInput may leave out principalEntityType: see [copse.DefaultPrincipalType].
type createIdentitySourceInput struct {
	policyStoreInput
	Configuration       *configuration `json:"configuration"`
	ClientToken         *string        `json:"clientToken"`
	PrincipalEntityType *string        `json:"principalEntityType"`
}

func (in *createIdentitySourceInput) validate(f *findings) {
	in.policyStoreInput.validate(f)
	if f.required("configuration", in.Configuration != nil) {
		in.Configuration.validate(f, "configuration")
	}
	f.clientToken(in.ClientToken)
	f.principalEntityType(in.PrincipalEntityType)
}

// principalEntityType bounds an optional type; whether it is a name of
// Cedar's is the service's to check.
func (f *findings) principalEntityType(value *string) {
	if value != nil {
		f.text("principalEntityType", *value, 1, 200)
	}
}

// identitySourceChanged is all that Create and Update answer; the configuration is for Get.
type identitySourceChanged struct {
	CreatedDate      timestamp `json:"createdDate"`
	IdentitySourceID string    `json:"identitySourceId"`
	LastUpdatedDate  timestamp `json:"lastUpdatedDate"`
	PolicyStoreID    string    `json:"policyStoreId"`
}

func changedOf(src *copse.IdentitySource) identitySourceChanged {
	return identitySourceChanged{
		CreatedDate: timestamp(src.CreatedAt), LastUpdatedDate: timestamp(src.UpdatedAt),
		IdentitySourceID: src.ID, PolicyStoreID: string(src.PolicyStoreID),
	}
}

// createIdentitySource is refused with QuotaExceeded when the policy store has one.
func (h *handler) createIdentitySource(ctx context.Context, c access.Caller, in *createIdentitySourceInput) (identitySourceChanged, error) {
	src := in.Configuration.source()
	src.PrincipalType = textOf(in.PrincipalEntityType)
	made, err := h.policyStores.CreateIdentitySource(ctx, c, copse.PolicyStoreID(in.PolicyStoreID),
		policystore.NewIdentitySource{IdentitySource: src, ClientToken: textOf(in.ClientToken)})
	return changedOf(&made), err
}

// identitySourceInput has the id's own pattern, without slash and
// underscore: identity sources have no names.
type identitySourceInput struct {
	policyStoreInput
	IdentitySourceID string `json:"identitySourceId"`
}

func (in *identitySourceInput) validate(f *findings) {
	in.policyStoreInput.validate(f)
	if !f.required("identitySourceId", in.IdentitySourceID != "") {
		return
	}
	f.text("identitySourceId", in.IdentitySourceID, 1, 200)
	f.pattern("identitySourceId", in.IdentitySourceID, identitySourceID)
}

var identitySourceID = regexp.MustCompile(`^[a-zA-Z0-9-]*$`)

// updateIdentitySourceInput replaces the configuration as a whole;
// principalEntityType stays when it is left out.
type updateIdentitySourceInput struct {
	identitySourceInput
	UpdateConfiguration *configuration `json:"updateConfiguration"`
	PrincipalEntityType *string        `json:"principalEntityType"`
}

func (in *updateIdentitySourceInput) validate(f *findings) {
	in.identitySourceInput.validate(f)
	if f.required("updateConfiguration", in.UpdateConfiguration != nil) {
		in.UpdateConfiguration.validate(f, "updateConfiguration")
	}
	f.principalEntityType(in.PrincipalEntityType)
}

// updateIdentitySource is in force when it returns: no token is taken on
// the word of the former configuration after that.
func (h *handler) updateIdentitySource(ctx context.Context, c access.Caller, in *updateIdentitySourceInput) (identitySourceChanged, error) {
	src := in.UpdateConfiguration.source()
	src.ID, src.PrincipalType = in.IdentitySourceID, textOf(in.PrincipalEntityType)
	updated, err := h.policyStores.UpdateIdentitySource(ctx, c, copse.PolicyStoreID(in.PolicyStoreID), src)
	return changedOf(&updated), err
}

// deleteIdentitySource of one that is absent is NotFound, unlike the deletion of a policy.
func (h *handler) deleteIdentitySource(ctx context.Context, c access.Caller, in *identitySourceInput) (empty, error) {
	return empty{}, h.policyStores.DeleteIdentitySource(ctx, c, copse.PolicyStoreID(in.PolicyStoreID), in.IdentitySourceID)
}

// identitySourceDetail is what both reads show; details is AVP's older form of the same, for user pools.
type identitySourceDetail struct {
	identitySourceChanged
	PrincipalEntityType string                 `json:"principalEntityType"`
	Configuration       configurationDetail    `json:"configuration"`
	Details             *identitySourceDetails `json:"details,omitzero"`
}

// configurationDetail is the output's union, which is always set.
type configurationDetail struct {
	Cognito *cognitoDetail     `json:"cognitoUserPoolConfiguration,omitzero"`
	OIDC    *oidcConfiguration `json:"openIdConnectConfiguration,omitzero"`
}

// cognitoDetail is what was configured and the issuer that follows from it, which tokens must name.
type cognitoDetail struct {
	cognitoConfiguration
	Issuer string `json:"issuer"`
}

// identitySourceDetails is for clients from before configuration was there.
type identitySourceDetails struct {
	ClientIDs    []string `json:"clientIds"`
	DiscoveryURL string   `json:"discoveryUrl"`
	OpenIDIssuer string   `json:"openIdIssuer"`
	UserPoolARN  string   `json:"userPoolArn"`
}

// detailOf shows the service's own lists, which nobody may change.
func detailOf(src *copse.IdentitySource) identitySourceDetail {
	out := identitySourceDetail{identitySourceChanged: changedOf(src), PrincipalEntityType: src.PrincipalType}
	if pool := src.CognitoUserPool; pool != nil {
		shown := &cognitoDetail{cognitoConfiguration: cognitoConfiguration{UserPoolARN: pool.ARN, ClientIDs: pool.ClientIDs}, Issuer: pool.Issuer()}
		if pool.GroupType != "" {
			shown.GroupConfiguration = &groupConfiguration{GroupEntityType: pool.GroupType}
		}
		out.Configuration.Cognito = shown
		out.Details = &identitySourceDetails{
			ClientIDs: pool.ClientIDs, UserPoolARN: pool.ARN, OpenIDIssuer: "COGNITO",
			DiscoveryURL: pool.Issuer() + "/.well-known/openid-configuration",
		}
		return out
	}
	oidc := src.OpenIDConnect
	shown := &oidcConfiguration{Issuer: oidc.Issuer, EntityIDPrefix: optional(oidc.EntityIDPrefix), TokenSelection: new(tokenSelection)}
	if oidc.TokenType == copse.TokenAccess {
		shown.TokenSelection.AccessTokenOnly = &accessTokenOnly{Audiences: oidc.Audiences, PrincipalIDClaim: optional(oidc.PrincipalIDClaim)}
	} else {
		shown.TokenSelection.IdentityTokenOnly = &identityTokenOnly{ClientIDs: oidc.Audiences, PrincipalIDClaim: optional(oidc.PrincipalIDClaim)}
	}
	if oidc.GroupType != "" {
		shown.GroupConfiguration = &groupConfiguration{GroupClaim: oidc.GroupClaim, GroupEntityType: oidc.GroupType}
	}
	out.Configuration.OIDC = shown
	return out
}

func (h *handler) getIdentitySource(ctx context.Context, c access.Caller, in *identitySourceInput) (identitySourceDetail, error) {
	src, err := h.policyStores.GetIdentitySource(ctx, c, copse.PolicyStoreID(in.PolicyStoreID), in.IdentitySourceID)
	if err != nil {
		return identitySourceDetail{}, err
	}
	return detailOf(&src), nil
}

// listIdentitySourcesInput has filters by AVP's model, though there is one identity source at most.
type listIdentitySourcesInput struct {
	policyStoreInput
	pageInput
	Filters []identitySourceFilter `json:"filters"`
}

// identitySourceFilter with no member fits everything.
type identitySourceFilter struct {
	PrincipalEntityType *string `json:"principalEntityType"`
}

const maxFilters = 10

func (in *listIdentitySourcesInput) validate(f *findings) {
	in.policyStoreInput.validate(f)
	if len(in.Filters) > maxFilters {
		f.add("filters", "Member must have length between 0 and %d, has %d", maxFilters, len(in.Filters))
	}
	for i, filter := range in.Filters {
		if filter.PrincipalEntityType != nil {
			f.text(fmt.Sprintf("filters[%d].principalEntityType", i), *filter.PrincipalEntityType, 1, 200)
		}
	}
	in.pageInput.validate(f)
}

// identitySourceList leaves out nextToken, which is optional: there is no next page.
type identitySourceList struct {
	IdentitySources []identitySourceDetail `json:"identitySources"`
}

// listIdentitySources has one page: a policy store has no more than one, so there is never a token for
// the next.
func (h *handler) listIdentitySources(ctx context.Context, c access.Caller, in *listIdentitySourcesInput) (identitySourceList, error) {
	all, err := h.policyStores.ListIdentitySources(ctx, c, copse.PolicyStoreID(in.PolicyStoreID))
	if err != nil {
		return identitySourceList{}, err
	}
	// A token from elsewhere is still refused, and not taken as the start.
	if _, err := h.list("ListIdentitySources", c, in.PolicyStoreID).start(&in.pageInput); err != nil {
		return identitySourceList{}, err
	}
	out := identitySourceList{IdentitySources: []identitySourceDetail{}}
	for _, src := range all {
		// One filter that fits is enough; one without a type fits all.
		fits := len(in.Filters) == 0 || slices.ContainsFunc(in.Filters, func(f identitySourceFilter) bool {
			return f.PrincipalEntityType == nil || *f.PrincipalEntityType == src.PrincipalType
		})
		if fits {
			out.IdentitySources = append(out.IdentitySources, detailOf(&src))
		}
	}
	return out, nil
}
