package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
	"github.com/copse-authz/copse/internal/storage/sqlite"
)

// openBackend also sets s.sqlite, which stays nil in memory: whoever needs a disk asks for that.
func (s *Server) openBackend() (storage.Backend, error) {
	if s.cfg.InMemory {
		return memory.New(), nil
	}
	// Before the directory is opened, which would make a database.
	if err := lostDatabase(&s.cfg); err != nil {
		return nil, err
	}
	var err error
	s.sqlite, err = sqlite.Open(s.cfg.DataDir)
	if err != nil {
		return nil, s.withRemedy(err)
	}
	// Said once, at the start that did it, because the backup stays until somebody removes it.
	if backup := s.sqlite.Migrated(); backup != "" {
		s.log.Info("the database was brought to the format of this copse; as it was before, it is in the backup", "backup", backup)
	}
	registerGroups(s.registry, s.sqlite)
	return s.sqlite, nil
}

// withRemedy says what to do about a data directory that does not open.
// The error itself stays in the chain, and other errors stay as they are.
func (s *Server) withRemedy(err error) error {
	switch {
	case errors.Is(err, sqlite.ErrCorrupt):
		return fmt.Errorf("%w; %s", err, doRestore)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; %s and all in it must belong to the user that copse runs as (this one is number %d): chown -R", err, s.cfg.DataDir, os.Geteuid())
	}
	return err
}

// lostDatabase is Invalid where a server would begin anew although there was one before: its database is missing or
// empty, and something else tells of it. Begun anew it would know no tenant, call itself ready, and back nothing up.
// A first start that a crash ended leaves an empty file as well, but nothing else: keys and log come after it.
func lostDatabase(cfg *Config) error {
	path := filepath.Join(cfg.DataDir, sqlite.FileName)
	what := "is missing"
	if info, err := os.Stat(path); err == nil {
		if info.Size() > 0 {
			return nil
		}
		what = "is empty"
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil // opening it says what is wrong
	}
	trace := formerLife(cfg)
	// Nothing tells of a former life: this is a first start.
	if trace == "" {
		return nil
	}
	return copse.Errorf(copse.Invalid, "%s %s, and %s: there was a database. Restore the newest backup into an empty directory (copse restore FILE --data DIR; docs/backup.md); to begin anew on purpose, use an empty data directory, and a backup directory without backups",
		path, what, trace)
}

// formerLife says what is left of a server that had a database; empty when nothing is.
// Each of the traces is made by a server that has opened its database before.
func formerLife(cfg *Config) string {
	if cfg.RootAccessKeyID == "" {
		if _, err := os.Stat(filepath.Join(cfg.DataDir, rootKeyFile)); err == nil {
			return "its " + rootKeyFile + " is there"
		}
	}
	if lines, err := os.ReadDir(filepath.Join(cfg.DataDir, decisionsDir)); err == nil && len(lines) > 0 {
		return "its decision log is there"
	}
	if cfg.BackupDir == "" {
		return ""
	}
	if backups, err := (&schedule{dir: cfg.BackupDir}).list(); err == nil && len(backups) > 0 {
		return fmt.Sprintf("%s has backups, the newest of them %s", cfg.BackupDir, backups[len(backups)-1].name)
	}
	return ""
}
