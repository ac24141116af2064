package remote

import (
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/verifiedpermissions/types"

	"github.com/copse-authz/copse"
)

// Contents is what the API tells of a policy store. Its parts keep the ids they had where they came
// from, so that links find their templates; they get new ones where they are imported.
type Contents struct {
	PolicyStoreID      string            `json:"policyStoreId"`
	Description        string            `json:"description,omitzero"`
	Validation         string            `json:"validation"` // STRICT or OFF
	DeletionProtection bool              `json:"deletionProtection"`
	Tags               map[string]string `json:"tags,omitzero"`
	Aliases            []string          `json:"aliases,omitzero"` // with their prefix
	Schema             string            `json:"-"`                // Cedar's JSON syntax; empty: none
	Templates          []Template        `json:"templates,omitzero"`
	Policies           []Policy          `json:"policies,omitzero"`
	IdentitySources    []IdentitySource  `json:"identitySources,omitzero"`
}

// Template is a policy template.
type Template struct {
	ID          string `json:"id"`
	Name        string `json:"name,omitzero"`
	Description string `json:"description,omitzero"`
	Statement   string `json:"-"`
	File        string `json:"file,omitzero"` // where the statement is, in a directory
}

// Policy is static, with a Statement, or linked to a template.
type Policy struct {
	ID          string  `json:"id"`
	Name        string  `json:"name,omitzero"`
	Description string  `json:"description,omitzero"`
	Statement   string  `json:"-"`
	File        string  `json:"file,omitzero"`
	TemplateID  string  `json:"templateId,omitzero"`
	Principal   *Entity `json:"principal,omitzero"`
	Resource    *Entity `json:"resource,omitzero"`
}

// Entity names what fills a template's slot. It is nil for a slot that the template has not.
type Entity struct {
	Type string `json:"type"`
	ID   string `json:"id"`
}

// IdentitySource has one of the two configurations.
type IdentitySource struct {
	ID            string     `json:"id"`
	PrincipalType string     `json:"principalType,omitzero"`
	UserPool      *UserPool  `json:"cognitoUserPool,omitzero"`
	OpenID        *OpenIDRef `json:"openIdConnect,omitzero"`
}

// UserPool is a Cognito user pool.
type UserPool struct {
	ARN       string   `json:"arn"`
	ClientIDs []string `json:"clientIds,omitzero"`
	GroupType string   `json:"groupType,omitzero"`
}

// OpenIDRef is a provider of OpenID Connect. Audiences are set for access tokens; for ID tokens, which
// it accepts otherwise, ClientIDs.
type OpenIDRef struct {
	Issuer         string   `json:"issuer"`
	AccessTokens   bool     `json:"accessTokens"`
	Audiences      []string `json:"audiences,omitzero"`
	ClientIDs      []string `json:"clientIds,omitzero"`
	PrincipalClaim string   `json:"principalClaim,omitzero"`
	EntityIDPrefix string   `json:"entityIdPrefix,omitzero"`
	GroupClaim     string   `json:"groupClaim,omitzero"`
	GroupType      string   `json:"groupType,omitzero"`
}

// Note is one thing that is not as it was. Its texts are for people; What is a word of a fixed set.
type Note struct {
	What string `json:"what"` // "policy", "alias", "encryption", ...
	ID   string `json:"id,omitzero"`
	Why  string `json:"why"`
}

// Report tells what could not be carried, and the ids that things got. A report is worth reading after
// a success too: what could not be carried is no error.
type Report struct {
	Notes []Note `json:"notes"`
	// NewIDs maps the ids of templates, policies and identity sources to those they have now.
	NewIDs map[string]string `json:"newIds,omitzero"`
}

// note adds to the report.
func (r *Report) note(what, id, why string) {
	r.Notes = append(r.Notes, Note{What: what, ID: id, Why: why})
}

// check finds what an import would only trip over when half of it is done. It asks nobody; names and
// texts are for the side that gets them to check. Every error is Invalid.
func (c *Contents) check() error {
	if c.Validation != string(types.ValidationModeStrict) && c.Validation != string(types.ValidationModeOff) {
		return copse.Errorf(copse.Invalid, "validation is %q; it must be STRICT or OFF", c.Validation)
	}
	// A link must find its template among the contents, under the id that it has there.
	templates := map[string]bool{}
	for _, t := range c.Templates {
		if t.ID == "" || templates[t.ID] || t.Statement == "" {
			return copse.Errorf(copse.Invalid, "template %q: every template has an id of its own and a statement", t.ID)
		}
		templates[t.ID] = true
	}
	policies := map[string]bool{}
	for _, p := range c.Policies {
		switch {
		case p.ID == "" || policies[p.ID]:
			return copse.Errorf(copse.Invalid, "policy %q: every policy has an id of its own", p.ID)
		// Both would be two policies under one id, neither would be none.
		case (p.Statement == "") == (p.TemplateID == ""):
			return copse.Errorf(copse.Invalid, "policy %q has a statement or a template, one of the two", p.ID)
		case p.TemplateID != "" && !templates[p.TemplateID]:
			return copse.Errorf(copse.Invalid, "policy %q is linked to template %q, which is not among the contents", p.ID, p.TemplateID)
		}
		policies[p.ID] = true
	}
	for _, s := range c.IdentitySources {
		if (s.UserPool == nil) == (s.OpenID == nil) {
			return copse.Errorf(copse.Invalid, "identity source %q is a user pool or a provider of OpenID Connect, one of the two", s.ID)
		}
	}
	return nil
}

// entityOf is nil for nil, as is [Entity.identifier].
func entityOf(e *types.EntityIdentifier) *Entity {
	if e == nil {
		return nil
	}
	return &Entity{Type: text(e.EntityType), ID: text(e.EntityId)}
}

// identifier shares the entity's texts.
func (e *Entity) identifier() *types.EntityIdentifier {
	if e == nil {
		return nil
	}
	return &types.EntityIdentifier{EntityType: &e.Type, EntityId: &e.ID}
}

// text is empty for an absent member.
func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// optional is the absent member for an empty text.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// fieldsOf are the findings of a ValidationException. They are nil for any other error.
func fieldsOf(err error) []copse.Field {
	e, ok := errors.AsType[*types.ValidationException](err)
	if !ok {
		return nil
	}
	fields := make([]copse.Field, len(e.FieldList))
	for i, f := range e.FieldList {
		fields[i] = copse.Field{Path: text(f.Path), Message: text(f.Message)}
	}
	return fields
}

// describe is an error's text for a note: findings tell more than the API's bare message.
func describe(err error) string {
	e, ok := errors.AsType[*copse.Error](err)
	if !ok || len(e.Fields) == 0 {
		return err.Error()
	}
	var b strings.Builder
	b.WriteString(e.Detail)
	for _, f := range e.Fields {
		fmt.Fprintf(&b, "; %s", f.Message)
	}
	return b.String()
}
