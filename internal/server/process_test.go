package server_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
)

// Some tests run the real program as a process of its own: to kill it, to signal it, or to give it less
// than it would like. This file builds and starts it.

const (
	processRootID     = "processrootkeyid0000"
	processRootSecret = "root-secret-of-a-process-with-forty-chars"
)

// programDir is where the program is built, once for all tests: linking it takes seconds.
var programDir string

var program = sync.OnceValues(func() (string, error) {
	binary := filepath.Join(programDir, "copse")
	cmd := exec.Command("go", "build", "-o", binary, "github.com/copse-authz/copse/cmd/copse")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as it is released
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building copse: %w\n%s", err, out)
	}
	return binary, nil
})

func TestMain(m *testing.M) {
	var err error
	if programDir, err = os.MkdirTemp("", "copse-program-"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(programDir)
	os.Exit(code)
}

func buildCopse(t *testing.T) (binary string) {
	t.Helper()
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// process is a server that answers.
type process struct {
	*exec.Cmd
	url, ops string // ops is empty without that listener
}

var (
	servesAt = regexp.MustCompile(`^copse serves (http\S+) from `)
	opsAt    = regexp.MustCompile(`^health and metrics at (http\S+)$`)
)

// launch runs "copse serve" with these flags on a port of its own, through a program such as a shell that
// sets limits if there is one, and returns when it listens.
func launch(log io.Writer, binary string, flags ...string) (*process, error) {
	return launchBy(log, nil, binary, flags...)
}

func launchBy(log io.Writer, through []string, binary string, flags ...string) (*process, error) {
	line := append(append(append([]string{}, through...), binary, "serve", "--listen", "127.0.0.1:0"), flags...)
	p := &process{Cmd: exec.Command(line[0], line[1:]...)}
	p.Env = []string{"COPSE_ROOT_ACCESS_KEY_ID=" + processRootID, "COPSE_ROOT_SECRET_ACCESS_KEY=" + processRootSecret}
	p.Stderr = log
	stdout, err := p.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.Start(); err != nil {
		return nil, err
	}
	wantOps := true
	for i, flag := range flags {
		wantOps = wantOps && !(flag == "--ops-listen" && flags[i+1] == "")
	}
	lines := bufio.NewScanner(stdout)
	for (p.url == "" || wantOps && p.ops == "") && lines.Scan() {
		if found := servesAt.FindStringSubmatch(lines.Text()); found != nil {
			p.url = found[1]
		}
		if found := opsAt.FindStringSubmatch(lines.Text()); found != nil {
			p.ops = found[1]
		}
	}
	if p.url == "" {
		return nil, errors.Join(errors.New("the server ended without a word"), p.kill())
	}
	return p, nil
}

func (p *process) root() string { return fmt.Sprintf("copse_%s_%s", processRootID, processRootSecret) }

func (p *process) signal(s os.Signal) error { return p.Process.Signal(s) }

func (p *process) kill() error {
	err := p.Process.Kill()
	_ = p.Wait() // "signal: killed"
	return err
}
