package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// startTimeout bounds what takes a second or two on a quiet machine.
const startTimeout = time.Minute

// processes are the programs of the chain. They end by [processes.stop] alone, last started first: ctx bounds
// the commands that run to their end, and waiting. It is not for use by several goroutines.
type processes struct {
	ctx     context.Context
	running []*process
}

// process is a program that runs, with what it wrote to standard output and standard error. done is closed
// when it has ended, by itself or not.
type process struct {
	name   string
	cmd    *exec.Cmd
	output *safeBuffer
	done   chan struct{}
}

// safeBuffer is written by a program and read for messages while it runs.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// start runs a program until it is stopped. ready is asked until it agrees, the program ends, or it takes
// too long; the error then has what the program said.
func (ps *processes) start(name string, cmd *exec.Cmd, ready func(context.Context) error) (*process, error) {
	p := &process{name: name, cmd: cmd, output: &safeBuffer{}, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.output, p.output
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	// From here on it is stopped with the others, also if it never becomes ready.
	ps.running = append(ps.running, p)
	go func() {
		_ = cmd.Wait() // the output says more than the code
		close(p.done)
	}()
	// From here on only waiting is bounded: the program runs on when start has returned.
	ctx, cancel := context.WithTimeout(ps.ctx, startTimeout)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return p, nil
		}
		select {
		case <-p.done:
			return nil, fmt.Errorf("%s ended: %s", name, p.output)
		case <-ctx.Done():
			return nil, fmt.Errorf("%s is not ready: %w\n%s", name, err, p.output)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stop asks a program to end, and kills it when it takes longer than ten seconds. It returns when it has ended.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		// SIGKILL can't be put off, so this wait ends.
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// stop stops all programs and returns when they have ended. What was started last may need what was started
// before it, so it goes first.
func (ps *processes) stop() {
	for _, p := range slices.Backward(ps.running) {
		p.stop()
	}
	ps.running = nil
}

// run runs a command to its end and returns what it wrote to standard output, without the space around it.
// The error of one that fails has what it wrote to standard error.
func (ps *processes) run(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, stderr.String())
	}
	return strings.TrimSpace(stdout.String()), nil
}

// answering is ready as soon as the URL answers at all.
func answering(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}
}

// freeAddress is a loopback address that nobody listens on at the moment. Another program may take it before
// ours does; ours then ends, and the start with it.
func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// find looks for a program on the path, and where Debian keeps those that it leaves off it.
func find(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	// initdb and postgres are in a directory for each version.
	candidates, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil {
		return "", err
	}
	for _, path := range append(candidates, "/usr/sbin/"+name) {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("there is no " + name + " here: `make deps` installs it")
}
