package server

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/decisionlog"
	"github.com/copse-authz/copse/internal/storage/sqlite"
)

// What doctor looks at beside a running server as without one: files and limits.

// directory looks at who can reach the data, and whether the server can.
// It looks as the user that runs it; as root it would find everything in reach.
func (d *doctor) directory() {
	const check = "data directory"
	dir := d.cfg.DataDir
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		d.note(check, "is --data right? The first start makes it", "%s does not exist", dir)
		return
	}
	if err != nil || !info.IsDir() {
		d.wrong(check, "name a directory that the server's user can reach", "%s is not one (%v)", dir, err)
		return
	}
	// Well is said only if nothing else was.
	before := len(d.findings)
	d.private(check, dir, info, false)
	// Each has what policies and decisions say, and each may have got another mode or owner by a copy.
	for _, name := range []string{sqlite.FileName, sqlite.FileName + "-wal", decisionsDir} {
		if file, err := os.Stat(filepath.Join(dir, name)); err == nil {
			d.private(check, filepath.Join(dir, name), file, false)
			d.sameOwner(check, dir, info, filepath.Join(dir, name), file)
		}
	}
	// Wherever it is: with another mode no server loads it.
	if file, err := os.Stat(d.masterKeyFile()); err == nil {
		d.private(check, d.masterKeyFile(), file, true)
	}
	// The configured key is used instead of the file, which then keeps nobody from starting.
	if d.cfg.RootAccessKeyID == "" {
		if _, err := readRootKey(filepath.Join(dir, rootKeyFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.wrong(check, "as it says: no server starts with it", "%v", err)
		}
	}
	if err := mayWrite(dir); err != nil {
		d.wrong(check, "give the server's user a directory that it can write, on a disk that is not read-only", "%s can't be written: %v", dir, err)
	}
	if len(d.findings) == before {
		d.ok(check, "%s is for the server's user only", dir)
	}
	if d.cfg.MasterKeyFile == "" {
		if _, err := os.Stat(filepath.Join(dir, access.MasterKeyFile)); err == nil {
			d.note(check, "move it, name it with --master-key-file, and keep a copy elsewhere",
				"the master key is beside the data: whoever copies the directory has every access key")
		}
	}
}

// private holds that others do not reach a file. With a refused one no server starts.
// The rule is [access.Private], by which a server refuses a master key.
func (d *doctor) private(check, path string, info fs.FileInfo, refused bool) {
	mode := info.Mode().Perm()
	if access.Private(info) {
		return
	}
	do := "chmod 600 " + path
	if info.IsDir() {
		do = "chmod 700 " + path
	}
	if refused {
		d.wrong(check, do, "%s has mode %04o, so others can reach it, and no server starts with it", path, mode)
		return
	}
	d.warn(check, do, "%s has mode %04o, so others can reach it", path, mode)
}

// sameOwner finds what a command left that was run as another user.
// It says nothing where files have no owners.
func (d *doctor) sameOwner(check, dir string, of fs.FileInfo, path string, file fs.FileInfo) {
	want, known := access.OwnerOf(of)
	if have, _ := access.OwnerOf(file); known && have != want {
		d.wrong(check, "chown it to the owner of the directory, and run copse as that user",
			"%s belongs to user %d and %s to user %d: the server can't write it", path, have, dir, want)
	}
}

// disk says how much room there is, and for what it is too little: writes, a start, a backup.
// Nothing is said where it can't be known.
func (d *doctor) disk() {
	const check = "disk"
	free, ok := sqlite.FreeBytes(d.cfg.DataDir)
	if !ok {
		return
	}
	var size uint64
	for _, name := range []string{sqlite.FileName, sqlite.FileName + "-wal"} {
		if info, err := os.Stat(filepath.Join(d.cfg.DataDir, name)); err == nil {
			size += uint64(info.Size())
		}
	}
	const hardlyAny = 1 << 20 // less than the write-ahead log of a busy minute
	// From the worst to the least, and only the first that holds is said.
	switch least := uint64(max(d.cfg.MinFreeBytes, 0)); {
	case free < hardlyAny:
		d.wrong(check, "make room: writes fail without", "%d bytes are free on the disk of %s", free, d.cfg.DataDir)
	case free < least:
		d.wrong(check, "make room", "%d bytes are free on the disk of %s, and without %d (--min-free-bytes) no server starts", free, d.cfg.DataDir, least)
	case free < least+size:
		d.warn(check, "make room: a backup takes as much as the database while it is made", "%d bytes are free on the disk of %s, and the database has %d", free, d.cfg.DataDir, size)
	default:
		d.ok(check, "%d bytes are free, the database has %d", free, size)
	}
}

// certificates looks at the end of the server's own. Whether the pair loads is a matter of the configuration.
func (d *doctor) certificates() {
	const check = "certificate"
	if d.cfg.TLSCert == "" {
		if d.cfg.BehindTLSProxy {
			d.note(check, "watch the certificate of the proxy", "none: --behind-tls-proxy says that something in front speaks TLS")
		}
		return
	}
	files, err := loadTLS(&d.cfg)
	if err != nil {
		d.wrong(check, "put both files of one pair there, and certificates of clients' CAs; a running server goes on with the last good ones", "%v", err)
		return
	}
	if info, err := os.Stat(d.cfg.TLSKey); err == nil && info.Mode().Perm()&0o007 != 0 {
		d.warn(check, "chmod o= "+d.cfg.TLSKey, "the key %s has mode %04o: everyone can reach it", d.cfg.TLSKey, info.Mode().Perm())
	}
	// The whole chain counts: clients refuse it when any certificate in it has expired.
	leaf := files.inUse.Load().leaf
	first := leaf
	for _, der := range files.inUse.Load().config.Certificates[0].Certificate {
		if c, err := x509.ParseCertificate(der); err == nil && c.NotAfter.Before(first.NotAfter) {
			first = c // one of the chain that ends earlier
		}
	}
	const renew = "put a new pair in their place: the server reads the files again, without a restart"
	switch end := first.NotAfter.UTC().Format(time.RFC3339); {
	case d.now.Before(leaf.NotBefore):
		d.wrong(check, "is the clock right? Otherwise "+renew, "%s is not valid before %s", d.cfg.TLSCert, leaf.NotBefore.UTC().Format(time.RFC3339))
	case d.now.After(first.NotAfter):
		d.wrong(check, renew, "%s expired at %s", d.cfg.TLSCert, end)
	case d.now.Add(expirySoon).After(first.NotAfter):
		d.warn(check, renew, "%s expires at %s", d.cfg.TLSCert, end)
	default:
		d.ok(check, "%s is valid until %s", d.cfg.TLSCert, end)
	}
}

// backups looks at the newest of the schedule. failed is what this process could not make.
// Only the newest is read: it is the one that a restore would take. `copse check` reads others.
func (d *doctor) backups(ctx context.Context, failed uint64) {
	const check = "backups"
	dir := d.cfg.BackupDir
	if dir == "" {
		d.warn(check, "set --backup-dir, or see that `copse backup` runs often and its files go elsewhere", "none are made on schedule")
		return
	}
	if failed > 0 {
		d.warn(check, "read the server's log", "%d could not be made since the start", failed)
	}
	// Where the two directories are known. One that is not made yet is no finding here.
	if data, err := os.Stat(d.cfg.DataDir); err == nil {
		if info, err := os.Stat(dir); err == nil {
			d.private(check, dir, info, false)
			if device, known := deviceOf(data); known {
				if other, _ := deviceOf(info); other == device {
					d.warn(check, "put them on another disk, or copy them away", "%s is on the disk of the data: what takes one takes both", dir)
				}
			}
		}
	}
	all, err := (&schedule{dir: dir}).list()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.wrong(check, "let the server's user reach it", "%s can't be read: %v", dir, err)
		return
	}
	if len(all) == 0 {
		d.warn(check, "start the server, which makes the first; if it runs, read its log", "there is none in %s yet", dir)
		return
	}
	// By number, not by time, as the schedule orders them.
	newest := all[len(all)-1]
	path := filepath.Join(dir, newest.name)
	whole := "is whole"
	// Verifying reads all of it, which a running server's disk may not have the time for.
	if info, err := os.Stat(path); err == nil && info.Size() > d.most {
		whole = "is too large to be read through now (copse check does it)"
	} else if _, err := sqlite.VerifyBackup(ctx, path); err != nil {
		d.wrong(check, "copse backup FILE now; keep this one until you know what happened to the disk", "the newest, %s, can't be restored: %v", path, err)
		return
	}
	age := d.now.Sub(newest.savedAt).Round(time.Second)
	if age > 2*d.cfg.BackupEvery {
		d.warn(check, "read the server's log: does it run, has the disk room?", "the newest, %s, is %s old, and one is due every %s", path, age, d.cfg.BackupEvery)
		return
	}
	d.ok(check, "the newest, %s, %s, and is %s old", path, whole, age)
}

// losses looks for decisions without a line. counted is what this process knows, also of those that could
// not be written down.
// It looks no further back than lossesSince, and reads no more than d.most bytes of the log.
func (d *doctor) losses(ctx context.Context, counted uint64) {
	const check = "decision log"
	if !d.cfg.DecisionLog {
		d.note(check, "nothing, if that is what you want", "off: no decision leaves a line")
		return
	}
	lost, whole, err := decisionlog.Lost(ctx, filepath.Join(d.cfg.DataDir, decisionsDir), d.now.Add(-lossesSince), d.most)
	if err != nil {
		d.wrong(check, "copse decisions verify, and look at the disk", "%v", err)
		return
	}
	// Both may count the same losses, and each some that the other can't know: the larger is said.
	if lost = max(lost, counted); lost > 0 {
		d.warn(check, "see copse_decision_log_lost_total for the reason: a disk that is full or slow, or a kill. Policy stores with decisionLog.full wait refuse decisions instead",
			"%d decisions of the last days have no line", lost)
		return
	}
	if !whole {
		d.ok(check, "no decision is without its line since the start, nor in the newest %d MiB of the log", d.most>>20)
		return
	}
	d.ok(check, "no decision of the last %d days is without its line, as far as the log knows", lossesSince/(24*time.Hour))
}

// fewFiles is less than a server with its clients, its database and its log needs at a busy time.
// It is for a word of advice; a server starts with fewer and takes fewer connections.
const fewFiles = 4096

// limits looks at this process's own limit of open files. Beside a stopped server that is the shell's.
func (d *doctor) limits() {
	const check = "limits"
	files, ok := openFileLimit()
	switch {
	case !ok:
	case files < fewFiles:
		d.warn(check, "LimitNOFILE=65536 in the systemd unit; ulimit -n 65536 in a shell", "this process may open %d files, and each connection is one", files)
	default:
		d.ok(check, "this process may open %d files", files)
	}
}
