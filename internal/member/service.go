package member

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage"
)

// Config is what a Service is made of.
type Config struct {
	Backend   storage.Backend
	Directory copse.Directory
	// Issuer finds a registration by its URL; NotFound for an untrusted one.
	Issuer  func(ctx context.Context, url string) (copse.Issuer, error)
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Service keeps members, and answers whose tenant somebody acts for.
type Service struct {
	backend   storage.Backend
	directory copse.Directory
	issuer    func(ctx context.Context, url string) (copse.Issuer, error)
	log       *slog.Logger

	members *storage.Cache[string, *memberBody]  // by Who.id; a nil body: there is none
	invites *storage.Cache[string, []inviteBody] // by Who.id of an address; mostly none
	stop    func()
	eraser  *eraser
	results *prometheus.CounterVec
}

// maxCached members and addresses: entries of a few hundred bytes.
const maxCached = 100_000

// New makes a Service. It follows the backend until Close.
// Nothing is erased before Resume.
func New(cfg Config) (*Service, error) {
	s := &Service{backend: cfg.Backend, directory: cfg.Directory, issuer: cfg.Issuer, log: cfg.Log}
	s.results = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "copse_token_hook_total", Help: "Tokens whose claims were asked for, by result: given, or the reason there must be no token.",
	}, []string{"result"})
	for _, r := range append(Reasons(), resultGiven, resultUnavailable) {
		s.results.WithLabelValues(string(r))
	}
	if cfg.Metrics != nil {
		if err := cfg.Metrics.Register(s.results); err != nil {
			return nil, err
		}
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.members = storage.NewCache(storage.CacheConfig[string, *memberBody]{Load: s.loadMember, MaxWeight: maxCached})
	s.invites = storage.NewCache(storage.CacheConfig[string, []inviteBody]{Load: s.loadInvites, MaxWeight: maxCached})
	s.stop = cfg.Backend.Follow(s.follow)
	s.eraser = newEraser(s)
	return s, nil
}

// Close stops following the backend, and erasing in the background where it is.
func (s *Service) Close() error {
	s.stop()
	s.eraser.close()
	return nil
}

// follow runs before a change is acknowledged.
func (s *Service) follow(c storage.Change) {
	if c.Partition != storage.Directory() {
		return
	}
	if c.Keys == nil {
		s.members.InvalidateAll()
		s.invites.InvalidateAll()
		return
	}
	for _, k := range c.Keys {
		switch k.Kind {
		case kindMember:
			s.members.Invalidate(k.ID)
		// Kept by address, and the row's id begins with that.
		case kindInvite:
			s.invites.Invalidate(k.ID[:min(len(k.ID), idBytes)])
		}
	}
}

// loadMember gives nil for nobody: absence is an answer, kept until somebody is made a member.
func (s *Service) loadMember(ctx context.Context, id string) (*memberBody, error) {
	var b memberBody
	_, found, err := s.read(ctx, memberKey(id), &b)
	if err != nil || !found {
		return nil, err
	}
	return &b, nil
}

// loadInvites reads as many as one address can have, those to tenants that are gone included.
func (s *Service) loadInvites(ctx context.Context, id string) ([]inviteBody, error) {
	items, err := s.backend.Scan(ctx, storage.Directory(), kindInvite, id+"/", MaxTenants)
	if err != nil {
		return nil, unavailable(err)
	}
	var out []inviteBody
	for _, item := range items {
		// The scan goes on into the next address's.
		if !strings.HasPrefix(item.ID, id+"/") {
			break
		}
		var b inviteBody
		if err := decode(item, &b); err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// commit writes to the directory.
// Errors are storage's own, so that callers can tell a conflict.
func (s *Service) commit(ctx context.Context, actor, operation string, require []storage.Requirement, writes []storage.Write) error {
	head, err := s.backend.Head(ctx, storage.Directory())
	if err != nil {
		return err
	}
	_, err = s.backend.Commit(ctx, storage.Commit{
		Partition: storage.Directory(), Incarnation: head.Incarnation, Require: require, Writes: writes, Actor: actor, Operation: operation,
	})
	return err
}

// place is a tenant that a caller may touch the members of.
// What is written for it requires row: a deletion of the tenant then comes before or after, never between.
type place struct {
	entry copse.DirectoryEntry
	row   storage.Requirement // that it is still the one
}

// placeOf finds a tenant. NotFound when the caller's key does not cover it with the verb.
// Unavailable while the directory can't be read. A suspended tenant is a place like any other.
func (s *Service) placeOf(ctx context.Context, c access.Caller, verb access.Verb, tenant copse.TenantID) (place, error) {
	notFound := copse.NotFoundError(copse.ResourceTenant, string(tenant))
	if tenant.Validate() != nil {
		return place{}, notFound
	}
	// The row first: if the tenant is made anew in between, the commit finds another version.
	key := storage.Key{Kind: access.TenantKind, ID: string(tenant)}
	item, err := s.backend.Get(ctx, storage.Directory(), key)
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return place{}, notFound
	case err != nil:
		return place{}, unavailable(err)
	}
	entry, err := s.directory.Lookup(ctx, tenant)
	if err != nil {
		return place{}, err
	}
	if !c.MayEverywhere(access.Admin) && !c.MayForTenant(verb, tenant) {
		return place{}, access.NotCovered(copse.ResourceTenant, string(tenant))
	}
	return place{entry, storage.Requirement{Key: key, Expect: storage.Version(item.Version)}}, nil
}

// maxAttempts bounds how often a change is computed again because another writer was faster.
const maxAttempts = 10

// Put makes somebody a member of a tenant, or changes their roles and attributes there. Each of the
// memberships is all done or not at all, and errs has an error for each that was not, at its place. It needs Write
// for the tenant, or Admin everywhere.
//
// A tenant's own key names members of issuers that speak for this tenant alone: at an issuer that others
// share it would decide where somebody else's users sign in to.
// Unavailable ends the call: err is it, errs is nil, and those before it may be done. The memberships are not
// one commit: others may see some of them before the rest.
func (s *Service) Put(ctx context.Context, c access.Caller, memberships []Membership) (errs []error, err error) {
	if len(memberships) > MaxBatch {
		return nil, copse.Errorf(copse.Invalid, "%d members in one call, at most %d", len(memberships), MaxBatch)
	}
	errs = make([]error, len(memberships))
	for i := range memberships {
		// One commit each: what is wrong with one is no reason to refuse the others.
		errs[i] = s.putOne(ctx, c, &memberships[i])
		if copse.KindOf(errs[i]) == copse.Unavailable && errs[i] != nil {
			return nil, errs[i]
		}
	}
	return errs, nil
}

// putOne tries again when another change came in between. Whether the caller may is asked anew each time.
// Invalid, NotFound for the tenant, QuotaExceeded, or Conflict when others were faster too often.
func (s *Service) putOne(ctx context.Context, c access.Caller, m *Membership) error {
	if err := m.validate(); err != nil {
		return err
	}
	var err error
	for range maxAttempts {
		var at place
		if at, err = s.placeOf(ctx, c, access.Write, m.Tenant); err != nil {
			return err
		}
		if err = s.mayName(ctx, c, m, at.entry.Tenant); err != nil {
			return err
		}
		// In the tenant's life of now, which the commit requires.
		in := tenantOf{Tenant: m.Tenant, Incarnation: at.entry.Incarnation, Roles: m.Roles, Attributes: m.Attributes, Since: now()}
		if m.Email != "" {
			err = s.invite(ctx, c, at, m, in)
		} else {
			err = s.join(ctx, c, at, m, in)
		}
		if !errors.Is(err, storage.ErrConflict) {
			break
		}
	}
	if err != nil {
		return unavailable(err)
	}
	return nil
}

// mayName holds the issuer against its registration: law 2 also where members are written down.
// It is Invalid with one text for an issuer that nobody registered and for one that is others': a tenant's key
// does not learn which there are.
func (s *Service) mayName(ctx context.Context, c access.Caller, m *Membership, tenant copse.TenantID) error {
	if m.Email != "" {
		return nil // looked at when it is redeemed
	}
	iss, err := s.issuer(ctx, m.Issuer)
	own := err == nil && !c.MayEverywhere(access.Admin)
	switch {
	case err != nil && copse.KindOf(err) != copse.NotFound:
		return err
	case err != nil, !iss.MaySpeakFor(tenant), own && !speaksForAlone(&iss, tenant):
		return &copse.Error{Kind: copse.Invalid, Resource: copse.ResourceMember, Detail: "the issuer is not this tenant's",
			Fields: []copse.Field{{Path: "issuer", Message: "no issuer of this URL speaks for the tenant (for a tenant's own key: for it alone); register it, or let the operator add the member"}}}
	}
	return nil
}

// speaksForAlone reports whether no other tenant has the issuer. One that lists none and has no fixed tenant
// speaks for nobody.
func speaksForAlone(iss *copse.Issuer, tenant copse.TenantID) bool {
	return iss.FixedTenant == tenant || !iss.AllTenants && len(iss.Tenants) == 1 && iss.Tenants[0] == tenant
}

// join writes a member's row, and the tenant's row of it.
// One that exists keeps its other tenants, and the time since which it is in this one.
func (s *Service) join(ctx context.Context, c access.Caller, at place, m *Membership, in tenantOf) error {
	id := m.id()
	body := memberBody{V: bodyVersion, Issuer: m.Issuer, Subject: m.Subject, Client: m.ClientID}
	// Where there is a row it is read over these, which it has the same.
	expect, _, err := s.read(ctx, memberKey(id), &body)
	if err != nil {
		return err
	}
	isNew, err := body.add(in)
	if err != nil {
		return err
	}
	return s.write(ctx, c.Actor(), "PutMember", at, isNew, membershipKey(m.Tenant, id),
		membershipBody{V: bodyVersion, Incarnation: in.Incarnation}, memberKey(id), body, expect)
}

// add puts a tenant into a member, in place of a former life of it; isNew is false where it was there.
// QuotaExceeded when the member is in the most tenants already; then b must not be written.
func (b *memberBody) add(in tenantOf) (isNew bool, err error) {
	if old := b.in(in.Tenant, in.Incarnation); old != nil {
		in.Since = old.Since
		*old = in
		return false, nil
	}
	b.leave(func(t *tenantOf) bool { return t.Tenant == in.Tenant })
	if len(b.Tenants) >= MaxTenants {
		return false, &copse.Error{Kind: copse.QuotaExceeded, Resource: copse.ResourceMember, Detail: "the member is in the most tenants that one can be in"}
	}
	b.Tenants = append(b.Tenants, in)
	return true, nil
}

// invite writes an invitation, and the tenant's row of it.
// The number of an address is looked at without being required: two at once can go over it by one.
func (s *Service) invite(ctx context.Context, c access.Caller, at place, m *Membership, in tenantOf) error {
	key := inviteKey(m.id(), m.Tenant)
	var old inviteBody
	expect, found, err := s.read(ctx, key, &old)
	if err != nil {
		return err
	}
	if !found {
		invited, err := s.loadInvites(ctx, m.id())
		if err != nil {
			return err
		}
		if len(invited) >= MaxTenants {
			return &copse.Error{Kind: copse.QuotaExceeded, Resource: copse.ResourceMember, Detail: "the address has the most invitations that one can have"}
		}
	}
	body := inviteBody{V: bodyVersion, Email: canonicalEmail(m.Email), Own: !c.MayEverywhere(access.Admin), tenantOf: in}
	return s.write(ctx, c.Actor(), "InviteMember", at, !found || old.Incarnation != in.Incarnation, membershipKey(m.Tenant, m.id()),
		membershipBody{V: bodyVersion, Incarnation: in.Incarnation, Invite: true}, key, body, expect)
}

// write commits a row with the tenant's row of it and, if it is new, counts it.
// Without at.row in the commit a member could be made while the tenant is being deleted, and be missed.
func (s *Service) write(ctx context.Context, actor, operation string, at place, isNew bool, index storage.Key, indexBody membershipBody, key storage.Key, body any, expect storage.Expectation) error {
	row, err := put(key, body, expect)
	if err != nil {
		return err
	}
	writes := []storage.Write{row}
	if isNew {
		counted, err := s.counted(ctx, at.entry, 1)
		if err != nil {
			return err
		}
		indexed, err := put(index, indexBody, storage.Any())
		if err != nil {
			return err
		}
		writes = append(writes, counted, indexed)
	}
	return s.commit(ctx, actor, operation, []storage.Requirement{at.row}, writes)
}

// counted changes how many rows a tenant has. QuotaExceeded over the most.
// The count is a row that every new member writes, so it is exact, and makes them queue by conflicts.
func (s *Service) counted(ctx context.Context, entry copse.DirectoryEntry, by int) (storage.Write, error) {
	body := countBody{V: bodyVersion}
	expect, _, err := s.read(ctx, countKey(entry.Tenant), &body)
	if err != nil {
		return storage.Write{}, err
	}
	// The count of a former life: this one begins at nothing.
	if body.Incarnation != entry.Incarnation {
		body.Incarnation, body.Rows = entry.Incarnation, 0
	}
	body.Rows = max(body.Rows+by, 0)
	if by > 0 && body.Rows > MaxOfTenant {
		return storage.Write{}, &copse.Error{Kind: copse.QuotaExceeded, Resource: copse.ResourceMember, Detail: "the tenant has the most members that one can have"}
	}
	return put(countKey(entry.Tenant), body, expect)
}

// Remove ends a membership or withdraws an invitation: in force before it returns. NotFound when there is
// none. It needs what Put needs.
// What history has of it is erased as well, in the background where that fails.
func (s *Service) Remove(ctx context.Context, c access.Caller, tenant copse.TenantID, who Who) error {
	var err error
	for range maxAttempts {
		var at place
		if at, err = s.placeOf(ctx, c, access.Write, tenant); err != nil {
			return err
		}
		var row storage.Write
		if row, err = s.withoutTenant(ctx, at.entry, &who); err != nil {
			break
		}
		var counted storage.Write
		if counted, err = s.counted(ctx, at.entry, -1); err != nil {
			break
		}
		var note storage.Write
		var body formerBody
		// In the same commit, so that a crash after it has the history erased at the next start.
		if note, body, err = former(tenant, who.id(), row.Key); err != nil {
			break
		}
		index := storage.Write{Key: membershipKey(tenant, who.id()), Expect: storage.Any()}
		err = s.commit(ctx, c.Actor(), "RemoveMember", []storage.Requirement{at.row}, []storage.Write{row, counted, index, note})
		if err == nil {
			s.forgetFormer(ctx, note.Key, body)
		}
		if !errors.Is(err, storage.ErrConflict) {
			break
		}
	}
	if err != nil {
		return unavailable(err)
	}
	return nil
}

// withoutTenant is the write that takes a tenant out of a member, or an invitation away.
// NotFound also where what is stored is of a former life of the tenant. A member without tenants has no row.
func (s *Service) withoutTenant(ctx context.Context, entry copse.DirectoryEntry, who *Who) (storage.Write, error) {
	notFound := copse.NotFoundError(copse.ResourceMember, who.Subject+who.ClientID+who.Email)
	if who.Email != "" {
		key := inviteKey(who.id(), entry.Tenant)
		var b inviteBody
		expect, found, err := s.read(ctx, key, &b)
		if err == nil && (!found || b.Incarnation != entry.Incarnation) {
			err = notFound
		}
		return storage.Write{Key: key, Expect: expect}, err
	}
	key := memberKey(who.id())
	var b memberBody
	expect, found, err := s.read(ctx, key, &b)
	if err == nil && (!found || b.in(entry.Tenant, entry.Incarnation) == nil) {
		err = notFound
	}
	if err != nil {
		return storage.Write{}, err
	}
	// Every life of it: what is of a former one has no business there either.
	b.leave(func(t *tenantOf) bool { return t.Tenant == entry.Tenant })
	if len(b.Tenants) == 0 {
		return storage.Write{Key: key, Expect: expect}, nil
	}
	return put(key, b, expect)
}

// List returns up to limit members and invitations of a tenant, in an order that stays, after a position
// that a former call returned, and the next position, empty at the end. It needs Read for the tenant,
// or Admin everywhere.
// A page may be short: rows of a former life, not erased yet, take a place in it and are not shown.
func (s *Service) List(ctx context.Context, c access.Caller, tenant copse.TenantID, after string, limit int) (out []Membership, next string, err error) {
	at, err := s.placeOf(ctx, c, access.Read, tenant)
	if err != nil {
		return nil, "", err
	}
	prefix := string(tenant) + "/"
	items, err := s.backend.Scan(ctx, storage.Directory(), kindMembership, prefix+after, limit)
	if err != nil {
		return nil, "", unavailable(err)
	}
	for _, item := range items {
		id, ok := strings.CutPrefix(item.ID, prefix)
		if !ok {
			return out, "", nil
		}
		// Also of one that is not shown, so that the list goes on after it.
		next = id
		m, found, err := s.listed(ctx, at.entry, item, id)
		if err != nil {
			return nil, "", err
		}
		if found {
			out = append(out, m)
		}
	}
	if len(items) < limit {
		next = ""
	}
	return out, next, nil
}

// listed reads what a tenant's row of a member stands for; false when that is gone, or of another life.
func (s *Service) listed(ctx context.Context, entry copse.DirectoryEntry, item storage.Item, id string) (Membership, bool, error) {
	var index membershipBody
	if err := decode(item, &index); err != nil {
		return Membership{}, false, err
	}
	if index.Invite {
		var b inviteBody
		_, found, err := s.read(ctx, inviteKey(id, entry.Tenant), &b)
		if err != nil || !found || b.Incarnation != entry.Incarnation {
			return Membership{}, false, err
		}
		return membershipOf(Who{Email: b.Email}, &b.tenantOf), true, nil
	}
	var b memberBody
	_, found, err := s.read(ctx, memberKey(id), &b)
	if err != nil || !found {
		return Membership{}, false, err
	}
	in := b.in(entry.Tenant, entry.Incarnation)
	if in == nil {
		return Membership{}, false, nil
	}
	return membershipOf(b.who(), in), true, nil
}

// Get is List for one. NotFound when there is none.
func (s *Service) Get(ctx context.Context, c access.Caller, tenant copse.TenantID, who Who) (Membership, error) {
	at, err := s.placeOf(ctx, c, access.Read, tenant)
	if err != nil {
		return Membership{}, err
	}
	// Not read: whether there is one, the member's own row tells.
	index := storage.Item{Key: membershipKey(tenant, who.id())}
	if index.Body, err = encodeIndex(who.Email != "", at.entry.Incarnation); err != nil {
		return Membership{}, err
	}
	m, found, err := s.listed(ctx, at.entry, index, who.id())
	if err == nil && !found {
		err = copse.NotFoundError(copse.ResourceMember, who.Subject+who.ClientID+who.Email)
	}
	return m, err
}

// encodeIndex is the body of a tenant's row of a member or invitation.
func encodeIndex(invite bool, incarnation copse.Incarnation) ([]byte, error) {
	w, err := put(storage.Key{}, membershipBody{V: bodyVersion, Incarnation: incarnation, Invite: invite}, storage.Any())
	return w.Body, err
}

// membershipOf shows a membership. Its attributes are those of in, which was read for it.
func membershipOf(who Who, in *tenantOf) Membership {
	return Membership{Who: who, Tenant: in.Tenant, Roles: slices.Clone(in.Roles), Attributes: in.Attributes, Since: in.Since}
}

// now is the time as it is stored and shown: UTC, in microseconds.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }
