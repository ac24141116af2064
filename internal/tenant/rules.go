package tenant

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// registry is what the rules between issuers need to know of all of them. It is read when issuers are
// changed, never for a decision, and then kept: the first change after a start reads every issuer, the
// next ones only those that changed.
// Its maps are indexes of claims, changed by put and remove alone.
type registry struct {
	version uint64 // of the marker, 0: there is none yet
	loaded  bool
	claims  map[string]claims // by issuer id
	tenants map[copse.TenantID]map[string]bool
	all     map[string]bool
	domains map[string]string // e-mail domain -> issuer id

	dirty dirty
}

// dirty are issuers that changed since they were read. The backend's feed marks them while changes of
// the registry are under way elsewhere, so it has a lock of its own.
type dirty struct {
	mu  sync.Mutex
	all bool
	ids map[string]bool
}

// mark is called by the feed, before a change is acknowledged; it takes no other lock.
func (d *dirty) mark(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ids == nil {
		d.ids = make(map[string]bool)
	}
	d.ids[id] = true
}

func (d *dirty) markAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = true
}

// take hands over what was marked. What is marked from then on is for the next time.
func (d *dirty) take() (ids map[string]bool, all bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ids, all = d.ids, d.all
	d.ids, d.all = nil, false
	return ids, all
}

// claims is what one issuer may say: for whom, and which principals.
// The slices are a registration's and must not be changed.
type claims struct {
	tenants       []copse.TenantID
	all           bool
	principalType string
	groupType     string // empty: none
	prefix        string
	sameSubjects  bool
	domains       []string
}

// claims shares r's slices.
func (r *registration) claims() claims {
	return claims{
		tenants: r.Tenants, all: r.AllTenants, principalType: r.PrincipalType, groupType: r.GroupType,
		prefix: r.PrincipalIDPrefix, sameSubjects: r.SameSubjects, domains: r.EmailDomains,
	}
}

// meeting says in which roles two issuers could name the same entity; zero: in none.
type meeting uint8

// Principal and group are c's and o's, in this order.
const (
	principalAsPrincipal meeting = 1 << iota
	principalAsGroup
	groupAsPrincipal
	groupAsGroup
)

// meets finds out in which roles c and o could name the same entity. An entity's id is the prefix, a bar
// and what the token says, or that alone; and a token may say bars. So without a prefix an issuer can
// name every entity of its types, and two prefixes (which contain no bar) keep apart what begins with
// them.
func (c claims) meets(o claims) (m meeting) {
	if c.prefix != o.prefix && c.prefix != "" && o.prefix != "" {
		return 0
	}
	if c.principalType == o.principalType {
		m |= principalAsPrincipal
	}
	if c.principalType == o.groupType {
		m |= principalAsGroup
	}
	if c.groupType == o.principalType {
		m |= groupAsPrincipal
	}
	if c.groupType != "" && c.groupType == o.groupType {
		m |= groupAsGroup
	}
	return m
}

// registry brings what is kept up to date. The caller holds issuerRules.
// After an error the next use reads everything: what was taken from the dirty set is not lost.
func (s *Service) registry(ctx context.Context) (*registry, error) {
	r := &s.known
	// Marker first: a change after this read is not in what follows, and fails the commit.
	version := uint64(0)
	item, err := s.backend.Get(ctx, storage.Directory(), rulesKey)
	if err == nil {
		version = item.Version
	} else if !errors.Is(err, storage.ErrNotFound) {
		return nil, fromStorage(err, copse.ResourceIssuer, "")
	}
	changed, all := r.dirty.take()
	// The marker moved without this process knowing how, or it isn't known what changed.
	if all || !r.loaded || r.version != version {
		r.loaded = false
		if err := s.loadRegistry(ctx, r); err != nil {
			return nil, err
		}
		r.loaded, r.version = true, version
		return r, nil
	}
	// The usual case: what the feed said has changed, and nothing else, is read again.
	for id := range changed {
		reg, err := s.readIssuer(ctx, id)
		switch {
		case err == nil:
			r.put(id, reg.claims())
		case copse.KindOf(err) == copse.NotFound:
			r.remove(id)
		default:
			r.loaded = false
			return nil, err
		}
	}
	return r, nil
}

// loadRegistry reads all issuers. They are not of one revision; that a change in between is not missed is the
// marker's part.
func (s *Service) loadRegistry(ctx context.Context, r *registry) error {
	r.claims, r.tenants = make(map[string]claims), make(map[copse.TenantID]map[string]bool)
	r.all, r.domains = make(map[string]bool), make(map[string]string)
	for after := ""; ; {
		items, err := s.backend.Scan(ctx, storage.Directory(), kindIssuer, after, maxPage)
		if err != nil {
			return fromStorage(err, copse.ResourceIssuer, "")
		}
		for _, item := range items {
			after = item.ID
			reg, err := decodeIssuer(item)
			if err != nil {
				return err
			}
			r.put(item.ID, reg.claims())
		}
		if len(items) < maxPage {
			return nil
		}
	}
}

// put takes what an issuer may say now in place of what it could before.
func (r *registry) put(id string, c claims) {
	r.remove(id)
	r.claims[id] = c
	if c.all {
		r.all[id] = true
	}
	for _, t := range c.tenants {
		if r.tenants[t] == nil {
			r.tenants[t] = make(map[string]bool, 1)
		}
		r.tenants[t][id] = true
	}
	for _, d := range c.domains {
		r.domains[d] = id
	}
}

// A domain may be another's by now, and stays so.
func (r *registry) remove(id string) {
	c := r.claims[id]
	delete(r.claims, id)
	delete(r.all, id)
	for _, t := range c.tenants {
		if delete(r.tenants[t], id); len(r.tenants[t]) == 0 {
			delete(r.tenants, t)
		}
	}
	for _, d := range c.domains {
		if r.domains[d] == id {
			delete(r.domains, d)
		}
	}
}

// forget makes the next use read everything again.
func (r *registry) forget() { r.loaded = false }

// expect is what a commit that relies on the registry must find.
func (r *registry) expect() storage.Expectation { return storage.Version(r.version) }

// sharing yields the issuers that may speak for a tenant that c speaks for.
// With itself, where it is among those that are kept. The map is the caller's.
func (r *registry) sharing(c claims) map[string]bool {
	out := make(map[string]bool)
	// It meets everybody who speaks for somebody.
	if c.all {
		for id, o := range r.claims {
			if o.all || len(o.tenants) > 0 {
				out[id] = true
			}
		}
		return out
	}
	// It speaks for nobody, and so meets nobody.
	if len(c.tenants) == 0 {
		return out
	}
	for id := range r.all {
		out[id] = true
	}
	for _, t := range c.tenants {
		for id := range r.tenants[t] {
			out[id] = true
		}
	}
	return out
}

// room holds the limits that let a tenant be deleted in one commit, which rewrites all issuers that list
// it and removes its keys.
// QuotaExceeded when the registration is too large, or too many issuers list one of its tenants.
func (r *registry) room(next *registration, body []byte) error {
	if len(body) > copse.MaxIssuerBytes {
		return &copse.Error{Kind: copse.QuotaExceeded, Resource: copse.ResourceIssuer, ID: next.ID, Detail: fmt.Sprintf(
			"the registration has %d bytes, at most %d are allowed; list fewer tenants, or register it for all", len(body), copse.MaxIssuerBytes)}
	}
	for _, t := range next.Tenants {
		listing := r.tenants[t]
		if len(listing) >= copse.MaxIssuersPerTenant && !listing[next.ID] {
			return &copse.Error{Kind: copse.QuotaExceeded, Resource: copse.ResourceIssuer, ID: next.ID, Detail: fmt.Sprintf(
				"%d issuers list tenant %q already, at most %d are allowed", len(listing), string(t), copse.MaxIssuersPerTenant)}
		}
	}
	return nil
}

// check holds a registration against all others. former is what it replaces.
// nil for a new one. Invalid lists what it breaks, up to a bound.
func (r *registry) check(next, former *registration) error {
	c := next.claims()
	var fields []copse.Field
	// Two issuers that vouch for one domain could each claim the other's users by their addresses.
	for n, d := range c.domains {
		if other, taken := r.domains[d]; taken && other != next.ID {
			fields = append(fields, field("emailDomains", n, "issuer %s vouches for %q already", other, d))
		}
	}
	var stated map[string]bool // pairs that were there before
	if former != nil {
		stated = r.sharing(former.claims())
	}
	for other := range r.sharing(c) {
		o := r.claims[other]
		meeting := c.meets(o)
		if other == next.ID || meeting == 0 || c.sameSubjects {
			continue
		}
		// The other one said that its subjects are this one's. That holds for the pair as it was,
		// and is no consent to a pair, or to groups, that this change would make meet.
		if o.sameSubjects && stated[other] && meeting&^former.claims().meets(o) == 0 {
			continue
		}
		fields = append(fields, copse.Field{Path: "principalIdPrefix", Message: fmt.Sprintf(
			"issuer %s speaks for a tenant of this one and could name the same principals or groups: give both issuers different prefixes, or this one a principal type and a group type of its own, or state sameSubjects", other)})
		if len(fields) >= maxFields {
			break
		}
	}
	if len(fields) > 0 {
		return invalidIssuer(fields...)
	}
	return nil
}
