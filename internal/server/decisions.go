package server

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"strings"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/decisionlog"
)

// The two ways of decision-log-full.
const (
	fullDrop = "drop"
	fullWait = "wait"
)

func (c *Config) validateDecisionLog() error {
	if c.DecisionLogFull != fullDrop && c.DecisionLogFull != fullWait {
		return copse.Errorf(copse.Invalid, "--decision-log-full %q must be drop or wait", c.DecisionLogFull)
	}
	kind, place, _ := strings.Cut(c.DecisionLogExport, ":")
	if c.DecisionLogExport != "" && c.DecisionLogExport != "stdout" && (place == "" || kind != "file" && kind != "otlp") {
		return copse.Errorf(copse.Invalid, "--decision-log-export %q must be stdout, file:PATH or otlp:URL", c.DecisionLogExport)
	}
	if c.DecisionLogExport != "" && !c.DecisionLog {
		return copse.Errorf(copse.Invalid, "--decision-log-export needs the decision log: leave --decision-log=false out")
	}
	return nil
}

// decisionsDir is the log in the data directory.
const decisionsDir = "decisions"

// decisionKeys is what keys of the decision log are kept for.
const decisionKeys = "decision-log-key"

// openDecisionLog comes before the policy stores: a deletion that goes on takes their lines with it. It is
// also open where nothing is recorded, because there may be lines of earlier times.
func (s *Server) openDecisionLog(ctx context.Context) error {
	if s.cfg.InMemory {
		return nil
	}
	cfg := decisionlog.Config{
		Dir: filepath.Join(s.cfg.DataDir, decisionsDir), Wait: s.cfg.DecisionLogFull == fullWait,
		SegmentBytes: s.cfg.DecisionLogSegmentBytes, SegmentAge: s.cfg.DecisionLogSegmentAge,
		RetainBytes: s.cfg.DecisionLogRetainBytes, RetainAge: s.cfg.DecisionLogRetainAge,
		Keys: map[string]ed25519.PublicKey{}, Log: s.log, Metrics: s.registry,
	}
	secrets, err := s.Access.Secrets(ctx, decisionKeys)
	if err != nil {
		return err
	}
	if len(secrets) == 0 {
		seed := make([]byte, ed25519.SeedSize)
		_, _ = rand.Read(seed)
		made := access.ServerSecret{Purpose: decisionKeys, Name: decisionKeyID(seed), Value: access.Secret(seed), CreatedAt: time.Now().UTC()}
		if err := s.Access.PutSecret(ctx, made); err != nil {
			return err
		}
		secrets = append(secrets, made)
	}
	var newest time.Time
	for _, secret := range secrets {
		key := ed25519.NewKeyFromSeed([]byte(secret.Value))
		public, _ := key.Public().(ed25519.PublicKey)
		cfg.Keys[secret.Name] = public
		if cfg.Key == nil || secret.CreatedAt.After(newest) {
			cfg.Key, cfg.KeyID, newest = key, secret.Name, secret.CreatedAt
		}
	}
	export, err := s.openExport()
	if err != nil {
		return err
	}
	if export != nil {
		cfg.Export = export.Write
		s.closers = append(s.closers, export.Close)
	}
	if s.decisions, err = decisionlog.Open(cfg); err != nil {
		return err
	}
	s.closers = append(s.closers, s.decisions.Close)
	return nil
}

// decisionKeyID names a key by its public half.
func decisionKeyID(seed []byte) string {
	public, _ := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	sum := sha256.Sum256(public)
	return hex.EncodeToString(sum[:8])
}

func (s *Server) openExport() (*decisionlog.Export, error) {
	kind, place, _ := strings.Cut(s.cfg.DecisionLogExport, ":")
	cfg := decisionlog.ExportConfig{Log: s.log, Metrics: s.registry}
	switch kind {
	case "":
		return nil, nil
	case "stdout":
		if s.cfg.Stdout == nil {
			return nil, copse.Errorf(copse.Invalid, "--decision-log-export stdout: this program has no standard output to give")
		}
		cfg.Writer = s.cfg.Stdout
	case "file":
		cfg.File = place
	case "otlp":
		cfg.Collector = place
	}
	return decisionlog.NewExport(cfg)
}

// record is what the transports hand decisions to; nil without a decision log.
func (s *Server) record() func(context.Context, *decisionlog.Entry) error {
	if !s.cfg.DecisionLog || s.decisions == nil {
		return nil
	}
	return s.decisions.Record
}
