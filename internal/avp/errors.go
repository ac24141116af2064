package avp

import (
	"errors"
	"net/http"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
)

// exception is how an error looks on the wire.
type exception struct {
	Type   string
	Status int
}

// exceptions has a row for every copse.Kind; a test ranges over them. 400 for all client errors is
// what AVP's reference prints; the model's other statuses are not what its JSON protocol sends.
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

// protocolError is an error of the protocol below the operations: no Kind has its exception.
type protocolError struct {
	exception
	message string
}

func (e *protocolError) Error() string { return e.message }

// errorBody holds the members of every exception; each has those its shape requires.
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

// describe turns any error into what is sent. The detail of an internal one stays inside.
func describe(err error) (exception, errorBody) {
	if e, ok := errors.AsType[*protocolError](err); ok {
		return e.exception, errorBody{Type: e.Type, Message: e.message}
	}
	kind := copse.KindOf(err)
	e, ok := errors.AsType[*copse.Error](err)
	if !ok {
		e = &copse.Error{Kind: kind}
	}
	x := exceptions[kind]
	body := errorBody{Type: x.Type, Message: e.Detail}
	switch kind {
	case copse.Internal:
		body.Message = "internal error"
	case copse.Invalid:
		body.addFields(e)
	case copse.NotFound:
		body.ResourceID, body.ResourceType = &e.ID, resourceType(e)
	case copse.Conflict:
		body.Resources = []resourceName{}
		if e.Resource != "" {
			body.Resources = append(body.Resources, resourceName{ResourceID: e.ID, ResourceType: string(e.Resource)})
		}
	case copse.QuotaExceeded:
		body.ResourceType, body.ServiceCode, body.QuotaCode = resourceType(e), serviceCode, countCodes[e.Resource]
		if e.ID != "" {
			body.ResourceID = &e.ID
		}
	case copse.TooManyTags:
		body.ResourceName = e.ID
	case copse.Throttled:
		body.ServiceCode = serviceCode
	case copse.Unauthenticated, copse.Denied, copse.InvalidState, copse.Unavailable:
	}
	if body.Message == "" {
		body.Message = kind.String()
	}
	return x, body
}

const serviceCode = "verifiedpermissions"

// addFields fills fieldList. As in AVP the message is then bare and the findings say what is wrong.
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

func (b errorBody) marshal() []byte {
	out, err := json.Marshal(b)
	if err != nil {
		// Only text that is not UTF-8 gets here.
		return []byte(`{"__type":"InternalServerException","message":"internal error"}`)
	}
	return out
}
