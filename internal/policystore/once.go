package policystore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// A create whose answer got lost is sent again. Its client token says so: the same token with the same
// parameters gets the same answer again and makes nothing, with other parameters it is a conflict. What
// is remembered is written in the commit that makes the thing, so neither exists without the other, and
// outlives the thing: a repeated request that was long on its way must not bring back what was deleted
// since. Only a policy store takes the memory of its own making with it, since nothing of it may stay.

// tokenLife is how long a client token is remembered, as long as AVP does.
const tokenLife = 8 * time.Hour

// maxTokens bounds what one policy store remembers; beyond it the oldest go early.
const maxTokens = 10_000

// sweptTokens is how many of those that are not needed any more go with each one that comes.
const sweptTokens = 2

// kindClientToken has an item per client token: in the directory those of CreatePolicyStore, in a
// policy store's partition all others. The id is a hash of operation and token.
const kindClientToken storage.Kind = "client-token"

// tokenBody is what is remembered. Of the parameters a hash is enough to compare, as of the token in the id.
type tokenBody struct {
	V          int            `json:"v"`
	Parameters string         `json:"parameters"` // their hash
	Made       string         `json:"made"`       // id of what was made
	Answer     jsontext.Value `json:"answer"`
	At         time.Time      `json:"at"`
}

// once makes a create happen once per client token. Its zero value, and one without a token, remembers
// nothing and recalls nothing.
type once struct {
	key        storage.Key // of the item; the zero Key when there is no token
	resource   copse.ResourceType
	parameters string
	expect     storage.Expectation // of the item, as recall found it
}

// newOnce is for one call. parameters is what makes two calls the same, without the token.
// Invalid for text that JSON can't hold.
func newOnce(operation string, resource copse.ResourceType, token string, parameters any) (*once, error) {
	if token == "" {
		return &once{}, nil
	}
	text, err := json.Marshal(parameters, json.Deterministic(true))
	if err != nil {
		return nil, &copse.Error{Kind: copse.Invalid, Detail: "text is not valid UTF-8", Err: err}
	}
	id, hash := sha256.Sum256([]byte(operation+" "+token)), sha256.Sum256(text)
	return &once{
		key:      storage.Key{Kind: kindClientToken, ID: hex.EncodeToString(id[:16])},
		resource: resource, parameters: hex.EncodeToString(hash[:]),
	}, nil
}

// recall fills answer and reports true when the call was answered before. Conflict when the token was
// used with other parameters.
func (s *Service) recall(ctx context.Context, p storage.Partition, o *once, answer any) (bool, error) {
	if o.key == (storage.Key{}) {
		return false, nil
	}
	// Whatever is found below, it is what the commit must still find.
	o.expect = storage.Absent()
	item, err := s.backend.Get(ctx, p, o.key)
	if errors.Is(err, storage.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var body tokenBody
	if err := decode(item, &body); err != nil {
		return false, err
	}
	o.expect = storage.Version(item.Version)
	switch {
	// Over, though not erased yet: the call is a new one, and takes the row over at its version.
	case time.Since(body.At) >= tokenLife:
		return false, nil
	case body.Parameters != o.parameters:
		return false, &copse.Error{Kind: copse.Conflict, Resource: o.resource, ID: body.Made,
			Detail: fmt.Sprintf("clientToken was used with other parameters, less than %d hours ago; use a new one", int(tokenLife.Hours()))}
	}
	if err := json.Unmarshal(body.Answer, answer); err != nil {
		return false, undecodable(item, err)
	}
	return true, nil
}

// write is what a create that recalled nothing adds to its commit.
// recall has set what the row is expected to be; without a token there is nothing to write.
func (o *once) write(made string, answer any, at time.Time) ([]storage.Write, error) {
	if o.key == (storage.Key{}) {
		return nil, nil
	}
	encoded, err := encode(answer)
	if err != nil {
		return nil, err
	}
	body, err := encode(&tokenBody{V: bodyVersion, Parameters: o.parameters, Made: made, Answer: encoded, At: at})
	return []storage.Write{{Key: o.key, Body: body, Expect: o.expect}}, err
}

// remember adds to a change of a policy store what answers the same call next time, and takes away some
// of what is out of date.
// The marks of the ledger follow in settle, when the commit was taken.
func (s *Service) remember(ctx context.Context, id copse.PolicyStoreID, c change, o *once, made string, answer any) (change, error) {
	writes, err := o.write(made, answer, now())
	if err != nil || len(writes) == 0 {
		return c, err
	}
	l := c.base
	// From the oldest on; the first that is not due ends it, since those after it are younger.
	gone, swept := 0, 0
	for gone < len(l.tokens) && swept < sweptTokens {
		write, due, err := s.tokenIsDue(ctx, id, l, gone, o.key)
		if err != nil {
			return change{}, err
		}
		if !due {
			break
		}
		if write != nil {
			writes = append(writes, *write)
			swept++
		}
		gone++
	}
	c.writes = append(c.writes, writes...)
	if settle := c.settle; settle != nil {
		c.settle = func(l *ledger, revision uint64) {
			settle(l, revision)
			l.tokens = append(l.tokens[gone:], tokenMark{id: o.key.ID, version: revision})
		}
	}
	return c, nil
}

// tokenMark is a remembered token of a ledger, which has them in the order they came.
type tokenMark struct {
	id      string
	version uint64
	at      time.Time // zero until it was read
}

// tokenIsDue tells whether the i-th oldest token of a ledger can go, and the write that removes it: none
// when it was used again since, for it then has a younger mark.
func (s *Service) tokenIsDue(ctx context.Context, id copse.PolicyStoreID, l *ledger, i int, own storage.Key) (*storage.Write, bool, error) {
	mark := &l.tokens[i]
	full := len(l.tokens)-i >= maxTokens
	if !full && !mark.at.IsZero() && time.Since(mark.at) < tokenLife {
		return nil, false, nil
	}
	key := storage.Key{Kind: kindClientToken, ID: mark.id}
	item, err := s.backend.Get(ctx, storage.PolicyStore(id), key)
	if errors.Is(err, storage.ErrNotFound) || err == nil && item.Version != mark.version {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	var body tokenBody
	if err := decode(item, &body); err != nil {
		return nil, false, err
	}
	// So that a token which is not due is read once and not with every call.
	mark.at = body.At
	if !full && time.Since(body.At) < tokenLife {
		return nil, false, nil
	}
	if key == own { // the new one takes its place
		return nil, true, nil
	}
	return &storage.Write{Key: key, Expect: storage.Version(item.Version)}, true, nil
}

// hand goes round the directory's client tokens. There are no more of them than policy stores, each of
// which takes its own with it; so it is enough to look at a few with each that comes.
type hand struct {
	mu    sync.Mutex
	after string
}

// handStep is how many tokens are looked at.
const handStep = 4

// sweepDirectory removes tokens of the directory that are out of date. It is a commit of its own, and nothing depends
// on it: a token that another create takes over meanwhile is at another version then, and must stay, or the
// repetition of that create would make a second policy store.
func (s *Service) sweepDirectory(ctx context.Context) {
	s.hand.mu.Lock()
	defer s.hand.mu.Unlock()
	items, err := s.backend.Scan(ctx, storage.Directory(), kindClientToken, s.hand.after, handStep)
	if err != nil {
		return
	}
	s.hand.after = ""
	if len(items) == handStep {
		s.hand.after = items[handStep-1].ID
	}
	var writes []storage.Write
	for _, item := range items {
		var body tokenBody
		if err := decode(item, &body); err == nil && time.Since(body.At) >= tokenLife {
			writes = append(writes, storage.Write{Key: item.Key, Expect: storage.Version(item.Version)})
		}
	}
	if len(writes) == 0 {
		return
	}
	_, err = s.backend.Commit(ctx, storage.Commit{
		Partition: storage.Directory(), Incarnation: s.directory, Writes: writes, Actor: storage.ActorSystem, Operation: "ForgetClientTokens",
	})
	if err != nil && !errors.Is(err, storage.ErrConflict) {
		s.log.WarnContext(ctx, "client tokens that are out of date stay for now", "err", err)
	}
}
