package decisionlog

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go/types"

	"github.com/copse-authz/copse"
)

func key(seed byte) (ed25519.PrivateKey, ed25519.PublicKey) {
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	public, _ := private.Public().(ed25519.PublicKey)
	return private, public
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func config(dir string) Config {
	private, public := key(1)
	return Config{Dir: dir, Key: private, KeyID: "k1", Keys: map[string]ed25519.PublicKey{"k1": public}}
}

func open(t *testing.T, cfg Config) *Log {
	t.Helper()
	l, err := Open(cfg)
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

func entry(store string, n int) *Entry {
	return &Entry{
		Time: time.Now(), RequestID: fmt.Sprintf("r%d", n), Via: "authorize",
		Tenant: copse.TenantID("tenant-" + store), PolicyStoreID: copse.PolicyStoreID(store),
		Principal: types.NewEntityUID("User", types.String("of-"+store)), Action: types.NewEntityUID("Action", "view"),
		Resource: types.NewEntityUID("Doc", types.String(fmt.Sprint(n))),
		Response: copse.Response{Decision: copse.Allow, Revision: 7, Determining: []copse.PolicyRef{{ID: "p1"}}},
	}
}

func record(t *testing.T, l *Log, store string, n int) {
	t.Helper()
	for i := range n {
		must(t, l.Record(context.Background(), []Entry{*entry(store, i)}))
	}
}

// rotate closes the open segment.
func rotate(t *testing.T, l *Log) {
	t.Helper()
	l.drain()
	l.writer.mu.Lock()
	defer l.writer.mu.Unlock()
	must(t, l.writer.seal(l, true))
}

func verify(t *testing.T, dir, head string) *Report {
	t.Helper()
	_, public := key(1)
	r, err := Verify(dir, map[string]ed25519.PublicKey{"k1": public}, head)
	must(t, err)
	return r
}

func wantClean(t *testing.T, r *Report) {
	t.Helper()
	if len(r.Problems) > 0 {
		t.Fatalf("not clean: %v", r.Problems)
	}
}

// three segments: two of them closed, one of those compressed.
func filled(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	l := open(t, config(dir))
	record(t, l, "acme", 3)
	record(t, l, "globex", 2)
	rotate(t, l)
	must(t, l.tidy())
	record(t, l, "acme", 2)
	record(t, l, "globex", 2)
	rotate(t, l)
	record(t, l, "globex", 3)
	must(t, l.Close())
	return dir
}

func TestWhatIsRecordedIsFoundAndVerifies(t *testing.T) {
	dir := filled(t)
	r := verify(t, dir, "")
	wantClean(t, r)
	if r.Segments != 3 || r.Lines != 12 || r.Lost != 0 || r.Unsigned != 0 {
		t.Fatalf("%+v", r)
	}
	l := open(t, config(dir))
	everything := func(copse.PolicyStoreID, copse.TenantID) bool { return true }
	search := func(f Filter, limit int) []Found {
		t.Helper()
		if f.May == nil {
			f.May = everything
		}
		results, err := l.Search(t.Context(), &f, limit)
		must(t, err)
		found := results.Found
		if !slices.IsSortedFunc(found, func(a, b Found) int { return int(a.N) - int(b.N) }) {
			t.Fatalf("not in order: %v", found)
		}
		return found
	}
	future := time.Now().Add(time.Hour)
	for _, c := range []struct {
		name string
		f    Filter
		want int
	}{
		{"all", Filter{}, 12},
		{"tenant", Filter{Tenant: "tenant-acme"}, 5},
		{"policy store", Filter{PolicyStoreID: "globex"}, 7},
		{"principal", Filter{Principal: []string{`User::"of-acme"`, `User::"nobody"`}}, 5},
		{"resource", Filter{Resource: []string{`Doc::"2"`}}, 2},
		{"action", Filter{Action: `Action::"edit"`}, 0},
		{"decision", Filter{Decision: "DENY"}, 0},
		{"from", Filter{From: future}, 0},
		{"to", Filter{To: future}, 12},
		{"after", Filter{After: 10}, 2},
		// What a key covers bounds what it sees, whatever it asks for.
		{"covered", Filter{May: func(_ copse.PolicyStoreID, tenant copse.TenantID) bool { return tenant == "tenant-acme" }}, 5},
		{"not covered", Filter{Tenant: "tenant-globex", May: func(_ copse.PolicyStoreID, tenant copse.TenantID) bool { return tenant == "tenant-acme" }}, 0},
	} {
		if found := search(c.f, 100); len(found) != c.want {
			t.Errorf("%s: %d found, want %d", c.name, len(found), c.want)
		}
	}
	if last := search(Filter{}, 4); len(last) != 4 || last[3].N != 12 {
		t.Errorf("the last four: %v", last)
	}
	if first := search(Filter{After: 1}, 4); len(first) != 4 || first[0].N != 2 {
		t.Errorf("the four after the first: %v", first)
	}
	d, err := search(Filter{}, 1)[0].Decision()
	must(t, err)
	if d.RequestID != "r2" || d.Tenant != "tenant-globex" || d.Decision != "ALLOW" || d.Revision != 7 || d.Layer != "tenant" || !slices.Equal(d.Determining, []string{"p1"}) {
		t.Errorf("read back: %+v", d)
	}
}

// lines of a segment, to be tampered with.
func lines(t *testing.T, dir string, segment uint64) []string {
	t.Helper()
	text, err := os.ReadFile(segmentPath(dir, segment))
	must(t, err)
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

func TestTamperingIsFoundAndNamed(t *testing.T) {
	put := func(t *testing.T, dir string, segment uint64, with []string) {
		t.Helper()
		must(t, os.WriteFile(segmentPath(dir, segment), []byte(strings.Join(with, "\n")+"\n"), 0o600))
	}
	for _, c := range []struct {
		name   string
		tamper func(t *testing.T, dir string)
		want   string
	}{
		{"an entry is changed", func(t *testing.T, dir string) {
			l := lines(t, dir, 2)
			l[1] = strings.Replace(l[1], "ALLOW", "DENY", 1)
			put(t, dir, 2, l)
		}, "segment 2, line 6: was changed"},
		{"an entry is changed together with its commitment", func(t *testing.T, dir string) {
			l := lines(t, dir, 2)
			var line Line
			must(t, json.Unmarshal([]byte(l[1]), &line))
			changed := bytes.Replace(line.Entry, []byte("ALLOW"), []byte("DENY"), 1)
			l[1] = string(appendLine(nil, line.N, line.Seq, commitment([16]byte{}, changed), [16]byte{}, changed))
			put(t, dir, 2, l)
		}, "segment 2, line 9: the seal after it is of line 9 of segment 2: lines were changed"},
		{"a line is dropped", func(t *testing.T, dir string) { put(t, dir, 2, slices.Delete(lines(t, dir, 2), 2, 3)) }, "segment 2, line 8: stands after line 6"},
		{"two lines change places", func(t *testing.T, dir string) {
			l := lines(t, dir, 2)
			l[1], l[2] = l[2], l[1]
			put(t, dir, 2, l)
		}, "segment 2, line 7: stands after line 5"},
		{"a line is called erased", func(t *testing.T, dir string) {
			l := lines(t, dir, 2)
			head, _, _ := strings.Cut(l[1], `,"salt"`)
			l[1] = head + `,"erased":true}`
			put(t, dir, 2, l)
		}, "segment 2: 1 of its lines are erased, which is not what the log says"},
		{"a segment is dropped", func(t *testing.T, dir string) { must(t, os.Remove(segmentPath(dir, 2))) }, "segment 3: the 1 segments before it are missing"},
		{"the first segment is dropped", func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "000000000001.jsonl.gz"))) }, "segment 2: the segments before it are missing, and the log does not say that they were retired"},
		{"two segments change places", func(t *testing.T, dir string) {
			second, third := lines(t, dir, 2), lines(t, dir, 3)
			put(t, dir, 2, third)
			put(t, dir, 3, second)
		}, "segment 2: calls itself segment 3"},
		{"the end of a closed segment is cut off", func(t *testing.T, dir string) {
			l := lines(t, dir, 2)
			put(t, dir, 2, l[:len(l)-1])
		}, "segment 2: its last 4 lines are not signed"},
		{"a stranger signs", func(t *testing.T, dir string) {
			l := lines(t, dir, 3)
			var line Line
			must(t, json.Unmarshal([]byte(l[len(l)-1]), &line))
			stranger, _ := key(2)
			line.Seal.sign(stranger, "k1")
			text, err := json.Marshal(map[string]any{"seal": line.Seal})
			must(t, err)
			l[len(l)-1] = string(text)
			put(t, dir, 3, l)
		}, "segment 3, line 12: the seal after it is not signed by its key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filled(t)
			wantClean(t, verify(t, dir, ""))
			c.tamper(t, dir)
			var all []string
			for _, p := range verify(t, dir, "").Problems {
				all = append(all, p.String())
			}
			if !strings.Contains(strings.Join(all, "\n"), c.want) {
				t.Fatalf("want %q, got:\n%s", c.want, strings.Join(all, "\n"))
			}
		})
	}
}

// A log that lost its last segments verifies by itself; whoever kept an earlier head finds out.
func TestACutOffEndIsFoundWithAnEarlierHead(t *testing.T) {
	dir := filled(t)
	head := verify(t, dir, "").Head
	wantClean(t, verify(t, dir, head))
	must(t, os.Remove(segmentPath(dir, 3)))
	wantClean(t, verify(t, dir, ""))
	if r := verify(t, dir, head); len(r.Problems) != 1 || !strings.Contains(r.Problems[0].What, "its end was cut off") {
		t.Fatal(r.Problems)
	}
}

// contents is every byte of the log, decompressed.
func contents(t *testing.T, dir string) string {
	t.Helper()
	files, err := segments(dir)
	must(t, err)
	var all strings.Builder
	for _, f := range files {
		_, err := f.eachLine(0, func(line []byte, _ int64) error { all.Write(line); return nil })
		must(t, err)
	}
	return all.String()
}

func TestErasureLeavesTheLogVerifying(t *testing.T) {
	dir := filled(t)
	head := verify(t, dir, "").Head
	l := open(t, config(dir))
	must(t, l.Erase(t.Context(), "acme"))
	must(t, l.Erase(t.Context(), "acme")) // as after a crash
	// A decision that was under way comes late.
	record(t, l, "acme", 1)
	record(t, l, "globex", 1)
	// A second tenant goes, out of segments that have erased lines already.
	record(t, l, "initech", 1)
	must(t, l.Erase(t.Context(), "globex", "nobody", "acme"))
	must(t, l.tidy())
	must(t, l.Close())
	if all := contents(t, dir); strings.Contains(all, "acme") || strings.Contains(all, "globex") || !strings.Contains(all, "initech") {
		t.Fatalf("left: %s", all)
	}
	r := verify(t, dir, head)
	wantClean(t, r)
	if r.Erased != 12 || r.Lost != 2 {
		t.Fatalf("%+v", r)
	}
}

func TestTheLostCounterSurvivesAKill(t *testing.T) {
	dir := t.TempDir()
	l := open(t, config(dir))
	record(t, l, "acme", 5)
	l.drain()
	// Decisions that were counted and never written, and half a line: what a SIGKILL leaves.
	l.counter.add(3)
	file, err := os.OpenFile(segmentPath(dir, 1), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = file.WriteString(`{"n":6,"seq":6,"commit`)
	must(t, err)
	must(t, file.Close())

	again := open(t, config(dir)) // shares the counter's page with l, as it would with the kernel's copy
	record(t, again, "acme", 1)
	must(t, again.Close())
	r := verify(t, dir, "")
	wantClean(t, r)
	if r.Lost != 3 || r.AtLeast || r.Lines != 8 || r.Resumed != 5 {
		t.Fatalf("%+v", r)
	}
	for since, want := range map[time.Time]uint64{{}: 3, time.Now().Add(-time.Hour): 3, time.Now().Add(time.Hour): 0} {
		if n, whole, err := Lost(t.Context(), dir, since, 1<<20); err != nil || n != want || !whole {
			t.Errorf("lost since %v: %d, %v; want %d", since, n, err, want)
		}
	}
	if n, whole, err := Lost(t.Context(), dir, time.Time{}, 10); err != nil || n != 0 || whole {
		t.Errorf("of ten bytes: %d, %t, %v", n, whole, err)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, _, err := Lost(gone, dir, time.Time{}, 1<<20); !errors.Is(err, context.Canceled) {
		t.Errorf("for nobody: %v", err)
	}
	if again.writer.seq != 9 {
		t.Fatalf("the log accounts for %d decisions, want 9", again.writer.seq)
	}
}

func TestAFullQueueDropsAndCounts(t *testing.T) {
	dir := t.TempDir()
	cfg := config(dir)
	cfg.Queue = 4
	l := open(t, cfg)
	l.writer.mu.Lock() // the writer is held up
	const decisions = 1000
	for i := range decisions {
		must(t, l.Record(t.Context(), []Entry{*entry("acme", i)}))
	}
	l.writer.mu.Unlock()
	must(t, l.Close())
	r := verify(t, dir, "")
	wantClean(t, r)
	if r.Lost < decisions-20 || l.writer.seq != decisions {
		t.Fatalf("lost %d, accounted for %d", r.Lost, l.writer.seq)
	}
}

func TestRetentionIsWrittenDown(t *testing.T) {
	dir := filled(t)
	cfg := config(dir)
	cfg.RetainBytes = 1
	l := open(t, cfg)
	must(t, l.tidy())
	must(t, l.Close())
	r := verify(t, dir, "")
	wantClean(t, r)
	if r.Segments != 1 {
		t.Fatalf("%+v", r)
	}
}

func TestSegmentsRotateAndGoByAge(t *testing.T) {
	dir := t.TempDir()
	l := open(t, config(dir))
	record(t, l, "acme", 1)
	l.drain()
	must(t, l.tidy())
	if _, err := os.Stat(segmentPath(dir, 1)); err != nil {
		t.Fatalf("a young segment is closed: %v", err)
	}
	l.writer.mu.Lock()
	l.writer.opened = time.Now().Add(-DefaultSegmentAge - time.Second)
	l.writer.mu.Unlock()
	must(t, l.tidy())
	closed := filepath.Join(dir, "000000000001.jsonl.gz")
	if _, err := os.Stat(closed); err != nil {
		t.Fatalf("an old one is not closed and compressed: %v", err)
	}
	old := time.Now().Add(-DefaultRetainAge - time.Second)
	must(t, os.Chtimes(closed, old, old))
	record(t, l, "acme", 1)
	must(t, l.tidy())
	if _, err := os.Stat(closed); !os.IsNotExist(err) {
		t.Fatalf("one that was closed too long ago stays: %v", err)
	}
	must(t, l.Close())
	wantClean(t, verify(t, dir, ""))
}

// A collector that takes nothing costs copies, which are counted, and neither the log nor the end of the server.
func TestAnExportThatFailsIsCounted(t *testing.T) {
	x, err := NewExport(ExportConfig{Collector: "http://127.0.0.1:1"})
	must(t, err)
	x.send = func([][]byte) error { return errors.New("is away") }
	for range 5 * exportBatch {
		x.Write([]byte(`{}`))
	}
	must(t, x.Close())
	if n := counted(t, x.lost); n != 5*exportBatch {
		t.Errorf("%v are counted, want %d", n, 5*exportBatch)
	}
}

func TestSegmentsRotateBySize(t *testing.T) {
	dir := t.TempDir()
	cfg := config(dir)
	cfg.SegmentBytes = 2000
	l := open(t, cfg)
	for range 5 {
		record(t, l, "acme", 5)
		l.drain()
	}
	must(t, l.Close())
	r := verify(t, dir, "")
	wantClean(t, r)
	if r.Segments != 5 || r.Lines != 25 {
		t.Fatalf("%+v", r)
	}
}

func TestExports(t *testing.T) {
	bodies := make(chan string, 100)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path != "/v1/logs" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		bodies <- string(body)
	}))
	defer collector.Close()
	file := filepath.Join(t.TempDir(), "copy.jsonl")
	var out bytes.Buffer
	for name, cfg := range map[string]ExportConfig{"file": {File: file}, "writer": {Writer: &out}, "otlp": {Collector: collector.URL}} {
		x, err := NewExport(cfg)
		must(t, err)
		c := config(t.TempDir())
		c.Export = x.Write
		l := open(t, c)
		record(t, l, "acme", 3)
		must(t, l.Close())
		must(t, x.Close())
		var got string
		switch name {
		case "file":
			text, err := os.ReadFile(file)
			must(t, err)
			got = string(text)
		case "writer":
			got = out.String()
		case "otlp":
			close(bodies)
			for b := range bodies {
				got += b
			}
			if strings.Count(got, `"severityText":"INFO"`) != 3 || !strings.Contains(got, `{"key":"copse.tenant","value":{"stringValue":"tenant-acme"}}`) {
				t.Errorf("the collector got %s", got)
			}
			continue
		}
		if strings.Count(got, `{"kind":"decision"`) != 3 || strings.Count(got, "\n") != 3 {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestRecordAllocatesNothing(t *testing.T) {
	cfg := config(t.TempDir())
	cfg.Queue = 1 << 20
	l := open(t, cfg)
	e := []Entry{*entry("acme", 1)}
	l.mu.Lock()
	l.queue, l.spare = make([]Entry, 0, 10000), make([]Entry, 0, 10000)
	l.mu.Unlock()
	l.writer.mu.Lock() // the writer's own work is not what is measured
	defer l.writer.mu.Unlock()
	if n := testing.AllocsPerRun(1000, func() { _ = l.Record(context.Background(), e) }); n > 0 {
		t.Errorf("%v allocations per decision", n)
	}
}

// What is refused may hold a password, and start-up errors are logged.
func TestARefusedCollectorIsNotQuoted(t *testing.T) {
	for _, collector := range []string{"https://me:canary@collector.example.com", "canary", "http://%zz-canary", "ftp://canary"} {
		_, err := NewExport(ExportConfig{Collector: collector})
		if copse.KindOf(err) != copse.Invalid || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", collector, err)
		}
	}
}

// Of a log that is larger than may be read, the newest files are.
func TestLostReadsNoMoreThanItMay(t *testing.T) {
	dir := filled(t)
	counts := map[bool]int{}
	for most := int64(0); most < 10_000; most += 50 {
		_, whole, err := Lost(t.Context(), dir, time.Time{}, most)
		must(t, err)
		counts[whole]++
	}
	if counts[false] < 20 || counts[true] < 20 {
		t.Errorf("the whole log was read or not: %v", counts)
	}
}
