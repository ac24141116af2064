package policystore

import (
	"context"
	"errors"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage"
)

// A template takes its links with it, and may have more of them than fit a commit. So one commit takes
// the template, and from then on its links are neither shown nor decide: a link without its template is
// none. They are erased after that, batch by batch. That a template's id is never used twice makes it
// safe; a mark in the policy store (kindCascade) and a note in the directory (kindUnlinking, written
// before anything else) make sure that it is finished, whatever crashes.

// DeleteTemplate removes a policy template and all policies that are linked to it, which are gone when it
// returns, though their rows may go later. NotFound when it is absent. Needs Write.
func (s *Service) DeleteTemplate(ctx context.Context, c access.Caller, id copse.PolicyStoreID, template copse.PolicyTemplateID) error {
	if err := template.Validate(); err != nil {
		return err
	}
	r, err := s.admit(ctx, c, access.Write, "DeletePolicyTemplate", id)
	if err != nil {
		return err
	}
	// Made once, whatever the number of attempts: a note that leads to nothing is found out and removed.
	var job *cascade
	err = s.edit(ctx, operation{"DeletePolicyTemplate", c.Actor(), id, r}, func(ctx context.Context, l *ledger) (change, error) {
		former, err := s.storedTemplate(ctx, id, template)
		if err != nil {
			return change{}, err
		}
		writes := append([]storage.Write{{Key: templateKey(former.id), Expect: storage.Version(former.version)}}, former.unname()...)
		// The ledger is exact at the revision the commit expects: a link that is made meanwhile is a conflict.
		if l.templates[former.id].links == 0 {
			return change{base: l, writes: writes, settle: func(l *ledger, _ uint64) { delete(l.templates, former.id) }}, nil
		}
		if job == nil {
			if job, err = s.note(ctx, id, former.id); err != nil {
				return change{}, err
			}
		}
		mark, err := encode(&cascadeBody{V: bodyVersion, StartedAt: now()})
		writes = append(writes, storage.Write{Key: cascadeKey(former.id), Body: mark})
		return change{base: l, writes: writes}, err // the ledger does not know what the links counted where
	})
	// Also after an error: the note is there, and whether the template is gone only a look can tell.
	if job != nil {
		s.carryOn(ctx, job)
	}
	return err
}

// cascade is the erasure of a template's links. Each step may be repeated.
type cascade struct {
	s           *Service
	rowID       string // of the note in the directory
	policyStore copse.PolicyStoreID
	template    copse.PolicyTemplateID
	after       string // policies up to here were looked at; none can come behind
}

// key is that of the note in the directory.
func (c *cascade) key() storage.Key { return storage.Key{Kind: kindUnlinking, ID: c.rowID} }

// note writes down that a cascade is about to begin.
// It is the system's commit and not the caller's: what the caller asked for is the deletion.
func (s *Service) note(ctx context.Context, id copse.PolicyStoreID, template copse.PolicyTemplateID) (*cascade, error) {
	c := &cascade{s: s, rowID: copse.NewID(), policyStore: id, template: template}
	body, err := encode(&unlinkingBody{V: bodyVersion, PolicyStore: id, Template: template})
	if err != nil {
		return nil, err
	}
	_, err = s.backend.Commit(ctx, storage.Commit{
		Partition: storage.Directory(), Incarnation: s.directory,
		Writes: []storage.Write{{Key: c.key(), Body: body}}, Actor: storage.ActorSystem, Operation: "BeginCascade",
	})
	if err != nil {
		return nil, fromStorage(err, id)
	}
	return c, nil
}

// decodeCascade makes a job of a note that a former process left. It begins with the first policy again.
func (s *Service) decodeCascade(item storage.Item) (*cascade, error) {
	var body unlinkingBody
	if err := decode(item, &body); err != nil {
		return nil, err
	}
	return &cascade{s: s, rowID: item.ID, policyStore: body.PolicyStore, template: body.Template}, nil
}

// carryOn erases before the answer what is not much, and leaves the rest to the background.
// The caller may be gone; the deletion is done either way, so no error is returned.
func (s *Service) carryOn(ctx context.Context, c *cascade) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	for range syncBatches {
		if done, err := c.step(ctx); done || err != nil {
			if err != nil {
				s.log.WarnContext(ctx, "erasing the links of a policy template is continued in the background", "policy_store", c.policyStore, "err", err)
				break
			}
			return
		}
	}
	s.eraser.add(c)
}

// step erases some of the links, then the mark, then the note.
// done without an error means that the note is gone, and with it links and mark, unless the deletion was never
// committed or the policy store is gone as well.
func (c *cascade) step(ctx context.Context) (done bool, err error) {
	s := c.s
	r, err := s.rows.Get(ctx, c.policyStore)
	if err == nil {
		_, err = s.storedTemplate(ctx, c.policyStore, c.template)
		if err == nil {
			return true, c.finish(ctx) // the deletion was never committed
		}
		if copse.KindOf(err) != copse.NotFound {
			return false, err
		}
		var next string
		err = s.edit(ctx, operation{"EraseLinks", storage.ActorSystem, c.policyStore, r}, func(ctx context.Context, l *ledger) (change, error) {
			var writes []storage.Write
			writes, next, err = c.batch(ctx)
			// The ledger counts no links without a template.
			return change{base: l, writes: writes, settle: func(*ledger, uint64) {}}, err
		})
		if err == nil && next != "" {
			// Only after the commit: a batch that failed is looked at again.
			c.after = next
			return false, nil
		}
	}
	if err != nil && copse.KindOf(err) != copse.NotFound && !errors.Is(err, storage.ErrNotFound) {
		return false, err
	}
	return true, c.finish(ctx) // nothing is left, or the whole policy store is gone
}

// batch looks at the next policies: the writes that erase those that are links of the template, and where
// to go on. With the last of them goes the mark, and next is empty.
// In order of id, and no link of the template can be made any more, so what was looked at stays done.
func (c *cascade) batch(ctx context.Context) (writes []storage.Write, next string, err error) {
	p := storage.PolicyStore(c.policyStore)
	items, err := c.s.backend.Scan(ctx, p, kindPolicy, c.after, eraseBatch)
	if err != nil {
		return nil, "", err
	}
	for _, item := range items {
		link := storedPolicy{id: copse.PolicyID(item.ID)}
		if err := decode(item, &link.body); err != nil {
			return nil, "", err
		}
		if link.body.Link == nil || link.body.Link.Template != c.template {
			continue
		}
		writes = append(writes, storage.Write{Key: item.Key, Expect: storage.Version(item.Version)})
		if link.body.Name == "" {
			continue
		}
		of, version, err := c.s.named(ctx, c.policyStore, nameKey(link.body.Name))
		if err != nil {
			return nil, "", err
		}
		if of == item.ID { // else another policy has taken it
			writes = append(writes, storage.Write{Key: nameKey(link.body.Name), Expect: storage.Version(version)})
		}
	}
	if len(items) < eraseBatch {
		return append(writes, storage.Write{Key: cascadeKey(c.template), Expect: storage.Any()}), "", nil
	}
	return writes, items[len(items)-1].ID, nil
}

// finish removes the note and what history keeps of it, since it names the policy store.
func (c *cascade) finish(ctx context.Context) error {
	return c.s.forgetRow(ctx, c.key(), "FinishCascade")
}
