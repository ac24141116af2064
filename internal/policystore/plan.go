package policystore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage"
)

// Plan is a named set of quotas. Every policy store is on one; what a plan says holds at once for all
// that are on it.
// Those in the cache are shared: what a caller gets is a copy.
type Plan struct {
	Name        string
	Description string
	Quotas      Quotas
	BuiltIn     bool      // the name is copse's own; what it says may have been changed
	UpdatedAt   time.Time // zero: as it is built in
}

// Quotas are what one policy store may hold, and how often it may be asked and written. A rate of 0
// is no limit; every other 0 is none at all.
type Quotas struct {
	Templates       int // policy templates
	Aliases         int // those whose names are still reserved count
	IdentitySources int
	Namespaces      int // of the schema

	PolicyBytes int // of one policy or template
	SchemaBytes int
	ScopeBytes  int // of all policies that name one resource, or none

	DecisionsPerSecond int // each item of a batch is one
	WritesPerSecond    int
	// Operations are rates of single operations, by AVP's names, one for each call. An operation that
	// is here counts against its own rate instead of the two above.
	Operations map[string]int
}

// The plans that are always there.
const (
	PlanDefault   = "default"   // AVP's sizes and counts, rates a tenant in good health does not meet
	PlanAVP       = "avp"       // AVP's rates too
	PlanUnmetered = "unmetered" // no rates
)

// maxQuota bounds every figure of a plan, so that none overflows what is computed from it; maxAliases
// those that are kept in one row.
const (
	maxQuota   = 1_000_000_000
	maxAliases = 100
	maxPlans   = 100
)

// builtIn returns AVP's sizes and counts, and the plan's own rates; nil for another name.
// The caller owns it.
func builtIn(name string) *Plan {
	p := &Plan{Name: name, BuiltIn: true, Quotas: Quotas{
		Templates: 40, Aliases: 10, IdentitySources: 1, Namespaces: 100,
		PolicyBytes: copse.MaxPolicyBytes, SchemaBytes: copse.MaxSchemaBytes, ScopeBytes: copse.MaxPolicyBytesPerScope,
	}}
	switch name {
	case PlanDefault:
		p.Description = "Amazon Verified Permissions' sizes and counts, with rates of copse's own"
		p.Quotas.DecisionsPerSecond, p.Quotas.WritesPerSecond = 5_000, 100
	case PlanUnmetered:
		p.Description = "the sizes and counts of the plan default, and no rates"
	case PlanAVP:
		p.Description = "Amazon Verified Permissions' sizes, counts and rates"
		p.Quotas.DecisionsPerSecond, p.Quotas.WritesPerSecond = 200, 10
		p.Quotas.Operations = avpRates()
	default:
		return nil
	}
	return p
}

// avpRates is AVP's table of requests per second. What AVP counts for a whole account is counted per
// policy store here, and not at all where no policy store is named.
// It is also the list of operations that a plan may give rates to.
func avpRates() map[string]int {
	rates := map[string]int{
		"IsAuthorized": 200, "IsAuthorizedWithToken": 200,
		"BatchIsAuthorized": 30, "BatchIsAuthorizedWithToken": 30,
		"CreateIdentitySource": 1, "DeleteIdentitySource": 1, "UpdateIdentitySource": 1,
	}
	for _, op := range []string{
		"BatchGetPolicy", "CreatePolicy", "CreatePolicyTemplate", "DeletePolicy", "DeletePolicyTemplate",
		"GetIdentitySource", "GetPolicy", "GetPolicyTemplate", "GetSchema", "ListIdentitySources", "ListPolicies",
		"ListPolicyTemplates", "PutSchema", "UpdatePolicy", "UpdatePolicyTemplate",
		"GetPolicyStore", "UpdatePolicyStore",
	} {
		rates[op] = 10
	}
	return rates
}

// plan is what a policy store's row names. A plan that was removed is the default one: its policy
// stores must neither lose their quotas nor be shut out.
// Where the default itself was changed, they have it as it was changed.
func (s *Service) plan(ctx context.Context, r row) (*Plan, error) {
	name := r.plan
	if name == "" {
		name = PlanDefault // made before there were plans
	}
	p, err := s.plans.Get(ctx, name)
	if err != nil && copse.KindOf(err) == copse.NotFound {
		p, err = s.plans.Get(ctx, PlanDefault)
	}
	return p, err
}

// quotas are those of a policy store's plan.
// They are read through the caches, which a change of plan or row empties before it is acknowledged.
func (s *Service) quotas(ctx context.Context, id copse.PolicyStoreID) (Quotas, error) {
	r, err := s.rows.Get(ctx, id)
	if err != nil {
		return Quotas{}, err
	}
	p, err := s.plan(ctx, r)
	if err != nil {
		return Quotas{}, err
	}
	return p.Quotas, nil
}

func (s *Service) loadPlan(ctx context.Context, name string) (*Plan, error) {
	return readPlan(ctx, s.backend, name)
}

// KnownPlan is NotFound for a plan that neither copse nor the backend has.
// It is for whoever has a backend and no service.
func KnownPlan(ctx context.Context, b storage.Backend, name string) error {
	_, err := readPlan(ctx, b, name)
	return fromStorage(err, "")
}

// A stored plan stands before the built-in one of its name.
func readPlan(ctx context.Context, b storage.Backend, name string) (*Plan, error) {
	item, err := b.Get(ctx, storage.Directory(), planKey(name))
	if errors.Is(err, storage.ErrNotFound) {
		if p := builtIn(name); p != nil {
			return p, nil
		}
		return nil, copse.NotFoundError(copse.ResourcePlan, name)
	}
	if err != nil {
		return nil, err
	}
	return decodePlan(item)
}

// decodePlan reads a plan that was put; one of copse's own names stays BuiltIn.
func decodePlan(item storage.Item) (*Plan, error) {
	var b planBody
	if err := decode(item, &b); err != nil {
		return nil, err
	}
	return &Plan{Name: item.ID, Description: b.Description, Quotas: Quotas(b.Quotas), BuiltIn: builtIn(item.ID) != nil, UpdatedAt: b.UpdatedAt}, nil
}

// GetPlan needs Read everywhere.
// NotFound when there is none, and for a key that may not read everywhere.
func (s *Service) GetPlan(ctx context.Context, c access.Caller, name string) (Plan, error) {
	if !c.MayEverywhere(access.Read) {
		return Plan{}, copse.NotFoundError(copse.ResourcePlan, name)
	}
	p, err := s.plans.Get(ctx, name)
	if err != nil {
		return Plan{}, fromStorage(err, "")
	}
	return p.clone(), nil
}

// clone is for callers, who must not be able to change the shared one.
func (p *Plan) clone() Plan {
	out := *p
	out.Quotas.Operations = maps.Clone(p.Quotas.Operations)
	return out
}

// ListPlans returns all plans in order of name; there are at most a hundred. Needs Read everywhere.
// Without it the list is empty.
func (s *Service) ListPlans(ctx context.Context, c access.Caller) ([]Plan, error) {
	if !c.MayEverywhere(access.Read) {
		return nil, nil
	}
	items, err := s.backend.Scan(ctx, storage.Directory(), kindPlan, "", 2*maxPlans)
	if err != nil {
		return nil, fromStorage(err, "")
	}
	// The built-in ones are there whether or not they were put; what was put stands in their place.
	all := map[string]Plan{}
	for _, name := range []string{PlanDefault, PlanAVP, PlanUnmetered} {
		all[name] = *builtIn(name)
	}
	for _, item := range items {
		p, err := decodePlan(item)
		if err != nil {
			return nil, err
		}
		all[p.Name] = *p
	}
	out := make([]Plan, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, all[name])
	}
	return out, nil
}

// PutPlan makes or changes a plan. It holds for every policy store on it before PutPlan returns: what
// is over a lowered size or count stays, but nothing can be added. Needs Admin everywhere.
// Invalid lists every figure that is out of bounds; QuotaExceeded beyond a hundred plans. Of two at once the
// later one stands.
func (s *Service) PutPlan(ctx context.Context, c access.Caller, in Plan) (Plan, error) {
	if !c.MayEverywhere(access.Admin) {
		return Plan{}, denied("change plans")
	}
	if err := in.check(); err != nil {
		return Plan{}, err
	}
	if err := s.roomForPlan(ctx, in.Name); err != nil {
		return Plan{}, err
	}
	in.BuiltIn, in.UpdatedAt = builtIn(in.Name) != nil, now()
	body, err := encode(&planBody{V: bodyVersion, Description: in.Description, Quotas: quotasBody(in.Quotas), UpdatedAt: in.UpdatedAt})
	if err != nil {
		return Plan{}, err
	}
	_, err = s.backend.Commit(ctx, storage.Commit{
		Partition: storage.Directory(), Incarnation: s.directory, Actor: c.Actor(), Operation: "PutPlan",
		Writes: []storage.Write{{Key: planKey(in.Name), Body: body, Expect: storage.Any()}},
	})
	if err != nil {
		return Plan{}, fromStorage(err, "")
	}
	return in.clone(), nil
}

// roomForPlan bounds the number of plans. Two calls at once can go over it by one, which hurts nobody.
func (s *Service) roomForPlan(ctx context.Context, name string) error {
	items, err := s.backend.Scan(ctx, storage.Directory(), kindPlan, "", maxPlans)
	if err != nil {
		return fromStorage(err, "")
	}
	exists := slices.ContainsFunc(items, func(i storage.Item) bool { return i.ID == name })
	if len(items) >= maxPlans && !exists {
		return quota(copse.ResourcePlan, "plans", len(items)+1, maxPlans)
	}
	return nil
}

// DeletePlan removes a plan; one of copse's own is again as it is built in. Policy stores on a plan that
// is gone have the quotas of the default plan. Deleting what is absent succeeds. Needs Admin everywhere.
func (s *Service) DeletePlan(ctx context.Context, c access.Caller, name string) error {
	if !c.MayEverywhere(access.Admin) {
		return denied("change plans")
	}
	_, err := s.backend.Commit(ctx, storage.Commit{
		Partition: storage.Directory(), Incarnation: s.directory, Actor: c.Actor(), Operation: "DeletePlan",
		Writes: []storage.Write{{Key: planKey(name), Expect: storage.Any()}},
	})
	return fromStorage(err, "")
}

// knownPlan refuses the name of a plan that there is not.
// Invalid, under path: it is a name that somebody gave. Policy stores on a plan that went don't come here.
func (s *Service) knownPlan(ctx context.Context, path, name string) error {
	_, err := s.plans.Get(ctx, name)
	if err != nil && copse.KindOf(err) == copse.NotFound {
		return invalid(copse.ResourcePlan, "there is no such plan",
			copse.Field{Path: path, Message: fmt.Sprintf("there is no plan %q", name)})
	}
	return fromStorage(err, "")
}

// check holds a plan's figures against what copse can keep.
func (p *Plan) check() error {
	f := findings{}
	if len(p.Name) < 1 || len(p.Name) > 64 || !onlyNameChars(p.Name) {
		f.add(copse.Field{Path: "name", Message: "a plan's name has 1 to 64 of letters, digits, - and _"})
	}
	if err := f.take(validateDescription("description", p.Description)); err != nil {
		return err
	}
	q := &p.Quotas
	figures := []struct {
		name            string
		have, low, high int
	}{
		{"templates", q.Templates, 0, maxQuota}, {"aliases", q.Aliases, 0, maxAliases},
		{"identitySources", q.IdentitySources, 0, 1}, {"namespaces", q.Namespaces, 1, maxQuota},
		{"policyBytes", q.PolicyBytes, 1, copse.MaxPolicyBytes}, {"schemaBytes", q.SchemaBytes, 1, copse.MaxSchemaBytes},
		{"scopeBytes", q.ScopeBytes, 1, maxQuota},
		{"decisionsPerSecond", q.DecisionsPerSecond, 0, maxQuota}, {"writesPerSecond", q.WritesPerSecond, 0, maxQuota},
	}
	for _, x := range figures {
		if x.have < x.low || x.have > x.high {
			f.add(copse.Field{Path: "quotas." + x.name, Message: fmt.Sprintf("%d is not between %d and %d", x.have, x.low, x.high)})
		}
	}
	// Operations that AVP has a rate for.
	known := avpRates()
	for _, op := range slices.Sorted(maps.Keys(q.Operations)) {
		path := "quotas.operations." + op
		if _, ok := known[op]; !ok {
			f.add(copse.Field{Path: path, Message: "is not an operation that has a rate"})
		} else if n := q.Operations[op]; n < 1 || n > maxQuota {
			f.add(copse.Field{Path: path, Message: fmt.Sprintf("%d is not between 1 and %d; leave it out for no rate of its own", n, maxQuota)})
		}
	}
	return f.err(copse.ResourcePlan, "the plan is not valid")
}

// onlyNameChars is for names that stand in paths and on command lines.
func onlyNameChars(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}
