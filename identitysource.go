package copse

import (
	"strings"
	"time"
)

// What AVP uses when an identity source names no type.
const (
	DefaultPrincipalType    = "AWS::Cognito"
	DefaultCognitoGroupType = "AWS::CognitoGroup"
)

// IdentitySource is the part of a policy store that says whose tokens decide in it, and how their
// claims become a principal. Exactly one of CognitoUserPool and OpenIDConnect is set.
//
// It is configured by whoever may write to the policy store. What the operator says of the same issuer
// ([Issuer]) stands beside it: a tenant's policy store can't make an issuer speak for that tenant.
type IdentitySource struct {
	ID            string
	PolicyStoreID PolicyStoreID
	// Revision changes with each update; verified tokens are remembered under it.
	Revision uint64

	PrincipalType   string // Cedar entity type of the principal
	CognitoUserPool *CognitoUserPool
	OpenIDConnect   *OpenIDConnect

	CreatedAt time.Time
	UpdatedAt time.Time
}

// CognitoUserPool is an Amazon Cognito user pool, or what looks like one. Both kinds of its tokens are
// accepted, each as what its token_use says it is.
type CognitoUserPool struct {
	ARN       string
	ClientIDs []string // empty: any client of the user pool
	GroupType string   // empty: DefaultCognitoGroupType
}

// OpenIDConnect is any other provider. One kind of its tokens is accepted.
type OpenIDConnect struct {
	Issuer    string
	TokenType TokenType
	// Audiences are the audiences of access tokens, or the clients that ID tokens were made for. Empty
	// for ID tokens: any client.
	Audiences        []string
	PrincipalIDClaim string // empty: "sub"
	EntityIDPrefix   string // empty: no prefix and no bar
	GroupClaim       string // empty with GroupType empty
	GroupType        string
}

// Issuer is the iss claim that tokens of this source have, byte for byte.
func (s *IdentitySource) Issuer() string {
	switch {
	case s.CognitoUserPool != nil:
		return s.CognitoUserPool.Issuer()
	case s.OpenIDConnect != nil:
		return s.OpenIDConnect.Issuer
	}
	return ""
}

// Accepts reports whether this kind of token may be presented.
func (s *IdentitySource) Accepts(kind TokenType) bool {
	if s.OpenIDConnect != nil {
		return kind == s.OpenIDConnect.TokenType
	}
	return s.CognitoUserPool != nil && (kind == TokenAccess || kind == TokenID)
}

// PoolID is the user pool's id, which every principal's and group's id begins with.
func (p *CognitoUserPool) PoolID() string {
	_, id, _ := strings.Cut(p.ARN, ":userpool/")
	return id
}

// Issuer is the URL that AWS gives a user pool: its region is part of the pool's id and of the ARN.
func (p *CognitoUserPool) Issuer() string {
	parts := strings.Split(p.ARN, ":")
	if len(parts) != 6 {
		return ""
	}
	domain := "amazonaws.com"
	if parts[1] == "aws-cn" {
		domain += ".cn"
	}
	return "https://cognito-idp." + parts[3] + "." + domain + "/" + p.PoolID()
}

// Words of Cedar that can't be part of a type's name.
var reservedWords = []string{"true", "false", "if", "then", "else", "in", "is", "like", "has", "__cedar"}

// ValidateEntityType checks the name of a principal's or group's type: Cedar identifiers joined by ::,
// and not the type of actions, which no token may define.
func ValidateEntityType(name string) error {
	if name == "" || len(name) > MaxEntityTypeBytes {
		return Errorf(Invalid, "an entity type has 1 to %d bytes, this one has %d", MaxEntityTypeBytes, len(name))
	}
	parts := strings.Split(name, "::")
	for _, part := range parts {
		bad := !isIdentifier(part)
		for _, word := range reservedWords {
			bad = bad || part == word
		}
		if bad {
			return Errorf(Invalid, "%q is not a Cedar entity type: it is names of letters, digits and _, separated by ::", name)
		}
	}
	if parts[len(parts)-1] == "Action" {
		return Errorf(Invalid, "%q is the type of actions, which no token may define", name)
	}
	return nil
}

func isIdentifier(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}
