package decisionlog

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"os"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
)

// lateDecisions is how long a decision that was under way when its policy store was erased may still
// come to the queue: longer than any request takes.
const lateDecisions = 10 * time.Minute

// rewriteOpen is up to which size a segment that is being written is rewritten in place. Nothing is logged
// meanwhile; a larger one is closed first.
const rewriteOpen = 1 << 20

// Hide is the first half of an erasure: from here on no search finds a line of the policy store, and none is
// written. It lasts as long as the process, and costs next to nothing.
func (l *Log) Hide(id copse.PolicyStoreID) {
	if l != nil {
		l.gone.LoadOrStore(id, time.Time{})
	}
}

// Erase takes every line of the policy stores out of the log, with its salt. What stays is a number and a
// commitment, from which nothing can be guessed back. All of the log is read for it, once for all of them.
// It may be repeated, and must be after an error.
func (l *Log) Erase(ctx context.Context, ids ...copse.PolicyStoreID) error {
	if l == nil || len(ids) == 0 {
		return nil
	}
	// Policy stores that went long ago need not be remembered: no request that was under way can still come.
	l.gone.Range(func(key, at any) bool {
		if erased, ok := at.(time.Time); ok && !erased.IsZero() && time.Since(erased) > lateDecisions {
			l.gone.Delete(key)
		}
		return true
	})
	leaving := make(map[string]bool, len(ids))
	for _, id := range ids {
		l.Hide(id)
		leaving[string(id)] = true
	}
	l.drain() // what was queued before Hide is in the files now, and erased with the rest
	l.files.Lock()
	defer l.files.Unlock()
	files, err := segments(l.cfg.Dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := l.eraseFrom(f, leaving); err != nil {
			return err
		}
	}
	for _, id := range ids {
		l.gone.Store(id, time.Now())
	}
	return nil
}

// eraseFrom says in the log which lines of a segment are erased, and then erases them: a crash between
// the two leaves lines that are there although the log says they are not, and the repetition finds them.
func (l *Log) eraseFrom(f segmentFile, leaving map[string]bool) error {
	found, numbers, count := false, sha256.New(), uint64(0)
	_, err := f.eachLine(0, func(text []byte, _ int64) error {
		line, its, err := lineOf(text, leaving)
		if err != nil || !its && !line.Erased {
			return err
		}
		found = found || its
		count++
		_, _ = numbers.Write(binary.BigEndian.AppendUint64(nil, line.N))
		return nil
	})
	if err != nil || !found {
		return err
	}
	if err := l.closeIfLarge(f); err != nil {
		return err
	}
	if err := l.note(event{Kind: kindErased, Time: now(), Segment: f.number, Lines: count, Numbers: hex.EncodeToString(numbers.Sum(nil))}); err != nil {
		return err
	}
	erase := func(text []byte) []byte {
		line, its, err := lineOf(text, leaving)
		if err != nil || !its {
			return text
		}
		var c [32]byte
		if readHash(&c, line.Commitment) != nil {
			return text
		}
		return appendLine(nil, line.N, line.Seq, c, [16]byte{}, nil)
	}
	w := &l.writer
	w.mu.Lock()
	if w.file == nil || w.segment != f.number {
		w.mu.Unlock() // closed segments are not written to
		return rewrite(f, f.path, erase)
	}
	defer w.mu.Unlock()
	if err := rewrite(f, f.path, erase); err != nil {
		return err
	}
	// The open segment is another file now. Marks of where its lines begin are of the old one.
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	size, err := file.Seek(0, 2)
	if err != nil {
		return err
	}
	_ = w.file.Close()
	w.file, w.size, w.marks = file, size, nil
	return nil
}

// closeIfLarge ends the open segment, if f is that, rather than have decisions wait for a long rewriting.
func (l *Log) closeIfLarge(f segmentFile) error {
	w := &l.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil || w.segment != f.number || w.size <= rewriteOpen {
		return nil
	}
	return w.seal(l, true)
}

// How appendLine and appendEntry write these, byte for byte: most lines are passed over without reading them as JSON.
var (
	erasedMark      = []byte(`"erased":true}`)
	policyStoreMark = []byte(`"policyStoreId":"`)
)

// lineOf reads a line only if it can be of one of the policy stores, or is erased. The mark can't stand inside
// a JSON string, but it may be a member of something else than the entry: that is told apart by reading it.
func lineOf(text []byte, leaving map[string]bool) (line Line, its bool, err error) {
	if !bytes.HasSuffix(text, erasedMark) && !mentions(text, leaving) {
		return Line{}, false, nil
	}
	if err := json.Unmarshal(text, &line); err != nil {
		return Line{}, false, err
	}
	if line.Entry == nil {
		return line, false, nil
	}
	var d Decision
	if err := json.Unmarshal(line.Entry, &d); err != nil {
		return Line{}, false, err
	}
	return line, d.Kind == kindDecision && leaving[string(d.PolicyStoreID)], nil
}

// mentions reports whether a line has the id of one of the policy stores as a member's value, anywhere.
func mentions(text []byte, leaving map[string]bool) bool {
	for {
		_, rest, found := bytes.Cut(text, policyStoreMark)
		if !found {
			return false
		}
		id, _, _ := bytes.Cut(rest, []byte(`"`))
		if leaving[string(id)] {
			return true
		}
		text = rest
	}
}
