package tenant

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage"
)

// issuerID stands for a URL in paths: 22 letters and digits of its SHA-256, about 130 bits. Letters and
// digits only, so that no id looks like a flag or needs escaping.
//
// It is the first 22 digits, in base 62, of the URL's SHA-256 taken as a number. Every token that is
// verified asks for it, so it is computed in machine words: math/big takes longer than all the rest of
// finding a token that was verified before.
func issuerID(url string) string {
	const digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	const tenDigits = 839_299_365_868_340_224 // 62^10, the most of them that fit a word
	sum := sha256.Sum256([]byte(url))
	var words [4]uint64 // most significant first
	for i := range words {
		words[i] = binary.BigEndian.Uint64(sum[8*i:])
	}
	var text [50]byte // 43 digits suffice
	for end := len(text); end > 0; end -= 10 {
		var rest uint64
		for i := range words {
			words[i], rest = bits.Div64(rest, words[i], tenDigits)
		}
		for i := end - 1; i >= end-10; i-- {
			text[i] = digits[rest%62]
			rest /= 62
		}
	}
	start := 0
	for start < len(text)-22 && text[start] == '0' {
		start++
	}
	return string(text[start : start+22])
}

// noIssuer names the id and never the URL, which a stranger's token may have said.
func noIssuer(id string) error { return copse.NotFoundError(copse.ResourceIssuer, id) }

// loadIssuer is what the cache of issuers reads by.
func (s *Service) loadIssuer(ctx context.Context, id string) (copse.Issuer, error) {
	r, err := s.readIssuer(ctx, id)
	return r.Issuer, err
}

// readIssuer reads past the cache. NotFound when there is no such registration.
func (s *Service) readIssuer(ctx context.Context, id string) (registration, error) {
	item, err := s.backend.Get(ctx, storage.Directory(), issuerKey(id))
	if err != nil {
		return registration{}, fromStorage(err, copse.ResourceIssuer, id)
	}
	return decodeIssuer(item)
}

// Issuer is the cached read by URL, byte for byte, for token verification. NotFound when nobody
// registered it. No Caller: the token is the credential. The answer is shared: its slices must not be
// changed.
// Unavailable when it can't be known now, which is no reason to call a token a bad one.
func (s *Service) Issuer(ctx context.Context, url string) (copse.Issuer, error) {
	// Nobody can have registered it, and it must not fill the cache.
	if len(url) > maxURLBytes {
		return copse.Issuer{}, noIssuer("")
	}
	id := issuerID(url)
	i, err := s.issuers.Get(ctx, id)
	if err != nil {
		return copse.Issuer{}, unknowable(err, copse.ResourceIssuer, id)
	}
	if i.URL != url { // the id is a digest; only the URL itself identifies
		return copse.Issuer{}, noIssuer(id)
	}
	return i, nil
}

// GetIssuer by id.
// GetIssuer needs Admin everywhere. NotFound when absent.
func (s *Service) GetIssuer(ctx context.Context, c access.Caller, id string) (copse.Issuer, error) {
	if err := requireAdmin(c); err != nil {
		return copse.Issuer{}, err
	}
	r, err := s.readIssuer(ctx, id)
	return r.Issuer, err
}

// ListIssuers in order of id.
// It tells whether there are more after the page. Needs Admin everywhere.
func (s *Service) ListIssuers(ctx context.Context, c access.Caller, after string, limit int) ([]copse.Issuer, bool, error) {
	if err := requireAdmin(c); err != nil {
		return nil, false, err
	}
	limit = pageSize(limit)
	items, err := s.backend.Scan(ctx, storage.Directory(), kindIssuer, after, limit+1)
	if err != nil {
		return nil, false, fromStorage(err, copse.ResourceIssuer, "")
	}
	more := len(items) > limit
	items = items[:min(len(items), limit)]
	out := make([]copse.Issuer, len(items))
	for n, item := range items {
		r, err := decodeIssuer(item)
		if err != nil {
			return nil, false, err
		}
		out[n] = r.Issuer
	}
	return out, more, nil
}

// AddIssuer registers an issuer: Conflict when its URL is taken. Invalid when it breaks a rule: no
// audience, a symmetric algorithm, a tenant that does not exist, a second issuer for a tenant whose
// principals could be the first one's and no SameSubjects.
func (s *Service) AddIssuer(ctx context.Context, c access.Caller, in copse.Issuer) (copse.Issuer, error) {
	if err := requireAdmin(c); err != nil {
		return copse.Issuer{}, err
	}
	next, err := s.checkIssuer(in)
	if err != nil {
		return copse.Issuer{}, err
	}
	// The URL makes the id, so that a second registration of it is found by its key.
	next.ID, next.CreatedAt = issuerID(next.URL), now()
	next.UpdatedAt = next.CreatedAt
	return s.changeIssuer(ctx, c, "AddIssuer", next.ID, func(former *registration) (*registration, error) {
		if former != nil {
			return nil, &copse.Error{Kind: copse.Conflict, Resource: copse.ResourceIssuer, ID: next.ID,
				Detail: "an issuer with this URL is registered already"}
		}
		return &next, nil
	})
}

// UpdateIssuer replaces a registration by id; the URL stays. Conflict when in.Revision is set and not
// the current one. Its tokens that were verified under the former registration are not accepted from
// then on, because the revision is another.
func (s *Service) UpdateIssuer(ctx context.Context, c access.Caller, in copse.Issuer) (copse.Issuer, error) {
	if err := requireAdmin(c); err != nil {
		return copse.Issuer{}, err
	}
	return s.changeIssuer(ctx, c, "UpdateIssuer", in.ID, func(former *registration) (*registration, error) {
		switch {
		case former == nil:
			return nil, noIssuer(in.ID)
		// Who read something else would undo what came in between without having seen it.
		case in.Revision != 0 && in.Revision != former.Revision:
			return nil, &copse.Error{Kind: copse.Conflict, Resource: copse.ResourceIssuer, ID: in.ID,
				Detail: "the registration was changed since it was read; read it again and retry"}
		case in.URL != "" && in.URL != former.URL:
			return nil, invalidIssuer(copse.Field{Path: "url", Message: "the URL of a registration can't be changed; register another issuer"})
		}
		replaced := in
		replaced.URL = former.URL
		next, err := s.checkIssuer(replaced)
		if err != nil {
			return nil, err
		}
		next.ID, next.CreatedAt, next.UpdatedAt = former.ID, former.CreatedAt, now()
		return &next, nil
	})
}

// RemoveIssuer by id; NotFound when absent. Its tokens are refused from then on.
func (s *Service) RemoveIssuer(ctx context.Context, c access.Caller, id string) error {
	if err := requireAdmin(c); err != nil {
		return err
	}
	_, err := s.changeIssuer(ctx, c, "RemoveIssuer", id, func(former *registration) (*registration, error) {
		if former == nil {
			return nil, noIssuer(id)
		}
		return nil, nil
	})
	return err
}

// changeIssuer is the one way to change an issuer: decide turns the registration as it is (nil: none)
// into what it shall be (nil: none), and the commit is taken only if no other issuer, and no tenant it
// newly speaks for, was changed since the rules were checked.
// decide is called again after a lost race. The lock is held all the while, so that registry's memory is of one
// change at a time.
func (s *Service) changeIssuer(ctx context.Context, c access.Caller, operation, id string,
	decide func(former *registration) (*registration, error),
) (copse.Issuer, error) {
	s.issuerRules.Lock()
	defer s.issuerRules.Unlock()
	for range maxAttempts {
		known, err := s.registry(ctx)
		if err != nil {
			return copse.Issuer{}, err
		}
		var former *registration
		if r, err := s.readIssuer(ctx, id); err == nil {
			former = &r
		} else if copse.KindOf(err) != copse.NotFound {
			return copse.Issuer{}, err
		}
		next, err := decide(former)
		if err != nil {
			return copse.Issuer{}, err
		}
		// The zero expectation is absence, and the nil body deletes.
		write := storage.Write{Key: issuerKey(id)}
		if former != nil {
			write.Expect = storage.Version(former.Revision)
		}
		var require []storage.Requirement
		if next != nil {
			if err := known.check(next, former); err != nil {
				return copse.Issuer{}, err
			}
			if require, err = s.requireTenants(ctx, next, former); err != nil {
				return copse.Issuer{}, err
			}
			if write.Body, err = encode(next.body()); err != nil {
				return copse.Issuer{}, err
			}
			if err := known.room(next, write.Body); err != nil {
				return copse.Issuer{}, err
			}
		}
		revision, err := s.commitIssuer(ctx, c, operation, known, require, write)
		if errors.Is(err, storage.ErrConflict) {
			continue
		}
		if err != nil {
			return copse.Issuer{}, fromStorage(err, copse.ResourceIssuer, id)
		}
		if next == nil {
			return copse.Issuer{}, nil
		}
		// The version of the row that was written, by which tokens are remembered from now on.
		next.Revision = revision
		return next.Issuer, nil
	}
	return copse.Issuer{}, fromStorage(storage.ErrConflict, copse.ResourceIssuer, id)
}

// commitIssuer writes the marker in the same commit, at the version that the rules were checked under: a change
// of any other issuer in between is a conflict.
func (s *Service) commitIssuer(ctx context.Context, c access.Caller, operation string, known *registry,
	require []storage.Requirement, write storage.Write,
) (uint64, error) {
	marker, err := encode(&rulesBody{V: bodyVersion})
	if err != nil {
		return 0, err
	}
	revision, err := s.backend.Commit(ctx, storage.Commit{
		Partition: storage.Directory(), Incarnation: s.directory, Require: require,
		Writes: []storage.Write{write, {Key: rulesKey, Body: marker, Expect: known.expect()}},
		Actor:  c.Actor(), Operation: operation,
	})
	if err != nil {
		known.forget() // whatever it was, it may have been taken
		return 0, err
	}
	// What the write says of the issuer itself comes to the registry by the feed, before Commit returned.
	known.version = revision
	return revision, nil
}

// requireTenants makes sure that tenants it newly speaks for exist, at the moment of the commit too.
// A registration that waits for a tenant to come would speak for whoever takes that name; and one that
// could name a tenant while it is being deleted would bring its name back.
func (s *Service) requireTenants(ctx context.Context, next, former *registration) ([]storage.Requirement, error) {
	var require []storage.Requirement
	var missing []copse.Field
	for n, id := range next.Tenants {
		if former != nil && slices.Contains(former.Tenants, id) {
			continue // deleting the tenant would have changed the registration
		}
		r, err := s.read(ctx, id)
		switch {
		case err == nil:
			require = append(require, storage.Requirement{Key: tenantKey(id), Expect: storage.Version(r.version)})
		case copse.KindOf(err) == copse.NotFound:
			missing = append(missing, field("tenants", n, "tenant %q does not exist; create it first", string(id)))
		default:
			return nil, err
		}
	}
	if len(missing) > 0 {
		return nil, invalidIssuer(missing...)
	}
	return require, nil
}
