package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/copse-authz/copse/internal/server"
	"github.com/copse-authz/copse/internal/storage/sqlite"
)

// backupCommand never overwrites a file, whichever way the backup comes. Of a running server it needs a key
// with admin everywhere: a backup holds what every key covers.
func (a *app) backupCommand() *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Back up everything a server stores into one file",
		Long: `Back up everything a server stores, as it is at one moment, into a new file. The server goes on
reading and writing. It needs a key with admin everywhere, and as much free disk as its database for
the time being. With --data, a data directory that no server has is backed up instead.

The file has its name only when all of it is on the disk and matches its hash. It never holds the
master key (nor the root key): keep the master key file too, elsewhere, or the access keys in the
backup can't be used. What was erased is not in it, but what is erased later stays in it.`,
		Example: `  copse backup copse-monday.backup

  # of a server that does not run
  copse backup --data /var/lib/copse copse-monday.backup`,
		Args: args(1, 1, "the file to make"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var m sqlite.Manifest
			var err error
			if data != "" {
				m, err = a.backupOffline(cmd.Context(), data, args[0])
			} else {
				m, err = a.backupOnline(cmd.Context(), args[0])
			}
			if err != nil {
				return err
			}
			a.say("%s: %d bytes of data, %d partitions, audit row %d; the master key is not in it", args[0], m.Size, m.Partitions, m.AuditSeq)
			return nil
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "data directory of a server that does not run")
	return cmd
}

// backupOffline opens the data directory itself, and so locks it: no server can start on it meanwhile.
func (a *app) backupOffline(ctx context.Context, data, file string) (m sqlite.Manifest, err error) {
	b, err := sqlite.OpenExisting(data)
	// The lock's own words do not say how else it is done.
	if errors.Is(err, sqlite.ErrInUse) {
		err = fmt.Errorf("%w; a server that runs is backed up without --data: copse backup %s", err, file)
	}
	if err != nil {
		return m, startFailure(err)
	}
	// The lock is held until the file is whole.
	defer func() { err = errors.Join(err, b.Close()) }()
	// The copy lies in the data directory until it is read.
	r, err := b.Backup(ctx)
	if err != nil {
		return m, startFailure(err)
	}
	// The file gets its name when all of it is on the disk and matches its hash.
	m, err = sqlite.SaveBackup(file, a.progress(r, r.Size))
	if err = errors.Join(err, r.Close()); err != nil {
		return m, startFailure(err)
	}
	return m, nil
}

// backupOnline has the server make the backup and reads it as it comes. What comes is verified like any
// other backup: an answer that was cut off leaves no file.
func (a *app) backupOnline(ctx context.Context, file string) (m sqlite.Manifest, err error) {
	c, err := a.newClient()
	if err != nil {
		return m, err
	}
	body, size, err := c.open(ctx, http.MethodPost, "/v1/backup")
	if err != nil {
		return m, err
	}
	// As with a backup made here: the name comes last.
	m, err = sqlite.SaveBackup(file, a.progress(body, size))
	if err = errors.Join(err, body.Close()); err != nil {
		return m, startFailure(err)
	}
	return m, nil
}

// progress tells a person how far reading has come; a log is spared it.
func (a *app) progress(from io.Reader, size int64) io.Reader {
	// Without a size there is no percentage.
	if !isTerminal(a.stderr) || size <= 0 {
		return from
	}
	return &progress{from: from, size: size, to: a.stderr}
}

// progress passes reads through, and writes a percentage over itself each time it grows. It is used by one
// goroutine.
type progress struct {
	from       io.Reader
	to         io.Writer
	done, size int64
	shown      int64
}

// Read counts also what comes with an error.
func (p *progress) Read(buffer []byte) (int, error) {
	n, err := p.from.Read(buffer)
	p.done += int64(n)
	// At most a hundred times, however small the reads are.
	if percent := 100 * p.done / p.size; percent > p.shown {
		p.shown = percent
		fmt.Fprintf(p.to, "\r%3d %%", percent)
		if percent >= 100 {
			fmt.Fprintln(p.to)
		}
	}
	return n, err
}

// restoreCommand needs no server and makes none start: the directory it leaves has no master key in it.
// Nothing in the directory is left half made: with an error there is no database under its name.
func (a *app) restoreCommand() *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use:   "restore FILE --data DIR",
		Short: "Make a data directory from a backup",
		Long: `Make a data directory from a backup. DIR must be absent or empty. Nothing is in it under the
database's name before the backup's hash, its database and its description have been verified.

The master key is not in a backup: put the file back as DIR/master.key (mode 0600), or name it with
--master-key-file when the server starts. What was done after the backup was made is undone: erase tenants again,
and revoke access keys again, before the server is used. The audit log has a row that says so, RestoreBackup.`,
		Example: `  copse restore copse-monday.backup --data /var/lib/copse-new
  copse check --data /var/lib/copse-new --master-key-file /etc/copse/master.key`,
		Args: args(1, 1, "the backup"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if data == "" {
				return usagef("say where to: --data DIR, absent or empty")
			}
			m, err := server.Restore(cmd.Context(), args[0], data)
			if err != nil {
				return startFailure(err)
			}
			a.say("%s holds what was stored at %s, up to audit row %d; put the master key file back before the server starts", data, when(m.MadeAt), m.AuditSeq)
			return nil
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "data directory to make")
	return cmd
}

// compactCommand is for a data directory that no process has: see [sqlite.Compact] for why.
func (a *app) compactCommand() *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use:   "compact --data DIR",
		Short: "Give space that nothing uses any more back to the disk",
		Long: `Rewrite the database of a data directory that no server has, without the space that deleted tenants and
policies left in it. The disk needs room for a copy of what remains. The copy is verified, and takes the
place of the database at one moment.

What is erased is overwritten at once, and a database of up to 64 MB is rewritten soon after, by the running
server; in a larger one, unused parts of pages may hold copies of erased rows until it is compacted.`,
		Example: `  copse compact --data /var/lib/copse`,
		Args:    args(0, 0, "no arguments but --data"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if data == "" {
				return usagef("what? a data directory: --data DIR")
			}
			before, after, err := sqlite.Compact(cmd.Context(), data)
			// The disk was full for the copy; the database is as it was.
			if errors.Is(err, sqlite.ErrFull) {
				err = fmt.Errorf("%w (there must be room for a copy of what remains)", err)
			}
			if err != nil {
				return startFailure(err)
			}
			return a.show(map[string]int64{"before": before, "after": after}, func(t *table) {
				t.line(fmt.Sprintf("%s: %d bytes before, %d after", data, before, after))
			})
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "data directory of a server that does not run")
	return cmd
}

// checkCommand takes either a data directory or a backup. [server.Check] looks which of the two it is;
// --data is there because all commands name a data directory so.
func (a *app) checkCommand() *cobra.Command {
	var data, master string
	cmd := &cobra.Command{
		Use:   "check --data DIR | FILE",
		Short: "Check a data directory or a backup for damage",
		Long: `Read all of a data directory that no server has, or of a backup, and say what is wrong, where, and
what to do: the database's pages, each policy store with its history and its row in the directory, the
audit chain, every policy and schema, and with a master key every access key and secret of the server. A data directory's own
master.key is used unless another is named. A backup is unpacked beside itself meanwhile.

The exit code is 1 when something is wrong.`,
		Example: `  copse check --data /var/lib/copse

  copse check copse-monday.backup --master-key-file /etc/copse/master.key`,
		Args: args(0, 1, "a backup, or --data"),
		RunE: func(cmd *cobra.Command, args []string) error {
			// One of the two is empty, or both are given and refused below.
			path := data
			if len(args) == 1 {
				path = args[0]
			}
			if (data != "") == (len(args) == 1) {
				return usagef("what? a data directory (--data DIR), or a backup (FILE)")
			}
			return a.checkStored(cmd.Context(), path, master)
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "data directory of a server that does not run")
	cmd.Flags().StringVar(&master, "master-key-file", "", "master key to open the access keys with")
	return cmd
}

// checkStored shows what a check found, the same advice once for neighbours that share it. Problems are code
// 1; a check that could not be made has the code of what prevented it.
func (a *app) checkStored(ctx context.Context, path, master string) error {
	// A large directory takes long, and a terminal that says nothing looks hung.
	const step = 10_000
	report, err := server.Check(ctx, path, master, func(n int) {
		if n%step == 0 {
			a.say("%d policy stores read", n)
		}
	})
	if err != nil {
		return startFailure(err)
	}
	if err := a.show(report, func(t *table) {
		// Problems with one remedy stand together, with the remedy below the last.
		for i, p := range report.Problems {
			t.line(p.Where + ": " + p.What)
			if i+1 == len(report.Problems) || report.Problems[i+1].Do != p.Do {
				t.line("  " + p.Do)
			}
		}
		// Unlisted policy stores are no problems, and do not count as such.
		because := "was being made or erased when the server ended; the next start erases it"
		if !report.DirectoryWhole {
			because = "has no row in the directory, which may have lost it; it stays as it is"
		}
		for _, id := range report.Unlisted {
			t.line(fmt.Sprintf("policy store %s: %s", id, because))
		}
		// That nothing was opened has to be said: it is the part of a check that needs a key.
		keys := fmt.Sprintf("%s and %s opened", count(report.Keys, "access key"), count(report.Secrets, "server secret"))
		if report.Keys < 0 {
			keys = "access keys and server secrets not opened, for want of a master key"
		}
		t.line(fmt.Sprintf("%s read, %s: %s", count(report.PolicyStores, "policy store"), keys, count(len(report.Problems), "problem")))
	}); err != nil {
		return err
	}
	if len(report.Problems) > 0 {
		return failf("%s has %s", path, count(len(report.Problems), "problem"))
	}
	return nil
}
