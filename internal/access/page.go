package access

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"strings"

	"github.com/copse-authz/copse"
)

// maxPageToken is AVP's limit for a nextToken.
const maxPageToken = 8000

// newSealer makes an AEAD that prepends a random nonce. AES-GCM bears 2^32 of those under one key,
// far more than access keys or pages will ever be sealed.
func newSealer(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// seal encrypts text and binds it to a place: it opens there only.
func seal(a cipher.AEAD, text, place string) []byte {
	return a.Seal(nil, nil, []byte(text), []byte(place)) //nolint:gosec // no fixed nonce: this AEAD draws its own
}

// SealPage makes an opaque, tamper-evident paging token for a position, bound to the call it belongs
// to: a token of one call is nothing to another. call should name the operation, the caller and
// every parameter that shapes the list. The token hides the position, which may name something that
// the caller was not shown, and consists of letters, digits, - and _.
func (s *Service) SealPage(call, position string) string {
	return base64.RawURLEncoding.EncodeToString(seal(s.pages, position, call))
}

// OpenPage opens what SealPage made for the same call. An empty token is the start.
func (s *Service) OpenPage(call, token string) (position string, err error) {
	if token == "" {
		return "", nil
	}
	// The decoder skips line breaks; a token with some is not the one that was handed out.
	if len(token) <= maxPageToken && !strings.ContainsAny(token, "\r\n") {
		raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
		if err == nil {
			if opened, err := s.pages.Open(nil, nil, raw, []byte(call)); err == nil {
				return string(opened), nil
			}
		}
	}
	return "", &copse.Error{Kind: copse.Invalid, Detail: "nextToken is not one of this call's",
		Fields: []copse.Field{{Path: "nextToken", Message: "send the value exactly as the same call returned it, with the same parameters"}}}
}
