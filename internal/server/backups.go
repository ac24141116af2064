package server

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/sqlite"
)

// backup begins one for the API. There is one at a time: each takes as much disk as the database.
// The turn is given back by Close of what it returns, so a client that reads slowly keeps others from theirs.
// Conflict when it is not free.
func (s *Server) backup(ctx context.Context) (io.ReadCloser, int64, error) {
	if !s.backingUp.TryLock() {
		return nil, 0, copse.Errorf(copse.Conflict, "another backup is being made; try again when it is done")
	}
	r, err := s.sqlite.Backup(ctx)
	if err != nil {
		s.backingUp.Unlock()
		if errors.Is(err, storage.ErrFull) {
			return nil, 0, copse.Errorf(copse.Unavailable, "the disk has no room for a copy of the database; make room, or back up the stopped server to another disk: %w", err)
		}
		return nil, 0, copse.Errorf(copse.Unavailable, "the backup could not be made: %w", err)
	}
	return &apiBackup{r, s.backingUp.Unlock}, r.Size, nil
}

// apiBackup gives the turn back when it is closed.
type apiBackup struct {
	*sqlite.BackupReader
	done func()
}

func (b *apiBackup) Close() error {
	defer b.done()
	return b.BackupReader.Close()
}

// backupTo makes a backup as a file.
// It gets its name when it is whole; a file that is there is left alone.
func (s *Server) backupTo(ctx context.Context, path string) error {
	r, _, err := s.backup(ctx)
	if err != nil {
		return err
	}
	_, err = sqlite.SaveBackup(path, r)
	return errors.Join(err, r.Close())
}

// schedule makes backups in dir, one every so often, and keeps the last few.
// It goes by what is in the directory and keeps no state of its own, so a restart changes nothing.
type schedule struct {
	dir   string
	every time.Duration
	keep  int
	save  func(ctx context.Context, path string) error
	log   *slog.Logger

	made, failed prometheus.Counter
	last         prometheus.Gauge
}

// The number orders them, and not the time: a clock that was wrong must not make the newest backup look
// like the oldest, which is the one that goes.
var scheduledName = regexp.MustCompile(`^copse-(\d{8,})-\d{8}T\d{6}Z\.backup$`)

// scheduled is a backup of the schedule's. savedAt is the file's time, zero when it can't be told.
type scheduled struct {
	number  int
	name    string
	savedAt time.Time
}

// newSchedule begins nothing; run does. save makes one backup under a path that is free.
func newSchedule(cfg Config, log *slog.Logger, reg prometheus.Registerer, save func(context.Context, string) error) *schedule {
	c := &schedule{dir: cfg.BackupDir, every: cfg.BackupEvery, keep: cfg.BackupKeep, save: save, log: log,
		made:   prometheus.NewCounter(prometheus.CounterOpts{Name: "copse_backups_made_total", Help: "Backups made on schedule."}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{Name: "copse_backups_failed_total", Help: "Backups on schedule that could not be made."}),
		last:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "copse_backup_last_timestamp_seconds", Help: "When the last backup on schedule was made; 0 before the first of this process."})}
	reg.MustRegister(c.made, c.failed, c.last)
	return c
}

// run ends with ctx. The first backup is due when the newest there is has the age of the interval, or
// comes from the future; from then on the interval is counted on a clock that can't be set. A failure
// is logged, counted, and tried again after a tenth of the interval.
func (c *schedule) run(ctx context.Context) {
	wait := time.Duration(0)
	if all, err := c.list(); err == nil && len(all) > 0 {
		// A restart, however often, makes no backup more than the interval asks for.
		if age := time.Since(all[len(all)-1].savedAt); age >= 0 && age < c.every {
			wait = c.every - age
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = c.every
		if err := c.once(ctx); err != nil && ctx.Err() == nil {
			wait = c.every / 10
			c.failed.Inc()
			c.log.Error("the backup on schedule could not be made; the server goes on without", "dir", c.dir, "error", err, "tryAgainIn", wait)
		}
	}
}

// once removes old backups after the new one is whole, so there are never fewer than were asked for, and none that goes
// further than the new one: that is of a database that was lost, and was begun anew.
func (c *schedule) once(ctx context.Context) error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	all, err := c.list()
	if err != nil {
		return err
	}
	// After the newest that is there, whatever the clock says.
	next := 1
	if len(all) > 0 {
		next = all[len(all)-1].number + 1
	}
	name := fmt.Sprintf("copse-%08d-%s.backup", next, time.Now().UTC().Format("20060102T150405Z"))
	if err := c.save(ctx, filepath.Join(c.dir, name)); err != nil {
		return err
	}
	c.made.Inc()
	c.last.SetToCurrentTime()
	c.log.Info("backup made", "file", filepath.Join(c.dir, name))
	// From here on only removing can fail: the new backup stays whatever happens.
	saved := savedUpTo(filepath.Join(c.dir, name))
	all = slices.DeleteFunc(all, func(old scheduled) bool {
		further := savedUpTo(filepath.Join(c.dir, old.name)) > saved
		if further {
			c.log.Error("an older backup holds more than the database has now; it is kept: was the database lost, or restored?", "file", old.name)
		}
		return further
	})
	// The new one counts as one of those that are kept, and those that go further do not.
	for i := 0; i < len(all)+1-c.keep; i++ {
		if err := os.Remove(filepath.Join(c.dir, all[i].name)); err != nil {
			return fmt.Errorf("the new backup is there, an old one can't be removed: %w", err)
		}
	}
	return nil
}

// savedUpTo is the last audit row in a backup; 0 when it can't be read.
// So a backup that can't be read is taken for one that holds less, and may go when its time comes.
func savedUpTo(path string) int64 {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }()
	m, err := sqlite.ReadManifest(bufio.NewReader(f))
	if err != nil {
		return 0
	}
	return m.AuditSeq
}

// list has the schedule's own backups, oldest first. Other files of the directory are not touched.
func (c *schedule) list() ([]scheduled, error) {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, err
	}
	var all []scheduled
	for _, e := range entries {
		match := scheduledName.FindStringSubmatch(e.Name())
		// Somebody else's file, or one that is still being written under another name.
		if match == nil {
			continue
		}
		number, err := strconv.Atoi(match[1])
		if err != nil {
			continue
		}
		b := scheduled{number: number, name: e.Name()}
		if info, err := e.Info(); err == nil {
			b.savedAt = info.ModTime()
		}
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b scheduled) int { return cmp.Compare(a.number, b.number) })
	return all, nil
}
