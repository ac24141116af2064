//go:build !linux

package decisionlog

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
)

// counter is written at the end only, where memory is not shared with files: after a kill the count is that
// of the lines, and the log says "at least".
type counter struct {
	file     string
	value    atomic.Uint64
	begun    uint64 // the writer's
	sameBoot bool
}

func openCounter(dir string) (*counter, error) {
	c := &counter{file: filepath.Join(dir, "counter")}
	text, err := os.ReadFile(c.file)
	if err == nil && len(text) == 8 {
		c.value.Store(binary.BigEndian.Uint64(text))
		c.sameBoot = true
	}
	if err := os.Remove(c.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return c, nil
}

func (c *counter) add(n uint64) { c.value.Add(n) }

// intend and done are for counts that outlive a kill; here nothing does.
func (c *counter) intend(_, n uint64) { c.begun = n }

func (c *counter) done() { c.value.Add(c.begun) }

// resume is the count, given what the lines account for.
func (c *counter) resume(seq uint64) uint64 {
	c.value.Store(max(c.value.Load(), seq))
	return c.value.Load()
}

func (c *counter) close() error {
	if c == nil {
		return nil
	}
	return os.WriteFile(c.file, binary.BigEndian.AppendUint64(nil, c.value.Load()), 0o600)
}
