package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"github.com/copse-authz/copse"
	"github.com/copse-authz/copse/internal/api"
	"github.com/copse-authz/copse/internal/server"
	"github.com/copse-authz/copse/internal/storage/sqlite"
)

// answering is a client of a server that answers as the handler does: for answers that copse's own
// server gives under a race or not at all.
func answering(t *testing.T, handler http.HandlerFunc) *client {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	a := &app{url: s.URL + "/", key: "copse_id_secret"}
	c, err := a.newClient()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAnswersThatAreNotCopses(t *testing.T) {
	for name, tc := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"a proxy's error page": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<html>bad gateway</html>", http.StatusBadGateway)
		}, "answered 502 Bad Gateway, and not as a copse server does"},
		"another service": {func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "welcome")
		}, "did not answer as a copse server does"},
		"a redirect, which would take the key elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, "answered 307 Temporary Redirect"},
		"try later": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3")
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `{"error":{"kind":"Unavailable","message":"no quorum","requestId":"r1"}}`)
		}, "no quorum (try again in 3 s)"},
		"a defect": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, `{"error":{"kind":"Internal","message":"internal error","requestId":"r1"}}`)
		}, "internal error (request r1 in the server's log)"},
		"the same page for ever": {func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"tenants":[],"nextToken":"again"}`)
		}, "the server gave the same page twice"},
		"no end": {func(w http.ResponseWriter, _ *http.Request) {
			spaces := strings.Repeat(" ", 1<<20)
			for range maxResponseBytes>>20 + 1 {
				if _, err := fmt.Fprint(w, spaces); err != nil {
					return
				}
			}
		}, "answered with more than"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := answering(t, tc.handler).tenants(t.Context())
			if err == nil || !strings.Contains(err.Error(), tc.want) || exitCode(err) != exitError {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

func TestListsAreFollowedToTheEnd(t *testing.T) {
	c := answering(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer copse_id_secret" {
			t.Errorf("Authorization: %q", r.Header.Get("Authorization"))
		}
		switch r.URL.Query().Get("nextToken") {
		case "":
			fmt.Fprint(w, `{"tenants":[{"tenant":"a"}],"nextToken":"2 & 3"}`)
		case "2 & 3": // a page may be short, even empty
			fmt.Fprint(w, `{"tenants":[],"nextToken":"3"}`)
		case "3":
			fmt.Fprint(w, `{"tenants":[{"tenant":"b","new":"member"}]}`)
		}
	})
	all, err := c.tenants(t.Context())
	if err != nil || len(all.Tenants) != 2 || all.Tenants[1].Tenant != "b" || all.NextToken != "" {
		t.Errorf("tenants %+v, %v", all, err)
	}
}

// A policy store that somebody else changes meanwhile is read again once, so that the other change is
// kept; then it is a person's turn.
func TestPutIsTriedTwice(t *testing.T) {
	for collisions, wantPuts := range []int{1, 2, 2} {
		puts, revision := 0, 10
		c := answering(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				fmt.Fprintf(w, `{"revision":%d,"policies":[]}`, revision)
				return
			}
			puts++
			if want := fmt.Sprintf(`"%d"`, revision); r.Header.Get("If-Match") != want {
				t.Errorf("If-Match %s, want %s", r.Header.Get("If-Match"), want)
			}
			if puts <= collisions {
				revision++
				w.WriteHeader(http.StatusPreconditionFailed)
				fmt.Fprint(w, `{"error":{"kind":"Conflict","message":"it moved","requestId":"r"}}`)
				return
			}
			fmt.Fprint(w, `{"revision":99,"policies":[],"kept":[]}`)
		})
		edits := 0
		result, err := c.change(t.Context(), "ps", func(api.Contents) (api.PutContentsRequest, error) {
			edits++
			return api.PutContentsRequest{}, nil
		})
		if puts != wantPuts || edits != wantPuts {
			t.Errorf("%d collisions: %d puts and %d edits, want %d", collisions, puts, edits, wantPuts)
		}
		if done := collisions < 2; done != (err == nil) || done && result.Revision != 99 {
			t.Errorf("%d collisions: %+v, %v", collisions, result, err)
		}
	}
}

func TestUnreachable(t *testing.T) {
	blocked := make(chan struct{})
	c := answering(t, func(http.ResponseWriter, *http.Request) { <-blocked })
	defer close(blocked)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.tenants(ctx); err == nil || err.Error() != "interrupted" {
		t.Errorf("cancelled: %v", err)
	}
	c.http.Timeout = 1
	if _, err := c.tenants(t.Context()); err == nil || !strings.Contains(err.Error(), "did not answer in") {
		t.Errorf("timed out: %v", err)
	}
}

// The exit codes are a contract.
func TestStartFailures(t *testing.T) {
	wrap := func(err error) error { return copse.Errorf(copse.Unavailable, "opening: %w", err) }
	for _, tc := range []struct {
		err  error
		want int
	}{
		{errors.New("whatever"), 1},
		{copse.Errorf(copse.Invalid, "a bad setting"), 2},
		{wrap(sqlite.ErrInUse), 3},
		{wrap(sqlite.ErrNewer), 4},
		{wrap(sqlite.ErrFull), 5},
		{wrap(sqlite.ErrNotWritable), 5},
		{copse.Errorf(copse.Invalid, "data directory: %w", &fs.PathError{Op: "mkdir", Path: "x", Err: syscall.EACCES}), 5},
		{wrap(syscall.ENOSPC), 5},
		{wrap(syscall.EROFS), 5},
		{&server.AddressError{Setting: "listen", Address: "x", Err: server.ErrAddressInUse}, 6},
	} {
		if got := exitCode(startFailure(tc.err)); got != tc.want {
			t.Errorf("%v: exit code %d, want %d", tc.err, got, tc.want)
		}
	}
}

// Ctrl-C is a clean end at any time, also while the server is still on its way up.
func TestEndedBeforeItWasUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, args := range [][]string{
		{"serve", "--data", t.TempDir(), "--listen", "127.0.0.1:0", "--ops-listen", ""},
		{"dev", "--data", t.TempDir(), "--listen", "127.0.0.1:0"},
	} {
		var stderr strings.Builder
		if code := run(ctx, args, nil, strings.NewReader(""), io.Discard, &stderr); code != exitOK {
			t.Errorf("%s: exit code %d: %s", args[0], code, stderr.String())
		}
	}
}
