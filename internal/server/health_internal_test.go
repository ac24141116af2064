package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/access"
	"github.com/copse-authz/copse/internal/storage"
)

// used is the configuration of a server that has stored something, and has ended.
func used(t *testing.T) Config {
	t.Helper()
	cfg := DefaultConfig()
	cfg.DataDir = t.TempDir()
	cfg.PublicURL = "https://copse.example"
	openAndClose(t, cfg)
	return cfg
}

func openAndClose(t *testing.T, cfg Config) {
	t.Helper()
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func wantNoStart(t *testing.T, cfg Config, words ...string) error {
	t.Helper()
	s, err := Open(t.Context(), cfg)
	if err == nil {
		_ = s.Close()
		t.Fatal("it starts")
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%v: does not say %q", err, word)
		}
	}
	return err
}

// readyz asks without a socket, so that it can be asked in a synctest bubble.
func readyz(t *testing.T, s *Server) (Readiness, map[string]Condition) {
	t.Helper()
	w := httptest.NewRecorder()
	s.opsHandler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	var out Readiness
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("%v: %s", err, w.Body)
	}
	if (w.Code == http.StatusOK) != out.Ready {
		t.Errorf("status %d, ready %v", w.Code, out.Ready)
	}
	byName := map[string]Condition{}
	for _, c := range out.Checks {
		byName[c.Name] = c
		if c.OK != (c.Detail == "") {
			t.Errorf("%+v: a reason exactly when it is not well", c)
		}
	}
	return out, byName
}

func TestSelfTestNeedsRoom(t *testing.T) {
	cfg := used(t)
	cfg.MinFreeBytes = 1 << 60
	if err := wantNoStart(t, cfg, cfg.DataDir, "--min-free-bytes", "make room"); !errors.Is(err, storage.ErrFull) {
		t.Errorf("%v is not ErrFull, so the exit code is wrong", err)
	}
	cfg.MinFreeBytes = 0
	openAndClose(t, cfg)
}

// In a bubble it is the year 2000.
func TestSelfTestNeedsAClockThatWentOn(t *testing.T) {
	cfg := used(t)
	synctest.Test(t, func(t *testing.T) {
		if err := wantNoStart(t, cfg, "the clock says 2000-01-01", "set the clock", "--allow-clock-behind"); copse.KindOf(err) != copse.Invalid {
			t.Errorf("%v is not Invalid", err)
		}
		allowed := cfg
		allowed.AllowClockBehind = true
		s, err := Open(t.Context(), allowed)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		if r, checks := readyz(t, s); !r.Ready || checks["clock"].OK || !checks["clock"].Warning {
			t.Errorf("allowed: %+v", r)
		}
		s.cfg.AllowClockBehind = false // as if it went back while the server runs
		if r, checks := readyz(t, s); r.Ready || checks["clock"].OK || !checks["storage"].OK {
			t.Errorf("a clock that went back: %+v", r)
		}
		// What is stored next is the newest again.
		if _, _, err := s.Access.CreateKey(t.Context(), access.System(), access.Key{Scope: access.Scope{All: true}, Verbs: access.Read}); err != nil {
			t.Fatal(err)
		}
		if r, _ := readyz(t, s); !r.Ready {
			t.Errorf("after a change: %+v", r)
		}
	})
	openAndClose(t, cfg)
}

// A small step back is what time servers do.
func TestClockBehind(t *testing.T) {
	now := time.Now()
	for ahead, wrong := range map[time.Duration]bool{-time.Hour: false, 0: false, maxClockBehind: false, maxClockBehind + 1: true, 24 * time.Hour: true} {
		if err := clockBehind(now, now.Add(ahead)); (err != nil) != wrong {
			t.Errorf("%s ahead: %v", ahead, err)
		}
	}
	if err := clockBehind(now, time.Time{}); err != nil {
		t.Errorf("nothing stored: %v", err)
	}
}

func TestSelfTestNeedsTheMasterKey(t *testing.T) {
	for name, prepare := range map[string]func(*testing.T, *Server){
		"server-secret": func(*testing.T, *Server) {}, // the one that contexts are signed with
		"access-key": func(t *testing.T, s *Server) {
			if _, _, err := s.Access.CreateKey(t.Context(), access.System(), access.Key{Scope: access.Scope{All: true}, Verbs: access.Read}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := used(t)
			s, err := Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			prepare(t, s)
			if r, checks := readyz(t, s); !r.Ready || len(checks) != 6 {
				t.Errorf("%+v", r)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(cfg.DataDir, access.MasterKeyFile)
			if err := os.WriteFile(file, bytes.Repeat([]byte("ab"), access.MasterKeySize), 0o600); err != nil {
				t.Fatal(err)
			}
			wantNoStart(t, cfg, "master key", name, "bring back the master key file")
		})
	}
}

func TestSelfTestNeedsADirectoryItCanWrite(t *testing.T) {
	cfg := DefaultConfig()
	cfg.DataDir = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(cfg.DataDir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantNoStart(t, cfg, cfg.DataDir, "not writable")
}

func TestReadyzSaysWhyNot(t *testing.T) {
	s, err := Open(t.Context(), used(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	s.cfg.MinFreeBytes = 1 << 60
	if r, checks := readyz(t, s); !r.Ready || checks["disk"].OK || !checks["disk"].Warning {
		t.Errorf("nearly full, which stops no decision: %+v", r)
	}
	s.draining.Store(true)
	if r, checks := readyz(t, s); r.Ready || checks["draining"].OK || !checks["storage"].OK {
		t.Errorf("draining: %+v", r)
	}
	s.draining.Store(false)
	if err := s.backend.Close(); err != nil {
		t.Fatal(err)
	}
	if r, checks := readyz(t, s); r.Ready || checks["storage"].OK {
		t.Errorf("storage is closed: %+v", r)
	}
}

// A read that never ends is waited for once, by all who ask, and for a bounded time.
func TestProbesOfADiskThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p probing
		looks := 0
		disk := make(chan struct{})
		look := func(context.Context, *probe) { looks++; <-disk }
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
			if p.wait(ctx, look) != nil {
				t.Error("a probe that hangs has a result")
			}
			cancel()
		}
		synctest.Wait()
		if looks != 1 {
			t.Errorf("%d looks at once", looks)
		}
		close(disk)
		synctest.Wait()
		if p.wait(t.Context(), look) == nil || looks != 2 {
			t.Errorf("the disk is back: %d looks", looks)
		}
	})
}
