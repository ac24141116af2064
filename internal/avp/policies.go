package avp

import (
	"context"
	"errors"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
)

// staticDefinition is a policy's own text. The description is AVP's and has no part in any decision.
type staticDefinition struct {
	Statement   string  `json:"statement"`
	Description *string `json:"description,omitempty"`
}

// linkDefinition names a template and what fills its slots. A slot that the template has not is refused
// by the service, as is one that stays empty.
type linkDefinition struct {
	PolicyTemplateID string            `json:"policyTemplateId"`
	Principal        *entityIdentifier `json:"principal,omitempty"`
	Resource         *entityIdentifier `json:"resource,omitempty"`
}

// policyDefinition is a union. It serves input and output: exactly one member is set in either.
type policyDefinition struct {
	Static         *staticDefinition `json:"static,omitzero"`
	TemplateLinked *linkDefinition   `json:"templateLinked,omitzero"`
}

// validate wants a statement; whether it parses and validates is the service's to say, with
// line and column.
func (d *policyDefinition) validate(f *findings) {
	f.oneOf("definition", d.Static != nil, d.TemplateLinked != nil)
	if link := d.TemplateLinked; link != nil {
		f.id("definition.templateLinked.policyTemplateId", link.PolicyTemplateID)
		if link.Principal != nil {
			f.entity("definition.templateLinked.principal", *link.Principal)
		}
		if link.Resource != nil {
			f.entity("definition.templateLinked.resource", *link.Resource)
		}
	}
	if d.Static != nil {
		f.required("definition.static.statement", d.Static.Statement != "")
		f.description("definition.static.description", d.Static.Description)
	}
}

// definitionOf is what GetPolicy shows of how a policy is made. A link
// has no text of its own: what it says is in its template.
func definitionOf(p *policystore.Policy) policyDefinition {
	if p.Link == nil {
		return policyDefinition{Static: &staticDefinition{Statement: p.Statement, Description: optional(p.Description)}}
	}
	return policyDefinition{TemplateLinked: linkOf(p.Link)}
}

// linkOf leaves out a slot that is empty.
func linkOf(link *policystore.Link) *linkDefinition {
	return &linkDefinition{PolicyTemplateID: string(link.Template),
		Principal: entityOrNone(link.Principal), Resource: entityOrNone(link.Resource)}
}

// createPolicyInput may have a clientToken: SDKs draw one for each call and send it again with a retry.
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

// policyHead is what every answer about a policy has. Principal, resource and actions are what the
// scope names; left out where it names none, or several. They are read from the policy, and for a link
// from its template and slots together.
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

// The two values of policyType.
const typeStatic, typeTemplateLinked = "STATIC", "TEMPLATE_LINKED"

// headOf takes the policy store's id from the request, where it has been resolved.
func headOf(policyStoreID string, p *policystore.Policy) policyHead {
	return policyHead{
		PolicyStoreID: policyStoreID, PolicyID: string(p.ID), PolicyType: typeOf(p),
		Principal: entityOrNone(p.Principal), Resource: entityOrNone(p.Resource), Actions: actionsOf(p.Actions),
		Effect: effectOf(p.Forbids), CreatedDate: timestamp(p.CreatedAt), LastUpdatedDate: timestamp(p.UpdatedAt),
	}
}

// typeOf tells by the link: there is no third type.
func typeOf(p *policystore.Policy) string {
	if p.Link != nil {
		return typeTemplateLinked
	}
	return typeStatic
}

// createPolicy does nothing for a call that is repeated with its token, and answers as it did.
func (h *handler) createPolicy(ctx context.Context, c access.Caller, in *createPolicyInput) (policyHead, error) {
	policy := policystore.NewPolicy{Name: bareName(in.Name), ClientToken: textOf(in.ClientToken)}
	if d := in.Definition.Static; d != nil {
		policy.Statement, policy.Description = d.Statement, textOf(d.Description)
	}
	if d := in.Definition.TemplateLinked; d != nil {
		link := policystore.Link{Template: copse.PolicyTemplateID(d.PolicyTemplateID)}
		if d.Principal != nil {
			link.Principal = d.Principal.uid()
		}
		if d.Resource != nil {
			link.Resource = d.Resource.uid()
		}
		policy.Link = &link
	}
	p, err := h.policyStores.CreatePolicy(ctx, c, copse.PolicyStoreID(in.PolicyStoreID), policy)
	if err != nil {
		return policyHead{}, relocate(err, "statement", "definition.static.statement")
	}
	return headOf(in.PolicyStoreID, &p), nil
}

// relocate names the member of the message that a finding is about: the
// services know the text, not always where the message had it. A finding
// without a place is about the text as a whole. The error given is not changed.
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

// policyInput is what Get, Delete and each item of a batch take.
type policyInput struct {
	policyStoreInput
	// PolicyID is an id, or name/ and a policy's name.
	PolicyID string `json:"policyId"`
}

func (in *policyInput) validate(f *findings) {
	in.policyStoreInput.validate(f)
	f.id("policyId", in.PolicyID)
}

// getPolicyOutput is the one place besides BatchGetPolicy where a statement is shown.
type getPolicyOutput struct {
	policyHead
	Definition policyDefinition `json:"definition"`
	Name       *string          `json:"name,omitempty"`
}

// getPolicy reads the policy as it is stored, whether or not it would validate today.
func (h *handler) getPolicy(ctx context.Context, c access.Caller, in *policyInput) (getPolicyOutput, error) {
	p, err := h.policyStores.GetPolicy(ctx, c, copse.PolicyStoreID(in.PolicyStoreID), copse.PolicyID(in.PolicyID))
	if err != nil {
		return getPolicyOutput{}, err
	}
	return getPolicyOutput{
		policyHead: headOf(in.PolicyStoreID, &p),
		Definition: definitionOf(&p),
		Name:       shownName(p.Name),
	}, nil
}

// updatePolicyInput can change a static policy's text, and any policy's name. Its definition has no
// templateLinked: a link is deleted and made anew, so that no policy changes whom it is about.
type updatePolicyInput struct {
	policyInput
	Definition *struct {
		Static *staticDefinition `json:"static"`
	} `json:"definition"`
	Name *string `json:"name"`
}

// validate refuses an update that changes nothing: it would still be a commit.
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

// updatePolicy may not change effect, principal or resource; the service compares.
func (h *handler) updatePolicy(ctx context.Context, c access.Caller, in *updatePolicyInput) (policyHead, error) {
	var u policystore.PolicyUpdate
	// An absent description leaves the old one: nil goes through as it is.
	if in.Definition != nil {
		u.Statement, u.Description = &in.Definition.Static.Statement, in.Definition.Static.Description
	}
	if in.Name != nil {
		u.Name = new(bareName(in.Name))
	}
	p, err := h.policyStores.UpdatePolicy(ctx, c, copse.PolicyStoreID(in.PolicyStoreID), copse.PolicyID(in.PolicyID), u)
	if err != nil {
		return policyHead{}, relocate(err, "statement", "definition.static.statement")
	}
	return headOf(in.PolicyStoreID, &p), nil
}

// deletePolicy of one that is absent succeeds, as in AVP.
func (h *handler) deletePolicy(ctx context.Context, c access.Caller, in *policyInput) (empty, error) {
	return empty{}, h.policyStores.DeletePolicy(ctx, c, copse.PolicyStoreID(in.PolicyStoreID), copse.PolicyID(in.PolicyID))
}

// entityReference is a union: a certain entity, or none named in the policy's scope.
type entityReference struct {
	Identifier  *entityIdentifier `json:"identifier"`
	Unspecified *bool             `json:"unspecified"`
}

// validate takes nil, which is no condition.
func (r *entityReference) validate(f *findings, path string) {
	if r == nil {
		return
	}
	f.oneOf(path, r.Identifier != nil, r.Unspecified != nil)
	if r.Identifier != nil {
		f.entity(path+".identifier", *r.Identifier)
	}
}

// filter is nil for no condition. Unspecified true asks for policies whose scope names no entity, false
// for those that name one.
func (r *entityReference) filter() *policystore.EntityFilter {
	switch {
	case r == nil:
		return nil
	case r.Identifier != nil:
		return &policystore.EntityFilter{Is: r.Identifier.uid()}
	default:
		return &policystore.EntityFilter{Unspecified: r.Unspecified}
	}
}

// policyFilter's conditions must all be met; its zero value asks for everything.
type policyFilter struct {
	Principal        *entityReference `json:"principal"`
	Resource         *entityReference `json:"resource"`
	PolicyType       *string          `json:"policyType"`
	PolicyTemplateID *string          `json:"policyTemplateId"`
}

// filter is in copse's words. A template that does not exist gives an empty list, since
// nothing is linked to it.
func (p *policyFilter) filter() policystore.PolicyFilter {
	f := policystore.PolicyFilter{Principal: p.Principal.filter(), Resource: p.Resource.filter()}
	if p.PolicyType != nil {
		f.Linked = new(*p.PolicyType == typeTemplateLinked)
	}
	if p.PolicyTemplateID != nil {
		f.Template = copse.PolicyTemplateID(*p.PolicyTemplateID)
	}
	return f
}

type listPoliciesInput struct {
	policyStoreInput
	pageInput
	Filter *policyFilter `json:"filter"`
}

// validate makes an absent filter an empty one, so that both are the same list to a page's token.
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

// policyItem holds no statement, as AVP's. Lists show what a policy is
// about; who wants the text asks for the policy.
type policyItem struct {
	policyHead
	Definition itemDefinition `json:"definition"`
	Name       *string        `json:"name,omitempty"`
}

// itemDefinition is the union of a list's items.
type itemDefinition struct {
	Static         *itemStatic     `json:"static,omitzero"`
	TemplateLinked *linkDefinition `json:"templateLinked,omitzero"`
}

// itemStatic tells that a policy is static also when it has no
// description: the member is there, and empty.
type itemStatic struct {
	Description *string `json:"description,omitempty"`
}

// itemOf is a policy without its statement; of a link, all that it has.
func itemOf(policyStoreID string, p *policystore.Policy) policyItem {
	item := policyItem{policyHead: headOf(policyStoreID, p), Name: shownName(p.Name)}
	if p.Link != nil {
		item.Definition.TemplateLinked = linkOf(p.Link)
	} else {
		item.Definition.Static = &itemStatic{Description: optional(p.Description)}
	}
	return item
}

// listPolicies may give short or empty pages with a nextToken, where a filter fits few of many
// policies. Who pages must go on until there is none.
func (h *handler) listPolicies(ctx context.Context, c access.Caller, in *listPoliciesInput) (listPoliciesOutput, error) {
	out := listPoliciesOutput{Policies: []policyItem{}}
	filter, err := json.Marshal(in.Filter)
	if err != nil {
		return out, err
	}
	// The filter is part of what the token is bound to: with another
	// filter its position would skip policies.
	list := h.list("ListPolicies", c, in.PolicyStoreID, string(filter))
	after, err := list.start(&in.pageInput)
	if err != nil {
		return out, err
	}
	page, next, err := h.policyStores.ListPolicies(ctx, c, copse.PolicyStoreID(in.PolicyStoreID), in.Filter.filter(),
		copse.PolicyID(after), in.size(defaultResults))
	if err != nil {
		return out, err
	}
	for i := range page {
		out.Policies = append(out.Policies, itemOf(in.PolicyStoreID, &page[i]))
	}
	out.NextToken = list.next(next != "", string(next))
	return out, nil
}
