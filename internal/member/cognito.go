package member

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
)

// cognitoEvent is what of a pre token generation event, of any version, is read. The rest of the event goes
// back as it came.
type cognitoEvent struct {
	Version       string `json:"version"`
	TriggerSource string `json:"triggerSource"`
	Region        string `json:"region"`
	UserPoolID    string `json:"userPoolId"`
	CallerContext struct {
		ClientID string `json:"clientId"`
	} `json:"callerContext"`
	Request struct {
		UserAttributes     map[string]string `json:"userAttributes"`
		GroupConfiguration struct {
			IAMRolesToOverride []string `json:"iamRolesToOverride"`
			PreferredRole      *string  `json:"preferredRole"`
		} `json:"groupConfiguration"`
	} `json:"request"`
}

// triggerClientCredentials is the trigger of a token that a client asks for in its own name: there is no user.
const triggerClientCredentials = "TokenGeneration_ClientCredentials"

// cognitoOverrides is claimsOverrideDetails of version 1.
type cognitoOverrides struct {
	Add      map[string]any `json:"claimsToAddOrOverride"`
	Suppress []string       `json:"claimsToSuppress"`
	Groups   *cognitoGroups `json:"groupOverrideDetails,omitempty"`
}

type cognitoGroups struct {
	Groups        []string `json:"groupsToOverride"`
	IAMRoles      []string `json:"iamRolesToOverride,omitempty"`
	PreferredRole *string  `json:"preferredRole,omitempty"`
}

// cognitoTokens is claimsAndScopeOverrideDetails of versions 2 and 3.
type cognitoTokens struct {
	ID     *cognitoOverrides `json:"idTokenGeneration,omitempty"`
	Access *cognitoOverrides `json:"accessTokenGeneration,omitempty"`
	Groups *cognitoGroups    `json:"groupOverrideDetails,omitempty"`
}

// Cognito answers a pre token generation event: the event with its response filled in. issuer is the pool's
// issuer URL where it is not AWS's own, as with an emulator; empty otherwise.
//
// clientMetadata, custom attributes and groups of the event are the client's or the user's to set, and have no
// say in who somebody is; attributes that look like copse's claims are kept out of the token.
// Invalid for what is no such event, else the errors of Resolve: with any of them there must be no token.
func (s *Service) Cognito(ctx context.Context, event []byte, issuer string) ([]byte, error) {
	var in cognitoEvent
	if err := json.Unmarshal(event, &in); err != nil {
		return nil, copse.Errorf(copse.Invalid, "this is no pre token generation event: %w", err)
	}
	if !strings.Contains(in.TriggerSource, "TokenGen") || in.UserPoolID == "" { // AWS's own sample of version 1 says PreTokenGen
		return nil, copse.Errorf(copse.Invalid, "this is no pre token generation event: triggerSource is %q, userPoolId %q", in.TriggerSource, in.UserPoolID)
	}
	if !slices.Contains([]string{"0", "1", "2", "3"}, in.Version) { // 0: an emulator's version 1
		return nil, copse.Errorf(copse.Invalid, "the event's version is %q; known are 1, 2 and 3", in.Version)
	}
	machine := in.TriggerSource == triggerClientCredentials
	if machine && in.Version != "3" {
		return nil, copse.Errorf(copse.Invalid, "client credentials come with version 3 of the event, not %s", in.Version)
	}
	// As Cognito's tokens will have it in iss.
	if issuer == "" {
		issuer = "https://cognito-idp." + in.Region + ".amazonaws.com/" + in.UserPoolID
	}
	who := Presented{Issuer: issuer, ClientID: in.CallerContext.ClientID}
	if !machine {
		who.Subject = in.Request.UserAttributes["sub"]
		who.Email, who.EmailVerified = in.Request.UserAttributes["email"], in.Request.UserAttributes["email_verified"] == "true"
		if who.Subject == "" {
			return nil, refuse(ReasonUnknown, "the event names no subject")
		}
	}
	found, err := s.Resolve(ctx, who)
	if err != nil {
		return nil, err
	}
	return found.cognitoAnswer(event, &in, machine)
}

// cognitoAnswer gives the event back with a response in the form of its version. Claims that look like ours and come from the
// user's own attributes are suppressed, in every token.
func (r *Resolved) cognitoAnswer(event []byte, in *cognitoEvent, machine bool) ([]byte, error) {
	claims := r.Claims()
	// Roles become Cognito's groups where the registration reads those; IAM roles go back as they came.
	groups := (*cognitoGroups)(nil)
	if r.Issuer.GroupClaim == cognitoGroupsClaim {
		groups = &cognitoGroups{Groups: append([]string{}, r.Roles...),
			IAMRoles: in.Request.GroupConfiguration.IAMRolesToOverride, PreferredRole: in.Request.GroupConfiguration.PreferredRole}
	}
	// What a user's attributes would put into the token beside ours.
	suppress := r.lookalikes(slices.Collect(maps.Keys(in.Request.UserAttributes)))
	var response any
	switch {
	case in.Version == "0" || in.Version == "1":
		for name, value := range claims { // version 1 has strings only
			if list, ok := value.([]string); ok {
				claims[name] = strings.Join(list, " ")
			}
		}
		response = map[string]any{"claimsOverrideDetails": cognitoOverrides{Add: claims, Suppress: suppress, Groups: groups}}
	case machine:
		response = map[string]any{"claimsAndScopeOverrideDetails": cognitoTokens{Access: &cognitoOverrides{Add: claims, Suppress: suppress}}}
	default:
		each := &cognitoOverrides{Add: claims, Suppress: suppress}
		response = map[string]any{"claimsAndScopeOverrideDetails": cognitoTokens{ID: each, Access: each, Groups: groups}}
	}
	// All but the response goes back as it came, members that are not known here included.
	var whole map[string]jsontext.Value
	if err := json.Unmarshal(event, &whole); err != nil {
		return nil, copse.Errorf(copse.Invalid, "the event is no object: %w", err)
	}
	text, err := json.Marshal(response, json.Deterministic(true))
	if err != nil {
		return nil, copse.Errorf(copse.Internal, "an answer can't be encoded: %w", err)
	}
	whole["response"] = text
	out, err := json.Marshal(whole, json.Deterministic(true))
	if err != nil {
		return nil, copse.Errorf(copse.Internal, "an answer can't be encoded: %w", err)
	}
	return out, nil
}

const cognitoGroupsClaim = "cognito:groups"

// Claims are what the token should say: the tenant, the roles where the issuer's registration names a claim
// for them, and the attributes.
// Values are strings and lists of strings; the map is the caller's own. The tenant is missing where the
// registration names no claim for it.
func (r *Resolved) Claims() map[string]any {
	claims := map[string]any{}
	for name, value := range r.Attributes {
		if !Reserved(name) && name != r.Issuer.GroupClaim { // looked at when it was written; claims may have been renamed since
			claims[name] = value
		}
	}
	if name := r.Issuer.GroupClaim; name != "" && !Reserved(name) {
		claims[name] = append([]string{}, r.Roles...)
	}
	if name := r.Issuer.TenantClaim; name != "" {
		claims[name] = string(r.Tenant) // last: no attribute is in its place
	}
	return claims
}

// Suppress names those of a token's present claims that must not be in it: what a client or user could have
// set and a service could take for copse's.
// Sorted, and never nil.
func (r *Resolved) Suppress(present []string) []string { return r.lookalikes(present) }

// lookalikes are names that mean the tenant or the roles in another spelling: of another case, or as a custom
// attribute.
func (r *Resolved) lookalikes(present []string) []string {
	out := []string{}
	claims := r.Claims()
	for _, name := range present {
		// As a service that reads claims carelessly would read it.
		plain := strings.TrimPrefix(lowerASCII(name), "custom:")
		if _, ours := claims[name]; ours {
			continue // it is overridden
		}
		for _, claim := range []string{r.Issuer.TenantClaim, r.Issuer.GroupClaim} {
			if claim != "" && plain == strings.TrimPrefix(lowerASCII(claim), "custom:") && !slices.Contains(out, name) && !Reserved(name) {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return out
}
