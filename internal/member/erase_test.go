package member_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/member"
	"github.com/copse-authz/copse/internal/storage"
)

// offboard deletes a tenant's row with the note of it, as package tenant does.
func (w *world) offboard(t *testing.T, name copse.TenantID) (life copse.Incarnation) {
	t.Helper()
	life = w.entries[name].Incarnation
	note, err := member.Leaving(name, life)
	if err != nil {
		t.Fatal(err)
	}
	w.commit(t, note, storage.Write{Key: storage.Key{Kind: access.TenantKind, ID: string(name)}, Expect: storage.Any()})
	delete(w.entries, name)
	return life
}

// onboard makes a tenant, also under the name of a former one.
func (w *world) onboard(t *testing.T, name copse.TenantID) {
	t.Helper()
	w.entries[name] = copse.DirectoryEntry{Tenant: name, State: copse.TenantActive, PolicyStoreID: "P", Incarnation: copse.NewIncarnation()}
	w.commit(t, storage.Write{Key: storage.Key{Kind: access.TenantKind, ID: string(name)}, Body: []byte("{}")})
}

func (w *world) commit(t *testing.T, writes ...storage.Write) {
	t.Helper()
	head, err := w.backend.Head(t.Context(), storage.Directory())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.backend.Commit(t.Context(), storage.Commit{Partition: storage.Directory(), Incarnation: head.Incarnation, Writes: writes}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) putMany(t *testing.T, tenant copse.TenantID, prefix string, n int) {
	t.Helper()
	for from := 0; from < n; from += member.MaxBatch {
		var batch []member.Membership
		for i := from; i < min(n, from+member.MaxBatch); i++ {
			batch = append(batch, member.Membership{Who: member.Who{Issuer: pool, Subject: fmt.Sprintf("%s-%d", prefix, i)}, Tenant: tenant, Roles: []string{prefix + "-role"}})
		}
		errs, err := w.Put(t.Context(), access.System(), batch)
		if err != nil || slices.ContainsFunc(errs, func(e error) bool { return e != nil }) {
			t.Fatal(err, errs)
		}
	}
}

// wantNoTrace looks for words in all rows of the directory and in its history.
func (w *world) wantNoTrace(t *testing.T, words ...string) {
	t.Helper()
	found := func(text string) bool {
		return slices.ContainsFunc(words, func(word string) bool { return strings.Contains(text, word) })
	}
	snapshot, err := w.backend.Load(t.Context(), storage.Directory())
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range snapshot.Items {
		if found(item.ID + string(item.Body)) {
			t.Errorf("left: %s %s %s", item.Kind, item.ID, item.Body)
		}
	}
	rows, err := w.backend.History(t.Context(), storage.Directory(), 0, 100_000)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		if row.Key.Kind != access.TenantKind && found(row.Key.ID+string(row.Body)) { // the tenant's row is not package member's
			t.Errorf("left in history: %s %s %s", row.Key.Kind, row.Key.ID, row.Body)
		}
	}
	if len(rows) == 0 {
		t.Error("there is no history at all: nothing was looked at")
	}
}

// Law 8: members of a deleted tenant are erased with their history, in several batches; those of others stay.
func TestMembersAreErased(t *testing.T) {
	w := newWorld(t, "gone", "stays")
	w.putMany(t, "gone", "canary", 450)
	both := member.Who{Issuer: pool, Subject: "both"}
	w.put(t, member.Membership{Who: both, Tenant: "gone"})
	w.put(t, member.Membership{Who: both, Tenant: "stays"})
	w.put(t, member.Membership{Who: member.Who{Email: "canary@example.com"}, Tenant: "gone"})
	life := w.offboard(t, "gone")
	w.Left(t.Context(), "gone", life)
	w.wantNoTrace(t, "canary", "gone")
	if got, err := w.Resolve(t.Context(), member.Presented{Issuer: pool, Subject: "both"}); err != nil || got.Tenant != "stays" {
		t.Errorf("%+v %v", got, err)
	}
}

// Law 8: what ended before the tenant did has no row that leads to it, and is erased all the same.
func TestFormerMembersAreErased(t *testing.T) {
	w := newWorld(t, "gone", "stays")
	w.put(t, member.Membership{Who: member.Who{Issuer: pool, Subject: "both"}, Tenant: "stays"})
	for _, who := range []member.Who{{Issuer: pool, Subject: "both"}, {Issuer: pool, Subject: "canary-person"}, {Issuer: pool, ClientID: "canary-machine"}, {Email: "canary-withdrawn@example.com"}} {
		w.put(t, member.Membership{Who: who, Tenant: "gone", Roles: []string{"canary-role"}})
		w.put(t, member.Membership{Who: who, Tenant: "gone", Roles: []string{"canary-other"}})
		if err := w.Remove(t.Context(), access.System(), "gone", who); err != nil {
			t.Fatal(err)
		}
	}
	w.wantNoTrace(t, "canary")
	w.put(t, member.Membership{Who: member.Who{Email: "canary-invited@example.com"}, Tenant: "gone"})
	if got, err := w.Resolve(t.Context(), member.Presented{Issuer: pool, Subject: "joins", Email: "Canary-Invited@example.com", EmailVerified: true}); err != nil || got.Tenant != "gone" {
		t.Fatalf("%+v %v", got, err)
	}
	w.wantNoTrace(t, "anary")
	life := w.offboard(t, "gone")
	w.Left(t.Context(), "gone", life)
	w.wantNoTrace(t, "anary", "gone")
}

// A successor's members may be many, and come before those of the former life: erasing goes past them, and
// leaves them.
func TestErasingPassesASuccessor(t *testing.T) {
	w := newWorld(t, "acme")
	w.putMany(t, "acme", "canary", 250)
	life := w.offboard(t, "acme")
	w.onboard(t, "acme")
	w.putMany(t, "acme", "next", 450)
	w.put(t, member.Membership{Who: member.Who{Issuer: pool, Subject: "canary-7"}, Tenant: "acme", Roles: []string{"kept"}})
	w.Left(t.Context(), "acme", life)
	w.wantNoTrace(t, "canary-role")
	var listed int
	for after := ""; ; {
		page, next, err := w.List(t.Context(), access.System(), "acme", after, 500)
		if err != nil {
			t.Fatal(err)
		}
		listed += len(page)
		if after = next; next == "" {
			break
		}
	}
	if listed != 451 {
		t.Errorf("%d of the successor's 451 members are there", listed)
	}
	if got, err := w.Resolve(t.Context(), member.Presented{Issuer: pool, Subject: "canary-7"}); err != nil || !slices.Equal(got.Roles, []string{"kept"}) {
		t.Errorf("%+v %v", got, err)
	}
}

// An invitation whose tenant is being deleted makes nobody a member: the erasure would not find them.
func TestInvitationOfATenantThatIsDeleted(t *testing.T) {
	w := newWorld(t, "gone")
	w.put(t, member.Membership{Who: member.Who{Email: "canary@example.com"}, Tenant: "gone"})
	entry := w.entries["gone"]
	life := w.offboard(t, "gone")
	w.entries["gone"] = entry // a lookup that was made before the deletion
	if got, err := w.Resolve(t.Context(), member.Presented{Issuer: pool, Subject: "canary-late", Email: "canary@example.com", EmailVerified: true}); member.ReasonOf(err) != member.ReasonUnknown {
		t.Errorf("%+v %v", got, err)
	}
	w.Left(t.Context(), "gone", life)
	w.wantNoTrace(t, "canary")
}

// Of a deletion that was not certain when it was answered nobody tells the service. Its note is found all the same.
func TestNotesAreFoundWithoutBeingTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "gone")
		w.put(t, member.Membership{Who: member.Who{Issuer: pool, Subject: "canary-person"}, Tenant: "gone"})
		w.offboard(t, "gone")
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		w.wantNoTrace(t, "canary", "gone")
		_ = w.Close()
	})
}

// Who is in as many tenants as one can be in signs in although there is another invitation, which stays.
func TestAnInvitationTooManyKeepsNobodyOut(t *testing.T) {
	tenants := []copse.TenantID{"one-more"}
	for n := range member.MaxTenants {
		tenants = append(tenants, copse.TenantID(fmt.Sprint("t", n)))
	}
	w := newWorld(t, tenants...)
	for _, tenant := range tenants[1:] {
		w.put(t, member.Membership{Who: member.Who{Issuer: pool, Subject: "busy"}, Tenant: tenant})
	}
	w.put(t, member.Membership{Who: member.Who{Email: "busy@example.com"}, Tenant: "one-more"})
	for range 2 {
		got, err := w.Resolve(t.Context(), member.Presented{Issuer: pool, Subject: "busy", Email: "busy@example.com", EmailVerified: true})
		if err != nil || got.Tenant == "" || got.Tenant == "one-more" {
			t.Fatalf("%+v %v", got, err)
		}
	}
	// With room for it, it is redeemed.
	if err := w.Remove(t.Context(), access.System(), "t7", member.Who{Issuer: pool, Subject: "busy"}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Resolve(t.Context(), member.Presented{Issuer: pool, Subject: "busy", Email: "busy@example.com", EmailVerified: true}); err != nil {
		t.Fatal(err)
	}
	choices, err := w.Choices(t.Context(), member.Who{Issuer: pool, Subject: "busy"}, "")
	if err != nil || !slices.ContainsFunc(choices, func(c member.Choice) bool { return c.Tenant == "one-more" }) {
		t.Errorf("%d tenants without the one of the invitation, %v", len(choices), err)
	}
}

// What is called active is what a token would be for, or nothing is.
func TestActiveIsWhatATokenIsFor(t *testing.T) {
	w := newWorld(t, "first", "second")
	who := member.Who{Issuer: pool, Subject: "both"}
	for _, tenant := range []copse.TenantID{"first", "second"} {
		w.put(t, member.Membership{Who: who, Tenant: tenant})
	}
	for _, speaksFor := range [][]copse.TenantID{{"first", "second"}, {"second"}} {
		w.issuer.Tenants = speaksFor
		var active copse.TenantID
		choices, err := w.Choices(t.Context(), who, "")
		if err != nil || len(choices) != len(speaksFor) {
			t.Fatalf("%+v %v", choices, err)
		}
		for _, c := range choices {
			if c.Active {
				active = c.Tenant
			}
		}
		if got, _ := w.Resolve(t.Context(), member.Presented{Issuer: pool, Subject: "both"}); got.Tenant != active {
			t.Errorf("the issuer speaks for %v: %q is called active, tokens are for %q", speaksFor, active, got.Tenant)
		}
	}
}
