package decisionlog

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// counter counts decisions in a page shared with a file, which the kernel keeps when the process is
// killed. Only a machine that stops can take counts back, and then the next process says "at least".
type counter struct {
	page  []byte
	value *atomic.Uint64
	// sameBoot: the former process ran since the machine last started, or ended in good order.
	sameBoot bool
}

// The page: the count, and a mark of the boot it was counted in.
const (
	counterBytes = 128
	bootAt       = 8
	bootBytes    = 36
	cleanAt      = 64
)

func openCounter(dir string) (*counter, error) {
	f, err := os.OpenFile(filepath.Join(dir, "counter"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // the mapping outlives it
	if err := f.Truncate(counterBytes); err != nil {
		return nil, err
	}
	page, err := syscall.Mmap(int(f.Fd()), 0, counterBytes, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	c := &counter{page: page, value: (*atomic.Uint64)(unsafe.Pointer(&page[0]))} //nolint:gosec // a page is aligned, and outlives its use
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	boot = append(boot, make([]byte, bootBytes)...)[:bootBytes]
	c.sameBoot = page[cleanAt] == 1 || boot[0] != 0 && string(page[bootAt:bootAt+bootBytes]) == string(boot)
	copy(page[bootAt:], boot)
	page[cleanAt] = 0
	return c, nil
}

func (c *counter) add(n uint64) { c.value.Add(n) }

func (c *counter) get() uint64 { return c.value.Load() }

// set is for a count that is behind the lines: the file was lost, or the machine stopped.
func (c *counter) set(n uint64) { c.value.Store(n) }

func (c *counter) close() error {
	if c == nil || c.page == nil {
		return nil
	}
	c.page[cleanAt] = 1
	binary.NativeEndian.PutUint64(c.page, c.value.Load())
	page := c.page
	c.page, c.value = nil, new(atomic.Uint64)
	return errors.Join(syscall.Munmap(page))
}
