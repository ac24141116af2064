package avp

import (
	"context"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
)

// validationSettings are required in requests that write them, and always in the answer.
type validationSettings struct {
	Mode string `json:"mode"`
}

// createPolicyStoreInput makes a policy store of the operator's own; one
// of a tenant comes with the tenant.
type createPolicyStoreInput struct {
	ValidationSettings *validationSettings `json:"validationSettings"`
	ClientToken        *string             `json:"clientToken"`
	DeletionProtection *string             `json:"deletionProtection"`
	Description        *string             `json:"description"`
	EncryptionSettings *encryptionSettings `json:"encryptionSettings"`
	Tags               map[string]string   `json:"tags"`
}

func (in *createPolicyStoreInput) validate(f *findings) {
	f.validationSettings(in.ValidationSettings)
	f.clientToken(in.ClientToken)
	f.description("description", in.Description)
	f.deletionProtection(in.DeletionProtection)
	if in.EncryptionSettings != nil {
		in.EncryptionSettings.validate(f)
	}
	f.tags("tags", in.Tags)
}

// validationSettings is required with every write of them; OFF and STRICT are the model's two modes.
func (f *findings) validationSettings(v *validationSettings) {
	if f.required("validationSettings", v != nil) {
		f.enum("validationSettings.mode", v.Mode, string(copse.ValidationOff), string(copse.ValidationStrict))
	}
}

// deletionProtection passes an absent member: Create takes that as DISABLED, Update leaves what is.
func (f *findings) deletionProtection(p *string) {
	if p != nil {
		f.enum("deletionProtection", *p, protectionEnabled, protectionDisabled)
	}
}

// The two values of deletionProtection.
const (
	protectionEnabled  = "ENABLED"
	protectionDisabled = "DISABLED"
)

// policyStoreCreated is what Create and Update answer, and the head of what Get shows.
type policyStoreCreated struct {
	ARN             string    `json:"arn"`
	CreatedDate     timestamp `json:"createdDate"`
	LastUpdatedDate timestamp `json:"lastUpdatedDate"`
	PolicyStoreID   string    `json:"policyStoreId"`
}

func (h *handler) policyStoreCreated(ps *policystore.PolicyStore) policyStoreCreated {
	return policyStoreCreated{
		ARN: h.arn(ps.ID), PolicyStoreID: string(ps.ID),
		CreatedDate: timestamp(ps.CreatedAt), LastUpdatedDate: timestamp(ps.UpdatedAt),
	}
}

// createPolicyStore needs Admin everywhere; a repeated call with its
// token gets the policy store that the first one made.
func (h *handler) createPolicyStore(ctx context.Context, c access.Caller, in *createPolicyStoreInput) (policyStoreCreated, error) {
	made := policystore.NewPolicyStore{
		Settings:   copse.Settings{Validation: copse.ValidationMode(in.ValidationSettings.Mode)},
		Protected:  in.DeletionProtection != nil && *in.DeletionProtection == protectionEnabled,
		Encryption: h.encryption(in.EncryptionSettings), Tags: in.Tags,
	}
	if in.Description != nil {
		made.Description = *in.Description
	}
	made.ClientToken = textOf(in.ClientToken)
	ps, err := h.policyStores.Create(ctx, c, made)
	if err != nil {
		return policyStoreCreated{}, err
	}
	return h.policyStoreCreated(&ps), nil
}

// policyStoreInput is part of every input that names a policy store by id or
// alias; the alias is resolved before the operation runs. Every operation that
// embeds it gets an id: [serve] replaces the alias by what target points to.
type policyStoreInput struct {
	PolicyStoreID string `json:"policyStoreId"`
}

func (in *policyStoreInput) validate(f *findings) { f.id("policyStoreId", in.PolicyStoreID) }

func (in *policyStoreInput) target() *string { return &in.PolicyStoreID }

// policyStoreIDInput is for the two operations that take no alias. It
// does not embed policyStoreInput, or it would be resolved.
type policyStoreIDInput struct {
	PolicyStoreID string `json:"policyStoreId"`
}

func (in *policyStoreIDInput) validate(f *findings) {
	f.id("policyStoreId", in.PolicyStoreID)
	if _, isAlias := policystore.CutAlias(in.PolicyStoreID); isAlias {
		f.add("policyStoreId", "an alias can't be used here; give the policy store's id")
	}
}

// getPolicyStoreInput shows tags only on request, as AVP does.
type getPolicyStoreInput struct {
	policyStoreInput
	Tags bool `json:"tags"`
}

// getPolicyStoreOutput leaves out tags when there are none, and always has encryptionState.
type getPolicyStoreOutput struct {
	policyStoreCreated
	ValidationSettings validationSettings `json:"validationSettings"`
	CedarVersion       string             `json:"cedarVersion"`
	DeletionProtection string             `json:"deletionProtection"`
	Description        *string            `json:"description,omitempty"`
	EncryptionState    encryptionState    `json:"encryptionState"`
	Tags               map[string]string  `json:"tags,omitempty"`
}

// getPolicyStore reads tags apart from the rest, so the two may be of different revisions.
func (h *handler) getPolicyStore(ctx context.Context, c access.Caller, in *getPolicyStoreInput) (getPolicyStoreOutput, error) {
	id := copse.PolicyStoreID(in.PolicyStoreID)
	ps, err := h.policyStores.Get(ctx, c, id)
	if err != nil {
		return getPolicyStoreOutput{}, err
	}
	out := getPolicyStoreOutput{
		policyStoreCreated: h.policyStoreCreated(&ps),
		ValidationSettings: validationSettings{Mode: string(ps.Settings.Validation)},
		// What is evaluated here is Cedar 4.
		CedarVersion:       "CEDAR_4",
		DeletionProtection: protectionDisabled,
		Description:        optional(ps.Description),
		EncryptionState:    encryptionStateOf(ps.Encryption),
	}
	if ps.Protected {
		out.DeletionProtection = protectionEnabled
	}
	if in.Tags {
		out.Tags, err = h.policyStores.Tags(ctx, c, id)
	}
	return out, err
}

// updatePolicyStoreInput must repeat the validation settings, even when
// only something else changes: AVP requires the member.
type updatePolicyStoreInput struct {
	policyStoreInput
	ValidationSettings *validationSettings `json:"validationSettings"`
	DeletionProtection *string             `json:"deletionProtection"`
	Description        *string             `json:"description"`
}

func (in *updatePolicyStoreInput) validate(f *findings) {
	in.policyStoreInput.validate(f)
	f.validationSettings(in.ValidationSettings)
	f.deletionProtection(in.DeletionProtection)
	f.description("description", in.Description)
}

// updatePolicyStore does not check stored policies when the mode becomes STRICT, as in AVP: each is
// when it is next written.
func (h *handler) updatePolicyStore(ctx context.Context, c access.Caller, in *updatePolicyStoreInput) (policyStoreCreated, error) {
	u := policystore.Update{Validation: new(copse.ValidationMode(in.ValidationSettings.Mode)), Description: in.Description}
	if in.DeletionProtection != nil {
		u.DeletionProtection = new(*in.DeletionProtection == protectionEnabled)
	}
	ps, err := h.policyStores.Update(ctx, c, copse.PolicyStoreID(in.PolicyStoreID), u)
	if err != nil {
		return policyStoreCreated{}, err
	}
	return h.policyStoreCreated(&ps), nil
}

// listPolicyStoresInput has no filter in AVP.
type listPolicyStoresInput struct{ pageInput }

type listPolicyStoresOutput struct {
	PolicyStores []policyStoreItem `json:"policyStores"`
	NextToken    string            `json:"nextToken,omitempty"`
}

// policyStoreItem shows a policy store without its settings.
type policyStoreItem struct {
	ARN             string    `json:"arn"`
	CreatedDate     timestamp `json:"createdDate"`
	LastUpdatedDate timestamp `json:"lastUpdatedDate"`
	PolicyStoreID   string    `json:"policyStoreId"`
	Description     *string   `json:"description,omitempty"`
}

// listPolicyStores shows what the caller's key covers with Read. For a key that covers one policy store
// it is that one, for a key that covers none it is empty and no error.
func (h *handler) listPolicyStores(ctx context.Context, c access.Caller, in *listPolicyStoresInput) (listPolicyStoresOutput, error) {
	list := h.list("ListPolicyStores", c)
	after, err := list.start(&in.pageInput)
	if err != nil {
		return listPolicyStoresOutput{}, err
	}
	page, more, err := h.policyStores.List(ctx, c, copse.PolicyStoreID(after), in.size(defaultResults))
	if err != nil {
		return listPolicyStoresOutput{}, err
	}
	out := listPolicyStoresOutput{PolicyStores: make([]policyStoreItem, len(page))}
	for i, ps := range page {
		out.PolicyStores[i] = policyStoreItem{
			ARN: h.arn(ps.ID), PolicyStoreID: string(ps.ID), Description: optional(ps.Description),
			CreatedDate: timestamp(ps.CreatedAt), LastUpdatedDate: timestamp(ps.UpdatedAt),
		}
	}
	if len(page) > 0 {
		out.NextToken = list.next(more, string(page[len(page)-1].ID))
	}
	return out, nil
}

// deletePolicyStore succeeds for an id that is absent, and is InvalidState while the policy store is
// protected. It takes no alias: what an alias leads to may change between looking and deleting.
func (h *handler) deletePolicyStore(ctx context.Context, c access.Caller, in *policyStoreIDInput) (empty, error) {
	return empty{}, h.policyStores.Delete(ctx, c, copse.PolicyStoreID(in.PolicyStoreID))
}

// putSchemaInput takes Cedar's JSON form only; the human-readable one has no place in AVP's union.
type putSchemaInput struct {
	policyStoreInput
	Definition *struct {
		CedarJSON *string `json:"cedarJson"`
	} `json:"definition"`
}

func (in *putSchemaInput) validate(f *findings) {
	in.policyStoreInput.validate(f)
	if f.required("definition", in.Definition != nil) {
		f.required("definition.cedarJson", in.Definition.CedarJSON != nil && *in.Definition.CedarJSON != "")
	}
}

type putSchemaOutput struct {
	CreatedDate     timestamp `json:"createdDate"`
	LastUpdatedDate timestamp `json:"lastUpdatedDate"`
	Namespaces      []string  `json:"namespaces"`
	PolicyStoreID   string    `json:"policyStoreId"`
}

// putSchema makes or replaces the schema, which is in force when it
// returns. Policies that are stored are not checked by it.
func (h *handler) putSchema(ctx context.Context, c access.Caller, in *putSchemaInput) (putSchemaOutput, error) {
	schema, err := h.policyStores.PutSchema(ctx, c, copse.PolicyStoreID(in.PolicyStoreID),
		policystore.SchemaText{JSON: *in.Definition.CedarJSON})
	if err != nil {
		// The service speaks of its own parameter; callers know the member of their message.
		return putSchemaOutput{}, relocate(err, "schema.json", "definition.cedarJson")
	}
	return putSchemaOutput{
		CreatedDate: timestamp(schema.CreatedAt), LastUpdatedDate: timestamp(schema.UpdatedAt),
		Namespaces: schema.Namespaces, PolicyStoreID: in.PolicyStoreID,
	}, nil
}

// getSchemaOutput is what PutSchema answered, and the text.
type getSchemaOutput struct {
	putSchemaOutput
	Schema string `json:"schema"`
}

// getSchema returns the schema in JSON. One that was written in another form is shown as its JSON.
func (h *handler) getSchema(ctx context.Context, c access.Caller, in *policyStoreInput) (getSchemaOutput, error) {
	schema, err := h.policyStores.GetSchema(ctx, c, copse.PolicyStoreID(in.PolicyStoreID))
	if err != nil {
		return getSchemaOutput{}, err
	}
	return getSchemaOutput{
		putSchemaOutput: putSchemaOutput{
			CreatedDate: timestamp(schema.CreatedAt), LastUpdatedDate: timestamp(schema.UpdatedAt),
			Namespaces: schema.Namespaces, PolicyStoreID: in.PolicyStoreID,
		},
		Schema: string(schema.JSON),
	}, nil
}
