package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/api"
)

// tenantPath refuses an id that could be read as another path.
func tenantPath(tenant string) (string, error) {
	if err := copse.TenantID(tenant).Validate(); err != nil {
		return "", usagef("%v", err)
	}
	return "/v1/tenants/" + url.PathEscape(tenant), nil
}

// policyStorePath is for an id that was validated, or that the server gave.
func policyStorePath(id string) string { return "/v1/policy-stores/" + url.PathEscape(id) }

// tenant asks for one row of the directory. An id that can't be a tenant's is wrong usage, and nothing is sent.
func (c *client) tenant(ctx context.Context, tenant string) (api.Tenant, error) {
	var out api.Tenant
	path, err := tenantPath(tenant)
	if err != nil {
		return out, err
	}
	return out, c.do(ctx, request{method: http.MethodGet, path: path, out: &out})
}

// tenants reads the whole list, page by page: the tenants that the key covers. None is an empty list, so
// that it is one in JSON as well.
func (c *client) tenants(ctx context.Context) (api.TenantList, error) {
	all := api.TenantList{Tenants: []api.Tenant{}}
	err := follow(func(query url.Values) (string, error) {
		var page api.TenantList
		err := c.do(ctx, request{method: http.MethodGet, path: "/v1/tenants", query: query, out: &page})
		all.Tenants = append(all.Tenants, page.Tenants...)
		return page.NextToken, err
	})
	return all, err
}

// issuers reads the whole list of registrations, page by page.
func (c *client) issuers(ctx context.Context) (api.IssuerList, error) {
	all := api.IssuerList{Issuers: []api.Issuer{}}
	err := follow(func(query url.Values) (string, error) {
		var page api.IssuerList
		err := c.do(ctx, request{method: http.MethodGet, path: "/v1/issuers", query: query, out: &page})
		all.Issuers = append(all.Issuers, page.Issuers...)
		return page.NextToken, err
	})
	return all, err
}

// issuer finds a registration by its URL, byte for byte, or by its id.
func (c *client) issuer(ctx context.Context, urlOrID string) (api.Issuer, error) {
	all, err := c.issuers(ctx)
	if err != nil {
		return api.Issuer{}, err
	}
	for _, issuer := range all.Issuers {
		if issuer.URL == urlOrID || issuer.ID == urlOrID {
			return issuer, nil
		}
	}
	return api.Issuer{}, failf("no issuer has the URL or id %q (URLs are compared byte by byte, a slash at the end included); `copse issuer list` shows them", urlOrID)
}

// keys reads the whole list of access keys, page by page; no secret is in it.
func (c *client) keys(ctx context.Context) (api.KeyList, error) {
	all := api.KeyList{Keys: []api.Key{}}
	err := follow(func(query url.Values) (string, error) {
		var page api.KeyList
		err := c.do(ctx, request{method: http.MethodGet, path: "/v1/keys", query: query, out: &page})
		all.Keys = append(all.Keys, page.Keys...)
		return page.NextToken, err
	})
	return all, err
}

// contents reads a policy store, with the revision that [client.putContents] wants back.
func (c *client) contents(ctx context.Context, policyStore string) (api.Contents, error) {
	var out api.Contents
	err := c.do(ctx, request{method: http.MethodGet, path: policyStorePath(policyStore) + "/contents", out: &out})
	return out, err
}

// putContents commits only when the policy store still is at the revision: otherwise it is an *apiError with
// status 412, and nothing has changed.
func (c *client) putContents(ctx context.Context, policyStore string, revision uint64, in api.PutContentsRequest) (api.ContentsResult, error) {
	var out api.ContentsResult
	err := c.do(ctx, request{
		method: http.MethodPut, path: policyStorePath(policyStore) + "/contents",
		// RFC 9110 has entity tags in quotes.
		header: map[string]string{"If-Match": fmt.Sprintf(`"%d"`, revision)},
		in:     in, out: &out,
	})
	return out, err
}

// target names a policy store: the one of a tenant, or by id. Exactly one of the two is given, or
// [target.resolve] refuses. The zero value names none; flags fill it in.
type target struct{ tenant, policyStore string }

// flags adds --tenant and --policy-store to a command.
func (t *target) flags(a *app, cmd *cobra.Command) {
	cmd.Flags().StringVarP(&t.tenant, "tenant", "t", "", "the tenant whose policy store is meant")
	cmd.Flags().StringVar(&t.policyStore, "policy-store", "", "the id of a policy store, instead of --tenant")
	a.completeTenantFlag(cmd)
}

// resolve asks the directory for a tenant's policy store. An id is taken as it is: whether there is such a
// policy store comes out when it is used. It is wrong usage to name none, both, or what can't be an id.
func (t *target) resolve(ctx context.Context, c *client) (string, error) {
	switch {
	case t.policyStore != "" && t.tenant != "":
		return "", usagef("--tenant and --policy-store both name a policy store: give one")
	// No request is needed, and a key that covers only this policy store may not see the directory.
	case t.policyStore != "":
		if err := copse.PolicyStoreID(t.policyStore).Validate(); err != nil {
			return "", usagef("%v", err)
		}
		return t.policyStore, nil
	case t.tenant != "":
		tenant, err := c.tenant(ctx, t.tenant)
		return tenant.PolicyStoreID, err
	}
	return "", usagef("which policy store? give --tenant or --policy-store")
}
