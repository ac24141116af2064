package server

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/copse-authz/copse/internal/access"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// scheduleOf is a schedule of a backup a day that keeps three; fail, when true, makes it fail.
func scheduleOf(dir string, fail *atomic.Bool) *schedule {
	return newSchedule(Config{BackupDir: dir, BackupEvery: 24 * time.Hour, BackupKeep: 3}, slog.New(slog.DiscardHandler), prometheus.NewRegistry(),
		func(_ context.Context, path string) error {
			if fail.Load() {
				return errors.New("no room")
			}
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				return err
			}
			return os.Chtimes(path, time.Now(), time.Now())
		})
}

func counted(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

func names(t *testing.T, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestBackupsOnSchedule(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "backups")
	synctest.Test(t, func(t *testing.T) {
		var fail atomic.Bool
		c := scheduleOf(dir, &fail)
		ctx, stop := context.WithCancel(t.Context())
		go c.run(ctx)
		synctest.Wait()
		if got := counted(t, c.made); got != 1 {
			t.Fatalf("%v made at once, want the first", got)
		}
		other := filepath.Join(dir, "copse-mine.backup")
		if err := os.WriteFile(other, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4*24*time.Hour + time.Minute)
		synctest.Wait()
		if got := names(t, dir); len(got) != 4 || counted(t, c.made) != 5 || got[0][:14] != "copse-00000003" {
			t.Errorf("after four days: %v, %v made", got, counted(t, c.made))
		}
		// Failures are counted, tried again sooner, and remove nothing.
		fail.Store(true)
		time.Sleep(27 * time.Hour)
		synctest.Wait()
		if got := counted(t, c.failed); got < 2 || len(names(t, dir)) != 4 {
			t.Errorf("%v failures, %v", got, names(t, dir))
		}
		fail.Store(false)
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if got := counted(t, c.made); got != 6 {
			t.Errorf("%v made, want another soon after the failures", got)
		}
		stop()
		synctest.Wait()
	})
}

// A clock that was wrong when backups were made: those of the future neither put off the next one nor
// push it out, and after a restart within the interval none is made before its time.
func TestBackupsAndAClockThatJumped(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var fail atomic.Bool
		future := time.Now().Add(10 * 365 * 24 * time.Hour)
		for _, name := range []string{"copse-00000001-20300101T000000Z.backup", "copse-00000002-20300102T000000Z.backup", "copse-00000003-20300103T000000Z.backup"} {
			path := filepath.Join(dir, name)
			if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, future, future)); err != nil {
				t.Fatal(err)
			}
		}
		ctx, stop := context.WithCancel(t.Context())
		c := scheduleOf(dir, &fail)
		go c.run(ctx)
		synctest.Wait()
		if got := names(t, dir); len(got) != 3 || got[2][:14] != "copse-00000004" || counted(t, c.made) != 1 {
			t.Errorf("%v", got)
		}
		stop()
		time.Sleep(23 * time.Hour)
		ctx, stop = context.WithCancel(t.Context())
		c = scheduleOf(dir, &fail)
		go c.run(ctx)
		synctest.Wait()
		if got := counted(t, c.made); got != 0 {
			t.Errorf("%v made an hour too early", got)
		}
		time.Sleep(61 * time.Minute)
		synctest.Wait()
		if got := counted(t, c.made); got != 1 {
			t.Errorf("%v made when it was due", got)
		}
		stop()
		synctest.Wait()
	})
}

// A database that was lost and begun anew pushes none of the backups out that hold what is lost.
func TestBackupsOfALostDatabaseStay(t *testing.T) {
	cfg := used(t)
	dir := t.TempDir()
	c := newSchedule(Config{BackupDir: dir, BackupEvery: time.Hour, BackupKeep: 2}, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), nil)
	save := func(cfg Config, times int) {
		t.Helper()
		s, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		c.save = s.backupTo
		for range times {
			if err := c.once(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, _, err := s.Access.CreateKey(t.Context(), access.System(), access.Key{Scope: access.Scope{All: true}, Verbs: access.Read}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	save(cfg, 3)
	full := names(t, dir)
	cfg.DataDir = filepath.Join(t.TempDir(), "anew")
	save(cfg, 5)
	if got := names(t, dir); len(full) != 2 || len(got) != 4 || got[0] != full[0] || got[1] != full[1] {
		t.Errorf("%v, after the loss %v", full, got)
	}
}
