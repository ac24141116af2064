package dev

import (
	"context"
	"path"
	"strings"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/examples/payments"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policyfiles"
	"github.com/copse-authz/copse/internal/server"
	"github.com/copse-authz/copse/internal/tenant"
)

// Samples are the tenants of examples/payments.
func Samples() []copse.TenantID { return []copse.TenantID{"acme", "globex", "initech"} }

// onboard makes the samples' tenants and issuers as far as they are absent. What is there stays as the
// user of a kept data directory left it.
func onboard(ctx context.Context, s *server.Server, i *issuers, tenants []copse.TenantID) error {
	// Tenants before issuers: an issuer can't be bound to a tenant that does not exist.
	made := map[copse.TenantID]bool{}
	for _, id := range tenants {
		isNew, err := onboardTenant(ctx, s, id)
		if err != nil {
			return err
		}
		made[id] = isNew
	}
	for _, in := range sampleIssuers(i, tenants) {
		registered, err := s.Tenants.Issuer(ctx, in.URL)
		switch {
		case err == nil && len(in.Tenants) == 1 && made[in.Tenants[0]]:
			// The tenant was deleted and is here again. Its deletion took it out of the registration, which
			// stayed.
			in.ID = registered.ID
			_, err = s.Tenants.UpdateIssuer(ctx, access.System(), in)
		case copse.KindOf(err) == copse.NotFound:
			_, err = s.Tenants.AddIssuer(ctx, access.System(), in)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// onboardTenant makes one tenant from its directory of the samples. isNew is false for a tenant that was there,
// whatever has become of its policies.
func onboardTenant(ctx context.Context, s *server.Server, id copse.TenantID) (isNew bool, err error) {
	_, err = s.Tenants.Get(ctx, access.System(), id)
	if copse.KindOf(err) != copse.NotFound {
		return false, err
	}
	contents, err := policyfiles.Read(payments.Files, path.Join("tenants", string(id)))
	if err != nil {
		return false, err
	}
	_, err = s.Tenants.Create(ctx, access.System(), tenant.NewTenant{
		ID: id, Description: "sample of examples/payments",
		Schema: contents.Schema, Templates: contents.Templates, Policies: contents.Policies,
	})
	return err == nil, err
}

// sampleIssuers are one per tenant, which may speak for that one only, and one that all share.
func sampleIssuers(i *issuers, tenants []copse.TenantID) []copse.Issuer {
	var all []copse.Issuer
	for _, id := range tenants {
		in := Registration(i.baseURL, string(id))
		in.Tenants = []copse.TenantID{id}
		all = append(all, in)
	}
	in := Registration(i.baseURL, Shared)
	in.AllTenants = true
	return append(all, in)
}

// Registration is how a development issuer is registered, but for the tenants it may speak for.
func Registration(baseURL, name string) copse.Issuer {
	i := issuers{baseURL: baseURL}
	return copse.Issuer{
		URL: i.URL(name), TokenType: copse.TokenAccess,
		Audiences: []string{Audience}, Algorithms: []string{i.Algorithm(name)},
		TenantClaim: TenantClaim, PrincipalType: "User", GroupType: "Role", GroupClaim: GroupClaim,
		// A tenant's own issuer and the shared one mean the same people by the same names.
		SameSubjects: true,
	}
}

// moveIssuers registers what was registered below the former base URL again below the present one, each for
// the tenants it spoke for: a kept data directory may be served on another port each time, and the port is
// part of every iss claim.
func moveIssuers(ctx context.Context, s *server.Server, i *issuers, formerURL string) error {
	if formerURL == "" || formerURL == i.baseURL {
		return nil
	}
	var moved []copse.Issuer
	// All pages are read before anything is changed.
	for after, more := "", true; more; {
		page, rest, err := s.Tenants.ListIssuers(ctx, access.System(), after, 100)
		if err != nil {
			return err
		}
		for _, in := range page {
			after = in.ID
			if name, ok := strings.CutPrefix(in.URL, formerURL+"/issuers/"); ok {
				moved = append(moved, in)
				moved[len(moved)-1].URL = i.URL(name)
			}
		}
		more = rest && len(page) > 0
	}
	for _, in := range moved {
		// Removed first: while the former registration is there, a second one for the same tenant is
		// refused, unless it says that it means the same people.
		if err := s.Tenants.RemoveIssuer(ctx, access.System(), in.ID); err != nil {
			return err
		}
		// The id is made of the URL.
		in.ID, in.Revision = "", 0
		// Conflict: it is registered at this address already, from an earlier start there.
		if _, err := s.Tenants.AddIssuer(ctx, access.System(), in); err != nil && copse.KindOf(err) != copse.Conflict {
			return err
		}
	}
	return nil
}
