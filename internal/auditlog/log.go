package auditlog

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage"
)

// Config is what a Log is made of. All of it is required.
// Owner and Lookup are the directory's: the audit log has no list of tenants of its own.
type Config struct {
	Backend storage.Backend
	// Owner tells whose a policy store is; NotFound when there is none.
	Owner func(ctx context.Context, id copse.PolicyStoreID) (copse.TenantID, copse.Incarnation, error)
	// Lookup finds a tenant; NotFound when there is none.
	Lookup func(ctx context.Context, id copse.TenantID) (copse.DirectoryEntry, error)
}

// Log reads the audit log.
// It keeps nothing between calls, and may be used by many at once.
type Log struct{ cfg Config }

// New makes a Log.
func New(cfg Config) *Log { return &Log{cfg} }

// Filter chooses rows. What is empty takes all.
type Filter struct {
	Tenant        copse.TenantID // its policy store, and rows of the directory that name either
	PolicyStoreID copse.PolicyStoreID
	Actor         string
	Operation     string
	// From takes rows of that time and later ones.
	From time.Time
}

// End is where the log ends.
type End struct {
	Number uint64
	Chain  [32]byte
}

// Page is part of what a search found, in order of numbers.
type Page struct {
	Entries []Entry
	Next    uint64 // After it, the search goes on
	Earlier uint64 // Before it, the search goes on; 0: there is nothing
	AtEnd   bool   // of After: there was nothing behind Next
	End     *End   // for callers who see all rows: where the log ended when the call began
}

const (
	// chunk is how many rows are read at once.
	chunk = 500
	// budget bounds one call: a row that is looked at, a policy store whose owner is asked for and a write
	// whose history is read cost one each. A page may be short because of it, and empty.
	budget = 5000
)

// After returns up to limit rows with greater numbers than after, the first ones. A caller with admin
// everywhere sees all rows; others those of the policy stores that they may Read, as they are now: of a former
// policy store, be it of the same id, they see nothing.
func (l *Log) After(ctx context.Context, c access.Caller, f *Filter, after uint64, limit int) (Page, error) {
	s, err := l.search(ctx, c, f)
	if err != nil {
		return Page{}, readError(c, err)
	}
	out := Page{End: s.end, Next: after, Earlier: after, AtEnd: s.nothing}
	for !s.nothing {
		rows, err := l.cfg.Backend.Audit(ctx, out.Next, chunk)
		if err != nil {
			return Page{}, readError(c, err)
		}
		// Next moves over rows that were looked at and not taken, so a page without entries gets on too.
		for i := range rows {
			if len(out.Entries) >= limit || s.spent > budget {
				return out, nil
			}
			if out.Entries, err = s.take(ctx, out.Entries, &rows[i]); err != nil {
				return Page{}, readError(c, err)
			}
			out.Next = rows[i].Seq
		}
		if len(rows) < chunk {
			out.AtEnd = true
			break
		}
	}
	return out, nil
}

// Last returns up to limit rows, the last ones; of those with smaller numbers than before, unless that is 0.
func (l *Log) Last(ctx context.Context, c access.Caller, f *Filter, before uint64, limit int) (Page, error) {
	s, err := l.search(ctx, c, f)
	if err != nil {
		return Page{}, readError(c, err)
	}
	last := s.last
	out := Page{End: s.end, Next: last}
	if before > 0 {
		last = min(last, before-1)
	}
	var found []Entry // the last one first
	for last > 0 && !s.nothing {
		// Chunks are read forwards, as storage can, and looked at backwards.
		first := last - min(last, chunk)
		rows, err := l.cfg.Backend.Audit(ctx, first, int(last-first))
		if err != nil {
			return Page{}, readError(c, err)
		}
		for i := range slices.Backward(rows) {
			if len(found) >= limit || s.spent > budget {
				out.Earlier = rows[i].Seq + 1
				break
			}
			// Rows before this one are earlier still, so nothing of them would be taken.
			if rows[i].At.Before(f.From) {
				first, out.Earlier = 0, 0
				break
			}
			if found, err = s.take(ctx, found, &rows[i]); err != nil {
				return Page{}, readError(c, err)
			}
		}
		if out.Earlier > 0 {
			break
		}
		last = first
	}
	slices.Reverse(found)
	out.Entries = found
	return out, nil
}

// search is one call: who asks, what for, and what was spent.
type search struct {
	log    *Log
	caller access.Caller
	filter *Filter

	all      bool                // the caller sees all rows
	nothing  bool                // and this one none
	only     copse.PolicyStoreID // when not empty, no other can be seen
	ofTenant copse.PolicyStoreID // of the filter's tenant
	last     uint64              // number of the last row when the call began
	end      *End
	owners   map[copse.PolicyStoreID]owner
	spent    int
}

// owner is remembered for one call only: whose a policy store is may change between two.
type owner struct {
	tenant      copse.TenantID
	incarnation copse.Incarnation // zero: there is no such policy store
}

// search decides once what the caller can see at all. A key of a tenant that has no policy store sees nothing, and
// so does one without the verb; neither learns how long the log is, since End is for those who see every row.
func (l *Log) search(ctx context.Context, c access.Caller, f *Filter) (*search, error) {
	s := &search{log: l, caller: c, filter: f, all: c.MayEverywhere(access.Admin), owners: map[copse.PolicyStoreID]owner{}}
	var chain [32]byte
	var err error
	if s.last, chain, err = l.cfg.Backend.AuditEnd(ctx); err != nil {
		return nil, err
	}
	if s.all {
		s.end = &End{s.last, chain}
	} else {
		s.nothing = c.Verbs&access.Read == 0
		s.only = c.Scope.PolicyStore
		if c.Scope.Tenant != "" {
			s.only, err = l.policyStoreOf(ctx, c.Scope.Tenant)
			s.nothing = s.nothing || s.only == ""
		}
	}
	if err == nil && f.Tenant != "" {
		s.ofTenant, err = l.policyStoreOf(ctx, f.Tenant)
	}
	return s, err
}

// policyStoreOf is empty when there is no such tenant.
// An error means that it is not known, and must not be taken for that.
func (l *Log) policyStoreOf(ctx context.Context, id copse.TenantID) (copse.PolicyStoreID, error) {
	entry, err := l.cfg.Lookup(ctx, id)
	if err != nil && copse.KindOf(err) == copse.NotFound {
		return "", nil
	}
	return entry.PolicyStoreID, err
}

// take appends a row, if it is the caller's to see and the filter takes it.
// What is cheap goes first: the history of a row is read only when its caller may see it.
func (s *search) take(ctx context.Context, to []Entry, row *storage.AuditRow) ([]Entry, error) {
	s.spent++
	e := newEntry(row)
	f := s.filter
	switch {
	case f.Actor != "" && f.Actor != e.Actor, f.Operation != "" && f.Operation != e.Operation, e.At.Before(f.From),
		f.PolicyStoreID != "" && f.PolicyStoreID != e.PolicyStoreID:
		return to, nil
	case e.PolicyStoreID != "" && f.Tenant != "" && e.PolicyStoreID != s.ofTenant:
		return to, nil
	}
	if may, err := s.may(ctx, &e); err != nil || !may {
		return to, err
	}
	s.spent += e.Writes
	if err := e.readChanges(ctx, s.log.cfg.Backend); err != nil {
		return to, err
	}
	// Whose rows of the directory are is in their changes, hence after reading them.
	if f.Tenant != "" && e.PolicyStoreID == "" && !slices.ContainsFunc(e.Changes, s.ofFilter) {
		return to, nil
	}
	return append(to, e), nil
}

// may is law 5 for the audit log: rows of the directory tell of everybody, and a row of a policy store is
// of that incarnation only.
func (s *search) may(ctx context.Context, e *Entry) (bool, error) {
	if s.all {
		return true, nil
	}
	if e.PolicyStoreID == "" || s.only != "" && e.PolicyStoreID != s.only {
		return false, nil
	}
	o, ok := s.owners[e.PolicyStoreID]
	if !ok {
		s.spent++
		var err error
		o.tenant, o.incarnation, err = s.log.cfg.Owner(ctx, e.PolicyStoreID)
		if err != nil && copse.KindOf(err) != copse.NotFound {
			return false, err
		}
		s.owners[e.PolicyStoreID] = o
	}
	return !o.incarnation.IsZero() && o.incarnation == e.Incarnation && s.caller.May(access.Read, e.PolicyStoreID, o.tenant), nil
}

// ofFilter reports whether an item of the directory is the filter's tenant's.
func (s *search) ofFilter(c Change) bool {
	switch storage.Kind(c.Kind) {
	case access.TenantKind:
		return c.ID == string(s.filter.Tenant)
	case access.PolicyStoreKind:
		return c.ID == string(s.ofTenant)
	}
	return access.IsKeysOf(c.Kind, c.ID, s.filter.Tenant, s.ofTenant)
}

// readError says what to do about rows that can't be read. A backend finds a damaged or changed row itself, and
// says which: to whom sees all rows.
func readError(c access.Caller, err error) error {
	known := storage.AsError(err, "", "")
	if copse.KindOf(known) != copse.Internal && !errors.Is(err, storage.ErrCorrupt) {
		return known
	}
	what := ""
	if c.MayEverywhere(access.Admin) {
		what = " (" + err.Error() + ")"
	}
	return &copse.Error{Kind: copse.Unavailable, Err: err,
		Detail: "the audit log can't be read here" + what + ": stop the server and run `copse check`, which says what to do"}
}
