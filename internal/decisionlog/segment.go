package decisionlog

import (
	"bufio"
	"compress/gzip"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

// Names of segments: twelve digits, so that their order is that of their names, and .gz once compressed.
const (
	plainSuffix = ".jsonl"
	gzipSuffix  = ".jsonl.gz"
	// maxLine is far over what an entry can have: its longest members are bounded by requests.
	maxLine = 4 << 20
)

type segmentFile struct {
	number uint64
	path   string
}

func (f segmentFile) compressed() bool { return strings.HasSuffix(f.path, gzipSuffix) }

func segmentPath(dir string, number uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%012d%s", number, plainSuffix))
}

// segments lists a directory's segments in order. Of one that is there twice, a crash came between
// compressing it and removing the plain file: the compressed one is whole.
func segments(dir string) ([]segmentFile, error) {
	names, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []segmentFile
	for _, entry := range names { // in order of names: .jsonl before .jsonl.gz
		digits, ok := strings.CutSuffix(entry.Name(), gzipSuffix)
		if !ok {
			digits, ok = strings.CutSuffix(entry.Name(), plainSuffix)
		}
		number, err := strconv.ParseUint(digits, 10, 64)
		if !ok || err != nil || len(digits) != 12 {
			continue
		}
		f := segmentFile{number, filepath.Join(dir, entry.Name())}
		if len(out) > 0 && out[len(out)-1].number == number {
			out[len(out)-1] = f
			continue
		}
		out = append(out, f)
	}
	return out, nil
}

// eachLine calls do with every line of a segment from a byte on, and the byte it begins at. A last line
// without a newline is torn, and not a line.
func (f segmentFile) eachLine(from int64, do func(line []byte, at int64) error) (torn bool, err error) {
	file, err := os.Open(f.path)
	if err != nil {
		return false, err
	}
	defer func() { _ = file.Close() }()
	var in io.Reader = file
	if f.compressed() {
		if in, err = gzip.NewReader(bufio.NewReader(file)); err != nil {
			return false, err
		}
	} else if _, err := file.Seek(from, io.SeekStart); err != nil {
		return false, err
	}
	lines := bufio.NewReaderSize(in, 256<<10)
	var long []byte
	for at := from; ; {
		line, err := lines.ReadSlice('\n')
		if len(long)+len(line) > maxLine {
			return false, fmt.Errorf("a line has more than %d bytes", maxLine)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			long = append(long, line...)
			continue
		case errors.Is(err, io.EOF):
			return len(long)+len(line) > 0, nil
		case err != nil:
			return false, err
		}
		if long != nil {
			line = append(long, line...)
			long = nil
		}
		if err := do(line[:len(line)-1], at); err != nil {
			return false, err
		}
		at += int64(len(line))
	}
}

// position is how far the log is. A batch works on a copy, which takes the place of the writer's when its lines are in
// the file: so a batch that failed has used up no number.
type position struct {
	segment uint64
	n, seq  uint64   // of the last line: its number, and the decisions accounted for
	chain   [32]byte // after it
	size    int64    // of the segment's file
}

// writer appends to the last segment. Its position is that of whole lines in the file: a batch that could
// not be written is cut off again.
type writer struct {
	mu   sync.Mutex
	file *os.File // nil: the next batch begins a segment
	position
	opened time.Time
	head   [32]byte  // SHA-256 of the open segment's first line
	marks  []mark    // of the open segment
	dirty  bool      // there are lines after the last seal
	torn   bool      // there may be more in the file than its size says
	unsure bool      // a sync failed: the kernel may have given up on what was written before it
	tried  time.Time // when that was last to be made good
	closed bool
	owed   []event // lines of the log's own that come before the next decisions
	// Memory that batches share.
	buffer []byte
	entry  []byte
}

// mark says where a line of the open segment begins, for searches: all before it were written when it was made.
type mark struct {
	n    uint64
	at   int64
	when time.Time
}

// owe remembers decisions without a line; the next batch says so.
func (w *writer) owe(reason string, count uint64) {
	if count == 0 {
		return
	}
	for i := range w.owed {
		if w.owed[i].Kind == kindLost && w.owed[i].Reason == reason && !w.owed[i].AtLeast {
			w.owed[i].Count += count
			return
		}
	}
	w.owed = append(w.owed, event{Kind: kindLost, Time: now(), Reason: reason, Count: count})
}

// now is cut to what lines show, so that a time that was written and read back is the same.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// batch appends what is owed, the entries that are to be on disk when it returns, and the others: all or
// nothing. late of the others are of policy stores that are gone.
func (w *writer) batch(l *Log, durable, entries []Entry) (late uint64, err error) {
	if err := w.begin(l); err != nil {
		return 0, err
	}
	// All lines are made before any is written, from a copy of the position.
	to := w.position
	w.buffer = w.buffer[:0]
	for i := range w.owed {
		if w.owed[i].Kind == kindLost {
			to.seq += w.owed[i].Count
		}
		if err := w.appendEvent(&to, &w.owed[i]); err != nil {
			return 0, err
		}
	}
	before := to.seq
	for i := range durable {
		to.seq++
		w.entry = appendEntry(w.entry[:0], &durable[i])
		w.appendNumbered(&to, w.entry)
	}
	for i := range entries {
		if _, gone := l.gone.Load(entries[i].PolicyStoreID); gone {
			late++
			continue
		}
		to.seq++
		w.entry = appendEntry(w.entry[:0], &entries[i])
		w.appendNumbered(&to, w.entry)
	}
	if late > 0 {
		// They were decided while their tenant left, and nothing of him is written after that.
		to.seq += late
		if err := w.appendEvent(&to, &event{Kind: kindLost, Time: now(), Reason: lostErased, Count: late}); err != nil {
			return 0, err
		}
	}
	// The counter is told around the write, so that a kill at any point leaves a count that the lines can correct.
	l.counter.intend(before, uint64(len(durable)))
	if err := w.put(w.buffer, len(durable) > 0); err != nil {
		if !w.torn {
			l.counter.intend(0, 0)
		}
		return 0, err
	}
	l.counter.done()
	if before := w.size - int64(len(w.buffer)); before >= chunkBytes && (len(w.marks) == 0 || before-w.marks[len(w.marks)-1].at >= chunkBytes) {
		w.marks = append(w.marks, mark{w.n + 1, before, now()})
	}
	to.size = w.size
	w.position, w.dirty, w.owed = to, true, nil
	// After the lines are in the file: a copy elsewhere of what the log does not have would be another log.
	w.export(l, durable)
	w.export(l, entries)
	if cap(w.buffer) > 4<<20 { // one burst does not hold its memory for good
		w.buffer = nil
	}
	if w.size > l.cfg.SegmentBytes {
		if err := w.seal(l, true); err != nil { // the lines are there; the next batch tries again
			l.log.Error("a segment of the decision log can't be closed", "error", err)
		}
	}
	return late, nil
}

// export hands on copies, but of policy stores that leave: what is elsewhere can't be erased from here.
func (w *writer) export(l *Log, entries []Entry) {
	if l.cfg.Export == nil {
		return
	}
	for i := range entries {
		if _, gone := l.gone.Load(entries[i].PolicyStoreID); !gone {
			w.entry = appendEntry(w.entry[:0], &entries[i])
			l.cfg.Export(w.entry)
		}
	}
}

func (w *writer) appendEvent(to *position, e *event) error {
	text, err := json.Marshal(e)
	if err == nil {
		w.appendNumbered(to, text)
	}
	return err
}

// appendNumbered makes a line of an entry under the next number, with a salt of its own: equal entries have different
// commitments, and who guesses an erased entry can't try the guess.
func (w *writer) appendNumbered(to *position, entry []byte) {
	var salt [16]byte
	_, _ = rand.Read(salt[:])
	c := commitment(salt, entry)
	to.n++
	to.chain = next(to.chain, to.n, to.seq, c)
	w.buffer = append(appendLine(w.buffer, to.n, to.seq, c, salt, entry), '\n')
}

// put appends whole lines, on disk if durable says so, or leaves the file as it was.
func (w *writer) put(lines []byte, durable bool) error {
	if err := w.mend(); err != nil {
		return err
	}
	_, err := w.file.Write(lines)
	if err == nil && durable {
		err = w.file.Sync()
		w.unsure = err != nil
	}
	if err != nil {
		w.torn = true
		return errors.Join(err, w.cut())
	}
	w.size += int64(len(lines))
	return nil
}

// cut takes away what a failed put left.
func (w *writer) cut() error {
	if !w.torn {
		return nil
	}
	err := w.file.Truncate(w.size)
	w.torn = err != nil
	return err
}

// mend makes good what failed before. After a failed sync the lines are written anew, into another file:
// a second sync of the first would say that all is well, whatever became of it.
func (w *writer) mend() error {
	if err := w.cut(); err != nil || !w.unsure {
		return err
	}
	if time.Since(w.tried) < syncEvery { // it reads and writes all that is in the file
		return errors.New("a sync of the file failed, and it was not possible to write it anew")
	}
	w.tried = time.Now()
	path := w.file.Name()
	if err := rewrite(segmentFile{w.segment, path}, path, func(text []byte) []byte { return text }); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	if info, err := file.Stat(); err != nil || info.Size() != w.size {
		return errors.Join(err, file.Close(), fmt.Errorf("%s can't be read back as it was written", path))
	}
	_ = w.file.Close()
	w.file, w.unsure = file, false
	return nil
}

// begin makes the next segment when there is none. It carries the chain over in its first line, so that what is left
// after older segments retired still verifies. A crash before the first numbered line leaves a file that recover removes.
func (w *writer) begin(l *Log) error {
	if w.closed {
		return errors.New("the log is closed")
	}
	if w.file != nil {
		return nil
	}
	path := segmentPath(l.cfg.Dir, w.segment+1)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	head, err := json.Marshal(Line{Segment: w.segment + 1, After: hex.EncodeToString(w.chain[:]), First: w.n + 1, Began: now()})
	if err == nil {
		_, err = file.Write(append(head, '\n'))
	}
	if err == nil {
		err = syncDir(l.cfg.Dir)
	}
	if err != nil {
		return errors.Join(err, file.Close(), os.Remove(path))
	}
	w.file, w.opened, w.size, w.torn, w.unsure, w.marks = file, time.Now(), int64(len(head)+1), false, false, nil
	w.head = sha256.Sum256(head)
	w.segment++
	return nil
}

// seal signs what was written since the last seal, and syncs it. A closed segment takes nothing more.
func (w *writer) seal(l *Log, closed bool) error {
	if w.file == nil || !w.dirty && !closed {
		return nil
	}
	if len(w.owed) > 0 && w.owed[0].Kind == kindResumed { // it is to stand before the signature over what it speaks of
		if _, err := w.batch(l, nil, nil); err != nil || w.file == nil {
			return err
		}
	}
	s := Seal{
		Segment: w.segment, N: w.n, Seq: w.seq, Chain: hex.EncodeToString(w.chain[:]), Closed: closed,
		Head: hex.EncodeToString(w.head[:]),
	}
	s.sign(l.cfg.Key, l.cfg.KeyID)
	text, err := json.Marshal(Line{Seal: &s})
	if err != nil {
		return err
	}
	if err := w.put(append(text, '\n'), true); err != nil {
		return err
	}
	w.dirty = false
	if closed {
		err = w.file.Close()
		w.file = nil
	}
	return err
}

// close leaves the segment open: the next process goes on in it.
func (w *writer) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	return err
}

// syncDir makes names durable: a file that was synced may still be missing from its directory after a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// maintain compresses what is closed and removes what is old.
func (l *Log) maintain() {
	tick := time.NewTicker(maintainEvery)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
			if err := l.tidy(); err != nil {
				l.log.Error("segments of the decision log can't be compressed or removed", "error", err)
			}
		}
	}
}

// tidy is one round of maintain.
func (l *Log) tidy() error {
	w := &l.writer
	w.mu.Lock()
	var err error
	if w.file != nil && time.Since(w.opened) > l.cfg.SegmentAge {
		err = w.seal(l, true)
	}
	current := w.segment + 1 // the first that this round leaves alone
	if w.file != nil {
		current = w.segment
	}
	w.mu.Unlock()
	if err != nil {
		return err
	}
	l.files.Lock()
	defer l.files.Unlock()
	files, err := segments(l.cfg.Dir)
	if err != nil {
		return err
	}
	files = slices.DeleteFunc(files, func(f segmentFile) bool { return f.number >= current })
	for i, f := range files {
		if f.compressed() {
			continue
		}
		// The compressed file is whole under its name before the plain one goes; segments prefers it of the two.
		compressed := strings.TrimSuffix(f.path, plainSuffix) + gzipSuffix
		if err := rewrite(f, compressed, func(text []byte) []byte { return text }); err != nil {
			return err
		}
		if err := os.Remove(f.path); err != nil {
			return err
		}
		files[i].path = compressed
	}
	return l.retire(files)
}

// retire removes the oldest closed segments. The log says which before they go, so that one which
// disappears by itself is missed.
func (l *Log) retire(files []segmentFile) error {
	var total int64
	infos := make([]fs.FileInfo, len(files))
	for i, f := range files {
		info, err := os.Stat(f.path)
		if err != nil {
			return err
		}
		infos[i], total = info, total+info.Size()
	}
	through := 0 // a prefix: a gap in the middle would be a log that something is missing from
	for ; through < len(files); through++ {
		if total <= l.cfg.RetainBytes && time.Since(infos[through].ModTime()) <= l.cfg.RetainAge {
			break
		}
		total -= infos[through].Size()
	}
	if through == 0 {
		return nil
	}
	if err := l.note(event{Kind: kindRetired, Time: now(), Segment: files[through-1].number}); err != nil {
		return err
	}
	for _, f := range files[:through] {
		// A plain file may be left beside it.
		if err := os.Remove(segmentPath(l.cfg.Dir, f.number)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return syncDir(l.cfg.Dir)
}

// note writes an event of the log's own and has it on disk when it returns.
func (l *Log) note(e event) error {
	w := &l.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	owed := len(w.owed)
	w.owed = append(w.owed, e)
	if _, err := w.batch(l, nil, nil); err != nil {
		w.owed = w.owed[:owed]
		return err
	}
	return w.seal(l, false)
}

// rewrite replaces a segment by one with other lines, durably and at once: whoever opens it has the old lines or the
// new ones, and after a crash one of the two is there.
func rewrite(f segmentFile, to string, change func(line []byte) []byte) (err error) {
	temp := to + ".tmp"
	out, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp))
		}
	}()
	buffered := bufio.NewWriterSize(out, 256<<10)
	var target io.Writer = buffered
	var zipped *gzip.Writer
	if strings.HasSuffix(to, gzipSuffix) {
		zipped = gzip.NewWriter(buffered)
		target = zipped
	}
	_, err = f.eachLine(0, func(text []byte, _ int64) error {
		if _, err := target.Write(change(text)); err != nil {
			return err
		}
		_, err := target.Write([]byte{'\n'})
		return err
	})
	if zipped != nil && err == nil {
		err = zipped.Close()
	}
	if err == nil {
		err = buffered.Flush()
	}
	if err == nil {
		err = keepTimes(f.path, temp)
	}
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	if err = os.Rename(temp, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

// keepTimes: the age of a segment is when it was closed, not when it was compressed or erased from.
func keepTimes(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	return os.Chtimes(to, info.ModTime(), info.ModTime())
}
