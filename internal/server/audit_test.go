package server_test

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/auditlog"
	"github.com/copse-authz/copse/internal/server"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/sqlite"
)

// auditRows reads all rows that a credential sees, from the first on, page by page.
func (s *site) auditRows(credential, query string) []api.AuditRow {
	s.t.Helper()
	var rows []api.AuditRow
	for next := "0"; ; {
		r := s.as(credential, "GET", fmt.Sprintf("/v1/audit?maxResults=7&after=%s%s", next, query), nil)
		wantStatus(s.t, r, 200)
		page := decode[api.AuditPage](s.t, r)
		rows = append(rows, page.Rows...)
		if page.AtEnd {
			return rows
		}
		next = page.Next
	}
}

// auditReport is the audit log verified as an auditor would, changed on its way by tamper.
func (s *site) auditReport(earlier string, tamper func([]api.AuditRow) []api.AuditRow) auditlog.Report {
	s.t.Helper()
	rows := s.auditRows(s.root, "")
	end := decode[api.AuditPage](s.t, s.must(200, "GET", "/v1/audit?maxResults=1", nil)).End
	v, err := auditlog.NewVerifier(earlier)
	if err != nil {
		s.t.Fatal(err)
	}
	v.Declare(end.Log())
	if tamper != nil {
		rows = tamper(rows)
	}
	for i := range rows {
		e, err := rows[i].Entry()
		if err != nil {
			s.t.Fatal(err)
		}
		v.Add(e)
	}
	return v.Done(end.Number)
}

func auditNames(rows []api.AuditRow) string {
	var out []string
	for _, r := range rows {
		words := []string{r.Operation}
		for _, c := range r.Changes {
			words = append(words, c.Kind+"/"+c.ID)
		}
		out = append(out, strings.Join(words, " "))
	}
	return strings.Join(out, "\n")
}

// A row says who, what, when, in which request, and what was there before and after.
func TestAuditRows(t *testing.T) {
	s := start(t)
	acme := s.onboard("acme", map[string]string{"one": "permit(principal,action,resource);"})
	put := "/v1/policy-stores/" + acme.PolicyStoreID + "/contents"
	writer := decode[api.CreatedKey](t, s.must(201, "POST", "/v1/keys", api.CreateKeyRequest{Scope: api.KeyScope{Tenant: "acme"}, Verbs: []string{"write"}}))
	body := map[string]any{"policies": []any{map[string]string{"name": "one", "statement": "forbid(principal,action,resource);"}}}
	wantStatus(t, s.as(writer.Credential, "PUT", put, body, "If-Match", "*", "X-Request-Id", "request-of-mine-1"), 200)
	wantStatus(t, s.amazon(writer.Credential, "PutSchema", map[string]any{"policyStoreId": acme.PolicyStoreID, "definition": map[string]string{"cedarJson": `{"":{"entityTypes":{},"actions":{}}}`}}), 200)

	own := s.auditRows(s.root, "&policyStoreId="+acme.PolicyStoreID)
	if len(own) != 3 || own[0].Operation != "CreatePolicyStore" || own[1].Operation != "PutContents" || own[2].Operation != "PutSchema" {
		t.Fatalf("the policy store's rows:\n%s", auditNames(own))
	}
	change := own[1]
	if change.Actor != writer.ID || change.RequestID != "request-of-mine-1" || change.Revision != 2 || change.Time == "" || change.Writes != len(change.Changes) {
		t.Errorf("%+v", change)
	}
	if root, _ := s.RootKey(); own[0].Actor != root || len(own[0].RequestID) < 8 || own[2].RequestID == own[0].RequestID {
		t.Errorf("the first row is of %q %q, the third of %q", own[0].Actor, own[0].RequestID, own[2].RequestID)
	}
	policy := func(r api.AuditRow) api.AuditChange {
		t.Helper()
		i := slices.IndexFunc(r.Changes, func(c api.AuditChange) bool { return c.Kind == "policy" })
		if i < 0 {
			t.Fatalf("no policy among %+v", r.Changes)
		}
		return r.Changes[i]
	}
	// What was after the one change is before the next.
	if made, changed := policy(own[0]), policy(change); made.Before != nil || string(changed.Before) != string(made.After) || changed.ID != made.ID || string(changed.After) == string(made.After) {
		t.Errorf("made %+v, changed %+v", made, changed)
	}
	if strings.Contains(fmt.Sprintf("%+v", decode[api.AuditPage](t, s.must(200, "GET", "/v1/audit", nil))), "forbid") {
		t.Error("a row holds what was written")
	}

	// By tenant: its policy store's rows, and what the directory says of it.
	s.onboard("globex", permitAll)
	if ops := auditNames(s.auditRows(s.root, "&tenant=acme")); strings.Contains(ops, "globex") || !strings.Contains(ops, "tenant/acme") || !strings.Contains(ops, "access-keys-of/tenant/acme") {
		t.Errorf("of acme:\n%s", ops)
	}
	for query, want := range map[string]int{"&actor=" + writer.ID: 2, "&operation=PutSchema": 1, "&actor=" + writer.ID + "&operation=CreateKey": 0,
		"&from=" + url.QueryEscape("2999-01-01T00:00:00Z"): 0, "&tenant=never-was": 0} {
		if found := s.auditRows(s.root, query); len(found) != want {
			t.Errorf("%q finds %d, want %d:\n%s", query, len(found), want, auditNames(found))
		}
	}
	// The last ones, backwards, are the same rows.
	all := s.auditRows(s.root, "")
	var back []api.AuditRow
	for query := ""; ; {
		page := decode[api.AuditPage](t, s.must(200, "GET", "/v1/audit?maxResults=4"+query, nil))
		back = append(page.Rows, back...)
		if page.End.Number != uint64(len(all)) || page.Next != fmt.Sprint(page.End.Number) {
			t.Errorf("ends with %+v, next %s, after %d rows", page.End, page.Next, len(all))
		}
		if page.Earlier == "" {
			break
		}
		query = "&before=" + page.Earlier
	}
	if auditNames(back) != auditNames(all) || len(all) < 8 {
		t.Errorf("backwards:\n%s\nforwards:\n%s", auditNames(back), auditNames(all))
	}
	if r := s.auditReport("", nil); len(r.Problems) > 0 || r.Rows != uint64(len(all)) {
		t.Errorf("%+v", r)
	}
}

// A key sees the changes of what it covers, and nothing of others, of the directory, or of a former policy store.
func TestLaw5AuditRowsOfOthers(t *testing.T) {
	s := start(t)
	acme, globex := s.onboard("acme", permitAll), s.onboard("globex", permitAll)
	for _, of := range []api.Tenant{acme, globex} {
		s.must(200, "PUT", "/v1/policy-stores/"+of.PolicyStoreID+"/contents", map[string]any{"policies": []any{}}, "If-Match", "*")
	}
	queries := []string{"", "&tenant=globex", "&policyStoreId=" + globex.PolicyStoreID, "&operation=CreateTenant", "&tenant=acme"}
	for _, scope := range []api.KeyScope{{Tenant: "acme"}, {PolicyStoreID: acme.PolicyStoreID}} {
		key := s.key(scope, "read")
		for _, query := range queries {
			rows := s.auditRows(key, query)
			if want := map[string]int{"": 2, "&tenant=acme": 2}[query]; len(rows) != want {
				t.Errorf("a key of %+v finds %d rows with %q, want %d", scope, len(rows), query, want)
			}
			for _, r := range rows {
				if r.PolicyStoreID != acme.PolicyStoreID {
					t.Errorf("a key of %+v sees %+v", scope, r)
				}
			}
			page := s.as(key, "GET", "/v1/audit?"+strings.TrimPrefix(query, "&"), nil)
			if strings.Contains(page.body, "globex") || strings.Contains(page.body, globex.PolicyStoreID) || decode[api.AuditPage](t, page).End != nil {
				t.Errorf("a key of %+v is told %s", scope, page.body)
			}
		}
	}
	if rows := s.auditRows(s.key(api.KeyScope{All: true}, "read"), ""); len(rows) != 4 || slices.ContainsFunc(rows, func(r api.AuditRow) bool { return r.PolicyStoreID == "" }) {
		t.Errorf("a key that reads all policy stores sees:\n%s", auditNames(rows))
	}
	for _, scope := range []api.KeyScope{{All: true}, {Tenant: "acme"}, {PolicyStoreID: acme.PolicyStoreID}} {
		for _, verb := range []string{"write", "decide"} {
			if rows := s.auditRows(s.key(scope, verb), ""); len(rows) != 0 {
				t.Errorf("a key of %+v with %s alone sees %d rows", scope, verb, len(rows))
			}
		}
	}
	// A tenant of the same name, made later, is another.
	s.must(204, "DELETE", "/v1/tenants/acme", nil)
	again := s.onboard("acme", permitAll)
	if rows := s.auditRows(s.key(api.KeyScope{Tenant: "acme"}, "read"), ""); len(rows) != 1 || rows[0].PolicyStoreID != again.PolicyStoreID {
		t.Errorf("the later acme sees:\n%s", auditNames(rows))
	}
}

// Erasing a tenant takes what was changed out of the log, and leaves a log that verifies.
func TestLaw8AuditLogOutlivesItsTenants(t *testing.T) {
	s := start(t)
	leaving := s.onboard("leaving", map[string]string{"secret-plans": "permit(principal,action,resource);"})
	s.onboard("staying", permitAll)
	s.key(api.KeyScope{Tenant: "leaving"}, "read")
	before := s.auditReport("", nil)
	if len(before.Problems) > 0 || before.Erased != 0 {
		t.Fatalf("%+v", before)
	}
	s.must(204, "DELETE", "/v1/tenants/leaving", nil)
	after := s.auditReport(before.Head, nil)
	if len(after.Problems) > 0 || after.Erased == 0 || after.Rows <= before.Rows {
		t.Errorf("%+v", after)
	}
	rows := s.auditRows(s.root, "")
	for _, r := range rows {
		for _, c := range r.Changes {
			if strings.Contains(c.ID, "leaving") {
				t.Errorf("row %d still tells of %s/%s", r.Number, c.Kind, c.ID)
			}
		}
	}
	if !slices.ContainsFunc(rows, func(r api.AuditRow) bool {
		return r.PolicyStoreID == leaving.PolicyStoreID && r.Operation == "CreatePolicyStore" && len(r.Changes) == 0 && r.Writes > 0
	}) {
		t.Errorf("the rows of what was erased are gone:\n%s", auditNames(rows))
	}
}

// Whatever is done to a row is found, and named.
func TestAuditVerifyFindsTampering(t *testing.T) {
	s := start(t)
	s.onboard("acme", permitAll)
	s.onboard("globex", permitAll)
	s.onboard("umbrella", permitAll)
	whole := s.auditReport("", nil)
	n := int(whole.Rows)
	if len(whole.Problems) > 0 || n < 6 {
		t.Fatalf("%+v", whole)
	}
	at := n / 2 // of the slice; its number is one more
	number := uint64(at + 1)
	for name, c := range map[string]struct {
		tamper func(rows []api.AuditRow) []api.AuditRow
		named  []uint64
	}{
		"another actor":     {func(r []api.AuditRow) []api.AuditRow { r[at].Actor = "nobody"; return r }, []uint64{number}},
		"another request":   {func(r []api.AuditRow) []api.AuditRow { r[at].RequestID += "x"; return r }, []uint64{number}},
		"another operation": {func(r []api.AuditRow) []api.AuditRow { r[at].Operation = "Nothing"; return r }, []uint64{number}},
		"another time":      {func(r []api.AuditRow) []api.AuditRow { r[at].Time = "2001" + r[at].Time[4:]; return r }, []uint64{number}},
		"removed":           {func(r []api.AuditRow) []api.AuditRow { return slices.Delete(r, at, at+1) }, []uint64{number}},
		"the first removed": {func(r []api.AuditRow) []api.AuditRow { return r[1:] }, []uint64{1}},
		"the last removed":  {func(r []api.AuditRow) []api.AuditRow { return r[:n-1] }, []uint64{uint64(n)}},
		"all removed":       {func(r []api.AuditRow) []api.AuditRow { return nil }, []uint64{uint64(n)}},
		"swapped":           {func(r []api.AuditRow) []api.AuditRow { r[at], r[at+1] = r[at+1], r[at]; return r }, []uint64{number, number}},
		"renumbered, swapped": {func(r []api.AuditRow) []api.AuditRow {
			r[at], r[at+1] = r[at+1], r[at]
			r[at].Number, r[at+1].Number = r[at+1].Number, r[at].Number
			return r
		}, []uint64{number, number + 1}},
		"another commitment": {func(r []api.AuditRow) []api.AuditRow { r[at].Changes[0].After[0]++; return r }, []uint64{number}},
		"a change left out":  {func(r []api.AuditRow) []api.AuditRow { r[at].Changes = r[at].Changes[1:]; return r }, []uint64{number}},
		"written twice":      {func(r []api.AuditRow) []api.AuditRow { return slices.Insert(r, at, r[at]) }, []uint64{number}},
	} {
		report := s.auditReport("", c.tamper)
		var named []uint64
		for _, p := range report.Problems {
			named = append(named, p.Number)
		}
		for _, want := range c.named {
			if !slices.Contains(named, want) {
				t.Errorf("%s: row %d is not named: %+v", name, want, report.Problems)
			}
		}
		if len(named) > 4 {
			t.Errorf("%s: %d problems: %+v", name, len(named), report.Problems)
		}
	}

	// Written anew from somewhere on, so that the chain fits: only an earlier head tells.
	forge := func(rows []api.AuditRow) []api.AuditRow { return forged(t, rows, at) }
	if r := s.auditReport("", forge); len(r.Problems) != 1 || r.Problems[0].Number != uint64(n) { // the server still says how it ends
		t.Errorf("forged: %+v", r.Problems)
	}
	if r := s.auditReport(whole.Head, forge); len(r.Problems) != 2 {
		t.Errorf("forged, with an earlier head: %+v", r.Problems)
	}
	s.onboard("initech", permitAll)
	if r := s.auditReport(whole.Head, nil); len(r.Problems) > 0 {
		t.Errorf("grown since: %+v", r.Problems)
	}
}

// Somebody with the disk changes who did it. The server reads the row to nobody and names it; so does the check.
func TestAuditRowChangedOnDisk(t *testing.T) {
	dir := t.TempDir()
	onDisk := func(c *server.Config) { c.DataDir = dir }
	row := uint64(0)
	t.Run("before", func(t *testing.T) {
		s := start(t, onDisk)
		acme := s.onboard("acme", permitAll)
		s.must(200, "PUT", "/v1/policy-stores/"+acme.PolicyStoreID+"/contents", map[string]any{"policies": []any{}}, "If-Match", "*", "X-Request-Id", "request-of-mine-1")
		s.onboard("globex", permitAll)
		rows := s.auditRows(s.root, "&operation=PutContents")
		if len(rows) != 1 || rows[0].RequestID != "request-of-mine-1" {
			t.Fatalf("%+v", rows)
		}
		row = rows[0].Number
	})
	path := filepath.Join(dir, sqlite.FileName)
	file, err := os.ReadFile(path)
	if err != nil || bytes.Count(file, []byte("request-of-mine-1")) != 1 {
		t.Fatalf("the request is in the file %d times, %v", bytes.Count(file, []byte("request-of-mine-1")), err)
	}
	if err := os.WriteFile(path, bytes.Replace(file, []byte("request-of-mine-1"), []byte("request-of-mine-2"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	named := fmt.Sprintf("row %d", row)
	report, err := server.Check(t.Context(), dir, "", nil)
	if err != nil || len(report.Problems) != 1 || !strings.HasSuffix(report.Problems[0].What, named) {
		t.Errorf("the check: %+v, %v", report, err)
	}
	s := start(t, onDisk, func(c *server.Config) { c.Log = nil })
	if r := s.as(s.root, "GET", "/v1/audit", nil); r.status != 503 || !strings.Contains(r.body, named) || strings.Contains(r.body, "request-of-mine") {
		t.Errorf("to the operator: %v", r)
	}
	if r := s.as(s.key(api.KeyScope{Tenant: "globex"}, "read"), "GET", "/v1/audit", nil); r.status != 503 || strings.Contains(r.body, named) {
		t.Errorf("to a tenant: %v", r)
	}
}

// forged lets somebody else have done the row at a place, and computes the chain anew from there.
func forged(t *testing.T, rows []api.AuditRow, at int) []api.AuditRow {
	t.Helper()
	rows[at].Actor = "nobody"
	chain := [32]byte(rows[at-1].Chain)
	for i := at; i < len(rows); i++ {
		e, err := rows[i].Entry()
		if err != nil {
			t.Fatal(err)
		}
		p := storage.Directory()
		if e.PolicyStoreID != "" {
			p = storage.PolicyStore(e.PolicyStoreID)
		}
		chain = storage.AuditNext(chain, storage.AuditRow{Seq: e.Number, At: e.At, Actor: access.FormatActor(e.Actor, e.RequestID), Operation: e.Operation,
			Partition: p, Incarnation: e.Incarnation, Revision: e.Revision, Writes: e.Writes, Head: e.Head})
		rows[i].Chain = slices.Clone(chain[:])
	}
	return rows
}
