package server

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/sqlite"
)

// patient is a data directory with a configuration, for the doctor.
type patient struct {
	t        *testing.T
	cfg      Config
	settings map[string]string
	text     string // instead of the settings
}

// newPatient is well, but for warnings of where the tests keep things.
func newPatient(t *testing.T) *patient {
	cfg := used(t)
	p := &patient{t: t, cfg: cfg, settings: map[string]string{"data": cfg.DataDir, "backup-dir": filepath.Join(t.TempDir(), "backups"), "min-free-bytes": "1"}}
	if err := os.Chmod(cfg.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *patient) file(name string) string { return filepath.Join(p.cfg.DataDir, name) }

func (p *patient) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *patient) look() api.Diagnosis {
	p.t.Helper()
	text := p.text
	for key, value := range p.settings {
		if p.text == "" {
			text += key + ": " + fmt.Sprintf("%q", value) + "\n"
		}
	}
	file := filepath.Join(p.t.TempDir(), "copse.yaml")
	p.must(os.WriteFile(file, []byte(text), 0o600))
	return Diagnose(p.t.Context(), file, nil, "")
}

// ask is look, of the server itself.
func (p *patient) ask(s *Server) api.Diagnosis {
	p.t.Helper()
	d, err := s.diagnose(p.t.Context())
	p.must(err)
	return d
}

// running does something to a server on the directory, which then ends.
func (p *patient) running(do func(*Server)) {
	p.t.Helper()
	s, err := Open(p.t.Context(), p.cfg)
	p.must(err)
	do(s)
	p.must(s.Close())
}

func (p *patient) key(ends time.Time) {
	p.running(func(s *Server) {
		_, _, err := s.Access.CreateKey(p.t.Context(), access.System(), access.Key{Scope: access.Scope{All: true}, Verbs: access.Read, ExpiresAt: ends})
		p.must(err)
	})
}

// backup puts one where the schedule does.
func (p *patient) backup() (file string) {
	dir := p.settings["backup-dir"]
	p.must(os.MkdirAll(dir, 0o700))
	file = filepath.Join(dir, "copse-00000001-20260101T000000Z.backup")
	p.running(func(s *Server) { p.must(s.backupTo(p.t.Context(), file)) })
	return file
}

// certificate is a pair that is good between two times from now.
func (p *patient) certificate(from, to time.Duration) (key string) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	p.must(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	p.must(err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	p.must(err)
	dir := p.t.TempDir()
	for name, block := range map[string]*pem.Block{"tls-cert": {Type: "CERTIFICATE", Bytes: der}, "tls-key": {Type: "PRIVATE KEY", Bytes: keyDER}} {
		p.settings[name] = filepath.Join(dir, name)
		p.must(os.WriteFile(p.settings[name], pem.EncodeToMemory(block), 0o600))
	}
	return p.settings["tls-key"]
}

func (p *patient) overwrite(file string, at int64, with []byte) {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	p.must(err)
	_, err = f.WriteAt(with, at)
	p.must(err)
	p.must(f.Close())
}

// found tells whether a finding of a severity and check says the words.
func found(d api.Diagnosis, severity, check, words string) bool {
	for _, f := range d.Findings {
		if f.Severity == severity && f.Check == check && strings.Contains(f.What+" -> "+f.Do, words) {
			return true
		}
	}
	return false
}

func list(d api.Diagnosis) string {
	var b strings.Builder
	for _, f := range d.Findings {
		fmt.Fprintf(&b, "%s: %s: %s\n  %s\n", f.Severity, f.Check, f.What, f.Do)
	}
	return b.String()
}

// A finding that is no ok says what to do, and does so about this patient.
func wantFound(t *testing.T, d api.Diagnosis, severity, check, words string) {
	t.Helper()
	if !found(d, severity, check, words) {
		t.Errorf("no %s of %s that says %q among\n%s", severity, check, words, list(d))
	}
	for _, f := range d.Findings {
		if f.Do == "" && f.Severity != api.SeverityOK {
			t.Errorf("what is to be done about %+v?", f)
		}
	}
}

func TestDoctorFindsNothing(t *testing.T) {
	p := newPatient(t)
	p.key(time.Time{})
	p.backup()
	before := snapshotOf(t, p.cfg.DataDir)
	d := p.look()
	for check, words := range map[string]string{
		"configuration": "can start", "data directory": "user only", "database": "every page", "clock": "newest change",
		"master key": "opens 1 access keys", "access keys": "none of 1 expires", "backups": "is whole", "decision log": "no decision", "limits": "may open", "disk": "are free",
	} {
		wantFound(t, d, api.SeverityOK, check, words)
	}
	wantFound(t, d, api.SeverityNote, "data directory", "the master key is beside the data")
	if n := d.Count(api.SeverityError); n > 0 {
		t.Errorf("%d errors:\n%s", n, list(d))
	}
	if after := snapshotOf(t, p.cfg.DataDir); after != before {
		t.Errorf("looking changed the directory\nbefore %s\nafter  %s", before, after)
	}
}

func snapshotOf(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			var text []byte
			if text, err = os.ReadFile(path); err == nil {
				fmt.Fprintf(&b, "%s %v %v %x\n", path, info.Mode(), info.ModTime(), text)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Each cause is made for real, one a directory.
func TestDoctorFinds(t *testing.T) {
	const ok, note, warning, wrong = api.SeverityOK, api.SeverityNote, api.SeverityWarning, api.SeverityError
	cases := []struct {
		name                   string
		cause                  func(p *patient)
		severity, check, words string
	}{
		{"a misspelt setting", func(p *patient) { p.text = "data: x\nlisen: y\n" }, wrong, "configuration", `copse.yaml:2: lisen: there is no setting "lisen"; did you mean listen?`},
		{"a value that is none", func(p *patient) { p.settings["backup-every"] = "often" }, wrong, "configuration", `backup-every: "often" is not a duration`},
		{"half a certificate", func(p *patient) { p.settings["tls-cert"] = "x" }, wrong, "configuration", "go together"},
		{"tokens in the clear", func(p *patient) { p.settings["listen"] = "0.0.0.0:8420" }, wrong, "configuration", "in the clear"},
		{"no routes file", func(p *patient) { p.settings["routes-file"] = "/nowhere.yaml" }, wrong, "configuration", "nowhere.yaml"},
		{"half a root key", func(p *patient) {
			p.settings["root-access-key-id"], p.settings["root-secret-access-key"] = "short", strings.Repeat("s", 40)
		}, wrong, "configuration", "16 to 128 letters and digits"},
		{"a log level that is none", func(p *patient) { p.settings["log-level"] = "loud" }, wrong, "configuration", "--log-level is debug, info, warn or error"},
		{"a log format that is none", func(p *patient) { p.settings["log-format"] = "xml" }, wrong, "configuration", "--log-format is text or json"},
		{"a plan that is none", func(p *patient) { p.settings["default-plan"] = "gold" }, wrong, "configuration", `plan "gold" does not exist`},
		{"a credential in a URL", func(p *patient) { p.settings["decision-log-export"] = "otlp:http://collector/?token=t0ken" }, wrong, "configuration", "without a user, a query"},
		{"an export into nowhere", func(p *patient) { p.settings["decision-log-export"] = "file:/nowhere/at/all" }, wrong, "configuration", "in no directory"},
		{"what a mistake hides", func(p *patient) { p.text = "listne: x\ndata: " + p.cfg.DataDir }, note, "configuration", "were not looked at"},
		{"no directory", func(p *patient) { p.must(os.RemoveAll(p.cfg.DataDir)) }, note, "data directory", "does not exist"},
		{"a file instead", func(p *patient) { p.settings["data"] = p.file(sqlite.FileName) }, wrong, "data directory", "is not one"},
		{"an open directory", func(p *patient) { p.must(os.Chmod(p.cfg.DataDir, 0o755)) }, warning, "data directory", "mode 0755, so others can reach it -> chmod 700"},
		{"an open database", func(p *patient) { p.must(os.Chmod(p.file(sqlite.FileName), 0o644)) }, warning, "data directory", "copse.db has mode 0644"},
		{"an open master key", func(p *patient) { p.must(os.Chmod(p.file(access.MasterKeyFile), 0o640)) }, wrong, "data directory", "no server starts with it -> chmod 600"},
		{"an open root key", func(p *patient) { p.must(os.Chmod(p.file(rootKeyFile), 0o604)) }, wrong, "data directory", "root.key has mode 0604"},
		{"a root key that is none", func(p *patient) { p.must(os.WriteFile(p.file(rootKeyFile), []byte("nonsense"), 0o600)) }, wrong, "data directory", "does not hold a credential"},
		{"no room", func(p *patient) { p.settings["min-free-bytes"] = fmt.Sprint(1 << 60) }, wrong, "disk", "no server starts -> make room"},
		{"no room for a backup", func(p *patient) {
			free, _ := sqlite.FreeBytes(p.cfg.DataDir)
			p.must(os.Truncate(p.file(sqlite.FileName), int64(free)+1<<30)) // takes no room
		}, warning, "disk", "a backup takes as much"},
		{"a lost database", func(p *patient) { p.must(os.Remove(p.file(sqlite.FileName))) }, wrong, "database", "copse.db is missing, and its root.key is there: there was a database"},
		{"an emptied database", func(p *patient) { p.must(os.Truncate(p.file(sqlite.FileName), 0)) }, wrong, "database", "copse.db is empty, and its root.key is there"},
		{"a directory of backups alone", func(p *patient) {
			p.backup()
			p.must(os.RemoveAll(p.cfg.DataDir))
		}, wrong, "database", "has backups, the newest of them copse-00000001-"},
		{"no database yet", func(p *patient) {
			p.must(os.RemoveAll(p.cfg.DataDir))
			p.must(os.Mkdir(p.cfg.DataDir, 0o700))
		}, note, "database", "there is no"},
		{"damage", func(p *patient) { p.overwrite(p.file(sqlite.FileName), 4096, make([]byte, 4096)) }, wrong, "database", "restore the newest backup"},
		{"something else", func(p *patient) { p.overwrite(p.file(sqlite.FileName), 0, []byte("not a database")) }, wrong, "database", "restore the newest backup"},
		{"a newer format", func(p *patient) { // where SQLite keeps the number
			p.overwrite(p.file(sqlite.FileName), 60, binary.BigEndian.AppendUint32(nil, 99))
		}, wrong, "database", "its format is 99"},
		{"no master key", func(p *patient) { p.must(os.Remove(p.file(access.MasterKeyFile))) }, wrong, "master key", "are sealed under it -> bring the master key file back"},
		{"no master key where one is named", func(p *patient) { p.settings["master-key-file"] = "/nowhere.key" }, wrong, "master key", "there is no /nowhere.key, and no server starts"},
		{"another master key", func(p *patient) {
			p.must(os.WriteFile(p.file(access.MasterKeyFile), []byte(strings.Repeat("ab", access.MasterKeySize)), 0o600))
		}, wrong, "master key", "is not the one"},
		{"half a master key", func(p *patient) { p.must(os.Truncate(p.file(access.MasterKeyFile), 7)) }, wrong, "master key", "must hold 32 random bytes"},
		{"a key that ends soon", func(p *patient) { p.key(time.Now().Add(24 * time.Hour)) }, warning, "access keys", "-> copse key rotate CPK"},
		{"a key that ends later", func(p *patient) { p.key(time.Now().Add(60 * 24 * time.Hour)) }, ok, "access keys", "none of 1 expires"},
		{"a good certificate", func(p *patient) { p.certificate(-time.Hour, 60*24*time.Hour) }, ok, "certificate", "is valid until"},
		{"a certificate that ends soon", func(p *patient) { p.certificate(-time.Hour, 24*time.Hour) }, warning, "certificate", "expires at"},
		{"a certificate that ended", func(p *patient) { p.certificate(-2*time.Hour, -time.Hour) }, wrong, "certificate", "expired at"},
		{"a certificate from the future", func(p *patient) { p.certificate(time.Hour, 60*24*time.Hour) }, wrong, "certificate", "is not valid before"},
		{"an open certificate key", func(p *patient) { p.must(os.Chmod(p.certificate(-time.Hour, 60*24*time.Hour), 0o644)) }, warning, "certificate", "mode 0644"},
		{"two pairs mixed", func(p *patient) {
			key := p.certificate(-time.Hour, time.Hour)
			p.certificate(-time.Hour, time.Hour)
			p.settings["tls-key"] = key
		}, wrong, "certificate", "does not match"},
		{"a clients' CA that is none", func(p *patient) { p.settings["tls-client-ca"] = p.certificate(-time.Hour, time.Hour) }, wrong, "certificate", "--tls-client-ca"},
		{"a proxy's certificate", func(p *patient) { p.settings["behind-tls-proxy"] = "true" }, note, "certificate", "the certificate of the proxy"},
		{"a rotation that was killed", func(p *patient) {
			p.key(time.Time{})
			former, err := access.LoadMasterKey(p.file(access.MasterKeyFile))
			p.must(err)
			b, err := sqlite.OpenExisting(p.cfg.DataDir)
			p.must(err)
			next := make(access.MasterKey, access.MasterKeySize)
			if _, err := access.Reseal(p.t.Context(), &killed{Backend: b}, former, next); !errors.Is(err, errKilled) {
				p.t.Fatal(err)
			}
			p.must(b.Close())
		}, wrong, "master key", "rotate-master"},
		{"no backups", func(p *patient) { p.settings["backup-dir"] = "" }, warning, "backups", "none are made on schedule"},
		{"no backup yet", func(*patient) {}, warning, "backups", "there is none"},
		{"backups on the same disk", func(p *patient) { p.backup() }, warning, "backups", "takes both"},
		{"open backups", func(p *patient) { p.must(os.Chmod(filepath.Dir(p.backup()), 0o755)) }, warning, "backups", "mode 0755"},
		{"a damaged backup", func(p *patient) {
			file := p.backup()
			info, err := os.Stat(file)
			p.must(err)
			p.must(os.Truncate(file, info.Size()-1))
		}, wrong, "backups", "can't be restored"},
		{"an old backup", func(p *patient) {
			was := time.Now().Add(-72 * time.Hour)
			p.must(os.Chtimes(p.backup(), was, was))
		}, warning, "backups", "one is due every 24h0m0s"},
		{"backups that are no directory", func(p *patient) { p.settings["backup-dir"] = p.file(sqlite.FileName) }, wrong, "backups", "can't be read"},
		{"no decision log", func(p *patient) { p.settings["decision-log"] = "false" }, note, "decision log", "no decision leaves a line"},
		{"lost decisions", func(p *patient) {
			// Three more were counted than have lines: a process was killed.
			p.overwrite(filepath.Join(p.cfg.DataDir, decisionsDir, "counter"), 0, binary.NativeEndian.AppendUint64(nil, 3))
			openAndClose(p.t, p.cfg)
		}, warning, "decision log", "3 decisions of the last days have no line"},
		{"a damaged decision log", func(p *patient) {
			p.must(os.WriteFile(filepath.Join(p.cfg.DataDir, decisionsDir, "000000000009.jsonl.gz"), []byte("x"), 0o600))
		}, wrong, "decision log", "segment 9"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t)
			c.cause(p)
			wantFound(t, p.look(), c.severity, c.check, c.words)
		})
	}
}

// A disk that is read-only is so for root too, whom modes do not stop.
func TestDoctorFindsAReadOnlyDirectory(t *testing.T) {
	p := newPatient(t)
	d := &doctor{cfg: p.cfg, now: time.Now()}
	d.cfg.DataDir = "/proc/self"
	d.directory()
	wantFound(t, api.Diagnosis{Findings: d.findings}, api.SeverityError, "data directory", "/proc/self can't be written")
}

func TestDoctorFindsAnotherOwner(t *testing.T) {
	p := newPatient(t)
	if err := os.Chown(p.file(sqlite.FileName), 12345, -1); err != nil {
		if os.Geteuid() == 0 {
			t.Fatal(err)
		}
		return // nobody else can make one
	}
	wantFound(t, p.look(), api.SeverityError, "data directory", "belongs to user 12345")
}

func TestDoctorFindsTheServer(t *testing.T) {
	p := newPatient(t)
	p.running(func(s *Server) {
		d := p.look()
		wantFound(t, d, api.SeverityNote, "database", "-> ask the server")
		if n := d.Count(api.SeverityError); n > 0 {
			t.Errorf("a running server is no error:\n%s", list(d))
		}
	})
}

func TestDoctorFindsAClockBehind(t *testing.T) {
	p := newPatient(t)
	synctest.Test(t, func(*testing.T) { // where it is the year 2000
		wantFound(t, p.look(), api.SeverityError, "clock", "-> set the clock")
		p.settings["allow-clock-behind"] = "true"
		wantFound(t, p.look(), api.SeverityWarning, "clock", "leave --allow-clock-behind out")
	})
}

// The server looks at itself: what it finds is caused while it runs.
func TestDoctorOfARunningServer(t *testing.T) {
	p := newPatient(t)
	p.cfg.MinFreeBytes = 1
	p.key(time.Now().Add(time.Hour))
	p.running(func(s *Server) {
		d := p.ask(s)
		for _, check := range []string{"draining", "storage", "keys", "clock", "disk"} {
			wantFound(t, d, api.SeverityOK, "ready: "+check, "well")
		}
		wantFound(t, d, api.SeverityWarning, "access keys", "copse key rotate CPK")
		wantFound(t, d, api.SeverityWarning, "backups", "none are made on schedule")
		if n := d.Count(api.SeverityError); n > 0 {
			t.Errorf("%d errors:\n%s", n, list(d))
		}
		if r, checks := readyz(t, s); !r.Ready || !checks["data"].OK {
			t.Errorf("%+v", r)
		}
		_, end := s.backend.begin(t.Context(), callLoad)
		end(fmt.Errorf("a page: %w", storage.ErrCorrupt))
		if r, checks := readyz(t, s); !r.Ready || checks["data"].OK || !checks["data"].Warning {
			t.Errorf("others can be decided for: %+v", r)
		}
		s.cfg.MinFreeBytes = 1 << 60
		s.draining.Store(true)
		d = p.ask(s)
		wantFound(t, d, api.SeverityError, "ready: data", "restore the newest backup")
		wantFound(t, d, api.SeverityError, "ready: draining", "send requests elsewhere")
		wantFound(t, d, api.SeverityWarning, "ready: disk", "make room before writes fail")
		s.draining.Store(false)
		p.must(s.backend.Close())
		d = p.ask(s)
		wantFound(t, d, api.SeverityError, "ready: storage", "look at the disk")
		wantFound(t, d, api.SeverityError, "access keys", "can't be listed")
	})
}

// A running server has decisions to make: its doctor does not read large files through.
func TestDoctorLeavesLargeFiles(t *testing.T) {
	p := newPatient(t)
	p.cfg.BackupDir = filepath.Dir(p.backup())
	p.cfg.BackupEvery = time.Hour
	for most, words := range map[int64]string{1: "too large to be read through now", 1 << 30: "is whole"} {
		d := &doctor{cfg: p.cfg, now: time.Now(), most: most}
		d.backups(t.Context(), 0)
		wantFound(t, api.Diagnosis{Findings: d.findings}, api.SeverityOK, "backups", words)
	}
}

// Who is gone is not looked for, nor waited for by others.
func TestDoctorOfAClientThatLeaves(t *testing.T) {
	p := newPatient(t)
	p.cfg.BackupDir = filepath.Dir(p.backup())
	p.running(func(s *Server) {
		gone, leave := context.WithCancel(t.Context())
		leave()
		if d, err := s.diagnose(gone); copse.KindOf(err) != copse.Unavailable {
			t.Errorf("%v, %v", d, err)
		}
		s.diagnosing <- struct{}{} // another looks
		if d, err := s.diagnose(gone); copse.KindOf(err) != copse.Unavailable {
			t.Errorf("%v, %v", d, err)
		}
		<-s.diagnosing
		wantFound(t, p.ask(s), api.SeverityOK, "backups", "is whole")
	})
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := sqlite.VerifyBackup(gone, filepath.Join(p.cfg.BackupDir, "copse-00000001-20260101T000000Z.backup")); !errors.Is(err, context.Canceled) {
		t.Errorf("a backup was read on: %v", err)
	}
}

// killed is storage under a process that ends after one commit.
type killed struct {
	storage.Backend
	commits int
}

var errKilled = errors.New("killed")

func (k *killed) Commit(ctx context.Context, c storage.Commit) (uint64, error) {
	if k.commits++; k.commits > 1 {
		return 0, errKilled
	}
	return k.Backend.Commit(ctx, c)
}
