package token

import (
	"encoding/base64"
	"math"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
)

// maxKeyID bounds what may be remembered as an unknown key id.
const maxKeyID = 256

// object is a JSON object with its values still raw. Its names are unique at every depth: the parser
// refuses duplicates, which two readers could resolve differently.
type object map[string]jsontext.Value

// unverified is a token taken apart. Nothing it says may be believed yet.
type unverified struct {
	signed    string // header and payload as they were signed
	signature []byte
	alg       string
	kid       string
	hasKid    bool
	accessTyp bool // the header's typ says access token
	claims    object
	issuer    string
}

// parse takes a user's token apart.
func parse(token string) (*unverified, error) { return parseAs(token, (*unverified).userType) }

// parseAs takes a signed JWT apart whose header's typ readType accepts.
// It verifies nothing. What it refuses is Unauthenticated, but for readType's own errors, which it returns.
func parseAs(token string, readType func(u *unverified, header object) error) (*unverified, error) {
	if len(token) > copse.MaxTokenBytes {
		return nil, refuse(ReasonTooLarge, "the token has %d bytes; at most %d are read", len(token), copse.MaxTokenBytes)
	}
	// Three parts are a signed token; an encrypted one has five, and nothing here decrypts.
	if strings.Count(token, ".") != 2 {
		return nil, refuse(ReasonMalformed, "the token is not a signed JWT: it must have three parts joined by dots")
	}
	// What was signed is header and payload as they came, not as they decode.
	last := strings.LastIndexByte(token, '.')
	u := &unverified{signed: token[:last]}
	head, payload, _ := strings.Cut(u.signed, ".")
	var err error
	if u.signature, err = decodePart("signature", token[last+1:]); err != nil {
		return nil, err
	}
	header, err := parseObject("header", head)
	if err != nil {
		return nil, err
	}
	if err := u.readHeader(header); err != nil {
		return nil, err
	}
	if err := readType(u, header); err != nil {
		return nil, err
	}
	if u.claims, err = parseObject("payload", payload); err != nil {
		return nil, err
	}
	var ok bool
	if u.issuer, ok = u.claims.text("iss"); !ok || u.issuer == "" {
		return nil, refuse(ReasonIssuer, "iss: the token names no issuer")
	}
	return u, nil
}

// decodePart accepts exactly one spelling: no padding, no stray bits, and no line breaks, which the
// decoder would skip.
func decodePart(what, text string) ([]byte, error) {
	if !strings.ContainsAny(text, "\r\n") {
		if raw, err := base64.RawURLEncoding.Strict().DecodeString(text); err == nil && len(raw) > 0 {
			return raw, nil
		}
	}
	return nil, refuse(ReasonMalformed, "the token's %s is not base64url", what)
}

// parseObject decodes a part. Members that are there twice, at any depth, are refused by the JSON library.
func parseObject(what, text string) (object, error) {
	raw, err := decodePart(what, text)
	if err != nil {
		return nil, err
	}
	var o object
	if err := json.Unmarshal(raw, &o); err != nil || o == nil {
		return nil, refuse(ReasonMalformed, "the token's %s is not a JSON object, or has a member twice", what)
	}
	return o, nil
}

// text returns a string member; ok is false when it is absent or not a string.
func (o object) text(name string) (string, bool) { return textOf(o[name]) }

// textOf is false for what is absent, too.
func textOf(v jsontext.Value) (string, bool) {
	if v.Kind() != '"' {
		return "", false
	}
	var s string
	err := json.Unmarshal(v, &s)
	return s, err == nil
}

// textsOf reads an array of strings.
func textsOf(v jsontext.Value) ([]string, bool) {
	if v.Kind() != '[' {
		return nil, false
	}
	var list []string
	var raw []jsontext.Value
	if err := json.Unmarshal(v, &raw); err != nil {
		return nil, false
	}
	for _, item := range raw { // a null would read as an empty string
		s, ok := textOf(item)
		if !ok {
			return nil, false
		}
		list = append(list, s)
	}
	return list, true
}

// objectOf returns nil for what is no object.
func objectOf(v jsontext.Value) object {
	var o object
	if v.Kind() != '{' || json.Unmarshal(v, &o) != nil {
		return nil
	}
	return o
}

// has is true for a null as well: that a claim is there at all can be what counts.
func (o object) has(name string) bool {
	_, ok := o[name]
	return ok
}

// latest is the end of the year 9999: later times are no times.
const latest = 253402300799

// instant reads a NumericDate. present is false when there is none; ok is false when it is no time.
// Parts of a second count (RFC 7519, section 2).
func (o object) instant(name string) (at time.Time, present, ok bool) {
	v, present := o[name]
	if !present {
		return time.Time{}, false, true
	}
	var seconds float64
	if v.Kind() != '0' || json.Unmarshal(v, &seconds) != nil || seconds < 0 || seconds > latest {
		return time.Time{}, true, false
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), true, true
}

// readHeader takes what it needs and refuses what would let the token direct its own verification.
// Whether the algorithm is the issuer's is for later; here it is one that can be verified at all.
func (u *unverified) readHeader(h object) error {
	// crit is extensions that must be understood (RFC 7515, section 4.1.11), and none is; jku, x5u and jwk
	// bring keys along; zip, b64 and enc change what the signature is over.
	for _, name := range []string{"crit", "jku", "x5u", "jwk", "zip", "b64", "enc"} {
		if h.has(name) {
			return refuse(ReasonHeader, "the token's header has %q, which is not supported: keys and rules come from the issuer's registration", name)
		}
	}
	if h.has("cty") {
		return refuse(ReasonHeader, "the token's header has \"cty\": nested tokens are not supported")
	}
	var ok bool
	if u.alg, ok = h.text("alg"); !ok || methods[u.alg] == nil {
		return refuse(ReasonAlgorithm, "the token's algorithm is not supported: use one of %s", strings.Join(Algorithms(), ", "))
	}
	// Absent is allowed, for issuers with a single key; present it must be usable.
	if h.has("kid") {
		if u.kid, u.hasKid = h.text("kid"); !u.hasKid || u.kid == "" || len(u.kid) > maxKeyID {
			return refuse(ReasonMalformed, "the token's key id is not a string of 1 to %d bytes", maxKeyID)
		}
	}
	return nil
}

// userType refuses what says that it is no token of a user: a signed tenant context, among others.
func (u *unverified) userType(h object) error {
	if h.has("typ") {
		typ, _ := h.text("typ")
		// at+jwt is an access token's (RFC 9068, section 2.1). Media types are compared without case.
		switch strings.ToLower(typ) {
		case "jwt":
		case "at+jwt", "application/at+jwt":
			u.accessTyp = true
		default:
			return refuse(ReasonHeader, "the token's type is not JWT or at+jwt")
		}
	}
	return nil
}
