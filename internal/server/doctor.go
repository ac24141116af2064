package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/policystore"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/sqlite"
)

const (
	// expirySoon is how long before its end a certificate or a key is worth a word.
	expirySoon = 14 * 24 * time.Hour
	// lossesSince is how far back lost lines of the decision log are looked for.
	lossesSince = 7 * 24 * time.Hour
	// maxRead is how much of the decision log, and how large a backup, the doctor of a running server reads: it
	// has decisions to make, and a disk to share with them.
	maxRead = 256 << 20
	// Doctor looks at so many access keys, and names so many of those that expire soon.
	maxKeysExamined, maxKeysNamed = 10_000, 20
)

// doctor collects what a look at a server comes to.
// It is made for one look. Nothing in it makes a change, so it may be used beside a server.
type doctor struct {
	cfg      Config
	now      time.Time
	most     int64 // bytes of the decision log and of a backup that are read
	findings []api.Finding
}

// add, and the four after it, note a finding: what was looked at (check), what is so, and what to do about it. A
// note informs, a warning is of what may go wrong, wrong of what does.
func (d *doctor) add(severity, check, do, what string) {
	d.findings = append(d.findings, api.Finding{Severity: severity, Check: check, What: what, Do: do})
}

func (d *doctor) ok(check, format string, args ...any) {
	d.add(api.SeverityOK, check, "", fmt.Sprintf(format, args...))
}

func (d *doctor) note(check, do, format string, args ...any) {
	d.add(api.SeverityNote, check, do, fmt.Sprintf(format, args...))
}

func (d *doctor) warn(check, do, format string, args ...any) {
	d.add(api.SeverityWarning, check, do, fmt.Sprintf(format, args...))
}

func (d *doctor) wrong(check, do, format string, args ...any) {
	d.add(api.SeverityError, check, do, fmt.Sprintf(format, args...))
}

// Diagnose looks at what a server would start with: the configuration in file (empty: none) and in the
// environment, and the data directory, which is dataDir when that is not empty. It changes nothing. While
// it reads the database no server can start; where one runs, the database is left to that.
func Diagnose(ctx context.Context, file string, environ []string, dataDir string) api.Diagnosis {
	d := &doctor{now: time.Now(), most: math.MaxInt64}
	read := d.configuration(file, environ, dataDir)
	if d.cfg.DataDir != "" {
		d.directory()
		d.disk()
		d.database(ctx)
	}
	if read { // otherwise it is not known what there should be
		if d.cfg.DataDir != "" {
			d.losses(ctx, 0)
		}
		d.certificates()
		d.backups(ctx, 0)
	}
	d.limits()
	return api.Diagnosis{Version: d.cfg.Version, Findings: d.findings}
}

// checkConfiguration names the findings whose text may quote the configuration: a bundle leaves that out.
const checkConfiguration = "configuration"

// configuration reports whether it could be read.
// Without it, the defaults stand in, so that a named data directory is looked at all the same.
func (d *doctor) configuration(file string, environ []string, dataDir string) bool {
	const check = checkConfiguration
	const do = "correct it; `copse config check FILE` says when it is right, docs/configuration.md has every setting"
	var err error
	if d.cfg, err = LoadConfig(file, environ); err != nil {
		for _, e := range each(err) {
			d.wrong(check, do, "%v", e)
		}
		d.cfg = DefaultConfig()
		d.cfg.DataDir = dataDir
		d.note(check, "look again when the configuration is right", "certificates, backups and the decision log were not looked at, nor what is in a data directory that only the configuration names")
		return false
	}
	if dataDir != "" {
		d.cfg.DataDir = dataDir
	}
	_, found := d.cfg.ValidateFiles() // its warnings are those of certificates
	for _, e := range append(each(found), d.cfg.Validate()) {
		if e != nil {
			d.wrong(check, do, "%v", e)
			err = e
		}
	}
	switch {
	case err != nil:
	case file == "":
		d.note(check, "give the server's own: --config FILE", "no configuration file was named; what follows is of the environment and the defaults")
	default:
		d.ok(check, "a server can start with %s", file)
	}
	return true
}

// each is what was joined.
// One that was not joined is the only one; nil is one nil, which callers pass over.
func each(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// database reads what a server would, without being one.
// It stops at the first thing that makes what follows meaningless.
func (d *doctor) database(ctx context.Context) {
	const check = "database"
	path := filepath.Join(d.cfg.DataDir, sqlite.FileName)
	// As a start would: an empty database must not pass for a healthy one.
	if err := lostDatabase(&d.cfg); err != nil {
		d.wrong(check, "is --data right? Otherwise "+doRestore, "%v", err)
		return
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		d.note(check, "if there should be one: is --data right? Otherwise `copse restore`, or `copse serve`, which makes a new one",
			"there is no %s", path)
		return
	}
	b, err := sqlite.OpenReadOnly(d.cfg.DataDir)
	switch {
	case err == nil:
	// A server has it. Opening it beside that one would look at something in motion.
	case errors.Is(err, sqlite.ErrInUse):
		d.note(check, "ask the server: copse doctor --url URL, with a key that may administer everything", "not looked at: %v", err)
		return
	// Not migrated for a look. What is in it is not looked at either.
	case errors.Is(err, sqlite.ErrOlder):
		d.note(check, "nothing; if the upgrade was not meant, go on with the copse that wrote it", "%v: the next start makes a backup beside it and migrates", err)
		return
	case errors.Is(err, sqlite.ErrNewer):
		d.wrong(check, "start the newer copse again, or restore the backup it made before it migrated", "%v", err)
		return
	case errors.Is(err, sqlite.ErrCorrupt):
		d.wrong(check, doRestore, "%v", err)
		return
	default:
		d.wrong(check, "give the server's user a local disk that it can read and write", "%v", err)
		return
	}
	defer func() { _ = b.Close() }() // nothing was written
	problems, err := b.QuickCheck(ctx)
	if err != nil {
		problems = append(problems, err.Error())
	}
	for _, p := range problems {
		d.wrong(check, doRestore, "%s: %s", path, p)
	}
	if len(problems) > 0 {
		return
	}
	d.ok(check, "every page of %s can be read; `copse check` reads what is in them as well", path)
	// Only a database that can be read says anything about clock, keys and plans.
	newest, err := b.Newest(ctx)
	if err != nil {
		d.wrong(check, doRestore, "%v", err)
		return
	}
	d.clock(newest)
	d.masterKey(ctx, b)
	// Plans are in the database, so the configuration alone can't tell.
	if err := policystore.KnownPlan(ctx, b, d.cfg.DefaultPlan); err != nil {
		d.wrong(checkConfiguration, "name one that there is (copse plan list): default, avp and unmetered always are", "--default-plan: %v", err)
	}
}

// clock holds the clock against the newest change, as a start does.
func (d *doctor) clock(newest time.Time) {
	const check = "clock"
	err := clockBehind(d.now, newest)
	switch {
	case err == nil:
		d.ok(check, "the newest change was stored at %s, and it is %s", newest.UTC().Format(time.RFC3339), d.now.UTC().Format(time.RFC3339))
	case d.cfg.AllowClockBehind:
		d.warn(check, "set the clock; leave --allow-clock-behind out as soon as the next change is stored", "%v", err)
	default:
		d.wrong(check, "set the clock", "%v", err)
	}
}

// masterKeyFile is the one a server would read, whether or not it is there.
func (d *doctor) masterKeyFile() string {
	if d.cfg.MasterKeyFile != "" {
		return d.cfg.MasterKeyFile
	}
	return filepath.Join(d.cfg.DataDir, access.MasterKeyFile)
}

// masterKey opens everything that is sealed, and looks at when access keys end.
// New alone would try one row of each kind.
func (d *doctor) masterKey(ctx context.Context, b *sqlite.Backend) {
	const check = "master key"
	file := d.masterKeyFile()
	const bring = "bring the master key file back from where you keep it; if no copy of it is left, `copse key reset-master` drops what it sealed, and access keys have to be made again"
	key, err := access.LoadMasterKey(file)
	if errors.Is(err, fs.ErrNotExist) {
		d.absentMasterKey(ctx, b, file, bring)
		return
	}
	if err != nil {
		d.wrong(check, "do what it says", "%v", err)
		return
	}
	// A service on a database that can't be written: nobody shows it a key, so it has nothing to write.
	service, err := access.New(access.Config{Backend: b, MasterKey: key})
	// A rotation that is not finished: the key may well be right, and half of it the other.
	if copse.KindOf(err) == copse.InvalidState {
		d.wrong(check, "do what it says", "%v", err)
		return
	}
	if err != nil {
		d.wrong(check, bring, "%v", err)
		return
	}
	defer func() { _ = service.Close() }() // no use of a key is waiting to be written
	intact := true
	opened, err := access.Verify(ctx, b, key, func(err error) {
		if intact { // the first is enough to know what to do; check names them all
			d.wrong(check, doUnopened, "%v", err)
		}
		intact = false
	})
	if err != nil {
		d.wrong(check, doRestore, "%v", err)
		return
	}
	if intact {
		d.ok(check, "%s opens %d access keys and %d secrets of the server", file, opened.Keys, opened.Secrets)
	}
	d.keys(ctx, service)
}

// absentMasterKey is well where the next start makes one.
func (d *doctor) absentMasterKey(ctx context.Context, b *sqlite.Backend, file, bring string) {
	const check = "master key"
	sealed, err := access.FindUnopened(ctx, b, nil)
	switch {
	case err != nil:
		d.wrong(check, doRestore, "%v", err)
	case sealed.Sealed != (access.Sealed{}):
		d.wrong(check, bring, "there is no %s, and no server starts without it: %d access keys and %d secrets of the server are sealed under it", file, sealed.Keys, sealed.Secrets)
	case d.cfg.MasterKeyFile != "":
		d.wrong(check, "openssl rand -hex 32 > "+file+", for the server's user alone", "there is no %s", file)
	default:
		d.note(check, "nothing", "there is no %s; nothing is sealed here, and the next start makes one", file)
	}
}

// keys finds those that end soon. What they cover is left out: it would name tenants.
// Keys that are past their end are counted, since they open nothing.
func (d *doctor) keys(ctx context.Context, service *access.Service) {
	const check, page = "access keys", 1000
	var soon []access.Key
	looked, expired, after := 0, 0, ""
	// Page by page, and bounded: with very many keys a look must not take minutes.
	for more := true; more && looked < maxKeysExamined; {
		keys, next, err := service.ListKeys(ctx, access.System(), after, page)
		if err != nil {
			d.wrong(check, "read the server's log", "they can't be listed: %v", err)
			return
		}
		for _, k := range keys {
			after = k.ID
			switch {
			case k.ExpiresAt.IsZero() || k.ExpiresAt.After(d.now.Add(expirySoon)):
			case k.ExpiresAt.After(d.now):
				soon = append(soon, k)
			default:
				expired++
			}
		}
		looked, more = looked+len(keys), next
	}
	for _, k := range soon[:min(len(soon), maxKeysNamed)] {
		d.warn(check, "copse key rotate "+k.ID+", unless it was rotated already, and take it out of use", "%s expires at %s", k.ID, k.ExpiresAt.UTC().Format(time.RFC3339))
	}
	if len(soon) > maxKeysNamed {
		d.warn(check, "copse key list", "%d more expire within %d days", len(soon)-maxKeysNamed, expirySoon/(24*time.Hour))
	}
	if looked >= maxKeysExamined {
		d.note(check, "copse key list", "only the first %d were looked at", looked)
	}
	if len(soon) == 0 {
		d.ok(check, "none of %d expires within %d days; %d have expired", looked, expirySoon/(24*time.Hour), expired)
	}
}

// readinessDo is what to do about each of the conditions of /readyz.
var readinessDo = map[string]string{
	"draining": "send requests elsewhere; start it again if nobody told it to end",
	"storage":  "read the server's log, and look at the disk",
	"data":     doRestore,
	"keys":     "bring the master key file back, or finish its rotation",
	"clock":    "set the clock",
	"disk":     "make room before writes fail: decisions go on without",
}

// diagnose is Diagnose of the server itself: one at a time, and of large files not the whole.
// Who leaves meanwhile ends it, or the wait for it.
func (s *Server) diagnose(ctx context.Context) (api.Diagnosis, error) {
	// One at a time: each may read hundreds of megabytes beside the server's own work.
	select {
	case s.diagnosing <- struct{}{}:
		defer func() { <-s.diagnosing }()
	case <-ctx.Done():
		return api.Diagnosis{}, storage.AsError(ctx.Err(), "", "")
	}
	d := &doctor{cfg: s.cfg, now: time.Now(), most: maxRead}
	for _, c := range s.readiness(ctx).Checks {
		switch check := "ready: " + c.Name; {
		case c.OK:
			d.ok(check, "well")
		case c.Warning && c.Name != "data": // the others decide what they did before; what is damaged does not mend
			d.warn(check, readinessDo[c.Name], "%s", c.Detail)
		default:
			d.wrong(check, readinessDo[c.Name], "%s", c.Detail)
		}
	}
	// What follows is the same as of a stopped server, but for what the server knows better: its own counters.
	d.keys(ctx, s.Access)
	if s.sqlite != nil {
		d.directory()
		d.disk()
		d.losses(ctx, s.counted("copse_decision_log_lost_total"))
		d.backups(ctx, s.counted("copse_backups_failed_total"))
	}
	d.certificates()
	d.limits()
	if n := s.counted("copse_http_panics_total"); n > 0 {
		d.wrong("defects", "report the stack that the server's log has", "%d requests were ended by a defect of copse since the start", n)
	}
	return api.Diagnosis{Version: s.cfg.Version, Findings: d.findings}, storage.AsError(ctx.Err(), "", "")
}

// counted adds up a counter over its labels.
// A counter that is not there counts 0, as does one that can't be read, which the log then says.
func (s *Server) counted(name string) (n uint64) {
	families, err := s.registry.Gather()
	if err != nil {
		s.log.Warn("metrics can't be read", "error", err)
	}
	for _, family := range families {
		if family.GetName() == name {
			for _, m := range family.GetMetric() {
				n += uint64(m.GetCounter().GetValue())
			}
		}
	}
	return n
}
