package server

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/copse-authz/copse"
)

// ValidateFiles looks at what a configuration names: that files can be read and hold what they should, and
// that the addresses may be listened on. It changes nothing and opens no socket. Warnings are for people:
// a server starts all the same.
func (c *Config) ValidateFiles() (warnings []string, err error) {
	// All mistakes are collected: one at a time would take as many attempts as there are.
	errs := []error{c.ValidateListen()}
	warning, err := checkTLS(c)
	if errs = append(errs, err); warning != "" {
		warnings = append(warnings, warning)
	}
	if c.MasterKeyFile != "" {
		if _, err := os.Stat(c.MasterKeyFile); err != nil {
			errs = append(errs, copse.Errorf(copse.Invalid, "--master-key-file: %w", err))
		}
	}
	if kind, file, _ := strings.Cut(c.DecisionLogExport, ":"); kind == "file" {
		if info, err := os.Stat(filepath.Dir(file)); err != nil || !info.IsDir() {
			errs = append(errs, copse.Errorf(copse.Invalid, "--decision-log-export: %s is in no directory that can be reached", file))
		}
	}
	if _, err := newRouteFile(c.RoutesFile, slog.New(slog.DiscardHandler)); err != nil {
		errs = append(errs, err)
	}
	if info, err := os.Stat(c.DataDir); err == nil && !info.IsDir() {
		errs = append(errs, copse.Errorf(copse.Invalid, "--data %s is not a directory", c.DataDir))
	}
	return warnings, errors.Join(errs...)
}

// nearest is the setting that a misspelt key was meant to be; empty when none is near.
// Near is what takes at most three edits.
func nearest(key string) string {
	best, distance := "", 4
	for _, s := range Settings() {
		if d := editDistance(key, s.Key); d < distance {
			best, distance = s.Key, d
		}
	}
	return best
}

// editDistance counts the letters to insert, remove or change (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := before
			if a[i] != b[j] {
				cost++
			}
			before = row[j+1]
			row[j+1] = min(cost, row[j]+1, before+1)
		}
	}
	return row[len(b)]
}
