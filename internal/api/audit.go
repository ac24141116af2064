package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/auditlog"
)

func registerAudit(a *API, h huma.API) {
	register(a, h, route{method: http.MethodGet, path: "/v1/audit", id: "readAudit", tag: tagAudit, status: http.StatusOK,
		summary: "Read the audit log",
		description: "The last rows that match, the oldest first; with after, the first ones after that row. A page may be short, or empty, and not be the last. " +
			"A key with admin everywhere sees all rows; one with the verb read those of the policy stores it covers, and no others."}, (*API).readAudit)
}

// AuditQuery is exported for the same reason as [Paging].
type AuditQuery struct {
	Tenant        string    `query:"tenant" maxLength:"256" doc:"Of this tenant: of its policy store, and of the directory what names it."`
	PolicyStoreID string    `query:"policyStoreId" maxLength:"200" doc:"Of this policy store."`
	Actor         string    `query:"actor" maxLength:"128" doc:"Done with this access key; system is copse itself."`
	Operation     string    `query:"operation" maxLength:"64" doc:"Of this kind." example:"PutContents"`
	From          time.Time `query:"from" doc:"Not before."`
	After         string    `query:"after" maxLength:"200" doc:"Only later rows: next of an earlier answer, or 0 for the first ones. Absent: the last ones."`
	Before        string    `query:"before" maxLength:"200" doc:"Without after: only earlier rows: earlier of an earlier answer."`
	MaxResults    int       `query:"maxResults" minimum:"1" default:"50" doc:"The most an answer may hold; more than 500 is taken as 500."`
}

// readAudit shows rows and never what was written: that is in no row.
func (a *API) readAudit(ctx context.Context, c access.Caller, in *AuditQuery) (*struct{ Body AuditPage }, error) {
	f := auditlog.Filter{Tenant: copse.TenantID(in.Tenant), PolicyStoreID: copse.PolicyStoreID(in.PolicyStoreID),
		Actor: in.Actor, Operation: in.Operation, From: in.From}
	limit := min(max(in.MaxResults, 1), maxResults)
	page, err := a.auditPage(ctx, c, &f, in, limit)
	if err != nil {
		return nil, err
	}
	out := &struct{ Body AuditPage }{Body: AuditPage{Rows: make([]AuditRow, len(page.Entries)),
		Next: a.position(c, listAudit, page.Next), Earlier: a.earlierPosition(c, listAudit, page.Earlier), AtEnd: page.AtEnd}}
	// It is there for callers who see all rows: only they can verify the log.
	if page.End != nil {
		out.Body.End = &AuditEnd{Number: page.End.Number, Chain: page.End.Chain[:]}
	}
	for i := range page.Entries {
		if out.Body.Rows[i], err = newAuditRow(&page.Entries[i]); err != nil {
			return nil, err
		}
		// Numbers count what everybody did.
		out.Body.Rows[i].Number = numberFor(c, out.Body.Rows[i].Number)
	}
	return out, nil
}

// auditPage goes forward from after, where 0 is the beginning for every key, or back from the end. A
// position that was not given to this key is Invalid.
func (a *API) auditPage(ctx context.Context, c access.Caller, f *auditlog.Filter, in *AuditQuery, limit int) (auditlog.Page, error) {
	if in.After == "0" {
		return a.audit.After(ctx, c, f, 0, limit)
	}
	// Both are looked at even where only one counts: a position that does not open is a mistake
	// wherever it stands.
	after, err := a.number(c, listAudit, "after", in.After)
	if err != nil {
		return auditlog.Page{}, err
	}
	before, err := a.number(c, listAudit, "before", in.Before)
	if err != nil {
		return auditlog.Page{}, err
	}
	if in.After != "" {
		return a.audit.After(ctx, c, f, after, limit)
	}
	return a.audit.Last(ctx, c, f, before, limit)
}

// auditTime has all nine digits always: the text is part of what a row's hash is over,
// and is parsed back.
const auditTime = "2006-01-02T15:04:05.000000000Z"

// newAuditRow can only fail for an incarnation that can't be written, which is copse's own failure.
func newAuditRow(e *auditlog.Entry) (AuditRow, error) {
	incarnation, err := e.Incarnation.MarshalText()
	if err != nil {
		return AuditRow{}, copse.Errorf(copse.Internal, "%w", err)
	}
	r := AuditRow{Number: e.Number, Time: e.At.UTC().Format(auditTime), Actor: e.Actor, RequestID: e.RequestID, Operation: e.Operation,
		PolicyStoreID: string(e.PolicyStoreID), Incarnation: string(incarnation), Revision: e.Revision, Writes: e.Writes,
		Head: e.Head[:], Chain: e.Chain[:], Changes: make([]AuditChange, len(e.Changes))}
	for n := range e.Changes {
		c := &e.Changes[n]
		r.Changes[n] = AuditChange{Kind: c.Kind, ID: c.ID, Deleted: c.Deleted, Erased: c.Erased(), After: c.After[:]}
		if c.Before != nil {
			r.Changes[n].Before = c.Before[:]
		}
	}
	if f := e.FailedUses; f != nil {
		r.FailedUses = &FailedKeyUses{From: f.From, To: f.To, Uses: make([]FailedKeyUse, len(f.Uses))}
		for n, use := range f.Uses {
			r.FailedUses.Uses[n] = FailedKeyUse{Key: use.Key, Reason: string(use.Reason), Count: use.Count}
		}
	}
	return r, nil
}

// Entry is the row for a [auditlog.Verifier]; Invalid when it can't be one.
func (r *AuditRow) Entry() (*auditlog.Entry, error) {
	at, err := time.Parse(auditTime, r.Time)
	e := &auditlog.Entry{Number: r.Number, At: at, Actor: r.Actor, RequestID: r.RequestID, Operation: r.Operation,
		PolicyStoreID: copse.PolicyStoreID(r.PolicyStoreID), Revision: r.Revision, Writes: r.Writes}
	ok := err == nil && e.Incarnation.UnmarshalText([]byte(r.Incarnation)) == nil
	// A hash of another length would be filled up or cut by copy, and then be some other hash.
	hash := func(to *[32]byte, from []byte) {
		ok = ok && copy(to[:], from) == len(to) && len(from) == len(to)
	}
	hash(&e.Head, r.Head)
	hash(&e.Chain, r.Chain)
	for _, from := range r.Changes {
		c := auditlog.Change{Kind: from.Kind, ID: from.ID, Deleted: from.Deleted}
		hash(&c.After, from.After)
		e.Changes = append(e.Changes, c)
	}
	if !ok {
		return nil, copse.Errorf(copse.Invalid, "row %d of the answer can't be a row of the audit log", r.Number)
	}
	return e, nil
}

// Log is the end for a [auditlog.Verifier]. A chain of the wrong length gives an end
// that no chain comes to.
func (e *AuditEnd) Log() auditlog.End {
	out := auditlog.End{Number: e.Number}
	copy(out.Chain[:], e.Chain)
	return out
}
