package access

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

// failedKind has one row, which each minute with failed uses writes over: the history has the former ones,
// and the audit log reads them there.
const failedKind storage.Kind = "failed-key-uses"

// OperationFailedUses is what the audit rows of failed uses say.
const OperationFailedUses = "FailedKeyUses"

const (
	// Ids that failed uses are counted under, between two writes; further ones are counted under others. Those
	// of keys that there are have places of their own, which no stranger can take with ids that he made up.
	maxFailedKnown   = 200
	maxFailedUnknown = 20

	failedOthers    = "others"
	failedMalformed = "malformed"
)

// NotAllowed is a use by a caller who is known: the key does not cover it, or may not do it. It is none of
// [Reasons], which are about credentials.
const NotAllowed Reason = "NotAllowed"

// errNotCovered is the cause in a NotFound that stands for "not yours to see". It never reaches a caller.
var errNotCovered = errors.New("access: the key does not cover it")

// NotCovered is the answer to a caller whose key does not cover something: for them it does not exist.
func NotCovered(resource copse.ResourceType, id string) error {
	e := copse.NotFoundError(resource, id)
	e.Err = errNotCovered
	return e
}

// FailedUse is how often one key was used in vain, and why.
type FailedUse struct {
	// Key is the id, "others" for all beyond the number of ids that are told apart, or "malformed" for what is
	// no id: there a secret may stand that somebody mistook for one.
	Key    string `json:"key"`
	Reason Reason `json:"reason"`
	Count  uint64 `json:"count"`
}

// FailedUses are those of about a minute; of a longer time when they could not be written.
type FailedUses struct {
	From time.Time   `json:"from"` // of the first
	To   time.Time   `json:"to"`
	Uses []FailedUse `json:"uses"` // by key, then reason
}

// ParseFailedUses reads what a commit wrote; nil when it is not the record of failed uses.
func ParseFailedUses(p storage.Partition, k storage.Key, body []byte) (*FailedUses, error) {
	if p != storage.Directory() || k.Kind != failedKind || body == nil {
		return nil, nil
	}
	var out FailedUses
	if err := json.Unmarshal(body, &out); err != nil {
		return nil, fmt.Errorf("failed uses of access keys: %w", err)
	}
	return &out, nil
}

// failedUses counts failed uses until they are written. Its size has a bound, whoever fails how often.
// The zero value is ready; nil counts mean that nothing was counted since the last take.
type failedUses struct {
	mu      sync.Mutex
	from    time.Time
	counts  map[failedUse]uint64
	ids     map[string]bool // those with a place of their own, and whether there is such a key
	unknown int             // of ids
}

// failedUse is what is counted apart. Reasons are few, so the bound on ids bounds the map.
type failedUse struct {
	id     string
	reason Reason
}

// note counts n uses under an id, if there is a place for it.
// Otherwise under others, with its reason: no use goes uncounted.
func (f *failedUses) note(id string, known bool, reason Reason, n uint64, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.counts == nil {
		f.counts, f.ids, f.unknown, f.from = map[failedUse]uint64{}, map[string]bool{}, 0, at
	}
	if at.Before(f.from) {
		f.from = at
	}
	if _, placed := f.ids[id]; !placed && id != failedMalformed && id != failedOthers {
		switch {
		case known && len(f.ids)-f.unknown < maxFailedKnown:
			f.ids[id] = true
		case !known && f.unknown < maxFailedUnknown:
			f.ids[id] = false
			f.unknown++
		default:
			id = failedOthers
		}
	}
	f.counts[failedUse{id, reason}] += n
}

// take hands out what was counted and begins anew; restore puts it back.
// restore adds to what was counted meanwhile, and so may find the places of its ids taken.
func (f *failedUses) take(now time.Time) (out FailedUses, restore func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	counts, ids, from := f.counts, f.ids, f.from
	f.counts = nil
	for use, n := range counts {
		out.Uses = append(out.Uses, FailedUse{use.id, use.reason, n})
	}
	slices.SortFunc(out.Uses, func(x, y FailedUse) int { return cmp.Or(cmp.Compare(x.Key, y.Key), cmp.Compare(x.Reason, y.Reason)) })
	out.From, out.To = from.UTC(), now.UTC()
	return out, func() {
		for use, n := range counts {
			f.note(use.id, ids[use.id], use.reason, n, from)
		}
	}
}

// failed counts a credential that was refused under the id it came with.
func (s *Service) failed(id string, known bool, err error) {
	reason := ReasonOf(err)
	switch {
	case reason == "", reason == Unavailable, reason == MissingAuthenticationToken:
		return // nobody used a key in vain
	case !known && !drawnKeyID(id):
		id = failedMalformed
	case !known && reason == InvalidCredential:
		reason = UnrecognizedClient // callers are not told which of the two it was
	}
	s.failedUses.note(id, known, reason, 1, time.Now())
}

// Refused counts err as a failed use of the caller's key, if that is what it is: the key does not cover what
// was asked, or may not do it. Transports call it with what they answer to a verified caller.
func (s *Service) Refused(c Caller, err error) {
	if c.KeyID != "" && err != nil && (copse.KindOf(err) == copse.Denied || errors.Is(err, errNotCovered)) {
		s.failedUses.note(c.KeyID, true, NotAllowed, 1, time.Now())
	}
}

// drawnKeyID tells ids that copse could have drawn from all else that may be an id, a secret among it.
func drawnKeyID(id string) bool {
	rest, ok := strings.CutPrefix(id, idPrefix)
	return ok && len(rest) == idRandom && strings.Trim(rest, idAlphabet) == ""
}

// writeFailed writes down what was counted since the last time, in one commit. What can't be written is
// counted on.
func (s *Service) writeFailed(ctx context.Context) {
	uses, restore := s.failedUses.take(time.Now())
	// No row without failures: a quiet server writes nothing.
	if len(uses.Uses) == 0 {
		return
	}
	body, err := json.Marshal(uses)
	if err == nil {
		err = s.commit(ctx, System(), OperationFailedUses, nil, storage.Write{Key: storage.Key{Kind: failedKind, ID: "now"}, Body: body, Expect: storage.Any()})
	}
	if err != nil {
		restore()
	}
}
