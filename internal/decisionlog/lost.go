package decisionlog

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/copse-authz/copse"
)

// Lost counts the decisions without a line that segments written to since then speak of, reading the log
// alone: what is signed is for [Verify]. What a process lost that was killed is written at the next start.
// Lines that an offboarding forbids are no loss.
func Lost(dir string, since time.Time) (count uint64, err error) {
	files, err := segments(dir)
	if err != nil {
		return 0, copse.Errorf(copse.Invalid, "decision log: %w", err)
	}
	for _, f := range slices.Backward(files) {
		if f.endsBefore(since) {
			break
		}
		_, err := f.eachLine(0, func(text []byte, _ int64) error {
			if !bytes.Contains(text, []byte(`"`+kindLost+`"`)) { // spares parsing decisions
				return nil
			}
			var line Line
			var e event
			if err := json.Unmarshal(text, &line); err != nil || len(line.Entry) == 0 {
				return err
			}
			if err := json.Unmarshal(line.Entry, &e); err == nil && e.Kind == kindLost && e.Reason != lostErased && !e.Time.Before(since) {
				count += e.Count
			}
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // it was compressed or retired meanwhile
			return count, copse.Errorf(copse.Invalid, "decision log: segment %d: %w", f.number, err)
		}
	}
	return count, nil
}

// endsBefore: nothing in the segment is as late as t.
func (f segmentFile) endsBefore(t time.Time) bool {
	info, err := os.Stat(f.path)
	return err == nil && info.ModTime().Before(t)
}
