package sqlite

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/copse-authz/copse/internal/storage"
)

const (
	// groupSize bounds the jobs that share a transaction and its fsync. The queue holds as many: a submitter
	// beyond that waits, and its context counts.
	groupSize = 64
	// Housekeeping begins every so often, and goes on in bounded steps between groups.
	trimEvery = time.Minute
	trimRows  = 1000
	// What was forgotten leaves the file when there is nothing else to do for so long.
	tidyAfter = 50 * time.Millisecond
)

// job is one mutation on its way through the writer.
type job struct {
	// apply makes the change within a savepoint and returns what followers are to be told. It may be
	// called again, after everything was undone.
	apply func(w *writer, now time.Time) ([]storage.Change, error)

	state    atomic.Int32 // waiting, then taken or abandoned
	changes  []storage.Change
	truncate bool // the log is to be emptied before the answer
	tidy     bool // the log is to be emptied, soon after it
	err      error
	done     chan struct{}
}

// The states of a job decide a race between the writer, which takes it, and its submitter, whose context
// ends. Whoever leaves waiting first wins, so that a job is either carried out and waited for, or never begun.
const (
	waiting int32 = iota
	taken
	abandoned
)

// writer owns the connection that writes. All but queue and stopped belong to its goroutine.
type writer struct {
	backend *Backend
	conn    *conn
	queue   chan *job
	stopped chan struct{}
	stmts   writeStmts

	counters counters // as of the last COMMIT
	next     counters // as of the last savepoint kept

	trimRows   int64 // one step of trimming
	sweepPages int64 // a file of so many is rewritten after an erasure
	trimming   bool  // feed rows may be past their retention
	truncating bool  // the log is to be emptied
	untidy     bool  // the log is to be emptied in a quiet moment
	remnants   bool  // unused parts of pages may hold what was erased
}

// counters of the file-wide sequences.
// The last numbers given out, whether or not their rows are still there: Feed promises that none comes
// twice, and the audit chain goes on from its last row without reading it.
type counters struct {
	feedSeq    uint64
	auditSeq   uint64
	auditChain [32]byte
}

// writeStmts are prepared once, when the file is opened. The writer's goroutine alone uses them.
type writeStmts struct {
	begin, commit, rollback, savepoint, release, rollbackTo         *stmt
	head, version, counters                                         *stmt
	upsertHead, upsertItem, deleteItem, history, feed, audit, count *stmt
	eraseItems, eraseHistory, eraseFeed, eraseHead                  *stmt
	forget, trim, checkpoint, vacuum                                *stmt
}

// openWriter opens the connection that writes, makes the file ready (see [Backend.prepareFile]) and starts no
// goroutine: after an error there is nothing to stop. busy_timeout bounds the wait for a reader that is in
// the way of a truncation. temp_store keeps rows out of temporary files, trusted_schema a tampered file's schema
// from functions with side effects.
func openWriter(b *Backend, path string, f format) (*writer, error) {
	c, err := openConn(path, nil, "busy_timeout = 1000", "synchronous = FULL", "secure_delete = ON",
		"cell_size_check = ON", "trusted_schema = OFF", "temp_store = MEMORY", "cache_size = -32768",
		"wal_autocheckpoint = 4000", "journal_size_limit = 67108864")
	if err != nil {
		return nil, err
	}
	w := &writer{backend: b, conn: c, queue: make(chan *job, groupSize), stopped: make(chan struct{}), trimRows: trimRows, sweepPages: sweepPages}
	if err := w.prepare(f); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return w, nil
}

// prepare looks at the file before any statement is prepared: those need tables of the newest format.
func (w *writer) prepare(f format) error {
	if err := w.backend.prepareFile(w.conn, f); err != nil {
		return err
	}
	s := &w.stmts
	for _, p := range []struct {
		to   **stmt
		text string
	}{
		{&s.begin, "BEGIN IMMEDIATE"}, {&s.commit, "COMMIT"}, {&s.rollback, "ROLLBACK"},
		{&s.savepoint, "SAVEPOINT mutation"}, {&s.release, "RELEASE mutation"}, {&s.rollbackTo, "ROLLBACK TO mutation"},
		{&s.head, selectHead}, {&s.version, selectVersion}, {&s.counters, selectCounter},
		{&s.upsertHead, upsertHead}, {&s.upsertItem, upsertItem}, {&s.deleteItem, deleteItem},
		{&s.history, insertHistory}, {&s.feed, insertFeed}, {&s.audit, insertAudit}, {&s.count, updateCounter},
		{&s.eraseItems, eraseItems}, {&s.eraseHistory, eraseHistory}, {&s.eraseFeed, eraseFeed}, {&s.eraseHead, eraseHead},
		{&s.forget, forgetRows}, {&s.trim, trimFeed}, {&s.checkpoint, "PRAGMA wal_checkpoint(TRUNCATE)"}, {&s.vacuum, "VACUUM"},
	} {
		var err error
		if *p.to, err = w.conn.prepare(p.text); err != nil {
			return err
		}
	}
	return w.readCounters()
}

// readCounters takes them from the file, at the start and after anything went wrong.
func (w *writer) readCounters() error {
	ok, err := w.stmts.counters.one(func(r *row) error {
		w.counters.feedSeq, w.counters.auditSeq = r.number(), r.number()
		r.fixed(w.counters.auditChain[:])
		return r.err
	})
	if !ok && err == nil {
		err = corruptf("no counters")
	}
	w.next = w.counters
	return err
}

// submit queues a job and waits for its outcome. ctx counts until the writer takes it.
// An error of ctx therefore means that nothing was done. Close waits for every submit, which is why the queue
// is not closed while one may still send to it.
func (b *Backend) submit(ctx context.Context, j *job) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.enter(); err != nil {
		return err
	}
	defer b.leave()
	if b.writer == nil {
		return fmt.Errorf("%w: it was opened to be read", ErrNotWritable)
	}
	j.done = make(chan struct{})
	select {
	case b.writer.queue <- j:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-j.done:
	case <-ctx.Done():
		if j.state.CompareAndSwap(waiting, abandoned) {
			return ctx.Err()
		}
		// The writer has it, and will answer: what happened is known only then.
		<-j.done
	}
	return j.err
}

// run is the writer's goroutine.
// It ends when the queue is closed and empty.
func (w *writer) run() {
	defer close(w.stopped)
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		if w.trimming {
			// Mutations go first; a step of trimming follows each group, and idle time is used up.
			select {
			case j, open := <-w.queue:
				if !open {
					return
				}
				w.group(j)
			default:
			}
			w.trim()
			continue
		}
		var quiet <-chan time.Time
		if w.untidy || w.truncating || w.remnants { // truncating: a reader was in the way
			quiet = time.After(tidyAfter)
		}
		select {
		case j, open := <-w.queue:
			if !open {
				return
			}
			w.group(j)
		case <-quiet:
			w.sweep()
			w.empty()
		case <-tick.C:
			w.trimming = true
			if w.truncating || w.untidy { // no moment was quiet
				w.empty()
			}
		}
	}
}

// group carries out first and what else is waiting, as one transaction.
// It does not wait for more to come: a writer alone pays no delay, and under load the queue fills while the
// group before it is being written.
func (w *writer) group(first *job) {
	var jobs []*job
	// A job whose submitter has gone is left out, here and for good.
	take := func(j *job) {
		if j.state.CompareAndSwap(waiting, taken) {
			jobs = append(jobs, j)
		}
	}
	take(first)
	for more := true; more && len(jobs) < groupSize; {
		select {
		case j, open := <-w.queue:
			if more = open; open {
				take(j)
			}
		default:
			more = false
		}
	}
	if len(jobs) == 0 {
		return
	}
	if err := w.transact(jobs); err != nil && len(jobs) == 1 {
		jobs[0].err = err
	} else if err != nil {
		// Nothing of the group is done. Alone, only those fail that can't be helped.
		for _, j := range jobs {
			if err := w.transact([]*job{j}); err != nil {
				j.err = err
			}
		}
	}
	w.finish(jobs)
}

// finish answers. Jobs that want the log emptied come last, so that nobody else waits for that.
func (w *writer) finish(jobs []*job) {
	for _, j := range jobs {
		w.untidy = w.untidy || j.tidy
		w.remnants = w.remnants || j.tidy || j.truncate
		if w.truncating = w.truncating || j.truncate; !j.truncate {
			close(j.done)
		}
	}
	if w.truncating {
		w.empty()
	}
	for _, j := range jobs {
		if j.truncate {
			close(j.done)
		}
	}
}

// transact applies jobs in one transaction, commits, and tells followers. A refusal is the job's own
// error; any other failure undoes the whole transaction and is returned.
func (w *writer) transact(jobs []*job) (err error) {
	if _, err := w.stmts.begin.exec(); err != nil {
		return w.backend.translate(err)
	}
	defer func() {
		if err != nil {
			err = w.undo(w.backend.translate(err))
		}
	}()
	// One time for the whole group, without the monotonic reading: as it will be read back.
	now := time.Unix(0, time.Now().UnixNano()).UTC()
	w.next = w.counters
	for _, j := range jobs {
		before := w.next
		if _, err := w.stmts.savepoint.exec(); err != nil {
			return err
		}
		j.changes, j.truncate, j.tidy = nil, false, false
		if j.changes, j.err = w.apply(j, now); j.err != nil {
			if !refused(j.err) {
				return j.err
			}
			w.next, j.changes, j.truncate, j.tidy = before, nil, false, false
			if _, err := w.stmts.rollbackTo.exec(); err != nil {
				return err
			}
		}
		if _, err := w.stmts.release.exec(); err != nil {
			return err
		}
	}
	// Once for the group. A group of refusals alone leaves the row as it is.
	if w.next != w.counters {
		c := &w.next
		if _, err := w.stmts.count.exec(int64(c.feedSeq), int64(c.auditSeq), c.auditChain[:]); err != nil {
			return err
		}
	}
	if _, err := w.stmts.commit.exec(); err != nil {
		return err
	}
	// From here on it is durable. Followers are told before any job is answered, in the order of commits.
	w.counters = w.next
	w.backend.groups.Add(1)
	w.backend.changes.Add(uint64(len(jobs)))
	for _, j := range jobs {
		for _, change := range j.changes {
			w.backend.followers.Tell(change)
		}
	}
	return nil
}

// apply contains a panic: a defect met by one mutation must not end the writer for all.
func (w *writer) apply(j *job, now time.Time) (changes []storage.Change, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("mutation panicked: %v\n%s", p, debug.Stack())
		}
	}()
	return j.apply(w, now)
}

// undo ends the transaction after a failure, and returns what is to be reported.
// Nothing was told to anybody: followers hear of what was committed only.
func (w *writer) undo(cause error) error {
	// SQLite may have rolled back already, and then refuses.
	_, _ = w.stmts.rollback.exec()
	// What is in the file counts, not what this writer believes to have written.
	if err := w.readCounters(); err != nil {
		return errors.Join(cause, err)
	}
	return cause
}

// trim removes a bounded number of feed rows past their retention.
// The step counts as a job of its own, through the same transaction code as a commit.
func (w *writer) trim() {
	removed := int64(0)
	j := &job{apply: func(w *writer, now time.Time) (_ []storage.Change, err error) {
		removed, err = w.stmts.trim.exec(now.Add(-storage.FeedRetention).UnixNano(), w.trimRows)
		return nil, err
	}}
	// A failure here is met again, and reported, by the next mutation.
	err := w.transact([]*job{j})
	w.trimming = err == nil && removed == w.trimRows
}

// sweepPages bounds what is rewritten in a quiet moment: 64 MB, a quarter of a second.
const sweepPages = 16 << 10

// sweep rewrites the file, when it is small. secure_delete overwrites the rows that are deleted, but SQLite
// moves rows between pages as they fill and leaves copies in the unused parts of pages, which nothing
// overwrites until they are used again. A larger file keeps those until it is compacted.
func (w *writer) sweep() {
	if !w.remnants {
		return
	}
	w.remnants = false
	// VACUUM holds up every write while it runs, hence the bound.
	if pages, err := w.conn.value("PRAGMA page_count"); err != nil || pages.(int64) > w.sweepPages {
		return
	}
	// A failure, a full disk for instance, leaves the file as it is; the next erasure tries again.
	_, _ = w.stmts.vacuum.exec()
	// The log has the rewritten pages, and the file has the former ones until they are copied.
	w.untidy = true
}

// empty truncates the log. A reader may be in the way: the next group tries again, or the next quiet moment.
// A backup surely is, for long, and is not waited for.
func (w *writer) empty() {
	if w.backend.copying.Load() > 0 {
		w.truncating, w.untidy = true, false
		return
	}
	busy := true
	_, err := w.stmts.checkpoint.one(func(r *row) error {
		busy = r.number() != 0
		return r.err
	})
	w.truncating, w.untidy = err != nil || busy, false
}
