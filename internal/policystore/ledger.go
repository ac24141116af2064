package policystore

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"sync"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/engine"
	"github.com/copse-authz/copse/internal/storage"
)

// ledger is what a change must know of its policy store, at one revision: the settings and schema to
// validate under, and what is used of each limit. It spares a single-policy write the reading of the
// whole policy store, and it is exact, because every change is committed at the ledger's revision.
// It is used by whoever has the desk's turn. What it counts changes only after a commit, by settle.
type ledger struct {
	incarnation     copse.Incarnation
	revision        uint64
	settings        settingsBody
	settingsVersion uint64
	schemaBody      *schemaBody // nil: none
	schemaVersion   uint64
	parsed          *engine.Schema // see schema
	parseErr        error
	scopes          map[scopeKey]int // bytes of policy text by the resource the policies name
	templates       map[copse.PolicyTemplateID]templateMark
	weight          int64       // at least what the snapshot and the text weigh
	quotas          Quotas      // of the plan, when the ledger was asked for
	tokens          []tokenMark // client tokens, oldest first
}

// templateMark is what a ledger knows of a policy template.
// A template that is gone has none, and its links are not counted anywhere.
type templateMark struct {
	size  int // of its text
	links int
}

// countLink adds n links to their template.
func (l *ledger) countLink(link *linkBody, n int) {
	if link != nil {
		mark := l.templates[link.Template]
		mark.links += n
		l.templates[link.Template] = mark
	}
}

// load is how much text a policy store holds.
type load struct {
	text   int // of policies, templates and what stands in slots
	linked int // the templates' once more for every link: what text there were without templates
}

// load adds up what the ledger knows.
func (l *ledger) load() load {
	var sum load
	for _, size := range l.scopes {
		sum.text += size
	}
	for _, t := range l.templates {
		sum.text += t.size
		sum.linked += t.size * t.links
	}
	return sum
}

// scopeKey stands for a resource in a ledger: ledgers outlive requests, and should be small.
type scopeKey [sha256.Size]byte

// The zero UID, of policies that name no resource, has a key like any other.
func newScopeKey(resource types.EntityUID) scopeKey {
	return sha256.Sum256([]byte(resource.String()))
}

// requirements are the versions that validation used. The commit's expected revision implies them;
// they are named as well, so that a commit can't lose the one by dropping the other.
// What is written itself is left out: its write has the expectation.
func (l *ledger) requirements(writes []storage.Write) []storage.Requirement {
	all := []storage.Requirement{
		{Key: settingsKey, Expect: storage.Version(l.settingsVersion)},
		{Key: schemaKey, Expect: storage.Version(l.schemaVersion)}, // version 0 is "absent"
	}
	var out []storage.Requirement
	for _, r := range all {
		written := false
		for _, w := range writes {
			written = written || w.Key == r.Key
		}
		if !written {
			out = append(out, r)
		}
	}
	return out
}

// contents is a whole policy store, decoded.
// It belongs to whoever read it, and is changed by what is computed from it.
type contents struct {
	ledger
	policies      []storedPolicy // without links whose template is gone
	templates     map[copse.PolicyTemplateID]*storedTemplate
	names         map[string]uint64 // versions of the name items
	templateNames map[string]uint64
	identity      []*copse.IdentitySource
}

// read loads a policy store. The ledger's weight is left to the caller.
// NotFound for another incarnation; storage's own errors otherwise. Quotas are left to the caller too.
func (s *Service) read(ctx context.Context, id copse.PolicyStoreID, incarnation copse.Incarnation) (*contents, error) {
	loaded, err := s.backend.Load(ctx, storage.PolicyStore(id))
	if err != nil {
		return nil, err
	}
	if loaded.Head.Incarnation != incarnation {
		return nil, notFound(id)
	}
	return decodeContents(loaded)
}

// decodeContents reads all of a partition at one revision. Kinds it does not know are those of other services, and left alone.
func decodeContents(loaded storage.Snapshot) (*contents, error) {
	id, _ := loaded.Head.Partition.PolicyStoreID()
	c := &contents{
		ledger: ledger{incarnation: loaded.Head.Incarnation, revision: loaded.Head.Revision, scopes: make(map[scopeKey]int),
			templates: make(map[copse.PolicyTemplateID]templateMark)},
		templates: make(map[copse.PolicyTemplateID]*storedTemplate),
		names:     make(map[string]uint64), templateNames: make(map[string]uint64),
	}
	for _, item := range loaded.Items {
		var err error
		switch item.Kind {
		case kindSettings:
			c.settingsVersion = item.Version
			err = decode(item, &c.settings)
		case kindSchema:
			c.schemaVersion = item.Version
			c.schemaBody = new(schemaBody)
			err = decode(item, c.schemaBody)
		case kindPolicy:
			p := storedPolicy{id: copse.PolicyID(item.ID), version: item.Version}
			err = decode(item, &p.body)
			c.policies = append(c.policies, p)
		case kindTemplate:
			t := &storedTemplate{id: copse.PolicyTemplateID(item.ID), version: item.Version}
			err = decode(item, &t.body)
			c.templates[t.id] = t
			c.ledger.templates[t.id] = templateMark{size: len(t.body.Statement)}
		case kindName:
			c.names[item.ID] = item.Version
		case kindTemplateName:
			c.templateNames[item.ID] = item.Version
		case kindClientToken:
			c.tokens = append(c.tokens, tokenMark{id: item.ID, version: item.Version})
		case kindIdentitySource:
			var src *copse.IdentitySource
			src, err = decodeIdentitySource(id, item)
			c.identity = append(c.identity, src)
		}
		if err != nil {
			return nil, err
		}
	}
	// After the loop, as links come before their templates.
	c.join()
	slices.SortFunc(c.tokens, func(a, b tokenMark) int { return cmp.Compare(a.version, b.version) })
	return c, nil
}

// join gives links their templates, drops those that have none any more, and adds up what is there.
func (c *contents) join() {
	kept := c.policies[:0]
	for _, p := range c.policies {
		if p.body.Link != nil {
			if p.template = c.templates[p.body.Link.Template]; p.template == nil {
				continue
			}
			c.countLink(p.body.Link, 1)
		}
		c.scopes[newScopeKey(p.body.Resource.uid())] += p.body.size()
		kept = append(kept, p)
	}
	c.policies = kept
}

// schema parses the stored schema when first asked; nil without an error when there is none.
// InvalidState when it does not resolve any more, which is remembered as well.
func (l *ledger) schema() (*engine.Schema, error) {
	if l.schemaBody == nil {
		return nil, nil
	}
	if l.parsed == nil && l.parseErr == nil {
		l.parsed, l.parseErr = parseSchema(l.schemaBody.text())
	}
	if l.parseErr != nil {
		return nil, &copse.Error{Kind: copse.InvalidState, Resource: copse.ResourceSchema,
			Detail: "the stored schema does not resolve any more; put it again", Err: l.parseErr}
	}
	return l.parsed, nil
}

// desks keeps one desk per policy store that is being changed, or was lately.
// Its lock is held for moments; the desks' turns are held for as long as a change takes.
type desks struct {
	mu   sync.Mutex
	open map[copse.PolicyStoreID]*desk
	idle int // ledger entries of desks without users
}

// desk is where changes to one policy store queue within this process: without it, writers of one
// policy store would only cost each other retries. Other nodes are told apart by the revision.
type desk struct {
	turn   chan struct{} // holds one token
	users  int           // guarded by desks.mu
	ledger *ledger       // guarded by turn; nil: to be read
	gone   bool          // guarded by desks.mu: fenced, drop the ledger
}

// maxIdleEntries bounds the memory of ledgers nobody is using, in entries of about 100 bytes.
const maxIdleEntries = 200_000

// entries is about what the ledger takes in memory, in the entries of maxIdleEntries.
func (l *ledger) entries() int {
	if l == nil {
		return 0
	}
	n := 10 + len(l.scopes) + len(l.tokens) + len(l.templates)
	if l.schemaBody != nil {
		n += len(l.schemaBody.JSON) / 4
	}
	return n
}

// enter waits for the caller's turn. leave must be called after it.
func (d *desks) enter(ctx context.Context, id copse.PolicyStoreID) (*desk, error) {
	d.mu.Lock()
	k, ok := d.open[id]
	if !ok {
		k = &desk{turn: make(chan struct{}, 1)}
		k.turn <- struct{}{}
		d.open[id] = k
	} else if k.users == 0 {
		// Its ledger is in use again, and does not count as idle.
		d.idle -= k.ledger.entries()
	}
	k.users++
	d.mu.Unlock()
	select {
	case <-k.turn:
		return k, nil
	case <-ctx.Done():
		d.quit(id, k)
		return nil, ctx.Err()
	}
}

// leave passes the turn on. What the user left in the desk's ledger is what the next one finds.
func (d *desks) leave(id copse.PolicyStoreID, k *desk) {
	d.mu.Lock()
	if k.gone {
		k.ledger = nil
	}
	d.mu.Unlock()
	k.turn <- struct{}{}
	d.quit(id, k)
}

// quit ends a user's interest, and drops ledgers of desks without users while there are too many of them.
func (d *desks) quit(id copse.PolicyStoreID, k *desk) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if k.users--; k.users > 0 {
		return
	}
	// Nobody holds the turn now, so the ledger may be looked at.
	if k.ledger == nil || k.gone {
		delete(d.open, id)
		return
	}
	d.idle += k.ledger.entries()
	for other, o := range d.open {
		if d.idle <= maxIdleEntries {
			break
		}
		if o.users == 0 {
			d.idle -= o.ledger.entries()
			delete(d.open, other)
		}
	}
}

// forget drops what is remembered of a policy store that was deleted.
func (d *desks) forget(id copse.PolicyStoreID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	k, ok := d.open[id]
	switch {
	case !ok:
	case k.users > 0:
		k.gone = true
	default:
		d.idle -= k.ledger.entries()
		delete(d.open, id)
	}
}

// current gives the desk's ledger at the partition's present revision, reading it if others moved on.
// The caller has the desk's turn. Quotas are read each time: a plan changes without the partition moving.
func (s *Service) current(ctx context.Context, k *desk, id copse.PolicyStoreID, incarnation copse.Incarnation) (*ledger, error) {
	if k.ledger != nil && k.ledger.incarnation == incarnation {
		head, err := s.backend.Head(ctx, storage.PolicyStore(id))
		if err != nil {
			return nil, err
		}
		// A head costs one small read; only where others moved on the whole policy store is read again.
		if head.State == storage.Active && head.Incarnation == incarnation && head.Revision == k.ledger.revision {
			k.ledger.quotas, err = s.quotas(ctx, id)
			return k.ledger, err
		}
	}
	k.ledger = nil
	c, err := s.read(ctx, id, incarnation)
	if err != nil {
		return nil, err
	}
	if err := s.weighStored(c); err != nil {
		return nil, err
	}
	k.ledger = &c.ledger
	k.ledger.quotas, err = s.quotas(ctx, id)
	return k.ledger, err
}

// operation says what is done, where and by whom; row is where the caller's key was checked.
type operation struct {
	name        string
	actor       string
	policyStore copse.PolicyStoreID
	row         row
}

// edit is apply for a change that the ledger is enough for.
// prepare is called with the desk's turn, and again after a lost race.
func (s *Service) edit(ctx context.Context, op operation, prepare func(ctx context.Context, l *ledger) (change, error)) error {
	_, err := s.apply(ctx, op, func(ctx context.Context, k *desk) (change, error) {
		l, err := s.current(ctx, k, op.policyStore, op.row.incarnation)
		if err != nil {
			return change{}, err
		}
		return prepare(ctx, l)
	})
	return err
}

// errStale is prepare's way to say that what it read is of several revisions.
var errStale = errors.New("read at several revisions")

// change is what a write wants: rows to commit on top of a ledger, and what they do to it.
// base is always set; without writes there is nothing to commit.
type change struct {
	base   *ledger
	writes []storage.Write
	// settle brings the ledger to the state after the commit; nil throws the ledger away.
	settle func(l *ledger, revision uint64)
}

// maxAttempts bounds how often a change is computed again because another node was faster.
const maxAttempts = 10

// apply is the one way to write to a policy store. prepare reads a ledger and computes the change from
// it: the commit is taken only if the partition is still at the ledger's revision, otherwise prepare
// is asked again. A change without writes commits nothing.
// It returns the partition's revision after the change. Conflict after maxAttempts; after an error that leaves
// the outcome open the ledger is dropped, so that the next change begins with what is there.
func (s *Service) apply(ctx context.Context, op operation, prepare func(ctx context.Context, k *desk) (change, error)) (uint64, error) {
	id := op.policyStore
	k, err := s.desks.enter(ctx, id)
	if err != nil {
		return 0, fromStorage(err, id)
	}
	defer s.desks.leave(id, k)
	for range maxAttempts {
		c, err := prepare(ctx, k)
		// Somebody committed while prepare was reading: begin anew.
		if errors.Is(err, errStale) {
			k.ledger = nil
			continue
		}
		if err != nil {
			return 0, s.metrics.refused(fromStorage(err, id))
		}
		l := c.base
		if len(c.writes) == 0 {
			return l.revision, nil
		}
		// Taken only at the revision that everything above was computed from.
		revision, err := s.backend.Commit(ctx, storage.Commit{
			Partition: storage.PolicyStore(id), Incarnation: op.row.incarnation,
			Expect: storage.Revision{Set: true, Value: l.revision}, Require: l.requirements(c.writes),
			Writes: c.writes, Actor: op.actor, Operation: op.name,
		})
		if err == nil && c.settle != nil {
			c.settle(l, revision)
			l.revision = revision
			return revision, nil
		}
		k.ledger = nil
		// Committed without a settled ledger, or failed in a way that trying again does not help.
		if err == nil || !errors.Is(err, storage.ErrConflict) {
			return revision, fromStorage(err, id)
		}
	}
	return 0, fromStorage(storage.ErrConflict, id)
}
