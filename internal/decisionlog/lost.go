package decisionlog

import (
	"bytes"
	"context"
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
// Lines that an offboarding forbids are no loss. It reads so many bytes of lines in all, of
// the newest files; whole tells whether that was enough. It ends with ctx.
func Lost(ctx context.Context, dir string, since time.Time, most int64) (count uint64, whole bool, err error) {
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
		_, err = f.eachLine(0, func(text []byte, _ int64) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if read += int64(len(text)); read > most { // counted here, because files are compressed
				return errEnough
			}
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
		if errors.Is(err, errEnough) {
			return count, false, nil
		}
		if ctx.Err() != nil {
			return count, false, ctx.Err()
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // it was compressed or retired meanwhile
			return count, false, copse.Errorf(copse.Invalid, "decision log: segment %d: %w", f.number, err)
		}
	}
	return count, true, nil
}
