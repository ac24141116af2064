package avp

import (
	"context"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
)

// resolve turns what stands where a policy store is named, its id or an alias, into the id. An alias is
// resolved only for a caller whose key covers the policy store with the verb; an id passes as it is,
// for the operation to check. What needs Admin everywhere is left to the operation for callers without
// it: it refuses them whatever they name. So an alias is never a way around a key, and says nothing
// about a policy store that the caller may not see.
func (h *handler) resolve(ctx context.Context, c access.Caller, verb access.Verb, given string) (copse.PolicyStoreID, error) {
	name, isAlias := policystore.CutAlias(given)
	if !isAlias || verb == access.Admin && !c.MayEverywhere(access.Admin) {
		return copse.PolicyStoreID(given), nil
	}
	return h.policyStores.Resolve(ctx, c, verb, name)
}

// targeted is an input whose policy store may be given by an alias. target returns where the input has
// it, for the id to be put there; it is valid once the input is.
type targeted interface{ target() *string }

// aliasName checks a name with its prefix. The name must have something behind the prefix; the service
// model's pattern alone would pass the bare prefix.
func (f *findings) aliasName(given string) {
	if !f.required("aliasName", given != "") {
		return
	}
	f.text("aliasName", given, 1, 150)
	name, ok := policystore.CutAlias(given)
	if !ok || name == "" || !onlyIDChars(name) {
		f.add("aliasName", "Member must satisfy regular expression pattern: "+policystore.AliasPrefix+"[a-zA-Z0-9-/_]+")
	}
}

// aliasNameInput is checked before it is used, so that the prefix is there to be cut.
type aliasNameInput struct {
	AliasName string `json:"aliasName"`
}

func (in *aliasNameInput) validate(f *findings) { f.aliasName(in.AliasName) }

func (in *aliasNameInput) name() string {
	name, _ := policystore.CutAlias(in.AliasName)
	return name
}

// createAliasInput names its policy store by id, as at AVP: there are no aliases of aliases.
type createAliasInput struct {
	policyStoreIDInput
	aliasNameInput
}

func (in *createAliasInput) validate(f *findings) {
	in.policyStoreIDInput.validate(f)
	in.aliasNameInput.validate(f)
}

// aliasCreated has the shared members of what Create, Get and List answer.
type aliasCreated struct {
	AliasARN      string    `json:"aliasArn"`
	AliasName     string    `json:"aliasName"`
	CreatedAt     timestamp `json:"createdAt"`
	PolicyStoreID string    `json:"policyStoreId"`
}

// aliasItem is an alias that can be in its reserved time: Active, or PendingDeletion.
type aliasItem struct {
	aliasCreated
	State string `json:"state"`
}

// aliasCreated makes the ARN with a region, which a policy store's has not, and with the prefix once.
func (h *handler) aliasCreated(a *policystore.Alias) aliasCreated {
	name := policystore.AliasPrefix + a.Name
	return aliasCreated{
		AliasARN:  "arn:aws:verifiedpermissions:" + h.region + ":" + h.accountID + ":" + name,
		AliasName: name, CreatedAt: timestamp(a.CreatedAt), PolicyStoreID: string(a.PolicyStore),
	}
}

// aliasItem shows a deleted alias as long as its name is reserved, and resolves to nothing.
func (h *handler) aliasItem(a *policystore.Alias) aliasItem {
	item := aliasItem{aliasCreated: h.aliasCreated(a), State: "Active"}
	if !a.DeletedAt.IsZero() {
		item.State = "PendingDeletion"
	}
	return item
}

// createPolicyStoreAlias answers the same alias for the same policy store again: the operation has no
// client token, and repeats are told by that.
func (h *handler) createPolicyStoreAlias(ctx context.Context, c access.Caller, in *createAliasInput) (aliasCreated, error) {
	a, err := h.policyStores.CreateAlias(ctx, c, in.name(), copse.PolicyStoreID(in.PolicyStoreID))
	if err != nil {
		return aliasCreated{}, err
	}
	return h.aliasCreated(&a), nil
}

// getPolicyStoreAlias needs no more than Read on the policy store that the alias names.
func (h *handler) getPolicyStoreAlias(ctx context.Context, c access.Caller, in *aliasNameInput) (aliasItem, error) {
	a, err := h.policyStores.GetAlias(ctx, c, in.name())
	if err != nil {
		return aliasItem{}, err
	}
	return h.aliasItem(&a), nil
}

// deleteAliasInput without a mode deletes softly.
type deleteAliasInput struct {
	aliasNameInput
	DeletionMode *string `json:"deletionMode"`
}

// The modes: the soft one keeps the name from being used anew for a day, so that programs which still
// have it reach nothing else by it; the hard one frees it at once.
const (
	softDelete = "SoftDelete"
	hardDelete = "HardDelete"
)

func (in *deleteAliasInput) validate(f *findings) {
	in.aliasNameInput.validate(f)
	if in.DeletionMode != nil {
		f.enum("deletionMode", *in.DeletionMode, softDelete, hardDelete)
	}
}

// deletePolicyStoreAlias succeeds for a name that is absent. InvalidState while the policy store is protected.
func (h *handler) deletePolicyStoreAlias(ctx context.Context, c access.Caller, in *deleteAliasInput) (empty, error) {
	return empty{}, h.policyStores.DeleteAlias(ctx, c, in.name(), in.DeletionMode != nil && *in.DeletionMode == hardDelete)
}

// listAliasesInput may ask for those of one policy store, by id or by another alias of it.
type listAliasesInput struct {
	pageInput
	Filter *struct {
		PolicyStoreID *string `json:"policyStoreId"`
	} `json:"filter"`
}

// defaultAliases is AVP's page of aliases.
const defaultAliases = 5

func (in *listAliasesInput) validate(f *findings) {
	in.pageInput.validate(f)
	if in.Filter != nil && in.Filter.PolicyStoreID != nil {
		f.id("filter.policyStoreId", *in.Filter.PolicyStoreID)
	}
}

// listAliasesOutput has an empty list when there is nothing to show; a page may be short.
type listAliasesOutput struct {
	Aliases   []aliasItem `json:"policyStoreAliases"`
	NextToken string      `json:"nextToken,omitempty"`
}

// listPolicyStoreAliases shows what the caller may Read and nothing of
// the rest: not even that it is there.
func (h *handler) listPolicyStoreAliases(ctx context.Context, c access.Caller, in *listAliasesInput) (listAliasesOutput, error) {
	out := listAliasesOutput{Aliases: []aliasItem{}}
	var of copse.PolicyStoreID
	if in.Filter != nil && in.Filter.PolicyStoreID != nil {
		var err error
		of, err = h.resolve(ctx, c, access.Read, *in.Filter.PolicyStoreID)
		if err != nil && copse.KindOf(err) == copse.NotFound {
			return out, nil // the operation has no such exception
		}
		if err != nil {
			return listAliasesOutput{}, err
		}
	}
	// The filter is part of what the page's token is bound to, by id: two
	// aliases of one policy store page alike.
	list := h.list("ListPolicyStoreAliases", c, string(of))
	after, err := list.start(&in.pageInput)
	if err != nil {
		return listAliasesOutput{}, err
	}
	page, next, err := h.policyStores.ListAliases(ctx, c, of, after, in.size(defaultAliases))
	if err != nil {
		return listAliasesOutput{}, err
	}
	for i := range page {
		out.Aliases = append(out.Aliases, h.aliasItem(&page[i]))
	}
	out.NextToken = list.next(next != "", next)
	return out, nil
}
