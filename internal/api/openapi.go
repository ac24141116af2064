package api

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"
)

// humaConfig switches off what huma adds by itself: documentation pages, schema routes
// and links, other formats, other versions of the document. Every format is ours and
// strict; errors take their form on the way out.
func (a *API) humaConfig(version string) huma.Config {
	if version == "" {
		version = "unknown"
	}
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "copse control API", Version: version,
				Description: "Tenants, the issuers that may speak for them, their policy stores and plans, and access keys. " +
					"And POST /v1/authorize, which decides for the user of a token.",
			},
			Tags: []*huma.Tag{
				{Name: tagTenants, Description: "The directory: each tenant has a policy store of its own."},
				{Name: tagMembers, Description: "Who is in which tenants, and which of them is active; the token hook asks here."},
				{Name: tagIssuers, Description: "Identity providers whose tokens are trusted, and for which tenants."},
				{Name: tagPolicyStores, Description: "Schema and policies. A key may cover one policy store; all others then do not exist for it."},
				{Name: tagBackup, Description: "Everything that is stored, but for the master key."},
				{Name: tagSupport, Description: "What is wrong with the server itself."},
				{Name: tagAudit, Description: "Every change, by whom, and the uses of access keys that failed."},
				{Name: tagDecisionLog, Description: "The decision log."},
				{Name: tagPlans, Description: "Named sets of quotas. Each policy store is on one."},
				{Name: tagKeys, Description: "Access keys: what they cover and what they may do there."},
				{Name: tagDecisions, Description: "May the user of this token do this?"},
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry(schemaPrefix, huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					securityBearer: {Type: "http", Scheme: "bearer", BearerFormat: "copse_<id>_<secret>",
						Description: "An access key's id and secret as one credential."},
					securitySigV4: {Type: "apiKey", In: "header", Name: "Authorization",
						Description: "AWS Signature Version 4 with an access key's id and secret, service verifiedpermissions. A body of more than 1 MB needs the header X-Amz-Content-Sha256."},
					securityUser: {Type: "http", Scheme: "bearer", BearerFormat: "JWT",
						Description: "The user's token, from an issuer that is registered for the user's tenant."},
				},
			},
		},
		Formats:       map[string]huma.Format{contentType: strictJSON, "json": strictJSON},
		DefaultFormat: contentType,
		Transformers:  []huma.Transformer{a.transform},
	}
}

// Names in the document: tags, and the ways to show who one is.
const (
	schemaPrefix = "#/components/schemas/"

	tagTenants      = "tenants"
	tagIssuers      = "issuers"
	tagPolicyStores = "policy stores"
	tagPlans        = "plans"
	tagBackup       = "backup"
	tagSupport      = "support"
	tagAudit        = "audit log"
	tagDecisionLog  = "decision log"
	tagKeys         = "keys"
	tagMembers      = "members"
	tagDecisions    = "decisions"

	securityBearer = "accessKey"
	securitySigV4  = "sigV4"
	securityUser   = "userToken"
)

// keySecurity says that either form will do.
func keySecurity() []map[string][]string {
	return []map[string][]string{{securityBearer: {}}, {securitySigV4: {}}}
}

// everyError are the statuses any operation may answer with. Those that only some operations have are
// in their routes.
var everyError = []int{
	http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestEntityTooLarge,
	http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable,
}

// errorResponses describes all with one shape, since there is one.
func errorResponses(schemas huma.Registry, errorStatuses []int) map[string]*huma.Response {
	responses := make(map[string]*huma.Response, len(errorStatuses))
	for _, status := range errorStatuses {
		responses[strconv.Itoa(status)] = &huma.Response{
			Description: http.StatusText(status),
			Content: map[string]*huma.MediaType{
				contentType: {Schema: schemas.Schema(reflect.TypeFor[ErrorBody](), true, "")},
			},
		}
	}
	return responses
}

// describeAuthorize documents the one route under /v1 that another package serves. It must be kept in
// step by hand, which [API.Conforms] lets the authorizer's tests check.
func describeAuthorize(doc *huma.OpenAPI) {
	schemas := doc.Components.Schemas
	responses := errorResponses(schemas, everyError)
	responses["401"].Description = "The token does not verify."
	responses["403"].Description = "The tenant is unknown or suspended, or the token's issuer may not speak for it, or the key does not cover it: one answer for all of them."
	responses["503"].Description = "The answer can't be known now."
	responses["200"] = &huma.Response{
		Description: "The decision. A denial is a decision too.",
		Content: map[string]*huma.MediaType{
			contentType: {Schema: schemas.Schema(reflect.TypeFor[AuthorizeResponse](), true, "")},
		},
	}
	// Headers are not in Go types, so they are named here.
	text := &huma.Schema{Type: huma.TypeString}
	doc.AddOperation(&huma.Operation{
		Method: http.MethodPost, Path: "/v1/authorize", OperationID: "authorize", Tags: []string{tagDecisions},
		Summary:     "Decide",
		Description: "The tenant and the principal come from the verified token, and from nowhere else. The body is at most 1 MB.",
		Security:    []map[string][]string{{securityUser: {}}},
		Parameters: []*huma.Param{
			{Name: "X-Copse-Key", In: "header", Schema: text, Description: "An access key (copse_<id>_<secret>) with decide on the tenant's policy store, to be told which policies decided."},
			{Name: "X-Copse-Tenant", In: "header", Schema: text, Description: "The tenant the caller believes in. The call fails when the token names another."},
		},
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			contentType: {Schema: schemas.Schema(reflect.TypeFor[AuthorizeRequest](), true, "")},
		}},
		Responses: responses,
	})
}

// describeGatewayRequest documents the form for gateways, which the authorizer serves too.
func describeGatewayRequest(doc *huma.OpenAPI) {
	schemas := doc.Components.Schemas
	responses := errorResponses(schemas, everyError)
	responses["401"].Description = "The token does not verify."
	responses["403"].Description = "No route matches, the request can be read in more than one way, or the tenant's case of POST /v1/authorize: one answer for all of them."
	responses["503"].Description = "The answer can't be known now."
	responses["200"] = &huma.Response{
		Description: "The decision, and the headers to set for the service. A denial is a decision too.",
		Content: map[string]*huma.MediaType{
			contentType: {Schema: schemas.Schema(reflect.TypeFor[GatewayAnswer](), true, "")},
		},
	}
	doc.AddOperation(&huma.Operation{
		Method: http.MethodPost, Path: "/v1/authorize/request", OperationID: "authorizeRequest", Tags: []string{tagDecisions},
		Summary:     "Decide on a request at a gateway",
		Description: "The route table says what the request asks; tenant and principal come from the verified token. The body is at most 64 KB.",
		Security:    []map[string][]string{{securityUser: {}}},
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			contentType: {Schema: schemas.Schema(reflect.TypeFor[GatewayRequest](), true, "")},
		}},
		Responses: responses,
	})
}

// TransformSchema says that exactly one format is given.
func (*AuthorizeContext) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	return exactlyOneMember(s)
}

// TransformSchema says that exactly one format is given.
func (*AuthorizeEntities) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	return exactlyOneMember(s)
}

// TransformSchema refuses an update of nothing, which would be a mistake of the caller's.
func (*UpdatePolicyStoreRequest) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.MinProperties = new(1)
	return s
}

// exactlyOneMember can be said of an object in which every member is one of the choices.
func exactlyOneMember(s *huma.Schema) *huma.Schema {
	s.MinProperties, s.MaxProperties = new(1), new(1)
	return s
}

// finish leaves out of the document what huma registers for errors of its own, and freezes it.
func finish(doc *huma.OpenAPI) ([]byte, error) {
	delete(doc.Components.Schemas.Map(), "ErrorModel")
	delete(doc.Components.Schemas.Map(), "ErrorDetail")
	return doc.MarshalJSON()
}

// Conforms checks a JSON text against a schema of the document, by name: that the text is what the
// document describes, and that the Go type made from the same source reads it. Both are asked, because
// each takes something that the other refuses.
func (a *API) Conforms(schema string, text []byte) error {
	ref := schemaPrefix + schema
	if a.schemas.SchemaFromRef(ref) == nil {
		return fmt.Errorf("the document has no schema %q", schema)
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return err
	}
	var found huma.ValidateResult
	huma.Validate(a.schemas, a.schemas.SchemaFromRef(ref), huma.NewPathBuffer(nil, 0), huma.ModeReadFromServer, value, &found)
	if len(found.Errors) > 0 {
		return errors.Join(found.Errors...)
	}
	// The schema's check takes names that differ in case; the type's does not.
	return json.Unmarshal(text, reflect.New(a.schemas.TypeFromRef(ref)).Interface(), json.RejectUnknownMembers(true))
}
