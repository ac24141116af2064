package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/copse-authz/copse/internal/server"
)

// configCommand needs no server: it is run where one is to start, before it does.
func (a *app) configCommand() *cobra.Command {
	return group("config", "Check a configuration, and show what is in effect",
		`A server is configured by a file, by the environment and by flags, the later winning. docs/configuration.md
describes every setting.`,
		`  copse config check /etc/copse/copse.yaml
  copse config show --config /etc/copse/copse.yaml`,
		a.configCheck(), a.configShow())
}

// configCheck reads no flags of a server: they are on the command line of the one that is started, where a
// file is checked before.
func (a *app) configCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Check a configuration file",
		Long: `Read a configuration file with the environment, as "copse serve --config FILE" would, and check that
a server could start with it: that every key and value is one, that what goes together is there, that
files it names can be read. Mistakes are told with file, line and key; the exit code is then 2.`,
		Example: `  copse config check /etc/copse/copse.yaml`,
		Args:    args(1, 1, "the configuration file"),
		RunE: func(_ *cobra.Command, args []string) error {
			// Both kinds of mistakes at once, unless the file can't be read as such.
			cfg, err := server.LoadConfig(args[0], a.environ)
			var warnings []string
			if err == nil {
				warnings, err = cfg.ValidateFiles()
				err = errors.Join(cfg.Validate(), err)
			}
			if err != nil {
				return misconfigured(err)
			}
			for _, w := range warnings {
				a.say("warning: %s", w)
			}
			a.say("%s: a server can start with this", args[0])
			return nil
		},
	}
}

// settingValue is one line of `config show --output json`. From is default, the name of the file, or that of
// the variable.
type settingValue struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	From  string `json:"from"`
}

// configShow does not validate what it shows: what no server would start with is shown as well, as long as it
// can be read.
func (a *app) configShow() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show every setting, and where its value comes from",
		Long: `Show every setting with the value a server would have, and whether that is the default or comes from the
file or the environment. Secrets are not shown.`,
		Example: `  copse config show --config /etc/copse/copse.yaml`,
		Args:    args(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			file = firstOf(file, a.env("COPSE_CONFIG"))
			all, err := a.effective(file)
			if err != nil {
				return usagef("%v", err)
			}
			return a.show(all, func(t *table) {
				t.row("SETTING", "VALUE", "FROM")
				for _, s := range all {
					t.row(s.Key, s.Value, s.From)
				}
			})
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file (COPSE_CONFIG)")
	return cmd
}

// effective tells where each value comes from by leaving sources out: what the file alone changes is the
// file's, what the environment changes then is the environment's.
func (a *app) effective(file string) ([]settingValue, error) {
	var environ []string
	for _, entry := range a.environ {
		if strings.HasPrefix(entry, "COPSE_") {
			environ = append(environ, entry)
		}
	}
	onlyFile, err := server.LoadConfig(file, nil)
	if err != nil {
		return nil, err
	}
	both, err := server.LoadConfig(file, environ)
	if err != nil {
		return nil, err
	}
	var all []settingValue
	for _, s := range server.Settings() {
		// Secrets have a word in the place of their value: see [server.Setting.Value].
		v := settingValue{Key: s.Key, Value: s.Value(&both), From: "default"}
		// A file that says what is the default anyway is not told apart from one that says nothing.
		if s.Value(&onlyFile) != s.Default() {
			v.From = file
		}
		// The environment wins over the file.
		if a.env(s.Env()) != "" {
			v.From = s.Env()
		}
		all = append(all, v)
	}
	return all, nil
}
