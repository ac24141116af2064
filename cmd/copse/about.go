package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionInfo is what `copse version` says, and what bug reports quote. Version is that of the module, or
// (devel); Revision is the commit, and Modified says that the checkout had changes beside it.
type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// versionCommand asks no server and needs no key, so that it answers where nothing else does.
func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Say which copse this is",
		Long: `Say which copse this is: its version, the commit it was built from, and by which Go.

A binary built from a checkout has the version (devel), and is told apart by its commit.`,
		Example: `  copse version
  copse version --output json`,
		Args: args(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			v := readVersion()
			return a.show(v, func(t *table) {
				revision := v.Revision
				if v.Modified {
					revision += " (modified)"
				}
				t.pairs("copse", v.Version, "commit", revision, "go", v.Go, "platform", v.Platform)
			})
		},
	}
}

// readVersion is what the Go toolchain wrote into this binary. A server is told the same version, for its
// OpenAPI document, and `copse doctor` compares the two.
func readVersion() versionInfo {
	v := versionInfo{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		// Both are there in builds from a checkout only.
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}
