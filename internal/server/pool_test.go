package server_test

import (
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	vp "github.com/aws/aws-sdk-go-v2/service/verifiedpermissions"
	"github.com/aws/aws-sdk-go-v2/service/verifiedpermissions/types"
	"github.com/golang-jwt/jwt/v5"

	"github.com/copse-authz/copse/internal/server"
)

// A user pool as Amazon Cognito has them, and a provider of another make, each with its keys behind TLS
// at an endpoint of the configuration.
const (
	poolID     = "eu-west-1_Pool1"
	poolARN    = "arn:aws:cognito-idp:eu-west-1:123456789012:userpool/" + poolID
	poolIssuer = "https://cognito-idp.eu-west-1.amazonaws.com/" + poolID
	oidcIssuer = "https://login.example.com/realm"
)

// poolSite is a server with both providers, asked by the AWS SDK with the root key.
type poolSite struct {
	*site
	pool, oidc *idp
	aws        *vp.Client
}

func newPoolSite(t *testing.T) *poolSite {
	t.Helper()
	s := &poolSite{}
	mux := http.NewServeMux()
	host := httptest.NewTLSServer(mux)
	t.Cleanup(host.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: host.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	provider := func(path, issuer, alg string) (*idp, server.IssuerEndpoint) {
		p := &idp{t: t, URL: issuer, key: newKey(t, "key-1", alg)}
		p.publish(p.key)
		mux.HandleFunc("GET "+path, p.answerKeys)
		return p, server.IssuerEndpoint{Issuer: issuer, Keys: host.URL + path, CA: ca}
	}
	pool, poolAt := provider("/pool", poolIssuer, "RS256")
	oidc, oidcAt := provider("/oidc", oidcIssuer, "ES256")
	s.pool, s.oidc = pool, oidc
	s.site = start(t, func(cfg *server.Config) {
		// The endpoints' addresses are private, and no other issuer's may be.
		cfg.AllowPrivateIssuers, cfg.AllowHTTPIssuers = false, false
		cfg.IssuerEndpoints = []server.IssuerEndpoint{poolAt, oidcAt}
	})
	s.aws = s.client()
	return s
}

func (s *poolSite) client() *vp.Client {
	id, secret := s.RootKey()
	return vp.New(vp.Options{
		Region: "eu-west-1", BaseEndpoint: aws.String(s.URL()), Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider(id, string(secret), ""),
	})
}

// policyStore makes one with these policies, and without a schema.
func (s *poolSite) policyStore(policies ...string) string {
	s.t.Helper()
	made, err := s.aws.CreatePolicyStore(s.t.Context(), &vp.CreatePolicyStoreInput{
		ValidationSettings: &types.ValidationSettings{Mode: types.ValidationModeOff}})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, text := range policies {
		_, err := s.aws.CreatePolicy(s.t.Context(), &vp.CreatePolicyInput{PolicyStoreId: made.PolicyStoreId,
			Definition: &types.PolicyDefinitionMemberStatic{Value: types.StaticPolicyDefinition{Statement: &text}}})
		if err != nil {
			s.t.Fatal(err)
		}
	}
	return *made.PolicyStoreId
}

func poolConfiguration(clients ...string) *types.ConfigurationMemberCognitoUserPoolConfiguration {
	return &types.ConfigurationMemberCognitoUserPoolConfiguration{Value: types.CognitoUserPoolConfiguration{
		UserPoolArn: aws.String(poolARN), ClientIds: clients,
		GroupConfiguration: &types.CognitoGroupConfiguration{GroupEntityType: aws.String("Group")},
	}}
}

// source gives a policy store an identity source whose principals are Users.
func (s *poolSite) source(policyStore string, configuration types.Configuration) string {
	s.t.Helper()
	made, err := s.aws.CreateIdentitySource(s.t.Context(), &vp.CreateIdentitySourceInput{
		PolicyStoreId: &policyStore, Configuration: configuration, PrincipalEntityType: aws.String("User")})
	if err != nil {
		s.t.Fatal(err)
	}
	return *made.IdentitySourceId
}

// idClaims and accessClaims are what Cognito says of alice; nil takes a claim away.
func (s *poolSite) idClaims(change ...jwt.MapClaims) jwt.MapClaims {
	return changed(jwt.MapClaims{
		"iss": poolIssuer, "sub": "alice", "aud": "web", "token_use": "id", "cognito:groups": []string{"admins"},
		"cognito:username": "al", "custom:level": "7", "email": "alice@example.com",
	}, change)
}

func (s *poolSite) accessClaims(change ...jwt.MapClaims) jwt.MapClaims {
	return changed(jwt.MapClaims{
		"iss": poolIssuer, "sub": "alice", "client_id": "web", "token_use": "access", "cognito:groups": []string{"admins"},
		"scope": "read write", "username": "al",
	}, change)
}

func changed(claims jwt.MapClaims, changes []jwt.MapClaims) jwt.MapClaims {
	now := time.Now()
	claims["iat"], claims["exp"] = now.Unix(), now.Add(time.Hour).Unix()
	for _, change := range changes {
		for name, value := range change {
			if claims[name] = value; value == nil {
				delete(claims, name)
			}
		}
	}
	return claims
}

func (p *idp) sign(claims jwt.MapClaims) *string {
	p.t.Helper()
	return aws.String(p.key.token(p.t, nil, claims))
}

func awsEntity(typ, id string) *types.EntityIdentifier {
	return &types.EntityIdentifier{EntityType: &typ, EntityId: &id}
}

func awsAction(id string) *types.ActionIdentifier {
	return &types.ActionIdentifier{ActionType: aws.String("Action"), ActionId: &id}
}

// ask asks whether the tokens' holder may view a document.
func (s *poolSite) ask(policyStore string, id, access *string, adjust ...func(*vp.IsAuthorizedWithTokenInput)) (*vp.IsAuthorizedWithTokenOutput, error) {
	in := &vp.IsAuthorizedWithTokenInput{PolicyStoreId: &policyStore, IdentityToken: id, AccessToken: access,
		Action: awsAction("view"), Resource: awsEntity("Document", "plan")}
	for _, f := range adjust {
		f(in)
	}
	return s.aws.IsAuthorizedWithToken(s.t.Context(), in)
}

func (s *poolSite) wantAllow(policyStore string, id, access *string) {
	s.t.Helper()
	out, err := s.ask(policyStore, id, access)
	switch {
	case err != nil:
		s.t.Errorf("refused: %v", err)
	case out.Decision != types.DecisionAllow:
		s.t.Errorf("%s, errors %v", out.Decision, out.Errors)
	}
}

// wantInvalid wants a ValidationException with a finding at a member.
func wantInvalid(t *testing.T, err error, path string) {
	t.Helper()
	e, ok := errors.AsType[*types.ValidationException](err)
	if !ok {
		t.Errorf("want a ValidationException, got %v", err)
		return
	}
	for _, f := range e.FieldList {
		if *f.Path == path {
			return
		}
	}
	t.Errorf("no finding at %q: %v", path, fieldsOf(e))
}

func fieldsOf(e *types.ValidationException) []string {
	var out []string
	for _, f := range e.FieldList {
		out = append(out, *f.Path+": "+*f.Message)
	}
	return out
}

func wantDenied(t *testing.T, err error) string {
	t.Helper()
	e, ok := errors.AsType[*types.AccessDeniedException](err)
	if !ok {
		t.Errorf("want an AccessDeniedException, got %v", err)
		return ""
	}
	return *e.Message
}
