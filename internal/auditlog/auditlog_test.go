package auditlog

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
)

// world is a backend with policy stores in it, and whose they are.
type world struct {
	*testing.T
	*Log
	backend *memory.Backend
	owners  map[copse.PolicyStoreID]owner
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, backend: memory.New(), owners: map[copse.PolicyStoreID]owner{}}
	t.Cleanup(func() { _ = w.backend.Close() })
	w.Log = New(Config{Backend: w.backend,
		Owner: func(_ context.Context, id copse.PolicyStoreID) (copse.TenantID, copse.Incarnation, error) {
			if o, ok := w.owners[id]; ok {
				return o.tenant, o.incarnation, nil
			}
			return "", copse.Incarnation{}, copse.NotFoundError(copse.ResourcePolicyStore, string(id))
		},
		Lookup: func(_ context.Context, tenant copse.TenantID) (copse.DirectoryEntry, error) {
			for id, o := range w.owners {
				if o.tenant == tenant {
					return copse.DirectoryEntry{Tenant: tenant, PolicyStoreID: id}, nil
				}
			}
			return copse.DirectoryEntry{}, copse.NotFoundError(copse.ResourceTenant, string(tenant))
		},
	})
	return w
}

func (w *world) commit(id copse.PolicyStoreID, create bool, bodies ...string) {
	w.Helper()
	c := storage.Commit{Partition: storage.PolicyStore(id), Incarnation: w.owners[id].incarnation, Create: create, Actor: "KEY request-1", Operation: "Test"}
	for n, body := range bodies {
		c.Writes = append(c.Writes, storage.Write{Key: storage.Key{Kind: "policy", ID: fmt.Sprint(n)}, Body: []byte(body), Expect: storage.Any()})
	}
	if _, err := w.backend.Commit(w.Context(), c); err != nil {
		w.Fatal(err)
	}
}

func (w *world) make(id copse.PolicyStoreID, tenant copse.TenantID) {
	w.Helper()
	w.owners[id] = owner{tenant, copse.NewIncarnation()}
	w.commit(id, true, "first of "+string(tenant))
}

func (w *world) remove(id copse.PolicyStoreID) {
	w.Helper()
	if err := w.backend.Fence(w.Context(), storage.PolicyStore(id), w.owners[id].incarnation, "KEY request-2"); err != nil {
		w.Fatal(err)
	}
	if done, err := w.backend.Erase(w.Context(), storage.PolicyStore(id), w.owners[id].incarnation, 1000); err != nil || !done {
		w.Fatal(done, err)
	}
	delete(w.owners, id)
}

// all reads to the end, and tells how many pages that took.
func (w *world) all(c access.Caller, f Filter, limit int) (entries []Entry, pages int) {
	w.Helper()
	for after := uint64(0); ; pages++ {
		page, err := w.After(w.Context(), c, &f, after, limit)
		if err != nil {
			w.Fatal(err)
		}
		entries = append(entries, page.Entries...)
		if page.Next == after {
			return entries, pages
		}
		after = page.Next
	}
}

// A policy store that is made under the id of a former one, of another tenant, does not show its rows.
func TestLaw5AuditRowsAreOfOneIncarnation(t *testing.T) {
	w := newWorld(t)
	w.make("same", "former")
	w.commit("same", false, "of the former")
	w.remove("same")
	w.make("same", "later")
	for _, scope := range []access.Scope{{PolicyStore: "same"}, {Tenant: "later"}, {All: true}} {
		caller := access.Caller{KeyID: "KEY", Scope: scope, Verbs: access.Read}
		rows, _ := w.all(caller, Filter{}, 100)
		if len(rows) != 1 || rows[0].Incarnation != w.owners["same"].incarnation {
			t.Errorf("a key of %+v sees %+v", scope, rows)
		}
		page, err := w.Last(t.Context(), caller, &Filter{}, 0, 100)
		if err != nil || len(page.Entries) != 1 || page.End != nil {
			t.Errorf("a key of %+v sees last %+v, %v", scope, page, err)
		}
	}
	if rows, _ := w.all(access.Caller{Scope: access.Scope{Tenant: "former"}, Verbs: access.Read}, Filter{}, 100); len(rows) != 0 {
		t.Errorf("the former tenant's key sees %+v", rows)
	}
	// Changes of the former are not read from the history of the later.
	rows, _ := w.all(access.System(), Filter{}, 100)
	if len(rows) != 5 || len(rows[0].Changes) != 0 || len(rows[1].Changes) != 0 || len(rows[4].Changes) != 1 {
		t.Errorf("%+v", rows)
	}
}

// However many rows there are, one call looks at a bounded number, and calls lead to the end.
func TestOneCallIsBounded(t *testing.T) {
	w := newWorld(t)
	w.make("rare", "rare")
	w.make("busy", "busy")
	const commits = 2 * budget
	for n := range commits {
		w.commit("busy", false, fmt.Sprint(n))
	}
	w.commit("rare", false, "again")
	caller := access.Caller{Scope: access.Scope{Tenant: "rare"}, Verbs: access.Read}
	rows, pages := w.all(caller, Filter{}, 100)
	if len(rows) != 2 || pages < 2 || pages > 4 {
		t.Errorf("%d rows on %d pages", len(rows), pages)
	}
	var back []Entry
	calls := 0
	for before := uint64(0); calls == 0 || before > 0; calls++ {
		page, err := w.Last(t.Context(), caller, &Filter{}, before, 100)
		if err != nil {
			t.Fatal(err)
		}
		back, before = append(page.Entries, back...), page.Earlier
	}
	if len(back) != 2 || back[0].Number != rows[0].Number || calls < 2 || calls > 4 {
		t.Errorf("%d rows in %d calls", len(back), calls)
	}
	// A row of many writes ends a page too: their history is read.
	many := slices.Repeat([]string{"x"}, budget/2)
	for range 3 {
		w.commit("rare", false, many...)
	}
	page, err := w.Last(t.Context(), access.System(), &Filter{}, 0, 100)
	if err != nil || len(page.Entries) != 2 || page.Earlier == 0 {
		t.Errorf("%d rows, %v", len(page.Entries), err)
	}
}

// verify reads all and verifies it, with rows as change leaves them.
func (w *world) verify(change func([]Entry) []Entry) Report {
	w.Helper()
	rows, _ := w.all(access.System(), Filter{}, 3)
	number, chain, err := w.backend.AuditEnd(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	v, err := NewVerifier("")
	if err != nil {
		w.Fatal(err)
	}
	v.Declare(End{number, chain})
	if change != nil {
		rows = change(rows)
	}
	for i := range rows {
		v.Add(&rows[i])
	}
	return v.Done(number)
}

func TestErasedChangesNeedAnErasure(t *testing.T) {
	w := newWorld(t)
	w.make("leaving", "leaving")
	w.make("staying", "staying")
	w.commit("leaving", false, "a", "b")
	w.commit("staying", false, "c")
	if err := w.backend.Forget(t.Context(), storage.PolicyStore("staying"), storage.Key{Kind: "policy", ID: "0"}, 1); err != nil {
		t.Fatal(err)
	}
	if r := w.verify(nil); len(r.Problems) > 0 || r.Erased != 1 || r.Rows != 5 {
		t.Errorf("%+v", r)
	}
	w.remove("leaving")
	if r := w.verify(nil); len(r.Problems) > 0 || r.Erased != 3 || r.Rows != 7 {
		t.Errorf("%+v", r)
	}
	// Said to be erased, while the policy store is there.
	r := w.verify(func(rows []Entry) []Entry {
		rows[3].Changes = nil
		return rows
	})
	if len(r.Problems) != 1 || r.Problems[0].Number != 4 || !strings.Contains(r.Problems[0].What, "was not deleted") {
		t.Errorf("%+v", r)
	}
}

func TestHeadsThatAreNone(t *testing.T) {
	for _, head := range []string{"17", "17:", ":aa", "x:" + strings.Repeat("0", 64), "0:" + strings.Repeat("0", 64), "1:" + strings.Repeat("0", 62), "1:" + strings.Repeat("0", 66), "1:" + strings.Repeat("g", 64)} {
		if _, err := NewVerifier(head); copse.KindOf(err) != copse.Invalid || err == nil {
			t.Errorf("%q: %v", head, err)
		}
	}
}
