package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/copse-authz/copse"
)

// notSettings are variables named COPSE_ that other parts of copse read.
var notSettings = map[string]bool{"COPSE_URL": true, "COPSE_KEY": true, "COPSE_CONFIG": true,
	"COPSE_CA": true, "COPSE_CLIENT_CERT": true, "COPSE_CLIENT_KEY": true}

// LoadConfig is the defaults, then the file (unless file is empty), then the environment ("NAME=value"
// each, as os.Environ returns them). Flags come after it, with [Config.Set]. What it does not know it
// refuses, naming file, line and key: a misspelt setting must not be a setting silently left out. The error tells of
// all mistakes, a line each.
func LoadConfig(file string, environ []string) (Config, error) {
	cfg := DefaultConfig()
	var errs []error
	if file != "" {
		errs = cfg.loadFile(file)
	}
	if errs = append(errs, cfg.loadEnviron(environ)...); len(errs) > 0 {
		return Config{}, errors.Join(errs...)
	}
	return cfg, nil
}

// loadFile walks YAML's nodes, which know their lines, rather than decode into a struct. What is misspelt, twice or no plain
// value is refused: a setting that is silently not in effect may be one that secures the server.
func (c *Config) loadFile(file string) (errs []error) {
	text, mode, err := readWithMode(file)
	if err != nil {
		return []error{copse.Errorf(copse.Invalid, "configuration file: %w", err)}
	}
	var doc, behind yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	if err = decoder.Decode(&doc); err == nil {
		err = decoder.Decode(&behind)
	}
	switch {
	case err == nil:
		return []error{copse.Errorf(copse.Invalid, "%s:%d: a second document begins here, which would not be read: put all settings into one", file, behind.Line)}
	case !errors.Is(err, io.EOF):
		return []error{copse.Errorf(copse.Invalid, "%s: %s", file, strings.TrimPrefix(err.Error(), "yaml: "))}
	}
	if doc.Kind == 0 { // an empty file
		return nil
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return []error{copse.Errorf(copse.Invalid, "%s:%d: expected settings, one \"key: value\" a line", file, root.Line)}
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if line, dup := seen[key.Value]; dup {
			errs = append(errs, copse.Errorf(copse.Invalid, "%s:%d: %s is set twice, first in line %d", file, key.Line, key.Value, line))
			continue
		}
		seen[key.Value] = key.Line
		if err := c.loadSetting(file, mode, key, value); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

func (c *Config) loadSetting(file string, mode fs.FileMode, key, value *yaml.Node) (err error) {
	if key.Value == endpointsKey {
		c.IssuerEndpoints, err = loadEndpoints(file, value)
		return err
	}
	if value.Kind != yaml.ScalarNode || value.Tag == "!!null" {
		return copse.Errorf(copse.Invalid, "%s:%d: %s needs one plain value", file, value.Line, key.Value)
	}
	// The group may read: that is how orchestrators hand files to a process that is not root.
	if key.Value == rootSecretKey && value.Value != "" && mode&0o007 != 0 {
		return copse.Errorf(copse.Invalid, "%s:%d: the file holds %s and has mode %04o, so everyone can reach it; run: chmod 600 %s",
			file, key.Line, key.Value, mode, file)
	}
	if err := c.Set(key.Value, value.Value); err != nil {
		return copse.Errorf(copse.Invalid, "%s:%d: %s: %s", file, key.Line, key.Value, detail(err))
	}
	return nil
}

func (c *Config) loadEnviron(environ []string) (errs []error) {
	for _, name := range UnknownVariables(environ) {
		errs = append(errs, copse.Errorf(copse.Invalid, "environment: there is no setting %s", name))
	}
	byEnv := settingsByEnv()
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		s, ok := byEnv[name]
		if !ok {
			continue
		}
		if err := s.set(c, value); err != nil {
			errs = append(errs, copse.Errorf(copse.Invalid, "environment: %s: %s", name, detail(err)))
		}
	}
	return errs
}

// UnknownVariables are those whose names begin with COPSE_ and that no part of copse reads.
func UnknownVariables(environ []string) (names []string) {
	byEnv := settingsByEnv()
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if _, ok := byEnv[name]; !ok && strings.HasPrefix(name, "COPSE_") && !notSettings[name] && !serviceLink(name) {
			names = append(names, name)
		}
	}
	return names
}

func settingsByEnv() map[string]Setting {
	byEnv := map[string]Setting{}
	for _, s := range Settings() {
		byEnv[s.Env()] = s
	}
	return byEnv
}

// serviceLink knows the variables Kubernetes puts into every container beside a service named copse.
func serviceLink(name string) bool {
	return name == "COPSE_PORT" || strings.HasPrefix(name, "COPSE_PORT_") || strings.HasPrefix(name, "COPSE_SERVICE_")
}

func detail(err error) string {
	if e, ok := errors.AsType[*copse.Error](err); ok {
		return e.Detail
	}
	return fmt.Sprint(err)
}
