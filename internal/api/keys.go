package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
)

func registerKeys(a *API, h huma.API) {
	register(a, h, route{method: http.MethodPost, path: "/v1/keys", id: "createKey", tag: tagKeys, status: http.StatusCreated, needs: adminOfKeys,
		summary:     "Make an access key",
		description: "The secret is in this answer only.",
		errors:      []int{http.StatusConflict}}, (*API).createKey)
	register(a, h, route{method: http.MethodGet, path: "/v1/keys", id: "listKeys", tag: tagKeys, status: http.StatusOK, needs: adminOfKeys,
		summary: "List the access keys, without secrets"}, (*API).listKeys)
	register(a, h, route{method: http.MethodPut, path: "/v1/keys/{id}/expiry", id: "setKeyExpiry", tag: tagKeys, status: http.StatusOK, needs: adminOfKeys,
		summary:     "Change when an access key expires",
		description: "In force from the answer on. A key that has expired stays so.",
		errors:      []int{http.StatusNotFound, http.StatusConflict}}, (*API).setKeyExpiry)
	register(a, h, route{method: http.MethodPost, path: "/v1/keys/{id}/rotate", id: "rotateKey", tag: tagKeys, status: http.StatusCreated, needs: adminOfKeys,
		summary:     "Replace an access key",
		description: "Makes a key that covers and may do the same, and lives as long as the old one was made to. The old one expires after the overlap. The secret is in this answer only.",
		errors:      []int{http.StatusNotFound, http.StatusConflict}}, (*API).rotateKey)
	register(a, h, route{method: http.MethodDelete, path: "/v1/keys/{id}", id: "revokeKey", tag: tagKeys, status: http.StatusNoContent, needs: adminOfKeys,
		summary:     "Revoke an access key",
		description: "It is refused from the answer on.",
		errors:      []int{http.StatusNotFound, http.StatusConflict}}, (*API).revokeKey)
}

// verbs in the order they are shown. The names are the API's; what each allows is access.Verb's.
var verbs = [...]struct {
	name string
	verb access.Verb
}{{"read", access.Read}, {"write", access.Write}, {"decide", access.Decide}, {"admin", access.Admin}}

// verbsOf is never nil: a key without verbs has an empty list.
func verbsOf(set access.Verb) []string {
	names := []string{}
	for _, v := range verbs {
		if set&v.verb != 0 {
			names = append(names, v.name)
		}
	}
	return names
}

// parseVerbs reads names that the schema has already held against its list. A name that is given twice
// is refused, since it may be a slip for another one.
func parseVerbs(names []string) (set access.Verb, err error) {
	for _, name := range names {
		before := set
		for _, v := range verbs {
			if name == v.name {
				set |= v.verb
			}
		}
		if set == before {
			return 0, copse.Errorf(copse.Invalid, "verbs: %q is given twice, or is none of read, write, decide and admin", name)
		}
	}
	return set, nil
}

// keyOf has no secret to show: access.Key does not hold it.
func keyOf(k *access.Key) Key {
	return Key{
		ID: k.ID, Description: k.Description, Verbs: verbsOf(k.Verbs),
		Scope:     KeyScope{All: k.Scope.All, Tenant: string(k.Scope.Tenant), PolicyStoreID: string(k.Scope.PolicyStore)},
		CreatedAt: k.CreatedAt, ExpiresAt: k.ExpiresAt, LastUsedAt: k.LastUsedAt,
	}
}

// createKey's scope is checked by the service: exactly one member, and what it names exists.
func (a *API) createKey(ctx context.Context, c access.Caller, in *struct{ Body CreateKeyRequest }) (*struct{ Body CreatedKey }, error) {
	set, err := parseVerbs(in.Body.Verbs)
	if err != nil {
		return nil, err
	}
	scope := in.Body.Scope
	key, secret, err := a.access.CreateKey(ctx, c, access.Key{
		Description: in.Body.Description, Verbs: set, ExpiresAt: in.Body.ExpiresAt,
		Scope: access.Scope{All: scope.All, Tenant: copse.TenantID(scope.Tenant), PolicyStore: copse.PolicyStoreID(scope.PolicyStoreID)},
	})
	if err != nil {
		return nil, err
	}
	return &struct{ Body CreatedKey }{Body: createdKey(&key, secret)}, nil
}

// createdKey shows a secret, once. After this answer the secret can't be read anywhere.
func createdKey(key *access.Key, secret access.Secret) CreatedKey {
	return CreatedKey{Key: keyOf(key), Secret: string(secret), Credential: string(access.FormatBearer(key.ID, secret))}
}

// setKeyExpiry wants to be told never in so many words: a member that was forgotten
// must not make a key immortal.
func (a *API) setKeyExpiry(ctx context.Context, c access.Caller, in *struct {
	ID   string `path:"id" maxLength:"200" doc:"The key's id."`
	Body KeyExpiry
}) (*struct{ Body Key }, error) {
	if in.Body.Never == !in.Body.ExpiresAt.IsZero() {
		return nil, copse.Errorf(copse.Invalid, "give either expiresAt, or never with the value true")
	}
	key, err := a.access.SetExpiry(ctx, c, in.ID, in.Body.ExpiresAt)
	if err != nil {
		return nil, err
	}
	return &struct{ Body Key }{Body: keyOf(&key)}, nil
}

// rotateKey lets both keys be good during the overlap, so that clients can change over one by one.
func (a *API) rotateKey(ctx context.Context, c access.Caller, in *struct {
	ID   string `path:"id" maxLength:"200" doc:"The key's id."`
	Body RotateKeyRequest
}) (*struct{ Body RotatedKey }, error) {
	made, secret, old, err := a.access.RotateKey(ctx, c, in.ID, time.Duration(in.Body.OverlapSeconds)*time.Second)
	if err != nil {
		return nil, err
	}
	return &struct{ Body RotatedKey }{Body: RotatedKey{CreatedKey: createdKey(&made, secret), Replaces: keyOf(&old)}}, nil
}

// listKeys does not list the root key.
func (a *API) listKeys(ctx context.Context, c access.Caller, in *struct{ Paging }) (*struct{ Body KeyList }, error) {
	const list = "keys"
	after, err := in.start(a, list, c)
	if err != nil {
		return nil, err
	}
	page, more, err := a.access.ListKeys(ctx, c, after, in.limit())
	if err != nil {
		return nil, err
	}
	out := &struct{ Body KeyList }{Body: KeyList{Keys: make([]Key, len(page))}}
	for i := range page {
		out.Body.Keys[i] = keyOf(&page[i])
		after = page[i].ID
	}
	out.Body.NextToken = a.next(list, c, more, after)
	return out, nil
}

// revokeKey may be repeated after an error: the key is revoked first, and its traces
// removed after that.
func (a *API) revokeKey(ctx context.Context, c access.Caller, in *struct {
	ID string `path:"id" maxLength:"200" doc:"The key's id."`
}) (*struct{}, error) {
	return nil, a.access.RevokeKey(ctx, c, in.ID)
}
