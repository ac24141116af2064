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

// Erase takes every line of a policy store out of the log, with its salt. What stays is a number and a
// commitment, from which nothing can be guessed back. It may be repeated, and must be after an error.
func (l *Log) Erase(ctx context.Context, id copse.PolicyStoreID) error {
	if l == nil {
		return nil
	}
	l.gone.Range(func(key, at any) bool {
		if since, ok := at.(time.Time); ok && time.Since(since) > lateDecisions {
			l.gone.Delete(key)
		}
		return true
	})
	l.gone.Store(id, time.Now())
	l.flush()
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
		if err := l.eraseFrom(f, id); err != nil {
			return err
		}
	}
	return nil
}

// eraseFrom says in the log which lines of a segment are erased, and then erases them: a crash between
// the two leaves lines that are there although the log says they are not, and the repetition finds them.
func (l *Log) eraseFrom(f segmentFile, id copse.PolicyStoreID) error {
	found, numbers, count := false, sha256.New(), uint64(0)
	of, err := json.Marshal(id)
	if err != nil {
		return err
	}
	mark := append([]byte(`"policyStoreId":`), of...)
	_, err = f.eachLine(func(text []byte, _ int64) error {
		line, its, err := lineOf(text, mark, id)
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
	if err := l.note(event{Kind: kindErased, Time: now(), Segment: f.number, Lines: count, Numbers: hex.EncodeToString(numbers.Sum(nil))}); err != nil {
		return err
	}
	w := &l.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	err = rewrite(f, f.path, func(_ *Line, text []byte) []byte {
		line, its, err := lineOf(text, mark, id)
		if err != nil || !its {
			return text
		}
		var c [32]byte
		if readHash(&c, line.Commitment) != nil {
			return text
		}
		return appendLine(nil, line.N, line.Seq, c, [16]byte{}, nil)
	})
	if err != nil || w.file == nil || w.segment != f.number {
		return err
	}
	// The open segment is another file now.
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	size, err := file.Seek(0, 2)
	if err != nil {
		return err
	}
	_ = w.file.Close()
	w.file, w.size = file, size
	return nil
}

var erasedMark = []byte(`"erased":true}`)

// lineOf reads a line only if it can be one of the policy store's, or is erased. The mark stands in an entry's
// text as it was written; a line that has it elsewhere, in a resource's id, is told apart by reading it.
func lineOf(text, mark []byte, id copse.PolicyStoreID) (line Line, its bool, err error) {
	erased := bytes.HasSuffix(text, erasedMark)
	if !erased && !bytes.Contains(text, mark) {
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
	return line, d.Kind == kindDecision && d.PolicyStoreID == id, nil
}
