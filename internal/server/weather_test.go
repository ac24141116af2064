//go:build linux

package server_test

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/server"
	"github.com/copse-authz/copse/internal/storage/sqlite"
)

// The tests here run a real server on a disk that has no room, takes no writes, or lies.

// smallDisk is a directory on a file system of its own, of so many bytes; false where only an
// administrator could make one.
func smallDisk(t *testing.T, size int) (dir string, ok bool) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=700", size)); errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		return dir, false
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir, true
}

// fill takes all the room there is in dir; free gives it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 4096); err == nil; {
		_, err = file.Write(block)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the disk ended with %v", err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// forbidWrites has every write of this process to a file refused, as a disk that fails or was made
// read-only by the kernel does: file systems can't be made so from outside while files are open.
func forbidWrites(t *testing.T) (allow func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 0, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	done := false
	allow = func() {
		if done {
			return
		}
		done = true
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
			t.Error(err)
		}
		signal.Reset(syscall.SIGXFSZ)
	}
	t.Cleanup(allow)
	return allow
}

func (s *site) view(store, user string) reply {
	s.t.Helper()
	return s.amazon(s.root, "IsAuthorized", viewRequest(store, user))
}

// A disk without room or that takes no writes: decisions of policy stores in the cache go on, writes are
// refused with a reason, nothing that was acknowledged is lost, and when it works again so do writes.
func TestBadDisk(t *testing.T) {
	for name, weather := range map[string]struct {
		says  []string // one of these
		begin func(t *testing.T, dir string) (end func())
	}{
		"full": {[]string{"storage is full", "no space left"}, fill},
		"takes no writes": {[]string{"can't be read or written now"}, func(t *testing.T, _ string) func() {
			return forbidWrites(t)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, own := smallDisk(t, 24<<20)
			begin, says := weather.begin, weather.says
			if !own { // What SQLite makes of a full disk then has only its own test, by a limit of SQLite's.
				begin = func(t *testing.T, _ string) func() { return forbidWrites(t) }
				says = append(says, "can't be read or written now")
			}
			data := filepath.Join(dir, "data")
			stored := map[string]string{}
			t.Run("serve", func(t *testing.T) {
				s := start(t, func(c *server.Config) { c.DataDir, c.Log, c.MinFreeBytes = data, nil, 0 })
				acme := s.onboard("acme", map[string]string{"p": `permit (principal == User::"alice", action, resource);`}).PolicyStoreID
				allowed := func(when string) {
					t.Helper()
					if r := s.view(acme, "alice"); r.status != http.StatusOK || !strings.Contains(r.body, `"ALLOW"`) {
						t.Errorf("%s, alice: %v", when, r)
					}
					if r := s.view(acme, "bob"); r.status != http.StatusOK || !strings.Contains(r.body, `"DENY"`) {
						t.Errorf("%s, bob: %v", when, r)
					}
				}
				allowed("before")
				end := begin(t, data)
				refused := 0
				for n := range 40 {
					// Large enough that what room there still is in the log is used up.
					tenant, text := fmt.Sprint("t", n), "// "+strings.Repeat("x", 9000)+"\npermit (principal, action, resource);"
					r := s.as(s.root, "POST", "/v1/tenants", api.CreateTenantRequest{Tenant: tenant, Policies: named(map[string]string{"p": text})})
					switch r.status {
					case http.StatusCreated:
						stored[tenant] = decode[api.Tenant](t, r).PolicyStoreID
					case http.StatusServiceUnavailable:
						refused++
						if !slices.ContainsFunc(says, func(reason string) bool { return strings.Contains(r.body, reason) }) {
							t.Errorf("a refusal that does not say why: %v", r)
						}
					default:
						t.Errorf("onboarding: %v", r)
					}
				}
				for operation, r := range map[string]reply{
					"key":      s.as(s.root, "POST", "/v1/keys", api.CreateKeyRequest{Scope: api.KeyScope{All: true}, Verbs: []string{"read"}, Description: strings.Repeat("x", 150)}),
					"contents": s.as(s.root, "PUT", "/v1/policy-stores/"+acme+"/contents", map[string]any{"policies": named(map[string]string{"p": "forbid (principal, action, resource); // " + strings.Repeat("x", 9000)})}, "If-Match", "*"),
					"backup":   s.as(s.root, "POST", "/v1/backup", nil),
				} {
					if r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
						t.Errorf("%s: %v", operation, r)
					}
				}
				if refused < 10 {
					t.Errorf("only %d of 40 writes were refused", refused)
				}
				allowed("meanwhile")
				end()
				allowed("afterwards")
				s.must(http.StatusOK, "PUT", "/v1/policy-stores/"+acme+"/contents", map[string]any{"policies": named(map[string]string{"p": "forbid (principal, action, resource);"})}, "If-Match", "*")
				if r := s.view(acme, "alice"); !strings.Contains(r.body, `"DENY"`) {
					t.Errorf("after a write: %v", r)
				}
				stored["globex"] = s.onboard("globex", map[string]string{"p": `permit (principal, action, resource);`}).PolicyStoreID
				if r := s.as(s.root, "POST", "/v1/backup", nil); r.status != http.StatusOK {
					t.Errorf("a backup: %d", r.status)
				}
			})
			report, err := server.Check(t.Context(), data, "", nil)
			if err != nil || len(report.Problems) > 0 {
				t.Errorf("%+v, %v", report, err)
			}
			again := start(t, func(c *server.Config) { c.DataDir, c.MinFreeBytes = data, 0 })
			for tenant, store := range stored {
				if r := again.view(store, "alice"); r.status != http.StatusOK || !strings.Contains(r.body, `"ALLOW"`) {
					t.Errorf("%s, acknowledged: %v", tenant, r)
				}
			}
			list := decode[struct {
				Tenants   []api.Tenant `json:"tenants"`
				NextToken *string      `json:"nextToken"`
			}](t, again.must(http.StatusOK, "GET", "/v1/tenants", nil))
			for _, tenant := range list.Tenants {
				// Of what was refused nothing is half there: a tenant that is listed decides.
				if r := again.view(tenant.PolicyStoreID, "alice"); r.status != http.StatusOK {
					t.Errorf("%s: %v", tenant.Tenant, r)
				}
			}
		})
	}
}

// A read-only data directory is refused at the start, by name, before anything is served from it.
func TestReadOnlyDisk(t *testing.T) {
	disk, own := smallDisk(t, 4<<20)
	dir := filepath.Join(disk, "data")
	t.Run("write", func(t *testing.T) { start(t, func(c *server.Config) { c.DataDir, c.MinFreeBytes = dir, 0 }) })
	if own {
		if err := syscall.Mount("", disk, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
	} else if err := errors.Join(os.Chmod(filepath.Join(dir, "copse.db"), 0o400), os.Chmod(filepath.Join(dir, "copse.lock"), 0o400)); err != nil {
		t.Fatal(err)
	}
	cfg := server.DefaultConfig()
	cfg.DataDir, cfg.MinFreeBytes = dir, 0
	s, err := server.Open(t.Context(), cfg)
	if err == nil {
		_ = s.Close()
	}
	if !own && os.Geteuid() == 0 {
		return // nothing that is left to do here binds root
	}
	if !errors.Is(err, sqlite.ErrNotWritable) || !strings.Contains(err.Error(), dir) {
		t.Errorf("opening it: %v", err)
	}
}

// A page of the database that holds other bytes than were written: the check names it, no policy store
// that has rows on it decides, all others do, and a page that is right again is served again.
func TestDamagedPage(t *testing.T) {
	const pageSize, stores = 4096, 30
	dir := filepath.Join(t.TempDir(), "data")
	ids := make([]string, stores)
	word := func(n int) string { return fmt.Sprintf("find-me-%02d-on-the-page", n) }
	t.Run("write", func(t *testing.T) {
		s := start(t, func(c *server.Config) { c.DataDir = dir })
		for n := range ids {
			ids[n] = s.onboard(fmt.Sprint("t", n), map[string]string{"p": fmt.Sprintf("permit (principal, action, resource); // %s %s", word(n), strings.Repeat("x", 3000))}).PolicyStoreID
		}
	})
	file := filepath.Join(dir, "copse.db")
	was, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// Without an inner page of a tree, nothing below it can be read, and the server does not start; nor does
	// it without a page that the directory has rows on as well.
	const inner = 0x02
	victim, pages := -1, []int(nil)
	for n := 0; n < stores && len(pages) == 0; n++ {
		victim = n
		for at := 0; at < len(was); at += pageSize {
			if !bytes.Contains(was[at:at+pageSize], []byte(word(n))) {
				continue
			}
			if was[at] == inner || bytes.Contains(was[at:at+pageSize], []byte("directory")) {
				pages = nil
				break
			}
			pages = append(pages, at)
		}
	}
	damaged := bytes.Clone(was)
	for _, at := range pages {
		for i := range pageSize {
			damaged[at+i] ^= 0x5a
		}
	}
	if len(pages) == 0 {
		t.Fatal("there is no page to damage")
	}
	if err := os.WriteFile(file, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	report, err := server.Check(t.Context(), dir, "", nil)
	if err != nil || !slices.ContainsFunc(report.Problems, func(p server.Problem) bool { return strings.Contains(p.Where, ids[victim]) && p.Do != "" }) ||
		!slices.ContainsFunc(report.Problems, func(p server.Problem) bool { return p.Where == sqlite.FileName && strings.Contains(p.What, "page") }) {
		t.Errorf("the check: %+v, %v", report, err)
	}
	// Now and then it is a page that opening reads as well: then nothing is served at all.
	cfg := server.DefaultConfig()
	cfg.DataDir = dir
	opened, err := server.Open(t.Context(), cfg)
	if err != nil {
		if !strings.Contains(err.Error(), "corrupt") {
			t.Errorf("opening: %v", err)
		}
		return
	}
	if err := opened.Close(); err != nil {
		t.Fatal(err)
	}
	s := start(t, func(c *server.Config) { c.DataDir, c.Log = dir, nil })
	refused := 0
	for n, id := range ids {
		switch r := s.view(id, "alice"); {
		case r.status == http.StatusServiceUnavailable && !strings.Contains(r.body, "ALLOW"):
			refused++
		case n == victim || r.status != http.StatusOK || !strings.Contains(r.body, `"ALLOW"`):
			t.Errorf("policy store %d: %v", n, r)
		}
	}
	if refused == 0 || refused > stores/3 {
		t.Errorf("%d of %d policy stores did not decide", refused, stores)
	}
	if r := s.as(s.root, "GET", "/v1/policy-stores/"+ids[victim]+"/contents", nil); r.status != http.StatusServiceUnavailable || !strings.Contains(r.body, "run copse check") {
		t.Errorf("its policies: %v", r)
	}
	if r := s.as(s.root, "GET", "/v1/doctor", nil); !strings.Contains(r.body, `"ready: data"`) || !strings.Contains(r.body, "damaged data were met") {
		t.Errorf("the doctor: %v", r)
	}
	// Another process puts them right: if this one closed the file, SQLite's locks on it would be gone.
	good := filepath.Join(t.TempDir(), "good")
	if err := os.WriteFile(good, was, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, at := range pages {
		page := fmt.Sprint(at / pageSize)
		if out, err := exec.Command("dd", "if="+good, "of="+file, "conv=notrunc", "count=1", fmt.Sprint("bs=", pageSize), "skip="+page, "seek="+page).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	s.onboard("another", nil) // after a write nobody trusts pages read before it
	for n, id := range ids {
		if r := s.view(id, "alice"); r.status != http.StatusOK || !strings.Contains(r.body, `"ALLOW"`) {
			t.Errorf("put right, policy store %d: %v", n, r)
		}
	}
}

// A policy store whose row in the directory is lost looks like one that a crash left half made. Those are
// erased at the start; it must not be.
func TestLostDirectoryRow(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	var lost, kept string
	t.Run("write", func(t *testing.T) {
		s := start(t, func(c *server.Config) { c.DataDir = dir })
		policies := map[string]string{"p": "permit (principal, action, resource);"}
		lost, kept = s.onboard("lost", policies).PolicyStoreID, s.onboard("kept", policies).PolicyStoreID
	})
	change := func(statement string) {
		t.Helper()
		db, err := sql.Open("sqlite", filepath.Join(dir, "copse.db"))
		if err != nil {
			t.Fatal(err)
		}
		done, err := db.Exec(statement, []byte(lost))
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		if n, err := done.RowsAffected(); n != 1 || err != nil {
			t.Fatalf("%d rows: %v", n, err)
		}
	}
	const row = ` WHERE partition = CAST('directory' AS BLOB) AND kind = CAST('policy-store' AS BLOB) AND id = ?`
	change(`DELETE FROM item` + row)

	report, err := server.Check(t.Context(), dir, "", nil)
	if err != nil || report.DirectoryWhole || len(report.Problems) != 1 || report.Problems[0].Where != "directory" || len(report.Unlisted) != 1 || string(report.Unlisted[0]) != lost {
		t.Errorf("the check: %+v, %v", report, err)
	}
	t.Run("start", func(t *testing.T) {
		log := &lockedBuffer{}
		s := start(t, func(c *server.Config) { c.DataDir, c.Log = dir, slog.New(slog.NewTextHandler(log, nil)) })
		for deadline := time.Now().Add(20 * time.Second); !log.has(lost) && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		}
		if !log.has("nothing is erased") || !log.has(lost) {
			t.Errorf("the log does not say that nothing is erased:\n%s", log.String())
		}
		if r := s.view(lost, "alice"); r.status == http.StatusOK || strings.Contains(r.body, "ALLOW") {
			t.Errorf("without its row: %v", r)
		}
		if r := s.view(kept, "alice"); r.status != http.StatusOK || !strings.Contains(r.body, `"ALLOW"`) {
			t.Errorf("the other: %v", r)
		}
	})
	again, err := server.Check(t.Context(), dir, "", nil)
	if err != nil || len(again.Unlisted) != 1 || string(again.Unlisted[0]) != lost {
		t.Errorf("the check after a start: %+v, %v", again, err)
	}
}
