package avp

import (
	"context"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
)

// createPolicyTemplateInput has placeholders in its statement, for principal, resource or both. That it
// has at least one is the service's to check.
type createPolicyTemplateInput struct {
	policyStoreInput
	Statement   string  `json:"statement"`
	Description *string `json:"description"`
	Name        *string `json:"name"`
	ClientToken *string `json:"clientToken"`
}

func (in *createPolicyTemplateInput) validate(f *findings) {
	in.policyStoreInput.validate(f)
	f.required("statement", in.Statement != "")
	f.description("description", in.Description)
	f.policyName(in.Name)
	f.clientToken(in.ClientToken)
}

// templateHead is what every answer about a template has.
type templateHead struct {
	PolicyStoreID    string    `json:"policyStoreId"`
	PolicyTemplateID string    `json:"policyTemplateId"`
	CreatedDate      timestamp `json:"createdDate"`
	LastUpdatedDate  timestamp `json:"lastUpdatedDate"`
}

// templateHeadOf takes the policy store's id from the request, where it has been resolved.
func templateHeadOf(policyStoreID string, t *policystore.Template) templateHead {
	return templateHead{PolicyStoreID: policyStoreID, PolicyTemplateID: string(t.ID),
		CreatedDate: timestamp(t.CreatedAt), LastUpdatedDate: timestamp(t.UpdatedAt)}
}

// createPolicyTemplate does nothing for a call that is repeated with its token, and answers as it did.
func (h *handler) createPolicyTemplate(ctx context.Context, c access.Caller, in *createPolicyTemplateInput) (templateHead, error) {
	t, err := h.policyStores.CreateTemplate(ctx, c, copse.PolicyStoreID(in.PolicyStoreID), policystore.NewTemplate{
		Name: bareName(in.Name), Statement: in.Statement, Description: textOf(in.Description), ClientToken: textOf(in.ClientToken),
	})
	if err != nil {
		return templateHead{}, err
	}
	return templateHeadOf(in.PolicyStoreID, &t), nil
}

// policyTemplateInput is what Get and Delete take.
type policyTemplateInput struct {
	policyStoreInput
	// PolicyTemplateID is an id, or name/ and a template's name.
	PolicyTemplateID string `json:"policyTemplateId"`
}

func (in *policyTemplateInput) validate(f *findings) {
	in.policyStoreInput.validate(f)
	f.id("policyTemplateId", in.PolicyTemplateID)
}

// templateItem holds no statement, as AVP's.
type templateItem struct {
	templateHead
	Description *string `json:"description,omitempty"`
	Name        *string `json:"name,omitempty"`
}

// templateItemOf leaves out description and name where they are empty.
func templateItemOf(policyStoreID string, t *policystore.Template) templateItem {
	return templateItem{templateHead: templateHeadOf(policyStoreID, t), Description: optional(t.Description), Name: shownName(t.Name)}
}

type getPolicyTemplateOutput struct {
	templateItem
	Statement string `json:"statement"`
}

// getPolicyTemplate is the only operation that shows a template's text.
func (h *handler) getPolicyTemplate(ctx context.Context, c access.Caller, in *policyTemplateInput) (getPolicyTemplateOutput, error) {
	t, err := h.policyStores.GetTemplate(ctx, c, copse.PolicyStoreID(in.PolicyStoreID), copse.PolicyTemplateID(in.PolicyTemplateID))
	if err != nil {
		return getPolicyTemplateOutput{}, err
	}
	return getPolicyTemplateOutput{templateItem: templateItemOf(in.PolicyStoreID, &t), Statement: t.Statement}, nil
}

// updatePolicyTemplateInput must repeat the statement; description and
// name stay when they are left out.
type updatePolicyTemplateInput struct {
	policyTemplateInput
	Statement   string  `json:"statement"`
	Description *string `json:"description"`
	Name        *string `json:"name"`
}

func (in *updatePolicyTemplateInput) validate(f *findings) {
	in.policyTemplateInput.validate(f)
	f.required("statement", in.Statement != "")
	f.description("description", in.Description)
	f.policyName(in.Name)
}

// updatePolicyTemplate changes all linked policies with it, in the one commit of the template. Effect,
// principal and resource of the scope must stay.
func (h *handler) updatePolicyTemplate(ctx context.Context, c access.Caller, in *updatePolicyTemplateInput) (templateHead, error) {
	u := policystore.TemplateUpdate{Statement: in.Statement, Description: in.Description}
	if in.Name != nil {
		u.Name = new(bareName(in.Name))
	}
	t, err := h.policyStores.UpdateTemplate(ctx, c, copse.PolicyStoreID(in.PolicyStoreID), copse.PolicyTemplateID(in.PolicyTemplateID), u)
	if err != nil {
		return templateHead{}, err
	}
	return templateHeadOf(in.PolicyStoreID, &t), nil
}

// deletePolicyTemplate takes all linked policies along: none of them decides anything once it returns.
// Other than with a policy, one that is absent is NotFound.
func (h *handler) deletePolicyTemplate(ctx context.Context, c access.Caller, in *policyTemplateInput) (empty, error) {
	return empty{}, h.policyStores.DeleteTemplate(ctx, c, copse.PolicyStoreID(in.PolicyStoreID), copse.PolicyTemplateID(in.PolicyTemplateID))
}

// listPolicyTemplatesInput has no filter in AVP.
type listPolicyTemplatesInput struct {
	policyStoreInput
	pageInput
}

func (in *listPolicyTemplatesInput) validate(f *findings) {
	in.policyStoreInput.validate(f)
	in.pageInput.validate(f)
}

type listPolicyTemplatesOutput struct {
	PolicyTemplates []templateItem `json:"policyTemplates"`
	NextToken       string         `json:"nextToken,omitempty"`
}

// listPolicyTemplates has templates in order of id.
func (h *handler) listPolicyTemplates(ctx context.Context, c access.Caller, in *listPolicyTemplatesInput) (listPolicyTemplatesOutput, error) {
	out := listPolicyTemplatesOutput{PolicyTemplates: []templateItem{}}
	list := h.list("ListPolicyTemplates", c, in.PolicyStoreID)
	after, err := list.start(&in.pageInput)
	if err != nil {
		return out, err
	}
	page, more, err := h.policyStores.ListTemplates(ctx, c, copse.PolicyStoreID(in.PolicyStoreID),
		copse.PolicyTemplateID(after), in.size(defaultResults))
	if err != nil {
		return out, err
	}
	// The last id looked at is where the next page goes on.
	for i := range page {
		out.PolicyTemplates = append(out.PolicyTemplates, templateItemOf(in.PolicyStoreID, &page[i]))
		after = string(page[i].ID)
	}
	out.NextToken = list.next(more, after)
	return out, nil
}
