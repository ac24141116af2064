package decisionlog

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/copse-authz/copse"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
	}
	os.Exit(m.Run())
}

func counted(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	must(t, c.Write(&m))
	return m.GetCounter().GetValue()
}

func waitingEntry(n int) Entry {
	e := *entry("careful", n)
	e.Wait = true
	return e
}

func TestWhatWaitsIsOnDiskWhenItIsAnswered(t *testing.T) {
	dir := t.TempDir()
	l := open(t, config(dir))
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			e := waitingEntry(i)
			if err := l.Record(t.Context(), []Entry{e, e}); err != nil {
				t.Error(err)
			}
			// Nobody else flushes: what is in the file now was written for this call.
			text, err := os.ReadFile(segmentPath(dir, 1))
			if n := strings.Count(string(text), fmt.Sprintf(`"requestId":"r%d"`, i)); err != nil || n != 2 {
				t.Errorf("answered, and in the file %d times: %v", n, err)
			}
		})
	}
	all.Wait()
	must(t, l.Close())
	r := verify(t, dir, "")
	wantClean(t, r)
	if r.Lines != 100 || r.Lost != 0 {
		t.Fatalf("%+v", r)
	}
}

// A disk that takes nothing: what does not wait goes on and is counted, what waits is refused. Both recover
// without a restart. The second disk takes writes, and fails to sync them.
func TestADiskThatTakesNothing(t *testing.T) {
	for _, device := range []string{"/dev/full", "/dev/null"} {
		t.Run(filepath.Base(device), func(t *testing.T) {
			dir := t.TempDir()
			l := open(t, config(dir))
			must(t, l.Record(t.Context(), []Entry{waitingEntry(0)}))
			l.writer.mu.Lock()
			good := l.writer.file
			bad, err := os.OpenFile(device, os.O_WRONLY|os.O_APPEND, 0)
			must(t, err)
			l.writer.file = bad
			l.writer.mu.Unlock()
			const tries = 3
			for i := range tries {
				// A batch of both kinds is all or nothing.
				must(t, l.Record(t.Context(), []Entry{*entry("acme", i)}))
				err := l.Record(t.Context(), []Entry{waitingEntry(100 + i)})
				if copse.KindOf(err) != copse.Unavailable {
					t.Fatalf("a decision that waits for a disk that takes nothing: %v", err)
				}
				l.drain()
			}
			if n := counted(t, l.refused.WithLabelValues(refusedDisk)); n != tries {
				t.Errorf("%v refused are counted, want %d", n, tries)
			}
			l.writer.mu.Lock()
			l.writer.file, l.writer.tried = good, time.Time{}
			l.writer.mu.Unlock()
			must(t, bad.Close())
			must(t, l.Record(t.Context(), []Entry{waitingEntry(1)}))
			lost := counted(t, l.lost.WithLabelValues(lostDisk))
			must(t, l.Close())
			r := verify(t, dir, "")
			wantClean(t, r)
			// The disk that fails to sync takes what does not wait, but for what comes with what does.
			if float64(r.Lost) != lost || device == "/dev/full" && r.Lost != tries {
				t.Errorf("%+v; the metric says %v", r, lost)
			}
			if all := contents(t, dir); strings.Contains(all, `"r10`) || !strings.Contains(all, `"r1"`) {
				t.Errorf("a refused decision is in the log, or one that was given is not: %s", all)
			}
			if l.writer.seq != 2+tries {
				t.Errorf("the log accounts for %d decisions, want %d", l.writer.seq, 2+tries)
			}
		})
	}
}

// Who gives up before the writer looks leaves no line; a queue has an end for those who wait, too.
func TestGivingUp(t *testing.T) {
	dir := t.TempDir()
	cfg := config(dir)
	cfg.Queue = 2
	l := open(t, cfg)
	l.writer.mu.Lock() // the writer is held up
	ctx, cancel := context.WithCancel(t.Context())
	given := make(chan error, 2)
	for i := range 2 {
		go func() { given <- l.Record(ctx, []Entry{waitingEntry(i)}) }()
	}
	for queued := 0; queued < 2; {
		l.mu.Lock()
		queued = l.waits
		l.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
	if err := l.Record(t.Context(), []Entry{waitingEntry(3)}); copse.KindOf(err) != copse.Unavailable {
		t.Errorf("one more than the queue takes: %v", err)
	}
	cancel()
	for range 2 {
		if err := <-given; copse.KindOf(err) != copse.Unavailable || !errors.Is(err, context.Canceled) {
			t.Errorf("gave up: %v", err)
		}
	}
	l.writer.mu.Unlock()
	must(t, l.Close())
	if r := verify(t, dir, ""); r.Lines != 0 || r.Lost != 0 {
		t.Errorf("%+v", r)
	}
}

const (
	childDir      = "COPSE_DECISIONLOG_TEST_CHILD"
	childWaiters  = 6
	childDroppers = 2
)

// child decides until it is killed, and says so of each decision when it is given.
func child(dir string) {
	cfg := config(dir)
	cfg.SegmentBytes = 20_000
	l, err := Open(cfg)
	if err != nil {
		panic(err)
	}
	var say sync.Mutex
	var next atomic.Int64
	next.Store(time.Now().UnixNano())
	for i := range childWaiters + childDroppers {
		go func() {
			for {
				n := int(next.Add(1))
				e, kind := *entry("careless", n), "dropper"
				if i < childWaiters {
					e, kind = waitingEntry(n), "waiter"
				} else {
					time.Sleep(500 * time.Microsecond)
				}
				if err := l.Record(context.Background(), []Entry{e}); err != nil {
					panic(err)
				}
				say.Lock()
				fmt.Println(kind, n)
				say.Unlock()
			}
		}()
	}
	select {}
}

// A process that is killed: every decision that waited and was given is in the log, those that did not wait
// are there or counted, and nothing is counted that was never given.
func TestAKilledProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var waiters []string
	droppers, kills := 0, 6
	for range kills {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		cmd.Stderr = t.Output()
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		said := bufio.NewScanner(out)
		for i := 0; said.Scan(); i++ {
			kind, n, _ := strings.Cut(said.Text(), " ")
			switch {
			case n == "":
				t.Fatalf("the child said %q", said.Text())
			case kind == "waiter":
				waiters = append(waiters, n)
			default:
				droppers++
			}
			if i == 300 {
				must(t, cmd.Process.Kill())
			}
		}
		_ = cmd.Wait() // "signal: killed"
	}
	l := open(t, config(dir))
	must(t, l.Close())
	r := verify(t, dir, "")
	wantClean(t, r)
	all := contents(t, dir)
	for _, n := range waiters {
		if !strings.Contains(all, `"requestId":"r`+n+`"`) {
			t.Errorf("decision %s was given and is not in the log", n)
		}
	}
	// In each life as many as there are goroutines may have been given and not said, and half a line said.
	accounted := strings.Count(all, `"policyStoreId":"careless"`) + int(r.Lost)
	if accounted < droppers || accounted > droppers+kills*(childDroppers+1) {
		t.Errorf("%d decisions were given without waiting, the log accounts for %d of them, %d as lost", droppers, accounted, r.Lost)
	}
	if r.AtLeast || len(waiters) < 20*kills || droppers < kills || r.Segments < kills {
		t.Errorf("too little happened to prove anything: %+v, %d and %d decisions", r, len(waiters), droppers)
	}
	t.Logf("%d waited, %d did not, %d of them lost, %d segments", len(waiters), droppers, r.Lost, r.Segments)
}

// A crash in mid-line: wherever the last segment ends, the log goes on from its last whole line, verifies, and
// accounts for every decision.
func TestACrashAtEveryByte(t *testing.T) {
	t.Parallel()
	// In memory where that is to be had: each of the thousands of starts syncs.
	base, err := os.MkdirTemp("/dev/shm", "copse-decisionlog-")
	if err != nil {
		base = t.TempDir()
	}
	t.Cleanup(func() { must(t, os.RemoveAll(base)) })
	from := filepath.Join(base, "from")
	l := open(t, config(from))
	record(t, l, "acme", 2)
	rotate(t, l)
	record(t, l, "acme", 1)
	l.sync()
	record(t, l, "globex", 1)
	must(t, l.Record(t.Context(), []Entry{waitingEntry(1)}))
	counter, err := os.ReadFile(filepath.Join(from, "counter")) // as a kill leaves it
	must(t, err)
	first, err := os.ReadFile(segmentPath(from, 1))
	must(t, err)
	last, err := os.ReadFile(segmentPath(from, 2))
	must(t, err)
	const decisions = 5
	for at := range len(last) + 1 {
		dir := filepath.Join(base, strconv.Itoa(at))
		must(t, os.Mkdir(dir, 0o700))
		must(t, os.WriteFile(filepath.Join(dir, "counter"), counter, 0o600))
		must(t, os.WriteFile(segmentPath(dir, 1), first, 0o600))
		must(t, os.WriteFile(segmentPath(dir, 2), last[:at], 0o600))
		again := open(t, config(dir))
		record(t, again, "acme", 1)
		must(t, again.Close())
		r := verify(t, dir, "")
		if len(r.Problems) > 0 || r.Unsigned != 0 || again.writer.seq != decisions+1 {
			t.Fatalf("cut at byte %d of %d: %+v, %d decisions accounted for, want %d", at, len(last), r, again.writer.seq, decisions+1)
		}
		must(t, os.RemoveAll(dir))
	}
}
