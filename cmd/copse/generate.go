package main

import (
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// generateCommand makes what comes with a release, from the commands themselves: pages and scripts can't be
// behind the program they are built with. It is not in the help: nobody who has a release needs it.
func (a *app) generateCommand() *cobra.Command {
	cmd := group("generate", "Write man pages or completions, for a release",
		`Write what comes with a release into a directory.`, `  copse generate man dist/man`,
		a.generateMan(), a.generateCompletions())
	cmd.Hidden = true
	return cmd
}

// generateMan writes over what is there, so that it can be run again; what it does not write it leaves alone.
func (a *app) generateMan() *cobra.Command {
	return &cobra.Command{
		Use:     "man DIR",
		Short:   "Write a man page for each command",
		Long:    `Write a man page for each command.`,
		Example: `  copse generate man dist/man`,
		Args:    args(1, 1, "a directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o750); err != nil {
				return failf("%w", err)
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true // it holds the day
			// One date for all builds of a release; the page's foot shows nothing that changes.
			header := &doc.GenManHeader{Title: "COPSE", Section: "1", Source: "copse", Manual: "copse", Date: &time.Time{}}
			if err := doc.GenManTree(root, header, args[0]); err != nil {
				return failf("%w", err)
			}
			return nil
		},
	}
}

// generateCompletions names the files as each shell looks for them.
func (a *app) generateCompletions() *cobra.Command {
	return &cobra.Command{
		Use:     "completions DIR",
		Short:   "Write a completion script for each shell",
		Long:    `Write a completion script for each shell.`,
		Example: `  copse generate completions dist/completions`,
		Args:    args(1, 1, "a directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o750); err != nil {
				return failf("%w", err)
			}
			root, in := cmd.Root(), func(name string) string { return filepath.Join(args[0], name) }
			for _, err := range []error{
				root.GenBashCompletionFileV2(in("copse.bash"), true), root.GenZshCompletionFile(in("_copse")),
				root.GenFishCompletionFile(in("copse.fish"), true), root.GenPowerShellCompletionFileWithDesc(in("copse.ps1")),
			} {
				if err != nil {
					return failf("%w", err)
				}
			}
			return nil
		},
	}
}
