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
	"github.com/copse-authz/copse/internal/auditlog"
	"github.com/copse-authz/copse/internal/decisionlog"
	"github.com/copse-authz/copse/internal/policystore"
)

// validateDecisionLog also refuses to have policy stores wait for a log that is not kept: they could not decide.
func (c *Config) validateDecisionLog() error {
	full := policystore.LogFull(c.DecisionLogFull)
	if full != policystore.LogDrop && full != policystore.LogWait {
		return copse.Errorf(copse.Invalid, "--decision-log-full %q must be drop or wait", c.DecisionLogFull)
	}
	if full == policystore.LogWait && (!c.DecisionLog || c.InMemory) {
		return copse.Errorf(copse.Invalid, "--decision-log-full wait needs the decision log: no decision of a new policy store could be given")
	}
	kind, place, _ := strings.Cut(c.DecisionLogExport, ":")
	if c.DecisionLogExport != "" && c.DecisionLogExport != "stdout" && (place == "" || kind != "file" && kind != "otlp") {
		return copse.Errorf(copse.Invalid, "--decision-log-export must be stdout, file:PATH or otlp:URL")
	}
	if kind == "otlp" && !decisionlog.IsCollectorURL(place) {
		// Not quoted: what is wrong with it may be that there is a password in it.
		return copse.Errorf(copse.Invalid, "--decision-log-export otlp: that is not the URL of a collector, such as otlp:http://127.0.0.1:4318, without a user, a query or a fragment")
	}
	if c.DecisionLogExport != "" && !c.DecisionLog {
		return copse.Errorf(copse.Invalid, "--decision-log-export needs the decision log: leave --decision-log=false out")
	}
	return nil
}

// audit is the audit log as callers may see it.
func (s *Server) audit() *auditlog.Log {
	return auditlog.New(auditlog.Config{Backend: s.backend, Owner: s.PolicyStores.Owner, Lookup: s.Tenants.Lookup})
}

// decisionsDir is the log in the data directory.
const decisionsDir = "decisions"

// What keys of the decision log are kept for: those that sign it, and the one that hashes what rules say.
// They are purposes of [access.ServerSecret], and so in the data, sealed under the master key.
const (
	decisionKeys     = "decision-log-key"
	decisionHashKeys = "decision-log-hash"
)

// openDecisionLog comes before the policy stores: a deletion that goes on takes their lines with it. It is
// also open where nothing is recorded, because there may be lines of earlier times.
func (s *Server) openDecisionLog(ctx context.Context) error {
	if s.cfg.InMemory {
		return nil
	}
	cfg := decisionlog.Config{
		Dir:          filepath.Join(s.cfg.DataDir, decisionsDir),
		SegmentBytes: s.cfg.DecisionLogSegmentBytes, SegmentAge: s.cfg.DecisionLogSegmentAge,
		RetainBytes: s.cfg.DecisionLogRetainBytes, RetainAge: s.cfg.DecisionLogRetainAge,
		Keys: map[string]ed25519.PublicKey{}, Log: s.log, Metrics: s.registry,
	}
	secrets, err := s.decisionSecrets(ctx, decisionKeys, ed25519.SeedSize, decisionKeyID)
	if err != nil {
		return err
	}
	var newest time.Time
	// All keys verify, the newest signs: segments of earlier keys must go on to verify.
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
	// Closed after the log that writes to it, since closers run backwards.
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

// logHashKey is what hashes in the decision log are made with. It outlives the master key, so that what was
// hashed alike before that was changed is after it.
func (s *Server) logHashKey(ctx context.Context) ([]byte, error) {
	if s.cfg.InMemory {
		return nil, nil
	}
	secrets, err := s.decisionSecrets(ctx, decisionHashKeys, sha256.Size, func([]byte) string { return "1" })
	if err != nil {
		return nil, err
	}
	return []byte(secrets[0].Value), nil
}

// decisionSecrets are those of a purpose, one of which is made when there is none.
// There is at least one, without an error. name gives a new one its name, which is stored in the clear.
func (s *Server) decisionSecrets(ctx context.Context, purpose string, size int, name func(secret []byte) string) ([]access.ServerSecret, error) {
	secrets, err := s.Access.Secrets(ctx, purpose)
	if err != nil || len(secrets) > 0 {
		return secrets, err
	}
	secret := make([]byte, size)
	_, _ = rand.Read(secret)
	made := access.ServerSecret{Purpose: purpose, Name: name(secret), Value: access.Secret(secret), CreatedAt: time.Now().UTC()}
	return []access.ServerSecret{made}, s.Access.PutSecret(ctx, made)
}

// decisionKeyID names a key by its public half.
// So a verifier that has the public key can tell the name, and the name tells nothing of the private one.
func decisionKeyID(seed []byte) string {
	public, _ := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	sum := sha256.Sum256(public)
	return hex.EncodeToString(sum[:8])
}

// openExport is nil, without an error, when lines go nowhere else.
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

// record is what the transports hand decisions to. What the log gets is what the policy store's rules leave; a
// policy store that waits for the log gives no decision without one.
func (s *Server) record(ctx context.Context, decided []decisionlog.Entry) error {
	// All are looked at before any is written, so an error leaves no line of a decision that is not given.
	for i := range decided {
		e := &decided[i]
		// An error takes the decision back: its rules may have said that it must be logged.
		logged, err := s.PolicyStores.Logged(ctx, e.PolicyStoreID, e.Incarnation, e.Request)
		if err != nil {
			return err
		}
		e.Wait, e.Principal, e.Resource = logged.Wait, logged.Principal, logged.Resource
		e.Context, e.PrincipalAttributes, e.ResourceAttributes = logged.Kept.Context, logged.Kept.Principal, logged.Kept.Resource
		if e.Wait && !s.logs() {
			return copse.Errorf(copse.Unavailable, "decisions of this policy store must be logged, and this server keeps no decision log: start it with one, or set decisionLog.full of the policy store to drop")
		}
	}
	if !s.logs() {
		return nil
	}
	return s.decisions.Record(ctx, decided)
}

// logs reports whether decisions leave lines. A log may be open without: for deletions from it.
func (s *Server) logs() bool { return s.cfg.DecisionLog && s.decisions != nil }

// Decider decides for the process that the server is in, and logs as the transports do.
// With a log that can't take a line of a policy store that waits for it, there is no decision but an error.
func (s *Server) Decider() copse.Decider {
	if !s.logs() {
		return s.PolicyStores.Decider()
	}
	return loggingDecider{s, s.PolicyStores.Decider()}
}

// loggingDecider answers only what is recorded, or may go unrecorded.
type loggingDecider struct {
	s       *Server
	decider copse.Decider
}

func (d loggingDecider) Decide(ctx context.Context, req *copse.Request) (copse.Response, error) {
	start := time.Now()
	resp, err := d.decider.Decide(ctx, req)
	if err == nil {
		err = d.s.recordOwn(ctx, start, req, &resp)
	}
	if err != nil {
		return copse.Response{}, err
	}
	return resp, nil
}

// Explain explains as Decider decides: an explanation is a decision first.
// An explanation that is not recorded where it must be is not given either.
func (s *Server) Explain(ctx context.Context, req *copse.Request) (copse.Explanation, error) {
	start := time.Now()
	out, err := s.PolicyStores.Explain(ctx, req)
	if err == nil && s.logs() {
		err = s.recordOwn(ctx, start, req, &out.Response)
	}
	if err != nil {
		return copse.Explanation{}, err
	}
	return out, nil
}

// recordOwn records a decision of this process's own.
func (s *Server) recordOwn(ctx context.Context, start time.Time, req *copse.Request, resp *copse.Response) error {
	tenant, incarnation, err := s.PolicyStores.Owner(ctx, req.PolicyStoreID)
	if err != nil {
		return err
	}
	return s.record(ctx, []decisionlog.Entry{{
		Time: start, RequestID: copse.NewID(), Via: "embedded", Tenant: tenant, PolicyStoreID: req.PolicyStoreID, Incarnation: incarnation,
		Principal: req.Principal, Action: req.Action, Resource: req.Resource,
		Response: *resp, Latency: time.Since(start), Request: req,
	}})
}
