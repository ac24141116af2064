package decisionlog

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
)

// recover finds where a former process stopped, cuts off what it wrote by half, and owes a line for what it wrote
// and did not sign, and one for the decisions that it counted and did not write.
func (l *Log) recover() error {
	w := &l.writer
	files, err := segments(l.cfg.Dir)
	if err != nil {
		return copse.Errorf(copse.Invalid, "decision log: %w", err)
	}
	if l.counter, err = openCounter(l.cfg.Dir); err != nil {
		return copse.Errorf(copse.Invalid, "decision log: %w", err)
	}
	for len(files) > 0 {
		last := files[len(files)-1]
		whole, err := l.resume(last)
		if err == nil && !whole { // the process ended before the first line: what came before is in the segment before
			err = os.Remove(last.path)
			files = files[:len(files)-1]
		}
		if err != nil {
			return errors.Join(copse.Errorf(copse.Invalid, "decision log: %s: %w; move the directory away to begin a new log", last.path, err), l.counter.close())
		}
		if whole {
			break
		}
	}
	// What was counted and has no line is lost. When the machine stopped, the counter's page may be older than the lines
	// too, so the number is a least one.
	counted := l.counter.resume(w.seq)
	switch {
	case counted > w.seq:
		l.lost.WithLabelValues(lostCrash).Add(float64(counted - w.seq))
		w.owed = append(w.owed, event{Kind: kindLost, Time: now(), Reason: lostCrash, Count: counted - w.seq, AtLeast: !l.counter.sameBoot})
	case !l.counter.sameBoot && len(files) > 0:
		w.owed = append(w.owed, event{Kind: kindLost, Time: now(), Reason: lostCrash, AtLeast: true})
	}
	return nil
}

var sealMark = []byte(`{"seal":`)

// resume takes the position from the last segment, and goes on in it if it is not closed. It is not whole
// without a line after its head. Only the end is read as JSON: a seal says all that is before it.
func (l *Log) resume(f segmentFile) (whole bool, err error) {
	w := &l.writer
	sealed := int64(0)
	_, err = f.eachLine(0, func(text []byte, at int64) error {
		if at == 0 {
			w.head = sha256.Sum256(text)
		}
		if bytes.HasPrefix(text, sealMark) {
			sealed = at
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	closed, cut, good, unsealed := false, false, int64(0), uint64(0)
	w.segment, w.dirty = f.number, false
	_, err = f.eachLine(0, func(text []byte, at int64) error {
		if at < sealed || cut {
			return nil
		}
		var line Line
		if err := json.Unmarshal(text, &line); err != nil {
			return fmt.Errorf("byte %d: %w", at, err)
		}
		// An event that says what is gone is signed before it is so. Without a seal nothing has come of it, unless
		// somebody else wrote it to have this server sign it: it is left out, and repeated if it was meant.
		if cut = line.Seal == nil && saysWhatIsGone(line.Entry); cut {
			return nil
		}
		good = at + int64(len(text)) + 1
		whole = whole || line.Seal != nil || line.N > 0
		switch {
		case line.Seal != nil:
			// Verify names it wherever it stands; whoever starts the server may hear of it at once.
			if line.Seal.Key == l.cfg.KeyID && !line.Seal.signedBy(l.cfg.Key.Public().(ed25519.PublicKey)) {
				l.log.Error("the last signature in the decision log is not this server's, although it says so: somebody else wrote it, or the disk changed it", "segment", f.number, "line", line.Seal.N)
			}
			closed, w.dirty = line.Seal.Closed, false
			w.n, w.seq = line.Seal.N, line.Seal.Seq
			return readHash(&w.chain, line.Seal.Chain)
		case line.N > 0:
			var c [32]byte
			if err := readHash(&c, line.Commitment); err != nil {
				return err
			}
			w.n, w.seq, w.dirty = line.N, line.Seq, true
			unsealed++
			w.chain = next(w.chain, line.N, line.Seq, c)
			return nil
		}
		return readHash(&w.chain, line.After)
	})
	if err != nil || closed || !whole {
		return whole, err // behind a closed segment the next batch begins another
	}
	if w.file, err = os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND, 0); err != nil {
		return true, err
	}
	w.size, w.opened = good, time.Now()
	if unsealed > 0 {
		w.owed = append(w.owed, event{Kind: kindResumed, Time: now(), Lines: unsealed})
	}
	return true, w.file.Truncate(good)
}

// saysWhatIsGone tells events that a verification takes for a reason why something is missing.
func saysWhatIsGone(entry []byte) bool {
	var e event
	return json.Unmarshal(entry, &e) == nil && (e.Kind == kindErased || e.Kind == kindRetired)
}

// readHash takes 32 bytes in hexadecimal, and leaves into alone when they are not.
func readHash(into *[32]byte, text string) error {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(into) {
		return fmt.Errorf("%q is not a hash", text)
	}
	copy(into[:], raw)
	return nil
}
