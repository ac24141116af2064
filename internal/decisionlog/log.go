// Package decisionlog keeps a line for every decision, in files that only grow: who asked for what, in
// which policy store at which revision, and what was answered.
//
// The path of a decision only hands a small struct to a queue; a writer takes what has gathered, at most
// [drainEvery] later. What does not fit is counted and not written. An entry that says Wait is on disk when
// Record returns, together with all others that came meanwhile: one sync for many. If it can't be, Record
// says so, and the decision is not given.
//
// The counter of what was lost is true whatever happens to the process. Every decision is counted in a
// page of memory that is also a file, which outlives a kill; every line carries how many decisions the log
// accounts for. The difference, found at the next start, is written into the log as a line of its own.
//
// Lines are chained over salted commitments, and the chain is signed at every sync. Taking a line and its
// salt away, when a tenant leaves, therefore breaks nothing that [Verify] checks, and taking one away in
// any other manner does. It is not in storage: a policy store's data must not grow with its traffic.
package decisionlog

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"maps"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cedar-policy/cedar-go/types"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
)

// Entry is one decision. Nothing in it may alias memory that is used again.
type Entry struct {
	Time      time.Time
	RequestID string
	Via       string // the endpoint or operation: "authorize", "gateway", "IsAuthorized"
	Key       string // id of the access key, where one decided who may ask

	Tenant        copse.TenantID // empty for a policy store of the operator's own
	PolicyStoreID copse.PolicyStoreID
	Incarnation   copse.Incarnation

	Principal, Action, Resource types.EntityUID
	// What rules keep of the request: JSON objects, or nil.
	Context, PrincipalAttributes, ResourceAttributes []byte

	Response copse.Response
	Latency  time.Duration

	// Wait: the decision must not be given before its line is on disk.
	Wait bool
	// Request is for whoever applies the rules, before Record; the log keeps nothing of it.
	Request *copse.Request
}

// Config is what a Log is made of. The zero values of numbers and durations are the defaults.
type Config struct {
	Dir string
	// Key signs. KeyID names its public half for those who verify.
	Key          ed25519.PrivateKey
	KeyID        string
	Keys         map[string]ed25519.PublicKey // of all that ever signed, for those who verify
	SegmentBytes int64                        // a segment is closed when it is larger
	SegmentAge   time.Duration                // or older
	RetainBytes  int64                        // the oldest closed segments go when all are larger than this together
	RetainAge    time.Duration                // or when they were closed longer ago
	Queue        int                          // decisions that may stand in a queue, of each kind

	// Export is given every line's entry as it is written, JSON without the newline. It must not block.
	Export  func(entry []byte)
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Defaults, and how often the writer looks.
const (
	DefaultSegmentBytes = 64 << 20
	DefaultSegmentAge   = time.Hour
	DefaultRetainBytes  = 10 << 30
	DefaultRetainAge    = 90 * 24 * time.Hour
	DefaultQueue        = 16 << 10

	drainEvery    = 50 * time.Millisecond
	syncEvery     = time.Second // what a power cut can take
	maintainEvery = 5 * time.Second
	recordTimeout = 5 * time.Second // the longest wait for the disk
)

// Why decisions were lost.
const (
	lostQueue = "queue full"
	lostDisk  = "disk"
	lostCrash = "crash"
	// No loss: of decisions that were given while their tenant left, nothing may be written.
	lostErased = "erased"
)

// Log takes decisions and writes them.
type Log struct {
	cfg     Config
	log     *slog.Logger
	counter *counter

	mu      sync.Mutex    // of the queues; writer.mu comes before it
	queue   []Entry       // of decisions that do not wait
	spare   []Entry       // the memory of the queue before, so that a decision allocates nothing here
	missed  uint64        // dropped since the writer last looked
	waiting []*waiting    // calls of Record that wait for the disk
	waits   int           // entries in waiting
	wake    chan struct{} // has the writer look before its time
	ended   bool          // Close was called: nothing is taken any more

	failing atomic.Bool // the disk does not take lines
	gone    sync.Map    // policy stores that were erased, and when: their late decisions leave no line

	files     sync.Mutex      // held while closed segments are replaced or removed
	heads     map[uint64]Line // first lines of segments, by number, so that a search opens only what it reads
	searching chan struct{}   // holds a token for each search under way
	budget    int64           // of a search: searchBytes
	writer    writer

	lost    *prometheus.CounterVec
	refused *prometheus.CounterVec
	written prometheus.Counter

	stop chan struct{}
	work sync.WaitGroup
}

// Open continues the log in a directory, which is made with the first line. What a former process lost is
// the first thing written.
func Open(cfg Config) (*Log, error) {
	// Without a key nothing could be sealed, and a log that nobody can verify is not what was asked for.
	if len(cfg.Key) != ed25519.PrivateKeySize || cfg.Dir == "" || cfg.KeyID == "" {
		return nil, errors.New("decisionlog: Dir, Key and KeyID are required")
	}
	cfg.SegmentBytes = cmp.Or(cfg.SegmentBytes, DefaultSegmentBytes)
	cfg.SegmentAge = cmp.Or(cfg.SegmentAge, DefaultSegmentAge)
	cfg.RetainBytes = cmp.Or(cfg.RetainBytes, DefaultRetainBytes)
	cfg.RetainAge = cmp.Or(cfg.RetainAge, DefaultRetainAge)
	cfg.Queue = cmp.Or(cfg.Queue, DefaultQueue)
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	l := &Log{
		cfg: cfg, log: cfg.Log, wake: make(chan struct{}, 1), searching: make(chan struct{}, searches), budget: searchBytes, stop: make(chan struct{}),
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "copse_decision_log_lost_total",
			Help: "Decisions that have no line in the decision log, by reason."}, []string{"reason"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "copse_decision_log_refused_total",
			Help: "Decisions that were not given because they could not be logged, by reason."}, []string{"reason"}),
		written: prometheus.NewCounter(prometheus.CounterOpts{Name: "copse_decision_log_lines_total",
			Help: "Decisions written to the decision log."}),
	}
	for _, reason := range []string{lostQueue, lostDisk, lostCrash} {
		l.lost.WithLabelValues(reason) // an alert can only watch what is there before anything is lost
	}
	for _, reason := range []string{refusedQueue, refusedDisk, refusedSlow} {
		l.refused.WithLabelValues(reason)
	}
	if cfg.Metrics != nil {
		if err := errors.Join(cfg.Metrics.Register(l.lost), cfg.Metrics.Register(l.refused), cfg.Metrics.Register(l.written)); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, copse.Errorf(copse.Invalid, "decision log: %w", err)
	}
	if err := l.recover(); err != nil {
		return nil, err
	}
	l.work.Go(l.write)
	l.work.Go(l.maintain)
	return l, nil
}

// Close writes and signs what is queued, and ends the log. A second call does nothing. What is recorded after it is
// not written, and refused if it says Wait: whoever serves decisions ends that first.
func (l *Log) Close() error {
	l.mu.Lock()
	ended := l.ended
	l.ended = true
	l.mu.Unlock()
	if ended {
		return nil
	}
	close(l.stop)
	l.work.Wait()
	return errors.Join(l.writer.close(), l.counter.close())
}

// Record takes decisions before they are answered. An error means that they must not be given: one of them
// says Wait, and they can't all be put on disk. Without one that says Wait there is no error, and no waiting but
// for a lock that is held for the time of a copy. It keeps no entry's Request. A nil Log takes everything and keeps nothing.
func (l *Log) Record(ctx context.Context, entries []Entry) error {
	if l == nil || len(entries) == 0 {
		return nil
	}
	for i := range entries {
		if entries[i].Wait { // those of one call are answered together, so all of them wait
			return l.recordDurably(ctx, entries)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil // nothing is served any more
	}
	// Counted before they are queued: a process that is killed in between has lost them, and the count says so.
	l.counter.add(uint64(len(entries)))
	for i := range entries {
		if len(l.queue) >= l.cfg.Queue {
			l.missed++
			continue
		}
		l.queue = append(l.queue, entries[i])
		l.queue[len(l.queue)-1].Request = nil
		if len(l.queue) == l.cfg.Queue/2 {
			l.wakeUp()
		}
	}
	return nil
}

// wakeUp has the writer look now. It never blocks: one that was woken already takes all there is.
func (l *Log) wakeUp() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// giveBack keeps the memory of what take handed out, without what it points to.
func (l *Log) giveBack(entries []Entry) {
	clear(entries)
	l.mu.Lock()
	l.spare = entries[:0]
	l.mu.Unlock()
}

// write is the goroutine that appends what decisions left. Erasures and retention append too, under writer.mu.
func (l *Log) write() {
	drain, sync := time.NewTicker(drainEvery), time.NewTicker(syncEvery)
	defer drain.Stop()
	defer sync.Stop()
	for {
		select {
		case <-l.stop:
			l.drain()
			l.sync()
			return
		case <-drain.C:
			l.drain()
		case <-l.wake:
			l.drain()
		case <-sync.C:
			l.drain()
			l.sync()
		}
	}
}

// drain writes what is queued: all that was handed over before. Nothing it could not write is kept: the next
// attempt says how much it was.
func (l *Log) drain() {
	w := &l.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	t := l.take() // with the writer held: what was handed over before a drain is written when it returns
	defer l.giveBack(t.entries)
	if t.missed > 0 {
		l.lost.WithLabelValues(lostQueue).Add(float64(t.missed))
		w.owe(lostQueue, t.missed)
	}
	durable := t.claim(l)
	if len(t.entries) == 0 && len(durable) == 0 && len(w.owed) == 0 {
		return
	}
	late, err := w.batch(l, durable, t.entries)
	t.answer(err)
	if err != nil {
		if !l.failing.Swap(true) { // once, not twenty times a second while the disk is full
			l.log.Error("the decision log can't be written; decisions that need no record go on, and are counted, the others are refused", "error", err)
		}
		l.lost.WithLabelValues(lostDisk).Add(float64(len(t.entries)))
		w.owe(lostDisk, uint64(len(t.entries)))
		return
	}
	l.written.Add(float64(uint64(len(t.entries)+len(durable)) - late))
	if l.failing.Swap(false) {
		l.log.Info("the decision log is written again")
	}
}

// sync signs what was written since the last time, and has the disk confirm it. What fails is tried again a second later.
func (l *Log) sync() {
	l.writer.mu.Lock()
	defer l.writer.mu.Unlock()
	if err := l.writer.seal(l, false); err != nil {
		l.failing.Store(true)
		l.log.Error("the decision log can't be synced", "error", err)
	} else if len(l.writer.owed) == 0 {
		l.failing.Store(false)
	}
}

// Keys are the public halves of the keys that sign and have signed, by id.
func (l *Log) Keys() map[string]ed25519.PublicKey {
	if l == nil {
		return nil
	}
	return maps.Clone(l.cfg.Keys)
}
