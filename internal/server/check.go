package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/sqlite"
)

// Problem is one thing that a check found: what is wrong, where, and what to do.
type Problem struct {
	Where string `json:"where"`
	What  string `json:"what"`
	Do    string `json:"do"`
}

// CheckReport is what a check read and what it found.
type CheckReport struct {
	PolicyStores int `json:"policyStores"`
	// Keys is the number of access keys that were opened; -1 when there was no master key to do it with.
	Keys int `json:"keys"`
	// Secrets is the number of the server's own secrets that were opened beside them.
	Secrets int `json:"secrets"`
	// Unlisted are policy stores that have data and no row in the directory: a server ended while it made
	// or erased them. That is no damage, and the next start erases them, unless the directory is not whole:
	// then their rows may be what it lost, and they stay.
	Unlisted       []copse.PolicyStoreID `json:"unlisted"`
	DirectoryWhole bool                  `json:"directoryWhole"`
	Problems       []Problem             `json:"problems"`
}

const (
	doRestore  = "stop the server, keep a copy of this data directory, and restore the newest backup that `copse check` finds whole"
	doUnopened = "give the master key that belongs to these data (--master-key-file); if one row is damaged or no copy of the key is left, `copse key reset-master` drops what it does not open, and access keys are made again"
	doReplace  = "put the contents of this policy store again (`copse policy put`), or take them from a backup"
)

// maxUnopened is how many rows that the master key does not open are named: with a wrong key it is all of them.
const maxUnopened = 20

// add notes a problem in the words of err; do is what an operator can do about it.
func (r *CheckReport) add(where string, err error, do string) {
	r.Problems = append(r.Problems, Problem{Where: where, What: err.Error(), Do: do})
}

// Check reads all of a data directory that no process has, or of a backup: SQLite's own checks, each
// policy store with its history, the audit chain, and with a master key what is sealed under it. A backup is
// unpacked for that into a directory beside it, which is removed again. progress may be nil; it is told
// the number of policy stores read so far. The error is a check that could not be made.
// Opening the directory brings it to the newest format, as a start would.
func Check(ctx context.Context, path, masterKeyFile string, progress func(policyStores int)) (*CheckReport, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, copse.Errorf(copse.Invalid, "check: %w", err)
	}
	dir, keyFile := path, masterKeyFile
	if !info.IsDir() {
		scratch, err := os.MkdirTemp(filepath.Dir(path), ".copse-check-*")
		if err != nil {
			return nil, copse.Errorf(copse.Invalid, "check: a backup is unpacked beside it: %w", err)
		}
		defer func() { _ = os.RemoveAll(scratch) }()
		// Restore wants a directory that it makes, or that is empty.
		dir = filepath.Join(scratch, "data")
		if _, err := sqlite.Restore(path, dir); err != nil {
			return nil, err
		}
	} else {
		// A key that is beside the data is tried unasked. A backup never has one.
		beside := filepath.Join(dir, access.MasterKeyFile)
		if _, err := os.Stat(beside); keyFile == "" && err == nil {
			keyFile = beside
		}
	}
	report := &CheckReport{Keys: -1, Unlisted: []copse.PolicyStoreID{}, Problems: []Problem{}}
	b, err := sqlite.OpenExisting(dir)
	if errors.Is(err, sqlite.ErrCorrupt) {
		report.add(sqlite.FileName, err, doRestore)
		return report, nil
	}
	if err != nil {
		return nil, err
	}
	err = report.check(ctx, b, keyFile, progress)
	// A damaged file may not close without a complaint that is in the report already.
	if closeErr := b.Close(); len(report.Problems) == 0 {
		err = errors.Join(err, closeErr)
	}
	return report, err
}

// check goes from pages to meaning: a damaged page is named before what is missing because of it.
func (r *CheckReport) check(ctx context.Context, b *sqlite.Backend, keyFile string, progress func(int)) error {
	pages, err := b.Integrity(ctx)
	for _, page := range pages {
		r.add(sqlite.FileName, errors.New(page), doRestore)
	}
	if err := r.unreadable(sqlite.FileName, err); err != nil {
		return err
	}
	// The directory first: whether rows are missing there decides what policy stores without a row mean.
	whole := b.Whole(ctx, storage.Directory())
	if r.DirectoryWhole = whole == nil; !r.DirectoryWhole {
		if err := r.wrong(ctx, "directory", whole); err != nil {
			return err
		}
	}
	err = storage.VerifyHistory(ctx, b, storage.Directory())
	if err := r.wrong(ctx, "directory", err); err != nil {
		return err
	}
	if err := r.wrong(ctx, "audit", storage.VerifyAudit(ctx, b)); err != nil {
		return err
	}
	err = policystore.Verify(ctx, b, func(id copse.PolicyStoreID, err error) {
		do := doRestore
		// The rows are as they were written, but their contents are not what this copse takes.
		if copse.KindOf(err) != copse.Internal {
			do = doReplace
		}
		r.add("policy store "+string(id), err, do)
	}, func(copse.PolicyStoreID) {
		if r.PolicyStores++; progress != nil {
			progress(r.PolicyStores)
		}
	}, func(id copse.PolicyStoreID) { r.Unlisted = append(r.Unlisted, id) })
	if err := r.wrong(ctx, "directory", err); err != nil || keyFile == "" {
		return err
	}
	// Last, since it needs the directory to be readable. A key file that can't be read ends the check.
	master, err := access.LoadMasterKey(keyFile)
	if err != nil {
		return err
	}
	shut := 0
	opened, err := access.Verify(ctx, b, master, func(err error) {
		if shut++; shut <= maxUnopened {
			r.add("master key", err, fmt.Sprintf("%s; this was with %s", doUnopened, keyFile))
		}
	})
	if shut > maxUnopened {
		r.add("master key", fmt.Errorf("%d more access keys and secrets can't be opened", shut-maxUnopened), fmt.Sprintf("%s; this was with %s", doUnopened, keyFile))
	}
	r.Keys, r.Secrets = opened.Keys, opened.Secrets
	return r.wrong(ctx, "directory", err)
}

// wrong records what is wrong with the data, and hands back only an end of the check itself.
// What a read answers after ctx has ended says nothing about the data.
func (r *CheckReport) wrong(ctx context.Context, where string, err error) error {
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	r.add(where, err, doRestore)
	return nil
}

// unreadable records damage, and hands back every other error as one of the check.
func (r *CheckReport) unreadable(where string, err error) error {
	if errors.Is(err, sqlite.ErrCorrupt) {
		r.add(where, err, doRestore)
		return nil
	}
	return err
}
