package remote

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
)

// place is a tenant's entry, and by whose tokens its policy store decides. It is read in one answer,
// and replaced as a whole.
type place struct {
	entry  copse.DirectoryEntry
	source *copse.IdentitySource
}

// wireEntry is api.DirectoryEntry as it is read: this package does not import the server's.
type wireEntry struct {
	Tenant        copse.TenantID      `json:"tenant"`
	State         copse.TenantState   `json:"state"`
	PolicyStoreID copse.PolicyStoreID `json:"policyStoreId"`
	Incarnation   copse.Incarnation   `json:"incarnation"`
	CreatedAt     time.Time           `json:"createdAt"`
	Source        *wireSource         `json:"identitySource"`
}

// wireSource has one of its two members set; both and neither are refused.
type wireSource struct {
	ID            string `json:"id"`
	Revision      uint64 `json:"revision"`
	PrincipalType string `json:"principalType"`
	Cognito       *struct {
		ARN       string   `json:"arn"`
		ClientIDs []string `json:"clientIds"`
		GroupType string   `json:"groupType"`
	} `json:"cognitoUserPool"`
	OpenIDConnect *struct {
		Issuer           string          `json:"issuer"`
		TokenType        copse.TokenType `json:"tokenType"`
		Audiences        []string        `json:"audiences"`
		PrincipalIDClaim string          `json:"principalIdClaim"`
		EntityIDPrefix   string          `json:"entityIdPrefix"`
		GroupClaim       string          `json:"groupClaim"`
		GroupType        string          `json:"groupType"`
	} `json:"openIdConnect"`
}

// readPlace believes an entry only when it is whole and of the tenant that was asked for: an empty one
// would otherwise be an entry with the zero incarnation, which is any.
func (p *PDP) readPlace(ctx context.Context, tenant copse.TenantID) (place, error) {
	var w wireEntry
	if err := p.get(ctx, "/v1/directory/tenants/"+url.PathEscape(string(tenant)), &w); err != nil {
		return place{}, err
	}
	known := w.State == copse.TenantActive || w.State == copse.TenantSuspended
	if w.Tenant != tenant || !known || w.PolicyStoreID.Validate() != nil || w.Incarnation.IsZero() || w.CreatedAt.IsZero() {
		return place{}, copse.Errorf(copse.Unavailable, "the copse server's entry of tenant %q is not one", tenant)
	}
	out := place{entry: copse.DirectoryEntry{
		Tenant: w.Tenant, State: w.State, PolicyStoreID: w.PolicyStoreID, Incarnation: w.Incarnation, CreatedAt: w.CreatedAt,
	}}
	if w.Source == nil {
		return out, nil
	}
	// A kind of source that a newer server knows must not become a tenant without one.
	out.source = w.Source.source(w.PolicyStoreID)
	if (out.source.CognitoUserPool == nil) == (out.source.OpenIDConnect == nil) {
		return place{}, copse.Errorf(copse.Unavailable, "the identity source of tenant %q is of a kind this library does not know", tenant)
	}
	return out, nil
}

// source is the identity source in the words of the root package.
func (w *wireSource) source(id copse.PolicyStoreID) *copse.IdentitySource {
	out := &copse.IdentitySource{ID: w.ID, PolicyStoreID: id, Revision: w.Revision, PrincipalType: w.PrincipalType}
	if c := w.Cognito; c != nil {
		out.CognitoUserPool = &copse.CognitoUserPool{ARN: c.ARN, ClientIDs: c.ClientIDs, GroupType: c.GroupType}
	}
	if o := w.OpenIDConnect; o != nil {
		out.OpenIDConnect = &copse.OpenIDConnect{
			Issuer: o.Issuer, TokenType: o.TokenType, Audiences: o.Audiences, PrincipalIDClaim: o.PrincipalIDClaim,
			EntityIDPrefix: o.EntityIDPrefix, GroupClaim: o.GroupClaim, GroupType: o.GroupType,
		}
	}
	return out
}

// wireIssuer has the members of [copse.Issuer] in its order, so that one converts to the other.
type wireIssuer struct {
	ID                string           `json:"id"`
	URL               string           `json:"url"`
	Revision          uint64           `json:"revision"`
	Tenants           []copse.TenantID `json:"tenants"`
	AllTenants        bool             `json:"allTenants"`
	TokenType         copse.TokenType  `json:"tokenType"`
	Audiences         []string         `json:"audiences"`
	ClientIDs         []string         `json:"clientIds"`
	Algorithms        []string         `json:"algorithms"`
	TenantClaim       string           `json:"tenantClaim"`
	FixedTenant       copse.TenantID   `json:"fixedTenant"`
	PrincipalType     string           `json:"principalType"`
	PrincipalIDClaim  string           `json:"principalIdClaim"`
	PrincipalIDPrefix string           `json:"principalIdPrefix"`
	GroupType         string           `json:"groupType"`
	GroupClaim        string           `json:"groupClaim"`
	EmailDomains      []string         `json:"emailDomains"`
	SameSubjects      bool             `json:"sameSubjects"`
	CreatedAt         time.Time        `json:"createdAt"`
	UpdatedAt         time.Time        `json:"updatedAt"`
}

// maxIssuerPages of 500 are read, or none: a listing that is cut short would refuse good tokens in silence.
const maxIssuerPages = 100

// readIssuers reads the whole list before any of it is used. Pages may be of different moments; an
// issuer that stays is in one of them.
func (p *PDP) readIssuers(ctx context.Context) (map[string]copse.Issuer, error) {
	all := map[string]copse.Issuer{}
	next := ""
	for range maxIssuerPages {
		var page struct {
			Issuers   []wireIssuer `json:"issuers"`
			NextToken string       `json:"nextToken"`
		}
		path := "/v1/directory/issuers?maxResults=500"
		if next != "" {
			path += "&nextToken=" + url.QueryEscape(next)
		}
		if err := p.get(ctx, path, &page); err != nil {
			return nil, err
		}
		// Without the member it is some other JSON, such as a proxy's.
		if page.Issuers == nil {
			return nil, copse.Errorf(copse.Unavailable, "the copse server's list of issuers is not one")
		}
		for _, i := range page.Issuers {
			all[i.URL] = copse.Issuer(i)
		}
		if next = page.NextToken; next == "" {
			return all, nil
		}
	}
	return nil, copse.Errorf(copse.Unavailable, "the key covers more than %d issuers; use a key for fewer tenants", maxIssuerPages*500)
}

// statuses of the control API that say something of the request.
var statuses = map[int]copse.Kind{
	http.StatusBadRequest: copse.Invalid, http.StatusUnauthorized: copse.Unauthenticated, http.StatusForbidden: copse.Denied,
	http.StatusNotFound: copse.NotFound, http.StatusTooManyRequests: copse.Throttled,
}

// get asks the control API and reads a 200 into into. Errors are those of [PDP.call], and the server's
// refusals by their kind.
func (p *PDP) get(ctx context.Context, path string, into any) error {
	a, err := p.call(ctx, &message{method: http.MethodGet, path: path})
	if err != nil {
		return err
	}
	if a.status != http.StatusOK {
		var body struct {
			Error struct {
				Kind    string `json:"kind"`
				Message string `json:"message"`
			} `json:"error"`
		}
		kind, known := statuses[a.status]
		// Only copse's own word counts: a proxy's 404 does not say that there is no such tenant.
		if err := json.Unmarshal(a.body, &body); err != nil || !known || body.Error.Kind != kind.String() {
			return copse.Errorf(copse.Unavailable, "the copse server answered %d, which says nothing of the request", a.status)
		}
		return &copse.Error{Kind: kind, Detail: body.Error.Message}
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		return copse.Errorf(copse.Unavailable, "the copse server's answer can't be read: %w", err)
	}
	return nil
}
