package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/storage"
)

const (
	// readyTimeout bounds the reads behind /readyz: slower than this is not ready.
	readyTimeout = 2 * time.Second
	// maxClockBehind is how far a clock may be set back, as time servers do, without a word. Tokens have
	// as much leeway.
	maxClockBehind = time.Minute
)

// Condition is one thing that /readyz looks at.
// Name is what readinessDo goes by, too.
type Condition struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Warning: decisions go on all the same, so that the server stays ready.
	Warning bool   `json:"warning,omitempty"`
	Detail  string `json:"detail,omitempty"` // why not
}

// Readiness is the answer of /readyz.
// Checks has what was looked at: after one that makes the rest meaningless, no more.
type Readiness struct {
	Ready  bool        `json:"ready"`
	Checks []Condition `json:"checks"`
}

// selfTest refuses to start on what would lose writes or decide wrongly. The backend has seen to
// SQLite's version and that the directory can be written, and the access keys see to the master key.
// A server in memory has neither disk nor stored times.
func (s *Server) selfTest(ctx context.Context) error {
	if s.sqlite == nil {
		return nil
	}
	if err := s.checkFree(); err != nil {
		return err
	}
	newest, err := s.sqlite.Newest(ctx)
	if err != nil {
		return err
	}
	err = clockBehind(time.Now(), newest)
	if err != nil && s.cfg.AllowClockBehind {
		s.log.Warn("the clock may be wrong; expired tokens pass when it is", "error", err)
		return nil
	}
	return err
}

// checkFree wraps storage.ErrFull when there is not the room that was asked for.
func (s *Server) checkFree() error {
	free, ok := s.sqlite.Free()
	if need := uint64(s.cfg.MinFreeBytes); ok && free < need {
		return fmt.Errorf("%w on the disk of %s: %d bytes are free and --min-free-bytes asks for %d; make room or ask for less",
			storage.ErrFull, s.cfg.DataDir, free, need)
	}
	return nil
}

// clockBehind is Invalid when the newest stored time has not come yet. A clock that runs ahead can't be
// told this way; it refuses tokens, which is noticed.
func clockBehind(now, newest time.Time) error {
	if behind := newest.Sub(now); behind > maxClockBehind {
		return copse.Errorf(copse.Invalid, "the clock says %s, but the newest change was stored at %s, %s later: set the clock, or if it was wrong then, give --allow-clock-behind until the next change is stored",
			now.UTC().Format(time.RFC3339), newest.UTC().Format(time.RFC3339), behind.Round(time.Second))
	}
	return nil
}

// probe is one look at what /readyz reads from storage.
type probe struct {
	done                 chan struct{}
	storage, clock, keys error
}

// probing lets one probe run at a time, which those who ask meanwhile share: on a disk that hangs neither
// answers nor goroutines may gather.
type probing struct {
	mu       sync.Mutex
	underWay *probe
}

// wait is nil when the probe has not ended with ctx.
func (p *probing) wait(ctx context.Context, look func(context.Context, *probe)) *probe {
	p.mu.Lock()
	current := p.underWay
	if current == nil {
		current = &probe{done: make(chan struct{})}
		p.underWay = current
		go func() {
			look(context.WithoutCancel(ctx), current)
			p.mu.Lock()
			p.underWay = nil
			p.mu.Unlock()
			close(current.done)
		}()
	}
	p.mu.Unlock()
	select {
	case <-current.done:
		return current
	case <-ctx.Done():
		return nil
	}
}

// look reads from storage, not from a cache, and ends at the first thing without which the next means nothing. It
// writes p, which nobody reads before p.done is closed.
func (s *Server) look(ctx context.Context, p *probe) {
	if _, p.storage = s.backend.Head(ctx, storage.Directory()); p.storage != nil {
		return
	}
	if s.sqlite != nil {
		newest, err := s.sqlite.Newest(ctx)
		if p.storage = err; err != nil {
			return
		}
		p.clock = clockBehind(time.Now(), newest)
	}
	p.keys = s.Access.CheckMasterKey(ctx)
}

// readiness means that a decision could be made now. That the disk is nearly full stops writes and no
// decisions: turning callers away would make more of it than it is.
func (s *Server) readiness(ctx context.Context) Readiness {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	out := Readiness{Ready: true}
	// What the caller is told is detail, where there is one: the error itself may name files and is for the log.
	add := func(name string, err error, warning bool, detail string) {
		c := Condition{Name: name, OK: err == nil, Warning: warning && err != nil}
		if err != nil {
			if c.Detail = detail; detail == "" {
				c.Detail = err.Error()
			}
			out.Ready = out.Ready && warning
			s.log.Warn("not well", "check", name, "error", err, "ready", warning)
		}
		out.Checks = append(out.Checks, c)
	}
	var draining error
	if s.draining.Load() {
		draining = errors.New("the server was told to end")
	}
	add("draining", draining, false, "the server was told to end: send new requests elsewhere")
	p := s.probing.wait(ctx, s.look)
	// The probe goes on; whoever asks next shares it or finds its end.
	if p == nil {
		add("storage", context.DeadlineExceeded, false, fmt.Sprintf("storage does not answer within %s", readyTimeout))
		return out
	}
	add("storage", p.storage, false, "the directory can't be read; the log says why")
	if p.storage != nil {
		return out
	}
	// Damage is a warning: it is of some policy stores, and the others are decided as before.
	add("data", s.backend.met(), true, "")
	add("keys", p.keys, false, "the master key does not open what is stored; the log says more")
	if s.sqlite == nil {
		return out
	}
	add("clock", p.clock, s.cfg.AllowClockBehind, "")
	add("disk", s.checkFree(), true, "")
	return out
}

// ready is for machines by its status, for people by its body. The operations listener asks for no
// credential, so the body names no tenant and no key.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	out := s.readiness(r.Context())
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !out.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(out)
}
