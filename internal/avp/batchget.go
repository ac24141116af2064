package avp

import (
	"context"
	"errors"
	"fmt"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
)

// batchGetPolicyInput is not a targeted input: each request may name a
// policy store, or alias, of its own.
type batchGetPolicyInput struct {
	Requests []policyInput `json:"requests"`
}

// maxBatchGet is the most policies one BatchGetPolicy may ask for.
const maxBatchGet = 100

// validate has one finding for too many requests, and not one for each.
func (in *batchGetPolicyInput) validate(f *findings) {
	if n := len(in.Requests); n < 1 || n > maxBatchGet {
		f.add("requests", "Member must have length between 1 and %d, has %d", maxBatchGet, n)
		return
	}
	for i := range in.Requests {
		at := fmt.Sprintf("requests[%d].", i)
		f.id(at+"policyStoreId", in.Requests[i].PolicyStoreID)
		f.id(at+"policyId", in.Requests[i].PolicyID)
	}
}

// batchGetPolicyOutput has every request in one of its lists. Both are
// always there, and keep the order of the requests among themselves.
type batchGetPolicyOutput struct {
	Results []batchGetPolicyResult `json:"results"`
	Errors  []batchGetPolicyError  `json:"errors"`
}

// batchGetPolicyResult has less than GetPolicy answers: neither effect nor what the scope names.
type batchGetPolicyResult struct {
	PolicyStoreID   string           `json:"policyStoreId"`
	PolicyID        string           `json:"policyId"`
	PolicyType      string           `json:"policyType"`
	Definition      policyDefinition `json:"definition"`
	Name            *string          `json:"name,omitempty"`
	CreatedDate     timestamp        `json:"createdDate"`
	LastUpdatedDate timestamp        `json:"lastUpdatedDate"`
}

// batchGetPolicyError repeats what was asked for as it was sent, an alias included.
type batchGetPolicyError struct {
	Code          string `json:"code"`
	PolicyStoreID string `json:"policyStoreId"`
	PolicyID      string `json:"policyId"`
	Message       string `json:"message"`
}

// batchGetCodes are what can be wrong with one of the policies asked for. Everything else fails the call.
var batchGetCodes = map[copse.ResourceType]string{
	copse.ResourcePolicyStore: "POLICY_STORE_NOT_FOUND",
	copse.ResourceAlias:       "POLICY_STORE_ALIAS_NOT_FOUND",
	copse.ResourcePolicy:      "POLICY_NOT_FOUND",
}

// batchGetPolicy is GetPolicy for each of the requests, each authorized by itself: a policy store that
// the key does not cover is not found, and says nothing about the others.
func (h *handler) batchGetPolicy(ctx context.Context, c access.Caller, in *batchGetPolicyInput) (batchGetPolicyOutput, error) {
	out := batchGetPolicyOutput{Results: []batchGetPolicyResult{}, Errors: []batchGetPolicyError{}}
	// Each is a read of its own: two policies of one policy store may be of different revisions.
	for _, r := range in.Requests {
		id, err := h.resolve(ctx, c, access.Read, r.PolicyStoreID)
		var p policystore.Policy
		if err == nil {
			p, err = h.policyStores.GetPolicy(ctx, c, id, copse.PolicyID(r.PolicyID))
		}
		if e, ok := errors.AsType[*copse.Error](err); ok && e.Kind == copse.NotFound && batchGetCodes[e.Resource] != "" {
			out.Errors = append(out.Errors, batchGetPolicyError{
				Code: batchGetCodes[e.Resource], PolicyStoreID: r.PolicyStoreID, PolicyID: r.PolicyID, Message: e.Detail,
			})
			continue
		}
		// Unavailable, say: half an answer would read as if the rest did not exist.
		if err != nil {
			return batchGetPolicyOutput{}, err
		}
		out.Results = append(out.Results, batchGetPolicyResult{
			PolicyStoreID: string(id), PolicyID: string(p.ID), PolicyType: typeOf(&p), Definition: definitionOf(&p),
			Name: shownName(p.Name), CreatedDate: timestamp(p.CreatedAt), LastUpdatedDate: timestamp(p.UpdatedAt),
		})
	}
	return out, nil
}
