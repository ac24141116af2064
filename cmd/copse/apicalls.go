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

func policyStorePath(id string) string { return "/v1/policy-stores/" + url.PathEscape(id) }

func (c *client) tenant(ctx context.Context, tenant string) (api.Tenant, error) {
	var out api.Tenant
	path, err := tenantPath(tenant)
	if err != nil {
		return out, err
	}
	return out, c.do(ctx, request{method: http.MethodGet, path: path, out: &out})
}

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

func (c *client) contents(ctx context.Context, policyStore string) (api.Contents, error) {
	var out api.Contents
	err := c.do(ctx, request{method: http.MethodGet, path: policyStorePath(policyStore) + "/contents", out: &out})
	return out, err
}

// putContents commits only when the policy store still is at the revision.
func (c *client) putContents(ctx context.Context, policyStore string, revision uint64, in api.PutContentsRequest) (api.ContentsResult, error) {
	var out api.ContentsResult
	err := c.do(ctx, request{
		method: http.MethodPut, path: policyStorePath(policyStore) + "/contents",
		header: map[string]string{"If-Match": fmt.Sprintf(`"%d"`, revision)},
		in:     in, out: &out,
	})
	return out, err
}

// target names a policy store: the one of a tenant, or by id.
type target struct{ tenant, policyStore string }

func (t *target) flags(a *app, cmd *cobra.Command) {
	cmd.Flags().StringVarP(&t.tenant, "tenant", "t", "", "the tenant whose policy store is meant")
	cmd.Flags().StringVar(&t.policyStore, "policy-store", "", "the id of a policy store, instead of --tenant")
	a.completeTenantFlag(cmd)
}

// resolve asks the directory for a tenant's policy store.
func (t *target) resolve(ctx context.Context, c *client) (string, error) {
	switch {
	case t.policyStore != "" && t.tenant != "":
		return "", usagef("--tenant and --policy-store both name a policy store: give one")
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
