package server_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/copse-authz/copse/internal/server"
)

// issuer_endpoints is read, warned of, and refused where it would be half understood.
func TestIssuerEndpoints(t *testing.T) {
	dir := t.TempDir()
	load := func(text string) (server.Config, error) {
		file := filepath.Join(dir, "copse.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return server.LoadConfig(file, nil)
	}
	open := func(cfg server.Config) (string, error) {
		var log bytes.Buffer
		cfg.InMemory, cfg.DataDir = true, t.TempDir()
		cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		s, err := server.Open(context.Background(), cfg)
		if err == nil {
			err = s.Close()
		}
		return log.String(), err
	}
	const one = "  - issuer: https://idp.example\n    keys: https://10.0.0.7/keys\n"
	cfg, err := load("issuer_endpoints:\n" + one)
	if err != nil || len(cfg.IssuerEndpoints) != 1 || cfg.IssuerEndpoints[0].Keys != "https://10.0.0.7/keys" {
		t.Fatalf("%+v, %v", cfg.IssuerEndpoints, err)
	}
	if log, err := open(cfg); err != nil || !strings.Contains(log, "level=WARN") || !strings.Contains(log, "https://idp.example") {
		t.Errorf("%v, log: %s", err, log)
	}
	notPEM := filepath.Join(dir, "not.pem")
	if err := os.WriteFile(notPEM, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ text, want string }{
		"not a list":       {"issuer_endpoints: x\n", "copse.yaml:1"},
		"a misspelt entry": {"issuer_endpoints:\n" + one + "    certificate: x\n", `copse.yaml:4`},
		"no issuer":        {"issuer_endpoints:\n  - keys: https://10.0.0.7/keys\n", "no issuer"},
		"no keys":          {"issuer_endpoints:\n  - issuer: https://idp.example\n", "keys"},
		"plain http":       {"issuer_endpoints:\n  - issuer: https://idp.example\n    keys: http://10.0.0.7/keys\n", "https"},
		"a metadata host":  {"issuer_endpoints:\n  - issuer: https://idp.example\n    keys: https://169.254.169.254/keys\n", "not allowed"},
		"twice":            {"issuer_endpoints:\n" + one + one, "twice"},
		"no certificates":  {"issuer_endpoints:\n" + one + "    ca: " + notPEM + "\n", "PEM"},
		"no file":          {"issuer_endpoints:\n" + one + "    ca: " + notPEM + "x\n", "no such file"},
	} {
		cfg, err := load(c.text)
		if err == nil {
			_, err = open(cfg)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
