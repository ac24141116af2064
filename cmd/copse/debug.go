package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/spf13/cobra"

	"github.com/copse-authz/copse/internal/server"
)

func (a *app) debugCommand() *cobra.Command {
	return group("debug", "Collect what helps to find a fault",
		`For those who look for a fault, and those who ask others to.`,
		`  copse debug bundle copse-debug.tar.gz`,
		a.debugBundle())
}

// debugBundle makes the same file in two ways: the running server writes it, or this process writes it of
// what a server would start with. The running server wants a key with admin everywhere for it.
func (a *app) debugBundle() *cobra.Command {
	var data, config string
	var names bool
	cmd := &cobra.Command{
		Use:   "bundle FILE",
		Short: "Collect what helps to find a fault into one file",
		Long: `Collect what helps to find a fault into a new file (tar, gzip): version, what the doctor finds, settings, sizes
and revisions of what is stored, facts about the machine, and of the running server, which it asks with a key
with admin everywhere, metrics, use, and profiles of goroutines and memory. With --data or --config it is of a
server that does not run.

No keys, tokens or other secrets are in it, no policies, nobody who asked for anything, and no log, which is
yours to read first; the names of tenants and plans only with --with-names. Look into it before you send it.`,
		Example: `  copse debug bundle copse-debug.tar.gz

  # of a server that does not start
  copse debug bundle copse-debug.tar.gz --config /etc/copse/copse.yaml`,
		Args: args(1, 1, "the file to make"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			// Of a server that does not run; replaced below when there is one to ask.
			write := func(w io.Writer) error {
				return server.WriteDebugBundle(cmd.Context(), w, readVersion().Version, firstOf(config, a.env("COPSE_CONFIG")), a.environ, data, names)
			}
			if data == "" && config == "" {
				// The answer is asked for before the file is made: a key that may not leaves none.
				c, err := a.newClient()
				if err != nil {
					return err
				}
				body, _, err := c.open(cmd.Context(), http.MethodGet, fmt.Sprintf("/v1/debug/bundle?names=%t", names))
				if err != nil {
					return err
				}
				defer func() { _ = body.Close() }()
				write = func(w io.Writer) error {
					_, err := io.Copy(w, body)
					return err
				}
			}
			// A bundle that was cut off is an error of write, and leaves no file.
			if err := writeNew(args[0], write); err != nil {
				return err
			}
			a.say("%s: no secrets are in it; look into it before you send it", args[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "data directory of a server that does not run")
	cmd.Flags().StringVar(&config, "config", "", "its configuration file")
	cmd.Flags().BoolVar(&names, "with-names", false, "with the names of tenants and plans")
	return cmd
}

// writeNew makes a file for its owner only, whole or not at all: a file of that name that is there stays,
// and is an error; after an error of write the new one is removed.
func writeNew(path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return failf("%w", err)
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return failf("%w", errors.Join(err, os.Remove(path)))
	}
	return nil
}
