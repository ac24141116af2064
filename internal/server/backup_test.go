package server_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/server"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/sqlite"
)

// A drill: policies change at random in several policy stores, backups are made in the middle of it, and
// a server restored from each decides as the former one had recorded for that revision.
func TestBackupDrill(t *testing.T) {
	const stores, changes, backups, resources = 3, 60, 3, 6
	masterKey := func(dir string) []byte {
		text, err := os.ReadFile(filepath.Join(dir, "master.key"))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	var dir string
	s := start(t, func(c *server.Config) { dir = c.DataDir })
	decide := func(at *site, store string) (revision uint64, answers string) {
		for n := range resources {
			r := at.amazon(at.root, "IsAuthorized", map[string]any{"policyStoreId": store,
				"principal": map[string]string{"entityType": "User", "entityId": "u"},
				"action":    map[string]string{"actionType": "Action", "actionId": "view"},
				"resource":  map[string]string{"entityType": "R", "entityId": fmt.Sprint(n)}})
			if r.status != http.StatusOK {
				at.t.Fatalf("%v", r)
			}
			answers += decode[struct {
				Decision            string `json:"decision"`
				DeterminingPolicies []any  `json:"determiningPolicies"`
				Errors              []any  `json:"errors"`
			}](at.t, r).Decision + " "
		}
		return at.contents(store).Revision, answers
	}
	ids := make([]string, stores)
	for n := range ids {
		ids[n] = s.onboard(fmt.Sprint("t", n), nil).PolicyStoreID
	}
	var mu sync.Mutex
	recorded := map[string]string{} // by policy store and revision
	var writers sync.WaitGroup
	begun := make(chan struct{}, stores*changes)
	for n, id := range ids {
		random := rand.New(rand.NewPCG(7, uint64(n)))
		writers.Go(func() {
			for range changes {
				policies := map[string]string{}
				for r := range resources {
					if effect := []string{"permit", "forbid", ""}[random.IntN(3)]; effect != "" {
						policies[fmt.Sprint("p", r)] = fmt.Sprintf("%s (principal, action, resource == R::\"%d\");", effect, r)
					}
				}
				r, err := s.try("PUT", "/v1/policy-stores/"+id+"/contents", map[string]any{"policies": named(policies)},
					"If-Match", "*", "Authorization", "Bearer "+s.root)
				if err != nil || r.status != http.StatusOK {
					t.Errorf("%v %v", r, err)
					return
				}
				revision, answers := decide(s, id) // its only writer is this one
				mu.Lock()
				recorded[fmt.Sprint(id, revision)] = answers
				mu.Unlock()
				begun <- struct{}{}
			}
		})
	}
	var files []string
	for n := range backups {
		for range stores * changes / (backups + 1) {
			<-begun
		}
		r := s.as(s.root, "POST", "/v1/backup", nil)
		if r.status != http.StatusOK || r.header.Get("Content-Length") != fmt.Sprint(len(r.body)) {
			t.Fatalf("a backup: %d, %d bytes of %s", r.status, len(r.body), r.header.Get("Content-Length"))
		}
		file := filepath.Join(t.TempDir(), fmt.Sprint(n))
		if _, err := sqlite.SaveBackup(file, strings.NewReader(r.body)); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
		if key := bytes.TrimSpace(masterKey(dir)); strings.Contains(r.body, string(key)) {
			t.Error("the master key is in the backup")
		}
	}
	writers.Wait()
	compared, allowed := 0, 0
	for _, file := range files {
		restored := filepath.Join(t.TempDir(), "data")
		m, err := server.Restore(t.Context(), file, restored)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"master.key", "root.key"} {
			text, err := os.ReadFile(filepath.Join(dir, name))
			if err := errors.Join(err, os.WriteFile(filepath.Join(restored, name), text, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		report, err := server.Check(t.Context(), restored, "", nil)
		if err != nil || len(report.Problems) > 0 || report.PolicyStores != stores {
			t.Fatalf("%+v, %v", report, err)
		}
		again := start(t, func(c *server.Config) { c.DataDir = restored })
		rows := again.auditRows(again.root, "")
		if row := rows[m.AuditSeq]; row.Operation != "RestoreBackup" || row.Actor != "system" || uint64(row.Number) != uint64(m.AuditSeq)+1 {
			t.Errorf("after the last row of the backup, %d, comes %+v", m.AuditSeq, row)
		}
		if r := again.auditReport("", nil); len(r.Problems) > 0 {
			t.Errorf("the audit log of a restored server: %v", r.Problems)
		}
		for _, id := range ids {
			revision, answers := decide(again, id)
			want, ok := recorded[fmt.Sprint(id, revision)]
			if answers != want {
				t.Errorf("%s at revision %d decides %s, and did %s (known: %v)", id, revision, answers, want, ok)
			}
			compared++
			allowed += strings.Count(answers, "ALLOW")
		}
	}
	if compared != stores*backups || allowed == 0 || allowed == compared*resources {
		t.Errorf("%d policy stores compared, %d allowed", compared, allowed)
	}
}

// A damaged page is found by the check, which says where, and no decision is made from it. What is
// damaged is the data of one policy store; a check that finds nothing would be as bad as a decision.
func TestCheckFindsADamagedPage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	var store string
	t.Run("write", func(t *testing.T) {
		s := start(t, func(c *server.Config) { c.DataDir = dir })
		store = s.onboard("acme", map[string]string{"p": `forbid (principal, action, resource) when { "find-me-on-the-page" == "x" };`, "q": "permit (principal, action, resource);"}).PolicyStoreID
	})
	file := filepath.Join(dir, "copse.db")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.ReplaceAll(text, []byte("find-me-on-the-page"), []byte("find-me-on-the-pagE"))
	if bytes.Equal(damaged, text) {
		t.Fatal("there is nothing to damage")
	}
	if err := os.WriteFile(file, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	report, err := server.Check(t.Context(), dir, "", nil)
	if err != nil || !slices.ContainsFunc(report.Problems, func(p server.Problem) bool { return strings.Contains(p.Where, store) && p.Do != "" }) {
		t.Errorf("the check: %+v, %v", report, err)
	}
	s := start(t, func(c *server.Config) { c.DataDir, c.Log = dir, nil })
	r := s.amazon(s.root, "IsAuthorized", map[string]any{"policyStoreId": store,
		"principal": map[string]string{"entityType": "User", "entityId": "u"},
		"action":    map[string]string{"actionType": "Action", "actionId": "view"},
		"resource":  map[string]string{"entityType": "R", "entityId": "r"}})
	if r.status == http.StatusOK || strings.Contains(r.body, "ALLOW") {
		t.Errorf("a decision from a damaged page: %v", r)
	}
}

// The check opens the server's own secrets, and finds what no tenant has.
func TestCheckOpensSecretsAndFindsTheUnlisted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	t.Run("write", func(t *testing.T) {
		start(t, func(c *server.Config) { c.DataDir, c.PublicURL = dir, "https://copse.example.com" }).onboard("acme", nil)
	})
	b, err := sqlite.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Commit(t.Context(), storage.Commit{Partition: storage.PolicyStore("left"), Incarnation: copse.NewIncarnation(), Create: true,
		Writes: []storage.Write{{Key: storage.Key{Kind: "settings"}, Body: []byte("{}")}}})
	if err := errors.Join(err, b.Close()); err != nil {
		t.Fatal(err)
	}
	report, err := server.Check(t.Context(), dir, "", nil)
	if err != nil || len(report.Problems) > 0 || report.Secrets == 0 || !slices.Equal(report.Unlisted, []copse.PolicyStoreID{"left"}) {
		t.Errorf("%+v, %v", report, err)
	}
	other := filepath.Join(t.TempDir(), "other.key")
	if err := os.WriteFile(other, []byte(strings.Repeat("ab", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	wrong, err := server.Check(t.Context(), dir, other, nil)
	if err != nil || len(wrong.Problems) != report.Secrets || wrong.Secrets != 0 || wrong.Problems[0].Where != "master key" || !strings.Contains(wrong.Problems[0].Do, other) {
		t.Errorf("with another master key: %+v, %v", wrong, err)
	}
}

// Clients that go away in the middle leave no copy behind, and their turn to the next.
func TestBackupOfClientsThatLeave(t *testing.T) {
	var dir string
	t.Run("serve", func(t *testing.T) {
		s := start(t, func(c *server.Config) { dir = c.DataDir })
		for range 5 {
			req, err := http.NewRequestWithContext(t.Context(), "POST", s.url+"/v1/backup", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+s.root)
			resp, err := s.http.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.CopyN(io.Discard, resp.Body, 10)
			resp.Body.Close()
		}
		for {
			r := s.as(s.root, "POST", "/v1/backup", nil)
			if r.status == http.StatusOK {
				break
			}
			wantStatus(t, r, http.StatusConflict)
			time.Sleep(10 * time.Millisecond)
		}
	})
	if left, _ := filepath.Glob(filepath.Join(dir, "copse-scratch-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
