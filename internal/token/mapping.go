package token

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
)

const (
	// maxGroups leaves room for one more parent within copse.MaxParents.
	maxGroups = copse.MaxParents - 1
	// maxClaimDepth bounds how deep a claim may nest, and so the recursion over it.
	maxClaimDepth = 16
)

// principal makes the entity that the token is about: "prefix|subject", never text that is parsed.
// Nothing but a string that is not empty is one: a number could have two spellings.
func (u *unverified) principal(r *rules) (types.EntityUID, error) {
	claim := r.principalIDClaim
	if claim == "" {
		claim = "sub"
	}
	value, _, _ := u.claims.at(claim) // nothing there is no text either
	subject, ok := textOf(value)
	if !ok || subject == "" {
		return types.EntityUID{}, refuse(ReasonPrincipal, "%s: the token has no principal id there, as a string", claim)
	}
	id := prefixed(r.prefix, subject)
	if len(id) > copse.MaxEntityIDBytes {
		return types.EntityUID{}, refuse(ReasonPrincipal, "%s: the principal id would have %d bytes, more than %d", claim, len(id), copse.MaxEntityIDBytes)
	}
	return types.NewEntityUID(types.EntityType(r.principalType), types.String(id)), nil
}

// prefixed is an entity's id; without a prefix it is what the token says.
func prefixed(prefix, id string) string {
	if prefix == "" {
		return id
	}
	return prefix + "|" + id
}

// groups reads the group claim: a string, several separated by spaces, or a list of strings. Anything
// else in its place is refused, since nobody in no group is whom a forbid on groups lets through.
// Sorted, each once. Without a mapping, or without the claim, there are none.
func (u *unverified) groups(r *rules) ([]types.EntityUID, error) {
	if !r.mapsGroups() {
		return nil, nil
	}
	value, present, ok := u.claims.at(r.groupClaim)
	switch {
	case !ok:
		return nil, refuse(ReasonGroups, "%s: the way to the groups leads through what is no object", r.groupClaim)
	case !present:
		return nil, nil
	}
	names, ok := textsOf(value)
	// Several providers write lists as one string, as scope is written.
	if text, isText := textOf(value); isText {
		names, ok = strings.Fields(text), true
	}
	if !ok || slices.Contains(names, "") {
		return nil, refuse(ReasonGroups, "%s: groups must be a string or a list of strings, none of them empty", r.groupClaim)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	// Refused and not cut: which groups would be left out is nobody's to choose.
	if len(names) > maxGroups {
		return nil, refuse(ReasonGroups, "%s: the token has %d groups, more than %d", r.groupClaim, len(names), maxGroups)
	}
	groups := make([]types.EntityUID, len(names))
	for i, name := range names {
		id := prefixed(r.prefix, name)
		if len(id) > copse.MaxEntityIDBytes {
			return nil, refuse(ReasonGroups, "%s: a group id would have %d bytes, more than %d", r.groupClaim, len(id), copse.MaxEntityIDBytes)
		}
		groups[i] = types.NewEntityUID(types.EntityType(r.groupType), types.String(id))
	}
	return groups, nil
}

// mapsGroups reports whether the claims of groups become entities; the claim then is no attribute any more.
func (r *rules) mapsGroups() bool { return r.groupType != "" && r.groupClaim != "" }

// mapClaims fills in what the token says about its principal. ID tokens describe the principal,
// access tokens the request, as in AVP.
// Unauthenticated for reserved names, no principal id, groups of another shape, and claims that nest too deep.
func (u *unverified) mapClaims(r *rules, v *Verified) error {
	// AVP fails on these: its Cognito mapping uses the names for records of its own.
	for _, name := range []string{"cognito", "dev", "custom"} {
		if u.claims.has(name) {
			return refuse(ReasonClaim, "%s: a claim of this name is reserved", name)
		}
	}
	var err error
	if v.Principal, err = u.principal(r); err != nil {
		return err
	}
	if v.groups, err = u.groups(r); err != nil {
		return err
	}
	claims, err := u.claimsRecord(r)
	if err != nil {
		return err
	}
	v.attributes = claims
	// The principal is there with its groups and no attributes.
	if r.tokenType == copse.TokenAccess {
		v.attributes = []byte("{}")
		v.Context = copse.Data{Format: copse.FormatCedarJSON, Bytes: slices.Concat([]byte(`{"token":`), claims, []byte("}"))}
	}
	v.Entities = copse.Data{Format: copse.FormatCedarJSON, Bytes: principalJSON(v.Principal, v.attributes, v.groups)}
	// A caller who could define entities of these types could give the principal attributes, or groups parents.
	v.ReservedTypes = []types.EntityType{types.EntityType(r.principalType)}
	if r.mapsGroups() && r.groupType != r.principalType {
		v.ReservedTypes = append(v.ReservedTypes, types.EntityType(r.groupType))
	}
	return nil
}

// principalJSON writes the Cedar JSON of a list with the one entity.
// attributes is a Cedar JSON record. The slices are not kept.
func principalJSON(uid types.EntityUID, attributes []byte, parents []types.EntityUID) []byte {
	b := append([]byte(nil), `[{"uid":`...)
	b = appendUID(b, uid)
	b = append(b, `,"attrs":`...)
	b = append(b, attributes...)
	b = append(b, `,"parents":[`...)
	for i, parent := range parents {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendUID(b, parent)
	}
	return append(b, `]}]`...)
}

// appendUID writes an entity's identifier, in the form without __entity.
func appendUID(b []byte, uid types.EntityUID) []byte {
	b = append(b, `{"type":`...)
	b = appendString(b, string(uid.Type))
	b = append(b, `,"id":`...)
	b = appendString(b, string(uid.ID))
	return append(b, '}')
}

// appendString quotes s. It can't fail: everything here came out of a JSON parser that refuses
// invalid UTF-8, or out of a registration.
func appendString(b []byte, s string) []byte {
	quoted, err := jsontext.AppendQuote(b, s)
	if err != nil {
		quoted, _ = jsontext.AppendQuote(b, strings.ToValidUTF8(s, "\uFFFD"))
	}
	return quoted
}

// claimsRecord writes all claims but the groups as one Cedar record, in order of their names.
//
// Types map one to one: strings, booleans, integers that fit in 64 bits, lists to sets, objects to
// records. What Cedar has no type for is left out: null, and numbers that are not such integers. An
// object with a member whose name starts with two underscores is left out too: Cedar's JSON spells
// entity references and extension values that way, and a claim must not become either.
//
// Where the rules nest, what a Cognito ID token calls "custom:name" is there twice, as in AVP: under that
// name, and as the member "name" of a record "custom".
func (u *unverified) claimsRecord(r *rules) ([]byte, error) {
	var groups []string
	if r.mapsGroups() {
		groups = claimPath(r.groupClaim)
	}
	names := slices.Sorted(maps.Keys(u.claims))
	b := []byte{'{'}
	var err error
	for _, name := range names {
		if !strings.HasPrefix(name, "__") {
			if b, err = u.appendMember(b, r, name, name, groups); err != nil {
				return nil, err
			}
		}
	}
	if !r.nests {
		return append(b, '}'), nil
	}
	// The second form, after all plain names; a record that would be empty is not there.
	for _, prefix := range nested {
		record := []byte{'{'}
		for _, name := range names {
			if inner, ok := nestedName(prefix, name); ok {
				if record, err = u.appendMember(record, r, name, inner, groups); err != nil {
					return nil, err
				}
			}
		}
		if len(record) > 1 {
			b = appendName(b, prefix)
			b = append(append(b, record...), '}')
		}
	}
	return append(b, '}'), nil
}

// appendName begins the next member of the record at the end of b.
func appendName(b []byte, name string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	return append(appendString(b, name), ':')
}

// appendMember appends a claim under a name, unless it is left out.
func (u *unverified) appendMember(b []byte, r *rules, claim, name string, groups []string) ([]byte, error) {
	left, leads := below(groups, claim)
	if leads && len(left) == 0 {
		return b, nil
	}
	start := len(b)
	b = appendName(b, name)
	// The scope of an access token is a list by its meaning (RFC 6749, section 3.3), so it becomes a set.
	if scope, isText := u.claims.text(claim); isText && claim == "scope" && r.tokenType == copse.TokenAccess {
		return appendStrings(b, strings.Fields(scope)), nil
	}
	dec := jsontext.NewDecoder(bytes.NewReader(u.claims[claim]))
	b, kept, err := appendClaim(b, dec, 1, left)
	if err != nil {
		return nil, refuse(ReasonClaim, "%s: the claim nests deeper than %d levels", claim, maxClaimDepth)
	}
	if !kept {
		b = b[:start]
	}
	return b, nil
}

// appendStrings writes a set of strings.
func appendStrings(b []byte, list []string) []byte {
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, s)
	}
	return append(b, ']')
}

var errTooDeep = errors.New("claim nests too deep")

// below goes one name down a path; leads is false when the path goes elsewhere, or nowhere.
func below(path []string, name string) (left []string, leads bool) {
	if len(path) == 0 || path[0] != name {
		return nil, false
	}
	return path[1:], true
}

// appendClaim appends the next value of dec without the member at the path leave, if there is such a
// path; kept is false when it must be left out, and what was appended with it.
func appendClaim(b []byte, dec *jsontext.Decoder, depth int, leave []string) (out []byte, kept bool, err error) {
	if depth > maxClaimDepth {
		return b, false, errTooDeep
	}
	switch dec.PeekKind() {
	case '[':
		return appendSet(b, dec, depth)
	case '{':
		return appendRecord(b, dec, depth, leave)
	default:
	}
	value, err := dec.ReadValue()
	if err != nil {
		return b, false, err
	}
	switch value.Kind() {
	case '"', 't', 'f':
		return append(b, value...), true, nil
	// Only integers that fit: Cedar's Long has 64 bits, and a rounded number would be another one.
	case '0':
		if n, err := strconv.ParseInt(string(value), 10, 64); err == nil {
			return strconv.AppendInt(b, n, 10), true, nil
		}
	default:
	}
	return b, false, nil
}

// appendSet leaves out what Cedar has no type for, and keeps the rest of the set.
func appendSet(b []byte, dec *jsontext.Decoder, depth int) ([]byte, bool, error) {
	if _, err := dec.ReadToken(); err != nil {
		return b, false, err
	}
	b = append(b, '[')
	first := len(b)
	for dec.PeekKind() != ']' {
		start := len(b)
		if start > first {
			b = append(b, ',')
		}
		var kept bool
		var err error
		if b, kept, err = appendClaim(b, dec, depth+1, nil); err != nil {
			return b, false, err
		}
		if !kept {
			b = b[:start]
		}
	}
	_, err := dec.ReadToken()
	return append(b, ']'), true, err
}

// appendRecord leaves out members that Cedar has no type for, and the whole record where a member's name is an
// escape of Cedar's JSON. leave is the path of the groups, from here on down.
func appendRecord(b []byte, dec *jsontext.Decoder, depth int, leave []string) ([]byte, bool, error) {
	if _, err := dec.ReadToken(); err != nil {
		return b, false, err
	}
	whole, escapes := len(b), false
	b = append(b, '{')
	for dec.PeekKind() != '}' {
		start := len(b)
		if start > whole+1 {
			b = append(b, ',')
		}
		name, err := dec.ReadToken()
		if err != nil {
			return b, false, err
		}
		said := name.String()
		// Noted, and acted upon at the end: the decoder must be past the record first.
		escapes = escapes || strings.HasPrefix(said, "__")
		left, leads := below(leave, said)
		if leads && len(left) == 0 {
			if err := dec.SkipValue(); err != nil {
				return b, false, err
			}
			b = b[:start]
			continue
		}
		b = appendString(b, said)
		b = append(b, ':')
		var kept bool
		if b, kept, err = appendClaim(b, dec, depth+1, left); err != nil {
			return b, false, err
		}
		if !kept {
			b = b[:start]
		}
	}
	if _, err := dec.ReadToken(); err != nil {
		return b, false, err
	}
	if escapes {
		return b[:whole], false, nil
	}
	return append(b, '}'), true, nil
}
