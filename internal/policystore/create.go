package policystore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/engine"
	"github.com/copse-authz/copse/internal/storage"
)

// Create makes a policy store: partition first, directory row last. Needs Admin everywhere. Conflict
// when one of Bind's rows is not as it expects.
// After an error there is nothing that anybody could reach, unless the outcome can't be found out. It wraps
// storage.ErrConflict when one of Bind's rows was the reason.
func (s *Service) Create(ctx context.Context, c access.Caller, in NewPolicyStore) (PolicyStore, error) {
	if !c.MayEverywhere(access.Admin) {
		return PolicyStore{}, denied("create policy stores")
	}
	o, err := newOnce("CreatePolicyStore", copse.ResourcePolicyStore, in.ClientToken, in)
	if err != nil {
		return PolicyStore{}, err
	}
	at := now()
	// What is answered, and remembered for the same call again; id and incarnation are drawn here, once.
	out := PolicyStore{
		ID: copse.PolicyStoreID(copse.NewID()), Tenant: in.Tenant, Incarnation: copse.NewIncarnation(),
		Settings: in.Settings, Logging: s.newLogging(), Description: in.Description, Protected: in.Protected, Encryption: in.Encryption, Revision: 1, Policies: len(in.Policies), Templates: len(in.Templates),
		CreatedAt: at, UpdatedAt: at,
	}
	out.Plan = cmp.Or(in.Plan, s.defaultPlan)
	directory := storage.Directory()
	// Asked before the work: the answer to a repeated call must not depend on what would be made of it today.
	var former PolicyStore
	if done, err := s.recall(ctx, directory, o, &former); done || err != nil {
		return former, fromStorage(err, "")
	}
	err = s.create(ctx, c, in, &out, o)
	if errors.Is(err, storage.ErrConflict) {
		// The same call, sent twice at once: this one came second.
		if done, again := s.recall(ctx, directory, o, &former); done || again != nil {
			return former, fromStorage(again, "")
		}
	}
	if err != nil {
		return PolicyStore{}, err
	}
	return out, nil
}

// create writes the policy store's partition first and the directory's row, by which it exists, second: a crash in between
// leaves data without a row, which nobody can reach and the sweep erases.
func (s *Service) create(ctx context.Context, c access.Caller, in NewPolicyStore, out *PolicyStore, o *once) error {
	// The service's default was looked at when it was made; if it went since, [Service.plan] has another.
	if in.Plan != "" {
		if err := s.knownPlan(ctx, "plan", in.Plan); err != nil {
			return err
		}
	}
	// The quotas are of the plan that the row will name.
	plan, err := s.plan(ctx, row{plan: out.Plan})
	if err != nil {
		return fromStorage(err, out.ID)
	}
	writes, err := s.firstContents(in, plan.Quotas, out)
	if err != nil {
		return err
	}
	// Before the partition is written: what is wrong with the rows leaves nothing to take away.
	rows, err := newRows(*out, in.Bind, o)
	if err != nil {
		return err
	}
	// From here to the row the partition looks like one a crash left behind; the sweep asks here.
	s.creating.Store(out.ID, nil)
	defer s.creating.Delete(out.ID)
	out.Revision, err = s.backend.Commit(ctx, storage.Commit{
		Partition: storage.PolicyStore(out.ID), Incarnation: out.Incarnation, Create: true,
		Writes: writes, Actor: c.Actor(), Operation: "CreatePolicyStore",
	})
	if err != nil {
		// Also here: that the commit was refused is not certain after every error.
		s.undo(ctx, *out, err)
		return fromStorage(err, out.ID)
	}
	_, err = s.backend.Commit(ctx, storage.Commit{
		Partition: storage.Directory(), Incarnation: s.directory,
		Writes: rows, Actor: c.Actor(), Operation: "CreatePolicyStore",
	})
	// By the row it exists, whatever the error says.
	if err != nil && !s.undo(ctx, *out, err) {
		return fromStorage(err, out.ID)
	}
	if o.key != (storage.Key{}) {
		s.sweepDirectory(context.WithoutCancel(ctx))
	}
	return nil
}

// denied is for what needs Admin everywhere. It names no policy store, so it tells nothing of what there is.
func denied(what string) error {
	return &copse.Error{Kind: copse.Denied, Detail: "this key may not " + what + ": that needs admin, everywhere"}
}

// firstContents validates what the policy store starts with, and turns it into the first commit.
// Without a schema STRICT refuses every policy, as in a policy store that is there.
func (s *Service) firstContents(in NewPolicyStore, q Quotas, out *PolicyStore) ([]storage.Write, error) {
	if err := validateSettings(in.Settings); err != nil {
		return nil, err
	}
	if err := validateDescription("description", in.Description); err != nil {
		return nil, err
	}
	if err := checkTags("tags", in.Tags); err != nil {
		return nil, err
	}
	if err := tooManyTags("", len(in.Tags)); err != nil {
		return nil, err
	}
	var f findings
	contentsIn := NewContents{Schema: in.Schema, Templates: in.Templates, Policies: in.Policies}
	drafts, err := parseContents(&f, contentsIn, false)
	if err != nil {
		return nil, err
	}
	settings := settingsBody{
		V: bodyVersion, Validation: in.Settings.Validation, CheckRequests: in.Settings.CheckRequests,
		ForbidErrorsDeny: in.Settings.ForbidErrorsDeny, Description: in.Description, Logging: out.Logging.stored(), Encryption: in.Encryption,
		CreatedAt: out.CreatedAt, UpdatedAt: out.CreatedAt,
	}
	var schema *engine.Schema
	if in.Schema != nil {
		if schema, err = parseSchema(*in.Schema); err != nil {
			return nil, err
		}
	}
	// Like new contents of a policy store in which there is nothing yet, under the settings it begins with.
	m := newMerge(&contents{ledger: ledger{settings: settings, quotas: q}}, contentsIn, drafts, schema)
	// One time for all that is made in this commit.
	m.at = out.CreatedAt
	if err := m.write(settingsKey, &settings, storage.Absent()); err != nil {
		return nil, err
	}
	if len(in.Tags) > 0 {
		if err := m.write(tagsKey, &tagsBody{V: bodyVersion, Tags: in.Tags}, storage.Absent()); err != nil {
			return nil, err
		}
	}
	if err := m.plan(f); err != nil {
		return nil, err
	}
	return m.writes, m.check(s)
}

// newRows is what the directory gets: the row, what is bound to it, and the memory of a client token.
func newRows(p PolicyStore, bind func(PolicyStore) []storage.Write, o *once) ([]storage.Write, error) {
	encoded, err := encode(&rowBody{V: bodyVersion, Tenant: p.Tenant, Incarnation: p.Incarnation, CreatedAt: p.CreatedAt, Plan: p.Plan, Protected: p.Protected, ClientToken: o.key.ID})
	if err != nil {
		return nil, err
	}
	// The zero expectation is absence: a row of this id would be another policy store.
	rows := []storage.Write{{Key: rowKey(p.ID), Body: encoded}}
	// The caller's rows go with the policy store's own: all of them are there, or none.
	if bind != nil {
		rows = append(rows, bind(p)...)
	}
	token, err := o.write(string(p.ID), p, p.CreatedAt)
	if err != nil {
		return nil, err
	}
	return append(rows, token...), nil
}

// Bind gives a policy store of the operator's own to a tenant: its row changes together with what bind
// adds, or nothing does. Conflict when it belongs to a tenant already; the error wraps
// storage.ErrConflict when one of bind's rows is not as it expects. Needs Admin everywhere.
// NotFound when it is absent. bind may be called again, with the row as it is then; its error ends the call.
func (s *Service) Bind(ctx context.Context, c access.Caller, id copse.PolicyStoreID, tenant copse.TenantID,
	bind func(PolicyStore) ([]storage.Write, error),
) error {
	if !c.MayEverywhere(access.Admin) {
		return denied("bind policy stores to tenants")
	}
	if err := id.Validate(); err != nil {
		return err
	}
	for range maxAttempts {
		item, err := s.backend.Get(ctx, storage.Directory(), rowKey(id))
		if err != nil {
			return fromStorage(err, id)
		}
		var body rowBody
		if err := decode(item, &body); err != nil {
			return err
		}
		if body.Tenant != "" {
			return &copse.Error{Kind: copse.Conflict, Resource: copse.ResourcePolicyStore, ID: string(id),
				Detail: fmt.Sprintf("the policy store belongs to tenant %q already", body.Tenant)}
		}
		body.Tenant = tenant
		encoded, err := encode(&body)
		if err != nil {
			return err
		}
		rows, err := bind(PolicyStore{ID: id, Tenant: tenant, Incarnation: body.Incarnation, CreatedAt: body.CreatedAt})
		if err != nil {
			return err
		}
		_, err = s.backend.Commit(ctx, storage.Commit{
			Partition: storage.Directory(), Incarnation: s.directory,
			Writes: append(rows, storage.Write{Key: rowKey(id), Body: encoded, Expect: storage.Version(item.Version)}),
			Actor:  c.Actor(), Operation: "BindPolicyStore",
		})
		if !errors.Is(err, storage.ErrConflict) {
			return fromStorage(err, id)
		}
		// If it was not this row that changed meanwhile, it was one of bind's.
		if again, getErr := s.backend.Get(ctx, storage.Directory(), rowKey(id)); getErr == nil && again.Version == item.Version {
			return fromStorage(err, id)
		}
	}
	return fromStorage(storage.ErrConflict, id)
}

// cleanUpTime bounds what is done after a failure, when the caller may have gone.
const cleanUpTime = 10 * time.Second

// undo takes the partition away after a failed commit. It reports true if the directory row is there
// after all: a failure nobody foresaw says nothing about the commit. If even that can't be found out,
// the partition is left for Resume, which will know.
// The partition is fenced before it is erased, so that a commit that is still under way brings nothing back.
func (s *Service) undo(ctx context.Context, p PolicyStore, cause error) (exists bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	item, err := s.backend.Get(ctx, storage.Directory(), rowKey(p.ID))
	switch {
	// The commit was taken after all.
	case err == nil && item.Version > 0:
		return true
	case !errors.Is(err, storage.ErrNotFound):
		s.log.ErrorContext(ctx, "a policy store was half made; it is swept at the next start",
			"policy_store", p.ID, "err", err, "cause", cause)
		return false
	}
	// Without a row id: no restart needs a note, since the sweep finds the partition.
	e := &erasure{s: s, policyStore: p.ID, incarnation: p.Incarnation}
	if err := s.fence(ctx, e, storage.ActorSystem); err != nil {
		s.log.ErrorContext(ctx, "a policy store was half made; it is swept at the next start",
			"policy_store", p.ID, "err", err, "cause", cause)
		return false
	}
	if done, err := s.eraseSome(ctx, e, syncBatches); err != nil || !done {
		s.eraser.add(e)
	}
	return false
}
