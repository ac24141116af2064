package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

// completionCommand prints scripts that call this same binary at each Tab: they need not change when flags do.
// Completion of tenants' names uses the variables of the shell it runs in: COPSE_URL and COPSE_KEY.
func (a *app) completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print a completion script for a shell",
		Long: `Print a script that teaches a shell to complete copse's commands and flags.

Load it once per shell, or put it where the shell looks for completions.`,
		Example: `  # this shell
  source <(copse completion bash)

  # every new zsh
  copse completion zsh > "${fpath[1]}/_copse"

  # fish
  copse completion fish > ~/.config/fish/completions/copse.fish`,
		Args:      args(1, 1, "the name of a shell"),
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.stdout, true)
			case "zsh":
				return root.GenZshCompletion(a.stdout)
			case "fish":
				return root.GenFishCompletion(a.stdout, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.stdout)
			}
			return usagef("there is no completion for %q; %s", args[0], fmt.Sprint("use one of ", shells))
		},
	}
}

// completeTenant offers the tenants the key covers, for the first argument only. It asks the server, so it is
// given up early: a shell that hangs on Tab is worse than one that offers nothing. Errors offer nothing either,
// since a completion has nowhere to say them.
func (a *app) completeTenant(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c, err := a.newClient()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	// For all pages of the list together.
	ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
	defer cancel()
	all, err := c.tenants(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, tenant := range all.Tenants {
		names = append(names, tenant.Tenant)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeTenantFlag does the same for a command's --tenant, which must be there already.
func (a *app) completeTenantFlag(cmd *cobra.Command) {
	// The flag's value is asked for whatever arguments came before.
	complete := func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return a.completeTenant(cmd, nil, prefix)
	}
	// The error would be a flag that is not there, or is registered twice.
	_ = cmd.RegisterFlagCompletionFunc("tenant", complete)
}
