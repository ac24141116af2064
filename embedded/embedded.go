// Package embedded decides inside your own process, without a server: the same services that `copse
// serve` runs, minus the sockets.
//
// [Open] uses a data directory, which this process then has to itself. [Load] keeps everything in
// memory and reads it from files, one directory per tenant, for programs whose policies come with
// them. Both give a [PDP], which decides exactly as a server on the same policies does.
//
// A PDP has no credential to ask for: who calls [PDP.Decide] is trusted to say whose decision it is.
// Take the tenant from something you verified, and name it once, with [PDP.DecideFor].
package embedded

import (
	"context"
	"io/fs"
	"log/slog"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policyfiles"
	"github.com/copse-authz/copse/internal/server"
	"github.com/copse-authz/copse/internal/tenant"
)

// Options of a PDP. The zero value works.
type Options struct {
	// Log gets what goes wrong behind the scenes. Nil: nothing.
	Log *slog.Logger
	// CacheBytes bounds the compiled policy stores kept in memory; 0 = 256 MiB.
	CacheBytes int64
	// Issuers whose tokens package pep accepts on files that were given to Load, each for the tenants it
	// lists. A data directory has its own, so that Open refuses any here.
	Issuers []copse.Issuer
}

// PDP is a policy decision point. It is safe for concurrent use, and implements copse.Decider and
// copse.Directory.
type PDP struct {
	server  *server.Server
	decider copse.Decider
}

var (
	_ copse.Decider   = (*PDP)(nil)
	_ copse.Directory = (*PDP)(nil)
)

// Open decides from a data directory of copse. A directory that another process has open, or that a
// newer version wrote, is refused. Close releases it.
func Open(dir string, options Options) (*PDP, error) {
	if len(options.Issuers) > 0 {
		return nil, copse.Errorf(copse.Invalid, "Options.Issuers is for Load: a data directory has issuers of its own")
	}
	cfg := options.config()
	cfg.DataDir = dir
	return open(cfg)
}

// Load decides from files: each directory of fsys is a tenant named like it, with schema.cedarschema
// or schema.json and any number of .cedar files, also in directories below it. A policy's name is its
// @id; the only policy of a file may go without, and is then named for the file. What has ?principal or
// ?resource in its scope is a policy template; files called links.json make policies of templates:
//
//	[{"name": "alice-views-plans", "template": "viewers",
//	  "principal": {"type": "User", "id": "alice"}, "resource": {"type": "Folder", "id": "plans"}}]
//
// A tenant with a schema is validated strictly, and its requests are checked.
//
// The error of files that are not valid is a *copse.Error whose Fields, and whose text, point to file,
// line and column.
func Load(fsys fs.FS, options Options) (*PDP, error) {
	cfg := options.config()
	cfg.InMemory = true
	p, err := open(cfg)
	if err != nil {
		return nil, err
	}
	err = p.load(fsys)
	for _, in := range options.Issuers {
		if err == nil {
			_, err = p.server.Tenants.AddIssuer(context.Background(), access.System(), in)
		}
	}
	if err != nil {
		_ = p.Close() // in memory: nothing to lose
		return nil, err
	}
	return p, nil
}

func (o Options) config() server.Config {
	cfg := server.DefaultConfig()
	cfg.Log = o.Log
	cfg.NoRates = true // they are for callers on a network
	// Nothing is fetched here: who verifies tokens says where keys may come from.
	cfg.AllowPrivateIssuers, cfg.AllowHTTPIssuers = true, true
	if o.CacheBytes != 0 {
		cfg.SnapshotCacheBytes = o.CacheBytes
	}
	return cfg
}

func open(cfg server.Config) (*PDP, error) {
	s, err := server.Open(context.Background(), cfg)
	if err != nil {
		return nil, err
	}
	return &PDP{server: s, decider: s.Decider()}, nil
}

// load reads every tenant before it makes the first, so that all that is wrong is told at once.
func (p *PDP) load(fsys fs.FS) error {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return copse.Errorf(copse.Invalid, "policy files: %w", err)
	}
	var tenants []tenant.NewTenant
	wrong := &copse.Error{Kind: copse.Invalid, Detail: "the files do not hold valid policy stores"}
	for _, e := range entries {
		if !e.IsDir() || e.Name()[0] == '.' {
			continue
		}
		id := copse.TenantID(e.Name())
		if err := id.Validate(); err != nil {
			wrong.Fields = append(wrong.Fields, copse.Field{Path: e.Name(), Message: err.Error()})
			continue
		}
		contents, err := policyfiles.Read(fsys, e.Name())
		if err != nil {
			fields := policyfiles.Findings(err)
			if fields == nil {
				return err
			}
			wrong.Fields = append(wrong.Fields, fields...)
			continue
		}
		tenants = append(tenants, tenant.NewTenant{ID: id, Schema: contents.Schema, Templates: contents.Templates, Policies: contents.Policies})
	}
	if len(wrong.Fields) > 0 {
		return wrong
	}
	for _, in := range tenants {
		if _, err := p.server.Tenants.Create(context.Background(), access.System(), in); err != nil {
			return copse.Errorf(copse.KindOf(err), "tenant %s: %w", in.ID, err)
		}
	}
	return nil
}

// Decide answers a request about the policy store it names. Prefer DecideFor, which finds it.
func (p *PDP) Decide(ctx context.Context, req *copse.Request) (copse.Response, error) {
	return p.decider.Decide(ctx, req)
}

// Lookup finds a tenant's policy store. The caller must refuse a tenant that is not active.
func (p *PDP) Lookup(ctx context.Context, tenant copse.TenantID) (copse.DirectoryEntry, error) {
	return p.server.Tenants.Lookup(ctx, tenant)
}

// Issuer finds the registration of a trusted issuer by its URL, byte for byte. The answer is shared and
// must not be changed.
func (p *PDP) Issuer(ctx context.Context, url string) (copse.Issuer, error) {
	return p.server.Tenants.Issuer(ctx, url)
}

// IdentitySource is the one by which a policy store reads users' tokens; nil when it has none.
func (p *PDP) IdentitySource(ctx context.Context, id copse.PolicyStoreID, incarnation copse.Incarnation) (*copse.IdentitySource, error) {
	return p.server.PolicyStores.IdentitySource(ctx, id, incarnation)
}

// DecideFor decides for a tenant: req names no policy store, and that of the tenant is filled in. A
// tenant that is unknown or suspended is Denied, without telling which.
func (p *PDP) DecideFor(ctx context.Context, tenant copse.TenantID, req copse.Request) (copse.Response, error) {
	if err := p.address(ctx, tenant, &req); err != nil {
		return copse.Response{}, err
	}
	return p.Decide(ctx, &req)
}

// ExplainFor is DecideFor with reasons: what each part of the policies came to. It costs many decisions,
// and shows policies and values of the request.
func (p *PDP) ExplainFor(ctx context.Context, tenant copse.TenantID, req copse.Request) (copse.Explanation, error) {
	if err := p.address(ctx, tenant, &req); err != nil {
		return copse.Explanation{}, err
	}
	return p.server.Explain(ctx, &req)
}

// address fills in the tenant's policy store.
func (p *PDP) address(ctx context.Context, tenant copse.TenantID, req *copse.Request) error {
	if req.PolicyStoreID != "" || !req.Incarnation.IsZero() {
		return copse.Errorf(copse.Invalid, "the request names a policy store; DecideFor and ExplainFor find the tenant's own")
	}
	entry, err := p.Lookup(ctx, tenant)
	if copse.KindOf(err) == copse.NotFound && err != nil || err == nil && entry.State != copse.TenantActive {
		return &copse.Error{Kind: copse.Denied, Resource: copse.ResourceTenant,
			Detail: "there is no active tenant of this name", Err: err}
	}
	if err != nil {
		return err
	}
	req.PolicyStoreID, req.Incarnation = entry.PolicyStoreID, entry.Incarnation
	return nil
}

// Close releases the data directory. Decisions under way end with an error of kind Unavailable, or are
// answered.
func (p *PDP) Close() error { return p.server.Close() }
