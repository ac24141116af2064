package access

import (
	"encoding/hex"
	"slices"
	"strings"
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	service    = "verifiedpermissions" // on both APIs: one key, one kind of signature
	terminator = "aws4_request"

	// Bounds on what a stranger can have parsed, in bytes and in names; AWS's clients stay far below them.
	maxAuthorization = 8 << 10
	maxSignedHeaders = 100
	maxRegion        = 64
)

// authorization is a parsed Authorization header. Nothing in it is verified yet.
// The region is whatever was signed for; whether it is the right one is readSigned's question.
type authorization struct {
	keyID, date, region string
	signedHeaders       []string // lower case, ascending, each once
	signedHeadersText   string
	signature           [32]byte
}

// parseAuthorization reads "AWS4-HMAC-SHA256 Credential=.., SignedHeaders=.., Signature=..", the
// three in any order, each exactly once. It is strict: what it accepts has one meaning.
func parseAuthorization(header string) (authorization, error) {
	var a authorization
	if len(header) > maxAuthorization {
		return a, refuse(IncompleteSignature, "Authorization: longer than %d bytes", maxAuthorization)
	}
	rest, ok := strings.CutPrefix(header, algorithm+" ")
	if !ok {
		return a, refuse(IncompleteSignature, "Authorization: only %s is supported", algorithm)
	}
	var credential, signature string
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.Trim(part, " "), "=")
		// Not one of the three, or one of them twice: another reader might take the other value.
		var field *string
		switch name {
		case "Credential":
			field = &credential
		case "SignedHeaders":
			field = &a.signedHeadersText
		case "Signature":
			field = &signature
		}
		if field == nil || *field != "" || value == "" {
			return a, refuse(IncompleteSignature, "Authorization: it must consist of Credential, SignedHeaders and Signature, each once")
		}
		*field = value
	}
	if credential == "" || a.signedHeadersText == "" || signature == "" {
		return a, refuse(IncompleteSignature, "Authorization: Credential, SignedHeaders and Signature are all needed")
	}
	if len(signature) != hex.EncodedLen(len(a.signature)) || strings.ToLower(signature) != signature {
		return a, refuse(IncompleteSignature, "Authorization: Signature is not 64 lower-case hexadecimal digits")
	}
	if _, err := hex.Decode(a.signature[:], []byte(signature)); err != nil {
		return a, refuse(IncompleteSignature, "Authorization: Signature is not 64 lower-case hexadecimal digits")
	}
	if err := a.parseCredential(credential); err != nil {
		return a, err
	}
	return a, a.parseSignedHeaders()
}

// parseCredential reads <key id>/<date>/<region>/<service>/<terminator>. The key id is set also beside an error,
// so that a failed use is counted under it.
func (a *authorization) parseCredential(credential string) error {
	parts := strings.Split(credential, "/")
	if len(parts) != 5 {
		return refuse(IncompleteSignature, "Authorization: Credential must be <key id>/<date>/<region>/%s/%s", service, terminator)
	}
	a.keyID, a.date, a.region = parts[0], parts[1], parts[2]
	switch {
	case !validKeyID(a.keyID):
		// A well-formed signature by a key that can't exist here: AWS's words for that are these.
		return refuse(UnrecognizedClient, "there is no such access key")
	case !isDigits(a.date, 8):
		return refuse(IncompleteSignature, "Authorization: the date in Credential is not YYYYMMDD")
	case !validRegion(a.region):
		return refuse(IncompleteSignature, "Authorization: the region in Credential is not lower-case letters, digits and -")
	case parts[3] != service:
		return refuse(InvalidSignature, "Authorization: sign for the service %s", service)
	case parts[4] != terminator:
		return refuse(IncompleteSignature, "Authorization: Credential must end in %s", terminator)
	}
	return nil
}

// parseSignedHeaders insists on the order that the canonical request has them in: it is hashed as it came.
func (a *authorization) parseSignedHeaders() error {
	a.signedHeaders = strings.Split(a.signedHeadersText, ";")
	if len(a.signedHeaders) > maxSignedHeaders {
		return refuse(IncompleteSignature, "Authorization: more than %d signed headers", maxSignedHeaders)
	}
	for i, name := range a.signedHeaders {
		if !validHeaderName(name) {
			return refuse(IncompleteSignature, "Authorization: SignedHeaders must be lower-case header names joined by ;")
		}
		if i > 0 && a.signedHeaders[i-1] >= name {
			return refuse(IncompleteSignature, "Authorization: SignedHeaders must be in ascending order, each once")
		}
	}
	return nil
}

// signs reports whether a header, in lower case, is among the signed ones.
func (a *authorization) signs(header string) bool {
	_, found := slices.BinarySearch(a.signedHeaders, header)
	return found
}

// isDigits reports whether s is n decimal digits.
func isDigits(s string, n int) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return len(s) == n
}

func isLowerAlnum(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

// validRegion keeps separators of the credential and of lines out of the text that is signed.
func validRegion(region string) bool {
	for i := range len(region) {
		c := region[i]
		if !isLowerAlnum(c) && c != '-' {
			return false
		}
	}
	return region != "" && len(region) <= maxRegion
}

// validHeaderName admits the characters of HTTP tokens, but no capitals.
func validHeaderName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if !isLowerAlnum(c) && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return name != ""
}
