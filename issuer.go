package copse

import "time"

// TokenType says which kind of token an issuer's registration accepts.
type TokenType string

// Claims of an ID token become attributes of the principal; claims of an access token become
// context.token, as in AVP.
const (
	TokenAccess TokenType = "access"
	TokenID     TokenType = "id"
)

// Issuer is an identity provider the operator trusts: how its tokens verify, for which tenants it may
// speak, and how its claims become a principal.
type Issuer struct {
	// ID is derived from the URL, for use in paths.
	ID string
	// URL is the iss claim, byte for byte. One registration per URL.
	URL string
	// Revision changes with each update; verified tokens are remembered under it.
	Revision uint64

	// Tenants it may speak for, or AllTenants. Neither: it may speak for nobody.
	Tenants    []TenantID
	AllTenants bool

	TokenType TokenType
	// Audiences the aud claim must meet; ClientIDs for tokens that name their client in client_id
	// instead (Cognito access tokens). At least one of the two is set.
	Audiences []string
	ClientIDs []string
	// Algorithms the signature may use. Never empty, never symmetric, never "none".
	Algorithms []string

	// TenantClaim is the claim that names the tenant: a plain claim name, or a JSON pointer when it
	// starts with "/". FixedTenant instead, when every token of the issuer is of one tenant.
	TenantClaim string
	FixedTenant TenantID

	PrincipalType    string // Cedar entity type of the principal
	PrincipalIDClaim string // default "sub"
	// PrincipalIDPrefix is put before the id and a bar: "pool|sub". Empty: no prefix and no bar.
	PrincipalIDPrefix string
	GroupType         string // Cedar entity type of groups; empty with GroupClaim empty
	GroupClaim        string

	// EmailDomains this issuer may vouch for, in lower case.
	EmailDomains []string
	// SameSubjects states that this issuer's subjects are the same people as another issuer's of the
	// same tenant, so that equal prefixes and types of principals and groups are meant.
	SameSubjects bool

	CreatedAt time.Time
	UpdatedAt time.Time
}

// MaySpeakFor reports whether the operator bound the tenant to this issuer.
func (i *Issuer) MaySpeakFor(tenant TenantID) bool {
	if i.AllTenants {
		return true
	}
	for _, t := range i.Tenants {
		if t == tenant {
			return true
		}
	}
	return false
}
