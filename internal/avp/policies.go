package avp

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
)

type staticDefinition struct {
	Statement   string  `json:"statement"`
	Description *string `json:"description,omitempty"`
}

// policyDefinition is a union. Template-linked policies are known, and refused until copse has
// templates.
type policyDefinition struct {
	Static         *staticDefinition `json:"static"`
	TemplateLinked *struct {
		PolicyTemplateID string            `json:"policyTemplateId"`
		Principal        *entityIdentifier `json:"principal"`
		Resource         *entityIdentifier `json:"resource"`
	} `json:"templateLinked"`
}

func (d *policyDefinition) validate(f *findings) {
	f.oneOf("definition", d.Static != nil, d.TemplateLinked != nil)
	if d.TemplateLinked != nil {
		f.add("definition.templateLinked", "copse does not have policy templates yet; use static")
	}
	if d.Static != nil {
		f.required("definition.static.statement", d.Static.Statement != "")
		f.description("definition.static.description", d.Static.Description)
	}
}

type createPolicyInput struct {
	policyStoreInput
	Definition  *policyDefinition `json:"definition"`
	ClientToken *string           `json:"clientToken"`
	Name        *string           `json:"name"`
}

func (in *createPolicyInput) validate(f *findings) {
	in.policyStoreInput.validate(f)
	if f.required("definition", in.Definition != nil) {
		in.Definition.validate(f)
	}
	f.clientToken(in.ClientToken)
	f.policyName(in.Name)
}

// policyHead is what every answer about a policy has.
type policyHead struct {
	PolicyStoreID   string             `json:"policyStoreId"`
	PolicyID        string             `json:"policyId"`
	PolicyType      string             `json:"policyType"`
	Principal       *entityIdentifier  `json:"principal,omitempty"`
	Resource        *entityIdentifier  `json:"resource,omitempty"`
	Actions         []actionIdentifier `json:"actions,omitempty"`
	Effect          string             `json:"effect"`
	CreatedDate     timestamp          `json:"createdDate"`
	LastUpdatedDate timestamp          `json:"lastUpdatedDate"`
}

const typeStatic, typeTemplateLinked = "STATIC", "TEMPLATE_LINKED"

func headOf(policyStoreID string, p *policystore.Policy) policyHead {
	return policyHead{
		PolicyStoreID: policyStoreID, PolicyID: string(p.ID), PolicyType: typeStatic,
		Principal: entityOrNone(p.Principal), Resource: entityOrNone(p.Resource), Actions: actionsOf(p.Actions),
		Effect: effectOf(p.Forbids), CreatedDate: timestamp(p.CreatedAt), LastUpdatedDate: timestamp(p.UpdatedAt),
	}
}

func (h *handler) createPolicy(ctx context.Context, c access.Caller, in *createPolicyInput) (policyHead, error) {
	text := policystore.NewPolicy{Statement: in.Definition.Static.Statement}
	if d := in.Definition.Static.Description; d != nil {
		text.Description = *d
	}
	if in.Name != nil {
		text.Name = strings.TrimPrefix(*in.Name, namePrefix)
	}
	if in.ClientToken != nil {
		text.ClientToken = *in.ClientToken
	}
	p, err := h.policyStores.CreatePolicy(ctx, c, copse.PolicyStoreID(in.PolicyStoreID), text)
	if err != nil {
		return policyHead{}, relocate(err, "statement", "definition.static.statement")
	}
	return headOf(in.PolicyStoreID, &p), nil
}

// relocate names the member of the message that a finding is about: the services know the text, not
// always where the message had it. A finding without a place is about the text as a whole.
func relocate(err error, from, to string) error {
	e, ok := errors.AsType[*copse.Error](err)
	if !ok || e.Kind != copse.Invalid {
		return err
	}
	moved := *e
	moved.Fields = slices.Clone(e.Fields)
	for i, f := range moved.Fields {
		if f.Path == "" || f.Path == from {
			moved.Fields[i].Path = to
		}
	}
	if len(moved.Fields) == 0 {
		moved.Fields = []copse.Field{{Path: to, Message: e.Detail}}
	}
	return &moved
}

type policyInput struct {
	policyStoreInput
	// PolicyID is an id, or name/ and a policy's name.
	PolicyID string `json:"policyId"`
}

func (in *policyInput) validate(f *findings) {
	in.policyStoreInput.validate(f)
	f.id("policyId", in.PolicyID)
}

type getPolicyOutput struct {
	policyHead
	Definition definitionDetail `json:"definition"`
	Name       *string          `json:"name,omitempty"`
}

type definitionDetail struct {
	Static staticDefinition `json:"static"`
}

func (h *handler) getPolicy(ctx context.Context, c access.Caller, in *policyInput) (getPolicyOutput, error) {
	p, err := h.policyStores.GetPolicy(ctx, c, copse.PolicyStoreID(in.PolicyStoreID), copse.PolicyID(in.PolicyID))
	if err != nil {
		return getPolicyOutput{}, err
	}
	return getPolicyOutput{
		policyHead: headOf(in.PolicyStoreID, &p),
		Definition: definitionDetail{Static: staticDefinition{Statement: p.Statement, Description: optional(p.Description)}},
		Name:       shownName(p.Name),
	}, nil
}

type updatePolicyInput struct {
	policyInput
	Definition *struct {
		Static *staticDefinition `json:"static"`
	} `json:"definition"`
	Name *string `json:"name"`
}

func (in *updatePolicyInput) validate(f *findings) {
	in.policyInput.validate(f)
	if in.Definition == nil && in.Name == nil {
		f.add("definition", "Member must not be null unless name is given: there is nothing to change")
	}
	if in.Definition != nil && f.oneOf("definition", in.Definition.Static != nil) {
		f.required("definition.static.statement", in.Definition.Static.Statement != "")
		f.description("definition.static.description", in.Definition.Static.Description)
	}
	f.policyName(in.Name)
}

func (h *handler) updatePolicy(ctx context.Context, c access.Caller, in *updatePolicyInput) (policyHead, error) {
	var u policystore.PolicyUpdate
	if in.Definition != nil {
		u.Statement, u.Description = &in.Definition.Static.Statement, in.Definition.Static.Description
	}
	if in.Name != nil {
		u.Name = new(strings.TrimPrefix(*in.Name, namePrefix))
	}
	p, err := h.policyStores.UpdatePolicy(ctx, c, copse.PolicyStoreID(in.PolicyStoreID), copse.PolicyID(in.PolicyID), u)
	if err != nil {
		return policyHead{}, relocate(err, "statement", "definition.static.statement")
	}
	return headOf(in.PolicyStoreID, &p), nil
}

func (h *handler) deletePolicy(ctx context.Context, c access.Caller, in *policyInput) (empty, error) {
	return empty{}, h.policyStores.DeletePolicy(ctx, c, copse.PolicyStoreID(in.PolicyStoreID), copse.PolicyID(in.PolicyID))
}

// entityReference is a union: a certain entity, or none named in the policy's scope.
type entityReference struct {
	Identifier  *entityIdentifier `json:"identifier"`
	Unspecified *bool             `json:"unspecified"`
}

func (r *entityReference) validate(f *findings, path string) {
	if r == nil {
		return
	}
	f.oneOf(path, r.Identifier != nil, r.Unspecified != nil)
	if r.Identifier != nil {
		f.entity(path+".identifier", *r.Identifier)
	}
}

// matches tells whether a policy whose scope names uid (zero: no single entity) is asked for.
func (r *entityReference) matches(uid types.EntityUID) bool {
	switch {
	case r == nil:
		return true
	case r.Identifier != nil:
		return uid == r.Identifier.uid()
	default:
		return *r.Unspecified == (uid == types.EntityUID{})
	}
}

type policyFilter struct {
	Principal        *entityReference `json:"principal"`
	Resource         *entityReference `json:"resource"`
	PolicyType       *string          `json:"policyType"`
	PolicyTemplateID *string          `json:"policyTemplateId"`
}

// matchesNothing: there are no template-linked policies yet.
func (p *policyFilter) matchesNothing() bool {
	return p.PolicyTemplateID != nil || p.PolicyType != nil && *p.PolicyType != typeStatic
}

type listPoliciesInput struct {
	policyStoreInput
	pageInput
	Filter *policyFilter `json:"filter"`
}

func (in *listPoliciesInput) validate(f *findings) {
	in.policyStoreInput.validate(f)
	in.pageInput.validate(f)
	if in.Filter == nil {
		in.Filter = &policyFilter{}
	}
	in.Filter.Principal.validate(f, "filter.principal")
	in.Filter.Resource.validate(f, "filter.resource")
	if t := in.Filter.PolicyType; t != nil {
		f.enum("filter.policyType", *t, typeStatic, typeTemplateLinked)
	}
	if t := in.Filter.PolicyTemplateID; t != nil {
		f.id("filter.policyTemplateId", *t)
	}
}

type listPoliciesOutput struct {
	Policies  []policyItem `json:"policies"`
	NextToken string       `json:"nextToken,omitempty"`
}

// policyItem holds no statement, as AVP's.
type policyItem struct {
	policyHead
	Definition itemDefinition `json:"definition"`
	Name       *string        `json:"name,omitempty"`
}

type itemDefinition struct {
	Static struct {
		Description *string `json:"description,omitempty"`
	} `json:"static"`
}

// maxScan bounds the policies one call looks at: a filter that matches few gives short pages instead
// of a slow answer.
const maxScan = 1000

func (h *handler) listPolicies(ctx context.Context, c access.Caller, in *listPoliciesInput) (listPoliciesOutput, error) {
	out := listPoliciesOutput{Policies: []policyItem{}}
	filter, err := json.Marshal(in.Filter)
	if err != nil {
		return out, err
	}
	list := h.list("ListPolicies", c, in.PolicyStoreID, string(filter))
	limit := in.size(defaultResults)
	after, err := list.start(&in.pageInput)
	if err != nil {
		return out, err
	}
	more := true
	for scanned := 0; more && scanned < maxScan && len(out.Policies) < limit; {
		var page []policystore.Policy
		page, more, err = h.policyStores.ListPolicies(ctx, c, copse.PolicyStoreID(in.PolicyStoreID),
			copse.PolicyID(after), limit-len(out.Policies))
		if err != nil {
			return out, err
		}
		more = more && len(page) > 0
		for i := range page {
			p := &page[i]
			after = string(p.ID)
			if !in.Filter.matchesNothing() && in.Filter.Principal.matches(p.Principal) && in.Filter.Resource.matches(p.Resource) {
				item := policyItem{policyHead: headOf(in.PolicyStoreID, p), Name: shownName(p.Name)}
				item.Definition.Static.Description = optional(p.Description)
				out.Policies = append(out.Policies, item)
			}
		}
		scanned += len(page)
		more = more && !in.Filter.matchesNothing()
	}
	out.NextToken = list.next(more, after)
	return out, nil
}
