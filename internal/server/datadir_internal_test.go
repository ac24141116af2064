package server

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage/sqlite"
	"github.com/copse-authz/copse/internal/tenant"
)

// A server that had a database and finds none does not begin anew: it would know no tenant and call itself ready.
func TestNoNewBeginningOverALostDatabase(t *testing.T) {
	database := func(p *patient) string { return p.file(sqlite.FileName) }
	cases := []struct {
		name  string
		lose  func(*patient)
		words string // empty: it is a first start
	}{
		{"deleted", func(p *patient) { p.must(os.Remove(database(p))) }, "is missing, and its root.key is there"},
		{"emptied", func(p *patient) { p.must(os.Truncate(database(p), 0)) }, "is empty, and its root.key is there"},
		{"with a log alone", func(p *patient) {
			p.must(os.Remove(database(p)))
			p.must(os.Remove(p.file(rootKeyFile)))
		}, "its decision log is there"},
		{"with a root key of the environment's", func(p *patient) {
			p.must(os.Remove(database(p)))
			p.cfg.RootAccessKeyID, p.cfg.RootSecretAccessKey = "CONFIGURED0000001", "a-secret-of-the-operator's-own"
		}, "its decision log is there"},
		{"with backups alone", func(p *patient) {
			p.cfg.BackupDir = filepath.Dir(p.backup())
			p.must(os.RemoveAll(p.cfg.DataDir))
		}, "has backups"},
		{"a first start that was killed", func(p *patient) { // before it made anything but the file
			p.must(os.RemoveAll(p.cfg.DataDir))
			p.must(os.Mkdir(p.cfg.DataDir, 0o700))
			p.must(os.WriteFile(database(p), nil, 0o600))
		}, ""},
		{"a master key that was made before", func(p *patient) {
			p.must(os.RemoveAll(p.cfg.DataDir))
			p.must(os.Mkdir(p.cfg.DataDir, 0o700))
			p.must(os.WriteFile(p.file(access.MasterKeyFile), []byte(strings.Repeat("ab", access.MasterKeySize)), 0o600))
		}, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := newPatient(t)
			c.lose(p)
			before := snapshotOf(t, filepath.Dir(p.cfg.DataDir))
			s, err := Open(t.Context(), p.cfg)
			if c.words == "" {
				if err != nil {
					t.Fatal(err)
				}
				p.must(s.Close())
				return
			}
			if copse.KindOf(err) != copse.Invalid || !strings.Contains(err.Error(), c.words) || !strings.Contains(err.Error(), "copse restore FILE") {
				t.Errorf("got %v, want to be told %q", err, c.words)
			}
			if after := snapshotOf(t, filepath.Dir(p.cfg.DataDir)); after != before {
				t.Errorf("the refused start changed the directory\nbefore %s\nafter  %s", before, after)
			}
		})
	}
}

// With a master key that is lost no server starts, and none makes another; once what it sealed is dropped one does, and
// tenants are there.
func TestResetMasterKey(t *testing.T) {
	p := newPatient(t)
	p.key(time.Time{})
	p.running(func(s *Server) {
		_, err := s.Tenants.Create(t.Context(), access.System(), tenant.NewTenant{ID: "acme"})
		p.must(err)
	})
	master := p.file(access.MasterKeyFile)
	p.must(os.Rename(master, master+".lost"))
	wantNoStart(t, p.cfg, "there is no "+master, "is sealed under master key", "reset-master")
	if _, err := os.Stat(master); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal("a start that was refused left a master key")
	}

	never := errors.New("no")
	asked := access.Sealed{}
	refuse := func(n access.Sealed) error { asked = n; return never }
	if _, err := ResetMasterKey(t.Context(), p.cfg.DataDir, master+".lost", refuse, nil); copse.KindOf(err) != copse.Invalid {
		t.Errorf("with the key that opens everything: %v", err)
	}
	if _, err := ResetMasterKey(t.Context(), p.cfg.DataDir, "", refuse, nil); !errors.Is(err, never) || asked.Keys != 1 || asked.Secrets < 3 {
		t.Errorf("asked about %+v, %v", asked, err)
	}
	p.must(os.Rename(master+".lost", master))
	openAndClose(t, p.cfg) // nothing was dropped
	p.must(os.Remove(master))
	if n, err := ResetMasterKey(t.Context(), p.cfg.DataDir, "", func(access.Sealed) error { return nil }, nil); err != nil || n != asked {
		t.Errorf("dropped %+v of %+v, %v", n, asked, err)
	}
	p.running(func(s *Server) {
		keys, _, err := s.Access.ListKeys(t.Context(), access.System(), "", 10)
		if err != nil || len(keys) != 0 {
			t.Errorf("%v, %v", keys, err)
		}
		if _, err := s.Tenants.Lookup(t.Context(), "acme"); err != nil {
			t.Error(err)
		}
	})
	report, err := Check(t.Context(), p.cfg.DataDir, "", nil)
	if err != nil || len(report.Problems) > 0 || report.Keys != 0 || report.Secrets < 3 {
		t.Errorf("%+v, %v", report, err)
	}
}

// A rotation from a key that does not open everything makes none.
func TestRefusedRotationLeavesNoKey(t *testing.T) {
	p := newPatient(t)
	other := filepath.Join(t.TempDir(), "other.key")
	p.must(os.WriteFile(other, []byte(strings.Repeat("ab", access.MasterKeySize)), 0o600))
	for _, to := range []string{"", filepath.Join(t.TempDir(), "next")} {
		if _, err := RotateMasterKey(t.Context(), p.cfg.DataDir, other, to); copse.KindOf(err) != copse.Invalid {
			t.Errorf("got %v", err)
		}
		if to == "" {
			to = other + ".next"
		}
		if _, err := os.Stat(to); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s was made", to)
		}
	}
}
