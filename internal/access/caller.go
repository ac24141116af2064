package access

import (
	"strings"

	"github.com/copse-authz/copse"
)

// Verb is what a key may do within what it covers.
type Verb uint8

// Verbs. Admin is for tenants, issuers and access keys; the others are for policy stores.
const (
	Read Verb = 1 << iota
	Write
	Decide
	Admin
)

// Scope is what a key covers: everything, one tenant's policy store, or one policy store. The zero
// Scope covers nothing.
type Scope struct {
	All         bool
	Tenant      copse.TenantID
	PolicyStore copse.PolicyStoreID
}

// Caller is a verified credential: required by every method that reads or changes anything, so that
// a check can't be forgotten in silence. The zero Caller may do nothing.
type Caller struct {
	KeyID string // for logs and audit rows
	Scope Scope
	Verbs Verb
	// RequestID is of the request that is being answered, for audit rows: the transport sets it. Of letters,
	// digits and -, or empty.
	RequestID string
}

// Actor is who does something and in which request, as audit rows have it. Neither part has a space.
func (c Caller) Actor() string { return FormatActor(c.KeyID, c.RequestID) }

// FormatActor is the actor of an audit row.
func FormatActor(keyID, requestID string) string {
	if requestID == "" {
		return keyID
	}
	return keyID + " " + requestID
}

// ParseActor takes apart what FormatActor made.
// An actor without a request has an empty requestID.
func ParseActor(actor string) (keyID, requestID string) {
	keyID, requestID, _ = strings.Cut(actor, " ")
	return keyID, requestID
}

// System is copse itself: background work that no request asked for.
func System() Caller {
	return Caller{KeyID: "system", Scope: Scope{All: true}, Verbs: Read | Write | Decide | Admin}
}

// May reports whether the caller may use a verb on a policy store, which belongs to tenant (empty:
// to the operator).
func (c Caller) May(v Verb, id copse.PolicyStoreID, tenant copse.TenantID) bool {
	if c.Verbs&v != v {
		return false
	}
	switch {
	case c.Scope.All:
		return true
	case c.Scope.PolicyStore != "":
		return c.Scope.PolicyStore == id
	case c.Scope.Tenant != "":
		return c.Scope.Tenant == tenant
	}
	return false
}

// MayForTenant reports whether the caller may use a verb on what is a tenant's and is in no policy store. A
// key of a policy store may not, whosever that is.
func (c Caller) MayForTenant(v Verb, tenant copse.TenantID) bool {
	return c.Verbs&v == v && (c.Scope.All || c.Scope.Tenant != "" && c.Scope.Tenant == tenant)
}

// MayEverywhere reports whether the caller may use a verb without naming a policy store: creating and
// listing them, tenants, issuers, keys.
func (c Caller) MayEverywhere(v Verb) bool { return c.Scope.All && c.Verbs&v == v }
