// Package bound carries the tenant that work is done for through a context: pep puts it there once a
// user's token is verified, rls reads it and binds the database transaction to it. The key is not
// exported, so nothing else can set or replace it by guessing.
package bound

import (
	"context"

	"github.com/copse-authz/copse"
)

type key struct{}

type binding struct {
	tenant copse.TenantID
	err    error
}

// WithTenant binds a context to a tenant. Only what verified the tenant may call it.
//
// A context can't be bound to a second tenant: the result then holds neither, and [Tenant] says why.
// Otherwise a handler that takes a tenant's name from a header could override what the token proved.
func WithTenant(ctx context.Context, tenant copse.TenantID) context.Context {
	b := binding{tenant: tenant}
	if err := tenant.Validate(); err != nil {
		b = binding{err: err}
	} else if was, ok := ctx.Value(key{}).(binding); ok && was.err != nil {
		b = was
	} else if ok && was.tenant != tenant {
		b = binding{err: copse.Errorf(copse.Internal,
			"the context is bound to tenant %q and was to be bound to %q as well: begin work for another tenant from a context that is bound to none", was.tenant, tenant)}
	}
	return context.WithValue(ctx, key{}, b)
}

// Tenant returns the tenant a context is bound to. It fails, and holds no tenant, where none was bound
// or more than one.
func Tenant(ctx context.Context) (copse.TenantID, error) {
	b, ok := ctx.Value(key{}).(binding)
	if !ok {
		return "", copse.Errorf(copse.Internal, "the context is bound to no tenant")
	}
	return b.tenant, b.err
}

// Disagrees reports whether a context is bound, and to something else than tenant.
func Disagrees(ctx context.Context, tenant copse.TenantID) bool {
	b, ok := ctx.Value(key{}).(binding)
	return ok && (b.err != nil || b.tenant != tenant)
}
