package tenant

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage"
)

// Kinds of directory items.
const (
	kindTenant              = access.TenantKind // id = tenant id
	kindIssuer storage.Kind = "issuer"          // id = issuerID of the URL
	// kindRules has one item, written with every change of an issuer: what is expected of it is
	// expected of all issuers.
	kindRules storage.Kind = "issuer-rules"
)

var rulesKey = storage.Key{Kind: kindRules}

func tenantKey(id copse.TenantID) storage.Key { return storage.Key{Kind: kindTenant, ID: string(id)} }
func issuerKey(id string) storage.Key         { return storage.Key{Kind: kindIssuer, ID: id} }

// bodyVersion is in every body. A higher one was written by a newer copse, and is refused.
const bodyVersion = 1

// tenantBody is the tenant's word for which policy store is its own; the policy store's row must agree.
type tenantBody struct {
	V           int                 `json:"v"`
	State       copse.TenantState   `json:"state"`
	PolicyStore copse.PolicyStoreID `json:"policyStore"`
	Incarnation copse.Incarnation   `json:"incarnation"`
	CreatedAt   time.Time           `json:"createdAt"`
	UpdatedAt   time.Time           `json:"updatedAt"`
}

// tenant shows a stored tenant. The incarnation is not shown: outside of copse it means nothing.
func (b *tenantBody) tenant(id copse.TenantID) Tenant {
	return Tenant{ID: id, State: b.State, PolicyStoreID: b.PolicyStore, CreatedAt: b.CreatedAt, UpdatedAt: b.UpdatedAt}
}

// issuerBody is an issuer's registration, with the members of copse.Issuer but for id and revision: those are
// the item's.
type issuerBody struct {
	V                 int              `json:"v"`
	URL               string           `json:"url"`
	Tenants           []copse.TenantID `json:"tenants,omitempty"`
	AllTenants        bool             `json:"allTenants,omitzero"`
	TokenType         copse.TokenType  `json:"tokenType"`
	Audiences         []string         `json:"audiences,omitempty"`
	ClientIDs         []string         `json:"clientIds,omitempty"`
	Algorithms        []string         `json:"algorithms"`
	TenantClaim       string           `json:"tenantClaim,omitzero"`
	FixedTenant       copse.TenantID   `json:"fixedTenant,omitzero"`
	PrincipalType     string           `json:"principalType"`
	PrincipalIDClaim  string           `json:"principalIdClaim"`
	PrincipalIDPrefix string           `json:"principalIdPrefix,omitzero"`
	GroupType         string           `json:"groupType,omitzero"`
	GroupClaim        string           `json:"groupClaim,omitzero"`
	EmailDomains      []string         `json:"emailDomains,omitempty"`
	SameSubjects      bool             `json:"sameSubjects,omitzero"`
	CreatedAt         time.Time        `json:"createdAt"`
	UpdatedAt         time.Time        `json:"updatedAt"`
}

// rulesBody says nothing: that it was written again is the message.
type rulesBody struct {
	V int `json:"v"`
}

// registration is an issuer as it is stored; its Revision is the item's version.
type registration struct{ copse.Issuer }

// decodeIssuer's slices belong to the caller alone.
func decodeIssuer(item storage.Item) (registration, error) {
	var b issuerBody
	if err := decode(item, &b); err != nil {
		return registration{}, err
	}
	return registration{copse.Issuer{
		ID: item.ID, URL: b.URL, Revision: item.Version,
		Tenants: b.Tenants, AllTenants: b.AllTenants, TokenType: b.TokenType,
		Audiences: b.Audiences, ClientIDs: b.ClientIDs, Algorithms: b.Algorithms,
		TenantClaim: b.TenantClaim, FixedTenant: b.FixedTenant,
		PrincipalType: b.PrincipalType, PrincipalIDClaim: b.PrincipalIDClaim, PrincipalIDPrefix: b.PrincipalIDPrefix,
		GroupType: b.GroupType, GroupClaim: b.GroupClaim, EmailDomains: b.EmailDomains, SameSubjects: b.SameSubjects,
		CreatedAt: b.CreatedAt, UpdatedAt: b.UpdatedAt,
	}}, nil
}

// body shares r's slices.
func (r registration) body() *issuerBody {
	return &issuerBody{
		V: bodyVersion, URL: r.URL,
		Tenants: r.Tenants, AllTenants: r.AllTenants, TokenType: r.TokenType,
		Audiences: r.Audiences, ClientIDs: r.ClientIDs, Algorithms: r.Algorithms,
		TenantClaim: r.TenantClaim, FixedTenant: r.FixedTenant,
		PrincipalType: r.PrincipalType, PrincipalIDClaim: r.PrincipalIDClaim, PrincipalIDPrefix: r.PrincipalIDPrefix,
		GroupType: r.GroupType, GroupClaim: r.GroupClaim, EmailDomains: r.EmailDomains, SameSubjects: r.SameSubjects,
		CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt,
	}
}

// without is the registration once it no longer speaks for a tenant.
// r itself stays as it is.
func (r registration) without(id copse.TenantID) *issuerBody {
	b := r.body()
	b.Tenants = slices.DeleteFunc(slices.Clone(b.Tenants), func(t copse.TenantID) bool { return t == id })
	b.UpdatedAt = now()
	return b
}

// encode can only fail for text that is not UTF-8, which is refused before it comes here.
func encode(body any) ([]byte, error) {
	out, err := json.Marshal(body)
	if err != nil {
		return nil, &copse.Error{Kind: copse.Internal, Detail: "a body can't be encoded", Err: err}
	}
	return out, nil
}

// decode reads a stored body. Unknown members are refused: writing the body back would drop them.
// Internal, also for a body of another version: the row can't be used by this copse at all.
func decode(item storage.Item, into any) error {
	err := json.Unmarshal(item.Body, into, json.RejectUnknownMembers(true))
	version := 0
	switch b := into.(type) {
	case *tenantBody:
		version = b.V
	case *issuerBody:
		version = b.V
	}
	if err == nil && version != bodyVersion {
		err = fmt.Errorf("body version %d, this copse knows %d", version, bodyVersion)
	}
	if err != nil {
		return &copse.Error{Kind: copse.Internal, Detail: fmt.Sprintf("stored %s %q can't be read", item.Kind, item.ID), Err: err}
	}
	return nil
}

// now is the time as it is stored and shown: UTC, in microseconds.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// fromStorage is [storage.AsError] for what may not be there.
func fromStorage(err error, resource copse.ResourceType, id string) error {
	if _, ok := errors.AsType[*copse.Error](err); !ok && errors.Is(err, storage.ErrNotFound) {
		return copse.NotFoundError(resource, id)
	}
	return storage.AsError(err, resource, id)
}

// unknowable is fromStorage for reads a decision depends on: what is not "not found" is "not known".
func unknowable(err error, resource copse.ResourceType, id string) error {
	err = fromStorage(err, resource, id)
	if copse.KindOf(err) == copse.NotFound {
		return copse.NotFoundError(resource, id)
	}
	return &copse.Error{Kind: copse.Unavailable, Resource: resource, ID: id, Detail: "the directory can't be read now", Err: err}
}
