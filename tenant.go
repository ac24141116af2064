package copse

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"
)

// TenantID names a customer of the SaaS. The operator chooses it; copse compares it as bytes: no
// case folding, no normalisation, ever.
type TenantID string

// Validate refuses what could be read two ways by a URL, a log or a person: a tenant id is 1 to 128
// bytes of ASCII letters, digits and . _ : @ -, starting with a letter or digit.
func (t TenantID) Validate() error {
	if len(t) < 1 || len(t) > 128 {
		return Errorf(Invalid, "a tenant id has 1 to 128 characters, this one has %d", len(t))
	}
	for i := range len(t) {
		c := t[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		punct := c == '.' || c == '_' || c == ':' || c == '@' || c == '-'
		if !alnum && (!punct || i == 0) {
			return Errorf(Invalid, "tenant id %q: character %d is not allowed; use letters, digits and . _ : @ -, starting with a letter or digit", string(t), i+1)
		}
	}
	return nil
}

// Incarnation is 128 random bits given to a policy store when it is made. It is compared for
// equality only.
type Incarnation [16]byte

// NewIncarnation draws a fresh incarnation. It does not fail: crypto/rand ends the process instead.
func NewIncarnation() Incarnation {
	var i Incarnation
	_, _ = rand.Read(i[:])
	return i
}

// IsZero reports whether i was never drawn; no policy store has the zero incarnation.
func (i Incarnation) IsZero() bool { return i == Incarnation{} }

func (i Incarnation) String() string { return hex.EncodeToString(i[:]) }

// MarshalText writes 32 hexadecimal digits.
func (i Incarnation) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (i *Incarnation) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(i)) {
		return fmt.Errorf("an incarnation is %d hexadecimal digits", hex.EncodedLen(len(i)))
	}
	_, err := hex.Decode(i[:], text)
	return err
}

// TenantState says whether a tenant's decisions are served.
type TenantState string

// A tenant that is neither is unknown: offboarding removes the directory row first.
const (
	TenantActive    TenantState = "ACTIVE"
	TenantSuspended TenantState = "SUSPENDED"
)

// DirectoryEntry is one row of the directory: where a tenant's decisions are made.
type DirectoryEntry struct {
	Tenant        TenantID
	State         TenantState
	PolicyStoreID PolicyStoreID
	Incarnation   Incarnation
	// CreatedAt is when the tenant was made: what was issued to one of the same name before is not for
	// this one.
	CreatedAt time.Time
}

// Directory finds a tenant's policy store.
type Directory interface {
	// Lookup returns the tenant's entry, whatever its state: the caller must refuse all but
	// TenantActive. An unknown tenant is NotFound; a directory that can't know is Unavailable.
	Lookup(ctx context.Context, tenant TenantID) (DirectoryEntry, error)
}
