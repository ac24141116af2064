package access

import (
	"bytes"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
	"github.com/copse-authz/copse/internal/storage/memory"
)

const (
	rootID     = "ROOTKEYFORTESTS00001"
	rootSecret = "root-secret_of/the+tests=1234"
)

func testMaster(b byte) MasterKey { return bytes.Repeat([]byte{b}, MasterKeySize) }

// newService makes a Service with a root key over its own memory backend.
func newService(t *testing.T, adjust ...func(*Config)) *Service {
	t.Helper()
	cfg := Config{MasterKey: testMaster(7), RootID: rootID, Root: rootSecret, Metrics: prometheus.NewRegistry()}
	for _, f := range adjust {
		f(&cfg)
	}
	if cfg.Backend == nil {
		backend := memory.New()
		t.Cleanup(func() { _ = backend.Close() })
		cfg.Backend = backend
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func over(b storage.Backend) func(*Config) { return func(c *Config) { c.Backend = b } }

// createKey makes a key, and what it is of if that is not there.
func createKey(t *testing.T, s *Service, k Key) (Key, Secret) {
	t.Helper()
	stand(t, s, k.Scope)
	made, secret, err := s.CreateKey(t.Context(), System(), k)
	if err != nil {
		t.Fatal(err)
	}
	return made, secret
}

func wantKind(t *testing.T, err error, kind copse.Kind) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %v", kind)
	}
	if got := copse.KindOf(err); got != kind {
		t.Fatalf("kind %v (%v), want %v", got, err, kind)
	}
}

func wantReason(t *testing.T, err error, reason Reason) {
	t.Helper()
	if got := ReasonOf(err); got != reason {
		t.Fatalf("reason %q (%v), want %q", got, err, reason)
	}
}

// failureCounts reads copse_access_failures_total by reason.
func failureCounts(t *testing.T, g prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]float64{}
	for _, family := range families {
		if family.GetName() != "copse_access_failures_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			for _, label := range m.GetLabel() {
				if label.GetName() != "reason" {
					t.Errorf("label %q: only the reason may be one", label.GetName())
				}
				counts[label.GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	return counts
}

func TestEveryReasonIsCounted(t *testing.T) {
	registry := prometheus.NewRegistry()
	s := newService(t, func(c *Config) { c.Metrics = registry })
	counts := failureCounts(t, registry)
	if len(counts) != len(Reasons()) {
		t.Errorf("%d label values before the first failure, want %d", len(counts), len(Reasons()))
	}
	_, err := s.Bearer(t.Context(), "copse_nonsense")
	wantReason(t, err, InvalidCredential)
	if got := failureCounts(t, registry)[string(InvalidCredential)]; got != 1 {
		t.Errorf("counted %v failures, want 1", got)
	}
	if ReasonOf(nil) != "" || ReasonOf(copse.Errorf(copse.Internal, "x")) != "" {
		t.Error("a reason for an error that is none of ours")
	}
}

func TestNewRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		adjust func(*Config)
		names  string // what the message must name
	}{
		"no master key":            {func(c *Config) { c.MasterKey = nil }, "master key"},
		"short master key":         {func(c *Config) { c.MasterKey = make([]byte, 16) }, "master key"},
		"root id with underscore":  {func(c *Config) { c.RootID = "ROOT_KEY_FOR_TESTS" }, "id"},
		"root id too short":        {func(c *Config) { c.RootID = "ROOT" }, "id"},
		"root secret without id":   {func(c *Config) { c.RootID = "" }, "id"},
		"root id without secret":   {func(c *Config) { c.Root = "" }, "secret"},
		"root secret guessable":    {func(c *Config) { c.Root = "hunter2" }, "secret"},
		"root secret with a space": {func(c *Config) { c.Root = "a secret with some spaces" }, "secret"},
	} {
		t.Run(name, func(t *testing.T) {
			backend := memory.New()
			defer func() { _ = backend.Close() }()
			cfg := Config{Backend: backend, MasterKey: testMaster(7), RootID: rootID, Root: rootSecret}
			if s, err := New(cfg); err != nil {
				t.Fatal(err)
			} else if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			c.adjust(&cfg)
			_, err := New(cfg)
			wantKind(t, err, copse.Invalid)
			if !strings.Contains(err.Error(), c.names) {
				t.Errorf("%q does not name the %s", err, c.names)
			}
			if cfg.Root != "" && strings.Contains(err.Error(), string(cfg.Root)) {
				t.Errorf("%q shows the secret", err)
			}
		})
	}
}
