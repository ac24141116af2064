package avp

import (
	"context"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
)

type validationSettings struct {
	Mode string `json:"mode"`
}

type createPolicyStoreInput struct {
	ValidationSettings *validationSettings `json:"validationSettings"`
	ClientToken        *string             `json:"clientToken"`
	DeletionProtection *string             `json:"deletionProtection"`
	Description        *string             `json:"description"`
	EncryptionSettings *encryptionSettings `json:"encryptionSettings"`
	Tags               map[string]string   `json:"tags"`
}

type encryptionSettings struct {
	Default *empty `json:"default"`
	KMS     *struct {
		Key               string            `json:"key"`
		EncryptionContext map[string]string `json:"encryptionContext"`
	} `json:"kmsEncryptionSettings"`
}

// validate also refuses what AVP offers and copse can't keep yet: a policy store that seems
// protected, encrypted or tagged and is not would be worse than an error.
func (in *createPolicyStoreInput) validate(f *findings) {
	if f.required("validationSettings", in.ValidationSettings != nil) {
		f.enum("validationSettings.mode", in.ValidationSettings.Mode, string(copse.ValidationOff), string(copse.ValidationStrict))
	}
	f.clientToken(in.ClientToken)
	f.description("description", in.Description)
	if p := in.DeletionProtection; p != nil {
		f.enum("deletionProtection", *p, "ENABLED", "DISABLED")
		if *p == "ENABLED" {
			f.add("deletionProtection", "copse does not have deletion protection yet; use DISABLED")
		}
	}
	if e := in.EncryptionSettings; e != nil {
		f.oneOf("encryptionSettings", e.Default != nil, e.KMS != nil)
		if e.KMS != nil {
			f.add("encryptionSettings.kmsEncryptionSettings", "copse does not encrypt with KMS keys; use default")
		}
	}
	if len(in.Tags) > 0 {
		f.add("tags", "copse does not have tags yet; leave them out")
	}
}

type policyStoreCreated struct {
	ARN             string    `json:"arn"`
	CreatedDate     timestamp `json:"createdDate"`
	LastUpdatedDate timestamp `json:"lastUpdatedDate"`
	PolicyStoreID   string    `json:"policyStoreId"`
}

func (h *handler) createPolicyStore(ctx context.Context, c access.Caller, in *createPolicyStoreInput) (policyStoreCreated, error) {
	made := policystore.NewPolicyStore{
		Settings: copse.Settings{Validation: copse.ValidationMode(in.ValidationSettings.Mode)},
	}
	if in.Description != nil {
		made.Description = *in.Description
	}
	made.ClientToken = textOf(in.ClientToken)
	ps, err := h.policyStores.Create(ctx, c, made)
	if err != nil {
		return policyStoreCreated{}, err
	}
	return policyStoreCreated{
		ARN: arn(ps.ID), PolicyStoreID: string(ps.ID),
		CreatedDate: timestamp(ps.CreatedAt), LastUpdatedDate: timestamp(ps.UpdatedAt),
	}, nil
}

type policyStoreInput struct {
	PolicyStoreID string `json:"policyStoreId"`
}

func (in *policyStoreInput) validate(f *findings) { f.id("policyStoreId", in.PolicyStoreID) }

type getPolicyStoreInput struct {
	policyStoreInput
	// Tags asks for the tags; a policy store has none yet, and AVP then leaves the member out.
	Tags bool `json:"tags"`
}

type getPolicyStoreOutput struct {
	policyStoreCreated
	ValidationSettings validationSettings `json:"validationSettings"`
	CedarVersion       string             `json:"cedarVersion"`
	DeletionProtection string             `json:"deletionProtection"`
	Description        *string            `json:"description,omitempty"`
	EncryptionState    encryptionState    `json:"encryptionState"`
}

type encryptionState struct {
	Default empty `json:"default"`
}

func (h *handler) getPolicyStore(ctx context.Context, c access.Caller, in *getPolicyStoreInput) (getPolicyStoreOutput, error) {
	ps, err := h.policyStores.Get(ctx, c, copse.PolicyStoreID(in.PolicyStoreID))
	if err != nil {
		return getPolicyStoreOutput{}, err
	}
	return getPolicyStoreOutput{
		policyStoreCreated: policyStoreCreated{
			ARN: arn(ps.ID), PolicyStoreID: string(ps.ID),
			CreatedDate: timestamp(ps.CreatedAt), LastUpdatedDate: timestamp(ps.UpdatedAt),
		},
		ValidationSettings: validationSettings{Mode: string(ps.Settings.Validation)},
		CedarVersion:       "CEDAR_4",
		DeletionProtection: "DISABLED",
		Description:        optional(ps.Description),
	}, nil
}

type listPolicyStoresInput struct{ pageInput }

type listPolicyStoresOutput struct {
	PolicyStores []policyStoreItem `json:"policyStores"`
	NextToken    string            `json:"nextToken,omitempty"`
}

type policyStoreItem struct {
	ARN             string    `json:"arn"`
	CreatedDate     timestamp `json:"createdDate"`
	LastUpdatedDate timestamp `json:"lastUpdatedDate"`
	PolicyStoreID   string    `json:"policyStoreId"`
	Description     *string   `json:"description,omitempty"`
}

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
			ARN: arn(ps.ID), PolicyStoreID: string(ps.ID), Description: optional(ps.Description),
			CreatedDate: timestamp(ps.CreatedAt), LastUpdatedDate: timestamp(ps.UpdatedAt),
		}
	}
	if len(page) > 0 {
		out.NextToken = list.next(more, string(page[len(page)-1].ID))
	}
	return out, nil
}

func (h *handler) deletePolicyStore(ctx context.Context, c access.Caller, in *policyStoreInput) (empty, error) {
	return empty{}, h.policyStores.Delete(ctx, c, copse.PolicyStoreID(in.PolicyStoreID))
}

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

func (h *handler) putSchema(ctx context.Context, c access.Caller, in *putSchemaInput) (putSchemaOutput, error) {
	schema, err := h.policyStores.PutSchema(ctx, c, copse.PolicyStoreID(in.PolicyStoreID),
		policystore.SchemaText{JSON: *in.Definition.CedarJSON})
	if err != nil {
		return putSchemaOutput{}, relocate(err, "schema.json", "definition.cedarJson")
	}
	return putSchemaOutput{
		CreatedDate: timestamp(schema.CreatedAt), LastUpdatedDate: timestamp(schema.UpdatedAt),
		Namespaces: schema.Namespaces, PolicyStoreID: in.PolicyStoreID,
	}, nil
}

type getSchemaOutput struct {
	putSchemaOutput
	Schema string `json:"schema"`
}

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
