package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"strings"
	"syscall"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/server"
	"github.com/copse-authz/copse/internal/storage/sqlite"
)

const serveLong = `Run copse on a data directory, for real use. The directory is made when it is absent, with an
access key that may do everything: shown once when this runs on a terminal, and in any case in
DIR/root.key, readable by its owner only. To choose that key yourself, set COPSE_ROOT_ACCESS_KEY_ID
and COPSE_ROOT_SECRET_ACCESS_KEY.

Everything asks for a credential but the OpenAPI document. /healthz, /readyz and /metrics are on a
listener of their own. Plain HTTP is for this machine only: beyond it, give a certificate, or state
that a proxy in front speaks TLS.

Every flag can also be set in a configuration file, as "flag-name: value" lines, and in the
environment, as COPSE_FLAG_NAME. Flags win over the environment, and that over the file. What is
misspelt in either is refused, not ignored.

Ctrl-C and SIGTERM end it cleanly: requests are answered for --drain-delay more, while /readyz sends
new ones elsewhere. A second one ends it at once. The exit code tells what keeps it from starting: see
"copse help exit-codes".`

const serveExample = `  copse serve --data /var/lib/copse

  # for other machines, with a certificate that is read again when it changes
  copse serve --data /var/lib/copse --listen :8443 --tls-cert cert.pem --tls-key key.pem

  # in a container, behind a proxy that speaks TLS
  COPSE_DATA=/data COPSE_LISTEN=:8420 copse serve --behind-tls-proxy`

// serveCommand reads file, environment and flags in this order, later ones winning, and refuses all that is
// wrong with them before the data directory is touched.
func (a *app) serveCommand() *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use:     "serve --data DIR",
		Short:   "Run a server on a data directory",
		Long:    serveLong,
		Example: serveExample,
		Args:    args(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := server.LoadConfig(firstOf(config, a.env("COPSE_CONFIG")), a.environ)
			if err != nil {
				return misconfigured(err)
			}
			if err := applySettings(cmd.Flags(), &cfg); err != nil {
				return err
			}
			// The addresses too: nothing is made for a server that would be refused.
			if err := errors.Join(cfg.Validate(), cfg.ValidateListen()); err != nil {
				return misconfigured(err)
			}
			if cfg.Log, err = a.logger(cfg.LogLevel, cfg.LogFormat); err != nil {
				return err
			}
			limitMemory(cfg.Log)
			cfg.Version, cfg.OnRootKey = readVersion().Version, a.rootKeyMade
			return a.serve(cmd.Context(), cfg)
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "configuration file (COPSE_CONFIG)")
	settingFlags(cmd.Flags())
	return cmd
}

// limitMemory has Go collect garbage harder before the process reaches what its cgroup allows, a container's limit or a
// unit's MemoryMax, where the kernel would kill it. A tenth is left for what Go does not count: SQLite's cache and
// mapped files. GOMEMLIMIT in the environment wins. Without a limit nothing changes.
func limitMemory(log *slog.Logger) {
	limit, err := memlimit.Set(memlimit.WithRatio(0.9))
	switch {
	case errors.Is(err, memlimit.ErrNoCgroup): // not on Linux, or not in one
	case err != nil:
		log.Warn("what memory this process may have can't be read; set GOMEMLIMIT if it is limited", "error", err)
	case limit != math.MaxInt64:
		log.Info("memory is limited", "bytes", limit)
	}
}

// settingFlags makes a flag of every setting the server has.
func settingFlags(flags *pflag.FlagSet) {
	for _, s := range server.Settings() {
		if s.NoFlag {
			continue
		}
		// The default is shown in the help only: a flag that was not given is not applied.
		f := flags.VarPF(&settingFlag{setting: s, value: s.Default()}, s.Key, "", s.Usage)
		if s.Bool {
			f.NoOptDefVal = "true"
		}
	}
}

// settingFlag is a pflag.Value that keeps the text; what it means is the server's to say. There is one for
// each setting but those that are secrets, made from the server's own list: a setting that is added there
// has its flag at once.
type settingFlag struct {
	setting server.Setting
	value   string
}

func (f *settingFlag) String() string { return f.value }

// Set tries the value on a configuration of its own, so that what is no value of the setting is told with
// the flag.
func (f *settingFlag) Set(value string) error {
	scratch := server.DefaultConfig()
	f.value = value
	return scratch.Set(f.setting.Key, value)
}

// Type is what the help shows behind the flag.
func (f *settingFlag) Type() string {
	if f.setting.Bool {
		return "bool"
	}
	return "value"
}

// applySettings takes over the flags that were given, and no defaults: those would undo file and environment.
func applySettings(flags *pflag.FlagSet, cfg *server.Config) error {
	var err error
	// Visit has the flags that were given. --config is one too, and no setting.
	flags.Visit(func(f *pflag.Flag) {
		if _, ok := f.Value.(*settingFlag); ok && err == nil {
			err = cfg.Set(f.Name, f.Value.String())
		}
	})
	if err != nil {
		return usagef("%v", err)
	}
	return nil
}

// rootKeyMade shows the first key to a person, and to nothing that may be a log. The server calls it once,
// before it serves, and only when it has made the key.
func (a *app) rootKeyMade(file string, credential access.Secret) {
	if isTerminal(a.stderr) {
		fmt.Fprintf(a.stderr, "the root key, shown this once and kept in %s:\n\n  export COPSE_KEY=%s\n\n", file, string(credential))
		return
	}
	a.say("the root key is in %s", file)
}

// serve runs the server until ctx ends. Where it listens is printed once it does, for whoever waits for
// that. Errors have the exit code of their cause.
func (a *app) serve(ctx context.Context, cfg server.Config) error {
	// For the decision log's export, if it is to go there.
	cfg.Stdout = a.stdout
	s, err := server.Open(ctx, cfg)
	if err != nil && ctx.Err() != nil {
		return nil // told to end before it was up, and so it did
	}
	if err != nil {
		return startFailure(err)
	}
	// Serve closes everything itself; this is for the ways out before it, and does nothing a second time.
	defer func() { _ = s.Close() }()
	if err := s.Listen(); err != nil {
		return startFailure(err)
	}
	// On standard output, where a script that started it on port 0 finds the address.
	fmt.Fprintf(a.stdout, "copse serves %s from %s\n", s.URL(), cfg.DataDir)
	if s.OpsURL() != "" {
		fmt.Fprintf(a.stdout, "health and metrics at %s\n", s.OpsURL())
	}
	if err := s.Serve(ctx); err != nil {
		return startFailure(err)
	}
	return nil
}

// startFailure finds the exit code that tells a service manager whether starting again can help. It is for
// all commands that open a data directory, too. A cause it knows wins over the error's kind.
func startFailure(err error) error {
	f := &failure{code: exitError, message: detailOf(err), err: err}
	// Wrong in the configuration, or in files it names: starting again does not help.
	if copse.KindOf(err) == copse.Invalid {
		f.code = exitUsage
	}
	switch {
	case errors.Is(err, sqlite.ErrInUse):
		f.code = exitInUse
	case errors.Is(err, sqlite.ErrNewer):
		f.code = exitNewer
	// Whatever keeps the directory from being written to: a service manager should not try again for that.
	case errors.Is(err, sqlite.ErrNotWritable), errors.Is(err, sqlite.ErrFull), errors.Is(err, fs.ErrPermission),
		errors.Is(err, syscall.EROFS), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.ENOTDIR):
		f.code = exitStorage
	case errors.Is(err, server.ErrAddressInUse):
		f.code = exitPortUsed
	}
	return f
}

// detailOf is what went wrong in full: on this machine, the operator is the one to be told. Over HTTP an
// internal error's cause stays inside.
func detailOf(err error) string {
	if e, ok := errors.AsType[*copse.Error](err); ok && e.Kind == copse.Internal && e.Err != nil && !strings.Contains(e.Detail, e.Err.Error()) {
		return strings.TrimPrefix(e.Detail+": "+e.Err.Error(), ": ")
	}
	return err.Error()
}

// logger writes to standard error: standard output is for what was asked for.
func (a *app) logger(minimum, format string) (*slog.Logger, error) {
	handler, err := server.NewLogHandler(a.stderr, minimum, format)
	if err != nil {
		return nil, usagef("%v", err)
	}
	return slog.New(handler), nil
}
