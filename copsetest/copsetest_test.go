package copsetest_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/verifiedpermissions"
	"github.com/aws/aws-sdk-go-v2/service/verifiedpermissions/types"

	"github.com/copse-authz/copse/copsetest"
)

var everybody = copsetest.Contents{Policies: map[string]string{"all": `permit (principal, action, resource);`}}

const view = `{"action":{"id":"view"},"resource":{"type":"Doc","id":"1"}}`

func TestStoppedAndStartedAgain(t *testing.T) {
	dir := t.TempDir()
	srv := copsetest.Start(t, copsetest.DataDir(dir))
	was := srv.CreateTenant(t, "acme", everybody)
	if err := srv.Close(); err != nil {
		t.Fatal(err)
	}
	srv = copsetest.Start(t, copsetest.DataDir(dir))
	answer := srv.Authorize(t, srv.Token(t, "acme", "alice"), view)
	if answer.Decision != "ALLOW" || !strings.Contains(answer.Body, string(was.PolicyStoreID)) {
		t.Errorf("after a restart: %+v", answer)
	}
}

func TestSamples(t *testing.T) {
	srv := copsetest.Start(t, copsetest.Samples())
	token := srv.Token(t, "initech", "alice", copsetest.From("initech"))
	if answer := srv.Authorize(t, token, `{"action":{"id":"view"},"resource":{"type":"Ledger","id":"1"}}`); answer.Status != 200 || answer.Decision != "DENY" {
		t.Errorf("%+v", answer)
	}
}

func TestServersAreApart(t *testing.T) {
	a, b := copsetest.Start(t), copsetest.Start(t)
	a.CreateTenant(t, "acme", everybody)
	b.CreateTenant(t, "acme", everybody)
	token := a.Token(t, "acme", "alice")
	if answer := a.Authorize(t, token, view); answer.Decision != "ALLOW" {
		t.Errorf("%+v", answer)
	}
	if answer := b.Authorize(t, token, view); answer.Status != http.StatusUnauthorized {
		t.Errorf("another server's token: %+v", answer)
	}
}

// The credential works with the AWS SDK as it is.
func TestSDK(t *testing.T) {
	srv := copsetest.Start(t)
	acme := srv.CreateTenant(t, "acme", everybody)
	client := verifiedpermissions.New(verifiedpermissions.Options{
		Region: "eu-central-1", BaseEndpoint: aws.String(srv.URL),
		Credentials: credentials.NewStaticCredentialsProvider(srv.AccessKeyID, srv.SecretAccessKey, ""),
	})
	out, err := client.IsAuthorized(context.Background(), &verifiedpermissions.IsAuthorizedInput{
		PolicyStoreId: aws.String(string(acme.PolicyStoreID)),
		Principal:     &types.EntityIdentifier{EntityType: aws.String("User"), EntityId: aws.String("alice")},
		Action:        &types.ActionIdentifier{ActionType: aws.String("Action"), ActionId: aws.String("view")},
		Resource:      &types.EntityIdentifier{EntityType: aws.String("Doc"), EntityId: aws.String("1")},
	})
	if err != nil || out.Decision != types.DecisionAllow || len(out.DeterminingPolicies) != 1 {
		t.Errorf("%+v, %v", out, err)
	}
}
