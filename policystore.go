package copse

import (
	"crypto/rand"
)

// PolicyStoreID names a policy store. Generated ids have 22 characters and are never used twice.
type PolicyStoreID string

// PolicyID names a policy inside its policy store.
type PolicyID string

// PolicyTemplateID names a policy template inside its policy store. Generated ids are never used twice.
type PolicyTemplateID string

// ValidationMode says whether policies must agree with the schema when they are written.
type ValidationMode string

// AVP's two modes.
const (
	ValidationStrict ValidationMode = "STRICT"
	ValidationOff    ValidationMode = "OFF"
)

// Settings of a policy store that can change an answer. They are versioned like its policies.
type Settings struct {
	Validation ValidationMode `json:"validation"`
	// CheckRequests refuses requests whose types, attributes or context disagree with the schema.
	// On for policy stores made with a tenant, off for those made through the AVP API.
	CheckRequests bool `json:"checkRequests"`
	// ForbidErrorsDeny turns a decision into DENY when a forbid policy fails to evaluate. Cedar
	// skips such a policy, and so does AVP: off by default.
	ForbidErrorsDeny bool `json:"forbidErrorsDeny"`
}

// PolicyRef points at a policy: by id, and by the name it was given, if any.
type PolicyRef struct {
	ID   PolicyID
	Name string
}

const idAlphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

// NewID draws 22 base-58 characters (129 bits), the form of every generated id.
func NewID() string {
	out := make([]byte, 0, 22)
	var buf [32]byte
	for {
		_, _ = rand.Read(buf[:])
		for _, b := range buf {
			// 232 = 4*58: rejecting the rest keeps every character equally likely.
			if b >= 232 {
				continue
			}
			if out = append(out, idAlphabet[b%58]); len(out) == cap(out) {
				return string(out)
			}
		}
	}
}

// ValidateName checks the name of a policy or policy template: 1 to 145 characters of letters, digits, - / and _. AVP shows
// it with the prefix "name/", which makes AVP's 150.
func ValidateName(name string) error {
	if len(name) < 1 || len(name) > 145 {
		return Errorf(Invalid, "a policy name has 1 to 145 characters, this one has %d", len(name))
	}
	return validateIDChars("policy name", name)
}

// Validate checks the form of a policy store id that a caller sent.
func (id PolicyStoreID) Validate() error { return validateID("policy store id", string(id)) }

// Validate checks the form of a policy id that a caller sent.
func (id PolicyID) Validate() error { return validateID("policy id", string(id)) }

// Validate checks the form of a policy template id that a caller sent.
func (id PolicyTemplateID) Validate() error { return validateID("policy template id", string(id)) }

func validateID(what, id string) error {
	if len(id) < 1 || len(id) > 200 {
		return Errorf(Invalid, "a %s has 1 to 200 characters, this one has %d", what, len(id))
	}
	return validateIDChars(what, id)
}

func validateIDChars(what, id string) error {
	for i := range len(id) {
		c := id[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '/' || c == '_') {
			return Errorf(Invalid, "%s %q: character %d is not allowed; use letters, digits, - / and _", what, id, i+1)
		}
	}
	return nil
}
