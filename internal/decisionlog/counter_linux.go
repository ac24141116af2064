package decisionlog

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// counter counts decisions in a page shared with a file, which the kernel keeps when the process is
// killed. Only a machine that stops can take counts back, and then the next process says "at least".
//
// Decisions that wait for the log are counted when they are written, since until then they were not given.
// The page says what a write is about to add: whenever the process is killed, the lines that are there tell
// how much of it was done.
type counter struct {
	page   []byte
	given  *atomic.Uint64 // decisions that did not wait
	waited *atomic.Uint64 // decisions that did, and were written
	before *atomic.Uint64 // of a write: what waited was
	after  *atomic.Uint64 // what the log accounts for before those that wait
	begun  *atomic.Uint64 // and how many of them it has; 0: there is no write under way
	// sameBoot: the former process ran since the machine last started, or ended in good order.
	sameBoot bool
}

// The page: counts, and a mark of the boot they were counted in.
const (
	counterBytes = 128
	givenAt      = 0
	bootAt       = 8
	bootBytes    = 36
	cleanAt      = 64
	waitedAt     = 72
	afterAt      = 80
	begunAt      = 88
	beforeAt     = 96
)

// openCounter maps the page, and makes it when it is absent. From then on the page counts as left by a kill, until close
// says otherwise.
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
	at := func(offset int) *atomic.Uint64 {
		return (*atomic.Uint64)(unsafe.Pointer(&page[offset])) //nolint:gosec // a page is aligned, and outlives its use
	}
	c := &counter{page: page, given: at(givenAt), waited: at(waitedAt), before: at(beforeAt), after: at(afterAt), begun: at(begunAt)}
	// Without a boot id, in a sandbox, every end but a clean one is taken for one of the machine.
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	boot = append(boot, make([]byte, bootBytes)...)[:bootBytes]
	c.sameBoot = page[cleanAt] == 1 || boot[0] != 0 && string(page[bootAt:bootAt+bootBytes]) == string(boot)
	copy(page[bootAt:], boot)
	page[cleanAt] = 0
	return c, nil
}

// add counts decisions that do not wait, when they are given.
func (c *counter) add(n uint64) { c.given.Add(n) }

// intend says that a write is about to add n decisions that wait, to a log that accounts for after.
func (c *counter) intend(after, n uint64) {
	// begun is the switch: while it is 0 the other two mean nothing, so a kill between these lines finds no write under way.
	c.begun.Store(0)
	c.after.Store(after)
	c.before.Store(c.waited.Load())
	c.begun.Store(n)
}

// done: the write that was intended has happened.
func (c *counter) done() {
	if n := c.begun.Load(); n > 0 {
		c.waited.Store(c.before.Load() + n)
		c.begun.Store(0) // a kill before it counts nothing twice: resume comes to the same sum
	}
}

// resume is the count, given what the lines account for. A count that is behind them is set right: the file
// was lost, or the machine stopped.
func (c *counter) resume(seq uint64) uint64 {
	if n := c.begun.Load(); n > 0 {
		// Lines come in order, those that wait first behind "after": what the lines account for beyond it is of them.
		written := min(n, max(seq, c.after.Load())-c.after.Load())
		c.waited.Store(c.before.Load() + written)
		c.begun.Store(0)
	}
	if behind := c.given.Load() + c.waited.Load(); behind < seq {
		c.given.Add(seq - behind)
	}
	return c.given.Load() + c.waited.Load()
}

func (c *counter) close() error {
	if c == nil || c.page == nil {
		return nil
	}
	c.page[cleanAt] = 1
	page := c.page
	c.page = nil
	return syscall.Munmap(page)
}
