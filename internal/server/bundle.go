package server

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"

	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/sqlite"
)

// bundleAbout tells whoever gets a bundle, and whoever is asked for one, what is in it.
const bundleAbout = `What a copse server was like at %s, for those who look for what is wrong with it.

In here: what the doctor found, the settings, sizes and revisions of what is stored, facts about the machine; of a running server
also its metrics, use by policy store, and what its goroutines and its memory are taken by.
Not in here: keys, tokens and other secrets, the texts of policies and schemas, who asked for what, the server's log.
Names of tenants and plans: %v. Policy stores go by their ids, access keys by theirs.
`

// A bundle has so many policy stores at the most.
const bundleHeads, bundleUsage = 1000, 100

// bundle is an archive in the making. What can't be found out is said in its place: a bundle is for bad days.
type bundle struct {
	tar       *tar.Writer
	at        time.Time
	withNames bool
	err       error // of writing
}

// writeBundle makes an archive of what fill adds.
func writeBundle(w io.Writer, withNames bool, fill func(*bundle)) error {
	zipped := gzip.NewWriter(w)
	b := &bundle{tar: tar.NewWriter(zipped), at: time.Now().UTC().Truncate(time.Second), withNames: withNames}
	b.file("about.txt", func(w io.Writer) error {
		_, err := fmt.Fprintf(w, bundleAbout, b.at.Format(time.RFC3339), withNames)
		return err
	})
	fill(b)
	// The inner one first. The first error is the one that explains the others.
	for _, end := range []func() error{b.tar.Close, zipped.Close} {
		if err := end(); b.err == nil {
			b.err = err
		}
	}
	return b.err
}

// file adds a file. What write fails with becomes a file of its own, named .failed, in its place; only an error of
// the archive itself ends the bundle. It is written to memory first, since tar wants the size before the text.
func (b *bundle) file(name string, write func(io.Writer) error) {
	if b.err != nil {
		return
	}
	var text bytes.Buffer
	if err := write(&text); err != nil {
		name += ".failed"
		text.Reset()
		fmt.Fprintln(&text, err)
	}
	header := &tar.Header{Name: "copse-debug/" + name, Mode: 0o600, Size: int64(text.Len()), ModTime: b.at}
	if b.err = b.tar.WriteHeader(header); b.err == nil {
		_, b.err = b.tar.Write(text.Bytes())
	}
}

// json adds v as a file for people to read.
func (b *bundle) json(name string, v any) {
	b.file(name, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	})
}

// WriteDebugBundle makes the bundle of a server that does not run, of what [Diagnose] looks at.
// The error is one of writing to w; what can't be found out is in the bundle.
func WriteDebugBundle(ctx context.Context, w io.Writer, version, file string, environ []string, dataDir string, withNames bool) error {
	d := Diagnose(ctx, file, environ, dataDir)
	d.Version = version
	for i, f := range d.Findings {
		if f.Check == checkConfiguration && f.Severity == api.SeverityError {
			d.Findings[i].What = "it is not right" // what is wrong may quote what nobody should see
		}
	}
	cfg, err := LoadConfig(file, environ)
	if err != nil {
		cfg = DefaultConfig()
	}
	if dataDir != "" {
		cfg.DataDir = dataDir
	}
	return writeBundle(w, withNames, func(b *bundle) { b.common(&cfg, d) })
}

// common is what is known with and without a running server.
// Each part by itself: one that fails leaves the others as they are.
func (b *bundle) common(cfg *Config, d api.Diagnosis) {
	b.json("doctor.json", d)
	b.json("settings.json", b.settings(cfg))
	b.json("sizes.json", sizes(cfg))
	b.file("machine.txt", machine)
}

// debugBundle makes the bundle of the server itself.
// All of it is in memory before any of it is sent: an error can still be answered as one.
func (s *Server) debugBundle(ctx context.Context, withNames bool) ([]byte, error) {
	var out bytes.Buffer
	found, err := s.diagnose(ctx)
	if err != nil {
		return nil, err
	}
	err = writeBundle(&out, withNames, func(b *bundle) {
		b.common(&s.cfg, found)
		// Metrics name no tenant, and stacks in this form have no arguments.
		b.file("metrics.txt", s.writeMetrics)
		b.file("goroutines.txt", func(w io.Writer) error { return pprof.Lookup("goroutine").WriteTo(w, 1) })
		b.file("heap.pb.gz", func(w io.Writer) error { return pprof.Lookup("heap").WriteTo(w, 0) })
		heads, err := s.heads(ctx)
		if err != nil {
			b.file("policystores.json", func(io.Writer) error { return err })
		} else {
			b.json("policystores.json", heads)
		}
		usage, err := s.PolicyStores.TopUsage(ctx, access.System(), policystore.ByDecisions, bundleUsage)
		if err != nil {
			b.file("usage.json", func(io.Writer) error { return err })
			return
		}
		// The bundle goes to others; whose customers there are is not for them unless the caller says so.
		if !withNames {
			for i := range usage {
				usage[i].Tenant = ""
			}
		}
		b.json("usage.json", usage)
	})
	return out.Bytes(), err
}

// shownSettings are those of text whose values are shown. All others of text, those to come among them, are
// shown to be set and no more: a URL may hold a password, and a name is a name.
var shownSettings = map[string]bool{"data": true, "listen": true, "ops-listen": true, "ext-authz-listen": true, "tls-cert": true, "tls-key": true,
	"master-key-file": true, "region": true, "routes-file": true, "backup-dir": true, "decision-log-full": true, "log-level": true, "log-format": true}

// bundledSetting is a setting as it is shown; Default tells that nobody has set it, or to what it was.
type bundledSetting struct {
	Key     string `json:"key"`
	Value   string `json:"value"`
	Default bool   `json:"default"`
}

// settings shows numbers, times and switches as they are, texts by the list above, and a secret never, because
// [Setting.Value] has none.
func (b *bundle) settings(cfg *Config) []bundledSetting {
	out := make([]bundledSetting, 0, len(Settings())+1)
	for _, s := range Settings() {
		v := bundledSetting{Key: s.Key, Value: s.Value(cfg)}
		v.Default = v.Value == s.Default()
		_, isText := s.field(cfg).(*string)
		switch {
		case v.Default || !isText || shownSettings[s.Key]:
		case s.Key == "default-plan" && b.withNames:
		default:
			// Of a URL it is told that it is one, and whether it is over TLS.
			v.Value = "[set]"
			if u, err := url.Parse(s.Value(cfg)); err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" {
				v.Value = "[" + u.Scheme + " URL]"
			}
		}
		out = append(out, v)
	}
	return append(out, bundledSetting{Key: endpointsKey, Value: fmt.Sprint(len(cfg.IssuerEndpoints)), Default: len(cfg.IssuerEndpoints) == 0})
}

// sized is what files of one kind come to.
// Bytes are of the files' lengths, not of the blocks they take.
type sized struct {
	What  string `json:"what"`
	Files int    `json:"files"`
	Bytes int64  `json:"bytes"`
}

// sizes counts by kinds that copse knows; the names of other files are somebody else's.
func sizes(cfg *Config) []sized {
	out := []sized{}
	add := func(what, pattern string) {
		found, _ := filepath.Glob(pattern) // only its own pattern can be wrong
		n := sized{What: what}
		for _, file := range found {
			if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
				n.Files, n.Bytes = n.Files+1, n.Bytes+info.Size()
			}
		}
		out = append(out, n)
	}
	// A directory's name is no pattern.
	dir := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(cfg.DataDir)
	if cfg.DataDir != "" {
		add("database", filepath.Join(dir, sqlite.FileName))
		add("write-ahead log", filepath.Join(dir, sqlite.FileName+"-wal"))
		add("decision log", filepath.Join(dir, decisionsDir, "*"))
		add("all of the data directory", filepath.Join(dir, "*"))
	}
	if cfg.BackupDir != "" {
		all, _ := (&schedule{dir: cfg.BackupDir}).list() // unreadable is a finding of the doctor's
		n := sized{What: "backups on schedule", Files: len(all)}
		for _, b := range all {
			if info, err := os.Stat(filepath.Join(cfg.BackupDir, b.name)); err == nil {
				n.Bytes += info.Size()
			}
		}
		out = append(out, n)
	}
	return out
}

// machine is what the kernel says, where it is Linux.
// None of it names another process or a user.
func machine(w io.Writer) error {
	fmt.Fprintf(w, "%s %s/%s, %d processors, %d used\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.GOMAXPROCS(0))
	if files, ok := openFileLimit(); ok {
		fmt.Fprintf(w, "open files: at most %d\n", files)
	}
	for _, file := range []string{"/proc/sys/kernel/osrelease", "/proc/uptime", "/proc/loadavg", "/proc/self/limits", "/proc/meminfo", "/proc/pressure/io", "/proc/pressure/cpu", "/proc/pressure/memory",
		"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/cpu.max"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // there is none, or not for us
		}
		if _, err := fmt.Fprintf(w, "\n== %s\n%s", file, text); err != nil {
			return err
		}
	}
	return nil
}

// bundledHead is a head without its chain and incarnation.
type bundledHead struct {
	PolicyStore string    `json:"policyStore,omitempty"` // none: the directory
	Revision    uint64    `json:"revision"`
	State       string    `json:"state"`
	CreatedAt   time.Time `json:"createdAt"`
}

// heads has the first policy stores in order of their ids.
// Their heads alone: how many there are and how much they change, and nothing of what is in them.
func (s *Server) heads(ctx context.Context) ([]bundledHead, error) {
	all, err := s.backend.Heads(ctx, "", bundleHeads)
	out := make([]bundledHead, 0, len(all))
	for _, h := range all {
		id, _ := h.Partition.PolicyStoreID()
		state := "active"
		if h.State != storage.Active {
			state = "being erased"
		}
		out = append(out, bundledHead{PolicyStore: string(id), Revision: h.Revision, State: state, CreatedAt: h.CreatedAt})
	}
	return out, err
}

// writeMetrics writes what /metrics answers.
// In the text format, whatever a scraper would have asked for.
func (s *Server) writeMetrics(w io.Writer) error {
	families, err := s.registry.Gather()
	if err != nil {
		return err
	}
	out := expfmt.NewEncoder(w, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, family := range families {
		if err := out.Encode(family); err != nil {
			return err
		}
	}
	return nil
}
