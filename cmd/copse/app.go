package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// app is what every command works with. It is made anew for each run of the program and used by one command,
// on one goroutine. Flags that only one command has are variables of that command's constructor.
type app struct {
	// "NAME=value" each, as os.Environ has them.
	environ        []string
	stdin          io.Reader
	stdout, stderr io.Writer

	url, key, output string // global flags
	// Files of the global flags: what the server's certificate chains to, and what is shown to it.
	ca, clientCert, clientKey string
}

// run is the program: it returns the exit code, and has then written the error to stderr. The context of a
// command ends with ctx, or at the first SIGINT or SIGTERM.
func run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// The first signal asks for a clean end; the second one, by default again, ends the process.
	context.AfterFunc(ctx, stop)

	a := &app{environ: environ, stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil {
		report(stderr, err)
	}
	return exitCode(err)
}

// env returns a variable of the environment the program was given, empty when it is not set; of two of one
// name the last.
func (a *app) env(name string) string {
	value := ""
	for _, entry := range a.environ {
		if k, v, _ := strings.Cut(entry, "="); k == name {
			value = v
		}
	}
	return value
}

// confirm asks before something is destroyed; an error means that it must not be, because somebody said no
// or nobody could be asked. The question goes to standard error, standard output is for results. Where
// nobody can answer, --yes has to have been given.
func (a *app) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	if !isTerminal(a.stdin) {
		return usagef("%s Nobody can be asked here: give --yes", question)
	}
	fmt.Fprintf(a.stderr, "%s [y/N] ", question)
	// The end of the input is an answer too, and it is no.
	answer, err := bufio.NewReader(a.stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return failf("reading the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return failf("nothing was changed")
}

// isTerminal tells whether a person is at the other end of a stream. The null device is a character
// device too, and the usual one to be mistaken for a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	// A pipe and a file have nobody who reads along and could answer.
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// group makes a command that only holds others. Called with something that is none of them it fails,
// where cobra by itself would print help and call that a success.
func group(use, short, long, example string, children ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Example: example, Args: cobra.ArbitraryArgs}
	cmd.AddCommand(children...)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownCommand(cmd, args[0])
		}
		var names []string
		// Hidden commands are not offered.
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				names = append(names, c.Name())
			}
		}
		return usagef("which? %s %s; `%s --help` explains them", cmd.CommandPath(), strings.Join(names, "|"), cmd.CommandPath())
	}
	return cmd
}

// unknownCommand is the error of a name that is no command below cmd, with what was probably meant.
func unknownCommand(cmd *cobra.Command, name string) error {
	cmd.SuggestionsMinimumDistance = 2 // edits, which cobra by itself asks for at the root only
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		return usagef("there is no command %q; did you mean `%s %s`?", name, cmd.CommandPath(), near[0])
	}
	return usagef("there is no command %q; `%s --help` lists them", name, cmd.CommandPath())
}

// args makes a check of the positional arguments that says in words what was expected. most below zero is no
// bound. An empty argument is refused for every command: in a path of the API it would be another path.
func args(least, most int, want string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if len(given) < least || most >= 0 && len(given) > most {
			return usagef("%s takes %s, not %s; `%s --help` has an example", cmd.CommandPath(), want, count(len(given), "argument"), cmd.CommandPath())
		}
		for _, arg := range given {
			if arg == "" {
				return usagef("%s was given an empty argument: is a shell variable unset?", cmd.CommandPath())
			}
		}
		return nil
	}
}
