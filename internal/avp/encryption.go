package avp

import (
	"strings"

	"github.com/copse-authz/copse/internal/policystore"
)

// encryptionSettings are taken and shown, and nothing is encrypted with the key: docs/avp.md says so.
type encryptionSettings struct {
	Default *empty `json:"default"`
	KMS     *struct {
		Key               string            `json:"key"`
		EncryptionContext map[string]string `json:"encryptionContext"`
	} `json:"kmsEncryptionSettings"`
}

// maxEncryptionContext is the limit AWS KMS has, in bytes.
const maxEncryptionContext = 8192

// validate refuses a default and a key together, and neither: a caller who meant to encrypt must not
// get less than that without a word.
func (e *encryptionSettings) validate(f *findings) {
	f.oneOf("encryptionSettings", e.Default != nil, e.KMS != nil)
	if e.KMS == nil {
		return
	}
	const path = "encryptionSettings.kmsEncryptionSettings"
	if f.required(path+".key", e.KMS.Key != "") {
		f.text(path+".key", e.KMS.Key, 1, 2048)
		if !onlyIDChars(strings.ReplaceAll(e.KMS.Key, ":", "")) {
			f.add(path+".key", "Member must satisfy regular expression pattern: [a-zA-Z0-9:/_-]+")
		}
	}
	// The bound is on all of the context, as KMS has it, not on one entry.
	size := 0
	for name, value := range e.KMS.EncryptionContext {
		size += len(name) + len(value)
		if name == "" || value == "" {
			f.add(path+".encryptionContext."+name, "Member must have a key and a value of at least one character")
		}
	}
	if size > maxEncryptionContext {
		f.add(path+".encryptionContext", "Member must have at most %d bytes, has %d", maxEncryptionContext, size)
	}
}

// encryption names the key by its ARN, as AVP does, however it was given. Where an alias leads is for a
// KMS to say; it is shown as the alias' ARN.
func (h *handler) encryption(e *encryptionSettings) *policystore.Encryption {
	if e == nil || e.KMS == nil {
		return nil
	}
	key := e.KMS.Key
	if !strings.HasPrefix(key, "arn:") {
		if !strings.HasPrefix(key, "alias/") {
			key = "key/" + key
		}
		key = "arn:aws:kms:" + h.region + ":" + h.accountID + ":" + key
	}
	return &policystore.Encryption{Key: key, Context: e.KMS.EncryptionContext}
}

// encryptionState is the output's union; exactly one member is set.
type encryptionState struct {
	Default *empty    `json:"default,omitzero"`
	KMS     *kmsState `json:"kmsEncryptionState,omitzero"`
}

type kmsState struct {
	Key               string            `json:"key"`
	EncryptionContext map[string]string `json:"encryptionContext"`
}

// encryptionStateOf says default for a policy store without a key: the member is always in the answer.
func encryptionStateOf(e *policystore.Encryption) encryptionState {
	if e == nil {
		return encryptionState{Default: &empty{}}
	}
	return encryptionState{KMS: &kmsState{Key: e.Key, EncryptionContext: e.Context}}
}
