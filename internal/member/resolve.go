package member

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage"
)

// Presented is who an identity provider is about to issue a token for, in that provider's own words.
type Presented struct {
	Issuer string
	// Subject for a person; empty where a machine asks in its own name, as ClientID.
	Subject, ClientID string
	Email             string
	EmailVerified     bool
}

// A person who signs in at a client is named by the subject alone, wherever they sign in.
func (p *Presented) who() Who {
	if p.Subject == "" {
		return Who{Issuer: p.Issuer, ClientID: p.ClientID}
	}
	return Who{Issuer: p.Issuer, Subject: p.Subject}
}

// Resolved is what the token should say.
// Roles and attributes are shared with a cache, and must not be changed.
type Resolved struct {
	Issuer     copse.Issuer // with the names of the claims
	Tenant     copse.TenantID
	Roles      []string
	Attributes map[string]string
}

// Resolve finds the tenant somebody acts for: the active one, which is the first they joined until it is
// changed. Nothing in the request for the token has a say in it. An invitation to a verified address is
// redeemed on the way. From memory it reads no storage.
//
// Denied: there is no such tenant, or it is suspended, or the issuer may not speak for it; then there must be
// no token. Unavailable: it can't be known now, and there must be none either.
// A Denied has one text for whoever asks; [ReasonOf] tells the reason.
func (s *Service) Resolve(ctx context.Context, p Presented) (Resolved, error) {
	out, err := s.resolve(ctx, &p)
	result := resultGiven
	if err != nil {
		if result = ReasonOf(err); result == "" {
			result = resultUnavailable
		}
		s.log.InfoContext(ctx, "no tenant for a token", "reason", string(result), "error", err, "cause", errors.Unwrap(err))
	}
	s.results.WithLabelValues(string(result)).Inc()
	return out, err
}

// resolve says who signs in. Only a registered issuer's word is taken, and what is found is compared with it byte for byte, so
// that two issuers' users of one name are never one.
func (s *Service) resolve(ctx context.Context, p *Presented) (Resolved, error) {
	iss, err := s.issuer(ctx, p.Issuer)
	switch {
	case err != nil && copse.KindOf(err) == copse.NotFound:
		return Resolved{}, refuse(ReasonIssuer, "nobody registered the issuer %q", p.Issuer)
	case err != nil:
		return Resolved{}, err
	case p.Subject == "" && p.ClientID == "":
		return Resolved{}, refuse(ReasonUnknown, "there is neither a subject nor a client")
	}
	who := p.who()
	// Before the member is read: an invitation may be what makes them one.
	if err := s.redeem(ctx, &iss, p, &who); err != nil {
		return Resolved{}, err
	}
	body, err := s.members.Get(ctx, who.id())
	if err != nil {
		return Resolved{}, unavailable(err)
	}
	// The id is a hash, so the issuer is compared by itself too.
	if body == nil || body.Issuer != p.Issuer {
		return Resolved{}, refuse(ReasonUnknown, "%s is no member of any tenant", who.kind())
	}
	return s.choose(ctx, iss, body, p.ClientID)
}

// choose takes the active tenant. A tenant that is gone is none; one that is there and can't be used ends the
// matter: nobody is moved to another tenant in silence.
func (s *Service) choose(ctx context.Context, iss copse.Issuer, body *memberBody, client string) (Resolved, error) {
	for _, in := range body.inOrder(client) {
		entry, err := s.directory.Lookup(ctx, in.Tenant)
		switch {
		case err != nil && copse.KindOf(err) == copse.NotFound, err == nil && entry.Incarnation != in.Incarnation:
			continue
		case err != nil:
			return Resolved{}, err
		case entry.State != copse.TenantActive:
			return Resolved{}, refuse(ReasonSuspended, "tenant %q is %s", in.Tenant, entry.State)
		case !iss.MaySpeakFor(in.Tenant):
			return Resolved{}, refuse(ReasonBinding, "the issuer may not speak for tenant %q", in.Tenant)
		}
		return Resolved{Issuer: iss, Tenant: in.Tenant, Roles: in.Roles, Attributes: in.Attributes}, nil
	}
	return Resolved{}, refuse(ReasonUnknown, "the member's tenants are gone")
}

// inOrder has the tenant that is active for a client first, then the others as they were joined.
// A client without a choice of its own has the one that was made for all such clients.
func (b *memberBody) inOrder(client string) []*tenantOf {
	out := make([]*tenantOf, 0, len(b.Tenants))
	active, chosen := b.Active[client]
	if !chosen {
		active = b.Active[""]
	}
	for i := range b.Tenants {
		if b.Tenants[i].Tenant == active {
			out = append(out, &b.Tenants[i])
		}
	}
	for i := range b.Tenants {
		if b.Tenants[i].Tenant != active {
			out = append(out, &b.Tenants[i])
		}
	}
	return out
}

// redeem turns invitations to a verified address into memberships. An invitation is redeemed once: its row
// goes in the commit that makes the membership. The address must be verified, and the issuer registered for
// its domain, or a stranger's provider could claim it.
// What it can't redeem for this issuer it leaves alone: somebody else may.
func (s *Service) redeem(ctx context.Context, iss *copse.Issuer, p *Presented, who *Who) error {
	if p.Subject == "" || !p.EmailVerified || p.Email == "" {
		return nil
	}
	address := canonicalEmail(p.Email)
	_, domain, _ := strings.Cut(address, "@")
	if !slices.Contains(iss.EmailDomains, domain) {
		return nil
	}
	id := (&Who{Email: address}).id()
	invited, err := s.invites.Get(ctx, id)
	if err != nil {
		return unavailable(err)
	}
	for i := range invited {
		// The cache's own: it is read here, and read anew from storage before anything is written.
		in := &invited[i]
		if !iss.MaySpeakFor(in.Tenant) || in.Own && !speaksForAlone(iss, in.Tenant) || in.Email != address {
			continue
		}
		if err := s.redeemOne(ctx, in, id, who); err != nil {
			return err
		}
	}
	return nil
}

// redeemOne tries again when another change came in between: the same person may sign in twice at once.
func (s *Service) redeemOne(ctx context.Context, in *inviteBody, inviteID string, who *Who) error {
	var err error
	for range maxAttempts {
		if err = s.tryRedeem(ctx, in, inviteID, who); !errors.Is(err, storage.ErrConflict) {
			break
		}
	}
	if err != nil && copse.KindOf(err) == copse.QuotaExceeded {
		return nil // somebody in as many tenants as one can be in signs in all the same; the invitation stays
	}
	if err != nil {
		return unavailable(err)
	}
	return nil
}

// tryRedeem does nothing when the invitation, or the tenant it was to, is gone.
// ErrConflict, unwrapped, when a row was changed since it was read here.
func (s *Service) tryRedeem(ctx context.Context, in *inviteBody, inviteID string, who *Who) error {
	key := inviteKey(inviteID, in.Tenant)
	// Somebody may have redeemed or withdrawn it since it was cached.
	var still inviteBody
	expect, found, err := s.read(ctx, key, &still)
	if err != nil || !found {
		return err
	}
	// With the system's authority: whoever invited had it.
	at, err := s.placeOf(ctx, access.System(), access.Write, in.Tenant)
	if err != nil && copse.KindOf(err) == copse.NotFound || err == nil && at.entry.Incarnation != still.Incarnation {
		return nil
	}
	if err != nil {
		return err
	}
	body := memberBody{V: bodyVersion, Issuer: who.Issuer, Subject: who.Subject}
	memberExpect, _, err := s.read(ctx, memberKey(who.id()), &body)
	if err != nil {
		return err
	}
	writes := []storage.Write{{Key: key, Expect: expect}, {Key: membershipKey(in.Tenant, inviteID), Expect: storage.Any()}}
	if body.in(in.Tenant, still.Incarnation) == nil { // a member already keeps the roles they have
		joined := still.tenantOf
		joined.Since = now()
		if _, err := body.add(joined); err != nil {
			return err
		}
		row, err := put(memberKey(who.id()), body, memberExpect)
		if err != nil {
			return err
		}
		index, err := put(membershipKey(in.Tenant, who.id()), membershipBody{V: bodyVersion, Incarnation: still.Incarnation}, storage.Any())
		if err != nil {
			return err
		}
		writes = append(writes, row, index) // the tenant's count stays: one row for another
	} else {
		counted, err := s.counted(ctx, at.entry, -1)
		if err != nil {
			return err
		}
		writes = append(writes, counted)
	}
	note, ended, err := former(in.Tenant, inviteID, key)
	if err != nil {
		return err
	}
	// The tenant's row is required, or a deletion under way could miss the member.
	if err := s.commit(ctx, storage.ActorSystem, "RedeemInvitation", []storage.Requirement{at.row}, append(writes, note)); err != nil {
		return err
	}
	s.forgetFormer(ctx, note.Key, ended)
	return nil
}

// Choice is a tenant that somebody could act for.
type Choice struct {
	Tenant copse.TenantID
	Active bool // for the client that asked
}

// Choices lists the tenants of somebody whose token was verified, of those the issuer may speak for.
// None is active where the tenant that tokens would be for is one the issuer may not speak for: then there are none.
// Suspended tenants are among them. Nobody's list is empty, and no error.
func (s *Service) Choices(ctx context.Context, who Who, client string) ([]Choice, error) {
	body, err := s.members.Get(ctx, who.id())
	if err != nil {
		return nil, unavailable(err)
	}
	iss, err := s.issuer(ctx, who.Issuer)
	if err != nil {
		return nil, err
	}
	if body == nil {
		return nil, nil
	}
	var out []Choice
	next := true // the tenant that choose would take has not come yet
	for _, in := range body.inOrder(client) {
		entry, err := s.directory.Lookup(ctx, in.Tenant)
		switch {
		case err != nil && copse.KindOf(err) == copse.NotFound, err == nil && entry.Incarnation != in.Incarnation:
			continue
		case err != nil:
			return nil, err
		}
		if iss.MaySpeakFor(in.Tenant) {
			out = append(out, Choice{Tenant: in.Tenant, Active: next})
		}
		next = false
	}
	return out, nil
}

// SetActive changes which tenant the tokens of somebody are for, at one client (empty: at those that have no
// choice of their own). who is proven: by that member's own token, or by an operator's key. NotFound when it
// is not one of the member's tenants. In force before it returns, for tokens issued afterwards.
// Whether the tenant is active, and the issuer may speak for it, is not asked here but for each token.
func (s *Service) SetActive(ctx context.Context, actor string, who Who, client string, tenant copse.TenantID) error {
	if !plain(client, maxIdentityBytes) && client != "" {
		return copse.Errorf(copse.Invalid, "the client id is not plain text of at most %d bytes", maxIdentityBytes)
	}
	notFound := copse.NotFoundError(copse.ResourceTenant, string(tenant))
	var err error
	for range maxAttempts {
		var body memberBody
		var expect storage.Expectation
		var found bool
		if expect, found, err = s.read(ctx, memberKey(who.id()), &body); err != nil {
			return err
		}
		entry, lookupErr := s.directory.Lookup(ctx, tenant)
		if lookupErr != nil && copse.KindOf(lookupErr) != copse.NotFound {
			return lookupErr
		}
		// One answer for a tenant that is not there and for one that they are not in.
		if !found || lookupErr != nil || body.in(tenant, entry.Incarnation) == nil {
			return notFound
		}
		if body.Active == nil {
			body.Active = map[string]copse.TenantID{}
		}
		// A bound on the row, not on clients: who has chosen at so many can still change those.
		if body.Active[client] = tenant; len(body.Active) > maxClients {
			return &copse.Error{Kind: copse.QuotaExceeded, Resource: copse.ResourceMember, Detail: "the member has chosen a tenant at the most clients"}
		}
		row, putErr := put(memberKey(who.id()), body, expect)
		if putErr != nil {
			return putErr
		}
		if err = s.commit(ctx, actor, "SetActiveTenant", nil, []storage.Write{row}); !errors.Is(err, storage.ErrConflict) {
			break
		}
	}
	if err != nil {
		return unavailable(err)
	}
	return nil
}
