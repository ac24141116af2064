package tenant

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/copse-authz/copse"
)

// Bounds of a registration, AVP's where it has one.
const (
	maxURLBytes     = 2048
	maxIssuerList   = 10_000 // tenants listed; more than that is a case for allTenants
	maxAudiences    = 255
	maxClientIDs    = 1000
	maxNameBytes    = 255 // one audience, client id or claim name
	maxPrefixBytes  = 100
	maxEmailDomains = 1000
	maxFields       = 50
)

// algorithms that can be verified with a public key. Symmetric ones would make everyone who can verify
// a token able to make one.
var algorithms = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
}

// defaultAlgorithms are what identity providers use unless somebody asked for something else.
var defaultAlgorithms = []string{"RS256", "ES256", "EdDSA"}

// field is a finding about one element of a list.
func field(list string, n int, format string, args ...any) copse.Field {
	return copse.Field{Path: fmt.Sprintf("%s[%d]", list, n), Message: fmt.Sprintf(format, args...)}
}

// invalidIssuer is Invalid with what was found, bounded: a list of thousands may be wrong in every element.
func invalidIssuer(fields ...copse.Field) error {
	return &copse.Error{Kind: copse.Invalid, Resource: copse.ResourceIssuer,
		Detail: "the issuer's registration is not valid", Fields: fields[:min(len(fields), maxFields)]}
}

// requireHTTPS stands in for Config.CheckIssuerURL.
// With http whoever is on the way could put keys of his own in place of the issuer's.
func requireHTTPS(raw string) error {
	if !strings.HasPrefix(raw, "https://") {
		return copse.Errorf(copse.Invalid, "an issuer's URL begins with https://")
	}
	return nil
}

// checker collects what is wrong with a registration.
// Each of its methods looks at one part, and none stops another: everything is told at once.
type checker struct{ fields []copse.Field }

// bad notes a finding.
func (k *checker) bad(path, format string, args ...any) {
	k.fields = append(k.fields, copse.Field{Path: path, Message: fmt.Sprintf(format, args...)})
}

// checkIssuer holds a registration against every rule that concerns it alone, and fills in defaults.
// Rules between issuers, and whether tenants exist, are looked at when it is committed.
func (s *Service) checkIssuer(in copse.Issuer) (registration, error) {
	// Nothing of what the caller holds on to is kept.
	in.Tenants, in.Audiences, in.ClientIDs = slices.Clone(in.Tenants), slices.Clone(in.Audiences), slices.Clone(in.ClientIDs)
	in.Algorithms, in.EmailDomains = slices.Clone(in.Algorithms), slices.Clone(in.EmailDomains)
	if len(in.Algorithms) == 0 {
		// Not all that there are: an algorithm that the issuer never uses is only one more way in.
		in.Algorithms = slices.Clone(defaultAlgorithms)
	}
	if in.PrincipalIDClaim == "" {
		in.PrincipalIDClaim = "sub"
	}
	var k checker
	k.url(in.URL)
	// Only of a URL that can be read: the policy behind checkURL takes it apart itself.
	if len(k.fields) == 0 {
		if err := s.checkURL(in.URL); err != nil {
			k.bad("url", "%s", err)
		}
	}
	k.tenants(&in)
	k.tokens(&in)
	k.principals(&in)
	k.emailDomains(in.EmailDomains)
	if len(k.fields) > 0 {
		return registration{}, invalidIssuer(k.fields...)
	}
	in.Revision = 0
	return registration{in}, nil
}

// url wants printable ASCII: the URL is compared byte for byte with what tokens say. A query, a fragment or a
// user have no place in it.
func (k *checker) url(raw string) {
	if raw == "" || len(raw) > maxURLBytes {
		k.bad("url", "a URL has 1 to %d bytes, this one has %d", maxURLBytes, len(raw))
		return
	}
	for i := range len(raw) {
		if c := raw[i]; c <= ' ' || c > '~' {
			k.bad("url", "byte %d is not printable ASCII", i+1)
			return
		}
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		k.bad("url", "it is not a URL: %s", strings.TrimPrefix(err.Error(), "parse "))
	case u.Hostname() == "" || u.Opaque != "":
		k.bad("url", "it has no host")
	case u.User != nil:
		k.bad("url", "it contains a user name")
	case strings.ContainsAny(raw, "?#"):
		k.bad("url", "it has a query or a fragment")
	}
}

// tenants says for whom the issuer speaks, and how a token tells. Without tenants and allTenants it speaks for
// nobody, which is no mistake.
func (k *checker) tenants(in *copse.Issuer) {
	if in.AllTenants && len(in.Tenants) > 0 {
		k.bad("tenants", "give either tenants or allTenants, not both")
	}
	if len(in.Tenants) > maxIssuerList {
		k.bad("tenants", "%d tenants, at most %d can be listed", len(in.Tenants), maxIssuerList)
		return
	}
	seen := make(map[copse.TenantID]bool, len(in.Tenants))
	for n, t := range in.Tenants {
		if err := t.Validate(); err != nil {
			k.fields = append(k.fields, field("tenants", n, "%s", err))
		}
		if seen[t] {
			k.fields = append(k.fields, field("tenants", n, "%q is listed twice", string(t)))
		}
		seen[t] = true
	}
	switch {
	case (in.TenantClaim == "") == (in.FixedTenant == ""):
		k.bad("tenantClaim", "give exactly one of tenantClaim and fixedTenant")
	// Listed, so that deleting the tenant finds the issuer.
	case in.FixedTenant != "" && !seen[in.FixedTenant]:
		k.bad("fixedTenant", "%q is not among the tenants this issuer may speak for; list it in tenants", string(in.FixedTenant))
	case in.TenantClaim != "":
		k.claim("tenantClaim", in.TenantClaim)
	}
}

// tokens says which tokens are meant for this installation at all.
func (k *checker) tokens(in *copse.Issuer) {
	if in.TokenType != copse.TokenAccess && in.TokenType != copse.TokenID {
		k.bad("tokenType", "%q is neither %q nor %q", in.TokenType, copse.TokenAccess, copse.TokenID)
	}
	// Who signs for several services must say which one a token is for.
	if len(in.Audiences)+len(in.ClientIDs) == 0 {
		k.bad("audiences", "give at least one audience or client id: without, a token made for any other service would do")
	}
	k.names("audiences", in.Audiences, maxAudiences)
	k.names("clientIds", in.ClientIDs, maxClientIDs)
	for n, a := range in.Algorithms {
		if !slices.Contains(algorithms, a) {
			k.fields = append(k.fields, field("algorithms", n, "%q is not allowed; use one of %s", a, strings.Join(algorithms, ", ")))
		}
		if slices.Index(in.Algorithms, a) < n {
			k.fields = append(k.fields, field("algorithms", n, "%q is listed twice", a))
		}
		// The list is not bounded before, as the others are; what is shown is.
		if len(k.fields) > maxFields {
			return
		}
	}
}

// names checks a list of strings that are compared byte by byte with what a token says.
func (k *checker) names(path string, list []string, limit int) {
	if len(list) > limit {
		k.bad(path, "%d entries, at most %d are allowed", len(list), limit)
		return
	}
	for n, v := range list {
		switch {
		case v == "" || len(v) > maxNameBytes:
			k.fields = append(k.fields, field(path, n, "it has 1 to %d bytes, this one has %d", maxNameBytes, len(v)))
		case !plain(v):
			k.fields = append(k.fields, field(path, n, "it contains a control character or is not UTF-8"))
		case slices.Index(list, v) < n:
			k.fields = append(k.fields, field(path, n, "%q is listed twice", v))
		}
	}
}

// principals says which entities tokens become. The prefix, which a bar ends, keeps two issuers' users apart.
func (k *checker) principals(in *copse.Issuer) {
	k.entityType("principalType", in.PrincipalType)
	k.claim("principalIdClaim", in.PrincipalIDClaim)
	switch p := in.PrincipalIDPrefix; {
	case len(p) > maxPrefixBytes:
		k.bad("principalIdPrefix", "%d bytes, at most %d are allowed", len(p), maxPrefixBytes)
	case strings.Contains(p, "|"):
		k.bad("principalIdPrefix", "it contains a bar, which separates it from the subject")
	case !plain(p):
		k.bad("principalIdPrefix", "it contains a control character or is not UTF-8")
	}
	switch {
	case (in.GroupType == "") != (in.GroupClaim == ""):
		k.bad("groupType", "give groupType and groupClaim together, or neither")
	case in.GroupType != "":
		k.entityType("groupType", in.GroupType)
		k.claim("groupClaim", in.GroupClaim)
	}
}

// claim checks a claim's name, or a JSON pointer to it.
func (k *checker) claim(path, name string) {
	if len(name) > maxNameBytes || !plain(name) {
		k.bad(path, "a claim has at most %d bytes of UTF-8 without control characters", maxNameBytes)
		return
	}
	// The name itself, whatever characters it has.
	if !strings.HasPrefix(name, "/") {
		return
	}
	for i := range len(name) {
		if name[i] == '~' && (i+1 == len(name) || name[i+1] != '0' && name[i+1] != '1') {
			k.bad(path, "%q is not a JSON pointer: ~ is written ~0 and / inside a name ~1", name)
			return
		}
	}
}

// entityType checks the name of a Cedar entity type.
func (k *checker) entityType(path, name string) {
	if err := copse.ValidateEntityType(name); err != nil {
		k.bad(path, "%s", err)
	}
}

// plain reports whether s is UTF-8 without control characters.
func plain(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// emailDomains are those that the issuer vouches for. That each is only one issuer's is a rule between issuers.
func (k *checker) emailDomains(list []string) {
	if len(list) > maxEmailDomains {
		k.bad("emailDomains", "%d domains, at most %d are allowed", len(list), maxEmailDomains)
		return
	}
	for n, d := range list {
		switch {
		case !domain(d):
			k.fields = append(k.fields, field("emailDomains", n, "%q is not a domain in lower case, such as example.com", d))
		case slices.Index(list, d) < n:
			k.fields = append(k.fields, field("emailDomains", n, "%q is listed twice", d))
		}
	}
}

// domain accepts host names of at least two labels. An internationalised one is given in its ASCII
// form, the only one in which two names can be compared as bytes.
func domain(d string) bool {
	// Lengths of RFC 1035: 63 bytes for a label, 253 for the name as it is written.
	labels := strings.Split(d, ".")
	if len(d) > 253 || len(labels) < 2 {
		return false
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
		for i := range len(l) {
			if c := l[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
	}
	return true
}
