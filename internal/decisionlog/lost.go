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
// Lines that an offboarding forbids are no loss. It reads files of so many bytes in all, the newest ones and one at
// least; whole tells whether that was enough.
func Lost(dir string, since time.Time, most int64) (count uint64, whole bool, err error) {
	files, err := segments(dir)
	if err != nil {
		return 0, false, copse.Errorf(copse.Invalid, "decision log: %w", err)
	}
	var read int64
	for _, f := range slices.Backward(files) {
		info, err := os.Stat(f.path)
		if err == nil && info.ModTime().Before(since) {
			break
		}
		if err == nil {
			if read += info.Size(); read > most && read > info.Size() {
				return count, false, nil
			}
		}
		_, err = f.eachLine(0, func(text []byte, _ int64) error {
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
			return count, false, copse.Errorf(copse.Invalid, "decision log: segment %d: %w", f.number, err)
		}
	}
	return count, true, nil
}
