package member

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// Kinds of the directory's rows.
const (
	kindMember     storage.Kind = "member"        // id = Who.id: a person or machine with all tenants
	kindMembership storage.Kind = "membership"    // id = tenant/Who.id: that there is one, or an invitation
	kindInvite     storage.Kind = "member-invite" // id = Who.id/tenant
	kindCount      storage.Kind = "members-of"    // id = tenant
	kindLeaving    storage.Kind = "members-leave" // id = tenant/incarnation: rows of a deleted tenant to erase
	kindFormer     storage.Kind = "member-former" // id = tenant/Who.id: history of a membership that ended, to erase
)

// memberBody is one row, so that what somebody's next token says is one read. It has issuer, subject and client
// because the id, a hash, does not tell them.
type memberBody struct {
	V       int    `json:"v"`
	Issuer  string `json:"issuer"`
	Subject string `json:"subject,omitzero"`
	Client  string `json:"client,omitzero"`
	// Tenants in the order they were joined; the first is the active one unless Active says otherwise.
	Tenants []tenantOf `json:"tenants"`
	// Active tenants by client id.
	Active map[string]copse.TenantID `json:"active,omitempty"`
}

// tenantOf is one membership. The incarnation is the tenant's when it was made: of another one it is nothing.
type tenantOf struct {
	Tenant      copse.TenantID    `json:"tenant"`
	Incarnation copse.Incarnation `json:"incarnation"`
	Roles       []string          `json:"roles,omitempty"`
	Attributes  map[string]string `json:"attributes,omitempty"`
	Since       time.Time         `json:"since"`
}

// who is the member's name, as Put was given it.
func (b *memberBody) who() Who { return Who{Issuer: b.Issuer, Subject: b.Subject, ClientID: b.Client} }

// in finds a tenant's membership; nil when there is none of that life.
func (b *memberBody) in(tenant copse.TenantID, incarnation copse.Incarnation) *tenantOf {
	for i := range b.Tenants {
		if b.Tenants[i].Tenant == tenant && b.Tenants[i].Incarnation == incarnation {
			return &b.Tenants[i]
		}
	}
	return nil
}

// leave removes every life of a tenant, and what made it active.
// Whatever client had one of them for its active tenant is back to the order in which the rest were joined.
func (b *memberBody) leave(gone func(*tenantOf) bool) {
	b.Tenants = slices.DeleteFunc(b.Tenants, func(t tenantOf) bool { return gone(&t) })
	for client, active := range b.Active {
		if !slices.ContainsFunc(b.Tenants, func(t tenantOf) bool { return t.Tenant == active }) {
			delete(b.Active, client)
		}
	}
}

// membershipBody only says that there is a row for this member or invitation, and of which life of the tenant:
// roles and attributes are in one place.
type membershipBody struct {
	V           int               `json:"v"`
	Incarnation copse.Incarnation `json:"incarnation"`
	Invite      bool              `json:"invite,omitzero"`
}

// inviteBody is a membership that waits for somebody who proves to have the address.
type inviteBody struct {
	V     int    `json:"v"`
	Email string `json:"email"`
	// Own: made by the tenant itself, and then only redeemed at issuers that speak for no other tenant.
	Own bool `json:"own,omitzero"`
	tenantOf
}

// formerBody names the rows whose history is to be erased.
type formerBody struct {
	V    int         `json:"v"`
	Keys []formerKey `json:"keys"`
}

// formerKey is a storage.Key in JSON.
type formerKey struct {
	Kind storage.Kind `json:"kind"`
	ID   string       `json:"id"`
}

// countBody is how many rows a tenant has, members and invitations. Of another life of the tenant it is 0.
type countBody struct {
	V           int               `json:"v"`
	Incarnation copse.Incarnation `json:"incarnation"`
	Rows        int               `json:"rows"`
}

const bodyVersion = 1

// Tenant ids have no slash, and neither have hashes: each key has one reading, and a tenant's rows one prefix.
func memberKey(id string) storage.Key { return storage.Key{Kind: kindMember, ID: id} }
func membershipKey(tenant copse.TenantID, id string) storage.Key {
	return storage.Key{Kind: kindMembership, ID: string(tenant) + "/" + id}
}
func inviteKey(id string, tenant copse.TenantID) storage.Key {
	return storage.Key{Kind: kindInvite, ID: id + "/" + string(tenant)}
}
func countKey(tenant copse.TenantID) storage.Key {
	return storage.Key{Kind: kindCount, ID: string(tenant)}
}

// idBytes is the length of every Who.id.
const idBytes = 43

// read reads a row into body; false when it is absent. The version is what a write then expects.
func (s *Service) read(ctx context.Context, k storage.Key, body any) (storage.Expectation, bool, error) {
	item, err := s.backend.Get(ctx, storage.Directory(), k)
	if errors.Is(err, storage.ErrNotFound) {
		return storage.Absent(), false, nil
	}
	if err != nil {
		return storage.Expectation{}, false, unavailable(err)
	}
	return storage.Version(item.Version), true, decode(item, body)
}

// decode reads a stored body. Unknown members are refused, since writing it back would drop them; so is another
// version. Internal: it is not the caller's to put right.
func decode(item storage.Item, into any) error {
	err := json.Unmarshal(item.Body, into, json.RejectUnknownMembers(true))
	var version int
	switch b := into.(type) {
	case *memberBody:
		version = b.V
	case *membershipBody:
		version = b.V
	case *inviteBody:
		version = b.V
	case *countBody:
		version = b.V
	case *formerBody:
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

// put makes a write of a body.
// It is deterministic, so that equal bodies are equal bytes.
func put(k storage.Key, body any, expect storage.Expectation) (storage.Write, error) {
	text, err := json.Marshal(body, json.Deterministic(true))
	if err != nil {
		return storage.Write{}, &copse.Error{Kind: copse.Internal, Detail: "a body can't be encoded", Err: err}
	}
	return storage.Write{Key: k, Body: text, Expect: expect}, nil
}

// unavailable is for reads and writes whose failure is not the caller's.
// An error of copse's stays as it is; nil must not be given to it.
func unavailable(err error) error {
	if _, ok := errors.AsType[*copse.Error](err); ok {
		return err
	}
	if errors.Is(err, storage.ErrConflict) {
		return &copse.Error{Kind: copse.Conflict, Resource: copse.ResourceMember, Detail: "changed by others meanwhile; try again", Err: err}
	}
	return &copse.Error{Kind: copse.Unavailable, Detail: "members can't be read or written now; try again", Err: err}
}
