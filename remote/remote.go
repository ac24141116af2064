// Package remote reaches policy stores over the API of Amazon Verified Permissions: those of a copse
// server, or those of AWS itself. Which of the two answers is a matter of the endpoint.
//
// [Client.Export] takes a policy store out, as [Contents] that can be kept in a directory; and
// [Client.Import] makes a new policy store of them, on the same side or the other. What the API has no
// words for stays behind, and the [Report] says what that is.
package remote

import (
	"errors"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/verifiedpermissions"
	"github.com/aws/smithy-go"

	"github.com/copse-authz/copse"
)

// Options say where the policy stores are and who asks.
type Options struct {
	// Endpoint is the address of a copse server. Empty: AWS, in Region.
	Endpoint string
	// Region is what requests are signed for; copse takes any. Empty: us-east-1 with an Endpoint,
	// an error without.
	Region string
	// The access key. SessionToken is for AWS only; copse has no sessions.
	AccessKeyID, SecretAccessKey, SessionToken string
	// HTTPClient sends the requests. Nil: the SDK's own.
	HTTPClient *http.Client
}

// Client is safe for concurrent use. Each of its calls takes as many requests as a
// policy store has parts.
type Client struct {
	avp *verifiedpermissions.Client
}

// attempts is for AWS's rates, ten calls a second and less: a whole policy store takes more calls than
// a single one of the SDK's three tries would wait for.
const attempts = 12

// New makes a client; nothing is sent yet. An error is about the options.
func New(o Options) (*Client, error) {
	if o.AccessKeyID == "" || o.SecretAccessKey == "" {
		return nil, errors.New("remote: an access key is required")
	}
	if o.Region == "" {
		if o.Endpoint == "" {
			return nil, errors.New("remote: a region is required when there is no endpoint")
		}
		o.Region = "us-east-1"
	}
	options := verifiedpermissions.Options{
		Region:      o.Region,
		Credentials: credentials.NewStaticCredentialsProvider(o.AccessKeyID, o.SecretAccessKey, o.SessionToken),
		Retryer:     retry.NewStandard(func(s *retry.StandardOptions) { s.MaxAttempts = attempts }),
	}
	// Without an endpoint the SDK finds AWS's own for the region.
	if o.Endpoint != "" {
		options.BaseEndpoint = aws.String(o.Endpoint)
	}
	if o.HTTPClient != nil {
		options.HTTPClient = o.HTTPClient
	}
	return &Client{avp: verifiedpermissions.New(options)}, nil
}

// kinds are the exceptions of the API that say something of the request. What is not here, and every
// 5xx, says nothing of the request.
var kinds = map[string]copse.Kind{
	"ValidationException":                 copse.Invalid,
	"ResourceNotFoundException":           copse.NotFound,
	"ConflictException":                   copse.Conflict,
	"ServiceQuotaExceededException":       copse.QuotaExceeded,
	"TooManyTagsException":                copse.TooManyTags,
	"InvalidStateException":               copse.InvalidState,
	"ThrottlingException":                 copse.Throttled,
	"AccessDeniedException":               copse.Denied,
	"UnrecognizedClientException":         copse.Unauthenticated,
	"InvalidSignatureException":           copse.Unauthenticated,
	"MissingAuthenticationTokenException": copse.Unauthenticated,
	"ExpiredTokenException":               copse.Unauthenticated,
	"RequestExpiredException":             copse.Unauthenticated,
}

// fromAPI makes a *copse.Error of what a call ended with: what was tried, on what, and the findings. An
// answer that says nothing of the request, or none at all, is Unavailable. nil for nil. The detail is
// the API's own message where there is one.
func fromAPI(err error, trying, on string) error {
	if err == nil {
		return nil
	}
	out := &copse.Error{Kind: copse.Unavailable, ID: on, Err: err, Detail: trying + " " + on + ": " + err.Error()}
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		if kind, known := kinds[e.ErrorCode()]; known {
			out.Kind = kind
		}
		out.Detail = trying + " " + on + ": " + e.ErrorMessage()
	} else if e, ok := errors.AsType[*copse.Error](err); ok { // this library's own word on what it was answered
		out.Kind = e.Kind
	}
	out.Fields = fieldsOf(err)
	return out
}
