package decisionlog

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// resumed is where a start would go on in a segment.
func resumed(t *testing.T, f segmentFile) *writer {
	t.Helper()
	l := Log{cfg: config(filepath.Dir(f.path)), log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	_, err := l.resume(f)
	must(t, err)
	must(t, l.writer.file.Close())
	return &l.writer
}

// What search shows must be what was verified: a line that is a head or a seal for one and a decision for the other
// is found, whatever is genuine in it.
func TestLinesOfTwoKindsAreFound(t *testing.T) {
	for name, find := range map[string]string{"a head": `{"segment":`, "a seal": `{"seal":`} {
		dir := filled(t)
		files, err := segments(dir)
		must(t, err)
		last := files[len(files)-1].path
		text, err := os.ReadFile(last)
		must(t, err)
		if !strings.Contains(string(text), find) {
			t.Fatalf("%s: no line begins so", name)
		}
		forged := strings.Replace(string(text), find, `{"n":12,"entry":{"kind":"decision","policyStoreId":"acme","decision":"ALLOW"},`+find[1:], 1)
		must(t, os.WriteFile(last, []byte(forged), 0o600))
		if r := verify(t, dir, ""); len(r.Problems) == 0 {
			t.Errorf("%s that is a decision as well is not found", name)
		}
	}
}

// A file is taken away, and an event behind the last seal says that it was retired: no verification believes it,
// before or after a server started on it.
func TestUnsignedEventsAreNotBelieved(t *testing.T) {
	for _, kind := range []string{kindRetired, kindErased} {
		living := filled(t)
		l := open(t, config(living))
		record(t, l, "acme", 1)
		l.drain()
		l.sync()
		dir := filepath.Join(t.TempDir(), "killed") // as the log of a process that was killed: its last file goes on
		must(t, os.CopyFS(dir, os.DirFS(living)))
		must(t, l.Close())
		files, err := segments(dir)
		must(t, err)
		last := files[len(files)-1]
		w := resumed(t, last)
		entry := []byte(`{"kind":"` + kind + `","time":"2026-01-01T00:00:00Z","segment":1}`)
		if kind == kindErased {
			line := firstNumbered(t, files[1])
			numbers := sha256.Sum256(binary.BigEndian.AppendUint64(nil, line.N))
			entry = fmt.Appendf(nil, `{"kind":"erased","time":"2026-01-01T00:00:00Z","segment":2,"lines":1,"numbers":"%x"}`, numbers)
			replaceNumbered(t, files[1], line)
		} else {
			must(t, os.Remove(files[0].path))
		}
		f, err := os.OpenFile(last.path, os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		_, err = f.Write(appendLine(nil, w.n+1, w.seq, commitment([16]byte{}, entry), [16]byte{}, entry))
		must(t, err)
		must(t, f.Close())
		if r := verify(t, dir, ""); len(r.Problems) == 0 {
			t.Errorf("%s: a verification believes it", kind)
		}
		l = open(t, config(dir))
		record(t, l, "acme", 1)
		must(t, l.Close())
		if r := verify(t, dir, ""); len(r.Problems) == 0 || r.Unsigned != 0 {
			t.Errorf("%s: a server signed it: %+v", kind, r)
		}
	}
}

func firstNumbered(t *testing.T, f segmentFile) (found Line) {
	t.Helper()
	_, err := f.eachLine(0, func(text []byte, _ int64) error {
		if found.N > 0 {
			return nil
		}
		return json.Unmarshal(text, &found)
	})
	must(t, err)
	return found
}

// replaceNumbered has a line look erased.
func replaceNumbered(t *testing.T, f segmentFile, line Line) {
	t.Helper()
	var c [32]byte
	must(t, readHash(&c, line.Commitment))
	must(t, rewrite(f, f.path, func(text []byte) []byte {
		var l Line
		if json.Unmarshal(text, &l) != nil || l.N != line.N {
			return text
		}
		return appendLine(nil, line.N, line.Seq, c, [16]byte{}, nil)
	}))
}

// killed is a copy of a living log: one segment of 8 lines, of which 5 are sealed, and then a tail that is not.
func killed(t *testing.T) (dir string) {
	t.Helper()
	living := t.TempDir()
	l := open(t, config(living))
	record(t, l, "acme", 5)
	l.drain()
	l.sync()
	l.writer.mu.Lock() // keeps the sync of every second away
	for i := range 3 {
		_, err := l.writer.batch(l, nil, []Entry{*entry("globex", i)})
		must(t, err)
	}
	dir = filepath.Join(t.TempDir(), "killed")
	must(t, os.CopyFS(dir, os.DirFS(living)))
	l.writer.mu.Unlock()
	return dir
}

// writeOwed appends the event that a start owes, and no signature.
func writeOwed(t *testing.T, dir string, w *writer) {
	t.Helper()
	to := w.position
	must(t, w.appendEvent(&to, &w.owed[0]))
	f, err := os.OpenFile(segmentPath(dir, 1), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.Write(w.buffer)
	must(t, err)
	must(t, f.Close())
}

// What a killed process left unsigned is signed by the next, which says so; a second kill counts nothing twice.
func TestUnsignedLinesAreSignedAsSuch(t *testing.T) {
	dir := killed(t)
	if r := verify(t, dir, ""); len(r.Problems) > 0 || r.Unsigned != 3 || r.Resumed != 0 {
		t.Fatalf("%+v", r)
	}
	l := open(t, config(dir))
	l.sync() // the event comes before the signature, though nothing was decided since
	must(t, l.Close())
	r := verify(t, dir, "")
	wantClean(t, r)
	if r.Unsigned != 0 || r.Resumed != 3 || r.Lines < 9 {
		t.Fatalf("%+v", r)
	}
	l = open(t, config(dir))
	record(t, l, "acme", 1)
	must(t, l.Close())
	if again := verify(t, dir, ""); len(again.Problems) > 0 || again.Resumed != 3 || again.Lines != r.Lines+1 {
		t.Fatalf("a start on a signed log: %+v", again)
	}

	dir = killed(t)
	w := resumed(t, segmentFile{1, segmentPath(dir, 1)})
	// A second process writes what it owes, and is killed before it signs.
	writeOwed(t, dir, w)
	l = open(t, config(dir))
	record(t, l, "acme", 1)
	must(t, l.Close())
	if r := verify(t, dir, ""); len(r.Problems) > 0 || r.Resumed != 4 {
		t.Fatalf("after two kills: %+v", r)
	}
}

// Whoever can write the file, and has no key, takes the signatures out of the open segment and writes its lines anew. The
// next start goes on in it, and the log says of every such line that it was not signed.
func TestAForgedTailIsCounted(t *testing.T) {
	dir := killed(t)
	path := segmentPath(dir, 1)
	text, err := os.ReadFile(path)
	must(t, err)
	forged, _, _ := bytes.Cut(text, []byte("\n"))
	forged = append(slices.Clone(forged), '\n')
	entries := appendEntry(nil, entry("acme", 1))
	var salt [16]byte
	for n := range uint64(8) {
		forged = append(appendLine(forged, n+1, n+1, commitment(salt, entries), salt, entries), '\n')
	}
	must(t, os.WriteFile(path, forged, 0o600))
	l := open(t, config(dir))
	record(t, l, "acme", 1)
	must(t, l.Close())
	if r := verify(t, dir, ""); len(r.Problems) > 0 || r.Resumed != 8 {
		t.Errorf("%+v", r)
	}
}

// The event itself is held against the lines before it.
func TestAForgedCountOfUnsignedLinesIsFound(t *testing.T) {
	dir := killed(t)
	w := resumed(t, segmentFile{1, segmentPath(dir, 1)})
	w.owed[0].Lines = 1
	writeOwed(t, dir, w)
	r := verify(t, dir, "")
	if len(r.Problems) != 1 || !strings.Contains(r.Problems[0].What, "1 lines without a signature, where there are 3") {
		t.Errorf("%v", r.Problems)
	}
}

// Searches leave out files by what their first lines say.
func TestChangedHeadsAreFound(t *testing.T) {
	for name, change := range map[string]func(*Line){
		"first": func(l *Line) { l.First++ },
		"began": func(l *Line) { l.Began = l.Began.Add(time.Hour) },
	} {
		dir := filled(t)
		files, err := segments(dir)
		must(t, err)
		for _, f := range files {
			n := 0
			must(t, rewrite(f, f.path, func(text []byte) []byte {
				if n++; n > 1 {
					return text
				}
				var head Line
				must(t, json.Unmarshal(text, &head))
				change(&head)
				out, err := json.Marshal(struct {
					Segment uint64    `json:"segment"`
					After   string    `json:"after"`
					First   uint64    `json:"first"`
					Began   time.Time `json:"began"`
				}{head.Segment, head.After, head.First, head.Began})
				must(t, err)
				return out
			}))
		}
		r := verify(t, dir, "")
		if len(r.Problems) != len(files) || !strings.Contains(r.Problems[0].What, "its first line was changed") {
			t.Errorf("%s: %v", name, r.Problems)
		}
	}
}

// A seal whose head is taken out, or put in, is not signed; seals as they were before they had one still are.
func TestSealsWithAndWithoutAHead(t *testing.T) {
	private, public := key(1)
	hash := sha256.Sum256(nil)
	with := Seal{Segment: 1, N: 2, Seq: 2, Chain: hex.EncodeToString(hash[:]), Head: hex.EncodeToString(hash[:])}
	without := with
	without.Head = ""
	with.sign(private, "k1")
	without.sign(private, "k1")
	if !with.signedBy(public) || !without.signedBy(public) {
		t.Error("is not signed")
	}
	with.Head, without.Head = "", with.Head
	if with.signedBy(public) || without.signedBy(public) {
		t.Error("one passes for the other")
	}
}

// A start on a log whose last signature is not the server's says so.
func TestAForeignSealIsNoticedAtTheStart(t *testing.T) {
	for _, forged := range []bool{false, true} {
		dir := filled(t)
		cfg := config(dir)
		if forged {
			cfg.Key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))
		}
		var said bytes.Buffer
		cfg.Log = slog.New(slog.NewTextHandler(&said, nil))
		must(t, open(t, cfg).Close())
		if strings.Contains(said.String(), "is not this server's") != forged {
			t.Errorf("forged %t: %s", forged, said.String())
		}
	}
}
