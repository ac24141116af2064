// Package member knows who belongs to which tenant, for the token hook: a member is a person (issuer,
// subject) or a machine (issuer, client id), with roles and attributes in each tenant.
//
// What is written here becomes the tenant claim of somebody's next token, so every row carries the
// incarnation of the tenant it was made for: a membership of a tenant that was deleted is nothing to one
// that was made again under its name. A change is in force before it is acknowledged.
//
// Rows are in the directory. A member has one row with all tenants; beside it each tenant has a row for each
// of its members, so that it can be listed, counted and erased without walking over everybody's.
package member

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/copse-authz/copse"
)

// Who names a member: exactly one of a subject or a client of an issuer, or an e-mail address, which is an
// invitation to whoever proves to have it.
type Who struct {
	Issuer   string
	Subject  string
	ClientID string
	Email    string
}

// Membership is what a tenant says of a member.
// In Put nil roles and attributes are none, and Since is not read.
type Membership struct {
	Who
	Tenant     copse.TenantID
	Roles      []string
	Attributes map[string]string // claims by name
	Since      time.Time
}

// Limits of what is kept.
const (
	MaxBatch         = 500     // memberships in one call
	MaxTenants       = 100     // of one member
	MaxOfTenant      = 200_000 // members and invitations of one tenant
	maxClients       = 100     // of one member, with an active tenant of their own
	maxRoles         = 100
	maxAttributes    = 50
	maxNameBytes     = 128
	maxValueBytes    = 1024
	maxIdentityBytes = 1024
)

// kind of a Who, which is part of its id: a client is never taken for a subject of the same name.
func (w *Who) kind() string {
	switch {
	case w.Email != "":
		return "invite"
	case w.ClientID != "":
		return "client"
	}
	return "member"
}

// id is a hash, so that whatever an issuer calls its subjects makes a key of one form.
// An address has one id whoever its issuer is: an invitation is made before it is known who redeems it.
func (w *Who) id() string {
	if w.Email != "" {
		return hashed("invite", canonicalEmail(w.Email))
	}
	return hashed(w.kind(), w.Issuer, w.Subject+w.ClientID)
}

// hashed is SHA-256 of all parts with their lengths, so that no two lists of parts read alike. Rows are
// named by it, in idBytes characters: it can't be changed.
func hashed(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(p))))
		h.Write([]byte(p))
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// canonicalEmail folds the case of ASCII letters: providers differ in what they make of an address that a
// person typed, and no provider gives two people addresses that differ in case alone.
func canonicalEmail(address string) string { return lowerASCII(address) }

// lowerASCII leaves letters beyond ASCII alone: what folds to an ASCII letter there is another letter.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// validate names what is wrong, with the member it is wrong in.
// Invalid, with all that is wrong. Roles and attributes become claims, so they are held to what a claim can be.
func (m *Membership) validate() error {
	var fields []copse.Field
	bad := func(path, format string, args ...any) {
		fields = append(fields, copse.Field{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	if err := m.Tenant.Validate(); err != nil {
		bad("tenant", "%v", err)
	}
	m.validateWho(bad)
	if len(m.Roles) > maxRoles {
		bad("roles", "%d, at most %d", len(m.Roles), maxRoles)
	}
	for i, role := range m.Roles {
		switch {
		case !plain(role, maxNameBytes):
			bad("roles", "%q is not 1 to %d bytes of text without control characters", role, maxNameBytes)
		case slices.Contains(m.Roles[:i], role):
			bad("roles", "%q is there twice", role)
		}
	}
	if len(m.Attributes) > maxAttributes {
		bad("attributes", "%d, at most %d", len(m.Attributes), maxAttributes)
	}
	for name, value := range m.Attributes {
		if !plain(name, maxNameBytes) || Reserved(name) {
			bad("attributes", "%q can't be a claim of copse's: it is reserved, or not plain text", name)
		}
		if !utf8.ValidString(value) || len(value) > maxValueBytes {
			bad("attributes."+name, "it is not text of at most %d bytes", maxValueBytes)
		}
	}
	if len(fields) > 0 {
		slices.SortStableFunc(fields, func(a, b copse.Field) int { return strings.Compare(a.Path, b.Path) })
		return &copse.Error{Kind: copse.Invalid, Resource: copse.ResourceMember, Detail: "the member is not valid", Fields: fields}
	}
	return nil
}

// It finds out whether somebody is named, in one way, and not whether they exist.
func (w *Who) validateWho(bad func(path, format string, args ...any)) {
	given := 0
	for _, name := range []string{w.Subject, w.ClientID, w.Email} {
		if name != "" {
			given++
		}
	}
	switch {
	case given != 1:
		bad("subject", "give one of subject, clientId and email")
	case w.Email != "":
		local, domain, ok := strings.Cut(w.Email, "@")
		if !ok || local == "" || domain == "" || strings.Contains(domain, "@") || !plain(w.Email, 254) || strings.ContainsAny(w.Email, " ,;<>") {
			bad("email", "%q is not an address", w.Email)
		}
		if w.Issuer != "" {
			bad("issuer", "an invitation has none: any issuer that is registered for the address's domain may redeem it")
		}
	case w.Issuer == "":
		bad("issuer", "whose subject is it?")
	case !plain(w.Subject+w.ClientID, maxIdentityBytes):
		bad("subject", "it is not 1 to %d bytes of text without control characters", maxIdentityBytes)
	}
}

// plain reports whether s is 1 to most bytes of UTF-8 without control characters.
func plain(s string, most int) bool {
	if s == "" || len(s) > most || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f {
			return false
		}
	}
	return true
}

// Reserved reports whether a claim is the provider's own to set: those that JWT and OpenID Connect define
// for protocol and identity, and all that Cognito keeps for itself. None is ever emitted, whatever a member's
// attributes say.
func Reserved(claim string) bool {
	if strings.HasPrefix(claim, "cognito:") || strings.HasPrefix(claim, "dev:") {
		return true
	}
	return slices.Contains([]string{
		"sub", "iss", "exp", "iat", "jti", "nbf", "aud", "azp", "nonce", "typ", "origin_jti", "token_use", "auth_time", "acr", "amr",
		"at_hash", "c_hash", "s_hash", "sid", "client_id", "event_id", "device_key", "version", "username", "identities", "scope", "scp", "cnf", "act",
		"email", "email_verified", "phone_number", "phone_number_verified", "updated_at", "address",
		"cognito", "dev", "custom",
	}, claim)
}
