package access

import (
	"context"
	"strings"
	"time"
)

const bearerPrefix = "copse_"

// FormatBearer is the form in which a key is presented as a bearer, to be shown once.
func FormatBearer(id string, secret Secret) Secret {
	return Secret(bearerPrefix + id + "_" + string(secret))
}

// Bearer verifies "copse_<id>_<secret>". A credential that can't be read, an unknown id and a wrong
// secret are one answer and the same work, so that neither tells whether an id exists.
func (s *Service) Bearer(ctx context.Context, credential string) (Caller, error) {
	id, r, err := s.bearer(ctx, credential)
	if err != nil {
		return Caller{}, s.count(id, r, err)
	}
	return r.caller, nil
}

// bearer returns the id and the key also with an error, as far as they are known.
// That a key has expired is said only to who has its secret.
func (s *Service) bearer(ctx context.Context, credential string) (string, *record, error) {
	if credential == "" {
		return "", nil, refuse(MissingAuthenticationToken, "a credential is needed: copse_<id>_<secret>")
	}
	id, secret, ok := ParseBearer(credential)
	if !ok {
		return "", nil, errBadCredential()
	}
	r, err := s.lookup(ctx, id)
	if err != nil {
		return id, nil, err
	}
	if !r.hasSecret(secret) {
		return id, r, errBadCredential()
	}
	now := time.Now()
	if r.expired(now) {
		return id, r, refuse(ExpiredToken, "this access key has expired")
	}
	r.use.touch(now)
	return id, r, nil
}

func errBadCredential() error {
	return refuse(InvalidCredential, "the credential is not that of an access key")
}

// ParseBearer takes apart what FormatBearer made. It splits at the first underscore after the prefix: an id has none, a root secret may.
// It bounds the length first, so that nobody makes the server hash megabytes.
func ParseBearer(credential string) (id, secret string, ok bool) {
	rest, ok := strings.CutPrefix(credential, bearerPrefix)
	if !ok || len(rest) > 128+1+maxSecret {
		return "", "", false
	}
	id, secret, ok = strings.Cut(rest, "_")
	return id, secret, ok && validKeyID(id) && secret != ""
}
