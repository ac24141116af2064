package avp

import (
	"errors"
	"net/http"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
)

// exception is how an error looks on the wire. Type is its shape's name in the service model or, for
// protocol errors, in AWS's common errors.
type exception struct {
	Type   string
	Status int
}

// exceptions has a row for every copse.Kind; a test ranges over them. 400 for all client errors is what
// AVP's reference prints; the model's other statuses are not what its JSON protocol sends. The array is
// indexed by Kind. Unavailable has no counterpart in AVP's model; SDKs retry any 503.
var exceptions = [...]exception{
	copse.Internal:        {"InternalServerException", http.StatusInternalServerError},
	copse.Invalid:         {"ValidationException", http.StatusBadRequest},
	copse.Unauthenticated: {"UnrecognizedClientException", http.StatusForbidden},
	copse.Denied:          {"AccessDeniedException", http.StatusBadRequest},
	copse.NotFound:        {"ResourceNotFoundException", http.StatusBadRequest},
	copse.Conflict:        {"ConflictException", http.StatusBadRequest},
	copse.QuotaExceeded:   {"ServiceQuotaExceededException", http.StatusBadRequest},
	copse.TooManyTags:     {"TooManyTagsException", http.StatusBadRequest},
	copse.Throttled:       {"ThrottlingException", http.StatusBadRequest},
	copse.InvalidState:    {"InvalidStateException", http.StatusBadRequest},
	copse.Unavailable:     {"ServiceUnavailableException", http.StatusServiceUnavailable},
}

// protocolError is an error of the protocol below the operations: no Kind has its exception. Its
// message is for the client, so it must not hold what a cause says.
type protocolError struct {
	exception
	message string
}

func (e *protocolError) Error() string { return e.message }

// errorBody holds the members of every exception; each has those its shape requires. Where the model
// requires a member that may be empty, it is a pointer or omitzero, so that it is sent then as well.
type errorBody struct {
	Type         string         `json:"__type"`
	Message      string         `json:"message"`
	FieldList    []fieldError   `json:"fieldList,omitempty"`
	ResourceID   *string        `json:"resourceId,omitempty"`
	ResourceType *string        `json:"resourceType,omitempty"`
	Resources    []resourceName `json:"resources,omitzero"`
	ResourceName string         `json:"resourceName,omitempty"`
	ServiceCode  string         `json:"serviceCode,omitempty"`
	QuotaCode    string         `json:"quotaCode,omitempty"`
}

// fieldError is a finding on the wire. A [copse.Field]'s line and column
// have no members there, and go into the message.
type fieldError struct {
	Path    string `json:"path"`
	Message string `json:"message"`
}

type resourceName struct {
	ResourceID   string `json:"resourceId"`
	ResourceType string `json:"resourceType"`
}

// maxFields bounds an answer: ten thousand mistakes in one body are not ten thousand findings.
const maxFields = 50

// describe turns any error into what is sent. The detail of an internal one stays inside. describe
// never fails, and takes wrapped errors.
func describe(err error) (exception, errorBody) {
	if e, ok := errors.AsType[*protocolError](err); ok {
		return e.exception, errorBody{Type: e.Type, Message: e.message}
	}
	kind := copse.KindOf(err)
	e, ok := errors.AsType[*copse.Error](err)
	// An error nobody classified still has a kind: Internal, or Unavailable for a context that ended.
	if !ok {
		e = &copse.Error{Kind: kind}
	}
	x := exceptions[kind]
	body := errorBody{Type: x.Type, Message: e.Detail}
	switch kind {
	case copse.Internal:
		// Whatever an internal error says may name files, rows or other tenants.
		body.Message = "internal error"
	case copse.Invalid:
		body.addFields(e)
	case copse.NotFound:
		// resourceId and resourceType are required by the shape, so they are sent empty as well.
		body.ResourceID, body.ResourceType = &e.ID, resourceType(e)
	case copse.Conflict:
		// resources is required; it is an empty list when the conflict is with no one thing.
		body.Resources = []resourceName{}
		if e.Resource != "" {
			body.Resources = append(body.Resources, resourceName{ResourceID: e.ID, ResourceType: string(e.Resource)})
		}
	// Clients are told which published quota it is where AWS has a code;
	// the limit itself is in the message.
	case copse.QuotaExceeded:
		body.ResourceType, body.ServiceCode, body.QuotaCode = resourceType(e), serviceCode, countCodes[e.Resource]
		if e.ID != "" {
			body.ResourceID = &e.ID
		}
	case copse.TooManyTags:
		body.ResourceName = e.ID
	case copse.Throttled:
		body.ServiceCode = serviceCode
	// These four have no members but the message.
	case copse.Unauthenticated, copse.Denied, copse.InvalidState, copse.Unavailable:
	}
	// SDKs print the message; an empty one would leave people with a bare exception name.
	if body.Message == "" {
		body.Message = kind.String()
	}
	return x, body
}

// serviceCode is what AWS calls the service in Service Quotas.
const serviceCode = "verifiedpermissions"

// addFields fills fieldList. As in AVP the message is then bare and the findings say what is wrong.
// Without fields the detail stays the message: then it is all there is to say.
func (b *errorBody) addFields(e *copse.Error) {
	if len(e.Fields) == 0 {
		return
	}
	b.Message = "Invalid input"
	for _, f := range e.Fields[:min(len(e.Fields), maxFields)] {
		b.FieldList = append(b.FieldList, fieldError{Path: f.Path, Message: positioned(f)})
	}
}

// resourceType is the member's value; the shape requires it also when nobody knew it.
func resourceType(e *copse.Error) *string {
	t := string(e.Resource)
	if t == "" {
		t = string(copse.ResourcePolicyStore)
	}
	return &t
}

// marshal always returns a body that SDKs can read as an exception.
func (b errorBody) marshal() []byte {
	out, err := json.Marshal(b)
	if err != nil {
		// Only text that is not UTF-8 gets here.
		return []byte(`{"__type":"InternalServerException","message":"internal error"}`)
	}
	return out
}
