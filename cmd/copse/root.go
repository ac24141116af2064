package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

const rootLong = `copse decides for many tenants, each by its own Cedar policy store: a user's token in, an answer out.

  copse dev      tries it: a server on this machine with three sample tenants, everything ready to paste
  copse serve    is the same server for real use, on a data directory

The other commands administer a server over HTTP. They find it by COPSE_URL (or --url) and show the
access key in COPSE_KEY (or --key); "copse dev" prints both, "copse serve" leaves the first key in its
data directory.`

const rootExample = `  # a server to try things on; it prints the two variables the other commands need
  copse dev

  # a tenant with its own schema and policies
  copse tenant create acme --schema acme.cedarschema --policies policies/

  # what would alice be answered?
  copse authorize --token "$(copse dev token --tenant acme --user alice)" \
      --action view --resource 'Invoice::"42"'`

// rootCommand builds the whole tree of commands anew, on a's arguments and streams. Every command prints its
// errors through [report] and none by itself, which is why cobra's own printing is off.
func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "copse",
		Short:         "One Cedar policy store per tenant",
		Long:          rootLong,
		Example:       rootExample,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return cmd.Help()
		},
		// Runs before every command: none of them sets a PersistentPreRunE of its own, which would replace
		// this.
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if !slices.Contains(outputs(), a.output) {
				return usagef("--output is table or json, not %q", a.output)
			}
			return nil
		},
	}
	// There is a completion command of our own, in the group of the others.
	root.CompletionOptions.DisableDefaultCmd = true
	// cobra's own message names neither the command nor what to do.
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		// Go's durations end at hours, and people write days.
		hint := ""
		if strings.Contains(err.Error(), `unknown unit "d"`) || strings.Contains(err.Error(), `unknown unit "w"`) {
			hint = "; the largest unit is the hour: 30 days are 720h"
		}
		return usagef("%s: %v%s; `%s --help` lists the flags", cmd.CommandPath(), err, hint, cmd.CommandPath())
	})
	flags := root.PersistentFlags()
	flags.StringVar(&a.url, "url", "", "address of the server (COPSE_URL)")
	flags.StringVar(&a.key, "key", "", "access key, copse_<id>_<secret>; better in COPSE_KEY, where other users of this machine can't see it")
	flags.StringVar(&a.ca, "ca", "", "PEM file of what the server's certificate chains to, if the system does not know it (COPSE_CA)")
	flags.StringVar(&a.clientCert, "client-cert", "", "PEM file of a certificate to show to the server (COPSE_CLIENT_CERT)")
	flags.StringVar(&a.clientKey, "client-key", "", "PEM file of its key (COPSE_CLIENT_KEY)")
	flags.StringVarP(&a.output, "output", "o", "table", "table or json")
	// The error would be a flag that is not there, or is registered twice.
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs(), cobra.ShellCompDirectiveNoFileComp))

	root.AddGroup(
		&cobra.Group{ID: groupServer, Title: "Servers:"},
		&cobra.Group{ID: groupAdmin, Title: "Administration:"},
		&cobra.Group{ID: groupAbout, Title: "About copse:"},
	)
	// cobra's help command is listed under a heading as well.
	root.SetHelpCommandGroupID(groupAbout)
	// A command without a heading would stand apart from all in the help.
	add := func(id string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	add(groupServer, a.devCommand(), a.serveCommand(), a.configCommand(), a.backupCommand(), a.restoreCommand(), a.checkCommand(), a.compactCommand(), a.doctorCommand(), a.debugCommand())
	add(groupAdmin, a.tenantCommand(), a.policyCommand(), a.templateCommand(), a.schemaCommand(), a.storeCommand(), a.planCommand(), a.usageCommand(), a.authorizeCommand(), a.issuerCommand(), a.keyCommand(), a.decisionsCommand(), a.auditCommand(), a.importCommand(), a.exportCommand(), a.memberCommand(), a.rlsCommand(), a.routesCommand())
	add(groupAbout, a.versionCommand(), a.completionCommand(), a.generateCommand())
	root.AddCommand(exitCodesTopic())
	return root
}

// The three headings of the help.
const (
	groupServer = "server"
	groupAdmin  = "admin"
	groupAbout  = "about"
)

// outputs are the values of --output. table is for people, json for programs.
func outputs() []string { return []string{"table", "json"} }

// exitCodesTopic has no Run, which makes it a help topic: `copse help exit-codes`.
func exitCodesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit codes mean",
		Long: `Every copse command ends with one of these codes:

  0  it did what it was asked to; also a server that was told to end (Ctrl-C, SIGTERM)
  1  it failed, and the message says why; also a tour with an answer that differs, and a policy
     check or rls check with findings, a check of a data directory or a backup, and a doctor that found an error
  2  the command line, the environment or the configuration file is wrong, or a file that belongs to
     the server is missing: its key, its database; nothing was changed
  3  the data directory is in use by another copse
  4  the data directory was written by a newer copse
  5  the data directory can't be written to, or its disk is full
  6  the address to listen on is taken

An answer of DENY is an answer: "copse authorize" ends with 0.`,
		Example: `  copse serve --data /var/lib/copse || test $? -eq 3 && echo "already running"`,
	}
}
